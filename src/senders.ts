import { createHash } from 'node:crypto'
import { isIP } from 'node:net'
import ipaddr from 'ipaddr.js'
import { LRUCache } from 'lru-cache'
import { budget } from './budget.ts'

/**
 * Who sends is known by the address alone, before anything is verified. All limits by address are here, so that they mean
 * the same by it: see {@link networksOf}.
 */
export interface Senders {
  /**
   * Counts a rejected request: seconds until the next one is due, 0 within the limit. What is valid is never counted, and
   * so never limited, also from an address that has sent a flood.
   */
  rejected(address: Address): number
  /**
   * The turn of what was limited in the last minute, at the costly check of a signature: one by one, behind everybody else,
   * and after a while without its turn, so that what is genuine is still done. Undefined if it need not wait.
   */
  awaitSignedTurn(address: Address): Promise<EndTurn> | undefined
  /**
   * The turn of what bears no signature: a few at once in the whole service, fewer of each sender, one while signed ones
   * wait. Undefined if its turn has not come in time, or too many wait.
   *
   * @param withinMs the time that is left, in milliseconds
   */
  awaitUnsignedTurn(address: Address, withinMs: number): Promise<EndTurn | undefined>
  /**
   * False if the sender's unsigned calls keep ending nothing: nobody can be waiting for the next one, which need not be
   * remembered.
   */
  mayRemember(address: Address): boolean
  /** Counts an unsigned call that ended nothing, of which nothing was known before either. */
  unmatched(address: Address): void
  /** Counts an unsigned call that ended something, or was a duplicate: it makes good two that ended nothing. */
  matched(address: Address): void
  /** Lines that hostile senders can provoke: so many a minute over all, and then a line with the count of the others. */
  readonly lines: Lines
  /** How many networks and calls are held in memory now. */
  size(): number
}

/** As a socket or `X-Forwarded-For` has it; undefined if the connection is gone. */
export type Address = string | undefined

/** Ends a turn; again does nothing. */
export type EndTurn = () => void

export interface SendersOptions {
  /** Default nowhere. */
  readonly logger?: Lines
  /** Milliseconds since 1970, which may be set back; default `Date.now`. */
  readonly now?: () => number
  /** The limit on rejected requests of one sender; default 60 at once, and one more each second. */
  readonly rejections?: Rate
  /** The limit on unsigned calls of one sender that end nothing; default 60 at once, and one more each minute. */
  readonly unmatched?: Rate
  /**
   * How long a signed one waits for its turn at most, in milliseconds; default {@link budget}.signedTurnMs: what is genuine
   * waits for its turn, and is done.
   */
  readonly maxSignedWaitMs?: number
  /** The unsigned calls at once, in the whole service; default 8. */
  readonly maxUnsigned?: number
  /** The unsigned calls at once of one sender; default 2. */
  readonly maxUnsignedEach?: number
  /** The unsigned calls that wait; default 1000, of one sender no more than it leaves to the others. */
  readonly maxUnsignedWaiting?: number
  /** Whether signed ones wait: then one unsigned call goes at once; default never. */
  readonly isBusy?: () => boolean
  /** The most lines a minute; default 200, of one message and of one sender no more than they leave to the others. */
  readonly maxLinesPerMinute?: number
  /** How many networks each limit remembers, the latest; default 10,000. */
  readonly maxNetworks?: number
  /** How many processes have senders in common: each has its part of every limit, and one at least. Default 1. */
  readonly processes?: number
}

/** A network larger than one sender's has a multiple of it. */
export interface Rate {
  readonly burst: number
  readonly perSecond: number
}

export interface Lines {
  info(fields: LineFields, message: string): void
  warn(fields: LineFields, message: string): void
  error(fields: LineFields, message: string): void
}

/** The address is logged by {@link printAddress}. */
export interface LineFields {
  readonly address?: Address
  readonly [name: string]: unknown
}

/** What one sender, or everybody, has of something that is shared. */
export interface Amount {
  readonly count: number
  readonly bytes: number
}

interface Network {
  readonly key: string
  /** How many senders' limits it has. Large: the trouble that one makes must not become its neighbours'. */
  readonly factor: number
}

const minuteMs = 60_000
const maxAddressLength = 80
const everybody: Network = { key: 'everybody', factor: 1_000 }

export function createSenders({
  logger,
  now = Date.now,
  rejections = { burst: 60, perSecond: 1 },
  unmatched = { burst: 60, perSecond: 1 / 60 },
  maxSignedWaitMs = budget.signedTurnMs,
  maxUnsigned = 8,
  maxUnsignedEach = 2,
  maxUnsignedWaiting = 1_000,
  isBusy = () => false,
  maxLinesPerMinute = 200,
  maxNetworks = 10_000,
  processes = 1
}: SendersOptions = {}): Senders {
  // Connections go to the processes in turn: a sender of many has, in all of them together, what it would have in one.
  const part = (limit: number) => Math.max(1, Math.floor(limit / processes))
  const partOf = ({ burst, perSecond }: Rate) => ({ burst: part(burst), perSecond: perSecond / processes })
  const lines = createLines(logger, part(maxLinesPerMinute), now)
  const rejectionsLeft = createBuckets(partOf(rejections), maxNetworks, now)
  const unmatchedLeft = createBuckets(partOf(unmatched), maxNetworks, now)
  const limited = new LRUCache<string, Limited>({
    max: maxNetworks,
    dispose({ unlogged }, _key, reason) {
      if (reason === 'evict') {
        lines.leaveOut(limitedMessage, unlogged)
      }
    }
  })
  const signedTurns = createTurns({
    maxAtOnce: () => 1,
    maxAtOnceEach: 1,
    maxWaiting: Number.POSITIVE_INFINITY // each is a request that a connection waits for
  })
  const unsignedTurns = createTurns({
    maxAtOnce: () => (isBusy() ? 1 : part(maxUnsigned)),
    maxAtOnceEach: part(maxUnsignedEach),
    maxWaiting: part(maxUnsignedWaiting)
  })

  function limit(key: string): void {
    const at = now()
    const { unlogged = 0, loggedAt = Number.NEGATIVE_INFINITY } = limited.get(key) ?? {}
    const isDue = Math.abs(at - loggedAt) >= minuteMs // also by a clock that was set back
    if (isDue) {
      lines.warn({ address: key, count: unlogged + 1 }, limitedMessage)
    }
    limited.set(key, { at, unlogged: isDue ? 0 : unlogged + 1, loggedAt: isDue ? at : loggedAt })
  }

  function isLimitedOfLate({ key }: Network): boolean {
    const found = limited.get(key)
    return found !== undefined && Math.abs(now() - found.at) <= minuteMs
  }

  return {
    rejected(address) {
      const empty = rejectionsLeft.take(networksOf(address))
      if (empty === undefined) {
        return 0
      }
      limit(empty.key)
      return empty.waitSeconds
    },

    awaitSignedTurn(address) {
      const networks = networksOf(address)
      return networks.some(isLimitedOfLate)
        ? signedTurns.wait(networks, maxSignedWaitMs).then((endTurn) => endTurn ?? (() => {}))
        : undefined
    },

    awaitUnsignedTurn: (address, withinMs) => unsignedTurns.wait(networksOf(address), withinMs),

    mayRemember: (address) => !unmatchedLeft.isAnyEmpty([...networksOf(address), everybody]),
    unmatched(address) {
      unmatchedLeft.take([...networksOf(address), everybody])
    },
    matched(address) {
      unmatchedLeft.give(networksOf(address), 2)
    },

    lines,

    size: () => rejectionsLeft.size() + unmatchedLeft.size() + limited.size + signedTurns.size() + unsignedTurns.size()
  }
}

const limitedMessage = 'too many rejected requests'

interface Limited {
  readonly at: number
  /** How many were beyond the limit since a line said so, and when that was. */
  readonly unlogged: number
  readonly loggedAt: number
}

/**
 * The networks that a sender is known by, the narrowest first: an IPv4 address and its /24, or an IPv6 address's /64, which
 * is what one sender has (RFC 6177 §2), its /48 and its /32. An IPv4 address in an IPv6 one is itself. All that is no address is
 * one sender.
 */
function networksOf(text: Address): Network[] {
  const address = parseAddress(text)
  if (address === undefined) {
    return [{ key: 'unknown', factor: 1 }]
  }
  if (address instanceof ipaddr.IPv4) {
    const [a, b, c] = address.octets
    return [
      { key: address.toString(), factor: 1 },
      { key: `${a}.${b}.${c}.0/24`, factor: 64 }
    ]
  }
  const { parts } = address
  if (isLocalTranslation(address)) {
    return [{ key: address.toString(), factor: 1 }]
  }
  const prefix = (groups: number) =>
    `${parts
      .slice(0, groups)
      .map((part) => part.toString(16))
      .join(':')}::/${16 * groups}`
  return [
    { key: prefix(4), factor: 1 },
    { key: prefix(3), factor: 20 },
    { key: prefix(2), factor: 200 }
  ]
}

/**
 * Short marks of the networks that a sender is known by, the narrowest first: for names of files, which must not contain an
 * address.
 */
export function marksOf(address: Address): string[] {
  return networksOf(address).map(({ key }) => createHash('sha256').update(key).digest('hex').slice(0, 12))
}

/** The address in its shortest form, or the beginning of what is none: for logs and for operators. */
export function printAddress(text: Address): string {
  const address = parseAddress(text)
  if (address !== undefined) {
    return address instanceof ipaddr.IPv6 ? address.toRFC5952String() : address.toString()
  }
  const printable = (text ?? 'unknown').slice(0, maxAddressLength).replace(/[^\x20-\x7e]/g, '?')
  return text !== undefined && text.length > maxAddressLength ? `${printable}… (${text.length} characters)` : printable
}

/** Some proxies append the port in `X-Forwarded-For`, and each connection would be an address of its own. */
function parseAddress(text: Address): ipaddr.IPv4 | ipaddr.IPv6 | undefined {
  if (text === undefined || text.length > maxAddressLength) {
    return undefined
  }
  const [, bracketed, plain] =
    /^(?:\[([^\]]+)\]|(\d+(?:\.\d+){3}|[0-9a-f]+(?::[0-9a-f]+){7}))(?::\d+)?$/i.exec(text) ?? []
  const [address = ''] = (bracketed ?? plain ?? text).split('%', 1)
  const version = isIP(address) // ipaddr.js alone takes 1.2 and 0x7f.1 for addresses, and throws at what is none
  if (version === 4) {
    return ipaddr.IPv4.parse(address)
  }
  return version === 6 && ipaddr.IPv6.isValid(address) ? unwrapAddress(ipaddr.IPv6.parse(address)) : undefined
}

/** An answer reaches the IPv4 address that is in such an address: it is the sender's own. */
function unwrapAddress(address: ipaddr.IPv6): ipaddr.IPv4 | ipaddr.IPv6 {
  const [, second = 0, third = 0, , , , seventh = 0, last = 0] = address.parts
  switch (address.range()) {
    case 'ipv4Mapped': // RFC 4291 §2.5.5.2
    case 'rfc6145': // ::ffff:0:0:0/96
      return fromGroups(seventh, last)
    case 'rfc6052':
      return isLocalTranslation(address) ? address : fromGroups(seventh, last)
    case '6to4': // RFC 3056 §2
      return fromGroups(second, third)
    case 'teredo': // RFC 4380 §4
      return fromGroups(seventh ^ 0xffff, last ^ 0xffff)
    default:
      return address
  }
}

/** 64:ff9b:1::/48: an IPv4 address is in it, at a place that only its own network knows (RFC 8215). */
function isLocalTranslation({ parts }: ipaddr.IPv6): boolean {
  return parts[0] === 0x64 && parts[1] === 0xff9b && parts[2] === 1
}

function fromGroups(high: number, low: number): ipaddr.IPv4 {
  return new ipaddr.IPv4([high >> 8, high & 0xff, low >> 8, low & 0xff])
}

/**
 * Whether one more has room in a share, of which no sender gets more than it leaves to the others: the first one half, the
 * next one a quarter, and so on.
 *
 * @param all what everybody has of it
 * @param own what the sender's networks have of it, each: see {@link marksOf}; empty if nothing bounds it but the share
 * @returns `full`: nobody has room; `sender-full`: this sender has none
 */
export function findRoom(
  max: Amount,
  all: Amount,
  own: readonly Amount[],
  bytes: number
): 'free' | 'full' | 'sender-full' {
  const free = { count: max.count - all.count, bytes: max.bytes - all.bytes }
  if (free.count < 1 || free.bytes < bytes) {
    return 'full'
  }
  const isFair = own.every((amount) => amount.count < free.count && amount.bytes + bytes <= free.bytes)
  return isFair ? 'free' : 'sender-full'
}

/** A bucket for each network: it is full at first, and fills up again. */
function createBuckets({ burst, perSecond }: Rate, maxNetworks: number, now: () => number) {
  const buckets = new LRUCache<string, { readonly left: number; readonly at: number }>({ max: maxNetworks })

  function look({ key, factor }: Network): number {
    const known = buckets.get(key)
    if (known === undefined) {
      return burst * factor
    }
    const seconds = Math.max(0, now() - known.at) / 1_000 // of a clock that was set back none
    return Math.min(burst * factor, known.left + seconds * perSecond * factor)
  }

  function put({ key }: Network, left: number): void {
    buckets.set(key, { left: Math.max(0, left), at: now() })
  }

  return {
    /**
     * Takes one out of each, the narrowest first, and returns the first one that is empty. The wider ones are not asked
     * then: by itself, a sender that is limited takes nothing more from its neighbours.
     */
    take(networks: readonly Network[]): { key: string; waitSeconds: number } | undefined {
      for (const network of networks) {
        const left = look(network)
        put(network, left - 1)
        if (left < 1) {
          return { key: network.key, waitSeconds: Math.ceil((1 - left) / (perSecond * network.factor)) }
        }
      }
      return undefined
    },
    give(networks: readonly Network[], amount: number): void {
      for (const network of networks.filter(({ key }) => buckets.has(key))) {
        put(network, look(network) + amount)
      }
    },
    isAnyEmpty: (networks: readonly Network[]): boolean => networks.some((network) => look(network) < 1),
    size: (): number => buckets.size
  }
}

interface TurnsOptions {
  readonly maxAtOnce: () => number
  readonly maxAtOnceEach: number
  readonly maxWaiting: number
}

interface Waiting {
  readonly sender: string
  begin(): void
}

/** Has calls wait for each other; each network in turn gets the next one, and in it each smaller one in turn. */
function createTurns({ maxAtOnce, maxAtOnceEach, maxWaiting }: TurnsOptions) {
  const waiting = createFairQueue<Waiting>()
  const waitingOf = createCounts()
  const underWay = createCounts()
  let atOnce = 0
  let isScheduled = false

  /** After what has arrived meanwhile, of everybody else. */
  function schedule(): void {
    if (!isScheduled) {
      isScheduled = true
      setImmediate(() => {
        isScheduled = false
        beginNext()
      })
    }
  }

  function beginNext(): void {
    while (atOnce < maxAtOnce()) {
      const next = waiting.take(({ sender }) => underWay.of(sender) < maxAtOnceEach)
      if (next === undefined) {
        return
      }
      atOnce += 1
      underWay.add(next.sender, 1)
      next.begin()
    }
  }

  function createEnd(sender: string): EndTurn {
    let isOver = false
    return () => {
      if (!isOver) {
        isOver = true
        atOnce -= 1
        underWay.add(sender, -1)
        schedule()
      }
    }
  }

  return {
    /** Undefined if its turn has not come in time, or no more can wait. */
    async wait(networks: readonly Network[], withinMs: number): Promise<EndTurn | undefined> {
      const path = networks.map(({ key }) => key).reverse()
      const sender = path.at(-1) ?? ''
      if (path.some((key) => waitingOf.of(key) >= maxWaiting - waiting.size())) {
        return undefined
      }
      const count = (by: 1 | -1) => {
        for (const key of path) {
          waitingOf.add(key, by)
        }
      }
      return new Promise((resolve) => {
        const entry: Waiting = {
          sender,
          begin() {
            clearTimeout(timer)
            count(-1)
            resolve(createEnd(sender))
          }
        }
        const timer = setTimeout(() => {
          waiting.remove(path, entry)
          count(-1)
          resolve(undefined)
        }, withinMs)
        count(1)
        waiting.add(path, entry)
        schedule()
      })
    },
    size: () => waiting.size() + atOnce
  }
}

interface Branch<T> {
  readonly items: Set<T>
  readonly branches: Map<string, Branch<T>>
}

/** A queue that takes from each branch of a tree in turn, and from each branch of that in turn. */
function createFairQueue<T>() {
  const root = createBranch<T>()
  let size = 0

  /** @param isDue asked of the first item of a leaf alone: those behind it are the same sender's */
  function takeFrom(branch: Branch<T>, isDue: (item: T) => boolean): T | undefined {
    for (const item of branch.items) {
      if (!isDue(item)) {
        break
      }
      branch.items.delete(item)
      return item
    }
    for (const [key, smaller] of branch.branches) {
      const item = takeFrom(smaller, isDue)
      if (item !== undefined) {
        branch.branches.delete(key)
        if (!isEmpty(smaller)) {
          branch.branches.set(key, smaller) // behind the others
        }
        return item
      }
    }
    return undefined
  }

  function removeFrom(branch: Branch<T>, [key, ...rest]: readonly string[], item: T): void {
    const smaller = key === undefined ? undefined : branch.branches.get(key)
    if (key === undefined || smaller === undefined) {
      branch.items.delete(item)
      return
    }
    removeFrom(smaller, rest, item)
    if (isEmpty(smaller)) {
      branch.branches.delete(key)
    }
  }

  return {
    add(path: readonly string[], item: T): void {
      let branch = root
      for (const key of path) {
        const smaller = branch.branches.get(key) ?? createBranch<T>()
        branch.branches.set(key, smaller)
        branch = smaller
      }
      branch.items.add(item)
      size += 1
    },
    take(isDue: (item: T) => boolean): T | undefined {
      const item = takeFrom(root, isDue)
      size -= item === undefined ? 0 : 1
      return item
    },
    /** Of one that is in the queue. */
    remove(path: readonly string[], item: T): void {
      removeFrom(root, path, item)
      size -= 1
    },
    size: () => size
  }
}

function createBranch<T>(): Branch<T> {
  return { items: new Set(), branches: new Map() }
}

function isEmpty<T>({ items, branches }: Branch<T>): boolean {
  return items.size === 0 && branches.size === 0
}

/** Counts by key; a key whose count is 0 takes no memory. */
function createCounts() {
  const counts = new Map<string, number>()
  const of = (key: string): number => counts.get(key) ?? 0
  return {
    of,
    add(key: string, by: 1 | -1): void {
      const count = of(key) + by
      if (count === 0) {
        counts.delete(key)
      } else {
        counts.set(key, count)
      }
    }
  }
}

/** Lets through so many lines a minute, and of one message and one sender no more than they leave to the others. */
function createLines(logger: Lines | undefined, maxPerMinute: number, now: () => number) {
  const leftOut = new Map<string, number>()
  let begunAt = Number.NEGATIVE_INFINITY
  let total = 0
  let counts = createCounts()
  let timer: NodeJS.Timeout | undefined

  function sumUp(): void {
    clearTimeout(timer)
    timer = undefined
    if (leftOut.size > 0) {
      const counted = Object.fromEntries(leftOut)
      leftOut.clear()
      logger?.warn({ leftOut: counted }, 'log lines left out')
    }
  }

  function leaveOut(message: string, count: number): void {
    if (count > 0) {
      leftOut.set(message, (leftOut.get(message) ?? 0) + count)
      timer ??= setTimeout(sumUp, minuteMs).unref() // also if nothing more comes
    }
  }

  function hasRoom(networks: readonly Network[], message: string): boolean {
    if (Math.abs(now() - begunAt) >= minuteMs) {
      sumUp()
      begunAt = now()
      total = 0
      counts = createCounts()
    }
    const keys = networks.map(({ key }) => `${key} ${message}`)
    const ofMessage = counts.of(message)
    if (
      ofMessage >= maxPerMinute - total ||
      keys.some((key) => counts.of(key) >= Math.ceil(maxPerMinute / 2) - ofMessage)
    ) {
      return false
    }
    total += 1
    for (const key of [message, ...keys]) {
      counts.add(key, 1)
    }
    return true
  }

  function log(level: keyof Lines, fields: LineFields, message: string): void {
    const hasAddress = 'address' in fields
    if (hasRoom(hasAddress ? networksOf(fields.address) : [], message)) {
      logger?.[level](hasAddress ? { ...fields, address: printAddress(fields.address) } : fields, message)
    } else {
      leaveOut(message, 1)
    }
  }

  return {
    info: (fields: LineFields, message: string) => log('info', fields, message),
    warn: (fields: LineFields, message: string) => log('warn', fields, message),
    error: (fields: LineFields, message: string) => log('error', fields, message),
    leaveOut
  }
}

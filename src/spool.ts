import { createHash, randomUUID } from 'node:crypto'
import { constants } from 'node:fs'
import { access, mkdir, open, readdir, readFile, rename, stat, unlink } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import type { FastifyBaseLogger } from 'fastify'
import type { LogoutRequest } from './logout-request.ts'
import { networkOf } from './network.ts'

export interface SpoolOptions {
  /** The folder; made where it is missing. Processes may share it or not. */
  readonly dir: string
  readonly logger: FastifyBaseLogger
  /** How much is kept whose signature has been verified; default 100,000 logouts, 1 GiB. */
  readonly verified?: Bound
  /**
   * How many tokens that nobody has vouched for yet; default 4,000, 64 MiB. Hostile senders can fill this share, and no
   * other; one address gets no more of it than it leaves to the others.
   */
  readonly unverified?: Bound
  /** How many front-channel calls, which bear no signature; default 4,000, 64 MiB. As above. */
  readonly frontChannel?: Bound
  /** The most kept that proved bad; default 1,000, the oldest go first. */
  readonly maxRejected?: number
}

/** The bound of one share; both members hold. */
export interface Bound {
  readonly maxCount?: number
  readonly maxBytes?: number
}

/** A logout on disk. */
export interface Kept {
  readonly name: string
  /** Time of arrival, milliseconds since 1970. */
  readonly at: number
  readonly request: LogoutRequest
  /** Its signature was verified when it arrived. */
  readonly isVerified: boolean
}

/** What cannot be done now, kept on disk until it can: one small file each, synced before the answer. */
export interface Spool {
  /**
   * Resolves once it is on disk.
   *
   * @param at its time of arrival, milliseconds since 1970
   * @param isVerified whether it is known to be genuine: what is not has a smaller share
   * @param withinMs the time that is left for it, in milliseconds
   * @param address of the sender; undefined: nothing bounds it but the share
   * @throws {SpoolError} where it could not be kept in time: the answer must not say that it was. One that is written
   *   later all the same does no harm: the same logout again ends nothing twice
   */
  keep(request: LogoutRequest, at: number, isVerified: boolean, withinMs: number, address?: string): Promise<void>
  /** The first ones of the order in which they are to be done. */
  list(limit: number): Promise<Kept[]>
  /**
   * All that is kept now, a batch at a time: the oldest first, but what is verified before what nobody has vouched
   * for, so that a hostile sender holds nothing up.
   */
  batches(size: number): AsyncIterable<Kept[]>
  remove(name: string): Promise<void>
  /** Sets one that proved bad aside, in the folder `rejected`, with the reason in its name. */
  reject(name: string, reason: string): Promise<void>
  status(): Promise<SpoolStatus>
  /** What is there, in the order in which it is to be done; told by the names alone, and nothing is made. */
  survey(): Promise<SpoolSurvey>
  /** @throws {SpoolError} where nothing could be kept now */
  checkWritable(): Promise<void>
}

/** What is kept, for operators. */
export interface SpoolStatus {
  readonly verified: number
  readonly unverified: number
  readonly frontchannel: number
  /** Set aside, since they proved bad. */
  readonly rejected: number
  /** When the oldest that waits arrived, milliseconds since 1970. */
  readonly oldestAt: number | undefined
  readonly isWritable: boolean
}

export interface SpoolSurvey {
  /** `at` is the time of arrival, milliseconds since 1970. */
  readonly kept: readonly { readonly name: string; readonly at: number; readonly share: Share }[]
  /** What proved bad, the oldest first. */
  readonly rejected: readonly { readonly at: number; readonly reason: string }[]
}

/** Our disk's fault: a logout could not be kept. */
export class SpoolError extends Error {
  readonly code = 'ERR_SPOOL'

  constructor(message: string, options?: ErrorOptions) {
    super(message, options)
    this.name = 'SpoolError'
  }
}

// In the order in which they are done: what somebody has vouched for first.
const shares = ['verified', 'unverified', 'frontchannel'] as const

/** What is kept of which kind, each with a bound of its own. */
export type Share = (typeof shares)[number]

// `<arrival>-<random>.<bytes>.<sender>.<share>.json`: size and sender stand in the name, since asking the disk for those of
// 100,000 files would take longer than an answer may.
const keptName = /^\d{15}-[^.]+(?:\.(\d+))?(?:\.([0-9a-f]{12}))?\.(verified|unverified|frontchannel)\.json$/
const partSuffix = '.part'
const maxPartAgeMs = 60_000
const checkWithinMs = 1_000
// Longer than any answer takes: then no more are made to wait, since each takes memory.
const hangsAfterMs = 2_000
// More gain nothing, since each waits for the disk; and Node's four threads for files serve signatures too.
const maxWrites = 2

export function createSpool(options: SpoolOptions): Spool {
  const { dir, logger, maxRejected = 1_000 } = options
  const bounds = {
    verified: { maxCount: 100_000, maxBytes: 2 ** 30, ...options.verified },
    unverified: { maxCount: 4_000, maxBytes: 2 ** 26, ...options.unverified },
    frontchannel: { maxCount: 4_000, maxBytes: 2 ** 26, ...options.frontChannel }
  }
  const rejectedDir = join(dir, 'rejected')
  // Names in the folder; read anew by every listing, since other processes may share it.
  let names: Set<string> | undefined
  let reading: Promise<Set<string>> | undefined
  // How much of each share is there, and how much is being written: counting the names anew for each would cost more
  // the longer an outage lasts.
  let kept = createTally()
  const writing = createTally()
  const waiting: (() => void)[] = []
  let writes = 0
  let lastTurnAt = 0
  let syncing: { isBegun: boolean; done: Promise<void> } | undefined
  let isBroken = false
  const toldFull = new Set<Share>()
  const unreadable = new Set<string>()

  /** One reading at a time, whoever asks: where the disk hangs, it holds one thread. */
  function readNames(): Promise<Set<string>> {
    reading ??= readFolder().finally(() => {
      reading = undefined
    })
    return reading
  }

  async function readFolder(): Promise<Set<string>> {
    const made = await mkdir(rejectedDir, { recursive: true, mode: 0o700 })
    if (made !== undefined) {
      await syncNow(dirname(made)) // without it a crash may forget the folder itself
    }
    const entries = (await readdir(dir)).sort()
    const found = new Set<string>()
    const tally = createTally()
    for (const name of entries) {
      const parsed = parseName(name)
      if (parsed !== undefined) {
        found.add(name)
        tally.add(parsed, 1)
      }
    }
    names = found
    kept = tally
    await removeOldParts(dir, entries)
    return found
  }

  function forget(name: string): void {
    const parsed = parseName(name)
    if (parsed !== undefined && names?.delete(name)) {
      kept.add(parsed, -1)
    }
  }

  /** @throws where it has waited too long: its sender has been told, or is about to be */
  async function inTurn(isOverdue: () => boolean, work: () => Promise<void>): Promise<void> {
    if (writes < maxWrites) {
      writes += 1
    } else if (performance.now() - lastTurnAt > hangsAfterMs) {
      throw new Error('it hangs')
    } else {
      await new Promise<void>((resolve) => waiting.push(resolve))
    }
    lastTurnAt = performance.now()
    try {
      if (isOverdue()) {
        throw new Error('it takes too long')
      }
      await work()
    } finally {
      const next = waiting.shift()
      if (next === undefined) {
        writes -= 1
      } else {
        next()
      }
    }
  }

  async function write(name: string, content: string): Promise<void> {
    const temporary = join(dir, `.${randomUUID()}${partSuffix}`)
    const file = await open(temporary, 'wx', 0o600)
    try {
      await file.writeFile(content)
      await file.sync()
    } catch (error) {
      await file.close()
      await unlink(temporary)
      throw error
    }
    await file.close()
    await rename(temporary, join(dir, name))
  }

  /** A crash may forget a name before this. One that has not begun serves all whose names are there by then. */
  function syncFolder(): Promise<void> {
    if (syncing === undefined || syncing.isBegun) {
      const before = syncing?.done
      const next = { isBegun: false, done: Promise.resolve() }
      next.done = (async () => {
        await before?.catch(() => {}) // told to those who waited for that one
        next.isBegun = true
        await syncNow(dir)
      })()
      syncing = next
    }
    return syncing.done
  }

  async function keepNow(entry: Entry, at: number, content: string, isOverdue: () => boolean): Promise<void> {
    if (names === undefined) {
      await readNames()
    }
    checkRoom(entry)
    const { share, bytes, sender } = entry
    const random = randomUUID()
    const name = `${String(at).padStart(15, '0')}-${random}.${bytes}${sender === undefined ? '' : `.${sender}`}.${share}.json`
    writing.add(entry, 1)
    try {
      await inTurn(isOverdue, () => write(name, content))
    } finally {
      writing.add(entry, -1)
    }
    if (names !== undefined && !names.has(name)) {
      names.add(name)
      kept.add(entry, 1)
    }
    await syncFolder()
    isBroken = false
    toldFull.delete(share)
  }

  function checkRoom({ share, bytes, sender }: Entry): void {
    const used = (whose?: string) => sum(kept.of(share, whose), writing.of(share, whose))
    const all = used()
    const free = { count: bounds[share].maxCount - all.count, bytes: bounds[share].maxBytes - all.bytes }
    if (free.count < 1 || free.bytes < bytes) {
      throw full(share)
    }
    const own = used(sender)
    if (sender !== undefined && (own.count >= free.count || own.bytes + bytes > free.bytes)) {
      throw new SpoolError('the sender has its part of the spool') // no line: any number of addresses would each fill the log
    }
  }

  /** No sign that the disk is of no use: a hostile sender can fill what is not verified. */
  function full(share: Share): SpoolError {
    if (!toldFull.has(share)) {
      toldFull.add(share)
      logger.error({ code: 'ERR_SPOOL', share, ...kept.of(share) }, 'the spool is full')
    }
    return new SpoolError('the spool is full')
  }

  function broken(error: unknown): SpoolError {
    if (error instanceof SpoolError) {
      return error
    }
    if (!isBroken) {
      isBroken = true
      logger.error(
        { code: 'ERR_SPOOL', cause: error instanceof Error ? error.message : error, dir },
        'the spool is of no use'
      )
    }
    return new SpoolError('the spool cannot be written', { cause: error })
  }

  /** One that cannot be read, as another user's, holds up no other. */
  async function readOrSkip(name: string): Promise<Kept | undefined> {
    try {
      const kept = await readKept(dir, name)
      unreadable.delete(name)
      return kept
    } catch (error) {
      if (!unreadable.has(name)) {
        unreadable.add(name)
        logger.error(
          { code: 'ERR_SPOOL', cause: error instanceof Error ? error.message : error },
          'cannot read what is kept'
        )
      }
      return undefined
    }
  }

  async function* batches(size: number): AsyncGenerator<Kept[]> {
    const ordered = inOrder([...(await readNames())])
    for (let i = 0; i < ordered.length; i += size) {
      const read = await Promise.all(ordered.slice(i, i + size).map(({ name }) => readOrSkip(name)))
      const batch = read.filter((entry) => entry !== undefined)
      if (batch.length > 0) {
        yield batch
      }
    }
  }

  async function checkWritable(): Promise<void> {
    try {
      await within(
        readNames().then(() => access(dir, constants.W_OK | constants.X_OK)),
        checkWithinMs
      )
    } catch (error) {
      throw broken(error)
    }
    const { count, bytes } = kept.of('verified')
    if (count >= bounds.verified.maxCount || bytes >= bounds.verified.maxBytes) {
      throw full('verified')
    }
    if (isBroken) {
      throw new SpoolError('the spool could not be written when it was last needed')
    }
  }

  return {
    async keep(request, at, isVerified, withinMs, address) {
      const share = isVerified ? 'verified' : 'token' in request ? 'unverified' : 'frontchannel'
      const overdueAt = performance.now() + withinMs
      const isOverdue = () => performance.now() >= overdueAt
      try {
        const content = JSON.stringify({ at, request })
        const sender = isVerified || address === undefined ? undefined : senderOf(address)
        const entry = { share, bytes: Buffer.byteLength(content), sender } as const
        await within(keepNow(entry, at, content, isOverdue), withinMs)
      } catch (error) {
        throw broken(error)
      }
    },

    async list(limit) {
      for await (const batch of batches(limit)) {
        return batch
      }
      return []
    },

    batches,

    async remove(name) {
      forget(name)
      await unlinkIfThere(join(dir, name))
    },

    async reject(name, reason) {
      forget(name)
      const target = join(rejectedDir, `${name.slice(0, name.indexOf('.'))}.${reason}.json`)
      await rename(join(dir, name), target).catch(ignoreMissing)
      const rejected = (await readdir(rejectedDir)).sort()
      await Promise.all(
        rejected
          .slice(0, Math.max(0, rejected.length - maxRejected))
          .map((old) => unlinkIfThere(join(rejectedDir, old)))
      )
    },

    async status() {
      const isWritable = await checkWritable().then(
        () => true,
        () => false
      )
      const rejected = isWritable ? await readdir(rejectedDir) : []
      const arrivals = [...(names ?? [])].map(arrivalOf)
      return {
        verified: kept.of('verified').count,
        unverified: kept.of('unverified').count,
        frontchannel: kept.of('frontchannel').count,
        rejected: rejected.length,
        oldestAt: arrivals.length === 0 ? undefined : arrivals.reduce((oldest, at) => Math.min(oldest, at)),
        isWritable
      }
    },

    async survey() {
      const listed = async (folder: string) => ((await readdir(folder).catch(ignoreMissing)) ?? []).sort()
      return {
        kept: inOrder(await listed(dir)),
        rejected: (await listed(rejectedDir)).map((name) => ({
          at: arrivalOf(name),
          reason: /\.(\w+)\.json$/.exec(name)?.[1] ?? 'unknown'
        }))
      }
    },

    checkWritable
  }
}

/** What the name of a file tells. */
interface Entry {
  readonly share: Share
  readonly bytes: number
  /** Who sent what is not verified, as {@link senderOf} has it. */
  readonly sender: string | undefined
}

interface Amount {
  readonly count: number
  readonly bytes: number
}

const nothing: Amount = { count: 0, bytes: 0 }

function sum(a: Amount, b: Amount): Amount {
  return { count: a.count + b.count, bytes: a.bytes + b.bytes }
}

/** Counts by share, and by share and sender. */
function createTally() {
  const amounts = new Map<string, Amount>()
  const keyOf = (share: Share, sender?: string) => `${share} ${sender ?? ''}`
  return {
    add({ share, bytes, sender }: Entry, sign: 1 | -1): void {
      for (const key of new Set([keyOf(share), keyOf(share, sender)])) {
        const amount = sum(amounts.get(key) ?? nothing, { count: sign, bytes: sign * bytes })
        if (amount.count === 0) {
          amounts.delete(key)
        } else {
          amounts.set(key, amount)
        }
      }
    },
    of: (share: Share, sender?: string): Amount => amounts.get(keyOf(share, sender)) ?? nothing
  }
}

/** Undefined of what is none of ours. */
function parseName(name: string): Entry | undefined {
  const [, bytes = '0', sender, named] = keptName.exec(name) ?? []
  const share = shares.find((known) => known === named)
  return share === undefined ? undefined : { share, bytes: Number(bytes), sender }
}

/** A mark of the sender's network, for the names of files, which tell no address. */
function senderOf(address: string): string {
  return createHash('sha256').update(networkOf(address)).digest('hex').slice(0, 12)
}

/** What is kept, by share: what is verified before what nobody has vouched for. Leaves out what is none of ours. */
function inOrder(names: readonly string[]): SpoolSurvey['kept'][number][] {
  const kept = names.flatMap((name) => {
    const share = parseName(name)?.share
    return share === undefined ? [] : [{ name, at: arrivalOf(name), share }]
  })
  return shares.flatMap((share) => kept.filter((entry) => entry.share === share))
}

function arrivalOf(name: string): number {
  return Number(name.slice(0, 15))
}

function within<T>(work: Promise<T>, ms: number): Promise<T> {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => reject(new Error(`it takes longer than ${ms} ms`)), ms)
    work.then(resolve, reject).finally(() => clearTimeout(timer))
  })
}

/** What a process that was killed has left half written; a younger one may still be another process's work. */
async function removeOldParts(dir: string, entries: readonly string[]): Promise<void> {
  for (const name of entries.filter((entry) => entry.startsWith('.') && entry.endsWith(partSuffix))) {
    const path = join(dir, name)
    const found = await stat(path).catch(ignoreMissing)
    if (found !== undefined && Date.now() - found.mtimeMs > maxPartAgeMs) {
      await unlink(path).catch(() => {}) // another was faster, or it is none of ours
    }
  }
}

/** Undefined where another process was faster, or the file is none of ours. */
async function readKept(dir: string, name: string): Promise<Kept | undefined> {
  const content = await readFile(join(dir, name), 'utf8').catch(ignoreMissing)
  if (content === undefined) {
    return undefined
  }
  // One of another form is none of ours: refused, and so set aside.
  const request = requestOf(content) ?? { token: '' }
  return { name, at: arrivalOf(name), request, isVerified: parseName(name)?.share === 'verified' }
}

function requestOf(content: string): LogoutRequest | undefined {
  let value: unknown
  try {
    value = JSON.parse(content)
  } catch {
    return undefined // cut short by a crash
  }
  const request = isObject(value) ? value.request : undefined
  if (!isObject(request)) {
    return undefined
  }
  const { token, issuerName, issuer, sid } = request
  if (typeof token === 'string') {
    return { token }
  }
  const hasIssuer = issuer === undefined || typeof issuer === 'string'
  return typeof issuerName === 'string' && typeof sid === 'string' && hasIssuer
    ? { issuerName, issuer, sid }
    : undefined
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

async function syncNow(dir: string): Promise<void> {
  const folder = await open(dir, 'r')
  try {
    await folder.sync()
  } finally {
    await folder.close()
  }
}

async function unlinkIfThere(path: string): Promise<void> {
  await unlink(path).catch(ignoreMissing)
}

function ignoreMissing(error: unknown): undefined {
  if (error instanceof Error && 'code' in error && error.code === 'ENOENT') {
    return undefined
  }
  throw error
}

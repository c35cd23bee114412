import type { FastifyBaseLogger } from 'fastify'
import { Type } from 'typebox'
import { Value } from 'typebox/value'
import { createDurableFiles, FilesError, type StuckFile } from './durable-files.ts'
import { type Amount, findRoom, marksOf } from './senders.ts'
import { type Order, orderId } from './sign-out.ts'

/** What is done later: the orders of a signal that was verified, or a signal that could not be judged yet. Plain data. */
export type Deferred = {
  /** The signal's kind. */
  readonly source: string
  readonly isSigned: boolean
  /** When it arrived, milliseconds since 1970. */
  readonly receivedAt: number
} & (
  | { readonly kind: 'orders'; readonly orders: readonly Order[] }
  | { readonly kind: 'signal'; readonly input: unknown }
)

export interface SpoolOptions {
  /** The folder; made if it is missing. Processes may share it or not. */
  readonly dir: string
  readonly logger: FastifyBaseLogger
  /** How many orders of signals that were verified; default 100,000, 1 GiB. */
  readonly verified?: Partial<Amount>
  /**
   * How many signed signals that could not be verified yet; default 4,000, 64 MiB. Hostile senders can fill this share, and no
   * other; one sender gets no more of it than it leaves to the others.
   */
  readonly unverified?: Partial<Amount>
  /** How many of signals that bear no signature; default 4,000, 64 MiB. As above. */
  readonly unsigned?: Partial<Amount>
  /** The most that are set aside, since they proved bad; default 1,000, the oldest go first. */
  readonly maxRejected?: number
}

/** One that is on disk. */
export interface DeferredFile {
  readonly name: string
  /** Undefined if the file is none of ours, or damaged. */
  readonly deferred: Deferred | undefined
}

/** What cannot be done now, on disk until it can be: one small file each, synced before the answer. */
export interface Spool {
  /**
   * Writes it, unless the same is there already: a signal that comes 10,000 times in an outage is one file.
   *
   * @param withinMs the time that is left for it, in milliseconds
   * @param sender the address; undefined: nothing bounds it but the share
   * @returns whether it is on disk. One that is written later all the same does no harm: the same order again ends nothing twice
   */
  defer(deferred: Deferred, withinMs: number, sender?: string): Promise<boolean>
  /** The first ones of the order in which they are to be done. */
  list(limit: number): Promise<DeferredFile[]>
  /**
   * All that is there now, a batch at a time: the oldest first, but what was verified before what nobody has vouched for, so that
   * a hostile sender holds nothing up.
   */
  batches(size: number): AsyncIterable<DeferredFile[]>
  remove(name: string): Promise<void>
  /** Sets one that proved bad aside, in the folder `rejected`, with the reason in its name. */
  reject(name: string, reason: string): Promise<void>
  status(): Promise<SpoolStatus>
  /** What is there, in the order in which it is to be done; read from the names alone, and nothing is made. */
  survey(): Promise<SpoolSurvey>
  /** @throws {SpoolError} if nothing could be deferred now, or what is deferred is stuck */
  checkReady(): Promise<void>
}

/** What is there, for operators. */
export interface SpoolStatus {
  readonly verified: number
  readonly unverified: number
  readonly unsigned: number
  /** Set aside, since they proved bad. */
  readonly rejected: number
  /** They cannot be read, or are not to be believed. */
  readonly stuck: readonly StuckFile[]
  /** When the oldest that waits arrived, milliseconds since 1970. */
  readonly oldestAt: number | undefined
  readonly isWritable: boolean
}

export interface SpoolSurvey {
  /** `at` is the time of arrival, milliseconds since 1970. */
  readonly deferred: readonly { readonly name: string; readonly at: number; readonly share: Share }[]
  /** What proved bad, the oldest first. */
  readonly rejected: readonly { readonly at: number; readonly reason: string }[]
}

/** Our disk's fault: nothing could be deferred. */
export class SpoolError extends Error {
  readonly code: 'ERR_SPOOL' | 'ERR_SPOOL_FULL' | 'ERR_SPOOL_STUCK' | FilesError['code']

  constructor(code: SpoolError['code'], message: string, options?: ErrorOptions) {
    super(message, options)
    this.name = 'SpoolError'
    this.code = code
  }
}

// In the order in which they are done: what somebody has vouched for first, signed before unsigned.
const shares = ['verified', 'unverified', 'unsigned'] as const

/** What is there of which kind, each with a bound of its own. */
export type Share = (typeof shares)[number]

// `<arrival>-<id>.<bytes>.<marks>.<share>.json`: size and sender stand in the name, since asking the disk for those of 100,000
// files would take longer than an answer may.
const fileName =
  /^\d{15}-([0-9a-f-]{36})\.(\d+)(?:\.([0-9a-f]{12}(?:-[0-9a-f]{12})*))?\.(verified|unverified|unsigned)\.json$/
const rejectedFolder = 'rejected'
const maxFileBytes = 2 ** 20
const checkWithinMs = 1_000
// What a listing older than that says may no longer be so.
const staleAfterMs = 2_000

/** Opens the spool; nothing is done before the first call. */
export function createSpool(options: SpoolOptions): Spool {
  const { dir, logger, maxRejected = 1_000 } = options
  const bounds = {
    verified: { count: 100_000, bytes: 2 ** 30, ...options.verified },
    unverified: { count: 4_000, bytes: 2 ** 26, ...options.unverified },
    unsigned: { count: 4_000, bytes: 2 ** 26, ...options.unsigned }
  }
  const files = createDurableFiles({ dir, folders: { [rejectedFolder]: maxRejected }, maxFileBytes })
  // What is there by id, or on its way there. Read anew by every listing, since other processes may share the folder.
  let present: Map<string, Present> | undefined
  // How much of each share that is: counting anew for each would cost more the longer an outage lasts.
  let tally = createTally()
  let readAt = Number.NEGATIVE_INFINITY
  let isRefreshing = false
  let lastProblem: string | undefined
  const knownStuck = new Set<string>()

  async function refresh(withinMs?: number): Promise<void> {
    const names = await files.names(withinMs === undefined ? {} : { withinMs })
    const found = new Map<string, Present>()
    const gone = new Set(knownStuck)
    for (const name of names) {
      gone.delete(name)
      const entry = parseName(name)
      if (entry !== undefined) {
        found.set(entry.id, { name, entry })
      }
    }
    for (const [id, known] of present ?? []) {
      if (known.writing !== undefined) {
        found.set(id, known)
      }
    }
    for (const name of gone) {
      knownStuck.delete(name)
    }
    present = found
    readAt = performance.now()
    tally = createTally()
    for (const { entry } of found.values()) {
      tally.add(entry, 1)
    }
  }

  /** Others write and remove here, too, and a process that defers may be none that lists. */
  function isStale(): boolean {
    return performance.now() - readAt > staleAfterMs
  }

  /** No write waits for it. */
  function refreshBeside(): void {
    if (!isRefreshing) {
      isRefreshing = true
      refresh()
        .catch(() => {}) // the next one tries again
        .finally(() => {
          isRefreshing = false
        })
    }
  }

  async function write(entry: Entry, at: number, content: string, withinMs: number): Promise<void> {
    if (present === undefined) {
      await refresh(withinMs)
    } else if (isStale()) {
      refreshBeside()
    }
    let known = present?.get(entry.id)
    if (known !== undefined && known.writing === undefined && isStale()) {
      await refresh(withinMs) // it may have been done since, and be no more on disk: then this is another one
      known = present?.get(entry.id)
    }
    if (known !== undefined) {
      return known.writing // done by another process meanwhile: then it need not be done again
    }
    if (isStale() && findRoomFor(entry) !== 'free') {
      await refresh(withinMs)
    }
    checkRoom(entry)
    const name = nameOf(entry, at)
    const writing = files.write(name, content, { withinMs, isPreferred: entry.share === 'verified' }).then(() => {})
    present?.set(entry.id, { name, entry, writing })
    tally.add(entry, 1)
    try {
      await writing
      present?.set(entry.id, { name, entry })
      lastProblem = undefined
    } catch (error) {
      forget(entry.id)
      throw error
    }
  }

  function forget(id: string): void {
    const known = present?.get(id)
    if (known !== undefined) {
      present?.delete(id)
      tally.add(known.entry, -1)
    }
  }

  function findRoomFor({ share, bytes, marks }: Entry) {
    const own = marks.map((mark) => tally.of(share, mark))
    return findRoom(bounds[share], tally.of(share), own, bytes)
  }

  function checkRoom(entry: Entry): void {
    switch (findRoomFor(entry)) {
      case 'free':
        return
      case 'full':
        throw new SpoolError('ERR_SPOOL_FULL', `the share "${entry.share}" of the spool is full`)
      case 'sender-full':
        // No line: any number of addresses would each fill the log.
        throw new SpoolError('ERR_SPOOL', 'the sender has its part of the spool')
    }
  }

  /** One line, not one for each that comes while it lasts. */
  function logFailure(error: unknown): void {
    const { code, message } = spoolErrorOf(error)
    if (code !== 'ERR_SPOOL' && code !== lastProblem) {
      lastProblem = code
      logger.error({ code, cause: message, dir }, 'nothing can be deferred')
    }
  }

  async function read(name: string): Promise<DeferredFile[]> {
    const reading = await files.read(name)
    switch (reading.state) {
      case 'read':
        knownStuck.delete(name)
        return [{ name, deferred: parseDeferred(reading.content) }]
      case 'gone':
        return [] // another process was faster
      case 'stuck':
        if (!knownStuck.has(name)) {
          knownStuck.add(name)
          logger.error({ code: 'ERR_SPOOL_STUCK', file: name, cause: reading.reason }, 'a deferred file cannot be read')
        }
        return []
    }
  }

  async function* batches(size: number): AsyncGenerator<DeferredFile[]> {
    await refresh()
    const ordered = inOrder([...(present?.values() ?? [])].filter(({ writing }) => writing === undefined))
    for (let i = 0; i < ordered.length; i += size) {
      const batch = await Promise.all(ordered.slice(i, i + size).map(({ name }) => read(name)))
      if (batch.flat().length > 0) {
        yield batch.flat()
      }
    }
  }

  async function checkReady(): Promise<void> {
    try {
      await files.check()
      if (present === undefined) {
        await refresh(checkWithinMs)
      }
    } catch (error) {
      logFailure(error)
      throw spoolErrorOf(error)
    }
    const { count, bytes } = tally.of('verified')
    if (count >= bounds.verified.count || bytes >= bounds.verified.bytes) {
      throw new SpoolError('ERR_SPOOL_FULL', 'the share "verified" of the spool is full')
    }
    const [stuck] = files.stuck()
    if (stuck !== undefined) {
      throw new SpoolError('ERR_SPOOL_STUCK', `"${stuck.name}" cannot be read: ${stuck.reason}`)
    }
  }

  return {
    async defer(deferred, withinMs, sender) {
      const share = !deferred.isSigned ? 'unsigned' : deferred.kind === 'orders' ? 'verified' : 'unverified'
      try {
        const content = JSON.stringify(deferred)
        const marks = share === 'verified' || sender === undefined ? [] : marksOf(sender)
        const entry = { id: idOf(deferred), share, bytes: Buffer.byteLength(content), marks } as const
        await write(entry, deferred.receivedAt, content, withinMs)
        return true
      } catch (error) {
        logFailure(error)
        return false
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
      await files.remove(name)
      forget(parseName(name)?.id ?? '')
    },

    async reject(name, reason) {
      await files.move(name, rejectedFolder, `${name.slice(0, name.indexOf('.'))}.${reason}.json`)
      forget(parseName(name)?.id ?? '')
    },

    async status() {
      const isWritable = await checkReady().then(
        () => true,
        (error: unknown) => error instanceof SpoolError && error.code === 'ERR_SPOOL_STUCK'
      )
      const rejected = isWritable ? await files.names({ folder: rejectedFolder }) : []
      const arrivals = [...(present?.values() ?? [])].map(({ name }) => arrivalOf(name))
      return {
        verified: tally.of('verified').count,
        unverified: tally.of('unverified').count,
        unsigned: tally.of('unsigned').count,
        rejected: rejected.length,
        stuck: files.stuck(),
        oldestAt: arrivals.length === 0 ? undefined : arrivals.reduce((oldest, at) => Math.min(oldest, at)),
        isWritable
      }
    },

    async survey() {
      const names = await files.names()
      const found = names.flatMap((name) => {
        const entry = parseName(name)
        return entry === undefined ? [] : [{ name, entry }]
      })
      return {
        deferred: inOrder(found).map(({ name, entry }) => ({ name, at: arrivalOf(name), share: entry.share })),
        rejected: (await files.names({ folder: rejectedFolder })).map((name) => ({
          at: arrivalOf(name),
          reason: /\.(\w+)\.json$/.exec(name)?.[1] ?? 'unknown'
        }))
      }
    },

    checkReady
  }
}

interface Present {
  readonly name: string
  readonly entry: Entry
  /** While it is on its way to the disk. */
  readonly writing?: Promise<void>
}

/** What the name of a file says. */
interface Entry {
  readonly id: string
  readonly share: Share
  readonly bytes: number
  /** Of the sender's networks, if nobody has vouched for it. */
  readonly marks: readonly string[]
}

const nothing: Amount = { count: 0, bytes: 0 }

/** Counts by share, and by share and mark. */
function createTally() {
  const amounts = new Map<string, Amount>()
  const keyOf = (share: Share, mark = '') => `${share} ${mark}`
  return {
    add({ share, bytes, marks }: Entry, sign: 1 | -1): void {
      for (const key of [keyOf(share), ...marks.map((mark) => keyOf(share, mark))]) {
        const { count, bytes: known } = amounts.get(key) ?? nothing
        const amount = { count: count + sign, bytes: known + sign * bytes }
        if (amount.count === 0) {
          amounts.delete(key)
        } else {
          amounts.set(key, amount)
        }
      }
    },
    of: (share: Share, mark?: string): Amount => amounts.get(keyOf(share, mark)) ?? nothing
  }
}

/** Undefined of what is none of ours. */
function parseName(name: string): Entry | undefined {
  const [, id = '', bytes = '0', marks, named] = fileName.exec(name) ?? []
  const share = shares.find((known) => known === named)
  return share === undefined
    ? undefined
    : { id, share, bytes: Number(bytes), marks: marks === undefined ? [] : marks.split('-') }
}

function nameOf({ id, bytes, marks, share }: Entry, at: number): string {
  const sender = marks.length === 0 ? '' : `.${marks.join('-')}`
  return `${String(at).padStart(15, '0')}-${id}.${bytes}${sender}.${share}.json`
}

/** The same for the same signal. */
function idOf(deferred: Deferred): string {
  return deferred.kind === 'orders'
    ? orderId('deferred', ...deferred.orders.map(({ id }) => id))
    : orderId('deferred', deferred.source, JSON.stringify(deferred.input) ?? '')
}

/** By share, the oldest first. */
function inOrder<Of extends { readonly name: string; readonly entry: Entry }>(entries: readonly Of[]): Of[] {
  const sorted = [...entries].sort((a, b) => (a.name < b.name ? -1 : 1))
  return shares.flatMap((share) => sorted.filter(({ entry }) => entry.share === share))
}

function arrivalOf(name: string): number {
  return Number(name.slice(0, 15))
}

function spoolErrorOf(error: unknown): SpoolError {
  if (error instanceof SpoolError) {
    return error
  }
  return error instanceof FilesError
    ? new SpoolError(error.code, error.message, { cause: error })
    : new SpoolError('ERR_SPOOL', 'the spool cannot be written', { cause: error })
}

const text = Type.String({ minLength: 1, maxLength: 4_096 })
const SelectorSchema = Type.Union([
  Type.Object({ kind: Type.Literal('session'), issuer: text, sid: text, subject: Type.Optional(text) }),
  Type.Object({ kind: Type.Literal('subject'), issuer: text, subject: text, sid: Type.Optional(text) }),
  Type.Object({ kind: Type.Literal('account'), homeAccountId: text, issuer: Type.Optional(text) }),
  Type.Object({ kind: Type.Literal('object'), tenantId: text, objectId: text })
])
const OrderSchema = Type.Object({
  id: Type.String({ pattern: '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$' }),
  source: text,
  issuerName: Type.Optional(text),
  selector: SelectorSchema,
  revokeBefore: Type.Integer({ minimum: 0 }),
  purgeScope: Type.Enum(['account', 'session']),
  sparesNewer: Type.Boolean(),
  isSigned: Type.Boolean(),
  isOnce: Type.Boolean(),
  recordUnmatched: Type.Boolean(),
  rememberSeconds: Type.Integer({ minimum: 0 }),
  clientId: Type.Optional(text),
  jti: Type.Optional(text),
  issuedAt: Type.Optional(Type.Number()),
  reason: Type.Optional(text),
  actor: Type.Optional(text),
  requestHash: Type.Optional(text)
})
const common = { source: text, isSigned: Type.Boolean(), receivedAt: Type.Integer({ minimum: 0 }) }
const DeferredSchema = Type.Union([
  Type.Object({ ...common, kind: Type.Literal('orders'), orders: Type.Array(OrderSchema, { minItems: 1 }) }),
  Type.Object({ ...common, kind: Type.Literal('signal'), input: Type.Unknown() })
])

function parseDeferred(content: string): Deferred | undefined {
  let value: unknown
  try {
    value = JSON.parse(content)
  } catch {
    return undefined // cut short by a crash
  }
  return Value.Check(DeferredSchema, value) ? value : undefined
}

import { setTimeout as delay } from 'node:timers/promises'
import type { FastifyBaseLogger } from 'fastify'
import { isOfPolicy, RejectedError, UnavailableError } from './errors.ts'
import { committed, type Outcome } from './receive.ts'
import { type Repetition, repeat } from './repeat.ts'
import { isOfLock, isOfOneOrder, type Order, type SignOut, type SignOutResult } from './sign-out.ts'
import type { Ignored, Signal } from './signals/signal.ts'
import type { Deferred, DeferredFile, Spool } from './spool.ts'
import type { RunOptions } from './steps.ts'

export interface RetryOptions {
  readonly spool: Pick<Spool, 'batches' | 'remove' | 'reject' | 'defer'>
  /** Those that can be deferred before they are read. */
  readonly signals: readonly Signal[]
  readonly signOut: SignOut
  /** One order alone, with a longer time limit: for what holds others up, and for what takes long. */
  readonly signOutAlone: (order: Order, options: RunOptions) => Promise<SignOutResult>
  readonly logger: FastifyBaseLogger
  /** Sees the outcome of each one that needs no further try, but of a damaged file. */
  readonly observe: (outcome: Outcome) => void
  /** Milliseconds since 1970; default `Date.now`. */
  readonly now?: () => number
}

/** How many were done, and how many proved bad. */
export interface RetryCounts {
  readonly done: number
  readonly rejected: number
}

const batchSize = 128
const minWaitMs = 100
const maxWaitMs = 1_000
const maxBackOffMs = 60_000
const maxWaitingAlone = 256
const maxLockWaitMs = 5_000
const deferWithinMs = 10_000

// As long as somebody may take to mend a configuration.
const maxPolicyMs = 86_400_000

/** Why something goes alone: somebody holds a lock, or a directory must be asked; else it may be large. */
type Reason = 'held' | 'asked' | 'large'

interface Pause {
  readonly dueAt: number
  readonly backOffMs: number
  /** Undefined: it goes among others. */
  readonly reason: Reason | undefined
}

/** What goes alone for one reason waits for nothing that goes for another. */
interface Lane {
  /** How many go at once. */
  readonly max: number
  readonly waiting: DeferredFile[]
  readonly running: Set<Promise<void>>
}

/** `moves`: nobody holds it any more, and it takes several steps. */
type End = 'done' | 'rejected' | 'waits' | 'moves' | 'outage'

/** Carries out what is deferred, in rounds: in batches, the oldest first. */
export function createRetry(options: RetryOptions) {
  const { spool, signals, signOut, signOutAlone, logger, observe, now = Date.now } = options
  // What has to wait comes again after a back-off; what could not be done among others goes alone then. Neither costs anybody a round.
  const paused = new Map<string, Pause>()
  const lanes: Readonly<Record<Reason, Lane>> = { held: createLane(1), asked: createLane(1), large: createLane(2) }
  /** The names of what waits in a lane, or goes. */
  const taken = new Set<string>()
  const bySource = new Map(signals.map((signal) => [signal.source, signal]))
  const stopping = new AbortController()
  let lastProblem: string | undefined

  /** One line, not one each second while it lasts. */
  function logOnce(problem: string): void {
    if (problem !== lastProblem) {
      lastProblem = problem
      logger.error({ cause: problem }, 'retrying what is deferred failed')
    }
  }

  /** One round. What has to go alone is begun, and not waited for: it would hold up the round. */
  async function round(signal: AbortSignal): Promise<RetryCounts> {
    const counts = { done: 0, rejected: 0 }
    const missing = new Set(paused.keys())
    try {
      for await (const batch of spool.batches(batchSize)) {
        const due = batch.filter(isDue)
        for (const file of due) {
          const reason = reasonOf(file)
          if (reason !== undefined) {
            begin(file, lanes[reason])
          }
        }
        const ends = await Promise.all(due.filter((file) => reasonOf(file) === undefined).map(retryOne))
        for (const { name } of batch) {
          missing.delete(name)
        }
        counts.done += ends.filter((end) => end === 'done').length
        counts.rejected += ends.filter((end) => end === 'rejected').length
        // While the database is away the rest need not try.
        if (signal.aborted || (ends.length > 0 && ends.every((end) => end === 'outage'))) {
          missing.clear() // nobody has looked
          break
        }
      }
      for (const name of missing) {
        paused.delete(name) // another process has done it, or somebody has taken the file away
      }
    } catch (error) {
      logOnce(error instanceof Error ? error.message : 'unknown') // of the folder
    }
    if (counts.done + counts.rejected > 0) {
      lastProblem = undefined
      logger.info(counts, 'retried what was deferred')
    }
    return counts
  }

  /** Behind what has failed less often: an order that comes again and again holds up none that is new. */
  function begin(file: DeferredFile, lane: Lane): void {
    const { max, waiting, running } = lane
    taken.add(file.name)
    waiting.push(file)
    waiting.sort((one, other) => backOffOf(one) - backOffOf(other))
    for (const { name } of waiting.splice(maxWaitingAlone)) {
      taken.delete(name) // a later round has it
    }
    if (running.size < max) {
      const run = drainWaiting(lane).finally(() => running.delete(run))
      running.add(run)
    }
  }

  async function drainWaiting({ waiting }: Lane): Promise<void> {
    for (let file = waiting.shift(); file !== undefined; file = waiting.shift()) {
      const end = await retryOne(file)
      taken.delete(file.name)
      if (stopping.signal.aborted) {
        return
      }
      if (end === 'moves') {
        begin(file, lanes.large)
      }
    }
  }

  function backOffOf({ name }: DeferredFile): number {
    return paused.get(name)?.backOffMs ?? 0
  }

  function isDue({ name }: DeferredFile): boolean {
    return (paused.get(name)?.dueAt ?? 0) <= now() && !taken.has(name)
  }

  function reasonOf({ name }: DeferredFile): Reason | undefined {
    return paused.get(name)?.reason
  }

  function pause(name: string, reason: Reason | undefined): 'waits' {
    const backOffMs = Math.min((paused.get(name)?.backOffMs ?? minWaitMs / 2) * 2, maxBackOffMs)
    paused.set(name, { dueAt: now() + backOffMs, backOffMs, reason })
    return 'waits'
  }

  /** Never rejects: a file that can be neither removed nor set aside waits, and holds up no other. */
  async function retryOne(file: DeferredFile): Promise<End> {
    try {
      return await tryOne(file)
    } catch (error) {
      return wait(file.name, error)
    }
  }

  async function tryOne(file: DeferredFile): Promise<End> {
    const { name, deferred } = file
    if (deferred === undefined) {
      await spool.reject(name, 'ERR_SPOOL_FILE')
      logger.error({ code: 'ERR_SPOOL_FILE', file: name }, 'a file of the spool is damaged, and set aside')
      return 'rejected'
    }
    const { source, isSigned, receivedAt } = deferred
    const common = () => ({ source, sender: undefined, isRetry: true, tookMs: Math.max(0, now() - receivedAt) })
    let reading: readonly Order[] | Ignored
    try {
      reading = await readDeferred(deferred)
    } catch (error) {
      if (!(error instanceof RejectedError)) {
        return wait(name, error)
      }
      // It was acceptable when it arrived. A configuration that leaves its issuer out by mistake is mended, and it is done then.
      if (isOfPolicy(error.code) && now() - receivedAt < maxPolicyMs) {
        logOnce(error.code)
        return pause(name, undefined)
      }
      await spool.reject(name, error.code)
      paused.delete(name)
      observe({ ...common(), issuer: error.issuer, outcome: 'rejected', error, retryAfterSeconds: 0 })
      return 'rejected'
    }
    if ('ignored' in reading) {
      await spool.remove(name)
      paused.delete(name)
      const { ignored: reason, issuerName: issuer } = reading
      observe({ ...common(), issuer, outcome: 'ignored', reason })
      return 'done'
    }
    const orders = reading
    const issuer = orders[0]?.issuerName
    try {
      const results = reasonOf(file) === undefined ? await signOut(orders) : await inTurn(orders, file)
      await spool.remove(name)
      paused.delete(name)
      observe({ ...common(), issuer, ...committed(orders, results) })
      return 'done'
    } catch (error) {
      if (deferred.kind === 'signal' && error instanceof UnavailableError) {
        // It is verified now. Its issuer may withdraw the key before the next try.
        const isDeferred = await spool.defer({ kind: 'orders', source, isSigned, receivedAt, orders }, deferWithinMs)
        if (isDeferred) {
          await spool.remove(name)
          paused.delete(name)
          return isOfOneOrder(error) ? 'waits' : 'outage' // a later round tries the new file
        }
      }
      return wait(name, error)
    }
  }

  async function readDeferred(deferred: Deferred): Promise<readonly Order[] | Ignored> {
    if (deferred.kind === 'orders') {
      return deferred.orders
    }
    const signal = bySource.get(deferred.source)
    if (signal === undefined) {
      throw new Error(`no signal is called "${deferred.source}"`) // of another version; it waits for that one
    }
    return signal.read(deferred.input, deferred.receivedAt)
  }

  /** It waits longer each time, so that one that is held for long costs those behind it little. */
  function lockWaitOf(file: DeferredFile): number {
    return Math.min(backOffOf(file), maxLockWaitMs)
  }

  async function inTurn(orders: readonly Order[], file: DeferredFile): Promise<SignOutResult[]> {
    const isOneStep = reasonOf(file) === 'held' // others that are held wait behind it
    const results: SignOutResult[] = []
    for (const order of orders) {
      results.push(await signOutAlone(order, { signal: stopping.signal, lockWaitMs: lockWaitOf(file), isOneStep }))
    }
    return results
  }

  function wait(name: string, error: unknown): End {
    if (!(error instanceof UnavailableError)) {
      logOnce(error instanceof Error ? error.name : 'unknown') // a mistake of ours; its message could quote a token
    }
    if (error instanceof UnavailableError && error.code === 'ERR_DIRECTORY_UNAVAILABLE') {
      return pause(name, 'asked') // a directory is asked about one signal alone
    }
    if (error instanceof UnavailableError && error.code === 'ERR_LARGE' && paused.get(name)?.reason === 'held') {
      paused.set(name, { dueAt: now(), backOffMs: minWaitMs, reason: 'large' })
      return 'moves'
    }
    // Among others it had no turn in time, since one of them is held: it must not wait behind that in each round.
    if (!(error instanceof UnavailableError) || isOfOneOrder(error) || error.code === 'ERR_DEADLINE') {
      return pause(name, isOfLock(error) ? 'held' : 'large')
    }
    return error.code === 'ERR_KEYS_UNAVAILABLE' || error.code === 'ERR_STREAM_UNKNOWN' ? 'waits' : 'outage'
  }

  return {
    round,
    /** Whether something waits for its back-off. */
    isPaused: () => paused.size > 0,
    /** Waits for what goes alone. */
    settle: endOfLanes,
    /** Ends what goes alone, after its step; a later process goes on. */
    async stop(): Promise<void> {
      stopping.abort()
      await endOfLanes()
    }
  }

  async function endOfLanes(): Promise<void> {
    const underWay = () => Object.values(lanes).flatMap(({ running }) => [...running])
    for (let runs = underWay(); runs.length > 0; runs = underWay()) {
      await Promise.all(runs) // one may have moved to another lane
    }
  }
}

function createLane(max: number): Lane {
  return { max, waiting: [], running: new Set() }
}

/** Retries again and again: every second at the latest, also what another process or an earlier run has left. */
export function startRetry(options: RetryOptions): Repetition {
  const { round, stop } = createRetry(options)
  let waitMs = minWaitMs
  const rounds = repeat(async (signal) => {
    const { done, rejected } = await round(signal)
    waitMs = done + rejected > 0 ? minWaitMs : Math.min(waitMs * 2, maxWaitMs)
    return waitMs
  }, minWaitMs)
  return {
    async stop() {
      await rounds.stop()
      await stop()
    }
  }
}

/** Does once what is deferred now; beside a running service, too: an order that both carry out ends nothing twice. */
export async function retryOnce(options: RetryOptions, signal: AbortSignal): Promise<RetryCounts> {
  const counts = { done: 0, rejected: 0 }
  const { round, settle, isPaused } = createRetry({
    ...options,
    observe(outcome) {
      counts[outcome.outcome === 'rejected' ? 'rejected' : 'done'] += 1
      options.observe(outcome)
    }
  })
  await round(signal)
  if (isPaused()) {
    await delay(minWaitMs)
  }
  await round(signal) // what the first one found to go alone
  await settle()
  return counts
}

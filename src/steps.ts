import { setTimeout as delay } from 'node:timers/promises'
import type { FastifyBaseLogger } from 'fastify'
import { UnavailableError } from './errors.ts'
import { takeTurns } from './repeat.ts'
import { type Order, type SignOutResult, signOutInSteps } from './sign-out.ts'
import type { Store } from './store.ts'

export interface StepsOptions {
  readonly store: Pick<Store, 'commitStep' | 'findRecord' | 'unfinishedOrders'>
  readonly logger: FastifyBaseLogger
  /** Called after each step that may have ended a session. */
  readonly onStep?: () => void
  /** Called with each order of {@link Steps.start} and {@link Steps.resume} that is over, by the process that did its last step. */
  readonly onDone?: (order: Order, result: SignOutResult, tookMs: number) => void
  /** The most rows and sessions that one step deletes. */
  readonly maxDeletions: number
  /** How long {@link Steps.start} waits, in milliseconds; default 10,000. */
  readonly maxWaitMs?: number
  /** An order is taken up if its last step is so many milliseconds ago; default 10,000. */
  readonly idleMs?: number
}

// What is held comes again with the next round; meanwhile the others go on.
const resumedLockWaitMs = 500

export interface RunOptions {
  /** Ends it between two steps; the next call goes on. */
  readonly signal?: AbortSignal
  /** How long a step waits for a lock, in milliseconds; default as long as the connection allows. */
  readonly lockWaitMs?: number | undefined
  /** Makes one step alone, and throws `ERR_LARGE` if another is due; default false. */
  readonly isOneStep?: boolean
}

export interface Steps {
  /**
   * Carries out one order alone.
   *
   * @throws {UnavailableError} if it could not be carried out now, or was ended
   */
  run(order: Order, options?: RunOptions): Promise<SignOutResult>
  /**
   * As `run`, for somebody who waits. An order that has begun, and takes longer or cannot go on now, goes on in the background, and after
   * the end of this process.
   *
   * @returns undefined: its record says how far it is
   * @throws {UnavailableError} if it could not begin
   */
  start(order: Order): Promise<SignOutResult | undefined>
  /**
   * Goes on with what has begun and nobody is at: a process died, or its disk with what it had deferred. One step of each in turn.
   *
   * @throws {UnavailableError} the first failure, once all were tried
   */
  resume(): Promise<void>
  /** Ends what was started or resumed after its step; a later process goes on. */
  stop(): Promise<void>
}

/** Carries out what deletes much: in steps, each a transaction of its own, and sign-outs go in between. */
export function createSteps({
  store,
  logger,
  onStep = () => {},
  onDone,
  maxDeletions,
  maxWaitMs = 10_000,
  idleMs = 10_000
}: StepsOptions): Steps {
  const stopping = new AbortController()
  /** What this process began for somebody, and is at. */
  const underWay = new Map<string, Promise<SignOutResult>>()

  async function run(order: Order, { signal, lockWaitMs, isOneStep = false }: RunOptions = {}): Promise<SignOutResult> {
    return signOutInSteps(async () => {
      const ended = await store.commitStep(order, maxDeletions, lockWaitMs)
      noteStep(ended)
      if (ended === undefined && isOneStep) {
        throw new UnavailableError('ERR_LARGE')
      }
      return ended
    }, signal)
  }

  function noteStep(ended: SignOutResult | undefined): void {
    if (ended === undefined || ended.sessions > 0) {
      onStep()
    }
  }

  function begin(order: Order): Promise<SignOutResult> {
    const begunAt = performance.now()
    const work = run(order, { signal: stopping.signal })
      .then((result) => {
        conclude(order, result, performance.now() - begunAt)
        return result
      })
      .finally(() => underWay.delete(order.id))
    underWay.set(order.id, work)
    return work
  }

  function conclude(order: Order, result: SignOutResult, tookMs: number): void {
    if (result.outcome !== 'duplicate') {
      onDone?.(order, result, Math.round(tookMs))
    }
  }

  async function hasBegun({ id }: Order): Promise<boolean> {
    return (await store.findRecord(id))?.status === 'running'
  }

  return {
    run,

    async start(order) {
      const work = begin(order)
      const waiting = new AbortController()
      const limit = delay(maxWaitMs, undefined, { signal: waiting.signal }).catch(() => undefined)
      try {
        const result = await Promise.race([work, limit])
        if (result !== undefined) {
          return result
        }
        if (!(await hasBegun(order))) {
          return await work // over by now, or the limit of its locks ends it
        }
        work.catch((error: unknown) => logPutOff(order, error))
      } catch (error) {
        const record = error instanceof UnavailableError ? await store.findRecord(order.id) : undefined
        if (record === undefined) {
          throw error
        }
        if (record.status !== 'running') {
          return undefined // its last step was committed, and the answer of it lost
        }
        logPutOff(order, error)
      } finally {
        waiting.abort()
      }
      logger.info({ source: order.source, record: order.id, actor: order.actor }, 'it goes on in the background')
      return undefined
    },

    async resume() {
      await takeTurns(
        await store.unfinishedOrders(idleMs),
        async ({ order, at }) => {
          if (underWay.has(order.id)) {
            return false
          }
          const result = await store.commitStep(order, maxDeletions, resumedLockWaitMs)
          noteStep(result)
          if (result !== undefined) {
            conclude(order, result, Date.now() - at.getTime())
          }
          return result === undefined
        },
        stopping.signal
      )
    },

    async stop() {
      stopping.abort()
      await Promise.allSettled(underWay.values())
    }
  }

  function logPutOff({ id, source }: Order, error: unknown): void {
    const code = error instanceof UnavailableError ? error.code : String(error)
    logger.warn({ source, record: id, code }, 'a sign-out in steps is put off')
  }
}

import { setTimeout as delay } from 'node:timers/promises'
import type { FastifyBaseLogger } from 'fastify'
import { UnavailableError } from './errors.ts'
import { printable } from './printable.ts'
import { takeTurns } from './repeat.ts'
import type { Deleted } from './sign-out.ts'
import type { Store, StoredRecord, SweepRequest, SweepStep } from './store.ts'

/** What an operator's purge of a whole app or tenant came to. */
export type SweepResult =
  /** Its record says the rest. */
  | { readonly outcome: 'begun' | 'duplicate' }
  | { readonly outcome: 'dry_run'; readonly counted: Deleted }
  | { readonly outcome: 'too_many'; readonly accounts: number }

export interface Sweeps {
  /**
   * Begins a sweep. A small one is over when this resolves. A large one, and one that cannot go on now, goes on in the background.
   *
   * @throws {UnavailableError} if it could not begin
   */
  start(request: SweepRequest): Promise<SweepResult>
  /**
   * Takes up the sweeps that another process left, and those of this process that failed: one step of each in turn, until they are
   * over. If somebody holds all rows of a step, its sweep is left for the next call.
   *
   * @throws {UnavailableError} the first failure, once all were tried
   */
  resume(): Promise<void>
  /** Ends what is under way after its step; a later process takes it up. */
  stop(): Promise<void>
}

export interface SweepsOptions {
  readonly store: Pick<Store, 'startSweep' | 'sweepStep' | 'runningSweeps' | 'findRecord'>
  readonly logger: FastifyBaseLogger
  /** Wakes the listeners of the apps. */
  readonly notify?: () => void
  /** Called with the record of each sweep that is over, by the process that did its last step. */
  readonly onDone?: (record: StoredRecord) => void
  /** The most accounts of a sweep that {@link Sweeps.start} waits for; default 10,000. */
  readonly maxAccountsAwaited?: number
  /** How long {@link Sweeps.start} waits for a small sweep, in milliseconds: somebody may hold a row. Default 10,000. */
  readonly maxWaitMs?: number
  /** The rows of one step; default 2,000, some 50 ms. Half as many take the same time in all, and hold sign-outs up no less. */
  readonly rowsPerStep?: number
}

const firstPauseMs = 20
const maxPauseMs = 1_000

/** Carries out purges of whole apps and tenants, in steps: each is a transaction of its own, and sign-outs go in between. */
export function createSweeps({
  store,
  logger,
  notify = () => {},
  onDone,
  maxAccountsAwaited = 10_000,
  maxWaitMs = 10_000,
  rowsPerStep = 2_000
}: SweepsOptions): Sweeps {
  const stopping = new AbortController()
  /** Those that this process began and is at. */
  const underWay = new Map<string, Promise<void>>()

  async function step(id: string): Promise<SweepStep> {
    const outcome = await store.sweepStep(id, rowsPerStep)
    if (outcome === 'more' || outcome === 'done') {
      notify()
    }
    if (outcome === 'done') {
      await conclude(id)
    }
    return outcome
  }

  async function conclude(id: string): Promise<void> {
    // The sweep is over, also if this fails: no later step would come back to it.
    const record = await store.findRecord(id).catch((error: unknown) => {
      logger.warn({ record: id, code: codeOf(error) }, 'a sweep is done, and is not counted')
      return undefined
    })
    if (record !== undefined) {
      const { accounts, sessions, rows, at, finishedAt } = record
      const ms = (finishedAt ?? at).getTime() - at.getTime()
      logger.info({ ...about(id, record), accounts, sessions, rows, ms }, 'swept')
      onDone?.(record)
    }
  }

  /** `busy`: another instance is at it, and finishes it; or it has done so, and counted it. */
  async function finish(id: string): Promise<void> {
    let outcome: SweepStep = 'more'
    let pauseMs = firstPauseMs
    while (!stopping.signal.aborted && (outcome === 'more' || outcome === 'held')) {
      outcome = await step(id)
      if (outcome === 'held') {
        await delay(pauseMs, undefined, { signal: stopping.signal }).catch(() => {})
        pauseMs = Math.min(pauseMs * 2, maxPauseMs)
      } else {
        pauseMs = firstPauseMs
      }
    }
  }

  /** Never rejects: what fails is still recorded as running, and `resume` takes it up. */
  function begin(id: string): Promise<void> {
    const work = finish(id)
      .catch((error: unknown) => logger.warn({ record: id, code: codeOf(error) }, 'a sweep is put off'))
      .finally(() => underWay.delete(id))
    underWay.set(id, work)
    return work
  }

  return {
    async start(request) {
      const { outcome, ...counted } = await store.startSweep(request)
      switch (outcome) {
        case 'dry_run':
          return { outcome, counted }
        case 'too_many':
          return { outcome, accounts: counted.accounts }
        case 'duplicate':
          return { outcome }
        case 'running': {
          logger.info({ ...about(request.id, request), accounts: counted.accounts }, 'sweep begun')
          const work = begin(request.id)
          if (counted.accounts <= maxAccountsAwaited) {
            const waiting = new AbortController()
            const limit = delay(maxWaitMs, undefined, { signal: waiting.signal }).catch(() => {})
            await Promise.race([work, limit])
            waiting.abort()
          }
          return { outcome: 'begun' }
        }
      }
    },

    async resume() {
      const ids = await store.runningSweeps()
      await takeTurns(ids, async (id) => !underWay.has(id) && (await step(id)) === 'more', stopping.signal)
    },

    async stop() {
      stopping.abort()
      await Promise.all(underWay.values())
    }
  }
}

/** Who sweeps what, and why. */
function about(record: string, { source, clientId, tenantId, actor, reason }: Ordered) {
  const selector = clientId ? { kind: 'app', clientId } : { kind: 'tenant', tenantId }
  return { source, record, actor, reason: printable(reason), selector }
}

type Ordered = Pick<StoredRecord, 'source' | 'actor' | 'reason'> & {
  readonly clientId?: string | null | undefined
  readonly tenantId?: string | null | undefined
}

function codeOf(error: unknown): string {
  return error instanceof UnavailableError ? error.code : String(error)
}

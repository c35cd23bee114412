import cluster from 'node:cluster'
import type { FastifyBaseLogger } from 'fastify'
import { type Config, packConfig } from './config.ts'
import { ConfigurationError } from './errors.ts'
import { type Counted, createProcessMetrics, sumCounts } from './metrics.ts'
import { createSeat, type Seat, type Surroundings } from './process-seat.ts'
import type { Reloaded } from './service.ts'
import { version } from './version.ts'

/** A service that runs, in this process or in several. */
export interface Running {
  /** What runs, in one line. */
  describe(): Promise<object>
  /**
   * Takes what can change while it runs from a new configuration, everywhere or nowhere.
   *
   * @throws {DeclinedError} or {@link UnavailableError} if it cannot be taken; nothing has changed then
   */
  reload(next: Config): Promise<Reloaded>
  /** Serves on, and says that it is not ready. */
  drain(): void
  /** Ends all of it, after what is under way. */
  stop(): Promise<void>
  /** Ends what other processes there are: by themselves they do so with this one, but for one whose event loop stands still. */
  endAtOnce(): void
}

/** Another process declines a configuration. */
export class DeclinedError extends Error {
  /** For the log. */
  readonly reason: object

  constructor(reason: object) {
    super('the configuration cannot be taken')
    this.name = 'DeclinedError'
    this.reason = reason
  }
}

const describeWithinMs = 70_000 // longer than a statement of the service may take
const tryOutWithinMs = 90_000
const stopWithinMs = 60_000 // the first process has its own limit
const maxPauseMs = 30_000
// Where nobody is left for its part, as a service manager starts one process anew.
const maxPauseAloneMs = 1_000
const askEveryMs = 10_000

/**
 * Starts the service as several processes: this one, which looks after the others and does nothing else; `config.workers` that answer the
 * public listener; and one in the background, which has the operators' listener and does all that is to be done once.
 *
 * @param options.connectionString the database, if the configuration names none
 * @throws what keeps one of them from beginning; none runs then
 */
export async function startProcesses(
  config: Config,
  { logger, connectionString }: { readonly logger: FastifyBaseLogger; readonly connectionString: string | undefined }
): Promise<Running> {
  if (!cluster.isPrimary) {
    throw new ConfigurationError(['WORKERS: must be 1 under a manager that forks processes itself, as PM2 does'])
  }
  cluster.schedulingPolicy = cluster.SCHED_RR // this process has the port, so that it closes with it
  cluster.setupPrimary({ serialization: 'advanced' }) // what is undefined stays so
  let inForce = config
  let phase: 'starting' | 'running' | 'stopping' = 'starting'
  let isDraining = false
  /** When the process in the background begins for the first time: no signal is taken before. */
  let opened: Promise<unknown> = Promise.resolve()
  /** What processes that have ended had counted. */
  let retired: readonly Counted[] = []
  let summing = Promise.resolve()

  const surroundings: Surroundings = {
    logger,
    isRunning: () => phase === 'running',
    callsOf: (seat) => ({
      remember: (outcomes) => background.isServing() && background.channel()?.tell('remember', outcomes),
      others: (own) => countOthers(seat, own),
      serving
    }),
    async untilMayBegin(seat) {
      if (phase === 'starting' && seat !== background) {
        await opened
      }
      if (phase === 'stopping') {
        throw new Error('the service is stopping')
      }
    },
    beginningOf: (seat) => ({
      part: seat.part,
      release: version(),
      config: packConfig(inForce),
      connectionString: inForce.databaseUrl ?? connectionString,
      announces: phase === 'starting' && (seat === background || seat === workers[0]),
      isDraining
    }),
    maxPauseMs: (seat) => (seat === background || serving() === 0 ? maxPauseAloneMs : maxPauseMs),
    onEnd: ({ part }) => metrics.ended(part),
    retire(counts) {
      retired = [...retired, counts]
      if (phase === 'running') {
        summing = summing.then(sumRetired).catch(() => {}) // they stay apart, and are counted all the same
      }
    }
  }
  const background = createSeat('background', 'background', surroundings)
  const workers = Array.from({ length: config.workers }, (_, i) =>
    createSeat('worker', `worker ${i + 1}`, surroundings)
  )
  const seats = [background, ...workers]
  const serving = () => workers.filter((worker) => worker.isServing()).length
  const metrics = createProcessMetrics(() => ({ serving: serving(), missing: workers.length - serving() }))

  /** However often processes end, what they had counted takes no more room. */
  async function sumRetired(): Promise<void> {
    const before = retired
    const sum = await sumCounts(before)
    retired = [sum, ...retired.slice(before.length)]
  }

  /** A counter never goes back: of a process that does not answer, or has ended, what it said last counts. */
  async function countOthers(asking: Seat, own: Counted): Promise<readonly Counted[]> {
    asking.noteCounts(own)
    const others = seats.filter((seat) => seat !== asking)
    await Promise.all(others.map((seat) => seat.count()))
    return [...others.map((seat) => seat.counted()), ...retired, await metrics.own()]
  }

  async function reload(next: Config): Promise<Reloaded> {
    const packed = packConfig(next)
    const asked = seats.find((seat) => seat.isServing())?.channel()
    if (asked === undefined) {
      throw new DeclinedError({ cause: 'no process serves now' })
    }
    const reason = await asked.call('tryOut', packed, tryOutWithinMs)
    if (reason !== undefined) {
      throw new DeclinedError(reason)
    }
    const former = inForce
    inForce = next // also of what is started anew from now on
    const taken = await Promise.all(seats.map((seat) => seat.take(packed)))
    const reloaded = taken.find((one) => one !== undefined)
    if (reloaded === undefined) {
      inForce = former
      throw new DeclinedError({ cause: 'no process could take it: those that are started anew have the former one' })
    }
    return reloaded
  }

  async function endAll(end: Parameters<Seat['end']>[0]): Promise<void> {
    phase = 'stopping'
    clearInterval(asking)
    await Promise.all(seats.map((seat) => seat.end(end)))
  }

  const asking = setInterval(() => {
    for (const seat of seats) {
      seat.checkAnswers()
    }
  }, askEveryMs)
  try {
    opened = background.begin()
    await Promise.all([opened, ...workers.map((worker) => worker.begin())])
    const gone = seats.find((seat) => !seat.isServing())
    if (gone !== undefined) {
      throw Object.assign(new Error(`"${gone.name}" has ended before all served`), { code: 'ERR_PROCESS_ENDED' })
    }
    phase = 'running'
    const pids = { background: background.pid(), workers: workers.map((worker) => worker.pid()) }
    return {
      async describe() {
        // One that has ended meanwhile is no reason not to serve.
        const description = await background
          .channel()
          ?.call('describe', undefined, describeWithinMs)
          .catch(() => ({}))
        return { ...description, processes: pids }
      },
      reload,
      drain() {
        isDraining = true
        for (const seat of seats) {
          seat
            .channel()
            ?.call('drain', undefined, stopWithinMs)
            .catch(() => {}) // one that has ended takes nothing
        }
      },
      endAtOnce() {
        for (const seat of seats) {
          seat.kill()
        }
      },
      stop: () =>
        endAll((channel) => {
          channel.call('stop', undefined, stopWithinMs).catch(() => {}) // it ends without an answer
        })
    }
  } catch (error) {
    for (const seat of seats) {
      seat.kill()
    }
    await endAll(() => {})
    throw error
  }
}

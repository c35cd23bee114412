import cluster, { type Worker } from 'node:cluster'
import type { FastifyBaseLogger } from 'fastify'
import { type Config, packConfig } from './config.ts'
import { ConfigurationError } from './errors.ts'
import { type Counted, countsOf, createProcessMetrics, sumCounts } from './metrics.ts'
import { type Channel, type ChannelPort, openChannel } from './process-channel.ts'
import type { Reloaded } from './service.ts'
import type { BeginFailure, FirstCalls, WorkerCalls } from './worker.ts'

/** Marks a process that this one has forked; its value is for people who look at processes. */
export const partVariable = 'MSAL_LOGOUT_PROCESS'

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

/** A place that a process has, and another one when that has ended. */
interface Seat {
  readonly part: 'worker' | 'background'
  /** For the log. */
  readonly name: string
  /** Undefined while it waits to be started anew. */
  child: Child | undefined
  isServing: boolean
  /** How often in a row it ended soon after it had begun. */
  soonEnded: number
  /** What the process that is there counts, as of when it was asked last. */
  counted: Counted
  timer: NodeJS.Timeout | undefined
}

interface Child {
  readonly pid: number | undefined
  readonly channel: Channel<WorkerCalls>
  /** Resolves when it listens to this process. */
  readonly ready: Promise<void>
  /** Resolves with its exit code, or with the signal that ended it. */
  readonly exited: Promise<number | string>
  readonly forkedAt: number
  /** Whether it has the configuration. */
  hasBegun: boolean
  /** How often in a row it was asked and has not answered. */
  unanswered: number
  /** Why it could not begin. */
  failure: BeginFailure | undefined
  kill(): void
}

const beginWithinMs = 60_000
const reloadWithinMs = 90_000
const countWithinMs = 1_000
const stopWithinMs = 60_000 // the first process has its own limit
// One that ends within this time is started anew after a pause, which grows: a fault that stays must fill neither a processor nor the log.
const soonMs = 60_000
const firstPauseMs = 500
const maxPauseMs = 30_000
// One whose event loop stands still is of no use, and has its part of the connections all the same.
const askEveryMs = 10_000
const maxUnanswered = 3

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
  cluster.setupPrimary({ serialization: 'advanced' }) // what is undefined stays so
  const background = createSeat('background', 'background')
  const workers = Array.from({ length: config.workers }, (_, i) => createSeat('worker', `worker ${i + 1}`))
  const seats = [background, ...workers]
  const serving = () => workers.filter(({ isServing }) => isServing).length
  const metrics = createProcessMetrics(() => ({ serving: serving(), missing: workers.length - serving() }))
  let inForce = config
  let phase: 'starting' | 'running' | 'stopping' = 'starting'
  /** What processes that have ended had counted. */
  let retired: readonly Counted[] = []
  let summing = Promise.resolve()

  function fork(seat: Seat): Child {
    const worker = cluster.fork({ [partVariable]: seat.name })
    worker.on('error', () => {}) // what could not be sent to it: it has ended, and its end is seen
    closeWithWorker(worker)
    let isReady = () => {}
    const ready = new Promise<void>((resolve) => {
      isReady = resolve
    })
    const ours: FirstCalls = {
      ready: isReady,
      remember: (outcomes) => background.isServing && background.child?.channel.tell('remember', outcomes),
      others: (own) => countOthers(seat, own),
      serving
    }
    const channel = openChannel<WorkerCalls>(portOf(worker), { ...ours })
    const child: Child = {
      pid: worker.process.pid,
      channel,
      ready,
      exited: new Promise((resolve) => {
        worker.once('exit', (code, signal) => {
          channel.end()
          onExit(seat, child, code, signal)
          resolve(signal ?? code)
        })
      }),
      forkedAt: performance.now(),
      hasBegun: false,
      unanswered: 0,
      failure: undefined,
      kill: () => worker.process.kill('SIGKILL')
    }
    return child
  }

  /** Resolves with what runs there. One that cannot begin ends. */
  async function begin(seat: Seat): Promise<object> {
    const child = fork(seat)
    seat.child = child
    await Promise.race([child.ready, child.exited])
    const announces = phase === 'starting' && (seat === background || seat === workers[0])
    const beginning = { part: seat.part, config: packConfig(inForce), connectionString, announces }
    child.hasBegun = true
    try {
      const answer = await child.channel.call('begin', beginning, beginWithinMs)
      if ('description' in answer) {
        seat.isServing = true
        return answer.description
      }
      child.failure = answer.failure
      throw errorOf(answer.failure)
    } catch (error) {
      child.kill()
      throw child.failure === undefined ? await whyNot(seat, child, error) : error
    }
  }

  /** It has ended without a word, or takes too long. */
  async function whyNot({ name }: Seat, child: Child, cause: unknown): Promise<Error> {
    const message = `"${name}" has ended before it served (${await child.exited})`
    return Object.assign(new Error(message, { cause }), { code: 'ERR_PROCESS_ENDED' })
  }

  function onExit(seat: Seat, child: Child, code: number, signal: string): void {
    seat.isServing = false
    seat.child = undefined
    retired = [...retired, countsOf(seat.counted)]
    seat.counted = []
    if (phase !== 'running') {
      return
    }
    metrics.ended(seat.part)
    summing = summing.then(sumRetired)
    seat.soonEnded = performance.now() - child.forkedAt < soonMs ? seat.soonEnded + 1 : 0
    const restartInMs = seat.soonEnded < 2 ? 0 : Math.min(firstPauseMs * 2 ** (seat.soonEnded - 2), maxPauseMs)
    logger.error(
      { process: seat.name, pid: child.pid, code, signal, cause: child.failure?.message, restartInMs },
      'a process ended'
    )
    seat.timer = setTimeout(() => {
      begin(seat).then(
        () => logger.info({ process: seat.name, pid: seat.child?.pid }, 'a process was started anew'),
        () => {} // its end is logged, and another try follows
      )
    }, restartInMs)
  }

  /** However often processes end, what they had counted takes no more room. */
  async function sumRetired(): Promise<void> {
    const before = retired
    const sum = await sumCounts(before)
    retired = [sum, ...retired.slice(before.length)]
  }

  /** A counter never goes back: of a process that does not answer, or has ended, what it said last counts. */
  async function countOthers(asking: Seat, own: Counted): Promise<readonly Counted[]> {
    asking.counted = own
    const others = seats.filter((seat) => seat !== asking)
    await Promise.all(
      others.map(async (seat) => {
        const child = seat.isServing ? seat.child : undefined
        const counted = await child?.channel.call('count', undefined, countWithinMs).catch(() => undefined)
        if (counted !== undefined && seat.child === child) {
          seat.counted = counted
        }
      })
    )
    return [...others.map(({ counted }) => counted), ...retired, await metrics.own()]
  }

  function askAll(): void {
    for (const { child, name, isServing } of seats) {
      if (child === undefined || !isServing) {
        continue
      }
      if (child.unanswered >= maxUnanswered) {
        logger.error({ process: name, pid: child.pid }, 'a process does not answer, and is ended')
        child.kill()
        continue
      }
      child.unanswered += 1
      child.channel.call('answer', undefined, askEveryMs * (maxUnanswered + 1)).then(
        () => {
          child.unanswered = 0
        },
        () => {} // it counts as unanswered
      )
    }
  }

  async function reload(next: Config): Promise<Reloaded> {
    const packed = packConfig(next)
    const asked = seats.find(({ isServing }) => isServing)?.child
    if (asked === undefined) {
      throw new DeclinedError({ cause: 'no process serves now' })
    }
    const reason = await asked.channel.call('tryOut', packed, reloadWithinMs)
    if (reason !== undefined) {
      throw new DeclinedError(reason)
    }
    inForce = next // also of what is started anew from now on
    const taken = await Promise.all(
      seats.map(async ({ child }) => {
        try {
          return child?.hasBegun ? await child.channel.call('take', packed, reloadWithinMs) : undefined
        } catch {
          child?.kill() // the one that takes its place begins with it
          return undefined
        }
      })
    )
    const reloaded = taken.find((one) => one !== undefined)
    if (reloaded === undefined) {
      throw new Error('every process has ended meanwhile: those that are started anew take it')
    }
    return reloaded
  }

  async function endAll(end: (child: Child) => void): Promise<void> {
    phase = 'stopping'
    clearInterval(asking)
    await Promise.all(
      seats.map(async ({ child, timer }) => {
        clearTimeout(timer)
        if (child !== undefined) {
          end(child)
          await child.exited
        }
      })
    )
  }

  const asking = setInterval(askAll, askEveryMs)
  try {
    const [description] = await Promise.all(seats.map(begin))
    phase = 'running'
    const pids = { background: background.child?.pid, workers: workers.map(({ child }) => child?.pid) }
    return {
      describe: async () => ({ ...description, processes: pids }),
      reload,
      drain() {
        for (const { child } of seats) {
          child?.channel.call('drain', undefined, stopWithinMs).catch(() => {}) // one that has ended takes nothing
        }
      },
      endAtOnce() {
        for (const { child } of seats) {
          child?.kill()
        }
      },
      stop: () =>
        endAll(({ channel }) => {
          channel.call('stop', undefined, stopWithinMs).catch(() => {}) // it ends without an answer
        })
    }
  } catch (error) {
    await endAll((child) => child.kill())
    throw error
  }
}

function createSeat(part: Seat['part'], name: string): Seat {
  return { part, name, child: undefined, isServing: false, soonEnded: 0, counted: [], timer: undefined }
}

/**
 * Closes the connection that a process was being given when it ended. node:cluster waits for that process to take it, and forgets it: it
 * would stay open here, and its sender would wait.
 */
function closeWithWorker({ process: child }: Worker): void {
  const { send } = child
  let given: unknown // one at a time
  Reflect.set(child, 'send', (...args: unknown[]) => {
    given = args[1] ?? given
    return Reflect.apply(send, child, args)
  })
  child.once('exit', () => {
    if (typeof given === 'object' && given !== null && 'close' in given && typeof given.close === 'function') {
      given.close() // of one that was taken it does nothing
    }
  })
}

function portOf(worker: Worker): ChannelPort {
  return {
    send: (message, done) => worker.process.send(message, undefined, undefined, done),
    listen: (take) => worker.on('message', take)
  }
}

/** As it was thrown there. */
function errorOf({ message, stack, ...members }: BeginFailure): Error {
  const error = Object.assign(new Error(message), members)
  error.stack = stack ?? error.stack ?? message
  return error
}

import cluster, { type Worker } from 'node:cluster'
import type { FastifyBaseLogger } from 'fastify'
import { type Config, packConfig } from './config.ts'
import { ConfigurationError } from './errors.ts'
import { type Counted, countsOf, createProcessMetrics, sumCounts } from './metrics.ts'
import { type Channel, type ChannelPort, openChannel } from './process-channel.ts'
import type { Reloaded } from './service.ts'
import { version } from './version.ts'
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
  /** Resolves as it ends. */
  readonly exited: Promise<End>
  readonly forkedAt: number
  /** Whether it has the configuration. */
  hasBegun: boolean
  /** How often in a row it was asked and has not answered. */
  unanswered: number
  /** Why it could not begin. */
  failure: BeginFailure | undefined
  kill(): void
}

/** How a process ended. */
interface End {
  readonly code: number | undefined
  readonly signal: string | undefined
  /** Why there never was one. */
  readonly error: string | undefined
}

const beginWithinMs = 60_000
const describeWithinMs = 70_000 // longer than a statement of the service may take
const reloadWithinMs = 90_000
const countWithinMs = 1_000
const stopWithinMs = 60_000 // the first process has its own limit
// One that ends within this time is started anew after a pause, which grows: a fault that stays must fill neither a processor nor the log.
const soonMs = 60_000
const firstPauseMs = 500
const maxPauseMs = 30_000
// Where nobody is left for its part, as a service manager starts one process anew.
const maxPauseAloneMs = 1_000
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
  cluster.schedulingPolicy = cluster.SCHED_RR // this process has the port, so that it closes with it
  cluster.setupPrimary({ serialization: 'advanced' }) // what is undefined stays so
  const background = createSeat('background', 'background')
  const workers = Array.from({ length: config.workers }, (_, i) => createSeat('worker', `worker ${i + 1}`))
  const seats = [background, ...workers]
  const serving = () => workers.filter(({ isServing }) => isServing).length
  const metrics = createProcessMetrics(() => ({ serving: serving(), missing: workers.length - serving() }))
  let inForce = config
  let phase: 'starting' | 'running' | 'stopping' = 'starting'
  let isDraining = false
  /** When the process in the background begins for the first time: no signal is taken before. */
  let opened: Promise<unknown> = Promise.resolve()
  /** What processes that have ended had counted. */
  let retired: readonly Counted[] = []
  let summing = Promise.resolve()

  /** @throws if the system has no room for another process; or `exited` says so */
  function fork(seat: Seat): Child {
    const worker = cluster.fork({ [partVariable]: seat.name })
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
        const end = (how: End) => {
          channel.end()
          onExit(seat, child, how)
          resolve(how)
        }
        worker.once('exit', (code, signal) => end({ code, signal: signal ?? undefined, error: undefined }))
        worker.on('error', (error: Error) => {
          if (worker.process.pid === undefined) {
            end({ code: undefined, signal: undefined, error: error.message }) // it has not begun, and nothing else says so
          }
          // Else something could not be sent to it: it has ended, and its end is seen.
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

  /** Resolves when a process serves there. One that cannot begin ends. */
  async function begin(seat: Seat): Promise<void> {
    const child = fork(seat)
    seat.child = child
    const lateness = setTimeout(() => {
      child.failure ??= failureOf(`it has not begun within ${beginWithinMs / 1_000} s`)
      child.kill()
    }, beginWithinMs)
    try {
      await Promise.race([child.ready, child.exited])
      if (phase === 'starting' && seat.part === 'worker') {
        await opened
      }
      if (phase === 'stopping') {
        throw new Error('the service is stopping')
      }
      child.hasBegun = true
      const answer = await child.channel.call(
        'begin',
        {
          part: seat.part,
          release: version(),
          config: packConfig(inForce),
          connectionString: inForce.databaseUrl ?? connectionString,
          announces: phase === 'starting' && (seat === background || seat === workers[0]),
          isDraining
        },
        beginWithinMs
      )
      if (answer !== undefined) {
        child.failure = answer
        throw errorOf(answer)
      }
      seat.isServing = true
    } catch (error) {
      child.kill()
      throw child.failure === undefined ? await whyNot(seat, child, error) : error
    } finally {
      clearTimeout(lateness)
    }
  }

  /** It has ended without a word. */
  async function whyNot({ name }: Seat, child: Child, cause: unknown): Promise<Error> {
    const { code, signal, error } = await child.exited
    const message = `"${name}" has ended before it served (${error ?? signal ?? code})`
    return Object.assign(new Error(message, { cause }), { code: 'ERR_PROCESS_ENDED' })
  }

  function onExit(seat: Seat, child: Child, { code, signal, error }: End): void {
    seat.isServing = false
    seat.child = undefined
    retired = [...retired, countsOf(seat.counted)]
    seat.counted = []
    if (phase !== 'running') {
      return
    }
    metrics.ended(seat.part)
    summing = summing.then(sumRetired).catch(() => {}) // they stay apart, and are counted all the same
    const wasSoon = performance.now() - child.forkedAt < soonMs
    beginAgain(seat, wasSoon, { pid: child.pid, code, signal, cause: child.failure?.message ?? error })
  }

  /** @param how why it has to, for the log */
  function beginAgain(seat: Seat, wasSoon: boolean, how: object): void {
    seat.soonEnded = wasSoon ? seat.soonEnded + 1 : 0
    const maxMs = seat === background || serving() === 0 ? maxPauseAloneMs : maxPauseMs
    const restartInMs = seat.soonEnded < 2 ? 0 : Math.min(firstPauseMs * 2 ** (seat.soonEnded - 2), maxMs)
    logger.error({ process: seat.name, ...how, restartInMs }, 'a process ended')
    seat.timer = setTimeout(() => {
      begin(seat).then(
        () => logger.info({ process: seat.name, pid: seat.child?.pid }, 'a process was started anew'),
        (error: unknown) => {
          // Of one that was there its end is logged, and another try follows. The system may have had no room for one.
          if (seat.child === undefined && phase === 'running' && seat.timer === undefined) {
            beginAgain(seat, true, { cause: error instanceof Error ? error.message : String(error) })
          }
        }
      )
      seat.timer = undefined
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
    const former = inForce
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
      inForce = former
      throw new DeclinedError({ cause: 'no process could take it: those that are started anew have the former one' })
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
          if (child.hasBegun) {
            end(child)
          } else {
            child.kill() // it listens to nobody yet, and has nothing under way
          }
          await child.exited
        }
      })
    )
  }

  const asking = setInterval(askAll, askEveryMs)
  try {
    opened = begin(background)
    await Promise.all([opened, ...workers.map(begin)])
    const gone = seats.find(({ isServing }) => !isServing)
    if (gone !== undefined) {
      throw Object.assign(new Error(`"${gone.name}" has ended before all served`), { code: 'ERR_PROCESS_ENDED' })
    }
    phase = 'running'
    const pids = { background: background.child?.pid, workers: workers.map(({ child }) => child?.pid) }
    return {
      async describe() {
        // One that has ended meanwhile is no reason not to serve.
        const description = await background.child?.channel
          .call('describe', undefined, describeWithinMs)
          .catch(() => ({}))
        return { ...description, processes: pids }
      },
      reload,
      drain() {
        isDraining = true
        for (const { child } of seats) {
          if (child?.hasBegun) {
            child.channel.call('drain', undefined, stopWithinMs).catch(() => {}) // one that has ended takes nothing
          }
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
  if (send === undefined) {
    return // the system had no room for it
  }
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
    send: (message, done) => worker.process.send?.(message, undefined, undefined, done),
    listen: (take) => worker.on('message', take)
  }
}

function failureOf(message: string): BeginFailure {
  return { message, code: 'ERR_PROCESS_ENDED', syscall: undefined, stack: undefined }
}

/** As it was thrown there. */
function errorOf({ message, stack, ...members }: BeginFailure): Error {
  const error = Object.assign(new Error(message), members)
  error.stack = stack ?? error.stack ?? message
  return error
}

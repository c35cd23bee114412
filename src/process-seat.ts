import type { FastifyBaseLogger } from 'fastify'
import type { PackedConfig } from './config.ts'
import { type End, type ForkedProcess, forkProcess } from './forked-process.ts'
import { type Counted, countsOf } from './metrics.ts'
import type { Channel } from './process-channel.ts'
import type { Reloaded } from './service.ts'
import type { BeginFailure, Beginning, FirstCalls, WorkerCalls } from './worker.ts'

/** A place that a process has, and another one when that has ended. */
export interface Seat {
  readonly part: Beginning['part']
  /** For the log. */
  readonly name: string
  pid(): number | undefined
  isServing(): boolean
  /** To the process that is there, once it has a configuration; undefined: there is none. */
  channel(): Channel<WorkerCalls> | undefined
  /**
   * Has a process serve there, and from then on another one whenever it ends.
   *
   * @throws why none serves: it has ended
   */
  begin(): Promise<void>
  /** What the process that is there counts, as of when it last said so. */
  counted(): Counted
  /** Has it take a configuration. One that does not is ended, and the next one begins with it. */
  take(config: PackedConfig): Promise<Reloaded | undefined>
  /** Asks it; of one that does not answer, what it said last counts. */
  count(): Promise<void>
  noteCounts(counts: Counted): void
  /** Ends a process that has not answered several times in a row: one whose event loop stands still has its part of the connections. */
  checkAnswers(): void
  kill(): void
  /** Resolves when nothing is there any more, and nothing comes. */
  end(how: (channel: Channel<WorkerCalls>) => void): Promise<void>
}

/** What a seat is among. */
export interface Surroundings {
  readonly logger: FastifyBaseLogger
  /** Whether a process that ends is started anew; until then and after, it is not. */
  isRunning(): boolean
  /** What the first process does for the one on this seat. */
  callsOf(seat: Seat): Omit<FirstCalls, 'ready'>
  /** Resolves when it may begin. Rejects if it may not. */
  untilMayBegin(seat: Seat): Promise<void>
  beginningOf(seat: Seat): Beginning
  /** How long the next process is kept waiting at most, in milliseconds. */
  maxPauseMs(seat: Seat): number
  /** A process ended while the service runs. */
  onEnd(seat: Seat): void
  /** @param counts what a process had counted that has ended */
  retire(counts: Counted): void
}

type State =
  | { readonly is: 'empty' }
  /** For its time to be started anew. */
  | { readonly is: 'waiting'; readonly timer: NodeJS.Timeout }
  /** It is there, and has no configuration yet. */
  | { readonly is: 'starting'; readonly child: ForkedProcess }
  | { readonly is: 'beginning'; readonly child: ForkedProcess }
  | { readonly is: 'serving'; readonly child: ForkedProcess }

const beginWithinMs = 60_000
const takeWithinMs = 90_000
const countWithinMs = 1_000
// One that ends within this time is started anew after a pause, which grows: a fault that stays must fill neither a processor nor the log.
const soonMs = 60_000
const firstPauseMs = 500
const maxUnanswered = 3
const answerWithinMs = 60_000 // longer than until it is ended

export function createSeat(part: Seat['part'], name: string, surroundings: Surroundings): Seat {
  const { logger } = surroundings
  let state: State = { is: 'empty' }
  /** How often in a row a process ended soon after it had begun. */
  let soonEnded = 0
  let counted: Counted = []
  /** How often in a row the process was asked and has not answered. */
  let unanswered = 0

  const childOf = (): ForkedProcess | undefined => ('child' in state ? state.child : undefined)

  async function begin(): Promise<void> {
    state = { is: 'empty' }
    const forkedAt = performance.now()
    const child = forkProcess(name, surroundings.callsOf(seat))
    let failure: BeginFailure | undefined
    state = { is: 'starting', child }
    unanswered = 0
    child.exited.then((end) => onExit(child, end, performance.now() - forkedAt < soonMs, failure?.message))
    const lateness = setTimeout(() => {
      failure ??= failureOf(`it has not begun within ${beginWithinMs / 1_000} s`)
      child.kill()
    }, beginWithinMs)
    try {
      await Promise.race([child.ready, child.exited])
      await surroundings.untilMayBegin(seat)
      enter('beginning', child) // in one go with the next: from here on it is given each new configuration
      const answer = await child.channel.call('begin', surroundings.beginningOf(seat), beginWithinMs)
      if (answer !== undefined) {
        failure = answer
        throw errorOf(answer)
      }
      enter('serving', child)
    } catch (error) {
      child.kill()
      throw failure === undefined ? await whyNot(child, error) : error
    } finally {
      clearTimeout(lateness)
    }
  }

  /** But for one that has ended meanwhile. */
  function enter(is: 'beginning' | 'serving', child: ForkedProcess): void {
    if (childOf() === child) {
      state = { is, child }
    }
  }

  /** It has ended without a word. */
  async function whyNot(child: ForkedProcess, cause: unknown): Promise<Error> {
    const { code, signal, error } = await child.exited
    const message = `"${name}" has ended before it served (${error ?? signal ?? code})`
    return Object.assign(new Error(message, { cause }), { code: 'ERR_PROCESS_ENDED' })
  }

  function onExit(
    { pid }: ForkedProcess,
    { code, signal, error }: End,
    wasSoon: boolean,
    cause: string | undefined
  ): void {
    state = { is: 'empty' }
    surroundings.retire(countsOf(counted))
    counted = []
    if (surroundings.isRunning()) {
      surroundings.onEnd(seat)
      beginAgain(wasSoon, { pid, code, signal, cause: cause ?? error })
    }
  }

  /** @param how why it has to, for the log */
  function beginAgain(wasSoon: boolean, how: object): void {
    soonEnded = wasSoon ? soonEnded + 1 : 0
    const restartInMs = soonEnded < 2 ? 0 : Math.min(firstPauseMs * 2 ** (soonEnded - 2), surroundings.maxPauseMs(seat))
    logger.error({ process: name, ...how, restartInMs }, 'a process ended')
    const timer = setTimeout(() => {
      begin().then(
        () => logger.info({ process: name, pid: seat.pid() }, 'a process was started anew'),
        (error: unknown) => {
          // Of one that was there its end is logged, and another try follows. The system may have had no room for one.
          if (state.is === 'empty' && surroundings.isRunning()) {
            beginAgain(true, { cause: error instanceof Error ? error.message : String(error) })
          }
        }
      )
    }, restartInMs)
    state = { is: 'waiting', timer }
  }

  const seat: Seat = {
    part,
    name,
    pid: () => childOf()?.pid,
    isServing: () => state.is === 'serving',
    channel: () => (state.is === 'beginning' || state.is === 'serving' ? state.child.channel : undefined),
    begin,
    counted: () => counted,
    noteCounts(counts) {
      counted = counts
    },

    async take(config) {
      const child = childOf()
      try {
        return await seat.channel()?.call('take', config, takeWithinMs)
      } catch {
        child?.kill()
        return undefined
      }
    },

    async count() {
      if (state.is !== 'serving') {
        return
      }
      const { child } = state
      const counts = await child.channel.call('count', undefined, countWithinMs).catch(() => undefined)
      if (counts !== undefined && childOf() === child) {
        counted = counts
      }
    },

    checkAnswers() {
      if (state.is !== 'serving') {
        return
      }
      const { child } = state
      if (unanswered >= maxUnanswered) {
        logger.error({ process: name, pid: child.pid }, 'a process does not answer, and is ended')
        child.kill()
        return
      }
      unanswered += 1
      child.channel.call('answer', undefined, answerWithinMs).then(
        () => {
          unanswered = 0
        },
        () => {} // it counts as unanswered
      )
    },

    kill: () => childOf()?.kill(),

    async end(how) {
      if (state.is === 'waiting') {
        clearTimeout(state.timer)
      }
      const child = childOf()
      const channel = seat.channel()
      if (channel === undefined) {
        child?.kill() // it listens to nobody yet, and has nothing under way
      } else {
        how(channel)
      }
      await child?.exited
    }
  }
  return seat
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

import { StreamError } from '../errors.ts'
import type { Arrival, Outcome } from '../receive.ts'
import { errorOf, type SecurityEventInput } from '../signals/security-event.ts'
import type { PollAnswer, Transmitter } from './transmitter.ts'

export interface PollerOptions {
  /** The stream's name. */
  readonly name: string
  /** Receives what came. */
  readonly received: (input: SecurityEventInput, arrival: Arrival) => Promise<Outcome>
  readonly transmitter: Pick<Transmitter, 'poll'>
  /** Milliseconds since 1970. */
  readonly now: () => number
}

/** Polls one stream: RFC 8936. */
export interface Poller {
  /**
   * Takes what is there, until nothing more is.
   * @param isStillOurs looked at between two polls
   * @throws {StreamError} if the transmitter does not answer, or some of it is not committed yet: that comes again
   */
  poll(url: string, isStillOurs: () => boolean, signal: AbortSignal): Promise<void>
}

// So many are asked for at once, and fewer after an answer that was too large.
const maxEvents = 100
// They go into one transaction, and leave room for what others ask for.
const actingAtOnce = 32
// Nobody has so much to say: it sends the same again and again.
const maxPolls = 1_000

/** What is to be acknowledged with the next poll; kept until a poll was answered. */
interface Settled {
  readonly ack: string[]
  readonly setErrs: Map<string, { err: string; description: string }>
}

/**
 * A token is acknowledged when what it asks for is committed, or it asks for nothing; what cannot be accepted is reported. All
 * else comes again: after a failure, a restart, or at another instance, and is then done once.
 */
export function createPoller({ name, received, transmitter, now }: PollerOptions): Poller {
  let settled: Settled = { ack: [], setErrs: new Map() }
  let count = maxEvents

  async function ask(url: string, events: number, signal: AbortSignal): Promise<PollAnswer> {
    const { ack, setErrs } = settled
    try {
      const answer = await transmitter.poll(
        url,
        { ack, setErrs: Object.fromEntries(setErrs), maxEvents: events },
        signal
      )
      settled = { ack: [], setErrs: new Map() }
      count = Math.min(count * 2, maxEvents)
      return answer
    } catch (error) {
      if (error instanceof StreamError && error.code === 'ERR_STREAM_ANSWER') {
        count = Math.max(1, Math.floor(count / 4)) // it may be too large
      }
      if (error instanceof StreamError && error.code === 'ERR_STREAM_REQUEST') {
        // What it does not want to hear must not hold up what comes next. What was done comes again, and is a duplicate.
        settled = { ack: setErrs.size > 0 ? ack : [], setErrs: new Map() }
      }
      throw error
    }
  }

  async function take(deliveredAs: string, token: unknown): Promise<boolean> {
    const outcome = await received({ stream: name, deliveredAs, token }, { receivedAt: now() })
    if (isDone(outcome)) {
      settled.ack.push(deliveredAs)
      return true
    }
    if (outcome.outcome === 'rejected') {
      const { code, message } = outcome.error
      settled.setErrs.set(deliveredAs, { err: errorOf(code), description: message })
      return true
    }
    return false
  }

  return {
    async poll(url, isStillOurs, signal) {
      for (let polls = 0; polls < maxPolls && isStillOurs() && !signal.aborted; polls += 1) {
        const { sets } = await ask(url, count, signal)
        let open = 0
        const entries = [...sets]
        for (let i = 0; i < entries.length && !signal.aborted; i += actingAtOnce) {
          const ends = await Promise.all(entries.slice(i, i + actingAtOnce).map(([jti, token]) => take(jti, token)))
          open += ends.filter((isSettled) => !isSettled).length
        }
        if (open > 0) {
          await acknowledge(url, signal)
          throw new StreamError('ERR_STREAM_UNCOMMITTED', { detail: `${open} of ${entries.length}` })
        }
        if (entries.length === 0) {
          return // what was settled before is acknowledged by now
        }
      }
    }
  }

  /** What is done need not wait for what is not. The answer brings the same again, which waits. */
  async function acknowledge(url: string, signal: AbortSignal): Promise<void> {
    if (settled.ack.length > 0 || settled.setErrs.size > 0) {
      await ask(url, 0, signal)
    }
  }
}

function isDone(outcome: Outcome): boolean {
  return 'results' in outcome || outcome.outcome === 'ignored'
}

import type { RejectionDetails } from './errors.ts'
import { isOfProvider } from './outcome-counts.ts'
import type { CarriedOut, Outcome } from './receive.ts'

/** What came of one signal, for operators. Nothing of it is the signal's content, but for the details of a rejected one. */
export interface RecentSignal {
  /** Counts the signals of this process; the next has the next one. */
  readonly position: number
  readonly at: Date
  readonly source: string
  /** The name of the configured issuer; null if it names none. */
  readonly issuer: string | null
  readonly outcome: Outcome['outcome']
  readonly isRetry: boolean
  readonly tookMs: number
  /** Why it is ignored; null if it is not. */
  readonly reason: string | null
  /** Of an error; null if there was none. */
  readonly code: string | null
  /** The fixed text for the code. */
  readonly description: string | null
  readonly details: RejectionDetails
  readonly accepted: string | null
  readonly hint: string | null
  readonly orders: readonly RecentOrder[]
}

export interface RecentOrder {
  /** Of its record; null if it leaves none. */
  readonly record: string | null
  readonly clientId: string | null
  readonly selector: string
  readonly hasSid: boolean
  readonly hasSubject: boolean
  /** When the signal says that it was issued; null if it does not say. */
  readonly issuedAt: Date | null
  /** Null as long as it is not carried out. */
  readonly result: Pick<CarriedOut, 'outcome' | 'accounts' | 'sessions' | 'rows' | 'byClient'> | null
}

export interface RecentSignals {
  add(outcome: Outcome): void
  /** Those after this position, the oldest first. */
  since(position: number): readonly RecentSignal[]
  /** Of the last one; 0 before the first. */
  position(): number
}

/**
 * Remembers what came of the last signals, in memory: so that somebody who sets up an issuer sees what becomes of a real one.
 * What is answered 429 is left out, and what the provider has not sent.
 *
 * @param options.max how many are remembered; default 200
 * @param options.now milliseconds since 1970; default `Date.now`
 */
export function createRecentSignals({
  max = 200,
  now = Date.now
}: {
  readonly max?: number
  readonly now?: () => number
} = {}): RecentSignals {
  const latest: RecentSignal[] = []
  let position = 0
  return {
    add(outcome) {
      const isLimited = outcome.outcome === 'rejected' && outcome.retryAfterSeconds > 0
      if (isLimited || !isOfProvider(outcome)) {
        return
      }
      position += 1
      const { source, issuer = null, isRetry, tookMs } = outcome
      latest.push({
        position,
        at: new Date(now()),
        source,
        issuer,
        outcome: outcome.outcome,
        isRetry,
        tookMs,
        reason: 'reason' in outcome ? outcome.reason : null,
        ...errorOf(outcome),
        orders: ordersOf(outcome)
      })
      if (latest.length > max) {
        latest.shift()
      }
    },
    since: (after) => latest.filter((signal) => signal.position > after),
    position: () => position
  }
}

function errorOf(outcome: Outcome) {
  if (outcome.outcome === 'rejected') {
    const { code, message: description, details, accepted = null, hint = null } = outcome.error
    return { code, description, details, accepted, hint }
  }
  const none = { details: {}, accepted: null, hint: null }
  return outcome.outcome === 'deferred' || outcome.outcome === 'lost'
    ? { code: outcome.error.code, description: outcome.error.message, ...none }
    : { code: null, description: null, ...none }
}

function ordersOf(outcome: Outcome): RecentOrder[] {
  const results: readonly CarriedOut[] = 'results' in outcome ? outcome.results : []
  const orders = 'orders' in outcome ? outcome.orders : results.map(({ order }) => order)
  return orders.map((order, i) => {
    const { selector, clientId = null, issuedAt, recordUnmatched } = order
    const result = results[i]
    const leavesRecord = recordUnmatched || result === undefined || result.outcome !== 'unmatched'
    return {
      record: leavesRecord ? order.id : null,
      clientId,
      selector: selector.kind,
      hasSid: 'sid' in selector && selector.sid !== undefined,
      hasSubject: 'subject' in selector && selector.subject !== undefined,
      issuedAt: issuedAt === undefined ? null : new Date(issuedAt * 1_000),
      result: result ?? null
    }
  })
}

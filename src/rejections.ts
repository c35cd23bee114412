import type { RejectionCode, RejectionDetails } from './errors.ts'
import type { Outcome } from './receive.ts'
import { printAddress } from './senders.ts'

/** A signal that was rejected, for operators: who sent it, why not, and what it says of itself. */
export interface Rejection {
  /** Counts the rejections of this process; the next has the next one. */
  readonly position: number
  readonly at: Date
  readonly code: RejectionCode
  /** The fixed text for the code. */
  readonly description: string
  readonly source: string
  /** The name of the configured issuer that the signal names. */
  readonly issuer: string | null
  readonly address: string | null
  /** The offending values, cut and escaped. Nothing of them is true. */
  readonly details: RejectionDetails
  /** What is accepted in place of the offending value. */
  readonly accepted: string | null
  /** The likeliest mistake. */
  readonly hint: string | null
}

export interface Rejections {
  add(outcome: Outcome): void
  /** The newest first. */
  list(limit: number): Rejection[]
  /** How many signals were answered 429, and are not listed. */
  limited(): number
}

export interface RejectionsOptions {
  /** How many are remembered; default 500. */
  readonly max?: number
  /** Milliseconds since 1970; default `Date.now`. */
  readonly now?: () => number
}

/** Remembers the last rejections, in memory: a hostile sender must not fill the database. */
export function createRejections({ max = 500, now = Date.now }: RejectionsOptions = {}): Rejections {
  const latest: Rejection[] = []
  let position = 0
  let limited = 0
  return {
    add(outcome) {
      if (outcome.outcome !== 'rejected') {
        return
      }
      if (outcome.retryAfterSeconds > 0) {
        limited += 1
        return
      }
      const { source, issuer = null, sender, error } = outcome
      const { code, message: description, details, accepted = null, hint = null } = error
      const address = sender === undefined ? null : printAddress(sender)
      position += 1
      const at = new Date(now())
      latest.push({ position, at, code, description, source, issuer, address, details, accepted, hint })
      if (latest.length > max) {
        latest.shift()
      }
    },
    list: (limit) => latest.slice(-limit).reverse(),
    limited: () => limited
  }
}

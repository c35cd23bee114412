import type { LogoutOutcome } from './logout-request.ts'

/** A request that was refused, for operators. Nothing of it is kept but who sent it, to whom, and why not. */
export interface Rejection {
  /** Counts the refusals of this process; the next has the next one. */
  readonly position: number
  readonly at: Date
  readonly code: string
  /** The fixed text for the code. */
  readonly description: string
  readonly endpoint: LogoutOutcome['endpoint']
  /** The name of the issuer's configuration, where the request named one that is trusted. */
  readonly issuer: string | null
  readonly address: string | null
}

export interface Rejections {
  add(outcome: LogoutOutcome): void
  /** The newest first. */
  list(limit: number): Rejection[]
  /** How many requests were answered 429, and are not listed. */
  limited(): number
}

export interface RejectionsOptions {
  /** How many are remembered; default 500. */
  readonly max?: number
  /** Milliseconds since 1970; default `Date.now`. */
  readonly now?: () => number
}

/** Remembers the last refusals, in memory: a hostile sender must not fill the database. */
export function createRejections({ max = 500, now = Date.now }: RejectionsOptions = {}): Rejections {
  const latest: Rejection[] = []
  let position = 0
  let limited = 0
  return {
    add({ endpoint, issuer = null, outcome, reason, description, address = null }) {
      if (outcome === 'limited') {
        limited += 1
      }
      if (outcome !== 'refused' || reason === undefined || description === undefined) {
        return
      }
      position += 1
      latest.push({ position, at: new Date(now()), code: reason, description, endpoint, issuer, address })
      if (latest.length > max) {
        latest.shift()
      }
    },
    list: (limit) => latest.slice(-limit).reverse(),
    limited: () => limited
  }
}

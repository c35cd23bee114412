import type { FastifyBaseLogger } from 'fastify'
import { networkOf } from './network.ts'

export interface RejectionLimitOptions {
  /** How many refused requests an address has at once; default 60. */
  burst?: number
  /** How many more it gets back each second; default 1. */
  perSecond?: number
  /** Milliseconds since 1970; default `Date.now`. */
  now?: () => number
  /** Where the count of what was beyond the limit is told: a line for each address and minute at most; default nowhere. */
  logger?: Pick<FastifyBaseLogger, 'warn'> | undefined
  /** The message of that line; default `too many refused requests`. */
  message?: string
}

interface Bucket {
  readonly left: number
  readonly at: number
  /** How many were beyond the limit since a line told of it, and when that was. */
  readonly untold: number
  readonly toldAt: number
}

const tellEveryMs = 60_000
const maxAddresses = 10_000

/**
 * Makes the function that counts the refused requests of an address, and tells after how many seconds it may send the next
 * one, or 0 where it is within its limit. Only refusals are counted: what is genuine is never limited, also
 * from an address that has sent a flood.
 */
export function createRejectionLimit({
  burst = 60,
  perSecond = 1,
  now = Date.now,
  logger,
  message = 'too many refused requests'
}: RejectionLimitOptions = {}) {
  // The map keeps the order of use, the oldest first.
  const buckets = new Map<string, Bucket>()

  function tell(address: string, count: number): void {
    logger?.warn({ address, count }, message)
  }

  function forgetOldest(): void {
    const [oldest] = buckets
    if (oldest !== undefined) {
      const [address, { untold }] = oldest
      buckets.delete(address)
      if (untold > 0) {
        tell(address, untold)
      }
    }
  }

  return (address: string): number => {
    const key = networkOf(address)
    const at = now()
    const known = buckets.get(key) ?? { left: burst, at, untold: 0, toldAt: Number.NEGATIVE_INFINITY }
    const left = Math.min(burst, known.left + (Math.max(0, at - known.at) / 1_000) * perSecond)
    const untold = left >= 1 ? known.untold : known.untold + 1
    const isToTell = untold > 0 && Math.abs(at - known.toldAt) >= tellEveryMs // also by a clock that was set back
    if (isToTell) {
      tell(key, untold)
    }
    buckets.delete(key)
    buckets.set(key, {
      left: Math.max(0, left - 1),
      at,
      untold: isToTell ? 0 : untold,
      toldAt: isToTell ? at : known.toldAt
    })
    if (buckets.size > maxAddresses) {
      forgetOldest()
    }
    return left >= 1 ? 0 : Math.ceil((1 - left) / perSecond)
  }
}

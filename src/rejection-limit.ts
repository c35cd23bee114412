import { isIPv6 } from 'node:net'
import type { FastifyBaseLogger } from 'fastify'

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
 *
 * An IPv6 address counts as its /64, which a single sender has whole (RFC 6177 §2).
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

export interface Suspects {
  /** Has what this address sends give way for a minute. */
  add(address: string): void
  /** Resolves when it is this address's turn, with what ends the turn, once; undefined where it need not wait. */
  turn(address: string): Promise<() => void> | undefined
}

const suspectForMs = 60_000
// Far below the time of an answer: what is genuine waits for its turn, and is done.
const maxTurnWaitMs = 300

/**
 * Lets what comes from addresses that sent too much that was refused go one by one, behind everybody else: a flood then
 * never has more than one token at the costly checks, however many connections it comes over.
 */
export function createSuspects({ now = Date.now }: { now?: () => number } = {}): Suspects {
  const since = new Map<string, number>()
  const waiting: (() => void)[] = []
  let isBusy = false

  function next(): void {
    const go = waiting.shift()
    isBusy = go !== undefined
    // After what has arrived meanwhile, of everybody else.
    if (go !== undefined) {
      setImmediate(go)
    }
  }

  return {
    add(address) {
      const key = networkOf(address)
      since.delete(key)
      since.set(key, now())
      const [oldest] = since.keys()
      if (since.size > maxAddresses && oldest !== undefined) {
        since.delete(oldest)
      }
    },
    turn(address) {
      const addedAt = since.get(networkOf(address))
      if (addedAt === undefined || Math.abs(now() - addedAt) > suspectForMs) {
        return undefined
      }
      return new Promise((resolve) => {
        const goUnasked = setTimeout(() => {
          const place = waiting.indexOf(go)
          if (place >= 0) {
            waiting.splice(place, 1)
            resolve(() => {})
          }
        }, maxTurnWaitMs)
        const go = () => {
          clearTimeout(goUnasked)
          let isOver = false
          resolve(() => {
            if (!isOver) {
              isOver = true
              next()
            }
          })
        }
        waiting.push(go)
        if (!isBusy) {
          next()
        }
      })
    }
  }
}

/**
 * The address, or the /64 of an IPv6 one; an IPv4 address in an IPv6 one is itself. Some proxies append the port in
 * `X-Forwarded-For`, and each connection would be an address of its own.
 */
function networkOf(addressAndPort: string): string {
  const [, bracketed, plain] = /^(?:\[([^\]]+)\]|(\d+(?:\.\d+){3}))(?::\d+)?$/.exec(addressAndPort) ?? []
  const address = bracketed ?? plain ?? addressAndPort
  const mapped = /^::ffff:(\d+\.\d+\.\d+\.\d+)$/i.exec(address)?.[1]
  if (mapped !== undefined || !isIPv6(address)) {
    return mapped ?? address
  }
  const [head = '', tail] = (address.split('%')[0] ?? '').split('::')
  const before = head === '' ? [] : head.split(':')
  const after = tail === undefined || tail === '' ? [] : tail.split(':')
  const zeros = tail === undefined ? [] : Array.from({ length: 8 - before.length - after.length }, () => '0')
  const groups = [...before, ...zeros, ...after].slice(0, 4)
  return groups.map((group) => Number.parseInt(group, 16).toString(16)).join(':')
}

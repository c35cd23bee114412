import { isIPv6 } from 'node:net'

export interface RejectionLimitOptions {
  /** How many refused requests an address has at once; default 60. */
  burst?: number
  /** How many more it gets back each second; default 1. */
  perSecond?: number
  /** Milliseconds since 1970; default `Date.now`. */
  now?: () => number
}

/**
 * Makes the function that counts the refused requests of an address, and tells after how many seconds it may send the next
 * one, or 0 where it is within its limit. Only refusals are counted: what is genuine is never limited, also
 * from an address that has sent a flood.
 *
 * An IPv6 address counts as its /64, which a single sender has whole (RFC 6177 §2).
 */
export function createRejectionLimit({ burst = 60, perSecond = 1, now = Date.now }: RejectionLimitOptions = {}) {
  // Tokens left, and when they were counted; the map keeps the order of use, the oldest first.
  const buckets = new Map<string, { left: number; at: number }>()
  const maxAddresses = 10_000

  return (address: string): number => {
    const key = networkOf(address)
    const at = now()
    const known = buckets.get(key) ?? { left: burst, at }
    const left = Math.min(burst, known.left + (Math.max(0, at - known.at) / 1_000) * perSecond)
    buckets.delete(key)
    buckets.set(key, { left: Math.max(0, left - 1), at })
    if (buckets.size > maxAddresses) {
      const [oldest] = buckets.keys()
      buckets.delete(oldest ?? '')
    }
    return left >= 1 ? 0 : Math.ceil((1 - left) / perSecond)
  }
}

/** The address, or the /64 of an IPv6 one; an IPv4 address in an IPv6 one is itself. */
function networkOf(address: string): string {
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

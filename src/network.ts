import { isIPv6 } from 'node:net'

/**
 * What a single sender has: the address, or the /64 of an IPv6 one (RFC 6177 §2). An IPv4 address in an IPv6 one is
 * itself. Some proxies append the port in `X-Forwarded-For`, and each connection would be an address of its own.
 */
export function networkOf(addressAndPort: string): string {
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

// The load, a process of its own: every connection sends its next request as soon as it has an answer, or when it is due.
// Requests are bytes made beforehand, and answers are hardly parsed, so that little of the machine goes to it.

import { readFileSync } from 'node:fs'
import { connect } from 'node:net'
import { quantile } from './statistics.ts'

export interface LoadOrder {
  readonly port: number
  readonly path: string
  /** A file with one logout token a line. */
  readonly tokens: string
  readonly from: number
  readonly to: number
  readonly connections: number
  /** Requests a second over all connections; default as many as can be. */
  readonly perSecond?: number
  /** The address that the server sees; default 127.0.0.1. */
  readonly localAddress?: string
}

export interface LoadResult {
  readonly seconds: number
  readonly perSecond: number
  readonly p50Ms: number
  readonly p99Ms: number
  /** How often each status was answered. */
  readonly statuses: Record<string, number>
}

async function load({
  port,
  path,
  tokens,
  from,
  to,
  connections,
  perSecond = Number.POSITIVE_INFINITY,
  localAddress = '127.0.0.1'
}: LoadOrder): Promise<LoadResult> {
  const requests = readFileSync(tokens, 'latin1')
    .split('\n')
    .slice(from, to)
    .map((token) => {
      const body = `logout_token=${token}`
      return Buffer.from(
        `POST ${path} HTTP/1.1\r\nhost: 127.0.0.1:${port}\r\ncontent-type: application/x-www-form-urlencoded\r\ncontent-length: ${body.length}\r\n\r\n${body}`,
        'latin1'
      )
    })
  const latencies = new Float64Array(requests.length)
  const statuses: Record<string, number> = {}
  let next = 0

  async function converse(): Promise<void> {
    const socket = connect({ port, host: '127.0.0.1', localAddress, noDelay: true })
    await new Promise<void>((resolve, reject) => {
      let sentAt = 0
      let current = 0
      let answer = ''
      const send = () => {
        const request = requests[next]
        if (request === undefined) {
          socket.end()
          resolve()
          return
        }
        current = next
        next += 1
        // One that found no connection free has waited since it was due.
        const dueAt = startedAt + (current * 1_000) / perSecond
        const earlyMs = dueAt - performance.now()
        if (earlyMs > 0) {
          setTimeout(() => {
            sentAt = performance.now()
            socket.write(request)
          }, earlyMs)
        } else {
          sentAt = perSecond === Number.POSITIVE_INFINITY ? performance.now() : dueAt
          socket.write(request)
        }
      }
      socket.on('connect', send)
      socket.on('error', reject)
      socket.on('close', () => reject(new Error('the server hung up')))
      socket.on('data', (chunk: Buffer) => {
        answer += chunk.toString('latin1')
        const end = answer.indexOf('\r\n\r\n')
        if (end === -1) {
          return
        }
        const length = Number(/\r\ncontent-length: (\d+)/i.exec(answer)?.[1] ?? 0)
        if (answer.length < end + 4 + length) {
          return
        }
        latencies[current] = performance.now() - sentAt
        const status = answer.slice(9, 12)
        statuses[status] = (statuses[status] ?? 0) + 1
        answer = ''
        send()
      })
    })
  }

  const startedAt = performance.now()
  await Promise.all(Array.from({ length: connections }, converse))
  const seconds = (performance.now() - startedAt) / 1_000
  return {
    seconds,
    perSecond: requests.length / seconds,
    p50Ms: quantile([...latencies], 0.5),
    p99Ms: quantile([...latencies], 0.99),
    statuses
  }
}

process.on('message', (order: LoadOrder) => {
  load(order).then(
    (result) => process.send?.({ result }),
    (error: unknown) => process.send?.({ error: String(error) })
  )
})

import { readFileSync } from 'node:fs'
import type { IncomingMessage, Server, ServerResponse } from 'node:http'
import type { Socket } from 'node:net'
import type { FastifyBaseLogger } from 'fastify'

export interface ConnectionBoundOptions {
  /** The most connections at once; default as {@link maxConnections} finds. */
  readonly max?: number
  /** Default nowhere. */
  readonly logger?: Pick<FastifyBaseLogger, 'warn'>
}

// Some 15 KB of memory each.
const mostEver = 10_000
const openFilesAtLeast = 1_024
const lineEveryMs = 60_000

/**
 * Bounds the connections of a server, so that nobody who opens many takes what others, the database and the spool need: a process has so
 * many files and no more. One too many closes one on which no request is being answered, the oldest: of the address that has most, if
 * it has many. Others with a burst at the same time lose none.
 */
export function boundConnections(
  server: Server,
  { max = maxConnections(), logger }: ConnectionBoundOptions = {}
): void {
  const many = Math.max(1, Math.floor(max / 16))
  /** In the order in which they began to wait for a request. */
  const waiting = new Set<Socket>()
  const waitingOf = new Map<string, Set<Socket>>()
  const withMany = new Set<string>()
  /** What arrives, or is being answered. */
  const requests = new Map<Socket, IncomingMessage>()
  let lastLineAt = Number.NEGATIVE_INFINITY

  function addWaiting(socket: Socket, address: string): void {
    waiting.add(socket)
    const own = waitingOf.get(address) ?? new Set()
    own.add(socket)
    waitingOf.set(address, own)
    if (own.size > many) {
      withMany.add(address)
    }
  }

  function removeWaiting(socket: Socket, address: string): void {
    waiting.delete(socket)
    const own = waitingOf.get(address)
    own?.delete(socket)
    if (own === undefined || own.size <= many) {
      withMany.delete(address)
    }
    if (own?.size === 0) {
      waitingOf.delete(address)
    }
  }

  function choose(): Socket | undefined {
    let heaviest: ReadonlySet<Socket> = new Set()
    for (const address of withMany) {
      // fewer than 16
      const own = waitingOf.get(address) ?? heaviest
      heaviest = own.size > heaviest.size ? own : heaviest
    }
    const [oldest] = heaviest.size > 0 ? heaviest : waiting
    return oldest ?? [...requests].find(([, request]) => !request.complete)?.[0]
  }

  function makeRoom(): boolean {
    if (performance.now() - lastLineAt > lineEveryMs) {
      lastLineAt = performance.now()
      logger?.warn({ connections: max }, 'too many connections: idle ones are closed')
    }
    const victim = choose()
    victim?.destroy()
    return victim !== undefined
  }

  server.on('connection', (socket: Socket) => {
    const address = socket.remoteAddress ?? ''
    if (waiting.size + requests.size >= max && !makeRoom()) {
      socket.destroy() // all others are being answered, which takes two seconds at most
      return
    }
    addWaiting(socket, address)
    socket.once('close', () => {
      removeWaiting(socket, address)
      requests.delete(socket)
    })
  })
  server.on('request', (request: IncomingMessage, response: ServerResponse) => {
    const { socket } = request
    const address = socket.remoteAddress ?? ''
    removeWaiting(socket, address)
    requests.set(socket, request)
    response.once('close', () => {
      // One that was sent behind it may have begun.
      if (requests.get(socket) === request && !socket.destroyed) {
        requests.delete(socket)
        addWaiting(socket, address)
      }
    })
  })
}

/** Half of the files that this process may have open. */
export function maxConnections(limits = readLimits()): number {
  const [, soft] = /^Max open files +(\d+)/m.exec(limits) ?? []
  return Math.min(mostEver, Math.floor(Number(soft ?? openFilesAtLeast) / 2))
}

/** Node.js raises its soft limit as far as it may. Empty on systems that do not say. */
function readLimits(): string {
  try {
    return readFileSync('/proc/self/limits', 'utf8')
  } catch {
    return ''
  }
}

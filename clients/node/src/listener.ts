import type { Database, PoolClient } from './database.ts'
import type { RevokedSession, Rows } from './rows.ts'

export type PurgeListener = (revoked: RevokedSession) => unknown

export interface ListenerOptions {
  readonly rows: Pick<Rows, 'revokedSince'>
  /** Where LISTEN goes: a connection of it is held until the end. */
  readonly database: Database
  readonly warn: (message: string) => void
}

const channel = 'msal_logout'
const pollMs = 30_000
const maxBackOffMs = 5_000

/**
 * Gives a listener the app's sessions that are revoked from now on, in order and each once. A notification only says that
 * there is something to read; what, is read from the database after the last position, so that a lost connection loses
 * nothing.
 *
 * @param onRevoked is awaited before the next one; what it throws is warned of, and the session is not given again
 * @returns a function that ends it, and resolves when `onRevoked` is not running any more
 * @throws the database's error where it cannot be reached at the start
 */
export async function listenForPurges(
  { rows, database, warn }: ListenerOptions,
  onRevoked: PurgeListener
): Promise<() => Promise<void>> {
  let client: PoolClient | undefined
  let position: string
  let reading: Promise<void> | undefined
  let isDue = false
  let backOffMs = 50
  let retry: NodeJS.Timeout | undefined
  let stopped = false

  async function connect(): Promise<void> {
    await database.connect({ text: `listen ${channel}` }, (connected) => {
      if (stopped) {
        connected.release(true) // not to the pool: it listens
        return
      }
      for (const [event, listener] of events) {
        connected.on(event, listener)
      }
      client = connected
      backOffMs = 50
    })
  }

  function drop(): void {
    client?.off('notification', read)
    client?.off('end', reconnect)
    client?.release(true)
    client = undefined
  }

  function reconnect(): void {
    if (stopped || retry !== undefined) {
      return
    }
    drop()
    retry = setTimeout(() => {
      retry = undefined
      connect().then(read, reconnect)
    }, backOffMs)
    backOffMs = Math.min(backOffMs * 2, maxBackOffMs)
  }

  const events = [
    ['notification', read],
    ['error', reconnect],
    ['end', reconnect]
  ] as const

  function read(): void {
    isDue = true
    reading ??= readAll().finally(() => {
      reading = undefined
    })
  }

  async function readAll(): Promise<void> {
    while (isDue && !stopped) {
      isDue = false
      try {
        for (const { position: next, ...revoked } of await rows.revokedSince(position)) {
          if (stopped) {
            return
          }
          position = next
          await give(revoked)
        }
      } catch {
        isDue = true // the same position again, when there is a connection
        reconnect()
        return
      }
    }
  }

  async function give(revoked: RevokedSession): Promise<void> {
    try {
      await onRevoked(revoked)
    } catch (error) {
      warn(`a listener of purges failed: ${error instanceof Error ? error.message : error}`)
    }
  }

  // First listen, then take the position: what is revoked in between is given.
  try {
    await connect()
    position = (await rows.revokedSince(null)).at(-1)?.position ?? '0'
  } catch (error) {
    stopped = true
    clearTimeout(retry)
    drop()
    throw error
  }
  // A pooler in transaction mode swallows LISTEN without a word.
  const poll = setInterval(read, pollMs)
  poll.unref()

  return async () => {
    stopped = true
    clearInterval(poll)
    clearTimeout(retry)
    drop()
    await reading
  }
}

import type { Pool, PoolClient } from 'pg'
import type { EndedSession, Rows } from './rows.ts'

export type PurgeListener = (ended: EndedSession) => unknown

export interface ListenerOptions {
  readonly rows: Pick<Rows, 'endedSince'>
  /** Where LISTEN goes: a connection of it is held until the end. */
  readonly pool: Pool
  readonly warn: (message: string) => void
}

const channel = 'msal_logout'
const pollMs = 30_000
const maxBackOffMs = 5_000

/**
 * Tells of the app's sessions that purges end from now on, in order and each once. A notification only says that there
 * is something to read; what, is read from the database after the last position, so that a lost connection loses
 * nothing.
 *
 * @param onEnded is awaited before the next one is told; what it throws is warned of, and not told again
 * @returns a function that ends it, and resolves when `onEnded` is not running any more
 * @throws the database's error where it cannot be reached at the start
 */
export async function listenForPurges(
  { rows, pool, warn }: ListenerOptions,
  onEnded: PurgeListener
): Promise<() => Promise<void>> {
  let client: PoolClient | undefined
  let position: string
  let reading: Promise<void> | undefined
  let isDue = false
  let backOffMs = 50
  let retry: NodeJS.Timeout | undefined
  let stopped = false

  async function connect(): Promise<void> {
    const connected = await pool.connect()
    if (stopped) {
      connected.release()
      return
    }
    connected.on('notification', read).on('error', reconnect).on('end', reconnect)
    client = connected
    await connected.query(`listen ${channel}`)
    backOffMs = 50
  }

  function drop(): void {
    client?.off('notification', read).off('end', reconnect)
    client?.release(true) // not to the pool: it listens
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
        for (const { position: next, ...ended } of await rows.endedSince(position)) {
          if (stopped) {
            return
          }
          position = next
          await tell(ended)
        }
      } catch {
        isDue = true // the same position again, when there is a connection
        reconnect()
        return
      }
    }
  }

  async function tell(ended: EndedSession): Promise<void> {
    try {
      await onEnded(ended)
    } catch (error) {
      warn(`a listener of purges failed: ${error instanceof Error ? error.message : error}`)
    }
  }

  // First listen, then take the position: what is ended in between is told.
  try {
    await connect()
    position = (await rows.endedSince(null)).at(-1)?.position ?? '0'
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

import { type GuardedSession, type SessionQuery, toQuery } from './guarded-session.ts'
import type { TokenCache } from './token-cache.ts'

export interface ConnectionGuardOptions {
  readonly tokenCache: Pick<TokenCache, 'isSessionActive' | 'onPurge'>
}

/** Closes what outlives a request when its user is signed out: WebSockets, server-sent events. */
export interface ConnectionGuard {
  /**
   * Watches over one connection.
   *
   * @param session whose it is; as for the guards
   * @param close ends it; called once, also at once where the user is signed out already. It is awaited, and what it
   *   throws later is warned of
   * @returns a function to be called when the connection has ended by itself
   * @throws {TokenCacheDatabaseError} where the database cannot be reached: do not open the connection then
   */
  add(session: GuardedSession, close: () => unknown): Promise<() => void>
  /** Stops listening; the connections stay open. */
  stop(): Promise<void>
}

/** One listener for all connections of this process; it begins with the first one. */
export function createConnectionGuard({ tokenCache }: ConnectionGuardOptions): ConnectionGuard {
  const open = new Map<string, Set<() => unknown>>()
  let listening: Promise<() => Promise<void>> | undefined

  function listen(): Promise<unknown> {
    listening ??= tokenCache
      .onPurge(async ({ issuer, sid, subject }) => {
        const key = keyOf({ issuer, sid, subject })
        const watched = open.get(key)
        const closes = [...(watched ?? [])]
        watched?.clear()
        open.delete(key)
        // All of them, whatever one throws; which the listener warns of.
        const ends = await Promise.allSettled(closes.map(async (close) => close()))
        const failed = ends.find(({ status }) => status === 'rejected')
        if (failed?.status === 'rejected') {
          throw failed.reason
        }
      })
      .catch((error: unknown) => {
        listening = undefined // the next connection tries again
        throw error
      })
    return listening
  }

  return {
    async add(session, close) {
      const query = toQuery(session)
      const key = keyOf(query)
      await listen()
      const closes = open.get(key) ?? new Set()
      open.set(key, closes.add(close))
      const remove = (): void => {
        closes.delete(close)
        if (closes.size === 0 && open.get(key) === closes) {
          open.delete(key)
        }
      }
      // Only now: a sign-out from before the listener began is seen here, and a later one is heard.
      try {
        if (!(await tokenCache.isSessionActive(query)) && closes.has(close)) {
          remove()
          await close()
        }
      } catch (error) {
        remove()
        throw error
      }
      return remove
    },

    async stop() {
      const stop = await listening?.catch(() => undefined)
      await stop?.()
    }
  }
}

/** A session as sign-outs name it: by its sid, or where it has none by its subject. */
function keyOf({ issuer, sid, subject }: SessionQuery): string {
  return JSON.stringify(sid ? [issuer, 'sid', sid] : [issuer, 'sub', subject])
}

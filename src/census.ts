import { UnavailableError } from './errors.ts'
import type { Issuers } from './issuers.ts'
import type { Store } from './store.ts'

/** How many sessions an app has stored of an issuer. */
export interface SessionCount {
  /** As the app has stored it. */
  readonly issuer: string
  /** The name of its configuration; undefined if it is not configured. */
  readonly issuerName: string | undefined
  readonly clientId: string
  readonly sessions: number
  readonly withoutSid: number
}

export interface Census {
  /** True if the table is so large that a part of it was counted. */
  readonly isEstimate: boolean
  readonly counts: readonly SessionCount[]
}

export interface CensusOptions {
  readonly store: Pick<Store, 'countSessions'>
  readonly issuers: Pick<Issuers, 'find'>
  /** How old a count may be, in milliseconds, when it is asked for; default 10,000. */
  readonly maxAgeMs?: number
  /** Milliseconds since 1970; default `Date.now`. */
  readonly now?: () => number
}

/**
 * Counts the stored sessions by issuer and app, and those without a sid: a sign-out by sid alone does not end them. It is why
 * most set-ups match nothing.
 */
export function createCensus({ store, issuers, maxAgeMs = 10_000, now = Date.now }: CensusOptions) {
  let latest: Census | undefined
  let countedAt = Number.NEGATIVE_INFINITY
  let counting: Promise<void> | undefined

  async function count(): Promise<void> {
    const { counts, isEstimate } = await store.countSessions()
    latest = {
      isEstimate,
      counts: counts.map((each) => ({ ...each, issuerName: issuers.find(each.issuer)?.config.name }))
    }
    countedAt = now()
  }

  /** @throws {UnavailableError} if the database is out of reach */
  function refresh(): Promise<void> {
    counting ??= count().finally(() => {
      counting = undefined
    })
    return counting
  }

  return {
    refresh,
    /** As it was last; undefined before the first. */
    latest: () => latest,
    /** Not older than `maxAgeMs`; or as it was last, if the database is out of reach. */
    async current(): Promise<Census | undefined> {
      if (Math.abs(now() - countedAt) > maxAgeMs) {
        await refresh().catch((error: unknown) => {
          if (!(error instanceof UnavailableError)) {
            throw error
          }
        })
      }
      return latest
    }
  }
}

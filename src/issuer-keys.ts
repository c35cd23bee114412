import { createLocalJWKSet } from 'jose'
import { budget, within } from './budget.ts'
import { UnavailableError } from './errors.ts'
import type { Fetch } from './outbound-fetch.ts'
import { type PublicKey, servesIssuer } from './public-key.ts'
import { fetchPublishedKeys, type KeySource, type UnusableKey } from './published-keys.ts'

/** What picks the key for a token of this exact issuer, as jose wants it. */
export type KeySet = (issuer: string) => ReturnType<typeof createLocalJWKSet>

/** The keys of one issuer, or of a template for all its tenants. */
export interface IssuerKeys {
  /** @throws {UnavailableError} if no keys are at hand, or too old ones, and none can be had now */
  current(): Promise<KeySet>
  /**
   * Other keys than `known`, or undefined where those are the issuer's own as of the token's arrival, and judge it.
   *
   * @param at when the token arrived, milliseconds since 1970
   * @param fault `key`: none of the known ones fits; `signature`: the one that it names did not make its signature
   * @throws {UnavailableError} where the issuer may have published the token's key, and it cannot be fetched now
   */
  newerThan(known: KeySet, at: number, fault: 'key' | 'signature'): Promise<KeySet | undefined>
  status(): KeysStatus
}

/** An issuer's keys, for operators. */
export interface KeysStatus {
  /** How many keys are at hand. */
  readonly keys: number
  /** The ids of the keys that have one. */
  readonly kids: readonly string[]
  /** Published keys that are of no use, as of the last fetch, and why. */
  readonly unusable: readonly UnusableKey[]
  /** When they were fetched, milliseconds since 1970; undefined where there never were any. */
  readonly loadedAt: number | undefined
  /** Fetches that gave keys, and that failed, since the start. */
  readonly fetched: number
  readonly failed: number
  /** The last failure, also where a later fetch succeeded. */
  readonly lastFailure: { readonly at: number; readonly message: string } | undefined
}

export interface IssuerKeysOptions {
  /** Milliseconds since 1970; default `Date.now`. */
  now?: () => number
  /** The network's edge; default the global `fetch`. */
  fetch?: Fetch
  /**
   * How long a token waits for keys, milliseconds; default {@link budget}.keysMs. The fetch goes on, and serves the token
   * when it is retried.
   */
  maxWaitMs?: number
  /** How long a document of the issuer may take, milliseconds; default 10,000. */
  fetchTimeoutMs?: number
}

const refreshAfterMs = 10 * 60_000
const failureCoolDownMs = 30_000
// With no keys at all every logout waits for them.
const coldCoolDownMs = 1_000
// A token that no key at hand fits provokes a fetch, and anybody can make one up: so many at once, and one more each so often.
const provokedFetches = { burst: 10, everyMs: 10_000 }

/**
 * The keys of one issuer: fetched once, refreshed in the background, served stale while the issuer is down.
 * jose's own remote set throws when a reload fails although it still holds keys, and has no cool-down after
 * a failure; hence this one, around jose's local set.
 *
 * @param source.name for errors
 * @param source.maxStaleKeysSeconds how long keys serve while the issuer cannot be reached
 */
export function createIssuerKeys(
  { name, maxStaleKeysSeconds, ...source }: KeySource & { readonly name: string; readonly maxStaleKeysSeconds: number },
  { now = Date.now, fetch: get = fetch, maxWaitMs = budget.keysMs, fetchTimeoutMs }: IssuerKeysOptions = {}
): IssuerKeys {
  let keys: KeySet | undefined
  let loadedAt = Number.NEGATIVE_INFINITY
  // What was published later than this may be missing.
  let askedAt = Number.NEGATIVE_INFINITY
  let refreshMs = refreshAfterMs
  let failedAt = Number.NEGATIVE_INFINITY
  // Each kind of fault has fetches of its own, so that a sender who provokes the one does not spend the other's.
  const provoked = {
    key: { left: provokedFetches.burst, at: now() },
    signature: { left: provokedFetches.burst, at: now() }
  }
  // The fetch under way, as those see it that wait for it: rejected when they give up, here until it has ended.
  let loading: Promise<KeySet> | undefined
  let lastError: unknown
  let kids: readonly string[] = []
  const counts = { keys: 0, fetched: 0, failed: 0 }
  let unusable: readonly UnusableKey[] = []
  let lastFailure: KeysStatus['lastFailure']

  const unavailable = (cause: unknown) => new UnavailableError('ERR_KEYS_UNAVAILABLE', { issuer: name, cause })

  async function load(asOf: number): Promise<KeySet> {
    const published = await fetchPublishedKeys(source, { fetch: get, timeoutMs: fetchTimeoutMs })
    const loaded = keySet(published.usable, source.issuer)
    unusable = published.unusable
    loadedAt = now()
    askedAt = asOf
    // Not all instances at once.
    refreshMs = refreshAfterMs * (0.8 + Math.random() * 0.2)
    keys = loaded
    failedAt = Number.NEGATIVE_INFINITY
    counts.keys = published.usable.length
    kids = published.usable.flatMap(({ kid }) => (typeof kid === 'string' ? [kid] : []))
    counts.fetched += 1
    return loaded
  }

  function reload(asOf = now()): Promise<KeySet> {
    if (loading === undefined) {
      const begunAt = now()
      const fetching = load(asOf)
        .catch((error: unknown) => {
          lastError = error
          failedAt = begunAt // one that took long needs no cool-down
          counts.failed += 1
          lastFailure = { at: now(), message: failureMessage(error) }
          throw unavailable(error)
        })
        .finally(() => {
          loading = undefined
        })
      loading = within(fetching, maxWaitMs, () => unavailable(new Error('the issuer has not answered yet')))
    }
    return loading
  }

  /** Milliseconds since then; a clock that was set back makes it long ago. */
  const since = (time: number) => (now() < time ? Number.POSITIVE_INFINITY : now() - time)
  const hasJustFailed = () => since(failedAt) < (keys === undefined ? coldCoolDownMs : failureCoolDownMs)

  function mayFetchFor(fault: 'key' | 'signature'): boolean {
    const bucket = provoked[fault]
    const earned = Math.max(0, now() - bucket.at) / provokedFetches.everyMs
    bucket.left = Math.min(provokedFetches.burst, bucket.left + earned)
    bucket.at = now()
    if (bucket.left < 1) {
      return false
    }
    bucket.left -= 1
    return true
  }

  return {
    async current() {
      const age = since(loadedAt)
      if (keys !== undefined && (age <= maxStaleKeysSeconds * 1_000 || now() < loadedAt)) {
        if (age > refreshMs && !hasJustFailed()) {
          reload().catch(() => {}) // the keys at hand still serve
        }
        return keys
      }
      if (loading === undefined && hasJustFailed()) {
        throw unavailable(lastError)
      }
      return reload()
    },
    async newerThan(known, at, fault) {
      if (keys !== undefined && keys !== known) {
        return keys
      }
      // A clock that was set back since proves nothing.
      if (askedAt > at && askedAt <= now() + 1) {
        return undefined
      }
      if (loading !== undefined) {
        return loading
      }
      if (hasJustFailed()) {
        // The key may be among those that could not be fetched: not the token's fault.
        throw unavailable(lastError)
      }
      if (!mayFetchFor(fault)) {
        if (fault === 'signature') {
          return undefined
        }
        // Else anybody who makes up key ids could have the first tokens of a new key rejected.
        throw unavailable(new Error('the keys were fetched just now'))
      }
      return reload(Math.max(now(), at + 1))
    },
    status: () => ({ ...counts, kids, unusable, loadedAt: keys === undefined ? undefined : loadedAt, lastFailure })
  }
}

/** What picks among the keys those that serve the token's issuer. */
function keySet(keys: readonly PublicKey[], configured: string): KeySet {
  const serving = (issuer: string) => createLocalJWKSet({ keys: keys.filter((key) => servesIssuer(key, issuer)) })
  const own = new Map(keys.flatMap(({ issuer }) => (typeof issuer === 'string' ? [[issuer, serving(issuer)]] : [])))
  // Of a template: what serves every tenant.
  const common = serving(configured)
  return (issuer) => own.get(issuer) ?? common
}

/** With its causes: `fetch` itself says no more than "fetch failed". */
function failureMessage(error: unknown): string {
  const messages: string[] = []
  for (let cause = error; cause instanceof Error; cause = cause.cause) {
    messages.push(cause.message || ('code' in cause ? String(cause.code) : cause.name))
  }
  return messages.join(': ')
}

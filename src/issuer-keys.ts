import { createLocalJWKSet } from 'jose'
import { UnavailableError } from './errors.ts'
import { fetchPublishedKeys, type KeySource, type PublicKey } from './published-keys.ts'

/** What picks the key for a token of this exact issuer, as jose wants it. */
export type KeySet = (issuer: string) => ReturnType<typeof createLocalJWKSet>

/** The keys of one issuer, or of a template for all its tenants. */
export interface IssuerKeys {
  /** @throws {UnavailableError} where no keys are at hand, or too old ones, and none can be had now */
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
  /** For the network's edge in tests; default the global `fetch`. */
  fetch?: typeof fetch
}

const refreshAfterMs = 10 * 60_000
const failureCoolDownMs = 30_000
// With no keys at all every logout waits for them.
const coldCoolDownMs = 1_000
// A token that no key at hand fits provokes a fetch, whoever made it: so many at once, and one more each so often.
const provokedFetches = { burst: 10, everyMs: 10_000 }

/**
 * The keys of one issuer: fetched once, refreshed in the background, served stale while the issuer is down.
 * jose's own remote set throws when a reload fails although it still holds keys, and has no cool-down after
 * a failure; hence this one, around jose's local set.
 *
 * @param source.maxStaleKeysSeconds how long keys serve while the issuer cannot be reached
 */
export function createIssuerKeys(
  { maxStaleKeysSeconds, ...source }: KeySource & { readonly maxStaleKeysSeconds: number },
  { now = Date.now, fetch: get = fetch }: IssuerKeysOptions = {}
): IssuerKeys {
  let keys: KeySet | undefined
  let loadedAt = Number.NEGATIVE_INFINITY
  // What was published later than this may be missing.
  let askedAt = Number.NEGATIVE_INFINITY
  let refreshMs = refreshAfterMs
  let failedAt = Number.NEGATIVE_INFINITY
  // Each kind of fault has fetches of its own, so that whoever provokes the one does not spend the other's.
  const provoked = {
    key: { left: provokedFetches.burst, at: now() },
    signature: { left: provokedFetches.burst, at: now() }
  }
  let loading: Promise<KeySet> | undefined
  let lastError: unknown
  const told = { keys: 0, fetched: 0, failed: 0 }
  let lastFailure: KeysStatus['lastFailure']

  async function load(asOf: number): Promise<KeySet> {
    const published = await fetchPublishedKeys(source, get)
    const loaded = keySet(published, source.issuer)
    loadedAt = now()
    askedAt = asOf
    // Not all instances at once.
    refreshMs = refreshAfterMs * (0.8 + Math.random() * 0.2)
    keys = loaded
    failedAt = Number.NEGATIVE_INFINITY
    told.keys = published.length
    told.fetched += 1
    return loaded
  }

  function reload(asOf = now()): Promise<KeySet> {
    loading ??= load(asOf)
      .catch((error: unknown) => {
        lastError = error
        failedAt = now()
        told.failed += 1
        lastFailure = { at: now(), message: failureMessage(error) }
        throw new UnavailableError('ERR_KEYS_UNAVAILABLE', { cause: error })
      })
      .finally(() => {
        loading = undefined
      })
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
        throw new UnavailableError('ERR_KEYS_UNAVAILABLE', { cause: lastError })
      }
      return reload()
    },
    async newerThan(known, at, fault) {
      if (keys !== undefined && keys !== known) {
        return keys
      }
      // A clock that was set back since tells nothing.
      if (askedAt > at && askedAt <= now() + 1) {
        return undefined
      }
      if (loading !== undefined) {
        return loading
      }
      if (hasJustFailed()) {
        // The key may be among those that could not be fetched: not the token's fault.
        throw new UnavailableError('ERR_KEYS_UNAVAILABLE', { cause: lastError })
      }
      if (!mayFetchFor(fault)) {
        if (fault === 'signature') {
          return undefined
        }
        // Refusing it would let anybody who makes up key ids have the first tokens of a new key refused.
        throw new UnavailableError('ERR_KEYS_UNAVAILABLE', { cause: new Error('the keys were fetched just now') })
      }
      return reload(Math.max(now(), at + 1))
    },
    status: () => ({ ...told, loadedAt: keys === undefined ? undefined : loadedAt, lastFailure })
  }
}

/** Entra ID publishes one set for many tenants and binds some keys to an issuer: such a key serves that one alone. */
function keySet(keys: readonly PublicKey[], configured: string): KeySet {
  const serving = (issuer: string) =>
    createLocalJWKSet({ keys: keys.filter((key) => !isBound(key) || [issuer, configured].includes(key.issuer)) })
  const own = new Map(keys.filter(isBound).map(({ issuer }) => [issuer, serving(issuer)]))
  const common = serving(configured)
  return (issuer) => own.get(issuer) ?? common
}

function isBound(key: PublicKey): key is PublicKey & { issuer: string } {
  return typeof key.issuer === 'string'
}

/** `fetch` tells no more than "fetch failed"; what failed is its cause. */
function failureMessage(error: unknown): string {
  const { message, cause } = error instanceof Error ? error : new Error('unknown')
  return cause instanceof Error
    ? `${message}: ${cause.message || String('code' in cause ? cause.code : cause.name)}`
    : message
}

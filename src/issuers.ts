import { createLocalJWKSet, type JWK } from 'jose'
import { UnavailableError } from './errors.ts'

/** What is accepted of one issuer; the members and defaults are those of `ISSUERS_FILE` (README). */
export interface IssuerConfig {
  readonly name: string
  /** The exact `iss`; with `{tenantid}` in it a template that stands for one GUID. */
  readonly issuer: string
  readonly clientIds: readonly string[]
  /** The GUIDs a template is limited to. */
  readonly tenants: readonly string[] | undefined
  /** Where the keys are; undefined: as the issuer's discovery document says. */
  readonly jwksUri: string | undefined
  readonly algorithms: readonly string[]
  /** Accepted `typ` headers; null stands for none. */
  readonly types: readonly (string | null)[]
  /** How long keys serve while the issuer cannot be reached, in seconds. */
  readonly maxStaleKeysSeconds: number
  readonly requireExp: boolean
  readonly maxTokenAgeSeconds: number
  readonly clockToleranceSeconds: number
  /** What a token with both `sid` and `sub` ends: that session, or every session of the subject. */
  readonly sidAndSubject: 'session' | 'subject'
  /** Whether a purge takes every row of the account or spares rows that another live session uses. */
  readonly purgeScope: 'account' | 'session'
  readonly frontChannel: boolean
}

/** An issuer whose logout tokens are accepted. */
export interface Issuer {
  /** The exact `iss`; of a template, with the tenant put in. */
  readonly issuer: string
  readonly config: IssuerConfig
  readonly keys: IssuerKeys
}

export interface Issuers {
  /** The issuer of this exact `iss`, or undefined; costs no look-up outside this process. */
  find(iss: string): Issuer | undefined
  /** The configured issuer or template of this name. */
  named(name: string): IssuerConfig | undefined
  /** The only configured issuer, or undefined where there are several. */
  only(): IssuerConfig | undefined
  /** Begins to load the keys of every issuer, so that the first token need not wait. */
  warmUp(): void
  /** How the keys of each stand. */
  status(): IssuerStatus[]
}

/** An issuer's keys, for operators. */
export interface IssuerStatus {
  readonly name: string
  readonly issuer: string
  readonly config: IssuerConfig
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

/** What picks the key for a token of this exact issuer, as jose wants it. */
export type KeySet = (issuer: string) => ReturnType<typeof createLocalJWKSet>

export interface IssuerKeys {
  /** @throws {UnavailableError} where there never were any keys and none can be had now */
  current(): Promise<KeySet>
  /**
   * Other keys than `known`, or undefined where those are the issuer's own as of the token's arrival, and judge it.
   *
   * @param at when the token arrived, milliseconds since 1970
   * @param fault `key`: none of the known ones fits; `signature`: the one that it names did not make its signature
   * @throws {UnavailableError} where the issuer may have published the token's key, and it cannot be fetched now
   */
  newerThan(known: KeySet, at: number, fault: 'key' | 'signature'): Promise<KeySet | undefined>
  status(): Pick<IssuerStatus, 'keys' | 'loadedAt' | 'fetched' | 'failed' | 'lastFailure'>
}

export interface IssuersOptions {
  /** Milliseconds since 1970; default `Date.now`. */
  now?: () => number
  /** For the network's edge in tests; default the global `fetch`. */
  fetch?: typeof fetch
}

// Below the 2 s in which every answer comes; discovery and keys share it.
const fetchTimeoutMs = 1_200
const refreshAfterMs = 10 * 60_000
const failureCoolDownMs = 30_000
// With no keys at all every logout waits for them.
const coldCoolDownMs = 1_000
// A token that no key at hand fits provokes a fetch, whoever made it: so many at once, and one more each so often.
const provokedFetches = { burst: 10, everyMs: 10_000 }
const maxDocumentBytes = 512 * 1024

const guid = '[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}'

/** Whom we trust, and their keys. */
export function createIssuers(configs: readonly IssuerConfig[], options: IssuersOptions = {}): Issuers {
  const entries = configs.map((config) => ({
    config,
    keys: createKeys(config, options),
    pattern: templatePattern(config)
  }))
  const exact = new Map(
    entries
      .filter(({ pattern }) => pattern === undefined)
      .map(({ config, keys }) => [config.issuer, { issuer: config.issuer, config, keys }])
  )
  const templates = entries.filter(({ pattern }) => pattern !== undefined)

  return {
    find(iss) {
      const known = exact.get(iss)
      if (known !== undefined) {
        return known
      }
      for (const { config, keys, pattern } of templates) {
        const tenant = pattern?.exec(iss)?.[1]
        if (tenant !== undefined && (config.tenants === undefined || config.tenants.includes(tenant))) {
          return { issuer: iss, config, keys }
        }
      }
      return undefined
    },
    named: (name) => configs.find((config) => config.name === name),
    only: () => (configs.length === 1 ? configs[0] : undefined),
    warmUp() {
      for (const { keys } of entries) {
        keys.current().catch(() => {}) // told when a token needs them
      }
    },
    status: () =>
      entries.map(({ config, keys }) => ({ name: config.name, issuer: config.issuer, config, ...keys.status() }))
  }
}

function templatePattern(config: IssuerConfig): RegExp | undefined {
  const [before, after] = config.issuer.split('{tenantid}')
  if (before === undefined || after === undefined) {
    return undefined
  }
  const literal = (text: string) => text.replace(/[.*+?^${}()|[\]\\]/g, '\\$&')
  return new RegExp(`^${literal(before)}(${guid})${literal(after)}$`)
}

/**
 * The keys of one issuer: fetched once, refreshed in the background, served stale while the issuer is down.
 * jose's own remote set throws when a reload fails although it still holds keys, and has no cool-down after
 * a failure; hence this one, around jose's local set.
 */
function createKeys(config: IssuerConfig, { now = Date.now, fetch: get = fetch }: IssuersOptions): IssuerKeys {
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
  let lastFailure: IssuerStatus['lastFailure']

  async function load(asOf: number): Promise<KeySet> {
    const signal = AbortSignal.timeout(fetchTimeoutMs)
    const usable = await usableKeys(
      await getJson(config.jwksUri ?? (await discoverJwksUri(config.issuer, get, signal)), get, signal),
      config.algorithms
    )
    const loaded = keySet(usable, config.issuer)
    loadedAt = now()
    askedAt = asOf
    // Not all instances at once.
    refreshMs = refreshAfterMs * (0.8 + Math.random() * 0.2)
    keys = loaded
    failedAt = Number.NEGATIVE_INFINITY
    told.keys = usable.length
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
      if (keys !== undefined && (age <= config.maxStaleKeysSeconds * 1_000 || now() < loadedAt)) {
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

/** `fetch` tells no more than "fetch failed"; what failed is its cause. */
function failureMessage(error: unknown): string {
  const { message, cause } = error instanceof Error ? error : new Error('unknown')
  return cause instanceof Error
    ? `${message}: ${cause.message || String('code' in cause ? cause.code : cause.name)}`
    : message
}

/** What was found of an issuer, without which its logout tokens cannot be verified. */
export interface IssuerReport {
  readonly fault: IssuerFault | undefined
  /** What is behind the fault. */
  readonly cause: unknown
  /** How far its clock is ahead of ours, by its `Date` header; undefined where it sent none. */
  readonly clockAheadSeconds: number | undefined
}

/** `discovery` and `keys`: could not be had; `issuer`: the discovery document names another; `unusable`: no key fits. */
export type IssuerFault = 'discovery' | 'issuer' | 'keys' | 'unusable'

// jose refuses shorter ones when it verifies: RFC 7518 §3.3.
const minRsaBits = 2_048

/** Fetches what the service would, once and within the same time, and tells what is wrong with it. */
export async function inspectIssuer(
  config: IssuerConfig,
  { now = Date.now, fetch: get = fetch }: IssuersOptions = {}
): Promise<IssuerReport> {
  const signal = AbortSignal.timeout(fetchTimeoutMs)
  let clockAheadSeconds: number | undefined
  const timed: typeof fetch = async (...request) => {
    const begun = now()
    const response = await get(...request)
    const date = Date.parse(response.headers.get('date') ?? '')
    if (!Number.isNaN(date)) {
      // A cache sends the date of the day it asked (RFC 9111 §5.1); the header has no fractions.
      const age = Number(response.headers.get('age') ?? 0) || 0
      clockAheadSeconds = Math.round((date + 500 + age * 1_000 - (begun + now()) / 2) / 1_000)
    }
    return response
  }
  const report = (fault?: IssuerFault, cause?: unknown) => ({ fault, cause, clockAheadSeconds })

  let uri: string
  try {
    uri = config.jwksUri ?? (await discoverJwksUri(config.issuer, timed, signal))
  } catch (error) {
    return report(error instanceof DiscoveredIssuerError ? 'issuer' : 'discovery', error)
  }
  try {
    await usableKeys(await getJson(uri, timed, signal), config.algorithms)
  } catch (error) {
    return report(error instanceof UnusableKeysError ? 'unusable' : 'keys', error)
  }
  return report()
}

/** Those that can verify one of the algorithms: a token that names another one would wait for it in vain. */
async function usableKeys(document: Record<string, unknown>, algorithms: readonly string[]): Promise<PublicKey[]> {
  const published = publicKeys(document)
  const isUsable = await Promise.all(
    published.map(async (key) =>
      (await Promise.all(algorithms.map((algorithm) => canVerify(key, algorithm)))).includes(true)
    )
  )
  const usable = published.filter((_key, i) => isUsable[i])
  if (usable.length === 0) {
    throw new UnusableKeysError('the key set has none for the algorithms')
  }
  return usable
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

async function canVerify(key: PublicKey, alg: string): Promise<boolean> {
  try {
    const { algorithm } = await createLocalJWKSet({ keys: [key] })({ alg })
    return !('modulusLength' in algorithm) || Number(algorithm.modulusLength) >= minRsaBits
  } catch {
    return false // of another kind, or broken
  }
}

class DiscoveredIssuerError extends Error {}
class UnusableKeysError extends Error {}

// OpenID Connect Discovery 1.0 §4. The document of a template is that of `organizations`, and bears the template.
async function discoverJwksUri(issuer: string, get: typeof fetch, signal: AbortSignal): Promise<string> {
  const base = issuer.replace('{tenantid}', 'organizations').replace(/\/$/, '')
  const metadata = await getJson(`${base}/.well-known/openid-configuration`, get, signal)
  // §4.3: the issuer must be the one asked for, or another could answer for it.
  if (metadata.issuer !== issuer) {
    throw new DiscoveredIssuerError('the discovery document bears another "issuer"')
  }
  const uri = metadata.jwks_uri
  if (typeof uri !== 'string') {
    throw new Error('the discovery document has no "jwks_uri"')
  }
  if (new URL(uri).protocol !== 'https:' && new URL(issuer).protocol !== 'http:') {
    throw new Error('the "jwks_uri" of the discovery document is not https')
  }
  return uri
}

async function getJson(url: string, get: typeof fetch, signal: AbortSignal): Promise<Record<string, unknown>> {
  const response = await get(url, { signal, redirect: 'error', headers: { accept: 'application/json' } })
  if (response.status !== 200 || response.body === null) {
    await response.body?.cancel()
    throw new Error(`"${url}" answered ${response.status}`)
  }
  const chunks: Uint8Array[] = []
  let size = 0
  for await (const chunk of response.body) {
    size += chunk.byteLength
    if (size > maxDocumentBytes) {
      throw new Error(`"${url}" answered with too large a document`)
    }
    chunks.push(chunk)
  }
  const document: unknown = JSON.parse(Buffer.concat(chunks).toString('utf8'))
  if (!isObject(document)) {
    throw new Error(`"${url}" answered with no JSON object`)
  }
  return document
}

type PublicKey = JWK & { kty: string; issuer?: unknown }

function publicKeys({ keys }: Record<string, unknown>): PublicKey[] {
  if (!Array.isArray(keys)) {
    throw new Error('the key set has no "keys"')
  }
  const usable = keys.filter(isPublicKey)
  if (usable.length === 0) {
    throw new UnusableKeysError('the key set is empty')
  }
  return usable
}

// Secret keys have no place in a published set.
function isPublicKey(key: unknown): key is PublicKey {
  return isObject(key) && typeof key.kty === 'string' && key.kty !== 'oct'
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

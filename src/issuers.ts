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

/** Picks the key for a token, as jose wants it. */
export type KeySet = ReturnType<typeof createLocalJWKSet>

export interface IssuerKeys {
  /** @throws {UnavailableError} where there never were any keys and none can be had now */
  current(): Promise<KeySet>
  /**
   * Newer keys than `known` where they can be had without breaking the cool-down, or undefined.
   * @throws {UnavailableError} where the last try to fetch them failed
   */
  newerThan(known: KeySet): Promise<KeySet | undefined>
  /** The issuer that the key with this id is bound to, where its JWK says so (Entra's `issuer` member). */
  issuerOfKey(kid: string | undefined): string | undefined
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
const coolDownMs = 30_000
// With no keys at all every logout waits for them.
const coldCoolDownMs = 1_000
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
  let issuerByKid = new Map<string, string>()
  let loadedAt = Number.NEGATIVE_INFINITY
  let refreshMs = refreshAfterMs
  // When a fetch failed, or was made because a token found no key: neither is repeated at once, whoever asks.
  let coolSince = Number.NEGATIVE_INFINITY
  let loading: Promise<KeySet> | undefined
  let lastError: unknown
  const told = { keys: 0, fetched: 0, failed: 0 }
  let lastFailure: IssuerStatus['lastFailure']

  async function load(): Promise<KeySet> {
    const signal = AbortSignal.timeout(fetchTimeoutMs)
    const published = publicKeys(
      await getJson(config.jwksUri ?? (await discoverJwksUri(config.issuer, get, signal)), get, signal)
    )
    const loaded = createLocalJWKSet({ keys: published })
    issuerByKid = new Map(
      published.flatMap(({ kid, issuer }) => (kid !== undefined && typeof issuer === 'string' ? [[kid, issuer]] : []))
    )
    loadedAt = now()
    // Not all instances at once.
    refreshMs = refreshAfterMs * (0.8 + Math.random() * 0.2)
    keys = loaded
    lastError = undefined
    told.keys = published.length
    told.fetched += 1
    return loaded
  }

  function reload(): Promise<KeySet> {
    loading ??= load()
      .catch((error: unknown) => {
        lastError = error
        coolSince = now()
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
  const coolingDown = () =>
    loading === undefined && since(coolSince) < (keys === undefined ? coldCoolDownMs : coolDownMs)

  return {
    async current() {
      const age = since(loadedAt)
      if (keys !== undefined && (age <= config.maxStaleKeysSeconds * 1_000 || now() < loadedAt)) {
        if (age > refreshMs && !coolingDown()) {
          reload().catch(() => {}) // the keys at hand still serve
        }
        return keys
      }
      if (coolingDown()) {
        throw new UnavailableError('ERR_KEYS_UNAVAILABLE', { cause: lastError })
      }
      return reload()
    },
    async newerThan(known) {
      if (keys !== undefined && keys !== known) {
        return keys
      }
      if (coolingDown()) {
        if (lastError !== undefined) {
          // The key may be among those that could not be fetched: not the token's fault.
          throw new UnavailableError('ERR_KEYS_UNAVAILABLE', { cause: lastError })
        }
        return undefined
      }
      coolSince = now()
      return reload()
    },
    issuerOfKey: (kid) => (kid === undefined ? undefined : issuerByKid.get(kid)),
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

// OpenID Connect Discovery 1.0 §4. The document of a template is that of `organizations`, and bears the template.
async function discoverJwksUri(issuer: string, get: typeof fetch, signal: AbortSignal): Promise<string> {
  const base = issuer.replace('{tenantid}', 'organizations').replace(/\/$/, '')
  const metadata = await getJson(`${base}/.well-known/openid-configuration`, get, signal)
  // §4.3: the issuer must be the one asked for, or another could answer for it.
  if (metadata.issuer !== issuer) {
    throw new Error('the discovery document bears another "issuer"')
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
    throw new Error('the key set is empty')
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

import { createLocalJWKSet, type JWK } from 'jose'

/** Whose keys, and where they are. */
export interface KeySource {
  /** The issuer, or the template of a multi-tenant one. */
  readonly issuer: string
  /** Undefined: as the issuer's discovery document says. */
  readonly jwksUri: string | undefined
  /** What its tokens may be signed with. */
  readonly algorithms: readonly string[]
}

/** A key as it stands in a published set. */
export type PublicKey = JWK & { kty: string; issuer?: unknown }

// Below the 2 s in which every answer comes; discovery and keys share it.
const fetchTimeoutMs = 1_200
const maxDocumentBytes = 512 * 1024

/**
 * Fetches the keys that an issuer publishes, once: those that can verify one of the algorithms, since a token that names
 * another one would wait for it in vain.
 *
 * @param get the network's edge: `fetch`
 * @throws {Error} where they cannot be had in time, are no key set, or none is of use; the message says which document is at fault
 */
export async function fetchPublishedKeys(
  { issuer, jwksUri, algorithms }: KeySource,
  get: typeof fetch
): Promise<PublicKey[]> {
  const signal = AbortSignal.timeout(fetchTimeoutMs)
  return usableKeys(await getJson(jwksUri ?? (await discoverJwksUri(issuer, get, signal)), get, signal), algorithms)
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

/**
 * Fetches what the service would, once and within the same time, and tells what is wrong with it.
 *
 * @param options.now the clock, milliseconds since 1970; default `Date.now`
 * @param options.fetch the network's edge; default the global `fetch`
 */
export async function inspectIssuer(
  { issuer, jwksUri, algorithms }: KeySource,
  { now = Date.now, fetch: get = fetch }: { now?: () => number; fetch?: typeof fetch } = {}
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
    uri = jwksUri ?? (await discoverJwksUri(issuer, timed, signal))
  } catch (error) {
    return report(error instanceof DiscoveredIssuerError ? 'issuer' : 'discovery', error)
  }
  try {
    await usableKeys(await getJson(uri, timed, signal), algorithms)
  } catch (error) {
    return report(error instanceof UnusableKeysError ? 'unusable' : 'keys', error)
  }
  return report()
}

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

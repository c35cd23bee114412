import {
  checkUrl,
  type DocumentFault,
  type DocumentOptions,
  fetchDocument,
  type IssuerDocument,
  IssuerDocumentError
} from './issuer-document.ts'
import { issuerOfTenant } from './issuer-template.ts'
import type { Fetch } from './outbound-fetch.ts'
import { printable } from './printable.ts'
import { keyFault, type PublicKey } from './public-key.ts'

/** Whose keys, and where they are. */
export interface KeySource {
  /** The issuer, or the template of a multi-tenant one. */
  readonly issuer: string
  /** Undefined: as the issuer's discovery document says. */
  readonly jwksUri: string | undefined
  /** Where that document may be, in turn; default where OpenID Connect wants it. */
  readonly metadataUrls?: readonly string[] | undefined
  /** What its tokens may be signed with. */
  readonly algorithms: readonly string[]
}

/** What an issuer publishes. */
export interface PublishedKeys {
  /** Those that can verify one of the algorithms: a token that names another one would wait for it in vain. */
  readonly usable: readonly PublicKey[]
  readonly unusable: readonly UnusableKey[]
  /** In the order in which they were fetched; the key set is the last. */
  readonly documents: readonly IssuerDocument[]
}

export interface UnusableKey {
  /** For people; undefined if it has none. */
  readonly kid: string | undefined
  /** Why, in a few words. */
  readonly fault: string
}

/**
 * `discovery`, `keys`: that document could not be had; `redirect`: it redirects to another origin; `content`: it is not what
 * it should be; `issuer`: the discovery document names another issuer; `jwks_uri`: it names no place to fetch keys from;
 * `unusable`: the set has no key of use.
 */
export type IssuerFault = 'discovery' | 'keys' | 'redirect' | 'content' | 'issuer' | 'jwks_uri' | 'unusable'

/** An issuer whose keys cannot be had; the message says which document is at fault. */
export class PublishedKeysError extends Error {
  readonly fault: IssuerFault
  /** What was found instead: another issuer, the target of a redirect, the place. */
  readonly found: string | undefined
  readonly unusable: readonly UnusableKey[]

  constructor(
    fault: IssuerFault,
    message: string,
    { found, unusable = [], ...options }: ErrorOptions & { found?: string | undefined; unusable?: UnusableKey[] } = {}
  ) {
    super(message, options)
    this.name = 'PublishedKeysError'
    this.fault = fault
    this.found = found
    this.unusable = unusable
  }
}

// More are nobody's, and would cost a token without a `kid` as many verifications.
const maxKeys = 100
// RFC 7517 §8.5.2. Some servers compare the header as a whole.
const keySetAccepts = ['application/jwk-set+json, application/json', 'application/jwk-set+json', 'application/json']
const discoveryAccepts = ['application/json']

/**
 * Fetches the keys that an issuer publishes, once.
 *
 * @throws {PublishedKeysError} if they cannot be had, are no key set, or none is of use
 */
export async function fetchPublishedKeys(source: KeySource, options: DocumentOptions): Promise<PublishedKeys> {
  const { issuer, jwksUri, metadataUrls = [discoveryUrl(issuer)], algorithms } = source
  const discovery = jwksUri === undefined ? await fetchMetadata(issuer, metadataUrls, options) : undefined
  const uri = jwksUri ?? keySetUri(issuer, discovery?.content ?? {})
  const keySet = await fetchFor('keys', uri, keySetAccepts, options)
  const sorted = await sortKeys(keySet, issuer, algorithms)
  return { ...sorted, documents: discovery === undefined ? [keySet] : [discovery, keySet] }
}

// OpenID Connect Discovery 1.0 §4. The document of a template is that of `organizations`, and bears the template.
function discoveryUrl(issuer: string): string {
  return `${issuerOfTenant(issuer, 'organizations').replace(/\/$/, '')}/.well-known/openid-configuration`
}

/**
 * Fetches the document in which an issuer describes itself.
 *
 * @param urls where it may be: the next is tried if there is none
 * @throws {PublishedKeysError} if it cannot be had, or bears another issuer
 */
export async function fetchMetadata(
  issuer: string,
  urls: readonly string[],
  options: DocumentOptions
): Promise<IssuerDocument> {
  const document = await fetchFirst(urls, options)
  // OpenID Connect Discovery 1.0 §4.3: the issuer must be the one asked for, or another could answer for it.
  const found = document.content.issuer
  if (found !== issuer) {
    const message = `the discovery document bears another "issuer"`
    throw new PublishedKeysError('issuer', message, { found: found === undefined ? undefined : printable(found) })
  }
  return document
}

async function fetchFirst([url = '', ...others]: readonly string[], options: DocumentOptions): Promise<IssuerDocument> {
  try {
    return await fetchFor('discovery', url, discoveryAccepts, options)
  } catch (error) {
    // Its first place is the one that ought to answer: the error is about that.
    const isAway = error instanceof PublishedKeysError && (error.fault === 'discovery' || error.fault === 'content')
    if (!isAway || others.length === 0) {
      throw error
    }
    return fetchFirst(others, options).catch(() => {
      throw error
    })
  }
}

function keySetUri(issuer: string, { jwks_uri: uri }: Record<string, unknown>): string {
  if (typeof uri !== 'string') {
    throw new PublishedKeysError('jwks_uri', 'the discovery document has no "jwks_uri"')
  }
  try {
    checkUrl(uri)
  } catch (error) {
    const { message, found } = error instanceof IssuerDocumentError ? error : { message: 'is no URL', found: undefined }
    throw new PublishedKeysError('jwks_uri', `the "jwks_uri" of the discovery document ${message}`, { found })
  }
  if (new URL(uri).protocol !== 'https:' && new URL(issuer).protocol === 'https:') {
    throw new PublishedKeysError('jwks_uri', 'the "jwks_uri" of the discovery document is not https', {
      found: printable(uri)
    })
  }
  return uri
}

async function fetchFor(
  document: 'discovery' | 'keys',
  url: string,
  accepts: readonly string[],
  options: DocumentOptions
): Promise<IssuerDocument> {
  try {
    return await fetchDocument(url, accepts, options)
  } catch (error) {
    if (!(error instanceof IssuerDocumentError)) {
      throw error
    }
    const faults: Record<DocumentFault, IssuerFault> = {
      unreachable: document,
      url: document,
      redirect: 'redirect',
      content: 'content'
    }
    const { fault, message, found, cause } = error
    throw new PublishedKeysError(faults[fault], message, { found, ...(cause === undefined ? {} : { cause }) })
  }
}

async function sortKeys(
  { url, content: { keys } }: IssuerDocument,
  issuer: string,
  algorithms: readonly string[]
): Promise<Pick<PublishedKeys, 'usable' | 'unusable'>> {
  if (!Array.isArray(keys)) {
    throw new PublishedKeysError('content', `"${url}" answered with no key set: it has no "keys"`)
  }
  if (keys.length > maxKeys) {
    throw new PublishedKeysError('content', `"${url}" answered with more than ${maxKeys} keys`)
  }
  const usable: PublicKey[] = []
  const unusable: UnusableKey[] = []
  // One after the other: looking at a long one takes a thread for a while, and what is verified meanwhile needs the rest.
  for (const key of keys.filter(isKey)) {
    const fault = await keyFault(key, issuer, algorithms)
    if (fault === undefined) {
      usable.push(key)
    } else {
      unusable.push({ kid: key.kid === undefined ? undefined : printable(key.kid), fault })
    }
  }
  if (usable.length === 0) {
    const message = keys.length === 0 ? 'the key set is empty' : 'the key set has no key that can be used'
    throw new PublishedKeysError('unusable', message, { unusable })
  }
  return { usable, unusable }
}

function isKey(key: unknown): key is PublicKey {
  return typeof key === 'object' && key !== null && 'kty' in key && typeof key.kty === 'string'
}

/** What was found of an issuer, without which its tokens cannot be verified. */
export interface IssuerReport {
  readonly fault: IssuerFault | undefined
  /** What is behind the fault: a {@link PublishedKeysError}. */
  readonly cause: unknown
  /** `issuer`: what the document names; `redirect`, `jwks_uri`: where to; for people, bounded and without control characters. */
  readonly found: string | undefined
  /** How far its clock is ahead of ours, by its `Date` header; undefined if it sent none. */
  readonly clockAheadSeconds: number | undefined
  /** How long all of it took. Longer than `budget.keysMs`: the first tokens after a start are deferred. */
  readonly tookMs: number
  /** The proxy that they were asked through; undefined if there is none. */
  readonly proxy: string | undefined
  /** Documents that came by a redirect within their origin. */
  readonly redirected: readonly { readonly from: string; readonly to: string }[]
  /** Documents that begin with a byte order mark. */
  readonly withByteOrderMark: readonly string[]
  readonly usableKeys: number
  readonly unusableKeys: readonly UnusableKey[]
}

export interface InspectOptions {
  /** Milliseconds since 1970; default `Date.now`. */
  readonly now?: () => number
  /** The network's edge; default the global `fetch`. */
  readonly fetch?: Fetch
  /** How long a document may take, milliseconds; default 10,000. */
  readonly timeoutMs?: number
  /** The proxy of a URL; default none. */
  readonly proxyOf?: (url: string) => string | undefined
}

/** Fetches what the service would, once and within the same time, and reports what is wrong with it. */
export async function inspectIssuer(
  source: KeySource,
  { now = Date.now, fetch: get = fetch, timeoutMs, proxyOf = () => undefined }: InspectOptions = {}
): Promise<IssuerReport> {
  const begun = performance.now()
  let clockAheadSeconds: number | undefined
  const timed: Fetch = async (...request) => {
    const begunAt = now()
    const response = await get(...request)
    const date = Date.parse(response.headers.get('date') ?? '')
    if (!Number.isNaN(date)) {
      // A cache sends the date of the day it asked (RFC 9111 §5.1); the header has no fractions.
      const age = Number(response.headers.get('age') ?? 0) || 0
      clockAheadSeconds = Math.round((date + 500 + age * 1_000 - (begunAt + now()) / 2) / 1_000)
    }
    return response
  }
  const measured = () => ({
    clockAheadSeconds,
    tookMs: Math.round(performance.now() - begun),
    proxy: proxyOf(source.jwksUri ?? source.issuer)
  })
  try {
    const { usable, unusable, documents } = await fetchPublishedKeys(source, { fetch: timed, timeoutMs })
    return {
      fault: undefined,
      cause: undefined,
      found: undefined,
      ...measured(),
      redirected: documents
        .filter(({ url, finalUrl }) => url !== finalUrl)
        .map(({ url, finalUrl }) => ({ from: url, to: finalUrl })),
      withByteOrderMark: documents.filter(({ hasByteOrderMark }) => hasByteOrderMark).map(({ url }) => url),
      usableKeys: usable.length,
      unusableKeys: unusable
    }
  } catch (error) {
    if (!(error instanceof PublishedKeysError)) {
      throw error
    }
    const { fault, found, unusable } = error
    const none = { redirected: [], withByteOrderMark: [], usableKeys: 0, unusableKeys: unusable }
    return { fault, cause: error, found, ...measured(), ...none }
  }
}

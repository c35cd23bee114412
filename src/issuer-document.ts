import type { Fetch, FetchResponse } from './outbound-fetch.ts'
import { printable } from './printable.ts'

/** A JSON document that an issuer publishes. */
export interface IssuerDocument {
  readonly content: Record<string, unknown>
  /** Where it was asked for. */
  readonly url: string
  /** Where it came from in the end, after redirects. */
  readonly finalUrl: string
  /** RFC 8259 §8.1 forbids one, and lets a reader ignore it. */
  readonly hasByteOrderMark: boolean
}

/**
 * Why a document is of no use. `unreachable`: no answer in time, or not 200; `redirect`: to another origin, or too many;
 * `content`: no JSON object, or too large; `url`: a place that nothing is fetched from.
 */
export type DocumentFault = 'unreachable' | 'redirect' | 'content' | 'url'

/** A document that could not be had. */
export class IssuerDocumentError extends Error {
  readonly fault: DocumentFault
  /** What was found instead: the target of a redirect, the URL. */
  readonly found: string | undefined

  constructor(fault: DocumentFault, message: string, { found, ...options }: ErrorOptions & { found?: string } = {}) {
    super(message, options)
    this.name = 'IssuerDocumentError'
    this.fault = fault
    this.found = found === undefined ? undefined : printable(found)
  }
}

/** What fetching a document needs. */
export interface DocumentOptions {
  /** The network's edge. */
  readonly fetch: Fetch
  /** How long a document may take, milliseconds; default 10,000. An answer that waits for it is given up long before. */
  readonly timeoutMs?: number | undefined
}

const maxBytes = 512 * 1024
const maxRedirects = 5
const redirectStatuses: readonly number[] = [301, 302, 303, 307, 308]

/**
 * Fetches a JSON document of an issuer. Redirects are followed within the origin alone: no other is trusted.
 *
 * @param url `https:`, or `http:` on loopback
 * @param accepts the `Accept` headers to try in turn, as long as the answer is 406 (RFC 9110 §15.5.7)
 * @throws {IssuerDocumentError} if it cannot be had
 */
export async function fetchDocument(
  url: string,
  accepts: readonly string[],
  { fetch, timeoutMs = 10_000 }: DocumentOptions
): Promise<IssuerDocument> {
  checkUrl(url)
  const signal = AbortSignal.timeout(timeoutMs)
  try {
    const { response, finalUrl } = await getAccepted(url, accepts, fetch, signal)
    if (response.status !== 200 || response.body === null) {
      await response.body?.cancel()
      throw new IssuerDocumentError('unreachable', `"${url}" answered ${response.status}`)
    }
    const bytes = await readBody(url, response.body)
    const hasByteOrderMark = bytes.subarray(0, 3).equals(byteOrderMark)
    return { content: parseObject(url, bytes), url, finalUrl, hasByteOrderMark }
  } catch (error) {
    if (error instanceof IssuerDocumentError) {
      throw error
    }
    const message = signal.aborted
      ? `"${url}" did not answer within ${timeoutMs / 1_000} s`
      : `"${url}" is out of reach`
    throw new IssuerDocumentError('unreachable', message, { cause: error })
  }
}

interface Answer {
  readonly response: FetchResponse
  readonly finalUrl: string
}

async function getAccepted(
  url: string,
  [accept = '*/*', ...others]: readonly string[],
  fetch: Fetch,
  signal: AbortSignal
): Promise<Answer> {
  const answer = await getWithinOrigin(url, accept, fetch, signal)
  if (answer.response.status !== 406 || others.length === 0) {
    return answer
  }
  await answer.response.body?.cancel()
  return getAccepted(url, others, fetch, signal)
}

async function getWithinOrigin(url: string, accept: string, fetch: Fetch, signal: AbortSignal): Promise<Answer> {
  const { origin } = new URL(url)
  const headers = { accept, 'user-agent': 'msal-logout' }
  let finalUrl = url
  for (let count = 0; count <= maxRedirects; count += 1) {
    const response = await fetch(finalUrl, { signal, redirect: 'manual', headers })
    const location = response.headers.get('location')
    if (!redirectStatuses.includes(response.status) || location === null) {
      return { response, finalUrl }
    }
    await response.body?.cancel()
    finalUrl = targetOf(url, location, finalUrl)
    if (new URL(finalUrl).origin !== origin) {
      throw new IssuerDocumentError('redirect', `"${url}" redirects to another origin`, {
        found: new URL(finalUrl).origin
      })
    }
  }
  throw new IssuerDocumentError('redirect', `"${url}" redirects without an end`, { found: finalUrl })
}

function targetOf(url: string, location: string, from: string): string {
  if (!URL.canParse(location, from)) {
    throw new IssuerDocumentError('redirect', `"${url}" redirects to no URL`, { found: location })
  }
  const target = new URL(location, from)
  if (target.username !== '' || target.password !== '') {
    throw new IssuerDocumentError('redirect', `"${url}" redirects to a URL with credentials`, { found: target.origin })
  }
  return target.href
}

async function readBody(url: string, body: AsyncIterable<Uint8Array>): Promise<Buffer> {
  const chunks: Uint8Array[] = []
  let size = 0
  for await (const chunk of body) {
    size += chunk.byteLength
    if (size > maxBytes) {
      throw new IssuerDocumentError('content', `"${url}" answered with more than ${maxBytes / 1_024} KiB`)
    }
    chunks.push(chunk)
  }
  return Buffer.concat(chunks)
}

const byteOrderMark = Buffer.from([0xef, 0xbb, 0xbf])
const utf8 = new TextDecoder('utf-8', { fatal: true }) // leaves out a byte order mark

function parseObject(url: string, bytes: Buffer): Record<string, unknown> {
  let content: unknown
  try {
    content = JSON.parse(utf8.decode(bytes))
  } catch {
    // What was answered instead, a sign-in page perhaps, is no text for a log: hence no cause.
    throw new IssuerDocumentError('content', `"${url}" answered with no JSON in UTF-8`)
  }
  if (typeof content !== 'object' || content === null || Array.isArray(content)) {
    throw new IssuerDocumentError('content', `"${url}" answered with no JSON object`)
  }
  return { ...content }
}

/**
 * Checks that something may be fetched from there: `https:`, or `http:` on loopback, without credentials.
 *
 * @throws {IssuerDocumentError} if not
 */
export function checkUrl(value: string): void {
  const url = URL.canParse(value) ? new URL(value) : undefined
  if (url === undefined || (url.protocol !== 'https:' && !(url.protocol === 'http:' && isLoopback(url.hostname)))) {
    throw new IssuerDocumentError('url', 'must be https, or http on loopback', { found: url?.protocol ?? value })
  }
  if (url.username !== '' || url.password !== '') {
    throw new IssuerDocumentError('url', 'must not have credentials', { found: url.origin })
  }
}

/** Whether a URL's `hostname` is this machine. */
export function isLoopback(hostname: string): boolean {
  return hostname === 'localhost' || hostname === '[::1]' || /^127(\.\d{1,3}){3}$/.test(hostname)
}

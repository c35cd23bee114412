import type { Fetch, FetchResponse } from './outbound-fetch.ts'
import { causeOf } from './outcome-log.ts'

export interface SendOptions {
  readonly method: 'GET' | 'POST' | 'PATCH' | 'DELETE'
  readonly headers: Record<string, string>
  readonly body?: string
  readonly signal: AbortSignal
}

export interface Reply {
  readonly status: number
  header(name: string): string | null
  /** How long the sender is to wait, in milliseconds. */
  readonly retryAfterMs: number | undefined
  readonly text: string
  /** What it is as JSON; undefined if it is none. */
  readonly content: unknown
}

/**
 * Sends one request, and reads all of the answer.
 * @throws {Error} as {@link ExchangeOptions}.errorOf makes it, if none came
 */
export type Exchange = (url: string, options: SendOptions) => Promise<Reply>

export interface ExchangeOptions {
  /** The network's edge. */
  readonly fetch: Fetch
  /** How long an answer may take, in milliseconds. */
  readonly timeoutMs: number
  /** Milliseconds since 1970. */
  readonly now: () => number
  /** Makes the error: nobody answered, or the answer is too large. */
  readonly errorOf: (
    fault: 'unreachable' | 'answer',
    options: ErrorOptions & { readonly detail: string | undefined }
  ) => Error
}

// A page of a delta query has up to 999 users of some 300 bytes; a poll has up to 100 tokens, of up to 64 KiB.
const maxBytes = 8 * 1024 * 1024

/** For other servers than those whose documents anybody may read: each request goes to one address, with credentials. */
export function createExchange({ fetch, timeoutMs, now, errorOf }: ExchangeOptions): Exchange {
  return async (url, { signal, ...options }) => {
    const timeout = AbortSignal.timeout(timeoutMs)
    let reply: { readonly response: FetchResponse; readonly text: string | undefined }
    try {
      // Redirects are not followed: the credentials are for this address alone.
      const response = await fetch(url, {
        ...options,
        redirect: 'manual',
        signal: AbortSignal.any([signal, timeout])
      })
      reply = { response, text: await readBody(response) }
    } catch (error) {
      const detail = timeout.aborted
        ? `no answer within ${timeoutMs / 1_000} s`
        : causeOf(error instanceof Error && error.cause !== undefined ? error.cause : error)
      throw errorOf('unreachable', { detail, cause: error })
    }
    const { response, text } = reply
    if (text === undefined) {
      throw errorOf('answer', { detail: `more than ${maxBytes} bytes` })
    }
    return {
      status: response.status,
      header: (name) => response.headers.get(name),
      retryAfterMs: retryAfterOf(response.headers.get('retry-after'), now()),
      text,
      content: parse(text)
    }
  }
}

/** Undefined of one that is too large. */
async function readBody({ body }: FetchResponse): Promise<string | undefined> {
  const chunks: Uint8Array[] = []
  let size = 0
  for await (const chunk of body ?? []) {
    size += chunk.byteLength
    if (size > maxBytes) {
      return undefined
    }
    chunks.push(chunk)
  }
  return Buffer.concat(chunks).toString()
}

/** RFC 9110 §10.2.3: seconds, or a date. */
export function retryAfterOf(value: string | null, at: number): number | undefined {
  if (value === null) {
    return undefined
  }
  const ms = /^\d+(\.\d+)?$/.test(value) ? Number(value) * 1_000 : Date.parse(value) - at
  return Number.isNaN(ms) ? undefined : Math.max(0, ms)
}

function parse(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return undefined // of a proxy perhaps
  }
}

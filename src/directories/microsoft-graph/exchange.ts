import { DirectoryError } from '../../errors.ts'
import type { Fetch, FetchResponse } from '../../outbound-fetch.ts'
import { causeOf } from '../../outcome-log.ts'

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
 * @throws {DirectoryError} if none came
 */
export type Exchange = (url: string, options: SendOptions) => Promise<Reply>

// A page of a delta query has up to 999 users of some 300 bytes.
const maxBytes = 8 * 1024 * 1024

/**
 * @param fetch the network's edge
 * @param timeoutMs how long an answer may take
 * @param now milliseconds since 1970
 */
export function createExchange(fetch: Fetch, timeoutMs: number, now: () => number): Exchange {
  return async (url, { signal, ...options }) => {
    const timeout = AbortSignal.timeout(timeoutMs)
    try {
      // Redirects are not followed: the credentials are for this address alone.
      const response = await fetch(url, {
        ...options,
        redirect: 'manual',
        signal: AbortSignal.any([signal, timeout])
      })
      const text = await readBody(response)
      return {
        status: response.status,
        header: (name) => response.headers.get(name),
        retryAfterMs: retryAfterOf(response.headers.get('retry-after'), now()),
        text,
        content: parse(text)
      }
    } catch (error) {
      if (error instanceof DirectoryError) {
        throw error
      }
      const detail = timeout.aborted
        ? `no answer within ${timeoutMs / 1_000} s`
        : causeOf(error instanceof Error && error.cause !== undefined ? error.cause : error)
      throw new DirectoryError('ERR_DIRECTORY_UNREACHABLE', { detail, cause: error })
    }
  }
}

async function readBody({ body }: FetchResponse): Promise<string> {
  const chunks: Uint8Array[] = []
  let size = 0
  for await (const chunk of body ?? []) {
    size += chunk.byteLength
    if (size > maxBytes) {
      throw new DirectoryError('ERR_DIRECTORY_ANSWER', { detail: `more than ${maxBytes} bytes` })
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

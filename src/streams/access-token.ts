import { StreamError } from '../errors.ts'
import type { Exchange } from '../exchange.ts'
import { isObject } from '../jwt.ts'
import { printable } from '../printable.ts'
import { readSecretFile } from '../secret-file.ts'
import type { StreamCredential } from '../stream-config.ts'

/** By what we prove ourselves to a transmitter. */
export interface AccessTokens {
  /**
   * A token that lives for a while yet.
   * @throws {StreamError} if none can be had
   */
  get(signal: AbortSignal): Promise<string>
  /** The token at hand is not taken any more. */
  drop(): void
}

// Of its life, when a new one is asked for. One that names no life is asked for anew for each use.
const usedShare = 0.75

/** Its files are read for each token, so that they can be replaced at any time. */
export function createAccessTokens(credential: StreamCredential, exchange: Exchange, now: () => number): AccessTokens {
  let current: { readonly token: string; readonly goodUntil: number } | undefined

  async function acquire(signal: AbortSignal) {
    if (credential.kind === 'token') {
      return { token: readFile(credential.tokenFile), goodUntil: 0 }
    }
    const { tokenUrl, clientId, clientSecretFile, scope } = credential
    // RFC 6749 §2.3.1: encoded before they are joined.
    const client = [clientId, readFile(clientSecretFile)].map(encodeURIComponent).join(':')
    const askedAt = now()
    const { status, content, retryAfterMs } = await exchange(tokenUrl, {
      method: 'POST',
      headers: {
        authorization: `Basic ${Buffer.from(client).toString('base64')}`,
        'content-type': 'application/x-www-form-urlencoded',
        accept: 'application/json'
      },
      body: new URLSearchParams({ grant_type: 'client_credentials', ...(scope && { scope }) }).toString(),
      signal
    })
    const { access_token: token, expires_in: life = 0, error } = isObject(content) ? content : {}
    if (status !== 200) {
      const detail = `HTTP ${status} of the token endpoint${typeof error === 'string' ? `: ${printable(error)}` : ''}`
      throw faultOf(status, detail, retryAfterMs)
    }
    if (typeof token !== 'string' || token === '') {
      throw new StreamError('ERR_STREAM_ANSWER', { detail: 'the token endpoint answered without an access token' })
    }
    return { token, goodUntil: askedAt + (Number(life) || 0) * 1_000 * usedShare }
  }

  return {
    async get(signal) {
      if (current === undefined || current.goodUntil <= now()) {
        current = await acquire(signal)
      }
      return current.token
    },
    drop() {
      current = undefined
    }
  }
}

function faultOf(status: number, detail: string, retryAfterMs: number | undefined): StreamError {
  if (status === 429) {
    return new StreamError('ERR_STREAM_THROTTLED', { detail, retryAfterMs })
  }
  return status >= 500
    ? new StreamError('ERR_STREAM_UNREACHABLE', { detail, retryAfterMs })
    : new StreamError('ERR_STREAM_CREDENTIAL', { detail })
}

function readFile(path: string): string {
  const content = readSecretFile(path)
  if ('problem' in content) {
    throw new StreamError('ERR_STREAM_CREDENTIAL_FILE', { detail: content.problem })
  }
  return content.text
}

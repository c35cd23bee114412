import { StreamError, type StreamErrorCode } from '../errors.ts'
import { createExchange, type Reply } from '../exchange.ts'
import { checkUrl, IssuerDocumentError } from '../issuer-document.ts'
import { isIdentifier, isObject } from '../jwt.ts'
import type { Fetch } from '../outbound-fetch.ts'
import { printable } from '../printable.ts'
import { fetchMetadata, PublishedKeysError } from '../published-keys.ts'
import { metadataUrls, type StreamConfig } from '../stream-config.ts'
import { createAccessTokens } from './access-token.ts'

/** What a transmitter says of itself: SSF 1.0 §7.1. */
export interface Metadata {
  readonly deliveryMethods: readonly string[] | undefined
  readonly configurationUrl: string | undefined
  readonly statusUrl: string | undefined
  readonly verificationUrl: string | undefined
  readonly criticalMembers: readonly string[]
  readonly defaultSubjects: string | undefined
}

/** A stream as the transmitter describes it: SSF 1.0 §8.1.1. */
export interface TransmitterStream {
  readonly id: string
  readonly audiences: readonly string[]
  readonly method: string | undefined
  readonly endpointUrl: string | undefined
  readonly eventsRequested: readonly string[] | undefined
  readonly eventsDelivered: readonly string[] | undefined
  readonly description: string | undefined
  readonly minVerificationSeconds: number | undefined
  readonly inactivitySeconds: number | undefined
}

/** What a transmitter is asked for. */
export interface StreamRequest {
  readonly delivery: Readonly<Record<string, string>>
  readonly events_requested: readonly string[]
  readonly description: string
  readonly format?: string
}

/** What is to be other than it is: what it leaves out stays. */
export type StreamChange = Omit<StreamRequest, 'delivery'> & Partial<Pick<StreamRequest, 'delivery'>>

export interface StreamStatus {
  readonly status: string
  readonly reason: string | undefined
}

/** RFC 8936 §2.2. */
export interface PollRequest {
  readonly ack: readonly string[]
  readonly setErrs: Readonly<Record<string, { readonly err: string; readonly description: string }>>
  readonly maxEvents: number
}

/** RFC 8936 §2.3. */
export interface PollAnswer {
  /** By the `jti` of each. */
  readonly sets: ReadonlyMap<string, unknown>
}

export interface TransmitterOptions {
  readonly config: StreamConfig
  readonly fetch: Fetch
  /** Milliseconds since 1970. */
  readonly now: () => number
  /** How long an answer may take, in milliseconds; default 10,000. */
  readonly timeoutMs?: number | undefined
}

export type Transmitter = ReturnType<typeof createTransmitter>

// It hardly ever changes; after a failure it is read anew.
const metadataForMs = 60 * 60_000

/** Speaks to the transmitter of a stream. Every function throws {@link StreamError}, and ends early by its signal. */
export function createTransmitter({ config, fetch, now, timeoutMs = 10_000 }: TransmitterOptions) {
  const exchange = createExchange({
    fetch,
    timeoutMs,
    now,
    errorOf: (fault, options) =>
      new StreamError(fault === 'answer' ? 'ERR_STREAM_ANSWER' : 'ERR_STREAM_UNREACHABLE', options)
  })
  const tokens = config.credential && createAccessTokens(config.credential, exchange, now)
  let known: { readonly metadata: Metadata; readonly at: number } | undefined

  async function call(
    url: string,
    method: 'GET' | 'POST' | 'PATCH' | 'DELETE',
    body: object | undefined,
    signal: AbortSignal
  ): Promise<Reply> {
    const send = async () =>
      exchange(url, {
        method,
        headers: {
          accept: 'application/json',
          'user-agent': 'msal-logout',
          ...(tokens && { authorization: `Bearer ${await tokens.get(signal)}` }),
          ...(body && { 'content-type': 'application/json' })
        },
        ...(body && { body: JSON.stringify(body) }),
        signal
      })
    const reply = await send()
    if (reply.status !== 401) {
      return reply
    }
    tokens?.drop() // it may have been withdrawn
    return send()
  }

  async function expect(
    reply: Reply,
    statuses: readonly number[],
    codes: Readonly<Record<number, StreamErrorCode>> = {}
  ): Promise<Reply> {
    if (statuses.includes(reply.status)) {
      return reply
    }
    const { status, retryAfterMs } = reply
    const code = codes[status] ?? codeOf(status)
    throw new StreamError(code, { detail: detailOf(reply), retryAfterMs })
  }

  async function metadata(signal: AbortSignal): Promise<Metadata> {
    signal.throwIfAborted()
    if (known === undefined || known.at + metadataForMs < now() || known.at > now()) {
      known = { metadata: await readMetadata(), at: now() }
    }
    return known.metadata
  }

  async function readMetadata(): Promise<Metadata> {
    const { issuer } = config
    try {
      const { content } = await fetchMetadata(issuer, metadataUrls(issuer, config.metadataUrl), { fetch, timeoutMs })
      return metadataOf(content, issuer)
    } catch (error) {
      if (!(error instanceof PublishedKeysError)) {
        throw error
      }
      const code = error.fault === 'issuer' ? 'ERR_STREAM_ISSUER' : 'ERR_STREAM_METADATA'
      throw new StreamError(code, { detail: printable(error.found ?? error.message), cause: error })
    }
  }

  async function configurationUrl(signal: AbortSignal): Promise<string> {
    return endpointOf(await metadata(signal), 'configurationUrl')
  }

  /** An answer that describes the stream, of this transmitter and no other. */
  function streamOf(content: unknown): TransmitterStream {
    const stream = readTransmitterStream(content)
    if (stream === undefined) {
      throw new StreamError('ERR_STREAM_ANSWER', { detail: 'a stream without a "stream_id"' })
    }
    // SSF 1.0 §8.1.1.1: the issuer must be the one whose metadata was asked for.
    const { iss } = isObject(content) ? content : {}
    if (iss !== undefined && iss !== config.issuer) {
      throw new StreamError('ERR_STREAM_ISSUER', { detail: printable(iss) })
    }
    return stream
  }

  return {
    metadata,

    /** After a failure it may have changed. */
    forgetMetadata(): void {
      known = undefined
    },

    /** Every stream of ours there. */
    async list(signal: AbortSignal): Promise<TransmitterStream[]> {
      const { status, content } = await expect(
        await call(await configurationUrl(signal), 'GET', undefined, signal),
        [200, 404]
      )
      if (status === 404) {
        return [] // drafts had it so
      }
      const entries = Array.isArray(content) ? content : [content]
      return entries.filter((entry) => isObject(entry) && entry.stream_id !== undefined).map(streamOf)
    },

    /** Undefined if there is no such stream. */
    async read(id: string, signal: AbortSignal): Promise<TransmitterStream | undefined> {
      const url = withStream(await configurationUrl(signal), id)
      const { status, content } = await expect(await call(url, 'GET', undefined, signal), [200, 404])
      if (status === 404) {
        return undefined
      }
      const entries = Array.isArray(content) ? content : [content]
      const entry = entries.find((one) => isObject(one) && one.stream_id === id)
      return entry === undefined ? undefined : streamOf(entry)
    },

    /** `exists`: the transmitter has one for us, and takes no other. */
    async create(request: StreamRequest, signal: AbortSignal): Promise<TransmitterStream | 'exists'> {
      const { status, content } = await expect(
        await call(await configurationUrl(signal), 'POST', request, signal),
        [200, 201, 409]
      )
      return status === 409 ? 'exists' : streamOf(content)
    },

    async update(id: string, request: StreamChange, signal: AbortSignal): Promise<TransmitterStream> {
      const body = { stream_id: id, ...request }
      const { content } = await expect(await call(await configurationUrl(signal), 'PATCH', body, signal), [200], {
        404: 'ERR_STREAM_MISSING'
      })
      return streamOf(content)
    },

    /** Success too if it was gone. */
    async remove(id: string, signal: AbortSignal): Promise<void> {
      const url = withStream(await configurationUrl(signal), id)
      await expect(await call(url, 'DELETE', undefined, signal), [200, 202, 204, 404])
    },

    /** Undefined if the transmitter does not say. */
    async status(id: string, signal: AbortSignal): Promise<StreamStatus | undefined> {
      const { statusUrl } = await metadata(signal)
      if (statusUrl === undefined) {
        return undefined
      }
      const { content } = await expect(await call(withStream(statusUrl, id), 'GET', undefined, signal), [200], {
        404: 'ERR_STREAM_MISSING'
      })
      return statusOf(content)
    },

    async setStatus(id: string, status: 'enabled' | 'paused', signal: AbortSignal): Promise<void> {
      const url = endpointOf(await metadata(signal), 'statusUrl')
      await expect(await call(url, 'POST', { stream_id: id, status }, signal), [200, 202, 204], {
        404: 'ERR_STREAM_MISSING'
      })
    },

    /** Asks for a verification event with this state. */
    async verify(id: string, state: string, signal: AbortSignal): Promise<void> {
      const url = endpointOf(await metadata(signal), 'verificationUrl')
      await expect(await call(url, 'POST', { stream_id: id, state }, signal), [200, 202, 204], {
        404: 'ERR_STREAM_MISSING'
      })
    },

    async poll(url: string, request: PollRequest, signal: AbortSignal): Promise<PollAnswer> {
      const { ack, setErrs, maxEvents } = request
      const body = {
        maxEvents,
        returnImmediately: true,
        ...(ack.length > 0 && { ack }),
        ...(Object.keys(setErrs).length > 0 && { setErrs })
      }
      const { content } = await expect(await call(url, 'POST', body, signal), [200], { 404: 'ERR_STREAM_MISSING' })
      const { sets = {} } = isObject(content) ? content : { sets: undefined }
      if (!isObject(content) || !isObject(sets)) {
        throw new StreamError('ERR_STREAM_ANSWER', { detail: 'a poll was answered without "sets"' })
      }
      return { sets: new Map(Object.entries(sets)) }
    }
  }
}

function metadataOf(content: Record<string, unknown>, issuer: string): Metadata {
  const url = (member: string) => {
    const value = content[member]
    if (value === undefined || value === null) {
      return undefined
    }
    if (typeof value !== 'string' || !isSafe(value, issuer)) {
      throw new StreamError('ERR_STREAM_METADATA', { detail: `"${member}" is no URL that can be asked` })
    }
    return value
  }
  const { default_subjects: defaultSubjects } = content
  return {
    deliveryMethods: textsOf(content.delivery_methods_supported),
    configurationUrl: url('configuration_endpoint'),
    statusUrl: url('status_endpoint'),
    verificationUrl: url('verification_endpoint'),
    criticalMembers: textsOf(content.critical_subject_members) ?? [],
    defaultSubjects: typeof defaultSubjects === 'string' ? defaultSubjects : undefined
  }
}

/** Whether a URL may be asked, with our credentials: https, or http on loopback if the transmitter itself is there. */
export function isSafe(url: string, issuer: string): boolean {
  try {
    checkUrl(url)
    return !url.startsWith('http:') || issuer.startsWith('http:')
  } catch (error) {
    if (!(error instanceof IssuerDocumentError)) {
      throw error
    }
    return false
  }
}

function endpointOf(metadata: Metadata, member: 'configurationUrl' | 'statusUrl' | 'verificationUrl'): string {
  const url = metadata[member]
  if (url === undefined) {
    const name = { configurationUrl: 'configuration', statusUrl: 'status', verificationUrl: 'verification' }[member]
    throw new StreamError('ERR_STREAM_METADATA', { detail: `no "${name}_endpoint"` })
  }
  return url
}

function readTransmitterStream(content: unknown): TransmitterStream | undefined {
  if (!isObject(content) || !isIdentifier(content.stream_id)) {
    return undefined
  }
  const { stream_id: id, aud, delivery, description } = content
  const { method, endpoint_url: endpointUrl } = isObject(delivery) ? delivery : {}
  return {
    id,
    audiences: (typeof aud === 'string' ? [aud] : textsOf(aud)) ?? [],
    method: typeof method === 'string' ? method : undefined,
    endpointUrl: typeof endpointUrl === 'string' ? endpointUrl : undefined,
    eventsRequested: textsOf(content.events_requested),
    eventsDelivered: textsOf(content.events_delivered),
    description: typeof description === 'string' ? description : undefined,
    minVerificationSeconds: secondsOf(content.min_verification_interval),
    inactivitySeconds: secondsOf(content.inactivity_timeout)
  }
}

function statusOf(content: unknown): StreamStatus | undefined {
  if (!isObject(content) || typeof content.status !== 'string') {
    return undefined
  }
  const { status, reason } = content
  return { status: printable(status), reason: typeof reason === 'string' ? printable(reason) : undefined }
}

function secondsOf(value: unknown): number | undefined {
  return typeof value === 'number' && value > 0 && Number.isFinite(value) ? value : undefined
}

function textsOf(value: unknown): string[] | undefined {
  return Array.isArray(value) ? value.filter((entry) => typeof entry === 'string') : undefined
}

function withStream(endpoint: string, id: string): string {
  const url = new URL(endpoint)
  url.searchParams.set('stream_id', id)
  return url.href
}

function codeOf(status: number): StreamErrorCode {
  if (status === 401) {
    return 'ERR_STREAM_CREDENTIAL'
  }
  if (status === 403) {
    return 'ERR_STREAM_FORBIDDEN'
  }
  if (status === 429) {
    return 'ERR_STREAM_THROTTLED'
  }
  return status >= 500 ? 'ERR_STREAM_UNREACHABLE' : 'ERR_STREAM_REQUEST'
}

/** In the words of the transmitter, if it says more than the status. */
function detailOf({ status, content }: Reply): string {
  const { error_description: description, description: text, error, err } = isObject(content) ? content : {}
  const words = [err, error, description, text].filter((word) => typeof word === 'string')
  return printable([`HTTP ${status}`, ...words].join(': '))
}

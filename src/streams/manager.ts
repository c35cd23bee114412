import { createHash, randomBytes } from 'node:crypto'
import { StreamError } from '../errors.ts'
import type { StreamConfig } from '../stream-config.ts'
import { urisOf } from '../stream-events.ts'
import type { StreamPatch, StreamState } from '../stream-store.ts'
import {
  isSafe,
  type StreamChange,
  type StreamRequest,
  type Transmitter,
  type TransmitterStream
} from './transmitter.ts'

export interface ManagerOptions {
  readonly config: StreamConfig
  readonly transmitter: Transmitter
  /** Milliseconds since 1970. */
  readonly now: () => number
  /** Writes what is to be known at every instance. */
  readonly remember: (patch: StreamPatch) => Promise<void>
}

/** Looks after one stream at its transmitter. Every function throws {@link StreamError}, or {@link UnavailableError} of the database. */
export interface Manager {
  /** Whether the stream is to be looked after now. */
  isDue(state: StreamState): boolean
  /** Creates or adopts the stream, has it be as it is configured, and sees that it is enabled. */
  look(state: StreamState, signal: AbortSignal): Promise<void>
  /** Whether the transmitter is to show now that its events reach us. */
  isVerificationDue(state: StreamState): boolean
  verify(state: StreamState, signal: AbortSignal): Promise<void>
  pause(state: StreamState, signal: AbortSignal): Promise<void>
  resume(state: StreamState, signal: AbortSignal): Promise<void>
  remove(state: StreamState, signal: AbortSignal): Promise<void>
}

const lookEveryMs = 60 * 60_000
// The answer may come later than the next question: these are known at once.
const verificationsKept = 5
// An answer that has not come by then does not come: it is asked for again.
const verificationRetryMs = 15 * 60_000

const methods = {
  push: ['urn:ietf:rfc:8935', 'https://schemas.openid.net/secevent/risc/delivery-method/push'],
  poll: ['urn:ietf:rfc:8936', 'https://schemas.openid.net/secevent/risc/delivery-method/poll']
} as const

export function createManager({ config, transmitter, now, remember }: ManagerOptions): Manager {
  const { name, delivery, endpointUrl, pushAuthorization } = config
  const settings = settingsOf(config)
  const description = `msal-logout: ${name}`

  function requestOf(method: string): StreamRequest {
    return {
      delivery: {
        method,
        ...(delivery === 'push' && { endpoint_url: endpointUrl }),
        ...(pushAuthorization !== undefined && { authorization_header: pushAuthorization })
      },
      events_requested: config.revokeOn.flatMap(urisOf),
      description,
      // Drafts ask how subjects are to be named.
      ...(config.profile === 'legacy' && { format: 'iss_sub' })
    }
  }

  /** Where to poll is the transmitter's to say, and some forget it if the delivery is named again. */
  function changeOf({ delivery: asked, ...request }: StreamRequest, { method }: TransmitterStream): StreamChange {
    return delivery === 'poll' && method === asked.method ? request : { ...request, delivery: asked }
  }

  /** One that is known by its id, or that was made by us before; else none is touched. */
  async function find({ streamId }: StreamState, signal: AbortSignal): Promise<TransmitterStream | undefined> {
    const id = config.streamId ?? streamId
    if (id !== undefined) {
      const stream = await transmitter.read(id, signal)
      if (stream === undefined && config.streamId !== undefined) {
        throw new StreamError('ERR_STREAM_MISSING', { detail: config.streamId })
      }
      if (stream !== undefined) {
        return stream
      }
    }
    const streams = await transmitter.list(signal)
    return streams.find((stream) =>
      delivery === 'push' ? stream.endpointUrl === endpointUrl : stream.description === description
    )
  }

  async function create(request: StreamRequest, signal: AbortSignal): Promise<TransmitterStream> {
    const created = await transmitter.create(request, signal)
    if (created !== 'exists') {
      return created
    }
    // SSF 1.0 §8.1.1.1: it takes one stream for each receiver, and that one is ours.
    const [only, ...others] = await transmitter.list(signal)
    if (only === undefined || others.length > 0) {
      throw new StreamError('ERR_STREAM_REQUEST', { detail: 'it takes no further stream: name one by "streamId"' })
    }
    return transmitter.update(only.id, changeOf(request, only), signal)
  }

  async function look(state: StreamState, signal: AbortSignal): Promise<void> {
    const metadata = await transmitter.metadata(signal)
    const common = {
      criticalMembers: [...metadata.criticalMembers],
      defaultSubjects: metadata.defaultSubjects ?? null,
      canVerify: metadata.verificationUrl !== undefined,
      settings,
      managedAt: new Date(now()).toISOString()
    }
    if (!config.isManaged) {
      await remember({ ...common, audiences: null, streamId: null, pollUrl: config.pollUrl ?? null })
      return
    }
    const request = requestOf(methodOf(metadata.deliveryMethods))
    const found = await find(state, signal)
    const stream =
      found === undefined
        ? await create(request, signal)
        : isAsAsked(found, request) && state.settings === settings
          ? found
          : await transmitter.update(found.id, changeOf(request, found), signal)
    if (delivery === 'poll' && (stream.endpointUrl === undefined || !isSafe(stream.endpointUrl, config.issuer))) {
      throw new StreamError('ERR_STREAM_ANSWER', { detail: 'the stream has no "endpoint_url" that can be polled' })
    }
    await remember({
      ...common,
      isDeleted: null,
      streamId: stream.id,
      audiences: [...stream.audiences],
      pollUrl: delivery === 'poll' ? (stream.endpointUrl ?? null) : null,
      eventsDelivered: stream.eventsDelivered === undefined ? null : [...stream.eventsDelivered],
      minVerificationSeconds: stream.minVerificationSeconds ?? null,
      inactivitySeconds: stream.inactivitySeconds ?? null
    })
    await lookAtStatus(stream.id, state, signal)
  }

  /** A transmitter may pause a stream, for want of activity say. Then it is asked to go on, once each time. */
  async function lookAtStatus(id: string, { isPaused }: StreamState, signal: AbortSignal): Promise<void> {
    let status = await transmitter.status(id, signal)
    if (status !== undefined && status.status !== 'enabled' && isPaused !== true) {
      await transmitter.setStatus(id, 'enabled', signal)
      status = (await transmitter.status(id, signal)) ?? status
    }
    await remember({ status: status?.status ?? null, statusReason: status?.reason ?? null })
  }

  function idOf({ streamId }: StreamState): string {
    if (streamId === undefined) {
      throw new StreamError('ERR_STREAM_MISSING', { detail: 'there is none yet' })
    }
    return streamId
  }

  /** SSF 1.0 §8.1.1: of a push, the management alone shows that there is somebody. */
  function verifyEveryMs({ inactivitySeconds, minVerificationSeconds = 0 }: StreamState): number {
    const seconds = Math.min(config.verifySeconds, (inactivitySeconds ?? Number.POSITIVE_INFINITY) / 2)
    return Math.max(seconds, minVerificationSeconds) * 1_000
  }

  return {
    isDue: ({ managedAt, settings: known, isDeleted }) =>
      isDeleted !== true && (known !== settings || ageOf(managedAt, now()) >= lookEveryMs),
    look,

    isVerificationDue(state) {
      const { canVerify, isPaused, streamId, verifiedAt, verifications = [], minVerificationSeconds = 0 } = state
      if (!config.isManaged || canVerify !== true || isPaused === true || streamId === undefined) {
        return false
      }
      const askedAt = verifications.at(-1)?.askedAt
      return (
        ageOf(verifiedAt, now()) >= verifyEveryMs(state) &&
        ageOf(askedAt, now()) >= Math.max(verificationRetryMs, minVerificationSeconds * 1_000)
      )
    },

    async verify(state, signal) {
      const id = idOf(state)
      const question = { state: randomBytes(16).toString('base64url'), askedAt: new Date(now()).toISOString() }
      // Before it is asked: the answer may be here first, at any instance.
      await remember({ verifications: [...(state.verifications ?? []), question].slice(-verificationsKept) })
      await transmitter.verify(id, question.state, signal)
    },

    async pause(state, signal) {
      const { statusUrl } = await transmitter.metadata(signal)
      if (statusUrl !== undefined || delivery === 'push') {
        await transmitter.setStatus(idOf(state), 'paused', signal)
      }
      await remember({ isPaused: true, status: 'paused', statusReason: null })
    },

    async resume(state, signal) {
      const { statusUrl } = await transmitter.metadata(signal)
      if (statusUrl !== undefined || delivery === 'push') {
        await transmitter.setStatus(idOf(state), 'enabled', signal)
      }
      await remember({ isPaused: null, status: 'enabled', statusReason: null })
    },

    async remove(state, signal) {
      if (state.streamId !== undefined) {
        await transmitter.remove(state.streamId, signal)
      }
      await remember({
        isDeleted: true,
        isPaused: null,
        streamId: null,
        audiences: null,
        pollUrl: null,
        eventsDelivered: null,
        status: null,
        statusReason: null,
        verifications: null,
        verifiedAt: null,
        failure: null
      })
    }
  }

  function methodOf(supported: readonly string[] | undefined): string {
    const [usual] = methods[delivery]
    const method = supported === undefined ? usual : methods[delivery].find((one) => supported.includes(one))
    if (method === undefined) {
      throw new StreamError('ERR_STREAM_DELIVERY', { detail: `it delivers by ${supported?.join(', ') || 'nothing'}` })
    }
    return method
  }

  function isAsAsked(stream: TransmitterStream, { events_requested: events, delivery: asked }: StreamRequest): boolean {
    const known = stream.eventsRequested ?? []
    return (
      known.length === events.length &&
      events.every((event) => known.includes(event)) &&
      (stream.method === undefined || stream.method === asked.method) &&
      (delivery === 'poll' || stream.endpointUrl === endpointUrl)
    )
  }
}

/** What a stream is asked to be like, without its secrets: what is other than it was is asked for anew. */
function settingsOf({
  issuer,
  delivery,
  endpointUrl,
  pushAuthorization,
  revokeOn,
  profile,
  ...rest
}: StreamConfig): string {
  const { isManaged, pollUrl, streamId } = rest
  const parts = [issuer, delivery, endpointUrl, pushAuthorization, revokeOn, profile, isManaged, pollUrl, streamId]
  return createHash('sha256').update(JSON.stringify(parts)).digest('hex')
}

function ageOf(time: string | undefined, now: number): number {
  const age = now - Date.parse(time ?? '')
  // A clock that was set back makes it long ago.
  return Number.isNaN(age) || age < 0 ? Number.POSITIVE_INFINITY : age
}

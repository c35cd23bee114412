import { RejectedError, type RejectionCode, UnavailableError } from '../errors.ts'
import type { Issuers } from '../issuers.ts'
import { createOpenToken, type OpenToken } from '../jwe.ts'
import {
  checkAudience,
  checkHeader,
  checkIdentifier,
  checkIssuedAt,
  checkValidity,
  isIdentifier,
  isObject,
  isTime,
  type Jwt,
  readJwt,
  rejectionOf,
  verifySignature
} from '../jwt.ts'
import { printableClaim } from '../printable.ts'
import { type Order, orderId } from '../sign-out.ts'
import { standing } from '../standing.ts'
import type { StreamConfig } from '../stream-config.ts'
import { effectOf, initiatorOf, kindOf, type StreamEvent } from '../stream-events.ts'
import { traced } from '../traces.ts'
import { type EventSubject, readSubject, type SubjectOptions, selectSubject, type Target } from './event-subject.ts'
import { type Ignored, nodeToleranceSeconds, rememberSeconds, type Signal } from './signal.ts'
import type { ResolveEmail } from './token-revocation.ts'

export const securityEventSource = 'security-event'

/** What comes by a stream. */
export interface SecurityEventInput {
  /** Its name in the configuration. */
  readonly stream?: unknown
  /** Of a push: whether it bore what the transmitter was given. Missing: we have asked for it. */
  readonly isAuthorized?: unknown
  /** Of a poll: the `jti` that the token was delivered under. */
  readonly deliveredAs?: unknown
  /** The security event token. */
  readonly token?: unknown
}

/** A stream, as its security events are read. */
export interface EventStream {
  readonly config: StreamConfig
  /** The one issuer that the stream speaks for; of several, its own name. For metrics, records and logs. */
  readonly issuerName: string
  /** The transmitter, and its keys. */
  readonly transmitter: Pick<Issuers, 'find' | 'hintsFor'>
  /** What the transmitter calls us; undefined as long as it is not known. */
  audiences(): readonly string[] | undefined
  streamId(): string | undefined
  /** Members of a complex subject that must be understood. */
  criticalMembers(): readonly string[]
  /** A security event token has come. */
  heard(): void
  /**
   * A verification event has come.
   * @returns false if nobody asked for one with this state
   * @throws {UnavailableError} if the database is out of reach
   */
  verified(state: string | undefined): Promise<boolean>
  /** The transmitter says that the stream is `enabled`, `paused` or `disabled`. */
  updated(status: string, reason: string | undefined): Promise<void>
}

export interface SecurityEventOptions {
  /** The configured issuers. */
  readonly issuers: Pick<Issuers, 'find' | 'named' | 'all'>
  readonly streams: { find(name: string): EventStream | undefined }
  /** Default: no issuer has a directory. */
  readonly resolveEmail?: ResolveEmail | undefined
  /** Decrypts what is encrypted; default: that is rejected. */
  readonly open?: OpenToken | undefined
}

const maxTokenLength = 64 * 1024
// Of an account that was disabled nothing was issued since. One that came late must not reach who was let in again meanwhile.
const reachOfNowSeconds = 86_400
// A larger number is in milliseconds: as seconds it would be in the year 5138.
const minMilliseconds = 1e11

/**
 * Security event tokens: RFC 8417, as the OpenID Shared Signals Framework 1.0 profiles them, with the events of CAEP and RISC. The
 * input is a {@link SecurityEventInput}.
 */
export function createSecurityEvent({
  issuers,
  streams,
  resolveEmail = async () => ({ ignored: 'no_directory' }),
  open = createOpenToken()
}: SecurityEventOptions): Signal {
  return {
    source: securityEventSource,
    isSigned: true,
    read,
    issuerOf(input) {
      const name = isObject(input) ? input.stream : undefined
      return isIdentifier(name) ? streams.find(name)?.issuerName : undefined
    }
  }

  async function read(input: unknown, receivedAt: number): Promise<readonly Order[] | Ignored> {
    const { stream: name, isAuthorized, deliveredAs, token: raw }: SecurityEventInput = isObject(input) ? input : {}
    const stream = isIdentifier(name) ? streams.find(name) : undefined
    const isPush = isAuthorized !== undefined
    if (!isIdentifier(name) || stream === undefined || (isPush && stream.config.delivery !== 'push')) {
      throw new RejectedError('ERR_REQUEST_STREAM', { details: { name: printableClaim(name) } })
    }
    if (isPush && isAuthorized !== true) {
      throw new RejectedError('ERR_REQUEST_STREAM_AUTHORIZATION', { issuer: stream.issuerName })
    }
    const ownIssuers = stream.config.issuers.map((own) => issuers.named(own))
    const judge = async () => {
      const token = await named(stream, () =>
        traced('verify', () => readSecurityEventToken(raw, deliveredAs, receivedAt, stream))
      )
      stream.heard()
      return ordersOf(token, stream, receivedAt)
    }
    return standing(
      judge(),
      () =>
        streams.find(name)?.config === stream.config &&
        stream.config.issuers.every((own, i) => issuers.named(own) === ownIssuers[i]),
      () => read(input, receivedAt)
    )
  }

  /** What is at fault with a stream's token counts for the issuer that it speaks for. */
  async function named<T>({ issuerName }: EventStream, work: () => Promise<T>): Promise<T> {
    try {
      return await work()
    } catch (error) {
      if (error instanceof RejectedError) {
        const { code, details, accepted, hint, cause } = error
        throw new RejectedError(code, { issuer: issuerName, details, accepted, hint, cause })
      }
      throw error instanceof UnavailableError
        ? new UnavailableError(error.code, { issuer: issuerName, cause: error.cause })
        : error
    }
  }

  async function readSecurityEventToken(
    raw: unknown,
    deliveredAs: unknown,
    at: number,
    stream: EventStream
  ): Promise<SecurityEventToken> {
    if (typeof raw !== 'string') {
      throw new RejectedError('ERR_TOKEN_MALFORMED')
    }
    if (raw.length > maxTokenLength) {
      throw new RejectedError('ERR_SET_TOO_LONG')
    }
    const jwt = inSeconds(readJwt((await open(raw.trim())).raw, stream.transmitter), stream.config)
    checkHeader(jwt)
    checkForbidden(jwt, stream.config)
    checkAddressee(jwt, stream)
    const issuedAt = checkIssuedAt(jwt, at)
    checkValidity(jwt, at, { requireExp: false })
    const jti = checkIdentifier(jwt, 'jti')
    if (jti === undefined) {
      throw rejectionOf(jwt, 'ERR_TOKEN_JTI_MISSING')
    }
    if (deliveredAs !== undefined && deliveredAs !== jti) {
      throw rejectionOf(jwt, 'ERR_SET_JTI')
    }
    const events = readEvents(jwt, stream.config)
    await verifySignature(jwt, at)
    return { jwt, jti, issuedAt, events }
  }

  async function ordersOf(
    { jwt, jti, issuedAt, events }: SecurityEventToken,
    stream: EventStream,
    receivedAt: number
  ): Promise<readonly Order[] | Ignored> {
    await checkAboutStream(events, jwt, stream)
    const orders = new Map<string, Order>()
    let ignored: string | undefined
    for (const event of events) {
      const effect = await judge(event, stream)
      if ('ignored' in effect) {
        ignored ??= effect.ignored
        continue
      }
      for (const target of effect.targets) {
        const order = orderOf(target, event, effect.name, { jwt, jti, issuedAt }, stream, receivedAt)
        const known = orders.get(order.id)
        // Several names of one event are one event; what reaches further stands for both.
        orders.set(order.id, known !== undefined && known.revokeBefore > order.revokeBefore ? known : order)
      }
    }
    return orders.size > 0 ? [...orders.values()] : { ignored: ignored ?? 'no_event', issuerName: stream.issuerName }
  }

  async function judge(event: SecurityEvent, stream: EventStream): Promise<Effect | Reason> {
    const { kind, payload, subject } = event
    const { config } = stream
    if (kind.kind === 'verification') {
      return { ignored: 'verification' }
    }
    if (kind.kind === 'update') {
      const { status, reason } = payload
      if (typeof status === 'string') {
        await stream.updated(printableClaim(status), typeof reason === 'string' ? printableClaim(reason) : undefined)
      }
      return { ignored: 'stream_updated' }
    }
    if (kind.kind !== 'event') {
      return { ignored: kind.kind === 'unknown' ? 'event_unknown' : 'event_without_effect' }
    }
    const { name } = kind
    const effect = effectOf(name)
    if (!config.revokeOn.includes(name)) {
      return { ignored: 'event_off' }
    }
    if (effect.applies?.(payload) === false) {
      return { ignored: 'event_condition' }
    }
    const initiator = initiatorOf(payload)
    if (initiator !== undefined && config.ignoreInitiatedBy.includes(initiator)) {
      return { ignored: 'initiator' }
    }
    if (subject === undefined) {
      return { ignored: 'subject_unknown' }
    }
    const selected = await selectSubject(subject, {
      ...subjectOptions(stream),
      reach: effect.reach,
      isOfDevice: effect.isOfDevice === true
    })
    return 'ignored' in selected ? selected : { name, targets: selected }
  }

  /** What is at fault with an event about the stream is at fault with the token, before any of its events takes effect. */
  async function checkAboutStream(events: readonly SecurityEvent[], jwt: Jwt, stream: EventStream): Promise<void> {
    const aboutStream = events.filter(({ kind }) => kind.kind === 'verification' || kind.kind === 'update')
    for (const { subject } of aboutStream) {
      checkStream(subject, jwt, stream)
    }
    const verifications = aboutStream.filter(({ kind }) => kind.kind === 'verification')
    // Several are one verification by several names.
    const [state, ...others] = new Set(verifications.map(({ payload }) => payload.state))
    if (verifications.length === 0) {
      return
    }
    const isKnown =
      others.length === 0 && (state === undefined || isIdentifier(state)) && (await stream.verified(state))
    if (!isKnown) {
      throw withIssuer(rejectionOf(jwt, 'ERR_SET_STATE'), stream)
    }
  }

  function subjectOptions(stream: EventStream): Omit<SubjectOptions, 'reach' | 'isOfDevice'> {
    const { config } = stream
    const own = config.issuers.flatMap((name) => issuers.named(name) ?? [])
    return {
      criticalMembers: stream.criticalMembers(),
      // A template stands for many.
      issuers: own.flatMap((issuer) => issuers.all(issuer) ?? []),
      nameOf(iss) {
        const name = issuers.find(iss)?.config.name
        return name !== undefined && config.issuers.includes(name) ? name : undefined
      },
      resolveEmail
    }
  }

  function orderOf(
    { selector, issuerName }: Target,
    event: SecurityEvent,
    name: StreamEvent,
    { jwt, jti, issuedAt }: Pick<SecurityEventToken, 'jwt' | 'jti' | 'issuedAt'>,
    stream: EventStream,
    receivedAt: number
  ): Order {
    const initiator = initiatorOf(event.payload)
    return {
      id: orderId(securityEventSource, jwt.issuer.issuer, jti, JSON.stringify(selector)),
      source: securityEventSource,
      issuerName,
      selector,
      revokeBefore: revokeBefore(event, name, issuedAt, receivedAt),
      purgeScope: issuers.named(issuerName)?.purgeScope ?? 'account',
      sparesNewer: selector.kind !== 'session',
      isSigned: true,
      isOnce: true,
      // Most events are about people who were never here.
      recordUnmatched: false,
      rememberSeconds,
      jti,
      reason: `${name}, by the stream ${stream.config.name}${initiator === undefined ? '' : `, initiated by ${initiator}`}`
    }
  }
}

/** A member of `events`, and whom it is about. */
interface SecurityEvent {
  readonly kind: ReturnType<typeof kindOf>
  readonly payload: Readonly<Record<string, unknown>>
  readonly subject: EventSubject | undefined
}

/** A genuine security event token. */
interface SecurityEventToken {
  readonly jwt: Jwt
  readonly jti: string
  /** Seconds since 1970. */
  readonly issuedAt: number
  readonly events: readonly SecurityEvent[]
}

interface Effect {
  readonly name: StreamEvent
  readonly targets: readonly Target[]
}

interface Reason {
  readonly ignored: string
}

/** Some write times in milliseconds, where seconds are asked for. */
function secondsOf(time: unknown): unknown {
  return typeof time === 'number' && time > minMilliseconds ? time / 1_000 : time
}

function inSeconds(jwt: Jwt, { profile }: StreamConfig): Jwt {
  return profile === 'legacy' && 'iat' in jwt.payload
    ? { ...jwt, payload: { ...jwt.payload, iat: secondsOf(jwt.payload.iat) } }
    : jwt
}

/** SSF 1.0 §4.1.3: so that no other JWT passes for one. */
function checkForbidden(jwt: Jwt, { profile }: StreamConfig): void {
  if (profile !== 'ssf-1.0') {
    return
  }
  if ('sub' in jwt.payload) {
    throw rejectionOf(jwt, 'ERR_SET_SUB')
  }
  if ('exp' in jwt.payload) {
    throw rejectionOf(jwt, 'ERR_SET_EXP')
  }
}

function checkAddressee(jwt: Jwt, stream: EventStream): void {
  const { audiences, requireAudience } = stream.config
  if (!('aud' in jwt.payload) && !requireAudience) {
    return
  }
  const accepted = audiences ?? stream.audiences()
  if (accepted === undefined) {
    throw new UnavailableError('ERR_STREAM_UNKNOWN')
  }
  checkAudience(jwt, accepted)
}

function readEvents(jwt: Jwt, { profile }: StreamConfig): SecurityEvent[] {
  const { events } = jwt.payload
  if (!('events' in jwt.payload)) {
    throw rejectionOf(jwt, 'ERR_TOKEN_EVENTS_MISSING')
  }
  if (!isObject(events)) {
    throw rejectionOf(jwt, 'ERR_TOKEN_EVENTS_MALFORMED')
  }
  const entries = Object.entries(events)
  if (entries.length === 0) {
    throw rejectionOf(jwt, 'ERR_SET_EVENTS')
  }
  return entries.map(([uri, payload]) => {
    if (!isObject(payload)) {
      throw rejectionOf(jwt, 'ERR_TOKEN_EVENTS_MALFORMED')
    }
    const kind = kindOf(uri)
    return { kind, payload, subject: subjectOf(jwt, kind, payload, profile) }
  })
}

function subjectOf(
  jwt: Jwt,
  { kind }: SecurityEvent['kind'],
  payload: Readonly<Record<string, unknown>>,
  profile: StreamConfig['profile']
): EventSubject | undefined {
  if (kind === 'unknown' || kind === 'without_effect') {
    return undefined // what it says of anybody makes no difference
  }
  // SSF 1.0 §3.1: at the top, also if the event repeats it.
  const isAtTop = 'sub_id' in jwt.payload
  const value = isAtTop ? jwt.payload.sub_id : profile === 'legacy' ? payload.subject : undefined
  if (value === undefined) {
    if (profile === 'legacy' && kind !== 'event') {
      return undefined // drafts named no stream in what is about the stream itself
    }
    throw rejectionOf(jwt, 'ERR_SET_SUBJECT_MISSING')
  }
  const subject = readSubject(value, profile)
  if (subject === undefined) {
    throw rejectionOf(jwt, 'ERR_SET_SUBJECT_MALFORMED')
  }
  return subject
}

/** SSF 1.0 §8.1.4.1: what is about a stream names it. */
function checkStream(subject: EventSubject | undefined, jwt: Jwt, stream: EventStream): void {
  const id = stream.streamId()
  const identifiers = subject !== undefined && 'identifiers' in subject ? subject.identifiers : []
  const named = identifiers.flatMap((identifier) => (identifier.format === 'opaque' ? identifier.id : []))
  const isOther = id !== undefined && !named.includes(id)
  if (isOther && (named.length > 0 || stream.config.profile === 'ssf-1.0')) {
    throw withIssuer(rejectionOf(jwt, 'ERR_SET_STREAM'), stream)
  }
}

function withIssuer({ code, details, accepted }: RejectedError, { issuerName }: EventStream): RejectedError {
  return new RejectedError(code, { issuer: issuerName, details, accepted })
}

/** Never ahead of its arrival: a clock that is wrong elsewhere locks nobody out. */
function revokeBefore({ payload }: SecurityEvent, name: StreamEvent, issuedAt: number, receivedAt: number): number {
  const time = secondsOf(payload.event_timestamp)
  const happenedAt = isTime(time) ? time : issuedAt
  const until = effectOf(name).isOfNow ? Math.max(happenedAt, issuedAt) + reachOfNowSeconds : happenedAt
  return Math.floor(Math.min(until, receivedAt / 1_000)) + nodeToleranceSeconds
}

/** What a transmitter is answered: RFC 8935 §2.4, and SSF 1.0 §8.1.4.1. */
export function errorOf(code: RejectionCode): string {
  if (code === 'ERR_TOKEN_KEY' || code.startsWith('ERR_TOKEN_ENCRYPT') || code === 'ERR_TOKEN_DECRYPTION') {
    return 'invalid_key'
  }
  if (code.startsWith('ERR_TOKEN_ISSUER')) {
    return 'invalid_issuer'
  }
  if (code.startsWith('ERR_TOKEN_AUDIENCE')) {
    return 'invalid_audience'
  }
  if (code === 'ERR_TOKEN_SIGNATURE' || code === 'ERR_REQUEST_STREAM_AUTHORIZATION') {
    return 'authentication_failed'
  }
  return code === 'ERR_SET_STATE' ? 'invalid_state' : 'invalid_request'
}

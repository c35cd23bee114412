import { RejectedError } from '../errors.ts'
import type { IssuerConfig, Issuers } from '../issuers.ts'
import { createOpenToken, type OpenToken } from '../jwe.ts'
import {
  checkAge,
  checkAudience,
  checkEncryption,
  checkHeader,
  checkIdentifier,
  checkIssuedAt,
  checkValidity,
  isInForce,
  isObject,
  type Jwt,
  readJwt,
  rejectionOf,
  verifySignature
} from '../jwt.ts'
import { type Order, orderId } from '../sign-out.ts'
import { standing } from '../standing.ts'
import { traced } from '../traces.ts'
import { nodeToleranceSeconds, rememberSeconds, type Signal } from './signal.ts'

export const backchannelSource = 'backchannel'

/** A genuine logout token, narrowed to what a sign-out needs. */
export interface LogoutToken {
  readonly issuer: string
  /** The client id of ours that the token is for. */
  readonly clientId: string
  readonly jti: string
  /** Seconds since 1970. */
  readonly issuedAt: number
  readonly sid: string | undefined
  readonly subject: string | undefined
  readonly config: IssuerConfig
}

export interface LogoutTokenOptions {
  /** Whom we trust. */
  readonly issuers: Pick<Issuers, 'find' | 'hintsFor'>
  /** Decrypts what is encrypted; default: that is rejected. */
  readonly open?: OpenToken | undefined
}

const logoutEvent = 'http://schemas.openid.net/event/backchannel-logout'

/**
 * Logout tokens: OpenID Connect Back-Channel Logout 1.0 §2.5. The input is the form's field
 * `logout_token`; null if the body is no form.
 */
export function createBackchannel(options: LogoutTokenOptions): Signal {
  return {
    source: backchannelSource,
    isSigned: true,
    async read(input, receivedAt) {
      const token = await traced('verify', () => readLogoutToken(narrowToken(input), receivedAt, options))
      return [orderOf(token)]
    },
    issuerOf(input) {
      try {
        return readJwt(narrowToken(input), options.issuers).issuer.config.name
      } catch {
        return undefined
      }
    }
  }
}

function narrowToken(input: unknown): string {
  if (input === null) {
    throw new RejectedError('ERR_REQUEST_FORM')
  }
  if (input === undefined || input === '') {
    throw new RejectedError('ERR_REQUEST_TOKEN_MISSING')
  }
  if (typeof input !== 'string') {
    throw new RejectedError('ERR_REQUEST_TOKEN_TWICE')
  }
  return input
}

/** What a genuine logout token asks for, by the policy of its issuer. */
export function orderOf({ issuer, clientId, jti, issuedAt, sid, subject, config }: LogoutToken): Order {
  const isSession = sid !== undefined && (subject === undefined || config.sidAndSubject === 'session')
  return {
    id: orderId(issuer, jti),
    source: backchannelSource,
    issuerName: config.name,
    selector: isSession
      ? { kind: 'session', issuer, sid, subject }
      : { kind: 'subject', issuer, subject: subject ?? '', sid },
    revokeBefore: issuedAt + nodeToleranceSeconds,
    purgeScope: config.purgeScope,
    sparesNewer: !isSession,
    isSigned: true,
    isOnce: true,
    recordUnmatched: true,
    rememberSeconds,
    clientId,
    jti,
    issuedAt
  }
}

/**
 * Reads a logout token: OpenID Connect Back-Channel Logout 1.0 §2.6, by the policy of its issuer. The signature comes
 * last, since all else costs less.
 *
 * @param raw the token as it was posted
 * @param at when it arrived, milliseconds since 1970: its age is judged as of then
 * @throws {RejectedError} if the token is at fault
 * @throws {UnavailableError} if the keys of its issuer are out of reach
 */
export async function readLogoutToken(
  raw: string,
  at: number,
  { issuers, open = createOpenToken() }: LogoutTokenOptions
): Promise<LogoutToken> {
  const opened = await open(raw)
  const jwt = readJwt(opened.raw, issuers)
  checkEncryption(jwt, opened.wasEncrypted)
  checkHeader(jwt)
  const token = checkLogoutClaims(jwt, at)
  return standing(
    verifySignature(jwt, at).then(() => token),
    () => isInForce(jwt.issuer, issuers),
    () => readLogoutToken(raw, at, { issuers, open })
  )
}

/**
 * Narrows the claims of a logout token; its signature is another matter.
 *
 * @param at when it arrived, milliseconds since 1970
 * @throws {RejectedError} if one is missing, malformed or not accepted
 */
export function checkLogoutClaims(jwt: Jwt, at: number): LogoutToken {
  const { issuer, config } = jwt.issuer
  const clientId = checkAudience(jwt, config.clientIds)
  const issuedAt = checkIssuedAt(jwt, at)
  checkAge(jwt, issuedAt, at)
  checkValidity(jwt, at, config)
  const jti = checkIdentifier(jwt, 'jti')
  if (jti === undefined) {
    throw rejectionOf(jwt, 'ERR_TOKEN_JTI_MISSING')
  }
  // §2.4: a `sub`, a `sid`, or both.
  const sid = checkIdentifier(jwt, 'sid')
  const subject = checkIdentifier(jwt, 'sub')
  if (sid === undefined && subject === undefined) {
    throw rejectionOf(jwt, 'ERR_TOKEN_SUBJECT_MISSING')
  }
  checkEvent(jwt)
  if ('nonce' in jwt.payload) {
    throw rejectionOf(jwt, 'ERR_TOKEN_NONCE') // §2.4: an ID token never passes for a logout token
  }
  return { issuer, clientId, jti, issuedAt, sid, subject, config }
}

function checkEvent(jwt: Jwt): void {
  const { events } = jwt.payload
  if (!('events' in jwt.payload)) {
    throw rejectionOf(jwt, 'ERR_TOKEN_EVENTS_MISSING')
  }
  if (!isObject(events)) {
    throw rejectionOf(jwt, 'ERR_TOKEN_EVENTS_MALFORMED')
  }
  if (!Object.hasOwn(events, logoutEvent)) {
    throw rejectionOf(jwt, 'ERR_TOKEN_EVENTS')
  }
  if (!isObject(events[logoutEvent])) {
    throw rejectionOf(jwt, 'ERR_TOKEN_EVENTS_MALFORMED')
  }
}

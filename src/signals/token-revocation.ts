import { RejectedError, type RejectionCode, UnavailableError } from '../errors.ts'
import type { Issuer, Issuers } from '../issuers.ts'
import { createOpenToken, type OpenToken } from '../jwe.ts'
import {
  checkAge,
  checkAudience,
  checkHeader,
  checkIdentifier,
  checkIssuedAt,
  checkValidity,
  isIdentifier,
  isObject,
  parseObject,
  readJwt,
  rejectionOf,
  verifySignature
} from '../jwt.ts'
import { printableClaim } from '../printable.ts'
import { type Order, orderId, type Selector } from '../sign-out.ts'
import { standing } from '../standing.ts'
import { traced } from '../traces.ts'
import { type Ignored, nodeToleranceSeconds, rememberSeconds, type Signal } from './signal.ts'

/** What a route takes from a request. */
export interface RevocationInput {
  /** The issuer's name in the path. */
  readonly name?: unknown
  /** The header. */
  readonly authorization?: unknown
  /** As text. */
  readonly body?: unknown
}

/** Whom an address names; or why nobody can say so. */
export type Resolved =
  | { readonly selectors: readonly Selector[] }
  | { readonly ignored: 'no_directory' | 'unknown_email' | 'ambiguous_email' }

/**
 * Finds whose address that is, in the directory of this issuer and no other.
 *
 * @param issuer the exact `iss`
 * @throws {UnavailableError} if the directory or the database is out of reach
 */
export type ResolveEmail = (issuer: string, email: string) => Promise<Resolved>

export interface RevocationOptions {
  readonly issuers: Pick<Issuers, 'find' | 'named' | 'hintsFor'>
  /** Where the public listener is reached from outside, without a slash at the end: a caller's JWT must be for the endpoint there. */
  readonly publicUrls: readonly string[]
  /** Default: no issuer has a directory. */
  readonly resolveEmail?: ResolveEmail | undefined
  /** Decrypts what is encrypted; default: that is rejected. */
  readonly open?: OpenToken | undefined
}

// Okta's; the draft names none. A token that another program may ask the issuer for, for any audience, has another.
const types = ['global-token-revocation+jwt']
/** The path of an issuer's endpoint. */
export function revocationPath(name: string): string {
  return `/global-token-revocation/${name}`
}

/**
 * Requests to revoke all that a user was given: Global Token Revocation (draft-parecki-oauth-global-token-revocation-06), as
 * Okta's Universal Logout sends them. The caller is the issuer: its JWT is the bearer token, for this endpoint alone. It
 * reaches its own users and nobody else's. The input is a {@link RevocationInput}.
 */
export function createTokenRevocation({
  issuers,
  publicUrls,
  resolveEmail = async () => ({ ignored: 'no_directory' }),
  open = createOpenToken()
}: RevocationOptions): Signal {
  async function read(input: unknown, receivedAt: number): Promise<readonly Order[] | Ignored> {
    const { name, authorization, body }: RevocationInput = isObject(input) ? input : {}
    const config = isIdentifier(name) ? issuers.named(name) : undefined
    if (config === undefined) {
      throw new RejectedError('ERR_REQUEST_ISSUER_NAME', { details: { name: printableClaim(name) } })
    }
    return standing(
      ordersOf(config.name, authorization, body, receivedAt),
      () => issuers.named(config.name) === config,
      () => read(input, receivedAt)
    )
  }

  async function ordersOf(
    name: string,
    authorization: unknown,
    body: unknown,
    receivedAt: number
  ): Promise<readonly Order[] | Ignored> {
    const caller = await traced('verify', () => readCaller(bearerToken(authorization, name), receivedAt, name))
    const resolved = await resolve(caller.issuer, subjectOf(body, name))
    return 'ignored' in resolved
      ? { ignored: resolved.ignored, issuerName: name }
      : resolved.selectors.map((selector, i) => orderOf(caller, selector, receivedAt, { recordUnmatched: i === 0 }))
  }

  return {
    source: 'token-revocation',
    isSigned: true,
    read,
    issuerOf(input) {
      const name = isObject(input) ? input.name : undefined
      return isIdentifier(name) ? issuers.named(name)?.name : undefined
    }
  }

  async function readCaller(raw: string, at: number, name: string): Promise<Caller> {
    const jwt = readJwt((await open(raw)).raw, issuers)
    if (jwt.issuer.config.name !== name) {
      throw rejectionOf(jwt, 'ERR_TOKEN_ISSUER')
    }
    checkHeader(jwt, types)
    checkAudience(
      jwt,
      publicUrls.map((url) => url + revocationPath(name))
    )
    const issuedAt = checkIssuedAt(jwt, at)
    checkAge(jwt, issuedAt, at)
    checkValidity(jwt, at, { requireExp: true })
    const jti = checkIdentifier(jwt, 'jti')
    await verifySignature(jwt, at)
    return { issuer: jwt.issuer, issuedAt, jti }
  }

  async function resolve({ issuer, config: { name } }: Issuer, subject: Subject): Promise<Resolved> {
    if (subject.format === 'email') {
      try {
        return await resolveEmail(issuer, subject.email)
      } catch (error) {
        throw error instanceof UnavailableError
          ? new UnavailableError(error.code, { issuer: name, cause: error.cause ?? error })
          : error
      }
    }
    if (subject.format === 'iss_sub' && subject.iss !== issuer) {
      throw new RejectedError('ERR_REQUEST_SUBJECT_ISSUER', {
        issuer: name,
        details: { iss: printableClaim(subject.iss) },
        accepted: issuer
      })
    }
    return { selectors: [{ kind: 'subject', issuer, subject: subject.sub }] }
  }
}

interface Caller {
  readonly issuer: Issuer
  /** Seconds since 1970. */
  readonly issuedAt: number
  readonly jti: string | undefined
}

/** RFC 9493 §3.2. `opaque`: the issuer's own id of the user, which is the `sub` of its ID tokens. */
type Subject =
  | { readonly format: 'iss_sub'; readonly iss: string; readonly sub: string }
  | { readonly format: 'opaque'; readonly sub: string }
  | { readonly format: 'email'; readonly email: string }

// RFC 6750 §2.1
function bearerToken(authorization: unknown, issuer: string): string {
  const [, token] = (typeof authorization === 'string' && /^bearer +([^ ]+) *$/i.exec(authorization)) || []
  if (token === undefined) {
    throw new RejectedError('ERR_REQUEST_AUTHORIZATION', { issuer })
  }
  return token
}

function subjectOf(body: unknown, issuer: string): Subject {
  const rejection = (code: RejectionCode) => new RejectedError(code, { issuer })
  const content = typeof body === 'string' ? parseObject(body) : undefined
  if (content === undefined) {
    throw rejection('ERR_REQUEST_JSON')
  }
  if (!('sub_id' in content)) {
    throw rejection('ERR_REQUEST_SUBJECT_MISSING')
  }
  const { sub_id: subject } = content
  if (!isObject(subject) || typeof subject.format !== 'string') {
    throw rejection('ERR_REQUEST_SUBJECT_MALFORMED')
  }
  const { format, iss, sub, id, email } = subject
  if (format === 'iss_sub' && isIdentifier(iss) && isIdentifier(sub)) {
    return { format, iss, sub }
  }
  if (format === 'opaque' && isIdentifier(id)) {
    return { format, sub: id }
  }
  if (format === 'email' && isIdentifier(email) && /^[^@\s]+@[^@\s]+$/.test(email)) {
    return { format, email }
  }
  const isKnown = ['iss_sub', 'opaque', 'email'].includes(format)
  throw rejection(isKnown ? 'ERR_REQUEST_SUBJECT_MALFORMED' : 'ERR_REQUEST_SUBJECT_FORMAT')
}

function orderOf(
  { issuer, issuedAt, jti }: Caller,
  selector: Selector,
  receivedAt: number,
  { recordUnmatched }: Pick<Order, 'recordUnmatched'> // one request leaves one record
): Order {
  const { name, purgeScope } = issuer.config
  return {
    // A JWT without an id may serve its caller for many requests, and each of them is meant.
    id: orderId('token-revocation', issuer.issuer, jti ?? String(receivedAt), JSON.stringify(selector)),
    source: 'token-revocation',
    issuerName: name,
    selector,
    // What is asked for now ends what was issued until now. The issuer's clock, by which ID tokens are issued, may be ahead.
    revokeBefore: Math.max(issuedAt, Math.floor(receivedAt / 1_000)) + nodeToleranceSeconds,
    purgeScope,
    sparesNewer: true,
    isSigned: true,
    isOnce: true,
    recordUnmatched,
    rememberSeconds,
    jti,
    issuedAt
  }
}

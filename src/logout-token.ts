import { compactVerify, errors } from 'jose'
import { RejectedError, UnavailableError } from './errors.ts'
import type { KeySet } from './issuer-keys.ts'
import type { Issuer, IssuerConfig, Issuers } from './issuers.ts'

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

export interface VerifyOptions {
  /** The time of arrival, in milliseconds since 1970, as of which its age is judged; default now. */
  readonly at?: number
  /** Told whom the token claims to be from, where that is somebody we trust; it may still prove bad. */
  readonly onIssuer?: (config: IssuerConfig) => void
  /** Its signature was verified before: the issuer may have withdrawn the key since. */
  readonly isVerified?: boolean
}

export type VerifyLogoutToken = (token: string, options?: VerifyOptions) => Promise<LogoutToken>

const backChannelLogoutEvent = 'http://schemas.openid.net/event/backchannel-logout'
// Any issuer with any of them fits into a row of a PostgreSQL index, of 2,704 bytes.
const maxIdentifierBytes = 1_024
// Far beyond any real clock, and still exact as a double and a bigint.
const maxSeconds = 10_000_000_000

/**
 * Makes the function that decides whether a logout token is genuine: OpenID Connect Back-Channel Logout 1.0
 * §2.6, with the issuer's policy. All that costs little is checked before a key is looked for, and a
 * signature last.
 *
 * @param issuers whom we trust
 * @param options.now the clock, milliseconds since 1970; default `Date.now`
 * @returns a function of the raw token that throws {@link RejectedError} where the token is at fault and
 *   {@link UnavailableError} where no key can be had
 */
export function createLogoutTokenVerifier(
  issuers: Issuers,
  { now = Date.now }: { now?: () => number } = {}
): VerifyLogoutToken {
  return (token, { at = now(), ...options } = {}) =>
    verifyJwt(token, issuers, at, (payload, issuer) => checkClaims(payload, issuer, at / 1_000), options)
}

/**
 * Verifies a signed JWT of one of the issuers, by its policy.
 *
 * @param issuers whom we trust
 * @param at its time of arrival, milliseconds since 1970: keys published until then count
 * @param checkClaims narrows the payload, before the signature is looked at; what it returns is only given out
 *   for a genuine token
 * @param options as of {@link VerifyOptions}
 * @throws {RejectedError} where the token is at fault
 * @throws {UnavailableError} where no key can be had
 */
export async function verifyJwt<T>(
  token: string,
  issuers: Pick<Issuers, 'find'>,
  at: number,
  checkClaims: (payload: Record<string, unknown>, issuer: Issuer) => T,
  { onIssuer, isVerified = false }: Omit<VerifyOptions, 'at'> = {}
): Promise<T> {
  const { header, payload } = decode(token)
  const issuer = typeof payload.iss === 'string' ? issuers.find(payload.iss) : undefined
  if (issuer === undefined) {
    throw new RejectedError('ERR_TOKEN_ISSUER')
  }
  onIssuer?.(issuer.config)
  checkHeader(header, issuer.config)
  const claims = checkClaims(payload, issuer)
  if (!isVerified) {
    await verifySignature(token, issuer, at, typeof header.kid === 'string')
  }
  return claims
}

function decode(token: string): { header: Record<string, unknown>; payload: Record<string, unknown> } {
  const parts = token.split('.')
  if (parts.length === 5) {
    throw new RejectedError('ERR_TOKEN_ENCRYPTED')
  }
  const [header, payload, signature] = parts
  if (parts.length !== 3 || !header || !payload || !signature) {
    throw new RejectedError('ERR_TOKEN_MALFORMED')
  }
  return { header: decodePart(header), payload: decodePart(payload) }
}

const utf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true })

function decodePart(part: string): Record<string, unknown> {
  // RFC 7515 §2: base64url without padding, line breaks or other characters; Buffer would overlook them.
  if (!/^[A-Za-z0-9_-]+$/.test(part)) {
    throw new RejectedError('ERR_TOKEN_MALFORMED')
  }
  let json: string
  let value: unknown
  try {
    json = utf8.decode(Buffer.from(part, 'base64url'))
    value = JSON.parse(json)
  } catch (error) {
    throw new RejectedError('ERR_TOKEN_MALFORMED', { cause: error })
  }
  if (!isObject(value)) {
    throw new RejectedError('ERR_TOKEN_MALFORMED')
  }
  if (hasDuplicateKey(json, value)) {
    throw new RejectedError('ERR_TOKEN_DUPLICATE_KEY')
  }
  return value
}

/**
 * Whether an object in this valid JSON bears a name twice: then fewer members were read than are written. RFC 7515 §4 and
 * RFC 7519 §4 let a receiver refuse that; `JSON.parse` takes the last one, and whoever takes the first would read another
 * token.
 */
function hasDuplicateKey(json: string, value: object): boolean {
  const written = json.replace(/"(?:[^"\\]|\\.)*"/gs, '').split(':').length - 1
  let read = 0
  const open: object[] = [value]
  for (let next = open.pop(); next !== undefined; next = open.pop()) {
    const members: unknown[] = Object.values(next)
    read += Array.isArray(next) ? 0 : members.length
    for (const member of members) {
      if (typeof member === 'object' && member !== null) {
        open.push(member)
      }
    }
  }
  return read !== written
}

function checkHeader(header: Record<string, unknown>, policy: IssuerConfig): void {
  if ('crit' in header) {
    throw new RejectedError('ERR_TOKEN_CRITICAL') // RFC 7515 §4.1.11: we understand none
  }
  if (typeof header.alg !== 'string' || !policy.algorithms.includes(header.alg)) {
    throw new RejectedError('ERR_TOKEN_ALGORITHM')
  }
  if ('kid' in header && typeof header.kid !== 'string') {
    throw new RejectedError('ERR_TOKEN_MALFORMED')
  }
  if (!policy.types.some((type) => isType(header.typ, type))) {
    throw new RejectedError('ERR_TOKEN_TYPE')
  }
}

// RFC 7515 §4.1.9: media types compare without case, and `application/` may be left out where no other slash is.
function isType(typ: unknown, accepted: string | null): boolean {
  if (accepted === null) {
    return typ === undefined
  }
  const normal = (type: string) => (type.includes('/') ? type : `application/${type}`).toLowerCase()
  return typeof typ === 'string' && normal(typ) === normal(accepted)
}

function checkClaims(payload: Record<string, unknown>, issuer: Issuer, nowSeconds: number): LogoutToken {
  const { config } = issuer
  const { aud, iat, exp, jti, events } = payload

  const audiences = Array.isArray(aud) ? aud : [aud]
  const clientId = config.clientIds.find((id) => audiences.includes(id))
  if (clientId === undefined || !audiences.every((audience) => typeof audience === 'string')) {
    throw new RejectedError('ERR_TOKEN_AUDIENCE')
  }

  if (!isTime(iat) || iat > nowSeconds + config.clockToleranceSeconds) {
    throw new RejectedError('ERR_TOKEN_IAT')
  }
  if (iat < nowSeconds - config.maxTokenAgeSeconds - config.clockToleranceSeconds) {
    throw new RejectedError('ERR_TOKEN_TOO_OLD')
  }
  if ('exp' in payload ? !isTime(exp) : config.requireExp) {
    throw new RejectedError('ERR_TOKEN_EXP')
  }
  checkValidity(payload, nowSeconds, config.clockToleranceSeconds)

  if (!isIdentifier(jti)) {
    throw new RejectedError('ERR_TOKEN_JTI')
  }
  // §2.4: a present one of the wrong form never counts as absent, or a session's logout would widen to its subject's.
  const sid = 'sid' in payload ? payload.sid : undefined
  const subject = 'sub' in payload ? payload.sub : undefined
  if (('sid' in payload && !isIdentifier(sid)) || ('sub' in payload && !isIdentifier(subject))) {
    throw new RejectedError('ERR_TOKEN_SUBJECT')
  }
  if (sid === undefined && subject === undefined) {
    throw new RejectedError('ERR_TOKEN_SUBJECT')
  }
  if (
    !isObject(events) ||
    !Object.hasOwn(events, backChannelLogoutEvent) ||
    !isObject(events[backChannelLogoutEvent])
  ) {
    throw new RejectedError('ERR_TOKEN_EVENTS')
  }
  if ('nonce' in payload) {
    throw new RejectedError('ERR_TOKEN_NONCE')
  }
  return {
    issuer: issuer.issuer,
    clientId,
    jti,
    issuedAt: Math.floor(iat),
    sid: isIdentifier(sid) ? sid : undefined,
    subject: isIdentifier(subject) ? subject : undefined,
    config
  }
}

/** `exp` and `nbf`, where they are there; RFC 7519 §4.1.4 and §4.1.5. */
export function checkValidity(
  { exp, nbf }: Record<string, unknown>,
  nowSeconds: number,
  clockToleranceSeconds: number
): void {
  if (isTime(exp) && exp <= nowSeconds - clockToleranceSeconds) {
    throw new RejectedError('ERR_TOKEN_EXPIRED')
  }
  if (nbf !== undefined && !(isTime(nbf) && nbf <= nowSeconds + clockToleranceSeconds)) {
    throw new RejectedError('ERR_TOKEN_NBF')
  }
}

export function isTime(value: unknown): value is number {
  return typeof value === 'number' && value > 0 && value < maxSeconds
}

/** Whether a value can be a `sid`, `sub` or `jti`: non-empty, bounded, without control characters or half characters. */
export function isIdentifier(value: unknown): value is string {
  return (
    typeof value === 'string' &&
    value !== '' &&
    Buffer.byteLength(value) <= maxIdentifierBytes &&
    !/[\p{Cc}\p{Cs}]/u.test(value)
  )
}

/** @param hasKid a token without one may be signed by a key that is newer than ours; what else would tell? */
async function verifySignature(token: string, issuer: Issuer, at: number, hasKid: boolean): Promise<void> {
  let keys = await issuer.keys.current()
  for (;;) {
    const fault = await signatureFault(token, issuer, keys)
    if (fault === undefined) {
      return
    }
    if (fault.code !== 'ERR_TOKEN_KEY' && fault.code !== 'ERR_TOKEN_SIGNATURE') {
      throw fault
    }
    // Perhaps the keys were rotated, with a new `kid` or under the old one.
    const isKeyKnown = hasKid && fault.code === 'ERR_TOKEN_SIGNATURE'
    const newer = await issuer.keys.newerThan(keys, at, isKeyKnown ? 'signature' : 'key')
    if (newer === undefined) {
      throw fault
    }
    keys = newer
  }
}

async function signatureFault(token: string, issuer: Issuer, keys: KeySet): Promise<RejectedError | undefined> {
  const options = { algorithms: [...issuer.config.algorithms] }
  try {
    await compactVerify(token, keys(issuer.issuer), options)
    return undefined
  } catch (error) {
    if (error instanceof errors.JWKSMultipleMatchingKeys) {
      for await (const key of error) {
        try {
          await compactVerify(token, key, options)
          return undefined
        } catch (error) {
          rejection(error)
        }
      }
      return new RejectedError('ERR_TOKEN_SIGNATURE')
    }
    return rejection(error)
  }
}

/** Names the faults of the token; whatever is not listed is not the token's. */
function rejection(error: unknown): RejectedError {
  if (error instanceof errors.JWKSNoMatchingKey) {
    return new RejectedError('ERR_TOKEN_KEY', { cause: error })
  }
  if (error instanceof errors.JWSSignatureVerificationFailed) {
    return new RejectedError('ERR_TOKEN_SIGNATURE', { cause: error })
  }
  if (error instanceof errors.JWSInvalid) {
    return new RejectedError('ERR_TOKEN_MALFORMED', { cause: error })
  }
  if (error instanceof errors.JOSEAlgNotAllowed) {
    return new RejectedError('ERR_TOKEN_ALGORITHM', { cause: error })
  }
  // A key of the published set that cannot be used.
  throw new UnavailableError('ERR_KEYS_UNAVAILABLE', { cause: error })
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

import { type CryptoKey, compactVerify, errors } from 'jose'
import { hasDuplicateName } from './duplicate-name.ts'
import { RejectedError, type RejectionCode, type RejectionDetails, UnavailableError } from './errors.ts'
import type { KeySet } from './issuer-keys.ts'
import type { Issuer, Issuers } from './issuers.ts'
import { printable, printableClaim } from './printable.ts'
import { verifyRsa2048 } from './rsa-signature.ts'

/** A JWT that names an issuer we trust. Nothing of it is true before {@link verifySignature}. */
export interface Jwt {
  readonly raw: string
  readonly header: Readonly<Record<string, unknown>>
  readonly payload: Readonly<Record<string, unknown>>
  readonly issuer: Issuer
}

// Any issuer with any of them fits into a row of a PostgreSQL index, of 2,704 bytes.
const maxIdentifierBytes = 1_024
// Far beyond any real clock, and still exact as a double and a bigint.
const maxSeconds = 10_000_000_000

/**
 * Decodes a signed JWT and finds the issuer that it names. It costs no key and no look-up outside this process.
 *
 * @param raw the compact serialization, RFC 7515 §7.1
 * @param issuers whom we trust
 * @throws {RejectedError} if it is no signed JWT, or its issuer is not trusted
 */
export function readJwt(raw: string, issuers: Pick<Issuers, 'find' | 'hintsFor'>): Jwt {
  const parts = raw.split('.')
  if (parts.length === 5) {
    throw rejectionOf({}, 'ERR_TOKEN_ENCRYPTED') // RFC 7516 §7.1
  }
  const [encodedHeader, encodedPayload, signature] = parts
  if (parts.length !== 3 || !encodedHeader || !encodedPayload || !signature) {
    throw rejectionOf({}, 'ERR_TOKEN_MALFORMED')
  }
  const header = decodeObject(encodedHeader, {})
  const payload = decodeObject(encodedPayload, { header })
  const { iss } = payload
  if (!('iss' in payload)) {
    throw rejectionOf({ header, payload }, 'ERR_TOKEN_ISSUER_MISSING')
  }
  if (typeof iss !== 'string') {
    throw rejectionOf({ header, payload }, 'ERR_TOKEN_ISSUER_MALFORMED')
  }
  const issuer = issuers.find(iss)
  if (issuer === undefined) {
    const details = detailsOf({ header, payload })
    throw new RejectedError('ERR_TOKEN_ISSUER', { details, ...issuers.hintsFor(iss) })
  }
  return { raw, header, payload, issuer }
}

/**
 * OpenID Connect Back-Channel Logout 1.0 §2.6, step 1.
 *
 * @throws {RejectedError} if the issuer's tokens must be encrypted, and this one is not
 */
export function checkEncryption(jwt: Jwt, wasEncrypted: boolean): void {
  if (jwt.issuer.config.requireEncryption && !wasEncrypted) {
    throw rejectionOf(jwt, 'ERR_TOKEN_NOT_ENCRYPTED')
  }
}

/**
 * Checks the header by the issuer's policy: its algorithms, its types.
 *
 * @param types accepted `typ`, null for none; default the issuer's, which are those of logout tokens
 * @throws {RejectedError} if it is not accepted
 */
export function checkHeader(jwt: Jwt, types: readonly (string | null)[] = jwt.issuer.config.types): void {
  const { header, issuer } = jwt
  const { algorithms } = issuer.config
  if ('crit' in header) {
    throw rejectionOf(jwt, 'ERR_TOKEN_CRITICAL') // RFC 7515 §4.1.11: we understand none
  }
  if (!('alg' in header)) {
    throw rejectionOf(jwt, 'ERR_TOKEN_ALGORITHM_MISSING')
  }
  if (typeof header.alg !== 'string') {
    throw rejectionOf(jwt, 'ERR_TOKEN_ALGORITHM_MALFORMED')
  }
  if (!algorithms.includes(header.alg)) {
    throw rejectionOf(jwt, 'ERR_TOKEN_ALGORITHM')
  }
  if ('kid' in header && typeof header.kid !== 'string') {
    throw rejectionOf(jwt, 'ERR_TOKEN_KID_MALFORMED')
  }
  if (!('typ' in header)) {
    if (!types.includes(null)) {
      throw rejectionOf(jwt, 'ERR_TOKEN_TYPE_MISSING', { accepted: types })
    }
    return
  }
  const { typ } = header
  if (typeof typ !== 'string') {
    throw rejectionOf(jwt, 'ERR_TOKEN_TYPE_MALFORMED', { accepted: types })
  }
  if (!types.some((type) => type !== null && normalizeType(type) === normalizeType(typ))) {
    throw rejectionOf(jwt, 'ERR_TOKEN_TYPE', { accepted: types })
  }
}

/**
 * The client id of ours that the token is for; RFC 7519 §4.1.3.
 *
 * @throws {RejectedError} if it is for none of them
 */
export function checkAudience(jwt: Jwt, accepted: readonly string[]): string {
  const { aud } = jwt.payload
  if (!('aud' in jwt.payload)) {
    throw rejectionOf(jwt, 'ERR_TOKEN_AUDIENCE_MISSING', { accepted })
  }
  const audiences: readonly unknown[] = Array.isArray(aud) ? aud : [aud]
  if (!audiences.every((audience) => typeof audience === 'string')) {
    throw rejectionOf(jwt, 'ERR_TOKEN_AUDIENCE_MALFORMED', { accepted })
  }
  const own = accepted.find((id) => audiences.includes(id))
  if (own === undefined) {
    const other = audiences.map((audience) => jwt.issuer.otherOf?.(audience)).find((name) => name !== undefined)
    const hint = other === undefined ? undefined : `is a client id of "${other}"`
    throw rejectionOf(jwt, 'ERR_TOKEN_AUDIENCE', { accepted, hint })
  }
  return own
}

/**
 * `iat`, in whole seconds since 1970; RFC 7519 §4.1.6.
 *
 * @param at when the token arrived, milliseconds since 1970
 * @throws {RejectedError} if it is missing, not a time, or further in the future than clocks may be apart
 */
export function checkIssuedAt(jwt: Jwt, at: number): number {
  const { iat } = jwt.payload
  if (!('iat' in jwt.payload)) {
    throw rejectionOf(jwt, 'ERR_TOKEN_IAT_MISSING')
  }
  if (!isTime(iat)) {
    throw rejectionOf(jwt, 'ERR_TOKEN_IAT_MALFORMED')
  }
  if (iat > at / 1_000 + jwt.issuer.config.clockToleranceSeconds) {
    throw rejectionOf(jwt, 'ERR_TOKEN_IAT_FUTURE', { at })
  }
  return Math.floor(iat)
}

/**
 * Checks the age by `iat`.
 *
 * @param at when the token arrived, milliseconds since 1970
 * @throws {RejectedError} if the issuer's tokens must be younger
 */
export function checkAge(jwt: Jwt, issuedAt: number, at: number): void {
  const { maxTokenAgeSeconds, clockToleranceSeconds } = jwt.issuer.config
  if (issuedAt < at / 1_000 - maxTokenAgeSeconds - clockToleranceSeconds) {
    throw rejectionOf(jwt, 'ERR_TOKEN_TOO_OLD', { at })
  }
}

/**
 * Checks `exp` and `nbf`; RFC 7519 §4.1.4 and §4.1.5.
 *
 * @param at when the token arrived, milliseconds since 1970
 * @param options.requireExp whether a token without `exp` is rejected
 * @throws {RejectedError} if it is not valid at that time
 */
export function checkValidity(jwt: Jwt, at: number, { requireExp }: { readonly requireExp: boolean }): void {
  const { payload, issuer } = jwt
  const { exp, nbf } = payload
  const seconds = at / 1_000
  const tolerance = issuer.config.clockToleranceSeconds
  if (!('exp' in payload) && requireExp) {
    throw rejectionOf(jwt, 'ERR_TOKEN_EXP_MISSING')
  }
  if ('exp' in payload && !isTime(exp)) {
    throw rejectionOf(jwt, 'ERR_TOKEN_EXP_MALFORMED')
  }
  if (isTime(exp) && exp <= seconds - tolerance) {
    throw rejectionOf(jwt, 'ERR_TOKEN_EXPIRED', { at })
  }
  if ('nbf' in payload && !isTime(nbf)) {
    throw rejectionOf(jwt, 'ERR_TOKEN_NBF_MALFORMED')
  }
  if (isTime(nbf) && nbf > seconds + tolerance) {
    throw rejectionOf(jwt, 'ERR_TOKEN_NBF_FUTURE', { at })
  }
}

const identifierCodes = {
  jti: { malformed: 'ERR_TOKEN_JTI_MALFORMED', tooLong: 'ERR_TOKEN_JTI_TOO_LONG' },
  sid: { malformed: 'ERR_TOKEN_SID_MALFORMED', tooLong: 'ERR_TOKEN_SID_TOO_LONG' },
  sub: { malformed: 'ERR_TOKEN_SUB_MALFORMED', tooLong: 'ERR_TOKEN_SUB_TOO_LONG' }
} as const

/**
 * A claim that identifies something, or undefined if the token does not have it.
 *
 * @throws {RejectedError} if it has the wrong form: that never counts as absent, or a session's logout would widen to its subject's
 */
export function checkIdentifier(jwt: Jwt, claim: keyof typeof identifierCodes): string | undefined {
  if (!(claim in jwt.payload)) {
    return undefined
  }
  const value = jwt.payload[claim]
  if (isIdentifier(value)) {
    return value
  }
  const isTooLong = typeof value === 'string' && Buffer.byteLength(value) > maxIdentifierBytes
  throw rejectionOf(jwt, identifierCodes[claim][isTooLong ? 'tooLong' : 'malformed'])
}

/**
 * Verifies the signature, by the keys that the issuer has published until the token arrived. It comes last: all else
 * costs less.
 *
 * @param at when the token arrived, milliseconds since 1970
 * @throws {RejectedError} if no key of the issuer made it
 * @throws {UnavailableError} if the issuer may have published the key, and its keys are out of reach
 */
export async function verifySignature(jwt: Jwt, at: number): Promise<void> {
  const { keys } = jwt.issuer
  let known = await keys.current()
  for (;;) {
    const fault = await signatureFault(jwt, known)
    if (fault === undefined) {
      return
    }
    // Perhaps the keys were rotated, with a new `kid` or under the old one. A token without a `kid` may be signed by a key
    // that is newer than ours.
    const isKeyKnown = 'kid' in jwt.header && fault.code === 'ERR_TOKEN_SIGNATURE'
    const newer = await keys.newerThan(known, at, isKeyKnown ? 'signature' : 'key')
    if (newer === undefined) {
      throw fault
    }
    known = newer
  }
}

/** Whether the issuer is still trusted in the same way: while something was waited for, its configuration may have changed. */
export function isInForce({ issuer, config }: Issuer, issuers: Pick<Issuers, 'find'>): boolean {
  return issuers.find(issuer)?.config === config
}

/** Whether a value can be a time in seconds since 1970. */
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

export function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

/** What is known of a rejection beside its code. */
export interface RejectionFacts {
  /** When the token arrived, milliseconds since 1970. */
  readonly at?: number
  readonly cause?: unknown
  /** What is accepted in place of what is at fault, null for none; default as the issuer's configuration says. */
  readonly accepted?: readonly (string | null)[]
  /** The likeliest mistake. */
  readonly hint?: string | undefined
}

/**
 * The error for a token, with what is known of it: the issuer's name, and what an operator needs to find the cause.
 *
 * @param options.at when it arrived, milliseconds since 1970, if its age is at fault
 */
export function rejectionOf(
  jwt: Partial<Jwt>,
  code: RejectionCode,
  { at, cause, accepted, hint }: RejectionFacts = {}
): RejectedError {
  const { issuer } = jwt
  return new RejectedError(code, {
    issuer: issuer?.config.name,
    details: { ...detailsOf(jwt), ...timesOf(jwt, code, at), ...eventsOf(jwt, code) },
    accepted: accepted === undefined ? issuer && acceptedOf(issuer, code) : listAccepted(accepted),
    hint,
    ...(cause === undefined ? {} : { cause })
  })
}

function detailsOf({ header = {}, payload = {} }: Partial<Jwt>): RejectionDetails {
  const { typ, alg, enc, kid } = header
  const { iss, aud } = payload
  const present = Object.entries({ iss, aud, typ, alg, enc, kid }).filter(([, value]) => value !== undefined)
  return Object.fromEntries(present.map(([name, value]) => [name, printableClaim(value)]))
}

/** Times in seconds until it arrived; what is no time, as it is. */
function timesOf({ payload = {} }: Partial<Jwt>, code: RejectionCode, at: number | undefined): RejectionDetails {
  const [, claim = ''] = /^ERR_TOKEN_(IAT|EXP|NBF)_MALFORMED$/.exec(code) ?? []
  if (claim !== '') {
    return { [claim.toLowerCase()]: printableClaim(payload[claim.toLowerCase()]) }
  }
  if (at === undefined) {
    return {}
  }
  const { iat, exp } = payload
  const since = (time: number) => `${Math.round(at / 1_000 - time)} s`
  return {
    ...(isTime(iat) && { age: since(iat) }),
    ...(isTime(exp) && code === 'ERR_TOKEN_EXPIRED' && { expired: `${since(exp)} ago` })
  }
}

function eventsOf({ payload = {} }: Partial<Jwt>, code: RejectionCode): RejectionDetails {
  const { events } = payload
  return code === 'ERR_TOKEN_EVENTS' && isObject(events) ? { events: printableClaim(Object.keys(events)) } : {}
}

const maxAcceptedLength = 500

function listAccepted(values: readonly (string | null)[]): string {
  return printable(
    values.map((value) => value ?? 'none'),
    maxAcceptedLength
  )
}

/** What the issuer's configuration accepts in place of what is at fault. */
function acceptedOf({ config, keys }: Issuer, code: RejectionCode): string | undefined {
  const { algorithms, maxTokenAgeSeconds, clockToleranceSeconds, requireExp } = config
  const tolerance = `${clockToleranceSeconds} s between the clocks`
  if (code.startsWith('ERR_TOKEN_ALGORITHM')) {
    return listAccepted(algorithms)
  }
  switch (code) {
    case 'ERR_TOKEN_KEY':
      return `kid ${listAccepted(keys.status().kids)}`
    case 'ERR_TOKEN_TOO_OLD':
      return `${maxTokenAgeSeconds} s, and ${tolerance}`
    case 'ERR_TOKEN_EXPIRED':
    case 'ERR_TOKEN_IAT_FUTURE':
    case 'ERR_TOKEN_NBF_FUTURE':
      return tolerance
    case 'ERR_TOKEN_EXP_MISSING':
      return `"requireExp": ${requireExp}`
    case 'ERR_TOKEN_EVENTS':
      return 'http://schemas.openid.net/event/backchannel-logout'
    default:
      return undefined
  }
}

const utf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true })

/**
 * Decodes a part of a token that is a JSON object.
 *
 * @param known what is known of the token already, for the error
 * @throws {RejectedError} if it is none, or bears a name twice
 */
export function decodeObject(part: string, known: Partial<Jwt>): Record<string, unknown> {
  // RFC 7515 §2: base64url without padding, line breaks or other characters; Buffer would overlook them.
  if (!/^[A-Za-z0-9_-]+$/.test(part)) {
    throw rejectionOf(known, 'ERR_TOKEN_MALFORMED')
  }
  let json: string
  let value: unknown
  try {
    json = utf8.decode(Buffer.from(part, 'base64url'))
    value = JSON.parse(json)
  } catch {
    throw rejectionOf(known, 'ERR_TOKEN_MALFORMED') // without the cause, which quotes the token
  }
  if (!isObject(value)) {
    throw rejectionOf(known, 'ERR_TOKEN_MALFORMED')
  }
  if (hasDuplicateName(json, value)) {
    throw rejectionOf(known, 'ERR_TOKEN_DUPLICATE_KEY')
  }
  return value
}

/** The JSON object that a text is; undefined if it is none, or an object in it bears a name twice. */
export function parseObject(json: string): Record<string, unknown> | undefined {
  try {
    const value: unknown = JSON.parse(json)
    return isObject(value) && !hasDuplicateName(json, value) ? value : undefined
  } catch {
    return undefined
  }
}

// RFC 7515 §4.1.9: media types compare without case, and `application/` may be left out where no other slash is.
function normalizeType(type: string): string {
  return (type.includes('/') ? type : `application/${type}`).toLowerCase()
}

/** Why no key made the signature; undefined if one did. */
async function signatureFault(jwt: Jwt, keys: KeySet): Promise<RejectedError | undefined> {
  const { alg, kid } = jwt.header
  const pick = keys(jwt.issuer.issuer)
  let key: CryptoKey
  try {
    key = await pick({ alg: String(alg), ...(typeof kid === 'string' && { kid }) })
  } catch (error) {
    if (!(error instanceof errors.JWKSMultipleMatchingKeys)) {
      return faultOf(jwt, error)
    }
    for await (const candidate of error) {
      if ((await faultOfSignatureBy(jwt, candidate)) === undefined) {
        return undefined
      }
    }
    return rejectionOf(jwt, 'ERR_TOKEN_SIGNATURE')
  }
  return faultOfSignatureBy(jwt, key)
}

/** jose checks it, but for what takes longer to hand over than to check. */
async function faultOfSignatureBy(jwt: Jwt, key: CryptoKey): Promise<RejectedError | undefined> {
  const { raw, header, issuer } = jwt
  const { alg } = header
  const { algorithms } = issuer.config
  const isGenuine =
    typeof alg === 'string' && algorithms.includes(alg) && !('crit' in header)
      ? verifyRsa2048(raw, alg, key)
      : undefined
  if (isGenuine !== undefined) {
    return isGenuine ? undefined : rejectionOf(jwt, 'ERR_TOKEN_SIGNATURE')
  }
  try {
    await compactVerify(raw, key, { algorithms: [...algorithms] })
    return undefined
  } catch (error) {
    return faultOf(jwt, error)
  }
}

/**
 * The fault of the token for an error of jose.
 *
 * @throws {RejectedError} if no other key can mend it
 * @throws {UnavailableError} if it is not the token's: a published key cannot be used
 */
function faultOf(jwt: Jwt, error: unknown): RejectedError {
  if (error instanceof errors.JWKSNoMatchingKey) {
    return rejectionOf(jwt, 'ERR_TOKEN_KEY', { cause: error })
  }
  if (error instanceof errors.JWSSignatureVerificationFailed) {
    return rejectionOf(jwt, 'ERR_TOKEN_SIGNATURE', { cause: error })
  }
  if (error instanceof errors.JWSInvalid) {
    throw rejectionOf(jwt, 'ERR_TOKEN_MALFORMED', { cause: error })
  }
  if (error instanceof errors.JOSEAlgNotAllowed) {
    throw rejectionOf(jwt, 'ERR_TOKEN_ALGORITHM', { cause: error })
  }
  throw new UnavailableError('ERR_KEYS_UNAVAILABLE', { issuer: jwt.issuer.config.name, cause: error })
}

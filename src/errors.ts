/** Why a request is rejected; the key is the error's `code`, the text is the answer's `error_description`. */
const rejections = {
  ERR_REQUEST_PATH: 'there is nothing at this path',
  ERR_REQUEST_METHOD: 'the method is not the one that is allowed here',
  ERR_REQUEST_TOO_LONG: 'the body is too large',
  ERR_REQUEST_FORM: 'the body must be application/x-www-form-urlencoded',
  ERR_REQUEST_TOKEN_MISSING: 'the form has no "logout_token"',
  ERR_REQUEST_TOKEN_TWICE: 'the form has more than one "logout_token"',
  ERR_REQUEST_SID_MISSING: 'the query has no "sid"',
  ERR_REQUEST_SID_MALFORMED: 'the "sid" of the query is empty, given twice, or not printable',
  ERR_REQUEST_SID_TOO_LONG: 'the "sid" of the query is too long',
  ERR_REQUEST_ISS_MISSING: 'several issuers are configured: name one in the path, or as the "iss" of the query',
  ERR_REQUEST_ISS_MALFORMED: 'the "iss" of the query is empty, given twice, or not printable',
  ERR_REQUEST_ISS: 'the "iss" of the query is not trusted',
  ERR_REQUEST_ISS_DIFFERS: 'the "iss" of the query is not that of the issuer in the path',
  ERR_REQUEST_ISSUER_NAME: 'the issuer in the path is not configured',
  ERR_REQUEST_FRONT_CHANNEL_OFF: 'front-channel calls of this issuer are turned off',
  ERR_REQUEST_AUTHORIZATION: 'the request has no bearer token',
  ERR_REQUEST_JSON: 'the body must be a JSON object',
  ERR_REQUEST_SUBJECT_MISSING: 'the body has no "sub_id"',
  ERR_REQUEST_SUBJECT_MALFORMED: 'the "sub_id" of the body is not a subject identifier',
  ERR_REQUEST_SUBJECT_FORMAT: 'the "format" of the "sub_id" is not one of iss_sub, opaque and email',
  ERR_REQUEST_SUBJECT_ISSUER: 'the "iss" of the "sub_id" is another issuer',
  ERR_REQUEST_STREAM: 'no stream of this name is pushed here',
  ERR_REQUEST_STREAM_AUTHORIZATION: 'the "Authorization" header is not the one that the stream was given',
  ERR_SET_TOO_LONG: 'the security event token is too long',
  ERR_SET_SUB: 'the security event token has a "sub", which it must not have',
  ERR_SET_EXP: 'the security event token has an "exp", which it must not have',
  ERR_SET_JTI: 'the "jti" of the security event token is not the one that it was delivered under',
  ERR_SET_EVENTS: 'the "events" of the security event token are empty',
  ERR_SET_SUBJECT_MISSING: 'the security event token names no subject',
  ERR_SET_SUBJECT_MALFORMED: 'the subject of the security event token is not a subject identifier',
  ERR_SET_STREAM: 'the security event token is about another stream',
  ERR_SET_STATE: 'the "state" of the verification event was not asked for',
  ERR_TOKEN_MALFORMED: 'the token is not a signed JWT',
  ERR_TOKEN_ENCRYPTED: 'the token is encrypted, and we have no key to decrypt it',
  ERR_TOKEN_NOT_ENCRYPTED: 'the token is not encrypted, as those of its issuer must be',
  ERR_TOKEN_ENCRYPTION_TOO_LONG: 'the encrypted token or its header is too long',
  ERR_TOKEN_ENCRYPTION_HEADER: 'the header of the encrypted token has a member that is not accepted',
  ERR_TOKEN_ENCRYPTION_ALGORITHM: 'the "alg" or the "enc" of the encrypted token is not accepted',
  ERR_TOKEN_ENCRYPTION_KEY: 'the "kid" of the encrypted token names no key of ours',
  ERR_TOKEN_ENCRYPTION_NESTED: 'the token is encrypted twice',
  ERR_TOKEN_DECRYPTION: 'the token cannot be decrypted by our keys',
  ERR_TOKEN_DUPLICATE_KEY: 'a name stands twice in the header or the payload of the token',
  ERR_TOKEN_CRITICAL: 'the token has a critical header that is not understood',
  ERR_TOKEN_ALGORITHM_MISSING: 'the token has no "alg"',
  ERR_TOKEN_ALGORITHM_MALFORMED: 'the "alg" of the token is not a string',
  ERR_TOKEN_ALGORITHM: 'the "alg" of the token is not accepted',
  ERR_TOKEN_KID_MALFORMED: 'the "kid" of the token is not a string',
  ERR_TOKEN_TYPE_MISSING: 'the token has no "typ", and a token without one is not accepted',
  ERR_TOKEN_TYPE_MALFORMED: 'the "typ" of the token is not a string',
  ERR_TOKEN_TYPE: 'the "typ" of the token is not accepted',
  ERR_TOKEN_ISSUER_MISSING: 'the token has no "iss"',
  ERR_TOKEN_ISSUER_MALFORMED: 'the "iss" of the token is not a string',
  ERR_TOKEN_ISSUER: 'the "iss" of the token is not trusted',
  ERR_TOKEN_AUDIENCE_MISSING: 'the token has no "aud"',
  ERR_TOKEN_AUDIENCE_MALFORMED: 'the "aud" of the token is neither a string nor an array of strings',
  ERR_TOKEN_AUDIENCE: 'the "aud" of the token names none of our clients',
  ERR_TOKEN_IAT_MISSING: 'the token has no "iat"',
  ERR_TOKEN_IAT_MALFORMED: 'the "iat" of the token is not a time in seconds since 1970',
  ERR_TOKEN_IAT_FUTURE: 'the "iat" of the token is in the future',
  ERR_TOKEN_TOO_OLD: 'the token was issued too long ago',
  ERR_TOKEN_EXP_MISSING: 'the token has no "exp"',
  ERR_TOKEN_EXP_MALFORMED: 'the "exp" of the token is not a time in seconds since 1970',
  ERR_TOKEN_EXPIRED: 'the token has expired',
  ERR_TOKEN_NBF_MALFORMED: 'the "nbf" of the token is not a time in seconds since 1970',
  ERR_TOKEN_NBF_FUTURE: 'the "nbf" of the token is in the future',
  ERR_TOKEN_JTI_MISSING: 'the token has no "jti"',
  ERR_TOKEN_JTI_MALFORMED: 'the "jti" of the token is not a printable string, or empty',
  ERR_TOKEN_JTI_TOO_LONG: 'the "jti" of the token is too long',
  ERR_TOKEN_SID_MALFORMED: 'the "sid" of the token is not a printable string, or empty',
  ERR_TOKEN_SID_TOO_LONG: 'the "sid" of the token is too long',
  ERR_TOKEN_SUB_MALFORMED: 'the "sub" of the token is not a printable string, or empty',
  ERR_TOKEN_SUB_TOO_LONG: 'the "sub" of the token is too long',
  ERR_TOKEN_SUBJECT_MISSING: 'the token names nobody: it needs a "sub" or a "sid"',
  ERR_TOKEN_EVENTS_MISSING: 'the token has no "events"',
  ERR_TOKEN_EVENTS_MALFORMED: 'the "events" of the token, or the event in it, is not an object',
  ERR_TOKEN_EVENTS: 'the "events" of the token lack the back-channel logout event',
  ERR_TOKEN_NONCE: 'the token has a "nonce", which a logout token must not have',
  ERR_TOKEN_KEY: 'no key of the issuer fits the token',
  ERR_TOKEN_SIGNATURE: 'the signature of the token does not verify'
} as const

export type RejectionCode = keyof typeof rejections

const policyCodes: ReadonlySet<RejectionCode> = new Set<RejectionCode>([
  'ERR_REQUEST_ISS',
  'ERR_REQUEST_ISS_MISSING',
  'ERR_REQUEST_ISS_DIFFERS',
  'ERR_REQUEST_ISSUER_NAME',
  'ERR_REQUEST_FRONT_CHANNEL_OFF',
  'ERR_TOKEN_ENCRYPTED',
  'ERR_TOKEN_NOT_ENCRYPTED',
  'ERR_TOKEN_ENCRYPTION_ALGORITHM',
  'ERR_TOKEN_ENCRYPTION_KEY',
  'ERR_TOKEN_DECRYPTION',
  'ERR_TOKEN_ALGORITHM',
  'ERR_TOKEN_TYPE_MISSING',
  'ERR_TOKEN_TYPE',
  'ERR_TOKEN_ISSUER',
  'ERR_TOKEN_AUDIENCE',
  'ERR_TOKEN_TOO_OLD',
  'ERR_TOKEN_EXP_MISSING'
])

/** What is wrong with a rejected signal, or with our surroundings, in a sentence. */
export function describeCode(code: RejectionCode | OutageCode): string {
  return { ...rejections, ...outages }[code]
}

/** Whether another configuration would accept the same. */
export function isOfPolicy(code: RejectionCode): boolean {
  return policyCodes.has(code)
}

/**
 * What a rejected signal says of itself: each at most 200 characters, with control characters escaped, and without anything that
 * looks like a token. Nothing of it is true.
 */
export interface RejectionDetails {
  readonly iss?: string
  readonly aud?: string
  readonly typ?: string
  readonly alg?: string
  readonly enc?: string
  readonly kid?: string
  /** By `iat`, when it arrived; negative if it lies in the future. */
  readonly age?: string
  /** How long ago it had expired. */
  readonly expired?: string
  /** Those that are not times in seconds, as they are. */
  readonly iat?: string
  readonly exp?: string
  readonly nbf?: string
  /** The names of the events in it. */
  readonly events?: string
  /** Of a front-channel call: the issuer's name in the path. */
  readonly name?: string
  /** Of a request that leads nowhere: its method, and its path without the query. */
  readonly method?: string
  readonly path?: string
}

export interface RejectionOptions extends ErrorOptions {
  /** The name of the configured issuer that the request names. */
  readonly issuer?: string | undefined
  readonly details?: RejectionDetails
  /** What is accepted in place of the offending value, of the configuration. */
  readonly accepted?: string | undefined
  /** The likeliest mistake. */
  readonly hint?: string | undefined
}

/** The sender's fault: answered by 400. The message is fixed for each code and quotes nothing of the token. */
export class RejectedError extends Error {
  readonly code: RejectionCode
  /** The name of the configured issuer that the request names; undefined as long as none is known. */
  readonly issuer: string | undefined
  /** For operators alone, never for the answer; as what follows. */
  readonly details: RejectionDetails
  /** What is accepted in place of the offending value; undefined if nothing of the kind is configured. */
  readonly accepted: string | undefined
  /** The likeliest mistake, if one is likely. */
  readonly hint: string | undefined

  constructor(code: RejectionCode, options: RejectionOptions = {}) {
    super(rejections[code], options)
    this.name = 'RejectedError'
    this.code = code
    this.issuer = options.issuer
    this.details = options.details ?? {}
    this.accepted = options.accepted
    this.hint = options.hint
  }
}

const outages = {
  ERR_DATABASE_UNAVAILABLE: 'the database is out of reach',
  ERR_DATABASE_FAILED: 'the database rejected the transaction',
  ERR_DATABASE_LOCKED: 'somebody holds a lock on what is to be deleted',
  ERR_DATABASE_TIMEOUT: 'the transaction took longer than its time limit',
  ERR_DATABASE_CONFLICT: 'the transaction lost against another one',
  ERR_KEYS_UNAVAILABLE: 'the keys of the issuer are out of reach',
  ERR_DIRECTORY_UNAVAILABLE: 'the directory of the issuer cannot be asked',
  ERR_LARGE: 'it ends more than others can wait for: it is done alone, in steps',
  ERR_STREAM_UNKNOWN: 'what the transmitter calls us on this stream is not known yet',
  ERR_WORKERS: 'no process answers the public listener now',
  ERR_BUSY: 'too much that is unsigned waits',
  ERR_DEADLINE: 'the sign-out was not done in time'
} as const

export type OutageCode = keyof typeof outages

/** Our surroundings' fault: answered by 503, and worth another try. */
export class UnavailableError extends Error {
  readonly code: OutageCode
  /** The name of the configured issuer that the request names; undefined as long as none is known. */
  readonly issuer: string | undefined

  constructor(code: OutageCode, options: ErrorOptions & { readonly issuer?: string | undefined } = {}) {
    super(outages[code], options)
    this.name = 'UnavailableError'
    this.code = code
    this.issuer = options.issuer
  }
}

const directoryFaults = {
  ERR_DIRECTORY_UNREACHABLE: 'the directory is out of reach',
  ERR_DIRECTORY_THROTTLED: 'the directory asks for a pause',
  ERR_DIRECTORY_CREDENTIAL_FILE: 'a file of the credential cannot be used',
  ERR_DIRECTORY_CREDENTIAL: 'the directory does not accept the credential',
  ERR_DIRECTORY_CREDENTIAL_EXPIRED: 'the credential has expired',
  ERR_DIRECTORY_TENANT: 'this cloud has no such tenant',
  ERR_DIRECTORY_CLIENT: 'the tenant has no such client id',
  ERR_DIRECTORY_CLOUD: 'the tenant or the client id belongs to another cloud',
  ERR_DIRECTORY_CONSENT: 'no administrator has consented to User.Read.All',
  ERR_DIRECTORY_REQUEST: 'the directory rejected the request',
  ERR_DIRECTORY_ANSWER: 'the directory answered with something else',
  ERR_DIRECTORY_INCOMPLETE: 'the directory did not answer for some accounts',
  ERR_DIRECTORY_UNCOMMITTED: 'some sign-outs are not committed yet',
  ERR_DIRECTORY_LEASE: 'another instance watches the directory now'
} as const

export type DirectoryErrorCode = keyof typeof directoryFaults

export interface DirectoryErrorOptions extends ErrorOptions {
  /** What the directory calls it, cut; for operators. */
  readonly detail?: string | undefined
  /** How long it asks to be left alone, in milliseconds. */
  readonly retryAfterMs?: number | undefined
}

/** A directory could not be watched. Nothing is lost: the next round sees the same again. */
export class DirectoryError extends Error {
  readonly code: DirectoryErrorCode
  /** What the directory calls it, cut; for operators. */
  readonly detail: string | undefined
  /** How long it asks to be left alone, in milliseconds. */
  readonly retryAfterMs: number | undefined

  constructor(code: DirectoryErrorCode, options: DirectoryErrorOptions = {}) {
    super(directoryFaults[code], options)
    this.name = 'DirectoryError'
    this.code = code
    this.detail = options.detail
    this.retryAfterMs = options.retryAfterMs
  }
}

const streamFaults = {
  ERR_STREAM_UNREACHABLE: 'the transmitter is out of reach',
  ERR_STREAM_THROTTLED: 'the transmitter asks for a pause',
  ERR_STREAM_CREDENTIAL_FILE: 'a file of the credential cannot be used',
  ERR_STREAM_CREDENTIAL: 'the transmitter does not accept the credential',
  ERR_STREAM_FORBIDDEN: 'the credential may not manage or read the stream',
  ERR_STREAM_METADATA: 'the metadata of the transmitter are of no use',
  ERR_STREAM_ISSUER: 'the transmitter names another issuer',
  ERR_STREAM_DELIVERY: 'the transmitter does not deliver in the way that is configured',
  ERR_STREAM_MISSING: 'the transmitter has no such stream',
  ERR_STREAM_REQUEST: 'the transmitter rejected the request',
  ERR_STREAM_ANSWER: 'the transmitter answered with something else',
  ERR_STREAM_UNCOMMITTED: 'some security events are not committed yet',
  ERR_STREAM_LEASE: 'another instance has the stream now'
} as const

export type StreamErrorCode = keyof typeof streamFaults

/** A stream could not be polled or managed. Nothing is lost: what was not acknowledged comes again. */
export class StreamError extends Error {
  readonly code: StreamErrorCode
  /** What the transmitter calls it, cut; for operators. */
  readonly detail: string | undefined
  /** How long it asks to be left alone, in milliseconds. */
  readonly retryAfterMs: number | undefined

  constructor(code: StreamErrorCode, options: DirectoryErrorOptions = {}) {
    super(streamFaults[code], options)
    this.name = 'StreamError'
    this.code = code
    this.detail = options.detail
    this.retryAfterMs = options.retryAfterMs
  }
}

/** The configuration's fault: every problem found, each naming its variable. */
export class ConfigurationError extends Error {
  readonly code = 'ERR_CONFIGURATION'
  readonly problems: readonly string[]

  constructor(problems: readonly string[]) {
    super(
      `the configuration has ${problems.length === 1 ? 'a problem' : `${problems.length} problems`}:\n${problems.map((p) => `  ${p}`).join('\n')}`
    )
    this.name = 'ConfigurationError'
    this.problems = problems
  }
}

/** Why a logout token is refused; the key is the error's `code`, the text is the answer's `error_description`. */
const rejections = {
  ERR_REQUEST_FORM: 'the body must be application/x-www-form-urlencoded with one "logout_token"',
  ERR_REQUEST_QUERY: 'the query must have one "sid", and one "iss" unless the path names the issuer',
  ERR_TOKEN_MALFORMED: 'the logout token is not a signed JWT',
  ERR_TOKEN_ENCRYPTED: 'encrypted logout tokens are not supported',
  ERR_TOKEN_DUPLICATE_KEY: 'a name stands twice in the header or the payload of the logout token',
  ERR_TOKEN_CRITICAL: 'the logout token has a critical header that is not understood',
  ERR_TOKEN_ALGORITHM: 'the "alg" of the logout token is not accepted',
  ERR_TOKEN_TYPE: 'the "typ" of the logout token is not accepted',
  ERR_TOKEN_ISSUER: 'the "iss" of the logout token is not trusted',
  ERR_TOKEN_AUDIENCE: 'the "aud" of the logout token names none of our clients',
  ERR_TOKEN_IAT: 'the "iat" of the logout token is missing, not a time, or in the future',
  ERR_TOKEN_TOO_OLD: 'the logout token was issued too long ago',
  ERR_TOKEN_EXP: 'the "exp" of the logout token is missing or not a time',
  ERR_TOKEN_EXPIRED: 'the logout token has expired',
  ERR_TOKEN_NBF: 'the logout token is not valid yet',
  ERR_TOKEN_JTI: 'the "jti" of the logout token is missing or not acceptable',
  ERR_TOKEN_SUBJECT: 'the logout token needs a "sub" or a "sid", each a non-empty printable string',
  ERR_TOKEN_EVENTS: 'the "events" of the logout token lack the back-channel logout event',
  ERR_TOKEN_NONCE: 'a logout token must not have a "nonce"',
  ERR_TOKEN_KEY: 'no key of the issuer fits the logout token',
  ERR_TOKEN_SIGNATURE: 'the signature of the logout token does not verify'
} as const

export type RejectionCode = keyof typeof rejections

/** The sender's fault: answered by 400. The message is fixed for each code and quotes nothing of the token. */
export class RejectedError extends Error {
  readonly code: RejectionCode

  constructor(code: RejectionCode, options?: ErrorOptions) {
    super(rejections[code], options)
    this.name = 'RejectedError'
    this.code = code
  }
}

const outages = {
  ERR_DATABASE_UNAVAILABLE: 'the database is out of reach',
  ERR_DATABASE_FAILED: 'the database refused the transaction',
  ERR_DATABASE_CONFLICT: 'the transaction lost against another one',
  ERR_KEYS_UNAVAILABLE: 'the keys of the issuer are out of reach',
  ERR_DEADLINE: 'the sign-out was not done in time'
} as const

/** Our surroundings' fault: answered by 503, and worth another try. */
export class UnavailableError extends Error {
  readonly code: keyof typeof outages

  constructor(code: keyof typeof outages, options?: ErrorOptions) {
    super(outages[code], options)
    this.name = 'UnavailableError'
    this.code = code
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

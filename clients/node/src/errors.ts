/**
 * The session or the account was signed out: the tokens are not stored, and the app ends its own session.
 * Rejects a login or a refresh that lost against a sign-out, and `request.token()` where only a new sign-in helps.
 */
export class SignedOutError extends Error {
  readonly code = 'ERR_SIGNED_OUT'
  /** What Express, Fastify and NestJS answer where the app does not handle it. */
  readonly status = 401
  readonly statusCode = 401
  readonly expose = true

  constructor(options?: ErrorOptions) {
    super('the user was signed out; end the session of this app and sign in again', options)
    this.name = 'SignedOutError'
  }
}

/** A mistake in the use of the token cache, or in its set-up; the message says what to do instead. */
export class TokenCacheMisuseError extends Error {
  readonly code = 'ERR_TOKEN_CACHE_MISUSE'

  constructor(message: string, options?: ErrorOptions) {
    super(message, options)
    this.name = 'TokenCacheMisuseError'
  }
}

/** More than 16 MiB of tokens for one account: nothing is stored, since nobody could read it back. */
export class TokenCacheTooLargeError extends Error {
  readonly code = 'ERR_TOKEN_CACHE_TOO_LARGE'

  constructor(bytes: number, maxBytes: number) {
    super(`the cache of one account would have ${bytes} bytes, and at most ${maxBytes} can be stored`)
    this.name = 'TokenCacheTooLargeError'
  }
}

export interface TokenCacheDatabaseErrorOptions extends ErrorOptions {
  /** Whether the database may be back in a moment; else the statement is at fault. */
  readonly isUnavailable: boolean
}

/** The database could not be reached, took too long, or failed. */
export class TokenCacheDatabaseError extends Error {
  readonly code = 'ERR_TOKEN_CACHE_DATABASE'
  readonly isUnavailable: boolean
  /** What Express, Fastify and NestJS answer where the app does not handle it. */
  readonly status: number
  readonly statusCode: number
  readonly expose = false

  constructor(message: string, { isUnavailable, ...options }: TokenCacheDatabaseErrorOptions) {
    super(message, options)
    this.name = 'TokenCacheDatabaseError'
    this.isUnavailable = isUnavailable
    this.status = isUnavailable ? 503 : 500
    this.statusCode = this.status
  }
}

/** The identity provider could not be reached, or failed: it may be back in a moment. */
export class ProviderUnavailableError extends Error {
  readonly code = 'ERR_PROVIDER_UNAVAILABLE'
  /** What Express, Fastify and NestJS answer where the app does not handle it. */
  readonly status = 503
  readonly statusCode = 503
  readonly expose = false

  constructor(message: string, options?: ErrorOptions) {
    super(message, options)
    this.name = 'ProviderUnavailableError'
  }
}

/** A sign-in that cannot be completed: the browser came to the callback by another way, or the provider said no. */
export class SignInFailedError extends Error {
  readonly code = 'ERR_SIGN_IN_FAILED'
  /** What Express, Fastify and NestJS answer where the app does not handle it. */
  readonly status = 400
  readonly statusCode = 400
  readonly expose = true

  constructor(reason: string, options?: ErrorOptions) {
    super(`the sign-in cannot be completed: ${reason}; begin again`, options)
    this.name = 'SignInFailedError'
  }
}

// Of MSAL: there is no account, there are no tokens, or the provider wants to see the user.
const signInCodes = new Set([
  'no_account_found',
  'no_account_in_silent_request',
  'no_tokens_found',
  'refresh_token_expired',
  'token_refresh_required',
  'bad_token',
  'invalid_grant',
  'interaction_required',
  'login_required',
  'consent_required'
])

const maxCauses = 5

/**
 * Whether nothing but a new sign-in helps: a login or a refresh that lost against a sign-out, and MSAL's own ways to say
 * so. It looks at names and codes, never at classes, of which an app may have two copies; and at causes.
 *
 * @param error what was thrown, of any kind
 */
export function isSignInRequired(error: unknown): boolean {
  let current = error
  for (let i = 0; i < maxCauses && typeof current === 'object' && current !== null; i += 1) {
    if ('code' in current && current.code === 'ERR_SIGNED_OUT') {
      return true
    }
    if ('name' in current && current.name === 'InteractionRequiredAuthError') {
      return true
    }
    if ('errorCode' in current && typeof current.errorCode === 'string' && signInCodes.has(current.errorCode)) {
      return true
    }
    current = 'cause' in current ? current.cause : undefined
  }
  return false
}

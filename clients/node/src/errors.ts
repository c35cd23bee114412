/**
 * The session or the account was signed out: the tokens are not stored, and the app ends its own session.
 * Rejects a login or a refresh that lost against a sign-out.
 */
export class SignedOutError extends Error {
  readonly code = 'ERR_SIGNED_OUT'

  constructor(options?: ErrorOptions) {
    super('the user was signed out; end the session of this app and sign in again', options)
    this.name = 'SignedOutError'
  }
}

/** A mistake in the use of the token cache; the message says what to do instead. */
export class TokenCacheMisuseError extends Error {
  readonly code = 'ERR_TOKEN_CACHE_MISUSE'

  constructor(message: string, options?: ErrorOptions) {
    super(message, options)
    this.name = 'TokenCacheMisuseError'
  }
}

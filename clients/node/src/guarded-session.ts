import { TokenCacheMisuseError } from './errors.ts'
import { isObject, memberOf } from './objects.ts'

/** Whose session is asked for: what the ID token said. */
export interface SessionQuery {
  /** `iss` */
  readonly issuer: string
  /** `sid`; without one the subject decides. */
  readonly sid?: string | null | undefined
  /** `sub` */
  readonly subject?: string | null | undefined
}

/**
 * What an app's own session must remember of the ID token: `iss`, `sid` and `sub`; or MSAL's account with its
 * `idTokenClaims`.
 */
export type GuardedSession =
  | SessionQuery
  | { readonly idTokenClaims?: { readonly iss?: string; readonly sid?: unknown; readonly sub?: string } | undefined }

/** @throws {TokenCacheMisuseError} where it tells of no session */
export function toQuery(session: GuardedSession): SessionQuery {
  if (hasIssuer(session)) {
    return session
  }
  const { iss, sid, sub } = (isObject(session) ? session.idTokenClaims : undefined) ?? {}
  if (iss === undefined) {
    throw new TokenCacheMisuseError(
      'a session is asked for by "issuer", "sid" and "subject": keep iss, sid and sub of the ID token, or the account with its "idTokenClaims", in the session of the app'
    )
  }
  return { issuer: iss, sid: typeof sid === 'string' ? sid : null, subject: sub }
}

function hasIssuer(session: GuardedSession): session is SessionQuery {
  return typeof memberOf(session, 'issuer') === 'string'
}

import type { IssuerConfig, Issuers } from './issuers.ts'
import { checkHeader, readJwt, verifySignature } from './jwt.ts'
import { checkLogoutClaims, type LogoutToken } from './signals/backchannel.ts'

export { isIdentifier } from './jwt.ts'
export type { LogoutToken } from './signals/backchannel.ts'

export interface VerifyOptions {
  /** The time of arrival, in milliseconds since 1970, as of which its age is judged; default now. */
  readonly at?: number
  /** Called with the issuer that the token names, if it is trusted; the token may still prove bad. */
  readonly onIssuer?: (config: IssuerConfig) => void
  /** Its signature was verified before: the issuer may have withdrawn the key since. */
  readonly isVerified?: boolean
}

export type VerifyLogoutToken = (token: string, options?: VerifyOptions) => Promise<LogoutToken>

/** `readLogoutToken` for callers that learn the issuer by a callback, and that defer verified tokens as tokens. */
export function createLogoutTokenVerifier(
  issuers: Pick<Issuers, 'find'>,
  { now = Date.now }: { now?: () => number } = {}
): VerifyLogoutToken {
  return async (raw, { at = now(), onIssuer, isVerified = false } = {}) => {
    const jwt = readJwt(raw, issuers)
    onIssuer?.(jwt.issuer.config)
    checkHeader(jwt)
    const token = checkLogoutClaims(jwt, at)
    if (!isVerified) {
      await verifySignature(jwt, at)
    }
    return token
  }
}

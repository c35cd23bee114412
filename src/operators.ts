import { createHash, timingSafeEqual } from 'node:crypto'
import { RejectedError } from './errors.ts'
import type { Issuers } from './issuers.ts'
import {
  checkAudience,
  checkHeader,
  checkValidity,
  isIdentifier,
  type Jwt,
  readJwt,
  rejectionOf,
  verifySignature
} from './jwt.ts'

/** Who asks: an operator with a name for the records, somebody genuine without the role, or nobody we know. */
export type Operator =
  | { readonly outcome: 'operator'; readonly actor: string }
  | { readonly outcome: 'forbidden'; readonly actor: string }
  | { readonly outcome: 'unauthorized'; readonly code: string }

/** Finds who asks, by the header `Authorization`. Throws {@link UnavailableError} if the issuer's keys are out of reach. */
export type IdentifyOperator = (authorization: string | undefined) => Promise<Operator>

export interface OperatorCheckOptions {
  /** The static bearer token; undefined: none is accepted. */
  readonly token?: string | undefined
  /** JWT access tokens; undefined: none are accepted. */
  readonly accessTokens?: AccessTokenPolicy | undefined
}

export interface AccessTokenPolicy {
  /** Whose tokens are accepted: the one issuer of the operators. */
  readonly issuers: Pick<Issuers, 'find' | 'hintsFor'>
  readonly audience: string
  /** Looked for in the claim `roles`. */
  readonly role: string
  /** Milliseconds since 1970; default `Date.now`. */
  readonly now?: () => number
}

const maxNameLength = 255 // OpenID Connect Core 1.0 §2, of `sub`

/** Makes the check of operators' credentials; without any configured it lets nobody in. */
export function createOperatorCheck({ token, accessTokens }: OperatorCheckOptions): IdentifyOperator {
  // Digests are compared, so that the time reveals nothing of the token, not even its length.
  const digest = (value: string) => createHash('sha256').update(value).digest()
  const expected = token === undefined ? undefined : digest(token)

  return async (authorization) => {
    const given = /^Bearer +(\S+)$/i.exec(authorization ?? '')?.[1]
    if (given === undefined) {
      return { outcome: 'unauthorized', code: 'ERR_CREDENTIALS_MISSING' }
    }
    if (expected !== undefined && timingSafeEqual(digest(given), expected)) {
      return { outcome: 'operator', actor: 'admin-token' }
    }
    if (accessTokens === undefined) {
      return { outcome: 'unauthorized', code: 'ERR_CREDENTIALS_WRONG' }
    }
    try {
      return await operatorOf(given, accessTokens)
    } catch (error) {
      if (error instanceof RejectedError) {
        return { outcome: 'unauthorized', code: error.code }
      }
      throw error
    }
  }
}

async function operatorOf(raw: string, policy: AccessTokenPolicy): Promise<Operator> {
  const { issuers, now = Date.now } = policy
  const at = now()
  const jwt = readJwt(raw, issuers)
  checkHeader(jwt)
  const operator = checkAccessTokenClaims(jwt, at, policy)
  await verifySignature(jwt, at)
  return operator
}

function checkAccessTokenClaims(jwt: Jwt, at: number, { audience, role }: AccessTokenPolicy): Operator {
  checkAudience(jwt, [audience])
  checkValidity(jwt, at, { requireExp: true })
  // RFC 8725 §3.12: no other kind of JWT of this issuer passes for an access token.
  if ('nonce' in jwt.payload || 'events' in jwt.payload) {
    throw rejectionOf(jwt, 'ERR_TOKEN_TYPE')
  }
  const { roles } = jwt.payload
  const hasRole = Array.isArray(roles) && roles.includes(role)
  return { outcome: hasRole ? 'operator' : 'forbidden', actor: actorOf(jwt) }
}

/** `<issuer>#oid=…&app=…`: encoded, so that no claim can pass for another. */
function actorOf(jwt: Jwt): string {
  const { payload, issuer } = jwt
  // Entra ID's `sub` is another for each app; its `oid` is the person. RFC 9068 §2.2 names the app `client_id`.
  const [person] = named(payload, ['oid', 'sub'])
  const [app] = named(payload, ['azp', 'appid', 'client_id'])
  if (person === undefined && app === undefined) {
    throw rejectionOf(jwt, 'ERR_TOKEN_SUBJECT_MISSING')
  }
  const names = new URLSearchParams()
  if (person !== undefined) {
    names.append(...person)
  }
  if (app !== undefined) {
    names.append('app', app[1])
  }
  return `${issuer.issuer}#${names}`
}

function named(payload: Jwt['payload'], claims: readonly string[]): [string, string][] {
  return claims.flatMap((claim): [string, string][] => {
    const value = payload[claim]
    return isIdentifier(value) && value.length <= maxNameLength ? [[claim, value]] : []
  })
}

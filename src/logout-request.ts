import { randomUUID } from 'node:crypto'
import { RejectedError } from './errors.ts'
import type { IssuerConfig, Issuers } from './issuers.ts'
import type { LogoutToken, VerifyLogoutToken } from './logout-token.ts'
import type { SignOut } from './sign-out.ts'
import { type Logout, type Purged, type Store, tokenPurgeId } from './store.ts'
import { traced } from './traces.ts'

/** A logout as it came in, before anything is known of it: what the spool keeps. */
export type LogoutRequest = { readonly token: string } | FrontChannelCall

export interface FrontChannelCall {
  /** The name of the issuer's configuration. */
  readonly issuerName: string
  /** The exact issuer, where the call named it. */
  readonly issuer: string | undefined
  readonly sid: string
}

/** What came of a request: one for each issuer that it concerned. */
export interface CarriedOut extends Purged {
  readonly issuer: string
  readonly source: 'backchannel' | 'frontchannel'
  /** The token's `iat`, seconds since 1970; a front-channel call has none. */
  readonly issuedAt: number | undefined
}

/** How far a request has come. */
export interface Progress {
  /** The name of the issuer's configuration, as soon as the request is known to name one. */
  readonly issuer: string | undefined
  /** Whether it is known to be genuine. */
  readonly isVerified: boolean
}

/** How a request ended, for metrics and operators; nothing of its content. */
export interface LogoutOutcome {
  readonly endpoint: 'backchannel' | 'frontchannel' | 'replay'
  /** The name of the issuer's configuration, where the request named one that is trusted. */
  readonly issuer?: string | undefined
  /**
   * `replayed`: done before. `kept`: on disk, for later. `lost`: could not be kept either. `limited`: refused, and
   * too many were from that address. `failed`: a mistake of ours.
   */
  readonly outcome: 'done' | 'replayed' | 'refused' | 'kept' | 'lost' | 'limited' | 'failed'
  /** The error's code. */
  readonly reason?: string | undefined
  /** The error's fixed text. */
  readonly description?: string | undefined
  readonly address?: string | undefined
  readonly results?: readonly CarriedOut[]
}

/** How a request ended whose logouts are all committed. */
export function committedOutcome(results: readonly CarriedOut[]): Pick<LogoutOutcome, 'outcome' | 'results'> {
  const isReplayed = results.length > 0 && results.every(({ replayed }) => replayed)
  return { outcome: isReplayed ? 'replayed' : 'done', results }
}

/**
 * Carries a request out as of its time of arrival, in milliseconds since 1970.
 * Throws {@link RejectedError} where the request is at fault and {@link UnavailableError} where it could not be done now.
 *
 * @param options.onProgress told whenever more is known of the request
 * @param options.isVerified its signature was verified before
 */
export type CarryOut = (
  request: LogoutRequest,
  at: number,
  options?: { readonly onProgress?: OnProgress; readonly isVerified?: boolean }
) => Promise<CarriedOut[]>

type OnProgress = (progress: Progress) => void

export interface CarryOutOptions {
  readonly issuers: Issuers
  readonly verify: VerifyLogoutToken
  readonly signOut: SignOut
  readonly store: Pick<Store, 'issuersOfSid'>
}

/** Makes the function that takes a request all the way: for the answer to it, and for its replay. */
export function createCarryOut({ issuers, verify, signOut, store }: CarryOutOptions): CarryOut {
  return (request, at, { onProgress, isVerified = false } = {}) =>
    traced(
      'logout',
      () =>
        'token' in request
          ? byToken(request.token, at, isVerified, onProgress)
          : byFrontChannel(request, at, onProgress),
      (results) => ({
        'msal_logout.issuers': results.map(({ issuer }) => issuer),
        'msal_logout.sessions': results.reduce((sum, { sessions }) => sum + sessions, 0),
        'msal_logout.rows': results.reduce((sum, { rows }) => sum + rows, 0)
      })
    )

  async function byToken(raw: string, at: number, isVerified: boolean, onProgress?: OnProgress): Promise<CarriedOut[]> {
    const onIssuer = ({ name }: IssuerConfig) => onProgress?.({ issuer: name, isVerified: false })
    const token = await traced('verify', () => verify(raw, { at, onIssuer, isVerified }))
    onProgress?.({ issuer: token.config.name, isVerified: true })
    const { issuer, issuedAt } = token
    const purged = await traced('sign out', () => signOut(logoutOfToken(token)))
    return [{ ...purged, issuer, source: 'backchannel', issuedAt }]
  }

  async function byFrontChannel(request: FrontChannelCall, at: number, onProgress?: OnProgress): Promise<CarriedOut[]> {
    const config = issuers.named(request.issuerName)
    if (config === undefined) {
      throw new RejectedError('ERR_REQUEST_QUERY') // configured no more
    }
    onProgress?.({ issuer: config.name, isVerified: false })
    const { sid } = request
    const concerned = request.issuer === undefined ? await issuersOf(config, sid) : [request.issuer]
    return Promise.all(
      concerned.map(async (issuer) => ({
        ...(await traced('sign out', () => signOut(logoutOfFrontChannel(issuer, sid, config.purgeScope, at)))),
        issuer,
        source: 'frontchannel' as const,
        issuedAt: undefined
      }))
    )
  }

  /** A `sid` alone names no tenant of a template: the tenants listed, or those where the sid is stored. */
  async function issuersOf(config: IssuerConfig, sid: string): Promise<string[]> {
    const all = issuers.all(config)
    return all ?? (await store.issuersOfSid(sid)).filter((issuer) => issuers.find(issuer)?.config === config)
  }
}

/** What a genuine logout token asks for, by its issuer's policy. */
export function logoutOfToken(token: LogoutToken): Logout {
  return {
    id: tokenPurgeId(token.issuer, token.jti),
    source: 'backchannel',
    issuer: token.issuer,
    clientId: token.clientId,
    jti: token.jti,
    sid: token.sid,
    subject: token.subject,
    notAfter: token.issuedAt,
    wholeSubject: token.subject !== undefined && (token.sid === undefined || token.config.sidAndSubject === 'subject'),
    purgeScope: token.config.purgeScope
  }
}

/** What a front-channel call asks for: the end of that session alone, as of its arrival. */
export function logoutOfFrontChannel(
  issuer: string,
  sid: string,
  purgeScope: Logout['purgeScope'],
  at: number
): Logout {
  return {
    id: randomUUID(),
    source: 'frontchannel',
    issuer,
    sid,
    notAfter: Math.floor(at / 1_000),
    wholeSubject: false,
    purgeScope
  }
}

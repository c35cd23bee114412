import { randomUUID } from 'node:crypto'
import { RefusedError, UnavailableError } from './errors.ts'
import type { IssuerConfig, Issuers } from './issuers.ts'
import type { LogoutToken, VerifyLogoutToken } from './logout-token.ts'
import type { Logout, Purged, Store } from './store.ts'
import { tokenPurgeId } from './store.ts'
import { traced } from './traces.ts'

/** Carries out one logout; resolves once it is committed. Throws {@link UnavailableError} where it could not be. */
export type SignOut = (logout: Logout) => Promise<Purged>

export interface SignOutOptions {
  /** The most logouts in one transaction; default 128. */
  maxBatch?: number
  /**
   * How long a logout may wait for its turn, in milliseconds; default 1000. One that waited longer is not begun:
   * its sender is about to be told 503, and has its token kept for later.
   */
  maxWaitMs?: number
  /** Told of each transaction that was committed: how many logouts it held. */
  onCommitted?: (logouts: number) => void
}

interface Waiting {
  readonly logout: Logout
  readonly since: number
  resolve(purged: Purged): void
  reject(error: unknown): void
}

const maxTries = 3
const lanesForSingles = 2

/**
 * Makes the function that ends sessions. Logouts that arrive while a transaction is in flight wait and go
 * together in the next one: a single commit to disk answers them all, and a lone one waits for nobody.
 *
 * A batch that fails through one of its logouts (a lock that somebody holds, a value the database refuses) is
 * taken apart: each goes alone, two at a time, while the next batch is already on its way. One that has begun
 * may be done after its sender was told 503: that does no harm, since the same token again ends nothing twice.
 *
 * @param store carries a batch out in one transaction, all or nothing
 */
export function createSignOut(
  store: Pick<Store, 'signOut'>,
  { maxBatch = 128, maxWaitMs = 1_000, onCommitted }: SignOutOptions = {}
): SignOut {
  const waiting: Waiting[] = []
  const singles: Waiting[] = []
  let inFlight = false
  let lanes = 0

  async function drain(): Promise<void> {
    inFlight = true
    while (waiting.length > 0) {
      const batch = waiting.splice(0, maxBatch).filter(isInTime)
      if (batch.length > 0 && !(await carryOut(batch, false))) {
        singles.push(...batch)
        while (lanes < lanesForSingles && singles.length > 0) {
          void drainSingles()
        }
      }
    }
    inFlight = false
  }

  async function drainSingles(): Promise<void> {
    lanes += 1
    for (let single = singles.shift(); single !== undefined; single = singles.shift()) {
      if (isInTime(single)) {
        await carryOut([single], true)
      }
    }
    lanes -= 1
  }

  /**
   * False where the batch should be taken apart; else everyone in it has an answer. A patient one is alone, and
   * waits for locks.
   */
  async function carryOut(batch: readonly Waiting[], patient: boolean): Promise<boolean> {
    for (let tries = 1; ; tries++) {
      try {
        const results = await store.signOut(
          batch.map(({ logout }) => logout),
          { patient }
        )
        onCommitted?.(batch.length)
        batch.forEach((entry, i) => {
          entry.resolve(results[i] as Purged)
        })
        return true
      } catch (error) {
        const code = error instanceof UnavailableError ? error.code : undefined
        if (code === 'ERR_DATABASE_CONFLICT' && tries < maxTries) {
          continue
        }
        const isOneOfThem = code === 'ERR_DATABASE_CONFLICT' || code === 'ERR_DATABASE_FAILED'
        if (isOneOfThem && !patient) {
          return false
        }
        for (const entry of batch) {
          entry.reject(error)
        }
        return true
      }
    }
  }

  function isInTime({ since, reject }: Waiting): boolean {
    const inTime = performance.now() - since <= maxWaitMs
    if (!inTime) {
      reject(new UnavailableError('ERR_DEADLINE'))
    }
    return inTime
  }

  return (logout) =>
    new Promise((resolve, reject) => {
      waiting.push({ logout, since: performance.now(), resolve, reject })
      if (!inFlight) {
        void drain()
      }
    })
}

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
 * Throws {@link RefusedError} where the request is at fault and {@link UnavailableError} where it could not be done now.
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
      throw new RefusedError('ERR_REQUEST_QUERY') // configured no more
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
    if (!config.issuer.includes('{tenantid}')) {
      return [config.issuer]
    }
    if (config.tenants !== undefined) {
      return config.tenants.map((tenant) => config.issuer.replace('{tenantid}', tenant))
    }
    const pattern = config.issuer.replace(/[%_\\]/g, '\\$&').replace('{tenantid}', '%')
    const found = await store.issuersOfSid(sid, pattern)
    return found.filter((issuer) => issuers.find(issuer)?.config === config)
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

import { randomUUID } from 'node:crypto'
import { RefusedError, UnavailableError } from './errors.ts'
import type { IssuerConfig, Issuers } from './issuers.ts'
import type { LogoutToken, VerifyLogoutToken } from './logout-token.ts'
import type { Logout, Purged, Store } from './store.ts'
import { tokenPurgeId } from './store.ts'

/** Carries out one logout; resolves once it is committed. Throws {@link UnavailableError} where it could not be. */
export type SignOut = (logout: Logout) => Promise<Purged>

export interface SignOutOptions {
  /** The most logouts in one transaction; default 128. */
  maxBatch?: number
}

interface Waiting {
  readonly logout: Logout
  resolve(purged: Purged): void
  reject(error: unknown): void
}

/**
 * Makes the function that ends sessions. Logouts that arrive while a transaction is in flight wait and go
 * together in the next one: a single commit to disk answers them all, and a lone one waits for nobody.
 */
export function createSignOut(store: Pick<Store, 'signOut'>, { maxBatch = 128 }: SignOutOptions = {}): SignOut {
  const waiting: Waiting[] = []
  let inFlight = false

  async function drain(): Promise<void> {
    inFlight = true
    while (waiting.length > 0) {
      await carryOut(waiting.splice(0, maxBatch))
    }
    inFlight = false
  }

  async function carryOut(batch: readonly Waiting[]): Promise<void> {
    try {
      const results = await store.signOut(batch.map(({ logout }) => logout))
      batch.forEach((entry, i) => {
        entry.resolve(results[i] as Purged)
      })
    } catch (error) {
      if (batch.length === 1 || isOutage(error)) {
        for (const entry of batch) {
          entry.reject(error)
        }
        return
      }
      // One bad neighbour must not fail the others: halves, down to the one it is.
      const middle = batch.length >> 1
      await carryOut(batch.slice(0, middle))
      await carryOut(batch.slice(middle))
    }
  }

  return (logout) =>
    new Promise((resolve, reject) => {
      waiting.push({ logout, resolve, reject })
      if (!inFlight) {
        void drain()
      }
    })
}

function isOutage(error: unknown): boolean {
  return error instanceof UnavailableError && error.code !== 'ERR_DATABASE_FAILED'
}

/** A logout as it came in, before anything is known of it: what the spool keeps. */
export type LogoutRequest =
  | { readonly token: string }
  | {
      /** The name of the issuer's configuration. */
      readonly issuerName: string
      /** The exact issuer, where the call named it. */
      readonly issuer: string | undefined
      readonly sid: string
    }

/** What came of a request: one for each issuer that it concerned. */
export interface CarriedOut extends Purged {
  readonly issuer: string
}

/**
 * Carries a request out as of its time of arrival, in milliseconds since 1970.
 * Throws {@link RefusedError} where the request is at fault and {@link UnavailableError} where it could not be done now.
 *
 * @param onVerified called once the request is known to be genuine
 */
export type CarryOut = (request: LogoutRequest, at: number, onVerified?: () => void) => Promise<CarriedOut[]>

export interface CarryOutOptions {
  readonly issuers: Issuers
  readonly verify: VerifyLogoutToken
  readonly signOut: SignOut
  readonly store: Pick<Store, 'issuersOfSid'>
}

/** Makes the function that takes a request all the way: for the answer to it, and for its replay. */
export function createCarryOut({ issuers, verify, signOut, store }: CarryOutOptions): CarryOut {
  return async (request, at, onVerified) => {
    if ('token' in request) {
      const token = await verify(request.token, { at })
      onVerified?.()
      return [{ ...(await signOut(logoutOfToken(token))), issuer: token.issuer }]
    }
    const config = issuers.named(request.issuerName)
    if (config === undefined) {
      throw new RefusedError('ERR_REQUEST_QUERY') // configured no more
    }
    const { sid } = request
    const concerned = request.issuer === undefined ? await issuersOf(config, sid) : [request.issuer]
    return Promise.all(
      concerned.map(async (issuer) => ({
        ...(await signOut(logoutOfFrontChannel(issuer, sid, config.purgeScope, at))),
        issuer
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

import { RejectedError, type RejectionCode, UnavailableError } from '../errors.ts'
import type { IssuerConfig, Issuers } from '../issuers.ts'
import { isIdentifier } from '../jwt.ts'
import { printable, printableClaim } from '../printable.ts'
import { type Order, orderId } from '../sign-out.ts'
import { standing } from '../standing.ts'
import type { Store } from '../store.ts'
import { nodeToleranceSeconds, type Signal } from './signal.ts'

export const frontchannelSource = 'frontchannel'

/** What a route takes from a front-channel call. */
export interface FrontchannelInput {
  /** The issuer's name in the path. */
  readonly name?: unknown
  readonly iss?: unknown
  readonly sid?: unknown
}

export interface FrontchannelOptions {
  readonly issuers: Issuers
  readonly store: Pick<Store, 'issuersOfSid'>
}

// It is unsigned, and anybody can make sids up: an hour is enough for a login under way.
const rememberSeconds = 3_600
const maxSidBytes = 255
const maxTenantsNamed = 100
const maxAcceptedLength = 500

/**
 * Front-channel calls: OpenID Connect Front-Channel Logout 1.0 §3, and the form of it that Entra ID sends, `sid` alone. A call
 * ends the session of its sid, and no more. The input is a {@link FrontchannelInput}.
 */
export function createFrontchannel({ issuers, store }: FrontchannelOptions): Signal {
  async function read(input: unknown, receivedAt: number): Promise<readonly Order[]> {
    const call = narrowed(input)
    const config = configOf(call)
    const { sid } = call
    const concerned = async () => (call.iss === undefined ? issuersOf(config, sid) : [call.iss])
    return standing(
      concerned().then((named) => named.map((issuer) => orderOf(issuer, sid, config, receivedAt))),
      () => issuers.named(config.name) === config,
      () => read(input, receivedAt)
    )
  }

  return {
    source: frontchannelSource,
    isSigned: false,
    read,
    issuerOf(input) {
      try {
        return configOf(narrow(input)).name
      } catch {
        return undefined
      }
    }
  }

  /** What is wrong with the call is of the issuer whose name stands in its path. */
  function narrowed(input: unknown): Call {
    try {
      return narrow(input)
    } catch (error) {
      const name = typeof input === 'object' && input !== null && 'name' in input ? input.name : undefined
      const issuer = (typeof name === 'string' ? issuers.named(name) : issuers.only())?.name
      throw error instanceof RejectedError ? new RejectedError(error.code, { issuer }) : error
    }
  }

  function configOf({ name, iss }: Call): IssuerConfig {
    const named = name === undefined ? undefined : issuers.named(name)
    if (name !== undefined && named === undefined) {
      const names = issuers.status().map((issuer) => issuer.name)
      throw new RejectedError('ERR_REQUEST_ISSUER_NAME', {
        details: { name: printableClaim(name) },
        accepted: printable(names, maxAcceptedLength)
      })
    }
    const trusted = iss === undefined ? undefined : issuers.find(iss)?.config
    if (iss !== undefined && trusted === undefined) {
      throw new RejectedError('ERR_REQUEST_ISS', {
        issuer: named?.name,
        details: { iss: printableClaim(iss) },
        ...issuers.hintsFor(iss)
      })
    }
    const config = named ?? trusted ?? issuers.only()
    if (config === undefined) {
      throw new RejectedError('ERR_REQUEST_ISS_MISSING')
    }
    if (trusted !== undefined && trusted !== config) {
      throw new RejectedError('ERR_REQUEST_ISS_DIFFERS', {
        issuer: config.name,
        details: { iss: printableClaim(iss), name: printableClaim(name) },
        accepted: config.issuer
      })
    }
    if (!config.frontChannel) {
      throw new RejectedError('ERR_REQUEST_FRONT_CHANNEL_OFF', { issuer: config.name })
    }
    return config
  }

  /** A `sid` alone names no tenant of a template: the tenants listed, or those where the sid is stored. */
  async function issuersOf(config: IssuerConfig, sid: string): Promise<readonly string[]> {
    const all = issuers.all(config)
    // Of many tenants each would get a tombstone: those that have the session are enough.
    if (all !== undefined && all.length <= maxTenantsNamed) {
      return all
    }
    try {
      return (await store.issuersOfSid(sid)).filter((issuer) => issuers.find(issuer)?.config === config)
    } catch (error) {
      throw error instanceof UnavailableError
        ? new UnavailableError(error.code, { issuer: config.name, cause: error })
        : error
    }
  }
}

interface Call {
  readonly name: string | undefined
  readonly iss: string | undefined
  readonly sid: string
}

function narrow(input: unknown): Call {
  const { name, iss, sid }: FrontchannelInput = typeof input === 'object' && input !== null ? input : {}
  if (sid === undefined) {
    throw new RejectedError('ERR_REQUEST_SID_MISSING')
  }
  if (typeof sid === 'string' && Buffer.byteLength(sid) > maxSidBytes) {
    throw new RejectedError('ERR_REQUEST_SID_TOO_LONG')
  }
  return {
    name: name === undefined ? undefined : identifier(name, 'ERR_REQUEST_ISSUER_NAME'),
    iss: iss === undefined ? undefined : identifier(iss, 'ERR_REQUEST_ISS_MALFORMED'),
    sid: identifier(sid, 'ERR_REQUEST_SID_MALFORMED')
  }
}

function identifier(value: unknown, code: RejectionCode): string {
  if (!isIdentifier(value)) {
    throw new RejectedError(code)
  }
  return value
}

function orderOf(issuer: string, sid: string, { name, purgeScope }: IssuerConfig, receivedAt: number): Order {
  const calledAt = Math.floor(receivedAt / 1_000)
  return {
    // The same call within a second is the same signal. It needs no guard: nothing that it ended can have come back by then.
    id: orderId(frontchannelSource, issuer, sid, String(calledAt)),
    source: frontchannelSource,
    issuerName: name,
    selector: { kind: 'session', issuer, sid },
    revokeBefore: calledAt + nodeToleranceSeconds,
    purgeScope,
    sparesNewer: false,
    isSigned: false,
    isOnce: false,
    recordUnmatched: false,
    rememberSeconds
  }
}

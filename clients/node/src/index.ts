import { type ICachePlugin, version as msalVersion } from '@azure/msal-node'
import type { Pool } from 'pg'
import { createCodec, type Encryption } from './encoding.ts'
import { TokenCacheMisuseError } from './errors.ts'
import { listenForPurges, type PurgeListener } from './listener.ts'
import { createAccountPlugin, createAppPlugin, createAssertionPlugin, createLoginPlugin } from './plugin.ts'
import { createRows } from './rows.ts'

export { type Clients, type ClientsOptions, createClients } from './clients.ts'
export type { Encryption } from './encoding.ts'
export { SignedOutError, TokenCacheMisuseError } from './errors.ts'
export { createExpressGuard, createFastifyGuard, type GuardedSession, type GuardOptions } from './guards.ts'

export type { PurgeListener } from './listener.ts'
export type { EndedSession } from './rows.ts'

export interface TokenCacheOptions {
  /** Connections to the shared database, as the role registered for the client id. */
  pool: Pool
  /** The app's client id. */
  clientId: string
  /** Seconds a row lives after it was last written; default 90 days, as long as Entra ID's refresh tokens. */
  ttlSeconds?: number
  /** Encrypts payloads with AES-256-GCM; default: they are stored as they are. */
  encryption?: Encryption
  /**
   * Where `onPurge` takes its connection, which it holds; default `pool`. Must be PostgreSQL itself: LISTEN does not
   * work through PgBouncer in transaction mode, where purges would be told half a minute late.
   */
  listenPool?: Pool
  /**
   * Parses and plans each statement once for a connection, instead of each time; default false, since PgBouncer before
   * 1.21 in transaction mode may send a statement to a connection that does not know it.
   */
  preparedStatements?: boolean
  /** Told of what an operator should mend, once for each message; default `process.emitWarning`. */
  onWarning?: (message: string) => void
}

export interface TokenCache {
  /** For the ConfidentialClientApplication that redeems the code. */
  forLogin(): ICachePlugin
  /** For one operation of a signed-in user. */
  forAccount(homeAccountId: string): ICachePlugin
  /** For client credentials; `<client id>.<tenant id>` is a good partition key. */
  forApp(partitionKey: string): ICachePlugin
  /** For one on-behalf-of operation with this access token; call `getAllAccounts()` first, or MSAL does not look here. */
  forAssertion(assertion: string): ICachePlugin
  /** Whether a session of this app has neither been ended nor expired. */
  isSessionActive(session: { issuer: string; sid: string }): Promise<boolean>
  /**
   * Tells of the app's sessions that purges end from now on, in order and each once, also after a lost connection.
   * The listener is awaited before the next one is told. Resolves with a function that ends it.
   */
  onPurge(listener: PurgeListener): Promise<() => Promise<void>>
  /** Forgets one account of this app; MSAL's `removeAccount` fails for ids with upper case letters. */
  removeAccount(homeAccountId: string): Promise<boolean>
}

// Before it, acquireTokenSilent looks in memory alone.
const lowestMsalVersion = [3, 2]

const defaultTtlSeconds = 90 * 24 * 60 * 60

/**
 * Makes the shared token cache of one app: plugins for MSAL Node whose writes cannot undo a sign-out.
 * A login or a refresh that lost against a sign-out rejects with {@link SignedOutError}.
 *
 * @throws {TypeError} where a key has not 32 bytes or the time to live is not positive
 * @throws {TokenCacheMisuseError} where `@azure/msal-node` is older than 3.2.0
 */
export function createTokenCache(options: TokenCacheOptions): TokenCache {
  const { pool, clientId, ttlSeconds = defaultTtlSeconds, encryption, preparedStatements = false } = options
  checkMsalVersion(msalVersion)
  if (!(ttlSeconds > 0)) {
    throw new TypeError('ttlSeconds must be positive')
  }
  const warned = new Set<string>()
  const onWarning = options.onWarning ?? ((message) => process.emitWarning(message, 'msal-logout'))
  const rows = createRows({ pool, clientId, ttlSeconds, preparedStatements })
  const plugin = {
    rows,
    codec: createCodec(encryption),
    clientId,
    warn(message: string) {
      if (!warned.has(message)) {
        warned.add(message)
        onWarning(message)
      }
    }
  }
  return {
    forLogin: () => createLoginPlugin(plugin),
    forAccount: (homeAccountId) => createAccountPlugin(plugin, homeAccountId),
    forApp: (partitionKey) => createAppPlugin(plugin, partitionKey),
    forAssertion: (assertion) => createAssertionPlugin(plugin, assertion),
    isSessionActive: ({ issuer, sid }) => rows.sessionActive(issuer, sid),
    onPurge: (listener) => listenForPurges({ rows, pool: options.listenPool ?? pool, warn: onWarning }, listener),
    async removeAccount(homeAccountId) {
      const row = await rows.load(homeAccountId)
      return row !== undefined && rows.forget(homeAccountId, row.generation)
    }
  }
}

/** @throws {TokenCacheMisuseError} where this version of `@azure/msal-node` does not read what is stored */
export function checkMsalVersion(version: string): void {
  const [major = 0, minor = 0] = version.split('.').map(Number)
  const [lowestMajor = 0, lowestMinor = 0] = lowestMsalVersion
  if (major < lowestMajor || (major === lowestMajor && minor < lowestMinor)) {
    throw new TokenCacheMisuseError(
      `@azure/msal-node ${version} does not read a shared cache: update it to 3.2.0 or later`
    )
  }
}

import type { Configuration } from '@azure/msal-node'
import { checkTokenCache } from './check.ts'
import { assertPool, createDatabase, listenToPool, type Pool } from './database.ts'
import { createCodec, type Encryption } from './encoding.ts'
import { TokenCacheMisuseError } from './errors.ts'
import { type GuardedSession, toQuery } from './guarded-session.ts'
import { listenForPurges, type PurgeListener } from './listener.ts'
import { isObject, memberOf } from './objects.ts'
import {
  type CachePlugin,
  createAccountPlugin,
  createAppPlugin,
  createAssertionPlugin,
  createLoginPlugin,
  type LoginChecks
} from './plugin.ts'
import { createRows } from './rows.ts'

export interface TokenCacheOptions {
  /** Connections to the shared database, as the role registered for the client id: a Pool of `pg`. */
  pool: Pool
  /** The app's client id; undefined, as an environment variable may be, is an error. */
  clientId: string | undefined
  /** Seconds a row lives after it was last written; default 90 days, as long as Entra ID's refresh tokens. */
  ttlSeconds?: number
  /**
   * Milliseconds that a call of the database may take, with the wait for a connection; default 5,000. After them the
   * call rejects with {@link TokenCacheDatabaseError}, and its connection is given up.
   */
  timeoutMs?: number
  /** Encrypts payloads with AES-256-GCM; default: they are stored as they are. */
  encryption?: Encryption
  /**
   * Where `onPurge` takes its connection, which it holds; default `pool`. Must be PostgreSQL itself: LISTEN does not
   * work through PgBouncer in transaction mode, where purges would be heard of half a minute late.
   */
  listenPool?: Pool
  /**
   * Parses and plans each statement once for a connection, instead of each time; default false, since PgBouncer before
   * 1.21 in transaction mode may send a statement to a connection that does not know it.
   */
  preparedStatements?: boolean
  /** Is given what an operator should mend, once for each message; default `process.emitWarning`. */
  onWarning?: (message: string) => void
}

export interface TokenCache {
  readonly clientId: string
  /**
   * For the ConfidentialClientApplication that redeems the code.
   *
   * @param checks what the ID token must bear; else the login rejects with {@link SignInFailedError}, and stores nothing
   */
  forLogin(checks?: LoginChecks): CachePlugin
  /** For one operation of a signed-in user. */
  forAccount(homeAccountId: string): CachePlugin
  /** For client credentials; `<client id>.<tenant id>` is a good partition key. */
  forApp(partitionKey: string): CachePlugin
  /** For one on-behalf-of operation with this access token; call `getAllAccounts()` first, or MSAL does not look here. */
  forAssertion(assertion: string): CachePlugin
  /**
   * Whether a session of this app has neither been ended nor expired: by its sid, or without one by its subject.
   *
   * @param session `iss`, `sid` and `sub` of the ID token, or MSAL's account
   */
  isSessionActive(session: GuardedSession): Promise<boolean>
  /**
   * Gives the listener the app's sessions that sign-outs and purges end from now on, in order and each once, also after a
   * lost connection. It is awaited before the next one. Resolves with a function that ends it.
   */
  onPurge(listener: PurgeListener): Promise<() => Promise<void>>
  /** Forgets one account of this app; MSAL's `removeAccount` fails for ids with upper case letters. */
  removeAccount(homeAccountId: string): Promise<boolean>
  /**
   * Looks at everything that this app needs, best before it listens; what works and should not stay is warned of.
   *
   * @param options.configuration MSAL's; with it also whether its client id is this one, and whether its authority is a
   *   provider that answers. `createSignIn` and `createClients` have a `check` that gives theirs
   * @throws {TokenCacheMisuseError} with every problem and its remedy, in one message
   * @throws {TokenCacheDatabaseError} where the database cannot be reached
   * @throws {ProviderUnavailableError} where the provider cannot be reached, and nothing else is wrong
   */
  check(options?: { readonly configuration?: Configuration }): Promise<void>
}

const defaultTtlSeconds = 90 * 24 * 60 * 60
const defaultTimeoutMs = 5_000

/**
 * Makes the shared token cache of one app: plugins for MSAL Node whose writes cannot undo a sign-out.
 * A login or a refresh that lost against a sign-out rejects with {@link SignedOutError}.
 *
 * @throws {TokenCacheMisuseError} where an option is missing or cannot be used
 */
export function createTokenCache(options: TokenCacheOptions): TokenCache {
  const { pool, clientId, ttlSeconds = defaultTtlSeconds, timeoutMs = defaultTimeoutMs } = options ?? {}
  assertPool(pool)
  requireText(clientId, 'clientId', 'createTokenCache({ pool, clientId })')
  requirePositive(ttlSeconds, 'ttlSeconds')
  requirePositive(timeoutMs, 'timeoutMs')
  const listenPool = options.listenPool ?? pool
  assertPool(listenPool)
  listenToPool(pool)
  listenToPool(listenPool)

  const warned = new Set<string>()
  const onWarning = options.onWarning ?? ((message) => process.emitWarning(message, 'msal-logout'))
  const warn = (message: string): void => {
    if (!warned.has(message)) {
      warned.add(message)
      onWarning(message)
    }
  }
  const database = createDatabase({ pool, timeoutMs, warn })
  const rows = createRows({
    database,
    clientId,
    ttlSeconds,
    preparedStatements: options.preparedStatements ?? false
  })
  const codec = createCodec(options.encryption)
  const plugin = { rows, codec, clientId, warn }

  const tokenCache: TokenCache = {
    clientId,
    forLogin: uncalled('forLogin()', (checks?: LoginChecks) => {
      if (checks !== undefined && (!isObject(checks) || ('nonce' in checks && !checks.nonce))) {
        // A nonce that was lost on the way would else be compared with nothing.
        throw new TokenCacheMisuseError(
          'forLogin({ nonce }) takes the "nonce" that the sign-in began with, from the session of the app; forLogin() none'
        )
      }
      return createLoginPlugin(plugin, checks)
    }),
    forAccount: uncalled('forAccount(homeAccountId)', (homeAccountId: string) => {
      requireText(homeAccountId, 'homeAccountId', 'forAccount(account.homeAccountId), of the account that a login gave')
      return createAccountPlugin(plugin, homeAccountId)
    }),
    forApp: uncalled('forApp(partitionKey)', (partitionKey: string) => {
      requireText(partitionKey, 'partitionKey', "forApp('<client id>.<tenant id>')")
      return createAppPlugin(plugin, partitionKey)
    }),
    forAssertion: uncalled('forAssertion(assertion)', (assertion: string) => {
      requireText(assertion, 'assertion', 'forAssertion(accessToken), with the token that the caller sent')
      return createAssertionPlugin(plugin, assertion)
    }),
    async isSessionActive(session) {
      const { issuer, sid, subject } = toQuery(session)
      if (!sid && !subject) {
        throw new TokenCacheMisuseError(
          'isSessionActive needs "sid", or "subject" where the ID token has none: keep iss, sid and sub of the ID token in the session'
        )
      }
      if (!sid) {
        warn(
          'a session is asked for by its subject, since its ID token bears no "sid": it counts as active as long as any such login of the user does. At Entra ID add the optional claim "sid" to ID tokens (App registration, Token configuration)'
        )
      }
      return rows.sessionActive(issuer, sid || null, subject || null)
    },
    async onPurge(listener) {
      if (typeof listener !== 'function') {
        throw new TokenCacheMisuseError('onPurge(({ issuer, sid, subject, homeAccountId }) => …) takes a function')
      }
      if (listenPool === pool && Number(memberOf(memberOf(pool, 'options'), 'max')) < 2) {
        throw new TokenCacheMisuseError(
          'onPurge holds a connection, and the pool has no other: give it a "max" of 2 or more, or a "listenPool"'
        )
      }
      const listenDatabase = listenPool === pool ? database : createDatabase({ pool: listenPool, timeoutMs, warn })
      return listenForPurges({ rows, database: listenDatabase, warn: onWarning }, listener)
    },
    async removeAccount(homeAccountId) {
      requireText(homeAccountId, 'homeAccountId', 'removeAccount(account.homeAccountId)')
      const row = await rows.load(homeAccountId)
      return row !== undefined && rows.forget(homeAccountId, row.generation)
    },
    check: ({ configuration } = {}) => checkTokenCache({ database, pool, clientId, codec, configuration, warn })
  }
  return refuseAsPlugin(
    tokenCache,
    'the token cache is no plugin itself: cachePlugin: tokenCache.forAccount(homeAccountId), or tokenCache.forLogin()'
  )
}

function requireText(value: unknown, name: string, usage: string): asserts value is string {
  if (typeof value !== 'string' || value === '') {
    const found = value === '' ? 'empty' : value === null ? 'null' : typeof value
    throw new TokenCacheMisuseError(`"${name}" is ${found}, and must be a text: ${usage}`)
  }
}

function requirePositive(value: unknown, name: string): void {
  if (!(typeof value === 'number' && value > 0 && Number.isFinite(value))) {
    throw new TokenCacheMisuseError(`"${name}" must be a positive number`)
  }
}

/** A function that says so where it is given to MSAL itself, uncalled: `cachePlugin: tokenCache.forLogin`. */
function uncalled<Args extends unknown[]>(usage: string, create: (...args: Args) => CachePlugin) {
  return refuseAsPlugin((...args: Args) => create(...args), `call it: cachePlugin: tokenCache.${usage}`)
}

/** What is no plugin, and says so if MSAL uses it as one. */
function refuseAsPlugin<Target extends object>(target: Target, message: string): Target {
  for (const hook of ['beforeCacheAccess', 'afterCacheAccess']) {
    Object.defineProperty(target, hook, {
      value: () => {
        throw new TokenCacheMisuseError(message)
      }
    })
  }
  return target
}

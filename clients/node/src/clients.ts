import type { ConfidentialClientApplication, Configuration } from '@azure/msal-node'
import { type Authority, detectAuthority } from './authority.ts'
import { isSignInRequired, TokenCacheMisuseError } from './errors.ts'
import type { CachePlugin, LoginChecks } from './plugin.ts'
import type { TokenCache } from './token-cache.ts'

export interface ClientsOptions {
  readonly tokenCache: TokenCache
  /**
   * MSAL's configuration, without a cache plugin; `auth.clientId` is the token cache's. Neither `protocolMode` nor
   * `knownAuthorities` is needed, for Entra ID or for any other OpenID provider.
   */
  readonly configuration: Configuration
  /** MSAL's class; default: that of `@azure/msal-node` as this app finds it. */
  readonly ConfidentialClientApplication?: new (
    configuration: Configuration
  ) => ConfidentialClientApplication
}

/** Makes a ConfidentialClientApplication for one operation, with the right plugin. */
export interface Clients {
  /** To redeem one code; with `{ nonce }` of the sign-in, which MSAL Node before 6 does not compare. */
  forLogin(checks?: LoginChecks): Promise<ConfidentialClientApplication>
  /** For one operation of a signed-in user. */
  forAccount(homeAccountId: string): Promise<ConfidentialClientApplication>
  /** For client credentials. */
  forApp(partitionKey: string): Promise<ConfidentialClientApplication>
  /** For one on-behalf-of operation; its row is loaded already. */
  forAssertion(assertion: string): Promise<ConfidentialClientApplication>
  /** The token cache's `check`, with this configuration: the authority, too. */
  check(): Promise<void>
}

/**
 * One ConfidentialClientApplication for each operation, which costs microseconds, with the authority's metadata fetched
 * once for all of them. A shared one would mix users, and fail for concurrent calls of a single one.
 *
 * @throws {TokenCacheMisuseError} at once where MSAL's client id is not the token cache's; from each function where the
 *   authority is no provider, or cannot be reached
 */
export function createClients(options: ClientsOptions): Clients {
  const { tokenCache, configuration } = options
  if (typeof tokenCache?.forLogin !== 'function' || typeof configuration?.auth?.clientId !== 'string') {
    throw new TokenCacheMisuseError(
      "createClients({ tokenCache, configuration }) takes what createTokenCache returned, and MSAL's configuration: { auth: { clientId, clientSecret, authority } }"
    )
  }
  if (configuration.auth.clientId !== tokenCache.clientId) {
    throw new TokenCacheMisuseError(
      `the token cache is for the client id "${tokenCache.clientId}", and MSAL's configuration has "${configuration.auth.clientId}": give both the same`
    )
  }
  if (configuration.cache?.cachePlugin !== undefined) {
    throw new TokenCacheMisuseError(
      'createClients gives each client a plugin of its own: leave "cache.cachePlugin" out'
    )
  }
  let preparing: Promise<[Authority, NonNullable<ClientsOptions['ConfidentialClientApplication']>]> | undefined

  async function create(cachePlugin: CachePlugin): Promise<ConfidentialClientApplication> {
    preparing ??= Promise.all([detectAuthority(configuration), loadClass(options)]).catch((error: unknown) => {
      preparing = undefined // the next operation tries again
      throw error
    })
    const [{ auth, system }, Application] = await preparing
    const client = new Application({
      ...configuration,
      auth: { ...configuration.auth, ...auth },
      system: { ...configuration.system, ...system },
      cache: { ...configuration.cache, cachePlugin }
    })
    answerUnauthorized(client)
    return client
  }

  return {
    forLogin: (checks) => awaitable(() => create(tokenCache.forLogin(checks))),
    forAccount: (homeAccountId) => awaitable(() => create(tokenCache.forAccount(homeAccountId))),
    forApp: (partitionKey) => awaitable(() => create(tokenCache.forApp(partitionKey))),
    forAssertion: (assertion) =>
      awaitable(async () => {
        const client = await create(tokenCache.forAssertion(assertion))
        await client.getTokenCache().getAllAccounts() // MSAL looks for on-behalf-of tokens in memory alone
        return client
      }),
    check: () => tokenCache.check({ configuration })
  }
}

/** The app's own copy of MSAL: required by the CommonJS form of this package, imported by the other. */
async function loadClass({ ConfidentialClientApplication }: ClientsOptions) {
  return ConfidentialClientApplication ?? (await import('@azure/msal-node')).ConfidentialClientApplication
}

/** Gives MSAL's "sign in again" a status: what an app does not handle is answered by 401, and not by 500. */
function answerUnauthorized(client: ConfidentialClientApplication): void {
  const { acquireTokenSilent, acquireTokenOnBehalfOf } = client
  const withStatus = (error: unknown): never => {
    throw isSignInRequired(error) && typeof error === 'object'
      ? Object.assign(error ?? {}, { status: 401, statusCode: 401, expose: false })
      : error
  }
  client.acquireTokenSilent = (request) => acquireTokenSilent.call(client, request).catch(withStatus)
  client.acquireTokenOnBehalfOf = (request) => acquireTokenOnBehalfOf.call(client, request).catch(withStatus)
}

const methods = [
  'getAuthCodeUrl',
  'acquireTokenByCode',
  'acquireTokenSilent',
  'acquireTokenByClientCredential',
  'acquireTokenOnBehalfOf',
  'getTokenCache'
]

/** A promise that says so where its result's methods are called on it. */
function awaitable<Result>(work: () => Promise<Result>): Promise<Result> {
  const promise = Promise.resolve().then(work)
  for (const name of methods) {
    Object.defineProperty(promise, name, {
      value: () => {
        promise.catch(() => {}) // this error is enough
        throw new TokenCacheMisuseError(`"await" is missing: (await clients.forLogin()).${name}(…)`)
      }
    })
  }
  return promise
}

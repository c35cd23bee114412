import { ConfidentialClientApplication, type Configuration, type ICachePlugin } from '@azure/msal-node'
import type { TokenCache } from './index.ts'

export interface ClientsOptions {
  readonly tokenCache: TokenCache
  /** MSAL's configuration, without a cache plugin; `auth.clientId` is the token cache's. */
  readonly configuration: Configuration
}

/** Makes a ConfidentialClientApplication for one operation, with the right plugin. */
export interface Clients {
  /** To redeem one code. */
  forLogin(): Promise<ConfidentialClientApplication>
  /** For one operation of a signed-in user. */
  forAccount(homeAccountId: string): Promise<ConfidentialClientApplication>
  /** For client credentials. */
  forApp(partitionKey: string): Promise<ConfidentialClientApplication>
  /** For one on-behalf-of operation; its row is loaded already. */
  forAssertion(assertion: string): Promise<ConfidentialClientApplication>
}

/**
 * One ConfidentialClientApplication for each operation, which costs microseconds, with the authority's metadata fetched
 * once for all of them. A shared one would mix users, and fail for concurrent calls of a single one.
 *
 * @throws {Error} from each function, where the authority's metadata cannot be fetched
 */
export function createClients({ tokenCache, configuration }: ClientsOptions): Clients {
  let metadata: Promise<string | undefined> | undefined

  async function create(cachePlugin: ICachePlugin): Promise<ConfidentialClientApplication> {
    metadata ??= fetchMetadata(configuration).catch((error: unknown) => {
      metadata = undefined // the next operation tries again
      throw error
    })
    const authorityMetadata = await metadata
    const { authority = '' } = configuration.auth
    // The metadata is the authority's own: no need to ask Microsoft whether it is one of theirs.
    const auth =
      authorityMetadata === undefined
        ? configuration.auth
        : { knownAuthorities: [new URL(authority).host], ...configuration.auth, authorityMetadata }
    return new ConfidentialClientApplication({ ...configuration, auth, cache: { cachePlugin } })
  }

  return {
    forLogin: () => create(tokenCache.forLogin()),
    forAccount: (homeAccountId) => create(tokenCache.forAccount(homeAccountId)),
    forApp: (partitionKey) => create(tokenCache.forApp(partitionKey)),
    async forAssertion(assertion) {
      const client = await create(tokenCache.forAssertion(assertion))
      await client.getTokenCache().getAllAccounts() // MSAL looks for on-behalf-of tokens in memory alone
      return client
    }
  }
}

/** Undefined where MSAL knows the authority by itself, or was told. */
async function fetchMetadata({ auth, system }: Configuration): Promise<string | undefined> {
  if (auth.authorityMetadata !== undefined || auth.authority === undefined || system?.protocolMode !== 'OIDC') {
    return undefined
  }
  const url = `${auth.authority.replace(/\/$/, '')}/.well-known/openid-configuration`
  if (system.networkClient !== undefined) {
    const { status, body } = await system.networkClient.sendGetRequestAsync<object>(url)
    return metadataOf(url, status, body)
  }
  const response = await fetch(url)
  return metadataOf(url, response.status, response.ok ? await response.json() : undefined)
}

function metadataOf(url: string, status: number, body: unknown): string {
  if (status !== 200) {
    throw new Error(`"${url}" answered ${status}`)
  }
  return JSON.stringify(body)
}

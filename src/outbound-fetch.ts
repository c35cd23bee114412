import { Agent, EnvHttpProxyAgent, fetch } from 'undici'
import { type Proxies, proxyFor } from './proxies.ts'

/** What is used of `fetch`, so that tests and proxies can stand in for it. */
export type Fetch = (
  url: string,
  init: {
    readonly signal: AbortSignal
    readonly redirect: 'manual'
    readonly headers: Record<string, string>
    /** Default `GET`. */
    readonly method?: 'GET' | 'POST' | 'PATCH' | 'DELETE'
    readonly body?: string
  }
) => Promise<FetchResponse>

export interface FetchResponse {
  readonly status: number
  readonly headers: { get(name: string): string | null }
  readonly body: (AsyncIterable<Uint8Array> & { cancel(): Promise<void> }) | null
}

export interface OutboundFetch {
  readonly fetch: Fetch
  /** The proxy that a URL is fetched by, without credentials; undefined if it is fetched directly. */
  proxyOf(url: string): string | undefined
}

/** Makes the `fetch` for what other servers publish: through the proxies, if there are any. */
export function createOutboundFetch(proxies: Proxies): OutboundFetch {
  const direct = new Agent()
  const { https = '', http = '', none } = proxies // an empty one keeps undici from reading the environment itself
  const proxied = new EnvHttpProxyAgent({ httpsProxy: https, httpProxy: http, noProxy: none })
  return {
    fetch: (url, init) => fetch(url, { ...init, dispatcher: url.startsWith('http:') ? direct : proxied }),
    proxyOf: (url) => proxyFor(url, proxies)
  }
}

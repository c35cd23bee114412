import type { Configuration } from '@azure/msal-node'
import { ProviderUnavailableError, TokenCacheMisuseError } from './errors.ts'
import { isObject, memberOf } from './objects.ts'

/** What kind of provider an authority is, and what MSAL must be given for it. */
export interface Authority {
  readonly kind: 'microsoft' | 'openid'
  /** Members of MSAL's `auth` and `system`, as its versions want them. */
  readonly auth: object
  readonly system: object
  /** The discovery document, where it is at hand. */
  readonly document: Readonly<Record<string, unknown>> | undefined
}

/** OpenID Connect Discovery 1.0 §3, as far as it is used here. */
export interface Metadata {
  /** Undefined for Microsoft's, where it depends on the tenant. */
  readonly issuer: string | undefined
  readonly endSessionEndpoint: string | undefined
}

const timeoutMs = 5_000

// Entra ID in its clouds, which MSAL knows by itself; then B2C and External ID, whose hosts bear the tenant's name.
const microsoftHosts = new Set([
  'login.microsoftonline.com',
  'login.microsoft.com',
  'login.windows.net',
  'sts.windows.net',
  'login.microsoftonline.us',
  'login.usgovcloudapi.net',
  'login-us.microsoftonline.com',
  'login.partner.microsoftonline.cn',
  'login.chinacloudapi.cn'
])
const microsoftDomains = ['.ciamlogin.com', '.b2clogin.com']

/**
 * Finds out what kind of provider MSAL's authority is. One of Microsoft's is known by its host; any other is asked for its
 * discovery document, which is MSAL's metadata, too: it need not ask again for each operation.
 *
 * @throws {TokenCacheMisuseError} where the authority is neither, with what to add
 */
export async function detectAuthority(configuration: Configuration): Promise<Authority> {
  const { auth, system } = configuration
  const given = protocolModeOf(configuration)
  if (auth.authorityMetadata !== undefined || auth.authority === undefined) {
    const document = auth.authorityMetadata ? parseObject(auth.authorityMetadata) : undefined
    return { kind: given === 'OIDC' ? 'openid' : 'microsoft', auth: {}, system: {}, document }
  }
  const url = parseAuthority(auth.authority)
  if (given === 'AAD' || (given === undefined && isMicrosoft(url))) {
    const isTenants = microsoftDomains.some((domain) => url.hostname.endsWith(domain))
    return {
      kind: 'microsoft',
      auth: {
        ...(isTenants ? { knownAuthorities: [url.host] } : {}),
        ...auth,
        authority: withoutVersion(auth.authority)
      },
      system: {},
      document: undefined
    }
  }
  const document = await fetchJson(`${auth.authority.replace(/\/$/, '')}${wellKnown}`, system?.networkClient)
  const issuer = document.issuer
  if (given === undefined && (typeof issuer !== 'string' || !isSameUrl(issuer, auth.authority))) {
    throw new TokenCacheMisuseError(
      `the authority "${auth.authority}" is no OpenID issuer: its discovery document bears the issuer "${String(issuer)}". Give that issuer as the authority; or, for AD FS or a domain of your own at Azure AD B2C, set protocolMode to "AAD", with the host in "knownAuthorities"`
    )
  }
  return {
    kind: 'openid',
    // The metadata is the authority's own: no need to ask Microsoft whether it is one of theirs.
    auth: {
      knownAuthorities: [url.host],
      ...auth,
      authorityMetadata: JSON.stringify(document),
      protocolMode: 'OIDC' // where MSAL 3 looks for it
    },
    system: { protocolMode: 'OIDC' }, // and MSAL 5
    document
  }
}

/** What the provider says of itself: whose ID tokens it issues, and where its session ends. */
export async function fetchMetadata(configuration: Configuration): Promise<Metadata> {
  const { auth, system } = configuration
  const authority = withoutVersion(auth.authority ?? 'https://login.microsoftonline.com/common').replace(/\/$/, '')
  const { kind, document: known } = await detectAuthority(configuration)
  const { issuer, end_session_endpoint } = known ?? (await fetchJson(documentUrl(authority), system?.networkClient))
  return {
    issuer: kind === 'openid' && typeof issuer === 'string' ? issuer : undefined,
    endSessionEndpoint: typeof end_session_endpoint === 'string' ? end_session_endpoint : undefined
  }
}

/** MSAL adds it by itself, and people copy the issuer. */
function withoutVersion(authority: string): string {
  return authority.replace(/\/v2\.0\/?$/, '')
}

function documentUrl(authority: string): string {
  return isAdfs(parseAuthority(authority)) ? authority + wellKnown : `${authority}/v2.0${wellKnown}`
}

const wellKnown = '/.well-known/openid-configuration'

/** MSAL 3 has it in `auth`, later ones in `system`. */
function protocolModeOf({ auth, system }: Configuration): unknown {
  return Reflect.get(system ?? {}, 'protocolMode') ?? Reflect.get(auth, 'protocolMode')
}

function parseAuthority(authority: string): URL {
  if (!URL.canParse(authority)) {
    throw new TokenCacheMisuseError(
      `the authority "${authority}" is no URL: give the issuer, or for Entra ID https://login.microsoftonline.com/<tenant id>`
    )
  }
  return new URL(authority)
}

function isMicrosoft(url: URL): boolean {
  return (
    microsoftHosts.has(url.hostname) || microsoftDomains.some((domain) => url.hostname.endsWith(domain)) || isAdfs(url)
  )
}

function isAdfs(url: URL): boolean {
  return /^\/adfs(\/|$)/i.test(url.pathname)
}

function isSameUrl(a: string, b: string): boolean {
  return a.replace(/\/$/, '') === b.replace(/\/$/, '')
}

/**
 * @throws {ProviderUnavailableError} where it does not answer, or fails
 * @throws {TokenCacheMisuseError} where there is no such document
 */
async function fetchJson(url: string, client: NetworkClient | undefined): Promise<Record<string, unknown>> {
  let status: number
  let body: unknown
  try {
    if (client !== undefined) {
      const answer = await client.sendGetRequestAsync<unknown>(url)
      status = answer.status
      body = answer.body
    } else {
      const answer = await fetch(url, { signal: AbortSignal.timeout(timeoutMs) })
      status = answer.status
      body = answer.ok ? await answer.json() : undefined
    }
  } catch (error) {
    throw new ProviderUnavailableError(
      `"${url}" cannot be had: ${reasonOf(error)}. Is "authority" the issuer, and can it be reached from here? A certificate that Node does not know goes into NODE_EXTRA_CA_CERTS`,
      { cause: error }
    )
  }
  if (status >= 500) {
    throw new ProviderUnavailableError(`"${url}" answers ${status}`)
  }
  if (status !== 200 || !isObject(body)) {
    throw new TokenCacheMisuseError(
      `"${url}" answers ${status}${status === 200 ? ', and no JSON object' : ''}: give the issuer as "authority"`
    )
  }
  return body
}

type NetworkClient = NonNullable<NonNullable<Configuration['system']>['networkClient']>

function parseObject(text: string): Record<string, unknown> {
  const value: unknown = JSON.parse(text)
  if (!isObject(value)) {
    throw new TokenCacheMisuseError('"authorityMetadata" must be a discovery document, as JSON')
  }
  return value
}

/** "fetch failed" says nothing; its cause does. */
function reasonOf(error: unknown): string {
  const cause = memberOf(error, 'cause') ?? error
  return String(memberOf(cause, 'message') || memberOf(cause, 'code') || cause)
}

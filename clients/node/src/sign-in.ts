import { createHash, randomBytes } from 'node:crypto'
import type { Configuration } from '@azure/msal-node'
import { fetchMetadata, type Metadata } from './authority.ts'
import { type Clients, type ClientsOptions, createClients } from './clients.ts'
import { isSignInRequired, SignedOutError, SignInFailedError, TokenCacheMisuseError } from './errors.ts'
import { checkWhenUnavailable } from './guards.ts'
import { isNavigation, notNavigation } from './navigation.ts'
import { isObject, memberOf } from './objects.ts'
import { addPending, readState, writeState } from './sign-in-state.ts'
import { createTokenCache, type TokenCache, type TokenCacheOptions } from './token-cache.ts'

export interface SignInOptions extends TokenCacheOptions {
  /** The client's secret; for a certificate or an assertion give `configuration`. */
  clientSecret?: string | undefined
  /** The issuer of the OpenID provider; for Entra ID `https://login.microsoftonline.com/<tenant id>`. */
  authority?: string | undefined
  /** Instead of `clientSecret` and `authority`: all of MSAL's configuration, without a cache plugin. */
  configuration?: Configuration
  /** Where browsers find the app: `https://app.example.com`, with the path it is mounted at, if any. */
  baseUrl: string | undefined
  /** What the first access token is for, beside `openid profile offline_access`, which MSAL adds; default nothing more. */
  scopes?: readonly string[]
  /** Claims of the ID token that `user.claims` keeps; default none: a session in a cookie has 4 KB. */
  claims?: readonly string[]
  /** The routes below `baseUrl`; default `/sign-in`, `/callback`, `/sign-out`. */
  paths?: Partial<Paths>
  /** As for the guards: what happens where the database cannot be reached; default `fail`. */
  whenUnavailable?: 'fail' | 'pass'
  /** MSAL's class; default: that of `@azure/msal-node` as this app finds it. */
  ConfidentialClientApplication?: ClientsOptions['ConfidentialClientApplication']
}

export interface Paths {
  readonly signIn: string
  readonly callback: string
  readonly signOut: string
}

/** Who is signed in: what the app's own session remembers, and what MSAL takes as the account. No token is in it. */
export interface SignedInUser {
  readonly homeAccountId: string
  readonly localAccountId: string
  readonly environment: string
  readonly tenantId: string
  readonly username: string
  readonly name?: string
  /** `iss`, `sid` and `sub` of the ID token: by these the guard asks. */
  readonly issuer: string
  readonly sid: string | null
  readonly subject: string
  /** The claims that the option `claims` names. */
  readonly claims: Readonly<Record<string, unknown>>
}

/** A sign-in that is under way, to be kept in the app's session until the callback. */
export interface PendingSignIn {
  readonly state: string
  readonly nonce: string
  readonly verifier: string
  readonly returnTo: string
}

export interface BeginOptions {
  /** Where the user wants to be afterwards: a path of this app; default `/`. Another site's is not followed. */
  returnTo?: string | undefined
  /** OpenID Connect Core 1.0 §3.1.2.1: `login`, `consent`, `select_account` or `none`. */
  prompt?: string
  loginHint?: string
}

/**
 * Signing in and out with any framework; `./express` and `./fastify` are made of it. With a framework of web requests
 * (Next.js, Hono, SvelteKit) `handle`, `userOf` and `tokenOf` are all that is needed; with any other, the steps one by one.
 */
export interface SignIn {
  readonly tokenCache: TokenCache
  readonly clients: Clients
  readonly paths: Paths
  /** `baseUrl` without a slash at its end. */
  readonly baseUrl: string
  /**
   * Answers the three routes; undefined for any other request.
   *
   * @param session the app's own session of that browser: an object on which one member is kept. Save it afterwards
   * @throws as `complete` does
   */
  handle(request: Request, session: object): Promise<Response | undefined>
  /** Who is signed in by this session, and still is: the guard. Undefined: nobody. */
  userOf(session: object): Promise<SignedInUser | undefined>
  /**
   * An access token of who is signed in by this session. Undefined: nobody is, or only a new sign-in helps.
   *
   * @param scopes default the option `scopes`
   */
  tokenOf(session: object, scopes?: readonly string[]): Promise<string | undefined>
  /** Begins a sign-in: send the browser to `url`, and keep `pending` in its session. */
  begin(options?: BeginOptions): Promise<{ readonly url: string; readonly pending: PendingSignIn }>
  /**
   * Completes a sign-in: checks state, issuer and nonce, redeems the code with PKCE, and stores the tokens.
   *
   * @param query of the callback
   * @param pending what the browser's session has of `begin`, of several tabs perhaps
   * @throws {SignInFailedError} where it is none of ours, or the provider said no: 400
   * @throws {SignedOutError} where the session was ended meanwhile
   */
  complete(
    query: unknown,
    pending: readonly (PendingSignIn | undefined)[]
  ): Promise<{ readonly user: SignedInUser; readonly returnTo: string }>
  /** Whether the user is still signed in: by the sid, or without one by the subject; with the option `whenUnavailable`. */
  isActive(user: SignedInUser): Promise<boolean>
  /**
   * An access token, from the cache or by a refresh.
   *
   * @param scopes default the option `scopes`
   * @throws {SignedOutError} where only a new sign-in helps: end the session of the app
   */
  token(user: SignedInUser, scopes?: readonly string[]): Promise<string>
  /** Forgets the user's tokens in this app; resolves with the URL where the provider ends its session, too. */
  end(user: SignedInUser | undefined): Promise<string>
  /**
   * Looks at everything that the app needs, best before it listens: database, role, keys, and the provider.
   *
   * @throws as `tokenCache.check` does
   */
  check(): Promise<void>
}

// MSAL's codes for what a new sign-in mends.
const reasons: Readonly<Record<string, string>> = {
  invalid_grant: 'the code was used before, or is too old',
  nonce_mismatch: 'the ID token has another "nonce" than this sign-in'
}

const defaultPaths: Paths = { signIn: '/sign-in', callback: '/callback', signOut: '/sign-out' }

/** @throws {TokenCacheMisuseError} where an option is missing or cannot be used */
export function createSignIn(options: SignInOptions): SignIn {
  const tokenCache = createTokenCache(options)
  const configuration = configurationOf(tokenCache.clientId, options)
  const clients = createClients({
    tokenCache,
    configuration,
    ...(options.ConfidentialClientApplication && {
      ConfidentialClientApplication: options.ConfidentialClientApplication
    })
  })
  const baseUrl = baseUrlOf(options.baseUrl)
  const paths = pathsOf(options.paths)
  const redirectUri = baseUrl + paths.callback
  const scopes = listOf(options.scopes ?? [], 'scopes', "['Mail.Read']")
  const claims = listOf(options.claims ?? [], 'claims', "['email']")
  checkWhenUnavailable(options.whenUnavailable)
  let metadata: Promise<Metadata> | undefined
  const onWarning = options.onWarning ?? ((message: string) => process.emitWarning(message, 'msal-logout'))

  function askProvider(): Promise<Metadata> {
    metadata ??= fetchMetadata(configuration).catch((error: unknown) => {
      metadata = undefined // the next one asks again
      throw error
    })
    return metadata
  }

  async function isActive(user: SignedInUser): Promise<boolean> {
    try {
      return await tokenCache.isSessionActive(user)
    } catch (error) {
      if (options.whenUnavailable === 'pass' && memberOf(error, 'isUnavailable') === true) {
        return true
      }
      throw error
    }
  }

  const signIn: SignIn = {
    tokenCache,
    clients,
    paths,
    baseUrl,

    async handle(request, session) {
      const { pathname, searchParams } = new URL(request.url)
      const path = pathname.replace(/\/$/, '')
      const state = readState(session)
      const isAt = (route: string) => request.method === 'GET' && path === new URL(baseUrl + route).pathname
      if ((isAt(paths.signIn) || isAt(paths.signOut)) && !isNavigation((name) => request.headers.get(name))) {
        return new Response(notNavigation, { status: 403, headers: { 'cache-control': 'no-store' } })
      }
      if (isAt(paths.signIn)) {
        const { url, pending } = await signIn.begin({ returnTo: searchParams.get('returnTo') ?? undefined })
        writeState(session, addPending(state, pending))
        return redirectTo(url)
      }
      if (isAt(paths.callback)) {
        const { user, returnTo } = await signIn.complete(searchParams, state?.pending ?? [])
        writeState(session, { user })
        return redirectTo(new URL(returnTo, baseUrl).href)
      }
      if (isAt(paths.signOut)) {
        writeState(session, {})
        return redirectTo(await signIn.end(state?.user))
      }
      return undefined
    },

    async userOf(session) {
      const user = readState(session)?.user
      return user !== undefined && (await isActive(user)) ? user : undefined
    },

    async tokenOf(session, wanted) {
      const user = await signIn.userOf(session)
      try {
        return user && (await signIn.token(user, wanted))
      } catch (error) {
        if (error instanceof SignedOutError) {
          return undefined
        }
        throw error
      }
    },

    async begin({ returnTo, prompt, loginHint } = {}) {
      const pending = { state: random(), nonce: random(), verifier: random(), returnTo: localPath(returnTo, baseUrl) }
      const client = await clients.forLogin()
      const url = await client.getAuthCodeUrl({
        scopes,
        redirectUri,
        state: pending.state,
        nonce: pending.nonce,
        codeChallenge: createHash('sha256').update(pending.verifier).digest('base64url'), // RFC 7636 §4.2
        codeChallengeMethod: 'S256',
        ...(prompt !== undefined && { prompt }),
        ...(loginHint !== undefined && { loginHint })
      })
      return { url, pending }
    },

    async complete(query, pending) {
      const { code, state, error, iss } = textsOf(query)
      const begun = pending.find((each) => each?.state === state && state !== undefined)
      if (begun === undefined) {
        throw new SignInFailedError(
          'no sign-in of this browser is under way with this "state" (was it begun at another host than "baseUrl"? Is the session\'s cookie sameSite "strict", or "secure" without HTTPS? Behind a proxy Express needs app.set("trust proxy", 1))'
        )
      }
      if (error !== undefined) {
        throw new SignInFailedError(`the provider answered "${error.replace(/[^\w.-]/g, '').slice(0, 64)}"`)
      }
      if (code === undefined) {
        throw new SignInFailedError('the provider sent no "code"')
      }
      const { nonce, verifier: codeVerifier, returnTo } = begun
      const { issuer } = await askProvider()
      // RFC 9207: an answer that another provider mixed in says so.
      if (iss !== undefined && issuer !== undefined && iss !== issuer) {
        throw new SignInFailedError('the answer bears another "iss" than the provider')
      }
      const client = await clients.forLogin({ nonce, issuer })
      const request = { code, scopes, redirectUri, codeVerifier, nonce }
      const result = await client.acquireTokenByCode(request).catch((cause: unknown) => {
        const reason = reasons[String(memberOf(cause, 'errorCode'))]
        throw reason === undefined ? explainClient(cause) : new SignInFailedError(reason, { cause })
      })
      const user = result.account && userOf(result.account, { ...result.idTokenClaims }, claims)
      if (!user) {
        throw new SignInFailedError('the ID token has no "iss" and "sub"')
      }
      return { user, returnTo }
    },

    isActive,

    async token(user, wanted = scopes) {
      if (!isObject(user)) {
        throw new SignedOutError() // nobody is signed in: JavaScript does not look at types
      }
      const asked = listOf(wanted, 'scopes', "token(['Mail.Read'])")
      try {
        const client = await clients.forAccount(user.homeAccountId)
        const { accessToken } = await client.acquireTokenSilent({ account: user, scopes: asked })
        return accessToken
      } catch (error) {
        if (isSignInRequired(error) && !(error instanceof SignedOutError)) {
          throw new SignedOutError({ cause: error })
        }
        throw explainClient(error)
      }
    },

    async end(user) {
      const idToken = user && (await idTokenOf(clients, user).catch(() => undefined))
      try {
        await (user && tokenCache.removeAccount(user.homeAccountId))
      } catch (error) {
        // The user leaves all the same; the provider's own logout comes back to the service, which keeps it.
        onWarning(`the tokens of a user who signs out could not be deleted: ${String(error)}`)
      }
      const { endSessionEndpoint } = await askProvider().catch((error: unknown) => {
        onWarning(`a user signs out here, and not at the provider: ${String(error)}`)
        return { endSessionEndpoint: undefined }
      })
      if (endSessionEndpoint === undefined) {
        return baseUrl
      }
      // OpenID Connect RP-Initiated Logout 1.0 §2
      const url = new URL(endSessionEndpoint)
      url.searchParams.set('client_id', tokenCache.clientId)
      url.searchParams.set('post_logout_redirect_uri', baseUrl)
      if (idToken) {
        url.searchParams.set('id_token_hint', idToken)
      }
      return url.href
    },

    check: clients.check
  }
  return signIn
}

/** RFC 6749 §5.2: of the client, and never of the user; everything else stays as it is. */
function explainClient(error: unknown): unknown {
  const code = memberOf(error, 'errorCode')
  return code === 'invalid_client' || code === 'unauthorized_client'
    ? new TokenCacheMisuseError(
        `the provider rejects this client ("${code}"): is "clientSecret", or the certificate, right and not expired? MSAL sends a secret in the form, so the client must be registered for "client_secret_post"`,
        { cause: error }
      )
    : error
}

/** As `Response.redirect`, whose headers cannot be changed. */
function redirectTo(url: string): Response {
  return new Response(null, { status: 302, headers: { location: url, 'cache-control': 'no-store' } })
}

function configurationOf(clientId: string, { clientSecret, authority, configuration }: SignInOptions): Configuration {
  if (configuration !== undefined) {
    return configuration
  }
  if (!clientSecret || !authority) {
    throw new TokenCacheMisuseError(
      `"${clientSecret ? 'authority' : 'clientSecret'}" is missing: give "clientSecret" and "authority" (the issuer; for Entra ID https://login.microsoftonline.com/<tenant id>), or "configuration" as MSAL takes it`
    )
  }
  return { auth: { clientId, clientSecret, authority } }
}

function pathsOf(options: SignInOptions['paths']): Paths {
  const paths = { ...defaultPaths, ...options }
  for (const [name, path] of Object.entries(paths)) {
    if (typeof path !== 'string' || !/^\/[^?#]/.test(path)) {
      throw new TokenCacheMisuseError(`"paths.${name}" must be a path below "baseUrl" that begins with "/": "/sign-in"`)
    }
  }
  return paths
}

/** A text is a list of letters, where nobody looks. */
function listOf(value: unknown, name: string, usage: string): string[] {
  if (!Array.isArray(value) || !value.every((each) => typeof each === 'string')) {
    throw new TokenCacheMisuseError(`"${name}" must be an array of texts: ${usage}`)
  }
  return [...value]
}

function baseUrlOf(baseUrl: unknown): string {
  if (typeof baseUrl !== 'string' || !URL.canParse(baseUrl) || !/^https?:$/.test(new URL(baseUrl).protocol)) {
    throw new TokenCacheMisuseError(
      '"baseUrl" must be where browsers find this app: https://app.example.com, or http://localhost:3000 while it is developed'
    )
  }
  return baseUrl.replace(/\/+$/, '')
}

/** Only below this app: an address that somebody else put into a link must not be where a sign-in ends. */
function localPath(returnTo: string | undefined, baseUrl: string): string {
  const home = `${new URL(baseUrl).pathname.replace(/\/$/, '')}/`
  if (returnTo === undefined || !returnTo.startsWith('/') || returnTo.length > 1_024) {
    return home
  }
  const { origin } = new URL(baseUrl)
  const url = URL.canParse(returnTo, origin) ? new URL(returnTo, origin) : undefined
  // "/.//evil.example" is a path of this origin, and "//evil.example", which is left of it, is another host.
  return url?.origin === origin && !url.pathname.startsWith('//') ? url.pathname + url.search : home
}

/** The parameters of a callback that are a text each; a doubled one is none. */
function textsOf(query: unknown): Record<string, string | undefined> {
  const entries = query instanceof URLSearchParams ? [...query] : Object.entries(isObject(query) ? query : {})
  return Object.fromEntries(entries.filter((entry): entry is [string, string] => typeof entry[1] === 'string'))
}

type Account = Pick<SignedInUser, 'homeAccountId' | 'localAccountId' | 'environment' | 'tenantId' | 'username'> & {
  readonly name?: string
}

function userOf(
  { homeAccountId, localAccountId, environment, tenantId, username, name }: Account,
  claims: Record<string, unknown>,
  kept: readonly string[]
): SignedInUser | undefined {
  const { iss, sid, sub } = claims
  if (typeof iss !== 'string' || typeof sub !== 'string') {
    return undefined
  }
  return {
    homeAccountId,
    localAccountId,
    environment,
    tenantId,
    username,
    ...(name !== undefined && { name }),
    issuer: iss,
    sid: typeof sid === 'string' && sid !== '' ? sid : null,
    subject: sub,
    claims: Object.fromEntries(kept.filter((claim) => claim in claims).map((claim) => [claim, claims[claim]]))
  }
}

/** Of the user's row: shown to the provider, it need not ask who wants to leave. */
async function idTokenOf(clients: Clients, { homeAccountId, tenantId }: SignedInUser): Promise<string | undefined> {
  const client = await clients.forAccount(homeAccountId)
  const accounts = await client.getTokenCache().getAllAccounts()
  const account = accounts.find((each) => each.tenantId === tenantId) ?? accounts[0]
  return account?.idToken
}

function random(): string {
  return randomBytes(32).toString('base64url')
}

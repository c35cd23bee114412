// The driver of the Node client: README.md, "The driver".
import { once } from 'node:events'
import { createInterface } from 'node:readline'
import {
  ConfidentialClientApplication,
  type Configuration,
  DistributedCachePlugin,
  type ICachePlugin,
  type INetworkModule,
  type NetworkRequestOptions,
  type NetworkResponse
} from '@azure/msal-node'
import pg from 'pg'
import { createTokenCache, type TokenCache } from '../../node/src/index.ts'

interface Setup {
  readonly databaseUrl: string
  readonly clientId: string
  readonly clientSecret: string
  readonly authority: string
  readonly mode: 'oidc' | 'entra'
  readonly endpoint: string
  readonly encryption?: { current: string; keys: Record<string, string>; allowPlain?: boolean }
  readonly stock?: boolean
}

interface Request {
  readonly id: number
  readonly op: string
  readonly code: string
  readonly account: string
  readonly scopes: string[]
  readonly forceRefresh?: boolean
  readonly assertion: string
  readonly partition: string
  readonly issuer: string
  readonly sid: string | null
  readonly subject: string | null
  readonly hold?: string
  readonly of: number
}

const redirectUri = 'https://app.example/callback'
const releases = new Map<number, () => void>()
const write = (line: object) => process.stdout.write(`${JSON.stringify(line)}\n`)

/** MSAL's requests to any host, go to the endpoint. */
function createNetwork({ endpoint }: Setup): INetworkModule {
  async function send<T>(url: string, method: string, options?: NetworkRequestOptions): Promise<NetworkResponse<T>> {
    const target = url.replace(new URL(url).origin, endpoint)
    const body = options?.body === undefined ? {} : { body: options.body }
    const answer = await fetch(target, { method, headers: options?.headers ?? {}, ...body })
    return { status: answer.status, headers: {}, body: (await answer.json()) as T }
  }
  return {
    sendGetRequestAsync: (url, options) => send(url, 'GET', options),
    sendPostRequestAsync: (url, options) => send(url, 'POST', options)
  }
}

/** As msal-node's documentation stores the cache. */
function createStockPlugin(pool: pg.Pool, key: string): ICachePlugin {
  return new DistributedCachePlugin(
    {
      async get(key) {
        const { rows } = await pool.query('select value from stock_cache where key = $1', [key])
        return rows[0]?.value ?? ''
      },
      async set(key, value) {
        await pool.query(
          'insert into stock_cache values ($1, $2) on conflict (key) do update set value = excluded.value',
          [key, value]
        )
        return value
      }
    },
    { getKey: async () => key, extractKey: async (account) => account.homeAccountId }
  )
}

/** Waits before what MSAL has changed is stored. */
function heldPlugin(plugin: ICachePlugin, { id, hold }: Request): ICachePlugin {
  return {
    beforeCacheAccess: (context) => plugin.beforeCacheAccess(context),
    async afterCacheAccess(context) {
      if (hold === 'beforeSave' && context.cacheHasChanged) {
        const released = new Promise<void>((resolve) => releases.set(id, resolve))
        write({ id, held: true })
        await released
      }
      await plugin.afterCacheAccess(context)
    }
  }
}

function createDriver(setup: Setup) {
  const pool = new pg.Pool({ connectionString: setup.databaseUrl, max: 8 })
  pool.on('error', () => {})
  const { encryption } = setup
  const tokenCache: TokenCache = createTokenCache({
    pool,
    clientId: setup.clientId,
    onWarning: (message) => console.error(message),
    ...(encryption && {
      encryption: {
        ...encryption,
        keys: Object.fromEntries(Object.entries(encryption.keys).map(([id, key]) => [id, Buffer.from(key, 'hex')]))
      }
    })
  })
  const networkClient = createNetwork(setup)
  const { clientId, clientSecret, authority } = setup
  const metadata =
    setup.mode === 'oidc'
      ? {
          knownAuthorities: [new URL(authority).host],
          authorityMetadata: JSON.stringify({
            issuer: authority,
            authorization_endpoint: `${authority}/authorize`,
            token_endpoint: `${authority}/token`,
            jwks_uri: `${authority}/keys`
          })
        }
      : {}
  const system: NonNullable<Configuration['system']> = {
    networkClient,
    ...(setup.mode === 'oidc' ? { protocolMode: 'OIDC' as const } : {})
  }
  let stopListening: (() => Promise<void>) | undefined

  function clientFor(request: Request, plugin: ICachePlugin, stockKey: string): ConfidentialClientApplication {
    const cachePlugin = setup.stock === true ? createStockPlugin(pool, stockKey) : plugin
    return new ConfidentialClientApplication({
      auth: { clientId, clientSecret, authority, ...metadata },
      system,
      cache: { cachePlugin: heldPlugin(cachePlugin, request) }
    })
  }

  const sourceOf = (fromCache: boolean | undefined) => (fromCache === true ? 'cache' : 'provider')

  const operations: Record<string, (request: Request) => Promise<object>> = {
    async signIn(request) {
      const client = clientFor(request, tokenCache.forLogin(), '')
      const { account } = await client.acquireTokenByCode({
        code: request.code,
        scopes: request.scopes,
        redirectUri
      })
      const { iss = null, sid = null, sub = null } = account?.idTokenClaims ?? {}
      return { homeAccountId: account?.homeAccountId, issuer: iss, sid, subject: sub }
    },
    async silent(request) {
      const client = clientFor(request, tokenCache.forAccount(request.account), request.account)
      const account = await client.getTokenCache().getAccountByHomeId(request.account)
      if (account === null) {
        throw Object.assign(new Error('no account in the cache'), { code: 'no_tokens' })
      }
      const { forceRefresh = false, scopes } = request
      const result = await client.acquireTokenSilent({ account, scopes, forceRefresh })
      return { source: sourceOf(result.fromCache), accessToken: result.accessToken }
    },
    async onBehalfOf(request) {
      const client = clientFor(request, tokenCache.forAssertion(request.assertion), request.assertion)
      await client.getTokenCache().getAllAccounts()
      const result = await client.acquireTokenOnBehalfOf({ oboAssertion: request.assertion, scopes: request.scopes })
      return { source: sourceOf(result?.fromCache), accessToken: result?.accessToken }
    },
    async appToken(request) {
      const client = clientFor(request, tokenCache.forApp(request.partition), request.partition)
      const result = await client.acquireTokenByClientCredential({ scopes: request.scopes })
      return { source: sourceOf(result?.fromCache), accessToken: result?.accessToken }
    },
    async isSessionActive({ issuer, sid, subject }) {
      const session = { issuer, sid, subject } as Parameters<TokenCache['isSessionActive']>[0]
      return { active: await tokenCache.isSessionActive(session) }
    },
    removeAccount: async ({ account }) => ({ removed: await tokenCache.removeAccount(account) }),
    async listen() {
      stopListening = await tokenCache.onPurge(({ issuer, sid, subject, homeAccountId }) =>
        write({ event: 'revoked', session: { issuer, sid, subject, homeAccountId } })
      )
      return {}
    },
    async stopListening() {
      await stopListening?.()
      stopListening = undefined
      return {}
    },
    async release({ of }) {
      releases.get(of)?.()
      releases.delete(of)
      return {}
    }
  }

  return {
    async perform(request: Request): Promise<object> {
      const operation = operations[request.op]
      if (operation === undefined) {
        throw new Error(`no operation "${request.op}"`)
      }
      return operation(request)
    },
    async stop() {
      await stopListening?.()
      await pool.end()
    }
  }
}

const msalsNoTokens = ['no_tokens_found', 'no_account_found', 'no_account_in_silent_request']

function failure(error: unknown): { code: string; message: string } {
  if (!(error instanceof Error)) {
    return { code: 'unknown', message: String(error) }
  }
  const known = 'code' in error ? error.code : 'errorCode' in error ? error.errorCode : error.name
  const code = String(known)
  return { code: msalsNoTokens.includes(code) ? 'no_tokens' : code, message: error.message }
}

const lines = createInterface(process.stdin)
let driver: ReturnType<typeof createDriver> | undefined
const underWay = new Set<Promise<void>>()
lines.on('line', (line) => {
  const request = JSON.parse(line)
  if (request.op === 'configure') {
    driver = createDriver(request)
    write({ id: request.id, ok: {} })
    return
  }
  const done = (driver?.perform(request) ?? Promise.reject(new Error('not configured'))).then(
    (ok) => write({ id: request.id, ok }),
    (error: unknown) => write({ id: request.id, error: failure(error) })
  )
  const settled: Promise<void> = done.then(() => {
    underWay.delete(settled)
  })
  underWay.add(settled)
})
await once(lines, 'close')
for (const release of releases.values()) {
  release()
}
await Promise.all(underWay)
await driver?.stop()

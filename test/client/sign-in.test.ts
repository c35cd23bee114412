import { once } from 'node:events'
import type { Server } from 'node:http'
import cookie from '@fastify/cookie'
import fastifySession from '@fastify/session'
import cookieSession from 'cookie-session'
import express, { type Express } from 'express'
import session from 'express-session'
import fastify from 'fastify'
import passport from 'passport'
import pg from 'pg'
import t, { type Test } from 'tap'
import { CookieJar } from 'tough-cookie'
import type { SignInOptions } from '../../clients/node/src/index.ts'
import { createExpressSignIn, createSignIn, signInPlugin } from '../fixtures/client.ts'
import { createDatabase, type Database } from '../fixtures/database.ts'
import { authority, createTokenEndpoint, jwt, type Person } from '../fixtures/msal.ts'
import { signOutBySql } from '../fixtures/orders.ts'
import { startProxy } from '../fixtures/proxy.ts'

const clientId = 'client-a'
const secret = 'a secret of this test, of thirty-two bytes'
const alice: Person = { homeAccountId: 'Alice.t', subject: 'sub-alice', sid: 's-alice' }

const metadata = {
  issuer: authority,
  authorization_endpoint: `${authority}/authorize`,
  token_endpoint: `${authority}/token`,
  jwks_uri: `${authority}/keys`,
  end_session_endpoint: `${authority}/leave?kept=1`
}

/** What the provider has, and the test may change. */
interface Provider {
  readonly endpoint: ReturnType<typeof createTokenEndpoint>
  /** Claims that the next ID tokens have beside, or instead of, their own. */
  claims: Record<string, unknown>
  /** The forms that were posted to the token endpoint. */
  readonly forms: URLSearchParams[]
  readonly configuration: NonNullable<SignInOptions['configuration']>
  /** The query of the callback, for a person who signs in at this URL of the authorization endpoint. */
  authorize(url: string, person?: Person): URLSearchParams
}

/** MSAL's network, replaced at its edge: discovery, and a token endpoint whose code carries who signs in. */
function createProvider(): Provider {
  const endpoint = createTokenEndpoint()
  const forms: URLSearchParams[] = []
  const post = endpoint.sendPostRequestAsync.bind(endpoint)
  let nonce = ''
  endpoint.sendGetRequestAsync = (async () => ({ headers: {}, status: 200, body: metadata })) as never
  endpoint.sendPostRequestAsync = (async (url: string, options: { body: string }) => {
    forms.push(new URLSearchParams(options.body))
    const response = await post(url, options as never)
    const { id_token, ...body } = response.body as unknown as { id_token: string }
    const claims = JSON.parse(Buffer.from(id_token.split('.')[1] ?? '', 'base64url').toString())
    return { ...response, body: { ...body, id_token: jwt({ ...claims, nonce, ...provider.claims }) } }
  }) as never
  const provider: Provider = {
    endpoint,
    claims: {},
    forms,
    configuration: { auth: { clientId, clientSecret: 'secret', authority }, system: { networkClient: endpoint } },
    authorize(url, person = alice) {
      const { searchParams } = new URL(url)
      nonce = searchParams.get('nonce') ?? ''
      const code = Buffer.from(JSON.stringify(person)).toString('base64url')
      return new URLSearchParams({ code, state: searchParams.get('state') ?? '', iss: authority })
    }
  }
  return provider
}

function signOut(database: Database, { sid }: { sid: string }): Promise<void> {
  return signOutBySql(database, { kind: 'session', issuer: authority, sid })
}

/** What browsers say of a request by which they do not open a page. */
const fetched: Readonly<Record<string, Record<string, string>>> = {
  'a link that is fetched ahead': { 'sec-purpose': 'prefetch;prerender', 'sec-fetch-dest': 'document' },
  'the same, by an older browser': { purpose: 'prefetch' },
  'a link of Next.js': { rsc: '1', 'next-router-prefetch': '1' },
  'a script': { 'sec-fetch-dest': 'empty' },
  'an image of another site': { 'sec-fetch-dest': 'image', 'sec-fetch-site': 'cross-site' }
}
const opened = { 'sec-fetch-dest': 'document', 'sec-fetch-site': 'same-origin' }

// The core, which any framework can use

async function buildCore(t: Test, options: Partial<SignInOptions> = {}) {
  const database = await createDatabase(t)
  const provider = createProvider()
  const signIn = createSignIn({
    pool: database.pool,
    clientId,
    configuration: provider.configuration,
    baseUrl: 'https://app.example/',
    onWarning: () => {},
    ...options
  })
  return { database, provider, signIn }
}

t.test('a sign-in begins with state, nonce and PKCE, and ends with a user who has no token', async (t) => {
  const { provider, signIn } = await buildCore(t, { scopes: ['api-1'], claims: ['email', 'roles', 'absent'] })
  provider.claims = { email: 'alice@example.com', roles: ['reader'] }
  const { url, pending } = await signIn.begin({ returnTo: '/mail?page=2' })
  const { searchParams } = new URL(url)
  t.equal(searchParams.get('redirect_uri'), 'https://app.example/callback')
  t.equal(searchParams.get('code_challenge_method'), 'S256')
  t.match(searchParams.get('scope'), /api-1.*openid/)
  for (const name of ['state', 'nonce', 'code_challenge']) {
    t.match(searchParams.get(name), /^[\w-]{43}$/, name)
  }
  const { user, returnTo } = await signIn.complete(provider.authorize(url), [pending])
  t.equal(returnTo, '/mail?page=2')
  t.same(user, {
    homeAccountId: 'Alice.t',
    localAccountId: 'sub-alice',
    environment: 'login.example',
    tenantId: 't',
    username: '',
    issuer: authority,
    sid: 's-alice',
    subject: 'sub-alice',
    claims: { email: 'alice@example.com', roles: ['reader'] }
  })
  t.equal(provider.forms[0]?.get('code_verifier'), pending.verifier)
  t.equal(await signIn.isActive(user), true)
  t.match(await signIn.token(user), /^at-Alice/)
  t.equal(provider.forms.length, 1, 'from the cache')
  t.match(await signIn.token(user, ['api-2']), /^at-Alice/)
  t.equal(provider.forms.length, 2, 'by a refresh')
})

t.test('a callback that is none of ours is refused, and nothing is stored', async (t) => {
  const { database, provider, signIn } = await buildCore(t)
  const begun = await signIn.begin()
  const right = provider.authorize(begun.url)
  const change = (changes: Record<string, string | undefined>) => {
    const query = new URLSearchParams(right)
    for (const [name, value] of Object.entries(changes)) {
      if (value === undefined) {
        query.delete(name)
      } else {
        query.set(name, value)
      }
    }
    return query
  }
  const cases: [string, unknown, (typeof begun.pending)[], RegExp, Record<string, unknown>?][] = [
    ['another state', change({ state: 'x' }), [begun.pending], /"state"/],
    ['no state', change({ state: undefined }), [begun.pending], /"state"/],
    ['a browser that has begun nothing', right, [], /"state"/],
    ['a doubled code', { ...Object.fromEntries(right), code: ['a', 'b'] }, [begun.pending], /no "code"/],
    ['no code', change({ code: undefined }), [begun.pending], /no "code"/],
    ['no query', undefined, [begun.pending], /"state"/],
    ['a refusal', change({ error: 'access_denied<script>' }), [begun.pending], /answered "access_deniedscript"/],
    ['another iss in the answer', change({ iss: 'https://evil.example' }), [begun.pending], /another "iss"/],
    ['another nonce', right, [begun.pending], /nonce/, { nonce: 'x' }],
    ['no nonce', right, [begun.pending], /nonce/, { nonce: undefined }],
    [
      'an ID token of another issuer',
      change({ iss: undefined }),
      [begun.pending],
      /another "iss"/,
      { iss: 'https://evil.example' }
    ],
    ['an ID token for another client', right, [begun.pending], /for the client id/, { aud: 'client-b' }]
  ]
  for (const [name, query, pending, message, claims = {}] of cases) {
    provider.claims = claims
    await t.rejects(signIn.complete(query, pending), { message }, name)
  }
  t.same(await database.query('select * from msal_logout.sessions'), [])
})

t.test('a sign-in goes back to this app alone', async (t) => {
  const { signIn } = await buildCore(t, { baseUrl: 'https://app.example/portal' })
  for (const [returnTo, expected] of [
    ['/portal/mail?a=b', '/portal/mail?a=b'],
    [undefined, '/portal/'],
    ['//evil.example', '/portal/'],
    ['/\\evil.example', '/portal/'],
    ['https://evil.example', '/portal/'],
    ['/\t/evil.example', '/portal/'],
    ['/.//evil.example', '/portal/'],
    ['/a/..//evil.example', '/portal/'],
    ['/%2e/\\evil.example', '/portal/'],
    ['/portal//mail', '/portal//mail'],
    ['javascript:alert(1)', '/portal/'],
    [`/${'x'.repeat(2_000)}`, '/portal/']
  ] as const) {
    const { pending } = await signIn.begin({ returnTo })
    t.equal(pending.returnTo, expected, String(returnTo))
  }
})

t.test('a sign-out forgets the tokens, and ends the session of the provider, too', async (t) => {
  const { database, provider, signIn } = await buildCore(t)
  const { url, pending } = await signIn.begin()
  const { user } = await signIn.complete(provider.authorize(url), [pending])
  const leave = new URL(await signIn.end(user))
  t.equal(leave.origin + leave.pathname, `${authority}/leave`)
  const { id_token_hint, ...rest } = Object.fromEntries(leave.searchParams)
  t.same(rest, { kept: '1', client_id: clientId, post_logout_redirect_uri: 'https://app.example' })
  t.match(Buffer.from(id_token_hint?.split('.')[1] ?? '', 'base64url').toString(), /s-alice/)
  t.same(await database.query('select * from msal_logout.token_cache'), [])
  t.equal(await signIn.isActive(user), false)
  t.ok((await signIn.end(undefined)).startsWith(`${authority}/leave`), 'and nobody may leave, too')
})

t.test('a client that the provider rejects is no fault of the user: it is said what to mend', async (t) => {
  const { provider, signIn } = await buildCore(t)
  const { url, pending } = await signIn.begin()
  const { user } = await signIn.complete(provider.authorize(url), [pending])
  for (const error of ['invalid_client', 'unauthorized_client']) {
    provider.endpoint.sendPostRequestAsync = (async () => ({ headers: {}, status: 401, body: { error } })) as never
    const failure = { code: 'ERR_TOKEN_CACHE_MISUSE', message: /is "clientSecret".*"client_secret_post"/ }
    await t.rejects(signIn.token(user, ['api-9']), failure)
    const again = await signIn.begin()
    await t.rejects(signIn.complete(provider.authorize(again.url), [again.pending]), failure)
  }
  t.equal(await signIn.isActive(user), true, 'and who is signed in stays so')
})

t.test('a user who is signed out gets no token, in one way only', async (t) => {
  const { database, provider, signIn } = await buildCore(t)
  const { url, pending } = await signIn.begin()
  const { user } = await signIn.complete(provider.authorize(url), [pending])
  await signOut(database, { sid: 's-alice' })
  await t.rejects(signIn.token(user), { code: 'ERR_SIGNED_OUT', statusCode: 401 })
  await t.rejects(signIn.token(undefined as never), { code: 'ERR_SIGNED_OUT' }, 'nor does nobody')
  t.equal(await signIn.isActive(user), false)
  await t.rejects(signIn.token(user, 'Mail.Read' as never), { message: /must be an array of texts: token\(\['Mail/ })
  const again = await signIn.begin()
  provider.claims = { iat: Math.floor(Date.now() / 1_000) - 10 }
  await t.rejects(signIn.complete(provider.authorize(again.url), [again.pending]), { code: 'ERR_SIGNED_OUT' })
})

t.test('a framework of web requests needs three calls, and gets no error by a sign-out', async (t) => {
  const { database, provider, signIn } = await buildCore(t)
  const session = {}
  const get = (path: string) => signIn.handle(new Request(`https://app.example${path}`), session)
  t.equal(await signIn.userOf(session), undefined)
  t.equal(await signIn.tokenOf(session), undefined)
  t.equal(await get('/'), undefined, 'a page of the app')
  t.equal(await signIn.handle(new Request('https://app.example/sign-in', { method: 'POST' }), session), undefined)
  const begun = await get('/sign-in?returnTo=/page')
  t.match(begun, { status: 302 })
  const returned = await get(`/callback?${provider.authorize(begun?.headers.get('location') ?? '')}`)
  t.equal(returned?.headers.get('location'), 'https://app.example/page')
  t.match(await signIn.userOf(session), { homeAccountId: 'Alice.t', subject: 'sub-alice' })
  t.match(await signIn.tokenOf(session), /^at-Alice/)

  for (const [name, headers] of Object.entries(fetched)) {
    const url = 'https://app.example/sign-out'
    t.match(await signIn.handle(new Request(url, { headers }), session), { status: 403 }, name)
  }
  t.match(await signIn.userOf(session), { subject: 'sub-alice' }, 'what opens no page signs nobody out')

  provider.endpoint.beforeAnswer = () => signOut(database, { sid: 's-alice' })
  t.equal(await signIn.tokenOf(session, ['api-9']), undefined, 'signed out while the provider answers')
  t.equal(await signIn.userOf(session), undefined)
  const left = await get('/sign-out')
  t.match(left?.headers.get('location'), /\/leave\?/)
  t.notMatch(JSON.stringify(session), 'Alice')
  await t.rejects(get('/callback?code=c&state=s'), { code: 'ERR_SIGN_IN_FAILED', statusCode: 400 })
})

t.test('options that are missing say what to do', async (t) => {
  const { pool } = await createDatabase(t)
  const base = { pool, clientId, clientSecret: 'secret', authority, baseUrl: 'https://app.example' }
  for (const [options, message] of [
    [{ ...base, clientSecret: undefined }, /"clientSecret" is missing/],
    [{ ...base, authority: '' }, /"authority" is missing/],
    [{ ...base, baseUrl: undefined }, /"baseUrl" must be where browsers find this app/],
    [{ ...base, baseUrl: 'app.example' }, /"baseUrl"/],
    [{ ...base, clientId: undefined }, /"clientId" is undefined/],
    [{ ...base, scopes: 'Mail.Read' as never }, /"scopes" must be an array of texts/],
    [{ ...base, claims: 'email' as never }, /"claims" must be an array of texts/],
    [{ ...base, paths: { signIn: 'login' } }, /"paths.signIn" must be a path/],
    [{ ...base, paths: { callback: undefined as never } }, /"paths.callback" must be a path/],
    [{ ...base, whenUnavailable: 'allow' as never }, /"whenUnavailable" must be "fail" or "pass"/],
    [{ ...base, configuration: { auth: { clientId: 'another' } } }, /has "another": give both the same/]
  ] as const) {
    t.throws(() => createSignIn(options), { code: 'ERR_TOKEN_CACHE_MISUSE', message })
  }
})

// Frameworks and their sessions

interface App {
  readonly database: Database
  readonly provider: Provider
  readonly url: string
  /** The app's way to the database. */
  readonly proxy: Awaited<ReturnType<typeof startProxy>>
  /** How often the app's own handler for `/cart` has run. */
  readonly handled: () => number
}

const setUps: Record<
  string,
  (options: SignInOptions, handled: () => void) => Promise<{ server: Server; close(): unknown }>
> = {
  'express-session': (options, handled) =>
    listen(expressApp(session({ secret, resave: false, saveUninitialized: false }), options, handled)),

  'express-session and passport': (options, handled) => {
    passport.serializeUser((user, done) => done(null, user))
    passport.deserializeUser((user, done) => done(null, user as Express.User))
    return listen(
      expressApp(session({ secret, resave: false, saveUninitialized: false }), options, handled, passport.session())
    )
  },

  'cookie-session': (options, handled) => listen(expressApp(cookieSession({ secret }), options, handled)),

  'cookie-session and passport': (options, handled) =>
    listen(expressApp(cookieSession({ secret }), options, handled, passport.session())),

  '@fastify/session': (options, handled) =>
    fastifyApp(options, handled, async (app) => {
      await app.register(cookie)
      await app.register(fastifySession, { secret, cookie: { secure: false }, saveUninitialized: false })
    }),

  '@fastify/cookie': (options, handled) =>
    fastifyApp(options, handled, async (app) => {
      await app.register(cookie, { secret })
    })
}

function expressApp(
  sessions: express.RequestHandler,
  options: SignInOptions,
  handled: () => void,
  ...further: express.RequestHandler[]
): Express {
  const app = express()
  const signIn = createExpressSignIn(options)
  app.use(sessions, ...further)
  app.use(signIn)
  app.get('/', (request, response) => {
    response.send(request.user ? `signed in as ${request.user.username || request.user.subject}` : 'nobody')
  })
  // A handler of an app reads its session, whoever is signed in.
  app.get('/cart', (request, response) => {
    handled()
    const own = request.session as unknown as { cart?: number }
    own.cart = (own.cart ?? 0) + 1
    response.json({ cart: own.cart, state: request.session })
  })
  app.get('/page', signIn.required, (_request, response) => {
    response.send('a page')
  })
  app.get('/token', signIn.required, async (request, response) => {
    response.json({
      token: await request.token(typeof request.query.scope === 'string' ? [request.query.scope] : undefined)
    })
  })
  app.get('/token-of-anybody', async (request, response) => {
    response.json({ token: await request.token() })
  })
  app.use(signIn.onError)
  app.use(((error, _request, response, _next) => {
    response.status(error.status ?? 500).json({ code: error.code, message: error.message })
  }) satisfies express.ErrorRequestHandler)
  return app
}

async function listen(app: Express) {
  const server = app.listen(0, '127.0.0.1')
  await once(server, 'listening')
  return {
    server,
    close() {
      server.closeAllConnections()
      server.close()
    }
  }
}

async function fastifyApp(
  options: SignInOptions,
  handled: () => void,
  sessions: (app: ReturnType<typeof fastify>) => Promise<void>
) {
  const app = fastify()
  await sessions(app)
  await app.register(signInPlugin, options)
  app.get('/', async (request) => (request.user ? `signed in as ${request.user.subject}` : 'nobody'))
  app.get('/cart', async (request) => {
    handled()
    const own = ((request as { session?: unknown }).session ?? {}) as { cart?: number }
    own.cart = (own.cart ?? 0) + 1
    return { cart: own.cart, state: own }
  })
  app.get('/page', { preHandler: app.requireSignIn }, async () => 'a page')
  app.get<{ Querystring: { scope?: string } }>('/token', { preHandler: app.requireSignIn }, async (request) => ({
    token: await request.token(request.query.scope ? [request.query.scope] : undefined)
  }))
  app.get('/token-of-anybody', async (request) => ({ token: await request.token() }))
  await app.listen({ port: 0, host: '127.0.0.1' })
  return { server: app.server, close: () => app.close() }
}

async function build(t: Test, kind: string, options: Partial<SignInOptions> = {}): Promise<App> {
  const database = await createDatabase(t)
  const proxy = await startProxy(t, database.url)
  const url = new URL(database.url)
  url.host = `127.0.0.1:${proxy.port}`
  const pool = new pg.Pool({ connectionString: url.href })
  pool.on('error', () => {})
  t.teardown(() => pool.end())
  const provider = createProvider()
  let handled = 0
  const { server, close } = await (setUps[kind] as (typeof setUps)[string])(
    {
      pool,
      clientId,
      configuration: provider.configuration,
      baseUrl: 'http://app.example',
      onWarning: () => {},
      ...options
    },
    () => {
      handled += 1
    }
  )
  t.teardown(close)
  const { port } = server.address() as { port: number }
  return { database, provider, proxy, url: `http://127.0.0.1:${port}`, handled: () => handled }
}

/** A browser without redirects: what it is answered is looked at step by step. */
function createBrowser(app: App) {
  const jar = new CookieJar()
  return {
    jar,
    async get(path: string, { html = false, headers = {}, method = 'GET' } = {}) {
      const response = await fetch(app.url + path, {
        method,
        redirect: 'manual',
        headers: {
          ...headers,
          cookie: await jar.getCookieString(app.url),
          accept: html ? 'text/html,*/*' : 'application/json'
        }
      })
      for (const line of response.headers.getSetCookie()) {
        await jar.setCookie(line, app.url)
      }
      const location = response.headers.get('location')
      return { status: response.status, location, body: await response.text() }
    },
    async signIn(returnTo = '/', person?: Person) {
      const begun = await this.get(`/sign-in?${new URLSearchParams({ returnTo })}`)
      return this.get(`/callback?${app.provider.authorize(begun.location ?? '', person)}`)
    },
    /** Everything that the browser keeps. */
    cookies: () => jar.getCookieString(app.url)
  }
}

for (const kind of Object.keys(setUps)) {
  t.test(`with ${kind}`, async (t) => {
    await t.test('a user signs in, gets tokens, and signs out', async (t) => {
      const app = await build(t, kind)
      const browser = createBrowser(app)
      t.match(await browser.get('/'), { status: 200, body: 'nobody' })
      t.match(await browser.get('/page', { html: true }), { status: 302, location: '/sign-in?returnTo=%2Fpage' })
      t.match(await browser.get('/page'), { status: 401 })
      t.match(await browser.get('/token-of-anybody'), { status: 401 })
      t.match(await browser.signIn('/page'), { status: 302, location: '/page' })
      t.match(await browser.get('/page'), { status: 200, body: 'a page' })
      t.match(await browser.get('/'), { body: 'signed in as sub-alice' })
      t.match(await browser.get('/token'), { status: 200, body: /at-Alice/ })
      t.equal(app.provider.forms.length, 1)
      const left = await browser.get('/sign-out')
      t.equal(left.status, 302)
      t.match(left.location, /\/leave\?.*id_token_hint=/)
      t.match(await browser.get('/'), { body: 'nobody' })
      t.same(await app.database.query('select * from msal_logout.token_cache'), [])
    })

    await t.test('a sign-out elsewhere ends the session with the next request, and never by 500', async (t) => {
      const app = await build(t, kind)
      const browser = createBrowser(app)
      await browser.signIn()
      await browser.get('/cart')
      await signOut(app.database, { sid: 's-alice' })
      const cart = await browser.get('/cart')
      t.match(cart, { status: 200 }, 'a handler finds a session without anything in it')
      t.match(JSON.parse(cart.body), { cart: 1 })
      t.match(await browser.get('/'), { status: 200, body: 'nobody' })
      t.match(await browser.get('/page'), { status: 401 })
      t.match(await browser.get('/page', { html: true }), { status: 302 })
      t.match(await browser.signIn('/', { ...alice, sid: 's-2', issuedAt: Math.floor(Date.now() / 1_000) + 5 }), {
        status: 302
      })
      t.match(await browser.get('/'), { body: 'signed in as sub-alice' })
    })

    await t.test('a sign-out in the middle of a request: 401 or to sign in, and nobody afterwards', async (t) => {
      for (const html of [false, true]) {
        const app = await build(t, kind)
        const browser = createBrowser(app)
        await browser.signIn()
        app.provider.endpoint.beforeAnswer = async () => void (await signOut(app.database, { sid: 's-alice' }))
        const answer = await browser.get('/token?scope=api-2', { html })
        t.equal(answer.status, html && !kind.startsWith('@fastify') ? 302 : 401)
        t.match(await browser.get('/'), { status: 200, body: 'nobody' })
      }
    })

    await t.test('no token, and no code, is in what the browser or the session keeps', async (t) => {
      const app = await build(t, kind)
      const browser = createBrowser(app)
      await browser.signIn()
      const { body } = await browser.get('/cart')
      const cookies = await browser.cookies()
      const kept = [
        body,
        cookies,
        decodeURIComponent(cookies),
        Buffer.from(cookies.split('=')[1] ?? '', 'base64').toString()
      ]
      const code = Buffer.from(JSON.stringify(alice)).toString('base64url')
      for (const text of kept) {
        t.notMatch(text, /at-Alice|refresh_token|eyJ\w+\.eyJ\w+\./)
        t.notMatch(text, code)
      }
    })

    await t.test('several tabs can sign in at once, and a code is taken once', async (t) => {
      const app = await build(t, kind)
      const browser = createBrowser(app)
      const first = await browser.get('/sign-in?returnTo=/page')
      const second = await browser.get('/sign-in')
      t.not(first.location, second.location)
      const callback = `/callback?${app.provider.authorize(first.location ?? '')}`
      t.match(await browser.get(callback), { status: 302, location: '/page' })
      t.match(await browser.get(callback), { status: 400 })
      t.match(await browser.get('/'), { body: 'signed in as sub-alice' }, 'and who is signed in stays so')
    })

    await t.test("another browser's callback signs nobody in", async (t) => {
      const app = await build(t, kind)
      const begun = await createBrowser(app).get('/sign-in')
      const victim = createBrowser(app)
      t.match(await victim.get(`/callback?${app.provider.authorize(begun.location ?? '')}`), { status: 400 })
      t.match(await victim.get('/'), { body: 'nobody' })
    })

    await t.test('what opens no page begins no sign-in, and signs nobody out', async (t) => {
      const app = await build(t, kind)
      const browser = createBrowser(app)
      await browser.signIn()
      for (const [name, headers] of Object.entries(fetched)) {
        for (const path of ['/sign-in', '/sign-out']) {
          const answer = await browser.get(path, { headers })
          t.match(answer, { status: 403, location: null, body: /<a href>/ }, `${name}: ${path}`)
        }
        t.match(await browser.get('/', { headers }), { status: 200, body: 'signed in as sub-alice' }, name)
      }
      t.match(await browser.get('/sign-out', { method: 'HEAD' }), { status: 404 })
      t.match(await browser.get('/'), { body: 'signed in as sub-alice' })
      t.match(await browser.get('/sign-out', { headers: opened }), { status: 302, location: /\/leave\?/ })
      t.match(await browser.get('/'), { body: 'nobody' })
    })

    await t.test('a database that cannot be reached fails the request with 503, or lets it pass', async (t) => {
      for (const whenUnavailable of ['fail', 'pass'] as const) {
        const app = await build(t, kind, { whenUnavailable })
        const browser = createBrowser(app)
        await browser.signIn()
        app.proxy.set('cut')
        t.match(
          await browser.get('/'),
          whenUnavailable === 'pass'
            ? { status: 200, body: 'signed in as sub-alice' }
            : { status: 503, body: /ERR_TOKEN_CACHE_DATABASE/ }
        )
        t.match(await createBrowser(app).get('/'), { status: 200, body: 'nobody' }, 'nobody needs no database')
        app.proxy.set('open')
        t.match(await browser.get('/'), { status: 200, body: 'signed in as sub-alice' }, 'and it recovers')
      }
    })
  })
}

for (const kind of ['express-session', '@fastify/session']) {
  t.test(`with ${kind} a new session begins with the sign-in, so that an older id is worth nothing`, async (t) => {
    const app = await build(t, kind)
    const browser = createBrowser(app)
    await browser.get('/cart')
    await browser.get('/sign-in')
    const before = await browser.cookies()
    await browser.signIn()
    t.not(await browser.cookies(), before)
    const attacker = createBrowser(app)
    for (const each of before.split('; ')) {
      await attacker.jar.setCookie(each, app.url)
    }
    t.match(await attacker.get('/'), { body: 'nobody' })
  })
}

t.test('with @fastify/cookie a cookie that was changed, or is of another program, is nobody', async (t) => {
  const app = await build(t, '@fastify/cookie')
  const browser = createBrowser(app)
  await browser.signIn()
  const [name = '', value = ''] = (await browser.cookies()).split('=')
  for (const changed of [value.replace('s-alice', 's-bobby'), value.slice(0, -4), '', 's%3A', '%22%22.x']) {
    const other = createBrowser(app)
    await other.jar.setCookie(`${name}=${changed}`, app.url)
    t.match(await other.get('/'), { status: 200, body: 'nobody' })
  }
})

t.test('what is missing before it is told', async (t) => {
  const { pool } = await createDatabase(t)
  const options = { pool, clientId, clientSecret: 'secret', authority, baseUrl: 'http://localhost' }
  const code = 'ERR_TOKEN_CACHE_MISUSE'
  for (const sessions of [
    async () => {},
    async (app: ReturnType<typeof fastify>) => void (await app.register(cookie))
  ]) {
    const app = fastify()
    await sessions(app)
    await t.rejects(async () => app.register(signInPlugin, options), {
      code,
      message: /@fastify\/cookie with a secret/
    })
    await app.close().catch(() => {})
  }
  const app = express()
  app.use(createExpressSignIn(options))
  app.use(((error, _request, response, _next) => {
    response.status(500).json({ code: error.code, message: error.message })
  }) satisfies express.ErrorRequestHandler)
  const { server, close } = await listen(app)
  t.teardown(close)
  const answer = await fetch(`http://127.0.0.1:${(server.address() as { port: number }).port}/`)
  t.match(await answer.json(), { code, message: /put express-session, or cookie-session, before it/ })
})

t.test('an app that is mounted below a path', async (t) => {
  const database = await createDatabase(t)
  const provider = createProvider()
  const signIn = createExpressSignIn({
    pool: database.pool,
    clientId,
    configuration: provider.configuration,
    baseUrl: 'http://app.example/portal',
    onWarning: () => {}
  })
  const inner = express.Router()
  inner.use(signIn)
  inner.get('/page', signIn.required, (_request, response) => {
    response.send('a page')
  })
  const outer = express()
  outer.use('/portal', session({ secret, resave: false, saveUninitialized: false }), inner)
  const { server, close } = await listen(outer)
  t.teardown(close)
  const app = { url: `http://127.0.0.1:${(server.address() as { port: number }).port}`, provider } as App
  const browser = createBrowser(app)
  t.match(await browser.get('/portal/page', { html: true }), { location: '/portal/sign-in?returnTo=%2Fportal%2Fpage' })
  const begun = await browser.get('/portal/sign-in?returnTo=/portal/page')
  t.equal(new URL(begun.location ?? '').searchParams.get('redirect_uri'), 'http://app.example/portal/callback')
  t.match(await browser.get(`/portal/callback/?${provider.authorize(begun.location ?? '')}`), {
    location: '/portal/page'
  })
  t.match(await browser.get('/portal/page'), { body: 'a page' })
})

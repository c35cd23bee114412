// A web app on Fastify that shares the token cache. Environment: PORT, DATABASE_URL, AUTHORITY, CLIENT_ID,
// CLIENT_SECRET, END_SESSION_URL, API_URL.
import { randomBytes } from 'node:crypto'
import { type AccountInfo, CryptoProvider, InteractionRequiredAuthError } from '@azure/msal-node'
import cookie from '@fastify/cookie'
import fastify, { type FastifyRequest } from 'fastify'
import { createClients, createFastifyGuard, createTokenCache, SignedOutError } from 'msal-logout-client'
import pg from 'pg'

const { PORT = '4001', DATABASE_URL, AUTHORITY = '', CLIENT_ID = '', CLIENT_SECRET = '' } = process.env
const { END_SESSION_URL = '', API_URL = '' } = process.env
const home = `http://localhost:${PORT}`
const redirectUri = `${home}/callback`
const cookieName = `session-of-${CLIENT_ID}` // cookies know no ports: two apps on one host need two names
const scopes = ['openid', 'offline_access', 'profile']

const pool = new pg.Pool({ connectionString: DATABASE_URL })
pool.on('error', () => {}) // an idle connection was lost: the pool opens another one
const tokenCache = createTokenCache({ pool, clientId: CLIENT_ID })
const clients = createClients({
  tokenCache,
  configuration: {
    auth: { clientId: CLIENT_ID, clientSecret: CLIENT_SECRET, authority: AUTHORITY },
    system: { protocolMode: 'OIDC' }
  }
})

// The app's own sessions, by cookie. Several processes would keep them in a store that they share.
interface Session {
  account?: AccountInfo
  pending?: { state: string; nonce: string; verifier: string }
}
const sessions = new Map<string, Session>()
const sessionOf = (request: FastifyRequest) => sessions.get(request.cookies[cookieName] ?? '')

const app = fastify()
await app.register(cookie)

// A sign-out at the provider ends the session here with the next request, in every process.
app.addHook(
  'onRequest',
  createFastifyGuard({
    tokenCache,
    session: (request: FastifyRequest) => {
      const claims = sessionOf(request)?.account?.idTokenClaims
      return claims?.iss && claims.sid ? { issuer: claims.iss, sid: claims.sid } : undefined
    },
    end: (request) => sessions.delete(request.cookies[cookieName] ?? '')
  })
)

app.get('/', async (request) => {
  const account = sessionOf(request)?.account
  return account ? `signed in as ${account.homeAccountId}\n` : 'not signed in\n'
})

app.get('/sign-in', async (_request, reply) => {
  const { verifier, challenge } = await new CryptoProvider().generatePkceCodes()
  const pending = { state: random(), nonce: random(), verifier }
  const client = await clients.forLogin()
  const url = await client.getAuthCodeUrl({
    scopes,
    redirectUri,
    state: pending.state,
    nonce: pending.nonce,
    codeChallenge: challenge,
    codeChallengeMethod: 'S256'
  })
  const id = random()
  sessions.set(id, { pending })
  return reply.setCookie(cookieName, id, { httpOnly: true, sameSite: 'lax', path: '/' }).redirect(url)
})

app.get<{ Querystring: { code?: string; state?: string } }>('/callback', async (request, reply) => {
  const pending = sessionOf(request)?.pending
  const { code, state } = request.query
  if (!pending || !code || state !== pending.state) {
    return reply.code(400).send('begin again at /sign-in\n')
  }
  const client = await clients.forLogin()
  const { account } = await client.acquireTokenByCode({
    code,
    scopes,
    redirectUri,
    codeVerifier: pending.verifier,
    nonce: pending.nonce
  })
  if (!account) {
    return reply.code(400).send('begin again at /sign-in\n')
  }
  const id = random() // a new id for who has signed in, so that no older one is worth anything
  sessions.delete(request.cookies[cookieName] ?? '')
  sessions.set(id, { account })
  return reply.setCookie(cookieName, id, { httpOnly: true, sameSite: 'lax', path: '/' }).redirect('/')
})

app.get('/api', async (request, reply) => {
  const account = sessionOf(request)?.account
  if (!account) {
    return reply.code(401).send('not signed in\n')
  }
  const client = await clients.forAccount(account.homeAccountId)
  const { accessToken, fromCache } = await client.acquireTokenSilent({ account, scopes })
  const answer = await fetch(API_URL, { headers: { authorization: `Bearer ${accessToken}` } })
  return { status: answer.status, fromCache, answer: await answer.json() }
})

app.get('/sign-out', async (_request, reply) => {
  return reply.redirect(
    `${END_SESSION_URL}?${new URLSearchParams({ client_id: CLIENT_ID, post_logout_redirect_uri: home })}`
  )
})

app.setErrorHandler(async (error, request, reply) => {
  if (!mustSignIn(error)) {
    throw error
  }
  sessions.delete(request.cookies[cookieName] ?? '')
  return reply.code(401).send('not signed in\n')
})

/** A sign-out was faster than this request, or it left no token. */
function mustSignIn(error: unknown): boolean {
  return error instanceof SignedOutError || error instanceof InteractionRequiredAuthError
}

function random(): string {
  return randomBytes(16).toString('base64url')
}

await app.listen({ port: Number(PORT), host: '127.0.0.1' })

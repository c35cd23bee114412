// A web app on Fastify with a signed cookie that shares the token cache. Environment: PORT, DATABASE_URL, AUTHORITY,
// CLIENT_ID, CLIENT_SECRET, SESSION_SECRET, API_URL.
import cookie from '@fastify/cookie'
import fastify from 'fastify'
import { signInPlugin } from 'msal-logout-client/fastify'
import pg from 'pg'

const { PORT, DATABASE_URL, AUTHORITY, CLIENT_ID, CLIENT_SECRET, SESSION_SECRET = '', API_URL = '' } = process.env

const pool = new pg.Pool({ connectionString: DATABASE_URL, connectionTimeoutMillis: 5_000 })
pool.on('error', (error) => console.error(error.message))

const app = fastify()
await app.register(cookie, { secret: SESSION_SECRET }) // or @fastify/session
await app.register(signInPlugin, {
  pool,
  clientId: CLIENT_ID,
  clientSecret: CLIENT_SECRET,
  authority: AUTHORITY,
  baseUrl: `http://localhost:${PORT}`
}) // /sign-in, /callback, /sign-out, and the guard
await app.signIn.check()

app.get('/', async (request) => (request.user ? `signed in as ${request.user.homeAccountId}\n` : 'not signed in\n'))

app.get('/api', { preHandler: app.requireSignIn }, async (request) => {
  const headers = { authorization: `Bearer ${await request.token()}` }
  const answer = await fetch(API_URL, { headers })
  return { status: answer.status, answer: await answer.json() }
})

await app.listen({ port: Number(PORT), host: '127.0.0.1' })

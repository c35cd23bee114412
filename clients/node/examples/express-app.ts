// A web app on Express with express-session that shares the token cache. Environment: PORT, DATABASE_URL, AUTHORITY,
// CLIENT_ID, CLIENT_SECRET, SESSION_SECRET, API_URL.
import express from 'express'
import session from 'express-session'
import { createSignIn } from 'msal-logout-client/express'
import pg from 'pg'

const { PORT, DATABASE_URL, AUTHORITY, CLIENT_ID, CLIENT_SECRET, SESSION_SECRET = '', API_URL = '' } = process.env

const pool = new pg.Pool({ connectionString: DATABASE_URL, connectionTimeoutMillis: 5_000 })
pool.on('error', (error) => console.error(error.message))

const signIn = createSignIn({
  pool,
  clientId: CLIENT_ID,
  clientSecret: CLIENT_SECRET,
  authority: AUTHORITY,
  baseUrl: `http://localhost:${PORT}`
})
await signIn.check()

const app = express()
// Cookies know no ports: two apps on one host need two names. Behind HTTPS add "secure" to the cookie.
app.use(session({ name: CLIENT_ID, secret: SESSION_SECRET, resave: false, saveUninitialized: false }))
app.use(signIn) // /sign-in, /callback, /sign-out, and the guard

app.get('/', (request, response) => {
  response.send(request.user ? `signed in as ${request.user.homeAccountId}\n` : 'not signed in\n')
})

app.get('/api', signIn.required, async (request, response) => {
  const headers = { authorization: `Bearer ${await request.token()}` }
  const answer = await fetch(API_URL, { headers })
  response.json({ status: answer.status, answer: await answer.json() })
})

app.use(signIn.onError)
app.listen(Number(PORT), '127.0.0.1')

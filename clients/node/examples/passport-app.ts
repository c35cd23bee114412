// A web app on Express whose sessions are passport's. Environment: PORT, DATABASE_URL, AUTHORITY, CLIENT_ID, CLIENT_SECRET,
// SESSION_SECRET, API_URL.
import express from 'express'
import session from 'express-session'
import { createSignIn } from 'msal-logout-client'
import { createExpressGuard, type SignedInUser } from 'msal-logout-client/express'
import passport from 'passport'
import pg from 'pg'

const { PORT, DATABASE_URL, AUTHORITY, CLIENT_ID, CLIENT_SECRET, SESSION_SECRET = '', API_URL = '' } = process.env

const pool = new pg.Pool({ connectionString: DATABASE_URL, connectionTimeoutMillis: 5_000 })
pool.on('error', (error) => console.error(error.message))
const client = { clientId: CLIENT_ID, clientSecret: CLIENT_SECRET, authority: AUTHORITY }
const signIn = createSignIn({ pool, ...client, baseUrl: `http://localhost:${PORT}` })
passport.serializeUser((user, done) => done(null, user))
passport.deserializeUser((user: SignedInUser, done) => done(null, user))

const app = express()
app.use(session({ name: CLIENT_ID, secret: SESSION_SECRET, resave: false, saveUninitialized: false }))
app.use(passport.session())
app.use(createExpressGuard({ tokenCache: signIn.tokenCache, session: (request: express.Request) => request.user }))
app.get('/', (request, response) => {
  response.send(request.user ? `signed in as ${request.user.homeAccountId}\n` : 'not signed in\n')
})
app.get('/sign-in', async (request, response) => {
  const { url, pending } = await signIn.begin()
  Object.assign(request.session, { pending })
  response.redirect(url)
})
app.get('/callback', async (request, response, next) => {
  const { user, returnTo } = await signIn.complete(request.query, [Reflect.get(request.session, 'pending')])
  request.login(user, (error) => (error ? next(error) : response.redirect(returnTo)))
})
app.get('/sign-out', async (request, response, next) => {
  const url = await signIn.end(request.user)
  request.logout((error) => (error ? next(error) : response.redirect(url)))
})
app.get('/api', async (request, response) => {
  if (!request.user) throw Object.assign(new Error('sign in first'), { status: 401 })
  const headers = { authorization: `Bearer ${await signIn.token(request.user)}` }
  const answer = await fetch(API_URL, { headers })
  response.json({ status: answer.status, answer: await answer.json() })
})
app.listen(Number(PORT), '127.0.0.1')

// A web app that signs in with MSAL, and shares its tokens. Environment: PORT, DATABASE_URL, AUTHORITY, CLIENT_ID,
// CLIENT_SECRET, SESSION_SECRET, API_URL.
const { randomUUID } = require('node:crypto')
const { ConfidentialClientApplication, CryptoProvider, DistributedCachePlugin } = require('@azure/msal-node')
const express = require('express')
const session = require('express-session')
const { Pool } = require('pg')

const { PORT, DATABASE_URL, AUTHORITY, CLIENT_ID, CLIENT_SECRET, SESSION_SECRET, API_URL } = process.env
const redirectUri = `http://localhost:${PORT}/callback`
const scopes = ['openid', 'offline_access', 'profile']

const auth = { clientId: CLIENT_ID, clientSecret: CLIENT_SECRET, authority: AUTHORITY, knownAuthorities: [AUTHORITY] }
const pool = new Pool({ connectionString: DATABASE_URL })
const upsert = 'insert into cache values ($1, $2) on conflict (key) do update set value = excluded.value'
const store = {
  get: async (key) => (await pool.query('select value from cache where key = $1', [key])).rows[0]?.value ?? '',
  set: async (key, value) => (await pool.query(upsert, [key, value])) && value
}

function createClient(key) {
  const partitions = { getKey: async () => key, extractKey: async (account) => account.homeAccountId }
  const cachePlugin = new DistributedCachePlugin(store, partitions)
  return new ConfidentialClientApplication({ auth, system: { protocolMode: 'OIDC' }, cache: { cachePlugin } })
}

const app = express()
app.use(session({ name: CLIENT_ID, secret: SESSION_SECRET, resave: false, saveUninitialized: false }))

app.get('/', (request, response) => {
  response.send(request.session.account ? `signed in as ${request.session.account.homeAccountId}\n` : 'not signed in\n')
})

app.get('/sign-in', async (request, response) => {
  const { verifier, challenge } = await new CryptoProvider().generatePkceCodes()
  const pending = { state: randomUUID(), nonce: randomUUID() }
  request.session.pending = { ...pending, verifier }
  const pkce = { codeChallenge: challenge, codeChallengeMethod: 'S256' }
  response.redirect(await createClient('').getAuthCodeUrl({ scopes, redirectUri, ...pending, ...pkce }))
})

app.get('/callback', async (request, response) => {
  const { code, state } = request.query
  const { pending } = request.session
  if (!pending || pending.state !== state) {
    return response.status(400).send('begin again at /sign-in\n')
  }
  const { verifier, nonce } = pending
  const redemption = { code, scopes, redirectUri, codeVerifier: verifier, nonce }
  const { account } = await createClient('').acquireTokenByCode(redemption)
  request.session.regenerate(() => {
    request.session.account = account
    response.redirect('/')
  })
})

app.get('/api', async (request, response) => {
  const { account } = request.session
  if (!account) {
    return response.redirect('/sign-in')
  }
  const { accessToken } = await createClient(account.homeAccountId).acquireTokenSilent({ account, scopes })
  const answer = await fetch(API_URL, { headers: { authorization: `Bearer ${accessToken}` } })
  response.json({ status: answer.status, answer: await answer.json() })
})

app.get('/sign-out', (request, response) => {
  request.session.destroy(() => response.redirect('/'))
})

app.listen(Number(PORT), '127.0.0.1')

// The same web app on Express in CommonJS. Environment: PORT, DATABASE_URL, AUTHORITY, CLIENT_ID, CLIENT_SECRET,
// SESSION_SECRET, API_URL.
const express = require('express')
const session = require('express-session')
const { createSignIn } = require('msal-logout-client/express')
const { Pool } = require('pg')

const { PORT, DATABASE_URL, AUTHORITY, CLIENT_ID, CLIENT_SECRET, SESSION_SECRET, API_URL } = process.env

const pool = new Pool({ connectionString: DATABASE_URL, connectionTimeoutMillis: 5_000 })
pool.on('error', (error) => console.error(error.message))

const signIn = createSignIn({
  pool,
  clientId: CLIENT_ID,
  clientSecret: CLIENT_SECRET,
  authority: AUTHORITY,
  baseUrl: `http://localhost:${PORT}`
})

const app = express()
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

app.listen(Number(PORT), '127.0.0.1')

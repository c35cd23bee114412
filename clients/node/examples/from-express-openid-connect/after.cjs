// A web app that signs in with msal-logout-client. Environment: PORT, DATABASE_URL, AUTHORITY, CLIENT_ID, CLIENT_SECRET,
// SESSION_SECRET, API_URL.
const express = require('express')
const session = require('express-session')
const { createSignIn } = require('msal-logout-client/express')
const { Pool } = require('pg')

const { PORT, DATABASE_URL, AUTHORITY, CLIENT_ID, CLIENT_SECRET, SESSION_SECRET, API_URL } = process.env

const app = express()
app.use(session({ secret: SESSION_SECRET, resave: false, saveUninitialized: false }))
const signIn = createSignIn({
  authority: AUTHORITY,
  clientId: CLIENT_ID,
  clientSecret: CLIENT_SECRET,
  baseUrl: `http://localhost:${PORT}`,
  pool: new Pool({ connectionString: DATABASE_URL })
})
app.use(signIn)

app.get('/', (request, response) => {
  response.send(request.user ? `signed in as ${request.user.subject}\n` : 'not signed in\n')
})

app.get('/api', signIn.required, async (request, response) => {
  const token = await request.token()
  const answer = await fetch(API_URL, { headers: { authorization: `Bearer ${token}` } })
  response.json({ status: answer.status, answer: await answer.json() })
})

app.listen(Number(PORT), '127.0.0.1')

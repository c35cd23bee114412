// A web app that signs in with express-openid-connect. Environment: PORT, AUTHORITY, CLIENT_ID, CLIENT_SECRET,
// SESSION_SECRET, API_URL.
const express = require('express')
const { auth, requiresAuth } = require('express-openid-connect')

const { PORT, AUTHORITY, CLIENT_ID, CLIENT_SECRET, SESSION_SECRET, API_URL } = process.env

const app = express()
app.use(
  auth({
    issuerBaseURL: AUTHORITY,
    clientID: CLIENT_ID,
    clientSecret: CLIENT_SECRET,
    clientAuthMethod: 'client_secret_post',
    baseURL: `http://localhost:${PORT}`,
    secret: SESSION_SECRET,
    authRequired: false,
    idpLogout: true,
    routes: { login: '/sign-in', logout: '/sign-out', callback: '/callback' },
    authorizationParams: { response_type: 'code', scope: 'openid profile offline_access' }
  })
)

app.get('/', (request, response) => {
  response.send(request.oidc.isAuthenticated() ? `signed in as ${request.oidc.user.sub}\n` : 'not signed in\n')
})

app.get('/api', requiresAuth(), async (request, response) => {
  let token = request.oidc.accessToken
  if (token.isExpired()) {
    token = await token.refresh()
  }
  const answer = await fetch(API_URL, { headers: { authorization: `Bearer ${token.access_token}` } })
  response.json({ status: answer.status, answer: await answer.json() })
})

app.listen(Number(PORT), '127.0.0.1')

// better-auth as an OpenID provider, in its own process: `node server.mjs <JSON>`, with the members port, users and clients.
import { createHash, randomBytes } from 'node:crypto'
import { createServer } from 'node:http'
import { oauthProvider } from '@better-auth/oauth-provider'
import { betterAuth } from 'better-auth'
import { memoryAdapter } from 'better-auth/adapters/memory'
import { toNodeHandler } from 'better-auth/node'
import { admin, jwt } from 'better-auth/plugins'

const { port, users, clients } = JSON.parse(process.argv[2])
const url = `http://127.0.0.1:${port}`
const tables = ['user', 'session', 'account', 'verification', 'jwks', 'oauthClient', 'oauthAccessToken']
const more = ['oauthRefreshToken', 'oauthConsent', 'oauthResource', 'oauthClientResource', 'oauthClientAssertion']
const database = Object.fromEntries([...tables, ...more].map((table) => [table, []]))

const auth = betterAuth({
  baseURL: url,
  secret: randomBytes(32).toString('hex'),
  database: memoryAdapter(database),
  emailAndPassword: { enabled: true },
  rateLimit: { enabled: false },
  telemetry: { enabled: false },
  plugins: [
    admin(),
    jwt({ jwks: { keyPairConfig: { alg: 'RS256' } } }),
    oauthProvider({ loginPage: '/sign-in', consentPage: '/consent', silenceWarnings: { openidConfig: true } })
  ]
})
const { adapter } = await auth.$context
for (const { name, password } of users) {
  await auth.api.signUpEmail({ body: { name, email: emailOf(name), password } })
}
const root = { name: 'root', email: emailOf('root'), password: randomBytes(16).toString('hex') }
await auth.api.signUpEmail({ body: root })
await adapter.update({
  model: 'user',
  where: [{ field: 'email', value: root.email }],
  update: { role: 'admin' }
})
for (const { id, secret, redirectUri, backChannelUrl } of clients) {
  // Not by its API, which takes no address of a private network.
  await adapter.create({
    model: 'oauthClient',
    data: {
      clientId: id,
      clientSecret: createHash('sha256').update(secret).digest('base64url'),
      redirectUris: [redirectUri],
      postLogoutRedirectUris: [redirectUri],
      backchannelLogoutUri: backChannelUrl,
      backchannelLogoutSessionRequired: true,
      tokenEndpointAuthMethod: 'client_secret_post',
      grantTypes: ['authorization_code'],
      responseTypes: ['code'],
      scopes: ['openid'],
      skipConsent: true,
      enableEndSession: true,
      requirePKCE: false,
      disabled: false,
      createdAt: new Date(),
      updatedAt: new Date()
    }
  })
}

function emailOf(name) {
  return `${name}@example.com`
}

/** Calls better-auth's own API, as a page of the operator's does. */
async function call(path, cookie, body) {
  const answer = await fetch(`${url}/api/auth/${path}`, {
    method: 'POST',
    headers: { 'content-type': 'application/json', origin: url, ...(cookie && { cookie }) },
    body: JSON.stringify(body)
  })
  if (!answer.ok) {
    throw new Error(`${path} is answered ${answer.status}: ${await answer.text()}`)
  }
  return answer
}

async function cookieOfRoot() {
  const answer = await call('sign-in/email', undefined, { email: root.email, password: root.password })
  return answer.headers
    .getSetCookie()
    .map((cookie) => cookie.split(';')[0])
    .join('; ')
}

/** The pages that better-auth leaves to its operator, and what an administrator does. */
async function answer(request, response) {
  const { pathname, search } = new URL(request.url, url)
  let body = ''
  for await (const chunk of request) {
    body += chunk
  }
  if (pathname === '/sign-in' && request.method === 'GET') {
    response.end(`<form method="post" action="/sign-in${search.replaceAll('&', '&amp;')}"><input name="email"></form>`)
  } else if (pathname === '/sign-in') {
    const { email, password } = Object.fromEntries(new URLSearchParams(body))
    const signedIn = await call('sign-in/email', undefined, { email, password, oauth_query: search.slice(1) })
    const content = await signedIn.json()
    response.writeHead(302, { location: content.url, 'set-cookie': signedIn.headers.getSetCookie() }).end()
  } else if (pathname === '/sign-out-everywhere') {
    await call('revoke-sessions', request.headers.cookie, {})
    response.end('signed out')
  } else if (pathname.startsWith('/administrator/')) {
    const { sid, ...asked } = JSON.parse(body)
    const [session] = database.session.filter(({ id }) => id === sid)
    await call(pathname.slice(1).replace('administrator', 'admin'), await cookieOfRoot(), {
      ...asked,
      ...(session && { sessionToken: session.token })
    })
    response.end('done')
  } else if (pathname === '/new-key') {
    database.jwks.splice(0) // the table is empty: the next token is signed by a new key
    response.end('done')
  } else {
    response.writeHead(404).end()
  }
}

const handle = toNodeHandler(auth)
createServer((request, response) => {
  if (request.url.startsWith('/api/auth/')) {
    return handle(request, response)
  }
  answer(request, response).catch((error) => response.writeHead(500).end(String(error?.stack)))
}).listen(port, '127.0.0.1')

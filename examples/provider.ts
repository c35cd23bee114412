// A real OpenID provider, `oidc-provider`, with back-channel logout on; any name and password sign in.
// Environment: PORT, CERT and KEY (paths of PEM files), CLIENTS (JSON, as oidc-provider takes them), CLAIMS (JSON: by name, what an
// ID token says of that user beside, such as `oid` and `tid`).
import { generateKeyPairSync, randomBytes } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { createServer } from 'node:https'
import { Provider } from 'oidc-provider'

const { PORT = '4000', CERT = '', KEY = '', CLIENTS = '[]', CLAIMS = '{}' } = process.env
const claimsOf: Record<string, object | undefined> = JSON.parse(CLAIMS)
const issuer = `https://localhost:${PORT}`

// Keys of its own: those that oidc-provider has for trying it out are known to everybody.
const { privateKey } = generateKeyPairSync('rsa', { modulusLength: 2048 })

const provider = new Provider(issuer, {
  clients: JSON.parse(CLIENTS),
  jwks: { keys: [{ ...privateKey.export({ format: 'jwk' }), alg: 'RS256', use: 'sig' }] },
  cookies: { keys: [randomBytes(32).toString('base64url')] },
  features: { backchannelLogout: { enabled: true } },
  claims: { openid: ['sub', 'oid', 'tid'], profile: ['name'] },
  findAccount: (_context, accountId) => ({
    accountId,
    claims: () => ({ sub: accountId, name: accountId, ...claimsOf[accountId] })
  }),
  // By default it posts to no address of a private network; here all of it runs on this machine.
  fetch: (url, { dispatcher: _, ...options } = {}) => fetch(url, options),
  issueRefreshToken: (_context, client) => client.grantTypeAllowed('refresh_token')
})
// How the logout token was received, for who watches.
provider.on('backchannel.success', (_context, client) => console.log(`logout token for ${client.clientId}: accepted`))
provider.on('backchannel.error', (_context, error, client) =>
  console.log(`logout token for ${client.clientId}: ${error.message}`)
)

createServer({ cert: readFileSync(CERT), key: readFileSync(KEY) }, provider.callback()).listen(
  Number(PORT),
  '127.0.0.1',
  () => console.log(`provider: ${issuer}`)
)

import { randomBytes } from 'node:crypto'
import type { Configuration } from '@azure/msal-node'
import t, { type Test } from 'tap'
import { detectAuthority, fetchMetadata } from '../clients/node/src/authority.ts'
import { createClients, createTokenCache } from './fixtures/client.ts'
import { createDatabase } from './fixtures/database.ts'
import { audience, authority, codeOf, createTokenEndpoint, jwt, type Person } from './fixtures/msal.ts'
import { signOutBySql } from './fixtures/orders.ts'

const alice: Person = { homeAccountId: 'Alice.t', subject: 'sub-alice', sid: 's-alice' }
const redirectUri = 'https://app.example/callback'
const document = {
  issuer: authority,
  authorization_endpoint: `${authority}/authorize`,
  token_endpoint: `${authority}/token`,
  jwks_uri: `${authority}/keys`
}

/** MSAL's network at its edge: what it was asked for, and what the next requests for a document are answered. */
function createNetwork() {
  const endpoint = createTokenEndpoint()
  const network = {
    endpoint,
    asked: [] as string[],
    answer: { status: 200, body: document as object }
  }
  endpoint.sendGetRequestAsync = (async (url: string) => {
    network.asked.push(url)
    return { headers: {}, ...network.answer }
  }) as never
  return network
}

async function build(t: Test) {
  const database = await createDatabase(t)
  const network = createNetwork()
  const tokenCache = createTokenCache({ pool: database.pool, clientId: audience, onWarning: () => {} })
  const configuration: Configuration = {
    auth: { clientId: audience, clientSecret: 'secret', authority },
    system: { networkClient: network.endpoint }
  }
  return { database, network, tokenCache, configuration, clients: createClients({ tokenCache, configuration }) }
}

t.test('any OpenID provider is taken as one, and asked for its document once for all operations', async (t) => {
  const { clients, network, database } = await build(t)
  const login = await clients.forLogin()
  const { account } = await login.acquireTokenByCode({ code: codeOf(alice), redirectUri, scopes: ['api-1'] })
  t.equal(account?.homeAccountId, 'Alice.t')
  const silent = async () =>
    (await clients.forAccount('Alice.t')).acquireTokenSilent({ account: account as never, scopes: ['api-1'] })
  t.equal((await silent()).fromCache, true)
  t.equal((await silent()).fromCache, true)
  const app = await clients.forApp('client-a.t')
  t.match(await app.acquireTokenByClientCredential({ scopes: ['x/.default'] }), { accessToken: /^app-/ })
  const assertion = jwt({ ...alice, unique: randomBytes(8).toString('hex') })
  const onBehalf = { oboAssertion: assertion, scopes: ['api-2'] }
  t.equal((await (await clients.forAssertion(assertion)).acquireTokenOnBehalfOf(onBehalf))?.fromCache, false)
  t.equal((await (await clients.forAssertion(assertion)).acquireTokenOnBehalfOf(onBehalf))?.fromCache, true)
  t.same(network.asked, [`${authority}/.well-known/openid-configuration`])
  t.same(
    (await database.query<{ kind: string }>('select kind from msal_logout.token_cache order by 1')).map((r) => r.kind),
    ['app', 'obo', 'user']
  )
})

t.test('what asks for a new sign-in bears the status 401', async (t) => {
  const { clients, database } = await build(t)
  const login = await clients.forLogin()
  const { account } = await login.acquireTokenByCode({ code: codeOf(alice), redirectUri, scopes: ['api-1'] })
  await signOutBySql(database, { kind: 'session', issuer: authority, sid: 's-alice' })
  const client = await clients.forAccount('Alice.t')
  const error: unknown = await client
    .acquireTokenSilent({ account: account as never, scopes: ['api-1'] })
    .catch((error: unknown) => error)
  t.match(error, { status: 401, statusCode: 401 })
})

t.test('a login whose nonce is not the one of the sign-in is rejected, and stores nothing', async (t) => {
  const { clients, database } = await build(t)
  const request = { code: codeOf(alice), redirectUri, scopes: ['api-1'] }
  await t.rejects((await clients.forLogin({ nonce: 'of the sign-in' })).acquireTokenByCode(request), {
    code: 'ERR_SIGN_IN_FAILED',
    statusCode: 400
  })
  t.same(await database.query('select * from msal_logout.token_cache'), [])
})

t.test('a provider that is away, or is none, is said; and asked again by the next operation', async (t) => {
  const { clients, network } = await build(t)
  const unavailable = { code: 'ERR_PROVIDER_UNAVAILABLE', statusCode: 503 }
  network.answer = { status: 503, body: {} }
  await t.rejects(clients.forLogin(), unavailable)
  network.answer = { status: 404, body: {} }
  await t.rejects(clients.forLogin(), { code: 'ERR_TOKEN_CACHE_MISUSE', message: /give the issuer as "authority"/ })
  network.answer = { status: 200, body: { ...document, issuer: 'https://another.example' } }
  await t.rejects(clients.forLogin(), { code: 'ERR_TOKEN_CACHE_MISUSE', message: /is no OpenID issuer.*another/ })
  network.answer = { status: 200, body: document }
  await t.resolves(clients.forLogin())
  t.equal(network.asked.length, 4)
})

t.test('mistakes are found where they are made', async (t) => {
  const { clients, tokenCache, configuration } = await build(t)
  const make = (options: object) => () => createClients({ tokenCache, configuration, ...options } as never)
  const misuse = 'ERR_TOKEN_CACHE_MISUSE'
  t.throws(make({ tokenCache: undefined }), { code: misuse, message: /takes what createTokenCache returned/ })
  t.throws(make({ configuration: undefined }), { code: misuse, message: /clientId, clientSecret, authority/ })
  const auth = { ...configuration.auth, clientId: 'another' }
  t.throws(make({ configuration: { auth } }), {
    code: misuse,
    message: /"client-a", and .*"another": give both the same/
  })
  const cache = { cachePlugin: tokenCache.forLogin() }
  t.throws(make({ configuration: { ...configuration, cache } }), {
    code: misuse,
    message: /leave "cache\.cachePlugin" out/
  })
  const promise = clients.forLogin() as unknown as { acquireTokenByCode(): void }
  t.throws(() => promise.acquireTokenByCode(), { code: misuse, message: /"await" is missing/ })
  await t.rejects(clients.forAccount(undefined as never), { code: misuse, message: /"homeAccountId" is undefined/ })
})

t.test('a provider of Microsoft is known by its host, and MSAL left to know the rest', async (t) => {
  for (const [given, kind, expected] of [
    ['https://login.microsoftonline.com/common', 'microsoft', {}],
    [
      'https://login.microsoftonline.com/11111111-1111-1111-1111-111111111111/v2.0',
      'microsoft',
      { authority: /1111$/ }
    ],
    ['https://login.microsoftonline.us/contoso.example/v2.0/', 'microsoft', { authority: /contoso\.example$/ }],
    ['https://contoso.ciamlogin.com/', 'microsoft', { knownAuthorities: ['contoso.ciamlogin.com'] }],
    ['https://contoso.b2clogin.com/c/policy', 'microsoft', { knownAuthorities: ['contoso.b2clogin.com'] }],
    ['https://fs.contoso.example/adfs', 'microsoft', {}],
    [authority, 'openid', { knownAuthorities: ['login.example'], protocolMode: 'OIDC', authorityMetadata: /jwks_uri/ }],
    [`${authority}/`, 'openid', {}]
  ] as const) {
    const network = createNetwork()
    const found = await detectAuthority({
      auth: { clientId: audience, authority: given },
      system: { networkClient: network.endpoint }
    })
    t.match(found, { kind, auth: expected }, given)
    t.equal(network.asked.length, kind === 'openid' ? 1 : 0, `${given}: asked`)
  }
})

t.test('where the user has said it, the user is right', async (t) => {
  const { endpoint: networkClient, asked } = createNetwork()
  const known = { clientId: audience, authority: 'https://login.contoso.example/c/policy' }
  t.match(
    await detectAuthority({ auth: known, system: { networkClient, protocolMode: 'AAD' } as never }),
    { kind: 'microsoft' },
    'a domain of their own at Azure AD B2C'
  )
  const auth = { ...known, authorityMetadata: JSON.stringify(document) }
  t.match(await detectAuthority({ auth, system: { networkClient, protocolMode: 'OIDC' } }), {
    kind: 'openid',
    auth: {}
  })
  t.same(asked, [])
})

t.test("where the provider's session ends is in its document", async (t) => {
  const { endpoint: networkClient, asked } = createNetwork()
  const ask = (given: string) =>
    fetchMetadata({ auth: { clientId: audience, authority: given }, system: { networkClient } })
  t.same(await ask(authority), { issuer: authority, endSessionEndpoint: undefined })
  t.match(await ask('https://login.microsoftonline.com/contoso.example/v2.0'), { issuer: undefined })
  t.match(await ask('https://fs.contoso.example/adfs'), { issuer: undefined })
  t.same(asked.slice(1), [
    'https://login.microsoftonline.com/contoso.example/v2.0/.well-known/openid-configuration',
    'https://fs.contoso.example/adfs/.well-known/openid-configuration'
  ])
})

import { generateKeyPairSync, randomUUID } from 'node:crypto'
import { once } from 'node:events'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { compactDecrypt, decodeJwt, decodeProtectedHeader } from 'jose'
import { Provider } from 'oidc-provider'
import t, { type Test } from 'tap'
import { type Browser, createBrowser } from '../examples/browser.ts'
import type { DecryptionKey } from '../src/decryption-key.ts'
import type { IssuerConfig } from '../src/issuers.ts'
import { decryptionKey } from './fixtures/encryption.ts'
import { build } from './fixtures/service.ts'

interface Delivery {
  readonly clientId: string
  readonly token: string
  /** As the provider saw it. */
  readonly status: number
  readonly body: string
}

interface IdToken {
  readonly raw: string
  readonly sub: string
  readonly sid: string | undefined
  readonly iat: number
}

interface Options {
  /** Whether the clients want a sid in their tokens. */
  sessionRequired?: boolean
  policy?: Partial<IssuerConfig>
  /** What the service publishes, and the provider encrypts with. */
  encryption?: { readonly key: DecryptionKey; readonly enc: 'A128GCM' | 'A256GCM' }
}

/** The service on a port, and a real `oidc-provider` with two clients that posts to it. */
async function startBoth(t: Test, { sessionRequired = true, policy = {}, encryption }: Options = {}) {
  const server = createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  t.teardown(() => {
    server.closeAllConnections()
    server.close()
  })
  const issuer = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
  const service = await build(t, {
    issuers: [{ name: 'real', issuer, clientIds: ['shop', 'desk'], ...policy }],
    config: { decryptionKeys: encryption === undefined ? [] : [{ ...encryption.key, isPublished: true }] }
  })
  const serviceUrl = await service.app.listen({ port: 0, host: '127.0.0.1' })

  const callbackOf = (id: string) => `${issuer}/callback-of-${id}` // nobody is there: only its query matters

  const deliveries: Delivery[] = []
  const accepted: string[] = []
  const failed: string[] = []
  const { privateKey } = generateKeyPairSync('rsa', { modulusLength: 2048 })
  const provider = new Provider(issuer, {
    clients: ['shop', 'desk'].map((id) => ({
      client_id: id,
      client_secret: `the secret of ${id}`,
      redirect_uris: [callbackOf(id)],
      token_endpoint_auth_method: 'client_secret_post',
      backchannel_logout_uri: `${serviceUrl}/backchannel-logout`,
      backchannel_logout_session_required: sessionRequired,
      ...(encryption && {
        jwks_uri: `${serviceUrl}/.well-known/jwks.json`,
        id_token_encrypted_response_alg: encryption.key.alg,
        id_token_encrypted_response_enc: encryption.enc
      })
    })),
    cookies: { keys: [randomUUID()] },
    features: { backchannelLogout: { enabled: true }, encryption: { enabled: encryption !== undefined } },
    findAccount: (_context, accountId) => ({ accountId, claims: () => ({ sub: accountId }) }),
    jwks: { keys: [{ ...privateKey.export({ format: 'jwk' }), alg: 'RS256', use: 'sig', kid: 'of-this-test' }] },
    pkce: { required: () => false },
    // By default it posts to no private address. What it posts and is answered is kept as it is.
    async fetch(url, { dispatcher: _, ...options } = {}) {
      const answer = await fetch(url, options as RequestInit)
      const token = new URLSearchParams(String(options.body)).get('logout_token')
      if (token === null) {
        return answer // of the keys to encrypt with
      }
      const { aud } = decodeJwt(await decrypted(token))
      deliveries.push({ clientId: String(aud), token, status: answer.status, body: await answer.clone().text() })
      return answer
    }
  })
  async function decrypted(token: string): Promise<string> {
    if (encryption === undefined) {
      return token
    }
    const { plaintext } = await compactDecrypt(token, encryption.key.privateKey)
    return Buffer.from(plaintext).toString()
  }

  provider.on('backchannel.success', (_context, client) => accepted.push(client.clientId))
  provider.on('backchannel.error', (_context, error) => failed.push(error.message))
  server.on('request', provider.callback())

  /** Signs in by the provider's own forms, redeems the code, and stores the login as a web app does. */
  async function signIn(browser: Browser, clientId: string, login: string): Promise<IdToken> {
    const redirectUri = callbackOf(clientId)
    const query = { client_id: clientId, redirect_uri: redirectUri, response_type: 'code', scope: 'openid' }
    let page = await browser.open(`${issuer}/auth?${new URLSearchParams(query)}`)
    for (let forms = 0; !page.url.startsWith(redirectUri); forms++) {
      if (forms === 10) {
        throw new Error(`the provider does not let the user sign in: ${page.url}`)
      }
      page = await browser.submit(page, page.body.includes('name="password"') ? { login, password: 'any' } : {})
    }
    const answer = await fetch(`${issuer}/token`, {
      method: 'POST',
      body: new URLSearchParams({
        grant_type: 'authorization_code',
        code: new URL(page.url).searchParams.get('code') ?? '',
        redirect_uri: redirectUri,
        client_id: clientId,
        client_secret: `the secret of ${clientId}`
      })
    })
    const { id_token: given } = (await answer.json()) as { id_token: string }
    const raw = await decrypted(given)
    const { sub, sid, iat } = decodeJwt<{ sub: string; sid?: string; iat: number }>(raw)
    await service.login({
      clientId,
      homeAccountId: sub,
      partitionKey: sub,
      issuer,
      sid: sid ?? null,
      subject: sub,
      issuedAt: iat
    })
    return { raw, sub, sid, iat }
  }

  /** At the provider's own page, from everything or from one app alone. */
  async function signOut(browser: Browser, answer: 'everywhere' | 'of shop alone' = 'everywhere'): Promise<void> {
    const page = await browser.open(`${issuer}/session/end?client_id=shop`)
    await browser.submit(page, answer === 'everywhere' ? { logout: 'yes' } : {})
  }

  return { service, serviceUrl, issuer, deliveries, accepted, failed, signIn, signOut }
}

const browser = () => createBrowser('')

t.test('a real provider posts what the service understands, and is told 200', async (t) => {
  const { service, deliveries, accepted, failed, signIn, signOut } = await startBoth(t)
  const alice = browser()
  const shop = await signIn(alice, 'shop', 'alice')
  const desk = await signIn(alice, 'desk', 'alice')
  await signIn(browser(), 'shop', 'bob')
  t.type(shop.sid, 'string')
  t.not(shop.sid, desk.sid, 'this provider has a sid for each app')
  t.same(await service.rows(), ['desk/alice', 'shop/alice', 'shop/bob'])

  await signOut(alice)
  t.same(accepted.toSorted(), ['desk', 'shop'])
  t.same(failed, [])
  for (const { clientId, token, status, body } of deliveries) {
    const { sid } = clientId === 'shop' ? shop : desk
    t.match(decodeJwt(token), { sub: 'alice', sid, aud: clientId }, 'the token has sid and sub')
    t.equal(decodeProtectedHeader(token).typ, 'logout+jwt')
    t.equal(status, 200)
    t.equal(body, '')
  }
  t.same(await service.rows(), ['shop/bob'], 'one who did not sign out stays')

  const purges = await service.database.query<{ source: string; sid: string; jti: string }>(
    'select source, sid, jti from msal_logout.records'
  )
  t.same(
    new Set(purges.map(({ source, sid, jti }) => `${source} ${sid} ${jti}`)),
    new Set(deliveries.map(({ token }) => `backchannel ${decodeJwt(token).sid} ${decodeJwt(token).jti}`)),
    'each token has its record'
  )
})

t.test(
  'a token of a real provider posted again is success without a second effect, also after a new login',
  async (t) => {
    const { service, serviceUrl, deliveries, signIn, signOut } = await startBoth(t)
    const alice = browser()
    await signIn(alice, 'shop', 'alice')
    await signOut(alice)
    await signIn(alice, 'shop', 'alice')
    t.same(await service.rows(), ['shop/alice'], 'whoever signs in again is let in')

    const before = await service.database.snapshot()
    const [delivery] = deliveries
    for (let i = 0; i < 3; i += 1) {
      const answer = await fetch(`${serviceUrl}/backchannel-logout`, {
        method: 'POST',
        body: new URLSearchParams({ logout_token: delivery?.token ?? '' })
      })
      t.equal(answer.status, 200)
    }
    t.same(await service.database.snapshot(), before)
  }
)

t.test('a provider that tells no sid ends every session of the subject', async (t) => {
  const { service, deliveries, accepted, signIn, signOut } = await startBoth(t, { sessionRequired: false })
  const alice = browser()
  const { sid } = await signIn(alice, 'shop', 'alice')
  await signIn(alice, 'desk', 'alice')
  await signIn(browser(), 'shop', 'bob')
  t.equal(sid, undefined)

  await signOut(alice)
  t.same(accepted.toSorted(), ['desk', 'shop'])
  t.same(
    deliveries.map(({ token }) => decodeJwt(token)).map(({ sub, sid }) => [sub, sid]),
    [
      ['alice', undefined],
      ['alice', undefined]
    ]
  )
  t.same(await service.rows(), ['shop/bob'])
})

t.test('with the scope of a session, a sign-out of one app at a real provider spares the other', async (t) => {
  const { service, accepted, signIn, signOut } = await startBoth(t, { policy: { purgeScope: 'session' } })
  const alice = browser()
  await signIn(alice, 'shop', 'alice')
  await signIn(alice, 'desk', 'alice')
  await signOut(alice, 'of shop alone')
  t.same(accepted, ['shop'])
  t.same(await service.rows(), ['desk/alice'])
})

t.test('a real provider encrypts with the keys that it finds here', async (t) => {
  for (const [kind, enc] of [
    ['rsa', 'A256GCM'],
    ['P-256', 'A128GCM']
  ] as const) {
    const key = decryptionKey(kind)
    const { service, deliveries, accepted, failed, signIn, signOut } = await startBoth(t, {
      encryption: { key, enc },
      policy: { requireEncryption: true }
    })
    const alice = browser()
    await signIn(alice, 'shop', 'alice')
    await signIn(alice, 'desk', 'alice')
    await signIn(browser(), 'shop', 'bob')
    await signOut(alice)
    t.same([accepted.toSorted(), failed], [['desk', 'shop'], []], kind)
    for (const { token, status } of deliveries) {
      t.match(decodeProtectedHeader(token), { alg: key.alg, enc, kid: key.kid })
      t.equal(status, 200)
    }
    t.same(await service.rows(), ['shop/bob'])
  }
})

t.test('an ID token of a real provider is no logout token', async (t) => {
  const { service, serviceUrl, signIn } = await startBoth(t)
  const { raw } = await signIn(browser(), 'shop', 'alice')
  const before = await service.database.snapshot()
  const answer = await fetch(`${serviceUrl}/backchannel-logout`, {
    method: 'POST',
    body: new URLSearchParams({ logout_token: raw })
  })
  t.equal(answer.status, 400)
  t.match(await answer.json(), { error: 'invalid_request' })
  t.same(await service.database.snapshot(), before)
})

import t from 'tap'
import type { RejectionCode } from '../src/errors.ts'
import { createIssuers } from '../src/issuers.ts'
import { createOpenToken } from '../src/jwe.ts'
import { createSenders } from '../src/senders.ts'
import { readLogoutToken } from '../src/signals/backchannel.ts'
import { decryptionKey, encrypt } from './fixtures/encryption.ts'
import { clientId, createSigningKey, type SigningKey, startIdentityProvider } from './fixtures/identity-provider.ts'
import { badClaims, badJwts, goodTokens } from './fixtures/logout-tokens.ts'
import { build, issuerConfig } from './fixtures/service.ts'
import { until } from './fixtures/until.ts'

const maxWaitMs = 30_000 // longer than a busy machine takes

t.test('a bad logout token is rejected for its reason', async (t) => {
  const provider = await startIdentityProvider(t)
  const issuers = createIssuers([issuerConfig({ name: 'main', issuer: provider.issuer })], { maxWaitMs })
  const context = { provider, key: provider.keys[0] as SigningKey, elsewhere: provider.keys[0] as SigningKey }
  for (const [name, make, code] of badClaims) {
    const raw = await make(context)
    await t.rejects(
      readLogoutToken(raw, Date.now(), { issuers }),
      { name: 'RejectedError', code, issuer: 'main' },
      name
    )
  }
  t.equal(provider.keyFetches, 0, 'and no key was asked for')
})

t.test('a good logout token is read', async (t) => {
  const provider = await startIdentityProvider(t)
  const key = provider.keys[0] as SigningKey
  for (const [name, make, policy] of goodTokens) {
    const config = issuerConfig({ name: 'main', issuer: provider.issuer, ...policy })
    const raw = await make({ provider, key, elsewhere: key })
    const { sid, ...token } = await readLogoutToken(raw, Date.now(), {
      issuers: createIssuers([config], { maxWaitMs })
    })
    t.match(
      token,
      { issuer: provider.issuer, clientId, jti: String, issuedAt: Number, subject: undefined, config },
      name
    )
    t.type(sid, 'string', name)
    t.ok(Number.isInteger(token.issuedAt), name)
  }
})

t.test('what a logout token names is read', async (t) => {
  const provider = await startIdentityProvider(t)
  const issuers = createIssuers([issuerConfig({ issuer: provider.issuer, clientIds: ['client-a', 'client-b'] })], {
    maxWaitMs
  })
  const read = async (claims: object) =>
    readLogoutToken(await provider.logoutToken({ ...claims }), Date.now(), { issuers })
  t.match(await read({ sid: 's', sub: 'u', aud: ['client-b', 'x'], jti: 'j' }), {
    sid: 's',
    subject: 'u',
    clientId: 'client-b',
    jti: 'j'
  })
  t.match(await read({ sid: 's' }), { sid: 's', subject: undefined })
  t.match(await read({ sid: undefined, sub: 'u' }), { sid: undefined, subject: 'u' })
  const iat = Math.floor(Date.now() / 1_000) - 5
  t.match(await read({ iat: iat + 0.9 }), { issuedAt: iat }, 'in whole seconds')
})

t.test('a logout token is judged as of its arrival', async (t) => {
  const provider = await startIdentityProvider(t)
  const issuers = createIssuers([issuerConfig({ issuer: provider.issuer })], { maxWaitMs })
  const raw = await provider.logoutToken()
  const read = (at: number) => readLogoutToken(raw, at, { issuers })
  await t.resolves(read(Date.now() + 170_000), 'two minutes and the tolerance')
  await t.rejects(read(Date.now() + 200_000), { code: 'ERR_TOKEN_EXPIRED' })
  await t.rejects(read(Date.now() + 700_000), { code: 'ERR_TOKEN_TOO_OLD' })
  await t.rejects(read(Date.now() - 120_000), { code: 'ERR_TOKEN_IAT_FUTURE' })
})

t.test('a forged logout token is rejected', async (t) => {
  const provider = await startIdentityProvider(t)
  const issuers = createIssuers([issuerConfig({ issuer: provider.issuer })], { maxWaitMs })
  const forger = await createSigningKey('RS256', provider.keys[0]?.kid)
  const forged = await provider.logoutToken({}, {}, forger)
  await t.rejects(readLogoutToken(forged, Date.now(), { issuers }), { code: 'ERR_TOKEN_SIGNATURE' })
})

t.test('a bad token is answered 400, is not quoted, and changes nothing', async (t) => {
  const service = await build(t, { edges: { senders: { ...createSenders(), rejected: () => 0 } } }) // the limit is another test's matter
  const { provider } = service
  await service.login({ homeAccountId: 'u.t', sid: 'a-session', subject: 'subject' })
  await service.login({ homeAccountId: 'v.t', sid: null, subject: 'subject' })
  const context = { provider, key: provider.keys[0] as SigningKey, elsewhere: await createSigningKey('ES256') }
  const before = await service.database.snapshot()

  for (const [name, make] of [...badJwts, ...badClaims, ['an empty token', () => ''] as const]) {
    const token = await make(context)
    service.logs.length = 0
    const answer = await service.post(token)
    t.equal(answer.statusCode, 400, `${name}: rejected`)
    t.equal(JSON.parse(answer.body).error, 'invalid_request', `${name}: error`)
    t.notOk(token.length > 10 && (answer.body + service.logs).includes(token.slice(0, 40)), `${name}: not quoted`)
  }
  t.same(await service.database.snapshot(), before, 'the database is as it was')
  t.ok(provider.keyFetches <= 11, 'and the keys were fetched once, and a few times more for unknown kids')
})

t.test('a good token is answered 200, and ends its session', async (t) => {
  const service = await build(t)
  await service.login({ homeAccountId: 'u.t', sid: 'a-session' })
  t.equal((await service.post(await service.provider.logoutToken({ sid: 'a-session' }))).statusCode, 200)
  t.same(await service.rows(), [])
})

t.test('an encrypted logout token ends its session, and what is wrong inside is rejected as ever', async (t) => {
  const [key, another] = [decryptionKey('P-256'), decryptionKey('X25519')]
  const service = await build(t, { config: { decryptionKeys: [{ ...key, isPublished: true }] } })
  const { provider } = service
  await service.login({ homeAccountId: 'u.t', sid: 'a-session' })
  const before = await service.database.snapshot()
  const forger = await createSigningKey('RS256', provider.keys[0]?.kid)
  const bad: [string, string, RejectionCode][] = [
    ['for another key', await encrypt(await provider.logoutToken(), another), 'ERR_TOKEN_ENCRYPTION_KEY'],
    ['no JWT inside', await encrypt('{"sid":"a-session"}', key), 'ERR_TOKEN_MALFORMED'],
    ['claims alone inside', await encrypt(JSON.stringify({ iss: provider.issuer }), key), 'ERR_TOKEN_MALFORMED'],
    ['forged inside', await encrypt(await provider.logoutToken({}, {}, forger), key), 'ERR_TOKEN_SIGNATURE'],
    [
      'of another issuer',
      await encrypt(await provider.logoutToken({ iss: 'https://x.example' }), key),
      'ERR_TOKEN_ISSUER'
    ],
    ['an ID token', await encrypt(await provider.logoutToken({ events: undefined }), key), 'ERR_TOKEN_EVENTS_MISSING']
  ]
  for (const [name, token, code] of bad) {
    t.equal((await service.post(token)).statusCode, 400, name)
    t.match((await service.operate('GET', '/admin/rejections?limit=1')).json(), { rejections: [{ code }] }, name)
  }
  t.same(await service.database.snapshot(), before)

  const token = await encrypt(await provider.logoutToken({ sid: 'a-session' }), key)
  t.equal((await service.post(token)).statusCode, 200)
  t.same(await service.rows(), [])
  t.equal((await service.post(token)).statusCode, 200, 'again')
})

t.test(
  'an encrypted logout token is deferred while the keys of its issuer are out of reach, and done then',
  async (t) => {
    const key = decryptionKey('P-256')
    const service = await build(t, { config: { decryptionKeys: [{ ...key, isPublished: false }] } })
    service.provider.behaviour = 'down'
    await service.login({ homeAccountId: 'u.t', sid: 'a-session' })
    const token = await encrypt(await service.provider.logoutToken({ sid: 'a-session' }), key)
    t.equal((await service.post(token)).statusCode, 503)
    service.provider.behaviour = 'up'
    service.retry()
    await until('the session is ended', async () => (await service.rows()).length === 0)
  }
)

t.test('an issuer whose tokens must be encrypted has its others rejected', async (t) => {
  const provider = await startIdentityProvider(t)
  const key = decryptionKey('rsa')
  const issuers = createIssuers([issuerConfig({ issuer: provider.issuer, requireEncryption: true })], { maxWaitMs })
  const options = { issuers, open: createOpenToken(() => [key]) }
  const token = await provider.logoutToken()
  await t.rejects(readLogoutToken(token, Date.now(), options), { code: 'ERR_TOKEN_NOT_ENCRYPTED' })
  t.equal(provider.keyFetches, 0, 'and no key was asked for')
  await t.resolves(readLogoutToken(await encrypt(token, key), Date.now(), options))
})

t.test('an equal sid of another tenant of a template is another session', async (t) => {
  const { provider } = await build(t)
  const template = { issuer: `${provider.issuer}/{tenantid}/v2.0`, jwksUri: `${provider.issuer}/jwks` }
  const service = await build(t, { policy: template })
  const [one, another] = ['9188040d-6c67-4c5b-b112-36a304b66dad', '8188040d-6c67-4c5b-b112-36a304b66dad'].map(
    (tenant) => `${provider.issuer}/${tenant}/v2.0`
  )
  await service.login({ issuer: `${one}`, homeAccountId: 'u.t', sid: 's' })
  await service.login({ issuer: `${another}`, homeAccountId: 'v.t', sid: 's' })
  t.equal((await service.post(await provider.logoutToken({ iss: one, sid: 's' }))).statusCode, 200)
  t.same(await service.rows(), ['client-a/v.t'])
})

t.test('a token whose issuer has no key for us waits for one', async (t) => {
  const service = await build(t)
  const [key] = service.provider.keys
  service.provider.keys = [await createSigningKey('ES256')]
  t.equal((await service.post(await service.provider.logoutToken({}, {}, key))).statusCode, 503)
  t.equal((await service.spool.status()).unverified, 1)
})

import { randomUUID } from 'node:crypto'
import t from 'tap'
import { createPool } from '../src/database.ts'
import { createIssuers } from '../src/issuers.ts'
import { createFrontchannel } from '../src/signals/frontchannel.ts'
import { createRole } from './fixtures/database.ts'
import { decryptionKey, encrypt } from './fixtures/encryption.ts'
import { startIdentityProvider } from './fixtures/identity-provider.ts'
import { build, issuerConfig } from './fixtures/service.ts'
import { until } from './fixtures/until.ts'

t.test('issuers are trusted, changed and dropped while it runs, and those that stay keep their keys', async (t) => {
  const service = await build(t)
  const other = await startIdentityProvider(t)
  const main = issuerConfig({ name: 'main', issuer: service.provider.issuer })
  const reload = (...issuers: ReturnType<typeof issuerConfig>[]) => service.reload({ ...service.config, issuers })
  t.equal((await service.post(await other.logoutToken())).statusCode, 400)
  t.equal((await service.post(await service.provider.logoutToken())).statusCode, 200)

  const added = await reload(main, issuerConfig({ name: 'other', issuer: other.issuer }))
  t.same(added, {
    issuers: { added: ['other'], removed: [], changed: [] },
    isAdminTokenNew: false,
    isDatabaseUrlNew: false
  })
  t.equal((await service.post(await other.logoutToken())).statusCode, 200)
  t.match(
    await service.metrics.text(),
    /signals_total\{source="frontchannel",issuer="other",outcome="lost",reason=""\} 0/
  )
  t.equal((await service.app.inject('/frontchannel-logout/other?sid=s1')).statusCode, 200)

  t.match(await reload({ ...main, clientIds: ['another'] }), { issuers: { removed: ['other'], changed: ['main'] } })
  t.equal((await service.post(await other.logoutToken())).statusCode, 400)
  t.equal((await service.post(await service.provider.logoutToken())).statusCode, 400, 'for another client')
  t.equal((await service.post(await service.provider.logoutToken({ aud: 'another' }))).statusCode, 200)
  t.equal(service.provider.keyFetches, 1, 'of the issuer that stayed')
  t.notMatch(await service.metrics.text(), /key_age_seconds\{issuer="other"\}/)
})

t.test('a token that waits for keys meanwhile is judged by the configuration that is in force then', async (t) => {
  let release = () => {}
  let isAsked = false
  const released = new Promise<void>((resolve) => {
    release = resolve
  })
  const service = await build(t, {
    edges: {
      async fetch(...request) {
        isAsked = true
        await released
        return fetch(...request)
      }
    }
  })
  await service.login({ sid: 's1' })
  const rows = await service.rows()
  const { provider, config } = service
  const [answer, answerOfNew] = [
    service.post(await provider.logoutToken({ sid: 's1' })),
    service.post(await provider.logoutToken({ sid: 's1', aud: ['client-a', 'another'] }))
  ]
  await until('keys are waited for', () => isAsked)
  await service.reload({
    ...config,
    issuers: [issuerConfig({ name: 'main', issuer: provider.issuer, clientIds: ['another'], purgeScope: 'session' })]
  })
  release()
  t.equal((await answer).statusCode, 400, 'for another client')
  t.equal((await answerOfNew).statusCode, 200)
  t.match(await service.database.query('select client_id from msal_logout.records'), [{ client_id: 'another' }])
  t.same(await service.rows(), [])
  t.equal(rows.length, 1)
})

t.test('a token that no key of the configuration of before made is judged by the keys of now', async (t) => {
  let release = () => {}
  let isAsked = false
  const released = new Promise<void>((resolve) => {
    release = resolve
  })
  const old = await startIdentityProvider(t)
  const service = await build(t, {
    policy: { jwksUri: `${old.issuer}/jwks` },
    edges: {
      async fetch(...request) {
        isAsked = true
        await released
        return fetch(...request)
      }
    }
  })
  await service.login({ sid: 's1' })
  const { provider, config } = service
  const answer = service.post(await provider.logoutToken({ sid: 's1' }))
  await until('keys are waited for', () => isAsked)
  await service.reload({ ...config, issuers: [issuerConfig({ name: 'main', issuer: provider.issuer })] })
  release()
  t.equal((await answer).statusCode, 200)
  t.same(await service.rows(), [])
})

t.test('so is a call that waits for the database', async (t) => {
  const issuer = 'https://op.example/{tenantid}'
  const tenant = randomUUID()
  const one = issuerConfig({ name: 'main', issuer })
  const issuers = createIssuers([one])
  const frontchannel = createFrontchannel({
    issuers,
    store: {
      async issuersOfSid() {
        issuers.replace([{ ...one, frontChannel: false }])
        return [issuer.replace('{tenantid}', tenant)]
      }
    }
  })
  await t.rejects(frontchannel.read({ name: 'main', sid: 's' }, Date.now()), { code: 'ERR_REQUEST_FRONT_CHANNEL_OFF' })
})

t.test('so is an operator whose token waits for keys, by the role that is wanted then', async (t) => {
  let release = () => {}
  let asked = 0
  const released = new Promise<void>((resolve) => {
    release = resolve
  })
  const provider = await startIdentityProvider(t)
  const issuer = issuerConfig({ name: 'operators', issuer: provider.issuer, types: ['at+jwt'] })
  const policy = (role: string) => ({ adminAccessTokens: { issuer, audience: 'api', role } })
  const service = await build(t, {
    config: policy('former'),
    edges: {
      async fetch(...request) {
        asked += 1
        await released
        return fetch(...request)
      }
    }
  })
  const ask = async (role: string) => {
    const claims = {
      aud: 'api',
      sub: 'person',
      roles: [role],
      events: undefined,
      exp: Math.floor(Date.now() / 1_000) + 60
    }
    const authorization = `Bearer ${await provider.logoutToken(claims, { typ: 'at+jwt' })}`
    return service.operate('GET', '/admin/purges', undefined, { authorization })
  }
  const answers = [ask('former'), ask('new')]
  await until('keys are waited for', () => asked > 0)
  await service.reload({ ...service.config, ...policy('new') })
  release()
  t.same(
    (await Promise.all(answers)).map(({ statusCode }) => statusCode),
    [403, 200]
  )
  await service.reload({ ...service.config, adminAccessTokens: undefined })
  t.equal((await ask('new')).statusCode, 401)
})

t.test('keys to decrypt with can be others', async (t) => {
  const service = await build(t)
  const [one, another] = [decryptionKey('P-256'), decryptionKey('X25519')]
  const reload = (key: typeof one) =>
    service.reload({ ...service.config, decryptionKeys: [{ ...key, isPublished: true }] })
  const post = async (key: typeof one) =>
    (await service.post(await encrypt(await service.provider.logoutToken(), key))).statusCode
  t.equal((await service.app.inject('/.well-known/jwks.json')).statusCode, 404)
  await reload(one)
  t.same([await post(one), await post(another)], [200, 400])
  await reload(another)
  t.same([await post(one), await post(another)], [400, 200])
  t.match((await service.app.inject('/.well-known/jwks.json')).json(), { keys: [{ kid: another.kid }] })
})

t.test("the operators' token can be another", async (t) => {
  const service = await build(t)
  const adminToken = 'another-operators-token-of-forty-chars-00'
  const ask = (token: string) =>
    service.operate('GET', '/admin/issuers', undefined, { authorization: `Bearer ${token}` })
  t.equal((await ask(adminToken)).statusCode, 401)
  t.match(await service.reload({ ...service.config, adminToken }), { isAdminTokenNew: true })
  t.equal((await ask(adminToken)).statusCode, 200)
  t.equal((await service.operate('GET', '/admin/issuers')).statusCode, 401, 'and the former one is of no use')
})

t.test("the database's URL can be another, if sign-outs can be done there", async (t) => {
  const service = await build(t, { openPool: (_url, options) => createPool(options) })
  const { database, config } = service
  const role = await createRole(database, 'service')
  const url = new URL(database.url)
  url.username = role
  url.password = 'test'
  await service.login({ sid: 's1' })
  await service.login({ sid: 's2' })
  const roles = async () => {
    const { rows } = await service.pools.signOuts.query<{ role: string }>('select current_user as role')
    return rows.map((row) => row.role)
  }
  const before = await roles()
  await t.rejects(service.reload({ ...config, databaseUrl: url.href, issuers: [] }), { code: 'ERR_DATABASE_FAILED' })
  t.same(await roles(), before, 'a role without rights is not taken')
  t.equal((await service.post(await service.provider.logoutToken({ sid: 's1' }))).statusCode, 200, 'nor its issuers')

  await database.query('select msal_logout.register_service($1)', [role])
  t.match(await service.reload({ ...config, databaseUrl: url.href }), { isDatabaseUrlNew: true })
  t.same(await roles(), [role], 'what was connected before is closed')
  t.equal((await service.post(await service.provider.logoutToken({ sid: 's2' }))).statusCode, 200)
  t.same(await service.rows(), [])
})

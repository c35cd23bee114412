import { randomUUID } from 'node:crypto'
import t, { type Test } from 'tap'
import { createPool } from '../src/database.ts'
import { UnavailableError } from '../src/errors.ts'
import { createSenders } from '../src/senders.ts'
import type { Edges } from '../src/service.ts'
import type { ResolveEmail } from '../src/signals/token-revocation.ts'
import { serverUrl } from './fixtures/database.ts'
import { startDirectory } from './fixtures/directory.ts'
import { decryptionKey, encrypt } from './fixtures/encryption.ts'
import { createSigningKey, type SigningKey } from './fixtures/identity-provider.ts'
import { nowSeconds } from './fixtures/orders.ts'
import { startProxy } from './fixtures/proxy.ts'
import { build, type Login, type Service, type ServiceOptions } from './fixtures/service.ts'
import { until } from './fixtures/until.ts'

const publicUrl = 'https://logout.example.com'
const endpoint = `${publicUrl}/global-token-revocation/main`

async function setUp(t: Test, options: ServiceOptions = {}) {
  const service = await build(t, { ...options, config: { publicUrls: [publicUrl], ...options.config } })
  const { issuer } = service.provider
  await service.login({ homeAccountId: 'u.t', sid: 's1', subject: 'user' })
  await service.login({ clientId: 'client-b', homeAccountId: 'u.t', sid: 's2', subject: 'user' })
  await service.login({ homeAccountId: 'v.t', sid: 's3', subject: 'another' })
  return { service, ofUser: { format: 'iss_sub', iss: issuer, sub: 'user' } }
}

/** A caller's JWT as Okta makes it, with what is given instead. */
function callerToken(
  { provider }: Service,
  claims: Record<string, unknown> = {},
  header: Record<string, unknown> = {},
  key?: SigningKey
): Promise<string> {
  const now = nowSeconds()
  return provider.sign(
    {
      iss: provider.issuer,
      aud: endpoint,
      sub: 'app',
      jti: randomUUID(),
      iat: now,
      nbf: now - 300,
      exp: now + 300,
      ...claims
    },
    { typ: 'global-token-revocation+jwt', ...header },
    key
  )
}

interface Request {
  token?: string
  authorization?: string
  name?: string
  body?: unknown
}

async function revoke(service: Service, { token, authorization, name = 'main', body }: Request) {
  const credentials = authorization ?? `Bearer ${token ?? (await callerToken(service))}`
  return service.app.inject({
    method: 'POST',
    url: `/global-token-revocation/${name}`,
    headers: { 'content-type': 'application/json', ...(credentials === '' ? {} : { authorization: credentials }) },
    payload: typeof body === 'string' ? body : JSON.stringify(body)
  })
}

const bySubject = (subject: object) => ({ sub_id: subject })

t.test('what the configuration of before could not do is tried by that of now', async (t) => {
  let asked = 0
  const { service } = await setUp(t, {
    edges: {
      async resolveEmail(issuer) {
        asked += 1
        if (asked === 1) {
          await service.reload({ ...service.config, issuers: service.config.issuers.map((one) => ({ ...one })) })
          throw new UnavailableError('ERR_DIRECTORY_UNAVAILABLE')
        }
        return { selectors: [{ kind: 'subject', issuer, subject: 'user' }] }
      }
    }
  })
  const body = bySubject({ format: 'email', email: 'user@example.com' })
  t.equal((await revoke(service, { body })).statusCode, 204)
})

t.test('a user is revoked in every app, and nobody else', async (t) => {
  for (const format of ['iss_sub', 'opaque'] as const) {
    const { service, ofUser } = await setUp(t)
    const answer = await revoke(service, { body: bySubject(format === 'opaque' ? { format, id: 'user' } : ofUser) })
    t.match(answer, { statusCode: 204, body: '', headers: { 'cache-control': 'no-store' } }, format)
    t.same(await service.rows(), ['client-a/v.t'])
    t.match((await service.operate('GET', '/admin/records')).json(), {
      records: [{ source: 'token-revocation', issuer: service.provider.issuer, subject: 'user', rows: 2, jti: String }]
    })
  }
})

t.test('what is beside in the body, and a slash at the end of the path, do no harm', async (t) => {
  const { service, ofUser } = await setUp(t)
  const body = { ...bySubject(ofUser), reason_admin: { en: 'left' }, subject: { format: 'opaque', id: 'another' } }
  t.equal((await revoke(service, { name: 'main/', body })).statusCode, 204)
  t.same(await service.rows(), ['client-a/v.t'])
})

t.test('who is not known here is answered 404, and a login that is under way is kept out', async (t) => {
  const { service, ofUser } = await setUp(t)
  const token = await callerToken(service)
  const request = { token, body: bySubject({ ...ofUser, sub: 'unknown' }) }
  t.match(await revoke(service, request), { statusCode: 404, body: /"not_found"/ })
  t.equal((await service.login({ sid: 's9', subject: 'unknown' })).accepted, false)
  t.match(await revoke(service, request), { statusCode: 404 }, 'also as a duplicate')
  const later = nowSeconds() + 5
  t.equal((await service.login({ sid: 's9', subject: 'unknown', issuedAt: later })).accepted, true, 'and no later one')
})

t.test(
  'the same request again is success without a second effect, and another one with the same JWT is not',
  async (t) => {
    const at = Date.now() // both within one second
    const { service, ofUser } = await setUp(t, { edges: { now: () => at } })
    const token = await callerToken(service)
    t.equal((await revoke(service, { token, body: bySubject(ofUser) })).statusCode, 204)
    await service.login({ homeAccountId: 'u.t', sid: 's4', subject: 'user', issuedAt: nowSeconds() + 5 })
    const before = await service.database.snapshot()
    t.equal((await revoke(service, { token, body: bySubject(ofUser) })).statusCode, 204)
    t.same(await service.database.snapshot(), before)
    t.equal((await revoke(service, { token, body: bySubject({ ...ofUser, sub: 'another' }) })).statusCode, 204)
    t.same(await service.rows(), ['client-a/u.t'])
  }
)

t.test('a JWT without an id serves for one request after the other', async (t) => {
  let at = Date.now()
  const { service, ofUser } = await setUp(t, { edges: { now: () => at } })
  const token = await callerToken(service, { jti: undefined })
  t.equal((await revoke(service, { token, body: bySubject(ofUser) })).statusCode, 204)
  await service.login({ homeAccountId: 'u.t', sid: 's4', subject: 'user', issuedAt: nowSeconds() + 5 })
  at += 10_000
  t.equal((await revoke(service, { token, body: bySubject(ofUser) })).statusCode, 204)
  t.same(await service.rows(), ['client-a/v.t'])
})

t.test('a sign-in after the request lives', async (t) => {
  const { service, ofUser } = await setUp(t)
  await service.login({ homeAccountId: 'w.t', sid: 's5', subject: 'user', issuedAt: nowSeconds() + 30 })
  t.equal((await revoke(service, { body: bySubject(ofUser) })).statusCode, 204)
  t.same(await service.rows(), ['client-a/v.t', 'client-a/w.t'])
})

t.test('a bad request is rejected for its reason, and changes nothing', async (t) => {
  const { service, ofUser } = await setUp(t, {
    issuers: [{ name: 'other', issuer: 'https://other.example' }],
    edges: { senders: { ...createSenders(), rejected: () => 0 } } // the limit is another test's matter
  })
  const before = await service.database.snapshot()
  const now = nowSeconds()
  const forger = await createSigningKey('RS256', service.provider.keys[0]?.kid)
  const signed = async (...changes: [claims: object, header?: object, key?: SigningKey]) => ({
    token: await callerToken(service, { ...changes[0] }, { ...changes[1] }, changes[2])
  })
  const cases: [name: string, request: Request, status: number, code: string][] = [
    ['no credentials', { authorization: '' }, 401, 'ERR_REQUEST_AUTHORIZATION'],
    ['other credentials', { authorization: 'Basic dTpw' }, 401, 'ERR_REQUEST_AUTHORIZATION'],
    ['an empty token', { authorization: 'Bearer ' }, 401, 'ERR_REQUEST_AUTHORIZATION'],
    ['two tokens', { authorization: 'Bearer a b' }, 401, 'ERR_REQUEST_AUTHORIZATION'],
    ['no JWT', { authorization: 'Bearer secret' }, 401, 'ERR_TOKEN_MALFORMED'],
    ['a forged JWT', await signed({}, {}, forger), 401, 'ERR_TOKEN_SIGNATURE'],
    ['a JWT of nobody', await signed({ iss: 'https://evil.example' }), 401, 'ERR_TOKEN_ISSUER'],
    ['a JWT of another issuer', { ...(await signed({})), name: 'other' }, 401, 'ERR_TOKEN_ISSUER'],
    ['a JWT for nobody', await signed({ aud: undefined }), 401, 'ERR_TOKEN_AUDIENCE_MISSING'],
    ['a JWT for a client', await signed({ aud: 'client-a' }), 401, 'ERR_TOKEN_AUDIENCE'],
    [
      'a JWT for another issuer’s endpoint',
      await signed({ aud: endpoint.replace('main', 'other') }),
      401,
      'ERR_TOKEN_AUDIENCE'
    ],
    [
      'a JWT for another host',
      await signed({ aud: 'https://evil.example/global-token-revocation/main' }),
      401,
      'ERR_TOKEN_AUDIENCE'
    ],
    ['a JWT for the host alone', await signed({ aud: publicUrl }), 401, 'ERR_TOKEN_AUDIENCE'],
    ['an access token', await signed({}, { typ: 'at+jwt' }), 401, 'ERR_TOKEN_TYPE'],
    ['a JWT without typ', await signed({}, { typ: undefined }), 401, 'ERR_TOKEN_TYPE_MISSING'],
    ['typ JWT', await signed({}, { typ: 'JWT' }), 401, 'ERR_TOKEN_TYPE'],
    ['a logout token', { token: await service.provider.logoutToken() }, 401, 'ERR_TOKEN_TYPE'],
    ['an expired JWT', await signed({ iat: now - 400, exp: now - 100 }), 401, 'ERR_TOKEN_EXPIRED'],
    ['a JWT without an end', await signed({ exp: undefined }), 401, 'ERR_TOKEN_EXP_MISSING'],
    ['a JWT from yesterday', await signed({ iat: now - 86_400, exp: now + 60 }), 401, 'ERR_TOKEN_TOO_OLD'],
    ['a JWT not yet valid', await signed({ nbf: now + 300 }), 401, 'ERR_TOKEN_NBF_FUTURE'],
    ['a JWT without iat', await signed({ iat: undefined }), 401, 'ERR_TOKEN_IAT_MISSING'],
    ['a jti that is a number', await signed({ jti: 1 }), 401, 'ERR_TOKEN_JTI_MALFORMED'],
    ['an unknown issuer', { name: 'nobody' }, 404, 'ERR_REQUEST_ISSUER_NAME'],
    ['an issuer of the prototype', { name: '__proto__' }, 404, 'ERR_REQUEST_ISSUER_NAME'],
    ['no body', { body: '' }, 400, 'ERR_REQUEST_JSON'],
    ['a body that is no JSON', { body: '{' }, 400, 'ERR_REQUEST_JSON'],
    ['a body that is an array', { body: [ofUser] }, 400, 'ERR_REQUEST_JSON'],
    ['a body that is null', { body: 'null' }, 400, 'ERR_REQUEST_JSON'],
    [
      'two subjects',
      { body: `{"sub_id":${JSON.stringify(ofUser)},"sub_id":{"format":"opaque","id":"v"}}` },
      400,
      'ERR_REQUEST_JSON'
    ],
    ['no subject', { body: {} }, 400, 'ERR_REQUEST_SUBJECT_MISSING'],
    ['the subject of older drafts', { body: { subject: ofUser } }, 400, 'ERR_REQUEST_SUBJECT_MISSING'],
    ['a subject that is a string', { body: { sub_id: 'user' } }, 400, 'ERR_REQUEST_SUBJECT_MALFORMED'],
    [
      'a subject without a format',
      { body: { sub_id: { ...ofUser, format: undefined } } },
      400,
      'ERR_REQUEST_SUBJECT_MALFORMED'
    ],
    [
      'a subject without a sub',
      { body: bySubject({ ...ofUser, sub: undefined }) },
      400,
      'ERR_REQUEST_SUBJECT_MALFORMED'
    ],
    [
      'a subject without an iss',
      { body: bySubject({ ...ofUser, iss: undefined }) },
      400,
      'ERR_REQUEST_SUBJECT_MALFORMED'
    ],
    ['an empty sub', { body: bySubject({ ...ofUser, sub: '' }) }, 400, 'ERR_REQUEST_SUBJECT_MALFORMED'],
    [
      'a sub that is a list',
      { body: bySubject({ ...ofUser, sub: ['user', 'another'] }) },
      400,
      'ERR_REQUEST_SUBJECT_MALFORMED'
    ],
    [
      'an opaque id that is a number',
      { body: bySubject({ format: 'opaque', id: 7 }) },
      400,
      'ERR_REQUEST_SUBJECT_MALFORMED'
    ],
    [
      'an address that is none',
      { body: bySubject({ format: 'email', email: 'user' }) },
      400,
      'ERR_REQUEST_SUBJECT_MALFORMED'
    ],
    [
      'a telephone',
      { body: bySubject({ format: 'phone_number', phone_number: '+1' }) },
      400,
      'ERR_REQUEST_SUBJECT_FORMAT'
    ],
    ['a complex subject', { body: bySubject({ format: 'complex', user: ofUser }) }, 400, 'ERR_REQUEST_SUBJECT_FORMAT'],
    [
      'a user of another issuer',
      { body: bySubject({ ...ofUser, iss: 'https://other.example' }) },
      404,
      'ERR_REQUEST_SUBJECT_ISSUER'
    ]
  ]
  for (const [name, request, status, code] of cases) {
    const answer = await revoke(service, { body: bySubject(ofUser), ...request })
    t.equal(answer.statusCode, status, name)
    t.match(answer.json(), { error: String, error_description: String }, name)
    t.equal(answer.headers['www-authenticate']?.toString().startsWith('Bearer'), status === 401 || undefined, name)
    t.match((await service.operate('GET', '/admin/rejections?limit=1')).json(), { rejections: [{ code }] }, name)
  }
  const head = await service.app.inject({ method: 'GET', url: '/global-token-revocation/main' })
  t.match(head, { statusCode: 405, headers: { allow: 'POST' } })
  const large = await revoke(service, { body: ' '.repeat(70_000) })
  t.equal(large.statusCode, 413)
  t.same(await service.database.snapshot(), before)
})

t.test('an address is revoked where the directory of its issuer knows it', async (t) => {
  const asked: string[][] = []
  let directory: ResolveEmail = async () => ({ ignored: 'no_directory' })
  const { service } = await setUp(t, {
    edges: {
      resolveEmail(...question) {
        asked.push(question)
        return directory(...question)
      }
    }
  })
  const { issuer } = service.provider
  const [tid, oid] = [randomUUID(), randomUUID()]
  await service.login({ homeAccountId: 'g.t', sid: 's6', subject: 'guest', tid, oid })
  const rows = await service.rows()
  const send = () => revoke(service, { body: bySubject({ format: 'email', email: 'user@example.com' }) })
  const counted = async (reason: string) =>
    (await service.metrics.text()).includes(`outcome="ignored",reason="${reason}"} 1`)

  t.equal((await send()).statusCode, 404, 'no directory')
  t.ok(await counted('no_directory'))
  for (const [ignored, why] of [
    ['unknown_email', 'nobody has it'],
    ['ambiguous_email', 'two have it']
  ] as const) {
    directory = async () => ({ ignored })
    t.equal((await send()).statusCode, 404, why)
    t.ok(await counted(ignored))
  }
  t.same(await service.rows(), rows)
  directory = async () => ({ selectors: [{ kind: 'object', tenantId: tid, objectId: oid }] })
  t.equal((await send()).statusCode, 204)
  t.same(
    await service.rows(),
    rows.filter((row) => !row.endsWith('g.t'))
  )
  t.same(asked, Array(4).fill([issuer, 'user@example.com']))
})

t.test('a request that waits for the directory through a reload is judged by the configuration of then', async (t) => {
  const { service } = await setUp(t, {
    edges: {
      async resolveEmail() {
        await service.reload({ ...service.config, issuers: [] })
        return { selectors: [{ kind: 'object', tenantId: randomUUID(), objectId: randomUUID() }] }
      }
    }
  })
  const before = await service.database.snapshot()
  const answer = await revoke(service, { body: bySubject({ format: 'email', email: 'user@example.com' }) })
  t.equal(answer.statusCode, 404, 'its issuer is not configured')
  t.same(await service.database.snapshot(), before)
})

t.test('an address is deferred while the directory is out of reach, and done as of its arrival', async (t) => {
  let isUp = false
  const { service } = await setUp(t, {
    edges: {
      async resolveEmail(issuer, email) {
        if (!isUp) {
          throw new UnavailableError('ERR_DEADLINE')
        }
        return email.startsWith('user')
          ? { selectors: [{ kind: 'subject', issuer, subject: 'user' }] }
          : { ignored: 'unknown_email' }
      }
    }
  })
  const body = bySubject({ format: 'email', email: 'user@example.com' })
  t.match(await revoke(service, { body }), { statusCode: 503, headers: { 'retry-after': '5' } })
  const ofNobody = bySubject({ format: 'email', email: 'nobody@example.com' })
  t.equal((await revoke(service, { body: ofNobody })).statusCode, 503)
  await service.login({ homeAccountId: 'w.t', sid: 's5', subject: 'user', issuedAt: nowSeconds() + 30 })
  isUp = true
  service.retry()
  await until('it is done', async () => (await service.rows()).length === 2)
  t.same(await service.rows(), ['client-a/v.t', 'client-a/w.t'], 'a sign-in since then lives')
  await until('nothing waits', async () => (await service.spool.status()).unverified === 0)
  t.match(await service.metrics.text(), /retries_total{.*outcome="ignored",reason="unknown_email"} 1/)
})

t.test('what cannot be done now is deferred, and done once: no database, no keys', async (t) => {
  const proxy = await startProxy(t, serverUrl())
  const { service, ofUser } = await setUp(t, {
    openPool(databaseUrl, options) {
      const url = new URL(databaseUrl)
      url.host = `127.0.0.1:${proxy.port}`
      return createPool({ ...options, connectionString: url.href })
    }
  })
  service.provider.behaviour = 'down'
  const request = { token: await callerToken(service), body: bySubject(ofUser) }
  t.match(await revoke(service, request), { statusCode: 503, body: /deferred/ }, 'no keys')
  t.match(await service.spool.status(), { unverified: 1, verified: 0 })
  service.provider.behaviour = 'up'
  proxy.set('cut')
  const another = { token: await callerToken(service), body: bySubject({ ...ofUser, sub: 'another' }) }
  await until('the keys are asked for again', async () => {
    await revoke(service, another)
    return (await service.spool.status()).verified === 1
  })
  t.notMatch(
    JSON.stringify((await service.spool.list(10)).filter(({ deferred }) => deferred?.kind === 'orders')),
    /eyJ/
  )
  proxy.set('open')
  service.retry()
  await until('both are done', async () => (await service.rows()).length === 0)
  await until('nothing waits', async () => {
    const { verified, unverified } = await service.spool.status()
    return verified + unverified === 0
  })
  t.equal((await revoke(service, request)).statusCode, 204, 'again: a duplicate')
})

t.test('an encrypted JWT is taken, as an encrypted logout token is', async (t) => {
  const key = decryptionKey('P-256')
  const { service, ofUser } = await setUp(t, { config: { decryptionKeys: [{ ...key, isPublished: false }] } })
  const token = await encrypt(await callerToken(service), key)
  t.equal((await revoke(service, { token, body: bySubject(ofUser) })).statusCode, 204)
})

t.test('a tenant of a template reaches its own users alone', async (t) => {
  const [one, another] = ['9188040d-6c67-4c5b-b112-36a304b66dad', '8188040d-6c67-4c5b-b112-36a304b66dad']
  const { provider } = await build(t)
  const template = { issuer: `${provider.issuer}/{tenantid}/v2.0`, jwksUri: `${provider.issuer}/jwks` }
  const service = await build(t, { policy: template, config: { publicUrls: [publicUrl] } })
  service.provider.keys = provider.keys
  const issuerOf = (tenant = '') => `${provider.issuer}/${tenant}/v2.0`
  await service.login({ issuer: issuerOf(one), homeAccountId: 'u.t', sid: 's1', subject: 'user' })
  await service.login({ issuer: issuerOf(another), homeAccountId: 'v.t', sid: 's1', subject: 'user' })
  const token = () => callerToken(service, { iss: issuerOf(one) })
  const ofAnother = { format: 'iss_sub', iss: issuerOf(another), sub: 'user' }
  t.equal((await revoke(service, { token: await token(), body: bySubject(ofAnother) })).statusCode, 404)
  t.equal((await service.rows()).length, 2)
  t.equal(
    (await revoke(service, { token: await token(), body: bySubject({ format: 'opaque', id: 'user' }) })).statusCode,
    204
  )
  t.same(await service.rows(), ['client-a/v.t'])
})

t.test('whose request is genuine is never limited, also if nobody is known here', async (t) => {
  const { service, ofUser } = await setUp(t)
  for (let i = 0; i < 80; i++) {
    const answer = await revoke(service, { body: bySubject({ ...ofUser, sub: `unknown ${i}` }) })
    t.equal(answer.statusCode, 404)
  }
  t.equal((await revoke(service, { body: bySubject(ofUser) })).statusCode, 204)
  let status = 0
  for (let i = 0; i < 80 && status !== 429; i++) {
    status = (await revoke(service, { authorization: 'Bearer x', body: bySubject(ofUser) })).statusCode
  }
  t.equal(status, 429, 'and the others are')
})

/** Two tenants of a template, each with a directory in the same cloud. */
async function startTenants(t: Test, edges: Partial<Edges> = {}) {
  const [one, another] = ['9188040d-6c67-4c5b-b112-36a304b66dad', '8188040d-6c67-4c5b-b112-36a304b66dad'] as const
  const { provider } = await build(t)
  const issuerOf = (tenant: string) => `${provider.issuer}/${tenant}/v2.0`
  const { graph, tenant, config } = await startDirectory(t, {}, { tenantId: one })
  const { tenant: other } = await startDirectory(t, {}, { tenantId: another, graph })
  const service = await build(t, {
    policy: {
      issuer: issuerOf('{tenantid}'),
      jwksUri: `${provider.issuer}/jwks`,
      directory: { ...config, tenants: [one, another].map((tenantId) => ({ tenantId, issuer: issuerOf(tenantId) })) }
    },
    config: { publicUrls: [publicUrl] },
    edges: { directories: { sleep: async () => {} }, ...edges }
  })
  service.provider.keys = provider.keys
  const signIn = (oid: string, tid: string, login: Partial<Login> = {}) =>
    service.login({
      issuer: issuerOf(tid),
      homeAccountId: `${oid}.${tid}`,
      subject: oid,
      sid: randomUUID(),
      oid,
      tid,
      ...login
    })
  const send = async (email: string, tid: string = one) =>
    revoke(service, {
      token: await callerToken(service, { iss: issuerOf(tid) }),
      body: bySubject({ format: 'email', email })
    })
  const records = async () =>
    ((await service.operate('GET', '/admin/records')).json() as { records: { rows: number }[] }).records
  return { one, another, graph, tenant, other, service, signIn, send, records }
}

t.test('a caller reaches no user of another issuer, also by the same name, and learns nothing of one', async (t) => {
  const other = 'https://other.example'
  const { service, ofUser } = await setUp(t, {
    issuers: [{ name: 'other', issuer: other, clientIds: ['client-a'] }]
  })
  // Accounts that are a bare `sub`: of two issuers with one id.
  const bare = { homeAccountId: 'same', subject: 'same' }
  await service.login({ ...bare, partitionKey: 'ours', sid: 's4' })
  await service.login({ ...bare, partitionKey: 'theirs', issuer: other, sid: 's4' })
  await service.login({ partitionKey: 'their-own', issuer: other, homeAccountId: 'own', sid: 's5', subject: 'own' })
  const ask = async (subject: object) => {
    const { statusCode, body } = await revoke(service, { body: bySubject(subject) })
    return { statusCode, body }
  }
  const before = await service.rows()
  const unknown = await ask({ format: 'opaque', id: 'nobody' })
  t.equal(unknown.statusCode, 404)
  t.same(await ask({ format: 'opaque', id: 'own' }), unknown, 'by the id of their user')
  t.same(await ask({ ...ofUser, sub: 'own' }), unknown, 'in the name of our issuer')
  t.same(await ask({ format: 'email', email: 'own@other.example' }), unknown, 'by an address')
  const foreign = await ask({ ...ofUser, iss: other, sub: 'own' })
  t.same(await ask({ ...ofUser, iss: other, sub: 'nobody' }), foreign, 'whether they have that user or not')
  t.equal(foreign.statusCode, 404)
  t.same(await ask({ ...ofUser, iss: other, sub: 'same' }), foreign, 'nor is ours meant, who has the same name')
  t.same(await service.rows(), before)
  t.equal((await ask({ format: 'opaque', id: 'same' })).statusCode, 204)
  t.same(
    await service.rows(),
    before.filter((row) => row !== 'client-a/ours'),
    'of one id at two issuers our own alone'
  )
})

t.test("an address is looked up in the directory of its caller's own tenant", async (t) => {
  const { one, another, tenant, other, service, signIn, send, records } = await startTenants(t)
  const ada = tenant.add(undefined, { mail: "Ada.O'Neil@example.com", userPrincipalName: 'ada@contoso.example' })
  const stranger = other.add(undefined, { mail: "ada.o'neil@example.com", userPrincipalName: 'ada@fabrikam.example' })
  const guest = tenant.add(undefined, { mail: 'guest@example.com' })
  const older = tenant.add(undefined, { userPrincipalName: 'older@contoso.example' })
  const home = `${randomUUID()}.${randomUUID()}`
  await signIn(ada.id, one)
  await signIn(ada.id, one, { clientId: 'client-b' })
  await signIn(stranger.id, another)
  await signIn(guest.id, one, { homeAccountId: home })
  await signIn(older.id, one, { oid: null, tid: null })

  t.equal((await send('ada@fabrikam.example')).statusCode, 404, 'of another tenant')
  t.equal((await service.rows()).length, 5)
  t.equal((await send("ada.o'neil@EXAMPLE.com")).statusCode, 204)
  t.same(
    await service.rows(),
    [`client-a/${stranger.id}.${another}`, `client-a/${home}`, `client-a/${older.id}.${one}`].sort(),
    'in every app'
  )
  t.equal((await send('guest@example.com')).statusCode, 204, 'a guest, by the object')
  t.equal((await send('older@contoso.example')).statusCode, 204, 'whose ID token named no object, by the home')
  t.same(await service.rows(), [`client-a/${stranger.id}.${another}`])
  t.same(
    (await records()).map(({ rows }) => rows),
    [1, 1, 2],
    'each leaves one record'
  )
})

t.test('an address that nobody or more than one user has revokes nobody', async (t) => {
  const { one, tenant, service, signIn, send, records } = await startTenants(t)
  const byMail = tenant.add(undefined, { mail: 'shared@contoso.example' })
  const byName = tenant.add(undefined, { userPrincipalName: 'Shared@contoso.example' })
  const long = tenant.add(undefined, {
    mail: 'shared@contoso.example.org',
    proxyAddresses: ['smtp:alias@contoso.example']
  })
  for (const { id } of [byMail, byName, long]) {
    await signIn(id, one)
  }
  const before = await service.database.snapshot()
  for (const email of [
    'shared@contoso.example',
    'alias@contoso.example',
    'nobody@contoso.example',
    "x'or'@contoso.example",
    'what#the-directory@cannot.bear',
    "'or(accountEnabled)or'@x",
    `${'x'.repeat(900)}@contoso.example`
  ]) {
    t.equal((await send(email)).statusCode, 404, email)
  }
  t.same(await service.database.snapshot(), before)
  const unknown = tenant.add(undefined, { mail: 'new@contoso.example' })
  t.equal((await send('new@contoso.example')).statusCode, 404, 'who is not signed in')
  t.equal((await records()).length, 1)
  t.equal((await signIn(unknown.id, one)).accepted, false, 'a login under way is kept out')
  t.equal((await signIn(unknown.id, one, { oid: null, tid: null })).accepted, false, 'also one that names no object')
})

t.test('an address is deferred while its directory cannot be asked, and nobody waits for it', async (t) => {
  let aheadMs = 0
  const { one, tenant, service, signIn, send, graph } = await startTenants(t, { now: () => Date.now() + aheadMs })
  const ada = tenant.add(undefined, { mail: 'ada@contoso.example' })
  const ben = tenant.add(undefined, { mail: 'ben@contoso.example' })
  const another = tenant.add()
  await signIn(ben.id, one)
  await signIn(another.id, one)
  graph.behaviour = 'unavailable'
  t.match(await send('ada@contoso.example'), { statusCode: 503, headers: { 'retry-after': '5' }, body: /deferred/ })
  const asked = graph.calls.length
  t.equal((await send('ben@contoso.example')).statusCode, 503)
  t.equal(graph.calls.length, asked, 'it is not asked again at once')
  t.ok(service.logs.some((line) => line.includes('ERR_DIRECTORY_UNAVAILABLE')))
  await signIn(ada.id, one, { issuedAt: nowSeconds() + 30 })
  graph.behaviour = 'up'
  aheadMs = 6_000
  service.retry()
  await until('nothing waits', async () => (await service.spool.status()).unverified === 0)
  t.same(
    await service.rows(),
    [`client-a/${another.id}.${one}`, `client-a/${ada.id}.${one}`].sort(),
    'a sign-in since then lives'
  )
})

t.test('a directory that shows others than it was asked for revokes nobody', async (t) => {
  const { one, tenant, service, signIn, send, graph } = await startTenants(t)
  const others = [
    tenant.add(undefined, { mail: 'a@contoso.example' }),
    tenant.add(undefined, { mail: 'b@contoso.example' })
  ]
  for (const { id } of others) {
    await signIn(id, one)
  }
  graph.losesFilters = true
  t.equal((await send('nobody@contoso.example')).statusCode, 503)
  t.equal((await service.rows()).length, 2)
})

import { randomUUID } from 'node:crypto'
import { Validator } from '@seriousme/openapi-schema-validator'
import t, { type Test } from 'tap'
import { createAdmin } from '../src/admin.ts'
import { readConfig } from '../src/config.ts'
import { createIssuers } from '../src/issuers.ts'
import { createOperatorCheck } from '../src/operators.ts'
import { createRole } from './fixtures/database.ts'
import { clientId, createSigningKey } from './fixtures/identity-provider.ts'
import { startServer } from './fixtures/server.ts'
import { adminToken, build, type Service, storeLogin } from './fixtures/service.ts'

const reason = 'left the company'
const audience = 'api://msal-logout'
const role = 'Purge.All'

const nowSeconds = () => Math.floor(Date.now() / 1_000)

/** Operators of the service's own provider, as `ADMIN_ISSUER` and its neighbours would let them in. */
function operatorsOf(t: Test, service: Service, withStaticToken = true) {
  const { adminAccessTokens } = readConfig({
    ISSUER: service.provider.issuer,
    CLIENT_IDS: 'client-a',
    ADMIN_ISSUER: service.provider.issuer,
    ADMIN_AUDIENCE: audience,
    ADMIN_ROLE: role
  })
  if (adminAccessTokens === undefined) {
    throw new Error('not configured')
  }
  const admin = createAdmin({
    ...service,
    logger: service.admin.log,
    identify: createOperatorCheck({
      token: withStaticToken ? adminToken : undefined,
      accessTokens: { ...adminAccessTokens, issuers: createIssuers([adminAccessTokens.issuer]) }
    })
  })
  t.teardown(() => admin.close())
  return {
    accessToken: (claims: object = {}, header: Record<string, unknown> = {}, key = service.provider.keys[0]) =>
      service.provider.sign(
        JSON.parse(
          JSON.stringify({
            iss: service.provider.issuer,
            aud: audience,
            iat: nowSeconds(),
            exp: nowSeconds() + 600,
            sub: 'pairwise',
            oid: 'person-1',
            azp: 'console',
            roles: ['Other', role],
            ...claims
          })
        ),
        header,
        key
      ),
    purge: (authorization: string, body: object = { homeAccountId: 'u.t', reason }, headers: object = {}) =>
      admin.inject({ method: 'POST', url: '/admin/purges', headers: { authorization, ...headers }, payload: body })
  }
}

t.test('an access token with the role lets its bearer act, and the record names the person and the app', async (t) => {
  const service = await build(t)
  const { accessToken, purge } = operatorsOf(t, service)
  const iss = service.provider.issuer
  for (const [claims, header, actor] of [
    [{}, {}, `${iss}#oid=person-1&app=console`],
    [{ oid: undefined, aud: ['other', audience] }, { typ: 'at+jwt' }, `${iss}#sub=pairwise&app=console`],
    [{ azp: undefined, client_id: 'cli' }, { typ: 'application/at+jwt' }, `${iss}#oid=person-1&app=cli`],
    [{ oid: undefined, sub: undefined, azp: undefined, appid: 'robot' }, { typ: 'JWT' }, `${iss}#app=robot`],
    [{ oid: 'x&app=other' }, {}, `${iss}#oid=x%26app%3Dother&app=console`]
  ] as const) {
    await service.login({ homeAccountId: 'u.t', issuedAt: nowSeconds() + 30 })
    const answer = await purge(`Bearer ${await accessToken(claims, header)}`)
    t.equal(answer.statusCode, 200)
    t.same(await service.rows(), [])
    const [record] = await service.database.query('select actor, reason from msal_logout.purges where id = $1', [
      answer.json().id
    ])
    t.same(record, { actor, reason })
  }
  const byToken = await purge(`Bearer ${adminToken}`)
  t.match((await service.operate('GET', `/admin/purges/${byToken.json().id}`)).json(), { actor: 'admin-token' })
})

t.test('a token that is not an access token of an operator changes nothing', async (t) => {
  const service = await build(t)
  const { accessToken, purge } = operatorsOf(t, service)
  const stranger = await createSigningKey()
  await service.login({ homeAccountId: 'u.t' })
  const before = await service.database.snapshot()
  const cases: [string, Promise<string>, number][] = [
    ['no role', accessToken({ roles: undefined }), 403],
    ['another role', accessToken({ roles: ['Other'] }), 403],
    ['a role that contains it', accessToken({ roles: [`${role}x`] }), 403],
    ['roles that are a text', accessToken({ roles: role }), 403],
    ['the role in another claim', accessToken({ roles: undefined, scp: role, groups: [role] }), 403],
    ['no role, and a signature by nobody', accessToken({ roles: [] }, {}, stranger), 401],
    ['a key of nobody', accessToken({}, {}, stranger), 401],
    ['a key of nobody under a known kid', accessToken({}, { kid: service.provider.keys[0]?.kid }, stranger), 401],
    ['another audience', accessToken({ aud: 'client-a' }), 401],
    ['no audience', accessToken({ aud: undefined }), 401],
    ['another issuer', accessToken({ iss: 'https://evil.example' }), 401],
    ['expired', accessToken({ exp: nowSeconds() - 120 }), 401],
    ['no expiry', accessToken({ exp: undefined }), 401],
    ['an expiry that is a text', accessToken({ exp: '9999999999' }), 401],
    ['not valid yet', accessToken({ nbf: nowSeconds() + 600 }), 401],
    ['an ID token', accessToken({ nonce: 'n' }), 401],
    ['a logout token', service.provider.logoutToken({ aud: audience, roles: [role], sub: 'u' }), 401],
    ['a logout token that hides its type', accessToken({ events: {} }, { typ: 'JWT' }), 401],
    ['a type that is not known', accessToken({}, { typ: 'dpop+jwt' }), 401],
    ['a critical header', accessToken({}, { crit: ['urn:example:known'], 'urn:example:known': 1 }), 401],
    ['nobody named', accessToken({ sub: undefined, oid: undefined, azp: undefined }), 401],
    ['a name without end', accessToken({ sub: undefined, oid: 'x'.repeat(300), azp: undefined }), 401],
    ['no signature', accessToken().then((token) => token.replace(/[^.]+$/, '')), 401],
    [
      'algorithm none',
      accessToken().then((token) => `${Buffer.from('{"alg":"none"}').toString('base64url')}.${token.split('.')[1]}.`),
      401
    ]
  ]
  for (const [name, token, status] of cases) {
    const answer = await purge(`Bearer ${await token}`)
    t.equal(answer.statusCode, status, name)
    t.match(answer.headers['www-authenticate'], status === 403 ? /insufficient_scope/ : /invalid_token/)
    t.match(answer.json(), { status, code: status === 403 ? 'forbidden' : 'unauthorized' })
  }
  t.same(await service.database.snapshot(), before)
})

t.test('keys that are out of reach are not the fault of the operator, and rotated ones are found', async (t) => {
  const service = await build(t)
  const { accessToken, purge } = operatorsOf(t, service)
  const token = await accessToken()
  service.provider.behaviour = 'down'
  const answer = await purge(`Bearer ${token}`)
  t.equal(answer.statusCode, 503)
  t.match(answer.json(), { code: 'temporarily_unavailable', detail: 'the keys of the issuer are out of reach' })
  t.equal((await purge(`Bearer ${adminToken}`)).statusCode, 200, 'the static token needs none')
  for (let i = 0; i < 100; i += 1) {
    await purge(`Bearer ${token}`)
  }
  t.ok(service.logs.filter((line) => line.includes('"not done"')).length < 70, 'a flood does not fill the log')

  service.provider.behaviour = 'up'
  const other = operatorsOf(t, service)
  t.equal((await other.purge(`Bearer ${await other.accessToken()}`)).statusCode, 200)
  service.provider.keys = [await createSigningKey()]
  t.equal((await other.purge(`Bearer ${await other.accessToken()}`)).statusCode, 200)
})

t.test('without a static token none is accepted, and an operator of JWTs is', async (t) => {
  const service = await build(t)
  const { accessToken, purge } = operatorsOf(t, service, false)
  t.equal((await purge(`Bearer ${adminToken}`)).statusCode, 401)
  t.equal((await purge('Bearer undefined')).statusCode, 401)
  t.equal((await purge(`Bearer ${await accessToken()}`)).statusCode, 200)
})

t.test('the three variables of operators come together, and name one issuer over https', async (t) => {
  const env = { ISSUER: 'https://issuer.example', CLIENT_IDS: 'a' }
  const all = { ADMIN_ISSUER: 'https://operators.example', ADMIN_AUDIENCE: audience, ADMIN_ROLE: role }
  t.match(readConfig({ ...env, ...all }).adminAccessTokens, { audience, role, issuer: { issuer: all.ADMIN_ISSUER } })
  t.equal(readConfig(env).adminAccessTokens, undefined)
  for (const name of Object.keys(all)) {
    t.throws(() => readConfig({ ...env, ...all, [name]: '' }), new RegExp(`a problem:\n +${name}: must be given`))
  }
  for (const issuer of ['http://operators.example', 'https://login.example/{tenantid}/v2.0', 'nonsense']) {
    t.throws(() => readConfig({ ...env, ...all, ADMIN_ISSUER: issuer }), /a problem:\n +ADMIN_ISSUER: /, issuer)
  }
})

t.test('the records are told page by page, newest first, each once, also those of one moment', async (t) => {
  const service = await build(t)
  t.same((await service.operate('GET', '/admin/purges')).json(), { purges: [], next: null })
  await service.database.query(
    `insert into msal_logout.purges (id, source, at, request_hash)
    select gen_random_uuid(), 'admin', now() - (i / 3) * interval '1 microsecond', 'x' from generate_series(1, 11) i`
  )
  const expected = await service.database.query<{ id: string }>(
    'select id from msal_logout.purges order by at desc, id desc'
  )
  const seen: string[] = []
  let next: string | null = ''
  let pages = 0
  while (next !== null) {
    const answer = await service.operate('GET', `/admin/purges?limit=4${next && `&before=${next}`}`)
    const page = answer.json() as { purges: { id: string }[]; next: string | null }
    for (const record of page.purges) {
      t.notOk('requestHash' in record || 'replayed' in record)
      seen.push(record.id)
    }
    next = page.next
    pages += 1
  }
  t.equal(pages, 3)
  t.same(
    seen,
    expected.map(({ id }) => id)
  )
  for (const query of ['limit=0', 'limit=501', 'limit=x', 'before=x', `before=${randomUUID()}`, 'unknown=1']) {
    t.equal((await service.operate('GET', `/admin/purges?${query}`)).statusCode, 400, query)
  }
})

t.test('an account is shown with its rows and sessions, and never a payload', async (t) => {
  const service = await build(t)
  const { issuer } = service.provider
  const homeAccountId = 'auth0|Ab/Cd é.t'
  const login = { homeAccountId, sid: 's1', subject: 'u', payload: 'the secret payload' }
  await service.login({ ...login, clientId: 'a' })
  await service.login({ ...login, clientId: 'b', sid: null, issuedAt: 1_700_000_000 })
  await service.login({ homeAccountId: 'other.t' })
  const answer = await service.operate('GET', `/admin/accounts/${encodeURIComponent(homeAccountId)}`)
  t.equal(answer.statusCode, 200)
  const account = answer.json() as { rows: object[]; sessions: object[] }
  const row = { partitionKey: homeAccountId, kind: 'user', accountIssuer: null, payloadBytes: 18 }
  t.match(account, {
    homeAccountId,
    isComplete: true,
    rows: [
      { ...row, clientId: 'a' },
      { ...row, clientId: 'b' }
    ],
    sessions: [
      { clientId: 'a', issuer, sid: 's1', subject: 'u' },
      { clientId: 'b', issuer, sid: null, subject: 'u', issuedAt: '2023-11-14T22:13:20.000Z' }
    ]
  })
  t.equal(account.rows.length, 2)
  t.equal(account.sessions.length, 2)
  t.notMatch(JSON.stringify(account), /secret|"payload"/)

  const after = await service.operate('POST', '/admin/purges', { homeAccountId, reason })
  t.equal(after.statusCode, 200)
  t.match((await service.operate('GET', `/admin/accounts/${encodeURIComponent(homeAccountId)}`)).json(), {
    rows: [],
    sessions: []
  })
  const long = await service.operate('GET', `/admin/accounts/${encodeURIComponent('é'.repeat(512))}`)
  t.equal(long.statusCode, 200)
  for (const id of ['%00', 'x'.repeat(1_025)]) {
    t.equal((await service.operate('GET', `/admin/accounts/${id}`)).statusCode, 400)
  }
})

t.test('a size follows the payload that a refresh stores', async (t) => {
  const service = await build(t)
  const { generation, version } = await service.login({ clientId: 'a', homeAccountId: 'u.t', payload: 'x' })
  await service.database.query(
    `select msal_logout.save('a', 'u.t', $1, $2, convert_to(repeat('y', 70000), 'utf8'), 'json', '1 hour')`,
    [generation, version]
  )
  t.match((await service.operate('GET', '/admin/accounts/u.t')).json(), { rows: [{ payloadBytes: 70_000 }] })
})

t.test('an account is found by its sid or its subject, and equal bare subjects are told apart', async (t) => {
  const service = await build(t)
  const { issuer } = service.provider
  const other = 'https://other.example'
  await service.login({ homeAccountId: 'u.t', sid: 's1', subject: 'u' })
  await service.login({ homeAccountId: 'alice', sid: 's2', subject: 'alice' })
  await service.login({ homeAccountId: 'alice', sid: 's2', subject: 'alice', issuer: other, clientId: 'b' })
  const find = async (query: object) => {
    const answer = await service.operate('GET', `/admin/accounts?${new URLSearchParams(Object.entries(query))}`)
    return answer.statusCode === 200 ? (answer.json() as { accounts: object[] }).accounts : answer.statusCode
  }
  t.same(await find({ issuer, sid: 's1' }), [{ homeAccountId: 'u.t', accountIssuer: null }])
  t.same(await find({ issuer, subject: 'u' }), [{ homeAccountId: 'u.t', accountIssuer: null }])
  t.same(await find({ issuer: other, sid: 's2' }), [{ homeAccountId: 'alice', accountIssuer: other }])
  t.same(await find({ issuer, sid: 'alice' }), [])
  for (const query of [{ issuer }, { sid: 's1' }, { issuer, sid: 's1', subject: 'u' }, { issuer, sid: '' }]) {
    t.equal(await find(query), 400, JSON.stringify(query))
  }
  t.match((await service.operate('GET', '/admin/accounts/alice')).json(), { rows: { length: 2 } })
  const one = await service.operate('GET', `/admin/accounts/alice?${new URLSearchParams({ issuer: other })}`)
  t.match(one.json(), { rows: [{ accountIssuer: other }], sessions: [{ issuer: other }] })
  t.match(one.json(), { rows: { length: 1 }, sessions: { length: 1 } })
})

t.test('every refusal is a problem of one form, and asks for credentials first', async (t) => {
  const service = await build(t)
  await service.login({ homeAccountId: 'alice', subject: 'alice' })
  await service.login({ homeAccountId: 'alice', subject: 'alice', issuer: 'https://other.example', clientId: 'b' })
  const key = { 'idempotency-key': 'k1' }
  await service.operate('POST', '/admin/purges', { homeAccountId: 'nobody', reason }, key)
  const before = await service.database.snapshot()
  const cases: [string, Parameters<Service['operate']>, number, string][] = [
    ['no credentials', ['GET', '/admin/purges', undefined, { authorization: '' }], 401, 'unauthorized'],
    ['no selector', ['POST', '/admin/purges', { reason }], 400, 'invalid_selector'],
    ['no reason', ['POST', '/admin/purges', { homeAccountId: 'x' }], 400, 'invalid_request'],
    ['a blank reason', ['POST', '/admin/purges', { homeAccountId: 'x', reason: ' \n' }], 400, 'invalid_request'],
    ['a reason with NUL', ['POST', '/admin/purges', { homeAccountId: 'x', reason: 'a\0' }], 400, 'invalid_request'],
    ['half a character', ['POST', '/admin/purges', { homeAccountId: 'x', reason: '\ud800' }], 400, 'invalid_request'],
    ['two accounts', ['POST', '/admin/purges', { homeAccountId: 'alice', reason }], 409, 'ambiguous_account'],
    [
      'a key of another request',
      ['POST', '/admin/purges', { homeAccountId: 'x', reason }, key],
      422,
      'idempotency_key_reused'
    ],
    [
      'a key without end',
      ['POST', '/admin/purges', { homeAccountId: 'x', reason }, { 'idempotency-key': 'k'.repeat(256) }],
      400,
      'invalid_idempotency_key'
    ],
    [
      'a body too large',
      ['POST', '/admin/purges', { homeAccountId: 'x', reason: 'x'.repeat(70_000) }],
      413,
      'invalid_request'
    ],
    ['no such purge', ['GET', `/admin/purges/${randomUUID()}`], 404, 'not_found'],
    ['no such path', ['GET', '/admin/nothing'], 404, 'not_found'],
    ['a path that is not encoded', ['GET', '/admin/accounts/alice%zz'], 400, 'invalid_request'],
    ['a path without end', ['GET', `/admin/accounts/${'alice'.repeat(3_000)}`], 414, 'invalid_request']
  ]
  for (const [name, request, status, code] of cases) {
    const answer = await service.admin.inject({
      method: request[0],
      url: request[1],
      headers: { authorization: `Bearer ${adminToken}`, ...request[3] },
      ...(request[2] === undefined ? {} : { payload: request[2] as object })
    })
    t.equal(answer.statusCode, status, name)
    t.match(answer.headers['content-type'], /^application\/problem\+json/, name)
    const { detail, ...rest } = answer.json()
    t.match(rest, { type: 'about:blank', title: String, status, code }, name)
    t.notMatch(detail, /alice/, name)
    t.equal(answer.headers['cache-control'], 'no-store', name)
  }
  for (const url of ['/admin/purges', `/admin/purges/${randomUUID()}`, '/admin/accounts', '/admin/accounts/u.t']) {
    t.equal((await service.admin.inject(url)).statusCode, 401, url)
  }
  t.same(await service.database.snapshot(), before)
})

t.test('the same key again gives the first answer, and another actor has keys of their own', async (t) => {
  const service = await build(t)
  const { issuer } = service.provider
  for (const selector of [{ homeAccountId: 'u.t' }, { issuer, subject: 'subject' }, { tenantId: 't' }]) {
    await service.login({ homeAccountId: 'u.t' })
    const headers = { 'idempotency-key': JSON.stringify(selector) }
    const first = await service.operate('POST', '/admin/purges', { ...selector, reason, dryRun: false }, headers)
    await service.login({ homeAccountId: 'u.t', issuedAt: nowSeconds() + 60 })
    const again = await service.operate('POST', '/admin/purges', { ...selector, reason, dryRun: false }, headers)
    t.match(first.json(), { rows: 1 })
    t.same(again.json(), first.json())
    t.equal((await service.rows()).length, 1, 'a login since then is not touched')
    const dry = await service.operate('POST', '/admin/purges', { ...selector, reason: 'why', dryRun: true }, headers)
    t.match(dry.json(), { dryRun: true }, 'a dry run is one, whatever its key')
    t.not((dry.json() as { id: string }).id, (first.json() as { id: string }).id)
    await service.database.query('delete from msal_logout.token_cache')
    await service.database.query('delete from msal_logout.sessions')
    await service.database.query('delete from msal_logout.tombstones')
  }
  const { accessToken, purge } = operatorsOf(t, service)
  const body = { homeAccountId: 'u.t', reason }
  const key = { 'idempotency-key': 'shared' }
  const mine = await service.operate('POST', '/admin/purges', body, key)
  const theirs = await purge(`Bearer ${await accessToken()}`, body, key)
  t.equal(theirs.statusCode, 200)
  t.not(theirs.json().id, (mine.json() as { id: string }).id)
})

t.test('as a process with the least role, it shows accounts and records to operators of JWTs', async (t) => {
  const service = await build(t)
  const { database, provider } = service
  const { accessToken } = operatorsOf(t, service)
  const serviceRole = await createRole(database, 'service')
  await database.query('select msal_logout.register_service($1)', [serviceRole])
  const url = new URL(database.url)
  url.username = serviceRole
  url.password = 'test'
  const server = await startServer(t, {
    DATABASE_URL: url.href,
    ISSUER: provider.issuer,
    CLIENT_IDS: 'client-a',
    ADMIN_ISSUER: provider.issuer,
    ADMIN_AUDIENCE: audience,
    ADMIN_ROLE: role
  })
  await storeLogin(database, { issuer: provider.issuer, homeAccountId: 'u.t', sid: 's1' })
  const headers = { authorization: `Bearer ${await accessToken()}`, 'content-type': 'application/json' }
  const get = async (path: string) => (await server.fetch(`${server.adminUrl}${path}`, { headers })).json()
  t.match(await get('/admin/accounts/u.t'), { rows: [{ payloadBytes: 32 }], sessions: [{ sid: 's1' }] })
  const purge = await server.fetch(`${server.adminUrl}/admin/purges`, {
    method: 'POST',
    headers,
    body: JSON.stringify({ homeAccountId: 'u.t', reason })
  })
  t.equal(purge.status, 200)
  t.match(await get('/admin/purges'), { purges: [{ reason, actor: `${provider.issuer}#oid=person-1&app=console` }] })
  t.match(await get('/admin/accounts/u.t'), { rows: [], sessions: [] })
})

t.test('the views tell how the service stands', async (t) => {
  const service = await build(t, { app: { limitRejections: (address) => (address === '192.0.2.9' ? 1 : 0) } })
  const { provider, operate } = service

  t.same((await operate('GET', '/admin/issuers')).json(), {
    issuers: [
      {
        name: 'main',
        issuer: provider.issuer,
        clientIds: [clientId],
        frontChannel: true,
        keys: 0,
        keysLoadedAt: null,
        keysAgeSeconds: null,
        lastFailureAt: null,
        lastFailure: null
      }
    ]
  })
  provider.behaviour = 'down'
  await service.post(await provider.logoutToken())
  t.match((await operate('GET', '/admin/issuers')).json(), {
    issuers: [{ keys: 0, lastFailureAt: String, lastFailure: /answered 500/ }]
  })
  t.match((await operate('GET', '/admin/spool')).json(), {
    verified: 0,
    unverified: 1,
    rejected: 0,
    oldestAt: String,
    isWritable: true
  })
})

t.test('the refused requests are told with reasons, the newest first, and nothing of their content', async (t) => {
  const service = await build(t, { app: { limitRejections: (address) => (address === '192.0.2.9' ? 1 : 0) } })
  const { provider, operate } = service
  t.same((await operate('GET', '/admin/rejections')).json(), { rejections: [], limited: 0 })
  await service.post(await provider.logoutToken({ nonce: 'secret-nonce', sid: 'secret-sid' }))
  await service.app.inject({ url: '/frontchannel-logout/nobody?sid=secret-sid', remoteAddress: '192.0.2.7' })
  await service.app.inject({ url: '/frontchannel-logout/nobody?sid=secret-sid', remoteAddress: '192.0.2.9' })
  const answer = await operate('GET', '/admin/rejections')
  t.match(answer.json(), {
    rejections: [
      {
        position: 2,
        at: String,
        code: 'ERR_REQUEST_QUERY',
        endpoint: 'frontchannel',
        issuer: null,
        address: '192.0.2.7'
      },
      {
        position: 1,
        code: 'ERR_TOKEN_NONCE',
        description: /must not have a "nonce"/,
        endpoint: 'backchannel',
        issuer: 'main',
        address: '127.0.0.1'
      }
    ],
    limited: 1
  })
  t.notMatch(JSON.stringify(answer.json()), /secret/)
  t.equal(((await operate('GET', '/admin/rejections?limit=1')).json() as { rejections: [] }).rejections.length, 1)
})

t.test('logouts and purges are counted by minute', async (t) => {
  const service = await build(t)
  const { provider, operate } = service
  await service.post(await provider.logoutToken())
  await service.post(await provider.logoutToken())
  await operate('POST', '/admin/purges', { homeAccountId: 'u.t', reason })
  await service.database.query(
    `insert into msal_logout.purges (id, at, source)
    select gen_random_uuid(), now() - i * interval '1 minute', 'frontchannel' from generate_series(2, 4) i`
  )
  const told = (await operate('GET', '/admin/stats?minutes=4')).json() as {
    minutes: { at: string; backchannel: number; frontchannel: number; admin: number }[]
    isComplete: boolean
  }
  t.equal(told.isComplete, true)
  t.equal(told.minutes.length, 4)
  const sum = (source: 'backchannel' | 'frontchannel' | 'admin') =>
    told.minutes.reduce((total, minute) => total + minute[source], 0)
  t.same([sum('backchannel'), sum('admin')], [2, 1])
  t.ok([2, 1].includes(sum('frontchannel')), 'one more where a minute has just begun')
  const times = told.minutes.map(({ at }) => Date.parse(at))
  t.same(
    times.map((at) => at - (times[0] ?? 0)),
    [0, 60_000, 120_000, 180_000]
  )
  t.equal((await service.store.purgesPerMinute(4, 2)).isComplete, false)
  for (const query of ['minutes=0', 'minutes=1441', 'minutes=x', 'hours=1']) {
    t.equal((await operate('GET', `/admin/stats?${query}`)).statusCode, 400, query)
  }
})

t.test('openapi.json is valid, names every route, and docs shows it without another host', async (t) => {
  const service = await build(t)
  const answer = await service.admin.inject('/openapi.json')
  const checked = await new Validator().validate(answer.json())
  t.same(checked, { valid: true })
  const { paths } = answer.json() as { paths: Record<string, Record<string, { responses: object }>> }
  t.same(Object.keys(paths).sort(), [
    '/admin/accounts',
    '/admin/accounts/{homeAccountId}',
    '/admin/issuers',
    '/admin/purges',
    '/admin/purges/{id}',
    '/admin/rejections',
    '/admin/spool',
    '/admin/stats',
    '/metrics',
    '/readyz'
  ])
  const docs = await service.admin.inject('/docs/')
  t.equal(docs.statusCode, 200)
  t.match(docs.headers['content-security-policy'], /^default-src 'none'/)
  t.notMatch(docs.body, /https?:\/\//)
  for (const [, file] of docs.body.matchAll(/(?:src|href)="\.(\/[^"]+)"/g)) {
    t.equal((await service.admin.inject(`/docs${file}`)).statusCode, 200, String(file))
  }
})

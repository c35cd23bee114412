import { randomUUID } from 'node:crypto'
import { Validator } from '@seriousme/openapi-schema-validator'
import t from 'tap'
import { readConfig } from '../src/config.ts'
import { createPool } from '../src/database.ts'
import { UnavailableError } from '../src/errors.ts'
import { createAdmin } from '../src/http/admin.ts'
import type { Order } from '../src/sign-out.ts'
import { createDatabase, createRole } from './fixtures/database.ts'
import { clientId, createSigningKey } from './fixtures/identity-provider.ts'
import { audience, nowSeconds, operatorsOf, role } from './fixtures/operators.ts'
import { adminToken, build, type Service } from './fixtures/service.ts'

const reason = 'left the company'

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
    const [record] = await service.database.query('select actor, reason from msal_logout.records where id = $1', [
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

/** All records that a listing gives, page by page, and how many pages they took. */
async function pagesOf(service: Service, path: string, limit: number) {
  const records: { id: string }[] = []
  let next: string | null = null
  let pages = 0
  do {
    const before: string = next === null ? '' : `&before=${next}`
    const answer = await service.operate('GET', `${path}limit=${limit}${before}`)
    const page = answer.json() as { records: { id: string }[]; next: string | null }
    records.push(...page.records)
    next = page.next
    pages += 1
  } while (next !== null && pages < 100)
  return { records, pages }
}

t.test('the records come page by page, newest first, each once, also those of one moment', async (t) => {
  const service = await build(t)
  for (const path of ['/admin/purges', '/admin/records']) {
    t.same((await service.operate('GET', path)).json(), { records: [], next: null })
  }
  await service.database.query(
    `insert into msal_logout.records (id, source, actor, at, request_hash)
    select gen_random_uuid(), case when i % 2 = 0 then 'operator' else 'backchannel' end,
      case when i % 2 = 0 then 'admin-token' end, now() - (i / 6) * interval '1 microsecond', 'x'
    from generate_series(1, 22) i`
  )
  const expected = (condition: string) =>
    service.database.query<{ id: string }>(
      `select id from msal_logout.records where ${condition} order by at desc, id desc`
    )
  for (const [path, condition, pages] of [
    ['/admin/purges?', "source = 'operator'", 3],
    ['/admin/records?', 'true', 6],
    ['/admin/records?source=backchannel&', "source = 'backchannel'", 3]
  ] as const) {
    const found = await pagesOf(service, path, 4)
    t.equal(found.pages, pages, path)
    t.same(
      found.records.map(({ id }) => id),
      (await expected(condition)).map(({ id }) => id),
      path
    )
  }
  for (const query of [
    'limit=0',
    'limit=501',
    'limit=x',
    'before=x',
    `before=${randomUUID()}`,
    'unknown=1',
    'source='
  ]) {
    t.equal((await service.operate('GET', `/admin/records?${query}`)).statusCode, 400, query)
    t.equal((await service.operate('GET', `/admin/purges?${query}`)).statusCode, 400, query)
  }
  for (const query of ['source=operator', 'account=u.t', 'actor=admin-token']) {
    t.equal((await service.operate('GET', `/admin/purges?${query}`)).statusCode, 400, `${query} is for records alone`)
  }
})

t.test('the records of every source are found by source, issuer, account and operator', async (t) => {
  const service = await build(t)
  const { provider, post, operate } = service
  const { issuer } = provider
  const other = 'https://other.example'
  const { accessToken, purge } = operatorsOf(t, service)
  await service.login({ homeAccountId: 'u.t', sid: 's1', subject: 'u' })
  await service.login({ homeAccountId: 'u.t', sid: 's2', subject: 'u', clientId: 'b', partitionKey: 'other' })
  await service.login({ homeAccountId: 'v.t', sid: 's1', subject: 'v' })
  await service.login({ homeAccountId: 'w.t', sid: 's3', subject: 'w' })
  await service.login({ homeAccountId: 'alice', sid: 's4', subject: 'alice', issuer: other })

  await post(await provider.logoutToken({ sid: 's1', jti: 'first' })) // two accounts
  await post(await provider.logoutToken({ sid: 'unknown', jti: 'second' }))
  await service.app.inject({ url: `/frontchannel-logout/main?${new URLSearchParams({ iss: issuer, sid: 's3' })}` })
  await operate('POST', '/admin/purges', { homeAccountId: 'alice', issuer: other, reason: 'by token' })
  await purge(`Bearer ${await accessToken()}`, { homeAccountId: 'nobody.t', reason: 'by a person' })
  await operate('POST', '/admin/purges', { tenantId: 't', reason: 'a whole tenant' })
  const person = `${issuer}#oid=person-1&app=console`

  const find = async (query: Record<string, string>) => {
    const answer = await operate('GET', `/admin/records?${new URLSearchParams(query)}`)
    const { records } = answer.json() as { records: Record<string, string | null>[] }
    return records.map(({ source, jti, sid, reason }) => `${source} ${reason ?? jti ?? sid}`)
  }
  const all = [
    'operator a whole tenant',
    'operator by a person',
    'operator by token',
    'frontchannel s3',
    'backchannel second',
    'backchannel first'
  ]
  t.same(await find({}), all)
  for (const [query, indexes] of [
    [{ source: 'backchannel' }, [4, 5]],
    [{ source: 'frontchannel' }, [3]],
    [{ source: 'operator' }, [0, 1, 2]],
    [{ source: 'made-up' }, []],
    [{ issuer }, [3, 4, 5]],
    [{ issuer: other }, [2]],
    [{ issuer, source: 'backchannel' }, [4, 5]],
    [{ account: 'u.t' }, [5]],
    [{ account: 'v.t' }, [5]],
    [{ account: 'w.t' }, [3]],
    [{ account: 'alice' }, [2]],
    [{ account: 'nobody.t' }, [1]],
    [{ account: 'u.t', source: 'operator' }, []],
    [{ account: "x' or true --" }, []],
    [{ actor: 'admin-token' }, [0, 2]],
    [{ actor: person }, [1]],
    [{ actor: 'person-1' }, []],
    [{ limit: '2' }, [0, 1]]
  ] as const) {
    t.same(
      await find({ ...query }),
      indexes.map((i) => all[i]),
      JSON.stringify(query)
    )
  }

  t.match((await operate('GET', '/admin/records')).json(), {
    records: [
      { clientId: null, tenantId: 't', reason: 'a whole tenant', matchedAccounts: [], revokeBefore: String },
      { homeAccountId: 'nobody.t', actor: person, done: 0, total: 0, matchedAccounts: [] },
      { homeAccountId: 'alice', issuer: other, matchedAccounts: [{ homeAccountId: 'alice', accountIssuer: other }] },
      { issuer, sid: 's3', jti: null, matchedAccounts: [{ homeAccountId: 'w.t', accountIssuer: null }] },
      { issuer, sid: 'unknown', jti: 'second', done: 0, total: 0, rows: 0, matchedAccounts: [] },
      {
        issuer,
        clientId,
        sid: 's1',
        jti: 'first',
        reason: null,
        actor: null,
        status: 'done',
        accounts: 2,
        done: 2,
        total: 2,
        sessions: 3,
        rows: 3,
        rowsByClient: { [clientId]: 2, b: 1 },
        matchedAccounts: [
          { homeAccountId: 'u.t', accountIssuer: null },
          { homeAccountId: 'v.t', accountIssuer: null }
        ]
      }
    ],
    next: null
  })
})

t.test('a record is found by its id, and among the purges only if it is one', async (t) => {
  const service = await build(t)
  await service.login({ homeAccountId: 'u.t', sid: 's1' })
  await service.post(await service.provider.logoutToken({ sid: 's1' }))
  await service.operate('POST', '/admin/purges', { homeAccountId: 'v.t', reason })
  const { records } = (await service.operate('GET', '/admin/records')).json() as {
    records: { id: string; source: string }[]
  }
  t.equal(records.length, 2)
  for (const record of records) {
    t.same((await service.operate('GET', `/admin/records/${record.id}`)).json(), record)
    t.same((await service.operate('GET', `/admin/records/${record.id.toUpperCase()}`)).json(), record)
    const asPurge = await service.operate('GET', `/admin/purges/${record.id}`)
    t.equal(asPurge.statusCode, record.source === 'operator' ? 200 : 404)
  }
})

t.test('a record holds no secret, and no more members than are documented', async (t) => {
  const service = await build(t)
  const { provider, operate } = service
  await service.login({ homeAccountId: 'u.t', sid: 's1' })
  const token = await provider.logoutToken({ sid: 's1' })
  await service.post(token)
  const key = { 'idempotency-key': 'the-key-of-an-operator' }
  await operate('POST', '/admin/purges', { homeAccountId: 'u.t', reason }, key)
  const members = [
    'accounts',
    'actor',
    'at',
    'clientId',
    'done',
    'finishedAt',
    'homeAccountId',
    'id',
    'issuer',
    'jti',
    'matchedAccounts',
    'objectId',
    'outcome',
    'reason',
    'revokeBefore',
    'rows',
    'rowsByClient',
    'sessions',
    'sid',
    'source',
    'status',
    'subject',
    'tenantId',
    'total'
  ]
  for (const path of ['/admin/records', '/admin/purges']) {
    const { records } = (await operate('GET', path)).json() as { records: object[] }
    for (const record of records) {
      t.same(Object.keys(record).sort(), members)
      t.notMatch(JSON.stringify(record), /request_?hash|payload|the-key|Bearer/i)
    }
  }
})

t.test('a duplicate ends nothing, is answered with the accounts of the record, and leaves none', async (t) => {
  const service = await build(t)
  await service.login({ homeAccountId: 'u.t', sid: 's1', subject: 'u' })
  await service.login({ homeAccountId: 'alice', sid: 's1', subject: 'alice' })
  const { issuer } = service.provider
  const token = await service.provider.logoutToken({ sid: 's1' })
  t.equal((await service.post(token)).statusCode, 200)
  await service.login({ homeAccountId: 'v.t', sid: 's1', issuedAt: nowSeconds() + 60 })
  t.equal((await service.post(token)).statusCode, 200)
  t.same(await service.rows(), [`${clientId}/v.t`])
  const { records } = (await service.operate('GET', '/admin/records')).json() as { records: { id: string }[] }
  t.equal(records.length, 1)

  const id = randomUUID()
  await service.login({ homeAccountId: 'w.t', sid: 's2', subject: 'w' })
  const order: Order = {
    id,
    source: 'operator',
    selector: { kind: 'subject', issuer, subject: 'w' },
    revokeBefore: nowSeconds(),
    purgeScope: 'account',
    sparesNewer: false,
    isSigned: true,
    isOnce: true,
    recordUnmatched: true,
    rememberSeconds: 60
  }
  const matched = [{ homeAccountId: 'w.t', issuer: undefined }]
  t.match(await service.signOut([order]), [{ outcome: 'done', matched, rows: 1 }])
  t.match(await service.signOut([order]), [{ outcome: 'duplicate', matched, sessions: 0, rows: 0, byClient: {} }])
})

t.test('an account is shown with its rows and sessions, and never a payload', async (t) => {
  const service = await build(t)
  const { issuer } = service.provider
  const homeAccountId = 'auth0|Ab/Cd é.t'
  const login = { homeAccountId, sid: 's1', subject: 'u', payload: '{"the":"secret"}' }
  await service.login({ ...login, clientId: 'a' })
  await service.login({ ...login, clientId: 'b', sid: null, issuedAt: 1_700_000_000 })
  await service.login({ homeAccountId: 'other.t' })
  const answer = await service.operate('GET', `/admin/accounts/${encodeURIComponent(homeAccountId)}`)
  t.equal(answer.statusCode, 200)
  const account = answer.json() as { rows: object[]; sessions: object[] }
  const row = { partitionKey: homeAccountId, kind: 'user', accountIssuer: null, payloadBytes: 16 }
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
  const { generation, version } = await service.login({ clientId: 'a', homeAccountId: 'u.t', payload: '{}' })
  await service.database.query(
    `select msal_logout.save('a', 'u.t', $1, $2, convert_to('{' || repeat(' ', 69998) || '}', 'utf8'), 'json', '1 hour')`,
    [generation, version]
  )
  t.match((await service.operate('GET', '/admin/accounts/u.t')).json(), { rows: [{ payloadBytes: 70_000 }] })
})

t.test('an account is found by its sid, its subject or its object, and equal bare subjects stay apart', async (t) => {
  const service = await build(t)
  const { issuer } = service.provider
  const other = 'https://other.example'
  await service.login({ homeAccountId: 'u.t', sid: 's1', subject: 'u', oid: 'Object-1', tid: 'Tenant-1' })
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
  for (const [tenantId, objectId] of [
    ['tenant-1', 'object-1'],
    ['TENANT-1', 'OBJECT-1']
  ]) {
    t.same(await find({ tenantId, objectId }), [{ homeAccountId: 'u.t', accountIssuer: null }])
  }
  t.same(await find({ tenantId: 'another', objectId: 'object-1' }), [])
  for (const query of [
    {},
    { issuer },
    { sid: 's1' },
    { tenantId: 't' },
    { objectId: 'o' },
    { issuer, tenantId: 't', objectId: 'o' },
    { issuer, sid: 's1', subject: 'u' },
    { issuer, sid: '' },
    { homeAccountId: 'u.t' }
  ]) {
    t.equal(await find(query), 400, JSON.stringify(query))
  }
  t.match((await service.operate('GET', '/admin/accounts/alice')).json(), { rows: { length: 2 } })
  const one = await service.operate('GET', `/admin/accounts/alice?${new URLSearchParams({ issuer: other })}`)
  t.match(one.json(), { rows: [{ accountIssuer: other }], sessions: [{ issuer: other }] })
  t.match(one.json(), { rows: { length: 1 }, sessions: { length: 1 } })
})

t.test('every rejection is a problem of one form, and asks for credentials first', async (t) => {
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
    ['no such record', ['GET', `/admin/records/${randomUUID()}`], 404, 'not_found'],
    [
      'a time to come',
      ['POST', '/admin/purges', { homeAccountId: 'x', reason, issuedBefore: nowSeconds() + 999 }],
      400,
      'invalid_issued_before'
    ],
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
  for (const url of [
    '/admin/purges',
    `/admin/purges/${randomUUID()}`,
    '/admin/records',
    `/admin/records/${randomUUID()}`,
    '/admin/accounts',
    '/admin/accounts/u.t',
    '/admin/stats',
    '/admin/rejections',
    '/admin/signals',
    '/admin/issuers',
    '/admin/directories',
    '/admin/streams',
    '/admin/spool'
  ]) {
    t.equal((await service.admin.inject(url)).statusCode, 401, url)
  }
  t.same(await service.database.snapshot(), before)
})

t.test('what the database cannot hold is the fault of the request, wherever it stands', async (t) => {
  const service = await build(t)
  const queries = [
    '/admin/records?source=',
    '/admin/records?issuer=',
    '/admin/records?account=',
    '/admin/records?actor=',
    '/admin/records?before=',
    '/admin/purges?before=',
    '/admin/accounts?issuer=x&sid=',
    '/admin/accounts?issuer=x&subject=',
    '/admin/accounts?sid=x&issuer=',
    '/admin/accounts?tenantId=x&objectId=',
    '/admin/accounts?objectId=x&tenantId=',
    '/admin/accounts/u.t?issuer=',
    '/admin/accounts/',
    '/admin/stats?minutes=',
    '/admin/rejections?limit='
  ]
  for (const query of queries) {
    for (const value of ['%00', 'a%00b', '%01', '%C2%85']) {
      t.equal((await service.operate('GET', `${query}${value}`)).statusCode, 400, `${query}${value}`)
    }
    for (const value of ['%FF', '%ED%A0%80', '%F0%9F%98%80', '%E2%80%AE']) {
      t.ok((await service.operate('GET', `${query}${value}`)).statusCode < 500, `${query}${value}`)
    }
  }
  const selectors = [
    { homeAccountId: 'a\0' },
    { homeAccountId: 'a', issuer: '\0' },
    { issuer: 'x', sid: 'a\0' },
    { issuer: 'x', subject: '\ud800' },
    { tenantId: 'a\0', objectId: 'b' },
    { clientId: '\0' },
    { tenantId: '\u0001' }
  ]
  for (const selector of selectors) {
    const answer = await service.operate('POST', '/admin/purges', { ...selector, reason, dryRun: true })
    t.equal(answer.statusCode, 400, JSON.stringify(selector))
  }
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

t.test('with the least role, it shows accounts and records to operators of JWTs', async (t) => {
  const database = await createDatabase(t)
  const serviceRole = await createRole(database, 'service')
  await database.query('select msal_logout.register_service($1)', [serviceRole])
  const service = await build(t, {
    openPool(databaseUrl, options) {
      const url = new URL(databaseUrl)
      url.username = serviceRole
      url.password = 'test'
      return createPool({ ...options, connectionString: url.href })
    }
  })
  const { accessToken, get, purge } = operatorsOf(t, service)
  await service.login({ homeAccountId: 'u.t', sid: 's1' })
  const authorization = `Bearer ${await accessToken()}`
  t.match(await get(authorization, '/admin/accounts/u.t'), {
    rows: [{ payloadBytes: Number }],
    sessions: [{ sid: 's1' }]
  })
  t.equal((await purge(authorization)).statusCode, 200)
  t.match(await get(authorization, '/admin/purges'), {
    records: [{ reason, actor: `${service.provider.issuer}#oid=person-1&app=console` }]
  })
  t.match(await get(authorization, '/admin/accounts/u.t'), { rows: [], sessions: [] })
})

t.test('the views show how the service stands', async (t) => {
  const service = await build(t)
  const { provider, operate } = service

  t.same((await operate('GET', '/admin/issuers')).json(), {
    issuers: [
      {
        name: 'main',
        issuer: provider.issuer,
        clientIds: [clientId],
        frontChannel: true,
        algorithms: ['RS256'],
        types: ['logout+jwt', 'JWT', null],
        maxTokenAgeSeconds: 600,
        clockToleranceSeconds: 60,
        sidAndSubject: 'session',
        keys: 0,
        keysLoadedAt: null,
        keysAgeSeconds: null,
        lastFailureAt: null,
        lastFailure: null,
        lookUp: {
          provider: 'another provider',
          path: 'the page of the user at the provider: look for the id that stands as "sub" in ID tokens',
          purgeBy: 'purge by the issuer and this id as the subject'
        }
      }
    ]
  })
  t.same((await operate('GET', '/admin/spool')).json(), {
    verified: 0,
    unverified: 0,
    unsigned: 0,
    rejected: 0,
    stuck: [],
    oldestAt: null,
    isWritable: true
  })
  provider.behaviour = 'down'
  await service.post(await provider.logoutToken())
  t.match((await operate('GET', '/admin/issuers')).json(), {
    issuers: [{ keys: 0, lastFailureAt: String, lastFailure: /answered 500/ }]
  })
  t.match((await operate('GET', '/admin/spool')).json(), {
    verified: 0,
    unverified: 1,
    unsigned: 0,
    rejected: 0,
    oldestAt: String,
    isWritable: true
  })
})

t.test('what waits for the database is shown as verified, and as unsigned if nobody vouches for it', async (t) => {
  const service = await build(t)
  const { provider, database, operate } = service
  await service.post(await provider.logoutToken()) // with it come the keys
  await database.query('alter function msal_logout.sign_out rename to sign_out_away')
  t.teardown(() => database.query('alter function msal_logout.sign_out_away rename to sign_out'))
  t.equal((await service.post(await provider.logoutToken())).statusCode, 503)
  const query = new URLSearchParams({ iss: provider.issuer, sid: 's1' })
  t.equal((await service.app.inject({ url: `/frontchannel-logout?${query}` })).statusCode, 503)
  t.match((await operate('GET', '/admin/spool')).json(), { verified: 1, unverified: 0, unsigned: 1 })
})

t.test('rejected signals are listed with reasons and the offending values, the newest first', async (t) => {
  const service = await build(t)
  const { provider, operate } = service
  const { issuer } = provider
  t.same((await operate('GET', '/admin/rejections')).json(), { rejections: [], limited: 0 })
  const long = 'x'.repeat(5_000)
  await service.post(await provider.logoutToken({ nonce: 'secret-nonce', sid: 'secret-sid' }))
  await service.post(await provider.logoutToken({ iss: 'https://evil.example', sid: 'secret-sid' }))
  await service.post(await provider.logoutToken({ aud: ['an app\n', long], sid: 'secret-sid' }))
  await service.post(await provider.logoutToken({ sid: 'secret-sid' }, { typ: 'at+jwt', kid: 'made up' }))
  await service.app.inject({ url: '/frontchannel-logout/nobody?sid=secret-sid', remoteAddress: '192.0.2.7' })
  for (let i = 0; i < 62; i += 1) {
    await service.app.inject({ url: '/frontchannel-logout/nobody?sid=secret-sid', remoteAddress: '192.0.2.9' })
  }
  const answer = (await operate('GET', '/admin/rejections?limit=100')).json() as {
    rejections: { position: number; address: string; details: Record<string, string> }[]
    limited: number
  }
  t.equal(answer.rejections.length + answer.limited, 67)
  t.ok(answer.limited > 0)
  const listed = answer.rejections.filter(({ address }) => address !== '192.0.2.9')
  t.match(listed, [
    {
      position: 5,
      at: String,
      code: 'ERR_REQUEST_ISSUER_NAME',
      source: 'frontchannel',
      issuer: null,
      address: '192.0.2.7',
      details: { name: 'nobody' },
      accepted: 'main',
      hint: null
    },
    { code: 'ERR_TOKEN_TYPE', details: { typ: 'at+jwt', kid: 'made up', alg: 'RS256' } },
    { code: 'ERR_TOKEN_AUDIENCE', issuer: 'main', details: { iss: issuer } },
    { code: 'ERR_TOKEN_ISSUER', issuer: null, details: { iss: 'https://evil.example' } },
    {
      position: 1,
      code: 'ERR_TOKEN_NONCE',
      description: /must not have/,
      source: 'backchannel',
      issuer: 'main',
      address: '127.0.0.1',
      details: { iss: issuer, aud: clientId, typ: 'logout+jwt', alg: 'RS256', kid: provider.keys[0]?.kid }
    }
  ])
  t.match(listed[2]?.details.aud, /an app\\u\{a\}/, 'escaped')
  t.ok((listed[2]?.details.aud ?? '').length <= 200, 'cut')
  t.notMatch(JSON.stringify(answer), /secret/)
  t.equal(((await operate('GET', '/admin/rejections?limit=1')).json() as { rejections: [] }).rejections.length, 1)
  for (const query of ['limit=0', 'limit=501', 'limit=x', 'source=x']) {
    t.equal((await operate('GET', `/admin/rejections?${query}`)).statusCode, 400, query)
  }
})

t.test(
  'sign-outs and purges are counted by minute and source, also of a source that nobody has heard of',
  async (t) => {
    const service = await build(t)
    const { provider, operate } = service
    await service.post(await provider.logoutToken())
    await service.post(await provider.logoutToken())
    await operate('POST', '/admin/purges', { homeAccountId: 'u.t', reason })
    await service.database.query(
      `insert into msal_logout.records (id, at, source)
    select gen_random_uuid(), now() - i * interval '1 minute', 'made-up' from generate_series(2, 4) i
    union all select gen_random_uuid(), now(), '__proto__'`
    )
    const stats = (await operate('GET', '/admin/stats?minutes=4')).json() as {
      minutes: { at: string; bySource: Record<string, number> }[]
      isComplete: boolean
    }
    t.equal(stats.isComplete, true)
    t.equal(stats.minutes.length, 4)
    const sum = (source: string) =>
      stats.minutes.reduce(
        (total, { bySource }) => total + (Object.hasOwn(bySource, source) ? Number(bySource[source]) : 0),
        0
      )
    t.same([sum('backchannel'), sum('operator'), sum('frontchannel'), sum('__proto__')], [2, 1, 0, 1])
    t.ok([2, 1].includes(sum('made-up')), 'one less if a minute has just begun')
    const times = stats.minutes.map(({ at }) => Date.parse(at))
    t.same(
      times.map((at) => at - (times[0] ?? 0)),
      [0, 60_000, 120_000, 180_000]
    )
    t.equal((await service.stores.slow.recordsPerMinute(4, 2)).isComplete, false)
    for (const query of ['minutes=0', 'minutes=1441', 'minutes=x', 'hours=1']) {
      t.equal((await operate('GET', `/admin/stats?${query}`)).statusCode, 400, query)
    }
  }
)

t.test('while the database is out of reach, the stats are those of the process alone, and say so', async (t) => {
  const service = await build(t)
  service.provider.behaviour = 'down'
  await service.post(await service.provider.logoutToken())
  const gone = async () => {
    throw new UnavailableError('ERR_DATABASE_UNAVAILABLE')
  }
  const { adminOptions } = service
  const admin = createAdmin({
    ...adminOptions,
    store: { ...adminOptions.store, recordsPerMinute: gone },
    census: { current: async () => undefined }
  })
  t.teardown(() => admin.close())
  const answer = await admin.inject({
    url: '/admin/stats?minutes=5',
    headers: { authorization: `Bearer ${adminToken}` }
  })
  t.equal(answer.statusCode, 200)
  const stats = answer.json() as { minutes: { bySource: object; byOutcome: { deferred: number } }[] }
  t.match(stats, { isComplete: false, hasRecords: false, hasSessionCounts: false, sessions: [] })
  t.match(stats, { verdicts: [{ state: 'fails', code: 'deferred', issuer: 'main' }] })
  t.equal(
    stats.minutes.reduce((sum, { byOutcome }) => sum + byOutcome.deferred, 0),
    1
  )
  t.ok(stats.minutes.every(({ bySource }) => Object.keys(bySource).length === 0))
  const usual = (await service.operate('GET', '/admin/stats?minutes=5')).json()
  t.match(usual, { isComplete: true, hasRecords: true, hasSessionCounts: true })
})

t.test('a rejection shows what is accepted beside what came, in the log too, and never a token', async (t) => {
  const service = await build(t, { policy: { types: ['logout+jwt', null], maxTokenAgeSeconds: 300 } })
  const { provider, operate, app } = service
  const { issuer } = provider
  const kid = provider.keys[0]?.kid
  const event = 'https://schemas.openid.net/secevent/caep/event-type/session-revoked'
  const made = await provider.logoutToken()
  const cases: [string, () => Promise<unknown>, details: object, accepted: unknown, hint?: RegExp][] = [
    ['an aud', async () => service.post(await provider.logoutToken({ aud: 'z' })), { aud: 'z' }, clientId],
    [
      'an alg',
      async () => service.post(await provider.logoutToken({}, {}, await createSigningKey('ES256'))),
      { alg: 'ES256' },
      'RS256'
    ],
    [
      'a typ',
      async () => service.post(await provider.logoutToken({}, { typ: 'at+jwt' })),
      { typ: 'at+jwt' },
      'logout+jwt, none'
    ],
    ['a kid', async () => service.post(await provider.logoutToken({}, { kid: 'x' })), { kid: 'x' }, `kid ${kid}`],
    [
      'an age',
      async () => service.post(await provider.logoutToken({ iat: nowSeconds() - 3_600 })),
      { age: /^36\d\d s$/ },
      '300 s, and 60 s between the clocks'
    ],
    [
      'an exp',
      async () => service.post(await provider.logoutToken({ iat: nowSeconds() - 200, exp: nowSeconds() - 100 })),
      { age: /^2\d\d s$/, expired: /^1\d\d s ago$/ },
      '60 s between the clocks'
    ],
    [
      'a clock ahead',
      async () => service.post(await provider.logoutToken({ iat: nowSeconds() + 200 })),
      { age: /^-(200|199|19\d) s$/ },
      '60 s between the clocks'
    ],
    [
      'milliseconds',
      async () => service.post(await provider.logoutToken({ iat: 1_795_622_000_000 })),
      { iat: '1795622000000' },
      null
    ],
    ['no exp', async () => service.post(await provider.logoutToken({ exp: undefined })), {}, '"requireExp": true'],
    [
      'another event',
      async () => service.post(await provider.logoutToken({ events: { [event]: {} } })),
      { events: event },
      'http://schemas.openid.net/event/backchannel-logout'
    ],
    [
      'an iss with a slash',
      async () => service.post(await provider.logoutToken({ iss: `${issuer}/` })),
      { iss: `${issuer}/` },
      issuer,
      /by a slash at the end/
    ],
    [
      'an iss in the query',
      async () => app.inject(`/frontchannel-logout?${new URLSearchParams({ iss: `${issuer}/`, sid: 's' })}`),
      { iss: `${issuer}/` },
      issuer,
      /by a slash at the end/
    ],
    [
      'a token in the kid',
      async () => service.post(await provider.logoutToken({}, { kid: made })),
      { kid: '[a token]' },
      `kid ${kid}`
    ]
  ]
  for (const [name, act, details, accepted, hint] of cases) {
    service.logs.length = 0
    await act()
    const { rejections } = (await operate('GET', '/admin/rejections?limit=1')).json() as { rejections: object[] }
    t.match(rejections, [{ details, accepted, hint: hint ?? null }], name)
    const line = service.logs.map((each) => JSON.parse(each)).find(({ msg }) => msg === 'rejected')
    t.match(line, { ...details, accepted: accepted ?? undefined }, `${name}: in the log`)
  }
})

t.test('whether it works is a sentence for each issuer, with what to do', async (t) => {
  const service = await build(t)
  const { provider, operate, post } = service
  const stats = async () =>
    (await operate('GET', '/admin/stats?minutes=60')).json() as {
      minutes: { byOutcome: Record<string, number> }[]
      verdicts: object[]
      rejected: number
      sessions: object[]
    }
  t.match(await stats(), { verdicts: [{ state: 'quiet', issuer: 'main' }], rejected: 0, sessions: [] })
  await service.login({ sid: null })
  await service.census.refresh()
  for (let times = 0; times < 3; times += 1) {
    await post(await provider.logoutToken())
  }
  await post(await provider.logoutToken({ iss: 'https://evil.example' }))
  const answer = await stats()
  t.match(answer, {
    verdicts: [
      {
        state: 'fails',
        code: 'matches_nothing',
        message:
          '3 of 3 sign-outs of main in the last hour ended nothing: its sessions bear no sid (1 of 1 stored, by client-a)'
      },
      { state: 'fails', code: 'foreign_issuer', issuer: null }
    ],
    rejected: 1,
    sessions: [{ issuer: provider.issuer, issuerName: 'main', clientId: 'client-a', sessions: 1, withoutSid: 1 }]
  })
  const sum = (name: string) => answer.minutes.reduce((total, { byOutcome }) => total + (byOutcome[name] ?? 0), 0)
  t.same([sum('unmatched'), sum('rejected'), sum('done')], [3, 1, 0])
  const { records } = (await operate('GET', `/admin/records?issuer=${provider.issuer}`)).json() as { records: object[] }
  t.match(records, [{ outcome: 'unmatched' }, { outcome: 'unmatched' }, { outcome: 'unmatched' }])

  await service.login({ sid: 's1' })
  await post(await provider.logoutToken({ sid: 's1' }))
  t.match(await stats(), {
    verdicts: [
      { state: 'works', message: '1 of 4 sign-outs of main in the last hour ended something' },
      { state: 'quiet', code: 'foreign_issuer' }
    ]
  })
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
    '/admin/directories',
    '/admin/directories/{tenantId}/drop',
    '/admin/directories/{tenantId}/release',
    '/admin/issuers',
    '/admin/purges',
    '/admin/purges/{id}',
    '/admin/records',
    '/admin/records/{id}',
    '/admin/rejections',
    '/admin/signals',
    '/admin/spool',
    '/admin/stats',
    '/admin/streams',
    '/admin/streams/{name}/create',
    '/admin/streams/{name}/delete',
    '/admin/streams/{name}/pause',
    '/admin/streams/{name}/resume',
    '/admin/streams/{name}/verify',
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

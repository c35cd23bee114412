import { randomUUID } from 'node:crypto'
import { type AddressInfo, connect } from 'node:net'
import { text } from 'node:stream/consumers'
import t from 'tap'
import { UnavailableError } from '../src/errors.ts'
import { createAdmin } from '../src/http/admin.ts'
import { version } from '../src/version.ts'
import { adminToken, build, type Service } from './fixtures/service.ts'
import { until } from './fixtures/until.ts'

const reason = 'left the company'
const tenant = '0b54c7e2-93d1-4f5e-8a86-1d2c4e7b9a30'
const object = '6f1c2a90-51f3-4a0e-9d6b-3f0d8a5f7c11'

const nowSeconds = () => Math.floor(Date.now() / 1_000)

async function populate(service: Service) {
  const u = { homeAccountId: 'u.t1', sid: 's1', subject: 'u', oid: object, tid: tenant }
  await service.login({ ...u, clientId: 'a' })
  await service.login({ ...u, clientId: 'b' })
  await service.login({ clientId: 'a', homeAccountId: 'v.t1', sid: 's2', subject: 'v' })
  await service.login({ clientId: 'a', homeAccountId: 'w.t2', sid: 's3', subject: 'w' })
  await service.database.query(`select msal_logout.store_app('a', 'a.t1', '{}', 'json', '1 hour')`)
}

const everything = ['a/a.t1', 'a/u.t1', 'a/v.t1', 'a/w.t2', 'b/u.t1']

t.test('every selector purges what it names, and a dry run says the same and changes nothing', async (t) => {
  const u = { accounts: 1, sessions: 2, rows: 2, rowsByClient: { a: 1, b: 1 } }
  const withoutU = ['a/a.t1', 'a/v.t1', 'a/w.t2']
  const selectors: [string, (service: Service) => object, expected: object, left: string[]][] = [
    ['an account', () => ({ homeAccountId: 'u.t1' }), u, withoutU],
    [
      'an account from client info, with an issuer',
      ({ provider: { issuer } }) => ({ homeAccountId: 'u.t1', issuer }),
      u,
      withoutU
    ],
    ['a session', ({ provider: { issuer } }) => ({ issuer, sid: 's1' }), u, withoutU],
    [
      'a subject',
      ({ provider: { issuer } }) => ({ issuer, subject: 'v' }),
      { accounts: 1, sessions: 1, rows: 1, rowsByClient: { a: 1 } },
      ['a/a.t1', 'a/u.t1', 'a/w.t2', 'b/u.t1']
    ],
    ['a directory object', () => ({ tenantId: tenant, objectId: object }), u, withoutU],
    [
      'a directory object in upper case',
      () => ({ tenantId: tenant.toUpperCase(), objectId: object.toUpperCase() }),
      u,
      withoutU
    ],
    [
      'the object of another tenant',
      () => ({ tenantId: 't1', objectId: object }),
      { accounts: 0, sessions: 0, rows: 0, rowsByClient: {} },
      everything
    ],
    [
      'an app, with its own tokens',
      () => ({ clientId: 'a' }),
      { accounts: 3, sessions: 3, rows: 4, rowsByClient: { a: 4 } },
      ['b/u.t1']
    ],
    [
      'a tenant',
      () => ({ tenantId: 't1' }),
      { accounts: 2, sessions: 3, rows: 3, rowsByClient: { a: 2, b: 1 } },
      ['a/a.t1', 'a/w.t2']
    ],
    [
      'an account nobody knows',
      () => ({ homeAccountId: 'nobody' }),
      { accounts: 0, sessions: 0, rows: 0, rowsByClient: {} },
      everything
    ],
    [
      'a tenant nobody knows',
      () => ({ tenantId: 'nobody' }),
      { accounts: 0, sessions: 0, rows: 0, rowsByClient: {} },
      everything
    ]
  ]
  for (const [name, selector, expected, left] of selectors) {
    await t.test(name, async (t) => {
      const service = await build(t)
      await populate(service)
      const before = await service.database.snapshot()
      const dryRun = await service.operate('POST', '/admin/purges', { ...selector(service), reason, dryRun: true })
      t.equal(dryRun.statusCode, 200)
      const { id: dryId, near: _dryNear, ...counted } = dryRun.json() as { id: string; near?: object[] }
      t.same(counted, { ...expected, dryRun: true })
      t.equal((await service.operate('GET', `/admin/purges/${dryId}`)).statusCode, 404, 'a dry run leaves no record')
      t.same(await service.database.snapshot(), before)

      const purge = await service.operate('POST', '/admin/purges', { ...selector(service), reason })
      t.equal(purge.statusCode, 200)
      const { id, near, ...done } = purge.json() as { id: string; accounts: number; near?: object[] }
      t.equal(Array.isArray(near), done.accounts === 0 && left.length === everything.length, 'what comes close')
      t.same(done, { ...expected, dryRun: false })
      t.same(await service.rows(), left)
      t.match((await service.operate('GET', `/admin/purges/${id}`)).json(), {
        id,
        status: 'done',
        source: 'operator',
        reason,
        actor: 'admin-token',
        done: done.accounts,
        total: done.accounts,
        finishedAt: String,
        ...expected
      })
    })
  }
})

t.test('a purge by an operator holds against logins with an older ID token', async (t) => {
  const byObject = { tenantId: tenant, objectId: object }
  for (const selector of [{ homeAccountId: 'u.t1' }, { tenantId: 't1' }, { clientId: 'a' }, byObject]) {
    const service = await build(t)
    const login = { clientId: 'a', homeAccountId: 'u.t1', sid: 's1', oid: object, tid: tenant }
    for (const isStored of [true, false]) {
      if (isStored) {
        await service.login(login)
      }
      await service.operate('POST', '/admin/purges', { ...selector, reason })
      t.match(await service.login(login), { accepted: false })
      t.match(await service.login({ ...login, sid: 'another' }), { accepted: false })
    }
    t.match(await service.login({ ...login, issuedAt: nowSeconds() + 5 }), { accepted: true }, 'a later one lives')
  }
})

t.test('what was issued after "issuedBefore" lives, with its row', async (t) => {
  const hour = 3_600
  const noon = nowSeconds() - 10 * hour
  const old = { homeAccountId: 'u.t1', subject: 'u', oid: object, tid: tenant, issuedAt: noon - hour }
  const eastern = new Date((noon + 2 * hour) * 1_000).toISOString().replace('Z', '+02:00')
  for (const [issuedBefore, by] of [
    [noon, { homeAccountId: 'u.t1' }],
    [noon + 0.9, { subject: 'u' }],
    [new Date(noon * 1_000).toISOString(), { subject: 'u' }],
    [eastern, { tenantId: tenant, objectId: object }]
  ] as const) {
    const service = await build(t)
    const { issuer } = service.provider
    await service.login({ ...old, clientId: 'a', sid: 'old' })
    await service.login({ ...old, clientId: 'b', sid: 'old' })
    await service.login({ ...old, clientId: 'b', sid: 'new', issuedAt: noon + hour })
    await service.login({ ...old, clientId: 'c', sid: 'new', issuedAt: noon + hour })
    const selector = 'subject' in by ? { ...by, issuer } : by
    const name = `${JSON.stringify(by)} ${issuedBefore}`
    const order = { ...selector, issuedBefore, reason }

    const before = await service.database.snapshot()
    const dry = await service.operate('POST', '/admin/purges', { ...order, dryRun: true })
    const expected = { accounts: 1, sessions: 2, rows: 1, rowsByClient: { a: 1 } }
    t.match(dry.json(), expected, `${name}: a dry run`)
    t.same(await service.database.snapshot(), before)

    const done = await service.operate('POST', '/admin/purges', order)
    t.match(done.json(), expected, name)
    t.same(await service.rows(), ['b/u.t1', 'c/u.t1'], name)
    const sessions = await service.database.query('select client_id, sid from msal_logout.sessions order by 1')
    t.same(sessions, [
      { client_id: 'b', sid: 'new' },
      { client_id: 'c', sid: 'new' }
    ])
    const { id } = done.json() as { id: string }
    t.match((await service.operate('GET', `/admin/purges/${id}`)).json(), {
      revokeBefore: new Date(noon * 1_000).toISOString()
    })

    const login = { ...old, clientId: 'd', sid: 'late' }
    t.match(await service.login({ ...login, issuedAt: noon }), { accepted: false }, 'one issued at that second is old')
    t.match(await service.login({ ...login, issuedAt: noon + 1 }), { accepted: true })
  }
})

t.test('"issuedBefore" of a session spares it if it was issued later', async (t) => {
  const service = await build(t)
  const { issuer } = service.provider
  await service.login({ clientId: 'a', homeAccountId: 'u.t1', sid: 's1', issuedAt: nowSeconds() - 60 })
  const purge = (issuedBefore: number) =>
    service.operate('POST', '/admin/purges', { issuer, sid: 's1', issuedBefore, reason })
  t.match((await purge(nowSeconds() - 600)).json(), { accounts: 0, rows: 0 })
  t.same(await service.rows(), ['a/u.t1'])
  t.match((await purge(nowSeconds() - 10)).json(), { accounts: 1, rows: 1 })
})

t.test('an "issuedBefore" that is no past time, or goes with an app or a tenant, changes nothing', async (t) => {
  const service = await build(t)
  await populate(service)
  const before = await service.database.snapshot()
  const past = new Date(Date.now() - 60_000).toISOString()
  for (const [issuedBefore, selector] of [
    ['', { homeAccountId: 'u.t1' }],
    ['yesterday', { homeAccountId: 'u.t1' }],
    ['2026-01-31', { homeAccountId: 'u.t1' }],
    ['2026-01-31T12:00:00', { homeAccountId: 'u.t1' }],
    ['2026-02-30T12:00:00Z', { homeAccountId: 'u.t1' }],
    ['2026-01-31T25:00:00Z', { homeAccountId: 'u.t1' }],
    ['1769860800', { homeAccountId: 'u.t1' }],
    [Date.now(), { homeAccountId: 'u.t1' }],
    [nowSeconds() + 3_600, { homeAccountId: 'u.t1' }],
    [new Date(Date.now() + 3_600_000).toISOString(), { homeAccountId: 'u.t1' }],
    [-1, { homeAccountId: 'u.t1' }],
    [0, { homeAccountId: 'u.t1' }],
    [true, { homeAccountId: 'u.t1' }],
    [null, { homeAccountId: 'u.t1' }],
    [[nowSeconds()], { homeAccountId: 'u.t1' }],
    [past, { clientId: 'a' }],
    [past, { tenantId: 't1' }]
  ] as const) {
    const answer = await service.operate('POST', '/admin/purges', { ...selector, issuedBefore, reason })
    t.equal(answer.statusCode, 400, JSON.stringify(issuedBefore))
  }
  t.same(await service.database.snapshot(), before)
})

t.test('an account of bare subjects needs its issuer if two bear the id', async (t) => {
  const service = await build(t)
  const other = 'https://other.example'
  await service.login({ clientId: 'a', homeAccountId: 'alice', subject: 'alice' })
  await service.login({ clientId: 'b', homeAccountId: 'alice', subject: 'alice', issuer: other })
  const purge = (body: object) => service.operate('POST', '/admin/purges', { homeAccountId: 'alice', reason, ...body })
  t.equal((await purge({})).statusCode, 409)
  t.equal((await purge({ dryRun: true })).statusCode, 409)
  t.match((await purge({ issuer: 'https://third.example' })).json(), { accounts: 0 })
  t.equal((await service.rows()).length, 2)
  t.match((await purge({ issuer: other })).json(), { accounts: 1, rows: 1 })
  t.same(await service.rows(), ['a/alice'])
  t.match((await purge({})).json(), { accounts: 1, rows: 1 }, 'one alone needs none')
})

t.test('an account from client info can be purged although a bare subject equals its id', async (t) => {
  const service = await build(t)
  const other = 'https://other.example'
  await service.login({ clientId: 'a', homeAccountId: 'u.t1', subject: 'pairwise' })
  await service.login({ clientId: 'b', homeAccountId: 'u.t1', subject: 'u.t1', issuer: other })
  const purge = (body: object) => service.operate('POST', '/admin/purges', { homeAccountId: 'u.t1', reason, ...body })
  t.equal((await purge({})).statusCode, 409)
  t.match((await purge({ issuer: service.provider.issuer })).json(), { accounts: 1, rows: 1 })
  t.same(await service.rows(), ['b/u.t1'])
  await service.login({ clientId: 'a', homeAccountId: 'u.t1', subject: 'pairwise', issuedAt: nowSeconds() + 5 })
  t.match((await purge({ issuer: other })).json(), { accounts: 1, rows: 1 })
  t.same(await service.rows(), ['a/u.t1'])
})

t.test('a request that is not exactly one selector with a reason changes nothing', async (t) => {
  const service = await build(t)
  await populate(service)
  const before = await service.database.snapshot()
  const { issuer } = service.provider
  for (const body of [
    {},
    { reason },
    { homeAccountId: 'u.t1' },
    { homeAccountId: 'u.t1', reason: '' },
    { homeAccountId: '', reason },
    { homeAccountId: 'u.t1', clientId: 'a', reason },
    { homeAccountId: 'u.t1', tenantId: 't1', reason },
    { homeAccountId: 'u.t1', objectId: object, reason },
    { sid: 's1', reason },
    { subject: 'u', reason },
    { issuer, reason },
    { objectId: object, reason },
    { issuer, sid: 's1', subject: 'u', reason },
    { issuer, clientId: 'a', reason },
    { issuer, tenantId: 't1', reason },
    { issuer, objectId: object, reason },
    { issuer, tenantId: tenant, objectId: object, reason },
    { clientId: 'a', tenantId: 't1', reason },
    { clientId: 'a', tenantId: tenant, objectId: object, reason },
    { tenantId: tenant, objectId: '', reason },
    { tenantId: tenant, objectId: null, reason },
    { homeAccountId: ['u.t1'], reason },
    { homeAccountId: 'é'.repeat(600), reason },
    { homeAccountId: 'u.t1', reason, unknown: true },
    { homeAccountId: 'u.t1', reason, dryRun: 'false' },
    { homeAccountId: 'u.t1', reason, force: 1 },
    { homeAccountId: 'u\0t1', reason },
    { homeAccountId: 'u\ud800t1', reason },
    []
  ]) {
    t.equal((await service.operate('POST', '/admin/purges', body)).statusCode, 400, JSON.stringify(body))
  }
  t.same(await service.database.snapshot(), before)
})

t.test('ids as long as they may be are purged', async (t) => {
  const service = await build(t)
  const longest = 'é'.repeat(512)
  for (const selector of [
    { homeAccountId: longest },
    { homeAccountId: longest, issuer: longest },
    { issuer: longest, sid: longest },
    { issuer: longest, subject: longest },
    { tenantId: longest, objectId: longest },
    { clientId: longest },
    { tenantId: longest }
  ]) {
    const answer = await service.operate('POST', '/admin/purges', { ...selector, reason })
    t.match(answer, { statusCode: 200 }, Object.keys(selector).join(' '))
  }
})

t.test('only the bearer of the token is let in', async (t) => {
  const service = await build(t)
  await populate(service)
  const body = { homeAccountId: 'u.t1', reason }
  for (const authorization of [
    '',
    'Bearer',
    'Bearer ',
    'Bearer wrong',
    `Bearer ${adminToken}x`,
    `Bearer ${adminToken.slice(1)}`,
    `Basic ${adminToken}`,
    adminToken,
    `Bearer ${adminToken} ${adminToken}`
  ]) {
    const answer = await service.operate('POST', '/admin/purges', body, { authorization })
    t.equal(answer.statusCode, 401, authorization.replace(adminToken, '…'))
  }
  t.equal((await service.rows()).length, 5)
})

/** Accounts `<n>.big` of the app `a`, with a sid in common. */
async function fill({ database, provider }: Service, count: number): Promise<void> {
  await database.query(
    `select msal_logout.login('a', i || '.big', i || '.big', $1, 'everybody', i::text, 1, '{}', 'json', '1 hour',
      oid => $3, tid => $4) from generate_series(1, $2) i`,
    [provider.issuer, count, object, tenant]
  )
}

t.test('more accounts than the limit need force, whatever selects them', async (t) => {
  const byObject = { tenantId: tenant, objectId: object }
  for (const by of [{ tenantId: 'big' }, { clientId: 'a' }, { sid: 'everybody' }, byObject]) {
    const service = await build(t, { edges: { maxAccountsUnforced: 10 } })
    const selector = 'sid' in by ? { ...by, issuer: service.provider.issuer } : by
    await fill(service, 11)
    const before = await service.database.snapshot()
    const rejected = await service.operate('POST', '/admin/purges', { ...selector, reason })
    t.equal(rejected.statusCode, 409)
    t.match(rejected.json(), { code: 'too_many_accounts', detail: /11 accounts, more than 10/ })
    t.same(await service.database.snapshot(), before)
    t.match((await service.operate('POST', '/admin/purges', { ...selector, reason, dryRun: true })).json(), {
      accounts: 11
    })
    const forced = await service.operate('POST', '/admin/purges', { ...selector, reason, force: true })
    t.match(forced.json(), { accounts: 11, rows: 11 })
    t.same(await service.rows(), [])
    await service.database.query('truncate msal_logout.tombstones')
    await fill(service, 10)
    t.match((await service.operate('POST', '/admin/purges', { ...selector, reason })).json(), { accounts: 10 })
  }
})

t.test('above the limit of those awaited, a purge goes on in the background', async (t) => {
  const service = await build(t, { edges: { sweeps: { maxAccountsAwaited: 10, rowsPerStep: 3 } } })
  await fill(service, 11)
  const holder = await service.database.pool.connect()
  await holder.query('begin')
  await holder.query("select from msal_logout.token_cache where partition_key = '11.big' for update")
  const large = await service.operate('POST', '/admin/purges', { clientId: 'a', reason })
  t.equal(large.statusCode, 202)
  const { id, ...answer } = large.json() as { id: string }
  t.match(answer, { status: 'running', dryRun: false, done: Number, total: 11, rowsByClient: {} })
  const record = async () =>
    (await service.operate('GET', `/admin/purges/${id}`)).json() as { status: string; done: number; total: number }
  const partly = await until('all but the held row is gone', async () => {
    const found = await record()
    return found.done === 10 && found
  })
  t.match(partly, { status: 'running', total: 11, accounts: 10, rows: 10, finishedAt: null })
  await holder.query('rollback')
  holder.release()
  const done = await until('the purge is done', async () => {
    const found = await record()
    return found.status === 'done' && found
  })
  t.match(done, { done: 11, total: 11, accounts: 11, rows: 11, sessions: 11, finishedAt: String })
  t.same(await service.rows(), [])
})

t.test('a small purge of which somebody holds a row is answered as running, and is done in the end', async (t) => {
  const service = await build(t, { edges: { sweeps: { maxWaitMs: 50 } } })
  await fill(service, 2)
  const holder = await service.database.pool.connect()
  await holder.query('begin')
  await holder.query("select from msal_logout.token_cache where partition_key = '2.big' for update")
  const answer = await service.operate('POST', '/admin/purges', { tenantId: 'big', reason })
  t.match(answer, { statusCode: 202 })
  const { id, status } = answer.json() as { id: string; status: string }
  t.equal(status, 'running')
  await holder.query('rollback')
  holder.release()
  await until('the purge is done', async () => {
    const found = await service.operate('GET', `/admin/purges/${id}`)
    return (found.json() as { status: string }).status === 'done'
  })
  t.same(await service.rows(), [])
})

t.test('an Idempotency-Key gives the first answer again, and stands for one request', async (t) => {
  const service = await build(t)
  const { issuer } = service.provider
  const byObject = { tenantId: tenant, objectId: object }
  const selectors = [{ homeAccountId: 'u.t1' }, { issuer, sid: 's2' }, byObject, { clientId: 'a' }, { tenantId: 't1' }]
  for (const [i, selector] of selectors.entries()) {
    await service.database.query('truncate msal_logout.token_cache, msal_logout.sessions, msal_logout.tombstones')
    await populate(service)
    const purge = (body: object) =>
      service.operate('POST', '/admin/purges', { reason, ...body }, { 'idempotency-key': `key ${i}` })
    const first = await purge(selector)
    t.match(first, { statusCode: 200 })
    t.ok((first.json() as { accounts: number }).accounts > 0)
    await service.database.query('truncate msal_logout.tombstones')
    await populate(service)
    const before = await service.database.snapshot()
    t.same((await purge(selector)).json(), first.json())
    for (const other of [{ reason: 'another' }, { force: true }, { homeAccountId: 'another' }]) {
      t.equal((await purge({ ...('homeAccountId' in other ? {} : selector), ...other })).statusCode, 422)
    }
    t.equal((await purge({ ...selector, issuedBefore: 1 })).statusCode, i < 3 ? 422 : 400)
    t.same(await service.database.snapshot(), before, 'nothing of it has a second effect')
  }
  t.equal((await service.database.query('select from msal_logout.records')).length, selectors.length)
})

t.test('the same key at the same time purges once, and both have one answer', async (t) => {
  const service = await build(t)
  for (const selector of [{ homeAccountId: 'u.t1' }, { tenantId: 't1' }]) {
    await service.database.query('truncate msal_logout.token_cache, msal_logout.sessions, msal_logout.tombstones')
    await populate(service)
    const headers = { 'idempotency-key': JSON.stringify(selector) }
    const answers = await Promise.all(
      Array.from({ length: 5 }, () => service.operate('POST', '/admin/purges', { ...selector, reason }, headers))
    )
    const ids = new Set(answers.map((answer) => (answer.json() as { id: string }).id))
    t.equal(ids.size, 1)
    for (const answer of answers) {
      t.ok([200, 202].includes(answer.statusCode), 'done, or another one is at it')
    }
  }
  t.equal((await service.database.query('select from msal_logout.records')).length, 2)
})

t.test('every purge is counted once, with what it deleted, and a dry run is not', async (t) => {
  const service = await build(t)
  await populate(service)
  const key = { 'idempotency-key': 'k1' }
  for (const [body, headers] of [
    [{ homeAccountId: 'u.t1' }, key],
    [{ homeAccountId: 'u.t1' }, key],
    [{ tenantId: 't1' }, {}],
    [{ clientId: 'a', dryRun: true }, {}],
    [{ homeAccountId: 'nobody' }, {}]
  ] as const) {
    t.equal((await service.operate('POST', '/admin/purges', { ...body, reason }, { ...headers })).statusCode, 200)
  }
  const text = await service.metrics.text()
  const counted = (line: string) =>
    Number(
      text
        .split('\n')
        .find((each) => each.startsWith(`msal_logout_${line} `))
        ?.split(' ')
        .at(-1) ?? 0
    )
  const came = (outcome: string) => counted(`signals_total{source="operator",issuer="",outcome="${outcome}",reason=""}`)
  t.same([came('done'), came('unmatched'), came('duplicate')], [2, 1, 0])
  t.equal(counted('purged_rows_total{source="operator",client_id="a"}'), 2)
  t.equal(counted('purged_rows_total{source="operator",client_id="b"}'), 1)
})

t.test('an unknown purge is not found', async (t) => {
  const service = await build(t)
  for (const id of [randomUUID(), 'nonsense', `${randomUUID()}0`, '%00']) {
    t.equal((await service.operate('GET', `/admin/purges/${id}`)).statusCode, 404, id)
    t.equal((await service.operate('GET', `/admin/records/${id}`)).statusCode, 404, id)
  }
})

t.test('readyz says whether the database answers, without credentials', async (t) => {
  const service = await build(t)
  t.match(await service.admin.inject('/readyz').then((answer) => answer.json()), { status: 'ok', version: version() })
})

t.test('readyz says since when the service has not been ready', async (t) => {
  const service = await build(t)
  let isReady = false
  let now = Date.parse('2026-01-01T00:00:00Z')
  const checkReady = async () => {
    if (!isReady) {
      throw new UnavailableError('ERR_DATABASE_UNAVAILABLE')
    }
  }
  const { adminOptions } = service
  const admin = createAdmin({ ...adminOptions, store: { ...adminOptions.store, checkReady }, now: () => now })
  t.teardown(() => admin.close())
  const look = async () => {
    now += 60_000
    return (await admin.inject('/readyz')).json()
  }
  t.same(await look(), {
    status: 'unavailable',
    reason: 'ERR_DATABASE_UNAVAILABLE',
    since: '2026-01-01T00:01:00.000Z',
    version: version()
  })
  t.match(await look(), { since: '2026-01-01T00:01:00.000Z' })
  isReady = true
  t.same(await look(), { status: 'ok', version: version() })
  isReady = false
  t.match(await look(), { since: '2026-01-01T00:04:00.000Z' }, 'another time')
})

t.test('a listener that knows its names answers to no other', async (t) => {
  const service = await build(t)
  const admin = createAdmin({ ...service.adminOptions, hosts: ['ops.example', 'msal-logout'] })
  t.teardown(() => admin.close())
  const askedAs = async (host: string, url = '/metrics') => (await admin.inject({ url, headers: { host } })).statusCode
  for (const host of [
    'ops.example',
    'OPS.example:3001',
    'msal-logout',
    'localhost:3001',
    '127.0.0.1:3001',
    '[::1]:3001',
    '10.0.0.7'
  ]) {
    t.equal(await askedAs(host), 200, host)
  }
  for (const host of [
    'evil.example',
    'ops.example.evil.example',
    'evil.example:3001',
    'localhost.evil.example',
    '127.0.0.1.evil.example',
    'evil.example/.localhost',
    'evil.example#.localhost'
  ]) {
    for (const url of ['/metrics', '/readyz', '/', '/docs', '/page/main.js', '/admin/records', '/nothing']) {
      t.equal(await askedAs(host, url), 421, `${host}${url}`)
    }
  }
})

t.test('by default a page of another name reads nothing, and whoever is no such page needs no list', async (t) => {
  const { admin, operate } = await build(t)
  const chrome = { 'user-agent': 'Mozilla/5.0 (X11; Linux x86_64) Chrome/140.0', 'accept-language': 'en-US,en;q=0.9' }
  const pages = {
    'a document': { ...chrome, 'upgrade-insecure-requests': '1' },
    'a fetch': { ...chrome, referer: 'http://evil.example:3001/', accept: '*/*' },
    'a post': { ...chrome, origin: 'http://evil.example:3001' },
    'a fetch under another name': { 'user-agent': 'Prometheus/3.0', 'accept-language': '' },
    'a script that adds what proxies do': {
      ...chrome,
      'x-forwarded-for': '10.0.0.1',
      'x-forwarded-proto': 'https',
      forwarded: 'proto=https'
    }
  }
  for (const [name, headers] of Object.entries(pages)) {
    for (const host of [
      'evil.example',
      'evil.example:3001',
      'EVIL.example.',
      'localhost.evil.example',
      '127.0.0.1.nip.example'
    ]) {
      for (const url of ['/metrics', '/readyz', '/', '/docs', '/openapi.json', '/admin/records']) {
        const answer = await admin.inject({ url, headers: { ...headers, host } })
        t.equal(answer.statusCode, 421, `${name}: ${host}${url}`)
        t.match(answer.json(), { code: 'foreign_host', detail: /ADMIN_HOSTS/ })
      }
    }
    for (const host of [
      'localhost:3001',
      'app.localhost',
      '127.0.0.1:3001',
      '[::1]:3001',
      '10.0.0.7',
      'msal-logout:3001'
    ]) {
      t.equal(
        (await admin.inject({ url: '/metrics', headers: { ...headers, host } })).statusCode,
        200,
        `${name}: ${host}`
      )
    }
  }
  const others = {
    'a probe of Kubernetes': { 'user-agent': 'kube-probe/1.34', accept: '*/*', connection: 'close' },
    'a load balancer': { 'user-agent': 'ELB-HealthChecker/2.0' },
    Prometheus: {
      'user-agent': 'Prometheus/3.7.0',
      accept: 'application/openmetrics-text;version=1.0.0',
      'accept-encoding': 'gzip',
      'x-prometheus-scrape-timeout-seconds': '10'
    },
    curl: { 'user-agent': 'curl/8.14.1', accept: '*/*' },
    'our own command': { 'user-agent': 'node' },
    'a browser, by a proxy with TLS': {
      ...chrome,
      'sec-fetch-site': 'none',
      'sec-fetch-mode': 'navigate',
      'x-forwarded-proto': 'https'
    }
  }
  for (const [name, headers] of Object.entries(others)) {
    const host = 'logout-admin.example.com'
    t.equal((await admin.inject({ url: '/readyz', headers: { ...headers, host } })).statusCode, 200, name)
  }
  t.equal((await operate('GET', '/admin/stats', undefined, { host: 'logout-admin.example.com' })).statusCode, 200)
})

t.test('a health check by HTTP/1.0 names no host', async (t) => {
  const { adminOptions } = await build(t)
  const admin = createAdmin({ ...adminOptions, hosts: ['ops.example'] })
  t.teardown(() => admin.close())
  await admin.listen({ host: '127.0.0.1', port: 0 })
  const { port } = admin.server.address() as AddressInfo
  const socket = connect(port, '127.0.0.1')
  socket.write('GET /metrics HTTP/1.0\r\n\r\n')
  const [line] = (await text(socket)).split('\r\n')
  t.match(line, / 200 /)
})

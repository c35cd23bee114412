import { randomUUID } from 'node:crypto'
import pg from 'pg'
import { pino } from 'pino'
import t from 'tap'
import { createPurges } from '../src/purges.ts'
import type { Logout } from '../src/store.ts'
import { adminToken, build, type Service } from './fixtures/service.ts'

const reason = 'left the company'

async function populate(service: Service) {
  await service.login({ clientId: 'a', homeAccountId: 'u.t1', sid: 's1', subject: 'u' })
  await service.login({ clientId: 'b', homeAccountId: 'u.t1', sid: 's1', subject: 'u' })
  await service.login({ clientId: 'a', homeAccountId: 'v.t1', sid: 's2', subject: 'v' })
  await service.login({ clientId: 'a', homeAccountId: 'w.t2', sid: 's3', subject: 'w' })
  await service.database.query(`select msal_logout.store_app('a', 'a.t1', 'x', 'json', '1 hour')`)
}

t.test('every selector purges what it names, and a dry run tells the same and changes nothing', async (t) => {
  const selectors: [string, (service: Service) => object, expected: object, left: string[]][] = [
    [
      'an account',
      () => ({ homeAccountId: 'u.t1' }),
      { accounts: 1, sessions: 2, rows: 2, rowsByClient: { a: 1, b: 1 } },
      ['a/a.t1', 'a/v.t1', 'a/w.t2']
    ],
    [
      'a session',
      ({ provider: { issuer } }) => ({ issuer, sid: 's1' }),
      { accounts: 1, sessions: 2, rows: 2, rowsByClient: { a: 1, b: 1 } },
      ['a/a.t1', 'a/v.t1', 'a/w.t2']
    ],
    [
      'a subject',
      ({ provider: { issuer } }) => ({ issuer, subject: 'v' }),
      { accounts: 1, sessions: 1, rows: 1, rowsByClient: { a: 1 } },
      ['a/a.t1', 'a/u.t1', 'a/w.t2', 'b/u.t1']
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
      ['a/a.t1', 'a/u.t1', 'a/v.t1', 'a/w.t2', 'b/u.t1']
    ]
  ]
  for (const [name, selector, expected, left] of selectors) {
    await t.test(name, async (t) => {
      const service = await build(t)
      await populate(service)
      const before = await service.database.snapshot()
      const dryRun = await service.operate('POST', '/admin/purges', { ...selector(service), reason, dryRun: true })
      t.equal(dryRun.statusCode, 200)
      t.match(dryRun.json(), { ...expected, dryRun: true })
      t.same(await service.database.snapshot(), before)

      const purge = await service.operate('POST', '/admin/purges', { ...selector(service), reason })
      t.equal(purge.statusCode, 200)
      t.match(purge.json(), { ...expected, dryRun: false })
      t.same(await service.rows(), left)
      const { id } = purge.json() as { id: string }
      t.match((await service.operate('GET', `/admin/purges/${id}`)).json(), {
        id,
        status: 'done',
        source: 'admin',
        reason,
        ...expected
      })
    })
  }
})

t.test('a purge by an operator holds against logins with an older ID token', async (t) => {
  const now = () => Math.floor(Date.now() / 1_000)
  for (const selector of [{ homeAccountId: 'u.t1' }, { tenantId: 't1' }, { clientId: 'a' }]) {
    const service = await build(t)
    const login = { clientId: 'a', homeAccountId: 'u.t1', sid: 's1' }
    for (const stored of [true, false]) {
      if (stored) {
        await service.login(login)
      }
      await service.operate('POST', '/admin/purges', { ...selector, reason })
      t.match(await service.login(login), { accepted: false })
      t.match(await service.login({ ...login, sid: 'another' }), { accepted: false })
    }
    t.match(await service.login({ ...login, issuedAt: now() + 5 }), { accepted: true }, 'a later one lives')
  }
})

t.test('an account of bare subjects needs its issuer where two bear the id', async (t) => {
  const service = await build(t)
  const other = 'https://other.example'
  await service.login({ clientId: 'a', homeAccountId: 'alice', subject: 'alice' })
  await service.login({ clientId: 'b', homeAccountId: 'alice', subject: 'alice', issuer: other })
  const ambiguous = await service.operate('POST', '/admin/purges', { homeAccountId: 'alice', reason })
  t.equal(ambiguous.statusCode, 409)
  t.equal((await service.rows()).length, 2)
  const named = await service.operate('POST', '/admin/purges', { homeAccountId: 'alice', issuer: other, reason })
  t.match(named.json(), { accounts: 1, rows: 1 })
  t.same(await service.rows(), ['a/alice'])
})

t.test('a request that is not exactly one selector with a reason is refused', async (t) => {
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
    { sid: 's1', reason },
    { subject: 'u', reason },
    { issuer, reason },
    { issuer, sid: 's1', subject: 'u', reason },
    { issuer, clientId: 'a', reason },
    { issuer, tenantId: 't1', reason },
    { homeAccountId: ['u.t1'], reason },
    { homeAccountId: 'u.t1', reason, unknown: true },
    { homeAccountId: 'u.t1', reason, dryRun: 'false' },
    { homeAccountId: 'u\0t1', reason },
    []
  ]) {
    t.equal((await service.operate('POST', '/admin/purges', body)).statusCode, 400, JSON.stringify(body))
  }
  t.same(await service.database.snapshot(), before)
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

t.test('more than 1,000 accounts need force, and more than 10,000 go on in the background', async (t) => {
  const service = await build(t)
  const fill = (count: number) =>
    service.database.query(
      `insert into msal_logout.token_cache (client_id, partition_key, kind, home_account_id, payload, encoding, expires_at)
      select 'a', i || '.big', 'user', i || '.big', 'x', 'json', now() + interval '1 hour' from generate_series(1, $1) i
      on conflict do nothing`,
      [count]
    )
  await fill(1_001)
  const refused = await service.operate('POST', '/admin/purges', { tenantId: 'big', reason })
  t.equal(refused.statusCode, 409)
  t.equal((await service.rows()).length, 1_001)
  const forced = await service.operate('POST', '/admin/purges', { tenantId: 'big', reason, force: true })
  t.match(forced.json(), { accounts: 1_001, rows: 1_001 })
  t.same(await service.rows(), [])

  await fill(10_001)
  const large = await service.operate('POST', '/admin/purges', { clientId: 'a', reason, force: true })
  t.equal(large.statusCode, 202)
  const { id, ...told } = large.json() as { id: string }
  t.match(told, { status: 'running', total: 10_001 })
  let record: unknown
  do {
    record = (await service.operate('GET', `/admin/purges/${id}`)).json()
  } while ((record as { status: string }).status === 'running')
  t.match(record, {
    status: 'done',
    accounts: 10_001,
    rows: 10_001,
    total: 10_001
  })
  t.same(await service.rows(), [])
})

/** A purge that has begun, and of which no step is done. */
async function beginPurge(
  { store }: Service,
  selector: { tenantId: string } | { clientId: string } | { homeAccountId: string }
): Promise<string> {
  const id = randomUUID()
  const requestHash = Buffer.alloc(1)
  const purge = { id, ...selector, reason, actor: 'test', dryRun: false, maxAccounts: 100, requestHash }
  t.equal((await store.startPurge(purge)).outcome, 'running')
  return id
}

function logoutOf({ issuer, sid }: { issuer: string; sid: string }): Logout {
  const notAfter = Math.floor(Date.now() / 1_000)
  return { id: randomUUID(), source: 'backchannel', issuer, sid, notAfter, wholeSubject: false, purgeScope: 'account' }
}

t.test('a sid that more than 1,000 accounts have needs force, too', async (t) => {
  const service = await build(t)
  const { issuer } = service.provider
  await service.database.query(
    `select msal_logout.login('a', i || '.t', i || '.t', $1, 'everybody', i::text, 1, 'x', 'json', '1 hour')
    from generate_series(1, 1001) i`,
    [issuer]
  )
  const refused = await service.operate('POST', '/admin/purges', { issuer, sid: 'everybody', reason })
  t.equal(refused.statusCode, 409)
  t.match(refused.json(), { code: 'too_many_accounts' })
  t.equal((await service.rows()).length, 1_001)
  const forced = await service.operate('POST', '/admin/purges', { issuer, sid: 'everybody', reason, force: true })
  t.match(forced.json(), { accounts: 1_001, rows: 1_001 })
})

t.test('a login that comes while a purge is running lives, and the purge ends', async (t) => {
  const service = await build(t)
  const issuedAt = Math.floor(Date.now() / 1_000) + 5
  for (let i = 0; i < 6; i += 1) {
    await service.login({ clientId: 'a', homeAccountId: `old-${i}.t`, sid: `old-${i}` })
  }
  const id = await beginPurge(service, { tenantId: 't' })
  let steps = 0
  do {
    steps += 1
    await service.login({ clientId: 'a', homeAccountId: `new-${steps}.t`, sid: `new-${steps}`, issuedAt })
  } while (steps < 50 && (await service.store.purgeStep(id, 2)))
  t.equal(steps, 4, 'three of two accounts, and one that finds nothing')
  t.same(await service.rows(), ['a/new-1.t', 'a/new-2.t', 'a/new-3.t', 'a/new-4.t'])
  t.match(await service.store.findPurge(id), { status: 'done', accounts: 6, rows: 6, sessions: 6 })
})

t.test('an account whose rows go in several steps is counted once, in all and in each app', async (t) => {
  const service = await build(t)
  for (const homeAccountId of ['one.t', 'two.t']) {
    await service.login({ clientId: 'a', homeAccountId, sid: homeAccountId })
    await service.login({ clientId: 'b', homeAccountId, sid: homeAccountId })
    await service.login({
      clientId: 'a',
      homeAccountId,
      partitionKey: `${homeAccountId}+`,
      sid: homeAccountId,
      kind: 'obo'
    })
  }
  const id = await beginPurge(service, { tenantId: 't' })
  const accounts: number[] = []
  while (await service.store.purgeStep(id, 1)) {
    accounts.push((await service.store.findPurge(id))?.accounts ?? Number.NaN)
  }
  t.same(accounts, [1, 2], 'an account goes whole')
  t.match(await service.store.findPurge(id), {
    status: 'done',
    accounts: 2,
    rows: 6,
    byClient: { a: { accounts: 2, sessions: 4, rows: 4 }, b: { accounts: 2, sessions: 2, rows: 2 } }
  })
})

for (const selector of [{ tenantId: 't' }, { clientId: 'a' }, { homeAccountId: 'one.t' }]) {
  t.test(
    `a later login into a row that ${JSON.stringify(selector)} meets leaves no session without its row`,
    async (t) => {
      const service = await build(t)
      await service.login({ clientId: 'a', homeAccountId: 'one.t', sid: 'early' })
      const id = await beginPurge(service, selector)
      await service.login({
        clientId: 'a',
        homeAccountId: 'one.t',
        sid: 'late',
        issuedAt: Math.floor(Date.now() / 1_000) + 5
      })
      while (await service.store.purgeStep(id, 100)) {}
      t.same(await service.rows(), [])
      t.same(await service.database.query('select sid from msal_logout.sessions'), [])
    }
  )
}

t.test(
  'of a login that began before a purge and was stored after it, row and session go or live together',
  async (t) => {
    const service = await build(t)
    await service.login({ clientId: 'b', homeAccountId: 'one.t', sid: 'early' })
    const client = await service.database.pool.connect()
    await client.query('begin')
    await client.query('select now()')
    const id = await beginPurge(service, { homeAccountId: 'one.t' })
    await client.query(
      "select msal_logout.login('a', 'one.t', 'one.t', $1, 'late', 'subject', extract(epoch from now())::bigint + 5, 'x', 'json', '1 hour')",
      [service.provider.issuer]
    )
    await client.query('commit')
    client.release()
    while (await service.store.purgeStep(id, 100)) {}
    t.same(await service.rows(), ['a/one.t'])
    t.same(await service.database.query('select sid from msal_logout.sessions'), [{ sid: 'late' }])
    const { issuer } = service.provider
    t.match(await service.store.previewSignOut(logoutOf({ issuer, sid: 'late' })), { sessions: 1, rows: 1 })
  }
)

t.test('an account that a sign-out ends while a purge is at it is counted by whoever deleted of it', async (t) => {
  const service = await build(t)
  for (const homeAccountId of ['one.t', 'two.t', 'three.t']) {
    await service.login({ clientId: 'a', homeAccountId, sid: homeAccountId })
    await service.login({ clientId: 'b', homeAccountId, sid: homeAccountId })
  }
  const id = await beginPurge(service, { tenantId: 't' })
  t.equal(await service.store.purgeStep(id, 1), true)
  const { issuer } = service.provider
  for (const sid of ['one.t', 'two.t']) {
    await service.store.signOut([logoutOf({ issuer, sid })])
  }
  while (await service.store.purgeStep(id, 1)) {}
  t.match(await service.store.findPurge(id), { total: 3, accounts: 2, rows: 4, sessions: 4 })
})

t.test('a dry run of a tenant counts what the purge does, also where a session has lost its row', async (t) => {
  const service = await build(t)
  for (const homeAccountId of ['one.t', 'two.t']) {
    await service.login({ clientId: 'a', homeAccountId, sid: homeAccountId })
  }
  await service.database.query("delete from msal_logout.token_cache where home_account_id = 'two.t'")
  for (const selector of [{ tenantId: 't' }, { clientId: 'a' }]) {
    const dry = await service.operate('POST', '/admin/purges', { ...selector, reason, dryRun: true })
    t.match(dry.json(), { accounts: 1, sessions: 1, rows: 1, rowsByClient: { a: 1 } }, JSON.stringify(selector))
  }
  const done = await service.operate('POST', '/admin/purges', { tenantId: 't', reason })
  t.match(done.json(), { accounts: 1, sessions: 1, rows: 1, rowsByClient: { a: 1 } })
})

t.test('a purge waits for no row that somebody holds, and deletes it in the end', async (t) => {
  const service = await build(t)
  for (const homeAccountId of ['one.t', 'two.t', 'three.t']) {
    await service.login({ clientId: 'a', homeAccountId, sid: homeAccountId })
  }
  await service.login({ clientId: 'b', homeAccountId: 'two.t', sid: 'two.t' })
  const id = await beginPurge(service, { tenantId: 't' })
  const holder = await service.database.pool.connect()
  await holder.query('begin')
  await holder.query(
    "select from msal_logout.token_cache where home_account_id = 'two.t' and client_id = 'a' for update"
  )
  t.equal(await service.store.purgeStep(id, 100), true)
  t.same(await service.rows(), ['a/two.t'])
  t.match(await service.store.findPurge(id), { status: 'running', accounts: 2, rows: 3, sessions: 3 })
  await holder.query('commit')
  holder.release()
  await service.purges.resume()
  t.same(await service.rows(), [])
  const told = {
    status: 'done',
    total: 3,
    accounts: 3,
    rows: 4,
    sessions: 4,
    byClient: { a: { accounts: 3, rows: 3 }, b: { accounts: 1, rows: 1 } }
  }
  t.match(await service.store.findPurge(id), told, 'an account of which a row was left is counted once')
})

t.test('a purge that was interrupted is taken up, by another instance too, and is done once', async (t) => {
  const service = await build(t)
  for (let i = 0; i < 6; i += 1) {
    await service.login({ clientId: 'a', homeAccountId: `old-${i}.t`, sid: `old-${i}` })
  }
  const id = await beginPurge(service, { clientId: 'a' })
  await service.store.purgeStep(id, 2)
  t.equal((await service.rows()).length, 4)
  await Promise.all([service.purges.resume(), service.purges.resume(), service.purges.resume()])
  while ((await service.store.findPurge(id))?.status === 'running') {
    await service.purges.resume()
  }
  t.same(await service.rows(), [])
  t.match(await service.store.findPurge(id), { status: 'done', accounts: 6, rows: 6, sessions: 6 })
})

t.test('a purge that cannot go on holds no other up', async (t) => {
  const { store, purges, login, rows, database } = await build(t, {
    openPool: (connectionString) => new pg.Pool({ connectionString, options: '-c lock_timeout=100ms' })
  })
  await login({ clientId: 'a', homeAccountId: 'u.held' })
  await login({ clientId: 'a', homeAccountId: 'u.free' })
  for (const tenantId of ['held', 'free']) {
    const requestHash = Buffer.alloc(1)
    const purge = { id: randomUUID(), tenantId, reason, actor: 'test', dryRun: false, maxAccounts: 1, requestHash }
    await store.startPurge(purge)
  }
  const holder = await database.pool.connect()
  await holder.query('begin')
  await holder.query("select from msal_logout.token_cache where home_account_id = 'u.held' for update")
  await t.rejects(purges.resume(), { code: 'ERR_DATABASE_FAILED' })
  t.same(await rows(), ['a/u.held'])
  await holder.query('commit')
  holder.release()
  await purges.resume()
  t.same(await rows(), [])
})

t.test('a purge that ended meanwhile is not counted again by who meant to take it up', async (t) => {
  const { store, signOut, login } = await build(t)
  await login({ homeAccountId: 'u.t' })
  const id = randomUUID()
  const requestHash = Buffer.alloc(1)
  await store.startPurge({ id, tenantId: 't', reason, actor: 'test', dryRun: false, maxAccounts: 1, requestHash })
  const counted: string[] = []
  const instance = (name: string) =>
    createPurges({
      store: { ...store, runningPurges: async () => [id] }, // as read before
      signOut,
      logger: pino({ level: 'silent' }),
      onPurged: () => counted.push(name)
    })
  await instance('first').resume()
  await instance('second').resume()
  t.same(counted, ['first'])
})

t.test('an Idempotency-Key gives the first answer again, and stands for one request', async (t) => {
  const service = await build(t)
  await populate(service)
  const { issuer } = service.provider
  for (const [key, selector] of [
    ['k1', { homeAccountId: 'u.t1' }],
    ['k2', { issuer, sid: 's2' }]
  ] as const) {
    const order = (body: object) =>
      service.operate('POST', '/admin/purges', { reason, ...body }, { 'idempotency-key': key })
    const first = await order(selector)
    t.match(first, { statusCode: 200 })
    t.same((await order(selector)).json(), first.json())
    t.equal((await order({ ...selector, reason: 'another' })).statusCode, 422)
  }
  t.equal((await service.database.query('select * from msal_logout.purges')).length, 2)
})

t.test('an unknown purge is not found', async (t) => {
  const service = await build(t)
  t.equal((await service.operate('GET', `/admin/purges/${randomUUID()}`)).statusCode, 404)
  t.equal((await service.operate('GET', '/admin/purges/nonsense')).statusCode, 404)
})

t.test('readyz tells whether the database answers, without credentials', async (t) => {
  const service = await build(t)
  t.equal((await service.admin.inject('/readyz')).statusCode, 200)
})

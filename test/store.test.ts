import t from 'tap'
import { translateErrors } from '../src/database.ts'
import { type Order, orderId, type SignOutResult } from '../src/sign-out.ts'
import { batchOf, createStore } from '../src/store.ts'
import { createDatabase } from './fixtures/database.ts'
import { makeOrder, nowSeconds as now } from './fixtures/orders.ts'
import { build, type Service } from './fixtures/service.ts'
import { until } from './fixtures/until.ts'

interface By extends Partial<Order> {
  issuer?: string
  sid?: string
  subject?: string
  wholeSubject?: boolean
}

function orderBy(
  service: Service,
  { issuer = service.provider.issuer, sid, subject, wholeSubject, ...order }: By
): Order {
  return sid === undefined || wholeSubject === true
    ? makeOrder({ kind: 'subject', issuer, subject: subject ?? '', sid }, { sparesNewer: true, ...order })
    : makeOrder({ kind: 'session', issuer, sid, subject }, order)
}

async function signOut(service: Service, by: By): Promise<SignOutResult> {
  const [result] = await service.signOut([orderBy(service, by)])
  return result as SignOutResult
}

t.test('a sid ends its sessions in every app, and every row of their accounts', async (t) => {
  const service = await build(t)
  await service.login({ clientId: 'a', homeAccountId: 'u.t', sid: 's1', subject: 'pairwise-a' })
  await service.login({ clientId: 'b', homeAccountId: 'u.t', sid: 's1', subject: 'pairwise-b' })
  await service.login({ clientId: 'c', homeAccountId: 'u.t', sid: 's2', subject: 'pairwise-c' })
  await service.login({
    clientId: 'b',
    homeAccountId: 'u.t',
    partitionKey: 'assertion',
    sid: 's1',
    subject: 'pairwise-b',
    kind: 'obo'
  })
  await service.login({ clientId: 'a', homeAccountId: 'v.t', sid: 's3', subject: 'v' })

  const purged = await signOut(service, { sid: 's1' })
  t.match(purged, { outcome: 'done', accounts: 1, sessions: 4, rows: 4 })
  const each = { accounts: 1, sessions: 1, rows: 1 }
  t.same(purged.byClient, { a: each, b: { accounts: 1, sessions: 2, rows: 2 }, c: each })
  t.same(await service.rows(), ['a/v.t'])
  t.same(
    await service.database.query('select sid from msal_logout.sessions'),
    [{ sid: 's3' }],
    'no session is left of a row that is gone'
  )
})

t.test('a login that is under way is rejected as long as the longest of the orders asks for', async (t) => {
  const service = await build(t)
  const hours: number[] = []
  for (const rememberSeconds of [3_600, 86_400, 3_600]) {
    await signOut(service, { sid: 's1', rememberSeconds })
    const [row] = await service.database.query<{ hours: number }>(
      `select round(extract(epoch from expires_at - now()) / 3600)::int as hours
      from msal_logout.tombstones where key = 'sid=s1'`
    )
    hours.push(row?.hours ?? 0)
  }
  t.same(hours, [1, 24, 24])

  await service.stores.signOuts.commitOrders(
    [86_400, 3_600].map((rememberSeconds) => orderBy(service, { sid: 's2', rememberSeconds })),
    { isPatient: true }
  )
  t.match(
    await service.database.query(
      `select expires_at > now() + interval '23 hours' as long from msal_logout.tombstones where key = 'sid=s2'`
    ),
    [{ long: true }],
    'also in one transaction'
  )
})

t.test('a logout waits for the disk, also where the database is set not to', async (t) => {
  const { database } = await build(t)
  const client = await database.pool.connect()
  t.teardown(() => client.release())
  await client.query('begin')
  for (const [set, kept] of [
    ['off', 'on'],
    ['remote_apply', 'remote_apply']
  ]) {
    await client.query(`set local synchronous_commit = ${set}`)
    await client.query(`select * from msal_logout.sign_out('{}')`)
    t.same((await client.query('show synchronous_commit')).rows, [{ synchronous_commit: kept }])
  }
  await client.query('rollback')
})

t.test('a subject ends every session of it', async (t) => {
  const service = await build(t)
  await service.login({ clientId: 'a', homeAccountId: 'u.t', sid: 's1', subject: 'u' })
  await service.login({ clientId: 'b', homeAccountId: 'u.t', sid: 's2', subject: 'u' })
  await service.login({ clientId: 'b', homeAccountId: 'v.t', sid: 's3', subject: 'v' })
  t.match(await signOut(service, { subject: 'u' }), { accounts: 1, sessions: 2, rows: 2 })
  t.same(await service.rows(), ['b/v.t'])
})

t.test('a subject spares sessions whose ID token is newer than the logout token', async (t) => {
  const service = await build(t)
  await service.login({ clientId: 'a', homeAccountId: 'old.t', sid: 's1', subject: 'u', issuedAt: 1_000 })
  await service.login({ clientId: 'a', homeAccountId: 'same.t', sid: 's2', subject: 'u', issuedAt: 2_000 })
  await service.login({ clientId: 'a', homeAccountId: 'new.t', sid: 's3', subject: 'u', issuedAt: 2_001 })
  await signOut(service, { subject: 'u', revokeBefore: 2_000 })
  t.same(await service.rows(), ['a/new.t'])
})

t.test(
  'nodes of one issuer may differ by two seconds: what was issued before the logout ends, what came after lives',
  async (t) => {
    const at = now()
    const cases = [
      ['the whole subject', { sid: undefined, sub: 'u' }, 's1'],
      ['a login without a sid', { sid: 'another', sub: 'u' }, null]
    ] as const
    for (const [name, claims, sid] of cases) {
      await t.test(name, async (t) => {
        const service = await build(t)
        const login = (ahead: number) =>
          service.login({
            homeAccountId: `${ahead}.t`,
            sid: sid && `${sid}-${ahead}`,
            subject: 'u',
            issuedAt: at + ahead
          })
        for (const ahead of [0, 2, 3]) {
          await service.login({
            homeAccountId: `stored-${ahead}.t`,
            clientId: `app-${ahead}`,
            sid: sid && `${sid}-stored-${ahead}`,
            subject: 'u',
            issuedAt: at + ahead
          })
        }
        t.match(await service.post(await service.provider.logoutToken({ ...claims, iat: at })), { statusCode: 200 })
        t.same(await service.rows(), ['app-3/stored-3.t'])
        t.match(await login(2), { accepted: false }, 'nor is one stored that was under way')
        t.match(await login(3), { accepted: true })
      })
    }
    await t.test('a login of the session that was under way', async (t) => {
      const service = await build(t)
      await service.post(await service.provider.logoutToken({ sid: 's1', iat: at }))
      t.match(await service.login({ sid: 's1', issuedAt: at + 2 }), { accepted: false })
      t.match(await service.login({ sid: 's1', issuedAt: at + 3 }), { accepted: true })
    })
  }
)

t.test('with a sid and a subject', async (t) => {
  async function three(service: Service) {
    await service.login({ clientId: 'a', homeAccountId: 'one.t', sid: 's1', subject: 'u' })
    await service.login({ clientId: 'a', homeAccountId: 'two.t', sid: 's2', subject: 'u' })
    await service.login({ clientId: 'a', homeAccountId: 'none.t', sid: null, subject: 'u' })
    await service.login({ clientId: 'b', homeAccountId: 'pairwise.t', sid: 's1', subject: 'other' })
  }
  await t.test('that session and logins stored without a sid end', async (t) => {
    const service = await build(t)
    await three(service)
    await signOut(service, { sid: 's1', subject: 'u' })
    t.same(await service.rows(), ['a/two.t'])
  })
  await t.test('every session of the subject ends, where the issuer is configured so', async (t) => {
    const service = await build(t)
    await three(service)
    await signOut(service, { sid: 's1', subject: 'u', wholeSubject: true })
    t.same(await service.rows(), [])
  })
  await t.test('the policy of the issuer decides', async (t) => {
    for (const [sidAndSubject, left] of [
      ['session', ['a/two.t']],
      ['subject', []]
    ] as const) {
      const service = await build(t, { policy: { sidAndSubject } })
      await three(service)
      t.match(await service.post(await service.provider.logoutToken({ sid: 's1', sub: 'u' })), { statusCode: 200 })
      t.same(await service.rows(), left)
    }
  })
  await t.test('a login without a sid and with a newer ID token lives', async (t) => {
    const service = await build(t)
    await service.login({ homeAccountId: 'u.t', sid: null, subject: 'u', issuedAt: 2_001 })
    await signOut(service, { sid: 's1', subject: 'u', revokeBefore: 2_000 })
    t.equal((await service.rows()).length, 1)
  })
})

t.test('a sid alone says nothing of logins stored without one', async (t) => {
  const service = await build(t)
  await service.login({ homeAccountId: 'u.t', sid: null, subject: 's1' })
  t.match(await signOut(service, { sid: 's1' }), { accounts: 0, sessions: 0, rows: 0 })
  t.equal((await service.rows()).length, 1, 'and never meets an equal subject')
})

t.test('equal sids of two issuers are two sessions', async (t) => {
  const service = await build(t)
  await service.login({ homeAccountId: 'u.t', sid: 's1' })
  await service.login({ homeAccountId: 'v.t', sid: 's1', issuer: 'https://other.example' })
  await signOut(service, { sid: 's1' })
  t.same(await service.rows(), ['client-a/v.t'])
})

t.test('equal bare subjects of two issuers are two accounts', async (t) => {
  const service = await build(t)
  const other = 'https://other.example'
  await service.login({ clientId: 'a', homeAccountId: 'alice', subject: 'alice', sid: 's1' })
  await service.login({ clientId: 'b', homeAccountId: 'alice', subject: 'alice', sid: 's2', issuer: other })
  await service.login({ clientId: 'c', homeAccountId: 'alice', subject: 'bob', sid: 's3' })
  t.match(await signOut(service, { subject: 'alice' }), { accounts: 1, rows: 1 })
  t.same(await service.rows(), ['b/alice', 'c/alice'])
  await t.rejects(
    service.login({ clientId: 'b', homeAccountId: 'alice', subject: 'alice', sid: 's4', issuedAt: now() + 5 }),
    { code: 'ML001' },
    'and one never takes the row of the other'
  )
})

t.test("a guest's row has sessions of several issuers, and any of them ends it", async (t) => {
  const service = await build(t)
  const other = 'https://other.example'
  for (const [issuer, sid] of [
    [service.provider.issuer, 's1'],
    [other, 's2']
  ] as const) {
    await service.login({ homeAccountId: 'u.home', sid: 's1', subject: 'u' })
    const [added] = await service.database.query<{ added: boolean }>(
      `select msal_logout.add_session('client-a', 'u.home', $1, 's2', 'guest', $2) as added`,
      [other, now() + 5]
    )
    t.ok(added?.added)
    t.match(await signOut(service, { issuer, sid }), { accounts: 1, sessions: 2, rows: 1 })
    t.same(await service.rows(), [])
    await service.database.query('delete from msal_logout.tombstones')
  }
})

t.test('with the scope of a session', async (t) => {
  const options = { policy: { purgeScope: 'session' } } as const
  await t.test("an app's row is spared while another live session of that app uses it", async (t) => {
    const service = await build(t, options)
    await service.login({ clientId: 'a', homeAccountId: 'u.t', sid: 's1' })
    await service.login({ clientId: 'a', homeAccountId: 'u.t', sid: 's2' })
    await service.login({ clientId: 'b', homeAccountId: 'u.t', sid: 's1' })
    await service.post(await service.provider.logoutToken({ sid: 's1' }))
    t.same(await service.rows(), ['a/u.t'])
    await service.post(await service.provider.logoutToken({ sid: 's2' }))
    t.same(await service.rows(), [])
  })
  await t.test('a session that has expired spares nothing', async (t) => {
    const service = await build(t, options)
    await service.login({ clientId: 'a', homeAccountId: 'u.t', sid: 's1' })
    await service.login({ clientId: 'a', homeAccountId: 'u.t', sid: 's2' })
    await service.database.query(`update msal_logout.sessions set expires_at = now() where sid = 's2'`)
    await service.post(await service.provider.logoutToken({ sid: 's1' }))
    t.same(await service.rows(), [])
  })
})

t.test('any printable sid is compared exactly', async (t) => {
  const service = await build(t)
  const sids = [
    ' ',
    '  ',
    's',
    'S',
    's ',
    "'; drop table x; --",
    '%',
    '_',
    '\\',
    '"',
    '{}',
    'null',
    'ｓ',
    'é',
    'e\u0301',
    '😀',
    '\u200b'
  ]
  for (const [i, sid] of sids.entries()) {
    await service.login({ homeAccountId: `${i}.t`, sid, subject: `${i}` })
  }
  for (const [i, sid] of sids.entries()) {
    await service.post(await service.provider.logoutToken({ sid }))
    t.notOk((await service.rows()).includes(`client-a/${i}.t`), `"${sid}" is gone`)
    t.equal((await service.rows()).length, sids.length - i - 1, 'and nothing else')
  }
})

t.test('a logout wins over a login that comes after it with an ID token from before', async (t) => {
  const cases: [string, By][] = [
    ['by sid', { sid: 's1' }],
    ['by subject', { subject: 'u' }],
    ['by both, for the subject', { sid: 'another', subject: 'u', wholeSubject: true }]
  ]
  for (const [name, by] of cases) {
    await t.test(name, async (t) => {
      const service = await build(t)
      await signOut(service, { revokeBefore: 2_000, ...by })
      for (const issuedAt of [1_999, 2_000]) {
        t.match(await service.login({ sid: 's1', subject: 'u', issuedAt }), { accepted: false, generation: null })
      }
      t.same(await service.rows(), [], 'nothing is written')
      t.same(await service.database.query('select * from msal_logout.sessions'), [])
      t.match(await service.login({ sid: 's1', subject: 'u', issuedAt: 2_001 }), { accepted: true })
      t.match(await service.login({ sid: 's2', subject: 'v', issuedAt: 1_000 }), { accepted: true })
    })
  }
  await t.test('by both, for a login without a sid', async (t) => {
    const service = await build(t)
    await signOut(service, { revokeBefore: 2_000, sid: 's1', subject: 'u' })
    t.match(await service.login({ sid: null, subject: 'u', issuedAt: 2_000 }), { accepted: false })
    t.match(await service.login({ sid: 's2', subject: 'u', issuedAt: 2_000 }), { accepted: true })
  })
})

t.test('the same token again is success without a second effect', async (t) => {
  const service = await build(t)
  const token = await service.provider.logoutToken({ sid: 's1', iat: now() - 30 })
  await service.login({ homeAccountId: 'u.t', sid: 's1' })
  t.equal((await service.post(token)).statusCode, 200)
  await service.login({ homeAccountId: 'u.t', sid: 's1', issuedAt: now() })
  const before = await service.database.snapshot()
  t.equal((await service.post(token)).statusCode, 200)
  t.same(await service.rows(), ['client-a/u.t'])
  t.same(await service.database.snapshot(), before)
})

t.test('the same token many times at once has one effect and one record', async (t) => {
  const service = await build(t)
  const token = await service.provider.logoutToken({ sid: 's1' })
  await service.login({ homeAccountId: 'u.t', sid: 's1' })
  const answers = await Promise.all(Array.from({ length: 50 }, () => service.post(token)))
  t.ok(answers.every(({ statusCode }) => statusCode === 200))
  t.match(await service.database.query('select sessions, rows from msal_logout.records'), [
    { sessions: '1', rows: '1' }
  ])
  t.equal((await service.database.query('select * from msal_logout.records')).length, 1)
})

t.test('the same token in two transactions at once is done once', async (t) => {
  const service = await build(t)
  await service.login({ homeAccountId: 'u.t', sid: 's1' })
  const order = orderBy(service, { sid: 's1' })
  const signOut = 'select * from msal_logout.sign_out($1)'
  const [first, second] = [await service.database.pool.connect(), await service.database.pool.connect()]
  await first.query('begin')
  t.match((await first.query(signOut, [batchOf([order])])).rows, [{ outcome: 'done' }])
  const pid = (await second.query('select pg_backend_pid() as pid')).rows[0].pid
  const again = second.query(signOut, [batchOf([order])])
  await until('the second waits for the first', async () => {
    const waiting = await service.database.query(
      `select 1 from pg_stat_activity where pid = $1 and wait_event_type = 'Lock'`,
      [pid]
    )
    return waiting[0]
  })
  await first.query('commit')
  t.match((await again).rows, [{ outcome: 'duplicate', account_ids: ['u.t'] }])
  t.match(await service.database.query('select rows from msal_logout.records'), [{ rows: '1' }])
  first.release()
  second.release()
})

t.test('what two tokens of one batch have in common is counted once', async (t) => {
  const service = await build(t)
  await service.login({ clientId: 'a', homeAccountId: 'u.t', sid: 's1', subject: 'u' })
  await service.login({ clientId: 'b', homeAccountId: 'u.t', sid: 's2', subject: 'u' })
  const results = (await service.stores.signOuts.commitOrders(
    ['s1', 's2', 'unknown'].map((sid) => orderBy(service, { sid })),
    { isPatient: true }
  )) as SignOutResult[]
  t.equal(
    results.reduce((sum, { rows }) => sum + rows, 0),
    2
  )
  t.equal(
    results.reduce((sum, { sessions }) => sum + sessions, 0),
    2
  )
  t.match(results[2], { outcome: 'unmatched', sessions: 0, rows: 0 })
})

t.test('every sign-out leaves its record', async (t) => {
  const service = await build(t)
  await service.login({ clientId: 'a', homeAccountId: 'u.t', sid: 's1', subject: 'u' })
  const token = await service.provider.logoutToken({ sid: 's1', jti: 'the-jti' })
  await service.post(token)
  t.match(await service.stores.slow.findRecord(orderId(service.provider.issuer, 'the-jti')), {
    source: 'backchannel',
    issuer: service.provider.issuer,
    clientId: 'client-a',
    jti: 'the-jti',
    sid: 's1',
    subject: null,
    status: 'done',
    accounts: 1,
    sessions: 1,
    rows: 1,
    matched: [{ homeAccountId: 'u.t' }],
    byClient: { a: { accounts: 1, sessions: 1, rows: 1 } }
  })
})

t.test('what has expired goes away in small steps, and nothing else', async (t) => {
  const service = await build(t)
  for (let i = 0; i < 5; i += 1) {
    await service.login({ homeAccountId: `old-${i}.t`, sid: `old-${i}`, ttl: '1 millisecond' })
    await service.login({ homeAccountId: `new-${i}.t`, sid: `new-${i}` })
  }
  await signOut(service, { sid: 'whatever' })
  await service.database.query(`update msal_logout.tombstones set expires_at = now() where key like 'sid=old%'`)
  await service.database.query(`update msal_logout.records set at = now() - interval '401 days'`)
  t.equal(
    await service.stores.slow.cleanUp(2),
    2 + 2 + 5 + 1,
    'two of each kind, the tombstones of some pages, and the only record'
  )
  for (let gone: number | null = 1, steps = 0; gone !== 0 && steps < 50; steps += 1) {
    gone = await service.stores.slow.cleanUp(2)
  }
  t.equal((await service.rows()).length, 5)
  t.ok((await service.rows()).every((row) => row.startsWith('client-a/new')))
  t.equal((await service.database.query('select * from msal_logout.sessions')).length, 5)
  t.same(await service.database.query(`select * from msal_logout.tombstones where key like 'sid=old%'`), [])
})

t.test('one instance at a time cleans up', async (t) => {
  const service = await build(t)
  const other = await service.database.pool.connect()
  await other.query('begin')
  await other.query(`select msal_logout.clean_up(10)`)
  t.equal(await service.stores.slow.cleanUp(10), null)
  await other.query('rollback')
  other.release()
  t.equal(await service.stores.slow.cleanUp(10), 0)
})

t.test('a login that is under way while it is cleaned up keeps its locks', async (t) => {
  const service = await build(t)
  await service.login({ homeAccountId: 'u.t', sid: 's1' })
  await service.database.query('update msal_logout.tombstones set expires_at = now()')
  const other = await service.database.pool.connect()
  await other.query('begin')
  await other.query(
    `select msal_logout.login('client-a', 'u.t', 'u.t', $1, 's1', 'subject', 1000, '{}', 'json', '1 hour')`,
    [service.provider.issuer]
  )
  await service.stores.slow.cleanUp(100)
  t.ok((await service.database.query('select * from msal_logout.tombstones')).length >= 3, 'they are skipped')
  await other.query('commit')
  other.release()
})

t.test('the walk over the tombstones comes to each of them, some pages at a time', async (t) => {
  const service = await build(t)
  await service.database.query(
    `insert into msal_logout.tombstones (issuer, key, expires_at)
    select 'https://issuer.example', 'sid=' || i, now() + case when i % 50 = 0 then interval '1 day' else '-1 second' end
    from generate_series(1, 30000) i`
  )
  const steps: (number | null)[] = []
  while (steps.reduce<number>((sum, gone) => sum + (gone ?? 0), 0) < 29_400 && steps.length < 100) {
    steps.push(await service.stores.slow.cleanUp(1_000))
  }
  t.ok(steps.length > 1, 'not at once')
  t.match(await service.database.query('select count(*)::int as n from msal_logout.tombstones'), [{ n: 600 }])
  t.match(await service.database.query('select next_page::int as n from msal_logout.clean_up_state'), [{ n: 0 }])
})

t.test('a database that is out of reach, one that rejects and one that is busy differ by their SQLSTATE', async (t) => {
  const database = await createDatabase(t, { own: true })
  const store = createStore({ pool: database.pool })
  await database.query('create table public.raised (code text)')
  await database.query(`
    create or replace function msal_logout.clean_up(max_rows int)
    returns bigint language plpgsql as $$
    begin
      raise exception 'made up' using errcode = (select r.code from public.raised r);
    end $$`)
  const cases: [string, string, string][] = [
    ['connection_failure', '08006', 'ERR_DATABASE_UNAVAILABLE'],
    ['a protocol violation, as poolers tell an outage', '08P01', 'ERR_DATABASE_UNAVAILABLE'],
    ['read_only_sql_transaction, of a standby', '25006', 'ERR_DATABASE_UNAVAILABLE'],
    ['idle_in_transaction_session_timeout', '25P03', 'ERR_DATABASE_UNAVAILABLE'],
    ['transaction_timeout', '25P04', 'ERR_DATABASE_UNAVAILABLE'],
    ['invalid_password', '28P01', 'ERR_DATABASE_UNAVAILABLE'],
    ['invalid_catalog_name', '3D000', 'ERR_DATABASE_UNAVAILABLE'],
    ['disk_full', '53100', 'ERR_DATABASE_UNAVAILABLE'],
    ['out_of_memory', '53200', 'ERR_DATABASE_UNAVAILABLE'],
    ['too_many_connections', '53300', 'ERR_DATABASE_UNAVAILABLE'],
    ['object_not_in_prerequisite_state, of what cannot be done during recovery', '55000', 'ERR_DATABASE_UNAVAILABLE'],
    ['query_canceled, by the time limit', '57014', 'ERR_DATABASE_TIMEOUT'],
    ['admin_shutdown', '57P01', 'ERR_DATABASE_UNAVAILABLE'],
    ['crash_shutdown', '57P02', 'ERR_DATABASE_UNAVAILABLE'],
    ['cannot_connect_now, while it starts', '57P03', 'ERR_DATABASE_UNAVAILABLE'],
    ['database_dropped', '57P04', 'ERR_DATABASE_UNAVAILABLE'],
    ['io_error', '58030', 'ERR_DATABASE_UNAVAILABLE'],
    ['serialization_failure', '40001', 'ERR_DATABASE_CONFLICT'],
    ['deadlock_detected', '40P01', 'ERR_DATABASE_CONFLICT'],
    ['lock_not_available', '55P03', 'ERR_DATABASE_LOCKED'],
    ['object_in_use', '55006', 'ERR_DATABASE_FAILED'],
    ['check_violation', '23514', 'ERR_DATABASE_FAILED'],
    ['undefined_function, of a schema that is not up to date', '42883', 'ERR_DATABASE_FAILED'],
    ['internal_error', 'XX000', 'ERR_DATABASE_FAILED']
  ]
  for (const [name, sqlState, code] of cases) {
    await database.query('delete from public.raised')
    await database.query('insert into public.raised values ($1)', [sqlState])
    await t.rejects(store.cleanUp(1), { name: 'UnavailableError', code, cause: { code: sqlState } }, name)
  }
})

t.test('a mistake of ours is no outage', async (t) => {
  for (const mistake of [new TypeError('made up'), new RangeError('made up')]) {
    await t.rejects(
      translateErrors(() => Promise.reject(mistake)),
      mistake
    )
  }
  const outages = [
    new Error('Connection terminated unexpectedly'),
    Object.assign(new Error('refused'), { code: 'ECONNREFUSED' }),
    new AggregateError([new Error('refused'), new Error('refused')])
  ]
  for (const error of outages) {
    await t.rejects(
      translateErrors(() => Promise.reject(error)),
      { code: 'ERR_DATABASE_UNAVAILABLE', cause: error }
    )
  }
})

t.test('the sessions of a large table are estimated from a part of its pages', async (t) => {
  const database = await createDatabase(t)
  await database.query(
    `insert into msal_logout.sessions (issuer, session_key, client_id, partition_key, subject, account_issuer,
      home_account_id, issued_at, expires_at)
    select 'https://op.example', 'sub=' || n, 'a', n::text, n::text, '', n::text, 1, now() + interval '1 hour'
    from generate_series(1, 3000) n`
  )
  const store = createStore({ pool: database.pool })
  t.same(await store.countSessions(), {
    counts: [{ issuer: 'https://op.example', clientId: 'a', sessions: 3_000, withoutSid: 3_000 }],
    isEstimate: false
  })
  const { counts, isEstimate } = await store.countSessions(20)
  t.equal(isEstimate, true)
  const sum = counts.reduce((total, { sessions }) => total + sessions, 0)
  t.ok(sum < 9_000, `about as many: ${sum}`)
})

t.test('it is not ready while somebody has a table locked that every sign-out writes', async (t) => {
  const database = await createDatabase(t)
  const { checkReady } = createStore({ pool: database.pool })
  const holder = await database.pool.connect()
  t.teardown(() => holder.release(true))
  for (const [lock, isReady] of [
    ['lock table msal_logout.tombstones in access exclusive mode', false],
    ['create index on msal_logout.sessions (created_at)', false],
    ['alter table msal_logout.records add column of_the_owner text', false],
    ['lock table msal_logout.token_cache in row exclusive mode', true],
    ['lock table msal_logout.streams in access exclusive mode', true],
    ['analyze msal_logout.sessions', true]
  ] as const) {
    await holder.query('begin')
    await holder.query(lock)
    await (isReady ? t.resolves(checkReady(), lock) : t.rejects(checkReady(), { code: 'ERR_DATABASE_LOCKED' }, lock))
    await holder.query('rollback')
    await t.resolves(checkReady())
  }

  await holder.query('begin')
  await holder.query('lock table msal_logout.sessions in access exclusive mode')
  const checked = checkReady()
  setTimeout(() => holder.query('rollback'), 100)
  await t.resolves(checked, 'a moment does not count, as of a vacuum')
})

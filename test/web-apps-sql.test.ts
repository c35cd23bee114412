import { randomBytes } from 'node:crypto'
import t, { type Test } from 'tap'
import type { Selector } from '../src/sign-out.ts'
import { createDatabase } from './fixtures/database.ts'
import { signOutBySql } from './fixtures/orders.ts'

const issuer = 'https://issuer.example'
type Row = Record<string, unknown>

async function setUp(t: Test) {
  const database = await createDatabase(t)
  const one = async (text: string, values: unknown[] = []): Promise<Row> =>
    (await database.query<Row>(text, values))[0] ?? {}
  return {
    ...database,
    one,
    login: (changes: Partial<Record<string, unknown>> = {}) => {
      const args: Record<string, unknown> = {
        client_id: 'a',
        partition_key: 'u.t',
        home_account_id: 'u.t',
        issuer,
        sid: 's1',
        subject: 'sub',
        issued_at: 1_000,
        payload: 'one',
        encoding: 'test',
        ttl: '1 hour',
        ...changes
      }
      const names = Object.keys(args)
      return one(
        `select * from msal_logout.login(${names.map((name, i) => `${name} => $${i + 1}`).join(', ')})`,
        names.map((name) => (name === 'payload' ? Buffer.from(String(args[name])) : args[name]))
      )
    },
    load: () =>
      one(
        `select generation, version, convert_from(payload, 'UTF8') as payload, encoding from msal_logout.load('a', 'u.t')`
      ),
    save: (generation: unknown, version: unknown, payload = 'two', ttl = '1 hour') =>
      one(`select * from msal_logout.save('a', 'u.t', $1, $2, $3, 'test', $4::interval)`, [
        generation,
        version,
        Buffer.from(payload),
        ttl
      ]),
    signOut: (selector: Selector) => signOutBySql(database, selector, { revokeBefore: 2_000 })
  }
}

t.test('login stores the row and its session, and tells generation and version', async (t) => {
  const { login, load, query } = await setUp(t)
  const stored = await login()
  t.match(stored, { accepted: true, generation: /^\d+$/, version: '1' })
  t.same(await load(), { generation: stored.generation, version: '1', payload: 'one', encoding: 'test' })
  t.match(await query('select issuer, sid, subject, client_id, home_account_id, issued_at from msal_logout.sessions'), [
    { issuer, sid: 's1', subject: 'sub', client_id: 'a', home_account_id: 'u.t', issued_at: '1000' }
  ])
})

t.test('load_text is load in one text, whatever the payload is', async (t) => {
  const { login, query } = await setUp(t)
  const loaded = async () => (await query<{ row: string }>(`select msal_logout.load_text('a', 'u.t') as row`))[0]?.row
  t.equal(await loaded(), null, 'no row')
  const { generation } = await login({ payload: '{"name": "a \u{1f511}"}', encoding: 'json' })
  t.equal(await loaded(), `${generation} 1 json {"name": "a \u{1f511}"}`)
  const base64 = (text: string) => Buffer.from(text).toString('base64')
  await login({ payload: 'one', encoding: 'a test' })
  t.equal(await loaded(), `${generation} 2 =${base64('a test')} ${base64('one')}`)
  await query(`update msal_logout.token_cache set encoding = 'json', payload = '\\x7bff'`)
  t.equal(
    await loaded(),
    `${generation} 2 =${base64('json')} ${Buffer.from([0x7b, 0xff]).toString('base64')}`,
    'damaged'
  )
})

t.test(
  'a second login of the account keeps the generation; its first session goes on, and may save again',
  async (t) => {
    const { login, load, save, query } = await setUp(t)
    const first = await login()
    const second = await login({ sid: 's2', payload: 'of the second' })
    t.match(second, { accepted: true, generation: first.generation, version: '2' })
    t.match(await save(first.generation, first.version), { outcome: 'conflict', version: null })
    t.match(await load(), { payload: 'of the second' })
    t.match(await save(first.generation, '2'), { outcome: 'saved', version: '3' })
    t.equal((await query('select * from msal_logout.sessions')).length, 2)
  }
)

t.test('a row that was purged is gone for every save, and a new login has a new generation', async (t) => {
  const { login, load, save, signOut } = await setUp(t)
  const first = await login()
  await signOut({ kind: 'session', issuer, sid: 's1' })
  t.same(await load(), {})
  t.match(await save(first.generation, '1'), { outcome: 'gone', version: null })
  const second = await login({ issued_at: 3_000 })
  t.not(second.generation, first.generation)
  t.match(await save(first.generation, '1', 'of the old session'), { outcome: 'gone' })
  t.match(await load(), { payload: 'one' })
})

t.test('save never makes a row', async (t) => {
  const { save, query } = await setUp(t)
  t.match(await save(1, 1), { outcome: 'gone' })
  t.same(await query('select * from msal_logout.token_cache'), [])
})

t.test('what has expired is as good as gone, and a save makes row and sessions live longer', async (t) => {
  const { login, load, save, query, one } = await setUp(t)
  const { generation } = await login()
  await query(`update msal_logout.token_cache set expires_at = now() + interval '1 second'`)
  await query(`update msal_logout.sessions set expires_at = now() + interval '1 second'`)
  t.match(await save(generation, '1', 'two', '2 hours'), { outcome: 'saved' })
  const [row] = await query<{ all: boolean }>(
    `select bool_and(expires_at > now() + interval '1 hour') as all
    from (select expires_at from msal_logout.token_cache union all select expires_at from msal_logout.sessions) e`
  )
  t.equal(row?.all, true)

  await query('update msal_logout.token_cache set expires_at = now()')
  await query('update msal_logout.sessions set expires_at = now()')
  t.same(await load(), {})
  t.match(await save(generation, '2'), { outcome: 'gone' })
  t.match(await one(`select msal_logout.session_active('a', $1, 's1') as active`, [issuer]), { active: false })
  const again = await login({ home_account_id: 'other.t' })
  t.match(again, { accepted: true }, 'and its place is free for another account')
  t.not(again.generation, generation)
})

t.test('a session outlives its row, so that a sign-out finds the row as long as it is there', async (t) => {
  const { login, save, query, signOut } = await setUp(t)
  const pass = async (minutes: number) => {
    for (const table of ['token_cache', 'sessions']) {
      await query(`update msal_logout.${table} set expires_at = expires_at - $1 * interval '1 minute'`, [minutes])
    }
    await query(`select msal_logout.clean_up(1000)`)
  }
  const { generation } = await login()
  await pass(5)
  t.match(await save(generation, '1'), { outcome: 'saved' })
  await pass(57)
  t.match(await save(generation, '2'), { outcome: 'saved' })
  await pass(50)
  t.match(await login({ sid: 's2' }), { generation }, 'a later session prolongs the row')
  await pass(30)
  await signOut({ kind: 'session', issuer, sid: 's1' })
  t.same(await query('select * from msal_logout.token_cache'), [])
})

t.test('a row belongs to one account, and to one kind', async (t) => {
  const { login, one } = await setUp(t)
  await login()
  await t.rejects(login({ home_account_id: 'v.t' }), { code: 'ML001' })
  await t.rejects(login({ kind: 'obo' }), { code: 'ML001' })
  await t.rejects(login({ home_account_id: 'u.t', subject: 'u.t' }), { code: 'ML001' }, 'a bare subject that equals it')
  await t.rejects(one(`select msal_logout.store_app('a', 'u.t', 'x', 'test', '1 hour')`), { code: 'ML001' })
  await one(`select msal_logout.store_app('a', 'app', 'x', 'test', '1 hour')`)
  await one(`select msal_logout.store_app('a', 'app', 'y', 'test', '1 hour')`)
  t.match(await one(`select version, convert_from(payload, 'UTF8') as payload from msal_logout.load('a', 'app')`), {
    version: '2',
    payload: 'y'
  })
  await t.rejects(login({ partition_key: 'app' }), { code: 'ML001' })
  t.match(await one(`select * from msal_logout.save('a', 'app', 1, 2, 'z', 'test', '1 hour')`), { outcome: 'gone' })
})

t.test('an equal partition of another client id is another row', async (t) => {
  const { login, query } = await setUp(t)
  await login()
  t.match(await login({ client_id: 'b', home_account_id: 'v.t' }), { accepted: true })
  t.equal((await query('select * from msal_logout.token_cache')).length, 2)
})

t.test('add_session registers a further ID token, unless it was ended or the row is another account’s', async (t) => {
  const { login, one, signOut } = await setUp(t)
  const add = (changes: Row = {}) => {
    const { sid, subject, issuedAt } = { sid: 's2', subject: 'guest', issuedAt: 1_000, ...changes }
    return one(`select msal_logout.add_session('a', 'u.t', $1, $2, $3, $4) as added`, [
      'https://other.example',
      sid,
      subject,
      issuedAt
    ])
  }
  t.match(await add(), { added: false }, 'there is no row')
  await login()
  t.match(await add(), { added: true })
  t.match(await one(`select msal_logout.session_active('a', 'https://other.example', 's2') as active`), {
    active: true
  })
  await t.rejects(add({ subject: 'u.t' }), { code: 'ML001' })
  await signOut({ kind: 'session', issuer: 'https://other.example', sid: 's3' })
  t.match(await add({ sid: 's3', issuedAt: 2_000 }), { added: false })
  t.match(await add({ sid: 's3', issuedAt: 2_001 }), { added: true })
})

t.test('forget takes the row and its sessions, of that generation alone', async (t) => {
  const { login, one, query } = await setUp(t)
  const { generation } = await login()
  t.match(await one(`select msal_logout.forget('a', 'u.t', $1) as forgotten`, [Number(generation) + 1]), {
    forgotten: false
  })
  t.match(await one(`select msal_logout.forget('a', 'u.t', $1) as forgotten`, [generation]), { forgotten: true })
  t.same(await query('select * from msal_logout.sessions'), [])
  t.same(await query(`select * from msal_logout.ended_since('a', 0)`), [], 'it was no purge')
  t.match(await login(), { accepted: true }, 'nor does it refuse a login')
})

t.test('ended_since tells each app its own, in order, and null tells where to begin', async (t) => {
  const { login, query, signOut } = await setUp(t)
  for (const sid of ['s1', 's2', 's3']) {
    await login({ sid, partition_key: `${sid}.t`, home_account_id: `${sid}.t` })
    await login({ sid, partition_key: `${sid}.t`, home_account_id: `${sid}.t`, client_id: 'b' })
    await signOut({ kind: 'session', issuer, sid })
  }
  const all = await query<Row>(`select * from msal_logout.ended_since('a', 0)`)
  t.match(all, [
    { position: '1', issuer, sid: 's1', subject: 'sub', home_account_id: 's1.t', at: Date },
    { position: '2', sid: 's2' },
    { position: '3', sid: 's3' }
  ])
  t.match(await query(`select * from msal_logout.ended_since('a', 2)`), [{ position: '3' }])
  t.same(await query(`select * from msal_logout.ended_since('a', 3)`), [])
  t.match(await query(`select * from msal_logout.ended_since('a', null)`), [{ position: '3' }])
  t.same(await query(`select * from msal_logout.ended_since('unknown', null)`), [])
})

t.test('a mistake in a call is told, and nothing is written', async (t) => {
  const { login, query } = await setUp(t)
  for (const changes of [
    { home_account_id: null },
    { home_account_id: '' },
    { issuer: null },
    { issuer: '' },
    { subject: null },
    { subject: '' },
    { issued_at: null },
    { issued_at: 0 },
    { issued_at: -1 },
    { ttl: '0 seconds' },
    { ttl: null },
    { kind: 'app' },
    { client_id: null },
    { client_id: '' },
    { partition_key: '' },
    { partition_key: null },
    { encoding: null }
  ]) {
    await t.rejects(login(changes), JSON.stringify(changes))
  }
  t.same(await query('select * from msal_logout.token_cache'), [])
  t.same(await query('select * from msal_logout.sessions'), [])
})

t.test('an empty sid is none', async (t) => {
  const { login, query } = await setUp(t)
  await login({ sid: '' })
  t.match(await query('select sid, session_key from msal_logout.sessions'), [{ sid: null, session_key: 'sub=sub' }])
})

t.test('ids that are too long together are a mistake in the call, and no fault of an index', async (t) => {
  const { login, query } = await setUp(t)
  const long = (bytes: number) => randomBytes(bytes / 2).toString('hex') // which no index can compress
  const account = `${long(500)}.${long(520)}`
  t.match(await login({ home_account_id: account, partition_key: 'p' }), { accepted: true })
  await query('delete from msal_logout.token_cache')
  const subject = long(1_024)
  for (const changes of [
    { client_id: long(1_024), issuer: `https://${long(1_000)}`, home_account_id: subject, subject },
    { issuer: `https://${long(1_000)}`, home_account_id: `x.${long(1_020)}` },
    { client_id: long(1_024), home_account_id: long(1_024), issuer: `https://${long(900)}` },
    { sid: long(1_024), client_id: long(1_024), partition_key: long(1_024) }
  ]) {
    await t.rejects(login({ partition_key: 'p', ...changes }), { code: '22023', message: /bytes or fewer together/ })
  }
  t.same(await query('select * from msal_logout.token_cache'), [])
})

t.test('a row has 1,000 sessions at most: the oldest ones end, their app reads it, and the newest live', async (t) => {
  const { login, query, one } = await setUp(t)
  await login()
  await query(
    `insert into msal_logout.sessions (issuer, session_key, client_id, partition_key, sid, subject, account_issuer, home_account_id, issued_at,
      created_at, expires_at)
    select s.issuer, 'sid=old' || n, s.client_id, s.partition_key, 'old' || n, s.subject, s.account_issuer, s.home_account_id, 1,
      now() - interval '1 minute' * n, s.expires_at
    from msal_logout.sessions s, generate_series(1, 1005) n`
  )
  await login({ sid: 'new' })
  t.match(await one('select count(*)::int as n from msal_logout.sessions'), { n: 1_000 })
  t.same(await query(`select sid from msal_logout.ended_since('a', 0)`), [], 'no login holds the positions of its app')
  await login({ sid: 'old999' }) // signs in again before it is published; one more goes
  await query('select msal_logout.clean_up(100)')
  t.match(await query(`select sid from msal_logout.ended_since('a', 0) order by sid`), [
    ...[1_000, 1_001, 1_002, 1_003, 1_004, 1_005, 998].map((n) => ({ sid: `old${n}` }))
  ])
  for (const sid of ['new', 's1']) {
    t.match(await one(`select msal_logout.session_active('a', $1, $2) as is_active`, [issuer, sid]), {
      is_active: true
    })
  }
})

t.test('what logins have ended is published a part at a time, so that no sign-out waits for all', async (t) => {
  const { query, one } = await setUp(t)
  await query(
    `insert into msal_logout.unpublished_sessions (client_id, sessions)
    select 'a', array(select ($1, r || '-' || s, 'u', 'u.t')::msal_logout.revoked_session from generate_series(1, 60) s)
    from generate_series(1, 5) r`,
    [issuer]
  )
  const published: unknown[] = []
  for (let calls = 0; calls < 4; calls += 1) {
    await query('select msal_logout.clean_up(100)')
    published.push(await one(`select count(distinct sid)::int as n from msal_logout.ended_since('a', 0)`))
  }
  t.same(published, [{ n: 120 }, { n: 240 }, { n: 300 }, { n: 300 }])
})

t.test('what would be believed too easily is refused, with the argument and what is wanted', async (t) => {
  const { login, query } = await setUp(t)
  const now = Math.floor(Date.now() / 1_000)
  const cases: [string, Partial<Record<string, unknown>>, RegExp][] = [
    ['milliseconds', { issued_at: now * 1_000 }, /"issued_at" must be in seconds/],
    ['microseconds', { issued_at: `${now}000000` }, /"issued_at" must be in seconds/],
    ['nanoseconds', { issued_at: `${now}000000000` }, /"issued_at" must be in seconds/],
    ['2^53', { issued_at: String(2 ** 53) }, /"issued_at" must be in seconds/],
    ['the largest number', { issued_at: '9223372036854775807' }, /"issued_at" must be in seconds/],
    ['more than that', { issued_at: '9223372036854775808' }, /out of range for type bigint/],
    ['zero', { issued_at: 0 }, /"issued_at" must be the "iat"/],
    ['a negative number', { issued_at: -now }, /"issued_at" must be the "iat"/],
    ['the smallest number', { issued_at: '-9223372036854775808' }, /"issued_at" must be the "iat"/],
    ['nothing', { issued_at: null }, /"issued_at" must be the "iat"/],
    ['a fraction', { issued_at: now + 0.5 }, /invalid input syntax for type bigint/],
    ['a date', { issued_at: '2026-11-26T09:00:00Z' }, /invalid input syntax for type bigint/],
    ['no number', { issued_at: 'NaN' }, /invalid input syntax for type bigint/],
    ['an hour ahead', { issued_at: now + 3_600 }, /"issued_at" must be in seconds, and 10 minutes ahead/],
    ['a year ahead', { issued_at: now + 31_536_000 }, /"issued_at" must be in seconds/],
    ['no JSON', { encoding: 'json', payload: '{"a":' }, /"payload" must be a JSON object in UTF-8/],
    ['an array', { encoding: 'json', payload: '[]' }, /"payload" must be a JSON object/],
    ['what a text literal makes of a backslash', { encoding: 'json', payload: '{"a":"b"c"}' }, /"payload"/],
    // No logout token and no operator's request that names it is taken: nothing could end it.
    ...['sid', 'subject', 'home_account_id', 'partition_key', 'issuer'].flatMap((name) =>
      ['a\tb', '\x01', 'a\x7f', 'a\x9fb'].map((id): [string, Record<string, unknown>, RegExp] => [
        `a control character in ${name}`,
        { [name]: id },
        new RegExp(`"${name}" must have no control character`)
      ])
    )
  ]
  for (const [name, changes, message] of cases) {
    await t.rejects(login(changes), { message }, name)
  }
  t.same(await query('select from msal_logout.token_cache'), [])
  t.match(await login({ issued_at: now + 60, encoding: 'json', payload: '{}' }), { accepted: true }, 'clocks differ')
  t.match(await login({ sid: '\u00a0\u00adé\u202e\u{1f600}' }), { accepted: true }, 'all else is an id')
})

t.test('a bare subject with a dot in it belongs to no tenant, and locks none', async (t) => {
  const { login, one, query } = await setUp(t)
  await login({ partition_key: 'me@example.com', home_account_id: 'me@example.com', subject: 'me@example.com' })
  t.match(await one('select tenant_id from msal_logout.token_cache'), { tenant_id: null })
  t.same(await query(`select from msal_logout.tombstones where key like 'tenant=%'`), [])
})

import pg from 'pg'
import t, { type Test } from 'tap'
import { batchOf } from '../src/store.ts'
import { createDatabase, createRole } from './fixtures/database.ts'
import { makeOrder } from './fixtures/orders.ts'

const issuer = 'https://issuer.example'

async function setUp(t: Test) {
  const database = await createDatabase(t)
  const appA = await createRole(database, 'app_a')
  const appB = await createRole(database, 'app_b')
  const service = await createRole(database, 'service')
  const stranger = await createRole(database, 'stranger')
  await database.query(
    `select msal_logout.register_app('a', $1), msal_logout.register_app('b', $2), msal_logout.register_service($3)`,
    [appA, appB, service]
  )
  const as = (role: string) => {
    const url = new URL(database.url)
    url.username = role
    url.password = 'test'
    const pool = new pg.Pool({ connectionString: url.href, max: 1 })
    pool.on('error', () => {}) // cut by the drop of the database, before it has closed
    t.teardown(() => pool.end())
    return (text: string, values: unknown[] = []) => pool.query(text, values)
  }
  return {
    database,
    appA,
    appB,
    service,
    asA: as(appA),
    asB: as(appB),
    asService: as(service),
    asStranger: as(stranger)
  }
}

const login = (clientId: string, sid = 's1') =>
  `select * from msal_logout.login('${clientId}', 'u.t', 'u.t', '${issuer}', '${sid}', 'subject', 1000, 'secret', 'test', '1 hour')`
/** Every function that an app may call, for a client id. */
const calls = (clientId: string) => [
  login(clientId),
  `select * from msal_logout.load('${clientId}', 'u.t')`,
  `select msal_logout.load_text('${clientId}', 'u.t')`,
  `select * from msal_logout.save('${clientId}', 'u.t', 1, 1, '{}', 'test', '1 hour')`,
  `select msal_logout.add_session('${clientId}', 'u.t', '${issuer}', 's2', 'subject', 1000)`,
  `select msal_logout.forget('${clientId}', 'u.t', 1)`,
  `select msal_logout.session_active('${clientId}', '${issuer}', 's1')`,
  `select * from msal_logout.ended_since('${clientId}', 0)`,
  `select msal_logout.store_app('${clientId}', 'app', '{}', 'test', '1 hour')`
]
const tables = [
  'token_cache',
  'sessions',
  'tombstones',
  'records',
  'accounts_in_steps',
  'revoked_sessions',
  'apps',
  'clean_up_state',
  'migrations'
]
const denied = { code: '42501' }

t.test('an app reaches its own client id by every function', async (t) => {
  const { asA, asB } = await setUp(t)
  for (const [as, clientId] of [
    [asA, 'a'],
    [asB, 'b']
  ] as const) {
    for (const call of calls(clientId)) {
      await t.resolves(as(call), call)
    }
  }
})

t.test('an app reaches no other client id, registered or not', async (t) => {
  const { asA, database } = await setUp(t)
  await database.query(login('unregistered'))
  const before = await database.snapshot()
  for (const clientId of ['b', 'unregistered', 'unheard of', '', 'A', 'a ']) {
    for (const call of calls(clientId)) {
      await t.rejects(asA(call), denied, call)
    }
  }
  await t.rejects(asA('select * from msal_logout.load(null, $1)', ['u.t']), { code: '22023' })
  t.same(await database.snapshot(), before)
})

t.test('an app reaches no table, sequence or type of rows directly', async (t) => {
  const { asA, asB, database } = await setUp(t)
  await asB(login('b'))
  for (const table of tables) {
    for (const statement of [
      `select * from msal_logout.${table}`,
      `select count(*) from msal_logout.${table}`,
      `delete from msal_logout.${table}`,
      `insert into msal_logout.${table} default values`,
      `truncate msal_logout.${table}`,
      `copy msal_logout.${table} to stdout`,
      `drop table msal_logout.${table}`,
      `alter table msal_logout.${table} owner to current_user`
    ]) {
      await t.rejects(asA(statement), denied, statement)
    }
  }
  await t.rejects(asA('update msal_logout.token_cache set expires_at = now()'), denied)
  t.equal((await database.query('select * from msal_logout.token_cache')).length, 1)
})

t.test("an app calls no function of the service's, and none of the helpers", async (t) => {
  const { asA, appA } = await setUp(t)
  for (const call of [
    `select * from msal_logout.sign_out('{}')`,
    `select * from msal_logout.sign_out_step(null, 1)`,
    `select msal_logout.find_large('{}', 1)`,
    `select * from msal_logout.preview_order(null)`,
    `select * from msal_logout.start_sweep(gen_random_uuid(), 'operator', 'a', null, 'r', 'a', false, 1, null)`,
    'select msal_logout.sweep_step(gen_random_uuid(), 1)',
    'select msal_logout.clean_up(1)',
    `select msal_logout.register_app('b', '${appA}')`,
    `select msal_logout.register_app('new', '${appA}')`,
    `select msal_logout.register_service('${appA}')`,
    `select msal_logout.authorize('b')`,
    'select msal_logout.caller()',
    `select msal_logout.lock_keys('{x}', '{y}')`,
    `select msal_logout.share_keys('{x}')`,
    `select msal_logout.admit('a', '', 'u.t', 'i', 's', 'u', 1, null, null)`,
    `select msal_logout.store_session('b', 'u.t', '', 'u.t', 'i', 's', 'u', 1, null, null, 1, now())`,
    `select msal_logout.publish_revocations('{}')`,
    `select msal_logout.claim_orders('{}')`,
    `select msal_logout.grant_app('${appA}')`
  ]) {
    await t.rejects(asA(call), denied, call)
  }
})

t.test('no role of ours creates objects', async (t) => {
  const { asA, asService } = await setUp(t)
  for (const as of [asA, asService]) {
    await t.rejects(as('create table msal_logout.mine ()'), denied)
    await t.rejects(as('create function msal_logout.mine() returns int language sql as $$select 1$$'), denied)
    await t.rejects(
      as('create or replace function msal_logout.caller() returns name language sql as $$select current_user$$'),
      denied
    )
    await t.rejects(as('create schema mine'), denied)
  }
})

t.test('a search path of the caller decides nothing', async (t) => {
  const { asA, database } = await setUp(t)
  await asA(login('a'))
  await asA(`
    create temporary table token_cache (like pg_class);
    create temporary table apps as select 'b'::text as client_id, current_user as db_role;
    create function pg_temp.pg_has_role(name, name, text) returns boolean language sql as 'select true';
    create function pg_temp.now() returns timestamptz language sql as $$select 'epoch'::timestamptz$$;
    set search_path = pg_temp, msal_logout, pg_catalog`)
  await t.rejects(asA(`select * from msal_logout.load('b', 'u.t')`), denied)
  const { rows } = await asA(`select * from msal_logout.load('a', 'u.t')`)
  t.equal(rows[0]?.payload.toString(), 'secret', 'its own row is read as ever')
  t.equal((await database.query('select * from msal_logout.token_cache')).length, 1)
})

t.test('changing the role does not change whose rows they are', async (t) => {
  const { asA, appA, appB, database } = await setUp(t)
  await t.rejects(asA(`set role ${appB}`), denied, 'an app cannot become another')
  await t.rejects(asA(`set session authorization ${appB}`), denied)
  const [row] = await database.query<{ is_superuser: string }>('show is_superuser')
  t.equal(row?.is_superuser, 'on')
  const client = await database.pool.connect()
  await client.query(`set role ${appA}`)
  await t.resolves(client.query(login('a')), 'an administrator in the role of an app is that app')
  await t.rejects(client.query(login('b')), denied, 'and no other')
  await client.query('reset role')
  client.release()
})

t.test('a role that may do nothing can do nothing', async (t) => {
  const { asStranger } = await setUp(t)
  for (const call of [
    ...calls('a'),
    ...calls('unregistered'),
    ...tables.map((table) => `select * from msal_logout.${table}`)
  ]) {
    await t.rejects(asStranger(call), denied, call)
  }
})

t.test('the service deletes rows, and cannot read or write a payload', async (t) => {
  const { asService, asA, database } = await setUp(t)
  await asA(login('a'))
  for (const statement of [
    'select payload from msal_logout.token_cache',
    'select * from msal_logout.token_cache',
    'select token_cache from msal_logout.token_cache',
    'select to_jsonb(t) from msal_logout.token_cache t',
    `select count(*) from msal_logout.token_cache where payload = 'secret'`,
    `select client_id from msal_logout.token_cache order by payload`,
    `select octet_length(payload) from msal_logout.token_cache`,
    'copy msal_logout.token_cache to stdout',
    'copy msal_logout.token_cache (payload) to stdout',
    `update msal_logout.token_cache set payload = 'x'`,
    'update msal_logout.token_cache set expires_at = now()',
    'delete from msal_logout.token_cache returning payload',
    'delete from msal_logout.records',
    `update msal_logout.records set reason = 'another'`,
    ...calls('a')
  ]) {
    await t.rejects(asService(statement), denied, statement)
  }
  await t.resolves(
    asService('select client_id, partition_key, home_account_id, expires_at from msal_logout.token_cache')
  )
  const order = makeOrder({ kind: 'session', issuer, sid: 's1' }, { revokeBefore: 2_000 })
  const { rows } = await asService('select * from msal_logout.sign_out($1)', [batchOf([order])])
  t.match(rows, [{ client_rows: [1] }])
  t.same(await database.query('select * from msal_logout.token_cache'), [])
})

t.test('a client id moves to another role, and the first one is out', async (t) => {
  const { database, asA, appB, asB } = await setUp(t)
  await asA(login('a'))
  await database.query(`select msal_logout.register_app('a', $1)`, [appB])
  await t.rejects(asA(login('a')), denied)
  await t.resolves(asB(login('a')))
})

t.test('a role with a name that needs quotes is registered as it is', async (t) => {
  const database = await createDatabase(t)
  const name = `od"d role; drop ${Date.now()}`
  await database.query(`create role "${name.replaceAll('"', '""')}"`)
  database.roles.push(`"${name.replaceAll('"', '""')}"`)
  await t.resolves(database.query(`select msal_logout.register_app('odd', $1)`, [name]))
  await t.rejects(
    database.query('select msal_logout.register_service($1)', [name]),
    { message: /is an app's: give the service a role of its own/ },
    'and one role is never both'
  )
})

import { cpSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import pg from 'pg'
import t, { type Test } from 'tap'
import { migrate } from '../src/migrate.ts'
import { createSignOut } from '../src/sign-out.ts'
import { createStore } from '../src/store.ts'
import { createDatabase, createRole, type Database } from './fixtures/database.ts'
import { makeOrder } from './fixtures/orders.ts'
import { temporaryFolder } from './fixtures/server.ts'
import { storeLogin } from './fixtures/service.ts'
import { until } from './fixtures/until.ts'

t.test('migrating twice does nothing the second time', async (t) => {
  const database = await createDatabase(t, { migrated: false })
  t.ok((await migrate(database.pool)).length > 0)
  t.same(await migrate(database.pool), [])
})

t.test('several instances may migrate at once', async (t) => {
  const database = await createDatabase(t, { migrated: false })
  const done = await Promise.all(Array.from({ length: 6 }, () => migrate(database.pool)))
  t.equal(done.filter((names) => names.length > 0).length, 1, 'one of them does it')
})

t.test('who may connect to the database, and no more, keeps no release from starting', async (t) => {
  const database = await createDatabase(t, { own: true })
  const url = new URL(database.url)
  Object.assign(url, { username: await createRole(database, 'neighbour'), password: 'test' })
  const neighbour = new pg.Client({ connectionString: url.href })
  await neighbour.connect()
  t.teardown(() => neighbour.end())
  await neighbour.query('select pg_advisory_lock(6725418)') // of the first migration
  await database.query(`update msal_logout.functions set digest = 'of another release'`)
  const done = await Promise.all([migrate(database.pool), migrate(database.pool)])
  t.same(done.flat(), ['functions'], 'and two that start at once do it once')
})

t.test('a current schema needs no right but those of the service', async (t) => {
  const database = await createDatabase(t)
  const role = await createRole(database, 'service')
  await database.query('select msal_logout.register_service($1)', [role])
  const url = new URL(database.url)
  url.username = role
  url.password = 'test'
  const pool = new pg.Pool({ connectionString: url.href })
  t.teardown(() => pool.end())
  t.same(await migrate(pool), [])
})

t.test('a migration that fails is told, and nothing of it stays', async (t) => {
  const database = await createDatabase(t, { migrated: false })
  await database.query('create schema msal_logout')
  await database.query('create table msal_logout.records (in_the_way int)')
  await t.rejects(migrate(database.pool), { code: '42P07' })
  t.same(await database.query(`select to_regclass('msal_logout.token_cache') as there`), [{ there: null }])
})

t.test('a migration whose connection is lost fails by that, and the next one begins anew', async (t) => {
  const database = await createDatabase(t, { migrated: false })
  const tables = folderWith(t, 'select pg_terminate_backend(pg_backend_pid())')
  await t.rejects(migrate(database.pool, { tables }), { code: '57P01' })
  t.ok((await migrate(database.pool)).length > 0)
})

/** The product's migrations, and one more. */
function folderWith(t: Test, migration: string): URL {
  const folder = temporaryFolder(t)
  cpSync('migrations', folder, { recursive: true })
  writeFileSync(join(folder, '900-further.sql'), migration)
  return pathToFileURL(`${folder}/`)
}

/** What the release before does, from a login to its end, through the functions that it knows. */
function createTraffic(database: Database) {
  const { signOut } = createSignOut(createStore({ pool: database.pool }).commitOrders)
  const issuer = 'https://issuer.example'
  let sessions = 0
  return async () => {
    sessions += 1
    const [sid, account] = [`s${sessions}`, `u${sessions}.t`]
    const { accepted, generation, version } = await storeLogin(database, { issuer, sid, homeAccountId: account })
    const [loaded] = await database.query('select * from msal_logout.load($1, $2)', ['client-a', account])
    const [saved] = await database.query('select * from msal_logout.save($1, $2, $3, $4, $5, $6, $7)', [
      'client-a',
      account,
      generation,
      version,
      Buffer.from('{"is":"refreshed"}'),
      'json',
      '1 hour'
    ])
    const [result] = await signOut([makeOrder({ kind: 'session', issuer, sid })])
    return { accepted, loaded: loaded?.generation === generation, saved: saved?.outcome, rows: result?.rows }
  }
}

const done = { accepted: true, loaded: true, saved: 'saved', rows: 1 }

t.test('the release before keeps working while a migration runs, and afterwards', async (t) => {
  const database = await createDatabase(t, { own: true })
  const carryOn = createTraffic(database)
  t.same(await carryOn(), done)
  // Slow work first, and what locks a table last: see docs/operating.md.
  await database.query('create table public.signals (name text)')
  const tables = folderWith(
    t,
    `create table msal_logout.later (partition_key text primary key);
     insert into msal_logout.later select partition_key from msal_logout.token_cache;
     do $$ begin
       while not exists (select from public.signals where name = 'go') loop perform pg_sleep(0.01); end loop;
     end $$;
     alter table msal_logout.token_cache add column later text;
     alter table msal_logout.sessions add column later text;
     create index on msal_logout.records (reason);`
  )
  let isRunning = true
  const migrating = Promise.all(
    Array.from({ length: 3 }, async () => {
      const pool = new pg.Pool({ connectionString: database.url, max: 1 })
      return migrate(pool, { tables }).finally(() => pool.end())
    })
  ).finally(() => {
    isRunning = false
  })
  const atWork = async () => {
    const [found] = await database.query<{ n: string }>(
      `select count(*) as n from pg_stat_activity where datname = current_database() and query like '%public.signals%'
       and state = 'active' and pid <> pg_backend_pid()`
    )
    return Number(found?.n) === 1
  }
  const carryOnUntil = (description: string, condition: () => boolean | Promise<boolean>) =>
    until(
      description,
      async () => {
        t.same(await carryOn(), done, `until ${description}`)
        return condition()
      },
      { everyMs: 0 }
    )
  await carryOnUntil('it is at its slow work', atWork)
  for (let i = 0; i < 30; i += 1) {
    t.same(await carryOn(), done, 'during its slow work')
  }
  await database.query(`insert into public.signals values ('go')`)
  await carryOnUntil('it has changed the tables', () => !isRunning)
  const names = await migrating
  t.same(names.flat(), ['900-further'], 'one of several instances did it, once')
  for (let i = 0; i < 5; i += 1) {
    t.same(await carryOn(), done, 'afterwards')
  }
  t.same(await migrate(database.pool, { tables }), [])
})

t.test('a migration that cannot have a table gives it up before anybody else does', async (t) => {
  const database = await createDatabase(t, { own: true })
  const carryOn = createTraffic(database)
  const reader = await database.pool.connect() // a back-up, for example
  try {
    await reader.query('begin')
    await reader.query('select from msal_logout.token_cache')
    const tables = folderWith(t, 'alter table msal_logout.token_cache add column later text;')
    const refused = t.rejects(migrate(database.pool, { tables }), { code: '55P03' })
    await until('the migration waits for the table', async () => {
      const waiters = await database.query('select from pg_locks where not granted and relation = $1::regclass', [
        'msal_logout.token_cache'
      ])
      return waiters.length > 0
    })
    t.same(await carryOn(), done, 'who came after it waits no longer than it')
    await refused
  } finally {
    await reader.query('rollback')
    reader.release()
  }
  t.same(await migrate(database.pool), [])
})

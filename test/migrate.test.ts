import pg from 'pg'
import t from 'tap'
import { migrate } from '../src/migrate.ts'
import { createDatabase, createRole } from './fixtures/database.ts'

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
  await database.query('create table msal_logout.purges (in_the_way int)')
  await t.rejects(migrate(database.pool), { code: '42P07' })
  t.same(await database.query(`select to_regclass('msal_logout.token_cache') as there`), [{ there: null }])
})

// `npm run test:pgbouncer`: the service behind PgBouncer, in both modes. Needs the program `pgbouncer` (Debian: apt-get
// install pgbouncer).
import { cpSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import pg from 'pg'
import t, { type Test } from 'tap'
import { check } from '../../src/commands/check.ts'
import { isPooled, openPool, type PoolOptions, runStatement, runTransaction } from '../../src/connections.ts'
import { migrateAt } from '../../src/migrate.ts'
import { createDatabase, createRole, type Database, serverUrl } from '../fixtures/database.ts'
import { clientId, startIdentityProvider } from '../fixtures/identity-provider.ts'
import { startPgBouncer } from '../fixtures/pgbouncer.ts'
import { adminToken } from '../fixtures/secrets.ts'
import { startServer, temporaryFolder } from '../fixtures/server.ts'
import { storeLogin } from '../fixtures/service.ts'

const modes = ['session', 'transaction'] as const
type Mode = (typeof modes)[number] | 'statement'

interface Account {
  readonly role: string
  readonly password: string
}

/** PgBouncer before the test's server, for these roles. */
async function startPooler(t: Test, mode: Mode, accounts: readonly Account[], settings = ''): Promise<number> {
  const server = new URL(serverUrl())
  return startPgBouncer(t, {
    databases: `* = host=${server.hostname} port=${server.port}`,
    users: accounts,
    settings: `auth_type = scram-sha-256
pool_mode = ${mode}
default_pool_size = ${mode === 'session' ? 20 : 3}
max_client_conn = 200
${settings}`
  })
}

const limits: Omit<PoolOptions, 'url'> = {
  max: 8,
  connectTimeoutMs: 2_000,
  statementTimeoutMs: 1_500,
  lockTimeoutMs: 300,
  idleTransactionTimeoutMs: 5_000
}

function open(t: Test, url: string, options: Partial<PoolOptions> = {}): pg.Pool {
  const pool = openPool({ url, ...limits, ...options })
  pool.on('error', () => {})
  t.teardown(() => pool.end())
  return pool
}

function urlThrough(port: number, database: Database, { role, password }: Account): string {
  const url = new URL(database.url)
  url.host = `127.0.0.1:${port}`
  url.username = role
  url.password = password
  return url.href
}

const owner = (): Account => {
  const { username, password } = new URL(serverUrl())
  return { role: username, password }
}

async function createAccount(database: Database): Promise<Account> {
  return { role: await createRole(database, 'service'), password: 'test' }
}

for (const mode of modes) {
  t.test(`in ${mode} mode`, async (t) => {
    await t.test('the schema is migrated, and the service does all its work', async (t) => {
      const database = await createDatabase(t, { migrated: false })
      const account = await createAccount(database)
      const port = await startPooler(t, mode, [account, owner()])
      const provider = await startIdentityProvider(t)
      const env = { ISSUER: provider.issuer, CLIENT_IDS: clientId, ADMIN_TOKEN: adminToken }
      const first = await startServer(t, { ...env, DATABASE_URL: urlThrough(port, database, owner()) })
      first.process.kill('SIGTERM')
      t.equal(await first.exited, 0, first.output.join('\n'))
      await database.query('select msal_logout.register_service($1)', [account.role])

      const server = await startServer(t, { ...env, DATABASE_URL: urlThrough(port, database, account) })
      const operate = async (path: string, body?: object) => {
        const answer = await server.fetch(`${server.adminUrl}${path}`, {
          headers: { authorization: `Bearer ${adminToken}`, 'content-type': 'application/json' },
          ...(body !== undefined && { method: 'POST', body: JSON.stringify(body) })
        })
        t.ok(answer.status < 300, `${path}: ${answer.status}`)
        return answer.json()
      }
      const sids = Array.from({ length: 60 }, (_, i) => `s-${i}`)
      for (const sid of sids) {
        await storeLogin(database, { issuer: provider.issuer, sid, subject: `sub-${sid}`, homeAccountId: `${sid}.t1` })
      }
      const tokens = await Promise.all(sids.slice(0, 50).map((sid) => provider.logoutToken({ sid })))
      const answers = await Promise.all(
        tokens.map((token) =>
          server.fetch(`${server.publicUrl}/backchannel-logout`, {
            method: 'POST',
            body: new URLSearchParams({ logout_token: token })
          })
        )
      )
      t.same([...new Set(answers.map(({ status }) => status))], [200], 'each of 50 sign-outs at once is done')
      t.equal((await database.query('select from msal_logout.token_cache')).length, 10)

      t.equal((await server.fetch(`${server.adminUrl}/readyz`)).status, 200)
      const purge = { homeAccountId: 's-50.t1', reason: 'x' }
      t.match(await operate('/admin/purges', { ...purge, dryRun: true }), { accounts: 1, rows: 1 })
      const { issuer } = provider
      t.match(await operate('/admin/purges', { issuer, sid: 's-51', reason: 'x', dryRun: true }), { rows: 1 })
      t.equal((await database.query('select from msal_logout.token_cache')).length, 10, 'dry runs change nothing')
      t.match(await operate('/admin/purges', purge), { accounts: 1, rows: 1 })
      t.match(await operate('/admin/accounts/s-51.t1'), { rows: [{ clientId }], sessions: [{ sid: 's-51' }] })
      t.match(await operate('/admin/purges', { tenantId: 't1', reason: 'x' }), { accounts: 9, rows: 9 })
      t.same(await database.query('select from msal_logout.token_cache'), [])
      t.match(await operate('/admin/stats?minutes=60'), {})
      t.match(await operate('/admin/records?limit=5'), { records: [{ source: 'operator' }, {}, {}, {}, {}] })
      t.notMatch(server.output.join('\n'), /"level":"(warn|error|fatal)"/, 'without a warning')
    })

    await t.test('a limit of the database ends no migration', async (t) => {
      const database = await createDatabase(t, { migrated: false })
      const name = new URL(database.url).pathname.slice(1)
      await database.query(`alter database ${name} set statement_timeout = '50ms'`)
      const port = await startPooler(t, mode, [owner()])
      const folder = temporaryFolder(t)
      cpSync('migrations', folder, { recursive: true })
      writeFileSync(join(folder, '900-slow.sql'), 'select pg_sleep(0.2)')
      const tables = pathToFileURL(`${folder}/`)
      t.match(await migrateAt(urlThrough(port, database, owner()), { tables }), [
        '001-tables',
        '002-streams',
        '900-slow',
        'functions'
      ])
    })

    await t.test('limits and settings hold in each transaction, and stay with nobody', async (t) => {
      const database = await createDatabase(t, { own: true })
      const name = new URL(database.url).pathname.slice(1)
      await database.query(`alter database ${name} set DateStyle = 'German'`)
      await database.query(`alter database ${name} set default_transaction_isolation = 'serializable'`)
      await database.query(`insert into msal_logout.apps (client_id) values ('held')`)
      const account = owner()
      const url = urlThrough(await startPooler(t, mode, [account]), database, account)
      const pool = open(t, url)
      const client = await pool.connect()
      t.ok(isPooled(client), 'the pooler is seen')
      client.release()

      const ask = (text: string) => runStatement<{ found: unknown }>(pool, { name: 'asked', text, values: [] })
      const settings = `select jsonb_object_agg(s, current_setting(s)) as found
        from unnest('{statement_timeout,lock_timeout,DateStyle,transaction_isolation,search_path}'::text[]) s`
      const wanted = {
        statement_timeout: '1500ms',
        lock_timeout: '300ms',
        DateStyle: 'ISO, MDY',
        transaction_isolation: 'read committed',
        search_path: 'pg_catalog, pg_temp'
      }
      const all = await Promise.all(Array.from({ length: 40 }, () => ask(settings)))
      t.ok(all.every(([row]) => JSON.stringify(row?.found) === JSON.stringify(all[0]?.[0]?.found)))
      t.same(all[0]?.[0]?.found, wanted)
      await t.rejects(ask('select pg_sleep(20)'), { code: '57014' })
      await t.rejects(ask('select 1/0'), { code: '22012' })
      const holder = new pg.Client({ connectionString: database.url })
      await holder.connect()
      t.teardown(() => holder.end())
      await holder.query(`begin; select from msal_logout.apps for update`)
      await t.rejects(ask(`select from msal_logout.apps for update`), { code: '55P03' })
      await holder.query('rollback')
      await runTransaction(pool, (within) => within.query(`insert into msal_logout.apps (client_id) values ('kept')`))
      await t.rejects(
        runTransaction(pool, async (within) => {
          await within.query(`insert into msal_logout.apps (client_id) values ('no')`)
          throw new Error('ours')
        }),
        { message: 'ours' }
      )
      t.equal((await database.query('select from msal_logout.apps')).length, 2)

      const neighbour = new pg.Pool({ connectionString: url, max: 8 })
      neighbour.on('error', () => {})
      t.teardown(() => neighbour.end())
      const found = await Promise.all(Array.from({ length: 20 }, () => neighbour.query(settings)))
      for (const { rows } of found) {
        t.match(rows[0].found, { statement_timeout: '0', lock_timeout: '0', transaction_isolation: 'serializable' })
        t.match(rows[0].found.DateStyle, /^German/)
      }
    })

    await t.test('check looks through it, and tells what is wrong with it', async (t) => {
      const database = await createDatabase(t)
      const account = await createAccount(database)
      await database.query('select msal_logout.register_service($1)', [account.role])
      const provider = await startIdentityProvider(t)
      const port = await startPooler(t, mode, [account])
      const env = {
        DATABASE_URL: urlThrough(port, database, account),
        ISSUER: provider.issuer,
        CLIENT_IDS: clientId,
        SPOOL_DIR: join(temporaryFolder(t), 'spool'),
        ADMIN_TOKEN: adminToken
      }
      const faults = async (url: string) => {
        const findings = await check({ env: { ...env, DATABASE_URL: url } })
        return findings.filter(({ status }) => status !== 'passed').map(({ code }) => code)
      }
      t.same(await faults(env.DATABASE_URL), [])
      t.same(await faults(env.DATABASE_URL.replace(':test@', ':wrong@')), ['database_credentials'])
      t.same(await faults(env.DATABASE_URL.replace(account.role, 'nobody_knows')), ['database_credentials'])
      t.same(await faults(env.DATABASE_URL.replace(/\/test_\w+$/, '/nowhere')), ['database_missing'])
    })
  })
}

t.test('one that swallows settings in the startup packet is no better, and no worse', async (t) => {
  const database = await createDatabase(t)
  const port = await startPooler(t, 'transaction', [owner()], 'ignore_startup_parameters = statement_timeout,options\n')
  const pool = open(t, `${urlThrough(port, database, owner())}?options=-c%20work_mem%3D5MB`, {
    statementTimeoutMs: 200
  })
  await t.rejects(runStatement(pool, { text: 'select pg_sleep(20)', values: [] }), { code: '57014' })
  const [row] = await runStatement(pool, { text: `select current_setting('work_mem') as found`, values: [] })
  t.same(row, { found: '5MB' })
})

t.test('one without transactions is of no use, and check says so', async (t) => {
  const database = await createDatabase(t)
  const account = await createAccount(database)
  await database.query('select msal_logout.register_service($1)', [account.role])
  const port = await startPooler(t, 'statement', [account])
  const provider = await startIdentityProvider(t)
  const findings = await check({
    env: {
      DATABASE_URL: urlThrough(port, database, account),
      ISSUER: provider.issuer,
      CLIENT_IDS: clientId,
      SPOOL_DIR: join(temporaryFolder(t), 'spool'),
      ADMIN_TOKEN: adminToken
    }
  })
  t.match(
    findings.filter(({ status }) => status !== 'passed'),
    [{ code: 'database_pooling', advice: /pool_mode/ }]
  )
})

// A purge that goes on in the background, with processes that die. PURGE_ACCOUNTS says of how many accounts
// (`npm run test:purge`: 100,000); more than 10,000, so that its order does not wait for it.
import pg from 'pg'
import t from 'tap'
import { freePort } from '../../src/embedded-postgres.ts'
import { runCommand } from '../fixtures/command-line.ts'
import { createDatabase, type Database } from '../fixtures/database.ts'
import { startServer } from '../fixtures/server.ts'
import { adminToken } from '../fixtures/service.ts'

const issuer = 'https://issuer.example'

/** Accounts of the tenant `many`, each with a row and a session. */
async function fill(database: Database, accounts: number): Promise<void> {
  await database.query(
    `insert into msal_logout.token_cache (client_id, partition_key, kind, home_account_id, payload, encoding, expires_at)
    select 'client-' || i % 2, 'p' || i, 'user', lpad(i::text, 6, '0') || '.many', 'x', 'json', now() + interval '1 hour'
    from generate_series(1, $1::int) i`,
    [accounts]
  )
  await database.query(
    `insert into msal_logout.sessions (issuer, session_key, client_id, partition_key, sid, subject, account_issuer,
      home_account_id, issued_at, expires_at)
    select $2, 'sid=' || i, 'client-' || i % 2, 'p' || i, i::text, 's' || i, '', lpad(i::text, 6, '0') || '.many', 1,
      now() + interval '1 hour'
    from generate_series(1, $1::int) i`,
    [accounts, issuer]
  )
}

t.test('a large purge outlives Ctrl-C and a kill -9 of the service, and --follow sees its end', async (t) => {
  const accounts = Number(process.env.PURGE_ACCOUNTS ?? 10_200)
  const database = await createDatabase(t)
  await fill(database, accounts)
  await database.query(
    `select from msal_logout.login('client-0', 'other', 'u.other', $1, 's', 's', 1, '{}', 'json', interval '1 hour')`,
    [issuer]
  )
  const env = {
    DATABASE_URL: database.url,
    ISSUER: issuer,
    CLIENT_IDS: 'client-0',
    ADMIN_TOKEN: adminToken,
    PORT: String(await freePort()),
    ADMIN_PORT: String(await freePort())
  }
  const server = await startServer(t, env)
  const own = { ADMIN_TOKEN: adminToken, ADMIN_URL: server.adminUrl }

  // Half of it held by somebody else, so that it is surely not done before the test is.
  const holder = new pg.Client({ connectionString: database.url })
  await holder.connect()
  t.teardown(() => holder.end())
  await holder.query('begin')
  await holder.query('select from msal_logout.token_cache where tenant_id = $1 and home_account_id > $2 for update', [
    'many',
    String(accounts / 2).padStart(6, '0')
  ])

  const person = runCommand(t, ['purge', '--tenant-id', 'many', '--reason', 'contract ended', '--force'], own, {
    onTerminal: true
  })
  await person.says(/Purge it\? \[y\/N\]/)
  person.process.stdin?.write('y\r')
  await person.says(new RegExp(`#+-+ \\d+% \\| [1-9]\\d*/${accounts} accounts`))
  person.process.stdin?.write('\x03')
  const [, id = ''] = await person.says(
    /goes on at the service; follow it by: msal-logout purge --follow ([-0-9a-f]{36})/
  )
  t.equal(await person.exited, 130)

  const follower = runCommand(t, ['purge', '--follow', id, '--json'], own)
  await follower.says(new RegExp(`^[\\d,]+ of ${accounts.toLocaleString('en')} accounts`))
  server.process.kill('SIGKILL')
  await server.exited
  await follower.says(/nothing answers at .*; trying again for 300 s/)
  const [halfway] = await database.query<{ status: string; left: boolean }>(
    `select status, exists (select from msal_logout.token_cache where tenant_id = 'many') as left from msal_logout.records`
  )
  t.same(halfway, { status: 'running', left: true })

  await holder.query('rollback')
  await startServer(t, env)
  t.equal(await follower.exited, 0, follower.output.stderr)
  t.match(follower.output.stderr, /the service answers again/)
  const half: Record<string, number> = { 'client-0': Math.floor(accounts / 2), 'client-1': Math.ceil(accounts / 2) }
  const [record] = await database.query<{ clients: string[] }>('select clients from msal_logout.records')
  const counts = record?.clients.map((app) => half[app])
  t.same(JSON.parse(follower.output.stdout), {
    outcome: 'done',
    id,
    accounts,
    sessions: accounts,
    rows: accounts,
    rowsByClient: half
  })
  t.same(await database.query('select home_account_id from msal_logout.token_cache'), [{ home_account_id: 'u.other' }])
  t.same(await database.query('select home_account_id from msal_logout.sessions'), [{ home_account_id: 'u.other' }])
  t.same(
    await database.query(
      'select id, status, accounts::int, rows::int, total::int, client_accounts, client_sessions, client_rows from msal_logout.records'
    ),
    [
      {
        id,
        status: 'done',
        accounts,
        rows: accounts,
        total: accounts,
        client_accounts: counts,
        client_sessions: counts,
        client_rows: counts
      }
    ]
  )
})

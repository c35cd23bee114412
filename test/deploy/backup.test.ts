// docs/runbook.md's backup and restore, by its own commands, with the PostgreSQL of Debian: the embedded one has no pg_dump.
import { execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import { chownSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { userInfo } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import pg from 'pg'
import t, { type Test } from 'tap'
import { freePort } from '../../src/embedded-postgres.ts'
import { migrateAt } from '../../src/migrate.ts'
import { call } from '../fixtures/command-line.ts'
import { blocks } from '../fixtures/doc-examples.ts'
import { clientId, startIdentityProvider } from '../fixtures/identity-provider.ts'
import { signOutBySql } from '../fixtures/orders.ts'
import { loginPayload } from '../fixtures/secrets.ts'
import { temporaryFolder } from '../fixtures/server.ts'
import { storeLogin } from '../fixtures/service.ts'
import { until } from '../fixtures/until.ts'

const run = promisify(execFile)
const runbook = readFileSync('docs/runbook.md', 'utf8')
const installed = '/usr/lib/postgresql'
const password = 'a-password-of-the-test'

const command = (beginning: string) =>
  blocks(runbook, 'sh').find((code) => code.startsWith(`${beginning} `)) ?? `no ${beginning} in the runbook`

/** Debian's server, for this test alone; returns its programs, and the URL of a role. */
async function startPostgres(t: Test) {
  const [newest = 'none'] = readdirSync(installed).toSorted((a, b) => Number(b) - Number(a))
  const bin = join(installed, newest, 'bin')
  const home = mkdtempSync('/var/tmp/msal-logout-backup-')
  t.teardown(() => rmSync(home, { recursive: true, force: true }))
  const [, , uid, gid] = /^postgres:.*$/m.exec(readFileSync('/etc/passwd', 'utf8'))?.[0].split(':') ?? []
  const as = userInfo().uid === 0 ? { uid: Number(uid), gid: Number(gid) } : {}
  if (as.uid !== undefined) {
    chownSync(home, as.uid, as.gid)
  }
  const data = join(home, 'data')
  writeFileSync(join(home, 'password'), password, { mode: 0o644 })
  const init = ['-D', data, '-U', 'postgres', '-A', 'scram-sha-256', '--pwfile', join(home, 'password'), '--no-sync']
  await run(join(bin, 'initdb'), [...init, '-E', 'UTF8', '--locale=C'], { ...as, cwd: home })
  const port = await freePort()
  const settings = [`port=${port}`, 'listen_addresses=127.0.0.1', 'unix_socket_directories=', 'fsync=off']
  const args = ['-D', data, ...settings.flatMap((setting) => ['-c', setting])]
  const server = spawn(join(bin, 'postgres'), args, { ...as, cwd: home, stdio: 'ignore' })
  const closed = once(server, 'close')
  t.teardown(async () => {
    server.kill('SIGINT')
    await closed
  })
  const urlAs = (role: string, database = 'msal_logout') =>
    `postgres://${role}:${password}@127.0.0.1:${port}/${database}`
  const superuser = urlAs('postgres', 'postgres')
  await until('PostgreSQL answers', () =>
    run(join(bin, 'psql'), [superuser, '-c', 'select 1']).then(
      () => true,
      () => false
    )
  )
  return { bin, urlAs, superuser }
}

t.test(
  'what is restored is current, has its records, rights and tombstones, and no token',
  { timeout: 300_000 },
  async (t) => {
    const { bin, urlAs, superuser } = await startPostgres(t)
    const folder = temporaryFolder(t)
    const env = { ...process.env, PATH: `${bin}:${process.env.PATH}`, OWNER_DATABASE_URL: urlAs('msal_logout_owner') }
    const sh = (script: string) => run('sh', ['-ec', script], { cwd: folder, env })
    const createRoles = join(process.cwd(), 'deploy/create-roles.sql')
    await sh(
      `psql "${superuser}" --set ON_ERROR_STOP=1 --set owner_password=${password} --set service_password=${password} --file ${createRoles}`
    )
    const sql = async (role: string, text: string, values?: unknown[]) => {
      const client = new pg.Client({ connectionString: urlAs(role) })
      await client.connect()
      try {
        return (await client.query(text, values)).rows
      } finally {
        await client.end()
      }
    }
    await migrateAt(urlAs('msal_logout_owner'))
    await sql(
      'postgres',
      `create role app_a login password '${password}'; grant connect on database msal_logout to app_a`
    )
    await sql('msal_logout_owner', `select msal_logout.register_service('msal_logout_service')`)
    await sql('msal_logout_owner', `select msal_logout.register_app('${clientId}', 'app_a')`)

    const { issuer } = await startIdentityProvider(t)
    const database = { query: (text: string, values?: unknown[]) => sql('app_a', text, values) }
    const login = (sid: string) =>
      storeLogin(database as Parameters<typeof storeLogin>[0], { issuer, sid, homeAccountId: `${sid}.t`, subject: sid })
    t.equal((await login('one')).accepted, true)
    t.equal((await login('two')).accepted, true)
    await signOutBySql({ query: (text, values) => sql('msal_logout_service', text, values) }, {
      issuer,
      sid: 'one'
    } as never)
    const records = await sql('msal_logout_service', 'select id, at, sid, sessions, rows from msal_logout.records')
    t.equal(records.length, 1)

    await sh(command('pg_dump'))
    const { stdout: dumped } = await sh('pg_restore --file=- msal-logout.dump')
    t.match(dumped, records[0].id, 'the records are in it')
    t.notMatch(dumped, Buffer.from(loginPayload).toString('hex'), 'and no token')

    await sh(`psql "${superuser}" --command 'drop database msal_logout'`)
    const again = readFileSync(createRoles, 'utf8').replaceAll(/^(--|create role).*\n/gm, '')
    await run(join(bin, 'psql'), [
      superuser,
      '--set',
      'ON_ERROR_STOP=1',
      ...again
        .trim()
        .split('\n')
        .flatMap((line) => ['--command', line])
    ])
    await sql('postgres', 'grant connect on database msal_logout to app_a')
    await sh(command('pg_restore'))

    t.same(await migrateAt(urlAs('msal_logout_owner')), [], 'the schema is current')
    t.same(await sql('msal_logout_service', 'select id, at, sid, sessions, rows from msal_logout.records'), records)
    t.same(
      await sql('msal_logout_owner', 'select from msal_logout.token_cache union all select from msal_logout.sessions'),
      []
    )
    const check = await call(t, ['check'], {
      env: { DATABASE_URL: urlAs('msal_logout_service'), ISSUER: issuer, CLIENT_IDS: clientId, SPOOL_DIR: folder }
    })
    t.equal(check.code, 0, check.stdout)
    t.notMatch(check.stdout, 'role_', 'the roles have their rights')
    t.equal((await login('one')).accepted, false, 'who had signed out stays signed out')
    t.equal((await login('two')).accepted, true, 'the others sign in again')
  }
)

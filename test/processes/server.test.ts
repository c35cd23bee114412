import { once } from 'node:events'
import { writeFileSync } from 'node:fs'
import { connect } from 'node:net'
import { join } from 'node:path'
import t from 'tap'
import { freePort } from '../../src/embedded-postgres.ts'
import { version } from '../../src/version.ts'
import { createDatabase, createRole, type Database } from '../fixtures/database.ts'
import { clientId, startIdentityProvider } from '../fixtures/identity-provider.ts'
import { runServer, type Server, startServer, temporaryFolder } from '../fixtures/server.ts'
import { storeLogin } from '../fixtures/service.ts'
import { until } from '../fixtures/until.ts'

const post = (server: Server, token: string) =>
  server.fetch(`${server.publicUrl}/backchannel-logout`, {
    method: 'POST',
    body: new URLSearchParams({ logout_token: token })
  })

/** What was logged so. */
const lines = (server: Pick<Server, 'output'>, message: string): Record<string, unknown>[] =>
  server.output
    .filter((line) => line.includes(`"msg":"${message}"`))
    .map((line) => JSON.parse(line) as Record<string, unknown>)

async function serviceRoleUrl(database: Database): Promise<string> {
  const role = await createRole(database, 'service')
  await database.query('select msal_logout.register_service($1)', [role])
  const url = new URL(database.url)
  url.username = role
  url.password = 'test'
  return url.href
}

t.test('it migrates, serves, signs out over HTTP, and stops in good order', async (t) => {
  const database = await createDatabase(t, { migrated: false })
  const provider = await startIdentityProvider(t)
  const server = await startServer(t, { DATABASE_URL: database.url, ISSUER: provider.issuer, CLIENT_IDS: clientId })
  await storeLogin(database, { issuer: provider.issuer, sid: 's1' })
  t.equal((await post(server, await provider.logoutToken({ sid: 's1' }))).status, 200)
  t.same(await database.query('select * from msal_logout.token_cache'), [])
  t.equal((await server.fetch(`${server.adminUrl}/readyz`)).status, 200)
  const { password, pathname } = new URL(database.url)
  const [started, ...others] = lines(server, 'started')
  t.match(started, {
    level: 'info',
    time: /^\d{4}-\d\d-\d\dT[\d:.]+Z$/,
    version: version(),
    schema: { migration: '002-streams', functions: version() },
    issuers: { default: provider.issuer },
    sources: ['backchannel', 'frontchannel', 'token-revocation', 'operator'],
    database: new RegExp(`^postgres://[^:]+@127.0.0.1:\\d+${pathname}$`)
  })
  t.same(others, [], 'once')
  t.notMatch(JSON.stringify(started), `:${password}@`)
  t.match(lines(server, 'signed out'), [{ issuer: 'default', clientId, outcome: 'done', rows: 1, ms: Number }])
  server.process.kill('SIGTERM')
  t.equal(await server.exited, 0)
})

t.test('a second signal ends it at once, also while it waits for a client that holds a request open', async (t) => {
  const database = await createDatabase(t)
  const server = await startServer(t, {
    DATABASE_URL: database.url,
    ISSUER: 'https://issuer.example',
    CLIENT_IDS: clientId
  })
  const socket = connect(Number(new URL(server.publicUrl).port), '127.0.0.1')
  t.teardown(() => socket.destroy())
  socket.on('error', () => {})
  // The server asks for the rest of the body: the request is under way.
  socket.write(
    'POST /backchannel-logout HTTP/1.1\r\nhost: x\r\ncontent-type: application/x-www-form-urlencoded\r\ncontent-length: 100\r\nexpect: 100-continue\r\n\r\n'
  )
  await once(socket, 'data')
  server.process.kill('SIGTERM')
  await until('it is stopping', () => server.output.some((line) => line.includes('"stopping"')))
  server.process.kill('SIGINT')
  t.equal(await server.exited, 1)
})

t.test('with a current schema the least role of the service suffices', async (t) => {
  const database = await createDatabase(t)
  const provider = await startIdentityProvider(t)
  const env = { ISSUER: provider.issuer, CLIENT_IDS: clientId, ADMIN_TOKEN: 'x'.repeat(32) }
  const server = await startServer(t, { ...env, DATABASE_URL: await serviceRoleUrl(database) })
  await storeLogin(database, { issuer: provider.issuer, sid: 's1' })
  await storeLogin(database, { issuer: provider.issuer, homeAccountId: 'u.t' })
  t.equal((await post(server, await provider.logoutToken({ sid: 's1' }))).status, 200)
  for (const selector of [{ homeAccountId: 'u.t' }, { issuer: provider.issuer, sid: 's2' }]) {
    for (const dryRun of [true, false]) {
      const purge = await server.fetch(`${server.adminUrl}/admin/purges`, {
        method: 'POST',
        headers: { authorization: `Bearer ${env.ADMIN_TOKEN}`, 'content-type': 'application/json' },
        body: JSON.stringify({ ...selector, reason: 'test', dryRun })
      })
      t.equal(purge.status, 200)
    }
  }
  t.same(await database.query('select * from msal_logout.token_cache'), [])
  t.notMatch(server.output.join('\n'), /"level":"(error|fatal)"/, 'and no chore lacks a right')
})

t.test('SIGHUP has it read its files again, or is declined with a line, and never ends it', async (t) => {
  const database = await createDatabase(t)
  const provider = await startIdentityProvider(t)
  const folder = temporaryFolder(t)
  const issuersFile = join(folder, 'issuers.json')
  const tokenFile = join(folder, 'token')
  const write = (content: string, token: string) => {
    writeFileSync(issuersFile, content)
    writeFileSync(tokenFile, token)
  }
  const issuers = (...names: string[]) =>
    JSON.stringify({
      issuers: names.map((name, i) => ({
        name,
        issuer: i === 0 ? provider.issuer : `https://${name}`,
        clientIds: ['a']
      }))
    })
  const [first, second] = ['1'.repeat(40), '2'.repeat(40)] as const
  write(issuers('one'), first)
  const server = await startServer(t, {
    DATABASE_URL: database.url,
    ISSUERS_FILE: issuersFile,
    ADMIN_TOKEN_FILE: tokenFile
  })
  const statusOf = async (token: string) =>
    (await server.fetch(`${server.adminUrl}/admin/issuers`, { headers: { authorization: `Bearer ${token}` } })).status
  await until('it has started', () => lines(server, 'started').length === 1)
  t.equal(await statusOf(first), 200)

  write(issuers('one', 'two.example'), second)
  server.process.kill('SIGHUP')
  const read = await until('it is read', () => lines(server, 'configuration read again')[0])
  t.match(read, { level: 'info', issuers: { added: ['two.example'], removed: [] }, isAdminTokenNew: true })
  t.equal(await statusOf(second), 200)

  write('{ "issuers": [] ', 'short')
  server.process.kill('SIGHUP')
  const declined = await until(
    'it is declined',
    () => lines(server, 'configuration not read again: all stays as it was')[0]
  )
  t.match(declined, { level: 'error', problems: [/^ADMIN_TOKEN_FILE: must have/, /^ISSUERS_FILE: is not JSON/] })
  t.equal(await statusOf(second), 200, 'and all is as it was')
  server.process.kill('SIGTERM')
  t.equal(await server.exited, 0)
})

t.test('SIGHUP while it starts does not end it', async (t) => {
  const database = await createDatabase(t, { migrated: false })
  const blocker = await database.pool.connect()
  await blocker.query('select pg_advisory_lock(6725418)') // nobody can migrate
  const server = runServer(t, {
    DATABASE_URL: database.url,
    ISSUER: 'https://issuer.example',
    CLIENT_IDS: clientId,
    PORT: String(await freePort()),
    ADMIN_PORT: String(await freePort()),
    SPOOL_DIR: temporaryFolder(t)
  })
  await until('it waits for the migration', async () => {
    const waiting = await database.query("select from pg_locks where locktype = 'advisory' and not granted")
    return waiting.length > 0
  })
  server.process.kill('SIGHUP')
  await blocker.query('select pg_advisory_unlock(6725418)')
  blocker.release()
  await until('it has read again what it began with', () => lines(server, 'configuration read again').length === 1)
  server.process.kill('SIGTERM')
  t.equal(await server.exited, 0)
})

t.test('the operators are not reachable on the public port', async (t) => {
  const database = await createDatabase(t)
  const server = await startServer(t, {
    DATABASE_URL: database.url,
    ISSUER: 'https://issuer.example',
    CLIENT_IDS: clientId
  })
  for (const path of ['/admin/purges', '/readyz', '/metrics', '/docs']) {
    t.equal((await server.fetch(`${server.publicUrl}${path}`)).status, 404, path)
  }
})

t.test('the metrics show its memory and its event loop, without credentials', async (t) => {
  const database = await createDatabase(t)
  const server = await startServer(t, {
    DATABASE_URL: database.url,
    ISSUER: 'https://issuer.example',
    CLIENT_IDS: clientId
  })
  const answer = await server.fetch(`${server.adminUrl}/metrics`)
  t.match(answer.headers.get('content-type'), 'text/plain; version=0.0.4')
  const text = await answer.text()
  t.match(text, /^process_resident_memory_bytes \d{7,}$/m)
  t.match(text, /^nodejs_eventloop_lag_p99_seconds /m)
  t.match(text, /^msal_logout_pool_connections\{(?=[^}]*pool="signOuts")(?=[^}]*state="idle")/m)
})

t.test('what cannot be parsed is not logged, at no level', async (t) => {
  const database = await createDatabase(t)
  const server = await startServer(t, {
    DATABASE_URL: database.url,
    ISSUER: 'https://issuer.example',
    CLIENT_IDS: clientId,
    LOG_LEVEL: 'trace'
  })
  for (const url of [server.publicUrl, server.adminUrl]) {
    const socket = connect(Number(new URL(url).port), '127.0.0.1')
    socket.resume().write('POST / HTTP/1.1\r\nhost: x\r\nauthorization: Bearer secret\r\nno header\r\n\r\n')
    await once(socket, 'close')
  }
  server.process.kill('SIGTERM')
  await server.exited
  t.equal(server.output.filter((line) => line.includes('HPE_')).length, 2)
  t.notOk(server.output.some((line) => line.includes('rawPacket')))
})

t.test('all problems of the configuration are told on standard error, and it exits with 1', async (t) => {
  const { output, exited } = runServer(t, { PORT: 'x', ADMIN_TOKEN: 'short' })
  t.equal(await exited, 1)
  for (const name of ['PORT', 'ADMIN_TOKEN', 'ISSUER']) {
    t.ok(
      output.some((line) => line.trim().startsWith(`${name}:`)),
      name
    )
  }
})

t.test('a database that is out of reach at the start ends it with 1', async (t) => {
  const { output, exited } = runServer(t, {
    DATABASE_URL: `postgres://nobody@127.0.0.1:${await freePort()}/none`,
    ISSUER: 'https://issuer.example',
    CLIENT_IDS: clientId
  })
  t.equal(await exited, 1)
  t.match(output.join('\n'), /ECONNREFUSED/)
})

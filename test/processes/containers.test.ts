import { execFile } from 'node:child_process'
import { once } from 'node:events'
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import t from 'tap'
import { migrateAt } from '../../src/migrate.ts'
import { runCommand } from '../fixtures/command-line.ts'
import { createDatabase, serverUrl } from '../fixtures/database.ts'
import { clientId, startIdentityProvider } from '../fixtures/identity-provider.ts'
import { onServer } from '../fixtures/postgres-server.ts'
import { adminToken } from '../fixtures/secrets.ts'
import { startServer, temporaryFolder } from '../fixtures/server.ts'
import { storeLogin } from '../fixtures/service.ts'
import { until } from '../fixtures/until.ts'

const read = (file: string) => readFileSync(file, 'utf8')
const dockerfile = read('Dockerfile')
const compose = read('compose.yaml')

/** As in a container whose user has no entry in /etc/passwd: OpenShift, `docker run --user 1000680000`. */
const withoutPasswd = [
  process.execPath,
  '--import',
  `data:text/javascript,${encodeURIComponent(`
    import os from 'node:os'
    import { syncBuiltinESMExports } from 'node:module'
    const fail = () => { throw Object.assign(new Error('uv_os_get_passwd returned ENOENT'), { code: 'ERR_SYSTEM_ERROR' }) }
    os.userInfo = fail
    os.homedir = fail
    syncBuiltinESMExports()
  `)}`
]

t.test('it starts as a user whom nobody knows, without a home, with secrets from files', async (t) => {
  const database = await createDatabase(t)
  const provider = await startIdentityProvider(t)
  const folder = temporaryFolder(t)
  const secretFile = (name: string, content: string) => {
    writeFileSync(join(folder, name), `${content}\n`)
    return join(folder, name)
  }
  const server = await startServer(
    t,
    {
      HOME: '/nonexistent',
      USER: '1000680000',
      DATABASE_URL_FILE: secretFile('url', database.url),
      ADMIN_TOKEN_FILE: secretFile('token', adminToken),
      SPOOL_DIR: join(folder, 'spool', 'deferred'),
      ISSUER: ` ${provider.issuer}\n`,
      CLIENT_IDS: clientId
    },
    withoutPasswd
  )
  t.equal((await server.fetch(`${server.adminUrl}/readyz`)).status, 200)
  const answer = await server.fetch(`${server.adminUrl}/admin/spool`, {
    headers: { authorization: `Bearer ${adminToken}` }
  })
  t.equal(answer.status, 200, 'the token of the file is the right one')
  const purge = runCommand(t, ['purge', '--home-account-id', 'u.t', '--reason', 'x', '--dry-run'], {
    ADMIN_URL: server.adminUrl,
    ADMIN_TOKEN_FILE: join(folder, 'token')
  })
  t.equal(await purge.exited, 3, 'nothing is there to purge')
})

t.test('the variables that an orchestrator sets for a service are no configuration', async (t) => {
  const provider = await startIdentityProvider(t)
  const run = runCommand(t, ['check', '--json'], {
    ADMIN_PORT: 'tcp://10.0.0.1:3001',
    ADMIN_PORT_3001_TCP: 'tcp://10.0.0.1:3001',
    ADMIN_SERVICE_HOST: '10.0.0.1',
    ISSUER: provider.issuer,
    CLIENT_IDS: clientId,
    SPOOL_DIR: temporaryFolder(t)
  })
  t.equal(await run.exited, 0, run.output.stderr)
  t.match(JSON.parse(run.output.stdout).checks, [{}, { code: 'configuration_ignored' }])
})

t.test('before it stops it says so, and serves on for a while', async (t) => {
  const database = await createDatabase(t)
  const provider = await startIdentityProvider(t)
  const server = await startServer(t, {
    DATABASE_URL: database.url,
    ISSUER: provider.issuer,
    CLIENT_IDS: clientId,
    DRAIN_SECONDS: '2'
  })
  await storeLogin(database, { issuer: provider.issuer, sid: 's1' })
  const token = await provider.logoutToken({ sid: 's1' })
  server.process.kill('SIGTERM')
  await until('it says that it is not ready', async () => {
    const answer = await server.fetch(`${server.adminUrl}/readyz`)
    return answer.status === 503 && JSON.stringify(await answer.json()).includes('ERR_STOPPING')
  })
  t.equal((await server.fetch(`${server.publicUrl}/healthz`)).status, 200)
  const answer = await server.fetch(`${server.publicUrl}/backchannel-logout`, {
    method: 'POST',
    body: new URLSearchParams({ logout_token: token })
  })
  t.equal(answer.status, 200, 'a sign-out that still comes is done')
  t.equal(answer.headers.get('connection'), 'close', 'and the next goes to another instance')
  t.same(await database.query('select from msal_logout.token_cache'), [])
  t.equal(await server.exited, 0)
})

t.test("the image's check of its health finds the service where it listens", async (t) => {
  const [, command = ''] = /HEALTHCHECK[^\n]*\n\s+CMD (\[.*\])/.exec(dockerfile) ?? []
  const [, ...args] = JSON.parse(command) as string[]
  const healthy = (env: Record<string, string>) =>
    new Promise<boolean>((resolve) => {
      execFile(process.execPath, args, { env }, (error) => resolve(error === null))
    })
  for (const host of ['127.0.0.1', '::1']) {
    const server = createServer((request, response) => {
      response.writeHead(request.url === '/healthz' ? 200 : 404).end()
    }).listen(0, host)
    await once(server, 'listening')
    const PORT = String((server.address() as AddressInfo).port)
    t.equal(await healthy({ PORT, HOST: host }), true, host)
    if (host === '127.0.0.1') {
      t.equal(await healthy({ PORT }), true, 'no host')
      t.equal(await healthy({ PORT, HOST: '0.0.0.0' }), true, 'every address')
    }
    server.closeAllConnections()
    server.close()
    await once(server, 'close')
    t.equal(await healthy({ PORT, HOST: host }), false, `${host}, nobody there`)
  }
})

t.test('the image runs as a number, and group 0 may write its spool', async (t) => {
  t.match(dockerfile, /^USER \d+:0$/m)
  t.match(dockerfile, /install -d -o root -g root -m 0770 \/spool/)
  t.match(dockerfile, /SPOOL_DIR=\/spool\/./, 'the service makes a folder of its own in it')
  t.notMatch(dockerfile, /^FROM (?!\$\{NODE_IMAGE\})/m)
})

t.test('what the image is built from leaves out what may hold a secret', async (t) => {
  const lines = read('.dockerignore')
    .split('\n')
    .filter((line) => line !== '' && !line.startsWith('#'))
  t.equal(lines[0], '*')
  const copied = [...dockerfile.matchAll(/^COPY (?!--from)(.*) \S+$/gm)].flatMap(([, files = '']) => files.split(' '))
  t.same(
    lines
      .slice(1)
      .map((line) => line.slice(1))
      .sort(),
    copied.sort(),
    'it takes what the Dockerfile copies'
  )
})

t.test('each container of compose.yaml has the least rights, and its secrets from files', async (t) => {
  const [, section = ''] = /^services:\n(.*?)^\S/ms.exec(compose) ?? []
  const services = [...section.matchAll(/^ {2}([\w-]+):\n((?: {4}.*\n|\n)+)/gm)]
  t.same(services.map(([, name]) => name).sort(), ['migrate', 'msal-logout', 'postgres'])
  t.match(compose, /read_only: true\n {2}cap_drop: \[ALL\]\n {2}security_opt: \['no-new-privileges:true'\]/)
  for (const [, name = '', definition = ''] of services) {
    t.match(definition, /<<: \*hardened/, name)
    t.notMatch(
      definition,
      /privileged|read_only: false|cap_add(?!: \[CHOWN, DAC_OVERRIDE, FOWNER, SETGID, SETUID\])/,
      name
    )
    for (const [, variable = ''] of definition.matchAll(/^ {6}([A-Z_]+):/gm)) {
      t.notMatch(variable, /(PASSWORD|TOKEN|URL|SECRET)$/, `${name}: ${variable}`)
    }
  }
  const [, , service = ''] = services.find(([, name]) => name === 'msal-logout') ?? []
  t.match(service, /service_database_url/)
  t.notMatch(service, /owner|postgres_password/, 'the service never sees the credentials of others')
})

t.test("compose's roles suffice: one owns the schema and migrates it, another serves", async (t) => {
  const run = process.env.TEST_RUN
  const names = (text: string) => text.replace(/msal_logout(_owner|_service)?\b(?!\.)/g, (name) => `${name}_${run}_0`)
  const statements = names(read('deploy/create-roles.sql').replace(/^--.*$/gm, ''))
    .replace(/:'(\w+)'/g, `'test'`)
    .split(';')
    .map((statement) => statement.trim())
    .filter((statement) => statement !== '')
  t.equal(statements.length, 5)
  const [owner = '', service = '', database = ''] = ['msal_logout_owner', 'msal_logout_service', 'msal_logout'].map(
    names
  )
  t.teardown(async () => {
    await onServer(serverUrl(), `drop database if exists ${database} with (force)`)
    await onServer(serverUrl(), `drop role if exists ${owner}, ${service}`)
  })
  for (const statement of statements) {
    await onServer(serverUrl(), statement)
  }
  const urlAs = (role: string) =>
    Object.assign(new URL(serverUrl()), { username: role, password: 'test', pathname: `/${database}` }).href
  t.match(compose, /command: \[node, dist\/cli\.js, migrate, --register-service, msal_logout_service\]/)
  t.not((await migrateAt(urlAs(owner), { serviceRole: service })).length, 0)
  const provider = await startIdentityProvider(t)
  const env = { DATABASE_URL: urlAs(service), ISSUER: provider.issuer, CLIENT_IDS: clientId, ADMIN_TOKEN: adminToken }
  const check = runCommand(t, ['check'], { ...env, SPOOL_DIR: temporaryFolder(t) })
  t.equal(await check.exited, 0, check.output.stdout)
  t.match(check.output.stdout, /warnings 0, failed 0/)
  const server = await startServer(t, env)
  t.equal((await server.fetch(`${server.adminUrl}/readyz`)).status, 200)
  server.process.kill('SIGTERM')
  await server.exited
})

t.test('the secrets of compose.yaml are made once, and are what it names', async (t) => {
  const folder = temporaryFolder(t)
  mkdirSync(join(folder, 'deploy', 'compose'), { recursive: true })
  const script = join(folder, 'deploy', 'compose', 'make-secrets.sh')
  writeFileSync(script, read('deploy/compose/make-secrets.sh'), { mode: 0o755 })
  const made = () =>
    new Promise<void>((resolve, reject) => {
      execFile('sh', [script], (error) => (error === null ? resolve() : reject(error)))
    })
  const named = [...compose.matchAll(/file: \.\/secrets\/(\w+)/g)].map(([, name = '']) => name)
  const contents = () => named.map((name) => read(join(folder, 'secrets', name)))
  await made()
  const first = contents()
  t.equal(new Set(first).size, 6)
  await made()
  t.same(contents(), first)
  const config = join(folder, 'secrets', 'service_database_url')
  t.equal(new URL(read(config)).username, 'msal_logout_service')
})

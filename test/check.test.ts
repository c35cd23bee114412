import { once } from 'node:events'
import { chmodSync, mkdirSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:http'
import { type AddressInfo, createServer as createTcpServer } from 'node:net'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import t, { type Test } from 'tap'
import { check, toldFindings } from '../src/commands/check.ts'
import type { Finding } from '../src/commands/finding.ts'
import { freePort } from '../src/embedded-postgres.ts'
import { call } from './fixtures/command-line.ts'
import { createDatabase, createRole, type Database, serverUrl } from './fixtures/database.ts'
import { startDirectory, watcherId, watcherSecret } from './fixtures/directory.ts'
import {
  clientId,
  createSigningKey,
  type IdentityProvider,
  startIdentityProvider
} from './fixtures/identity-provider.ts'
import { onServer } from './fixtures/postgres-server.ts'
import { adminToken, findSecret } from './fixtures/secrets.ts'
import { temporaryFolder } from './fixtures/server.ts'

interface SetUp {
  readonly database: Database
  readonly role: string
  readonly provider: IdentityProvider
  readonly env: Record<string, string>
}

/** All as it should be. */
async function setUp(t: Test, options?: { own?: boolean; migrated?: boolean }): Promise<SetUp> {
  const database = await createDatabase(t, options)
  const role = await createRole(database, 'service')
  if (options?.migrated !== false) {
    await database.query('select msal_logout.register_service($1)', [role])
  }
  const provider = await startIdentityProvider(t)
  const env = {
    DATABASE_URL: urlOf(database, (url) => {
      url.username = role
      url.password = 'test'
    }),
    ISSUER: provider.issuer,
    CLIENT_IDS: clientId,
    SPOOL_DIR: join(temporaryFolder(t), 'spool'),
    ADMIN_TOKEN: adminToken
  }
  return { database, role, provider, env }
}

function urlOf({ url }: Pick<Database, 'url'>, change: (url: URL) => void): string {
  const changed = new URL(url)
  change(changed)
  return changed.href
}

/** What did not pass, as `status code`; each tells what to do, and none a secret. */
function faults(t: Test, findings: readonly Finding[]): string[] {
  const wrong = findings.filter(({ status }) => status !== 'passed')
  t.ok(wrong.every(({ code, message, advice }) => /^[a-z_]+$/.test(code ?? '') && message !== '' && advice !== null))
  t.equal(findSecret(JSON.stringify(findings)), undefined)
  t.notMatch(JSON.stringify(findings), /:test@/, 'no password')
  return wrong.map(({ status, code }) => `${status} ${code}`)
}

/** A server that refuses everybody in PostgreSQL's own words (its protocol, §55.7, ErrorResponse). */
async function startRefusing(t: Test, code: string, message: string): Promise<string> {
  const fields = Buffer.from(`SFATAL\0VFATAL\0C${code}\0M${message}\0\0`)
  const head = Buffer.alloc(5, 'E')
  head.writeInt32BE(fields.length + 4, 1)
  const server = createTcpServer((socket) => {
    socket.on('error', () => {}).once('data', () => socket.end(Buffer.concat([head, fields])))
  }).listen(0, '127.0.0.1')
  t.teardown(() => server.close())
  await once(server, 'listening')
  return `postgres://x:y@127.0.0.1:${(server.address() as AddressInfo).port}/z`
}

t.test('a sound set-up passes in all points', async (t) => {
  const { env } = await setUp(t)
  const findings = await check({ env })
  t.same(faults(t, findings), [])
  t.same(
    findings.map((finding) => finding.check),
    ['configuration', 'database', 'schema', 'role', 'spool', 'issuer', 'clock', 'operators']
  )
})

type Broken = [name: string, expected: string[], change: (setUp: SetUp, t: Test) => unknown, now?: () => number]

const brokenSetUps: Broken[] = [
  [
    'a wrong configuration, with every problem',
    ['failed configuration_invalid', 'failed configuration_invalid'],
    ({ env }) => Object.assign(env, { PORT: 'x', LOG_LEVEL: 'loud' })
  ],
  [
    'a database where nothing listens',
    ['failed database_unreachable'],
    async ({ env }) => {
      env.DATABASE_URL = `postgres://x:y@127.0.0.1:${await freePort()}/z`
    }
  ],
  [
    'a wrong password',
    ['failed database_credentials'],
    ({ env }) => {
      env.DATABASE_URL = env.DATABASE_URL?.replace(':test@', ':wrong@') ?? ''
    }
  ],
  [
    'no password',
    ['failed database_credentials'],
    ({ env }) => {
      env.DATABASE_URL = env.DATABASE_URL?.replace(':test@', '@') ?? ''
    }
  ],
  [
    'a database that does not exist',
    ['failed database_missing'],
    ({ env, database, role }) => {
      env.DATABASE_URL = urlOf(database, (url) => {
        Object.assign(url, { username: role, password: 'test', pathname: '/nowhere' })
      })
    }
  ],
  [
    'an address of the database that is no URL',
    ['failed database_url_invalid'],
    ({ env }) => {
      env.DATABASE_URL = 'postgres://x:pass%zz%20word@127.0.0.1:5432/z'
    }
  ],
  [
    'a server without the TLS that is asked for',
    ['failed database_tls'],
    ({ env }) => {
      env.DATABASE_URL += '?sslmode=verify-full'
    }
  ],
  [
    'a file of certificates that is not there',
    ['failed database_tls'],
    ({ env }) => {
      env.DATABASE_URL += '?sslmode=verify-full&sslrootcert=/nowhere'
    }
  ],
  [
    'a host that pg_hba.conf does not admit',
    ['failed database_refused'],
    async ({ env }, t) => {
      const message = 'no pg_hba.conf entry for host "10.0.0.1", user "x", database "z", no encryption'
      env.DATABASE_URL = await startRefusing(t, '28000', message)
    }
  ],
  [
    'a role that may not log in',
    ['failed database_credentials'],
    async ({ env }, t) => {
      env.DATABASE_URL = await startRefusing(t, '28000', 'role "x" is not permitted to log in')
    }
  ],
  [
    'a database without room for more connections',
    ['failed database_full'],
    async ({ env }, t) => {
      env.DATABASE_URL = await startRefusing(t, '53300', 'sorry, too many clients already')
    }
  ],
  ['no database, which means an embedded one', ['warning database_embedded'], ({ env }) => delete env.DATABASE_URL],
  [
    'a role that lacks its privileges',
    ['failed role_privileges'],
    async ({ env, database }) => {
      const role = await createRole(database, 'stranger')
      env.DATABASE_URL = urlOf(database, (url) => Object.assign(url, { username: role, password: 'test' }))
    }
  ],
  [
    "an app's role",
    ['failed role_is_app'],
    async ({ env, database }) => {
      const role = await createRole(database, 'app')
      await database.query('select msal_logout.register_app($1, $2)', [clientId, role])
      env.DATABASE_URL = urlOf(database, (url) => Object.assign(url, { username: role, password: 'test' }))
    }
  ],
  [
    "the service's role as a member of an app's",
    ['warning role_is_app'],
    async ({ database, role }) => {
      const app = await createRole(database, 'app')
      await database.query('select msal_logout.register_app($1, $2)', [clientId, app])
      await database.query(`grant ${app} to ${role}`)
    }
  ],
  [
    'a port that an orchestrator has set',
    ['warning configuration_ignored'],
    ({ env }) => Object.assign(env, { ADMIN_PORT: 'tcp://10.0.0.1:3001' })
  ],
  [
    'an address that is not of this machine',
    ['failed configuration_address'],
    ({ env }) => Object.assign(env, { HOST: '192.0.2.1' })
  ],
  [
    'a name that is none',
    ['failed configuration_address'],
    ({ env }) => Object.assign(env, { ADMIN_HOST: 'nowhere.invalid' })
  ],
  [
    'authorities that cannot be read',
    ['failed configuration_invalid'],
    ({ env }) => Object.assign(env, { NODE_EXTRA_CA_CERTS: '/nowhere' })
  ],
  [
    'a secret that cannot be read',
    ['failed configuration_invalid'],
    ({ env }) => {
      delete env.ADMIN_TOKEN
      env.ADMIN_TOKEN_FILE = '/nowhere'
    }
  ],
  [
    'a superuser',
    ['warning role_superuser'],
    ({ env, database }) => {
      env.DATABASE_URL = database.url
    }
  ],
  [
    'a role that can read payloads',
    ['warning role_reads_payloads'],
    ({ database, role }) => database.query(`grant select (payload) on msal_logout.token_cache to ${role}`)
  ],
  [
    'a file in the place of the spool',
    ['failed spool_not_writable'],
    ({ env }) => writeFileSync(env.SPOOL_DIR ?? '', 'in the way')
  ],
  [
    'a file in the place of a folder above the spool',
    ['failed spool_not_writable'],
    ({ env }) => {
      writeFileSync(env.SPOOL_DIR ?? '', 'in the way')
      env.SPOOL_DIR = join(env.SPOOL_DIR ?? '', 'deeper', 'spool')
    }
  ],
  [
    'an issuer where nothing listens',
    ['failed issuer_unreachable'],
    async ({ env }) => {
      env.ISSUER = `http://127.0.0.1:${await freePort()}`
    }
  ],
  [
    'an issuer that fails',
    ['failed issuer_unreachable'],
    ({ provider }) => {
      provider.behaviour = 'down'
    }
  ],
  [
    'an issuer that does not answer in time',
    ['failed issuer_unreachable'],
    ({ provider }) => {
      provider.behaviour = 'hang'
    }
  ],
  [
    'a discovery document that names another issuer',
    ['failed issuer_differs'],
    ({ provider }) => {
      provider.announcedIssuer = `${provider.issuer}/`
    }
  ],
  [
    'an empty key set',
    ['failed keys_unusable'],
    ({ provider }) => {
      provider.keys = []
    }
  ],
  [
    'keys for other algorithms alone',
    ['failed keys_unusable'],
    async ({ provider }) => {
      provider.keys = [await createSigningKey('ES256')]
    }
  ],
  ['a clock that is ahead by minutes', ['failed clock_off'], () => {}, () => Date.now() + 300_000],
  ['a clock that is behind by minutes', ['failed clock_off'], () => {}, () => Date.now() - 300_000],
  ['a clock that drifts', ['warning clock_drifts'], () => {}, () => Date.now() + 20_000],
  [
    'variables that are nearly ours',
    Array.from({ length: 4 }, () => 'warning configuration_doubtful'),
    ({ env }) =>
      Object.assign(env, {
        TRUSTED_PROXY: '127.0.0.1',
        CLIENT_ID: 'x',
        DATABASE_URI: 'y',
        ADMIN_TOKENS: 'z',
        HOSTNAME: 'h'
      })
  ],
  [
    'several client ids that are one',
    ['warning configuration_doubtful'],
    ({ env }) => {
      env.CLIENT_IDS = 'client-a;client-b'
    }
  ],
  [
    'proxies that are everybody',
    ['warning configuration_doubtful'],
    ({ env }) => {
      env.TRUSTED_PROXIES = '0.0.0.0/0'
    }
  ],
  [
    'a public URL that is that of a signal',
    ['warning configuration_doubtful'],
    ({ env }) => {
      env.PUBLIC_URL = 'https://logout.example.com/backchannel-logout'
    }
  ],
  [
    'a spool that is not made yet, below a folder that others can write',
    ['failed spool_untrusted'],
    ({ env }) => {
      mkdirSync(env.SPOOL_DIR ?? '')
      chmodSync(env.SPOOL_DIR ?? '', 0o777)
      env.SPOOL_DIR = join(env.SPOOL_DIR ?? '', 'spool')
    }
  ],
  ['no credentials of operators', ['warning operators_none'], ({ env }) => delete env.ADMIN_TOKEN]
]

for (const [name, expected, change, now] of brokenSetUps) {
  t.test(`it tells ${name}`, async (t) => {
    const subject = await setUp(t)
    await change(subject, t)
    const findings = await check({ env: subject.env, fetchTimeoutMs: 2_000, ...(now && { now }) })
    t.same(faults(t, findings), expected)
  })
}

t.test('it tells a database that takes no writes', async (t) => {
  const { database, env } = await setUp(t, { own: true })
  await database.query(
    `alter database ${new URL(database.url).pathname.slice(1)} set default_transaction_read_only = on`
  )
  t.same(faults(t, await check({ env })), ['failed database_read_only'])
})

t.test("it never advises register_service for an app's role", async (t) => {
  const { database, env, role } = await setUp(t)
  const app = await createRole(database, 'app')
  await database.query('select msal_logout.register_app($1, $2)', [clientId, app])
  for (const both of [false, true]) {
    if (both) {
      await database.query(`grant ${role} to ${app}`)
    }
    const url = urlOf(database, (url) => Object.assign(url, { username: app, password: 'test' }))
    const findings = await check({ env: { ...env, DATABASE_URL: url } })
    t.ok(findings.some(({ code }) => code === 'role_is_app'))
    t.notMatch(findings.map(({ advice }) => advice).join(), /register_service/)
  }
  await database.query(`alter role ${role} rename to "o'brien"`)
  database.roles[0] = `"o'brien"`
  await database.query(`revoke execute on all functions in schema msal_logout from "o'brien"`)
  const url = urlOf(database, (url) => Object.assign(url, { username: "o'brien", password: 'test' }))
  const finding = (await check({ env: { ...env, DATABASE_URL: url } })).find(({ code }) => code === 'role_privileges')
  const advised = /(select msal_logout\.register_service\(.*\))$/.exec(finding?.advice ?? '')?.[1] ?? ''
  await database.query(advised)
  t.same(faults(t, await check({ env: { ...env, DATABASE_URL: url } })), [], 'what it advises can be pasted')
})

t.test('it says which issuer was configured, and which was found', async (t) => {
  const { env, provider } = await setUp(t)
  provider.announcedIssuer = 'https://elsewhere.example/'
  const finding = (await check({ env })).find(({ code }) => code === 'issuer_differs')
  t.match(finding?.message, `"${provider.issuer}" is configured`)
  t.match(finding?.message, '"https://elsewhere.example/"')
})

t.test('it tells a database in another encoding', async (t) => {
  const { env, database } = await setUp(t)
  const name = `test_latin1_${process.pid}`
  await onServer(serverUrl(), `create database ${name} encoding 'LATIN1' locale 'C' template template0`)
  t.teardown(() => onServer(serverUrl(), `drop database if exists ${name} with (force)`))
  env.DATABASE_URL = urlOf(database, (url) => Object.assign(url, { pathname: `/${name}` }))
  const findings = await check({ env })
  t.same(faults(t, findings), ['failed database_encoding'])
  t.match(findings.find(({ code }) => code === 'database_encoding')?.message, /has the encoding LATIN1/)
})

t.test('it tells a schema that was restored without data, and so does the service at its start', async (t) => {
  const { env, database } = await setUp(t, { own: true })
  await database.query('truncate msal_logout.migrations, msal_logout.functions')
  t.same(faults(t, await check({ env })), ['failed schema_without_data'])
  for (const command of ['serve', 'migrate']) {
    const { code, stderr } = await call(t, [command], { env: { ...env, DATABASE_URL: database.url } })
    t.equal(code, 1)
    t.match(stderr, /restored from a dump without data\. Restore it with the data, or drop it/)
  }
})

t.test('it tells a schema that is missing, and one that is old', async (t) => {
  const missing = await setUp(t, { migrated: false })
  t.same(faults(t, await check({ env: missing.env })), ['failed schema_missing'])
  const { database, env } = await setUp(t, { own: true })
  await database.query('delete from msal_logout.migrations where name = (select max(name) from msal_logout.migrations)')
  t.same(faults(t, await check({ env })), ['failed schema_old'])
})

t.test('it tells a key set that cannot be had', async (t) => {
  const { provider, env } = await setUp(t)
  const file = join(temporaryFolder(t), 'issuers.json')
  const jwksUri = `http://127.0.0.1:${await freePort()}/jwks`
  writeFileSync(
    file,
    JSON.stringify({ issuers: [{ name: 'main', issuer: provider.issuer, clientIds: [clientId], jwksUri }] })
  )
  const { ISSUER, CLIENT_IDS, ...rest } = env
  t.same(faults(t, await check({ env: { ...rest, ISSUERS_FILE: file } })), ['failed keys_unreachable'])
})

t.test('it looks at the directory of an issuer, with the settings of the configuration', async (t) => {
  const { env, provider } = await setUp(t)
  const { tenant, tenantId, graph, fileOf } = await startDirectory(t)
  const directory = {
    kind: 'microsoft-graph',
    tenantId,
    clientId: watcherId,
    credential: { clientSecretFile: fileOf(watcherSecret) },
    graphUrl: graph.url,
    authorityUrl: graph.url
  }
  const issuers = [{ name: 'main', issuer: provider.issuer, clientIds: [clientId], directory }]
  const { ISSUER, CLIENT_IDS, ...rest } = env
  const withDirectory = { ...rest, ISSUERS_FILE: fileOf(JSON.stringify({ issuers })) }
  const findings = await check({ env: withDirectory })
  t.same(faults(t, findings), [])
  t.match(
    findings.filter((finding) => finding.check === 'directory'),
    [{ status: 'passed', message: /can be watched/ }]
  )
  tenant.register(watcherId, { secrets: [{ value: watcherSecret }], roles: [] })
  t.same(faults(t, await check({ env: withDirectory })), ['failed directory_consent'])
})

t.test('it knows an issuer that is slow, and says by which way, and which of its keys are of no use', async (t) => {
  const { env, provider } = await setUp(t)
  const pause = () => delay(700)
  const slow = createServer(async (_request, response) => {
    await pause()
    const { port } = slow.address() as AddressInfo
    const own = `http://127.0.0.1:${port}`
    if (_request.url !== '/keys') {
      response.end(`\uFEFF${JSON.stringify({ issuer: own, jwks_uri: `${own}/keys` })}`)
      return
    }
    const [key, other] = [provider.keys[0]?.jwk, { ...provider.keys[0]?.jwk, kid: 'for encryption', use: 'enc' }]
    response.end(JSON.stringify({ keys: [key, other] }))
  }).listen(0, '127.0.0.1')
  t.teardown(() => slow.close())
  await once(slow, 'listening')
  const issuer = `http://127.0.0.1:${(slow.address() as AddressInfo).port}`
  const findings = await check({ env: { ...env, ISSUER: issuer } })
  t.same(faults(t, findings), ['warning keys_slow'])
  t.match(
    findings.filter((finding) => finding.check === 'issuer'),
    [{ status: 'passed', message: /: 1 of use; kid for encryption: .*; a byte order mark in / }, { status: 'warning' }]
  )
  const proxied = await check({
    env: { ...env, ISSUER: 'https://op.example', HTTPS_PROXY: `http://user:secret@127.0.0.1:${await freePort()}` }
  })
  t.match(
    proxied.filter((finding) => finding.check === 'issuer'),
    [{ status: 'failed', code: 'issuer_unreachable', message: /by the proxy http:\/\/127/ }]
  )
})

t.test("a cache's old Date header is no wrong clock", async (t) => {
  const { provider, env } = await setUp(t)
  const cache = createServer((_request, response) => {
    const date = new Date(Date.now() - 600_000).toUTCString()
    response.writeHead(200, { date, age: '600' }).end(JSON.stringify({ keys: provider.keys.map(({ jwk }) => jwk) }))
  }).listen(0, '127.0.0.1')
  await once(cache, 'listening')
  t.teardown(() => {
    cache.closeAllConnections()
    cache.close()
  })
  const file = join(temporaryFolder(t), 'issuers.json')
  const jwksUri = `http://127.0.0.1:${(cache.address() as { port: number }).port}/jwks`
  writeFileSync(
    file,
    JSON.stringify({ issuers: [{ name: 'main', issuer: provider.issuer, clientIds: [clientId], jwksUri }] })
  )
  const { ISSUER, CLIENT_IDS, ...rest } = env
  t.same(faults(t, await check({ env: { ...rest, ISSUERS_FILE: file } })), [])
})

t.test('every right that register_service grants is asked for', async (t) => {
  const { database, role, env } = await setUp(t)
  const granted = await database.query<{ revoke: string; grant: string }>(
    `select format('revoke execute on function %s from %I', p.oid::regprocedure, $1::text) as revoke,
      format('grant execute on function %s to %I', p.oid::regprocedure, $1::text) as grant
    from pg_proc p, aclexplode(p.proacl) a
    where a.grantee = $1::regrole
    union all
    select format('revoke select on %s from %I', c.oid::regclass, $1::text), format('grant select on %s to %I', c.oid::regclass, $1::text)
    from pg_class c, aclexplode(c.relacl) a
    where a.grantee = $1::regrole
    union all
    select format('revoke select (%I) on %s from %I', t.attname, t.attrelid::regclass, $1::text),
      format('grant select (%I) on %s to %I', t.attname, t.attrelid::regclass, $1::text)
    from pg_attribute t, aclexplode(t.attacl) a
    where a.grantee = $1::regrole`,
    [role]
  )
  t.ok(granted.length >= 10, 'the rights were found')
  for (const { revoke, grant } of granted) {
    await database.query(revoke)
    t.same(faults(t, await check({ env })), ['failed role_privileges'], revoke)
    await database.query(grant)
  }
  t.same(faults(t, await check({ env })), [])
})

t.test('the command tells it in lines or as one JSON object, and exits with 1 where something failed', async (t) => {
  const { env, provider } = await setUp(t)
  const sound = await call(t, ['check'], { env })
  t.equal(sound.code, 0, sound.stderr)
  t.match(sound.stdout, /^passed +configuration/)
  t.match(sound.stdout, /passed 8, warnings 0, failed 0\n$/)
  const elsewhere = { ...env, ADMIN_TOKEN: '', ISSUER: `${provider.issuer}/elsewhere` }
  const broken = await call(t, ['check', '--json'], { env: elsewhere })
  t.equal(broken.code, 1)
  t.match(JSON.parse(broken.stdout), { ok: false })
  t.match(toldFindings(JSON.parse(broken.stdout).checks), /\[operators_none\]\n +set ADMIN_TOKEN/)
})

import { once } from 'node:events'
import { chownSync, mkdirSync, readFileSync, renameSync, statSync, writeFileSync } from 'node:fs'
import { connect, createServer } from 'node:net'
import { join } from 'node:path'
import { Kysely, sql } from 'kysely'
import type pg from 'pg'
import { generate } from 'selfsigned'
import t, { type Test } from 'tap'
import {
  isPooled,
  limitedDialect,
  openPool,
  type PoolOptions,
  runStatement,
  runTransaction
} from '../src/connections.ts'
import { type EmbeddedPostgres, freePort, startEmbeddedPostgres } from '../src/embedded-postgres.ts'
import { createDatabase, createRole, serverUrl } from './fixtures/database.ts'
import { onServer } from './fixtures/postgres-server.ts'
import { startProxy } from './fixtures/proxy.ts'
import { temporaryFolder } from './fixtures/server.ts'
import { until } from './fixtures/until.ts'

const limits = {
  max: 4,
  connectTimeoutMs: 2_000,
  statementTimeoutMs: 1_500,
  lockTimeoutMs: 1_200,
  idleTransactionTimeoutMs: 5_000
}

function open(t: Test, url: string, options: Partial<PoolOptions> = {}): pg.Pool {
  const pool = openPool({ url, ...limits, ...options })
  pool.on('error', () => {})
  t.teardown(() => pool.end())
  return pool
}

/** Whether it is encrypted, once it is had; else what was said. */
async function encryptionOf(t: Test, url: string): Promise<boolean | string> {
  try {
    const [row] = await runStatement<{ ssl: boolean }>(open(t, url), {
      text: 'select ssl from pg_stat_ssl where pid = pg_backend_pid()',
      values: []
    })
    return row?.ssl ?? 'nothing'
  } catch (error) {
    return error instanceof Error && 'code' in error ? String(error.code) : String(error)
  }
}

function withParameters(url: string, parameters: Record<string, string>, host?: string): string {
  const changed = new URL(url)
  if (host !== undefined) {
    changed.hostname = host
  }
  for (const [name, value] of Object.entries(parameters)) {
    changed.searchParams.set(name, value)
  }
  return changed.href
}

const isPasswordless = { attributes: [{ name: 'commonName', value: 'test' }] }

/** A server with TLS, its certificate for `localhost` alone. */
async function startWithTls(t: Test) {
  const server = await startEmbeddedPostgres({ settings: { fsync: 'off', max_connections: '30' } })
  t.teardown(() => server.stop())
  const folder = temporaryFolder(t)
  const authority = await generate(isPasswordless.attributes, {
    extensions: [
      { name: 'basicConstraints', cA: true, critical: true },
      { name: 'keyUsage', keyCertSign: true }
    ]
  })
  const certificate = await generate([{ name: 'commonName', value: 'localhost' }], {
    algorithm: 'sha256',
    ca: { key: authority.private, cert: authority.cert },
    extensions: [{ name: 'subjectAltName', altNames: [{ type: 2, value: 'localhost' }] }]
  })
  const stranger = await generate(isPasswordless.attributes)
  const files = { authority: join(folder, 'ca.pem'), stranger: join(folder, 'other.pem') }
  writeFileSync(files.authority, authority.cert)
  writeFileSync(files.stranger, stranger.cert)
  giveServer(server, 'server.crt', certificate.cert)
  giveServer(server, 'server.key', certificate.private)
  const pool = open(t, server.url)
  await pool.query('alter system set ssl = on')
  await pool.query('select pg_reload_conf()')
  return {
    url: server.url,
    files,
    async admit(...lines: string[]) {
      giveServer(server, 'pg_hba.conf', `${lines.join('\n')}\n`)
      await pool.query('select pg_reload_conf()')
      // The postmaster reads it when the signal arrives: until then it admits as before.
      for (;;) {
        const { rows } = await pool.query(`select type, auth_method from pg_hba_file_rules order by rule_number`)
        const { rows: loaded } = await pool.query(`select pg_conf_load_time() > now() - interval '5 seconds' as is_new`)
        if (rows.length === lines.length && loaded[0].is_new) {
          return
        }
      }
    }
  }
}

function giveServer({ dataDir }: EmbeddedPostgres, name: string, content: string): void {
  const path = join(dataDir, name)
  const { uid, gid } = statSync(dataDir)
  writeFileSync(`${path}.new`, content, { mode: 0o600 })
  if (process.getuid?.() === 0) {
    chownSync(`${path}.new`, uid, gid)
  }
  renameSync(`${path}.new`, path)
}

t.test('TLS is as libpq means it', async (t) => {
  const { url, files, admit } = await startWithTls(t)
  const plainOnly = serverUrl() // has no TLS
  const { authority, stranger } = files
  const cases: [name: string, url: string, expected: boolean | string | RegExp][] = [
    ['no mode, offered', url, true],
    ['no mode, not offered', plainOnly, false],
    ['disable, offered', withParameters(url, { sslmode: 'disable' }), false],
    ['allow, offered', withParameters(url, { sslmode: 'allow' }), false],
    ['prefer, offered', withParameters(url, { sslmode: 'prefer' }), true],
    ['prefer, not offered', withParameters(plainOnly, { sslmode: 'prefer' }), false],
    ['require, whose certificate it may be', withParameters(url, { sslmode: 'require' }), true],
    ['require, not offered', withParameters(plainOnly, { sslmode: 'require' }), /does not support SSL/],
    ['require, with authorities', withParameters(url, { sslmode: 'require', sslrootcert: authority }), true],
    [
      'require, with other authorities',
      withParameters(url, { sslmode: 'require', sslrootcert: stranger }),
      /UNABLE_TO|SELF_SIGNED|CERT_/
    ],
    ['verify-ca', withParameters(url, { sslmode: 'verify-ca', sslrootcert: authority }), true],
    [
      'verify-ca, other authorities',
      withParameters(url, { sslmode: 'verify-ca', sslrootcert: stranger }),
      /UNABLE_TO|SELF_SIGNED|CERT_/
    ],
    [
      'verify-full, another name',
      withParameters(url, { sslmode: 'verify-full', sslrootcert: authority }),
      'ERR_TLS_CERT_ALTNAME_INVALID'
    ],
    ['verify-full', withParameters(url, { sslmode: 'verify-full', sslrootcert: authority }, 'localhost'), true],
    [
      'verify-full, by an address of its own',
      withParameters(url, { sslmode: 'verify-full', sslrootcert: authority, hostaddr: '127.0.0.1' }, 'localhost'),
      true
    ],
    [
      'verify-full, by an address of its own that is for another name',
      withParameters(url, { sslmode: 'verify-full', sslrootcert: authority, hostaddr: '127.0.0.1' }, 'elsewhere'),
      'ERR_TLS_CERT_ALTNAME_INVALID'
    ],
    ['verify-full, no authorities but those of Node.js', withParameters(url, { sslmode: 'verify-full' }), /UNABLE_TO/],
    ['direct negotiation', withParameters(url, { sslmode: 'require', sslnegotiation: 'direct' }), true],
    ['channel binding', withParameters(url, { sslmode: 'require', channel_binding: 'require' }), true],
    ['channel binding, not offered', withParameters(plainOnly, { channel_binding: 'require' }), 'ERR_DATABASE_BINDING']
  ]
  for (const [name, to, expected] of cases) {
    const found = await encryptionOf(t, to)
    if (expected instanceof RegExp) {
      t.match(String(found), expected, name)
    } else {
      t.equal(found, expected, name)
    }
  }

  const local = ['hostnossl all admin 127.0.0.1/32 trust', 'host all postgres 127.0.0.1/32 scram-sha-256']
  await admit('hostssl all postgres 127.0.0.1/32 scram-sha-256')
  t.equal(await encryptionOf(t, withParameters(url, { sslmode: 'allow' })), true, 'allow, and TLS alone is admitted')
  t.equal(
    await encryptionOf(t, withParameters(url, { sslmode: 'disable' })),
    '28000',
    'disable, and TLS alone is admitted'
  )
  await admit('hostnossl all postgres 127.0.0.1/32 scram-sha-256')
  t.equal(await encryptionOf(t, url), false, 'no mode, and only without TLS it is admitted')
  t.equal(
    await encryptionOf(t, withParameters(url, { sslmode: 'require' })),
    '28000',
    'require, and no TLS is admitted'
  )
  await admit(...local)
})

t.test('certificates are read for each connection, since they are renewed', async (t) => {
  const { url, files } = await startWithTls(t)
  const used = join(temporaryFolder(t), 'root.pem')
  writeFileSync(used, readFileSync(files.authority))
  const pool = open(t, withParameters(url, { sslmode: 'verify-ca', sslrootcert: used }), { max: 1 })
  await pool.query('select 1')
  writeFileSync(used, readFileSync(files.stranger))
  const held = await pool.connect()
  held.release(true) // the next one is new
  await t.rejects(pool.query('select 1'), 'the new file counts')
  renameSync(used, `${used}.away`)
  await t.rejects(pool.query('select 1'), { code: /UNABLE_TO|SELF_SIGNED|CERT_/ }, 'one that is away is as it was')
  renameSync(`${used}.away`, used)
  writeFileSync(used, readFileSync(files.authority))
  await pool.query('select 1')
})

t.test('of several hosts the first that can be had and takes writes is taken, also when it moves', async (t) => {
  const database = await createDatabase(t, { own: true })
  const standby = await startEmbeddedPostgres({ settings: { fsync: 'off', max_connections: '30' } })
  t.teardown(() => standby.stop())
  const name = new URL(database.url).pathname.slice(1)
  const { username, password } = new URL(database.url)
  const onStandby = open(t, standby.url)
  await onStandby.query(`alter role postgres password '${password}'`)
  await onStandby.query(`create database ${name}`)
  await onStandby.query(`alter database ${name} set default_transaction_read_only = on`)
  const proxy = await startProxy(t, database.url)
  const nobody = await freePort()
  const hung = createServer(() => {}).listen(0, '127.0.0.1')
  await once(hung, 'listening')
  t.teardown(() => hung.close())
  const address = hung.address()
  const silent = typeof address === 'object' && address !== null ? address.port : 0
  const portOf = (url: string) => Number(new URL(url).port)
  const urlOf = (ports: number[], query = '') =>
    `postgres://${username}:${password}@${ports.map((port) => `127.0.0.1:${port}`).join(',')}/${name}${query}`
  const portTaken = async (pool: pg.Pool) => {
    const [row] = await runStatement<{ port: number }>(pool, {
      text: `select current_setting('port')::int as port`,
      values: []
    })
    return row?.port
  }
  const primary = portOf(database.url)

  t.equal(await portTaken(open(t, urlOf([nobody, primary]))), primary, 'past one where nobody listens')
  t.equal(await portTaken(open(t, urlOf([silent, primary]))), primary, 'past one that does not answer')
  t.equal(await portTaken(open(t, urlOf([portOf(standby.url), primary]))), primary, 'past one that takes no writes')
  t.equal(
    await portTaken(open(t, urlOf([portOf(standby.url), primary], '?target_session_attrs=any'))),
    portOf(standby.url),
    'but not where any will do'
  )
  t.equal(
    await portTaken(open(t, urlOf([nobody, primary, silent], '?load_balance_hosts=random'))),
    primary,
    'in an order of chance'
  )
  await t.rejects(
    portTaken(open(t, urlOf([portOf(standby.url), nobody]))),
    { code: /ECONNREFUSED|ERR_DATABASE_STANDBY/ },
    'none'
  )
  await t.rejects(
    portTaken(open(t, urlOf([portOf(standby.url)], '?target_session_attrs=read-write'))),
    { code: 'ERR_DATABASE_STANDBY', message: `the database at 127.0.0.1:${portOf(standby.url)}: it takes no writes` },
    'and it says which'
  )
  await t.rejects(
    portTaken(open(t, urlOf([primary, portOf(standby.url)]).replace(password, 'wrong'))),
    { code: '28P01' },
    'a wrong password is wrong everywhere'
  )

  const pool = open(t, urlOf([proxy.port, primary]), { max: 2 })
  t.equal(await portTaken(pool), primary)
  const lost = once(pool, 'error')
  proxy.set('cut')
  await lost
  t.same(
    await Promise.all([1, 2, 3, 4, 5, 6].map(() => portTaken(pool).catch(() => undefined))).then((all) =>
      all.filter((port) => port === primary)
    ),
    Array.from({ length: 6 }, () => primary),
    'when the first goes down the others are taken at once'
  )
})

t.test('a Unix socket is taken, and needs neither TLS nor a port', async (t) => {
  const folder = temporaryFolder(t)
  mkdirSync(folder, { recursive: true })
  const target = new URL(serverUrl())
  const relay = createServer((socket) => {
    const upstream = connect(Number(target.port), target.hostname)
    socket.on('error', () => {}).on('close', () => upstream.destroy())
    upstream.on('error', () => socket.destroy()).on('close', () => socket.destroy())
    socket.pipe(upstream).pipe(socket)
  }).listen(join(folder, '.s.PGSQL.5432'))
  await once(relay, 'listening')
  t.teardown(() => relay.close())
  const credentials = `${target.username}:${target.password}`
  t.equal(await encryptionOf(t, `postgres://${credentials}@/postgres?host=${folder}`), false)
  t.equal(await encryptionOf(t, `postgres://${credentials}@${encodeURIComponent(folder)}/postgres`), false)
  t.equal(await encryptionOf(t, `postgres://${credentials}@/postgres?host=${folder}&sslmode=verify-full`), false)
})

t.test('a password comes out of a password file, anew for each connection', async (t) => {
  const database = await createDatabase(t)
  const role = await createRole(database, 'app')
  const file = join(temporaryFolder(t), 'pass')
  const url = new URL(database.url)
  const { host, pathname } = url
  const to = `postgres://${role}@${host}${pathname}?passfile=${file}`
  const cases: [line: string, isRight: boolean][] = [
    [`${url.hostname}:${url.port}:${pathname.slice(1)}:${role}:test`, true],
    [`*:*:*:${role}:test`, true],
    [`# a comment\n*:1:*:*:wrong\n*:*:*:*:te\\st`, true],
    [`*:*:elsewhere:*:test`, false],
    [`*:*:*:*:wrong\n*:*:*:*:test`, false]
  ]
  for (const [line, isRight] of cases) {
    writeFileSync(file, line)
    const found = await encryptionOf(t, to)
    t.equal(found === false, isRight, `${line}: ${found}`)
  }
  writeFileSync(file, '*:*:*:*:old')
  const pool = open(t, to)
  await t.rejects(pool.query('select 1'), { code: '28P01' })
  writeFileSync(file, '*:*:*:*:test')
  await pool.query('select 1')
})

t.test('no password is said to be wrong, and leaves no server waiting for one', async (t) => {
  const database = await createDatabase(t)
  const url = new URL(database.url)
  url.password = ''
  t.match(await encryptionOf(t, url.href), /28P01|password/)
  const waiting = () =>
    database.query<{ pid: number }>(
      `select pid from pg_stat_activity where backend_type = 'client backend' and coalesce(state, 'starting') = 'starting'`
    )
  // Other tests connect to the same server: what waits for a password now is ours or goes on at once.
  const now = (await waiting()).map(({ pid }) => pid)
  await until('none of them waits any more', async () => (await waiting()).every(({ pid }) => !now.includes(pid)), {
    withinMs: 30_000 // the server itself gives it up after a minute
  })
})

t.test("limits and settings are the service's own, whatever role and database are set to", async (t) => {
  const database = await createDatabase(t, { own: true })
  const name = new URL(database.url).pathname.slice(1)
  const hostile = {
    statement_timeout: '7',
    lock_timeout: '7',
    idle_in_transaction_session_timeout: '7',
    DateStyle: 'German',
    TimeZone: 'Asia/Kathmandu',
    default_transaction_isolation: 'serializable',
    search_path: 'elsewhere'
  }
  for (const [setting, value] of Object.entries(hostile)) {
    await database.query(`alter database ${name} set ${setting} = '${value}'`)
  }
  t.teardown(() => console.error('torn', performance.now()))
  const pool = open(t, `${database.url}?options=-c%20work_mem%3D5MB%20-c%20statement_timeout%3D3`)
  const names = [...Object.keys(hostile), 'work_mem', 'transaction_isolation', 'application_name']
  const [row] = await runStatement<{ found: unknown }>(pool, {
    text: `select jsonb_object_agg(s, current_setting(s)) as found from unnest($1::text[]) s`,
    values: [names]
  })
  console.error('asked', performance.now())
  t.same(row?.found, {
    statement_timeout: '1500ms',
    lock_timeout: '1200ms',
    idle_in_transaction_session_timeout: '5s',
    DateStyle: 'ISO, MDY',
    TimeZone: 'UTC',
    default_transaction_isolation: 'read committed',
    search_path: 'pg_catalog, pg_temp',
    work_mem: '5MB',
    transaction_isolation: 'read committed',
    application_name: 'msal-logout'
  })
})

t.test('what is committed is on disk, whatever the role is set to', async (t) => {
  const database = await createDatabase(t)
  const role = await createRole(database, 'service')
  const url = new URL(database.url)
  url.username = role
  url.password = 'test'
  const cases: [set: string, given: string, found: string][] = [
    ['off', '', 'on'],
    ['on', '', 'on'],
    ['local', '', 'local'],
    ['remote_write', '', 'remote_write'],
    ['remote_apply', '', 'remote_apply'],
    ['on', '?options=-c%20synchronous_commit%3Doff', 'on'],
    ['off', '?options=-c%20synchronous_commit%3Dremote_apply', 'remote_apply']
  ]
  for (const [set, given, found] of cases) {
    await database.query(`alter role ${role} set synchronous_commit = ${set}`)
    const [row] = await runStatement<{ found: string }>(open(t, `${url.href}${given}`), {
      text: `select current_setting('synchronous_commit') as found`,
      values: []
    })
    t.equal(row?.found, found, `${set} ${given}`)
  }
})

t.test('a database in another encoding is declined in one sentence', async (t) => {
  for (const encoding of ['LATIN1', 'SQL_ASCII']) {
    const name = `test_${encoding.toLowerCase()}_${process.pid}`
    await onServer(serverUrl(), `create database ${name} encoding '${encoding}' locale 'C' template template0`)
    t.teardown(() => onServer(serverUrl(), `drop database if exists ${name} with (force)`))
    const url = new URL(serverUrl())
    url.pathname = `/${name}`
    const pool = open(t, url.href)
    await t.rejects(pool.query('select 1'), {
      code: 'ERR_DATABASE_ENCODING',
      message: `the database at ${url.host} has the encoding ${encoding}: its encoding must be UTF8: create a database with "encoding 'UTF8' template template0"`
    })
  }
})

t.test('a transaction is kept, or undone where its work fails', async (t) => {
  const database = await createDatabase(t)
  const pool = open(t, database.url)
  const insert = (client: pg.ClientBase, id: string) =>
    client.query(`insert into msal_logout.apps (client_id) values ($1)`, [id])
  const ids = async () =>
    (await database.query('select client_id as id from msal_logout.apps order by 1')).map(({ id }) => id)
  await runTransaction(pool, (client) => insert(client, 'kept'))
  await t.rejects(
    runTransaction(pool, async (client) => {
      await insert(client, 'undone')
      throw new Error('ours')
    }),
    /ours/
  )
  await t.rejects(
    runTransaction(pool, async (client) => {
      await insert(client, 'undone')
      await client.query('select 1/0')
    }),
    { code: '22012' }
  )
  t.same(await ids(), ['kept'])
})

t.test("Kysely's statements are run with the same limits, and it is no way to a transaction", async (t) => {
  const database = await createDatabase(t)
  const pool = open(t, database.url)
  const kysely = new Kysely<object>({ dialect: limitedDialect(pool) })
  const { rows } = await sql<{ n: number }>`select ${1}::int as n`.execute(kysely)
  t.same(rows, [{ n: 1 }])
  await t.rejects(
    kysely.transaction().execute(async () => {}),
    /single statements/
  )
  const client = await pool.connect()
  t.equal(isPooled(client), false, 'and no pooler stands between')
  client.release()
})

t.test('connections that are cut while nobody uses them are replaced without a word', async (t) => {
  const database = await createDatabase(t)
  const pool = open(t, database.url, { max: 4 })
  const ask = () =>
    runStatement<{ pid: number }>(pool, { text: 'select pg_backend_pid() as pid, pg_sleep(0.05)', values: [] })
  const lost = (await Promise.all([ask(), ask(), ask(), ask()])).map(([row]) => row?.pid)
  t.equal(new Set(lost).size, 4)
  const gone = new Promise<void>((resolve) => {
    let count = 0
    pool.on('remove', () => {
      count += 1
      if (count === 4) {
        resolve()
      }
    })
  })
  await database.query('select pg_terminate_backend(p) from unnest($1::int[]) p', [lost])
  await gone
  t.equal((await Promise.all([ask(), ask()])).length, 2)
})

t.test('a connection that is lost before anybody uses it ends no process', async (t) => {
  const client = await open(t, serverUrl()).connect()
  client.emit('error', new Error('terminating connection due to administrator command'))
  client.release(true)
})

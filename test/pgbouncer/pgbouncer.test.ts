// `npm run test:pgbouncer`: the web apps' side through PgBouncer in transaction mode. Needs the program `pgbouncer`
// (Debian: apt-get install pgbouncer).
import { spawn } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { chmodSync, chownSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import pg from 'pg'
import t, { type Test } from 'tap'
import type { RevokedSession } from '../../clients/node/src/index.ts'
import { freePort } from '../../src/embedded-postgres.ts'
import { createTokenCache } from '../fixtures/client.ts'
import { createDatabase, type Database, serverUrl } from '../fixtures/database.ts'
import {
  audience,
  authority,
  createClient,
  createTokenEndpoint,
  type Person,
  redeem,
  silent
} from '../fixtures/msal.ts'
import { signOutBySql } from '../fixtures/orders.ts'

const alice: Person = { homeAccountId: 'Alice.t', subject: 'sub-alice', sid: 's-alice' }

/** A pool whose statements each may go over another connection. */
async function pooled(t: Test, database: Database): Promise<pg.Pool> {
  const server = new URL(serverUrl())
  const folder = mkdtempSync(join(tmpdir(), 'msal-logout-pgbouncer-'))
  t.teardown(() => rmSync(folder, { recursive: true, force: true }))
  const port = await freePort()
  const name = new URL(database.url).pathname.slice(1)
  const file = join(folder, 'pgbouncer.ini')
  writeFileSync(
    file,
    `[databases]
${name} = host=${server.hostname} port=${server.port} dbname=${name} user=${server.username} password=${server.password}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = ${port}
unix_socket_dir =
auth_type = any
pool_mode = transaction
default_pool_size = 4
server_round_robin = 1
`
  )
  // It refuses to run as root, as PostgreSQL does.
  const [, , uid, gid] = (readFileSync('/etc/passwd', 'utf8').match(/^nobody:.*$/m)?.[0] ?? '').split(':')
  const isRoot = process.getuid?.() === 0
  if (isRoot) {
    chmodSync(folder, 0o755)
    chownSync(file, Number(uid), Number(gid))
  }
  const child = spawn('pgbouncer', [file], {
    stdio: ['ignore', 'ignore', 'pipe'],
    ...(isRoot ? { uid: Number(uid), gid: Number(gid) } : {})
  })
  child.once('error', () => {
    throw new Error('pgbouncer is not installed: apt-get install pgbouncer')
  })
  t.teardown(async () => {
    const exited = once(child, 'exit')
    child.kill('SIGKILL')
    await exited
  })
  for await (const line of createInterface(child.stderr)) {
    if (line.includes('process up')) {
      break
    }
  }
  child.stderr.resume()
  const url = new URL(database.url)
  url.host = `127.0.0.1:${port}`
  const pool = new pg.Pool({ connectionString: url.href, max: 8 })
  pool.on('error', () => {})
  t.teardown(() => pool.end())
  return pool
}

function signOut(database: Database, sid: string): Promise<void> {
  return signOutBySql(database, { kind: 'session', issuer: authority, sid })
}

for (const encryption of [undefined, { current: 'k', keys: { k: randomBytes(32) } }]) {
  t.test(`login, load, save, sign-out and forget work${encryption ? ', encrypted' : ''}`, async (t) => {
    const database = await createDatabase(t)
    const pool = await pooled(t, database)
    const tokenCache = createTokenCache({
      pool,
      clientId: audience,
      onWarning: () => {},
      ...(encryption && { encryption })
    })
    const endpoint = createTokenEndpoint()
    await redeem(tokenCache.forLogin(), endpoint, alice)
    const scopes = Array.from({ length: 8 }, (_, i) => `r-${i}`)
    await Promise.all(
      scopes.map((scope) =>
        silent(tokenCache.forAccount(alice.homeAccountId), endpoint, alice.homeAccountId, { scopes: [scope] })
      )
    )
    for (const scope of scopes) {
      const { fromCache } = await silent(tokenCache.forAccount(alice.homeAccountId), endpoint, alice.homeAccountId, {
        scopes: [scope]
      })
      t.equal(fromCache, true, scope)
    }
    t.ok(await tokenCache.isSessionActive({ issuer: authority, sid: 's-alice' }))
    endpoint.beforeAnswer = async () => void (await signOut(database, 's-alice'))
    await t.rejects(
      silent(tokenCache.forAccount(alice.homeAccountId), endpoint, alice.homeAccountId, { forceRefresh: true }),
      { code: 'ERR_SIGNED_OUT' }
    )
    endpoint.beforeAnswer = async () => {}
    await redeem(tokenCache.forLogin(), endpoint, {
      ...alice,
      sid: 's-2',
      issuedAt: Math.floor(Date.now() / 1_000) + 5
    })
    t.equal(await tokenCache.removeAccount(alice.homeAccountId), true)
    const app = await createClient(tokenCache.forApp('app'), endpoint).acquireTokenByClientCredential({
      scopes: ['x/.default']
    })
    t.ok(app?.accessToken)
  })
}

t.test('onPurge takes a connection of its own, past the pooler', async (t) => {
  const database = await createDatabase(t)
  const pool = await pooled(t, database)
  const tokenCache = createTokenCache({ pool, listenPool: database.pool, clientId: audience, onWarning: () => {} })
  let tell: (ended: RevokedSession) => void = () => {}
  const told = new Promise<RevokedSession>((resolve) => {
    tell = resolve
  })
  t.teardown(await tokenCache.onPurge(tell))
  await redeem(tokenCache.forLogin(), createTokenEndpoint(), alice)
  await signOut(database, 's-alice')
  t.match(await told, { sid: 's-alice' })
})

// `npm run test:pgbouncer`: the web apps' side through PgBouncer in transaction mode. Needs the program `pgbouncer`
// (Debian: apt-get install pgbouncer).
import { randomBytes } from 'node:crypto'
import pg from 'pg'
import t, { type Test } from 'tap'
import type { RevokedSession } from '../../clients/node/src/index.ts'
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
import { startPgBouncer } from '../fixtures/pgbouncer.ts'

const alice: Person = { homeAccountId: 'Alice.t', subject: 'sub-alice', sid: 's-alice' }

/** A pool whose statements each may go over another connection. */
async function pooled(t: Test, database: Database): Promise<pg.Pool> {
  const server = new URL(serverUrl())
  const name = new URL(database.url).pathname.slice(1)
  const port = await startPgBouncer(t, {
    databases: `${name} = host=${server.hostname} port=${server.port} dbname=${name} user=${server.username} password=${server.password}`,
    settings: 'auth_type = any\npool_mode = transaction\ndefault_pool_size = 4'
  })
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

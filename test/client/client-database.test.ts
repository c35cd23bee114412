import pg from 'pg'
import t, { type Test } from 'tap'
import type { TokenCacheOptions } from '../../clients/node/src/index.ts'
import { createTokenCache } from '../fixtures/client.ts'
import { createDatabase, type Database } from '../fixtures/database.ts'
import {
  audience,
  authority,
  createClient,
  createTokenEndpoint,
  type Person,
  redeem,
  silent
} from '../fixtures/msal.ts'
import { nowSeconds, signOutBySql } from '../fixtures/orders.ts'
import { startProxy } from '../fixtures/proxy.ts'
import { until } from '../fixtures/until.ts'

const alice: Person = { homeAccountId: 'Alice.t', subject: 'sub-alice', sid: 's-alice' }
const session = { issuer: authority, sid: 's-alice' }

/** A token cache whose way to the database the test can cut. */
async function build(t: Test, options: Partial<TokenCacheOptions> & { pg?: pg.PoolConfig } = {}) {
  const database = await createDatabase(t)
  const proxy = await startProxy(t, database.url)
  const url = new URL(database.url)
  url.hostname = '127.0.0.1'
  url.port = String(proxy.port)
  const pool = new pg.Pool({ connectionString: url.href, max: 2, application_name: 'the app', ...options.pg })
  t.teardown(() => pool.end())
  const warnings: string[] = []
  const tokenCache = createTokenCache({
    pool,
    clientId: audience,
    onWarning: (message) => warnings.push(message),
    ...options
  })
  const endpoint = createTokenEndpoint()
  await redeem(createTokenCache({ pool: database.pool, clientId: audience }).forLogin(), endpoint, alice)
  return { database, proxy, pool, tokenCache, endpoint, warnings }
}

const outcome = (work: Promise<unknown>) => work.catch((error: unknown) => error)

t.test('a silent database is given up after the time limit, by every call', async (t) => {
  const { proxy, tokenCache, endpoint, pool } = await build(t, { timeoutMs: 1_000, pg: { max: 20 } })
  await tokenCache.isSessionActive(session) // a connection that is open when it falls silent
  proxy.set('hang')
  const calls: Record<string, () => Promise<unknown>> = {
    login: () => redeem(tokenCache.forLogin(), endpoint, alice),
    silent: () => silent(tokenCache.forAccount('Alice.t'), endpoint, 'Alice.t'),
    app: () =>
      createClient(tokenCache.forApp('app'), endpoint).acquireTokenByClientCredential({ scopes: ['x/.default'] }),
    isSessionActive: () => tokenCache.isSessionActive(session),
    removeAccount: () => tokenCache.removeAccount('Alice.t'),
    onPurge: () => tokenCache.onPurge(() => {}),
    check: () => tokenCache.check()
  }
  const outcomes = await Promise.all(
    Object.entries(calls).map(async ([name, call]) => ({ name, error: await outcome(call()) }))
  )
  for (const { name, error } of outcomes) {
    const expected = {
      code: 'ERR_TOKEN_CACHE_DATABASE',
      isUnavailable: true,
      statusCode: 503,
      message: /within 1000 ms/
    }
    t.match(error, expected, name)
  }
  proxy.set('open')
  t.equal(await tokenCache.isSessionActive(session), true, 'and it is used again when it is back')
  t.equal((await silent(tokenCache.forAccount('Alice.t'), endpoint, 'Alice.t')).fromCache, true)
  t.equal(pool.idleCount, pool.totalCount, 'no connection is left behind')
})

t.test('more calls than the pool has connections are given up in time, too', async (t) => {
  const { proxy, tokenCache } = await build(t, { timeoutMs: 1_000 })
  proxy.set('hang')
  const outcomes = await Promise.all(Array.from({ length: 20 }, () => outcome(tokenCache.isSessionActive(session))))
  t.equal(outcomes.filter((error) => error instanceof Error).length, 20)
  proxy.set('open') // what is still being connected ends
})

t.test('a connection that comes too late is kept for the next call', async (t) => {
  const { tokenCache, pool } = await build(t, { timeoutMs: 1_000, pg: { max: 1 } })
  const client = await pool.connect()
  const waiting = outcome(tokenCache.isSessionActive(session))
  t.match(await waiting, { code: 'ERR_TOKEN_CACHE_DATABASE' })
  client.release()
  t.equal(await tokenCache.isSessionActive(session), true)
  t.equal(pool.totalCount, 1)
  t.equal(pool.idleCount, 1)
})

t.test('a database that has been restarted is used again, and no error ends the process', async (t) => {
  const { database, tokenCache, endpoint, pool } = await build(t)
  for (let i = 0; i < 3; i += 1) {
    t.equal(await tokenCache.isSessionActive(session), true)
    const removed = new Promise((resolve) => pool.once('remove', resolve))
    await terminateAll(database)
    if (i === 1) {
      await removed
    }
    t.equal((await silent(tokenCache.forAccount('Alice.t'), endpoint, 'Alice.t')).fromCache, true)
  }
})

t.test('a database that refuses connections is told at once, and used again', async (t) => {
  const { proxy, tokenCache } = await build(t)
  proxy.set('cut')
  t.match(await outcome(tokenCache.isSessionActive(session)), { code: 'ERR_TOKEN_CACHE_DATABASE', statusCode: 503 })
  proxy.set('open')
  t.equal(await tokenCache.isSessionActive(session), true)
})

function terminateAll(database: Database): Promise<unknown> {
  return database.query(
    `select pg_terminate_backend(pid) from pg_stat_activity
    where datname = current_database() and application_name = 'the app'`
  )
}

t.test('the pool without a listener is warned of once, with the first use, and one that has one is not', async (t) => {
  const { tokenCache, warnings, pool } = await build(t)
  t.same(warnings, [])
  await tokenCache.isSessionActive(session)
  await tokenCache.isSessionActive(session)
  t.equal(warnings.length, 1)
  t.match(warnings[0], /pool\.on\('error'/)
  t.doesNotThrow(() => pool.emit('error', new Error('an idle connection was lost'), undefined as never))

  const other = await build(t)
  other.pool.on('error', () => {}) // after the token cache was made: an app may do so
  await other.tokenCache.isSessionActive(session)
  t.same(other.warnings, [])
})

t.test("the app's own parsers of numbers change nothing", async (t) => {
  const { database } = await build(t)
  const types = { getTypeParser: (oid: number) => (oid === 20 ? Number : pg.types.getTypeParser(oid)) }
  const pool = new pg.Pool({ connectionString: database.url, types: types as never })
  pool.on('error', () => {})
  t.teardown(() => pool.end())
  t.same((await pool.query('select 1::bigint as n')).rows, [{ n: 1 }])
  const encryption = { current: 'k', keys: { k: Buffer.alloc(32, 1) } }
  const theirs = createTokenCache({ pool, clientId: audience, encryption })
  const ours = createTokenCache({ pool: database.pool, clientId: audience, encryption })
  const endpoint = createTokenEndpoint()
  await redeem(theirs.forLogin(), endpoint, alice)
  t.equal((await silent(ours.forAccount('Alice.t'), endpoint, 'Alice.t')).fromCache, true)
  await silent(theirs.forAccount('Alice.t'), endpoint, 'Alice.t', { forceRefresh: true })
})

for (const level of ['serializable', 'repeatable read']) {
  t.test(`under ${level} refreshes still merge, and the one who loses is signed out`, async (t) => {
    const { database } = await build(t)
    const url = new URL(database.url)
    url.searchParams.set('options', `-c default_transaction_isolation=${level.replace(' ', '\\ ')}`)
    const pool = new pg.Pool({ connectionString: url.href, max: 8, application_name: 'the app' })
    pool.on('error', () => {})
    t.teardown(() => pool.end())
    t.match((await pool.query('show transaction_isolation')).rows, [{ transaction_isolation: level }])
    const tokenCache = createTokenCache({ pool, clientId: audience })
    const endpoint = createTokenEndpoint()
    const scopes = Array.from({ length: 8 }, (_, i) => `r-${i}`)
    const ask = (scope: string) => silent(tokenCache.forAccount('Alice.t'), endpoint, 'Alice.t', { scopes: [scope] })
    await Promise.all(scopes.map(ask))
    for (const scope of scopes) {
      t.equal((await ask(scope)).fromCache, true)
    }

    // The sign-out has its locks, and commits when the other one waits for them: that one gets 40001.
    for (const [name, lose] of [
      ['a refresh', () => silent(tokenCache.forAccount('Alice.t'), endpoint, 'Alice.t', { forceRefresh: true })],
      ['a login', () => redeem(tokenCache.forLogin(), endpoint, { ...alice, issuedAt: nowSeconds() - 5 })]
    ] as const) {
      await redeem(tokenCache.forLogin(), endpoint, { ...alice, issuedAt: nowSeconds() + 5 })
      const signOut = await database.pool.connect()
      await signOut.query('begin')
      await signOutBySql(signOut, { kind: 'session', ...session }, { revokeBefore: nowSeconds() + 60 })
      const lost = outcome(lose())
      await until('it waits for the sign-out', async () => {
        const waiting = await database.query(
          `select from pg_stat_activity where application_name = 'the app' and wait_event_type = 'Lock'`
        )
        return waiting.length > 0
      })
      await signOut.query('commit')
      signOut.release()
      t.match(await lost, { code: 'ERR_SIGNED_OUT', statusCode: 401 }, name)
      t.same(await database.query('select * from msal_logout.token_cache'), [], name)
      await database.query('delete from msal_logout.tombstones')
    }
  })
}

t.test('no error quotes a row', async (t) => {
  const { database, tokenCache, endpoint } = await build(t)
  await database.query(
    `alter table msal_logout.token_cache add constraint no_more check (client_id <> '${audience}') not valid`
  )
  t.teardown(() => database.query('alter table msal_logout.token_cache drop constraint no_more'))
  const error = (await outcome(
    silent(tokenCache.forAccount('Alice.t'), endpoint, 'Alice.t', { forceRefresh: true })
  )) as Error
  t.match(error, { code: 'ERR_TOKEN_CACHE_DATABASE', isUnavailable: false, statusCode: 500 })
  const { inspect } = await import('node:util')
  const shown = inspect(error, { depth: 10, showHidden: true })
  t.match(shown, /23514/)
  t.notMatch(shown, /Failing row|secret|"detail"|at-Alice/)
})

t.test('a pool that is none, and options that are missing, say what to do', async (t) => {
  const { pool } = await createDatabase(t)
  const client = new pg.Client()
  const misuses: [string, () => unknown, RegExp][] = [
    ['no options', () => createTokenCache(undefined as never), /"pool" must be a Pool of pg, and is undefined/],
    ['a URL', () => createTokenCache({ pool: 'postgres://u:hush@h/d' as never, clientId: 'a' }), /is a string/],
    ['a client', () => createTokenCache({ pool: client as never, clientId: 'a' }), /of the class "Client"/],
    ['a class', () => createTokenCache({ pool: pg.Pool as never, clientId: 'a' }), /was "new" forgotten/],
    ['no client id', () => createTokenCache({ pool, clientId: undefined }), /"clientId" is undefined/],
    ['an empty client id', () => createTokenCache({ pool, clientId: '' }), /"clientId" is empty/],
    ['a life of nothing', () => createTokenCache({ pool, clientId: 'a', ttlSeconds: 0 }), /"ttlSeconds"/],
    ['a limit that is none', () => createTokenCache({ pool, clientId: 'a', timeoutMs: Number.NaN }), /"timeoutMs"/],
    ['another pool that is none', () => createTokenCache({ pool, clientId: 'a', listenPool: {} as never }), /"pool"/],
    [
      'a key in hex',
      () =>
        createTokenCache({ pool, clientId: 'a', encryption: { current: 'k', keys: { k: 'ab'.repeat(32) as never } } }),
      /must be a Buffer of 32 bytes, and is a string/
    ],
    ...['secret', {}, { current: 'k' }, { keys: {} }, null].map((encryption): (typeof misuses)[number] => [
      `encryption that is ${JSON.stringify(encryption)}`,
      () => createTokenCache({ pool, clientId: 'a', encryption: encryption as never }),
      /"encryption" must be \{ current: 'k1'/
    ])
  ]
  for (const [name, misuse, message] of misuses) {
    t.throws(misuse, { code: 'ERR_TOKEN_CACHE_MISUSE', message }, name)
  }
  t.throws(() => createTokenCache({ pool: 'postgres://u:hush@h/d' as never, clientId: 'a' }), {
    message: /^(?!.*hush)/
  })
})

t.test('a method that is given wrong things, or is not called, says what to do', async (t) => {
  const { pool } = await createDatabase(t)
  const endpoint = createTokenEndpoint()
  const tokenCache = createTokenCache({ pool, clientId: audience })
  t.throws(() => tokenCache.forAccount(undefined as never), {
    code: 'ERR_TOKEN_CACHE_MISUSE',
    message: /"homeAccountId" is undefined.*account\.homeAccountId/
  })
  t.throws(() => tokenCache.forAccount(null as never), { message: /"homeAccountId" is null/ })
  for (const checks of ['a nonce', { nonce: undefined }, { nonce: '' }, null]) {
    t.throws(() => tokenCache.forLogin(checks as never), { message: /takes the "nonce" that the sign-in began with/ })
  }
  t.throws(() => tokenCache.forApp('' as never), { message: /"partitionKey" is empty/ })
  t.throws(() => tokenCache.forAssertion({} as never), { message: /"assertion" is object/ })
  await t.rejects(redeem(tokenCache.forLogin as never, endpoint, alice), {
    code: 'ERR_TOKEN_CACHE_MISUSE',
    message: /call it: cachePlugin: tokenCache\.forLogin\(\)/
  })
  await t.rejects(redeem(tokenCache as never, endpoint, alice), {
    code: 'ERR_TOKEN_CACHE_MISUSE',
    message: /no plugin itself: cachePlugin: tokenCache\.forAccount/
  })
  await t.rejects(tokenCache.isSessionActive({ issuer: authority }), { message: /"sid", or "subject"/ })
  await t.rejects(tokenCache.isSessionActive(undefined as never), { message: /keep iss, sid and sub/ })
  await t.rejects(tokenCache.onPurge(undefined as never), { message: /takes a function/ })
})

t.test("a client id that is not MSAL's is found with the first operation", async (t) => {
  const { pool } = await createDatabase(t)
  const endpoint = createTokenEndpoint()
  const tokenCache = createTokenCache({ pool, clientId: 'another' })
  const message = /for the client id "another", and MSAL has "client-a"/
  await t.rejects(redeem(tokenCache.forLogin(), endpoint, alice), { code: 'ERR_TOKEN_CACHE_MISUSE', message })
  await t.rejects(silent(tokenCache.forAccount('Alice.t'), endpoint, 'Alice.t'), { message })
})

t.test('onPurge needs no other connection than its own', async (t) => {
  const { database } = await build(t)
  const pool = new pg.Pool({ connectionString: database.url, max: 1 })
  pool.on('error', () => {})
  t.teardown(() => pool.end())
  const tokenCache = createTokenCache({ pool, clientId: audience })
  await t.rejects(
    tokenCache.onPurge(() => {}),
    { code: 'ERR_TOKEN_CACHE_MISUSE', message: /"max" of 2 or more/ }
  )
})

import { randomBytes } from 'node:crypto'
import type { Configuration } from '@azure/msal-node'
import pg from 'pg'
import t, { type Test } from 'tap'
import type { TokenCacheOptions } from '../../clients/node/src/index.ts'
import { createTokenCache } from '../fixtures/client.ts'
import { createDatabase, createRole, type Database } from '../fixtures/database.ts'
import { audience, authority, createTokenEndpoint, redeem } from '../fixtures/msal.ts'

function connect(t: Test, database: Database, { role, options }: { role?: string; options?: string } = {}): pg.Pool {
  const url = new URL(database.url)
  if (role !== undefined) {
    url.username = role
    url.password = 'test'
  }
  if (options !== undefined) {
    url.searchParams.set('options', options)
  }
  const pool = new pg.Pool({ connectionString: url.href, max: 2, connectionTimeoutMillis: 30_000 })
  pool.on('error', () => {})
  t.teardown(() => pool.end())
  return pool
}

/** What `check` says: its error, and what it warns of. */
async function look(pool: pg.Pool, options: Partial<TokenCacheOptions> = {}, configuration?: Configuration) {
  const warnings: string[] = []
  const tokenCache = createTokenCache({
    pool,
    clientId: audience,
    onWarning: (message) => warnings.push(message),
    ...options
  })
  const error: unknown = await tokenCache.check(configuration && { configuration }).then(
    () => undefined,
    (error: unknown) => error
  )
  return { error: error as Error | undefined, warnings }
}

t.test('an app with a role of its own has nothing to mend', async (t) => {
  const database = await createDatabase(t)
  const role = await createRole(database, 'app')
  await database.query('select msal_logout.register_app($1, $2)', [audience, role])
  const pool = connect(t, database, { role })
  const encryption = { current: 'k', keys: { k: randomBytes(32) } }
  t.same(await look(pool), { error: undefined, warnings: [] })
  t.same(await look(pool, { encryption }), { error: undefined, warnings: [] })
})

t.test('the owner may do all, and is warned', async (t) => {
  const database = await createDatabase(t)
  const { error, warnings } = await look(connect(t, database))
  t.equal(error, undefined)
  t.equal(warnings.length, 1)
  t.match(warnings[0], /can read every app's rows.*register_app\('client-a', '<role>'\)/)
})

t.test('a pool that waits for ever, and one without a listener, are warned of', async (t) => {
  const database = await createDatabase(t)
  const role = await createRole(database, 'app')
  await database.query('select msal_logout.register_app($1, $2)', [audience, role])
  const url = new URL(database.url)
  url.username = role
  url.password = 'test'
  const pool = new pg.Pool({ connectionString: url.href })
  t.teardown(() => pool.end())
  const { error, warnings } = await look(pool)
  t.equal(error, undefined)
  t.match(warnings, [/no listener for "error"/, /"connectionTimeoutMillis"/])
})

t.test('with the configuration of MSAL its client id and its authority are looked at, too', async (t) => {
  const database = await createDatabase(t)
  const role = await createRole(database, 'app')
  await database.query('select msal_logout.register_app($1, $2)', [audience, role])
  const pool = connect(t, database, { role })
  const answers = (status: number, body: object, auth: object = {}) =>
    createConfiguration(async () => ({ headers: {}, status, body }), auth)
  t.same(await look(pool, {}, answers(200, { issuer: authority })), { error: undefined, warnings: [] })

  const noTenant = 'https://login.microsoftonline.com/no-tenant'
  for (const [name, configuration, message] of [
    ['another issuer', answers(200, { issuer: 'https://other.example' }), /no OpenID issuer.*https:\/\/other/],
    ['no document', answers(404, {}), /answers 404: give the issuer as "authority"/],
    ['another client id', answers(200, { issuer: authority }, { clientId: 'another' }), /has "another": give both/],
    ['a tenant that is not there', answers(400, {}, { authority: noTenant }), /no-tenant\/v2\.0\/.* answers 400/],
    ['no URL', answers(200, {}, { authority: 'login.example' }), /"login\.example" is no URL/]
  ] as const) {
    t.match((await look(pool, {}, configuration)).error, { code: 'ERR_TOKEN_CACHE_MISUSE', message }, name)
  }

  const away = createConfiguration(() => Promise.reject(new Error('no such host')))
  const { error } = await look(pool, {}, away)
  t.match(error, { code: 'ERR_PROVIDER_UNAVAILABLE', message: /no such host.*NODE_EXTRA_CA_CERTS/ }, 'an outage')
  const stranger = await createRole(database, 'stranger')
  const both = await look(connect(t, database, { role: stranger }), {}, away)
  t.match(
    both.error,
    { code: 'ERR_TOKEN_CACHE_MISUSE', message: /\n- .*register_app.*\n- .*no such host/ },
    'and a mistake'
  )
})

/** MSAL's, whose network answers a request for a document in this way. */
function createConfiguration(answer: () => Promise<unknown>, auth: object = {}): Configuration {
  const networkClient = { ...createTokenEndpoint(), sendGetRequestAsync: answer as never }
  return { auth: { clientId: audience, clientSecret: 'secret', authority, ...auth }, system: { networkClient } }
}

t.test('what is missing is told with its remedy', async (t) => {
  const misuse = 'ERR_TOKEN_CACHE_MISUSE'

  await t.test('a database without the schema', async (t) => {
    const database = await createDatabase(t, { migrated: false })
    t.match((await look(connect(t, database))).error, { code: misuse, message: /run "msal-logout migrate"/ })
    await t.rejects(
      redeem(createTokenCache({ pool: database.pool, clientId: audience }).forLogin(), createTokenEndpoint(), {
        homeAccountId: 'a.t',
        subject: 'a'
      }),
      { code: misuse, message: /run "msal-logout migrate"/ },
      'and an operation says the same'
    )
  })

  await t.test('a function that is not there', async (t) => {
    const database = await createDatabase(t, { own: true })
    await database.query('alter function msal_logout.ended_since rename to another')
    t.match((await look(connect(t, database))).error, {
      code: misuse,
      message: /lacks ended_since: run "msal-logout migrate"/
    })
  })

  await t.test('a role that is registered for nothing', async (t) => {
    const database = await createDatabase(t)
    const role = await createRole(database, 'stranger')
    const { error } = await look(connect(t, database, { role }))
    t.match(error, { code: misuse })
    t.match(error?.message, `select msal_logout.register_app('client-a', '${role}')`)
  })

  await t.test("a client id that is another role's", async (t) => {
    const database = await createDatabase(t)
    const [mine, theirs] = [await createRole(database, 'mine'), await createRole(database, 'theirs')]
    await database.query(`select msal_logout.register_app('mine', $1), msal_logout.register_app('client-a', $2)`, [
      mine,
      theirs
    ])
    const { error } = await look(connect(t, database, { role: mine }))
    t.match(error, { code: misuse, message: /may not use this client id.*register_app/ })
    t.match(error?.message, /"client-a" is not for role/)
  })

  await t.test('a database that only reads', async (t) => {
    const database = await createDatabase(t)
    const { error } = await look(connect(t, database, { options: '-c default_transaction_read_only=on' }))
    t.match(error, { code: misuse, message: /must lead to the primary/ })
  })

  await t.test('a database that is not UTF-8', async (t) => {
    const database = await createDatabase(t)
    const name = `test_${randomBytes(6).toString('hex')}`
    await database.query(`create database ${name} template template0 encoding 'LATIN1' lc_collate 'C' lc_ctype 'C'`)
    t.teardown(() => database.query(`drop database ${name} with (force)`))
    const url = new URL(database.url)
    url.pathname = `/${name}`
    const { error } = await look(connect(t, { ...database, url: url.href }))
    t.match(error?.message, /has the encoding LATIN1: create it with encoding 'UTF8'/)
    t.match(error?.message, /msal-logout migrate/, 'and everything else in the same message')
  })

  await t.test('a database that is not there', async (t) => {
    const database = await createDatabase(t)
    const url = new URL(database.url)
    url.port = '1'
    const { error } = await look(connect(t, { ...database, url: url.href }))
    t.match(error, { code: 'ERR_TOKEN_CACHE_DATABASE', message: /ECONNREFUSED/ })
  })

  await t.test('a password that is wrong is not shown', async (t) => {
    const database = await createDatabase(t)
    const url = new URL(database.url)
    url.username = 'nobody-is-called-so'
    url.password = 'hush'
    const { error } = await look(connect(t, { ...database, url: url.href }))
    t.match(error, { code: 'ERR_TOKEN_CACHE_MISUSE', message: /mend the URL of the pool/ })
    t.notMatch(String(error?.message), 'hush')
  })
})

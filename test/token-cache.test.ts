import { randomBytes, randomUUID } from 'node:crypto'
import pg from 'pg'
import t, { type Test } from 'tap'
import {
  checkMsalVersion,
  createTokenCache,
  type TokenCache,
  type TokenCacheOptions
} from '../clients/node/src/index.ts'
import { createDatabase, type Database } from './fixtures/database.ts'
import {
  audience,
  authority,
  createClient,
  createTokenEndpoint,
  jwt,
  type Person,
  redeem,
  silent
} from './fixtures/msal.ts'

const alice: Person = { homeAccountId: 'Alice.t', subject: 'sub-alice', sid: 's-alice' }
const bob: Person = { homeAccountId: 'bob.t', subject: 'sub-bob', sid: 's-bob' }

interface App {
  database: Database
  tokenCache: TokenCache
  endpoint: ReturnType<typeof createTokenEndpoint>
  warnings: string[]
  /** The entities of a stored row by section, with the accounts they belong to. */
  stored(partitionKey: string): Promise<Record<string, Record<string, Record<string, string>>> | undefined>
  signOut(sid: string): Promise<void>
}

async function build(
  t: Test,
  { own = false, ...options }: Partial<TokenCacheOptions> & { own?: boolean } = {}
): Promise<App> {
  const database = await createDatabase(t, { own })
  const warnings: string[] = []
  const tokenCache = createTokenCache({
    pool: database.pool,
    clientId: audience,
    onWarning: (message) => warnings.push(message),
    ...options
  })
  return {
    database,
    tokenCache,
    endpoint: createTokenEndpoint(),
    warnings,
    async stored(partitionKey) {
      const [row] = await database.query<{ payload: Buffer }>(
        'select payload from msal_logout.token_cache where partition_key = $1',
        [partitionKey]
      )
      return row && JSON.parse(row.payload.toString())
    },
    async signOut(sid) {
      await database.query('select * from msal_logout.sign_out($1)', [
        JSON.stringify([
          {
            id: randomUUID(),
            source: 'backchannel',
            issuer: authority,
            sid,
            not_after: Math.floor(Date.now() / 1_000),
            whole_subject: false,
            purge_scope: 'account'
          }
        ])
      ])
    }
  }
}

/** The resources that a stored row has access tokens for. */
function targets(stored: Awaited<ReturnType<App['stored']>>): (string | undefined)[] {
  return Object.values(stored?.AccessToken ?? {})
    .map(({ target }) => target?.split(' ')[0])
    .sort()
}

t.test('a login makes the row, and a silent request is served from it', async (t) => {
  const app = await build(t)
  const { account } = await redeem(app.tokenCache.forLogin(), app.endpoint, alice)
  t.equal(account.homeAccountId, alice.homeAccountId)
  const result = await silent(app.tokenCache.forAccount(alice.homeAccountId), app.endpoint, alice.homeAccountId)
  t.equal(result.fromCache, true)
  t.equal(app.endpoint.requests, 1)
  t.ok(await app.tokenCache.isSessionActive({ issuer: authority, sid: 's-alice' }))
  t.notOk(await app.tokenCache.isSessionActive({ issuer: authority, sid: 'another' }))
})

t.test('a statement has a name only where prepared statements are asked for', async (t) => {
  const app = await build(t)
  const pool = new pg.Pool({ connectionString: app.database.url, max: 1 })
  t.teardown(() => pool.end())
  const prepared = async () =>
    (await pool.query<{ name: string }>('select name from pg_prepared_statements order by name')).rows.map(
      ({ name }) => name
    )
  for (const [preparedStatements, names] of [
    [false, []],
    [true, ['msal_logout_load', 'msal_logout_login']]
  ] as const) {
    const tokenCache = createTokenCache({ pool, clientId: audience, preparedStatements })
    await redeem(tokenCache.forLogin(), app.endpoint, alice)
    for (let i = 0; i < 2; i++) {
      const result = await silent(tokenCache.forAccount(alice.homeAccountId), app.endpoint, alice.homeAccountId)
      t.equal(result.fromCache, true)
    }
    t.same(await prepared(), names)
  }
})

t.test('a refresh is saved, and an expired access token is dropped with it', async (t) => {
  const app = await build(t)
  await redeem(app.tokenCache.forLogin(), app.endpoint, alice)
  await app.database.query(
    `update msal_logout.token_cache set payload = convert_to(
      regexp_replace(convert_from(payload, 'UTF8'), '"expires_on":"[0-9]+"', '"expires_on":"1"'), 'UTF8')`
  )
  const options = { scopes: ['api-2'] }
  const first = await silent(app.tokenCache.forAccount(alice.homeAccountId), app.endpoint, alice.homeAccountId, options)
  t.equal(first.fromCache, false)
  const second = await silent(
    app.tokenCache.forAccount(alice.homeAccountId),
    app.endpoint,
    alice.homeAccountId,
    options
  )
  t.equal(second.fromCache, true)
  const stored = await app.stored(alice.homeAccountId)
  t.same(targets(stored), ['api-2'])
})

t.test('a login that lost against a sign-out rejects, and stores nothing', async (t) => {
  const app = await build(t)
  app.endpoint.beforeAnswer = () => app.signOut('s-alice')
  const issuedAt = Math.floor(Date.now() / 1_000) - 5
  await t.rejects(redeem(app.tokenCache.forLogin(), app.endpoint, { ...alice, issuedAt }), { code: 'ERR_SIGNED_OUT' })
  t.equal(await app.stored(alice.homeAccountId), undefined)
})

t.test('a refresh that lost against a sign-out rejects, wherever it was under way', async (t) => {
  await t.test('at the token endpoint', async (t) => {
    const app = await build(t)
    await redeem(app.tokenCache.forLogin(), app.endpoint, alice)
    app.endpoint.beforeAnswer = () => app.signOut('s-alice')
    await t.rejects(
      silent(app.tokenCache.forAccount(alice.homeAccountId), app.endpoint, alice.homeAccountId, { forceRefresh: true }),
      { code: 'ERR_SIGNED_OUT' }
    )
    t.equal(await app.stored(alice.homeAccountId), undefined)
  })
  await t.test('between its last load and its save', async (t) => {
    const app = await build(t)
    await redeem(app.tokenCache.forLogin(), app.endpoint, alice)
    const plugin = app.tokenCache.forAccount(alice.homeAccountId)
    const refresh = silent(
      {
        beforeCacheAccess: (context) => plugin.beforeCacheAccess(context),
        async afterCacheAccess(context) {
          if (context.cacheHasChanged) {
            await app.signOut('s-alice')
          }
          await plugin.afterCacheAccess(context)
        }
      },
      app.endpoint,
      alice.homeAccountId,
      { forceRefresh: true }
    )
    await t.rejects(refresh, { code: 'ERR_SIGNED_OUT' })
    t.equal(await app.stored(alice.homeAccountId), undefined)
  })
})

t.test("an old session's refresh never touches the row of a new login", async (t) => {
  const app = await build(t)
  const issuedAt = Math.floor(Date.now() / 1_000)
  await redeem(app.tokenCache.forLogin(), app.endpoint, { ...alice, issuedAt: issuedAt - 60 })
  app.endpoint.beforeAnswer = async (grantType) => {
    app.endpoint.beforeAnswer = async () => {}
    t.equal(grantType, 'refresh_token')
    await app.signOut('s-alice')
    await redeem(app.tokenCache.forLogin(), app.endpoint, { ...alice, sid: 's-new', issuedAt: issuedAt + 5 })
  }
  await t.rejects(
    silent(app.tokenCache.forAccount(alice.homeAccountId), app.endpoint, alice.homeAccountId, { forceRefresh: true }),
    { code: 'ERR_SIGNED_OUT' }
  )
  const stored = await app.stored(alice.homeAccountId)
  const [refreshToken] = Object.values(stored?.RefreshToken ?? {})
  t.match(Buffer.from(refreshToken?.secret ?? '', 'base64url').toString(), /s-new/)
})

t.test('concurrent refreshes for different resources lose no token', async (t) => {
  const app = await build(t)
  await redeem(app.tokenCache.forLogin(), app.endpoint, alice)
  const scopes = Array.from({ length: 8 }, (_, i) => `resource-${i}`)
  await Promise.all(
    scopes.map((scope) =>
      silent(app.tokenCache.forAccount(alice.homeAccountId), app.endpoint, alice.homeAccountId, { scopes: [scope] })
    )
  )
  const stored = await app.stored(alice.homeAccountId)
  t.same(targets(stored), ['api-1', ...scopes])
})

t.test('two users in any order: each row holds its own account only', async (t) => {
  const app = await build(t)
  await Promise.all([
    redeem(app.tokenCache.forLogin(), app.endpoint, alice),
    redeem(app.tokenCache.forLogin(), app.endpoint, bob)
  ])
  await Promise.all(
    [alice, bob, alice, bob].map(({ homeAccountId }, i) =>
      silent(app.tokenCache.forAccount(homeAccountId), app.endpoint, homeAccountId, { scopes: [`r-${i}`] })
    )
  )
  for (const { homeAccountId } of [alice, bob]) {
    const stored = await app.stored(homeAccountId)
    for (const section of ['Account', 'IdToken', 'AccessToken', 'RefreshToken']) {
      for (const entity of Object.values(stored?.[section] ?? {})) {
        t.equal(entity.home_account_id, homeAccountId, section)
      }
    }
  }
})

t.test('misuse fails loudly', async (t) => {
  await t.test('two sign-ins on one client', async (t) => {
    const app = await build(t)
    const client = createClient(app.tokenCache.forLogin(), app.endpoint)
    const request = (person: Person) => ({
      code: Buffer.from(JSON.stringify(person)).toString('base64url'),
      redirectUri: 'https://app.example/callback',
      scopes: ['api-1']
    })
    await client.acquireTokenByCode(request(alice))
    await t.rejects(client.acquireTokenByCode(request(bob)), { code: 'ERR_TOKEN_CACHE_MISUSE' })
    const stored = await app.stored(alice.homeAccountId)
    t.equal(Object.keys(stored?.Account ?? {}).length, 1)
    t.equal(await app.stored(bob.homeAccountId), undefined)
  })
  await t.test('one plugin for two clients', async (t) => {
    const app = await build(t)
    await redeem(app.tokenCache.forLogin(), app.endpoint, alice)
    const plugin = app.tokenCache.forAccount(alice.homeAccountId)
    await silent(plugin, app.endpoint, alice.homeAccountId)
    await t.rejects(silent(plugin, app.endpoint, alice.homeAccountId), { code: 'ERR_TOKEN_CACHE_MISUSE' })
  })
  await t.test('two operations of one client at once', async (t) => {
    const app = await build(t)
    await redeem(app.tokenCache.forLogin(), app.endpoint, alice)
    const client = createClient(app.tokenCache.forAccount(alice.homeAccountId), app.endpoint)
    const cache = client.getTokenCache()
    const results = await Promise.allSettled([cache.getAllAccounts(), cache.getAllAccounts()])
    t.match(
      results.find(({ status }) => status === 'rejected'),
      { reason: { code: 'ERR_TOKEN_CACHE_MISUSE' } }
    )
  })
  await t.test('a user with the plugin for client credentials', async (t) => {
    const app = await build(t)
    await t.rejects(redeem(app.tokenCache.forApp('app'), app.endpoint, alice), { code: 'ERR_TOKEN_CACHE_MISUSE' })
  })
  await t.test('client credentials with the plugin for users', async (t) => {
    const app = await build(t)
    const client = createClient(app.tokenCache.forLogin(), app.endpoint)
    await t.rejects(client.acquireTokenByClientCredential({ scopes: ['x/.default'] }), {
      code: 'ERR_TOKEN_CACHE_MISUSE'
    })
  })
  await t.test('a version of MSAL that does not read the cache', async (t) => {
    for (const version of ['1.18.4', '2.16.3', '3.0.1', '3.1.0']) {
      t.throws(() => checkMsalVersion(version), { code: 'ERR_TOKEN_CACHE_MISUSE' }, version)
    }
    for (const version of ['3.2.0', '3.10.0', '5.0.1', '7.2.1', '10.0.0']) {
      t.doesNotThrow(() => checkMsalVersion(version), version)
    }
  })
  await t.test('a key that is no key', async (t) => {
    const { pool } = await createDatabase(t)
    const make = (encryption: TokenCacheOptions['encryption']) => () =>
      createTokenCache({ pool, clientId: 'a', ...(encryption && { encryption }) })
    t.throws(make({ current: 'k', keys: {} }), TypeError)
    t.throws(make({ current: 'toString', keys: {} }), TypeError)
    t.throws(make({ current: 'k', keys: { k: Buffer.alloc(16) } }), TypeError)
  })
})

t.test('client credentials have a row of their own', async (t) => {
  const app = await build(t)
  const request = { scopes: ['x/.default'] }
  const first = await createClient(app.tokenCache.forApp('app'), app.endpoint).acquireTokenByClientCredential(request)
  const second = await createClient(app.tokenCache.forApp('app'), app.endpoint).acquireTokenByClientCredential(request)
  t.equal(first?.fromCache, false)
  t.equal(second?.fromCache, true)
  t.equal(first?.accessToken, second?.accessToken)
})

t.test('on behalf of a user', async (t) => {
  const now = () => Math.floor(Date.now() / 1_000)
  const assertionOf = (person: Person) =>
    jwt({ ...person, iss: authority, sub: person.subject, sid: person.sid, iat: now() - 60, aud: 'api' })
  const request = (oboAssertion: string) => ({ oboAssertion, scopes: ['downstream'] })
  async function ask(app: App, assertion: string) {
    const client = createClient(app.tokenCache.forAssertion(assertion), app.endpoint)
    await client.getTokenCache().getAllAccounts()
    return client.acquireTokenOnBehalfOf(request(assertion))
  }
  await t.test('its row is found by a sign-out of the account', async (t) => {
    const app = await build(t)
    const assertion = assertionOf(alice)
    t.equal((await ask(app, assertion))?.fromCache, false)
    t.equal((await ask(app, assertion))?.fromCache, true)
    await app.signOut('s-alice')
    t.same(await app.database.query('select * from msal_logout.token_cache'), [])
  })
  await t.test('an assertion from before the sign-out makes no new row', async (t) => {
    const app = await build(t)
    const assertion = assertionOf(alice)
    await ask(app, assertion)
    await app.signOut('s-alice')
    await t.rejects(ask(app, assertion), { code: 'ERR_SIGNED_OUT' })
    t.same(await app.database.query('select * from msal_logout.token_cache'), [])
  })
})

t.test('a further ID token of the row is registered as a session', async (t) => {
  const app = await build(t)
  await redeem(app.tokenCache.forLogin(), app.endpoint, alice)
  app.endpoint.sendPostRequestAsync = (
    (original) =>
    async (url, options, ...rest) => {
      const answer = await original(url, options, ...rest)
      const body = answer.body as unknown as { id_token: string }
      const claims = JSON.parse(Buffer.from(body.id_token.split('.')[1] ?? '', 'base64url').toString())
      body.id_token = jwt({ ...claims, sid: 's-other' })
      return answer
    }
  )(app.endpoint.sendPostRequestAsync) as typeof app.endpoint.sendPostRequestAsync
  await silent(app.tokenCache.forAccount(alice.homeAccountId), app.endpoint, alice.homeAccountId, {
    forceRefresh: true
  })
  t.ok(await app.tokenCache.isSessionActive({ issuer: authority, sid: 's-other' }))
  await app.signOut('s-other')
  t.equal(await app.stored(alice.homeAccountId), undefined)
})

t.test('a refresh whose ID token has no sid any more leaves the session as it is', async (t) => {
  const app = await build(t)
  await redeem(app.tokenCache.forLogin(), app.endpoint, alice)
  const answer = app.endpoint.sendPostRequestAsync.bind(app.endpoint)
  app.endpoint.sendPostRequestAsync = (async (url: string, options: never) => {
    const response = await answer(url, options)
    const body = response.body as { id_token: string }
    const { sid, ...claims } = JSON.parse(Buffer.from(String(body.id_token.split('.')[1]), 'base64url').toString())
    t.equal(sid, 's-alice')
    return { ...response, body: { ...body, id_token: jwt(claims) } }
  }) as typeof app.endpoint.sendPostRequestAsync
  for (const scopes of [['api-2'], ['api-3']]) {
    await silent(app.tokenCache.forAccount(alice.homeAccountId), app.endpoint, alice.homeAccountId, {
      scopes,
      forceRefresh: true
    })
  }
  t.same(await app.database.query('select session_key from msal_logout.sessions'), [{ session_key: 'sid=s-alice' }])
  t.same(app.warnings, [])
  await app.signOut('s-alice')
  t.equal(await app.stored(alice.homeAccountId), undefined)
})

t.test('a second sign-in of the same account replaces the tokens, and ends nobody', async (t) => {
  const app = await build(t)
  await redeem(app.tokenCache.forLogin(), app.endpoint, alice)
  app.endpoint.beforeAnswer = async (grantType) => {
    app.endpoint.beforeAnswer = async () => {}
    t.equal(grantType, 'refresh_token')
    await redeem(app.tokenCache.forLogin(), app.endpoint, { ...alice, sid: 's-second' }, ['api-3'])
  }
  // A refresh of the first session that is under way meanwhile: both are alive, so both results stay.
  await silent(app.tokenCache.forAccount(alice.homeAccountId), app.endpoint, alice.homeAccountId, {
    scopes: ['api-2'],
    forceRefresh: true
  })
  t.same(targets(await app.stored(alice.homeAccountId)), ['api-2', 'api-3'])
  for (const sid of ['s-alice', 's-second']) {
    t.ok(await app.tokenCache.isSessionActive({ issuer: authority, sid }), sid)
  }
})

t.test('ID tokens without a sid are warned of once', async (t) => {
  const app = await build(t)
  await redeem(app.tokenCache.forLogin(), app.endpoint, { ...alice, sid: undefined })
  await redeem(app.tokenCache.forLogin(), app.endpoint, { ...bob, sid: undefined })
  t.equal(app.warnings.length, 1)
  t.match(app.warnings[0], /optional claim "sid"/)
})

t.test('an account is removed whatever the case of its id', async (t) => {
  const app = await build(t)
  await redeem(app.tokenCache.forLogin(), app.endpoint, alice)
  t.equal(await app.tokenCache.removeAccount(alice.homeAccountId), true)
  t.equal(await app.stored(alice.homeAccountId), undefined)
  t.notOk(await app.tokenCache.isSessionActive({ issuer: authority, sid: 's-alice' }))
  t.equal(await app.tokenCache.removeAccount(alice.homeAccountId), false)
})

t.test("MSAL's own removeAccount forgets the row too", async (t) => {
  const app = await build(t)
  await redeem(app.tokenCache.forLogin(), app.endpoint, bob)
  const client = createClient(app.tokenCache.forAccount(bob.homeAccountId), app.endpoint)
  const [account] = await client.getTokenCache().getAllAccounts()
  await client.getTokenCache().removeAccount(account as never)
  t.equal(await app.stored(bob.homeAccountId), undefined)
})

t.test('encryption', async (t) => {
  const keys = { k1: randomBytes(32), k2: randomBytes(32) }
  const payloads = ({ database }: App) =>
    database.query<{ payload: Buffer; encoding: string }>('select payload, encoding from msal_logout.token_cache')

  await t.test('a stored payload tells nothing', async (t) => {
    const app = await build(t, { encryption: { current: 'k1', keys } })
    await redeem(app.tokenCache.forLogin(), app.endpoint, alice)
    const [row] = await payloads(app)
    t.equal(row?.encoding, 'gzip+a256gcm:k1')
    t.notOk(row?.payload.includes('secret'))
    const read = await silent(app.tokenCache.forAccount(alice.homeAccountId), app.endpoint, alice.homeAccountId)
    t.equal(read.fromCache, true)
  })

  await t.test('a row is re-written under the current key as it is used', async (t) => {
    const app = await build(t, { encryption: { current: 'k1', keys } })
    await redeem(app.tokenCache.forLogin(), app.endpoint, alice)
    const rotated = createTokenCache({
      pool: app.database.pool,
      clientId: audience,
      encryption: { current: 'k2', keys }
    })
    await silent(rotated.forAccount(alice.homeAccountId), app.endpoint, alice.homeAccountId, { scopes: ['api-2'] })
    t.equal((await payloads(app))[0]?.encoding, 'gzip+a256gcm:k2')
    const read = await silent(rotated.forAccount(alice.homeAccountId), app.endpoint, alice.homeAccountId)
    t.equal(read.fromCache, true, 'and nothing is lost')
  })

  await t.test('a login, a sign-out and a refresh go as without it', async (t) => {
    const app = await build(t, { encryption: { current: 'k1', keys } })
    await redeem(app.tokenCache.forLogin(), app.endpoint, alice)
    app.endpoint.beforeAnswer = () => app.signOut('s-alice')
    await t.rejects(
      silent(app.tokenCache.forAccount(alice.homeAccountId), app.endpoint, alice.homeAccountId, { forceRefresh: true }),
      { code: 'ERR_SIGNED_OUT' }
    )
    const issuedAt = Math.floor(Date.now() / 1_000) - 5
    await t.rejects(redeem(app.tokenCache.forLogin(), app.endpoint, { ...alice, issuedAt }), { code: 'ERR_SIGNED_OUT' })
    t.same(await payloads(app), [])
  })

  const damages: [string, (app: App) => Promise<unknown>][] = [
    [
      'a flipped bit',
      ({ database }) =>
        database.query('update msal_logout.token_cache set payload = set_bit(payload, 300, 1 - get_bit(payload, 300))')
    ],
    [
      'a flipped bit of the tag',
      ({ database }) =>
        database.query('update msal_logout.token_cache set payload = set_bit(payload, 100, 1 - get_bit(payload, 100))')
    ],
    [
      'a payload cut short',
      ({ database }) => database.query('update msal_logout.token_cache set payload = substr(payload, 1, 20)')
    ],
    [
      'another generation',
      ({ database }) => database.query('update msal_logout.token_cache set generation = generation + 1')
    ],
    [
      'a key nobody has',
      ({ database }) => database.query(`update msal_logout.token_cache set encoding = 'gzip+a256gcm:k3'`)
    ],
    [
      'the name of another key',
      ({ database }) => database.query(`update msal_logout.token_cache set encoding = 'gzip+a256gcm:k2'`)
    ],
    [
      'a name out of a prototype',
      ({ database }) => database.query(`update msal_logout.token_cache set encoding = 'gzip+a256gcm:constructor'`)
    ],
    [
      'the row of another user',
      async (app) => {
        await redeem(app.tokenCache.forLogin(), app.endpoint, bob)
        await app.database.query(
          `update msal_logout.token_cache set payload = o.payload from msal_logout.token_cache o
          where token_cache.partition_key = 'Alice.t' and o.partition_key = 'bob.t'`
        )
      }
    ]
  ]
  for (const [name, damage] of damages) {
    await t.test(`${name} is treated as absent, reported, and replaced by the next login`, async (t) => {
      const app = await build(t, { encryption: { current: 'k1', keys } })
      await redeem(app.tokenCache.forLogin(), app.endpoint, alice)
      await damage(app)
      const client = createClient(app.tokenCache.forAccount(alice.homeAccountId), app.endpoint)
      t.same(await client.getTokenCache().getAllAccounts(), [])
      t.match(app.warnings, [/cannot be decoded/])
      await t.rejects(silent(app.tokenCache.forAccount(alice.homeAccountId), app.endpoint, alice.homeAccountId))
      await redeem(app.tokenCache.forLogin(), app.endpoint, alice)
      const read = await silent(app.tokenCache.forAccount(alice.homeAccountId), app.endpoint, alice.homeAccountId)
      t.equal(read.fromCache, true)
    })
  }
})

t.test('an encrypted login whose payload is not saved leaves no row', async (t) => {
  const app = await build(t, { own: true, encryption: { current: 'k', keys: { k: randomBytes(32) } } })
  for (const outcome of ['gone', 'conflict']) {
    await app.database.query(`
      create or replace function msal_logout.save(
        client_id text, partition_key text, generation bigint, version bigint, payload bytea, encoding text, ttl interval
      ) returns msal_logout.saved language sql as $$ select ('${outcome}', null)::msal_logout.saved $$`)
    const before = await app.database.snapshot()
    await t.rejects(redeem(app.tokenCache.forLogin(), app.endpoint, alice), { code: 'ERR_SIGNED_OUT' })
    t.same(await app.database.snapshot(), before, `with the outcome ${outcome}`)
  }
})

t.test('a database that fails at any point leaves a whole row or none, and a clear error', async (t) => {
  for (const encryption of [undefined, { current: 'k', keys: { k: randomBytes(32) } }]) {
    for (const point of [1, 2, 3, 4]) {
      const name = `${encryption ? 'encrypted, ' : ''}at statement ${point}`
      await t.test(name, async (t) => {
        const app = await build(t)
        // A connection that is cut by the server, as in a crash or a failover, right before the n-th statement.
        const cut = new pg.Pool({ connectionString: app.database.url, max: 1 })
        cut.on('error', () => {})
        t.teardown(() => cut.end())
        const killed = createTokenCache({
          pool: cutBefore(cut, app.database, point),
          clientId: audience,
          onWarning: () => {},
          ...(encryption && { encryption })
        })
        const healthy = createTokenCache({
          pool: app.database.pool,
          clientId: audience,
          onWarning: () => {},
          ...(encryption && { encryption })
        })
        const login = await redeem(killed.forLogin(), app.endpoint, alice).catch((error: unknown) => error)
        const client = createClient(healthy.forAccount(alice.homeAccountId), app.endpoint)
        const accounts = await client.getTokenCache().getAllAccounts()
        const rows = await app.database.query('select * from msal_logout.token_cache')
        t.equal(accounts.length, rows.length, 'whatever row there is can be read')
        t.ok(rows.length === 1 || login instanceof Error, 'no row without an error is none')
        if (login instanceof Error) {
          t.match(login.message, /terminat|connection/i)
        }
      })
    }
  }
})

/** The pool, whose connection is terminated by the server right before its n-th statement. */
function cutBefore(pool: pg.Pool, database: Database, point: number): pg.Pool {
  let statements = 0
  pool.on('connect', (client) => {
    const original = client.query.bind(client) as (...args: unknown[]) => unknown
    const { processID } = client as unknown as { processID: number }
    client.query = (async (...args: unknown[]) => {
      statements += 1
      if (statements === point) {
        const ended = new Promise((resolve) => client.once('end', resolve))
        await database.query('select pg_terminate_backend($1)', [processID])
        await ended
      }
      return original(...args)
    }) as never
  })
  return pool
}

t.test('a load that failed is never followed by a write', async (t) => {
  const app = await build(t)
  await redeem(app.tokenCache.forLogin(), app.endpoint, alice)
  const before = await app.stored(alice.homeAccountId)
  const plugin = app.tokenCache.forAccount(alice.homeAccountId)
  let loads = 0
  const failing = {
    beforeCacheAccess: async (context: Parameters<typeof plugin.beforeCacheAccess>[0]) => {
      loads += 1
      if (loads === 2) {
        await app.database.query('alter table msal_logout.token_cache rename to away')
      }
      try {
        await plugin.beforeCacheAccess(context)
      } finally {
        await app.database.query('alter table if exists msal_logout.away rename to token_cache')
      }
    },
    afterCacheAccess: (context: Parameters<typeof plugin.afterCacheAccess>[0]) => plugin.afterCacheAccess(context)
  }
  await t.rejects(silent(failing, app.endpoint, alice.homeAccountId, { forceRefresh: true }))
  t.same(await app.stored(alice.homeAccountId), before)
})

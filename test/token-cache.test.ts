import { randomBytes } from 'node:crypto'
import pg from 'pg'
import t, { type Test } from 'tap'
import type { TokenCache, TokenCacheOptions } from '../clients/node/src/index.ts'
import { createTokenCache } from './fixtures/client.ts'
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
import { signOutBySql } from './fixtures/orders.ts'

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
      await signOutBySql(database, { kind: 'session', issuer: authority, sid })
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
    const app = await build(t)
    // As before 3.2.0: a token cache that has no `overwriteCache`.
    const context = { cacheHasChanged: true, tokenCache: { serialize: () => '{}', deserialize: () => {} } }
    await t.rejects(app.tokenCache.forLogin().beforeCacheAccess(context), {
      code: 'ERR_TOKEN_CACHE_MISUSE',
      message: /3\.2\.0/
    })
  })
  await t.test('a key that is no key', async (t) => {
    const { pool } = await createDatabase(t)
    const make = (encryption: TokenCacheOptions['encryption']) => () =>
      createTokenCache({ pool, clientId: 'a', ...(encryption && { encryption }) })
    t.throws(make({ current: 'k', keys: {} }), { code: 'ERR_TOKEN_CACHE_MISUSE' })
    t.throws(make({ current: 'toString', keys: {} }), { code: 'ERR_TOKEN_CACHE_MISUSE' })
    t.throws(make({ current: 'k', keys: { k: Buffer.alloc(16) } }), { code: 'ERR_TOKEN_CACHE_MISUSE' })
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

t.test('the ID token tells of the object and the directory, for signals that name these', async (t) => {
  const app = await build(t)
  const post = app.endpoint.sendPostRequestAsync.bind(app.endpoint)
  let claims: Record<string, unknown> = { oid: 'Object-1', tid: 'Tenant-1' }
  app.endpoint.sendPostRequestAsync = (async (url: string, options: never) => {
    const response = await post(url, options)
    const body = response.body as unknown as { id_token: string }
    const told = JSON.parse(Buffer.from(body.id_token.split('.')[1] ?? '', 'base64url').toString())
    return { ...response, body: { ...body, id_token: jwt({ ...told, ...claims }) } }
  }) as typeof app.endpoint.sendPostRequestAsync
  const sessions = () =>
    app.database.query('select sid, lower(oid) as oid, lower(tid) as tid from msal_logout.sessions order by sid')
  await redeem(app.tokenCache.forLogin(), app.endpoint, alice)
  t.same(await sessions(), [{ sid: 's-alice', oid: 'object-1', tid: 'tenant-1' }])
  claims = { sid: 's-guest', iss: `${authority}/guest`, sub: 'guest', oid: 'object-2', tid: 'tenant-2' }
  await silent(app.tokenCache.forAccount(alice.homeAccountId), app.endpoint, alice.homeAccountId, {
    forceRefresh: true
  })
  t.same(
    await sessions(),
    [
      { sid: 's-alice', oid: 'object-1', tid: 'tenant-1' },
      { sid: 's-guest', oid: 'object-2', tid: 'tenant-2' }
    ],
    'also of a further ID token'
  )
})

t.test('two users under one account id are refused, with what to mend', async (t) => {
  const app = await build(t)
  await redeem(app.tokenCache.forLogin(), app.endpoint, alice)
  const other = { ...alice, subject: 'sub-mallory', sid: 's-mallory' }
  await t.rejects(redeem(app.tokenCache.forLogin(), app.endpoint, other), {
    code: 'ERR_TOKEN_CACHE_MISUSE',
    message: /another subject.*two users have one account id/
  })
  t.ok(await app.tokenCache.isSessionActive({ issuer: authority, sid: 's-alice' }))
  t.notOk(await app.tokenCache.isSessionActive({ issuer: authority, sid: 's-mallory' }))
})

t.test('an ID token from the future, or of no time, is refused, with the clock that may be wrong', async (t) => {
  const app = await build(t)
  const noTime = /no ID token with "iss", "sub" and "iat"/
  const cases: [issuedAt: unknown, message: RegExp][] = [
    [Date.now(), /"issued_at" must be in seconds.*is a clock wrong/],
    [Date.now() * 1e3, /"issued_at" must be in seconds/],
    [Date.now() * 1e6, /"issued_at" must be in seconds/],
    [2 ** 53, /"issued_at" must be in seconds/],
    [0, /"issued_at" must be the "iat"/],
    [-1.5, /"issued_at" must be the "iat"/],
    [1e300, noTime],
    [String(Math.floor(Date.now() / 1_000)), noTime]
  ]
  for (const [issuedAt, message] of cases) {
    const login = redeem(app.tokenCache.forLogin(), app.endpoint, { ...alice, issuedAt: issuedAt as number })
    await t.rejects(login, { code: 'ERR_TOKEN_CACHE_MISUSE', message }, String(issuedAt))
  }
  t.same(await app.database.query('select from msal_logout.token_cache'), [])
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

  await t.test('a plain row is not read, unless that is allowed, and is warned of', async (t) => {
    const app = await build(t)
    await redeem(app.tokenCache.forLogin(), app.endpoint, alice)
    for (const [allowPlain, found] of [
      [undefined, []],
      [true, [alice.homeAccountId]]
    ] as const) {
      const warnings: string[] = []
      const tokenCache = createTokenCache({
        pool: app.database.pool,
        clientId: audience,
        encryption: { current: 'k1', keys, ...(allowPlain && { allowPlain }) },
        onWarning: (message) => warnings.push(message)
      })
      const read = async () =>
        createClient(tokenCache.forAccount(alice.homeAccountId), app.endpoint).getTokenCache().getAllAccounts()
      for (let i = 0; i < 2; i += 1) {
        t.same(
          (await read()).map(({ homeAccountId }) => homeAccountId),
          found
        )
      }
      t.match(warnings, [/not encrypted/])
      t.equal(warnings.length, 1, 'once')
      await silent(tokenCache.forAccount(alice.homeAccountId), app.endpoint, alice.homeAccountId, {
        forceRefresh: true
      }).catch(() => {})
      const [row] = await payloads(app)
      t.equal(row?.encoding, allowPlain ? 'gzip+a256gcm:k1' : 'json')
    }
  })

  await t.test('more than can be decoded is not stored, and what is there stays', async (t) => {
    for (const encryption of [undefined, { current: 'k1', keys }]) {
      const app = await build(t, encryption && { encryption })
      const answer = app.endpoint.sendPostRequestAsync.bind(app.endpoint)
      await redeem(app.tokenCache.forLogin(), app.endpoint, alice)
      const before = await payloads(app)
      app.endpoint.sendPostRequestAsync = (async (url: string, options: never) => {
        const response = await answer(url, options)
        return { ...response, body: { ...(response.body as object), access_token: 'x'.repeat(40 * 1024 * 1024) } }
      }) as typeof app.endpoint.sendPostRequestAsync
      const refresh = silent(app.tokenCache.forAccount(alice.homeAccountId), app.endpoint, alice.homeAccountId, {
        scopes: ['api-2']
      })
      await t.rejects(refresh, { code: 'ERR_TOKEN_CACHE_TOO_LARGE', message: /4\d{7} bytes/ })
      t.same(await payloads(app), before)
      await t.rejects(redeem(app.tokenCache.forLogin(), app.endpoint, bob), { code: 'ERR_TOKEN_CACHE_TOO_LARGE' })
      t.equal((await payloads(app)).length, 1, 'and no login without its payload')
    }
  })

  await t.test('a row that cannot be decoded is warned of with what to do', async (t) => {
    for (const [reader, message] of [
      [undefined, /encrypted with the key "k1", and this app has no keys: give "encryption"/],
      [{ current: 'k2', keys: { k2: keys.k2 } }, /the key "k1", which is not among the keys \(k2\): add it/],
      [{ current: 'k1', keys: { k1: keys.k2 } }, /with the key "k1": another key has this id elsewhere/]
    ] as const) {
      const app = await build(t, { encryption: { current: 'k1', keys } })
      await redeem(app.tokenCache.forLogin(), app.endpoint, alice)
      const warnings: string[] = []
      const tokenCache = createTokenCache({
        pool: app.database.pool,
        clientId: audience,
        ...(reader && { encryption: reader }),
        onWarning: (warning) => warnings.push(warning)
      })
      for (let i = 0; i < 2; i += 1) {
        await t.rejects(silent(tokenCache.forAccount(alice.homeAccountId), app.endpoint, alice.homeAccountId))
      }
      t.match(warnings, [message])
      t.equal(warnings.length, 1, 'once')
      await redeem(tokenCache.forLogin(), app.endpoint, alice)
      t.equal(
        (await silent(tokenCache.forAccount(alice.homeAccountId), app.endpoint, alice.homeAccountId)).fromCache,
        true,
        'a new login mends it'
      )
    }
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

t.test('a plain row that is no UTF-8 any more is treated as absent, and replaced by the next login', async (t) => {
  const app = await build(t)
  await redeem(app.tokenCache.forLogin(), app.endpoint, alice)
  await app.database.query('update msal_logout.token_cache set payload = set_byte(payload, 0, 255)')
  const client = createClient(app.tokenCache.forAccount(alice.homeAccountId), app.endpoint)
  t.same(await client.getTokenCache().getAllAccounts(), [])
  t.match(app.warnings, [/cannot be decoded/])
  await redeem(app.tokenCache.forLogin(), app.endpoint, alice)
  const read = await silent(app.tokenCache.forAccount(alice.homeAccountId), app.endpoint, alice.homeAccountId)
  t.equal(read?.fromCache, true)
})

t.test('an encrypted login', async (t) => {
  const encryption = { current: 'k', keys: { k: randomBytes(32) } }
  const accountsIn = async (app: App) =>
    (
      await createClient(app.tokenCache.forAccount(alice.homeAccountId), app.endpoint).getTokenCache().getAllAccounts()
    ).map(({ homeAccountId }) => homeAccountId)
  const rowsIn = (app: App) =>
    app.database.query<{ encoding: string; bytes: number }>(
      'select encoding, octet_length(payload) as bytes from msal_logout.token_cache'
    )
  const isEncrypted = ({ encoding, bytes }: { encoding: string; bytes: number }) =>
    encoding === 'gzip+a256gcm:k' && bytes > 28

  await t.test('opens no transaction, and holds no connection while it encrypts', async (t) => {
    const app = await build(t)
    const statements: string[] = []
    const pool = new pg.Pool({ connectionString: app.database.url, max: 1 })
    pool
      .on('error', () => {})
      .on('connect', (client) => {
        const original = client.query.bind(client) as (...args: unknown[]) => unknown
        client.query = ((statement: { text: string }, ...rest: unknown[]) => {
          statements.push(/msal_logout\.(\w+)/.exec(statement.text)?.[1] ?? statement.text)
          return original(statement, ...rest)
        }) as never
      })
    t.teardown(() => pool.end())
    const tokenCache = createTokenCache({ pool, clientId: audience, encryption })
    await redeem(tokenCache.forLogin(), app.endpoint, alice)
    t.same(statements, ['load_text', 'login', 'save'], 'a new row')
    await redeem(tokenCache.forLogin(), app.endpoint, alice)
    t.same(statements.slice(3), ['load_text', 'login'], 'a row that is there')
  })

  for (const [name, at] of [
    ['sees nothing of it between its two statements, and is not warned', 'save'],
    ['that dies between its two statements leaves nothing that grants access', 'death']
  ] as const) {
    await t.test(at === 'save' ? `another process ${name}` : name, async (t) => {
      const app = await build(t, { encryption })
      const stopped = stopBefore(t, app, 'save')
      const tokenCache = createTokenCache({ pool: stopped.pool, clientId: audience, encryption, timeoutMs: 60_000 })
      const login = redeem(tokenCache.forLogin(), app.endpoint, alice)
      const outcome = login.catch((error: unknown) => error)
      await stopped.reached
      t.same(await rowsIn(app), [{ encoding: 'none', bytes: 0 }])
      t.same(await accountsIn(app), [])
      await t.rejects(silent(app.tokenCache.forAccount(alice.homeAccountId), app.endpoint, alice.homeAccountId), {
        message: /no_tokens_found/
      })
      t.same(app.warnings, [])
      if (at === 'death') {
        await redeem(app.tokenCache.forLogin(), app.endpoint, alice)
        t.ok((await rowsIn(app)).every(isEncrypted), 'the next login is whole at once')
        stopped.proceed()
        await login
      } else {
        stopped.proceed()
        await login
        t.ok((await rowsIn(app)).every(isEncrypted))
      }
      t.same(await accountsIn(app), [alice.homeAccountId])
      t.notOk((await outcome) instanceof Error)
    })
  }

  await t.test('loses against a sign-out between its two statements', async (t) => {
    const app = await build(t, { encryption })
    const stopped = stopBefore(t, app, 'save')
    const tokenCache = createTokenCache({ pool: stopped.pool, clientId: audience, encryption, timeoutMs: 60_000 })
    const login = redeem(tokenCache.forLogin(), app.endpoint, alice)
    await stopped.reached
    await app.signOut('s-alice')
    stopped.proceed()
    await t.rejects(login, { code: 'ERR_SIGNED_OUT' })
    t.same(await rowsIn(app), [])
  })

  await t.test('that finds another generation than it has encrypted for encrypts again', async (t) => {
    const app = await build(t, { encryption })
    await redeem(app.tokenCache.forLogin(), app.endpoint, alice)
    const stopped = stopBefore(t, app, 'login')
    const tokenCache = createTokenCache({ pool: stopped.pool, clientId: audience, encryption, timeoutMs: 60_000 })
    const login = redeem(tokenCache.forLogin(), app.endpoint, { ...alice, issuedAt: now() + 5, sid: 's-2' })
    await stopped.reached
    await app.signOut('s-alice')
    stopped.proceed()
    await login
    t.same(await accountsIn(app), [alice.homeAccountId])
    t.same(app.warnings, [])
  })

  await t.test('of one account, eight times at once: the row is whole, and nobody fails', async (t) => {
    const app = await build(t, { encryption })
    const sids = Array.from({ length: 8 }, (_, i) => `s-${i}`)
    await Promise.all(sids.map((sid) => redeem(app.tokenCache.forLogin(), app.endpoint, { ...alice, sid })))
    t.same(await accountsIn(app), [alice.homeAccountId])
    t.ok((await rowsIn(app)).every(isEncrypted))
    for (const sid of sids) {
      t.ok(await app.tokenCache.isSessionActive({ issuer: authority, sid }), sid)
    }
  })

  await t.test('whose payload cannot be saved leaves no row', async (t) => {
    const app = await build(t, { own: true, encryption })
    for (const [outcome, code] of [
      ['gone', 'ERR_SIGNED_OUT'],
      ['conflict', 'ERR_TOKEN_CACHE_DATABASE']
    ] as const) {
      await app.database.query(`
        create or replace function msal_logout.save(
          client_id text, partition_key text, generation bigint, version bigint, payload bytea, encoding text, ttl interval
        ) returns msal_logout.saved language sql as $$ select ('${outcome}', null)::msal_logout.saved $$`)
      await t.rejects(redeem(app.tokenCache.forLogin(), app.endpoint, alice), { code }, outcome)
      t.same(await rowsIn(app), [], outcome)
      t.notOk(await app.tokenCache.isSessionActive({ issuer: authority, sid: 's-alice' }), outcome)
    }
  })
})

const now = () => Math.floor(Date.now() / 1_000)

/** A pool that stops before its first call of a function, until the test lets it go on. */
function stopBefore(t: Test, app: App, name: string) {
  const pool = new pg.Pool({ connectionString: app.database.url, max: 1 })
  let proceed = () => {}
  const mayProceed = new Promise<void>((resolve) => {
    proceed = resolve
  })
  let reach = () => {}
  const reached = new Promise<void>((resolve) => {
    reach = resolve
  })
  pool
    .on('error', () => {})
    .on('connect', (client) => {
      const original = client.query.bind(client) as (...args: unknown[]) => unknown
      client.query = (async (statement: { text: string }, ...rest: unknown[]) => {
        if (statement.text.includes(`msal_logout.${name}(`)) {
          reach()
          await mayProceed
        }
        return original(statement, ...rest)
      }) as never
    })
  t.teardown(() => pool.end())
  return { pool, reached, proceed }
}

t.test('a connection that is cut at any point is replaced, and the login goes on', async (t) => {
  for (const encryption of [undefined, { current: 'k', keys: { k: randomBytes(32) } }]) {
    for (const point of encryption ? [1, 2, 3] : [1]) {
      await t.test(`${encryption ? 'encrypted, ' : ''}at statement ${point}`, async (t) => {
        const app = await build(t, encryption && { encryption })
        // By the server, as in a crash or a failover, right before the n-th statement.
        const tokenCache = createTokenCache({
          pool: cutBefore(t, app.database, (statement) => statement === point),
          clientId: audience,
          ...(encryption && { encryption })
        })
        await redeem(tokenCache.forLogin(), app.endpoint, alice)
        const read = await silent(app.tokenCache.forAccount(alice.homeAccountId), app.endpoint, alice.homeAccountId)
        t.equal(read.fromCache, true)
        t.same(app.warnings, [])
      })
    }
  }
})

t.test(
  'a database that stays away from any point on leaves a whole row or an empty one, and a clear error',
  async (t) => {
    for (const encryption of [undefined, { current: 'k', keys: { k: randomBytes(32) } }]) {
      for (const point of encryption ? [1, 2, 3] : [1]) {
        await t.test(`${encryption ? 'encrypted, ' : ''}from statement ${point}`, async (t) => {
          const app = await build(t, encryption && { encryption })
          const tokenCache = createTokenCache({
            pool: cutBefore(t, app.database, (statement) => statement >= point),
            clientId: audience,
            ...(encryption && { encryption })
          })
          await t.rejects(redeem(tokenCache.forLogin(), app.endpoint, alice), {
            code: 'ERR_TOKEN_CACHE_DATABASE',
            statusCode: 503,
            message: /terminat|connection/i
          })
          const client = createClient(app.tokenCache.forAccount(alice.homeAccountId), app.endpoint)
          t.same(await client.getTokenCache().getAllAccounts(), [])
          t.same(app.warnings, [])
          await redeem(app.tokenCache.forLogin(), app.endpoint, alice)
          const read = await silent(app.tokenCache.forAccount(alice.homeAccountId), app.endpoint, alice.homeAccountId)
          t.equal(read.fromCache, true, 'when it is back')
        })
      }
    }
  }
)

/** A pool whose connection is terminated by the server right before some of its statements. */
function cutBefore(t: Test, database: Database, isCut: (statement: number) => boolean): pg.Pool {
  const pool = new pg.Pool({ connectionString: database.url, max: 1 })
  let statements = 0
  pool
    .on('error', () => {})
    .on('connect', (client) => {
      const original = client.query.bind(client) as (...args: unknown[]) => unknown
      const { processID } = client as unknown as { processID: number }
      client.query = (async (...args: unknown[]) => {
        statements += 1
        if (isCut(statements)) {
          const ended = new Promise((resolve) => client.once('end', resolve))
          await database.query('select pg_terminate_backend($1)', [processID])
          await ended
        }
        return original(...args)
      }) as never
    })
  t.teardown(() => pool.end())
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

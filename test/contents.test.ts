import { readFileSync } from 'node:fs'
import t, { type Test } from 'tap'
import { type Contents, leaveOneOfEach, mergeContents } from '../clients/node/src/contents.ts'
import { createTokenCache } from './fixtures/client.ts'
import { createDatabase } from './fixtures/database.ts'
import { audience, authority, createTokenEndpoint, jwt, type Person, redeem, silent } from './fixtures/msal.ts'
import { storeLogin } from './fixtures/service.ts'

const alice: Person = { homeAccountId: 'Alice.t', subject: 'sub-alice', sid: 's-alice' }

type Stored = Record<string, Record<string, Record<string, string>>>

async function build(t: Test) {
  const database = await createDatabase(t)
  const warnings: string[] = []
  const tokenCache = createTokenCache({
    pool: database.pool,
    clientId: audience,
    onWarning: (message) => warnings.push(message)
  })
  const endpoint = createTokenEndpoint()
  const sent: (string | null)[] = []
  const post = endpoint.sendPostRequestAsync.bind(endpoint)
  let change = (body: Record<string, unknown>) => body
  endpoint.sendPostRequestAsync = (async (url: string, options: { body: string }) => {
    sent.push(new URLSearchParams(options.body).get('refresh_token'))
    const response = await post(url, options as never)
    return { ...response, body: change(response.body as Record<string, unknown>) }
  }) as typeof endpoint.sendPostRequestAsync
  return {
    database,
    tokenCache,
    endpoint,
    warnings,
    /** The refresh tokens that MSAL has sent, in order; null for a code. */
    sent,
    /** What the endpoint answers from now on. */
    answer(next: typeof change) {
      change = next
    },
    async stored(): Promise<Stored> {
      const [row] = await database.query<{ payload: Buffer }>('select payload from msal_logout.token_cache')
      return JSON.parse(String(row?.payload))
    },
    refresh: (scope: string, forceRefresh = true) =>
      silent(tokenCache.forAccount(alice.homeAccountId), endpoint, alice.homeAccountId, {
        scopes: [scope],
        forceRefresh
      })
  }
}

const without =
  (...names: string[]) =>
  (body: Record<string, unknown>) =>
    Object.fromEntries(Object.entries(body).filter(([name]) => !names.includes(name)))

for (const [name, left] of [
  ['an ID token', ['id_token']],
  ['an ID token and client info', ['id_token', 'client_info']]
] as const) {
  t.test(`a refresh that is answered without ${name} keeps the user signed in`, async (t) => {
    const app = await build(t)
    await redeem(app.tokenCache.forLogin(), app.endpoint, alice)
    app.answer(without(...left))
    const first = Object.values((await app.stored()).RefreshToken ?? {})[0]?.secret
    for (const scope of ['api-2', 'api-3', 'api-4']) {
      await app.refresh(scope)
    }
    const { RefreshToken = {}, AccessToken = {}, Account = {} } = await app.stored()
    const [refreshToken, ...others] = Object.entries(RefreshToken)
    t.same(others, [], 'one refresh token')
    t.equal(new Set(app.sent).size, 4, 'each refresh used what the one before it had brought')
    t.notOk(app.sent.includes(refreshToken?.[1].secret ?? ''), 'and the last one is there')
    t.equal(app.sent[1], first)
    t.match(refreshToken?.[0], /^alice\.t-login\.example-refreshtoken-client-a-+$/)
    t.equal(Object.keys(Account).length, 1)
    for (const entity of [...Object.values(AccessToken), ...Object.values(RefreshToken)]) {
      t.equal(entity.home_account_id, alice.homeAccountId)
    }
    const requests = app.sent.length
    for (const scope of ['api-1', 'api-2', 'api-3', 'api-4']) {
      t.equal((await app.refresh(scope, false)).fromCache, true, `${scope} is found in the cache`)
    }
    t.equal(app.sent.length, requests)
  })
}

t.test('a refresh that brings no new refresh token leaves the one that is there', async (t) => {
  const app = await build(t)
  await redeem(app.tokenCache.forLogin(), app.endpoint, alice)
  app.answer(without('id_token', 'client_info', 'refresh_token'))
  await app.refresh('api-2')
  await app.refresh('api-3')
  t.equal(app.sent[1], app.sent[2])
  t.equal((await app.refresh('api-2', false)).fromCache, true)
})

t.test("an app's own token never becomes a user's", async (t) => {
  const app = await build(t)
  await redeem(app.tokenCache.forLogin(), app.endpoint, alice)
  const { createClient } = await import('./fixtures/msal.ts')
  const client = createClient(app.tokenCache.forAccount(alice.homeAccountId), app.endpoint)
  await client.acquireTokenByClientCredential({ scopes: ['api-9/.default'] })
  const { AccessToken = {} } = await app.stored()
  t.same(
    Object.values(AccessToken).map(({ target }) => target?.split(' ')[0]),
    ['api-1']
  )
})

/** Rows as versions of MSAL Node have written them: 3 and 5 differ in their keys. */
const rows: Record<string, Record<'oidc' | 'family', string>> = JSON.parse(
  readFileSync('test/fixtures/msal-rows.json', 'utf8')
)

for (const version of Object.keys(rows)) {
  t.test(`a row that MSAL Node ${version} has written is read, and refreshed without a leftover`, async (t) => {
    for (const kind of ['oidc', 'family'] as const) {
      const app = await build(t)
      const payload = rows[version]?.[kind] ?? ''
      const { RefreshToken } = JSON.parse(payload)
      const [{ secret: written }] = Object.values(RefreshToken) as [{ secret: string }]
      await storeLogin(app.database, {
        issuer: authority,
        homeAccountId: alice.homeAccountId,
        sid: alice.sid as string,
        subject: alice.subject,
        payload
      })
      if (kind === 'family') {
        app.answer((body) => ({ ...body, foci: '1' }))
      }
      t.equal((await app.refresh('api-1', false)).fromCache, true, kind)
      await app.refresh('api-2')
      await app.refresh('api-3')
      t.equal(app.sent[0], written, 'the refresh token is found')
      t.not(app.sent[1], written, 'and used once')
      const { RefreshToken: left = {}, IdToken = {}, AccessToken = {} } = await app.stored()
      t.equal(Object.keys(left).length, 1, 'no old refresh token stays')
      t.equal(Object.keys(IdToken).length, 1)
      t.equal(Object.keys(AccessToken).length, 3)
    }
  })
}

t.test('of two refresh tokens that an older release has left, the later one is used, and alone stays', async (t) => {
  const app = await build(t)
  const contents: Stored = JSON.parse(rows['3.2.0']?.oidc ?? '')
  const [[key = '', token = {}] = []] = Object.entries(contents.RefreshToken ?? {})
  const later = Buffer.from(JSON.stringify({ ...alice, unique: 'later' })).toString('base64url')
  contents.RefreshToken = { ...contents.RefreshToken, [key.slice(0, -1)]: { ...token, secret: later } }
  await storeLogin(app.database, {
    issuer: authority,
    homeAccountId: alice.homeAccountId,
    sid: alice.sid as string,
    subject: alice.subject,
    payload: JSON.stringify(contents)
  })
  await app.refresh('api-2')
  t.same(app.sent, [later])
  t.equal(Object.keys((await app.stored()).RefreshToken ?? {}).length, 1)
})

t.test('one of each', async (t) => {
  const refreshToken = (secret: string, more: object = {}) => ({
    home_account_id: 'a',
    environment: 'login.example',
    client_id: 'client-a',
    secret,
    ...more
  })
  const secrets = (contents: Contents, section = 'RefreshToken') =>
    Object.values(contents[section] as Record<string, { secret: string }>).map(({ secret }) => secret)

  t.test('what this operation has stored wins, wherever it stands', async (t) => {
    const base = { RefreshToken: { x: refreshToken('x1'), y: refreshToken('y1') } }
    for (const ours of [
      { RefreshToken: { x: refreshToken('x2'), y: refreshToken('y1') } },
      { RefreshToken: { x: refreshToken('x1'), y: refreshToken('y1'), z: refreshToken('x2') } }
    ]) {
      t.same(secrets(leaveOneOfEach(ours, { ours, base })), ['x2'])
    }
  })

  t.test('also against what another version of MSAL has stored meanwhile', async (t) => {
    const base = { RefreshToken: { 'rt----': refreshToken('old') } }
    const ours = { RefreshToken: { 'rt----': refreshToken('old'), 'rt---': refreshToken('ours') } }
    const theirs = { RefreshToken: { 'rt----': refreshToken('theirs') } }
    t.same(secrets(leaveOneOfEach(mergeContents(base, ours, theirs), { ours, base })), ['ours'])
    const untouched = { ...base, AccessToken: { at: refreshToken('at') } }
    t.same(
      secrets(leaveOneOfEach(mergeContents(base, untouched, theirs), { ours: untouched, base })),
      ['theirs'],
      'where we have none of our own'
    )
  })

  t.test("MSAL Python's time of the last change decides among those that nobody has just stored", async (t) => {
    const contents = {
      RefreshToken: {
        x: refreshToken('newer', { last_modification_time: '200' }),
        y: refreshToken('older', { last_modification_time: '100' })
      }
    }
    t.same(secrets(leaveOneOfEach(contents, undefined)), ['newer'])
  })

  t.test('what is not the same stays', async (t) => {
    const contents = {
      RefreshToken: {
        own: refreshToken('own'),
        family: refreshToken('family', { family_id: '1' }),
        other: refreshToken('other', { client_id: 'client-b' })
      },
      IdToken: { home: refreshToken('home', { realm: 'h' }), guest: refreshToken('guest', { realm: 'g' }) },
      AccessToken: {
        a: refreshToken('a', { realm: 'h', target: 'one two' }),
        b: refreshToken('b', { realm: 'h', target: 'one' }),
        c: refreshToken('c', { realm: 'g', target: 'one two' }),
        d: refreshToken('d', { realm: 'h', target: 'one two', token_type: 'pop', key_id: 'k' }),
        e: refreshToken('e', { realm: 'h', target: 'one two', userAssertionHash: 'x' })
      }
    }
    t.equal(leaveOneOfEach(contents, { ours: contents, base: {} }), contents)
  })

  t.test('the same scopes in another order are the same', async (t) => {
    const base = { AccessToken: { a: refreshToken('a', { target: 'two one', realm: 'h' }) } }
    const ours = { AccessToken: { ...base.AccessToken, b: refreshToken('b', { target: 'One two', realm: 'h' }) } }
    t.same(secrets(leaveOneOfEach(ours, { ours, base }), 'AccessToken'), ['b'])
  })
})

t.test('a further ID token without a realm of its own leaves the others', async (t) => {
  const app = await build(t)
  await redeem(app.tokenCache.forLogin(), app.endpoint, alice)
  const now = Math.floor(Date.now() / 1_000)
  app.answer((body) => ({
    ...body,
    id_token: jwt({ iss: `${authority}/guest`, aud: audience, sub: 'guest', sid: 's-guest', iat: now, tid: 'other' })
  }))
  await app.refresh('api-2')
  t.equal(Object.keys((await app.stored()).IdToken ?? {}).length, 2)
})

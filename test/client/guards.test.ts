import { once } from 'node:events'
import express, { type Request } from 'express'
import fastify, { type FastifyRequest } from 'fastify'
import t from 'tap'
import { createExpressGuard, createFastifyGuard, createTokenCache } from '../fixtures/client.ts'
import { createDatabase, type Database } from '../fixtures/database.ts'
import { signOutBySql } from '../fixtures/orders.ts'
import { storeLogin } from '../fixtures/service.ts'

const issuer = 'https://issuer.example'

/** An app with one session, that of `s1`, for whoever asks; and how often the guard has ended it. */
async function setUp(database: Database, kind: 'fastify' | 'express') {
  const tokenCache = createTokenCache({ pool: database.pool, clientId: 'client-a' })
  const state = { session: { issuer, sid: 's1' } as { issuer: string; sid: string } | undefined, ends: 0 }
  const end = () => {
    state.session = undefined
    state.ends += 1
  }
  if (kind === 'fastify') {
    const app = fastify()
    app.addHook(
      'onRequest',
      createFastifyGuard<FastifyRequest, unknown>({ tokenCache, session: () => state.session, end })
    )
    app.get('/', async () => (state.session ? 'signed in' : 'nobody'))
    const url = await app.listen({ port: 0, host: '127.0.0.1' })
    return { state, url, close: () => app.close() }
  }
  const app = express()
  app.use(createExpressGuard<Request, express.Response>({ tokenCache, session: () => state.session, end }))
  app.get('/', (_request, response) => {
    response.send(state.session ? 'signed in' : 'nobody')
  })
  const server = app.listen(0, '127.0.0.1')
  await once(server, 'listening')
  return {
    state,
    url: `http://127.0.0.1:${(server.address() as { port: number }).port}`,
    close: async () => {
      server.closeAllConnections()
      server.close()
    }
  }
}

for (const kind of ['fastify', 'express'] as const) {
  t.test(`${kind}: the session of the app ends with the next request after a sign-out`, async (t) => {
    const database = await createDatabase(t)
    await storeLogin(database, { issuer, sid: 's1' })
    const { state, url, close } = await setUp(database, kind)
    t.teardown(close)
    const get = async () => (await fetch(url)).text()
    t.equal(await get(), 'signed in')
    await signOutBySql(database, { kind: 'session', issuer, sid: 's1' }, { revokeBefore: 9_999_999_999 })
    t.equal(await get(), 'nobody')
    t.equal(await get(), 'nobody')
    t.equal(state.ends, 1, 'once')
  })

  t.test(`${kind}: with the database out of reach a request fails, and is not let through`, async (t) => {
    const database = await createDatabase(t, { own: true })
    await storeLogin(database, { issuer, sid: 's1' })
    const { state, url, close } = await setUp(database, kind)
    t.teardown(close)
    await database.query('alter function msal_logout.session_active rename to away')
    const answer = await fetch(url)
    t.equal(answer.status, 500)
    t.notMatch(await answer.text(), /signed in/)
    t.equal(state.ends, 0)
  })
}

t.test('a session without a sid is asked for by its subject, and warned of once', async (t) => {
  const database = await createDatabase(t)
  const warnings: string[] = []
  const tokenCache = createTokenCache({
    pool: database.pool,
    clientId: 'client-a',
    onWarning: (message) => warnings.push(message)
  })
  database.pool.on('error', () => {})
  await storeLogin(database, { issuer, sid: null, subject: 'alice' })
  for (const session of [
    { issuer, sid: null, subject: 'alice' },
    { issuer, subject: 'alice' },
    { issuer, sid: '', subject: 'alice' },
    { idTokenClaims: { iss: issuer, sub: 'alice' } }
  ]) {
    t.equal(await tokenCache.isSessionActive(session), true, JSON.stringify(session))
  }
  t.equal(await tokenCache.isSessionActive({ issuer, subject: 'bob' }), false)
  t.equal(await tokenCache.isSessionActive({ issuer: `${issuer}/other`, subject: 'alice' }), false)
  t.equal(await tokenCache.isSessionActive({ issuer, sid: 's1', subject: 'alice' }), false, 'a sid decides alone')
  t.equal(warnings.length, 1)
  t.match(warnings[0], /bears no "sid"/)
  await signOutBySql(database, { kind: 'subject', issuer, subject: 'alice' })
  t.equal(await tokenCache.isSessionActive({ issuer, subject: 'alice' }), false)
})

t.test('an account of MSAL will do for a session, and one without its claims says what to keep', async (t) => {
  const database = await createDatabase(t)
  await storeLogin(database, { issuer, sid: 's1', subject: 'alice' })
  const tokenCache = createTokenCache({ pool: database.pool, clientId: 'client-a', onWarning: () => {} })
  const account = { homeAccountId: 'a.t', environment: 'e', tenantId: 't', username: 'u', localAccountId: 'l' }
  t.equal(
    await tokenCache.isSessionActive({ ...account, idTokenClaims: { iss: issuer, sub: 'alice', sid: 's1' } }),
    true
  )
  await t.rejects(tokenCache.isSessionActive(account as object), {
    code: 'ERR_TOKEN_CACHE_MISUSE',
    message: /"idTokenClaims"/
  })
})

t.test('a guard without what it needs says so at once', async (t) => {
  for (const make of [createExpressGuard, createFastifyGuard] as ((options: never) => unknown)[]) {
    const options = { tokenCache: {}, session: () => undefined, whenUnavailable: 'allow' }
    t.throws(() => make(options as never), { message: /must be "fail" or "pass"/ })
    for (const options of [undefined, {}, { tokenCache: {} }, { session: () => undefined }]) {
      t.throws(() => make(options as never), {
        code: 'ERR_TOKEN_CACHE_MISUSE',
        message: /takes \{ tokenCache, session/
      })
    }
  }
})

for (const kind of ['fastify', 'express'] as const) {
  t.test(`${kind}: a guard before the session says what to put before it`, async (t) => {
    const { pool } = await createDatabase(t)
    const tokenCache = createTokenCache({ pool, clientId: 'client-a', onWarning: () => {} })
    const session = (request: object) => (request as { session: { account: { issuer: string } } }).session.account
    const failure =
      kind === 'fastify'
        ? createFastifyGuard({ tokenCache, session })({}, {})
        : new Promise((_, reject) => {
            createExpressGuard({ tokenCache, session })({}, { headersSent: false }, reject)
          })
    await t.rejects(failure, { code: 'ERR_TOKEN_CACHE_MISUSE', message: /reading 'account'\)\): put express-session/ })
    const own = new TypeError('of the app')
    const thrower = createFastifyGuard({
      tokenCache,
      session: () => {
        throw own
      }
    })
    await t.rejects(thrower({ session: {} }, {}), own, 'any other error is its own')
  })

  t.test(
    `${kind}: a database that cannot be reached lets a request pass where the app says so, and nothing else`,
    async (t) => {
      const unavailable = Object.assign(new Error('away'), { isUnavailable: true, statusCode: 503 })
      const broken = new Error('of the app')
      for (const [error, whenUnavailable, status] of [
        [unavailable, 'pass', 200],
        [unavailable, 'fail', 503],
        [broken, 'pass', 500]
      ] as const) {
        const tokenCache = { isSessionActive: () => Promise.reject(error) }
        const options = { tokenCache, session: () => ({ issuer, sid: 's1' }), whenUnavailable }
        const app = kind === 'fastify' ? await fastifyWith(options) : await expressWith(options)
        t.teardown(app.close)
        t.equal((await fetch(app.url)).status, status)
      }
    }
  )
}

type Options = Parameters<typeof createExpressGuard<object, express.Response>>[0]

async function fastifyWith(options: Options) {
  const app = fastify()
  app.addHook('onRequest', createFastifyGuard<FastifyRequest, unknown>(options as never))
  app.get('/', async () => 'served')
  return { url: await app.listen({ port: 0, host: '127.0.0.1' }), close: () => app.close() }
}

async function expressWith(options: Options) {
  const app = express()
  app.set('env', 'test')
  app.use(createExpressGuard(options))
  app.get('/', (_request, response) => {
    response.send('served')
  })
  const server = app.listen(0, '127.0.0.1')
  await once(server, 'listening')
  return {
    url: `http://127.0.0.1:${(server.address() as { port: number }).port}`,
    close: async () => {
      server.closeAllConnections()
      server.close()
    }
  }
}

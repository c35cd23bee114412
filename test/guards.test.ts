import { randomUUID } from 'node:crypto'
import { once } from 'node:events'
import express, { type Request } from 'express'
import fastify, { type FastifyRequest } from 'fastify'
import t from 'tap'
import { createExpressGuard, createFastifyGuard, createTokenCache } from '../clients/node/src/index.ts'
import { createDatabase, type Database } from './fixtures/database.ts'
import { storeLogin } from './fixtures/service.ts'

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
    await database.query('select * from msal_logout.sign_out($1)', [
      JSON.stringify([
        {
          id: randomUUID(),
          source: 'backchannel',
          issuer,
          sid: 's1',
          not_after: 9_999_999_999,
          whole_subject: false,
          purge_scope: 'account'
        }
      ])
    ])
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

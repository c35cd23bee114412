import { EventEmitter, once } from 'node:events'
import pg from 'pg'
import t, { type Test } from 'tap'
import type { RevokedSession } from '../../clients/node/src/index.ts'
import { batchOf } from '../../src/store.ts'
import { createTokenCache } from '../fixtures/client.ts'
import { createDatabase, type Database } from '../fixtures/database.ts'
import { makeOrder, signOutBySql } from '../fixtures/orders.ts'
import { storeLogin } from '../fixtures/service.ts'

const issuer = 'https://issuer.example'

function signOut(database: Database, sid: string): Promise<void> {
  return signOutBySql(database, { kind: 'session', issuer, sid })
}

async function listen(t: Test, database: Database, clientId = 'client-a') {
  const told: RevokedSession[] = []
  const events = new EventEmitter()
  const tokenCache = createTokenCache({ pool: database.pool, clientId, onWarning: () => {} })
  const stop = await tokenCache.onPurge((ended) => {
    told.push(ended)
    events.emit('told')
  })
  t.teardown(stop)
  return {
    told,
    stop,
    async untilTold(count: number) {
      while (told.length < count) {
        await once(events, 'told')
      }
    }
  }
}

t.test('ended sessions of the app are told, in order, and no other app’s', async (t) => {
  const database = await createDatabase(t)
  const { told, untilTold } = await listen(t, database)
  for (const [clientId, sid] of [
    ['client-a', 's1'],
    ['client-b', 's2'],
    ['client-a', 's3']
  ] as const) {
    await storeLogin(database, { issuer, clientId, sid, subject: `of-${sid}`, homeAccountId: `${sid}.t` })
    await signOut(database, sid)
  }
  await untilTold(2)
  t.same(told, [
    { issuer, sid: 's1', subject: 'of-s1', homeAccountId: 's1.t' },
    { issuer, sid: 's3', subject: 'of-s3', homeAccountId: 's3.t' }
  ])
})

t.test('what was ended before is not told', async (t) => {
  const database = await createDatabase(t)
  await storeLogin(database, { issuer, sid: 's1' })
  await signOut(database, 's1')
  const { told, untilTold } = await listen(t, database)
  await storeLogin(database, { issuer, sid: 's2' })
  await signOut(database, 's2')
  await untilTold(1)
  t.match(told, [{ sid: 's2' }])
})

t.test('a lost connection loses nothing and tells nothing twice', async (t) => {
  const database = await createDatabase(t)
  const { told, untilTold } = await listen(t, database)
  const count = 60
  for (let i = 0; i < count; i += 1) {
    await storeLogin(database, { issuer, sid: `s${i}` })
    if (i % 10 === 5) {
      await database.query(
        `select pg_terminate_backend(pid) from pg_stat_activity where query = 'listen msal_logout' and datname = current_database()`
      )
    }
    await signOut(database, `s${i}`)
  }
  await untilTold(count)
  t.same(
    told.map(({ sid }) => sid),
    Array.from({ length: count }, (_, i) => `s${i}`)
  )
})

t.test('a connection that is lost in the moment of its first answer ends no process, and loses nothing', async (t) => {
  const database = await createDatabase(t)
  let lost = 0
  // The answer and the word that the server shuts down may come in one packet: pg gives both before anything else runs.
  const pool = new pg.Pool({ connectionString: database.url })
  t.teardown(() => pool.end())
  pool.on('connect', (client) => {
    const query = client.query.bind(client) as (...args: unknown[]) => unknown
    const loseWith = (statement: pg.QueryConfig, answer: (...args: unknown[]) => void) =>
      query(statement, (...args: unknown[]) => {
        answer(...args)
        if (lost === 0 && statement.text.startsWith('listen')) {
          lost += 1
          client.emit('error', new Error('terminating connection due to administrator command'))
        }
      })
    Object.assign(client, { query: loseWith })
  })
  const { told, untilTold } = await listen(t, { ...database, pool })
  await storeLogin(database, { issuer, sid: 's1' })
  await signOut(database, 's1')
  await untilTold(1)
  t.equal(lost, 1)
  t.match(told, [{ sid: 's1' }])
})

t.test('a notification that is lost is made up for by looking every half minute', async (t) => {
  const intervals = t.capture(globalThis, 'setInterval', globalThis.setInterval)
  const database = await createDatabase(t)
  const { told, untilTold } = await listen(t, database)
  const looks = intervals().filter(({ args }) => args[1] === 30_000)
  t.equal(looks.length, 1)
  await storeLogin(database, { issuer, sid: 's1' })
  const batch = batchOf([makeOrder({ kind: 'session', issuer, sid: 's1' })])
  await database.query('select * from msal_logout.sign_out($1)', [batch]) // without the notification that follows
  t.same(told, [])
  const look = () => looks[0]?.args[0](undefined)
  look()
  await untilTold(1)
  t.match(told, [{ sid: 's1' }])
  look()
  await storeLogin(database, { issuer, sid: 's2' })
  await signOut(database, 's2')
  await untilTold(2)
  t.match(told, [{ sid: 's1' }, { sid: 's2' }], 'each once')
})

t.test('transactions that commit out of the order in which they began lose nothing', async (t) => {
  const database = await createDatabase(t)
  const { told, untilTold } = await listen(t, database)
  const sids = Array.from({ length: 100 }, (_, i) => `s${i}`)
  await Promise.all(sids.map((sid) => storeLogin(database, { issuer, sid })))
  await Promise.all(
    sids.map(async (sid, i) => {
      const client = await database.pool.connect()
      await client.query('begin')
      await client.query(`select pg_sleep($1)`, [(i % 7) / 500])
      await signOutBySql(client, { kind: 'session', issuer, sid }, { revokeBefore: 9_999_999_999 })
      await client.query('select pg_sleep($1)', [(i % 3) / 500])
      await client.query('commit')
      client.release()
    })
  )
  await untilTold(sids.length)
  t.same(told.map(({ sid }) => sid).sort(), sids.sort())
})

t.test('a listener that fails is not told again, and the next one is', async (t) => {
  const database = await createDatabase(t)
  const warnings: string[] = []
  const tokenCache = createTokenCache({
    pool: database.pool,
    clientId: 'client-a',
    onWarning: (message) => warnings.push(message)
  })
  const seen: (string | null)[] = []
  const events = new EventEmitter()
  const stop = await tokenCache.onPurge(({ sid }) => {
    seen.push(sid)
    events.emit(String(sid))
    throw new Error('of the listener')
  })
  t.teardown(stop)
  for (const sid of ['s1', 's2']) {
    await storeLogin(database, { issuer, sid })
    const told = once(events, sid)
    await signOut(database, sid)
    await told
  }
  t.same(seen, ['s1', 's2'])
  t.match(warnings[0], /of the listener/)
})

t.test('stopped, it gives its connection back and tells nothing more', async (t) => {
  const database = await createDatabase(t)
  const { told, stop } = await listen(t, database)
  await stop()
  await storeLogin(database, { issuer, sid: 's1' })
  await signOut(database, 's1')
  t.same(told, [])
  t.same(
    await database.query(
      `select pid from pg_stat_activity where query = 'listen msal_logout' and datname = current_database()`
    ),
    []
  )
})

t.test('stopped while it connects again, it holds no connection', async (t) => {
  const database = await createDatabase(t)
  const events = new EventEmitter()
  const gate = once(events, 'open')
  let connects = 0
  // The second connection is given only when the test says so.
  const listenPool = new Proxy(database.pool, {
    get(pool, property) {
      const value = Reflect.get(pool, property)
      if (property !== 'connect') {
        return typeof value === 'function' ? value.bind(pool) : value
      }
      return async (callback: Parameters<typeof pool.connect>[0]) => {
        connects += 1
        if (connects === 2) {
          events.emit('waiting')
          await gate
        }
        pool.connect(callback)
      }
    }
  })
  const tokenCache = createTokenCache({ pool: database.pool, listenPool, clientId: 'client-a', onWarning: () => {} })
  const stop = await tokenCache.onPurge(() => {})
  const waiting = once(events, 'waiting')
  await database.query(
    `select pg_terminate_backend(pid) from pg_stat_activity where query = 'listen msal_logout' and datname = current_database()`
  )
  await waiting
  await stop()
  const removed = once(database.pool, 'remove')
  events.emit('open')
  await removed
  t.equal(database.pool.idleCount, database.pool.totalCount, 'every connection is back in the pool')
})

t.test('a start that fails holds no connection', async (t) => {
  const database = await createDatabase(t, { migrated: false })
  const tokenCache = createTokenCache({ pool: database.pool, clientId: 'client-a', onWarning: () => {} })
  await t.rejects(
    tokenCache.onPurge(() => {}),
    { code: 'ERR_TOKEN_CACHE_MISUSE', message: /msal-logout migrate/ }
  )
  t.equal(database.pool.idleCount, database.pool.totalCount)
})

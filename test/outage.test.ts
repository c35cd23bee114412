import { once } from 'node:events'
import { readdirSync, rmSync, writeFileSync } from 'node:fs'
import { connect } from 'node:net'
import { join } from 'node:path'
import pg from 'pg'
import t, { type Test } from 'tap'
import { createPool } from '../src/database.ts'
import { serverUrl } from './fixtures/database.ts'
import { hangFiles } from './fixtures/hang.ts'
import { createSigningKey } from './fixtures/identity-provider.ts'
import { startProxy } from './fixtures/proxy.ts'
import { build, type Service, storeLogin } from './fixtures/service.ts'
import { until } from './fixtures/until.ts'

interface Outage {
  service: Service
  proxy: Awaited<ReturnType<typeof startProxy>>
}

async function buildBehindProxy(t: Test): Promise<Outage> {
  const proxy = await startProxy(t, serverUrl())
  const service = await build(t, {
    openPool: (databaseUrl, options) => {
      const url = new URL(databaseUrl)
      url.host = `127.0.0.1:${proxy.port}`
      return createPool({ ...options, connectionString: url.href, statementTimeoutMs: 500 })
    }
  })
  return { service, proxy }
}

/** Waits until the spool is empty. */
async function untilRetried({ spool }: Service): Promise<void> {
  await until('nothing is deferred', async () => (await spool.list(1)).length === 0)
}

t.test('with the database out of reach', async (t) => {
  for (const behaviour of ['cut', 'hang'] as const) {
    await t.test(
      `(${behaviour}) a logout is answered 503 in time, deferred, and done when the database is back`,
      async (t) => {
        const { service, proxy } = await buildBehindProxy(t)
        await service.login({ homeAccountId: 'u.t', sid: 's1' })
        await service.login({ homeAccountId: 'v.t', sid: 's2' })
        t.equal((await service.post(await service.provider.logoutToken())).statusCode, 200, 'keys are at hand')

        proxy.set(behaviour)
        const token = await service.provider.logoutToken({ sid: 's1' })
        const answers = await Promise.all([
          service.post(token),
          service.post(token),
          service.app.inject('/frontchannel-logout/main?sid=s2')
        ])
        for (const answer of answers) {
          t.equal(answer.statusCode, 503)
          t.equal((answer as { headers?: Record<string, unknown> }).headers?.['retry-after'], '5')
          t.match(JSON.parse(answer.body), { error: 'temporarily_unavailable', error_description: /it is deferred/ })
        }
        t.equal((await service.rows()).length, 2)
        t.equal((await service.admin.inject('/readyz')).statusCode, 503)
        t.match(
          (await service.operate('GET', '/admin/stats')).json(),
          {
            verdicts: [
              {
                state: 'fails',
                code: 'deferred',
                message: /: (the database is out of reach|the sign-out was not done in time)$/,
                since: String
              }
            ],
            isComplete: false
          },
          'what has become of signals is shown all the same'
        )

        proxy.set('open')
        service.retry()
        await untilRetried(service)
        t.same(await service.rows(), [])
        t.equal(
          (await service.database.query(`select * from msal_logout.records where sid = 's1'`)).length,
          1,
          'once, though it came twice'
        )
        t.equal((await service.post(token)).statusCode, 200, "and the provider's own retry is success")
      }
    )
  }

  await t.test(
    'connections that a vanished server left behind hold nothing up when another has its place',
    async (t) => {
      const { service, proxy } = await buildBehindProxy(t)
      await service.login({ sid: 's1' })
      t.equal((await service.post(await service.provider.logoutToken())).statusCode, 200, 'a connection is open')

      proxy.abandon()
      t.equal((await service.admin.inject('/readyz')).statusCode, 503, 'it is told')
      t.equal((await service.admin.inject('/readyz')).statusCode, 200, 'the next connection is good')
      proxy.abandon()
      t.equal((await service.post(await service.provider.logoutToken({ sid: 's1' }))).statusCode, 503)
      service.retry()
      await untilRetried(service)
      t.same(await service.rows(), [])
    }
  )

  await t.test('a bad token is told from our own failure', async (t) => {
    const { service, proxy } = await buildBehindProxy(t)
    await service.post(await service.provider.logoutToken())
    proxy.set('cut')
    t.equal((await service.post(await service.provider.logoutToken({ nonce: 'n' }))).statusCode, 400)
    const stranger = await createSigningKey('RS256', service.provider.keys[0]?.kid)
    t.equal((await service.post(await service.provider.logoutToken({}, {}, stranger))).statusCode, 400)
    t.same(await service.spool.list(10), [])
  })

  await t.test('a spool that cannot be written is told honestly', async (t) => {
    const { service, proxy } = await buildBehindProxy(t)
    await service.post(await service.provider.logoutToken())
    rmSync(service.spoolDir, { recursive: true })
    writeFileSync(service.spoolDir, 'a file in the way')
    proxy.set('cut')
    const answer = await service.post(await service.provider.logoutToken())
    t.equal(answer.statusCode, 503)
    t.match(JSON.parse(answer.body).error_description, /could not be kept/)
    proxy.set('open')
    t.match((await service.admin.inject('/readyz')).json(), { status: 'unavailable', reason: 'ERR_SPOOL_NOT_WRITABLE' })
    t.equal(service.logs.filter((line) => line.includes('nothing can be deferred')).length, 1, 'in one line')
  })

  await t.test('a token that expires while it waits is done all the same', async (t) => {
    let time = Date.now()
    const proxy = await startProxy(t, serverUrl())
    const service = await build(t, {
      edges: { now: () => time },
      openPool: (databaseUrl, options) => {
        const url = new URL(databaseUrl)
        url.host = `127.0.0.1:${proxy.port}`
        return createPool({ ...options, connectionString: url.href, statementTimeoutMs: 500 })
      }
    })
    await service.login({ homeAccountId: 'u.t', sid: 's1' })
    await service.post(await service.provider.logoutToken())
    proxy.set('cut')
    await service.post(await service.provider.logoutToken({ sid: 's1' }))
    time += 24 * 60 * 60 * 1_000
    proxy.set('open')
    service.retry()
    await untilRetried(service)
    t.same(await service.rows(), [])
  })
})

t.test('with the keys out of reach at a cold start', async (t) => {
  for (const behaviour of ['down', 'hang'] as const) {
    await t.test(
      `(${behaviour}) a logout is answered 503 in time, deferred, and done when they are back`,
      async (t) => {
        let time = Date.now()
        const service = await build(t, { edges: { now: () => time, fetchTimeoutMs: 2_000 } })
        await service.login({ homeAccountId: 'u.t', sid: 's1' })
        service.provider.behaviour = behaviour
        const answer = await service.post(await service.provider.logoutToken({ sid: 's1' }))
        t.equal(answer.statusCode, 503)
        t.equal((await service.rows()).length, 1)

        service.provider.behaviour = 'up'
        time += 31_000
        service.retry()
        await untilRetried(service)
        t.same(await service.rows(), [])
      }
    )
  }

  await t.test('what nobody has signed is kept for a while, and set aside when the keys tell', async (t) => {
    let time = Date.now()
    const service = await build(t, { edges: { now: () => time }, spool: { unverified: { count: 6 } } })
    service.provider.behaviour = 'down'
    const stranger = await createSigningKey()
    const forged = () => service.provider.logoutToken({}, {}, stranger)
    for (let i = 0; i < 3; i += 1) {
      t.match(JSON.parse((await service.post(await forged())).body).error_description, /is deferred/)
    }
    t.match(
      JSON.parse((await service.post(await forged())).body).error_description,
      /could not be kept/,
      'but not without end'
    )
    const elsewhere = await service.app.inject({
      method: 'POST',
      url: '/backchannel-logout',
      headers: { 'content-type': 'application/x-www-form-urlencoded' },
      payload: `logout_token=${await service.provider.logoutToken({ sid: 'genuine' })}`,
      remoteAddress: '192.0.2.1'
    })
    t.match(elsewhere.json().error_description, /is deferred/, 'and what comes from another address has its place')
    t.equal(
      (await service.post(await service.provider.logoutToken({ aud: 'another' }))).statusCode,
      400,
      'nor whatever comes'
    )
    service.provider.behaviour = 'up'
    time += 31_000
    service.retry()
    await untilRetried(service)
    t.same(await service.database.query('select sid from msal_logout.records'), [{ sid: 'genuine' }])
  })
})

t.test(
  'a logout that was verified before it was kept is done, also where its key has been withdrawn since',
  async (t) => {
    const { service, proxy } = await buildBehindProxy(t)
    await service.login({ sid: 's1' })
    await service.post(await service.provider.logoutToken())
    proxy.set('cut')
    t.equal((await service.post(await service.provider.logoutToken({ sid: 's1' }))).statusCode, 503)
    service.provider.keys = [await createSigningKey()]
    t.equal(
      (await service.post(await service.provider.logoutToken())).statusCode,
      503,
      'the new key is known, and alone'
    )
    proxy.set('open')
    service.retry()
    await untilRetried(service)
    t.same(await service.rows(), [])
  }
)

t.test('a disk that hangs, with the database out of reach, is told in time', async (t) => {
  const { service, proxy } = await buildBehindProxy(t)
  await service.post(await service.provider.logoutToken())
  const token = await service.provider.logoutToken()
  proxy.set('hang')
  const release = hangFiles(t)
  const answers = await Promise.all([service.post(token), service.app.inject('/frontchannel-logout/main?sid=s2')])
  for (const { statusCode, body } of answers) {
    t.equal(statusCode, 503)
    t.match(JSON.parse(body).error_description, /could not be kept/)
  }
  release()
})

t.test('keys that cannot be had at the start are had later, without a token that waits for them', async (t) => {
  const service = await build(t, { edges: { choresEveryMs: 20 } })
  service.provider.behaviour = 'down'
  service.start()
  const [issuer] = await until('a fetch has failed', () => {
    const status = service.issuers.status()
    return status[0]?.lastFailure !== undefined && status
  })
  t.equal(issuer?.keys, 0)
  service.provider.behaviour = 'up'
  await until('the keys are at hand', () => service.issuers.status()[0]?.keys === 1)
})

t.test('a new key that cannot be fetched is our failure, also in the cool-down', async (t) => {
  let time = Date.now()
  const service = await build(t, { edges: { now: () => time } })
  await service.login({ homeAccountId: 'u.t', sid: 's1' })
  await service.login({ homeAccountId: 'v.t', sid: 's2' })
  await service.post(await service.provider.logoutToken())
  const next = await createSigningKey()
  service.provider.keys = [next]
  service.provider.behaviour = 'down'
  for (const sid of ['s1', 's2']) {
    t.equal((await service.post(await service.provider.logoutToken({ sid }, {}, next))).statusCode, 503, sid)
  }
  service.provider.behaviour = 'up'
  time += 31_000
  service.retry()
  await untilRetried(service)
  t.same(await service.rows(), [])
})

t.test('keys that are rotated while somebody makes up key ids cost no logout', async (t) => {
  let time = Date.now()
  const service = await build(t, { edges: { now: () => time } })
  await service.login({ homeAccountId: 'u.t', sid: 's1' })
  await service.post(await service.provider.logoutToken())
  const [, payload, signature] = (await service.provider.logoutToken({ sid: 's1' })).split('.')
  const sendHostile = async (count: number) => {
    for (let i = 0; i < count; i += 1) {
      time += 1
      const header = Buffer.from(JSON.stringify({ alg: 'RS256', typ: 'logout+jwt', kid: `made-up-${i}` }))
      await service.post(`${header.toString('base64url')}.${payload}.${signature}`)
    }
  }
  await sendHostile(30)
  const next = await createSigningKey()
  service.provider.keys = [next]
  const valid = await service.post(await service.provider.logoutToken({ sid: 's1' }, {}, next))
  t.equal(valid.statusCode, 503)
  t.match(JSON.parse(valid.body).error_description, /is deferred/)
  const setAside = (await service.spool.status()).unverified - 1
  t.ok(setAside >= 15)

  service.retry()
  time += 10_000
  await untilRetried(service)
  t.same(await service.rows(), [])
  t.equal(readdirSync(join(service.spoolDir, 'rejected')).length, setAside, 'what was made up is set aside')
})

t.test('a server that takes no writes is an outage, and logouts go to the next one', async (t) => {
  const service = await build(t, { openPool: (connectionString, { max }) => new pg.Pool({ connectionString, max }) })
  await service.login({ sid: 's1' })
  await service.post(await service.provider.logoutToken())
  const name = new URL(service.database.url).pathname.slice(1)
  const admin = new pg.Client({ connectionString: serverUrl() })
  await admin.connect()
  t.teardown(() => admin.end())
  // As in a failover: connections are cut, and what answers next is read-only for a while.
  const failOver = async (readOnly: 'on' | 'off') => {
    await admin.query(`alter database ${name} set default_transaction_read_only = ${readOnly}`)
    if (readOnly === 'on') {
      await admin.query('select pg_terminate_backend(pid) from pg_stat_activity where datname = $1', [name])
    }
  }
  await failOver('on')
  const answer = await service.post(await service.provider.logoutToken({ sid: 's1' }))
  t.equal(answer.statusCode, 503)
  t.match(JSON.parse(answer.body).error_description, /is deferred/)
  t.equal((await service.admin.inject('/readyz')).statusCode, 503)

  await failOver('off') // connections that are still read-only stay so: they must not be used again
  service.retry()
  await untilRetried(service)
  t.same(await service.rows(), [])
})

t.test('without the right to do a logout the service is not ready', async (t) => {
  const service = await build(t)
  t.equal((await service.admin.inject('/readyz')).statusCode, 200)
  await service.database.query('alter schema msal_logout rename to elsewhere')
  const answer = await service.admin.inject('/readyz')
  await service.database.query('alter schema elsewhere rename to msal_logout')
  t.equal(answer.statusCode, 503)
  t.match(answer.json(), { reason: 'ERR_DATABASE_FAILED' })
})

t.test('a body that comes too slowly is cut', async (t) => {
  const service = await build(t)
  await service.app.listen({ port: 0, host: '127.0.0.1' })
  const { port } = service.app.server.address() as { port: number }
  const socket = connect(port, '127.0.0.1')
  socket.on('error', () => {})
  socket.write(
    'POST /backchannel-logout HTTP/1.1\r\nhost: x\r\ncontent-type: application/x-www-form-urlencoded\r\ncontent-length: 1000\r\n\r\nlogout'
  )
  socket.resume()
  await once(socket, 'close') // if it is not cut, the test does not end
})

t.test('a logout that the database refuses for a reason of ours is kept, and its neighbours are done', async (t) => {
  const service = await build(t)
  await service.post(await service.provider.logoutToken())
  await service.database.query(`alter table msal_logout.records add constraint provoked check (sid <> 'poison')`)
  const sids = ['s1', 's2', 'poison', 's3', 's4']
  await Promise.all(sids.map((sid) => storeLogin(service.database, { issuer: service.provider.issuer, sid })))
  const posts = await Promise.all(sids.map(async (sid) => service.post(await service.provider.logoutToken({ sid }))))
  t.same(
    posts.map(({ statusCode }) => statusCode),
    [200, 200, 503, 200, 200]
  )
  t.equal((await service.rows()).length, 1)
  await service.database.query('alter table msal_logout.records drop constraint provoked')
  service.retry()
  await untilRetried(service)
  t.same(await service.rows(), [])
})

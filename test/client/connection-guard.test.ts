import { once } from 'node:events'
import { createServer, type IncomingMessage, request as requestHttp } from 'node:http'
import type { AddressInfo, Socket } from 'node:net'
import t, { type Test } from 'tap'
import { createConnectionGuard, createTokenCache } from '../fixtures/client.ts'
import { createDatabase, type Database } from '../fixtures/database.ts'
import { signOutBySql } from '../fixtures/orders.ts'
import { storeLogin } from '../fixtures/service.ts'

const issuer = 'https://issuer.example'

async function build(t: Test) {
  const database = await createDatabase(t)
  const tokenCache = createTokenCache({ pool: database.pool, clientId: 'client-a', onWarning: () => {} })
  const guard = createConnectionGuard({ tokenCache })
  t.teardown(() => guard.stop())
  return { database, tokenCache, guard }
}

/** A connection that is told of its end. */
function open(): { close: () => void; closed: Promise<void>; closes: () => number } {
  let closes = 0
  let end = () => {}
  const closed = new Promise<void>((resolve) => {
    end = resolve
  })
  const close = () => {
    closes += 1
    end()
  }
  return { close, closed, closes: () => closes }
}

const login = (database: Database, sid: string | null, subject = `of-${sid}`) =>
  storeLogin(database, { issuer, sid, subject, homeAccountId: `${subject}.t` })

t.test('a connection is closed when its user is signed out, and no other', async (t) => {
  const { database, guard } = await build(t)
  await login(database, 's1')
  await login(database, 's2')
  const [first, second, other] = [open(), open(), open()]
  await guard.add({ issuer, sid: 's1' }, first.close)
  await guard.add({ idTokenClaims: { iss: issuer, sid: 's1', sub: 'of-s1' } }, second.close)
  await guard.add({ issuer, sid: 's2' }, other.close)
  await signOutBySql(database, { kind: 'session', issuer, sid: 's1' })
  await Promise.all([first.closed, second.closed])
  await signOutBySql(database, { kind: 'session', issuer, sid: 's2' })
  await other.closed
  t.same(
    [first, second, other].map(({ closes }) => closes()),
    [1, 1, 1],
    'each once'
  )
})

t.test('one without a sid is closed by a sign-out of its subject', async (t) => {
  const { database, guard } = await build(t)
  await login(database, null, 'alice')
  const connection = open()
  await guard.add({ issuer, sid: null, subject: 'alice' }, connection.close)
  await signOutBySql(database, { kind: 'subject', issuer, subject: 'alice' })
  await connection.closed
})

t.test('one whose user is signed out already is closed at once', async (t) => {
  const { database, guard } = await build(t)
  await login(database, 's1')
  await signOutBySql(database, { kind: 'session', issuer, sid: 's1' })
  const connection = open()
  await guard.add({ issuer, sid: 's1' }, connection.close)
  t.equal(connection.closes(), 1)
})

t.test('one that has ended by itself is left alone', async (t) => {
  const { database, guard } = await build(t)
  await login(database, 's1')
  const [ended, open1] = [open(), open()]
  const remove = await guard.add({ issuer, sid: 's1' }, ended.close)
  await guard.add({ issuer, sid: 's1' }, open1.close)
  remove()
  remove()
  await signOutBySql(database, { kind: 'session', issuer, sid: 's1' })
  await open1.closed
  t.equal(ended.closes(), 0)
})

t.test('a close that fails keeps none of the others open', async (t) => {
  const { database, guard } = await build(t)
  await login(database, 's1')
  const connection = open()
  await guard.add({ issuer, sid: 's1' }, () => {
    throw new Error('of the app')
  })
  await guard.add({ issuer, sid: 's1' }, async () => {
    throw new Error('of the app, later')
  })
  await guard.add({ issuer, sid: 's1' }, connection.close)
  await signOutBySql(database, { kind: 'session', issuer, sid: 's1' })
  await connection.closed
})

t.test('a hundred sign-outs while connections are opened: none stays open', async (t) => {
  const { database, guard } = await build(t)
  const connections = await Promise.all(
    Array.from({ length: 100 }, async (_, i) => {
      await login(database, `s${i}`)
      const connection = open()
      await Promise.all([
        guard.add({ issuer, sid: `s${i}` }, connection.close),
        signOutBySql(database, { kind: 'session', issuer, sid: `s${i}` })
      ])
      return connection
    })
  )
  await Promise.all(connections.map(({ closed }) => closed))
  t.ok(connections.every(({ closes }) => closes() === 1))
})

t.test('without a database no connection is opened', async (t) => {
  const { database, guard } = await build(t)
  await database.pool.end()
  database.pool.end = async () => {}
  const connection = open()
  await t.rejects(guard.add({ issuer, sid: 's1' }, connection.close), { code: 'ERR_TOKEN_CACHE_DATABASE' })
  t.equal(connection.closes(), 0)
})

t.test('server-sent events and an upgraded socket end with their user', async (t) => {
  const { database, guard } = await build(t)
  await login(database, 's1')
  const session = { issuer, sid: 's1' }
  const server = createServer(async (_request, response) => {
    response.writeHead(200, { 'content-type': 'text/event-stream' }).flushHeaders()
    const remove = await guard.add(session, () => response.end('event: signed-out\n\n'))
    response.on('close', remove)
  })
  server.on('upgrade', async (_request: IncomingMessage, socket: Socket) => {
    socket.write('HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: test\r\n\r\n')
    socket.on('close', await guard.add(session, () => socket.destroy()))
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  t.teardown(() => {
    server.closeAllConnections()
    server.close()
  })
  const { port } = server.address() as AddressInfo
  const events = await fetch(`http://127.0.0.1:${port}/`)
  const upgraded = requestHttp({ port, headers: { connection: 'upgrade', upgrade: 'test' } })
  upgraded.end()
  const [, socket]: [unknown, Socket] = (await once(upgraded, 'upgrade')) as never
  const closed = once(socket, 'close')
  socket.resume().on('error', () => {})
  // Until both are watched over: only then a sign-out finds them.
  await guard.add(session, () => {})
  await signOutBySql(database, { kind: 'session', issuer, sid: 's1' })
  t.match(await events.text(), /signed-out/)
  await closed
})

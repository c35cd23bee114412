import { once } from 'node:events'
import { createServer, type ServerResponse } from 'node:http'
import { type AddressInfo, connect, type Socket } from 'node:net'
import t, { type Test } from 'tap'
import { boundConnections, maxConnections } from '../src/http/connection-bound.ts'
import { until } from './fixtures/until.ts'

/** A server with this bound, which answers when it is asked to; and connections to it. */
async function start(t: Test, max: number) {
  const lines: unknown[] = []
  const answers: ServerResponse[] = []
  const server = createServer((request, response) => {
    request.resume()
    answers.push(response)
  })
  boundConnections(server, { max, logger: { warn: (...line: unknown[]) => lines.push(line) } })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  t.teardown(() => {
    server.closeAllConnections()
    server.close()
  })
  const { port } = server.address() as AddressInfo
  const count = () => new Promise((resolve) => server.getConnections((_error, found) => resolve(found)))
  return {
    lines,
    answers,
    async open(text = '', localAddress = '127.0.0.1'): Promise<Socket> {
      const socket = connect({ port, host: '127.0.0.1', localAddress })
      socket.on('error', () => {})
      socket.resume()
      t.teardown(() => socket.destroy())
      await once(socket, 'connect')
      socket.write(text)
      return socket
    },
    async has(expected: number) {
      await until(`there are ${expected} connections`, async () => (await count()) === expected)
    }
  }
}

const get = 'GET / HTTP/1.1\r\nhost: x\r\n\r\n'
const isClosed = (socket: Socket) => until('it is closed', () => socket.destroyed)

t.test('one too many closes the one that has waited longest, and leaves a line', async (t) => {
  const { open, has, lines } = await start(t, 3)
  const [first, second] = [await open(), await open(), await open()]
  await has(3)
  t.same(lines, [])
  await open()
  await isClosed(first)
  await has(3)
  await open()
  await isClosed(second)
  t.equal(lines.length, 1, 'one a minute')
})

t.test('what is being answered stays, and waits again behind the others', async (t) => {
  const { open, has, answers } = await start(t, 3)
  const first = await open(get)
  await until('it is asked', () => answers.length === 1)
  const second = await open()
  const third = await open()
  await has(3)
  await open()
  await isClosed(second)
  answers[0]?.end()
  await once(first, 'data')
  await open()
  await isClosed(third)
  t.notOk(first.destroyed)
})

t.test('where all are asked something, one that is still sending goes; else the new one', async (t) => {
  const { open, has, answers } = await start(t, 2)
  await open(get)
  const slow = await open('POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\nx')
  await until('both are asked', () => answers.length === 2)
  const third = await open(get)
  await isClosed(slow)
  await until('it is asked', () => answers.length === 3)
  await isClosed(await open(get))
  await has(2)
  t.notOk(third.destroyed)
})

t.test('an address that has many loses its own first', async (t) => {
  const { open, has } = await start(t, 32)
  const others = [await open('', '127.0.0.3'), await open('', '127.0.0.4')]
  const own = []
  for (let i = 0; i < 30; i += 1) {
    own.push(await open('', '127.0.0.2'))
  }
  await has(32)
  for (const address of ['127.0.0.2', '127.0.0.5', '127.0.0.2']) {
    await open('', address)
  }
  for (const socket of own.slice(0, 3)) {
    await isClosed(socket)
  }
  await has(32)
  t.same(
    others.filter(({ destroyed }) => destroyed),
    []
  )
})

t.test('of several addresses with many, the one with most loses, also to the others', async (t) => {
  const { open, has } = await start(t, 32)
  const attacking = []
  for (let i = 0; i < 24; i += 1) {
    attacking.push(await open('', '127.0.0.2'))
  }
  const burst = []
  for (let i = 0; i < 12; i += 1) {
    burst.push(await open('', '127.0.0.3'))
  }
  for (const socket of attacking.slice(0, 4)) {
    await isClosed(socket)
  }
  await has(32)
  t.same(
    burst.filter(({ destroyed }) => destroyed),
    []
  )
})

t.test('half of the files that the process may have open, and no more than memory allows', async (t) => {
  const limits = (soft: string) =>
    `Limit  Soft Limit  Hard Limit  Units\nMax open files            ${soft}  4096  files\n`
  t.equal(maxConnections(limits('1024')), 512)
  t.equal(maxConnections(limits('1048576')), 10_000)
  t.equal(maxConnections(''), 512)
  t.ok(maxConnections() >= 100)
})

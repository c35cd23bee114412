import { readdirSync, readFileSync, rmSync, statSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { pino } from 'pino'
import t, { type Test } from 'tap'
import { createSpool, type Deferred, type DeferredFile, type SpoolOptions } from '../src/spool.ts'
import { hangFiles } from './fixtures/hang.ts'
import { makeOrder } from './fixtures/orders.ts'
import { temporaryFolder } from './fixtures/server.ts'
import { until } from './fixtures/until.ts'

const logger = pino({ level: 'silent' })
// A busy disk is slow, and not what most of these tests are about.
const longMs = 30_000

function folder(t: Test): string {
  return join(temporaryFolder(t), 'spool')
}

function open(dir: string, options: Partial<SpoolOptions> = {}) {
  return createSpool({ dir, logger, ...options })
}

function ordersOf(sid: string, receivedAt = 1_000): Deferred {
  const order = makeOrder({ kind: 'session', issuer: 'https://op.example', sid })
  return { kind: 'orders', source: 'backchannel', isSigned: true, receivedAt, orders: [order] }
}

function signalOf(input: unknown, receivedAt = 1_000): Deferred {
  return { kind: 'signal', source: 'backchannel', isSigned: true, receivedAt, input }
}

function callOf(sid: string, receivedAt = 1_000): Deferred {
  return { kind: 'signal', source: 'frontchannel', isSigned: false, receivedAt, input: { sid } }
}

/** What is in them, in a word each. */
function contentsOf(files: readonly DeferredFile[]): unknown[] {
  return files.map(({ deferred }) => {
    if (deferred?.kind === 'signal') {
      return deferred.input
    }
    const selector = deferred?.orders[0]?.selector
    return selector?.kind === 'session' ? selector.sid : undefined
  })
}

async function deferAll(spool: ReturnType<typeof open>, deferred: readonly Deferred[], sender?: string) {
  const ends = await Promise.all(deferred.map((each) => spool.defer(each, longMs, sender)))
  return ends.filter((isOnDisk) => isOnDisk).length
}

const numbered = (count: number, make: (name: string) => Deferred) =>
  Array.from({ length: count }, (_, i) => make(`n${i}`))

t.test('what is deferred is listed oldest first, also by another process and after a restart', async (t) => {
  const dir = folder(t)
  const spool = open(dir)
  for (const at of [3_000, 1_000, 2_000]) {
    t.ok(await spool.defer(ordersOf(`at-${at}`, at), longMs))
  }
  t.ok(await spool.defer(callOf('s1', 500), longMs))
  const other = open(dir)
  const files = await other.list(10)
  t.same(contentsOf(files), ['at-1000', 'at-2000', 'at-3000', { sid: 's1' }])
  t.match(files[3], { deferred: { source: 'frontchannel', receivedAt: 500, isSigned: false } })
  t.same(contentsOf(await other.list(2)), ['at-1000', 'at-2000'])
  t.same(await other.status(), {
    verified: 3,
    unverified: 0,
    unsigned: 1,
    rejected: 0,
    stuck: [],
    oldestAt: 500,
    isWritable: true
  })
  await other.remove(files[0]?.name ?? '')
  t.same(contentsOf(await spool.list(10)), ['at-2000', 'at-3000', { sid: 's1' }])
})

t.test('an order is read as it was written', async (t) => {
  const dir = folder(t)
  const deferred = ordersOf('s1')
  await open(dir).defer(deferred, longMs)
  t.strictSame((await open(dir).list(1))[0]?.deferred, JSON.parse(JSON.stringify(deferred)))
})

t.test('the same signal 10,000 times in an outage is one file', async (t) => {
  const dir = folder(t)
  const spool = open(dir)
  const deferred = ordersOf('s1')
  for (let round = 0; round < 100; round += 1) {
    const again = numbered(100, () => ({ ...deferred, receivedAt: 1_000 + round }))
    t.equal(await deferAll(spool, again), 100)
  }
  t.equal((await spool.list(10)).length, 1)
  t.equal(await deferAll(open(dir), [deferred]), 1)
  t.equal((await spool.list(10)).length, 1, 'also after a restart')
  await spool.remove((await spool.list(1))[0]?.name ?? '')
  t.equal(await deferAll(spool, [deferred]), 1)
  t.equal((await spool.list(10)).length, 1, 'and again when it was done')
})

t.test('a file that cannot be read is logged once, and again after it was taken away', async (t) => {
  const dir = folder(t)
  const lines: string[] = []
  const spool = open(dir, { logger: pino({ level: 'error' }, { write: (line: string) => lines.push(line) }) })
  t.equal(await deferAll(spool, [ordersOf('s1')]), 1)
  const path = join(dir, readdirSync(dir).find((entry) => entry.endsWith('.json')) ?? '')
  for (const count of [1, 2]) {
    rmSync(path)
    await spool.list(10)
    symlinkSync('/dev/null', path)
    t.same(await spool.list(10), [])
    t.same(await spool.list(10), [])
    t.equal(lines.length, count)
  }
})

t.test('nobody else can read it', async (t) => {
  const dir = folder(t)
  await open(dir).defer(ordersOf('x'), longMs)
  t.equal(statSync(dir).mode & 0o777, 0o700)
  const [name] = readdirSync(dir).filter((entry) => entry.endsWith('.json'))
  t.equal(statSync(join(dir, name ?? '')).mode & 0o777, 0o600)
})

t.test('it is bounded, and what nobody has vouched for cannot take the place of what somebody has', async (t) => {
  const spool = open(folder(t), { verified: { count: 2 }, unverified: { count: 1 } })
  t.equal(await deferAll(spool, numbered(2, signalOf)), 1)
  await t.resolves(spool.checkReady(), 'which is no outage of ours')
  t.equal(await deferAll(spool, numbered(3, ordersOf)), 2)
  await t.rejects(spool.checkReady(), { code: 'ERR_SPOOL_FULL' })
})

t.test('the shares are bounded apart, for many at once', async (t) => {
  const spool = open(folder(t), { unverified: { count: 5 }, unsigned: { count: 3 } })
  const [signals, calls] = await Promise.all([
    deferAll(spool, numbered(50, signalOf)),
    deferAll(spool, numbered(50, callOf))
  ])
  t.same([signals, calls], [5, 3])
  t.equal((await spool.list(100)).length, 8)
})

t.test('a folder that cannot be written shows, and is used again when it is mended', async (t) => {
  const dir = folder(t)
  writeFileSync(dir, 'a file in the way')
  const lines: string[] = []
  const spool = open(dir, { logger: pino({}, { write: (line: string) => lines.push(line) }) })
  t.equal(await deferAll(spool, numbered(5, ordersOf)), 0)
  await t.rejects(spool.checkReady(), { name: 'SpoolError' })
  t.equal(lines.length, 1, 'in one line')
  rmSync(dir)
  t.equal(await deferAll(spool, [ordersOf('x')]), 1)
  await t.resolves(spool.checkReady())
})

t.test('what proved bad is set aside with its reason, and no more of it than fits', async (t) => {
  const dir = folder(t)
  const spool = open(dir, { maxRejected: 2 })
  await deferAll(
    spool,
    [1_000, 2_000, 3_000].map((at) => signalOf(`at-${at}`, at))
  )
  for (const { name } of await spool.list(10)) {
    await spool.reject(name, 'ERR_TOKEN_SIGNATURE')
  }
  t.same(await spool.list(10), [])
  const rejected = readdirSync(join(dir, 'rejected')).sort()
  t.equal(rejected.length, 2)
  t.ok(rejected.every((name) => name.endsWith('.ERR_TOKEN_SIGNATURE.json')))
  t.match(readFileSync(join(dir, 'rejected', rejected[0] ?? ''), 'utf8'), /at-2000/)
})

t.test('what was verified goes first, then what is signed, then what is not', async (t) => {
  const spool = open(folder(t))
  await deferAll(spool, [callOf('unsigned', 1_000), signalOf('signed', 2_000), ordersOf('verified', 3_000)])
  t.same(contentsOf(await spool.list(10)), ['verified', 'signed', { sid: 'unsigned' }])
})

t.test('one sender gets no more of what is not verified than it leaves, also after a restart', async (t) => {
  const dir = folder(t)
  const options = { unverified: { count: 8 }, verified: { count: 8 } }
  let made = 0
  const unverified = () => signalOf(`n${made++}`)
  const deferredBy = (sender: string, make = unverified) => deferAll(open(dir, options), numbered(10, make), sender)
  t.equal(await deferredBy('192.0.2.1'), 4)
  t.equal(await deferredBy('::ffff:192.0.2.1'), 0, 'the same')
  t.equal(await deferredBy('2001:db8::1'), 2)
  t.equal(await deferredBy('2001:db8::2'), 0, 'the same network')
  t.equal(await deferredBy('192.0.2.1', () => ordersOf(`n${made++}`)), 8, 'what is verified is bounded by nothing else')
  t.match(
    (await open(dir, options).list(20)).map(({ name }) => name).join(),
    /^(?!.*(192\.|2001))/,
    'no name shows one'
  )
})

t.test('each share is bounded by bytes too, also after a restart and after something was done', async (t) => {
  const dir = folder(t)
  const options = { unverified: { bytes: 10_000 } }
  const large = (name: string) => signalOf(`${name}${'x'.repeat(4_000)}`)
  t.equal(await deferAll(open(dir, options), [large('a')]), 1)
  const spool = open(dir, options)
  t.equal(await deferAll(spool, [large('b')]), 1)
  t.equal(await deferAll(spool, [large('c')]), 0)
  t.equal(await deferAll(spool, [signalOf('small')]), 1)
  await spool.remove((await spool.list(1))[0]?.name ?? '')
  t.equal(await deferAll(spool, [large('d')]), 1)
})

t.test('what has waited too long is not written, and not answered as deferred', async (t) => {
  const spool = open(folder(t))
  await spool.status()
  t.equal(await spool.defer(ordersOf('x'), 0), false)
  t.same(await spool.list(10), [])
})

t.test('a disk that hangs holds nothing up, and what is written late is done', async (t) => {
  const dir = folder(t)
  const spool = open(dir)
  t.equal(await deferAll(spool, [ordersOf('before')]), 1)
  const release = hangFiles(t)
  const ends = await Promise.all(numbered(3, ordersOf).map((deferred) => spool.defer(deferred, 100)))
  t.same(ends, [false, false, false])
  release()
  await until('what had begun is there', async () => (await open(dir).list(10)).length >= 2)
  t.equal(await deferAll(spool, [ordersOf('after')]), 1)
})

t.test('a process that never lists sees what another one has done, before it says that there is no room', async (t) => {
  const dir = folder(t)
  const own = open(dir, { verified: { count: 2 } })
  t.equal(await deferAll(own, [ordersOf('a'), ordersOf('b')]), 2)
  t.notOk(await own.defer(ordersOf('c'), longMs), 'it is full')
  const other = open(dir)
  for (const { name } of await other.list(10)) {
    await other.remove(name)
  }
  await until('it looks again', async () => own.defer(ordersOf('c'), longMs))
  t.same(contentsOf(await other.list(10)), ['c'])
})

t.test('what another process has done is deferred again, if it comes again', async (t) => {
  const dir = folder(t)
  const own = open(dir)
  t.equal(await deferAll(own, [ordersOf('a')]), 1)
  const other = open(dir)
  for (const { name } of await other.list(10)) {
    await other.remove(name)
  }
  await until('it is on disk', async () => {
    await own.defer(ordersOf('a'), longMs)
    return (await other.list(10)).length === 1
  })
})

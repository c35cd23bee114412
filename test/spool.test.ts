import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync, utimesSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { pino } from 'pino'
import t, { type Test } from 'tap'
import type { LogoutRequest } from '../src/logout-request.ts'
import { createSpool, type SpoolOptions } from '../src/spool.ts'
import { hangFiles } from './fixtures/hang.ts'

const logger = pino({ level: 'silent' })

function folder(t: Test): string {
  const dir = mkdtempSync(join(tmpdir(), 'msal-logout-spool-'))
  t.teardown(() => rmSync(dir, { recursive: true, force: true }))
  return join(dir, 'spool')
}

/** With time to keep, where a test is not about that: a busy disk is slow. */
function open(dir: string, options: Partial<SpoolOptions> = {}) {
  const spool = createSpool({ dir, logger, ...options })
  return {
    ...spool,
    keep: (request: LogoutRequest, at: number, isVerified: boolean, withinMs = 30_000, address?: string) =>
      spool.keep(request, at, isVerified, withinMs, address)
  }
}
const tokens = (kept: { request: object }[]) =>
  kept.map(({ request }) => ('token' in request ? request.token : undefined))

t.test('what is kept is listed oldest first, also by another process and after a restart', async (t) => {
  const dir = folder(t)
  const spool = open(dir)
  for (const at of [3_000, 1_000, 2_000]) {
    await spool.keep({ token: `at-${at}` }, at, true)
  }
  await spool.keep({ issuerName: 'main', issuer: undefined, sid: 's1' }, 4_000, false)
  const other = open(dir)
  const kept = await other.list(10)
  t.same(tokens(kept), ['at-1000', 'at-2000', 'at-3000', undefined])
  t.match(kept[3], { at: 4_000, request: { issuerName: 'main', sid: 's1' } })
  t.same(tokens(await other.list(2)), ['at-1000', 'at-2000'])
  t.same(await other.status(), {
    verified: 3,
    unverified: 0,
    frontchannel: 1,
    rejected: 0,
    oldestAt: 1_000,
    isWritable: true
  })
  await other.remove(kept[0]?.name ?? '')
  t.same(tokens(await spool.list(10)), ['at-2000', 'at-3000', undefined])
})

t.test('nobody else can read it', async (t) => {
  const dir = folder(t)
  await open(dir).keep({ token: 'x' }, 1_000, true)
  t.equal(statSync(dir).mode & 0o777, 0o700)
  const [name] = readdirSync(dir).filter((entry) => entry.endsWith('.json'))
  t.equal(statSync(join(dir, name ?? '')).mode & 0o777, 0o600)
})

t.test('it is bounded, and what nobody has vouched for cannot take the place of what somebody has', async (t) => {
  const spool = open(folder(t), { verified: { maxCount: 2 }, unverified: { maxCount: 1 } })
  await spool.keep({ token: 'hostile' }, 1_000, false)
  await t.rejects(spool.keep({ token: 'hostile' }, 1_000, false), { code: 'ERR_SPOOL' })
  await t.resolves(spool.checkWritable(), 'which is no outage of ours')
  await spool.keep({ token: 'verified' }, 1_000, true)
  await spool.keep({ token: 'verified' }, 1_000, true)
  await t.rejects(spool.keep({ token: 'verified' }, 1_000, true), { code: 'ERR_SPOOL' })
  await t.rejects(spool.checkWritable(), { code: 'ERR_SPOOL' })
})

t.test('a folder that cannot be written is told', async (t) => {
  const dir = folder(t)
  writeFileSync(dir, 'a file in the way')
  const spool = open(dir)
  await t.rejects(spool.keep({ token: 'x' }, 1_000, true), { code: 'ERR_SPOOL' })
  await t.rejects(spool.checkWritable(), { code: 'ERR_SPOOL' })
  rmSync(dir)
  await t.resolves(spool.keep({ token: 'x' }, 1_000, true), 'and used again when it is mended')
  await t.resolves(spool.checkWritable())
})

t.test('what proved bad is set aside with its reason, and no more of it than fits', async (t) => {
  const dir = folder(t)
  const spool = open(dir, { maxRejected: 2 })
  for (const at of [1_000, 2_000, 3_000]) {
    await spool.keep({ token: `at-${at}` }, at, true)
  }
  for (const { name } of await spool.list(10)) {
    await spool.reject(name, 'ERR_TOKEN_SIGNATURE')
  }
  t.same(await spool.list(10), [])
  const rejected = readdirSync(join(dir, 'rejected')).sort()
  t.equal(rejected.length, 2)
  t.ok(rejected.every((name) => name.endsWith('.ERR_TOKEN_SIGNATURE.json')))
  t.match(readFileSync(join(dir, 'rejected', rejected[0] ?? ''), 'utf8'), /at-2000/)
})

t.test('what is verified goes before what nobody has vouched for', async (t) => {
  const spool = open(folder(t))
  await spool.keep({ token: 'hostile' }, 1_000, false)
  await spool.keep({ token: 'verified' }, 2_000, true)
  t.same(tokens(await spool.list(10)), ['verified', 'hostile'])
})

t.test('the bound holds for many at once', async (t) => {
  const spool = open(folder(t), { unverified: { maxCount: 5 } })
  const kept = await Promise.allSettled(Array.from({ length: 50 }, () => spool.keep({ token: 'x' }, 1_000, false)))
  t.equal(kept.filter(({ status }) => status === 'fulfilled').length, 5)
  t.equal((await spool.list(100)).length, 5)
})

t.test('one address gets no more of what is not verified than it leaves, also after a restart', async (t) => {
  const dir = folder(t)
  const options = { unverified: { maxCount: 8 }, verified: { maxCount: 8 } }
  const keptOf = async (address: string, isVerified = false) => {
    const spool = open(dir, options)
    const keep = () => spool.keep({ token: 'x' }, 1_000, isVerified, 30_000, address)
    const all = await Promise.allSettled(Array.from({ length: 10 }, keep))
    return all.filter(({ status }) => status === 'fulfilled').length
  }
  t.equal(await keptOf('192.0.2.1'), 4)
  t.equal(await keptOf('::ffff:192.0.2.1'), 0, 'the same')
  t.equal(await keptOf('2001:db8::1'), 2)
  t.equal(await keptOf('2001:db8::2'), 0, 'the same network')
  t.equal(await keptOf('192.0.2.1', true), 8, 'what is verified is bounded by nothing else')
  await open(dir, options).remove(String((await open(dir, options).list(9))[8]?.name))
  t.equal(await keptOf('192.0.2.3'), 2)
  t.match((await open(dir, options).list(20)).map(({ name }) => name).join(), /^(?!.*(192|2001))/, 'no name tells one')
})

t.test('one address gets no more of the bytes than it leaves', async (t) => {
  const spool = open(folder(t), { frontChannel: { maxBytes: 2_500 } })
  const call = { issuerName: 'main', issuer: undefined, sid: 's'.repeat(900) }
  await spool.keep(call, 1_000, false, 30_000, '192.0.2.1')
  await t.rejects(spool.keep(call, 1_000, false, 30_000, '192.0.2.1'), { code: 'ERR_SPOOL' })
  await spool.keep(call, 1_000, false, 30_000, '192.0.2.2')
})

t.test('front-channel calls and unsigned tokens cannot take the places of each other', async (t) => {
  const call = { issuerName: 'main', issuer: undefined, sid: 's1' }
  const spool = open(folder(t), { unverified: { maxCount: 1 }, frontChannel: { maxCount: 2 } })
  await spool.keep(call, 1_000, false)
  await spool.keep(call, 1_000, false)
  await t.rejects(spool.keep(call, 1_000, false), { code: 'ERR_SPOOL' })
  await spool.keep({ token: 'x' }, 1_000, false)
  await t.rejects(spool.keep({ token: 'x' }, 1_000, false), { code: 'ERR_SPOOL' })
  t.equal((await spool.list(10)).length, 3)
})

t.test('each share is bounded by bytes too, also after a restart and after something was done', async (t) => {
  const dir = folder(t)
  const options = { unverified: { maxBytes: 10_000 }, verified: { maxBytes: 10_000 } }
  const large = { token: 'x'.repeat(4_000) }
  for (const isVerified of [true, false]) {
    await open(dir, options).keep(large, 1_000, isVerified)
    const spool = open(dir, options)
    await spool.keep(large, 2_000, isVerified)
    await t.rejects(spool.keep(large, 3_000, isVerified), { code: 'ERR_SPOOL' })
    await t.resolves(spool.keep({ token: 'small' }, 3_000, isVerified))
    const [first] = (await spool.list(10)).filter(({ name }) => name.includes(isVerified ? '.verified' : '.unverified'))
    await spool.remove(first?.name ?? '')
    await t.resolves(spool.keep(large, 4_000, isVerified))
  }
})

t.test('what a killed process has half written goes, and what another is writing stays', async (t) => {
  const dir = folder(t)
  const spool = open(dir)
  await spool.keep({ token: 'x' }, 1_000, true)
  const anHourAgo = new Date(Date.now() - 3_600_000)
  for (const name of ['.old.part', '.young.part', 'old.part']) {
    writeFileSync(join(dir, name), '{"at":1')
  }
  utimesSync(join(dir, '.old.part'), anHourAgo, anHourAgo)
  utimesSync(join(dir, 'old.part'), anHourAgo, anHourAgo) // none of ours
  await open(dir).list(1)
  t.same(
    readdirSync(dir)
      .filter((name) => name.endsWith('.part'))
      .sort(),
    ['.young.part', 'old.part']
  )
})

t.test('what has waited too long is not written, and not told as kept', async (t) => {
  const spool = open(folder(t))
  await spool.status()
  await t.rejects(spool.keep({ token: 'x' }, 1_000, true, 0), { code: 'ERR_SPOOL' })
  t.same(await spool.list(10), [])
})

t.test('a disk that hangs holds nothing up, and what is written late is counted and done', async (t) => {
  const dir = folder(t)
  const spool = open(dir, { verified: { maxCount: 3 } })
  await spool.keep({ token: 'before' }, 1_000, true)
  const release = hangFiles(t)
  const begun = performance.now()
  const keep = () => spool.keep({ token: 'late' }, 2_000, true, 100)
  await Promise.all([1, 2].map(() => t.rejects(keep(), { code: 'ERR_SPOOL' })))
  await t.rejects(keep(), { code: 'ERR_SPOOL' }, 'the third is not even begun')
  t.ok(performance.now() - begun < 1_000)
  await t.rejects(spool.checkWritable(), { code: 'ERR_SPOOL' })
  release()
  while ((await open(dir).list(10)).length < 3) {
    // until both are there
  }
  await t.rejects(keep(), { code: 'ERR_SPOOL' }, 'it is full')
  t.same(tokens(await spool.list(10)), ['before', 'late', 'late'])
})

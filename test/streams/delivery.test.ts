// Outages, duplicates, what is late or out of order, a poll that is interrupted at every step: nothing is lost, nothing done twice.
import { randomUUID } from 'node:crypto'
import t, { type Test } from 'tap'
import { createPool } from '../../src/database.ts'
import { serverUrl } from '../fixtures/database.ts'
import { startProxy } from '../fixtures/proxy.ts'
import type { ServiceOptions } from '../fixtures/service.ts'
import { never, type StreamWorld, type StreamWorldOptions, startStreamWorld } from '../fixtures/stream-world.ts'
import { type Fault, paths } from '../fixtures/transmitter.ts'
import { until } from '../fixtures/until.ts'

const seconds = () => Math.floor(Date.now() / 1_000)

interface Signed {
  readonly subject: string
  readonly sid: string
}

async function signIn({ signIn }: StreamWorld, issuedAt = seconds() - 600): Promise<Signed> {
  const id = randomUUID()
  await signIn({ homeAccountId: `${id}.t`, subject: `user-${id}`, sid: id, issuedAt })
  return { subject: `user-${id}`, sid: id }
}

const ended = async ({ service }: StreamWorld, { sid }: Signed) =>
  (await service.rows()).every((row) => !row.includes(sid))
const revokedOf = ({ issuer }: StreamWorld, { subject, sid }: Signed, at?: number) => ({
  type: 'caep/session-revoked',
  subject: { user: { iss: issuer, sub: subject }, session: sid },
  ...(at !== undefined && { at })
})
const disabledOf = ({ issuer }: StreamWorld, { subject }: Signed) => ({
  type: 'risc/account-disabled',
  subject: { user: { iss: issuer, sub: subject } }
})

/** The records of what was done, by `jti`. */
async function recordsOf({ service }: StreamWorld): Promise<Record<string, number>> {
  const rows = await service.database.query<{ jti: string; count: string }>(
    `select jti, count(*) from msal_logout.records where source = 'security-event' group by jti`
  )
  return Object.fromEntries(rows.map(({ jti, count }) => [jti, Number(count)]))
}

const steps: readonly [name: string, path: string][] = [
  ['the metadata', '/.well-known/ssf-configuration/tenant'],
  ['the access token', paths.token],
  ['the stream', paths.streams],
  ['its status', paths.status],
  ['its verification', paths.verify],
  ['the poll', paths.poll],
  ['the keys', paths.jwks]
]
const faults: readonly [name: string, fault: Fault][] = [
  ['answers 500', 500],
  ['answers 401', 401],
  ['answers 404', 404],
  ['is cut', 'cut'],
  ['hangs', 'hang'],
  ['answers a page', { status: 200, body: '<html>sign in</html>' }]
]

for (const [step, path] of steps) {
  t.test(`while ${step} cannot be had nothing is lost, and then it is done once`, async (t) => {
    for (const [name, fault] of faults) {
      const world = await startStreamWorld(t, { edges: { streams: { timeoutMs: 200 }, fetchTimeoutMs: 200 } })
      const { transmitter } = world
      transmitter.faults.set(path, fault)
      const signed = await signIn(world)
      const { jti } = await transmitter.emit(revokedOf(world, signed))
      await world.round()
      await world.round()
      transmitter.faults.clear()
      await until(`${step} ${name}, and all is done`, async () => {
        world.pass(600)
        await world.round()
        return transmitter.acknowledged.includes(jti)
      })
      t.ok(await ended(world, signed), name)
      t.same(await recordsOf(world), { [jti]: 1 }, name)
      t.equal(transmitter.errors.size, 0, `${name}: it is not the token's fault`)
      t.equal((await world.state()).failure, undefined, name)
    }
  })
}

t.test('what was committed and not acknowledged comes again, and has no second effect', async (t) => {
  const world = await startStreamWorld(t)
  const { transmitter, service } = world
  await world.round()
  await world.round()
  const signed = await signIn(world)
  const { jti, token } = await transmitter.emit(disabledOf(world, signed))
  await world.round()
  t.ok(await ended(world, signed))
  // The user is let in again: what comes again must not reach that.
  const login = { homeAccountId: `again.${signed.sid}`, subject: signed.subject, sid: 's2' }
  t.equal(await world.signIn({ ...login, issuedAt: Math.floor(world.now() / 1_000) + 60 }), true)
  for (const again of [1, 2]) {
    transmitter.queue.set(jti, token) // as if the acknowledgement had been lost
    world.pass(120)
    await world.round()
    t.equal(transmitter.queue.size, 0, `acknowledged again, ${again}`)
  }
  t.equal((await service.rows()).length, 1)
  t.same(await recordsOf(world), { [jti]: 1 })
  t.equal(await world.counted('duplicate'), 2)
})

t.test('another instance goes on where one has gone, and what was under way is done once', async (t) => {
  const world = await startStreamWorld(t)
  const { transmitter, service } = world
  await world.round()
  await world.round()
  const second = await world.another()
  const signed = await signIn(world)
  const { jti, token } = await transmitter.emit(revokedOf(world, signed))
  await Promise.all(await second.streams.tick(never))
  t.notOk(await ended(world, signed), 'the first has the stream')
  // It is ended between the poll and the acknowledgement.
  const ending = new AbortController()
  const work = await service.streams.tick(never).then(async (rounds) => {
    world.pass(5)
    return [...rounds, ...(await service.streams.tick(ending.signal))]
  })
  await until('it is committed', () => ended(world, signed))
  ending.abort()
  await Promise.all(work)
  transmitter.queue.set(jti, token)
  await service.database.query(`update msal_logout.streams set held_until = now() - interval '1 second'`)
  world.pass(5)
  await Promise.all(await second.streams.tick(never))
  t.equal(transmitter.queue.size, 0)
  t.same(await recordsOf(world), { [jti]: 1 })
  t.equal(transmitter.streams.size, 1, 'one stream for both')
})

async function throughProxy(t: Test, options: StreamWorldOptions = {}) {
  const proxy = await startProxy(t, serverUrl())
  const openPool: ServiceOptions['openPool'] = (databaseUrl, poolOptions) => {
    const url = new URL(databaseUrl)
    url.host = `127.0.0.1:${proxy.port}`
    return createPool({ ...poolOptions, connectionString: url.href })
  }
  const world = await startStreamWorld(t, { ...options, openPool })
  return { proxy, world }
}

t.test('while the database is away nothing that is polled is acknowledged; then it is done', async (t) => {
  const { proxy, world } = await throughProxy(t)
  const { transmitter, service } = world
  await world.round()
  await world.round()
  const people = await Promise.all(Array.from({ length: 5 }, () => signIn(world)))
  const jtis = await Promise.all(people.map(async (one) => (await transmitter.emit(revokedOf(world, one))).jti))
  // Away between the poll's answer and the commit.
  const polls = transmitter.count('POST', paths.poll)
  world.pass(5)
  const rounds = service.streams.tick(never)
  await until('it is polled', () => transmitter.count('POST', paths.poll) > polls)
  proxy.set('cut')
  await rounds.then(
    (work) => Promise.allSettled(work),
    () => {}
  )
  await service.streams.tick(never).catch(() => {})
  const before = transmitter.acknowledged.filter((jti) => jtis.includes(jti)).length
  proxy.set('open')
  await until('all is done', async () => {
    world.pass(30)
    await Promise.all(await service.streams.tick(never).catch(() => []))
    return jtis.every((jti) => transmitter.acknowledged.includes(jti))
  })
  t.ok(before <= jtis.length)
  for (const one of people) {
    t.ok(await ended(world, one))
  }
  t.same(Object.values(await recordsOf(world)), [1, 1, 1, 1, 1])
})

t.test('while the database is away what is pushed is deferred and answered 202, and done once', async (t) => {
  const { proxy, world } = await throughProxy(t, { stream: { delivery: 'push' } })
  const { transmitter, service } = world
  await world.round()
  const signed = await signIn(world)
  const { token, jti } = await transmitter.eventOf(revokedOf(world, signed))
  proxy.set('cut')
  t.equal((await world.push(token)).statusCode, 202)
  t.match(await service.spool.status(), { verified: 1 })
  const files = JSON.stringify(await service.spool.list(10))
  t.notMatch(files, /eyJ/, 'no token lies on disk')
  t.notMatch(files, /pushes-with/)
  proxy.set('open')
  service.retry()
  await until('it is done', () => ended(world, signed))
  t.equal((await world.push(token)).statusCode, 202, 'the same again')
  t.same(await recordsOf(world), { [jti]: 1 })
})

t.test('while the keys are away what is pushed is deferred, and judged by them when they are back', async (t) => {
  const world = await startStreamWorld(t, { stream: { delivery: 'push' } })
  const { transmitter, service } = world
  await world.round()
  transmitter.faults.set(paths.jwks, 500)
  const signed = await signIn(world)
  const { token } = await transmitter.eventOf(revokedOf(world, signed))
  const forged = await transmitter.eventOf({ ...revokedOf(world, signed), claims: { aud: 'another' } })
  t.equal((await world.push(token)).statusCode, 202)
  t.match((await world.push(forged.token)).json(), { err: 'invalid_audience' }, 'what is bad without them')
  t.match(await service.spool.status(), { unverified: 1 })
  t.notMatch(JSON.stringify(await service.spool.list(10)), /pushes-with/, 'what it was pushed with is nowhere')
  transmitter.faults.clear()
  world.pass(60)
  service.retry()
  await until('it is done', () => ended(world, signed))
})

t.test('what is pushed before the stream is known is deferred', async (t) => {
  const world = await startStreamWorld(t, { stream: { delivery: 'push' } })
  const signed = await signIn(world)
  const { token } = await world.transmitter.eventOf(revokedOf(world, signed))
  t.equal((await world.push(token)).statusCode, 202)
  t.notOk(await ended(world, signed))
  await world.round()
  world.service.retry()
  await until('it is done', () => ended(world, signed))
})

t.test('a late event ends what was issued before it, and nothing that began since', async (t) => {
  const world = await startStreamWorld(t)
  const { transmitter, issuer, service } = world
  await world.round()
  const at = seconds() - 3 * 86_400
  const old = await signIn(world, at - 60)
  const user = { iss: issuer, sub: old.subject }
  await service.login({ issuer, homeAccountId: `new.${old.sid}`, subject: old.subject, sid: 'new', issuedAt: at + 60 })
  const claims = { iat: at }
  await transmitter.emit({ type: 'risc/sessions-revoked', subject: { user }, at, claims })
  await world.round()
  t.same((await service.rows()).length, 1, 'an event that names a time')
  // Who was disabled three days ago and signs in today was let in again.
  await signIn(world)
  await transmitter.emit({ type: 'risc/account-disabled', subject: { user }, at, claims })
  await service.login({
    issuer,
    homeAccountId: `today.${old.sid}`,
    subject: old.subject,
    sid: 'today',
    issuedAt: seconds() - 60
  })
  await world.round()
  t.same(
    (await service.rows()).filter((row) => row.includes(old.sid)),
    [`client-a/today.${old.sid}`]
  )
})

t.test('events out of order end the same as in order', async (t) => {
  for (const isReversed of [false, true]) {
    const world = await startStreamWorld(t)
    const { transmitter, issuer } = world
    await world.round()
    const times = [-500, -300, -100]
    const sub = `user-${randomUUID()}`
    for (const at of times) {
      await world.signIn({ homeAccountId: `a${at}.t`, subject: sub, sid: `s${at}`, issuedAt: seconds() + at })
    }
    const events = [-400, -200].map((offset) => ({
      type: 'caep/session-revoked',
      subject: { user: { iss: issuer, sub } },
      at: seconds() + offset
    }))
    for (const event of isReversed ? events.toReversed() : events) {
      await transmitter.emit(event)
      await world.round()
    }
    t.same(await world.service.rows(), ['client-a/a-100.t'])
  }
})

t.test('milliseconds and seconds are told apart, and no time is ahead', async (t) => {
  const world = await startStreamWorld(t)
  const { transmitter, issuer } = world
  await world.round()
  const forms: [name: string, time: unknown, isSpared: boolean][] = [
    ['milliseconds', (seconds() - 300) * 1_000, true],
    ['seconds', seconds() - 300, true],
    ['seconds with a fraction', seconds() - 300 + 0.5, true],
    ['a year ahead', seconds() + 31_536_000, false],
    ['a text', 'yesterday', false],
    ['null', null, false],
    ['0', 0, false],
    ['negative', -1, false]
  ]
  for (const [name, time, isSpared] of forms) {
    const sub = `user-${randomUUID()}`
    await world.signIn({ homeAccountId: `${sub}.t`, subject: sub, sid: sub, issuedAt: seconds() - 200 })
    const claims = {
      events: { 'https://schemas.openid.net/secevent/caep/event-type/session-revoked': { event_timestamp: time } }
    }
    await transmitter.emit({ type: 'caep/session-revoked', subject: { user: { iss: issuer, sub } }, claims })
    await world.round()
    t.equal((await world.service.rows()).includes(`client-a/${sub}.t`), isSpared, name)
    const later = await world.signIn({
      homeAccountId: `l.${sub}`,
      subject: sub,
      sid: `l${sub}`,
      issuedAt: seconds() + 300
    })
    t.equal(later, true, `${name}: nobody is locked out`)
  }
})

t.test('hundreds of events are taken in one go, and what cannot be done keeps none of the others', async (t) => {
  const world = await startStreamWorld(t)
  const { transmitter, service } = world
  await world.round()
  await world.round()
  const people = await Promise.all(Array.from({ length: 250 }, () => signIn(world)))
  for (const one of people) {
    await transmitter.emit(revokedOf(world, one))
  }
  const [held] = people
  const [first = ''] = transmitter.queue.keys()
  // A row that somebody holds.
  const client = await createPool({ connectionString: service.database.url, max: 1, statementTimeoutMs: 0 }).connect()
  await client.query('begin')
  await client.query('select from msal_logout.sessions where session_key = $1 for update', [`sid=${held?.sid}`])
  await world.round()
  t.equal(transmitter.acknowledged.filter((jti) => jti === first).length, 0)
  t.match(await world.state(), { failure: { code: 'ERR_STREAM_UNCOMMITTED' } })
  t.ok((await service.rows()).length < 250, 'the others of its poll are done')
  await client.query('rollback')
  client.release(true)
  await until('all are done', async () => {
    await world.round()
    return transmitter.queue.size === 0
  })
  t.same(await service.rows(), [])
  t.equal(new Set(transmitter.acknowledged).size, transmitter.acknowledged.length, 'each is acknowledged once')
  t.same(new Set(Object.values(await recordsOf(world))), new Set([1]))
  t.equal(Object.keys(await recordsOf(world)).length, 250)
})

t.test(
  'a poll of few asks again until nothing is left, and one that says the same for ever is left alone',
  async (t) => {
    const world = await startStreamWorld(t)
    const { transmitter } = world
    await world.round()
    await world.round()
    transmitter.maxEvents = 2
    const people = await Promise.all(Array.from({ length: 7 }, () => signIn(world)))
    for (const one of people) {
      await transmitter.emit(revokedOf(world, one))
    }
    const before = transmitter.count('POST', paths.poll)
    await world.round()
    t.equal(transmitter.queue.size, 0)
    t.equal(transmitter.count('POST', paths.poll) - before, 5)
  }
)

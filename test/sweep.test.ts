import { randomUUID } from 'node:crypto'
import pg from 'pg'
import { pino } from 'pino'
import t, { type Test } from 'tap'
import type { Order } from '../src/sign-out.ts'
import { createStore } from '../src/store.ts'
import { createSweeps, type SweepsOptions } from '../src/sweep.ts'
import { build, type Service } from './fixtures/service.ts'
import { until } from './fixtures/until.ts'

const reason = 'contract ended'
const nowSeconds = () => Math.floor(Date.now() / 1_000)

type Selector = { tenantId: string } | { clientId: string }

/** A sweep that has begun, and of which no step is done. */
async function begin({ stores }: Service, selector: Selector): Promise<string> {
  const id = randomUUID()
  const request = { id, source: 'operator', ...selector, reason, actor: 'test', dryRun: false, maxAccounts: 100 }
  const { outcome } = await stores.slow.startSweep({ ...request, requestHash: '00' })
  if (outcome !== 'running') {
    throw new Error(`the sweep is "${outcome}"`)
  }
  return id
}

/** The outcomes of all steps of it that are still due. */
async function finish({ stores }: Service, id: string, maxRows = 100): Promise<string[]> {
  const outcomes: string[] = []
  for (let steps = 0; steps < 50; steps += 1) {
    const outcome = await stores.slow.sweepStep(id, maxRows)
    outcomes.push(outcome)
    if (outcome !== 'more') {
      return outcomes
    }
  }
  throw new Error(`no end after ${outcomes}`)
}

/** A transaction of somebody else, which holds what the statement takes; the function ends it. */
async function hold(t: Test, { database }: Service, statement: string): Promise<() => Promise<void>> {
  const client = await database.pool.connect()
  let isHeld = true
  const release = async () => {
    if (isHeld) {
      isHeld = false
      await client.query('rollback')
      client.release()
    }
  }
  t.teardown(release)
  await client.query('begin')
  await client.query(statement)
  return release
}

function orderOf(issuer: string, sid: string): Order {
  return {
    id: randomUUID(),
    source: 'backchannel',
    selector: { kind: 'session', issuer, sid },
    revokeBefore: nowSeconds(),
    purgeScope: 'account',
    sparesNewer: false,
    isSigned: true,
    isOnce: true,
    recordUnmatched: true,
    rememberSeconds: 600
  }
}

/** Sweeps of another process. */
function sweepsOf({ stores }: Service, options: Partial<SweepsOptions> = {}) {
  return createSweeps({ store: stores.slow, logger: pino({ level: 'silent' }), ...options })
}

async function untilWaiting({ database }: Service, who: string): Promise<void> {
  await until(`${who} waits for a lock`, async () => {
    const waiting = await database.query(
      `select from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()`
    )
    return waiting.length > 0
  })
}

const sessionsOf = ({ database }: Service) =>
  database.query('select client_id, sid from msal_logout.sessions order by 1, 2')

t.test('a login that comes while a sweep is running lives, and the sweep ends', async (t) => {
  const service = await build(t)
  for (let i = 0; i < 6; i += 1) {
    await service.login({ clientId: 'a', homeAccountId: `old-${i}.t`, sid: `old-${i}` })
  }
  const id = await begin(service, { tenantId: 't' })
  let steps = 0
  let outcome = 'more'
  while (steps < 50 && outcome === 'more') {
    steps += 1
    const sid = `new-${steps}`
    await service.login({ clientId: 'a', homeAccountId: `${sid}.t`, sid, issuedAt: nowSeconds() + 5 })
    outcome = await service.stores.slow.sweepStep(id, 2)
  }
  t.equal(outcome, 'done')
  t.equal(steps, 5, 'three of two rows, one that ends the round, one that finds nothing')
  t.equal((await service.rows()).length, 5)
  t.match(await service.rows(), [/new/, /new/, /new/, /new/, /new/])
  t.match(await service.stores.slow.findRecord(id), { status: 'done', accounts: 6, rows: 6, sessions: 6, total: 6 })
})

t.test('an account whose rows go in several steps is counted once', async (t) => {
  const service = await build(t)
  for (const homeAccountId of ['one.t', 'two.t']) {
    const login = { homeAccountId, sid: homeAccountId }
    await service.login({ ...login, clientId: 'a' })
    await service.login({ ...login, clientId: 'b' })
    await service.login({ ...login, clientId: 'a', partitionKey: `${homeAccountId}+`, kind: 'obo' })
  }
  const id = await begin(service, { tenantId: 't' })
  const accounts: number[] = []
  for (let steps = 0; steps < 6; steps += 1) {
    t.equal(await service.stores.slow.sweepStep(id, 1), 'more')
    accounts.push((await service.stores.slow.findRecord(id))?.accounts ?? Number.NaN)
  }
  t.same(accounts, [0, 0, 1, 1, 1, 2], 'with the last of its rows')
  t.same(await finish(service, id), ['more', 'done'])
  t.match(await service.stores.slow.findRecord(id), {
    status: 'done',
    accounts: 2,
    rows: 6,
    sessions: 6,
    byClient: { a: { sessions: 4, rows: 4 }, b: { sessions: 2, rows: 2 } }
  })
})

for (const selector of [{ tenantId: 't' }, { clientId: 'a' }]) {
  const name = JSON.stringify(selector)
  t.test(
    `a later login into a row that ${name} has yet to reach lives, and what was there before it goes`,
    async (t) => {
      const service = await build(t)
      const login = { clientId: 'a', homeAccountId: 'one.t' }
      const early = await service.login({ ...login, sid: 'early' })
      await service.login({ ...login, sid: 'early-2', payload: '{"is":"of before"}' })
      const id = await begin(service, selector)
      const late = { ...login, sid: 'late', issuedAt: nowSeconds() + 5 }
      const stored = await service.login(late)
      t.match(stored, { accepted: true, version: '1' })
      t.not(stored.generation, early.generation, 'it is another row')
      t.same(await sessionsOf(service), [{ client_id: 'a', sid: 'late' }])
      const [saved] = await service.database.query(
        `select outcome from msal_logout.save('a', 'one.t', $1, 2, '{}', 'json', '1 hour')`,
        [early.generation]
      )
      t.match(saved, { outcome: 'gone' }, 'no refresh of before reaches it')
      await service.stores.slow.cleanUp(100)
      t.same(
        (await service.database.query(`select sid from msal_logout.ended_since('a', 0)`)).map(({ sid }) => sid).sort(),
        ['early', 'early-2'],
        'and the app reads whom it ended'
      )
      t.match(await service.login({ ...late, sid: 'later' }), { version: '2', generation: stored.generation })
      t.equal((await finish(service, id)).at(-1), 'done')
      t.same(await service.rows(), ['a/one.t'])
      t.same(await sessionsOf(service), [
        { client_id: 'a', sid: 'late' },
        { client_id: 'a', sid: 'later' }
      ])
    }
  )

  t.test(`a login beside a step of ${name} is stored after it, or before it and lives`, async (t) => {
    for (const isSweepFirst of [true, false]) {
      const service = await build(t)
      await service.login({ clientId: 'a', homeAccountId: 'one.t', sid: 'early' })
      const id = await begin(service, selector)
      const first = await service.database.pool.connect()
      t.teardown(() => first.release())
      await first.query('begin')
      const late = { clientId: 'a', homeAccountId: 'one.t', sid: 'late', issuedAt: nowSeconds() + 5 }
      if (isSweepFirst) {
        await first.query('select msal_logout.sweep_step($1, 100)', [id])
        const login = service.login(late)
        await untilWaiting(service, 'the login')
        await first.query('commit')
        t.match(await login, { accepted: true, version: '1' })
      } else {
        await first.query(
          `select msal_logout.login('a', 'one.t', 'one.t', $1, 'late', 'subject', $2, '{}', 'json', '1 hour')`,
          [service.provider.issuer, late.issuedAt]
        )
        t.equal(await service.stores.slow.sweepStep(id, 100), 'held', 'it waits for no row')
        await first.query('commit')
      }
      t.equal((await finish(service, id)).at(-1), 'done')
      t.same(await service.rows(), ['a/one.t'])
      t.same(await sessionsOf(service), [{ client_id: 'a', sid: 'late' }])
    }
  })

  t.test(`a further session of a row that ${name} has yet to reach goes with it`, async (t) => {
    const service = await build(t)
    await service.login({ clientId: 'a', homeAccountId: 'one.t', sid: 'early' })
    const id = await begin(service, selector)
    const [added] = await service.database.query<{ added: boolean }>(
      `select msal_logout.add_session('a', 'one.t', $1, 'guest', 'guest', $2) as added`,
      [`${service.provider.issuer}/other`, nowSeconds() + 5]
    )
    t.equal(added?.added, false, 'of a refresh of what the sweep ends')
    t.equal((await finish(service, id)).at(-1), 'done')
    t.same(await service.rows(), [])
    t.same(await sessionsOf(service), [])
  })

  t.test(`a row that ${name} has taken may come again at once, and lives`, async (t) => {
    const service = await build(t)
    const login = { clientId: 'a', homeAccountId: 'one.t', issuedAt: nowSeconds() + 5 }
    await service.login({ ...login, sid: 'early' })
    const id = await begin(service, selector)
    t.equal(await service.stores.slow.sweepStep(id, 100), 'more')
    t.match(await service.login({ ...login, sid: 'late' }), { accepted: true })
    t.same(await finish(service, id), ['more', 'done'])
    t.same(await service.rows(), ['a/one.t'])
    t.same(await sessionsOf(service), [{ client_id: 'a', sid: 'late' }])
  })

  t.test(`rows that were restored, with generations ahead of the clock or far behind, go by ${name}`, async (t) => {
    for (const generation of [1, 4_000_000_000_000_000]) {
      const service = await build(t)
      const old = ['old-1', 'old-2', 'old-3']
      for (const sid of old) {
        await service.login({ clientId: 'a', homeAccountId: `${sid}.t`, sid })
      }
      await service.database.query(
        'update msal_logout.token_cache set generation = $1::bigint + ascii(right(home_account_id, 3))',
        [generation]
      )
      const newest = { clientId: 'a', homeAccountId: 'new.t', sid: 'new', issuedAt: nowSeconds() + 5 }
      const id = await begin(service, selector)
      t.match(await service.login(newest), { accepted: true })
      await service.database.query(`select msal_logout.store_app('a', 'own', '{}', 'json', '1 hour')`)
      t.equal((await finish(service, id, 1)).at(-1), 'done')
      t.same(await service.rows(), ['a/new.t', 'a/own'], 'what came since it began lives, whatever the clock')
      t.match(await service.stores.slow.findRecord(id), { status: 'done', accounts: 3, rows: 3, sessions: 3 })

      await service.login({ ...newest, homeAccountId: 'newer.t', sid: 'newer' })
      const next = await begin(service, selector)
      t.equal((await finish(service, next)).at(-1), 'done')
      t.same(await service.rows(), 'tenantId' in selector ? ['a/own'] : [], 'the next one takes them')
    }
  })
}

t.test('while sign-outs come, the steps of a sweep are small, so that they hold nobody up at the disk', async (t) => {
  const service = await build(t)
  await service.login({ clientId: 'a', homeAccountId: 'one.other', sid: 'other' })
  await service.database.query(
    `insert into msal_logout.token_cache (client_id, partition_key, kind, home_account_id, payload, encoding, expires_at)
    select 'a', 'of ' || n, 'obo', 'one.t', '{}', 'json', now() + interval '1 hour' from generate_series(1, 450) n`
  )
  const id = await begin(service, { clientId: 'a' })
  await service.signOut([orderOf(service.provider.issuer, 'nobody')])
  const left = async () => (await service.rows()).length
  t.equal(await service.stores.slow.sweepStep(id, 2_000), 'more')
  t.equal(await left(), 251)
  await service.database.query("update msal_logout.records set at = at - interval '2 seconds'")
  t.equal(await service.stores.slow.sweepStep(id, 2_000), 'more')
  t.equal(await left(), 0, 'a second later all that is left goes at once')
})

t.test('a login under way when a sweep begins is stored before it, or rejected', async (t) => {
  const service = await build(t)
  const login = await service.database.pool.connect()
  t.teardown(() => login.release())
  await login.query('begin')
  await login.query(
    "select msal_logout.login('a', 'one.t', 'one.t', $1, 'early', 'subject', extract(epoch from now())::bigint, '{}', 'json', '1 hour')",
    [service.provider.issuer]
  )
  const begun = begin(service, { tenantId: 't' })
  await untilWaiting(service, 'the sweep')
  const [{ waiting } = { waiting: '' }] = await service.database.query<{ waiting: string }>(
    'select clock_timestamp()::text as waiting'
  )
  await login.query('commit')
  const id = await begun
  const compared = await service.database.query(
    `select r.at > $1::timestamptz as "isLater", floor(extract(epoch from r.at)) = r.revoke_before as "isItsTime",
      t.revoke_before = r.revoke_before as "isHeld"
    from msal_logout.records r, msal_logout.tombstones t where t.key = 'tenant=t'`,
    [waiting]
  )
  t.same(compared, [{ isLater: true, isItsTime: true, isHeld: true }], 'it begins when it has the lock')
  t.equal((await finish(service, id)).at(-1), 'done')
  t.same(await service.rows(), [])
  t.same(await sessionsOf(service), [])
  t.match(await service.stores.slow.findRecord(id), { rows: 1 })
})

t.test(
  'an account that a sign-out ends while a sweep is running is counted by the one that deletes of it',
  async (t) => {
    const service = await build(t)
    for (const homeAccountId of ['one.t', 'two.t', 'three.t']) {
      await service.login({ clientId: 'a', homeAccountId, sid: homeAccountId })
      await service.login({ clientId: 'b', homeAccountId, sid: homeAccountId })
    }
    const id = await begin(service, { tenantId: 't' })
    t.equal(await service.stores.slow.sweepStep(id, 3), 'more')
    const { issuer } = service.provider
    const results = await service.signOut(['one.t', 'two.t'].map((sid) => orderOf(issuer, sid)))
    t.match(results, [
      { outcome: 'unmatched', rows: 0 },
      { outcome: 'done', rows: 1 }
    ])
    t.equal((await finish(service, id)).at(-1), 'done')
    const record = await service.stores.slow.findRecord(id)
    t.match(record, { total: 3, accounts: 2, rows: 5, sessions: 5 })
  }
)

t.test('a dry run counts what the purge does, also if a session has lost its row', async (t) => {
  const service = await build(t)
  for (const homeAccountId of ['one.t', 'two.t']) {
    await service.login({ clientId: 'a', homeAccountId, sid: homeAccountId })
  }
  await service.database.query("delete from msal_logout.token_cache where home_account_id = 'two.t'")
  const expected = { accounts: 1, sessions: 1, rows: 1, rowsByClient: { a: 1 } }
  for (const selector of [{ tenantId: 't' }, { clientId: 'a' }]) {
    const dry = await service.operate('POST', '/admin/purges', { ...selector, reason, dryRun: true })
    t.match(dry.json(), expected, JSON.stringify(selector))
  }
  t.match((await service.operate('POST', '/admin/purges', { tenantId: 't', reason })).json(), expected)
})

t.test('a sweep waits for no row that somebody holds, and deletes it in the end', async (t) => {
  const service = await build(t)
  for (const homeAccountId of ['one.t', 'two.t', 'three.t']) {
    await service.login({ clientId: 'a', homeAccountId, sid: homeAccountId })
  }
  await service.login({ clientId: 'b', homeAccountId: 'two.t', sid: 'two.t' })
  const id = await begin(service, { tenantId: 't' })
  const release = await hold(
    t,
    service,
    "select from msal_logout.token_cache where home_account_id = 'two.t' and client_id = 'a' for update"
  )
  t.equal(await service.stores.slow.sweepStep(id, 100), 'more')
  t.same(await service.rows(), ['a/two.t'])
  t.match(await service.stores.slow.findRecord(id), { status: 'running', accounts: 2, rows: 3, sessions: 3 })
  t.equal(await service.stores.slow.sweepStep(id, 100), 'more', 'the round ends')
  t.equal(await service.stores.slow.sweepStep(id, 100), 'held')
  await service.sweeps.resume() // leaves it for the next time
  t.match(await service.stores.slow.findRecord(id), { status: 'running' })
  await release()
  await service.sweeps.resume()
  t.same(await service.rows(), [])
  t.match(
    await service.stores.slow.findRecord(id),
    { status: 'done', total: 3, accounts: 3, rows: 4, sessions: 4, byClient: { a: { rows: 3 }, b: { rows: 1 } } },
    'an account of which a row was left is counted once'
  )
})

t.test('a sweep that was interrupted is taken up, by another instance too, and is done once', async (t) => {
  const service = await build(t)
  for (let i = 0; i < 6; i += 1) {
    await service.login({ clientId: 'a', homeAccountId: `old-${i}.t`, sid: `old-${i}` })
  }
  const id = await begin(service, { clientId: 'a' })
  await service.stores.slow.sweepStep(id, 2)
  t.equal((await service.rows()).length, 4)
  const counted: string[] = []
  const instances = ['first', 'second', 'third'].map((name) =>
    sweepsOf(service, { rowsPerStep: 1, onDone: () => counted.push(name) })
  )
  await until('the sweep is done', async () => {
    await Promise.all(instances.map(({ resume }) => resume()))
    return (await service.stores.slow.findRecord(id))?.status === 'done'
  })
  t.same(await service.rows(), [])
  t.equal(counted.length, 1)
  t.match(await service.stores.slow.findRecord(id), { accounts: 6, rows: 6, sessions: 6 })
})

t.test('a sweep that cannot go on holds no other up, nor do its rows', async (t) => {
  const service = await build(t)
  for (const tenant of ['held', 'locked', 'free']) {
    await service.login({ clientId: 'a', homeAccountId: `u.${tenant}` })
  }
  const held = await begin(service, { tenantId: 'held' })
  const locked = await begin(service, { tenantId: 'locked' })
  const free = await begin(service, { tenantId: 'free' })
  const release = await hold(
    t,
    service,
    "select from msal_logout.token_cache where home_account_id = 'u.held' for update"
  )
  const unblock = await hold(t, service, "insert into msal_logout.apps (client_id) values ('a')") // for the last act of a step
  const pool = new pg.Pool({ connectionString: service.database.url, options: '-c lock_timeout=100ms' })
  t.teardown(() => pool.end())
  const store = createStore({ pool })
  const sweeps = sweepsOf(service, {
    store: { ...store, sweepStep: async (id, rows) => (id === free ? service.stores.slow : store).sweepStep(id, rows) }
  })
  const resumed = t.rejects(sweeps.resume(), { code: 'ERR_DATABASE_LOCKED' })
  await until('the other one is tried', async () => {
    // Longer than those that are limited: one of theirs may be the row that is held.
    const waiting = await service.database.query(
      `select from pg_stat_activity where wait_event_type = 'Lock' and application_name = 'msal-logout'
        and clock_timestamp() - query_start > interval '200 ms'`
    )
    return waiting.length > 0
  })
  await unblock()
  await resumed
  const statusOf = async (id: string) => (await service.stores.slow.findRecord(id))?.status
  t.same(await Promise.all([held, locked, free].map(statusOf)), ['running', 'running', 'done'])
  await release()
  await sweeps.resume()
  t.same(await Promise.all([held, locked].map(statusOf)), ['done', 'done'])
  t.same(await service.rows(), [])
})

t.test('a sweep that ended meanwhile is not counted again by the one that meant to take it up', async (t) => {
  const service = await build(t)
  await service.login({ homeAccountId: 'u.t' })
  const id = await begin(service, { tenantId: 't' })
  const counted: string[] = []
  const instance = (name: string) =>
    sweepsOf(service, {
      store: { ...service.stores.slow, runningSweeps: async () => [id] }, // as read before
      onDone: () => counted.push(name)
    })
  await instance('first').resume()
  await instance('second').resume()
  t.same(counted, ['first'])
})

t.test('a process does not take up what it is at', async (t) => {
  const service = await build(t)
  await service.login({ homeAccountId: 'u.t' })
  let steps = 0
  let goOn = () => {}
  const gate = new Promise<void>((resolve) => {
    goOn = resolve
  })
  const sweeps = sweepsOf(service, {
    maxWaitMs: 1,
    store: {
      ...service.stores.slow,
      async sweepStep(id, rows) {
        steps += 1
        await (steps === 1 ? gate : undefined)
        return service.stores.slow.sweepStep(id, rows)
      }
    }
  })
  const id = randomUUID()
  const request = { id, source: 'operator', tenantId: 't', reason, actor: 'test', dryRun: false, maxAccounts: 100 }
  await sweeps.start({ ...request, requestHash: '00' })
  await sweeps.resume()
  t.equal(steps, 1)
  goOn()
  await until('the sweep is done', async () => (await service.stores.slow.findRecord(id))?.status === 'done')
  await sweeps.stop()
})

t.test('the end of the process ends a sweep after its step, and a later process takes it up', async (t) => {
  const service = await build(t)
  for (let i = 0; i < 6; i += 1) {
    await service.login({ clientId: 'a', homeAccountId: `${i}.t` })
  }
  const steps: string[] = []
  const sweeps = sweepsOf(service, {
    rowsPerStep: 1,
    store: {
      ...service.stores.slow,
      async sweepStep(id, rows) {
        const outcome = await service.stores.slow.sweepStep(id, rows)
        steps.push(outcome)
        if (steps.length === 2) {
          void sweeps.stop()
        }
        return outcome
      }
    }
  })
  const id = randomUUID()
  const request = { id, source: 'operator', tenantId: 't', reason, actor: 'test', dryRun: false, maxAccounts: 100 }
  t.match(await sweeps.start({ ...request, requestHash: '00' }), { outcome: 'begun' })
  await sweeps.stop()
  t.same(steps, ['more', 'more'])
  await sweeps.resume()
  t.equal(steps.length, 2, 'it does nothing more')
  t.equal((await service.rows()).length, 4)
  await sweepsOf(service).resume()
  t.match(await service.stores.slow.findRecord(id), { status: 'done', rows: 6 })
})

t.test('a failure after the beginning fails no request: the next look takes it up', async (t) => {
  const service = await build(t)
  await service.login({ clientId: 'a', homeAccountId: 'u.t' })
  await service.database.query('alter function msal_logout.sweep_step rename to sweep_step_away')
  const answer = await service.operate('POST', '/admin/purges', { tenantId: 't', reason })
  t.match(answer, { statusCode: 202 })
  t.match(answer.json(), { status: 'running', done: 0, total: 1 })
  t.match(service.logs.at(-1), /"code":"ERR_DATABASE_FAILED","msg":"a sweep is put off"/)
  await service.database.query('alter function msal_logout.sweep_step_away rename to sweep_step')
  await service.sweeps.resume()
  t.match((await service.operate('GET', '/admin/purges')).json(), { records: [{ status: 'done', done: 1 }] })
})

t.test('an app reads which sessions a sweep revoked, and its listeners are notified', async (t) => {
  const service = await build(t)
  const { issuer } = service.provider
  for (const clientId of ['a', 'b']) {
    await service.login({ clientId, homeAccountId: 'u.t', sid: 's1', subject: 'u' })
  }
  const listener = await service.database.pool.connect()
  t.teardown(() => listener.release())
  const notified = new Promise((resolve) => listener.once('notification', ({ channel }) => resolve(channel)))
  await listener.query('listen msal_logout')
  await service.operate('POST', '/admin/purges', { tenantId: 't', reason })
  for (const clientId of ['a', 'b']) {
    t.match(await service.database.query('select * from msal_logout.ended_since($1, 0)', [clientId]), [
      { issuer, sid: 's1', subject: 'u', home_account_id: 'u.t' }
    ])
  }
  t.equal(await notified, 'msal_logout')
})

t.test('listeners are notified of what a login ended, once it is published', async (t) => {
  const service = await build(t, { edges: { choresEveryMs: 20 } })
  const login = { clientId: 'a', homeAccountId: 'u.t', subject: 'u' }
  await service.login({ ...login, sid: 'old' })
  await begin(service, { tenantId: 't' })
  await service.login({ ...login, sid: 'new', issuedAt: nowSeconds() + 5 }) // into a row that the sweep has yet to reach
  await service.database.query("update msal_logout.records set status = 'done'")
  const listener = await service.database.pool.connect()
  t.teardown(() => listener.release())
  const notified = new Promise((resolve) => listener.once('notification', ({ channel }) => resolve(channel)))
  await listener.query('listen msal_logout')
  service.start()
  t.equal(await notified, 'msal_logout')
  t.match(await service.database.query(`select * from msal_logout.ended_since('a', 0)`), [{ sid: 'old' }])
})

import pg from 'pg'
import t, { type Test } from 'tap'
import {
  type CommitOrders,
  createSignOut,
  type Order,
  type SignOutOptions,
  type SignOutResult
} from '../src/sign-out.ts'
import { createStore } from '../src/store.ts'
import { createDatabase, type Database } from './fixtures/database.ts'
import { makeOrder } from './fixtures/orders.ts'
import { storeLogin } from './fixtures/service.ts'
import { until } from './fixtures/until.ts'

const issuer = 'https://op.example'

function orderOf(sid: string, order: Partial<Order> = {}): Order {
  return makeOrder({ kind: 'session', issuer, sid }, order)
}

interface Bench {
  readonly database: Database
  signOut(order: Order): Promise<SignOutResult>
  /** Of each transaction, the sids of its orders. */
  readonly batches: string[][]
  /** While it is set, transactions wait for it before they begin. */
  gate: Promise<void> | undefined
}

/** Sign-outs on a real database, whose transactions are noted. */
async function build(t: Test, options: SignOutOptions = {}, pool?: (database: Database) => pg.Pool): Promise<Bench> {
  const database = await createDatabase(t)
  const { commitOrders } = createStore({ pool: pool?.(database) ?? database.pool })
  const batches: string[][] = []
  const commit: CommitOrders = async (orders, options) => {
    batches.push(orders.map(({ selector }) => ('sid' in selector ? (selector.sid ?? '') : '')))
    await bench.gate
    return commitOrders(orders, options)
  }
  const { signOut } = createSignOut(commit, options)
  const bench: Bench = {
    database,
    batches,
    gate: undefined,
    async signOut(order) {
      const [result] = await signOut([order])
      return result as SignOutResult
    }
  }
  return bench
}

/** One session with a row in two apps for each sid. */
async function login(database: Database, sids: readonly string[]): Promise<void> {
  for (const sid of sids) {
    for (const clientId of ['a', 'b']) {
      await storeLogin(database, { issuer, sid, clientId, homeAccountId: `${sid}.t`, subject: `${sid}-${clientId}` })
    }
  }
}

async function accounts(database: Database): Promise<string[]> {
  const rows = await database.query<{ home_account_id: string }>(
    'select distinct home_account_id from msal_logout.token_cache order by 1'
  )
  return rows.map(({ home_account_id }) => home_account_id)
}

const numbered = (count: number) => Array.from({ length: count }, (_, i) => `s${i}`)

/** A connection that holds what a login of this sid would hold, until `release`. */
async function holdSession(t: Test, database: Database, sid: string) {
  const client = new pg.Client({ connectionString: database.url })
  client.on('error', () => {})
  await client.connect()
  await client.query('begin')
  await client.query('select msal_logout.lock_keys($1, $2)', [[issuer], [`sid=${sid}`]])
  t.teardown(() => client.end())
  return {
    client,
    async release() {
      await client.query('commit')
    }
  }
}

t.test('a lone order goes at once', async (t) => {
  const { database, signOut, batches } = await build(t)
  await login(database, ['s0'])
  t.match(await signOut(orderOf('s0')), { outcome: 'done', accounts: 1, sessions: 2, rows: 2 })
  t.same(batches, [['s0']])
})

t.test('orders that wait go together, and each counts its own rows', async (t) => {
  const { database, signOut, batches } = await build(t)
  const sids = numbered(40)
  await login(database, [...sids, 'bystander'])
  const orders = sids.map((sid) => orderOf(sid))
  const results = await Promise.all([...orders, orderOf('unknown')].map(signOut))

  t.same(batches, [['s0'], [...sids.slice(1), 'unknown']])
  results.slice(0, -1).forEach((result, i) => {
    t.match(result, { id: orders[i]?.id, outcome: 'done', accounts: 1, sessions: 2, rows: 2 })
    const each = { accounts: 1, sessions: 1, rows: 1 }
    t.same(result.byClient, { a: each, b: each })
  })
  t.match(results.at(-1), { outcome: 'unmatched', accounts: 0, sessions: 0, rows: 0 })
  t.same(await accounts(database), ['bystander.t'])
  t.same(
    await database.query('select count(*)::int as n, sum(rows)::int as rows from msal_logout.records'),
    [{ n: 41, rows: 80 }],
    'each has a record of its own'
  )
})

t.test('a batch is bounded', async (t) => {
  const { database, signOut, batches } = await build(t, { maxBatch: 8 })
  const sids = numbered(30)
  await login(database, sids)
  await Promise.all(sids.map((sid) => signOut(orderOf(sid))))
  t.same(
    batches.map(({ length }) => length),
    [1, 8, 8, 8, 5]
  )
  t.same(await accounts(database), [])
})

t.test('the same token twice in one batch is done once', async (t) => {
  const bench = await build(t)
  await login(bench.database, ['s0'])
  const twice = orderOf('s0')
  const [, first, second] = await Promise.all([orderOf('first'), twice, twice].map(bench.signOut))
  t.match(first, { outcome: 'done', rows: 2 })
  t.match(second, { outcome: 'duplicate', rows: 0 }, 'counted once')
  t.match(await bench.signOut(twice), { outcome: 'duplicate', rows: 0 })
  t.same(await bench.database.query('select sum(rows)::int as rows from msal_logout.records'), [{ rows: 2 }])
})

t.test('two sessions of one account in one batch: what is gone is counted once', async (t) => {
  const { database, signOut } = await build(t)
  for (const sid of ['s1', 's2']) {
    await storeLogin(database, { issuer, sid, homeAccountId: 'u.t' })
  }
  const results = await Promise.all(['first', 's1', 's2'].map((sid) => signOut(orderOf(sid))))
  const sum = (member: 'accounts' | 'sessions' | 'rows') => results.reduce((n, result) => n + result[member], 0)
  t.same([sum('sessions'), sum('rows')], [2, 1])
  t.same(await accounts(database), [])
})

t.test('one order that the database rejects does not fail its neighbours', async (t) => {
  const { database, signOut, batches } = await build(t)
  const sids = numbered(10)
  await login(database, sids)
  const bad = orderOf('s5', { id: 'not a uuid' })
  const outcomes = await Promise.allSettled(sids.map((sid) => signOut(sid === 's5' ? bad : orderOf(sid))))
  t.same(
    outcomes.map(({ status }) => status === 'fulfilled'),
    sids.map((sid) => sid !== 's5')
  )
  t.match(outcomes[5], { reason: { code: 'ERR_DATABASE_FAILED' } })
  t.same(await accounts(database), ['s5.t'], 'nothing of the bad one is done')
  t.equal(batches.filter((batch) => batch.includes('s5')).length, 2, 'with the others, then alone')
})

t.test('a session that somebody holds does not hold up the others', async (t) => {
  const { database, signOut } = await build(t)
  const sids = numbered(20)
  await login(database, sids)
  const holder = await holdSession(t, database, 's7')
  const held = signOut(orderOf('s7'))
  let heldIsDone = false
  held.then(() => {
    heldIsDone = true
  })
  await Promise.all(sids.filter((sid) => sid !== 's7').map((sid) => signOut(orderOf(sid))))
  t.same(await accounts(database), ['s7.t'])
  t.notOk(heldIsDone)
  await holder.release()
  t.match(await held, { rows: 2 })
  t.same(await accounts(database), [])
})

t.test('among neighbours, the held one goes on alone as soon as it is free', async (t) => {
  const bench = await build(t)
  const { database, signOut, batches } = bench
  const sids = numbered(20)
  await login(database, [...sids, 'later'])
  const holder = await holdSession(t, database, 's7')
  const first = signOut(orderOf('first'))
  const all = sids.map((sid) => signOut(orderOf(sid)))
  await first
  await Promise.all(all.filter((_, i) => i !== 7))
  t.match(await signOut(orderOf('later')), { rows: 2 }, 'the next batch does not wait for it')
  t.same(await accounts(database), ['s7.t'])
  await holder.release()
  t.match(await all[7], { rows: 2 })
  t.same(batches.filter((batch) => batch.includes('s7')).at(-1), ['s7'])
})

t.test('a serialization failure is tried again, for the whole batch', async (t) => {
  const { database, signOut, batches } = await build(t)
  await login(database, numbered(5))
  await database.query('create sequence public.tries')
  await database.query(`
    create function public.fail_twice() returns trigger language plpgsql as $$
    begin
      if nextval('public.tries') <= 2 then
        raise exception 'could not serialize access' using errcode = 'serialization_failure';
      end if;
      return null;
    end $$`)
  await database.query(
    'create trigger fail_twice after insert on msal_logout.records for each statement execute function public.fail_twice()'
  )
  t.match(await signOut(orderOf('s0')), { rows: 2 })
  await database.query(`alter sequence public.tries restart`)
  const results = await Promise.all(['first', 's1', 's2'].map((sid) => signOut(orderOf(sid))))
  t.same(
    results.map(({ rows }) => rows),
    [0, 2, 2]
  )
  t.same(batches, [['s0'], ['s0'], ['s0'], ['first'], ['first'], ['first'], ['s1', 's2']])
})

t.test('a serialization failure that does not end fails its order alone, after some tries', async (t) => {
  const { database, signOut, batches } = await build(t)
  await login(database, numbered(2))
  await database.query(`
    create function public.fail() returns trigger language plpgsql as $$
    begin
      raise exception 'could not serialize access' using errcode = 'serialization_failure';
    end $$`)
  await database.query(
    `create trigger fail after insert on msal_logout.records for each row when (new.sid = 's1') execute function public.fail()`
  )
  const [, good, bad] = await Promise.allSettled(['first', 's0', 's1'].map((sid) => signOut(orderOf(sid))))
  t.equal(good?.status, 'fulfilled')
  t.match(bad, { reason: { code: 'ERR_DATABASE_CONFLICT' } })
  t.same(await accounts(database), ['s1.t'])
  t.ok(batches.filter((batch) => batch.length === 1 && batch[0] === 's1').length >= 3)
})

t.test('an order that waited too long is not begun', async (t) => {
  let time = 0
  const bench = await build(t, { maxWaitMs: 300, now: () => time })
  await login(bench.database, ['s0', 's1', 's2'])
  let open = () => {}
  bench.gate = new Promise((resolve) => {
    open = resolve
  })
  const begun = bench.signOut(orderOf('s0'))
  const late = bench.signOut(orderOf('s1'))
  time += 301
  const inTime = bench.signOut(orderOf('s2'))
  open()
  await t.rejects(late, { code: 'ERR_DEADLINE' })
  t.match(await begun, { rows: 2 }, 'what was begun is done')
  t.match(await inTime, { rows: 2 })
  t.same(bench.batches, [['s0'], ['s2']])
  t.same(await accounts(bench.database), ['s1.t'])
})

t.test('an outage is told to everyone at once, without a second try', async (t) => {
  const bench = await build(t, {}, () => {
    const pool = new pg.Pool({ host: '127.0.0.1', port: 1, connectionTimeoutMillis: 500 })
    t.teardown(() => pool.end())
    return pool
  })
  const outcomes = await Promise.allSettled(['s0', 's1', 's2'].map((sid) => bench.signOut(orderOf(sid))))
  for (const outcome of outcomes) {
    t.match(outcome, { status: 'rejected', reason: { code: 'ERR_DATABASE_UNAVAILABLE' } })
  }
  t.same(bench.batches, [['s0'], ['s1', 's2']])
})

t.test('a connection that breaks under a batch fails it whole; the same again is done once', async (t) => {
  const own = (database: Database) => {
    const pool = new pg.Pool({ connectionString: database.url, application_name: 'under-test' })
    pool.on('error', () => {})
    t.teardown(() => pool.end())
    return pool
  }
  const bench = await build(t, {}, own)
  await login(bench.database, ['s0'])
  const holder = await holdSession(t, bench.database, 's0')
  const orders = [orderOf('s0'), orderOf('s0')]
  const failed = Promise.allSettled(orders.map(bench.signOut))
  const { pid } = await until('the batch waits for the session', async () => {
    const waiting = await bench.database.query<{ pid: number }>(
      `select pid from pg_stat_activity where application_name = 'under-test' and wait_event_type = 'Lock'`
    )
    return waiting[0]
  })
  await bench.database.query('select pg_terminate_backend($1)', [pid])
  await holder.release()
  const [first] = await failed
  t.match(first, { reason: { code: 'ERR_DATABASE_UNAVAILABLE' } })
  const again = await Promise.all(orders.map(bench.signOut))
  t.equal(again.filter(({ outcome }) => outcome !== 'duplicate').length >= 1, true)
  t.same(await bench.database.query('select count(*)::int as n, sum(rows)::int as rows from msal_logout.records'), [
    { n: 2, rows: 2 }
  ])
})

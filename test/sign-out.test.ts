import { randomUUID } from 'node:crypto'
import pg from 'pg'
import t, { type Test } from 'tap'
import { createSignOut, type SignOutOptions } from '../src/sign-out.ts'
import { createStore, type Logout, type Purged, type Store } from '../src/store.ts'
import { createDatabase, type Database } from './fixtures/database.ts'
import { storeLogin } from './fixtures/service.ts'

const issuer = 'https://op.example'

function logout(logout: Partial<Logout>): Logout {
  return {
    id: randomUUID(),
    source: 'backchannel',
    issuer,
    notAfter: Math.floor(Date.now() / 1_000),
    wholeSubject: false,
    purgeScope: 'account',
    ...logout
  }
}

interface Bench {
  readonly database: Database
  readonly signOut: ReturnType<typeof createSignOut>
  /** Of each transaction, the sids of its logouts. */
  readonly batches: string[][]
  /** While it is set, transactions wait for it before they begin. */
  gate: Promise<void> | undefined
}

/** Sign-outs on a real database, whose transactions are noted. */
async function build(t: Test, options: SignOutOptions = {}, pool?: (database: Database) => pg.Pool): Promise<Bench> {
  const database = await createDatabase(t)
  const store = createStore(pool?.(database) ?? database.pool)
  const bench: Bench = {
    database,
    batches: [],
    gate: undefined,
    signOut: createSignOut(
      {
        async signOut(logouts, options) {
          bench.batches.push(logouts.map(({ sid }) => String(sid)))
          await bench.gate
          return store.signOut(logouts, options)
        }
      } satisfies Pick<Store, 'signOut'>,
      options
    )
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
  await client.query('select msal_logout.hold($1, $2, $3)', [[issuer], [`sid=${sid}`], [0]])
  t.teardown(() => client.end())
  return {
    client,
    async release() {
      await client.query('commit')
    }
  }
}

t.test('a lone logout goes at once', async (t) => {
  const { database, signOut, batches } = await build(t)
  await login(database, ['s0'])
  t.match(await signOut(logout({ sid: 's0' })), { replayed: false, accounts: 1, sessions: 2, rows: 2 })
  t.same(batches, [['s0']])
})

t.test('logouts that wait go together, and each is told of its own rows', async (t) => {
  const { database, signOut, batches } = await build(t)
  const sids = numbered(40)
  await login(database, [...sids, 'bystander'])
  const logouts = sids.map((sid) => logout({ sid }))
  const results = await Promise.all([...logouts, logout({ sid: 'unknown' })].map(signOut))

  t.same(batches, [['s0'], [...sids.slice(1), 'unknown']])
  results.slice(0, -1).forEach((result, i) => {
    t.match(result, { id: logouts[i]?.id, replayed: false, accounts: 1, sessions: 2, rows: 2 })
    const each = { accounts: 1, sessions: 1, rows: 1 }
    t.same(result.byClient, { a: each, b: each })
  })
  t.match(results.at(-1), { accounts: 0, sessions: 0, rows: 0 })
  t.same(await accounts(database), ['bystander.t'])
  t.same(
    await database.query('select count(*)::int as n, sum(rows)::int as rows from msal_logout.purges'),
    [{ n: 41, rows: 80 }],
    'each has a record of its own'
  )
})

t.test('a batch is bounded', async (t) => {
  const { database, signOut, batches } = await build(t, { maxBatch: 8 })
  const sids = numbered(30)
  await login(database, sids)
  await Promise.all(sids.map((sid) => signOut(logout({ sid }))))
  t.same(
    batches.map(({ length }) => length),
    [1, 8, 8, 8, 5]
  )
  t.same(await accounts(database), [])
})

t.test('the same token twice in one batch is done once', async (t) => {
  const bench = await build(t)
  await login(bench.database, ['s0'])
  const twice = logout({ sid: 's0' })
  const [, first, second] = await Promise.all([logout({ sid: 'first' }), twice, twice].map(bench.signOut))
  t.same(first, second)
  t.match(first, { replayed: false, rows: 2 })
  t.match(await bench.signOut(twice), { replayed: true, rows: 0 })
  t.same(await bench.database.query('select sum(rows)::int as rows from msal_logout.purges'), [{ rows: 2 }])
})

t.test('two sessions of one account in one batch: what is gone is counted once', async (t) => {
  const { database, signOut } = await build(t)
  for (const sid of ['s1', 's2']) {
    await storeLogin(database, { issuer, sid, homeAccountId: 'u.t' })
  }
  const results = await Promise.all(['first', 's1', 's2'].map((sid) => signOut(logout({ sid }))))
  const sum = (member: 'accounts' | 'sessions' | 'rows') => results.reduce((n, result) => n + result[member], 0)
  t.same([sum('accounts'), sum('sessions'), sum('rows')], [1, 2, 1])
  t.same(await accounts(database), [])
})

t.test('one logout that the database refuses does not fail its neighbours', async (t) => {
  const { database, signOut, batches } = await build(t)
  const sids = numbered(10)
  await login(database, sids)
  const bad = logout({ sid: 's5', id: 'not a uuid' })
  const outcomes = await Promise.allSettled(sids.map((sid) => signOut(sid === 's5' ? bad : logout({ sid }))))
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
  const held = signOut(logout({ sid: 's7' }))
  let heldIsDone = false
  held.then(() => {
    heldIsDone = true
  })
  await Promise.all(sids.filter((sid) => sid !== 's7').map((sid) => signOut(logout({ sid }))))
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
  const first = signOut(logout({ sid: 'first' }))
  const all = sids.map((sid) => signOut(logout({ sid })))
  await first
  await Promise.all(all.filter((_, i) => i !== 7))
  t.match(await signOut(logout({ sid: 'later' })), { rows: 2 }, 'the next batch does not wait for it')
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
    'create trigger fail_twice after insert on msal_logout.purges for each statement execute function public.fail_twice()'
  )
  t.match(await signOut(logout({ sid: 's0' })), { rows: 2 })
  await database.query(`alter sequence public.tries restart`)
  const results = await Promise.all(['first', 's1', 's2'].map((sid) => signOut(logout({ sid }))))
  t.same(
    results.map(({ rows }) => rows),
    [0, 2, 2]
  )
  t.same(batches, [['s0'], ['s0'], ['s0'], ['first'], ['first'], ['first'], ['s1', 's2']])
})

t.test('a serialization failure that does not end is told after three tries, each alone', async (t) => {
  const { database, signOut, batches } = await build(t)
  await login(database, numbered(2))
  await database.query(`
    create function public.fail() returns trigger language plpgsql as $$
    begin
      raise exception 'could not serialize access' using errcode = 'serialization_failure';
    end $$`)
  await database.query(
    `create trigger fail after insert on msal_logout.purges for each row when (new.sid = 's1') execute function public.fail()`
  )
  const [, good, bad] = await Promise.allSettled(['first', 's0', 's1'].map((sid) => signOut(logout({ sid }))))
  t.equal(good?.status, 'fulfilled')
  t.match(bad, { reason: { code: 'ERR_DATABASE_CONFLICT' } })
  t.same(await accounts(database), ['s1.t'])
  t.equal(batches.filter((batch) => batch.length === 1 && batch[0] === 's1').length, 3)
})

t.test('a logout that waited too long is not begun', async (t) => {
  const bench = await build(t, { maxWaitMs: 300 })
  await login(bench.database, ['s0', 's1', 's2'])
  let open = () => {}
  bench.gate = new Promise((resolve) => {
    open = resolve
  })
  const begun = bench.signOut(logout({ sid: 's0' }))
  const late = bench.signOut(logout({ sid: 's1' }))
  const lateSince = performance.now()
  while (performance.now() - lateSince <= 300) {
    await new Promise(setImmediate)
  }
  const inTime = bench.signOut(logout({ sid: 's2' }))
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
  const outcomes = await Promise.allSettled(['s0', 's1', 's2'].map((sid) => bench.signOut(logout({ sid }))))
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
  const logouts = [logout({ sid: 's0' }), logout({ sid: 's0' })]
  const failed = Promise.allSettled(logouts.map(bench.signOut))
  for (;;) {
    const waiting = await bench.database.query<{ pid: number }>(
      `select pid from pg_stat_activity where application_name = 'under-test' and wait_event_type = 'Lock'`
    )
    if (waiting[0] !== undefined) {
      await bench.database.query('select pg_terminate_backend($1)', [waiting[0].pid])
      break
    }
  }
  await holder.release()
  const [first] = await failed
  t.match(first, { reason: { code: 'ERR_DATABASE_UNAVAILABLE' } })
  const again = await Promise.all(logouts.map(bench.signOut))
  t.equal(again.filter(({ replayed }: Purged) => !replayed).length >= 1, true)
  t.same(await bench.database.query('select count(*)::int as n, sum(rows)::int as rows from msal_logout.purges'), [
    { n: 2, rows: 2 }
  ])
})

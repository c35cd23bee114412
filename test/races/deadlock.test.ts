import { randomUUID } from 'node:crypto'
import pg from 'pg'
import t, { type Test } from 'tap'
import { createSignOut, type Order } from '../../src/sign-out.ts'
import { createStore } from '../../src/store.ts'
import { createDatabase, type Database } from '../fixtures/database.ts'
import { makeOrder } from '../fixtures/orders.ts'
import { storeLogin } from '../fixtures/service.ts'
import { until } from '../fixtures/until.ts'

const issuers = ['https://one.example', 'https://two.example']
const apps = ['a', 'b', 'c']
const accounts = ['u1.t1', 'u2.t1', 'u3.t2', 'bare']
const sids = ['s1', 's2', 's3', 's4', 's5']

// Fast, so that a deadlock shows as one before anything else gives up.
const settings = '-c deadlock_timeout=20ms'

/** The connections of the actors of one test, and how many deadlocks the server broke among them. */
function openPools(t: Test, database: Database) {
  const pools: pg.Pool[] = []
  t.teardown(() => Promise.all(pools.filter(({ ended }) => !ended).map((pool) => pool.end())))
  return {
    open(max: number): pg.Pool {
      const pool = new pg.Pool({ connectionString: database.url, max, options: settings, application_name: 'actor' })
      pools.push(pool)
      return pool
    },
    /** Ends the connections: only then the server's statistics are sure to have what happened on them. */
    async countDeadlocks(): Promise<number> {
      await Promise.all(pools.map((pool) => pool.end()))
      const statistics = `select deadlocks::int,
          (select count(*)::int from pg_stat_activity where application_name = 'actor' and datname = current_database()) as actors
        from pg_stat_database where datname = current_database()`
      return until('the actors have left the server', async () => {
        const [row] = await database.query<{ deadlocks: number; actors: number }>(statistics)
        return row?.actors === 0 && row.deadlocks
      })
    }
  }
}

// Repeatable: the same seed makes the same choices.
function createChoice(seed: number) {
  let state = seed
  return <T>(values: readonly T[]): T => {
    state = (Math.imul(state, 1_103_515_245) + 12_345) >>> 0
    return values[(state >>> 8) % values.length] as T
  }
}

t.test('sign-outs, logins, saves, forgets, sweeps and clean-up never deadlock', async (t) => {
  const database = await createDatabase(t)
  await database.query('select msal_logout.share_accounts($1, $2)', issuers)
  const pools = openPools(t, database)
  const done: Record<string, number> = {}
  const count = (what: string) => {
    done[what] = (done[what] ?? 0) + 1
  }
  const now = () => Math.floor(Date.now() / 1_000)

  /** Repeats what one actor does; an error of any kind fails the test. */
  async function repeat(times: number, act: (i: number) => Promise<void>): Promise<void> {
    for (let i = 0; i < times; i++) {
      await act(i)
    }
  }

  function orders(choose: ReturnType<typeof createChoice>): Order[] {
    return Array.from({ length: choose([1, 2, 7, 20]) }, () => {
      const issuer = choose(issuers)
      const account = choose(accounts)
      const selector = choose([
        { kind: 'session', issuer, sid: choose(sids), subject: choose([account, undefined]) },
        { kind: 'subject', issuer, subject: account },
        { kind: 'account', homeAccountId: account, issuer: account === 'bare' ? issuer : undefined },
        { kind: 'object', tenantId: choose(['t1', 't2']), objectId: account }
      ] as const)
      return makeOrder(selector, {
        revokeBefore: now() - choose([0, 0, 3_600]),
        purgeScope: choose(['account', 'session'] as const),
        sparesNewer: choose([true, false])
      })
    })
  }

  const actors: Promise<void>[] = []
  for (let n = 0; n < 3; n++) {
    const choose = createChoice(n + 1)
    const { signOut } = createSignOut(createStore({ pool: pools.open(4) }).commitOrders)
    actors.push(
      repeat(150, async () => {
        const results = await signOut(orders(choose))
        results.forEach(({ rows }) => {
          count(rows > 0 ? 'signed out' : 'nothing to sign out')
        })
      })
    )
  }
  for (let n = 0; n < 4; n++) {
    const choose = createChoice(n + 100)
    const pool = pools.open(1)
    const actor = {
      ...database,
      query: async (text: string, values?: unknown[]) => (await pool.query(text, values)).rows
    }
    actors.push(
      repeat(300, async () => {
        const clientId = choose(apps)
        const homeAccountId = choose(accounts)
        const issuer = homeAccountId === 'bare' ? (issuers[0] as string) : choose(issuers)
        const login = await storeLogin(actor as Database, {
          issuer,
          clientId,
          homeAccountId,
          sid: choose([...sids, null]),
          subject: homeAccountId === 'bare' ? 'bare' : `${homeAccountId}-${clientId}`,
          issuedAt: now() + choose([-60, 60]),
          ttl: choose(['1 hour', '1 hour', '1 millisecond'])
        })
        count(login.accepted ? 'logged in' : 'login rejected')
        if (!login.accepted) {
          return
        }
        await pool.query('select * from msal_logout.add_session($1, $2, $3, $4, $5, $6)', [
          clientId,
          homeAccountId,
          issuer,
          choose(sids),
          homeAccountId === 'bare' ? 'bare' : `${homeAccountId}-${clientId}`,
          now()
        ])
        const saved = await pool.query("select * from msal_logout.save($1, $2, $3, $4, '{}', 'json', '1 hour')", [
          clientId,
          homeAccountId,
          login.generation,
          login.version
        ])
        count(saved.rows[0].outcome)
        if (choose([true, false, false])) {
          await pool.query('select msal_logout.forget($1, $2, $3)', [clientId, homeAccountId, login.generation])
          count('forgot')
        }
      })
    )
  }
  for (let n = 0; n < 2; n++) {
    const choose = createChoice(n + 200)
    const store = createStore({ pool: pools.open(1) })
    actors.push(
      repeat(60, async () => {
        const selector = choose([{ clientId: choose(apps) }, { tenantId: choose(['t1', 't2']) }])
        const id = randomUUID()
        const { outcome } = await store.startSweep({
          id,
          source: 'operator',
          ...selector,
          reason: 'test',
          actor: 'test',
          dryRun: false,
          maxAccounts: 1_000,
          requestHash: ''
        })
        t.equal(outcome, 'running')
        for (let step = 'more'; step === 'more' || step === 'held'; ) {
          step = await store.sweepStep(id, choose([1, 100]))
          count('sweep step')
        }
      }),
      repeat(100, async () => {
        await store.cleanUp(choose([1, 1_000]))
        count('clean-up')
      })
    )
  }
  await Promise.all(actors)

  t.equal(await pools.countDeadlocks(), 0, 'PostgreSQL broke no deadlock')
  for (const what of ['signed out', 'logged in', 'saved', 'gone', 'forgot', 'sweep step', 'clean-up']) {
    t.ok((done[what] ?? 0) > 0, `it happened: ${what}, ${done[what]} times`)
  }
})

t.test('this way of looking sees a deadlock, where locks are taken in two orders', async (t) => {
  const database = await createDatabase(t)
  const pools = openPools(t, database)
  const pool = pools.open(2)
  const [one, two] = [await pool.connect(), await pool.connect()]
  const hold = (client: pg.PoolClient, key: string) =>
    client.query('select msal_logout.lock_keys($1, $2)', [[''], [key]])
  await one.query('begin')
  await two.query('begin')
  await hold(one, 'account=a')
  await hold(two, 'account=b')
  const outcomes = await Promise.allSettled([hold(one, 'account=b'), hold(two, 'account=a')])
  await one.query('rollback')
  await two.query('rollback')
  one.release()
  two.release()
  const broken = outcomes.filter(({ status }) => status === 'rejected')
  t.match(broken, [{ reason: { code: '40P01' } }])
  t.equal(await pools.countDeadlocks(), 1)
})

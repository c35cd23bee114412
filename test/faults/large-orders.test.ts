// Orders that delete much: nobody else waits for them, and in steps they come to the same as at once.
import { randomUUID } from 'node:crypto'
import t, { type Test } from 'tap'
import { UnavailableError } from '../../src/errors.ts'
import {
  createSignOut,
  type Deleted,
  type Order,
  type Selector,
  type SignOutResult,
  signOutInSteps
} from '../../src/sign-out.ts'
import { batchOf, createStore } from '../../src/store.ts'
import { createDatabase, type Database } from '../fixtures/database.ts'
import { makeOrder } from '../fixtures/orders.ts'
import { storeLogin } from '../fixtures/service.ts'
import { until } from '../fixtures/until.ts'

const issuer = 'https://op.example'
const subject = 'u'

/** One user in two apps, in rows of several kinds; two more users; and five who share a sid. */
async function populate(database: Database): Promise<void> {
  const login = (login: Parameters<typeof storeLogin>[1]) => storeLogin(database, login)
  const account = { issuer, homeAccountId: 'u.t', subject }
  for (let i = 0; i < 4; i += 1) {
    await login({ ...account, clientId: 'a', sid: `s${i}` })
    await login({ ...account, clientId: 'a', partitionKey: `obo-${i}`, kind: 'obo', sid: 's0' })
    await login({ ...account, clientId: 'b', subject: 'of b', sid: `s${i}` })
  }
  await login({ ...account, clientId: 'c', sid: null, oid: 'o', tid: 't' })
  await login({ ...account, homeAccountId: 'v.t', sid: 'v', subject: 'v' })
  await login({ issuer, homeAccountId: 'u.t', subject: 'u.t', clientId: 'd', sid: 'bare' })
  for (let i = 0; i < 5; i += 1) {
    for (const clientId of ['a', 'b']) {
      await login({ issuer, homeAccountId: `shared-${i}.t`, subject: `shared-${i}`, sid: 'shared', clientId })
    }
  }
}

/**
 * What a sign-out leaves: its records but for their ids and times, what is stored, and what apps read. With the scope of a session steps
 * count an account in an app only if nothing of it is left there.
 */
async function stateOf(database: Database, purgeScope: Order['purgeScope']) {
  const store = createStore({ pool: database.pool })
  const records = (await store.listRecords({ limit: 9 })) ?? []
  return {
    records: records.map(({ id, at, finishedAt, ...record }) => ({
      ...record,
      byClient: countsOf(record, purgeScope),
      matched: record.matched.map(({ homeAccountId }) => homeAccountId).sort()
    })),
    left: await database.query(
      `select client_id, partition_key, home_account_id, null as sid from msal_logout.token_cache
      union all select client_id, partition_key, home_account_id, session_key from msal_logout.sessions order by 1, 2, 3, 4`
    ),
    told: await database.query(
      `select r.client_id, s.sid, s.subject, s.home_account_id from msal_logout.revoked_sessions r, unnest(r.sessions) s order by 1, 2, 3, 4`
    )
  }
}

function countsOf({ byClient }: Pick<Deleted, 'byClient'>, purgeScope: Order['purgeScope']) {
  return Object.entries(byClient).map(([clientId, { accounts, ...counts }]) => ({
    clientId,
    ...counts,
    ...(purgeScope === 'account' && { accounts })
  }))
}

async function alone(database: Database, order: Order, maxDeletions: number) {
  const store = createStore({ pool: database.pool })
  let steps = 0
  const result = await signOutInSteps(() => {
    steps += 1
    return store.commitStep(order, maxDeletions)
  })
  return { ...result, steps }
}

const selectors: [name: string, selector: Selector, order: Partial<Order>][] = [
  ['a sid', { kind: 'session', issuer, sid: 's0' }, {}],
  ['a sid and a subject', { kind: 'session', issuer, sid: 's0', subject }, {}],
  ['a subject', { kind: 'subject', issuer, subject }, { sparesNewer: true }],
  ['an object', { kind: 'object', tenantId: 't', objectId: 'o' }, {}],
  ['an account', { kind: 'account', homeAccountId: 'u.t', issuer: '' }, { actor: 'x', reason: 'x' }],
  ['an account of any issuer', { kind: 'account', homeAccountId: 'u.t' }, { actor: 'x', reason: 'x' }],
  ['a sid that many accounts share', { kind: 'session', issuer, sid: 'shared' }, {}],
  ['nobody', { kind: 'session', issuer, sid: 'unknown' }, {}]
]

for (const [name, selector, changes] of selectors) {
  for (const purgeScope of ['account', 'session'] as const) {
    t.test(`${name}, by the scope of the ${purgeScope}: steps end, record and publish the same`, async (t) => {
      const database = await createDatabase(t)
      const order = makeOrder(selector, { ...changes, purgeScope })
      await populate(database)
      const [whole] = (await createStore({ pool: database.pool }).commitOrders([order], {
        isPatient: true
      })) as [SignOutResult]
      const expected = await stateOf(database, purgeScope)
      for (const maxDeletions of [1, 3, 100]) {
        const again = await createDatabase(t)
        await populate(again)
        const { steps, byClient, ...result } = await alone(again, order, maxDeletions)
        t.ok(result.rows + result.sessions > maxDeletions ? steps > 1 : steps <= 2, `${steps} steps`)
        t.match(result, {
          outcome: whole.outcome,
          accounts: whole.accounts,
          sessions: whole.sessions,
          rows: whole.rows
        })
        t.same(countsOf({ byClient }, purgeScope), countsOf(whole, purgeScope))
        t.same(await stateOf(again, purgeScope), expected)
        t.match(await alone(again, order, maxDeletions), { steps: 1, outcome: 'duplicate', rows: 0 })
        t.same(await stateOf(again, purgeScope), expected)
      }
    })
  }
}

t.test('between two steps no login comes in that the sign-out rejects, and any process goes on', async (t) => {
  const database = await createDatabase(t)
  await populate(database)
  const order = makeOrder({ kind: 'subject', issuer, subject }, { sparesNewer: true })
  const store = createStore({ pool: database.pool })
  t.equal(await store.commitStep(order, 3), undefined)
  const login = { issuer, homeAccountId: 'u.t', clientId: 'a', subject }
  t.match(await storeLogin(database, { ...login, sid: 'late' }), { accepted: false })
  t.match(await storeLogin(database, { ...login, sid: null }), { accepted: false })
  t.match(await alone(database, order, 3), { outcome: 'done', sessions: 13, rows: 7 })
})

t.test('while rows are left, every signal of the account finds it, and none is answered as done', async (t) => {
  const database = await createDatabase(t)
  await populate(database)
  const order = makeOrder({ kind: 'session', issuer, sid: 's0' })
  const store = createStore({ pool: database.pool })
  const rowsLeft = () =>
    database.query(`select from msal_logout.token_cache where home_account_id = 'u.t' and client_id <> 'd'`)
  const sessionsLeft = () =>
    database.query(`select from msal_logout.sessions where home_account_id = 'u.t' and client_id <> 'd'`)
  const sessions = (await sessionsLeft()).length
  let isOver = (await store.commitStep(order, 2)) !== undefined
  while (!isOver && (await rowsLeft()).length > 0) {
    t.equal((await sessionsLeft()).length, sessions)
    t.same(await store.commitOrders([order], { isPatient: true }), [{ outcome: 'unfinished' }], 'the same again')
    t.match(await store.findRecord(order.id), { status: 'running' })
    isOver = (await store.commitStep(order, 2)) !== undefined
  }
  t.notOk(isOver, 'the sessions are left')
  const another = makeOrder({ kind: 'session', issuer, sid: 's1' })
  const [ended] = (await store.commitOrders([another], { isPatient: true })) as [SignOutResult]
  t.match(ended, { outcome: 'done', rows: 0 })
  const last = await alone(database, order, 2)
  t.match(last, { outcome: 'done', rows: 7 })
  t.equal(last.sessions + ended.sessions, sessions)
  t.match(await store.commitOrders([order], { isPatient: true }), [{ outcome: 'duplicate' }])
})

t.test('steps that were ended, or failed, go on, and the record has all of it', async (t) => {
  const database = await createDatabase(t)
  await populate(database)
  const store = createStore({ pool: database.pool })
  const order = makeOrder({ kind: 'session', issuer, sid: 's0' })
  const stopping = new AbortController()
  let steps = 0
  const step = async () => {
    steps += 1
    if (steps === 1) {
      stopping.abort()
    }
    if (steps === 3) {
      throw new UnavailableError('ERR_DATABASE_LOCKED')
    }
    return store.commitStep(order, 1)
  }
  await t.rejects(signOutInSteps(step, stopping.signal), { code: 'ERR_DEADLINE' })
  t.equal(steps, 1)
  await t.rejects(signOutInSteps(step), { code: 'ERR_DATABASE_LOCKED' })
  t.match(await store.findRecord(order.id), { status: 'running', rows: 2, sessions: 0, finishedAt: null })
  t.match(await signOutInSteps(step), { outcome: 'done', sessions: 13, rows: 7 })
  t.match(await store.findRecord(order.id), { status: 'done', sessions: 13, rows: 7, accounts: 1 })
})

t.test('two orders at one account at once: together they count what went, and both are done', async (t) => {
  const database = await createDatabase(t)
  await populate(database)
  const orders = ['s0', 's1'].map((sid) => makeOrder({ kind: 'session', issuer, sid }))
  const results = await Promise.all(orders.map((order) => alone(database, order, 2)))
  t.equal(
    results.reduce((sum, { sessions }) => sum + sessions, 0),
    13
  )
  t.same(await database.query(`select from msal_logout.records where status <> 'done'`), [])
})

t.test('an operator’s key that stood for another request ends nothing in a step', async (t) => {
  const database = await createDatabase(t)
  await populate(database)
  const key = { id: randomUUID(), actor: 'x', reason: 'x' }
  const store = createStore({ pool: database.pool })
  await store.commitOrders([makeOrder({ kind: 'account', homeAccountId: 'v.t', issuer: '' }, key)], { isPatient: true })
  const again = makeOrder({ kind: 'subject', issuer, subject }, key)
  t.match(await alone(database, again, 2), { outcome: 'duplicate', steps: 1 })
  t.match(await storeLogin(database, { issuer, homeAccountId: 'w.t', sid: 'w', subject }), { accepted: true })
})

/** Holds a transaction open until a step waits for it. */
async function stepWhile(
  database: Database,
  order: Order,
  maxDeletions: number,
  held: [text: string, values?: unknown[]]
) {
  const store = createStore({ pool: database.pool })
  const client = await database.pool.connect()
  try {
    await client.query('begin')
    await client.query(...held)
    const step = store.commitStep(order, maxDeletions)
    await untilLockWaits(database, 1)
    await client.query('commit')
    return await step
  } finally {
    client.release()
  }
}

async function untilLockWaits(database: Database, count: number): Promise<void> {
  await until('they wait for a lock', async () => {
    const waiting = await database.query(
      `select from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'`
    )
    return waiting.length >= count
  })
}

for (const purgeScope of ['account', 'session'] as const) {
  t.test(`by the scope of the ${purgeScope}: what others delete during a step leaves nothing behind`, async (t) => {
    const database = await createDatabase(t)
    for (let i = 0; i < 5; i += 1) {
      const partitionKey = `row-${i}`
      await storeLogin(database, { issuer, homeAccountId: 'u.t', clientId: 'a', partitionKey, sid: `s${i}`, subject })
    }
    const order = makeOrder({ kind: 'subject', issuer, subject }, { purgeScope })
    const [first] = await database.query<{ keys: string[] }>(
      purgeScope === 'account'
        ? `select array_agg(partition_key) as keys from (select partition_key from msal_logout.token_cache
          where home_account_id = 'u.t' and account_issuer is not distinct from '${issuer}/*' limit 3) d`
        : `select array_agg(partition_key) as keys from (select partition_key from msal_logout.sessions
          where subject = 'u' and issuer is not distinct from '${issuer}' limit 3) d`
    )
    t.equal(first?.keys?.length, 3)
    await stepWhile(database, order, 3, [
      `with r as (delete from msal_logout.token_cache where partition_key = any ($1))
      delete from msal_logout.sessions where partition_key = any ($1)`,
      [first?.keys]
    ])
    await alone(database, order, 3)
    t.same((await stateOf(database, purgeScope)).left, [])
    t.match(await createStore({ pool: database.pool }).findRecord(order.id), { status: 'done' })
  })
}

t.test('what led to an account may go between two steps: the rest of the account goes all the same', async (t) => {
  const database = await createDatabase(t)
  await populate(database)
  const store = createStore({ pool: database.pool })
  const order = makeOrder({ kind: 'session', issuer, sid: 'v' })
  for (let i = 0; i < 3; i += 1) {
    await storeLogin(database, { issuer, homeAccountId: 'v.t', clientId: 'a', sid: `v${i}`, subject: 'v' })
  }
  t.equal(await store.commitStep(order, 1), undefined)
  await database.query(`delete from msal_logout.sessions where session_key = 'sid=v'`)
  t.match(await alone(database, order, 1), { outcome: 'done', accounts: 1 })
  t.same(await database.query(`select from msal_logout.sessions where home_account_id = 'v.t'`), [])
})

for (const [name, selector] of selectors) {
  t.test(`${name}: two processes at one order count what both deleted`, async (t) => {
    const database = await createDatabase(t)
    await populate(database)
    const order = makeOrder(selector, { actor: 'x', reason: 'x' })
    const { sessions, rows } = await createStore({ pool: database.pool }).previewOrder(order)
    const ends = await Promise.all([1, 2, 3].map(() => alone(database, order, 1)))
    t.match(await createStore({ pool: database.pool }).findRecord(order.id), { status: 'done', sessions, rows })
    t.equal(ends.filter(({ outcome }) => outcome !== 'duplicate').length, 1)
  })
}

t.test('the same order beside its first step goes on with it, and is no duplicate before it is done', async (t) => {
  const database = await createDatabase(t)
  await populate(database)
  const store = createStore({ pool: database.pool })
  const order = makeOrder({ kind: 'account', homeAccountId: 'u.t', issuer: '' }, { actor: 'x', reason: 'x' })
  const client = await database.pool.connect()
  await client.query('begin')
  await client.query(`select from msal_logout.token_cache where home_account_id = 'u.t' for update`)
  const steps = [store.commitStep(order, 2), store.commitStep(order, 2)]
  await untilLockWaits(database, 2)
  await client.query('commit')
  client.release()
  t.same(await Promise.all(steps), [undefined, undefined])
  t.match(await store.findRecord(order.id), { status: 'running', rows: 4 })
})

t.test('an order that has begun is previewed as a duplicate, so that it can go on', async (t) => {
  const database = await createDatabase(t)
  await populate(database)
  const store = createStore({ pool: database.pool })
  const order = makeOrder({ kind: 'session', issuer, sid: 's0' }, { actor: 'x', reason: 'x' })
  t.equal(await store.commitStep(order, 2), undefined)
  t.match(await store.previewOrder(order), { outcome: 'duplicate', accounts: 1, rows: 0 })
  t.match(await alone(database, order, 2), { outcome: 'done', rows: 7 })
})

t.test('an operator’s key that stands for another request, which is not over, ends nothing in a step', async (t) => {
  const database = await createDatabase(t)
  await populate(database)
  const key = { id: randomUUID(), actor: 'x', reason: 'x' }
  const store = createStore({ pool: database.pool })
  const first = makeOrder({ kind: 'account', homeAccountId: 'u.t', issuer: '' }, { ...key, requestHash: 'aa' })
  t.equal(await store.commitStep(first, 2), undefined)
  const another = makeOrder({ kind: 'session', issuer, sid: 'v' }, { ...key, requestHash: 'bb' })
  t.match(await alone(database, another, 2), { outcome: 'duplicate', rows: 0, steps: 1 })
  t.match(await storeLogin(database, { issuer, homeAccountId: 'v.t', sid: 'v', subject: 'v' }), { accepted: true })
  t.match(await alone(database, first, 2), { outcome: 'done' })
})

/** Sign-outs in which what would delete more takes too long. */
async function build(t: Test, maxDeletions: number) {
  const database = await createDatabase(t)
  const store = createStore({ pool: database.pool })
  const batches: string[][] = []
  const { signOut } = createSignOut(
    async (orders, options) => {
      batches.push(orders.map(({ selector }) => ('sid' in selector ? (selector.sid ?? '') : '')))
      if ((await store.findLarge(orders, maxDeletions)).length > 0) {
        throw new UnavailableError('ERR_DATABASE_TIMEOUT')
      }
      return store.commitOrders(orders, options)
    },
    { maxDeletions, findLarge: store.findLarge }
  )
  const one = (order: Order) => signOut([order]).then(([result]) => result?.outcome, codeOf)
  return { database, store, batches, one }
}

function codeOf(error: unknown): string {
  return error instanceof UnavailableError ? error.code : String(error)
}

t.test('large orders leave their neighbours a transaction, and come into none again', async (t) => {
  const { database, store, batches, one } = await build(t, 8)
  await populate(database)
  const orders = ['first', 's0', 'v', 'shared', 'unknown'].map((sid) => makeOrder({ kind: 'session', issuer, sid }))
  t.same(await Promise.all(orders.map(one)), ['unmatched', 'ERR_LARGE', 'done', 'ERR_LARGE', 'unmatched'])
  t.same(batches, [['first'], ['s0', 'v', 'shared', 'unknown'], ['v', 'unknown']])
  t.same(await Promise.all(orders.map(one)), ['duplicate', 'ERR_LARGE', 'duplicate', 'ERR_LARGE', 'duplicate'])
  t.same(batches.slice(3), [['first'], ['v', 'unknown']])

  const [, large] = orders
  while (large !== undefined && (await store.commitStep(large, 8)) === undefined) {
    t.equal(await one(large), 'ERR_LARGE', 'its steps are under way')
  }
  t.equal(large && (await one(large)), 'duplicate', 'once they are over')
})

t.test('if none is large, all go alone, and one that takes too long alone has no second try', async (t) => {
  const batches: string[][] = []
  const { signOut } = createSignOut(
    async (orders) => {
      const sids = orders.map(({ selector }) => ('sid' in selector ? (selector.sid ?? '') : ''))
      batches.push(sids)
      if (sids.length > 1 || sids[0] === 'slow') {
        throw new UnavailableError('ERR_DATABASE_TIMEOUT')
      }
      return orders.map(({ id }) => ({
        id,
        outcome: 'unmatched',
        matched: [],
        accounts: 0,
        sessions: 0,
        rows: 0,
        byClient: {}
      }))
    },
    {
      findLarge: async () => {
        throw new UnavailableError('ERR_DATABASE_TIMEOUT')
      }
    }
  )
  const orders = ['first', 'slow', 'v'].map((sid) => makeOrder({ kind: 'session', issuer, sid }))
  const ends = await Promise.all(orders.map((order) => signOut([order]).then(([end]) => end?.outcome, codeOf)))
  t.same(ends, ['unmatched', 'ERR_DATABASE_TIMEOUT', 'unmatched'])
  t.same(batches, [['first'], ['slow', 'v'], ['slow'], ['v']])
})

t.test('large is an account with more rows and sessions, or a signal that many accounts share', async (t) => {
  const database = await createDatabase(t)
  await populate(database)
  const store = createStore({ pool: database.pool })
  for (const [name, selector, changes] of selectors) {
    for (const purgeScope of ['account', 'session'] as const) {
      const order = makeOrder(selector, { ...changes, purgeScope })
      const preview = await store.previewOrder(order)
      const count = preview.rows + preview.sessions
      t.same(await store.findLarge([order], count), [], `${name}: ${count} are not`)
      if (purgeScope === 'account' && count > 0) {
        t.same(await store.findLarge([order], count - 1), [order.id], `${name}: more than ${count - 1} are`)
      }
    }
  }
})

for (const [name, key, purgeScope] of [
  ['its row', `'one', 'sid=' || n, n::text`, 'session'],
  ['its sid', `n::text, 'sid=shared', 'shared'`, 'session'],
  ['its row, all of which go,', `'one', 'sid=' || n, n::text`, 'account']
] as const) {
  t.test(`a session among thousands of ${name} is deleted without a look at the others`, async (t) => {
    const database = await createDatabase(t)
    const many = 3_000
    await database.query(
      `insert into msal_logout.sessions (issuer, client_id, subject, account_issuer, home_account_id, issued_at, expires_at, partition_key, session_key, sid)
      select $1, 'a', $2, msal_logout.issuer_group($1), 'u.t', 1, now() + interval '1 hour', ${key} from generate_series(1, $3::int) n`,
      [issuer, subject, many]
    )
    await database.query('analyze msal_logout.sessions')
    const order = makeOrder({ kind: 'subject', issuer, subject }, { purgeScope })
    const client = await database.pool.connect()
    t.teardown(() => client.release())
    await client.query('begin')
    const { rows: steps } = await client.query(
      'select outcome, client_sessions from msal_logout.sign_out_step(($1::msal_logout.signal_order[])[1], $2)',
      [batchOf([order]), many / 2]
    )
    t.match(steps, [{ outcome: 'more', client_sessions: [many / 2] }])
    const { rows } = await client.query<{ n: string }>(
      `select idx_tup_fetch + seq_tup_read as n from pg_stat_xact_user_tables where relid = 'msal_logout.sessions'::regclass`
    )
    await client.query('rollback')
    const read = Number(rows[0]?.n)
    t.ok(read < 10 * many, `${read} sessions were read`)
  })
}

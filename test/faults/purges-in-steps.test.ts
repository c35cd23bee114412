// What goes on in steps is finished, by whatever process there is: an operator expects it of a purge, and a disk may be lost with its spool.
import { rmSync } from 'node:fs'
import pg from 'pg'
import t, { type Test } from 'tap'
import type { Order, Selector } from '../../src/sign-out.ts'
import { batchOf, createStore } from '../../src/store.ts'
import { noteTries } from '../fixtures/attacks.ts'
import { createDatabase } from '../fixtures/database.ts'
import { storeHeavy, untilGone } from '../fixtures/heavy-account.ts'
import { makeOrder } from '../fixtures/orders.ts'
import { adminToken, build } from '../fixtures/service.ts'
import { type BrokenPart, type Siege, startSiege } from '../fixtures/siege.ts'
import { until } from '../fixtures/until.ts'

const timeout = 300_000
const heavy = 100_000
const rounds = Number(process.env.FAULT_ROUNDS ?? 1)

/** A transaction that holds one row of the account, the last that steps come to. */
async function holdLast(t: Test, url: string, account: string): Promise<pg.Client> {
  const client = new pg.Client({ connectionString: url })
  await client.connect()
  t.teardown(() => client.end())
  await client.query('begin')
  await client.query(
    `select from msal_logout.token_cache t where home_account_id = $1
      and generation = (select max(generation) from msal_logout.token_cache where home_account_id = $1) for update`,
    [account]
  )
  return client
}

/** A service whose steps take two rows at a time, with an account of which the last row is held. */
async function buildHeld(t: Test) {
  const database = await createDatabase(t)
  const service = await build(t, { database, edges: { maxDeletions: 2, steps: { maxWaitMs: 200, idleMs: 0 } } })
  for (let i = 0; i < 6; i += 1) {
    await service.login({ homeAccountId: 'u.t', partitionKey: `row-${i}`, sid: `s${i}` })
  }
  return { service, holder: await holdLast(t, database.url, 'u.t') }
}

t.test('a purge that cannot go on is answered 202, says how far it is, and is finished without anybody', async (t) => {
  const { service, holder } = await buildHeld(t)
  const order = { homeAccountId: 'u.t', reason: 'stolen' }
  const key = { 'idempotency-key': 'ticket-1' }
  const first = await service.operate('POST', '/admin/purges', order, key)
  t.equal(first.statusCode, 202)
  t.match(first.json(), { status: 'running', done: 0, total: 1, accounts: 0, rows: 4, sessions: 0 })
  const { id } = first.json() as { id: string }
  t.match((await service.operate('GET', `/admin/purges/${id}`)).json(), {
    status: 'running',
    done: 0,
    total: 1,
    rows: 4
  })
  t.match((await service.operate('POST', '/admin/purges', order, key)).statusCode, 202, 'the same again')
  await holder.query('rollback')
  await service.steps.stop()
  const another = await build(t, {
    database: service.database,
    edges: { maxDeletions: 2, steps: { idleMs: 0 }, choresEveryMs: 50 }
  })
  another.start()
  await until('it is done', async () => {
    const record = (await another.operate('GET', `/admin/purges/${id}`)).json() as { status: string }
    return record.status === 'done'
  })
  t.match((await another.operate('GET', `/admin/purges/${id}`)).json(), { done: 1, total: 1, rows: 6, sessions: 6 })
  t.match(await another.operate('POST', '/admin/purges', order, key), { statusCode: 200 })
  t.same(await another.rows(), [])
  const counted = another.logs.concat(service.logs).filter((line) => line.includes('"msg":"signed out"'))
  t.equal(counted.length, 1, 'it is logged once')
})

t.test('what this process is at, nobody takes up beside it; and it ends after its step', async (t) => {
  const { service, holder } = await buildHeld(t)
  t.equal((await service.operate('POST', '/admin/purges', { homeAccountId: 'u.t', reason: 'x' })).statusCode, 202)
  await service.steps.resume()
  await holder.query('rollback')
  await until('it goes on by itself', async () => (await service.rows()).length === 0)
})

t.test('a purge that cannot begin is answered 503, and leaves nothing', async (t) => {
  const database = await createDatabase(t)
  const service = await build(t, {
    database,
    openPool: (url, { max, statementTimeoutMs }) =>
      new pg.Pool({ connectionString: url, max, statement_timeout: statementTimeoutMs, options: '-c lock_timeout=100' })
  })
  await service.login({ homeAccountId: 'u.t', sid: 's' })
  const holder = await holdLast(t, database.url, 'u.t')
  t.equal((await service.operate('POST', '/admin/purges', { homeAccountId: 'u.t', reason: 'x' })).statusCode, 503)
  t.same(await database.query('select from msal_logout.records'), [])
  await holder.query('rollback')
})

const orders: [Selector, Partial<Order>][] = [
  [
    { kind: 'session', issuer: 'https://a.example', sid: 's"\\,(' },
    { clientId: 'c', jti: 'j', purgeScope: 'session' }
  ],
  [{ kind: 'session', issuer: 'https://a.example', sid: 's', subject: 'u' }, {}],
  [
    { kind: 'subject', issuer: 'https://a.example', subject: 'u' },
    { sparesNewer: true, recordUnmatched: false, rememberSeconds: 0 }
  ],
  [{ kind: 'subject', issuer: 'https://a.example', subject: 'u', sid: 's' }, { isOnce: false }],
  [
    { kind: 'account', homeAccountId: 'u.t' },
    { actor: 'x', reason: 'line\nend', requestHash: '00ff' }
  ],
  [
    { kind: 'account', homeAccountId: 'u.t', issuer: '' },
    { actor: 'x', reason: 'x', requestHash: 'ab' }
  ],
  [{ kind: 'object', tenantId: 't', objectId: 'o' }, { revokeBefore: 1 }]
]

t.test('a record has all that another process needs of its order', async (t) => {
  const database = await createDatabase(t)
  const store = createStore({ pool: database.pool })
  for (const [selector, changes] of orders) {
    const order = makeOrder(selector, changes)
    await database.query(
      `insert into msal_logout.records (id, source, status, stepped_at, order_in_steps)
      select ($1::msal_logout.signal_order[])[1].id, 'x', 'unfinished', now() - interval '1 minute', ($1::msal_logout.signal_order[])[1]`,
      [batchOf([order])]
    )
    const [found] = await store.unfinishedOrders(10_000)
    t.same(JSON.parse(JSON.stringify(found?.order)), JSON.parse(JSON.stringify({ ...order, isOnce: true })))
    t.same(await store.unfinishedOrders(120_000), [], 'somebody is at it')
    await database.query('delete from msal_logout.records')
  }
})

/** The process dies while the account is half signed out, and its disk goes with it. Says whether another one finishes it. */
async function kill(
  t: Test,
  begin: (siege: Siege) => Promise<unknown>,
  broken?: readonly BrokenPart[]
): Promise<boolean> {
  const siege = await startSiege(t, { env: { ADMIN_TOKEN: adminToken }, ...(broken && { broken }) })
  await storeHeavy(siege, 'heavy.', heavy)
  const holder = await holdLast(t, siege.database.url, 'heavy.')
  const answer = begin(siege).catch(() => 'broken')
  await until('it has begun', async () => (await siege.database.query(unfinished)).length === 1, { withinMs: 60_000 })
  siege.server.process.kill('SIGKILL')
  await siege.server.exited
  await answer
  rmSync(siege.spoolDir, { recursive: true, force: true })
  await siege.startAnother()
  await holder.query('rollback')
  const isOver = await untilGone(siege, ['heavy.'], 60_000).then(
    () => true,
    () => false
  )
  const [record] = await siege.database.query<{ status: string; rows: string; finished: boolean }>(
    'select status, rows::text, finished_at is not null as finished from msal_logout.records where home_account_id is not null or sid = $1',
    ['heavy.1']
  )
  t.match(record, isOver ? { status: 'done', rows: String(heavy), finished: true } : { status: 'unfinished' })
  return isOver
}

const unfinished = `select from msal_logout.records where status = 'unfinished'`
const purge = ({ server }: Siege) =>
  server.fetch(`${server.adminUrl}/admin/purges`, {
    method: 'POST',
    headers: { authorization: `Bearer ${adminToken}`, 'content-type': 'application/json' },
    body: JSON.stringify({ homeAccountId: 'heavy.', reason: 'stolen' })
  })
const logout = async (siege: Siege) =>
  siege.signOut([{ sid: 'heavy', token: await siege.provider.logoutToken({ sid: 'heavy.1' }) }], 0)

t.test('a purge of a heavy account outlives kill -9, and nobody sends it again', { timeout }, async (t) => {
  for (let round = 0; round < Math.ceil(rounds / 5); round += 1) {
    t.ok(await kill(t, purge))
  }
  noteTries('the service is killed amid a purge of a heavy account', Math.ceil(rounds / 5))
})

t.test('a logout of a heavy account outlives kill -9 and the loss of the spool', { timeout }, async (t) => {
  t.ok(await kill(t, logout))
  noteTries('the service is killed amid the logout of a heavy account, and its disk is lost', 1)
})

t.test('the control: if nobody takes up what has begun, it stays undone', { timeout }, async (t) => {
  t.notOk(await kill(t, purge, [{ file: 'src/service.js', line: 'await attempt(steps.resume);', broken: '' }]))
})

// What a dry run says is what the purge then deletes, and to say it holds nobody up.
import pg from 'pg'
import t from 'tap'
import type { Order, Selector } from '../../src/sign-out.ts'
import { batchOf, createStore } from '../../src/store.ts'
import { createDatabase, type Database } from '../fixtures/database.ts'
import { storeHeavy } from '../fixtures/heavy-account.ts'
import { makeOrder, nowSeconds } from '../fixtures/orders.ts'
import { storeLogin } from '../fixtures/service.ts'

const issuers = ['https://one.example', 'https://two.example']
const worlds = 4
const loginsEach = 70
const revokeBefore = nowSeconds() - 100

/** The same numbers for the same seed. */
function createChance(seed: number) {
  let state = seed
  const below = (n: number) => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0
    return Math.floor((state / 2 ** 32) * n)
  }
  return { below, oneOf: <T>(values: readonly T[]): T => values[below(values.length)] as T }
}

/** Few users, in many sessions, apps and rows: rows that sessions of several issuers share, bare subjects, expired ones. */
async function populate(database: Database, seed: number): Promise<void> {
  const { below, oneOf } = createChance(seed)
  for (let i = 0; i < loginsEach; i += 1) {
    const user = below(4)
    const issuer = oneOf(issuers)
    const isBare = below(5) === 0
    const homeAccountId = isBare ? `bare-${user}` : `u${user}.t`
    const clientId = oneOf(['a', 'b', 'c'])
    const isOfUser = below(3) > 0
    await storeLogin(database, {
      clientId,
      partitionKey: isOfUser ? `${homeAccountId}${isBare ? issuer : ''}` : `obo-${i % 7}-${homeAccountId}-${issuer}`,
      kind: isOfUser ? 'user' : 'obo',
      homeAccountId,
      issuer,
      subject: isBare ? homeAccountId : `of ${homeAccountId} at ${issuer} for ${clientId === 'c' ? 'c' : 'all'}`,
      sid: oneOf([null, `s${below(9)}`, 'shared']),
      issuedAt: revokeBefore + oneOf([-1, 0, 1]),
      ...(below(2) === 0 && { tid: 't', oid: `o${user}` })
    }).catch((error: unknown) => {
      if (!/already bears|belongs to/.test(String(error))) {
        throw error
      }
    })
  }
  await database.query(
    `update msal_logout.sessions set expires_at = now() - interval '1 minute' where hashtext(session_key || client_id) % 4 = 0`
  )
  await database.query(`delete from msal_logout.sessions where hashtext(partition_key) % 5 = 0`) // rows without a session
}

function selectorsOf(): Selector[] {
  const [issuer = '', other = ''] = issuers
  return [
    { kind: 'session', issuer, sid: 'shared' },
    { kind: 'session', issuer: other, sid: 's1', subject: `of u1.t at ${other} for all` },
    { kind: 'session', issuer, sid: 'unknown', subject: `of u0.t at ${issuer} for all` },
    { kind: 'session', issuer, sid: 'unknown' },
    { kind: 'subject', issuer, subject: `of u1.t at ${issuer} for all` },
    { kind: 'subject', issuer: other, subject: 'bare-1' },
    { kind: 'object', tenantId: 't', objectId: 'o0' },
    { kind: 'object', tenantId: 't', objectId: 'o2' },
    { kind: 'account', homeAccountId: 'u0.t' },
    { kind: 'account', homeAccountId: 'u2.t', issuer: '' },
    { kind: 'account', homeAccountId: 'bare-0' },
    { kind: 'account', homeAccountId: 'bare-0', issuer },
    { kind: 'account', homeAccountId: 'nobody' }
  ]
}

interface Row {
  outcome: string
  account_issuers: string[]
  account_ids: string[]
  clients: string[]
  client_accounts?: number[] // not of `sign_out`
  client_sessions: number[]
  client_rows: number[]
}

/** In one order, to be compared. */
function sorted(row: Row | undefined) {
  return {
    outcome: row?.outcome,
    accounts: row?.account_ids.map((id, i) => [id, row.account_issuers[i]]).sort(),
    apps: row?.clients
      .map((id, i) => [id, row.client_accounts?.[i], row.client_sessions[i], row.client_rows[i]])
      .sort(([one], [other]) => (String(one) < String(other) ? -1 : 1))
  }
}

async function preview(client: pg.ClientBase, order: Order): Promise<Row | undefined> {
  const { rows } = await client.query('select * from msal_logout.preview_order(($1::msal_logout.signal_order[])[1])', [
    batchOf([order])
  ])
  return rows[0]
}

async function carryOut(client: pg.ClientBase, order: Order, maxDeletions: number): Promise<Row | undefined> {
  for (let steps = 0; steps < 500; steps += 1) {
    const { rows } = await client.query(
      'select * from msal_logout.sign_out_step(($1::msal_logout.signal_order[])[1], $2)',
      [batchOf([order]), maxDeletions]
    )
    if (rows[0]?.outcome !== 'more') {
      return rows[0]
    }
  }
  throw new Error('it never ends')
}

t.test('a preview is what the purge then deletes, by every selector and scope, of many sets of sessions', async (t) => {
  let done = 0
  for (let seed = 1; seed <= worlds; seed += 1) {
    const database = await createDatabase(t)
    await populate(database, seed)
    const client = await database.pool.connect()
    t.teardown(() => client.release(true))
    for (const selector of selectorsOf()) {
      for (const purgeScope of ['account', 'session'] as const) {
        for (const sparesNewer of [true, false]) {
          const order = makeOrder(selector, { purgeScope, sparesNewer, revokeBefore, actor: 'x', reason: 'x' })
          const name = `${seed}: ${JSON.stringify(selector)}, ${purgeScope}${sparesNewer ? ', spares what is newer' : ''}`
          const expected = sorted(await preview(client, order))
          done += expected.outcome === 'done' ? 1 : 0
          for (const maxDeletions of [3, 1_000]) {
            await client.query('begin')
            t.same(sorted(await carryOut(client, order, maxDeletions)), expected, name)
            t.match(await preview(client, order), { outcome: 'duplicate' })
            await client.query('rollback')
          }
          // At once, among others, an account counts in an app though some of it stays.
          await client.query('begin')
          const { rows } = await client.query<Row>('select * from msal_logout.sign_out($1)', [batchOf([order])])
          await client.query('rollback')
          t.match(sorted(rows[0]), { outcome: expected.outcome, accounts: expected.accounts }, name)
        }
      }
    }
  }
  t.ok(done > 100, `${done} of them delete something`)
})

t.test('a preview of 20,000 sessions waits for nobody, locks nothing and writes nothing', async (t) => {
  const database = await createDatabase(t)
  const [issuer = ''] = issuers
  await storeHeavy({ database, provider: { issuer } as never }, 'heavy.t', 20_000)
  const reader = new pg.Pool({
    connectionString: database.url,
    max: 1,
    options: '-c default_transaction_read_only=on -c lock_timeout=1s'
  })
  t.teardown(() => reader.end())
  const orders = [
    makeOrder({ kind: 'account', homeAccountId: 'heavy.t' }),
    makeOrder({ kind: 'subject', issuer, subject: 'heavy.t' }, { purgeScope: 'session' })
  ]
  const holder = await database.pool.connect()
  t.teardown(() => holder.release(true))
  await holder.query('begin')
  // All that a row lock, or a write of anybody, would have to wait for.
  await holder.query(
    'lock table msal_logout.token_cache, msal_logout.sessions, msal_logout.tombstones, msal_logout.records in exclusive mode'
  )
  for (const order of orders) {
    const expected = { outcome: 'done', accounts: 1, sessions: 20_000, rows: 20_000 }
    t.match(await createStore({ pool: reader }).previewOrder(order), expected)
    await t.rejects(
      reader.query('select * from msal_logout.sign_out($1)', [batchOf([order])]),
      /read-only|lock timeout/,
      'else it would be seen'
    )
  }
  await holder.query('rollback')
})

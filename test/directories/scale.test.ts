// A cache of 10,000 accounts: what a sweep costs.
import { randomUUID } from 'node:crypto'
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import t from 'tap'
import { startWorld } from '../fixtures/directory-world.ts'

const accounts = 10_000

setFlagsFromString('--expose-gc')
const collectGarbage = runInNewContext('gc') as () => void

t.test('10,000 accounts are swept by 500 calls, and each page is read by an index', async (t) => {
  const { service, tenant, tenantId, round, graph, rows } = await startWorld(t)
  const ids = Array.from({ length: accounts }, () => tenant.add(randomUUID()).id)
  // Most by what their ID tokens named; a tenth by the home of their account alone; and as many again of another tenant.
  await service.database.query(
    `with accounts as (
      select p.id, p.n, t.tenant
      from unnest($1::text[]) with ordinality p (id, n),
        unnest(array[$2, '99999999-9999-4999-8999-999999999999']) t (tenant)
    ), rows as (
      insert into msal_logout.token_cache (client_id, partition_key, kind, account_issuer, home_account_id, payload, encoding, expires_at)
      select 'client-a', id || '.' || tenant, 'user', 'https://issuer.example/*', id || '.' || tenant, '{}', 'json', now() + interval '1 hour' from accounts
    )
    insert into msal_logout.sessions (issuer, session_key, client_id, partition_key, sid, subject, account_issuer,
      home_account_id, oid, tid, issued_at, expires_at)
    select 'https://issuer.example/' || tenant, 'sid=' || id, 'client-a', id || '.' || tenant, id, id, 'https://issuer.example/*', id || '.' || tenant,
      case when n % 10 > 0 then id end, case when n % 10 > 0 then tenant end, 1795000000, now() + interval '1 hour'
    from accounts`,
    [ids, tenantId]
  )
  t.equal((await rows()).length, 2 * accounts)
  graph.calls.length = 0
  const heapBefore = heapUsed()
  let highest = 0
  graph.onRequest = async ({ path }) => {
    if (path.includes('$batch') && graph.calls.length % 50 === 0) {
      highest = Math.max(highest, heapUsed())
      graph.calls.splice(0, graph.calls.length - 1)
    }
    batches += path.includes('$batch') ? 1 : 0
  }
  let batches = 0
  const state = await round()
  t.match(state, { watched: accounts, sweepFailure: undefined })
  t.equal(batches, accounts / 20)
  t.comment(`heap: ${mebibytes(heapBefore)} before, at most ${mebibytes(highest)} during the sweep`)
  t.ok(highest - heapBefore < 8 * 2 ** 20, 'memory is flat')

  const client = await service.database.pool.connect()
  try {
    await client.query('begin')
    const before = await tuplesRead()
    await client.query('select * from msal_logout.list_watched($1, $2, 200)', [tenantId, ids.sort()[accounts / 2]])
    await client.query('select * from msal_logout.find_watched($1, $2)', [tenantId, ids.slice(0, 200)])
    const read = (await tuplesRead()) - before
    t.ok(read >= 400 && read < 1_000, `${read} tuples were read`)
    await client.query('commit')
  } finally {
    client.release()
  }

  async function tuplesRead(): Promise<number> {
    const { rows: found } = await client.query<{ n: string }>(
      `select sum(seq_tup_read + idx_tup_fetch) as n from pg_stat_xact_user_tables
      where schemaname = 'msal_logout' and relname in ('token_cache', 'sessions')`
    )
    return Number(found[0]?.n)
  }
})

/** What is in use, without what is only waiting to be collected. */
function heapUsed(): number {
  collectGarbage()
  return process.memoryUsage().heapUsed
}

function mebibytes(bytes: number): string {
  return `${Math.round(bytes / 2 ** 20)} MiB`
}

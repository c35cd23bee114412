// An operator's purge of very many accounts, against one bare `delete` of the same rows, and what it does to
// the sign-outs that come meanwhile.
import { randomUUID } from 'node:crypto'
import { join } from 'node:path'
import pg from 'pg'
import { pino } from 'pino'
import { createPurges } from '../src/purges.ts'
import { createStore } from '../src/store.ts'
import { payloads } from './database.ts'
import { contenders, type Setting, signTokens } from './speed.ts'

const tenant = 'f3b1a1de-0000-4000-8000-000000000001'

export async function measurePurge(setting: Setting, accounts: number) {
  const { database, provider, loader, folder } = setting
  const { pool } = database
  const tokens = join(folder, 'tokens')
  const signOuts = 30_000
  await signTokens(provider, signOuts, tokens)
  const contender = contenders(setting)[0]
  if (contender === undefined) {
    throw new Error('no contender')
  }
  const server = await contender.start()
  const load = (from: number, to: number) =>
    loader.run({ port: server.port, path: contender.path, tokens, from, to, connections: 4 })

  await fillTenant(setting, accounts, signOuts)
  const bareMs = await timed(async () => {
    await pool.query('delete from msal_logout.token_cache where tenant_id = $1', [tenant])
    await pool.query("delete from msal_logout.sessions where home_account_id like '%.' || $1", [tenant])
  })
  await assertGone(pool)

  await fillTenant(setting, accounts, signOuts)
  const slowPool = new pg.Pool({ connectionString: database.url, max: 4, statement_timeout: 60_000 })
  const store = createStore(slowPool)
  const purges = createPurges({
    store,
    signOut: async () => Promise.reject(new Error('not used')),
    logger: pino({ level: 'silent' })
  })
  await load(0, 2_000)
  const idle = await load(2_000, 5_000)
  const purgeId = randomUUID()
  const startedAt = performance.now()
  const order = await purges.order({
    selector: { tenantId: tenant },
    reason: 'benchmark',
    actor: 'benchmark',
    dryRun: false,
    force: true,
    idempotencyKey: purgeId
  })
  if (order.outcome !== 'running') {
    throw new Error(`the purge is "${order.outcome}"`)
  }
  const during = await load(5_000, 8_000)
  await finished(pool)
  const withSignOutsMs = performance.now() - startedAt
  await assertGone(pool)

  await fillTenant(setting, accounts, signOuts)
  const aloneMs = await timed(async () => {
    await purges.order({
      selector: { tenantId: tenant },
      reason: 'benchmark',
      actor: 'benchmark',
      dryRun: false,
      force: true,
      idempotencyKey: randomUUID()
    })
    await finished(pool)
  })
  await assertGone(pool)
  await slowPool.end()
  await server.stop()

  const result = {
    accounts,
    bareDeleteSeconds: bareMs / 1_000,
    purgeSeconds: aloneMs / 1_000,
    purgeWithSignOutsSeconds: withSignOutsMs / 1_000,
    timeRatio: aloneMs / bareMs,
    p99Ms: { idle: idle.p99Ms, during: during.p99Ms },
    p99Ratio: during.p99Ms / idle.p99Ms,
    bounds: 'time at most 1.5, p99 at most 3',
    reached: aloneMs / bareMs <= 1.5 && during.p99Ms / idle.p99Ms <= 3
  }
  console.log(result)
  return result
}

/** The accounts of the tenant, one row each, beside those which sign out meanwhile. */
async function fillTenant({ database, provider }: Setting, accounts: number, others: number): Promise<void> {
  const { pool } = database
  await database.fill(provider.issuer, others)
  await pool.query(
    `insert into msal_logout.token_cache (client_id, partition_key, kind, home_account_id, payload, encoding, expires_at)
     select 'app-0', account, 'user', account, payload, 'json', now() + interval '30 days'
     from (select g, md5('purge' || g)::uuid || '.' || $2 as account from generate_series(1, $1::int) g) a
     join public.payloads on n = g % ${payloads}`,
    [accounts, tenant]
  )
  await pool.query(
    `insert into msal_logout.sessions (issuer, session_key, client_id, partition_key, sid, subject, account_issuer,
       home_account_id, issued_at, expires_at)
     select $3, 'sid=p' || g, 'app-0', account, 'p' || g, 'p' || g, '', account,
       extract(epoch from now())::bigint - 60, now() + interval '30 days'
     from (select g, md5('purge' || g)::uuid || '.' || $2 as account from generate_series(1, $1::int) g) a`,
    [accounts, tenant, provider.issuer]
  )
  await pool.query('vacuum analyze msal_logout.token_cache, msal_logout.sessions')
  await pool.query('checkpoint')
}

async function finished(pool: pg.Pool): Promise<void> {
  for (;;) {
    const { rows } = await pool.query("select from msal_logout.purges where status = 'running'")
    if (rows.length === 0) {
      return
    }
    await new Promise((resolve) => setTimeout(resolve, 20))
  }
}

async function assertGone(pool: pg.Pool): Promise<void> {
  const { rows } = await pool.query<{ n: string }>(
    `select (select count(*) from msal_logout.token_cache where tenant_id = $1)
      + (select count(*) from msal_logout.sessions where home_account_id like '%.' || $1) as n`,
    [tenant]
  )
  if (rows[0]?.n !== '0') {
    throw new Error(`${rows[0]?.n} rows are left`)
  }
}

async function timed(work: () => Promise<void>): Promise<number> {
  const startedAt = performance.now()
  await work()
  return performance.now() - startedAt
}

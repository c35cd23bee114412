// An operator's purge of very many accounts, against one bare `delete` of the same rows, and what it does to
// the sign-outs that come meanwhile.
import { join } from 'node:path'
import type pg from 'pg'
import { pino } from 'pino'
import { readConfig } from '../src/config.ts'
import { createService } from '../src/service.ts'
import { countCosts } from './costs.ts'
import { payloads } from './database.ts'
import { audience } from './provider.ts'
import { bystandersAreThere, contenders, type Setting, signTokens } from './speed.ts'
import { spread } from './statistics.ts'

const tenant = 'f3b1a1de-0000-4000-8000-000000000001'
const signOuts = 30_000
const perSecond = 200
const perLoad = 200

export async function measurePurge(setting: Setting, accounts: number) {
  const { database, provider, loader, folder } = setting
  const { pool } = database
  const tokens = join(folder, 'tokens')
  await signTokens(provider, signOuts, tokens)
  const [contender] = contenders(setting)
  if (contender === undefined) {
    throw new Error('no contender')
  }
  const config = readConfig({ ISSUER: provider.issuer, CLIENT_IDS: audience, SPOOL_DIR: join(folder, 'spool-purge') })
  const service = createService(config, { logger: pino({ level: 'silent' }), connectionString: database.url })
  const server = await contender.start()

  /** Processor time of PostgreSQL, in seconds: steadier than time on a machine that others use, too. */
  const postgresSeconds: { bareDelete: number[]; purge: number[] } = { bareDelete: [], purge: [] }

  async function bareDelete(): Promise<number> {
    await fillTenant(setting, accounts)
    const costsOf = await countCosts(pool, server.pid, database.postmaster)
    const seconds = await timed(async () => {
      await pool.query('delete from msal_logout.token_cache where tenant_id = $1', [tenant])
      await pool.query("delete from msal_logout.sessions where home_account_id like '%.' || $1", [tenant])
    })
    postgresSeconds.bareDelete.push((await costsOf()).postgresUs / 1e6)
    await assertGone(pool)
    return seconds
  }

  async function purge(meanwhile?: () => Promise<void>): Promise<number> {
    await fillTenant(setting, accounts)
    const costsOf = await countCosts(pool, server.pid, database.postmaster)
    const seconds = await timed(async () => {
      const { outcome } = await service.adminOptions.purge({
        selector: { tenantId: tenant },
        reason: 'benchmark',
        actor: 'benchmark',
        dryRun: false,
        force: true,
        idempotencyKey: undefined
      })
      if (outcome !== 'running' && outcome !== 'done') {
        throw new Error(`the purge is "${outcome}"`)
      }
      await meanwhile?.()
      await untilDone(pool)
    })
    if (meanwhile === undefined) {
      postgresSeconds.purge.push((await costsOf()).postgresUs / 1e6)
    }
    await assertGone(pool)
    return seconds
  }

  let next = 0
  /** The p99 of some sign-outs; all of them must have been answered 200. */
  async function load(): Promise<number> {
    const from = next
    next += perLoad
    const order = { port: server.port, path: contender?.path ?? '', tokens, from, to: next, connections: 4, perSecond }
    const { p99Ms, statuses } = await loader.run(order)
    if (statuses['200'] !== perLoad) {
      throw new Error(`sign-outs were answered ${JSON.stringify(statuses)}`)
    }
    return p99Ms
  }

  try {
    const bareSeconds = [await bareDelete()]
    const purgeSeconds = await purge()
    const p99Ms: { idle: number[]; during: number[] } = { idle: [], during: [] }
    const withSignOutsSeconds = await purge(async () => {
      while (await isRunning(pool)) {
        const p99 = await load()
        if (await isRunning(pool)) {
          p99Ms.during.push(p99)
        }
      }
    })
    for (let i = 0; i < 10; i++) {
      p99Ms.idle.push(await load())
    }
    await contender.check(0, next)
    await bystandersAreThere(database, next, signOuts)
    bareSeconds.push(await bareDelete())

    const bare = spread(bareSeconds).median
    const idle = spread(p99Ms.idle)
    const during = spread(p99Ms.during)
    const result = {
      accounts,
      bareDeleteSeconds: bareSeconds,
      purgeSeconds,
      purgeWithSignOutsSeconds: withSignOutsSeconds,
      timeRatio: purgeSeconds / bare,
      postgresSeconds,
      postgresRatio: spread(postgresSeconds.purge).median / spread(postgresSeconds.bareDelete).median,
      p99Ms: { idle, during },
      p99Ratio: during.median / idle.median,
      bounds: 'time at most 1.5, p99 at most 2',
      reached: purgeSeconds / bare <= 1.5 && during.median / idle.median <= 2
    }
    console.log(result)
    return result
  } finally {
    await server.stop()
    await service.stop()
  }
}

/** The accounts of the tenant, one row each, beside those which sign out meanwhile. */
async function fillTenant({ database, provider }: Setting, accounts: number): Promise<void> {
  const { pool } = database
  await database.fill(provider.issuer, signOuts)
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

async function isRunning(pool: pg.Pool): Promise<boolean> {
  const { rows } = await pool.query("select from msal_logout.records where status = 'running'")
  return rows.length > 0
}

/** @throws if it takes longer than an hour: then the machine has not enough memory for so many accounts */
async function untilDone(pool: pg.Pool): Promise<void> {
  for (const startedAt = performance.now(); await isRunning(pool); ) {
    if (performance.now() - startedAt > 3_600_000) {
      throw new Error('the purge takes longer than an hour')
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
  return (performance.now() - startedAt) / 1_000
}

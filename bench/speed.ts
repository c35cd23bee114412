import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import pg from 'pg'
import { type Costs, countCosts } from './costs.ts'
import { type Database, startDatabase } from './database.ts'
import type { LoadResult } from './load.ts'
import { type Loader, type Server, startLoader, startServer } from './processes.ts'
import { audience, type Provider, sidOf, startProvider } from './provider.ts'
import { quantile } from './statistics.ts'

export type ContenderName = 'msal-logout' | 'verifying only' | 'statements per token' | 'express-openid-connect'

export interface Contender {
  readonly name: ContenderName
  readonly path: string
  /** Tokens of one round at 64 connections; a slow one needs fewer for as long a time. */
  readonly tokens: number
  readonly start: () => Promise<Server>
  /** What must be true in the database once these sessions were answered; throws if it is not. */
  readonly check: (from: number, to: number) => Promise<void>
}

export interface Setting {
  readonly database: Database
  readonly provider: Provider
  readonly loader: Loader
  /** A folder for logs and tokens that goes away. */
  readonly folder: string
}

/** Sessions which no token names: they must be there afterwards. */
export const bystanders = 2_000
const warmUpTokens = 1_000
const warmUpBareCommits = 200
/** Of all contenders alike, so that their tables are as large. */
const sessionsStored = 15_000

/** @param variables further ones of ours */
export function contenders(
  { database, provider, folder }: Setting,
  variables: Readonly<Record<string, string>> = {}
): Contender[] {
  const issuersFile = join(folder, 'issuers.json')
  writeFileSync(
    issuersFile,
    JSON.stringify({
      issuers: [
        {
          name: 'bench',
          issuer: provider.issuer,
          jwksUri: `${provider.issuer}/jwks`,
          clientIds: [audience],
          maxTokenAgeSeconds: 86_400,
          algorithms: ['RS256', 'ES256']
        }
      ]
    })
  )
  const env = {
    DATABASE_URL: database.url,
    ISSUER: provider.issuer,
    NODE_ENV: 'production',
    POOL_SIZE: '16'
  }
  const own = {
    DATABASE_URL: env.DATABASE_URL,
    ISSUERS_FILE: issuersFile,
    ISSUER: '',
    NODE_ENV: 'production',
    ...variables
  }
  const start = (name: string, program: string, variables: Record<string, string>) => () =>
    startServer({
      program,
      env: { ...variables, SPOOL_DIR: join(folder, `spool-${name}`) },
      logFile: join(folder, `${name}.log`)
    })

  async function rowsAreGone(from: number, to: number): Promise<void> {
    const left = await database.countRows(from, to)
    if (left > 0) {
      throw new Error(`${left} rows are still there`)
    }
  }
  return [
    {
      name: 'msal-logout',
      path: '/backchannel-logout',
      tokens: 12_000,
      start: start('msal-logout', 'dist/cli.js', own),
      check: rowsAreGone
    },
    {
      name: 'verifying only',
      path: '/backchannel-logout',
      tokens: 12_000,
      start: start('verify-only', 'bench/dist/bench/contenders/verify-only.js', own),
      async check() {}
    },
    {
      name: 'statements per token',
      path: '/backchannel-logout',
      tokens: 3_000,
      start: start('statements', 'bench/dist/bench/contenders/statements.js', env),
      check: rowsAreGone
    },
    {
      name: 'express-openid-connect',
      path: '/backchannel-logout',
      tokens: 3_000,
      start: start('express', 'bench/dist/bench/peers/express.js', env),
      async check(from, to) {
        const { rows } = await database.pool.query<{ n: string }>('select count(*) as n from public.session')
        // one mark for the sid and one for the subject
        if (Number(rows[0]?.n) !== 2 * (to - from)) {
          throw new Error(`${rows[0]?.n} of ${2 * (to - from)} marks are there`)
        }
      }
    }
  ]
}

/** Fills the database, warms the server up, loads it, and lets the result count only if the outcome is right. */
export async function measure(
  setting: Setting,
  contender: Contender,
  server: Server,
  tokens: string,
  { connections, count }: { connections: number; count: number }
): Promise<LoadResult & { costs: Costs }> {
  const { database, provider, loader } = setting
  const total = warmUpTokens + count
  await database.fill(provider.issuer, sessionsStored)
  await database.pool.query('truncate public.session')
  const order = { port: server.port, path: contender.path, tokens }
  await loader.run({ ...order, from: 0, to: warmUpTokens, connections: 16 })
  const costsOf = await countCosts(database.pool, server.pid, database.postmaster)
  const result = await loader.run({ ...order, from: warmUpTokens, to: total, connections })
  const costs = await costsOf()
  const odd = Object.entries(result.statuses).filter(([status]) => status !== '200' && status !== '204')
  if (odd.length > 0) {
    throw new Error(`${contender.name}: answers ${JSON.stringify(result.statuses)}`)
  }
  await contender.check(0, total)
  await bystandersAreThere(database, total, sessionsStored)
  return { ...result, costs: perToken(costs, count) }
}

function perToken({ serviceUs, postgresUs, walBytes }: Costs, count: number): Costs {
  return { serviceUs: serviceUs / count, postgresUs: postgresUs / count, walBytes: walBytes / count }
}

/** Throws if a row of these sessions is gone. */
export async function bystandersAreThere(database: Database, from: number, to: number): Promise<void> {
  const spared = await database.countRows(from, to)
  if (spared !== (to - from) * 3) {
    throw new Error(`${(to - from) * 3 - spared} rows were deleted that nobody asked for`)
  }
}

/** One token a line, for the sessions from 0 on. */
export async function signTokens(provider: Provider, count: number, file: string): Promise<void> {
  const tokens: string[] = []
  while (tokens.length < count) {
    const from = tokens.length
    tokens.push(
      ...(await Promise.all(
        Array.from({ length: Math.min(500, count - from) }, (_, i) => provider.logoutToken(from + i))
      ))
    )
  }
  writeFileSync(file, tokens.join('\n'))
}

export async function startSetting(
  folder: string,
  options: { isCold?: boolean } = {}
): Promise<Setting & { stop(): Promise<void> }> {
  const [database, provider] = await Promise.all([startDatabase(options), startProvider()])
  await database.pool.query(
    'create table public.session (sid varchar primary key, sess json not null, expire timestamp(6) not null)'
  )
  await database.pool.query('create index on public.session (expire)')
  const loader = startLoader()
  return {
    database,
    provider,
    loader,
    folder,
    async stop() {
      loader.stop()
      provider.close()
      await database.close()
    }
  }
}

/** The bare work in the database: one commit that finds the session's keys and deletes its rows by them. */
export async function measureBareCommit({ database, provider }: Setting, count: number): Promise<number> {
  const total = warmUpBareCommits + count
  await database.fill(provider.issuer, total + bystanders)
  const client = new pg.Client({ connectionString: database.url })
  await client.connect()
  const latencies: number[] = []
  for (let session = 0; session < total; session++) {
    const startedAt = performance.now()
    await client.query({
      name: 'bare',
      text: `with gone as (select partition_key, client_id from msal_logout.sessions where issuer = $1 and session_key = $2)
        delete from msal_logout.token_cache t using gone
        where t.partition_key = gone.partition_key and t.client_id = gone.client_id`,
      values: [provider.issuer, `sid=${sidOf(session)}`]
    })
    latencies.push(performance.now() - startedAt)
  }
  await client.end()
  if ((await database.countRows(0, total)) > 0) {
    throw new Error('the bare commit left rows')
  }
  await bystandersAreThere(database, total, total + bystanders)
  return quantile(latencies.slice(warmUpBareCommits), 0.5)
}

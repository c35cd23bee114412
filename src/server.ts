import { resolve } from 'node:path'
import pg from 'pg'
import { pino } from 'pino'
import { createAdmin } from './admin.ts'
import { createApp } from './app.ts'
import { type Config, readConfig, readDatabaseUrl } from './config.ts'
import type { EmbeddedPostgres } from './embedded-postgres.ts'
import { ConfigurationError, UnavailableError } from './errors.ts'
import { createIssuers } from './issuers.ts'
import { createLogoutTokenVerifier } from './logout-token.ts'
import { createMetrics } from './metrics.ts'
import { migrate } from './migrate.ts'
import { createOperatorCheck } from './operators.ts'
import { createPurges } from './purges.ts'
import { createRejections } from './rejections.ts'
import { createCarryOut, createSignOut, type LogoutOutcome } from './sign-out.ts'
import { createSpool, startReplay } from './spool.ts'
import { createStore, type Purged } from './store.ts'

const chores = { everyMs: 10_000, cleanUpRows: 1_000 }
const stopWithinMs = 10_000

async function serve(config: Config, embedded: EmbeddedPostgres | undefined): Promise<void> {
  const logger = pino({ level: config.logLevel })
  if (embedded !== undefined) {
    logger.warn(
      { dataDir: embedded.dataDir },
      'DATABASE_URL is not set: using an embedded PostgreSQL, for trying out only'
    )
  }

  const connectionString = config.databaseUrl ?? embedded?.url
  const openPool = (max: number, statementTimeoutMs: number) => {
    const pool = new pg.Pool({
      connectionString,
      application_name: 'msal-logout',
      max,
      connectionTimeoutMillis: 1_000,
      statement_timeout: statementTimeoutMs,
      lock_timeout: 1_200,
      idle_in_transaction_session_timeout: 5_000,
      keepAlive: true
    })
    return pool.on('error', (error) => logger.warn({ cause: error.message }, 'idle database connection lost'))
  }
  // Sign-outs must be done within the 2 s of their answer; operators' purges and chores have time, and never
  // take a sign-out's connection.
  const pool = openPool(4, 1_500)
  const slowPool = openPool(4, 60_000)

  const migrations = await migrateAt(connectionString)
  if (migrations.length > 0) {
    logger.info({ migrations }, 'migrated')
  }

  const issuers = createIssuers(config.issuers)
  const store = createStore(pool)
  const slowStore = createStore(slowPool)
  const spool = createSpool({ dir: config.spoolDir, logger })
  const metrics = createMetrics({ issuers, spool, pools: { logouts: pool, operators: slowPool } })
  metrics.watchProcess()
  const rejections = createRejections()
  const onEnded = (outcome: LogoutOutcome) => {
    metrics.ended(outcome)
    rejections.add(outcome)
  }

  const signOut = createSignOut(store, { onCommitted: metrics.committed })
  const onPurged = (purged: Purged) => metrics.purged('admin', purged)
  const purges = createPurges({ store: slowStore, signOut, logger, onPurged })
  const carryOut = createCarryOut({ issuers, verify: createLogoutTokenVerifier(issuers), signOut, store })
  const replay = startReplay({ spool, carryOut, logger, onEnded })
  const app = createApp({ issuers, carryOut, spool, logger, onEnded, trustedProxies: config.trustedProxies })
  const operatorIssuers = createIssuers(config.adminAccessTokens === undefined ? [] : [config.adminAccessTokens.issuer])
  const identify = createOperatorCheck({
    token: config.adminToken,
    accessTokens: config.adminAccessTokens && { ...config.adminAccessTokens, issuers: operatorIssuers }
  })
  const admin = createAdmin({ purges, store: slowStore, spool, issuers, rejections, metrics, logger, identify })

  issuers.warmUp()
  operatorIssuers.warmUp()
  await admin.listen({ host: config.adminHost, port: config.adminPort })
  await app.listen({ host: config.host, port: config.port })

  let choreTimer: NodeJS.Timeout | undefined
  let stopping = false
  async function doChores(): Promise<void> {
    try {
      await purges.resume()
      while (!stopping && ((await slowStore.cleanUp(chores.cleanUpRows)) ?? 0) > 0) {
        // a small step each, until nothing is left
      }
    } catch (error) {
      logger.warn({ code: error instanceof UnavailableError ? error.code : String(error) }, 'chores put off')
    }
    if (!stopping) {
      choreTimer = setTimeout(doChores, chores.everyMs)
    }
  }
  void doChores()

  async function stop(signal: string): Promise<void> {
    if (stopping) {
      process.exit(1)
    }
    stopping = true
    logger.info({ signal }, 'stopping')
    setTimeout(() => process.exit(1), stopWithinMs).unref()
    clearTimeout(choreTimer)
    await Promise.all([app.close(), admin.close(), replay.stop()])
    await Promise.all([pool.end(), slowPool.end()])
    await embedded?.stop()
    process.exit(0)
  }
  process.on('SIGTERM', stop)
  process.on('SIGINT', stop)
}

/** On connections of its own: a migration may take longer than the service's statements. */
async function migrateAt(connectionString: string | undefined): Promise<string[]> {
  const pool = new pg.Pool({ connectionString, max: 1, connectionTimeoutMillis: 10_000 })
  try {
    return await migrate(pool)
  } finally {
    await pool.end()
  }
}

async function migrateAndEnd(databaseUrl: string | undefined, embedded: EmbeddedPostgres | undefined): Promise<void> {
  const migrations = await migrateAt(databaseUrl ?? embedded?.url)
  process.stdout.write(migrations.length === 0 ? 'the schema is current\n' : `migrated: ${migrations.join(', ')}\n`)
  await embedded?.stop()
}

/** Where no database is named: one of our own, which goes when the work has failed. */
async function withDatabase(
  databaseUrl: string | undefined,
  work: (embedded: EmbeddedPostgres | undefined) => Promise<void>
): Promise<void> {
  if (databaseUrl !== undefined) {
    return work(undefined)
  }
  const { startEmbeddedPostgres } = await import('./embedded-postgres.ts')
  const embedded = await startEmbeddedPostgres({ dataDir: resolve('.data/postgres') })
  try {
    await work(embedded)
  } catch (error) {
    await embedded.stop()
    throw error
  }
}

try {
  if (process.argv[2] === 'migrate') {
    const databaseUrl = readDatabaseUrl(process.env)
    await withDatabase(databaseUrl, (embedded) => migrateAndEnd(databaseUrl, embedded))
  } else {
    const config = readConfig(process.env)
    await withDatabase(config.databaseUrl, (embedded) => serve(config, embedded))
  }
} catch (error) {
  const told =
    error instanceof ConfigurationError ? error.message : error instanceof Error ? error.stack : String(error)
  process.stderr.write(`${told}\n`)
  process.exit(1)
}

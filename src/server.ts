import { pino } from 'pino'
import { createAdmin } from './admin.ts'
import { createApp } from './app.ts'
import type { Config } from './config.ts'
import type { EmbeddedPostgres } from './embedded-postgres.ts'
import { UnavailableError } from './errors.ts'
import { createIssuers } from './issuers.ts'
import { createCarryOut, type LogoutOutcome } from './logout-request.ts'
import { createLogoutTokenVerifier } from './logout-token.ts'
import { createMetrics } from './metrics.ts'
import { migrateAt } from './migrate.ts'
import { createOperatorCheck } from './operators.ts'
import { createPurges } from './purges.ts'
import { createRejections } from './rejections.ts'
import { startReplay } from './replay.ts'
import { createSignOut } from './sign-out.ts'
import { createSpool } from './spool.ts'
import { createPool, createStore, type Purged } from './store.ts'

const chores = { everyMs: 10_000, cleanUpRows: 1_000 }
const stopWithinMs = 10_000

/** The whole service; it ends with the process, by SIGTERM or SIGINT. */
export async function serve(config: Config, embedded: EmbeddedPostgres | undefined): Promise<void> {
  // What could not be parsed of a request, logged by Fastify at the level `trace`: tokens and credentials.
  const logger = pino({ level: config.logLevel, redact: { paths: ['err.rawPacket'], remove: true } })
  if (embedded !== undefined) {
    logger.warn(
      { dataDir: embedded.dataDir },
      'DATABASE_URL is not set: using an embedded PostgreSQL, for trying out only'
    )
  }

  const connectionString = config.databaseUrl ?? embedded?.url
  const openPool = (max: number, statementTimeoutMs: number) => {
    const pool = createPool({ connectionString, max, statementTimeoutMs })
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
  const admin = createAdmin({
    purges,
    // Ready is what logouts find, and a probe must not wait as long as a purge may.
    store: { ...slowStore, checkReady: store.checkReady },
    spool,
    issuers,
    rejections,
    metrics,
    logger,
    identify
  })

  issuers.warmUp()
  operatorIssuers.warmUp()
  await admin.listen({ host: config.adminHost, port: config.adminPort })
  await app.listen({ host: config.host, port: config.port })

  let choreTimer: NodeJS.Timeout | undefined
  let stopping = false
  async function tried(chore: () => Promise<void>): Promise<void> {
    try {
      await chore()
    } catch (error) {
      logger.warn({ code: error instanceof UnavailableError ? error.code : String(error) }, 'chores put off')
    }
  }
  async function doChores(): Promise<void> {
    await tried(purges.resume)
    await tried(async () => {
      while (!stopping && ((await slowStore.cleanUp(chores.cleanUpRows)) ?? 0) > 0) {
        // a small step each, until nothing is left
      }
    })
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

import { resolve } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import type { Config } from './config.ts'
import { withoutCredentials } from './database-url.ts'
import type { EmbeddedPostgres } from './embedded-postgres.ts'
import { createLogger } from './logger.ts'
import { migrateAt } from './migrate.ts'
import { createService, type Service } from './service.ts'
import { version } from './version.ts'

const stopWithinMs = 10_000
const maxNamed = 50

/** The service as a process; SIGTERM or SIGINT ends it. */
export async function serve(config: Config, embedded: EmbeddedPostgres | undefined): Promise<void> {
  const logger = createLogger(config.logLevel)
  if (embedded !== undefined) {
    logger.warn(
      { dataDir: embedded.dataDir },
      'DATABASE_URL is not set: using an embedded PostgreSQL, for trying out only'
    )
  }
  if (config.ignored.length > 0) {
    logger.warn({ ignored: config.ignored }, 'set and ignored')
  }
  const connectionString = config.databaseUrl ?? embedded?.url
  const migrations = await migrateAt(connectionString)
  if (migrations.length > 0) {
    logger.info({ migrations }, 'migrated')
  }

  const service = createService(config, { logger, connectionString })
  service.metrics.watchProcess()
  await service.admin.listen({ host: config.adminHost, port: config.adminPort })
  await service.app.listen({ host: config.host, port: config.port })
  service.start()

  let isStopping = false
  async function stop(signal: string): Promise<void> {
    if (isStopping) {
      process.exit(1)
    }
    isStopping = true
    logger.info({ signal }, 'stopping')
    service.drain()
    await delay(config.drainSeconds * 1_000)
    setTimeout(() => process.exit(1), stopWithinMs).unref()
    await service.stop()
    await embedded?.stop()
    process.exit(0)
  }
  process.on('SIGTERM', stop)
  process.on('SIGINT', stop)
  logger.info(await describe(service, config, connectionString ?? ''), 'started')
}

/** What runs here, in one line, without credentials. */
async function describe({ stores, issuers, sources }: Service, config: Config, databaseUrl: string) {
  const trusted = issuers.status()
  return {
    version: version(),
    node: process.version,
    // The database may be gone since: no reason not to serve.
    schema: await stores.slow.schemaVersion().catch(() => 'unknown'),
    issuers: Object.fromEntries(trusted.slice(0, maxNamed).map(({ name, issuer }) => [name, issuer])),
    ...(trusted.length > maxNamed && { moreIssuers: trusted.length - maxNamed }),
    sources,
    database: withoutCredentials(databaseUrl),
    spool: resolve(config.spoolDir)
  }
}

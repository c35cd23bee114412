import { resolve } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import type { FastifyBaseLogger } from 'fastify'
import type { Config } from './config.ts'
import { withoutCredentials } from './database-url.ts'
import type { EmbeddedPostgres } from './embedded-postgres.ts'
import { ConfigurationError, UnavailableError } from './errors.ts'
import { createLogger } from './logger.ts'
import { migrateAt } from './migrate.ts'
import { causeOf } from './outcome-log.ts'
import { createService, type Service } from './service.ts'
import { version } from './version.ts'

const stopWithinMs = 10_000
const maxNamed = 50

/**
 * The service as a process. SIGTERM or SIGINT ends it; SIGHUP has it read issuers and secrets again.
 *
 * @param config what it starts with
 * @param readAgain reads the configuration anew; throws {@link ConfigurationError}
 * @param embedded the database of its own, if there is one; it ends with the process
 */
export async function serve(
  config: Config,
  readAgain: () => Config,
  embedded: EmbeddedPostgres | undefined
): Promise<void> {
  const logger = createLogger(config.logLevel)
  // Before anything takes time: by default the signal kills.
  const reloading = createReloading(logger, readAgain)
  process.on('SIGHUP', reloading.ask)
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
    reloading.end()
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
  reloading.begin(service)
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

/** Reads the configuration again when it is asked to, once at a time, and never ends the process. */
function createReloading(logger: FastifyBaseLogger, readAgain: () => Config) {
  let service: Service | undefined
  let isAsked = false
  let isBusy = false
  let isOver = false

  async function reload(running: Service): Promise<void> {
    isBusy = true
    while (isAsked && !isOver) {
      isAsked = false
      try {
        logger.info(await running.reload(readAgain()), 'configuration read again')
      } catch (error) {
        logger.error(reasonOf(error), 'configuration not read again: all stays as it was')
      }
    }
    isBusy = false
  }

  function ask(): void {
    if (isOver) {
      logger.info('configuration not read again: the service is stopping')
      return
    }
    isAsked = true
    if (service !== undefined && !isBusy) {
      void reload(service)
    }
  }

  return {
    ask,
    /** From now on; what was asked for before is done at once. */
    begin(running: Service): void {
      service = running
      if (isAsked) {
        void reload(running)
      }
    },
    end(): void {
      isOver = true
    }
  }
}

function reasonOf(error: unknown): object {
  if (error instanceof ConfigurationError) {
    return { code: error.code, problems: error.problems }
  }
  return error instanceof UnavailableError ? { code: error.code, cause: causeOf(error.cause) } : { err: error }
}

import { setTimeout as delay } from 'node:timers/promises'
import type { FastifyBaseLogger } from 'fastify'
import type { Config } from './config.ts'
import type { EmbeddedPostgres } from './embedded-postgres.ts'
import { createLogger } from './logger.ts'
import { migrateAt } from './migrate.ts'
import { reasonOf } from './outcome-log.ts'
import { DeclinedError, type Running, startProcesses } from './processes.ts'

const stopWithinMs = 10_000

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

  const starting = (config.workers === 1 ? startHere : startProcesses)(config, { logger, connectionString })
  let isStopping = false
  async function stop(signal: string): Promise<void> {
    if (isStopping) {
      process.exit(1)
    }
    isStopping = true
    reloading.end()
    logger.info({ signal }, 'stopping')
    const running = await starting
    running.drain()
    await delay(config.drainSeconds * 1_000)
    setTimeout(() => process.exit(1), stopWithinMs).unref()
    await running.stop()
    await embedded?.stop()
    process.exit(0)
  }
  // Before it is asked for anything more: as soon as it listens, somebody may send.
  for (const signal of ['SIGTERM', 'SIGINT']) {
    process.on(signal, () => stop(signal).catch(() => process.exit(1))) // it could not even start
  }
  const running = await starting
  process.once('exit', running.endAtOnce)
  logger.info({ node: process.version, ...(await running.describe()) }, 'started')
  reloading.begin(running)
}

/** The usual way: this process does all. */
async function startHere(
  config: Config,
  options: { readonly logger: FastifyBaseLogger; readonly connectionString: string | undefined }
): Promise<Running> {
  // Loaded here: the first of several processes has no use for it.
  const { createService, describeService } = await import('./service.ts')
  const service = createService(config, options)
  service.metrics.watchProcess()
  await service.admin.listen({ host: config.adminHost, port: config.adminPort })
  await service.app.listen({ host: config.host, port: config.port })
  service.start()
  const describe = () => describeService(service, config, options.connectionString ?? '')
  return { ...service, describe, endAtOnce: () => {} }
}

/** Reads the configuration again when it is asked to, once at a time, and never ends the process. */
function createReloading(logger: FastifyBaseLogger, readAgain: () => Config) {
  let service: Running | undefined
  let isAsked = false
  let isBusy = false
  let isOver = false

  async function reload(running: Running): Promise<void> {
    isBusy = true
    while (isAsked && !isOver) {
      isAsked = false
      try {
        logger.info(await running.reload(readAgain()), 'configuration read again')
      } catch (error) {
        logger.error(
          error instanceof DeclinedError ? error.reason : reasonOf(error),
          'configuration not read again: all stays as it was'
        )
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
    begin(running: Running): void {
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

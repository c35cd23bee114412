import { setTimeout as delay } from 'node:timers/promises'
import { pino } from 'pino'
import type { Config } from './config.ts'
import type { EmbeddedPostgres } from './embedded-postgres.ts'
import { migrateAt } from './migrate.ts'
import { createService } from './service.ts'

const stopWithinMs = 10_000

/** The service as a process; SIGTERM or SIGINT ends it. */
export async function serve(config: Config, embedded: EmbeddedPostgres | undefined): Promise<void> {
  // What could not be parsed of a request, logged by Fastify at the level `trace`: tokens and credentials.
  const logger = pino({ level: config.logLevel, redact: { paths: ['err.rawPacket'], remove: true } })
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
}

// The same service, verifying only: everything but the sign-out in the database, down to the log line.
import { pino } from 'pino'
import { readConfig } from '../../src/config.ts'
import { createService } from '../../src/service.ts'
import type { CommitOrders } from '../../src/sign-out.ts'

// No session: else the apps would be notified, by the database.
const commit: CommitOrders = async (orders) =>
  orders.map(({ id }) => ({ id, outcome: 'done', matched: [], accounts: 1, sessions: 0, rows: 3, byClient: {} }))

const config = readConfig(process.env)
const logger = pino({ level: config.logLevel, redact: { paths: ['err.rawPacket'], remove: true } })
const service = createService(config, { logger, connectionString: config.databaseUrl, commit })
service.metrics.watchProcess()
await service.app.listen({ host: config.host, port: config.port })
service.start()
process.on('SIGTERM', () => process.exit(0))

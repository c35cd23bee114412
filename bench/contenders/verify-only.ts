// The same server, verifying only: everything but the sign-out itself, down to the log line. As `server.ts` wires it.
import { pino } from 'pino'
import { createApp } from '../../src/app.ts'
import { readConfig } from '../../src/config.ts'
import { createIssuers } from '../../src/issuers.ts'
import { createCarryOut } from '../../src/logout-request.ts'
import { createLogoutTokenVerifier } from '../../src/logout-token.ts'
import { createMetrics } from '../../src/metrics.ts'
import { createRejections } from '../../src/rejections.ts'
import { createSpool } from '../../src/spool.ts'

const config = readConfig(process.env)
const logger = pino({ level: config.logLevel, redact: { paths: ['err.rawPacket'], remove: true } })
const issuers = createIssuers(config.issuers)
const carryOut = createCarryOut({
  issuers,
  verify: createLogoutTokenVerifier(issuers),
  signOut: async ({ id }) => ({
    id,
    replayed: false,
    accounts: 1,
    sessions: 3,
    rows: 3,
    byClient: {}
  }),
  store: { issuersOfSid: async () => [] }
})
const spool = createSpool({ dir: config.spoolDir, logger })
const metrics = createMetrics({ issuers, spool, pools: {} })
metrics.watchProcess()
const rejections = createRejections()
const app = createApp({
  issuers,
  carryOut,
  spool,
  logger,
  onEnded(outcome) {
    metrics.ended(outcome)
    rejections.add(outcome)
  }
})
issuers.warmUp()
await app.listen({ host: config.host, port: config.port })
process.on('SIGTERM', () => process.exit(0))

import { type DestinationStream, type Logger, pino, stdTimeFunctions } from 'pino'

/**
 * Makes the log: one JSON object a line, with the time in ISO 8601 (UTC) and the level by its name.
 *
 * @param level the least level that is written, as `LOG_LEVEL` has it
 * @param destination takes the lines; default standard output
 */
export function createLogger(level: string, destination?: DestinationStream): Logger {
  const options = {
    level,
    timestamp: stdTimeFunctions.isoTime,
    formatters: { level: (label: string) => ({ level: label }) },
    // What could not be parsed of a request, logged by Fastify at the level `trace`: tokens and credentials.
    redact: { paths: ['err.rawPacket'], remove: true }
  }
  return destination === undefined ? pino(options) : pino(options, destination)
}

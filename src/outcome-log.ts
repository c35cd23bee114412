import type { FastifyBaseLogger } from 'fastify'
import type { CarriedOut, Outcome } from './receive.ts'
import type { Lines } from './senders.ts'

export interface OutcomeLogOptions {
  readonly logger: FastifyBaseLogger
  /** For what hostile senders can provoke: so many lines a minute. */
  readonly lines: Lines
}

/** Makes the function that logs what became of a signal, one line each. */
export function createOutcomeLog({ logger, lines }: OutcomeLogOptions) {
  return (outcome: Outcome): void => {
    const { source, issuer, sender, isRetry } = outcome
    const about = { source, issuer, ...(isRetry && { isRetry }) }
    switch (outcome.outcome) {
      case 'done':
      case 'unmatched':
      case 'duplicate':
        for (const result of outcome.results) {
          logResult(result, about)
        }
        return
      case 'rejected':
        // What is beyond the limit of its sender is counted there.
        if (outcome.retryAfterSeconds === 0) {
          lines.warn({ ...about, code: outcome.error.code, address: sender, ...outcome.error.details }, 'rejected')
        }
        return
      case 'deferred':
      case 'lost': {
        const { code, cause } = outcome.error
        const level = outcome.outcome === 'lost' ? 'error' : 'warn' // what is deferred is done without anybody
        lines[level]({ ...about, code, cause: causeOf(cause), address: sender }, outcome.outcome)
        return
      }
      case 'failed':
        logger.error({ ...about, err: outcome.error }, 'failed')
    }
  }

  function logResult({ id, outcome, order, accounts, sessions, rows }: CarriedOut, about: object): void {
    // Anybody can make a sid up at the front channel.
    const level = outcome === 'unmatched' && !order.isSigned ? 'debug' : 'info'
    logger[level]({ ...about, record: id, clientId: order.clientId, outcome, accounts, sessions, rows }, 'signed out')
  }
}

/** The message of a database's error can hold values; its code cannot. */
export function causeOf(cause: unknown): string | undefined {
  if (!(cause instanceof Error)) {
    return undefined
  }
  return 'code' in cause ? String(cause.code) : cause.message
}

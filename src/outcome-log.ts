import type { FastifyBaseLogger } from 'fastify'
import { ConfigurationError, UnavailableError } from './errors.ts'
import { printable } from './printable.ts'
import type { CarriedOut, Outcome } from './receive.ts'
import type { Lines } from './senders.ts'
import type { Order } from './sign-out.ts'

export interface OutcomeLogOptions {
  readonly logger: FastifyBaseLogger
  /** For what hostile senders can provoke, and for what repeats: so many lines a minute. */
  readonly lines: Lines
}

/** Makes the function that logs what became of a signal, one line each. */
export function createOutcomeLog({ logger, lines }: OutcomeLogOptions) {
  return (outcome: Outcome): void => {
    const { source, issuer, sender, isRetry, tookMs: ms } = outcome
    const about = { source, issuer, ...(isRetry && { isRetry }) }
    switch (outcome.outcome) {
      case 'done':
      case 'unmatched':
      case 'duplicate':
        for (const result of outcome.results) {
          logResult(result, { ...about, ms }, sender)
        }
        return
      case 'ignored':
        logger.info({ ...about, reason: outcome.reason, ms }, 'ignored')
        return
      case 'rejected':
        // What is beyond the limit of its sender is counted there.
        if (outcome.retryAfterSeconds === 0) {
          const { code, details, accepted, hint } = outcome.error
          lines.warn({ ...about, code, address: sender, ...details, accepted, hint, ms }, 'rejected')
        }
        return
      case 'deferred':
      case 'lost': {
        const { code, cause } = outcome.error
        const [order] = outcome.orders // the line of its retry names the same record
        const level = outcome.outcome === 'lost' ? 'error' : 'warn' // what is deferred is done without anybody
        lines[level](
          { ...about, record: order?.id, clientId: order?.clientId, code, cause: causeOf(cause), address: sender, ms },
          outcome.outcome
        )
        return
      }
      case 'failed':
        logger.error({ ...about, err: outcome.error, ms }, 'failed')
    }
  }

  function logResult(
    { id, outcome, order, accounts, sessions, rows }: CarriedOut,
    about: object,
    sender: string | undefined
  ): void {
    // An unsigned call that ended nothing leaves no record.
    const record = outcome === 'unmatched' && !order.recordUnmatched ? undefined : id
    const fields = {
      ...about,
      record,
      clientId: order.clientId,
      ...(order.actor !== undefined && ordered(order)),
      outcome,
      accounts,
      sessions,
      rows
    }
    if (outcome !== 'unmatched' || order.actor !== undefined) {
      logger.info(fields, 'signed out')
      return
    }
    // A set-up that matches nothing would fill the disk, and anybody can make a sid up at the front channel.
    lines.info(sender === undefined ? fields : { ...fields, address: sender }, 'signed out')
  }
}

/** Who ordered a purge of whom, and why. */
function ordered({ actor, reason, selector }: Order) {
  return { actor, reason: printable(reason), selector }
}

/** The message of a database's error can hold values; its code cannot. */
export function causeOf(cause: unknown): string | undefined {
  if (!(cause instanceof Error)) {
    return undefined
  }
  return 'code' in cause ? String(cause.code) : cause.message
}

/** Why something was not done, in a line of the log. */
export function reasonOf(error: unknown): object {
  if (error instanceof ConfigurationError) {
    return { code: error.code, problems: error.problems }
  }
  return error instanceof UnavailableError ? { code: error.code, cause: causeOf(error.cause) } : { err: error }
}

import { pino } from 'pino'
import t from 'tap'
import { RejectedError, UnavailableError } from '../src/errors.ts'
import { createOutcomeLog } from '../src/outcome-log.ts'
import type { CarriedOut, Outcome } from '../src/receive.ts'
import { createSenders } from '../src/senders.ts'
import { makeOrder } from './fixtures/orders.ts'

interface Line {
  readonly level: number
  readonly msg: string
  readonly [name: string]: unknown
}

/** What is logged of an outcome. */
function linesOf(outcome: Partial<Outcome>): Line[] {
  const lines: Line[] = []
  const logger = pino({ level: 'debug' }, { write: (line: string) => lines.push(JSON.parse(line)) })
  const log = createOutcomeLog({ logger, lines: createSenders({ logger }).lines })
  log({ source: 'backchannel', issuer: 'main', sender: '192.0.2.1', isRetry: false, ...outcome } as Outcome)
  return lines
}

function carriedOut(result: Partial<CarriedOut>, isSigned = true): CarriedOut {
  const order = makeOrder({ kind: 'session', issuer: 'https://op.example', sid: 'a-secret-sid' }, { isSigned })
  return {
    id: order.id,
    outcome: 'done',
    matched: [],
    accounts: 1,
    sessions: 1,
    rows: 2,
    byClient: {},
    order,
    ...result
  }
}

const levels = { debug: 20, info: 30, warn: 40, error: 50 }

t.test('a sign-out is one line, also if nothing matched, and bears no sid', async (t) => {
  for (const outcome of ['done', 'unmatched', 'duplicate'] as const) {
    const lines = linesOf({ outcome, results: [carriedOut({ outcome })] })
    t.match(lines, [{ level: levels.info, msg: 'signed out', source: 'backchannel', issuer: 'main', outcome, rows: 2 }])
    t.equal(lines.length, 1)
    t.notMatch(JSON.stringify(lines), /a-secret-sid/)
  }
})

t.test('an unsigned call that ended nothing is no line for the operator', async (t) => {
  const lines = linesOf({ outcome: 'unmatched', results: [carriedOut({ outcome: 'unmatched' }, false)] })
  t.match(lines, [{ level: levels.debug }])
})

t.test('a rejected signal is a warning with its code and the offending values', async (t) => {
  const error = new RejectedError('ERR_TOKEN_ISSUER', { details: { iss: 'https://evil.example' } })
  const lines = linesOf({ outcome: 'rejected', error, retryAfterSeconds: 0 })
  t.match(lines, [{ level: levels.warn, msg: 'rejected', code: 'ERR_TOKEN_ISSUER', iss: 'https://evil.example' }])
  t.same(linesOf({ outcome: 'rejected', error, retryAfterSeconds: 1 }), [], 'beyond the limit it is counted there')
})

t.test('of a database’s error its code alone is logged', async (t) => {
  const cause = Object.assign(new Error('duplicate key value (sid)=(a-secret-sid)'), { code: '23505' })
  const error = new UnavailableError('ERR_DATABASE_FAILED', { cause })
  for (const outcome of ['deferred', 'lost'] as const) {
    const lines = linesOf({ outcome, error })
    const level = outcome === 'lost' ? levels.error : levels.warn
    t.match(lines, [{ level, msg: outcome, code: 'ERR_DATABASE_FAILED', cause: '23505' }])
    t.notMatch(JSON.stringify(lines), /a-secret-sid/)
  }
})

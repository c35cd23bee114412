import t from 'tap'
import { RejectedError, UnavailableError } from '../src/errors.ts'
import { createLogger } from '../src/logger.ts'
import { createOutcomeLog } from '../src/outcome-log.ts'
import type { CarriedOut, Outcome } from '../src/receive.ts'
import { createSenders } from '../src/senders.ts'
import type { Order } from '../src/sign-out.ts'
import { makeOrder } from './fixtures/orders.ts'

interface Line {
  readonly level: string
  readonly time: string
  readonly msg: string
  readonly [name: string]: unknown
}

/** What is logged of an outcome. */
function linesOf(outcome: Partial<Outcome>): Line[] {
  const lines: Line[] = []
  const logger = createLogger('debug', { write: (line: string) => lines.push(JSON.parse(line)) })
  const log = createOutcomeLog({ logger, lines: createSenders({ logger }).lines })
  log({ source: 'backchannel', issuer: 'main', sender: '192.0.2.1', isRetry: false, tookMs: 12, ...outcome } as Outcome)
  return lines
}

const id = '11111111-1111-4111-8111-111111111111'

function carriedOut(result: Partial<CarriedOut>, policy: Partial<Order> = {}): CarriedOut {
  const order = makeOrder(
    { kind: 'session', issuer: 'https://op.example', sid: 'a-secret-sid' },
    { id, clientId: 'client-a', recordUnmatched: true, ...policy }
  )
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

t.test('a sign-out is one line, also if nothing matched, and bears no sid', async (t) => {
  for (const outcome of ['done', 'unmatched', 'duplicate'] as const) {
    const lines = linesOf({ outcome, results: [carriedOut({ outcome })] })
    t.match(lines, [
      {
        level: 'info',
        time: /^\d{4}-\d\d-\d\dT[\d:.]+Z$/,
        msg: 'signed out',
        source: 'backchannel',
        issuer: 'main',
        ms: 12
      }
    ])
    t.match(lines, [{ outcome, record: '11111111-1111-4111-8111-111111111111', clientId: 'client-a', rows: 2 }])
    t.equal(lines.length, 1)
    t.notMatch(JSON.stringify(lines), /a-secret-sid/)
  }
})

t.test('what ended nothing is a line like any other, but of those that are limited', async (t) => {
  const made: unknown[] = []
  const logger = createLogger('debug', { write: (line: string) => made.push(JSON.parse(line)) })
  const { lines } = createSenders({ logger, maxLinesPerMinute: 10 })
  const log = createOutcomeLog({ logger, lines })
  const about = { source: 'backchannel', issuer: 'main', sender: '192.0.2.1', isRetry: false, tookMs: 1 } as const
  for (let times = 0; times < 100; times += 1) {
    log({ ...about, outcome: 'unmatched', results: [carriedOut({ outcome: 'unmatched' })] })
  }
  t.equal(made.length, 3, 'of one sender as many as it leaves to the others')
  log({ ...about, outcome: 'done', results: [carriedOut({})] })
  t.equal(made.length, 4, 'and what ended something is always logged')
  const order = makeOrder({ kind: 'account', homeAccountId: 'u.t' }, { actor: 'admin-token', reason: 'x' })
  log({ ...about, sender: undefined, outcome: 'unmatched', results: [carriedOut({ outcome: 'unmatched', order })] })
  t.equal(made.length, 5, 'as is what an operator ordered')
})

t.test('an unsigned call that ended nothing names no record, since it leaves none', async (t) => {
  const results = [carriedOut({ outcome: 'unmatched' }, { isSigned: false, recordUnmatched: false })]
  t.same(
    linesOf({ outcome: 'unmatched', results }).map(({ record }) => record),
    [undefined]
  )
})

t.test("an operator's purge bears the operator, the reason and the selector", async (t) => {
  const selector = { kind: 'account', homeAccountId: 'u.t' } as const
  const order = makeOrder(selector, { source: 'operator', actor: 'admin-token', reason: 'laptop\u0007 stolen' })
  const lines = linesOf({ source: 'operator', issuer: undefined, outcome: 'done', results: [carriedOut({ order })] })
  t.match(lines, [{ msg: 'signed out', actor: 'admin-token', reason: 'laptop\\u{7} stolen', selector }])
})

t.test('what is deferred says so, of which issuer and record, and its retry says that it is one', async (t) => {
  const { order } = carriedOut({})
  const error = new UnavailableError('ERR_DATABASE_UNAVAILABLE')
  t.match(linesOf({ outcome: 'deferred', error, orders: [order] }), [
    { level: 'warn', msg: 'deferred', issuer: 'main', record: order.id, code: 'ERR_DATABASE_UNAVAILABLE', ms: 12 }
  ])
  t.match(linesOf({ outcome: 'done', isRetry: true, tookMs: 90_000, results: [carriedOut({})] }), [
    { level: 'info', msg: 'signed out', issuer: 'main', record: order.id, isRetry: true, ms: 90_000 }
  ])
})

t.test('a rejected signal is a warning with its code and the offending values', async (t) => {
  const error = new RejectedError('ERR_TOKEN_ISSUER', { details: { iss: 'https://evil.example' } })
  const lines = linesOf({ outcome: 'rejected', error, retryAfterSeconds: 0 })
  t.match(lines, [{ level: 'warn', msg: 'rejected', code: 'ERR_TOKEN_ISSUER', iss: 'https://evil.example' }])
  t.same(linesOf({ outcome: 'rejected', error, retryAfterSeconds: 1 }), [], 'beyond the limit it is counted there')
})

t.test('of a database’s error its code alone is logged', async (t) => {
  const cause = Object.assign(new Error('duplicate key value (sid)=(a-secret-sid)'), { code: '23505' })
  const error = new UnavailableError('ERR_DATABASE_FAILED', { cause })
  for (const outcome of ['deferred', 'lost'] as const) {
    const lines = linesOf({ outcome, error, orders: [] })
    const level = outcome === 'lost' ? 'error' : 'warn'
    t.match(lines, [{ level, msg: outcome, code: 'ERR_DATABASE_FAILED', cause: '23505' }])
    t.notMatch(JSON.stringify(lines), /a-secret-sid/)
  }
})

import t from 'tap'
import { RejectedError, UnavailableError } from '../src/errors.ts'
import { createForwarding, readForwarded } from '../src/outcome-transfer.ts'
import type { Outcome } from '../src/receive.ts'
import { makeOrder } from './fixtures/orders.ts'
import { until } from './fixtures/until.ts'

const common = { source: 'backchannel', issuer: 'main', sender: '192.0.2.1', isRetry: false, tookMs: 3 }
const order = makeOrder({ kind: 'session', issuer: 'https://op.example', sid: 's' })
const result = {
  id: 'r',
  outcome: 'done',
  matched: [],
  accounts: 1,
  sessions: 1,
  rows: 1,
  byClient: {},
  order
} as const
const rejected = new RejectedError('ERR_TOKEN_AUDIENCE', {
  issuer: 'main',
  details: { aud: 'x' },
  accepted: 'a',
  hint: 'h'
})

const outcomes: Record<string, Outcome> = {
  done: { ...common, outcome: 'done', results: [result] },
  ignored: { ...common, outcome: 'ignored', reason: 'why' },
  rejected: { ...common, outcome: 'rejected', error: rejected, retryAfterSeconds: 2 },
  deferred: { ...common, outcome: 'deferred', error: new UnavailableError('ERR_DEADLINE'), orders: [order] },
  lost: { ...common, outcome: 'lost', error: new UnavailableError('ERR_DATABASE_LOCKED'), orders: [] }
}

t.test('operators see of a signal at a worker what they would see of one here', async (t) => {
  const sent: string[] = []
  const forward = createForwarding((text) => sent.push(text) > 0)
  for (const outcome of Object.values(outcomes)) {
    forward(outcome)
  }
  forward({ ...common, outcome: 'failed', error: new Error('secret') })
  await until('they are sent', () => sent.length > 0)
  t.equal(sent.length, 1, 'together')
  t.notMatch(sent[0] ?? '', 'secret')
  const read = readForwarded(sent[0] ?? '')
  for (const [i, [name, outcome]] of Object.entries(outcomes).entries()) {
    t.match(read[i], JSON.parse(JSON.stringify({ ...outcome, error: undefined })), name)
    if ('error' in outcome && 'error' in (read[i] ?? {})) {
      const { error } = read[i] as { error: unknown }
      t.match(error, { ...(outcome.error as Error), message: (outcome.error as Error).message }, name)
      t.ok(error instanceof (outcome.error as Error).constructor)
    }
  }
  t.equal(read.length, 6)
})

t.test('what nobody takes fills no memory', async (t) => {
  const sent: string[] = []
  const forward = createForwarding((text) => sent.push(text) < 0)
  for (let i = 0; i < 10_500; i++) {
    forward({ ...common, outcome: 'ignored', reason: 'x' })
  }
  await until('they are sent', () => sent.length > 0)
  t.equal(readForwarded(sent[0] ?? '').length, 10_000)
})

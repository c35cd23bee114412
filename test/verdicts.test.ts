import t from 'tap'
import type { Census, SessionCount } from '../src/census.ts'
import { RejectedError, UnavailableError } from '../src/errors.ts'
import { createOutcomeCounts } from '../src/outcome-counts.ts'
import type { Outcome } from '../src/receive.ts'
import type { Selector } from '../src/sign-out.ts'
import { judge } from '../src/verdicts.ts'
import { makeOrder } from './fixtures/orders.ts'

const bySid: Selector = { kind: 'session', issuer: 'https://op.example', sid: 's1' }

function outcomeOf(outcome: string, more: object = {}, selector = bySid): Outcome {
  const order = makeOrder(selector)
  const results = [{ id: order.id, outcome, matched: [], accounts: 0, sessions: 0, rows: 0, byClient: {}, order }]
  const common = { source: 'backchannel', issuer: 'contoso', sender: undefined, isRetry: false, tookMs: 1 }
  return { ...common, outcome, results, retryAfterSeconds: 0, orders: [], ...more } as unknown as Outcome
}

const session = (more: Partial<SessionCount> = {}): SessionCount => ({
  issuer: 'https://op.example',
  issuerName: 'contoso',
  clientId: 'client-a',
  sessions: 10,
  withoutSid: 0,
  ...more
})

function verdictsOf(outcomes: readonly Outcome[], counts: readonly SessionCount[] | undefined, isEstimate = false) {
  const counted = createOutcomeCounts({ now: () => 1e12 })
  for (const outcome of outcomes) {
    counted.add(outcome)
  }
  const census: Census | undefined = counts && { isEstimate, counts }
  return judge({ names: ['contoso'], counts: counted.byIssuer(60), minutes: 60, census })
}

const times = (count: number, outcome: Outcome) => Array.from({ length: count }, () => outcome)
const rejected = (code: 'ERR_TOKEN_AUDIENCE' | 'ERR_TOKEN_ISSUER', issuer?: string) =>
  outcomeOf('rejected', { error: new RejectedError(code), issuer })

const cases: [string, Outcome[], SessionCount[] | undefined, object[]][] = [
  ['nothing came', [], [], [{ state: 'quiet', code: 'quiet', message: 'nothing came of contoso in the last hour' }]],
  [
    'it works, though some end nothing',
    [...times(150, outcomeOf('done')), ...times(62, outcomeOf('unmatched'))],
    [session()],
    [
      {
        state: 'works',
        message: '150 of 212 sign-outs of contoso in the last hour ended something',
        advice: null
      }
    ]
  ],
  [
    'no session bears a sid',
    times(212, outcomeOf('unmatched')),
    [session({ sessions: 2_000, withoutSid: 2_000 }), session({ clientId: 'b', withoutSid: 10 })],
    [
      {
        state: 'fails',
        code: 'matches_nothing',
        message:
          '212 of 212 sign-outs of contoso in the last hour ended nothing: its sessions bear no sid (2,010 of 2,010 stored, by client-a, b)',
        advice: /optional claim "sid"/
      }
    ]
  ],
  [
    'sessions without a sid, and tokens that name the subject too',
    times(2, outcomeOf('unmatched', {}, { ...bySid, subject: 'u' })),
    [session({ withoutSid: 10 })],
    [{ code: 'matches_nothing', message: /: 10 sessions of it are stored, and none was of these$/ }]
  ],
  [
    'sessions of another issuer',
    times(3, outcomeOf('unmatched')),
    [session({ issuer: 'http://op.internal', issuerName: undefined as never })],
    [{ code: 'matches_nothing', message: /but 10 sessions of "http:\/\/op.internal", which is not configured$/ }]
  ],
  [
    'no session at all',
    times(1, outcomeOf('unmatched')),
    [],
    [{ message: '1 of 1 sign-out of contoso in the last hour ended nothing: no app has stored a session of it' }]
  ],
  [
    'no database',
    times(1, outcomeOf('unmatched')),
    undefined,
    [{ code: 'matches_nothing', message: /does not answer now/ }]
  ],
  [
    'all were rejected',
    [
      rejected('ERR_TOKEN_AUDIENCE', 'contoso'),
      outcomeOf('rejected', { ...rejected('ERR_TOKEN_AUDIENCE', 'contoso'), retryAfterSeconds: 5 })
    ],
    [],
    [{ state: 'fails', code: 'rejected', message: /was rejected, 2 in all, most by ERR_TOKEN_AUDIENCE$/ }]
  ],
  [
    'all were deferred',
    [outcomeOf('deferred', { error: new UnavailableError('ERR_KEYS_UNAVAILABLE') })],
    [],
    [{ state: 'fails', code: 'deferred', message: /^1 signal of contoso in the last hour was deferred/ }]
  ],
  [
    'one was lost among many that were done',
    [...times(5, outcomeOf('done')), outcomeOf('lost', { error: new UnavailableError('ERR_DEADLINE') })],
    [],
    [{ state: 'fails', code: 'lost' }]
  ],
  [
    'another issuer, and nothing else',
    times(2, rejected('ERR_TOKEN_ISSUER')),
    [],
    [
      { state: 'fails', code: 'foreign_issuer', issuer: null, message: /^2 signals in the last hour named an issuer/ },
      { code: 'quiet' }
    ]
  ],
  [
    'no issuer at all',
    times(2, outcomeOf('rejected', { error: new RejectedError('ERR_REQUEST_FORM'), issuer: undefined })),
    [],
    [
      {
        state: 'fails',
        code: 'rejected',
        issuer: null,
        message: /named no issuer and were rejected, most by ERR_REQUEST_FORM$/
      },
      { code: 'quiet' }
    ]
  ],
  [
    'another issuer, where the own works',
    [rejected('ERR_TOKEN_ISSUER'), outcomeOf('done')],
    [],
    [{ code: 'works' }, { state: 'quiet', code: 'foreign_issuer' }]
  ],
  [
    'what operators and directories order, the provider has not sent',
    [outcomeOf('unmatched', { source: 'operator', issuer: undefined }), outcomeOf('done', { source: 'directory' })],
    [],
    [{ code: 'quiet' }]
  ],
  [
    'security events are about everybody, here or not',
    [outcomeOf('unmatched', { source: 'security-event' }), outcomeOf('done', { source: 'security-event' })],
    [],
    [{ code: 'quiet' }]
  ]
]
for (const [name, outcomes, counts, expected] of cases) {
  t.test(name, async (t) => {
    const verdicts = verdictsOf(outcomes, counts)
    t.match(verdicts, expected)
    t.equal(verdicts.length, expected.length)
  })
}

t.test('what is estimated says so', async (t) => {
  const [verdict] = verdictsOf(times(1, outcomeOf('unmatched')), [session({ withoutSid: 10 })], true)
  t.match(verdict, { message: /\(about 10 of 10 stored, by client-a\)/ })
})

t.test('outcomes are counted by minute, and forgotten after a day', async (t) => {
  let at = 600_000_000_000
  const counted = createOutcomeCounts({ now: () => at })
  counted.add(outcomeOf('done'))
  at += 60_000
  counted.add(outcomeOf('unmatched'))
  counted.add(rejected('ERR_TOKEN_ISSUER'))
  t.match(
    [...counted.perMinute(60)],
    [
      [600_000_000_000, { done: 1, unmatched: 0, rejected: 0 }],
      [600_000_060_000, { done: 0, unmatched: 1, rejected: 1 }]
    ]
  )
  t.same([...counted.perMinute(1).keys()], [600_000_060_000])
  t.equal(counted.byIssuer(60).get('contoso')?.unmatchedBySidAlone, 1)
  t.same(counted.byIssuer(60).get('')?.codes, new Map([['ERR_TOKEN_ISSUER', 1]]))
  at += 1_440 * 60_000
  counted.add(outcomeOf('done'))
  t.equal(counted.perMinute(1_440).size, 1)
})

import t from 'tap'
import type { Census, SessionCount } from '../src/census.ts'
import { RejectedError, type RejectionCode, UnavailableError } from '../src/errors.ts'
import { createOutcomeCounts } from '../src/outcome-counts.ts'
import type { Outcome } from '../src/receive.ts'
import { createRejections } from '../src/rejections.ts'
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
const rejected = (code: RejectionCode, issuer?: string) =>
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
    [
      {
        state: 'fails',
        code: 'rejected',
        message:
          'all 2 signals of contoso in the last hour were rejected: the "aud" of the token names none of our clients',
        since: new Date(1e12),
        advice: 'if that app is yours, add it to "clientIds". docs/troubleshooting.md has more under ERR_TOKEN_AUDIENCE'
      }
    ]
  ],
  [
    'most were rejected for one reason, some for another, and some wait',
    [
      ...times(4, rejected('ERR_TOKEN_MALFORMED', 'contoso')),
      rejected('ERR_TOKEN_AUDIENCE', 'contoso'),
      outcomeOf('deferred', { error: new UnavailableError('ERR_KEYS_UNAVAILABLE') })
    ],
    [],
    [
      {
        code: 'rejected',
        message:
          '5 of 6 signals of contoso in the last hour were rejected, 4 of them because the token is not a signed JWT',
        advice: /^look at what the provider sends to this URL/
      }
    ]
  ],
  [
    'more wait than were rejected',
    [
      rejected('ERR_TOKEN_MALFORMED', 'contoso'),
      ...times(3, outcomeOf('deferred', { error: new UnavailableError('ERR_DATABASE_FAILED') }))
    ],
    [],
    [{ code: 'deferred', message: /^3 signals .*: the database rejected the transaction$/ }]
  ],
  [
    'it works, but for one app',
    [...times(5, outcomeOf('done')), rejected('ERR_TOKEN_AUDIENCE', 'contoso')],
    [],
    [
      {
        state: 'works',
        message: /ended something; 1 signal of it was rejected: the "aud" of the token names none of our clients$/,
        advice: /^if that app is yours/
      }
    ]
  ],
  [
    'it has worked, and does not since the keys are out of reach',
    [
      ...times(5, outcomeOf('done')),
      ...times(3, outcomeOf('deferred', { error: new UnavailableError('ERR_KEYS_UNAVAILABLE') }))
    ],
    [],
    [
      {
        state: 'fails',
        code: 'deferred',
        message:
          '3 signals of contoso were deferred, and none has been done since: the keys of the issuer are out of reach',
        since: new Date(1e12),
        advice: /^"msal-logout check" says why the keys cannot be had/
      }
    ]
  ],
  [
    'it has worked, and everything is rejected since',
    [...times(50, outcomeOf('done')), ...times(10, rejected('ERR_TOKEN_SIGNATURE', 'contoso'))],
    [],
    [{ state: 'fails', code: 'rejected', message: /^the last 10 signals of contoso were rejected: the signature/ }]
  ],
  [
    'it works again after an outage',
    [outcomeOf('deferred', { error: new UnavailableError('ERR_KEYS_UNAVAILABLE') }), outcomeOf('done')],
    [],
    [{ state: 'works', since: null }]
  ],
  [
    'a mistake of the service',
    [outcomeOf('failed', { error: new Error('x') })],
    [],
    [{ state: 'fails', code: 'failed', message: /^1 signal of contoso in the last hour failed by a mistake/ }]
  ],
  [
    'duplicates alone',
    times(2, outcomeOf('duplicate')),
    [],
    [
      {
        code: 'quiet',
        message: 'nothing new came of contoso in the last hour, but 2 signals that had been done before'
      }
    ]
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
    [{ state: 'fails', code: 'lost', message: /: the sign-out was not done in time$/ }]
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
        message: /named no issuer and were rejected: the body must be application\/x-www-form-urlencoded$/,
        advice: /a proxy may have changed the body/
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

t.test('a verdict says what the last one has, since when, and when the last came', async (t) => {
  let at = 600_000_000_000
  const counted = createOutcomeCounts({ now: () => at })
  const rejections = createRejections({ now: () => at })
  const verdict = () =>
    judge({
      names: ['contoso'],
      counts: counted.byIssuer(60),
      minutes: 60,
      census: undefined,
      rejections: rejections.list(500)
    })[0]
  const add = (outcome: Outcome) => {
    counted.add(outcome)
    rejections.add(outcome)
  }
  add(outcomeOf('done'))
  at += 3 * 3_600_000
  t.match(verdict(), { code: 'quiet', since: new Date(600_000_000_000) })
  const begun = new Date(at)
  for (const aud of ['one', 'two']) {
    const error = new RejectedError('ERR_TOKEN_AUDIENCE', { details: { aud, iss: 'x' }, accepted: 'client-a' })
    add(outcomeOf('rejected', { error }))
    at += 600_000
  }
  t.match(verdict(), {
    code: 'rejected',
    message: /none of our clients \(the last has aud "two"; accepted is client-a\)$/,
    since: begun
  })
  at += 50 * 60_000
  add(rejected('ERR_TOKEN_AUDIENCE', 'contoso'))
  t.match(verdict(), { message: /^the one signal/, since: begun }, 'it began before the hour')
  const hint = 'differs from "https://op.example" by a slash at the end that is not configured'
  add(
    outcomeOf('rejected', {
      issuer: undefined,
      error: new RejectedError('ERR_TOKEN_ISSUER', { details: { iss: 'y/' }, hint })
    })
  )
  t.match(
    judge({ names: [], counts: counted.byIssuer(60), minutes: 60, census: undefined, rejections: rejections.list(9) }),
    [
      {
        code: 'foreign_issuer',
        message: /\(the last has iss "y\/", which differs from "https:\/\/op\.example" by a slash/
      }
    ]
  )
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

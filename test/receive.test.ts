import t from 'tap'
import { RejectedError, UnavailableError } from '../src/errors.ts'
import { createReceive, type Outcome } from '../src/receive.ts'
import { createSenders } from '../src/senders.ts'
import type { Order, SignOutResult } from '../src/sign-out.ts'
import type { Ignored, Signal } from '../src/signals/signal.ts'
import type { Deferred } from '../src/spool.ts'
import { makeOrder } from './fixtures/orders.ts'

const order = makeOrder({ kind: 'session', issuer: 'https://op.example', sid: 's1' }, { issuerName: 'main' })
const never = new Promise<never>(() => {})

interface Setup {
  read?: () => Promise<readonly Order[] | Ignored>
  signOut?: (order: Order) => Promise<SignOutResult['outcome']>
  isSigned?: boolean
  hasRoom?: boolean
}

/** The way in, with what happens on it as words in `events`. */
function setUp({
  read = async () => [order],
  signOut = async () => 'done',
  isSigned = true,
  hasRoom = true
}: Setup = {}) {
  const events: string[] = []
  const deferred: Deferred[] = []
  const observed: Outcome[] = []
  const remembered: number[] = []
  const senders = createSenders({ rejections: { burst: 2, perSecond: 0.1 }, unmatched: { burst: 2, perSecond: 0.1 } })
  const signal: Signal = {
    source: 'made-up',
    isSigned,
    async read() {
      events.push('read')
      const reading = await read()
      return 'ignored' in reading ? reading : reading.map((each) => ({ ...each, isSigned }))
    },
    issuerOf: () => 'claimed'
  }
  const receive = createReceive({
    async signOut(orders) {
      events.push('sign out')
      remembered.push(...orders.map(({ rememberSeconds }) => rememberSeconds))
      const [outcome] = await Promise.all(orders.map(signOut))
      return orders.map(({ id }) => ({
        id,
        outcome: outcome ?? 'done',
        matched: [],
        accounts: 0,
        sessions: 0,
        rows: 0,
        byClient: {}
      }))
    },
    spool: {
      async defer(each) {
        events.push('defer')
        deferred.push(each)
        return hasRoom
      }
    },
    senders: {
      ...senders,
      async awaitSignedTurn(address) {
        events.push(`turn of ${address}`)
        return () => events.push('end of turn')
      },
      async awaitUnsignedTurn(address) {
        events.push(`turn of ${address}`)
        return () => events.push('end of turn')
      }
    },
    observe: (outcome) => observed.push(outcome),
    workMs: 50
  })
  const send = () => receive(signal, 'input', { receivedAt: 1_000, sender: '192.0.2.1' })
  return { send, events, deferred, observed, remembered }
}

t.test('what is signed waits for its turn at the signature, and for nobody at the sign-out', async (t) => {
  const { send, events } = setUp()
  await send()
  t.same(events, ['turn of 192.0.2.1', 'read', 'end of turn', 'sign out', 'end of turn'])
})

t.test('what is unsigned has its turn until it is done', async (t) => {
  const { send, events } = setUp({ isSigned: false })
  await send()
  t.same(events, ['turn of 192.0.2.1', 'read', 'sign out', 'end of turn'])
})

const unavailable = new UnavailableError('ERR_KEYS_UNAVAILABLE', { issuer: 'main' })
const rejected = new RejectedError('ERR_TOKEN_SIGNATURE', { issuer: 'main' })
const outage = new UnavailableError('ERR_DATABASE_UNAVAILABLE')
const mistake = new TypeError('a mistake of ours')
const fail = (error: Error) => async () => {
  throw error
}

const cases: [name: string, setup: Setup, outcome: object, deferred: string | undefined][] = [
  ['done', {}, { outcome: 'done', issuer: 'main' }, undefined],
  ['unmatched', { signOut: async () => 'unmatched' }, { outcome: 'unmatched', issuer: 'main' }, undefined],
  ['a duplicate', { signOut: async () => 'duplicate' }, { outcome: 'duplicate', issuer: 'main' }, undefined],
  ['no order at all', { read: async () => [] }, { outcome: 'unmatched' }, undefined],
  [
    'nothing to do with it',
    { read: async () => ({ ignored: 'why', issuerName: 'main' }) },
    { outcome: 'ignored', issuer: 'main', reason: 'why' },
    undefined
  ],
  ['rejected', { read: fail(rejected) }, { outcome: 'rejected', issuer: 'main', error: rejected }, undefined],
  [
    'not to be judged now',
    { read: fail(unavailable) },
    { outcome: 'deferred', issuer: 'main', error: unavailable },
    'signal'
  ],
  [
    'reading takes too long',
    { read: () => never },
    { outcome: 'deferred', issuer: 'claimed', error: { code: 'ERR_DEADLINE' } },
    'signal'
  ],
  ['no database', { signOut: fail(outage) }, { outcome: 'deferred', issuer: 'main', error: outage }, 'orders'],
  [
    'the sign-out takes too long',
    { signOut: () => never },
    { outcome: 'deferred', error: { code: 'ERR_DEADLINE' } },
    'orders'
  ],
  [
    'neither done nor deferred',
    { signOut: fail(outage), hasRoom: false },
    { outcome: 'lost', error: outage },
    'orders'
  ],
  ['a mistake of ours while reading', { read: fail(mistake) }, { outcome: 'failed', error: mistake }, undefined],
  ['a mistake of ours while signing out', { signOut: fail(mistake) }, { outcome: 'failed', error: mistake }, undefined]
]
for (const [name, setup, expected, kind] of cases) {
  t.test(`${name}: the outcome is a value, observed once`, async (t) => {
    const { send, observed, deferred, events } = setUp(setup)
    const outcome = await send()
    t.match(outcome, { source: 'made-up', sender: '192.0.2.1', isRetry: false, ...expected })
    t.same(observed, [outcome])
    t.equal(deferred[0]?.kind, kind)
    t.ok(events.includes('end of turn'), 'its turn is over')
  })
}

t.test('what was verified is deferred as its order, and what was not as it came', async (t) => {
  const verified = setUp({ signOut: fail(outage) })
  await verified.send()
  t.match(verified.deferred, [{ kind: 'orders', source: 'made-up', receivedAt: 1_000, orders: [{ id: order.id }] }])
  const unverified = setUp({ read: fail(unavailable) })
  await unverified.send()
  t.same(unverified.deferred, [
    { kind: 'signal', source: 'made-up', isSigned: true, receivedAt: 1_000, input: 'input' }
  ])
})

t.test('a sender of invalid signals is limited; valid ones never are', async (t) => {
  let isValid = false
  const { send } = setUp({
    async read() {
      if (!isValid) {
        throw rejected
      }
      return [order]
    }
  })
  const waits: boolean[] = []
  for (let i = 0; i < 4; i += 1) {
    const outcome = await send()
    waits.push(outcome.outcome === 'rejected' && outcome.retryAfterSeconds > 0)
  }
  t.same(waits, [false, false, true, true])
  isValid = true
  t.match(await send(), { outcome: 'done' })
})

t.test('a sender whose unsigned calls end nothing is not waited for, and not deferred', async (t) => {
  let outcome: SignOutResult['outcome'] | Error = 'unmatched'
  const { send, remembered, events } = setUp({
    isSigned: false,
    async signOut() {
      if (outcome instanceof Error) {
        throw outcome
      }
      return outcome
    }
  })
  for (let i = 0; i < 4; i += 1) {
    await send()
  }
  t.same(remembered, [86_400, 86_400, 0, 0])
  outcome = outage
  t.match(await send(), { outcome: 'lost' })
  t.notOk(events.includes('defer'))
  outcome = 'done'
  t.match(await send(), { outcome: 'done' }, 'and what ends something is done')
})

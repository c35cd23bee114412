import { mkdirSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { pino } from 'pino'
import t, { type Test } from 'tap'
import { RejectedError, type RejectionCode, UnavailableError } from '../src/errors.ts'
import type { Outcome } from '../src/receive.ts'
import type { Order, SignOutResult } from '../src/sign-out.ts'
import type { Signal } from '../src/signals/signal.ts'
import { createSpool, type Spool } from '../src/spool.ts'
import { createRetry, type RetryOptions, retryOnce, startRetry } from '../src/spool-retry.ts'
import { createSteps } from '../src/steps.ts'
import { makeOrder } from './fixtures/orders.ts'
import { temporaryFolder } from './fixtures/server.ts'
import { build } from './fixtures/service.ts'
import { until } from './fixtures/until.ts'

const silent = pino({ level: 'silent' })
const never = new AbortController().signal
// With more time than an answer has: a busy disk is not what is tested here.
const withinMs = 30_000

function orderOf(sid: string): Order {
  return makeOrder({ kind: 'session', issuer: 'https://op.example', sid })
}

function sidOf({ selector }: Order): string {
  return selector.kind === 'session' ? selector.sid : ''
}

function resultOf({ id }: Order): SignOutResult {
  return { id, outcome: 'unmatched', matched: [], accounts: 0, sessions: 0, rows: 0, byClient: {} }
}

interface Setup extends Omit<RetryOptions, 'spool'> {
  readonly dir: string
  readonly spool: Spool
  readonly outcomes: Outcome[]
  /** The sids that were carried out, in order. */
  readonly done: string[]
  deferOrder(sid: string, at: number): Promise<void>
  deferSignal(input: string, at: number): Promise<void>
}

/** A spool, and sign-outs that are noted; what a sid names goes wrong as it says. */
function setUp(t: Test, options: Partial<Omit<RetryOptions, 'spool'>> = {}): Setup {
  const dir = join(temporaryFolder(t), 'spool')
  const spool = createSpool({ dir, logger: silent })
  const done: string[] = []
  const outcomes: Outcome[] = []
  const carryOut = async (order: Order) => {
    const sid = sidOf(order)
    if (sid === 'outage') {
      throw new UnavailableError('ERR_DATABASE_UNAVAILABLE')
    }
    if (sid === 'mistake') {
      throw new TypeError('a mistake of ours, quoting a value')
    }
    done.push(sid)
    return resultOf(order)
  }
  const token: Signal = {
    source: 'token',
    isSigned: true,
    async read(input, receivedAt) {
      if (input === 'keys away') {
        throw new UnavailableError('ERR_KEYS_UNAVAILABLE')
      }
      if (typeof input !== 'string') {
        throw new RejectedError('ERR_TOKEN_MALFORMED')
      }
      return [{ ...orderOf(input), revokeBefore: receivedAt }]
    }
  }
  return {
    dir,
    spool,
    outcomes,
    done,
    signals: [token],
    signOut: (orders) => Promise.all(orders.map(carryOut)),
    signOutAlone: carryOut,
    logger: silent,
    observe: (outcome) => outcomes.push(outcome),
    ...options,
    async deferOrder(sid, at) {
      const deferred = {
        kind: 'orders',
        source: 'token',
        isSigned: true,
        receivedAt: at,
        orders: [orderOf(sid)]
      } as const
      t.ok(await spool.defer(deferred, withinMs))
    },
    async deferSignal(input, at) {
      t.ok(await spool.defer({ kind: 'signal', source: 'token', isSigned: true, receivedAt: at, input }, withinMs))
    }
  }
}

t.test('orders before signals, each oldest first, and each outcome is observed once', async (t) => {
  const setup = setUp(t)
  await setup.deferSignal('signal', 1_000)
  await setup.deferOrder('second', 3_000)
  await setup.deferOrder('first', 2_000)
  t.same(await retryOnce(setup, never), { done: 3, rejected: 0 })
  t.same(setup.done, ['first', 'second', 'signal'])
  t.match(setup.outcomes, [{ source: 'token', isRetry: true, outcome: 'unmatched' }, {}, {}])
  t.equal(setup.outcomes.length, 3)
  t.same(await setup.spool.list(10), [])
})

t.test('a signal is read as of its arrival', async (t) => {
  const times: number[] = []
  const setup = setUp(t, {
    async signOut(orders) {
      times.push(...orders.map(({ revokeBefore }) => revokeBefore))
      return orders.map(resultOf)
    }
  })
  await setup.deferSignal('x', 1_234)
  await retryOnce(setup, never)
  t.same(times, [1_234])
})

t.test('a file that is damaged or of another form is set aside, and stops nothing', async (t) => {
  const setup = setUp(t)
  await setup.deferOrder('good', 9_000)
  const contents = ['{"at":1', '{}', 'null', '{"receivedAt":"x","kind":"orders"}', '']
  for (const [i, content] of contents.entries()) {
    writeFileSync(
      join(setup.dir, `00000000000100${i}-00000000-0000-4000-8000-00000000000${i}.7.verified.json`),
      content
    )
  }
  writeFileSync(join(setup.dir, 'README'), 'not ours')
  t.match(await retryOnce(setup, never), { done: 1 })
  t.same(setup.done, ['good'])
  t.equal(readdirSync(join(setup.dir, 'rejected')).length, contents.length)
  t.ok(readdirSync(setup.dir).includes('README'))
})

t.test('what proved bad is set aside with its reason', async (t) => {
  const setup = setUp(t)
  t.ok(await setup.spool.defer({ kind: 'signal', source: 'token', isSigned: true, receivedAt: 1, input: 7 }, withinMs))
  t.same(await retryOnce(setup, never), { done: 0, rejected: 1 })
  t.match(readdirSync(join(setup.dir, 'rejected'))[0], /\.ERR_TOKEN_MALFORMED\.json$/)
  t.match(setup.outcomes, [{ outcome: 'rejected', isRetry: true, error: { code: 'ERR_TOKEN_MALFORMED' } }])
})

t.test('what a configuration of now rejects waits for another one, for a day, and holds up nothing', async (t) => {
  const lines: string[] = []
  let now = 86_400_000
  let code: RejectionCode = 'ERR_TOKEN_ISSUER'
  const inputs: unknown[] = []
  const setup = setUp(t, {
    now: () => now,
    logger: pino({}, { write: (line: string) => void lines.push(line) }),
    signals: [
      {
        source: 'token',
        isSigned: true,
        async read(input) {
          inputs.push(input)
          if (input === 'left out') {
            throw new RejectedError(code)
          }
          return [orderOf(String(input))]
        }
      }
    ]
  })
  const tries = () => inputs.filter((input) => input === 'left out').length
  const { round } = createRetry(setup)
  await setup.deferSignal('left out', now)
  await setup.deferSignal('s1', now)
  for (let seconds = 0; seconds < 300; seconds += 1) {
    await round(never)
    now += 1_000
  }
  t.same(setup.done, ['s1'])
  t.ok(tries() > 8 && tries() < 20, `${tries()} tries in five minutes: with a back-off`)
  t.ok(lines.filter((line) => line.includes('ERR_TOKEN_ISSUER')).length <= 2, 'not logged each time')
  t.same(
    setup.outcomes.map(({ outcome }) => outcome),
    ['unmatched'],
    'neither done nor rejected yet'
  )
  for (const next of ['ERR_TOKEN_ENCRYPTION_KEY', 'ERR_TOKEN_AUDIENCE', 'ERR_REQUEST_ISSUER_NAME'] as const) {
    code = next
    now += 60_000
    await round(never)
    t.equal((await setup.spool.list(10)).length, 1, code)
  }
  now += 86_400_000
  await round(never)
  t.same(await setup.spool.list(10), [], 'after a day it is set aside')
  t.match(setup.outcomes.at(-1), { outcome: 'rejected', error: { code: 'ERR_REQUEST_ISSUER_NAME' } })
})

t.test('a bad edit of the issuers loses nothing that was deferred: its correction does it', async (t) => {
  const service = await build(t)
  const { provider, config } = service
  provider.behaviour = 'down'
  await service.login({ sid: 's1' })
  t.equal((await service.post(await provider.logoutToken({ sid: 's1' }))).statusCode, 503)
  await service.reload({ ...config, issuers: [] })
  provider.behaviour = 'up'
  const { round } = createRetry(service.retryOptions)
  t.same(await round(never), { done: 0, rejected: 0 })
  t.equal((await service.spool.list(10)).length, 1)
  await service.reload(config)
  await until('it is done', async () => (await round(never)).done === 1)
  t.same(await service.rows(), [])
})

t.test('what cannot be read is logged once, and stops nothing', async (t) => {
  const lines: string[] = []
  const setup = setUp(t)
  const spool = createSpool({ dir: setup.dir, logger: pino({}, { write: (line: string) => lines.push(line) }) })
  await setup.deferOrder('good', 2_000)
  mkdirSync(join(setup.dir, '000000000001000-00000000-0000-4000-8000-000000000001.1.verified.json'))
  await retryOnce({ ...setup, spool }, never)
  await retryOnce({ ...setup, spool }, never)
  t.same(setup.done, ['good'])
  t.equal(lines.filter((line) => /cannot be read/.test(line)).length, 1)
  await t.rejects(spool.checkReady(), { code: 'ERR_SPOOL_STUCK' }, 'and the service is not ready')
})

t.test('a signal whose keys are still out of reach stays, and holds up nothing else', async (t) => {
  const setup = setUp(t)
  for (let i = 0; i < 300; i += 1) {
    await setup.deferSignal(i === 299 ? 'good' : 'keys away', 1_000 + i)
  }
  const retry = startRetry(setup)
  await until('the last one is done', () => setup.done.includes('good'))
  await retry.stop()
  t.ok((await setup.spool.list(10)).length > 0)
})

t.test('a signal that is verified on a retry is deferred as its order from then on', async (t) => {
  let isAway = true
  const setup = setUp(t, {
    async signOut(orders) {
      if (isAway) {
        throw new UnavailableError('ERR_DATABASE_UNAVAILABLE')
      }
      return orders.map(resultOf)
    }
  })
  await setup.deferSignal('s1', 1_000)
  await retryOnce(setup, never)
  t.match(await setup.spool.list(10), [{ deferred: { kind: 'orders' } }])
  isAway = false
  t.same(
    await retryOnce({ ...setup, signals: [] }, never),
    { done: 1, rejected: 0 },
    'its keys are not needed any more'
  )
})

t.test('while the database is away, one batch is tried and the rest stays', async (t) => {
  const tries: string[] = []
  const setup = setUp(t, {
    async signOut(orders) {
      tries.push(...orders.map(sidOf))
      throw new UnavailableError('ERR_DATABASE_UNAVAILABLE')
    }
  })
  for (let i = 0; i < 200; i += 1) {
    await setup.deferOrder(`s${i}`, 1_000 + i)
  }
  t.same(await retryOnce(setup, never), { done: 0, rejected: 0 })
  t.ok(tries.length < 400, 'two rounds of one batch each')
  t.equal((await setup.spool.list(1_000)).length, 200)
})

t.test('a mistake of ours costs the others nothing, and its message is not logged', async (t) => {
  const lines: string[] = []
  const setup = setUp(t, { logger: pino({}, { write: (line: string) => void lines.push(line) }) })
  await setup.deferOrder('mistake', 1_000)
  for (let i = 0; i < 200; i += 1) {
    await setup.deferOrder(`s${i}`, 2_000 + i)
  }
  const retry = startRetry(setup)
  await until('all others are done', () => setup.done.length === 200)
  await retry.stop()
  t.equal((await setup.spool.list(10)).length, 1)
  t.match(lines.join('\n'), /TypeError/)
  t.notMatch(lines.join('\n'), /quoting a value/)
})

for (const code of ['ERR_DATABASE_TIMEOUT', 'ERR_DATABASE_LOCKED', 'ERR_LARGE'] as const) {
  t.test(`an order that ends in ${code} goes alone from then on, and no round waits for it`, async (t) => {
    let release = () => {}
    const isReleased = new Promise<void>((resolve) => {
      release = resolve
    })
    const alone: string[] = []
    const setup = setUp(t, {
      async signOut(orders) {
        if (orders.some((order) => sidOf(order) === 'heavy')) {
          throw new UnavailableError(code)
        }
        setup.done.push(...orders.map(sidOf))
        return orders.map(resultOf)
      },
      async signOutAlone(order) {
        alone.push(sidOf(order))
        await isReleased
        return resultOf(order)
      }
    })
    await setup.deferOrder('heavy', 1_000)
    const retry = startRetry(setup)
    await until('it goes alone', () => alone.length === 1)
    await setup.deferOrder('later', 2_000)
    await until('a later one is done meanwhile', () => setup.done.includes('later'))
    release()
    await retry.stop()
    t.same(alone, ['heavy'])
    t.same(await setup.spool.list(10), [])
  })
}

t.test('what is held, or asks a directory that hangs, keeps nothing waiting that is large', async (t) => {
  let at = 10_000
  let release = () => {}
  const isReleased = new Promise<void>((resolve) => {
    release = resolve
  })
  const lockWaits: (number | undefined)[] = []
  const setup = setUp(t, {
    async signOut([order]) {
      throw new UnavailableError(
        sidOf(order as Order).startsWith('held') ? 'ERR_DATABASE_LOCKED' : 'ERR_DATABASE_TIMEOUT'
      )
    },
    async signOutAlone(order, { lockWaitMs }) {
      if (sidOf(order) !== 'large') {
        lockWaits.push(lockWaitMs)
        await isReleased
      }
      setup.done.push(sidOf(order))
      return resultOf(order)
    },
    now: () => at
  })
  for (let i = 0; i < 20; i += 1) {
    await setup.deferOrder(`held ${i}`, 1_000 + i)
  }
  await setup.deferOrder('large', 2_000)
  const { round, stop } = createRetry(setup)
  await round(never)
  at += 1_000
  await round(never)
  await until('the large one is done', () => setup.done.includes('large'))
  t.same(setup.done, ['large'])
  t.same(lockWaits, [100], 'one at a time, and not for long')
  release()
  await stop()
})

for (const isHonoured of [true, false]) {
  const name = isHonoured
    ? 'what is held waits for one step of another'
    : 'control: without that it waits for all of them'
  t.test(`an order in many steps that was held: ${name}`, async (t) => {
    let at = 10_000
    let steps = 0
    let release = () => {}
    const isReleased = new Promise<void>((resolve) => {
      release = resolve
    })
    const { run } = createSteps({
      store: {
        async commitStep(order) {
          if (sidOf(order) !== 'heavy') {
            return resultOf(order)
          }
          steps += 1
          if (steps === 2) {
            await isReleased
          }
          return steps === 5 ? resultOf(order) : undefined
        },
        findRecord: async () => undefined,
        unfinishedOrders: async () => []
      },
      logger: silent,
      maxDeletions: 1
    })
    const setup = setUp(t, {
      signOut: () => Promise.reject(new UnavailableError('ERR_DATABASE_LOCKED')),
      async signOutAlone(order, { isOneStep = false, ...options }) {
        const result = await run(order, { ...options, isOneStep: isOneStep && isHonoured })
        setup.done.push(sidOf(order))
        return result
      },
      now: () => at
    })
    await setup.deferOrder('heavy', 1_000)
    await setup.deferOrder('held', 1_001)
    const { round, settle } = createRetry(setup)
    await round(never)
    at += 1_000
    await round(never)
    await until('the second step is begun', () => steps === 2)
    if (isHonoured) {
      await until('the other is done meanwhile', () => setup.done.includes('held'))
    }
    t.same(setup.done, isHonoured ? ['held'] : [])
    release()
    await settle()
    t.same(setup.done.toSorted(), ['heavy', 'held'])
    t.equal(steps, 5)
    t.same(await setup.spool.list(10), [])
  })
}

t.test('what others do, or take away, is forgotten', async (t) => {
  const setup = setUp(t, { signOut: () => Promise.reject(new UnavailableError('ERR_DATABASE_LOCKED')) })
  for (let i = 0; i < 5; i += 1) {
    await setup.deferOrder(`s${i}`, 1_000 + i)
  }
  const { round, isPaused } = createRetry({ ...setup, now: () => 10_000 })
  await round(never)
  t.ok(isPaused())
  for (const { name } of await setup.spool.list(10)) {
    rmSync(join(setup.dir, name))
  }
  await round(never)
  t.notOk(isPaused())
})

t.test('many that go alone need no round each', async (t) => {
  let at = 10_000
  const setup = setUp(t, {
    signOut: () => Promise.reject(new UnavailableError('ERR_DATABASE_TIMEOUT')),
    now: () => at
  })
  for (let i = 0; i < 20; i += 1) {
    await setup.deferOrder(`s${i}`, 1_000 + i)
  }
  const { round, settle } = createRetry(setup)
  await round(never)
  at += 1_000
  await round(never)
  await settle()
  t.equal(setup.done.length, 20)
  t.same(await setup.spool.list(10), [])
})

t.test('what goes alone for the first time goes before what has failed alone', async (t) => {
  let at = 10_000
  const alone: string[] = []
  const setup = setUp(t, {
    signOut: () => Promise.reject(new UnavailableError('ERR_DATABASE_LOCKED')),
    async signOutAlone(order) {
      alone.push(sidOf(order))
      if (sidOf(order) !== 'new') {
        throw new UnavailableError('ERR_DATABASE_LOCKED')
      }
      return resultOf(order)
    },
    now: () => at
  })
  for (let i = 0; i < 8; i += 1) {
    await setup.deferOrder(`locked ${i}`, 1_000 + i)
  }
  const { round, settle } = createRetry(setup)
  const roundLater = async () => {
    at += 100_000
    await round(never)
    await settle()
  }
  await roundLater()
  await roundLater()
  await setup.deferOrder('new', 2_000)
  await round(never)
  await settle()
  alone.length = 0
  await roundLater()
  t.ok(alone.indexOf('new') >= 0 && alone.indexOf('new') <= 2, alone.join())
})

t.test('once: what has to go alone goes', async (t) => {
  const setup = setUp(t, { signOut: () => Promise.reject(new UnavailableError('ERR_LARGE')) })
  for (let i = 0; i < 5; i += 1) {
    await setup.deferOrder(`s${i}`, 1_000 + i)
  }
  t.same(await retryOnce(setup, never), { done: 5, rejected: 0 })
  t.same(await setup.spool.list(10), [])
})

t.test('the same order from two instances ends nothing twice', async (t) => {
  const setup = setUp(t)
  for (let i = 0; i < 50; i += 1) {
    await setup.deferOrder(`s${i}`, 1_000 + i)
  }
  const other = { ...setup, spool: createSpool({ dir: setup.dir, logger: silent }) }
  await Promise.all([retryOnce(setup, never), retryOnce(other, never)])
  t.same(new Set(setup.done).size, 50)
  t.same(await setup.spool.list(10), [])
})

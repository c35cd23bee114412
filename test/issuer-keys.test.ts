import type { IncomingMessage, ServerResponse } from 'node:http'
import t, { type Test } from 'tap'
import { budget } from '../src/budget.ts'
import { createIssuerKeys, type IssuerKeysOptions, type KeySet } from '../src/issuer-keys.ts'
import { createSigningKey, type SigningKey } from './fixtures/identity-provider.ts'
import { listen } from './fixtures/listen.ts'
import { until } from './fixtures/until.ts'

interface Options extends IssuerKeysOptions {
  readonly issuer?: string
  readonly maxStaleKeysSeconds?: number
}

const [first, second] = [await createSigningKey(), await createSigningKey()]

/** The keys of an issuer of the test's own, by a clock of the test's own. */
async function setUp(t: Test, { issuer, maxStaleKeysSeconds = 86_400, ...options }: Options = {}) {
  const state = { time: 1_700_000_000_000, isDown: false, isHeld: false, keys: [first] as SigningKey[], fetches: 0 }
  const held: (() => void)[] = []
  const origin = await listen(t, (_request: IncomingMessage, response: ServerResponse) => {
    const answer = () =>
      response.writeHead(state.isDown ? 500 : 200).end(JSON.stringify({ keys: state.keys.map(({ jwk }) => jwk) }))
    if (state.isHeld) {
      held.push(answer)
    } else {
      answer()
    }
    state.fetches += 1
  })
  const source = { name: 'main', issuer: issuer ?? origin, jwksUri: `${origin}/keys`, algorithms: ['RS256'] }
  const keys = createIssuerKeys(
    { ...source, maxStaleKeysSeconds },
    {
      now: () => state.time,
      maxWaitMs: 30_000, // longer than a busy machine takes
      ...options
    }
  )
  const kids = async (set: KeySet | undefined = undefined) => {
    const { jwks } = (set ?? (await keys.current()))(source.issuer) as unknown as {
      jwks(): { keys: { kid: string }[] }
    }
    return jwks().keys.map(({ kid }) => kid)
  }
  return {
    state,
    keys,
    kids,
    issuer: source.issuer,
    /** Waits until the issuer has been asked so many times. */
    asked: (fetches: number) => until(`the issuer has been asked ${fetches} times`, () => state.fetches === fetches),
    /** Answers what was held. */
    release() {
      state.isHeld = false
      for (const answer of held.splice(0)) {
        answer()
      }
    },
    /** Waits until so many fetches have ended, well or not. */
    ended: (fetches: number) =>
      until(`${fetches} fetches have ended`, () => keys.status().fetched + keys.status().failed === fetches)
  }
}

const outOfReach = { code: 'ERR_KEYS_UNAVAILABLE', issuer: 'main' }

t.test('keys are fetched once, for all that wait', async (t) => {
  const { state, keys, kids } = await setUp(t)
  t.match(keys.status(), { keys: 0, fetched: 0, failed: 0, loadedAt: undefined })
  await Promise.all(Array.from({ length: 10 }, () => keys.current()))
  t.same(await kids(), [first.kid])
  t.equal(state.fetches, 1)
  t.match(keys.status(), { keys: 1, fetched: 1, failed: 0, loadedAt: state.time, lastFailure: undefined })
})

t.test('an issuer that answers slowly', async (t) => {
  await t.test('is had, though nobody waits that long', async (t) => {
    const { state, keys, kids, asked, release, ended } = await setUp(t, { maxWaitMs: 20 })
    state.isHeld = true
    await t.rejects(keys.current(), outOfReach)
    await t.rejects(keys.current(), outOfReach, 'one that comes later does not wait anew')
    await asked(1)
    release()
    await ended(1)
    t.same(await kids(), [first.kid])
    t.equal(state.fetches, 1)
    t.match(keys.status(), { fetched: 1, failed: 0 })
  })

  await t.test('is refreshed while the keys at hand serve', async (t) => {
    const { state, keys, kids, asked, release, ended } = await setUp(t)
    await keys.current()
    Object.assign(state, { isHeld: true, keys: [second], time: state.time + 11 * 60_000 })
    t.same(await kids(), [first.kid])
    await asked(2)
    t.same(await kids(), [first.kid])
    release()
    await ended(2)
    t.same(await kids(), [second.kid])
    t.equal(state.fetches, 2)
  })

  await t.test('has the token of a new key wait for its retry', async (t) => {
    const { state, keys, kids, asked, release, ended } = await setUp(t, { maxWaitMs: 20 })
    await keys.current().catch(() => {}) // perhaps this machine is slow, too
    await ended(1)
    const known = await keys.current()
    Object.assign(state, { isHeld: true, keys: [second], time: state.time + 1 })
    await t.rejects(keys.newerThan(known, state.time, 'key'), outOfReach)
    await asked(2)
    release()
    await ended(2)
    t.same(await kids(await keys.newerThan(known, state.time, 'key')), [second.kid])
    t.equal(state.fetches, 2)
  })
})

t.test('the wait fits into the time of an answer, and the fetch need not', (t) => {
  t.ok(budget.keysMs < budget.workMs)
  t.end()
})

t.test('an issuer that hangs is given up, and asked again at once', async (t) => {
  const { state, keys, kids, asked, ended } = await setUp(t, { maxWaitMs: 10, fetchTimeoutMs: 400 })
  state.isHeld = true
  await t.rejects(keys.current(), outOfReach)
  await asked(1)
  state.isHeld = false
  state.time += 1_000
  await ended(1)
  t.match(keys.status(), { failed: 1, lastFailure: { at: state.time, message: /did not answer within 0.4 s/ } })
  await keys.current().catch(() => {}) // on a busy machine it takes longer than it is waited for
  await ended(2)
  t.same(await kids(), [first.kid])
})

t.test('an issuer that is down', async (t) => {
  await t.test('at the start, is asked once a second', async (t) => {
    const { state, keys } = await setUp(t)
    state.isDown = true
    for (let i = 0; i < 20; i += 1) {
      await t.rejects(keys.current(), { ...outOfReach, cause: { message: /answered 500/ } })
      state.time += 100
    }
    t.equal(state.fetches, 2)
    t.match(keys.status(), { keys: 0, failed: 2, lastFailure: { message: /keys" answered 500/ } })
  })

  await t.test('later, has its keys serve as long as they may', async (t) => {
    const { state, keys, kids } = await setUp(t, { maxStaleKeysSeconds: 3_600 })
    await keys.current()
    state.isDown = true
    state.time += 3_600_000
    t.same(await kids(), [first.kid])
    state.time += 1
    await t.rejects(keys.current(), outOfReach)
  })

  await t.test('later, is asked once in half a minute', async (t) => {
    const { state, keys, ended } = await setUp(t)
    await keys.current()
    state.isDown = true
    state.time += 11 * 60_000
    await keys.current()
    await ended(2)
    for (let i = 0; i < 100; i += 1) {
      await keys.current()
      state.time += 290
    }
    t.equal(state.fetches, 2)
    state.time += 1_001
    await keys.current()
    await ended(3)
    t.equal(state.fetches, 3)
  })

  await t.test('may have published the key of a token', async (t) => {
    const { state, keys } = await setUp(t)
    const known = await keys.current()
    state.isDown = true
    state.time += 1
    for (let i = 0; i < 3; i += 1) {
      await t.rejects(keys.newerThan(known, state.time, 'key'), outOfReach)
    }
    t.equal(state.fetches, 2)
  })
})

t.test('a set without a key of use never replaces another', async (t) => {
  const { state, keys, kids, ended } = await setUp(t)
  await keys.current()
  state.keys = [{ ...second, jwk: { ...second.jwk, e: 'AQ' } }]
  state.time += 11 * 60_000
  await keys.current()
  await ended(2)
  t.same(await kids(), [first.kid])
  t.match(keys.status(), { failed: 1, lastFailure: { message: /no key that can be used/ } })
})

t.test('a clock that is set back holds nothing up', async (t) => {
  const { state, keys, kids, ended } = await setUp(t)
  state.isDown = true
  await t.rejects(keys.current(), outOfReach)
  Object.assign(state, { isDown: false, time: state.time - 86_400_000 })
  t.same(await kids(), [first.kid], 'not the cool-down')
  Object.assign(state, { keys: [second], time: state.time - 86_400_000 })
  t.same(await kids(), [first.kid], 'the keys serve')
  await ended(3)
  t.same(await kids(), [second.kid], 'and are refreshed')
})

t.test('keys are other ones only if the issuer may have published them since', async (t) => {
  const { state, keys, kids } = await setUp(t)
  const known = await keys.current()
  t.equal(await keys.newerThan(known, state.time - 1, 'key'), undefined, 'a token that came before the fetch')
  t.equal(state.fetches, 1)
  state.keys = [second]
  state.time += 1
  const newer = await keys.newerThan(known, state.time, 'key')
  t.same(await kids(newer), [second.kid])
  t.equal(await keys.newerThan(known, state.time, 'signature'), newer, 'without another fetch')
  t.equal(await keys.newerThan(newer as KeySet, state.time, 'key'), undefined)
  t.equal(state.fetches, 2)
})

t.test('tokens that no key fits provoke a bounded number of fetches', async (t) => {
  const { state, keys } = await setUp(t)
  await keys.current()
  const provoke = async (fault: 'key' | 'signature') => {
    state.time += 1
    return keys.newerThan(await keys.current(), state.time, fault).then(
      (set) => (set === undefined ? 'judged' : 'fetched'),
      ({ code }: { code: string }) => code
    )
  }
  const count = async (fault: 'key' | 'signature') => {
    const outcomes: Record<string, number> = {}
    for (let i = 0; i < 50; i += 1) {
      const outcome = await provoke(fault)
      outcomes[outcome] = (outcomes[outcome] ?? 0) + 1
    }
    return outcomes
  }
  t.same(await count('key'), { fetched: 10, ERR_KEYS_UNAVAILABLE: 40 }, 'the rest may be genuine, and is deferred')
  t.same(await count('signature'), { fetched: 10, judged: 40 }, 'the rest is bad: its key is known')
  t.equal(state.fetches, 21)
  state.time += 30_000
  t.same(await count('key'), { fetched: 3, ERR_KEYS_UNAVAILABLE: 47 }, 'one more every ten seconds')
  state.time += 86_400_000
  t.same(await count('key'), { fetched: 10, ERR_KEYS_UNAVAILABLE: 40 }, 'and never more than ten at once')
})

t.test('a key that is bound to an issuer serves that one alone', async (t) => {
  const template = 'https://login.example/{tenantid}/v2.0'
  const issuerOf = (digit: string) => template.replace('{tenantid}', `9188040d-6c67-4c5b-b112-36a304b66da${digit}`)
  const publish = (key: SigningKey, issuer: string) => ({ ...key, jwk: { ...key.jwk, issuer } as SigningKey['jwk'] })
  const third = await createSigningKey()
  const published = [publish(first, template), publish(second, issuerOf('1')), third]

  await t.test('for a template', async (t) => {
    const { state, keys } = await setUp(t, { issuer: template })
    state.keys = published
    const set = await keys.current()
    const serves = async (issuer: string, { kid }: SigningKey) =>
      set(issuer)({ alg: 'RS256', ...(kid === undefined ? {} : { kid }) }).then(
        () => true,
        () => false
      )
    t.same(await Promise.all(published.map((key) => serves(issuerOf('1'), key))), [true, true, true])
    t.same(await Promise.all(published.map((key) => serves(issuerOf('2'), key))), [true, false, true])
  })

  for (const [digit, expected] of [
    ['1', [first.kid, second.kid, third.kid]],
    ['2', [first.kid, third.kid]]
  ] as const) {
    await t.test(`for one configured tenant (${digit})`, async (t) => {
      const { state, kids } = await setUp(t, { issuer: issuerOf(digit) })
      state.keys = published
      t.same(await kids(), expected)
    })
  }
})

// Generated hostile requests; HOSTILE_RUNS says how many (`npm run test:faults`: 10,000), short by default.
import fc from 'fast-check'
import t from 'tap'
import { retryOnce } from '../src/spool-retry.ts'
import { createAttacker, hostileRequests } from './fixtures/attacker.ts'
import { noteTries } from './fixtures/attacks.ts'
import type { SigningKey } from './fixtures/identity-provider.ts'
import { backChannelLogoutEvent, clientId, logoutClaims, signText } from './fixtures/identity-provider.ts'
import { build } from './fixtures/service.ts'

const runs = Number(process.env.HOSTILE_RUNS ?? 600)

t.test('hostile requests get 4xx, and change nothing', { timeout: 1_200_000 }, async (t) => {
  const service = await build(t, { spool: { unverified: { count: 100 } } })
  const { provider, app } = service
  const victim = { homeAccountId: 'u.t', sid: 'victim', subject: 'victim' }
  await service.login(victim)
  await service.post(await provider.logoutToken({ sid: 'nobody' }))
  const before = await service.database.snapshot()
  const attack = createAttacker(
    provider.issuer,
    provider.keys[0]?.kid,
    await provider.logoutToken({ sid: 'other' }),
    await provider.logoutToken({ sid: 'victim' })
  )

  let senders = 0
  await fc.assert(
    fc.asyncProperty(hostileRequests, async (request) => {
      senders += 1
      // Each from another address: what one address sends too much of is not looked at.
      const remoteAddress = `10.${senders >> 16}.${(senders >> 8) & 255}.${senders & 255}`
      const { statusCode, body } = await app.inject({ ...attack(request), remoteAddress })
      return isRejected(statusCode, body)
    }),
    { numRuns: runs }
  )
  t.same(await service.database.snapshot(), before)
  const { deferred } = await service.spool.survey()
  t.same(
    deferred.filter(({ share }) => share === 'verified'),
    [],
    'nothing of it is taken for genuine'
  )
  t.same(
    (await retryOnce({ ...service.retryOptions, now: () => Date.now() + 60_000 }, new AbortController().signal)).done,
    0
  )
  t.same(await service.database.snapshot(), before, 'nor does what was deferred')
  t.notMatch(service.logs.join('\n'), /"level":"fatal"|"failed"/, 'and none was a mistake of ours')
  noteTries('generated hostile requests: tokens, forms, queries, headers', runs)
})

/** 503 too, for a key id that was made up: while the keys may not be fetched again, nobody can tell. */
function isRejected(status: number, body: string): boolean {
  return (
    (status >= 400 && status < 500 && status !== 429) || (status === 503 && body.includes('"temporarily_unavailable"'))
  )
}

t.test('a token that its issuer signed can still not do more than end a session', async (t) => {
  const service = await build(t)
  const { provider } = service
  const key = provider.keys[0] as SigningKey
  const values = [
    "'; drop table msal_logout.records; --",
    '%',
    '\\',
    '{"a":1}',
    '[]',
    'null',
    '\u{1f600}',
    'a'.repeat(1_024),
    '$1',
    'constructor'
  ]
  for (const value of values) {
    await service.login({ homeAccountId: 'u.t', sid: 'other', issuedAt: Math.floor(Date.now() / 1_000) })
    const claims = logoutClaims(provider.issuer, {
      sid: value,
      sub: value,
      jti: value,
      aud: [clientId, value],
      events: { [backChannelLogoutEvent]: { [value]: value } }
    })
    t.equal(
      (await service.post(await signText(JSON.stringify(claims), { kid: key.kid }, key))).statusCode,
      200,
      value.slice(0, 40)
    )
  }
  t.equal((await service.rows()).length, 1)
})

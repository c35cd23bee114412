// Generated hostile requests; HOSTILE_RUNS says how many (`npm run test:faults`: 10,000), short by default.
import fc from 'fast-check'
import t from 'tap'
import type { SigningKey } from './fixtures/identity-provider.ts'
import { backChannelLogoutEvent, clientId, logoutClaims, signText } from './fixtures/identity-provider.ts'
import { build } from './fixtures/service.ts'

const runs = Number(process.env.HOSTILE_RUNS ?? 600)

const anything = fc.oneof(
  fc.anything({ maxDepth: 2 }),
  fc.constantFrom<unknown>(null, '', 0, -1, 1e308, true, [], {}, 'x'.repeat(3_000))
)
const text = fc.oneof(fc.string({ unit: 'binary', maxLength: 60 }), fc.string({ maxLength: 200 }))
const base64url = (value: string) => Buffer.from(value).toString('base64url')
const toJson = (value: unknown) => JSON.stringify(value, (_, v) => (typeof v === 'bigint' ? String(v) : v)) ?? 'null'

/** One claim of a correct token is replaced; what replaces it is hardly ever right. */
const changedClaim = fc.record({
  kind: fc.constant('claim' as const),
  name: fc.constantFrom(
    'iss',
    'aud',
    'iat',
    'exp',
    'nbf',
    'jti',
    'sid',
    'sub',
    'events',
    'nonce',
    '__proto__',
    'constructor'
  ),
  value: anything
})
const changedHeader = fc.record({
  kind: fc.constant('header' as const),
  name: fc.constantFrom('alg', 'typ', 'kid', 'crit', 'jku', 'jwk', 'x5c', 'x5u', 'b64', 'enc', 'zip', '__proto__'),
  value: anything
})
const garbled = fc.record({ kind: fc.constant('parts' as const), parts: fc.array(text, { maxLength: 6 }) })
const garbledBody = fc.record({
  kind: fc.constant('body' as const),
  type: fc.constantFrom(
    'application/x-www-form-urlencoded',
    'application/json',
    'text/plain',
    'multipart/form-data',
    'x/y',
    ''
  ),
  body: text
})
const query = fc.record({ kind: fc.constant('query' as const), iss: fc.option(text), sid: fc.option(text), name: text })

t.test('hostile requests get 4xx, and change nothing', { timeout: 1_200_000 }, async (t) => {
  const service = await build(t, { app: { limitRejections: () => 0 } })
  const { provider, app } = service
  const key = provider.keys[0] as SigningKey
  const victim = { homeAccountId: 'u.t', sid: 'victim', subject: 'victim' }
  await service.login(victim)
  await service.post(await provider.logoutToken({ sid: 'nobody' }))
  const before = await service.database.snapshot()
  const send = async (token: string) => (await service.post(token)).statusCode

  async function perform(hostile: Hostile): Promise<number> {
    switch (hostile.kind) {
      case 'claim': {
        const claims: Record<string, unknown> = { ...logoutClaims(provider.issuer, { sid: 'victim' }) }
        // Signed by nobody: an attacker has everything but the key.
        Object.defineProperty(claims, hostile.name, { value: hostile.value ?? null, enumerable: true })
        const [header, , signature] = (await provider.logoutToken({ sid: 'other' })).split('.')
        return send(`${header}.${base64url(toJson(claims))}.${signature}`)
      }
      case 'header': {
        const header: Record<string, unknown> = { alg: 'RS256', kid: key.kid, typ: 'logout+jwt' }
        Object.defineProperty(header, hostile.name, { value: hostile.value ?? null, enumerable: true })
        const [, payload, signature] = (await provider.logoutToken({ sid: 'victim' })).split('.')
        return send(`${base64url(toJson(header))}.${payload}.${signature}`)
      }
      case 'parts':
        return send(hostile.parts.map((part, i) => (i % 2 === 0 ? part : base64url(part))).join('.'))
      case 'body': {
        const headers = hostile.type === '' ? {} : { 'content-type': hostile.type }
        const answer = await app.inject({ method: 'POST', url: '/backchannel-logout', headers, payload: hostile.body })
        return answer.statusCode
      }
      case 'query': {
        const query = new URLSearchParams()
        query.set('iss', hostile.iss ?? 'none')
        query.set('sid', hostile.sid ?? '')
        const answer = await app.inject(`/frontchannel-logout/${encodeURIComponent(hostile.name)}?${query}`)
        return answer.statusCode
      }
    }
  }

  await fc.assert(
    fc.asyncProperty(fc.oneof(changedClaim, changedHeader, garbled, garbledBody, query), async (request) => {
      const status = await perform(request)
      return status >= 400 && status < 500
    }),
    { numRuns: runs }
  )
  t.same(await service.database.snapshot(), before)
  t.same(await service.spool.list(1), [])
  t.notMatch(service.logs.join('\n'), /"level":(50|60)/, 'and none was a mistake of ours')
})

t.test('a token that its issuer signed can still not do more than end a session', async (t) => {
  const service = await build(t)
  const { provider } = service
  const key = provider.keys[0] as SigningKey
  const values = [
    "'; drop table msal_logout.purges; --",
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

type Hostile =
  | { kind: 'claim'; name: string; value: unknown }
  | { kind: 'header'; name: string; value: unknown }
  | { kind: 'parts'; parts: string[] }
  | { kind: 'body'; type: string; body: string }
  | { kind: 'query'; iss: string | null; sid: string | null; name: string }

// Generated hostile requests; HOSTILE_RUNS says how many (`npm run test:faults`: 10,000), short by default.
import { setTimeout as delay } from 'node:timers/promises'
import fc from 'fast-check'
import t from 'tap'
import { createDatabase } from './fixtures/database.ts'
import type { SigningKey } from './fixtures/identity-provider.ts'
import {
  backChannelLogoutEvent,
  clientId,
  logoutClaims,
  signText,
  startIdentityProvider
} from './fixtures/identity-provider.ts'
import { startServer } from './fixtures/server.ts'
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

const hostile = fc.oneof(changedClaim, changedHeader, garbled, garbledBody, query)

/** A request as it goes over the wire. */
interface Sent {
  readonly method: 'GET' | 'POST'
  readonly url: string
  readonly headers: Record<string, string>
  readonly payload: string
}

/** Makes the requests of an attacker who has everything but the key: `other` and `victim` are tokens that he has seen. */
function createAttacker(issuer: string, kid: string | undefined, other: string, victim: string) {
  const backChannel = (payload: string, type = 'application/x-www-form-urlencoded'): Sent => ({
    method: 'POST',
    url: '/backchannel-logout',
    headers: type === '' ? {} : { 'content-type': type },
    payload
  })
  const post = (token: string) => backChannel(new URLSearchParams({ logout_token: token }).toString())

  return (request: Hostile): Sent => {
    switch (request.kind) {
      case 'claim': {
        const claims: Record<string, unknown> = { ...logoutClaims(issuer, { sid: 'victim' }) }
        Object.defineProperty(claims, request.name, { value: request.value ?? null, enumerable: true })
        const [header, , signature] = other.split('.')
        return post(`${header}.${base64url(toJson(claims))}.${signature}`)
      }
      case 'header': {
        const header: Record<string, unknown> = { alg: 'RS256', kid, typ: 'logout+jwt' }
        Object.defineProperty(header, request.name, { value: request.value ?? null, enumerable: true })
        const [, payload, signature] = victim.split('.')
        return post(`${base64url(toJson(header))}.${payload}.${signature}`)
      }
      case 'parts':
        return post(request.parts.map((part, i) => (i % 2 === 0 ? part : base64url(part))).join('.'))
      case 'body':
        return backChannel(request.body, request.type)
      case 'query': {
        const query = new URLSearchParams({ iss: request.iss ?? 'none', sid: request.sid ?? '' })
        const url = `/frontchannel-logout/${encodeURIComponent(request.name)}?${query}`
        return { method: 'GET', url, headers: {}, payload: '' }
      }
    }
  }
}

t.test('hostile requests get 4xx, and change nothing', { timeout: 1_200_000 }, async (t) => {
  const service = await build(t, {
    app: { limitRejections: () => 0 },
    spool: { unverified: { maxCount: 100 } }
  })
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

  await fc.assert(
    fc.asyncProperty(hostile, async (request) => {
      const { statusCode, body } = await app.inject(attack(request))
      return isRefused(statusCode, body)
    }),
    { numRuns: runs }
  )
  t.same(await service.database.snapshot(), before)
  for (const { name, request, at } of await service.spool.list(1_000)) {
    await t.rejects(service.carryOut(request, at - 60_000), { name: 'RejectedError' }, name) // as of when the keys were older
  }
  t.same(await service.database.snapshot(), before, 'nor does what was kept')
  t.notMatch(service.logs.join('\n'), /"level":60|"failed"/, 'and none was a mistake of ours')
})

/** 503 too, for a key id that was made up: while the keys may not be fetched again, nobody can tell. */
function isRefused(status: number, body: string): boolean {
  return (status >= 400 && status < 500) || (status === 503 && body.includes('"temporarily_unavailable"'))
}

t.test('hostile requests leave the memory of a process as it was', { timeout: 600_000 }, async (t) => {
  const database = await createDatabase(t)
  const provider = await startIdentityProvider(t)
  // The product need not know: the process is told beforehand to tell what it uses.
  const tell = `
    process.on('SIGUSR2', () => {
      globalThis.gc()
      process.stdout.write(JSON.stringify({ memory: process.memoryUsage() }) + '\\n')
    })`
  const server = await startServer(
    t,
    { DATABASE_URL: database.url, ISSUER: provider.issuer, CLIENT_IDS: clientId, LOG_LEVEL: 'warn' },
    [process.execPath, '--expose-gc', `--import=data:text/javascript,${encodeURIComponent(tell)}`]
  )
  const measure = async () => {
    const told = server.output.length
    server.process.kill('SIGUSR2')
    for (;;) {
      const line = server.output.slice(told).find((entry) => entry.startsWith('{"memory"'))
      if (line !== undefined) {
        return JSON.parse(line).memory as NodeJS.MemoryUsage
      }
      await delay(10)
    }
  }
  const attack = createAttacker(
    provider.issuer,
    provider.keys[0]?.kid,
    await provider.logoutToken({ sid: 'other' }),
    await provider.logoutToken({ sid: 'victim' })
  )
  const send = async (seed: number) => {
    const requests = fc.sample(hostile, { numRuns: runs, seed }).map(attack)
    const statuses = new Set<number>()
    await Promise.all(
      Array.from({ length: 32 }, async () => {
        for (let next = requests.pop(); next !== undefined; next = requests.pop()) {
          const { url, payload, ...init } = next
          const answer = await server.fetch(`${server.publicUrl}${url}`, {
            ...init,
            ...(init.method === 'POST' ? { body: payload } : {})
          })
          await answer.arrayBuffer()
          statuses.add(answer.status)
        }
      })
    )
    return statuses
  }

  await send(1)
  const first = await measure()
  const statuses = await send(2)
  const second = await measure()
  const megabytes = ({ heapUsed, external, rss }: NodeJS.MemoryUsage) =>
    [heapUsed, external, rss].map((bytes) => (bytes / 2 ** 20).toFixed(1)).join(', ')
  t.comment(`heap, external, resident MB: ${megabytes(first)} after ${runs}, ${megabytes(second)} after ${2 * runs}`)
  t.notOk([...statuses].some((status) => status < 400 || status === 500))
  t.ok(second.heapUsed < first.heapUsed + 3 * 2 ** 20, 'the heap')
  t.ok(second.external < first.external + 2 ** 20, 'what lies beside it')
  t.ok(second.rss < first.rss * 1.1 + 8 * 2 ** 20, 'all of it')
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

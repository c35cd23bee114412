// A transmitter, or somebody in its name, that does what none should: nothing ends that was not named, nothing stands still for ever.
import { createHmac, randomUUID } from 'node:crypto'
import t, { type Test } from 'tap'
import type { RejectionCode } from '../../src/errors.ts'
import { signText } from '../fixtures/identity-provider.ts'
import { listen } from '../fixtures/listen.ts'
import { never, pushAuthorization, type StreamWorld, startStreamWorld } from '../fixtures/stream-world.ts'
import { type EventOptions, paths } from '../fixtures/transmitter.ts'

const uriOf = (type: string) => `https://schemas.openid.net/secevent/${type.replace('/', '/event-type/')}`
const revoked = uriOf('caep/session-revoked')
const seconds = () => Math.floor(Date.now() / 1_000)
const otherIssuer = 'https://other.example'

interface Attack {
  readonly world: StreamWorld
  readonly user: Record<string, unknown>
  /** An event that would end Alice's session, with something else in its place. */
  make(changes?: Partial<Pick<EventOptions, 'claims' | 'header' | 'payload'>>): Promise<string>
  /** Claims as text, so that they can be what no object is. */
  write(claims: string): Promise<string>
}
/** Rejected for this reason; or acknowledged, and ignored for this one. */
type Expected = RejectionCode | { readonly ignored: string }
type Bad = [name: string, make: (attack: Attack) => Promise<string>, expected: Expected]

const subject =
  (value: (attack: Attack) => unknown): Bad[1] =>
  (attack) =>
    attack.make({ claims: { sub_id: value(attack) } })
const events =
  (value: unknown): Bad[1] =>
  ({ make }) =>
    make({ claims: { events: value } })
const forged =
  (header: Record<string, unknown>, sign: (input: string, attack: Attack) => string): Bad[1] =>
  async (attack) => {
    const [, payload] = (await attack.make()).split('.')
    const input = `${Buffer.from(JSON.stringify({ typ: 'secevent+jwt', ...header })).toString('base64url')}.${payload}`
    return `${input}.${sign(input, attack)}`
  }
const session = { format: 'opaque', id: 's1' }
const event = { event_timestamp: 1 }

const bad: readonly Bad[] = [
  [
    'an event that stands twice',
    ({ write }) => write(`"events":{"${revoked}":{},"${revoked}":{}},"sub_id":{"format":"opaque","id":"s1"}`),
    'ERR_TOKEN_DUPLICATE_KEY'
  ],
  [
    'a subject that stands twice',
    ({ write }) =>
      write(`"events":{"${revoked}":{}},"sub_id":{"format":"opaque","id":"s0"},"sub_id":{"format":"opaque","id":"s1"}`),
    'ERR_TOKEN_DUPLICATE_KEY'
  ],
  [
    'a user within a subject that stands twice',
    ({ write }) => write(`"events":{"${revoked}":{}},"sub_id":{"format":"opaque","id":"s0","\\u0069d":"s1"}`),
    'ERR_TOKEN_DUPLICATE_KEY'
  ],
  ['an event that is a list', events({ [revoked]: [{}] }), 'ERR_TOKEN_EVENTS_MALFORMED'],
  ['an event that is null', events({ [revoked]: null }), 'ERR_TOKEN_EVENTS_MALFORMED'],
  [
    'an event of ours, and one that is none',
    events({ [revoked]: {}, 'urn:example:of-somebody': 7 }),
    'ERR_TOKEN_EVENTS_MALFORMED'
  ],
  [
    'an event by the name of a prototype',
    ({ write }) => write('"events":{"__proto__":{"format":"opaque"}},"sub_id":{"format":"opaque","id":"s1"}'),
    { ignored: 'event_unknown' }
  ],
  ['another family of the same name', events({ [uriOf('evil/session-revoked')]: event }), { ignored: 'event_unknown' }],
  ['the name in capitals', events({ [revoked.toUpperCase()]: event }), { ignored: 'event_unknown' }],
  ['the name with a slash', events({ [`${revoked}/`]: event }), { ignored: 'event_unknown' }],
  [
    'the name at another host',
    events({ [revoked.replace('schemas.openid.net', 'schemas.openid.net.evil.example')]: event }),
    { ignored: 'event_unknown' }
  ],
  ['a subject that is a list', subject(() => [session]), 'ERR_SET_SUBJECT_MALFORMED'],
  ['a format that is a list', subject(() => ({ format: ['opaque'], id: 's1' })), 'ERR_SET_SUBJECT_MALFORMED'],
  ['a format in capitals', subject(() => ({ format: 'OPAQUE', id: 's1' })), { ignored: 'subject_unknown' }],
  ['a user of a session', subject(({ user }) => ({ ...user, format: 'opaque' })), 'ERR_SET_SUBJECT_MALFORMED'],
  ['an id that is a list', subject(() => ({ format: 'opaque', id: ['s1'] })), 'ERR_SET_SUBJECT_MALFORMED'],
  ['an id with a zero in it', subject(() => ({ format: 'opaque', id: 's1\u0000' })), 'ERR_SET_SUBJECT_MALFORMED'],
  [
    'a session and a user beside an unknown format',
    subject(({ user }) => ({ format: 'urn:example:own', session, user })),
    { ignored: 'subject_unknown' }
  ],
  ['a user of another issuer', subject(({ user }) => ({ ...user, iss: otherIssuer })), { ignored: 'foreign_issuer' }],
  [
    'the issuer with a slash more',
    subject(({ user }) => ({ ...user, iss: `${user.iss}/` })),
    { ignored: 'foreign_issuer' }
  ],
  [
    'the transmitter as the issuer of the user',
    subject(({ world, user }) => ({ ...user, iss: world.transmitter.issuer })),
    { ignored: 'foreign_issuer' }
  ],
  [
    'a session of ours, and a user of another issuer',
    subject(({ user }) => ({ format: 'complex', session, user: { ...user, iss: otherIssuer } })),
    { ignored: 'foreign_issuer' }
  ],
  [
    'a user where the tenant stands',
    subject(({ user }) => ({ format: 'complex', tenant: user, device: user, org_unit: user })),
    { ignored: 'no_user' }
  ],
  [
    'a user where the session stands',
    subject(({ user }) => ({ format: 'complex', session: user })),
    { ignored: 'session_unknown' }
  ],
  [
    'every session, where the user stands',
    subject(() => ({ format: 'complex', tenant: { format: 'opaque', id: 'ALL' } })),
    { ignored: 'no_user' }
  ],
  [
    'complex subjects in three layers',
    subject(({ user }) => ({
      format: 'complex',
      user: { format: 'complex', user: { format: 'complex', user } }
    })),
    'ERR_SET_SUBJECT_MALFORMED'
  ],
  ['a complex subject without a word of it', subject(({ user }) => ({ user, session })), 'ERR_SET_SUBJECT_MALFORMED'],
  ['users in a list', subject(({ user }) => ({ format: 'complex', user: [user, user] })), 'ERR_SET_SUBJECT_MALFORMED'],
  [
    '700 aliases',
    subject(() => ({ format: 'aliases', identifiers: Array(700).fill({ format: 'opaque', id: 's1' }) })),
    'ERR_SET_SUBJECT_MALFORMED'
  ],
  [
    'an alias that is none, beside one that is',
    subject(({ user }) => ({ format: 'aliases', identifiers: [user, { format: 'opaque' }] })),
    'ERR_SET_SUBJECT_MALFORMED'
  ],
  [
    'an address in capitals',
    subject(() => ({ format: 'email', email: 'USER@EXAMPLE.COM' })),
    { ignored: 'no_directory' }
  ],
  [
    'an address of another script',
    subject(() => ({ format: 'email', email: 'user@bücher.example' })),
    { ignored: 'no_directory' }
  ],
  [
    'an address in quotes',
    subject(() => ({ format: 'email', email: '"a b@c"@example.com' })),
    { ignored: 'no_directory' }
  ],
  [
    'an address with a quote',
    subject(() => ({ format: 'email', email: "'or'1'='1@example.com" })),
    { ignored: 'no_directory' }
  ],
  ['no algorithm', forged({ alg: 'none' }, () => 'x'), 'ERR_TOKEN_ALGORITHM'],
  ['no algorithm and no signature', forged({ alg: 'none' }, () => ''), 'ERR_TOKEN_MALFORMED'],
  [
    'the public key as a secret',
    forged({ alg: 'HS256' }, (input, { world }) =>
      createHmac('sha256', JSON.stringify(world.transmitter.keys[0]?.jwk)).update(input).digest('base64url')
    ),
    'ERR_TOKEN_ALGORITHM'
  ],
  [
    'a payload that is not encoded',
    forged({ alg: 'RS256', crit: ['b64'], b64: false }, () => 'x'),
    'ERR_TOKEN_CRITICAL'
  ],
  [
    'a verification, and the end of a session',
    ({ make, world }) =>
      make({
        claims: {
          events: { [uriOf('ssf/verification')]: {}, [revoked]: event },
          sub_id: {
            format: 'complex',
            user: { format: 'opaque', id: [...world.transmitter.streams.keys()][0] },
            session
          }
        }
      }),
    'ERR_SET_STREAM'
  ],
  [
    'news of the stream, and a verification that nobody asked for',
    ({ make, world }) =>
      make({
        claims: {
          events: {
            [uriOf('ssf/stream-updated')]: { status: 'disabled' },
            [uriOf('ssf/verification')]: { state: 'made up' }
          },
          sub_id: { format: 'opaque', id: [...world.transmitter.streams.keys()][0] }
        }
      }),
    'ERR_SET_STATE'
  ],
  ['a time of 1e300', ({ make }) => make({ claims: { iat: 1e300 } }), 'ERR_TOKEN_IAT_MALFORMED'],
  ['a time before 1970', ({ make }) => make({ claims: { iat: -1 } }), 'ERR_TOKEN_IAT_MALFORMED'],
  ['a jti that is an object', ({ make }) => make({ claims: { jti: { id: 1 } } }), 'ERR_TOKEN_JTI_MALFORMED']
]

async function setUp(t: Test, delivery: 'poll' | 'push', stream: Record<string, unknown> = {}): Promise<Attack> {
  const world = await startStreamWorld(t, {
    issuers: [{ name: 'other', issuer: otherIssuer, clientIds: ['client-a'] }],
    stream: { delivery, ...stream }
  })
  const { transmitter, issuer, service } = world
  await world.round()
  await world.round()
  await world.signIn({ homeAccountId: 'user', partitionKey: 'alice', sid: 's1', subject: 'user' })
  await world.signIn({ homeAccountId: 'bob', partitionKey: 'bob', sid: 's2', subject: 'bob' })
  await service.login({ issuer: otherIssuer, homeAccountId: 'user', partitionKey: 'other', sid: 's1', subject: 'user' })
  return {
    world,
    user: { format: 'iss_sub', iss: issuer, sub: 'user' },
    async make(changes = {}) {
      const { token } = await transmitter.eventOf({
        type: 'caep/session-revoked',
        subject: { user: { iss: issuer, sub: 'user' }, session: 's1' },
        ...changes
      })
      return token
    },
    write: (claims) =>
      signText(
        `{"iss":"${transmitter.issuer}","aud":"https://receiver.example/audience","jti":"${randomUUID()}","iat":${seconds()},${claims}}`,
        { typ: 'secevent+jwt', alg: 'RS256', kid: transmitter.keys[0]?.kid },
        transmitter.keys[0] as never
      )
  }
}

t.test('what is pushed in bad faith ends nothing, and says why', async (t) => {
  const attack = await setUp(t, 'push')
  const { world } = attack
  const before = await world.service.database.snapshot()
  for (const [name, make, expected] of bad) {
    const isRejected = typeof expected === 'string'
    const ignored = isRejected ? 0 : await world.counted('ignored', expected.ignored)
    const answer = await world.push(await make(attack))
    t.equal(answer.statusCode, isRejected ? 400 : 202, `${name}: ${answer.body}`)
    if (isRejected) {
      const listed = (await world.service.operate('GET', '/admin/rejections?limit=1')).json()
      t.match(listed, { rejections: [{ code: expected }] }, name)
    } else {
      t.equal(await world.counted('ignored', expected.ignored), ignored + 1, `${name}: ${expected.ignored}`)
    }
    t.same(await world.service.database.snapshot(), before, `${name} changes nothing`)
  }
  t.equal((await world.push(await attack.make())).statusCode, 202)
  t.same(await world.service.rows(), ['client-a/bob', 'client-a/other'], 'and a good one is taken')
})

t.test(
  'members that nobody knows, txn and toe of any kind, and times that are none, change nothing of what is meant',
  async (t) => {
    const { world, make, user } = await setUp(t, 'push')
    const { service } = world
    const good: readonly [name: string, changes: Parameters<Attack['make']>[0]][] = [
      ['a txn that is an object', { claims: { txn: { a: [1] } } }],
      ['a txn of 20,000 characters', { claims: { txn: 'x'.repeat(20_000) } }],
      ['a toe in milliseconds', { claims: { toe: Date.now() } }],
      ['a toe before 1970', { claims: { toe: -5 } }],
      ['a toe of 1e300', { claims: { toe: 1e300 } }],
      ['an event in the future', { payload: { event_timestamp: seconds() + 1e6 } }],
      ['an event at 1e300', { payload: { event_timestamp: 1e300 } }],
      ['an event before 1970', { payload: { event_timestamp: -1 } }],
      ['an event at a time that is a text', { payload: { event_timestamp: '1' } }],
      [
        'further members',
        { claims: { sub_id: { ...user, format: 'iss_sub', email: 'bob@example.com', session: 's2' } } }
      ],
      [
        '400 types in one token',
        {
          claims: {
            events: Object.fromEntries([
              ...Array.from({ length: 400 }, (_, i) => [
                `https://schemas.openid.net/secevent/caep/event-type/a-${i}`,
                {}
              ]),
              [revoked, {}]
            ])
          }
        }
      ]
    ]
    for (const [name, changes] of good) {
      await world.signIn({ homeAccountId: 'user', partitionKey: 'alice', sid: randomUUID(), subject: 'user' })
      const { token } = await world.transmitter.eventOf({
        type: 'caep/session-revoked',
        subject: { user: { iss: world.issuer, sub: 'user' } },
        ...changes
      })
      t.equal((await world.push(token)).statusCode, 202, name)
      t.same(await service.rows(), ['client-a/bob', 'client-a/other'], `${name}: Alice is signed out, and nobody else`)
      // A time ahead of ours would keep her out.
      t.equal(
        await world.signIn({
          homeAccountId: 'user',
          partitionKey: 'alice',
          sid: 'new',
          subject: 'user',
          issuedAt: seconds() + 60
        }),
        true,
        `${name}: she signs in again`
      )
      await world.push(await make({ claims: { sub_id: { format: 'opaque', id: 'new' } } }))
      await service.database.query('truncate msal_logout.tombstones')
    }
  }
)

t.test('a push is its token, under any type; any other form is rejected, and ends nothing', async (t) => {
  const { world, make } = await setUp(t, 'push')
  const push = (payload: string, contentType?: string) =>
    world.service.app.inject({
      method: 'POST',
      url: '/security-events/signals',
      headers: { authorization: pushAuthorization, ...(contentType && { 'content-type': contentType }) },
      payload
    })
  const token = await make()
  const others: readonly [name: string, contentType: string, payload: string][] = [
    ['as JSON', 'application/json', JSON.stringify({ token })],
    ['as a JSON text', 'application/secevent+jwt', JSON.stringify(token)],
    ['as a form', 'application/x-www-form-urlencoded', new URLSearchParams({ token }).toString()],
    ['of several parts', 'multipart/form-data; boundary=x', `--x\r\n\r\n${token}\r\n--x--`],
    ['without its end', 'application/secevent+jwt', token.slice(0, token.lastIndexOf('.'))]
  ]
  for (const [name, contentType, payload] of others) {
    const answer = await push(payload, contentType)
    t.equal(answer.statusCode, 400, `${name}: ${answer.body}`)
    t.match(answer.json(), { err: 'invalid_request', description: String }, name)
  }
  t.equal((await world.service.rows()).length, 3)
  for (const contentType of ['Application/SecEvent+JWT; charset=utf-8', 'application/jwt', 'text/plain', undefined]) {
    t.equal((await push(`\r\n${token}\r\n`, contentType)).statusCode, 202, `${contentType}`)
  }
  t.equal((await world.service.rows()).length, 2)
})

t.test('the same jti by another stream is another event; by the same it is the same', async (t) => {
  const attack = await setUp(t, 'push')
  const { world, make, user } = attack
  const jti = randomUUID()
  t.equal((await world.push(await make({ claims: { jti } }))).statusCode, 202)
  const again = await make({ claims: { jti, sub_id: { ...user, sub: 'bob' } } })
  t.equal((await world.push(again)).statusCode, 202, 'a used id with another user in it')
  t.same(await world.service.rows(), ['client-a/other'], 'both were asked for')
})

t.test('an answer to a poll that is none is no end of the stream', async (t) => {
  const { world, make } = await setUp(t, 'poll')
  const { transmitter, service } = world
  const before = await service.rows()
  const token = await make()
  const big = 'x'.repeat(10 * 1_024 * 1_024)
  const answers: readonly [name: string, fault: { status: number; body: string }][] = [
    ['10 MB', { status: 200, body: JSON.stringify({ sets: { big } }) }],
    ['half of it', { status: 200, body: `{"sets":{"a":"${token.slice(0, 100)}` }],
    ['a page', { status: 200, body: '<html>sign in</html>' }],
    ['nothing', { status: 200, body: '' }],
    ['a list', { status: 200, body: JSON.stringify([{ sets: { a: token } }]) }],
    ['sets in a list', { status: 200, body: JSON.stringify({ sets: [token] }) }],
    ['sets that are a text', { status: 200, body: JSON.stringify({ sets: token }) }],
    ['more that never comes', { status: 200, body: JSON.stringify({ sets: {}, moreAvailable: true }) }],
    ['nothing, and that is said', { status: 204, body: '' }],
    ['a status of its own', { status: 299, body: JSON.stringify({ sets: { a: token } }) }],
    ['401', { status: 401, body: '' }],
    ['403', { status: 403, body: '{"err":"access_denied"}' }],
    ['429', { status: 429, body: '' }],
    ['500', { status: 500, body: big.slice(0, 100_000) }]
  ]
  for (const [name, fault] of answers) {
    transmitter.faults.set(paths.poll, fault)
    await world.round()
    world.pass(4_000)
    t.same(await service.rows(), before, `${name} ends nothing`)
  }
  for (const fault of ['cut', 'hang'] as const) {
    transmitter.faults.set(paths.poll, fault)
    await world.round()
    world.pass(4_000)
  }
  transmitter.faults.clear()
  transmitter.queue.clear()
  await transmitter.emit({
    type: 'caep/session-revoked',
    subject: { user: { iss: world.issuer, sub: 'user' } }
  })
  await world.round()
  t.same(await service.rows(), ['client-a/bob', 'client-a/other'], 'and what comes then is done')
  t.equal((await world.state()).failure, undefined)
})

t.test('a redirect is not followed: the credential is for the transmitter alone', async (t) => {
  const { world } = await setUp(t, 'poll')
  const asked: string[] = []
  const elsewhere = await listen(t, (request, response) => {
    asked.push(`${request.headers.authorization}`)
    response.end('{"sets":{}}')
  })
  const { transmitter } = world
  for (const path of [paths.poll, paths.token, paths.status, paths.streams]) {
    for (const status of [301, 302, 303, 307, 308]) {
      transmitter.faults.set(path, { status, body: '', headers: { location: `${elsewhere}/caught` } })
      await world.round()
      world.pass(8_000)
    }
    transmitter.faults.clear()
  }
  t.same(asked, [])
  await world.round()
  t.equal((await world.state()).failure, undefined, 'it works again')
})

t.test('metadata that point to a place without TLS, or to none, send no credential there', async (t) => {
  for (const url of [
    'http://evil.example/',
    'ftp://evil.example/',
    'javascript:1',
    '//evil.example',
    '',
    7,
    {},
    ['x']
  ]) {
    const world = await startStreamWorld(t, {})
    world.transmitter.metadata = { configuration_endpoint: url }
    const state = await world.round()
    t.match(state.failure, { code: 'ERR_STREAM_METADATA' }, JSON.stringify(url))
    t.same(world.transmitter.count('POST', paths.streams), 0)
  }
})

t.test('a poll that is too large is asked for in smaller parts', async (t) => {
  const { world } = await setUp(t, 'poll')
  const { transmitter, service } = world
  // Of a transmitter whose tokens are larger than ours may be, 100 are more than is read of one answer.
  for (let i = 0; i < 90; i += 1) {
    transmitter.put(`large-${i}`, 'x'.repeat(100_000))
  }
  await transmitter.emit({ type: 'caep/session-revoked', subject: { user: { iss: world.issuer, sub: 'user' } } })
  for (let rounds = 0; rounds < 6; rounds += 1) {
    await world.round()
    world.pass(400)
  }
  t.equal(transmitter.queue.size, 0)
  t.equal(transmitter.errors.size, 90, 'each is reported')
  t.same(await service.rows(), ['client-a/bob', 'client-a/other'], 'and what stood behind them is done')
})

t.test('an acknowledgement that is not taken holds nothing up', async (t) => {
  const { world, make } = await setUp(t, 'poll')
  const { transmitter, service } = world
  transmitter.rejects = ({ setErrs }) => setErrs !== undefined
  transmitter.put('bad', 'no token')
  await world.round()
  world.pass(400)
  await world.round()
  world.pass(400)
  const { jti } = await transmitter.emit({
    type: 'caep/session-revoked',
    subject: { user: { iss: world.issuer, sub: 'user' } }
  })
  await world.round()
  world.pass(400)
  await world.round()
  t.same(await service.rows(), ['client-a/bob', 'client-a/other'], 'what comes later is done')
  world.pass(400)
  await world.round()
  t.ok(transmitter.acknowledged.includes(jti), 'and acknowledged')
  t.match((await world.state()).failure, { code: 'ERR_STREAM_REQUEST' }, 'it is seen that something is wrong')
  transmitter.rejects = () => false
  world.pass(4_000)
  await world.round()
  world.pass(4_000)
  await world.round()
  t.equal(transmitter.errors.size, 1)
  t.equal((await world.state()).failure, undefined)
  t.equal((await world.push(await make())).statusCode, 404)
})

t.test('a transmitter that sends for ever is left when the instance stops', { timeout: 30_000 }, async (t) => {
  const { world } = await setUp(t, 'poll')
  const { transmitter, service } = world
  const stopping = new AbortController()
  let polls = 0
  transmitter.rejects = () => {
    polls += 1
    for (let i = 0; i < 50; i += 1) {
      transmitter.put(randomUUID(), 'no token')
    }
    if (polls === 5) {
      stopping.abort()
    }
    return false
  }
  world.pass(10)
  await Promise.all(await service.streams.tick(stopping.signal))
  t.ok(polls <= 6, `${polls} polls`)
  t.equal(never.aborted, false)
})

import { generateKeyPairSync, randomUUID } from 'node:crypto'
import { CompactEncrypt, generateSecret } from 'jose'
import t from 'tap'
import type { RejectionCode } from '../src/errors.ts'
import {
  backChannelLogoutEvent,
  clientId,
  createSigningKey,
  type IdentityProvider,
  logoutClaims,
  type SigningKey,
  signText
} from './fixtures/identity-provider.ts'
import { build, type Service, type ServiceOptions } from './fixtures/service.ts'

const now = () => Math.floor(Date.now() / 1_000)
const part = (value: unknown) =>
  Buffer.from(typeof value === 'string' ? value : JSON.stringify(value)).toString('base64url')

interface Context {
  provider: IdentityProvider
  key: SigningKey
  elsewhere: SigningKey
}
type Make = (context: Context) => Promise<string> | string

/** The token of a story in which the claims are as given and all else is right. */
const claims =
  (changes: Record<string, unknown> | (() => Record<string, unknown>)): Make =>
  ({ provider }) =>
    provider.logoutToken({ sid: 'a-session', ...(typeof changes === 'function' ? changes() : changes) })
const header =
  (changes: Record<string, unknown>): Make =>
  ({ provider }) =>
    provider.logoutToken({ sid: 'a-session' }, changes)
/** A token whose payload is this text, signed. */
const payload =
  (text: (claims: Record<string, unknown>) => string): Make =>
  ({ provider, key }) =>
    signText(text(logoutClaims(provider.issuer, { sid: 'a-session' })), { typ: 'logout+jwt', kid: key.kid }, key)
/** A correct token, with its three parts changed as text. */
const parts =
  (change: (header: string, payload: string, signature: string) => string[]): Make =>
  async ({ provider }) =>
    change(...((await provider.logoutToken({ sid: 'a-session' })).split('.') as [string, string, string])).join('.')
const insert = (json: string, text: string) => `{${text},${json.slice(1)}`

const badTokens: [name: string, make: Make, code: RejectionCode][] = [
  // form
  ['an empty token', () => '', 'ERR_REQUEST_FORM'],
  ['no JWT at all', () => 'hello', 'ERR_TOKEN_MALFORMED'],
  ['two parts', () => 'e30.e30', 'ERR_TOKEN_MALFORMED'],
  ['four parts', () => 'e30.e30.e30.e30', 'ERR_TOKEN_MALFORMED'],
  ['an empty header', parts((_h, p, s) => ['', p, s]), 'ERR_TOKEN_MALFORMED'],
  ['an empty payload', parts((h, _p, s) => [h, '', s]), 'ERR_TOKEN_MALFORMED'],
  ['an empty signature', parts((h, p) => [h, p, '']), 'ERR_TOKEN_MALFORMED'],
  ['a header that is not JSON', parts((_h, p, s) => [part('{'), p, s]), 'ERR_TOKEN_MALFORMED'],
  ['a header that is an array', parts((_h, p, s) => [part([]), p, s]), 'ERR_TOKEN_MALFORMED'],
  ['a header in base64 with padding', parts((h, p, s) => [`${h}=`, p, s]), 'ERR_TOKEN_MALFORMED'],
  ['a header with a line break', parts((h, p, s) => [`${h.slice(0, 4)}\n${h.slice(4)}`, p, s]), 'ERR_TOKEN_MALFORMED'],
  ['a payload that is null', payload(() => 'null'), 'ERR_TOKEN_MALFORMED'],
  ['a payload that is a string', payload(() => '"text"'), 'ERR_TOKEN_MALFORMED'],
  ['a payload with a byte order mark', payload((c) => `\ufeff${JSON.stringify(c)}`), 'ERR_TOKEN_MALFORMED'],
  [
    'a payload in Latin-1',
    parts((h, _p, s) => [h, Buffer.from('{"iss":"\xe9"}', 'latin1').toString('base64url'), s]),
    'ERR_TOKEN_MALFORMED'
  ],
  ['an encrypted token', encrypted, 'ERR_TOKEN_ENCRYPTED'],
  [
    'a duplicate claim',
    payload((c) => insert(JSON.stringify(c), '"iss":"https://evil.example"')),
    'ERR_TOKEN_DUPLICATE_KEY'
  ],
  [
    'a duplicate claim, once escaped',
    payload((c) => insert(JSON.stringify(c), '"s\\u0069d":"another"')),
    'ERR_TOKEN_DUPLICATE_KEY'
  ],
  [
    'a duplicate name deep inside',
    payload((c) => insert(JSON.stringify(c), '"x":[{"y":{"a":1,"b":"{","a":2}}]')),
    'ERR_TOKEN_DUPLICATE_KEY'
  ],
  [
    'a duplicate header',
    parts((h, p, s) => [part(insert(Buffer.from(h, 'base64url').toString(), '"alg":"none"')), p, s]),
    'ERR_TOKEN_DUPLICATE_KEY'
  ],
  // header
  ['alg none', parts((_h, p) => [part({ alg: 'none' }), p, 'AA']), 'ERR_TOKEN_ALGORITHM'],
  ['alg None', parts((_h, p) => [part({ alg: 'None' }), p, 'AA']), 'ERR_TOKEN_ALGORITHM'],
  [
    'alg HS256 with the public key as secret',
    parts((_h, p) => [part({ alg: 'HS256', typ: 'logout+jwt' }), p, 'AA']),
    'ERR_TOKEN_ALGORITHM'
  ],
  ['alg that is missing', parts((_h, p, s) => [part({ typ: 'logout+jwt' }), p, s]), 'ERR_TOKEN_ALGORITHM_MISSING'],
  ['alg that is an array', parts((_h, p, s) => [part({ alg: ['RS256'] }), p, s]), 'ERR_TOKEN_ALGORITHM_MALFORMED'],
  [
    'an algorithm the issuer does not use',
    async ({ provider, elsewhere }) => provider.logoutToken({}, {}, elsewhere),
    'ERR_TOKEN_ALGORITHM'
  ],
  ['a critical header', header({ crit: ['urn:example:known'], 'urn:example:known': 1 }), 'ERR_TOKEN_CRITICAL'],
  [
    'an empty list of critical headers',
    parts((h, p, s) => [part(insert(Buffer.from(h, 'base64url').toString(), '"crit":[]')), p, s]),
    'ERR_TOKEN_CRITICAL'
  ],
  ['typ of an access token', header({ typ: 'at+jwt' }), 'ERR_TOKEN_TYPE'],
  ['typ of a security event token', header({ typ: 'secevent+jwt' }), 'ERR_TOKEN_TYPE'],
  ['typ of another media type', header({ typ: 'text/logout+jwt' }), 'ERR_TOKEN_TYPE'],
  ['typ that is a number', parts((_h, p, s) => [part({ alg: 'RS256', typ: 1 }), p, s]), 'ERR_TOKEN_TYPE_MALFORMED'],
  [
    'a kid that is a number',
    parts((_h, p, s) => [part({ alg: 'RS256', typ: 'JWT', kid: 1 }), p, s]),
    'ERR_TOKEN_KID_MALFORMED'
  ],
  // keys and signature
  ['an unknown kid', header({ kid: 'unknown' }), 'ERR_TOKEN_KEY'],
  [
    'a key of its own in the header',
    async ({ provider }) => {
      const own = await createSigningKey('RS256', 'own')
      return provider.logoutToken({}, { jwk: own.jwk, jku: 'http://127.0.0.1:1/', x5u: 'http://127.0.0.1:1/' }, own)
    },
    'ERR_TOKEN_KEY'
  ],
  [
    'another key under a known kid',
    async ({ provider, key }) => provider.logoutToken({}, {}, await createSigningKey('RS256', key.kid)),
    'ERR_TOKEN_SIGNATURE'
  ],
  [
    'a changed claim',
    parts((h, p, s) => [h, part({ ...JSON.parse(Buffer.from(p, 'base64url').toString()), sub: 'admin' }), s]),
    'ERR_TOKEN_SIGNATURE'
  ],
  [
    'a changed header',
    parts((h, p, s) => [part({ ...JSON.parse(Buffer.from(h, 'base64url').toString()), typ: 'JWT' }), p, s]),
    'ERR_TOKEN_SIGNATURE'
  ],
  ['a signature cut short', parts((h, p, s) => [h, p, s.slice(0, -8)]), 'ERR_TOKEN_SIGNATURE'],
  ['a signature that is no base64url', parts((h, p, s) => [h, p, `${s.slice(0, -2)}*!`]), 'ERR_TOKEN_MALFORMED'],
  [
    'the signature of another token',
    async ({ provider }) => {
      const [one, two] = [
        await provider.logoutToken({ sid: 'a-session' }),
        await provider.logoutToken({ sid: 'other' })
      ]
      return [...one.split('.').slice(0, 2), two.split('.')[2]].join('.')
    },
    'ERR_TOKEN_SIGNATURE'
  ],
  // iss
  ['no iss', claims({ iss: undefined }), 'ERR_TOKEN_ISSUER_MISSING'],
  ['an unknown iss', claims({ iss: 'https://evil.example' }), 'ERR_TOKEN_ISSUER'],
  [
    'the iss with a slash more',
    ({ provider }) => provider.logoutToken({ iss: `${provider.issuer}/` }),
    'ERR_TOKEN_ISSUER'
  ],
  [
    'the iss in upper case',
    ({ provider }) => provider.logoutToken({ iss: provider.issuer.toUpperCase() }),
    'ERR_TOKEN_ISSUER'
  ],
  [
    'an iss that is an array',
    ({ provider }) => provider.logoutToken({ iss: [provider.issuer] }),
    'ERR_TOKEN_ISSUER_MALFORMED'
  ],
  ['__proto__ as iss', claims({ iss: '__proto__' }), 'ERR_TOKEN_ISSUER'],
  // aud
  ['no aud', claims({ aud: undefined }), 'ERR_TOKEN_AUDIENCE_MISSING'],
  ['another client as aud', claims({ aud: 'client-z' }), 'ERR_TOKEN_AUDIENCE'],
  ['other clients as aud', claims({ aud: ['client-y', 'client-z'] }), 'ERR_TOKEN_AUDIENCE'],
  ['an empty list as aud', claims({ aud: [] }), 'ERR_TOKEN_AUDIENCE'],
  ['an aud that holds ours as a part', claims({ aud: `${clientId}-2` }), 'ERR_TOKEN_AUDIENCE'],
  ['an aud with a member that is no string', claims({ aud: [clientId, 1] }), 'ERR_TOKEN_AUDIENCE_MALFORMED'],
  ['an aud that is an object', claims({ aud: { [clientId]: true } }), 'ERR_TOKEN_AUDIENCE_MALFORMED'],
  // iat
  ['no iat', claims({ iat: undefined }), 'ERR_TOKEN_IAT_MISSING'],
  ['an iat that is a string', claims(() => ({ iat: String(now()) })), 'ERR_TOKEN_IAT_MALFORMED'],
  ['an iat in the future', claims(() => ({ iat: now() + 120 })), 'ERR_TOKEN_IAT_FUTURE'],
  ['an iat in milliseconds', claims(() => ({ iat: Date.now() })), 'ERR_TOKEN_IAT_MALFORMED'],
  ['a negative iat', claims({ iat: -1 }), 'ERR_TOKEN_IAT_MALFORMED'],
  [
    'an iat beyond every number',
    payload((c) => JSON.stringify({ ...c, iat: 0 }).replace('"iat":0', '"iat":1e999')),
    'ERR_TOKEN_IAT_MALFORMED'
  ],
  ['an iat that is null', claims({ iat: null }), 'ERR_TOKEN_IAT_MALFORMED'],
  ['an iat too long ago', claims(() => ({ iat: now() - 3_600 })), 'ERR_TOKEN_TOO_OLD'],
  // exp, nbf
  ['no exp', claims({ exp: undefined }), 'ERR_TOKEN_EXP_MISSING'],
  ['an exp that is a string', claims(() => ({ exp: String(now() + 60) })), 'ERR_TOKEN_EXP_MALFORMED'],
  ['an exp that is null', claims({ exp: null }), 'ERR_TOKEN_EXP_MALFORMED'],
  [
    'an exp beyond every number',
    payload((c) => JSON.stringify({ ...c, exp: 0 }).replace('"exp":0', '"exp":1e999')),
    'ERR_TOKEN_EXP_MALFORMED'
  ],
  ['an exp in the past', claims(() => ({ iat: now() - 300, exp: now() - 120 })), 'ERR_TOKEN_EXPIRED'],
  ['an nbf in the future', claims(() => ({ nbf: now() + 120 })), 'ERR_TOKEN_NBF_FUTURE'],
  ['an nbf that is a string', claims({ nbf: '1' }), 'ERR_TOKEN_NBF_MALFORMED'],
  // jti
  ['no jti', claims({ jti: undefined }), 'ERR_TOKEN_JTI_MISSING'],
  ['an empty jti', claims({ jti: '' }), 'ERR_TOKEN_JTI_MALFORMED'],
  ['a jti that is a number', claims({ jti: 1 }), 'ERR_TOKEN_JTI_MALFORMED'],
  ['a jti with a zero character', claims({ jti: 'a\0b' }), 'ERR_TOKEN_JTI_MALFORMED'],
  ['a jti of 2,000 characters', claims({ jti: 'x'.repeat(2_000) }), 'ERR_TOKEN_JTI_TOO_LONG'],
  // sub and sid
  ['neither sub nor sid', claims({ sid: undefined }), 'ERR_TOKEN_SUBJECT_MISSING'],
  ['an empty sid', claims({ sid: '' }), 'ERR_TOKEN_SID_MALFORMED'],
  ['an empty sid beside a sub', claims({ sid: '', sub: 'subject' }), 'ERR_TOKEN_SID_MALFORMED'],
  ['a sid that is null beside a sub', claims({ sid: null, sub: 'subject' }), 'ERR_TOKEN_SID_MALFORMED'],
  ['a sid that is an array beside a sub', claims({ sid: ['a-session'], sub: 'subject' }), 'ERR_TOKEN_SID_MALFORMED'],
  ['a sid that is a number', claims({ sid: 7 }), 'ERR_TOKEN_SID_MALFORMED'],
  ['a sid with a control character', claims({ sid: 'a\u0007' }), 'ERR_TOKEN_SID_MALFORMED'],
  [
    'a sid with half a character',
    payload((c) => JSON.stringify({ ...c, sid: 'HALF' }).replace('HALF', '\\ud800')),
    'ERR_TOKEN_SID_MALFORMED'
  ],
  ['a sid of 2,000 characters', claims({ sid: 'x'.repeat(2_000) }), 'ERR_TOKEN_SID_TOO_LONG'],
  ['an empty sub beside a sid', claims({ sub: '' }), 'ERR_TOKEN_SUB_MALFORMED'],
  ['a sub that is an object', claims({ sub: { a: 1 } }), 'ERR_TOKEN_SUB_MALFORMED'],
  ['a sub with a line break', claims({ sid: undefined, sub: 'a\nb' }), 'ERR_TOKEN_SUB_MALFORMED'],
  // events, nonce
  ['no events', claims({ events: undefined }), 'ERR_TOKEN_EVENTS_MISSING'],
  ['events that are an array', claims({ events: [backChannelLogoutEvent] }), 'ERR_TOKEN_EVENTS_MALFORMED'],
  ['events that are a string', claims({ events: backChannelLogoutEvent }), 'ERR_TOKEN_EVENTS_MALFORMED'],
  ['another event', claims({ events: { 'http://schemas.openid.net/event/other': {} } }), 'ERR_TOKEN_EVENTS'],
  ['an event that is null', claims({ events: { [backChannelLogoutEvent]: null } }), 'ERR_TOKEN_EVENTS_MALFORMED'],
  ['an event that is an array', claims({ events: { [backChannelLogoutEvent]: [] } }), 'ERR_TOKEN_EVENTS_MALFORMED'],
  ['an event that is true', claims({ events: { [backChannelLogoutEvent]: true } }), 'ERR_TOKEN_EVENTS_MALFORMED'],
  ['a nonce', claims({ nonce: 'n' }), 'ERR_TOKEN_NONCE'],
  ['an empty nonce', claims({ nonce: '' }), 'ERR_TOKEN_NONCE'],
  ['a nonce that is null', claims({ nonce: null }), 'ERR_TOKEN_NONCE'],
  // other tokens of the same issuer
  [
    'an ID token',
    ({ provider }) =>
      provider.sign(
        {
          iss: provider.issuer,
          aud: clientId,
          sub: 'subject',
          sid: 'a-session',
          iat: now(),
          exp: now() + 60,
          nonce: 'n',
          jti: 'j'
        },
        { typ: 'JWT' }
      ),
    'ERR_TOKEN_EVENTS_MISSING'
  ],
  [
    'an access token',
    ({ provider }) =>
      provider.sign(
        { iss: provider.issuer, aud: clientId, sub: 'subject', iat: now(), exp: now() + 60, jti: 'j', scope: 'openid' },
        { typ: 'at+jwt' }
      ),
    'ERR_TOKEN_TYPE'
  ],
  [
    'a security event token',
    ({ provider }) =>
      provider.sign(
        {
          iss: provider.issuer,
          aud: clientId,
          sub: 'subject',
          iat: now(),
          exp: now() + 60,
          jti: 'j',
          events: { 'https://schemas.openid.net/secevent/caep/event-type/session-revoked': {} }
        },
        { typ: 'JWT' }
      ),
    'ERR_TOKEN_EVENTS'
  ]
]

async function encrypted(): Promise<string> {
  const secret = await generateSecret('A256GCM')
  return new CompactEncrypt(Buffer.from('{}'))
    .setProtectedHeader({ alg: 'dir', enc: 'A256GCM' })
    .encrypt(secret as never)
}

t.test('a bad token is refused for its reason and changes nothing', async (t) => {
  const service = await build(t, { app: { limitRejections: () => 0 } }) // the limit is another test's matter
  await service.login({ homeAccountId: 'u.t', sid: 'a-session', subject: 'subject' })
  await service.login({ homeAccountId: 'v.t', sid: null, subject: 'subject' })
  const context = {
    provider: service.provider,
    key: service.provider.keys[0] as SigningKey,
    elsewhere: await createSigningKey('ES256', 'elsewhere')
  }
  const before = await service.database.snapshot()

  for (const [name, make, code] of badTokens) {
    const token = await make(context)
    service.logs.length = 0
    const answer = await service.post(token)
    t.equal(answer.statusCode, 400, `${name}: refused`)
    t.equal(JSON.parse(answer.body).error, 'invalid_request', `${name}: error`)
    t.equal(rejectionCode(service), code, `${name}: ${code}`)
    t.notOk(token.length > 10 && (answer.body + service.logs).includes(token.slice(0, 40)), `${name}: not quoted`)
  }
  t.same(await service.database.snapshot(), before, 'the database is as it was')
  t.ok(service.provider.keyFetches <= 11, 'and the keys were fetched once, and a few times more for unknown kids')
  t.ok(badTokens.length >= 60)
})

function rejectionCode({ logs }: Service): unknown {
  return logs.map((line) => JSON.parse(line)).find(({ msg }) => msg === 'refused')?.code
}

const goodTokens: [name: string, make: Make, options?: ServiceOptions][] = [
  ['with aud as an array beside others', claims({ aud: ['client-z', clientId] })],
  ['with typ JWT', header({ typ: 'JWT' })],
  ['with typ in another case and with its prefix', header({ typ: 'application/LOGOUT+JWT' })],
  ['without typ', header({ typ: undefined })],
  ['without kid', header({ kid: undefined })],
  ['with claims nobody knows', claims({ trace_id: 't', 'urn:example': { nested: [1, { a: 1 }, { a: 2 }] } })],
  [
    'with a further event',
    claims({ events: { [backChannelLogoutEvent]: { revoke_offline_access: true }, revoke_offline_access: true } })
  ],
  ['with a fraction of a second', claims(() => ({ iat: now() + 0.5, exp: now() + 60.25 }))],
  ['a little in the future, within the tolerance', claims(() => ({ iat: now() + 30, nbf: now() + 30 }))],
  ['just expired, within the tolerance', claims(() => ({ iat: now() - 120, exp: now() - 30 }))],
  [
    'with header names that point elsewhere, which are not followed',
    header({ jku: 'http://127.0.0.1:1/', x5u: 'http://127.0.0.1:1/' })
  ],
  ['without exp, where the issuer is configured so', claims({ exp: undefined }), { policy: { requireExp: false } }],
  [
    'of another age, where the issuer is configured so',
    claims(() => ({ iat: now() - 3_000 })),
    { policy: { maxTokenAgeSeconds: 4_000 } }
  ]
]

t.test('a good token is accepted', async (t) => {
  const elsewhere = await createSigningKey()
  for (const [name, make, options] of goodTokens) {
    await t.test(name, async (t) => {
      const service = await build(t, options)
      await service.login({ homeAccountId: 'u.t', sid: 'a-session' })
      const token = await make({
        provider: service.provider,
        key: service.provider.keys[0] as SigningKey,
        elsewhere
      })
      t.equal((await service.post(token)).statusCode, 200)
      t.same(await service.rows(), [])
    })
  }
})

t.test('every asymmetric algorithm signs, where the issuer is configured so', async (t) => {
  const algorithms = ['RS256', 'RS512', 'PS256', 'ES256', 'ES384', 'ES512', 'EdDSA', 'Ed25519']
  const service = await build(t, { policy: { algorithms } })
  service.provider.keys = await Promise.all(algorithms.map((alg) => createSigningKey(alg)))
  for (const key of service.provider.keys) {
    const answer = await service.post(await service.provider.logoutToken({}, {}, key))
    t.equal(answer.statusCode, 200, key.alg)
  }
})

t.test('keys', async (t) => {
  await t.test('without a kid each fitting key is tried', async (t) => {
    const service = await build(t, { policy: { algorithms: ['RS256', 'ES256'] } })
    const keys = await Promise.all([
      createSigningKey(),
      createSigningKey('ES256'),
      createSigningKey(),
      createSigningKey()
    ])
    service.provider.keys = keys
    for (const key of keys) {
      const answer = await service.post(await service.provider.logoutToken({}, { kid: undefined }, key))
      t.equal(answer.statusCode, 200)
    }
    const stranger = await createSigningKey()
    const answer = await service.post(await service.provider.logoutToken({}, { kid: undefined }, stranger))
    t.equal(answer.statusCode, 400)
  })

  await t.test('an encryption key never verifies', async (t) => {
    const service = await build(t)
    const key = await createSigningKey()
    service.provider.keys.push({ ...key, jwk: { ...key.jwk, use: 'enc' } })
    t.equal((await service.post(await service.provider.logoutToken({}, {}, key))).statusCode, 400)
  })

  await t.test('one that is too short is as good as not published, and keeps no other from its work', async (t) => {
    const service = await build(t)
    const { provider } = service
    const [good] = provider.keys
    const { publicKey } = generateKeyPairSync('rsa', { modulusLength: 1_024 })
    const short = { ...(good as SigningKey), jwk: { ...publicKey.export({ format: 'jwk' }), kid: 'short' } }
    provider.keys = [short as SigningKey, good as SigningKey]
    t.equal((await service.post(await provider.logoutToken({}, { kid: undefined }, good))).statusCode, 200)
    t.equal((await service.post(await provider.logoutToken({}, { kid: 'short' }, good))).statusCode, 400)
  })

  await t.test('a set that has no key for us is no answer, and a token waits for one', async (t) => {
    const service = await build(t)
    const [key] = service.provider.keys
    service.provider.keys = [await createSigningKey('ES256')]
    t.equal((await service.post(await service.provider.logoutToken({}, {}, key))).statusCode, 503)
    t.equal((await service.spool.status()).unverified, 1)
  })

  await t.test('a new kid costs one fetch, whoever asks', async (t) => {
    const service = await build(t)
    await service.post(await service.provider.logoutToken())
    t.equal(service.provider.keyFetches, 1)

    const next = await createSigningKey()
    service.provider.keys = [next]
    const tokens = await Promise.all(Array.from({ length: 10 }, () => service.provider.logoutToken({}, {}, next)))
    const answers = await Promise.all(tokens.map((token) => service.post(token)))
    t.ok(
      answers.every(({ statusCode }) => statusCode === 200),
      'the rotated key is found'
    )
    t.equal(service.provider.keyFetches, 2)
  })

  await t.test('a thousand kids that nobody has published cost a dozen fetches, and are not all refused', async (t) => {
    let time = Date.now()
    const service = await build(t, {
      now: () => time,
      app: { limitRejections: () => 0 },
      spool: { unverified: { maxCount: 20 } }
    })
    const [, payload, signature] = (await service.provider.logoutToken()).split('.')
    const answers: { body: string }[] = []
    for (let i = 0; i < 1_000; i += 1) {
      time += 10
      const header = Buffer.from(JSON.stringify({ alg: 'RS256', typ: 'logout+jwt', kid: `made-up-${i}` }))
      answers.push(await service.post(`${header.toString('base64url')}.${payload}.${signature}`))
    }
    t.ok(service.provider.keyFetches <= 12, `${service.provider.keyFetches}`)
    const told = (text: RegExp) => answers.filter(({ body }) => text.test(body)).length
    t.ok(told(/no key of the issuer fits/) <= 12)
    t.equal(told(/it is kept/), 10)
    t.ok(told(/could not be kept/) >= 978)
  })

  await t.test('a changed key under the same kid is found', async (t) => {
    let time = Date.now()
    const service = await build(t, { now: () => time })
    const [first] = service.provider.keys
    await service.post(await service.provider.logoutToken())
    const [second, third] = [await createSigningKey('RS256', first?.kid), await createSigningKey('RS256', first?.kid)]
    const post = async (key = first) => (await service.post(await service.provider.logoutToken({}, {}, key))).statusCode
    service.provider.keys = [second]
    t.equal(await post(second), 200, 'at once')
    t.equal(await post(first), 400, 'the old one is gone')
    service.provider.keys = [third]
    time += 1
    t.equal(await post(third), 200, 'and so is the next one')
    for (let i = 0; i < 20; i += 1) {
      time += 1
      t.equal(await post(first), 400, 'a bad signature is the fault of its token')
    }
    t.ok(service.provider.keyFetches <= 11)
  })

  await t.test('an unknown issuer costs no fetch', async (t) => {
    const service = await build(t)
    await service.post(await service.provider.logoutToken({ iss: 'https://evil.example' }))
    t.equal(service.provider.keyFetches, 0)
  })
})

t.test('the template of a multi-tenant app', async (t) => {
  const tenant = randomUUID()
  const other = randomUUID()

  await t.test('stands for one GUID', async (t) => {
    const service = await build(t)
    const template = await buildTemplate(t, service.provider, {})
    const issuer = `${service.provider.issuer}/${tenant}/v2.0`
    await template.login({ issuer, homeAccountId: 'u.t', sid: 's' })
    await template.login({ issuer: `${service.provider.issuer}/${other}/v2.0`, homeAccountId: 'v.t', sid: 's' })
    t.equal((await template.post(await service.provider.logoutToken({ iss: issuer, sid: 's' }))).statusCode, 200)
    t.same(await template.rows(), ['client-a/v.t'], 'an equal sid of another tenant is another session')
    for (const name of ['organizations', `${tenant}/${tenant}`, tenant.toUpperCase(), '', '..']) {
      const token = await service.provider.logoutToken({ iss: `${service.provider.issuer}/${name}/v2.0` })
      t.equal((await template.post(token)).statusCode, 400, name)
    }
  })

  await t.test('is limited to its tenants where they are listed', async (t) => {
    const service = await build(t)
    const template = await buildTemplate(t, service.provider, { tenants: [tenant] })
    const post = async (id: string) =>
      (await template.post(await service.provider.logoutToken({ iss: `${service.provider.issuer}/${id}/v2.0` })))
        .statusCode
    t.equal(await post(tenant), 200)
    t.equal(await post(other), 400)
  })

  await t.test('takes a key that is bound to an issuer for that one alone', async (t) => {
    const service = await build(t)
    const template = await buildTemplate(t, service.provider, {})
    const key = await createSigningKey()
    const bound = { ...key, jwk: { ...key.jwk, issuer: `${service.provider.issuer}/${tenant}/v2.0` } }
    service.provider.keys = [bound]
    const post = async (id: string) =>
      (await template.post(await service.provider.logoutToken({ iss: `${service.provider.issuer}/${id}/v2.0` })))
        .statusCode
    t.equal(await post(tenant), 200)
    t.equal(await post(other), 400)
  })

  await t.test('also without a kid, and beside another key of the same kid', async (t) => {
    const service = await build(t)
    const template = await buildTemplate(t, service.provider, {})
    const [own, foreign] = [await createSigningKey(), await createSigningKey()]
    for (const kid of [undefined, 'same']) {
      const publish = (key: SigningKey, id: string) => ({
        ...key,
        jwk: {
          ...key.jwk,
          ...(kid === undefined ? {} : { kid }),
          issuer: `${service.provider.issuer}/${id}/v2.0`
        } as SigningKey['jwk']
      })
      service.provider.keys = [publish(foreign, tenant), publish(own, other)]
      const post = async (key: SigningKey) => {
        const claims = { iss: `${service.provider.issuer}/${other}/v2.0` }
        return (await template.post(await service.provider.logoutToken(claims, { kid }, key))).statusCode
      }
      t.equal(await post(own), 200)
      t.equal(await post(foreign), 400)
    }
  })
})

function buildTemplate(t: Parameters<typeof build>[0], provider: IdentityProvider, policy: ServiceOptions['policy']) {
  const template = { issuer: `${provider.issuer}/{tenantid}/v2.0`, jwksUri: `${provider.issuer}/jwks` }
  return build(t, { policy: { ...template, ...policy } })
}

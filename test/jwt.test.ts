import { generateKeyPairSync, randomUUID } from 'node:crypto'
import { inspect } from 'node:util'
import t, { type Test } from 'tap'
import type { RejectedError } from '../src/errors.ts'
import { createIssuers, type IssuerConfig } from '../src/issuers.ts'
import { checkHeader, isIdentifier, isTime, readJwt, verifySignature } from '../src/jwt.ts'
import {
  createSigningKey,
  type IdentityProvider,
  type SigningKey,
  startIdentityProvider
} from './fixtures/identity-provider.ts'
import { badJwts } from './fixtures/logout-tokens.ts'
import { issuerConfig } from './fixtures/service.ts'

const maxWaitMs = 30_000 // longer than a busy machine takes
const signingKeys = await Promise.all(Array.from({ length: 4 }, () => createSigningKey()))
const [spare, other] = signingKeys as [SigningKey, SigningKey]

/** An issuer and what verifies its tokens, by a clock of the test's own. */
async function setUp(t: Test, policy: Partial<IssuerConfig> = {}) {
  const provider = await startIdentityProvider(t)
  const clock = { time: Date.now() }
  const issuers = createIssuers([issuerConfig({ name: 'main', issuer: provider.issuer, ...policy })], {
    now: () => clock.time,
    maxWaitMs
  })
  const verify = async (raw: string) => {
    const jwt = readJwt(raw, issuers)
    checkHeader(jwt)
    await verifySignature(jwt, clock.time)
  }
  /** `verified`, or the code of the error. */
  const outcomeOf = (raw: string) =>
    verify(raw).then(
      () => 'verified',
      ({ code }: { code: string }) => code
    )
  /** Signs a token by this key, and says what becomes of it. */
  const outcome = async (key = provider.keys[0], header = {}, claims = {}) =>
    outcomeOf(await provider.logoutToken(claims, header, key))
  return { provider, clock, verify, outcome, outcomeOf }
}

t.test('a bad JWT is rejected for its reason', async (t) => {
  const { provider, verify } = await setUp(t)
  const context = { provider, key: provider.keys[0] as SigningKey, elsewhere: await createSigningKey('ES256') }
  for (const [name, make, code] of badJwts) {
    const raw = await make(context)
    const error = await verify(raw).then(
      () => undefined,
      (error: RejectedError) => error
    )
    t.match(error, { name: 'RejectedError', code }, name)
    const shown = inspect(error, { depth: 10 })
    t.notOk(raw.length > 10 && shown.includes(raw.slice(0, 20)), `${name}: not quoted`)
    t.notMatch(shown, /a-session/, `${name}: nor what it claims`)
  }
  t.ok(provider.keyFetches <= 11, 'an unknown kid provokes a bounded number of fetches')
})

t.test('a rejection names the issuer as soon as it is known', async (t) => {
  const { provider, verify } = await setUp(t)
  const issuerOf = async (raw: string) => ((await verify(raw).catch((error: unknown) => error)) as RejectedError).issuer
  const good = await provider.logoutToken()
  t.equal(await issuerOf('x'), undefined, 'no JWT')
  t.equal(await issuerOf(`e${good}`), undefined, 'a malformed header')
  t.equal(await issuerOf(await provider.logoutToken({ iss: 'https://evil.example' })), undefined, 'another issuer')
  t.equal(await issuerOf(await provider.logoutToken({}, { typ: 'at+jwt' })), 'main', 'a bad header')
  t.equal(await issuerOf(`${good.slice(0, -2)}*!`), 'main', 'a malformed signature')
  t.equal(await issuerOf(await provider.logoutToken({}, { kid: 'unknown' })), 'main', 'an unknown key')
  t.equal(await issuerOf(await provider.logoutToken({}, { kid: provider.keys[0]?.kid }, spare)), 'main', 'a forgery')
})

t.test('a rejection says what an operator needs, and no more of the token', async (t) => {
  const { provider, verify } = await setUp(t)
  const { issuer } = provider
  const { kid } = provider.keys[0] as SigningKey
  const own = { typ: 'logout+jwt', alg: 'RS256', kid }
  for (const [name, claims, header, details] of [
    [
      'another issuer',
      { iss: 'https://evil.example', aud: 'a' },
      {},
      { iss: 'https://evil.example', aud: 'a', ...own }
    ],
    ['several clients', { iss: 'x', aud: ['a', 'b'] }, {}, { iss: 'x', aud: 'a, b', ...own }],
    ['another type', { aud: 'a' }, { typ: 'at+jwt' }, { ...own, iss: issuer, aud: 'a', typ: 'at+jwt' }],
    [
      'no type and no kid',
      { iss: 'x', aud: 'a' },
      { typ: undefined, kid: undefined },
      { iss: 'x', aud: 'a', alg: 'RS256' }
    ],
    ['no issuer', { iss: undefined, aud: undefined }, {}, own],
    [
      'other values',
      { iss: 1, aud: { a: 'secret' } },
      { kid: null },
      { ...own, iss: '1', aud: 'an object', kid: 'null' }
    ],
    [
      'arrays in arrays',
      { iss: [['secret']], aud: [['secret'], 'b'] },
      {},
      { ...own, iss: 'an object', aud: 'an object, b' }
    ],
    ['a long value', { iss: 'x'.repeat(5_000), aud: 'a' }, {}, { ...own, iss: 'x'.repeat(200), aud: 'a' }],
    ['many values', { iss: 'x', aud: Array(5_000).fill('') }, {}, { ...own, iss: 'x', aud: ', '.repeat(100) }],
    [
      'control characters',
      { iss: '\u001b[2J\r\n\u0000', aud: 'a\u2028' },
      {},
      { ...own, iss: '\\u{1b}[2J\\u{d}\\u{a}\\u{0}', aud: 'a\\u{2028}' }
    ],
    [
      'directions and half characters',
      { iss: 'a\u202eb\ud800', aud: '\ufeff' },
      {},
      { ...own, iss: 'a\\u{202e}b\\u{d800}', aud: '\\u{feff}' }
    ],
    [
      'a long value of control characters',
      { iss: '\n'.repeat(300), aud: 'a' },
      {},
      { ...own, iss: '\\u{a}'.repeat(40), aud: 'a' }
    ]
  ] as const) {
    const raw = await provider.logoutToken({ sid: 'secret', sub: 'secret', jti: 'secret', ...claims }, { ...header })
    const error = await verify(raw).catch((error: RejectedError) => error)
    t.same((error as RejectedError).details, details, name)
    t.notMatch(JSON.stringify({ ...(error as RejectedError) }), /secret/, name)
  }
  const [header] = (await provider.logoutToken()).split('.')
  const malformed = await verify(`${header}.e.e`).catch((error: RejectedError) => error)
  t.same((malformed as RejectedError).details, own, 'the header of one whose payload is malformed')
  t.same(((await verify('x').catch((error: RejectedError) => error)) as RejectedError).details, {})
})

t.test('every asymmetric algorithm signs, if the issuer is configured so', async (t) => {
  const algorithms = ['RS256', 'RS512', 'PS256', 'ES256', 'ES384', 'ES512', 'EdDSA', 'Ed25519']
  const { provider, outcome } = await setUp(t, { algorithms })
  provider.keys = await Promise.all(algorithms.map((alg) => createSigningKey(alg)))
  for (const key of provider.keys) {
    t.equal(await outcome(key), 'verified', key.alg)
  }
})

t.test('without a kid each fitting key is tried', async (t) => {
  const { provider, outcome } = await setUp(t, { algorithms: ['RS256', 'ES256'] })
  provider.keys = [spare, other, await createSigningKey('ES256')]
  for (const key of provider.keys) {
    t.equal(await outcome(key, { kid: undefined }), 'verified', key.alg)
  }
  t.equal(await outcome(signingKeys[2], { kid: undefined }), 'ERR_TOKEN_SIGNATURE')
})

t.test('a key of no use is as good as not published, and keeps no other from its work', async (t) => {
  const { provider, outcome } = await setUp(t)
  const [good] = provider.keys as [SigningKey]
  const { publicKey } = generateKeyPairSync('rsa', { modulusLength: 1_024 })
  for (const [name, jwk] of Object.entries({
    'for encryption': { ...spare.jwk, use: 'enc' },
    'too short': { ...publicKey.export({ format: 'jwk' }), kid: spare.kid },
    'by which anybody can sign': { ...spare.jwk, e: 'AQ' }
  })) {
    provider.keys = [{ ...spare, jwk: jwk as SigningKey['jwk'] }, good]
    t.equal(await outcome(spare), 'ERR_TOKEN_KEY', name)
    t.equal(await outcome(good, { kid: undefined }), 'verified', name)
  }
})

t.test('a set that has no key for us is no answer', async (t) => {
  const { provider, outcome } = await setUp(t)
  const [key] = provider.keys
  provider.keys = [await createSigningKey('ES256')]
  t.equal(await outcome(key), 'ERR_KEYS_UNAVAILABLE')
})

t.test('an issuer that is out of reach is named', async (t) => {
  const { provider, verify } = await setUp(t)
  provider.behaviour = 'down'
  await t.rejects(verify(await provider.logoutToken()), { code: 'ERR_KEYS_UNAVAILABLE', issuer: 'main' })
})

t.test('a discovery document that bears another issuer is no source of keys', async (t) => {
  const { provider, outcome } = await setUp(t)
  provider.announcedIssuer = 'https://evil.example'
  t.equal(await outcome(), 'ERR_KEYS_UNAVAILABLE')
  t.equal(provider.keyFetches, 0)
})

t.test('a new kid costs one fetch, however many tokens name it', async (t) => {
  const { provider, outcome } = await setUp(t)
  await outcome()
  t.equal(provider.keyFetches, 1)
  provider.keys = [spare]
  t.same(await Promise.all(Array.from({ length: 10 }, () => outcome(spare))), Array(10).fill('verified'))
  t.equal(provider.keyFetches, 2)
})

t.test('a thousand kids that nobody has published cost a dozen fetches, and are not all rejected', async (t) => {
  const { provider, clock, outcomeOf } = await setUp(t)
  const [, payload, signature] = (await provider.logoutToken()).split('.')
  const outcomes: string[] = []
  for (let i = 0; i < 1_000; i += 1) {
    clock.time += 10
    const header = Buffer.from(JSON.stringify({ alg: 'RS256', typ: 'logout+jwt', kid: `made-up-${i}` }))
    outcomes.push(await outcomeOf(`${header.toString('base64url')}.${payload}.${signature}`))
  }
  t.ok(provider.keyFetches <= 12, `${provider.keyFetches}`)
  const rejected = outcomes.filter((code) => code === 'ERR_TOKEN_KEY').length
  t.ok(rejected > 0 && rejected <= 12)
  t.equal(outcomes.filter((code) => code === 'ERR_KEYS_UNAVAILABLE').length, 1_000 - rejected)
})

t.test('a changed key under the same kid is found', async (t) => {
  const { provider, clock, outcome } = await setUp(t)
  const [first] = provider.keys as [SigningKey]
  const [second, third] = [spare, other].map((key) => ({
    ...key,
    kid: first.kid,
    jwk: { ...key.jwk, kid: `${first.kid}` }
  }))
  await outcome()
  provider.keys = [second as SigningKey]
  t.equal(await outcome(second), 'verified', 'at once')
  t.equal(await outcome(first), 'ERR_TOKEN_SIGNATURE', 'the old one is gone')
  provider.keys = [third as SigningKey]
  clock.time += 1
  t.equal(await outcome(third), 'verified', 'and so is the next one')
  for (let i = 0; i < 20; i += 1) {
    clock.time += 1
    t.equal(await outcome(first), 'ERR_TOKEN_SIGNATURE', 'a bad signature is the fault of its token')
  }
  t.ok(provider.keyFetches <= 11)
})

t.test('what costs no key is checked before one is asked for', async (t) => {
  const { provider, outcome, outcomeOf } = await setUp(t)
  t.equal(await outcome(undefined, {}, { iss: 'https://evil.example' }), 'ERR_TOKEN_ISSUER')
  t.equal(await outcome(undefined, { typ: 'at+jwt' }), 'ERR_TOKEN_TYPE')
  const [, payload, signature] = (await provider.logoutToken()).split('.')
  const unsigned = Buffer.from('{"alg":"none"}').toString('base64url')
  t.equal(await outcomeOf(`${unsigned}.${payload}.${signature}`), 'ERR_TOKEN_ALGORITHM')
  t.equal(provider.keyFetches, 0)
  t.equal(await outcome(undefined, { jku: `${provider.issuer}/jku`, x5u: `${provider.issuer}/x5u` }), 'verified')
  t.equal(provider.keyFetches, 1, 'nor is a place asked that a token names')
})

t.test('the template of a multi-tenant app', async (t) => {
  const tenant = randomUUID()
  const another = randomUUID()
  const setUpTemplate = async (t: Test, tenants?: string[]) => {
    const provider = await startIdentityProvider(t)
    const config = issuerConfig({
      name: 'many',
      issuer: `${provider.issuer}/{tenantid}/v2.0`,
      jwksUri: `${provider.issuer}/jwks`,
      tenants
    })
    const issuers = createIssuers([config], { maxWaitMs })
    const outcome = async (id: string, key?: SigningKey, header = {}) => {
      const raw = await provider.logoutToken({ iss: issuerOf(provider, id) }, header, key)
      try {
        const jwt = readJwt(raw, issuers)
        await verifySignature(jwt, Date.now())
        return jwt.issuer.issuer
      } catch (error) {
        return (error as RejectedError).code
      }
    }
    return { provider, outcome }
  }
  const issuerOf = (provider: IdentityProvider, id: string) => `${provider.issuer}/${id}/v2.0`

  await t.test('stands for one GUID', async (t) => {
    const { provider, outcome } = await setUpTemplate(t)
    t.equal(await outcome(tenant), issuerOf(provider, tenant))
    for (const id of [
      'organizations',
      `${tenant}/${tenant}`,
      tenant.toUpperCase(),
      '',
      '..',
      '{tenantid}',
      `${tenant}\n`
    ]) {
      t.equal(await outcome(id), 'ERR_TOKEN_ISSUER', id)
    }
  })

  await t.test('is limited to its tenants if they are listed', async (t) => {
    const { provider, outcome } = await setUpTemplate(t, [tenant])
    t.equal(await outcome(tenant), issuerOf(provider, tenant))
    t.equal(await outcome(another), 'ERR_TOKEN_ISSUER')
  })

  await t.test('takes a key that is bound to an issuer for that one alone', async (t) => {
    const { provider, outcome } = await setUpTemplate(t)
    for (const kid of [undefined, 'same', 'own']) {
      const publish = (key: SigningKey, id: string): SigningKey => {
        const { kid: _, ...jwk } = key.jwk
        return {
          ...key,
          jwk: { ...jwk, ...(kid === undefined ? {} : { kid }), issuer: issuerOf(provider, id) } as SigningKey['jwk']
        }
      }
      provider.keys = kid === 'own' ? [publish(spare, another)] : [publish(other, tenant), publish(spare, another)]
      t.equal(await outcome(another, spare, { kid }), issuerOf(provider, another), `${kid}`)
      t.match(await outcome(tenant, spare, { kid }), /^ERR_TOKEN_(KEY|SIGNATURE)$/, `${kid}`)
      t.match(await outcome(another, other, { kid }), /^ERR_TOKEN_(KEY|SIGNATURE)$/, `${kid}`)
    }
  })

  await t.test('publishes keys that serve where one of its tenants alone is configured', async (t) => {
    const { provider, verify } = await setUp(t)
    const issuer = issuerOf(provider, tenant)
    const issuers = createIssuers([issuerConfig({ issuer, jwksUri: `${provider.issuer}/jwks` })], { maxWaitMs })
    const [key] = provider.keys as [SigningKey]
    provider.keys = [{ ...key, jwk: { ...key.jwk, issuer: issuerOf(provider, '{tenantid}') } as SigningKey['jwk'] }]
    await t.resolves(verifySignature(readJwt(await provider.logoutToken({ iss: issuer }), issuers), Date.now()))
    await t.rejects(verify(await provider.logoutToken()), { code: 'ERR_KEYS_UNAVAILABLE' }, 'and nowhere else')
  })
})

t.test('a time is in seconds, and an identifier can be stored', (t) => {
  for (const [value, expected] of [
    [1, true],
    [1_800_000_000.5, true],
    [0, false],
    [-1, false],
    [1e10, false],
    [Number.NaN, false],
    ['1', false],
    [null, false]
  ]) {
    t.equal(isTime(value), expected, `${value}`)
  }
  for (const [value, expected] of [
    ['a', true],
    ['é'.repeat(512), true],
    [`${'é'.repeat(512)}x`, false],
    ['', false],
    ['a\u0000', false],
    ['\ud800', false],
    ['👋', true],
    [1, false],
    [undefined, false]
  ]) {
    t.equal(isIdentifier(value), expected, `${value}`)
  }
  t.end()
})

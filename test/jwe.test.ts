import { CompactEncrypt } from 'jose'
import t from 'tap'
import type { RejectionCode } from '../src/errors.ts'
import { createOpenToken } from '../src/jwe.ts'
import { decryptionKey, encrypt } from './fixtures/encryption.ts'

const rsa = decryptionKey('rsa')
const ec = decryptionKey('P-256')
const okp = decryptionKey('X25519')
const open = createOpenToken(() => [rsa, ec, okp])
const signed = 'aaa.bbb.ccc'

t.test('a token that is not encrypted is passed on as it is', async (t) => {
  for (const raw of [signed, '', 'hello', 'a.b.c.d']) {
    t.same(await open(raw), { raw, wasEncrypted: false })
    t.same(await createOpenToken()(raw), { raw, wasEncrypted: false })
  }
})

t.test('a token is decrypted by each kind of key, in each encryption', async (t) => {
  for (const key of [rsa, ec, okp]) {
    for (const enc of ['A128GCM', 'A256GCM']) {
      for (const header of [{}, { cty: 'jwt' }, { cty: 'application/JWT' }, { cty: undefined }, { kid: undefined }]) {
        const raw = await encrypt(signed, key, { enc, ...header })
        t.same(await open(raw), { raw: signed, wasEncrypted: true }, `${key.alg} ${enc} ${JSON.stringify(header)}`)
      }
    }
  }
})

t.test('a key that is no longer published still decrypts', async (t) => {
  const old = decryptionKey('P-256', 'old')
  t.match(await createOpenToken(() => [rsa, old])(await encrypt(signed, old)), { raw: signed })
})

const part = (value: object) => Buffer.from(JSON.stringify(value)).toString('base64url')
/** A correct token with its parts changed as text. */
const changed = async (change: (parts: string[]) => string[]) =>
  change((await encrypt(signed, ec)).split('.')).join('.')
/** A correct token under a header that it was not encrypted with. */
const under = (header: object) =>
  changed(([, ...rest]) => [part({ alg: ec.alg, enc: 'A256GCM', kid: ec.kid, ...header }), ...rest])

const bad: readonly [name: string, make: () => Promise<string> | string, code: RejectionCode][] = [
  ['five empty parts', () => '....', 'ERR_TOKEN_MALFORMED'],
  ['a header that is not JSON', () => changed(([, ...rest]) => ['e30x', ...rest]), 'ERR_TOKEN_MALFORMED'],
  [
    'a name twice in the header',
    () => changed(([, ...rest]) => [Buffer.from('{"alg":"a","alg":"b"}').toString('base64url'), ...rest]),
    'ERR_TOKEN_DUPLICATE_KEY'
  ],
  ['no alg', () => under({ alg: undefined }), 'ERR_TOKEN_ENCRYPTION_ALGORITHM'],
  ['an alg that is an array', () => under({ alg: ['ECDH-ES'] }), 'ERR_TOKEN_ENCRYPTION_ALGORITHM'],
  ['alg dir', () => under({ alg: 'dir' }), 'ERR_TOKEN_ENCRYPTION_ALGORITHM'],
  ['alg RSA1_5', () => under({ alg: 'RSA1_5' }), 'ERR_TOKEN_ENCRYPTION_ALGORITHM'],
  ['alg RSA-OAEP', () => under({ alg: 'RSA-OAEP' }), 'ERR_TOKEN_ENCRYPTION_ALGORITHM'],
  ['alg PBES2', () => under({ alg: 'PBES2-HS256+A128KW' }), 'ERR_TOKEN_ENCRYPTION_ALGORITHM'],
  ['alg of a wrapped key', () => under({ alg: 'ECDH-ES+A256KW' }), 'ERR_TOKEN_ENCRYPTION_ALGORITHM'],
  ['no enc', () => under({ enc: undefined }), 'ERR_TOKEN_ENCRYPTION_ALGORITHM'],
  ['enc with CBC', () => encrypt(signed, ec, { enc: 'A256CBC-HS512' }), 'ERR_TOKEN_ENCRYPTION_ALGORITHM'],
  ['enc A192GCM', () => encrypt(signed, ec, { enc: 'A192GCM' }), 'ERR_TOKEN_ENCRYPTION_ALGORITHM'],
  ['zip', () => under({ zip: 'DEF' }), 'ERR_TOKEN_ENCRYPTION_HEADER'],
  ['p2c', () => under({ p2c: 1_000_000_000 }), 'ERR_TOKEN_ENCRYPTION_HEADER'],
  ['crit', () => under({ crit: ['exp'] }), 'ERR_TOKEN_ENCRYPTION_HEADER'],
  ['another cty', () => encrypt(signed, ec, { cty: 'text/plain' }), 'ERR_TOKEN_ENCRYPTION_HEADER'],
  ['a cty that is a number', () => under({ cty: 1 }), 'ERR_TOKEN_ENCRYPTION_HEADER'],
  ['an unknown kid', () => encrypt(signed, ec, { kid: 'unknown' }), 'ERR_TOKEN_ENCRYPTION_KEY'],
  ['the kid of a key of another kind', () => encrypt(signed, ec, { kid: rsa.kid }), 'ERR_TOKEN_ENCRYPTION_KEY'],
  ['a kid that is an array', () => under({ kid: [ec.kid] }), 'ERR_TOKEN_ENCRYPTION_KEY'],
  ['no epk', () => under({}), 'ERR_TOKEN_DECRYPTION'],
  ['an epk of another curve', () => under({ epk: { ...okp.publicKey } }), 'ERR_TOKEN_DECRYPTION'],
  [
    'an epk that is no point',
    () => under({ epk: { kty: 'EC', crv: 'P-256', x: 'AA', y: 'AA' } }),
    'ERR_TOKEN_DECRYPTION'
  ],
  ['an epk that is an RSA key', () => under({ epk: { ...rsa.publicKey, crv: 'P-256' } }), 'ERR_TOKEN_DECRYPTION'],
  ['an epk that is null', () => under({ epk: null }), 'ERR_TOKEN_DECRYPTION'],
  [
    'a changed header',
    () =>
      changed(([h = '', ...rest]) => [part({ ...JSON.parse(Buffer.from(h, 'base64url').toString()), x: 1 }), ...rest]),
    'ERR_TOKEN_DECRYPTION'
  ],
  [
    'a changed content',
    () => changed(([h = '', k = '', iv = '', c = '', tag = '']) => [h, k, iv, `B${c.slice(1)}`, `A${tag.slice(1)}`]),
    'ERR_TOKEN_DECRYPTION'
  ],
  [
    'a tag cut short',
    () => changed(([h = '', k = '', iv = '', c = '', tag = '']) => [h, k, iv, c, tag.slice(0, 6)]),
    'ERR_TOKEN_DECRYPTION'
  ],
  [
    'no initialization vector',
    () => changed(([h = '', k = '', , c = '', tag = '']) => [h, k, '', c, tag]),
    'ERR_TOKEN_DECRYPTION'
  ],
  [
    'a wrapped key beside an agreed one',
    () => changed(([h = '', , iv = '', c = '', tag = '']) => [h, 'AAAA', iv, c, tag]),
    'ERR_TOKEN_DECRYPTION'
  ],
  [
    'parts that are no base64url',
    () => changed(([h = '', k = '', iv = '', , tag = '']) => [h, k, iv, '*!*!', tag]),
    'ERR_TOKEN_DECRYPTION'
  ],
  [
    'an RSA key that wraps nothing',
    async () => (await encrypt(signed, rsa)).split('.').with(1, 'AAAA').join('.'),
    'ERR_TOKEN_DECRYPTION'
  ],
  ['a token encrypted twice', async () => encrypt(await encrypt(signed, ec), ec), 'ERR_TOKEN_ENCRYPTION_NESTED'],
  ['a long token', () => encrypt('x'.repeat(20_000), ec), 'ERR_TOKEN_ENCRYPTION_TOO_LONG'],
  ['a long header', () => encrypt(signed, ec, { x: 'x'.repeat(3_000) }), 'ERR_TOKEN_ENCRYPTION_TOO_LONG']
]

t.test('a bad encrypted token is rejected for its reason', async (t) => {
  for (const [name, make, code] of bad) {
    await t.rejects(open(await make()), { name: 'RejectedError', code }, name)
  }
})

t.test('a compressed token is not decompressed', async (t) => {
  const raw = await new CompactEncrypt(Buffer.from('a'.repeat(100_000)))
    .setProtectedHeader({ alg: 'ECDH-ES', enc: 'A256GCM', zip: 'DEF' })
    .encrypt(await crypto.subtle.importKey('jwk', ec.publicKey, { name: 'ECDH', namedCurve: 'P-256' }, true, []))
  await t.rejects(open(raw), { code: 'ERR_TOKEN_ENCRYPTION_HEADER' })
})

t.test('without a key what is encrypted is rejected unread', async (t) => {
  await t.rejects(createOpenToken()(await encrypt(signed, ec)), { code: 'ERR_TOKEN_ENCRYPTED' })
})

t.test('what can be wrong inside shows in no error', async (t) => {
  const message = async (raw: string) => open(raw).then(String, (error: Error) => `${error}`)
  const outcomes = new Set<string>()
  for (const place of [1, 3, 4]) {
    const parts = (await encrypt(signed, rsa)).split('.')
    outcomes.add(await message(parts.with(place, `AAAA${(parts[place] ?? '').slice(4)}`).join('.')))
  }
  t.equal(outcomes.size, 1)
})

import { createHash, getDiffieHellman, randomBytes } from 'node:crypto'
import { compactVerify, exportJWK, generateKeyPair, importJWK, type JWK } from 'jose'
import t from 'tap'
import { keyFault, type PublicKey, servesIssuer } from '../src/public-key.ts'
import { createSigningKey } from './fixtures/identity-provider.ts'

const guid = '9188040d-6c67-4c5b-b112-36a304b66dad'
const issuer = `https://login.example/${guid}/v2.0`
const algorithms = ['RS256', 'ES256', 'EdDSA']
const part = (value: unknown) => Buffer.from(JSON.stringify(value)).toString('base64url')
const fromNumber = (number: bigint) => {
  const hex = number.toString(16)
  return Buffer.from(hex.length % 2 === 0 ? hex : `0${hex}`, 'hex').toString('base64url')
}
const toNumber = (text: string | undefined) => BigInt(`0x${Buffer.from(text ?? '', 'base64url').toString('hex')}`)

const rsa = (await createSigningKey('RS256')).jwk as PublicKey
const ec = (await createSigningKey('ES256')).jwk as PublicKey
const ed = (await createSigningKey('EdDSA')).jwk as PublicKey
const prime = toNumber(getDiffieHellman('modp14').getPrime('base64url'))
const pair = await generateKeyPair('RS256', { extractable: true })
const secret = await exportJWK(pair.privateKey)

t.test('a key as it should be serves', async (t) => {
  for (const [name, key] of Object.entries({
    RSA: rsa,
    EC: ec,
    Ed25519: ed,
    'with key_ops': { ...rsa, key_ops: ['verify'] },
    'with few members': { kty: 'RSA', n: rsa.n, e: rsa.e } as PublicKey,
    'with an exponent of 3': { ...rsa, e: 'Aw' },
    'of this issuer': { ...rsa, issuer },
    'of a template of it': { ...rsa, issuer: 'https://login.example/{tenantid}/v2.0' }
  })) {
    t.equal(await keyFault(key, issuer, algorithms), undefined, name)
  }
})

const without = (key: PublicKey, member: keyof PublicKey) => ({ ...key, [member]: undefined })

const worthless: [name: string, key: PublicKey, fault: RegExp][] = [
  ['a shared secret', { kty: 'oct', k: randomBytes(32).toString('base64url') }, /secret part/],
  ['a private RSA key', { ...rsa, ...secret }, /secret part/],
  ['one factor of a private RSA key', { ...rsa, p: secret.p ?? '' }, /secret part/],
  ['a private EC key', { ...ec, d: ec.x ?? '' }, /secret part/],
  ['a key for encryption', { ...rsa, use: 'enc' }, /"use"/],
  ['a use that is no string', { ...rsa, use: 1 as never }, /"use"/],
  ['a key for encryption by its operations', { ...rsa, key_ops: ['encrypt', 'wrapKey'] }, /"key_ops"/],
  ['no operation at all', { ...rsa, key_ops: [] }, /"key_ops"/],
  ['operations that are a string', { ...rsa, key_ops: 'verify' as never }, /"key_ops"/],
  ['an exponent of 1', { ...rsa, e: 'AQ' }, /exponent/],
  ['an exponent of 0', { ...rsa, e: 'AA' }, /exponent/],
  ['an exponent of 2', { ...rsa, e: 'Ag' }, /exponent/],
  ['an even exponent', { ...rsa, e: fromNumber(65_536n) }, /exponent/],
  ['an exponent as long as the modulus', { ...rsa, e: fromNumber(toNumber(rsa.n) - 2n) }, /exponent/],
  ['an exponent of 1 with zeros before it', { ...rsa, e: 'AAAB' }, /exponent/],
  ['an exponent that is no base64url', { ...rsa, e: 'AQ==' }, /malformed/],
  ['an exponent that is a number', { ...rsa, e: 65_537 as never }, /malformed/],
  ['no exponent', without(rsa, 'e'), /malformed/],
  ['no modulus', without(rsa, 'n'), /malformed/],
  ['a modulus of 512 bits', { ...rsa, n: fromNumber(2n ** 511n + 1n) }, /512 bits/],
  ['a modulus of 2,047 bits', { ...rsa, n: fromNumber(2n ** 2_046n + 1n) }, /2047 bits/],
  [
    'a short modulus with zeros before it',
    { ...rsa, n: Buffer.concat([Buffer.alloc(200), Buffer.alloc(64, 255)]).toString('base64url') },
    /512 bits/
  ],
  ['a modulus of 16,384 bits', { ...rsa, n: fromNumber(2n ** 16_383n + 1n) }, /16384 bits/],
  ['a modulus of 400 KB', { ...rsa, n: 'A'.repeat(10) + '_'.repeat(400_000) }, /bits/],
  ['a modulus of 0', { ...rsa, n: 'AA' }, /bits/],
  ['an even modulus', { ...rsa, n: fromNumber(toNumber(rsa.n) - 1n) }, /two large primes/],
  ['a modulus with a small factor', { ...rsa, n: fromNumber(prime * 997n) }, /two large primes/],
  ['a modulus that is a prime', { ...rsa, n: fromNumber(prime) }, /two large primes/],
  ['a point that is not on its curve', { ...ec, y: ec.x ?? '' }, /fits none/],
  ['a point of zeros', { ...ec, x: 'A'.repeat(43), y: 'A'.repeat(43) }, /fits none/],
  ['a curve of another algorithm', { ...ec, crv: 'P-384' }, /fits none/],
  ['a short Edwards point', { ...ed, x: 'AQ' }, /fits none/],
  ['an algorithm that is not accepted', { ...rsa, alg: 'PS256' }, /fits none of RS256, ES256, EdDSA/],
  ['an algorithm that is no string', { ...rsa, alg: 1 as never }, /fits none/],
  ['an unknown type', { kty: 'XYZ' }, /fits none/],
  ['a key of another issuer', { ...rsa, issuer: 'https://login.example/two/v2.0' }, /another issuer/],
  ['a key of another template', { ...rsa, issuer: 'https://login.example/{tenantid}/v1.0' }, /another issuer/],
  ['a key of nobody knows whom', { ...rsa, issuer: null }, /another issuer/]
]

t.test('a key by which anybody can sign, or that is for something else, is of no use', async (t) => {
  for (const [name, key, fault] of worthless) {
    t.match(await keyFault(key, issuer, algorithms), fault, name)
  }
})

t.test('what OpenSSL takes is no proof', async (t) => {
  await t.test('with an exponent of 1 the padded message is its own signature', async (t) => {
    const signed = `${part({ alg: 'RS256' })}.${part({ sub: 'anybody' })}`
    const digestInfo = Buffer.from('3031300d060960864801650304020105000420', 'hex')
    const tail = Buffer.concat([Buffer.from([0]), digestInfo, createHash('sha256').update(signed).digest()])
    const signature = Buffer.concat([Buffer.from([0, 1]), Buffer.alloc(256 - 2 - tail.length, 0xff), tail])
    const key = await importJWK({ ...rsa, e: 'AQ' } as JWK, 'RS256')
    await t.resolves(compactVerify(`${signed}.${signature.toString('base64url')}`, key), 'so it was forged')
  })

  for (const [name, encoded] of [
    ['1', '0100000000000000000000000000000000000000000000000000000000000000'],
    ['1, with the sign', '0100000000000000000000000000000000000000000000000000000000000080'],
    ['2', 'ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f'],
    ['4', '0000000000000000000000000000000000000000000000000000000000000000'],
    ['4, with the sign', '0000000000000000000000000000000000000000000000000000000000000080'],
    ['4, not reduced', 'edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f'],
    ['1, not reduced', 'eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f'],
    ['8', '26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05'],
    ['8, with the sign', '26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85'],
    ['8, the other', 'c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a'],
    ['8, the other with the sign', 'c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa']
  ] as const) {
    const point = Buffer.from(encoded, 'hex').toString('base64url')
    t.match(await keyFault({ ...ed, x: point }, issuer, algorithms), /small order/, `a point of order ${name}`)
  }

  await t.test('with a point of order 8 one signature fits a message in eight', async (t) => {
    const point = '26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05'
    const key = await importJWK(
      { kty: 'OKP', crv: 'Ed25519', x: Buffer.from(point, 'hex').toString('base64url') },
      'EdDSA'
    )
    const signature = Buffer.alloc(64)
    signature[0] = 1
    let forged = 0
    for (let i = 0; i < 200; i += 1) {
      const token = `${part({ alg: 'EdDSA' })}.${part({ jti: i })}.${signature.toString('base64url')}`
      forged += await compactVerify(token, key).then(
        () => 1,
        () => 0
      )
    }
    t.ok(forged > 0, `${forged} of 200`)
  })
})

t.test('a key serves the issuers that it is bound to', (t) => {
  const template = 'https://login.example/{tenantid}/v2.0'
  const tenant = `https://login.example/${guid}/v2.0`
  for (const [bound, of, serves] of [
    [undefined, tenant, true],
    [tenant, tenant, true],
    [template, tenant, true],
    [template, template, true],
    [tenant, template, false],
    [tenant, tenant.replace('9', '8'), false],
    [template, `${tenant}/`, false],
    [template, tenant.toUpperCase(), false],
    ['https://login.example/{tenantid}/{tenantid}', `https://login.example/${guid}/${guid}`, false],
    ['https://login-example/{tenantid}/v2.0', tenant, false],
    ['', tenant, false],
    [null, tenant, false]
  ] as const) {
    t.equal(servesIssuer({ ...rsa, issuer: bound }, of), serves, `${bound} ${of}`)
  }
  t.end()
})

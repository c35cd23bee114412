import { createHmac, constants as crypto, generateKeyPairSync, sign } from 'node:crypto'
import { CompactSign, type CryptoKey, compactVerify, createLocalJWKSet, importJWK, type JWK } from 'jose'
import t from 'tap'
import { verifyRsa2048 } from '../src/rsa-signature.ts'

const algorithms = ['RS256', 'RS384', 'RS512', 'PS256', 'PS384', 'PS512']
const payload = Buffer.from('{"sub":"u"}')

function generate(modulusLength: number) {
  const { privateKey, publicKey } = generateKeyPairSync('rsa', { modulusLength })
  return { privateKey, jwk: publicKey.export({ format: 'jwk' }) as JWK }
}

const own = generate(2_048)
const other = generate(2_048)

const signed = (alg: string, key = own.privateKey) => new CompactSign(payload).setProtectedHeader({ alg }).sign(key)
/** As an issuer's key comes to us: jose picks it for the algorithm. */
const picked = (alg: string, jwk = own.jwk): Promise<CryptoKey> =>
  createLocalJWKSet({ keys: [jwk as JWK & { kty: string }] })({ alg })

async function joseSays(raw: string, key: CryptoKey): Promise<boolean> {
  return compactVerify(raw, key).then(
    () => true,
    () => false
  )
}

for (const alg of algorithms) {
  t.test(`${alg}: what it says, jose says`, async (t) => {
    const raw = await signed(alg)
    const key = await picked(alg)
    t.equal(verifyRsa2048(raw, alg, key), true)
    t.equal(verifyRsa2048(await signed(alg, other.privateKey), alg, key), false, "another's signature")
    let decided = 0
    for (let i = 0; i < 300; i += 1) {
      // One character of header, payload or signature is another one, goes, or comes twice.
      const at = (i * 7) % raw.length
      const changed = ['A', '', '.', '=', '+', ' ', raw.slice(at, at + 2)][i % 7] ?? ''
      const odd = raw.slice(0, at) + changed + raw.slice(at + 1)
      const says = verifyRsa2048(odd, alg, key)
      if (says !== undefined) {
        decided += 1
        t.equal(says, await joseSays(odd, key), `${i}`)
      }
    }
    t.ok(decided > 50, 'it was asked')
  })
}

t.test(
  'the last character of a signature has bits that are of none of its bytes: jose says the same of each',
  async (t) => {
    const raw = await signed('RS256')
    const key = await picked('RS256')
    for (const last of 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_') {
      const odd = raw.slice(0, -1) + last
      t.equal(verifyRsa2048(odd, 'RS256', key), await joseSays(odd, key), last)
    }
  }
)

t.test('a key for one algorithm checks no other', async (t) => {
  for (const made of algorithms) {
    const key = await picked(made)
    for (const alg of algorithms) {
      const says = verifyRsa2048(await signed(alg), alg, key)
      t.equal(says, made === alg ? true : undefined, `${made}, ${alg}`)
    }
  }
})

t.test('all else is left to jose', async (t) => {
  const long = generate(3_072)
  t.equal(
    verifyRsa2048(await signed('RS256', long.privateKey), 'RS256', await picked('RS256', long.jwk)),
    undefined,
    'a longer key'
  )
  const { privateKey, publicKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
  const ec = await picked('ES256', publicKey.export({ format: 'jwk' }) as JWK)
  t.equal(verifyRsa2048(await signed('ES256', privateKey), 'ES256', ec), undefined, 'another kind')
  const key = await picked('RS256')
  for (const alg of ['none', 'HS256', 'rs256', '__proto__', 'RSA-OAEP']) {
    t.equal(verifyRsa2048(await signed('RS256'), alg, key), undefined, alg)
  }
  const secret = (await importJWK(own.privateKey.export({ format: 'jwk' }) as JWK, 'RS256')) as CryptoKey
  t.equal(verifyRsa2048(await signed('RS256'), 'RS256', secret), undefined, 'a private key')
})

t.test('the public key as the secret of an HMAC signs nothing', async (t) => {
  const key = await picked('RS256')
  const header = Buffer.from('{"alg":"HS256"}').toString('base64url')
  const input = `${header}.${payload.toString('base64url')}`
  const raw = `${input}.${createHmac('sha256', JSON.stringify(own.jwk)).update(input).digest('base64url')}`
  for (const alg of ['HS256', 'RS256']) {
    t.not(verifyRsa2048(raw, alg, key), true, alg)
  }
})

t.test('a salt of another length than the digest is no signature of PS256: RFC 7518 §3.5', async (t) => {
  const key = await picked('PS256')
  const input = `${Buffer.from('{"alg":"PS256"}').toString('base64url')}.${payload.toString('base64url')}`
  for (const saltLength of [0, 20, 64]) {
    const signature = sign('sha256', Buffer.from(input), {
      key: own.privateKey,
      padding: crypto.RSA_PKCS1_PSS_PADDING,
      saltLength
    })
    const raw = `${input}.${signature.toString('base64url')}`
    t.equal(verifyRsa2048(raw, 'PS256', key), false, `${saltLength}`)
    t.equal(await joseSays(raw, key), false, 'as jose has it')
  }
})

import { generateKeyPairSync, type KeyObject } from 'node:crypto'
import { calculateJwkThumbprint, type JWK } from 'jose'
import t from 'tap'
import { publishDecryptionKeys, readDecryptionKey } from '../src/decryption-key.ts'

const rsa = generateKeyPairSync('rsa', { modulusLength: 2_048 })
const ec = generateKeyPairSync('ec', { namedCurve: 'P-256' })

const pem = (key: KeyObject) => key.export({ type: 'pkcs8', format: 'pem' }).toString()
const jwk = (key: KeyObject, members: object = {}) => JSON.stringify({ ...key.export({ format: 'jwk' }), ...members })

const readable: readonly [name: string, text: string, alg: string][] = [
  ['RSA, PKCS #8', pem(rsa.privateKey), 'RSA-OAEP-256'],
  ['RSA, PKCS #1', rsa.privateKey.export({ type: 'pkcs1', format: 'pem' }).toString(), 'RSA-OAEP-256'],
  ['RSA, JWK', jwk(rsa.privateKey), 'RSA-OAEP-256'],
  ['P-256, PKCS #8', pem(ec.privateKey), 'ECDH-ES'],
  ['P-256, SEC 1', ec.privateKey.export({ type: 'sec1', format: 'pem' }).toString(), 'ECDH-ES'],
  ['P-256, JWK after white space', `\n ${jwk(ec.privateKey)}`, 'ECDH-ES'],
  ['P-384', pem(generateKeyPairSync('ec', { namedCurve: 'P-384' }).privateKey), 'ECDH-ES'],
  ['P-521', pem(generateKeyPairSync('ec', { namedCurve: 'P-521' }).privateKey), 'ECDH-ES'],
  ['X25519', pem(generateKeyPairSync('x25519').privateKey), 'ECDH-ES']
]

t.test('a private key is read in each of its forms, and named by its thumbprint', async (t) => {
  for (const [name, text, alg] of readable) {
    const key = readDecryptionKey(text)
    if ('problem' in key) {
      return t.fail(`${name}: ${key.problem}`)
    }
    t.equal(key.alg, alg, name)
    t.equal(key.kid, await calculateJwkThumbprint(key.publicKey as JWK), `${name}: thumbprint`)
  }
})

t.test('a key has the name that it was given', async (t) => {
  t.match(readDecryptionKey(jwk(rsa.privateKey, { kid: 'its own' })), { kid: 'its own' })
  t.match(readDecryptionKey(jwk(rsa.privateKey, { kid: 'its own' }), 'given'), { kid: 'given' })
  t.match(readDecryptionKey(jwk(rsa.privateKey, { kid: 7 })), { kid: /^[\w-]{43}$/ })
})

t.test('what is no private key of use is a problem, which quotes nothing', async (t) => {
  const secret = 'MIIEvQIBADANBgkqhkiG9w0BAQEFAASC'
  const encrypted = rsa.privateKey.export({ type: 'pkcs8', format: 'pem', cipher: 'aes-256-cbc', passphrase: 'p' })
  for (const [name, text, problem] of [
    ['nothing', '', /no private key/],
    ['text', secret, /no private key/],
    ['a public key', rsa.publicKey.export({ type: 'spki', format: 'pem' }).toString(), /no private key/],
    ['a public JWK', jwk(rsa.publicKey), /no private key/],
    ['broken JSON', `{"kty":"RSA","d":"${secret}`, /no private key/],
    ['JSON that is no key', `{"d":"${secret}"}`, /no private key/],
    ['a symmetric JWK', `{"kty":"oct","k":"${secret}"}`, /no private key/],
    ['an encrypted key', encrypted.toString(), /no private key/],
    ['a short RSA key', pem(generateKeyPairSync('rsa', { modulusLength: 1_024 }).privateKey), /1024 bits/],
    ['a key that signs alone', pem(generateKeyPairSync('ed25519').privateKey), /neither an RSA key/],
    ['another curve', pem(generateKeyPairSync('ec', { namedCurve: 'secp256k1' }).privateKey), /neither an RSA key/],
    ['a curve unknown to JOSE', pem(generateKeyPairSync('ec', { namedCurve: 'brainpoolP256r1' }).privateKey), /neither/]
  ] as const) {
    const read = readDecryptionKey(text)
    t.match(read, { problem }, name)
    t.notMatch(JSON.stringify(read), secret, `${name}: not quoted`)
  }
})

t.test('a published key has no secret part', async (t) => {
  const keys = readable.flatMap(([, text]) => {
    const key = readDecryptionKey(text)
    return 'problem' in key ? [] : [key]
  })
  t.equal(keys.length, readable.length)
  for (const published of publishDecryptionKeys(keys).keys) {
    t.match(published, { kid: String, alg: /^(RSA-OAEP-256|ECDH-ES)$/, use: 'enc' })
    t.same(
      Object.keys(published).filter((member) => ['d', 'p', 'q', 'dp', 'dq', 'qi', 'oth', 'k'].includes(member)),
      []
    )
  }
})

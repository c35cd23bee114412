import { constants, KeyObject, verify, type webcrypto } from 'node:crypto'

type Scheme = Readonly<{ name: string; hash: string; padding: number }>

const pkcs1 = { name: 'RSASSA-PKCS1-v1_5', padding: constants.RSA_PKCS1_PADDING }
const pss = { name: 'RSA-PSS', padding: constants.RSA_PKCS1_PSS_PADDING }

// RFC 7518 §3.3 and §3.5
const schemes: ReadonlyMap<string, Scheme> = new Map([
  ['RS256', { ...pkcs1, hash: 'SHA-256' }],
  ['RS384', { ...pkcs1, hash: 'SHA-384' }],
  ['RS512', { ...pkcs1, hash: 'SHA-512' }],
  ['PS256', { ...pss, hash: 'SHA-256' }],
  ['PS384', { ...pss, hash: 'SHA-384' }],
  ['PS512', { ...pss, hash: 'SHA-512' }]
])
const modulusBits = 2_048
const signaturePattern = /^[\w-]{342}$/ // 256 bytes, base64url

/**
 * Checks a signature on this thread: RSA of 2,048 bits takes less time than to hand it to another thread and back. Longer
 * keys and other kinds would hold this one up for longer than the hand-over.
 *
 * @param raw a JWS in compact serialization, RFC 7515 §7.1, whose header has been checked
 * @param alg its algorithm
 * @param key jose's choice for it, from the issuer's keys
 * @returns undefined if that is jose's to check: another kind of key, or anything that is not as usual
 */
export function verifyRsa2048(raw: string, alg: string, key: webcrypto.CryptoKey): boolean | undefined {
  const scheme = schemes.get(alg)
  const end = raw.lastIndexOf('.')
  const signature = raw.slice(end + 1)
  if (scheme === undefined || !isMadeFor(key, scheme) || !signaturePattern.test(signature)) {
    return undefined
  }
  const { hash, padding } = scheme
  return verify(
    hash,
    Buffer.from(raw.slice(0, end), 'latin1'),
    { key: KeyObject.from(key), padding, saltLength: constants.RSA_PSS_SALTLEN_DIGEST },
    Buffer.from(signature, 'base64url')
  )
}

function isMadeFor(key: webcrypto.CryptoKey, { name, hash }: Scheme): boolean {
  const { algorithm, type, usages } = key
  return (
    type === 'public' &&
    usages.includes('verify') &&
    algorithm.name === name &&
    'modulusLength' in algorithm &&
    algorithm.modulusLength === modulusBits &&
    'hash' in algorithm &&
    nameOf(algorithm.hash) === hash
  )
}

function nameOf(hash: unknown): unknown {
  return typeof hash === 'object' && hash !== null && 'name' in hash ? hash.name : undefined
}

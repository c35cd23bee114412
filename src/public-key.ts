import { checkPrime } from 'node:crypto'
import { createLocalJWKSet, type JWK } from 'jose'
import { templatePattern } from './issuer-template.ts'

/** A key as it stands in a published set. */
export type PublicKey = JWK & { kty: string; issuer?: unknown }

// jose rejects shorter ones when it verifies: RFC 7518 §3.3. Longer ones than that take a processor's time.
const minModulusBits = 2_048
const maxModulusBits = 8_192
// NIST SP 800-56B §6.2.2 wants it odd; OpenSSL takes no longer one with a modulus of more than 3,072 bits.
const maxExponentBits = 64
// RFC 7518 §6, RFC 8037 §2: every reader of the set could sign.
const secretParts = ['d', 'p', 'q', 'dp', 'dq', 'qi', 'oth', 'k', 'priv']

/**
 * Why a published key cannot verify this issuer's tokens, in a few words; undefined if it can. OpenSSL takes many a key by
 * which anybody can sign.
 *
 * @param issuer the configured issuer, or the template
 * @param algorithms what its tokens may be signed with
 */
export async function keyFault(
  key: PublicKey,
  issuer: string,
  algorithms: readonly string[]
): Promise<string | undefined> {
  if (secretParts.some((part) => part in key)) {
    return 'its secret part is published'
  }
  if (key.use !== undefined && key.use !== 'sig') {
    return 'its "use" is not "sig"'
  }
  if (key.key_ops !== undefined && !(Array.isArray(key.key_ops) && key.key_ops.includes('verify'))) {
    return 'its "key_ops" lack "verify"'
  }
  if (!servesConfigured(key, issuer)) {
    return 'it is bound to another issuer'
  }
  const fault = key.kty === 'RSA' ? await rsaFault(key) : key.kty === 'OKP' ? edwardsFault(key) : undefined
  if (fault !== undefined) {
    return fault
  }
  const fits = await Promise.all(algorithms.map((algorithm) => canVerify(key, algorithm)))
  return fits.includes(true) ? undefined : `it fits none of ${algorithms.join(', ')}`
}

/** Whether a key may verify a token of this exact issuer: Entra ID publishes one set for many, and binds some keys to one. */
export function servesIssuer({ issuer: bound }: PublicKey, issuer: string): boolean {
  return (
    bound === undefined ||
    bound === issuer ||
    (typeof bound === 'string' && templatePattern(bound)?.test(issuer) === true)
  )
}

/** Whether it serves the configured issuer, or some issuer of the configured template. */
function servesConfigured(key: PublicKey, configured: string): boolean {
  const { issuer: bound } = key
  return (
    servesIssuer(key, configured) || (typeof bound === 'string' && templatePattern(configured)?.test(bound) === true)
  )
}

async function canVerify(key: PublicKey, alg: string): Promise<boolean> {
  try {
    await createLocalJWKSet({ keys: [key] })({ alg })
    return true
  } catch {
    return false // of another kind, or broken: a point that is not on its curve
  }
}

async function rsaFault({ n, e }: PublicKey): Promise<string | undefined> {
  const modulus = numberOf(n)
  const exponent = numberOf(e)
  if (modulus === undefined || exponent === undefined) {
    return 'it is malformed'
  }
  const bits = bitsOf(modulus)
  if (bits < minModulusBits || bits > maxModulusBits) {
    return `its modulus has ${bits} bits, not ${minModulusBits} to ${maxModulusBits}`
  }
  // By an exponent of 1 the message is its own signature; an even one has no inverse.
  if (exponent < 3n || exponent % 2n === 0n || bitsOf(exponent) > maxExponentBits) {
    return `its exponent is not an odd number of 3 or more, and at most ${maxExponentBits} bits`
  }
  if (await isEasilyFactored(modulus)) {
    return 'its modulus is no product of two large primes'
  }
  return undefined
}

/** With a factor at hand anybody has the secret part. */
async function isEasilyFactored(modulus: bigint): Promise<boolean> {
  for (let divisor = 2n; divisor < 1_000n; divisor += divisor === 2n ? 1n : 2n) {
    if (modulus % divisor === 0n) {
      return true
    }
  }
  return new Promise((resolve, reject) => {
    checkPrime(modulus, (error, isPrime) => (error === null || error === undefined ? resolve(isPrime) : reject(error)))
  })
}

/** Encoded points of a small order, without the sign's bit: with one as the key, a signature fits one message in eight. */
const smallOrderPoints = new Set([
  '0000000000000000000000000000000000000000000000000000000000000000',
  '0100000000000000000000000000000000000000000000000000000000000000',
  '26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05',
  'c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a',
  'ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f',
  'edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f',
  'eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f'
])

// RFC 8032 §5.1.3 decodes them, and OpenSSL takes them.
function edwardsFault({ crv, x }: PublicKey): string | undefined {
  const point = Buffer.from(typeof x === 'string' ? x : '', 'base64url')
  if (crv !== 'Ed25519' || point.length !== 32) {
    return undefined // canVerify decides
  }
  point.writeUInt8(point.readUInt8(31) & 0x7f, 31)
  return smallOrderPoints.has(point.toString('hex')) ? 'its point has a small order' : undefined
}

/** Base64urlUInt, RFC 7518 §2. */
function numberOf(value: unknown): bigint | undefined {
  if (typeof value !== 'string' || !/^[A-Za-z0-9_-]+$/.test(value)) {
    return undefined
  }
  return BigInt(`0x${Buffer.from(value, 'base64url').toString('hex') || '0'}`)
}

function bitsOf(number: bigint): number {
  return number.toString(2).length
}

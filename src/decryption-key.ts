import { createHash, createPrivateKey, createPublicKey, type JsonWebKey, type KeyObject } from 'node:crypto'

/** A private key of ours, which decrypts what was encrypted for us. */
export interface DecryptionKey {
  /** As the token's `kid` names it; of a key that was given none, its thumbprint. */
  readonly kid: string
  /** What a token must be encrypted with: RFC 7518 §4.3 and §4.6. */
  readonly alg: 'RSA-OAEP-256' | 'ECDH-ES'
  readonly privateKey: KeyObject
  /** For those who encrypt, without the secret part. */
  readonly publicKey: JsonWebKey
}

// RFC 7518 §4.3 wants 2,048 bits; longer ones than that take a processor's time.
const minModulusBits = 2_048
const maxModulusBits = 8_192
const curves = ['P-256', 'P-384', 'P-521']

/**
 * Reads a private key: PKCS #8 or SEC 1 in PEM, or a JWK.
 *
 * @param text the content of its file
 * @param kid what tokens call it; default what a JWK says, else the thumbprint of RFC 7638
 * @returns the key, or what is wrong, without a word of the content
 */
export function readDecryptionKey(text: string, kid?: string): DecryptionKey | { readonly problem: string } {
  const jwk = text.trimStart().startsWith('{') ? parseJwk(text) : undefined
  let privateKey: KeyObject
  try {
    privateKey = jwk === undefined ? createPrivateKey(text) : createPrivateKey({ key: jwk, format: 'jwk' })
  } catch {
    return { problem: 'is no private key in PEM (PKCS #8, not encrypted), and no private JWK' } // the cause could quote it
  }
  const alg = algorithmOf(privateKey)
  if (typeof alg !== 'string') {
    return alg
  }
  const publicKey = createPublicKey(privateKey).export({ format: 'jwk' })
  return { kid: kid ?? givenKid(jwk) ?? thumbprintOf(publicKey), alg, privateKey, publicKey }
}

/** The public keys as a set, RFC 7517 §5: what an issuer encrypts with. */
export function publishDecryptionKeys(keys: readonly DecryptionKey[]) {
  return { keys: keys.map(({ kid, alg, publicKey }) => ({ ...publicKey, kid, alg, use: 'enc' })) }
}

function parseJwk(text: string): JsonWebKey {
  try {
    return JSON.parse(text)
  } catch {
    return {} // no key
  }
}

function givenKid(jwk: JsonWebKey | undefined): string | undefined {
  const kid: unknown = jwk?.kid
  return typeof kid === 'string' && kid !== '' ? kid : undefined
}

function algorithmOf(key: KeyObject): DecryptionKey['alg'] | { readonly problem: string } {
  const { asymmetricKeyType: type, asymmetricKeyDetails: details } = key
  if (type === 'rsa') {
    const bits = details?.modulusLength ?? 0
    return bits >= minModulusBits && bits <= maxModulusBits
      ? 'RSA-OAEP-256'
      : { problem: `is an RSA key of ${bits} bits, not ${minModulusBits} to ${maxModulusBits}` }
  }
  if (type === 'x25519' || (type === 'ec' && curves.includes(curveOf(key) ?? ''))) {
    return 'ECDH-ES'
  }
  return { problem: `is neither an RSA key nor one of ${curves.join(', ')} or X25519` }
}

function curveOf(key: KeyObject): string | undefined {
  try {
    return key.export({ format: 'jwk' }).crv
  } catch {
    return undefined // a curve that JOSE does not know
  }
}

// RFC 7638 §3.2, RFC 8037 §2: the members that make the key, in this order.
function thumbprintOf({ crv, e, kty, n, x, y }: JsonWebKey): string {
  return createHash('sha256').update(JSON.stringify({ crv, e, kty, n, x, y })).digest('base64url')
}

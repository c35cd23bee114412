import { compactDecrypt } from 'jose'
import type { DecryptionKey } from './decryption-key.ts'
import { decodeObject, isObject, rejectionOf } from './jwt.ts'

/** A token that may have been encrypted, as it is to be verified. */
export interface OpenedToken {
  /** The signed token. */
  readonly raw: string
  readonly wasEncrypted: boolean
}

/**
 * Decrypts a token that is encrypted, and passes any other on. What comes out is as hostile as what came in: everybody has
 * the public key.
 *
 * @throws {RejectedError} if it is encrypted, and not as it should be
 */
export type OpenToken = (raw: string) => Promise<OpenedToken>

// Of a token; beyond it even the cheapest look is wasted. A logout token with claims of its own has some 2 KiB.
const maxBytes = 16 * 1_024
const maxHeaderBytes = 2 * 1_024
const encryptions = ['A128GCM', 'A256GCM']
// `crit`: RFC 7516 §4.1.13, we understand none. `zip`: a small token could become a large one. `p2c`, `p2s`: of passwords.
const unwanted = ['crit', 'zip', 'p2c', 'p2s']

/**
 * Makes the function that opens tokens: RFC 7516 in its compact form, around a signed JWT.
 *
 * @param ownKeys those of the moment; without one what is encrypted is rejected. Default none
 */
export function createOpenToken(ownKeys: () => readonly DecryptionKey[] = () => []): OpenToken {
  return async (raw) => {
    const keys = ownKeys()
    const parts = raw.split('.')
    if (parts.length !== 5) {
      return { raw, wasEncrypted: false }
    }
    if (keys.length === 0) {
      throw rejectionOf({}, 'ERR_TOKEN_ENCRYPTED')
    }
    const [encodedHeader = ''] = parts
    if (raw.length > maxBytes || encodedHeader.length > maxHeaderBytes) {
      throw rejectionOf({}, 'ERR_TOKEN_ENCRYPTION_TOO_LONG')
    }
    const header = decodeObject(encodedHeader, {})
    const fitting = keysFor(header, keys)
    const content = await decrypt(raw, header, fitting)
    // RFC 7519 §5.2 nests as often as one likes. Each layer costs a decryption that anybody can ask for.
    if (content.split('.').length === 5) {
      throw rejectionOf({ header }, 'ERR_TOKEN_ENCRYPTION_NESTED')
    }
    return { raw: content, wasEncrypted: true }
  }
}

type Header = Readonly<Record<string, unknown>>

/** Ours that the token may be for; the look at the header costs nothing. */
function keysFor(header: Header, keys: readonly DecryptionKey[]): readonly DecryptionKey[] {
  const { alg, enc, kid, cty } = header
  if (unwanted.some((name) => name in header)) {
    throw rejectionOf({ header }, 'ERR_TOKEN_ENCRYPTION_HEADER')
  }
  const ofAlgorithm = keys.filter((key) => key.alg === alg)
  if (ofAlgorithm.length === 0 || typeof enc !== 'string' || !encryptions.includes(enc)) {
    const accepted = [...new Set(keys.map((key) => key.alg)), ...encryptions]
    throw rejectionOf({ header }, 'ERR_TOKEN_ENCRYPTION_ALGORITHM', { accepted })
  }
  // RFC 7519 §5.2 wants it; some leave it out, and what is inside shows what it is.
  if ('cty' in header && (typeof cty !== 'string' || !/^(application\/)?jwt$/i.test(cty))) {
    throw rejectionOf({ header }, 'ERR_TOKEN_ENCRYPTION_HEADER')
  }
  if (!('kid' in header)) {
    return ofAlgorithm
  }
  const named = ofAlgorithm.filter((key) => key.kid === kid)
  if (named.length === 0) {
    throw rejectionOf({ header }, 'ERR_TOKEN_ENCRYPTION_KEY', { accepted: ofAlgorithm.map((key) => key.kid) })
  }
  return named
}

async function decrypt(raw: string, header: Header, keys: readonly DecryptionKey[]): Promise<string> {
  let cause: unknown
  for (const { alg, privateKey, publicKey } of keys) {
    if (alg === 'ECDH-ES' && !isOnCurve(header.epk, publicKey.crv)) {
      continue
    }
    try {
      const { plaintext } = await compactDecrypt(raw, privateKey, {
        keyManagementAlgorithms: [alg],
        contentEncryptionAlgorithms: encryptions
      })
      return Buffer.from(plaintext).toString('latin1') // a JWT has ASCII alone, and the reader rejects anything else
    } catch (error) {
      cause = error // one for all that can be wrong: which part it was is nobody's to know
    }
  }
  throw rejectionOf({ header }, 'ERR_TOKEN_DECRYPTION', { cause })
}

/** RFC 7518 §4.6.1.1. A key of another kind would be imported before it is found not to fit. */
function isOnCurve(epk: unknown, curve: string | undefined): boolean {
  return isObject(epk) && epk.crv === curve
}

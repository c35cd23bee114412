import { createCipheriv, createDecipheriv, randomBytes } from 'node:crypto'
import { promisify } from 'node:util'
import { gunzip, gzip } from 'node:zlib'
import { TokenCacheMisuseError, TokenCacheTooLargeError } from './errors.ts'
import { isObject } from './objects.ts'

const compress = promisify(gzip)
const decompress = promisify(gunzip)

export interface Encryption {
  /** The id of the key that new payloads are encrypted with. */
  current: string
  /** Keys by id, 32 bytes each; older ones stay until their rows have been re-written. */
  keys: Readonly<Record<string, Uint8Array>>
  /**
   * Whether a row that is not encrypted is read, and encrypted by the next save; default false: it is treated as empty.
   * Nothing binds a plain row to its place: who can write to the table may have put another user's there. True is for the
   * days in which encryption is introduced; else all users sign in once more.
   */
  allowPlain?: boolean
}

/** Where a payload stands; bound to the encrypted one, so that it cannot be moved to another place. */
export interface Place {
  readonly clientId: string
  readonly partitionKey: string
  readonly generation: string
}

export interface Encoded {
  readonly payload: Buffer
  readonly encoding: string
}

/** As it was read: text, if the database has seen that it is UTF-8. */
export interface Stored {
  readonly payload: Buffer | string
  readonly encoding: string
}

/** What a payload holds, or why it holds nothing. */
export type Decoded =
  | { readonly kind: 'text'; readonly text: string }
  /** Of a login whose payload is on its way. */
  | { readonly kind: 'pending' }
  /** Not encrypted, though this app encrypts; with its text where that is allowed. */
  | { readonly kind: 'plain'; readonly text: string | undefined }
  | { readonly kind: 'undecodable'; readonly reason: string }

export interface Codec {
  /** Whether a payload depends on its generation, which a row has only once it is there. */
  readonly bindsGeneration: boolean
  encode(text: string, place: Place): Promise<Encoded>
  decode(stored: Stored, place: Place): Promise<Decoded>
}

/** What a login stores whose payload depends on the generation that it is given: it grants nothing to anybody. */
export const pendingPayload: Encoded = { payload: Buffer.alloc(0), encoding: 'none' }

const ivBytes = 12
const tagBytes = 16
const prefix = 'gzip+a256gcm:'
// Far beyond any account's cache. One limit for writing and for reading: what is written can be read.
const maxBytes = 16 * 1024 * 1024

/**
 * Makes the coding of payloads: JSON as it is, or compressed and then encrypted with AES-256-GCM.
 *
 * @param encryption the keys; undefined: payloads are stored as they are
 * @throws {TokenCacheMisuseError} where the current key is missing or a key has not 32 bytes
 */
export function createCodec(encryption: Encryption | undefined): Codec {
  const plain: Codec = {
    bindsGeneration: false,
    encode: async (text) => ({ payload: boundedBytes(text), encoding: 'json' }),
    decode: async ({ payload, encoding }) => {
      if (encoding === 'none') {
        return { kind: 'pending' }
      }
      if (encoding === 'json' && payload.length <= maxBytes) {
        return { kind: 'text', text: typeof payload === 'string' ? payload : payload.toString('utf8') }
      }
      const isEncrypted = encoding.startsWith(prefix)
      return {
        kind: 'undecodable',
        reason: isEncrypted
          ? `it is encrypted with the key "${shorten(encoding.slice(prefix.length))}", and this app has no keys: give "encryption"`
          : `it is no JSON of at most 16 MiB, and its encoding is "${shorten(encoding)}"`
      }
    }
  }
  if (encryption === undefined) {
    return plain
  }
  if (!isObject(encryption) || typeof encryption.current !== 'string' || !isObject(encryption.keys)) {
    throw new TokenCacheMisuseError(`"encryption" must be { current: 'k1', keys: { k1: <a Buffer of 32 bytes> } }`)
  }
  const { current, keys, allowPlain = false } = encryption
  checkKeys(keys)
  const currentKey = Object.hasOwn(keys, current) ? keys[current] : undefined
  if (currentKey === undefined) {
    throw new TokenCacheMisuseError(
      `encryption key "${current}" is current, and not among the keys: ${Object.keys(keys).join(', ') || 'there are none'}`
    )
  }

  return {
    bindsGeneration: true,

    async encode(text, place) {
      const iv = randomBytes(ivBytes)
      const cipher = createCipheriv('aes-256-gcm', currentKey, iv).setAAD(additionalData(current, place))
      const encrypted = Buffer.concat([cipher.update(await compress(boundedBytes(text))), cipher.final()])
      return { payload: Buffer.concat([iv, cipher.getAuthTag(), encrypted]), encoding: prefix + current }
    },

    async decode({ payload, encoding }, place) {
      if (!encoding.startsWith(prefix)) {
        const decoded = await plain.decode({ payload, encoding }, place)
        return decoded.kind === 'text' ? { kind: 'plain', text: allowPlain ? decoded.text : undefined } : decoded
      }
      const id = encoding.slice(prefix.length)
      const key = Object.hasOwn(keys, id) ? keys[id] : undefined
      if (key === undefined) {
        return {
          kind: 'undecodable',
          reason: `it is encrypted with the key "${shorten(id)}", which is not among the keys (${Object.keys(keys).join(', ')}): add it`
        }
      }
      try {
        const bytes = typeof payload === 'string' ? Buffer.from(payload) : payload
        const decipher = createDecipheriv('aes-256-gcm', key, bytes.subarray(0, ivBytes), { authTagLength: tagBytes })
          .setAAD(additionalData(id, place))
          .setAuthTag(bytes.subarray(ivBytes, ivBytes + tagBytes))
        const compressed = Buffer.concat([decipher.update(bytes.subarray(ivBytes + tagBytes)), decipher.final()])
        return { kind: 'text', text: (await decompress(compressed, { maxOutputLength: maxBytes })).toString('utf8') }
      } catch {
        return {
          kind: 'undecodable',
          reason: `it cannot be decrypted with the key "${id}": another key has this id elsewhere, or the row was changed or moved`
        }
      }
    }
  }
}

/** @throws {TokenCacheTooLargeError} */
function boundedBytes(text: string): Buffer {
  const bytes = Buffer.from(text)
  if (bytes.byteLength > maxBytes) {
    throw new TokenCacheTooLargeError(bytes.byteLength, maxBytes)
  }
  return bytes
}

/** What stands in a row may be anybody's. */
function shorten(text: string): string {
  return text.replace(/[^\w.:+-]/g, '?').slice(0, 64)
}

function checkKeys(keys: Encryption['keys']): void {
  for (const [id, key] of Object.entries(keys)) {
    if (!(key instanceof Uint8Array) || key.byteLength !== 32) {
      const found = key instanceof Uint8Array ? `${key.byteLength} bytes` : `a ${typeof key}`
      throw new TokenCacheMisuseError(
        `encryption key "${id}" must be a Buffer of 32 bytes, and is ${found}. Make one with "openssl rand -base64 32", and read it with Buffer.from(text, 'base64')`
      )
    }
  }
}

function additionalData(keyId: string, { clientId, partitionKey, generation }: Place): Buffer {
  return Buffer.from(JSON.stringify([keyId, clientId, partitionKey, generation]))
}

import { createCipheriv, createDecipheriv, randomBytes } from 'node:crypto'
import { promisify } from 'node:util'
import { gunzip, gzip } from 'node:zlib'

const compress = promisify(gzip)
const decompress = promisify(gunzip)

export interface Encryption {
  /** The id of the key that new payloads are encrypted with. */
  current: string
  /** Keys by id, 32 bytes each; older ones stay until their rows have been re-written. */
  keys: Readonly<Record<string, Buffer>>
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

export interface Codec {
  /** Whether a payload depends on its generation, which a row has only once it is there. */
  readonly bindsGeneration: boolean
  encode(text: string, place: Place): Promise<Encoded>
  /** The text, or undefined where the payload cannot be decoded at this place with these keys. */
  decode(encoded: Encoded, place: Place): Promise<string | undefined>
}

const ivBytes = 12
const tagBytes = 16
const prefix = 'gzip+a256gcm:'
// Far beyond any account's cache; a payload that claims to be larger is no payload of ours.
const maxBytes = 16 * 1024 * 1024

/**
 * Makes the coding of payloads: JSON as it is, or compressed and then encrypted with AES-256-GCM.
 *
 * @param encryption the keys; undefined: payloads are stored as they are
 * @throws {TypeError} where the current key is missing or a key has not 32 bytes
 */
export function createCodec(encryption: Encryption | undefined): Codec {
  if (encryption === undefined) {
    return {
      bindsGeneration: false,
      encode: async (text) => ({ payload: Buffer.from(text), encoding: 'json' }),
      decode: async ({ payload, encoding }) => (encoding === 'json' ? payload.toString('utf8') : undefined)
    }
  }
  const { current, keys } = encryption
  for (const [id, key] of Object.entries(keys)) {
    if (key.byteLength !== 32) {
      throw new TypeError(`encryption key "${id}" must have 32 bytes`)
    }
  }
  const currentKey = Object.hasOwn(keys, current) ? keys[current] : undefined
  if (currentKey === undefined) {
    throw new TypeError(`encryption key "${current}" is current, and not among the keys`)
  }

  return {
    bindsGeneration: true,
    async encode(text, place) {
      const iv = randomBytes(ivBytes)
      const cipher = createCipheriv('aes-256-gcm', currentKey, iv).setAAD(additionalData(current, place))
      const encrypted = Buffer.concat([cipher.update(await compress(text)), cipher.final()])
      return { payload: Buffer.concat([iv, cipher.getAuthTag(), encrypted]), encoding: prefix + current }
    },
    async decode({ payload, encoding }, place) {
      if (encoding === 'json') {
        return payload.toString('utf8') // from before encryption was turned on; re-written when it is used
      }
      const id = encoding.startsWith(prefix) ? encoding.slice(prefix.length) : undefined
      const key = id !== undefined && Object.hasOwn(keys, id) ? keys[id] : undefined
      if (id === undefined || key === undefined || payload.byteLength < ivBytes + tagBytes) {
        return undefined
      }
      try {
        const decipher = createDecipheriv('aes-256-gcm', key, payload.subarray(0, ivBytes), { authTagLength: tagBytes })
          .setAAD(additionalData(id, place))
          .setAuthTag(payload.subarray(ivBytes, ivBytes + tagBytes))
        const compressed = Buffer.concat([decipher.update(payload.subarray(ivBytes + tagBytes)), decipher.final()])
        return (await decompress(compressed, { maxOutputLength: maxBytes })).toString('utf8')
      } catch {
        return undefined // told by the caller as an undecodable row
      }
    }
  }
}

function additionalData(keyId: string, { clientId, partitionKey, generation }: Place): Buffer {
  return Buffer.from(JSON.stringify([keyId, clientId, partitionKey, generation]))
}

import { createHash, generateKeyPairSync, type KeyObject, randomUUID, sign } from 'node:crypto'
import { once } from 'node:events'
import { createServer } from 'node:http'
import { promisify } from 'node:util'

const signAsync = promisify(sign)

/** An identity provider that publishes its key and signs logout tokens. */
export interface Provider {
  readonly issuer: string
  /** Signs a logout token for the session of that number. */
  logoutToken(session: number): Promise<string>
  close(): void
}

export const audience = 'app-0'

/** The sid of the session of that number: what SQL makes of it too, and as long and as random as real ones. */
export function sidOf(session: number): string {
  const hash = createHash('md5').update(`sid${session}`).digest('hex')
  return hash.replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, '$1-$2-$3-$4-$5')
}

/** Starts a provider on loopback. RS256 with 2048 bits is what most providers sign with; ES256 is cheap to sign. */
export async function startProvider(alg: 'RS256' | 'ES256' = 'RS256'): Promise<Provider> {
  const { publicKey, privateKey } =
    alg === 'RS256'
      ? generateKeyPairSync('rsa', { modulusLength: 2048 })
      : generateKeyPairSync('ec', { namedCurve: 'P-256' })
  const kid = 'bench'
  const jwks = { keys: [{ ...publicKey.export({ format: 'jwk' }), kid, alg, use: 'sig' }] }
  const server = createServer((request, response) => {
    response.setHeader('content-type', 'application/json')
    response.end(JSON.stringify(request.url === '/jwks' ? jwks : discovery))
  }).listen(0, '127.0.0.1')
  await once(server, 'listening')
  const address = server.address()
  if (address === null || typeof address === 'string') {
    throw new Error('the provider has no port')
  }
  const issuer = `http://127.0.0.1:${address.port}`
  // What express-openid-connect asks for, beside the two that a receiver of logout tokens needs.
  const discovery = {
    issuer,
    jwks_uri: `${issuer}/jwks`,
    authorization_endpoint: `${issuer}/authorize`,
    token_endpoint: `${issuer}/token`,
    response_types_supported: ['code', 'id_token', 'code id_token'],
    response_modes_supported: ['query', 'fragment', 'form_post'],
    subject_types_supported: ['public'],
    id_token_signing_alg_values_supported: [alg]
  }
  return {
    issuer,
    logoutToken: (session) => signToken({ issuer, alg, kid, key: privateKey, session }),
    close() {
      server.closeAllConnections()
      server.close()
    }
  }
}

interface Unsigned {
  issuer: string
  alg: 'RS256' | 'ES256'
  kid: string
  key: KeyObject
  session: number
}

async function signToken({ issuer, alg, kid, key, session }: Unsigned): Promise<string> {
  const iat = Math.floor(Date.now() / 1_000)
  const claims = {
    iss: issuer,
    aud: audience,
    iat,
    exp: iat + 6 * 3_600, // as long as a run may last
    jti: randomUUID(),
    sub: `sub${session}app-0`, // most providers send both
    sid: sidOf(session),
    events: { 'http://schemas.openid.net/event/backchannel-logout': {} }
  }
  const input = `${encode({ alg, typ: 'logout+jwt', kid })}.${encode(claims)}`
  const signature = await signAsync('sha256', Buffer.from(input), { key, dsaEncoding: 'ieee-p1363' })
  return `${input}.${signature.toString('base64url')}`
}

function encode(value: unknown): string {
  return Buffer.from(JSON.stringify(value)).toString('base64url')
}

// What the scenarios of all languages share: a provider with a token endpoint, which keeps no state, and the real
// service, which obeys this provider's logout tokens.
import { type ChildProcess, spawn } from 'node:child_process'
import { randomBytes, randomUUID } from 'node:crypto'
import { once } from 'node:events'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { setTimeout as delay } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { exportJWK, generateKeyPair, SignJWT } from 'jose'
import { freePort } from '../../src/embedded-postgres.ts'

/** Who signs in; travels inside codes, refresh tokens and assertions. */
export interface Person {
  /** `<uid>.<utid>`, or a bare subject. */
  readonly homeAccountId: string
  readonly subject: string
  readonly sid?: string
  /** The ID token's `iat`, seconds; default now. */
  readonly issuedAt?: number
  readonly oid?: string
  /** The endpoint answers after so long. */
  readonly delayMs?: number
  /** The endpoint answers this error instead. */
  readonly error?: string
}

/** Whom a sign-out names. */
export interface Selector {
  readonly sid?: string
  readonly subject?: string
}

export interface World {
  /** Where MSAL's requests go instead of the authority's host. */
  readonly endpoint: string
  /** The `iss` of all ID tokens. */
  readonly issuer: string
  /** Sends a logout token to the service; its status. */
  signOut(selector: Selector): Promise<number>
  /** Purges an account, as an operator does; its status. */
  purge(homeAccountId: string): Promise<number>
  /** Holds the next answer of this grant back. */
  hold(grantType: string): Held
  /** Requests to the token endpoint so far. */
  readonly requests: number
  stop(): Promise<void>
}

export interface Held {
  /** Resolves when the request has come. */
  readonly arrived: Promise<void>
  release(): void
}

/** MSAL's authority in each mode; its host is never reached. */
export const authorities = {
  oidc: 'https://login.example/tenant',
  entra: 'https://login.microsoftonline.com/7e0a3c5e-0000-4000-8000-000000000001'
} as const

const adminToken = randomBytes(24).toString('hex')
const startWithinMs = 30_000
const maxBodyBytes = 1024 * 1024

const encode = (value: unknown) => Buffer.from(JSON.stringify(value)).toString('base64url')
const nowSeconds = () => Math.floor(Date.now() / 1_000)

/** The authorization code of a person who has just signed in. */
export const codeOf = (person: Person): string => encode(person)

/** The access token that a person calls an API with. */
export function assertionOf(person: Person, issuer: string): string {
  const claims = { ...person, iss: issuer, sub: person.subject, iat: person.issuedAt ?? nowSeconds(), aud: 'api' }
  return `${encode({ alg: 'none' })}.${encode(claims)}.sig`
}

/**
 * Starts both on a database that is migrated.
 *
 * @throws {Error} where the service does not start
 */
export async function startWorld(options: { databaseUrl: string; clientIds: readonly string[] }): Promise<World> {
  const { privateKey, publicKey } = await generateKeyPair('RS256')
  const key = { ...(await exportJWK(publicKey)), kid: 'key', alg: 'RS256', use: 'sig' }
  const holds: { grantType: string; arrive(): void; released: Promise<void> }[] = []
  let requests = 0
  let endpoint = ''

  async function answerToken(form: URLSearchParams): Promise<{ status: number; body: object }> {
    requests += 1
    const grantType = form.get('grant_type') ?? ''
    const held = holds.findIndex((hold) => hold.grantType === grantType)
    if (held >= 0) {
      const [hold] = holds.splice(held, 1)
      hold?.arrive()
      await hold?.released
    }
    const scope = form.get('scope') ?? ''
    const common = { token_type: 'Bearer', expires_in: 3_600, scope }
    if (grantType === 'client_credentials') {
      return { status: 200, body: { ...common, access_token: `app-${randomUUID()}` } }
    }
    const source = form.get('code') ?? form.get('refresh_token') ?? form.get('assertion')?.split('.')[1] ?? ''
    const person: Person = JSON.parse(Buffer.from(source, 'base64url').toString())
    await delay(person.delayMs ?? 0)
    if (person.error !== undefined) {
      return { status: 400, body: { error: person.error, error_description: 'as the person says' } }
    }
    const [uid, utid] = person.homeAccountId.split('.')
    const { homeAccountId, subject, sid, oid } = person
    const claims = {
      iss: issuer,
      aud: form.get('client_id'),
      sub: subject,
      sid,
      oid,
      tid: utid,
      iat: person.issuedAt ?? nowSeconds(),
      exp: nowSeconds() + 3_600,
      uti: randomUUID() // no two ID tokens are equal
    }
    return {
      status: 200,
      body: {
        ...common,
        access_token: `at-${homeAccountId}-${randomUUID()}`,
        refresh_token: encode({ homeAccountId, subject, sid, oid, unique: randomUUID() }),
        id_token: `${encode({ alg: 'none' })}.${encode(claims)}.sig`,
        ...(utid === undefined ? {} : { client_info: encode({ uid, utid }) })
      }
    }
  }

  async function answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const { pathname } = new URL(request.url ?? '/', 'http://localhost')
    const send = (status: number, body: object) =>
      response.writeHead(status, { 'content-type': 'application/json' }).end(JSON.stringify(body))
    const body = await bodyOf(request)
    if (pathname === '/issuer/.well-known/openid-configuration') {
      send(200, { issuer, jwks_uri: `${issuer}/keys`, end_session_endpoint: `${issuer}/end` })
    } else if (pathname === '/issuer/keys') {
      send(200, { keys: [key] })
    } else if (pathname.endsWith('/.well-known/openid-configuration')) {
      const authority = Object.values(authorities).find((each) => pathname.startsWith(new URL(each).pathname))
      send(authority === undefined ? 404 : 200, {
        issuer: authority,
        authorization_endpoint: `${authority}/authorize`,
        token_endpoint: `${authority}/token`,
        jwks_uri: `${authority}/keys`
      })
    } else if (pathname === '/common/discovery/instance') {
      const aliases = ['login.microsoftonline.com', 'login.windows.net', 'login.microsoft.com', 'sts.windows.net']
      const metadata = [{ preferred_network: aliases[0], preferred_cache: aliases[1], aliases }]
      send(200, { tenant_discovery_endpoint: `${authorities.entra}/v2.0/.well-known/openid-configuration`, metadata })
    } else if (pathname === '/control/sign-out') {
      send(await signOut(JSON.parse(body)), {})
    } else if (pathname === '/control/purge') {
      send(await purge(JSON.parse(body).homeAccountId), {})
    } else if (pathname.endsWith('/token')) {
      const answered = await answerToken(new URLSearchParams(body))
      send(answered.status, answered.body)
    } else {
      send(404, {})
    }
  }

  const server = createServer((request, response) => {
    answer(request, response).catch((error: unknown) => response.writeHead(500).end(String(error)))
  }).listen(0, '127.0.0.1')
  await once(server, 'listening')
  const address = server.address()
  endpoint = `http://127.0.0.1:${address !== null && typeof address === 'object' ? address.port : 0}`
  const issuer = `${endpoint}/issuer`

  const service = await startService(options, issuer)

  async function signOut({ sid, subject }: Selector): Promise<number> {
    const token = await new SignJWT({
      events: { 'http://schemas.openid.net/event/backchannel-logout': {} },
      ...(sid === undefined ? {} : { sid }),
      ...(subject === undefined ? {} : { sub: subject })
    })
      .setProtectedHeader({ alg: 'RS256', kid: 'key', typ: 'logout+jwt' })
      .setIssuer(issuer)
      .setAudience(options.clientIds[0] ?? '')
      .setIssuedAt()
      .setExpirationTime('2 minutes')
      .setJti(randomUUID())
      .sign(privateKey)
    const answer = await fetch(`${service.url}/backchannel-logout`, {
      method: 'POST',
      body: new URLSearchParams({ logout_token: token })
    })
    await answer.arrayBuffer()
    return answer.status
  }

  async function purge(homeAccountId: string): Promise<number> {
    const answer = await fetch(`${service.adminUrl}/admin/purges`, {
      method: 'POST',
      headers: { authorization: `Bearer ${adminToken}`, 'content-type': 'application/json' },
      body: JSON.stringify({ homeAccountId, reason: 'a scenario' })
    })
    await answer.arrayBuffer()
    return answer.status
  }

  return {
    endpoint,
    issuer,
    get requests() {
      return requests
    },
    signOut,
    purge,
    hold(grantType) {
      const arrival = deferred()
      const release = deferred()
      holds.push({ grantType, arrive: arrival.resolve, released: release.promise })
      return { arrived: arrival.promise, release: release.resolve }
    },
    async stop() {
      await service.stop()
      server.close()
      server.closeAllConnections()
    }
  }
}

interface Service {
  readonly url: string
  readonly adminUrl: string
  stop(): Promise<void>
}

/** The service as an operator starts it, in a process of its own. */
async function startService(
  { databaseUrl, clientIds }: { databaseUrl: string; clientIds: readonly string[] },
  issuer: string
): Promise<Service> {
  const folder = mkdtempSync(join(tmpdir(), 'msal-logout-conformance-'))
  const issuersFile = join(folder, 'issuers.json')
  writeFileSync(issuersFile, JSON.stringify({ issuers: [{ name: 'world', issuer, clientIds }] }))
  const [port, adminPort] = await Promise.all([freePort(), freePort()])
  const root = fileURLToPath(new URL('../..', import.meta.url))
  const child = spawn(process.execPath, ['--import', 'tsx', join(root, 'src/cli.ts'), 'serve'], {
    cwd: root,
    env: {
      PATH: process.env.PATH ?? '',
      DATABASE_URL: databaseUrl,
      ISSUERS_FILE: issuersFile,
      HOST: '127.0.0.1',
      PORT: String(port),
      ADMIN_PORT: String(adminPort),
      ADMIN_TOKEN: adminToken,
      SPOOL_DIR: join(folder, 'spool'),
      LOG_LEVEL: 'warn'
    },
    stdio: ['ignore', 'pipe', 'pipe']
  })
  const lines: string[] = []
  for (const stream of [child.stdout, child.stderr]) {
    createInterface(stream).on('line', (line) => {
      lines.push(line)
      lines.splice(0, lines.length - 20)
    })
  }
  const adminUrl = `http://127.0.0.1:${adminPort}`
  const startedAt = Date.now()
  while (!(await isReady(adminUrl))) {
    if (child.exitCode !== null || Date.now() - startedAt > startWithinMs) {
      await end(child)
      throw new Error(`the service does not start:\n${lines.join('\n')}`)
    }
    await delay(50)
  }
  return {
    url: `http://127.0.0.1:${port}`,
    adminUrl,
    async stop() {
      await end(child)
      rmSync(folder, { recursive: true, force: true })
    }
  }
}

async function isReady(adminUrl: string): Promise<boolean> {
  try {
    return (await fetch(`${adminUrl}/readyz`)).ok
  } catch {
    return false
  }
}

/** Ends a process, and waits for it. */
export async function end(child: ChildProcess): Promise<void> {
  if (child.exitCode === null && child.signalCode === null) {
    const exited = once(child, 'exit')
    child.kill('SIGTERM')
    const timer = setTimeout(() => child.kill('SIGKILL'), 12_000)
    await exited
    clearTimeout(timer)
  }
}

async function bodyOf(request: IncomingMessage): Promise<string> {
  const parts: Buffer[] = []
  let bytes = 0
  for await (const part of request) {
    bytes += part.length
    if (bytes > maxBodyBytes) {
      throw new Error('too large')
    }
    parts.push(part)
  }
  return Buffer.concat(parts).toString()
}

function deferred(): { promise: Promise<void>; resolve(): void } {
  let resolve = () => {}
  const promise = new Promise<void>((done) => {
    resolve = done
  })
  return { promise, resolve }
}

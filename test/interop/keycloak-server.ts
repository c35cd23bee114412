// Keycloak from Maven Central, in development mode, with its database in memory: every start is a first one.
import { randomBytes } from 'node:crypto'
import { chmodSync, existsSync } from 'node:fs'
import { join } from 'node:path'
import type { Test } from 'tap'
import { freePort } from '../../src/embedded-postgres.ts'
import { fetchMavenFile, programFolder, startProgram, unpack } from './program.ts'

export const keycloakVersion = '26.7.3'
const folder = join(programFolder, `keycloak-${keycloakVersion}`)
const program = join(folder, `keycloak-${keycloakVersion}`, 'bin/kc.sh')

export interface Keycloak {
  readonly url: string
  /** A request to the administrators' API below `/admin/realms`; its answer's JSON, or its text. */
  admin(method: string, path: string, body?: unknown): Promise<unknown>
}

/** A port for {@link startKeycloak}, and what it will be called: the service needs to know it first. */
export async function keycloakAddress(): Promise<{ port: number; url: string }> {
  const port = await freePort()
  return { port, url: `http://127.0.0.1:${port}` }
}

/** Starts it; it ends with the test. `features` are those that Keycloak has not on by itself. */
export async function startKeycloak(
  t: Test,
  {
    port,
    url,
    features = [],
    options = []
  }: {
    port: number
    url: string
    features?: readonly string[]
    /** Further ones, as on its command line. */
    options?: readonly string[]
  }
): Promise<Keycloak> {
  const password = randomBytes(16).toString('hex')
  await startProgram(t, {
    command: program,
    args: [
      'start-dev',
      '--db=dev-mem',
      '--http-host=127.0.0.1',
      `--http-port=${port}`,
      ...(features.length === 0 ? [] : [`--features=${features.join(',')}`]),
      ...options
    ],
    env: {
      KC_BOOTSTRAP_ADMIN_USERNAME: 'admin',
      KC_BOOTSTRAP_ADMIN_PASSWORD: password,
      JAVA_OPTS_KC_HEAP: '-Xms128m -Xmx640m',
      ...(process.env.JAVA_HOME === undefined ? {} : { JAVA_HOME: process.env.JAVA_HOME })
    },
    readyUrl: `${url}/realms/master/.well-known/openid-configuration`
  })

  async function accessToken(): Promise<string> {
    const answer = await fetch(`${url}/realms/master/protocol/openid-connect/token`, {
      method: 'POST',
      body: new URLSearchParams({ grant_type: 'password', client_id: 'admin-cli', username: 'admin', password })
    })
    return ((await answer.json()) as { access_token: string }).access_token
  }

  return {
    url,
    async admin(method, path, body) {
      const answer = await fetch(`${url}/admin/realms${path}`, {
        method,
        headers: { authorization: `Bearer ${await accessToken()}`, 'content-type': 'application/json' },
        ...(body === undefined ? {} : { body: JSON.stringify(body) })
      })
      const text = await answer.text()
      if (!answer.ok) {
        throw new Error(`${method} ${path} is answered ${answer.status}: ${text}`)
      }
      return text.startsWith('{') || text.startsWith('[') ? JSON.parse(text) : text
    }
  }
}

/** Fetches it from Maven Central, if it is not there yet. */
export function fetchKeycloak(): void {
  if (existsSync(program)) {
    return
  }
  const archive = fetchMavenFile(`org.keycloak:keycloak-quarkus-dist:${keycloakVersion}:zip`)
  unpack(archive, folder)
  chmodSync(program, 0o755)
}

export interface KeycloakClient {
  readonly clientId: string
  readonly secret: string
  readonly redirectUri: string
  /** The service's, with `/backchannel-logout`; one of the two. */
  readonly backChannelUrl?: string
  readonly frontChannelUrl?: string
  /** *Backchannel logout session required*, or that of the front channel; default on. */
  readonly sessionRequired?: boolean
  /** Of the ID token, which is also that of the logout token; default RS256. */
  readonly algorithm?: string
}

/** A client as the administrators' API takes it. */
export function clientRepresentation(client: KeycloakClient) {
  const sessionRequired = String(client.sessionRequired ?? true)
  return {
    clientId: client.clientId,
    secret: client.secret,
    publicClient: false,
    standardFlowEnabled: true,
    redirectUris: [client.redirectUri],
    frontchannelLogout: client.frontChannelUrl !== undefined,
    attributes: {
      'post.logout.redirect.uris': '+',
      ...(client.backChannelUrl && {
        'backchannel.logout.url': client.backChannelUrl,
        'backchannel.logout.session.required': sessionRequired
      }),
      ...(client.frontChannelUrl && {
        'frontchannel.logout.url': client.frontChannelUrl,
        'frontchannel.logout.session.required': sessionRequired
      }),
      ...(client.algorithm && { 'id.token.signed.response.alg': client.algorithm })
    }
  }
}

/** A user as the administrators' API takes it, who is asked for nothing but the password. */
export function userRepresentation(user: string, realm: string) {
  return {
    realmRoles: [`default-roles-${realm}`],
    username: user,
    email: `${user}@example.com`,
    emailVerified: true,
    firstName: user,
    lastName: 'Example',
    enabled: true,
    credentials: [{ type: 'password', value: passwordOf(user), temporary: false }]
  }
}

export function passwordOf(user: string): string {
  return `the password of ${user}`
}

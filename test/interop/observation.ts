// Watches a real provider: who signs in, what arrives at the service byte by byte, and what is left afterwards.
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import type { Socket } from 'node:net'
import { setTimeout as delay } from 'node:timers/promises'
import { decodeJwt } from 'jose'
import type { Test } from 'tap'
import { type Browser, createBrowser, type Page } from '../../examples/browser.ts'
import { listen } from '../fixtures/listen.ts'
import { rememberToken } from '../fixtures/secrets.ts'
import { build, type Service, type ServiceOptions } from '../fixtures/service.ts'
import {
  asStored,
  emptyCache,
  formOf,
  type MatrixColumn,
  readLeft,
  readRequest,
  type Scenario,
  type Specimen,
  type SpecimenIssuer,
  type SpecimenLogin,
  type SpecimenRequest,
  specimenFolder
} from '../fixtures/specimen.ts'
import { until } from '../fixtures/until.ts'

/** A request that the service has answered. */
export interface Heard {
  readonly receivedAt: number
  readonly bytes: string
  readonly status: number
  /** When its answer left, `performance.now()`: after the commit. */
  readonly answeredAt: number
}

export interface SignIn extends SpecimenLogin {
  readonly idToken: string
  readonly accessToken: string
}

export interface Person {
  readonly user: string
  /** A name for it; each has cookies of its own. */
  readonly browser: string
}

export interface SignedIn {
  /** Alice on her laptop, in the first app. */
  readonly laptop: SignIn
  readonly inEveryApp: readonly SignIn[]
  /** Alice on her phone, in the first app. */
  readonly phone: SignIn
  readonly bob: SignIn
}

export interface RelyingParty {
  readonly clientId: string
  readonly clientSecret: string
  /** The issuer's. */
  readonly issuer: string
  /** Default `openid`. */
  readonly scope?: string
}

export interface ObservationOptions {
  readonly provider: string
  readonly version: string
  readonly issuers: readonly SpecimenIssuer[]
  /** Fills the forms that the provider shows at a sign-in. */
  readonly fillForm: (page: Page, user: string) => Record<string, string>
  readonly service?: Pick<ServiceOptions, 'edges'>
}

export interface ScenarioOptions {
  readonly name: string
  readonly column: MatrixColumn | null
  readonly done: string
  /** How many requests come of it. */
  readonly sends: number
  /** How long to wait for more than that, in milliseconds, if the provider sends after it has answered; default 0. */
  readonly settleMs?: number
}

export type Observation = Awaited<ReturnType<typeof observe>>

/** The service on a port of its own, and three apps that do nothing but receive codes. */
export async function observe(t: Test, options: ObservationOptions) {
  const service = await build(t, { issuers: options.issuers.map((entry) => ({ ...entry })), ...options.service })
  const heard = hear(service)
  const serviceUrl = await service.app.listen({ port: 0, host: '127.0.0.1' })
  service.retry()
  const apps = await listen(t, (_request, response) => response.end('signed in'))
  const callbackOf = (clientId: string) => `${apps}/callback-of-${clientId}`

  let browsers = new Map<string, Browser>()
  const browserOf = ({ user, browser }: Person): Browser => {
    const name = `${user}/${browser}`
    const opened = browsers.get(name) ?? createBrowser('')
    browsers.set(name, opened)
    return opened
  }
  let logins: SignIn[] = []
  const scenarios: Scenario[] = []
  const published = new Map<string, string>()

  /** Signs in by the provider's own forms, redeems the code, and stores the login as a web app does. */
  async function signIn(person: Person, { clientId, clientSecret, issuer, scope = 'openid' }: RelyingParty) {
    const { authorization_endpoint, token_endpoint } = await getJson<Record<string, string>>(
      `${issuer}/.well-known/openid-configuration`
    )
    const browser = browserOf(person)
    const redirectUri = callbackOf(clientId)
    const query = { client_id: clientId, redirect_uri: redirectUri, response_type: 'code', scope, state: 'at-least-8' }
    let page = await browser.open(`${authorization_endpoint}?${new URLSearchParams(query)}`)
    for (let forms = 0; !page.url.startsWith(redirectUri); forms += 1) {
      if (forms === 10) {
        throw new Error(`the provider does not let ${person.user} sign in: ${page.url}\n${page.body}`)
      }
      page = await browser.submit(page, options.fillForm(page, person.user))
    }
    const answer = await fetch(`${token_endpoint}`, {
      method: 'POST',
      body: new URLSearchParams({
        grant_type: 'authorization_code',
        code: new URL(page.url).searchParams.get('code') ?? '',
        redirect_uri: redirectUri,
        client_id: clientId,
        client_secret: clientSecret
      })
    })
    const tokens = (await answer.json()) as { id_token: string; access_token: string }
    if (answer.status !== 200) {
      throw new Error(`${clientId} gets no tokens: ${JSON.stringify(tokens)}`)
    }
    rememberToken(tokens.id_token)
    const claims = decodeJwt<{ sub: string; sid?: string; iat: number }>(tokens.id_token)
    const login: SignIn = {
      ...person,
      clientId,
      issuer,
      subject: claims.sub,
      sid: claims.sid ?? null,
      issuedAt: claims.iat,
      idToken: tokens.id_token,
      accessToken: tokens.access_token
    }
    const { accepted } = await service.login(asStored(login))
    if (!accepted) {
      throw new Error(`the login of ${person.user} in ${clientId} was not accepted`)
    }
    logins.push(login)
    return login
  }

  /** Alice in every app on her laptop, and in the first app on her phone; Bob in the first app. */
  async function signInAll(parties: readonly RelyingParty[]): Promise<SignedIn> {
    const laptop: SignIn[] = []
    for (const party of parties) {
      laptop.push(await signIn({ user: 'alice', browser: 'laptop' }, party))
    }
    const [first] = laptop
    const [party] = parties
    if (first === undefined || party === undefined) {
      throw new Error('no app to sign in to')
    }
    const phone = await signIn({ user: 'alice', browser: 'phone' }, party)
    const bob = await signIn({ user: 'bob', browser: 'laptop' }, party)
    return { laptop: first, inEveryApp: laptop, phone, bob }
  }

  async function recordsSince(known: ReadonlySet<string>) {
    const records = await service.database.query<RecordRow>(
      'select id, source, jti, sid, client_id as "clientId", sessions::int, rows::int from msal_logout.records order by at'
    )
    return records.filter(({ id }) => !known.has(id))
  }

  /** What the provider publishes now, if it is not what it has published before. */
  async function newDocuments(): Promise<Record<string, unknown>> {
    const found: Record<string, unknown> = {}
    for (const { issuer } of options.issuers) {
      const url = `${issuer}/.well-known/openid-configuration`
      const { jwks_uri } = await getJson<{ jwks_uri: string }>(url)
      for (const [address, document] of [
        [url, { issuer, jwks_uri }],
        [jwks_uri, await getJson(jwks_uri)]
      ] as const) {
        if (published.get(address) !== JSON.stringify(document)) {
          published.set(address, JSON.stringify(document))
          found[address] = document
        }
      }
    }
    return found
  }

  /** Waits for the keys of the providers, which may have to make them first. */
  async function awaitKeys(): Promise<void> {
    const allAreThere = () => {
      service.issuers.warmUp()
      return service.issuers.status().every(({ keys }) => keys > 0)
    }
    await until('the keys of every issuer are at hand', allAreThere, { withinMs: 120_000, everyMs: 100 }).catch(
      (cause: unknown) => {
        throw new Error(
          JSON.stringify(service.issuers.status().map(({ name, lastFailure }) => ({ name, lastFailure }))),
          {
            cause
          }
        )
      }
    )
  }

  /** Empties the cache, has people sign in, does something at the provider, and sees what comes of it. */
  async function scenario<People>(
    { name, column, done, sends, settleMs = 0 }: ScenarioOptions,
    people: () => Promise<People>,
    act: (people: People) => Promise<unknown>
  ): Promise<Scenario> {
    await emptyCache(service)
    logins = []
    browsers = new Map()
    const signedIn = await people()
    const before = new Set((await recordsSince(new Set())).map(({ id }) => id))
    heard.length = 0
    await act(signedIn)
    await until(`${sends} requests have come of "${name}"`, () => heard.length >= sends, { withinMs: 10_000 })
    await delay(settleMs)
    const records = await recordsSince(before)
    const requests = heard.map(({ receivedAt, bytes, status }): SpecimenRequest => {
      const record = records.find((row) => isOf(row, bytes))
      return { receivedAt, bytes, status, did: record ? { sessions: record.sessions, rows: record.rows } : null }
    })
    const seen: Scenario = {
      name,
      column,
      done,
      logins: logins.map(({ idToken: _, accessToken: __, ...login }) => login),
      documents: await newDocuments(),
      requests,
      ...(await readLeft(service, logins))
    }
    scenarios.push(seen)
    return seen
  }

  /** Compares what was seen with the specimen in the repository; with RECORD=1 it takes the specimen's place. */
  function conclude(t: Test, name: string): void {
    const specimen: Specimen = {
      provider: options.provider,
      version: options.version,
      issuers: options.issuers,
      scenarios
    }
    const json = `${JSON.stringify(specimen, null, 2)}\n`
    mkdirSync('.data/interop', { recursive: true })
    writeFileSync(`.data/interop/${name}.json`, json)
    const path = `${specimenFolder}/${name}.json`
    if (process.env.RECORD === '1') {
      writeFileSync(path, json)
    }
    t.ok(existsSync(path), `${path} is recorded: RECORD=1 npm run test:interop`)
    t.same(
      formOf(specimen),
      formOf(JSON.parse(readFileSync(path, 'utf8')) as Specimen),
      `${options.provider} sends what ${path} has: if that is right, record it anew and correct docs/providers`
    )
  }

  return {
    service,
    serviceUrl,
    heard,
    callbackOf,
    browserOf,
    signIn,
    signInAll,
    awaitKeys,
    scenario,
    scenarios,
    conclude
  }
}

interface RecordRow {
  readonly id: string
  readonly source: string
  readonly jti: string | null
  readonly sid: string | null
  readonly clientId: string | null
  readonly sessions: number
  readonly rows: number
}

function isOf({ source, jti, sid }: RecordRow, bytes: string): boolean {
  const { line, token } = readRequest({ bytes })
  if (token !== undefined) {
    return jti === token.claims.jti
  }
  return source === 'frontchannel' && new URL(line.split(' ')[1] ?? '', 'http://x').searchParams.get('sid') === sid
}

/** Every request that the service answers from now on, as its bytes came. */
function hear({ app }: Service): Heard[] {
  const heard: Heard[] = []
  const received = new Map<Socket, Buffer[]>()
  app.server.on('connection', (socket: Socket) => {
    received.set(socket, [])
    socket.on('data', (chunk: Buffer) => received.get(socket)?.push(chunk))
    socket.once('close', () => received.delete(socket))
  })
  const arrivals = new WeakMap<object, number>()
  const departures = new WeakMap<object, number>()
  app.addHook('onRequest', async (request) => {
    arrivals.set(request, Date.now())
  })
  app.addHook('onSend', async (request) => {
    departures.set(request, performance.now())
  })
  app.addHook('onResponse', async (request, reply) => {
    const chunks = received.get(request.raw.socket)?.splice(0) ?? []
    heard.push({
      receivedAt: arrivals.get(request) ?? 0,
      bytes: Buffer.concat(chunks).toString('latin1'),
      status: reply.statusCode,
      answeredAt: departures.get(request) ?? 0
    })
  })
  return heard
}

async function getJson<T>(url: string): Promise<T> {
  const answer = await fetch(url)
  if (answer.status !== 200) {
    throw new Error(`${url} is answered ${answer.status}`)
  }
  return (await answer.json()) as T
}

/** For whom each logout token is and whom it names, sorted: `shop sid=laptop sub`. */
export function tokensOf({ requests, logins }: Scenario): string[] {
  return requests
    .flatMap((request) => {
      const claims = readRequest(request).token?.claims
      if (claims === undefined) {
        return []
      }
      const { browser } = logins.find(({ sid }) => sid === claims.sid) ?? {}
      return [`${claims.aud}${'sid' in claims ? ` sid=${browser}` : ''}${'sub' in claims ? ' sub' : ''}`]
    })
    .sort()
}

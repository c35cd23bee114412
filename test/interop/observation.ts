// Watches a real provider: who signs in, what arrives at the service byte by byte, and what is left afterwards.
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import type { Socket } from 'node:net'
import { setTimeout as delay } from 'node:timers/promises'
import { decodeJwt, type JWTPayload } from 'jose'
import type { Test } from 'tap'
import { type Browser, createBrowser, type Page } from '../../examples/browser.ts'
import { createOpenToken } from '../../src/jwe.ts'
import type { Fetch } from '../../src/outbound-fetch.ts'
import { metadataUrls, type StreamConfig } from '../../src/stream-config.ts'
import { listen } from '../fixtures/listen.ts'
import { rememberToken } from '../fixtures/secrets.ts'
import { build, type Service, type ServiceOptions } from '../fixtures/service.ts'
import {
  asStored,
  decryptionKeysOf,
  emptyCache,
  formOf,
  type MatrixColumn,
  readLeft,
  readRequest,
  readToken,
  type Scenario,
  type Specimen,
  type SpecimenDelivery,
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
  /** Of security events, in the configuration; each is begun with {@link Observation.startStreams}. */
  readonly streams?: readonly StreamConfig[]
  /** Ours, as private JWKs. */
  readonly decryptionKeys?: readonly object[]
  /** Fills the forms that the provider shows at a sign-in. */
  readonly fillForm: (page: Page, user: string) => Record<string, string>
  readonly service?: Pick<ServiceOptions, 'edges'>
  /** Of the provider's pages, in PEM, if they are shown over TLS. */
  readonly certificate?: () => string
  /** Of the service, where it must be known before; default any. */
  readonly port?: number
  /** Whether a security event is no part of what was done: one by which it is seen that no more comes. */
  readonly isAside?: (claims: JWTPayload) => boolean
}

export interface ScenarioOptions {
  readonly name: string
  readonly column: MatrixColumn | null
  readonly done: string
  /** How many requests and polled tokens come of it. */
  readonly sends: number
  /** How long to wait for more than that, in milliseconds, if the provider sends after it has answered; default 0. */
  readonly settleMs?: number
  /** Or what to wait for. */
  readonly settle?: () => Promise<unknown>
}

export type Observation = Awaited<ReturnType<typeof observe>>

/** The service on a port of its own, and three apps that do nothing but receive codes. */
export async function observe(t: Test, options: ObservationOptions) {
  const { streams = [], isAside = () => false } = options
  const decryptionKeys = decryptionKeysOf({ decryptionKeys: options.decryptionKeys ?? [] })
  const open = createOpenToken(() => decryptionKeys)
  const polled: Polled[] = []
  const service = await build(t, {
    issuers: options.issuers.map((entry) => ({ ...entry })),
    config: { streams, decryptionKeys: decryptionKeys.map((key) => ({ ...key, isPublished: true })) },
    ...options.service,
    edges: {
      ...options.service?.edges,
      ...(streams.length > 0 && { fetch: watchPolls(streams, polled) })
    }
  })
  const heard = hear(service)
  const serviceUrl = await service.app.listen({ port: options.port ?? 0, host: '127.0.0.1' })
  service.retry()
  const apps = await listen(t, (_request, response) => response.end('signed in'))
  const callbackOf = (clientId: string) => `${apps}/callback-of-${clientId}`

  let browsers = new Map<string, Browser>()
  const browserOf = ({ user, browser }: Person): Browser => {
    const name = `${user}/${browser}`
    const opened = browsers.get(name) ?? createBrowser(options.certificate?.() ?? '')
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
    const { raw: signed } = await open(tokens.id_token)
    const claims = decodeJwt<{ sub: string; sid?: string; iat: number }>(signed)
    const login: SignIn = {
      ...person,
      clientId,
      issuer,
      subject: claims.sub,
      sid: claims.sid ?? null,
      issuedAt: claims.iat,
      idToken: signed,
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
    const places = [
      ...options.issuers.map(({ issuer }) => [issuer, [`${issuer}/.well-known/openid-configuration`]] as const),
      ...streams.map(({ issuer }) => [issuer, metadataUrls(issuer, undefined)] as const)
    ]
    for (const [issuer, urls] of places) {
      const url = await firstThere(urls)
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
    { name, column, done, sends, settleMs = 0, settle = () => delay(settleMs) }: ScenarioOptions,
    people: () => Promise<People>,
    act: (people: People) => Promise<unknown>
  ): Promise<Scenario> {
    await emptyCache(service)
    logins = []
    browsers = new Map()
    const signedIn = await people()
    const before = new Set((await recordsSince(new Set())).map(({ id }) => id))
    heard.length = 0
    polled.length = 0
    await act(signedIn)
    const come = () => heard.filter(isOfScenario).length + polled.filter(isOfScenario).length
    await until(`${sends} have come of "${name}"`, () => come() >= sends, { withinMs: 20_000 })
    await settle()
    await until('what was polled is answered', () => polled.every(({ answer }) => answer !== undefined), {
      withinMs: 20_000
    })
    const records = await recordsSince(before)
    const didOf = (jti: unknown) => {
      const record = records.find((row) => row.jti === jti)
      return record ? { sessions: record.sessions, rows: record.rows } : null
    }
    const requests: SpecimenRequest[] = []
    for (const { receivedAt, bytes, status } of heard.filter(isOfScenario)) {
      const { token, line } = readRequest({ bytes })
      const opened = token && (await open(token.raw)).raw
      const did = token ? didOf(readToken(token.raw, opened).claims.jti) : ofFrontChannel(records, line)
      requests.push({ receivedAt, bytes, ...(opened !== token?.raw && opened && { opened }), status, did })
    }
    const seen: Scenario = {
      name,
      column,
      done,
      logins: logins.map(({ idToken: _, accessToken: __, ...login }) => login),
      documents: await newDocuments(),
      requests,
      ...(streams.length > 0 && {
        polled: polled.filter(isOfScenario).map(
          ({ answer = 'reported', ...delivery }): SpecimenDelivery => ({
            ...delivery,
            answer,
            did: didOf(delivery.jti)
          })
        )
      }),
      ...(await readLeft(service, logins))
    }
    scenarios.push(seen)
    return seen
  }

  function isOfScenario(arrival: { bytes: string } | { token: string }): boolean {
    const { claims } = ('token' in arrival ? readToken(arrival.token) : readRequest(arrival).token) ?? {}
    return claims === undefined || !isAside(claims)
  }

  /** Compares what was seen with the specimen in the repository; with RECORD=1 it takes the specimen's place. */
  function conclude(t: Test, name: string): void {
    const specimen: Specimen = {
      provider: options.provider,
      version: options.version,
      issuers: options.issuers,
      ...(options.decryptionKeys && { decryptionKeys: options.decryptionKeys }),
      ...(streams.length > 0 && {
        streams: streams.map(({ name, issuer, issuers, delivery }) => ({
          name,
          issuer,
          issuers,
          delivery,
          audiences: service.streams.find(name)?.audiences() ?? []
        }))
      }),
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
    polled,
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

/** What the record of a front-channel call says. */
function ofFrontChannel(records: readonly RecordRow[], line: string): SpecimenRequest['did'] {
  const sid = new URL(line.split(' ')[1] ?? '', 'http://x').searchParams.get('sid')
  const record = records.find((row) => row.source === 'frontchannel' && row.sid === sid)
  return record ? { sessions: record.sessions, rows: record.rows } : null
}

/** A security event token that a poll was answered with; `answer` is undefined until the transmitter has ours. */
export interface Polled extends Omit<SpecimenDelivery, 'answer' | 'did'> {
  answer?: SpecimenDelivery['answer']
}

/** The network as it is, with a look at what is polled and what is answered. */
function watchPolls(streams: readonly StreamConfig[], polled: Polled[]): Fetch {
  return async (url, init) => {
    const stream = streams.find(({ issuer, delivery }) => delivery === 'poll' && url.startsWith(`${issuer}/`))
    const answer = await fetch(url, init as RequestInit)
    if (stream === undefined || init.method !== 'POST' || typeof init.body !== 'string') {
      return answer as never
    }
    const asked = parse(init.body)
    for (const delivery of polled) {
      if (Array.isArray(asked.ack) && asked.ack.includes(delivery.jti)) {
        delivery.answer = 'acknowledged'
      } else if (Object.hasOwn(Object(asked.setErrs), delivery.jti)) {
        delivery.answer = 'reported'
      }
    }
    const text = await answer.text()
    for (const [jti, token] of Object.entries(Object(parse(text).sets))) {
      if (polled.every((delivery) => delivery.jti !== jti)) {
        polled.push({ stream: stream.name, receivedAt: Date.now(), jti, token: String(token) })
      }
    }
    return new Response(text === '' ? null : text, { status: answer.status, headers: answer.headers }) as never
  }
}

function parse(json: string): Record<string, unknown> {
  try {
    return Object(JSON.parse(json))
  } catch {
    return {} // a form, or no answer
  }
}

/** The first of these that is answered 200. */
async function firstThere(urls: readonly string[]): Promise<string> {
  for (const url of urls) {
    if ((await fetch(url)).ok) {
      return url
    }
  }
  throw new Error(`none is answered 200: ${urls.join(', ')}`)
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

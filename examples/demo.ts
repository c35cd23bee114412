// `npm run demo`: the main job, seen. A user signs in to two web apps, signs out at the provider, and the tokens
// are gone from the cache of both. Each part is a process of its own and talks over the network. One is not the real one: the directory
// in which a user is disabled behaves as Microsoft Graph does, since nobody has a tenant of Entra ID to spare.
// `npm run demo -- --all` has a Python and a Java app beside the two of Node.js; it needs Python, Maven and a JDK.
// `npm run demo -- --stay` keeps it all running, to be tried in a browser.
import { type ChildProcess, spawn } from 'node:child_process'
import { randomBytes, randomUUID } from 'node:crypto'
import { once } from 'node:events'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { setTimeout as delay } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import pg from 'pg'
import { generate } from 'selfsigned'
import { freePort, startEmbeddedPostgres } from '../src/embedded-postgres.ts'
import { startFakeGraph } from '../test/fixtures/fake-graph.ts'
import { type Browser, createBrowser } from './browser.ts'
import { buildFlaskApp, flaskApp } from './flask-app/launch.ts'
import type { Command, LaunchOptions } from './launch.ts'
import { buildSpringApp, springApp } from './spring-app/launch.ts'

const root = fileURLToPath(new URL('..', import.meta.url))
const stay = process.argv.includes('--stay')
const all = process.argv.includes('--all')
const startWithinMs = all ? 60_000 : 20_000
const storyWithinMs = all ? 180_000 : 60_000
const stopWithinMs = 12_000

const { cert: certificate, private: key } = await generate([{ name: 'commonName', value: 'localhost' }], {
  extensions: [
    { name: 'basicConstraints', cA: true },
    { name: 'subjectAltName', altNames: [{ type: 2, value: 'localhost' }] }
  ]
})

// Anybody who interrupts it, at any step, finds no process and no file of it afterwards.
const interrupted = new Promise<NodeJS.Signals>((resolve) => {
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
    process.on(signal, resolve)
  }
})
let isStopping = false

interface Program {
  readonly id: string
  readonly framework: string
  command(options: LaunchOptions): Command
}

function nodeApp(file: string): Program['command'] {
  return (options) =>
    tsx(file, {
      PORT: String(options.port),
      DATABASE_URL: options.databaseUrl,
      AUTHORITY: options.issuer,
      CLIENT_ID: options.clientId,
      CLIENT_SECRET: options.clientSecret,
      SESSION_SECRET: random(),
      API_URL: options.apiUrl
    })
}

const shopProgram = { id: 'shop', framework: 'Fastify', command: nodeApp('clients/node/examples/fastify-app.ts') }
const deskProgram = { id: 'desk', framework: 'Express', command: nodeApp('clients/node/examples/express-app.ts') }

/** The apps of other languages: built before anything runs, which takes minutes the first time. */
function buildOthers(): Program[] {
  console.log('The Flask and the Spring app are built, with what they need from PyPI and from Maven Central.')
  const python = buildFlaskApp()
  buildSpringApp()
  return [
    { id: 'report', framework: 'Flask', command: (options) => flaskApp(python, options) },
    { id: 'billing', framework: 'Spring Boot', command: springApp }
  ]
}

const others = all ? await attempt(buildOthers) : []
const postgres = await attempt(startEmbeddedPostgres)
const graph = await startFakeGraph()
const owner = new pg.Pool({ connectionString: postgres.url })
owner.on('error', () => {}) // Ctrl+C ends PostgreSQL, too
const folder = mkdtempSync(join(tmpdir(), 'msal-logout-demo-'))
const children: { name: string; child: ChildProcess; lines: string[] }[] = []
const said: string[] = [] // what the provider says of its logout tokens
let steps = 0

/** What goes before the story: nothing has to be stopped yet. */
async function attempt<T>(prepare: () => T | Promise<T>): Promise<T> {
  try {
    return await prepare()
  } catch (error) {
    console.error(error instanceof Error ? error.message : error)
    process.exit(1)
  }
}

function step(title: string): void {
  steps += 1
  console.log(`\n${steps}. ${title}`)
}

function tell(line: string): void {
  console.log(`   ${line}`)
}

function expect(what: string, ok: boolean): void {
  if (!ok) {
    throw new Error(`the demo did not go as it should: ${what}`)
  }
}

function launch(name: string, { command, args, env }: Command): ChildProcess {
  if (isStopping) {
    throw new Error('the demo is being stopped')
  }
  const child = spawn(command, args, {
    cwd: root,
    env: { PATH: process.env.PATH ?? '', NODE_EXTRA_CA_CERTS: join(folder, 'certificate.pem'), ...env },
    stdio: ['ignore', 'pipe', 'pipe']
  })
  const lines: string[] = []
  children.push({ name, child, lines })
  createInterface(child.stdout).on('line', (line) => {
    said.push(line)
    lines.push(line)
  })
  createInterface(child.stderr).on('line', (line) => lines.push(line))
  return child
}

/** Starts a program of this project and waits until it answers. */
async function start(name: string, command: Command, ready: string): Promise<void> {
  const child = launch(name, command)
  const startedAt = Date.now()
  while (!(await answers(ready))) {
    expect(`${name} starts`, !hasEnded(child) && Date.now() - startedAt < startWithinMs)
    await delay(50)
  }
}

async function answers(url: string): Promise<boolean> {
  return createBrowser(certificate)
    .open(url)
    .then(
      () => true,
      () => false
    )
}

function hasEnded({ exitCode, signalCode }: ChildProcess): boolean {
  return exitCode !== null || signalCode !== null
}

function node(args: readonly string[], env: Record<string, string>): Command {
  return { command: process.execPath, args, env }
}

/** A program of this project that is not compiled. */
function tsx(file: string, env: Record<string, string>): Command {
  return node(['--import', 'tsx', file], env)
}

function random(): string {
  return randomBytes(24).toString('hex')
}

/** Ends everything, in any state of it. */
async function stop(): Promise<void> {
  isStopping = true
  await Promise.all(
    children.map(async ({ child }) => {
      if (!hasEnded(child)) {
        const exited = once(child, 'exit')
        const timer = setTimeout(() => child.kill('SIGKILL'), stopWithinMs)
        child.kill('SIGTERM')
        await exited
        clearTimeout(timer)
      }
    })
  )
  await owner.end()
  await postgres.stop()
  await graph.close()
  rmSync(folder, { recursive: true, force: true })
}

async function story(): Promise<string> {
  writeFileSync(join(folder, 'certificate.pem'), certificate)
  writeFileSync(join(folder, 'key.pem'), key, { mode: 0o600 })
  const [providerPort, publicPort, adminPort] = await Promise.all([freePort(), freePort(), freePort()])
  const issuer = `https://localhost:${providerPort}`
  const place = async (program: Program) => ({
    ...program,
    url: `http://localhost:${await freePort()}`,
    secret: random(),
    password: random()
  })
  type App = Awaited<ReturnType<typeof place>>
  const shop = await place(shopProgram)
  const apps = [shop, ...(await Promise.all([deskProgram, ...others].map(place)))]
  const service = `http://127.0.0.1:${publicPort}`
  const admin = `http://127.0.0.1:${adminPort}`
  const adminToken = random()

  step(`The parts are started: PostgreSQL, an OpenID provider, the service, ${apps.length} web apps`)
  const passwords = new Map([['service', random()], ...apps.map(({ id, password }) => [id, password] as const)])
  for (const [role, password] of passwords) {
    await owner.query(`create role ${role} login password '${password}'`)
  }
  const as = (role: string) => {
    const url = new URL(postgres.url)
    url.username = role
    url.password = passwords.get(role) ?? ''
    return url.href
  }
  const [migrated] = await once(
    launch('the migration', node(['dist/cli.js', 'migrate'], { DATABASE_URL: postgres.url })),
    'exit'
  )
  expect('the migration ends with 0', migrated === 0)
  await owner.query(`select msal_logout.register_service('service')`)
  for (const { id } of apps) {
    await owner.query('select msal_logout.register_app($1, $1)', [id])
  }

  const clients = apps.map(({ id, url, secret }) => ({
    client_id: id,
    client_secret: secret,
    redirect_uris: [`${url}/callback`],
    post_logout_redirect_uris: [url],
    grant_types: ['authorization_code', 'refresh_token'],
    token_endpoint_auth_method: 'client_secret_post',
    backchannel_logout_uri: `${service}/backchannel-logout`,
    backchannel_logout_session_required: true
  }))
  const tenant = graph.tenant(randomUUID())
  const watcher = { clientId: randomUUID(), secret: random() }
  tenant.register(watcher.clientId, { secrets: [{ value: watcher.secret }] })
  const carol = tenant.add()
  writeFileSync(join(folder, 'watcher-secret'), watcher.secret, { mode: 0o600 })
  const issuersFile = join(folder, 'issuers.json')
  const directory = {
    kind: 'microsoft-graph',
    tenantId: tenant.tenantId,
    clientId: watcher.clientId,
    credential: { clientSecretFile: join(folder, 'watcher-secret') },
    pollSeconds: 1,
    graphUrl: graph.url,
    authorityUrl: graph.url
  }
  const trusted = { name: 'provider', issuer, clientIds: apps.map(({ id }) => id), directory }
  writeFileSync(issuersFile, JSON.stringify({ issuers: [trusted] }))

  const files = { certificateFile: join(folder, 'certificate.pem'), folder }
  await start(
    'the provider', // before the service, which fetches its keys when it starts
    tsx('examples/provider.ts', {
      PORT: String(providerPort),
      CERT: files.certificateFile,
      KEY: join(folder, 'key.pem'),
      CLIENTS: JSON.stringify(clients),
      CLAIMS: JSON.stringify({ carol: { oid: carol.id, tid: tenant.tenantId } })
    }),
    `${issuer}/.well-known/openid-configuration`
  )
  await Promise.all([
    start(
      'the service',
      node(['dist/cli.js', 'serve'], {
        DATABASE_URL: as('service'),
        ISSUERS_FILE: issuersFile,
        HOST: '127.0.0.1',
        PORT: String(publicPort),
        ADMIN_PORT: String(adminPort),
        ADMIN_TOKEN: adminToken,
        SPOOL_DIR: join(folder, 'spool')
      }),
      `${service}/healthz`
    ),
    ...apps.map(({ id, url, secret, command }) =>
      start(
        id,
        command({
          port: Number(new URL(url).port),
          databaseUrl: as(id),
          issuer,
          clientId: id,
          clientSecret: secret,
          apiUrl: `${issuer}/me`,
          ...files
        }),
        url
      )
    )
  ])
  tell(`provider ${issuer} (oidc-provider)`)
  tell(`service  ${service}, its database role can delete rows and cannot read a token`)
  for (const { id, framework, url } of apps) {
    tell(`${id.padEnd(8)} ${url} (${framework}), with a database role of its own`)
  }

  const rows = async (account: string) => {
    const { rows } = await owner.query<{ client_id: string; bytes: number; kept: string }>(
      `select client_id, octet_length(payload) as bytes, kind as kept from msal_logout.token_cache
      where home_account_id = $1 order by client_id`,
      [account]
    )
    return rows
  }
  async function showRows(account: string, expected: number): Promise<void> {
    const found = await rows(account)
    for (const { client_id, bytes } of found) {
      tell(`row of ${account} in ${client_id}: ${bytes} bytes of tokens`)
    }
    if (found.length === 0) {
      tell(`no row of ${account} is left`)
    }
    expect(`${expected} rows of ${account}`, found.length === expected)
  }
  async function signIn(browser: Browser, app: App, login: string): Promise<void> {
    let page = await browser.open(`${app.url}/sign-in`)
    for (let i = 0; i < 3 && page.url.startsWith(issuer); i += 1) {
      page = await browser.submit(page, page.body.includes('name="password"') ? { login, password: 'any' } : {})
    }
    expect(`${login} is signed in to ${app.id}`, page.body === `signed in as ${login}\n`)
    tell(`${app.id}: ${page.body.trim()}`)
  }
  async function callApi(browser: Browser, app: App, status: number): Promise<void> {
    const page = await browser.open(`${app.url}/api`)
    tell(`${app.id}: GET /api answers ${page.status} ${page.body.trim()}`)
    expect(`GET /api answers ${status}`, page.status === status)
  }

  step('Alice signs in to each app, in one browser')
  const alice = createBrowser(certificate)
  for (const app of apps) {
    await signIn(alice, app, 'alice')
  }

  step('Each app calls an API with a token from the shared cache')
  for (const app of apps) {
    await callApi(alice, app, 200)
  }
  await showRows('alice', apps.length)
  const metadata = await alice.open(`${issuer}/.well-known/openid-configuration`)
  async function askSilently(expected: string): Promise<void> {
    const answer = await silentRequest(as('shop'), issuer, metadata.body)
    tell(`another process of shop, asking MSAL silently for a token of alice, gets: ${answer}`)
    expect(`a silent request gets ${expected}`, answer === expected)
  }
  await askSilently('a token from the cache')

  step('Alice signs out at the provider')
  const leaving = await alice.submit(await alice.open(`${shop.url}/sign-out`), { logout: 'yes' })
  expect('the provider sends her back', leaving.url.startsWith(shop.url))
  for (const line of said.filter((line) => line.startsWith('logout token'))) {
    tell(`provider: ${line}`)
  }
  const accepted = said.filter((line) => line.endsWith('accepted')).length
  expect('each logout token is accepted', accepted === apps.length)
  const { rows: purges } = await owner.query<{ client_id: string; sessions: string; rows: string }>(
    'select client_id, sessions, rows from msal_logout.records order by rows desc'
  )
  for (const purge of purges) {
    tell(`record: the token for ${purge.client_id} ended ${purge.sessions} sessions and deleted ${purge.rows} rows`)
  }
  await showRows('alice', 0)

  step('What the apps say afterwards, though the browser still has their cookies')
  for (const app of apps) {
    await callApi(alice, app, 401)
  }
  await askSilently('no_tokens_found')

  step('Bob signs in, loses his laptop, and an operator purges him')
  const bob = createBrowser(certificate)
  for (const app of apps) {
    await signIn(bob, app, 'bob')
  }
  for (const dryRun of [true, false]) {
    const answer = await fetch(`${admin}/admin/purges`, {
      method: 'POST',
      headers: { authorization: `Bearer ${adminToken}`, 'content-type': 'application/json' },
      body: JSON.stringify({ homeAccountId: 'bob', reason: 'lost laptop', dryRun })
    })
    const body = await answer.text()
    tell(`POST /admin/purges ${dryRun ? '(dry run) ' : ''}answers ${answer.status} ${body}`)
    expect('the operator is answered', answer.status === 200 && body.includes(`"rows":${apps.length}`))
    await showRows('bob', dryRun ? apps.length : 0)
  }
  await callApi(bob, shop, 401)

  step('Carol signs in, and an administrator disables her in the directory, which sends nothing')
  const visitor = createBrowser(certificate)
  for (const app of apps) {
    await signIn(visitor, app, 'carol')
  }
  await showRows('carol', apps.length)
  tenant.disable(carol.id)
  const disabledAt = Date.now()
  while ((await rows('carol')).length > 0) {
    await delay(50) // the story has an end of its own
  }
  tell(`${((Date.now() - disabledAt) / 1_000).toFixed(1)} s later the watcher has seen it`)
  await showRows('carol', 0)
  const { rows: records } = await owner.query<{ reason: string }>(
    `select reason from msal_logout.records where source = 'directory'`
  )
  tell(`record: ${records[0]?.reason}`)
  expect('one record says why', records.length === 1)
  await callApi(visitor, shop, 401)

  console.log('\nDone: every token of the three users is gone.')
  return `
It stays. In a browser (the certificate is made here: accept it):
${apps.map(({ url }) => `  ${url}/sign-in: any name and password; then ${url}/api, ${url}/sign-out`).join('\n')}
  rows: psql ${postgres.url} -c 'select client_id, home_account_id from msal_logout.token_cache'
  operators: ${admin}, token ${adminToken}
Ctrl+C ends it.`
}

/** Asks MSAL for a token of alice's, without her: what it gets, or the error's code. */
async function silentRequest(databaseUrl: string, authority: string, authorityMetadata: string): Promise<string> {
  const { createTokenCache } = await import('msal-logout-client')
  const { ConfidentialClientApplication } = await import('@azure/msal-node')
  const pool = new pg.Pool({ connectionString: databaseUrl })
  pool.on('error', () => {}) // Ctrl+C ends PostgreSQL, too
  try {
    const client = new ConfidentialClientApplication({
      auth: {
        clientId: 'shop',
        clientSecret: 'not needed for an empty cache',
        authority,
        knownAuthorities: [new URL(authority).host],
        authorityMetadata
      },
      system: { protocolMode: 'OIDC' },
      cache: { cachePlugin: createTokenCache({ pool, clientId: 'shop' }).forAccount('alice') }
    })
    const account = {
      homeAccountId: 'alice',
      localAccountId: 'alice',
      environment: new URL(authority).host,
      tenantId: '',
      username: ''
    }
    const { fromCache } = await client.acquireTokenSilent({ account, scopes: ['openid'] })
    return `a token from the ${fromCache ? 'cache' : 'provider'}`
  } catch (error) {
    return error instanceof Error && 'errorCode' in error ? String(error.errorCode) : String(error)
  } finally {
    await pool.end()
  }
}

try {
  const invitation = await Promise.race([
    story(),
    interrupted.then((signal) => Promise.reject(new Error(`interrupted by ${signal}`))),
    delay(storyWithinMs, undefined, { ref: false }).then(() => Promise.reject(new Error('it takes too long')))
  ])
  if (stay) {
    console.log(invitation)
    await interrupted
  }
} catch (error) {
  console.error(`\n${error instanceof Error ? error.message : error}`)
  for (const { name, lines } of children) {
    for (const line of lines.slice(-5)) {
      console.error(`${name}: ${line}`)
    }
  }
  process.exitCode = 1
} finally {
  await stop()
}

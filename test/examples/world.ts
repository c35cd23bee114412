// What an example app needs around it, each part a real process: PostgreSQL with a role for each app, the service, and
// `oidc-provider` with back-channel logout.
import { type ChildProcess, spawn } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { setTimeout as delay } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import pg from 'pg'
import { generate } from 'selfsigned'
import type { Test } from 'tap'
import { type Browser, createBrowser, type Page } from '../../examples/browser.ts'
import { type EmbeddedPostgres, freePort, startEmbeddedPostgres } from '../../src/embedded-postgres.ts'
import { root, run } from '../fixtures/installed-app.ts'

const compiled = fileURLToPath(new URL('../../', import.meta.url))
const startWithinMs = 120_000

export interface World {
  readonly postgres: EmbeddedPostgres
  /** The schema's owner. */
  readonly owner: pg.Pool
  readonly issuer: string
  readonly certificate: string
  /** Of every app at the provider. */
  readonly clientSecret: string
  /** Where an app is to be found. */
  urlOf(clientId: string): string
  /** Registers an app in the database, and starts it. */
  startApp(app: AppOptions): Promise<App>
  createBrowser(): Browser
  /** Signs in at an app, by the provider's own forms. */
  signIn(browser: Browser, app: App, login: string): Promise<Page>
  /** Signs out at the provider, as another app's user does. */
  signOutAtProvider(browser: Browser, app: App): Promise<void>
  /** An operator's purge of an account. */
  purge(homeAccountId: string): Promise<void>
  /** The apps that have a row of an account. */
  rows(account: string): Promise<string[]>
}

export interface AppOptions {
  readonly clientId: string
  /** The program and its arguments, for `node`. */
  readonly args: readonly string[]
  readonly cwd?: string
  readonly env?: Readonly<Record<string, string>>
  /** The app has a role and an environment of its own. */
  readonly isSetUp?: boolean
}

export interface App {
  /** The program that was started. */
  readonly name: string
  readonly url: string
  readonly clientId: string
  readonly output: string[]
  readonly child: ChildProcess
}

const clientIds = ['app', 'other']

/** One world for the tests of a file. */
export async function createWorld(t: Test): Promise<World> {
  const postgres = await startEmbeddedPostgres()
  t.teardown(() => postgres.stop())
  const owner = new pg.Pool({ connectionString: postgres.url })
  owner.on('error', () => {}) // PostgreSQL is restarted under it
  t.teardown(() => owner.end())
  const folder = mkdtempSync(join(tmpdir(), 'msal-logout-examples-'))
  t.teardown(() => rmSync(folder, { recursive: true, force: true }))
  const { cert: certificate, private: key } = await generate([{ name: 'commonName', value: 'localhost' }], {
    extensions: [
      { name: 'basicConstraints', cA: true },
      { name: 'subjectAltName', altNames: [{ type: 2, value: 'localhost' }] }
    ]
  })
  writeFileSync(join(folder, 'certificate.pem'), certificate)
  writeFileSync(join(folder, 'key.pem'), key)
  const ports = await Promise.all(Array.from({ length: 5 }, () => freePort()))
  const [providerPort = 0, publicPort = 0, adminPort = 0, ...appPorts] = ports
  const issuer = `https://localhost:${providerPort}`
  const service = `http://127.0.0.1:${publicPort}`
  const adminToken = randomBytes(24).toString('hex')
  const secret = randomBytes(24).toString('hex')
  const urls = new Map(clientIds.map((id, i) => [id, `http://localhost:${appPorts[i]}`]))

  async function start(args: readonly string[], env: Record<string, string>, ready: string, cwd = root) {
    const child = spawn(process.execPath, args, {
      cwd,
      env: { PATH: process.env.PATH ?? '', NODE_EXTRA_CA_CERTS: join(folder, 'certificate.pem'), ...env },
      stdio: ['ignore', 'pipe', 'pipe']
    })
    const output: string[] = []
    for (const stream of [child.stdout, child.stderr]) {
      createInterface(stream).on('line', (line) => output.push(line))
    }
    t.teardown(async () => {
      if (child.exitCode === null && child.signalCode === null) {
        const exited = once(child, 'exit')
        child.kill('SIGKILL')
        await exited
      }
    })
    const startedAt = Date.now()
    while (!(await answers(ready))) {
      if (child.exitCode !== null || Date.now() - startedAt > startWithinMs) {
        throw new Error(`${args.join(' ')} does not start:\n${output.join('\n')}`)
      }
      await delay(100)
    }
    return { child, output }
  }

  const answers = (url: string) =>
    createBrowser(certificate)
      .open(url)
      .then(
        () => true,
        () => false
      )

  const urlOf = (clientId: string) => urls.get(clientId) ?? ''

  /** Gives an app a role, and says what it needs. */
  async function setUp(clientId: string): Promise<Record<string, string>> {
    await owner.query(
      `do $$ begin create role ${clientId} login password 'test'; exception when duplicate_object then null; end $$`
    )
    await owner.query('select msal_logout.register_app($1, $1)', [clientId])
    const databaseUrl = new URL(postgres.url)
    databaseUrl.username = clientId
    databaseUrl.password = 'test'
    return {
      BASE_URL: urlOf(clientId),
      DATABASE_URL: databaseUrl.href,
      AUTHORITY: issuer,
      CLIENT_ID: clientId,
      CLIENT_SECRET: secret,
      SESSION_SECRET: secret
    }
  }

  await start(
    [join(compiled, 'examples/provider.js')],
    {
      PORT: String(providerPort),
      CERT: join(folder, 'certificate.pem'),
      KEY: join(folder, 'key.pem'),
      CLIENTS: JSON.stringify(
        [...urls].map(([id, url]) => ({
          client_id: id,
          client_secret: secret,
          redirect_uris: [`${url}/callback`],
          post_logout_redirect_uris: [url],
          grant_types: ['authorization_code', 'refresh_token'],
          token_endpoint_auth_method: 'client_secret_post',
          backchannel_logout_uri: `${service}/backchannel-logout`,
          backchannel_logout_session_required: true
        }))
      )
    },
    `${issuer}/.well-known/openid-configuration`
  )
  const migrated = await run(root, process.execPath, ['dist/cli.js', 'migrate'], { DATABASE_URL: postgres.url })
  if (migrated.code !== 0) {
    throw new Error(migrated.output)
  }
  await start(
    [join(root, 'dist/cli.js'), 'serve'],
    {
      DATABASE_URL: postgres.url,
      ISSUER: issuer,
      CLIENT_IDS: clientIds.join(','),
      HOST: '127.0.0.1',
      PORT: String(publicPort),
      ADMIN_PORT: String(adminPort),
      ADMIN_TOKEN: adminToken,
      SPOOL_DIR: join(folder, 'spool')
    },
    `${service}/healthz`
  )

  const world: World = {
    postgres,
    owner,
    issuer,
    certificate,
    clientSecret: secret,
    urlOf,

    async startApp({ clientId, args, cwd, env, isSetUp = false }) {
      const url = urlOf(clientId)
      const own = isSetUp ? {} : await setUp(clientId)
      const started = await start(args, { PORT: new URL(url).port, API_URL: `${issuer}/me`, ...own, ...env }, url, cwd)
      return { name: [cwd, args.at(-1)].join(' ').split('/').slice(-2).join('/'), url, clientId, ...started }
    },

    createBrowser: () => createBrowser(certificate),

    async signIn(browser, app, login) {
      let page = await browser.open(`${app.url}/sign-in`)
      for (let i = 0; i < 3 && page.url.startsWith(issuer); i += 1) {
        page = await browser.submit(page, page.body.includes('name="password"') ? { login, password: 'any' } : {})
      }
      return page
    },

    async signOutAtProvider(browser, app) {
      const query = new URLSearchParams({ client_id: app.clientId, post_logout_redirect_uri: app.url })
      await browser.submit(await browser.open(`${issuer}/session/end?${query}`), { logout: 'yes' })
    },

    async purge(homeAccountId) {
      const answer = await fetch(`http://127.0.0.1:${adminPort}/admin/purges`, {
        method: 'POST',
        headers: { authorization: `Bearer ${adminToken}`, 'content-type': 'application/json' },
        body: JSON.stringify({ homeAccountId, reason: 'a test' })
      })
      if (answer.status !== 200) {
        throw new Error(`the purge was answered by ${answer.status}`)
      }
    },

    async rows(account) {
      const { rows } = await owner.query<{ client_id: string }>(
        'select client_id from msal_logout.token_cache where home_account_id = $1 order by 1',
        [account]
      )
      return rows.map(({ client_id }) => client_id)
    }
  }
  return world
}

// The Spring app against a real OpenID provider and the real service, each a process of its own. TEST_DATABASE_URL names a
// PostgreSQL and its superuser. One line for each step; part of `npm run test:java`.
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
import { freePort } from '../../src/embedded-postgres.ts'
import { migrate } from '../../src/migrate.ts'
import { type Browser, createBrowser, type Page } from '../browser.ts'
import type { Command } from '../launch.ts'
import { buildSpringApp, springApp } from './launch.ts'

const root = fileURLToPath(new URL('../..', import.meta.url))
const server = process.env.TEST_DATABASE_URL
if (server === undefined) {
  throw new Error('TEST_DATABASE_URL is not set: run it by "npm run test:java"')
}
const startWithinMs = 60_000
const folder = mkdtempSync(join(tmpdir(), 'msal-logout-spring-'))
const suffix = randomBytes(6).toString('hex')
const database = `test_spring_${suffix}`
const roles = { service: `service_${suffix}`, app: `spring_${suffix}` }
const children: { child: ChildProcess; lines: string[] }[] = []
const random = () => randomBytes(24).toString('hex')
const { cert: certificate, private: key } = await generate([{ name: 'commonName', value: 'localhost' }], {
  extensions: [
    { name: 'basicConstraints', cA: true },
    { name: 'subjectAltName', altNames: [{ type: 2, value: 'localhost' }] }
  ]
})

function check(what: string, isTrue: boolean, found: unknown): void {
  if (!isTrue) {
    throw new Error(`${what}: found ${JSON.stringify(found)}`)
  }
  console.log(`ok ${what}`)
}

async function onServer(text: string): Promise<void> {
  const client = new pg.Client({ connectionString: server })
  await client.connect()
  await client.query(text).finally(() => client.end())
}

function urlOf(user?: string, password?: string): string {
  const url = new URL(server ?? '')
  url.pathname = `/${database}`
  url.username = user ?? url.username
  url.password = password ?? url.password
  return url.href
}

/** Starts a program, and waits until it answers. */
async function start({ command, args, env }: Command, ready: string): Promise<void> {
  const child = spawn(command, args, {
    cwd: root,
    env: { PATH: process.env.PATH ?? '', NODE_EXTRA_CA_CERTS: join(folder, 'certificate.pem'), ...env },
    stdio: ['ignore', 'pipe', 'pipe']
  })
  const lines: string[] = []
  children.push({ child, lines })
  for (const stream of [child.stdout, child.stderr]) {
    createInterface(stream).on('line', (line) => {
      lines.push(line)
      lines.splice(0, lines.length - 30)
    })
  }
  const startedAt = Date.now()
  while (!(await answers(ready))) {
    if (child.exitCode !== null || Date.now() - startedAt > startWithinMs) {
      throw new Error(`"${command} ${args.join(' ')}" does not answer:\n${lines.join('\n')}`)
    }
    await delay(100)
  }
}

async function answers(url: string): Promise<boolean> {
  try {
    await createBrowser(certificate).open(url)
    return true
  } catch {
    return false
  }
}

const node = (args: readonly string[], env: Record<string, string>): Command => ({
  command: process.execPath,
  args: ['--import', 'tsx', ...args],
  env
})

async function stop(): Promise<void> {
  await Promise.all(
    children.map(async ({ child }) => {
      if (child.exitCode === null && child.signalCode === null) {
        const exited = once(child, 'exit')
        child.kill('SIGTERM')
        const timer = setTimeout(() => child.kill('SIGKILL'), 12_000)
        await exited
        clearTimeout(timer)
      }
    })
  )
}

async function story(): Promise<void> {
  writeFileSync(join(folder, 'certificate.pem'), certificate)
  writeFileSync(join(folder, 'key.pem'), key, { mode: 0o600 })
  const [providerPort, port, publicPort, adminPort] = await Promise.all([
    freePort(),
    freePort(),
    freePort(),
    freePort()
  ])
  const issuer = `https://localhost:${providerPort}`
  const service = `http://127.0.0.1:${publicPort}`
  const app = `http://localhost:${port}`
  const passwords = { service: random(), app: random() }
  const clientSecret = random()
  const adminToken = random()

  await migrate(owner)
  for (const name of ['service', 'app'] as const) {
    await owner.query(`create role ${roles[name]} login password '${passwords[name]}'`)
  }
  await owner.query('select msal_logout.register_service($1)', [roles.service])
  await owner.query('select msal_logout.register_app($1, $2)', ['spring-app', roles.app])
  const rows = async (account: string) =>
    (await owner.query('select client_id from msal_logout.token_cache where home_account_id = $1', [account])).rows.map(
      (row) => row.client_id
    )

  const client = {
    client_id: 'spring-app',
    client_secret: clientSecret,
    redirect_uris: [`${app}/callback`],
    post_logout_redirect_uris: [app],
    grant_types: ['authorization_code', 'refresh_token'],
    token_endpoint_auth_method: 'client_secret_post',
    backchannel_logout_uri: `${service}/backchannel-logout`,
    backchannel_logout_session_required: true
  }
  await start(
    node(['examples/provider.ts'], {
      PORT: String(providerPort),
      CERT: join(folder, 'certificate.pem'),
      KEY: join(folder, 'key.pem'),
      CLIENTS: JSON.stringify([client])
    }),
    `${issuer}/.well-known/openid-configuration`
  )
  await start(
    node(['src/cli.ts', 'serve'], {
      DATABASE_URL: urlOf(roles.service, passwords.service),
      ISSUER: issuer,
      CLIENT_IDS: 'spring-app',
      HOST: '127.0.0.1',
      PORT: String(publicPort),
      ADMIN_PORT: String(adminPort),
      ADMIN_TOKEN: adminToken,
      SPOOL_DIR: join(folder, 'spool')
    }),
    `${service}/healthz`
  )
  buildSpringApp()
  await start(
    springApp({
      port,
      databaseUrl: urlOf(roles.app, passwords.app),
      issuer,
      clientId: 'spring-app',
      clientSecret,
      apiUrl: `${issuer}/me`,
      certificateFile: join(folder, 'certificate.pem'),
      folder
    }),
    app
  )

  async function passProvider(browser: Browser, url: string, login: string): Promise<Page> {
    let page = await browser.open(url)
    for (let i = 0; i < 3 && page.url.startsWith(issuer); i += 1) {
      page = await browser.submit(page, page.body.includes('name="password"') ? { login, password: 'any' } : {})
    }
    return page
  }

  async function signIn(login: string): Promise<Browser> {
    const browser = createBrowser(certificate)
    const page = await passProvider(browser, `${app}/sign-in`, login)
    check(`${login} signs in at the provider`, page.body === `signed in as ${login}\n`, page)
    check(`there is a row of ${login}`, (await rows(login)).join() === 'spring-app', await rows(login))
    return browser
  }

  async function callApi(
    browser: Browser,
    path: string
  ): Promise<{ status: number; fromCache?: unknown; sub?: unknown }> {
    const { status, body } = await browser.open(`${app}${path}`)
    if (status !== 200) {
      return { status }
    }
    const { fromCache, answer } = JSON.parse(body)
    return { status, fromCache, sub: answer.sub }
  }

  const alice = await signIn('alice')
  const cached = await callApi(alice, '/api')
  check('the API is called with a token from the cache', cached.fromCache === true && cached.sub === 'alice', cached)
  const refreshed = await callApi(alice, '/api?refresh=true')
  check(
    'the API is called with a token that was refreshed',
    refreshed.fromCache === false && refreshed.sub === 'alice',
    refreshed
  )
  const again = await callApi(alice, '/api')
  check('the refreshed token is in the cache', again.fromCache === true, again)

  const leaving = await alice.submit(await alice.open(`${app}/sign-out`), { logout: 'yes' })
  check('alice signs out at the provider and comes back', leaving.url.startsWith(app), leaving)
  check('no row of alice is left', (await rows('alice')).length === 0, await rows('alice'))
  const home = await alice.open(`${app}/`)
  check(
    'the app obeys with the next request, although the cookie is still there',
    home.body === 'not signed in\n',
    home
  )
  const after = await callApi(alice, '/api')
  check('the API is not called any more', after.status === 401, after)

  const bob = await signIn('bob')
  const purge = await fetch(`http://127.0.0.1:${adminPort}/admin/purges`, {
    method: 'POST',
    headers: { authorization: `Bearer ${adminToken}`, 'content-type': 'application/json' },
    body: JSON.stringify({ homeAccountId: 'bob', reason: 'lost laptop' })
  })
  check('an operator purges bob', purge.status === 200, [purge.status, await purge.text()])
  check('no row of bob is left', (await rows('bob')).length === 0, await rows('bob'))
  const ended = await callApi(bob, '/api')
  check('the app obeys that, too', ended.status === 401, ended)

  const carol = createBrowser(certificate)
  const request = new URL((await carol.look(`${app}/sign-in`)).location ?? '')
  check('a sign-in asks for a nonce', (request.searchParams.get('nonce') ?? '').length > 20, request.href)
  request.searchParams.set('nonce', 'of another request')
  const badNonce = await passProvider(carol, request.href, 'carol')
  check('a login with the nonce of another request is rejected', badNonce.status === 400, badNonce)
  check('and was not stored', (await rows('carol')).length === 0, await rows('carol'))

  const badState = await bob.open(`${app}/callback?code=x&state=y`)
  check('a callback that nobody asked for is rejected', badState.status === 400, badState)
}

const owner = new pg.Pool({ connectionString: urlOf() })
await onServer(`create database ${database}`)
try {
  await story()
} catch (error) {
  console.log(`not ok ${error instanceof Error ? error.message : error}`)
  for (const { lines } of children) {
    console.log(lines.slice(-10).join('\n'))
  }
  process.exitCode = 1
} finally {
  await stop()
  await owner.end()
  await onServer(`drop database if exists ${database} with (force)`)
  for (const role of Object.values(roles)) {
    await onServer(`drop role if exists ${role}`)
  }
  rmSync(folder, { recursive: true, force: true })
}

// examples/flask-app at a real OpenID provider and the real service, each a process of its own.
import { type ChildProcess, spawn } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { setTimeout as delay } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import pg from 'pg'
import { generate } from 'selfsigned'
import { createBrowser } from '../../examples/browser.ts'
import { buildFlaskApp, flaskApp } from '../../examples/flask-app/launch.ts'
import { freePort } from '../../src/embedded-postgres.ts'
import { end } from '../conformance/world.ts'

const root = fileURLToPath(new URL('../..', import.meta.url))
const startWithinMs = 30_000

export interface Expectation {
  readonly what: string
  readonly isMet: boolean
}

/**
 * Signs in to the app, calls the API, signs out at the provider; what was expected, and whether it came.
 *
 * @param databaseUrl of a migrated database, as its owner
 * @throws {Error} where a part does not start
 */
export async function tryExample(databaseUrl: string): Promise<Expectation[]> {
  const folder = mkdtempSync(join(tmpdir(), 'msal-logout-flask-'))
  const owner = new pg.Pool({ connectionString: databaseUrl })
  const children: { name: string; child: ChildProcess; lines: string[] }[] = []
  const expectations: Expectation[] = []
  const expect = (what: string, isMet: boolean) => expectations.push({ what, isMet })
  const role = `flask_${randomBytes(6).toString('hex')}`

  const { cert: certificate, private: key } = await generate([{ name: 'commonName', value: 'localhost' }], {
    extensions: [
      { name: 'basicConstraints', cA: true },
      { name: 'subjectAltName', altNames: [{ type: 2, value: 'localhost' }] }
    ]
  })
  const certificateFile = join(folder, 'certificate.pem')
  writeFileSync(certificateFile, certificate)
  writeFileSync(join(folder, 'key.pem'), key, { mode: 0o600 })

  async function start(
    name: string,
    command: string,
    args: readonly string[],
    env: Record<string, string>,
    ready: string
  ) {
    const child = spawn(command, args, {
      cwd: root,
      env: {
        PATH: process.env.PATH ?? '',
        NODE_EXTRA_CA_CERTS: certificateFile,
        ...env
      },
      stdio: ['ignore', 'pipe', 'pipe']
    })
    const lines: string[] = []
    children.push({ name, child, lines })
    for (const stream of [child.stdout, child.stderr]) {
      createInterface(stream).on('line', (line) => lines.push(line))
    }
    const startedAt = Date.now()
    const answers = () =>
      createBrowser(certificate)
        .open(ready)
        .then(
          () => true,
          () => false
        )
    while (!(await answers())) {
      if (child.exitCode !== null || Date.now() - startedAt > startWithinMs) {
        throw new Error(`${name} does not start:\n${lines.join('\n')}`)
      }
      await delay(50)
    }
  }

  try {
    const [providerPort, appPort, port, adminPort] = await Promise.all([freePort(), freePort(), freePort(), freePort()])
    const issuer = `https://localhost:${providerPort}`
    const app = `http://localhost:${appPort}`
    const secret = randomBytes(24).toString('hex')
    const password = randomBytes(24).toString('hex')
    await owner.query(`create role ${role} login password '${password}'`)
    await owner.query('select msal_logout.register_app($1, $2)', ['flask', role])
    const appUrl = new URL(databaseUrl)
    appUrl.username = role
    appUrl.password = password

    const client = {
      client_id: 'flask',
      client_secret: secret,
      redirect_uris: [`${app}/callback`],
      post_logout_redirect_uris: [app],
      grant_types: ['authorization_code', 'refresh_token'],
      token_endpoint_auth_method: 'client_secret_post',
      backchannel_logout_uri: `http://127.0.0.1:${port}/backchannel-logout`,
      backchannel_logout_session_required: true
    }
    await start(
      'the provider',
      process.execPath,
      ['--import', 'tsx', 'examples/provider.ts'],
      {
        PORT: String(providerPort),
        CERT: certificateFile,
        KEY: join(folder, 'key.pem'),
        CLIENTS: JSON.stringify([client])
      },
      `${issuer}/.well-known/openid-configuration`
    )
    await start(
      'the service',
      process.execPath,
      ['--import', 'tsx', 'src/cli.ts', 'serve'],
      {
        DATABASE_URL: databaseUrl,
        ISSUER: issuer,
        CLIENT_IDS: 'flask',
        HOST: '127.0.0.1',
        PORT: String(port),
        ADMIN_PORT: String(adminPort),
        SPOOL_DIR: join(folder, 'spool')
      },
      `http://127.0.0.1:${port}/healthz`
    )
    const { command, args, env } = flaskApp(buildFlaskApp(), {
      port: appPort,
      databaseUrl: appUrl.href,
      issuer,
      clientId: 'flask',
      clientSecret: secret,
      apiUrl: `${issuer}/me`,
      certificateFile,
      folder
    })
    await start('the app', command, args, env, app)

    const rows = async () =>
      (await owner.query(`select from msal_logout.token_cache where client_id = 'flask'`)).rowCount ?? 0
    const alice = createBrowser(certificate)
    expect('nobody is signed in at first', (await alice.open(app)).body === 'not signed in\n')
    expect('the API is closed', (await alice.open(`${app}/api`)).status === 401)
    let page = await alice.open(`${app}/sign-in`)
    for (let i = 0; i < 3 && page.url.startsWith(issuer); i += 1) {
      const form = page.body.includes('name="password"') ? { login: 'alice', password: 'any' } : {}
      page = await alice.submit(page, form)
    }
    expect('alice is signed in', page.body === 'signed in as alice\n')
    expect('her row is in the shared cache', (await rows()) === 1)
    const api = await alice.open(`${app}/api`)
    expect('the API answers with a silent token', api.status === 200 && api.body.includes('alice'))

    // She signs out at the provider, as from another app: the app itself is not asked.
    const ending = `${issuer}/session/end?${new URLSearchParams({ client_id: 'flask', post_logout_redirect_uri: app })}`
    const left = await alice.submit(await alice.open(ending), { logout: 'yes' })
    expect('the provider sends her back', left.url.startsWith(app))
    expect('her row is gone', (await rows()) === 0)
    expect('the app has ended her session', (await alice.open(app)).body === 'not signed in\n')
    expect('the API is closed again', (await alice.open(`${app}/api`)).status === 401)
  } catch (error) {
    const said = children.map(({ name, lines }) => `${name}:\n${lines.slice(-8).join('\n')}`).join('\n')
    throw new Error(`${error instanceof Error ? error.message : error}\n${said}`, { cause: error })
  } finally {
    await Promise.all(children.map(({ child }) => end(child)))
    await owner.query(`drop owned by ${role}`).catch(() => {})
    await owner.query(`drop role if exists ${role}`)
    await owner.end()
    rmSync(folder, { recursive: true, force: true })
  }
  return expectations
}

// Ory Hydra, built from its Go module, with its database in memory; and the pages that it leaves to its operator.
import { randomBytes } from 'node:crypto'
import { existsSync, mkdirSync } from 'node:fs'
import type { IncomingMessage, ServerResponse } from 'node:http'
import { join } from 'node:path'
import type { Test } from 'tap'
import { freePort } from '../../src/embedded-postgres.ts'
import { listen } from '../fixtures/listen.ts'
import { call, programFolder, startProgram } from './program.ts'

/** As test/interop/hydra/go.mod has it. */
export const hydraVersion = '2.3.0'
const program = join(programFolder, `hydra-${hydraVersion}`)
const sources = 'test/interop/hydra'

export interface Hydra {
  /** A request to the administrators' API below `/admin`; its answer's JSON. */
  admin: Admin
}

type Admin = (method: string, path: string, body?: unknown) => Promise<Record<string, unknown>>

/** Fetches the Go modules that it is made of, if it is not built yet. */
export function fetchHydra(): void {
  if (!existsSync(program)) {
    call('go', ['mod', 'download'], { cwd: sources })
  }
}

function build(): void {
  if (!existsSync(program)) {
    mkdirSync(programFolder, { recursive: true })
    // Its database in memory is SQLite.
    call('go', ['build', '-tags', 'sqlite', '-o', program, '.'], {
      cwd: sources,
      env: { CGO_ENABLED: '1' },
      timeoutMs: 900_000
    })
  }
}

/** Builds and starts it as this issuer, on the issuer's port; it ends with the test. */
export async function startHydra(t: Test, issuer: string): Promise<Hydra> {
  build()
  const adminPort = await freePort()
  const admin: Admin = async (method, path, body) => {
    const answer = await fetch(`http://127.0.0.1:${adminPort}/admin${path}`, {
      method,
      headers: { 'content-type': 'application/json' },
      ...(body === undefined ? {} : { body: JSON.stringify(body) })
    })
    const text = await answer.text()
    if (!answer.ok) {
      throw new Error(`${method} ${path} is answered ${answer.status}: ${text}`)
    }
    return text === '' ? {} : JSON.parse(text)
  }
  const pages = await startPages(t, admin)
  await startProgram(t, {
    command: program,
    args: ['serve', 'all', '--dev', '--sqa-opt-out'],
    env: {
      DSN: 'memory',
      SECRETS_SYSTEM: randomBytes(24).toString('hex'),
      URLS_SELF_ISSUER: issuer,
      URLS_LOGIN: `${pages}/login`,
      URLS_CONSENT: `${pages}/consent`,
      URLS_LOGOUT: `${pages}/logout`,
      SERVE_PUBLIC_HOST: '127.0.0.1',
      SERVE_PUBLIC_PORT: new URL(issuer).port,
      SERVE_ADMIN_HOST: '127.0.0.1',
      SERVE_ADMIN_PORT: String(adminPort)
    },
    readyUrl: `http://127.0.0.1:${adminPort}/health/ready`
  })
  return { admin }
}

/** The pages that Hydra leaves to its operator: sign-in, consent, sign-out. */
function startPages(t: Test, admin: Admin): Promise<string> {
  const redirect = async (response: ServerResponse, kind: string, challenge: string, body: object) => {
    const accepted = await admin('PUT', `/oauth2/auth/requests/${kind}/accept?${kind}_challenge=${challenge}`, body)
    response.writeHead(302, { location: String(accepted.redirect_to) }).end()
  }
  async function answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const { pathname, searchParams } = new URL(request.url ?? '', 'http://x')
    const kind = pathname.slice(1)
    const challenge = searchParams.get(`${kind}_challenge`) ?? ''
    if (kind === 'login') {
      const { skip, subject } = await admin('GET', `/oauth2/auth/requests/login?login_challenge=${challenge}`)
      if (skip !== true && request.method === 'GET') {
        response.end(`<form method="post" action="${request.url?.replaceAll('&', '&amp;')}"><input name="user"></form>`)
        return
      }
      let body = ''
      for await (const chunk of request) {
        body += chunk
      }
      const user = skip === true ? subject : new URLSearchParams(body).get('user')
      await redirect(response, kind, challenge, { subject: user, remember: true, remember_for: 3_600 })
    } else {
      await redirect(response, kind, challenge, kind === 'consent' ? { grant_scope: ['openid'] } : {})
    }
  }
  return listen(t, (request, response) => {
    answer(request, response).catch((error: unknown) => response.writeHead(500).end(String(error)))
  })
}

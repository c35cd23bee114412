// better-auth from npm, with its plugin that makes a provider of it, in a process and with packages of its own.
import { copyFileSync, existsSync, mkdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import type { Test } from 'tap'
import { call, programFolder, startProgram } from './program.ts'

const sources = join(process.cwd(), 'test/interop/better-auth')
const { dependencies } = JSON.parse(readFileSync(join(sources, 'package.json'), 'utf8')) as {
  dependencies: Record<string, string>
}
export const betterAuthVersion = dependencies['better-auth'] ?? ''
const folder = join(programFolder, `better-auth-${betterAuthVersion}`)

/** Fetches it and what it needs from npm, if it is not there yet. */
export function fetchBetterAuth(): void {
  if (existsSync(join(folder, 'node_modules/.package-lock.json'))) {
    return
  }
  mkdirSync(folder, { recursive: true })
  for (const file of ['package.json', 'package-lock.json']) {
    copyFileSync(join(sources, file), join(folder, file))
  }
  call('npm', ['ci', '--ignore-scripts', '--no-audit', '--no-fund'], { cwd: folder })
}

export interface BetterAuthClient {
  readonly id: string
  readonly secret: string
  readonly redirectUri: string
  readonly backChannelUrl: string
}

export interface BetterAuthOptions {
  readonly port: number
  readonly users: readonly { readonly name: string; readonly password: string }[]
  readonly clients: readonly BetterAuthClient[]
}

export function betterAuthIssuer(port: number): string {
  return `http://127.0.0.1:${port}/api/auth`
}

/** Starts it; it ends with the test. */
export async function startBetterAuth(t: Test, options: BetterAuthOptions): Promise<void> {
  copyFileSync(join(sources, 'server.mjs'), join(folder, 'server.mjs'))
  await startProgram(t, {
    command: process.execPath,
    args: ['server.mjs', JSON.stringify(options)],
    cwd: folder,
    readyUrl: `${betterAuthIssuer(options.port)}/.well-known/openid-configuration`
  })
}

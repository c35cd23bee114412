import { existsSync } from 'node:fs'
import { resolve } from 'node:path'
import { pino } from 'pino'
import type { Config } from '../config.ts'
import { UnavailableError } from '../errors.ts'
import { createIssuers } from '../issuers.ts'
import { createCarryOut } from '../logout-request.ts'
import { createLogoutTokenVerifier } from '../logout-token.ts'
import { replayOnce } from '../replay.ts'
import { createSignOut } from '../sign-out.ts'
import { createSpool, type Kept, type Share } from '../spool.ts'
import { createPool, createStore } from '../store.ts'
import { CommandError, printable, reasonOf } from './command-error.ts'

/** What `msal-logout spool list` tells; never what a logout is about. */
export interface SpoolListing {
  readonly dir: string
  /** False: nothing was ever kept there, or it is the wrong folder. */
  readonly exists: boolean
  readonly verified: number
  /** Tokens that nobody has vouched for yet. */
  readonly unverified: number
  /** Front-channel calls, which nobody can vouch for. */
  readonly frontchannel: number
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
  const { kept, rejected } = await readable(dir, () => spool.survey())
  const count = (share: Share) => kept.filter((entry) => entry.share === share).length
  const first = kept.slice(0, limit)
  const readableNames = new Set(
    first.length === 0 ? [] : (await spool.list(limit)).filter(isRequest).map(({ name }) => name)
  )
  const iso = (at: number) => new Date(at).toISOString()
  return {
    dir,
    exists: existsSync(dir),
    verified: count('verified'),
    unverified: count('unverified'),
    frontchannel: count('frontchannel'),
    rejected: rejected.length,
    oldestAt: kept.length === 0 ? null : iso(kept.reduce((oldest, { at }) => Math.min(oldest, at), Number.MAX_VALUE)),
    waiting: first.map(({ name, at, share }) => ({ at: iso(at), share, isReadable: readableNames.has(name) })),
    setAside: rejected.slice(-limit).map(({ at, reason }) => ({ at: iso(at), reason }))
  }
}

function isRequest({ request }: Kept): boolean {
  return !('token' in request && request.token === '')
}

/** As a table for a person. */
export function toldListing(listing: SpoolListing, now = Date.now()): string {
  const { dir, exists, verified, unverified, frontchannel, rejected, oldestAt, waiting, setAside } = listing
  if (!exists) {
    return `${printable(dir)}: there is no such folder, so nothing was kept in it; SPOOL_DIR names it, from where this is run\n`
  }
  const oldest = oldestAt === null ? '' : `, the oldest for ${age(now - Date.parse(oldestAt))}`
  const line = (at: string, what: string, remark = '') => `${at}  ${what.padEnd(12)}  ${remark}`.trimEnd()
  const lines = [
    `${printable(dir)}: ${verified} verified, ${unverified} unverified and ${frontchannel} frontchannel wait${oldest}; ${rejected} rejected`,
    ...waiting.map(({ at, share, isReadable }) => line(at, share, isReadable ? '' : 'unreadable')),
    ...more(verified + unverified + frontchannel, waiting.length, 'waiting'),
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

export interface ReplayReport {
  readonly done: number
  /** They proved bad, and are set aside. */
  readonly refused: number
  /** For the database or for an issuer's keys. */
  readonly waiting: number
}

/** Carries out what the spool keeps, once, with this configuration; safe beside a running service. */
export async function replaySpool(
  config: Config,
  connectionString: string | undefined,
  signal: AbortSignal
): Promise<ReplayReport> {
  const dir = resolve(config.spoolDir)
  const spool = createSpool({ dir, logger: silent })
  if ((await readable(dir, () => spool.survey())).kept.length === 0) {
    return { done: 0, refused: 0, waiting: 0 }
  }
  const pool = createPool({ connectionString, max: 4, statementTimeoutMs: 5_000 })
  pool.on('error', () => {}) // the next statement tells
  try {
    const store = createStore(pool)
    await ready(store)
    const issuers = createIssuers(config.issuers)
    const verify = createLogoutTokenVerifier(issuers)
    const carryOut = createCarryOut({ issuers, verify, signOut: createSignOut(store), store })
    const counts = await readable(dir, () => replayOnce({ spool, carryOut, logger: silent, signal }))
    return { ...counts, waiting: (await spool.survey()).kept.length }
  } finally {
    await pool.end()
  }
}

async function ready(store: Pick<ReturnType<typeof createStore>, 'checkReady'>): Promise<void> {
  try {
    await store.checkReady()
  } catch (error) {
    if (!(error instanceof UnavailableError)) {
      throw error
    }
    throw new CommandError(
      1,
      'database_unreachable',
      `the database is of no use (${reasonOf(error)}), so nothing was done: "msal-logout check" tells what is wrong`,
      { cause: error }
    )
  }
}

async function readable<T>(dir: string, work: () => Promise<T>): Promise<T> {
  try {
    return await work()
  } catch (error) {
    if (
      error instanceof Error &&
      'code' in error &&
      ['EACCES', 'EPERM', 'ENOTDIR', 'EROFS'].includes(String(error.code))
    ) {
      throw new CommandError(
        1,
        'spool_unreadable',
        `"${dir}" is no spool that this user can use (${String(error.code)}): look at SPOOL_DIR`,
        {
          cause: error
        }
      )
    }
    throw error
  }
}

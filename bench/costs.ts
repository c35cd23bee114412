import { readdirSync, readFileSync } from 'node:fs'
import type pg from 'pg'

/** What a stretch of work has cost: steadier than its rate on a machine that others use, too. */
export interface Costs {
  /** Processor time in microseconds; NaN where there is no /proc. */
  readonly serviceUs: number
  readonly postgresUs: number
  /** Bytes of write-ahead log. */
  readonly walBytes: number
}

/**
 * Begins to count.
 *
 * @param service the process of the service, or the first one of several
 * @param postmaster the process that PostgreSQL's own are children of
 * @returns what it has cost since then
 */
export async function countCosts(pool: pg.Pool, service: number, postmaster: number): Promise<() => Promise<Costs>> {
  const before = { service: timeOfService(service), postgres: timeOfChildren(postmaster), wal: await walPosition(pool) }
  return async () => ({
    serviceUs: timeOfService(service) - before.service,
    postgresUs: timeOfChildren(postmaster) - before.postgres,
    walBytes: (await walPosition(pool)) - before.wal
  })
}

async function walPosition(pool: pg.Pool): Promise<number> {
  const { rows } = await pool.query<{ bytes: string }>(
    `select pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0') as bytes`
  )
  return Number(rows[0]?.bytes)
}

// proc(5), /proc/<pid>/stat: a tick is a hundredth of a second.
const tickUs = 10_000

function processorTimeUs(pid: number): number {
  const [, , , , , , , , , , , user, system] = statOf(pid)
  return sumOf(user, system)
}

/** Of a process and of those that it has forked. */
function timeOfService(pid: number): number {
  return processorTimeUs(pid) + timeOfChildren(pid)
}

/** Also of those that have ended: a pool closes what nobody uses. */
function timeOfChildren(parent: number): number {
  const [, , , , , , , , , , , , , endedUser, endedSystem] = statOf(parent)
  return childrenOf(parent).reduce((sum, pid) => sum + processorTimeUs(pid), sumOf(endedUser, endedSystem))
}

/** Nothing of one that has ended between two looks. */
function sumOf(user = '0', system = '0'): number {
  return (Number(user) + Number(system)) * tickUs
}

function childrenOf(parent: number): number[] {
  const pids = readable(() => readdirSync('/proc')).map(Number)
  return pids.filter((pid) => Number(statOf(pid)[1]) === parent)
}

/** Resident memory of a process and of those that it has forked, in MB, the largest first. */
export function residentMb(pid: number): number[] {
  return [pid, ...childrenOf(pid)].map(residentOf).sort((a, b) => b - a)
}

function residentOf(pid: number): number {
  const [text = ''] = readable(() => [readFileSync(`/proc/${pid}/status`, 'latin1')])
  return Math.round(Number(/^VmRSS:\s+(\d+) kB$/m.exec(text)?.[1]) / 1_024)
}

/** What follows the name, which may hold anything and stands in parentheses: state, parent, … */
function statOf(pid: number): string[] {
  return readable(() => {
    const text = readFileSync(`/proc/${pid}/stat`, 'latin1')
    return text.slice(text.lastIndexOf(')') + 2).split(' ')
  })
}

/** Nothing of a process that has ended, nor where there is no /proc. */
function readable(read: () => string[]): string[] {
  try {
    return read()
  } catch {
    return []
  }
}

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
 * @param service the process of the service
 * @param postmaster the process that PostgreSQL's own are children of
 * @returns what it has cost since then
 */
export async function countCosts(pool: pg.Pool, service: number, postmaster: number): Promise<() => Promise<Costs>> {
  const before = {
    service: processorTimeUs(service),
    postgres: timesOfChildren(postmaster),
    wal: await walPosition(pool)
  }
  return async () => ({
    serviceUs: processorTimeUs(service) - before.service,
    postgresUs: [...timesOfChildren(postmaster)].reduce(
      (sum, [pid, us]) => sum + us - (before.postgres.get(pid) ?? 0),
      0
    ),
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
  return (Number(user) + Number(system)) * tickUs
}

function timesOfChildren(parent: number): Map<number, number> {
  const pids = readable(() => readdirSync('/proc')).map(Number)
  return new Map(pids.filter((pid) => Number(statOf(pid)[1]) === parent).map((pid) => [pid, processorTimeUs(pid)]))
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

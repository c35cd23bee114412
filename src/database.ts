import pg from 'pg'
import { budget } from './budget.ts'
import { type DatabasePool, openPool } from './connections.ts'
import { UnavailableError } from './errors.ts'

const { DatabaseError } = pg

export interface PoolOptions {
  /** Undefined: as libpq's variables say. */
  readonly connectionString: string | undefined
  /** The most connections. */
  readonly max: number
  readonly statementTimeoutMs: number
  /** Default {@link budget}.lockMs. */
  readonly lockTimeoutMs?: number
}

/** Without `turnTo` its URL stays as it was at the start. */
export type Pool = pg.Pool & Partial<Pick<DatabasePool, 'turnTo'>>

const idleTransactionTimeoutMs = 5_000

/** Connections with the limits of the service; the caller listens for `error` and ends them. */
export function createPool({
  connectionString,
  max,
  statementTimeoutMs,
  lockTimeoutMs = budget.lockMs
}: PoolOptions): DatabasePool {
  return openPool({
    url: connectionString ?? '',
    max,
    connectTimeoutMs: budget.connectMs,
    statementTimeoutMs,
    lockTimeoutMs, // before the time limit, which says less
    idleTransactionTimeoutMs
  })
}

/**
 * Does the work, and turns what the database throws into our own error.
 * @throws {UnavailableError} with the database's error as its cause
 * @throws a mistake of ours as it is
 */
export async function translateErrors<T>(work: () => Promise<T>): Promise<T> {
  try {
    return await work()
  } catch (error) {
    throw isMistake(error) ? error : new UnavailableError(codeOf(error), { cause: error })
  }
}

/** What a program throws at itself; neither a server, nor a socket, nor pg does. */
function isMistake(error: unknown): boolean {
  return [TypeError, RangeError, ReferenceError, SyntaxError].some((mistake) => error instanceof mistake)
}

// What the database rejects counts as the surroundings' fault, too: the schema may not be up to date, and no signal may be
// lost to that.
function codeOf(error: unknown): UnavailableError['code'] {
  const state = error instanceof DatabaseError ? (error.code ?? '') : undefined
  // lock_not_available; query_canceled, by the time limit
  if (state === '55P03') {
    return 'ERR_DATABASE_LOCKED'
  }
  if (state === '57014') {
    return 'ERR_DATABASE_TIMEOUT'
  }
  // serialization_failure, deadlock_detected: the same again may well succeed
  if (state === '40001' || state === '40P01') {
    return 'ERR_DATABASE_CONFLICT'
  }
  return isOutage(state) ? 'ERR_DATABASE_UNAVAILABLE' : 'ERR_DATABASE_FAILED'
}

/**
 * Whether the database as a whole is out of reach, so that trying again at once is of no use: an error of the socket or the pool,
 * or by SQLSTATE class 08 connection, 25006 read-only standby, 25P03 and 25P04 cut off by a timeout, 28 and 3D rejected at the
 * door, 53 resources, 55000 not while it recovers, 57 operator intervention, 58 system.
 */
function isOutage(state: string | undefined): boolean {
  return state === undefined || /^(08|25006|25P0[34]|28|3D|53|55000|57|58)/.test(state)
}

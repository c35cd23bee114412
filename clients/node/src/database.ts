import { setTimeout as delay } from 'node:timers/promises'
import { TokenCacheDatabaseError, TokenCacheMisuseError } from './errors.ts'
import { memberOf } from './objects.ts'

/** As much of a `pg.Pool` as is used: types of our own, so that an app needs none of pg's for ours. */
export interface Pool {
  connect(callback: (error: Error | undefined, client: PoolClient | undefined) => void): void
  query(text: string): Promise<unknown>
  on(event: 'error', listener: () => void): unknown
  listenerCount(event: 'error'): number
  readonly totalCount: number
}

/** A connection that is taken from the pool. */
export interface PoolClient {
  query<Row extends object>(
    statement: Statement,
    callback: (error: Error | null | undefined, result: { rows: Row[] } | undefined) => void
  ): void
  on(event: 'error' | 'end' | 'notification', listener: () => void): unknown
  off(event: 'error' | 'end' | 'notification', listener: () => void): unknown
  release(error?: Error | boolean): void
}

export interface Statement {
  name?: string
  text: string
  values?: unknown[]
}

export interface Database {
  /** One statement on a connection of its own, committed at once. */
  query<Row extends object>(statement: Statement): Promise<Row[]>
  /**
   * A connection to keep, on which this statement has been carried out.
   *
   * @param take gets the connection before anything else can happen to it, listens to its errors, and releases it some day
   */
  connect(statement: Statement, take: (client: PoolClient) => void): Promise<void>
}

export interface DatabaseOptions {
  readonly pool: Pool
  /** How long a call may take, with the wait for a connection. */
  readonly timeoutMs: number
  readonly warn: (message: string) => void
}

const maxTries = 20
const maxBackOffMs = 50

/**
 * The calls of a pool, each with a time limit of its own. A pool waits for ever for a connection, and a connection for an
 * answer, where nobody says otherwise: a firewall that drops packets would hold up every request of the app.
 */
export function createDatabase({ pool, timeoutMs, warn }: DatabaseOptions): Database {
  assertPool(pool)
  let isFirst = true

  /** Once somebody uses it: an app sets its pool up first, and adds its listener then. */
  function look(): void {
    if (isFirst) {
      isFirst = false
      if (hasNoListener(pool)) {
        warn(missingListener)
      }
    }
  }

  /**
   * Carries out a statement, and hands the connection on as soon as there is an answer. By callbacks, as `pool.query`
   * itself: each request of an app waits for it, and promises for each step made a silent token 3 % slower.
   */
  function perform<Row extends object>(
    statement: Statement,
    limitMs: number,
    finish: (client: PoolClient) => void
  ): Promise<Row[]> {
    return new Promise((resolve, reject) => {
      let client: PoolClient | undefined
      let isOver = false
      const timer = setTimeout(end, limitMs)

      /** Once, by whoever is first: the answer, a failure, or, without either, the limit. */
      function end(error?: unknown, rows?: Row[]): void {
        if (isOver) {
          return
        }
        isOver = true
        clearTimeout(timer)
        client?.off('error', ignore)
        if (client !== undefined && rows !== undefined) {
          finish(client)
          resolve(rows)
          return
        }
        const reason = error ?? new TimeLimitError(timeoutMs)
        client?.release(isOfStatement(reason) ? undefined : true)
        reject(reason)
      }

      pool.connect((connectError, connected) => {
        if (connected === undefined) {
          end(connectError)
        } else if (isOver) {
          connected.release() // too late for this call, and good for the next one
        } else {
          client = connected
          // A connection that is lost tells of it twice: by the statement, and by an event that ends the process unheard.
          client.on('error', ignore)
          client.query<Row>(statement, (error, result) => end(error ?? undefined, result?.rows))
        }
      })
    })
  }

  return {
    async query<Row extends object>(statement: Statement): Promise<Row[]> {
      look()
      const startedAt = performance.now()
      let limitMs = timeoutMs
      for (let tries = 1; ; tries += 1) {
        try {
          return await perform<Row>(statement, limitMs, release)
        } catch (error) {
          limitMs = startedAt + timeoutMs - performance.now()
          const mayTryAgain = isLost(error) ? tries === 1 : isOfConcurrency(error) && tries < maxTries
          if (!mayTryAgain || limitMs <= 0) {
            throw translate(error)
          }
          if (tries > 1) {
            await delay(Math.random() * Math.min(2 ** tries, maxBackOffMs)) // not all of them at once again
          }
        }
      }
    },

    async connect(statement, take) {
      look()
      try {
        await perform(statement, timeoutMs, take)
      } catch (error) {
        throw translate(error)
      }
    }
  }
}

function release(client: PoolClient): void {
  client.release()
}

class TimeLimitError extends Error {
  constructor(timeoutMs: number) {
    super(`no answer within ${timeoutMs} ms`)
  }
}

function ignore(): void {}

const ours = new WeakSet<Pool>()

/** A lost idle connection is the pool's matter, which opens another one; unheard it would end the process. */
export function listenToPool(pool: Pool): void {
  if (!ours.has(pool)) {
    ours.add(pool)
    pool.on('error', ignore)
  }
}

export function hasNoListener(pool: Pool): boolean {
  return pool.listenerCount('error') <= (ours.has(pool) ? 1 : 0)
}

export const missingListener =
  'the pool has no listener for "error": without one a lost idle connection, as in a restart of PostgreSQL, ends the process. One was added that ignores it. Add your own that logs it: pool.on(\'error\', …)'

/** @throws {TokenCacheMisuseError} where it is no `pg.Pool` */
export function assertPool(pool: unknown): asserts pool is Pool {
  const isPool =
    ['connect', 'query', 'on', 'listenerCount'].every((name) => typeof memberOf(pool, name) === 'function') &&
    typeof memberOf(pool, 'totalCount') === 'number'
  if (!isPool) {
    throw new TokenCacheMisuseError(
      `"pool" must be a Pool of pg, and is ${describe(pool)}: createTokenCache({ pool: new Pool({ connectionString: process.env.DATABASE_URL }), … })`
    )
  }
}

function describe(value: unknown): string {
  if (typeof value === 'string') {
    return 'a string' // which may be a URL with a password
  }
  if (typeof value === 'function') {
    return 'a function (was "new" forgotten?)'
  }
  return typeof value === 'object' && value !== null ? `of the class "${value.constructor?.name}"` : String(value)
}

/** The five characters of PostgreSQL, or undefined where the error is not from a statement. */
function sqlState(error: unknown): string | undefined {
  const code = memberOf(error, 'code')
  return typeof code === 'string' && /^[0-9A-Z]{5}$/.test(code) ? code : undefined
}

/** The session was ended, or could not begin: 08 connection exception, 57P01 to 57P03 shutdown, crash, starting up. */
function isLost(error: unknown): boolean {
  if (error instanceof TimeLimitError) {
    return false
  }
  const state = sqlState(error)
  return state === undefined || /^(08...|57P0[1-5])$/.test(state)
}

/** Two transactions were in each other's way, and one of them was undone: it is to be tried again. */
function isOfConcurrency(error: unknown): boolean {
  return ['40001', '40P01'].includes(sqlState(error) ?? '')
}

/** The statement failed, and the connection is as good as before. */
function isOfStatement(error: unknown): boolean {
  return sqlState(error) !== undefined && !isLost(error)
}

// The schema, a function or a table that is not there; a role that may not.
const setUpStates: Readonly<Record<string, string>> = {
  '3F000': 'the schema "msal_logout" is not in this database: run "msal-logout migrate" on it, or mend the pool\'s URL',
  '42883': 'a function of the schema "msal_logout" is missing: run "msal-logout migrate" of this release',
  '42P01': 'a table of the schema "msal_logout" is missing: run "msal-logout migrate" of this release',
  '42501':
    "this database role may not use this client id: as the schema's owner run select msal_logout.register_app('<client id>', '<role>')",
  '28P01': 'PostgreSQL knows no such role with this password: mend the URL of the pool',
  '28000': 'PostgreSQL does not let this role in from here: mend the URL of the pool, or pg_hba.conf',
  '3D000': 'there is no such database: mend the URL of the pool',
  '25006': 'the database only reads: the pool must lead to the primary, not to a replica'
}

function translate(error: unknown): Error {
  const message = messageOf(error)
  const state = sqlState(error)
  const cause = withoutDetail(error, message, state)
  if (state === undefined || isLost(error)) {
    return new TokenCacheDatabaseError(`the database of the token cache: ${message}`, { isUnavailable: true, cause })
  }
  const remedy = setUpStates[state]
  if (remedy !== undefined) {
    return new TokenCacheMisuseError(`${remedy} (${message})`, { cause })
  }
  // Ours, or an argument that cannot be used.
  if (/^(ML|22023)/.test(state)) {
    const hint = memberOf(error, 'hint')
    return new TokenCacheMisuseError(typeof hint === 'string' ? `${message}; ${hint}` : message, { cause })
  }
  // 53 out of resources, 55 not in the state for it, 57 cancelled by an operator or a time limit, 58 a system error
  const isUnavailable = /^(40|53|55|57|58)/.test(state)
  return new TokenCacheDatabaseError(`the database of the token cache: ${message} (${state})`, { isUnavailable, cause })
}

/** Of several addresses that were tried, an error has a code and no message. */
function messageOf(error: unknown): string {
  const found = [memberOf(error, 'message'), memberOf(error, 'code')].find((text) => typeof text === 'string' && text)
  return typeof found === 'string' ? found : 'it cannot be reached'
}

/** PostgreSQL's detail may quote a row with its payload, and a log prints every member of a cause. */
function withoutDetail(error: unknown, message: string, state: string | undefined): Error {
  const code = state ?? memberOf(error, 'code')
  const copy = Object.assign(new Error(message), code === undefined ? {} : { code })
  const stack = memberOf(error, 'stack')
  if (typeof stack === 'string') {
    copy.stack = stack
  }
  return copy
}

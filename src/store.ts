import { createHash } from 'node:crypto'
import type { Socket } from 'node:net'
import { Kysely, PostgresDialect, sql } from 'kysely'
import pg from 'pg'
import { UnavailableError } from './errors.ts'

const { DatabaseError } = pg

/** One logout, ready to be carried out. */
export interface Logout {
  /** Of the record; the same for the same token. */
  readonly id: string
  readonly source: 'backchannel' | 'frontchannel' | 'admin'
  readonly issuer: string
  readonly clientId?: string | undefined
  readonly jti?: string | undefined
  readonly sid?: string | undefined
  readonly subject?: string | undefined
  /** Ends logins whose ID token was issued up to then; seconds since 1970. */
  readonly notAfter: number
  /** Every session of the subject, not of the sid alone. */
  readonly wholeSubject: boolean
  readonly purgeScope: 'account' | 'session'
  readonly reason?: string | undefined
  readonly actor?: string | undefined
  /** What an Idempotency-Key stands for. */
  readonly requestHash?: Buffer | undefined
}

/** What was purged in one app. */
export interface ClientCounts {
  /** Those of which a row or a session in this app went: an account counts in each of its apps. A dry run counts rows alone by app. */
  readonly accounts: number
  readonly sessions: number
  readonly rows: number
}

export interface Purged {
  readonly id: string
  /** Done before: nothing was done now. */
  readonly replayed: boolean
  readonly accounts: number
  readonly sessions: number
  readonly rows: number
  readonly byClient: Readonly<Record<string, ClientCounts>>
}

/** An operator's purge of an account, an app or a tenant: exactly one of the three ids. */
export interface PurgeRequest {
  readonly id: string
  readonly homeAccountId?: string | undefined
  readonly clientId?: string | undefined
  readonly tenantId?: string | undefined
  /** With `homeAccountId`: tells equal bare subjects of two issuers apart. */
  readonly issuer?: string | undefined
  readonly reason: string
  readonly actor: string
  readonly dryRun: boolean
  readonly maxAccounts: number
  readonly requestHash: Buffer
}

export interface PurgeRecord extends Purged {
  readonly at: Date
  readonly source: Logout['source']
  readonly status: 'running' | 'done'
  readonly total: number
  readonly issuer: string | null
  readonly clientId: string | null
  readonly jti: string | null
  readonly sid: string | null
  readonly subject: string | null
  readonly homeAccountId: string | null
  readonly tenantId: string | null
  readonly reason: string | null
  readonly actor: string | null
  readonly requestHash: Buffer | null
  readonly finishedAt: Date | null
}

/** What is stored of an account; never a payload. */
export interface StoredAccount {
  readonly rows: readonly StoredRow[]
  readonly sessions: readonly StoredSession[]
}

export interface StoredRow {
  readonly clientId: string
  readonly partitionKey: string
  readonly kind: 'user' | 'obo'
  /** The issuer of a bare subject; else null. */
  readonly accountIssuer: string | null
  readonly payloadBytes: number
  readonly createdAt: Date
  readonly updatedAt: Date
  readonly expiresAt: Date
}

export interface StoredSession {
  readonly clientId: string
  readonly issuer: string
  readonly sid: string | null
  readonly subject: string
  readonly issuedAt: Date
  readonly createdAt: Date
  readonly expiresAt: Date
}

export interface MinuteCount {
  /** The start of the minute. */
  readonly at: Date
  readonly source: Logout['source']
  readonly count: number
}

/** What is known of the database and of the role that asks, before anything is done. */
export interface DatabaseReport {
  readonly version: string
  /** 140011 is 14.11. */
  readonly versionNumber: number
  /** A standby, or set to take no writes. */
  readonly isReadOnly: boolean
  readonly role: string
  readonly isSuperuser: boolean
  readonly hasSchema: boolean
  readonly canReadMigrations: boolean
  readonly canReadPayloads: boolean
  /** What the service calls or reads, and this role cannot; of a schema that is there. */
  readonly missingPrivileges: readonly string[]
}

export type Store = ReturnType<typeof createStore>

// What `register_service` grants.
const neededFunctions = ['sign_out', 'start_purge', 'purge_step', 'clean_up']
const neededTables = ['sessions', 'purges', 'migrations']

const keepPurges = '400 days'
const keepEndedSessions = '7 days'

interface Tables {
  'msal_logout.purges': {
    id: string
    at: Date
    source: Logout['source']
    issuer: string | null
    client_id: string | null
    jti: string | null
    sid: string | null
    subject: string | null
    home_account_id: string | null
    tenant_id: string | null
    reason: string | null
    actor: string | null
    status: 'running' | 'done'
    total: string
    accounts: string
    sessions: string
    rows: string
    by_client: Record<string, ClientCounts>
    request_hash: Buffer | null
    finished_at: Date | null
  }
}

export interface PoolOptions {
  /** Undefined: as libpq's variables say. */
  readonly connectionString: string | undefined
  readonly max: number
  readonly statementTimeoutMs: number
  /** Where connections get their sockets; default a new one each. */
  readonly openSocket?: () => Socket
}

/** Connections with the limits of the service; the caller hears `error` and ends them. */
export function createPool({ connectionString, max, statementTimeoutMs, openSocket }: PoolOptions): pg.Pool {
  return new pg.Pool({
    connectionString,
    application_name: 'msal-logout',
    max,
    connectionTimeoutMillis: 1_000,
    statement_timeout: statementTimeoutMs,
    // The server's own limit says nothing where it has vanished: TCP alone would give up after a quarter of an hour.
    query_timeout: statementTimeoutMs + 500,
    lock_timeout: 1_200, // before a sign-out's statement timeout, which would be told as an outage
    idle_in_transaction_session_timeout: 5_000,
    keepAlive: true,
    ...(openSocket && { stream: openSocket })
  })
}

/** The record's id of a logout token: the same token has the same, whoever receives it. */
export function tokenPurgeId(issuer: string, jti: string): string {
  return derivedId([issuer, jti])
}

/** The record's id of an operator's purge: the same operator's same Idempotency-Key has the same. */
export function keyedPurgeId(actor: string, idempotencyKey: string): string {
  return derivedId(['idempotency-key', actor, idempotencyKey])
}

function derivedId(parts: readonly string[]): string {
  const hash = createHash('sha256').update(JSON.stringify(parts)).digest('hex')
  return hash.slice(0, 32).replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, '$1-$2-$3-$4-$5')
}

/**
 * All SQL of the service.
 *
 * @param pool connections as a role that `register_service` has given its rights, with limits as {@link createPool} sets
 *   them; the caller ends it
 * @returns functions that each throw {@link UnavailableError}: where the database is out of reach, refuses, or had another
 *   transaction win
 */
export function createStore(pool: pg.Pool) {
  const kysely = new Kysely<Tables>({ dialect: new PostgresDialect({ pool }) })

  async function query<Row extends object>(name: string, text: string, values: unknown[]): Promise<Row[]> {
    return translate(async () => (await pool.query<Row>({ name, text, values })).rows)
  }

  return {
    /**
     * Carries out many logouts in one transaction; the results stand in the order of the logouts. A patient one
     * waits for locks as long as the connection allows, else it fails soon.
     */
    async signOut(logouts: readonly Logout[], { patient = true }: { patient?: boolean } = {}): Promise<Purged[]> {
      const rows = await query<PurgedRow>('sign_out', 'select * from msal_logout.sign_out($1::jsonb, $2)', [
        batch(logouts),
        patient
      ])
      return inOrder(logouts, rows)
    },

    /** What {@link signOut} would do: done, and rolled back. */
    async previewSignOut(logout: Logout): Promise<Purged> {
      const rows = await translate(async () => {
        const client = await pool.connect()
        let failure: Error | undefined
        // A connection lost between two statements is told by the next one; unheard, it would end the process.
        const onLost = (error: Error) => {
          failure = error
        }
        client.on('error', onLost)
        try {
          await client.query('begin')
          const { rows } = await client.query<PurgedRow>('select * from msal_logout.sign_out($1::jsonb, true)', [
            batch([logout])
          ])
          await client.query('rollback')
          return rows
        } catch (error) {
          failure = error instanceof Error ? error : new Error(String(error))
          throw error
        } finally {
          client.off('error', onLost)
          client.release(failure)
        }
      })
      return purgedOf(logout.id, rows[0])
    },

    /** Begins a purge, or counts what it would delete. */
    async startPurge(purge: PurgeRequest): Promise<Purged & { outcome: PurgeOutcome }> {
      const [row] = await query<PurgedRow & { outcome: PurgeOutcome }>(
        'start_purge',
        'select * from msal_logout.start_purge($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)',
        [
          purge.id,
          purge.homeAccountId,
          purge.issuer,
          purge.clientId,
          purge.tenantId,
          purge.reason,
          purge.actor,
          purge.dryRun,
          purge.maxAccounts,
          purge.requestHash
        ]
      )
      if (row === undefined) {
        throw new Error(`start_purge told nothing of "${purge.id}"`)
      }
      return { ...toPurged({ ...row, id: purge.id, replayed: row.outcome === 'replayed' }), outcome: row.outcome }
    },

    /** One step of a purge: true when another is due, false when this was the last, null when somebody else is at it or has done it. */
    async purgeStep(id: string, maxRows: number): Promise<boolean | null> {
      const [row] = await query<{ more: boolean | null }>(
        'purge_step',
        'select msal_logout.purge_step($1, $2) as more',
        [id, maxRows]
      )
      return row?.more ?? null
    },

    async runningPurges(): Promise<string[]> {
      return translate(async () => {
        const rows = await kysely
          .selectFrom('msal_logout.purges')
          .select('id')
          .where('status', '=', 'running')
          .orderBy('at')
          .execute()
        return rows.map(({ id }) => id)
      })
    },

    async findPurge(id: string): Promise<PurgeRecord | undefined> {
      return translate(async () => {
        const row = await kysely.selectFrom('msal_logout.purges').selectAll().where('id', '=', id).executeTakeFirst()
        return row === undefined ? undefined : toRecord(row)
      })
    },

    /** The newest first; `before` is the id of the last one seen. Undefined where no purge has that id. */
    async listPurges(limit: number, before?: string): Promise<PurgeRecord[] | undefined> {
      return translate(async () => {
        const of = (id: string) =>
          kysely.selectFrom('msal_logout.purges as b').select(['b.at', 'b.id']).where('b.id', '=', id)
        if (before !== undefined && (await of(before).executeTakeFirst()) === undefined) {
          return undefined
        }
        const rows = await kysely
          .selectFrom('msal_logout.purges as p')
          .selectAll()
          // Compared in the database: a Date has no microseconds.
          .$if(before !== undefined, (q) => q.where(sql<boolean>`(p.at, p.id) < (${of(before ?? '')})`))
          .orderBy('p.at', 'desc')
          .orderBy('p.id', 'desc')
          .limit(limit)
          .execute()
        return rows.map(toRecord)
      })
    },

    /**
     * How many records there are of each of the last minutes, this one included, that have any; `isComplete` is
     * false where there are more than `limit`, and only the newest were counted.
     */
    async purgesPerMinute(minutes: number, limit: number): Promise<{ counts: MinuteCount[]; isComplete: boolean }> {
      const counts = await query<{ at: Date; source: Logout['source']; n: string }>(
        'purges_per_minute',
        `select date_trunc('minute', p.at) as at, p.source, count(*) as n
        from (
          select at, source from msal_logout.purges
          where at >= date_trunc('minute', now()) - ($1::int - 1) * interval '1 minute'
          order by at desc limit $2
        ) p
        group by 1, 2`,
        [minutes, limit]
      )
      const told = counts.map(({ n, ...minute }) => ({ ...minute, count: Number(n) }))
      return { counts: told, isComplete: told.reduce((sum, { count }) => sum + count, 0) < limit }
    },

    /** The oldest `limit` rows and as many sessions; with `issuer` that issuer's account alone, where the id is a bare subject. */
    async findAccount(homeAccountId: string, issuer: string | undefined, limit: number): Promise<StoredAccount> {
      const [rows, sessions] = await Promise.all([
        query<StoredRow>(
          'account_rows',
          `select client_id as "clientId", partition_key as "partitionKey", kind,
            nullif(account_issuer, '') as "accountIssuer", payload_bytes as "payloadBytes",
            created_at as "createdAt", updated_at as "updatedAt", expires_at as "expiresAt"
          from msal_logout.token_cache
          where home_account_id = $1 and ($2::text is null or account_issuer in ('', $2))
          order by client_id, created_at, partition_key limit $3`,
          [homeAccountId, issuer, limit]
        ),
        query<StoredSession>(
          'account_sessions',
          `select client_id as "clientId", issuer, sid, subject, to_timestamp(issued_at) as "issuedAt",
            created_at as "createdAt", expires_at as "expiresAt"
          from msal_logout.sessions
          where home_account_id = $1 and ($2::text is null or account_issuer in ('', $2))
          order by client_id, created_at, session_key limit $3`,
          [homeAccountId, issuer, limit]
        )
      ])
      return { rows, sessions }
    },

    /** The accounts that have a session of this sid or, without one, of this subject. */
    async accountsOf(issuer: string, sid: string | undefined, subject: string | undefined, limit: number) {
      return query<{ homeAccountId: string; accountIssuer: string | null }>(
        'accounts_of',
        `select distinct home_account_id as "homeAccountId", nullif(account_issuer, '') as "accountIssuer"
        from msal_logout.sessions
        where issuer = $1 and (session_key = 'sid=' || $2::text or $2 is null and subject = $3)
        order by 1, 2 limit $4`,
        [issuer, sid, subject, limit]
      )
    },

    /** The issuers under which a session of this sid is stored. */
    async issuersOfSid(sid: string): Promise<string[]> {
      const rows = await query<{ issuer: string }>(
        'issuers_of_sid',
        'select distinct s.issuer from msal_logout.sessions s where s.sid = $1',
        [sid]
      )
      return rows.map(({ issuer }) => issuer)
    },

    /** Removes what has expired, in a small step: how many went, or null where another instance has its turn. */
    async cleanUp(maxRows: number): Promise<number | null> {
      const [row] = await query<{ gone: string | null }>(
        'clean_up',
        'select msal_logout.clean_up($1, $2::interval, $3::interval) as gone',
        [maxRows, keepPurges, keepEndedSessions]
      )
      return row?.gone == null ? null : Number(row.gone)
    },

    /** Looks at the catalogue alone, which every role can read. */
    async inspect(): Promise<DatabaseReport> {
      const [report] = await query<DatabaseReport>(
        'inspect',
        `with schema as (select n.oid from pg_namespace n where n.nspname = 'msal_logout'),
        tables as (
          select c.oid, c.relname as name from pg_class c join schema s on c.relnamespace = s.oid where c.relkind in ('r', 'p')
        ),
        missing as (
          select 'usage of the schema' as what, 1 as place from schema s where not has_schema_privilege(s.oid, 'usage')
          union all
          select 'execute of ' || f, 2 from schema s, unnest($1::text[]) f
          where not exists (
            select from pg_proc p
            where p.pronamespace = s.oid and p.proname = f and has_function_privilege(p.oid, 'execute'))
          union all
          select 'select on ' || t, 3 from schema s, unnest($2::text[]) t
          where not exists (select from tables c where c.name = t and has_table_privilege(c.oid, 'select'))
          union all
          select 'select on token_cache.' || a.attname, 4 from tables c join pg_attribute a on a.attrelid = c.oid
          where c.name = 'token_cache' and a.attnum > 0 and not a.attisdropped and a.attname <> 'payload'
            and not has_column_privilege(c.oid, a.attnum, 'select')
        )
        select current_setting('server_version') as version,
          current_setting('server_version_num')::int as "versionNumber",
          pg_is_in_recovery() or current_setting('transaction_read_only') = 'on' as "isReadOnly",
          current_user::text as role,
          (select r.rolsuper from pg_roles r where r.rolname = current_user) as "isSuperuser",
          exists (select from tables c where c.name = 'migrations') as "hasSchema",
          exists (
            select from schema s, tables c
            where c.name = 'migrations' and has_schema_privilege(s.oid, 'usage') and has_table_privilege(c.oid, 'select')
          ) as "canReadMigrations",
          exists (
            select from tables c join pg_attribute a on a.attrelid = c.oid
            where c.name = 'token_cache' and a.attname = 'payload' and has_column_privilege(c.oid, a.attnum, 'select')
          ) as "canReadPayloads",
          array(select m.what::text from missing m order by m.place, m.what) as "missingPrivileges"`,
        [neededFunctions, neededTables]
      )
      if (report === undefined) {
        throw new Error('the catalogue told nothing')
      }
      return report
    },

    /** @throws {UnavailableError} where the database is out of reach, is a standby that takes no writes, or lets no logout be done */
    async checkReady(): Promise<void> {
      const [row] = await query<{ writable: boolean; callable: boolean | null }>(
        'check_ready',
        `select not pg_is_in_recovery() and current_setting('transaction_read_only') = 'off' as writable,
          has_function_privilege(to_regprocedure('msal_logout.sign_out(jsonb, boolean)'), 'execute') as callable`,
        []
      )
      if (row?.writable !== true) {
        throw new UnavailableError('ERR_DATABASE_UNAVAILABLE')
      }
      if (row.callable !== true) {
        throw new UnavailableError('ERR_DATABASE_FAILED')
      }
    }
  }
}

type PurgeOutcome = 'running' | 'dry_run' | 'replayed' | 'ambiguous' | 'too_many'

interface PurgedRow {
  id: string
  replayed: boolean
  /** Null, as what follows, where nothing was counted. */
  accounts: string | null
  sessions: string | null
  rows: string | null
  by_client: Record<string, ClientCounts> | null
}

function batch(logouts: readonly Logout[]): string {
  return JSON.stringify(
    logouts.map((logout) => ({
      id: logout.id,
      source: logout.source,
      issuer: logout.issuer,
      client_id: logout.clientId,
      jti: logout.jti,
      sid: logout.sid,
      subject: logout.subject,
      not_after: logout.notAfter,
      whole_subject: logout.wholeSubject,
      purge_scope: logout.purgeScope,
      reason: logout.reason,
      actor: logout.actor,
      request_hash: logout.requestHash && `\\x${logout.requestHash.toString('hex')}`
    }))
  )
}

function inOrder(logouts: readonly Logout[], rows: readonly PurgedRow[]): Purged[] {
  const byId = new Map(rows.map((row) => [row.id, row]))
  return logouts.map(({ id }) => purgedOf(id, byId.get(id)))
}

function purgedOf(id: string, row: PurgedRow | undefined): Purged {
  if (row === undefined) {
    throw new Error(`sign_out told nothing of "${id}"`)
  }
  return toPurged(row)
}

function toPurged(row: PurgedRow): Purged {
  return {
    id: row.id,
    replayed: row.replayed,
    accounts: Number(row.accounts),
    sessions: Number(row.sessions),
    rows: Number(row.rows),
    byClient: row.by_client ?? {}
  }
}

function toRecord(row: Tables['msal_logout.purges']): PurgeRecord {
  return {
    ...toPurged({ ...row, replayed: false }),
    at: row.at,
    source: row.source,
    status: row.status,
    total: Number(row.total),
    issuer: row.issuer,
    clientId: row.client_id,
    jti: row.jti,
    sid: row.sid,
    subject: row.subject,
    homeAccountId: row.home_account_id,
    tenantId: row.tenant_id,
    reason: row.reason,
    actor: row.actor,
    requestHash: row.request_hash,
    finishedAt: row.finished_at
  }
}

async function translate<T>(work: () => Promise<T>): Promise<T> {
  try {
    return await work()
  } catch (error) {
    throw new UnavailableError(codeOf(error), { cause: error })
  }
}

export type ConnectionFault =
  | 'url'
  | 'tls'
  | 'refused'
  | 'credentials'
  | 'missing'
  | 'privileges'
  | 'full'
  | 'unreachable'

/** Why no connection could be had, of an error that any function of the store threw. */
export function connectionFault(error: unknown): ConnectionFault {
  const cause = error instanceof UnavailableError ? error.cause : error
  if (!(cause instanceof Error)) {
    return 'unreachable'
  }
  const code = 'code' in cause ? String(cause.code) : ''
  if (code === 'ERR_INVALID_URL') {
    return 'url'
  }
  // The names of OpenSSL's verdicts; a file that `sslrootcert` and the like name; a server that offers no TLS.
  if (
    /^(EPROTO$|ERR_TLS|ERR_SSL|ERR_OSSL|CERT_|DEPTH_ZERO_|SELF_SIGNED_|UNABLE_TO_)/.test(code) ||
    ('syscall' in cause && cause.syscall === 'open') ||
    (code === '' && cause.message.includes('SSL'))
  ) {
    return 'tls'
  }
  if (code === '28000' && cause.message.includes('pg_hba.conf')) {
    return 'refused'
  }
  // pg itself refuses to go on without a password where the server wants one.
  if (/^28/.test(code) || (code === '' && cause.message.includes('password'))) {
    return 'credentials'
  }
  const faults: Readonly<Record<string, ConnectionFault>> = {
    '3D000': 'missing',
    '42501': 'privileges',
    '53300': 'full'
  }
  return faults[code] ?? 'unreachable'
}

// What the database refuses counts as the surroundings' fault, too: it may be a schema that is not up to date, and no
// logout may be lost to that.
function codeOf(error: unknown): UnavailableError['code'] {
  if (isOutage(error)) {
    return 'ERR_DATABASE_UNAVAILABLE'
  }
  // serialization_failure, deadlock_detected: the same again may well succeed
  return error instanceof DatabaseError && /^(40001|40P01)$/.test(error.code ?? '')
    ? 'ERR_DATABASE_CONFLICT'
    : 'ERR_DATABASE_FAILED'
}

/**
 * Whether the database as a whole is out of reach, so that trying again at once is of no use: an error of the
 * socket or the pool, or by SQLSTATE class 08 connection, 25006 read-only standby, 25P03 and 25P04 cut off by a
 * timeout, 28 and 3D refused at the door, 53 resources, 55000 not while it recovers, 57 operator intervention and
 * statement timeout, 58 system.
 */
function isOutage(error: unknown): boolean {
  return !(error instanceof DatabaseError) || /^(08|25006|25P0[34]|28|3D|53|55000|57|58)/.test(error.code ?? '')
}

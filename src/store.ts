import { setTimeout as delay } from 'node:timers/promises'
import { type ExpressionBuilder, Kysely, sql } from 'kysely'
import type pg from 'pg'
import { limitedDialect, runStatement } from './connections.ts'
import { translateErrors } from './database.ts'
import { UnavailableError } from './errors.ts'
import type { NearMiss, NearQuery } from './near-misses.ts'
import { defaultSchema, schemaName } from './schema-name.ts'
import type { Account, ClientCounts, CommitOrders, Deleted, Order, SignOutResult } from './sign-out.ts'

/** An operator's purge of a whole app or tenant: exactly one of the two ids. */
export interface SweepRequest {
  readonly id: string
  readonly source: string
  readonly clientId?: string | undefined
  readonly tenantId?: string | undefined
  readonly reason: string
  readonly actor: string
  readonly dryRun: boolean
  readonly maxAccounts: number
  /** What an Idempotency-Key stands for, in hexadecimal. */
  readonly requestHash: string
}

export type SweepOutcome = 'running' | 'dry_run' | 'duplicate' | 'too_many'

/** `more`, `held`: another step is due, and in `held` somebody held all its rows. `busy`: another instance is at it, or it is over. */
export type SweepStep = 'more' | 'held' | 'done' | 'busy'

/** What a sign-out or a purge did, and why. */
export interface StoredRecord extends Deleted {
  readonly id: string
  readonly at: Date
  readonly source: string
  /** `running`: a sweep, or a sign-out in steps, that is not over. */
  readonly status: 'running' | 'done'
  /** Of a sweep: the accounts that matched when it began. */
  readonly total: number
  readonly issuer: string | null
  readonly clientId: string | null
  readonly jti: string | null
  readonly sid: string | null
  readonly subject: string | null
  readonly homeAccountId: string | null
  readonly tenantId: string | null
  readonly objectId: string | null
  /** What was issued up to then was ended. */
  readonly revokeBefore: Date | null
  readonly reason: string | null
  readonly actor: string | null
  readonly requestHash: string | null
  readonly matched: readonly Account[]
  readonly finishedAt: Date | null
}

export interface RecordFilter {
  readonly source?: string | undefined
  /** The exact issuer. */
  readonly issuer?: string | undefined
  /** A home account id: of an account that was matched, or named. */
  readonly account?: string | undefined
  /** The operator. */
  readonly actor?: string | undefined
  /** Leaves out what no operator ordered. A source of operators alone is found quickly by it, among all the others. */
  readonly hasActor?: boolean | undefined
  readonly limit: number
  /** The id of the last record seen. */
  readonly before?: string | undefined
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
  readonly tenantId: string | null
  readonly objectId: string | null
  readonly issuedAt: Date
  readonly createdAt: Date
  readonly expiresAt: Date
}

/** By what an account is looked up. */
export type AccountQuery =
  | { readonly issuer: string; readonly sid: string }
  | { readonly issuer: string; readonly subject: string }
  | { readonly tenantId: string; readonly objectId: string }

/** How many sessions an app has stored under an issuer. */
export interface StoredSessions {
  readonly issuer: string
  readonly clientId: string
  readonly sessions: number
  readonly withoutSid: number
}

export interface MinuteCount {
  /** The start of the minute. */
  readonly at: Date
  readonly source: string
  readonly count: number
}

export interface StoreOptions {
  /**
   * Connections as a role that `register_service` has given its rights, with limits as `createPool` sets them; the caller ends
   * them.
   */
  readonly pool: pg.Pool
  /** Default `msal_logout`. */
  readonly schema?: string | undefined
}

export type Store = ReturnType<typeof createStore>

interface Tables {
  token_cache: {
    client_id: string
    partition_key: string
    kind: 'user' | 'obo' | 'app'
    account_issuer: string
    home_account_id: string | null
    tenant_id: string | null
    payload_bytes: number
    created_at: Date
    updated_at: Date
    expires_at: Date
  }
  sessions: {
    issuer: string
    session_key: string
    client_id: string
    sid: string | null
    subject: string
    account_issuer: string
    home_account_id: string
    oid: string | null
    tid: string | null
    issued_at: string
    created_at: Date
    expires_at: Date
  }
  records: {
    id: string
    at: Date
    source: string
    issuer: string | null
    client_id: string | null
    jti: string | null
    sid: string | null
    subject: string | null
    home_account_id: string | null
    tenant_id: string | null
    object_id: string | null
    revoke_before: string | null
    reason: string | null
    actor: string | null
    status: 'running' | 'unfinished' | 'done'
    request_hash: Buffer | null
    account_issuers: string[]
    account_ids: string[]
    total: string
    accounts: string
    sessions: string
    rows: string
    clients: string[]
    client_accounts: number[] | null
    client_sessions: number[]
    client_rows: number[]
    finished_at: Date | null
  }
}

// 16 MB, some 50,000 sessions: a tenth of a second, also if nothing of it is in memory.
const maxPagesCounted = 2_000
const maxTenantsSearched = 1_000
// A vacuum has a table to itself for a moment, when it cuts off empty pages.
const lockedForMs = 500
/** What a sign-out writes. */
const writtenTables = ['token_cache', 'sessions', 'tombstones', 'records', 'seen_orders', 'apps', 'revoked_sessions']
/** Those that let nobody write: of VACUUM FULL, CREATE INDEX, ALTER TABLE and LOCK TABLE. */
const tableLocks = ['ShareLock', 'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock']

/**
 * What the service asks of the schema: its functions by `pg`, what operators read by Kysely.
 *
 * @returns functions that each throw {@link UnavailableError}: the database is out of reach, rejects, or had another transaction win
 */
export function createStore({ pool, schema = defaultSchema }: StoreOptions) {
  const name = schemaName(schema)
  const tables = new Kysely<Tables>({ dialect: limitedDialect(pool) }).withSchema(name)

  /** A named statement: a connection parses it once. */
  async function call<Row extends object>(statement: string, text: string, values: unknown[]): Promise<Row[]> {
    return translateErrors(() => runStatement<Row>(pool, { name: `${name}.${statement}`, text, values }))
  }

  const commitOrders: CommitOrders = async (orders, { isPatient }) => {
    const byId = new Map(orders.map((order) => [order.id, order]))
    const rows = await call<SignedOutRow>('sign_out', `select * from ${name}.sign_out($1, $2)`, [
      batchOf([...byId.values()]),
      isPatient
    ])
    const results = new Map(rows.map((row) => [row.id, row]))
    return orders.map(({ id }) => {
      const row = results.get(id)
      if (row?.outcome === 'unfinished') {
        return { outcome: row.outcome }
      }
      const result = resultOf(id, row)
      const isFirst = byId.delete(id)
      return isFirst || result.outcome !== 'done'
        ? result
        : { ...result, outcome: 'duplicate', sessions: 0, rows: 0, byClient: {} }
    })
  }

  async function readState() {
    const [row] = await call<{ writable: boolean; callable: boolean | null; locked: boolean }>(
      'read_state',
      `select not pg_is_in_recovery() and current_setting('transaction_read_only') = 'off' as writable,
        has_function_privilege(to_regprocedure($1), 'execute') as callable,
        exists (
          select from pg_locks l
          where l.relation = any ($2::regclass[]) and l.granted and l.mode = any ($3)
            and l.database = (select d.oid from pg_database d where d.datname = current_database())
        ) as locked`,
      [
        `${name}.sign_out(${name}.signal_order[], boolean)`,
        writtenTables.map((table) => `${name}.${table}`),
        tableLocks
      ]
    )
    return row
  }

  return {
    /** Carries out many orders in one transaction; the results stand in the order of the orders. */
    commitOrders,

    /** Those of the orders that would delete more than so many rows and sessions. */
    async findLarge(orders: readonly Order[], maxDeletions: number): Promise<string[]> {
      const rows = await call<{ id: string }>('find_large', `select ${name}.find_large($1, $2) as id`, [
        batchOf(orders),
        maxDeletions
      ])
      return rows.map(({ id }) => id)
    },

    /**
     * Deletes at most so much of what an order ends; undefined: another step is due. Waits for each lock so long, by default as long as the
     * connection allows.
     */
    async commitStep(order: Order, maxDeletions: number, lockWaitMs?: number): Promise<SignOutResult | undefined> {
      const [row] = await call<SignedOutRow>(
        'sign_out_step',
        `select * from ${name}.sign_out_step(($1::${name}.signal_order[])[1], $2, $3)`,
        [batchOf([order]), maxDeletions, lockWaitMs]
      )
      return row?.outcome === 'more' ? undefined : resultOf(order.id, row)
    },

    /** What {@link commitStep} has begun, and has made no step of for so long, the oldest first; with the time of its first step. */
    async unfinishedOrders(idleMs: number): Promise<{ readonly order: Order; readonly at: Date }[]> {
      const rows = await call<{ at: Date; members: OrderMembers }>(
        'unfinished_orders',
        `select r.at, to_jsonb(r.order_in_steps) as members from ${name}.records r
          where r.status <> 'done' and r.status = 'unfinished' and (r.stepped_at < clock_timestamp() - $1 * interval '1 millisecond' or r.stepped_at > clock_timestamp() + interval '1 minute')
          order by r.at`,
        [idleMs]
      )
      return rows.map(({ at, members }) => ({ at, order: orderOf(members) }))
    },

    /** What {@link commitStep} would delete in all. It locks nothing, and waits for nobody. What has begun counts as a duplicate. */
    async previewOrder(order: Order): Promise<SignOutResult> {
      const [row] = await call<Omit<SignedOutRow, 'id'>>(
        'preview_order',
        `select * from ${name}.preview_order(($1::${name}.signal_order[])[1])`,
        [batchOf([order])]
      )
      return resultOf(order.id, row)
    },

    /** Wakes the listeners of the apps. After the commit: what fails here is not the sign-out's. */
    async notifyApps(): Promise<void> {
      await call('notify', 'select pg_notify($1, $2)', [name, '']) // anybody who is connected can listen
    },

    /** Begins a sweep, or counts what it would delete. */
    async startSweep(sweep: SweepRequest): Promise<Deleted & { readonly outcome: SweepOutcome }> {
      const [row] = await call<CountsRow & { outcome: SweepOutcome; accounts: string | null }>(
        'start_sweep',
        `select * from ${name}.start_sweep($1, $2, $3, $4, $5, $6, $7, $8, $9)`,
        [
          sweep.id,
          sweep.source,
          sweep.clientId,
          sweep.tenantId,
          sweep.reason,
          sweep.actor,
          sweep.dryRun,
          sweep.maxAccounts,
          Buffer.from(sweep.requestHash, 'hex')
        ]
      )
      if (row === undefined) {
        throw new Error(`start_sweep returned nothing for "${sweep.id}"`)
      }
      return { outcome: row.outcome, accounts: Number(row.accounts), ...countsOf(row) }
    },

    async sweepStep(id: string, maxRows: number): Promise<SweepStep> {
      const [row] = await call<{ outcome: SweepStep }>('sweep_step', `select ${name}.sweep_step($1, $2) as outcome`, [
        id,
        maxRows
      ])
      return row?.outcome ?? 'busy'
    },

    /** Removes what has expired, in a small step: how many went, or null while another instance is at it. */
    async cleanUp(maxRows: number): Promise<number | null> {
      const [row] = await call<{ gone: string | null }>('clean_up', `select ${name}.clean_up($1) as gone`, [maxRows])
      return row?.gone == null ? null : Number(row.gone)
    },

    /** The ids of the sweeps that are not over, the oldest first. */
    async runningSweeps(): Promise<string[]> {
      const rows = await translateErrors(() =>
        tables.selectFrom('records').select('id').where('status', '=', 'running').orderBy('at').execute()
      )
      return rows.map(({ id }) => id)
    },

    async findRecord(id: string): Promise<StoredRecord | undefined> {
      const row = await translateErrors(() =>
        tables.selectFrom('records').selectAll().where('id', '=', id).executeTakeFirst()
      )
      return row === undefined ? undefined : toRecord(row)
    },

    /** The newest first. Undefined if no record has the id in `before`. */
    async listRecords(filter: RecordFilter): Promise<StoredRecord[] | undefined> {
      const { source, issuer, account, actor, hasActor = false, limit, before } = filter
      return translateErrors(async () => {
        // Compared in the database: a Date has no microseconds.
        const seen = tables
          .selectFrom('records as b')
          .select(['b.at', 'b.id'])
          .where('b.id', '=', before ?? '')
        if (before !== undefined && (await seen.executeTakeFirst()) === undefined) {
          return undefined
        }
        const rows = await tables
          .selectFrom(
            tables
              .selectFrom('records as a')
              .selectAll()
              // `offset 0` keeps records_account and records_named: the order below has an index, too, and all would be read by it.
              .$if(account !== undefined, (q) =>
                q.where(sql<boolean>`(a.account_ids @> array[${account}] or a.home_account_id = ${account})`).offset(0)
              )
              .as('r')
          )
          .selectAll()
          .$if(hasActor, (q) => q.where('r.actor', 'is not', null)) // keeps records_actor
          .$if(source !== undefined, (q) => q.where('r.source', '=', source ?? ''))
          .$if(issuer !== undefined, (q) => q.where('r.issuer', '=', issuer ?? ''))
          .$if(actor !== undefined, (q) => q.where('r.actor', '=', actor ?? ''))
          .$if(before !== undefined, (q) => q.where(sql<boolean>`(r.at, r.id) < (${seen})`))
          .orderBy('r.at', 'desc')
          .orderBy('r.id', 'desc')
          .limit(limit)
          .execute()
        return rows.map(toRecord)
      })
    },

    /**
     * How many records there are of each of the last minutes, this one included, that have any; `isComplete` is false if there are
     * more than `limit`, and only the newest were counted.
     */
    async recordsPerMinute(minutes: number, limit: number): Promise<{ counts: MinuteCount[]; isComplete: boolean }> {
      const minuteOf = sql<Date>`date_trunc('minute', n.at)`
      const rows = await translateErrors(() =>
        tables
          .selectFrom(
            tables
              .selectFrom('records as r')
              .select(['r.at', 'r.source'])
              .where(sql<boolean>`r.at >= date_trunc('minute', now()) - (${minutes}::int - 1) * interval '1 minute'`)
              .orderBy('r.at', 'desc')
              .limit(limit)
              .as('n')
          )
          .select([minuteOf.as('at'), 'n.source', sql<string>`count(*)`.as('count')])
          .groupBy([minuteOf, 'n.source'])
          .execute()
      )
      const counts = rows.map(({ count, ...minute }) => ({ ...minute, count: Number(count) }))
      return { counts, isComplete: counts.reduce((sum, { count }) => sum + count, 0) < limit }
    },

    /**
     * The stored sessions by issuer and app, and those without a sid. Of a table with more pages than `maxPages` a sample
     * is read, and the counts are estimates.
     */
    async countSessions(maxPages = maxPagesCounted): Promise<{ counts: StoredSessions[]; isEstimate: boolean }> {
      const [size] = await call<{ pages: number }>(
        'count_pages',
        `select (pg_relation_size($1::regclass) / current_setting('block_size')::int)::float8 as pages`,
        [`${name}.sessions`]
      )
      const share = Math.min(1, maxPages / Math.max(1, size?.pages ?? 1))
      const rows = await call<{ issuer: string; client_id: string; sessions: string; without_sid: string }>(
        'count_sessions',
        `select s.issuer, s.client_id, count(*) as sessions, count(*) filter (where s.sid is null) as without_sid
          from ${name}.sessions s tablesample system ($1)
          group by s.issuer, s.client_id`,
        [share * 100]
      )
      const whole = (count: string) => Math.round(Number(count) / share)
      return {
        counts: rows.map((row) => ({
          issuer: row.issuer,
          clientId: row.client_id,
          sessions: whole(row.sessions),
          withoutSid: whole(row.without_sid)
        })),
        isEstimate: share < 1
      }
    },

    /** The oldest `limit` rows and as many sessions; with `issuer` that issuer's account alone, if the id is a bare subject. */
    async findAccount(homeAccountId: string, issuer: string | undefined, limit: number): Promise<StoredAccount> {
      return translateErrors(async () => {
        const [rows, sessions] = await Promise.all([
          tables
            .selectFrom('token_cache as t')
            .select(['t.client_id', 't.partition_key', 't.kind', 't.account_issuer', 't.payload_bytes'])
            .select(['t.created_at', 't.updated_at', 't.expires_at'])
            .where('t.home_account_id', '=', homeAccountId)
            .$if(issuer !== undefined, (q) =>
              q.where(sql<boolean>`(t.account_issuer = ${issuer} or t.account_issuer like '%/*')`)
            )
            .orderBy('t.client_id')
            .orderBy('t.created_at')
            .orderBy('t.partition_key')
            .limit(limit)
            .execute(),
          tables
            .selectFrom('sessions as s')
            .select(['s.client_id', 's.issuer', 's.sid', 's.subject', 's.tid', 's.oid', 's.created_at', 's.expires_at'])
            .select(sql<Date>`to_timestamp(s.issued_at)`.as('issued_at'))
            .where('s.home_account_id', '=', homeAccountId)
            .$if(issuer !== undefined, (q) =>
              q.where(sql<boolean>`(s.account_issuer = ${issuer} or s.account_issuer like '%/*')`)
            )
            .orderBy('s.client_id')
            .orderBy('s.created_at')
            .orderBy('s.session_key')
            .limit(limit)
            .execute()
        ])
        return { rows: rows.flatMap(toStoredRow), sessions: sessions.map(toStoredSession) }
      })
    },

    /** The accounts of a session, a subject or a directory object. */
    async findAccounts(query: AccountQuery, limit: number): Promise<Account[]> {
      const rows = await translateErrors(() =>
        tables
          .selectFrom('sessions as s')
          .select(['s.home_account_id', 's.account_issuer'])
          .distinct()
          .where((e) => isOf(e, query))
          .orderBy('s.home_account_id')
          .orderBy('s.account_issuer')
          .limit(limit)
          .execute()
      )
      return rows.map((row) => toAccount(row.account_issuer, row.home_account_id))
    },

    /** What is stored and comes close to what was named; each way by an index of its own. */
    async findNear({ values, swapped, uids, kind }: NearQuery, limit: number): Promise<NearMiss[]> {
      const none =
        'null::text as home_account_id, null::text as issuer, null::text as client_id, null::text as tenant_id, null::boolean as is_exact'
      const account =
        'home_account_id, null::text as issuer, null::text as client_id, null::text as tenant_id, null::boolean as is_exact'
      const texts: Record<NearQuery['kind'], readonly string[]> = {
        account: [
          ...['sessions', 'token_cache'].flatMap((table) => [
            `select 'case' as because, ${account} from ${name}.${table} where home_account_id = any($1)`,
            `select 'swapped', ${account} from ${name}.${table} where home_account_id = any($2)`,
            `select 'uid', ${account} from unnest($3::text[]) u join ${name}.${table}
              on home_account_id >= u || '.' and home_account_id < u || '/'`
          ]),
          // Tenant by tenant, as sessions_object has them: to find an oid in all of it would read it whole.
          `select 'object', s.home_account_id, null, null, s.tid, null from (
            with recursive tenants as (
              (select tid, 1 as n from ${name}.sessions where oid is not null order by tid limit 1)
              union all
              select (select s.tid from ${name}.sessions s where s.oid is not null and s.tid > t.tid order by s.tid limit 1), t.n + 1
              from tenants t where t.tid is not null and t.n < ${maxTenantsSearched}
            )
            select tid from tenants where tid is not null
          ) t cross join lateral (
            select home_account_id, tid from ${name}.sessions where tid = t.tid and oid = any($1) offset 0
          ) s`,
          `select 'subject', home_account_id, issuer, null, null, subject = ($1::text[])[1] from ${name}.sessions where subject = any($1)`,
          `select 'sid', s.home_account_id, s.issuer, null, null, v = ($1::text[])[1] from unnest($1::text[]) v cross join lateral (
            select home_account_id, issuer from ${name}.sessions where session_key = 'sid=' || v offset 0
          ) s`
        ],
        client: [
          `select 'client' as because, ${none.replace('null::text as client_id', 'client_id')}
          from ${name}.token_cache where client_id = any($1)`
        ],
        tenant: [
          `select 'tenant' as because, ${none.replace('null::text as tenant_id', 'tenant_id')}
          from ${name}.token_cache where tenant_id = any($1)`
        ]
      }
      // `limit` before `distinct`, of each: an app has many rows.
      const limited = texts[kind].map((text) => `(${text} limit 100)`)
      const parameters = kind === 'account' ? [values, swapped, uids] : [values]
      const rows = await call<
        { because: NearMiss['because']; is_exact: boolean | null } & Record<
          'home_account_id' | 'issuer' | 'client_id' | 'tenant_id',
          string | null
        >
      >(
        `find_near_${kind}`,
        `select distinct on (n.home_account_id, n.client_id, n.tenant_id) n.* from (${limited.join(' union all ')}) n
          order by n.home_account_id, n.client_id, n.tenant_id limit ${limit}`,
        parameters
      )
      return rows.map(({ because, home_account_id, issuer, client_id, tenant_id, is_exact }) => ({
        because,
        homeAccountId: home_account_id,
        issuer,
        clientId: client_id,
        tenantId: tenant_id,
        isExact: is_exact !== false
      }))
    },

    /** The issuers, '' for those of ids from client info, under which there are rows or sessions of this account. */
    async issuersOfAccount(homeAccountId: string): Promise<string[]> {
      const rows = await translateErrors(() =>
        tables
          .selectFrom('token_cache as t')
          .select('t.account_issuer')
          .where('t.home_account_id', '=', homeAccountId)
          .union(
            tables.selectFrom('sessions as s').select('s.account_issuer').where('s.home_account_id', '=', homeAccountId)
          )
          .execute()
      )
      return [...new Set(rows.map((row) => issuerOfBareSubject(row.account_issuer) ?? ''))]
    },

    /** The issuers under which a session of this sid is stored. */
    async issuersOfSid(sid: string): Promise<string[]> {
      const rows = await translateErrors(() =>
        tables
          .selectFrom('sessions as s')
          .select('s.issuer')
          .distinct()
          .where('s.session_key', '=', `sid=${sid}`)
          .execute()
      )
      return rows.map(({ issuer }) => issuer)
    },

    /** What the schema is made of: its newest migration, and the release that its functions are of. */
    async schemaVersion(): Promise<{ readonly migration: string; readonly functions: string }> {
      const [row] = await call<{ migration: string | null; functions: string | null }>(
        'schema_version',
        `select (select max(m.name) from ${name}.migrations m) as migration,
          (select max(f.version) from ${name}.functions f) as functions`,
        []
      )
      return { migration: row?.migration ?? 'none', functions: row?.functions ?? 'none' }
    },

    /**
     * @throws {UnavailableError} if the database is out of reach, is a standby that takes no writes, or lets no sign-out be done: also as
     *   long as somebody has a whole table locked
     */
    async checkReady(): Promise<void> {
      const state = await readState()
      if (state?.writable !== true) {
        throw new UnavailableError('ERR_DATABASE_UNAVAILABLE')
      }
      if (state.callable !== true) {
        throw new UnavailableError('ERR_DATABASE_FAILED')
      }
      if (state.locked) {
        await delay(lockedForMs)
        if ((await readState())?.locked) {
          throw new UnavailableError('ERR_DATABASE_LOCKED')
        }
      }
    }
  }
}

function isOf(e: ExpressionBuilder<{ s: Tables['sessions'] }, 's'>, query: AccountQuery) {
  if ('objectId' in query) {
    return e.and([e('s.oid', '=', query.objectId.toLowerCase()), e('s.tid', '=', query.tenantId.toLowerCase())])
  }
  return 'sid' in query
    ? e.and([e('s.issuer', '=', query.issuer), e('s.session_key', '=', `sid=${query.sid}`)])
    : e.and([e('s.issuer', '=', query.issuer), e('s.subject', '=', query.subject)])
}

interface CountsRow {
  /** Null, as what follows, if nothing was counted. */
  sessions: string | null
  rows: string | null
  by_client: Record<string, ClientCounts> | null
}

/** Side by side: what went in an app of one of the accounts; or, with `client_accounts`, of so many. */
interface ClientColumns {
  clients: string[]
  client_accounts?: number[] | null
  client_sessions: number[]
  client_rows: number[]
}

interface SignedOutRow extends ClientColumns {
  id: string
  /** `unfinished`: steps are at it. `more`: a step of several. */
  outcome: SignOutResult['outcome'] | 'unfinished' | 'more'
  account_issuers: string[]
  account_ids: string[]
}

/** Orders as the function `sign_out` takes them. */
export function batchOf(orders: readonly Order[]): string {
  return `{${orders.map((order) => quoted(`(${membersOf(order).map(toText).join(',')})`)).join(',')}}`
}

function toText(value: string | number | boolean | undefined): string {
  return typeof value === 'string' ? quoted(value) : String(value ?? '')
}

// Within quotes a backslash stands before what would end them, in composite values and in arrays alike.
function quoted(text: string): string {
  return `"${text.replace(/["\\]/g, '\\$&')}"`
}

// In the order of the SQL type `signal_order`.
function membersOf(order: Order): (string | number | boolean | undefined)[] {
  const { selector } = order
  return [
    order.id,
    order.source,
    selector.kind,
    'issuer' in selector ? selector.issuer : undefined,
    'sid' in selector ? selector.sid : undefined,
    'subject' in selector ? selector.subject : undefined,
    selector.kind === 'account' ? selector.homeAccountId : undefined,
    selector.kind === 'object' ? selector.tenantId.toLowerCase() : undefined,
    selector.kind === 'object' ? selector.objectId.toLowerCase() : undefined,
    order.clientId,
    order.jti,
    order.revokeBefore,
    order.purgeScope,
    order.sparesNewer,
    order.isOnce,
    order.recordUnmatched,
    order.rememberSeconds,
    order.reason,
    order.actor,
    order.requestHash === undefined ? undefined : `\\x${order.requestHash}`
  ]
}

/** `signal_order` as JSON. */
interface OrderMembers {
  id: string
  source: string
  selector: Order['selector']['kind']
  issuer: string | null
  sid: string | null
  subject: string | null
  home_account_id: string | null
  tenant_id: string | null
  object_id: string | null
  client_id: string | null
  jti: string | null
  revoke_before: number
  purge_scope: Order['purgeScope']
  spares_newer: boolean
  once: boolean
  record_unmatched: boolean
  remember_seconds: number
  reason: string | null
  actor: string | null
  request_hash: string | null
}

function orderOf(members: OrderMembers): Order {
  return {
    id: members.id,
    source: members.source,
    selector: selectorOf(members),
    revokeBefore: members.revoke_before,
    purgeScope: members.purge_scope,
    sparesNewer: members.spares_newer,
    isSigned: true, // nobody else's turn depends on it any more
    isOnce: true, // what another process has finished meanwhile is not begun anew
    recordUnmatched: members.record_unmatched,
    rememberSeconds: members.remember_seconds,
    clientId: members.client_id ?? undefined,
    jti: members.jti ?? undefined,
    reason: members.reason ?? undefined,
    actor: members.actor ?? undefined,
    requestHash: members.request_hash?.replace(/^\\x/, '')
  }
}

function selectorOf(members: OrderMembers): Order['selector'] {
  const { selector: kind, tenant_id, object_id, home_account_id } = members
  const issuer = members.issuer ?? ''
  switch (kind) {
    case 'session':
      return { kind, issuer, sid: members.sid ?? '', subject: members.subject ?? undefined }
    case 'subject':
      return { kind, issuer, subject: members.subject ?? '', sid: members.sid ?? undefined }
    case 'account':
      return { kind, homeAccountId: home_account_id ?? '', issuer: members.issuer ?? undefined }
    case 'object':
      return { kind, tenantId: tenant_id ?? '', objectId: object_id ?? '' }
  }
}

function resultOf(id: string, row: Omit<SignedOutRow, 'id'> | undefined): SignOutResult {
  if (row === undefined) {
    throw new Error(`sign_out returned nothing for "${id}"`)
  }
  const { outcome } = row
  if (outcome === 'unfinished' || outcome === 'more') {
    throw new Error(`the order "${id}" is not finished`)
  }
  const matched = accountsOf(row)
  return {
    id,
    outcome,
    matched,
    accounts: matched.length,
    sessions: sumOf(row.client_sessions),
    rows: sumOf(row.client_rows),
    byClient: byClientOf(row)
  }
}

function byClientOf({ clients, client_accounts, client_sessions, client_rows }: ClientColumns): Deleted['byClient'] {
  const byClient = new Map<string, ClientCounts>()
  for (const [i, clientId] of clients.entries()) {
    const { accounts, sessions, rows } = byClient.get(clientId) ?? { accounts: 0, sessions: 0, rows: 0 }
    byClient.set(clientId, {
      accounts: accounts + (client_accounts?.[i] ?? 1),
      sessions: sessions + (client_sessions[i] ?? 0),
      rows: rows + (client_rows[i] ?? 0)
    })
  }
  return Object.fromEntries([...byClient].sort(([a], [b]) => (a < b ? -1 : 1)))
}

function sumOf(counts: readonly number[]): number {
  return counts.reduce((sum, count) => sum + count, 0)
}

function countsOf({ sessions, rows, by_client }: CountsRow): Omit<Deleted, 'accounts'> {
  return { sessions: Number(sessions), rows: Number(rows), byClient: by_client ?? {} }
}

function accountsOf({ account_issuers, account_ids }: { account_issuers: string[]; account_ids: string[] }): Account[] {
  return account_ids.map((id, i) => toAccount(account_issuers[i] ?? '', id))
}

function toAccount(issuer: string, homeAccountId: string): Account {
  return { homeAccountId, issuer: issuerOfBareSubject(issuer) }
}

/** Undefined of an id from client info, which the database keeps by its group of issuers: `<origin>/*`. */
function issuerOfBareSubject(accountIssuer: string): string | undefined {
  return accountIssuer === '' || accountIssuer.endsWith('/*') ? undefined : accountIssuer
}

function toRecord(row: Tables['records']): StoredRecord {
  return {
    id: row.id,
    at: row.at,
    source: row.source,
    status: row.status === 'done' ? 'done' : 'running',
    total: Number(row.total),
    accounts: Number(row.accounts),
    sessions: Number(row.sessions),
    rows: Number(row.rows),
    byClient: byClientOf(row),
    issuer: row.issuer,
    clientId: row.client_id,
    jti: row.jti,
    sid: row.sid,
    subject: row.subject,
    homeAccountId: row.home_account_id,
    tenantId: row.tenant_id,
    objectId: row.object_id,
    revokeBefore: row.revoke_before === null ? null : new Date(Number(row.revoke_before) * 1_000),
    reason: row.reason,
    actor: row.actor,
    requestHash: row.request_hash?.toString('hex') ?? null,
    matched: accountsOf(row),
    finishedAt: row.finished_at
  }
}

type RowColumns = Omit<Tables['token_cache'], 'home_account_id' | 'tenant_id'>

/** An app's own rows belong to no account. */
function toStoredRow({ kind, ...row }: RowColumns): StoredRow[] {
  return kind === 'app'
    ? []
    : [
        {
          clientId: row.client_id,
          partitionKey: row.partition_key,
          kind,
          accountIssuer: issuerOfBareSubject(row.account_issuer) ?? null,
          payloadBytes: row.payload_bytes,
          createdAt: row.created_at,
          updatedAt: row.updated_at,
          expiresAt: row.expires_at
        }
      ]
}

type SessionColumns = Pick<
  Tables['sessions'],
  'client_id' | 'issuer' | 'sid' | 'subject' | 'tid' | 'oid' | 'created_at' | 'expires_at'
> & { issued_at: Date }

function toStoredSession(row: SessionColumns): StoredSession {
  return {
    clientId: row.client_id,
    issuer: row.issuer,
    sid: row.sid,
    subject: row.subject,
    tenantId: row.tid,
    objectId: row.oid,
    issuedAt: row.issued_at,
    createdAt: row.created_at,
    expiresAt: row.expires_at
  }
}

import type pg from 'pg'
import { runStatement } from './connections.ts'
import { translateErrors } from './database.ts'
import type { DirectoryEvent } from './directory-config.ts'
import { defaultSchema, schemaName } from './schema-name.ts'

/** A directory object that is in the cache. */
export interface WatchedObject {
  readonly objectId: string
  /** When the first of its ID tokens was issued, seconds since 1970. */
  readonly oldest: number
  /** Its own account is there: `<object>.<tenant>`. */
  readonly isHome: boolean
  /** An account of another tenant is, which is this object as a guest. */
  readonly isGuest: boolean
}

/**
 * `doubted`: one look more is needed. `held` by the breaker until it is `released` or `dropped`. `dry_run`: it would be done. `done`:
 * the same said later may be an old word.
 */
export type FindingStatus = 'doubted' | 'held' | 'released' | 'dropped' | 'dry_run' | 'done'

/** What a watcher has seen of an object, and what is to become of it. */
export interface StoredFinding {
  readonly objectId: string
  readonly event: DirectoryEvent
  /** Of a time that the directory names, seconds since 1970; else 0. */
  readonly revokeBefore: number
  /** What it said. */
  readonly detail: string
  readonly status: FindingStatus
  /** Milliseconds since 1970. */
  readonly seenAt: number
}

export interface DirectoryFailure {
  readonly code: string
  readonly detail: string | undefined
  readonly since: Date
  readonly at: Date
  /** In a row. */
  readonly count: number
}

/** What a round did, for operators. */
export interface RoundSummary {
  readonly kind: 'delta' | 'sweep'
  readonly at: string
  readonly seconds: number
  /** Users that were looked at, or that had changed. */
  readonly looked: number
  /** Accounts that were to be purged, by why; of some nothing may have been left. */
  readonly done: Readonly<Partial<Record<DirectoryEvent, number>>>
  /** Accounts that would be purged, and are held by the breaker or by a dry run. */
  readonly held: number
  /** Accounts that one look more is needed for. */
  readonly doubted: number
  readonly failure: string | null
}

export interface Breaker {
  readonly openedAt: Date
  readonly kind: 'delta' | 'sweep'
  /** Accounts that it would have been in one round. */
  readonly found: number
  readonly watched: number
}

/** By what a directory says that it has something new. Times are in milliseconds since 1970. */
export interface Subscription {
  /** As the directory calls it; undefined: there is none, since it could not be had. */
  readonly id: string | undefined
  /** Where it posts. */
  readonly url: string
  /** SHA-256, hexadecimal, of the secret that each of its notifications bears. */
  readonly clientStateHash: string
  readonly expiresAt: number
  /** When it is to be looked after again. */
  readonly dueAt: number
  /** The directory has asked for it. */
  readonly isRenewalWanted?: boolean | undefined
  /** Why it could not be made or renewed; undefined: it is well. */
  readonly failure?: { readonly code: string; readonly detail: string | undefined } | undefined
}

/** How far the watcher of a tenant is, at whichever instance. */
export interface DirectoryState {
  readonly tenantId: string
  readonly deltaLink: string | undefined
  /** What the link was made with. */
  readonly settings: string | undefined
  /** When a delta query last answered. */
  readonly deltaAt: Date | undefined
  readonly deltaFailure: DirectoryFailure | undefined
  readonly sweptAt: Date | undefined
  readonly sweepFailure: DirectoryFailure | undefined
  /** When all was last well. */
  readonly goodAt: Date | undefined
  /** Objects in the cache, as of the last sweep. */
  readonly watched: number | undefined
  /** Accounts that no sweep finds. */
  readonly unwatched: number | undefined
  readonly rounds: readonly RoundSummary[]
  readonly breaker: Breaker | undefined
  readonly subscription: Subscription | undefined
}

/** A directory, and whether this instance is to do something about it. */
export interface Claim {
  readonly isMine: boolean
  readonly isDue: boolean
  readonly isSweepDue: boolean
  readonly state: DirectoryState
}

interface RoundEnd {
  readonly nextSeconds: number
  readonly failure: { readonly code: string; readonly detail: string | undefined } | undefined
  readonly summary: RoundSummary | undefined
}

export interface DeltaEnd extends RoundEnd {
  readonly kind: 'delta'
  /** What came before it is committed; undefined: there are no delta queries. */
  readonly link: string | undefined
  readonly settings: string
  /** What the link does not show is to be looked for. */
  readonly forcesSweep: boolean
}

export interface SweepEnd extends RoundEnd {
  readonly kind: 'sweep'
  readonly round: string
  readonly watched: number
  readonly unwatched: number
}

export type DirectoryStore = ReturnType<typeof createDirectoryStore>

/**
 * What the watchers of directories ask of the schema. Every function throws {@link UnavailableError} as those of the store do.
 *
 * @param options.pool as the store's
 */
export function createDirectoryStore({
  pool,
  schema = defaultSchema
}: {
  readonly pool: pg.Pool
  readonly schema?: string | undefined
}) {
  const name = schemaName(schema)

  async function call<Row extends object>(statement: string, text: string, values: unknown[]): Promise<Row[]> {
    return translateErrors(() => runStatement<Row>(pool, { name: `${name}.${statement}`, text, values }))
  }

  return {
    /** Takes or renews the leases that can be had, and returns how every directory stands. */
    async claim(tenantIds: readonly string[], holder: string, leaseSeconds: number): Promise<Claim[]> {
      const rows = await call<ClaimRow>('claim_directories', `select * from ${name}.claim_directories($1, $2, $3)`, [
        tenantIds,
        holder,
        leaseSeconds
      ])
      return rows.map((row) => ({
        isMine: row.is_mine,
        isDue: row.is_due,
        isSweepDue: row.is_sweep_due,
        state: stateOf(row.state)
      }))
    },

    /** How these directories stand, at whichever instance; none of one that has never been looked at. */
    async readStates(tenantIds: readonly string[]): Promise<Map<string, DirectoryState>> {
      const rows = await call<{ state: StateRow }>(
        'read_directories',
        `select to_jsonb(d) as state from ${name}.directories d where d.tenant_id = any ($1)`,
        [tenantIds]
      )
      return new Map(rows.map(({ state }) => [state.tenant_id, stateOf(state)]))
    },

    /** Gives the leases back. */
    async release(holder: string): Promise<void> {
      await call('release_directories', `select ${name}.release_directories($1)`, [holder])
    },

    /** False if another instance holds the lease. */
    async beginRound(tenantId: string, holder: string): Promise<boolean> {
      const [row] = await call<{ ok: boolean }>(
        'begin_directory_round',
        `select ${name}.begin_directory_round($1, $2) as ok`,
        [tenantId, holder]
      )
      return row?.ok === true
    },

    /** Half of a round is over; false if another instance holds the lease, and nothing is written. */
    async endRound(tenantId: string, holder: string, end: DeltaEnd | SweepEnd): Promise<boolean> {
      const { kind, nextSeconds, failure = null, summary = null } = end
      const result = {
        next_seconds: nextSeconds,
        failure,
        summary,
        ...(end.kind === 'delta'
          ? { link: end.link ?? null, settings: end.settings, forces_sweep: end.forcesSweep }
          : { round: end.round, watched: end.watched, unwatched: end.unwatched })
      }
      const [row] = await call<{ ok: boolean }>(
        'end_directory_round',
        `select ${name}.end_directory_round($1, $2, $3, $4::jsonb) as ok`,
        [tenantId, holder, kind, JSON.stringify(result)]
      )
      return row?.ok === true
    },

    /** The next objects behind `after`, in their order; fewer than `max` at the end. */
    async listWatched(tenantId: string, after: string, max: number): Promise<WatchedObject[]> {
      const rows = await call<WatchedRow>('list_watched', `select * from ${name}.list_watched($1, $2, $3)`, [
        tenantId,
        after,
        max
      ])
      return rows.map(toWatched)
    },

    /** Those of these objects that are in the cache. */
    async findWatched(tenantId: string, objectIds: readonly string[]): Promise<Map<string, WatchedObject>> {
      const rows = await call<WatchedRow>('find_watched', `select * from ${name}.find_watched($1, $2)`, [
        tenantId,
        objectIds
      ])
      return new Map(rows.map((row) => [row.object_id, toWatched(row)]))
    },

    /** How many accounts of the issuer no watcher of this tenant finds. */
    async countUnwatched(tenantId: string, issuer: string): Promise<number> {
      const [row] = await call<{ count: string }>(
        'count_unwatched',
        `select ${name}.count_unwatched($1, $2) as count`,
        [tenantId, issuer]
      )
      return Number(row?.count)
    },

    /** What is remembered of these objects. */
    async findFindings(tenantId: string, objectIds: readonly string[]): Promise<Map<string, StoredFinding>> {
      const rows = await call<FindingRow>(
        'find_findings',
        `select * from ${name}.directory_findings where tenant_id = $1 and object_id = any ($2)`,
        [tenantId, objectIds]
      )
      return new Map(rows.map((row) => [row.object_id, toFinding(row)]))
    },

    /** What is remembered with one of these statuses: the next `max` behind the object `after`. */
    async listFindings(
      tenantId: string,
      statuses: readonly FindingStatus[],
      after: string,
      max: number
    ): Promise<StoredFinding[]> {
      const rows = await call<FindingRow>(
        'list_findings',
        `select * from ${name}.directory_findings
        where tenant_id = $1 and status = any ($2) and object_id > $3 order by object_id limit $4`,
        [tenantId, statuses, after, max]
      )
      return rows.map(toFinding)
    },

    /** How many are remembered with each status. */
    async countFindings(tenantId: string): Promise<Partial<Record<FindingStatus, number>>> {
      const rows = await call<{ status: FindingStatus; count: string }>(
        'count_findings',
        `select status, count(*) from ${name}.directory_findings where tenant_id = $1 group by status`,
        [tenantId]
      )
      return Object.fromEntries(rows.map(({ status, count }) => [status, Number(count)]))
    },

    /** Remembers findings. What an operator has decided meanwhile stands. */
    async keepFindings(tenantId: string, round: string, findings: readonly StoredFinding[]): Promise<void> {
      if (findings.length > 0) {
        await call('keep_findings', `select ${name}.keep_findings($1, $2, $3::jsonb)`, [
          tenantId,
          round,
          JSON.stringify(findings.map(toMember))
        ])
      }
    },

    async dropFindings(tenantId: string, objectIds: readonly string[]): Promise<void> {
      if (objectIds.length > 0) {
        await call('drop_findings', `select ${name}.drop_findings($1, $2)`, [tenantId, objectIds])
      }
    },

    /** Opens the breaker; false if an operator has decided since the round began, or another instance holds the lease. */
    async hold(
      tenantId: string,
      holder: string,
      round: string,
      breaker: Omit<Breaker, 'openedAt'>,
      findings: readonly StoredFinding[]
    ): Promise<boolean> {
      const [row] = await call<{ ok: boolean }>(
        'hold_directory',
        `select ${name}.hold_directory($1, $2, $3, $4::jsonb, $5::jsonb) as ok`,
        [tenantId, holder, round, JSON.stringify(breaker), JSON.stringify(findings.map(toMember))]
      )
      return row?.ok === true
    },

    /** An operator's decision on an open breaker: how many objects it is about; undefined if none is open. */
    async decide(tenantId: string, decision: 'released' | 'dropped', actor: string): Promise<number | undefined> {
      const [row] = await call<{ objects: string | null }>(
        'decide_directory',
        `select ${name}.decide_directory($1, $2, $3) as objects`,
        [tenantId, decision, actor]
      )
      return row?.objects == null ? undefined : Number(row.objects)
    },

    /**
     * Has the watcher, at whichever instance, look soon.
     * @param options.renews has it renew the subscription, too; default false
     */
    async hint(tenantId: string, { renews = false }: { readonly renews?: boolean } = {}): Promise<void> {
      await call('hint_directory', `select ${name}.hint_directory($1, $2)`, [tenantId, renews])
    },

    /** Remembers the subscription, or that there is none; false if another instance holds the lease, and nothing is written. */
    async keepSubscription(tenantId: string, holder: string, subscription: Subscription | undefined): Promise<boolean> {
      const [row] = await call<{ ok: boolean }>(
        'keep_subscription',
        `select ${name}.keep_subscription($1, $2, $3::jsonb) as ok`,
        [tenantId, holder, subscription === undefined ? null : JSON.stringify(subscription)]
      )
      return row?.ok === true
    }
  }
}

interface ClaimRow {
  is_mine: boolean
  is_due: boolean
  is_sweep_due: boolean
  state: StateRow
}

interface FailureRow {
  code: string
  detail?: string
  since: string
  at: string
  count: number
}

interface StateRow {
  tenant_id: string
  delta_link: string | null
  settings: string | null
  delta_at: string | null
  delta_failure: FailureRow | null
  swept_at: string | null
  sweep_failure: FailureRow | null
  good_at: string | null
  watched: number | null
  unwatched: number | null
  rounds: RoundSummary[]
  breaker: (Omit<Breaker, 'openedAt'> & { openedAt: string }) | null
  subscription: Subscription | null
}

interface WatchedRow {
  object_id: string
  oldest: string
  is_home: boolean
  is_guest: boolean
}

interface FindingRow {
  object_id: string
  event: DirectoryEvent
  revoke_before: string
  detail: string
  status: FindingStatus
  seen_at: Date
}

function stateOf(row: StateRow): DirectoryState {
  return {
    tenantId: row.tenant_id,
    deltaLink: row.delta_link ?? undefined,
    settings: row.settings ?? undefined,
    deltaAt: dateOf(row.delta_at),
    deltaFailure: failureOf(row.delta_failure),
    sweptAt: dateOf(row.swept_at),
    sweepFailure: failureOf(row.sweep_failure),
    goodAt: dateOf(row.good_at),
    watched: row.watched ?? undefined,
    unwatched: row.unwatched ?? undefined,
    rounds: row.rounds,
    breaker: row.breaker === null ? undefined : { ...row.breaker, openedAt: new Date(row.breaker.openedAt) },
    subscription: row.subscription ?? undefined
  }
}

function failureOf(row: FailureRow | null): DirectoryFailure | undefined {
  return row === null
    ? undefined
    : {
        code: row.code,
        detail: row.detail,
        since: new Date(row.since),
        at: new Date(row.at),
        count: row.count
      }
}

function dateOf(value: string | null): Date | undefined {
  return value === null ? undefined : new Date(value)
}

function toWatched(row: WatchedRow): WatchedObject {
  return { objectId: row.object_id, oldest: Number(row.oldest), isHome: row.is_home, isGuest: row.is_guest }
}

function toFinding(row: FindingRow): StoredFinding {
  return {
    objectId: row.object_id,
    event: row.event,
    revokeBefore: Number(row.revoke_before),
    detail: row.detail,
    status: row.status,
    seenAt: row.seen_at.getTime()
  }
}

function toMember({ objectId, revokeBefore, seenAt, ...finding }: StoredFinding) {
  return { ...finding, object_id: objectId, revoke_before: revokeBefore, seen_at: new Date(seenAt).toISOString() }
}

import type pg from 'pg'
import { type Static, Type } from 'typebox'
import { Value } from 'typebox/value'
import { runStatement } from './connections.ts'
import { translateErrors } from './database.ts'
import { defaultSchema, schemaName } from './schema-name.ts'

const time = Type.String()

/** Times are in ISO 8601, as JSON has none. */
const StateSchema = Type.Object({
  /** As the transmitter calls it; missing: there is none. */
  streamId: Type.Optional(Type.String()),
  /** What the transmitter calls us. */
  audiences: Type.Optional(Type.Array(Type.String())),
  /** Where to poll. */
  pollUrl: Type.Optional(Type.String()),
  /** The URIs of the events that it will send. */
  eventsDelivered: Type.Optional(Type.Array(Type.String())),
  /** Members of a complex subject that must be understood. */
  criticalMembers: Type.Optional(Type.Array(Type.String())),
  /** `NONE`: it sends nothing of anybody who was not added there. Keycloak says so also where it is set to `ALL` for a receiver. */
  defaultSubjects: Type.Optional(Type.String()),
  minVerificationSeconds: Type.Optional(Type.Number()),
  inactivitySeconds: Type.Optional(Type.Number()),
  /** What the stream was last asked to be like. */
  settings: Type.Optional(Type.String()),
  /** `enabled`, `paused` or `disabled`, as the transmitter last said, and why. */
  status: Type.Optional(Type.String()),
  statusReason: Type.Optional(Type.String()),
  /** By an operator. */
  isPaused: Type.Optional(Type.Boolean()),
  isDeleted: Type.Optional(Type.Boolean()),
  /** Whether it can be asked for verification events. */
  canVerify: Type.Optional(Type.Boolean()),
  /** When it was last looked after, and when all was last well. */
  managedAt: Type.Optional(time),
  goodAt: Type.Optional(time),
  /** When a security event token came last. */
  heardAt: Type.Optional(time),
  /** When a verification event came last; the last ones that were asked for. */
  verifiedAt: Type.Optional(time),
  verifications: Type.Optional(Type.Array(Type.Object({ state: Type.String(), askedAt: time }))),
  failure: Type.Optional(
    Type.Object({
      code: Type.String(),
      detail: Type.Optional(Type.String()),
      since: time,
      at: time,
      /** In a row. */
      count: Type.Number()
    })
  )
})

/** How far a stream is, at whichever instance. */
export type StreamState = Static<typeof StateSchema>

/** Members to write; those that are null go. */
export type StreamPatch = { readonly [Member in keyof StreamState]?: StreamState[Member] | null }

export interface StreamClaim {
  readonly name: string
  readonly isMine: boolean
  readonly state: StreamState
}

export type StreamStore = ReturnType<typeof createStreamStore>

/**
 * What streams ask of the schema. Every function throws {@link UnavailableError} as those of the store do.
 *
 * @param options.pool as the store's
 */
export function createStreamStore({
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
    /** Takes or renews the leases that can be had, and returns how every stream stands. */
    async claim(names: readonly string[], holder: string, leaseSeconds: number): Promise<StreamClaim[]> {
      const rows = await call<{ name: string; is_mine: boolean; state: unknown }>(
        'claim_streams',
        `select * from ${name}.claim_streams($1, $2, $3)`,
        [names, holder, leaseSeconds]
      )
      return rows.map((row) => ({ name: row.name, isMine: row.is_mine, state: stateOf(row.state) }))
    },

    /** How these streams stand; none of one that has never been looked at. */
    async readStates(names: readonly string[]): Promise<Map<string, StreamState>> {
      const rows = await call<{ name: string; state: unknown }>(
        'read_streams',
        `select s.name, s.state from ${name}.streams s where s.name = any ($1)`,
        [names]
      )
      return new Map(rows.map((row) => [row.name, stateOf(row.state)]))
    },

    /**
     * Writes members of a state.
     * @param holder of the lease; null: any instance may have it
     * @returns false if another instance has the lease, and nothing is written
     */
    async patch(stream: string, holder: string | null, patch: StreamPatch): Promise<boolean> {
      const [row] = await call<{ ok: boolean }>(
        'patch_stream',
        `select ${name}.patch_stream($1, $2, $3::jsonb) as ok`,
        [stream, holder, JSON.stringify(patch)]
      )
      return row?.ok === true
    },

    /** A verification event has come; false if nobody asked for one with this state. */
    async verify(stream: string, state: string | undefined, at: Date): Promise<boolean> {
      const [row] = await call<{ ok: boolean }>('verify_stream', `select ${name}.verify_stream($1, $2, $3) as ok`, [
        stream,
        state ?? null,
        at
      ])
      return row?.ok === true
    },

    /** Gives the leases back. */
    async release(holder: string): Promise<void> {
      await call('release_streams', `select ${name}.release_streams($1)`, [holder])
    }
  }
}

function stateOf(state: unknown): StreamState {
  return Value.Check(StateSchema, state) ? state : {}
}

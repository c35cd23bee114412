import type { SessionClaims } from './contents.ts'
import type { Database } from './database.ts'
import type { Encoded } from './encoding.ts'

/** One row as it was read. */
export interface Row extends Encoded {
  readonly generation: string
  readonly version: string
}

export type RowVersion = Pick<Row, 'generation' | 'version'>

/** The SQL functions of the schema `msal_logout` for one client id. */
export type Rows = ReturnType<typeof createRows>

export interface Login {
  readonly partitionKey: string
  readonly homeAccountId: string
  readonly session: SessionClaims
  readonly kind: 'user' | 'obo'
}

export type Saved = { readonly outcome: 'saved'; readonly version: string } | { readonly outcome: 'conflict' | 'gone' }

/** A session of this app that was ended by a sign-out or a purge. */
export interface RevokedSession {
  readonly issuer: string
  /** Null where the ID token had none. */
  readonly sid: string | null
  readonly subject: string
  readonly homeAccountId: string
}

export interface RowsOptions {
  readonly database: Database
  readonly clientId: string
  readonly ttlSeconds: number
  /** Gives the statements names, so that a connection parses and plans each but once. */
  readonly preparedStatements: boolean
}

// As text: an app may have set its own parser for 64-bit numbers, one that rounds them.
const rowVersion = 'generation::text, version::text'

/** Every call is one statement and one round trip. */
export function createRows({ database, clientId, ttlSeconds, preparedStatements }: RowsOptions) {
  const ttl = `${ttlSeconds} seconds`

  function query<Row extends object>(name: string, text: string, values: unknown[]): Promise<Row[]> {
    return database.query<Row>(preparedStatements ? { name: `msal_logout_${name}`, text, values } : { text, values })
  }

  return {
    async load(partitionKey: string): Promise<Row | undefined> {
      const [row] = await query<Row>('load', `select ${rowVersion}, payload, encoding from msal_logout.load($1, $2)`, [
        clientId,
        partitionKey
      ])
      return row
    },

    /** Undefined where the session was ended. */
    async login(
      { partitionKey, homeAccountId, session, kind }: Login,
      { payload, encoding }: Encoded
    ): Promise<RowVersion | undefined> {
      const { issuer, sid, subject, issuedAt, oid, tid } = session
      const [row] = await query<{ accepted: boolean } & RowVersion>(
        'login',
        `select accepted, ${rowVersion} from msal_logout.login($1, $2, $3, $4, $5, $6, $7, $8, $9, $10::interval, $11, $12, $13)`,
        [clientId, partitionKey, homeAccountId, issuer, sid, subject, issuedAt, payload, encoding, ttl, kind, oid, tid]
      )
      return row?.accepted ? { generation: row.generation, version: row.version } : undefined
    },

    async save(
      partitionKey: string,
      { generation, version }: RowVersion,
      { payload, encoding }: Encoded
    ): Promise<Saved> {
      const [row] = await query<{ outcome: Saved['outcome']; version: string }>(
        'save',
        'select outcome, version::text from msal_logout.save($1, $2, $3, $4, $5, $6, $7::interval)',
        [clientId, partitionKey, generation, version, payload, encoding, ttl]
      )
      return row?.outcome === 'saved'
        ? { outcome: 'saved', version: row.version }
        : { outcome: row?.outcome === 'conflict' ? 'conflict' : 'gone' }
    },

    /** False where the session was ended, or the row is gone. */
    async addSession(partitionKey: string, session: SessionClaims): Promise<boolean> {
      const { issuer, sid, subject, issuedAt, oid, tid } = session
      const [row] = await query<{ added: boolean }>(
        'add_session',
        'select msal_logout.add_session($1, $2, $3, $4, $5, $6, $7, $8) as added',
        [clientId, partitionKey, issuer, sid, subject, issuedAt, oid, tid]
      )
      return row?.added === true
    },

    async forget(partitionKey: string, generation: string): Promise<boolean> {
      const [row] = await query<{ forgotten: boolean }>(
        'forget',
        'select msal_logout.forget($1, $2, $3) as forgotten',
        [clientId, partitionKey, generation]
      )
      return row?.forgotten === true
    },

    async storeApp(partitionKey: string, { payload, encoding }: Encoded): Promise<void> {
      await query('store_app', 'select msal_logout.store_app($1, $2, $3, $4, $5::interval)', [
        clientId,
        partitionKey,
        payload,
        encoding,
        ttl
      ])
    },

    async sessionActive(issuer: string, sid: string | null, subject: string | null): Promise<boolean> {
      const [row] = await query<{ active: boolean }>(
        'session_active',
        'select msal_logout.session_active($1, $2, $3, $4) as active',
        [clientId, issuer, sid, subject]
      )
      return row?.active === true
    },

    /** Sessions that were ended after this position, in order; null: the last one alone, to begin with. */
    async revokedSince(after: string | null): Promise<(RevokedSession & { position: string })[]> {
      return query<RevokedSession & { position: string }>(
        'ended_since',
        `select position::text, issuer, sid, subject, home_account_id as "homeAccountId" from msal_logout.ended_since($1, $2)`,
        [clientId, after]
      )
    }
  }
}

import type { SessionClaims } from './contents.ts'
import type { Database } from './database.ts'
import type { Encoded, Stored } from './encoding.ts'

/** One row as it was read; the payload of a row that is not encrypted comes as text. */
export interface Row extends Stored {
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

/** Every call is one statement and one round trip. */
export function createRows({ database, clientId, ttlSeconds, preparedStatements }: RowsOptions) {
  const ttl = `${ttlSeconds} seconds`

  function query<Row extends object>(name: string, text: string, values: unknown[]): Promise<Row[]> {
    return database.query<Row>(preparedStatements ? { name: `msal_logout_${name}`, text, values } : { text, values })
  }

  return {
    async load(partitionKey: string): Promise<Row | undefined> {
      const [loaded] = await query<{ row: string | null }>('load', 'select msal_logout.load_text($1, $2) as row', [
        clientId,
        partitionKey
      ])
      return loaded?.row == null ? undefined : parseRow(loaded.row)
    },

    /** Undefined where the session was ended. */
    async login(
      { partitionKey, homeAccountId, session, kind }: Login,
      { payload, encoding }: Encoded
    ): Promise<RowVersion | undefined> {
      const { issuer, sid, subject, issuedAt, oid, tid } = session
      const [row] = await query<{ accepted: boolean } & Numbers>(
        'login',
        'select * from msal_logout.login($1, $2, $3, $4, $5, $6, $7, $8, $9, $10::interval, $11, $12, $13)',
        [clientId, partitionKey, homeAccountId, issuer, sid, subject, issuedAt, payload, encoding, ttl, kind, oid, tid]
      )
      return row?.accepted ? versionOf(row) : undefined
    },

    async save(
      partitionKey: string,
      { generation, version }: RowVersion,
      { payload, encoding }: Encoded
    ): Promise<Saved> {
      const [row] = await query<{ outcome: Saved['outcome']; version: unknown }>(
        'save',
        'select * from msal_logout.save($1, $2, $3, $4, $5, $6, $7::interval)',
        [clientId, partitionKey, generation, version, payload, encoding, ttl]
      )
      return row?.outcome === 'saved'
        ? { outcome: 'saved', version: String(row.version) }
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
      const rows = await query<RevokedSession & { position: unknown }>(
        'ended_since',
        `select position, issuer, sid, subject, home_account_id as "homeAccountId" from msal_logout.ended_since($1, $2)`,
        [clientId, after]
      )
      return rows.map((row) => ({ ...row, position: String(row.position) }))
    }
  }
}

/** 64-bit numbers, as the app has them parsed: text, a number or a bigint. */
interface Numbers {
  readonly generation: unknown
  readonly version: unknown
}

function versionOf({ generation, version }: Numbers): RowVersion {
  return { generation: String(generation), version: String(version) }
}

/** Generation, version, encoding and payload, as `load_text` writes them. */
function parseRow(text: string): Row {
  const afterGeneration = text.indexOf(' ')
  const afterVersion = text.indexOf(' ', afterGeneration + 1)
  const afterEncoding = text.indexOf(' ', afterVersion + 1)
  const encoding = text.slice(afterVersion + 1, afterEncoding)
  const payload = text.slice(afterEncoding + 1)
  return {
    generation: text.slice(0, afterGeneration),
    version: text.slice(afterGeneration + 1, afterVersion),
    ...(encoding.startsWith('=')
      ? { encoding: Buffer.from(encoding.slice(1), 'base64').toString('utf8'), payload: Buffer.from(payload, 'base64') }
      : { encoding, payload })
  }
}

import type { Pool, PoolClient, QueryConfig } from 'pg'
import type { SessionClaims } from './contents.ts'
import type { Encoded } from './encoding.ts'

/** One row as it was read. */
export interface Row extends Encoded {
  readonly generation: string
  readonly version: string
}

/** The SQL functions of the schema `msal_logout` for one client id. */
export type Rows = ReturnType<typeof createRows>

export interface Login {
  readonly partitionKey: string
  readonly homeAccountId: string
  readonly session: SessionClaims
  readonly kind: 'user' | 'obo'
}

export type Saved = { readonly outcome: 'saved'; readonly version: string } | { readonly outcome: 'conflict' | 'gone' }

export interface EndedSession {
  readonly issuer: string
  readonly sid: string | null
  readonly subject: string
  readonly homeAccountId: string
}

export interface RowsOptions {
  readonly pool: Pool
  readonly clientId: string
  readonly ttlSeconds: number
  /** Gives the statements names, so that a connection parses and plans each but once. */
  readonly preparedStatements: boolean
}

/** Every call is one round trip, but for a login whose payload depends on the generation it is given. */
export function createRows({ pool, clientId, ttlSeconds, preparedStatements }: RowsOptions) {
  const ttl = `${ttlSeconds} seconds`

  function statement(name: string, text: string, values: unknown[]): QueryConfig {
    return preparedStatements ? { name: `msal_logout_${name}`, text, values } : { text, values }
  }

  function saveWith(
    client: Pool | PoolClient,
    partitionKey: string,
    { generation, version }: Pick<Row, 'generation' | 'version'>,
    { payload, encoding }: Encoded
  ): Promise<Saved> {
    return client
      .query<{ outcome: Saved['outcome']; version: string }>(
        statement('save', 'select * from msal_logout.save($1, $2, $3, $4, $5, $6, $7::interval)', [
          clientId,
          partitionKey,
          generation,
          version,
          payload,
          encoding,
          ttl
        ])
      )
      .then(({ rows: [row] }) =>
        row?.outcome === 'saved'
          ? { outcome: 'saved', version: row.version }
          : { outcome: row?.outcome === 'conflict' ? 'conflict' : 'gone' }
      )
  }

  async function loginWith(
    client: Pool | PoolClient,
    { partitionKey, homeAccountId, session, kind }: Login,
    { payload, encoding }: Encoded
  ): Promise<Pick<Row, 'generation' | 'version'> | undefined> {
    const { rows } = await client.query<{ accepted: boolean; generation: string; version: string }>(
      statement('login', 'select * from msal_logout.login($1, $2, $3, $4, $5, $6, $7, $8, $9, $10::interval, $11)', [
        clientId,
        partitionKey,
        homeAccountId,
        session.issuer,
        session.sid,
        session.subject,
        session.issuedAt,
        payload,
        encoding,
        ttl,
        kind
      ])
    )
    const [row] = rows
    return row?.accepted ? { generation: row.generation, version: row.version } : undefined
  }

  return {
    async load(partitionKey: string): Promise<Row | undefined> {
      const { rows } = await pool.query<Row>(
        statement('load', 'select * from msal_logout.load($1, $2)', [clientId, partitionKey])
      )
      return rows[0]
    },

    /** Undefined where the session was ended. */
    login: (login: Login, encoded: Encoded) => loginWith(pool, login, encoded),

    /** A login whose payload is encoded for the generation that it is given, in one transaction: all of it or nothing. */
    async loginBound(login: Login, encode: (generation: string) => Promise<Encoded>) {
      const client = await pool.connect()
      let failure: Error | undefined
      // A connection lost between two statements is told by the next one; unheard, it would end the process.
      const onLost = (error: Error) => {
        failure = error
      }
      client.on('error', onLost)
      try {
        await client.query('begin')
        const row = await loginWith(client, login, { payload: Buffer.alloc(0), encoding: 'none' })
        const saved = row && (await saveWith(client, login.partitionKey, row, await encode(row.generation)))
        const isSaved = row !== undefined && saved?.outcome === 'saved'
        // A row without its payload must not be left behind.
        await client.query(isSaved ? 'commit' : 'rollback')
        return isSaved ? { generation: row.generation, version: saved.version } : undefined
      } catch (error) {
        failure = error instanceof Error ? error : new Error(String(error))
        throw error
      } finally {
        client.off('error', onLost)
        client.release(failure) // a connection in a broken transaction is closed, which rolls it back
      }
    },

    save: (partitionKey: string, row: Pick<Row, 'generation' | 'version'>, encoded: Encoded) =>
      saveWith(pool, partitionKey, row, encoded),

    /** False where the session was ended, or the row is gone. */
    async addSession(partitionKey: string, { issuer, sid, subject, issuedAt }: SessionClaims): Promise<boolean> {
      const { rows } = await pool.query<{ added: boolean }>(
        statement('add_session', 'select msal_logout.add_session($1, $2, $3, $4, $5, $6) as added', [
          clientId,
          partitionKey,
          issuer,
          sid,
          subject,
          issuedAt
        ])
      )
      return rows[0]?.added === true
    },

    async forget(partitionKey: string, generation: string): Promise<boolean> {
      const { rows } = await pool.query<{ forgotten: boolean }>(
        statement('forget', 'select msal_logout.forget($1, $2, $3) as forgotten', [clientId, partitionKey, generation])
      )
      return rows[0]?.forgotten === true
    },

    async storeApp(partitionKey: string, { payload, encoding }: Encoded): Promise<void> {
      await pool.query(
        statement('store_app', 'select msal_logout.store_app($1, $2, $3, $4, $5::interval)', [
          clientId,
          partitionKey,
          payload,
          encoding,
          ttl
        ])
      )
    },

    async sessionActive(issuer: string, sid: string): Promise<boolean> {
      const { rows } = await pool.query<{ active: boolean }>(
        statement('session_active', 'select msal_logout.session_active($1, $2, $3) as active', [clientId, issuer, sid])
      )
      return rows[0]?.active === true
    },

    /** Sessions ended after this position, in order; null: the last one alone, to begin with. */
    async endedSince(after: string | null): Promise<(EndedSession & { position: string })[]> {
      const { rows } = await pool.query<EndedSession & { position: string }>(
        statement(
          'ended_since',
          `select position, issuer, sid, subject, home_account_id as "homeAccountId" from msal_logout.ended_since($1, $2)`,
          [clientId, after]
        )
      )
      return rows
    }
  }
}

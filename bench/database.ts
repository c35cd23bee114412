import { randomBytes } from 'node:crypto'
import pg from 'pg'
import { type EmbeddedPostgres, startEmbeddedPostgres } from '../src/embedded-postgres.ts'
import { migrate } from '../src/migrate.ts'

export const apps = ['app-0', 'app-1', 'app-2']

/** PostgreSQL as it is installed, fsync on; only the memory and the room between checkpoints are made larger. */
export const settings = {
  shared_buffers: '1GB',
  max_wal_size: '8GB',
  checkpoint_timeout: '30min',
  max_connections: '200'
}

/** As in production, where most pages are not in PostgreSQL's memory: a quarter of what {@link Database.fill} stores for a round. */
export const coldSettings = { ...settings, shared_buffers: '80MB' }

export interface Database {
  readonly url: string
  readonly pool: pg.Pool
  readonly version: string
  readonly settings: Readonly<Record<string, string>>
  /** The process that PostgreSQL's own are children of. */
  readonly postmaster: number
  /**
   * Empties the tables and stores `sessions` sessions with one row in each app. A checkpoint comes before; on cold tables
   * also after it, so that each page is written whole to the log when it is changed for the first time.
   */
  fill(issuer: string, sessions: number): Promise<void>
  /** Rows of the sessions `from` to before `to` that are still there. */
  countRows(from: number, to: number): Promise<number>
  close(): Promise<void>
}

export async function startDatabase({ isCold = false } = {}): Promise<Database> {
  const chosen = isCold ? coldSettings : settings
  const server: EmbeddedPostgres = await startEmbeddedPostgres({ settings: chosen })
  const pool = new pg.Pool({ connectionString: server.url, max: 4 })
  pool.on('error', (error) => console.error(error.message)) // an idle connection that was cut
  await migrate(pool)
  await pool.query(`create table public.payloads (n int primary key, payload bytea not null)`)
  for (let n = 0; n < payloads; n++) {
    await pool.query('insert into public.payloads values ($1, $2)', [n, samplePayload()])
  }
  const { rows } = await pool.query<{ server_version: string }>('show server_version')
  return {
    url: server.url,
    pool,
    version: rows[0]?.server_version ?? '',
    settings: chosen,
    postmaster: server.pid ?? 0,
    async fill(issuer, sessions) {
      // before the rows are stored, so that none comes while they are counted
      await pool.query('checkpoint')
      await pool.query(
        'truncate msal_logout.token_cache, msal_logout.sessions, msal_logout.tombstones, msal_logout.seen_orders, msal_logout.records, msal_logout.revoked_sessions, msal_logout.apps'
      )
      await insertSessions(pool, issuer, 0, sessions)
      await pool.query('vacuum analyze msal_logout.token_cache, msal_logout.sessions')
      if (isCold) {
        await pool.query('checkpoint')
      }
    },
    async countRows(from, to) {
      const { rows } = await pool.query<{ n: string }>(
        `select count(*) as n from generate_series($1::int, $2::int - 1) g
         join msal_logout.token_cache t on t.partition_key = md5('oid' || g)::uuid || '.tenant'`,
        [from, to]
      )
      return Number(rows[0]?.n)
    },
    async close() {
      await pool.end()
      await server.stop()
    }
  }
}

export const payloads = 64

/** Sessions of accounts of their own, one row in each app, as `login` stores them. */
export async function insertSessions(
  pool: pg.Pool,
  issuer: string,
  from: number,
  to: number,
  payload: 'full' | 'tiny' = 'full'
): Promise<void> {
  await pool.query(
    `insert into msal_logout.token_cache (client_id, partition_key, kind, home_account_id, payload, encoding, expires_at)
     select app, account, 'user', account, ${payload === 'full' ? 'payload' : `'\\x00'::bytea`}, 'json', now() + interval '30 days'
     from (select g, md5('oid' || g)::uuid || '.tenant' as account from generate_series($1::int, $2::int - 1) g) s
     join public.payloads on n = g % ${payloads}
     cross join unnest($3::text[]) app`,
    [from, to, apps]
  )
  await pool.query(
    `insert into msal_logout.sessions (issuer, session_key, client_id, partition_key, sid, subject, account_issuer,
       home_account_id, issued_at, expires_at)
     select $4, 'sid=' || sid, app, account, sid, 'sub' || g || app, '', account,
       extract(epoch from now())::bigint - 60, now() + interval '30 days'
     from (
       select g, md5('oid' || g)::uuid || '.tenant' as account, (md5('sid' || g)::uuid)::text as sid
       from generate_series($1::int, $2::int - 1) g
     ) s cross join unnest($3::text[]) app`,
    [from, to, apps, issuer]
  )
}

/** 6.6 KB as MSAL serializes them for one resource: about two thirds random secrets, the rest names that repeat. */
function samplePayload(): Buffer {
  const account = `${randomBytes(16).toString('hex')}.${randomBytes(16).toString('hex')}`
  const secret = (bytes: number) => randomBytes(bytes).toString('base64url')
  const entity = (type: string, rest: object) => ({
    [`${account}-login.windows.net-${type}-app-0-tenant--`]: {
      home_account_id: account,
      environment: 'login.windows.net',
      credential_type: type,
      client_id: 'app-0',
      realm: 'tenant',
      ...rest
    }
  })
  const blob = {
    Account: entity('account', { username: 'somebody@example.com', name: 'Some Body', tenantProfiles: [secret(300)] }),
    IdToken: entity('idtoken', { secret: secret(800) }),
    AccessToken: entity('accesstoken', { secret: secret(1_500), target: 'openid profile email User.Read' }),
    RefreshToken: entity('refreshtoken', { secret: secret(800) }),
    AppMetadata: {}
  }
  const text = JSON.stringify(blob)
  return Buffer.from(text.padEnd(6_600, ' '))
}

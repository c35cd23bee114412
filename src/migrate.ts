import { readdirSync, readFileSync } from 'node:fs'
import { Kysely, type Migration, Migrator, PostgresDialect, sql } from 'kysely'
import pg from 'pg'

const folder = new URL('../migrations/', import.meta.url)

/**
 * Brings the schema up to date; safe by several instances at once, and needs no rights but to read where it
 * is up to date already.
 *
 * @param pool connections as a role that may create objects, where anything is to be done
 * @returns the names of the migrations that were carried out
 * @throws the error of the migration that failed; nothing of it is kept
 */
export async function migrate(pool: pg.Pool): Promise<string[]> {
  const kysely = new Kysely<unknown>({ dialect: new PostgresDialect({ pool }) })
  const migrator = new Migrator({
    db: kysely,
    provider: { getMigrations: async () => readMigrations() },
    migrationTableSchema: 'msal_logout',
    migrationTableName: 'migrations',
    migrationLockTableName: 'migrations_lock'
  })
  const migrations = await migrator.getMigrations()
  if (migrations.every(({ executedAt }) => executedAt !== undefined)) {
    return []
  }
  const { error, results } = await migrator.migrateToLatest()
  if (error !== undefined) {
    throw error
  }
  return (results ?? []).map(({ migrationName }) => migrationName)
}

/**
 * As {@link migrate}, on connections of its own: a migration may take longer than the service's statements.
 *
 * @param connectionString of the database; undefined: as libpq's variables say
 */
export async function migrateAt(connectionString: string | undefined): Promise<string[]> {
  const pool = new pg.Pool({ connectionString, max: 1, connectionTimeoutMillis: 10_000 })
  try {
    return await migrate(pool)
  } finally {
    await pool.end()
  }
}

function readMigrations(): Record<string, Migration> {
  const files = readdirSync(folder).filter((file) => file.endsWith('.sql'))
  return Object.fromEntries(
    files.map((file) => [
      file.replace(/\.sql$/, ''),
      {
        async up(db: Kysely<unknown>) {
          await sql.raw(readFileSync(new URL(file, folder), 'utf8')).execute(db)
        }
      }
    ])
  )
}

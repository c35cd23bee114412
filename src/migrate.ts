import { readdirSync, readFileSync } from 'node:fs'
import { Kysely, type Migration, Migrator, PostgresDialect, sql } from 'kysely'
import type { Pool } from 'pg'

const ownFolder = new URL('../migrations/', import.meta.url)

export interface MigrateOptions {
  /** The folder of numbered `.sql` files; default the product's own. */
  readonly folder?: URL
}

// Whoever waits for a table's lock holds up everybody who comes after. Below the time in which a sign-out gives a lock up.
const lockTimeoutMs = 1_000

/**
 * Brings the schema up to date; safe by several instances at once, and needs no rights but to read where it
 * is up to date already.
 *
 * @param pool connections as a role that may create objects, where anything is to be done
 * @returns the names of the migrations that were carried out
 * @throws the error of the migration that failed; nothing of them is kept
 */
export async function migrate(pool: Pool, { folder = ownFolder }: MigrateOptions = {}): Promise<string[]> {
  const kysely = new Kysely<unknown>({ dialect: new PostgresDialect({ pool }) })
  const migrator = new Migrator({
    db: kysely,
    provider: { getMigrations: async () => readMigrations(folder) },
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

function readMigrations(folder: URL): Record<string, Migration> {
  const files = readdirSync(folder).filter((file) => file.endsWith('.sql'))
  return Object.fromEntries(
    files.map((file) => [
      file.replace(/\.sql$/, ''),
      {
        async up(db: Kysely<unknown>) {
          await sql`set local lock_timeout = ${sql.lit(lockTimeoutMs)}`.execute(db)
          await sql.raw(readFileSync(new URL(file, folder), 'utf8')).execute(db)
        }
      }
    ])
  )
}

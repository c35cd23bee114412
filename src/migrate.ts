import { readdirSync, readFileSync } from 'node:fs'
import { Kysely, type Migration, Migrator, PostgresDialect, sql } from 'kysely'
import pg from 'pg'

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
export async function migrate(pool: pg.Pool, { folder = ownFolder }: MigrateOptions = {}): Promise<string[]> {
  const migrator = createMigrator(pool, folder)
  if ((await pending(migrator)).length === 0) {
    return []
  }
  const { error, results } = await migrator.migrateToLatest()
  if (error !== undefined) {
    throw error
  }
  return (results ?? []).map(({ migrationName }) => migrationName)
}

/**
 * What {@link migrate} would carry out; reads alone.
 *
 * @param pool connections as a role that may read `msal_logout.migrations`, where it is there
 */
export async function pendingMigrations(pool: pg.Pool): Promise<string[]> {
  return pending(createMigrator(pool, ownFolder))
}

async function pending(migrator: Migrator): Promise<string[]> {
  const migrations = await migrator.getMigrations()
  return migrations.filter(({ executedAt }) => executedAt === undefined).map(({ name }) => name)
}

function createMigrator(pool: pg.Pool, folder: URL): Migrator {
  return new Migrator({
    db: new Kysely<unknown>({ dialect: new PostgresDialect({ pool }) }),
    provider: { getMigrations: async () => readMigrations(folder) },
    migrationTableSchema: 'msal_logout',
    migrationTableName: 'migrations',
    migrationLockTableName: 'migrations_lock'
  })
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

import { createHash } from 'node:crypto'
import { readdirSync, readFileSync } from 'node:fs'
import type pg from 'pg'
import { openPool, runTransaction } from './connections.ts'
import { rejectSchemaOnly } from './database-report.ts'
import { defaultSchema, schemaName } from './schema-name.ts'
import { version as ownVersion } from './version.ts'

export interface MigrateOptions {
  /** The folder of numbered `.sql` files that make the tables; default the product's own. */
  readonly tables?: URL
  /** The folder of `.sql` files with a function each; default the product's own. */
  readonly functions?: URL
  /** The schema that all of it is made in; default `msal_logout`. Lower-case letters, digits and underscores. */
  readonly schema?: string
  /** Of this release; default the package's. A release leaves the functions of a newer one as they are. */
  readonly version?: string
}

// Who waits for a table's lock holds up everybody who comes after. Below the time in which a sign-out gives a lock up.
const lockTimeoutMs = 1_000
// Any number, the same in every release: instances that start together migrate one after the other.
const lockId = 6_725_418

/**
 * Brings the schema up to date: the numbered migrations that are missing, and the functions if their text has changed, in one
 * transaction, which no migration library does. Safe by several instances at once, and needs no right but to read when nothing
 * is to be done.
 *
 * @param pool connections as a role that may create objects, if anything is to be done
 * @returns the names of what was carried out; `functions` stands for all of them
 * @throws the error of what failed; nothing is left behind
 */
export async function migrate(pool: pg.Pool, options: MigrateOptions = {}): Promise<string[]> {
  const source = sourceOf(options)
  if ((await pendingMigrations(pool, options)).length === 0) {
    return []
  }
  return runTransaction(pool, async (client) => {
    if (!(await hasMigrations(client, source))) {
      await client.query('select pg_advisory_xact_lock($1)', [lockId])
      await client.query(`create schema if not exists ${source.schema}`)
      await client.query(
        `create table if not exists ${source.schema}.migrations (name text primary key, migrated_at timestamptz not null default now())`
      )
    }
    // Anybody who may connect could hold the other lock, for ever: it is for the first time alone.
    await client.query(`lock table ${source.schema}.migrations in share row exclusive mode`)
    await client.query(`set local lock_timeout = ${lockTimeoutMs}`)
    const pending = await pendingIn(client, source)
    for (const { name, text } of source.migrations.filter((migration) => pending.includes(migration.name))) {
      await client.query(text)
      await client.query(`insert into ${source.schema}.migrations (name) values ($1)`, [name])
    }
    if (pending.includes('functions')) {
      await createFunctions(client, source)
    }
    return pending
  })
}

/**
 * What {@link migrate} would do; it only reads.
 *
 * @param pool connections as a role that may read the schema's tables `migrations` and `functions`, if they are there
 */
export async function pendingMigrations(pool: pg.Pool, options: MigrateOptions = {}): Promise<string[]> {
  return runTransaction(pool, (client) => pendingIn(client, sourceOf(options)))
}

export interface MigrateAtOptions extends MigrateOptions {
  /** The role that gets what the service needs, by `register_service`, once the schema is current; default none. */
  readonly serviceRole?: string
}

/**
 * As {@link migrate}, on a connection of its own: a migration may take longer than the service's statements.
 *
 * @param connectionString of the database; undefined: as libpq's variables say
 */
export async function migrateAt(
  connectionString: string | undefined,
  options: MigrateAtOptions = {}
): Promise<string[]> {
  const pool = openPool({
    url: connectionString ?? '',
    max: 1,
    connectTimeoutMs: 10_000,
    statementTimeoutMs: 0,
    lockTimeoutMs: 0,
    idleTransactionTimeoutMs: 0
  })
  try {
    await rejectSchemaOnly(pool, options.schema)
    const migrations = await migrate(pool, options)
    if (options.serviceRole !== undefined) {
      await pool.query(`select ${schemaName(options.schema ?? defaultSchema)}.register_service($1)`, [
        options.serviceRole
      ])
    }
    return migrations
  } finally {
    await pool.end()
  }
}

interface Source {
  readonly schema: string
  readonly migrations: readonly { readonly name: string; readonly text: string }[]
  /** The text of each. */
  readonly functions: readonly string[]
  readonly digest: string
  readonly version: string
}

function sourceOf({ tables, functions, schema = defaultSchema, version = ownVersion() }: MigrateOptions): Source {
  const name = schemaName(schema)
  const read = (folder: URL) =>
    readdirSync(folder)
      .filter((file) => file.endsWith('.sql'))
      .sort()
      .map((file) => ({
        name: file.replace(/\.sql$/, ''),
        // The files name the usual schema, so that they can be read and run as they are.
        text: readFileSync(new URL(file, folder), 'utf8').replaceAll(/\bmsal_logout\b/g, name)
      }))
  const texts = read(functions ?? new URL('../sql/', import.meta.url)).map(({ text }) => text)
  return {
    schema: name,
    migrations: read(tables ?? new URL('../migrations/', import.meta.url)),
    functions: texts,
    digest: createHash('sha256').update(JSON.stringify(texts)).digest('hex'),
    version
  }
}

type Connection = Pick<pg.ClientBase, 'query'>

async function hasMigrations(db: Connection, { schema }: Source): Promise<boolean> {
  return (await findTables(db, schema)).includes('migrations')
}

async function findTables(db: Connection, schema: string): Promise<string[]> {
  const { rows: found } = await db.query<{ tables: string[] }>(
    `select array(
      select c.relname::text from pg_class c join pg_namespace n on n.oid = c.relnamespace
      where n.nspname = $1 and c.relname in ('migrations', 'functions')) as tables`,
    [schema]
  )
  return found[0]?.tables ?? []
}

async function pendingIn(db: Connection, { schema, migrations, digest, version }: Source): Promise<string[]> {
  const tables = await findTables(db, schema)
  const { rows: done } = tables.includes('migrations')
    ? await db.query<{ name: string }>(`select name from ${schema}.migrations`)
    : { rows: [] }
  const names = done.map(({ name }) => name)
  const { rows: current } = tables.includes('functions')
    ? await db.query<{ digest: string; version: string }>(`select digest, version from ${schema}.functions`)
    : { rows: [] }
  const [functions] = current
  // In a rolling upgrade an instance of the release before may start again.
  const areNewer = functions !== undefined && isNewer(functions.version, version)
  return [
    ...migrations.map(({ name }) => name).filter((name) => !names.includes(name)),
    ...(functions?.digest === digest || areNewer ? [] : ['functions'])
  ]
}

/** Whether version `a` is newer than `b`; Semantic Versioning 2.0.0 §11, without pre-releases. */
function isNewer(a: string, b: string): boolean {
  const numbers = (version: string) => version.split('-', 1)[0]?.split('.').map(Number) ?? []
  const [ours, theirs] = [numbers(b), numbers(a)]
  for (const [i, number] of theirs.entries()) {
    if (number !== (ours[i] ?? 0)) {
      return number > (ours[i] ?? 0)
    }
  }
  return false
}

/** All of them anew: then one that was renamed or has other parameters leaves nothing behind. */
async function createFunctions(db: Connection, { schema, functions, digest, version }: Source): Promise<void> {
  await db.query('set local check_function_bodies = off') // a body may name a function that comes later
  await db.query(
    `do $do$
    declare
      f regprocedure;
    begin
      for f in select p.oid from pg_proc p where p.pronamespace = '${schema}'::regnamespace loop
        execute format('drop function %s', f);
      end loop;
    end
    $do$`
  )
  for (const text of functions) {
    await db.query(text)
  }
  await db.query(
    `revoke all on all functions in schema ${schema} from public;
    select ${schema}.grant_app(a.db_role) from ${schema}.apps a join pg_roles r on r.rolname = a.db_role;
    select ${schema}.grant_service(s.db_role) from ${schema}.service_roles s join pg_roles r on r.rolname = s.db_role;
    delete from ${schema}.functions;`
  )
  await db.query(`insert into ${schema}.functions (digest, version) values ($1, $2)`, [digest, version])
}

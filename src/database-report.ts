import type pg from 'pg'
import { runStatement } from './connections.ts'
import { defaultSchema, schemaName } from './schema-name.ts'

/** What is known of the database and of the role that asks, before anything is done. */
export interface DatabaseReport {
  readonly version: string
  /** 140011 is 14.11. */
  readonly versionNumber: number
  /** A standby, or set to take no writes. */
  readonly isReadOnly: boolean
  readonly role: string
  readonly isSuperuser: boolean
  readonly hasSchema: boolean
  /** Whether it can be seen how old the schema is. */
  readonly canReadMigrations: boolean
  /** The tables are there, and no migration is recorded that made them: a dump without its data. */
  readonly isWithoutRecords: boolean
  readonly canReadPayloads: boolean
  /** `register_app` has given the role what an app needs; it is neither a superuser nor the schema's owner. */
  readonly isApp: boolean
  /** What the service calls or reads, and this role cannot; of a schema that is there. */
  readonly missingPrivileges: readonly string[]
}

// What `register_service` grants.
const neededFunctions = [
  'sign_out',
  'find_large',
  'sign_out_step',
  'preview_order',
  'start_sweep',
  'sweep_step',
  'clean_up',
  'claim_directories',
  'release_directories',
  'begin_directory_round',
  'end_directory_round',
  'hint_directory',
  'keep_subscription',
  'list_watched',
  'find_watched',
  'count_unwatched',
  'keep_findings',
  'drop_findings',
  'hold_directory',
  'decide_directory',
  'claim_streams',
  'patch_stream',
  'verify_stream',
  'release_streams'
]
const neededTables = ['sessions', 'records', 'migrations', 'functions', 'directories', 'directory_findings', 'streams']

/**
 * Looks at the catalogue, which every role can read.
 *
 * @param schema default `msal_logout`
 * @throws what pg throws
 */
export async function inspectDatabase(pool: pg.Pool, schema = defaultSchema): Promise<DatabaseReport> {
  const [report] = await runStatement<Omit<DatabaseReport, 'isWithoutRecords'> & { hasTables: boolean }>(pool, {
    text: `with schema as (select n.oid, n.nspowner from pg_namespace n where n.nspname = $3),
      tables as (
        select c.oid, c.relname as name from pg_class c join schema s on c.relnamespace = s.oid where c.relkind in ('r', 'p')
      ),
      missing as (
        select 'usage of the schema' as what, 1 as place from schema s where not has_schema_privilege(s.oid, 'usage')
        union all
        select 'execute of ' || f, 2 from schema s, unnest($1::text[]) f
        where not exists (
          select from pg_proc p
          where p.pronamespace = s.oid and p.proname = f and has_function_privilege(p.oid, 'execute'))
        union all
        select 'select on ' || t, 3 from schema s, unnest($2::text[]) t
        where not exists (select from tables c where c.name = t and has_table_privilege(c.oid, 'select'))
        union all
        select 'select on token_cache.' || a.attname, 4 from tables c join pg_attribute a on a.attrelid = c.oid
        where c.name = 'token_cache' and a.attnum > 0 and not a.attisdropped and a.attname <> 'payload'
          and not has_column_privilege(c.oid, a.attnum, 'select')
      )
      select current_setting('server_version') as version,
        current_setting('server_version_num')::int as "versionNumber",
        pg_is_in_recovery() or current_setting('transaction_read_only') = 'on' as "isReadOnly",
        current_user::text as role,
        (select r.rolsuper from pg_roles r where r.rolname = current_user) as "isSuperuser",
        exists (select from tables c where c.name = 'migrations') as "hasSchema",
        exists (select from tables c where c.name = 'token_cache') as "hasTables",
        exists (select from schema s where has_schema_privilege(s.oid, 'usage')) and exists (
          select from tables c where c.name in ('migrations', 'functions')
          having count(*) = 2 and bool_and(has_table_privilege(c.oid, 'select'))
        ) as "canReadMigrations",
        exists (
          select from tables c join pg_attribute a on a.attrelid = c.oid
          where c.name = 'token_cache' and a.attname = 'payload' and has_column_privilege(c.oid, a.attnum, 'select')
        ) as "canReadPayloads",
        -- apps.db_role says the same; but that table is the owner's.
        exists (
          select from schema s join pg_proc p on p.pronamespace = s.oid
          where p.proname = 'login' and has_function_privilege(p.oid, 'execute') and not pg_has_role(s.nspowner, 'usage')
        ) as "isApp",
        array(select m.what::text from missing m order by m.place, m.what) as "missingPrivileges"`,
    values: [neededFunctions, neededTables, schema]
  })
  if (report === undefined) {
    throw new Error('the catalogue returned nothing')
  }
  const { hasTables, ...known } = report
  const name = schemaName(schema)
  if (!hasTables || !known.canReadMigrations) {
    return { ...known, isWithoutRecords: false }
  }
  const [recorded] = await runStatement<{ found: boolean }>(pool, {
    text: `select exists (select from ${name}.migrations) or exists (select from ${name}.functions) as found`,
    values: []
  })
  return { ...known, isWithoutRecords: recorded?.found !== true }
}

/** A schema that was restored without its rows: neither can it be used, nor be migrated. */
export class SchemaOnlyError extends Error {
  readonly code = 'ERR_SCHEMA_ONLY'

  constructor(schema: string) {
    super(
      `the schema ${schema} has its tables, and its table "migrations" is empty: it was restored from a dump without data. ` +
        `Restore it with the data, or drop it (drop schema ${schema} cascade), migrate, and register the roles again`
    )
    this.name = 'SchemaOnlyError'
  }
}

/** @throws {SchemaOnlyError} before a migration says that the first table is already there */
export async function rejectSchemaOnly(pool: pg.Pool, schema = defaultSchema): Promise<void> {
  if ((await inspectDatabase(pool, schema)).isWithoutRecords) {
    throw new SchemaOnlyError(schema)
  }
}

import type { Configuration } from '@azure/msal-node'
import { fetchMetadata } from './authority.ts'
import { type Database, hasNoListener, missingListener, type Pool } from './database.ts'
import type { Codec } from './encoding.ts'
import { TokenCacheMisuseError } from './errors.ts'
import { memberOf } from './objects.ts'

export interface CheckOptions {
  readonly database: Database
  readonly pool: Pool
  readonly clientId: string
  readonly codec: Codec
  /** MSAL's; undefined: nothing is said of the authority. */
  readonly configuration: Configuration | undefined
  readonly warn: (message: string) => void
}

const functions = [
  'login',
  'load',
  'save',
  'add_session',
  'forget',
  'session_active',
  'ended_since',
  'store_app'
] as const

interface Facts {
  role: string
  version: number
  encoding: string
  isReplica: boolean
  isReadOnly: boolean
  hasSchema: boolean
  isOwner: boolean
  isSuperuser: boolean
  present: string[]
  allowed: string[]
}

const lowestVersion = 140_000

/** One statement for all that the catalogue says. */
const question = `
  select current_user::text as role,
    current_setting('server_version_num')::int as version,
    current_setting('server_encoding') as encoding,
    pg_is_in_recovery() as "isReplica",
    current_setting('transaction_read_only') = 'on' as "isReadOnly",
    n.oid is not null as "hasSchema",
    coalesce(pg_has_role(n.nspowner, 'usage'), false) as "isOwner",
    (select r.rolsuper from pg_roles r where r.rolname = current_user) as "isSuperuser",
    array(
      select distinct p.proname::text from pg_proc p where p.pronamespace = n.oid and p.proname = any($1)
    ) as present,
    array(
      select distinct p.proname::text from pg_proc p
      where p.pronamespace = n.oid and p.proname = any($1)
        and has_schema_privilege(n.oid, 'usage') and has_function_privilege(p.oid, 'execute')
    ) as allowed
  from (select 1) one
  left join pg_namespace n on n.nspname = 'msal_logout'`

/**
 * @throws {TokenCacheMisuseError} with every problem and its remedy
 * @throws {TokenCacheDatabaseError} where the database cannot be reached
 * @throws {ProviderUnavailableError} where the provider cannot be reached, and nothing else is wrong
 */
export async function checkTokenCache(options: CheckOptions): Promise<void> {
  const { database, pool, clientId, codec, configuration, warn } = options
  const problems: string[] = []
  const [facts] = await database.query<Facts>({ text: question, values: [functions] })
  if (facts !== undefined) {
    problems.push(...problemsOf(facts, clientId))
    if (facts.isSuperuser || facts.isOwner) {
      warn(
        `the database role "${facts.role}" is ${facts.isSuperuser ? 'a superuser' : "the schema's owner"}, and can read every app's rows: on a developer's machine only. ${registerStatement(clientId, '<role>')}, with a role of the app's own`
      )
    }
  }
  if (hasNoListener(pool)) {
    warn(missingListener)
  }
  if (!memberOf(memberOf(pool, 'options'), 'connectionTimeoutMillis')) {
    warn(
      'the pool has no "connectionTimeoutMillis": a connection that a silent database never accepts keeps its place in the pool. Give it one: new Pool({ connectionTimeoutMillis: 5_000, … })'
    )
  }
  if (problems.length === 0) {
    // What the catalogue does not say: whether the client id is for this role. It rejects with the remedy.
    problems.push(
      ...(await problemOf(() =>
        database.query({ text: "select msal_logout.session_active($1, 'check', 'check')", values: [clientId] })
      ))
    )
  }
  problems.push(...(await problemOf(() => checkCodec(codec, clientId))))
  let outage: unknown
  if (configuration !== undefined) {
    problems.push(...clientIdProblem(configuration, clientId))
    problems.push(
      ...(await problemOf(() => fetchMetadata(configuration)).catch((error: unknown) => {
        outage = error
        return [String(memberOf(error, 'message'))]
      }))
    )
  }
  if (outage !== undefined && problems.length === 1) {
    throw outage // which may be over in a moment
  }
  if (problems.length > 0) {
    throw new TokenCacheMisuseError(
      `the token cache cannot work:${problems.map((problem) => `\n- ${problem}`).join('')}`
    )
  }
}

/** What a check rejects with as a mistake that can be mended; everything else is thrown. */
async function problemOf(check: () => Promise<unknown>): Promise<string[]> {
  try {
    await check()
    return []
  } catch (error) {
    if (error instanceof TokenCacheMisuseError) {
      return [error.message]
    }
    throw error
  }
}

function clientIdProblem({ auth }: Configuration, clientId: string): string[] {
  return auth?.clientId === clientId
    ? []
    : [
        `the token cache is for the client id "${clientId}", and MSAL's configuration has "${auth?.clientId}": give both the same`
      ]
}

function problemsOf(facts: Facts, clientId: string): string[] {
  const { role, version, encoding, isReplica, isReadOnly, hasSchema, present, allowed } = facts
  const problems: string[] = []
  if (version < lowestVersion) {
    problems.push(`PostgreSQL ${Math.floor(version / 10_000)} is too old: 14 or later`)
  }
  if (isReplica || isReadOnly) {
    problems.push('the database only reads: the pool must lead to the primary, not to a replica')
  }
  if (encoding !== 'UTF8') {
    problems.push(`the database has the encoding ${encoding}: create it with encoding 'UTF8'`)
  }
  if (!hasSchema) {
    problems.push('the schema "msal_logout" is not in this database: run "msal-logout migrate" on it, or mend the URL')
    return problems
  }
  const missing = functions.filter((name) => !present.includes(name))
  if (missing.length > 0) {
    problems.push(`the schema "msal_logout" lacks ${missing.join(', ')}: run "msal-logout migrate" of this release`)
  }
  if (present.some((name) => !allowed.includes(name))) {
    problems.push(
      `the database role "${role}" may not use the schema "msal_logout". As its owner: ${registerStatement(clientId, role)}`
    )
  }
  return problems
}

function registerStatement(clientId: string, role: string): string {
  return `select msal_logout.register_app('${clientId.replaceAll("'", "''")}', '${role.replaceAll("'", "''")}')`
}

/** That what is written can be read. */
async function checkCodec(codec: Codec, clientId: string): Promise<void> {
  const place = { clientId, partitionKey: 'check', generation: '1' }
  const decoded = await codec.decode(await codec.encode('{}', place), place)
  if (decoded.kind !== 'text') {
    throw new TokenCacheMisuseError('what is encrypted cannot be decrypted: look at "encryption"')
  }
}

import { existsSync } from 'node:fs'
import { access, constants } from 'node:fs/promises'
import { Socket } from 'node:net'
import { dirname, resolve } from 'node:path'
import { pino } from 'pino'
import { type Config, readConfig } from '../config.ts'
import { ConfigurationError, UnavailableError } from '../errors.ts'
import type { IssuerConfig } from '../issuers.ts'
import { pendingMigrations } from '../migrate.ts'
import { type IssuerFault, inspectIssuer } from '../published-keys.ts'
import { createSpool, SpoolError } from '../spool.ts'
import { connectionFault, createPool, createStore, type DatabaseReport } from '../store.ts'
import { printable, reasonOf } from './command-error.ts'

/** What one look has shown. */
export interface Finding {
  /** What was looked at. */
  readonly check: 'configuration' | 'database' | 'schema' | 'role' | 'spool' | 'issuer' | 'clock' | 'operators'
  readonly status: 'passed' | 'warning' | 'failed'
  /** For programs, and stable; null where nothing is to be said. */
  readonly code: string | null
  readonly message: string
  /** What to do about it; null where it passed. */
  readonly advice: string | null
}

export interface CheckOptions {
  readonly env: Readonly<Record<string, string | undefined>>
  /** Milliseconds since 1970; default `Date.now`. */
  readonly now?: () => number
}

// Between these versions everything is tried.
const minVersion = 14
const maxVersion = 18
// A clock that is off by less harms nothing: the `Date` header and the way here are no better.
const clockQuietSeconds = 5

/** Looks at all that the service needs, and changes nothing but for the folder `rejected` in the spool's. */
export async function check({ env, now = Date.now }: CheckOptions): Promise<Finding[]> {
  let config: Config
  try {
    config = readConfig(env)
  } catch (error) {
    if (!(error instanceof ConfigurationError)) {
      throw error
    }
    return error.problems.map((problem) =>
      failed('configuration', 'configuration_invalid', problem, 'set it right; the rest is looked at when it is')
    )
  }
  const asked = config.adminAccessTokens?.issuer
  const issuers = [...config.issuers, ...(asked === undefined ? [] : [asked])]
  const findings = await Promise.all([
    [passed('configuration', `issuers: ${config.issuers.map(({ name }) => name).join(', ')}`)],
    checkDatabase(config.databaseUrl),
    checkSpool(config.spoolDir),
    ...issuers.map((issuer) => checkIssuer(issuer, now)),
    [checkOperators(config)]
  ])
  return findings.flat()
}

/** As lines for a person. */
export function toldFindings(findings: readonly Finding[]): string {
  const lines = findings.map(({ check, status, code, message, advice }) => {
    const indent = ' '.repeat(24)
    const more = advice === null ? '' : `${indent}${advice}\n`
    return `${status.padEnd(9)}${check.padEnd(15)}${printable(message)}${code === null ? '' : ` [${code}]`}\n${more}`
  })
  const count = (wanted: Finding['status']) => findings.filter(({ status }) => status === wanted).length
  return `${lines.join('')}passed ${count('passed')}, warnings ${count('warning')}, failed ${count('failed')}\n`
}

async function checkDatabase(databaseUrl: string | undefined): Promise<Finding[]> {
  if (databaseUrl === undefined) {
    return [
      warning(
        'database',
        'database_embedded',
        'DATABASE_URL is not set: an embedded PostgreSQL would be started, for trying out only',
        'set DATABASE_URL, as postgres://…'
      )
    ]
  }
  // pg leaves one open where it has no password to answer with, and the server would wait for it for a minute.
  const sockets: Socket[] = []
  const openSocket = () => {
    const socket = new Socket()
    sockets.push(socket)
    return socket
  }
  const pool = createPool({ connectionString: databaseUrl, max: 1, statementTimeoutMs: 5_000, openSocket })
  pool.on('error', () => {}) // the next statement tells
  try {
    const report = await createStore(pool).inspect()
    const database = checkServer(report)
    if (database.status === 'failed') {
      return [database]
    }
    return [database, ...(await checkSchema(report, () => pendingMigrations(pool)))]
  } catch (error) {
    if (
      error instanceof UnavailableError &&
      error.code === 'ERR_DATABASE_FAILED' &&
      connectionFault(error) === 'unreachable'
    ) {
      throw error // it was reached
    }
    return [unreachable(error)]
  } finally {
    await pool.end()
    for (const socket of sockets) {
      socket.destroy()
    }
  }
}

function unreachable(error: unknown): Finding {
  const cause = error instanceof UnavailableError ? error.cause : error
  // Of several addresses, each with an error of its own, the first will do.
  const first: unknown = cause instanceof AggregateError ? cause.errors[0] : cause
  const message = first instanceof Error ? first.message : reasonOf(first)
  switch (connectionFault(error)) {
    case 'url':
      return failed(
        'database',
        'database_url_invalid',
        'DATABASE_URL is no URL',
        'percent-encode what is special in the password: / is %2F, @ is %40, # is %23'
      )
    case 'tls':
      return failed(
        'database',
        'database_tls',
        message,
        'let the server offer TLS with a certificate that is trusted here, or set the right sslmode and sslrootcert in DATABASE_URL'
      )
    case 'refused':
      return failed(
        'database',
        'database_refused',
        message,
        'let pg_hba.conf admit this host, role and database; where it says "no encryption", add ?sslmode=verify-full to DATABASE_URL'
      )
    case 'full':
      return failed(
        'database',
        'database_full',
        message,
        "raise max_connections or the role's connection limit, or end others: each instance opens up to 8"
      )
    case 'credentials':
      return failed('database', 'database_credentials', message, 'set the right role and password in DATABASE_URL')
    case 'missing':
      return failed('database', 'database_missing', message, 'create it, or name another in DATABASE_URL')
    case 'privileges':
      return failed('role', 'role_privileges', message, 'grant connect on the database to the role')
    case 'unreachable':
      return failed(
        'database',
        'database_unreachable',
        message,
        'start it, or set the right host and port in DATABASE_URL; look at firewalls'
      )
  }
}

function checkServer({ version, versionNumber, isReadOnly }: DatabaseReport): Finding {
  const major = Math.floor(versionNumber / 10_000)
  if (major < minVersion) {
    return failed(
      'database',
      'database_version',
      `PostgreSQL ${version} is too old`,
      `take PostgreSQL ${minVersion} to ${maxVersion}`
    )
  }
  if (isReadOnly) {
    return failed(
      'database',
      'database_read_only',
      `PostgreSQL ${version} takes no writes: it is a standby, or set to read only`,
      'name the primary in DATABASE_URL, or unset default_transaction_read_only'
    )
  }
  return major > maxVersion
    ? warning(
        'database',
        'database_version_new',
        `PostgreSQL ${version} was not tried`,
        'expect it to work; tell us if not'
      )
    : passed('database', `PostgreSQL ${version}, writable`)
}

async function checkSchema(report: DatabaseReport, pending: () => Promise<string[]>): Promise<Finding[]> {
  const migrate = 'run "msal-logout migrate" with the DATABASE_URL of the schema\'s owner'
  if (!report.hasSchema) {
    return [failed('schema', 'schema_missing', 'there is no schema msal_logout in this database', migrate)]
  }
  // A role without any right cannot tell how old the schema is; nor does it matter before it has one.
  if (!report.canReadMigrations) {
    return [checkRole(report)]
  }
  const missing = await pending()
  return missing.length === 0
    ? [passed('schema', 'current'), checkRole(report)]
    : [failed('schema', 'schema_old', `these migrations are missing: ${missing.join(', ')}`, migrate)]
}

function checkRole({ role, isSuperuser, canReadPayloads, missingPrivileges }: DatabaseReport): Finding {
  const register = `as the schema's owner: select msal_logout.register_service('${printable(role)}')`
  if (missingPrivileges.length > 0) {
    return failed('role', 'role_privileges', `role "${role}" lacks ${missingPrivileges.join(', ')}`, register)
  }
  if (isSuperuser) {
    return warning(
      'role',
      'role_superuser',
      `role "${role}" is a superuser: the service could do anything`,
      `take a role of its own; ${register.replace(`'${printable(role)}'`, "'<role>'")}`
    )
  }
  return canReadPayloads
    ? warning(
        'role',
        'role_reads_payloads',
        `role "${role}" can read tokens, which the service need not`,
        `take a role of its own; ${register.replace(`'${printable(role)}'`, "'<role>'")}`
      )
    : passed('role', `"${role}" has what the service needs, and cannot read tokens`)
}

async function checkSpool(spoolDir: string): Promise<Finding[]> {
  const dir = resolve(spoolDir)
  try {
    if (existsSync(dir)) {
      await createSpool({ dir, logger: pino({ level: 'silent' }) }).checkWritable()
      return [passed('spool', `"${dir}" can be written`)]
    }
    // Made by whoever looks, it would belong to them, and not to the service.
    await access(`${existingAbove(dir)}/.`, constants.W_OK | constants.X_OK) // a file has no such entry
    return [passed('spool', `"${dir}" will be made`)]
  } catch (error) {
    if (!(error instanceof SpoolError || (error instanceof Error && 'code' in error))) {
      throw error
    }
    return [
      failed(
        'spool',
        'spool_not_writable',
        `"${dir}" cannot be written (${reasonOf(error)})`,
        'name a folder in SPOOL_DIR that this user can write, on a disk with room that survives a restart'
      )
    ]
  }
}

function existingAbove(dir: string): string {
  const above = dirname(dir)
  return existsSync(above) ? above : existingAbove(above)
}

async function checkIssuer(config: IssuerConfig, now: () => number): Promise<Finding[]> {
  const { name } = config
  const { fault, cause, clockAheadSeconds } = await inspectIssuer(config, { now })
  const found =
    fault === undefined
      ? passed('issuer', `${name}: its keys are at hand`)
      : failed('issuer', ...issuerFaults[fault](name, reasonOf(cause), config))
  return clockAheadSeconds === undefined ? [found] : [found, checkClock(config, clockAheadSeconds)]
}

type Told = [code: string, message: string, advice: string]

const issuerFaults: Record<IssuerFault, (name: string, reason: string, config: IssuerConfig) => Told> = {
  discovery: (name, reason) => [
    'issuer_unreachable',
    `${name}: its discovery document cannot be had (${reason})`,
    'look at the issuer in the configuration, at name resolution, proxies, firewalls and certificates'
  ],
  issuer: (name) => [
    'issuer_differs',
    `${name}: its discovery document names another issuer`,
    'configure the issuer exactly as the document has it; often a trailing slash or an internal host name'
  ],
  keys: (name, reason) => [
    'keys_unreachable',
    `${name}: its key set cannot be had (${reason})`,
    'look at jwksUri, or at the "jwks_uri" of its discovery document'
  ],
  unusable: (name, reason, { algorithms }) => [
    'keys_unusable',
    `${name}: ${reason}`,
    `publish a signing key for ${algorithms.join(', ')}, or name the algorithm that it signs with in "algorithms"`
  ]
}

function checkClock({ name, clockToleranceSeconds }: IssuerConfig, aheadSeconds: number): Finding {
  const off = Math.abs(aheadSeconds)
  const message = `ours is ${off} s ${aheadSeconds > 0 ? 'behind' : 'ahead of'} that of ${name}`
  const advice = 'let the clocks be set by NTP'
  if (off > clockToleranceSeconds) {
    return failed('clock', 'clock_off', `${message}: its tokens will be refused`, advice)
  }
  return off > clockQuietSeconds
    ? warning('clock', 'clock_drifts', `${message}, within the tolerance of ${clockToleranceSeconds} s`, advice)
    : passed('clock', `agrees with that of ${name}`)
}

function checkOperators({ adminToken, adminAccessTokens }: Config): Finding {
  return adminToken === undefined && adminAccessTokens === undefined
    ? warning(
        'operators',
        'operators_none',
        "no credentials are configured: the operators' listener answers 401",
        'set ADMIN_TOKEN to 32 random characters or more, or ADMIN_ISSUER, ADMIN_AUDIENCE and ADMIN_ROLE'
      )
    : passed('operators', 'credentials are configured')
}

function passed(check: Finding['check'], message: string): Finding {
  return { check, status: 'passed', code: null, message, advice: null }
}

function warning(check: Finding['check'], code: string, message: string, advice: string): Finding {
  return { check, status: 'warning', code, message, advice }
}

function failed(check: Finding['check'], code: string, message: string, advice: string): Finding {
  return { check, status: 'failed', code, message, advice }
}

import { once } from 'node:events'
import { existsSync } from 'node:fs'
import { access, constants } from 'node:fs/promises'
import { createServer } from 'node:net'
import { dirname, resolve } from 'node:path'
import { pino } from 'pino'
import { budget } from '../budget.ts'
import { type Config, readConfig } from '../config.ts'
import { connectionFault, openPool } from '../connections.ts'
import { type DatabaseReport, inspectDatabase } from '../database-report.ts'
import { FilesError, findMissing } from '../durable-files.ts'
import { ConfigurationError } from '../errors.ts'
import type { IssuerConfig } from '../issuers.ts'
import { pendingMigrations } from '../migrate.ts'
import { createOutboundFetch } from '../outbound-fetch.ts'
import { type InspectOptions, type IssuerFault, type IssuerReport, inspectIssuer } from '../published-keys.ts'
import { createSpool, SpoolError } from '../spool.ts'
import { checkDirectory } from './check-directory.ts'
import { checkDoubts } from './check-doubts.ts'
import { checkStream } from './check-stream.ts'
import { printable, reasonOf } from './command-error.ts'
import { type Finding, failed, passed, warning } from './finding.ts'

export interface CheckOptions {
  readonly env: Readonly<Record<string, string | undefined>>
  /** Milliseconds since 1970; default `Date.now`. */
  readonly now?: () => number
  /** How long a document of an issuer may take, milliseconds; default 10,000. */
  readonly fetchTimeoutMs?: number
}

// Between these versions everything is tried.
const minVersion = 14
const maxVersion = 18
// Longer than the service has: a slow database is no wrong one.
const limits = {
  connectTimeoutMs: 5_000,
  statementTimeoutMs: 5_000,
  lockTimeoutMs: 5_000,
  idleTransactionTimeoutMs: 5_000
}
// A clock that is off by less harms nothing: the `Date` header and the way here are no better.
const clockQuietSeconds = 5
const maxPrivilegesNamed = 5

/** Looks at all that the service needs, and changes nothing but for the folder `rejected` in the spool's. */
export async function check({ env, now = Date.now, fetchTimeoutMs = 10_000 }: CheckOptions): Promise<Finding[]> {
  let config: Config
  try {
    config = readConfig(env)
  } catch (error) {
    if (!(error instanceof ConfigurationError)) {
      throw error
    }
    return error.problems.map(toProblem)
  }
  const asked = config.adminAccessTokens?.issuer
  const issuers = [...config.issuers, ...(asked === undefined ? [] : [asked])]
  const outbound = createOutboundFetch(config.proxies)
  const findings = await Promise.all([
    [passed('configuration', `issuers: ${config.issuers.map(({ name }) => name).join(', ')}`)],
    config.ignored.map(toIgnored),
    checkDoubts(config, env),
    checkAuthorities(env.NODE_EXTRA_CA_CERTS),
    checkListener('HOST', config.host, config.port),
    checkListener('ADMIN_HOST', config.adminHost, config.adminPort),
    checkDatabase(config.databaseUrl),
    checkSpool(config.spoolDir),
    ...issuers.map((issuer) => checkIssuer(issuer, { now, ...outbound, timeoutMs: fetchTimeoutMs })),
    ...config.issuers.map((issuer) =>
      checkDirectory(issuer, { now, fetch: outbound.fetch, timeoutMs: fetchTimeoutMs })
    ),
    ...config.streams.map((stream) => checkStream(stream, { now, fetch: outbound.fetch, timeoutMs: fetchTimeoutMs })),
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

function toProblem(problem: string): Finding {
  const advice = 'set it right; the rest is looked at when it is'
  if (/^(DATABASE_URL(_FILE)?|PGSSL\w+): (sslrootcert|sslcert|sslkey|sslcrl): cannot read/.test(problem)) {
    return failed('database', 'database_tls', problem, advice)
  }
  return /^(DATABASE_URL|PG)/.test(problem)
    ? failed('database', 'database_url_invalid', problem, advice)
    : failed('configuration', 'configuration_invalid', problem, advice)
}

function toIgnored(ignored: string): Finding {
  const [message = '', advice = ''] = ignored.split('; ')
  return warning('configuration', 'configuration_ignored', message, advice)
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
  const pool = openPool({ url: databaseUrl, max: 1, ...limits })
  pool.on('error', () => {}) // the next statement shows it
  try {
    ;(await pool.connect()).release()
  } catch (error) {
    await pool.end()
    return [unreachable(error)]
  }
  try {
    const report = await inspectDatabase(pool)
    const database = checkServer(report)
    if (database.status === 'failed') {
      return [database]
    }
    return [database, ...(await checkSchema(report, () => pendingMigrations(pool)))]
  } catch (error) {
    return [unreadable(error)]
  } finally {
    await pool.end()
  }
}

function unreachable(error: unknown): Finding {
  // Of several addresses, each with an error of its own, the first will do.
  const first: unknown = error instanceof AggregateError ? error.errors[0] : error
  const message = first instanceof Error ? first.message : reasonOf(first)
  switch (connectionFault(error)) {
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
        "raise max_connections, the pooler's size or the role's connection limit, or end others: each instance opens up to 8"
      )
    case 'credentials':
      return failed('database', 'database_credentials', message, 'set the right role and password in DATABASE_URL')
    case 'missing':
      return failed('database', 'database_missing', message, 'create it, or name another in DATABASE_URL')
    case 'privileges':
      return failed('role', 'role_privileges', message, 'grant connect on the database to the role')
    case 'encoding':
      return failed(
        'database',
        'database_encoding',
        message,
        'name one in DATABASE_URL that was created with encoding UTF8; an existing one cannot be changed'
      )
    case 'standby':
      return failed(
        'database',
        'database_read_only',
        message,
        'name the primary in DATABASE_URL, or unset default_transaction_read_only'
      )
    case 'pooling':
    case 'unreachable':
      return failed(
        'database',
        'database_unreachable',
        message,
        'start it, or set the right host and port in DATABASE_URL; look at firewalls'
      )
  }
}

/** It was reached, and then something was in the way. */
function unreadable(error: unknown): Finding {
  const message = error instanceof Error ? error.message : reasonOf(error)
  return connectionFault(error) === 'pooling'
    ? failed(
        'database',
        'database_pooling',
        `the pooler has no transactions: ${message}`,
        'set pool_mode to transaction or session for this database'
      )
    : failed('database', 'database_failed', message, "look into the database's own log")
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
  if (report.isWithoutRecords) {
    return [
      failed(
        'schema',
        'schema_without_data',
        'its tables are there, and no migration is recorded: it was restored from a dump without data',
        'restore it with its data; or drop schema msal_logout cascade, run "msal-logout migrate", and register the roles again'
      )
    ]
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

function checkRole({ role, isSuperuser, isApp, canReadPayloads, missingPrivileges }: DatabaseReport): Finding {
  const register = (name: string) => `as the schema's owner: select msal_logout.register_service(${name})`
  const ownRole = `take a role of its own; ${register("'<role>'")}`
  if (isApp) {
    // Registered for the service too, it could read the tokens of its app, and purge everybody.
    const advice = "name the service's role in DATABASE_URL, and leave this one to its app"
    return missingPrivileges.length > 0
      ? failed('role', 'role_is_app', `role "${role}" is an app's: register_app was called for it`, advice)
      : warning('role', 'role_is_app', `role "${role}" may do what an app's role may: it can read tokens`, advice)
  }
  if (missingPrivileges.length > 0) {
    const name = `'${printable(role).replaceAll("'", "''")}'`
    const named = missingPrivileges.slice(0, maxPrivilegesNamed).join(', ')
    const more = missingPrivileges.length - maxPrivilegesNamed
    const lacks = more > 0 ? `${named}, and ${more} more` : named
    return failed('role', 'role_privileges', `role "${role}" lacks ${lacks}`, register(name))
  }
  if (isSuperuser) {
    return warning('role', 'role_superuser', `role "${role}" is a superuser: the service could do anything`, ownRole)
  }
  return canReadPayloads
    ? warning('role', 'role_reads_payloads', `role "${role}" can read tokens, which the service need not`, ownRole)
    : passed('role', `"${role}" has what the service needs, and cannot read tokens`)
}

/** Node.js itself only warns of it, and every issuer behind these authorities is then out of reach. */
async function checkAuthorities(file: string | undefined): Promise<Finding[]> {
  if (file === undefined || file === '') {
    return []
  }
  try {
    await access(file, constants.R_OK)
    return []
  } catch (error) {
    const message = `NODE_EXTRA_CA_CERTS: cannot read "${file}" (${reasonOf(error)})`
    return [
      failed('configuration', 'configuration_invalid', message, 'name a file of certificates that this user can read')
    ]
  }
}

/** Whether the addresses can be listened on; a port is not taken from a service that has it. */
async function checkListener(name: 'HOST' | 'ADMIN_HOST', host: string, port: number): Promise<Finding[]> {
  const server = createServer()
  try {
    // Below 1024 a user may need a right for it; above, any port shows what the address is worth.
    server.listen({ host, port: port < 1_024 ? port : 0 })
    await once(server, 'listening')
    return []
  } catch (error) {
    const code = error instanceof Error && 'code' in error ? error.code : undefined
    if (code === 'EADDRINUSE') {
      return []
    }
    return [
      failed(
        'configuration',
        'configuration_address',
        `${name}: cannot listen on ${host}, port ${port} (${reasonOf(error)})`,
        code === 'EACCES'
          ? `set ${name === 'HOST' ? 'PORT' : 'ADMIN_PORT'} to 1024 or more: lower ones are for privileged users`
          : `set ${name} to an address of this machine, or to 0.0.0.0`
      )
    ]
  } finally {
    server.close()
  }
}

async function checkSpool(spoolDir: string): Promise<Finding[]> {
  const dir = resolve(spoolDir)
  try {
    if (existsSync(dir)) {
      await createSpool({ dir, logger: pino({ level: 'silent' }) }).checkReady()
      return [passed('spool', `"${dir}" can be written`)]
    }
    // Made by a look, it would belong to the user who looks, and not to the service.
    await findMissing(dir) // who can write a folder above it could put another in its place
    await access(`${existingAbove(dir)}/.`, constants.W_OK | constants.X_OK) // a file has no such entry
    return [passed('spool', `"${dir}" will be made`)]
  } catch (error) {
    if (!(error instanceof SpoolError || error instanceof FilesError || (error instanceof Error && 'code' in error))) {
      throw error
    }
    if ('code' in error && error.code === 'ERR_SPOOL_UNTRUSTED') {
      const advice = 'mend it before the start: until then nothing can be deferred, and in an outage sign-outs are lost'
      return [failed('spool', 'spool_untrusted', error.message, advice)]
    }
    return [
      failed(
        'spool',
        'spool_not_writable',
        `"${dir}" cannot be written (${reasonOf(error)})`,
        'name a folder in SPOOL_DIR that this user can write, on a disk with room that survives a restart; in a container that is a volume'
      )
    ]
  }
}

function existingAbove(dir: string): string {
  const above = dirname(dir)
  return existsSync(above) ? above : existingAbove(above)
}

async function checkIssuer(config: IssuerConfig, options: InspectOptions): Promise<Finding[]> {
  const report = await inspectIssuer(config, options)
  const { clockAheadSeconds } = report
  const findings = [checkKeys(config, report), ...checkSpeed(config, report)]
  return clockAheadSeconds === undefined ? findings : [...findings, checkClock(config, clockAheadSeconds)]
}

function checkKeys(config: IssuerConfig, report: IssuerReport): Finding {
  const { name } = config
  const { fault, cause, found, proxy, redirected, withByteOrderMark, usableKeys, unusableKeys } = report
  const unusable = unusableKeys.map(({ kid, fault }) => `kid ${kid ?? 'none'}: ${fault}`)
  const way = proxy === undefined ? [] : [`by the proxy ${proxy}`]
  if (fault !== undefined) {
    const reason = [reasonOf(cause), ...unusable, ...way].join('; ')
    return failed('issuer', ...issuerFaults[fault](name, reason, config, found ?? 'none'))
  }
  const facts = [
    `${usableKeys} of use`,
    ...unusable,
    ...way,
    ...redirected.map(({ to }) => `redirected to ${to}`),
    ...withByteOrderMark.map((url) => `a byte order mark in ${url}`)
  ]
  return passed('issuer', `${name}: its keys are at hand: ${facts.join('; ')}`)
}

function checkSpeed({ name, jwksUri }: IssuerConfig, { fault, tookMs }: IssuerReport): Finding[] {
  if (fault !== undefined || tookMs <= budget.keysMs) {
    return []
  }
  const later = `an answer waits ${budget.keysMs} ms for keys: the first signals after a start are answered 503, and done once the keys are there`
  const advice = jwksUri === undefined ? `${later}; jwksUri saves one of two requests` : later
  return [warning('issuer', 'keys_slow', `${name}: its keys took ${tookMs} ms`, advice)]
}

type Fault = [code: string, message: string, advice: string]

const issuerFaults: Record<
  IssuerFault,
  (name: string, reason: string, config: IssuerConfig, instead: string) => Fault
> = {
  discovery: (name, reason) => [
    'issuer_unreachable',
    `${name}: its discovery document cannot be had (${reason})`,
    'look at the issuer in the configuration, at name resolution, proxies, firewalls and certificates'
  ],
  issuer: (name, _reason, { issuer }, instead) => [
    'issuer_differs',
    `${name}: "${issuer}" is configured, and its discovery document names "${instead}"`,
    'configure the issuer exactly as the document has it; often a trailing slash or an internal host name'
  ],
  keys: (name, reason) => [
    'keys_unreachable',
    `${name}: its key set cannot be had (${reason})`,
    'look at jwksUri, or at the "jwks_uri" of its discovery document'
  ],
  redirect: (name, reason, _config, instead) => [
    'issuer_redirects',
    `${name}: ${reason} (${instead})`,
    'configure the issuer, or jwksUri, as the other origin has it; a redirect is followed within one origin alone'
  ],
  content: (name, reason) => [
    'issuer_content',
    `${name}: ${reason}`,
    'look at what answers there: often a proxy, a sign-in page or a load balancer in place of the issuer'
  ],
  jwks_uri: (name, reason, _config, instead) => [
    'jwks_uri_unusable',
    `${name}: ${reason} (${instead})`,
    'let the issuer publish an https URL, or set jwksUri'
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
    return failed('clock', 'clock_off', `${message}: its tokens will be rejected`, advice)
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

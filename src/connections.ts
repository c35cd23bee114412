import { readFileSync } from 'node:fs'
import { type ConnectionOptions, checkServerIdentity } from 'node:tls'
import {
  type CompiledQuery,
  type DatabaseConnection,
  type Dialect,
  PostgresAdapter,
  PostgresIntrospector,
  PostgresQueryCompiler
} from 'kysely'
import pg from 'pg'
import { budget } from './budget.ts'
import { type DatabaseAddress, type DatabaseHost, parseDatabaseUrl } from './database-url.ts'

const { DatabaseError } = pg

export interface ConnectionLimits {
  /** For a connection, over all hosts that are tried; also for waiting until one is free. Milliseconds. */
  readonly connectTimeoutMs: number
  /** By the server, for a statement; 0 for none. The client gives it up {@link budget}.graceMs later. Milliseconds. */
  readonly statementTimeoutMs: number
  /** By the server, for a lock; 0 for none. Milliseconds. */
  readonly lockTimeoutMs: number
  /** By the server, for a transaction that does nothing; 0 for none. Milliseconds. */
  readonly idleTransactionTimeoutMs: number
}

export interface PoolOptions extends ConnectionLimits {
  /** As `parseDatabaseUrl` reads it. */
  readonly url: string
  /** The most connections at a time. */
  readonly max: number
}

const setUpFaults = {
  ERR_DATABASE_ENCODING: 'its encoding must be UTF8: create a database with "encoding \'UTF8\' template template0"',
  ERR_DATABASE_STANDBY: 'it takes no writes',
  ERR_DATABASE_BINDING: 'it offers no channel binding, which channel_binding=require asks for'
} as const

/** A server that was reached and is of no use. */
export class DatabaseSetUpError extends Error {
  readonly code: keyof typeof setUpFaults

  constructor(code: keyof typeof setUpFaults, which: string) {
    super(`${which}: ${setUpFaults[code]}`)
    this.name = 'DatabaseSetUpError'
    this.code = code
  }
}

// A firewall that has forgotten a connection says nothing. TCP asks after 10 s of silence, then 10 times once a second
// (libuv); the kernel's own two hours are longer than any firewall waits.
const keepAliveAfterMs = 10_000

/**
 * Connections to the database of a URL: to the first of its hosts that can be had and takes writes, encrypted as it asks, with
 * these limits and the service's settings, also if role and database are set otherwise, directly or through a pooler.
 *
 * A pooler in transaction mode (PgBouncer) gives each transaction another session. So nothing is sent at the start that it
 * would not take, no setting outlives a transaction, and {@link runStatement} sets them in each. A pooler is known by
 * the server's process: it is not the one that greeted us.
 *
 * @returns the pool; the caller hears its `error`, and ends it
 * @throws {ConfigurationError} if the URL is none, or names a file that cannot be read
 */
export function openPool(options: PoolOptions): DatabasePool {
  const sourceOf = (url: string): Source => {
    const address = parseDatabaseUrl(url)
    const settings = sessionSettings(address, options)
    return { address, targets: createTargets(address, options), settings, begin: beginWith(settings) }
  }
  let source = sourceOf(options.url)
  const sources = new WeakMap<object, Source>()

  class TargetClient extends pg.Client {
    constructor() {
      const { address, targets } = source
      super(targets.current().config)
      sources.set(this, source)
      const { connection } = this
      // pg leaves it open if it has no answer to a request for a password. The server would wait for a minute, and make
      // nobody a database in the meantime.
      connection.on('error', () => connection.stream.destroy())
      // The pool listens while it is idle, and withClient while it is used; lost in between, it shows at the first statement.
      this.on('error', () => {})
      if (address.needsChannelBinding) {
        requireChannelBinding(this)
      }
    }
  }
  return new TargetPool(
    {
      Client: TargetClient,
      max: options.max,
      connectionTimeoutMillis: options.connectTimeoutMs,
      onConnect: async (client) => {
        const { address, settings, begin } = sources.get(client) ?? source
        const greeting = await greet(client, settings)
        if (!greeting.isDirect) {
          beginnings.set(client, begin)
        }
        const which =
          'host' in client && 'port' in client ? `the database at ${client.host}:${client.port}` : 'the database'
        if (greeting.encoding !== 'UTF8') {
          throw new DatabaseSetUpError('ERR_DATABASE_ENCODING', `${which} has the encoding ${greeting.encoding}`)
        }
        if (address.targetSession === 'read-write' && greeting.isReadOnly) {
          throw new DatabaseSetUpError('ERR_DATABASE_STANDBY', which)
        }
      }
    },
    {
      targets: () => source.targets,
      isCurrent: (client) => sources.get(client) === source,
      turnTo(url) {
        source = sourceOf(url)
      }
    },
    options.connectTimeoutMs
  )
}

/** Connections to a database whose URL can be replaced. */
export interface DatabasePool extends pg.Pool {
  /**
   * Connects as this URL has it from now on; a connection of before is closed when it is next to be used.
   *
   * @throws {ConfigurationError} if the URL is none; all stays as it was then
   */
  turnTo(url: string): void
}

interface Source {
  readonly address: DatabaseAddress
  readonly targets: Targets
  readonly settings: ReturnType<typeof sessionSettings>
  readonly begin: ReturnType<typeof beginWith>
}

interface Direction {
  targets(): Targets
  isCurrent(client: object): boolean
  turnTo(url: string): void
}

// ---- Hosts and TLS modes, one after the other

interface Target {
  readonly config: pg.ClientConfig
  /** Of the address's. */
  readonly host: number
  readonly isEncrypted: boolean
}

interface Targets {
  readonly count: number
  current(): Target
  /** Turns to the next one after this has failed, unless another connection has done so; false if none would do better. */
  leave(target: Target, error: unknown): boolean
}

function createTargets(address: DatabaseAddress, options: PoolOptions): Targets {
  const hosts = address.isBalanced ? shuffled(address.hosts) : address.hosts
  const readTls = createTlsReader(address)
  const modesOf = ({ host }: DatabaseHost): boolean[] => {
    if (host.startsWith('/')) {
      return [false] // libpq encrypts no Unix socket
    }
    switch (address.tlsMode) {
      case 'disable':
        return [false]
      case 'allow':
        return [false, true]
      case 'prefer':
        return [true, false]
      default:
        return [true]
    }
  }
  const places = hosts.flatMap((host, at) => modesOf(host).map((isEncrypted) => ({ host, at, isEncrypted })))
  const timeoutMs = Math.min(
    Math.max(Math.floor(options.connectTimeoutMs / hosts.length), 1),
    address.connectTimeoutSeconds === undefined ? Number.POSITIVE_INFINITY : address.connectTimeoutSeconds * 1_000
  )
  const targets = places.map(({ host, at, isEncrypted }) => ({
    host: at,
    isEncrypted,
    // Anew for each connection: certificates are renewed while the service runs.
    get config() {
      return clientConfig(address, host, { ...options, connectTimeoutMs: timeoutMs }, isEncrypted && readTls(host))
    }
  }))
  let position = 0

  return {
    count: targets.length,
    current: () => targets[position] ?? missing(),
    leave(target, error) {
      const at = targets.indexOf(target)
      const other = targets[at + 1]
      const isAboutEncryption = faultsOfEncryption(error)
      let next: number | undefined
      if (other?.host === target.host && isAboutEncryption) {
        next = at + 1
      } else if (isOfThisHost(error) || isAboutEncryption) {
        // Of a host the first mode again: its fault may have been mended.
        const nextHost = (target.host + 1) % hosts.length
        next = targets.findIndex(({ host }) => host === nextHost)
      }
      if (next === undefined || next === at) {
        return false
      }
      if (position === at) {
        position = next
      }
      return true
    }
  }
}

function missing(): never {
  throw new Error('an address has a host')
}

function shuffled<Item>(items: readonly Item[]): Item[] {
  return items
    .map((item) => ({ item, place: Math.random() }))
    .sort((a, b) => a.place - b.place)
    .map(({ item }) => item)
}

/** The server offers no TLS, it failed, or pg_hba.conf wants the other way (28000). */
function faultsOfEncryption(error: unknown): boolean {
  if (!(error instanceof Error)) {
    return false
  }
  const code = 'code' in error ? String(error.code) : ''
  return code === '28000' || /^(EPROTO$|ERR_SSL|ERR_TLS)/.test(code) || hasNoTls(error)
}

// pg gives it no code.
function hasNoTls(error: unknown): boolean {
  return error instanceof Error && !('code' in error) && error.message.includes('SSL')
}

/** Whether another server of the list may do better: what one says of role, password or database the others say too. */
function isOfThisHost(error: unknown): boolean {
  return error instanceof DatabaseError ? error.code === '57P03' : !isWaitOver(error)
}

// Nobody gave a connection back in time: none was tried.
function isWaitOver(error: unknown): boolean {
  return error instanceof Error && error.message === 'timeout exceeded when trying to connect'
}

type ConnectCallback = (
  error: Error | undefined,
  client: pg.PoolClient | undefined,
  done: (release?: boolean | Error) => void
) => void

/** Tries one target after the other; the one that was good is the first for the next connection. */
class TargetPool extends pg.Pool implements DatabasePool {
  readonly #direction: Direction
  readonly #timeoutMs: number

  constructor(config: pg.PoolConfig, direction: Direction, timeoutMs: number) {
    super(config)
    this.#direction = direction
    this.#timeoutMs = timeoutMs
  }

  turnTo(url: string): void {
    this.#direction.turnTo(url)
  }

  override connect(): Promise<pg.PoolClient>
  override connect(callback: ConnectCallback): void
  override connect(callback?: ConnectCallback): Promise<pg.PoolClient> | undefined {
    const connected = this.#connectToAny()
    if (callback === undefined) {
      return connected
    }
    connected.then(
      (client) => callback(undefined, client, client.release),
      (error: unknown) => callback(error instanceof Error ? error : new Error(String(error)), undefined, () => {})
    )
    return undefined
  }

  async #connectToAny(): Promise<pg.PoolClient> {
    const begun = performance.now()
    let reason: unknown
    for (let tries = 1; ; tries++) {
      const targets = this.#direction.targets()
      const target = targets.current()
      try {
        return await this.#connectToCurrent()
      } catch (error) {
        // That a server has no TLS is no reason if it was then tried without.
        reason = reason === undefined || !hasNoTls(error) ? error : reason
        const mayTry = targets.leave(target, error) && tries < targets.count
        if (!mayTry || performance.now() - begun >= this.#timeoutMs) {
          throw reason
        }
      }
    }
  }

  /** Closes what an earlier URL has connected, until one of the current URL comes. */
  async #connectToCurrent(): Promise<pg.PoolClient> {
    let client = await super.connect()
    while (!this.#direction.isCurrent(client)) {
      client.release(true)
      client = await super.connect()
    }
    return client
  }
}

function clientConfig(
  address: DatabaseAddress,
  { host, port, address: hostAddress }: DatabaseHost,
  { connectTimeoutMs, statementTimeoutMs }: PoolOptions,
  ssl: ConnectionOptions | false
): pg.ClientConfig {
  return {
    host: hostAddress ?? host,
    port,
    user: address.user,
    database: address.database,
    // Always a function, or pg would look for a password file and for PGPASSWORD itself.
    password: () => address.password ?? passwordOf(address, host, port) ?? '',
    ssl,
    sslnegotiation: address.isTlsDirect ? 'direct' : 'postgres',
    enableChannelBinding: address.needsChannelBinding,
    application_name: address.applicationName ?? 'msal-logout',
    ...(address.startupOptions !== undefined && { options: address.startupOptions }),
    connectionTimeoutMillis: connectTimeoutMs,
    // The server's own limit says nothing if the server has vanished.
    ...(statementTimeoutMs > 0 && { query_timeout: statementTimeoutMs + budget.graceMs }),
    keepAlive: address.keepsAlive,
    keepAliveInitialDelayMillis:
      address.keepAliveIdleSeconds === undefined ? keepAliveAfterMs : address.keepAliveIdleSeconds * 1_000
  }
}

/** Files are read for each connection; one that is being replaced, and cannot be read just now, is as it was. */
function createTlsReader(address: DatabaseAddress): (host: DatabaseHost) => ConnectionOptions {
  const { tlsMode, tlsFiles } = address
  if (tlsMode === 'disable') {
    return () => ({})
  }
  const read = (path: string | undefined) => {
    let content = path === undefined ? undefined : readFileSync(path, 'utf8')
    return () => {
      try {
        content = path === undefined ? undefined : readFileSync(path, 'utf8')
      } catch {
        // as it was
      }
      return content
    }
  }
  const ca = read(tlsFiles.rootCert)
  const crl = read(tlsFiles.revoked)
  const cert = read(tlsFiles.cert)
  const key = read(tlsFiles.key)
  return ({ host, address: hostAddress }) =>
    withoutUndefined({
      ca: ca(),
      crl: crl(),
      cert: cert(),
      key: key(),
      passphrase: address.keyPassword,
      minVersion: address.minTlsVersion,
      maxVersion: address.maxTlsVersion,
      rejectUnauthorized: tlsMode === 'verify-ca' || tlsMode === 'verify-full',
      // libpq's verify-ca looks at the authority alone. An address of its own is none that the certificate bears.
      checkServerIdentity:
        tlsMode === 'verify-full'
          ? (_name: string, certificate: Parameters<typeof checkServerIdentity>[1]) =>
              checkServerIdentity(host, certificate)
          : () => undefined,
      servername: hostAddress === undefined ? undefined : host
    })
}

function withoutUndefined(options: { [Key in keyof ConnectionOptions]: ConnectionOptions[Key] | undefined }) {
  const given: ConnectionOptions = {}
  return Object.assign(given, Object.fromEntries(Object.entries(options).filter(([, value]) => value !== undefined)))
}

/**
 * The password for a host out of a password file (PostgreSQL, §32.16): lines of host:port:database:user:password, in which `*`
 * stands for any, and `\` takes away a meaning. Read for each connection: it may be renewed while the service runs.
 */
function passwordOf({ passwordFile, user, database }: DatabaseAddress, host: string, port: number): string | undefined {
  if (passwordFile === undefined) {
    return undefined
  }
  const wanted = [host.startsWith('/') ? 'localhost' : host, String(port), database, user]
  for (const line of readFileSync(passwordFile, 'utf8').split(/\r?\n/)) {
    const fields = (line.match(/(?:\\.|[^:\\])*(?::|$)/gs) ?? []).map((field) => field.replace(/:$/, ''))
    const plain = fields.map((field) => field.replace(/\\(.)/gs, '$1'))
    if (!line.startsWith('#') && wanted.every((value, i) => fields[i] === '*' || plain[i] === value)) {
      return plain[4]
    }
  }
  return undefined
}

/** SCRAM with channel binding or nothing: no password goes to a server that asks for it in another way. */
function requireChannelBinding(client: pg.Client): void {
  const { connection } = client
  const close = () => {
    connection.stream.destroy(new DatabaseSetUpError('ERR_DATABASE_BINDING', `the database at ${client.host}`))
  }
  let isBound = false
  connection.prependListener('authenticationSASL', ({ mechanisms }: { mechanisms: readonly string[] }) => {
    isBound = mechanisms.includes('SCRAM-SHA-256-PLUS')
    if (!isBound) {
      close()
    }
  })
  for (const way of ['authenticationCleartextPassword', 'authenticationMD5Password']) {
    connection.prependListener(way, close)
  }
  connection.prependListener('authenticationOk', () => {
    if (!isBound) {
      close()
    }
  })
}

// ---- Settings of the session, or of each transaction

/**
 * What the service relies on, also if role and database are set otherwise; and its limits. Settings that the URL names go before,
 * but for the limits, by which the service keeps to its 2 s.
 */
function sessionSettings(address: DatabaseAddress, limits: ConnectionLimits): Record<string, string> {
  return {
    // Under another level a statement would not see what was committed while it waited for a lock.
    default_transaction_isolation: 'read committed',
    DateStyle: 'ISO, MDY',
    IntervalStyle: 'postgres',
    TimeZone: 'UTC',
    bytea_output: 'hex',
    extra_float_digits: '1',
    standard_conforming_strings: 'on',
    array_nulls: 'on',
    transform_null_equals: 'off',
    search_path: 'pg_catalog, pg_temp',
    client_min_messages: 'warning',
    exit_on_error: 'off',
    ...address.settings,
    synchronous_commit: asDurable(address.settings.synchronous_commit),
    statement_timeout: String(limits.statementTimeoutMs),
    lock_timeout: String(limits.lockTimeoutMs),
    idle_in_transaction_session_timeout: String(limits.idleTransactionTimeoutMs),
    idle_session_timeout: '0',
    transaction_timeout: '0' // PostgreSQL 17 and later
  }
}

// 200 means that it is on disk. What is more than `on` is left as it is set.
const lessThanOn = 'off'

function asDurable(given: string | undefined): string {
  return given === undefined || given === lessThanOn ? 'on' : given
}

interface Greeting {
  readonly isDirect: boolean
  readonly isReadOnly: boolean
  readonly encoding: string
}

/** One round trip. Through a pooler the settings last for this statement: a session is another's in the next moment. */
async function greet(client: pg.ClientBase, settings: Readonly<Record<string, string>>): Promise<Greeting> {
  const process = 'processID' in client ? client.processID : undefined
  const { rows } = await client.query<Greeting>(
    `select pg_backend_pid() = $1 as "isDirect",
      pg_is_in_recovery() or current_setting('transaction_read_only') = 'on' as "isReadOnly",
      current_setting('server_encoding') as encoding,
      (select count(set_config(s.name, s.value, pg_backend_pid() is distinct from $1))
        from unnest($2::text[], $3::text[]) s (name, value)
        where (current_setting(s.name, true) is not null or s.name like '%.%')
          and (s.name <> 'synchronous_commit' or s.value <> 'on' or current_setting(s.name) = '${lessThanOn}'))`,
    [typeof process === 'number' ? process : null, Object.keys(settings), Object.values(settings)]
  )
  const [greeting] = rows
  if (greeting === undefined) {
    throw new Error('the database said nothing of itself')
  }
  return greeting
}

function beginWith(settings: Readonly<Record<string, string>>): string {
  const set = Object.entries(settings).map(([name, value]) => {
    const literal = pg.escapeLiteral(name)
    const condition = name === 'synchronous_commit' && value === 'on' ? `= '${lessThanOn}'` : 'is not null' // as some versions know it
    return `case when current_setting(${literal}, true) ${condition} then set_config(${literal}, ${pg.escapeLiteral(value)}, true) end`
  })
  return `begin isolation level read committed; select ${set.join(', ')}`
}

// How a transaction begins on a connection to a pooler.
const beginnings = new WeakMap<pg.ClientBase, string>()

/** Whether a pooler stands between: a session, and a prepared statement in it, may be another's in the next transaction. */
export function isPooled(client: pg.ClientBase): boolean {
  return beginnings.has(client)
}

export interface Statement {
  /** The connection keeps what it has parsed under this name, unless a pooler stands between. */
  readonly name?: string
  readonly text: string
  readonly values: readonly unknown[]
}

/**
 * One statement in a transaction of its own, with the pool's limits and settings.
 *
 * @throws what pg throws
 */
export async function runStatement<Row extends object>(pool: pg.Pool, statement: Statement): Promise<Row[]> {
  return run(pool, statement)
}

async function run(pool: pg.Pool, { name, text, values }: Statement) {
  return withClient(pool, async (client) => {
    if (!isPooled(client)) {
      return (await client.query({ ...(name !== undefined && { name }), text, values: [...values] })).rows
    }
    return inTransaction(client, async () => (await client.query(text, [...values])).rows)
  })
}

/**
 * Several statements in one transaction, with the pool's limits and settings; rolled back where `work` throws.
 *
 * @throws what pg or `work` throws
 */
export async function runTransaction<Result>(
  pool: pg.Pool,
  work: (client: pg.ClientBase) => Promise<Result>
): Promise<Result> {
  return withClient(pool, (client) => inTransaction(client, () => work(client)))
}

async function inTransaction<Result>(client: pg.ClientBase, work: () => Promise<Result>): Promise<Result> {
  try {
    await client.query(beginnings.get(client) ?? 'begin')
    const result = await work()
    await client.query('commit')
    return result
  } catch (error) {
    // What the server has answered leaves the connection sound, and a pooler would close its own with ours.
    if (error instanceof DatabaseError) {
      await client.query('rollback').catch(() => {}) // a lost connection has undone it too
    }
    throw error
  }
}

async function withClient<Result>(pool: pg.Pool, work: (client: pg.ClientBase) => Promise<Result>): Promise<Result> {
  const client = await pool.connect()
  let failure: Error | undefined
  // A connection lost between two statements shows at the next one; unheard, it would end the process.
  const onLost = (error: Error) => {
    failure = error
  }
  client.on('error', onLost)
  try {
    return await work(client)
  } catch (error) {
    if (!(error instanceof DatabaseError && isPooled(client))) {
      failure ??= error instanceof Error ? error : new Error(String(error))
    }
    throw error
  } finally {
    client.off('error', onLost)
    client.release(failure)
  }
}

/** For Kysely's single statements: each as by {@link runStatement}. It has no transactions. */
export function limitedDialect(pool: pg.Pool): Dialect {
  const connection: DatabaseConnection = {
    executeQuery: async ({ sql, parameters }: CompiledQuery) => ({
      rows: await run(pool, { text: sql, values: parameters })
    }),
    streamQuery: unsupported
  }
  return {
    createAdapter: () => new PostgresAdapter(),
    createQueryCompiler: () => new PostgresQueryCompiler(),
    createIntrospector: (db) => new PostgresIntrospector(db),
    createDriver: () => ({
      init: async () => {},
      acquireConnection: async () => connection,
      beginTransaction: unsupported,
      commitTransaction: unsupported,
      rollbackTransaction: unsupported,
      releaseConnection: async () => {},
      destroy: () => pool.end()
    })
  }
}

function unsupported(): never {
  throw new Error('single statements alone: runTransaction is for several')
}

// ---- Why there is none

/** Why no connection could be had. */
export type ConnectionFault =
  | 'tls'
  | 'refused'
  | 'credentials'
  | 'missing'
  | 'privileges'
  | 'full'
  | 'encoding'
  | 'standby'
  | 'pooling'
  | 'unreachable'

/** What stands behind an error that the pool threw at the door. */
export function connectionFault(error: unknown): ConnectionFault {
  if (!(error instanceof Error)) {
    return 'unreachable'
  }
  const code = 'code' in error ? String(error.code) : ''
  const faults: Readonly<Record<string, ConnectionFault>> = {
    '3D000': 'missing',
    '42501': 'privileges',
    '53300': 'full',
    ERR_DATABASE_ENCODING: 'encoding',
    ERR_DATABASE_STANDBY: 'standby',
    ERR_DATABASE_BINDING: 'tls'
  }
  const known = faults[code]
  if (known !== undefined) {
    return known
  }
  // The names of OpenSSL's verdicts; a server that offers no TLS.
  if (/^(EPROTO$|ERR_TLS|ERR_SSL|ERR_OSSL|CERT_|DEPTH_ZERO_|SELF_SIGNED_|UNABLE_TO_)/.test(code) || hasNoTls(error)) {
    return 'tls'
  }
  if (code === '28000' && error.message.includes('pg_hba.conf')) {
    return 'refused'
  }
  // pg itself goes no further without a password, and gives no code.
  if (/^28/.test(code) || (code === '' && error.message.includes('password'))) {
    return 'credentials'
  }
  return code === '08P01' ? poolerFault(error.message) : 'unreachable'
}

/** PgBouncer has one code for all. */
function poolerFault(message: string): ConnectionFault {
  if (/authentication failed|no such user/.test(message)) {
    return 'credentials'
  }
  if (/does not exist|no such database/.test(message)) {
    return 'missing'
  }
  if (message.includes('statement pooling')) {
    return 'pooling'
  }
  return /query_wait_timeout|no more connections/.test(message) ? 'full' : 'unreachable'
}

import { accessSync, constants } from 'node:fs'
import { ConfigurationError } from './errors.ts'

/** A server that the URL names. */
export interface DatabaseHost {
  /** A name, an address, or the folder of a Unix socket, which begins with `/`. */
  readonly host: string
  readonly port: number
  /** The address to connect to, if the URL has one beside the name: the certificate is still that of `host`. */
  readonly address: string | undefined
}

/** How a connection is encrypted, and what is verified: libpq's modes (PostgreSQL, §32.19). */
export type TlsMode = 'disable' | 'allow' | 'prefer' | 'require' | 'verify-ca' | 'verify-full'

export interface TlsFiles {
  /** Trusted authorities; undefined: those that Node.js brings along. */
  readonly rootCert: string | undefined
  readonly revoked: string | undefined
  readonly cert: string | undefined
  readonly key: string | undefined
}

/** Where the database is and how to get in. */
export interface DatabaseAddress {
  /** In the order in which they are tried. */
  readonly hosts: readonly DatabaseHost[]
  readonly user: string
  readonly password: string | undefined
  /** Asked for a password at each connection, if there is no other. */
  readonly passwordFile: string | undefined
  readonly database: string
  readonly tlsMode: TlsMode
  readonly tlsFiles: TlsFiles
  readonly keyPassword: string | undefined
  readonly minTlsVersion: 'TLSv1' | 'TLSv1.1' | 'TLSv1.2' | 'TLSv1.3' | undefined
  readonly maxTlsVersion: 'TLSv1' | 'TLSv1.1' | 'TLSv1.2' | 'TLSv1.3' | undefined
  /** TLS from the first byte on: PostgreSQL 17 and later. */
  readonly isTlsDirect: boolean
  readonly needsChannelBinding: boolean
  /** `any` server, or only one that takes writes. */
  readonly targetSession: 'any' | 'read-write'
  /** Whether the hosts are tried in an order of chance. */
  readonly isBalanced: boolean
  /** For one host; undefined: as long as the caller allows. */
  readonly connectTimeoutSeconds: number | undefined
  readonly keepsAlive: boolean
  readonly keepAliveIdleSeconds: number | undefined
  readonly applicationName: string | undefined
  /** Settings of the session: `options=-c name=value`, `search_path`. */
  readonly settings: Readonly<Record<string, string>>
  /** What `options` holds beside settings, for a proxy that reads it. */
  readonly startupOptions: string | undefined
}

type Environment = Readonly<Record<string, string | undefined>>

/** A parameter of libpq, and which variable it came from. */
interface Parameter {
  readonly value: string
  readonly from: string
}

// PostgreSQL, §32.1.2 and §32.15. The value is the variable that stands in for a missing parameter.
const supported: Readonly<Record<string, string | undefined>> = {
  host: 'PGHOST',
  hostaddr: 'PGHOSTADDR',
  port: 'PGPORT',
  dbname: 'PGDATABASE',
  user: 'PGUSER',
  password: 'PGPASSWORD',
  passfile: 'PGPASSFILE',
  sslmode: 'PGSSLMODE',
  sslrootcert: 'PGSSLROOTCERT',
  sslcrl: 'PGSSLCRL',
  sslcert: 'PGSSLCERT',
  sslkey: 'PGSSLKEY',
  sslpassword: undefined,
  sslnegotiation: 'PGSSLNEGOTIATION',
  ssl_min_protocol_version: 'PGSSLMINPROTOCOLVERSION',
  ssl_max_protocol_version: 'PGSSLMAXPROTOCOLVERSION',
  channel_binding: 'PGCHANNELBINDING',
  gssencmode: 'PGGSSENCMODE',
  target_session_attrs: 'PGTARGETSESSIONATTRS',
  load_balance_hosts: 'PGLOADBALANCEHOSTS',
  connect_timeout: 'PGCONNECT_TIMEOUT',
  keepalives: undefined,
  keepalives_idle: undefined,
  application_name: 'PGAPPNAME',
  fallback_application_name: undefined,
  client_encoding: undefined,
  options: 'PGOPTIONS',
  // Not libpq's, but written by many.
  search_path: undefined,
  ssl: undefined
}
// Without a meaning here, or with the default's alone.
const ignored: Readonly<Record<string, RegExp>> = {
  keepalives_interval: /^\d*$/,
  keepalives_count: /^\d*$/,
  tcp_user_timeout: /^\d*$/,
  sslcompression: /^0?$/,
  sslsni: /^1?$/,
  sslcertmode: /^(allow)?$/,
  gssdelegation: /^0?$/,
  require_auth: /^$/,
  uselibpqcompat: /^(true|false)?$/
}

const tlsModes = ['disable', 'allow', 'prefer', 'require', 'verify-ca', 'verify-full'] as const
const tlsVersions = ['TLSv1', 'TLSv1.1', 'TLSv1.2', 'TLSv1.3'] as const
const writing = ['any', 'read-write', 'primary'] as const
const encodeAdvice =
  'percent-encode what is special in user and password: @ is %40, / is %2F, : is %3A, ? is %3F, # is %23, % is %25'

/**
 * Reads a database's URL as libpq means it (PostgreSQL, §32.1.1.2), and takes what is special in a password also as it is,
 * as long as it can be read in one way only.
 *
 * @param text `postgres://…` or `postgresql://…`
 * @param options.env libpq's variables (§32.15), which stand in for what the URL does not say; default none
 * @param options.name the variable that held the URL, for messages; default `DATABASE_URL`
 * @param options.canRead whether a file is there and can be read; default asks the disk
 * @throws {ConfigurationError} with every problem; none quotes a password or a part of one
 */
export function parseDatabaseUrl(
  text: string,
  { env = {}, name = 'DATABASE_URL', canRead = isReadable }: ParseOptions = {}
): DatabaseAddress {
  const problems: string[] = []
  const parameters = splitUrl(text, name, problems)
  if (problems.length > 0) {
    throw new ConfigurationError(problems)
  }
  for (const [key, variable] of Object.entries(supported)) {
    const value = variable && env[variable]?.trim()
    if (variable !== undefined && value && !parameters.has(key)) {
      parameters.set(key, { value, from: variable })
    }
  }
  const address = interpret(parameters, { env, name, canRead }, problems)
  if (problems.length > 0) {
    throw new ConfigurationError(problems)
  }
  return address
}

export interface ParseOptions {
  readonly env?: Environment
  readonly name?: string
  readonly canRead?: (path: string) => boolean
}

function isReadable(path: string): boolean {
  try {
    accessSync(path, constants.R_OK)
    return true
  } catch {
    return false
  }
}

// ---- The URL, taken apart

interface Parts {
  readonly user: string
  readonly password: string | undefined
  readonly hosts: string
  readonly database: string
  readonly query: string
}

function splitUrl(text: string, name: string, problems: string[]): Map<string, Parameter> {
  const parameters = new Map<string, Parameter>()
  const scheme = /^postgres(ql)?:\/\//.exec(text)?.[0]
  if (scheme === undefined) {
    problems.push(`${name}: must begin with postgres:// or postgresql://`)
    return parameters
  }
  const rest = text.slice(scheme.length)
  if (hasControlCharacter(rest)) {
    problems.push(`${name}: has a line end or another control character in it`)
    return parameters
  }
  const parts = readParts(rest)
  if (typeof parts === 'string') {
    problems.push(`${name}: ${parts}`)
    return parameters
  }

  const set = (key: string, value: string | undefined) => {
    if (value !== undefined && value !== '') {
      parameters.set(key, { value, from: name })
    }
  }
  const take = (key: string, encoded: string, decode: (text: string) => string | Fault) => {
    const decoded = decode(encoded)
    if (typeof decoded === 'string') {
      set(key, decoded)
    } else {
      problems.push(`${name}: the ${key} ${decoded.fault}`)
    }
  }
  take('user', parts.user, decodeCredential)
  take('password', parts.password ?? '', decodeCredential)
  take('dbname', parts.database, decodeStrictly)
  // Each host apart, since an encoded comma is part of a name.
  const hosts = parts.hosts === '' ? [] : parts.hosts.split(',').map(splitHost)
  if (hosts.length > 0) {
    take('host', hosts.map(({ host }) => host).join(','), decodeStrictly)
    const ports = hosts.map(({ port }) => port)
    set('port', ports.some((port) => port !== '') ? ports.join(',') : undefined)
  }
  for (const pair of parts.query.split('&').filter((part) => part !== '')) {
    const [key = '', ...value] = pair.split('=')
    take(key, value.join('='), decodeStrictly)
  }
  return parameters
}

function splitHost(item: string): { host: string; port: string } {
  const [, bracketed, plain = '', port = ''] = /^(?:\[([^\]]*)\]|([^:]*))(?::(.*))?$/.exec(item) ?? []
  return { host: bracketed ?? plain, port }
}

/**
 * Finds the "@" that ends user and password. A URL that is written as RFC 3986 wants it is read so: its host ends before the
 * first of "/?#". In another, an "@" counts if what follows it can be hosts, a database and parameters; there must be one.
 *
 * @returns what is wrong as text, without a word of the URL
 */
function readParts(rest: string): Parts | string {
  const authority = /^[^/?#]*/.exec(rest)?.[0] ?? ''
  const standardAt = authority.lastIndexOf('@')
  const standard = readAt(rest, standardAt)
  if (typeof standard !== 'string' && (standardAt >= 0 || !rest.includes('@'))) {
    return standard
  }
  const places = [...rest.matchAll(/@/g)].map(({ index }) => index)
  const readings = [standardAt === -1 ? standard : undefined, ...places.map((at) => readAt(rest, at))].filter(
    (reading) => reading !== undefined && typeof reading !== 'string'
  )
  const [only, ...others] = readings
  if (only !== undefined && others.length === 0) {
    return only
  }
  if (others.length > 0) {
    return `can be read in more than one way: ${encodeAdvice}`
  }
  const last = readAt(rest, rest.lastIndexOf('@'))
  return typeof last === 'string' ? `${last}; ${encodeAdvice}` : encodeAdvice
}

function readAt(rest: string, at: number): Parts | string {
  const before = at < 0 ? '' : rest.slice(0, at)
  const after = rest.slice(at + 1)
  const colon = before.indexOf(':')
  const user = colon < 0 ? before : before.slice(0, colon)
  const password = colon < 0 ? undefined : before.slice(colon + 1)
  if (/[/?#]/.test(user)) {
    return 'the user has a "/", "?" or "#" in it'
  }
  const [, hosts = '', database = '', query = ''] = /^([^/?]*)(?:\/([^?]*))?(?:\?(.*))?$/.exec(after) ?? []
  const fault = faultOfHosts(hosts) ?? faultOfDatabase(database) ?? faultOfQuery(query, !rest.includes('@', at + 1))
  return fault ?? { user, password, hosts, database, query }
}

function faultOfHosts(hosts: string): string | undefined {
  if (hosts === '') {
    return undefined
  }
  for (const item of hosts.split(',')) {
    if (/^[0-9a-f]*:[0-9a-f:]*:[0-9a-f:.]*$/i.test(item)) {
      return 'an IPv6 address must stand in brackets'
    }
    const { host, port } = splitHost(item)
    if (!isPort(port)) {
      return 'a port is no number from 1 to 65535'
    }
    const isAddress = item.startsWith('[')
    if (isAddress ? !/^[0-9a-f:.]+(%[\w.-]+)?$/i.test(host) : !/^([\p{L}\p{N}._~-]|%[0-9a-f]{2})*$/iu.test(host)) {
      return 'a host has a character in it that no host has'
    }
  }
  return undefined
}

function faultOfDatabase(database: string): string | undefined {
  return /[/@#]/.test(database)
    ? 'the database has a "/", "@" or "#" in it, which must be written %2F, %40 or %23'
    : undefined
}

/** @param mayQuote whether the parameters can be no part of a password */
function faultOfQuery(query: string, mayQuote: boolean): string | undefined {
  for (const pair of query.split('&').filter((part) => part !== '')) {
    const [key = ''] = pair.split('=')
    const quoted = mayQuote && /^[\w.-]{1,40}$/.test(key) ? ` "${key}"` : ''
    if (!pair.includes('=')) {
      return `a parameter${quoted} has no "="`
    }
    if (!Object.hasOwn(supported, key) && !Object.hasOwn(ignored, key)) {
      return `a parameter${quoted} is not known or not supported here (settings of the session: options=-c name=value)`
    }
    if (pair.includes('#')) {
      return `the parameter${quoted} has a "#" in it, which must be written %23`
    }
  }
  return undefined
}

function isPort(port: string): boolean {
  return port === '' || (/^\d{1,5}$/.test(port) && Number(port) >= 1 && Number(port) <= 65_535)
}

function hasControlCharacter(text: string): boolean {
  return /\p{Cc}/u.test(text)
}

interface Fault {
  readonly fault: string
}

function decodeStrictly(text: string): string | Fault {
  if (/%(?![0-9a-f]{2})/i.test(text)) {
    return { fault: 'has a "%" that begins no %XX: write it %25' }
  }
  return decodeEscapes(text)
}

/** A "%" may stand for itself, unless others begin an escape. */
function decodeCredential(text: string): string | Fault {
  const hasBare = /%(?![0-9a-f]{2})/i.test(text)
  const hasEscape = /%[0-9a-f]{2}/i.test(text)
  if (hasBare && hasEscape) {
    return { fault: 'can be read in more than one way: write each "%" that stands for itself %25' }
  }
  return hasBare ? text : decodeEscapes(text)
}

function decodeEscapes(text: string): string | Fault {
  try {
    const decoded = decodeURIComponent(text)
    return decoded.includes('\0') ? { fault: 'has a zero byte in it' } : decoded
  } catch {
    return { fault: 'is not UTF-8 when decoded' }
  }
}

// ---- What the parameters mean

function interpret(
  parameters: Map<string, Parameter>,
  { env, name, canRead }: Required<ParseOptions>,
  problems: string[]
): DatabaseAddress {
  const get = (key: string) => parameters.get(key)?.value
  const tell = (key: string, problem: string) => {
    problems.push(`${parameters.get(key)?.from ?? name}: ${key}: ${problem}`)
  }
  const oneOf = <Value extends string>(key: string, values: readonly Value[]): Value | undefined => {
    const value = get(key)
    const found = values.find((known) => known === value)
    if (value !== undefined && found === undefined) {
      tell(key, `must be one of ${values.join(', ')}`)
    }
    return found
  }
  const seconds = (key: string): number | undefined => {
    const value = get(key)
    if (value !== undefined && !/^-?\d{1,7}$/.test(value)) {
      tell(key, 'must be whole seconds')
      return undefined
    }
    return value === undefined || Number(value) <= 0 ? undefined : Number(value)
  }

  for (const [key, accepted] of Object.entries(ignored)) {
    const value = get(key)
    if (value !== undefined && !accepted.test(value)) {
      tell(key, 'is not supported')
    }
  }
  const encoding = get('client_encoding')
  if (encoding !== undefined && !/^(utf-?8|unicode|auto)$/i.test(encoding)) {
    tell('client_encoding', 'must be UTF8')
  }
  if (get('gssencmode') === 'require') {
    tell('gssencmode', 'GSSAPI is not supported')
  }
  const role = get('target_session_attrs')
  if (role === 'read-only' || role === 'standby' || role === 'prefer-standby') {
    tell('target_session_attrs', 'must be any, read-write or primary: the service writes')
  } else {
    oneOf('target_session_attrs', writing)
  }

  const hosts = readHosts(get, tell)
  const user = get('user') ?? readSystemUser(env)
  if (user === undefined) {
    problems.push(`${name}: names no role: postgres://<role>@…, or set PGUSER`)
  }
  const { options, startupOptions, fault } = readOptions(get('options') ?? '')
  if (fault !== undefined) {
    tell('options', fault)
  }
  const searchPath = get('search_path')

  return Object.freeze({
    hosts,
    user: user ?? '',
    password: get('password'),
    passwordFile: readPasswordFile(get('passfile'), env, canRead, (problem) => tell('passfile', problem)),
    database: get('dbname') ?? user ?? '',
    ...readTls(get, oneOf, tell, env, canRead),
    needsChannelBinding: oneOf('channel_binding', ['disable', 'prefer', 'require']) === 'require',
    // Who names several servers means the one that takes writes, since that is all that is of use here.
    targetSession: role === 'any' || (role === undefined && hosts.length < 2) ? 'any' : 'read-write',
    isBalanced: oneOf('load_balance_hosts', ['disable', 'random']) === 'random',
    connectTimeoutSeconds: seconds('connect_timeout'),
    keepsAlive: get('keepalives') !== '0',
    keepAliveIdleSeconds: seconds('keepalives_idle'),
    applicationName: get('application_name') ?? get('fallback_application_name'),
    settings: Object.freeze({ ...options, ...(searchPath !== undefined && { search_path: searchPath }) }),
    startupOptions
  })
}

type Get = (key: string) => string | undefined
type Tell = (key: string, problem: string) => void

function readHosts(get: Get, tell: Tell): DatabaseHost[] {
  const addresses = get('hostaddr')?.split(',') ?? []
  const names = get('host')?.split(',') ?? addresses.map(() => '')
  const ports = get('port')?.split(',') ?? ['']
  if (addresses.length > 0 && addresses.length !== names.length) {
    tell('hostaddr', 'must name as many as host does')
  }
  if (ports.length > 1 && ports.length !== Math.max(names.length, 1)) {
    tell('port', 'must be one, or as many as there are hosts')
  }
  if (!ports.every(isPort)) {
    tell('port', 'must be a number from 1 to 65535')
  }
  return (names.length === 0 ? [''] : names).map((host, i) => ({
    host: host === '' ? (addresses[i] ?? 'localhost') : host,
    port: Number((ports.length > 1 ? ports[i] : ports[0]) || 5432),
    address: addresses[i] || undefined
  }))
}

/** The system's name of the user, as libpq takes it; in a container that is often a number, or missing. */
function readSystemUser({ USER, LOGNAME, USERNAME }: Environment): string | undefined {
  return [USER, LOGNAME, USERNAME].find((user) => user !== undefined && user !== '' && !/^\d+$/.test(user))
}

function readPasswordFile(
  given: string | undefined,
  { HOME }: Environment,
  canRead: (path: string) => boolean,
  tell: (problem: string) => void
): string | undefined {
  if (given !== undefined && !canRead(given)) {
    tell(`cannot read "${given}"`)
  }
  const own = HOME === undefined ? undefined : `${HOME}/.pgpass`
  return given ?? (own !== undefined && canRead(own) ? own : undefined)
}

function readTls(
  get: Get,
  oneOf: <Value extends string>(key: string, values: readonly Value[]) => Value | undefined,
  tell: Tell,
  { HOME }: Environment,
  canRead: (path: string) => boolean
): Pick<DatabaseAddress, 'tlsMode' | 'tlsFiles' | 'keyPassword' | 'minTlsVersion' | 'maxTlsVersion' | 'isTlsDirect'> {
  const own = (file: string) => {
    const path = `${HOME}/.postgresql/${file}`
    return HOME !== undefined && canRead(path) ? path : undefined
  }
  const trustsSystem = get('sslrootcert') === 'system'
  // libpq knows `ssl=true` from JDBC.
  const asked = get('ssl') === 'true' || get('ssl') === '1' ? 'require' : undefined
  if (get('ssl') !== undefined && asked === undefined) {
    tell('ssl', 'must be true; other modes are sslmode')
  }
  const mode = oneOf('sslmode', tlsModes) ?? asked ?? (trustsSystem ? 'verify-full' : 'prefer')
  if (trustsSystem && mode !== 'verify-full') {
    tell('sslmode', 'must be verify-full where sslrootcert is "system": anybody can have a certificate for some name')
  }
  const files: TlsFiles = {
    rootCert: trustsSystem ? undefined : (get('sslrootcert') ?? own('root.crt')),
    revoked: get('sslcrl') ?? own('root.crl'),
    cert: get('sslcert') ?? own('postgresql.crt'),
    key: get('sslkey') ?? own('postgresql.key')
  }
  for (const [key, path] of [
    ['sslrootcert', files.rootCert],
    ['sslcrl', files.revoked],
    ['sslcert', files.cert],
    ['sslkey', files.key]
  ] as const) {
    if (mode !== 'disable' && path !== undefined && !canRead(path)) {
      tell(key, `cannot read "${path}"`)
    }
  }
  if (mode !== 'disable' && (files.cert === undefined) !== (files.key === undefined)) {
    tell(files.cert === undefined ? 'sslkey' : 'sslcert', 'sslcert and sslkey go together')
  }
  if (mode === 'verify-ca' && files.rootCert === undefined) {
    tell('sslmode', 'verify-ca needs sslrootcert: else any certificate that somebody was given would do')
  }
  const isTlsDirect = oneOf('sslnegotiation', ['postgres', 'direct']) === 'direct'
  if (isTlsDirect && (mode === 'disable' || mode === 'allow' || mode === 'prefer')) {
    tell('sslnegotiation', 'direct needs sslmode require, verify-ca or verify-full')
  }
  return {
    // libpq: `require` with authorities at hand is `verify-ca`.
    tlsMode: mode === 'require' && files.rootCert !== undefined ? 'verify-ca' : mode,
    tlsFiles: files,
    keyPassword: get('sslpassword'),
    minTlsVersion: oneOf('ssl_min_protocol_version', tlsVersions),
    maxTlsVersion: oneOf('ssl_max_protocol_version', tlsVersions),
    isTlsDirect
  }
}

/** `-c name=value`, `-cname=value` and `--name=value`, as the server reads them: words end at blanks, "\" takes away a meaning. */
function readOptions(text: string): {
  options: Record<string, string>
  startupOptions: string | undefined
  fault: string | undefined
} {
  const words = (text.match(/(?:\\.|[^\s\\])+/gs) ?? []).map((word) => word.replace(/\\(.)/gs, '$1'))
  const options: Record<string, string> = {}
  const others: string[] = []
  let fault: string | undefined
  for (let i = 0; i < words.length; i++) {
    const word = words[i] ?? ''
    let setting: string | undefined
    if (word === '-c') {
      setting = words[++i] ?? ''
    } else if (word.startsWith('-c')) {
      setting = word.slice(2)
    } else if (word.startsWith('--')) {
      setting = word.slice(2).replace(/^[^=]*/, (name) => name.replaceAll('-', '_'))
    }
    if (setting === undefined) {
      if (word.startsWith('-')) {
        fault = 'takes settings alone: -c name=value'
      }
      others.push(word)
      continue
    }
    const [, name, value] = /^([a-z_][\w.]*)=(.*)$/is.exec(setting) ?? []
    if (name === undefined || value === undefined) {
      fault = 'must have a name and a value after each -c: -c name=value'
    } else {
      options[name] = value
    }
  }
  return { options, startupOptions: others.length === 0 ? undefined : others.join(' '), fault }
}

// ---- One URL that says it all

/**
 * The address as one URL, in which everything stands that a variable or a default file has added: its reader needs
 * neither. It holds the password, and is no text for people.
 */
export function formatDatabaseUrl(address: DatabaseAddress): string {
  const { hosts, user, password, database, tlsFiles } = address
  const encode = encodeURIComponent
  const inAuthority = hosts.every(({ host }) => !host.startsWith('/'))
  const hostOf = ({ host, port }: DatabaseHost) =>
    `${host.includes(':') ? `[${host}]` : encode(host)}${port === 5432 ? '' : `:${port}`}`
  const settings = Object.entries(address.settings).map(
    ([name, value]) => `-c ${name}=${value.replace(/[\\\s]/g, '\\$&')}`
  )
  const options = [...settings, ...(address.startupOptions === undefined ? [] : [address.startupOptions])].join(' ')
  const parameters: [string, string | number | undefined][] = [
    ['host', inAuthority ? undefined : hosts.map(({ host }) => host).join(',')],
    ['port', inAuthority ? undefined : hosts.map(({ port }) => port).join(',')],
    ['hostaddr', hosts.some((host) => host.address) ? hosts.map((host) => host.address ?? '').join(',') : undefined],
    ['passfile', address.passwordFile],
    ['sslmode', address.tlsMode === 'prefer' ? undefined : address.tlsMode],
    ['sslrootcert', tlsFiles.rootCert],
    ['sslcrl', tlsFiles.revoked],
    ['sslcert', tlsFiles.cert],
    ['sslkey', tlsFiles.key],
    ['sslpassword', address.keyPassword],
    ['ssl_min_protocol_version', address.minTlsVersion],
    ['ssl_max_protocol_version', address.maxTlsVersion],
    ['sslnegotiation', address.isTlsDirect ? 'direct' : undefined],
    ['channel_binding', address.needsChannelBinding ? 'require' : undefined],
    [
      'target_session_attrs',
      (address.targetSession === 'any') === hosts.length < 2 ? undefined : address.targetSession
    ],
    ['load_balance_hosts', address.isBalanced ? 'random' : undefined],
    ['connect_timeout', address.connectTimeoutSeconds],
    ['keepalives', address.keepsAlive ? undefined : 0],
    ['keepalives_idle', address.keepAliveIdleSeconds],
    ['application_name', address.applicationName],
    ['options', options === '' ? undefined : options]
  ]
  const query = parameters
    .filter(([, value]) => value !== undefined)
    .map(([key, value]) => `${key}=${encode(String(value))}`)
    .join('&')
  const credentials = `${encode(user)}${password === undefined ? '' : `:${encode(password)}`}@`
  const authority = inAuthority ? hosts.map(hostOf).join(',') : ''
  return `postgres://${credentials}${authority}/${encode(database)}${query === '' ? '' : `?${query}`}`
}

/**
 * The URL for a log line: role, hosts, database and how it is encrypted; neither password nor settings.
 *
 * @param url as {@link formatDatabaseUrl} writes it
 */
export function withoutCredentials(url: string): string {
  const address = parseDatabaseUrl(url)
  return formatDatabaseUrl({
    ...address,
    password: undefined,
    keyPassword: undefined,
    settings: {},
    startupOptions: undefined
  })
}

import { isIP } from 'node:net'
import { type Static, Type } from 'typebox'
import { Value } from 'typebox/value'
import { checkUrl, hasInvisible } from './configured-url.ts'
import { formatDatabaseUrl, parseDatabaseUrl } from './database-url.ts'
import { type DecryptionKey, readDecryptionKey } from './decryption-key.ts'
import { checkWatchedOnce, DirectorySchema, readDirectory } from './directory-config.ts'
import { hasDuplicateName } from './duplicate-name.ts'
import { ConfigurationError } from './errors.ts'
import type { IssuerConfig } from './issuers.ts'
import { type Proxies, readProxies } from './proxies.ts'
import { readSecretFile, readText } from './secret-file.ts'
import { checkStreamNames, readStream, type StreamConfig, StreamSchema } from './stream-config.ts'

// Asymmetric signatures only: with HMAC every app that holds the client secret could sign logouts.
const algorithms = [
  'RS256',
  'RS384',
  'RS512',
  'PS256',
  'PS384',
  'PS512',
  'ES256',
  'ES384',
  'ES512',
  'EdDSA',
  'Ed25519'
] as const

const closed = { additionalProperties: false }
const text = Type.String({ minLength: 1 })

const IssuerSchema = Type.Object(
  {
    name: Type.String({ pattern: '^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$' }),
    issuer: text,
    clientIds: Type.Array(text, { minItems: 1 }),
    tenants: Type.Optional(Type.Array(text, { minItems: 1 })),
    jwksUri: Type.Optional(text),
    algorithms: Type.Optional(Type.Array(Type.Enum([...algorithms]), { minItems: 1 })),
    types: Type.Optional(Type.Array(Type.Union([text, Type.Null()]), { minItems: 1 })),
    maxStaleKeysSeconds: Type.Optional(Type.Integer({ minimum: 0, maximum: 30 * 86_400 })),
    requireEncryption: Type.Optional(Type.Boolean()),
    requireExp: Type.Optional(Type.Boolean()),
    maxTokenAgeSeconds: Type.Optional(Type.Integer({ minimum: 1, maximum: 86_400 })),
    clockToleranceSeconds: Type.Optional(Type.Integer({ minimum: 0, maximum: 600 })),
    sidAndSubject: Type.Optional(Type.Enum(['session', 'subject'])),
    purgeScope: Type.Optional(Type.Enum(['account', 'session'])),
    frontChannel: Type.Optional(Type.Boolean()),
    directory: Type.Optional(DirectorySchema)
  },
  closed
)
const DecryptionKeySchema = Type.Object(
  { file: text, kid: Type.Optional(text), publish: Type.Optional(Type.Boolean()) },
  closed
)
const IssuersFileSchema = Type.Object(
  {
    issuers: Type.Array(IssuerSchema, { minItems: 1 }),
    // A token without a `kid` is tried with each.
    decryptionKeys: Type.Optional(Type.Array(DecryptionKeySchema, { minItems: 1, maxItems: 8 })),
    streams: Type.Optional(Type.Array(StreamSchema, { minItems: 1 }))
  },
  closed
)

const issuerDefaults: Omit<IssuerConfig, 'name' | 'issuer' | 'clientIds'> = {
  algorithms: ['RS256'],
  types: ['logout+jwt', 'JWT', null],
  maxStaleKeysSeconds: 86_400,
  requireEncryption: false,
  requireExp: true,
  maxTokenAgeSeconds: 600,
  clockToleranceSeconds: 60,
  sidAndSubject: 'session',
  purgeScope: 'account',
  frontChannel: true,
  jwksUri: undefined,
  tenants: undefined,
  directory: undefined
}

/** Which JWT access tokens let an operator in. */
export interface AdminAccessTokens {
  readonly issuer: IssuerConfig
  readonly audience: string
  /** Looked for in the claim `roles`. */
  readonly role: string
}

export interface Config {
  /** As one URL that needs no other variable; undefined: an embedded PostgreSQL is started. */
  readonly databaseUrl: string | undefined
  readonly host: string
  readonly port: number
  readonly adminHost: string
  readonly adminPort: number
  /** The names that the operators' listener goes by, beside addresses and `localhost`; empty: any but what a page could have led here. In lower case. */
  readonly adminHosts: readonly string[]
  readonly adminToken: string | undefined
  /** Operators' JWT access tokens; undefined: none are accepted. */
  readonly adminAccessTokens: AdminAccessTokens | undefined
  /** Addresses or CIDR ranges whose `X-Forwarded-For` is believed. */
  readonly trustedProxies: readonly string[]
  /** Where the public listener is reached from outside, without a slash at the end; one is enough. */
  readonly publicUrls: readonly string[]
  /** What issuers are asked through. */
  readonly proxies: Proxies
  readonly spoolDir: string
  /** How many processes answer the public listener. With 1 there is one process, which does all. */
  readonly workers: number
  /** How long new connections are still served after SIGTERM, while `/readyz` already says no. */
  readonly drainSeconds: number
  readonly logLevel: string
  readonly issuers: readonly IssuerConfig[]
  /** Ours, to decrypt tokens with; and whether each is published, for issuers to encrypt with. */
  readonly decryptionKeys: readonly (DecryptionKey & { readonly isPublished: boolean })[]
  /** Streams of security events. */
  readonly streams: readonly StreamConfig[]
  /** What was set and is not used, each naming its variable and saying why: for a warning. */
  readonly ignored: readonly string[]
}

/** A configuration as plain data, for another process of this release. */
export type PackedConfig = Omit<Config, 'decryptionKeys'> & {
  readonly decryptionKeys: readonly { readonly jwk: string; readonly kid: string; readonly isPublished: boolean }[]
}

/** What another process makes the same configuration of. It holds secrets. */
export function packConfig({ decryptionKeys, ...config }: Config): PackedConfig {
  return {
    ...config,
    decryptionKeys: decryptionKeys.map(({ privateKey, kid, isPublished }) => ({
      jwk: JSON.stringify(privateKey.export({ format: 'jwk' })),
      kid,
      isPublished
    }))
  }
}

/** @throws if it is not what {@link packConfig} made */
export function unpackConfig({ decryptionKeys, ...config }: PackedConfig): Config {
  return Object.freeze({
    ...config,
    decryptionKeys: decryptionKeys.map(({ jwk, kid, isPublished }) => {
      const key = readDecryptionKey(jwk, kid)
      if ('problem' in key) {
        throw new Error(`the key "${kid}" ${key.problem}`)
      }
      return { ...key, isPublished }
    })
  })
}

type Environment = Readonly<Record<string, string | undefined>>

const secretNames = ['DATABASE_URL', 'ADMIN_TOKEN'] as const
/** Every variable of ours. */
export const variableNames: readonly string[] = [
  ...secretNames,
  ...secretNames.map((name) => `${name}_FILE`),
  'HOST',
  'PORT',
  'ADMIN_HOST',
  'ADMIN_PORT',
  'ADMIN_HOSTS',
  'ISSUER',
  'CLIENT_IDS',
  'ISSUERS_FILE',
  'ADMIN_ISSUER',
  'ADMIN_AUDIENCE',
  'ADMIN_ROLE',
  'TRUSTED_PROXIES',
  'PUBLIC_URL',
  'SPOOL_DIR',
  'WORKERS',
  'DRAIN_SECONDS',
  'LOG_LEVEL'
]
// How ours begin. HOST, PORT, WORKERS and LOG_… are everybody's.
const ourBeginnings = /^(DATABASE|ADMIN|ISSUERS?|CLIENT|TRUSTED|PUBLIC|SPOOL|DRAIN)_|^(HOST|PORT|LOG_LEVEL)_/
const maxIssuersBytes = 16 * 1024 * 1024

/** A value, and the variable that it is a problem of. */
interface Given {
  readonly value: string
  readonly from: string
}

/**
 * Reads the environment once into a frozen object. White space around a value is no part of it.
 *
 * @param env the variables, as in `process.env`; an empty one counts as absent
 * @throws {ConfigurationError} with every problem, each naming its variable
 */
export function readConfig(env: Environment): Config {
  const problems: string[] = []
  const ignored: string[] = []
  const get = createGet(env, problems)
  checkFileNames(env, problems)

  const publicPort = port('PORT', get('PORT'), 3000, problems, ignored)
  const ownUrls = publicUrls(get('PUBLIC_URL'), publicPort, problems)
  const config: Config = {
    databaseUrl: databaseUrl(readSecret('DATABASE_URL', get, problems), env, problems),
    host: host('HOST', get('HOST'), '0.0.0.0', problems),
    port: publicPort,
    adminHost: host('ADMIN_HOST', get('ADMIN_HOST'), '127.0.0.1', problems),
    adminPort: port('ADMIN_PORT', get('ADMIN_PORT'), 3001, problems, ignored),
    adminHosts: adminHosts(get('ADMIN_HOSTS'), problems),
    adminToken: adminToken(readSecret('ADMIN_TOKEN', get, problems), problems),
    adminAccessTokens: adminAccessTokens(get, problems),
    trustedProxies: trustedProxies(get('TRUSTED_PROXIES'), problems),
    publicUrls: ownUrls,
    proxies: readProxies(env, problems),
    spoolDir: spoolDir(get('SPOOL_DIR'), problems),
    workers: workers(get('WORKERS'), problems),
    drainSeconds: drainSeconds(get('DRAIN_SECONDS'), problems),
    logLevel: logLevel(get('LOG_LEVEL'), problems),
    ...readIssuers(get, ownUrls, problems),
    ignored
  }
  checkListeners(config, problems)
  if (problems.length > 0) {
    throw new ConfigurationError(problems)
  }
  return Object.freeze(config)
}

/**
 * What `migrate` needs: `DATABASE_URL`, or its file, alone.
 *
 * @throws {ConfigurationError} with every problem
 */
export function readDatabaseUrl(env: Environment): string | undefined {
  return alone(env, (get, problems) => databaseUrl(readSecret('DATABASE_URL', get, problems), env, problems))
}

/**
 * What looking into the spool needs: `SPOOL_DIR` alone.
 *
 * @throws {ConfigurationError} with every problem
 */
export function readSpoolDir(env: Environment): string {
  return alone(env, (get, problems) => spoolDir(get('SPOOL_DIR'), problems))
}

type Get = (name: string) => string | undefined

function alone<Value>(env: Environment, read: (get: Get, problems: string[]) => Value): Value {
  const problems: string[] = []
  const value = read(createGet(env, problems), problems)
  if (problems.length > 0) {
    throw new ConfigurationError(problems)
  }
  return value
}

/** Docker keeps the quotation marks of an `--env-file`, which no shell would. */
function createGet(env: Environment, problems: string[]): Get {
  const known = new Set<string>()
  return (name) => {
    const value = env[name]?.trim()
    if (value !== undefined && /^(["']).*\1$/s.test(value) && !known.has(name)) {
      known.add(name)
      problems.push(`${name}: must not stand in quotation marks: they are part of the value`)
    }
    return value || undefined
  }
}

/** A misspelt `…_FILE` would be a secret that nobody reads. */
function checkFileNames(env: Environment, problems: string[]): void {
  for (const name of Object.keys(env).sort()) {
    if (name.endsWith('_FILE') && ourBeginnings.test(name) && !variableNames.includes(name) && env[name]) {
      problems.push(
        `${name}: is not known; files are ${variableNames.filter((known) => known.endsWith('_FILE')).join(', ')}`
      )
    }
  }
}

/** A secret itself, or what stands in the file that `…_FILE` names. */
function readSecret(name: (typeof secretNames)[number], get: Get, problems: string[]): Given | undefined {
  const value = get(name)
  const from = `${name}_FILE`
  const path = get(from)
  if (path === undefined) {
    return value === undefined ? undefined : { value, from: name }
  }
  if (value !== undefined) {
    problems.push(`${from}: give either this or ${name}, not both`)
    return undefined
  }
  const content = readSecretFile(path)
  if ('problem' in content) {
    problems.push(`${from}: ${content.problem}`)
    return undefined
  }
  return { value: content.text, from }
}

function databaseUrl(given: Given | undefined, env: Environment, problems: string[]): string | undefined {
  if (given === undefined) {
    return undefined
  }
  try {
    return formatDatabaseUrl(parseDatabaseUrl(given.value, { env, name: given.from }))
  } catch (error) {
    if (!(error instanceof ConfigurationError)) {
      throw error
    }
    problems.push(...error.problems)
    return undefined
  }
}

function host(name: string, value: string | undefined, fallback: string, problems: string[]): string {
  if (value !== undefined && isIP(value) === 0 && !/^[\p{L}\p{N}._-]+$/u.test(value)) {
    problems.push(`${name}: must be an address or a name, without a port`)
  }
  return value ?? fallback
}

function port(
  name: string,
  value: string | undefined,
  fallback: number,
  problems: string[],
  ignored: string[]
): number {
  if (value === undefined) {
    return fallback
  }
  // Kubernetes, and Docker's links, set `<SERVICE>_PORT=tcp://…` for a service that is called so. Nobody has set ours then.
  if (/^(tcp|udp|sctp):\/\//.test(value)) {
    ignored.push(
      `${name}: holds the address of a service, which an orchestrator has put there, and is ignored: ${fallback} it is; ` +
        `set ${name}, rename that service, or set enableServiceLinks: false`
    )
    return fallback
  }
  if (!/^\d{1,5}$/.test(value) || Number(value) > 65_535) {
    problems.push(`${name}: must be a port number, 0 to 65535`)
  }
  return Number(value)
}

function checkListeners({ host, port, adminHost, adminPort }: Config, problems: string[]): void {
  const isEverywhere = (address: string) => address === '0.0.0.0' || address === '::'
  if (port === adminPort && port > 0 && (host === adminHost || isEverywhere(host) || isEverywhere(adminHost))) {
    problems.push('ADMIN_PORT: must differ from PORT')
  }
}

function spoolDir(value: string | undefined, problems: string[]): string {
  if (value !== undefined && /\p{Cc}/u.test(value)) {
    problems.push('SPOOL_DIR: has a line end or another control character in it')
  }
  return value ?? '.data/spool'
}

const maxWorkers = 64

function workers(value: string | undefined, problems: string[]): number {
  if (value !== undefined && !(/^\d{1,3}$/.test(value) && Number(value) >= 1 && Number(value) <= maxWorkers)) {
    problems.push(`WORKERS: must be a number of processes, 1 to ${maxWorkers}`)
  }
  return Number(value ?? 1)
}

function drainSeconds(value: string | undefined, problems: string[]): number {
  if (value !== undefined && (!/^\d{1,4}$/.test(value) || Number(value) > 3_600)) {
    problems.push('DRAIN_SECONDS: must be whole seconds, 0 to 3600')
  }
  return Number(value ?? 0)
}

function adminToken(given: Given | undefined, problems: string[]): string | undefined {
  if (given === undefined) {
    return undefined
  }
  const { value, from } = given
  if (value.length < 32) {
    problems.push(`${from}: must have 32 characters or more`)
  }
  if (!/^[\x21-\x7e]*$/.test(value)) {
    // No header bears it, so that nobody could ever sign in.
    problems.push(`${from}: must have neither blanks nor line ends in it, and no characters but those of ASCII`)
  }
  return value
}

function adminAccessTokens(get: Get, problems: string[]): AdminAccessTokens | undefined {
  const all = ['ADMIN_ISSUER', 'ADMIN_AUDIENCE', 'ADMIN_ROLE']
  const missing = all.filter((name) => get(name) === undefined)
  if (missing.length === all.length) {
    return undefined
  }
  for (const name of missing) {
    problems.push(`${name}: must be given, since ${all.filter((other) => !missing.includes(other)).join(' and ')} is`)
  }
  const issuer = get('ADMIN_ISSUER') ?? ''
  if (issuer !== '') {
    checkUrl('ADMIN_ISSUER', issuer, problems)
  }
  if (/[{}]/.test(issuer)) {
    problems.push('ADMIN_ISSUER: must be one issuer, not a template') // or any tenant could name operators
  }
  const audience = get('ADMIN_AUDIENCE') ?? ''
  return Object.freeze({
    issuer: Object.freeze({
      ...complete({ name: 'operators', issuer, clientIds: [audience] }),
      algorithms,
      types: ['at+jwt', 'JWT', null]
    }),
    audience,
    role: get('ADMIN_ROLE') ?? ''
  })
}

function adminHosts(value: string | undefined, problems: string[]): string[] {
  const hosts = listOf(value).map((host) => host.toLowerCase())
  if (!hosts.every((host) => /^[a-z\d_-]+(\.[a-z\d_-]+)*$/.test(host))) {
    problems.push('ADMIN_HOSTS: must be host names, comma separated, without scheme and port')
  }
  return hosts
}

function listOf(value = ''): string[] {
  return value
    .split(',')
    .map((item) => item.trim())
    .filter((item) => item !== '')
}

function trustedProxies(value: string | undefined, problems: string[]): string[] {
  const proxies = listOf(value)
  const isRange = (proxy: string) => {
    const [address = '', prefix, ...rest] = proxy.split('/')
    const bits = isIP(address) === 4 ? 32 : isIP(address) === 6 ? 128 : -1
    return (
      rest.length === 0 && bits > 0 && (prefix === undefined || (/^\d{1,3}$/.test(prefix) && Number(prefix) <= bits))
    )
  }
  if (!proxies.every(isRange)) {
    problems.push('TRUSTED_PROXIES: must be addresses or CIDR ranges, comma separated')
  }
  return proxies
}

/** Without a variable those of a try on this machine: no program elsewhere could be sent there. */
function publicUrls(value: string | undefined, port: number, problems: string[]): string[] {
  if (value === undefined) {
    return [`http://localhost:${port}`, `http://127.0.0.1:${port}`]
  }
  checkUrl('PUBLIC_URL', value, problems)
  if (value.includes('?')) {
    problems.push('PUBLIC_URL: must have no query')
  }
  return [value.replace(/\/+$/, '')]
}

function logLevel(value: string | undefined, problems: string[]): string {
  const levels = ['fatal', 'error', 'warn', 'info', 'debug', 'trace', 'silent']
  if (value !== undefined && !levels.includes(value)) {
    problems.push(`LOG_LEVEL: must be one of ${levels.join(', ')}`)
  }
  return value ?? 'info'
}

/** What `ISSUERS_FILE` holds, or the short form of it. */
type Trusted = Pick<Config, 'issuers' | 'decryptionKeys' | 'streams'>

function readIssuers(get: Get, publicUrls: readonly string[], problems: string[]): Trusted {
  const file = get('ISSUERS_FILE')
  const issuer = get('ISSUER')
  const clientIds = get('CLIENT_IDS')
  if (file !== undefined) {
    if (issuer !== undefined || clientIds !== undefined) {
      problems.push('ISSUERS_FILE: give either this, or ISSUER and CLIENT_IDS, not both')
    }
    return trustedFromFile(file, publicUrls, problems)
  }
  return { issuers: issuerFromVariables(issuer, clientIds, problems), decryptionKeys: [], streams: [] }
}

function issuerFromVariables(
  issuer: string | undefined,
  clientIds: string | undefined,
  problems: string[]
): IssuerConfig[] {
  if (issuer === undefined && clientIds === undefined) {
    problems.push('ISSUER: give ISSUER and CLIENT_IDS, or ISSUERS_FILE')
    return []
  }
  const ids = listOf(clientIds)
  if (ids.length === 0) {
    problems.push('CLIENT_IDS: must name the client ids of ISSUER, comma separated')
  }
  checkClientIds('CLIENT_IDS', ids, problems)
  if (issuer === undefined) {
    problems.push('ISSUER: must be given with CLIENT_IDS')
    return []
  }
  checkUrl('ISSUER', issuer, problems)
  checkTemplate('ISSUER', issuer, undefined, problems)
  return [complete({ name: 'default', issuer, clientIds: ids })]
}

function trustedFromFile(path: string, publicUrls: readonly string[], problems: string[]): Trusted {
  const nothing = { issuers: [], decryptionKeys: [], streams: [] }
  const file = readText(path, maxIssuersBytes)
  if ('problem' in file) {
    problems.push(`ISSUERS_FILE: ${file.problem}`)
    return nothing
  }
  let content: unknown
  try {
    content = trimmed(JSON.parse(file.text))
  } catch (error) {
    problems.push(`ISSUERS_FILE: is not JSON${placeOf(error, file.text)}`)
    return nothing
  }
  if (typeof content === 'object' && content !== null && hasDuplicateName(file.text, content)) {
    problems.push('ISSUERS_FILE: has a member twice in one object: the first one would be lost')
    return nothing
  }
  if (!Value.Check(IssuersFileSchema, content)) {
    for (const problem of schemaProblems(content)) {
      problems.push(`ISSUERS_FILE: ${problem}`)
    }
    return nothing
  }
  const seenNames = new Set<string>()
  const seenIssuers = new Set<string>()
  const configs = content.issuers.map(({ directory, ...entry }, i) => {
    const at = (member: string) => `ISSUERS_FILE: issuers[${i}].${member}`
    checkUrl(at('issuer'), entry.issuer, problems)
    checkTemplate(at('issuer'), entry.issuer, entry.tenants, problems)
    if (entry.jwksUri !== undefined) {
      checkUrl(at('jwksUri'), entry.jwksUri, problems)
    }
    if (seenNames.has(entry.name)) {
      problems.push(`${at('name')}: "${entry.name}" is given twice`)
    }
    if (seenIssuers.has(entry.issuer)) {
      problems.push(`${at('issuer')}: "${entry.issuer}" is given twice`)
    }
    checkClientIds(at('clientIds'), entry.clientIds, problems)
    if (entry.requireEncryption === true && content.decryptionKeys === undefined) {
      problems.push(`${at('requireEncryption')}: needs "decryptionKeys"`)
    }
    seenNames.add(entry.name)
    seenIssuers.add(entry.issuer)
    const watched = directory && readDirectory(at('directory'), directory, entry, problems)
    return complete({ ...entry, directory: watched })
  })
  checkWatchedOnce(
    configs.flatMap(({ directory }, i) =>
      directory === undefined ? [] : [{ name: `ISSUERS_FILE: issuers[${i}].directory`, tenants: directory.tenants }]
    ),
    problems
  )
  const streams = content.streams ?? []
  checkStreamNames(streams, problems)
  return {
    issuers: configs,
    decryptionKeys: readDecryptionKeys(content.decryptionKeys ?? [], problems),
    streams: streams.map((entry, i) =>
      readStream(`ISSUERS_FILE: streams[${i}]`, entry, { issuers: configs, publicUrls, algorithms, complete }, problems)
    )
  }
}

/** Where the parser has stopped, and no more of what it says: that would quote the file. */
function placeOf(error: unknown, text: string): string {
  const said = error instanceof Error ? error.message : ''
  const [, position] = /at position (\d+)/.exec(said) ?? []
  if (position !== undefined) {
    return `: see line ${text.slice(0, Number(position)).split('\n').length}`
  }
  return said.startsWith('Unexpected end') ? ': it ends too early' : ''
}

function readDecryptionKeys(
  entries: readonly Static<typeof DecryptionKeySchema>[],
  problems: string[]
): Config['decryptionKeys'] {
  const keys = entries.flatMap(({ file, kid, publish = true }, i) => {
    const at = `ISSUERS_FILE: decryptionKeys[${i}].file`
    const content = readSecretFile(file)
    const key = 'problem' in content ? content : readDecryptionKey(content.text, kid)
    if ('problem' in key) {
      problems.push(`${at}: ${'problem' in content ? '' : `"${file}" `}${key.problem}`)
      return []
    }
    return [{ ...key, isPublished: publish }]
  })
  const kids = keys.map(({ kid }) => kid)
  for (const kid of new Set(kids.filter((kid, i) => kids.indexOf(kid) !== i))) {
    problems.push(`ISSUERS_FILE: decryptionKeys: two have the kid "${kid}"`)
  }
  return keys
}

/** White space around a value is part of none, here as in the environment. */
function trimmed(content: unknown): unknown {
  if (typeof content === 'string') {
    return content.trim()
  }
  if (Array.isArray(content)) {
    return content.map(trimmed)
  }
  return typeof content === 'object' && content !== null
    ? Object.fromEntries(Object.entries(content).map(([key, value]) => [key, trimmed(value)]))
    : content
}

function checkClientIds(name: string, clientIds: readonly string[], problems: string[]): void {
  if (clientIds.some(hasInvisible)) {
    problems.push(`${name}: has white space or an invisible character in a client id`)
  }
}

function schemaProblems(content: unknown): string[] {
  const errors = [...Value.Errors(IssuersFileSchema, content)]
  // A failed union or an unknown key gives more than one error; the shortest that names the key suffices.
  const problems = errors.flatMap((error) => {
    const at =
      error.instancePath === ''
        ? 'the file'
        : error.instancePath
            .slice(1)
            .replace(/\/(\d+)/g, '[$1]')
            .replaceAll('/', '.')
    // What a union says of itself adds nothing to what its members say.
    if (error.keyword === 'additionalProperties' || error.keyword === 'anyOf') {
      return []
    }
    if (error.keyword === 'enum') {
      return [`${at}: must be one of ${error.params.allowedValues.join(', ')}`]
    }
    return [error.keyword === 'boolean' ? `${at}: is not known` : `${at}: ${error.message}`]
  })
  return [...new Set(problems)]
}

function complete(
  entry: Omit<Static<typeof IssuerSchema>, 'directory'> & Pick<Partial<IssuerConfig>, 'directory'>
): IssuerConfig {
  return Object.freeze({ ...issuerDefaults, ...entry })
}

const guid = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/

function checkTemplate(name: string, issuer: string, tenants: readonly string[] | undefined, problems: string[]): void {
  const places = issuer.split('{tenantid}').length - 1
  if (places > 1) {
    problems.push(`${name}: "{tenantid}" must stand in it once`)
  }
  if (places === 0 && tenants !== undefined) {
    problems.push(`${name}: "tenants" needs "{tenantid}" in the issuer`)
  }
  if (tenants?.some((tenant) => !guid.test(tenant))) {
    problems.push(`${name}: "tenants" must be GUIDs in lower case`)
  }
  if (places === 0 && /[{}]/.test(issuer)) {
    problems.push(`${name}: the only template known is "{tenantid}"`)
  }
}

import { readFileSync } from 'node:fs'
import { isIP } from 'node:net'
import { type Static, Type } from 'typebox'
import { Value } from 'typebox/value'
import { ConfigurationError } from './errors.ts'
import type { IssuerConfig } from './issuers.ts'

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
    requireExp: Type.Optional(Type.Boolean()),
    maxTokenAgeSeconds: Type.Optional(Type.Integer({ minimum: 1, maximum: 86_400 })),
    clockToleranceSeconds: Type.Optional(Type.Integer({ minimum: 0, maximum: 600 })),
    sidAndSubject: Type.Optional(Type.Enum(['session', 'subject'])),
    purgeScope: Type.Optional(Type.Enum(['account', 'session'])),
    frontChannel: Type.Optional(Type.Boolean())
  },
  closed
)
const IssuersFileSchema = Type.Object({ issuers: Type.Array(IssuerSchema, { minItems: 1 }) }, closed)

const issuerDefaults: Omit<IssuerConfig, 'name' | 'issuer' | 'clientIds'> = {
  algorithms: ['RS256'],
  types: ['logout+jwt', 'JWT', null],
  maxStaleKeysSeconds: 86_400,
  requireExp: true,
  maxTokenAgeSeconds: 600,
  clockToleranceSeconds: 60,
  sidAndSubject: 'session',
  purgeScope: 'account',
  frontChannel: true,
  jwksUri: undefined,
  tenants: undefined
}

/** Which JWT access tokens let an operator in. */
export interface AdminAccessTokens {
  readonly issuer: IssuerConfig
  readonly audience: string
  /** Looked for in the claim `roles`. */
  readonly role: string
}

export interface Config {
  /** Undefined: an embedded PostgreSQL is started. */
  readonly databaseUrl: string | undefined
  readonly host: string
  readonly port: number
  readonly adminHost: string
  readonly adminPort: number
  readonly adminToken: string | undefined
  /** Operators' JWT access tokens; undefined: none are accepted. */
  readonly adminAccessTokens: AdminAccessTokens | undefined
  /** Addresses or CIDR ranges whose `X-Forwarded-For` is believed. */
  readonly trustedProxies: readonly string[]
  readonly spoolDir: string
  readonly logLevel: string
  readonly issuers: readonly IssuerConfig[]
}

/**
 * Reads the environment once into a frozen object.
 *
 * @param env the variables, as in `process.env`; an empty one counts as absent
 * @throws {ConfigurationError} with every problem, each naming its variable
 */
export function readConfig(env: Readonly<Record<string, string | undefined>>): Config {
  const problems: string[] = []
  const get = (name: string): string | undefined => env[name] || undefined

  const config: Config = {
    databaseUrl: databaseUrl(get('DATABASE_URL'), problems),
    host: get('HOST') ?? '0.0.0.0',
    port: port('PORT', get('PORT'), 3000, problems),
    adminHost: get('ADMIN_HOST') ?? '127.0.0.1',
    adminPort: port('ADMIN_PORT', get('ADMIN_PORT'), 3001, problems),
    adminToken: adminToken(get('ADMIN_TOKEN'), problems),
    adminAccessTokens: adminAccessTokens(get, problems),
    trustedProxies: trustedProxies(get('TRUSTED_PROXIES'), problems),
    spoolDir: readSpoolDir(env),
    logLevel: logLevel(get('LOG_LEVEL'), problems),
    issuers: readIssuers(get, problems)
  }
  if (problems.length > 0) {
    throw new ConfigurationError(problems)
  }
  return Object.freeze(config)
}

/** What `npm run migrate` needs: `DATABASE_URL` alone. */
export function readDatabaseUrl(env: Readonly<Record<string, string | undefined>>): string | undefined {
  const problems: string[] = []
  const url = databaseUrl(env.DATABASE_URL || undefined, problems)
  if (problems.length > 0) {
    throw new ConfigurationError(problems)
  }
  return url
}

/** What looking into the spool needs: `SPOOL_DIR` alone. */
export function readSpoolDir(env: Readonly<Record<string, string | undefined>>): string {
  return env.SPOOL_DIR || '.data/spool'
}

function databaseUrl(value: string | undefined, problems: string[]): string | undefined {
  if (value !== undefined && !/^postgres(ql)?:\/\//.test(value)) {
    problems.push('DATABASE_URL: must begin with postgres:// or postgresql://')
  }
  return value
}

function port(name: string, value: string | undefined, fallback: number, problems: string[]): number {
  if (value === undefined) {
    return fallback
  }
  if (!/^\d{1,5}$/.test(value) || Number(value) > 65_535) {
    problems.push(`${name}: must be a port number, 0 to 65535`)
  }
  return Number(value)
}

function adminToken(value: string | undefined, problems: string[]): string | undefined {
  if (value !== undefined && value.length < 32) {
    problems.push('ADMIN_TOKEN: must have 32 characters or more')
  }
  if (value !== undefined && !/^[\x21-\x7e]*$/.test(value)) {
    // No header bears it, so that nobody could ever sign in: often the line end of a file.
    problems.push('ADMIN_TOKEN: must have neither blanks nor line ends, and no characters but those of ASCII')
  }
  return value
}

function adminAccessTokens(
  get: (name: string) => string | undefined,
  problems: string[]
): AdminAccessTokens | undefined {
  const names = ['ADMIN_ISSUER', 'ADMIN_AUDIENCE', 'ADMIN_ROLE']
  const missing = names.filter((name) => get(name) === undefined)
  if (missing.length === names.length) {
    return undefined
  }
  for (const name of missing) {
    problems.push(`${name}: must be given, since ${names.filter((other) => !missing.includes(other)).join(' and ')} is`)
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

function trustedProxies(value: string | undefined, problems: string[]): string[] {
  const proxies = (value ?? '')
    .split(',')
    .map((proxy) => proxy.trim())
    .filter((proxy) => proxy !== '')
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

function logLevel(value: string | undefined, problems: string[]): string {
  const levels = ['fatal', 'error', 'warn', 'info', 'debug', 'trace', 'silent']
  if (value !== undefined && !levels.includes(value)) {
    problems.push(`LOG_LEVEL: must be one of ${levels.join(', ')}`)
  }
  return value ?? 'info'
}

function readIssuers(get: (name: string) => string | undefined, problems: string[]): IssuerConfig[] {
  const file = get('ISSUERS_FILE')
  const issuer = get('ISSUER')
  const clientIds = get('CLIENT_IDS')
  if (file !== undefined) {
    if (issuer !== undefined || clientIds !== undefined) {
      problems.push('ISSUERS_FILE: give either this, or ISSUER and CLIENT_IDS, not both')
    }
    return issuersFromFile(file, problems)
  }
  if (issuer === undefined && clientIds === undefined) {
    problems.push('ISSUER: give ISSUER and CLIENT_IDS, or ISSUERS_FILE')
    return []
  }
  const ids = (clientIds ?? '')
    .split(',')
    .map((id) => id.trim())
    .filter((id) => id !== '')
  if (ids.length === 0) {
    problems.push('CLIENT_IDS: must name the client ids of ISSUER, comma separated')
  }
  if (issuer === undefined) {
    problems.push('ISSUER: must be given with CLIENT_IDS')
    return []
  }
  checkUrl('ISSUER', issuer, problems)
  checkTemplate('ISSUER', issuer, undefined, problems)
  return [complete({ name: 'default', issuer, clientIds: ids })]
}

function issuersFromFile(path: string, problems: string[]): IssuerConfig[] {
  let content: unknown
  try {
    content = JSON.parse(readFileSync(path, 'utf8'))
  } catch (error) {
    problems.push(error instanceof SyntaxError ? 'ISSUERS_FILE: is not JSON' : `ISSUERS_FILE: cannot read "${path}"`)
    return []
  }
  if (!Value.Check(IssuersFileSchema, content)) {
    for (const problem of schemaProblems(content)) {
      problems.push(`ISSUERS_FILE: ${problem}`)
    }
    return []
  }
  const seenNames = new Set<string>()
  const seenIssuers = new Set<string>()
  content.issuers.forEach((entry, i) => {
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
    seenNames.add(entry.name)
    seenIssuers.add(entry.issuer)
  })
  return content.issuers.map(complete)
}

function schemaProblems(content: unknown): string[] {
  const errors = [...Value.Errors(IssuersFileSchema, content)]
  // A failed union or an unknown key is told by more than one error; the shortest that names the key suffices.
  const problems = errors.flatMap((error) => {
    const at =
      error.instancePath === ''
        ? 'the file'
        : error.instancePath
            .slice(1)
            .replace(/\/(\d+)/g, '[$1]')
            .replaceAll('/', '.')
    if (error.keyword === 'additionalProperties') {
      return []
    }
    return [error.keyword === 'boolean' ? `${at}: is not known` : `${at}: ${error.message}`]
  })
  return [...new Set(problems)]
}

function complete(entry: Static<typeof IssuerSchema>): IssuerConfig {
  return Object.freeze({ ...issuerDefaults, ...entry })
}

function checkUrl(name: string, value: string, problems: string[]): void {
  const url = parseUrl(value)
  if (url === undefined) {
    problems.push(`${name}: is not a URL`)
  } else if (url.protocol !== 'https:' && !(url.protocol === 'http:' && isLoopback(url.hostname))) {
    problems.push(`${name}: must be https, or http on loopback`)
  } else if (url.username !== '' || url.password !== '' || url.hash !== '') {
    problems.push(`${name}: must have neither credentials nor a fragment`)
  }
}

function parseUrl(value: string): URL | undefined {
  try {
    return new URL(value)
  } catch {
    return undefined
  }
}

function isLoopback(hostname: string): boolean {
  return hostname === 'localhost' || hostname === '[::1]' || /^127(\.\d{1,3}){3}$/.test(hostname)
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

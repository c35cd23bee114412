import { createPrivateKey, type KeyObject, X509Certificate } from 'node:crypto'
import { type Static, Type } from 'typebox'
import { checkUrl, hasInvisible } from './configured-url.ts'
import { issuerOfTenant, templatePattern } from './issuer-template.ts'
import { readSecretFile } from './secret-file.ts'

const closed = { additionalProperties: false }
const text = Type.String({ minLength: 1 })

/** Why the accounts of a directory are purged. */
export const directoryEvents = ['disabled', 'deleted', 'revoked', 'passwordChanged'] as const
export type DirectoryEvent = (typeof directoryEvents)[number]

/** Where each cloud of Microsoft signs programs in, and where its Graph is. Their tokens are not interchangeable. */
export const clouds = {
  global: { authorityUrl: 'https://login.microsoftonline.com', graphUrl: 'https://graph.microsoft.com' },
  'us-gov': { authorityUrl: 'https://login.microsoftonline.us', graphUrl: 'https://graph.microsoft.us' },
  'us-dod': { authorityUrl: 'https://login.microsoftonline.us', graphUrl: 'https://dod-graph.microsoft.us' },
  china: { authorityUrl: 'https://login.chinacloudapi.cn', graphUrl: 'https://microsoftgraph.chinacloudapi.cn' }
} as const
export type Cloud = keyof typeof clouds

const cloudNames: Cloud[] = ['global', 'us-gov', 'us-dod', 'china']

/** The member `directory` of an issuer in ISSUERS_FILE. */
export const DirectorySchema = Type.Object(
  {
    kind: Type.Literal('microsoft-graph'),
    tenantId: Type.Optional(text),
    clientId: text,
    credential: Type.Object(
      {
        certificateFile: Type.Optional(text),
        privateKeyFile: Type.Optional(text),
        clientSecretFile: Type.Optional(text),
        federatedTokenFile: Type.Optional(text)
      },
      closed
    ),
    cloud: Type.Optional(Type.Enum(cloudNames)),
    pollSeconds: Type.Optional(Type.Integer({ minimum: 1, maximum: 3_600 })),
    sweepSeconds: Type.Optional(Type.Integer({ minimum: 1, maximum: 86_400 })),
    revokeOn: Type.Optional(Type.Array(Type.Enum([...directoryEvents]), { minItems: 1 })),
    dryRun: Type.Optional(Type.Boolean()),
    maxAccounts: Type.Optional(Type.Integer({ minimum: 1, maximum: 10_000_000 })),
    maxPercent: Type.Optional(Type.Integer({ minimum: 1, maximum: 100 })),
    notificationUrl: Type.Optional(Type.Union([text, Type.Null()])),
    graphUrl: Type.Optional(text),
    authorityUrl: Type.Optional(text)
  },
  closed
)

/** By what a program proves itself to a directory: files, each read anew for every token. */
export type DirectoryCredential =
  /** PEM: the certificate, and its RSA key. */
  | { readonly kind: 'certificate'; readonly certificateFile: string; readonly privateKeyFile: string }
  | { readonly kind: 'secret'; readonly clientSecretFile: string }
  /** A token that another issuer renews, of a workload identity. */
  | { readonly kind: 'federated'; readonly federatedTokenFile: string }

/** How the directory of an issuer is watched; the members and defaults are those of ISSUERS_FILE (README). */
export interface DirectoryConfig {
  readonly kind: 'microsoft-graph'
  /** The watcher's registration, of its own: it may read every user (User.Read.All), which no web app should. */
  readonly clientId: string
  readonly credential: DirectoryCredential
  readonly cloud: Cloud
  /** How often it is asked for what has changed. */
  readonly pollSeconds: number
  /** How often every account in the cache is looked at. */
  readonly sweepSeconds: number
  readonly revokeOn: readonly DirectoryEvent[]
  /** Shows what would be done, and does nothing. */
  readonly dryRun: boolean
  /** More accounts than that in one round: nothing is done until an operator decides. */
  readonly maxAccounts: number
  /** The same in percent of the accounts that are watched, and of at least 10. */
  readonly maxPercent: number
  /** Where the directory is to post that something has changed; undefined: it is not asked to. */
  readonly notificationUrl: string | undefined
  /** Without a slash at the end, and without a version. */
  readonly graphUrl: string
  /** Without a slash at the end. */
  readonly authorityUrl: string
  /** Whose accounts: a tenant for each watcher. */
  readonly tenants: readonly WatchedTenant[]
}

export interface WatchedTenant {
  /** A GUID, in lower case. */
  readonly tenantId: string
  /** The exact `iss` of that tenant's ID tokens. */
  readonly issuer: string
}

const defaults = {
  cloud: 'global',
  pollSeconds: 60,
  sweepSeconds: 900,
  revokeOn: ['disabled', 'deleted', 'revoked'],
  dryRun: false,
  maxAccounts: 1_000,
  maxPercent: 50
} as const

const guid = /[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}/

/**
 * Completes the member `directory` of an issuer, and looks at the files that it names.
 *
 * @param name what is at fault, for the problems: `ISSUERS_FILE: issuers[0].directory`
 * @param issuer the issuer that it belongs to; of a template, with the tenants that it is limited to
 * @param problems what is wrong is added here, without a word of what is in a file
 */
export function readDirectory(
  name: string,
  entry: Static<typeof DirectorySchema>,
  { issuer, tenants }: { readonly issuer: string; readonly tenants?: readonly string[] | undefined },
  problems: string[]
): DirectoryConfig {
  const { tenantId, credential, notificationUrl, graphUrl, authorityUrl, ...given } = entry
  const cloud = given.cloud ?? defaults.cloud
  if (hasInvisible(given.clientId)) {
    problems.push(`${name}.clientId: has white space or an invisible character in it`)
  }
  if (notificationUrl != null) {
    checkUrl(`${name}.notificationUrl`, notificationUrl, problems)
  }
  return Object.freeze({
    ...defaults,
    ...given,
    cloud,
    credential: Object.freeze(readCredential(`${name}.credential`, credential, problems)),
    notificationUrl: notificationUrl ?? undefined,
    graphUrl: baseUrl(`${name}.graphUrl`, graphUrl, clouds[cloud].graphUrl, problems),
    authorityUrl: baseUrl(`${name}.authorityUrl`, authorityUrl, clouds[cloud].authorityUrl, problems),
    tenants: Object.freeze(watchedTenants(name, tenantId, issuer, tenants, problems))
  })
}

/** Two watchers of one tenant would do everything twice. */
export function checkWatchedOnce(
  directories: readonly { readonly name: string; readonly tenants: readonly WatchedTenant[] }[],
  problems: string[]
): void {
  const seen = new Map<string, string>()
  for (const { name, tenants } of directories) {
    for (const { tenantId } of tenants) {
      const other = seen.get(tenantId)
      if (other !== undefined && other !== name) {
        problems.push(`${name}: the tenant "${tenantId}" is watched already, by ${other}`)
      }
      seen.set(tenantId, other ?? name)
    }
  }
}

function watchedTenants(
  name: string,
  given: string | undefined,
  issuer: string,
  tenants: readonly string[] | undefined,
  problems: string[]
): WatchedTenant[] {
  if (templatePattern(issuer) !== undefined) {
    if (given !== undefined) {
      problems.push(`${name}.tenantId: does not go with a template: the issuer's "tenants" are watched, each by itself`)
    }
    if (tenants === undefined) {
      problems.push(`${name}: needs "tenants" beside it: a template alone does not say whose directories are watched`)
    }
    return [...new Set(tenants)].map((tenantId) => ({ tenantId, issuer: issuerOfTenant(issuer, tenantId) }))
  }
  const [inIssuer] = guid.exec(issuer) ?? []
  const tenantId = given ?? inIssuer
  if (tenantId === undefined) {
    problems.push(`${name}.tenantId: must be given: the issuer has no tenant id in it`)
    return []
  }
  if (guid.exec(tenantId)?.[0] !== tenantId) {
    problems.push(`${name}.tenantId: must be a GUID in lower case`)
  } else if (inIssuer !== undefined && inIssuer !== tenantId) {
    problems.push(`${name}.tenantId: is "${tenantId}", and the issuer's is "${inIssuer}"`)
  }
  return [{ tenantId, issuer }]
}

function baseUrl(name: string, given: string | undefined, fallback: string, problems: string[]): string {
  if (given === undefined) {
    return fallback
  }
  checkUrl(name, given, problems)
  if (/[?]/.test(given) || /\/(v1\.0|beta)\/?$/.test(given)) {
    problems.push(`${name}: must have neither a query nor a version: as ${fallback}`)
  }
  return given.replace(/\/+$/, '')
}

function readCredential(
  name: string,
  given: Static<typeof DirectorySchema>['credential'],
  problems: string[]
): DirectoryCredential {
  const { certificateFile, privateKeyFile, clientSecretFile, federatedTokenFile } = given
  const forms = [certificateFile ?? privateKeyFile, clientSecretFile, federatedTokenFile]
  if (forms.filter((form) => form !== undefined).length !== 1) {
    problems.push(
      `${name}: give exactly one of certificateFile with privateKeyFile, clientSecretFile, and federatedTokenFile`
    )
  }
  if (clientSecretFile !== undefined) {
    checkFile(`${name}.clientSecretFile`, clientSecretFile, problems)
    return { kind: 'secret', clientSecretFile }
  }
  if (federatedTokenFile !== undefined) {
    checkFile(`${name}.federatedTokenFile`, federatedTokenFile, problems)
    return { kind: 'federated', federatedTokenFile }
  }
  if ((certificateFile === undefined) !== (privateKeyFile === undefined)) {
    problems.push(
      `${name}.${certificateFile === undefined ? 'certificateFile' : 'privateKeyFile'}: must be given, since the other is`
    )
  }
  if (certificateFile !== undefined && privateKeyFile !== undefined) {
    checkCertificate(name, certificateFile, privateKeyFile, problems)
  }
  return { kind: 'certificate', certificateFile: certificateFile ?? '', privateKeyFile: privateKeyFile ?? '' }
}

function checkFile(name: string, path: string, problems: string[]): string | undefined {
  const content = readSecretFile(path)
  if ('problem' in content) {
    problems.push(`${name}: ${content.problem}`)
    return undefined
  }
  return content.text
}

function checkCertificate(name: string, certificateFile: string, privateKeyFile: string, problems: string[]): void {
  const before = problems.length
  const certificatePem = checkFile(`${name}.certificateFile`, certificateFile, problems)
  const keyPem = checkFile(`${name}.privateKeyFile`, privateKeyFile, problems)
  const certificate = certificatePem === undefined ? undefined : readCertificate(certificatePem)
  const key = keyPem === undefined ? undefined : readPrivateKey(keyPem)
  if (certificatePem !== undefined && certificate === undefined) {
    problems.push(`${name}.certificateFile: "${certificateFile}" has no certificate in PEM in it`)
  }
  if (keyPem !== undefined && key === undefined) {
    problems.push(
      `${name}.privateKeyFile: "${privateKeyFile}" has no private key in PEM in it, or one behind a password`
    )
  }
  if (key !== undefined && key.asymmetricKeyType !== 'rsa') {
    problems.push(`${name}.privateKeyFile: "${privateKeyFile}" has no RSA key in it: Entra ID takes no other`)
  }
  if (problems.length === before && key !== undefined && certificate?.checkPrivateKey(key) === false) {
    problems.push(`${name}.privateKeyFile: "${privateKeyFile}" is not the key of the certificate "${certificateFile}"`)
  }
}

/** The first certificate in a PEM text; undefined if there is none. */
export function readCertificate(pem: string): X509Certificate | undefined {
  try {
    return new X509Certificate(pem)
  } catch {
    return undefined // what the parser says is of OpenSSL, and no help
  }
}

/** The private key in a PEM text; undefined if there is none, or one behind a password. */
export function readPrivateKey(pem: string): KeyObject | undefined {
  try {
    return createPrivateKey(pem)
  } catch {
    return undefined
  }
}

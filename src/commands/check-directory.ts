import { createGraphClient, type GraphClient } from '../directories/microsoft-graph/client.ts'
import { type DirectoryConfig, readCertificate } from '../directory-config.ts'
import { DirectoryError, type DirectoryErrorCode } from '../errors.ts'
import type { IssuerConfig } from '../issuers.ts'
import { isObject } from '../jwt.ts'
import type { Fetch } from '../outbound-fetch.ts'
import { readSecretFile } from '../secret-file.ts'
import { type Finding, failed, passed, warning } from './finding.ts'

export interface CheckDirectoryOptions {
  /** The network's edge. */
  readonly fetch: Fetch
  /** Milliseconds since 1970. */
  readonly now: () => number
  /** How long each answer may take, milliseconds. */
  readonly timeoutMs: number
}

const dayMs = 86_400_000
// Time enough for a change to be asked for, made and rolled out.
const expiresSoonDays = 14

/** Signs in to the directory of each tenant that an issuer's watcher has, and asks Graph what the watcher will; nothing is changed. */
export async function checkDirectory(
  { name, directory }: Pick<IssuerConfig, 'name' | 'directory'>,
  options: CheckDirectoryOptions
): Promise<Finding[]> {
  if (directory === undefined) {
    return []
  }
  const certificate = checkCertificate(name, directory.credential, options.now())
  const answers = await Promise.all(
    directory.tenants.map(({ tenantId }) => checkTenant(`${name}, tenant ${tenantId}`, directory, tenantId, options))
  )
  const isExpired = certificate.some(({ status }) => status === 'failed')
  // Entra ID says no more of an expired certificate than that it does not take it.
  const others = answers.flat().filter(({ code }) => !isExpired || code !== 'directory_credential')
  return [...certificate, ...others]
}

/** What the file alone shows of a certificate. */
function checkCertificate(name: string, credential: DirectoryConfig['credential'], now: number): Finding[] {
  if (credential.kind !== 'certificate') {
    return []
  }
  const { certificateFile } = credential
  const content = readSecretFile(certificateFile)
  const certificate = 'text' in content ? readCertificate(content.text) : undefined
  if (certificate === undefined) {
    return [] // the sign-in says so
  }
  const [from, to] = [new Date(certificate.validFrom), new Date(certificate.validTo)]
  const advice = `upload a new certificate to the registration, then put it and its key in place of the files: they are read with the next token`
  if (now < from.getTime()) {
    return [
      failed(
        'directory',
        'directory_certificate_early',
        `${name}: the certificate in "${certificateFile}" is valid from ${from.toISOString()} on`,
        "look at this machine's clock, or take the certificate before it"
      )
    ]
  }
  const days = Math.floor((to.getTime() - now) / dayMs)
  if (days < 0) {
    return [
      failed(
        'directory',
        'directory_certificate_expired',
        `${name}: the certificate in "${certificateFile}" has expired on ${to.toISOString()}`,
        advice
      )
    ]
  }
  return days < expiresSoonDays
    ? [
        warning(
          'directory',
          'directory_certificate_expires',
          `${name}: the certificate in "${certificateFile}" expires in ${days} days, on ${to.toISOString()}`,
          advice
        )
      ]
    : []
}

async function checkTenant(
  name: string,
  directory: DirectoryConfig,
  tenantId: string,
  { fetch, now, timeoutMs }: CheckDirectoryOptions
): Promise<Finding[]> {
  const client = createGraphClient({ directory, tenantId, fetch, now, timeoutMs, maxTries: 1 })
  try {
    const { signal } = new AbortController() // each answer has its own time
    if (!(await showsUsers(client, signal))) {
      const shown = `${name}: Graph shows users without accountEnabled`
      return [failed('directory', 'directory_consent', shown, consentAdvice)]
    }
    const secret = await checkSecret(name, directory, client, now())
    if ((await client.startDelta(signal)) === undefined) {
      return [
        warning(
          'directory',
          'directory_sweep_only',
          `${name}: it has no delta queries, as an external tenant (External ID) or Azure AD B2C: it is swept alone`,
          `nothing is wrong: a change is found within ${directory.sweepSeconds} s; set sweepSeconds lower if that is too late`
        ),
        ...secret.filter(({ status }) => status !== 'passed')
      ]
    }
    return secret
  } catch (error) {
    if (!(error instanceof DirectoryError)) {
      throw error
    }
    const [code, advice] = faults[error.code](directory)
    const detail = error.detail === undefined ? '' : ` (${error.detail})`
    return [failed('directory', code, `${name}: ${error.message}${detail}`, advice)]
  }
}

/**
 * When the secret expires. Its date is part of the registration, which Graph shows only with Application.Read.All: more than a watcher
 * needs, so that it is no fault not to have it.
 */
async function checkSecret(
  name: string,
  { clientId, credential }: DirectoryConfig,
  client: GraphClient,
  now: number
): Promise<Finding[]> {
  const canBeWatched = `${name}: it can be watched`
  if (credential.kind !== 'secret') {
    return [passed('directory', canBeWatched)]
  }
  const expiresAt = await readSecretExpiry(clientId, credential, client)
  if (expiresAt === undefined) {
    const why = 'since Graph shows that only with a further permission (Application.Read.All)'
    return [passed('directory', `${canBeWatched}; when its secret expires cannot be seen, ${why}`)]
  }
  const date = new Date(expiresAt).toISOString()
  const days = Math.floor((expiresAt - now) / dayMs)
  return days < expiresSoonDays
    ? [
        warning(
          'directory',
          'directory_secret_expires',
          `${name}: the secret in "${credential.clientSecretFile}" expires in ${Math.max(days, 0)} days, on ${date}`,
          'make a new one at the registration, and put it into the file: it is read with the next token'
        )
      ]
    : [passed('directory', `${canBeWatched}; its secret expires on ${date}`)]
}

/** Milliseconds since 1970; undefined if it is not shown. Of several secrets that begin alike it is the first to expire. */
async function readSecretExpiry(
  clientId: string,
  { clientSecretFile }: Extract<DirectoryConfig['credential'], { kind: 'secret' }>,
  client: GraphClient
): Promise<number | undefined> {
  const content = readSecretFile(clientSecretFile)
  const path = `/applications(appId='${encodeURIComponent(clientId)}')?$select=passwordCredentials`
  let shown: unknown
  try {
    shown = (await client.call(path, {}, new AbortController().signal)).passwordCredentials
  } catch (error) {
    if (error instanceof DirectoryError) {
      return undefined // not permitted, or the registration is another tenant's
    }
    throw error
  }
  if (!Array.isArray(shown) || !('text' in content)) {
    return undefined
  }
  // All that Graph shows of a secret's value are its first three characters.
  const hint = content.text.slice(0, 3)
  const times = shown
    .filter(isObject)
    .filter((one) => one.hint === hint)
    .map(({ endDateTime }) => (typeof endDateTime === 'string' ? Date.parse(endDateTime) : Number.NaN))
    .filter((time) => !Number.isNaN(time))
  return times.length === 0 ? undefined : Math.min(...times)
}

/** False if what decides is not shown of a user: with User.ReadBasic.All there is an answer too. */
async function showsUsers(client: GraphClient, signal: AbortSignal): Promise<boolean> {
  const { value } = await client.call(`/users?$top=1&$select=${client.properties.join(',')}`, {}, signal)
  const [user] = Array.isArray(value) ? value : []
  return !isObject(user) || typeof user.accountEnabled === 'boolean'
}

type Fault = readonly [code: string, advice: string]

const consentAdvice =
  'give the registration the application permission User.Read.All of Microsoft Graph (not the delegated one), and have an administrator of that tenant consent'
const answerAdvice = 'look at what answers there, often a proxy; and at graphUrl and authorityUrl, if they are set'
const credentialAdvice: Readonly<Record<DirectoryConfig['credential']['kind'], string>> = {
  certificate: 'upload the certificate to the registration "clientId", or name the files of one that is there',
  secret: 'put the value of a secret of the registration "clientId" into clientSecretFile: the value, not the id',
  federated: 'compare issuer, subject and audience of the token with the federated credential of the registration'
}
const credential = (directory: DirectoryConfig): Fault => [
  'directory_credential',
  credentialAdvice[directory.credential.kind]
]
const answer = (): Fault => ['directory_answer', answerAdvice]

const faults: Record<DirectoryErrorCode, (directory: DirectoryConfig) => Fault> = {
  ERR_DIRECTORY_UNREACHABLE: ({ authorityUrl, graphUrl }) => [
    'directory_unreachable',
    `let the service reach ${authorityUrl} and ${graphUrl}: name resolution, HTTPS_PROXY, firewalls, certificates`
  ],
  ERR_DIRECTORY_THROTTLED: () => ['directory_throttled', 'look again later; other programs of that tenant count too'],
  ERR_DIRECTORY_CREDENTIAL_FILE: () => ['directory_credential', 'name files that this user can read'],
  ERR_DIRECTORY_CREDENTIAL: credential,
  ERR_DIRECTORY_CREDENTIAL_EXPIRED: ({ credential: { kind } }) => [
    'directory_credential_expired',
    kind === 'federated'
      ? 'look at what renews the federated token: a token of Kubernetes lives for an hour'
      : 'make a new one at the registration, and put it into the file: it is read with the next token'
  ],
  ERR_DIRECTORY_TENANT: ({ cloud }) => [
    'directory_tenant',
    `look at the tenant id, and at "cloud", which is "${cloud}"`
  ],
  ERR_DIRECTORY_CLIENT: () => [
    'directory_client',
    'look at "clientId": a registration of that tenant, or a multi-tenant one with consent there, that is not disabled'
  ],
  ERR_DIRECTORY_CLOUD: ({ cloud }) => [
    'directory_cloud',
    `set "cloud", which is "${cloud}", to that of the tenant; or set graphUrl and authorityUrl of one cloud`
  ],
  ERR_DIRECTORY_CONSENT: () => ['directory_consent', consentAdvice],
  ERR_DIRECTORY_REQUEST: answer,
  ERR_DIRECTORY_ANSWER: answer,
  ERR_DIRECTORY_INCOMPLETE: answer,
  ERR_DIRECTORY_UNCOMMITTED: answer,
  ERR_DIRECTORY_LEASE: answer
}

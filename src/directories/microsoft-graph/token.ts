import type { INetworkModule, NodeAuthOptions } from '@azure/msal-node'
import { type DirectoryConfig, readCertificate } from '../../directory-config.ts'
import { DirectoryError, type DirectoryErrorCode } from '../../errors.ts'
import type { Exchange, SendOptions } from '../../exchange.ts'
import { isObject } from '../../jwt.ts'
import { readSecretFile } from '../../secret-file.ts'

/** The access tokens of one tenant's watcher. */
export interface TokenSource {
  /**
   * A token that lives for a while yet.
   * @throws {DirectoryError} if none can be had
   */
  get(signal: AbortSignal): Promise<string>
  /** The token at hand is not taken any more. */
  drop(): void
}

export interface TokenSourceOptions {
  readonly directory: Pick<DirectoryConfig, 'clientId' | 'credential' | 'authorityUrl' | 'graphUrl'>
  readonly tenantId: string
  readonly exchange: Exchange
  /** Milliseconds since 1970. */
  readonly now: () => number
}

// Of its life, when a new one is asked for: a sweep that has begun ends before.
const usedShare = 0.75

/**
 * Signs in by client credentials, with Microsoft's own library. The files of the credential are read for each token, so that
 * they can be replaced at any time.
 */
export function createTokenSource({ directory, tenantId, exchange, now }: TokenSourceOptions): TokenSource {
  let current: { readonly token: string; readonly goodUntil: number } | undefined

  async function acquire(signal: AbortSignal) {
    // Loaded by those alone who watch a directory.
    const { ConfidentialClientApplication } = await import('@azure/msal-node')
    const network = createNetwork(exchange, signal)
    const authority = new URL(directory.authorityUrl)
    const application = new ConfidentialClientApplication({
      auth: {
        clientId: directory.clientId,
        // The library takes no other scheme. Where it goes is the endpoint below, on loopback without TLS too.
        authority: `https://${authority.host}${authority.pathname.replace(/\/$/, '')}/${tenantId}`,
        knownAuthorities: [authority.host],
        authorityMetadata: metadataOf(directory.authorityUrl, tenantId),
        ...readCredential(directory.credential)
      },
      system: { networkClient: network.module, disableInternalRetries: true }
    })
    try {
      const result = await application.acquireTokenByClientCredential({ scopes: [`${directory.graphUrl}/.default`] })
      // No header bears anything else, and an error about one would quote it.
      if (result?.accessToken && /^[\x21-\x7e]+$/.test(result.accessToken)) {
        const lifeMs = (result.expiresOn?.getTime() ?? 0) - Date.now()
        return { token: result.accessToken, goodUntil: now() + lifeMs * usedShare }
      }
    } catch (error) {
      throw network.fault() ?? new DirectoryError('ERR_DIRECTORY_ANSWER', { detail: codeOf(error), cause: error })
    }
    throw new DirectoryError('ERR_DIRECTORY_ANSWER')
  }

  return {
    async get(signal) {
      if (current === undefined || current.goodUntil <= now()) {
        current = await acquire(signal)
      }
      return current.token
    },
    drop() {
      current = undefined
    }
  }
}

/** The endpoints are known: nothing is looked up. */
function metadataOf(authorityUrl: string, tenantId: string): string {
  const base = `${authorityUrl}/${tenantId}`
  return JSON.stringify({
    issuer: `${base}/v2.0`,
    authorization_endpoint: `${base}/oauth2/v2.0/authorize`,
    token_endpoint: `${base}/oauth2/v2.0/token`,
    jwks_uri: `${base}/discovery/v2.0/keys`
  })
}

function readCredential(
  credential: DirectoryConfig['credential']
): Pick<NodeAuthOptions, 'clientCertificate' | 'clientSecret' | 'clientAssertion'> {
  switch (credential.kind) {
    case 'secret':
      return { clientSecret: readFile(credential.clientSecretFile) }
    case 'federated':
      return { clientAssertion: readFile(credential.federatedTokenFile) }
    case 'certificate': {
      const certificate = readCertificate(readFile(credential.certificateFile))
      if (certificate === undefined) {
        throw new DirectoryError('ERR_DIRECTORY_CREDENTIAL_FILE', { detail: credential.certificateFile })
      }
      return {
        clientCertificate: {
          thumbprintSha256: certificate.fingerprint256.replaceAll(':', ''),
          privateKey: readFile(credential.privateKeyFile)
        }
      }
    }
  }
}

function readFile(path: string): string {
  const content = readSecretFile(path)
  if ('problem' in content) {
    throw new DirectoryError('ERR_DIRECTORY_CREDENTIAL_FILE', { detail: content.problem })
  }
  return content.text
}

/** The library's way to the network: by our own, which remembers what went wrong on it. */
function createNetwork(exchange: Exchange, signal: AbortSignal) {
  let fault: DirectoryError | undefined

  async function send<T>(url: string, options: SendOptions) {
    try {
      const { status, header, content, text, retryAfterMs } = await exchange(url, options)
      if (status !== 200) {
        fault = faultOf(status, content, retryAfterMs)
      }
      const body: T = JSON.parse(text)
      return { status, body, headers: { 'retry-after': header('retry-after') ?? '' } }
    } catch (error) {
      fault ??= error instanceof DirectoryError ? error : new DirectoryError('ERR_DIRECTORY_ANSWER', { cause: error })
      throw error
    }
  }

  const module: INetworkModule = {
    sendGetRequestAsync: (url, options) => send(url, { method: 'GET', headers: options?.headers ?? {}, signal }),
    sendPostRequestAsync: (url, options) =>
      send(url, { method: 'POST', headers: options?.headers ?? {}, body: options?.body ?? '', signal })
  }
  return { module, fault: () => fault }
}

// By the number behind "AADSTS": https://learn.microsoft.com/entra/identity-platform/reference-error-codes
const faults: Readonly<Record<string, DirectoryErrorCode>> = {
  90002: 'ERR_DIRECTORY_TENANT',
  900021: 'ERR_DIRECTORY_TENANT',
  900023: 'ERR_DIRECTORY_TENANT',
  700016: 'ERR_DIRECTORY_CLIENT',
  7000112: 'ERR_DIRECTORY_CLIENT', // it is disabled
  700024: 'ERR_DIRECTORY_CREDENTIAL_EXPIRED',
  7000222: 'ERR_DIRECTORY_CREDENTIAL_EXPIRED',
  700027: 'ERR_DIRECTORY_CREDENTIAL',
  70021: 'ERR_DIRECTORY_CREDENTIAL',
  700211: 'ERR_DIRECTORY_CREDENTIAL',
  700212: 'ERR_DIRECTORY_CREDENTIAL',
  700213: 'ERR_DIRECTORY_CREDENTIAL',
  7000215: 'ERR_DIRECTORY_CREDENTIAL',
  7000218: 'ERR_DIRECTORY_CREDENTIAL',
  90038: 'ERR_DIRECTORY_CLOUD',
  900382: 'ERR_DIRECTORY_CLOUD',
  500011: 'ERR_DIRECTORY_CLOUD', // it knows no Graph at this address
  65001: 'ERR_DIRECTORY_CONSENT',
  7000229: 'ERR_DIRECTORY_CONSENT'
}

function faultOf(status: number, content: unknown, retryAfterMs: number | undefined): DirectoryError {
  const numbers = isObject(content) && Array.isArray(content.error_codes) ? content.error_codes : []
  const [number] = numbers.map(Number).filter(Number.isSafeInteger)
  const detail = number === undefined ? `HTTP ${status}` : `AADSTS${number}`
  if (status === 429) {
    return new DirectoryError('ERR_DIRECTORY_THROTTLED', { detail, retryAfterMs })
  }
  if (status >= 500) {
    return new DirectoryError('ERR_DIRECTORY_UNREACHABLE', { detail, retryAfterMs })
  }
  return new DirectoryError(faults[String(number)] ?? 'ERR_DIRECTORY_REQUEST', { detail })
}

function codeOf(error: unknown): string | undefined {
  return error instanceof Error && 'errorCode' in error ? String(error.errorCode) : undefined
}

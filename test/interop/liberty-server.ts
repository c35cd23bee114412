// Open Liberty from Maven Central, as an OpenID provider: a server's folder with its configuration alone, and nothing else to install.
import { existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Test } from 'tap'
import { call, fetchMavenFile, programFolder, startProgram, unpack } from './program.ts'

export const libertyVersion = '26.0.0.3'
const folder = join(programFolder, `liberty-${libertyVersion}`)
const program = join(folder, 'wlp/bin/server')
const storePass = 'only-for-the-test'

/** Fetches it from Maven Central, if it is not there yet. */
export function fetchLiberty(): void {
  if (existsSync(program)) {
    return
  }
  const archive = fetchMavenFile(`io.openliberty:openliberty-runtime:${libertyVersion}:zip`)
  unpack(archive, folder)
}

export interface LibertyClient {
  readonly id: string
  readonly secret: string
  readonly redirectUri: string
  readonly backChannelUrl: string
}

export interface LibertyOptions {
  readonly port: number
  /** Of its sign-in page, which it shows over TLS alone. */
  readonly securePort: number
  readonly users: readonly string[]
  readonly passwordOf: (user: string) => string
  readonly clients: readonly LibertyClient[]
}

/** Its only provider is called `op`. */
export function libertyIssuer(port: number): string {
  return `http://127.0.0.1:${port}/oidc/endpoint/op`
}

export interface Liberty {
  /** Of its sign-in page, in PEM. */
  readonly certificate: string
  stop(): Promise<void>
}

/** Starts it; it ends with the test. Each start has keys of its own, and nobody is signed in. */
export async function startLiberty(t: Test, options: LibertyOptions): Promise<Liberty> {
  const user = mkdtempSync(join(tmpdir(), 'msal-logout-liberty-'))
  t.teardown(() => rmSync(user, { recursive: true, force: true, maxRetries: 10 }))
  const server = join(user, 'servers/op')
  mkdirSync(server, { recursive: true })
  writeFileSync(join(server, 'server.xml'), configuration(options))
  const store = [
    '-alias',
    'default',
    '-keystore',
    join(server, 'key.p12'),
    '-storetype',
    'PKCS12',
    '-storepass',
    storePass
  ]
  const subject = ['-dname', 'CN=127.0.0.1', '-ext', 'san=ip:127.0.0.1', '-validity', '2']
  call('keytool', ['-genkeypair', ...store, '-keyalg', 'RSA', '-keysize', '2048', ...subject])
  const { stop } = await startProgram(t, {
    command: 'sh',
    args: [program, 'run', 'op'],
    env: {
      WLP_USER_DIR: user,
      JVM_ARGS: '-Xms64m -Xmx384m',
      ...(process.env.JAVA_HOME === undefined ? {} : { JAVA_HOME: process.env.JAVA_HOME })
    },
    readyUrl: `${libertyIssuer(options.port)}/.well-known/openid-configuration`
  })
  return { certificate: call('keytool', ['-exportcert', '-rfc', ...store]), stop }
}

function configuration({ port, securePort, users, passwordOf, clients }: LibertyOptions): string {
  const issuer = libertyIssuer(port)
  return `<server>
  <featureManager>
    <feature>openidConnectServer-1.0</feature>
    <feature>transportSecurity-1.0</feature>
  </featureManager>
  <httpEndpoint id="defaultHttpEndpoint" host="127.0.0.1" httpPort="${port}" httpsPort="${securePort}" />
  <keyStore id="defaultKeyStore" location="key.p12" type="PKCS12" password="${storePass}" />
  <webAppSecurity allowFailOverToBasicAuth="false" />
  <basicRegistry id="basic">
    ${users.map((name) => `<user name="${name}" password="${passwordOf(name)}" />`).join('\n    ')}
  </basicRegistry>
  <oauth-roles>
    <authenticated>
      <special-subject type="ALL_AUTHENTICATED_USERS" />
    </authenticated>
  </oauth-roles>
  <openidConnectProvider id="op" oauthProviderRef="oauth" issuerIdentifier="${issuer}" signatureAlgorithm="RS256"
    jwkEnabled="true" idTokenLifetime="1h" />
  <oauthProvider id="oauth" httpsRequired="false" autoAuthorize="true">
    ${clients.map(({ id }) => `<autoAuthorizeClient>${id}</autoAuthorizeClient>`).join('\n    ')}
    <localStore>
      ${clients
        .map(
          ({ id, secret, redirectUri, backChannelUrl }) =>
            `<client name="${id}" secret="${secret}" redirect="${redirectUri}" scope="openid" preAuthorizedScope="openid"
        backchannelLogoutUri="${backChannelUrl}" />`
        )
        .join('\n      ')}
    </localStore>
  </oauthProvider>
</server>
`
}

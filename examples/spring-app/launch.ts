// How the Spring app is built and started, for its test and for the demo.
import { spawnSync } from 'node:child_process'
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import type { Command, LaunchOptions } from '../launch.ts'

const folder = fileURLToPath(new URL('.', import.meta.url))
const root = fileURLToPath(new URL('../..', import.meta.url))
const jar = join(folder, 'target/spring-app.jar')

/** Maven, with what it downloads kept inside the project. */
export const maven = {
  command: process.env.MAVEN ?? 'mvn',
  args: ['-B', `-Dmaven.repo.local=${join(root, '.data/maven')}`, '-Dorg.slf4j.simpleLogger.showDateTime=false']
} as const

/**
 * Builds the client and the app, if the app is not built yet.
 *
 * @throws {Error} if Maven or a JDK is missing, or the build fails
 */
export function buildSpringApp(): void {
  if (existsSync(jar)) {
    return
  }
  for (const [where, goal] of [
    [join(root, 'clients/java'), 'install'],
    [folder, 'package']
  ] as const) {
    run(maven.command, [...maven.args, '-q', '-DskipTests', goal], where)
  }
}

/** The process of the app: it answers at `http://localhost:<port>` when it is ready. */
export function springApp(options: LaunchOptions): Command {
  const trusted = join(options.folder, `trusted-${options.clientId}.p12`)
  run('keytool', [
    ...['-importcert', '-noprompt', '-alias', 'provider', '-file', options.certificateFile],
    ...['-keystore', trusted, '-storetype', 'PKCS12', '-storepass', 'changeit']
  ])
  const url = new URL(options.databaseUrl)
  return {
    command: 'java',
    args: [
      '-Xmx256m',
      `-Djavax.net.ssl.trustStore=${trusted}`,
      '-Djavax.net.ssl.trustStorePassword=changeit',
      '-jar',
      jar
    ],
    env: {
      PORT: String(options.port),
      SPRING_DATASOURCE_URL: `jdbc:postgresql://${url.host}${url.pathname}`,
      SPRING_DATASOURCE_USERNAME: decodeURIComponent(url.username),
      SPRING_DATASOURCE_PASSWORD: decodeURIComponent(url.password),
      AUTHORITY: options.issuer,
      CLIENT_ID: options.clientId,
      CLIENT_SECRET: options.clientSecret,
      API_URL: options.apiUrl
    }
  }
}

function run(command: string, args: readonly string[], cwd = folder): void {
  const { status, error, stdout, stderr } = spawnSync(command, args, { cwd, encoding: 'utf8' })
  if (status !== 0) {
    throw new Error(`"${command} ${args.join(' ')}" ended with ${status ?? error}:\n${stdout}${stderr}`)
  }
}

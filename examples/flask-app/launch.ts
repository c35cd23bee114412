// How the Flask app is installed and started, for its test and for the demo.
import { createHash } from 'node:crypto'
import { readdirSync, readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { pythonEnvironment } from '../../clients/python/environment.ts'
import type { Command, LaunchOptions } from '../launch.ts'

const folder = fileURLToPath(new URL('.', import.meta.url))

/**
 * Installs what the app needs, with the client of this project, if it is not installed yet.
 *
 * @returns the interpreter
 * @throws {Error} if Python is missing, or its registry does not answer
 */
export function buildFlaskApp(): string {
  const requirements = readFileSync(`${folder}/requirements.txt`, 'utf8')
  const withClient = requirements.replace(/^msal-logout$/m, './clients/python')
  return pythonEnvironment('flask-app', `${withClient}# ${hashClient()}\n`)
}

/** Changes with the client, which is then installed anew. */
function hashClient(): string {
  const sources = new URL('../../clients/python/src/msal_logout/', import.meta.url)
  const hash = createHash('sha256')
  for (const name of readdirSync(sources).sort()) {
    if (name.endsWith('.py')) {
      hash.update(readFileSync(new URL(name, sources)))
    }
  }
  return hash.digest('hex')
}

/** The process of the app: it answers at `http://localhost:<port>` when it is ready. */
export function flaskApp(python: string, options: LaunchOptions): Command {
  return {
    command: python,
    args: [`${folder}/app.py`],
    env: {
      PORT: String(options.port),
      DATABASE_URL: options.databaseUrl,
      AUTHORITY: options.issuer,
      CLIENT_ID: options.clientId,
      CLIENT_SECRET: options.clientSecret,
      API_URL: options.apiUrl,
      REQUESTS_CA_BUNDLE: options.certificateFile,
      PYTHONDONTWRITEBYTECODE: '1'
    }
  }
}

import { readFileSync } from 'node:fs'
import { CommandError } from './command-error.ts'

export function usage(message: string): CommandError {
  return new CommandError(2, 'usage', message)
}

/**
 * The address of the operators' listener.
 *
 * @throws {CommandError} if it is none, or holds credentials
 */
export function addressOf(url: string): URL {
  let address: URL
  try {
    address = new URL(url)
  } catch (error) {
    throw new CommandError(
      2,
      'usage',
      'the address in --url or ADMIN_URL is no URL: it looks like http://127.0.0.1:3001',
      {
        cause: error
      }
    )
  }
  if (!/^https?:$/.test(address.protocol) || address.username !== '' || address.password !== '') {
    throw usage('the address in --url or ADMIN_URL must be http: or https:, without credentials')
  }
  return address
}

/**
 * The credentials, which never are an argument's value: every user of the machine sees those.
 *
 * @param tokenFile the file that holds them; undefined: the variable `ADMIN_TOKEN` does
 * @returns a function that reads them anew: a long command outlives an access token
 * @throws {CommandError} if there are none
 */
export function tokenSource(
  tokenFile: string | undefined,
  env: Readonly<Record<string, string | undefined>>
): () => string {
  const read = () => {
    if (!tokenFile) {
      return env.ADMIN_TOKEN?.trim() ?? ''
    }
    try {
      return readFileSync(tokenFile, 'utf8').trim()
    } catch (error) {
      throw new CommandError(2, 'credentials_missing', `the file "${tokenFile}" of --token-file cannot be read`, {
        cause: error
      })
    }
  }
  const checked = () => {
    const token = read()
    if (token === '') {
      throw new CommandError(
        2,
        'credentials_missing',
        'no credentials: set ADMIN_TOKEN, or give --token-file <path> or ADMIN_TOKEN_FILE'
      )
    }
    if (!/^[\x21-\x7e]+$/.test(token)) {
      const source = tokenFile === undefined ? 'ADMIN_TOKEN' : `the file "${tokenFile}"`
      throw new CommandError(
        2,
        'credentials_missing',
        `${source} holds no token: it has blanks or other characters in it`
      )
    }
    return token
  }
  checked() // before anything is asked
  return checked
}

/** @throws {CommandError} if it is no number of seconds */
export function secondsOf(option: string, text: string): number {
  if (!/^\d{1,6}$/.test(text)) {
    throw usage(`${option} takes a number of seconds`)
  }
  return Number(text)
}

import { CommandError, interrupted, printable } from './command-error.ts'
import { addressOf, tokenSource } from './operator-access.ts'
import { createOperatorClient } from './operator-client.ts'
import type { CommandSurroundings } from './surroundings.ts'

/** What every command takes that asks a running service, as commander gives it. */
export interface OperatorOptions {
  readonly url: string
  readonly tokenFile?: string
  readonly json?: boolean
}

/** The operators' listener of a running service. */
export type OperatorClient = ReturnType<typeof createOperatorClient>

export function connect({ url, tokenFile }: OperatorOptions, { env, signal }: CommandSurroundings): OperatorClient {
  return createOperatorClient({ url: addressOf(url), token: tokenSource(tokenFile, env), signal })
}

/** Shows what `read` resolves to; returns the exit code. */
export async function show<Shown extends object>(
  options: OperatorOptions,
  surroundings: CommandSurroundings,
  read: (client: OperatorClient) => Promise<Shown>,
  textOf: (shown: Shown) => string
): Promise<number> {
  const { stdout, signal } = surroundings
  try {
    const shown = await read(connect(options, surroundings))
    stdout.write(options.json === true ? `${JSON.stringify(shown)}\n` : textOf(shown))
    return 0
  } catch (error) {
    if (signal.aborted) {
      return interrupted
    }
    throw error
  }
}

/** What an act says of itself while it goes on. */
export interface Progress {
  /** For a person, on standard error. */
  say(text: string): void
  /** The result: one line of JSON where that is asked for, else the text. */
  conclude(result: object, text: string): void
  /** What is to be said if it is interrupted from now on; until then nothing was done. */
  reached(known: string): void
}

const outcomes = { 1: 'failed', 2: 'refused', 3: 'unmatched' } as const

/** Does something, and says what became of it, also if it fails or is interrupted; returns the exit code. */
export async function act(
  options: OperatorOptions,
  surroundings: CommandSurroundings,
  work: (client: OperatorClient, progress: Progress) => Promise<void>
): Promise<number> {
  const { stdout, stderr, signal } = surroundings
  const say = (text: string) => stderr.write(`${text}\n`)
  const conclude = (result: object, text: string) => {
    stdout.write(options.json === true ? `${JSON.stringify(result)}\n` : text)
  }
  let known = 'nothing was done'
  const reached = (now: string) => {
    known = now
  }
  try {
    await work(connect(options, surroundings), { say, conclude, reached })
    return 0
  } catch (error) {
    if (signal.aborted) {
      say(`interrupted: ${known}`)
      conclude({ outcome: 'interrupted', message: known }, '')
      return interrupted
    }
    if (!(error instanceof CommandError)) {
      throw error
    }
    say(`error: ${printable(error.message)}`)
    conclude({ outcome: outcomes[error.exitCode], code: error.code, message: error.message }, '')
    return error.exitCode
  }
}

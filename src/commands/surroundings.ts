import { createInterface } from 'node:readline'
import type { Readable } from 'node:stream'
import { CommandError } from './command-error.ts'

/** What a command has of its process. */
export interface CommandSurroundings {
  readonly env: Readonly<Record<string, string | undefined>>
  readonly stdin: Readable & { readonly isTTY?: boolean }
  readonly stdout: NodeJS.WritableStream
  readonly stderr: NodeJS.WritableStream & { readonly isTTY?: boolean }
  /** Aborted by Ctrl-C. */
  readonly signal: AbortSignal
}

/**
 * Asks the person.
 *
 * @param question on its last line; what stands above it is what it is about
 * @throws {CommandError} if the answer is anything but yes, or nobody can be asked
 */
export async function confirm({ stdin, stderr, signal }: CommandSurroundings, question: string): Promise<void> {
  if (stdin.isTTY !== true || !stderr.isTTY) {
    stderr.write(question.replace(/\n.*$/, '\n'))
    throw new CommandError(
      2,
      'not_confirmed',
      'nobody can be asked without a terminal, so nothing was done: add --yes if it is meant'
    )
  }
  // Without `terminal` Ctrl-C stays a signal.
  const lines = createInterface({ input: stdin, output: stderr, terminal: false })
  try {
    const answer = await new Promise<string>((resolve, reject) => {
      const decline = () => reject(new CommandError(2, 'not_confirmed', 'nothing was done'))
      signal.addEventListener('abort', decline, { once: true })
      lines.once('close', decline)
      lines.question(question, resolve)
      if (signal.aborted) {
        decline() // before anybody listened
      }
    })
    if (!/^y(es)?$/i.test(answer.trim())) {
      throw new CommandError(2, 'not_confirmed', 'nothing was done')
    }
  } finally {
    lines.close()
  }
}

/** An error that a person reads in one line: what is wrong, and what to do. */
export class CommandError extends Error {
  /** For programs, and stable; the operators' HTTP API's own `code` if it gave one. */
  readonly code: string
  /** 1: it failed; 2: it was asked wrongly, or a person said no; 3: nothing matched. */
  readonly exitCode: 1 | 2 | 3

  constructor(exitCode: 1 | 2 | 3, code: string, message: string, options?: ErrorOptions) {
    super(message, options)
    this.name = 'CommandError'
    this.code = code
    this.exitCode = exitCode
  }
}

/** The exit code of what was done, and nothing was there to do it to. */
export const nothingMatched = 3

/** The exit code after Ctrl-C, as shells have it: 128 and the signal's number. */
export const interrupted = 130

/** Text of a database or a server, fit for a terminal: no control characters that could repaint it. */
export function printable(text: string): string {
  return text.replace(/[\p{Cc}\p{Cf}\p{Cs}]/gu, '?')
}

/** The innermost cause in a few words: a code if there is one, since `fetch` itself only says that it failed. */
export function reasonOf(error: unknown): string {
  if (error instanceof Error && error.cause !== undefined) {
    return reasonOf(error.cause)
  }
  if (!(error instanceof Error)) {
    return 'no answer'
  }
  return 'code' in error && typeof error.code === 'string' ? error.code : error.message
}

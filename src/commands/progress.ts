import { SingleBar } from 'cli-progress'
import { counted } from './counted.ts'
import type { Progress } from './operator-client.ts'

const lineEveryMs = 10_000

/** Shows how far a purge is: by a bar on a terminal, else by a line now and then. */
export function createProgress(stderr: NodeJS.WritableStream & { readonly isTTY?: boolean }) {
  let bar: SingleBar | undefined
  let lineAt = Number.NEGATIVE_INFINITY
  let noted = ''

  function say(text: string): void {
    stderr.write(`${text}\n`)
  }

  function stop(): void {
    bar?.stop()
    bar = undefined
  }

  return {
    show({ accounts, total, rows, isDone }: Progress): void {
      if (!stderr.isTTY) {
        if (!isDone && performance.now() - lineAt >= lineEveryMs) {
          lineAt = performance.now()
          say(`${accounts.toLocaleString('en')} of ${counted(total, 'account')}, ${counted(rows, 'row')}`)
        }
        return
      }
      if (bar === undefined) {
        if (isDone) {
          return // there was nothing to wait for
        }
        bar = new SingleBar({
          stream: stderr,
          format: '{bar} {percentage}% | {value}/{total} accounts | {rows} rows | {eta_formatted}',
          barCompleteChar: '#',
          barIncompleteChar: '-',
          barsize: 30,
          hideCursor: true,
          gracefulExit: false // the command does that itself
        })
        bar.start(total, accounts, { rows })
      }
      bar.update(accounts, { rows })
    },

    /** Something that lasts, said once; empty when it is over. */
    note(text: string): void {
      if (text === noted) {
        return
      }
      noted = text
      // A bar would paint over it; it comes back with the next answer.
      stop()
      say(text === '' ? 'the service answers again' : text)
    },

    stop
  }
}

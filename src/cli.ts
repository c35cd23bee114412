#!/usr/bin/env node
import { main } from './command-line.ts'

const { argv, env, stdin, stdout, stderr } = process

// Of this name in processes.ts, which need not be loaded for it.
const isForked = env.MSAL_LOGOUT_PROCESS !== undefined && process.send !== undefined

// By default they kill, also while the service is being loaded. To a whole group, or by systemd, they come to each process that was
// forked, too; it is the first one that acts on them.
for (const signal of isForked ? (['SIGHUP', 'SIGTERM', 'SIGINT'] as const) : argv[2] === 'serve' ? ['SIGHUP'] : []) {
  process.on(signal, () => {})
}

// `| head -1` has seen enough: the work goes on, and the exit code is that of the work.
for (const stream of [stdout, stderr]) {
  stream.on('error', (error: NodeJS.ErrnoException) => {
    if (error.code !== 'EPIPE') {
      stderr.write(`error: the output cannot be written (${error.code})\n`)
      process.exit(1)
    }
  })
}

function takeInterrupts(): AbortSignal {
  const interruption = new AbortController()
  process.once('SIGINT', () => interruption.abort())
  process.once('SIGTERM', () => interruption.abort())
  return interruption.signal
}

const exitCode = isForked
  ? await import('./worker.ts').then(({ work }) => work())
  : await main(argv.slice(2), { env, stdin, stdout, stderr, takeInterrupts })
if (exitCode === 0) {
  process.exitCode = 0 // not at once: `serve` goes on
} else {
  stdout.write('', () => process.exit(exitCode)) // also with something open still, as of a service that could not start
}

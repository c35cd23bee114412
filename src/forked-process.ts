import cluster, { type Worker } from 'node:cluster'
import { type Channel, type ChannelPort, openChannel } from './process-channel.ts'
import type { FirstCalls, WorkerCalls } from './worker.ts'

/** Marks a forked process, as `cli.ts` looks for it; its value is for people who look at processes. */
const partVariable = 'MSAL_LOGOUT_PROCESS'

export interface ForkedProcess {
  readonly pid: number | undefined
  readonly channel: Channel<WorkerCalls>
  /** Resolves when it listens to this process. */
  readonly ready: Promise<void>
  /** Resolves as it ends. */
  readonly exited: Promise<End>
  kill(): void
}

/** How a process ended. */
export interface End {
  readonly code: number | undefined
  readonly signal: string | undefined
  /** Why there never was one. */
  readonly error: string | undefined
}

/**
 * Forks a process that does what this one says.
 *
 * @param name for people who look at processes
 * @param ours what this process does for it
 * @throws if the system has no room for another process; or `exited` says so
 */
export function forkProcess(name: string, ours: Omit<FirstCalls, 'ready'>): ForkedProcess {
  const worker = cluster.fork({ [partVariable]: name })
  closeWithWorker(worker)
  let isReady = () => {}
  const ready = new Promise<void>((resolve) => {
    isReady = resolve
  })
  const calls: FirstCalls = { ...ours, ready: isReady }
  const channel = openChannel<WorkerCalls>(portOf(worker), { ...calls })
  const exited = new Promise<End>((resolve) => {
    worker.once('exit', (code, signal) => resolve({ code, signal: signal ?? undefined, error: undefined }))
    worker.on('error', (error: Error) => {
      if (worker.process.pid === undefined) {
        resolve({ code: undefined, signal: undefined, error: error.message }) // it has not begun, and nothing else says so
      }
      // Else something could not be sent to it: it has ended, and its end is seen.
    })
  })
  exited.then(() => channel.end())
  return { pid: worker.process.pid, channel, ready, exited, kill: () => worker.process.kill('SIGKILL') }
}

/**
 * Closes the connections that a process was being given when it ended: one of each listener, and under a name such as `localhost` there is
 * one for each of its addresses. node:cluster waits for that process to take them, and forgets them: they would stay open here, and their
 * senders would wait.
 */
function closeWithWorker({ process: child }: Worker): void {
  const { send } = child
  if (send === undefined) {
    return // the system had no room for it
  }
  const given = new Map<unknown, unknown>() // by listener, of which one is given at a time
  Reflect.set(child, 'send', (...args: unknown[]) => {
    const [message, handle] = args
    if (handle !== undefined) {
      given.set(Object(message).key, handle)
    }
    return Reflect.apply(send, child, args)
  })
  child.once('exit', () => {
    for (const handle of given.values()) {
      if (typeof handle === 'object' && handle !== null && 'close' in handle && typeof handle.close === 'function') {
        handle.close() // of one that was taken it does nothing
      }
    }
  })
}

function portOf(worker: Worker): ChannelPort {
  return {
    send: (message, done) => worker.process.send?.(message, undefined, undefined, done),
    listen: (take) => worker.on('message', take)
  }
}

export interface NotifierOptions {
  /** Sends one notification. */
  readonly send: () => Promise<void>
  readonly onFailure: (error: unknown) => void
  /**
   * The least time from the end of one notification to the next, in milliseconds; default 50. Each wakes every listener of every app, which
   * then asks the database.
   */
  readonly intervalMs?: number
}

export interface Notifier {
  /** Has one sent: at once, if none was sent of late. */
  notify(): void
  /** Sends what is due, and resolves when that is over. */
  stop(): Promise<void>
}

/**
 * Wakes the listeners of the apps after a commit. One notification stands for all commits before it, so one is under way at most and one
 * waits. What fails is counted, and no sign-out's matter: the listeners look by themselves, too.
 */
export function createNotifier({ send, onFailure, intervalMs = 50 }: NotifierOptions): Notifier {
  let underWay: Promise<void> | undefined
  let isDue = false
  let isStopped = false
  let endPause = () => {}

  async function sendAll(): Promise<void> {
    while (isDue) {
      isDue = false
      await send().catch(onFailure)
      await pause()
    }
    underWay = undefined
  }

  function pause(): Promise<void> {
    return new Promise((resolve) => {
      const timer = setTimeout(resolve, isStopped ? 0 : intervalMs)
      endPause = () => {
        clearTimeout(timer)
        resolve()
      }
    })
  }

  return {
    notify() {
      isDue = true
      underWay ??= sendAll()
    },
    async stop() {
      isStopped = true
      endPause()
      await underWay
    }
  }
}

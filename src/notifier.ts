export interface NotifierOptions {
  /** Sends one notification. */
  readonly send: () => Promise<void>
  readonly onFailure: (error: unknown) => void
}

/**
 * Makes the function that wakes the listeners of the apps after a commit. One notification stands for all commits before it, so one
 * is under way at most and one waits. What fails is counted, and no sign-out's matter: the listeners look by themselves, too.
 */
export function createNotifier({ send, onFailure }: NotifierOptions): () => void {
  let isUnderWay = false
  let isDue = false

  async function sendAll(): Promise<void> {
    isUnderWay = true
    while (isDue) {
      isDue = false
      await send().catch(onFailure)
    }
    isUnderWay = false
  }

  return () => {
    isDue = true
    if (!isUnderWay) {
      void sendAll()
    }
  }
}

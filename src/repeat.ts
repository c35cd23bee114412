/** Work that is done again and again. */
export interface Repetition {
  /** Ends it, after what is under way. */
  stop(): Promise<void>
}

/**
 * Does the work again and again, one after the other.
 *
 * @param work resolves with the pause until the next time, in milliseconds. Its signal is aborted when it is to end early. It must not
 *   reject: a failure that nobody hears would end the process
 * @param firstMs the pause before the first time, in milliseconds
 */
export function repeat(work: (signal: AbortSignal) => Promise<number>, firstMs: number): Repetition {
  const stopping = new AbortController()
  let timer: NodeJS.Timeout | undefined
  let running: Promise<void> | undefined

  function schedule(ms: number): void {
    if (!stopping.signal.aborted) {
      timer = setTimeout(() => {
        running = work(stopping.signal).then(schedule)
      }, ms)
    }
  }

  schedule(firstMs)
  return {
    async stop() {
      stopping.abort()
      clearTimeout(timer)
      await running
    }
  }
}

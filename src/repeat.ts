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

export interface OutageOptions {
  /** The pause after work that went well, in milliseconds. */
  readonly everyMs: number
  /** The least pause after a failure, in milliseconds. */
  readonly outagePauseMs: number
  /** Called with the first failure of several in a row. */
  readonly onOutage: (error: unknown) => void
}

/** As {@link repeat}, at once for the first time, for work that fails as long as its surroundings do. */
export function repeatThroughOutages(
  work: () => Promise<unknown>,
  { everyMs, outagePauseMs, onOutage }: OutageOptions
): Repetition {
  let hasFailed = false
  return repeat(async () => {
    try {
      await work()
      hasFailed = false
      return everyMs
    } catch (error) {
      if (!hasFailed) {
        onOutage(error)
      }
      hasFailed = true
      return Math.max(everyMs, outagePauseMs)
    }
  }, 0)
}

/**
 * Takes one step of each in turn, until none has another one. What fails is left out, and holds up no other.
 *
 * @param step resolves with whether another step is due
 * @param signal ends it between two steps
 * @throws the first failure, once all were tried
 */
export async function takeTurns<Item>(
  items: readonly Item[],
  step: (item: Item) => Promise<boolean>,
  signal: AbortSignal
): Promise<void> {
  const failures: unknown[] = []
  for (let due = items; due.length > 0 && !signal.aborted; ) {
    const unfinished: Item[] = []
    for (const item of due) {
      if (signal.aborted) {
        break
      }
      try {
        if (await step(item)) {
          unfinished.push(item)
        }
      } catch (error) {
        failures.push(error)
      }
    }
    due = unfinished
  }
  if (failures.length > 0) {
    throw failures[0]
  }
}

import { networkOf } from './network.ts'

export interface Suspects {
  /** Has what this address sends give way for a minute. */
  add(address: string): void
  /** Resolves when it is this address's turn, with what ends the turn, once; undefined where it need not wait. */
  turn(address: string): Promise<() => void> | undefined
}

const maxSuspects = 10_000
const suspectForMs = 60_000
// Far below the time of an answer: what is genuine waits for its turn, and is done.
const maxTurnWaitMs = 300

/**
 * Lets what comes from addresses that sent too much that was refused go one by one, behind everybody else: a flood then
 * never has more than one token at the costly checks, however many connections it comes over.
 */
export function createSuspects({ now = Date.now }: { now?: () => number } = {}): Suspects {
  const since = new Map<string, number>()
  const waiting: (() => void)[] = []
  let isBusy = false

  function next(): void {
    const go = waiting.shift()
    isBusy = go !== undefined
    // After what has arrived meanwhile, of everybody else.
    if (go !== undefined) {
      setImmediate(go)
    }
  }

  return {
    add(address) {
      const key = networkOf(address)
      since.delete(key)
      since.set(key, now())
      const [oldest] = since.keys()
      if (since.size > maxSuspects && oldest !== undefined) {
        since.delete(oldest)
      }
    },
    turn(address) {
      const addedAt = since.get(networkOf(address))
      if (addedAt === undefined || Math.abs(now() - addedAt) > suspectForMs) {
        return undefined
      }
      return new Promise((resolve) => {
        const goUnasked = setTimeout(() => {
          const place = waiting.indexOf(go)
          if (place >= 0) {
            waiting.splice(place, 1)
            resolve(() => {})
          }
        }, maxTurnWaitMs)
        const go = () => {
          clearTimeout(goUnasked)
          let isOver = false
          resolve(() => {
            if (!isOver) {
              isOver = true
              next()
            }
          })
        }
        waiting.push(go)
        if (!isBusy) {
          next()
        }
      })
    }
  }
}

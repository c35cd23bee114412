import { UnavailableError } from './errors.ts'
import type { Logout, Purged, Store } from './store.ts'

/** Carries out one logout; resolves once it is committed. Throws {@link UnavailableError} where it could not be. */
export type SignOut = (logout: Logout) => Promise<Purged>

export interface SignOutOptions {
  /** The most logouts in one transaction; default 128. */
  maxBatch?: number
  /**
   * How long a logout may wait for its turn, in milliseconds; default 1000. One that waited longer is not begun:
   * its sender is about to be told 503, and has its token kept for later.
   */
  maxWaitMs?: number
  /** Told of each transaction that was committed: how many logouts it held. */
  onCommitted?: (logouts: number) => void
}

interface Waiting {
  readonly logout: Logout
  readonly since: number
  resolve(purged: Purged): void
  reject(error: unknown): void
}

const maxTries = 3
const lanesForSingles = 2

/**
 * Makes the function that ends sessions. Logouts that arrive while a transaction is in flight wait and go
 * together in the next one: a single commit to disk answers them all, and a lone one waits for nobody.
 *
 * A batch that fails through one of its logouts (a lock that somebody holds, a value the database refuses) is
 * taken apart: each goes alone, two at a time, while the next batch is already on its way. One that has begun
 * may be done after its sender was told 503: that does no harm, since the same token again ends nothing twice.
 *
 * @param store carries a batch out in one transaction, all or nothing
 */
export function createSignOut(
  store: Pick<Store, 'signOut'>,
  { maxBatch = 128, maxWaitMs = 1_000, onCommitted }: SignOutOptions = {}
): SignOut {
  const waiting: Waiting[] = []
  const singles: Waiting[] = []
  let inFlight = false
  let lanes = 0

  async function drain(): Promise<void> {
    inFlight = true
    while (waiting.length > 0) {
      const batch = waiting.splice(0, maxBatch).filter(isInTime)
      if (batch.length > 0 && !(await carryOut(batch, false))) {
        singles.push(...batch)
        while (lanes < lanesForSingles && singles.length > 0) {
          void drainSingles()
        }
      }
    }
    inFlight = false
  }

  async function drainSingles(): Promise<void> {
    lanes += 1
    for (let single = singles.shift(); single !== undefined; single = singles.shift()) {
      if (isInTime(single)) {
        await carryOut([single], true)
      }
    }
    lanes -= 1
  }

  /**
   * False where the batch should be taken apart; else everyone in it has an answer. A patient one is alone, and
   * waits for locks.
   */
  async function carryOut(batch: readonly Waiting[], patient: boolean): Promise<boolean> {
    for (let tries = 1; ; tries++) {
      try {
        const results = await store.signOut(
          batch.map(({ logout }) => logout),
          { patient }
        )
        onCommitted?.(batch.length)
        results.forEach((purged, i) => {
          batch[i]?.resolve(purged)
        })
        return true
      } catch (error) {
        const code = error instanceof UnavailableError ? error.code : undefined
        if (code === 'ERR_DATABASE_CONFLICT' && tries < maxTries) {
          continue
        }
        const isOneOfThem = code === 'ERR_DATABASE_CONFLICT' || code === 'ERR_DATABASE_FAILED'
        if (isOneOfThem && !patient) {
          return false
        }
        for (const entry of batch) {
          entry.reject(error)
        }
        return true
      }
    }
  }

  function isInTime({ since, reject }: Waiting): boolean {
    const inTime = performance.now() - since <= maxWaitMs
    if (!inTime) {
      reject(new UnavailableError('ERR_DEADLINE'))
    }
    return inTime
  }

  return (logout) =>
    new Promise((resolve, reject) => {
      waiting.push({ logout, since: performance.now(), resolve, reject })
      if (!inFlight) {
        void drain()
      }
    })
}

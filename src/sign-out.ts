import { createHash } from 'node:crypto'
import { UnavailableError } from './errors.ts'

/** Whom an order is about. */
export type Selector =
  /** A sid decides alone; the subject finds a login of this session that was stored without a sid. */
  | {
      readonly kind: 'session'
      readonly issuer: string
      readonly sid: string
      readonly subject?: string | undefined
    }
  /** Every session of the subject; and of the sid, since another app may know it under another subject. */
  | {
      readonly kind: 'subject'
      readonly issuer: string
      readonly subject: string
      readonly sid?: string | undefined
    }
  /** `issuer`: of the account, or one that shares accounts with it; '': of any, of an id from client info; undefined: not known. */
  | { readonly kind: 'account'; readonly homeAccountId: string; readonly issuer?: string | undefined }
  /** A directory object, as the claims `tid` and `oid` name it. */
  | { readonly kind: 'object'; readonly tenantId: string; readonly objectId: string }

/** What a verified signal asks for. Plain data: it can be deferred, and carried out without its signal. */
export interface Order {
  /** A UUID, the same for the same signal. */
  readonly id: string
  /** The name of the signal's kind. */
  readonly source: string
  /** The name of the issuer's configuration, for logs and metrics. */
  readonly issuerName?: string | undefined
  readonly selector: Selector
  /** Ends what was issued up to then; seconds since 1970. */
  readonly revokeBefore: number
  /** Every row of each matched account goes, or those alone that no other live session uses. */
  readonly purgeScope: 'account' | 'session'
  /** A session that was issued after `revokeBefore` is not matched, also if its sid is named. */
  readonly sparesNewer: boolean
  /** Whether somebody has vouched for it. What is unsigned goes behind what is signed. */
  readonly isSigned: boolean
  /** Guarded against duplicates by its id. */
  readonly isOnce: boolean
  /** Whether it leaves a record if no session was there to end. */
  readonly recordUnmatched: boolean
  /** How long the tombstone stays, in seconds: it rejects a login that is under way. 0: none stays, and nothing is written if nothing matches. */
  readonly rememberSeconds: number
  /** The app that a logout token was for. */
  readonly clientId?: string | undefined
  readonly jti?: string | undefined
  /** When its issuer says that it was issued, seconds since 1970; undefined if it does not say so. */
  readonly issuedAt?: number | undefined
  readonly reason?: string | undefined
  readonly actor?: string | undefined
  /** What an Idempotency-Key stands for, in hexadecimal. */
  readonly requestHash?: string | undefined
}

/** The id of the order that a signal asks for: the same for the same signal, at every instance. */
export function orderId(...parts: readonly string[]): string {
  const hash = createHash('sha256').update(JSON.stringify(parts)).digest('hex')
  return hash.slice(0, 32).replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, '$1-$2-$3-$4-$5')
}

/** MSAL's account; `issuer` of one that is a bare `sub`. */
export interface Account {
  readonly homeAccountId: string
  readonly issuer: string | undefined
}

/** What was deleted in one app. */
export interface ClientCounts {
  /** The accounts of which a row or a session in this app went: an account counts in each of its apps. A dry run counts rows alone by app. */
  readonly accounts: number
  readonly sessions: number
  readonly rows: number
}

export interface Deleted {
  readonly accounts: number
  readonly sessions: number
  readonly rows: number
  readonly byClient: Readonly<Record<string, ClientCounts>>
}

/** What came of an order. */
export interface SignOutResult extends Deleted {
  /** Of the order, and of its record. */
  readonly id: string
  /** `unmatched`: no session was there to end. `duplicate`: it was done before, and nothing was done now. */
  readonly outcome: 'done' | 'unmatched' | 'duplicate'
  readonly matched: readonly Account[]
}

/**
 * Carries orders out; resolves once all of them are committed, with the results in their order.
 * @throws {UnavailableError} if one could not be carried out now; others may have been
 */
export type SignOut = (orders: readonly Order[]) => Promise<readonly SignOutResult[]>

export interface CommitOptions {
  /** Waits for locks as long as the connection allows. */
  readonly isPatient: boolean
  /** Nobody waits for it but its sender. */
  readonly isAlone?: boolean
}

/** Of an order that is being carried out in steps: this transaction did nothing of it. */
export interface Unfinished {
  readonly outcome: 'unfinished'
}

/** One transaction for many orders, all or nothing. */
export type CommitOrders = (
  orders: readonly Order[],
  options: CommitOptions
) => Promise<readonly (SignOutResult | Unfinished)[]>

/** The ids of the orders that would delete more than so much. */
export type FindLarge = (orders: readonly Order[], maxDeletions: number) => Promise<readonly string[]>

/**
 * The most rows and sessions that one transaction deletes, once orders have proved too large to go together. Some 50 ms: so long others
 * may wait.
 */
export const maxDeletionsAtOnce = 2_000

export interface SignOutOptions {
  /** The most orders in one transaction; default 128. */
  readonly maxBatch?: number
  /** The most unsigned orders in one transaction; default 16. */
  readonly maxUnsigned?: number
  /** The most unsigned orders that wait; one more is unavailable at once. Default 1000. */
  readonly maxUnsignedWaiting?: number
  /** How long an order may wait, in milliseconds; default 1000. One that waited longer is not begun: it is deferred. */
  readonly maxWaitMs?: number
  /** Milliseconds of a clock that only goes forward; default `performance.now`. */
  readonly now?: () => number
  /** Called after each commit, with the results. */
  readonly onCommitted?: (results: readonly SignOutResult[]) => void
  /** Looks for those that made a batch too slow; default: none is ever found. */
  readonly findLarge?: FindLarge
  /** What deletes more than so many rows and sessions is large; default {@link maxDeletionsAtOnce}. */
  readonly maxDeletions?: number
}

export interface Queue {
  readonly signOut: SignOut
  /** Whether signed orders wait. */
  isBusy(): boolean
}

interface Waiting {
  readonly order: Order
  readonly since: number
  /** How often it had to go alone. */
  triesAlone: number
  resolve(result: SignOutResult): void
  reject(error: unknown): void
}

const maxConflicts = 3
const maxKnownLarge = 1_000
const lanesForSingles = 2
const firstBackOffMs = 25

/**
 * Makes the function that ends sessions. Orders that arrive while a transaction is in flight wait, and go together in the next
 * one: a single commit to disk answers them all. A lone one waits for nobody.
 *
 * A batch that fails through one of its orders (a lock that somebody holds, a value that the database rejects) is taken apart. Each
 * order then goes alone, behind the batches, and never into a batch again. The one at fault comes again after a back-off, until its
 * time is over: nobody else pays for it. An order that has begun may be done after its sender was answered 503. That does no harm:
 * the same order again ends nothing twice.
 *
 * Of a batch that takes too long, the large orders are unavailable at once ({@link signOutInSteps} is for them), and the others go
 * together again. Whether an order is large is not asked before: every sign-out would pay for it.
 *
 * @param commit carries a batch out
 */
export function createSignOut(
  commit: CommitOrders,
  {
    maxBatch = 128,
    maxUnsigned = 16,
    maxUnsignedWaiting = 1_000,
    maxWaitMs = 1_000,
    now = () => performance.now(),
    onCommitted,
    findLarge = async () => [],
    maxDeletions = maxDeletionsAtOnce
  }: SignOutOptions = {}
): Queue {
  const signed: Waiting[] = []
  const unsigned: Waiting[] = []
  const singles: Waiting[] = []
  /** Ids of orders that were found large: the same again, from the spool or from its sender, makes no second batch slow. */
  const knownLarge = new Set<string>()
  let inFlight = false
  let lanes = 0

  async function drain(): Promise<void> {
    inFlight = true
    while (signed.length + unsigned.length > 0) {
      const batch = nextBatch()
      if (batch.length > 0) {
        await commitTogether(batch)
      }
    }
    inFlight = false
  }

  function nextBatch(): Waiting[] {
    const first = signed.splice(0, maxBatch)
    const rest = unsigned.splice(0, Math.min(maxUnsigned, maxBatch - first.length))
    return [...first, ...rest].filter(isInTime)
  }

  /** Each has an answer then, or goes alone. */
  async function commitTogether(batch: readonly Waiting[]): Promise<void> {
    try {
      await commitAndAnswer(batch, { isPatient: false })
    } catch (error) {
      const rest = codeOf(error) === 'ERR_DATABASE_TIMEOUT' ? await rejectLarge(batch) : batch
      if (rest.length > 0 && rest.length < batch.length) {
        await commitTogether(rest)
        return
      }
      for (const entry of rest) {
        if (isOfOneOrder(error)) {
          goAlone(entry)
        } else {
          entry.reject(error)
        }
      }
    }
  }

  /** Returns the others. */
  async function rejectLarge(batch: readonly Waiting[]): Promise<readonly Waiting[]> {
    const ids = await findLarge(
      batch.map(({ order }) => order),
      maxDeletions
    ).catch((): readonly string[] => []) // each goes alone then
    for (const { order, reject } of batch.filter(({ order }) => ids.includes(order.id))) {
      knownLarge.add(order.id)
      reject(new UnavailableError('ERR_LARGE'))
    }
    for (const oldest of [...knownLarge].slice(0, -maxKnownLarge)) {
      knownLarge.delete(oldest)
    }
    return batch.filter(({ order }) => !ids.includes(order.id))
  }

  function goAlone(entry: Waiting): void {
    singles.push(entry)
    if (lanes < lanesForSingles) {
      void drainSingles()
    }
  }

  async function drainSingles(): Promise<void> {
    lanes += 1
    for (let single = singles.shift(); single !== undefined; single = singles.shift()) {
      if (isInTime(single)) {
        await commitAlone(single)
      }
    }
    lanes -= 1
  }

  async function commitAlone(single: Waiting): Promise<void> {
    try {
      await commitAndAnswer([single], { isPatient: false, isAlone: true })
    } catch (error) {
      const backOffMs = firstBackOffMs * 2 ** single.triesAlone
      if (
        !isWorthAnotherTry(error) ||
        codeOf(error) === 'ERR_DATABASE_TIMEOUT' ||
        now() + backOffMs - single.since > maxWaitMs
      ) {
        single.reject(error)
        return
      }
      single.triesAlone += 1
      setTimeout(() => goAlone(single), backOffMs)
    }
  }

  async function commitAndAnswer(batch: readonly Waiting[], options: CommitOptions): Promise<void> {
    const results = await tryAgainAfterConflicts(() =>
      commit(
        batch.map(({ order }) => order),
        options
      )
    )
    onCommitted?.(results.filter(isFinished))
    results.forEach((result, i) => {
      if (isFinished(result)) {
        batch[i]?.resolve(result)
      } else {
        batch[i]?.reject(new UnavailableError('ERR_LARGE'))
      }
    })
  }

  function isInTime({ since, reject }: Waiting): boolean {
    const inTime = now() - since <= maxWaitMs
    if (!inTime) {
      reject(new UnavailableError('ERR_DEADLINE'))
    }
    return inTime
  }

  function wait(order: Order): Promise<SignOutResult> {
    const queue = order.isSigned ? signed : unsigned
    if (!order.isSigned && unsigned.length >= maxUnsignedWaiting) {
      return Promise.reject(new UnavailableError('ERR_BUSY'))
    }
    return knownLarge.has(order.id) ? waitIfSmall(order) : waitIn(queue, order)
  }

  /** The same again, when its steps are over, is a duplicate like any other. */
  async function waitIfSmall(order: Order): Promise<SignOutResult> {
    const ids = await findLarge([order], maxDeletions).catch(() => [order.id])
    if (ids.includes(order.id)) {
      throw new UnavailableError('ERR_LARGE')
    }
    knownLarge.delete(order.id)
    return wait(order)
  }

  function waitIn(queue: Waiting[], order: Order): Promise<SignOutResult> {
    return new Promise((resolve, reject) => {
      queue.push({ order, since: now(), triesAlone: 0, resolve, reject })
      if (!inFlight) {
        void drain()
      }
    })
  }

  return {
    isBusy: () => signed.length > 0 || singles.some(({ order }) => order.isSigned),
    async signOut(orders) {
      const ends = await Promise.allSettled(orders.map(wait)) // an order that fails must not leave the others unheard
      return ends.map((end) => {
        if (end.status === 'rejected') {
          throw end.reason
        }
        return end.value
      })
    }
  }
}

/**
 * As {@link createSignOut}, for what could not be done among others: one order alone, patiently, in as many steps as it takes.
 *
 * @param step deletes a part of it, by connections with a longer time limit; undefined: another step is due
 * @param signal ends it between two steps; the next call goes on
 * @throws {UnavailableError} if it could not be carried out now, or was ended
 */
export async function signOutInSteps(
  step: () => Promise<SignOutResult | undefined>,
  signal?: AbortSignal
): Promise<SignOutResult> {
  for (;;) {
    const result = await tryAgainAfterConflicts(step)
    if (result !== undefined) {
      return result
    }
    if (signal?.aborted) {
      throw new UnavailableError('ERR_DEADLINE')
    }
  }
}

function isFinished(result: SignOutResult | Unfinished): result is SignOutResult {
  return result.outcome !== 'unfinished'
}

async function tryAgainAfterConflicts<T>(work: () => Promise<T>): Promise<T> {
  for (let conflicts = 1; ; conflicts++) {
    try {
      return await work()
    } catch (error) {
      if (codeOf(error) !== 'ERR_DATABASE_CONFLICT' || conflicts === maxConflicts) {
        throw error
      }
    }
  }
}

/** Whether one order may be at fault, so that the others go better without it. */
export function isOfOneOrder(error: unknown): boolean {
  const code = codeOf(error)
  return isWorthAnotherTry(error) || code === 'ERR_DATABASE_FAILED' || code === 'ERR_LARGE'
}

/** Whether somebody holds what one order is about. */
export function isOfLock(error: unknown): boolean {
  const code = codeOf(error)
  return code === 'ERR_DATABASE_LOCKED' || code === 'ERR_DATABASE_CONFLICT'
}

function isWorthAnotherTry(error: unknown): boolean {
  return isOfLock(error) || codeOf(error) === 'ERR_DATABASE_TIMEOUT'
}

function codeOf(error: unknown): UnavailableError['code'] | undefined {
  return error instanceof UnavailableError ? error.code : undefined
}

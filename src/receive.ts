import { budget, within } from './budget.ts'
import { RejectedError, UnavailableError } from './errors.ts'
import type { EndTurn, Senders } from './senders.ts'
import type { Order, SignOut, SignOutResult } from './sign-out.ts'
import type { Ignored, Signal } from './signals/signal.ts'
import type { Deferred, Spool } from './spool.ts'
import { traced } from './traces.ts'

/** An order that was carried out. */
export interface CarriedOut extends SignOutResult {
  readonly order: Order
}

/** `unmatched`: no session was there to end. `duplicate`: it was done before. */
export interface Committed {
  readonly outcome: 'done' | 'unmatched' | 'duplicate'
  readonly results: readonly CarriedOut[]
}

/** What became of a signal. It holds nothing of the signal's content but what operators may see. */
export type Outcome = {
  /** The signal's kind. */
  readonly source: string
  /** The name of the configured issuer, as soon as one is known. */
  readonly issuer: string | undefined
  /** The address that sent it; undefined if nobody did. */
  readonly sender: string | undefined
  /** It was deferred before, and counted then. */
  readonly isRetry: boolean
  /** From its arrival to this, in milliseconds; of a retry that includes the time on disk. */
  readonly tookMs: number
} & (
  | Committed
  /** Genuine, and done with: it asks for nothing here. */
  | { readonly outcome: 'ignored'; readonly reason: string }
  | {
      /** `deferred`: on disk, done later. `lost`: it could be neither done nor deferred. */
      readonly outcome: 'deferred' | 'lost'
      readonly error: UnavailableError
      /** What it asks for; empty if it could not be verified yet. */
      readonly orders: readonly Order[]
    }
  | {
      readonly outcome: 'rejected'
      readonly error: RejectedError
      /** Seconds until the sender may send an invalid one again; 0 within its limit. */
      readonly retryAfterSeconds: number
    }
  /** A mistake of ours. */
  | { readonly outcome: 'failed'; readonly error: unknown }
)

export interface Arrival {
  /** Milliseconds since 1970. */
  readonly receivedAt: number
  /** The address that sent it; undefined: we asked for it ourselves, and nothing limits it. */
  readonly sender?: string | undefined
}

export interface ReceiveOptions {
  readonly signOut: SignOut
  readonly spool: Pick<Spool, 'defer'>
  readonly senders: Pick<
    Senders,
    'rejected' | 'awaitSignedTurn' | 'awaitUnsignedTurn' | 'mayRemember' | 'matched' | 'unmatched'
  >
  /** Sees every outcome once. */
  readonly observe: (outcome: Outcome) => void
  /** How long the work may take, in milliseconds; default {@link budget}.workMs. */
  readonly workMs?: number
}

export type Receive = ReturnType<typeof createReceive>

/**
 * Makes the one way in: read a signal, sign out, say what became of it. After the first `await` it is genuine; after the second
 * it is on disk.
 *
 * @returns a function that never rejects: what became of the signal is a value
 */
export function createReceive({ signOut, spool, senders, observe, workMs = budget.workMs }: ReceiveOptions) {
  return async (signal: Signal, input: unknown, arrival: Arrival): Promise<Outcome> => {
    const outcome = await traced('receive', () => receive(signal, input, arrival), describe)
    observe(outcome)
    return outcome
  }

  async function receive(signal: Signal, input: unknown, { receivedAt, sender }: Arrival): Promise<Outcome> {
    const { source, isSigned } = signal
    const begunAt = performance.now()
    const common = () => ({ source, sender, isRetry: false, tookMs: Math.round(performance.now() - begunAt) })
    const endOfWork = begunAt + workMs
    const inTime = <T>(work: Promise<T>) =>
      within(work, endOfWork - performance.now(), () => new UnavailableError('ERR_DEADLINE'))

    const endTurn = await takeTurn(isSigned, sender)
    let reading: readonly Order[] | Ignored
    try {
      reading = await inTime(readInTurn(signal, input, receivedAt, endTurn))
    } catch (error) {
      endTurn?.()
      if (error instanceof RejectedError) {
        const retryAfterSeconds = sender === undefined ? 0 : senders.rejected(sender)
        return { ...common(), issuer: error.issuer, outcome: 'rejected', error, retryAfterSeconds }
      }
      if (!(error instanceof UnavailableError)) {
        return { ...common(), issuer: signal.issuerOf?.(input), outcome: 'failed', error }
      }
      const outcome = await defer({ kind: 'signal', source, isSigned, receivedAt, input }, endOfWork, sender)
      return { ...common(), issuer: error.issuer ?? signal.issuerOf?.(input), outcome, error, orders: [] }
    }

    if ('ignored' in reading) {
      endTurn?.()
      return { ...common(), issuer: reading.issuerName, outcome: 'ignored', reason: reading.ignored }
    }
    const orders = reading
    const issuer = orders[0]?.issuerName
    try {
      const results = await inTime(
        traced('sign out', () => signOut(orders.map((order) => asRemembered(order, sender))))
      )
      const outcome = committed(orders, results)
      countUnsigned(isSigned, sender, outcome)
      return { ...common(), issuer, ...outcome }
    } catch (error) {
      if (!(error instanceof UnavailableError)) {
        return { ...common(), issuer, outcome: 'failed', error }
      }
      const outcome = await defer({ kind: 'orders', source, isSigned, receivedAt, orders }, endOfWork, sender)
      return { ...common(), issuer, outcome, error, orders }
    } finally {
      endTurn?.()
    }
  }

  /** A signature is costly to verify, and what is unsigned has a small share of everything. */
  async function takeTurn(isSigned: boolean, sender: string | undefined): Promise<EndTurn | undefined> {
    if (sender === undefined) {
      return nothing
    }
    return isSigned
      ? ((await senders.awaitSignedTurn(sender)) ?? nothing)
      : senders.awaitUnsignedTurn(sender, budget.gateMs)
  }

  async function readInTurn(signal: Signal, input: unknown, receivedAt: number, endTurn: EndTurn | undefined) {
    if (endTurn === undefined) {
      throw new UnavailableError('ERR_BUSY')
    }
    const reading = await signal.read(input, receivedAt)
    if (signal.isSigned) {
      endTurn() // what is verified goes with all others
    }
    return reading
  }

  /** A sender that keeps making sids up leaves no tombstones: no login waits behind its calls. */
  function asRemembered(order: Order, sender: string | undefined): Order {
    return order.isSigned || sender === undefined || senders.mayRemember(sender)
      ? order
      : { ...order, rememberSeconds: 0 }
  }

  function countUnsigned(isSigned: boolean, sender: string | undefined, { outcome }: Committed): void {
    if (!isSigned && sender !== undefined) {
      senders[outcome === 'unmatched' ? 'unmatched' : 'matched'](sender)
    }
  }

  async function defer(deferred: Deferred, endOfWork: number, sender: string | undefined) {
    const isWelcome = deferred.isSigned || sender === undefined || senders.mayRemember(sender)
    const withinMs = endOfWork + budget.deferMs - performance.now()
    return isWelcome && (await spool.defer(deferred, withinMs, sender)) ? 'deferred' : 'lost'
  }
}

function nothing(): void {
  // no turn to end
}

/** What the results of a signal's orders come to: done if one of them ended something. */
export function committed(orders: readonly Order[], results: readonly SignOutResult[]): Committed {
  const outcomes = results.map(({ outcome }) => outcome)
  const outcome = outcomes.includes('done') ? 'done' : outcomes.includes('duplicate') ? 'duplicate' : 'unmatched'
  return {
    outcome,
    results: results.flatMap((result, i) => {
      const order = orders[i]
      return order === undefined ? [] : [{ ...result, order }]
    })
  }
}

/** What a trace may bear: names and numbers. */
function describe(outcome: Outcome) {
  const results = 'results' in outcome ? outcome.results : []
  return {
    'msal_logout.source': outcome.source,
    'msal_logout.outcome': outcome.outcome,
    'msal_logout.issuer': outcome.issuer ?? '',
    'msal_logout.sessions': results.reduce((sum, { sessions }) => sum + sessions, 0),
    'msal_logout.rows': results.reduce((sum, { rows }) => sum + rows, 0)
  }
}

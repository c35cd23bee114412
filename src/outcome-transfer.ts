import { RejectedError, type RejectionCode, type RejectionOptions, UnavailableError } from './errors.ts'
import type { Outcome } from './receive.ts'

type Fault = ConstructorParameters<typeof UnavailableError>[0]

/** An outcome as plain data: an error is its code, and what operators see of it. */
type Packed =
  | Exclude<Outcome, { readonly error: unknown }>
  | (Omit<Extract<Outcome, { outcome: 'rejected' }>, 'error'> & {
      readonly rejected: RejectionOptions & { readonly code: RejectionCode }
    })
  | (Omit<Extract<Outcome, { outcome: 'deferred' | 'lost' }>, 'error'> & { readonly unavailable: Fault })
  | Omit<Extract<Outcome, { outcome: 'failed' }>, 'error'>

const everyMs = 100
const maxWaiting = 10_000

/**
 * Makes the function that hands outcomes to another process, many at once: one by one they would cost each process more than the sign-outs do.
 *
 * @param send takes them as text; false: the other process has not taken what was sent before, and it is left out
 */
export function createForwarding(send: (outcomes: string) => boolean): (outcome: Outcome) => void {
  let waiting: Packed[] = []
  let timer: NodeJS.Timeout | undefined

  function flush(): void {
    timer = undefined
    send(JSON.stringify(waiting))
    waiting = []
  }

  return (outcome) => {
    if (waiting.length < maxWaiting) {
      waiting.push(pack(outcome))
    }
    if (timer === undefined) {
      timer = setTimeout(flush, everyMs)
    }
  }
}

/** The outcomes that another process has handed over. */
export function readForwarded(text: string): Outcome[] {
  const outcomes: Packed[] = JSON.parse(text)
  return outcomes.map(unpack)
}

function pack(outcome: Outcome): Packed {
  switch (outcome.outcome) {
    case 'rejected': {
      const { error, ...rest } = outcome
      const { code, issuer, details, accepted, hint } = error
      return { ...rest, rejected: { code, issuer, details, accepted, hint } }
    }
    case 'deferred':
    case 'lost': {
      const { error, ...rest } = outcome
      return { ...rest, unavailable: error.code }
    }
    case 'failed': {
      const { error: _, ...rest } = outcome
      return rest
    }
    default:
      return outcome
  }
}

function unpack(packed: Packed): Outcome {
  switch (packed.outcome) {
    case 'rejected': {
      const { rejected, ...rest } = packed
      return { ...rest, error: new RejectedError(rejected.code, rejected) }
    }
    case 'deferred':
    case 'lost': {
      const { unavailable, ...rest } = packed
      return { ...rest, error: new UnavailableError(unavailable) }
    }
    case 'failed':
      return { ...packed, error: undefined }
    default:
      return packed
  }
}

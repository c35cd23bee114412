import { setTimeout as pause } from 'node:timers/promises'
import { CommandError, interrupted, printable } from './command-error.ts'
import { explainSignal, type Step } from './explain-signal.ts'
import { addressOf, secondsOf, tokenSource } from './operator-access.ts'
import { createOperatorClient, type Signal, type TrustedIssuer, UnansweredError } from './operator-client.ts'
import type { CommandSurroundings } from './surroundings.ts'

/** The options of `msal-logout check --wait`, as commander gives them. */
export interface WaitOptions {
  /** The issuer that is waited for: its name, or the issuer itself. */
  readonly wait: string
  /** How long, in seconds. */
  readonly for: string
  /** The operators' addresses: of each instance that the signal can come to. */
  readonly url: readonly string[]
  readonly tokenFile?: string
  readonly json?: boolean
}

interface Instance {
  readonly client: ReturnType<typeof createOperatorClient>
  position: number
}

/** A signal that came, explained. */
interface Arrived {
  readonly signal: Signal
  readonly steps: readonly Step[]
}

/**
 * Waits for one real signal of an issuer at a running service, and explains step by step what it is and what came of it. One that
 * is deferred is followed to its end. What names no configured issuer is explained too, and waited on.
 *
 * @param pollMs milliseconds between two looks; default 500
 * @returns the exit code: 0 it ended something; 1 it did not, or none came; 2 wrong usage; 130 interrupted
 */
export async function waitForSignal(
  options: WaitOptions,
  { env, stdout, stderr, signal: aborted }: CommandSurroundings,
  pollMs = 500
): Promise<number> {
  const isJson = options.json === true
  const waitMs = secondsOf('--for', options.for) * 1_000
  const token = tokenSource(options.tokenFile, env)
  const instances: Instance[] = options.url.map((url) => ({
    client: createOperatorClient({ url: addressOf(url), token, signal: aborted }),
    position: 0
  }))
  const others: Arrived[] = []
  let last: Arrived | undefined

  async function begin(): Promise<TrustedIssuer> {
    let trusted: readonly TrustedIssuer[] = []
    for (const instance of instances) {
      trusted = await instance.client.issuers()
      instance.position = (await instance.client.signals(Number.MAX_SAFE_INTEGER)).position
    }
    const found = trusted.find(({ name, issuer }) => name === options.wait || issuer === options.wait)
    if (found === undefined) {
      const known = trusted.map(({ name }) => name).join(', ')
      throw new CommandError(2, 'issuer_unknown', `no issuer is called "${options.wait}"; configured are ${known}`)
    }
    return found
  }

  /** The signals that came since the last look. */
  async function look(): Promise<Signal[]> {
    const found: Signal[] = []
    for (const instance of instances) {
      found.push(...(await lookAt(instance)))
    }
    return found
  }

  async function lookAt(instance: Instance): Promise<readonly Signal[]> {
    try {
      const answer = await instance.client.signals(instance.position)
      // Less than before: it has started anew.
      const { position, signals } = answer.position < instance.position ? await instance.client.signals(0) : answer
      instance.position = position
      return signals
    } catch (error) {
      if (error instanceof UnansweredError) {
        return [] // it may be starting anew
      }
      throw error
    }
  }

  /** True once there is no more to wait for. */
  function take(signal: Signal, issuer: TrustedIssuer): boolean {
    if (signal.issuer !== null && signal.issuer !== issuer.name) {
      return false
    }
    const arrived = { signal, steps: explainSignal(signal, issuer) }
    if (signal.issuer === null && signal.hint === null) {
      others.push(arrived)
      show(arrived, 'This names no configured issuer; waiting on.')
      return false
    }
    last = arrived
    show(arrived, signal.outcome === 'deferred' ? 'It is on disk; waiting until it is done.' : '')
    return signal.outcome !== 'deferred'
  }

  function show({ steps }: Arrived, note: string): void {
    if (!isJson) {
      stdout.write(`${toldSteps(steps)}${note === '' ? '' : `${note}\n`}`)
    }
  }

  function conclude(outcome: string): number {
    if (isJson) {
      stdout.write(`${JSON.stringify({ outcome, issuer: options.wait, steps: last?.steps ?? [], others })}\n`)
    }
    return outcome === 'done' || outcome === 'duplicate' ? 0 : 1
  }

  try {
    const issuer = await begin()
    stderr.write(
      `waiting for a signal of ${printable(issuer.name)}, "${printable(issuer.issuer)}", for ${waitMs / 1_000} s: sign a user out at the provider now\n`
    )
    const endsAt = performance.now() + waitMs
    while (performance.now() < endsAt) {
      for (const signal of await look()) {
        if (take(signal, issuer)) {
          return conclude(signal.outcome)
        }
      }
      await pause(pollMs, undefined, { signal: aborted })
    }
    if (last === undefined) {
      stderr.write(
        `nothing came of it. Is the logout URL set at the provider, on this very client? Can the provider reach the service? ${instances.length === 1 ? 'Are there other instances? Then give an --url for each. ' : ''}docs/troubleshooting.md begins with this.\n`
      )
    }
    return conclude(last === undefined ? 'nothing_came' : last.signal.outcome)
  } catch (error) {
    if (aborted.aborted) {
      stderr.write('interrupted\n')
      return interrupted
    }
    throw error
  }
}

function toldSteps(steps: readonly Step[]): string {
  const indent = ' '.repeat(20)
  return steps
    .map(({ step, status, message, advice }) => {
      const more = advice === null || advice === '' ? '' : `${indent}${printable(advice)}\n`
      return `${status.padEnd(8)}${step.padEnd(12)}${printable(message)}\n${more}`
    })
    .join('')
}

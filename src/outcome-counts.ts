import type { OutageCode, RejectionCode } from './errors.ts'
import type { Outcome } from './receive.ts'
import { directorySource } from './signals/directory.ts'
import { operatorSource } from './signals/operator.ts'
import { securityEventSource } from './signals/security-event.ts'

/** What became of signals, by how many. What is answered 429 counts as rejected. */
export type OutcomeCounts = Record<Outcome['outcome'], number>

export interface IssuerCounts extends OutcomeCounts {
  /** Of the unmatched ones: those that named a sid and no subject, so that a session without a sid is none of theirs. */
  unmatchedBySidAlone: number
  /** Of the rejected ones: how many had which code. */
  readonly codes: Map<RejectionCode, number>
  /** Of the deferred and the lost ones. */
  readonly outages: Map<OutageCode, number>
  /** What has come, by its outcome, since the last signal that showed that it works. */
  readonly runs: ReadonlyMap<Outcome['outcome'], Run>
  /** When anything came last, milliseconds since 1970; undefined if nothing has. */
  readonly lastAt: number | undefined
}

/** Signals of one outcome in a row, with nothing better in between. */
export interface Run {
  /** When it began, milliseconds since 1970. */
  readonly since: number
  readonly until: number
  readonly count: number
}

export interface CountedOutcomes {
  add(outcome: Outcome): void
  /** By the start of each minute in which something came, in milliseconds since 1970. */
  perMinute(minutes: number): ReadonlyMap<number, OutcomeCounts>
  /** By the name of the issuer's configuration; '' if a signal names none that is trusted. */
  byIssuer(minutes: number): ReadonlyMap<string, IssuerCounts>
  /** When this process began to count, milliseconds since 1970. */
  readonly since: number
}

const minuteMs = 60_000
/** How many minutes are remembered. */
export const maxMinutes = 1_440

/**
 * Counts what became of the signals of this process, by minute and issuer, in memory: what ended nothing leaves no record
 * everywhere, and what was rejected never does. What operators order, and what directories show, the provider has not sent. Security
 * events are about everybody who uses the provider, here or not: that they end nothing says nothing of the set-up.
 *
 * @param now milliseconds since 1970; default `Date.now`
 */
export function createOutcomeCounts({ now = Date.now }: { readonly now?: () => number } = {}): CountedOutcomes {
  const minutes = new Map<number, Map<string, IssuerCounts>>()
  // By the name of an issuer: as many as are configured.
  const runs = new Map<string, Map<Outcome['outcome'], Run>>()

  function ofMinute(at: number): Map<string, IssuerCounts> {
    const minute = Math.floor(at / minuteMs) * minuteMs
    const known = minutes.get(minute)
    if (known !== undefined) {
      return known
    }
    for (const old of minutes.keys()) {
      if (old <= minute - maxMinutes * minuteMs) {
        minutes.delete(old)
      }
    }
    const begun = new Map<string, IssuerCounts>()
    minutes.set(minute, begun)
    return begun
  }

  function since(count: number): [number, Map<string, IssuerCounts>][] {
    const first = Math.floor(now() / minuteMs - count + 1) * minuteMs
    return [...minutes].filter(([minute]) => minute >= first)
  }

  return {
    since: now(),
    add(outcome) {
      if (!isOfProvider(outcome)) {
        return
      }
      const byIssuer = ofMinute(now())
      const name = outcome.issuer ?? ''
      const counts = byIssuer.get(name) ?? noCounts()
      byIssuer.set(name, counts)
      counts[outcome.outcome] += 1
      runs.set(name, continued(runs.get(name), outcome.outcome, now()))
      if (outcome.outcome === 'rejected') {
        addTo(counts.codes, outcome.error.code, 1)
      }
      if (outcome.outcome === 'deferred' || outcome.outcome === 'lost') {
        addTo(counts.outages, outcome.error.code, 1)
      }
      if (outcome.outcome === 'unmatched' && outcome.results.every(({ order }) => namesSidAlone(order.selector))) {
        counts.unmatchedBySidAlone += 1
      }
    },
    perMinute(count) {
      return new Map(
        since(count).map(([minute, byIssuer]) => {
          const { codes, outages, runs, lastAt, unmatchedBySidAlone, ...counts } = [...byIssuer.values()].reduce(
            sum,
            noCounts()
          )
          return [minute, counts]
        })
      )
    },
    byIssuer(count) {
      const sums = new Map<string, IssuerCounts>()
      for (const [name, counts] of since(count).flatMap(([, byIssuer]) => [...byIssuer])) {
        sums.set(name, sum(sums.get(name) ?? noCounts(), counts))
      }
      for (const [name, ofIssuer] of runs) {
        const lastAt = Math.max(...[...ofIssuer.values()].map(({ until }) => until))
        sums.set(name, { ...(sums.get(name) ?? noCounts()), runs: ofIssuer, lastAt })
      }
      return sums
    }
  }
}

/** Whether the provider has sent it about a sign-out: nothing else says whether its set-up works. */
export function isOfProvider({ source }: Pick<Outcome, 'source'>): boolean {
  return source !== operatorSource && source !== directorySource && source !== securityEventSource
}

function namesSidAlone(selector: { readonly kind: string; readonly subject?: string | undefined }): boolean {
  return selector.kind === 'session' && selector.subject === undefined
}

export function noCounts(): IssuerCounts {
  return {
    done: 0,
    unmatched: 0,
    duplicate: 0,
    ignored: 0,
    deferred: 0,
    lost: 0,
    rejected: 0,
    failed: 0,
    unmatchedBySidAlone: 0,
    codes: new Map(),
    outages: new Map(),
    runs: new Map(),
    lastAt: undefined
  }
}

function sum(a: IssuerCounts, b: IssuerCounts): IssuerCounts {
  return {
    done: a.done + b.done,
    unmatched: a.unmatched + b.unmatched,
    duplicate: a.duplicate + b.duplicate,
    ignored: a.ignored + b.ignored,
    deferred: a.deferred + b.deferred,
    lost: a.lost + b.lost,
    rejected: a.rejected + b.rejected,
    failed: a.failed + b.failed,
    unmatchedBySidAlone: a.unmatchedBySidAlone + b.unmatchedBySidAlone,
    codes: sumByCode(a.codes, b.codes),
    outages: sumByCode(a.outages, b.outages),
    runs: a.runs,
    lastAt: a.lastAt
  }
}

function sumByCode<Code>(a: ReadonlyMap<Code, number>, b: ReadonlyMap<Code, number>): Map<Code, number> {
  const sums = new Map(a)
  for (const [code, count] of b) {
    addTo(sums, code, count)
  }
  return sums
}

function addTo<Code>(counts: Map<Code, number>, code: Code, count: number): void {
  counts.set(code, (counts.get(code) ?? 0) + count)
}

// What one outcome shows about those before it: what ended something shows that all works, what was carried out at all
// that signals are accepted and the database is there.
const ends: Partial<Record<Outcome['outcome'], readonly Outcome['outcome'][]>> = {
  done: ['unmatched', 'rejected', 'deferred', 'lost', 'failed'],
  unmatched: ['rejected', 'deferred', 'lost', 'failed'],
  duplicate: ['deferred', 'lost', 'failed']
}

function continued(
  before: ReadonlyMap<Outcome['outcome'], Run> | undefined,
  outcome: Outcome['outcome'],
  at: number
): Map<Outcome['outcome'], Run> {
  const runs = new Map(before)
  for (const ended of ends[outcome] ?? []) {
    runs.delete(ended)
  }
  const run = runs.get(outcome)
  const goesOn = run !== undefined && at - run.until < maxMinutes * minuteMs
  runs.set(outcome, goesOn ? { ...run, until: at, count: run.count + 1 } : { since: at, until: at, count: 1 })
  return runs
}

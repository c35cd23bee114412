import type { Census, SessionCount } from './census.ts'
import { type IssuerCounts, noCounts } from './outcome-counts.ts'

/** An answer to "does it work?", for people: of an issuer, or of what names none that is configured. */
export interface Verdict {
  readonly state: 'works' | 'quiet' | 'fails'
  /** For programs, and stable. */
  readonly code: 'works' | 'quiet' | 'matches_nothing' | 'rejected' | 'deferred' | 'lost' | 'foreign_issuer'
  /** The name of its configuration; null of a foreign one. */
  readonly issuer: string | null
  readonly message: string
  /** What to do; null if nothing is. */
  readonly advice: string | null
}

export interface VerdictsOptions {
  /** The names of the configured issuers. */
  readonly names: readonly string[]
  /** What came in the last minutes, by name; '' of none that is configured. */
  readonly counts: ReadonlyMap<string, IssuerCounts>
  readonly minutes: number
  /** Undefined if the sessions could not be counted. */
  readonly census: Census | undefined
}

/** The codes of a signal that names an issuer of which nothing is configured. */
export const foreignIssuerCodes = ['ERR_TOKEN_ISSUER', 'ERR_REQUEST_ISS', 'ERR_REQUEST_ISSUER_NAME'] as const

const numbers = new Intl.NumberFormat('en')
const maxClientsNamed = 3

/** Judges what came of late: one verdict for each issuer, what fails first; and one of foreign issuers, if any was named. */
export function judge({ names, counts, minutes, census }: VerdictsOptions): Verdict[] {
  const period = periodOf(minutes)
  const verdicts = names.map((name) => judgeIssuer(name, counts.get(name) ?? noCounts(), period, census))
  const foreign = judgeForeign(counts.get('') ?? noCounts(), verdicts, period)
  const rank = ({ state }: Verdict) => ['fails', 'works', 'quiet'].indexOf(state)
  return [...verdicts, ...foreign].sort((a, b) => rank(a) - rank(b))
}

function judgeIssuer(name: string, counts: IssuerCounts, period: string, census: Census | undefined): Verdict {
  const { done, unmatched, rejected, deferred, lost } = counts
  const signOuts = done + unmatched
  if (lost > 0) {
    return {
      state: 'fails',
      code: 'lost',
      issuer: name,
      message: `${amount(lost, 'signal')} of ${name} ${period} could be neither done nor deferred`,
      advice: 'make the spool writable first, then purge by hand who signed out meanwhile'
    }
  }
  if (done > 0) {
    const others = rejected > 0 ? `; ${amount(rejected, 'signal')} of it ${wasOrWere(rejected)} rejected` : ''
    return {
      state: 'works',
      code: 'works',
      issuer: name,
      message: `${numbers.format(done)} of ${amount(signOuts, 'sign-out')} of ${name} ${period} ended something${others}`,
      advice: null
    }
  }
  if (unmatched > 0) {
    const { why, advice } = explainUnmatched(name, counts, census)
    return {
      state: 'fails',
      code: 'matches_nothing',
      issuer: name,
      message: `${numbers.format(unmatched)} of ${amount(signOuts, 'sign-out')} of ${name} ${period} ended nothing: ${why}`,
      advice
    }
  }
  if (rejected > 0) {
    const [code = ''] = [...counts.codes].sort(([, a], [, b]) => b - a)[0] ?? []
    return {
      state: 'fails',
      code: 'rejected',
      issuer: name,
      message: `every signal of ${name} ${period} was rejected, ${numbers.format(rejected)} in all, most by ${code}`,
      advice: 'see under Rejected what they say beside what is accepted; docs/troubleshooting.md has each code'
    }
  }
  if (deferred > 0) {
    return {
      state: 'fails',
      code: 'deferred',
      issuer: name,
      message: `${amount(deferred, 'signal')} of ${name} ${period} ${wasOrWere(deferred)} deferred, and none has been done yet`,
      advice: 'bring the database, or the keys of the issuer, within reach: they are done then by themselves'
    }
  }
  return {
    state: 'quiet',
    code: 'quiet',
    issuer: name,
    message: `nothing came of ${name} ${period}`,
    advice: 'if users have signed out at the provider, its logout URL is not set, or does not lead here'
  }
}

/** Why sign-outs of an issuer ended nothing, the likeliest reason first, and what to do about it. */
export function explainUnmatched(
  name: string,
  counts: Pick<IssuerCounts, 'unmatched' | 'unmatchedBySidAlone'>,
  census: Census | undefined
): { readonly why: string; readonly advice: string } {
  if (census === undefined) {
    return {
      why: 'no session was there to end, and the database does not answer now',
      advice: 'look again when /readyz answers 200'
    }
  }
  const own = census.counts.filter(({ issuerName }) => issuerName === name)
  const stored = sumOf(own, 'sessions')
  const withoutSid = sumOf(own, 'withoutSid')
  const about = census.isEstimate ? 'about ' : ''
  if (stored === 0) {
    const other = census.counts
      .filter(({ issuerName }) => issuerName === undefined)
      .sort((a, b) => b.sessions - a.sessions)[0]
    return other === undefined
      ? {
          why: 'no app has stored a session of it',
          advice:
            'let each app store its logins with the client of the shared cache: what it keeps elsewhere cannot be found; or all have signed out before'
        }
      : {
          why: `no session of it is stored, but ${about}${amount(sumOf([other], 'sessions'), 'session')} of "${other.issuer}", which is not configured`,
          advice: 'configure the issuer exactly as the ID tokens have it; often another host name, tenant or slash'
        }
  }
  if (withoutSid > 0 && counts.unmatchedBySidAlone * 2 > counts.unmatched && withoutSid * 2 > stored) {
    const all = withoutSid === stored ? 'its sessions bear no sid' : 'most of its sessions bear no sid'
    return {
      why: `${all} (${about}${numbers.format(withoutSid)} of ${numbers.format(stored)} stored, by ${clientsOf(own)})`,
      advice:
        'have the provider put a sid into ID tokens (Entra ID: the optional claim "sid"; others: "session required"), and each app store it; logins of before stay without'
    }
  }
  return {
    why: `${about}${amount(stored, 'session')} of it ${stored === 1 ? 'is' : 'are'} stored, and none was of these`,
    advice:
      'they may have ended before; if not, compare the sid and the sub that the apps store with those of the provider: docs/troubleshooting.md'
  }
}

/** What names no configured issuer is somebody who tries, or, where nothing works, how a new set-up fails. */
function judgeForeign(counts: IssuerCounts, verdicts: readonly Verdict[], period: string): Verdict[] {
  const isForeign = (code: string) => foreignIssuerCodes.some((foreign) => foreign === code)
  const named = [...counts.codes].reduce((sum, [code, count]) => (isForeign(code) ? sum + count : sum), 0)
  const state = verdicts.every((verdict) => verdict.state !== 'works') ? 'fails' : 'quiet'
  const found: Verdict[] = []
  if (named > 0) {
    found.push({
      state,
      code: 'foreign_issuer',
      issuer: null,
      message: `${amount(named, 'signal')} ${period} named an issuer that is not configured`,
      advice: 'see under Rejected which one, beside those that are configured; if it is yours, configure it exactly so'
    })
  }
  const others = [...counts.codes].filter(([code]) => !isForeign(code)).sort(([, a], [, b]) => b - a)
  const [most] = others
  if (most !== undefined) {
    const count = others.reduce((sum, [, times]) => sum + times, 0)
    found.push({
      state,
      code: 'rejected',
      issuer: null,
      message: `${amount(count, 'signal')} ${period} named no issuer and ${wasOrWere(count)} rejected, most by ${most[0]}`,
      advice: 'see under Rejected from where they came; docs/troubleshooting.md has each code'
    })
  }
  return found
}

function clientsOf(counts: readonly SessionCount[]): string {
  const clients = [...new Set(counts.filter(({ withoutSid }) => withoutSid > 0).map(({ clientId }) => clientId))]
  const more = clients.length > maxClientsNamed ? ` and ${clients.length - maxClientsNamed} more` : ''
  return `${clients.slice(0, maxClientsNamed).join(', ')}${more}`
}

function sumOf(counts: readonly SessionCount[], member: 'sessions' | 'withoutSid'): number {
  return counts.reduce((sum, each) => sum + each[member], 0)
}

function amount(count: number, noun: string): string {
  return `${numbers.format(count)} ${noun}${count === 1 ? '' : 's'}`
}

function wasOrWere(count: number): string {
  return count === 1 ? 'was' : 'were'
}

function periodOf(minutes: number): string {
  if (minutes === 60) {
    return 'in the last hour'
  }
  return minutes % 60 === 0 ? `in the last ${minutes / 60} hours` : `in the last ${amount(minutes, 'minute')}`
}

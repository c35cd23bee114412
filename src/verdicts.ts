import type { Census, SessionCount } from './census.ts'
import { describeCode, type OutageCode, type RejectionCode, type RejectionDetails } from './errors.ts'
import { type IssuerCounts, noCounts, type Run } from './outcome-counts.ts'
import type { Rejection } from './rejections.ts'
import { remedyFor } from './remedies.ts'

/** An answer to "does it work?", for people: of an issuer, or of what names none that is configured. */
export interface Verdict {
  readonly state: 'works' | 'quiet' | 'fails'
  /** For programs, and stable. */
  readonly code: 'works' | 'quiet' | 'matches_nothing' | 'rejected' | 'deferred' | 'lost' | 'failed' | 'foreign_issuer'
  /** The name of its configuration; null of a foreign one. */
  readonly issuer: string | null
  readonly message: string
  /** Since when it is so; of what is quiet, when the last signal came. Null if that is not known. */
  readonly since: Date | null
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
  /** The signals that were rejected of late, the newest first: an example of what they say; default none. */
  readonly rejections?: readonly Rejection[]
}

/** The codes of a signal that names an issuer of which nothing is configured. */
export const foreignIssuerCodes = ['ERR_TOKEN_ISSUER', 'ERR_REQUEST_ISS', 'ERR_REQUEST_ISSUER_NAME'] as const

const numbers = new Intl.NumberFormat('en')
const maxClientsNamed = 3
/** So many rejected ones in a row, and none accepted in between, are no stranger's trial. */
const manyRejected = 10

/** What an issuer's verdict is made from. */
interface Judged {
  readonly name: string
  readonly counts: IssuerCounts
  readonly period: string
  readonly rejections: readonly Rejection[]
}

/** Judges what came of late: one verdict for each issuer, what fails first; and one of foreign issuers, if any was named. */
export function judge({ names, counts, minutes, census, rejections = [] }: VerdictsOptions): Verdict[] {
  const period = periodOf(minutes)
  const verdicts = names.map((name) =>
    judgeIssuer({ name, counts: counts.get(name) ?? noCounts(), period, rejections }, census)
  )
  const foreign = judgeForeign({ name: '', counts: counts.get('') ?? noCounts(), period, rejections }, verdicts)
  const rank = ({ state }: Verdict) => ['fails', 'works', 'quiet'].indexOf(state)
  return [...verdicts, ...foreign].sort((a, b) => rank(a) - rank(b))
}

function judgeIssuer(judged: Judged, census: Census | undefined): Verdict {
  const { name: issuer, counts, period } = judged
  const { done, unmatched, duplicate, ignored, rejected, deferred, lost, failed } = counts
  const since = (outcome: 'unmatched' | 'rejected' | 'deferred' | 'lost' | 'failed') =>
    toDate(counts.runs.get(outcome)?.since)
  if (lost > 0) {
    return {
      state: 'fails',
      code: 'lost',
      issuer,
      message: `${amount(lost, 'signal')} of ${issuer} ${period} could be neither done nor deferred${because(counts.outages)}`,
      since: since('lost'),
      advice: 'make the spool writable first, then purge by hand who signed out meanwhile'
    }
  }
  if (failed > 0 && (done === 0 || counts.runs.has('failed'))) {
    return {
      state: 'fails',
      code: 'failed',
      issuer,
      message: `${amount(failed, 'signal')} of ${issuer} ${period} failed by a mistake of the service, and ${wasOrWere(failed)} not deferred`,
      since: since('failed'),
      advice:
        'look for "failed" in the log, and report the line; after an upgrade start the release before. Then purge by hand who signed out meanwhile'
    }
  }
  const stopped = judgeStopped(judged)
  if (stopped !== undefined) {
    return stopped
  }
  const signOuts = done + unmatched
  if (done > 0) {
    const others =
      rejected > 0 ? `; ${amount(rejected, 'signal')} of it ${wasOrWere(rejected)} ${describeRejected(judged)}` : ''
    return {
      state: 'works',
      code: 'works',
      issuer,
      message: `${numbers.format(done)} of ${amount(signOuts, 'sign-out')} of ${issuer} ${period} ended something${others}`,
      since: null,
      advice: adviseRejected(counts)
    }
  }
  if (unmatched > 0) {
    const { why, advice } = explainUnmatched(issuer, counts, census)
    const others =
      rejected > 0 ? `; ${amount(rejected, 'signal')} more ${wasOrWere(rejected)} ${describeRejected(judged)}` : ''
    return {
      state: 'fails',
      code: 'matches_nothing',
      issuer,
      message: `${numbers.format(unmatched)} of ${amount(signOuts, 'sign-out')} of ${issuer} ${period} ended nothing: ${why}${others}`,
      since: since('unmatched'),
      advice
    }
  }
  if (rejected > 0 && rejected >= deferred) {
    const all = rejected + deferred + duplicate + ignored
    const share = rejected < all ? `${numbers.format(rejected)} of ${amount(all, 'signal')}` : allOf(all)
    return {
      state: 'fails',
      code: 'rejected',
      issuer,
      message: `${share} of ${issuer} ${period} ${wasOrWere(rejected)} ${describeRejected(judged)}`,
      since: since('rejected'),
      advice: adviseRejected(counts)
    }
  }
  if (deferred > 0) {
    return {
      state: 'fails',
      code: 'deferred',
      issuer,
      message: `${amount(deferred, 'signal')} of ${issuer} ${period} ${wasOrWere(deferred)} deferred, and none has been done yet${because(counts.outages)}`,
      since: since('deferred'),
      advice: adviseDeferred(counts)
    }
  }
  const others = [
    ...(duplicate > 0 ? [`${amount(duplicate, 'signal')} that had been done before`] : []),
    ...(ignored > 0 ? [`${amount(ignored, 'signal')} that asked for nothing here`] : [])
  ]
  return {
    state: 'quiet',
    code: 'quiet',
    issuer,
    message: `nothing${others.length === 0 ? '' : ' new'} came of ${issuer} ${period}${others.length === 0 ? '' : `, but ${others.join(' and ')}`}`,
    since: toDate(counts.lastAt),
    advice: 'if users have signed out at the provider, its logout URL is not set, or does not lead here'
  }
}

/** What has worked within the period, and does not any more. */
function judgeStopped({ name: issuer, counts, rejections }: Judged): Verdict | undefined {
  const { runs } = counts
  const hasWorked = counts.done + counts.unmatched > 0
  const deferred = runs.get('deferred')
  const rejected = runs.get('rejected')
  if (hasWorked && deferred !== undefined && deferred.count <= counts.deferred) {
    return {
      state: 'fails',
      code: 'deferred',
      issuer,
      message: `${amount(deferred.count, 'signal')} of ${issuer} ${wasOrWere(deferred.count)} deferred, and none has been done since${because(counts.outages)}`,
      since: toDate(deferred.since),
      advice: adviseDeferred(counts)
    }
  }
  if (hasWorked && isMany(rejected) && rejected.count <= counts.rejected) {
    return {
      state: 'fails',
      code: 'rejected',
      issuer,
      message: `the last ${amount(rejected.count, 'signal')} of ${issuer} were ${describeRejected({ name: issuer, counts, rejections })}`,
      since: toDate(rejected.since),
      advice: adviseRejected(counts)
    }
  }
  return undefined
}

function isMany(run: Run | undefined): run is Run {
  return run !== undefined && run.count >= manyRejected
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
            'let each app store its logins with the client of the shared cache: what it keeps elsewhere cannot be found; or all have signed out, or expired, before'
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
function judgeForeign({ counts, period, rejections }: Judged, verdicts: readonly Verdict[]): Verdict[] {
  const isForeign = (code: string) => foreignIssuerCodes.some((foreign) => foreign === code)
  const split = (wanted: boolean) => new Map([...counts.codes].filter(([code]) => isForeign(code) === wanted))
  const foreign = split(true)
  const others = split(false)
  const state = verdicts.every((verdict) => verdict.state !== 'works') ? 'fails' : 'quiet'
  const since = toDate(counts.runs.get('rejected')?.since)
  const found: Verdict[] = []
  if (foreign.size > 0) {
    const last = rejections.find(({ issuer, code }) => issuer === null && isForeign(code))
    found.push({
      state,
      code: 'foreign_issuer',
      issuer: null,
      message: `${amount(sumOfAll(foreign), 'signal')} ${period} named an issuer that is not configured${exampleOf(last)}`,
      since,
      advice: `${last === undefined ? 'see under Rejected which one, beside those that are configured; ' : ''}${remedyFor(last?.code ?? 'ERR_TOKEN_ISSUER')}`
    })
  }
  if (others.size > 0) {
    const count = sumOfAll(others)
    found.push({
      state,
      code: 'rejected',
      issuer: null,
      message: `${amount(count, 'signal')} ${period} named no issuer and ${wasOrWere(count)} ${describeRejected({ name: null, counts: { codes: others }, rejections })}`,
      since,
      advice: adviseRejected({ codes: others })
    })
  }
  return found
}

/** Why most of them were rejected, by the words of the code, with what the last one says. */
function describeRejected({
  name,
  counts: { codes },
  rejections
}: {
  readonly name: string | null
  readonly counts: Pick<IssuerCounts, 'codes'>
  readonly rejections: readonly Rejection[]
}): string {
  const [code, count] = mostOf(codes) ?? []
  if (code === undefined || count === undefined) {
    return 'rejected'
  }
  const last = rejections.find((rejection) => rejection.issuer === name && rejection.code === code)
  const share = codes.size === 1 ? '' : `, ${numbers.format(count)} of them because`
  return `rejected${share === '' ? ':' : share} ${describeCode(code)}${exampleOf(last)}`
}

function adviseRejected({ codes }: Pick<IssuerCounts, 'codes'>): string | null {
  const [code] = mostOf(codes) ?? []
  return code === undefined ? null : `${remedyFor(code)}. docs/troubleshooting.md has more under ${code}`
}

function adviseDeferred({ outages }: IssuerCounts): string {
  const [code] = mostOf(outages) ?? []
  return code === undefined
    ? 'bring the database, or the keys of the issuer, within reach: they are done then by themselves'
    : remedyFor(code)
}

function because(outages: ReadonlyMap<OutageCode, number>): string {
  const [code] = mostOf(outages) ?? []
  return code === undefined ? '' : `: ${describeCode(code)}`
}

// What of a signal's own values a code is about.
const offending: readonly (readonly [RegExp, keyof RejectionDetails])[] = [
  [/_(ISSUER|ISS|ISS_DIFFERS)$/, 'iss'],
  [/_AUDIENCE(_MALFORMED)?$/, 'aud'],
  [/_ENCRYPTION_ALGORITHM$/, 'enc'],
  [/_ALGORITHM(_MALFORMED)?$/, 'alg'],
  [/_TYPE(_MALFORMED)?$/, 'typ'],
  [/_KEY$|_KID_MALFORMED$/, 'kid'],
  [/_(TOO_OLD|IAT_FUTURE)$/, 'age'],
  [/_EXPIRED$/, 'expired'],
  [/_IAT_MALFORMED$/, 'iat'],
  [/_EXP_MALFORMED$/, 'exp'],
  [/_NBF_\w+$/, 'nbf'],
  [/_EVENTS$/, 'events'],
  [/_ISSUER_NAME$/, 'name'],
  [/_REQUEST_PATH$/, 'path'],
  [/_REQUEST_METHOD$/, 'method']
]

function exampleOf(last: Rejection | undefined): string {
  const [, member] = offending.find(([codes]) => last !== undefined && codes.test(last.code)) ?? []
  if (last === undefined || member === undefined || last.details[member] === undefined) {
    return ''
  }
  const instead = last.hint === null ? last.accepted && `; accepted is ${last.accepted}` : `, which ${last.hint}`
  return ` (the last has ${member} "${last.details[member]}"${instead ?? ''})`
}

function mostOf<Code>(codes: ReadonlyMap<Code, number>): [Code, number] | undefined {
  return [...codes].sort(([, a], [, b]) => b - a)[0]
}

function sumOfAll(codes: ReadonlyMap<RejectionCode, number>): number {
  return [...codes.values()].reduce((sum, count) => sum + count, 0)
}

function toDate(at: number | undefined): Date | null {
  return at === undefined ? null : new Date(at)
}

function allOf(count: number): string {
  return count === 1 ? 'the one signal' : `all ${amount(count, 'signal')}`
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

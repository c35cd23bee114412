import { findRemedy } from '../remedies.ts'
import { backchannelSource } from '../signals/backchannel.ts'
import { frontchannelSource } from '../signals/frontchannel.ts'
import { counted } from './counted.ts'
import type { Signal, TrustedIssuer } from './operator-client.ts'

/** One step on a signal's way, and how it went. */
export interface Step {
  readonly step: string
  readonly status: 'passed' | 'failed' | 'waits'
  readonly message: string
  /** What to do; null if nothing is. */
  readonly advice: string | null
}

interface Stage {
  readonly step: string
  /** The codes of a signal that gets no further. */
  readonly codes: RegExp
  /** What is known of it once it has passed. */
  describe(signal: Signal, issuer: TrustedIssuer | undefined): string
}

const numbers = new Intl.NumberFormat('en')

// In the order in which src/signals/backchannel.ts looks at a logout token.
const tokenStages: readonly Stage[] = [
  {
    step: 'request',
    codes: /^ERR_REQUEST/,
    describe: () => 'a form with one logout_token'
  },
  {
    step: 'token',
    codes: /^ERR_TOKEN_(MALFORMED|ENCRYPTED|ENCRYPTION_\w+|DUPLICATE_KEY)$|^ERR_TOKEN_DECRYPTION$/,
    describe: () => 'a signed JWT'
  },
  {
    step: 'issuer',
    codes: /^ERR_TOKEN_ISSUER/,
    describe: (_signal, issuer) => `"${issuer?.issuer ?? ''}", configured as ${issuer?.name ?? ''}`
  },
  {
    step: 'header',
    codes: /^ERR_TOKEN_(NOT_ENCRYPTED|CRITICAL|ALGORITHM|KID|TYPE)/,
    describe: ({ details: { alg, typ } }, issuer) =>
      `alg ${alg ?? `one of ${issuer?.algorithms.join(', ')}`}, typ ${typ ?? `one of ${issuer?.types.map((type) => type ?? 'none').join(', ')}`}`
  },
  {
    step: 'audience',
    codes: /^ERR_TOKEN_AUDIENCE/,
    describe: ({ details: { aud }, orders }) => {
      const clientId = orders[0]?.clientId ?? aud
      return clientId === undefined ? 'a configured client id' : `for "${clientId}", which is configured`
    }
  },
  {
    step: 'times',
    codes: /^ERR_TOKEN_(IAT|TOO_OLD|EXP|NBF)/,
    describe: ({ at, tookMs, orders }, issuer) => {
      const issuedAt = orders[0]?.issuedAt ?? null
      const age = issuedAt === null ? undefined : Math.round((Date.parse(at) - tookMs - Date.parse(issuedAt)) / 1_000)
      return `${age === undefined ? '' : `issued ${age} s before it arrived; `}accepted up to ${issuer?.maxTokenAgeSeconds} s`
    }
  },
  {
    step: 'subject',
    codes: /^ERR_TOKEN_(JTI|SID|SUB)/,
    describe: ({ orders }, issuer) => describeSubject(orders[0], issuer)
  },
  {
    step: 'event',
    codes: /^ERR_TOKEN_(EVENTS|NONCE)/,
    describe: () => 'a back-channel logout'
  },
  {
    step: 'signature',
    codes: /^ERR_(TOKEN_(KEY|SIGNATURE)|KEYS)/,
    describe: () => 'made by a key that the issuer publishes'
  }
]

// As src/signals/frontchannel.ts looks at a call.
const callStages: readonly Stage[] = [
  { step: 'request', codes: /^ERR_REQUEST_SID/, describe: () => 'a call with one sid' },
  {
    step: 'issuer',
    codes: /^ERR_REQUEST/,
    describe: (_signal, issuer) => `"${issuer?.issuer ?? ''}", configured as ${issuer?.name ?? ''}; front channel is on`
  }
]

const otherStages: readonly Stage[] = [
  { step: 'signal', codes: /^ERR_(TOKEN|REQUEST|KEYS)/, describe: () => 'genuine, and of a configured sender' }
]

/**
 * Explains what a signal is and what came of it, step by step, up to the one that it did not pass.
 *
 * @param signal as the service answers
 * @param issuer that it names, as the service has it configured
 */
export function explainSignal(signal: Signal, issuer: TrustedIssuer | undefined): Step[] {
  const steps: Step[] = [
    { step: 'arrived', status: 'passed', message: `${signal.source}, at ${signal.at}`, advice: null }
  ]
  for (const { step, codes, describe } of stagesOf(signal.source)) {
    if (signal.code !== null && codes.test(signal.code)) {
      return [...steps, signal.outcome === 'rejected' ? rejectedAt(step, signal) : waitsAt(step, signal)]
    }
    if (signal.outcome === 'deferred' && signal.orders.length === 0 && signal.code !== 'ERR_KEYS_UNAVAILABLE') {
      return [...steps, waitsAt(step, signal)] // how far it came is not known
    }
    steps.push({ step, status: 'passed', message: describe(signal, issuer), advice: null })
  }
  return [...steps, ...concluded(signal)]
}

function stagesOf(source: string): readonly Stage[] {
  if (source === backchannelSource) {
    return tokenStages
  }
  return source === frontchannelSource ? callStages : otherStages
}

function rejectedAt(step: string, { code, description, details, accepted, hint }: Signal): Step {
  const values = Object.entries(details).map(([name, value]) => `${name} "${value}"`)
  const said = values.length === 0 ? '' : `; it says ${values.join(', ')}`
  const instead = accepted === null ? '' : `; accepted is ${accepted}`
  return {
    step,
    status: 'failed',
    message: `${description} [${code}]${said}${instead}`,
    advice: [hint, adviceFor(code)].filter((text) => text !== null).join('; ')
  }
}

function waitsAt(step: string, { code, description }: Signal): Step {
  return { step, status: 'waits', message: `deferred: ${description} [${code}]`, advice: adviceFor(code) }
}

function concluded(signal: Signal): Step[] {
  const { outcome, orders, code, description, why, advice, tookMs } = signal
  const records = orders.flatMap(({ record }) => (record === null ? [] : [record]))
  const record: Step[] = records.map((id) => ({ step: 'record', status: 'passed', message: id, advice: null }))
  switch (outcome) {
    case 'done': {
      const message = `${sums(orders)}; after ${numbers.format(tookMs)} ms${signal.isRetry ? ', since it was deferred' : ''}`
      return [{ step: 'sign-out', status: 'passed', message, advice: null }, ...record]
    }
    case 'duplicate':
      return [
        { step: 'sign-out', status: 'passed', message: 'the same signal was done before', advice: null },
        ...record
      ]
    case 'unmatched':
      return [
        {
          step: 'sign-out',
          status: 'failed',
          message: `no session was there to end: ${why ?? 'none is stored'}`,
          advice
        },
        ...record
      ]
    case 'ignored':
      return [{ step: 'sign-out', status: 'passed', message: `it asks for nothing here: ${why}`, advice: null }]
    case 'deferred':
      return [waitsAt('sign-out', signal), ...record]
    default:
      return [
        {
          step: 'sign-out',
          status: 'failed',
          message: `${outcome}: ${description ?? 'a mistake of the service'}${code === null ? '' : ` [${code}]`}`,
          advice: 'look into the log of the service; the provider was asked to send it again'
        }
      ]
  }
}

function sums(orders: Signal['orders']): string {
  const sum = (member: 'accounts' | 'sessions' | 'rows') => orders.reduce((total, order) => total + order[member], 0)
  const apps = orders.flatMap(({ rowsByClient }) => Object.entries(rowsByClient)).sort(([a], [b]) => (a < b ? -1 : 1))
  const byApp =
    apps.length === 0 ? '' : ` (${apps.map(([client, rows]) => `${client} ${numbers.format(rows)}`).join(', ')})`
  return `ended ${counted(sum('sessions'), 'session')} of ${counted(sum('accounts'), 'account')}, deleted ${counted(sum('rows'), 'row')}${byApp}`
}

function describeSubject(order: Signal['orders'][number] | undefined, issuer: TrustedIssuer | undefined): string {
  if (order === undefined) {
    return 'a sid, a sub, or both'
  }
  if (order.hasSid && order.hasSubject) {
    const decides = issuer?.sidAndSubject === 'subject' ? 'every session of the subject' : 'that session'
    return `a sid and a sub: ${decides} is to end`
  }
  return order.hasSid ? 'a sid alone: sessions stored without one are not found' : 'a sub alone: every session of it'
}

function adviceFor(code: string | null): string {
  return findRemedy(code ?? '') ?? `docs/troubleshooting.md explains ${code}`
}

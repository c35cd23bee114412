import { isObject } from './jwt.ts'

/** Whom an event is about: a user as a whole; or a session, if it names one. */
export type EventReach = 'session' | 'user'

interface EventType {
  /** Its family and name, as in `https://schemas.openid.net/secevent/<family>/event-type/<name>`. */
  readonly type: string
  readonly reach: EventReach
  /** Whether it ends something if the configuration does not say. */
  readonly isDefault: boolean
  /** Ends all that was issued until it came, not until it happened. */
  readonly isOfNow?: boolean
  /** A device that is named beside a user is why, and not which sessions of the user are meant. */
  readonly isOfDevice?: boolean
  /** Whether an event of this type with this payload is meant; default each is. */
  applies?(payload: Readonly<Record<string, unknown>>): boolean
}

/**
 * The event types that can end something: CAEP 1.0, RISC 1.0, and what Google sends. A member of `revokeOn` names each.
 */
export const streamEvents = {
  'session-revoked': { type: 'caep/session-revoked', reach: 'session', isDefault: true },
  'account-disabled': { type: 'risc/account-disabled', reach: 'user', isDefault: true, isOfNow: true },
  'account-purged': { type: 'risc/account-purged', reach: 'user', isDefault: true, isOfNow: true },
  'sessions-revoked': { type: 'risc/sessions-revoked', reach: 'user', isDefault: true },
  'credential-compromise': { type: 'risc/credential-compromise', reach: 'user', isDefault: true },
  'account-credential-change-required': {
    type: 'risc/account-credential-change-required',
    reach: 'user',
    isDefault: true
  },
  // A credential more takes nothing from anybody: who adds a key must not be signed out.
  'credential-change': { type: 'caep/credential-change', reach: 'user', isDefault: true, applies: takesCredential },
  'tokens-revoked': { type: 'oauth/tokens-revoked', reach: 'user', isDefault: true },
  'assurance-level-change': {
    type: 'caep/assurance-level-change',
    reach: 'session',
    isDefault: false,
    applies: ({ change_direction: direction }) => direction === 'decrease'
  },
  'device-compliance-change': {
    type: 'caep/device-compliance-change',
    reach: 'session',
    isDefault: false,
    isOfDevice: true,
    applies: ({ current_status: status }) => status === 'not-compliant'
  },
  'risk-level-change': {
    type: 'caep/risk-level-change',
    reach: 'session',
    isDefault: false,
    applies: ({ current_level: level, principal = 'USER' }) =>
      level === 'HIGH' && (principal === 'USER' || principal === 'SESSION')
  }
} as const satisfies Record<string, EventType>

export type StreamEvent = keyof typeof streamEvents

export const streamEventNames: readonly StreamEvent[] = [
  'session-revoked',
  'account-disabled',
  'account-purged',
  'sessions-revoked',
  'credential-compromise',
  'account-credential-change-required',
  'credential-change',
  'tokens-revoked',
  'assurance-level-change',
  'device-compliance-change',
  'risk-level-change'
]

export const defaultStreamEvents = streamEventNames.filter((name) => streamEvents[name].isDefault)

/** What may have asked for an event: CAEP 1.0 §2. */
export const initiators = ['admin', 'user', 'policy', 'system'] as const
export type Initiator = (typeof initiators)[number]

// They end nothing, and nobody need look at them: a claim, a login, an address has changed.
const withoutEffect = new Set([
  'caep/token-claims-change',
  'caep/session-established',
  'caep/session-presented',
  'risc/account-enabled',
  'risc/identifier-changed',
  'risc/identifier-recycled',
  'risc/recovery-activated',
  'risc/recovery-information-changed',
  'risc/opt-in',
  'risc/opt-out-initiated',
  'risc/opt-out-cancelled',
  'risc/opt-out-effective',
  'oauth/token-revoked'
])
// Of the stream itself. RISC and drafts of the framework had names of their own.
const verifications = new Set(['ssf/verification', 'sse/verification', 'risc/verification'])
const updates = new Set(['ssf/stream-updated', 'sse/stream-updated'])

const byType = new Map<string, StreamEvent>(streamEventNames.map((name) => [streamEvents[name].type, name]))

/** The URIs by which an event is asked for. */
export function urisOf(name: StreamEvent): string[] {
  return [uriOf(streamEvents[name].type)]
}

function uriOf(type: string): string {
  const [family = '', name = ''] = type.split('/')
  return `https://schemas.openid.net/secevent/${family}/event-type/${name}`
}

/** What a member of `events` is. */
export type EventKind =
  | { readonly kind: 'event'; readonly name: StreamEvent }
  | { readonly kind: 'verification' | 'update' | 'without_effect' | 'unknown' }

/** Reads the URI of an event. Older transmitters write `http:`. */
export function kindOf(uri: string): EventKind {
  const [, family = '', event = ''] =
    /^https?:\/\/schemas\.openid\.net\/secevent\/([a-z]+)\/event-type\/([a-z-]+)$/.exec(uri) ?? []
  const type = `${family}/${event}`
  const name = byType.get(type)
  if (name !== undefined) {
    return { kind: 'event', name }
  }
  if (verifications.has(type)) {
    return { kind: 'verification' }
  }
  if (updates.has(type)) {
    return { kind: 'update' }
  }
  return { kind: withoutEffect.has(type) ? 'without_effect' : 'unknown' }
}

/** How an event of this type takes effect. */
export function effectOf(name: StreamEvent): EventType {
  return streamEvents[name]
}

/** CAEP 1.0 §3.3. */
function takesCredential({
  change_type: change,
  credential_type: credential
}: Readonly<Record<string, unknown>>): boolean {
  return (
    change === 'revoke' ||
    change === 'delete' ||
    (change === 'update' && (credential === 'password' || credential === 'pin'))
  )
}

/** Who asked for an event, if it says so. */
export function initiatorOf(payload: unknown): Initiator | undefined {
  const value = isObject(payload) ? payload.initiating_entity : undefined
  return initiators.find((known) => known === value)
}

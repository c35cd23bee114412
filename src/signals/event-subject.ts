import { isIdentifier, isObject } from '../jwt.ts'
import type { Selector } from '../sign-out.ts'
import type { StreamProfile } from '../stream-config.ts'
import type { EventReach } from '../stream-events.ts'
import type { ResolveEmail } from './token-revocation.ts'

/** A subject identifier that can lead to somebody here; `other`: one that cannot. RFC 9493 §3.2. */
export type Identifier =
  | { readonly format: 'iss_sub'; readonly iss: string; readonly sub: string }
  | { readonly format: 'opaque'; readonly id: string }
  | { readonly format: 'email'; readonly email: string }
  | { readonly format: 'other' }

/** Whom an event is about. Several identifiers are names of the same one. */
export type EventSubject =
  | { readonly identifiers: readonly Identifier[] }
  /** A complex subject: SSF 1.0 §3.3. What is not named in it is not restricted. */
  | { readonly members: ReadonlyMap<string, readonly Identifier[]> }

/** Whom an order is about, and the configured issuer by name. */
export interface Target {
  readonly selector: Selector
  readonly issuerName: string
}

export interface SubjectOptions {
  readonly reach: EventReach
  /** A device beside a user restricts nothing. */
  readonly isOfDevice: boolean
  readonly criticalMembers: readonly string[]
  /** The exact issuers that the stream speaks for, as far as they are known. */
  readonly issuers: readonly string[]
  /** The name of an issuer that the stream speaks for; undefined: it does not. */
  nameOf(issuer: string): string | undefined
  readonly resolveEmail: ResolveEmail
}

// Each format with its members: RFC 9493 §3.2, and SSF 1.0 §3.5.
const otherFormats: Readonly<Record<string, readonly string[]>> = {
  account: ['uri'],
  phone_number: ['phone_number'],
  did: ['url'],
  uri: ['uri'],
  jwt_id: ['iss', 'jti'],
  saml_assertion_id: ['issuer', 'assertion_id']
}
// What older transmitters call `format`, and how they call the formats.
const oldFormats: Readonly<Record<string, string>> = {
  'iss-sub': 'iss_sub',
  id_token_claims: 'iss_sub',
  'id-token-claims': 'iss_sub',
  phone: 'phone_number',
  'phone-number': 'phone_number'
}
const knownMembers = ['user', 'session', 'device', 'application', 'tenant', 'org_unit', 'group']
// Keycloak's word for every session of the user.
const everySession = 'ALL'
const maxAliases = 20

/**
 * Reads a subject.
 * @returns undefined if it is malformed
 */
export function readSubject(value: unknown, profile: StreamProfile): EventSubject | undefined {
  if (!isObject(value)) {
    return undefined
  }
  if (value.format === 'complex' || (profile === 'legacy' && isOldComplex(value))) {
    return readComplex(value, profile)
  }
  const identifiers = readIdentifiers(value, profile)
  return identifiers && { identifiers }
}

function readComplex(value: Record<string, unknown>, profile: StreamProfile): EventSubject | undefined {
  const members = new Map<string, readonly Identifier[]>()
  for (const [name, member] of Object.entries(value)) {
    if (name === 'format') {
      continue
    }
    const identifiers = isObject(member) && member.format !== 'complex' ? readIdentifiers(member, profile) : undefined
    if (identifiers === undefined) {
      return undefined
    }
    members.set(name, identifiers)
  }
  return members.size === 0 ? undefined : { members }
}

/** Drafts had no `format` on a complex subject. */
function isOldComplex(value: Record<string, unknown>): boolean {
  return !('format' in value || 'subject_type' in value) && knownMembers.some((name) => isObject(value[name]))
}

/** All that an identifier names: its aliases, or itself. */
function readIdentifiers(value: Record<string, unknown>, profile: StreamProfile): Identifier[] | undefined {
  if (formatOf(value, profile) !== 'aliases') {
    const identifier = readIdentifier(value, profile)
    return identifier && [identifier]
  }
  const { identifiers } = value
  if (!Array.isArray(identifiers) || identifiers.length === 0 || identifiers.length > maxAliases) {
    return undefined
  }
  const read = identifiers.map((entry: unknown) => (isObject(entry) ? readIdentifier(entry, profile) : undefined))
  const valid = read.filter((identifier) => identifier !== undefined)
  return valid.length === read.length ? valid : undefined
}

function readIdentifier(value: Record<string, unknown>, profile: StreamProfile): Identifier | undefined {
  const format = formatOf(value, profile)
  const { iss, sub, id, email } = value
  switch (format) {
    case 'iss_sub':
      if (isIdentifier(iss) && isIdentifier(sub)) {
        return { format, iss, sub }
      }
      // Google's `id_token_claims` may have an address alone.
      return value.subject_type !== undefined && isEmail(email) ? { format: 'email', email } : undefined
    case 'opaque':
      return isIdentifier(id) ? { format, id } : undefined
    case 'email':
      return isEmail(email) ? { format, email } : undefined
    case 'ip-addresses':
      return Array.isArray(value['ip-addresses']) ? { format: 'other' } : undefined
    case 'aliases': // RFC 9493 §3.2.8: never within others
    case 'complex':
    case undefined:
      return undefined
    default: {
      // One that is agreed on elsewhere may have any members.
      const members = Object.hasOwn(otherFormats, format) ? (otherFormats[format] ?? []) : []
      return members.every((member) => isIdentifier(value[member])) ? { format: 'other' } : undefined
    }
  }
}

function formatOf(value: Record<string, unknown>, profile: StreamProfile): string | undefined {
  const { format, subject_type: type, iss, sub, email, id } = value
  if (profile !== 'legacy') {
    return isIdentifier(format) ? format : undefined
  }
  const name = format ?? type
  if (isIdentifier(name)) {
    return Object.hasOwn(oldFormats, name) ? oldFormats[name] : name
  }
  if (name !== undefined) {
    return undefined
  }
  // Some name none inside a complex subject.
  if (iss !== undefined && sub !== undefined) {
    return 'iss_sub'
  }
  return email !== undefined ? 'email' : id !== undefined ? 'opaque' : undefined
}

// RFC 5322 §3.4.1: in quotes anything may stand before the last "@".
function isEmail(value: unknown): value is string {
  return isIdentifier(value) && /^([^@\s]+|".+")@[^@\s]+$/.test(value)
}

/**
 * Whom a subject means here, and never more than it names.
 * @throws {UnavailableError} if an address cannot be resolved now
 */
export async function selectSubject(
  subject: EventSubject,
  options: SubjectOptions
): Promise<readonly Target[] | { readonly ignored: string }> {
  const { reach, criticalMembers, isOfDevice } = options
  if ('identifiers' in subject) {
    // Without more a session is named by an opaque id alone: https://openid.net/specs/openid-caep-1_0-final.html §3.1
    const [identifier] = subject.identifiers
    return reach === 'session' && subject.identifiers.length === 1 && identifier?.format === 'opaque'
      ? selectSession(subject.identifiers, undefined, options)
      : selectUser(subject.identifiers, options)
  }
  const { members } = subject
  const user = members.get('user')
  const session = members.get('session')
  const isUnderstood = (name: string) =>
    (name === 'user' && user?.some(({ format }) => format !== 'other')) ||
    (name === 'session' && session?.some(({ format }) => format === 'opaque'))
  // SSF 1.0 §3.6
  if (criticalMembers.some((name) => members.has(name) && !isUnderstood(name))) {
    return { ignored: 'critical_member' }
  }
  const isEvery = session?.some((identifier) => identifier.format === 'opaque' && identifier.id === everySession)
  if (session !== undefined && isEvery !== true && (reach === 'session' || user === undefined)) {
    return selectSession(session, user, options)
  }
  if (user === undefined) {
    return { ignored: 'no_user' } // of a device or a tenant it is not known who that is
  }
  // Which sessions of the user those are is not known.
  const isRestricted = members.has('application') || (members.has('device') && !isOfDevice)
  if (reach === 'session' && isEvery !== true && isRestricted) {
    return { ignored: 'subject_restricted' }
  }
  return selectUser(user, options)
}

function selectSession(
  session: readonly Identifier[],
  user: readonly Identifier[] | undefined,
  options: SubjectOptions
): readonly Target[] | { readonly ignored: string } {
  const ids = session.flatMap((identifier) => (identifier.format === 'opaque' ? identifier.id : []))
  if (ids.length === 0 || ids.includes(everySession)) {
    return { ignored: 'session_unknown' }
  }
  const named = user?.find((identifier) => identifier.format === 'iss_sub')
  const issuer = named?.iss ?? onlyIssuer(options)
  if (issuer === undefined) {
    return { ignored: 'session_issuer' }
  }
  const issuerName = options.nameOf(issuer)
  if (issuerName === undefined) {
    return { ignored: 'foreign_issuer' }
  }
  return ids.map((sid) => ({ selector: { kind: 'session', issuer, sid, subject: named?.sub }, issuerName }))
}

async function selectUser(
  user: readonly Identifier[],
  options: SubjectOptions
): Promise<readonly Target[] | { readonly ignored: string }> {
  const targets: Target[] = []
  let ignored = 'subject_unknown'
  for (const identifier of user) {
    if (identifier.format !== 'iss_sub' && identifier.format !== 'opaque') {
      continue
    }
    const issuer = identifier.format === 'iss_sub' ? identifier.iss : onlyIssuer(options)
    const issuerName = issuer === undefined ? undefined : options.nameOf(issuer)
    if (issuer === undefined || issuerName === undefined) {
      ignored = issuer === undefined ? 'subject_issuer' : 'foreign_issuer'
      continue
    }
    const subject = identifier.format === 'iss_sub' ? identifier.sub : identifier.id
    targets.push({ selector: { kind: 'subject', issuer, subject }, issuerName })
  }
  if (targets.length > 0) {
    return targets // the address of the same user would lead to nobody else
  }
  const emails = user.flatMap((identifier) => (identifier.format === 'email' ? identifier.email : []))
  for (const email of emails) {
    ignored = ignored === 'subject_unknown' ? 'no_directory' : ignored
    for (const issuer of options.issuers) {
      const resolved = await options.resolveEmail(issuer, email)
      if ('ignored' in resolved) {
        ignored = resolved.ignored === 'no_directory' ? ignored : resolved.ignored
        continue
      }
      const issuerName = options.nameOf(issuer) ?? ''
      targets.push(...resolved.selectors.map((selector) => ({ selector, issuerName })))
    }
  }
  return targets.length > 0 ? targets : { ignored }
}

/** The one that is meant where an id alone is named. */
function onlyIssuer({ issuers }: SubjectOptions): string | undefined {
  return issuers.length === 1 ? issuers[0] : undefined
}

import { isObject } from './objects.ts'

/** MSAL's serialized cache: five sections of entities by key, and whatever other members it may have. */
export type Contents = Record<string, unknown>

/** A session as an ID token tells it. */
export interface SessionClaims {
  readonly issuer: string
  readonly sid: string | null
  readonly subject: string
  /** `iat`, seconds since 1970. */
  readonly issuedAt: number
  /** The id of the user's object in a directory, and of the directory: Entra ID's own claims. */
  readonly oid: string | null
  readonly tid: string | null
}

const sections = ['Account', 'IdToken', 'AccessToken', 'RefreshToken', 'AppMetadata'] as const

/** Reads a serialized cache; undefined where it is not one. */
export function parseContents(text: string): Contents | undefined {
  try {
    const value: unknown = JSON.parse(text)
    return isObject(value) ? value : undefined
  } catch {
    return undefined
  }
}

/** The accounts that entities of this cache belong to; app-only tokens belong to none. */
export function accountsOf(contents: Contents): Set<string> {
  const accounts = entitiesOf(contents, 'Account').map(([, { home_account_id }]) => home_account_id)
  return new Set(accounts.filter((id) => typeof id === 'string'))
}

/**
 * What may be written to the row of an account: its own entities and no other's, without access tokens that have expired.
 * The same object where there is nothing to leave out.
 *
 * @param nowSeconds seconds since 1970
 */
export function ownContents(contents: Contents, homeAccountId: string, nowSeconds: number): Contents {
  const isOwn = (section: string, entity: unknown) =>
    isObject(entity) &&
    (section === 'AppMetadata' ||
      (entity.home_account_id === homeAccountId &&
        !(section === 'AccessToken' && Number(entity.expires_on) <= nowSeconds)))
  const isWhole = sections.every((section) => {
    const entities = contents[section]
    return isObject(entities) && Object.values(entities).every((entity) => isOwn(section, entity))
  })
  if (isWhole) {
    return contents
  }
  const own: Contents = { ...contents }
  for (const section of sections) {
    own[section] = Object.fromEntries(entitiesOf(contents, section).filter(([, entity]) => isOwn(section, entity)))
  }
  return own
}

/** Our changes since `base`, put onto what another writer has stored meanwhile, entity by entity. */
export function mergeContents(base: Contents, ours: Contents, theirs: Contents): Contents {
  const merged: Contents = { ...theirs }
  for (const section of sections) {
    const before = Object.fromEntries(entitiesOf(base, section))
    const mine = Object.fromEntries(entitiesOf(ours, section))
    const result = Object.fromEntries(entitiesOf(theirs, section))
    for (const key of new Set([...Object.keys(before), ...Object.keys(mine)])) {
      const entity = mine[key]
      if (JSON.stringify(entity) === JSON.stringify(before[key])) {
        continue
      }
      if (entity === undefined) {
        delete result[key]
      } else {
        result[key] = entity
      }
    }
    merged[section] = result
  }
  return merged
}

/**
 * Gives the account what a refresh brought without saying whose it is. Where the answer has no ID token, as it may
 * (OIDC Core 1.0 §12.2), and no client info, MSAL stores the new tokens under an empty account id, and never finds
 * them again: with a provider that rotates refresh tokens the user would be signed out by the next refresh.
 *
 * @param ours what MSAL has now
 * @param base what it was shown, which names the account's realm
 */
export function adoptOrphans(ours: Contents, base: Contents, homeAccountId: string): Contents {
  const isNew = (section: string, key: string) => !Object.hasOwn(entitiesAt(base, section), key)
  const isRotated = entitiesOf(ours, 'RefreshToken').some(
    ([key, entity]) => entity.home_account_id === '' && isNew('RefreshToken', key)
  )
  let adopted: Contents | undefined
  for (const section of ['AccessToken', 'RefreshToken'] as const) {
    for (const [key, entity] of entitiesOf(ours, section)) {
      const isOrphan = entity.home_account_id === '' && (isRotated || isOfUser(entity))
      const realm = section === 'AccessToken' ? realmOf(ours, entity) : undefined
      const isStray = realm !== undefined && realm !== entity.realm && entity.home_account_id === homeAccountId
      if (!isNew(section, key) || !(isOrphan || isStray)) {
        continue
      }
      const { [key]: _, ...others } = entitiesAt(adopted ?? ours, section)
      const own = { ...entity, home_account_id: homeAccountId, ...(realm === undefined ? {} : { realm }) }
      adopted = { ...(adopted ?? ours), [section]: { ...others, [adoptedKey(key, entity, own)]: own } }
    }
  }
  return adopted ?? ours
}

/** MSAL asks for "openid" with every user's token, and never with an app's own. */
function isOfUser({ target }: Entity): boolean {
  return typeof target === 'string' && target.toLowerCase().split(' ').includes('openid')
}

/**
 * The realm that an access token of this client belongs to. Without an ID token MSAL takes the first part of the
 * authority's path for it, and looks for the ID token's later. Of a provider that knows no tenants there is but one.
 */
function realmOf(contents: Contents, { client_id }: Entity): string | undefined {
  const isGeneric = entitiesOf(contents, 'Account').every(([, entity]) => entity.authority_type === 'Generic')
  const realms = new Set(
    entitiesOf(contents, 'IdToken').flatMap(([, entity]) => (entity.client_id === client_id ? [entity.realm] : []))
  )
  const [realm] = realms
  return isGeneric && realms.size === 1 && typeof realm === 'string' && realm !== '' ? realm : undefined
}

/** MSAL's key, `<home>-<environment>-<type>-<client id>-<realm>-…`, with the parts as they are now. */
function adoptedKey(key: string, before: Entity, after: Entity): string {
  const start = ({ home_account_id, environment, credential_type, client_id, realm }: Entity) =>
    [home_account_id, environment, credential_type, client_id, ...(realm === undefined ? [] : [realm])]
      .join('-')
      .toLowerCase()
  if (key.startsWith(start(before))) {
    return start(after) + key.slice(start(before).length)
  }
  return key.startsWith('-') ? `${after.home_account_id}${key}`.toLowerCase() : key // of a family
}

/** What MSAL has now, and what it was shown: tells what its operation has changed. */
export interface Change {
  readonly ours: Contents
  readonly base: Contents
}

/**
 * Leaves one of each: one refresh token for a client id or a family, one ID token for a client id and an issuer, one access
 * token for a set of scopes. MSAL Node 3 and 5 store the same token under keys of their own, and so do other languages'
 * libraries; what it finds first it uses, which is the older one. With a provider that rotates refresh tokens that one
 * is no spare: its use ends the session.
 *
 * @param contents one account's
 * @param change what MSAL has just stored wins; else what was modified last, or stands last
 */
export function leaveOneOfEach(contents: Contents, change: Change | undefined): Contents {
  let left: Contents | undefined
  // What was only read is not sorted out by access tokens: each is as good as another until it expires.
  for (const section of change === undefined ? tokensOfOneKind : tokenSections) {
    if (Object.keys(contents[section] ?? {}).length < 2) {
      continue // as nearly always, and each request of an app comes by here
    }
    const entities = entitiesOf(contents, section)
    const isFresh = change === undefined ? () => false : freshness(section, change)
    const chosen = new Map<string, [string, Entity]>()
    for (const candidate of entities) {
      const identity = identityOf(section, candidate[1])
      const other = chosen.get(identity)
      if (other === undefined || !isNewer(other, candidate, isFresh)) {
        chosen.set(identity, candidate)
      }
    }
    if (chosen.size < entities.length) {
      left ??= { ...contents }
      left[section] = Object.fromEntries(chosen.values())
    }
  }
  return left ?? contents
}

const tokensOfOneKind = ['IdToken', 'RefreshToken'] as const
const tokenSections = [...tokensOfOneKind, 'AccessToken'] as const

/** What makes two entities of one account the same. */
function identityOf(section: (typeof tokenSections)[number], entity: Entity): string {
  const { client_id, family_id, realm } = entity
  if (section === 'RefreshToken') {
    return JSON.stringify(family_id ? { family_id } : { client_id })
  }
  if (section === 'IdToken') {
    // Of a provider without tenants each library makes up another realm; a guest's tokens have several issuers.
    const issuer = typeof entity.secret === 'string' ? decodeClaims(entity.secret)?.iss : undefined
    return JSON.stringify({ client_id, issuer: issuer ?? realm })
  }
  const scopes = String(entity.target ?? '')
    .toLowerCase()
    .split(' ')
    .sort()
  const { token_type, userAssertionHash, key_id, requestedClaimsHash, resource, additionalCacheKeyComponents } = entity
  const scheme = String(token_type ?? 'bearer').toLowerCase()
  const further = { userAssertionHash, key_id, requestedClaimsHash, resource, additionalCacheKeyComponents }
  return JSON.stringify({ client_id, realm, scopes, scheme, ...further })
}

/** Whether the operation has stored the entity at a key. */
function freshness(section: string, { ours, base }: Change): (key: string) => boolean {
  const mine = entitiesAt(ours, section)
  const before = entitiesAt(base, section)
  return (key) => mine[key] !== undefined && JSON.stringify(mine[key]) !== JSON.stringify(before[key])
}

/** Whether the first of two is newer than the second, which stands behind it. */
function isNewer(first: [string, Entity], second: [string, Entity], isFresh: (key: string) => boolean): boolean {
  const isFirstFresh = isFresh(first[0])
  if (isFirstFresh !== isFresh(second[0])) {
    return isFirstFresh
  }
  const modifiedAt = ({ last_modification_time, cached_at }: Entity) => Number(last_modification_time ?? cached_at ?? 0)
  return modifiedAt(first[1]) > modifiedAt(second[1])
}

/** The sessions that the ID tokens of a client tell of. */
export function sessionsOf(contents: Contents, clientId: string): SessionClaims[] {
  return entitiesOf(contents, 'IdToken').flatMap(([, { secret }]) => {
    const claims = typeof secret === 'string' ? decodeClaims(secret) : undefined
    const session = claims === undefined ? undefined : sessionOf(claims)
    return claims === undefined || session === undefined || !isFor(claims.aud, clientId) ? [] : [session]
  })
}

const maxSeconds = 2 ** 62 // what the database takes, and more than any time in nanoseconds

/** The session that a token's claims tell of, or undefined where they tell of none. */
export function sessionOf({ iss, sub, sid, iat, oid, tid }: Record<string, unknown>): SessionClaims | undefined {
  if (typeof iss !== 'string' || typeof sub !== 'string' || typeof iat !== 'number' || Math.abs(iat) >= maxSeconds) {
    return undefined
  }
  return {
    issuer: iss,
    subject: sub,
    sid: textOf(sid),
    issuedAt: Math.floor(iat),
    oid: textOf(oid),
    tid: textOf(tid)
  }
}

function textOf(claim: unknown): string | null {
  return typeof claim === 'string' && claim !== '' ? claim : null
}

/** The client ids that ID tokens of these contents are for. */
export function audiencesOf(contents: Contents): string[] {
  const audiences = entitiesOf(contents, 'IdToken').flatMap(([, { secret }]) => {
    const aud = typeof secret === 'string' ? decodeClaims(secret)?.aud : undefined
    return Array.isArray(aud) ? aud : [aud]
  })
  return [...new Set(audiences.filter((aud) => typeof aud === 'string'))]
}

/** What the ID tokens of a client say of the sign-in that they answer. */
export function noncesOf(contents: Contents, clientId: string): unknown[] {
  return entitiesOf(contents, 'IdToken').flatMap(([, { secret }]) => {
    const claims = typeof secret === 'string' ? decodeClaims(secret) : undefined
    return claims !== undefined && isFor(claims.aud, clientId) ? [claims.nonce] : []
  })
}

export function isSameSession(a: SessionClaims, b: SessionClaims): boolean {
  return a.issuer === b.issuer && a.sid === b.sid && a.subject === b.subject
}

/** The claims of a JWT, unverified: only for tokens that came from the issuer over TLS. */
export function decodeClaims(jwt: string): Record<string, unknown> | undefined {
  const payload = jwt.split('.')[1]
  return payload === undefined ? undefined : parseContents(Buffer.from(payload, 'base64url').toString('utf8'))
}

function isFor(aud: unknown, clientId: string): boolean {
  return Array.isArray(aud) ? aud.includes(clientId) : aud === clientId
}

type Entity = Record<string, unknown>
type Entities = Readonly<Record<string, Entity>>

function entitiesAt(contents: Contents, section: string): Entities {
  return Object.fromEntries(entitiesOf(contents, section))
}

function entitiesOf(contents: Contents, section: string): [string, Entity][] {
  const entities = contents[section]
  return isObject(entities)
    ? Object.entries(entities).flatMap(([key, entity]) => (isObject(entity) ? [[key, entity]] : []))
    : []
}

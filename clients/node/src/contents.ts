/** MSAL's serialized cache: five sections of entities by key, and whatever other members it may have. */
export type Contents = Record<string, unknown>

/** A session as an ID token tells it. */
export interface SessionClaims {
  readonly issuer: string
  readonly sid: string | null
  readonly subject: string
  /** `iat`, seconds since 1970. */
  readonly issuedAt: number
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

/** The sessions that the ID tokens of a client tell of. */
export function sessionsOf(contents: Contents, clientId: string): SessionClaims[] {
  return entitiesOf(contents, 'IdToken').flatMap(([, { secret }]) => {
    const claims = typeof secret === 'string' ? decodeClaims(secret) : undefined
    const session = claims === undefined ? undefined : sessionOf(claims)
    return claims === undefined || session === undefined || !isFor(claims.aud, clientId) ? [] : [session]
  })
}

/** The session that a token's claims tell of, or undefined where they tell of none. */
export function sessionOf({ iss, sub, sid, iat }: Record<string, unknown>): SessionClaims | undefined {
  if (typeof iss !== 'string' || typeof sub !== 'string' || typeof iat !== 'number') {
    return undefined
  }
  return {
    issuer: iss,
    subject: sub,
    sid: typeof sid === 'string' && sid !== '' ? sid : null,
    issuedAt: Math.floor(iat)
  }
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

function entitiesOf(contents: Contents, section: string): [string, Record<string, unknown>][] {
  const entities = contents[section]
  return isObject(entities)
    ? Object.entries(entities).flatMap(([key, entity]) => (isObject(entity) ? [[key, entity]] : []))
    : []
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

import type { PurgeSelector } from './signals/operator.ts'

/** What is stored and comes close to what a purge named, when nothing matched. */
export interface NearMiss {
  readonly because: 'later' | 'case' | 'uid' | 'swapped' | 'object' | 'subject' | 'sid' | 'client' | 'tenant'
  readonly homeAccountId: string | null
  /** Of the session by which it was found. */
  readonly issuer: string | null
  readonly clientId: string | null
  readonly tenantId: string | null
  /** Of a subject and a sid: whether it is the one that was named, letter by letter. */
  readonly isExact: boolean
}

/** Whom to look for, in all the ways in which somebody may have written it. */
export interface NearQuery {
  /** As it stands, and without blanks, each part of it in lower and in upper case. */
  readonly values: readonly string[]
  /** `<utid>.<uid>` turned round. */
  readonly swapped: readonly string[]
  /** The start of an account's id. */
  readonly uids: readonly string[]
  readonly kind: 'account' | 'client' | 'tenant'
}

const maxLength = 1_024

/** What to look for, by what a purge named. */
export function nearQueryOf(selector: PurgeSelector): NearQuery {
  const [kind, named] = namedBy(selector)
  const values = [...new Set(named.flatMap((value) => formsOf(value)))]
  return {
    values,
    swapped: values.flatMap((value) => {
      const [, uid, utid] = /^([^.]+)\.([^.]+)$/.exec(value) ?? []
      return uid === undefined ? [] : [`${utid}.${uid}`]
    }),
    uids: values.filter((value) => !value.includes('.')),
    kind
  }
}

function namedBy(selector: PurgeSelector): [NearQuery['kind'], string[]] {
  if ('homeAccountId' in selector) {
    return ['account', [selector.homeAccountId]]
  }
  if ('sid' in selector) {
    return ['account', [selector.sid]]
  }
  if ('subject' in selector) {
    return ['account', [selector.subject]]
  }
  if ('objectId' in selector) {
    return ['account', [selector.objectId, selector.tenantId]]
  }
  return 'clientId' in selector ? ['client', [selector.clientId]] : ['tenant', [selector.tenantId]]
}

/**
 * Each part of `<uid>.<utid>` in lower case and in upper: directories write an id in one of the two. What is stored in mixed case is found by
 * its very letters alone, since an index without regard to case would cost every login.
 */
function formsOf(value: string): string[] {
  const trimmed = value.trim().slice(0, maxLength)
  const [uid = '', utid] = /^([^.]+)\.([^.]+)$/.exec(trimmed)?.slice(1) ?? [trimmed]
  const cased = casesOf(uid).flatMap((first) =>
    utid === undefined ? [first] : casesOf(utid).map((second) => `${first}.${second}`)
  )
  return [value.slice(0, maxLength), trimmed, ...cased].filter((form) => form !== '')
}

const casesOf = (part: string) => [part, part.toLowerCase(), part.toUpperCase()]

/** Each with a sentence for people. What was named exactly was spared by its time. */
export function describeNearMisses(
  selector: PurgeSelector,
  misses: readonly NearMiss[]
): (NearMiss & { readonly message: string })[] {
  return misses.map((found) => {
    const miss: NearMiss = isNamed(selector, found) ? { ...found, because: 'later' } : found
    return { ...miss, message: describe(miss) }
  })
}

function isNamed(selector: PurgeSelector, { because, homeAccountId, issuer, tenantId, isExact }: NearMiss): boolean {
  if ('homeAccountId' in selector) {
    return because === 'case' && homeAccountId === selector.homeAccountId
  }
  if ('sid' in selector) {
    return because === 'sid' && issuer === selector.issuer && isExact
  }
  if ('subject' in selector) {
    return because === 'subject' && issuer === selector.issuer && isExact
  }
  return 'objectId' in selector && because === 'object' && tenantId === selector.tenantId.toLowerCase()
}

function describe({ because, homeAccountId, issuer, clientId, tenantId, isExact }: NearMiss): string {
  const account = `account "${homeAccountId}"`
  switch (because) {
    case 'later':
      return `${account} is stored, and all of it was issued later`
    case 'case':
      return `${account} is stored: its letters are of another case, or there are blanks`
    case 'uid':
      return `${account} is stored: an id is <uid>.<utid>, and this is the first part`
    case 'swapped':
      return `${account} is stored: the two parts of the id are in the other order`
    case 'object':
      return `${account} is stored: this is its object id in the tenant ${tenantId}; purge by both`
    case 'subject':
      return `${account} is stored: this is its subject at "${issuer}"${inItsForm(isExact)}; purge by both`
    case 'sid':
      return `${account} is stored: this is a sid of it at "${issuer}"${inItsForm(isExact)}; purge by both`
    case 'client':
      return `app "${clientId}" has rows: its letters are of another case, or there are blanks`
    case 'tenant':
      return `tenant "${tenantId}" has rows: its letters are of another case, or there are blanks`
  }
}

function inItsForm(isExact: boolean): string {
  return isExact ? '' : ', but for the case of its letters or for blanks'
}

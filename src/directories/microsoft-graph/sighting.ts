import type { DirectoryEvent } from '../../directory-config.ts'
import type { GraphUser } from './client.ts'

/** What a directory has shown of a user that ends the user's sessions. */
export interface Sighting {
  readonly event: DirectoryEvent
  /** Of a time that the directory names, seconds since 1970; 0 if everything up to now is meant. */
  readonly revokeBefore: number
  readonly detail: string
}

export interface JudgeOptions {
  readonly revokeOn: readonly DirectoryEvent[]
  /** No time of the directory counts for more, seconds since 1970: one in the future would keep the user out until then. */
  readonly latest: number
}

/**
 * What of a user ends its sessions; undefined if nothing does. A property that is missing is unknown, and ends nothing. Being
 * disabled comes before any time: it ends all.
 */
export function judgeUser(user: GraphUser, { revokeOn, latest }: JudgeOptions): Sighting | undefined {
  const { accountEnabled, sessionsValidFrom, passwordChangedAt } = user
  if (accountEnabled === false && revokeOn.includes('disabled')) {
    return { event: 'disabled', revokeBefore: 0, detail: 'accountEnabled is false' }
  }
  const times: Sighting[] = []
  if (sessionsValidFrom !== undefined && revokeOn.includes('revoked')) {
    times.push(timeOf('revoked', 'signInSessionsValidFromDateTime', sessionsValidFrom, latest))
  }
  if (passwordChangedAt !== undefined && revokeOn.includes('passwordChanged')) {
    times.push(timeOf('passwordChanged', 'lastPasswordChangeDateTime', passwordChangedAt, latest))
  }
  return times.sort((a, b) => b.revokeBefore - a.revokeBefore)[0]
}

/** As {@link judgeUser}, of a user that is not there. */
export function judgeMissing(how: string, { revokeOn }: Pick<JudgeOptions, 'revokeOn'>): Sighting | undefined {
  return revokeOn.includes('deleted') ? { event: 'deleted', revokeBefore: 0, detail: how } : undefined
}

/** Whether everything up to now is meant, and not what is older than a time. */
export function isOver({ event }: Pick<Sighting, 'event'>): boolean {
  return event === 'disabled' || event === 'deleted'
}

/** Rounded up: `iat` is of whole seconds, and a token of the same second may be older. */
function timeOf(event: DirectoryEvent, property: string, ms: number, latest: number): Sighting {
  return {
    event,
    revokeBefore: Math.min(Math.ceil(ms / 1_000), latest),
    detail: `${property} is ${new Date(ms).toISOString()}`
  }
}

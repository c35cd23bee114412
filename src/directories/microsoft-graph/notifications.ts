import { timingSafeEqual } from 'node:crypto'
import type { Subscription } from '../../directory-store.ts'
import { isObject } from '../../jwt.ts'
import { hashOf } from './subscriber.ts'

/** What somebody says in the name of a directory. Nothing of it is signed: it is a reason to look, and none to act. */
export interface Notification {
  readonly subscriptionId: string
  /** The secret of its subscription; empty if it bears none. */
  readonly clientState: string
  /** Of the subscription itself: it ends unless it is renewed. */
  readonly isOfLifecycle: boolean
}

/** Of many notifications, how many are the directory's, and what they ask for. */
export interface Verdict {
  readonly known: number
  readonly unknown: number
  /** Whether the subscription is to be renewed. */
  readonly renews: boolean
}

const maxMemberLength = 128 // of a client state: https://learn.microsoft.com/graph/api/resources/subscription
const nobodys = hashOf('')

/**
 * Reads a body that Microsoft Graph has posted, or anybody else.
 * @returns undefined if it is not what Graph posts
 */
export function readNotifications(text: string): Notification[] | undefined {
  const content = parse(text)
  if (!isObject(content) || !Array.isArray(content.value)) {
    return undefined
  }
  const notifications: Notification[] = []
  for (const item of content.value) {
    const { subscriptionId, clientState = null, lifecycleEvent = null } = isObject(item) ? item : {}
    if (!isMember(subscriptionId) || !(clientState === null || isMember(clientState))) {
      return undefined
    }
    if (!(lifecycleEvent === null || isMember(lifecycleEvent))) {
      return undefined
    }
    notifications.push({ subscriptionId, clientState: clientState ?? '', isOfLifecycle: lifecycleEvent !== null })
  }
  return notifications
}

/** Judges every one, in the same time. What is known of a secret is its hash, and no subscription has the secret ''. */
export function judgeNotifications(
  notifications: readonly Notification[],
  subscription: Subscription | undefined
): Verdict {
  let known = 0
  let renews = false
  for (const { subscriptionId, clientState, isOfLifecycle } of notifications) {
    const isOurs = subscription?.id === subscriptionId && subscription.clientStateHash.length === nobodys.length
    const expected = Buffer.from(isOurs ? subscription.clientStateHash : nobodys)
    const isEqual = timingSafeEqual(Buffer.from(hashOf(clientState)), expected)
    if (isEqual && isOurs && clientState !== '') {
      known += 1
      renews ||= isOfLifecycle
    }
  }
  return { known, unknown: notifications.length - known, renews }
}

function isMember(value: unknown): value is string {
  return typeof value === 'string' && value.length <= maxMemberLength
}

function parse(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}

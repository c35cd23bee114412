import { createHash, randomBytes } from 'node:crypto'
import type { Subscription } from '../../directory-store.ts'
import { DirectoryError } from '../../errors.ts'
import type { GraphClient } from './client.ts'

/** Looks after the subscription of one tenant: by it the directory says at once that something has changed. */
export interface Subscriber {
  /** Whether there is something to do. */
  isDue(subscription: Subscription | undefined): boolean
  /**
   * Makes, renews or ends it.
   *
   * @param subscription as it was remembered
   * @returns what is to be remembered; undefined: there is none, and none is wanted
   */
  look(subscription: Subscription | undefined, signal: AbortSignal): Promise<Subscription | undefined>
  /** Ends one that is not remembered. What fails ends by itself. */
  abandon(subscription: Subscription | undefined, signal: AbortSignal): Promise<void>
}

export interface SubscriberOptions {
  /** Where the directory is to post; undefined: nowhere. */
  readonly url: string | undefined
  readonly client: Pick<GraphClient, 'subscribe' | 'renewSubscription' | 'unsubscribe'>
  /** Milliseconds since 1970. */
  readonly now: () => number
}

// Of the 29 days that it may live: the directory does not say that it has lost one, which shows when it is renewed, at half of
// its life. An outage of a day does it no harm.
const lifeMs = 2 * 24 * 60 * 60_000
const retryMs = 5 * 60_000

export function createSubscriber({ url, client, now }: SubscriberOptions): Subscriber {
  async function subscribe(at: string, signal: AbortSignal): Promise<Subscription> {
    const clientState = randomBytes(32).toString('base64url')
    const { id, expiresAt } = await client.subscribe({ url: at, clientState, expiresAt: now() + lifeMs }, signal)
    return { id, url: at, clientStateHash: hashOf(clientState), expiresAt, dueAt: halfwayTo(expiresAt) }
  }

  async function renew(subscription: Subscription, id: string, signal: AbortSignal): Promise<Subscription | undefined> {
    const expiresAt = await client.renewSubscription({ id, expiresAt: now() + lifeMs }, signal)
    const { url, clientStateHash } = subscription
    return expiresAt === undefined ? undefined : { id, url, clientStateHash, expiresAt, dueAt: halfwayTo(expiresAt) }
  }

  const halfwayTo = (expiresAt: number) => now() + Math.max(0, expiresAt - now()) / 2

  return {
    isDue: (subscription) =>
      subscription === undefined
        ? url !== undefined
        : subscription.dueAt <= now() ||
          (subscription.failure === undefined && (subscription.url !== url || subscription.isRenewalWanted === true)),

    async look(subscription, signal) {
      try {
        if (subscription?.id !== undefined) {
          const renewed = subscription.url === url ? await renew(subscription, subscription.id, signal) : undefined
          if (renewed !== undefined) {
            return renewed
          }
          if (subscription.url !== url) {
            await client.unsubscribe(subscription.id, signal)
          }
        }
        return url === undefined ? undefined : await subscribe(url, signal)
      } catch (error) {
        if (!(error instanceof DirectoryError)) {
          throw error
        }
        const { code, detail } = error
        const none = { id: undefined, url: url ?? '', clientStateHash: '', expiresAt: 0 }
        return { ...(subscription ?? none), isRenewalWanted: false, dueAt: now() + retryMs, failure: { code, detail } }
      }
    },

    async abandon(subscription, signal) {
      if (subscription?.id !== undefined) {
        await client.unsubscribe(subscription.id, signal).catch(() => {})
      }
    }
  }
}

/** What is remembered of a subscription's secret. */
export function hashOf(clientState: string): string {
  return createHash('sha256').update(clientState).digest('hex')
}

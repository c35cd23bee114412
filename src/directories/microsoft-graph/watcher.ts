import { randomUUID } from 'node:crypto'
import type { FastifyBaseLogger } from 'fastify'
import type { WatchedTenant } from '../../directory-config.ts'
import type { Claim, DeltaEnd, DirectoryState, DirectoryStore, Subscription, SweepEnd } from '../../directory-store.ts'
import { DirectoryError, UnavailableError } from '../../errors.ts'
import type { IssuerConfig } from '../../issuers.ts'
import type { Fetch } from '../../outbound-fetch.ts'
import type { DirectoryObject } from '../../people.ts'
import type { Receive } from '../../receive.ts'
import { type Repetition, repeatThroughOutages } from '../../repeat.ts'
import type { ResolveEmail } from '../../signals/token-revocation.ts'
import { createGraphClient, type GraphClient, type GraphClientOptions } from './client.ts'
import { judgeNotifications, type Notification } from './notifications.ts'
import { createRound, isOfTheWhole, type Round } from './round.ts'
import { createSubscriber, type Subscriber } from './subscriber.ts'

export interface WatchersOptions {
  /** Those with a directory are watched. */
  readonly issuers: readonly IssuerConfig[]
  readonly store: DirectoryStore
  readonly receive: Receive
  readonly fetch: Fetch
  readonly logger: FastifyBaseLogger
  /** Milliseconds since 1970; default `Date.now`. */
  readonly now?: (() => number) | undefined
  /** Waits between tries; default a timer. */
  readonly sleep?: GraphClientOptions['sleep']
  /** How often it is looked whether something is due, in milliseconds; default 1,000. */
  readonly tickMs?: number | undefined
  /** How long an instance that is gone holds a directory, in seconds; default 30. */
  readonly leaseSeconds?: number | undefined
}

/** A tenant that is watched, and how. */
export interface Watched {
  /** The issuer's name in the configuration. */
  readonly name: string
  readonly tenantId: string
  readonly config: IssuerConfig
}

export interface Watchers {
  watched(): readonly Watched[]
  /**
   * Watches the directories of these issuers from now on, and no others. A round of one whose settings are other than they were is
   * ended: nothing of it is written down.
   */
  replace(issuers: readonly IssuerConfig[]): void
  /**
   * Does what is due at this instance: begins its rounds, and waits for none.
   * @returns the rounds that are under way
   * @throws {UnavailableError} if the database is out of reach
   */
  tick(signal: AbortSignal): Promise<readonly Promise<void>[]>
  /**
   * Takes what somebody says in the name of an issuer's directory: one of a subscription of ours has the watcher, at whichever
   * instance, look soon. Nothing is waited for: the next tick passes it on, once the database is there.
   *
   * @param name the issuer's, in the configuration
   */
  notify(name: string, notifications: readonly Notification[]): { readonly known: number; readonly unknown: number }
  /**
   * Whom the directories know by an e-mail address or a user name; undefined if none is watched.
   * @throws {DirectoryError} if nobody is found, and one of them does not answer
   */
  findPeople(name: string): Promise<readonly DirectoryObject[] | undefined>
  /** Whose e-mail address or user principal name that is, in the tenant of this issuer alone: exactly one user's, or nobody's. */
  readonly resolveEmail: ResolveEmail
  /** Begins to watch. */
  start(): Repetition
  /** Begins to pass on what is notified here; it is another process that watches. */
  follow(): Repetition
  /** How each stood when it was last looked at; none before. */
  states(): ReadonlyMap<string, DirectoryState>
}

const outagePauseMs = 5_000
// An operator waits for the answer.
const findWithinMs = 8_000
// A program does, for less than two seconds; what is deferred by then is looked up again.
const resolveWithinMs = 3_000
const maxAddressLength = 320 // 64 before the @, 255 behind it: RFC 5321 §4.5.3.1
// After a failure the next ones are not asked: they would wait for the same.
const resolvePauseMs = 5_000

/**
 * Watches the directories of the issuers that have one. Of many instances one watches each tenant, by a lease in the database; any
 * other takes over from where it was.
 */
export function createWatchers({
  issuers,
  store,
  receive,
  fetch,
  logger,
  now = Date.now,
  sleep,
  tickMs = 1_000,
  leaseSeconds = 30
}: WatchersOptions): Watchers {
  const holder = randomUUID()
  let watchers = new Map<string, Watcher>()
  const underWay = new Map<string, Promise<void>>()
  const notBefore = new Map<string, number>()
  /** Until when each lease is certainly ours, milliseconds since 1970. */
  const heldUntil = new Map<string, number>()
  const states = new Map<string, DirectoryState>()
  /** Tenants whose directories say that there is something new, and whether the subscription is to be renewed. */
  const hints = new Map<string, boolean>()

  function watch(configs: readonly IssuerConfig[]): void {
    const before = watchers
    watchers = new Map(
      configs.flatMap((config) =>
        (config.directory?.tenants ?? []).map((tenant) => {
          const known = before.get(tenant.tenantId)
          const settings = settingsOf(config)
          return [tenant.tenantId, known?.settings === settings ? known : watcherOf(config, tenant, settings)] as const
        })
      )
    )
    for (const [tenantId, watcher] of before) {
      if (watchers.get(tenantId) !== watcher) {
        watcher.ending.abort()
        states.delete(tenantId)
      }
    }
  }

  function watcherOf(config: IssuerConfig, tenant: WatchedTenant, settings: string): Watcher {
    const { name, directory, clockToleranceSeconds } = config
    if (directory === undefined) {
      throw new Error(`the issuer "${name}" has no directory`)
    }
    const { tenantId } = tenant
    const client = createGraphClient({ directory, tenantId, fetch, now, sleep })
    return {
      watched: { name, tenantId, config },
      issuer: tenant.issuer,
      settings,
      client,
      subscriber: createSubscriber({ url: directory.notificationUrl, client, now }),
      round: createRound({
        name,
        directory,
        tenant,
        client,
        store,
        receive,
        holder,
        isHeld: () => now() < (heldUntil.get(tenantId) ?? 0),
        clockToleranceSeconds,
        now
      }),
      ending: new AbortController(),
      notAskedUntil: 0
    }
  }

  async function tick(signal: AbortSignal): Promise<readonly Promise<void>[]> {
    await passHints()
    const tenantIds = [...watchers.keys()]
    const claimedAt = now()
    const claims = tenantIds.length === 0 ? [] : await store.claim(tenantIds, holder, leaseSeconds)
    for (const claim of claims) {
      const { tenantId } = claim.state
      const watcher = watchers.get(tenantId)
      if (watcher === undefined) {
        continue
      }
      states.set(tenantId, claim.state)
      // What is ours is ours for half a lease: then it is renewed.
      heldUntil.set(tenantId, claim.isMine ? claimedAt + (leaseSeconds * 1_000) / 2 : 0)
      const isFree = !underWay.has(tenantId) && (notBefore.get(tenantId) ?? 0) <= now()
      if (claim.isMine && claim.isDue && isFree && !signal.aborted) {
        begin(watcher, claim, AbortSignal.any([signal, watcher.ending.signal]))
      }
    }
    return [...underWay.values()]
  }

  /** Passes hints on, and learns the subscriptions: no other notification than theirs is known. */
  async function learn(): Promise<void> {
    await passHints()
    const notifying = [...watchers].filter(([, { watched }]) => watched.config.directory?.notificationUrl !== undefined)
    if (notifying.length > 0) {
      for (const [tenantId, state] of await store.readStates(notifying.map(([tenantId]) => tenantId))) {
        states.set(tenantId, state)
      }
    }
  }

  function repeatTicks(work: () => Promise<unknown>): Repetition {
    return repeatThroughOutages(work, {
      everyMs: tickMs,
      outagePauseMs,
      onOutage(error) {
        const code = error instanceof UnavailableError ? error.code : String(error)
        logger.warn({ code }, 'directories are not watched')
      }
    })
  }

  async function passHints(): Promise<void> {
    for (const [tenantId, renews] of hints) {
      hints.delete(tenantId) // what comes from now on is another hint
      try {
        await store.hint(tenantId, { renews })
      } catch (error) {
        hints.set(tenantId, renews || hints.get(tenantId) === true)
        throw error
      }
    }
  }

  /** Never rejects. What fails here comes again: nothing of it was written down as done. */
  function begin(watcher: Watcher, claim: Claim, signal: AbortSignal): void {
    const { name, tenantId } = watcher.watched
    const work = makeRound(watcher, claim, signal)
      .then(() => {
        notBefore.delete(tenantId)
      })
      .catch((error: unknown) => {
        notBefore.set(tenantId, now() + outagePauseMs)
        if (signal.aborted) {
          return
        }
        if (error instanceof UnavailableError || error instanceof DirectoryError) {
          logger.warn({ issuer: name, tenantId, code: error.code }, 'a round of a directory is put off')
        } else {
          logger.error({ issuer: name, tenantId, err: error }, 'a round of a directory failed')
        }
      })
      .finally(() => underWay.delete(tenantId))
    underWay.set(tenantId, work)
  }

  async function makeRound(watcher: Watcher, claim: Claim, signal: AbortSignal): Promise<void> {
    const { watched, round } = watcher
    if (!(await store.beginRound(watched.tenantId, holder))) {
      return // another instance is at it
    }
    const { isTripped, acted, ...delta } = await round.queryChanges(claim, signal)
    await conclude(watched, delta, claim.state.deltaFailure?.code, signal)
    const isInVain = delta.failure !== undefined && isOfTheWhole(delta.failure.code)
    if ((claim.isSweepDue || delta.forcesSweep) && !isInVain && !signal.aborted) {
      const sweep = await round.sweep(claim, { isTripped, acted }, signal)
      await conclude(watched, sweep, claim.state.sweepFailure?.code, signal)
    }
    if (!isInVain && !signal.aborted) {
      await lookAfterSubscription(watcher, claim.state.subscription, signal)
    }
  }

  /** Without one the rounds go on as ever: only what is new is seen later. */
  async function lookAfterSubscription(
    { watched: { name, tenantId }, subscriber }: Watcher,
    before: Subscription | undefined,
    signal: AbortSignal
  ): Promise<void> {
    if (!subscriber.isDue(before)) {
      return
    }
    const subscription = await subscriber.look(before, signal)
    const failure = subscription?.failure
    if (signal.aborted && failure !== undefined) {
      return // it was we who ended it
    }
    if (!(await store.keepSubscription(tenantId, holder, subscription))) {
      if (subscription?.id !== before?.id) {
        await subscriber.abandon(subscription, signal)
      }
      throw new DirectoryError('ERR_DIRECTORY_LEASE')
    }
    const state = states.get(tenantId)
    if (state !== undefined) {
      states.set(tenantId, { ...state, subscription })
    }
    const about = { issuer: name, tenantId }
    if (failure !== undefined && failure.code !== before?.failure?.code) {
      logger.warn({ ...about, ...failure }, 'a directory does not notify')
    } else if (failure === undefined && subscription?.id !== before?.id) {
      logger.info(about, subscription === undefined ? 'a directory notifies no more' : 'a directory notifies')
    }
  }

  async function conclude(
    { name, tenantId }: Watched,
    end: DeltaEnd | SweepEnd,
    failedBefore: string | undefined,
    signal: AbortSignal
  ): Promise<void> {
    const { kind, failure, summary } = end
    if (signal.aborted && failure !== undefined) {
      return // it was we who ended it
    }
    if (!(await store.endRound(tenantId, holder, end))) {
      throw new DirectoryError('ERR_DIRECTORY_LEASE')
    }
    const about = { issuer: name, tenantId, kind }
    if (failure !== undefined && failure.code !== failedBefore) {
      logger.warn({ ...about, ...failure }, 'a directory cannot be watched') // once, as long as it stays the same
    } else if (failure === undefined && failedBefore !== undefined) {
      logger.info(about, 'a directory is watched again')
    }
    if (summary !== undefined && failure === undefined) {
      const { looked, done, held, doubted, seconds } = summary
      const isNews = held > 0 || doubted > 0 || Object.keys(done).length > 0
      logger[isNews ? 'info' : 'debug']({ ...about, looked, done, held, doubted, seconds }, 'looked at a directory')
    }
  }

  watch(issuers)
  return {
    watched: () => [...watchers.values()].map(({ watched }) => watched),
    replace: watch,
    tick,
    states: () => states,

    notify(name, notifications) {
      let known = 0
      for (const [tenantId, { watched }] of watchers) {
        if (watched.name === name) {
          const verdict = judgeNotifications(notifications, states.get(tenantId)?.subscription)
          known += verdict.known
          if (verdict.known > 0) {
            hints.set(tenantId, verdict.renews || hints.get(tenantId) === true)
          }
        }
      }
      return { known, unknown: notifications.length - known }
    },

    async findPeople(name) {
      if (watchers.size === 0) {
        return undefined
      }
      const signal = AbortSignal.timeout(findWithinMs)
      const answers = await Promise.allSettled(
        [...watchers.values()].map(async ({ watched: { tenantId }, client }) =>
          (await client.findUsers(name, signal)).map((objectId) => ({ tenantId, objectId }))
        )
      )
      const found = answers.flatMap((answer) => (answer.status === 'fulfilled' ? answer.value : []))
      const failed = answers.find((answer) => answer.status === 'rejected')
      if (failed !== undefined && found.length === 0) {
        throw failed.reason // it may be the one that knows
      }
      return found
    },

    async resolveEmail(issuer, email) {
      const watcher = [...watchers.values()].find((one) => one.issuer === issuer)
      if (watcher === undefined) {
        return { ignored: 'no_directory' }
      }
      if (email.length > maxAddressLength) {
        return { ignored: 'unknown_email' }
      }
      const { watched, client } = watcher
      if (watcher.notAskedUntil > now()) {
        throw new UnavailableError('ERR_DIRECTORY_UNAVAILABLE', { issuer: watched.name })
      }
      let found: readonly string[]
      try {
        found = await client.findByAddress(email, AbortSignal.timeout(resolveWithinMs))
      } catch (error) {
        if (!(error instanceof DirectoryError)) {
          throw error
        }
        watcher.notAskedUntil = now() + resolvePauseMs
        throw new UnavailableError('ERR_DIRECTORY_UNAVAILABLE', { issuer: watched.name, cause: error })
      }
      const [objectId, ...others] = found
      if (objectId === undefined || others.length > 0) {
        return { ignored: objectId === undefined ? 'unknown_email' : 'ambiguous_email' }
      }
      const { tenantId } = watched
      const home = { kind: 'account', homeAccountId: `${objectId}.${tenantId}`, issuer: '' } as const
      const guest = { kind: 'object', tenantId, objectId } as const
      const known = (await store.findWatched(tenantId, [objectId])).get(objectId)
      // The account has the sessions of its object, too: both would find the same. Of whom nothing is stored a login may be under way.
      const selectors =
        known === undefined ? [guest, home] : [...(known.isHome ? [home] : []), ...(known.isGuest ? [guest] : [])]
      return { selectors }
    },

    start() {
      const stopping = new AbortController()
      const ticks = repeatTicks(() => tick(stopping.signal))
      return {
        async stop() {
          stopping.abort()
          await ticks.stop()
          await Promise.all(underWay.values())
          await passHints().catch(() => {}) // the next poll sees the same
          if (watchers.size > 0) {
            await store.release(holder).catch(() => {}) // the leases end by themselves
          }
        }
      }
    },

    follow() {
      const ticks = repeatTicks(learn)
      return {
        async stop() {
          await ticks.stop()
          await passHints().catch(() => {}) // the next poll sees the same
        }
      }
    }
  }
}

interface Watcher {
  readonly watched: Watched
  /** The exact `iss` of the tenant's ID tokens. */
  readonly issuer: string
  readonly settings: string
  readonly client: GraphClient
  readonly round: Round
  readonly subscriber: Subscriber
  /** Aborted when it is watched no more, or otherwise. */
  readonly ending: AbortController
  /** Milliseconds since 1970: it has just failed to answer. */
  notAskedUntil: number
}

/** All of an issuer that its watchers depend on. */
function settingsOf({ name, directory, clockToleranceSeconds }: IssuerConfig): string {
  return JSON.stringify([name, directory, clockToleranceSeconds])
}

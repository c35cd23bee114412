import { randomUUID } from 'node:crypto'
import type { DirectoryConfig, DirectoryEvent, WatchedTenant } from '../../directory-config.ts'
import type {
  Claim,
  DeltaEnd,
  DirectoryFailure,
  DirectoryStore,
  FindingStatus,
  RoundSummary,
  StoredFinding,
  SweepEnd,
  WatchedObject
} from '../../directory-store.ts'
import { DirectoryError, type DirectoryErrorCode } from '../../errors.ts'
import type { Receive } from '../../receive.ts'
import { type DirectoryFinding, directorySignal } from '../../signals/directory.ts'
import { createBreaker, type Hit } from './breaker.ts'
import { type DeltaItem, type DeltaPage, type GraphClient, type Look, maxUsersPerBatch } from './client.ts'
import { isOver, type JudgeOptions, judgeMissing, judgeUser, type Sighting } from './sighting.ts'

export interface RoundOptions {
  /** The issuer's name in the configuration. */
  readonly name: string
  readonly directory: DirectoryConfig
  readonly tenant: WatchedTenant
  readonly client: Pick<GraphClient, 'properties' | 'readUsers' | 'startDelta' | 'readDelta'>
  readonly store: DirectoryStore
  readonly receive: Receive
  /** Who makes the rounds: the holder of the lease. */
  readonly holder: string
  /** Whether the lease is certainly held yet. An instance that was frozen meanwhile acts no more. */
  readonly isHeld: () => boolean
  /** How far clocks may be apart, in seconds. */
  readonly clockToleranceSeconds: number
  /** Milliseconds since 1970. */
  readonly now: () => number
}

/** A round of one tenant. Each half throws {@link UnavailableError} if the database is out of reach. */
export interface Round {
  /** The quick half: what has changed since the last one, and a second look at what was doubted. */
  queryChanges(claim: Claim, signal: AbortSignal): Promise<DeltaEnd & Settled>
  /** The guarantee: looks at every object that is in the cache. */
  sweep(claim: Claim, before: Settled, signal: AbortSignal): Promise<SweepEnd>
}

/** What the round has come to so far. */
export interface Settled {
  /** Whether the breaker is open by now. */
  readonly isTripped: boolean
  /** How many accounts it has acted upon that no operator released: the breaker counts a round, not its halves. */
  readonly acted: number
}

// They go into one transaction, and leave room for what others ask for.
const actingAtOnce = 32
const watchedPerPage = 10 * maxUsersPerBatch
const findingsPerPage = 1_000
// Users who are not in the cache, and whose login may be under way. The sweep finds the others.
const maxStrangers = 1_000
// No login is under way for longer with an ID token from before.
const loginTakesSeconds = 600
const maxPages = 100_000
const maxBackOffSeconds = 300
// What a directory asks for is kept up to this: a wrong clock at its side must not end the watch.
const maxRetryAfterSeconds = 3_600
// A sweep would meet the same.
const faultsOfTheWhole: readonly DirectoryErrorCode[] = [
  'ERR_DIRECTORY_UNREACHABLE',
  'ERR_DIRECTORY_THROTTLED',
  'ERR_DIRECTORY_CREDENTIAL_FILE',
  'ERR_DIRECTORY_CREDENTIAL',
  'ERR_DIRECTORY_CREDENTIAL_EXPIRED',
  'ERR_DIRECTORY_TENANT',
  'ERR_DIRECTORY_CLIENT',
  'ERR_DIRECTORY_CLOUD',
  'ERR_DIRECTORY_CONSENT'
]

/** Whether the other half of the round is of no use either. */
export function isOfTheWhole(code: string): boolean {
  return faultsOfTheWhole.some((fault) => fault === code)
}

/** What half of a round has gathered. */
interface Gathered {
  /** By object. */
  readonly hits: Map<string, Hit>
  readonly doubted: StoredFinding[]
  /** Objects that are not in the cache. */
  readonly strangers: Map<string, Sighting & { readonly seenAt: number }>
  looked: number
}

/** What a delta query says of an object in the cache. */
interface Change {
  readonly watched: WatchedObject
  /** Disabled or deleted. */
  over: Hit | undefined
  /** A time up to which everything is void. */
  time: Hit | undefined
  /** The same query says that the user is enabled: in which order is not known. */
  isEnabled: boolean
}

/**
 * Makes the rounds of one tenant's watcher. They need no memory of what was done: an order spares what was issued later, what has no
 * session left is not watched, and so the same said twice is done once. What is remembered is what an old word could undo.
 */
export function createRound({
  name,
  directory,
  tenant: { tenantId, issuer },
  client,
  store,
  receive,
  holder,
  isHeld,
  clockToleranceSeconds,
  now
}: RoundOptions): Round {
  const { revokeOn, pollSeconds, sweepSeconds, dryRun } = directory
  const breaker = createBreaker({ store, directory, tenantId, holder })
  // What is wanted now may lie in what a link of other settings has already shown.
  const settings = JSON.stringify([directory.graphUrl, client.properties, [...revokeOn].sort(), dryRun])

  const judgeOptions = (at: number): JudgeOptions => ({
    revokeOn,
    latest: Math.ceil(at / 1_000) + clockToleranceSeconds
  })

  // ---- The delta query

  async function queryChanges({ state, isSweepDue }: Claim, signal: AbortSignal): Promise<DeltaEnd & Settled> {
    const begunAt = now()
    const round = randomUUID()
    const again = newlyGathered()
    const gathered = newlyGathered()
    let before = { ...nothingSettled, isTripped: state.breaker !== undefined }
    const isSame = state.settings === settings
    const common = { kind: 'delta', settings, nextSeconds: Math.min(pollSeconds, sweepSeconds) } as const
    try {
      // Settled by itself: what two looks have shown does not wait for a delta query that fails.
      await lookAgain(again, signal)
      before = await settle(round, 'delta', again, { before }, signal)
      const followed = isSame && state.deltaLink ? await followPages(state.deltaLink, gathered, signal) : undefined
      // Before the sweep, which looks for what it does not show: a change between the two is seen twice, and not never. A directory
      // without delta queries is asked again at each sweep.
      const isToStart = followed === undefined && (!isSame || isSweepDue || state.deltaLink !== undefined)
      const link = isToStart ? await client.startDelta(signal) : followed
      const { done, held, isTripped, acted } = await settle(round, 'delta', gathered, { before }, signal)
      return {
        ...common,
        link,
        forcesSweep: isToStart && (link !== undefined || !isSame),
        failure: undefined,
        summary: summaryOf('delta', begunAt, joined(again, gathered), { done, held }),
        isTripped,
        acted
      }
    } catch (error) {
      const failure = failureOf(error)
      return {
        ...common,
        link: undefined,
        forcesSweep: false,
        failure,
        nextSeconds: backOffSeconds(error, state.deltaFailure, pollSeconds),
        summary: summaryOf('delta', begunAt, joined(again, gathered), { ...before, failure: failure.code }),
        isTripped: before.isTripped,
        acted: before.acted
      }
    }
  }

  /** @returns where to go on from; undefined if the way there is lost */
  async function followPages(from: string, gathered: Gathered, signal: AbortSignal): Promise<string | undefined> {
    const changes = new Map<string, Change>()
    let next: string | undefined = from
    let link: string | undefined
    const seen = new Set<string>()
    const until = now() + sweepSeconds * 1_000 // the sweep waits for it
    for (let pages = 1; next !== undefined; pages++) {
      const seenAt = now()
      const place: string = next
      const page: DeltaPage | undefined = await client.readDelta(place, signal)
      if (page === undefined) {
        break
      }
      seen.add(place)
      if ((page.next !== undefined && seen.has(page.next)) || pages > maxPages || now() > until) {
        throw new DirectoryError('ERR_DIRECTORY_ANSWER', { detail: 'a delta query without an end' })
      }
      await gatherChanges(page.items, seenAt, changes, gathered.strangers)
      next = page.next // an empty page is no end
      link = page.link
    }
    await judgeChanges(changes, gathered, signal)
    return link
  }

  async function gatherChanges(
    items: readonly DeltaItem[],
    seenAt: number,
    changes: Map<string, Change>,
    strangers: Gathered['strangers']
  ): Promise<void> {
    if (items.length === 0) {
      return
    }
    const inCache = await store.findWatched(tenantId, [...new Set(items.map(({ id }) => id))])
    for (const { id, removed, user } of items) {
      const sighting =
        removed === undefined
          ? judgeUser(user, judgeOptions(seenAt))
          : judgeMissing(`removed from the directory (${removed})`, { revokeOn })
      const watched = inCache.get(id)
      if (watched === undefined) {
        addStranger(strangers, id, sighting, seenAt)
        continue
      }
      const change = changes.get(id) ?? { watched, over: undefined, time: undefined, isEnabled: false }
      changes.set(id, change)
      change.isEnabled ||= removed === undefined && user.accountEnabled === true
      if (sighting !== undefined && isOver(sighting)) {
        change.over ??= { ...sighting, watched, seenAt }
      } else if (sighting !== undefined && sighting.revokeBefore > (change.time?.revokeBefore ?? 0)) {
        change.time = { ...sighting, watched, seenAt }
      }
    }
  }

  /** It comes in any order, more than once, and what is old may come again: what is not sure is looked at. */
  async function judgeChanges(
    changes: ReadonlyMap<string, Change>,
    gathered: Gathered,
    signal: AbortSignal
  ): Promise<void> {
    const overs = [...changes].filter(([, { over }]) => over !== undefined).map(([id]) => id)
    const known = overs.length === 0 ? new Map() : await store.findFindings(tenantId, overs)
    const unsure: Hit[] = []
    for (const [id, { over, time, isEnabled }] of changes) {
      if (over !== undefined && (isEnabled || known.get(id)?.status === 'done')) {
        unsure.push(over)
      } else {
        addHit(gathered, over ?? time)
      }
    }
    gathered.looked += changes.size
    for (const chunk of chunksOf(unsure, maxUsersPerBatch)) {
      const seenAt = now()
      const looks = await client.readUsers(
        chunk.map(({ watched }) => watched.objectId),
        signal
      )
      for (const hit of chunk) {
        const look = looks.get(hit.watched.objectId)
        const sighting = sightingOf(look, seenAt)
        if (look?.outcome === 'missing' || (sighting !== undefined && isOver(sighting))) {
          addHit(gathered, hit)
          continue
        }
        addHit(gathered, sighting && { ...sighting, watched: hit.watched, seenAt })
        gathered.doubted.push(toDoubt(hit)) // the look may have come too early
      }
    }
  }

  /** What one look was not enough for; and what an operator has released, of which the directory may say something else by now. */
  async function lookAgain(gathered: Gathered, signal: AbortSignal): Promise<void> {
    const over: string[] = []
    for (let after = ''; ; ) {
      const findings = await store.listFindings(tenantId, ['doubted', 'released'], after, findingsPerPage)
      for (const chunk of chunksOf(findings, maxUsersPerBatch)) {
        const ids = chunk.map(({ objectId }) => objectId)
        const inCache = await store.findWatched(tenantId, ids)
        const seenAt = now()
        const looks = await client.readUsers(ids, signal)
        for (const id of ids) {
          const look = looks.get(id)
          if (look?.outcome !== 'found' && look?.outcome !== 'missing') {
            continue // later, once more
          }
          const sighting =
            look.outcome === 'missing'
              ? judgeMissing('not found, twice', { revokeOn })
              : judgeUser(look.user, judgeOptions(seenAt))
          const watched = inCache.get(id)
          if (watched === undefined) {
            addStranger(gathered.strangers, id, sighting, seenAt)
          }
          if (watched === undefined || !addHit(gathered, sighting && { ...sighting, watched, seenAt })) {
            over.push(id)
          }
        }
        gathered.looked += ids.length
      }
      const last = findings.at(-1)
      if (last === undefined || findings.length < findingsPerPage) {
        break
      }
      after = last.objectId
    }
    for (const chunk of chunksOf(over, findingsPerPage)) {
      await store.dropFindings(tenantId, chunk)
    }
  }

  // ---- The sweep

  async function sweep({ state }: Claim, before: Settled, signal: AbortSignal): Promise<SweepEnd> {
    const begunAt = now()
    const round = randomUUID()
    const gathered = newlyGathered()
    const common = { kind: 'sweep', round } as const
    try {
      const { missing, unanswered, unreadable } = await lookAtAll(gathered, signal)
      await doubt(missing, gathered)
      const watched = gathered.looked
      const { done, held } = await settle(
        round,
        'sweep',
        gathered,
        { looked: watched, before: { ...nothingSettled, ...before } },
        signal
      )
      await keepUnreadable(round, unreadable)
      if (unanswered > 0) {
        // What was seen is done. What was not may need it, too.
        throw new DirectoryError('ERR_DIRECTORY_INCOMPLETE', { detail: `${unanswered} of ${watched}` })
      }
      return {
        ...common,
        watched,
        unwatched: (await store.countUnwatched(tenantId, issuer)) + unreadable.length,
        nextSeconds: sweepSeconds,
        failure: undefined,
        summary: summaryOf('sweep', begunAt, gathered, { done, held })
      }
    } catch (error) {
      const failure = failureOf(error)
      return {
        ...common,
        watched: 0,
        unwatched: 0,
        failure,
        nextSeconds: backOffSeconds(error, state.sweepFailure, Math.min(pollSeconds, sweepSeconds)),
        summary: summaryOf('sweep', begunAt, gathered, { failure: failure.code })
      }
    }
  }

  interface Missing {
    readonly watched: WatchedObject
    readonly seenAt: number
  }

  async function lookAtAll(gathered: Gathered, signal: AbortSignal) {
    const missing: Missing[] = []
    const unreadable: string[] = []
    let unanswered = 0
    for (let after = ''; ; ) {
      const page = await store.listWatched(tenantId, after, watchedPerPage)
      for (const chunk of chunksOf(page, maxUsersPerBatch)) {
        const seenAt = now()
        const looks = await client.readUsers(
          chunk.map(({ objectId }) => objectId),
          signal
        )
        for (const watched of chunk) {
          const look = looks.get(watched.objectId)
          if (look?.outcome === 'missing') {
            missing.push({ watched, seenAt })
          }
          if (look?.outcome === 'unreadable') {
            unreadable.push(watched.objectId)
          }
          unanswered += look?.outcome === 'unanswered' ? 1 : 0
          const sighting = sightingOf(look, seenAt)
          addHit(gathered, sighting && { ...sighting, watched, seenAt })
        }
        gathered.looked += chunk.length
      }
      const last = page.at(-1)
      if (last === undefined || page.length < watchedPerPage) {
        return { missing, unanswered, unreadable }
      }
      after = last.objectId
    }
  }

  /** A look that was declined says nothing: what is known of these users, and what was decided about them, stands. */
  async function keepUnreadable(round: string, objectIds: readonly string[]): Promise<void> {
    for (const chunk of chunksOf(objectIds, findingsPerPage)) {
      await store.keepFindings(tenantId, round, [...(await store.findFindings(tenantId, chunk)).values()])
    }
  }

  /** One look proves no deletion: a user may not be everywhere yet, and at a wrong address nobody is. What was decided is not doubted anew. */
  async function doubt(missing: readonly Missing[], gathered: Gathered): Promise<void> {
    const decided: readonly FindingStatus[] = ['held', 'released', 'dropped', 'dry_run']
    for (const chunk of chunksOf(missing, findingsPerPage)) {
      const known = await store.findFindings(
        tenantId,
        chunk.map(({ watched }) => watched.objectId)
      )
      for (const { watched, seenAt } of chunk) {
        const sighting = judgeMissing('not found, twice', { revokeOn })
        const finding = known.get(watched.objectId)
        if (sighting === undefined) {
          continue
        }
        if (finding?.event === 'deleted' && decided.includes(finding.status)) {
          addHit(gathered, { ...sighting, watched, seenAt })
        } else {
          gathered.doubted.push(toDoubt({ ...sighting, watched, seenAt }))
        }
      }
    }
  }

  // ---- What is done

  async function settle(
    round: string,
    kind: 'delta' | 'sweep',
    { hits, strangers, doubted }: Gathered,
    { looked, before }: { readonly looked?: number; readonly before: SettledHalf },
    signal: AbortSignal
  ): Promise<SettledHalf> {
    const { acting, counted, isTripped, held } = await breaker.sort(round, kind, [...hits.values()], {
      looked,
      isOpen: before.isTripped,
      acted: before.acted
    })
    await act(acting, 'home', signal)
    await act(acting, 'guest', signal) // what is found by both is gone by then, and leaves one record
    if (!isTripped && !dryRun) {
      const people = [...strangers].map(([objectId, sighting]) => ({
        ...sighting,
        watched: { objectId, oldest: 0, isHome: true, isGuest: true }
      }))
      await act(people, 'home', signal)
      await act(people, 'guest', signal)
    }
    await breaker.remember(round, acting)
    await store.keepFindings(tenantId, round, doubted)
    const done: Partial<Record<DirectoryEvent, number>> = { ...before.done }
    for (const { event } of acting) {
      done[event] = (done[event] ?? 0) + 1
    }
    return {
      done,
      held: before.held + held,
      isTripped: isTripped || before.isTripped,
      acted: before.acted + counted
    }
  }

  /** Resolves once all is committed. */
  async function act(hits: readonly Hit[], whose: DirectoryFinding['whose'], signal: AbortSignal): Promise<void> {
    const concerned = hits.filter(({ watched }) => (whose === 'home' ? watched.isHome : watched.isGuest))
    for (const chunk of chunksOf(concerned, actingAtOnce)) {
      if (signal.aborted) {
        throw new DirectoryError('ERR_DIRECTORY_UNCOMMITTED', { detail: 'interrupted' }) // other settings hold by now
      }
      if (!isHeld()) {
        throw new DirectoryError('ERR_DIRECTORY_LEASE')
      }
      const outcomes = await Promise.all(
        chunk.map((hit) => receive(directorySignal, findingOf(hit, whose), { receivedAt: now() }))
      )
      if (!outcomes.every((outcome) => 'results' in outcome)) {
        // What was deferred is done later; what was not is seen again, since this round does not count.
        throw new DirectoryError('ERR_DIRECTORY_UNCOMMITTED')
      }
    }
  }

  function findingOf(hit: Hit, whose: DirectoryFinding['whose']): DirectoryFinding {
    const { event, revokeBefore, detail, seenAt, watched } = hit
    return {
      issuerName: name,
      tenantId,
      objectId: watched.objectId,
      event,
      revokeBefore: isOver(hit) ? Math.floor(seenAt / 1_000) : revokeBefore,
      detail,
      seenAt,
      whose
    }
  }

  function sightingOf(look: Look | undefined, seenAt: number): Sighting | undefined {
    return look?.outcome === 'found' ? judgeUser(look.user, judgeOptions(seenAt)) : undefined
  }

  function addStranger(
    strangers: Gathered['strangers'],
    id: string,
    sighting: Sighting | undefined,
    seenAt: number
  ): void {
    const isRecent =
      sighting !== undefined &&
      (isOver(sighting) || sighting.revokeBefore >= Math.floor(seenAt / 1_000) - loginTakesSeconds)
    if (isRecent && strangers.size < maxStrangers) {
      strangers.set(id, { ...sighting, seenAt })
    }
  }

  function summaryOf(
    kind: 'delta' | 'sweep',
    begunAt: number,
    { looked, doubted }: Gathered,
    end: Partial<Pick<RoundSummary, 'done' | 'held' | 'failure'>>
  ): RoundSummary | undefined {
    const { done = {}, held = 0, failure = null } = end
    const isQuiet = kind === 'delta' && looked === 0 && failure === null
    return isQuiet
      ? undefined
      : {
          kind,
          at: new Date(begunAt).toISOString(),
          seconds: Math.round((now() - begunAt) / 100) / 10,
          looked,
          done,
          held,
          doubted: doubted.length,
          failure
        }
  }

  return { queryChanges, sweep }
}

interface SettledHalf extends Settled {
  readonly done: Partial<Record<DirectoryEvent, number>>
  readonly held: number
}

const nothingSettled: SettledHalf = { done: {}, held: 0, isTripped: false, acted: 0 }

/** For a summary: what two looks of one half have seen. */
function joined(a: Gathered, b: Gathered): Gathered {
  return { ...b, looked: a.looked + b.looked, doubted: [...a.doubted, ...b.doubted] }
}

function newlyGathered(): Gathered {
  return { hits: new Map(), doubted: [], strangers: new Map(), looked: 0 }
}

/** False if there is nothing to end: nothing that is void by then is in the cache. */
function addHit({ hits }: Gathered, hit: Hit | undefined): boolean {
  if (hit === undefined || !(isOver(hit) || hit.watched.oldest <= hit.revokeBefore)) {
    return false
  }
  hits.set(hit.watched.objectId, hit)
  return true
}

function toDoubt({ watched: { objectId }, event, revokeBefore, detail, seenAt }: Hit): StoredFinding {
  return { objectId, event, revokeBefore, detail, seenAt, status: 'doubted' }
}

function failureOf(error: unknown): { code: string; detail: string | undefined } {
  if (error instanceof DirectoryError && error.code !== 'ERR_DIRECTORY_LEASE') {
    return { code: error.code, detail: error.detail }
  }
  throw error
}

/** Longer after each failure in a row, and as long as the directory asks for. */
function backOffSeconds(error: unknown, before: DirectoryFailure | undefined, firstSeconds: number): number {
  const retryAfterMs = error instanceof DirectoryError ? (error.retryAfterMs ?? 0) : 0
  const doubled = firstSeconds * 2 ** Math.min(before?.count ?? 0, 10)
  return Math.max(
    Math.min(retryAfterMs / 1_000, maxRetryAfterSeconds),
    Math.min(doubled, Math.max(maxBackOffSeconds, firstSeconds))
  )
}

function chunksOf<T>(items: readonly T[], size: number): T[][] {
  return Array.from({ length: Math.ceil(items.length / size) }, (_, i) => items.slice(i * size, (i + 1) * size))
}

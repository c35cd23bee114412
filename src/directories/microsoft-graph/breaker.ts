import type { DirectoryConfig } from '../../directory-config.ts'
import type { DirectoryStore, FindingStatus, StoredFinding, WatchedObject } from '../../directory-store.ts'
import { DirectoryError } from '../../errors.ts'
import { isOver, type Sighting } from './sighting.ts'

/** A user in the cache whose sessions are to end. */
export interface Hit extends Sighting {
  readonly watched: WatchedObject
  /** When it was seen, milliseconds since 1970. */
  readonly seenAt: number
}

export interface Sorted {
  /** To be acted upon now. */
  readonly acting: readonly Hit[]
  /** How many of these an operator has not released: the breaker counts them. */
  readonly counted: number
  /** Whether the breaker holds the whole round. */
  readonly isTripped: boolean
  /** How many are held, by the breaker or by a dry run. */
  readonly held: number
}

export interface BreakerOptions {
  readonly store: Pick<DirectoryStore, 'findFindings' | 'keepFindings' | 'dropFindings' | 'hold' | 'listWatched'>
  readonly directory: Pick<DirectoryConfig, 'dryRun' | 'maxAccounts' | 'maxPercent'>
  readonly tenantId: string
  /** Whose lease it is: an instance that lost it holds nothing. */
  readonly holder: string
}

// Below it a share says little: of three accounts two may well have left on one day.
const minForShare = 10
const idsPerStatement = 1_000

/**
 * Stands between what a round has seen and what is done: a mistaken mass change, or a fault of the directory, must not sign
 * everybody out. What it holds, and what an operator made of it, is in the database: a restart and another instance keep it.
 */
export function createBreaker({ store, directory, tenantId, holder }: BreakerOptions) {
  const { dryRun, maxAccounts, maxPercent } = directory

  /** How many are watched, if those that are found are too many; else undefined. */
  async function watchedOfTooMany(
    found: number,
    acted: number,
    looked: number | undefined
  ): Promise<number | undefined> {
    if (found > maxAccounts) {
      return acted + (looked ?? (await countWatched(Number.POSITIVE_INFINITY)))
    }
    if (found < minForShare) {
      return undefined
    }
    const enough = Math.ceil((found * 100) / maxPercent) - acted
    const watched = acted + (looked ?? (await countWatched(enough)))
    return found * 100 > watched * maxPercent ? watched : undefined
  }

  /** As of now, and no further than to `enough`: since the last sweep any number may have signed in, or out. */
  async function countWatched(enough: number): Promise<number> {
    let count = 0
    for (let after = ''; count < enough; ) {
      const page = await store.listWatched(tenantId, after, idsPerStatement)
      count += page.length
      const last = page.at(-1)
      if (last === undefined || page.length < idsPerStatement) {
        break
      }
      after = last.objectId
    }
    return count
  }

  async function known(hits: readonly Hit[]): Promise<Map<string, StoredFinding>> {
    const ids = hits.map(({ watched }) => watched.objectId)
    const all = new Map<string, StoredFinding>()
    for (let i = 0; i < ids.length; i += idsPerStatement) {
      for (const [id, finding] of await store.findFindings(tenantId, ids.slice(i, i + idsPerStatement))) {
        all.set(id, finding)
      }
    }
    return all
  }

  return {
    /**
     * Sorts what a round has seen, and remembers what is not to be done.
     *
     * @param round its id
     * @param kind which half of it
     * @param looked how many objects in the cache it has looked at; undefined: at those alone that have changed
     * @param isOpen whether the breaker is open already
     * @param acted upon how many the round has acted before: they are no longer in the cache
     * @throws {DirectoryError} if an operator decides at this moment, or the lease is lost: the next round sees it all again
     */
    async sort(
      round: string,
      kind: 'delta' | 'sweep',
      hits: readonly Hit[],
      {
        looked,
        isOpen,
        acted
      }: { readonly looked?: number | undefined; readonly isOpen: boolean; readonly acted: number }
    ): Promise<Sorted> {
      const findings = await known(hits)
      const fresh: Hit[] = []
      const released: Hit[] = []
      const still: StoredFinding[] = [] // as it was: held, or dropped
      for (const hit of hits) {
        const finding = findings.get(hit.watched.objectId)
        if (finding?.status === 'released') {
          released.push(hit)
        } else if (finding !== undefined && isDecided(finding, hit, isOpen)) {
          still.push(finding)
        } else {
          fresh.push(hit)
        }
      }
      if (dryRun) {
        await store.keepFindings(tenantId, round, toFindings([...fresh, ...released], 'dry_run'))
        return { acting: [], counted: 0, isTripped: false, held: fresh.length + released.length }
      }
      const watched = fresh.length > 0 ? await watchedOfTooMany(acted + fresh.length, acted, looked) : undefined
      const isTripped = watched !== undefined
      if (isTripped) {
        const breaker = { kind, found: fresh.length, watched }
        if (!(await store.hold(tenantId, holder, round, breaker, toFindings(fresh, 'held')))) {
          throw new DirectoryError('ERR_DIRECTORY_UNCOMMITTED', { detail: 'an operator has just decided' })
        }
      }
      await store.keepFindings(tenantId, round, still)
      const held = still.filter(({ status }) => status === 'held').length + (isTripped ? fresh.length : 0)
      return {
        acting: isTripped ? released : [...fresh, ...released],
        counted: isTripped ? 0 : fresh.length,
        isTripped,
        held
      }
    },

    /** Remembers what was acted upon: the same said later may be an old word of it. */
    async remember(round: string, acted: readonly Hit[]): Promise<void> {
      const over = acted.filter(isOver)
      await store.keepFindings(tenantId, round, toFindings(over, 'done'))
      const others = acted.filter((hit) => !isOver(hit)).map(({ watched }) => watched.objectId)
      for (let i = 0; i < others.length; i += idsPerStatement) {
        await store.dropFindings(tenantId, others.slice(i, i + idsPerStatement))
      }
    }
  }
}

/** What is held stays so until the breaker is closed; what was dropped, until the directory says something else. */
function isDecided(finding: StoredFinding, hit: Hit, isOpen: boolean): boolean {
  return (
    (finding.status === 'held' && isOpen) ||
    (finding.status === 'dropped' && finding.event === hit.event && finding.revokeBefore === hit.revokeBefore)
  )
}

function toFindings(hits: readonly Hit[], status: FindingStatus): StoredFinding[] {
  return hits.map(({ watched: { objectId }, event, revokeBefore, detail, seenAt }) => ({
    objectId,
    event,
    revokeBefore,
    detail,
    status,
    seenAt
  }))
}

import { createHash, randomUUID } from 'node:crypto'
import type { FastifyBaseLogger } from 'fastify'
import type { SignOut } from './sign-out.ts'
import { keyedPurgeId, type Logout, type Purged, type Store } from './store.ts'

/** What an operator's purge is about. */
export type PurgeSelector =
  | { readonly homeAccountId: string; readonly issuer?: string | undefined }
  | { readonly issuer: string; readonly sid: string }
  | { readonly issuer: string; readonly subject: string }
  | { readonly clientId: string }
  | { readonly tenantId: string }

export interface PurgeOrder {
  readonly selector: PurgeSelector
  readonly reason: string
  readonly actor: string
  readonly dryRun: boolean
  /** More than {@link maxAccountsUnforced} accounts are meant. */
  readonly force: boolean
  /** The same key with the same request again gives the first answer. */
  readonly idempotencyKey: string | undefined
}

export type PurgeResult =
  | { readonly outcome: 'done'; readonly purged: Purged }
  | { readonly outcome: 'running'; readonly purged: Purged; readonly total: number }
  | { readonly outcome: 'too_many'; readonly accounts: number }
  | { readonly outcome: 'ambiguous' }
  | { readonly outcome: 'mismatch' }

export interface Purges {
  /** Carries out a purge; a large one goes on in the background after the answer. */
  order(order: PurgeOrder): Promise<PurgeResult>
  /** Takes up the purges that are still running, this process's own and what another one left; throws the first failure when all had their turn. */
  resume(): Promise<void>
}

export const maxAccountsUnforced = 1_000
const maxAccountsAwaited = 10_000
const rowsPerStep = 2_000 // some 50 ms; half as many take the same time in all, and hold sign-outs up no less

export interface PurgesOptions {
  readonly store: Pick<Store, 'findPurge' | 'previewSignOut' | 'startPurge' | 'purgeStep' | 'runningPurges'>
  readonly signOut: SignOut
  readonly logger: FastifyBaseLogger
  /** Told of each purge that is done, by whoever does its end; dry runs are none. */
  readonly onPurged?: (purged: Purged) => void
  /** Milliseconds since 1970; default `Date.now`. */
  readonly now?: () => number
}

/** Makes the operators' purges: sessions through the same sign-out as logout tokens, accounts in steps. */
export function createPurges({ store, signOut, logger, onPurged, now = Date.now }: PurgesOptions): Purges {
  async function order(order: PurgeOrder): Promise<PurgeResult> {
    const requestHash = createHash('sha256')
      .update(JSON.stringify([order.selector, order.reason, order.force]))
      .digest()
    // A dry run leaves nothing that a key could stand for, and must not tell of what was purged under it.
    const key = order.dryRun ? undefined : order.idempotencyKey
    const id = key === undefined ? randomUUID() : keyedPurgeId(order.actor, key)
    if (key !== undefined) {
      const known = await recorded(id, requestHash)
      if (known !== undefined) {
        return known
      }
    }
    const { selector } = order
    return 'sid' in selector || 'subject' in selector
      ? endSessions(id, order, selector, requestHash)
      : purgeAccounts(id, order, selector, requestHash)
  }

  async function endSessions(
    id: string,
    { reason, actor, dryRun, force }: PurgeOrder,
    selector: { issuer: string; sid?: string; subject?: string },
    requestHash: Buffer
  ): Promise<PurgeResult> {
    const logout: Logout = {
      id,
      source: 'admin',
      issuer: selector.issuer,
      sid: selector.sid,
      subject: selector.subject,
      notAfter: Math.floor(now() / 1_000),
      wholeSubject: selector.subject !== undefined,
      purgeScope: 'account',
      reason,
      actor,
      requestHash
    }
    // A provider whose sids or subjects stand for nobody in particular would take everybody along.
    if (dryRun || !force) {
      const preview = await store.previewSignOut(logout)
      if (!dryRun && preview.accounts > maxAccountsUnforced) {
        return { outcome: 'too_many', accounts: preview.accounts }
      }
      if (dryRun) {
        return { outcome: 'done', purged: preview }
      }
    }
    const purged = await signOut(logout)
    if (purged.replayed) {
      return known(id, requestHash)
    }
    onPurged?.(purged)
    return { outcome: 'done', purged }
  }

  async function purgeAccounts(
    id: string,
    { reason, actor, dryRun, force }: PurgeOrder,
    selector: { homeAccountId?: string; issuer?: string | undefined; clientId?: string; tenantId?: string },
    requestHash: Buffer
  ): Promise<PurgeResult> {
    const maxAccounts = force ? Number.MAX_SAFE_INTEGER : maxAccountsUnforced
    const started = await store.startPurge({ id, ...selector, reason, actor, dryRun, maxAccounts, requestHash })
    switch (started.outcome) {
      case 'dry_run':
        return { outcome: 'done', purged: started }
      case 'too_many':
        return { outcome: 'too_many', accounts: started.accounts }
      case 'ambiguous':
        return { outcome: 'ambiguous' }
      case 'replayed':
        return known(id, requestHash)
      case 'running':
        if (started.accounts > maxAccountsAwaited) {
          finish(id).catch((error: unknown) => logger.error({ err: error, purge: id }, 'purge interrupted'))
          return { outcome: 'running', purged: { ...started, accounts: 0 }, total: started.accounts }
        }
        await finish(id)
        return known(id, requestHash)
    }
  }

  /** Each step is a transaction of its own, so that sign-outs get their turns in between. */
  async function finish(id: string): Promise<void> {
    let more: boolean | null = true
    while (more) {
      more = await store.purgeStep(id, rowsPerStep)
    }
    if (more === false) {
      const record = await store.findPurge(id)
      if (record !== undefined) {
        const { accounts, sessions, rows } = record
        logger.info({ purge: id, accounts, sessions, rows }, 'purged')
        onPurged?.(record)
      }
    } // else somebody else is at it, and finishes it; or has done so, and counted it
  }

  async function recorded(id: string, requestHash: Buffer): Promise<PurgeResult | undefined> {
    const record = await store.findPurge(id)
    if (record === undefined) {
      return undefined
    }
    if (record.requestHash === null || !record.requestHash.equals(requestHash)) {
      return { outcome: 'mismatch' }
    }
    return record.status === 'running'
      ? { outcome: 'running', purged: record, total: record.total }
      : { outcome: 'done', purged: record }
  }

  async function known(id: string, requestHash: Buffer): Promise<PurgeResult> {
    const result = await recorded(id, requestHash)
    if (result === undefined) {
      throw new Error(`purge "${id}" has no record`)
    }
    return result
  }

  return {
    order,
    async resume() {
      const ends: PromiseSettledResult<void>[] = []
      for (const id of await store.runningPurges()) {
        ends.push(...(await Promise.allSettled([finish(id)]))) // one that cannot go on must not hold up the others
      }
      const failed = ends.find((end) => end.status === 'rejected')
      if (failed !== undefined) {
        throw failed.reason
      }
    }
  }
}

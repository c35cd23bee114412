import { createHash, randomUUID } from 'node:crypto'
import type { Outcome } from '../receive.ts'
import { type Deleted, type Order, orderId, type Selector } from '../sign-out.ts'
import type { Steps } from '../steps.ts'
import type { Store, StoredRecord } from '../store.ts'
import type { Sweeps } from '../sweep.ts'
import { rememberSeconds } from './signal.ts'

/** What an operator's purge is about. */
export type PurgeSelector =
  | { readonly homeAccountId: string; readonly issuer?: string | undefined }
  | { readonly issuer: string; readonly sid: string }
  | { readonly issuer: string; readonly subject: string }
  | { readonly tenantId: string; readonly objectId: string }
  | { readonly clientId: string }
  | { readonly tenantId: string }

export interface PurgeRequest {
  readonly selector: PurgeSelector
  readonly reason: string
  /** The operator. */
  readonly actor: string
  /** Counts what would go, and changes nothing. */
  readonly dryRun: boolean
  /** More accounts than {@link PurgesOptions.maxAccountsUnforced} are meant. */
  readonly force: boolean
  /** What was issued up to then goes, seconds since 1970; default now. By sid or account without it, later ones go too. Not for apps and tenants. */
  readonly issuedBefore?: number | undefined
  /** The same key with the same request again gives the first answer. */
  readonly idempotencyKey: string | undefined
}

export type PurgeResult =
  | { readonly outcome: 'done'; readonly id: string; readonly deleted: Deleted }
  /** It goes on by itself, also after the end of this process. */
  | { readonly outcome: 'running'; readonly id: string; readonly deleted: Deleted; readonly total: number }
  /** More accounts than `limit`, and no `force`. */
  | { readonly outcome: 'too_many'; readonly accounts: number; readonly limit: number }
  /** Accounts of several issuers bear the id. */
  | { readonly outcome: 'ambiguous' }
  /** The Idempotency-Key stands for another request. */
  | { readonly outcome: 'mismatch' }

/** @throws {UnavailableError} if it could not begin: it is not deferred, since the operator waits for the answer */
export type Purge = (request: PurgeRequest) => Promise<PurgeResult>

export interface PurgesOptions {
  readonly store: Pick<Store, 'findRecord' | 'previewOrder' | 'issuersOfAccount'>
  readonly steps: Pick<Steps, 'start'>
  readonly sweeps: Pick<Sweeps, 'start'>
  readonly observe: (outcome: Outcome) => void
  /** The most accounts that a purge ends without `force`; default 1,000. */
  readonly maxAccountsUnforced?: number
  /** Milliseconds since 1970; default `Date.now`. */
  readonly now?: () => number
}

/** The `source` of operators' purges. */
export const operatorSource = 'operator'
export const maxAccountsUnforced = 1_000

/** Makes the operators' purge: a sign-out like any other, but for whole apps and tenants, which are swept. */
export function createPurge({
  store,
  steps,
  sweeps,
  observe,
  maxAccountsUnforced: unforced = maxAccountsUnforced,
  now = Date.now
}: PurgesOptions): Purge {
  return async (request) => {
    const requestHash = hashOf(request)
    // A dry run leaves nothing that a key could stand for, and must not show what was purged under it.
    const key = request.dryRun ? undefined : request.idempotencyKey
    const id = key === undefined ? randomUUID() : orderId('idempotency-key', request.actor, key)
    const known = key === undefined ? undefined : await store.findRecord(id)
    if (known !== undefined) {
      return resultOf(known, requestHash)
    }
    const { selector } = request
    if ('clientId' in selector || ('tenantId' in selector && !('objectId' in selector))) {
      return sweep(id, request, selector, requestHash)
    }
    const resolved = await resolve(selector)
    return resolved === undefined ? { outcome: 'ambiguous' } : end(orderOf(id, request, resolved, requestHash), request)
  }

  /** Undefined if accounts of several issuers bear the id. */
  async function resolve(
    selector: Exclude<PurgeSelector, { clientId: string } | TenantAlone>
  ): Promise<Selector | undefined> {
    if (!('homeAccountId' in selector)) {
      return selectorOf(selector)
    }
    const { homeAccountId, issuer } = selector
    if (issuer !== undefined) {
      return { kind: 'account', homeAccountId, issuer }
    }
    const stored = await store.issuersOfAccount(homeAccountId)
    return stored.length > 1 ? undefined : { kind: 'account', homeAccountId, issuer: stored[0] }
  }

  async function end(order: Order, { dryRun, force }: PurgeRequest): Promise<PurgeResult> {
    const { id, requestHash = '' } = order
    // A provider whose sids or subjects stand for nobody in particular would take everybody along.
    if (dryRun || (!force && order.selector.kind !== 'account')) {
      const preview = await store.previewOrder(order)
      if (dryRun) {
        return { outcome: 'done', id, deleted: preview }
      }
      if (preview.accounts > unforced) {
        return { outcome: 'too_many', accounts: preview.accounts, limit: unforced }
      }
    }
    await steps.start(order)
    return resultOf(await recorded(id), requestHash)
  }

  async function sweep(
    id: string,
    { reason, actor, dryRun, force }: PurgeRequest,
    selector: { clientId?: string; tenantId?: string },
    requestHash: string
  ): Promise<PurgeResult> {
    const maxAccounts = force ? Number.MAX_SAFE_INTEGER : unforced
    const result = await sweeps.start({
      id,
      source: operatorSource,
      ...selector,
      reason,
      actor,
      dryRun,
      maxAccounts,
      requestHash
    })
    switch (result.outcome) {
      case 'dry_run':
        return { outcome: 'done', id, deleted: result.counted }
      case 'too_many':
        return { ...result, limit: unforced }
      case 'begun':
        // That it came; what it deletes is counted when it is over.
        observe({
          source: operatorSource,
          issuer: undefined,
          sender: undefined,
          isRetry: false,
          tookMs: 0,
          outcome: 'done',
          results: []
        })
        return resultOf(await recorded(id), requestHash)
      case 'duplicate':
        return resultOf(await recorded(id), requestHash)
    }
  }

  async function recorded(id: string): Promise<StoredRecord> {
    const record = await store.findRecord(id)
    if (record === undefined) {
      throw new Error(`purge "${id}" has no record`)
    }
    return record
  }

  function orderOf(
    id: string,
    { reason, actor, issuedBefore }: PurgeRequest,
    selector: Selector,
    requestHash: string
  ): Order {
    return {
      id,
      source: operatorSource,
      selector,
      revokeBefore: issuedBefore ?? Math.floor(now() / 1_000),
      purgeScope: issuedBefore === undefined ? 'account' : 'session',
      sparesNewer: issuedBefore !== undefined,
      isSigned: true,
      isOnce: true,
      recordUnmatched: true,
      rememberSeconds,
      reason,
      actor,
      requestHash
    }
  }
}

type TenantAlone = { readonly tenantId: string; readonly objectId?: never }

function selectorOf(
  selector:
    | { issuer: string; sid: string }
    | { issuer: string; subject: string }
    | { tenantId: string; objectId: string }
): Selector {
  if ('sid' in selector) {
    return { kind: 'session', issuer: selector.issuer, sid: selector.sid }
  }
  return 'subject' in selector
    ? { kind: 'subject', issuer: selector.issuer, subject: selector.subject }
    : { kind: 'object', tenantId: selector.tenantId, objectId: selector.objectId }
}

function resultOf(record: StoredRecord, requestHash: string): PurgeResult {
  if (record.requestHash !== requestHash) {
    return { outcome: 'mismatch' }
  }
  return record.status === 'running'
    ? { outcome: 'running', id: record.id, deleted: record, total: record.total }
    : { outcome: 'done', id: record.id, deleted: record }
}

function hashOf({ selector, reason, force, issuedBefore }: PurgeRequest): string {
  return createHash('sha256')
    .update(JSON.stringify([selector, reason, force, issuedBefore]))
    .digest('hex')
}

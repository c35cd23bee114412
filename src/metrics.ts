import { Counter, collectDefaultMetrics, Gauge, Histogram, Registry } from 'prom-client'
import type { Issuers } from './issuers.ts'
import type { LogoutOutcome } from './logout-request.ts'
import type { Spool } from './spool.ts'
import type { Logout, Purged } from './store.ts'

/** What is read when the metrics are asked for. */
export interface MetricsSources {
  readonly issuers: Pick<Issuers, 'status'>
  readonly spool: Pick<Spool, 'status'>
  /** By name: connections to the database, of `pg`. */
  readonly pools: Readonly<Record<string, ConnectionCounts>>
  /** Milliseconds since 1970; default `Date.now`. */
  readonly now?: () => number
}

export interface ConnectionCounts {
  readonly totalCount: number
  readonly idleCount: number
  readonly waitingCount: number
}

export interface Metrics {
  /** A request came to its end. */
  ended(outcome: LogoutOutcome): void
  /** Something was deleted. */
  purged(source: Logout['source'], purged: Purged): void
  /** That many logouts were committed in one transaction. */
  committed(logouts: number): void
  /** An operator was not let in, with the reason's code. */
  operatorRefused(code: string): void
  /** Adds what Node.js tells of this process: memory, event loop, garbage collection. */
  watchProcess(): void
  /** All of it, in Prometheus' text format. */
  text(): Promise<string>
  readonly contentType: string
}

const prefix = 'msal_logout_'
// From at once to the age at which a token is refused.
const delayBuckets = [0.05, 0.1, 0.25, 0.5, 1, 2, 5, 10, 30, 60, 300, 600]
const batchBuckets = [1, 2, 4, 8, 16, 32, 64, 128]

/** Counts what happens, and reads what is, for Prometheus. */
export function createMetrics({ issuers, spool, pools, now = Date.now }: MetricsSources): Metrics {
  const registry = new Registry()
  const registers = [registry]

  const requests = new Counter({
    name: `${prefix}requests_total`,
    help: 'Logout tokens and front-channel calls, by their end',
    labelNames: ['endpoint', 'issuer', 'outcome', 'reason'],
    registers
  })
  const deleted = {
    accounts: counter('purged_accounts_total', 'Accounts that were purged, in each app they had rows or sessions in', [
      'source',
      'client_id'
    ]),
    sessions: counter('purged_sessions_total', 'Sessions that were ended', ['source', 'client_id']),
    rows: counter('purged_rows_total', 'Rows of the token cache that were deleted', ['source', 'client_id'])
  }
  const delay = new Histogram({
    name: `${prefix}issued_to_committed_seconds`,
    help: "From a logout token's iat, of whole seconds, to the commit of what it ends",
    labelNames: ['issuer'],
    buckets: delayBuckets,
    registers
  })
  const batches = new Histogram({
    name: `${prefix}batch_size`,
    help: 'Logouts committed in one transaction',
    buckets: batchBuckets,
    registers
  })
  const operatorsRefused = counter('operators_refused_total', 'Requests of operators without valid credentials', [
    'reason'
  ])
  const spoolDepth = gauge('spool_depth', 'Logouts on disk: waiting, or set aside since they proved bad', ['kind'])
  const spoolAge = gauge('spool_oldest_age_seconds', 'Age of the oldest logout waiting on disk; 0 where none waits', [])
  const spoolWritable = gauge('spool_writable', '1 where a logout could be kept on disk now, else 0', [])
  const keyAge = gauge('key_age_seconds', "Age of an issuer's keys; absent where there are none", ['issuer'])
  const keyFetches = counter('key_fetches_total', "Fetches of an issuer's keys, by their end", ['issuer', 'outcome'])
  const connections = gauge('pool_connections', 'Connections to the database', ['pool', 'state'])

  function counter<Label extends string>(name: string, help: string, labelNames: Label[]) {
    return new Counter({ name: prefix + name, help, labelNames, registers })
  }

  function gauge<Label extends string>(name: string, help: string, labelNames: Label[]) {
    return new Gauge({ name: prefix + name, help, labelNames, registers })
  }

  // A series that begins with its first event has no increase to alert on; nor can what is not there be told as silent.
  for (const issuer of ['', ...issuers.status().map(({ name }) => name)]) {
    for (const endpoint of ['backchannel', 'frontchannel'] as const) {
      requests.inc({ endpoint, issuer, outcome: 'lost', reason: 'ERR_SPOOL' }, 0)
      requests.inc({ endpoint, issuer, outcome: 'failed', reason: '' }, 0)
      requests.inc({ endpoint, issuer, outcome: 'done', reason: '' }, 0)
    }
  }

  const secondsSince = (time: number) => Math.max(0, now() - time) / 1_000

  async function read(): Promise<void> {
    const { oldestAt, isWritable, ...depths } = await spool.status()
    for (const [kind, depth] of Object.entries(depths)) {
      spoolDepth.set({ kind }, depth)
    }
    spoolAge.set(oldestAt === undefined ? 0 : secondsSince(oldestAt))
    spoolWritable.set(isWritable ? 1 : 0)
    keyFetches.reset()
    for (const { name, loadedAt, fetched, failed } of issuers.status()) {
      if (loadedAt !== undefined) {
        keyAge.set({ issuer: name }, secondsSince(loadedAt))
      }
      keyFetches.inc({ issuer: name, outcome: 'done' }, fetched)
      keyFetches.inc({ issuer: name, outcome: 'failed' }, failed)
    }
    for (const [pool, { totalCount, idleCount, waitingCount }] of Object.entries(pools)) {
      connections.set({ pool, state: 'busy' }, totalCount - idleCount)
      connections.set({ pool, state: 'idle' }, idleCount)
      connections.set({ pool, state: 'wanted' }, waitingCount)
    }
  }

  function purged(source: Logout['source'], { byClient }: Purged): void {
    for (const [clientId, { accounts, sessions, rows }] of Object.entries(byClient)) {
      const labels = { source, client_id: clientId }
      deleted.accounts.inc(labels, accounts)
      deleted.sessions.inc(labels, sessions)
      deleted.rows.inc(labels, rows)
    }
  }

  return {
    ended({ endpoint, issuer = '', outcome, reason = '', results = [] }) {
      requests.inc({ endpoint, issuer, outcome, reason })
      for (const result of results) {
        purged(result.source, result)
        if (result.issuedAt !== undefined && !result.replayed) {
          delay.observe({ issuer }, Math.max(0, now() / 1_000 - result.issuedAt))
        }
      }
    },
    purged,
    committed: (logouts) => batches.observe(logouts),
    operatorRefused: (reason) => operatorsRefused.inc({ reason }),
    watchProcess: () => collectDefaultMetrics({ register: registry }),
    async text() {
      await read()
      return registry.metrics()
    },
    contentType: registry.contentType
  }
}

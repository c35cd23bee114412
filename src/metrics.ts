import { AggregatorRegistry, Counter, collectDefaultMetrics, Gauge, Histogram, Registry } from 'prom-client'
import type { Census } from './census.ts'
import type { DirectoryReports } from './directory-report.ts'
import { RejectedError, UnavailableError } from './errors.ts'
import type { Issuers } from './issuers.ts'
import type { CarriedOut, Outcome } from './receive.ts'
import type { Deleted, SignOutResult } from './sign-out.ts'
import type { Spool } from './spool.ts'
import type { StreamReports } from './stream-report.ts'
import { foreignIssuerCodes } from './verdicts.ts'
import { version } from './version.ts'

/** What is read when the metrics are asked for. */
export interface MetricsSources {
  readonly issuers: Pick<Issuers, 'status'>
  readonly spool: Pick<Spool, 'status'>
  /** The stored sessions, as they were counted last. */
  readonly census: { latest(): Census | undefined }
  /** The kinds of signals that come in: their series begin at 0. */
  readonly sources: readonly string[]
  /** The directories that are watched, as they were looked at last. */
  readonly directories: Pick<DirectoryReports, 'latest'>
  /** The streams of security events, as they were looked at last. */
  readonly streams: Pick<StreamReports, 'latest'>
  /** By name: connections to the database, of `pg`. */
  readonly pools: Readonly<Record<string, ConnectionCounts>>
  /** What the other processes of this instance count, given what this one counts; default it is the only one. */
  readonly others?: ((own: Counted) => Promise<readonly Counted[]>) | undefined
  /** Milliseconds since 1970; default `Date.now`. */
  readonly now?: () => number
}

/** All metrics of one process, as plain data. */
export type Counted = Awaited<ReturnType<Registry['getMetricsAsJSON']>>

export interface ConnectionCounts {
  readonly totalCount: number
  readonly idleCount: number
  readonly waitingCount: number
}

export interface Metrics {
  /** Begins the series of these issuers at 0, by name. */
  watchIssuers(names: readonly string[]): void
  /** A signal came to its end. */
  observe(outcome: Outcome): void
  /** A sweep is over. */
  swept(source: string, deleted: Deleted): void
  /** That many orders were committed in one transaction. */
  committed(results: readonly SignOutResult[]): void
  /** A notification of the apps failed. */
  notifyFailed(): void
  /** So many notifications of an issuer's directory came: `known`, `unknown`, or a body that is `invalid`. */
  directoryNotified(issuer: string, outcome: 'known' | 'unknown' | 'invalid', count: number): void
  /** An operator was not let in, with the reason's code. */
  operatorRejected(code: string): void
  /** Adds what Node.js knows of this process: memory, event loop, garbage collection. */
  watchProcess(): void
  /** What this process alone counts; of what is the same for all of an instance nothing. */
  own(): Promise<Counted>
  /** All of it, of all processes together, in Prometheus' text format. */
  text(): Promise<string>
  readonly contentType: string
}

const prefix = 'msal_logout_'
// By which a new set-up fails whose signals name no configured issuer.
const setUpCodes = [
  ...foreignIssuerCodes,
  'ERR_REQUEST_PATH',
  'ERR_REQUEST_METHOD',
  'ERR_REQUEST_TOO_LONG',
  'ERR_REQUEST_FORM',
  'ERR_REQUEST_TOKEN_MISSING',
  'ERR_REQUEST_TOKEN_TWICE',
  'ERR_REQUEST_SID_MISSING',
  'ERR_REQUEST_SID_MALFORMED',
  'ERR_REQUEST_SID_TOO_LONG',
  'ERR_REQUEST_ISS_MISSING',
  'ERR_REQUEST_ISS_MALFORMED',
  'ERR_TOKEN_MALFORMED',
  'ERR_TOKEN_DUPLICATE_KEY',
  'ERR_TOKEN_ISSUER_MISSING',
  'ERR_TOKEN_ISSUER_MALFORMED',
  'ERR_TOKEN_ENCRYPTED',
  'ERR_TOKEN_ENCRYPTION_ALGORITHM',
  'ERR_TOKEN_ENCRYPTION_KEY',
  'ERR_TOKEN_DECRYPTION'
] as const
// From at once to the age at which a token is rejected.
const delayBuckets = [0.05, 0.1, 0.25, 0.5, 1, 2, 5, 10, 30, 60, 300, 600]
const batchBuckets = [1, 2, 4, 8, 16, 32, 64, 128]

/** Counts what happens, and reads what is, for Prometheus. */
export function createMetrics({
  issuers,
  spool,
  census,
  directories,
  streams,
  sources,
  pools,
  others,
  now = Date.now
}: MetricsSources): Metrics {
  const registry = new Registry()
  const registers = [registry]

  const signals = counter('signals_total', 'Signals that arrived, by what became of them', [
    'source',
    'issuer',
    'outcome',
    'reason'
  ])
  const retries = counter('retries_total', 'Signals that were deferred, by what became of them', [
    'source',
    'issuer',
    'outcome',
    'reason'
  ])
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
    help: 'From when the issuer says that a signal was issued, in whole seconds, to the commit of what it ends',
    labelNames: ['issuer'],
    buckets: delayBuckets,
    registers
  })
  const batches = new Histogram({
    name: `${prefix}batch_size`,
    help: 'Orders committed in one transaction',
    buckets: batchBuckets,
    registers
  })
  const failedNotifications = counter('notify_failures_total', 'Notifications of the apps that could not be sent', [])
  const operatorsRejected = counter('operators_rejected_total', 'Requests of operators without valid credentials', [
    'reason'
  ])
  const notifications = counter(
    'directory_notifications_total',
    'Notifications of directories, by whether they were of a subscription of ours',
    ['issuer', 'outcome']
  )
  const spoolDepth = gauge('spool_depth', 'Signals on disk: deferred, or set aside since they proved bad', ['kind'])
  const spoolAge = gauge('spool_oldest_age_seconds', 'Age of the oldest signal that is deferred; 0 if none is', [])
  const spoolWritable = gauge('spool_writable', '1 if a signal could be deferred now, else 0', [])
  const keyAge = gauge('key_age_seconds', "Age of an issuer's keys; absent if there are none", ['issuer'], 'max')
  const keyFetches = counter('key_fetches_total', "Fetches of an issuer's keys, by their end", ['issuer', 'outcome'])
  gauge('build_info', '1, with the release that runs', ['version']).set({ version: version() }, 1)
  const sessions = gauge('sessions', 'Sessions that apps have stored; of a large table an estimate', [
    'issuer',
    'client_id'
  ])
  const sessionsWithoutSid = gauge('sessions_without_sid', 'Those of them that bear no sid: a sid alone ends none', [
    'issuer',
    'client_id'
  ])
  const directory = {
    good: directoryGauge('directory_good_timestamp_seconds', 'When all was last well; 0 if never'),
    delta: directoryGauge(
      'directory_delta_timestamp_seconds',
      'When the directory last said what has changed; 0 if never'
    ),
    watched: directoryGauge('directory_watched', 'Directory objects in the cache, as of the last sweep'),
    unwatched: directoryGauge('directory_unwatched', 'Accounts of the issuer that name no object of the directory'),
    breaker: directoryGauge(
      'directory_breaker_open',
      '1 if a round has seen too many at once, and an operator must decide'
    )
  }
  const stream = {
    good: streamGauge(
      'stream_good_timestamp_seconds',
      'When all was last well with a stream of security events; 0 if never'
    ),
    heard: streamGauge('stream_heard_timestamp_seconds', 'When a security event token came last; 0 if never'),
    verified: streamGauge(
      'stream_verified_timestamp_seconds',
      'When a verification event came last; 0 if never, absent if none is asked for'
    ),
    enabled: streamGauge('stream_enabled', '0 if the transmitter, or an operator, has stopped the stream')
  }
  const connections = gauge('pool_connections', 'Connections to the database', ['pool', 'state'], 'sum')

  function counter<Label extends string>(name: string, help: string, labelNames: Label[]) {
    return new Counter({ name: prefix + name, help, labelNames, registers })
  }

  /** @param aggregator how the values of several processes are put together; default they are those of the one that is asked */
  function gauge<Label extends string>(
    name: string,
    help: string,
    labelNames: Label[],
    aggregator: 'first' | 'sum' | 'max' = 'first'
  ) {
    return new Gauge({ name: prefix + name, help, labelNames, aggregator, registers })
  }

  function directoryGauge(name: string, help: string) {
    return gauge(name, help, ['issuer', 'tenant'])
  }

  function streamGauge(name: string, help: string) {
    return gauge(name, help, ['stream'])
  }

  // A series that begins with its first event has no increase to alert on; and silence shows only where a series is.
  function watchIssuers(names: readonly string[]): void {
    for (const issuer of names) {
      for (const source of sources) {
        for (const outcome of ['lost', 'failed', 'done', 'unmatched']) {
          signals.inc({ source, issuer, outcome, reason: '' }, 0)
        }
        for (const reason of issuer === '' ? setUpCodes : []) {
          signals.inc({ source, issuer, outcome: 'rejected', reason }, 0)
        }
      }
    }
  }

  watchIssuers(['', ...issuers.status().map(({ name }) => name)])
  failedNotifications.inc(0)

  const secondsSince = (time: number) => Math.max(0, now() - time) / 1_000

  /** What each process has for itself. */
  function readOwn(): void {
    keyAge.reset()
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

  async function readShared(): Promise<void> {
    const { oldestAt, isWritable, stuck, ...depths } = await spool.status()
    spoolDepth.set({ kind: 'stuck' }, stuck.length)
    for (const [kind, depth] of Object.entries(depths)) {
      spoolDepth.set({ kind }, depth)
    }
    spoolAge.set(oldestAt === undefined ? 0 : secondsSince(oldestAt))
    spoolWritable.set(isWritable ? 1 : 0)
    sessions.reset()
    sessionsWithoutSid.reset()
    for (const { issuerName: issuer = '', clientId: client_id, ...counted } of census.latest()?.counts ?? []) {
      sessions.inc({ issuer, client_id }, counted.sessions)
      sessionsWithoutSid.inc({ issuer, client_id }, counted.withoutSid)
    }
    for (const one of Object.values(directory)) {
      one.reset() // what is watched no more
    }
    for (const { issuer, tenantId: tenant, state } of directories.latest()) {
      const labels = { issuer, tenant }
      directory.good.set(labels, (state?.goodAt?.getTime() ?? 0) / 1_000)
      directory.delta.set(labels, (state?.deltaAt?.getTime() ?? 0) / 1_000)
      directory.watched.set(labels, state?.watched ?? 0)
      directory.unwatched.set(labels, state?.unwatched ?? 0)
      directory.breaker.set(labels, state?.breaker === undefined ? 0 : 1)
    }
    for (const one of Object.values(stream)) {
      one.reset()
    }
    for (const { config, state = {} } of streams.latest()) {
      const labels = { stream: config.name }
      const seconds = (time: string | undefined) => (time === undefined ? 0 : Date.parse(time) / 1_000)
      const isStopped = state.isDeleted === true || state.isPaused === true || (state.status ?? 'enabled') !== 'enabled'
      stream.enabled.set(labels, isStopped ? 0 : 1)
      stream.heard.set(labels, seconds(state.heardAt))
      if (!isStopped) {
        stream.good.set(labels, seconds(state.goodAt))
        if (state.canVerify === true && config.isManaged) {
          stream.verified.set(labels, seconds(state.verifiedAt))
        }
      }
    }
  }

  function addDeleted(source: string, { byClient }: Deleted): void {
    for (const [clientId, { accounts, sessions, rows }] of Object.entries(byClient)) {
      const labels = { source, client_id: clientId }
      deleted.accounts.inc(labels, accounts)
      deleted.sessions.inc(labels, sessions)
      deleted.rows.inc(labels, rows)
    }
  }

  function observeDelay({ outcome, order }: CarriedOut): void {
    if (order.issuedAt !== undefined && outcome !== 'duplicate') {
      delay.observe({ issuer: order.issuerName ?? '' }, Math.max(0, now() / 1_000 - order.issuedAt))
    }
  }

  return {
    watchIssuers,
    observe(outcome) {
      const { source, issuer = '' } = outcome
      const series = outcome.isRetry ? retries : signals
      series.inc({
        source,
        issuer,
        outcome: labelOf(outcome),
        reason: 'error' in outcome ? reasonOf(outcome.error) : 'reason' in outcome ? outcome.reason : ''
      })
      for (const result of 'results' in outcome ? outcome.results : []) {
        addDeleted(source, result)
        observeDelay(result)
      }
    },
    swept: addDeleted,
    committed: (results) => batches.observe(results.length),
    notifyFailed: () => failedNotifications.inc(),
    directoryNotified: (issuer, outcome, count) => notifications.inc({ issuer, outcome }, count),
    operatorRejected: (reason) => operatorsRejected.inc({ reason }),
    watchProcess: () => collectDefaultMetrics({ register: registry }),
    async own() {
      readOwn()
      return summable(await registry.getMetricsAsJSON())
    },
    async text() {
      readOwn()
      await readShared()
      if (others === undefined) {
        return registry.metrics()
      }
      const own = summable(await registry.getMetricsAsJSON())
      return AggregatorRegistry.aggregate([own, ...(await others(own))]).metrics()
    },
    contentType: registry.contentType
  }
}

function labelOf(outcome: Outcome): string {
  return outcome.outcome === 'rejected' && outcome.retryAfterSeconds > 0 ? 'limited' : outcome.outcome
}

function reasonOf(error: unknown): string {
  return error instanceof RejectedError || error instanceof UnavailableError ? error.code : ''
}

/** What stays true of a process that has ended: its counts. */
export function countsOf(counted: Counted): Counted {
  return counted.filter(({ type }) => isCount(type))
}

/**
 * Rounds counts down to millionths, as fractions of 2^20: sums of these are exact in any order. Else a counter could go back by a rounding
 * when a process ends, which Prometheus takes for a restart.
 */
function summable(counted: Counted): Counted {
  return counted.map((metric) =>
    isCount(metric.type)
      ? {
          ...metric,
          values: metric.values.map((each) => ({ ...each, value: Math.floor(each.value * 2 ** 20) / 2 ** 20 }))
        }
      : metric
  )
}

export async function sumCounts(all: readonly Counted[]): Promise<Counted> {
  return AggregatorRegistry.aggregate([...all]).getMetricsAsJSON()
}

// prom-client's types have numbers here, and its data have names.
function isCount(type: unknown): boolean {
  return type === 'counter' || type === 'histogram'
}

/** What the first of several processes knows of the others. */
export function createProcessMetrics(states: () => { readonly serving: number; readonly missing: number }) {
  const registry = new Registry()
  const registers = [registry]
  const workers = new Gauge({
    name: `${prefix}workers`,
    help: 'Processes that are to answer the public listener: those that do, and those that are being started anew',
    labelNames: ['state'],
    registers
  })
  const ends = new Counter({
    name: `${prefix}process_ends_total`,
    help: 'Processes of the service that ended, and were started anew',
    labelNames: ['process'],
    registers
  })
  for (const process of ['worker', 'background'] as const) {
    ends.inc({ process }, 0) // an increase shows only from a beginning on
  }
  return {
    ended: (process: 'worker' | 'background') => ends.inc({ process }),
    async own(): Promise<Counted> {
      for (const [state, count] of Object.entries(states())) {
        workers.set({ state }, count)
      }
      return registry.getMetricsAsJSON()
    }
  }
}

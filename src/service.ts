import { resolve } from 'node:path'
import type { FastifyBaseLogger } from 'fastify'
import { budget } from './budget.ts'
import { createCensus } from './census.ts'
import type { Config } from './config.ts'
import { createPool, type Pool, type PoolOptions } from './database.ts'
import { withoutCredentials } from './database-url.ts'
import { readNotifications } from './directories/microsoft-graph/notifications.ts'
import { createWatchers, type WatchersOptions } from './directories/microsoft-graph/watcher.ts'
import { createDirectoryReports } from './directory-report.ts'
import { createDirectoryStore } from './directory-store.ts'
import { UnavailableError } from './errors.ts'
import { type AdminOptions, createAdmin } from './http/admin.ts'
import { createApp, type SignalRoute, signalRoutes } from './http/app.ts'
import { createIssuers, type Issuers, type IssuersChange, type IssuersOptions } from './issuers.ts'
import { createOpenToken } from './jwe.ts'
import { type Counted, createMetrics } from './metrics.ts'
import { createNotifier } from './notifier.ts'
import { createOperatorCheck, type IdentifyOperator } from './operators.ts'
import { createOutboundFetch } from './outbound-fetch.ts'
import { createOutcomeCounts } from './outcome-counts.ts'
import { createOutcomeLog } from './outcome-log.ts'
import type { FindPeople } from './people.ts'
import { committed, createReceive, type Outcome } from './receive.ts'
import { createRecentSignals } from './recent-signals.ts'
import { createRejections } from './rejections.ts'
import { type Repetition, repeat } from './repeat.ts'
import { createSenders, type Senders } from './senders.ts'
import { type CommitOrders, createSignOut, maxDeletionsAtOnce, type Order, type SignOutResult } from './sign-out.ts'
import { createBackchannel } from './signals/backchannel.ts'
import { directorySource } from './signals/directory.ts'
import { createFrontchannel } from './signals/frontchannel.ts'
import { createPurge, operatorSource } from './signals/operator.ts'
import { createSecurityEvent, securityEventSource } from './signals/security-event.ts'
import { createTokenRevocation, type ResolveEmail } from './signals/token-revocation.ts'
import { createSpool, type SpoolOptions } from './spool.ts'
import { startRetry } from './spool-retry.ts'
import { standing } from './standing.ts'
import { createSteps, type RunOptions, type StepsOptions } from './steps.ts'
import { createStore } from './store.ts'
import { createStreamReports } from './stream-report.ts'
import { createStreamStore } from './stream-store.ts'
import { createStreams, type StreamsOptions } from './streams/streams.ts'
import { createSweeps, type SweepsOptions } from './sweep.ts'
import { version } from './version.ts'

/** What the service needs of the world, beside its configuration. */
export interface Edges extends IssuersOptions {
  readonly logger: FastifyBaseLogger
  /** The database; undefined: as libpq's variables say. */
  readonly connectionString: string | undefined
  /** The schema; default `msal_logout`. */
  readonly schema?: string
  /** Opens connections; default {@link createPool}. */
  readonly openPool?: (options: PoolOptions) => Pool
  /** Carries orders out; default in the database. */
  readonly commit?: CommitOrders
  /** Limits other than the usual ones. */
  readonly spool?: Partial<SpoolOptions>
  readonly steps?: Pick<StepsOptions, 'maxWaitMs' | 'idleMs'>
  readonly sweeps?: Pick<SweepsOptions, 'maxAccountsAwaited' | 'maxWaitMs' | 'rowsPerStep'>
  readonly directories?: Pick<WatchersOptions, 'sleep' | 'tickMs' | 'leaseSeconds'>
  readonly streams?: Pick<StreamsOptions, 'tickMs' | 'leaseSeconds' | 'timeoutMs'>
  readonly maxAccountsUnforced?: number
  /** See {@link maxDeletionsAtOnce}. */
  readonly maxDeletions?: number
  readonly workMs?: number
  /** Milliseconds between two rounds of chores; default 10,000. */
  readonly choresEveryMs?: number
  /** The limits by address; default {@link createSenders}. */
  readonly senders?: Senders
  /** Asks for people by name; default the directories that are watched. */
  readonly findPeople?: FindPeople
  /** Finds whose address that is; default by the directories that are watched. */
  readonly resolveEmail?: ResolveEmail
  /** Where further signals come in. */
  readonly routes?: (issuers: Issuers) => readonly SignalRoute[]
  /** Of an instance of several processes: what this one is there for. Default it is the only one, and does all. */
  readonly among?: Worker | Background
}

/** Answers the public listener, and no more: the limits by address are divided by the number of such processes. */
interface Worker {
  readonly part: 'worker'
  readonly workers: number
  /** Hands over what operators see of a signal. */
  readonly forward: (outcome: Outcome) => void
}

/** Does all but that, once for all workers. */
interface Background {
  readonly part: 'background'
  /** See {@link MetricsSources}. */
  readonly others: (own: Counted) => Promise<readonly Counted[]>
  /** How many workers serve now. */
  readonly serving: () => Promise<number>
}

export type Service = ReturnType<typeof createService>

const slowStatementMs = 60_000
const slowLockMs = 5_000
const cleanUpRows = 1_000
const censusEveryMs = 60_000
const maxNamed = 50

/** What a new configuration has changed. */
export interface Reloaded {
  readonly issuers: IssuersChange
  readonly isAdminTokenNew: boolean
  readonly isDatabaseUrlNew: boolean
}

/** Wires the service: the one place in which its parts meet. Nothing listens, and nothing is asked for, before `start`. */
export function createService(config: Config, edges: Edges) {
  const {
    logger,
    connectionString,
    schema,
    now = Date.now,
    openPool = createPool,
    choresEveryMs = 10_000,
    among
  } = edges
  const isWorker = among?.part === 'worker'
  const pools = {
    batches: openPool({ connectionString, max: 1, statementTimeoutMs: budget.batchStatementMs }),
    signOuts: openPool({ connectionString, max: 3, statementTimeoutMs: budget.statementMs }),
    // What has time never takes a connection of what has not.
    slow: openPool({
      connectionString,
      max: isWorker ? 2 : 4,
      statementTimeoutMs: slowStatementMs,
      lockTimeoutMs: slowLockMs
    })
  }
  for (const pool of Object.values(pools)) {
    pool.on('error', (error) => logger.warn({ cause: error.message }, 'idle database connection lost'))
  }
  const storeOf = (pool: Pool) => createStore({ pool, schema })
  const stores = { batches: storeOf(pools.batches), signOuts: storeOf(pools.signOuts), slow: storeOf(pools.slow) }
  const directoryStore = createDirectoryStore({ pool: pools.slow, schema })

  const issuersOptions = { fetch: createOutboundFetch(config.proxies).fetch, ...edges }
  const issuers = createIssuers(config.issuers, issuersOptions)
  const open = createOpenToken(() => inForce.decryptionKeys)
  const streamStore = createStreamStore({ pool: pools.slow, schema })
  const streams = createStreams({
    streams: config.streams,
    store: streamStore,
    fetch: issuersOptions.fetch,
    keys: issuersOptions,
    logger,
    now,
    ...edges.streams
  })
  const resolveEmail: ResolveEmail = edges.resolveEmail ?? ((issuer, email) => watchers.resolveEmail(issuer, email))
  const securityEvent = createSecurityEvent({ issuers, streams, resolveEmail, open })
  const spool = createSpool({ dir: config.spoolDir, logger, ...edges.spool })
  const routes = [
    ...signalRoutes({
      backchannel: createBackchannel({ issuers, open }),
      frontchannel: createFrontchannel({ issuers, store: stores.signOuts }),
      tokenRevocation: createTokenRevocation({ issuers, open, publicUrls: config.publicUrls, resolveEmail }),
      securityEvent,
      isAuthorized: streams.isAuthorized
    }),
    ...(edges.routes?.(issuers) ?? [])
  ]
  const signals = [...new Set(routes.map(({ signal }) => signal))]
  const sources = signals.map(({ source }) => source)

  const census = createCensus({ store: stores.slow, issuers, now })
  const outcomes = createOutcomeCounts({ now })
  const recent = createRecentSignals({ now })
  const directories = createDirectoryReports({
    watchers: { watched: () => watchers.watched(), states: () => watchers.states() },
    store: directoryStore
  })
  const streamReports = createStreamReports({ streams, store: streamStore })
  const metrics = createMetrics({
    issuers,
    spool,
    census,
    directories,
    streams: streamReports,
    sources: [...sources, directorySource],
    pools,
    others: among?.part === 'background' ? among.others : undefined,
    now
  })
  const rejections = createRejections({ now })
  const processes = isWorker ? among.workers : 1
  const senders = edges.senders ?? createSenders({ logger, now, isBusy: () => isBusy(), processes })
  const log = createOutcomeLog({ logger, lines: senders.lines })
  /** Keeps in memory what operators ask for. */
  const remember = (outcome: Outcome) => {
    rejections.add(outcome)
    outcomes.add(outcome)
    recent.add(outcome)
  }
  const observe = (outcome: Outcome) => {
    metrics.observe(outcome)
    if (isWorker) {
      among.forward(outcome)
    } else {
      remember(outcome)
    }
    log(outcome)
  }

  const notifier = createNotifier({ send: stores.slow.notifyApps, onFailure: metrics.notifyFailed })
  const onCommitted = (results: readonly SignOutResult[]) => {
    metrics.committed(results)
    if (results.some(({ sessions }) => sessions > 0)) {
      notifier.notify()
    }
  }
  const commit: CommitOrders =
    edges.commit ??
    ((orders, options) => (options.isAlone ? stores.signOuts : stores.batches).commitOrders(orders, options))
  const { maxDeletions = maxDeletionsAtOnce } = edges
  const { signOut, isBusy } = createSignOut(commit, {
    maxWaitMs: budget.waitMs,
    onCommitted,
    findLarge: stores.batches.findLarge,
    maxDeletions
  })
  const steps = createSteps({
    store: stores.slow,
    logger,
    onStep: notifier.notify,
    onDone(order, result, tookMs) {
      metrics.committed([result])
      const { source, issuerName: issuer } = order
      observe({ source, issuer, sender: undefined, isRetry: false, tookMs, ...committed([order], [result]) })
    },
    maxDeletions,
    ...edges.steps
  })
  const signOutAlone = async (order: Order, options: RunOptions) => {
    const result = await steps.run(order, options)
    metrics.committed([result])
    return result
  }

  const receive = createReceive({ signOut, spool, senders, observe, ...(edges.workMs && { workMs: edges.workMs }) })
  streams.receiveBy(securityEvent, receive)
  const watchers = createWatchers({
    issuers: config.issuers,
    store: directoryStore,
    receive,
    fetch: issuersOptions.fetch,
    logger,
    now,
    ...edges.directories
  })
  let isDraining = false
  const app = createApp({
    receive,
    routes,
    publishedKeys: () => inForce.decryptionKeys.filter(({ isPublished }) => isPublished),
    notifications: {
      isWanted: (name) =>
        watchers.watched().some((one) => one.name === name && one.config.directory?.notificationUrl !== undefined),
      take(name, body) {
        const notifications = readNotifications(body)
        if (notifications === undefined) {
          metrics.directoryNotified(name, 'invalid', 1)
          return false
        }
        const { known, unknown } = watchers.notify(name, notifications)
        metrics.directoryNotified(name, 'known', known)
        metrics.directoryNotified(name, 'unknown', unknown)
        return true
      }
    },
    logger,
    now,
    isDraining: () => isDraining,
    trustedProxies: config.trustedProxies
  })

  const sweeps = createSweeps({
    store: stores.slow,
    logger,
    notify: notifier.notify,
    onDone: (record) => metrics.swept(record.source, record),
    ...edges.sweeps
  })
  const purge = createPurge({
    store: stores.slow,
    steps,
    sweeps,
    observe,
    now,
    ...(edges.maxAccountsUnforced && { maxAccountsUnforced: edges.maxAccountsUnforced })
  })
  const operatorIssuers = createIssuers(
    config.adminAccessTokens ? [config.adminAccessTokens.issuer] : [],
    issuersOptions
  )
  const checkBy = ({ adminToken: token, adminAccessTokens }: Config) =>
    createOperatorCheck({
      token,
      accessTokens: adminAccessTokens && { ...adminAccessTokens, issuers: operatorIssuers }
    })
  let inForce = config
  let check = checkBy(config)
  const identify: IdentifyOperator = (authorization) => {
    const now = check
    return standing(
      now(authorization),
      () => now === check,
      () => identify(authorization)
    )
  }
  const adminOptions: AdminOptions = {
    purge,
    // Ready is what a sign-out finds, and a probe must not wait as long as a purge may.
    store: { ...stores.slow, checkReady },
    spool,
    issuers,
    rejections,
    outcomes,
    recent,
    census,
    metrics,
    directories,
    streams: streamReports,
    logger,
    identify,
    now,
    findPeople: edges.findPeople ?? watchers.findPeople,
    hosts: config.adminHosts,
    isDraining: () => isDraining
  }
  const admin = createAdmin(adminOptions)

  async function checkReady(): Promise<void> {
    // A first process that does not answer cannot give a connection to a worker either.
    if (among?.part === 'background' && (await among.serving().catch(() => 0)) === 0) {
      throw new UnavailableError('ERR_WORKERS')
    }
    await stores.batches.checkReady()
  }

  async function attempt(chore: () => Promise<void>): Promise<void> {
    try {
      await chore()
    } catch (error) {
      logger.warn({ code: error instanceof UnavailableError ? error.code : String(error) }, 'chores put off')
    }
  }

  async function tryDatabase(databaseUrl: string): Promise<void> {
    const pool = openPool({ connectionString: databaseUrl, max: 1, statementTimeoutMs: slowStatementMs })
    pool.on('error', () => {}) // the statement shows it
    try {
      await storeOf(pool).checkReady()
    } finally {
      await pool.end()
    }
  }

  /** Clean-up goes in small steps, until nothing is left. */
  async function cleanUp(signal: AbortSignal): Promise<void> {
    let gone = cleanUpRows
    while (!signal.aborted && gone > 0) {
      gone = (await stores.slow.cleanUp(cleanUpRows)) ?? 0
      if (gone > 0) {
        notifier.notify() // it publishes, too
      }
    }
  }

  /** @throws {UnavailableError} as {@link Service.reload} does */
  async function tryOut({ databaseUrl }: Config): Promise<void> {
    if (databaseUrl !== undefined && databaseUrl !== inForce.databaseUrl) {
      await tryDatabase(databaseUrl)
    }
  }

  /** The second half of a reload: what was tried out is taken, and cannot fail. */
  function take(next: Config): Reloaded {
    const { databaseUrl } = next
    const isDatabaseUrlNew = databaseUrl !== undefined && databaseUrl !== inForce.databaseUrl
    if (isDatabaseUrlNew) {
      for (const pool of Object.values(pools)) {
        pool.turnTo?.(databaseUrl)
      }
    }
    const isAdminTokenNew = next.adminToken !== inForce.adminToken
    operatorIssuers.replace(next.adminAccessTokens ? [next.adminAccessTokens.issuer] : [])
    check = checkBy(next)
    const change = issuers.replace(next.issuers)
    metrics.watchIssuers(change.added)
    watchers.replace(next.issuers)
    streams.replace(next.streams)
    issuers.warmUp()
    inForce = next
    return { issuers: change, isAdminTokenNew, isDatabaseUrlNew }
  }

  // What is never made ready costs nothing.
  const own = isWorker ? [app] : among === undefined ? [app, admin] : [admin]
  const retryOptions = { spool, signals, signOut, signOutAlone, logger, observe, now }
  let repetitions: Repetition[] = []
  return {
    app,
    admin,
    issuers,
    spool,
    metrics,
    rejections,
    census,
    receive,
    signOut,
    sweeps,
    steps,
    pools,
    stores,
    directoryStore,
    watchers,
    streams,
    /** The kinds of signals that come in, and the operators' purges. */
    sources: [
      ...sources.filter((source) => source !== securityEventSource || config.streams.length > 0),
      ...(watchers.watched().length > 0 ? [directorySource] : []),
      operatorSource
    ],
    retryOptions,
    adminOptions,
    /** Keeps in memory what a worker has handed over. */
    remember,

    /** Begins what repeats: what is deferred, and chores; in a worker, what it needs to know. */
    start(): void {
      if (isWorker) {
        repetitions = [
          watchers.follow(),
          streams.follow(),
          repeat(async () => {
            issuers.warmUp()
            streams.warmUp()
            return choresEveryMs
          }, 0)
        ]
        return
      }
      repetitions = [
        startRetry(retryOptions),
        watchers.start(),
        streams.start(),
        repeat(async (signal) => {
          issuers.warmUp()
          streams.warmUp()
          operatorIssuers.warmUp()
          await attempt(sweeps.resume)
          await attempt(() => cleanUp(signal))
          return choresEveryMs
        }, 0),
        repeat(async () => {
          await attempt(steps.resume)
          return choresEveryMs
        }, 0),
        repeat(async () => {
          await attempt(census.refresh)
          return censusEveryMs
        }, 0)
      ]
    },

    /**
     * Takes what can change while it runs from a new configuration: issuers with their directories, operators' credentials, the database's URL. The
     * rest is of the environment, and stays.
     *
     * @throws {UnavailableError} if the new URL leads to no database in which sign-outs can be done; nothing has changed then
     */
    async reload(next: Config): Promise<Reloaded> {
      await tryOut(next)
      return take(next)
    },
    tryOut,
    take,

    /** Serves on, and says that it is not ready: who sends to it is to turn to another. */
    drain(): void {
      isDraining = true
    },

    /** Ends all of it, after what is under way. */
    async stop(): Promise<void> {
      const listeners = own.map((listener) => listener.close())
      await Promise.all([
        sweeps.stop(),
        steps.stop(),
        ...listeners,
        ...repetitions.map((repetition) => repetition.stop())
      ])
      await notifier.stop()
      await Promise.all(Object.values(pools).map((pool) => pool.end()))
    }
  }
}

/** What runs here, in one line, without credentials. */
export async function describeService({ stores, issuers, sources }: Service, config: Config, databaseUrl: string) {
  const trusted = issuers.status()
  return {
    version: version(),
    // The database may be gone since: no reason not to serve.
    schema: await stores.slow.schemaVersion().catch(() => 'unknown'),
    issuers: Object.fromEntries(trusted.slice(0, maxNamed).map(({ name, issuer }) => [name, issuer])),
    ...(trusted.length > maxNamed && { moreIssuers: trusted.length - maxNamed }),
    sources,
    database: withoutCredentials(databaseUrl),
    spool: resolve(config.spoolDir)
  }
}

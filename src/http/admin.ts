import { type IncomingHttpHeaders, STATUS_CODES } from 'node:http'
import { isIP } from 'node:net'
import swagger from '@fastify/swagger'
import swaggerUi from '@fastify/swagger-ui'
import { type TypeBoxTypeProvider, TypeBoxValidatorCompiler } from '@fastify/type-provider-typebox'
import fastify, {
  type FastifyBaseLogger,
  type FastifyError,
  type FastifyInstance,
  type FastifyReply,
  type FastifyRequest,
  LogController,
  type RawReplyDefaultExpression,
  type RawRequestDefaultExpression,
  type RawServerDefault
} from 'fastify'
import type { Static } from 'typebox'
import type { Census } from '../census.ts'
import type { DirectoryReport, DirectoryReports } from '../directory-report.ts'
import type { DirectoryFailure, Subscription } from '../directory-store.ts'
import { DirectoryError, StreamError, UnavailableError } from '../errors.ts'
import type { Issuers } from '../issuers.ts'
import { isIdentifier } from '../jwt.ts'
import type { Metrics } from '../metrics.ts'
import { describeNearMisses, nearQueryOf } from '../near-misses.ts'
import type { IdentifyOperator } from '../operators.ts'
import { type CountedOutcomes, noCounts, type OutcomeCounts } from '../outcome-counts.ts'
import { causeOf } from '../outcome-log.ts'
import { clicksAt, type FindPeople } from '../people.ts'
import type { RecentSignal, RecentSignals } from '../recent-signals.ts'
import type { Rejections } from '../rejections.ts'
import { createSenders, type Senders } from '../senders.ts'
import type { Account, Deleted } from '../sign-out.ts'
import { operatorSource, type Purge, type PurgeResult, type PurgeSelector } from '../signals/operator.ts'
import { type Spool, SpoolError } from '../spool.ts'
import type { AccountQuery, MinuteCount, Store, StoredRecord } from '../store.ts'
import type { StreamReport, StreamReports } from '../stream-report.ts'
import { type StreamAction, streamActions } from '../streams/streams.ts'
import { explainUnmatched, judge } from '../verdicts.ts'
import { version } from '../version.ts'
import { contentPolicy, servePage } from './page.ts'
import * as schemas from './schemas.ts'

export interface AdminOptions {
  readonly purge: Purge
  readonly store: Pick<
    Store,
    'checkReady' | 'findRecord' | 'listRecords' | 'findAccount' | 'findAccounts' | 'findNear' | 'recordsPerMinute'
  >
  readonly spool: Pick<Spool, 'checkReady' | 'status'>
  readonly issuers: Pick<Issuers, 'status'>
  readonly rejections: Pick<Rejections, 'list' | 'limited'>
  readonly outcomes: Pick<CountedOutcomes, 'perMinute' | 'byIssuer' | 'since'>
  readonly recent: Pick<RecentSignals, 'since' | 'position'>
  readonly census: { current(): Promise<Census | undefined> }
  readonly metrics: Pick<Metrics, 'text' | 'contentType' | 'operatorRejected'>
  readonly directories: Pick<DirectoryReports, 'list' | 'decide' | 'has'>
  readonly streams: Pick<StreamReports, 'list' | 'act'>
  readonly logger: FastifyBaseLogger
  readonly identify: IdentifyOperator
  readonly findPeople: FindPeople
  /** The names that it goes by, beside addresses and `localhost`, in lower case; default any but those that a page could have led here. */
  readonly hosts?: readonly string[]
  /** Whether the service is about to stop; default never. */
  readonly isDraining?: () => boolean
  /** The limits by address; default {@link createSenders}, apart from those of the public listener. */
  readonly senders?: Pick<Senders, 'rejected' | 'lines'>
  /** Milliseconds since 1970; default `Date.now`. */
  readonly now?: () => number
}

const maxListed = 1_000
const maxCounted = 200_000
const maxRejections = 500
const maxNear = 5
const uuid = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i

declare module 'fastify' {
  interface FastifyRequest {
    /** Who asks, for the records; empty before the credentials are checked. */
    actor: string
  }
}

const openapi = {
  openapi: '3.1.0',
  info: {
    title: 'msal-logout: operators',
    version: '1',
    description: 'Purges of cached tokens, their records, and how the service stands'
  },
  components: { securitySchemes: { operator: { type: 'http', scheme: 'bearer' } } }
} as const

// For answers that no browser shows as a page; pages have their own.
const headers = {
  'cache-control': 'no-store',
  'content-security-policy': "default-src 'none'; frame-ancestors 'none'",
  'referrer-policy': 'no-referrer',
  'x-content-type-options': 'nosniff'
}

/** The operators' listener: what they do and see, behind their credentials; what monitoring asks, without. */
export function createAdmin(options: AdminOptions) {
  const app = fastify({
    loggerInstance: options.logger,
    logController: new LogController({ disableRequestLogging: true }), // a URL holds an account's id
    bodyLimit: 64 * 1024,
    exposeHeadRoutes: false,
    routerOptions: { maxParamLength: 3 * 1_024 }, // an id of 1,024 bytes, percent-encoded
    // What cannot be routed meets no hook; Fastify's own words quote the path, and with it an account's id.
    frameworkErrors: (error, _request, reply) => {
      problem(reply.headers(headers), error.statusCode ?? 400, 'invalid_request', 'the path is not acceptable')
    },
    requestTimeout: 5_000,
    return503OnClosing: false
  })
    .setValidatorCompiler(TypeBoxValidatorCompiler)
    .withTypeProvider<TypeBoxTypeProvider>()
  const senders = options.senders ?? createSenders({ logger: options.logger })
  app.setErrorHandler((error: FastifyError, request, reply) => answerError(error, request, reply, senders))
  app.setNotFoundHandler((_request, reply) => problem(reply, 404, 'not_found', 'there is nothing here'))
  app.addHook('onRequest', async (request, reply) => {
    reply.headers(headers)
    if (isForeign(request, options.hosts)) {
      return problem(reply, 421, 'foreign_host', 'this listener goes by another name: see ADMIN_HOSTS')
    }
  })
  app.decorateRequest('actor', '')

  app.register(swagger, { openapi })
  app.register(swaggerUi, { routePrefix: '/docs', staticCSP: contentPolicy, uiConfig: { validatorUrl: null } })
  app.register(servePage)
  app.register(async (open) => monitoringRoutes(open.withTypeProvider<TypeBoxTypeProvider>(), options))
  app.register(async (guarded) => {
    guarded.addHook('onRequest', (request, reply) => letOperatorsIn(request, reply, senders, options))
    purgeRoutes(guarded.withTypeProvider<TypeBoxTypeProvider>(), options)
    viewRoutes(guarded.withTypeProvider<TypeBoxTypeProvider>(), options)
    directoryRoutes(guarded.withTypeProvider<TypeBoxTypeProvider>(), options)
    streamRoutes(guarded.withTypeProvider<TypeBoxTypeProvider>(), options)
  })
  return app
}

type Listener = FastifyInstance<
  RawServerDefault,
  RawRequestDefaultExpression,
  RawReplyDefaultExpression,
  FastifyBaseLogger,
  TypeBoxTypeProvider
>

function monitoringRoutes(
  app: Listener,
  { store, spool, metrics, isDraining = () => false, now = Date.now }: AdminOptions
): void {
  const release = { version: version() }
  /** When somebody first saw that the service is of no use; undefined as long as it is. */
  let unreadySince: Date | undefined
  const unready = (reason: string) => {
    unreadySince ??= new Date(now())
    return { status: 'unavailable' as const, reason, since: unreadySince, ...release }
  }
  app.get(
    '/readyz',
    { schema: { summary: 'Whether the service is of use', response: { 200: schemas.Ready, 503: schemas.Unready } } },
    async (_request, reply) => {
      if (isDraining()) {
        return reply.code(503).send(unready('ERR_STOPPING'))
      }
      try {
        await Promise.all([store.checkReady(), spool.checkReady()])
        unreadySince = undefined
        return { status: 'ok' as const, ...release }
      } catch (error) {
        if (!(error instanceof UnavailableError || error instanceof SpoolError)) {
          throw error
        }
        return reply.code(503).send(unready(error.code))
      }
    }
  )

  app.get(
    '/metrics',
    {
      schema: {
        summary: 'For Prometheus',
        response: { 200: { content: { 'text/plain': { schema: schemas.MetricsText } } } }
      }
    },
    async (_request, reply) => reply.type(metrics.contentType).send(await metrics.text())
  )

  app.get('/openapi.json', { schema: { hide: true } }, async () => app.swagger())
}

async function letOperatorsIn(
  request: FastifyRequest,
  reply: FastifyReply,
  senders: Pick<Senders, 'rejected' | 'lines'>,
  { identify, metrics }: AdminOptions
): Promise<FastifyReply | undefined> {
  const operator = await identify(request.headers.authorization)
  if (operator.outcome === 'operator') {
    request.actor = operator.actor
    return undefined
  }
  metrics.operatorRejected(operator.outcome === 'forbidden' ? 'ERR_ROLE_MISSING' : operator.code)
  const retryAfterSeconds = senders.rejected(request.ip)
  if (retryAfterSeconds > 0) {
    reply.header('retry-after', String(retryAfterSeconds))
    return problem(reply, 429, 'too_many_requests', 'too many rejected requests from this address')
  }
  senders.lines.warn({ ...operator, address: request.ip }, 'operator rejected')
  // RFC 6750 §3
  if (operator.outcome === 'forbidden') {
    reply.header('www-authenticate', 'Bearer error="insufficient_scope"')
    return problem(reply, 403, 'forbidden', 'the access token lacks the role of operators')
  }
  const isGiven = request.headers.authorization !== undefined
  reply.header('www-authenticate', isGiven ? 'Bearer error="invalid_token"' : 'Bearer')
  return problem(reply, 401, 'unauthorized', 'valid credentials of an operator are needed')
}

const security = [{ operator: [] }]

function purgeRoutes(app: Listener, { purge, store, now = Date.now }: AdminOptions): void {
  app.post(
    '/admin/purges',
    {
      schema: {
        summary: 'Ends sessions, and deletes the rows of their accounts in every app',
        security,
        body: schemas.PurgeBody,
        headers: schemas.PurgeHeaders,
        response: schemas.answers({ 200: schemas.PurgeDone, 202: schemas.PurgeRunning })
      }
    },
    async (request, reply) => {
      const selector = selectorOf(request.body)
      if (selector === undefined) {
        return problem(
          reply,
          400,
          'invalid_selector',
          'give exactly one of homeAccountId, issuer and sid, issuer and subject, tenantId and objectId, clientId, tenantId'
        )
      }
      const idempotencyKey = request.headers['idempotency-key']
      if (idempotencyKey !== undefined && !/^[\x20-\x7e]{1,255}$/.test(idempotencyKey)) {
        return problem(
          reply,
          400,
          'invalid_idempotency_key',
          'an Idempotency-Key must have 1 to 255 printable characters of ASCII'
        )
      }
      const { reason, dryRun = false, force = false } = request.body
      if (!isText(reason)) {
        return problem(
          reply,
          400,
          'invalid_request',
          'a "reason" must not be blank, and must have no control characters'
        )
      }
      const issuedBefore = issuedBeforeOf(request.body.issuedBefore, now())
      if (issuedBefore === 'invalid') {
        return problem(
          reply,
          400,
          'invalid_issued_before',
          '"issuedBefore" must be an ISO time with a zone, or seconds since 1970, and not in the future'
        )
      }
      if (issuedBefore !== undefined && isSweep(selector)) {
        return problem(
          reply,
          400,
          'invalid_issued_before',
          '"issuedBefore" does not go with a whole app or tenant: leave it out'
        )
      }
      const result = await purge({
        selector,
        reason,
        actor: request.actor,
        dryRun,
        force,
        issuedBefore,
        idempotencyKey
      })
      const near = isUnmatched(result) ? await store.findNear(nearQueryOf(selector), maxNear) : []
      return answer(reply, result, dryRun, describeNearMisses(selector, near))
    }
  )

  app.get(
    '/admin/purges',
    {
      schema: {
        summary: 'The records of the operators’ own purges',
        security,
        querystring: schemas.PurgesQuery,
        response: schemas.answers({ 200: schemas.Records })
      }
    },
    ({ query }, reply) => listRecords(reply, { ...query, source: operatorSource })
  )

  app.get(
    '/admin/purges/:id',
    {
      schema: {
        summary: 'The record of one purge; of a running one, how far it is',
        security,
        params: schemas.RecordParams,
        response: schemas.answers({ 200: schemas.Record })
      }
    },
    async ({ params: { id } }, reply) => {
      const record = await find(id)
      return record?.source === operatorSource
        ? shown(record)
        : problem(reply, 404, 'not_found', 'no purge has this id')
    }
  )

  app.get(
    '/admin/records',
    {
      schema: {
        summary: 'What every sign-out and purge did, and why',
        security,
        querystring: schemas.RecordsQuery,
        response: schemas.answers({ 200: schemas.Records })
      }
    },
    ({ query }, reply) => listRecords(reply, query)
  )

  app.get(
    '/admin/records/:id',
    {
      schema: {
        summary: 'One record',
        security,
        params: schemas.RecordParams,
        response: schemas.answers({ 200: schemas.Record })
      }
    },
    async ({ params: { id } }, reply) => {
      const record = await find(id)
      return record === undefined ? problem(reply, 404, 'not_found', 'no record has this id') : shown(record)
    }
  )

  async function find(id: string): Promise<StoredRecord | undefined> {
    return uuid.test(id) ? store.findRecord(id) : undefined
  }

  async function listRecords(reply: FastifyReply, query: Static<typeof schemas.RecordsQuery>) {
    const { limit, ...filter } = query
    const pageSize = within(limit, 50, 500)
    if (pageSize === undefined) {
      return problem(reply, 400, 'invalid_request', '"limit" must be 1 to 500')
    }
    const hasActor = filter.source === operatorSource
    if (Object.values(filter).some((value) => typeof value === 'string' && !isText(value))) {
      return problem(reply, 400, 'invalid_request', 'a filter must have no control characters')
    }
    const records = await store.listRecords({ ...filter, hasActor, limit: pageSize + 1 })
    if (records === undefined) {
      return problem(reply, 400, 'unknown_record', 'no record has the id in "before"')
    }
    const page = records.slice(0, pageSize)
    return { records: page.map(shown), next: records.length > pageSize ? (page.at(-1)?.id ?? null) : null }
  }
}

function viewRoutes(
  app: Listener,
  { store, spool, issuers, rejections, outcomes, recent, census, findPeople, now = Date.now }: AdminOptions
): void {
  app.get(
    '/admin/accounts',
    {
      schema: {
        summary:
          'Whose session that is, by its sid, its subject or its directory object; or by an e-mail address or user name',
        security,
        querystring: schemas.AccountsQuery,
        response: schemas.answers({ 200: schemas.Accounts })
      }
    },
    async (request, reply) => {
      const { user, ...query } = request.query
      if (user !== undefined) {
        return isText(user) && Object.keys(query).length === 0
          ? accountsOfUser(user, reply)
          : problem(reply, 400, 'invalid_selector', '"user" goes alone, and must have no control characters')
      }
      const account = accountQueryOf(query)
      if (account === undefined) {
        return problem(
          reply,
          400,
          'invalid_selector',
          'give an issuer with either a sid or a subject, or a tenantId with an objectId'
        )
      }
      const accounts = await store.findAccounts(account, maxListed)
      return { accounts: accounts.map(shownAccount) }
    }
  )

  /** No address is stored: a directory knows whose it is, or a person looks at the provider. */
  async function accountsOfUser(user: string, reply: FastifyReply) {
    let known: Awaited<ReturnType<FindPeople>>
    try {
      known = await findPeople(user)
    } catch (error) {
      if (!(error instanceof DirectoryError)) {
        throw error
      }
      return problem(reply, 503, 'directory_unavailable', `${error.message} (${error.code})`)
    }
    const objects = known ?? []
    const found = await Promise.all(objects.map((object) => store.findAccounts(object, maxListed)))
    return {
      accounts: found.flat().slice(0, maxListed).map(shownAccount),
      objects: objects.map(({ tenantId, objectId }) => ({ tenantId, objectId })),
      hasDirectory: known !== undefined,
      clicks: objects.length > 0 ? [] : issuers.status().map(clicksAt)
    }
  }

  app.get(
    '/admin/accounts/:homeAccountId',
    {
      schema: {
        summary: 'The sessions and rows of an account',
        security,
        params: schemas.AccountParams,
        querystring: schemas.AccountQuery,
        response: schemas.answers({ 200: schemas.Account })
      }
    },
    async ({ params: { homeAccountId }, query: { issuer } }, reply) => {
      if (![homeAccountId, issuer ?? 'none'].every(isIdentifier)) {
        return problem(reply, 400, 'invalid_selector', 'the id or the issuer is not acceptable')
      }
      const { rows, sessions } = await store.findAccount(homeAccountId, issuer, maxListed + 1)
      return {
        homeAccountId,
        rows: rows.slice(0, maxListed),
        sessions: sessions.slice(0, maxListed),
        isComplete: Math.max(rows.length, sessions.length) <= maxListed
      }
    }
  )

  app.get(
    '/admin/stats',
    {
      schema: {
        summary: 'How it goes: sign-outs and purges per minute, what became of signals, and whether each issuer works',
        security,
        querystring: schemas.StatsQuery,
        response: schemas.answers({ 200: schemas.Stats })
      }
    },
    async ({ query }, reply) => {
      const minutes = within(query.minutes, 60, 1_440)
      if (minutes === undefined) {
        return problem(reply, 400, 'invalid_request', '"minutes" must be 1 to 1440')
      }
      const [records, latest] = await Promise.all([
        // In an outage it is wanted most what this process has seen.
        store.recordsPerMinute(minutes, maxCounted).catch(undefinedIfUnavailable),
        census.current()
      ])
      const { counts, isComplete } = records ?? { counts: [], isComplete: false }
      const perMinute = outcomes.perMinute(minutes)
      const byIssuer = outcomes.byIssuer(minutes)
      const names = issuers.status().map(({ name }) => name)
      return {
        minutes: everyMinute(minutes, counts, now()).map(({ at, bySource }) => ({
          at,
          bySource,
          byOutcome: shownCounts(perMinute.get(at.getTime()) ?? noCounts())
        })),
        isComplete,
        hasRecords: records !== undefined,
        since: new Date(outcomes.since),
        verdicts: judge({
          names,
          counts: byIssuer,
          minutes,
          census: latest,
          rejections: rejections.list(maxRejections)
        }),
        rejected: [...byIssuer.values()].reduce((sum, { rejected }) => sum + rejected, 0),
        hasSessionCounts: latest !== undefined,
        sessions: (latest?.counts ?? [])
          .toSorted((a, b) => b.sessions - a.sessions)
          .slice(0, maxListed)
          .map(({ issuerName = null, ...counted }) => ({ ...counted, issuerName }))
      }
    }
  )

  app.get(
    '/admin/rejections',
    {
      schema: {
        summary: 'The signals that were rejected of late, with reasons',
        security,
        querystring: schemas.RejectionsQuery,
        response: schemas.answers({ 200: schemas.RejectionList })
      }
    },
    async ({ query }, reply) => {
      const limit = within(query.limit, 100, maxRejections)
      return limit === undefined
        ? problem(reply, 400, 'invalid_request', '"limit" must be 1 to 500')
        : { rejections: rejections.list(limit), limited: rejections.limited() }
    }
  )

  app.get(
    '/admin/signals',
    {
      schema: {
        summary: 'What came of the last signals of this process, the oldest first',
        security,
        querystring: schemas.SignalsQuery,
        response: schemas.answers({ 200: schemas.Signals })
      }
    },
    async ({ query }) => {
      const signals = recent.since(Number(query.after ?? 0))
      const counted = signals.some(({ outcome }) => outcome === 'unmatched') ? await census.current() : undefined
      return { position: recent.position(), signals: signals.map((signal) => shownSignal(signal, counted)) }
    }
  )

  app.get(
    '/admin/issuers',
    {
      schema: {
        summary: 'The trusted issuers, and the age of their keys',
        security,
        response: schemas.answers({ 200: schemas.IssuerList })
      }
    },
    async () => ({
      issuers: issuers.status().map(({ name, issuer, config, keys, loadedAt, lastFailure }) => ({
        name,
        issuer,
        clientIds: [...config.clientIds],
        frontChannel: config.frontChannel,
        algorithms: [...config.algorithms],
        types: [...config.types],
        maxTokenAgeSeconds: config.maxTokenAgeSeconds,
        clockToleranceSeconds: config.clockToleranceSeconds,
        sidAndSubject: config.sidAndSubject,
        keys,
        keysLoadedAt: loadedAt === undefined ? null : new Date(loadedAt),
        keysAgeSeconds: loadedAt === undefined ? null : Math.max(0, Math.round((now() - loadedAt) / 1_000)),
        lastFailureAt: lastFailure === undefined ? null : new Date(lastFailure.at),
        lastFailure: lastFailure?.message ?? null,
        lookUp: clicksAt({ name, issuer })
      }))
    })
  )

  app.get(
    '/admin/spool',
    {
      schema: {
        summary: 'What waits on disk for the database or for keys',
        security,
        response: schemas.answers({ 200: schemas.SpoolState })
      }
    },
    async () => {
      const { oldestAt, stuck, ...status } = await spool.status()
      return {
        ...status,
        stuck: stuck.map((file) => ({ ...file })),
        oldestAt: oldestAt === undefined ? null : new Date(oldestAt)
      }
    }
  )
}

function directoryRoutes(app: Listener, { directories, logger }: AdminOptions): void {
  app.get(
    '/admin/directories',
    {
      schema: {
        summary: 'How far each watched directory is, and who is held',
        security,
        response: schemas.answers({ 200: schemas.DirectoryList })
      }
    },
    async () => ({ directories: (await directories.list()).map(shownDirectory) })
  )

  for (const [path, decision, summary] of [
    ['release', 'released', 'Has what the breaker holds done, in the next round'],
    ['drop', 'dropped', 'Has what the breaker holds not done, as long as the directory says nothing new']
  ] as const) {
    app.post(
      `/admin/directories/:tenantId/${path}`,
      {
        schema: {
          summary,
          security,
          params: schemas.TenantParams,
          response: schemas.answers({ 200: schemas.DirectoryDecision })
        }
      },
      async (request, reply) => {
        const { tenantId } = request.params
        if (!directories.has(tenantId)) {
          return problem(reply, 404, 'not_found', 'no directory of this tenant is watched')
        }
        const accounts = await directories.decide(tenantId, decision, request.actor)
        if (accounts === undefined) {
          return problem(reply, 409, 'breaker_closed', 'nothing is held: its breaker is not open')
        }
        logger.info({ tenantId, decision, accounts, actor: request.actor }, 'the breaker of a directory is closed')
        return { accounts }
      }
    )
  }
}

function shownDirectory({ state, failure: _, held, ...report }: DirectoryReport) {
  return {
    ...report,
    revokeOn: [...report.revokeOn],
    goodAt: state?.goodAt ?? null,
    deltaAt: state?.deltaAt ?? null,
    hasDelta: state === undefined || state.deltaLink !== undefined || state.deltaFailure !== undefined,
    sweptAt: state?.sweptAt ?? null,
    deltaFailure: shownFailure(state?.deltaFailure),
    sweepFailure: shownFailure(state?.sweepFailure),
    notifications: shownSubscription(state?.subscription),
    watched: state?.watched ?? null,
    unwatched: state?.unwatched ?? null,
    breaker: state?.breaker ?? null,
    held: held.map(({ objectId, event, detail, seenAt }) => ({ objectId, event, detail, seenAt: new Date(seenAt) })),
    rounds: (state?.rounds ?? []).map((round) => ({ ...round, done: { ...round.done } }))
  }
}

/** Neither its id nor what is known of its secret. */
function shownSubscription(subscription: Subscription | undefined) {
  if (subscription === undefined) {
    return null
  }
  const { id, expiresAt, failure } = subscription
  return {
    expiresAt: id === undefined ? null : new Date(expiresAt),
    failure: failure === undefined ? null : { code: failure.code, detail: failure.detail ?? null }
  }
}

const streamSummaries: Readonly<Record<StreamAction, string>> = {
  create: 'Creates the stream at its transmitter, or has it be as it is configured',
  verify: 'Has the transmitter show that its events reach this service',
  pause: 'Has the transmitter keep events back',
  resume: 'Has the transmitter send events again',
  delete: 'Deletes the stream at its transmitter; it is not created again by itself'
}

function streamRoutes(app: Listener, { streams, logger }: AdminOptions): void {
  app.get(
    '/admin/streams',
    {
      schema: {
        summary: 'How far each stream of security events is',
        security,
        response: schemas.answers({ 200: schemas.StreamList })
      }
    },
    async () => ({ streams: (await streams.list()).map(shownStream) })
  )

  for (const action of streamActions) {
    app.post(
      `/admin/streams/:name/${action}`,
      {
        schema: {
          summary: streamSummaries[action],
          security,
          params: schemas.StreamParams,
          response: schemas.answers({ 200: schemas.Stream })
        }
      },
      async (request, reply) => {
        const { name } = request.params
        try {
          const report = await streams.act(name, action)
          if (report === undefined) {
            return problem(reply, 404, 'not_found', 'no stream of this name is configured')
          }
          logger.info({ stream: name, action, actor: request.actor }, 'an operator has managed a stream')
          return shownStream(report)
        } catch (error) {
          if (!(error instanceof StreamError)) {
            throw error
          }
          const { code, message, detail } = error
          const text = `${message} (${code}${detail === undefined ? '' : `: ${detail}`})`
          return problem(reply, 502, 'transmitter_failed', text)
        }
      }
    )
  }
}

function shownStream({ config, state = {}, missingEvents }: StreamReport) {
  const { name, issuer, issuers, delivery, profile, isManaged, revokeOn } = config
  const time = (value: string | undefined) => (value === undefined ? null : new Date(value))
  const { failure } = state
  return {
    name,
    issuer,
    issuers: [...issuers],
    delivery,
    profile,
    isManaged,
    streamId: state.streamId ?? null,
    status: state.status ?? null,
    statusReason: state.statusReason ?? null,
    isPaused: state.isPaused === true,
    isDeleted: state.isDeleted === true,
    revokeOn: [...revokeOn],
    missingEvents: [...missingEvents],
    sendsNobodyByDefault: state.defaultSubjects === 'NONE',
    goodAt: time(state.goodAt),
    heardAt: time(state.heardAt),
    verifiedAt: time(state.verifiedAt),
    canVerify: state.canVerify === true,
    failure: failure
      ? { ...failure, detail: failure.detail ?? null, since: new Date(failure.since), at: new Date(failure.at) }
      : null
  }
}

function shownFailure(failure: DirectoryFailure | undefined) {
  return failure === undefined ? null : { ...failure, detail: failure.detail ?? null }
}

function shownSignal({ orders, reason, ...signal }: RecentSignal, census: Census | undefined) {
  const bySidAlone = orders.every(({ hasSid, hasSubject }) => hasSid && !hasSubject) ? 1 : 0
  const explained =
    signal.outcome === 'unmatched' && signal.issuer !== null
      ? explainUnmatched(signal.issuer, { unmatched: 1, unmatchedBySidAlone: bySidAlone }, census)
      : { why: reason, advice: null }
  return {
    ...signal,
    ...explained,
    orders: orders.map(({ result, ...order }) => ({
      ...order,
      outcome: result?.outcome ?? null,
      accounts: result?.accounts ?? 0,
      sessions: result?.sessions ?? 0,
      rows: result?.rows ?? 0,
      rowsByClient: rowsByClient({ byClient: result?.byClient ?? {} })
    }))
  }
}

function undefinedIfUnavailable(error: unknown): undefined {
  if (!(error instanceof UnavailableError)) {
    throw error
  }
  return undefined
}

function shownCounts({ done, unmatched, duplicate, ignored, deferred, lost, rejected, failed }: OutcomeCounts) {
  return { done, unmatched, duplicate, ignored, deferred, lost, rejected, failed }
}

/** The number in a query; undefined if it is out of bounds. */
function within(text: string | undefined, fallback: number, max: number): number | undefined {
  const value = text === undefined ? fallback : Number(text)
  return value <= max ? value : undefined
}

/** Each of the last minutes, the oldest first, also those in which nothing came. */
function everyMinute(minutes: number, counts: readonly MinuteCount[], at: number) {
  // The database's clock may be ahead of ours.
  const last = Math.max(Math.floor(at / 60_000), ...counts.map((count) => minuteOf(count.at)))
  const bySource = new Map<number, [string, number][]>()
  for (const { at, source, count } of counts) {
    const minute = minuteOf(at)
    bySource.set(minute, [...(bySource.get(minute) ?? []), [source, count]])
  }
  return Array.from({ length: minutes }, (_, i) => {
    const minute = last - minutes + 1 + i
    return { at: new Date(minute * 60_000), bySource: Object.fromEntries(bySource.get(minute) ?? []) }
  })
}

function minuteOf(at: Date): number {
  return at.getTime() / 60_000
}

function selectorOf(body: Static<typeof schemas.PurgeBody>): PurgeSelector | undefined {
  const { homeAccountId, issuer, sid, subject, clientId, tenantId, objectId } = body
  if (
    ![homeAccountId, issuer, sid, subject, clientId, tenantId, objectId].every(
      (id) => id === undefined || isIdentifier(id)
    )
  ) {
    return undefined
  }
  const given = Object.entries({ homeAccountId, issuer, sid, subject, clientId, tenantId, objectId })
    .filter(([, value]) => value !== undefined)
    .map(([name]) => name)
    .join(' ')
  if (homeAccountId !== undefined && (given === 'homeAccountId' || given === 'homeAccountId issuer')) {
    return { homeAccountId, issuer }
  }
  if (issuer !== undefined && sid !== undefined && given === 'issuer sid') {
    return { issuer, sid }
  }
  if (issuer !== undefined && subject !== undefined && given === 'issuer subject') {
    return { issuer, subject }
  }
  if (tenantId !== undefined && objectId !== undefined && given === 'tenantId objectId') {
    return { tenantId, objectId }
  }
  if (clientId !== undefined && given === 'clientId') {
    return { clientId }
  }
  return tenantId !== undefined && given === 'tenantId' ? { tenantId } : undefined
}

function isSweep(selector: PurgeSelector): selector is Sweep {
  return 'clientId' in selector || ('tenantId' in selector && !('objectId' in selector))
}

// RFC 3339 §5.6, the profile of ISO 8601. Without a zone it would be the time of this machine.
const isoTime = /^(\d{4})-(\d{2})-(\d{2})T\d{2}:\d{2}(:\d{2}(\.\d+)?)?(Z|[+-]\d{2}:\d{2})$/
// Between the operator's clock and ours.
const clockToleranceSeconds = 60

/** Seconds since 1970; undefined if it was not given. */
function issuedBeforeOf(value: string | number | undefined, at: number): number | undefined | 'invalid' {
  if (value === undefined) {
    return undefined
  }
  const seconds = typeof value === 'number' ? value : secondsOf(value)
  const isPast = seconds > 0 && seconds <= at / 1_000 + clockToleranceSeconds
  return isPast ? Math.floor(seconds) : 'invalid'
}

function secondsOf(text: string): number {
  const [, year, month, day] = isoTime.exec(text) ?? []
  // `Date.parse` takes February 30 for March 2.
  const isDay = new Date(Date.UTC(Number(year), Number(month) - 1, Number(day))).getUTCDate() === Number(day)
  return isDay ? Date.parse(text) / 1_000 : Number.NaN
}

function accountQueryOf(query: Static<typeof schemas.AccountsQuery>): AccountQuery | undefined {
  const selector = selectorOf({ ...query, reason: 'none' })
  const isOne = selector !== undefined && ('sid' in selector || 'subject' in selector || 'objectId' in selector)
  return isOne ? selector : undefined
}

type Sweep = { readonly clientId: string } | { readonly tenantId: string; readonly objectId?: never }

/** Nothing was there: neither a session nor a row. */
function isUnmatched(result: PurgeResult): boolean {
  return result.outcome === 'done' && result.deleted.sessions === 0 && result.deleted.rows === 0
}

function answer(reply: FastifyReply, result: PurgeResult, dryRun: boolean, near: readonly object[]): FastifyReply {
  switch (result.outcome) {
    case 'too_many':
      return problem(
        reply,
        409,
        'too_many_accounts',
        `this would purge ${result.accounts} accounts, more than ${result.limit}: add "force": true if it is meant`
      )
    case 'ambiguous':
      return problem(reply, 409, 'ambiguous_account', 'accounts of several issuers bear this id: add the "issuer"')
    case 'mismatch':
      return problem(reply, 422, 'idempotency_key_reused', 'this Idempotency-Key stands for another request')
    case 'running':
    case 'done': {
      const { accounts, sessions, rows } = result.deleted
      const body = { id: result.id, dryRun, accounts, sessions, rows, rowsByClient: rowsByClient(result.deleted) }
      return result.outcome === 'done'
        ? reply.code(200).send({ ...body, ...(isUnmatched(result) && { near }) })
        : reply.code(202).send({ ...body, status: 'running', done: accounts, total: result.total })
    }
  }
}

/** A record as operators see it. */
function shown({ byClient, matched, requestHash: _requestHash, ...record }: StoredRecord) {
  const isUnmatched = record.status === 'done' && record.accounts === 0 && record.sessions === 0
  return {
    ...record,
    outcome: isUnmatched ? ('unmatched' as const) : record.status,
    done: record.accounts,
    rowsByClient: rowsByClient({ ...record, byClient }),
    matchedAccounts: matched.slice(0, maxListed).map(shownAccount)
  }
}

function shownAccount({ homeAccountId, issuer }: Account) {
  return { homeAccountId, accountIssuer: issuer ?? null }
}

/** Each app of which rows were deleted. */
function rowsByClient({ byClient }: Pick<Deleted, 'byClient'>): Record<string, number> {
  const counts = Object.entries(byClient).filter(([, { rows }]) => rows > 0)
  return Object.fromEntries(counts.map(([clientId, { rows }]) => [clientId, rows]))
}

/**
 * Whether the request may come from a page whose own name leads to this address (DNS rebinding): it could read what needs no credentials. No
 * page has an address for its name, and the own ones are known. By default a name is foreign to browsers alone, so that probes, scrapers
 * and proxies need no list.
 */
function isForeign({ headers, hostname }: FastifyRequest, hosts: readonly string[] = []): boolean {
  const name = hostname?.toLowerCase().replace(/\.$/, '') ?? ''
  const isOwn =
    name === '' || // HTTP/1.0, as some health checks speak it; no browser does
    name === 'localhost' ||
    /^[a-z\d_.-]+\.localhost$/.test(name) ||
    isIP(name.replace(/^\[|\]$/g, '')) !== 0 ||
    hosts.includes(name)
  return !isOwn && (hosts.length > 0 || (name.includes('.') && isFromPlainPage(headers)))
}

/**
 * Whether a browser sends it by HTTP without TLS. A page can add headers to its requests, and cannot leave these out. Over TLS, which a
 * name that was led here has no certificate for, browsers send `Sec-Fetch-Site` (Fetch Metadata §2), which no page can set.
 */
function isFromPlainPage(headers: IncomingHttpHeaders): boolean {
  const isBrowser = ['accept-language', 'origin', 'referer'].some((name) => name in headers)
  return (isBrowser || /mozilla\//i.test(headers['user-agent'] ?? '')) && !('sec-fetch-site' in headers)
}

/** RFC 9457; `code` is for programs, and stable. */
function problem(reply: FastifyReply, status: number, code: string, detail: string): FastifyReply {
  return reply
    .code(status)
    .type('application/problem+json')
    .send({ type: 'about:blank', title: STATUS_CODES[status], status, code, detail })
}

// PostgreSQL stores neither NUL nor half characters; of the others, a line break and a tab do no harm.
function isText(value: string): boolean {
  return value.trim() !== '' && !/(?![\n\t])[\p{Cc}\p{Cs}]/u.test(value)
}

function answerError(
  error: FastifyError,
  request: FastifyRequest,
  reply: FastifyReply,
  { lines }: Pick<Senders, 'lines'>
): FastifyReply {
  if (error instanceof UnavailableError) {
    // Anybody can make up a key id, which no issuer's key answers: a line for each would fill the disk.
    lines.error(
      { code: error.code, cause: causeOf(error.cause), address: request.ip },
      'request of an operator not done'
    )
    return problem(reply.header('retry-after', '5'), 503, 'temporarily_unavailable', error.message)
  }
  if (error.statusCode !== undefined && error.statusCode < 500) {
    return problem(reply, error.statusCode, 'invalid_request', error.message)
  }
  request.log.error({ err: error }, 'failed')
  return problem(reply, 500, 'server_error', 'something is wrong here')
}

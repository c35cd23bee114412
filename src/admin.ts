import { STATUS_CODES } from 'node:http'
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
import * as schemas from './admin-schemas.ts'
import { UnavailableError } from './errors.ts'
import type { Issuers } from './issuers.ts'
import { isIdentifier } from './logout-token.ts'
import type { Metrics } from './metrics.ts'
import type { IdentifyOperator } from './operators.ts'
import { contentPolicy, servePage } from './page.ts'
import { maxAccountsUnforced, type PurgeResult, type PurgeSelector, type Purges } from './purges.ts'
import { createRejectionLimit } from './rejection-limit.ts'
import type { Rejections } from './rejections.ts'
import { type Spool, SpoolError } from './spool.ts'
import type { MinuteCount, Purged, Store } from './store.ts'

export interface AdminOptions {
  readonly purges: Purges
  readonly store: Pick<
    Store,
    'checkReady' | 'findPurge' | 'listPurges' | 'findAccount' | 'accountsOf' | 'purgesPerMinute'
  >
  readonly spool: Pick<Spool, 'checkWritable' | 'status'>
  readonly issuers: Pick<Issuers, 'status'>
  readonly rejections: Pick<Rejections, 'list' | 'limited'>
  readonly metrics: Pick<Metrics, 'text' | 'contentType' | 'operatorRefused'>
  readonly logger: FastifyBaseLogger
  /** Tells operators from everybody else. */
  readonly identify: IdentifyOperator
  /** Counts a refused request of an address: seconds until its next one is due; default {@link createRejectionLimit}. */
  readonly limitRejections?: (address: string) => number
}

const maxListed = 1_000
const maxCounted = 200_000
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
  // Anybody can make up a key id, which no issuer's key answers: a line for each would fill the disk.
  const limitOutageLines = createRejectionLimit({
    logger: options.logger,
    message: 'requests of operators not done, beside those with a line'
  })
  app.setErrorHandler((error: FastifyError, request, reply) => answerError(error, request, reply, limitOutageLines))
  app.setNotFoundHandler((_request, reply) => problem(reply, 404, 'not_found', 'there is nothing here'))
  app.addHook('onRequest', async (_request, reply) => {
    reply.headers(headers)
  })
  app.decorateRequest('actor', '')

  app.register(swagger, { openapi })
  app.register(swaggerUi, { routePrefix: '/docs', staticCSP: contentPolicy, uiConfig: { validatorUrl: null } })
  app.register(servePage)
  app.register(async (open) => monitoringRoutes(open.withTypeProvider<TypeBoxTypeProvider>(), options))
  app.register(async (guarded) => {
    const limitRejections = options.limitRejections ?? createRejectionLimit({ logger: options.logger })
    guarded.addHook('onRequest', (request, reply) => letOperatorsIn(request, reply, limitRejections, options))
    purgeRoutes(guarded.withTypeProvider<TypeBoxTypeProvider>(), options)
    viewRoutes(guarded.withTypeProvider<TypeBoxTypeProvider>(), options)
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

function monitoringRoutes(app: Listener, { store, spool, metrics }: AdminOptions): void {
  app.get(
    '/readyz',
    { schema: { summary: 'Whether the service is of use', response: { 200: schemas.Ready, 503: schemas.Unready } } },
    async (_request, reply) => {
      try {
        await Promise.all([store.checkReady(), spool.checkWritable()])
        return { status: 'ok' as const }
      } catch (error) {
        if (!(error instanceof UnavailableError || error instanceof SpoolError)) {
          throw error
        }
        return reply.code(503).send({ status: 'unavailable', reason: error.code })
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
  limitRejections: (address: string) => number,
  { identify, metrics }: AdminOptions
): Promise<FastifyReply | undefined> {
  const operator = await identify(request.headers.authorization)
  if (operator.outcome === 'operator') {
    request.actor = operator.actor
    return undefined
  }
  metrics.operatorRefused(operator.outcome === 'forbidden' ? 'ERR_ROLE_MISSING' : operator.code)
  const retryAfterSeconds = limitRejections(request.ip)
  if (retryAfterSeconds > 0) {
    reply.header('retry-after', String(retryAfterSeconds))
    return problem(reply, 429, 'too_many_requests', 'too many refused requests from this address')
  }
  request.log.warn({ ...operator, address: request.ip }, 'operator refused')
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

function purgeRoutes(app: Listener, { purges, store }: AdminOptions): void {
  app.post(
    '/admin/purges',
    {
      schema: {
        summary: 'Purges accounts: their sessions, and their rows in every app',
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
          'give exactly one of homeAccountId, issuer and sid, issuer and subject, clientId, tenantId'
        )
      }
      const idempotencyKey = request.headers['idempotency-key']
      if (idempotencyKey !== undefined && !/^[\x20-\x7e]{1,255}$/.test(idempotencyKey)) {
        return problem(reply, 400, 'invalid_idempotency_key', 'an Idempotency-Key has 1 to 255 printable characters')
      }
      const { reason, dryRun = false, force = false } = request.body
      if (!isText(reason)) {
        return problem(reply, 400, 'invalid_request', 'a "reason" is not blank, and has no control characters')
      }
      const result = await purges.order({
        selector,
        reason,
        actor: request.actor,
        dryRun,
        force,
        idempotencyKey
      })
      return answer(reply, result, dryRun)
    }
  )

  app.get(
    '/admin/purges',
    {
      schema: {
        summary: 'The records of purges and logouts',
        security,
        querystring: schemas.PurgesQuery,
        response: schemas.answers({ 200: schemas.PurgeRecords })
      }
    },
    async ({ query: { limit, before } }, reply) => {
      const pageSize = within(limit, 50, 500)
      if (pageSize === undefined) {
        return problem(reply, 400, 'invalid_request', 'a "limit" is 1 to 500')
      }
      const records = await store.listPurges(pageSize + 1, before)
      if (records === undefined) {
        return problem(reply, 400, 'unknown_purge', 'no purge has the id in "before"')
      }
      const page = records.slice(0, pageSize)
      return { purges: page.map(withRowsByClient), next: records.length > pageSize ? (page.at(-1)?.id ?? null) : null }
    }
  )

  app.get(
    '/admin/purges/:id',
    {
      schema: {
        summary: 'The record of one purge; of a running one, how far it is',
        security,
        params: schemas.PurgeParams,
        response: schemas.answers({ 200: schemas.PurgeRecord })
      }
    },
    async ({ params: { id } }, reply) => {
      const record = uuid.test(id) ? await store.findPurge(id) : undefined
      return record === undefined ? problem(reply, 404, 'not_found', 'no purge has this id') : withRowsByClient(record)
    }
  )
}

function viewRoutes(app: Listener, { store, spool, issuers, rejections }: AdminOptions): void {
  app.get(
    '/admin/accounts',
    {
      schema: {
        summary: 'Whose session that is, by its sid or its subject',
        security,
        querystring: schemas.AccountsQuery,
        response: schemas.answers({ 200: schemas.Accounts })
      }
    },
    async ({ query }, reply) => {
      const { issuer, sid, subject } = query
      if ((sid === undefined) === (subject === undefined) || ![issuer, sid ?? subject].every(isIdentifier)) {
        return problem(reply, 400, 'invalid_selector', 'give an issuer, and either a sid or a subject')
      }
      return { accounts: await store.accountsOf(issuer, sid, subject, maxListed) }
    }
  )

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
        summary: 'Logouts and purges per minute',
        security,
        querystring: schemas.StatsQuery,
        response: schemas.answers({ 200: schemas.Stats })
      }
    },
    async ({ query }, reply) => {
      const minutes = within(query.minutes, 60, 1_440)
      if (minutes === undefined) {
        return problem(reply, 400, 'invalid_request', '"minutes" is 1 to 1440')
      }
      const { counts, isComplete } = await store.purgesPerMinute(minutes, maxCounted)
      return { minutes: everyMinute(minutes, counts), isComplete }
    }
  )

  app.get(
    '/admin/rejections',
    {
      schema: {
        summary: 'The requests that were refused of late, with reasons',
        security,
        querystring: schemas.RejectionsQuery,
        response: schemas.answers({ 200: schemas.RejectionList })
      }
    },
    async ({ query }, reply) => {
      const limit = within(query.limit, 100, 500)
      return limit === undefined
        ? problem(reply, 400, 'invalid_request', 'a "limit" is 1 to 500')
        : { rejections: rejections.list(limit), limited: rejections.limited() }
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
        keys,
        keysLoadedAt: loadedAt === undefined ? null : new Date(loadedAt),
        keysAgeSeconds: loadedAt === undefined ? null : Math.max(0, Math.round((Date.now() - loadedAt) / 1_000)),
        lastFailureAt: lastFailure === undefined ? null : new Date(lastFailure.at),
        lastFailure: lastFailure?.message ?? null
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
      const { oldestAt, ...status } = await spool.status()
      return { ...status, oldestAt: oldestAt === undefined ? null : new Date(oldestAt) }
    }
  )
}

/** The number in a query, or undefined where it is out of bounds. */
function within(text: string | undefined, fallback: number, max: number): number | undefined {
  const value = text === undefined ? fallback : Number(text)
  return value <= max ? value : undefined
}

/** Every one of the last minutes, the oldest first, also those in which nothing was. */
function everyMinute(minutes: number, counts: readonly MinuteCount[]) {
  const last = Math.max(Math.floor(Date.now() / 60_000), ...counts.map(({ at }) => at.getTime() / 60_000))
  const told = Array.from({ length: minutes }, (_, i) => ({
    at: new Date((last - minutes + 1 + i) * 60_000),
    backchannel: 0,
    frontchannel: 0,
    admin: 0
  }))
  for (const { at, source, count } of counts) {
    const minute = told[at.getTime() / 60_000 - (last - minutes + 1)]
    if (minute !== undefined) {
      minute[source] = count
    }
  }
  return told
}

function selectorOf(body: Static<typeof schemas.PurgeBody>): PurgeSelector | undefined {
  const { homeAccountId, issuer, sid, subject, clientId, tenantId } = body
  const given = [homeAccountId, sid, subject, clientId, tenantId].filter((value) => value !== undefined)
  if (given.length !== 1 || ![...given, issuer ?? 'none'].every(isIdentifier)) {
    return undefined
  }
  if (homeAccountId !== undefined) {
    return { homeAccountId, issuer }
  }
  if (issuer !== undefined) {
    return sid !== undefined ? { issuer, sid } : subject !== undefined ? { issuer, subject } : undefined
  }
  return clientId !== undefined ? { clientId } : tenantId !== undefined ? { tenantId } : undefined
}

function answer(reply: FastifyReply, result: PurgeResult, dryRun: boolean): FastifyReply {
  switch (result.outcome) {
    case 'too_many':
      return problem(
        reply,
        409,
        'too_many_accounts',
        `this would purge ${result.accounts} accounts, more than ${maxAccountsUnforced}: add "force": true if it is meant`
      )
    case 'ambiguous':
      return problem(reply, 409, 'ambiguous_account', 'accounts of several issuers bear this id: add the "issuer"')
    case 'mismatch':
      return problem(reply, 422, 'idempotency_key_reused', 'this Idempotency-Key stands for another request')
    case 'running':
    case 'done': {
      const { id, accounts, sessions, rows, rowsByClient } = withRowsByClient(result.purged)
      const body = { id, dryRun, accounts, sessions, rows, rowsByClient }
      return result.outcome === 'done'
        ? reply.code(200).send(body)
        : reply.code(202).send({ ...body, status: 'running', total: result.total })
    }
  }
}

/** With each app of which rows were deleted, as operators are told it. */
function withRowsByClient<Of extends Purged>(purged: Of) {
  const counts = Object.entries(purged.byClient).filter(([, { rows }]) => rows > 0)
  return { ...purged, rowsByClient: Object.fromEntries(counts.map(([clientId, { rows }]) => [clientId, rows])) }
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
  limitOutageLines: (address: string) => number
): FastifyReply {
  if (error instanceof UnavailableError) {
    if (limitOutageLines(request.ip) === 0) {
      const cause = error.cause instanceof Error && 'code' in error.cause ? String(error.cause.code) : undefined
      request.log.error({ code: error.code, cause }, 'not done') // the message of a database error can hold values
    }
    return problem(reply.header('retry-after', '5'), 503, 'temporarily_unavailable', error.message)
  }
  if (error.statusCode !== undefined && error.statusCode < 500) {
    return problem(reply, error.statusCode, 'invalid_request', error.message)
  }
  request.log.error({ err: error }, 'failed')
  return problem(reply, 500, 'server_error', 'something is wrong here')
}

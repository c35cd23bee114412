import { STATUS_CODES } from 'node:http'
import { type TypeBoxTypeProvider, TypeBoxValidatorCompiler } from '@fastify/type-provider-typebox'
import fastify, {
  type FastifyBaseLogger,
  type FastifyError,
  type FastifyReply,
  type FastifyRequest,
  LogController
} from 'fastify'
import { type Static, Type } from 'typebox'
import { UnavailableError } from './errors.ts'
import { isIdentifier } from './logout-token.ts'
import type { IdentifyOperator } from './operators.ts'
import { servePage } from './page.ts'
import { maxAccountsUnforced, type PurgeResult, type PurgeSelector, type Purges } from './purges.ts'
import { type Spool, SpoolError } from './spool.ts'
import type { PurgeRecord, Store } from './store.ts'

export interface AdminOptions {
  readonly purges: Purges
  readonly store: Pick<Store, 'checkReady' | 'findPurge' | 'listPurges' | 'findAccount' | 'accountsOf'>
  readonly spool: Pick<Spool, 'checkWritable'>
  readonly logger: FastifyBaseLogger
  /** Tells operators from everybody else. */
  readonly identify: IdentifyOperator
}

const identifier = Type.String({ minLength: 1, maxLength: 1_024 })
const PurgeBody = Type.Object(
  {
    homeAccountId: Type.Optional(identifier),
    issuer: Type.Optional(identifier),
    sid: Type.Optional(identifier),
    subject: Type.Optional(identifier),
    clientId: Type.Optional(identifier),
    tenantId: Type.Optional(identifier),
    reason: Type.String({ minLength: 1, maxLength: 2_000 }),
    dryRun: Type.Optional(Type.Boolean()),
    force: Type.Optional(Type.Boolean())
  },
  { additionalProperties: false }
)

const AccountParams = Type.Object({ homeAccountId: identifier })
const AccountQuery = Type.Object({ issuer: Type.Optional(identifier) }, { additionalProperties: false })
const AccountsQuery = Type.Object(
  { issuer: identifier, sid: Type.Optional(identifier), subject: Type.Optional(identifier) },
  { additionalProperties: false }
)
// A page's numbers come as text.
const PurgesQuery = Type.Object(
  {
    limit: Type.Optional(Type.String({ pattern: '^([1-9][0-9]?|[1-4][0-9]{2}|500)$' })),
    before: Type.Optional(Type.String({ pattern: '^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$' }))
  },
  { additionalProperties: false }
)
const PurgeParams = Type.Object({ id: Type.String() })

const defaultPage = 50
const maxListed = 1_000
const uuid = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i

declare module 'fastify' {
  interface FastifyRequest {
    /** Who asks, for the records; empty before the credentials are checked. */
    actor: string
  }
}

/** The operators' listener: what they do and see, behind their credentials; `/readyz` for everybody who can reach it. */
export function createAdmin({ purges, store, spool, logger, identify }: AdminOptions) {
  const app = fastify({
    loggerInstance: logger,
    logController: new LogController({ disableRequestLogging: true }), // a URL holds an account's id
    bodyLimit: 64 * 1024,
    exposeHeadRoutes: false,
    routerOptions: { maxParamLength: 10_240 }, // an id of 1,024 characters, percent-encoded
    requestTimeout: 5_000,
    return503OnClosing: false
  })
    .setValidatorCompiler(TypeBoxValidatorCompiler)
    .withTypeProvider<TypeBoxTypeProvider>()
  app.setErrorHandler(answerError)
  app.setNotFoundHandler((_request, reply) => problem(reply, 404, 'not_found', 'there is nothing here'))

  app.addHook('onRequest', async (_request, reply) => {
    reply.header('cache-control', 'no-store')
  })

  app.get('/readyz', async (_request, reply) => {
    try {
      await Promise.all([store.checkReady(), spool.checkWritable()])
      return { status: 'ok' }
    } catch (error) {
      if (!(error instanceof UnavailableError || error instanceof SpoolError)) {
        throw error
      }
      return reply.code(503).send({ status: 'unavailable', reason: error.code })
    }
  })

  app.register(servePage)

  app.decorateRequest('actor', '')
  app.register(async (guarded) => {
    guarded.addHook('onRequest', async (request, reply) => {
      const operator = await identify(request.headers.authorization)
      if (operator.outcome === 'operator') {
        request.actor = operator.actor
        return
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
    })
    const typed = guarded.withTypeProvider<TypeBoxTypeProvider>()

    typed.post('/admin/purges', { schema: { body: PurgeBody } }, async (request, reply) => {
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
      if (idempotencyKey !== undefined && !isKey(idempotencyKey)) {
        return problem(reply, 400, 'invalid_idempotency_key', 'an Idempotency-Key has 1 to 255 printable characters')
      }
      const { reason, dryRun = false, force = false } = request.body
      if (!isText(reason)) {
        return problem(reply, 400, 'invalid_request', 'a "reason" has no control characters')
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
    })

    typed.get(
      '/admin/purges',
      { schema: { querystring: PurgesQuery } },
      async ({ query: { limit, before } }, reply) => {
        const pageSize = limit === undefined ? defaultPage : Number(limit)
        const records = await store.listPurges(pageSize + 1, before)
        if (records === undefined) {
          return problem(reply, 400, 'unknown_purge', 'no purge has the id in "before"')
        }
        const page = records.slice(0, pageSize)
        return { purges: page.map(told), next: records.length > pageSize ? page.at(-1)?.id : null }
      }
    )

    typed.get('/admin/purges/:id', { schema: { params: PurgeParams } }, async ({ params: { id } }, reply) => {
      const record = uuid.test(id) ? await store.findPurge(id) : undefined
      return record === undefined ? problem(reply, 404, 'not_found', 'no purge has this id') : told(record)
    })

    typed.get('/admin/accounts', { schema: { querystring: AccountsQuery } }, async ({ query }, reply) => {
      const { issuer, sid, subject } = query
      if ((sid === undefined) === (subject === undefined) || ![issuer, sid ?? subject].every(isIdentifier)) {
        return problem(reply, 400, 'invalid_selector', 'give an issuer, and either a sid or a subject')
      }
      return { accounts: await store.accountsOf(issuer, sid, subject, maxListed) }
    })

    typed.get(
      '/admin/accounts/:homeAccountId',
      { schema: { params: AccountParams, querystring: AccountQuery } },
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
  })
  return app
}

function selectorOf(body: Static<typeof PurgeBody>): PurgeSelector | undefined {
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
      const { id, accounts, sessions, rows, rowsByClient } = result.purged
      const body = { id, dryRun, accounts, sessions, rows, rowsByClient }
      return result.outcome === 'done'
        ? reply.code(200).send(body)
        : reply.code(202).send({ ...body, status: 'running', total: result.total })
    }
  }
}

/** A record, without what is only ours. */
function told({ requestHash, replayed, ...record }: PurgeRecord) {
  return record
}

/** RFC 9457; `code` is for programs, and stable. */
function problem(reply: FastifyReply, status: number, code: string, detail: string): FastifyReply {
  return reply
    .code(status)
    .type('application/problem+json')
    .send({ type: 'about:blank', title: STATUS_CODES[status], status, code, detail })
}

function isKey(value: unknown): value is string {
  return typeof value === 'string' && /^[\x20-\x7e]{1,255}$/.test(value)
}

// PostgreSQL stores neither NUL nor half characters; of the others, a line break and a tab do no harm.
function isText(value: string): boolean {
  return !/(?![\n\t])[\p{Cc}\p{Cs}]/u.test(value)
}

function answerError(error: FastifyError, request: FastifyRequest, reply: FastifyReply): FastifyReply {
  if (error instanceof UnavailableError) {
    const cause = error.cause instanceof Error && 'code' in error.cause ? String(error.cause.code) : undefined
    request.log.error({ code: error.code, cause }, 'not done') // the message of a database error can hold values
    return problem(reply.header('retry-after', '5'), 503, 'temporarily_unavailable', error.message)
  }
  if (error.statusCode !== undefined && error.statusCode < 500) {
    return problem(reply, error.statusCode, 'invalid_request', error.message)
  }
  request.log.error({ err: error }, 'failed')
  return problem(reply, 500, 'server_error', 'something is wrong here')
}

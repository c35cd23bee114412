import { createHash, timingSafeEqual } from 'node:crypto'
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
import { maxAccountsUnforced, type PurgeResult, type PurgeSelector, type Purges } from './purges.ts'
import { type Spool, SpoolError } from './spool.ts'
import type { Store } from './store.ts'

export interface AdminOptions {
  readonly purges: Purges
  readonly store: Pick<Store, 'checkReady' | 'findPurge'>
  readonly spool: Pick<Spool, 'checkWritable'>
  readonly logger: FastifyBaseLogger
  /** The operators' bearer token; undefined refuses everybody. */
  readonly token: string | undefined
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

/** The operators' listener: purges behind the bearer token, and `/readyz` for everybody who can reach it. */
export function createAdmin({ purges, store, spool, logger, token }: AdminOptions) {
  const app = fastify({
    loggerInstance: logger,
    logController: new LogController({ disableRequestLogging: true }), // a URL holds an account's id
    bodyLimit: 64 * 1024,
    exposeHeadRoutes: false,
    requestTimeout: 5_000,
    return503OnClosing: false
  })
    .setValidatorCompiler(TypeBoxValidatorCompiler)
    .withTypeProvider<TypeBoxTypeProvider>()
  app.setErrorHandler(answerError)

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

  const authenticate = bearerCheck(token)
  app.register(async (guarded) => {
    guarded.addHook('onRequest', async (request, reply) => {
      if (!authenticate(request.headers.authorization)) {
        return reply
          .code(401)
          .header('www-authenticate', 'Bearer')
          .send({ error: 'unauthorized', error_description: 'a bearer token for operators is needed' })
      }
    })
    const typed = guarded.withTypeProvider<TypeBoxTypeProvider>()

    typed.post('/admin/purges', { schema: { body: PurgeBody } }, async (request, reply) => {
      const selector = selectorOf(request.body)
      if (selector === undefined) {
        return reply.code(400).send({
          error: 'invalid_request',
          error_description: 'give exactly one of homeAccountId, issuer and sid, issuer and subject, clientId, tenantId'
        })
      }
      const idempotencyKey = request.headers['idempotency-key']
      const { reason, dryRun = false, force = false } = request.body
      const result = await purges.order({
        selector,
        reason,
        actor: 'admin-token',
        dryRun,
        force,
        idempotencyKey: typeof idempotencyKey === 'string' ? idempotencyKey : undefined
      })
      return answer(reply, result, dryRun)
    })

    typed.get(
      '/admin/purges/:id',
      { schema: { params: Type.Object({ id: Type.String() }) } },
      async ({ params: { id } }, reply) => {
        const isUuid = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i.test(id)
        const record = isUuid ? await store.findPurge(id) : undefined
        if (record === undefined) {
          return reply.code(404).send({ error: 'not_found', error_description: 'no purge has this id' })
        }
        const { requestHash, replayed, ...told } = record
        return told
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
      return reply.code(409).send({
        error: 'too_many_accounts',
        error_description: `this would purge ${result.accounts} accounts, more than ${maxAccountsUnforced}: add "force": true if it is meant`
      })
    case 'ambiguous':
      return reply.code(409).send({
        error: 'ambiguous_account',
        error_description: 'accounts of several issuers bear this id: add the "issuer"'
      })
    case 'mismatch':
      return reply.code(422).send({
        error: 'idempotency_key_reused',
        error_description: 'this Idempotency-Key stands for another request'
      })
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

/** Compares digests, so that the time tells nothing of the token, not even its length. */
function bearerCheck(token: string | undefined): (authorization: string | undefined) => boolean {
  const digest = (value: string) => createHash('sha256').update(value).digest()
  const expected = token === undefined ? undefined : digest(token)
  return (authorization) => {
    const given = /^Bearer +(\S+)$/i.exec(authorization ?? '')?.[1]
    return expected !== undefined && given !== undefined && timingSafeEqual(digest(given), expected)
  }
}

function answerError(error: FastifyError, request: FastifyRequest, reply: FastifyReply): FastifyReply {
  if (error instanceof UnavailableError) {
    request.log.error({ err: error }, 'purge not done')
    return reply
      .code(503)
      .header('retry-after', '5')
      .send({ error: 'temporarily_unavailable', error_description: 'the database is out of reach' })
  }
  if (error.statusCode !== undefined && error.statusCode < 500) {
    return reply.code(error.statusCode).send({ error: 'invalid_request', error_description: error.message })
  }
  request.log.error({ err: error }, 'failed')
  return reply.code(500).send({ error: 'server_error', error_description: 'something is wrong here' })
}

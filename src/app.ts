import formbody from '@fastify/formbody'
import fastify, {
  type FastifyBaseLogger,
  type FastifyError,
  type FastifyInstance,
  type FastifyReply,
  type FastifyRequest,
  LogController
} from 'fastify'
import { RejectedError, UnavailableError } from './errors.ts'
import type { Issuers } from './issuers.ts'
import {
  type CarryOut,
  committedOutcome,
  type LogoutOutcome,
  type LogoutRequest,
  type Progress
} from './logout-request.ts'
import { isIdentifier } from './logout-token.ts'
import { createRejectionLimit } from './rejection-limit.ts'
import { type Spool, SpoolError } from './spool.ts'
import { createSuspects } from './suspects.ts'

export interface AppOptions {
  readonly issuers: Issuers
  readonly carryOut: CarryOut
  readonly spool: Pick<Spool, 'keep'>
  readonly logger: FastifyBaseLogger
  /** Milliseconds after which a logout is kept rather than waited for; default 1500, so that every answer comes within 2 s. */
  readonly deadlineMs?: number
  /** Milliseconds since 1970; default `Date.now`. */
  readonly now?: () => number
  /** Proxies whose `X-Forwarded-For` is believed: addresses or CIDR ranges; default none. */
  readonly trustedProxies?: readonly string[]
  /** Counts a refused request of an address: seconds until its next one is due; default {@link createRejectionLimit}. */
  readonly limitRejections?: (address: string) => number
  /** Told how each request to sign somebody out ended. */
  readonly onEnded?: (outcome: LogoutOutcome) => void
}

declare module 'fastify' {
  interface FastifyRequest {
    /** How far a request to sign somebody out has come; undefined where nothing is known of it. */
    progress: Progress | undefined
  }
}

const bodyLimitBytes = 64 * 1024
// Beside the deadline, so that a disk that hangs pushes no answer past 2 s.
const keepWithinMs = 400

// No frame-ancestors: the identity provider shows this page in an iframe.
const frontChannelHeaders = {
  'content-type': 'text/html; charset=utf-8',
  'content-security-policy': "default-src 'none'",
  'referrer-policy': 'no-referrer',
  'x-content-type-options': 'nosniff'
}
const frontChannelPage = '<!doctype html><html lang="en"><title>Signed out</title><p>Signed out.</p></html>\n'

/** The public listener: logout tokens, front-channel calls, `/healthz`. The one place where an error becomes a status. */
export function createApp({
  issuers,
  carryOut,
  spool,
  logger,
  deadlineMs = 1_500,
  now = Date.now,
  trustedProxies = [],
  limitRejections = createRejectionLimit({ logger }),
  onEnded
}: AppOptions): FastifyInstance {
  const app = fastify({
    loggerInstance: logger,
    logController: new LogController({ disableRequestLogging: true }), // a URL holds a sid
    bodyLimit: bodyLimitBytes,
    exposeHeadRoutes: false,
    requestTimeout: 5_000,
    http: { connectionsCheckingInterval: 1_000, headersTimeout: 5_000 }, // slow senders are cut then
    trustProxy: trustedProxies.length > 0 && [...trustedProxies],
    keepAliveTimeout: 65_000,
    return503OnClosing: false,
    // Fastify's own would quote the URL, which holds a sid.
    frameworkErrors(_error, _request, reply: FastifyReply) {
      reply
        .code(400)
        .header('cache-control', 'no-store')
        .send({ error: 'invalid_request', error_description: 'the path is not valid' })
    }
  })
  // Each line during an outage would fill the disk, also for what a hostile sender makes up meanwhile.
  const limitOutageLines = createRejectionLimit({ logger, message: 'sign-outs not done, beside those with a line' })
  const suspects = createSuspects()
  app.removeAllContentTypeParsers()
  app.register(formbody, { bodyLimit: bodyLimitBytes })
  app.decorateRequest('progress', undefined)
  app.setErrorHandler((error: FastifyError, request, reply) => {
    if (error instanceof RejectedError) {
      const retryAfterSeconds = limitRejections(request.ip)
      if (retryAfterSeconds > 0) {
        suspects.add(request.ip)
        ended(request, { outcome: 'limited', reason: error.code })
        return answerLimited(reply, retryAfterSeconds)
      }
    }
    ended(request, outcomeOf(error))
    if (error instanceof UnavailableError || error instanceof SpoolError) {
      if (limitOutageLines(request.ip) === 0) {
        request.log.error({ code: error.code, cause: causeOf(error) }, 'sign-out not done')
      }
      return answerUnavailable(reply, error instanceof UnavailableError)
    }
    return answerError(error, request, reply)
  })

  function ended(request: FastifyRequest, outcome: Omit<LogoutOutcome, 'endpoint'>): void {
    const endpoint = request.routeOptions.url?.startsWith('/frontchannel-logout') ? 'frontchannel' : 'backchannel'
    onEnded?.({ endpoint, issuer: request.progress?.issuer, address: request.ip, ...outcome })
  }

  app.addHook('onRequest', async (_request, reply) => {
    reply.header('cache-control', 'no-store')
  })

  const allowed: Record<string, string> = {
    '/backchannel-logout': 'POST',
    '/frontchannel-logout': 'GET',
    '/healthz': 'GET'
  }
  app.setNotFoundHandler((request, reply) => {
    const path = request.url.split('?', 1)[0] ?? ''
    const allow = allowed[path] ?? (/^\/frontchannel-logout\/[^/]+$/.test(path) ? 'GET' : undefined)
    if (allow !== undefined) {
      return reply
        .code(405)
        .header('allow', allow)
        .send({ error: 'invalid_request', error_description: `only ${allow} is allowed here` })
    }
    return reply.code(404).send({ error: 'not_found', error_description: 'there is nothing here' })
  })

  app.get('/healthz', async () => ({ status: 'ok' }))

  // OIDC Back-Channel Logout 1.0 §2.5
  app.post('/backchannel-logout', async (request, reply) => {
    await carryOutOrKeep(request, { token: formToken(request.body) })
    return reply.code(200).send()
  })

  // OIDC Front-Channel Logout 1.0 §3, and Entra ID's form of it: `sid` alone
  app.get<{ Params: { name?: string } }>('/frontchannel-logout', frontChannel)
  app.get<{ Params: { name?: string } }>('/frontchannel-logout/:name', frontChannel)

  async function frontChannel(request: FastifyRequest<{ Params: { name?: string } }>, reply: FastifyReply) {
    const { config, iss, sid } = frontChannelQuery(request.params.name, request.query)
    // A browser that fetches ahead of the user's click has not signed out.
    const isPrefetch = `${request.headers['sec-purpose'] ?? ''}${request.headers.purpose ?? ''}`.includes('prefetch')
    if (!isPrefetch) {
      await carryOutOrKeep(request, { issuerName: config.name, issuer: iss, sid })
    }
    return reply.headers(frontChannelHeaders).send(frontChannelPage)
  }

  /** Resolves once it is done and on disk; what cannot be done in time is on the spool before it is told so. */
  async function carryOutOrKeep(request: FastifyRequest, logout: LogoutRequest): Promise<void> {
    const at = now()
    const answerBy = performance.now() + deadlineMs + keepWithinMs
    const work = carryOutInTurn(request.ip, logout, at, (progress) => {
      request.progress = progress
    })
    try {
      const results = await withinDeadline(work)
      for (const { issuer, source, sessions, rows, replayed } of results) {
        // Anybody can make up a sid at the front channel, and would fill the log.
        const level = source === 'frontchannel' && sessions === 0 ? 'debug' : 'info'
        request.log[level]({ issuer, sessions, rows, replayed }, 'signed out')
      }
      ended(request, committedOutcome(results))
    } catch (error) {
      if (error instanceof UnavailableError) {
        await spool.keep(logout, at, request.progress?.isVerified === true, answerBy - performance.now(), request.ip)
      }
      throw error
    }
  }

  /** A signature is costly to look at, a front-channel call has none. */
  async function carryOutInTurn(
    address: string,
    logout: LogoutRequest,
    at: number,
    onProgress: (progress: Progress) => void
  ) {
    const endTurn = 'token' in logout ? await suspects.turn(address) : undefined
    try {
      return await carryOut(logout, at, {
        onProgress(progress) {
          onProgress(progress)
          if (progress.isVerified) {
            endTurn?.()
          }
        }
      })
    } finally {
      endTurn?.()
    }
  }

  function frontChannelQuery(name: string | undefined, query: unknown) {
    const { iss, sid } = isObject(query) ? query : {}
    if (!isIdentifier(sid) || !(iss === undefined || isIdentifier(iss))) {
      throw new RejectedError('ERR_REQUEST_QUERY')
    }
    const config =
      name !== undefined ? issuers.named(name) : iss !== undefined ? issuers.find(iss)?.config : issuers.only()
    if (config === undefined || !config.frontChannel || (iss !== undefined && issuers.find(iss)?.config !== config)) {
      throw new RejectedError('ERR_REQUEST_QUERY')
    }
    return { config, iss, sid }
  }

  function withinDeadline<T>(work: Promise<T>): Promise<T> {
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => reject(new UnavailableError('ERR_DEADLINE')), deadlineMs)
      work.then(resolve, reject).finally(() => clearTimeout(timer))
    })
  }

  return app
}

function formToken(body: unknown): string {
  const token = isObject(body) ? body.logout_token : undefined
  if (typeof token !== 'string' || token === '') {
    throw new RejectedError('ERR_REQUEST_FORM')
  }
  return token
}

function outcomeOf(error: FastifyError): Omit<LogoutOutcome, 'endpoint'> {
  if (error instanceof RejectedError) {
    return { outcome: 'refused', reason: error.code, description: error.message }
  }
  if (error instanceof UnavailableError) {
    return { outcome: 'kept', reason: error.code }
  }
  if (error instanceof SpoolError) {
    return { outcome: 'lost', reason: error.code }
  }
  if (error.statusCode !== undefined && error.statusCode < 500) {
    const { code: reason, message: description } = new RejectedError('ERR_REQUEST_FORM')
    return { outcome: 'refused', reason, description }
  }
  return { outcome: 'failed' }
}

/** Without a line for each: a flood fills no disk. */
function answerLimited(reply: FastifyReply, retryAfterSeconds: number): FastifyReply {
  return reply
    .code(429)
    .header('retry-after', String(retryAfterSeconds))
    .send({ error: 'invalid_request', error_description: 'too many invalid requests from this address' })
}

function answerUnavailable(reply: FastifyReply, isKept: boolean): FastifyReply {
  return reply
    .code(503)
    .header('retry-after', '5')
    .send({
      error: 'temporarily_unavailable',
      error_description: isKept
        ? 'the sign-out could not be done now; it is kept, and done as soon as it can be'
        : 'the sign-out could not be done now, and could not be kept: send it again'
    })
}

function answerError(error: FastifyError, request: FastifyRequest, reply: FastifyReply): FastifyReply {
  if (error instanceof RejectedError) {
    request.log.warn({ code: error.code, address: request.ip }, 'refused')
    return reply.code(400).send({ error: 'invalid_request', error_description: error.message })
  }
  if (error.statusCode === 413) {
    return reply.code(413).send({ error: 'invalid_request', error_description: 'the body is too large' })
  }
  if (error.statusCode !== undefined && error.statusCode < 500) {
    return reply
      .code(400)
      .send({ error: 'invalid_request', error_description: new RejectedError('ERR_REQUEST_FORM').message })
  }
  request.log.error({ err: error }, 'failed')
  return reply.code(500).send({ error: 'server_error', error_description: 'something is wrong here' })
}

function causeOf({ cause }: Error): string | undefined {
  if (!(cause instanceof Error)) {
    return undefined
  }
  // The message of a database error can hold values; its code cannot.
  return 'code' in cause ? String(cause.code) : cause.message
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

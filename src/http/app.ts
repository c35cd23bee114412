import formbody from '@fastify/formbody'
import fastify, {
  type FastifyBaseLogger,
  type FastifyError,
  type FastifyInstance,
  type FastifyReply,
  type FastifyRequest,
  LogController
} from 'fastify'
import { type DecryptionKey, publishDecryptionKeys } from '../decryption-key.ts'
import { RejectedError, type RejectionCode } from '../errors.ts'
import { printableClaim } from '../printable.ts'
import type { Committed, Outcome, Receive } from '../receive.ts'
import { errorOf } from '../signals/security-event.ts'
import type { Signal } from '../signals/signal.ts'
import { revocationPath } from '../signals/token-revocation.ts'
import { pushPath } from '../stream-config.ts'
import { boundConnections } from './connection-bound.ts'
import { addNotificationRoute, type NotificationSink, notificationsUrl } from './directory-notifications.ts'

/** Where a signal comes in. */
export interface SignalRoute {
  readonly method: 'GET' | 'POST'
  readonly url: string
  readonly signal: Signal
  /** What the body is: a form, or a text that the signal reads itself. Default a form; what is none is null. */
  readonly body?: 'form' | 'text'
  /** Takes the signal's input from the request, unjudged. */
  input(request: FastifyRequest): unknown
  /** Whether the request means no signal: a browser that fetches ahead of the user's click has not signed out. */
  isIdle?(request: FastifyRequest): boolean
  /** Answers what is committed, ignored, or idle; default 200 and empty. */
  answer?(reply: FastifyReply, outcome: Answered): FastifyReply
  /** Answers what is rejected, within the limit of its sender; default 400. */
  answerRejected?(reply: FastifyReply, error: RejectedError): FastifyReply
  /** Answers what is deferred; default 503. */
  answerDeferred?(reply: FastifyReply): FastifyReply
}

/** What is answered as done. */
export type Answered = Committed | { readonly outcome: 'ignored' | 'idle' }

export interface AppOptions {
  readonly receive: Receive
  readonly routes: readonly SignalRoute[]
  /** What issuers may encrypt with, at `/.well-known/jwks.json`; default none, and nothing is there. */
  readonly publishedKeys?: () => readonly DecryptionKey[]
  /** Where directories say that something has changed; default none is asked to. */
  readonly notifications?: NotificationSink
  readonly logger: FastifyBaseLogger
  /** Milliseconds since 1970; default `Date.now`. */
  readonly now?: () => number
  /** Whether the service is about to stop; default never. */
  readonly isDraining?: () => boolean
  /** Proxies whose `X-Forwarded-For` is believed: addresses or CIDR ranges; default none. */
  readonly trustedProxies?: readonly string[]
}

const bodyLimitBytes = 64 * 1024
const retryAfterSeconds = '5'
const keySetUrl = '/.well-known/jwks.json'

// No frame-ancestors: the identity provider shows this page in an iframe.
const pageHeaders = {
  'content-type': 'text/html; charset=utf-8',
  'content-security-policy': "default-src 'none'",
  'referrer-policy': 'no-referrer',
  'x-content-type-options': 'nosniff'
}
const page = '<!doctype html><html lang="en"><title>Signed out</title><p>Signed out.</p></html>\n'

/** The product's own signals. */
export interface OwnSignals {
  readonly backchannel: Signal
  readonly frontchannel: Signal
  readonly tokenRevocation: Signal
  readonly securityEvent: Signal
  /** Whether a push bears what the transmitter of this stream was given. */
  isAuthorized(stream: string, authorization: unknown): boolean
}

/** Their routes: a line each. */
export function signalRoutes({
  backchannel,
  frontchannel,
  tokenRevocation,
  securityEvent,
  isAuthorized
}: OwnSignals): SignalRoute[] {
  const frontchannelRoute = { method: 'GET', signal: frontchannel, isIdle: isPrefetch, answer: answerPage } as const
  return [
    // OIDC Back-Channel Logout 1.0 §2.5
    { method: 'POST', url: '/backchannel-logout', signal: backchannel, input: formToken },
    // OIDC Front-Channel Logout 1.0 §3, and Entra ID's form of it
    { ...frontchannelRoute, url: '/frontchannel-logout', input: frontchannelInput },
    { ...frontchannelRoute, url: '/frontchannel-logout/:name', input: frontchannelInput },
    // Global Token Revocation (draft-parecki-oauth-global-token-revocation-06) §3
    {
      method: 'POST',
      url: revocationPath(':name'),
      signal: tokenRevocation,
      body: 'text',
      input: ({ params, headers: { authorization }, body }) => ({ name: field(params, 'name'), authorization, body }),
      answer: answerRevocation,
      answerRejected: rejectRevocation
    },
    // RFC 8935 §2
    {
      method: 'POST',
      url: pushPath(':name'),
      signal: securityEvent,
      body: 'text',
      input({ params, headers: { authorization }, body }) {
        const stream = field(params, 'name')
        // What it bears is a secret, and stays out of what may be deferred.
        return { stream, isAuthorized: isAuthorized(String(stream), authorization), token: body }
      },
      answer: acceptEvent,
      answerDeferred: acceptEvent,
      answerRejected: rejectEvent
    }
  ]
}

/** The public listener: signals, `/healthz`, and keys to encrypt with. */
export function createApp({
  receive,
  routes,
  publishedKeys = () => [],
  notifications = { isWanted: () => false, take: () => false },
  logger,
  now = Date.now,
  isDraining = () => false,
  trustedProxies = []
}: AppOptions): FastifyInstance {
  const app = fastify({
    loggerInstance: logger,
    logController: new LogController({ disableRequestLogging: true }), // a URL holds a sid
    bodyLimit: bodyLimitBytes,
    requestTimeout: 5_000,
    http: { connectionsCheckingInterval: 1_000, headersTimeout: 5_000 }, // slow senders are cut then
    trustProxy: trustedProxies.length > 0 && [...trustedProxies],
    keepAliveTimeout: 65_000,
    return503OnClosing: false,
    exposeHeadRoutes: false,
    routerOptions: { ignoreTrailingSlash: true, ignoreDuplicateSlashes: true },
    // Fastify's own would quote the URL, which holds a sid.
    frameworkErrors: (_error, _request, reply) => {
      invalid(reply.header('cache-control', 'no-store'), 400, 'the path is not valid')
    }
  })
  boundConnections(app.server, { logger })
  app.removeAllContentTypeParsers()
  app.register(formbody, { bodyLimit: bodyLimitBytes })
  // Not Fastify's 415: what is no form is a rejected signal like any other, and is counted and limited as such.
  app.addContentTypeParser('*', { parseAs: 'buffer', bodyLimit: bodyLimitBytes }, (_request, _body, done) =>
    done(null, null)
  )
  app.addHook('onRequest', async (_request, reply) => {
    reply.header('cache-control', 'no-store')
    if (isDraining()) {
      // RFC 9112 §9.6: a proxy that kept it open would send its next request into the closing, and few send a POST twice.
      reply.header('connection', 'close')
    }
  })

  const methods = new Map([['/healthz', 'GET, HEAD']])
  app.get('/healthz', async () => ({ status: 'ok' }))
  app.head('/healthz', async (_request, reply) => reply.send())
  methods.set(keySetUrl, 'GET, HEAD')
  app.get(keySetUrl, async (_request, reply) => {
    const keys = publishedKeys()
    return keys.length === 0 ? reply.callNotFound() : publishDecryptionKeys(keys)
  })
  app.head(keySetUrl, async (_request, reply) => reply.code(publishedKeys().length === 0 ? 404 : 200).send())
  for (const route of routes) {
    const { method, url, body, answer = answerEmpty } = route
    methods.set(url, method === 'GET' ? 'GET, HEAD' : method)
    if (body !== 'text') {
      addRoute(app, route)
    }
    if (method === 'GET') {
      // RFC 9110 §9.3.2: safe, so that it signs nobody out; the headers are those of GET.
      app.head(url, { onSend: leaveBodyOut }, async (_request, reply) => answer(reply, { outcome: 'idle' }))
    }
  }
  app.register(async (scope) => {
    scope.removeAllContentTypeParsers()
    scope.addContentTypeParser('*', { parseAs: 'string', bodyLimit: bodyLimitBytes }, (_request, body, done) =>
      done(null, body)
    )
    for (const route of routes.filter(({ body }) => body === 'text')) {
      addRoute(scope, route)
    }
    addNotificationRoute(scope, notifications, { notFound, invalid })
  })
  methods.set(notificationsUrl, 'POST')
  const sources = new Map(routes.map(({ url, signal }) => [url, signal.source]))
  for (const [url, allow] of methods) {
    app.options(url, async (_request, reply) => reply.code(204).header('allow', allow).send())
    const others = app.supportedMethods.filter((method) => method !== 'OPTIONS' && !allow.split(', ').includes(method))
    app.route({
      method: others,
      url,
      async handler(request, reply) {
        await observeAstray(request, sources.get(url), 'ERR_REQUEST_METHOD', allow)
        return invalid(reply.header('allow', allow), 405, `only ${allow} is allowed here`)
      }
    })
  }

  function addRoute(scope: FastifyInstance, route: SignalRoute): void {
    const { method, url, signal, input, isIdle, answer = answerEmpty, answerRejected = answerInvalid } = route
    const { answerDeferred } = route
    scope.route({
      method,
      url,
      async handler(request, reply) {
        if (isIdle?.(request)) {
          return answer(reply, { outcome: 'idle' })
        }
        const outcome = await receive(signal, input(request), { receivedAt: now(), sender: request.ip })
        if ('results' in outcome || outcome.outcome === 'ignored') {
          return answer(reply, outcome)
        }
        if (outcome.outcome === 'deferred' && answerDeferred !== undefined) {
          return answerDeferred(reply)
        }
        return outcome.outcome === 'rejected' && outcome.retryAfterSeconds === 0
          ? answerRejected(reply, outcome.error)
          : answerFailure(reply, outcome)
      }
    })
  }

  /** A signal that its sender, or a proxy, has sent elsewhere is one that was rejected: who looks for it must find it. */
  async function observeAstray(
    request: FastifyRequest,
    source: string | undefined,
    code: RejectionCode,
    accepted?: string
  ): Promise<void> {
    if (source === undefined || request.method === 'HEAD') {
      return
    }
    const [path] = request.url.split('?', 1)
    const details = { method: request.method, path: printableClaim(path) }
    const read = async () => {
      throw new RejectedError(code, { details, accepted })
    }
    await receive({ source, isSigned: true, read }, null, { receivedAt: now(), sender: request.ip })
  }

  app.setNotFoundHandler(async (request, reply) => {
    await observeAstray(request, sourceOfAstray(request, routes), 'ERR_REQUEST_PATH', listPaths(routes))
    return notFound(reply, 'there is nothing here')
  })
  app.setErrorHandler(async (error: FastifyError, request, reply) => {
    if (error.statusCode === 413) {
      await observeAstray(request, sources.get(request.routeOptions.url ?? ''), 'ERR_REQUEST_TOO_LONG', '64 KiB')
      return invalid(reply, 413, 'the body is too large')
    }
    if (error.statusCode !== undefined && error.statusCode < 500) {
      return invalid(reply, 400, new RejectedError('ERR_REQUEST_FORM').message)
    }
    request.log.error({ err: error }, 'failed')
    return answerFailed(reply)
  })
  return app
}

/** By what it bears, since its path says nothing: scanners send neither. */
function sourceOfAstray({ body, query }: FastifyRequest, routes: readonly SignalRoute[]): string | undefined {
  const ofMethod = (method: string) => routes.find((route) => route.method === method)?.signal.source
  if (field(body, 'logout_token') !== undefined) {
    return ofMethod('POST')
  }
  return field(query, 'sid') !== undefined ? ofMethod('GET') : undefined
}

function listPaths(routes: readonly SignalRoute[]): string {
  return routes
    .filter(({ body }) => body !== 'text')
    .map(({ url }) => url.replace(/:(\w+)/g, '<$1>'))
    .join(', ')
}

/** What is not done, and not within the sender's limit: the same for every signal. */
function answerFailure(
  reply: FastifyReply,
  outcome: Extract<Outcome, { outcome: 'rejected' | 'deferred' | 'lost' | 'failed' }>
): FastifyReply {
  switch (outcome.outcome) {
    case 'rejected':
      return invalid(
        reply.header('retry-after', String(outcome.retryAfterSeconds)),
        429,
        'too many invalid requests from this address'
      )
    case 'deferred':
      return unavailable(reply, 'the sign-out could not be done now; it is deferred, and done as soon as it can be')
    case 'lost':
      return unavailable(reply, 'the sign-out could not be done now, and could not be kept: send it again')
    case 'failed':
      return answerFailed(reply)
  }
}

function answerInvalid(reply: FastifyReply, error: RejectedError): FastifyReply {
  return invalid(reply, 400, error.message)
}

function invalid(reply: FastifyReply, status: number, description: string): FastifyReply {
  return reply.code(status).send({ error: 'invalid_request', error_description: description })
}

function notFound(reply: FastifyReply, description: string): FastifyReply {
  return reply.code(404).send({ error: 'not_found', error_description: description })
}

function unavailable(reply: FastifyReply, description: string): FastifyReply {
  return reply
    .code(503)
    .header('retry-after', retryAfterSeconds)
    .send({ error: 'temporarily_unavailable', error_description: description })
}

function answerFailed(reply: FastifyReply): FastifyReply {
  return reply.code(500).send({ error: 'server_error', error_description: 'something is wrong here' })
}

function answerEmpty(reply: FastifyReply): FastifyReply {
  return reply.send()
}

function answerPage(reply: FastifyReply): FastifyReply {
  return reply.headers(pageHeaders).send(page)
}

async function leaveBodyOut(_request: FastifyRequest, reply: FastifyReply, body: unknown): Promise<null> {
  reply.header('content-length', typeof body === 'string' ? Buffer.byteLength(body) : 0)
  return null
}

/** 404: nobody of that name is known here. A login of that user that is under way is kept out all the same. */
function answerRevocation(reply: FastifyReply, outcome: Answered): FastifyReply {
  const isKnown = 'results' in outcome && outcome.results.some(({ matched }) => matched.length > 0)
  return isKnown ? reply.code(204).send() : notFound(reply, 'no session of this user is known here')
}

function rejectRevocation(reply: FastifyReply, { code, message }: RejectedError): FastifyReply {
  if (code === 'ERR_REQUEST_ISSUER_NAME' || code === 'ERR_REQUEST_SUBJECT_ISSUER') {
    return notFound(reply, message)
  }
  if (code === 'ERR_REQUEST_AUTHORIZATION' || code.startsWith('ERR_TOKEN_')) {
    // RFC 6750 §3
    const challenge = code === 'ERR_REQUEST_AUTHORIZATION' ? 'Bearer' : 'Bearer error="invalid_token"'
    return reply
      .code(401)
      .header('www-authenticate', challenge)
      .send({ error: 'invalid_token', error_description: message })
  }
  return invalid(reply, 400, message)
}

/** RFC 8935 §2.2: it is valid, and will not be asked for again. */
function acceptEvent(reply: FastifyReply): FastifyReply {
  return reply.code(202).send()
}

/** RFC 8935 §2.3. */
function rejectEvent(reply: FastifyReply, { code, message }: RejectedError): FastifyReply {
  return code === 'ERR_REQUEST_STREAM'
    ? notFound(reply, message)
    : reply
        .code(400)
        .header('content-language', 'en')
        .send({ err: errorOf(code), description: message })
}

/** Null if the body is no form. */
function formToken({ body }: FastifyRequest): unknown {
  return typeof body === 'object' && body !== null ? field(body, 'logout_token') : null
}

function isPrefetch({ headers }: FastifyRequest): boolean {
  return `${headers['sec-purpose'] ?? ''}${headers.purpose ?? ''}`.includes('prefetch')
}

function frontchannelInput({ params, query }: FastifyRequest) {
  return { name: field(params, 'name'), iss: field(query, 'iss'), sid: field(query, 'sid') }
}

function field(value: unknown, name: string): unknown {
  return typeof value === 'object' && value !== null && Object.hasOwn(value, name)
    ? Reflect.get(value, name)
    : undefined
}

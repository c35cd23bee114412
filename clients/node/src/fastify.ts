// biome-ignore lint/style/noRestrictedImports: types alone, which an app on Fastify has
import type { FastifyPluginAsync, FastifyReply, FastifyRequest } from 'fastify'
import { endSession, renewSession } from './app-session.ts'
import { SignedOutError, TokenCacheMisuseError } from './errors.ts'
import { createFastifyGuard } from './guards.ts'
import { isNavigation, notNavigation } from './navigation.ts'
import { memberOf } from './objects.ts'
import { createSignIn, type SignedInUser, type SignIn, type SignInOptions } from './sign-in.ts'
import { addPending, isState, readState, type SignInState, writeState } from './sign-in-state.ts'

export { endSession } from './app-session.ts'
export { createFastifyGuard } from './guards.ts'
export type { BeginOptions, Paths, SignedInUser, SignIn, SignInOptions } from './sign-in.ts'

declare module 'fastify' {
  interface FastifyRequest {
    /** Who is signed in, or null. */
    user: SignedInUser | null
    /**
     * An access token of the user, from the cache or by a refresh.
     *
     * @param scopes default those that the sign-in asks for
     * @throws {SignedOutError} with status 401 where only a new sign-in helps; the app's session has been ended then
     */
    token(scopes?: readonly string[]): Promise<string>
  }
  interface FastifyInstance {
    readonly signIn: SignIn
    /**
     * An `onRequest` or `preHandler` hook that lets only signed-in users pass: a browser that opens a page goes to sign
     * in, anything else gets 401.
     */
    requireSignIn(request: FastifyRequest, reply: FastifyReply): Promise<unknown>
  }
}

export interface FastifySignInOptions extends SignInOptions {
  /** With `@fastify/cookie` and no session: the name of the signed cookie; default `session-of-<client id>`. */
  cookieName?: string
}

/** Where the state of a browser is kept: in a session, or in a cookie that is signed. */
interface Storage {
  read(request: FastifyRequest): SignInState | undefined
  write(request: FastifyRequest, reply: FastifyReply, state: SignInState): void
  /** Gives it a new id, where it has one. */
  renew(request: FastifyRequest): Promise<void>
  end(request: FastifyRequest, reply: FastifyReply): Promise<void>
}

/**
 * Signing in and out for Fastify, as a plugin that is registered after `@fastify/session` or `@fastify/cookie` (with a
 * `secret`): the routes `/sign-in`, `/callback` and `/sign-out`, the guard, `request.user`, `await
 * request.token(scopes)` and the hook `app.requireSignIn`.
 *
 * @throws {TokenCacheMisuseError} where an option or a plugin is missing
 */
export const signInPlugin: FastifyPluginAsync<FastifySignInOptions> = async (app, options) => {
  const signIn = createSignIn(options)
  const { tokenCache, paths, baseUrl } = signIn
  const storage = app.hasRequestDecorator('session') ? sessionStorage : cookieStorage(app, options, signIn)

  const guard = createFastifyGuard<FastifyRequest, FastifyReply>({
    tokenCache,
    session: (request) => storage.read(request)?.user,
    end: (request, reply) => storage.end(request, reply),
    ...(options.whenUnavailable && { whenUnavailable: options.whenUnavailable })
  })

  if (!app.hasRequestDecorator('user')) {
    app.decorateRequest('user', null)
  }
  app.decorateRequest('token', async () => {
    throw new SignedOutError() // of a request that no hook has seen
  })
  app.decorate('signIn', signIn)
  app.decorate('requireSignIn', async (request: FastifyRequest, reply: FastifyReply) => {
    if (request.user) {
      return undefined
    }
    const isPage = request.method === 'GET' && String(request.headers.accept ?? '').includes('text/html')
    const { pathname } = new URL(baseUrl + paths.signIn)
    return isPage
      ? go(reply, `${pathname}?${new URLSearchParams({ returnTo: request.url })}`)
      : reply.code(401).send({ statusCode: 401, error: 'Unauthorized', message: 'sign in first' })
  })

  app.addHook('onRequest', async (request, reply) => {
    const isEntry = [paths.signIn, paths.signOut].includes(request.routeOptions.url ?? '')
    return isEntry && !isNavigation((name) => request.headers[name]) ? forbid(reply) : undefined
  })

  app.addHook('onRequest', async (request, reply) => {
    if (Object.values(paths).includes(request.routeOptions.url ?? '')) {
      return
    }
    await guard(request, reply)
    const user = storage.read(request)?.user
    if (user === undefined) {
      return
    }
    request.user = user
    request.token = async (scopes) => {
      try {
        return await signIn.token(user, scopes)
      } catch (error) {
        if (error instanceof SignedOutError) {
          await storage.end(request, reply) // so that the next request finds nobody
        }
        throw error
      }
    }
  })

  app.get(paths.signIn, noHead, async (request, reply) => {
    const returnTo = memberOf(request.query, 'returnTo')
    const { url, pending } = await signIn.begin({ returnTo: typeof returnTo === 'string' ? returnTo : undefined })
    storage.write(request, reply, addPending(storage.read(request), pending))
    return go(reply, url)
  })

  app.get(paths.callback, noHead, async (request, reply) => {
    const { user, returnTo } = await signIn.complete(request.query, storage.read(request)?.pending ?? [])
    await storage.renew(request)
    storage.write(request, reply, { user })
    return go(reply, returnTo)
  })

  app.get(paths.signOut, noHead, async (request, reply) => {
    const user = storage.read(request)?.user
    await storage.end(request, reply)
    return go(reply, await signIn.end(user))
  })
}

// What fastify-plugin does: hooks and decorations are for the whole app, and not for this plugin alone.
Object.assign(signInPlugin, {
  [Symbol.for('skip-override')]: true,
  [Symbol.for('fastify.display-name')]: 'msal-logout-client',
  [Symbol.for('plugin-meta')]: { name: 'msal-logout-client' }
})

// Fastify would answer HEAD by the same handlers.
const noHead = { exposeHeadRoute: false }

const sessionStorage: Storage = {
  read: (request) => readState(memberOf(request, 'session')),
  write: (request, _reply, state) => writeState(memberOf(request, 'session'), state),
  renew: (request) => renewSession(request),
  end: (request) => endSession(request)
}

type App = Parameters<typeof signInPlugin>[0]

function cookieStorage(
  app: App,
  options: FastifySignInOptions,
  { baseUrl, tokenCache: { clientId } }: SignIn
): Storage {
  if (!app.hasReplyDecorator('setCookie') || !canSign(app)) {
    throw new TokenCacheMisuseError(
      'register @fastify/cookie with a secret, or @fastify/session, before it: await app.register(cookie, { secret: process.env.COOKIE_SECRET })'
    )
  }
  // Cookies know no ports: two apps on one host need two names.
  const { cookieName = `session-of-${clientId}` } = options
  const url = new URL(baseUrl)
  const attributes = { path: url.pathname, httpOnly: true, sameSite: 'lax', secure: url.protocol === 'https:' }
  const states = new WeakMap<FastifyRequest, SignInState>()

  function parse(request: FastifyRequest): SignInState {
    const text = memberOf(memberOf(request, 'cookies'), cookieName)
    const unsigned = typeof text === 'string' ? call(request, 'unsignCookie', text) : undefined
    const value = memberOf(unsigned, 'valid') === true ? memberOf(unsigned, 'value') : undefined
    try {
      const state: unknown = typeof value === 'string' ? JSON.parse(value) : undefined
      return isState(state) ? state : {}
    } catch {
      return {} // of another program that shares the secret
    }
  }

  return {
    read(request) {
      const state = states.get(request) ?? parse(request)
      states.set(request, state)
      return state
    },
    write(request, reply, state) {
      states.set(request, state)
      call(reply, 'setCookie', cookieName, JSON.stringify(state), { ...attributes, signed: true })
    },
    renew: async () => {},
    async end(request, reply) {
      states.set(request, {})
      if (!reply.sent) {
        call(reply, 'clearCookie', cookieName, attributes)
      }
      request.user = null
    }
  }
}

/** Whether `@fastify/cookie` was given a secret: without one it throws. */
function canSign(app: App): boolean {
  try {
    call(app, 'signCookie', 'a')
    return true
  } catch {
    return false
  }
}

/** What `@fastify/cookie` has added, of which the types know nothing here. */
function call(target: object, name: string, ...args: unknown[]): unknown {
  const method: unknown = Reflect.get(target, name)
  if (typeof method !== 'function') {
    throw new TokenCacheMisuseError(`"${name}" is missing: is @fastify/cookie registered?`)
  }
  return method.apply(target, args)
}

function forbid(reply: FastifyReply): FastifyReply {
  return reply.code(403).header('cache-control', 'no-store').type('text/plain').send(notNavigation)
}

function go(reply: FastifyReply, url: string): FastifyReply {
  return reply.header('cache-control', 'no-store').redirect(url)
}

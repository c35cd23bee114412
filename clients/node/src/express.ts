import { endSession, renewSession } from './app-session.ts'
import { SignedOutError, TokenCacheMisuseError } from './errors.ts'
import { createExpressGuard } from './guards.ts'
import { isNavigation, notNavigation } from './navigation.ts'
import { isObject, memberOf } from './objects.ts'
import { createSignIn as createCore, type SignedInUser, type SignIn, type SignInOptions } from './sign-in.ts'
import { addPending, readState, type SignInState, writeState } from './sign-in-state.ts'

export { endSession } from './app-session.ts'
export { createExpressGuard } from './guards.ts'
export type { BeginOptions, Paths, SignedInUser, SignIn, SignInOptions } from './sign-in.ts'

declare global {
  namespace Express {
    interface User extends SignedInUser {}
    interface Request {
      /** Who is signed in, or undefined. */
      user?: User | undefined
      /**
       * An access token of the user, from the cache or by a refresh.
       *
       * @param scopes default those that the sign-in asks for
       * @throws {SignedOutError} with status 401 where only a new sign-in helps; the app's session has been ended then
       */
      token(scopes?: readonly string[]): Promise<string>
    }
  }
}

/** As much of Express's request as is used; without its query, whose type a route of the app is to infer. */
export interface ExpressRequest {
  readonly method: string
  readonly path: string
  readonly originalUrl: string
  readonly headers: Readonly<Record<string, string | string[] | undefined>>
}

/** As much of Express's response as is used. */
export interface ExpressResponse {
  readonly headersSent: boolean
  statusCode: number
  setHeader(name: string, value: string): unknown
  redirect(url: string): unknown
  sendStatus(status: number): unknown
  end(text: string): unknown
}

export type ExpressMiddleware = (
  request: ExpressRequest,
  response: ExpressResponse,
  next: (error?: unknown) => void
) => void

export interface ExpressSignIn
  extends ExpressMiddleware,
    Omit<SignIn, 'token' | 'tokenOf' | 'begin' | 'complete' | 'end' | 'isActive' | 'handle' | 'userOf'> {
  /** Lets only signed-in users pass: a browser that opens a page goes to sign in, anything else gets 401. */
  readonly required: ExpressMiddleware
  /** For the end of the app: an error that says "sign in again" is answered as by `required`; others pass. */
  readonly onError: (
    error: unknown,
    request: ExpressRequest,
    response: ExpressResponse,
    next: (error?: unknown) => void
  ) => void
}

/**
 * Signing in and out for Express, in one middleware that stands behind express-session or cookie-session: the routes
 * `/sign-in`, `/callback` and `/sign-out`, the guard, `request.user` and `await request.token(scopes)`.
 *
 * @throws {TokenCacheMisuseError} where an option is missing or cannot be used
 */
export function createSignIn(options: SignInOptions): ExpressSignIn {
  const core = createCore(options)
  const { paths, baseUrl, tokenCache, clients } = core
  const guard = createExpressGuard<ExpressRequest, ExpressResponse>({
    tokenCache,
    session: (request) => stateOf(request)?.user,
    ...(options.whenUnavailable && { whenUnavailable: options.whenUnavailable })
  })

  async function signIn(request: ExpressRequest, response: ExpressResponse): Promise<void> {
    const { url, pending } = await core.begin({ returnTo: textOf(memberOf(request, 'query'), 'returnTo') })
    setState(request, addPending(stateOf(request), pending))
    go(response, url)
  }

  async function complete(request: ExpressRequest, response: ExpressResponse): Promise<void> {
    const { user, returnTo } = await core.complete(memberOf(request, 'query'), stateOf(request)?.pending ?? [])
    await renewSession(request)
    setState(request, { user })
    go(response, returnTo)
  }

  async function signOut(request: ExpressRequest, response: ExpressResponse): Promise<void> {
    const user = stateOf(request)?.user
    await endSession(request)
    go(response, await core.end(user))
  }

  const routes = new Map([
    [paths.signIn, signIn],
    [paths.callback, complete],
    [paths.signOut, signOut]
  ])

  function addUser(request: ExpressRequest): void {
    const user = stateOf(request)?.user
    if (user !== undefined) {
      Reflect.set(request, 'user', user)
    }
    Reflect.set(request, 'token', async (scopes?: readonly string[]) => {
      if (user === undefined) {
        throw new SignedOutError()
      }
      try {
        return await core.token(user, scopes)
      } catch (error) {
        if (error instanceof SignedOutError) {
          await endSession(request) // so that the next request finds nobody
        }
        throw error
      }
    })
  }

  const middleware: ExpressMiddleware = (request, response, next) => {
    const route = request.method === 'GET' ? routes.get(withoutSlash(request.path)) : undefined
    if (!isObject(Reflect.get(request, 'session'))) {
      next(new TokenCacheMisuseError(missingSession))
      return
    }
    if (route !== undefined && route !== complete && !isNavigation((name) => request.headers[name])) {
      forbid(response)
      return
    }
    if (route !== undefined) {
      route(request, response).catch(next)
      return
    }
    guard(request, response, (error) => {
      if (error === undefined) {
        addUser(request)
      }
      next(error)
    })
  }

  function askToSignIn(request: ExpressRequest, response: ExpressResponse): void {
    if (isPage(request) && !routes.has(withoutSlash(request.path))) {
      go(
        response,
        `${new URL(baseUrl + paths.signIn).pathname}?${new URLSearchParams({ returnTo: request.originalUrl })}`
      )
    } else {
      response.sendStatus(401)
    }
  }

  return Object.assign(middleware, {
    tokenCache,
    clients,
    paths,
    baseUrl,
    check: core.check,

    required: ((request, response, next) => {
      if (stateOf(request)?.user === undefined) {
        askToSignIn(request, response)
      } else {
        next()
      }
    }) satisfies ExpressMiddleware,

    onError: ((error, request, response, next) => {
      if (error instanceof SignedOutError && !response.headersSent) {
        askToSignIn(request, response)
      } else {
        next(error)
      }
    }) satisfies ExpressSignIn['onError']
  })
}

const missingSession =
  'a session is missing: put express-session, or cookie-session, before it: app.use(session({ … })), then app.use(signIn)'

function stateOf(request: ExpressRequest): SignInState | undefined {
  return readState(Reflect.get(request, 'session'))
}

function setState(request: ExpressRequest, state: SignInState): void {
  writeState(Reflect.get(request, 'session'), state)
}

function go(response: ExpressResponse, url: string): void {
  response.setHeader('cache-control', 'no-store')
  response.redirect(url)
}

function forbid(response: ExpressResponse): void {
  response.statusCode = 403
  response.setHeader('cache-control', 'no-store')
  response.setHeader('content-type', 'text/plain')
  response.end(notNavigation)
}

function isPage({ method, headers }: ExpressRequest): boolean {
  return method === 'GET' && String(headers.accept ?? '').includes('text/html')
}

function withoutSlash(path: string): string {
  return path.length > 1 ? path.replace(/\/$/, '') : path
}

function textOf(query: unknown, name: string): string | undefined {
  const value = memberOf(query, name)
  return typeof value === 'string' ? value : undefined
}

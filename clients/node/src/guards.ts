import { endSession } from './app-session.ts'
import { TokenCacheMisuseError } from './errors.ts'
import type { GuardedSession } from './guarded-session.ts'
import { isObject, memberOf } from './objects.ts'
import type { TokenCache } from './token-cache.ts'

export interface GuardOptions<Request, Response> {
  readonly tokenCache: Pick<TokenCache, 'isSessionActive'>
  /** The session that a request belongs to; undefined: nobody is signed in, and the request passes. */
  session(request: Request): GuardedSession | null | undefined
  /**
   * Ends the app's own session, and may answer; a request that was not answered goes on as nobody's. Default
   * {@link endSession}.
   */
  end?(request: Request, response: Response): unknown
  /**
   * Where the database cannot be reached within the token cache's `timeoutMs`: `fail`, the default, fails the request with
   * 503; `pass` serves it as if the user were still signed in.
   */
  readonly whenUnavailable?: 'fail' | 'pass'
}

/**
 * An `onRequest` or `preHandler` hook for Fastify that ends the app's session where the user was signed out.
 *
 * @throws {TokenCacheMisuseError} where an option is missing
 */
export function createFastifyGuard<Request extends object, Reply>(options: GuardOptions<Request, Reply>) {
  checkOptions(options, 'createFastifyGuard')
  const { end = endSession } = options
  return async (request: Request, reply: Reply): Promise<void> => {
    if (await isEnded(options, request)) {
      await end(request, reply)
    }
  }
}

/**
 * Middleware for Express and connect that ends the app's session where the user was signed out. It stands behind the
 * middleware that has the session, and before what needs it.
 *
 * @throws {TokenCacheMisuseError} where an option is missing
 */
export function createExpressGuard<Request extends object, Response extends { readonly headersSent: boolean }>(
  options: GuardOptions<Request, Response>
) {
  checkOptions(options, 'createExpressGuard')
  const { end = endSession } = options
  return (request: Request, response: Response, next: (error?: unknown) => void): void => {
    isEnded(options, request)
      .then(async (ended) => {
        if (ended) {
          await end(request, response)
        }
        if (!response.headersSent) {
          next()
        }
      })
      .catch(next)
  }
}

async function isEnded<Request>(
  { tokenCache, session, whenUnavailable }: Omit<GuardOptions<Request, never>, 'end'>,
  request: Request
): Promise<boolean> {
  const current = sessionOf(session, request)
  if (current === undefined || current === null) {
    return false
  }
  try {
    return !(await tokenCache.isSessionActive(current))
  } catch (error) {
    if (whenUnavailable === 'pass' && isUnavailable(error)) {
      return false
    }
    throw error
  }
}

/** @throws {TokenCacheMisuseError} if `session` finds none to look into */
function sessionOf<Request>(
  session: GuardOptions<Request, never>['session'],
  request: Request
): ReturnType<typeof session> {
  try {
    return session(request)
  } catch (cause) {
    throw isObject(memberOf(request, 'session')) || !(cause instanceof TypeError)
      ? cause
      : new TokenCacheMisuseError(
          `the guard's "session" finds nothing to look into (${cause.message}): put express-session, cookie-session, or what else keeps the app's session, before the guard`,
          { cause }
        )
  }
}

function isUnavailable(error: unknown): boolean {
  return memberOf(error, 'isUnavailable') === true
}

/** @throws {TokenCacheMisuseError} */
export function checkWhenUnavailable(whenUnavailable: unknown): void {
  if (whenUnavailable !== undefined && whenUnavailable !== 'fail' && whenUnavailable !== 'pass') {
    throw new TokenCacheMisuseError('"whenUnavailable" must be "fail" or "pass"')
  }
}

interface UncheckedOptions {
  readonly tokenCache: unknown
  readonly session: unknown
  readonly whenUnavailable?: unknown
}

function checkOptions(options: UncheckedOptions | undefined, name: string): void {
  if (!isObject(options?.tokenCache) || typeof options.session !== 'function') {
    throw new TokenCacheMisuseError(
      `${name} takes { tokenCache, session }, with session: (request) => request.session.account, or what else has iss, sid and sub of the ID token`
    )
  }
  checkWhenUnavailable(options.whenUnavailable)
}

import type { TokenCache } from './index.ts'

/** What an app's own session must remember of the ID token. */
export interface GuardedSession {
  readonly issuer: string
  readonly sid: string
}

export interface GuardOptions<Request, Response> {
  readonly tokenCache: Pick<TokenCache, 'isSessionActive'>
  /** The session that a request belongs to; undefined: nobody is signed in, and the request passes. */
  session(request: Request): GuardedSession | undefined
  /** Ends the app's own session, and may answer; a request that was not answered goes on as nobody's. */
  end(request: Request, response: Response): unknown
}

/**
 * An `onRequest` or `preHandler` hook for Fastify that ends the app's session where the user was signed out.
 * Rejects, and so fails the request, where the database is out of reach.
 */
export function createFastifyGuard<Request, Reply>(options: GuardOptions<Request, Reply>) {
  return async (request: Request, reply: Reply): Promise<void> => {
    if (await isEnded(options, request)) {
      await options.end(request, reply)
    }
  }
}

/**
 * Middleware for Express and connect that ends the app's session where the user was signed out.
 * Passes an error on, and so fails the request, where the database is out of reach.
 */
export function createExpressGuard<Request, Response extends { readonly headersSent: boolean }>(
  options: GuardOptions<Request, Response>
) {
  return (request: Request, response: Response, next: (error?: unknown) => void): void => {
    isEnded(options, request)
      .then(async (ended) => {
        if (ended) {
          await options.end(request, response)
        }
        if (!response.headersSent) {
          next()
        }
      })
      .catch(next)
  }
}

async function isEnded<Request>(
  { tokenCache, session }: Pick<GuardOptions<Request, unknown>, 'tokenCache' | 'session'>,
  request: Request
): Promise<boolean> {
  const current = session(request)
  return current !== undefined && !(await tokenCache.isSessionActive(current))
}

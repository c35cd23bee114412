import { isObject, memberOf } from './objects.ts'

/**
 * Ends the app's own session of a request, so that the request goes on as nobody's: with passport, express-session,
 * @fastify/session, cookie-session, iron-session, or whatever else keeps plain members on `request.session`.
 *
 * The session is replaced by an empty one where it can be, and not only removed: a handler behind it reads
 * `request.session.cart`, and must find a session that has none. Its id is a new one, too.
 */
export async function endSession(request: object): Promise<void> {
  const session: unknown = Reflect.get(request, 'session')
  const logout: unknown = Reflect.get(request, 'logout') // of passport
  if (isCallable(session, 'regenerate') && isCallable(session, 'save') && typeof logout === 'function') {
    await callBack((done) => logout.call(request, done))
  } else if (isCallable(session, 'regenerate')) {
    await callBack((done) => session.regenerate(done))
  } else if (isCallable(session, 'destroy')) {
    await callBack((done) => session.destroy(done), session.destroy.length)
  } else if (isObject(session)) {
    // Of cookie-session: setting it to null would leave handlers without any, and a new one would not be saved.
    for (const name of Object.keys(session)) {
      Reflect.deleteProperty(session, name)
    }
  }
  if (Reflect.has(request, 'user')) {
    Reflect.set(request, 'user', undefined)
  }
}

/** A new id for who has just signed in, so that an older one is worth nothing (session fixation). */
export async function renewSession(request: object): Promise<void> {
  const session: unknown = Reflect.get(request, 'session')
  if (isCallable(session, 'regenerate')) {
    await callBack((done) => session.regenerate(done))
  }
}

type Callable<Name extends string> = Record<Name, (...args: unknown[]) => unknown>

function isCallable<Name extends string>(value: unknown, name: Name): value is Callable<Name> {
  return typeof memberOf(value, name) === 'function'
}

/** Waits for what takes a callback, returns a promise, or both; or, without parameters, neither. */
function callBack(work: (done: (error?: unknown) => void) => unknown, parameters = 1): Promise<void> {
  return new Promise((resolve, reject) => {
    const done = (error?: unknown): void => (error ? reject(error) : resolve())
    try {
      const result = work(done)
      if (isCallable(result, 'then')) {
        result.then(() => resolve(), reject)
      } else if (parameters === 0) {
        resolve()
      }
    } catch (error) {
      reject(error)
    }
  })
}

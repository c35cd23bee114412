import { isObject, memberOf } from './objects.ts'
import type { PendingSignIn, SignedInUser } from './sign-in.ts'

/** What the app's own session has of us: never a token. */
export interface SignInState {
  readonly user?: SignedInUser
  readonly pending?: readonly PendingSignIn[]
}

const member = 'msalLogout'
const maxPending = 3 // tabs in which a sign-in is under way; a session in a cookie has 4 KB

/** From a session, or a cookie that was signed: written by us alone, perhaps by another release. */
export function readState(session: unknown): SignInState | undefined {
  const state = memberOf(session, member)
  return isState(state) ? state : undefined
}

export function writeState(session: unknown, state: SignInState): void {
  if (isObject(session)) {
    Reflect.set(session, member, state)
  }
}

export function addPending(state: SignInState | undefined, pending: PendingSignIn): SignInState {
  return { ...state, pending: [...(state?.pending ?? []), pending].slice(-maxPending) }
}

export function isState(state: unknown): state is SignInState {
  if (!isObject(state)) {
    return false
  }
  const { user, pending } = state
  return (
    (user === undefined || hasTexts(user, ['homeAccountId', 'issuer', 'subject'])) &&
    (pending === undefined ||
      (Array.isArray(pending) && pending.every((each) => hasTexts(each, ['state', 'nonce', 'verifier', 'returnTo']))))
  )
}

function hasTexts(value: unknown, names: readonly string[]): boolean {
  return isObject(value) && names.every((name) => typeof value[name] === 'string')
}

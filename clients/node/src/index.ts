export { endSession } from './app-session.ts'
export { type Clients, type ClientsOptions, createClients } from './clients.ts'
export { type ConnectionGuard, type ConnectionGuardOptions, createConnectionGuard } from './connections.ts'
export type { Pool, PoolClient, Statement } from './database.ts'
export type { Encryption } from './encoding.ts'
export {
  isSignInRequired,
  ProviderUnavailableError,
  SignedOutError,
  SignInFailedError,
  TokenCacheDatabaseError,
  type TokenCacheDatabaseErrorOptions,
  TokenCacheMisuseError,
  TokenCacheTooLargeError
} from './errors.ts'
export type { GuardedSession, SessionQuery } from './guarded-session.ts'
export { createExpressGuard, createFastifyGuard, type GuardOptions } from './guards.ts'
export type { PurgeListener } from './listener.ts'
export type { CacheContext, CachePlugin, LoginChecks } from './plugin.ts'
export type { RevokedSession } from './rows.ts'
export {
  type BeginOptions,
  createSignIn,
  type Paths,
  type PendingSignIn,
  type SignedInUser,
  type SignIn,
  type SignInOptions
} from './sign-in.ts'
export { createTokenCache, type TokenCache, type TokenCacheOptions } from './token-cache.ts'

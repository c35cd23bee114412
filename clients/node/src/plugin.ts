import { createHash } from 'node:crypto'
import {
  accountsOf,
  adoptOrphans,
  audiencesOf,
  type Change,
  type Contents,
  decodeClaims,
  isSameSession,
  leaveOneOfEach,
  mergeContents,
  noncesOf,
  ownContents,
  parseContents,
  type SessionClaims,
  sessionOf,
  sessionsOf
} from './contents.ts'
import { type Codec, type Decoded, pendingPayload } from './encoding.ts'
import { SignedOutError, SignInFailedError, TokenCacheDatabaseError, TokenCacheMisuseError } from './errors.ts'
import { memberOf } from './objects.ts'
import type { Login, Rows, RowVersion } from './rows.ts'

/** MSAL's `ICachePlugin`, whatever version of MSAL and copy of it the app has. */
export interface CachePlugin {
  beforeCacheAccess(context: CacheContext): Promise<void>
  afterCacheAccess(context: CacheContext): Promise<void>
}

/** As much of MSAL's `TokenCacheContext` as is used. */
export interface CacheContext {
  readonly cacheHasChanged: boolean
  readonly tokenCache: {
    serialize(): string
    deserialize(cache: string): void
  }
}

export interface PluginOptions {
  readonly rows: Rows
  readonly codec: Codec
  readonly clientId: string
  readonly warn: (message: string) => void
}

/** What a row holds: as MSAL reads it, and parsed when somebody asks, since a silent token needs the text alone. */
class Read {
  readonly text: string
  readonly #warn: PluginOptions['warn']
  #contents: Contents | undefined

  constructor(text: string, warn: PluginOptions['warn'], contents?: Contents) {
    this.text = text
    this.#warn = warn
    this.#contents = contents
  }

  get contents(): Contents {
    this.#contents ??= parseContents(this.text)
    if (this.#contents === undefined) {
      this.#warn(undecodable('it is no JSON object'))
      this.#contents = {}
    }
    return this.#contents
  }
}

interface Loaded extends RowVersion {
  readonly read: Read
}

const maxTries = 32 // each lost try is another writer's success
const twoAccounts = 'two accounts in one ConfidentialClientApplication: make one for each sign-in'

/** What the ID token of a login must bear; else nothing is stored. */
export interface LoginChecks {
  /** That which the sign-in began with. MSAL Node before 6 does not compare it. */
  readonly nonce?: string | undefined
  /** Whose ID token it must be: `issuer` of the discovery document. */
  readonly issuer?: string | undefined
}

/** For the client application that redeems the code: reads nothing before, and is the only one to make a row. */
export function createLoginPlugin(options: PluginOptions, checks: LoginChecks = {}): CachePlugin {
  let signedIn: ReturnType<typeof createAccountRow> | undefined
  return createPlugin(options, {
    load: async () => signedIn?.load(),
    isOwn: (entities) => signedIn?.isOwn(entities) ?? false,
    own: (contents) => signedIn?.own(contents) ?? {},
    async store(ours, base) {
      if (signedIn !== undefined) {
        return signedIn.store(ours, base)
      }
      const homeAccountId = onlyAccount(ours)
      const row = createAccountRow(options, homeAccountId, homeAccountId)
      const own = ownContents(ours, homeAccountId, Date.now() / 1_000)
      const session = newestSession(own, options.clientId)
      checkLogin(noncesOf(own, options.clientId), session, checks)
      await row.login(own, session, 'user')
      for (const further of sessionsOf(own, options.clientId).filter((other) => !isSameSession(other, session))) {
        await row.addSession(further)
      }
      signedIn = row
    },
    remove: async () => signedIn?.remove()
  })
}

/** For one operation of a user who is signed in: never makes a row. */
export function createAccountPlugin(options: PluginOptions, homeAccountId: string): CachePlugin {
  const row = createAccountRow(options, homeAccountId, homeAccountId)
  return createPlugin(options, row)
}

/** For one on-behalf-of operation: a row by assertion, which bears the user's account, so that a purge finds it. */
export function createAssertionPlugin(options: PluginOptions, assertion: string): CachePlugin {
  const partitionKey = createHash('sha256').update(assertion).digest('base64url')
  let row: ReturnType<typeof createAccountRow> | undefined
  return createPlugin(options, {
    async load() {
      const stored = await readRow(options, partitionKey)
      const [homeAccountId] = stored === undefined ? [] : accountsOf(stored.read.contents)
      if (homeAccountId === undefined) {
        return undefined
      }
      row ??= createAccountRow(options, partitionKey, homeAccountId)
      return row.load()
    },
    isOwn: (entities) => row?.isOwn(entities) ?? false,
    own: (contents) => row?.own(contents) ?? {},
    async store(ours, base) {
      if (row !== undefined) {
        return row.store(ours, base)
      }
      const homeAccountId = onlyAccount(ours)
      const own = ownContents(ours, homeAccountId, Date.now() / 1_000)
      const fresh = createAccountRow(options, partitionKey, homeAccountId)
      await fresh.login(own, assertedSession(assertion, newestSession(own, options.clientId)), 'obo')
      row = fresh
    },
    remove: async () => row?.remove()
  })
}

/** For client credentials: no account, and the last writer wins. */
export function createAppPlugin(options: PluginOptions, partitionKey: string): CachePlugin {
  const { rows, codec, clientId } = options
  // An app's row has no generation of its own to bind: it is never another user's.
  const place = { clientId, partitionKey, generation: 'app' }
  return createPlugin(options, {
    async load() {
      const row = await rows.load(partitionKey)
      return row && readOf(await codec.decode(row, place), options.warn)
    },
    isOwn: () => true,
    own: (contents) => contents,
    async store(ours) {
      if (accountsOf(ours).size > 0) {
        throw new TokenCacheMisuseError('forApp is for client credentials: use forLogin or forAccount for a user')
      }
      await rows.storeApp(partitionKey, await codec.encode(JSON.stringify(ours), place))
    },
    remove: async () => {}
  })
}

/** The one row of an account at a partition: its generation is pinned by the first load or login. */
function createAccountRow(options: PluginOptions, partitionKey: string, homeAccountId: string) {
  const { rows, codec, clientId, warn } = options
  // Null once there was no row: whatever comes later belongs to another login.
  let pinned: string | null | undefined
  let version: string | undefined

  async function load(): Promise<Read | undefined> {
    const row = await readRow(options, partitionKey)
    pinned ??= row?.generation ?? null
    if (row === undefined || row.generation !== pinned) {
      return undefined
    }
    version = row.version
    return row.read
  }

  /** Whatever another program may have put there: MSAL is never shown another account's tokens. */
  function own(contents: Contents): Contents {
    return leaveOneOfEach(ownContents(contents, homeAccountId, 0), undefined)
  }

  function checkSid({ sid }: SessionClaims): void {
    if (sid === null) {
      warn(
        'an ID token bears no "sid": a logout by sid cannot find this login. At Entra ID add the optional claim "sid" to ID tokens (App registration, Token configuration)'
      )
    }
  }

  async function addSession(session: SessionClaims): Promise<void> {
    checkSid(session)
    if (!(await rows.addSession(partitionKey, session))) {
      throw new SignedOutError()
    }
  }

  /** Saves what MSAL has changed, onto what others have saved meanwhile. */
  async function save(generation: string, change: Change): Promise<void> {
    let contents = change.ours
    for (let tries = 0; tries < maxTries && version !== undefined; tries += 1) {
      const kept = leaveOneOfEach(ownContents(contents, homeAccountId, Date.now() / 1_000), change)
      const encoded = await codec.encode(JSON.stringify(kept), { clientId, partitionKey, generation })
      const saved = await rows.save(partitionKey, { generation, version }, encoded)
      if (saved.outcome === 'saved') {
        version = saved.version
        return
      }
      const theirs = saved.outcome === 'conflict' ? await load() : undefined
      if (theirs === undefined) {
        throw new SignedOutError()
      }
      contents = mergeContents(change.base, change.ours, own(theirs.contents))
    }
    throw new TokenCacheDatabaseError(`the row was changed by others ${maxTries} times in a row`, {
      isUnavailable: true
    })
  }

  return {
    load,
    own,
    addSession,

    /** Whether `own` would leave all of it, as MSAL has it in memory: nearly always, and found without parsing again. */
    isOwn(entities: readonly unknown[]): boolean {
      let idTokens = 0
      let refreshTokens = 0
      for (const entity of entities) {
        const owner = memberOf(entity, 'homeAccountId')
        if (owner !== undefined && owner !== homeAccountId) {
          return false
        }
        const type = memberOf(entity, 'credentialType')
        idTokens += type === 'IdToken' ? 1 : 0
        refreshTokens += type === 'RefreshToken' ? 1 : 0
      }
      return idTokens < 2 && refreshTokens < 2
    },

    /**
     * Stores a login. A payload that is encrypted depends on the row's generation, which a new row is given by this very
     * call. It then begins empty, which grants nothing to anybody, and its payload follows; no transaction is open
     * meanwhile. What dies in between leaves an empty row: the user signs in again. A row that is there is never emptied,
     * since its generation is known before.
     */
    async login(contents: Contents, session: SessionClaims, kind: Login['kind']): Promise<void> {
      checkSid(session)
      const generation = codec.bindsGeneration ? (await rows.load(partitionKey))?.generation : 'any'
      const encoded =
        generation === undefined
          ? pendingPayload
          : await codec.encode(JSON.stringify(contents), { clientId, partitionKey, generation })
      const row = await rows.login({ partitionKey, homeAccountId, session, kind }, encoded)
      if (row === undefined) {
        throw new SignedOutError()
      }
      pinned = row.generation
      version = row.version
      if (codec.bindsGeneration && generation !== row.generation) {
        try {
          await save(row.generation, { ours: contents, base: {} })
        } catch (error) {
          // The row of a login that failed is of no use; where it cannot be deleted either, it stays empty.
          await rows.forget(partitionKey, row.generation).catch(() => {})
          throw error
        }
      }
    },

    /** Saves what has changed since `base`, and registers the sessions that are new. */
    async store(changed: Contents, base: Contents | undefined): Promise<void> {
      if (base === undefined || typeof pinned !== 'string') {
        throw new SignedOutError()
      }
      if ([...accountsOf(changed)].some((id) => id !== homeAccountId)) {
        throw new TokenCacheMisuseError(twoAccounts)
      }
      const ours = adoptOrphans(changed, base, homeAccountId)
      const known = sessionsOf(base, clientId)
      for (const session of sessionsOf(ours, clientId)) {
        // OIDC Core 1.0 §12.2: the ID token of a refresh may lack what the first one told.
        if (!known.some((other) => isSameSession(session, other) || isSameSession(session, { ...other, sid: null }))) {
          await addSession(session)
        }
      }
      await save(pinned, { ours, base })
    },

    async remove(): Promise<void> {
      if (typeof pinned === 'string') {
        await rows.forget(partitionKey, pinned)
      }
    }
  }
}

/** Reads and decodes a row; one that cannot be decoded counts as empty, and is replaced by the next save. */
async function readRow(
  { rows, codec, clientId, warn }: PluginOptions,
  partitionKey: string
): Promise<Loaded | undefined> {
  const row = await rows.load(partitionKey)
  if (row === undefined) {
    return undefined
  }
  const { generation, version } = row
  const decoded = await codec.decode(row, { clientId, partitionKey, generation })
  return { generation, version, read: readOf(decoded, warn) }
}

function readOf(decoded: Decoded, warn: PluginOptions['warn']): Read {
  if (decoded.kind === 'plain') {
    warn(
      decoded.text === undefined
        ? 'a row of the token cache is not encrypted, and is treated as empty. From before encryption was turned on? Then set "allowPlain" until all rows have been re-written'
        : 'a row of the token cache is not encrypted; the next save encrypts it. Remove "allowPlain" when no row is plain any more: select encoding, count(*) from msal_logout.token_cache group by encoding'
    )
  }
  if (decoded.kind === 'undecodable') {
    warn(undecodable(decoded.reason))
  }
  const text = decoded.kind === 'text' || decoded.kind === 'plain' ? (decoded.text ?? '{}') : '{}'
  return new Read(text, warn)
}

const undecodable = (reason: string) =>
  `a row of the token cache cannot be decoded, and is treated as empty until its user signs in again: ${reason}`

interface Source {
  /** What is stored now, or undefined where nothing is. */
  load(): Promise<Read | undefined>
  /** What MSAL may be shown of it. */
  own(contents: Contents): Contents
  /** Whether that is all of it, by the entities that MSAL has read. */
  isOwn(entities: readonly unknown[]): boolean
  /** Stores what MSAL has now; `base` is what was loaded for this operation. */
  store(ours: Contents, base: Contents | undefined): Promise<void>
  /** MSAL has removed the account. */
  remove(): Promise<void>
}

/** MSAL's two hooks around a source: empties the memory before each load, and never writes after a load that failed. */
function createPlugin({ clientId, warn }: PluginOptions, source: Source): CachePlugin {
  let owner: CacheContext['tokenCache'] | undefined
  let current: CacheContext | undefined
  let base: Read | undefined

  /** Puts what was loaded into MSAL's memory, which is empty. */
  function show(context: CacheContext, loaded: Read): Read {
    if (loaded.text.startsWith('{')) {
      try {
        context.tokenCache.deserialize(loaded.text)
        if (source.isOwn(Object.values(storeOf(context)))) {
          return loaded
        }
      } catch {} // no JSON, or not as MSAL writes it: what is left of it is shown below
    }
    const contents = source.own(loaded.contents)
    const text = JSON.stringify(contents)
    empty(context)
    context.tokenCache.deserialize(text)
    return new Read(text, warn, contents)
  }

  return {
    async beforeCacheAccess(context) {
      if ((owner ?? context.tokenCache) !== context.tokenCache) {
        throw new TokenCacheMisuseError('one plugin serves one ConfidentialClientApplication: make a new one of each')
      }
      if (current !== undefined) {
        throw new TokenCacheMisuseError(
          'one ConfidentialClientApplication serves one operation at a time: make one for each operation, it costs microseconds'
        )
      }
      if (owner === undefined) {
        checkOwner(context.tokenCache, clientId)
      }
      owner = context.tokenCache
      current = context
      try {
        const loaded = await source.load()
        empty(context)
        if (loaded === undefined) {
          context.tokenCache.deserialize('') // else MSAL puts back what it was shown last
        }
        base = loaded && show(context, loaded)
      } catch (error) {
        current = undefined
        throw error
      }
    },

    async afterCacheAccess(context) {
      if (current !== context) {
        return // its load failed, or it was refused: what is in memory is not the row's
      }
      current = undefined
      if (!context.cacheHasChanged) {
        return
      }
      const ours = parseContents(context.tokenCache.serialize()) ?? {}
      try {
        if (base !== undefined && accountsOf(base.contents).size > 0 && accountsOf(ours).size === 0) {
          await source.remove()
        } else {
          await source.store(ours, base?.contents)
        }
      } catch (error) {
        if (error instanceof SignedOutError) {
          empty(context)
          context.tokenCache.deserialize('')
        }
        throw error
      }
    }
  }
}

/**
 * At the first access, so that a mistake is found by the first sign-in.
 *
 * @throws {TokenCacheMisuseError} where MSAL is too old, or has another client id than the token cache
 */
function checkOwner(tokenCache: CacheContext['tokenCache'], clientId: string): void {
  // Since 3.2.0; before it acquireTokenSilent looks in memory alone.
  if (!('overwriteCache' in tokenCache)) {
    throw new TokenCacheMisuseError(
      'this version of @azure/msal-node does not read a shared cache: update it to 3.2.0 or later'
    )
  }
  const found = memberOf(memberOf(tokenCache, 'storage'), 'clientId')
  if (typeof found === 'string' && found !== clientId) {
    throw new TokenCacheMisuseError(otherClient([found], clientId))
  }
}

function otherClient(found: readonly string[], clientId: string): string {
  return `the token cache is for the client id "${clientId}", and MSAL has "${found.join('", "')}": give both the same`
}

/** MSAL's `deserialize` only ever adds to its memory: what is stale there must be taken out by hand. */
function empty(context: CacheContext): void {
  const store = storeOf(context)
  for (const [key, entity] of Object.entries(store)) {
    if (memberOf(entity, 'homeAccountId') !== undefined || key.startsWith('appmetadata-')) {
      Reflect.deleteProperty(store, key)
    }
  }
}

function storeOf({ tokenCache }: CacheContext): object {
  const store: unknown =
    'getKVStore' in tokenCache && typeof tokenCache.getKVStore === 'function' ? tokenCache.getKVStore() : undefined
  if (typeof store !== 'object' || store === null) {
    throw new TokenCacheMisuseError('this version of @azure/msal-node has no getKVStore on its token cache')
  }
  return store
}

function onlyAccount(contents: Contents): string {
  const [homeAccountId, ...others] = accountsOf(contents)
  if (homeAccountId === undefined || others.length > 0) {
    throw new TokenCacheMisuseError(
      homeAccountId === undefined
        ? 'no account to store: use forApp for client credentials, and ask for the scope "openid" for a user'
        : twoAccounts
    )
  }
  return homeAccountId
}

function newestSession(contents: Contents, clientId: string): SessionClaims {
  const [session] = sessionsOf(contents, clientId).sort((a, b) => b.issuedAt - a.issuedAt)
  if (session === undefined) {
    const audiences = audiencesOf(contents)
    throw new TokenCacheMisuseError(
      audiences.length > 0 && !audiences.includes(clientId)
        ? otherClient(audiences, clientId)
        : 'no ID token with "iss", "sub" and "iat" came with this login: ask for the scope "openid"'
    )
  }
  return session
}

/**
 * OpenID Connect Core 1.0 §3.1.3.7. The signature is not asked for: the ID token came from the provider itself, over TLS.
 *
 * @throws {SignInFailedError}
 */
function checkLogin(nonces: readonly unknown[], session: SessionClaims, { nonce, issuer }: LoginChecks): void {
  if (nonce !== undefined && !nonces.every((found) => found === nonce)) {
    throw new SignInFailedError('the ID token has another "nonce" than this sign-in')
  }
  if (issuer !== undefined && session.issuer !== issuer) {
    throw new SignInFailedError('the ID token bears another "iss" than the provider')
  }
}

/** Of an on-behalf-of login: as old as the assertion, so that a logout since then refuses it. */
function assertedSession(assertion: string, session: SessionClaims): SessionClaims {
  const claims = decodeClaims(assertion)
  const asserted = claims && sessionOf(claims)
  return asserted === undefined
    ? session
    : { ...session, sid: session.sid ?? asserted.sid, issuedAt: Math.min(session.issuedAt, asserted.issuedAt) }
}

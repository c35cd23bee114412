import { createHash } from 'node:crypto'
import type { ICachePlugin, TokenCacheContext } from '@azure/msal-node'
import {
  accountsOf,
  type Contents,
  decodeClaims,
  isSameSession,
  mergeContents,
  ownContents,
  parseContents,
  type SessionClaims,
  sessionOf,
  sessionsOf
} from './contents.ts'
import type { Codec, Encoded } from './encoding.ts'
import { SignedOutError, TokenCacheMisuseError } from './errors.ts'
import type { Login, Row, Rows } from './rows.ts'

export interface PluginOptions {
  readonly rows: Rows
  readonly codec: Codec
  readonly clientId: string
  readonly warn: (message: string) => void
}

type RowVersion = Pick<Row, 'generation' | 'version'>

/** What a row held when it was last read or written. */
interface Loaded extends RowVersion {
  readonly contents: Contents
  /** The same, serialized: what MSAL reads once more. */
  readonly text: string
}

const maxTries = 32 // each lost try is another writer's success
const twoAccounts = 'two accounts in one ConfidentialClientApplication: make one for each sign-in'

/** For the client application that redeems the code: reads nothing before, and is the only one to make a row. */
export function createLoginPlugin(options: PluginOptions): ICachePlugin {
  let signedIn: ReturnType<typeof createAccountRow> | undefined
  return createPlugin({
    load: async () => signedIn?.load(),
    async store(ours, base) {
      if (signedIn !== undefined) {
        return signedIn.store(ours, base)
      }
      const homeAccountId = onlyAccount(ours)
      const row = createAccountRow(options, homeAccountId, homeAccountId)
      const own = ownContents(ours, homeAccountId, Date.now() / 1_000)
      const sessions = sessionsOf(own, options.clientId)
      const session = newest(sessions)
      await row.login(own, session, 'user')
      for (const further of sessions.filter((other) => !isSameSession(other, session))) {
        await row.addSession(further)
      }
      signedIn = row
    },
    remove: async () => signedIn?.remove()
  })
}

/** For one operation of a user who is signed in: never makes a row. */
export function createAccountPlugin(options: PluginOptions, homeAccountId: string): ICachePlugin {
  const row = createAccountRow(options, homeAccountId, homeAccountId)
  return createPlugin(row)
}

/** For one on-behalf-of operation: a row by assertion, which bears the user's account, so that a purge finds it. */
export function createAssertionPlugin(options: PluginOptions, assertion: string): ICachePlugin {
  const partitionKey = createHash('sha256').update(assertion).digest('base64url')
  let row: ReturnType<typeof createAccountRow> | undefined
  return createPlugin({
    async load() {
      const stored = await readRow(options, partitionKey)
      const [homeAccountId] = stored === undefined ? [] : accountsOf(stored.contents)
      if (homeAccountId === undefined) {
        return undefined
      }
      row ??= createAccountRow(options, partitionKey, homeAccountId)
      return row.load()
    },
    async store(ours, base) {
      if (row !== undefined) {
        return row.store(ours, base)
      }
      const homeAccountId = onlyAccount(ours)
      const own = ownContents(ours, homeAccountId, Date.now() / 1_000)
      const fresh = createAccountRow(options, partitionKey, homeAccountId)
      await fresh.login(own, assertedSession(assertion, newest(sessionsOf(own, options.clientId))), 'obo')
      row = fresh
    },
    remove: async () => row?.remove()
  })
}

/** For client credentials: no account, and the last writer wins. */
export function createAppPlugin({ rows, codec, clientId }: PluginOptions, partitionKey: string): ICachePlugin {
  // An app's row has no generation of its own to bind: it is never another user's.
  const place = { clientId, partitionKey, generation: 'app' }
  return createPlugin({
    async load() {
      const row = await rows.load(partitionKey)
      const text = row && (await codec.decode(row, place))
      const contents = text === undefined ? undefined : parseContents(text)
      return text === undefined || contents === undefined ? undefined : { contents, text }
    },
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

  async function load(): Promise<Loaded | undefined> {
    const row = await readRow(options, partitionKey)
    pinned ??= row?.generation ?? null
    if (row === undefined || row.generation !== pinned) {
      return undefined
    }
    version = row.version
    // Whatever another program may have put there: MSAL is never shown another account's tokens.
    const contents = ownContents(row.contents, homeAccountId, 0)
    return contents === row.contents ? row : { ...row, contents, text: JSON.stringify(contents) }
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

  return {
    load,
    addSession,

    async login(own: Contents, session: SessionClaims, kind: Login['kind']): Promise<void> {
      checkSid(session)
      const text = JSON.stringify(own)
      const login = { partitionKey, homeAccountId, session, kind }
      const encode = (generation: string): Promise<Encoded> =>
        codec.encode(text, { clientId, partitionKey, generation })
      const row = await (codec.bindsGeneration ? rows.loginBound(login, encode) : rows.login(login, await encode('')))
      if (row === undefined) {
        throw new SignedOutError()
      }
      pinned = row.generation
      version = row.version
    },

    /** Saves what has changed since `base`, onto what others have saved meanwhile. */
    async store(ours: Contents, base: Contents | undefined): Promise<void> {
      if (base === undefined || typeof pinned !== 'string' || version === undefined) {
        throw new SignedOutError()
      }
      if ([...accountsOf(ours)].some((id) => id !== homeAccountId)) {
        throw new TokenCacheMisuseError(twoAccounts)
      }
      const known = sessionsOf(base, clientId)
      for (const session of sessionsOf(ours, clientId)) {
        // OIDC Core 1.0 §12.2: the ID token of a refresh may lack what the first one told.
        if (!known.some((other) => isSameSession(session, other) || isSameSession(session, { ...other, sid: null }))) {
          await addSession(session)
        }
      }
      let contents = ours
      for (let tries = 0; tries < maxTries; tries += 1) {
        const own = ownContents(contents, homeAccountId, Date.now() / 1_000)
        const encoded = await codec.encode(JSON.stringify(own), { clientId, partitionKey, generation: pinned })
        const saved = await rows.save(partitionKey, { generation: pinned, version }, encoded)
        if (saved.outcome === 'saved') {
          version = saved.version
          return
        }
        const theirs = saved.outcome === 'conflict' ? await load() : undefined
        if (theirs === undefined) {
          throw new SignedOutError()
        }
        contents = mergeContents(base, ours, theirs.contents)
      }
      throw new Error(`the row was changed by others ${maxTries} times in a row`)
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
  const text = await codec.decode(row, { clientId, partitionKey, generation: row.generation })
  const contents = text === undefined ? undefined : parseContents(text)
  const { generation, version } = row
  if (text === undefined || contents === undefined) {
    warn('a row of the token cache cannot be decoded (another key, or damaged); it is treated as empty')
    return { generation, version, contents: {}, text: '{}' }
  }
  return { generation, version, contents, text }
}

interface Source {
  /** What is stored now, or undefined where nothing is. */
  load(): Promise<Pick<Loaded, 'contents' | 'text'> | undefined>
  /** Stores what MSAL has now; `base` is what was loaded for this operation. */
  store(ours: Contents, base: Contents | undefined): Promise<void>
  /** MSAL has removed the account. */
  remove(): Promise<void>
}

/** MSAL's two hooks around a source: empties the memory before each load, and never writes after a load that failed. */
function createPlugin(source: Source): ICachePlugin {
  let owner: TokenCacheContext['tokenCache'] | undefined
  let current: TokenCacheContext | undefined
  let base: Contents | undefined

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
      owner = context.tokenCache
      current = context
      try {
        const loaded = await source.load()
        base = loaded?.contents
        empty(context)
        context.tokenCache.deserialize(loaded?.text ?? '')
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
        if (base !== undefined && accountsOf(base).size > 0 && accountsOf(ours).size === 0) {
          await source.remove()
        } else {
          await source.store(ours, base)
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

/** MSAL's `deserialize` only ever adds to its memory: what is stale there must be taken out by hand. */
function empty({ tokenCache }: TokenCacheContext): void {
  const store: unknown =
    'getKVStore' in tokenCache && typeof tokenCache.getKVStore === 'function' ? tokenCache.getKVStore() : undefined
  if (typeof store !== 'object' || store === null) {
    throw new TokenCacheMisuseError('this version of @azure/msal-node has no getKVStore on its token cache: update it')
  }
  for (const [key, entity] of Object.entries(store)) {
    const isEntity = typeof entity === 'object' && entity !== null && 'homeAccountId' in entity
    if (isEntity || key.startsWith('appmetadata-')) {
      Reflect.deleteProperty(store, key)
    }
  }
}

function onlyAccount(contents: Contents): string {
  const [homeAccountId, ...others] = accountsOf(contents)
  if (homeAccountId === undefined || others.length > 0) {
    throw new TokenCacheMisuseError(
      homeAccountId === undefined ? 'no account to store: use forApp for client credentials' : twoAccounts
    )
  }
  return homeAccountId
}

function newest(sessions: readonly SessionClaims[]): SessionClaims {
  const [session] = [...sessions].sort((a, b) => b.issuedAt - a.issuedAt)
  if (session === undefined) {
    throw new TokenCacheMisuseError('no ID token for this client id: ask for the scope "openid"')
  }
  return session
}

/** Of an on-behalf-of login: as old as the assertion, so that a logout since then refuses it. */
function assertedSession(assertion: string, session: SessionClaims): SessionClaims {
  const claims = decodeClaims(assertion)
  const asserted = claims && sessionOf(claims)
  return asserted === undefined
    ? session
    : { ...session, sid: session.sid ?? asserted.sid, issuedAt: Math.min(session.issuedAt, asserted.issuedAt) }
}

// `npm run test:msal`: every minor version of MSAL Node from 3.2 to the newest, from the registry, each with the package
// as it is required. What each writes the others read.
import { execFileSync } from 'node:child_process'
import { randomUUID } from 'node:crypto'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type * as Msal from '@azure/msal-node'
import t from 'tap'
import type * as Client from '../../clients/node/src/index.ts'
import { createDatabase, type Database } from '../fixtures/database.ts'
import { audience, authority, codeOf, createTokenEndpoint, type Person, type TokenEndpoint } from '../fixtures/msal.ts'
import { signOutBySql } from '../fixtures/orders.ts'

const { createTokenCache, isSignInRequired }: typeof Client = createRequire(import.meta.url)('msal-logout-client')

const folder = mkdtempSync(join(tmpdir(), 'msal-logout-msal-'))
t.teardown(() => rmSync(folder, { recursive: true, force: true }))
const versions = installVersions()
const require = createRequire(join(folder, 'index.js'))
const entra = 'https://login.microsoftonline.com/11111111-1111-1111-1111-111111111111'

/** The last of each minor version, and the first that is supported. */
function installVersions(): string[] {
  const all: string[] = JSON.parse(execFileSync('npm', ['view', '@azure/msal-node', 'versions', '--json']).toString())
  const lasts = new Map<string, string>()
  for (const version of all.filter((each) => /^\d+\.\d+\.\d+$/.test(each))) {
    const [major = 0, minor = 0] = version.split('.').map(Number)
    if (major > 3 || (major === 3 && minor >= 2)) {
      lasts.set(`${major}.${minor}`, version)
    }
  }
  const chosen = [...new Set(['3.2.0', ...lasts.values()])]
  const dependencies = Object.fromEntries(
    chosen.map((version) => [`msal-${version}`, `npm:@azure/msal-node@${version}`])
  )
  writeFileSync(join(folder, 'package.json'), JSON.stringify({ private: true, dependencies }))
  execFileSync('npm', ['install', '--ignore-scripts', '--no-audit', '--no-fund'], { cwd: folder, stdio: 'ignore' })
  return chosen
}

type Kind = 'openid' | 'entra'

function createClient(version: string, cachePlugin: Client.CachePlugin, networkClient: TokenEndpoint, kind: Kind) {
  const { ConfidentialClientApplication }: typeof Msal = require(`msal-${version}`)
  const metadata = {
    issuer: authority,
    authorization_endpoint: `${authority}/authorize`,
    token_endpoint: `${authority}/token`,
    jwks_uri: `${authority}/keys`
  }
  const openid = {
    authority,
    knownAuthorities: ['login.example'],
    authorityMetadata: JSON.stringify(metadata),
    protocolMode: 'OIDC'
  }
  return new ConfidentialClientApplication({
    auth: { clientId: audience, clientSecret: 'secret', ...(kind === 'openid' ? openid : { authority: entra }) },
    system: { networkClient, ...(kind === 'openid' ? { protocolMode: 'OIDC' } : {}) },
    cache: { cachePlugin }
  })
}

async function build(kind: Kind, database: Database) {
  const warnings: string[] = []
  const tokenCache = createTokenCache({
    pool: database.pool,
    clientId: audience,
    onWarning: (message) => warnings.push(message)
  })
  const endpoint = createTokenEndpoint()
  const person: Person = {
    homeAccountId: kind === 'openid' ? `Sub-${randomUUID()}` : `${randomUUID()}.tenant`,
    subject: '',
    sid: randomUUID(),
    issuer: kind === 'openid' ? authority : `${entra}/v2.0`,
    issuedAt: Math.floor(Date.now() / 1_000) - 5
  }
  person.subject = kind === 'openid' ? person.homeAccountId : randomUUID()
  const sent: string[] = []
  const post = endpoint.sendPostRequestAsync.bind(endpoint)
  let leaveOut: readonly string[] = []
  endpoint.sendPostRequestAsync = (async (url: string, options: { body: string }) => {
    sent.push(new URLSearchParams(options.body).get('refresh_token') ?? '')
    const response = await post(url, options as never)
    const body = Object.entries(response.body as object).filter(([name]) => !leaveOut.includes(name))
    return { ...response, body: Object.fromEntries(body) }
  }) as typeof endpoint.sendPostRequestAsync
  let account: Msal.AccountInfo | null = null
  return {
    warnings,
    sent,
    person,
    leaveOut(...names: string[]) {
      leaveOut = names
    },
    async signIn(version: string) {
      const client = createClient(version, tokenCache.forLogin(), endpoint, kind)
      const request = { code: codeOf(person), redirectUri: 'https://app.example/callback', scopes: ['api-1'] }
      account = (await client.acquireTokenByCode(request)).account
    },
    silent(version: string, scope: string, forceRefresh = false) {
      const client = createClient(version, tokenCache.forAccount(person.homeAccountId), endpoint, kind)
      return client.acquireTokenSilent({ account: account as Msal.AccountInfo, scopes: [scope], forceRefresh })
    },
    endpoint,
    async stored() {
      const [row] = await database.query<{ payload: Buffer }>(
        'select payload from msal_logout.token_cache where partition_key = $1',
        [person.homeAccountId]
      )
      return row && JSON.parse(row.payload.toString())
    },
    signOut: () => signOutBySql(database, { kind: 'session', issuer: person.issuer ?? '', sid: person.sid ?? '' })
  }
}

t.comment(`MSAL Node ${versions.join(', ')}`)

for (const version of versions) {
  t.test(`MSAL Node ${version}`, async (t) => {
    const database = await createDatabase(t)
    for (const kind of ['openid', 'entra'] as const) {
      await t.test(
        `${kind}: signs in, is served from the cache, refreshes, and loses against a sign-out`,
        async (t) => {
          const user = await build(kind, database)
          await user.signIn(version)
          t.equal((await user.silent(version, 'api-1')).fromCache, true)
          t.equal((await user.silent(version, 'api-2')).fromCache, false)
          t.equal((await user.silent(version, 'api-2')).fromCache, true)
          user.endpoint.beforeAnswer = async () => void (await user.signOut())
          const error = await user.silent(version, 'api-3').catch((error: unknown) => error)
          t.match(error, { code: 'ERR_SIGNED_OUT' })
          t.equal(isSignInRequired(error), true)
          t.equal(await user.stored(), undefined)
          const next = await user.silent(version, 'api-1').catch((error: unknown) => error)
          t.equal(isSignInRequired(next), true, String(next))
          t.same(user.warnings, [])
        }
      )
    }
    await t.test('rotating refresh tokens that are answered without an ID token are kept', async (t) => {
      const user = await build('openid', database)
      await user.signIn(version)
      user.leaveOut('id_token', 'client_info')
      for (const scope of ['api-2', 'api-3', 'api-4']) {
        await user.silent(version, scope, true)
      }
      t.equal(new Set(user.sent).size, 4, 'each is used once')
      t.equal(Object.keys((await user.stored()).RefreshToken).length, 1)
      t.equal((await user.silent(version, 'api-3')).fromCache, true)
    })
  })
}

t.test('a row goes to and fro between versions, and no refresh token is used twice', async (t) => {
  const database = await createDatabase(t)
  const newest = versions.at(-1) ?? ''
  for (const kind of ['openid', 'entra'] as const) {
    for (const version of versions) {
      const user = await build(kind, database)
      await user.signIn(version)
      for (const each of [newest, version, newest, newest, version]) {
        t.equal((await user.silent(each, 'api-1')).fromCache, true, `${kind}: of ${version}, by ${each}`)
        await user.silent(each, 'api-1', true)
      }
      t.equal(new Set(user.sent).size, 6, `${kind}: ${version} and ${newest}: each refresh token is used once`)
      const { RefreshToken, IdToken, AccessToken } = await user.stored()
      t.same(
        [RefreshToken, IdToken, AccessToken].map((section) => Object.keys(section).length),
        [1, 1, 1]
      )
    }
  }
})

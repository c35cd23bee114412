// Keycloak's transmitter of security events, a preview in 26.7: what it sends by poll and by push, and what comes of it.
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { JWTPayload } from 'jose'
import t from 'tap'
import { freePort } from '../../src/embedded-postgres.ts'
import { eventForm, readRequest, readToken, type Scenario } from '../fixtures/specimen.ts'
import { readStreamConfig } from '../fixtures/stream-world.ts'
import { until } from '../fixtures/until.ts'
import {
  clientRepresentation,
  keycloakAddress,
  keycloakVersion,
  passwordOf,
  startKeycloak,
  userRepresentation
} from './keycloak-server.ts'
import { observe, type RelyingParty, type SignedIn } from './observation.ts'

const realms = ['polled', 'pushed'] as const
type Realm = (typeof realms)[number]
// Each realm has apps of its own: a row belongs to one issuer.
const apps = { polled: ['shop', 'desk', 'news'], pushed: ['store', 'office', 'press'] }
const users = ['alice', 'bob', 'carol']
const secretOf = (clientId: string) => `the secret of ${clientId}`
const revoked = 'https://schemas.openid.net/secevent/caep/event-type/session-revoked'
const changed = 'https://schemas.openid.net/secevent/caep/event-type/credential-change'

t.test('Keycloak, its security events', async (t) => {
  const address = await keycloakAddress()
  const port = await freePort()
  const issuerOf = (realm: Realm) => `${address.url}/realms/${realm}`
  const pushUrlOf = (realm: Realm) => `http://127.0.0.1:${port}/security-events/${realm}`
  const folder = mkdtempSync(join(tmpdir(), 'msal-logout-interop-'))
  t.teardown(() => rmSync(folder, { recursive: true }))
  const clientSecretFile = join(folder, 'secret')
  writeFileSync(clientSecretFile, secretOf('receiver'))
  const streams = realms.map((realm) => ({
    ...readStreamConfig(t, {
      name: realm,
      issuer: issuerOf(realm),
      delivery: realm === 'polled' ? 'poll' : 'push',
      endpointUrl: pushUrlOf(realm),
      pollSeconds: 1,
      credential: {
        tokenUrl: `${issuerOf(realm)}/protocol/openid-connect/token`,
        clientId: 'receiver',
        clientSecretFile,
        scope: 'ssf.read ssf.manage'
      }
    }),
    issuers: [`keycloak-${realm}`]
  }))
  const carols = new Set<string>()
  const seen = await observe(t, {
    provider: 'Keycloak, by security events',
    version: keycloakVersion,
    port,
    issuers: realms.map((realm) => ({ name: `keycloak-${realm}`, issuer: issuerOf(realm), clientIds: apps[realm] })),
    streams,
    fillForm: (_page, user) => ({ username: user, password: passwordOf(user) }),
    isAside: (claims) => carols.has(userOf(claims) ?? '')
  })
  const { service, heard, polled, callbackOf, browserOf, signInAll } = seen
  const { admin } = await startKeycloak(t, {
    ...address,
    features: ['ssf'],
    options: [
      '--spi-ssf-transmitter--default--allow-insecure-push-targets=true',
      '--spi-ssf-transmitter--default--outbox-drainer-interval=1s',
      '--spi-ssf-transmitter--default--min-verification-interval-seconds=0'
    ]
  })
  for (const realm of realms) {
    await admin('POST', '', {
      realm,
      enabled: true,
      attributes: { 'ssf.transmitterEnabled': 'true', 'ssf.defaultSubjects': 'ALL' },
      clients: apps[realm].map((clientId) =>
        clientRepresentation({ clientId, secret: secretOf(clientId), redirectUri: callbackOf(clientId) })
      ),
      users: users.map((user) => userRepresentation(user, realm))
    })
    await admin('POST', `/${realm}/clients`, {
      clientId: 'receiver',
      secret: secretOf('receiver'),
      publicClient: false,
      standardFlowEnabled: false,
      serviceAccountsEnabled: true,
      attributes: {
        'ssf.enabled': 'true',
        'ssf.defaultSubjects': 'ALL',
        'ssf.allowedDeliveryMethods': 'push##poll',
        'ssf.validPushUrls': pushUrlOf(realm),
        'ssf.minVerificationInterval': '0'
      }
    })
    const scopes = (await admin('GET', `/${realm}/client-scopes`)) as { id: string; name: string }[]
    const receiver = await idOf(realm, 'clients?clientId=receiver')
    for (const { id } of scopes.filter(({ name }) => name.startsWith('ssf.'))) {
      await admin('PUT', `/${realm}/clients/${receiver}/optional-client-scopes/${id}`)
    }
    carols.add(await idOf(realm, 'users?username=carol'))
  }
  await seen.awaitKeys()

  const ticks = service.streams.start()
  t.teardown(ticks.stop)
  const states = async () => (await service.operate('GET', '/admin/streams')).json() as { streams: StreamReport[] }
  await until(
    'both streams are created, and Keycloak has shown that its events arrive',
    async () => (await states()).streams.every(({ verifiedAt }) => verifiedAt !== null),
    { withinMs: 90_000, everyMs: 200 }
  ).catch(async (cause: unknown) => {
    throw new Error(JSON.stringify(await states(), null, 1), { cause })
  })
  for (const report of (await states()).streams) {
    t.match(report, { status: 'enabled', failure: null, canVerify: true, sendsNobodyByDefault: true }, report.name)
    t.same(
      report.revokeOn.filter((event) => !report.missingEvents.includes(event)),
      ['session-revoked', 'credential-change'],
      'the events that Keycloak delivers'
    )
  }

  const partiesIn = (realm: Realm): RelyingParty[] =>
    apps[realm].map((clientId) => ({ clientId, clientSecret: secretOf(clientId), issuer: issuerOf(realm) }))

  /** Nothing more comes: what is done last comes last. */
  async function settle(realm: Realm): Promise<void> {
    const before = carolsCome()
    await setPassword(realm, 'carol')
    await until('what was done last has come', () => carolsCome() > before, { withinMs: 30_000 })
  }
  function carolsCome(): number {
    const tokens = [
      ...heard.map((request) => readRequest(request).token),
      ...polled.map(({ token }) => readToken(token))
    ]
    return tokens.filter((token) => token !== undefined && carols.has(userOf(token.claims) ?? '')).length
  }
  async function setPassword(realm: Realm, user: string): Promise<void> {
    const id = await idOf(realm, `users?username=${user}`)
    await admin('PUT', `/${realm}/users/${id}/reset-password`, {
      type: 'password',
      value: passwordOf(user),
      temporary: false
    })
  }
  async function idOf(realm: Realm, query: string): Promise<string> {
    const [found] = (await admin('GET', `/${realm}/${query}`)) as { id: string }[]
    return found?.id ?? ''
  }

  interface Act {
    readonly name: string
    readonly column: Parameters<typeof seen.scenario>[0]['column']
    readonly done: string
    /** The events that come of it, as {@link said} says them. */
    readonly sends: readonly string[]
    readonly before?: (realm: Realm) => Promise<unknown>
    readonly act: (realm: Realm, people: SignedIn) => Promise<unknown>
  }
  const ofUser = 'user iss_sub'
  const acts: readonly Act[] = [
    {
      name: 'session logout',
      column: 'session logout',
      done: 'a user signs out in one of three apps, by RP-initiated logout',
      sends: [`session-revoked: ${ofUser}, session opaque, by user`],
      act: (_realm, { laptop }) =>
        browserOf(laptop).open(
          `${laptop.issuer}/protocol/openid-connect/logout?${new URLSearchParams({
            id_token_hint: laptop.idToken,
            post_logout_redirect_uri: callbackOf(laptop.clientId)
          })}`
        )
    },
    {
      name: 'all sessions',
      column: 'all sessions',
      done: 'a user chooses *Sign out all devices* in the account console',
      sends: [],
      act: async (_realm, { laptop }) => {
        const answer = await fetch(`${laptop.issuer}/account/sessions?current=true`, {
          method: 'DELETE',
          headers: { authorization: `Bearer ${laptop.accessToken}`, accept: 'application/json' }
        })
        t.equal(answer.status, 204)
      }
    },
    {
      name: 'administrator, a user',
      column: 'admin logout',
      done: 'an administrator signs a user out: *Users*, *Sessions*, *Logout all sessions*',
      sends: [`session-revoked: ${ofUser}, session opaque "ALL", by user`],
      act: (realm, { laptop }) => admin('POST', `/${realm}/users/${laptop.subject}/logout`)
    },
    {
      name: 'administrator, a session',
      column: 'admin logout',
      done: 'an administrator ends one session of a user',
      sends: [],
      act: (realm, { laptop }) => admin('DELETE', `/${realm}/sessions/${laptop.sid}`)
    },
    {
      name: 'administrator, a password',
      column: null,
      done: 'an administrator sets a password',
      sends: ['credential-change: iss_sub, by admin'],
      act: (realm) => setPassword(realm, 'alice')
    },
    {
      name: 'disabled user',
      column: 'disabled user',
      done: 'an administrator disables a user',
      sends: [],
      act: async (realm, { laptop }) => {
        await admin('PUT', `/${realm}/users/${laptop.subject}`, { enabled: false })
        await admin('PUT', `/${realm}/users/${laptop.subject}`, { enabled: true })
      }
    },
    {
      name: 'rotated keys',
      column: 'rotated keys',
      done: 'a new key of a higher priority, and the old one taken away, before an administrator signs a user out',
      sends: [`session-revoked: ${ofUser}, session opaque "ALL", by user`],
      act: async (realm, { laptop }) => {
        const known = (await admin('GET', `/${realm}/components?type=org.keycloak.keys.KeyProvider`)) as Component[]
        await admin('POST', `/${realm}/components`, {
          name: 'rsa-new',
          providerId: 'rsa-generated',
          providerType: 'org.keycloak.keys.KeyProvider',
          config: { priority: ['200'], enabled: ['true'], active: ['true'], algorithm: ['RS256'] }
        })
        for (const { id } of known.filter(({ providerId }) => providerId === 'rsa-generated')) {
          await admin('DELETE', `/${realm}/components/${id}`)
        }
        await admin('POST', `/${realm}/users/${laptop.subject}/logout`)
      }
    },
    {
      name: 'deleted user',
      column: null,
      done: 'an administrator deletes a user',
      sends: [],
      act: (realm, { laptop }) => admin('DELETE', `/${realm}/users/${laptop.subject}`)
    }
  ]

  for (const { name, column, done, sends, before, act } of acts) {
    for (const realm of realms) {
      const other = realm === 'polled' ? 'pushed' : 'polled'
      const [first = '', ...rest] = apps[realm]
      const isLast = name === 'deleted user'
      const scenario = await seen.scenario(
        {
          name: `${name}, ${realm}`,
          column: realm === 'polled' ? column : null,
          done,
          sends: sends.length,
          settle: () => settle(realm)
        },
        async () => {
          await before?.(realm)
          // The other realm has the same people in apps of its own: an event of one reaches nobody of the other.
          const bystanders = isLast ? [] : [partiesIn(other)[0] as RelyingParty]
          for (const party of bystanders) {
            await seen.signIn({ user: 'alice', browser: 'elsewhere' }, party)
          }
          return signInAll(partiesIn(realm))
        },
        (people) => act(realm, people)
      )
      t.same(said(scenario), sends, `${scenario.name}: what Keycloak sent`)
      const { laptop } = { laptop: scenario.logins.find(({ browser }) => browser === 'laptop') }
      for (const claims of claimsOf(scenario)) {
        t.equal(userOf(claims), laptop?.subject, 'it names Alice')
        t.equal(claims.iss, issuerOf(realm))
      }
      t.same(
        [...scenario.requests.map(({ status }) => status), ...(scenario.polled ?? []).map(({ answer }) => answer)],
        sends.map(() => (realm === 'polled' ? 'acknowledged' : 202))
      )
      const everywhere = isLast ? [] : [`${apps[other][0]}/alice`]
      const alices = sends.length > 0 ? [] : [first, ...rest].map((app) => `${app}/alice`)
      t.same(
        scenario.rowsLeft,
        [...everywhere, ...alices, `${first}/bob`].sort(),
        `${scenario.name}: ${sends.length > 0 ? 'Alice is signed out of this realm, and nobody else' : 'nobody is signed out'}`
      )
    }
  }

  const kid = (name: string) => {
    const scenario = seen.scenarios.find((one) => one.name === name)
    const [token] = scenario ? tokensIn(scenario) : []
    return token?.header.kid
  }
  for (const realm of realms) {
    t.ok(kid(`rotated keys, ${realm}`))
    t.not(kid(`rotated keys, ${realm}`), kid(`administrator, a user, ${realm}`), 'it signs by the new key')
  }
  seen.conclude(t, 'keycloak-ssf')

  await t.test('an operator pauses, resumes, verifies and deletes the stream at Keycloak', async (t) => {
    for (const realm of realms) {
      const act = async (action: string) =>
        (await service.operate('POST', `/admin/streams/${realm}/${action}`)).json() as StreamReport
      t.match(await act('pause'), { status: 'paused', isPaused: true })
      t.match(await act('resume'), { status: 'enabled', isPaused: false })
      const verifiedAt = async () => (await states()).streams.find(({ name }) => name === realm)?.verifiedAt
      const before = await verifiedAt()
      await act('verify')
      await until('it is verified once more', async () => (await verifiedAt()) !== before, { withinMs: 30_000 })
      t.match(await act('delete'), { isDeleted: true, streamId: null })
    }
  })
})

interface StreamReport {
  readonly name: string
  readonly verifiedAt: string | null
  readonly revokeOn: readonly string[]
  readonly missingEvents: readonly string[]
}

interface Component {
  readonly id: string
  readonly providerId: string
}

function tokensIn({ requests, polled = [] }: Scenario) {
  return [
    ...requests.flatMap((request) => readRequest(request).token ?? []),
    ...polled.map(({ token }) => readToken(token))
  ]
}

function claimsOf(scenario: Scenario): JWTPayload[] {
  return tokensIn(scenario).map(({ claims }) => claims)
}

/** The user that a security event names. */
function userOf({ sub_id: subject }: JWTPayload): string | undefined {
  const { sub, user } = Object(subject) as { sub?: string; user?: { sub?: string } }
  return user?.sub ?? sub
}

/** Each event with whom it names and who has asked for it: `credential-change: iss_sub, by admin`. */
function said(scenario: Scenario): string[] {
  return claimsOf(scenario).map((claims) => {
    const [[uri, payload] = ['', {}]] = Object.entries(Object(claims.events) as Record<string, object>)
    const name = { [revoked]: 'session-revoked', [changed]: 'credential-change' }[uri] ?? uri
    const { format, ...members } = Object(eventForm(claims).subject) as Record<string, { format: string; id?: string }>
    const subject =
      String(format) === 'complex'
        ? Object.entries(members).map(
            ([member, { format, id }]) => `${member} ${format}${id === 'ALL' ? ' "ALL"' : ''}`
          )
        : [String(format)]
    return `${name}: ${subject.join(', ')}, by ${Object(payload).initiating_entity}`
  })
}

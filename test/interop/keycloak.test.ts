import { writeFileSync } from 'node:fs'
import t from 'tap'
import { emptyCache, readRequest, type Scenario, type SpecimenIssuer } from '../fixtures/specimen.ts'
import {
  clientRepresentation,
  keycloakAddress,
  keycloakVersion,
  passwordOf,
  startKeycloak,
  userRepresentation
} from './keycloak-server.ts'
import { observe, type RelyingParty, type SignIn, tokensOf } from './observation.ts'

const apps = ['shop', 'desk', 'news']
const algorithms = ['ES256', 'PS256', 'EdDSA']
const realms = ['main', 'front', 'algorithms', 'no-session'] as const
const clicks = Number(process.env.CLICKS ?? 100)
const secretOf = (clientId: string) => `the secret of ${clientId}`

t.test('Keycloak', async (t) => {
  const address = await keycloakAddress()
  const issuerOf = (realm: (typeof realms)[number]) => `${address.url}/realms/${realm}`
  const issuers: SpecimenIssuer[] = [
    { name: 'keycloak', issuer: issuerOf('main'), clientIds: apps },
    { name: 'keycloak-front', issuer: issuerOf('front'), clientIds: apps },
    // A key of another algorithm than RS256 is made when it is first signed by.
    {
      name: 'keycloak-algorithms',
      issuer: issuerOf('algorithms'),
      clientIds: algorithms,
      algorithms: ['RS256', ...algorithms]
    },
    { name: 'keycloak-no-session', issuer: issuerOf('no-session'), clientIds: apps }
  ]
  const seen = await observe(t, {
    provider: 'Keycloak',
    version: keycloakVersion,
    issuers,
    fillForm: (_page, user) => ({ username: user, password: passwordOf(user) })
  })
  const { service, serviceUrl, heard, callbackOf, browserOf, signIn, signInAll } = seen
  const { admin } = await startKeycloak(t, address)

  const backChannelUrl = `${serviceUrl}/backchannel-logout`
  const frontChannelUrl = `${serviceUrl}/frontchannel-logout/keycloak-front`
  const client = (clientId: string) => ({ clientId, secret: secretOf(clientId), redirectUri: callbackOf(clientId) })
  const clients = {
    main: apps.map((id) => ({ ...client(id), backChannelUrl })),
    front: apps.map((id) => ({ ...client(id), frontChannelUrl })),
    algorithms: algorithms.map((id) => ({ ...client(id), backChannelUrl, algorithm: id })),
    'no-session': apps.map((id) => ({ ...client(id), backChannelUrl, sessionRequired: false }))
  }
  for (const realm of realms) {
    await admin('POST', '', {
      realm,
      enabled: true,
      clients: clients[realm].map(clientRepresentation),
      users: ['alice', 'bob'].map((user) => userRepresentation(user, realm))
    })
  }
  await seen.awaitKeys()

  const partiesIn = (realm: (typeof realms)[number]): RelyingParty[] =>
    clients[realm].map(({ clientId, secret }) => ({ clientId, clientSecret: secret, issuer: issuerOf(realm) }))
  /** Nobody is signed in at first: this sends nothing, as a scenario shows. */
  const everybodyIn = (realm: (typeof realms)[number]) => async () => {
    await admin('POST', `/${realm}/logout-all`)
    return signInAll(partiesIn(realm))
  }
  /** As an app's sign-out button does, with the ID token that the app has. */
  const signOut = ({ user, browser, issuer, clientId, idToken }: SignIn) =>
    browserOf({ user, browser }).open(
      `${issuer}/protocol/openid-connect/logout?${new URLSearchParams({
        id_token_hint: idToken,
        post_logout_redirect_uri: callbackOf(clientId)
      })}`
    )

  const session = await seen.scenario(
    {
      name: 'session logout',
      column: 'session logout',
      done: 'a user signs out in one of three apps, by RP-initiated logout',
      sends: 3
    },
    everybodyIn('main'),
    async ({ laptop }) => {
      t.equal((await signOut(laptop)).url, callbackOf('shop'), 'the user is back in the app')
    }
  )
  t.same(tokensOf(session), ['desk sid=laptop sub', 'news sid=laptop sub', 'shop sid=laptop sub'])
  t.same(session.rowsLeft, ['shop/bob'])

  const everywhere = await seen.scenario(
    {
      name: 'all sessions',
      column: 'all sessions',
      done: 'a user chooses *Sign out all devices* in the account console',
      sends: 4
    },
    everybodyIn('main'),
    async ({ laptop }) => {
      const answer = await fetch(`${laptop.issuer}/account/sessions?current=true`, {
        method: 'DELETE',
        headers: { authorization: `Bearer ${laptop.accessToken}`, accept: 'application/json' }
      })
      t.equal(answer.status, 204)
    }
  )
  t.same(tokensOf(everywhere), [
    'desk sid=laptop sub',
    'news sid=laptop sub',
    'shop sid=laptop sub',
    'shop sid=phone sub'
  ])
  t.same(everywhere.rowsLeft, ['shop/bob'])

  const ofUser = await seen.scenario(
    {
      name: 'administrator, a user',
      column: 'admin logout',
      done: 'an administrator signs a user out: *Users*, *Sessions*, *Logout all sessions*',
      sends: 4
    },
    everybodyIn('main'),
    ({ laptop }) => admin('POST', `/main/users/${laptop.subject}/logout`)
  )
  t.same(tokensOf(ofUser), tokensOf(everywhere))
  t.same(ofUser.rowsLeft, ['shop/bob'])

  const ofSession = await seen.scenario(
    {
      name: 'administrator, a session',
      column: 'admin logout',
      done: 'an administrator ends one session of a user',
      sends: 3
    },
    everybodyIn('main'),
    ({ laptop }) => admin('DELETE', `/main/sessions/${laptop.sid}`)
  )
  t.same(tokensOf(ofSession), tokensOf(session))
  t.same(ofSession.rowsLeft, ['shop/bob'])

  const ofRealm = await seen.scenario(
    {
      name: 'administrator, the realm',
      column: 'admin logout',
      done: 'an administrator ends the sessions of the realm: *Sessions*, *Sign out all active sessions*',
      sends: 0
    },
    everybodyIn('main'),
    () => admin('POST', '/main/logout-all')
  )
  t.same(ofRealm.requests, [], 'Keycloak sends nothing')
  t.equal(ofRealm.rowsLeft.length, 4)

  const disabled = await seen.scenario(
    { name: 'disabled user', column: 'disabled user', done: 'an administrator disables a user', sends: 0 },
    everybodyIn('main'),
    async ({ laptop }) => {
      await admin('PUT', `/main/users/${laptop.subject}`, { enabled: false })
      await admin('PUT', `/main/users/${laptop.subject}`, { enabled: true })
    }
  )
  t.same(disabled.requests, [], 'Keycloak sends nothing')
  t.equal(disabled.rowsLeft.length, 4)
  const [login] = disabled.logins
  const purged = await service.operate('POST', '/admin/purges', {
    issuer: login?.issuer,
    subject: login?.subject,
    reason: 'disabled in Keycloak'
  })
  t.match(purged.json(), { accounts: 1, sessions: 4, rows: 3 }, 'an operator ends them')
  t.same(await service.rows(), ['shop/bob'])

  const rotated = await seen.scenario(
    {
      name: 'rotated keys',
      column: 'rotated keys',
      done: 'a new key of a higher priority, and the old one taken away, before a user signs out',
      sends: 3
    },
    everybodyIn('main'),
    async ({ laptop }) => {
      const known = await readComponents()
      await admin('POST', '/main/components', {
        name: 'rsa-new',
        providerId: 'rsa-generated',
        providerType: 'org.keycloak.keys.KeyProvider',
        config: { priority: ['200'], enabled: ['true'], active: ['true'], algorithm: ['RS256'] }
      })
      for (const { id } of known.filter(({ providerId }) => providerId === 'rsa-generated')) {
        await admin('DELETE', `/main/components/${id}`)
      }
      await admin('POST', `/main/users/${laptop.subject}/logout`)
    }
  )
  const kidOf = ({ requests }: Scenario) => requests[0] && readRequest(requests[0]).token?.header.kid
  t.not(kidOf(rotated), kidOf(ofSession), 'it signs by the new key')
  t.same(rotated.rowsLeft, ['shop/bob'])

  const front = await seen.scenario(
    {
      name: 'front channel',
      column: null,
      done: 'a user signs out in one of three apps with front-channel logout',
      sends: 3
    },
    everybodyIn('front'),
    async ({ laptop }) => {
      const { body } = await signOut(laptop)
      const frames = [...body.matchAll(/<iframe[^>]*\bsrc="([^"]*)"/g)]
      for (const [, source = ''] of frames) {
        await browserOf(laptop).open(source.replaceAll('&amp;', '&'))
      }
    }
  )
  t.same(front.rowsLeft, ['shop/bob'])

  const signed = await seen.scenario(
    { name: 'algorithms', column: null, done: '*ID token signature algorithm* of each client', sends: 3 },
    everybodyIn('algorithms'),
    ({ laptop }) => signOut(laptop)
  )
  t.same(signed.requests.map((request) => readRequest(request).token?.header.alg).sort(), algorithms.toSorted())
  t.same(signed.rowsLeft, ['ES256/bob'])

  const sidless = await seen.scenario(
    {
      name: 'without sessions',
      column: null,
      done: 'a user signs out, with *Backchannel logout session required* off',
      sends: 3
    },
    everybodyIn('no-session'),
    ({ laptop }) => signOut(laptop)
  )
  t.same(tokensOf(sidless), ['desk sub', 'news sub', 'shop sub'])
  t.same(sidless.rowsLeft, ['shop/bob'])

  seen.conclude(t, 'keycloak')

  await t.test("from the user's click to the commit, in three apps", async (t) => {
    await emptyCache(service)
    const rounds: { committed: number; answered: number; back: number }[] = []
    for (let i = 0; i < clicks; i += 1) {
      const laptop: SignIn[] = []
      for (const party of partiesIn('main')) {
        laptop.push(await signIn({ user: 'alice', browser: 'laptop' }, party))
      }
      heard.length = 0
      const clickedAt = performance.now()
      await signOut(laptop[0] as SignIn)
      const back = performance.now() - clickedAt
      t.equal(heard.length, 3)
      t.same(await service.rows(), [], 'the rows of all apps are gone')
      const jtis = heard.map((request) => readRequest(request).token?.claims.jti)
      const records = await service.database.query<{ jti: string; rows: number }>(
        'select jti, rows::int from msal_logout.records where jti = any ($1)',
        [jtis]
      )
      const last = heard.findLast((_, n) => records.find(({ jti }) => jti === jtis[n])?.rows !== 0)
      rounds.push({
        committed: (last?.answeredAt ?? Number.NaN) - clickedAt,
        answered: (heard.at(-1)?.answeredAt ?? Number.NaN) - clickedAt,
        back
      })
    }
    const summary = Object.fromEntries(
      (['committed', 'answered', 'back'] as const).map((name) => {
        const sorted = rounds.map((round) => round[name]).toSorted((a, b) => a - b)
        const at = (share: number) => Number(sorted[Math.floor((sorted.length - 1) * share)]?.toFixed(1))
        return [name, { median: at(0.5), p95: at(0.95), max: at(1) }]
      })
    )
    writeFileSync('.data/interop/keycloak-clicks.json', `${JSON.stringify({ clicks, ...summary }, null, 2)}\n`)
    console.log(`milliseconds from the click, of ${clicks}: ${JSON.stringify(summary)}`)
  })

  async function readComponents(): Promise<{ id: string; providerId: string }[]> {
    return (await admin('GET', '/main/components?type=org.keycloak.keys.KeyProvider')) as never
  }
})

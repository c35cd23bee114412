import t from 'tap'
import { freePort } from '../../src/embedded-postgres.ts'
import { readRequest, type Scenario } from '../fixtures/specimen.ts'
import { betterAuthIssuer, betterAuthVersion, startBetterAuth } from './better-auth-server.ts'
import { observe, type RelyingParty, type SignedIn, type SignIn, tokensOf } from './observation.ts'

const apps = ['shop', 'desk', 'news']
const secretOf = (clientId: string) => `the-secret-of-${clientId}`
const passwordOf = (user: string) => `the password of ${user}`

t.test('better-auth', async (t) => {
  const port = await freePort()
  const issuer = betterAuthIssuer(port)
  const seen = await observe(t, {
    provider: 'better-auth',
    version: betterAuthVersion,
    issuers: [{ name: 'better-auth', issuer, clientIds: apps }],
    fillForm: (_page, user) => ({ email: `${user}@example.com`, password: passwordOf(user) })
  })
  const { serviceUrl, callbackOf, browserOf, signInAll, scenario } = seen
  await startBetterAuth(t, {
    port,
    users: ['alice', 'bob'].map((name) => ({ name, password: passwordOf(name) })),
    clients: apps.map((id) => ({
      id,
      secret: secretOf(id),
      redirectUri: callbackOf(id),
      backChannelUrl: `${serviceUrl}/backchannel-logout`
    }))
  })
  await seen.awaitKeys()

  /** Nobody has a session from before. */
  const everybody = async () => {
    const [alice] = seen.scenarios.at(-1)?.logins ?? []
    if (alice !== undefined) {
      await post('/administrator/revoke-user-sessions', { userId: alice.subject })
    }
    return signInAll(apps.map((clientId): RelyingParty => ({ clientId, clientSecret: secretOf(clientId), issuer })))
  }
  const signOut = ({ user, browser, idToken }: SignIn) =>
    browserOf({ user, browser }).open(`${issuer}/oauth2/end-session?${new URLSearchParams({ id_token_hint: idToken })}`)
  /** As a page of the operator's calls better-auth's own API. */
  async function post(path: string, body: object = {}): Promise<void> {
    const answer = await fetch(new URL(path, issuer), { method: 'POST', body: JSON.stringify(body) })
    t.equal(answer.status, 200, `${path}: ${await answer.text()}`)
  }

  const session = await scenario(
    {
      name: 'session logout',
      column: 'session logout',
      done: 'a user signs out in one of three apps, by RP-initiated logout',
      sends: 3
    },
    everybody,
    ({ laptop }) => signOut(laptop)
  )
  t.same(tokensOf(session), ['desk sid=laptop sub', 'news sid=laptop sub', 'shop sid=laptop sub'])
  t.same(session.rowsLeft, ['shop/bob'])

  const ofAll: [name: string, column: 'all sessions' | 'admin logout' | 'disabled user', done: string, act: Act][] = [
    [
      'all sessions',
      'all sessions',
      'a user ends all sessions: `POST /revoke-sessions`',
      async ({ laptop }) => {
        const { status } = await browserOf(laptop).open(new URL('/sign-out-everywhere', issuer).href)
        t.equal(status, 200)
      }
    ],
    [
      'administrator, a user',
      'admin logout',
      'an administrator signs a user out: `POST /admin/revoke-user-sessions`',
      ({ laptop }) => post('/administrator/revoke-user-sessions', { userId: laptop.subject })
    ],
    [
      'disabled user',
      'disabled user',
      'an administrator bans a user: `POST /admin/ban-user`',
      async ({ laptop }) => {
        await post('/administrator/ban-user', { userId: laptop.subject })
        await post('/administrator/unban-user', { userId: laptop.subject })
      }
    ]
  ]
  for (const [name, column, done, act] of ofAll) {
    const ended = await scenario({ name, column, done, sends: 4, settleMs: 200 }, everybody, act)
    t.same(
      tokensOf(ended),
      ['desk sid=laptop sub', 'news sid=laptop sub', 'shop sid=laptop sub', 'shop sid=phone sub'],
      name
    )
    t.same(ended.rowsLeft, ['shop/bob'], name)
  }

  const ofSession = await scenario(
    {
      name: 'administrator, a session',
      column: 'admin logout',
      done: 'an administrator ends one session of a user: `POST /admin/revoke-user-session`',
      sends: 3
    },
    everybody,
    ({ laptop }) => post('/administrator/revoke-user-session', { sid: laptop.sid })
  )
  t.same(tokensOf(ofSession), tokensOf(session))
  t.same(ofSession.rowsLeft, ['shop/bob'])

  const rotated = await scenario(
    {
      name: 'rotated keys',
      column: 'rotated keys',
      done: 'the table `jwks` is emptied, and a user signs out who signed in after that',
      sends: 3
    },
    async () => {
      await post('/new-key')
      return everybody()
    },
    ({ laptop }) => signOut(laptop)
  )
  const kidOf = ({ requests }: Scenario) => requests[0] && readRequest(requests[0]).token?.header.kid
  t.not(kidOf(rotated), kidOf(session), 'it signs by the new key')
  t.same(rotated.rowsLeft, ['shop/bob'])

  seen.conclude(t, 'better-auth')
})

type Act = (people: SignedIn) => Promise<unknown>

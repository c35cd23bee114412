import t from 'tap'
import { freePort } from '../../src/embedded-postgres.ts'
import { readRequest, type Scenario } from '../fixtures/specimen.ts'
import { type Liberty, libertyIssuer, libertyVersion, startLiberty } from './liberty-server.ts'
import { observe, type RelyingParty, type SignIn, tokensOf } from './observation.ts'

const apps = ['shop', 'desk', 'news']
const secretOf = (clientId: string) => `the-secret-of-${clientId}`
const passwordOf = (user: string) => `the password of ${user}`

t.test('Open Liberty', async (t) => {
  const port = await freePort()
  const securePort = await freePort()
  const issuer = libertyIssuer(port)
  let liberty: Liberty | undefined
  const seen = await observe(t, {
    provider: 'Open Liberty',
    version: libertyVersion,
    issuers: [{ name: 'liberty', issuer, clientIds: apps }],
    fillForm: (_page, user) => ({ j_username: user, j_password: passwordOf(user) }),
    certificate: () => liberty?.certificate ?? ''
  })
  const { serviceUrl, callbackOf, browserOf, signInAll, scenario } = seen
  const start = async () => {
    await liberty?.stop()
    liberty = await startLiberty(t, {
      port,
      securePort,
      users: ['alice', 'bob'],
      passwordOf,
      clients: apps.map((id) => ({
        id,
        secret: secretOf(id),
        redirectUri: callbackOf(id),
        backChannelUrl: `${serviceUrl}/backchannel-logout`
      }))
    })
  }
  await start()
  await seen.awaitKeys()

  const everybody = () =>
    signInAll(apps.map((clientId): RelyingParty => ({ clientId, clientSecret: secretOf(clientId), issuer })))
  const signOut = ({ user, browser, idToken }: SignIn) =>
    browserOf({ user, browser }).open(`${issuer}/end_session?${new URLSearchParams({ id_token_hint: idToken })}`)

  const session = await scenario(
    {
      name: 'session logout',
      column: 'session logout',
      done: 'a user signs out in one of three apps, by RP-initiated logout',
      sends: 4,
      settleMs: 500
    },
    everybody,
    ({ laptop }) => signOut(laptop)
  )
  t.same(
    tokensOf(session),
    ['desk sid=laptop sub', 'news sid=laptop sub', 'shop sid=laptop sub', 'shop sid=phone sub'],
    'it ends every session of the user, whichever browser signs out'
  )
  t.same(session.rowsLeft, ['shop/bob'])

  const rotated = await scenario(
    {
      name: 'rotated keys',
      column: 'rotated keys',
      done: 'restarted, with a key of its own as at every start',
      sends: 4,
      settleMs: 500
    },
    async () => {
      await start()
      await fetch(`${issuer}/jwk`) // the first request of a kind takes it long on a busy machine
      return everybody()
    },
    ({ laptop }) => signOut(laptop)
  )
  const kidOf = ({ requests }: Scenario) => requests[0] && readRequest(requests[0]).token?.header.kid
  t.not(kidOf(rotated), kidOf(session), 'it signs by the new key')
  t.same(rotated.rowsLeft, ['shop/bob'])

  seen.conclude(t, 'liberty')
})

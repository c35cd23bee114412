import t from 'tap'
import { freePort } from '../../src/embedded-postgres.ts'
import { readRequest } from '../fixtures/specimen.ts'
import { hydraVersion, startHydra } from './hydra-server.ts'
import { observe, type RelyingParty, type SignIn, tokensOf } from './observation.ts'

const apps = ['shop', 'desk', 'news']
const secretOf = (clientId: string) => `the-secret-of-${clientId}`

t.test('Ory Hydra', async (t) => {
  const issuer = `http://127.0.0.1:${await freePort()}`
  const seen = await observe(t, {
    provider: 'Ory Hydra',
    version: hydraVersion,
    issuers: [{ name: 'hydra', issuer, clientIds: apps, requireExp: false }],
    fillForm: (_page, user) => ({ user })
  })
  const { serviceUrl, callbackOf, browserOf, signInAll, scenario } = seen
  const { admin } = await startHydra(t, issuer)
  for (const id of apps) {
    await admin('POST', '/clients', {
      client_id: id,
      client_secret: secretOf(id),
      redirect_uris: [callbackOf(id)],
      grant_types: ['authorization_code'],
      response_types: ['code'],
      scope: 'openid',
      token_endpoint_auth_method: 'client_secret_post',
      post_logout_redirect_uris: [callbackOf(id)],
      backchannel_logout_uri: `${serviceUrl}/backchannel-logout`,
      backchannel_logout_session_required: true
    })
  }
  await seen.awaitKeys()

  const party = (clientId: string): RelyingParty => ({ clientId, clientSecret: secretOf(clientId), issuer })
  const everybody = () => signInAll(apps.map(party))
  const signOut = ({ user, browser, idToken }: SignIn) =>
    browserOf({ user, browser }).open(
      `${issuer}/oauth2/sessions/logout?${new URLSearchParams({ id_token_hint: idToken })}`
    )

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
  t.same(tokensOf(session), ['desk sid=laptop', 'news sid=laptop', 'shop sid=laptop'])
  t.same(session.rowsLeft, ['shop/bob'])

  const ofSubject = await scenario(
    {
      name: 'all sessions',
      column: 'all sessions',
      done: 'an administrator revokes the sessions of a subject',
      sends: 0,
      settleMs: 1_000
    },
    everybody,
    () => admin('DELETE', '/oauth2/auth/sessions/login?subject=alice')
  )
  t.same(ofSubject.requests, [], 'Hydra sends nothing')

  const ofSession = await scenario(
    {
      name: 'administrator',
      column: 'admin logout',
      done: 'an administrator revokes a session by its `sid`',
      sends: 3
    },
    everybody,
    ({ laptop }) => admin('DELETE', `/oauth2/auth/sessions/login?sid=${laptop.sid}`)
  )
  t.same(tokensOf(ofSession), tokensOf(session))
  t.same(ofSession.rowsLeft, ['shop/bob'])

  const hinted = await scenario(
    {
      name: 'rotated keys, a user',
      column: 'rotated keys',
      done: 'a new key, and a user signs out with an ID token from before',
      sends: 0,
      settleMs: 1_000
    },
    everybody,
    async ({ laptop }) => {
      await admin('POST', '/keys/hydra.openid.id-token', { alg: 'RS256', use: 'sig', kid: 'the-new-key' })
      t.equal((await signOut(laptop)).status, 500, 'Hydra does not know the key any more that it signed it by')
    }
  )
  t.same(hinted.requests, [], 'Hydra sends nothing')

  const rotated = await scenario(
    {
      name: 'rotated keys',
      column: 'rotated keys',
      done: 'a new key, and a user signs out who signed in after that',
      sends: 3
    },
    everybody,
    ({ laptop }) => signOut(laptop)
  )
  t.same(
    rotated.requests.map((request) => readRequest(request).token?.header.kid),
    Array(3).fill('the-new-key')
  )
  t.same(rotated.rowsLeft, ['shop/bob'])

  seen.conclude(t, 'hydra')
})

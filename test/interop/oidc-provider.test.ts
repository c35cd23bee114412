import { createHash, generateKeyPairSync, type JsonWebKey, randomUUID } from 'node:crypto'
import { once } from 'node:events'
import { createServer, type RequestListener } from 'node:http'
import { createRequire } from 'node:module'
import { type ClientMetadata, Provider } from 'oidc-provider'
import t from 'tap'
import { freePort } from '../../src/embedded-postgres.ts'
import { readRequest } from '../fixtures/specimen.ts'
import { observe, type RelyingParty, type SignIn } from './observation.ts'

const { version } = createRequire(import.meta.url)('oidc-provider/package.json') as { version: string }
const apps = ['shop', 'desk', 'news']
const algorithms = ['ES256', 'PS256', 'EdDSA']
const pairwise = ['pairwise-shop', 'pairwise-desk']
/** By the client: how what it gets is encrypted. */
const encrypted: Readonly<Record<string, Partial<ClientMetadata>>> = {
  'rsa-128': { id_token_encrypted_response_alg: 'RSA-OAEP-256', id_token_encrypted_response_enc: 'A128GCM' },
  'rsa-256': { id_token_encrypted_response_alg: 'RSA-OAEP-256', id_token_encrypted_response_enc: 'A256GCM' },
  'ec-128': { id_token_encrypted_response_alg: 'ECDH-ES', id_token_encrypted_response_enc: 'A128GCM' },
  'ec-256': {
    id_token_encrypted_response_alg: 'ECDH-ES',
    id_token_encrypted_response_enc: 'A256GCM',
    id_token_signed_response_alg: 'ES256',
    subject_type: 'pairwise'
  }
}
const secretOf = (clientId: string) => `the secret of ${clientId}`

/** One of each kind. */
function makeKeys(name: string): JsonWebKey[] {
  const pairs = {
    rsa: generateKeyPairSync('rsa', { modulusLength: 2048 }),
    ec: generateKeyPairSync('ec', { namedCurve: 'P-256' }),
    ed: generateKeyPairSync('ed25519')
  }
  return Object.entries(pairs).map(([kind, { privateKey }]) => ({
    ...privateKey.export({ format: 'jwk' }),
    kid: `${name}-${kind}`,
    use: 'sig'
  }))
}

/** Ours: one of each kind that is encrypted by. */
function makeDecryptionKeys(): JsonWebKey[] {
  const pairs = {
    rsa: generateKeyPairSync('rsa', { modulusLength: 2048 }),
    ec: generateKeyPairSync('ec', { namedCurve: 'P-256' })
  }
  return Object.entries(pairs).map(([kind, { privateKey }]) => ({
    ...privateKey.export({ format: 'jwk' }),
    kid: `ours-${kind}`
  }))
}

t.test('node-oidc-provider', async (t) => {
  const port = await freePort()
  const issuer = `http://127.0.0.1:${port}`
  const seen = await observe(t, {
    provider: 'node-oidc-provider',
    version,
    issuers: [
      {
        name: 'main',
        issuer,
        clientIds: [...apps, ...algorithms, ...pairwise, 'no-session', ...Object.keys(encrypted)],
        algorithms: ['RS256', ...algorithms]
      }
    ],
    decryptionKeys: makeDecryptionKeys(),
    fillForm: (page, user) => (page.body.includes('name="password"') ? { login: user, password: 'any' } : {})
  })
  const { serviceUrl, callbackOf, browserOf, signIn, signInAll, scenario } = seen

  const cookieKey = randomUUID()
  const client = (id: string, more: Partial<ClientMetadata> = {}): ClientMetadata => ({
    client_id: id,
    client_secret: secretOf(id),
    redirect_uris: [callbackOf(id)],
    token_endpoint_auth_method: 'client_secret_post',
    backchannel_logout_uri: `${serviceUrl}/backchannel-logout`,
    backchannel_logout_session_required: true,
    ...more
  })
  /** A start with these keys; who was signed in is not any more. */
  const start = (keys: JsonWebKey[]): RequestListener =>
    new Provider(issuer, {
      clients: [
        ...apps.map((id) => client(id)),
        ...algorithms.map((id) => client(id, { id_token_signed_response_alg: id as 'ES256' })),
        ...pairwise.map((id) => client(id, { subject_type: 'pairwise' })),
        client('no-session', { backchannel_logout_session_required: false }),
        // As its operator sets it: the keys are those that the service publishes.
        ...Object.entries(encrypted).map(([id, how]) =>
          client(id, { ...how, jwks_uri: `${serviceUrl}/.well-known/jwks.json` })
        )
      ],
      cookies: { keys: [cookieKey] },
      enabledJWA: {
        idTokenSigningAlgValues: ['RS256', 'ES256', 'PS256', 'EdDSA'],
        idTokenEncryptionAlgValues: ['RSA-OAEP-256', 'ECDH-ES'],
        idTokenEncryptionEncValues: ['A128GCM', 'A256GCM']
      },
      features: { backchannelLogout: { enabled: true }, encryption: { enabled: true } },
      findAccount: (_context, accountId) => ({ accountId, claims: () => ({ sub: accountId }) }),
      jwks: { keys: keys as never },
      pkce: { required: () => false },
      subjectTypes: ['public', 'pairwise'],
      pairwiseIdentifier: (_context, accountId, { clientId }) =>
        createHash('sha256').update(`${clientId} ${accountId}`).digest('hex'),
      // By default it posts to no private address.
      fetch: (url, { dispatcher: _, ...options } = {}) => fetch(url, options as RequestInit)
    }).callback()

  const firstKeys = makeKeys('first')
  let handle = start(firstKeys)
  const server = createServer((request, response) => handle(request, response)).listen(port, '127.0.0.1')
  await once(server, 'listening')
  t.teardown(() => {
    server.closeAllConnections()
    server.close()
  })
  await seen.awaitKeys()

  const party = (clientId: string): RelyingParty => ({ clientId, clientSecret: secretOf(clientId), issuer })
  const everybody = () => signInAll(apps.map(party))
  /** As an app's sign-out button does; the user confirms it at the provider. */
  async function signOut({ user, browser, idToken }: SignIn): Promise<void> {
    const opened = browserOf({ user, browser })
    const page = await opened.open(`${issuer}/session/end?${new URLSearchParams({ id_token_hint: idToken })}`)
    await opened.submit(page, { logout: 'yes' })
  }

  const one = await scenario(
    {
      name: 'session logout',
      column: 'session logout',
      done: 'a user signs out in one of three apps, by RP-initiated logout',
      sends: 3
    },
    everybody,
    ({ laptop }) => signOut(laptop)
  )
  t.same(
    one.requests.map(({ status }) => status),
    [200, 200, 200]
  )
  t.same(one.rowsLeft, ['shop/bob'])

  const rotated = await scenario(
    { name: 'rotated keys', column: 'rotated keys', done: 'restarted with new keys before the old ones', sends: 3 },
    () => {
      handle = start([...makeKeys('second'), ...firstKeys])
      return everybody()
    },
    ({ laptop }) => signOut(laptop)
  )
  t.same(rotated.rowsLeft, ['shop/bob'])

  const signed = await scenario(
    { name: 'algorithms', column: null, done: '`id_token_signed_response_alg` of each client', sends: 3 },
    () => signInAll(algorithms.map(party)),
    ({ laptop }) => signOut(laptop)
  )
  t.same(signed.rowsLeft, ['ES256/bob'])

  const apart = await scenario(
    {
      name: 'pairwise subjects',
      column: null,
      done: '`subject_type: pairwise`: each app has a subject of its own',
      sends: 2
    },
    () => signInAll(pairwise.map(party)),
    ({ laptop }) => signOut(laptop)
  )
  t.same(apart.rowsLeft, ['pairwise-shop/bob'])

  const secret = await scenario(
    {
      name: 'encrypted',
      column: null,
      done: '`id_token_encrypted_response_alg` and `…_enc` of each client, by the keys that the service publishes',
      sends: 4
    },
    () => signInAll(Object.keys(encrypted).map(party)),
    ({ laptop }) => signOut(laptop)
  )
  t.same(
    secret.requests
      .map((request) => readRequest(request).token)
      .map((token) => [token?.claims.aud, token?.encryption?.alg, token?.encryption?.enc, token?.header.alg].join(' '))
      .sort(),
    [
      'ec-128 ECDH-ES A128GCM RS256',
      'ec-256 ECDH-ES A256GCM ES256',
      'rsa-128 RSA-OAEP-256 A128GCM RS256',
      'rsa-256 RSA-OAEP-256 A256GCM RS256'
    ]
  )
  t.same(secret.rowsLeft, ['rsa-128/bob'])

  const sidless = await scenario(
    {
      name: 'without sessions',
      column: null,
      done: '`backchannel_logout_session_required: false`: there is no sid',
      sends: 1
    },
    async () => ({
      laptop: await signIn({ user: 'alice', browser: 'laptop' }, party('no-session')),
      phone: await signIn({ user: 'alice', browser: 'phone' }, party('no-session')),
      bob: await signIn({ user: 'bob', browser: 'laptop' }, party('no-session'))
    }),
    ({ laptop }) => signOut(laptop)
  )
  t.same(sidless.sessionsLeft, ['no-session/bob/laptop'])

  seen.conclude(t, 'oidc-provider')
})

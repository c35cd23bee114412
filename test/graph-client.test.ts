// The client against a Graph that behaves as the real one is known to.
import { randomUUID } from 'node:crypto'
import { writeFileSync } from 'node:fs'
import { generateKeyPair, SignJWT } from 'jose'
import t, { type Test } from 'tap'
import { createGraphClient, type GraphClientOptions } from '../src/directories/microsoft-graph/client.ts'
import { createOutboundFetch } from '../src/outbound-fetch.ts'
import { makeCertificate } from './fixtures/certificate.ts'
import { type Directory, startDirectory, watcherId, watcherSecret } from './fixtures/directory.ts'

const { fetch } = createOutboundFetch({ https: undefined, http: undefined, none: '' })
const { signal } = new AbortController()

interface Client extends Directory {
  readonly client: ReturnType<typeof createGraphClient>
  /** The pauses that it made, milliseconds; none takes time. */
  readonly pauses: number[]
}

async function setUp(
  t: Test,
  changes: Parameters<typeof startDirectory>[1] = {},
  options: Partial<GraphClientOptions> = {}
): Promise<Client> {
  const directory = await startDirectory(t, changes)
  const pauses: number[] = []
  const client = createGraphClient({
    directory: directory.config,
    tenantId: directory.tenantId,
    fetch,
    sleep: async (ms) => {
      pauses.push(ms)
    },
    ...options
  })
  return { ...directory, client, pauses }
}

t.test('a secret, a certificate and a federated token each get a token, and each is checked', async (t) => {
  const own = await makeCertificate()
  const other = await makeCertificate()
  const { publicKey, privateKey } = await generateKeyPair('RS256')
  const workload = (subject: string, expiresIn: string) =>
    new SignJWT({})
      .setProtectedHeader({ alg: 'RS256', kid: 'cluster' })
      .setIssuer('https://cluster.example')
      .setSubject(subject)
      .setAudience('api://AzureADTokenExchange')
      .setIssuedAt('-2h')
      .setExpirationTime(expiresIn)
      .sign(privateKey)
  const { tenant, tenantId, config, fileOf, graph } = await startDirectory(t)
  const user = tenant.add()
  tenant.register(watcherId, {
    secrets: [{ value: watcherSecret }, { value: 'an old secret', expired: true }],
    certificates: [own.certificate],
    federated: [{ issuer: 'https://cluster.example', subject: 'system:serviceaccount:msal:watcher', publicKey }]
  })
  const secret = (content: string) => ({ kind: 'secret', clientSecretFile: fileOf(content) }) as const
  const token = (content: string) => ({ kind: 'federated', federatedTokenFile: fileOf(content) }) as const
  const pair = (certificate: string, key: string) =>
    ({ kind: 'certificate', certificateFile: fileOf(certificate), privateKeyFile: fileOf(key) }) as const
  for (const [name, credential, expected] of [
    ['the secret', secret(`${watcherSecret}\n`), 'found'],
    ['another secret', secret('wrong'), 'ERR_DIRECTORY_CREDENTIAL'],
    ['an expired secret', secret('an old secret'), 'ERR_DIRECTORY_CREDENTIAL_EXPIRED'],
    ['the certificate', pair(own.certificate, own.privateKey), 'found'],
    ['another certificate', pair(other.certificate, other.privateKey), 'ERR_DIRECTORY_CREDENTIAL'],
    ['the certificate with the key of another', pair(own.certificate, other.privateKey), 'ERR_DIRECTORY_CREDENTIAL'],
    ['a token of the workload', token(await workload('system:serviceaccount:msal:watcher', '1h')), 'found'],
    [
      'a token of another workload',
      token(await workload('system:serviceaccount:msal:other', '1h')),
      'ERR_DIRECTORY_CREDENTIAL'
    ],
    [
      'a token that has expired',
      token(await workload('system:serviceaccount:msal:watcher', '-1h')),
      'ERR_DIRECTORY_CREDENTIAL_EXPIRED'
    ],
    ['a file that has gone', { kind: 'secret', clientSecretFile: '/none' }, 'ERR_DIRECTORY_CREDENTIAL_FILE']
  ] as const) {
    const client = createGraphClient({ directory: { ...config, credential }, tenantId, fetch })
    const outcome = await client.readUsers([user.id], signal).then(
      (looks) => looks.get(user.id)?.outcome,
      (error: { code: string }) => error.code
    )
    t.equal(outcome, expected, name)
  }
  t.equal(graph.tokensGiven, 3)
})

t.test('another tenant, another client id and another cloud are told apart', async (t) => {
  const { tenant, tenantId, config, graph } = await startDirectory(t)
  const user = tenant.add()
  const codeOf = (changes: object, id = tenantId) =>
    createGraphClient({ directory: { ...config, ...changes }, tenantId: id, fetch })
      .readUsers([user.id], signal)
      .then(
        () => 'found',
        (error: { code: string; detail?: string }) => `${error.code} ${error.detail}`
      )
  t.equal(await codeOf({}, randomUUID()), 'ERR_DIRECTORY_TENANT AADSTS90002')
  t.equal(await codeOf({ clientId: randomUUID() }), 'ERR_DIRECTORY_CLIENT AADSTS700016')
  t.equal(
    await codeOf({ graphUrl: graph.url.replace('127.0.0.1', 'localhost') }),
    'ERR_DIRECTORY_CLOUD AADSTS500011',
    'Graph elsewhere'
  )
  tenant.register(watcherId, { secrets: [{ value: watcherSecret }], roles: [] })
  t.equal(await codeOf({}), 'ERR_DIRECTORY_CONSENT Authorization_RequestDenied')
})

t.test('a token serves until it is old or withdrawn, and a new credential is taken up from its file', async (t) => {
  let at = Date.now()
  const { client, tenant, graph, config } = await setUp(t, {}, { now: () => at })
  const { id } = tenant.add()
  const look = async () => (await client.readUsers([id], signal)).get(id)?.outcome
  t.equal(await look(), 'found')
  t.equal(await look(), 'found')
  t.equal(graph.tokensGiven, 1)
  graph.forgetTokens()
  t.equal(await look(), 'found', 'withdrawn, and renewed at once')
  t.equal(graph.tokensGiven, 2)
  const { credential } = config
  writeFileSync(credential.kind === 'secret' ? credential.clientSecretFile : '', 'the next one')
  tenant.register(watcherId, { secrets: [{ value: 'the next one' }] })
  at += 3_599 * 0.8 * 1_000
  t.equal(await look(), 'found')
  t.equal(graph.tokensGiven, 3)
})

t.test('users are read in batches of twenty, and what is missing is unknown, not false', async (t) => {
  const { client, tenant, graph } = await setUp(t, { revokeOn: ['disabled', 'passwordChanged'] })
  const at = '2026-11-25T12:00:00.1234567Z'
  const full = tenant.add(undefined, { signInSessionsValidFromDateTime: at, lastPasswordChangeDateTime: at }).id
  const bare = tenant.add(undefined, {
    accountEnabled: undefined,
    signInSessionsValidFromDateTime: undefined,
    lastPasswordChangeDateTime: undefined
  }).id
  const broken = tenant.add(undefined, { accountEnabled: null, signInSessionsValidFromDateTime: 'soon' }).id
  const gone = randomUUID()
  const others = Array.from({ length: 16 }, () => tenant.add().id)
  const looks = await client.readUsers([full, bare, broken, gone, ...others], signal)
  const ms = Date.parse(at)
  const unknown = { accountEnabled: undefined, sessionsValidFrom: undefined, passwordChangedAt: undefined }
  t.same(looks.get(full), {
    outcome: 'found',
    user: { accountEnabled: true, sessionsValidFrom: ms, passwordChangedAt: ms }
  })
  t.same(looks.get(bare), { outcome: 'found', user: unknown })
  t.match(looks.get(broken), { outcome: 'found', user: { accountEnabled: undefined, sessionsValidFrom: undefined } })
  t.same(looks.get(gone), { outcome: 'missing' })
  t.equal(looks.size, 20)
  t.equal(graph.count('$batch'), 1)
  t.ok(graph.calls.filter(({ path }) => path.startsWith('/v1.0/')).every(({ priority }) => priority === 'low'))
  await t.rejects(client.readUsers([...others, full, bare, broken, gone, randomUUID()], signal), /up to 20/)
  await t.rejects(client.readUsers(['x/../../me'], signal), /GUIDs/, 'an id is no path')
})

t.test('what fails in a batch is asked for again alone, after the pause that is asked for', async (t) => {
  const { client, tenant, graph, pauses } = await setUp(t)
  const [good, slow, flaky, poisoned, dead] = Array.from({ length: 5 }, () => tenant.add().id) as [
    string,
    string,
    string,
    string,
    string
  ]
  graph.batchFaults.set(slow, [
    { status: 429, headers: { 'Retry-After': '7' }, body: { error: { code: 'TooManyRequests' } } }
  ])
  graph.batchFaults.set(flaky, [{ status: 503 }, { status: 500 }])
  graph.batchFaults.set(poisoned, [{ status: 400, body: { error: { code: 'Request_BadRequest' } } }])
  graph.batchFaults.set(dead, Array(9).fill({ status: 504 }))
  const looks = await client.readUsers([good, slow, flaky, poisoned, dead], signal)
  const outcomes = Object.fromEntries([...looks].map(([id, { outcome }]) => [id, outcome]))
  t.same(outcomes, {
    [good]: 'found',
    [slow]: 'found',
    [flaky]: 'found',
    [poisoned]: 'unreadable',
    [dead]: 'unanswered'
  })
  t.equal(pauses[0], 7_000, 'as long as the slowest asks for')
  const batches = graph.calls.filter(({ path }) => path.includes('$batch')).map(({ batch }) => batch.length)
  t.same(batches, [5, 3, 2, 1, 1])
})

t.test('a pause is kept, a long one ends the round, and what is out of reach is tried some times', async (t) => {
  const { client, tenant, graph, pauses } = await setUp(t, {}, { timeoutMs: 1_000 })
  const { id } = tenant.add()
  const look = () => client.readUsers([id], signal)
  graph.throttle(2, 3)
  t.equal((await look()).get(id)?.outcome, 'found')
  t.same(pauses, [3_000, 3_000])

  graph.throttle(1, 600)
  await t.rejects(look(), { code: 'ERR_DIRECTORY_THROTTLED', retryAfterMs: 600_000 })

  pauses.length = 0
  graph.behaviour = 'gone'
  await t.rejects(look(), { code: 'ERR_DIRECTORY_UNREACHABLE' })
  t.equal(pauses.length, 4)
  t.ok(
    pauses.every((ms, i) => ms <= 500 * 2 ** i && ms >= 250 * 2 ** i),
    'longer each time, and never the same'
  )
  graph.behaviour = 'unavailable'
  await t.rejects(look(), { code: 'ERR_DIRECTORY_UNREACHABLE', detail: 'HTTP 503 serviceNotAvailable' })
  graph.behaviour = 'up'
  t.equal((await look()).get(id)?.outcome, 'found')
})

t.test('a directory that hangs is given up, and at once where the service stops', async (t) => {
  const { tenantId, tenant, graph, config } = await startDirectory(t)
  const { id } = tenant.add()
  graph.behaviour = 'hang'
  const hasty = createGraphClient({ directory: config, tenantId, fetch, timeoutMs: 20, sleep: async () => {} })
  await t.rejects(hasty.readUsers([id], signal), {
    code: 'ERR_DIRECTORY_UNREACHABLE',
    detail: 'no answer within 0.02 s'
  })
  const stopping = new AbortController()
  const patient = createGraphClient({ directory: config, tenantId, fetch })
  const look = t.rejects(patient.readUsers([id], stopping.signal), { code: 'ERR_DIRECTORY_UNREACHABLE' })
  stopping.abort()
  await look
})

t.test('a delta query begins now, and leads over empty pages to what has changed', async (t) => {
  const { client, tenant, graph } = await setUp(t)
  const users = Array.from({ length: 5 }, () => tenant.add().id)
  const [disabled = '', revoked = '', softly = '', forGood = '', renamed = ''] = users
  const start = (await client.startDelta(signal)) ?? ''
  tenant.disable(disabled)
  tenant.revoke(revoked, new Date('2026-11-25T12:00:00Z'))
  tenant.remove(softly)
  tenant.remove(forGood, 'deleted')
  tenant.rename(renamed, 'a new name')
  graph.pageSize = 2
  graph.emptyPages = 2
  graph.duplicates = true
  const seen = new Map<string, unknown>()
  let pages = 0
  let page = await client.readDelta(start, signal)
  for (; page?.next !== undefined; page = await client.readDelta(page.next, signal)) {
    pages += 1
    for (const { id, removed, user } of page.items) {
      seen.set(id, removed ?? user)
    }
  }
  t.equal(pages, 2 + 1 + 2 + 1 + 2, 'the last one has a link to come back to')
  t.same([...seen.keys()].sort(), [disabled, revoked, softly, forGood].sort())
  t.match(seen.get(disabled), { accountEnabled: false })
  t.match(seen.get(revoked), { accountEnabled: true, sessionsValidFrom: Date.parse('2026-11-25T12:00:00Z') })
  t.equal(seen.get(softly), 'changed')
  t.equal(seen.get(forGood), 'deleted')
  t.match(await client.readDelta(page?.link ?? '', signal), { items: [], next: undefined })
})

t.test('a link that is lost is no error, and one that leads elsewhere is never followed', async (t) => {
  const { client, graph } = await setUp(t)
  for (const how of ['gone', 'syncStateNotFound'] as const) {
    const link = (await client.startDelta(signal)) ?? ''
    graph.loseLinks(how)
    t.equal(await client.readDelta(link, signal), undefined, how)
  }
  const before = graph.calls.length
  await t.rejects(client.readDelta('https://graph.evil.example/v1.0/users/delta?$deltatoken=x', signal), {
    code: 'ERR_DIRECTORY_ANSWER'
  })
  t.equal(graph.calls.length, before)
})

t.test('a property that no delta query follows is left out, and a directory without them says so', async (t) => {
  const { client, tenant, graph } = await setUp(t)
  graph.unsupported = ['signInSessionsValidFromDateTime']
  const link = await client.startDelta(signal)
  const { id } = tenant.add()
  tenant.disable(id)
  t.match(await client.readDelta(link ?? '', signal), {
    items: [{ user: { accountEnabled: false, sessionsValidFrom: undefined } }, { id }]
  })
  graph.unsupported = []
  tenant.tenantType = 'CIAM'
  t.equal(await client.startDelta(signal), undefined)
})

t.test('no error bears a secret, an assertion or a token', async (t) => {
  const { client, tenant, graph } = await setUp(t)
  const { id } = tenant.add()
  const codes: string[] = []
  const fail = async () => {
    const error: unknown = await client.readUsers([id], signal).catch((cause: unknown) => cause)
    for (let cause = error; cause instanceof Error; cause = cause.cause) {
      codes.push(String(cause.message))
      t.notMatch(`${cause.message} ${JSON.stringify(cause)}`, /secret-of-the-watcher|Bearer/)
    }
  }
  tenant.register(watcherId, { secrets: [] })
  await fail()
  tenant.register(watcherId, { secrets: [{ value: watcherSecret }], roles: [] })
  await fail()
  graph.behaviour = 'unavailable'
  await fail()
  t.ok(codes.length >= 3)
})

t.test('a person is found by any address and by the user name, and by nobody else’s', async (t) => {
  const { client, tenant } = await setUp(t)
  const ada = tenant.add(undefined, {
    userPrincipalName: 'ada@contoso.example',
    mail: "Ada.O'Neil@example.com",
    mailNickname: 'ada',
    proxyAddresses: ['SMTP:ada@contoso.example', 'smtp:ada.old@example.com']
  })
  const adam = tenant.add(undefined, { userPrincipalName: 'adam@contoso.example', mailNickname: 'adam' })
  for (const [name, expected] of [
    ['ADA@contoso.example', [ada.id]],
    ["ada.o'neil@example.com", [ada.id]],
    ['ada.old@example.com', [ada.id]],
    ['ada', [ada.id]],
    ['adam', [adam.id]],
    ["x' or accountEnabled eq 'true", []],
    ['nobody@contoso.example', []]
  ] as const) {
    t.same(await client.findUsers(name, signal), expected, name)
  }
})

t.test('a search goes on behind an empty page, to no other origin, and not for ever', async (t) => {
  const ada = { id: randomUUID(), mail: 'Ada@contoso.example', userPrincipalName: 'a@contoso.example' }
  const ben = { ...ada, id: randomUUID(), mail: 'ben@contoso.example' }
  let pages: object[] = []
  const { client, graph } = await setUp(
    t,
    {},
    {
      async fetch(url, init) {
        if (!url.includes('/v1.0/users')) {
          return fetch(url, init)
        }
        const body = JSON.stringify(pages.shift() ?? { value: [] })
        return new Response(body) as unknown as Awaited<ReturnType<typeof fetch>>
      }
    }
  )
  const next = { '@odata.nextLink': `${graph.url}/v1.0/users?$skiptoken=x` }
  const find = () => client.findByAddress('ada@contoso.example', signal)
  pages = [{ value: [], ...next }, { value: [ada], ...next }, { value: [] }]
  t.same(await find(), [ada.id])
  pages = [{ value: [ada], ...next }, { value: [{ ...ada, id: ben.id }] }]
  t.same(await find(), [ada.id, ben.id], 'the second one may be behind')
  for (const [name, given] of [
    ['others', [{ value: [ben] }]],
    ['no list', [{ value: ada }]],
    ['elsewhere', [{ value: [ada], '@odata.nextLink': 'https://evil.example/v1.0/users' }]],
    ['without an end', Array(100).fill({ value: [], ...next })]
  ] as const) {
    pages = [...given]
    await t.rejects(find(), { code: 'ERR_DIRECTORY_ANSWER' }, name)
  }
  pages = [{ value: [{ ...ada, id: "'; drop table" }] }]
  t.same(await find(), [], 'an id that is none')
})

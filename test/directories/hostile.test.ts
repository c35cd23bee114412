// Graph, or what has put itself in its place, answers as badly as it can: nobody is signed out by it, nothing leaves for elsewhere,
// and the next good round makes up for all.
import { randomUUID } from 'node:crypto'
import t, { type Test } from 'tap'
import { createOutboundFetch, type Fetch } from '../../src/outbound-fetch.ts'
import { startDirectory } from '../fixtures/directory.ts'
import { startWorld, stateOf, worldOf } from '../fixtures/directory-world.ts'
import { build } from '../fixtures/service.ts'

interface Given {
  status?: number
  headers?: Record<string, string>
  /** What is no text is made JSON. */
  body?: unknown
}

const outbound = createOutboundFetch({ https: undefined, http: undefined, none: '' }).fetch
const megabyte = 2 ** 20

/** A world whose directory is replaced, for paths with that in them, as long as `lie` is set. */
async function startHostile(t: Test) {
  const asked: string[] = []
  let lie: { path: string; answer: (body: string) => Given } | undefined
  const fetch: Fetch = async (url, init) => {
    asked.push(new URL(url).host)
    if (lie === undefined || !url.includes(lie.path)) {
      return outbound(url, init)
    }
    const { status = 200, headers, body } = lie.answer(init.body ?? '')
    const text = typeof body === 'string' ? body : JSON.stringify(body)
    const response = new Response(status === 204 ? null : text, { status, headers: headers ?? {} })
    return response as unknown as Awaited<ReturnType<Fetch>>
  }
  const world = await startWorld(t, {}, { fetch, directories: { sleep: async () => {} } })
  return {
    ...world,
    asked,
    tell(path: string, answer: (body: string) => Given) {
      lie = { path, answer }
    },
    beHonest() {
      lie = undefined
    }
  }
}

/** Ids of the users that a batch asks for. */
function idsIn(batch: string): string[] {
  const { requests } = JSON.parse(batch) as { requests: { id: string }[] }
  return requests.map(({ id }) => id)
}

const responses = (part: (id: string) => object) => (batch: string) => ({
  body: { responses: idsIn(batch).map((id) => ({ id, status: 200, ...part(id) })) }
})

const lies: [name: string, path: string, answer: (body: string) => Given][] = [
  ['a page of a portal', '/v1.0/', () => ({ headers: { 'content-type': 'text/html' }, body: '<html>Sign in</html>' })],
  ['nothing', '/v1.0/', () => ({ body: '' })],
  ['204', '/v1.0/', () => ({ status: 204 })],
  ['null', '/v1.0/', () => ({ body: null })],
  ['a list', '/v1.0/', () => ({ body: [] })],
  ['a very deep list', '/v1.0/', () => ({ body: '['.repeat(megabyte) })],
  ['more than it may', '/v1.0/', () => ({ body: `{"value":["${'x'.repeat(9 * megabyte)}"]}` })],
  ['a redirect', '/v1.0/', () => ({ status: 302, headers: { location: 'http://evil.example/' }, body: '' })],
  ['a permanent redirect', '/v1.0/', () => ({ status: 308, headers: { location: '//evil.example' }, body: '' })],
  ['404 for everything', '/v1.0/', () => ({ status: 404, body: { error: { code: 'NotFound' } } })],
  ['400 with markup', '/v1.0/', () => ({ status: 400, body: { error: { code: '<script>\u202e\n' } } })],
  [
    'a redirect of the sign-in',
    '/oauth2/',
    () => ({ status: 307, headers: { location: 'http://evil.example' }, body: '' })
  ],
  ['a token that is none', '/oauth2/', () => ({ body: { token_type: 'Bearer', expires_in: 3_599, access_token: {} } })],
  [
    'a token with a new line',
    '/oauth2/',
    () => ({ body: { token_type: 'Bearer', expires_in: 3_599, access_token: 'top-secret\r\nx-evil: 1' } })
  ],
  [
    'a next page elsewhere',
    'users/delta',
    () => ({ body: { value: [], '@odata.nextLink': 'https://evil.example/v1.0/users/delta?$skiptoken=x' } })
  ],
  [
    'a next page with a user before the host',
    'users/delta',
    () => ({ body: { value: [], '@odata.nextLink': 'http://graph.microsoft.com@evil.example/v1.0/users/delta' } })
  ],
  ['a link elsewhere', 'users/delta', () => ({ body: { value: [], '@odata.deltaLink': '//evil.example/x' } })],
  ['a link that is none', 'users/delta', () => ({ body: { value: [], '@odata.deltaLink': 'javascript:alert(1)' } })],
  ['links that are no texts', 'users/delta', () => ({ body: { value: [], '@odata.deltaLink': { toString: 1 } } })],
  ['no links', 'users/delta', () => ({ body: { value: [] } })],
  ['a value that is none', 'users/delta', () => ({ body: { value: 'all', '@odata.deltaLink': '' } })],
  ['a batch without responses', '$batch', () => ({ body: { responses: null } })],
  ['a batch of others', '$batch', responses(() => ({ id: randomUUID(), body: { accountEnabled: false } }))],
  ['a batch of no ids', '$batch', responses(() => ({ id: { toString: null }, body: { accountEnabled: false } }))],
  ['the bodies of others', '$batch', responses(() => ({ body: { id: randomUUID(), accountEnabled: false } }))],
  ['bodies of nobody', '$batch', responses(() => ({ body: { accountEnabled: false } }))],
  ['statuses that are none', '$batch', responses((id) => ({ status: { x: 1 }, body: { id, accountEnabled: false } }))],
  [
    'pauses that are none',
    '$batch',
    responses(() => ({ status: 429, headers: { 'Retry-After': { toString: null } }, body: null }))
  ],
  ['texts for truths', '$batch', responses((id) => ({ body: { id, accountEnabled: 'false' } }))],
  ['a number for truth', '$batch', responses((id) => ({ body: { id, accountEnabled: 0 } }))],
  [
    'times that are none',
    '$batch',
    responses((id) => ({ body: { id, signInSessionsValidFromDateTime: 4_102_444_800 } }))
  ],
  [
    'times without sense',
    '$batch',
    responses((id) => ({ body: { id, signInSessionsValidFromDateTime: 'now() + 1' } }))
  ],
  ['404 once', '$batch', responses(() => ({ status: 404, body: {} }))]
]

for (const [name, path, answer] of lies) {
  t.test(`${name} signs nobody out, and the next good round makes up for it`, async (t) => {
    const { user, round, rows, tenant, asked, tell, beHonest, service, records } = await startHostile(t)
    const ids = [await user(), await user(), await user()]
    await round()
    const before = await rows()
    const [gone = ''] = ids
    const isOfSignIn = path === '/oauth2/'
    if (isOfSignIn) {
      service.watchers.replace([])
      service.watchers.replace(service.config.issuers) // it signs in anew
    }
    tell(path, answer)
    await round({ sweep: true })
    t.same(await rows(), before)
    t.same(await records(), [])
    t.same([...new Set(asked)].length, 1, 'nobody else is asked')
    t.notMatch(service.logs.join('\n'), /top-secret|\u202e|"level":"error"/, 'it is no fault of ours')
    beHonest()
    tenant.disable(gone)
    const state = await round({ sweep: true })
    t.same(
      await rows(),
      before.filter((row) => !row.includes(gone))
    )
    t.match(state, { deltaFailure: undefined, sweepFailure: undefined, breaker: undefined })
    t.equal((await records()).length, 1)
  })
}

t.test('what a delta query says of ids that are none, or very many, is no word about anybody', async (t) => {
  const { user, round, rows, tell, graph, service } = await startHostile(t)
  const id = await user()
  await round()
  const link = `${graph.url}/v1.0/users/delta?$deltatoken=x`
  const odd = [
    "'; drop table msal_logout.sessions; --",
    '<img src=x onerror=alert(1)>',
    `${id}'`,
    `${id} `,
    '%',
    '*',
    '',
    null,
    7,
    {},
    [id]
  ]
  for (const items of [
    odd.map((one) => ({ id: one, accountEnabled: false })),
    odd.map((one) => ({ id: one, '@removed': { reason: '<script>' } })),
    Array.from({ length: 20_000 }, () => ({ id: randomUUID(), accountEnabled: false })),
    [id, null, 'x', 7, [id]],
    [{ id, accountEnabled: null, signInSessionsValidFromDateTime: {}, '@removed': null }]
  ]) {
    tell('users/delta', () => ({ body: { value: items, '@odata.deltaLink': link } }))
    t.match(await round(), { deltaFailure: undefined, breaker: undefined })
    t.equal((await rows()).length, 1)
  }
  t.notMatch(service.logs.join('\n'), /drop table|"level":"error"/)
  t.equal(Number((await service.database.query('select count(*) from msal_logout.sessions'))[0]?.count), 1)
})

t.test('a delta query without an end is given up', async (t) => {
  const { user, round, rows, tell, graph } = await startHostile(t)
  await user()
  await round()
  let pages = 0
  tell('users/delta', () => {
    pages += 1
    return { body: { value: [], '@odata.nextLink': `${graph.url}/v1.0/users/delta?$skiptoken=${pages % 7}` } }
  })
  t.match(await round(), { deltaFailure: { code: 'ERR_DIRECTORY_ANSWER', detail: 'a delta query without an end' } })
  t.ok(pages < 20)
  t.equal((await rows()).length, 1)
})

t.test('who is gone from one tenant is not gone from another, though the id is the same', async (t) => {
  const first = await startDirectory(t)
  const other = '99999999-9999-4999-8999-999999999999'
  const second = await startDirectory(t, {}, { tenantId: other, graph: first.graph })
  const tenants = [...first.config.tenants, ...second.config.tenants]
  const service = await build(t, { policy: { directory: { ...first.config, tenants } } })
  const { round, signIn, rows } = worldOf(first, service)
  const { id } = first.tenant.add()
  second.tenant.add(id)
  await signIn(id)
  await signIn(id, { homeAccountId: `${id}.${other}`, tid: other, issuer: tenants[1]?.issuer ?? '' })
  await round()
  second.tenant.disable(id)
  await round({ sweep: true })
  t.same(await rows(), [`client-a/${id}.${first.tenantId}`])
  t.match(await stateOf(service, first.tenantId), { watched: 1 })
})

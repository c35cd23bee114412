// What a directory may say at once, and what others may say in its name.
import { randomUUID } from 'node:crypto'
import t, { type Test } from 'tap'
import type { DirectoryConfig } from '../src/directory-config.ts'
import { freePort } from '../src/embedded-postgres.ts'
import type { Edges, Service } from '../src/service.ts'
import { never, startWorld, stateOf, type World } from './fixtures/directory-world.ts'
import { build } from './fixtures/service.ts'

const path = '/directory-notifications/main'
const day = 86_400_000

/** A directory that is asked to notify, and a service that can be reached by it. */
async function startNotified(t: Test, changes: Partial<DirectoryConfig> = {}, edges: Partial<Edges> = {}) {
  const port = await freePort()
  const notificationUrl = `http://127.0.0.1:${port}${path}`
  const world = await startWorld(t, { notificationUrl, ...changes }, edges)
  await world.service.app.listen({ port, host: '127.0.0.1' })
  return { ...world, notificationUrl }
}

function send({ app }: Pick<Service, 'app'>, payload: unknown, url = path) {
  return app.inject({
    method: 'POST',
    url,
    headers: { 'content-type': 'application/json' },
    payload: typeof payload === 'string' ? payload : JSON.stringify(payload)
  })
}

/** Of the tenant, as Graph has it. */
function only({ tenant }: World) {
  const [subscription, ...more] = tenant.subscriptions.values()
  if (subscription === undefined || more.length > 0) {
    throw new Error(`there are ${tenant.subscriptions.size} subscriptions`)
  }
  return subscription
}

async function isHinted({ service }: World): Promise<boolean> {
  await service.watchers.tick(AbortSignal.abort()) // passes on what came, and begins no round
  const [row] = await service.database.query<{ is_hinted: boolean }>('select is_hinted from msal_logout.directories')
  return row?.is_hinted === true
}

async function counted({ service }: World): Promise<Record<string, number>> {
  const lines = (await service.metrics.text()).matchAll(/directory_notifications_total\{.*outcome="(\w+)"\} (\d+)/g)
  return Object.fromEntries([...lines].map(([, outcome = '', count]) => [outcome, Number(count)]))
}

t.test('the handshake is answered with its token, as a text that no browser takes for more', async (t) => {
  const { service } = await startNotified(t)
  const shake = (token: string, url = path) =>
    service.app.inject({
      method: 'POST',
      url: `${url}?validationToken=${token}`,
      headers: { 'content-type': 'text/plain' }
    })
  const answer = await shake('Validation%3a+Testing+%3Cscript%3Ealert(1)%3C%2Fscript%3E+%26%C3%A9')
  t.equal(answer.statusCode, 200)
  t.equal(answer.body, 'Validation: Testing <script>alert(1)</script> &é')
  t.match(answer.headers, {
    'content-type': 'text/plain; charset=utf-8',
    'x-content-type-options': 'nosniff',
    'content-security-policy': "default-src 'none'; sandbox",
    'cache-control': 'no-store'
  })
  for (const [name, token] of [
    ['empty', ''],
    ['long', 'x'.repeat(1_025)],
    ['with a new line', 'a%0D%0Ab'],
    ['with a NUL', 'a%00'],
    ['twice', 'a&validationToken=b']
  ] as const) {
    const { statusCode, body } = await shake(token)
    t.equal(statusCode, 400, name)
    t.match(JSON.parse(body), { error: 'invalid_request' })
  }
  const other = await shake('a', '/directory-notifications/other')
  t.equal(other.statusCode, 404)
  const got = await service.app.inject(`${path}?validationToken=a`)
  t.equal(got.statusCode, 405)
  t.equal(got.headers.allow, 'POST')
})

t.test('nobody is answered for an issuer whose directory is not asked to notify', async (t) => {
  const { service } = await startWorld(t)
  t.equal((await send(service, { value: [] })).statusCode, 404)
  t.equal((await send(service, '', `${path}?validationToken=a`)).statusCode, 404)
})

t.test(
  'a notification has the watcher look now, at most once in two seconds, and does nothing by itself',
  async (t) => {
    const world = await startNotified(t)
    const { user, round, rows, tenant, tenantId, graph, service } = world
    const id = await user()
    await round()
    tenant.disable(id)
    t.same(await graph.notify(tenantId, id), [202])
    t.same(await graph.notify(tenantId, id), [202])
    t.equal((await rows()).length, 1)
    graph.calls.length = 0
    await Promise.all(await service.watchers.tick(never))
    t.equal(graph.count('delta'), 0, 'a round has only just begun')
    await service.database.query(`update msal_logout.directories set begun_at = begun_at - interval '2 seconds'`)
    await Promise.all(await service.watchers.tick(never))
    t.equal(graph.count('delta'), 1)
    t.same(await rows(), [])
    await Promise.all(await service.watchers.tick(never))
    t.equal(graph.count('delta'), 1, 'several notifications are one reason')
    t.same(await counted(world), { known: 2, unknown: 0 })
  }
)

t.test('what does not know the secret of the subscription is answered alike, and is no reason to look', async (t) => {
  const world = await startNotified(t)
  await world.user()
  await world.round()
  const { id: subscriptionId, clientState } = only(world)
  const unknown: object[] = [
    { subscriptionId, clientState: `${clientState.slice(0, -1)}!` },
    { subscriptionId, clientState: '' },
    { subscriptionId, clientState: null },
    { subscriptionId },
    { subscriptionId: randomUUID(), clientState },
    { subscriptionId: '', clientState: '' },
    { subscriptionId, clientState: 'x', lifecycleEvent: 'reauthorizationRequired' }
  ]
  for (const item of unknown) {
    const answer = await send(world.service, { value: [item] })
    t.equal(answer.statusCode, 202, JSON.stringify(item))
    t.equal(answer.body, '')
  }
  t.equal((await send(world.service, { value: [] })).statusCode, 202)
  t.equal(await isHinted(world), false)
  t.same(await counted(world), { known: 0, unknown: unknown.length })
  const mixed = await send(world.service, { value: [...unknown, { subscriptionId, clientState }] })
  t.equal(mixed.statusCode, 202)
  t.equal(mixed.body, '')
  t.equal(await isHinted(world), true)
})

t.test('a body that no directory sends is rejected, and changes nothing', async (t) => {
  const world = await startNotified(t)
  await world.user()
  await world.round()
  const { id: subscriptionId, clientState } = only(world)
  const good = { subscriptionId, clientState }
  for (const [name, body, status] of [
    ['empty', '', 400],
    ['no JSON', '{"value":', 400],
    ['deep', '['.repeat(100_000), 400],
    ['null', 'null', 400],
    ['a list', [good], 400],
    ['no value', {}, 400],
    ['a value that is no list', { value: good }, 400],
    ['an item that is none', { value: [good, 1] }, 400],
    ['an item of null', { value: [null] }, 400],
    ['an id that is no text', { value: [good, { ...good, subscriptionId: 1 }] }, 400],
    ['a secret that is no text', { value: [good, { ...good, clientState: [clientState] }] }, 400],
    ['a secret that is too long', { value: [{ ...good, clientState: 'x'.repeat(129) }] }, 400],
    ['an event that is no text', { value: [{ ...good, lifecycleEvent: {} }] }, 400],
    ['huge', JSON.stringify({ value: [good], more: 'x'.repeat(256 * 1024) }), 413]
  ] as const) {
    const answer = await send(world.service, body)
    t.equal(answer.statusCode, status, name)
    t.match(answer.json(), { error: 'invalid_request' }, name)
    t.notMatch(answer.body, clientState)
  }
  t.equal(await isHinted(world), false)
})

t.test('the answer does not wait for the database, and what was said is passed on when it is back', async (t) => {
  const world = await startNotified(t)
  const { user, round, graph, tenantId, service } = world
  const id = await user()
  await round()
  const holder = await service.database.pool.connect()
  try {
    await holder.query('begin')
    await holder.query('lock table msal_logout.directories in access exclusive mode')
    t.same(await graph.notify(tenantId, id), [202])
    await holder.query('rollback')
  } finally {
    holder.release()
  }
  await service.database.query('alter function msal_logout.hint_directory rename to gone')
  await t.rejects(service.watchers.tick(AbortSignal.abort()))
  await service.database.query('alter function msal_logout.gone rename to hint_directory')
  t.equal(await isHinted(world), true)
})

t.test('any instance takes what is said of the subscription that another one has made', async (t) => {
  const world = await startNotified(t)
  const { user, round, graph, tenantId, service, config } = world
  const id = await user()
  await round()
  const other = await build(t, { database: service.database, policy: { directory: config } })
  const { id: subscriptionId, clientState } = only(world)
  await other.watchers.tick(never)
  await send(other, { value: [{ subscriptionId, clientState, changeType: 'updated' }] })
  await other.watchers.tick(AbortSignal.abort())
  t.equal(await isHinted(world), true)
  t.equal(graph.tenant(tenantId).subscriptions.size, 1, 'there is one')
  t.ok(id)
})

t.test('a subscription is renewed at half of its life, or when the directory asks for it', async (t) => {
  let at = Date.now()
  const world = await startNotified(t, {}, { now: () => at })
  const { round, graph, tenantId, service, notificationUrl } = world
  await round()
  const { id, clientState, expirationDateTime } = only(world)
  t.match(only(world), { resource: '/users', changeType: 'updated,deleted', notificationUrl })
  t.equal(only(world).lifecycleNotificationUrl, notificationUrl)
  t.ok(clientState.length >= 32 && clientState.length <= 128)
  t.ok(Math.abs(Date.parse(expirationDateTime) - at - 2 * day) < 60_000)
  const renewals = () => graph.calls.filter(({ method }) => method === 'PATCH').length
  at += day - 60_000
  await round()
  t.equal(renewals(), 0)
  at += 120_000
  await round()
  t.equal(renewals(), 1)
  t.same({ ...only(world), expirationDateTime }, { ...only(world), id, clientState, expirationDateTime })
  t.ok(Date.parse(only(world).expirationDateTime) > Date.parse(expirationDateTime))
  await round()
  t.equal(renewals(), 1)
  t.same(await graph.askForReauthorization(tenantId), [202])
  await service.watchers.tick(AbortSignal.abort())
  await round()
  t.equal(renewals(), 2)
  await round()
  t.equal(renewals(), 2)
  t.equal(graph.calls.filter(({ method, path }) => method === 'POST' && path === '/v1.0/subscriptions').length, 1)
})

t.test('a subscription that the directory has lost is made anew, with another secret', async (t) => {
  let at = Date.now()
  const world = await startNotified(t, {}, { now: () => at })
  await world.round()
  const lost = only(world)
  world.tenant.subscriptions.clear()
  at += day + 60_000
  await world.round()
  t.not(only(world).id, lost.id)
  t.not(only(world).clientState, lost.clientState)
  await send(world.service, { value: [{ subscriptionId: lost.id, clientState: lost.clientState }] })
  t.equal(await isHinted(world), false, 'the old one is nobody’s')
  t.same(await world.graph.notify(world.tenantId, randomUUID()), [202])
  t.equal(await isHinted(world), true)
})

t.test('a directory that cannot notify is watched all the same, and asked again after a while', async (t) => {
  let at = Date.now()
  const world = await startNotified(
    t,
    { notificationUrl: `http://127.0.0.1:${await freePort()}${path}` },
    { now: () => at }
  )
  const { user, round, rows, tenant, graph, service, tenantId } = world
  const id = await user()
  await round()
  const asked = () => graph.count('/v1.0/subscriptions')
  t.equal(asked(), 1)
  t.match((await stateOf(service, tenantId)).subscription, { failure: { code: 'ERR_DIRECTORY_REQUEST' } })
  const view = (await service.operate('GET', '/admin/directories')).json()
  t.match(view, { directories: [{ notifications: { expiresAt: null, failure: { code: 'ERR_DIRECTORY_REQUEST' } } }] })
  tenant.disable(id)
  const state = await round({ sweep: true })
  t.same(await rows(), [])
  t.match(state, { deltaFailure: undefined, sweepFailure: undefined })
  t.ok(state.goodAt)
  t.equal(asked(), 1, 'not in each round')
  at += 6 * 60_000
  await round()
  t.equal(asked(), 2)
  t.equal(service.logs.filter((line) => line.includes('a directory does not notify')).length, 1, 'logged once')
})

t.test('a subscription ends when it is no longer wanted, and moves with the address', async (t) => {
  const world = await startNotified(t)
  const { service, config, round, tenant, notificationUrl } = world
  await round()
  const first = only(world)
  const reload = async (url: string | undefined) => {
    const issuers = service.config.issuers.map((issuer) => ({
      ...issuer,
      directory: { ...config, notificationUrl: url }
    }))
    await service.reload({ ...service.config, issuers })
    await round()
  }
  await reload(`${notificationUrl}/`)
  t.not(only(world).id, first.id)
  t.equal(only(world).notificationUrl, `${notificationUrl}/`)
  await reload(undefined)
  t.equal(tenant.subscriptions.size, 0)
  t.same(await service.database.query('select subscription from msal_logout.directories'), [{ subscription: null }])
})

t.test('nothing that a notification is known by is in the database, the logs, the metrics or the views', async (t) => {
  const world = await startNotified(t)
  const { round, graph, tenantId, service } = world
  await round()
  const { id, clientState } = only(world)
  await graph.notify(tenantId, randomUUID())
  await send(service, { value: [{ subscriptionId: id, clientState: 'wrong' }] })
  const stored = JSON.stringify(await service.database.query('select * from msal_logout.directories'))
  t.notMatch(stored, clientState)
  const view = await service.operate('GET', '/admin/directories')
  t.match(view.json(), { directories: [{ notifications: { failure: null } }] })
  const seen = [...service.logs, JSON.stringify(view.json()), await service.metrics.text()].join('\n')
  t.notOk(seen.includes(clientState))
  t.notOk(seen.includes(id))
})

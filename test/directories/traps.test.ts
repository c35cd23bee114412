// What directories are known to do, and what may happen to a watcher meanwhile.
import { randomUUID } from 'node:crypto'
import t from 'tap'
import { createRole } from '../fixtures/database.ts'
import { startDirectory } from '../fixtures/directory.ts'
import { disabledMany, never, startWorld, stateOf, worldOf } from '../fixtures/directory-world.ts'
import { nowSeconds } from '../fixtures/orders.ts'
import { build } from '../fixtures/service.ts'

t.test('what is missed by every delta query is found by the sweep', async (t) => {
  const { user, round, rows, tenant, graph } = await startWorld(t)
  const ids = [await user(), await user(), await user()] as const
  await round()
  tenant.lagDelta()
  tenant.disable(ids[0])
  tenant.remove(ids[1])
  tenant.revoke(ids[2])
  await round()
  t.equal((await rows()).length, 3)
  const state = await round({ sweep: true })
  t.equal((await rows()).length, 1, 'one look is not enough for who is not found')
  t.match(state.rounds[0], { kind: 'sweep', done: { disabled: 1, revoked: 1 }, doubted: 1 })
  await round()
  t.equal((await rows()).length, 0)
  t.equal(graph.count('latest'), 1)
})

t.test('a time in the future ends what there is, and keeps nobody out for long', async (t) => {
  const { user, signIn, round, rows, tenant } = await startWorld(t)
  const id = await user()
  await round()
  tenant.revoke(id, new Date('2099-01-01T00:00:00Z'))
  await round()
  t.same(await rows(), [])
  t.equal(await signIn(id, { issuedAt: nowSeconds() + 120 }), true)
})

t.test('a password change ends sessions where that is asked for', async (t) => {
  for (const [revokeOn, left] of [
    [['disabled', 'deleted', 'revoked'], 1],
    [['passwordChanged'], 0]
  ] as const) {
    const { user, round, rows, tenant, records } = await startWorld(t, { revokeOn })
    const id = await user()
    await round()
    tenant.changePassword(id)
    await round()
    await round({ sweep: true })
    t.equal((await rows()).length, left, revokeOn.join())
    if (left === 0) {
      t.match(await records(), [{ reason: /^password changed in Entra ID: lastPasswordChangeDateTime is 20/ }])
    }
  }
})

t.test('nothing is done for a reason that is not asked for', async (t) => {
  const { user, round, rows, tenant } = await startWorld(t, { revokeOn: ['passwordChanged'] })
  const ids = [await user(), await user(), await user()] as const
  await round()
  tenant.disable(ids[0])
  tenant.remove(ids[1])
  tenant.revoke(ids[2])
  await round()
  await round({ sweep: true })
  await round()
  t.equal((await rows()).length, 3)
})

t.test('a user is found by the home of the account where the login named no object, or another tenant’s', async (t) => {
  const { tenant, tenantId, signIn, round, rows } = await startWorld(t)
  const [unnamed, elsewhere, stays] = [tenant.add().id, tenant.add().id, tenant.add().id] as const
  await signIn(unnamed, { oid: null, tid: null, clientId: 'client-a' })
  await signIn(elsewhere, { oid: randomUUID(), tid: randomUUID(), clientId: 'client-a' })
  await signIn(stays, { oid: null, tid: null })
  await round()
  tenant.disable(unnamed)
  tenant.disable(elsewhere)
  await round()
  t.same(await rows(), [`client-a/${stays}.${tenantId}`])
})

t.test('what is missing, or null, ends nothing', async (t) => {
  const { user, round, rows, tenant } = await startWorld(t)
  const [missing, empty] = [await user(), await user()]
  Object.assign(tenant.users.get(missing) ?? {}, {
    accountEnabled: undefined,
    signInSessionsValidFromDateTime: undefined
  })
  Object.assign(tenant.users.get(empty) ?? {}, { accountEnabled: null })
  await round({ sweep: true })
  tenant.rename(missing, 'x')
  await round({ sweep: true })
  await round()
  t.equal((await rows()).length, 2)
})

t.test('what one delta query says twice, in any order, over many pages, is looked at and done once', async (t) => {
  const { user, round, rows, tenant, graph, records, tenantId } = await startWorld(t)
  const [flapped, gone, back] = [await user(), await user(), await user()]
  await round()
  graph.pageSize = 1
  graph.emptyPages = 1
  graph.duplicates = true
  tenant.disable(flapped)
  tenant.replay({ ...(tenant.users.get(flapped) ?? { id: flapped }) })
  tenant.enable(flapped)
  tenant.disable(gone)
  tenant.restore(tenant.remove(back))
  await round()
  t.same((await rows()).sort(), [`client-a/${flapped}.${tenantId}`, `client-a/${back}.${tenantId}`].sort())
  t.equal((await records()).length, 1)
})

t.test('a change that no replica shows yet is looked at again', async (t) => {
  const { user, round, rows, tenant } = await startWorld(t)
  const id = await user()
  await round()
  tenant.lag(id)
  tenant.enable(id)
  tenant.disable(id)
  tenant.replay({ ...(tenant.users.get(id) ?? { id }), accountEnabled: true })
  await round()
  t.equal((await rows()).length, 1, 'it says both, and the user who was read is enabled')
  tenant.replicate()
  await round()
  t.same(await rows(), [])
})

for (const how of ['gone', 'syncStateNotFound'] as const) {
  t.test(`a link that is lost (${how}) is made anew, and a sweep finds what it would have shown`, async (t) => {
    const { user, round, rows, tenant, graph } = await startWorld(t)
    const id = await user()
    const before = await round()
    tenant.disable(id)
    graph.loseLinks(how)
    const after = await round()
    t.not(after.deltaLink, before.deltaLink)
    t.same(await rows(), [])
    t.match(after, { deltaFailure: undefined, sweepFailure: undefined })
    const next = await user()
    tenant.disable(next)
    await round()
    t.same(await rows(), [], 'and the new one goes on')
  })
}

t.test('a directory without delta queries is swept', async (t) => {
  const { user, round, rows, tenant, graph } = await startWorld(t)
  tenant.tenantType = 'CIAM'
  const id = await user()
  const state = await round()
  t.match(state, { deltaLink: undefined, deltaFailure: undefined, sweepFailure: undefined, watched: 1 })
  t.ok(state.goodAt)
  const asked = graph.count('/users/delta')
  tenant.disable(id)
  await round()
  await round()
  t.equal(graph.count('/users/delta'), asked, 'it is not asked again and again')
  t.equal((await rows()).length, 1)
  await round({ sweep: true })
  t.same(await rows(), [])
})

t.test('a user whom the directory does not answer for makes the sweep incomplete, and holds nobody up', async (t) => {
  const { user, round, rows, tenant, graph } = await startWorld(t, {}, { directories: { sleep: async () => {} } })
  const [silent, poisoned, gone] = [await user(), await user(), await user()]
  await round()
  tenant.lagDelta()
  tenant.disable(gone)
  graph.batchFaults.set(silent, Array(50).fill({ status: 503 }))
  graph.batchFaults.set(poisoned, Array(50).fill({ status: 400, body: { error: { code: 'x' } } }))
  const state = await round({ sweep: true })
  t.equal((await rows()).length, 2)
  t.match(state.sweepFailure, { code: 'ERR_DIRECTORY_INCOMPLETE', detail: '1 of 3', count: 1 })
  graph.batchFaults.delete(silent)
  t.equal((await round({ sweep: true })).sweepFailure, undefined, 'one that cannot be read at all fails nothing')
})

t.test('another set of reasons begins anew', async (t) => {
  const { user, round, rows, tenant, service, graph, config, tenantId } = await startWorld(t)
  const id = await user()
  const before = await round()
  tenant.changePassword(id)
  await round()
  const other = await build(t, {
    policy: { directory: { ...config, revokeOn: ['passwordChanged'] } },
    database: service.database
  })
  graph.calls.length = 0
  const after = await round({ service: other })
  t.not(after.settings, before.settings)
  t.equal(graph.count('latest'), 1)
  t.same(await rows(), [])
  t.equal((await stateOf(service, tenantId)).sweepFailure, undefined)
})

t.test('as many as are allowed go, and few say nothing by their share', async (t) => {
  for (const [changes, count, of] of [
    [{ maxPercent: 50 }, 10, 20],
    [{ maxPercent: 10 }, 9, 9],
    [{ maxAccounts: 5 }, 5, 20]
  ] as const) {
    const world = await startWorld(t, changes)
    await disabledMany(world, count, of)
    const state = await world.round()
    t.equal(state.breaker, undefined)
    t.equal((await world.rows()).length, of - count)
  }
})

t.test(
  'what an operator drops is not done, and does not come back, until the directory says something else',
  async (t) => {
    const world = await startWorld(t, { maxAccounts: 3 })
    const { round, rows, service, tenantId, tenant } = world
    const ids = await disabledMany(world, 4, 6)
    await round()
    t.equal(await service.directoryStore.decide(tenantId, 'dropped', 'somebody'), 4)
    t.equal((await round({ sweep: true })).breaker, undefined)
    t.equal((await round({ sweep: true })).breaker, undefined)
    t.equal((await rows()).length, 6)
    tenant.remove(ids[0] ?? '')
    await round()
    t.equal((await rows()).length, 5, 'deleted is something else')
    tenant.enable(ids[1] ?? '')
    await round({ sweep: true })
    tenant.disable(ids[1] ?? '')
    await round()
    t.equal((await rows()).length, 4, 'and so is disabled after enabled')
  }
)

t.test('a restart and another instance keep the breaker', async (t) => {
  const world = await startWorld(t, { maxAccounts: 3 })
  const { round, rows, service, config, tenantId } = world
  await disabledMany(world, 4, 6)
  await round()
  const other = await build(t, { policy: { directory: config }, database: service.database })
  const state = await round({ service: other, sweep: true })
  t.match(state.breaker, { found: 4 })
  t.equal((await rows()).length, 6)
  await other.directoryStore.decide(tenantId, 'released', 'somebody')
  await round({ service: other })
  t.equal((await rows()).length, 2)
})

t.test('a wrong address, at which nobody is found, signs nobody out', async (t) => {
  const world = await startWorld(t)
  const ids = await disabledMany(world, 0, 12)
  world.tenant.users.clear()
  await world.round({ sweep: true })
  const state = await world.round()
  t.match(state.breaker, { found: ids.length, watched: ids.length })
  t.equal((await world.rows()).length, ids.length)
})

t.test('a dry run shows what would be done, without end, and does nothing', async (t) => {
  const world = await startWorld(t, { dryRun: true })
  const { round, rows, records, service, tenantId, signIn, tenant, config } = world
  const [first = ''] = await disabledMany(world, 3, 3)
  for (const options of [{}, { sweep: true }, { sweep: true }]) {
    await round(options)
    t.same(await service.directoryStore.countFindings(tenantId), { dry_run: 3 })
  }
  t.equal((await rows()).length, 3)
  t.same(await records(), [])
  t.equal(await signIn(first, { clientId: 'client-b' }), true, 'no login is kept out')
  tenant.enable(first)
  await round({ sweep: true })
  t.same(await service.directoryStore.countFindings(tenantId), { dry_run: 2 })
  const live = await build(t, {
    policy: { directory: { ...config, dryRun: false } },
    database: service.database
  })
  await round({ service: live })
  t.equal((await rows()).length, 2, 'where it is over, the sweep does at once what was shown')
})

t.test('with the database gone in the middle of a round nothing is written down as done', async (t) => {
  let at = Date.now()
  const { user, round, rows, tenant, service, graph, tenantId } = await startWorld(t, {}, { now: () => at })
  const id = await user()
  const before = await round()
  tenant.disable(id)
  graph.onRequest = async () => {
    graph.onRequest = async () => {}
    await service.database.query('alter function msal_logout.find_watched rename to away')
  }
  await round()
  t.equal((await stateOf(service, tenantId)).deltaLink, before.deltaLink)
  t.ok(service.logs.some((line) => line.includes('a round of a directory is put off')))
  await service.database.query('alter function msal_logout.away rename to find_watched')
  t.equal((await rows()).length, 1)
  const asked = graph.calls.length
  await round()
  t.equal(graph.calls.length, asked, 'it is not tried again at once')
  at += 5_000
  await round()
  t.same(await rows(), [])
})

t.test('what a round ends in after its lease is over is not written', async (t) => {
  const { user, round, service, graph, tenantId, tenant } = await startWorld(t)
  const id = await user()
  const before = await round()
  tenant.disable(id)
  graph.onRequest = async () => {
    graph.onRequest = async () => {}
    await service.database.query(`update msal_logout.directories set holder = gen_random_uuid()`)
  }
  await round()
  t.equal((await stateOf(service, tenantId)).deltaLink, before.deltaLink)
  t.ok(service.logs.some((line) => line.includes('ERR_DIRECTORY_LEASE')))
})

t.test('a directory that is out of reach for a day is asked less and less, and all is made up for', async (t) => {
  let at = Date.now()
  const { user, round, rows, tenant, graph, service } = await startWorld(
    t,
    {},
    { now: () => at, directories: { sleep: async () => {} } }
  )
  const id = await user()
  const before = await round()
  graph.behaviour = 'gone'
  tenant.disable(id)
  const pauses: number[] = []
  for (let i = 0; i < 5; i += 1) {
    await round({ sweep: true })
    const [row] = await service.database.query<{ pause: number }>(
      'select round(extract(epoch from due_at - now()))::int as pause from msal_logout.directories'
    )
    pauses.push(row?.pause ?? 0)
  }
  t.same(pauses, [60, 120, 240, 300, 300])
  const warnings = service.logs.filter((line) => line.includes('a directory cannot be watched'))
  t.equal(warnings.length, 1, 'a line when it begins')
  at += 86_400_000
  await service.database.query(
    `update msal_logout.directories set good_at = good_at - interval '1 day', delta_at = delta_at - interval '1 day',
      swept_at = swept_at - interval '1 day'`
  )
  t.equal((await rows()).length, 1)
  graph.behaviour = 'up'
  const after = await round()
  t.same(await rows(), [])
  t.match(after, { deltaFailure: undefined })
  t.ok(Number(after.goodAt) > Number(before.goodAt))
  t.ok(service.logs.some((line) => line.includes('a directory is watched again')))
})

t.test('a service that stops leaves its round, its lease and nothing half done', async (t) => {
  const { user, tenant, graph, service, rows, round, config } = await startWorld(t)
  const id = await user()
  const before = await round()
  tenant.disable(id)
  graph.behaviour = 'hang'
  await service.database.query('update msal_logout.directories set due_at = now(), held_until = null')
  const repetition = service.watchers.start()
  const isAsked = new Promise<void>((resolve) => {
    graph.onRequest = async () => resolve()
  })
  await isAsked
  await repetition.stop()
  const [left] = await service.database.query<{ holder: string | null; link: string }>(
    'select holder, delta_link as link from msal_logout.directories'
  )
  t.same(left, { holder: null, link: before.deltaLink })
  graph.behaviour = 'up'
  const next = await build(t, { policy: { directory: config }, database: service.database })
  await Promise.all(await next.watchers.tick(never))
  t.same(await rows(), [], 'the next one needs no pause')
})

t.test('each tenant of a template has a watcher, and one that fails holds up no other', async (t) => {
  const first = await startDirectory(t)
  const second = await startDirectory(t, {}, { graph: first.graph, tenantId: '22222222-2222-4222-8222-222222222222' })
  const tenants = [...first.config.tenants, ...second.config.tenants]
  const service = await build(t, { policy: { directory: { ...first.config, tenants } } })
  const [a, b] = [worldOf(first, service), worldOf(second, service)]
  const [left, right] = [await a.user(), await b.user()]
  await a.round()
  first.tenant.register(first.config.clientId, { secrets: [] })
  first.graph.forgetTokens()
  first.tenant.disable(left)
  second.tenant.disable(right)
  await a.round()
  t.same(await a.rows(), [`client-a/${left}.${first.tenantId}`])
  t.match((await stateOf(service, first.tenantId)).deltaFailure, { code: 'ERR_DIRECTORY_CREDENTIAL' })
  t.equal((await stateOf(service, second.tenantId)).deltaFailure, undefined)
})

t.test('of a user who is not in the cache a login under way is kept out, and nothing is recorded', async (t) => {
  const { tenant, signIn, round, records, rows } = await startWorld(t)
  const [disabled, revoked, old] = [tenant.add().id, tenant.add().id, tenant.add().id]
  await round()
  tenant.disable(disabled)
  tenant.revoke(revoked)
  tenant.revoke(old, new Date(Date.now() - 3_600_000))
  await round()
  t.equal(await signIn(disabled), false)
  t.equal(await signIn(disabled, { oid: null, tid: null, clientId: 'client-b' }), false, 'whatever it names')
  t.equal(await signIn(disabled, { homeAccountId: 'guest.elsewhere', clientId: 'client-c' }), false)
  t.equal(await signIn(revoked), false)
  t.equal(await signIn(revoked, { issuedAt: nowSeconds() + 5 }), true)
  t.equal(await signIn(old), true)
  t.same(await records(), [])
  t.equal((await rows()).length, 2)
})

t.test('no log line bears a secret, and a quiet round leaves none', async (t) => {
  const { user, round, service, tenant } = await startWorld(t)
  const id = await user()
  await round()
  const before = service.logs.length
  await round()
  t.equal(service.logs.slice(before).filter((line) => !line.includes('"level":20')).length, 0)
  tenant.disable(id)
  await round()
  t.ok(service.logs.some((line) => line.includes('"msg":"signed out"') && line.includes('"source":"directory"')))
  t.notMatch(service.logs.join('\n'), /secret-of-the-watcher/)
})

t.test("the service's least role is enough to watch", async (t) => {
  const { user, round, rows, tenant, tenantId, service, config } = await startWorld(t, { maxAccounts: 1 })
  const role = await createRole(service.database, 'service')
  await service.database.query('select msal_logout.register_service($1)', [role])
  const url = new URL(service.database.url)
  url.username = role
  url.password = 'test'
  const least = await build(t, {
    policy: { directory: config },
    database: service.database,
    edges: { connectionString: url.href }
  })
  const ids = [await user(), await user(), await user()]
  await round({ service: least })
  for (const id of ids.slice(0, 2)) {
    tenant.disable(id)
  }
  tenant.remove(ids[2] ?? '')
  const { breaker } = await round({ service: least, sweep: true })
  t.match(breaker, { found: 3 })
  t.equal(await least.directoryStore.decide(tenantId, 'released', 'somebody'), 3)
  await least.directoryStore.hint(tenantId)
  await round({ service: least })
  t.same(await rows(), [])
  t.same(
    service.logs.concat(least.logs).filter((line) => line.includes('put off')),
    []
  )
})

t.test('directories are added, changed and left alone while the service runs', async (t) => {
  const directory = await startDirectory(t)
  const service = await build(t)
  const { user, round, rows, tenant, graph } = worldOf(directory, service)
  const [main] = service.config.issuers
  if (main === undefined) {
    throw new Error('there is no issuer')
  }
  const reload = (config: typeof directory.config | undefined) =>
    service.reload({ ...service.config, issuers: [{ ...main, directory: config }] })
  const id = await user()
  await Promise.all(await service.watchers.tick(never))
  t.equal(graph.calls.length, 0)

  await reload(directory.config)
  await Promise.all(await service.watchers.tick(never))
  t.equal(graph.count('latest'), 1)
  tenant.disable(id)
  await reload({ ...directory.config, dryRun: true })
  await round()
  t.equal((await rows()).length, 1, 'by its new settings')
  await reload({ ...directory.config, dryRun: true })
  await round()
  t.equal(graph.count('latest'), 2, 'the same settings begin nothing anew')

  graph.behaviour = 'hang'
  await service.database.query('update msal_logout.directories set due_at = now(), held_until = null')
  const rounds = await service.watchers.tick(never)
  await reload(undefined)
  await Promise.all(rounds)
  t.same(service.watchers.watched(), [], 'a round that is under way is ended')
  const asked = graph.calls.length
  await Promise.all(await service.watchers.tick(never))
  t.equal(graph.calls.length, asked)
})

t.test('what an operator dropped stays so while a look at the user is declined', async (t) => {
  const world = await startWorld(t)
  const { graph, round, rows, service, tenantId } = world
  const ids = await disabledMany(world, 20, 30)
  await round({ sweep: true })
  t.equal(await service.directoryStore.decide(tenantId, 'dropped', 'somebody'), 20)
  await round({ sweep: true })
  const declined = { status: 403, body: { error: { code: 'Authorization_RequestDenied' } } }
  graph.batchFaults.set(ids[0] ?? '', [declined, declined])
  t.match(await round({ sweep: true }), { unwatched: 1 }, 'and it counts as not watched')
  graph.batchFaults.clear()
  await round({ sweep: true })
  t.equal((await rows()).length, 30)
})

t.test('the breaker counts a round, not its halves', async (t) => {
  const world = await startWorld(t, { maxAccounts: 5 })
  const { round, rows, tenant } = world
  const ids = await disabledMany(world, 0, 40)
  await round({ sweep: true })
  for (const id of ids.slice(0, 5)) {
    tenant.disable(id)
  }
  tenant.lagDelta()
  for (const id of ids.slice(5, 10)) {
    tenant.disable(id)
  }
  t.match(await round({ sweep: true }), { breaker: { kind: 'sweep', found: 5 } })
  t.equal((await rows()).length, 35)
})

t.test('a second look at who is deleted does not wait for a delta query that fails', async (t) => {
  const { user, round, rows, tenant, graph } = await startWorld(t)
  const gone = await user()
  await user()
  await round({ sweep: true })
  tenant.lagDelta()
  tenant.remove(gone)
  await round({ sweep: true })
  t.equal((await rows()).length, 2, 'one look is not enough')
  graph.onRequest = async ({ path }) => {
    graph.behaviour = path.includes('/users/delta') ? 'unavailable' : 'up'
  }
  t.match(await round(), { deltaFailure: { code: String } })
  t.equal((await rows()).length, 1)
})

t.test('those count as watched who are in the cache now, not at the last sweep', async (t) => {
  const { user, round, rows, tenant } = await startWorld(t)
  await round()
  const ids: string[] = []
  for (let i = 0; i < 30; i += 1) {
    ids.push(await user())
  }
  ids.slice(0, 15).forEach(tenant.disable)
  t.match(await round(), { watched: 0, breaker: undefined })
  t.equal((await rows()).length, 15, 'half of them are not too many, though no sweep has seen one')

  const more = await Promise.all(Array.from({ length: 15 }, () => user()))
  await round({ sweep: true })
  for (const id of more) {
    tenant.disable(id)
  }
  t.match(await round(), { watched: 30, breaker: undefined })
  const left = ids.slice(15)
  left.slice(0, 10).forEach(tenant.disable)
  t.match(
    await round(),
    { watched: 30, breaker: { kind: 'delta', found: 10, watched: 15 } },
    'many of few that are left'
  )
})

t.test('whom the first half of a round has purged still counts as watched in its second half', async (t) => {
  const world = await startWorld(t)
  const { round, rows, tenant } = world
  const ids = await disabledMany(world, 0, 30)
  await round({ sweep: true })
  ids.slice(0, 9).forEach(tenant.disable)
  tenant.lagDelta()
  ids.slice(9, 15).forEach(tenant.disable)
  t.match(await round({ sweep: true }), { breaker: undefined })
  t.equal((await rows()).length, 15, '15 of 30 are half of them')
})

t.test('a sweep that was interrupted goes on at the next instance at once', async (t) => {
  const { user, round, rows, tenant, service, config, graph } = await startWorld(t)
  const gone = await user()
  await user()
  await round()
  tenant.lagDelta()
  tenant.disable(gone)
  const stopping = new AbortController()
  graph.onRequest = async ({ path }) => {
    if (path.includes('$batch')) {
      stopping.abort()
    }
  }
  await service.database.query('update msal_logout.directories set due_at = now(), sweep_due_at = now()')
  await Promise.all(await service.watchers.tick(stopping.signal))
  t.equal((await rows()).length, 2)
  graph.onRequest = async () => {}
  await service.database.query('update msal_logout.directories set held_until = null')
  const other = await build(t, { database: service.database, policy: { directory: config } })
  await Promise.all(await other.watchers.tick(never))
  t.equal((await rows()).length, 1, 'it does not wait for the next delta query')
})

t.test('an instance that was frozen in the middle of a round acts no more, and opens no breaker', async (t) => {
  let at = Date.now()
  const world = await startWorld(t, { maxAccounts: 3 }, { now: () => at })
  const { round, rows, tenant, service, config, graph, tenantId } = world
  const ids = await disabledMany(world, 0, 8)
  for (const found of [2, 4]) {
    ids.splice(0, found).forEach(tenant.disable)
    const before = await rows()
    const other = await build(t, { database: service.database, policy: { directory: config } })
    graph.onRequest = async ({ path }) => {
      if (path.includes('delta')) {
        graph.onRequest = async () => {}
        await service.database.query('update msal_logout.directories set held_until = now()')
        await other.directoryStore.claim([tenantId], randomUUID(), 30)
        at += 60_000
      }
    }
    const state = await round()
    t.same(await rows(), before)
    t.match(state, { breaker: undefined, deltaFailure: undefined }, 'what it saw is nobody’s word')
    await service.database.query('update msal_logout.directories set held_until = now()')
    at += 10_000
    t.match(await round(), found === 2 ? { breaker: undefined } : { breaker: { found: 4 } })
    t.equal((await rows()).length, before.length - (found === 2 ? 2 : 0))
  }
})

t.test('a person whom no directory that answers knows may be in one that does not', async (t) => {
  const first = await startDirectory(t)
  const other = '99999999-9999-4999-8999-999999999999'
  const second = await startDirectory(t, {}, { tenantId: other, graph: first.graph })
  const tenants = [...first.config.tenants, ...second.config.tenants]
  const service = await build(t, { policy: { directory: { ...first.config, tenants } } })
  const ada = first.tenant.add(undefined, { mail: 'ada@contoso.example' })
  const ben = second.tenant.add(undefined, { mail: 'ben@fabrikam.example' })
  const find = (name: string) => service.operate('GET', `/admin/accounts?user=${encodeURIComponent(name)}`)
  t.match((await find('ben@fabrikam.example')).json(), { objects: [{ tenantId: other, objectId: ben.id }] })
  t.match((await find('nobody@contoso.example')).json(), { objects: [], hasDirectory: true })
  second.tenant.registrations.clear()
  first.graph.forgetTokens()
  t.match((await find('ada@contoso.example')).json(), { objects: [{ tenantId: first.tenantId, objectId: ada.id }] })
  t.match((await find('ben@fabrikam.example')).json(), { status: 503, code: 'directory_unavailable' })
  first.graph.losesFilters = true
  t.match((await find('nobody@contoso.example')).json(), { status: 503 }, 'who is shown was not asked for')
})

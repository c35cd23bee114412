// What a watcher of a directory promises, against a Graph that behaves as the real one is known to. The traps: traps.test.ts.
import { randomUUID } from 'node:crypto'
import t from 'tap'
import { UnavailableError } from '../../src/errors.ts'
import { disabledMany, never, startWorld, stateOf, type World } from '../fixtures/directory-world.ts'
import { nowSeconds } from '../fixtures/orders.ts'
import { build, type Service } from '../fixtures/service.ts'

t.test(
  'the first round takes its place in what changes, then looks at every account in the cache, and at no other',
  async (t) => {
    const { user, round, graph, tenant, service, tenantId, signIn } = await startWorld(t)
    const ids = [await user(), await user({}, 'client-a', 'client-b')]
    tenant.add() // in the directory, and in no cache
    await user({ oid: null, tid: null })
    await signIn(randomUUID(), { homeAccountId: 'bare', subject: 'bare', oid: null, tid: null })
    await signIn(randomUUID(), { homeAccountId: `${randomUUID()}.${randomUUID()}`, oid: null, tid: null })
    await signIn('not-a-guid', { oid: 'not-a-guid' })
    graph.calls.length = 0
    const state = await round()
    const paths = graph.calls.filter(({ path }) => path.startsWith('/v1.0')).map(({ path }) => path.split('?')[0])
    t.same(paths, ['/v1.0/users/delta', '/v1.0/$batch'], 'in this order')
    t.match(state, { watched: 3, unwatched: 3, deltaFailure: undefined, sweepFailure: undefined })
    t.type(state.deltaLink, 'string')
    t.ok(state.goodAt)
    const batch = graph.calls.flatMap((call) => call.batch)
    t.ok(ids.every((id) => batch.some((url) => url.includes(id))))
    t.equal(batch.length, 3)
    t.same(await service.directoryStore.countFindings(tenantId), {})
  }
)

for (const [event, act, expected] of [
  [
    'disabled',
    (world: World, id: string) => world.tenant.disable(id),
    /^disabled in Entra ID: accountEnabled is false; seen 20/
  ],
  [
    'softly deleted',
    (world: World, id: string) => world.tenant.remove(id),
    /^deleted in Entra ID: removed from the directory \(changed\)/
  ],
  [
    'deleted for good',
    (world: World, id: string) => world.tenant.remove(id, 'deleted'),
    /^deleted in Entra ID: removed .*\(deleted\)/
  ],
  [
    'revoked',
    (world: World, id: string) => world.tenant.revoke(id),
    /^sessions revoked in Entra ID: signInSessionsValidFromDateTime is 20/
  ]
] as const) {
  t.test(`a user who was ${event} is gone from every app, nobody else is, and the record says why, once`, async (t) => {
    const world = await startWorld(t)
    const { user, round, rows, records, tenantId } = world
    const gone = await user({}, 'client-a', 'client-b')
    await user({ kind: 'obo', partitionKey: 'obo', homeAccountId: `${gone}.${tenantId}`, oid: gone })
    const other = await user()
    await round()
    act(world, gone)
    await round()
    t.same(await rows(), [`client-a/${other}.${tenantId}`])
    const [record, ...more] = await records()
    t.same(more, [])
    t.match(record, {
      source: 'directory',
      home_account_id: `${gone}.${tenantId}`,
      reason: expected,
      accounts: '1',
      sessions: '3',
      rows: '3'
    })
    await round({ sweep: true })
    await round({ sweep: true })
    t.equal((await records()).length, 1, 'nothing twice')
  })
}

t.test('a revocation ends what was issued up to its second, and no later login, in every app', async (t) => {
  const { signIn, round, rows, tenant, tenantId, records } = await startWorld(t)
  const at = nowSeconds() - 100
  const { id } = tenant.add()
  const home = `${id}.${tenantId}`
  await signIn(id, { clientId: 'before', issuedAt: at - 50 })
  await signIn(id, { clientId: 'both', issuedAt: at - 50 })
  await signIn(id, { clientId: 'both', issuedAt: at + 50 })
  await signIn(id, { clientId: 'same-second', issuedAt: at + 1 })
  await signIn(id, { clientId: 'after', issuedAt: at + 2 })
  await round()
  tenant.revoke(id, new Date(at * 1_000 + 1))
  await round()
  t.same(await rows(), [`after/${home}`, `both/${home}`])
  t.match(await records(), [{ sessions: '3', rows: '2' }])
  await round({ sweep: true })
  t.same(await rows(), [`after/${home}`, `both/${home}`], 'and the sweep sees it alike')
  t.equal((await records()).length, 1)
  t.equal(await signIn(id, { clientId: 'again', issuedAt: at }), false, 'a login under way is not let in')
  t.equal(await signIn(id, { clientId: 'again', issuedAt: at + 60 }), true)
})

t.test('a guest is found by the object of the ID token, with the whole account', async (t) => {
  const { tenant, tenantId, signIn, round, rows, records } = await startWorld(t)
  const guest = tenant.add().id
  const member = tenant.add().id
  const home = `${randomUUID()}.${randomUUID()}`
  await signIn(guest, { homeAccountId: home, clientId: 'client-a' })
  await signIn(member)
  await round()
  tenant.disable(guest)
  await round()
  t.same(await rows(), [`client-a/${member}.${tenantId}`])
  t.match(await records(), [{ object_id: guest, home_account_id: null }])

  const other = tenant.add().id
  await signIn(other, { homeAccountId: home, clientId: 'client-b' })
  tenant.remove(other)
  await round({ sweep: true })
  t.same(await rows(), [`client-a/${member}.${tenantId}`], 'also by the sweep alone, and by its second look')
})

t.test('one look is not enough for a deletion: a user may not be everywhere yet', async (t) => {
  const { user, round, rows, tenant, service, tenantId } = await startWorld(t)
  const id = await user()
  const found = tenant.users.get(id)
  tenant.users.delete(id) // no replica has the user yet
  await round()
  t.same(await service.directoryStore.countFindings(tenantId), { doubted: 1 })
  t.equal((await rows()).length, 1)
  tenant.users.set(id, found ?? { id })
  await round()
  t.equal((await rows()).length, 1)
  t.same(await service.directoryStore.countFindings(tenantId), {})
})

t.test('a user who is enabled again signs in, and an old word of the directory does not end that', async (t) => {
  let at = Date.now()
  const { user, signIn, round, rows, tenant, records } = await startWorld(t, {}, { now: () => at })
  const id = await user({ issuedAt: nowSeconds() - 100 })
  await round()
  tenant.disable(id)
  await round()
  const before = { ...(tenant.users.get(id) ?? { id }) }
  t.same(await rows(), [])
  tenant.enable(id)
  await round()
  t.equal(await signIn(id, { issuedAt: nowSeconds() + 2 }), true)
  tenant.replay(before)
  await round()
  await round()
  await round({ sweep: true })
  t.equal((await rows()).length, 1)
  t.equal((await records()).length, 1)

  at += 10_000
  tenant.disable(id)
  await round()
  t.same(await rows(), [], 'and a new word does')
  t.equal((await records()).length, 2)
})

t.test('the breaker holds a mass change, in any half of a round, until an operator releases it', async (t) => {
  for (const [name, changes, count, of] of [
    ['by the share', { maxPercent: 50 }, 10, 12],
    ['by the number', { maxAccounts: 2 }, 3, 5]
  ] as const) {
    const world = await startWorld(t, changes)
    const { round, rows, service, tenantId, records, tenant } = world
    const ids = await disabledMany(world, count, of)
    const held = await round()
    t.match(held.breaker, { kind: 'delta', found: count, watched: of }, name)
    t.equal((await rows()).length, of, 'nothing is done')
    const still = await round({ sweep: true })
    t.same(still.breaker?.openedAt, held.breaker?.openedAt)
    t.equal((await rows()).length, of)
    t.same(await service.directoryStore.countFindings(tenantId), { held: count })
    t.match(still, { deltaFailure: undefined, sweepFailure: undefined }, 'the rounds are good')

    tenant.revoke(ids.at(-1) ?? '')
    await round()
    t.equal((await rows()).length, of - 1, 'what is not held goes on')

    t.equal(await service.directoryStore.decide(tenantId, 'released', 'somebody'), count)
    tenant.enable(ids[0] ?? '')
    const after = await round()
    t.equal(after.breaker, undefined)
    t.equal((await rows()).length, of - count, 'who is enabled by now stays')
    t.equal((await records()).length, count)
    t.equal(await service.directoryStore.decide(tenantId, 'released', 'somebody'), undefined, 'none is open')
    await round({ sweep: true })
    t.equal((await records()).length, count)
  }
})

t.test('the link goes on only when what it showed is committed', async (t) => {
  let isOut = false
  let commit: Service['stores']['slow']['commitOrders'] | undefined
  const { user, round, rows, tenant, service, records } = await startWorld(
    t,
    {},
    {
      commit: async (orders, options) => {
        if (isOut || commit === undefined) {
          throw new UnavailableError('ERR_DATABASE_UNAVAILABLE')
        }
        return commit(orders, options)
      }
    }
  )
  commit = service.stores.slow.commitOrders
  const id = await user()
  const before = await round()
  tenant.disable(id)
  isOut = true
  const during = await round()
  t.equal(during.deltaLink, before.deltaLink)
  t.match(during.deltaFailure, { code: 'ERR_DIRECTORY_UNCOMMITTED', count: 1 })
  t.equal((await service.spool.status()).verified, 1, 'it is deferred, too')
  isOut = false
  const after = await round()
  t.not(after.deltaLink, before.deltaLink)
  t.same(await rows(), [])
  service.retry()
  await service.spool.status()
  t.equal((await records()).length, 1)
})

t.test('one instance watches at a time, and another takes over where it was', async (t) => {
  const { user, rows, tenant, service, graph, config, tenantId } = await startWorld(t)
  const id = await user()
  const other = await build(t, { policy: { directory: config }, database: service.database })
  await Promise.all([...(await service.watchers.tick(never)), ...(await other.watchers.tick(never))])
  t.equal(graph.count('latest'), 1, 'one of them')
  const { deltaLink } = await stateOf(service, tenantId)
  tenant.disable(id)
  await service.database.query('update msal_logout.directories set due_at = now()')
  graph.calls.length = 0
  await Promise.all(await other.watchers.tick(never))
  t.equal(graph.calls.length, 0, 'the first one has the lease')
  await service.database.query(`update msal_logout.directories set held_until = now() - interval '1 second'`)
  await Promise.all(await other.watchers.tick(never))
  t.ok(graph.calls.some(({ path }) => path.includes(decodeURIComponent(new URL(deltaLink ?? '').search))))
  t.same(await rows(), [])
})

t.test('from an e-mail address to the account, by the directory', async (t) => {
  const { user, tenant, tenantId, service, graph } = await startWorld(t)
  const id = await user()
  Object.assign(tenant.users.get(id) ?? {}, { userPrincipalName: 'ada@contoso.example' })
  const find = async (name: string) => service.operate('GET', `/admin/accounts?user=${encodeURIComponent(name)}`)
  t.same((await find('ada@contoso.example')).json(), {
    accounts: [{ homeAccountId: `${id}.${tenantId}`, accountIssuer: null }],
    objects: [{ tenantId, objectId: id }],
    hasDirectory: true,
    clicks: []
  })
  t.match((await find('nobody@contoso.example')).json(), {
    accounts: [],
    hasDirectory: true,
    clicks: [{ issuer: 'main' }]
  })
  graph.forgetTokens()
  tenant.registrations.clear()
  const denied = await find('ada@contoso.example')
  t.equal(denied.statusCode, 503)
  t.match(denied.json(), { code: 'directory_unavailable', detail: /ERR_DIRECTORY_/ })
})

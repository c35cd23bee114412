// How operators see the directories that are watched, and decide about what is held.
import t from 'tap'
import { disabledMany, never, startWorld } from '../fixtures/directory-world.ts'
import type { Service } from '../fixtures/service.ts'

interface View {
  readonly held: readonly { readonly objectId: string }[]
}

async function listOf(service: Service): Promise<View[]> {
  return ((await service.operate('GET', '/admin/directories')).json() as { directories: View[] }).directories
}

t.test('/admin/directories shows how far each is, what its last rounds did, and why it fails', async (t) => {
  const { user, round, tenant, tenantId, service, graph } = await startWorld(t)
  const gone = await user()
  await user()
  const view = () => listOf(service)
  t.match(await view(), [{ issuer: 'main', tenantId, goodAt: null, breaker: null, heldCount: 0, rounds: [] }])
  await round()
  tenant.disable(gone)
  await round()
  const [directory, ...more] = await view()
  t.same(more, [])
  t.match(directory, {
    goodAt: /^20/,
    deltaAt: /^20/,
    sweptAt: /^20/,
    hasDelta: true,
    watched: 2,
    unwatched: 0,
    deltaFailure: null,
    sweepFailure: null,
    rounds: [{ kind: 'delta', looked: 1, done: { disabled: 1 }, held: 0, failure: null }]
  })
  t.notMatch(JSON.stringify(directory), /deltatoken|deltaLink/i, 'a link is nobody’s business')

  await graph.close()
  await round()
  t.match(await view(), [{ deltaFailure: { code: 'ERR_DIRECTORY_UNREACHABLE', count: 1 } }])
})

t.test('what the breaker holds is shown, and an operator has it done or dropped', async (t) => {
  for (const decision of ['release', 'drop'] as const) {
    const world = await startWorld(t, { maxAccounts: 2 })
    const { round, rows, tenantId, service } = world
    const decide = () => service.operate('POST', `/admin/directories/${tenantId}/${decision}`)
    const metric = async (name: string) =>
      (await service.admin.inject('/metrics')).body.match(new RegExp(`^msal_logout_${name}\\{.*\\} (.*)$`, 'm'))?.[1]
    t.match((await decide()).json(), { status: 409, code: 'breaker_closed' })
    const ids = await disabledMany(world, 3, 5)
    await round()
    await service.watchers.tick(never)
    const [held] = await listOf(service)
    t.match(held, { breaker: { found: 3, watched: 5 }, heldCount: 3 })
    t.same(held?.held.map(({ objectId }) => objectId).sort(), ids.slice(0, 3).sort())
    t.match(held?.held, [{ event: 'disabled', detail: /accountEnabled/ }])
    t.equal(await metric('directory_breaker_open'), '1')
    t.equal(await metric('directory_watched'), '5')

    const answer = await decide()
    t.equal(answer.statusCode, 200)
    t.same(answer.json(), { accounts: 3 })
    await round()
    t.equal((await rows()).length, decision === 'release' ? 2 : 5)
    await round({ sweep: true })
    await service.watchers.tick(never)
    t.equal((await rows()).length, decision === 'release' ? 2 : 5)
    t.equal(await metric('directory_breaker_open'), '0')
    t.match(await service.database.query('select decision from msal_logout.directories'), [
      { decision: { decision: decision === 'release' ? 'released' : 'dropped', actor: 'admin-token', accounts: 3 } }
    ])
  }
})

t.test('a dry run shows whom it would be, and nobody decides', async (t) => {
  const world = await startWorld(t, { dryRun: true })
  const { round, rows, tenantId, service } = world
  await disabledMany(world, 2, 3)
  await round()
  t.match(await listOf(service), [{ dryRun: true, heldCount: 2 }])
  t.equal((await rows()).length, 3)
  t.equal((await service.operate('POST', `/admin/directories/${tenantId}/release`)).statusCode, 409)
})

t.test('a tenant that is not watched is not found, and only operators decide', async (t) => {
  const { service, tenantId } = await startWorld(t)
  t.match((await service.operate('POST', '/admin/directories/other/drop')).json(), { status: 404 })
  const unknown = await service.admin.inject({ method: 'POST', url: `/admin/directories/${tenantId}/drop` })
  t.equal(unknown.statusCode, 401)
})

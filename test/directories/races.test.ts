// Logins that are under way while a round ends what was issued before. DIRECTORY_RACES says how many rounds are raced.
import { randomUUID } from 'node:crypto'
import { setTimeout as delay } from 'node:timers/promises'
import t, { type Test } from 'tap'
import type { DirectoryState } from '../../src/directory-store.ts'
import { freePort } from '../../src/embedded-postgres.ts'
import type { CommitOrders } from '../../src/sign-out.ts'
import { createStore } from '../../src/store.ts'
import { startWorld, stateOf } from '../fixtures/directory-world.ts'
import { nowSeconds } from '../fixtures/orders.ts'
import { until } from '../fixtures/until.ts'

const rounds = Number(process.env.DIRECTORY_RACES ?? 100)
const usersPerRound = 12
const timeout = 600_000

/**
 * Races rounds with logins: of users whom a round knows from another app, and of users who are not in the cache yet.
 *
 * @param forgets whether what was ended is forgotten at once, as by a watcher that only deletes what it finds
 */
async function race(t: Test, count: number, { forgets }: { forgets: boolean }) {
  const commit: CommitOrders = async (orders, options) => {
    const results = await createStore({ pool: service.database.pool }).commitOrders(orders, options)
    for (const { selector } of orders) {
      const key =
        selector.kind === 'account'
          ? `account=${selector.homeAccountId}`
          : selector.kind === 'object'
            ? `object=${selector.tenantId}/${selector.objectId}`
            : ''
      // One lock at a time: a login holds several.
      await service.database.query(
        `update msal_logout.tombstones set revoke_before = 0 where issuer = '' and key = $1`,
        [key]
      )
    }
    return results
  }
  const world = await startWorld(t, { maxPercent: 100 }, forgets ? { commit } : {})
  const { service, tenant, tenantId, signIn, round } = world
  await round()

  /** On a busy machine a round may be put off: a sign-out misses its time, a statement its limit. Then another one is made. */
  async function settledRound(): Promise<void> {
    await until(
      'a whole round counts',
      async () => {
        const before = await stateOf(service, tenantId)
        const after = await round({ sweep: true })
        return isSettled(before, after, true)
      },
      { withinMs: 120_000, everyMs: 200 }
    )
  }

  const figures = { raced: 0, refused: 0, ended: 0, survived: 0, later: 0, laterLost: 0, putOff: 0 }
  let roundMs = 50
  for (let i = 0; i < count; i += 1) {
    const issuedAt = nowSeconds() - 5
    const people = await Promise.all(
      Array.from({ length: usersPerRound }, async (_, n) => {
        const { id } = tenant.add()
        const isKnown = n % 2 === 0
        if (isKnown) {
          await signIn(id, { clientId: 'client-b', issuedAt })
        }
        return {
          id,
          isKnown,
          isLater: n % 6 === 5,
          act: (['disable', 'revoke', 'remove'] as const)[n % 3] ?? 'disable'
        }
      })
    )
    await settledRound()
    for (const { id, act, isLater } of people) {
      tenant[isLater ? 'revoke' : act](id)
    }
    const begun = performance.now()
    const sweeps = i % 3 === 0
    const before = await stateOf(service, tenantId)
    const [after, accepted] = await Promise.all([
      round({ sweep: sweeps }).then((state) => {
        roundMs = performance.now() - begun
        return state
      }),
      Promise.all(
        people.map(async ({ id, isLater }) => {
          await delay(Math.random() * roundMs * 1.2)
          return signIn(id, { clientId: 'client-a', issuedAt: isLater ? issuedAt + 65 : issuedAt })
        })
      )
    ])
    if (!isSettled(before, after, sweeps)) {
      figures.putOff += 1
      await settledRound()
    }
    const left = new Set(await world.rows())
    for (const [n, { id, isLater }] of people.entries()) {
      const isThere = left.has(`client-a/${id}.${tenantId}`)
      if (isLater) {
        figures.later += 1
        figures.laterLost += isThere ? 0 : 1
        continue
      }
      figures.raced += 1
      figures.refused += accepted[n] ? 0 : 1
      figures.ended += accepted[n] && !isThere ? 1 : 0
      figures.survived += isThere || left.has(`client-b/${id}.${tenantId}`) ? 1 : 0
    }
    await service.database.query('delete from msal_logout.sessions')
    await service.database.query('delete from msal_logout.token_cache')
  }
  t.comment(JSON.stringify(figures))
  const twice = await service.database.query(
    'select home_account_id from msal_logout.records group by home_account_id having count(*) > 2'
  )
  return { ...figures, twice: twice.length }
}

/** Whether a round was made and counts: what fails in the database is not even written down. */
function isSettled(before: DirectoryState, after: DirectoryState, sweeps: boolean): boolean {
  return (
    Number(after.deltaAt) > Number(before.deltaAt) &&
    (!sweeps || Number(after.sweptAt) > Number(before.sweptAt)) &&
    after.deltaFailure === undefined &&
    after.sweepFailure === undefined
  )
}

t.test(
  'a login under way never survives a round that ends what was issued before; a later one does',
  { timeout },
  async (t) => {
    const { survived, refused, ended, later, laterLost, twice } = await race(t, rounds, { forgets: false })
    t.equal(survived, 0)
    t.ok(refused > 0 && ended > 0, 'logins came before and after')
    t.ok(later > 0)
    t.equal(laterLost, 0)
    t.equal(twice, 0)
  }
)

t.test('the control: without a memory of what was ended, logins survive', { timeout }, async (t) => {
  const { survived } = await race(t, Math.min(rounds, 20), { forgets: true })
  t.ok(survived > 0, 'so the check can fail')
})

t.test('a change that is notified is done within seconds, where rounds are far apart', async (t) => {
  const port = await freePort()
  const notificationUrl = `http://127.0.0.1:${port}/directory-notifications/main`
  const world = await startWorld(t, { notificationUrl, pollSeconds: 600 }, { directories: { tickMs: 20 } })
  const { user, rows, tenant, tenantId, graph, service } = world
  await service.app.listen({ port, host: '127.0.0.1' })
  const id = await user()
  t.teardown(service.watchers.start().stop)
  await until('the directory knows where to notify', () => tenant.subscriptions.size === 1)
  tenant.disable(id)
  await until('the user is gone', async () => {
    await graph.notify(tenantId, id)
    return (await rows()).length === 0
  })
  t.equal((await graph.notify(tenantId, randomUUID()))[0], 202)
})

// Locks on whole tables: what an app's role can take, and what the owner of the schema takes for his own work on it.
import t, { type Test } from 'tap'
import { noteTries } from '../fixtures/attacks.ts'
import { connectAs, createDatabase, createRole } from '../fixtures/database.ts'
import { clientId } from '../fixtures/identity-provider.ts'
import { type BrokenPart, startSiege } from '../fixtures/siege.ts'

const timeout = 300_000
const tables = [
  'token_cache',
  'sessions',
  'tombstones',
  'records',
  'revoked_sessions',
  'apps',
  'seen_orders',
  'issuer_groups'
]
const denied = { code: '42501' }

t.test("an app's role locks no table, and the cursors that it leaves open hold nobody up", { timeout }, async (t) => {
  const database = await createDatabase(t, { own: true })
  const siege = await startSiege(t, { database })
  const role = await createRole(database, 'app')
  await siege.database.query('select msal_logout.register_app($1, $2)', [clientId, role])
  const people = await siege.prepare(200)
  const app = await connectAs(t, siege.database, role)
  const modes = ['access share', 'row exclusive', 'share', 'exclusive', 'access exclusive']
  for (const table of tables) {
    for (const mode of modes) {
      await t.rejects(app.query(`begin; lock table msal_logout.${table} in ${mode} mode`), denied, `${table}, ${mode}`)
      await app.query('rollback')
    }
  }
  const held = await connectAs(t, siege.database, role)
  await held.query(`declare kept cursor with hold for select * from msal_logout.ended_since('${clientId}', 0)`)
  await app.query('begin')
  for (const [i, { sid }] of people.slice(0, 50).entries()) {
    await app.query(`declare c${i} scroll cursor for select * from msal_logout.load('${clientId}', '${sid}.t')`)
    await app.query(`fetch 1 from c${i}`)
  }
  const verdict = await siege.judge(await siege.signOut(people, 10))
  t.comment(verdict.summary)
  t.match(verdict, { late: 0, lost: 0, undone: 0, heldUp: false })
  noteTries('the role of an app locks whole tables', tables.length * modes.length)
  noteTries('an app leaves cursors open on rows of its users', 51, verdict.count)
})

/** While a table is locked as an index build or VACUUM FULL locks it. */
async function besiege(t: Test, lock: string, broken?: readonly BrokenPart[]) {
  const siege = await startSiege(t, { ...(broken && { broken }) })
  const people = await siege.prepare(120)
  const owner = await connectAs(t, siege.database)
  await owner.query(`begin; ${lock}`)
  const answers = await siege.signOut(people, 20)
  const deferred = answers.filter(({ isDeferred }) => isDeferred).length // a look at the tables would wait, too
  const ready = await siege.server.fetch(`${siege.server.adminUrl}/readyz`)
  const why = await ready.text()
  await owner.query('rollback')
  const after = await siege.judge(answers, { withinMs: 90_000 })
  t.comment(`${lock}: ${deferred} deferred; ${ready.status} ${why}; then ${after.summary}`)
  return { siege, deferred, after, ready, why }
}

// As VACUUM FULL takes it, and CREATE INDEX.
for (const lock of [
  'lock table msal_logout.token_cache in access exclusive mode',
  'create index on msal_logout.sessions (created_at)'
]) {
  t.test(`the owner's ${lock}: sign-outs are deferred, and done when it is over`, { timeout }, async (t) => {
    const { siege, deferred, after, ready, why } = await besiege(t, lock)
    t.equal(deferred, after.count, 'all of them are')
    t.equal(ready.status, 503, 'and readiness says why')
    t.match(JSON.parse(why), { reason: 'ERR_DATABASE_LOCKED' })
    t.match(after, { late: 0, lost: 0, undone: 0 })
    t.equal((await siege.server.fetch(`${siege.server.adminUrl}/readyz`)).status, 200)
    noteTries('the owner of the schema locks whole tables, as VACUUM FULL and CREATE INDEX do', 1, after.count)
  })
}

t.test('VACUUM FULL and CREATE INDEX again and again cost no sign-out', { timeout }, async (t) => {
  const siege = await startSiege(t)
  const people = await siege.prepare(200)
  const owner = await connectAs(t, siege.database)
  let isOver = false
  let rounds = 0
  const work = (async () => {
    while (!isOver) {
      for (const table of tables) {
        await owner.query(`vacuum full msal_logout.${table}`)
      }
      await owner.query('create index of_the_owner on msal_logout.sessions (created_at)')
      await owner.query('drop index msal_logout.of_the_owner')
      rounds += 1
    }
  })()
  const answers = await siege.signOut(people, 10)
  isOver = true
  await work
  const verdict = await siege.judge(answers, { withinMs: 60_000 })
  t.comment(`${rounds} rounds; ${verdict.summary}`)
  t.match(verdict, { late: 0, lost: 0, undone: 0 })
  noteTries('the owner of the schema runs VACUUM FULL and CREATE INDEX', rounds * (tables.length + 1), verdict.count)
})

t.test('the control: if nothing were deferred, sign-outs would be lost', { timeout }, async (t) => {
  const { after } = await besiege(t, 'lock table msal_logout.sessions in access exclusive mode', [
    {
      file: 'src/receive.js',
      line: `return isWelcome && (await spool.defer(deferred, withinMs, sender)) ? 'deferred' : 'lost'`,
      broken: `return 'lost'`
    }
  ])
  t.ok(after.lost > 0, 'the harness sees it')
})

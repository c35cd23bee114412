// An app that leaves a transaction open, on rows of a few of its users.
import pg from 'pg'
import t, { type Test } from 'tap'
import { noteTries } from '../fixtures/attacks.ts'
import { connectAs, createDatabase, createRole } from '../fixtures/database.ts'
import { storeHeavy, untilGone } from '../fixtures/heavy-account.ts'
import { clientId } from '../fixtures/identity-provider.ts'
import { type BrokenPart, type Person, type Siege, startSiege, storeSessions } from '../fixtures/siege.ts'
import { until } from '../fixtures/until.ts'

const timeout = 300_000
const held = 20
const manyHeld = 120
const heavySessions = 250_000

/** A transaction of the app, in which these people sign in once more; as this role, or as one without a limit. */
async function hold(
  t: Test,
  { database, provider }: Siege,
  people: readonly Person[],
  role?: string
): Promise<pg.Client> {
  const client = await connectAs(t, database, role)
  await client.query('begin')
  for (const { sid } of people) {
    await client.query(
      `select msal_logout.login($1, $2, $2, $3, $4, $4, extract(epoch from now())::bigint, '{}', 'json', '1 hour')`,
      [clientId, `${sid}.t`, provider.issuer, sid]
    )
  }
  return client
}

/** All sign out, those whose rows are held among the others; judged while the transaction is open. */
async function besiege(t: Test, broken?: readonly BrokenPart[]) {
  const siege = await startSiege(t, { ...(broken && { broken }) })
  const people = await siege.prepare(300 + held)
  const victims = people.slice(0, held)
  const client = await hold(t, siege, victims)
  const others = people.slice(held)
  const mixed = others.slice(0, 60).flatMap((person, i) => [person, ...victims.slice(i, i + 1)])
  const answers = [...(await siege.signOut(mixed, 0)), ...(await siege.signOut(others.slice(60), 20))]
  const isVictim = new Set(victims.map(({ sid }) => sid))
  const verdict = await siege.judge(answers.filter(({ sid }) => !isVictim.has(sid)))
  t.comment(verdict.summary)
  return { siege, client, verdict, heldAnswers: answers.filter(({ sid }) => isVictim.has(sid)) }
}

t.test('an open transaction holds up the sign-outs of its own users alone', { timeout }, async (t) => {
  const { siege, client, verdict, heldAnswers } = await besiege(t)
  t.match(verdict, { late: 0, lost: 0, undone: 0 })
  const before = await siege.judge(heldAnswers, { withinMs: 0 })
  t.match(before, { late: 0, lost: 0 })
  t.ok(before.undone > 0, 'they are held')
  await client.query('rollback')
  const after = await siege.judge(heldAnswers, { withinMs: 60_000 })
  t.comment(after.summary)
  t.match(after, { undone: 0 })
  noteTries('an app leaves a transaction open on rows of its users', held, verdict.count)
})

/** While an app holds what many sign-outs are about, a heavy account is signed out. */
async function besiegeHeavy(t: Test, broken?: readonly BrokenPart[]) {
  const siege = await startSiege(t, { ...(broken && { broken }) })
  const people = await siege.prepare(manyHeld)
  const client = await hold(t, siege, people)
  await storeHeavy(siege, 'heavy.', heavySessions)
  const held = await siege.signOut(people, 10)
  await until('what is held has gone alone', async () => (await waitingForLocks(siege)) > 0)
  const heavy = { sid: 'heavy', token: await siege.provider.logoutToken({ sid: 'heavy.1' }) }
  const answers = await siege.signOut([heavy], 0)
  const hasBegun = await until(
    'a step of it is done',
    async () => (await siege.database.query(`select from msal_logout.records where sid = 'heavy.1'`)).length === 1,
    { withinMs: 40_000 }
  ).then(
    () => true,
    () => false
  )
  const whileHeld = await siege.judge(held, { withinMs: 0 })
  t.equal(whileHeld.undone, manyHeld, 'they are still held')
  t.match(whileHeld, { late: 0, lost: 0 })
  return { siege, client, held, answers, hasBegun }
}

async function waitingForLocks({ database }: Siege): Promise<number> {
  const rows = await database.query(
    `select from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'`
  )
  return rows.length
}

t.test('many sign-outs that are held keep no heavy account waiting', { timeout }, async (t) => {
  const { siege, client, held, answers, hasBegun } = await besiegeHeavy(t)
  t.ok(hasBegun)
  await untilGone(siege, ['heavy.'])
  t.match(await siege.judge(held, { withinMs: 0 }), { undone: manyHeld }, 'they are still held')
  t.match(answers, [{ status: 503, isDeferred: true }])
  await client.query('rollback')
  const after = await siege.judge(held, { withinMs: 120_000 })
  t.comment(after.summary)
  t.match(after, { undone: 0 })
  noteTries('an app holds many accounts while a heavy one is signed out', manyHeld)
})

t.test('the control: in one lane with what is held, a heavy account waits for it', { timeout }, async (t) => {
  const { client, hasBegun } = await besiegeHeavy(t, [
    { file: 'src/spool-retry.js', line: `isOfLock(error) ? 'held' : 'large'`, broken: `'large'` },
    {
      file: 'src/spool-retry.js',
      line: 'return Math.min(backOffOf(file), maxLockWaitMs)',
      broken: 'return maxLockWaitMs'
    }
  ])
  t.notOk(hasBegun, 'the harness sees it')
  await client.query('rollback')
})

/** All sign out while a transaction is open in which a robot of the same app signs in: the login is one too many for its row, and ends another. */
async function besiegeBesideSurplus(t: Test, broken?: readonly BrokenPart[]) {
  const siege = await startSiege(t, { ...(broken && { broken }) })
  const robot = { sid: 'robot', token: '' }
  await storeSessions(siege.database, siege.provider.issuer, [robot.sid])
  await siege.database.query(
    `insert into msal_logout.sessions (issuer, session_key, client_id, partition_key, sid, subject, account_issuer, home_account_id, issued_at, expires_at)
    select s.issuer, s.session_key || n, s.client_id, s.partition_key, s.sid || n, s.subject, s.account_issuer, s.home_account_id, 1, s.expires_at
    from msal_logout.sessions s, generate_series(1, 1000) n where s.sid = $1`,
    [robot.sid]
  )
  const people = await siege.prepare(300)
  const client = await hold(t, siege, [robot])
  const verdict = await siege.judge(await siege.signOut(people, 10), { withinMs: 2_000 })
  t.comment(verdict.summary)
  await client.query('rollback')
  return verdict
}

t.test('an open transaction whose login ends an older session holds up no user of its app', { timeout }, async (t) => {
  const verdict = await besiegeBesideSurplus(t)
  t.match(verdict, { late: 0, lost: 0, undone: 0, heldUp: false })
  noteTries('an app leaves a transaction open in which a login ended another session', 1, verdict.count)
})

t.test('the control: where a login publishes what it ended, all of its app wait', { timeout }, async (t) => {
  const verdict = await besiegeBesideSurplus(t, [
    {
      file: 'sql/bound_sessions.sql',
      line: 'perform msal_logout.publish_later(deletions)',
      broken: 'perform msal_logout.publish_revocations(deletions)'
    }
  ])
  t.ok(verdict.undone > 0, 'the harness sees it')
})

/** All sign out while the owner of the schema shares accounts, which waits for an app's open transaction. */
async function besiegeBesideSharing(t: Test, broken?: readonly BrokenPart[]) {
  const siege = await startSiege(t, { ...(broken && { broken }) })
  const client = await hold(t, siege, [{ sid: 'held', token: '' }])
  const people = await siege.prepare(300)
  const owner = new pg.Client({ connectionString: siege.database.url })
  t.teardown(() => owner.end())
  await owner.connect()
  const sharing = owner.query(`select msal_logout.share_accounts('https://a.example', 'https://b.example')`)
  const verdict = await siege.judge(await siege.signOut(people, 10), { withinMs: 2_000 })
  t.comment(verdict.summary)
  const isShared = async () =>
    (await siege.database.query(`select from msal_logout.issuer_groups where origin = 'https://b.example'`)).length > 0
  t.notOk(await isShared(), 'it still waits')
  await client.query('rollback')
  await sharing
  t.ok(await isShared(), 'and is done then')
  return verdict
}

t.test('what waits for an open transaction to share accounts holds up no sign-out', { timeout }, async (t) => {
  const verdict = await besiegeBesideSharing(t)
  t.match(verdict, { late: 0, lost: 0, undone: 0, heldUp: false })
  noteTries('accounts are shared between issuers while an app leaves a transaction open', 1, verdict.count)
})

t.test('the control: where it waits as long as the transaction is open, everybody does', { timeout }, async (t) => {
  const verdict = await besiegeBesideSharing(t, [
    {
      file: 'sql/share_accounts.sql',
      line: `perform set_config('lock_timeout', '50ms', true)`,
      broken: `perform set_config('lock_timeout', '30s', true)`
    }
  ])
  t.ok(verdict.undone > 0, 'the harness sees it')
})

t.test('the limit of its role ends it, and its users are signed out without anybody', { timeout }, async (t) => {
  const database = await createDatabase(t, { own: true })
  const siege = await startSiege(t, { database })
  const role = await createRole(database, 'app')
  await siege.database.query('select msal_logout.register_app($1, $2)', [clientId, role])
  const people = await siege.prepare(held)
  await hold(t, siege, people, role)
  const answers = await siege.signOut(people, 10)
  const verdict = await siege.judge(answers, { withinMs: 90_000 })
  t.comment(verdict.summary)
  t.match(verdict, { late: 0, lost: 0, undone: 0 })
  await until('the transaction is over', async () => {
    const open = await siege.database.query(`select from pg_stat_activity where usename = $1`, [role])
    return open.length === 0
  })
})

t.test(
  'the control: if an order that waits for a lock is not taken apart, others stay undone',
  { timeout },
  async (t) => {
    const { verdict, client } = await besiege(t, [
      {
        file: 'src/sign-out.js',
        line: `code === 'ERR_DATABASE_LOCKED' || code === 'ERR_DATABASE_CONFLICT'`,
        broken: `code === 'ERR_DATABASE_CONFLICT'`
      }
    ])
    t.ok(verdict.late + verdict.lost + verdict.undone > 0, 'the harness sees it')
    await client.query('rollback')
  }
)

// A user who signs in again while a sign-out in steps is at the account. It must come to the same as if the sign-out had been done at once,
// and the login had come after it.
import t, { type Test } from 'tap'
import type { Order, Selector } from '../../src/sign-out.ts'
import { createStore } from '../../src/store.ts'
import { noteTries } from '../fixtures/attacks.ts'
import { createDatabase, type Database } from '../fixtures/database.ts'
import { replaceLine } from '../fixtures/functions.ts'
import { makeOrder, nowSeconds } from '../fixtures/orders.ts'
import { storeLogin } from '../fixtures/service.ts'

const issuer = 'https://op.example'
const account = { issuer, homeAccountId: 'u.t', subject: 'u' }
const maxDeletions = 3
const maxSteps = 40

/** One user in three apps and eight rows, with a bystander; and five who share a sid, of whom a step finds three. */
async function populate(database: Database): Promise<void> {
  for (let i = 0; i < 3; i += 1) {
    await storeLogin(database, { ...account, clientId: 'a', sid: `s${i}` })
    await storeLogin(database, { ...account, clientId: 'a', partitionKey: `obo-${i}`, kind: 'obo', sid: 's0' })
    await storeLogin(database, { ...account, clientId: 'b', subject: 'of b', sid: `s${i}` })
  }
  await storeLogin(database, { ...account, clientId: 'c', sid: null, oid: 'o', tid: 't' })
  await storeLogin(database, { issuer, homeAccountId: 'v.t', sid: 'v', subject: 'v', clientId: 'a' })
  for (let i = 0; i < 5; i += 1) {
    const subject = `shared-${i}`
    await storeLogin(database, { issuer, homeAccountId: `${subject}.t`, subject, sid: 'shared', clientId: 'a' })
  }
}

/** After the sign-out: into rows that it deletes, into new ones, with a session that it names, without a sid, by an account that a later step finds. */
const logins = () => {
  const issuedAt = nowSeconds()
  return [
    { ...account, clientId: 'a', sid: 'new', issuedAt },
    { ...account, clientId: 'b', sid: 's0', subject: 'of b', issuedAt },
    { ...account, clientId: 'a', partitionKey: 'obo-1', kind: 'obo', sid: 'new', issuedAt },
    { ...account, clientId: 'a', partitionKey: 'obo-9', kind: 'obo', sid: 'new', issuedAt },
    { ...account, clientId: 'c', sid: null, oid: 'o', tid: 't', issuedAt },
    ...[0, 4].map((i) => {
      const subject = `shared-${i}`
      return { issuer, homeAccountId: `${subject}.t`, subject, sid: 'new', clientId: 'a', issuedAt }
    })
  ]
}

interface Row {
  readonly client_id: string
  readonly partition_key: string
  readonly generation: string
  readonly version: string
}

const rowsOf = (database: Database) =>
  database.query<Row & { home_account_id: string }>(
    'select client_id, partition_key, home_account_id, generation, version from msal_logout.token_cache order by 1, 2'
  )

async function save(database: Database, { client_id, partition_key, generation, version }: Row): Promise<string> {
  const [saved] = await database.query<{ outcome: string }>(
    `select outcome from msal_logout.save($1, $2, $3, $4, '{"old":1}', 'json', '1 hour')`,
    [client_id, partition_key, generation, version]
  )
  return saved?.outcome ?? ''
}

/** What is stored, but for its generations and versions. */
async function leftIn(database: Database) {
  return database.query(
    `select client_id, partition_key, home_account_id, null as sid from msal_logout.token_cache
    union all select client_id, partition_key, home_account_id, session_key from msal_logout.sessions order by 1, 2, 3, 4`
  )
}

/**
 * The apps sign the user in again; and those of the old login save what they have, and add a session to it. Returns into which of the new
 * rows an old login could write.
 */
async function act(t: Test, database: Database, before: readonly Row[]): Promise<string[]> {
  const fresh = logins()
  for (const login of fresh) {
    t.match(await storeLogin(database, login), { accepted: true }, `${login.clientId} ${login.sid}`)
  }
  const now = await rowsOf(database)
  const intruded: string[] = []
  for (const row of before) {
    const isSame = (other: Row) => other.client_id === row.client_id && other.partition_key === row.partition_key
    // As a client does that has merged: by the generation that it had, and the version that is there.
    const outcome = await save(database, { ...row, version: now.find(isSame)?.version ?? row.version })
    const isRenewed = fresh.some(({ clientId: client_id, homeAccountId, ...login }) =>
      isSame({ ...row, client_id, partition_key: 'partitionKey' in login ? login.partitionKey : homeAccountId })
    )
    if (outcome === 'saved' && isRenewed) {
      intruded.push(`${row.client_id} ${row.partition_key}`)
    }
  }
  await database.query(`select msal_logout.add_session('a', 'obo-2', $1, 'guest', 'u', $2)`, [issuer, nowSeconds()])
  return intruded
}

interface Case {
  readonly selector: Selector
  readonly order: Partial<Order>
}

async function atOnce(t: Test, { selector, order }: Case) {
  const database = await createDatabase(t)
  await populate(database)
  const before = await rowsOf(database)
  await createStore({ pool: database.pool }).commitOrders([makeOrder(selector, order)], { isPatient: true })
  return { intruded: await act(t, database, before), left: await leftIn(database) }
}

/** With the logins after so many steps; undefined if it is over before. */
async function inSteps(t: Test, database: Database, { selector, order }: Case, after: number) {
  await populate(database)
  const store = createStore({ pool: database.pool })
  const before = await rowsOf(database)
  const asked = makeOrder(selector, order)
  let intruded: string[] = []
  for (let steps = 0; steps < maxSteps; steps += 1) {
    if (steps === after) {
      intruded = await act(t, database, before)
    }
    if ((await store.commitStep(asked, maxDeletions)) !== undefined) {
      return steps < after ? undefined : { intruded, left: await leftIn(database) }
    }
  }
  throw new Error(`it is not over after ${maxSteps} steps`)
}

async function checkUsable(t: Test, database: Database): Promise<void> {
  for (const { clientId, sid, subject } of logins()) {
    const [found] = await database.query('select msal_logout.session_active($1, $2, $3, $4) as active', [
      clientId,
      issuer,
      sid,
      subject
    ])
    t.match(found, { active: true }, `${clientId} ${sid} is active`)
  }
  for (const row of await rowsOf(database)) {
    t.equal(await save(database, row), 'saved')
  }
  t.same(await database.query('select from msal_logout.accounts_in_steps'), [], 'nothing of it stays behind')
  t.same(
    await database.query(
      `select from msal_logout.sessions s where not exists (
        select from msal_logout.token_cache t where t.client_id = s.client_id and t.partition_key = s.partition_key)`
    ),
    [],
    'no session is without its row'
  )
}

const revokeBefore = () => ({ revokeBefore: nowSeconds() - 30 })
const cases: [name: string, make: () => Case][] = (['account', 'session'] as const).flatMap((purgeScope) =>
  (
    [
      ['a sid', { kind: 'session', issuer, sid: 's0', subject: 'u' }, {}],
      ['a subject', { kind: 'subject', issuer, subject: 'u' }, { sparesNewer: true }],
      ['an object', { kind: 'object', tenantId: 't', objectId: 'o' }, { sparesNewer: true }],
      ['an account', { kind: 'account', homeAccountId: 'u.t', issuer: '' }, { actor: 'x', reason: 'x' }],
      ['a sid that many accounts share', { kind: 'session', issuer, sid: 'shared' }, {}]
    ] as const
  ).map(([name, selector, order]): [string, () => Case] => [
    `${name}, by the scope of the ${purgeScope}`,
    () => ({ selector, order: { ...order, purgeScope, ...revokeBefore() } })
  ])
)

let tries = 0
for (const [name, make] of cases) {
  t.test(
    `${name}: who signs in between two steps stays signed in, and nobody else`,
    { timeout: 300_000 },
    async (t) => {
      const expected = await atOnce(t, make())
      let points = 0
      for (let after = 1; after < maxSteps; after += 1) {
        const database = await createDatabase(t)
        const found = await inSteps(t, database, make(), after)
        if (found === undefined) {
          break
        }
        t.same(found.left, expected.left, `after step ${after}`)
        t.ok(
          found.intruded.every((row) => expected.intruded.includes(row)),
          `${found.intruded}`
        )
        t.same(
          await database.query(`select from msal_logout.revoked_sessions r, unnest(r.sessions) s where s.sid = 'new'`),
          []
        )
        await checkUsable(t, database)
        points += 1
      }
      tries += points
      t.ok(points > 0 || name.startsWith('an object'), `${points} points`)
    }
  )
}

t.test('what other clocks, or a restore, dated ahead goes as well, and who signs in then stays', async (t) => {
  const database = await createDatabase(t)
  await populate(database)
  const ahead = (Date.now() + 3_600_000) * 1_000
  await database.query('update msal_logout.token_cache set generation = generation + $1', [ahead])
  await database.query('update msal_logout.sessions set generation = generation + $1', [ahead])
  const store = createStore({ pool: database.pool })
  const order = makeOrder({ kind: 'session', issuer, sid: 's0' }, revokeBefore())
  t.equal(await store.commitStep(order, maxDeletions), undefined)
  const login = { ...account, clientId: 'a', sid: 'new', issuedAt: nowSeconds() }
  t.match(await storeLogin(database, login), { accepted: true })
  for (let steps = 0; steps < maxSteps && (await store.commitStep(order, maxDeletions)) === undefined; steps += 1) {}
  t.match(await store.findRecord(order.id), { status: 'done' })
  t.same(await database.query(`select session_key from msal_logout.sessions where home_account_id = 'u.t'`), [
    { session_key: 'sid=new' }
  ])
})

t.test('an order that may come twice goes on in steps, and does not begin anew when they are over', async (t) => {
  const database = await createDatabase(t)
  await populate(database)
  const store = createStore({ pool: database.pool })
  const order = makeOrder({ kind: 'session', issuer, sid: 's0' }, { ...revokeBefore(), isOnce: false })
  const login = { ...account, clientId: 'a', issuedAt: nowSeconds() }
  t.equal(await store.commitStep(order, maxDeletions), undefined)
  t.match(await storeLogin(database, { ...login, sid: 'new' }), { accepted: true })
  t.match(
    await store.commitOrders([order], { isPatient: true }),
    [{ outcome: 'unfinished' }],
    'as a restarted retry does'
  )
  let steps = 0
  while (steps < maxSteps && (await store.commitStep(order, maxDeletions)) === undefined) {
    steps += 1
  }
  const usersLeft = () =>
    database.query(`select session_key from msal_logout.sessions where home_account_id = 'u.t' order by 1`)
  t.same(await usersLeft(), [{ session_key: 'sid=new' }])
  await database.query('delete from msal_logout.tombstones') // a provider whose sid is the same again
  t.match(await storeLogin(database, { ...login, sid: 's0' }), { accepted: true })
  t.match(await store.commitStep(order, maxDeletions), { outcome: 'duplicate' })
  t.same(await usersLeft(), [{ session_key: 'sid=new' }, { session_key: 'sid=s0' }])
})

t.test('a further session of a row that no step has found yet keeps nothing of it', async (t) => {
  const database = await createDatabase(t)
  await populate(database)
  const store = createStore({ pool: database.pool })
  const order = makeOrder({ kind: 'session', issuer, sid: 'shared' }, revokeBefore())
  t.equal(await store.commitStep(order, maxDeletions), undefined)
  for (let i = 0; i < 5; i += 1) {
    await database.query(`select msal_logout.add_session('a', $1, $2, 'guest', $3, $4)`, [
      `shared-${i}.t`,
      issuer,
      `shared-${i}`,
      nowSeconds()
    ])
  }
  for (let steps = 0; steps < maxSteps && (await store.commitStep(order, maxDeletions)) === undefined; steps += 1) {}
  t.match(await store.findRecord(order.id), { status: 'done' })
  for (const table of ['token_cache', 'sessions']) {
    t.same(await database.query(`select from msal_logout.${table} where home_account_id like 'shared-%'`), [], table)
  }
})

t.test('by a clock behind the first step no two logins have one generation', async (t) => {
  const database = await createDatabase(t)
  await populate(database)
  const store = createStore({ pool: database.pool })
  const order = makeOrder({ kind: 'session', issuer, sid: 's0' }, revokeBefore())
  t.equal(await store.commitStep(order, maxDeletions), undefined)
  await database.query(`update msal_logout.records set at = at + interval '1 hour'`)
  const found = await database.query<{ generation: string }>(
    'select msal_logout.new_generation() as generation from generate_series(1, 100)'
  )
  t.ok(new Set(found.map(({ generation }) => generation)).size > 98)
})

t.test('logins beside the steps, at any moment: each that was accepted stays', { timeout: 300_000 }, async (t) => {
  for (let round = 0; round < Number(process.env.FAULT_ROUNDS ?? 1) * 3; round += 1) {
    const database = await createDatabase(t)
    await populate(database)
    const store = createStore({ pool: database.pool })
    const order = makeOrder({ kind: 'session', issuer, sid: 's0' }, revokeBefore())
    t.equal(await store.commitStep(order, 1), undefined)
    let isOver = false
    const signOut = async () => {
      while (!isOver) {
        isOver = (await store.commitStep(order, 1)) !== undefined
      }
    }
    const accepted = new Set<string>()
    const signIn = async (clientId: string) => {
      const subject = clientId === 'b' ? 'of b' : 'u'
      for (let i = 0; !isOver || i === 0; i += 1) {
        const sid = `${clientId}${i}`
        if ((await storeLogin(database, { ...account, subject, clientId, sid, issuedAt: nowSeconds() })).accepted) {
          accepted.add(`sid=${sid}`)
        }
      }
    }
    await Promise.all([signOut(), ...['a', 'b', 'x'].map(signIn)])
    const left = await database.query<{ session_key: string }>(
      `select session_key from msal_logout.sessions where home_account_id = 'u.t'`
    )
    t.same(new Set(left.map(({ session_key }) => session_key)), accepted)
    await t.resolves(checkRows(t, database))
    tries += accepted.size
  }
})

async function checkRows(t: Test, database: Database): Promise<void> {
  t.same(
    (await rowsOf(database))
      .map(({ client_id, partition_key }) => `${client_id} ${partition_key}`)
      .filter((row) => row.endsWith(' u.t')),
    ['a u.t', 'b u.t', 'x u.t']
  )
}

const ofAccount: Case = { selector: { kind: 'session', issuer, sid: 's0', subject: 'u' }, order: revokeBefore() }
const ofSession: Case = {
  selector: { kind: 'session', issuer, sid: 'shared' },
  order: { ...revokeBefore(), purgeScope: 'session' }
}
const controls: [what: string, file: string, line: string, broken: string, asked: Case][] = [
  [
    'if what came later goes as well',
    'sign_out_step',
    'msal_logout.note_accounts(o.id, noted_to, page_end));',
    `msal_logout.note_accounts(o.id, noted_to, page_end));
      update msal_logout.accounts_in_steps a set last_generation = last_generation + 3600000000 where a.id = o.id;`,
    ofAccount
  ],
  [
    'if a row keeps its generation in a login',
    'login',
    'and not msal_logout.is_in_steps(t.account_issuer, t.home_account_id, t.generation)',
    '',
    ofSession
  ],
  [
    'if a save keeps a row from a step',
    'save',
    'version = t.version + 1,',
    'version = t.version + 1, generation = msal_logout.new_generation(),',
    ofAccount
  ]
]
for (const [what, file, line, broken, asked] of controls) {
  t.test(`the control: ${what}, it comes to something else`, { timeout: 300_000 }, async (t) => {
    const expected = await atOnce(t, asked)
    const database = await createDatabase(t, { own: true })
    await replaceLine(t, database, file, line, broken)
    const found = await inSteps(t, database, asked, 1)
    t.notSame(found, expected, 'the test sees it')
  })
}

t.teardown(() => noteTries('a user signs in again between two steps of a sign-out', tries))

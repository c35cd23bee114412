// More accounts than a step takes, as a sid that many share: between two steps what led to an account may be renewed, forgotten or dated
// ahead. It must come to the same as if the sign-out had been done at once, and all of that had come after it.
import t, { type Test } from 'tap'
import type { Order, Selector } from '../../src/sign-out.ts'
import { createStore } from '../../src/store.ts'
import { noteTries } from '../fixtures/attacks.ts'
import { createDatabase, type Database } from '../fixtures/database.ts'
import { replaceLine } from '../fixtures/functions.ts'
import { makeOrder, nowSeconds } from '../fixtures/orders.ts'
import { storeLogin } from '../fixtures/service.ts'

const issuer = 'https://op.example'
const maxDeletions = 3 // a row and a session are an account's; one account a step
const maxSteps = 80
const minuteMicroseconds = 60_000_000
const timeout = 600_000

const accounts = Array.from({ length: 8 }, (_, i) => ({ i, homeAccountId: `m${i}.t` }))
type Account = (typeof accounts)[number]

/** What a sid, a subject and an object lead to, and what no signal but the account's leads to: another row of the app, and another app. */
async function populate(database: Database): Promise<void> {
  for (const { i, homeAccountId } of accounts) {
    const login = { issuer, homeAccountId }
    await storeLogin(database, { ...login, clientId: 'a', ...lead })
    await storeLogin(database, { ...login, clientId: 'a', ...further(i) })
    await storeLogin(database, { ...login, clientId: 'b', sid: `own-${i}`, subject: `of b ${i}` })
  }
  await storeLogin(database, { issuer, homeAccountId: 'v.t', sid: 'v', subject: 'v', clientId: 'a' })
}

const lead = { sid: 'shared', subject: 'lead', oid: 'o', tid: 't' }
const further = (i: number) =>
  ({ partitionKey: `obo-${i}`, kind: 'obo', sid: `own-${i}`, subject: `own-${i}` }) as const

interface Row {
  readonly client_id: string
  readonly partition_key: string
  readonly home_account_id: string
  readonly generation: string
  readonly version: string
}

const rowsOf = (database: Database) =>
  database.query<Row>(
    'select client_id, partition_key, home_account_id, generation, version from msal_logout.token_cache order by 1, 2'
  )

/** What is stored, but for its generations and versions. */
const leftIn = (database: Database) =>
  database.query(
    `select client_id, partition_key, kind, home_account_id, null as sid, null as subject from msal_logout.token_cache
    union all select client_id, partition_key, null, home_account_id, session_key, subject from msal_logout.sessions order by 1, 2, 3, 4, 5`
  )

const isOf = (clientId: string, partitionKey: string) => (row: Row) =>
  row.client_id === clientId && row.partition_key === partitionKey

async function save(database: Database, row: Row): Promise<string> {
  const [saved] = await database.query<{ outcome: string }>(
    `select outcome from msal_logout.save($1, $2, $3, $4, '{"old":1}', 'json', '1 hour')`,
    [row.client_id, row.partition_key, row.generation, row.version]
  )
  return saved?.outcome ?? ''
}

type Act = (database: Database, account: Account, before: readonly Row[]) => Promise<unknown>

const logIn = (database: Database, login: Parameters<typeof storeLogin>[1]) =>
  storeLogin(database, { clientId: 'a', issuedAt: nowSeconds(), ...login })

const acts: { readonly [name: string]: Act } = {
  'a login with the same session': (database, { homeAccountId }) => logIn(database, { issuer, homeAccountId, ...lead }),

  'a login with another session': (database, { homeAccountId }) =>
    logIn(database, { issuer, homeAccountId, ...lead, sid: 'new' }),

  'a login into a row that nothing led to': (database, { i, homeAccountId }) =>
    logIn(database, { issuer, homeAccountId, clientId: 'b', sid: 'new', subject: `of b ${i}` }),

  'the app lets go of what led to it': (database, { homeAccountId }, before) =>
    database.query(`select msal_logout.forget('a', $1, $2)`, [
      homeAccountId,
      before.find(isOf('a', homeAccountId))?.generation
    ]),

  'a save, which an app had begun before': async (database, { homeAccountId, i }, before) => {
    for (const row of before.filter((each) => isOf('a', homeAccountId)(each) || isOf('a', `obo-${i}`)(each))) {
      await save(database, row)
    }
  },

  'a further session of the row': (database, { homeAccountId }) =>
    database.query(`select msal_logout.add_session('a', $1, $2, 'guest', 'lead', $3)`, [
      homeAccountId,
      issuer,
      nowSeconds()
    ]),

  nothing: async () => {}
}

/** A sign-out at once takes the row that they go into: so it is nobody's. */
const actsOfAnother: typeof acts = {
  'a login of another subject': (database, { homeAccountId }) =>
    logIn(database, { issuer, homeAccountId, sid: 'new', subject: 'another' }),

  'a login of another kind': (database, { i, homeAccountId }) =>
    logIn(database, { issuer, homeAccountId, ...further(i), kind: 'user', sid: 'new' })
}

interface Case {
  readonly selector: Selector
  readonly order: Partial<Order>
  readonly acts: readonly Act[]
}

interface End {
  readonly left: unknown[]
  /** The rows of new logins into which a save of an old one could still come. */
  readonly intruded: readonly string[]
}

/** Each account has one of the acts, from the first, the second ... on. */
async function act(database: Database, { acts }: Case, turn: number, before: readonly Row[]): Promise<void> {
  for (const account of accounts) {
    await acts[(account.i + turn) % acts.length]?.(database, account, before)
  }
}

async function endOf(database: Database, before: readonly Row[]): Promise<End> {
  const left = await leftIn(database)
  const now = await rowsOf(database)
  const intruded: string[] = []
  for (const row of before.filter(({ home_account_id }) => home_account_id !== 'v.t')) {
    const { version } = now.find(isOf(row.client_id, row.partition_key)) ?? row
    // As a client does that has merged: by the generation that it had, and the version that is there.
    if ((await save(database, { ...row, version })) === 'saved') {
      intruded.push(`${row.client_id} ${row.partition_key}`)
    }
  }
  return { left, intruded }
}

/** What an order finds, with two of the accounts dated ahead by another clock. */
async function prepare(database: Database): Promise<Row[]> {
  await populate(database)
  for (const table of ['token_cache', 'sessions']) {
    await database.query(
      `update msal_logout.${table} set generation = generation + $1 where home_account_id in ('m1.t', 'm6.t')`,
      [minuteMicroseconds]
    )
  }
  return rowsOf(database)
}

async function atOnce(t: Test, asked: Case, turn: number): Promise<End> {
  const database = await createDatabase(t)
  const before = await prepare(database)
  const { selector, order } = asked
  await createStore({ pool: database.pool }).commitOrders([makeOrder(selector, order)], { isPatient: true })
  await act(database, asked, turn, before)
  return endOf(database, before)
}

/** With the acts after so many steps; undefined if it is over before. */
async function inSteps(database: Database, asked: Case, turn: number, after: number): Promise<End | undefined> {
  const before = await prepare(database)
  const store = createStore({ pool: database.pool })
  const order = makeOrder(asked.selector, asked.order)
  for (let steps = 0; steps < maxSteps; steps += 1) {
    if (steps === after) {
      await act(database, asked, turn, before)
    }
    if ((await store.commitStep(order, maxDeletions)) !== undefined) {
      return steps < after ? undefined : endOf(database, before)
    }
  }
  throw new Error(`it is not over after ${maxSteps} steps`)
}

const usual = Object.values(acts)
const all = [...usual, ...Object.values(actsOfAnother)]

const revokeBefore = () => ({ revokeBefore: nowSeconds() - 30 })
const selectors: [name: string, selector: Selector, order: Partial<Order>][] = [
  ['a sid', { kind: 'session', issuer, sid: 'shared' }, {}],
  ['a subject', { kind: 'subject', issuer, subject: 'lead' }, { sparesNewer: true }],
  ['an object', { kind: 'object', tenantId: 't', objectId: 'o' }, { sparesNewer: true }]
]

let tries = 0
for (const [name, selector, changes] of selectors) {
  for (const purgeScope of ['account', 'session'] as const) {
    const make = (): Case => ({
      selector,
      order: { ...changes, purgeScope, ...revokeBefore() },
      acts: purgeScope === 'account' ? all : usual
    })
    t.test(
      `${name} of many accounts, by the scope of the ${purgeScope}: all that comes between two steps comes after it`,
      { timeout },
      async (t) => {
        const turns = make().acts.length
        const expected: End[] = []
        for (let turn = 0; turn < turns; turn += 1) {
          expected.push(await atOnce(t, make(), turn))
        }
        const check = async (turn: number, after: number): Promise<boolean> => {
          const database = await createDatabase(t)
          const found = await inSteps(database, make(), turn, after)
          if (found === undefined) {
            return false
          }
          t.same(found.left, expected[turn]?.left, `turn ${turn}, after step ${after}`)
          const surplus = found.intruded.filter((row) => !expected[turn]?.intruded.includes(row))
          t.same(surplus, [], 'no old save comes into a new row')
          t.same(await database.query('select from msal_logout.accounts_in_steps'), [], 'nothing of it stays behind')
          tries += 1
          return true
        }
        for (let turn = 0; turn < turns; turn += 1) {
          t.ok(await check(turn, 1), 'there are further steps')
        }
        let after = 2
        while (await check(after % turns, after)) {
          after += 1
        }
        t.ok(after >= 3, `${after} steps`)
      }
    )
  }
}

t.test('an account of any issuer: each of those that bear the id', async (t) => {
  const database = await createDatabase(t)
  const store = createStore({ pool: database.pool })
  const issuers = ['https://one.example', 'https://two.example', 'https://three.example']
  for (const each of issuers) {
    for (const n of [0, 1, 2]) {
      await storeLogin(database, {
        issuer: each,
        homeAccountId: 'u',
        partitionKey: `${each} ${n}`,
        sid: 's',
        subject: 'u',
        clientId: 'a'
      })
    }
  }
  const order = makeOrder({ kind: 'account', homeAccountId: 'u' }, { ...revokeBefore(), actor: 'x', reason: 'x' })
  t.equal(await store.commitStep(order, maxDeletions), undefined)
  t.match(await store.findRecord(order.id), { total: 3 })
  for (const each of issuers) {
    const login = { issuer: each, homeAccountId: 'u', partitionKey: `${each} 0`, subject: 'u', sid: 's' }
    t.match(await logIn(database, login), { accepted: true })
  }
  for (let steps = 0; steps < maxSteps && (await store.commitStep(order, maxDeletions)) === undefined; steps += 1) {}
  t.match(await store.findRecord(order.id), { status: 'done', accounts: 3 })
  t.same(
    (await rowsOf(database)).map(({ partition_key }) => partition_key).sort(),
    issuers.map((each) => `${each} 0`).sort()
  )
})

/** More accounts than one transaction locks, as if that were two. */
async function createNarrow(t: Test): Promise<Database> {
  const database = await createDatabase(t, { own: true })
  await replaceLine(t, database, 'sign_out_step', 'max_noted constant int := 10000;', 'max_noted constant int := 2;')
  return database
}

t.test(
  'more accounts than one transaction locks: each is signed out once it is noted, and none is forgotten',
  { timeout },
  async (t) => {
    const asked: Case = { selector: { kind: 'session', issuer, sid: 'shared' }, order: revokeBefore(), acts: usual }
    const pages = accounts.length / 2
    for (let turn = 0; turn < usual.length; turn += 1) {
      const expected = await atOnce(t, asked, turn)
      const rows = new Set(expected.left.map((row) => JSON.stringify(row)))
      for (let after = 1; after <= pages + 2; after += 1) {
        const database = await createNarrow(t)
        const found = await inSteps(database, asked, turn, after)
        if (after > pages) {
          t.same(found?.left, expected.left, `turn ${turn}, after step ${after}, when all are noted`)
        }
        t.same(
          found?.left.filter((row) => !rows.has(JSON.stringify(row))),
          [],
          'nothing is left but new logins'
        )
        t.same(
          found?.intruded.filter((row) => !expected.intruded.includes(row)),
          []
        )
        tries += 1
      }
    }
  }
)

t.test('what an order in steps says of itself while it notes', async (t) => {
  const database = await createNarrow(t)
  await populate(database)
  const store = createStore({ pool: database.pool })
  const order = makeOrder({ kind: 'session', issuer, sid: 'shared' })
  for (let steps = 0; steps < 5; steps += 1) {
    t.equal(await store.commitStep(order, maxDeletions), undefined)
    t.match(await store.findRecord(order.id), { status: 'running', total: 8, accounts: 0, rows: 0, sessions: 0 })
    t.same(await store.commitOrders([order], { isPatient: true }), [{ outcome: 'unfinished' }])
    t.match(await store.unfinishedOrders(-1_000), [{ order: { id: order.id } }])
  }
  t.equal(await store.commitStep(order, maxDeletions), undefined)
  t.match(await store.findRecord(order.id), { status: 'running', rows: 3 })
})

interface Moments {
  readonly narrow: boolean
  readonly swept: boolean
}

/**
 * Two processes at an order, and apps at its accounts, each of which has its own. Every login that an app was answered is there at the end,
 * and nothing else.
 */
async function mix(t: Test, purgeScope: Order['purgeScope'], { narrow, swept }: Moments): Promise<number> {
  const database = narrow ? await createNarrow(t) : await createDatabase(t)
  await populate(database)
  const store = createStore({ pool: database.pool })
  const order = makeOrder({ kind: 'session', issuer, sid: 'shared' }, { ...revokeBefore(), purgeScope })
  const step = () => store.commitStep(order, maxDeletions)
  t.equal(await step(), undefined)
  const id = order.id.replace(/.$/, (digit) => (digit === '0' ? '1' : '0'))
  if (swept) {
    await store.startSweep({
      id,
      source: 'operator',
      clientId: 'b',
      reason: 'x',
      actor: 'x',
      dryRun: false,
      maxAccounts: 100,
      requestHash: 'ab'
    })
  }
  let isOver = false
  let isNoted = !narrow
  const signOut = async () => {
    for (let ended = undefined as unknown; ended === undefined && !isOver; ) {
      ended = await step()
      isNoted ||=
        (await database.query(`select from msal_logout.records where id = $1 and noted_to < total`, [order.id]))
          .length === 0
    }
    isOver = true
  }
  const sweep = async () => {
    for (let outcome = 'more'; outcome !== 'done'; ) {
      outcome = await store.sweepStep(id, 2)
    }
  }
  const kept = new Set<string>()
  const lost = new Set<string>()
  let count = 0
  const play = async (player: number) => {
    for (let n = 0; !isOver || n < accounts.length; n += 1) {
      const account = accounts[(player * 2 + (n % 2)) % accounts.length]
      if (account === undefined) {
        continue
      }
      const { i, homeAccountId } = account
      const sid = n % 3 === 0 ? 'shared' : `${player}-${n}`
      const clientId = n % 5 === 0 ? 'b' : 'a'
      const counts = isNoted
      const subject = clientId === 'b' ? `of b ${i}` : 'lead'
      const { accepted, generation } = await logIn(database, { issuer, homeAccountId, clientId, sid, subject })
      const session = `${clientId} ${homeAccountId} sid=${sid}`
      if (accepted) {
        ;(counts ? kept : lost).add(session)
        count += 1
      }
      if (n % 7 === 6 && accepted && purgeScope === 'account') {
        await database.query('select msal_logout.forget($1, $2, $3)', [clientId, homeAccountId, generation])
        for (const each of [...kept].filter((each) => each.startsWith(`${clientId} ${homeAccountId} `))) {
          kept.delete(each)
        }
      }
      if (n % 4 === 3) {
        const further = `${player}+${n}`
        const [added] = await database.query<{ added: boolean }>(
          `select msal_logout.add_session($1, $2, $3, $4, $5, $6) as added`,
          [clientId, homeAccountId, issuer, further, subject, nowSeconds()]
        )
        if (added?.added === true) {
          ;(counts ? kept : lost).add(`${clientId} ${homeAccountId} sid=${further}`)
        }
      }
      if (generation !== null) {
        const row = { client_id: clientId, partition_key: homeAccountId, home_account_id: homeAccountId, generation }
        await save(database, { ...row, version: '1' })
      }
    }
  }
  await Promise.all([signOut(), signOut(), ...(swept ? [sweep()] : []), ...[0, 1, 2, 3].map(play)])
  const left = await database.query<{ session: string }>(
    `select client_id || ' ' || partition_key || ' ' || session_key as session from msal_logout.sessions
    where home_account_id <> 'v.t' and session_key not like 'sid=own-%'`
  )
  const found = new Set(left.map(({ session }) => session))
  t.same(
    [...kept].filter((session) => !found.has(session)),
    [],
    'who was signed in stays'
  )
  t.same(
    [...found].filter((session) => !kept.has(session) && !lost.has(session)),
    [],
    'and nobody else'
  )
  const own = await database.query(
    `select client_id, partition_key from msal_logout.sessions where session_key like 'sid=own-%' and ($1 or $2 and client_id = 'b')`,
    [purgeScope === 'account', swept]
  )
  t.same(own, [], 'what nothing led to has gone')
  t.same(
    await database.query(
      `select from msal_logout.token_cache t where not exists (
        select from msal_logout.sessions s where s.client_id = t.client_id and s.partition_key = t.partition_key)`
    ),
    [],
    'no row is without a session'
  )
  t.match(await store.findRecord(order.id), { status: 'done', accounts: accounts.length })
  return count
}

const rounds = Number(process.env.FAULT_ROUNDS ?? 1) * 3
for (const purgeScope of ['account', 'session'] as const) {
  for (const moments of [
    { narrow: false, swept: false },
    { narrow: true, swept: false },
    { narrow: false, swept: true }
  ]) {
    const beside = `${moments.narrow ? ', which takes several transactions to note,' : ''}${moments.swept ? ' and a sweep' : ''}`
    t.test(
      `beside a sign-out in steps by the scope of the ${purgeScope}${beside}: every login stays`,
      { timeout },
      async (t) => {
        for (let round = 0; round < rounds; round += 1) {
          tries += await mix(t, purgeScope, moments)
        }
      }
    )
  }
}

const controls: [what: string, file: string, line: string, broken: string, turn: number, order: Partial<Order>][] = [
  [
    'only what the first step can take is noted',
    'list_accounts',
    'match_sessions(array[o])',
    'match_sessions(array[o], 3)',
    0,
    {}
  ],
  [
    'a clock alone says what was there',
    'note_accounts',
    'set last_generation = greatest(',
    'set last_generation = coalesce(',
    0,
    {}
  ],
  [
    'a login goes into a row that goes',
    'end_due_row',
    'msal_logout.is_in_steps(t.account_issuer, t.home_account_id, t.generation, true)',
    'false',
    1,
    {}
  ],
  [
    'by the scope of the session, a login does not renew a row that goes',
    'login',
    'and not msal_logout.is_in_steps(t.account_issuer, t.home_account_id, t.generation)',
    '',
    0,
    { purgeScope: 'session' }
  ]
]
for (const [what, file, line, broken, turn, order] of controls) {
  t.test(`the control: if ${what}, it comes to something else`, { timeout }, async (t) => {
    const asked: Case = {
      selector: { kind: 'session', issuer, sid: 'shared' },
      order: { ...revokeBefore(), ...order },
      acts: order.purgeScope === 'session' ? usual : all
    }
    const expected = await atOnce(t, asked, turn)
    const database = await createDatabase(t, { own: true })
    await replaceLine(t, database, file, line, broken)
    const found = await inSteps(database, asked, turn, 1).catch(({ code }) => code)
    t.notSame(found, expected, 'the test sees it')
  })
}

t.teardown(() => noteTries('an app acts between two steps of a sign-out of many accounts', tries))

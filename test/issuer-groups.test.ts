// Whose an account id from client info is: of the issuers that share accounts, which are those of one origin.
import t, { type Test } from 'tap'
import { createDatabase, createRole } from './fixtures/database.ts'
import { nowSeconds } from './fixtures/orders.ts'
import { build, type Service } from './fixtures/service.ts'
import { until } from './fixtures/until.ts'

const reason = 'test'
const microsoft = 'https://login.microsoftonline.com'
const tenant = (digit: number) => `${microsoft}/${'1'.repeat(7)}${digit}-1111-1111-1111-111111111111/v2.0`
const account = 'u.t1'

/** A user of Entra ID with rows in two apps, and a service that trusts a further issuer: the fixture's provider. */
async function setUp(t: Test): Promise<Service> {
  const service = await build(t, { issuers: [{ name: 'entra', issuer: `${microsoft}/{tenantid}/v2.0` }] })
  for (const clientId of ['a', 'b']) {
    await service.login({ clientId, homeAccountId: account, issuer: tenant(1), sid: 's1', subject: `u-${clientId}` })
  }
  return service
}

const evilLogin = (service: Service, clientId: string) =>
  service.login({ clientId, homeAccountId: account, sid: 'evil', subject: 'evil', payload: '{"of":"evil"}' })

t.test("an issuer that sends another issuer's account id ends its own sessions alone", async (t) => {
  for (const claims of [{ sid: 'evil' }, { sid: undefined, sub: 'evil' }]) {
    for (const purgeScope of ['account', 'session'] as const) {
      const service = await build(t, { policy: { purgeScope } })
      await service.login({ clientId: 'a', homeAccountId: account, issuer: tenant(1), sid: 's1', subject: 'u' })
      t.match(await evilLogin(service, 'c'), { accepted: true })
      t.match(await service.post(await service.provider.logoutToken(claims)), { statusCode: 200 })
      t.same(await service.rows(), ['a/u.t1'])
      t.match(await service.database.query('select sid from msal_logout.sessions'), [{ sid: 's1' }])
      t.match(
        await service.login({ clientId: 'a', homeAccountId: account, issuer: tenant(1), sid: null, subject: 'u' }),
        { accepted: true },
        'nor does it keep a login out'
      )
    }
  }
})

t.test("its payload never comes into another's row, nor another's into its own", async (t) => {
  const service = await setUp(t)
  const before = await service.database.snapshot()
  await t.rejects(evilLogin(service, 'a'), { code: 'ML001', hint: /share_accounts/ })
  t.same(await service.database.snapshot(), before)
  await evilLogin(service, 'c')
  await t.rejects(
    service.login({ clientId: 'c', homeAccountId: account, issuer: tenant(1), sid: 's1', subject: 'u' }),
    { code: 'ML001' }
  )
})

t.test('of two first logins at once, by two issuers, one is stored', async (t) => {
  const service = await build(t)
  const first = await service.database.pool.connect()
  t.teardown(() => first.release())
  await first.query('begin')
  await first.query(`select msal_logout.login('a', 'u.t1', 'u.t1', $1, 's1', 'u', $2, '{}', 'json', '1 hour')`, [
    tenant(1),
    nowSeconds() - 60
  ])
  const second = t.rejects(evilLogin(service, 'a'), { code: 'ML001' })
  await until('the second waits for the first', async () => {
    const waiting = await service.database.query(
      `select from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()`
    )
    return waiting.length > 0
  })
  await first.query('commit')
  await second
  t.match(await service.database.query('select issuer from msal_logout.sessions'), [{ issuer: tenant(1) }])
})

t.test(
  "a guest's row has the sessions that the app adds, also of another origin, and any of them ends it",
  async (t) => {
    for (const second of [tenant(2), 'https://sts.other.example']) {
      for (const [issuer, sid] of [
        [tenant(1), 's1'],
        [second, 's2']
      ] as const) {
        const service = await setUp(t)
        const added = await service.database.query(
          `select msal_logout.add_session('a', $1, $2, 's2', 'guest', $3) as added`,
          [account, second, nowSeconds() - 60]
        )
        t.same(added, [{ added: true }])
        await service.operate('POST', '/admin/purges', { issuer, sid, reason })
        t.same(await service.rows(), [])
      }
    }
  }
)

t.test(
  'a purge of the account takes all who bear its id from client info, and by an issuer those of its group',
  async (t) => {
    const service = await setUp(t)
    const purge = async (body: object) =>
      (await service.operate('POST', '/admin/purges', { homeAccountId: account, reason, dryRun: true, ...body })).json()
    await evilLogin(service, 'c')
    t.match(await purge({}), { accounts: 2, rows: 3 })
    t.match(await purge({ issuer: service.provider.issuer }), { accounts: 1, rowsByClient: { c: 1 } })
    for (const issuer of [tenant(1), tenant(2)]) {
      t.match(await purge({ issuer }), { accounts: 1, rowsByClient: { a: 1, b: 1 } })
    }
    t.match(await purge({ issuer: 'https://third.example' }), { accounts: 0 })
    const shown = await service.operate('GET', `/admin/accounts/${account}`)
    t.match(shown.json(), { rows: [{ accountIssuer: null }, { accountIssuer: null }, { accountIssuer: null }] })
    t.match(await purge({ dryRun: false }), { accounts: 2, rows: 3 })
    t.same(await service.rows(), [])
    t.match((await service.operate('GET', '/admin/records?limit=1')).json(), {
      records: [{ matchedAccounts: [{ accountIssuer: null }, { accountIssuer: null }] }]
    })
  }
)

t.test('a purge by an issuer keeps a login out that was under way at another one of its group', async (t) => {
  const service = await setUp(t)
  await service.operate('POST', '/admin/purges', { homeAccountId: 'v.t1', issuer: tenant(1), reason })
  const login = { homeAccountId: 'v.t1', sid: 's1' }
  t.match(await service.login({ ...login, issuer: tenant(2) }), { accepted: false })
  t.match(await service.login(login), { accepted: true }, 'and none of another group')
})

t.test('an issuer group is an origin, and nothing that looks like it', async (t) => {
  const database = await createDatabase(t)
  const cases = [
    [tenant(1), `${microsoft}/*`],
    ['HTTPS://Login.MicrosoftOnline.com/x', `${microsoft}/*`],
    [microsoft, `${microsoft}/*`],
    [`${microsoft}?x#y`, `${microsoft}/*`],
    [`${microsoft}:444/x`, `${microsoft}:444/*`],
    ['http://login.microsoftonline.com/x', 'http://login.microsoftonline.com/*'],
    [`${microsoft}@evil.example/x`, `${microsoft}@evil.example/*`],
    [`${microsoft}.evil.example/x`, `${microsoft}.evil.example/*`],
    [`${microsoft}\\@evil.example`, `${microsoft}\\@evil.example/*`],
    ['urn:issuer:x', 'urn:issuer:x/*'],
    ['an issuer', 'an issuer/*']
  ]
  for (const [issuer, group] of cases) {
    t.same(await database.query('select msal_logout.issuer_group($1) as group', [issuer]), [{ group }])
  }
  await t.rejects(
    database.query(`select msal_logout.login('a', 'x', 'x', $1, 's', 'x', 1000, '{}', 'json', '1 hour')`, [
      `${microsoft}/*`
    ]),
    { code: '22023', message: /"issuer" must not end in "\/\*"/ }
  )
})

t.test('issuers that the owner of the schema has share accounts have one account between them', async (t) => {
  const service = await setUp(t)
  const custom = 'https://login.contoso.example/b/v2.0'
  const login = { clientId: 'c', homeAccountId: account, issuer: custom, sid: 's2', subject: 'u-c' }
  await service.login(login)
  await service.database.query('select msal_logout.share_accounts($1, $2)', [tenant(1), custom])
  t.match(await service.login({ ...login, clientId: 'a', subject: 'u' }), { accepted: true, version: '2' })
  await service.operate('POST', '/admin/purges', { issuer: custom, sid: 's2', reason })
  t.same(await service.rows(), [], 'also what was stored before')
  t.match(await service.login({ ...login, sid: null, clientId: 'd' }), { accepted: false }, 'and what was ended before')
  t.match(await service.login({ ...login, sid: null, issuer: tenant(2), clientId: 'd' }), { accepted: false })
  await service.database.query('select msal_logout.share_accounts($1, $2)', [custom, 'https://third.example'])
  const groups = await service.database.query(
    'select distinct msal_logout.issuer_group(i) as group from unnest($1::text[]) i',
    [[tenant(1), custom, 'https://third.example/x']]
  )
  t.equal(groups.length, 1, 'a further one joins the group')
  await t.rejects(service.database.query('select msal_logout.share_accounts($1)', [custom]), {
    message: /two issuers or more/
  })
})

t.test('what was ended before issuers share accounts stays ended', async (t) => {
  const service = await setUp(t)
  await service.operate('POST', '/admin/purges', { homeAccountId: account, issuer: tenant(1), reason })
  const custom = 'https://login.contoso.example/b/v2.0'
  await service.database.query('select msal_logout.share_accounts($1, $2)', [custom, tenant(1)])
  t.match(await service.login({ homeAccountId: account, issuer: custom, sid: 's9' }), { accepted: false })
})

t.test('a login that is under way when issuers begin to share accounts is of their group, too', async (t) => {
  const service = await build(t)
  const custom = 'https://login.contoso.example/b/v2.0'
  const login = await service.database.pool.connect()
  t.teardown(() => login.release())
  await login.query('begin')
  await login.query(`select msal_logout.login('a', 'u.t1', 'u.t1', $1, 's1', 'u', $2, '{}', 'json', '1 hour')`, [
    custom,
    nowSeconds() - 60
  ])
  const sharing = service.database.query('select msal_logout.share_accounts($1, $2)', [tenant(1), custom])
  await until('the owner waits for the login', async () => {
    const waiting = await service.database.query(
      `select from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()`
    )
    return waiting.length > 0
  })
  await login.query('commit')
  await sharing
  const groups = await service.database.query('select account_issuer from msal_logout.token_cache')
  t.same(groups, [{ account_issuer: `${microsoft}/*` }])
})

t.test('a login that waits for share_accounts is stored under the group that it made', async (t) => {
  const service = await build(t)
  const custom = 'https://login.contoso.example/b/v2.0'
  const app = await service.database.pool.connect()
  t.teardown(() => app.release())
  const login = (user: string) =>
    app.query(`select msal_logout.login('a', $1, $1, $2, $1, 'u', $3, '{}', 'json', '1 hour')`, [
      user,
      custom,
      nowSeconds() - 60
    ])
  for (const user of ['v1.t1', 'v2.t1', 'v3.t1']) {
    await login(user) // the plans are made, which takes locks of its own the first time
  }
  const owner = await service.database.pool.connect()
  t.teardown(() => owner.release())
  await owner.query('begin')
  await owner.query('select msal_logout.share_accounts($1, $2)', [tenant(1), custom])
  const late = login('u.t1')
  await untilSomebodyWaits(service)
  await owner.query('commit')
  await late
  const groups = await service.database.query('select distinct account_issuer from msal_logout.token_cache')
  t.same(groups, [{ account_issuer: `${microsoft}/*` }])
})

t.test('a sign-out beside share_accounts ends what it found', async (t) => {
  const service = await build(t)
  const custom = 'https://login.contoso.example/b/v2.0'
  await service.login({ clientId: 'a', homeAccountId: 'u.t1', issuer: custom, sid: 's1', subject: 'u' })
  const owner = await service.database.pool.connect()
  t.teardown(() => owner.release())
  await owner.query('begin')
  await owner.query('select msal_logout.share_accounts($1, $2)', [tenant(1), custom])
  const purge = service.operate('POST', '/admin/purges', { issuer: custom, sid: 's1', reason, force: true })
  await untilSomebodyWaits(service)
  await owner.query('commit')
  t.match((await purge).json(), { sessions: 1, rows: 1 })
  t.same(await service.rows(), [])
})

t.test('share_accounts waits for a row that an app holds, and holds up no sign-out meanwhile', async (t) => {
  const service = await build(t)
  const custom = 'https://login.contoso.example/b/v2.0'
  for (const user of ['held', 'free']) {
    await service.login({ clientId: 'a', homeAccountId: `${user}.t1`, issuer: custom, sid: user, subject: user })
  }
  const app = await service.database.pool.connect()
  t.teardown(() => app.release())
  await app.query('begin') // and no login: nothing of it holds the groups
  const saved = await app.query(
    `select msal_logout.save(client_id, partition_key, generation, version, '{}', 'json', '1 hour') as row
    from msal_logout.token_cache where home_account_id = 'held.t1'`
  )
  t.match(saved.rows, [{ row: '(saved,2)' }])
  const sharing = service.database.query('select msal_logout.share_accounts($1, $2)', [tenant(1), custom])
  await untilSomebodyWaits(service)
  const purge = { issuer: custom, sid: 'free', reason, force: true }
  t.match((await service.operate('POST', '/admin/purges', purge)).json(), { sessions: 1, rows: 1 })
  await app.query('commit')
  await sharing
  const groups = await service.database.query('select account_issuer from msal_logout.token_cache')
  t.same(groups, [{ account_issuer: `${microsoft}/*` }], 'and is done then')
})

async function untilSomebodyWaits(service: Service): Promise<void> {
  await until('somebody waits for a lock', async () => {
    const waiting = await service.database.query(
      `select from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()`
    )
    return waiting.length > 0
  })
}

t.test('nobody but the owner of the schema says who shares accounts', async (t) => {
  const database = await createDatabase(t)
  const app = await createRole(database, 'app')
  const service = await createRole(database, 'service')
  await database.query('select msal_logout.register_app($1, $2), msal_logout.register_service($3)', ['a', app, service])
  for (const role of [app, service]) {
    const client = await database.pool.connect()
    await client.query(`set role ${role}`)
    for (const statement of [
      `select msal_logout.share_accounts('https://a.example', 'https://b.example')`,
      'select * from msal_logout.issuer_groups',
      `insert into msal_logout.issuer_groups values ('https://a.example', 'https://b.example/*')`
    ]) {
      await t.rejects(client.query(statement), { code: '42501' }, statement)
    }
    await client.query('reset role')
    client.release()
  }
})

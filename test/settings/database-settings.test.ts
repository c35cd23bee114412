// What a role or a database may be set to, and what all of it must work under: as many settings at once as go together, or
// each by itself with SETTINGS=each (`npm run test:settings`).
import { randomBytes } from 'node:crypto'
import { readdirSync, readFileSync } from 'node:fs'
import pg from 'pg'
import t, { type Test } from 'tap'
import { createPool } from '../../src/database.ts'
import { serverUrl } from '../fixtures/database.ts'
import { clientId } from '../fixtures/identity-provider.ts'
import { onServer } from '../fixtures/postgres-server.ts'
import { build, type Service, storeLogin } from '../fixtures/service.ts'

type Settings = Readonly<Record<string, string>>

const settings: [name: string, settings: Settings][] = [
  ['none', {}],
  ['German dates', { DateStyle: 'German, DMY' }],
  ['SQL dates', { DateStyle: 'SQL, DMY' }],
  ['PostgreSQL dates', { DateStyle: 'Postgres, DMY' }],
  ['SQL intervals', { IntervalStyle: 'sql_standard' }],
  ['ISO intervals', { IntervalStyle: 'iso_8601' }],
  ['a time zone with a quarter of an hour', { TimeZone: 'Asia/Kathmandu' }],
  ['a time zone of its own making', { TimeZone: '<X>+05:13' }],
  ['few digits', { extra_float_digits: '-15' }],
  ['escaped bytes', { bytea_output: 'escape' }],
  ['backslashes that escape', { standard_conforming_strings: 'off', escape_string_warning: 'on' }],
  ['arrays without null', { array_nulls: 'off' }],
  ['null that equals', { transform_null_equals: 'on' }],
  ['a search path elsewhere', { search_path: 'elsewhere, pg_catalog' }],
  ['no search path', { search_path: '""' }],
  ['serializable transactions', { default_transaction_isolation: 'serializable' }],
  ['repeatable reads', { default_transaction_isolation: 'repeatable read' }],
  ['commits that do not wait', { synchronous_commit: 'off' }],
  ['strict PL/pgSQL', { 'plpgsql.extra_errors': 'all', 'plpgsql.extra_warnings': 'all' }],
  ['plans that are made anew', { plan_cache_mode: 'force_custom_plan' }],
  ['an encoding of its own', { client_encoding: 'LATIN1' }],
  ['messages in plenty', { client_min_messages: 'debug5' }],
  ['identifiers in quotation marks', { quote_all_identifiers: 'on' }],
  ['connections that end when idle', { idle_session_timeout: '300ms' }]
]
const ofTheServiceAlone: [name: string, settings: Settings][] = [
  ['short limits', { statement_timeout: '100ms', lock_timeout: '1ms', idle_in_transaction_session_timeout: '1ms' }]
]

/** Puts settings together, but for those that would take the place of others. */
function combine(all: typeof settings): typeof settings {
  const combined: [name: string, settings: Settings][] = []
  for (const [name, set] of all) {
    const free = combined.findIndex(([, taken]) => Object.keys(set).every((key) => !(key in taken)))
    const [names, taken] = combined[free] ?? []
    combined.splice(free < 0 ? combined.length : free, 1, [
      names === undefined ? name : `${names}, ${name}`,
      { ...taken, ...set }
    ])
  }
  return combined
}

interface SetUp {
  readonly service: Service
  readonly app: pg.Pool
}

/** The service and an app, each with a role of its own that is set so. */
async function setUp(t: Test, ofService: Settings, ofApp: Settings): Promise<SetUp> {
  const roles = ['service', 'app'].map(
    (prefix) => `${prefix}_${process.env.TEST_RUN}_${randomBytes(6).toString('hex')}`
  )
  const [serviceRole = '', appRole = ''] = roles
  const created: string[] = []
  t.teardown(async () => {
    for (const role of created) {
      await onServer(serverUrl(), `drop role ${role}`)
    }
  })
  for (const [role, set] of [
    [serviceRole, ofService],
    [appRole, ofApp]
  ] as const) {
    await onServer(serverUrl(), `create role ${role} login password 'test'`)
    created.push(role)
    for (const [name, value] of Object.entries(set)) {
      await onServer(
        serverUrl(),
        `alter role ${role} set ${name} = ${value === '""' ? `''` : value.includes(', ') ? value : `'${value}'`}`
      )
    }
  }
  const as = (url: string, role: string) => Object.assign(new URL(url), { username: role, password: 'test' }).href
  const service = await build(t, {
    openPool: (url, options) => createPool({ ...options, connectionString: as(url, serviceRole) })
  })
  t.teardown(async () => {
    for (const role of created) {
      await service.database.query(`drop owned by ${role}`)
    }
  })
  await service.database.query('select msal_logout.register_service($1)', [serviceRole])
  await service.database.query('select msal_logout.register_app($1, $2)', [clientId, appRole])
  const app = new pg.Pool({ connectionString: as(service.database.url, appRole), max: 8 })
  app.on('error', () => {})
  t.teardown(() => app.end())
  return { service, app }
}

// Every byte, and what looks like an escape.
const bytes = Buffer.from([...Array.from({ length: 256 }, (_, i) => i), ...Buffer.from("\\x41\\\\'\\000")])
const isTime = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/
const recently = (time: string) => Math.abs(Date.parse(time) - Date.now()) < 600_000

async function doAll(t: Test, { service, app }: SetUp): Promise<void> {
  const { issuer } = service.provider
  const login = (sid: string, account: string, more: object = {}) =>
    storeLogin(
      { ...service.database, query: async (text, values) => (await app.query(text, values)).rows },
      {
        issuer,
        sid,
        subject: `sub-${sid}`,
        homeAccountId: account,
        ...more
      }
    )
  const one = async (text: string, values: unknown[]) => (await app.query(text, values)).rows[0]

  const first = await login('s1', 'u1.t1')
  t.match(first, { accepted: true, version: '1' }, 'a login is stored')
  for (const i of [2, 3, 4, 5]) {
    await login(`s${i}`, `u${i}.${i < 4 ? 't1' : 't2'}`)
  }
  t.match(
    await one('select * from msal_logout.save($1, $2, $3, $4, $5, $6, $7::interval)', [
      clientId,
      'u1.t1',
      first.generation,
      first.version,
      bytes,
      'bin',
      '3600 seconds'
    ]),
    { outcome: 'saved', version: '2' }
  )
  t.match(
    await one('select * from msal_logout.save($1, $2, $3, $4, $5, $6, $7::interval)', [
      clientId,
      'u1.t1',
      first.generation,
      first.version,
      bytes,
      'bin',
      '3600 seconds'
    ]),
    { outcome: 'conflict' }
  )
  const loaded = await one('select * from msal_logout.load($1, $2)', [clientId, 'u1.t1'])
  t.match(loaded, { generation: first.generation, version: '2', encoding: 'bin' })
  t.ok(bytes.equals(loaded.payload), 'a payload comes back byte by byte')
  const [row] = await service.database.query<{ seconds: number; tenant: string }>(
    `select round(extract(epoch from expires_at - updated_at))::int as seconds, tenant_id as tenant
    from msal_logout.token_cache where partition_key = 'u1.t1'`
  )
  t.same(row, { seconds: 3_600, tenant: 't1' })
  const isActive = async (sid: string) =>
    (await one('select msal_logout.session_active($1, $2, $3) as active', [clientId, issuer, sid])).active
  t.equal(await isActive('s1'), true)
  t.match(
    await one('select msal_logout.add_session($1, $2, $3, $4, $5, $6) as added', [
      clientId,
      'u1.t1',
      'https://other.example',
      's9',
      'sub-9',
      Math.floor(Date.now() / 1_000)
    ]),
    { added: true }
  )
  await app.query(`select msal_logout.store_app($1, 'own', $2, 'bin', '1 hour')`, [clientId, bytes])
  const begin = (await one('select max(position) as position from msal_logout.ended_since($1, null)', [clientId]))
    .position

  t.equal((await service.post(await service.provider.logoutToken({ sid: 's1' }))).statusCode, 200, 'a sign-out is done')
  t.equal(await one('select * from msal_logout.load($1, $2)', [clientId, 'u1.t1']), undefined)
  t.match(
    await one('select * from msal_logout.save($1, $2, $3, $4, $5, $6, $7::interval)', [
      clientId,
      'u1.t1',
      first.generation,
      '2',
      bytes,
      'bin',
      '3600 seconds'
    ]),
    { outcome: 'gone' }
  )
  t.equal(await isActive('s1'), false)
  t.match(await login('s1', 'u1.t1'), { accepted: false }, 'a login that was issued before comes too late')
  t.match(
    await one('select sid, home_account_id as id, at from msal_logout.ended_since($1, $2) where sid = $3', [
      clientId,
      begin ?? 0,
      's1'
    ]),
    { sid: 's1', id: 'u1.t1' }
  )

  const many = await Promise.all(
    ['s2', 's2', 's2', 's3'].map(async (sid) => service.post(await service.provider.logoutToken({ sid })))
  )
  t.same(
    many.map(({ statusCode }) => statusCode),
    [200, 200, 200, 200],
    'sign-outs of one session at once are done'
  )

  const purge = (selector: object) => service.operate('POST', '/admin/purges', { ...selector, reason: 'x' })
  t.match((await purge({ homeAccountId: 'u4.t2', dryRun: true })).json(), { accounts: 1, rows: 1 })
  t.match((await purge({ homeAccountId: 'u4.t2' })).json(), { accounts: 1, rows: 1 })
  const account = (await service.operate('GET', '/admin/accounts/u5.t2')).json()
  t.match(account, {
    rows: [{ createdAt: isTime, updatedAt: isTime, expiresAt: isTime }],
    sessions: [{ sid: 's5', issuedAt: isTime }]
  })
  const {
    rows: [{ createdAt }]
  } = account as { rows: [{ createdAt: string }] }
  t.ok(recently(createdAt), createdAt)
  t.match((await purge({ tenantId: 't2' })).json(), { accounts: 1, rows: 1 }, 'a sweep is done')
  t.match((await purge({ clientId })).json(), { rows: 1 })
  t.same(await service.rows(), [])

  const listed = (await service.operate('GET', '/admin/records?limit=100')).json() as {
    records: { at: string; source: string }[]
  }
  t.equal(listed.records.filter(({ source }) => source !== 'backchannel').length, 3, 'what operators did')
  t.ok(listed.records.length >= 6)
  t.ok(
    listed.records.every(({ at }) => isTime.test(at) && recently(at)),
    'each record has its time'
  )
  const [newest] = listed.records.slice(0, 1) as unknown as { id: string }[]
  const rest = (await service.operate('GET', `/admin/records?limit=100&before=${newest?.id}`)).json()
  t.equal((rest as { records: unknown[] }).records.length, listed.records.length - 1)
  const stats = (await service.operate('GET', '/admin/stats?minutes=5')).json()
  t.match(JSON.stringify(stats), /"backchannel":[1-9]|"source":"backchannel"/)
  t.equal((await service.admin.inject('/readyz')).statusCode, 200)
  t.ok((await service.stores.slow.cleanUp(100)) !== undefined, 'what has expired is removed')
}

for (const [name, set] of process.env.SETTINGS === 'each' ? settings : combine(settings)) {
  t.test(`all works under ${name}`, async (t) => {
    await doAll(t, await setUp(t, set, set))
  })
}
for (const [name, set] of ofTheServiceAlone) {
  t.test(`all works where the service's role has ${name}`, async (t) => {
    await doAll(t, await setUp(t, set, {}))
  })
}

t.test('whatever the levels of isolation, a refresh or a login beside a sign-out loses or comes first', async (t) => {
  for (const level of ['serializable', 'repeatable read']) {
    const { service, app } = await setUp(
      t,
      { default_transaction_isolation: level },
      { default_transaction_isolation: level }
    )
    const { issuer } = service.provider
    const login = (issuedAt: number) =>
      app.query('select * from msal_logout.login($1, $2, $2, $3, $4, $5, $6, $7, $8, $9::interval)', [
        clientId,
        'u.t',
        issuer,
        's1',
        'sub',
        issuedAt,
        Buffer.from('{}'),
        'json',
        '1 hour'
      ])
    for (let round = 0; round < 10; round++) {
      const issuedAt = Math.floor(Date.now() / 1_000) - 60
      await service.database.query('truncate msal_logout.tombstones')
      await login(issuedAt)
      const token = await service.provider.logoutToken({ sid: 's1' })
      const [answer] = await Promise.all([
        service.post(token),
        ...[1, 2, 3, 4].map(() =>
          login(issuedAt).catch((error: { code: string }) => {
            t.match(error.code, /^40001$/, 'one that lost may be tried again')
          })
        )
      ])
      t.equal(answer.statusCode, 200)
      t.same(await service.rows(), [])
      t.match((await login(issuedAt)).rows, [{ accepted: false }], 'and tried again it is told why')
    }
  }
})

t.test('a database that is set to take no writes is an outage, and nothing is lost', async (t) => {
  const { service } = await setUp(t, { default_transaction_read_only: 'on' }, {})
  await service.login({ sid: 's1' })
  const answer = await service.post(await service.provider.logoutToken({ sid: 's1' }))
  t.equal(answer.statusCode, 503)
  t.equal((await service.admin.inject('/readyz')).statusCode, 503)
  t.equal((await service.rows()).length, 1)
})

for (const folder of ['migrations', 'sql']) {
  const files = readdirSync(folder).filter((file) => file.endsWith('.sql'))
  t.test(`what stands in ${folder}/ means the same under every setting`, async (t) => {
    t.not(files.length, 0)
    for (const file of files) {
      const text = readFileSync(`${folder}/${file}`, 'utf8')
      t.match(text, /^[\t\n\x20-\x7e]*$/, `${file} is ASCII: a database may have another encoding`)
      const code = text.replace(/--.*$/gm, '')
      t.notMatch(
        code,
        /'[^'\n]*\\[^'\n]*'/,
        `${file}: a backslash in a literal means something else under standard_conforming_strings = off`
      )
      t.notMatch(
        code,
        /do update set[^;]*\bnow\(\)/,
        `${file}: a cluster takes no now() in "do update set": use a variable`
      )
    }
  })
}

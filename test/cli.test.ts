import { randomUUID } from 'node:crypto'
import t, { type Test } from 'tap'
import { freePort } from '../src/embedded-postgres.ts'
import { type Called, type CallOptions, call, startCall } from './fixtures/command-line.ts'
import { createDatabase, createRole } from './fixtures/database.ts'
import { adminToken, build, type Service } from './fixtures/service.ts'

const issuer = 'https://issuer.example'
const nobodysUrl = 'http://127.0.0.1:9'

type Purge = (args: string, options?: CallOptions) => Promise<Called>

/** Runs `purge` as an operator of this service; a word with a blank stands in double quotes. */
function purgeAt(t: Test, url: string): Purge {
  return (args, options) => call(t, ['purge', ...words(args)], { env: operator(url), ...options })
}

function words(line: string): string[] {
  return [...line.matchAll(/"([^"]*)"|(\S+)/g)].map(([, quoted, bare]) => quoted ?? bare ?? '')
}

function operator(url: string): Record<string, string> {
  return { ADMIN_TOKEN: adminToken, ADMIN_URL: url }
}

/** The service, with two rows of one account and one of another. */
async function setUp(t: Test): Promise<Service & { url: string; purge: Purge; countPurges(): Promise<number> }> {
  const service = await build(t)
  await service.login({ clientId: 'client-a', homeAccountId: 'u.t', sid: 's1' })
  await service.login({ clientId: 'client-b', homeAccountId: 'u.t', sid: 's1' })
  await service.login({ clientId: 'client-a', homeAccountId: 'v.t', sid: 's2' })
  const url = await service.admin.listen({ host: '127.0.0.1', port: 0 })
  return { ...service, url, purge: purgeAt(t, url), countPurges: async () => (await recorded(service)).length }
}

async function recorded({ operate }: Service): Promise<unknown[]> {
  const answer = await operate('GET', '/admin/purges')
  return (answer.json() as { records: unknown[] }).records
}

const account = '--home-account-id u.t --reason "laptop stolen"'

t.test('a purge shows what would go, asks, and is carried out on yes', async (t) => {
  const service = await setUp(t)
  const { code, stdout, stderr } = await service.purge(account, { answer: 'y' })
  t.equal(code, 0, stderr)
  t.match(stderr, /accounts +1\n +sessions +2\n +rows +2\n +client-a +1\n +client-b +1\nPurge it\? \[y\/N\]/)
  t.match(stdout, /^purged:\n +accounts +1\n/)
  t.same(await service.rows(), ['client-a/v.t'])
  t.match(await recorded(service), [{ id: /.+/, reason: 'laptop stolen', actor: 'admin-token' }])
})

t.test('with a dry run, on anything but yes, or with nobody to ask, nothing is done', async (t) => {
  const { purge, database } = await setUp(t)
  const before = await database.snapshot()
  const cases: [args: string, answer: string | undefined, code: number, stream: 'stdout' | 'stderr', text: RegExp][] = [
    ['--dry-run', undefined, 0, 'stdout', /^this would be purged:\n +accounts +1\n/],
    [
      '--dry-run --json',
      undefined,
      0,
      'stdout',
      /^\{"outcome":"dry_run","accounts":1,"sessions":2,"rows":2,"rowsByClient":\{"client-a":1,"client-b":1\}\}\n$/
    ],
    ['', 'n', 2, 'stderr', /error: nothing was done/],
    ['', '', 2, 'stderr', /error: nothing was done/],
    ['', undefined, 2, 'stderr', /without a terminal.*--yes/],
    ['--json', undefined, 2, 'stdout', /^\{"outcome":"refused","code":"not_confirmed",.*\}\n/]
  ]
  for (const [args, answer, code, stream, text] of cases) {
    const called = await purge(`${account} ${args}`, answer === undefined ? {} : { answer })
    t.equal(called.code, code, args)
    t.match(called[stream], text)
  }
  t.same(await database.snapshot(), before)
})

t.test('every selector reaches the service', async (t) => {
  const { purge, provider, rows } = await setUp(t)
  const left: [selector: string, outcome: 'done' | 'unmatched', rows: string[]][] = [
    [`--issuer ${provider.issuer} --sid s2`, 'done', ['client-a/u.t', 'client-b/u.t']],
    ['--client-id client-b', 'done', ['client-a/u.t']],
    [`--home-account-id nobody.t --issuer ${provider.issuer}`, 'unmatched', ['client-a/u.t']],
    [`--issuer ${provider.issuer} --subject subject`, 'done', []],
    ['--tenant-id t', 'unmatched', []]
  ]
  for (const [selector, outcome, expected] of left) {
    const { code, stdout, stderr } = await purge(`${selector} --reason test --yes --json`)
    t.equal(code, outcome === 'done' ? 0 : 3, stderr)
    t.match(JSON.parse(stdout), { outcome, id: /-/ })
    t.same(await rows(), expected)
  }
})

t.test('a directory object and a time reach the service', async (t) => {
  const { purge, login, rows } = await setUp(t)
  const now = Math.floor(Date.now() / 1_000)
  const object = { oid: 'object-1', tid: 'tenant-1' }
  await login({ clientId: 'client-a', homeAccountId: 'w.t', sid: 's3', ...object, issuedAt: now - 7_200 })
  await login({ clientId: 'client-b', homeAccountId: 'w.t', sid: 's4', ...object, issuedAt: now - 600 })
  const command = '--tenant-id tenant-1 --object-id object-1 --reason test --yes --json'
  for (const [issuedBefore, expected] of [
    [String(now - 3_600), 0],
    [new Date((now - 3_500) * 1_000).toISOString(), 3] // of what is left all was issued later
  ] as const) {
    const { code, stderr } = await purge(`${command} --issued-before ${issuedBefore}`)
    t.equal(code, expected, stderr)
    t.same(await rows(), ['client-a/u.t', 'client-a/v.t', 'client-b/u.t', 'client-b/w.t'])
  }
  const later = await purge(`${command} --issued-before ${now - 3_500} --dry-run`)
  t.match(JSON.parse(later.stdout), { near: ['account "w.t" is stored, and all of it was issued later'] })
  const { stdout } = await purge(command)
  t.match(JSON.parse(stdout), { outcome: 'done', accounts: 1, rows: 1 })
  for (const wrong of [`${account} --issued-before tomorrow`, `--tenant-id t --issued-before ${now} --reason test`]) {
    t.match(await purge(wrong), { code: 2, stderr: /error: --issued-before takes an ISO time with a zone or seconds/ })
  }
})

t.test('the same command with the same key does nothing twice', async (t) => {
  const { purge, countPurges, login } = await setUp(t)
  const command = `${account} --yes --json --idempotency-key ticket-4711`
  const first = await purge(command)
  await login({ homeAccountId: 'u.t', sid: 's3', issuedAt: Math.floor(Date.now() / 1_000) + 60 })
  const second = await purge(command)
  t.same(JSON.parse(second.stdout), JSON.parse(first.stdout))
  t.equal(await countPurges(), 1)
})

t.test('wrong usage is answered in a line, with what to do, and exits with 2', async (t) => {
  const purge = purgeAt(t, nobodysUrl)
  const cases: [args: string, text: RegExp][] = [
    ['--reason test', /give one of --home-account-id, --user, --sid/],
    ['--reason test --client-id a --tenant-id b', /--client-id and --tenant-id do not go together/],
    ['--reason test --sid s', /--sid says nothing without its issuer: add --issuer/],
    [`--reason test --client-id a --issuer ${issuer}`, /--client-id takes no --issuer/],
    ['--reason test --object-id o', /--object-id says nothing without its tenant: add --tenant-id/],
    ['--reason test --object-id o --tenant-id t --client-id a', /--object-id and --client-id do not go together/],
    [`--reason test --object-id o --tenant-id t --issuer ${issuer}`, /--object-id takes no --issuer/],
    ['--client-id a', /add --reason/],
    [`${account} --url localhost`, /--url or ADMIN_URL is no URL/],
    [`${account} --url http://a:b@localhost`, /without credentials/],
    [`${account} --wait long`, /--wait takes a number/],
    [`${account} --idempotency-key "Schlüssel €"`, /--idempotency-key takes 1 to 255/],
    [`--follow ${randomUUID()} --client-id a`, /--follow begins nothing anew, and takes no --client-id/],
    [`--follow ${randomUUID()} --dry-run`, /takes no --dry-run/],
    [`--follow ${randomUUID()} --object-id o`, /takes no --object-id/],
    [`--follow ${randomUUID()} --issued-before 1`, /takes no --issued-before/],
    [`${account} --token-file /nowhere`, /"\/nowhere" of --token-file cannot be read/]
  ]
  for (const [args, text] of cases) {
    const { code, stdout, stderr } = await purge(args)
    t.equal(code, 2, args)
    t.match(stderr, /^error: [^\n]+\n$/)
    t.match(stderr, text)
    t.equal(stdout, '')
  }
  t.match(await purge(account, { env: {} }), { code: 2, stderr: /set ADMIN_TOKEN, or give --token-file/ })
  t.match(await purge(account, { env: { ADMIN_TOKEN: 'two words' } }), { code: 2, stderr: /holds no token/ })
})

t.test('what the service rejects is answered with what to do', async (t) => {
  const { url, purge, login } = await setUp(t)
  t.match(await purge(account, { env: { ...operator(url), ADMIN_TOKEN: 'x'.repeat(32) } }), {
    code: 1,
    stderr: /does not accept the credentials: look at ADMIN_TOKEN/
  })
  await login({ homeAccountId: 'same', subject: 'same', issuer: `${issuer}/1` })
  await login({ homeAccountId: 'same', subject: 'same', issuer: `${issuer}/2`, clientId: 'client-b' })
  const ambiguous = await purge('--home-account-id same --reason test --yes --json')
  t.match(ambiguous, { code: 2, stderr: /add --issuer/ })
  t.match(JSON.parse(ambiguous.stdout), { outcome: 'refused', code: 'ambiguous_account' })
  for (let i = 0; i < 11; i++) {
    await login({ homeAccountId: `${i}.many` })
  }
  t.match(await purge('--tenant-id many --reason test', { answer: 'y', limits: { maxAccountsUnforced: 10 } }), {
    code: 2,
    stderr: /^error: this would purge 11 accounts, more than 10: add --force/
  })
  t.match(await purge('--follow 11111111-1111-4111-8111-111111111111'), { code: 1, stderr: /knows nothing of it/ })
  t.match(await purge(`${account} --url ${nobodysUrl} --yes --json --wait 0`), {
    code: 1,
    stdout: /"code":"unanswered"/,
    stderr: /nothing answers at http:\/\/127\.0\.0\.1:9/
  })
})

t.test('an order whose answer is lost is given again, and done once', async (t) => {
  const { purge, countPurges, admin } = await setUp(t)
  let lost = 0
  admin.server.prependListener('request', (request, response) => {
    if (request.headers['idempotency-key'] !== undefined && lost < 2) {
      lost += 1
      response.end = () => response.destroy() // done, but not answered
    }
  })
  const called = await purge(`${account} --yes --json --wait 30`)
  t.match(called, { code: 0, stderr: /nothing answers.*trying again for 30 s\nthe service answers again\n/ })
  t.equal(lost, 2)
  t.match(JSON.parse(called.stdout), { outcome: 'done', accounts: 1, rows: 2 })
  t.equal(await countPurges(), 1)
})

t.test('Ctrl-C before the answer to an order says how to take it up', async (t) => {
  const { url, admin, rows } = await setUp(t)
  const command = startCall(t, ['purge', ...words(`${account} --yes --json`)], { env: operator(url) })
  admin.server.prependListener('request', (request, response) => {
    if (request.headers['idempotency-key'] !== undefined) {
      response.end = () => {
        command.interrupt() // done, but not answered
        return response
      }
    }
  })
  t.equal(await command.exited, 130)
  t.match(command.output.stderr, /interrupted: the service may have begun: .*"--idempotency-key [-0-9a-f]{36}"/)
  t.match(JSON.parse(command.output.stdout), { outcome: 'interrupted', message: /--idempotency-key/ })
  t.same(await rows(), ['client-a/v.t'])
  admin.server.closeAllConnections()
})

t.test('what is not there ends with 3, and what comes close is shown', async (t) => {
  const { purge, login, provider, countPurges } = await setUp(t)
  const [oid, tid] = ['6f1c2a90-51f3-4a0e-9d6b-3f0d8a5f7c11', '0b54c7e2-93d1-4f5e-8a86-1d2c4e7b9a30'] as const
  const homeAccountId = `${oid}.${tid}`
  await login({ clientId: 'client-a', homeAccountId, sid: 'Sid-1', subject: 'pairwise', oid, tid })
  await login({ clientId: 'client-b', homeAccountId: 'AB12.cd34', sid: 'other', subject: 'of the other' })
  const cases: [selector: string, near: RegExp][] = [
    [`--home-account-id ${homeAccountId.toUpperCase()}`, /its letters are of another case/],
    [`--home-account-id ${oid.toUpperCase()}.${tid}`, /its letters are of another case/],
    ['--home-account-id ab12.cd34', /account "AB12.cd34" is stored: its letters are of another case/],
    ['--home-account-id cd34.ab12', /account "AB12.cd34" is stored: the two parts of the id are in the other order/],
    [`--home-account-id " ${homeAccountId} "`, /or there are blanks/],
    [`--home-account-id ${oid}`, /an id is <uid>\.<utid>, and this is the first part|this is its object id/],
    [`--home-account-id ${tid}.${oid}`, /the two parts of the id are in the other order/],
    ['--home-account-id pairwise', new RegExp(`this is its subject at "${provider.issuer}"; purge by both`)],
    ['--home-account-id Sid-1', /this is a sid of it at/],
    [`--sid Sid-1 --issuer ${provider.issuer}/`, /this is a sid of it at/],
    [`--sid sid-1 --issuer ${provider.issuer}`, /^nothing matched: neither a session nor a row is stored\n$/],
    [
      `--subject PAIRWISE --issuer ${provider.issuer}`,
      /is its subject at .*, but for the case of its letters or for blanks/
    ],
    [
      `--sid " Sid-1" --issuer ${provider.issuer}`,
      /is a sid of it at .*, but for the case of its letters or for blanks/
    ],
    [`--subject pairwise --issuer https://elsewhere.example`, /this is its subject at/],
    [`--object-id ${oid} --tenant-id 11111111-1111-4111-8111-111111111111`, new RegExp(`in the tenant ${tid}`)],
    ['--client-id CLIENT-A', /app "client-a" has rows/],
    [`--tenant-id ${tid.toUpperCase()}`, new RegExp(`tenant "${tid}" has rows`)],
    ['--home-account-id ada@example.com', /looks like an e-mail address: --user finds whose it is/]
  ]
  for (const [selector, near] of cases) {
    const { code, stdout, stderr } = await purge(`${selector} --reason test --dry-run`)
    t.equal(code, 3, `${selector}: ${stderr}`)
    t.match(stdout, /^nothing matched: neither a session nor a row is stored\n/, selector)
    t.match(stdout, near, selector)
  }
  const json = await purge(`--home-account-id ${oid} --reason test --dry-run --json`)
  t.match(JSON.parse(json.stdout), { outcome: 'unmatched', rows: 0, near: [/^account "/] })
  t.equal(await countPurges(), 0)

  const declined = await purge('--home-account-id nobody --reason test', { answer: 'n' })
  t.match(declined, {
    code: 2,
    stderr: /nothing matched.*Purge it all the same, so that no login under way is stored\?/s
  })
  const meant = await purge('--home-account-id nobody --reason test --yes')
  t.match(meant, { code: 3, stdout: /^nothing matched, and nothing was purged; the record of it is [-0-9a-f]{36}\n$/ })
  t.equal(await countPurges(), 1)
})

t.test('from an e-mail address to the account: by a directory, or by the clicks at the provider', async (t) => {
  const without = await setUp(t)
  const unknown = await without.purge('--user ada@example.com --reason test --json')
  t.equal(unknown.code, 3)
  t.match(JSON.parse(unknown.stdout), {
    outcome: 'unmatched',
    code: 'user_unknown',
    message: /no directory is configured to ask/
  })
  t.match(
    unknown.stderr,
    /main \(another provider\): the page of the user at the provider: .*; then purge by the issuer/
  )
  t.match(await without.purge('--user a --tenant-id t --reason test'), { code: 2, stderr: /do not go together/ })

  const [tenantId, objectId] = ['0b54c7e2-93d1-4f5e-8a86-1d2c4e7b9a30', '6f1c2a90-51f3-4a0e-9d6b-3f0d8a5f7c11'] as const
  const asked: string[] = []
  const service = await build(t, {
    edges: {
      async findPeople(name) {
        asked.push(name)
        const one = { tenantId, objectId }
        return name === 'ada@example.com' ? [one] : name === 'two' ? [one, { ...one, objectId: tenantId }] : []
      }
    }
  })
  await service.login({ homeAccountId: 'u.t', oid: objectId, tid: tenantId })
  const purge = purgeAt(t, await service.admin.listen({ host: '127.0.0.1', port: 0 }))
  t.match(await purge('--user nobody --reason test'), { code: 3, stderr: /no directory knows "nobody"/ })
  t.match(await purge('--user two --reason test'), {
    code: 2,
    stderr: /is the name of several: give "--tenant-id .* --object-id .*", or "--tenant-id/
  })
  const found = await service.operate('GET', '/admin/accounts?user=ada%40example.com')
  t.same(found.json(), {
    accounts: [{ homeAccountId: 'u.t', accountIssuer: null }],
    objects: [{ tenantId, objectId }],
    hasDirectory: true,
    clicks: []
  })
  t.equal((await service.operate('GET', '/admin/accounts?user=ada&issuer=x')).statusCode, 400)
  const done = await purge('--user ada@example.com --reason test --yes')
  t.match(done, { code: 0, stdout: /^purged:\n +accounts +1\n/ })
  t.same(await service.rows(), [])
  t.same(new Set(asked), new Set(['nobody', 'two', 'ada@example.com']))
})

t.test('a purge in the background is followed, outlives Ctrl-C, and --follow sees its end', async (t) => {
  const service = await build(t, { edges: { sweeps: { maxAccountsAwaited: 10, rowsPerStep: 2 } } })
  for (let i = 10; i < 21; i++) {
    await service.login({ homeAccountId: `${i}.many`, sid: `s${i}` })
  }
  const url = await service.admin.listen({ host: '127.0.0.1', port: 0 })
  // One of them held by somebody else, so that it is surely not done before the test is.
  const holder = await service.database.pool.connect()
  t.teardown(() => holder.release())
  await holder.query('begin')
  await holder.query(`select from msal_logout.token_cache where home_account_id = '20.many' for update`)

  const person = startCall(t, ['purge', ...words('--tenant-id many --reason "contract ended"')], {
    env: operator(url),
    answer: 'y'
  })
  await person.says(/#+-+ \d+% \| 10\/11 accounts/)
  person.interrupt()
  const [, id = ''] = await person.says(
    /the purge goes on at the service; follow it by: msal-logout purge --follow ([-0-9a-f]{36}) --url http:\/\/127/
  )
  t.equal(await person.exited, 130)

  const follower = startCall(t, ['purge', '--follow', id, '--json'], { env: operator(url) })
  await follower.says(/^10 of 11 accounts, 10 rows\n/)
  await holder.query('rollback')
  t.equal(await follower.exited, 0, follower.output.stderr)
  t.same(JSON.parse(follower.output.stdout), {
    outcome: 'done',
    id,
    accounts: 11,
    sessions: 11,
    rows: 11,
    rowsByClient: { 'client-a': 11 }
  })
  t.same(await service.rows(), [])
})

t.test('Ctrl-C at the question leaves all as it is', async (t) => {
  const { url, database } = await setUp(t)
  const before = await database.snapshot()
  const command = startCall(t, ['purge', ...words(account)], { env: operator(url), answer: null })
  await command.says(/Purge it\?/)
  command.interrupt()
  t.equal(await command.exited, 130)
  t.same(await database.snapshot(), before)
})

t.test('the command line suggests, says its version, and exits with 2 at what it does not know', async (t) => {
  const cases: [args: string, code: number, stream: 'stdout' | 'stderr', text: RegExp][] = [
    ['purge --isuer x', 2, 'stderr', /unknown option '--isuer'\n\(Did you mean --issuer\?\)/],
    ['serv', 2, 'stderr', /unknown command 'serv'\n\(Did you mean serve\?\)/],
    ['spool list --limit many', 2, 'stderr', /It takes a number/],
    ['--version', 0, 'stdout', /^\d+\.\d+\.\d+\n$/],
    ['purge --help', 0, 'stdout', /Exit codes:\n +0 +done/]
  ]
  for (const [args, code, stream, text] of cases) {
    const called = await call(t, words(args))
    t.equal(called.code, code, args)
    t.match(called[stream], text)
  }
})

t.test('the address of the operators is --url, else ADMIN_URL, else the usual one', async (t) => {
  const env = { ADMIN_TOKEN: adminToken }
  for (const [args, more, address] of [
    ['--url http://127.0.0.1:8', { ADMIN_URL: nobodysUrl }, 'http://127.0.0.1:8'],
    ['', { ADMIN_URL: nobodysUrl }, nobodysUrl],
    ['--url no-url', {}, '--url or ADMIN_URL']
  ] as const) {
    const { stderr } = await call(t, ['purge', ...words(`${account} --wait 0 ${args}`)], { env: { ...env, ...more } })
    t.ok(stderr.includes(address), address)
  }
  t.match(await call(t, ['purge', '--help']), { stdout: /--url <url> .*\n? .*\(default: http:\/\/127\.0\.0\.1:3001\)/ })
})

t.test('migrate brings the schema up to date, and says what it did', async (t) => {
  const { url, query } = await createDatabase(t, { migrated: false })
  t.match(await call(t, ['migrate'], { env: { DATABASE_URL: url } }), { code: 0, stdout: /^migrated: 001-/ })
  t.same(await query('select from msal_logout.token_cache'), [])
  t.match(await call(t, ['migrate'], { env: { DATABASE_URL: url } }), { code: 0, stdout: 'the schema is current\n' })
  const nowhere = `postgres://x:y@127.0.0.1:${await freePort()}/z`
  t.match(await call(t, ['migrate'], { env: { DATABASE_URL: nowhere } }), {
    code: 1,
    stderr: /^error: .*\(ECONNREFUSED\): "msal-logout check" says what to do\n$/
  })
})

t.test('migrate gives the role of the service what it needs, also again', async (t) => {
  const database = await createDatabase(t, { migrated: false })
  const role = await createRole(database, 'service')
  const args = ['migrate', '--register-service', role]
  const env = { DATABASE_URL: database.url }
  t.match(await call(t, args, { env }), { code: 0, stdout: `role "${role}" has what the service needs\n` })
  t.match(await call(t, args, { env }), { code: 0, stdout: /^the schema is current\nrole / })
  t.same(
    await database.query(
      `select has_table_privilege('${role}', 'msal_logout.records', 'select') as reads,
        has_column_privilege('${role}', 'msal_logout.token_cache', 'payload', 'select') as "readsTokens"`
    ),
    [{ reads: true, readsTokens: false }]
  )
  t.match(await call(t, ['migrate', '--register-service', 'nobody_at_all'], { env }), {
    code: 1,
    stderr: /^error: .*nobody_at_all/
  })
})

t.test('with --json, what cannot be done is one object, too', async (t) => {
  for (const [args, env, code, expected] of [
    ['purge --no-such', {}, 2, { outcome: 'refused', code: 'usage', message: "unknown option '--no-such'" }],
    ['spool list', { SPOOL_DIR: '/dev/null' }, 1, { outcome: 'failed', code: 'spool_unreadable' }],
    ['spool retry', {}, 1, { outcome: 'failed', code: 'ERR_CONFIGURATION' }]
  ] as const) {
    const called = await call(t, [...words(args), '--json'], { env })
    t.equal(called.code, code)
    t.match(JSON.parse(called.stdout), expected)
    t.match(called.stderr, /./, 'for a person, too')
  }
})

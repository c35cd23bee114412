import { randomUUID } from 'node:crypto'
import { existsSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { PassThrough, Writable } from 'node:stream'
import { setTimeout as delay } from 'node:timers/promises'
import pg from 'pg'
import t, { type Test } from 'tap'
import { type CommandSurroundings, type PurgeOptions, purge } from '../src/commands/purge.ts'
import { listSpool, replaySpool, toldListing } from '../src/commands/spool.ts'
import { readConfig } from '../src/config.ts'
import { freePort } from '../src/embedded-postgres.ts'
import { runCommand } from './fixtures/command-line.ts'
import { createDatabase, type Database } from './fixtures/database.ts'
import { createSigningKey } from './fixtures/identity-provider.ts'
import { startServer, temporaryFolder } from './fixtures/server.ts'
import { adminToken, build, type Service } from './fixtures/service.ts'

const issuer = 'https://issuer.example'

interface Told {
  readonly code: number
  readonly stdout: string
  readonly stderr: string
}

/** Runs `purge` in this process, as a person on a terminal who answers so, or without one. */
async function runPurge(
  t: Test,
  options: Partial<PurgeOptions>,
  {
    answer,
    env = { ADMIN_TOKEN: adminToken },
    signal = new AbortController().signal
  }: { answer?: string; env?: Record<string, string>; signal?: AbortSignal } = {}
): Promise<Told> {
  const output = { stdout: '', stderr: '' }
  const into = (name: keyof typeof output) =>
    new Writable({
      write(chunk, _encoding, done) {
        output[name] += String(chunk)
        done()
      }
    })
  const stdin = Object.assign(new PassThrough(), { isTTY: answer !== undefined })
  if (answer !== undefined) {
    stdin.end(`${answer}\n`)
  }
  const surroundings = {
    env,
    stdin,
    stdout: into('stdout'),
    stderr: Object.assign(into('stderr'), { isTTY: answer !== undefined }),
    signal
  } as unknown as CommandSurroundings
  const code = await purge({ url: 'http://127.0.0.1:9', wait: '0', ...options }, surroundings)
  t.notMatch(output.stdout + output.stderr, adminToken)
  return { code, ...output }
}

/** The service, with two rows of one account and one of another. */
async function setUp(t: Test): Promise<Service & { url: string }> {
  const service = await build(t)
  await service.login({ clientId: 'client-a', homeAccountId: 'u.t', sid: 's1' })
  await service.login({ clientId: 'client-b', homeAccountId: 'u.t', sid: 's1' })
  await service.login({ clientId: 'client-a', homeAccountId: 'v.t', sid: 's2' })
  return { ...service, url: await service.admin.listen({ host: '127.0.0.1', port: 0 }) }
}

const account: Partial<PurgeOptions> = { homeAccountId: 'u.t', reason: 'laptop stolen' }

t.test('a purge shows what would go, asks, and is carried out on yes', async (t) => {
  const { url, rows, database } = await setUp(t)
  const told = await runPurge(t, { ...account, url }, { answer: 'y' })
  t.equal(told.code, 0, told.stderr)
  t.match(told.stderr, /accounts +1\n +sessions +2\n +rows +2\n +client-a +1\n +client-b +1\nPurge it\? \[y\/N\]/)
  t.match(told.stdout, /^purged:\n +accounts +1\n/)
  t.same(await rows(), ['client-a/v.t'])
  t.match(await database.query('select id::text, reason, actor from msal_logout.purges'), [
    { id: /.+/, reason: 'laptop stolen', actor: 'admin-token' }
  ])
})

t.test('with a dry run, on anything but yes, or with nobody to ask, nothing is done', async (t) => {
  const { url, database } = await setUp(t)
  const before = await database.snapshot()
  const cases: [Partial<PurgeOptions>, string | undefined, number, RegExp][] = [
    [{ dryRun: true }, undefined, 0, /^this would be purged:\n +accounts +1\n/],
    [
      { dryRun: true, json: true },
      undefined,
      0,
      /^\{"outcome":"dry_run","accounts":1,"sessions":2,"rows":2,"rowsByClient":\{"client-a":1,"client-b":1\}\}\n$/
    ],
    [{}, 'n', 2, /error: nothing was done/],
    [{}, '', 2, /error: nothing was done/],
    [{}, undefined, 2, /without a terminal.*--yes/],
    [{ json: true }, undefined, 2, /^\{"outcome":"refused","code":"not_confirmed",.*\}\n/]
  ]
  for (const [options, answer, code, text] of cases) {
    const told = await runPurge(t, { ...account, ...options, url }, answer === undefined ? {} : { answer })
    t.equal(told.code, code)
    t.match(options.json || options.dryRun ? told.stdout : told.stderr, text)
  }
  t.same(await database.snapshot(), before)
})

t.test('every selector reaches the service', async (t) => {
  const { url, provider, rows } = await setUp(t)
  const left: [Partial<PurgeOptions>, string[]][] = [
    [{ issuer: provider.issuer, sid: 's2' }, ['client-a/u.t', 'client-b/u.t']],
    [{ clientId: 'client-b' }, ['client-a/u.t']],
    [{ homeAccountId: 'nobody.t', issuer: provider.issuer }, ['client-a/u.t']],
    [{ issuer: provider.issuer, subject: 'subject' }, []],
    [{ tenantId: 't' }, []]
  ]
  for (const [selector, expected] of left) {
    const told = await runPurge(t, { ...selector, reason: 'test', yes: true, json: true, url })
    t.equal(told.code, 0, told.stderr)
    t.match(JSON.parse(told.stdout), { outcome: 'done', id: /-/ })
    t.same(await rows(), expected)
  }
})

t.test('the same command with the same key does nothing twice', async (t) => {
  const { url, database, login } = await setUp(t)
  const options = { ...account, yes: true, json: true, url, idempotencyKey: 'ticket-4711' }
  const first = await runPurge(t, options)
  await login({ homeAccountId: 'u.t', sid: 's3', issuedAt: Math.floor(Date.now() / 1_000) + 60 })
  const second = await runPurge(t, options)
  t.same(JSON.parse(second.stdout), JSON.parse(first.stdout))
  t.same((await database.query('select from msal_logout.purges')).length, 1)
})

t.test('wrong usage is told in a line, with what to do, and exits with 2', async (t) => {
  const reason = 'test'
  const cases: [Partial<PurgeOptions>, RegExp][] = [
    [{ reason }, /give one of --home-account-id, --sid/],
    [{ reason, clientId: 'a', tenantId: 'b' }, /--client-id and --tenant-id do not go together/],
    [{ reason, sid: 's' }, /--sid says nothing without its issuer: add --issuer/],
    [{ reason, clientId: 'a', issuer }, /--client-id takes no --issuer/],
    [{ clientId: 'a' }, /add --reason/],
    [{ ...account, url: 'localhost' }, /--url or ADMIN_URL is no URL/],
    [{ ...account, url: 'http://a:b@localhost' }, /without credentials/],
    [{ ...account, wait: 'long' }, /--wait takes a number/],
    [{ ...account, idempotencyKey: 'Schlüssel €' }, /--idempotency-key takes 1 to 255/],
    [{ follow: randomUUID(), clientId: 'a' }, /--follow begins nothing anew, and takes no --client-id/],
    [{ follow: randomUUID(), dryRun: true }, /takes no --dry-run/],
    [{ ...account, tokenFile: '/nowhere' }, /"\/nowhere" of --token-file cannot be read/]
  ]
  for (const [options, text] of cases) {
    const { code, stdout, stderr } = await runPurge(t, options)
    t.equal(code, 2)
    t.match(stderr, /^error: [^\n]+\n$/)
    t.match(stderr, text)
    t.equal(stdout, '')
  }
  t.match(await runPurge(t, account, { env: {} }), { code: 2, stderr: /set ADMIN_TOKEN, or give --token-file/ })
  t.match(await runPurge(t, account, { env: { ADMIN_TOKEN: 'two words' } }), { code: 2, stderr: /holds no token/ })
})

t.test("the service's refusals are told with what to do", async (t) => {
  const { url, database, login } = await setUp(t)
  const wrong = await runPurge(t, { ...account, url }, { env: { ADMIN_TOKEN: 'x'.repeat(32) } })
  t.match(wrong, { code: 1, stderr: /does not accept the credentials: look at ADMIN_TOKEN/ })
  await login({ homeAccountId: 'same', subject: 'same', issuer: `${issuer}/1` })
  await login({ homeAccountId: 'same', subject: 'same', issuer: `${issuer}/2`, clientId: 'client-b' })
  const ambiguous = await runPurge(t, { homeAccountId: 'same', reason: 'test', yes: true, json: true, url })
  t.match(ambiguous, { code: 2, stderr: /add --issuer/ })
  t.match(JSON.parse(ambiguous.stdout), { outcome: 'refused', code: 'ambiguous_account' })
  await fill(database, 1_001)
  const many = await runPurge(t, { tenantId: 'many', reason: 'test', url }, { answer: 'y' })
  t.match(many, { code: 2, stderr: /^error: this would purge 1,001 accounts, more than 1,000: add --force/ })
  t.match(await runPurge(t, { follow: '11111111-1111-4111-8111-111111111111', url }), {
    code: 1,
    stderr: /knows nothing of it/
  })
  t.match(await runPurge(t, { ...account, yes: true, json: true }), {
    code: 1,
    stdout: /"code":"unanswered"/,
    stderr: /nothing answers at http:\/\/127\.0\.0\.1:9/
  })
})

t.test('an order whose answer is lost is given again, and done once', async (t) => {
  const { url, database, admin } = await setUp(t)
  let lost = 0
  admin.server.prependListener('request', (request, response) => {
    if (request.headers['idempotency-key'] !== undefined && lost < 2) {
      lost += 1
      response.end = () => response.destroy() // done, but not told
    }
  })
  const told = await runPurge(t, { ...account, yes: true, json: true, url, wait: '30' })
  t.match(told, { code: 0, stderr: /nothing answers.*trying again for 30 s\nthe service answers again\n/ })
  t.equal(lost, 2)
  t.match(JSON.parse(told.stdout), { outcome: 'done', accounts: 1, rows: 2 })
  t.equal((await database.query('select from msal_logout.purges')).length, 1)
})

t.test('Ctrl-C before the answer to an order tells how to take it up', async (t) => {
  const { url, admin, rows } = await setUp(t)
  const interruption = new AbortController()
  admin.server.prependListener('request', (request, response) => {
    if (request.headers['idempotency-key'] !== undefined) {
      response.end = () => {
        interruption.abort() // done, but not told
        return response
      }
    }
  })
  const options = { ...account, yes: true, json: true, url }
  const told = await runPurge(t, options, { signal: interruption.signal })
  t.match(told, { code: 130, stderr: /interrupted: the service may have begun: .*"--idempotency-key [-0-9a-f]{36}"/ })
  t.match(JSON.parse(told.stdout), { outcome: 'interrupted', message: /--idempotency-key/ })
  t.same(await rows(), ['client-a/v.t'])
  admin.server.closeAllConnections()
})

t.test('Ctrl-C at the question leaves all as it is', async (t) => {
  const { url, database } = await setUp(t)
  const before = await database.snapshot()
  const interruption = new AbortController()
  const stdin = Object.assign(new PassThrough(), { isTTY: true })
  const stderr = new Writable({
    write(chunk, _encoding, done) {
      if (String(chunk).includes('Purge it?')) {
        interruption.abort()
      }
      done()
    }
  })
  const code = await purge({ ...account, url, wait: '0' }, {
    env: { ADMIN_TOKEN: adminToken },
    stdin,
    stdout: new PassThrough(),
    stderr: Object.assign(stderr, { isTTY: true }),
    signal: interruption.signal
  } as unknown as CommandSurroundings)
  t.equal(code, 130)
  t.same(await database.snapshot(), before)
})

/** Accounts of the tenant `many`, each with a row and a session. */
async function fill(database: Database, accounts: number): Promise<void> {
  await database.query(
    `insert into msal_logout.token_cache (client_id, partition_key, kind, home_account_id, payload, encoding, expires_at)
    select 'client-' || i % 2, 'p' || i, 'user', lpad(i::text, 6, '0') || '.many', 'x', 'json', now() + interval '1 hour'
    from generate_series(1, $1::int) i`,
    [accounts]
  )
  await database.query(
    `insert into msal_logout.sessions (issuer, session_key, client_id, partition_key, sid, subject, account_issuer,
      home_account_id, issued_at, expires_at)
    select $2, 'sid=' || i, 'client-' || i % 2, 'p' || i, i::text, 's' || i, '', lpad(i::text, 6, '0') || '.many', 1,
      now() + interval '1 hour'
    from generate_series(1, $1::int) i`,
    [accounts, issuer]
  )
}

t.test('a large purge outlives Ctrl-C and a kill -9 of the service, and --follow sees its end', async (t) => {
  const accounts = Number(process.env.PURGE_ACCOUNTS ?? 10_200)
  const database = await createDatabase(t)
  await fill(database, accounts)
  await database.query(
    `select from msal_logout.login('client-0', 'other', 'u.other', $1, 's', 's', 1, 'x', 'json', interval '1 hour')`,
    [issuer]
  )
  const env = {
    DATABASE_URL: database.url,
    ISSUER: issuer,
    CLIENT_IDS: 'client-0',
    ADMIN_TOKEN: adminToken,
    PORT: String(await freePort()),
    ADMIN_PORT: String(await freePort())
  }
  const server = await startServer(t, env)
  const own = { ADMIN_TOKEN: adminToken, ADMIN_URL: server.adminUrl }

  // Half of it held by somebody else, so that it is surely not done before the test is.
  const holder = new pg.Client({ connectionString: database.url })
  await holder.connect()
  t.teardown(() => holder.end())
  await holder.query('begin')
  await holder.query('select from msal_logout.token_cache where tenant_id = $1 and home_account_id > $2 for update', [
    'many',
    String(accounts / 2).padStart(6, '0')
  ])

  const person = runCommand(t, ['purge', '--tenant-id', 'many', '--reason', 'contract ended', '--force'], own, {
    onTerminal: true
  })
  await person.says(/Purge it\? \[y\/N\]/)
  person.process.stdin?.write('y\r')
  await person.says(new RegExp(`#+-+ \\d+% \\| [1-9]\\d*/${accounts} accounts`))
  person.process.stdin?.write('\x03')
  const [, id = ''] = await person.says(
    /goes on at the service; follow it by: msal-logout purge --follow ([-0-9a-f]{36})/
  )
  t.equal(await person.exited, 130)

  const follower = runCommand(t, ['purge', '--follow', id, '--json'], own)
  await follower.says(new RegExp(`^\\d+ of ${accounts} accounts`))
  server.process.kill('SIGKILL')
  await server.exited
  await follower.says(/nothing answers at .*; trying again for 300 s/)
  const [halfway] = await database.query<{ status: string; left: boolean }>(
    `select status, exists (select from msal_logout.token_cache where tenant_id = 'many') as left from msal_logout.purges`
  )
  t.same(halfway, { status: 'running', left: true })

  await holder.query('rollback')
  await startServer(t, env)
  t.equal(await follower.exited, 0, follower.output.stderr)
  t.match(follower.output.stderr, /the service answers again/)
  const half = { 'client-0': Math.floor(accounts / 2), 'client-1': Math.ceil(accounts / 2) }
  const allByClient = Object.fromEntries(
    Object.entries(half).map(([app, n]) => [app, { accounts: n, sessions: n, rows: n }])
  )
  t.same(JSON.parse(follower.output.stdout), {
    outcome: 'done',
    id,
    accounts,
    sessions: accounts,
    rows: accounts,
    rowsByClient: half
  })
  t.same(await database.query('select home_account_id from msal_logout.token_cache'), [{ home_account_id: 'u.other' }])
  t.same(await database.query('select home_account_id from msal_logout.sessions'), [{ home_account_id: 'u.other' }])
  t.same(
    await database.query('select id, status, accounts::int, rows::int, total::int, by_client from msal_logout.purges'),
    [{ id, status: 'done', accounts, rows: accounts, total: accounts, by_client: allByClient }]
  )
})

t.test('the command line suggests, tells its version, and refuses what it does not know with 2', async (t) => {
  const cases: [string[], number, RegExp][] = [
    [['purge', '--isuer', 'x'], 2, /unknown option '--isuer'\n\(Did you mean --issuer\?\)/],
    [['serv'], 2, /unknown command 'serv'\n\(Did you mean serve\?\)/],
    [['--version'], 0, /^\d+\.\d+\.\d+\n$/],
    [['purge', '--help'], 0, /Exit codes:\n +0 +done/]
  ]
  await Promise.all(
    cases.map(async ([args, code, text]) => {
      const command = runCommand(t, args)
      t.equal(await command.exited, code)
      t.match(code === 0 ? command.output.stdout : command.output.stderr, text)
    })
  )
})

/** A spool with a verified token, one that nobody vouches for, a front-channel call, and one that was rejected. */
async function fillSpool(service: Service): Promise<void> {
  const { spool, provider } = service
  const at = Date.now() - 200_000
  await spool.keep({ token: await provider.logoutToken({ sid: 's1', iat: Math.floor(at / 1_000) }) }, at, true, 30_000)
  const stranger = await createSigningKey('RS256', provider.keys[0]?.kid)
  const forged = await provider.logoutToken({ sid: 's2', iat: Math.floor(at / 1_000) - 100 }, {}, stranger)
  await spool.keep({ token: forged }, at - 100_000, false, 30_000)
  await spool.keep({ issuerName: 'default', issuer: undefined, sid: 's2' }, at + 1_000, false, 30_000)
  await spool.keep({ token: 'bad' }, at, false, 30_000)
  const bad = (await spool.list(10)).find(({ request }) => 'token' in request && request.token === 'bad')
  await spool.reject(bad?.name ?? '', 'ERR_TOKEN_MALFORMED')
}

t.test('with --json, what cannot be done is told as one object, too', async (t) => {
  for (const [args, env, expected] of [
    [['purge', '--no-such'], {}, { outcome: 'refused', code: 'usage', message: "unknown option '--no-such'" }],
    [['spool', 'list'], { SPOOL_DIR: '/dev/null' }, { outcome: 'failed', code: 'spool_unreadable' }],
    [['spool', 'replay'], {}, { outcome: 'failed', code: 'ERR_CONFIGURATION' }]
  ] as const) {
    const { exited, output } = runCommand(t, [...args, '--json'], env)
    t.equal(await exited, expected.outcome === 'refused' ? 2 : 1)
    t.match(JSON.parse(output.stdout), expected)
    t.match(output.stderr, /./, 'a person is told, too')
  }
})

t.test('who reads the output may stop, and the exit code is that of the work', async (t) => {
  const { process: child, exited, output } = runCommand(t, ['spool', 'list', '--json'])
  child.stdout?.destroy()
  t.equal(await exited, 0)
  t.equal(output.stderr, '')
})

t.test('spool list tells what waits, and nothing of what it is about', async (t) => {
  const service = await build(t)
  await fillSpool(service)
  const listing = await listSpool(service.spoolDir, 50)
  t.match(listing, {
    verified: 1,
    unverified: 1,
    frontchannel: 1,
    rejected: 1,
    waiting: [
      { share: 'verified', isReadable: true },
      { share: 'unverified', isReadable: true },
      { share: 'frontchannel', isReadable: true }
    ],
    setAside: [{ reason: 'ERR_TOKEN_MALFORMED' }]
  })
  t.equal(Date.parse(listing.oldestAt ?? ''), Date.parse(listing.waiting[1]?.at ?? ''))
  const told = toldListing(listing)
  t.match(told, /: 1 verified, 1 unverified and 1 frontchannel wait, the oldest for 5 min; 1 rejected\n/)
  t.match(told, /Z {2}verified\n.*Z {2}unverified\n.*Z {2}frontchannel\n.*Z {2}rejected {6}ERR_TOKEN_MALFORMED\n$/)
  t.notMatch(`${told}${JSON.stringify(listing)}`, /eyJ|"s[12]"|"sid"/)
  t.match(toldListing(await listSpool(service.spoolDir, 1)), /and 2 more waiting: --limit/)
})

t.test('a spool that is not there is told, and not made; one that cannot be read is an error', async (t) => {
  const dir = join(temporaryFolder(t), 'spool')
  const command = runCommand(t, ['spool', 'list', '--json'], { SPOOL_DIR: dir })
  t.equal(await command.exited, 0, command.output.stderr)
  t.match(JSON.parse(command.output.stdout), { dir, exists: false, verified: 0, oldestAt: null })
  t.notOk(existsSync(dir))
  writeFileSync(dir, 'in the way')
  await t.rejects(listSpool(dir, 1), { code: 'spool_unreadable', exitCode: 1 })
})

t.test('spool replay carries out what it can, and tells done, refused and waiting', async (t) => {
  const service = await build(t)
  const { database, provider, rows, spoolDir } = service
  await service.login({ homeAccountId: 'u.t', sid: 's1', issuedAt: 1 })
  await service.login({ homeAccountId: 'v.t', sid: 's2', issuedAt: 1 })
  await fillSpool(service)
  const env = { DATABASE_URL: database.url, ISSUER: provider.issuer, CLIENT_IDS: 'client-a', SPOOL_DIR: spoolDir }
  const { signal } = new AbortController()

  provider.behaviour = 'down'
  const nowhere = `postgres://x:y@127.0.0.1:${await freePort()}/z`
  await t.rejects(replaySpool(readConfig(env), nowhere, signal), { code: 'database_unreachable', exitCode: 1 })
  t.match(await listSpool(spoolDir, 1), { verified: 1, unverified: 1, frontchannel: 1 })
  t.same(await replaySpool(readConfig(env), database.url, signal), { done: 2, refused: 0, waiting: 1 }, 'without keys')
  t.same(await rows(), [], 'what is verified needs none')

  provider.behaviour = 'up'
  const command = runCommand(t, ['spool', 'replay'], env)
  t.equal(await command.exited, 0, command.output.stderr)
  t.equal(command.output.stdout, '0 done, 1 refused, 0 still waiting\n')
  t.match(await listSpool(spoolDir, 10), { verified: 0, unverified: 0, frontchannel: 0, rejected: 2 })
})

t.test('a replay beside a running service ends nothing twice', async (t) => {
  const service = await build(t)
  const { database, provider, spool, spoolDir } = service
  for (let i = 0; i < 40; i += 1) {
    await service.login({ homeAccountId: `${i}.t`, sid: `s${i}` })
    await spool.keep({ token: await provider.logoutToken({ sid: `s${i}` }) }, Date.now(), true, 30_000)
  }
  const env = { DATABASE_URL: database.url, ISSUER: provider.issuer, CLIENT_IDS: 'client-a', SPOOL_DIR: spoolDir }
  service.replay()
  const reports = await Promise.all(
    [1, 2].map(() => replaySpool(readConfig(env), database.url, new AbortController().signal))
  )
  t.ok(reports.every(({ refused }) => refused === 0))
  while ((await spool.survey()).kept.length > 0) {
    await delay(10)
  }
  t.same(await database.query('select count(*)::int, sum(rows)::int as rows from msal_logout.purges'), [
    { count: 40, rows: 40 }
  ])
  t.same((await spool.survey()).rejected, [])
})

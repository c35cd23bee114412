import { existsSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { listSpool, retrySpool, toldListing } from '../src/commands/spool.ts'
import { readConfig } from '../src/config.ts'
import { freePort } from '../src/embedded-postgres.ts'
import { orderOf, readLogoutToken } from '../src/signals/backchannel.ts'
import { call } from './fixtures/command-line.ts'
import { createSigningKey } from './fixtures/identity-provider.ts'
import { temporaryFolder } from './fixtures/server.ts'
import { build, type Service } from './fixtures/service.ts'
import { until } from './fixtures/until.ts'

/** A spool with orders, a token that nobody vouches for, a front-channel call, and a token that was rejected. */
async function fillSpool(service: Service): Promise<void> {
  const { provider } = service
  const at = Date.now() - 200_000
  const iat = (ms: number) => ({ iat: Math.floor(ms / 1_000) })
  await deferOrders(service, await provider.logoutToken({ sid: 's1', ...iat(at) }), at)
  const stranger = await createSigningKey('RS256', provider.keys[0]?.kid)
  const forged = await provider.logoutToken({ sid: 's2', ...iat(at - 100_000) }, {}, stranger)
  await deferSignal(service, 'backchannel', forged, at - 100_000)
  await deferSignal(service, 'frontchannel', { sid: 's2' }, at + 1_000)
  await deferSignal(service, 'backchannel', 'bad', at)
  const bad = (await service.spool.list(10)).find(
    ({ deferred }) => deferred?.kind === 'signal' && deferred.input === 'bad'
  )
  await service.spool.reject(bad?.name ?? '', 'ERR_TOKEN_MALFORMED')
}

async function deferOrders({ issuers, spool }: Service, token: string, receivedAt: number): Promise<void> {
  const orders = [orderOf(await readLogoutToken(token, receivedAt, { issuers }))]
  await spool.defer({ source: 'backchannel', isSigned: true, receivedAt, kind: 'orders', orders }, 30_000)
}

async function deferSignal({ spool }: Service, source: string, input: unknown, receivedAt: number): Promise<void> {
  await spool.defer({ source, isSigned: source === 'backchannel', receivedAt, kind: 'signal', input }, 30_000)
}

t.test('spool list shows what is deferred, and nothing of what it is about', async (t) => {
  const service = await build(t)
  await fillSpool(service)
  const listing = await listSpool(service.spoolDir, 50)
  t.match(listing, {
    verified: 1,
    unverified: 1,
    unsigned: 1,
    rejected: 1,
    waiting: [
      { share: 'verified', isReadable: true },
      { share: 'unverified', isReadable: true },
      { share: 'unsigned', isReadable: true }
    ],
    setAside: [{ reason: 'ERR_TOKEN_MALFORMED' }]
  })
  t.equal(Date.parse(listing.oldestAt ?? ''), Date.parse(listing.waiting[1]?.at ?? ''))
  const text = toldListing(listing)
  t.match(text, /: 1 verified, 1 unverified and 1 unsigned are deferred, the oldest for 5 min; 1 rejected\n/)
  t.match(text, /Z {2}verified\n.*Z {2}unverified\n.*Z {2}unsigned\n.*Z {2}rejected {6}ERR_TOKEN_MALFORMED\n$/)
  t.notMatch(`${text}${JSON.stringify(listing)}`, /eyJ|"s[12]"|"sid"/)
  t.match(toldListing(await listSpool(service.spoolDir, 1)), /and 2 more deferred: --limit/)
})

t.test(
  'a spool that is not there is said to be none, and is not made; one that cannot be read is an error',
  async (t) => {
    const dir = join(temporaryFolder(t), 'spool')
    const { code, stdout, stderr } = await call(t, ['spool', 'list', '--json'], { env: { SPOOL_DIR: dir } })
    t.equal(code, 0, stderr)
    t.match(JSON.parse(stdout), { dir, exists: false, verified: 0, oldestAt: null })
    t.notOk(existsSync(dir))
    writeFileSync(dir, 'in the way')
    await t.rejects(listSpool(dir, 1), { code: 'spool_unreadable', exitCode: 1 })
  }
)

t.test('spool retry carries out what it can, and says what is done, rejected and still deferred', async (t) => {
  const service = await build(t)
  const { database, provider, rows, spoolDir } = service
  await service.login({ homeAccountId: 'u.t', sid: 's1', issuedAt: 1 })
  await service.login({ homeAccountId: 'v.t', sid: 's2', issuedAt: 1 })
  await fillSpool(service)
  const env = { DATABASE_URL: database.url, ISSUER: provider.issuer, CLIENT_IDS: 'client-a', SPOOL_DIR: spoolDir }
  const { signal } = new AbortController()

  provider.behaviour = 'down'
  const nowhere = `postgres://x:y@127.0.0.1:${await freePort()}/z`
  await t.rejects(retrySpool(readConfig(env), nowhere, signal), { code: 'database_unreachable', exitCode: 1 })
  t.match(await listSpool(spoolDir, 1), { verified: 1, unverified: 1, unsigned: 1 })
  t.same(await retrySpool(readConfig(env), database.url, signal), { done: 2, rejected: 0, waiting: 1 }, 'without keys')
  t.same(await rows(), [], 'what is verified needs none')

  provider.behaviour = 'up'
  t.match(await call(t, ['spool', 'retry'], { env }), {
    code: 0,
    stdout: '0 done, 1 rejected, 0 still deferred\n'
  })
  t.match(await listSpool(spoolDir, 10), { verified: 0, unverified: 0, unsigned: 0, rejected: 2 })
})

t.test('a retry beside a running service ends nothing twice', async (t) => {
  const service = await build(t)
  const { database, provider, spool, spoolDir } = service
  for (let i = 0; i < 40; i += 1) {
    await service.login({ homeAccountId: `${i}.t`, sid: `s${i}` })
    await deferOrders(service, await provider.logoutToken({ sid: `s${i}` }), Date.now())
  }
  const env = { DATABASE_URL: database.url, ISSUER: provider.issuer, CLIENT_IDS: 'client-a', SPOOL_DIR: spoolDir }
  service.retry()
  const reports = await Promise.all(
    [1, 2].map(() => retrySpool(readConfig(env), database.url, new AbortController().signal))
  )
  t.ok(reports.every(({ rejected }) => rejected === 0))
  await until('nothing is deferred', async () => (await spool.survey()).deferred.length === 0)
  t.same(await database.query('select count(*)::int, sum(rows)::int as rows from msal_logout.records'), [
    { count: 40, rows: 40 }
  ])
  t.same((await spool.survey()).rejected, [])
})

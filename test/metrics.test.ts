import { readFileSync } from 'node:fs'
import t from 'tap'
import { createMetrics, createProcessMetrics } from '../src/metrics.ts'
import { createSenders } from '../src/senders.ts'
import type { Order } from '../src/sign-out.ts'
import { version } from '../src/version.ts'
import { makeOrder } from './fixtures/orders.ts'
import { build, type Service } from './fixtures/service.ts'
import { until } from './fixtures/until.ts'

/** The samples of Prometheus' text format: `name{label="value"}` and its value. */
function samples(text: string): Map<string, number> {
  const lines = text.split('\n').filter((line) => line !== '' && !line.startsWith('#'))
  return new Map(
    lines.map((line) => {
      const [, name = '', value = ''] = /^(.*) (\S+)$/.exec(line) ?? []
      return [name.replace('msal_logout_', ''), Number(value)]
    })
  )
}

async function scrape({ admin }: Pick<Service, 'admin'>): Promise<Map<string, number>> {
  const answer = await admin.inject('/metrics')
  return samples(answer.body)
}

/** What an act moves, and by how much; values that only were not there before and are 0 are left out. */
async function moved(service: Service, act: () => Promise<unknown>): Promise<Record<string, number>> {
  const before = await scrape(service)
  await act()
  const changes = [...(await scrape(service))].map(([name, value]) => [name, value - (before.get(name) ?? 0)] as const)
  return Object.fromEntries(changes.filter(([, change]) => change !== 0))
}

const signal = (source: string, issuer: string, outcome: string, reason = '') =>
  `signals_total{source="${source}",issuer="${issuer}",outcome="${outcome}",reason="${reason}"}`
const retry = (issuer: string, outcome: string, reason = '') =>
  `retries_total{source="backchannel",issuer="${issuer}",outcome="${outcome}",reason="${reason}"}`

t.test('signals are counted from 0, so that silence after a restart is an alert', async (t) => {
  const service = await build(t)
  const counts = await scrape(service)
  for (const source of ['backchannel', 'frontchannel']) {
    t.equal(counts.get(signal(source, 'main', 'done')), 0)
  }
})

t.test('a sign-out moves what it did, by issuer, app and source; a duplicate moves its signal alone', async (t) => {
  const service = await build(t)
  await service.login({ clientId: 'a', homeAccountId: 'u.t', sid: 's1' })
  await service.login({ clientId: 'b', homeAccountId: 'u.t', sid: 's1' })
  await service.login({ clientId: 'a', homeAccountId: 'u.t', sid: 's2' })
  const issuedAt = Math.floor(Date.now() / 1_000) - 7
  const token = await service.provider.logoutToken({ sid: 's1', iat: issuedAt })
  const first = await moved(service, () => service.post(token))
  t.match(first, {
    [signal('backchannel', 'main', 'done')]: 1,
    'purged_accounts_total{source="backchannel",client_id="a"}': 1,
    'purged_accounts_total{source="backchannel",client_id="b"}': 1,
    'purged_sessions_total{source="backchannel",client_id="a"}': 2,
    'purged_sessions_total{source="backchannel",client_id="b"}': 1,
    'purged_rows_total{source="backchannel",client_id="a"}': 1,
    'purged_rows_total{source="backchannel",client_id="b"}': 1,
    'batch_size_bucket{le="1"}': 1,
    batch_size_count: 1,
    'issued_to_committed_seconds_bucket{le="10",issuer="main"}': 1,
    'key_fetches_total{issuer="main",outcome="done"}': 1
  })
  t.notHas(first, { 'issued_to_committed_seconds_bucket{le="5",issuer="main"}': 1 })
  t.ok(Number(first['issued_to_committed_seconds_sum{issuer="main"}']) >= 7)

  const again = await moved(service, () => service.post(token))
  t.equal(again[signal('backchannel', 'main', 'duplicate')], 1)
  t.same(
    Object.keys(again).filter((name) => /^(purged|issued)/.test(name)),
    []
  )
})

t.test('the delay counts from when the issuer says that it was issued, of every signal that says so', async (t) => {
  const { issuers, spool } = await build(t)
  const metrics = createMetrics({
    issuers,
    spool,
    census: { latest: () => undefined },
    directories: { latest: () => [] },
    streams: { latest: () => [] },
    sources: [],
    pools: {},
    now: () => 100_000
  })
  const observe = (order: Partial<Order>) =>
    metrics.observe({
      source: 'made-up',
      issuer: 'main',
      sender: undefined,
      isRetry: false,
      tookMs: 1,
      outcome: 'done',
      results: [
        {
          id: '',
          outcome: 'done',
          matched: [],
          accounts: 0,
          sessions: 0,
          rows: 0,
          byClient: {},
          order: makeOrder({ kind: 'session', issuer: 'x', sid: 's1' }, { issuerName: 'main', ...order })
        }
      ]
    })
  observe({ issuedAt: 97, revokeBefore: 99 })
  observe({ jti: 'of an operator', revokeBefore: 1 })
  const found = samples(await metrics.text())
  t.equal(found.get('issued_to_committed_seconds_sum{issuer="main"}'), 3)
  t.equal(found.get('issued_to_committed_seconds_count{issuer="main"}'), 1)
})

t.test('a front-channel call and an operator differ by source', async (t) => {
  const service = await build(t)
  await service.login({ clientId: 'a', homeAccountId: 'u.t', sid: 's1' })
  await service.login({ clientId: 'a', homeAccountId: 'v.t', sid: 's2' })
  await service.login({ clientId: 'a', homeAccountId: 'w.t', sid: 's3' })
  t.match(await moved(service, () => service.app.inject('/frontchannel-logout/main?sid=s1')), {
    [signal('frontchannel', 'main', 'done')]: 1,
    'purged_rows_total{source="frontchannel",client_id="a"}': 1
  })
  const { issuer } = service.provider
  for (const selector of [{ issuer, sid: 's2' }, { homeAccountId: 'w.t' }]) {
    const purge = (dryRun: boolean) => service.operate('POST', '/admin/purges', { ...selector, reason: 'test', dryRun })
    const expected = {
      'purged_accounts_total{source="operator",client_id="a"}': 1,
      'purged_sessions_total{source="operator",client_id="a"}': 1,
      'purged_rows_total{source="operator",client_id="a"}': 1
    }
    t.notMatch(await moved(service, () => purge(true)), expected)
    t.match(await moved(service, () => purge(false)), expected)
  }
})

t.test('a rejected signal is counted by its reason, and by the issuer if it names one that is trusted', async (t) => {
  let isLimited = false
  const senders = { ...createSenders(), rejected: () => (isLimited ? 1 : 0) }
  const service = await build(t, { edges: { senders } })
  const { provider, app, post } = service
  for (const [act, expected] of [
    [async () => post('x'), signal('backchannel', '', 'rejected', 'ERR_TOKEN_MALFORMED')],
    [
      async () => post(await provider.logoutToken({ iss: 'https://evil.example' })),
      signal('backchannel', '', 'rejected', 'ERR_TOKEN_ISSUER')
    ],
    [
      async () => post(await provider.logoutToken({ nonce: 'n' })),
      signal('backchannel', 'main', 'rejected', 'ERR_TOKEN_NONCE')
    ],
    [
      async () => app.inject({ method: 'POST', url: '/backchannel-logout', payload: { logout_token: 'x' } }),
      signal('backchannel', '', 'rejected', 'ERR_REQUEST_FORM')
    ],
    [
      async () => app.inject('/frontchannel-logout/nobody?sid=s'),
      signal('frontchannel', '', 'rejected', 'ERR_REQUEST_ISSUER_NAME')
    ]
  ] as const) {
    t.same(await moved(service, act), { [expected]: 1 })
  }
  isLimited = true
  t.same(await moved(service, () => post('x')), {
    [signal('backchannel', '', 'limited', 'ERR_TOKEN_MALFORMED')]: 1
  })
})

t.test('what is deferred shows in the depth and age of the spool, and what becomes of it in the retries', async (t) => {
  let at = Date.now()
  const service = await build(t, { edges: { now: () => at } })
  service.provider.behaviour = 'down'
  const token = await service.provider.logoutToken()
  t.match(await moved(service, () => service.post(token)), {
    [signal('backchannel', 'main', 'deferred', 'ERR_KEYS_UNAVAILABLE')]: 1,
    'key_fetches_total{issuer="main",outcome="failed"}': 1,
    'spool_depth{kind="unverified"}': 1
  })
  await service.post(await service.provider.logoutToken({}, {}, undefined).then((good) => `${good.slice(0, -4)}AAAA`))
  at += 30_000
  t.equal((await scrape(service)).get('spool_oldest_age_seconds'), 30)

  service.provider.behaviour = 'up'
  const retried = await moved(service, async () => {
    service.retry()
    // What has left the folder may not be counted yet.
    await until('both are counted', async () => {
      const counts = await scrape(service)
      return [retry('main', 'unmatched'), retry('main', 'rejected', 'ERR_TOKEN_SIGNATURE')].every((name) =>
        counts.has(name)
      )
    })
  })
  t.match(retried, {
    [retry('main', 'unmatched')]: 1,
    [retry('main', 'rejected', 'ERR_TOKEN_SIGNATURE')]: 1,
    'spool_depth{kind="unverified"}': -2,
    'spool_depth{kind="rejected"}': 1,
    spool_oldest_age_seconds: -30
  })
  at += 5_000
  t.equal((await scrape(service)).get('key_age_seconds{issuer="main"}'), 5)
})

t.test('a full spool shows, and what could not be deferred', async (t) => {
  const service = await build(t, { spool: { verified: { count: 0 }, unverified: { count: 0 } } })
  service.provider.behaviour = 'down'
  const token = await service.provider.logoutToken()
  t.match(await moved(service, () => service.post(token)), {
    [signal('backchannel', 'main', 'lost', 'ERR_KEYS_UNAVAILABLE')]: 1
  })
  t.equal((await scrape(service)).get('spool_writable'), 0)
})

t.test('the release that runs is shown', async (t) => {
  const counts = await scrape(await build(t))
  t.equal(counts.get(`build_info{version="${version()}"}`), 1)
})

t.test('stored sessions are counted by issuer and app, and those without a sid', async (t) => {
  const service = await build(t)
  await service.login({ clientId: 'a', sid: 's1' })
  await service.login({ clientId: 'a' })
  await service.login({ clientId: 'b' })
  await service.login({ clientId: 'b', issuer: 'http://elsewhere.internal' })
  t.notOk((await scrape(service)).has('sessions{issuer="main",client_id="a"}'), 'not before they were counted')
  await service.census.refresh()
  const counts = await scrape(service)
  for (const [labels, sessions, withoutSid] of [
    ['issuer="main",client_id="a"', 2, 1],
    ['issuer="main",client_id="b"', 1, 1],
    ['issuer="",client_id="b"', 1, 1]
  ] as const) {
    t.equal(counts.get(`sessions{${labels}}`), sessions)
    t.equal(counts.get(`sessions_without_sid{${labels}}`), withoutSid)
  }
})

t.test('an issuer that is not configured is counted from 0, also in a set-up that never worked', async (t) => {
  const counts = await scrape(await build(t))
  t.equal(counts.get(signal('backchannel', '', 'rejected', 'ERR_TOKEN_ISSUER')), 0)
  t.equal(counts.get(signal('frontchannel', '', 'rejected', 'ERR_REQUEST_ISSUER_NAME')), 0)
})

t.test('what must not happen is 0 from the start, so that its first time is an increase', async (t) => {
  const told = await scrape(await build(t))
  t.equal(told.get(signal('backchannel', 'main', 'lost')), 0)
  t.equal(told.get(signal('frontchannel', '', 'failed')), 0)
})

t.test('the alert rules and the dashboard ask only for what is told', async (t) => {
  const service = await build(t)
  service.metrics.watchProcess()
  const text = await service.metrics.text()
  const ofSeveral = await createProcessMetrics(() => ({ serving: 1, missing: 0 })).own()
  const told = new Set([...text.matchAll(/^# TYPE (\S+)/gm)].map(([, name = '']) => name))
  for (const { name } of ofSeveral) {
    told.add(name)
  }
  for (const file of ['alerts.yaml', 'alerts.test.yaml', 'grafana-dashboard.json']) {
    const asked = readFileSync(`docs/operating/${file}`, 'utf8').match(/\b(msal_logout|nodejs|process)_\w+/g) ?? []
    t.ok(asked.length > 10, file)
    for (const name of new Set(asked)) {
      t.ok(told.has(name) || told.has(name.replace(/_(bucket|sum|count)$/, '')), `${file}: ${name}`)
    }
  }
})

t.test('operators without credentials, and connections in use, are counted', async (t) => {
  const service = await build(t)
  t.match(
    await moved(service, () => service.operate('GET', '/admin/spool', undefined, { authorization: 'Bearer x' })),
    {
      'operators_rejected_total{reason="ERR_CREDENTIALS_WRONG"}': 1
    }
  )
  const held: { release(): void }[] = []
  const busy = await moved(service, async () => {
    held.push(await service.pools.slow.connect(), await service.pools.slow.connect())
  })
  t.match(busy, { 'pool_connections{pool="slow",state="busy"}': 2 })
  for (const connection of held) {
    connection.release()
  }
})

import t from 'tap'
import { createRejectionLimit } from '../src/rejection-limit.ts'
import { build } from './fixtures/service.ts'

t.test('an address is limited beyond its burst, and gets back as time goes by', async (t) => {
  let time = 0
  const limit = createRejectionLimit({ burst: 3, perSecond: 2, now: () => time })
  t.same([limit('10.0.0.1'), limit('10.0.0.1'), limit('10.0.0.1')], [0, 0, 0])
  t.equal(limit('10.0.0.1'), 1)
  t.equal(limit('10.0.0.2'), 0, 'another one is not')
  time += 500
  t.equal(limit('10.0.0.1'), 0)
  t.equal(limit('10.0.0.1'), 1)
})

t.test('a clock that jumps back limits nobody for long', async (t) => {
  let time = 1_000_000
  const limit = createRejectionLimit({ burst: 1, perSecond: 1, now: () => time })
  limit('10.0.0.1')
  time = 0
  t.equal(limit('10.0.0.1'), 1)
  time += 1_000
  t.equal(limit('10.0.0.1'), 0)
})

t.test('IPv6 addresses of one /64 are one sender', async (t) => {
  const cases: [string, string, boolean][] = [
    ['2001:db8:1:2::1', '2001:db8:1:2:ffff:ffff:ffff:ffff', true],
    ['2001:db8:1:2::1', '2001:0db8:0001:0002:0:0:0:9', true],
    ['2001:db8:1:2::1', '2001:db8:1:3::1', false],
    ['::1', '::2', true],
    ['1::', '1:0:0:0::5', true],
    ['fe80::1%eth0', 'fe80::2%eth1', true],
    ['::ffff:10.0.0.1', '10.0.0.1', true],
    ['::ffff:10.0.0.1', '::ffff:10.0.0.2', false]
  ]
  for (const [a, b, same] of cases) {
    const limit = createRejectionLimit({ burst: 1, now: () => 0 })
    limit(a)
    t.equal(limit(b) > 0, same, `${a} and ${b}`)
  }
})

t.test('a flood of addresses does not grow without end', async (t) => {
  const limit = createRejectionLimit({ burst: 1, now: () => 0 })
  limit('10.0.0.1')
  for (let i = 0; i < 10_001; i += 1) {
    limit(`10.1.${i >> 8}.${i & 255}`)
  }
  t.equal(limit('10.0.0.1'), 0, 'the oldest is forgotten')
})

t.test('invalid tokens are limited by address, and valid ones never', async (t) => {
  const service = await build(t)
  const bad = await service.provider.logoutToken({ nonce: 'n' })
  const statuses: number[] = []
  for (let i = 0; i < 80; i += 1) {
    statuses.push((await service.post(bad)).statusCode)
  }
  t.same([...new Set(statuses)], [400, 429])
  const limited = await service.post(bad)
  t.match(limited, { statusCode: 429, headers: { 'retry-after': /^\d+$/, 'cache-control': 'no-store' } })
  for (let i = 0; i < 20; i += 1) {
    t.equal((await service.post(await service.provider.logoutToken())).statusCode, 200)
  }
  t.ok(service.logs.filter((line) => line.includes('"refused"')).length < 70, 'and the log is not flooded')
})

t.test('X-Forwarded-For is believed from configured proxies alone', async (t) => {
  const post = (service: Awaited<ReturnType<typeof build>>, from: string, forwarded: string, token: string) =>
    service.app.inject({
      method: 'POST',
      url: '/backchannel-logout',
      remoteAddress: from,
      headers: { 'x-forwarded-for': forwarded, 'content-type': 'application/x-www-form-urlencoded' },
      payload: `logout_token=${token}`
    })
  for (const trustedProxies of [[], ['10.0.0.0/8']]) {
    const seen: string[] = []
    const limitRejections = (address: string) => {
      seen.push(address)
      return 0
    }
    const service = await build(t, { app: { trustedProxies, limitRejections } })
    await post(service, '10.0.0.1', '203.0.113.7', 'x')
    await post(service, '198.51.100.1', '203.0.113.7', 'x')
    t.same(seen, trustedProxies.length > 0 ? ['203.0.113.7', '198.51.100.1'] : ['10.0.0.1', '198.51.100.1'])
  }
})

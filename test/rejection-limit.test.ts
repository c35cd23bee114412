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

t.test('IPv6 addresses of one /64 are one sender, and so are the ports of an address', async (t) => {
  const cases: [string, string, boolean][] = [
    ['2001:db8:1:2::1', '2001:db8:1:2:ffff:ffff:ffff:ffff', true],
    ['2001:db8:1:2::1', '2001:0db8:0001:0002:0:0:0:9', true],
    ['2001:db8:1:2::1', '2001:db8:1:3::1', false],
    ['::1', '::2', true],
    ['1::', '1:0:0:0::5', true],
    ['fe80::1%eth0', 'fe80::2%eth1', true],
    ['::ffff:10.0.0.1', '10.0.0.1', true],
    ['::ffff:10.0.0.1', '::ffff:10.0.0.2', false],
    ['10.0.0.1:1234', '10.0.0.1:5678', true],
    ['10.0.0.1:1234', '10.0.0.2:1234', false],
    ['[2001:db8:1:2::1]:1234', '2001:db8:1:2::2', true]
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

t.test('what is beyond the limit leaves a line for each address and minute, with its count', async (t) => {
  let time = 1_000_000
  const lines: unknown[] = []
  const logger = { warn: (line: unknown) => lines.push(line) } as never
  const limit = createRejectionLimit({ burst: 2, perSecond: 0.001, now: () => time, logger })
  const flood = (address: string, count: number) => {
    for (let i = 0; i < count; i += 1) {
      limit(address)
    }
  }
  flood('10.0.0.1', 2)
  t.same(lines, [], 'none within the limit')
  flood('10.0.0.1', 100)
  flood('2001:db8::1', 5)
  t.same(lines.splice(0), [
    { address: '10.0.0.1', count: 1 },
    { address: '2001:db8:0:0', count: 1 }
  ])
  time += 60_000
  flood('10.0.0.1', 50)
  t.same(lines.splice(0), [{ address: '10.0.0.1', count: 100 }], 'the 99 of the first minute, and the one that told')
  for (let i = 0; i < 10_000; i += 1) {
    limit(`10.1.${i >> 8}.${i & 255}`)
  }
  t.same(
    lines.splice(0),
    [
      { address: '2001:db8:0:0', count: 2 },
      { address: '10.0.0.1', count: 49 }
    ],
    'also of one that is forgotten'
  )
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
  t.equal(service.logs.filter((line) => line.includes('too many refused requests')).length, 1, 'but tells of it')
})

t.test('wrong credentials of operators are limited by address, and right ones never', async (t) => {
  const service = await build(t)
  const ask = (authorization: string) => service.operate('GET', '/admin/purges', undefined, { authorization })
  const statuses: number[] = []
  for (let i = 0; i < 80; i += 1) {
    statuses.push((await ask('Bearer wrong')).statusCode)
  }
  t.same([...new Set(statuses)], [401, 429])
  t.match(await ask('Bearer wrong'), { statusCode: 429, headers: { 'retry-after': /^\d+$/ } })
  for (let i = 0; i < 20; i += 1) {
    t.equal((await service.operate('GET', '/admin/purges')).statusCode, 200)
  }
  t.equal((await service.admin.inject('/readyz')).statusCode, 200)
  t.ok(service.logs.filter((line) => line.includes('operator refused')).length < 70)
  t.equal(service.logs.filter((line) => line.includes('too many refused requests')).length, 1)
})

t.test('sign-outs that are not done leave a line each up to a number, then their count', async (t) => {
  const service = await build(t)
  service.provider.behaviour = 'down'
  for (let i = 0; i < 80; i += 1) {
    t.equal((await service.post(await service.provider.logoutToken())).statusCode, 503)
  }
  t.ok(service.logs.filter((line) => line.includes('"sign-out not done"')).length < 70)
  t.equal(service.logs.filter((line) => line.includes('beside those with a line')).length, 1)
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

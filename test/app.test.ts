import { type AddressInfo, connect } from 'node:net'
import t from 'tap'
import { createSenders } from '../src/senders.ts'
import { decryptionKey } from './fixtures/encryption.ts'
import { paperNotes } from './fixtures/made-up-signal.ts'
import { nowSeconds } from './fixtures/orders.ts'
import { build, type Service } from './fixtures/service.ts'

const form = { 'content-type': 'application/x-www-form-urlencoded' }
const backChannel = (service: Service, payload: string, headers: Record<string, string> = form) =>
  service.app.inject({ method: 'POST', url: '/backchannel-logout', headers, payload })

t.test('the back channel', async (t) => {
  await t.test('a logout token empties the cache of every app, and the answer is empty', async (t) => {
    const service = await build(t)
    await service.login({ clientId: 'client-a', homeAccountId: 'u.t', sid: 's1', subject: 'pairwise-a' })
    await service.login({ clientId: 'client-b', homeAccountId: 'u.t', sid: 's1', subject: 'pairwise-b' })
    await service.login({ clientId: 'client-a', homeAccountId: 'other.t', sid: 's2' })

    const answer = await backChannel(service, `logout_token=${await service.provider.logoutToken({ sid: 's1' })}`)
    t.equal(answer.statusCode, 200)
    t.equal(answer.body, '')
    t.equal(answer.headers['cache-control'], 'no-store')
    t.same(await service.rows(), ['client-a/other.t'])
  })

  await t.test('nothing to do is success', async (t) => {
    const service = await build(t)
    t.equal((await service.post(await service.provider.logoutToken({ sid: 'unknown' }))).statusCode, 200)
    t.equal(
      (await service.post(await service.provider.logoutToken({ sid: undefined, sub: 'unknown' }))).statusCode,
      200
    )
  })

  await t.test('parameters that nobody knows are ignored', async (t) => {
    const service = await build(t)
    await service.login({ sid: 's1' })
    const token = await service.provider.logoutToken({ sid: 's1' })
    t.equal((await backChannel(service, `a=1&a=2&logout_token=${token}&b`)).statusCode, 200)
    t.same(await service.rows(), [])
  })

  await t.test('a request of another form is refused, and changes nothing', async (t) => {
    const service = await build(t)
    await service.login({ sid: 's1' })
    const before = await service.database.snapshot()
    const token = await service.provider.logoutToken({ sid: 's1' })
    const requests: [string, string, Record<string, string>][] = [
      ['no body', '', form],
      ['no content type', `logout_token=${token}`, {}],
      ['JSON', JSON.stringify({ logout_token: token }), { 'content-type': 'application/json' }],
      ['plain text', token, { 'content-type': 'text/plain' }],
      ['the token as a JWT', token, { 'content-type': 'application/logout+jwt' }],
      [
        'multipart',
        `--x\r\ncontent-disposition: form-data; name="logout_token"\r\n\r\n${token}\r\n--x--`,
        { 'content-type': 'multipart/form-data; boundary=x' }
      ],
      ['the parameter twice', `logout_token=${token}&logout_token=${token}`, form],
      ['the parameter as an array', `logout_token[]=${token}`, form],
      ['the parameter in another case', `Logout_Token=${token}`, form],
      ['an empty parameter', 'logout_token=', form],
      ['a request token', `request=${token}`, form]
    ]
    for (const [name, payload, headers] of requests) {
      const answer = await backChannel(service, payload, headers)
      t.equal(answer.statusCode, 400, name)
      t.equal(answer.json().error, 'invalid_request', name)
      t.equal(answer.headers['cache-control'], 'no-store', name)
      t.notOk(answer.body.includes(token), name)
    }
    const inQuery = await service.app.inject({
      method: 'POST',
      url: `/backchannel-logout?logout_token=${token}`,
      headers: form
    })
    t.equal(inQuery.statusCode, 400, 'a token in the query')
    t.same(await service.database.snapshot(), before)
  })

  await t.test('another method is answered with the one that there is', async (t) => {
    const service = await build(t)
    for (const method of ['GET', 'HEAD', 'PUT', 'PATCH', 'DELETE'] as const) {
      const answer = await service.app.inject({ method, url: '/backchannel-logout' })
      t.equal(answer.statusCode, 405, method)
      t.equal(answer.headers.allow, 'POST', method)
    }
    for (const method of ['POST', 'PUT'] as const) {
      const answer = await service.app.inject({ method, url: '/frontchannel-logout?sid=s1' })
      t.equal(answer.statusCode, 405, method)
      t.equal(answer.headers.allow, 'GET, HEAD', method)
    }
  })

  await t.test('HEAD is answered where GET is, OPTIONS with Allow, and neither signs anybody out', async (t) => {
    const service = await build(t)
    await service.login({ sid: 's1' })
    for (const [url, allow] of [
      ['/backchannel-logout', 'POST'],
      ['/frontchannel-logout?sid=s1', 'GET, HEAD'],
      ['/frontchannel-logout/main?sid=s1', 'GET, HEAD'],
      ['/healthz', 'GET, HEAD']
    ] as const) {
      const options = await service.app.inject({ method: 'OPTIONS', url })
      t.match(options, { statusCode: 204, headers: { allow, 'cache-control': 'no-store' } }, url)
      if (allow !== 'POST') {
        const head = await service.app.inject({ method: 'HEAD', url })
        t.match(head, { statusCode: 200, body: '' }, url)
      }
    }
    t.equal((await service.rows()).length, 1)
  })

  await t.test('a route of another signal answers HEAD by its own answer, and signs nobody out', async (t) => {
    const service = await build(t, {
      edges: {
        routes: () => [
          { method: 'GET', url: '/paper-notes', signal: paperNotes, input: () => ({ note: 'x y', stamp: 'valid' }) }
        ]
      }
    })
    const { headers, statusCode } = await service.app.inject({ method: 'HEAD', url: '/paper-notes' })
    t.equal(statusCode, 200)
    t.equal(headers['content-type'], undefined)
    t.equal(headers['content-security-policy'], undefined)
    t.same(await service.database.query('select from msal_logout.records'), [])
    const page = await service.app.inject({ method: 'HEAD', url: '/frontchannel-logout/main?sid=s1' })
    const shown = await service.app.inject({ method: 'GET', url: '/frontchannel-logout/main?sid=s1' })
    for (const name of ['content-type', 'content-length', 'content-security-policy', 'cache-control']) {
      t.equal(page.headers[name], shown.headers[name], name)
    }
    t.equal(page.body, '')
  })

  await t.test('a slash too many does no harm', async (t) => {
    const service = await build(t)
    await service.login({ sid: 's1' })
    await service.login({ homeAccountId: 'v.t', sid: 's2' })
    const payload = new URLSearchParams({ logout_token: await service.provider.logoutToken({ sid: 's1' }) }).toString()
    const answer = await service.app.inject({ method: 'POST', url: '/backchannel-logout/', headers: form, payload })
    t.equal(answer.statusCode, 200)
    t.equal((await service.app.inject('/frontchannel-logout/main/?sid=s2')).statusCode, 200)
    t.equal((await service.app.inject('/healthz/')).statusCode, 200)
    t.same(await service.rows(), [])
  })

  await t.test('a body over 64 KiB is refused before it is read', async (t) => {
    const service = await build(t)
    t.equal((await backChannel(service, `logout_token=${'x'.repeat(64 * 1024)}`)).statusCode, 413)
    t.equal((await backChannel(service, `logout_token=${'x'.repeat(64 * 1024 - 20)}`)).statusCode, 400)

    await service.app.listen({ port: 0, host: '127.0.0.1' })
    const socket = connect((service.app.server.address() as AddressInfo).port, '127.0.0.1')
    socket.write(
      `POST /backchannel-logout HTTP/1.1\r\nhost: x\r\ncontent-type: ${form['content-type']}\r\ncontent-length: 99999999\r\n\r\n`
    )
    const answer = await new Promise<string>((resolve) => socket.once('data', (data) => resolve(String(data))))
    socket.destroy()
    t.match(answer, /^HTTP\/1.1 413/)
  })
})

t.test('the front channel', async (t) => {
  const get = (service: Service, url: string, headers: Record<string, string> = {}) =>
    service.app.inject({ method: 'GET', url, headers })
  const two = async (service: Service) => {
    await service.login({ clientId: 'a', homeAccountId: 'u.t', sid: 's1' })
    await service.login({ clientId: 'b', homeAccountId: 'u.t', sid: 's1' })
    await service.login({ clientId: 'a', homeAccountId: 'v.t', sid: 's2' })
  }

  await t.test('ends that session, named in each of its forms', async (t) => {
    const forms: [string, (issuer: string) => string][] = [
      ['sid alone, where one issuer is configured', () => '/frontchannel-logout?sid=s1'],
      ['iss and sid', (iss) => `/frontchannel-logout?iss=${encodeURIComponent(iss)}&sid=s1`],
      ['sid alone, with the name of the issuer', () => '/frontchannel-logout/main?sid=s1'],
      [
        'iss and sid, with the name of the issuer',
        (iss) => `/frontchannel-logout/main?sid=s1&iss=${encodeURIComponent(iss)}`
      ],
      ['with parameters nobody knows', () => '/frontchannel-logout/main?x=1&sid=s1&state=2']
    ]
    for (const [name, url] of forms) {
      await t.test(name, async (t) => {
        const service = await build(t)
        await two(service)
        const answer = await get(service, url(service.provider.issuer))
        t.equal(answer.statusCode, 200)
        t.equal(answer.headers['cache-control'], 'no-store')
        t.same(await service.rows(), ['a/v.t'])
        t.match(await service.database.query('select source, sid from msal_logout.records'), [
          { source: 'frontchannel', sid: 's1' }
        ])
      })
    }
  })

  await t.test('lets nobody who makes up a sid fill the log, and quotes none', async (t) => {
    const service = await build(t, { edges: { senders: createSenders() } })
    await get(service, '/frontchannel-logout/main?sid=made-up')
    t.same(
      service.logs.filter((line) => JSON.parse(line).msg === 'signed out'),
      [],
      'it is one of the lines that are limited'
    )
    const answer = await get(service, '/frontchannel-logout/%zz?sid=made-up')
    t.equal(answer.statusCode, 400)
    t.match(answer.json(), { error: 'invalid_request', error_description: 'the path is not valid' })
  })

  await t.test('a sid of more than 255 bytes is rejected', async (t) => {
    const service = await build(t)
    // Of any characters, so that it cannot be compressed: a row of an index has 2,704 bytes.
    const long = Array.from({ length: 1_024 }, (_, i) => String.fromCodePoint(0x4e00 + ((i * 7_919) % 20_000))).join('')
    const call = (sid: string) => get(service, `/frontchannel-logout/main?sid=${encodeURIComponent(sid)}`)
    t.equal((await call(long)).statusCode, 400)
    t.equal((await call(long.slice(0, 86))).statusCode, 400)
    t.equal((await call(long.slice(0, 85))).statusCode, 200)
    t.equal((await service.spool.status()).unsigned, 0)
  })

  await t.test('the page is the same for any sid, and may be framed', async (t) => {
    const service = await build(t)
    await two(service)
    const known = await get(service, '/frontchannel-logout/main?sid=s1')
    const unknown = await get(service, '/frontchannel-logout/main?sid=unknown')
    t.equal(known.body, unknown.body)
    const headers = ({ date: _, ...rest }: typeof known.headers) => rest
    t.same(headers(known.headers), headers(unknown.headers))
    t.equal(known.headers['x-frame-options'], undefined)
    t.notMatch(known.headers['content-security-policy'], /frame-ancestors/)
    t.same(
      await service.database.query(`select * from msal_logout.records where sid = 'unknown'`),
      [],
      'no record of a guess'
    )
  })

  await t.test('a prefetch changes nothing', async (t) => {
    const service = await build(t)
    await two(service)
    const before = await service.database.snapshot()
    for (const headers of [
      { 'sec-purpose': 'prefetch' },
      { 'sec-purpose': 'prefetch;prerender' },
      { purpose: 'prefetch' }
    ]) {
      const answer = await get(service, '/frontchannel-logout/main?sid=s1', headers)
      t.equal(answer.statusCode, 200)
    }
    t.same(await service.database.snapshot(), before)
  })

  await t.test('what is ambiguous or malformed changes nothing', async (t) => {
    const other = { name: 'other', issuer: 'https://other.example' }
    const service = await build(t, {
      issuers: [other, { name: 'closed', issuer: 'https://closed.example', frontChannel: false }]
    })
    await two(service)
    await service.login({ homeAccountId: 'w.t', sid: 's1', issuer: 'https://closed.example' })
    const before = await service.database.snapshot()
    const iss = encodeURIComponent(service.provider.issuer)
    for (const url of [
      '/frontchannel-logout?sid=s1',
      '/frontchannel-logout',
      '/frontchannel-logout/main',
      '/frontchannel-logout/main?sid=',
      '/frontchannel-logout/main?sid=s1&sid=s1',
      '/frontchannel-logout/main?sid=s1&sid=s2',
      '/frontchannel-logout/main?sid[]=s1',
      '/frontchannel-logout/main?sid=s%001',
      `/frontchannel-logout/main?iss=${iss}`,
      `/frontchannel-logout/main?iss=${iss}&iss=${iss}&sid=s1`,
      '/frontchannel-logout/main?iss=https://other.example&sid=s1',
      '/frontchannel-logout?iss=https://evil.example&sid=s1',
      '/frontchannel-logout/unknown?sid=s1',
      '/frontchannel-logout/closed?sid=s1',
      '/frontchannel-logout?iss=https://closed.example&sid=s1',
      `/frontchannel-logout/main?sid=${'x'.repeat(2_000)}`
    ]) {
      t.equal((await get(service, url)).statusCode, 400, url.slice(0, 80))
    }
    t.same(await service.database.snapshot(), before)
  })

  await t.test('a sid that comes before its login is stored still wins', async (t) => {
    const service = await build(t)
    const before = nowSeconds()
    await get(service, '/frontchannel-logout/main?sid=s1')
    t.match(await service.login({ sid: 's1' }), { accepted: false })
    t.match(await service.login({ sid: 's1', issuedAt: before + 2 }), { accepted: false }, 'by a clock that is ahead')
    t.match(await service.login({ sid: 's1', issuedAt: nowSeconds() + 3 }), { accepted: true })
  })

  await t.test('at a template, sid alone ends the session in the tenant where it is', async (t) => {
    const template = 'https://login.example/{tenantid}/v2.0'
    const issuer = 'https://login.example/11111111-1111-1111-1111-111111111111/v2.0'
    for (const tenants of [undefined, ['11111111-1111-1111-1111-111111111111']]) {
      const service = await build(t, { policy: { name: 'entra', issuer: template, tenants } })
      await service.login({ homeAccountId: 'u.t', sid: 's1', issuer })
      await service.login({ homeAccountId: 'v.t', sid: 's1', issuer: 'https://login.example/elsewhere/v2.0' })
      t.equal((await get(service, '/frontchannel-logout/entra?sid=s1')).statusCode, 200)
      t.same(await service.rows(), ['client-a/v.t'])
    }
  })
})

t.test('healthz answers while the process lives, and nothing else is there', async (t) => {
  const service = await build(t)
  t.equal((await service.app.inject('/healthz')).statusCode, 200)
  for (const url of [
    '/',
    '/readyz',
    '/metrics',
    '/admin/purges',
    '/backchannel-logout/x',
    '/frontchannel-logout/a/b'
  ]) {
    t.equal(
      (await service.app.inject(url)).statusCode,
      404,
      `${url}: nothing of the operators' is on the public listener`
    )
  }
})

t.test('keys to encrypt with', async (t) => {
  const url = '/.well-known/jwks.json'
  const published = decryptionKey('P-256')

  await t.test('are published without their secret part, and no others', async (t) => {
    const old = decryptionKey('P-256', 'old')
    const service = await build(t, {
      config: {
        decryptionKeys: [
          { ...published, isPublished: true },
          { ...old, isPublished: false }
        ]
      }
    })
    const answer = await service.app.inject({ url })
    t.equal(answer.statusCode, 200)
    t.match(answer.headers, { 'content-type': /^application\/json/, 'cache-control': 'no-store' })
    t.same(answer.json(), {
      keys: [{ ...published.publicKey, kid: published.kid, alg: 'ECDH-ES', use: 'enc' }]
    })
    t.notOk('d' in answer.json().keys[0])
    t.equal((await service.app.inject({ method: 'HEAD', url })).body, '')
    t.match(await service.app.inject({ method: 'POST', url }), { statusCode: 405, headers: { allow: 'GET, HEAD' } })
    t.match(await service.app.inject({ method: 'OPTIONS', url }), { statusCode: 204, headers: { allow: 'GET, HEAD' } })
  })

  await t.test('are nowhere if none is configured to be published', async (t) => {
    const service = await build(t, { config: { decryptionKeys: [{ ...published, isPublished: false }] } })
    t.equal((await service.app.inject({ url })).statusCode, 404)
  })
})

t.test('a signal that was sent elsewhere is found among those that were rejected', async (t) => {
  const service = await build(t, {
    issuers: [{ name: 'other', issuer: 'https://other.example', clientIds: ['client-b'] }]
  })
  await service.login({ sid: 's1' })
  const before = await service.database.snapshot()
  const payload = `logout_token=${await service.provider.logoutToken({ sid: 's1' })}`
  const inject = (method: 'GET' | 'HEAD' | 'POST' | 'PUT', url: string, body?: string) =>
    service.app.inject({ method, url, headers: form, ...(body === undefined ? {} : { payload: body }) })
  const found: [name: string, act: () => Promise<{ statusCode: number }>, status: number, expected?: object][] = [
    [
      'another path',
      () => inject('POST', '/auth/backchannel-logout?sid=secret', payload),
      404,
      {
        code: 'ERR_REQUEST_PATH',
        source: 'backchannel',
        details: { method: 'POST', path: '/auth/backchannel-logout' },
        accepted: '/backchannel-logout, /frontchannel-logout, /frontchannel-logout/<name>'
      }
    ],
    [
      'a path with a token in it',
      () => inject('GET', `/out/${payload.replace('logout_token=', '')}?sid=s1`),
      404,
      { code: 'ERR_REQUEST_PATH', source: 'frontchannel', details: { path: '/out/[a token]' } }
    ],
    [
      'a redirect',
      () => inject('GET', '/backchannel-logout'),
      405,
      { code: 'ERR_REQUEST_METHOD', details: { method: 'GET' }, accepted: 'POST' }
    ],
    [
      'a form at the front channel',
      () => inject('POST', '/frontchannel-logout/main', 'sid=s1'),
      405,
      { code: 'ERR_REQUEST_METHOD', source: 'frontchannel' }
    ],
    [
      'a large body',
      () => inject('POST', '/backchannel-logout', `logout_token=${'x'.repeat(70_000)}`),
      413,
      { code: 'ERR_REQUEST_TOO_LONG', source: 'backchannel' }
    ],
    [
      'a client of another issuer',
      async () => service.post(await service.provider.logoutToken({ aud: 'client-b' })),
      400,
      { code: 'ERR_TOKEN_AUDIENCE', hint: 'is a client id of "other"' }
    ],
    ['a scanner', () => inject('GET', '/wp-login.php'), 404],
    ['a scanner that posts', () => inject('POST', '/', 'user=admin'), 404],
    ['a probe', () => inject('HEAD', '/backchannel-logout'), 405],
    ['another method of what is no signal', () => inject('PUT', '/healthz'), 405]
  ]
  for (const [name, act, status, expected] of found) {
    const last = service.rejections.list(1)[0]?.position ?? 0
    t.equal((await act()).statusCode, status, name)
    const newer = service.rejections.list(500).filter(({ position }) => position > last)
    t.match(newer, expected === undefined ? [] : [expected], name)
    t.equal(newer.length, expected === undefined ? 0 : 1, name)
  }
  for (let times = 0; times < 130; times += 1) {
    t.equal((await inject('POST', '/elsewhere', payload)).statusCode, 404)
  }
  t.ok(service.rejections.limited() > 0, 'a flood of them is limited as any other')
  t.same(await service.database.snapshot(), before, 'nothing has changed')
})

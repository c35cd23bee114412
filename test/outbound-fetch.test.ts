import t from 'tap'
import { createOutboundFetch } from '../src/outbound-fetch.ts'
import { readProxies } from '../src/proxies.ts'
import { listen } from './fixtures/listen.ts'
import { startTunnel } from './fixtures/tunnel.ts'

const init = { signal: AbortSignal.timeout(100_000), redirect: 'manual', headers: {} } as const
t.test('an issuer is asked through the proxy, or directly, as the environment has it', async (t) => {
  const origin = await listen(t, (_request, response) => response.end('direct'))
  const plain = origin.replace('http:', 'https:') // it speaks no TLS
  const { url, asked } = await startTunnel(t, new URL(origin).port)
  for (const [name, target, env, expected] of [
    ['https', 'https://login.test/', { HTTPS_PROXY: url }, 'login.test:443'],
    ['https, by the proxy of http', 'https://login.test/', { HTTP_PROXY: url }, 'login.test:443'],
    ['https, with a port', 'https://login.test:8443/', { https_proxy: `http://${url}` }, 'login.test:8443'],
    ['https on loopback', plain, { HTTPS_PROXY: url }, new URL(origin).host],
    ['https, excepted', plain, { HTTPS_PROXY: url, NO_PROXY: '127.0.0.1' }, undefined],
    [
      'https, of another port than is excepted',
      'https://login.test/',
      { HTTPS_PROXY: url, NO_PROXY: 'login.test:8443' },
      'login.test:443'
    ],
    ['https, as all is excepted', plain, { HTTPS_PROXY: url, NO_PROXY: '*' }, undefined],
    [
      'https, of a domain that is excepted',
      plain.replace('127.0.0.1', 'a.localhost'),
      { HTTPS_PROXY: url, NO_PROXY: '.localhost' },
      undefined
    ],
    [
      'http on loopback, which would leave the machine in the clear',
      origin,
      { HTTP_PROXY: url, HTTPS_PROXY: url },
      undefined
    ],
    ['https, without a proxy', plain, {}, undefined]
  ] as const) {
    asked.length = 0
    const outbound = createOutboundFetch(readProxies(env, []))
    const answer = await outbound.fetch(target, init).then(
      ({ status }) => status,
      () => 'failed'
    )
    t.same(asked, expected === undefined ? [] : [{ host: expected, credentials: undefined }], name)
    t.equal(
      outbound.proxyOf(target),
      expected === undefined ? undefined : `http://${url}`,
      `${name}: so it is reported`
    )
    t.equal(answer, target === origin ? 200 : 'failed', name)
  }
})

t.test('the environment of this process is not read', async (t) => {
  const plain = (await listen(t, (_request, response) => response.end())).replace('http:', 'https:')
  const { url, asked } = await startTunnel(t, new URL(plain).port)
  const before = { ...process.env }
  t.teardown(() => {
    process.env = before
  })
  Object.assign(process.env, {
    HTTPS_PROXY: `http://${url}`,
    https_proxy: `http://${url}`,
    HTTP_PROXY: `http://${url}`
  })
  const { fetch } = createOutboundFetch({ https: undefined, http: undefined, none: '' })
  await t.rejects(fetch(plain, init), { cause: { code: /SSL/ } }, 'it was reached')
  t.same(asked, [])
})

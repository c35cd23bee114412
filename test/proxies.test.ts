import t from 'tap'
import { proxyFor, readProxies } from '../src/proxies.ts'

t.test('proxies are read as other programs read them', (t) => {
  const none = { https: undefined, http: undefined, none: '' }
  for (const [name, env, expected] of [
    ['none', {}, none],
    [
      'all three',
      { HTTPS_PROXY: 'http://p:1', HTTP_PROXY: 'http://q:2', NO_PROXY: 'a,b' },
      { https: 'http://p:1', http: 'http://q:2', none: 'a,b' }
    ],
    ['in lower case', { https_proxy: 'http://p:1', no_proxy: 'a' }, { ...none, https: 'http://p:1', none: 'a' }],
    [
      'in both, of which lower case wins',
      { https_proxy: 'http://p:1', HTTPS_PROXY: 'http://q:2' },
      { ...none, https: 'http://p:1' }
    ],
    [
      'empty ones',
      { https_proxy: '', HTTPS_PROXY: 'http://q:2', HTTP_PROXY: ' ', NO_PROXY: '' },
      { ...none, https: 'http://q:2' }
    ],
    ['with blanks around', { HTTPS_PROXY: ' http://p:1\n' }, { ...none, https: 'http://p:1' }],
    ['without a scheme', { HTTPS_PROXY: 'p:3128' }, { ...none, https: 'http://p:3128' }],
    ['over TLS', { HTTPS_PROXY: 'https://p:3128' }, { ...none, https: 'https://p:3128' }]
  ] as const) {
    const problems: string[] = []
    t.same(readProxies(env, problems), expected, name)
    t.same(problems, [], name)
  }
  t.end()
})

t.test('a proxy that cannot be used is a problem of its variable, and its password is not shown', (t) => {
  for (const value of [
    'socks5://user:password@p:1080',
    'ftp://p',
    'http://',
    'http://user:password@[',
    'user:password@p:x'
  ]) {
    const problems: string[] = []
    readProxies({ HTTPS_PROXY: value }, problems)
    t.same(problems, ['HTTPS_PROXY: must be the URL of an HTTP proxy'], value)
  }
  t.end()
})

t.test('a URL is fetched by the proxy but where it is excepted', (t) => {
  const proxies = { https: 'http://user:password@p:3128/', http: undefined, none: '' }
  for (const [url, none, expected] of [
    ['https://login.example/keys', '', 'http://p:3128'],
    ['https://login.example/keys', 'other.example, more.example', 'http://p:3128'],
    ['https://login.example/keys', 'login.example', undefined],
    ['https://login.example/keys', 'LOGIN.example', undefined],
    ['https://login.example/keys', 'a b,login.example', undefined],
    ['https://login.example/keys', '.example', undefined],
    ['https://login.example/keys', '*.example', undefined],
    ['https://login.example/keys', 'example', undefined],
    ['https://login.example/keys', 'ample', 'http://p:3128'],
    ['https://login.example/keys', '*', undefined],
    ['https://login.example/keys', 'login.example:443', undefined],
    ['https://login.example/keys', 'login.example:8443', 'http://p:3128'],
    ['https://login.example:8443/keys', 'login.example:8443', undefined],
    ['https://192.0.2.1/keys', '192.0.2.1', undefined],
    ['http://127.0.0.1:8080/keys', '', undefined]
  ] as const) {
    t.equal(proxyFor(url, { ...proxies, none }), expected, `${url} ${none}`)
  }
  t.equal(proxyFor('https://login.example/', { ...proxies, https: undefined, http: 'http://q:80' }), 'http://q')
  t.end()
})

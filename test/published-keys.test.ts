import { setTimeout as delay } from 'node:timers/promises'
import t, { type Test } from 'tap'
import { fetchPublishedKeys, inspectIssuer, type KeySource } from '../src/published-keys.ts'
import { createSigningKey } from './fixtures/identity-provider.ts'
import { listen } from './fixtures/listen.ts'

const key = (await createSigningKey()).jwk
const tenant = '9188040d-6c67-4c5b-b112-36a304b66dad'
const discovery = '/.well-known/openid-configuration'

interface Published {
  /** What is published at each path: JSON, or text as it is; of `origin`. */
  readonly documents: (origin: string) => Record<string, unknown>
  readonly source?: (origin: string) => Partial<KeySource>
  readonly headers?: Record<string, string>
  readonly delayMs?: number
}

/** An issuer that publishes this, as it is configured. */
async function publish(t: Test, { documents, source, headers = {}, delayMs = 0 }: Published): Promise<KeySource> {
  const origin = await listen(t, async (request, response) => {
    await delay(delayMs)
    const document = documents(origin)[request.url ?? '']
    for (const [name, value] of Object.entries(headers)) {
      response.setHeader(name, value)
    }
    if (document === undefined) {
      response.writeHead(404).end()
    } else if (typeof document === 'object' && document !== null && 'location' in document) {
      response.writeHead(302, { location: String(document.location) }).end()
    } else {
      response.end(typeof document === 'string' ? document : JSON.stringify(document))
    }
  })
  return { issuer: origin, jwksUri: undefined, algorithms: ['RS256'], ...source?.(origin) }
}

const sound = (origin: string): Record<string, unknown> => ({
  [discovery]: { issuer: origin, jwks_uri: `${origin}/keys` },
  '/keys': { keys: [key] }
})

const good: [name: string, published: Published][] = [
  ['by discovery', { documents: sound }],
  [
    'of an issuer that ends with a slash',
    {
      documents: (origin) => ({ ...sound(origin), [discovery]: { issuer: `${origin}/`, jwks_uri: `${origin}/keys` } }),
      source: (origin) => ({ issuer: `${origin}/` })
    }
  ],
  [
    'of an issuer with a path',
    {
      documents: (origin) => ({
        ...sound(origin),
        [`/realm${discovery}`]: { issuer: `${origin}/realm`, jwks_uri: `${origin}/keys` }
      }),
      source: (origin) => ({ issuer: `${origin}/realm` })
    }
  ],
  [
    'of a template, from the document of organizations',
    {
      documents: (origin) => ({
        ...sound(origin),
        [`/organizations/v2.0${discovery}`]: { issuer: `${origin}/{tenantid}/v2.0`, jwks_uri: `${origin}/keys` }
      }),
      source: (origin) => ({ issuer: `${origin}/{tenantid}/v2.0` })
    }
  ],
  [
    'from where the configuration says, without discovery',
    { documents: () => ({ '/own': { keys: [key] } }), source: (origin) => ({ jwksUri: `${origin}/own` }) }
  ],
  [
    'by redirects within the origin',
    {
      documents: (origin) => ({
        [discovery]: { location: '/discovery' },
        '/discovery': { issuer: origin, jwks_uri: `${origin}/keys` },
        '/keys': { location: `${origin}/v2/keys` },
        '/v2/keys': { keys: [key] }
      })
    }
  ],
  [
    'with byte order marks',
    {
      documents: (origin) => ({
        [discovery]: `\ufeff${JSON.stringify(sound(origin)[discovery])}`,
        '/keys': `\ufeff${JSON.stringify({ keys: [key] })}`
      })
    }
  ],
  [
    'beside keys that are of no use',
    {
      documents: (origin) => ({
        ...sound(origin),
        '/keys': { keys: [null, 1, 'x', [], {}, { kty: 1 }, { kty: 'oct', k: 'AA' }, { ...key, e: 'AQ' }, key] }
      })
    }
  ],
  [
    'bound to the template of the configured tenant',
    {
      documents: (origin) => ({ '/keys': { keys: [{ ...key, issuer: `${origin}/{tenantid}/v2.0` }] } }),
      source: (origin) => ({ issuer: `${origin}/${tenant}/v2.0`, jwksUri: `${origin}/keys` })
    }
  ],
  [
    'bound to one tenant of the configured template',
    {
      documents: (origin) => ({ '/keys': { keys: [{ ...key, issuer: `${origin}/${tenant}/v2.0` }] } }),
      source: (origin) => ({ issuer: `${origin}/{tenantid}/v2.0`, jwksUri: `${origin}/keys` })
    }
  ]
]

t.test('keys are had', async (t) => {
  for (const [name, published] of good) {
    await t.test(name, async (t) => {
      const { usable } = await fetchPublishedKeys(await publish(t, published), { fetch })
      t.match(usable, [{ kid: key.kid }])
      t.equal(usable.length, 1)
    })
  }
})

const bad: [name: string, published: Published, expected: object][] = [
  ['no discovery document', { documents: () => ({}) }, { fault: 'discovery', cause: { message: /answered 404/ } }],
  [
    'a discovery document that redirects to another origin',
    { documents: () => ({ [discovery]: { location: 'https://elsewhere.example/x?y' } }) },
    { fault: 'redirect', found: 'https://elsewhere.example' }
  ],
  [
    'a page in place of the discovery document',
    { documents: () => ({ [discovery]: '<!doctype html>' }) },
    { fault: 'content', cause: { message: /openid-configuration" answered with no JSON/ } }
  ],
  [
    'a discovery document of another issuer',
    { documents: (origin) => ({ [discovery]: { issuer: `${origin}/`, jwks_uri: `${origin}/keys` } }) },
    { fault: 'issuer', found: /^http:\/\/127.0.0.1:\d+\/$/ }
  ],
  [
    'a discovery document of an issuer with control characters',
    { documents: () => ({ [discovery]: { issuer: `\u001b[2J\u202e${'x'.repeat(1_000)}` } }) },
    { fault: 'issuer', found: /^\\u{1b}\[2J\\u{202e}x{183}$/ }
  ],
  [
    'a discovery document without an issuer',
    { documents: () => ({ [discovery]: {} }) },
    { fault: 'issuer', found: undefined }
  ],
  [
    'a discovery document of a tenant, where the template is configured',
    {
      documents: (origin) => ({ [`/organizations/v2.0${discovery}`]: { issuer: `${origin}/${tenant}/v2.0` } }),
      source: (origin) => ({ issuer: `${origin}/{tenantid}/v2.0` })
    },
    { fault: 'issuer', found: new RegExp(tenant) }
  ],
  [
    'a discovery document without jwks_uri',
    { documents: (origin) => ({ [discovery]: { issuer: origin } }) },
    { fault: 'jwks_uri', found: undefined }
  ],
  ...[
    `data:application/json,${encodeURIComponent(JSON.stringify({ keys: [key] }))}`,
    'blob:https://login.example/1',
    'file:///etc/passwd',
    'ftp://login.example/keys',
    'http://login.example/keys',
    'http://user:password@127.0.0.1/keys',
    '/keys',
    'keys',
    ''
  ].map((uri): [string, Published, object] => [
    `a jwks_uri of ${uri.slice(0, 30)}`,
    { documents: (origin) => ({ ...sound(origin), [discovery]: { issuer: origin, jwks_uri: uri } }) },
    { fault: 'jwks_uri', cause: { message: /^the "jwks_uri" of the discovery document must/ } }
  ]),
  [
    'no key set',
    { documents: (origin) => ({ ...sound(origin), '/keys': undefined }) },
    { fault: 'keys', cause: { message: /keys" answered 404/ } }
  ],
  [
    'a page in place of the key set',
    { documents: (origin) => ({ ...sound(origin), '/keys': '<!doctype html>' }) },
    { fault: 'content' }
  ],
  [
    'a key set that redirects to another origin',
    { documents: (origin) => ({ ...sound(origin), '/keys': { location: 'http://localhost:1/keys' } }) },
    { fault: 'redirect', found: 'http://localhost:1' }
  ],
  [
    'one key in place of a set',
    { documents: (origin) => ({ ...sound(origin), '/keys': key }) },
    { fault: 'content', cause: { message: /it has no "keys"/ } }
  ],
  [
    'more keys than anybody needs',
    { documents: (origin) => ({ ...sound(origin), '/keys': { keys: Array.from({ length: 101 }, () => key) } }) },
    { fault: 'content', cause: { message: /more than 100 keys/ } }
  ],
  [
    'an empty set',
    { documents: (origin) => ({ ...sound(origin), '/keys': { keys: [] } }) },
    { fault: 'unusable', unusableKeys: [] }
  ],
  [
    'keys of which none is of use',
    {
      documents: (origin) => ({
        ...sound(origin),
        '/keys': {
          keys: [
            { ...key, e: 'AQ' },
            { ...key, kid: 1, use: 'enc' }
          ]
        }
      })
    },
    {
      fault: 'unusable',
      unusableKeys: [
        { kid: key.kid, fault: /exponent/ },
        { kid: '1', fault: /"use"/ }
      ]
    }
  ],
  [
    'keys of another algorithm',
    { documents: sound, source: () => ({ algorithms: ['ES256'] }) },
    { fault: 'unusable', unusableKeys: [{ fault: 'it fits none of ES256' }] }
  ],
  [
    'keys of other issuers alone',
    {
      documents: (origin) => ({ '/keys': { keys: [{ ...key, issuer: `${origin}/{tenantid}/v2.0` }] } }),
      source: (origin) => ({ issuer: `${origin}/${tenant}/v1.0`, jwksUri: `${origin}/keys` })
    },
    { fault: 'unusable', unusableKeys: [{ fault: /another issuer/ }] }
  ]
]

t.test('keys are not had, for the reason that is reported', async (t) => {
  for (const [name, published, expected] of bad) {
    await t.test(name, async (t) => {
      const source = await publish(t, published)
      const report = await inspectIssuer(source)
      t.match(report, { usableKeys: 0, ...expected })
      t.notMatch(JSON.stringify(report) + String(report.cause), /doctype|password/)
      await t.rejects(fetchPublishedKeys(source, { fetch }), { name: 'PublishedKeysError' })
    })
  }
})

t.test('an https issuer that names an http key set on loopback is not believed', async (t) => {
  let asked = 0
  const answer = async (url: string) => {
    asked += 1
    return Response.json({
      issuer: 'https://login.example',
      jwks_uri: `${new URL('/keys', 'http://127.0.0.1:1').href}`,
      url
    })
  }
  const source = { issuer: 'https://login.example', jwksUri: undefined, algorithms: ['RS256'] }
  t.match(await inspectIssuer(source, { fetch: answer }), { fault: 'jwks_uri', found: 'http://127.0.0.1:1/keys' })
  t.equal(asked, 1)
})

t.test('a report says what is unusual though all is well', async (t) => {
  const source = await publish(t, {
    documents: (origin) => ({
      [discovery]: { location: '/discovery' },
      '/discovery': `\ufeff${JSON.stringify({ issuer: origin, jwks_uri: `${origin}/keys` })}`,
      '/keys': { keys: [key, { ...key, kid: 'weak', e: 'AQ' }] }
    }),
    headers: { date: new Date(1_700_000_090_000).toUTCString() },
    delayMs: 40
  })
  const report = await inspectIssuer(source, { now: () => 1_700_000_000_000, proxyOf: (url) => `proxy of ${url}` })
  t.match(report, {
    fault: undefined,
    found: undefined,
    redirected: [{ from: `${source.issuer}${discovery}`, to: `${source.issuer}/discovery` }],
    withByteOrderMark: [`${source.issuer}${discovery}`],
    usableKeys: 1,
    unusableKeys: [{ kid: 'weak', fault: /exponent/ }],
    proxy: `proxy of ${source.issuer}`
  })
  t.ok(report.tookMs >= 100, 'three answers')
  t.equal(report.clockAheadSeconds, 91, 'to half a second, of which nothing is known')
})

t.test('an issuer that hangs is reported as such', async (t) => {
  const source = await publish(t, { documents: sound, delayMs: 300 })
  t.match(await inspectIssuer(source, { timeoutMs: 50 }), {
    fault: 'discovery',
    cause: { message: /did not answer within 0.05 s/ }
  })
  t.match(await inspectIssuer({ ...source, jwksUri: `${source.issuer}/keys` }, { timeoutMs: 50 }), { fault: 'keys' })
})

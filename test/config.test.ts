import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t from 'tap'
import { type Config, readConfig } from '../src/config.ts'
import { ConfigurationError } from '../src/errors.ts'

const folder = mkdtempSync(join(tmpdir(), 'msal-logout-config-'))
t.teardown(() => rmSync(folder, { recursive: true }))

const minimal = { ISSUER: 'https://issuer.example', CLIENT_IDS: 'a' }

function withFile(content: unknown): Config {
  const file = join(folder, 'issuers.json')
  writeFileSync(file, typeof content === 'string' ? content : JSON.stringify(content))
  return readConfig({ ISSUERS_FILE: file })
}

function problems(read: () => unknown): readonly string[] {
  try {
    read()
  } catch (error) {
    if (error instanceof ConfigurationError) {
      return error.problems
    }
    throw error
  }
  return []
}

const entry = (changes: object) => ({
  issuers: [{ name: 'x', issuer: 'https://x.example', clientIds: ['a'], ...changes }]
})

t.test('the short form has the defaults of the contract', async (t) => {
  const config = readConfig({ ...minimal, CLIENT_IDS: 'a, b,,c ', DATABASE_URL: '' })
  t.match(config, {
    databaseUrl: undefined,
    host: '0.0.0.0',
    port: 3000,
    adminHost: '127.0.0.1',
    adminPort: 3001,
    adminToken: undefined,
    spoolDir: '.data/spool',
    logLevel: 'info'
  })
  t.same(config.issuers, [
    {
      name: 'default',
      issuer: 'https://issuer.example',
      clientIds: ['a', 'b', 'c'],
      tenants: undefined,
      jwksUri: undefined,
      algorithms: ['RS256'],
      types: ['logout+jwt', 'JWT', null],
      maxStaleKeysSeconds: 86_400,
      requireExp: true,
      maxTokenAgeSeconds: 600,
      clockToleranceSeconds: 60,
      sidAndSubject: 'session',
      purgeScope: 'account',
      frontChannel: true
    }
  ])
  t.ok(Object.isFrozen(config))
})

t.test('every variable is taken', async (t) => {
  const config = readConfig({
    ...minimal,
    DATABASE_URL: 'postgres://u@h/d',
    HOST: '::',
    PORT: '0',
    ADMIN_HOST: '10.0.0.1',
    ADMIN_PORT: '65535',
    ADMIN_TOKEN: 'x'.repeat(32),
    SPOOL_DIR: '/spool',
    LOG_LEVEL: 'debug',
    TRUSTED_PROXIES: '10.0.0.1, fd00::/8'
  })
  t.match(config, {
    databaseUrl: 'postgres://u@h/d',
    host: '::',
    port: 0,
    adminHost: '10.0.0.1',
    adminPort: 65_535,
    adminToken: 'x'.repeat(32),
    spoolDir: '/spool',
    logLevel: 'debug',
    trustedProxies: ['10.0.0.1', 'fd00::/8']
  })
})

t.test('the file is taken whole', async (t) => {
  const full = {
    name: 'contoso',
    issuer: 'https://login.microsoftonline.com/{tenantid}/v2.0',
    tenants: ['11111111-1111-1111-1111-111111111111'],
    clientIds: ['a', 'b'],
    jwksUri: 'https://login.microsoftonline.com/organizations/discovery/v2.0/keys',
    algorithms: ['RS256', 'ES256'],
    types: ['logout+jwt'],
    maxStaleKeysSeconds: 60,
    requireExp: false,
    maxTokenAgeSeconds: 60,
    clockToleranceSeconds: 0,
    sidAndSubject: 'subject',
    purgeScope: 'session',
    frontChannel: false
  }
  const config = withFile({ issuers: [full, { name: 'loop', issuer: 'http://127.0.0.1:8080', clientIds: ['a'] }] })
  t.same(config.issuers[0], full)
  t.match(config.issuers[1], { name: 'loop', requireExp: true })
})

t.test('a problem names its variable', async (t) => {
  const cases: [string, () => unknown, RegExp][] = [
    ['nothing', () => readConfig({}), /^ISSUER: .*ISSUERS_FILE/],
    ['no client ids', () => readConfig({ ISSUER: 'https://x.example' }), /^CLIENT_IDS:/],
    ['blank client ids', () => readConfig({ ISSUER: 'https://x.example', CLIENT_IDS: ' , ' }), /^CLIENT_IDS:/],
    ['no issuer', () => readConfig({ CLIENT_IDS: 'a' }), /^ISSUER:/],
    ['both forms', () => readConfig({ ...minimal, ISSUERS_FILE: 'x' }), /^ISSUERS_FILE: .*not both/],
    ['an issuer that is no URL', () => readConfig({ ...minimal, ISSUER: 'x' }), /^ISSUER: is not a URL/],
    ['an issuer on http', () => readConfig({ ...minimal, ISSUER: 'http://x.example' }), /^ISSUER: must be https/],
    [
      'an issuer on a host that only begins like loopback',
      () => readConfig({ ...minimal, ISSUER: 'http://127.0.0.1.x.example' }),
      /^ISSUER: must be https/
    ],
    ['an issuer on ftp', () => readConfig({ ...minimal, ISSUER: 'ftp://x.example' }), /^ISSUER: must be https/],
    [
      'an issuer with credentials',
      () => readConfig({ ...minimal, ISSUER: 'https://u:p@x.example' }),
      /^ISSUER: must have neither/
    ],
    ['a port out of range', () => readConfig({ ...minimal, PORT: '65536' }), /^PORT:/],
    ['a port with a sign', () => readConfig({ ...minimal, ADMIN_PORT: '-1' }), /^ADMIN_PORT:/],
    [
      'an admin token with a line end',
      () => readConfig({ ...minimal, ADMIN_TOKEN: `${'x'.repeat(32)}\n` }),
      /^ADMIN_TOKEN: .*line ends/
    ],
    ['a short admin token', () => readConfig({ ...minimal, ADMIN_TOKEN: 'x'.repeat(31) }), /^ADMIN_TOKEN: .*32/],
    ['another database', () => readConfig({ ...minimal, DATABASE_URL: 'mysql://h/d' }), /^DATABASE_URL:/],
    ['an unknown log level', () => readConfig({ ...minimal, LOG_LEVEL: 'loud' }), /^LOG_LEVEL:/],
    [
      'a file that is not there',
      () => readConfig({ ISSUERS_FILE: join(folder, 'none') }),
      /^ISSUERS_FILE: cannot read/
    ],
    ['a file that is not JSON', () => withFile('{'), /^ISSUERS_FILE: is not JSON/],
    ['a file without issuers', () => withFile({}), /^ISSUERS_FILE: .*issuers/],
    ['an empty list', () => withFile({ issuers: [] }), /^ISSUERS_FILE: issuers/],
    ['an unknown key', () => withFile(entry({ colour: 'red' })), /^ISSUERS_FILE: issuers\[0\]\.colour: is not known/],
    ['an unknown key beside', () => withFile({ ...entry({}), colour: 'red' }), /^ISSUERS_FILE: colour: is not known/],
    ['no name', () => withFile(entry({ name: undefined })), /name/],
    ['a name that is no path', () => withFile(entry({ name: 'a/b' })), /issuers\[0\]\.name/],
    ['no client ids in the file', () => withFile(entry({ clientIds: [] })), /issuers\[0\]\.clientIds/],
    ['an HMAC algorithm', () => withFile(entry({ algorithms: ['HS256'] })), /issuers\[0\]\.algorithms/],
    ['no algorithm', () => withFile(entry({ algorithms: ['none'] })), /issuers\[0\]\.algorithms/],
    [
      'an age that is no number',
      () => withFile(entry({ maxTokenAgeSeconds: '60' })),
      /issuers\[0\]\.maxTokenAgeSeconds/
    ],
    ['another scope', () => withFile(entry({ purgeScope: 'tenant' })), /issuers\[0\]\.purgeScope/],
    ['keys on http', () => withFile(entry({ jwksUri: 'http://x.example' })), /issuers\[0\]\.jwksUri: must be https/],
    [
      'another template',
      () => withFile(entry({ issuer: 'https://x.example/{tenant}' })),
      /issuers\[0\]\.issuer: .*tenantid/
    ],
    [
      'a template twice',
      () => withFile(entry({ issuer: 'https://x.example/{tenantid}/{tenantid}' })),
      /issuers\[0\]\.issuer: .*once/
    ],
    [
      'tenants without a template',
      () => withFile(entry({ tenants: ['11111111-1111-1111-1111-111111111111'] })),
      /issuers\[0\]\.issuer: "tenants"/
    ],
    [
      'tenants that are no GUIDs',
      () => withFile(entry({ issuer: 'https://x.example/{tenantid}', tenants: ['contoso'] })),
      /GUIDs/
    ],
    [
      'a name twice',
      () => withFile({ issuers: [...entry({}).issuers, ...entry({ issuer: 'https://y.example' }).issuers] }),
      /issuers\[1\]\.name: "x" is given twice/
    ],
    [
      'an issuer twice',
      () => withFile({ issuers: [...entry({}).issuers, ...entry({ name: 'y' }).issuers] }),
      /issuers\[1\]\.issuer: .* is given twice/
    ]
  ]
  for (const [name, read, expected] of cases) {
    const found = problems(read)
    t.ok(
      found.some((problem) => expected.test(problem)),
      `${name}: ${found.join(' | ')}`
    )
  }
})

t.test('all problems are told together', async (t) => {
  const found = problems(() =>
    readConfig({ PORT: 'x', ADMIN_PORT: 'y', ADMIN_TOKEN: 'z', LOG_LEVEL: 'l', DATABASE_URL: 'd' })
  )
  t.same(found.map((problem) => problem.split(':')[0]).sort(), [
    'ADMIN_PORT',
    'ADMIN_TOKEN',
    'DATABASE_URL',
    'ISSUER',
    'LOG_LEVEL',
    'PORT'
  ])
})

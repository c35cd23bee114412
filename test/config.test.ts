import { execFileSync } from 'node:child_process'
import { generateKeyPairSync } from 'node:crypto'
import { closeSync, constants, mkdtempSync, openSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { deserialize, serialize } from 'node:v8'
import t from 'tap'
import { type Config, packConfig, readConfig, readDatabaseUrl, readSpoolDir, unpackConfig } from '../src/config.ts'
import { ConfigurationError } from '../src/errors.ts'
import { temporaryFolder } from './fixtures/server.ts'

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

function fileOf(content: string | Buffer): string {
  const file = join(folder, `file-${Math.random()}`)
  writeFileSync(file, content)
  return file
}

/** A private key, as the file that it is in. */
function keyFile(): string {
  const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
  return privateKey.export({ type: 'pkcs8', format: 'pem' }).toString()
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
    adminHosts: [],
    adminToken: undefined,
    spoolDir: '.data/spool',
    drainSeconds: 0,
    logLevel: 'info',
    publicUrls: ['http://localhost:3000', 'http://127.0.0.1:3000'],
    ignored: []
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
      requireEncryption: false,
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
    ADMIN_HOSTS: 'OPS.example,msal-logout',
    ADMIN_TOKEN: 'x'.repeat(32),
    SPOOL_DIR: '/spool',
    WORKERS: '4',
    DRAIN_SECONDS: '30',
    LOG_LEVEL: 'debug',
    TRUSTED_PROXIES: '10.0.0.1, fd00::/8',
    PUBLIC_URL: 'https://logout.example.com/sessions/'
  })
  t.match(config, {
    databaseUrl: 'postgres://u@h/d',
    host: '::',
    port: 0,
    adminHost: '10.0.0.1',
    adminPort: 65_535,
    adminHosts: ['ops.example', 'msal-logout'],
    adminToken: 'x'.repeat(32),
    spoolDir: '/spool',
    workers: 4,
    drainSeconds: 30,
    logLevel: 'debug',
    trustedProxies: ['10.0.0.1', 'fd00::/8'],
    publicUrls: ['https://logout.example.com/sessions']
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
    requireEncryption: true,
    requireExp: false,
    maxTokenAgeSeconds: 60,
    clockToleranceSeconds: 0,
    sidAndSubject: 'subject',
    purgeScope: 'session',
    frontChannel: false
  }
  const config = withFile({
    issuers: [full, { name: 'loop', issuer: 'http://127.0.0.1:8080', clientIds: ['a'] }],
    decryptionKeys: [
      { file: fileOf(keyFile()), kid: 'k1' },
      { file: fileOf(keyFile()), publish: false }
    ]
  })
  t.same(config.issuers[0], full)
  t.match(config.issuers[1], { name: 'loop', requireExp: true })
  t.match(config.decryptionKeys, [
    { kid: 'k1', alg: 'ECDH-ES', isPublished: true },
    { kid: /^[\w-]{43}$/, isPublished: false }
  ])
})

t.test('another process makes the same of it', async (t) => {
  const rsa = generateKeyPairSync('rsa', { modulusLength: 2_048 }).privateKey.export({ format: 'pem', type: 'pkcs8' })
  const config = withFile({
    issuers: [{ name: 'one', issuer: 'https://issuer.example', clientIds: ['a'] }],
    decryptionKeys: [
      { file: fileOf(keyFile()), kid: 'k1' },
      { file: fileOf(String(rsa)), publish: false }
    ]
  })
  const { decryptionKeys, ...rest } = unpackConfig(deserialize(serialize(packConfig(config))))
  const { decryptionKeys: expected, ...restExpected } = config
  t.strictSame(rest, restExpected)
  for (const [i, key] of expected.entries()) {
    const { privateKey, ...members } = decryptionKeys[i] ?? {}
    const { privateKey: expectedKey, ...expectedMembers } = key
    t.strictSame(members, expectedMembers)
    t.ok(privateKey?.equals(expectedKey))
  }
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
      'an admin token with a line end in it',
      () => readConfig({ ...minimal, ADMIN_TOKEN: `${'x'.repeat(32)}\n${'x'.repeat(32)}` }),
      /^ADMIN_TOKEN: .*line ends/
    ],
    [
      'an admin token in quotation marks',
      () => readConfig({ ...minimal, ADMIN_TOKEN: `"${'x'.repeat(32)}"` }),
      /^ADMIN_TOKEN: .*quotation marks/
    ],
    ['a host with a port', () => readConfig({ ...minimal, HOST: '127.0.0.1:3000' }), /^HOST: .*without a port/],
    ['a host in brackets', () => readConfig({ ...minimal, ADMIN_HOST: '[::1]' }), /^ADMIN_HOST:/],
    [
      'a name with a port',
      () => readConfig({ ...minimal, ADMIN_HOSTS: 'ops.example:3001' }),
      /^ADMIN_HOSTS: .*without scheme and port/
    ],
    ['a URL for a name', () => readConfig({ ...minimal, ADMIN_HOSTS: 'https://ops.example' }), /^ADMIN_HOSTS:/],
    ['one port for both', () => readConfig({ ...minimal, PORT: '3001' }), /^ADMIN_PORT: must differ from PORT/],
    [
      'seconds with a unit',
      () => readConfig({ ...minimal, DRAIN_SECONDS: '30s' }),
      /^DRAIN_SECONDS: must be whole seconds/
    ],
    ['too many seconds', () => readConfig({ ...minimal, DRAIN_SECONDS: '3601' }), /^DRAIN_SECONDS:/],
    ['no worker', () => readConfig({ ...minimal, WORKERS: '0' }), /^WORKERS: must be a number of processes/],
    ['too many workers', () => readConfig({ ...minimal, WORKERS: '65' }), /^WORKERS:/],
    ['as many workers as there are', () => readConfig({ ...minimal, WORKERS: 'auto' }), /^WORKERS:/],
    ['seconds below zero', () => readConfig({ ...minimal, DRAIN_SECONDS: '-1' }), /^DRAIN_SECONDS:/],
    ['a spool with a line end in it', () => readConfig({ ...minimal, SPOOL_DIR: '/a\nb' }), /^SPOOL_DIR:/],
    [
      'an issuer with a blank in it',
      () => readConfig({ ...minimal, ISSUER: 'https://x.example/a b' }),
      /^ISSUER: has white space/
    ],
    [
      'an issuer with a zero-width space',
      () => readConfig({ ...minimal, ISSUER: 'https://x.example/a\u200b' }),
      /^ISSUER: has white space or an invisible/
    ],
    [
      'a client id with a zero-width space',
      () => readConfig({ ...minimal, CLIENT_IDS: 'a\u200b' }),
      /^CLIENT_IDS: has white space or an invisible/
    ],
    [
      'a database URL with a wrong mode',
      () => readConfig({ ...minimal, DATABASE_URL: 'postgres://u@h/d?sslmode=on' }),
      /^DATABASE_URL: sslmode: must be one of/
    ],
    ['a short admin token', () => readConfig({ ...minimal, ADMIN_TOKEN: 'x'.repeat(31) }), /^ADMIN_TOKEN: .*32/],
    ['another database', () => readConfig({ ...minimal, DATABASE_URL: 'mysql://h/d' }), /^DATABASE_URL:/],
    ['a public URL that is a host', () => readConfig({ ...minimal, PUBLIC_URL: 'x.example' }), /^PUBLIC_URL: is not a/],
    ['a public URL on http', () => readConfig({ ...minimal, PUBLIC_URL: 'http://x.example' }), /^PUBLIC_URL: must be/],
    ['a public URL with a query', () => readConfig({ ...minimal, PUBLIC_URL: 'https://x?y' }), /^PUBLIC_URL: .*query/],
    ['an unknown log level', () => readConfig({ ...minimal, LOG_LEVEL: 'loud' }), /^LOG_LEVEL:/],
    [
      'a file that is not there',
      () => readConfig({ ISSUERS_FILE: join(folder, 'none') }),
      /^ISSUERS_FILE: cannot read/
    ],
    [
      'a file that is not JSON',
      () => withFile('{"issuers": [\n{"a": "secret",}\n]}'),
      /^ISSUERS_FILE: is not JSON: see line 2$/
    ],
    [
      'a file of which a part is missing',
      () => withFile('{"issuers": ['),
      /^ISSUERS_FILE: is not JSON: it ends too early$/
    ],
    ['a file of YAML', () => withFile('issuers: secret'), /^ISSUERS_FILE: is not JSON$/],
    [
      'a member twice, of which the parser would take the last',
      () =>
        withFile(
          '{"issuers": [{"name": "x", "issuer": "https://x.example", "clientIds": ["a"], "clientIds": ["b:c"]}]}'
        ),
      /^ISSUERS_FILE: has a member twice in one object/
    ],
    [
      'two lists of issuers',
      () =>
        withFile(`{"issuers": ${JSON.stringify(entry({}).issuers)}, "issuers": ${JSON.stringify(entry({}).issuers)}}`),
      /^ISSUERS_FILE: has a member twice/
    ],
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
    ...['data:application/json,{"keys":[]}', 'blob:https://x.example/1', 'file:///etc/passwd', 'javascript:0'].map(
      (jwksUri): [string, () => unknown, RegExp] => [
        `keys at ${jwksUri}`,
        () => withFile(entry({ jwksUri })),
        /issuers\[0\]\.jwksUri: must be https/
      ]
    ),
    [
      'a proxy of another kind',
      () => readConfig({ ...minimal, HTTPS_PROXY: 'socks5://u:p@x' }),
      /^HTTPS_PROXY: must be/
    ],
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
      'encryption required without a key',
      () => withFile(entry({ requireEncryption: true })),
      /issuers\[0\]\.requireEncryption: needs "decryptionKeys"/
    ],
    ['no decryption key', () => withFile({ ...entry({}), decryptionKeys: [] }), /decryptionKeys/],
    [
      'a decryption key that is not there',
      () => withFile({ ...entry({}), decryptionKeys: [{ file: join(folder, 'none') }] }),
      /^ISSUERS_FILE: decryptionKeys\[0\]\.file: cannot read/
    ],
    [
      'a decryption key that is none',
      () => withFile({ ...entry({}), decryptionKeys: [{ file: fileOf(keyFile()) }, { file: fileOf('x') }] }),
      /^ISSUERS_FILE: decryptionKeys\[1\]\.file: ".*" is no private key/
    ],
    [
      'a decryption key twice',
      () => {
        const file = fileOf(keyFile())
        return withFile({ ...entry({}), decryptionKeys: [{ file }, { file }] })
      },
      /^ISSUERS_FILE: decryptionKeys: two have the kid/
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

const secret = 's'.repeat(40)

t.test('white space around a value is part of none', async (t) => {
  const padded = (value: string) => `\t ${value} \r\n`
  const config = readConfig({
    DATABASE_URL: padded('postgres://u:p@h/d'),
    HOST: padded('::'),
    PORT: padded('1'),
    ADMIN_HOST: padded('::1'),
    ADMIN_PORT: padded('2'),
    ADMIN_HOSTS: padded('a.example , b'),
    ADMIN_TOKEN: padded(secret),
    ISSUER: padded('https://issuer.example'),
    CLIENT_IDS: padded('a , b'),
    TRUSTED_PROXIES: padded('10.0.0.1 ,10.0.0.2'),
    SPOOL_DIR: padded('/my spool'),
    WORKERS: padded('2'),
    DRAIN_SECONDS: padded('5'),
    LOG_LEVEL: padded('warn'),
    ADMIN_ISSUER: padded('https://operators.example'),
    ADMIN_AUDIENCE: padded('api'),
    ADMIN_ROLE: padded('Purge Sessions')
  })
  t.match(config, {
    databaseUrl: 'postgres://u:p@h/d',
    host: '::',
    port: 1,
    adminHost: '::1',
    adminPort: 2,
    adminHosts: ['a.example', 'b'],
    adminToken: secret,
    trustedProxies: ['10.0.0.1', '10.0.0.2'],
    spoolDir: '/my spool',
    workers: 2,
    drainSeconds: 5,
    logLevel: 'warn',
    issuers: [{ issuer: 'https://issuer.example', clientIds: ['a', 'b'] }],
    adminAccessTokens: { issuer: { issuer: 'https://operators.example' }, audience: 'api', role: 'Purge Sessions' }
  })
  t.match(
    withFile(`\ufeff${JSON.stringify(entry({ name: ' x ', issuer: 'https://x.example\n', clientIds: [' a\t'] }))}\n`),
    {
      issuers: [{ name: 'x', issuer: 'https://x.example', clientIds: ['a'] }]
    }
  )
  t.match(readConfig({ ...minimal, DATABASE_URL: ' ', ADMIN_TOKEN: '\n', PORT: ' ' }), {
    databaseUrl: undefined,
    adminToken: undefined,
    port: 3000
  })
  t.equal(readSpoolDir({ SPOOL_DIR: ' /spool\n' }), '/spool')
})

t.test('every secret can come from a file', async (t) => {
  const env = {
    ...minimal,
    DATABASE_URL_FILE: ` ${fileOf('postgres://u:p@h/d\r\n')}\n`,
    ADMIN_TOKEN_FILE: fileOf(`\ufeff${secret}\n`)
  }
  t.match(readConfig(env), { databaseUrl: 'postgres://u:p@h/d', adminToken: secret })
  t.equal(readDatabaseUrl(env), 'postgres://u:p@h/d')
  t.match(readConfig({ ...env, DATABASE_URL: '', ADMIN_TOKEN: ' ' }), { adminToken: secret }, 'an empty one is absent')
  t.match(readConfig({ ...minimal, ADMIN_TOKEN_FILE: '' }), { adminToken: undefined })
})

t.test('what is wrong with a secret is said by the name of its file, and quotes nothing', async (t) => {
  const cases: [string, Record<string, string>, RegExp][] = [
    [
      'both',
      { ADMIN_TOKEN: secret, ADMIN_TOKEN_FILE: fileOf(secret) },
      /^ADMIN_TOKEN_FILE: give either this or ADMIN_TOKEN, not both$/
    ],
    [
      'both of the database',
      { DATABASE_URL: 'postgres://u@h', DATABASE_URL_FILE: fileOf('x') },
      /^DATABASE_URL_FILE: give either/
    ],
    ['none there', { ADMIN_TOKEN_FILE: join(folder, 'none') }, /^ADMIN_TOKEN_FILE: cannot read ".*none" \(ENOENT\)$/],
    ['a folder', { ADMIN_TOKEN_FILE: folder }, /^ADMIN_TOKEN_FILE: ".*" is a folder$/],
    ['a device', { ADMIN_TOKEN_FILE: '/dev/zero' }, /^ADMIN_TOKEN_FILE: "\/dev\/zero" is no file$/],
    ['an empty one', { ADMIN_TOKEN_FILE: fileOf(' \n') }, /^ADMIN_TOKEN_FILE: ".*" is empty$/],
    ['a large one', { ADMIN_TOKEN_FILE: fileOf('x'.repeat(70_000)) }, /^ADMIN_TOKEN_FILE: ".*" is larger than/],
    [
      'another encoding',
      { ADMIN_TOKEN_FILE: fileOf(Buffer.from(`\ufeff${secret}`, 'utf16le')) },
      /^ADMIN_TOKEN_FILE: ".*" is not UTF-8$/
    ],
    [
      'two lines',
      { ADMIN_TOKEN_FILE: fileOf(`${secret}\n${secret}`) },
      /^ADMIN_TOKEN_FILE: must have neither blanks nor line ends/
    ],
    ['a short one', { ADMIN_TOKEN_FILE: fileOf('sss') }, /^ADMIN_TOKEN_FILE: must have 32 characters/],
    [
      'a URL of something else',
      { DATABASE_URL_FILE: fileOf(`mysql://u:${secret}@h`) },
      /^DATABASE_URL_FILE: must begin with postgres/
    ],
    [
      'a misspelt one',
      { ADMIN_TOKENS_FILE: fileOf(secret) },
      /^ADMIN_TOKENS_FILE: is not known; files are DATABASE_URL_FILE, ADMIN_TOKEN_FILE, ISSUERS_FILE$/
    ],
    ['one of no secret', { CLIENT_IDS_FILE: '/x' }, /^CLIENT_IDS_FILE: is not known/],
    ['another one', { DATABASE_PASSWORD_FILE: '/x' }, /^DATABASE_PASSWORD_FILE: is not known/],
    ['a port', { PORT_FILE: '/x' }, /^PORT_FILE: is not known/],
    ['a level', { LOG_LEVEL_FILE: '/x' }, /^LOG_LEVEL_FILE: is not known/]
  ]
  for (const [name, env, expected] of cases) {
    const found = problems(() => readConfig({ ...minimal, ...env }))
    t.equal(found.length, 1, name)
    t.match(found[0], expected, name)
    t.notMatch(found[0], /sss/, name)
  }
  t.same(
    problems(() => readConfig({ ...minimal, LOG_FILE: '/x', POSTGRES_PASSWORD_FILE: '/x', SSL_CERT_FILE: '/x' })),
    [],
    "others' files are theirs"
  )
})

t.test(
  'what an orchestrator puts into PORT and ADMIN_PORT for a service of that name is ignored, and said',
  async (t) => {
    const config = readConfig({ ...minimal, ADMIN_PORT: 'tcp://10.0.0.1:3001', PORT: 'tcp://172.17.0.2:80' })
    t.match(config, { port: 3000, adminPort: 3001 })
    t.match(config.ignored, [/^PORT: .*is ignored: 3000 it is/, /^ADMIN_PORT: .*enableServiceLinks/])
  }
)

t.test('a port may be both of two addresses', async (t) => {
  t.match(readConfig({ ...minimal, HOST: '10.0.0.1', PORT: '3001' }), { port: 3001, adminPort: 3001 })
  t.match(readConfig({ ...minimal, PORT: '0', ADMIN_PORT: '0' }), { port: 0, adminPort: 0 })
})

t.test('a pipe is read, and one into which nobody writes holds nothing up', async (t) => {
  const folder = temporaryFolder(t)
  const file = join(folder, 'pipe')
  execFileSync('mkfifo', [file])
  const read = () => readConfig({ ...minimal, ADMIN_TOKEN_FILE: file })
  const begun = performance.now()
  t.throws(read, { message: /ADMIN_TOKEN_FILE: ".*" is empty/ }, 'nobody has it open')
  const writer = openSync(file, constants.O_RDWR)
  t.teardown(() => closeSync(writer))
  t.throws(read, { message: /ADMIN_TOKEN_FILE: .* is a pipe, and nobody has written into it within 1 s/ })
  t.ok(performance.now() - begun < 10_000)
  const script =
    'import(process.argv[1]).then(({ readText }) => process.stdout.write(readText(process.argv[2], 99).text))'
  const module = new URL('../src/secret-file.js', import.meta.url).href
  const shell = 'exec "$0" -e "$1" "$2" <(sleep 0.2; printf late)'
  t.equal(
    execFileSync('bash', ['-c', shell, process.execPath, script, module], { encoding: 'utf8' }),
    'late',
    'a shell gives one, which is written a little later'
  )
  for (const endless of ['/dev/zero', '/dev/urandom']) {
    t.throws(() => readConfig({ ...minimal, ADMIN_TOKEN_FILE: endless }), {
      message: /ADMIN_TOKEN_FILE: .* is no file/
    })
  }
})

import t from 'tap'
import { type DatabaseAddress, formatDatabaseUrl, type ParseOptions, parseDatabaseUrl } from '../src/database-url.ts'
import { ConfigurationError } from '../src/errors.ts'

const files = new Set(['/ca.pem', '/crl.pem', '/c.pem', '/k.pem', '/pass', '/home/.pgpass', '/pg/.postgresql/root.crt'])
const parse = (url: string, options: ParseOptions = {}) =>
  parseDatabaseUrl(url, { canRead: (path) => files.has(path), ...options })

function problemsOf(url: string, options?: ParseOptions): readonly string[] {
  try {
    parse(url, options)
    return []
  } catch (error) {
    if (error instanceof ConfigurationError) {
      return error.problems
    }
    throw error
  }
}

const h5432 = [{ host: 'h', port: 5432, address: undefined }]
const readable: [name: string, url: string, expected: Partial<DatabaseAddress>, options?: ParseOptions][] = [
  ['the short scheme', 'postgres://u:p@h/d', { user: 'u', password: 'p', database: 'd', hosts: h5432 }],
  ['the long scheme', 'postgresql://u:p@h/d', { user: 'u', password: 'p', database: 'd', hosts: h5432 }],
  ['the role as the database', 'postgres://u@h', { user: 'u', password: undefined, database: 'u' }],
  ['no host', 'postgres://u@/d', { hosts: [{ host: 'localhost', port: 5432, address: undefined }] }],
  ['a port', 'postgres://u@h:6432/d', { hosts: [{ host: 'h', port: 6432, address: undefined }] }],
  ['an IPv6 address', 'postgres://u@[::1]:6432/d', { hosts: [{ host: '::1', port: 6432, address: undefined }] }],
  ['a name with an underscore', 'postgres://u@my_db/d', { hosts: [{ host: 'my_db', port: 5432, address: undefined }] }],
  [
    'an address beside the name',
    'postgres://u@h/d?hostaddr=10.0.0.1',
    { hosts: [{ host: 'h', port: 5432, address: '10.0.0.1' }] }
  ],
  [
    'a socket by parameter',
    'postgres://u@/d?host=/run/pg',
    { hosts: [{ host: '/run/pg', port: 5432, address: undefined }] }
  ],
  ['a socket encoded', 'postgres://u@%2Frun%2Fpg:6/d', { hosts: [{ host: '/run/pg', port: 6, address: undefined }] }],
  [
    'several hosts, of which one takes writes',
    'postgres://u@a:1,b,[::2]:3/d',
    {
      hosts: [
        { host: 'a', port: 1, address: undefined },
        { host: 'b', port: 5432, address: undefined },
        { host: '::2', port: 3, address: undefined }
      ],
      targetSession: 'read-write'
    }
  ],
  [
    'several hosts by parameter with one port',
    'postgres:///d?user=u&host=a,b&port=7',
    {
      hosts: [
        { host: 'a', port: 7, address: undefined },
        { host: 'b', port: 7, address: undefined }
      ]
    }
  ],
  ['several hosts, any of them', 'postgres://u@a,b/d?target_session_attrs=any', { targetSession: 'any' }],
  ['the primary', 'postgres://u@a/d?target_session_attrs=primary', { targetSession: 'read-write' }],
  ['an order of chance', 'postgres://u@a,b/d?load_balance_hosts=random', { isBalanced: true }],
  ['credentials by parameter', 'postgres://h/d?user=u&password=p', { user: 'u', password: 'p' }],

  ['a password with @', 'postgres://u:p@ss@h/d', { user: 'u', password: 'p@ss', hosts: h5432 }],
  ['a password with #', 'postgres://u:p#ss@h/d', { password: 'p#ss', hosts: h5432 }],
  ['a password with /', 'postgres://u:pa/ss@h/d', { password: 'pa/ss', hosts: h5432, database: 'd' }],
  ['a password with ?', 'postgres://u:pa?ss@h/d', { password: 'pa?ss', hosts: h5432, database: 'd' }],
  ['a password with :', 'postgres://u:p:ss:@h/d', { password: 'p:ss:' }],
  ['a password with %', 'postgres://u:50%off@h/d', { password: '50%off' }],
  ['a password with % at its end', 'postgres://u:p%@h/d', { password: 'p%' }],
  ['a password with everything', 'postgres://u:a/b?c#d@e:f%g&=@h/d', { password: 'a/b?c#d@e:f%g&=' }],
  ['a password with @ and /', 'postgres://u:p@h/x@h/d', { password: 'p@h/x', hosts: h5432, database: 'd' }],
  ['a password with blanks and quotes', `postgres://u:a b'"c@h/d`, { password: `a b'"c` }],
  ['a password with brackets', 'postgres://u:[x]{y}@h/d', { password: '[x]{y}' }],
  ['a password of another script', 'postgres://u:пароль€@h/d', { password: 'пароль€' }],
  ['an encoded password', 'postgres://u:%40%23%2F%25%3A%20@h/d', { password: '@#/%: ' }],
  ['a plus sign, which is no blank', 'postgres://u:a+b@h/d', { password: 'a+b' }],
  ['a role with @', 'postgres://u@server:p@h/d', { user: 'u@server', password: 'p' }],
  ['an @ in a parameter', 'postgres://u:p@h/d?application_name=a@b', { password: 'p', applicationName: 'a@b' }],
  ['an encoded database', 'postgres://u@h/my%2Fdb%20x', { database: 'my/db x' }],

  ['no mode', 'postgres://u@h/d', { tlsMode: 'prefer' }],
  ['each mode', 'postgres://u@h/d?sslmode=allow', { tlsMode: 'allow' }],
  ['require', 'postgres://u@h/d?sslmode=require', { tlsMode: 'require' }],
  [
    'require with authorities is verify-ca',
    'postgres://u@h/d?sslmode=require&sslrootcert=/ca.pem',
    { tlsMode: 'verify-ca' }
  ],
  ["JDBC's word for it", 'postgres://u@h/d?ssl=true', { tlsMode: 'require' }],
  ["the system's authorities", 'postgres://u@h/d?sslrootcert=system', { tlsMode: 'verify-full' }],
  [
    'all files',
    'postgres://u@h/d?sslmode=verify-full&sslrootcert=/ca.pem&sslcert=/c.pem&sslkey=/k.pem&sslcrl=/crl.pem',
    { tlsFiles: { rootCert: '/ca.pem', cert: '/c.pem', key: '/k.pem', revoked: '/crl.pem' } }
  ],
  [
    "the user's own authorities",
    'postgres://u@h/d?sslmode=verify-ca',
    { tlsFiles: { rootCert: '/pg/.postgresql/root.crt', cert: undefined, key: undefined, revoked: undefined } },
    { env: { HOME: '/pg' } }
  ],
  ['TLS from the first byte', 'postgres://u@h/d?sslmode=require&sslnegotiation=direct', { isTlsDirect: true }],
  ['channel binding', 'postgres://u@h/d?channel_binding=require', { needsChannelBinding: true }],

  ['a limit', 'postgres://u@h/d?connect_timeout=3', { connectTimeoutSeconds: 3 }],
  ['no limit', 'postgres://u@h/d?connect_timeout=0', { connectTimeoutSeconds: undefined }],
  [
    'settings',
    'postgres://u@h/d?options=-c%20work_mem%3D8MB%20-csearch_path=a\\ b%20--plan-cache-mode=auto&search_path=x,y',
    { settings: { work_mem: '8MB', search_path: 'x,y', plan_cache_mode: 'auto' } }
  ],
  ['what a proxy reads', 'postgres://u@h/d?options=endpoint%3Dep-1', { settings: {}, startupOptions: 'endpoint=ep-1' }],
  [
    'what means nothing here',
    'postgres://u@h/d?keepalives_count=3&sslsni=1&gssencmode=prefer&client_encoding=UTF8',
    {}
  ],

  ['a password out of the environment', 'postgres://u@h/d', { password: 's' }, { env: { PGPASSWORD: 's' } }],
  ["the URL's own before it", 'postgres://u:p@h/d', { password: 'p' }, { env: { PGPASSWORD: 's', PGUSER: 'x' } }],
  ['a password file', 'postgres://u@h/d?passfile=/pass', { passwordFile: '/pass' }],
  ["the user's own password file", 'postgres://u@h/d', { passwordFile: '/home/.pgpass' }, { env: { HOME: '/home' } }],
  ["the system's name of the user", 'postgres://h/d', { user: 'me' }, { env: { USER: 'me' } }],
  ['another role by variable', 'postgres://h/d', { user: 'role' }, { env: { USER: '1000680000', PGUSER: 'role' } }],
  [
    'all by variables',
    'postgres://',
    { user: 'u', database: 'd', tlsMode: 'disable', hosts: [{ host: '/run/pg', port: 7, address: undefined }] },
    { env: { PGHOST: '/run/pg', PGPORT: '7', PGUSER: 'u', PGDATABASE: 'd', PGSSLMODE: 'disable' } }
  ]
]

for (const [name, url, expected, options] of readable) {
  t.test(`it reads ${name}`, async (t) => {
    const address = parse(url, options)
    for (const [key, value] of Object.entries(expected)) {
      t.same(address[key as keyof DatabaseAddress], value, key)
    }
    t.same(parse(formatDatabaseUrl(address)), address, 'and says the same in a URL of its own')
  })
}

const secret = 'xyzzy-plugh'
const unreadable: [name: string, url: string, problem: RegExp, options?: ParseOptions][] = [
  ['another scheme', `jdbc:postgresql://u:${secret}@h/d`, /^DATABASE_URL: must begin with postgres:\/\/ or/],
  ['another database', `mysql://u:${secret}@h/d`, /must begin with/],
  ['a DSN', `host=h user=u password=${secret}`, /must begin with/],
  ['a line end', `postgres://u:${secret}\n@h/d`, /a line end or another control character/],
  ['a port that is none', `postgres://u:${secret}@h:port/d`, /a port is no number/],
  ['a port out of range', `postgres://u:${secret}@h:65536/d`, /a port is no number/],
  ['port 0', `postgres://u:${secret}@h:0/d`, /a port is no number/],
  ['an IPv6 address without brackets', `postgres://u:${secret}@::1/d`, /must stand in brackets/],
  ['a host with a blank', `postgres://u:${secret}@h x/d`, /a host has a character/],
  ['a missing @', `postgres://u:${secret}/d`, /a port is no number/],
  ['a database with a slash', `postgres://u:${secret}@h/d/e`, /%2F/],
  ['a fragment', `postgres://u:${secret}@h/d#${secret}`, /%23/],
  ['a parameter that is not known', `postgres://u:${secret}@h/d?sslmod=require`, /parameter "sslmod" is not known/],
  [
    'the name of a member of every object',
    `postgres://u:${secret}@h/d?constructor=1`,
    /parameter "constructor" is not known/
  ],
  ['a parameter without a value', `postgres://u:${secret}@h/d?sslmode`, /"sslmode" has no "="/],
  ['two readings', `postgres://u:5432/d?options=${secret}@h`, /more than one way: percent-encode .*@ is %40/],
  ['% in two meanings', `postgres://u:${secret}%zz%40@h/d`, /the password can be read in more than one way: .*%25/],
  ['an escape that is no UTF-8', `postgres://u:${secret}%ff@h/d`, /the password is not UTF-8/],
  ['a zero byte', `postgres://u:${secret}%00@h/d`, /the password has a zero byte/],
  ['an unknown mode', `postgres://u:${secret}@h/d?sslmode=no-verify`, /sslmode: must be one of disable, allow, prefer/],
  ['verify-ca without authorities', `postgres://u:${secret}@h/d?sslmode=verify-ca`, /verify-ca needs sslrootcert/],
  [
    'a weak mode with all authorities',
    `postgres://u:${secret}@h/d?sslmode=require&sslrootcert=system`,
    /must be verify-full/
  ],
  ['a file that is not there', `postgres://u:${secret}@h/d?sslrootcert=/none`, /sslrootcert: cannot read "\/none"/],
  ['a certificate without its key', `postgres://u:${secret}@h/d?sslcert=/c.pem`, /go together/],
  ['direct TLS that is optional', `postgres://u:${secret}@h/d?sslnegotiation=direct`, /direct needs sslmode require/],
  ['a standby', `postgres://u:${secret}@a,b/d?target_session_attrs=standby`, /the service writes/],
  ['ports that do not match', `postgres://u:${secret}@/d?host=a,b,c&port=1,2`, /port: must be one, or as many/],
  ['addresses that do not match', `postgres://u:${secret}@a,b/d?hostaddr=10.0.0.1`, /hostaddr: must name as many/],
  [
    'a limit that is no number',
    `postgres://u:${secret}@h/d?connect_timeout=1s`,
    /connect_timeout: must be whole seconds/
  ],
  ['another encoding', `postgres://u:${secret}@h/d?client_encoding=LATIN1`, /client_encoding: must be UTF8/],
  ['GSSAPI', `postgres://u:${secret}@h/d?gssencmode=require`, /GSSAPI is not supported/],
  ['what is not supported', `postgres://u:${secret}@h/d?require_auth=scram-sha-256`, /require_auth: is not supported/],
  ['options that are no settings', `postgres://u:${secret}@h/d?options=-d%205`, /options: takes settings alone/],
  ['a setting without a value', `postgres://u:${secret}@h/d?options=-c%20x`, /a name and a value after each -c/],
  ['no role', 'postgres://h/d', /^DATABASE_URL: names no role/, { env: { USER: '1000680000' } }],
  ['a variable', 'postgres://u@h/d', /^PGSSLMODE: sslmode: must be one of/, { env: { PGSSLMODE: 'on' } }],
  ['the name of the variable', 'x', /^DATABASE_URL_FILE: must begin/, { name: 'DATABASE_URL_FILE' }]
]

for (const [name, url, problem, options] of unreadable) {
  t.test(`it says what is wrong with ${name}, and nothing of the password`, async (t) => {
    const problems = problemsOf(url, options)
    t.match(problems.join(' | '), problem)
    t.notMatch(problems.join(' | '), secret)
    t.notMatch(problems.join(' | '), /plugh|xyzzy/)
  })
}

t.test('all problems of a URL stand together', async (t) => {
  t.equal(problemsOf('postgres://h/d?sslmode=x&connect_timeout=y&client_encoding=z').length, 4)
})

t.test('any password that is encoded comes through, and any that is not is taken or declined, never cut', async (t) => {
  const characters = [...'aZ09@#/%:?&=+ [],;\'"\\$€']
  let seed = 42
  const random = (below: number) => {
    seed = (seed * 1_103_515_245 + 12_345) % 2 ** 31
    return Math.floor((seed / 2 ** 31) * below)
  }
  let taken = 0
  for (let i = 0; i < 5_000; i++) {
    const password = Array.from({ length: 1 + random(8) }, () => characters[random(characters.length)]).join('')
    const encoded = parse(`postgres://u:${encodeURIComponent(password)}@h:5432/d?sslmode=require`)
    if (encoded.password !== password) {
      t.fail(`encoded: ${password}`)
    }
    const raw = `postgres://u:${password}@h:5432/d?sslmode=require`
    if (problemsOf(raw).length > 0) {
      continue
    }
    taken += 1
    const { password: read, hosts, database } = parse(raw)
    // An escape that a person did not mean as one is the only other reading.
    const isSame = read === password || (/%[0-9a-f]{2}/i.test(password) && read === decodeURIComponent(password))
    if (!isSame || hosts[0]?.host !== 'h' || database !== 'd') {
      t.fail(`as it is: ${password} was read as ${read}`)
    }
  }
  t.ok(taken > 4_000, `${taken} of 5,000 are taken as they are`)
})

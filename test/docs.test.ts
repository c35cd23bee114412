import { generateKeyPairSync } from 'node:crypto'
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { basename, dirname, join } from 'node:path'
import pg from 'pg'
import t from 'tap'
import { readConfig } from '../src/config.ts'
import { createIssuers, type IssuerConfig } from '../src/issuers.ts'
import { createBackchannel } from '../src/signals/backchannel.ts'
import { makeCertificate } from './fixtures/certificate.ts'
import { call } from './fixtures/command-line.ts'
import { createRole } from './fixtures/database.ts'
import { blocks, commandExamples, httpExamples } from './fixtures/doc-examples.ts'
import { type IdentityProvider, startIdentityProvider } from './fixtures/identity-provider.ts'
import { adminToken, build, type Service } from './fixtures/service.ts'
import { brokenLines } from './promises/broken-lines.ts'

const pages = [
  'README.md',
  'docs/entra-id.md',
  'docs/operating.md',
  'docs/production.md',
  'docs/providers.md',
  ...readdirSync('docs/providers').map((name) => `docs/providers/${name}`),
  'docs/runbook.md',
  'docs/encrypted-tokens.md',
  'docs/shared-signals.md',
  'docs/troubleshooting.md'
]
const entraIssuer = 'https://login.microsoftonline.com/11111111-1111-1111-1111-111111111111/v2.0'
const issuer = 'https://login.example.com'
const sid = 'the-sid'
const homeAccountId = 'uid.utid'

const folder = mkdtempSync(join(tmpdir(), 'msal-logout-docs-'))
t.teardown(() => rmSync(folder, { recursive: true }))

const read = (page: string) => readFileSync(page, 'utf8')

const { certificate, privateKey } = await makeCertificate()

/** An example, with files of our own in place of those that it names. */
function readIssuersFile(json: string): readonly IssuerConfig[] {
  const file = join(folder, 'issuers.json')
  const content = JSON.parse(json, (member, value) => {
    if (member === 'file') {
      return keyFile(String(value)) // to decrypt with
    }
    if (!/^[a-z]+[A-Za-z]*File$/.test(member)) {
      return value
    }
    const path = join(folder, member)
    writeFileSync(path, { certificateFile: certificate, privateKeyFile: privateKey }[String(member)] ?? 'a secret')
    return path
  })
  writeFileSync(file, JSON.stringify(content))
  return readConfig({ ISSUERS_FILE: file }).issuers
}

/** A private key, in a file of our own that is called like the example's. */
function keyFile(path: string): string {
  const file = join(folder, basename(path))
  const key = generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey
  writeFileSync(file, key.export({ type: 'pkcs8', format: 'pem' }))
  return file
}

t.test('every ISSUERS_FILE example is one that the service starts with', async (t) => {
  for (const page of pages) {
    for (const json of blocks(read(page), 'json')) {
      const [first] = readIssuersFile(json)
      t.type(first?.name, 'string', `${page}: ${first?.name}`)
    }
  }
})

t.test("each provider's tokens are taken with its example, and an unsound one is not", async (t) => {
  const older = Math.floor(Date.now() / 1_000) - 5
  const forms: Record<string, { claims?: object; header?: object; settings?: object; refusedByDefault?: string }> = {
    keycloak: { claims: { sub: 'u', events: revokingOfflineAccess() } },
    'keycloak before 23.0.4': {
      claims: { sub: 'u', exp: undefined },
      header: { typ: 'JWT' },
      settings: { requireExp: false },
      refusedByDefault: 'ERR_TOKEN_EXP_MISSING'
    },
    auth0: { claims: { sub: 'auth0|AbC', trace_id: 'x' }, header: { typ: 'JWT' } },
    duende: { claims: { sub: 'u', nbf: older } },
    'duende before 6.3': {
      claims: { sub: 'u', nbf: older },
      header: { typ: 'at+jwt' },
      settings: { types: ['logout+jwt', 'at+jwt'] },
      refusedByDefault: 'ERR_TOKEN_TYPE'
    },
    hydra: { claims: { aud: ['client-a'], exp: undefined }, header: { typ: 'JWT' } },
    main: { claims: { sub: 'u' } },
    liberty: { claims: { sub: 'u' } },
    'better-auth': { claims: { sub: 'u' } },
    authentik: { claims: { sub: 'u', sid: undefined } },
    'authentik before 2025.8.2': {
      claims: { sub: 'u', sid: undefined, exp: undefined },
      header: { typ: undefined },
      settings: { requireExp: false },
      refusedByDefault: 'ERR_TOKEN_EXP_MISSING'
    },
    dex: { claims: { sub: 'u' }, header: { typ: undefined } }
  }
  const provider = await startIdentityProvider(t)
  const examples = new Map(
    blocks(read('docs/providers.md'), 'json').flatMap((json) =>
      readIssuersFile(json).map((config) => [config.name, config])
    )
  )
  t.same(
    [...examples.keys()].filter((name) => name !== 'okta'),
    [...new Set(Object.keys(forms).map((form) => form.split(' ')[0]))],
    'every provider that sends logout tokens is tried'
  )

  for (const [form, { claims = {}, header = {}, settings = {}, refusedByDefault }] of Object.entries(forms)) {
    const example = examples.get(form.split(' ')[0] ?? '') as IssuerConfig
    const readToken = readerFor({ ...example, ...settings }, provider)
    const token = await provider.logoutToken({ ...claims }, { ...header })
    t.match(await readToken(token), [{ selector: { issuer: provider.issuer }, clientId: 'client-a' }], form)
    if (refusedByDefault !== undefined) {
      await t.rejects(
        readerFor(example, provider)(token),
        { code: refusedByDefault },
        `${form}: not without the settings named`
      )
    }
    const stale = await provider.logoutToken({ ...claims, iat: older - 3_600 }, { ...header })
    await t.rejects(readToken(stale), { code: 'ERR_TOKEN_TOO_OLD' }, `${form}: an old one is refused`)
  }
  const hydra = examples.get('hydra') as IssuerConfig
  const strict = readerFor({ ...hydra, requireExp: true }, provider)
  await t.rejects(strict(await provider.logoutToken({ exp: undefined })), { code: 'ERR_TOKEN_EXP_MISSING' })
})

/** Reads logout tokens of this provider, with this entry of ISSUERS_FILE. */
function readerFor(config: IssuerConfig, { issuer }: IdentityProvider): (token: string) => Promise<unknown> {
  const { read } = createBackchannel({ issuers: createIssuers([{ ...config, issuer }]) })
  return (token) => read(token, Date.now())
}

/** Keycloak puts a boolean beside the event. */
function revokingOfflineAccess(): object {
  return { 'http://schemas.openid.net/event/backchannel-logout': {}, revoke_offline_access: true }
}

async function buildForExamples(t: Parameters<typeof build>[0]): Promise<Service> {
  const service = await build(t, {
    issuers: [{ name: 'contoso', issuer: entraIssuer }]
  })
  await service.login({ clientId: 'client-a', issuer: entraIssuer, sid, homeAccountId: 'entra.utid', subject: 'x' })
  await service.login({ clientId: 'client-a', issuer, sid: 's2', homeAccountId, subject: 'y' })
  await service.login({ clientId: 'client-b', issuer, sid: 's2', homeAccountId, subject: 'y' })
  await service.login({ clientId: 'client-a', issuer, sid: 's3', homeAccountId: 'u3.utid', subject: 'the-subject' })
  return service
}

async function performHttpExamples(service: Service, page: string) {
  const answers = []
  for (const { listener, request, ...expected } of httpExamples(read(page))) {
    const answer = await service[listener].inject(request)
    answers.push({ url: request.url, status: answer.statusCode, body: answer.body, ...expected })
  }
  return answers
}

t.test('every curl example is answered as the page says', async (t) => {
  let count = 0
  for (const page of pages.filter((page) => httpExamples(read(page)).length > 0)) {
    const service = await buildForExamples(t)
    for (const { url, status, body, expectedStatus, expectedText } of await performHttpExamples(service, page)) {
      count += 1
      t.equal(status, expectedStatus, `${page}: ${url}`)
      t.ok(body.includes(expectedText), `${page}: ${url} says so`)
    }
  }
  t.ok(count >= 8, 'the examples were found')
})

t.test('every example of the command line runs, and ends as the page says', async (t) => {
  const service = await buildForExamples(t)
  const env = {
    DATABASE_URL: service.database.url,
    ISSUER: service.provider.issuer,
    CLIENT_IDS: 'client-a',
    SPOOL_DIR: service.spoolDir,
    ADMIN_TOKEN: adminToken,
    ADMIN_URL: await service.admin.listen({ host: '127.0.0.1', port: 0 })
  }
  const examples = pages.flatMap((page) => commandExamples(read(page)))
  t.ok(examples.length >= 5, 'the examples were found')
  for (const { words, expectedCode } of examples) {
    const { code, stderr } = await call(t, words, { env })
    t.equal(code, expectedCode, `${words.join(' ')}: ${stderr}`)
  }
  t.same(await service.rows(), ['client-a/entra.utid'], 'and the purge is done')
})

t.test('every code of check is explained, and none is made up', async (t) => {
  const codes = (text: string) =>
    new Set(
      text.match(
        /\b(configuration|database|schema|role|spool|issuer|keys|clock|directory|stream|operators)_[a-z_]+[a-z](?=['`])/g
      )
    )
  const source = codes(
    ['check', 'check-directory', 'check-doubts', 'check-stream']
      .map((name) => read(`src/commands/${name}.ts`))
      .join(' ')
  )
  t.ok(source.size >= 20)
  const [, section = ''] = /^## Command line$(.*?)^## /ms.exec(read('docs/operating.md')) ?? []
  t.same([...codes(section)].sort(), [...source].sort())
})

t.test('each dependency has its reason in the README, and none is named that is not there', async (t) => {
  const manifest = JSON.parse(read('package.json')) as Record<'dependencies' | 'devDependencies', object>
  const [, tables = ''] = /^(\| dependency .*)^\| client /ms.exec(read('README.md')) ?? []
  const named = [...tables.matchAll(/^\| ([^|]+) \| [^|]+ \|$/gm)].flatMap(([, cell = '']) => cell.split(', '))
  const used = [...Object.keys(manifest.dependencies), ...Object.keys(manifest.devDependencies)]
  const others = ['dependency', 'for development', '---']
  t.same(named.filter((name) => !others.includes(name)).sort(), used.sort())
})

t.test("the curl examples of Entra's page end the session, and purge the account", async (t) => {
  const service = await buildForExamples(t)
  t.same(await service.rows(), ['client-a/entra.utid', 'client-a/u3.utid', 'client-a/uid.utid', 'client-b/uid.utid'])
  await performHttpExamples(service, 'docs/entra-id.md')
  t.same(await service.rows(), ['client-a/u3.utid'])
})

t.test("every SQL example runs with the service's role and finds what it is about", async (t) => {
  const service = await buildForExamples(t)
  const { database } = service
  // What the queries look for: purges of each source, one that is running, sessions and rows.
  await performHttpExamples(service, 'docs/entra-id.md')
  await service.post(await service.provider.logoutToken())
  await service.operate('POST', '/admin/purges', { issuer, sid, reason: 'an example' })
  await database.query(
    `insert into msal_logout.records (id, source, client_id, reason, actor, status)
      values ('22222222-2222-4222-8222-222222222222', 'operator', 'client-z', 'gone', 'x', 'running')`
  )
  const issuedAt = Math.floor(Date.now() / 1_000) + 60 // a new login, after the purges
  for (const [clientId, at] of [
    ['client-a', entraIssuer],
    ['client-b', issuer]
  ] as const) {
    const login = await service.login({ clientId, issuer: at, sid, homeAccountId, subject: 'y', issuedAt })
    t.equal(login.accepted, true)
  }

  const role = await createRole(database, 'service')
  await database.query('select msal_logout.register_service($1)', [role])
  const url = new URL(database.url)
  url.username = role
  url.password = 'test'
  const pool = new pg.Pool({ connectionString: url.href, max: 1 })
  pool.on('error', () => {}) // cut when the database is dropped
  t.teardown(() => pool.end())

  let count = 0
  for (const page of pages) {
    for (const sql of blocks(read(page), 'sql')) {
      count += 1
      if (!/register_|truncate/.test(sql)) {
        const { rows } = await pool.query(sql)
        t.ok(rows.length > 0, `${page}: ${sql.split('\n')[0]}`)
      }
    }
  }
  t.ok(count >= 10, 'the examples were found')
})

t.test("the SQL examples for the schema's owner give the roles their rights, and empty a restored cache", async (t) => {
  const { database, rows } = await buildForExamples(t)
  const roles: Record<string, string> = {
    msal_logout_service: await createRole(database, 'service'),
    app_a: await createRole(database, 'app_a'),
    app_b: await createRole(database, 'app_b')
  }
  const examples = pages.flatMap((page) => blocks(read(page), 'sql'))
  for (const sql of examples.filter((example) => example.includes('register_'))) {
    await database.query(sql.replace(/'(msal_logout_service|app_[ab])'/g, (_, name) => `'${roles[name]}'`))
  }
  t.same(
    await database.query('select client_id, db_role::text from msal_logout.apps where db_role is not null order by 1'),
    [
      { client_id: 'client-a', db_role: roles.app_a },
      { client_id: 'client-b', db_role: roles.app_b }
    ]
  )
  t.same(
    await database.query(
      `select has_table_privilege($1, 'msal_logout.records', 'select') as service,
        has_table_privilege($2, 'msal_logout.records', 'select') as app`,
      [roles.msal_logout_service, roles.app_a]
    ),
    [{ service: true, app: false }]
  )
  t.not((await rows()).length, 0)
  for (const sql of examples.filter((example) => example.includes('truncate'))) {
    await database.query(sql)
  }
  t.same(await rows(), [])
})

t.test('every code that a log or an answer can bear is explained, and none is made up', async (t) => {
  const codes = (text: string) => new Set(text.match(/\bERR_[A-Z_]+[A-Z]/g))
  const told = codes(read('docs/troubleshooting.md'))
  const service = codes(
    ['errors', 'spool', 'durable-files', 'spool-retry', 'connections', 'database-report', 'http/admin']
      .map((name) => read(`src/${name}.ts`))
      .join(' ')
  )
  for (const beginning of ['ERR_SSL', 'ERR_TLS', 'ERR_OSSL', 'ERR_ROLE_MISSING']) {
    service.delete(beginning) // of Node's codes; and one that operators' metrics bear
  }
  service.delete('ERR_CONFIGURATION') // shows its problems itself, at the start
  t.same(
    [...service].filter((code) => !told.has(code)),
    []
  )
  const known = codes([...service, read('clients/node/src/errors.ts')].join(' '))
  t.same(
    [...told].filter((code) => !known.has(code)),
    []
  )
})

t.test('every link inside the docs leads somewhere', async (t) => {
  const slug = (heading: string) =>
    heading
      .toLowerCase()
      .replace(/[^\w\- ]/g, '')
      .replaceAll(' ', '-')
  const anchors = (page: string) => [...read(page).matchAll(/^#+ (.+)$/gm)].map(([, heading = '']) => slug(heading))
  const folders = ['docs', 'deploy', 'examples', 'clients/node', 'clients/node/docs']
  const all = folders.flatMap((folder) => readdirSync(folder).map((name) => `${folder}/${name}`))
  for (const page of [...pages, ...all].filter((p) => p.endsWith('.md'))) {
    for (const [, target = ''] of read(page).matchAll(/\]\((?!https?:)([^)\s]+)\)/g)) {
      const [path = '', anchor] = target.split('#')
      const linked = path === '' ? page : join(dirname(page), path)
      t.ok(anchor === undefined ? existsSync(linked) : anchors(linked).includes(anchor), `${page}: ${target}`)
    }
  }
})

/** Images that bear no digest here, each with the reason. */
const withoutDigest: Readonly<Record<string, string>> = {
  'msal-logout': 'it is built here',
  'registry.example.com/msal-logout': "it stands for the reader's own"
}

/** What a file of any kind names as an image: of a Dockerfile, of compose, of Kubernetes and kustomize, and in a command. */
const imagePatterns = [
  /^FROM +(?:--platform=\S+ +)?([^$\s]\S*)/gm,
  /^ARG +\w*IMAGE\w*=(\S+)/gm,
  /^\s*(?:- +)?(?:image|newName): *['"]?([^\s'"]+)/gm,
  /^COPY +--from=(\S*[:/]\S*)/gm,
  /\b(?:docker|podman) (?:pull|run (?:-\S+ )*)([a-z][\w.-]*[:/]\S+)/gm
]

const imagesOf = (text: string) =>
  imagePatterns.flatMap((pattern) => [...text.matchAll(pattern)].map(([, image = '']) => image))

t.test('every image bears an exact version and its digest, or the reason why not', async (t) => {
  const folders = ['deploy', 'examples', '.ci', 'clients', 'bench', 'docs']
  const files = readdirSync('.', { withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map(({ name }) => name)
    .concat(folders.flatMap((folder) => filesIn(folder)))
  const images = files.flatMap((file) => imagesOf(read(file)).map((image) => ({ file, image })))
  for (const { file, image } of images) {
    if (withoutDigest[image] === undefined) {
      t.match(image, /^[a-z][a-z0-9./-]*:\d+\.\d+[\w.-]*@sha256:[0-9a-f]{64}$/, `${file}: ${image}`)
    }
  }
  const named = new Set(images.map(({ image }) => image))
  t.ok(named.size > Object.keys(withoutDigest).length, 'some are found')
  t.same(
    Object.keys(withoutDigest).filter((image) => !named.has(image)),
    [],
    'each exception is of use'
  )
  const unpinned =
    'FROM node:24 AS x\nARG NODE_IMAGE=node:25\n  image: "redis:8"\nCOPY --from=busybox:1 /a /b\n$ docker run --rm alpine:3 sh'
  t.same(imagesOf(unpinned).sort(), ['alpine:3', 'busybox:1', 'node:24', 'node:25', 'redis:8'], 'none would go unseen')
})

/** The files of a folder that are the project's: nothing that was installed or built. */
function filesIn(folder: string): string[] {
  return readdirSync(folder, { withFileTypes: true }).flatMap((entry) => {
    const path = join(folder, entry.name)
    if (entry.isDirectory()) {
      return ['node_modules', 'target', 'dist', 'venv', '.venv'].includes(entry.name) ? [] : filesIn(path)
    }
    return entry.isFile() ? [path] : []
  })
}

t.test('every alert is told in the operating guide', async (t) => {
  const rules = read('docs/operating/alerts.yaml')
  const guide = read('docs/operating.md')
  const alerts = [...rules.matchAll(/- alert: (\w+)/g)].map(([, name]) => name)
  t.ok(alerts.length > 0)
  t.same(
    alerts.filter((name) => !guide.includes(`\`${name}\``)),
    []
  )
})

t.test('each line that test:promises breaks stands once where it says, and docs/promises.md names it', async (t) => {
  const page = read('docs/promises.md')
  for (const { file, line, test, name } of brokenLines) {
    t.equal(readFileSync(file, 'utf8').split(line).length, 2, `"${line}" stands once in ${file}`)
    const entry = `| \`${file}\`: \`${line.split('\n')[0]}\` | \`${test}\`: ${name} |`
    t.ok(page.includes(entry), entry)
  }
})

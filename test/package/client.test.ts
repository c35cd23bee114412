// The client as others install it: from its tarball, with real packages from the registry.
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { installPackages, packClient, root, run } from '../fixtures/installed-app.ts'

const tarball = await packClient()
const compilers = ['5.4', '6.0', 'latest']

function makeFolder(t: Test): string {
  const folder = mkdtempSync(join(tmpdir(), 'msal-logout-client-'))
  t.teardown(() => rmSync(folder, { recursive: true, force: true }))
  writeFileSync(join(folder, 'package.json'), JSON.stringify({ private: true }))
  return folder
}

/** With its peers alone. */
const small = makeFolder(t)
await installPackages(small, ['@azure/msal-node', 'pg'])
const before = sizeOf(join(small, 'node_modules'))
await installPackages(small, [tarball])
/** With frameworks, their types, and each compiler. */
const large = makeFolder(t)
await installPackages(large, [
  ...[tarball, '@azure/msal-node', 'pg', 'express', 'fastify', 'jest'],
  ...['@types/node@20', '@types/pg', '@types/express'],
  ...compilers.map((version) => `typescript-${version}@npm:typescript@${version}`)
])

/** How many packages are in `node_modules`, and how many bytes. */
function sizeOf(folder: string): { packages: number; bytes: number } {
  let packages = 0
  let bytes = 0
  for (const entry of readdirSync(folder, { recursive: true, withFileTypes: true })) {
    if (entry.isFile()) {
      bytes += statSync(join(entry.parentPath, entry.name)).size
      packages += entry.name === 'package.json' && /node_modules\/(@[^/]+\/)?[^/]+$/.test(entry.parentPath) ? 1 : 0
    }
  }
  return { packages, bytes }
}

const show = ({ packages, bytes }: ReturnType<typeof sizeOf>) => `${packages} packages, ${(bytes / 1e6).toFixed(1)} MB`

t.test('the tarball holds what is used and read; nothing is run when it is installed', async (t) => {
  const target = join(small, 'node_modules/msal-logout-client')
  t.same(readdirSync(target).toSorted(), [
    'LICENSE',
    'README.md',
    'dist',
    'docs',
    'examples',
    'express',
    'fastify',
    'package.json'
  ])
  const manifest = JSON.parse(readFileSync(join(target, 'package.json'), 'utf8'))
  t.equal(manifest.dependencies, undefined)
  t.same(Object.keys(manifest.peerDependencies), ['@azure/msal-node', 'pg'])
  for (const script of ['preinstall', 'install', 'postinstall', 'prepare']) {
    t.equal(manifest.scripts?.[script], undefined, script)
  }
  for (const name of ['repository', 'keywords', 'license', 'description']) {
    t.ok(manifest[name], name)
  }
})

t.test('into an empty folder it brings itself alone, as README.md says', async (t) => {
  const after = sizeOf(join(small, 'node_modules'))
  t.comment(`MSAL and pg: ${show(before)}; with the client: ${show(after)}`)
  t.equal(after.packages, before.packages + 1)
  // MSAL and pg are as large as their newest release; what the client adds is our own.
  const readme = readFileSync(join(root, 'clients/node/README.md'), 'utf8')
  const [alone = 0, together = 0] = [...readme.matchAll(/^\| .* \| \d+ \| ([\d.]+) \|$/gm)].map(([, mb]) => Number(mb))
  const addedMb = (after.bytes - before.bytes) / 1e6
  t.ok(Math.abs(together - alone - addedMb) < 0.1, `${addedMb} MB are added, and README.md says ${together - alone}`)
})

const resolutions = [
  { module: 'commonjs', moduleResolution: 'node10', type: 'commonjs' },
  { module: 'node16', moduleResolution: 'node16', type: 'commonjs' },
  { module: 'node16', moduleResolution: 'node16', type: 'module' },
  { module: 'nodenext', moduleResolution: 'nodenext', type: 'module' },
  { module: 'nodenext', moduleResolution: 'nodenext', type: 'commonjs' },
  { module: 'esnext', moduleResolution: 'bundler', type: 'module' }
] as const

const program = `
import { ConfidentialClientApplication, type ICachePlugin } from '@azure/msal-node'
import express from 'express'
import fastify from 'fastify'
import { createClients, createExpressGuard, createTokenCache, isSignInRequired, SignedOutError } from 'msal-logout-client'
import { createSignIn } from 'msal-logout-client/express'
import { signInPlugin } from 'msal-logout-client/fastify'
import { Pool } from 'pg'

const pool = new Pool()
const tokenCache = createTokenCache({ pool, clientId: 'app', encryption: { current: 'k', keys: { k: Buffer.alloc(32) } } })
const cachePlugin: ICachePlugin = tokenCache.forAccount('a.b')
export const client = new ConfidentialClientApplication({ auth: { clientId: 'app', clientSecret: 's' }, cache: { cachePlugin } })
export const clients = createClients({ tokenCache, configuration: { auth: { clientId: 'app' } }, ConfidentialClientApplication })
export const code: 'ERR_SIGNED_OUT' = new SignedOutError().code
export const isRequired: boolean = isSignInRequired(code)
const signIn = createSignIn({ pool, clientId: 'app', clientSecret: 's', authority: 'https://a', baseUrl: 'https://b' })
const app = express()
app.use(signIn)
app.use(createExpressGuard({ tokenCache, session: (request: express.Request) => request.user }))
app.get('/', signIn.required, async (request, response) => {
  const name: string | undefined = request.user?.name
  response.send(name ?? (await request.token(['scope'])) + String(request.query.page))
})
app.use(signIn.onError)
const server = fastify()
server.register(signInPlugin, { pool, clientId: 'app', clientSecret: 's', authority: 'https://a', baseUrl: 'https://b' })
server.get('/', { preHandler: server.requireSignIn }, async (request) => request.token())
// @ts-expect-error: the types are really there
createTokenCache({ pool, clientId: 1 })
`

for (const compiler of compilers) {
  const home = join(large, `node_modules/typescript-${compiler}`)
  const { version } = JSON.parse(readFileSync(join(home, 'package.json'), 'utf8'))
  t.test(`its types are found and right for TypeScript ${version}, however modules are resolved`, async (t) => {
    // TypeScript 7 knows no node10 any more.
    const known = resolutions.filter(({ moduleResolution }) => moduleResolution !== 'node10' || version < '7')
    for (const { type, ...options } of known) {
      const name = `${options.moduleResolution}, ${type}`
      const project = join(large, `${compiler}-${name.replace(', ', '-')}`)
      mkdirSync(project)
      writeFileSync(join(project, 'package.json'), JSON.stringify({ type }))
      writeFileSync(join(project, 'app.ts'), program)
      const isOld = options.moduleResolution === 'node10' && version >= '6'
      const compilerOptions = {
        target: 'es2022',
        ...(options.moduleResolution === 'bundler' ? {} : { lib: ['es2022'] }), // with the browser's types, and without
        strict: true,
        exactOptionalPropertyTypes: true,
        esModuleInterop: true,
        types: ['node'],
        noEmit: true,
        ...(isOld ? { ignoreDeprecations: '6.0' } : {}),
        ...options
      }
      writeFileSync(join(project, 'tsconfig.json'), JSON.stringify({ compilerOptions, files: ['app.ts'] }))
      const { output } = await run(project, process.execPath, [join(home, 'bin/tsc'), '--listFiles'])
      t.match(output, 'app.ts', `${name}: it has read the program`)
      // Other packages' types may be too new for an old compiler, or not right; ours, and the program, must be.
      const faults = output
        .split('\n')
        .filter((line) => /error TS/.test(line) && !/node_modules\/(?!msal-logout-client\/)/.test(line))
      t.same(faults, [], name)
    }
  })
}

t.test('Jest loads it without settings', async (t) => {
  writeFileSync(
    join(large, 'client.test.js'),
    `const { createClients, createTokenCache, isSignInRequired, SignedOutError } = require('msal-logout-client')
const { createSignIn } = require('msal-logout-client/express')
const { signInPlugin } = require('msal-logout-client/fastify')
const { Pool } = require('pg')

test('it is there', async () => {
  const pool = new Pool({ port: 1 })
  const tokenCache = createTokenCache({ pool, clientId: 'app', onWarning() {} })
  expect(isSignInRequired(new SignedOutError())).toBe(true)
  expect(typeof createSignIn).toBe('function')
  expect(typeof signInPlugin).toBe('function')
  await expect(tokenCache.isSessionActive({ issuer: 'i', sid: 's' })).rejects.toMatchObject({ statusCode: 503 })
  const authority = 'https://login.microsoftonline.com/common'
  const clients = createClients({ tokenCache, configuration: { auth: { clientId: 'app', clientSecret: 's', authority } } })
  const client = await clients.forLogin()
  expect(client).toBeInstanceOf(require('@azure/msal-node').ConfidentialClientApplication)
})
`
  )
  // It keeps what it has transformed in the folder for temporary files.
  const { code, output } = await run(large, 'npx', ['jest'], { NODE_OPTIONS: '', TMPDIR: makeFolder(t) })
  t.equal(code, 0, output)
})

t.test("each module form uses the app's own copy of MSAL", async (t) => {
  const folder = small
  const body = `
const tokenCache = createTokenCache({ pool: new Pool(), clientId: 'app', onWarning() {} })
const auth = { clientId: 'app', clientSecret: 's', authority: 'https://login.microsoftonline.com/common' }
const clients = createClients({ tokenCache, configuration: { auth } })
clients.forLogin().then((client) => console.log(client instanceof ConfidentialClientApplication))
`
  writeFileSync(
    join(folder, 'app.cjs'),
    `const { ConfidentialClientApplication } = require('@azure/msal-node')
const { createClients, createTokenCache } = require('msal-logout-client')
const { Pool } = require('pg')
${body}
setImmediate(() => console.log(Object.keys(require.cache).filter((file) => /msal-node|msal-common/.test(file)).every((file) => file.endsWith('.cjs'))))
`
  )
  writeFileSync(
    join(folder, 'app.mjs'),
    `import { ConfidentialClientApplication } from '@azure/msal-node'
import { createClients, createTokenCache } from 'msal-logout-client'
import pg from 'pg'
const { Pool } = pg
${body}`
  )
  t.match(await run(folder, process.execPath, ['app.cjs']), { code: 0, output: /^(true\n){2}$/ })
  t.match(await run(folder, process.execPath, ['app.mjs']), { code: 0, output: 'true\n' })
  writeFileSync(
    join(folder, 'bare.mjs'),
    `import { createTokenCache } from 'msal-logout-client'
createTokenCache({ pool: new (await import('pg')).default.Pool(), clientId: 'app' }).forLogin()
console.log('no MSAL')
`
  )
  rmSync(join(folder, 'node_modules/@azure'), { recursive: true })
  t.match(await run(folder, process.execPath, ['bare.mjs']), { code: 0, output: 'no MSAL\n' }, 'a plugin needs none')
})

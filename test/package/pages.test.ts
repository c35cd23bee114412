// The client's own pages: what they show is in the examples, and is right.
import { cpSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t from 'tap'
import { frameworks } from '../../clients/node/src/init.ts'
import { changedLines } from '../fixtures/changed-lines.ts'
import { examples, installPackages, packClient, root, run } from '../fixtures/installed-app.ts'

const home = join(root, 'clients/node')
const pages = ['README.md', ...readdirSync(join(home, 'docs')).map((name) => `docs/${name}`)]
const read = (page: string) => readFileSync(join(home, page), 'utf8')

function blocks(page: string, language: string): string[] {
  return [...read(page).matchAll(new RegExp(`^\`\`\`${language}\n(.*?)^\`\`\`$`, 'gms'))].map(([, code = '']) => code)
}

for (const [page, before, after] of [
  ['docs/from-memory.md', 'from-memory/express/before.cjs', 'from-memory/express/after.cjs'],
  [
    'docs/from-distributed-cache-plugin.md',
    'from-distributed-cache-plugin/before.cjs',
    'from-distributed-cache-plugin/after.cjs'
  ],
  [
    'docs/from-express-openid-connect.md',
    'from-express-openid-connect/before.cjs',
    'from-express-openid-connect/after.cjs'
  ]
] as const) {
  t.test(`${page} shows what differs in the examples, and nothing else`, async (t) => {
    t.same(
      blocks(page, 'diff').map((block) => block.trimEnd().split('\n')),
      [changedLines(join(examples, before), join(examples, after))]
    )
  })
}

t.test('each block of a page, each example and each module of `init` is right for TypeScript', async (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'msal-logout-pages-'))
  t.teardown(() => rmSync(folder, { recursive: true, force: true }))
  writeFileSync(join(folder, 'package.json'), JSON.stringify({ private: true, type: 'module' }))
  await installPackages(folder, [
    await packClient(),
    ...[
      'express',
      'express-session',
      'fastify',
      '@fastify/cookie',
      'passport',
      '@azure/msal-node',
      'pg',
      'typescript@5.9'
    ],
    ...['@types/node@20', '@types/express', '@types/express-session', '@types/passport', '@types/pg']
  ])

  const checked: string[] = []
  const put = (path: string, text: string) => {
    mkdirSync(join(folder, path, '..'), { recursive: true })
    writeFileSync(join(folder, path), text)
    checked.push(path)
  }
  for (const page of pages) {
    for (const [i, block] of blocks(page, 'ts').entries()) {
      put(`${page.replace(/\W/g, '-')}-${i}.ts`, (page === 'docs/token-cache.md' ? requests : '') + block)
    }
  }
  t.ok(checked.length >= 8, 'the blocks were found')
  for (const name of ['express-app.ts', 'fastify-app.ts', 'passport-app.ts']) {
    put(`examples/${name}`, readFileSync(join(examples, name), 'utf8'))
  }
  writeFileSync(join(folder, 'tsconfig.json'), '{}')
  const cli = join(folder, 'node_modules/msal-logout-client/dist/esm/cli.js')
  for (const framework of frameworks.filter((each) => each !== 'nextjs')) {
    const project = join(folder, framework)
    mkdirSync(project)
    cpSync(join(folder, 'tsconfig.json'), join(project, 'tsconfig.json'))
    const begun = await run(project, process.execPath, [cli, 'init', '--write', '--framework', framework])
    t.equal(begun.code, 0, begun.output)
    checked.push(`${framework}/msal-logout.ts`)
  }
  writeFileSync(join(folder, 'world.d.ts'), world)
  const compilerOptions = {
    ...{ target: 'es2022', module: 'nodenext', strict: true, exactOptionalPropertyTypes: true, noEmit: true },
    ...{ esModuleInterop: true, skipLibCheck: true, types: ['node'] }
  }
  writeFileSync(join(folder, 'tsconfig.json'), JSON.stringify({ compilerOptions, files: ['world.d.ts', ...checked] }))
  const { code, output } = await run(folder, 'npx', ['tsc'])
  t.equal(code, 0, output)

  await t.test('the app of README.md runs', async (t) => {
    const [app = ''] = blocks('README.md', 'js')
    const started = "process.on('exit', () => console.log(typeof signIn.required)); setImmediate(process.exit)"
    writeFileSync(join(folder, 'app.cjs'), `${app.replace('3000', '0')}\n${started}\n`)
    const env = {
      BASE_URL: 'http://localhost:3000',
      DATABASE_URL: 'postgres://u:p@127.0.0.1:1/d',
      AUTHORITY: 'https://issuer.example',
      CLIENT_ID: 'app',
      CLIENT_SECRET: 's',
      SESSION_SECRET: 's'
    }
    t.match(await run(folder, process.execPath, ['app.cjs'], env), { code: 0, output: /^function$/m })
  })
})

/** What the blocks take for granted. */
const world = `import type { AccountInfo } from '@azure/msal-node'
import type cookiePlugin from '@fastify/cookie'
import type { Express } from 'express'
import type expressSession from 'express-session'
import type { FastifyInstance } from 'fastify'
import type * as Client from 'msal-logout-client'
import type { ExpressSignIn } from 'msal-logout-client/express'
import type { signInPlugin as plugin } from 'msal-logout-client/fastify'
import type pg from 'pg'

declare module 'express-session' {
  interface SessionData {
    account: AccountInfo
  }
}
declare global {
  const app: Express
  const server: FastifyInstance
  const session: typeof expressSession
  const cookie: typeof cookiePlugin
  const signInPlugin: typeof plugin
  const signIn: ExpressSignIn
  const createTokenCache: typeof Client.createTokenCache
  const createExpressGuard: typeof Client.createExpressGuard
  const endSession: typeof Client.endSession
  const tokenCache: Client.TokenCache
  const Pool: typeof pg.Pool
  const pool: pg.Pool
  const clientId: string
  const clientSecret: string
  const authority: string
  const baseUrl: string
  const secret: string
  const k1: Buffer
  const k2: Buffer
  function getSession(): Promise<{ save(): Promise<void> }>
}
`

const requests = "import type { NextFunction, Request, Response } from 'express'\n"

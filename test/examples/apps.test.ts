// `npm run test:examples`: each example as a reader starts it, against a real provider, the service and PostgreSQL.
import { readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import t, { type Test } from 'tap'
import { examples, installApp, packClient, run } from '../fixtures/installed-app.ts'
import { loseDatabase, loseSession, signIn } from './behaviour.ts'
import { type AppOptions, createWorld } from './world.ts'

const compiled = fileURLToPath(new URL('../../clients/node/examples/', import.meta.url))
const maxLines = 40

const world = await createWorld(t)

/** Lines of a file that a reader writes: without blank ones, and without comments. */
function linesOf(...files: string[]): number {
  return files
    .flatMap((file) => readFileSync(join(examples, file), 'utf8').split('\n'))
    .filter((line) => line.trim() !== '' && !line.startsWith('//')).length
}

async function tryApp(t: Test, options: Omit<AppOptions, 'clientId'>, { unavailable = 503 } = {}): Promise<void> {
  const app = await world.startApp({ clientId: 'app', ...options })
  t.teardown(() => app.child.kill('SIGKILL'))
  const alice = world.createBrowser()
  await loseSession(t, world, app, alice)

  await signIn(t, world, app, alice)
  const left = await alice.open(`${app.url}/sign-out`)
  t.ok(left.url.startsWith(`${world.issuer}/session/end`), 'a sign-out here ends the session there, too')
  await alice.submit(left, { logout: 'yes' })
  t.same(await world.rows('alice'), [])

  await loseDatabase(t, world, app, unavailable)
  app.child.kill('SIGKILL')
}

for (const name of ['express', 'fastify', 'passport']) {
  t.test(`${name}-app, as an ES module`, async (t) => {
    const lines = linesOf(`${name}-app.ts`)
    t.ok(lines <= maxLines, `${lines} lines`)
    await tryApp(t, { args: [join(compiled, `${name}-app.js`)] })
  })
}

t.test('express-app, as CommonJS, from the tarball', async (t) => {
  const folder = await installApp(
    t,
    [['express-app.cjs', 'app.cjs']],
    [await packClient(), 'express', 'express-session', '@azure/msal-node', 'pg']
  )
  t.ok(linesOf('express-app.cjs') <= maxLines)
  await tryApp(t, { args: ['app.cjs'], cwd: folder })
})

t.test('express-app on Express 4, which does not wait for handlers by itself', async (t) => {
  const folder = await installApp(
    t,
    [['express-app.cjs', 'app.cjs']],
    [await packClient(), 'express@4', 'express-async-errors', 'express-session', '@azure/msal-node', 'pg']
  )
  await tryApp(t, { args: ['--require=express-async-errors', 'app.cjs'], cwd: folder })
})

t.test('nestjs, from the tarball', async (t) => {
  const folder = await installApp(
    t,
    [['nestjs', '.']],
    [
      await packClient(),
      ...['@nestjs/common', '@nestjs/core', '@nestjs/platform-express', 'reflect-metadata', 'rxjs'],
      ...['express-session', '@azure/msal-node', 'pg', 'typescript@5.9'],
      ...['@types/node@20', '@types/express', '@types/express-session', '@types/pg']
    ]
  )
  const built = await run(folder, 'npx', ['tsc'])
  t.equal(built.code, 0, built.output)
  const lines = linesOf('nestjs/main.ts')
  t.ok(lines <= maxLines, `${lines} lines`)
  await tryApp(t, { args: ['dist/main.js'], cwd: folder })
})

t.test('nextjs, from the tarball', async (t) => {
  const folder = await installApp(
    t,
    [['nextjs', '.']],
    [
      await packClient(),
      ...['next', 'react', 'react-dom', 'iron-session', '@azure/msal-node', 'pg', 'typescript@5.9'],
      ...['@types/node@20', '@types/react', '@types/pg']
    ]
  )
  const env = { NEXT_TELEMETRY_DISABLED: '1', NODE_ENV: 'production' as const }
  const needed = { BASE_URL: 'http://localhost', CLIENT_ID: 'app', CLIENT_SECRET: 'x', AUTHORITY: 'https://localhost' }
  const built = await run(folder, 'npx', ['next', 'build'], { ...env, ...needed })
  t.equal(built.code, 0, built.output)
  const lines = linesOf(
    'nextjs/lib/auth.ts',
    'nextjs/app/page.tsx',
    'nextjs/app/api/route.ts',
    'nextjs/app/[action]/route.ts'
  )
  t.ok(lines <= maxLines, `${lines} lines`)
  const args = ['node_modules/next/dist/bin/next', 'start']
  await tryApp(t, { args, cwd: folder, env }, { unavailable: 500 }) // Next.js knows no other

  await t.test('with what `init` writes', async (t) => {
    rmSync(join(folder, 'app/[action]'), { recursive: true })
    const options = ['--write', '--framework', 'nextjs', '--client-id', 'app', '--role', 'next_shop']
    t.match(await run(folder, 'npx', ['msal-logout-client', 'init', ...options]), { code: 0 })
    writeFileSync(join(folder, 'lib/auth.ts'), "export * from '../msal-logout'\n")
    const environment = await fillIn(folder)
    rmSync(join(folder, '.next'), { recursive: true })
    writeFileSync(join(folder, '.env.local'), environment)
    const built = await run(folder, 'npx', ['next', 'build'], env)
    t.equal(built.code, 0, built.output)
    const app = await world.startApp({ clientId: 'app', args, cwd: folder, env, isSetUp: true })
    t.teardown(() => app.child.kill('SIGKILL'))
    await loseSession(t, world, app, world.createBrowser())
  })
})

t.test('what `init` writes for Express works at the first start', async (t) => {
  const folder = await installApp(t, [], [await packClient(), 'express', 'express-session', '@azure/msal-node', 'pg'])
  const started = await run(folder, 'npx', [
    'msal-logout-client',
    'init',
    '--write',
    '--client-id',
    'app',
    '--role',
    'shop'
  ])
  t.match(started, { code: 0, output: /^For express:/m })
  await fillIn(folder)
  writeFileSync(
    join(folder, 'app.js'),
    `const express = require('express')
const session = require('express-session')
const { signIn } = require('./msal-logout.js')
const app = express()
app.use(session({ secret: process.env.SESSION_SECRET, resave: false, saveUninitialized: false }))
app.use(signIn)
app.get('/', (request, response) => response.send(request.user ? 'signed in as ' + request.user.subject : 'nobody'))
app.get('/api', signIn.required, async (request, response) => {
  const headers = { authorization: 'Bearer ' + (await request.token()) }
  response.json(await (await fetch(process.env.API_URL, { headers })).json())
})
app.use(signIn.onError)
signIn.check().then(() => app.listen(Number(process.env.PORT), '127.0.0.1'))
`
  )
  const args = ['--env-file=msal-logout.env', 'app.js']
  const app = await world.startApp({ clientId: 'app', args, cwd: folder, isSetUp: true })
  t.teardown(() => app.child.kill('SIGKILL'))
  await loseSession(t, world, app, world.createBrowser())
})

/** Carries out the statements that `init` has written, and fills in what it leaves open; resolves with the environment. */
async function fillIn(folder: string): Promise<string> {
  await world.owner.query(readFileSync(join(folder, 'msal-logout.sql'), 'utf8'))
  const { host, pathname } = new URL(world.postgres.url)
  const environment = readFileSync(join(folder, 'msal-logout.env'), 'utf8')
    .replace(/@localhost:5432\/<database>/, `@${host}${pathname}`)
    .replace(/^AUTHORITY=.*$/m, `AUTHORITY=${world.issuer}`)
    .replace(/^CLIENT_SECRET=.*$/m, `CLIENT_SECRET=${world.clientSecret}`)
    .replace(/^BASE_URL=.*$/m, `BASE_URL=${world.urlOf('app')}`)
  writeFileSync(join(folder, 'msal-logout.env'), environment)
  return environment
}

// `npm run test:examples`: each example as a reader starts it, against a real provider, the service and PostgreSQL.
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import t, { type Test } from 'tap'
import { type App, type AppOptions, createWorld, examples, installApp, packClient, run } from './world.ts'

const compiled = fileURLToPath(new URL('../../clients/node/examples/', import.meta.url))
const maxLines = 40
const recoverWithinMs = 60_000
// The limit of a call, and twice as much for a machine that others use.
const answerWithinMs = 5_000 + 10_000

const world = await createWorld(t)

/** Lines of a file that a reader writes: without blank ones, and without comments. */
function linesOf(...files: string[]): number {
  return files
    .flatMap((file) => readFileSync(join(examples, file), 'utf8').split('\n'))
    .filter((line) => line.trim() !== '' && !line.startsWith('//')).length
}

/** All that an app must do whose users are signed out elsewhere, and whose database goes and comes. */
async function tryApp(t: Test, options: AppOptions, { unavailable = 503 } = {}): Promise<void> {
  const app = await world.startApp(options)
  t.teardown(() => app.child.kill('SIGKILL'))
  const isSignedIn = /signed in as (<!-- -->)?alice/
  const alice = world.createBrowser()

  t.match((await world.signIn(alice, app, 'alice')).body, isSignedIn)
  t.match(await alice.open(`${app.url}/api`), { status: 200, body: /"sub":"alice"/ })
  t.same(await world.rows('alice'), [app.clientId])

  await world.signOutAtProvider(alice, app)
  t.same(await world.rows('alice'), [])
  await isSignedOut('a sign-out at the provider')

  t.match((await world.signIn(alice, app, 'alice')).body, isSignedIn)
  await world.purge('alice')
  await isSignedOut('a purge')
  await delay(1_100) // an ID token tells its time in whole seconds, and must be newer than the purge

  t.match((await world.signIn(alice, app, 'alice')).body, isSignedIn)
  const left = await alice.open(`${app.url}/sign-out`)
  t.ok(left.url.startsWith(`${world.issuer}/session/end`), 'a sign-out here ends the session there, too')
  await alice.submit(left, { logout: 'yes' })
  t.same(await world.rows('alice'), [])

  await loseDatabase(t, app, unavailable)
  t.equal(app.child.exitCode, null, `the process lives: ${app.output.slice(-3).join('\n')}`)

  /** 302 to sign in, or 401; never 500. */
  async function isSignedOut(after: string): Promise<void> {
    const answer = await alice.open(`${app.url}/api`)
    t.ok(answer.status === 401 || answer.url.startsWith(world.issuer), `after ${after}: ${answer.status} ${answer.url}`)
    const home = await alice.open(`${app.url}/`)
    t.equal(home.status, 200, `after ${after} the page is there`)
    t.notMatch(home.body, isSignedIn)
  }
}

/** PostgreSQL is killed and started again; then it falls silent, and goes on. */
async function loseDatabase(t: Test, app: App, unavailable: number): Promise<void> {
  const bob = world.createBrowser()
  await world.signIn(bob, app, 'bob')
  t.match(await bob.open(`${app.url}/api`), { status: 200 })
  const { postgres, owner } = world

  await postgres.kill()
  const refused = await bob.open(`${app.url}/api`)
  t.equal(refused.status, unavailable, 'without PostgreSQL')
  await postgres.start()
  await recovers('a restart')

  const { rows } = await owner.query<{ pid: number }>('select pid from pg_stat_activity where pid <> pg_backend_pid()')
  const pids = [postgres.pid ?? 0, ...rows.map(({ pid }) => pid)]
  const signal = (name: NodeJS.Signals) => {
    for (const pid of pids) {
      process.kill(pid, name)
    }
  }
  signal('SIGSTOP')
  const startedAt = Date.now()
  const silent = await bob.open(`${app.url}/api`)
  const ms = Date.now() - startedAt
  signal('SIGCONT')
  t.comment(`${options(app)}: a silent database is answered by ${silent.status} after ${ms} ms`)
  t.equal(silent.status, unavailable, 'with a silent one')
  t.ok(ms < answerWithinMs)
  await recovers('a silence')

  async function recovers(after: string): Promise<void> {
    const startedAt = Date.now()
    let status = 0
    while (status !== 200 && Date.now() - startedAt < recoverWithinMs) {
      status = (await bob.open(`${app.url}/api`)).status
      await delay(100)
    }
    t.equal(status, 200, `after ${after} it recovers`)
  }
}

const options = ({ child }: App) => child.spawnargs.at(-1)?.split('/').at(-1)

for (const name of ['express', 'fastify', 'passport']) {
  t.test(`${name}-app, as an ES module`, async (t) => {
    const lines = linesOf(`${name}-app.ts`)
    t.ok(lines <= maxLines, `${lines} lines`)
    await tryApp(t, { clientId: 'app', args: [join(compiled, `${name}-app.js`)] })
  })
}

t.test('express-app, as CommonJS, from the tarball', async (t) => {
  const folder = await installApp(
    t,
    [['express-app.cjs', 'app.cjs']],
    [await packClient(), 'express', 'express-session', '@azure/msal-node', 'pg']
  )
  t.ok(linesOf('express-app.cjs') <= maxLines)
  await tryApp(t, { clientId: 'app', args: ['app.cjs'], cwd: folder })
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
  await tryApp(t, { clientId: 'app', args: ['dist/main.js'], cwd: folder })
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
  await tryApp(t, { clientId: 'app', args, cwd: folder, env }, { unavailable: 500 }) // Next.js knows no other
})

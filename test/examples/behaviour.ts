// What an app must do whose users are signed out elsewhere, and whose database goes and comes.
import { setTimeout as delay } from 'node:timers/promises'
import type { Test } from 'tap'
import type { Browser } from '../../examples/browser.ts'
import { until } from '../fixtures/until.ts'
import type { App, World } from './world.ts'

const recoverWithinMs = 60_000
// The limit of a call, and twice as much for a machine that others use.
const answerWithinMs = 5_000 + 10_000

export const isSignedIn = /signed in as (<!-- -->)?alice/

/** Signs alice in, and gets an answer of the API with her token. */
export async function signIn(t: Test, world: World, app: App, alice: Browser): Promise<void> {
  t.match((await world.signIn(alice, app, 'alice')).body, isSignedIn)
  t.match(await alice.open(`${app.url}/api`), { status: 200, body: /"sub":"alice"/ })
  t.same(await world.rows('alice'), [app.clientId])
}

/** After a sign-out at the provider, and after a purge: 302 to sign in, or 401; never 500. */
export async function loseSession(t: Test, world: World, app: App, alice: Browser): Promise<void> {
  await signIn(t, world, app, alice)
  await world.signOutAtProvider(alice, app)
  await isSignedOut('a sign-out at the provider')

  await signIn(t, world, app, alice)
  await world.purge('alice')
  await isSignedOut('a purge')
  await delay(1_100) // an ID token says its time in whole seconds, and must be newer than the purge

  async function isSignedOut(after: string): Promise<void> {
    t.same(await world.rows('alice'), [])
    const { status, location = '' } = await alice.look(`${app.url}/api`)
    const asksToSignIn = status === 401 || new URL(location, app.url).pathname === '/sign-in'
    t.ok(asksToSignIn, `after ${after}: ${status} ${location}`)
    const home = await alice.open(`${app.url}/`)
    t.equal(home.status, 200, `after ${after} the page is there`)
    t.notMatch(home.body, isSignedIn)
  }
}

/**
 * PostgreSQL is killed and started again; then it falls silent, and goes on.
 *
 * @param unavailable the status that the app answers meanwhile
 */
export async function loseDatabase(t: Test, world: World, app: App, unavailable: number): Promise<void> {
  const bob = world.createBrowser()
  await world.signIn(bob, app, 'bob')
  t.match(await bob.open(`${app.url}/api`), { status: 200 })
  const { postgres, owner } = world

  await postgres.kill()
  // The server's other processes end one by one, and answer until then.
  let status = 200
  await until('an app without PostgreSQL notices', async () => {
    status = (await bob.open(`${app.url}/api`)).status
    return status !== 200
  })
  t.equal(status, unavailable, 'without PostgreSQL')
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
  t.comment(`${app.name}: a silent database is answered by ${silent.status} after ${ms} ms`)
  t.equal(silent.status, unavailable, 'with a silent one')
  t.ok(ms < answerWithinMs)
  await recovers('a silence')
  t.equal(app.child.exitCode, null, `the process lives: ${app.output.slice(-3).join('\n')}`)

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

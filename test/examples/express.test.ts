import { execFileSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { createWorld, examples, installApp, installPackages, packClient } from './world.ts'

const world = await createWorld(t)
const folder = join(examples, 'from-memory/express')

/** Lines that were added or changed. */
function changedLines(before: string, after: string): number {
  try {
    execFileSync('git', ['diff', '--no-index', '--numstat', before, after])
    return 0
  } catch (error) {
    return Number(String((error as { stdout: Buffer }).stdout).split('\t')[0])
  }
}

t.test(
  'from tokens in memory to the shared cache: at most 10 lines of 57, and it works at the first start',
  async (t) => {
    const [before, after] = [join(folder, 'before.cjs'), join(folder, 'after.cjs')]
    t.equal(readFileSync(before, 'utf8').trimEnd().split('\n').length, 57)
    const changed = changedLines(before, after)
    t.comment(`${changed} lines changed`)
    t.ok(changed <= 10)

    const app = await installApp(t, [['from-memory/express', '.']], ['express', 'express-session', '@azure/msal-node'])
    await t.test('before: it works, and nothing of it is shared', async (t) => {
      const { child, ...running } = await world.startApp({ clientId: 'app', args: ['before.cjs'], cwd: app })
      const alice = world.createBrowser()
      t.equal((await world.signIn(alice, { child, ...running }, 'alice')).body, 'signed in as alice\n')
      t.match(await alice.open(`${running.url}/api`), { status: 200, body: /"sub":"alice"/ })
      await world.signOutAtProvider(alice, { child, ...running })
      t.match(await alice.open(`${running.url}/api`), { status: 200 }, 'and a sign-out changes nothing')
      child.kill('SIGKILL')
    })

    await installPackages(app, [await packClient(), 'pg'])
    const running = await world.startApp({ clientId: 'app', args: ['after.cjs'], cwd: app })
    const alice = world.createBrowser()
    t.equal((await world.signIn(alice, running, 'alice')).body, 'signed in as alice\n')
    t.match(await alice.open(`${running.url}/api`), { status: 200, body: /"sub":"alice"/ })
    t.same(await world.rows('alice'), ['app'])
    await world.signOutAtProvider(alice, running)
    t.same(await world.rows('alice'), [])
    t.match(await alice.open(`${running.url}/`), { status: 200, body: 'not signed in\n' })
    const api = await alice.open(`${running.url}/api`)
    t.match(api, { status: 200 }, 'it goes to sign in')
    t.ok(api.url.startsWith(world.issuer))
    t.equal(running.child.exitCode, null)
  }
)

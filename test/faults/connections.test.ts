// Somebody opens more connections than the process may have files, and says little on them.
import { setTimeout as delay } from 'node:timers/promises'
import t, { type Test } from 'tap'
import { noteTries } from '../fixtures/attacks.ts'
import { type BrokenPart, startSiege } from '../fixtures/siege.ts'

const timeout = 300_000
const maxFiles = 1_024
const connections = 3 * maxFiles

async function besiege(t: Test, broken?: readonly BrokenPart[]) {
  const siege = await startSiege(t, {
    command: ['prlimit', `--nofile=${maxFiles}:${maxFiles}`, process.execPath],
    ...(broken && { broken })
  })
  const people = await siege.prepare(300)
  const end = await siege.attack({
    url: siege.server.publicUrl,
    connections,
    perSecond: 300,
    from: '127.0.0.2',
    request: { method: 'GET', path: '/healthz' }
  })
  await delay(3_000) // until there are as many as can be
  const answers = [...(await siege.signOut(people.slice(0, 60), 0)), ...(await siege.signOut(people.slice(60), 30))]
  await end()
  const verdict = await siege.judge(answers)
  t.comment(verdict.summary)
  return verdict
}

t.test('who opens more connections than there are files takes none of anybody else', { timeout }, async (t) => {
  const verdict = await besiege(t)
  t.match(verdict, { late: 0, lost: 0, undone: 0, heldUp: false })
  noteTries('idle connections, three times as many as the process may have files', connections, verdict.count)
})

t.test('the control: without a bound genuine sign-outs find no connection', { timeout }, async (t) => {
  const { late, lost, undone } = await besiege(t, [
    { file: 'src/http/app.js', line: 'boundConnections(app.server, { logger })', broken: '' }
  ])
  t.ok(late + lost + undone > 0, 'the harness sees it')
})

// Invalid tokens from 12,000 networks of one /48, beside genuine sign-outs.
import t, { type Test } from 'tap'
import { noteTries } from '../fixtures/attacks.ts'
import { type BrokenPart, startSiege } from '../fixtures/siege.ts'

const timeout = 300_000

async function besiege(t: Test, broken?: readonly BrokenPart[]) {
  const siege = await startSiege(t, {
    env: { TRUSTED_PROXIES: '127.0.0.1', LOG_LEVEL: 'warn' },
    ...(broken && { broken })
  })
  const people = await siege.prepare(300)
  const end = await siege.attack({
    url: siege.server.publicUrl,
    connections: 100,
    request: {
      method: 'POST',
      path: '/backchannel-logout',
      body: 'logout_token=x.{uuid}.x',
      address: '2001:db8:1:{network}::{network}'
    }
  })
  const answers = [...(await siege.signOut(people.slice(0, 60), 0)), ...(await siege.signOut(people.slice(60), 40))]
  const verdict = await siege.judge(answers)
  const report = await end()
  t.comment(`${verdict.summary}; invalid: ${JSON.stringify(report)}; ${siege.server.output.length} lines of log`)
  return { verdict, report, lines: siege.server.output.length }
}

t.test(
  'invalid tokens of 12,000 networks of a /48 are limited, fill no log, and hold up no sign-out',
  { timeout },
  async (t) => {
    const { verdict, report, lines } = await besiege(t)
    t.match(verdict, { late: 0, lost: 0, undone: 0 })
    t.ok(report.sent > 12_000, `${report.sent} were sent`)
    t.ok((report.answers['429'] ?? 0) > report.sent / 2, 'most were limited')
    t.ok(lines < 450, `${lines} lines of log`)
    noteTries('invalid tokens from 12,000 networks of a /48', report.sent, verdict.count)
  }
)

t.test('the control: if a network of IPv6 is known by its /64 alone, none is limited', { timeout }, async (t) => {
  const { report } = await besiege(t, [
    { file: 'src/senders.js', line: '{ key: prefix(3), factor: 20 },', broken: '' },
    { file: 'src/senders.js', line: '{ key: prefix(2), factor: 200 }', broken: '' }
  ])
  t.ok((report.answers['429'] ?? 0) < report.sent / 100, 'the harness sees it')
})

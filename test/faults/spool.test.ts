// What others put into the spool, or send again and again while it is in use.
import { execFileSync } from 'node:child_process'
import { chownSync, linkSync, mkdirSync, readdirSync, symlinkSync, truncateSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { noteTries } from '../fixtures/attacks.ts'
import { makeOrder } from '../fixtures/orders.ts'
import { type BrokenPart, type Siege, startSiege } from '../fixtures/siege.ts'
import { until } from '../fixtures/until.ts'

const timeout = 120_000

const nameOf = (n: number) =>
  `${String(n).padStart(15, '0')}-${'0'.repeat(8)}-0000-0000-0000-${String(n).padStart(12, '0')}.9.verified.json`

/** An order that no try can carry out. */
const rejectedByTheDatabase = JSON.stringify({
  kind: 'orders',
  source: 'backchannel',
  isSigned: true,
  receivedAt: 1,
  orders: [makeOrder({ kind: 'session', issuer: 'https://op.example', sid: '\0' })]
})

/** Named as deferred orders are, and older than all: each round comes to them first. */
function plant({ spoolDir }: Siege): number {
  mkdirSync(spoolDir, { recursive: true, mode: 0o700 })
  const plants: ((path: string) => unknown)[] = [
    (path) => execFileSync('mkfifo', [path]),
    (path) => symlinkSync('/dev/zero', path),
    (path) => symlinkSync('/dev/tty', path),
    (path) => mkdirSync(path),
    (path) => {
      writeFileSync(path, '')
      truncateSync(path, 2 ** 34)
    },
    (path) => writeFileSync(path, '{"kind":', { mode: 0o666 }),
    (path) => writeFileSync(path, Buffer.alloc(10_000)),
    (path) => symlinkSync(path, path),
    (path) => symlinkSync(`${path}.nowhere`, path),
    (path) => {
      writeFileSync(`${path}.other`, '{}')
      linkSync(`${path}.other`, path)
    },
    (path) => writeFileSync(path, '['.repeat(200_000), { mode: 0o600 }),
    (path) => writeFileSync(path, rejectedByTheDatabase, { mode: 0o600 })
  ]
  if (process.getuid?.() === 0) {
    plants.push((path) => {
      writeFileSync(path, '{}')
      chownSync(path, 12_345, 12_345)
    })
    plants.push((path) => {
      try {
        execFileSync('mknod', [path, 'c', '1', '5'], { stdio: 'ignore' }) // /dev/zero
      } catch {
        symlinkSync('/dev/zero', path) // a container may not make devices
      }
    })
  }
  const copies = 20
  for (let i = 0; i < copies * plants.length; i += 1) {
    plants[i % plants.length]?.(join(spoolDir, nameOf(i + 1)))
  }
  return copies * plants.length
}

/** People sign out during an outage, in a spool with what does not belong there. */
async function besiege(t: Test, broken?: readonly BrokenPart[]) {
  const siege = await startSiege(t, { ...(broken && { broken }) })
  const planted = plant(siege)
  const people = await siege.prepare(200)
  const answers = await siege.withoutDatabase(() => siege.signOut(people, 5))
  const verdict = await siege.judge(answers)
  t.comment(verdict.summary)
  return { siege, verdict, planted }
}

t.test('pipes, links to devices, and files of others hold up nothing that is deferred', { timeout }, async (t) => {
  const { verdict, planted } = await besiege(t)
  t.match(verdict, { late: 0, lost: 0, undone: 0 })
  noteTries('pipes, links to devices, endless and foreign files in the spool', planted, verdict.count)
})

t.test('the same token again and again takes one place in the spool', { timeout }, async (t) => {
  const siege = await startSiege(t)
  const [again, ...people] = await siege.prepare(201)
  const { answers, files, report } = await siege.withoutDatabase(async () => {
    const end = await siege.attack({
      url: siege.server.publicUrl,
      connections: 50,
      request: { method: 'POST', path: '/backchannel-logout', body: `logout_token=${again?.token}` }
    })
    const answers = await siege.signOut(people, 20)
    const files = readdirSync(siege.spoolDir).filter((name) => name.endsWith('.json'))
    return { answers, files, report: await end() }
  })
  const verdict = await siege.judge([...answers])
  t.comment(`${verdict.summary}; the same: ${JSON.stringify(report)}`)
  t.match(verdict, { late: 0, lost: 0, undone: 0 })
  t.ok(report.sent > people.length, `${report.sent} were sent`)
  t.ok(files.length <= people.length + 1, `${files.length} files`)
  await until('the spool is empty', () => !readdirSync(siege.spoolDir).some((name) => name.endsWith('.json')))
  noteTries('the same token again and again while the database is away', report.sent, verdict.count)
})

t.test('the control: a spool that opened whatever is there would hang', { timeout }, async (t) => {
  const { verdict } = await besiege(t, [
    {
      file: 'src/durable-files.js',
      line: 'constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK',
      broken: 'constants.O_RDONLY'
    },
    { file: 'src/durable-files.js', line: 'if (!stats.isFile()) {', broken: 'if (false) {' },
    { file: 'src/durable-files.js', line: 'if (!trust.isOwner(stats)) {', broken: 'if (false) {' }
  ])
  t.ok(verdict.late + verdict.lost + verdict.undone > 0, 'the harness sees it')
})

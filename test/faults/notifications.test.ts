// Somebody who may connect, and no more, fills PostgreSQL's queue of notifications.
import pg from 'pg'
import t, { type Test } from 'tap'
import { startEmbeddedPostgres } from '../../src/embedded-postgres.ts'
import { migrate } from '../../src/migrate.ts'
import { noteTries } from '../fixtures/attacks.ts'
import { type BrokenPart, startSiege } from '../fixtures/siege.ts'

const timeout = 120_000
// PostgreSQL's least; by default it is 8 GB.
const queuePages = 64
const kilobytes = (queuePages * 8_192) / 1_000

async function besiege(t: Test, broken?: readonly BrokenPart[]) {
  const postgres = await startEmbeddedPostgres({ settings: { max_notify_queue_pages: String(queuePages) } })
  t.teardown(() => postgres.stop())
  const pool = new pg.Pool({ connectionString: postgres.url })
  pool.on('error', () => {}) // PostgreSQL is stopped first
  t.teardown(() => pool.end())
  await migrate(pool)
  await pool.query(`create role neighbour login password 'test'`)
  const siege = await startSiege(t, {
    database: { url: postgres.url, query: async (text, values) => (await pool.query(text, values)).rows },
    ...(broken && { broken })
  })
  const people = await siege.prepare(300)

  const neighbour = async () => {
    const url = new URL(postgres.url)
    url.username = 'neighbour'
    url.password = 'test'
    const client = new pg.Client({ connectionString: url.href })
    client.on('error', () => {}) // PostgreSQL is stopped first
    await client.connect()
    t.teardown(() => client.end())
    return client
  }
  // One who listens and does not read holds the end of the queue.
  const listener = await neighbour()
  await listener.query('listen anything')
  await listener.query('begin')
  await listener.query('select 1')
  const sender = await neighbour()
  let tries = 0
  let isFull = false
  while (!isFull && tries < kilobytes) {
    tries += 1
    isFull = await sender.query(`select pg_notify('anything', $1)`, [`${tries} ${'x'.repeat(7_000)}`]).then(
      () => false,
      () => true
    )
  }
  t.ok(isFull, `the queue is full after ${tries} notifications`)

  const answers = [...(await siege.signOut(people.slice(0, 60), 0)), ...(await siege.signOut(people.slice(60), 10))]
  const verdict = await siege.judge(answers)
  t.comment(verdict.summary)
  return { siege, verdict, tries, listener }
}

t.test('a full queue of notifications holds up no sign-out, and is counted', { timeout }, async (t) => {
  const { siege, verdict, tries } = await besiege(t)
  t.match(verdict, { late: 0, lost: 0, undone: 0, heldUp: false })
  const metrics = await (await siege.server.fetch(`${siege.server.adminUrl}/metrics`)).text()
  t.match(metrics, /msal_logout_notify_failures_total [1-9]/)
  noteTries('a role without any right fills the queue of notifications', tries, verdict.count)
})

t.test('the control: a sign-out that notified before its commit would fail', { timeout }, async (t) => {
  const { verdict } = await besiege(t, [
    {
      file: 'sql/sign_out.sql',
      line: '  if not patient then\n',
      broken: `  perform pg_notify('msal_logout', '');\n  if not patient then\n`
    }
  ])
  t.ok(verdict.late + verdict.lost + verdict.undone > 0 || verdict.heldUp, 'the harness sees it')
})

// One account with a quarter of a million sessions.
import t, { type Test } from 'tap'
import { noteTries } from '../fixtures/attacks.ts'
import { storeHeavy, untilGone } from '../fixtures/heavy-account.ts'
import { type BrokenPart, startSiege } from '../fixtures/siege.ts'
import { until } from '../fixtures/until.ts'

const sessions = 250_000
const fewer = 100_000
const timeout = 900_000

/** Three heavy accounts are signed out, each twice and in another way, beside 60 people at once and 240 one after the other. */
async function besiege(t: Test, count: number, broken?: readonly BrokenPart[]) {
  const siege = await startSiege(t, { ...(broken && { broken }) })
  const accounts = ['heavy-1.', 'heavy-2.', 'heavy-3.']
  for (const [i, account] of accounts.entries()) {
    await storeHeavy(siege, account, i === 0 ? count : count / 10)
  }
  const heavy = [{ sid: 'heavy-1.1' }, { sid: 'heavy-2.1', sub: 'heavy-2.' }, { sid: undefined, sub: 'heavy-3.' }]
  const tokens = await Promise.all([...heavy, ...heavy].map((claims) => siege.provider.logoutToken(claims)))
  const people = await siege.prepare(300)
  const [heavyAnswers, first, others] = await Promise.all([
    siege.signOut(
      tokens.map((token) => ({ sid: 'heavy', token })),
      500
    ),
    siege.signOut(people.slice(0, 60), 0),
    siege.signOut(people.slice(60), 20)
  ])
  const verdict = await siege.judge([...first, ...others])
  t.comment(verdict.summary)
  t.comment(`heavy: ${heavyAnswers.map(({ status, tookMs }) => `${status} in ${Math.round(tookMs)} ms`).join(', ')}`)
  return { siege, accounts, heavyAnswers, verdict }
}

t.test('heavy accounts hold up no other sign-out, and are signed out', { timeout }, async (t) => {
  const { siege, accounts, heavyAnswers, verdict } = await besiege(t, sessions)
  t.match(verdict, { late: 0, lost: 0, undone: 0, heldUp: false })
  t.same(
    heavyAnswers.filter(({ tookMs, status }) => tookMs > 2_000 || ![200, 503].includes(status)),
    []
  )
  await untilGone(siege, accounts)
  await until('the records have all of it', async () => {
    const [found] = await siege.database.query<{ sessions: string; rows: string; unfinished: string }>(
      `select sum(sessions)::text as sessions, sum(rows)::text as rows, count(*) filter (where status <> 'done')::text as unfinished
      from msal_logout.records where sid like 'heavy-1.%'`
    )
    return found?.sessions === String(sessions) && found.rows === String(sessions) && found.unfinished === '0'
  })
  noteTries('an account with 250,000 sessions is signed out', heavyAnswers.length, verdict.count)
})

t.test('after an outage a heavy account holds up nothing that was deferred beside it', { timeout }, async (t) => {
  const siege = await startSiege(t)
  await storeHeavy(siege, 'heavy-1.', fewer)
  const people = await siege.prepare(200)
  const heavy = { sid: 'heavy', token: await siege.provider.logoutToken({ sid: 'heavy-1.1' }) }
  const answers = await siege.withoutDatabase(() =>
    siege.signOut([...people.slice(0, 100), heavy, ...people.slice(100)], 5)
  )
  const verdict = await siege.judge(answers.filter(({ sid }) => sid !== 'heavy'))
  t.comment(verdict.summary)
  t.match(verdict, { late: 0, lost: 0, undone: 0 })
  await untilGone(siege, ['heavy-1.'])
  noteTries('an account with 100,000 sessions is signed out after an outage', 1, verdict.count)
})

t.test('the control: where a time limit counts as an outage, others stay undone', { timeout }, async (t) => {
  const { verdict } = await besiege(t, sessions, [
    {
      file: 'src/sign-out.js',
      line: `isOfLock(error) || codeOf(error) === 'ERR_DATABASE_TIMEOUT'`,
      broken: 'isOfLock(error)'
    },
    {
      file: 'src/sign-out.js',
      line: `codeOf(error) === 'ERR_DATABASE_TIMEOUT' ? await rejectLarge(batch) : batch`,
      broken: 'batch'
    }
  ])
  t.ok(verdict.late + verdict.lost + verdict.undone > 0 || verdict.heldUp, 'the harness sees it')
})

import t from 'tap'
import { budget, within } from '../src/budget.ts'

t.test('every time limit of an answer fits into the 2 s that it may take', async (t) => {
  const {
    answerMs,
    workMs,
    deferMs,
    gateMs,
    signedTurnMs,
    keysMs,
    waitMs,
    batchStatementMs,
    statementMs,
    lockMs,
    connectMs,
    graceMs
  } = budget
  t.equal(answerMs, 2_000)
  t.ok(workMs + deferMs <= answerMs - 100, 'work, then writing to the disk, with a tenth of a second for the rest')
  t.ok(gateMs + batchStatementMs < workMs, 'who waited at the gate has time for a transaction')
  t.ok(signedTurnMs + batchStatementMs < workMs, 'also a sender whose signals were rejected of late')
  t.ok(signedTurnMs + keysMs <= workMs, 'who waited for the turn has time for keys')
  t.ok(waitMs < workMs, 'what waits longer for its transaction is not begun')
  t.ok(batchStatementMs + 2 * 100 < waitMs, 'an order whose batch was cut off has time to go alone')
  t.ok(statementMs + graceMs <= workMs, 'a statement ends before its answer does')
  t.ok(connectMs < statementMs)
  t.ok(lockMs < batchStatementMs, 'a lock shows as a lock, not as a time limit')
})

t.test('what takes longer fails with the given error, and goes on', async (t) => {
  let isDone = false
  const work = new Promise<void>((resolve) =>
    setTimeout(() => {
      isDone = true
      resolve()
    }, 20)
  )
  await t.rejects(
    within(work, 1, () => new Error('late')),
    { message: 'late' }
  )
  await work
  t.ok(isDone)
  t.equal(await within(Promise.resolve('done'), 0, () => new Error('late')), 'done', 'what is there is never late')
})

import { setImmediate as turn } from 'node:timers/promises'
import t, { type Test } from 'tap'
import { createNotifier } from '../src/notifier.ts'
import { until } from './fixtures/until.ts'

function setUp(t: Test, { intervalMs = 60_000 }: { intervalMs?: number } = {}) {
  const ends: ((error?: Error) => void)[] = []
  const failures: unknown[] = []
  const notifier = createNotifier({
    send: () =>
      new Promise((resolve, reject) => {
        ends.push((error) => (error === undefined ? resolve() : reject(error)))
      }),
    onFailure: (error) => failures.push(error),
    intervalMs
  })
  t.teardown(async () => {
    const stopped = notifier.stop()
    await turn()
    ends.forEach((end) => {
      end()
    })
    await stopped
  })
  return { ...notifier, ends, failures }
}

t.test('the first notification goes at once, and one stands for all that come meanwhile', async (t) => {
  const { notify, ends } = setUp(t, { intervalMs: 0 })
  notify()
  t.equal(ends.length, 1)
  notify()
  notify()
  await turn()
  t.equal(ends.length, 1, 'one is under way at most')
  ends[0]?.()
  await until('the next one is sent', async () => ends.length > 1)
  ends[1]?.()
  await turn()
  t.equal(ends.length, 2)
})

t.test('the next one waits for the interval', async (t) => {
  const { notify, ends } = setUp(t)
  notify()
  ends[0]?.()
  await turn()
  notify()
  await turn()
  t.equal(ends.length, 1)
})

t.test('what waits is sent before the end', async (t) => {
  const { notify, stop, ends } = setUp(t)
  notify()
  ends[0]?.()
  await turn()
  notify()
  const stopped = stop()
  await turn()
  t.equal(ends.length, 2)
  ends[1]?.()
  await stopped
})

t.test('the end waits for what is under way, and for nothing else', async (t) => {
  const { notify, stop, ends } = setUp(t)
  await stop()
  notify()
  let isStopped = false
  const stopped = stop().then(() => {
    isStopped = true
  })
  await turn()
  t.notOk(isStopped)
  ends[0]?.()
  await stopped
})

t.test('a failure is counted, and the next one is sent', async (t) => {
  const { notify, ends, failures } = setUp(t, { intervalMs: 0 })
  const failure = new Error('full')
  notify()
  ends[0]?.(failure)
  await turn()
  t.same(failures, [failure])
  notify()
  await until('the next one is sent', async () => ends.length > 1)
  t.equal(ends.length, 2)
})

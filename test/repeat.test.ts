import t from 'tap'
import { repeatThroughOutages, takeTurns } from '../src/repeat.ts'
import { until } from './fixtures/until.ts'

t.test('work that fails goes on, and the first failure of several in a row is heard', async (t) => {
  const ends = ['good', 'bad', 'worse', 'good', 'bad again', 'good']
  const heard: unknown[] = []
  let rounds = 0
  const ticks = repeatThroughOutages(
    async () => {
      const end = ends[rounds] ?? 'good'
      rounds += 1
      if (end !== 'good') {
        throw end
      }
    },
    { everyMs: 1, outagePauseMs: 1, onOutage: (error) => heard.push(error) }
  )
  await until('all rounds are over', () => rounds > ends.length)
  await ticks.stop()
  t.same(heard, ['bad', 'bad again'])
  const before = rounds
  await new Promise((resolve) => setTimeout(resolve, 10))
  t.equal(rounds, before, 'it has ended')
})

t.test('each takes a step in turn, and one that fails holds up no other', async (t) => {
  const steps: string[] = []
  const left = new Map([
    ['a', 3],
    ['b', 1],
    ['c', 2]
  ])
  const step = async (name: string) => {
    steps.push(name)
    if (name === 'bad') {
      throw new Error('of bad')
    }
    left.set(name, (left.get(name) ?? 0) - 1)
    return (left.get(name) ?? 0) > 0
  }
  await t.rejects(takeTurns(['a', 'bad', 'b', 'c'], step, new AbortController().signal), { message: 'of bad' })
  t.same(steps, ['a', 'bad', 'b', 'c', 'a', 'c', 'a'])
})

t.test('turns end when they are to', async (t) => {
  const stopping = new AbortController()
  let steps = 0
  await takeTurns(
    ['a', 'b'],
    async () => {
      steps += 1
      stopping.abort()
      return true
    },
    stopping.signal
  )
  t.equal(steps, 1)
})

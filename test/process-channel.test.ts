import t from 'tap'
import { type Calls, type ChannelPort, type Message, openChannel } from '../src/process-channel.ts'

/** Two ends; what one sends is copied for the other one, as between processes. */
function connect<Ours extends Calls, Theirs extends Calls>(ours: Ours, theirs: Theirs, options = { isTaken: true }) {
  const takes: ((message: Message) => void)[] = []
  const portOf = (own: number): ChannelPort => ({
    send(message, done) {
      if (options.isTaken) {
        setImmediate(() => {
          takes[1 - own]?.(structuredClone(message) as Message)
          done()
        })
      }
    },
    listen(take) {
      takes[own] = take
    }
  })
  return [openChannel<Theirs>(portOf(0), ours), openChannel<Ours>(portOf(1), theirs)] as const
}

t.test('each end has the other one do something, and gets its answer', async (t) => {
  const theirs = {
    double: (n: number) => n * 2,
    later: async (text: string) => `${text}, later`,
    nothing: () => undefined
  }
  const [channel, other] = connect({ name: () => 'ours' }, theirs)
  t.same(await Promise.all([channel.call('double', 2, 1_000), channel.call('later', 'x', 1_000)]), [4, 'x, later'])
  t.equal(await channel.call('nothing', undefined as never, 1_000), undefined)
  t.equal(await other.call('name', undefined as never, 1_000), 'ours')
})

t.test('what fails there, takes too long, or has ended is an error here', async (t) => {
  const [channel] = connect(
    {},
    {
      fail: () => {
        throw new TypeError('no')
      },
      hang: () => new Promise<void>(() => {})
    }
  )
  await t.rejects(channel.call('fail', undefined as never, 1_000), { name: 'ChannelError', message: /TypeError: no/ })
  await t.rejects(channel.call('hang', undefined as never, 1), { message: '"hang" takes longer than 1 ms' })
  const waiting = t.rejects(channel.call('hang', undefined as never, 60_000), { message: 'the process has ended' })
  channel.end()
  await waiting
  await t.rejects(channel.call('hang', undefined as never, 1), { message: 'the process has ended' })
})

t.test('what is said to a process that takes nothing is left out, and fills no memory', async (t) => {
  const options = { isTaken: false }
  const said: number[] = []
  const [channel] = connect({}, { say: (n: number) => said.push(n) }, options)
  const results = Array.from({ length: 200 }, (_, i) => channel.tell('say', i))
  t.equal(results.filter((isSent) => isSent).length, 100)
  channel.end()
  t.notOk(channel.tell('say', 1))
  const [fresh] = connect({}, { say: (n: number) => said.push(n) })
  t.ok(fresh.tell('say', 7))
  await new Promise((resolve) => setImmediate(resolve))
  t.same(said, [7])
})

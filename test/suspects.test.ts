import t from 'tap'
import { createSuspects } from '../src/suspects.ts'
import { build } from './fixtures/service.ts'

t.test('what comes from an address that sent too much goes one by one, and all of it is done', async (t) => {
  let time = 1_000_000
  const suspects = createSuspects({ now: () => time })
  t.equal(suspects.turn('10.0.0.1'), undefined, 'nobody waits without a reason')
  suspects.add('10.0.0.1')
  t.equal(suspects.turn('10.0.0.2'), undefined)

  let atOnce = 0
  let most = 0
  const order: number[] = []
  await Promise.all(
    Array.from({ length: 20 }, async (_, i) => {
      const end = await suspects.turn('10.0.0.1')
      atOnce += 1
      most = Math.max(most, atOnce)
      await new Promise((resolve) => setImmediate(resolve))
      order.push(i)
      atOnce -= 1
      end?.()
      end?.()
    })
  )
  t.equal(most, 1)
  t.same(
    order,
    Array.from({ length: 20 }, (_, i) => i)
  )

  const held = await suspects.turn('10.0.0.1')
  const begun = performance.now()
  const unasked = await suspects.turn('10.0.0.1')
  t.ok(performance.now() - begun < 1_000, 'one that holds its turn holds nobody up for long')
  unasked?.()
  held?.()
  t.ok(await suspects.turn('10.0.0.1'))
  time += 61_000
  t.equal(suspects.turn('10.0.0.1'), undefined, 'and after a minute nobody waits')
})

t.test('valid tokens in the middle of a flood from the same address are all done', async (t) => {
  const service = await build(t)
  const bad = await service.provider.logoutToken({ nonce: 'n' })
  await Promise.all(Array.from({ length: 80 }, () => service.post(bad)))
  const valid = await Promise.all(Array.from({ length: 20 }, () => service.provider.logoutToken()))
  const flood = Array.from({ length: 200 }, () => service.post(bad))
  const answers = await Promise.all(valid.map((token) => service.post(token)))
  t.ok(answers.every(({ statusCode }) => statusCode === 200))
  t.ok((await Promise.all(flood)).every(({ statusCode }) => statusCode === 400 || statusCode === 429))
})

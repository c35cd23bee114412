import { setTimeout as delay } from 'node:timers/promises'
import fc from 'fast-check'
import t, { type Test } from 'tap'
import {
  type Amount,
  createSenders,
  type EndTurn,
  findRoom,
  type LineFields,
  marksOf,
  printAddress,
  type Senders,
  type SendersOptions
} from '../src/senders.ts'
import { noteTries } from './fixtures/attacks.ts'

// `npm run test:faults`: 1,000,000.
const addresses = Number(process.env.SENDERS ?? 100_000)
const garbage = 'x'.repeat(10_000)

function limitAddress(senders: Senders, address: string): void {
  for (let i = 0; i < 1_000 && senders.rejected(address) === 0; i += 1) {
    // until it is limited
  }
}

/** A logger that keeps what it is given. */
function createLog() {
  const lines: { level: string; fields: LineFields; message: string }[] = []
  const log = (level: string) => (fields: LineFields, message: string) => {
    lines.push({ level, fields, message })
  }
  return { lines, logger: { info: log('info'), warn: log('warn'), error: log('error') } }
}

t.test('an address, a network of IPv6, and what is no address are one sender each', async (t) => {
  const cases: [string | undefined, string | undefined, boolean][] = [
    ['192.0.2.1', '192.0.2.1', true],
    ['192.0.2.1', '192.0.2.2', false],
    ['2001:db8:1:2::1', '2001:db8:1:2:ffff:ffff:ffff:ffff', true],
    ['2001:db8:1:2::1', '2001:0DB8:0001:0002:0:0:0:9', true],
    ['2001:db8:1:2::1', '2001:db8:1:3::1', false],
    ['::1', '::2', true],
    ['1::', '1:0:0:0::5', true],
    ['fe80::1%eth0', 'fe80::2%eth0.100', true],
    // An IPv4 address in another form.
    ['::ffff:192.0.2.1', '192.0.2.1', true],
    ['::ffff:c000:201', '192.0.2.1', true],
    ['::ffff:192.0.2.1', '::ffff:192.0.2.2', false],
    ['::ffff:0:192.0.2.1', '192.0.2.1', true],
    ['64:ff9b::192.0.2.1', '192.0.2.1', true],
    ['64:ff9b::192.0.2.1', '64:ff9b::192.0.2.2', false],
    ['64:ff9b:1::192.0.2.1', '64:ff9b:1::192.0.2.1', true],
    ['64:ff9b:1::192.0.2.1', '64:ff9b:1::192.0.2.2', false],
    ['2002:c000:201::1', '192.0.2.1', true],
    ['2002:c000:201:1::1', '2002:c000:201:2::1', true],
    ['2002:c000:201::1', '2002:c000:202::1', false],
    ['2001:0:4136:e378:8000:63bf:3fff:fdfe', '192.0.2.1', true],
    ['2001:0:4136:e378:8000:63bf:3fff:fdfe', '2001:0:4136:e378:8000:63bf:3fff:fdfd', false],
    // With what proxies append.
    ['192.0.2.1:1234', '192.0.2.1:5678', true],
    ['192.0.2.1:1234', '192.0.2.1', true],
    ['192.0.2.1:1234', '192.0.2.2:1234', false],
    ['[2001:db8:1:2::1]:1234', '2001:db8:1:2::2', true],
    ['[2001:db8:1:2::1]', '2001:db8:1:2::2', true],
    ['2001:db8:1:2:3:4:5:6:1234', '2001:db8:1:2::2', true],
    ['[fe80::1%eth0]:1234', 'fe80::2', true],
    ['[::ffff:192.0.2.1]:1234', '192.0.2.1', true],
    // No address.
    [garbage, 'unknown', true],
    [undefined, '_hidden', true],
    ['', '\0', true],
    ['1.2', '0x7f.1', true],
    ['010.0.0.1', '256.0.0.1', true],
    ['192.0.2.1, 192.0.2.2', '192.0.2.1 ', true],
    ['192.0.2.1/24', '192.0.2.1:', true],
    ['1:2:3', 'g::1', true],
    [garbage, '192.0.2.1', false]
  ]
  for (const [a, b, isSame] of cases) {
    t.equal(marksOf(a)[0] === marksOf(b)[0], isSame, `${printAddress(a)} and ${printAddress(b)}`)
    const senders = createSenders({ rejections: { burst: 1, perSecond: 1 }, now: () => 0 })
    senders.rejected(a)
    t.equal(senders.rejected(b) > 0, isSame, `${printAddress(a)} and ${printAddress(b)}: the limit`)
  }
})

t.test('a sender is in wider networks too', async (t) => {
  const cases: [string, string, number][] = [
    ['192.0.2.1', '192.0.2.2', 1],
    ['192.0.2.1', '192.0.3.1', 0],
    ['64:ff9b::192.0.2.1', '192.0.2.2', 1],
    ['2001:db8:1:2::1', '2001:db8:1:3::1', 2],
    ['2001:db8:1:2::1', '2001:db8:2:2::1', 1],
    ['2001:db8:1:2::1', '2001:db9:1:2::1', 0],
    ['64:ff9b:1::192.0.2.1', '64:ff9b:1::192.0.2.2', 0],
    [garbage, '192.0.2.1', 0]
  ]
  for (const [a, b, common] of cases) {
    const marks = new Set(marksOf(b))
    t.equal(marksOf(a).filter((mark) => marks.has(mark)).length, common, `${printAddress(a)} and ${b}`)
  }
})

t.test('an address is logged in its shortest form, and what is none is cut', async (t) => {
  const cases: [string | undefined, string][] = [
    ['192.0.2.1:80', '192.0.2.1'],
    ['::ffff:192.0.2.1', '192.0.2.1'],
    ['[2001:0DB8::0001]:80', '2001:db8::1'],
    ['2001:db8::/32', '2001:db8::/32'],
    [undefined, 'unknown'],
    ['a\nb\u001b[0m\u202e', 'a?b?[0m?'],
    [garbage, `${'x'.repeat(80)}… (10000 characters)`]
  ]
  for (const [text, printed] of cases) {
    t.equal(printAddress(text), printed)
  }
})

t.test('all that a proxy can pass on has marks and can be logged', async (t) => {
  const group = fc.integer({ min: 0, max: 0xffff })
  const groups = fc.tuple(group, group, group, group, group, group, group, group)
  fc.assert(
    fc.property(groups, fc.boolean(), (parts, isUpper) => {
      const full = parts.map((part) => part.toString(16).padStart(4, '0')).join(':')
      const short = printAddress(full)
      t.same(marksOf(isUpper ? full.toUpperCase() : full), marksOf(short), full)
    })
  )
  const text = fc.oneof(
    fc.ipV4(),
    fc.ipV4Extended(),
    fc.ipV6(),
    fc.string({ unit: fc.constantFrom(...'0123456789abcdef:.%[]x/ ,'), maxLength: 50 }),
    fc.string({ unit: 'binary', maxLength: 200 })
  )
  fc.assert(
    fc.property(text, (address) => {
      const marks = marksOf(address)
      return (
        marks.length >= 1 &&
        marks.length <= 3 &&
        marks.every((mark) => /^[0-9a-f]{12}$/.test(mark)) &&
        /^[\x20-\x7e]*(… \(\d+ characters\))?$/.test(printAddress(address)) &&
        printAddress(address).length <= 110
      )
    }),
    { numRuns: 1_000 }
  )
})

t.test('a sender is limited beyond its burst, and gets back as time goes by', async (t) => {
  let time = 0
  const senders = createSenders({ rejections: { burst: 3, perSecond: 2 }, now: () => time })
  const reject = () => senders.rejected('192.0.2.1')
  t.same([reject(), reject(), reject()], [0, 0, 0])
  t.equal(reject(), 1)
  t.equal(senders.rejected('192.0.2.2'), 0, 'another one is not')
  time += 500
  t.equal(reject(), 0)
  t.equal(reject(), 1)
  const slow = createSenders({ rejections: { burst: 1, perSecond: 0.1 }, now: () => time })
  t.same([slow.rejected('192.0.2.1'), slow.rejected('192.0.2.1')], [0, 10], 'in seconds')
  time += 3_600_000
  t.same([reject(), reject(), reject(), reject()], [0, 0, 0, 1], 'never more than the burst')
})

t.test('each of several processes has its part of every limit, and one at least', async (t) => {
  const judged = (processes: number) => {
    const senders = createSenders({ now: () => 0, processes })
    return Array.from({ length: 100 }, () => senders.rejected('192.0.2.1')).filter((seconds) => seconds === 0).length
  }
  t.equal(judged(1), 60)
  t.equal(judged(4), 15)
  t.equal(judged(64), 1)
  let time = 0
  const fourth = createSenders({ rejections: { burst: 4, perSecond: 1 }, now: () => time, processes: 4 })
  t.same([fourth.rejected('192.0.2.1'), fourth.rejected('192.0.2.1')], [0, 4])
  time = 4_000
  t.equal(fourth.rejected('192.0.2.1'), 0)
  const turns = createSenders({ processes: 4 })
  const taken = ['192.0.2.1', '198.51.100.1', '203.0.113.1'].map((address) => turns.awaitUnsignedTurn(address, 10))
  const [first, second, third] = await Promise.all(taken)
  t.ok(first !== undefined && second !== undefined, 'two of the eight')
  t.equal(third, undefined)
  first?.()
  second?.()
})

t.test('a clock that jumps back limits nobody for long', async (t) => {
  let time = 1_000_000
  const senders = createSenders({ rejections: { burst: 1, perSecond: 1 }, now: () => time })
  senders.rejected('192.0.2.1')
  time = 0
  t.equal(senders.rejected('192.0.2.1'), 1)
  time += 1_000
  t.equal(senders.rejected('192.0.2.1'), 0)
})

t.test('many networks of a wider one are limited together', async (t) => {
  const cases: [string, number, number, (i: number) => string][] = [
    ['12,000 of one /48', 12_000, 60 * 20, (i) => `2001:db8:1:${i.toString(16)}::1`],
    ['as many of one /32', 12_500, 60 * 200, (i) => `2001:db8:${(i % 1_000).toString(16)}:${i.toString(16)}::1`],
    ['all of one /24', 256 * 20, 60 * 64, (i) => `192.0.2.${i % 256}`]
  ]
  for (const [name, count, within, addressOf] of cases) {
    const senders = createSenders({ now: () => 0 })
    let accepted = 0
    for (let i = 0; i < count; i += 1) {
      accepted += senders.rejected(addressOf(i)) === 0 ? 1 : 0
    }
    t.equal(accepted, within, name)
    t.ok(senders.rejected(addressOf(1)) > 0)
    t.ok(senders.awaitSignedTurn(addressOf(2)), 'and go one by one')
    t.equal(senders.rejected('198.51.100.1'), 0, 'another network is not')
    t.equal(senders.rejected('2001:db9::1'), 0)
  }
})

t.test('one sender does not limit its neighbours', async (t) => {
  const cases: [string, string][] = [
    ['2001:db8:1:2::1', '2001:db8:1:3::1'],
    ['192.0.2.1', '192.0.2.2']
  ]
  for (const [sender, neighbour] of cases) {
    const senders = createSenders({ now: () => 0 })
    for (let i = 0; i < 20_000; i += 1) {
      senders.rejected(sender)
    }
    t.equal(senders.rejected(neighbour), 0)
    t.equal(senders.awaitSignedTurn(neighbour), undefined)
  }
})

t.test('what comes from a sender that was limited goes one by one, and all of it is done', async (t) => {
  let time = 1_000_000
  const senders = createSenders({ now: () => time, maxSignedWaitMs: 30_000 })
  const awaitTurn = () => senders.awaitSignedTurn('192.0.2.1')
  t.equal(awaitTurn(), undefined, 'nobody waits without a reason')
  senders.rejected('192.0.2.1')
  t.equal(awaitTurn(), undefined, 'nor within the limit')
  limitAddress(senders, '192.0.2.1')
  t.equal(senders.awaitSignedTurn('192.0.2.2'), undefined)

  let atOnce = 0
  let most = 0
  const order: number[] = []
  await Promise.all(
    Array.from({ length: 20 }, async (_, i) => {
      const end = await awaitTurn()
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

  const last = await awaitTurn()
  t.ok(last)
  last?.()
  time += 60_001
  t.equal(awaitTurn(), undefined, 'and after a minute nobody waits')
  time -= 1_000_000
  t.equal(awaitTurn(), undefined, 'nor by a clock that was set back')
})

t.test('one that holds its turn holds nobody up for long', async (t) => {
  const senders = createSenders()
  limitAddress(senders, '192.0.2.1')
  const held = await senders.awaitSignedTurn('192.0.2.1')
  const unasked = await senders.awaitSignedTurn('192.0.2.1')
  t.ok(unasked)
  unasked?.()
  held?.()
  t.ok(await senders.awaitSignedTurn('192.0.2.1'))
})

t.test('a sender with much that waits does not hold up another that was limited', async (t) => {
  const senders = createSenders({ maxSignedWaitMs: 30_000 })
  limitAddress(senders, '192.0.2.1')
  limitAddress(senders, '2001:db8::1')
  const order: string[] = []
  let atOnce = 0
  let most = 0
  const go = async (address: string) => {
    const end = await senders.awaitSignedTurn(address)
    atOnce += 1
    most = Math.max(most, atOnce)
    order.push(address)
    await new Promise((resolve) => setImmediate(resolve))
    atOnce -= 1
    end?.()
  }
  await Promise.all([...Array.from({ length: 20 }, () => go('192.0.2.1')), go('2001:db8::1')])
  t.ok(order.indexOf('2001:db8::1') <= 1, `${order.indexOf('2001:db8::1')} went before`)
  t.equal(most, 1, 'one by one, from however many senders')
})

interface Call {
  readonly address: string
  readonly end: EndTurn | undefined
}

/** Calls whose turn has come, in this order. */
function callUnsigned(senders: Senders) {
  const begun: Call[] = []
  return {
    begun,
    call: (address: string, withinMs = 30_000) =>
      senders.awaitUnsignedTurn(address, withinMs).then((end) => {
        begun.push({ address, end })
      }),
    /** Until nothing more can begin. */
    settle: async () => {
      for (let i = 0; i < 5; i += 1) {
        await new Promise((resolve) => setImmediate(resolve))
      }
    }
  }
}

t.test('of unsigned calls a few go at once, and fewer of each sender', async (t) => {
  let isBusy = false
  const senders = createSenders({ maxUnsigned: 4, maxUnsignedEach: 2, isBusy: () => isBusy })
  const { begun, call, settle } = callUnsigned(senders)
  const all = [...Array.from({ length: 5 }, () => call('192.0.2.1')), call('2001:db8::1'), call('2001:db8:1::1')]
  await settle()
  t.same(
    begun.map(({ address }) => address),
    ['192.0.2.1', '2001:db8::1', '192.0.2.1', '2001:db8:1::1'],
    'each network in turn'
  )
  t.equal(senders.size(), 7)
  begun[1]?.end?.()
  begun[1]?.end?.()
  await settle()
  t.equal(begun.length, 4, 'no third one of a sender, though a place is free; a turn ends once')
  begun[0]?.end?.()
  await settle()
  t.equal(begun.length, 5)

  isBusy = true
  all.push(call('198.51.100.1'))
  await settle()
  begun[2]?.end?.()
  begun[3]?.end?.()
  await settle()
  t.equal(begun.length, 5, 'while signed ones wait, no more than one is under way')
  begun[4]?.end?.()
  await settle()
  t.equal(begun.length, 6, 'but one')
  isBusy = false
  for (let i = 5; i < 8; i += 1) {
    begun[i]?.end?.()
    await settle()
  }
  await Promise.all(all)
  t.equal(begun.length, 8)
  begun.at(-1)?.end?.()
  t.equal(senders.size(), 0)
})

t.test('unsigned calls that wait are bounded, and one sender leaves room to the others', async (t) => {
  const senders = createSenders({ maxUnsigned: 1, maxUnsignedWaiting: 8 })
  const { begun, call, settle } = callUnsigned(senders)
  const holder = call('198.51.100.1')
  await settle()
  const flood = Array.from({ length: 20 }, (_, i) => call(`2001:db8:1:${i}::1`))
  await settle()
  t.equal(begun.filter(({ end }) => end === undefined).length, 16, 'all of one /48 are one sender here')
  const others = [call('192.0.2.1'), call('192.0.2.1'), call('192.0.2.1'), call('2001:db9::1'), call('203.0.113.1')]
  await settle()
  t.equal(begun.filter(({ end }) => end === undefined).length, 17, 'the third one of an address')
  for (let i = 0; i < begun.length; i += 1) {
    begun[i]?.end?.()
    await settle()
  }
  await Promise.all([holder, ...flood, ...others])
  t.equal(senders.size(), 0)
})

t.test('an unsigned call whose turn does not come in time has none, and takes no place', async (t) => {
  const senders = createSenders({ maxUnsigned: 1, maxUnsignedWaiting: 3 })
  const { begun, call, settle } = callUnsigned(senders)
  await call('192.0.2.1')
  await call('192.0.2.2', 10)
  t.equal(begun[1]?.end, undefined)
  t.equal(senders.size(), 1)
  for (let i = 0; i < 10; i += 1) {
    await call('192.0.2.2', 0)
  }
  const last = call('192.0.2.2')
  begun[0]?.end?.()
  await last
  begun.at(-1)?.end?.()
  for (let i = 0; i < 10; i += 1) {
    await call('192.0.2.2')
    t.ok(begun.at(-1)?.end, 'nor do those whose turn has come')
    begun.at(-1)?.end?.()
  }
  await settle()
  t.equal(senders.size(), 0)
})

t.test('calls that come and go are bounded, and each has its turn or its time is over', async (t) => {
  const step = fc.oneof(
    fc.record({ kind: fc.constant('call' as const), network: fc.nat(2), host: fc.nat(2), isHasty: fc.boolean() }),
    fc.record({ kind: fc.constant('end' as const) })
  )
  await t.resolves(
    fc.assert(
      fc.asyncProperty(fc.array(step, { maxLength: 60 }), async (steps) => {
        const senders = createSenders({ maxUnsigned: 3, maxUnsignedEach: 2, maxUnsignedWaiting: 10 })
        const underWay: Call[] = []
        const calls: Promise<void>[] = []
        let isBounded = true
        for (const step of steps) {
          if (step.kind === 'end') {
            underWay.shift()?.end?.()
          } else {
            const address = `2001:db8:${step.network}:${step.host}::1`
            calls.push(
              senders.awaitUnsignedTurn(address, step.isHasty ? 0 : 30_000).then((end) => {
                if (end !== undefined) {
                  underWay.push({ address, end })
                }
                const own = underWay.filter((other) => other.address === address).length
                isBounded &&= underWay.length <= 3 && own <= 2
              })
            )
          }
          await delay(0)
        }
        const all = Promise.all(calls).then(() => true)
        for (let i = 0; i < 100 && !(await Promise.race([all, delay(1, false)])); i += 1) {
          underWay.shift()?.end?.()
        }
        await all
        for (const { end } of underWay) {
          end?.()
        }
        return isBounded && senders.size() === 0
      }),
      { numRuns: 20 }
    )
  )
})

t.test('a sender whose calls keep ending nothing is marked, until it has stopped for a while', async (t) => {
  let time = 0
  const senders = createSenders({ now: () => time })
  const remembered = (address: string, calls: number) => {
    let count = 0
    for (let i = 0; i < calls; i += 1) {
      count += senders.mayRemember(address) ? 1 : 0
      senders.unmatched(address)
    }
    return count
  }
  t.equal(remembered('192.0.2.1', 1_000), 60)
  t.equal(senders.mayRemember('192.0.2.2'), true, 'its neighbour is not')
  time += 3_600_000
  t.equal(remembered('192.0.2.1', 1_000), 60)
  time += 60_000
  t.equal(remembered('192.0.2.1', 1_000), 1, 'one a minute')
  senders.matched('192.0.2.1')
  t.equal(senders.mayRemember('192.0.2.1'), true, 'one that ends something makes good for two')
  t.equal(remembered('192.0.2.1', 1_000), 2)
  for (let i = 0; i < 100; i += 1) {
    senders.matched('192.0.2.1')
  }
  t.equal(remembered('192.0.2.1', 1_000), 60, 'and nothing more than that')

  let ofOneNetwork = 0
  for (let i = 0; i < 12_000; i += 1) {
    ofOneNetwork += remembered(`2001:db8:1:${i.toString(16)}::1`, 1)
  }
  t.equal(ofOneNetwork, 60 * 20, 'and so are 12,000 networks of one /48')
})

t.test('many users behind one address are not marked, as long as most of what they call ends something', async (t) => {
  t.doesNotThrow(() =>
    fc.assert(
      fc.property(fc.infiniteStream(fc.integer({ min: 1, max: 100 })), (random) => {
        let time = 0
        const senders = createSenders({ now: () => time })
        for (let call = 0; call < 2_000; call += 1) {
          time += 500
          if (!senders.mayRemember('192.0.2.1')) {
            return false
          }
          if ((random.next().value ?? 0) <= 55) {
            senders.matched('192.0.2.1')
          } else {
            senders.unmatched('192.0.2.1')
          }
        }
        return true
      }),
      { numRuns: 20 }
    )
  )
})

t.test('what unsigned calls have remembered is bounded, from however many addresses', async (t) => {
  const senders = createSenders({ now: () => 0, unmatched: { burst: 6, perSecond: 1 } })
  let remembered = 0
  for (let i = 0; i < 100_000; i += 1) {
    const address = `${1 + (i >> 16)}.${(i >> 8) & 0xff}.${i & 0xff}.1`
    remembered += senders.mayRemember(address) ? 1 : 0
    senders.unmatched(address)
  }
  t.equal(remembered, 6_000)
})

t.test(
  `${addresses.toLocaleString('en')} addresses take no more memory than some thousand`,
  { timeout: 120_000 },
  async (t) => {
    const { lines, logger } = createLog()
    let time = 0
    const senders = createSenders({ logger, now: () => time, maxNetworks: 1_000 })
    const random = (i: number) => Math.imul(i + 1, 0x9e3779b1) >>> 0 // each number once, in disorder
    let most = 0
    for (let i = 0; i < addresses; i += 1) {
      const bits = random(i)
      const v4 = `${bits >>> 24}.${(bits >>> 16) & 0xff}.${(bits >>> 8) & 0xff}.${bits & 0xff}`
      const v6 = `2001:${(bits >>> 16).toString(16)}:${(bits & 0xffff).toString(16)}:${(i & 0xffff).toString(16)}::1`
      const address = i % 10 === 0 ? v6 : v4
      senders.rejected(address)
      if (i % 10 === 1) {
        senders.unmatched(address)
      }
      if (i % 1_000 === 0) {
        limitAddress(senders, address)
        senders.lines.warn({ address }, 'rejected')
        time += 100
        most = Math.max(most, senders.size())
      }
    }
    t.ok(most <= 3_000, `${most} entries: of each limit 1,000`)
    t.ok(most >= 2_000, 'and that many there were')
    t.ok(lines.length <= 2 * 201, `${lines.length} lines`)
    noteTries('invalid signals from as many addresses, to fill the memory or the log', addresses)
  }
)

t.test('a limited sender leaves a line for each minute, with its count', async (t) => {
  let time = 1_000_000
  const { lines, logger } = createLog()
  const senders = createSenders({ logger, rejections: { burst: 2, perSecond: 0.001 }, now: () => time })
  const flood = (address: string, count: number) => {
    for (let i = 0; i < count; i += 1) {
      senders.rejected(address)
    }
  }
  flood('192.0.2.1', 2)
  t.same(lines, [], 'none within the limit')
  flood('192.0.2.1', 100)
  flood('2001:db8::1', 5)
  t.match(lines.splice(0), [
    { fields: { address: '192.0.2.1', count: 1 }, message: 'too many rejected requests' },
    { fields: { address: '2001:db8:0:0::/64', count: 1 } }
  ])
  time += 60_000
  flood('192.0.2.1', 50)
  t.same(
    lines.splice(0).map(({ fields }) => fields),
    [{ address: '192.0.2.1', count: 100 }],
    'the 99 of the first minute, and the one that brought the line'
  )
})

t.test('what a limited sender has sent is counted, also if the sender is forgotten', async (t) => {
  let time = 0
  const { lines, logger } = createLog()
  const senders = createSenders({ logger, now: () => time, maxNetworks: 4, rejections: { burst: 1, perSecond: 0.001 } })
  for (const address of ['192.0.2.1', '198.51.100.1', '203.0.113.1', '10.0.0.1', '10.1.0.1', '10.2.0.1']) {
    for (let i = 0; i < 11; i += 1) {
      senders.rejected(address)
    }
  }
  time += 60_000
  senders.lines.warn({}, 'another')
  t.match(lines.at(-2), { fields: { leftOut: { 'too many rejected requests': 18 } } }, 'nine of each of two')
})

t.test('lines are bounded over all, and those left out are counted', async (t) => {
  let time = 0
  const { lines, logger } = createLog()
  const senders = createSenders({ logger, now: () => time })
  const warn = (address: string, message = 'rejected') => senders.lines.warn({ address, code: 'ERR_X' }, message)
  for (let i = 0; i < 12_000; i += 1) {
    warn(`2001:db8:1:${i.toString(16)}::1`)
  }
  t.equal(lines.length, 50, 'one /48 leaves room to the others')
  t.same(lines[1], { level: 'warn', fields: { address: '2001:db8:1:1::1', code: 'ERR_X' }, message: 'rejected' })
  for (let i = 0; i < 12_000; i += 1) {
    warn(`${10 + (i >> 8)}.1.${i & 0xff}.1`)
  }
  t.equal(lines.length, 100, 'one message too')
  senders.lines.error({ cause: 'x' }, 'sign-out not done')
  warn(garbage, 'another')
  t.match(lines.slice(-2), [
    { level: 'error', fields: { cause: 'x' }, message: 'sign-out not done' },
    { fields: { address: /^x{80}… \(10000 characters\)$/ } }
  ])
  t.notOk('address' in (lines.at(-2)?.fields ?? {}))
  for (let i = 0; i < 1_000; i += 1) {
    warn(`${i % 200}.2.3.4`, `message ${i % 5}`)
  }
  t.ok(lines.length <= 200, `${lines.length} in all`)
  const before = lines.length
  time += 60_000
  warn('192.0.2.1')
  t.equal(lines.length, before + 2)
  const summary = lines.at(-2)
  const leftOut = Object.entries(summary?.fields.leftOut ?? {})
  t.equal(summary?.message, 'log lines left out')
  t.same(leftOut[0], ['rejected', 24_000 - 100])
  t.equal(
    leftOut.map(([, count]) => Number(count)).reduce((sum, count) => sum + count, 0),
    24_000 + 2 + 1_000 - before,
    'none is missing'
  )
  for (let i = 0; i < 1_000; i += 1) {
    warn(`${i % 200}.2.3.4`)
  }
  time -= 1_000_000
  lines.splice(0)
  warn('192.0.2.1')
  t.equal(lines.at(-1)?.message, 'rejected', 'a clock that was set back silences nobody')
})

t.test('the count of lines left out is logged also if nothing more comes', async (t) => {
  const { lines, logger } = createLog()
  const timers = interceptTimers(t)
  const senders = createSenders({ logger, now: () => 0, maxLinesPerMinute: 2 })
  for (let i = 0; i < 10; i += 1) {
    senders.lines.warn({}, 'rejected')
  }
  t.equal(lines.length, 1)
  t.same(
    timers.map(({ ms, isHolding }) => ({ ms, isHolding })),
    [{ ms: 60_000, isHolding: false }],
    'one timer, which does not hold the process'
  )
  timers[0]?.run()
  t.same(lines.at(-1), { level: 'warn', fields: { leftOut: { rejected: 9 } }, message: 'log lines left out' })
})

/** Has timers wait until they are run. */
function interceptTimers(t: Test) {
  const timers: { ms: number; isHolding: boolean; run(): void }[] = []
  const original = globalThis.setTimeout
  const set = (run: () => void, ms: number) => {
    const timer = {
      ms,
      run,
      isHolding: true,
      unref() {
        timer.isHolding = false
        return timer
      }
    }
    timers.push(timer)
    return timer
  }
  globalThis.setTimeout = set as never
  t.teardown(() => {
    globalThis.setTimeout = original
  })
  return timers
}

t.test('of a share no sender gets more than it leaves to the others', async (t) => {
  const none = { count: 0, bytes: 0 }
  const max = { count: 8, bytes: 8_000 }
  const cases: [string, Amount, Amount[], number, string][] = [
    ['the first of all', none, [none], 100, 'free'],
    ['within half', { count: 3, bytes: 300 }, [{ count: 3, bytes: 300 }], 100, 'free'],
    ['beyond half', { count: 4, bytes: 400 }, [{ count: 4, bytes: 400 }], 100, 'sender-full'],
    ['another one', { count: 4, bytes: 400 }, [none], 100, 'free'],
    ['another one beyond half of the rest', { count: 6, bytes: 600 }, [{ count: 2, bytes: 200 }], 100, 'sender-full'],
    ['the last place', { count: 7, bytes: 700 }, [none], 100, 'free'],
    ['no place', { count: 8, bytes: 800 }, [none], 100, 'full'],
    ['half of the bytes', { count: 1, bytes: 3_900 }, [{ count: 1, bytes: 3_900 }], 200, 'free'],
    ['more than half of the bytes', { count: 1, bytes: 3_900 }, [{ count: 1, bytes: 3_900 }], 201, 'sender-full'],
    ['all bytes', { count: 1, bytes: 7_900 }, [none], 101, 'full'],
    ['a wider network beyond half', { count: 4, bytes: 400 }, [none, { count: 4, bytes: 400 }], 100, 'sender-full'],
    ['nobody in particular', { count: 7, bytes: 7_900 }, [], 100, 'free']
  ]
  for (const [name, all, own, bytes, room] of cases) {
    t.equal(findRoom(max, all, own, bytes), room, name)
  }
})

t.test('one who wants all of a share leaves room to each that comes after', async (t) => {
  t.doesNotThrow(() =>
    fc.assert(
      fc.property(fc.integer({ min: 16, max: 500 }), fc.integer({ min: 1, max: 3 }), (count, greedy) => {
        const max = { count, bytes: count * 10 }
        const amounts = Array.from({ length: greedy + 1 }, () => ({ count: 0, bytes: 0 }))
        let all = { count: 0, bytes: 0 }
        for (const own of amounts) {
          while (own.count <= count && findRoom(max, all, [own], 10) === 'free') {
            own.count += 1
            own.bytes += 10
            all = { count: all.count + 1, bytes: all.bytes + 10 }
          }
        }
        return all.count <= count && amounts.every((own) => own.count > 0)
      })
    )
  )
})

t.test('limits are options', async (t) => {
  const options: SendersOptions = {
    rejections: { burst: 2, perSecond: 1 },
    unmatched: { burst: 3, perSecond: 1 },
    now: () => 0
  }
  const senders = createSenders(options)
  t.same(
    [1, 2, 3].map(() => senders.rejected('192.0.2.1')),
    [0, 0, 1]
  )
  for (let i = 0; i < 3; i += 1) {
    t.equal(senders.mayRemember('192.0.2.1'), true)
    senders.unmatched('192.0.2.1')
  }
  t.equal(senders.mayRemember('192.0.2.1'), false)
})

import { mkdirSync, mkdtempSync, readdirSync, rmSync, utimesSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { pino } from 'pino'
import t, { type Test } from 'tap'
import { RejectedError, UnavailableError } from '../src/errors.ts'
import type { CarryOut } from '../src/logout-request.ts'
import { replayOnce, startReplay } from '../src/replay.ts'
import { createSpool, type Spool } from '../src/spool.ts'

const logger = pino({ level: 'silent' })

function folder(t: Test): string {
  const dir = mkdtempSync(join(tmpdir(), 'msal-logout-replay-'))
  t.teardown(() => rmSync(dir, { recursive: true, force: true }))
  return join(dir, 'spool')
}

const open = (dir: string) => createSpool({ dir, logger })
// With more time than an answer has: a busy disk is not what is tested here.
const keep = (spool: Spool, token: string, at: number, isVerified: boolean) =>
  spool.keep({ token }, at, isVerified, 30_000)
const tokens = (kept: { request: object }[]) =>
  kept.map(({ request }) => ('token' in request ? request.token : undefined))

t.test('a file cut short or unknown is set aside, and stops nothing', async (t) => {
  const dir = folder(t)
  const spool = open(dir)
  await keep(spool, 'good', 2_000, true)
  writeFileSync(join(dir, '000000000001000-x.verified.json'), '{"at":1')
  writeFileSync(join(dir, 'README'), 'not ours')
  const done: string[] = []
  await untilReplayed(t, dir, async (request) => {
    const token = 'token' in request ? request.token : ''
    if (token === '') {
      throw new RejectedError('ERR_TOKEN_MALFORMED')
    }
    done.push(token)
    return []
  })
  t.same(done, ['good'])
  t.equal(readdirSync(join(dir, 'rejected')).length, 1)
  t.ok(readdirSync(dir).includes('README'))
})

t.test('what cannot be read or removed is told once, and stops nothing', async (t) => {
  const dir = folder(t)
  const lines: string[] = []
  const spool = createSpool({ dir, logger: pino({}, { write: (line: string) => lines.push(line) }) })
  await keep(spool, 'good', 2_000, true)
  mkdirSync(join(dir, '000000000001000-x.1.verified.json'))
  mkdirSync(join(dir, '.x.part'))
  utimesSync(join(dir, '.x.part'), 0, 0)
  for (let i = 0; i < 2; i += 1) {
    t.same(tokens(await spool.list(10)), i === 0 ? ['good'] : [])
    const carryOut: CarryOut = async () => []
    await replayOnce({ spool, carryOut, logger, signal: new AbortController().signal })
  }
  t.equal(lines.filter((line) => /cannot read what is kept/.test(line)).length, 1)
})

t.test('what is still out of reach stays, and holds up nothing else', async (t) => {
  const dir = folder(t)
  const spool = open(dir)
  await keep(spool, 'keys are away', 1_000, false)
  await keep(spool, 'good', 2_000, true)
  const tries: string[] = []
  await untilReplayed(t, dir, async (request) => {
    const token = 'token' in request ? request.token : ''
    tries.push(token)
    if (token !== 'good' && tries.length < 5) {
      throw new UnavailableError('ERR_KEYS_UNAVAILABLE')
    }
    return []
  })
  t.ok(tries.length >= 5)
  t.equal(tries.filter((token) => token === 'good').length, 1)
})

t.test('it is carried out as of its arrival', async (t) => {
  const dir = folder(t)
  await keep(open(dir), 'x', 1_234, true)
  const times: number[] = []
  await untilReplayed(t, dir, async (_request, at) => {
    times.push(at)
    return []
  })
  t.same(times, [1_234])
})

t.test('many that are out of reach hold up none that came after them', async (t) => {
  const dir = folder(t)
  const spool = open(dir)
  for (let i = 0; i < 1_100; i += 1) {
    await keep(spool, 'keys are away', 1_000 + i, true)
  }
  await keep(spool, 'good', 9_000, true)
  await new Promise<void>((resolve) => {
    const replay = startReplay({
      spool,
      logger,
      async carryOut(request) {
        if ('token' in request && request.token === 'good') {
          resolve()
          return []
        }
        throw new UnavailableError('ERR_KEYS_UNAVAILABLE')
      }
    })
    t.teardown(() => replay.stop())
  })
  t.pass('the last one was done')
})

t.test('one that fails in a way nobody thought of stays, and stops nothing', async (t) => {
  const dir = folder(t)
  const spool = open(dir)
  await keep(spool, 'odd', 1_000, true)
  for (let i = 0; i < 200; i += 1) {
    await keep(spool, 'good', 2_000 + i, true)
  }
  const lines: string[] = []
  const done: string[] = []
  await new Promise<void>((resolve) => {
    const replay = startReplay({
      spool,
      logger: pino({}, { write: (line: string) => void lines.push(line) }),
      async carryOut(request) {
        const token = 'token' in request ? request.token : ''
        if (token === 'odd') {
          throw new TypeError('a mistake of ours, quoting a value')
        }
        if (done.push(token) === 200) {
          resolve()
        }
        return []
      }
    })
    t.teardown(() => replay.stop())
  })
  const left = open(dir)
  while ((await left.list(10)).length !== 1) {
    await left.list(1)
  }
  t.same(tokens(await left.list(10)), ['odd'])
  t.match(lines.join('\n'), /TypeError/)
  t.notMatch(lines.join('\n'), /quoting a value/)
})

t.test('a file of another form is set aside', async (t) => {
  const dir = folder(t)
  const spool = open(dir)
  await keep(spool, 'good', 2_000, true)
  for (const [i, content] of ['{}', 'null', '{"at":"x","request":{"token":1}}', ''].entries()) {
    writeFileSync(join(dir, `00000000000100${i}-x.verified.json`), content)
  }
  await untilReplayed(t, dir, async (request) => {
    if ('token' in request && request.token === '') {
      throw new RejectedError('ERR_TOKEN_MALFORMED')
    }
    return []
  })
  t.equal(readdirSync(join(dir, 'rejected')).length, 4)
})

t.test('where the database is away, one batch is tried and the rest stays', async (t) => {
  const spool = open(folder(t))
  for (let i = 0; i < 200; i += 1) {
    await keep(spool, 'x', 1_000 + i, true)
  }
  let tries = 0
  const carryOut: CarryOut = async () => {
    tries += 1
    throw new UnavailableError('ERR_DATABASE_UNAVAILABLE')
  }
  const { signal } = new AbortController()
  t.same(await replayOnce({ spool, carryOut, logger, signal }), { done: 0, refused: 0 })
  t.ok(tries < 200)
  t.equal((await spool.list(1_000)).length, 200)
})

/** Replays the folder until nothing is left in it. */
async function untilReplayed(t: Test, dir: string, carryOut: CarryOut): Promise<void> {
  const spool = open(dir)
  const replay = startReplay({ spool, carryOut, logger })
  t.teardown(() => replay.stop())
  const watch = open(dir)
  while ((await watch.list(1)).length > 0) {
    await delay(10)
  }
  await replay.stop()
}

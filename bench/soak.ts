// Bursts of half the capacity of a second, their sessions stored and their tokens signed in between, for a long time:
// memory must not grow after the first minutes.
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { insertSessions } from './database.ts'
import { contenders, measure, type Setting, signTokens } from './speed.ts'
import { quantile } from './statistics.ts'

const capacityTokens = 12_000
const warmUpShare = 1 / 6 // the first 5 minutes of 30

export async function soak(setting: Setting, minutes: number) {
  const { database, provider, loader, folder } = setting
  const contender = contenders(setting)[0]
  if (contender === undefined) {
    throw new Error('no contender')
  }
  const server = await contender.start()
  const tokens = join(folder, 'tokens')
  await signTokens(provider, capacityTokens + 1_000, tokens)
  const capacity = await measure(setting, contender, server, tokens, { connections: 64, count: capacityTokens })
  const perSecond = Math.round(capacity.perSecond / 2)
  await database.fill(provider.issuer, 0)
  const samples: { minute: number; residentMb: number; p99Ms: number }[] = []
  const startedAt = performance.now()
  let session = 0
  let deferredInAll = 0
  let sentAgain = 0
  while (performance.now() - startedAt < minutes * 60_000) {
    const chunkStartedAt = performance.now()
    const from = session
    session += perSecond
    await insertSessions(database.pool, provider.issuer, from, session)
    writeFileSync(
      tokens,
      (await Promise.all(Array.from({ length: perSecond }, (_, i) => provider.logoutToken(from + i)))).join('\n')
    )
    const order = { port: server.port, path: contender.path, tokens, from: 0, to: perSecond, connections: 16 }
    const result = await loader.run(order)
    const { 200: done = 0, 503: deferred = 0 } = result.statuses
    if (done + deferred !== perSecond) {
      throw new Error(`answers ${JSON.stringify(result.statuses)}`)
    }
    deferredInAll += deferred
    sentAgain += await gone(
      () => contender.check(from, session),
      () => loader.run(order)
    )
    samples.push({
      minute: (performance.now() - startedAt) / 60_000,
      residentMb: residentMb(server.pid),
      p99Ms: result.p99Ms
    })
    // At most half of what the service can do, also if the rest of a round takes long.
    const pause = 1_000 - (performance.now() - chunkStartedAt)
    await new Promise((resolve) => setTimeout(resolve, Math.max(0, pause)))
  }
  await server.stop()
  const afterWarmUp = samples.filter(({ minute }) => minute >= minutes * warmUpShare)
  const half = afterWarmUp.length >> 1
  const first = quantile(
    afterWarmUp.slice(0, half).map(({ residentMb }) => residentMb),
    0.5
  )
  const second = quantile(
    afterWarmUp.slice(half).map(({ residentMb }) => residentMb),
    0.5
  )
  const result = {
    minutes,
    capacityPerSecond: capacity.perSecond,
    signOuts: session,
    answered503: deferredInAll,
    sentAgain,
    perSecond: session / (minutes * 60),
    residentMbFirstHalf: first,
    residentMbSecondHalf: second,
    growthMb: second - first,
    samples: samples.filter((_, i) => i % Math.ceil(samples.length / 120) === 0)
  }
  console.log({ ...result, samples: undefined })
  return result
}

/**
 * What was answered 503 is done a little later, or its answer asks for it again: how often all of the round was sent
 * once more.
 */
async function gone(check: () => Promise<void>, sendAgain: () => Promise<unknown>): Promise<number> {
  for (let tries = 1; ; tries++) {
    try {
      await check()
      return Math.floor((tries - 1) / 10)
    } catch (error) {
      if (tries === 40) {
        throw error
      }
      await new Promise((resolve) => setTimeout(resolve, 500))
      if (tries % 10 === 0) {
        await sendAgain()
      }
    }
  }
}

function residentMb(pid: number): number {
  return Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1]) / 1_024
}

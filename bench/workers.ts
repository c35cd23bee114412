// One instance of several processes against one of one process, in turn: docs/performance.md.
import { join } from 'node:path'
import { residentMb } from './costs.ts'
import { contenders, measure, type Setting, signTokens } from './speed.ts'
import { spread } from './statistics.ts'

const figureNames = ['perSecond', 'p50Ms', 'p99Ms', 'serviceUs', 'postgresUs'] as const
type Figures = Record<(typeof figureNames)[number], number>

export async function measureWorkers(setting: Setting, rounds: number, count: number) {
  const tokens = join(setting.folder, 'tokens')
  await signTokens(setting.provider, 13_000, tokens)
  const both = await Promise.all(
    [1, count].map(async (workers) => {
      const [contender] = contenders(setting, { WORKERS: String(workers) })
      if (contender === undefined) {
        throw new Error('no contender')
      }
      const figures: Figures[] = []
      const memoryMb: number[] = []
      return { workers, contender, server: await contender.start(), rounds: figures, memoryMb }
    })
  )
  try {
    // The first round is to warm each process up: several share the tokens that warm one.
    for (let round = 0; round <= rounds; round++) {
      for (const each of round % 2 === 1 ? both : both.toReversed()) {
        const load = { connections: 64, count: each.contender.tokens }
        const { perSecond, p50Ms, p99Ms, costs } = await measure(setting, each.contender, each.server, tokens, load)
        const { serviceUs, postgresUs } = costs
        const figures = { perSecond, p50Ms, p99Ms, serviceUs, postgresUs }
        each.memoryMb = residentMb(each.server.pid)
        console.log(`round ${round}  WORKERS=${each.workers}`, figures, `MB ${each.memoryMb.join(' ')}`)
        if (round > 0) {
          each.rounds.push(figures)
        }
      }
    }
  } finally {
    await Promise.all(both.map(({ server }) => server.stop()))
  }
  const [one, several] = both
  const ratioOf = (name: keyof Figures) =>
    spread((several?.rounds ?? []).map((figures, i) => figures[name] / (one?.rounds[i]?.[name] ?? Number.NaN)))
  const result = {
    rounds,
    contenders: both.map(({ workers, rounds: figures, memoryMb }) => ({
      workers,
      ...Object.fromEntries(figureNames.map((name) => [name, spread(figures.map((each) => each[name]))])),
      memoryMb
    })),
    ratios: Object.fromEntries(figureNames.map((name) => [name, ratioOf(name)]))
  }
  console.log(JSON.stringify(result.ratios, undefined, 2))
  return result
}

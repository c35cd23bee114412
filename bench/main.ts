// `npm run bench`: see docs/performance.md. Arguments: --rounds=5; --cold, --flood, --sweep, --storage[=variant] (elsewhere with
// --database=<URL>), --workers[=count], --scale[=sessions], --purge[=accounts] and --soak[=minutes] instead of the usual measures. What
// was measured goes into results.json, by section.
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { cpus, tmpdir, totalmem } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import pg from 'pg'
import { measureFlood } from './flood.ts'
import type { Server } from './processes.ts'
import { measurePurge } from './purge.ts'
import { measureScale } from './scale.ts'
import { measureSilent, type SilentName, silentNames } from './silent.ts'
import { soak } from './soak.ts'
import {
  type Contender,
  type ContenderName,
  contenders,
  measure,
  measureBareCommit,
  signTokens,
  startSetting
} from './speed.ts'
import { spread } from './statistics.ts'
import { measureStorage } from './storage.ts'
import { measureSweep } from './sweep.ts'
import { measureWorkers } from './workers.ts'

const resultsFile = fileURLToPath(new URL('results.json', import.meta.url))
const { values } = parseArgs({
  args: process.argv
    .slice(2)
    .map((argument) => (/^--(storage|workers|scale|purge|soak)$/.test(argument) ? `${argument}=` : argument)),
  options: {
    rounds: { type: 'string', default: '5' },
    cold: { type: 'boolean', default: false },
    flood: { type: 'boolean', default: false },
    sweep: { type: 'boolean', default: false },
    workers: { type: 'string' },
    storage: { type: 'string' },
    database: { type: 'string' },
    scale: { type: 'string' },
    purge: { type: 'string' },
    soak: { type: 'string' }
  }
})

const figureNames = ['perSecond', 'p50Ms', 'p99Ms', 'serviceUs', 'postgresUs', 'walBytes'] as const
const goals = { verifying: 0.8, statements: 4, express: 4, p99: 2 }
const coldGoals = { verifying: 0.6, statements: 3, express: undefined, p99: undefined }

const folder = mkdtempSync(join(tmpdir(), 'msal-logout-bench-'))
const setting = await startSetting(folder, { isCold: values.cold })
try {
  if (values.flood) {
    save('flood', await measureFlood(setting, Number(values.rounds)))
  } else if (values.sweep) {
    save('sweep', await measureSweep(setting, Number(values.rounds)))
  } else if (values.workers !== undefined) {
    save('workers', await measureWorkers(setting, Number(values.rounds), Number(values.workers || 2)))
  } else if (values.storage !== undefined) {
    await storage(values.storage)
  } else if (values.scale !== undefined) {
    save('scale', await measureScale(setting, Number(values.scale || 10_000_000)))
  } else if (values.purge !== undefined) {
    save('purge', await measurePurge(setting, Number(values.purge || 1_000_000)))
  } else if (values.soak !== undefined) {
    save('soak', await soak(setting, Number(values.soak || 30)))
  } else {
    save(values.cold ? 'cold' : 'speed', await speed(Number(values.rounds)))
  }
} finally {
  await setting.stop()
  rmSync(folder, { recursive: true, force: true })
}

async function storage(only: string) {
  if (values.database === undefined) {
    save('storage', await measureStorage(setting.database.pool, only))
    return
  }
  const pool = new pg.Pool({ connectionString: values.database, max: 1 })
  try {
    save('storage elsewhere', { settings: {}, ...(await measureStorage(pool, only)) })
  } finally {
    await pool.end()
  }
}

async function speed(rounds: number) {
  const tokens = join(folder, 'tokens')
  await signTokens(setting.provider, 13_000, tokens)
  const all = contenders(setting)
  const servers = await Promise.all(all.map(async (contender) => ({ contender, server: await contender.start() })))
  try {
    return await measureRounds(rounds, tokens, servers)
  } finally {
    await Promise.all(servers.map(({ server }) => server.stop()))
  }
}

async function measureRounds(
  rounds: number,
  tokens: string,
  servers: readonly { contender: Contender; server: Server }[]
) {
  const at64 = new Map<ContenderName, Figures>()
  const at1 = new Map<ContenderName, number[]>()
  const bareCommit: number[] = []
  const silent: Record<SilentName, number>[] = []
  for (let round = 1; round <= rounds; round++) {
    // To and fro, so that none gains by a machine that grows faster or slower meanwhile.
    const inTurn = round % 2 === 1 ? servers : servers.toReversed()
    for (const { contender, server } of inTurn) {
      const result = await measure(setting, contender, server, tokens, { connections: 64, count: contender.tokens })
      at64.set(contender.name, addRound(at64.get(contender.name), result))
      const { perSecond, p50Ms, p99Ms, costs } = result
      say(
        `round ${round}  ${contender.name.padEnd(24)} ${perSecond.toFixed(0).padStart(6)}/s  p50 ${ms(p50Ms)}  p99 ${ms(p99Ms)}  a token: service ${us(costs.serviceUs)}, PostgreSQL ${us(costs.postgresUs)}, log ${(costs.walBytes / 1_024).toFixed(1)} KiB`
      )
    }
    if (values.cold) {
      continue // the others ask for what is in memory
    }
    for (const { contender, server } of inTurn) {
      const result = await measure(setting, contender, server, tokens, { connections: 1, count: 1_000 })
      at1.set(contender.name, [...(at1.get(contender.name) ?? []), result.p50Ms])
    }
    bareCommit.push(await measureBareCommit(setting, 1_000))
    silent.push(await measureSilent(setting.database, 1_000))
  }
  const measures = values.cold ? measuresAt64(at64, coldGoals) : [...measuresAt64(at64, goals), ...others()]
  for (const { measure, ratio, bound, reached } of measures) {
    say(
      `${measure.padEnd(60)} ${ratio.median.toFixed(2)} (${ratio.min.toFixed(2)} to ${ratio.max.toFixed(2)})  ${bound ?? ''}  ${reached === undefined ? '' : reached ? 'reached' : 'NOT REACHED'}`
    )
  }
  const spreads = (figures: Figures) => Object.fromEntries(figureNames.map((name) => [name, spread(figures[name])]))
  return {
    rounds,
    at64: Object.fromEntries(
      [...at64].map(([name, figures]) => [name, { ...spreads(figures), rounds: figures.perSecond }])
    ),
    ...(values.cold
      ? {}
      : {
          oneConnectionP50Ms: {
            ...Object.fromEntries([...at1].map(([name, p50s]) => [name, spread(p50s)])),
            'bare commit': spread(bareCommit)
          },
          silentP50Ms: Object.fromEntries(silentNames.map((name) => [name, spread(silentOf(name))]))
        }),
    measures
  }

  function others() {
    const lone = at1.get('msal-logout') ?? []
    const floor = (at1.get('verifying only') ?? []).map((p50, i) => p50 + (bareCommit[i] ?? Number.NaN))
    return [
      measureRow('one connection: p50 ÷ (verifying only + a bare commit)', ratios(lone, floor), 'most', 1.5),
      measureRow(
        'silent token: our plugin ÷ DistributedCachePlugin',
        ratios(silentOf('our plugin'), silentOf('DistributedCachePlugin')),
        'most',
        1.1
      ),
      measureRow(
        '… both with prepared statements',
        ratios(silentOf('our plugin, prepared'), silentOf('DistributedCachePlugin, prepared'))
      ),
      measureRow('silent token: encrypted ÷ not', ratios(silentOf('our plugin, encrypted'), silentOf('our plugin')))
    ]
  }

  function silentOf(name: SilentName) {
    return silent.map((result) => result[name])
  }
}

/** One figure of each round; the last three of a token. */
type Figures = Record<(typeof figureNames)[number], number[]>

function addRound(known: Figures | undefined, { costs, ...result }: Awaited<ReturnType<typeof measure>>): Figures {
  const figures = { ...result, ...costs }
  const add = (name: keyof Figures) => [...(known?.[name] ?? []), figures[name]]
  return {
    perSecond: add('perSecond'),
    p50Ms: add('p50Ms'),
    p99Ms: add('p99Ms'),
    serviceUs: add('serviceUs'),
    postgresUs: add('postgresUs'),
    walBytes: add('walBytes')
  }
}

function measuresAt64(at64: ReadonlyMap<ContenderName, Figures>, goal: typeof goals | typeof coldGoals) {
  const of = (name: ContenderName, figure: keyof Figures) => at64.get(name)?.[figure] ?? []
  const rates = (other: ContenderName) => ratios(of('msal-logout', 'perSecond'), of(other, 'perSecond'))
  return [
    measureRow('sign-outs/s at 64 connections ÷ verifying only', rates('verifying only'), 'least', goal.verifying),
    measureRow('… ÷ a transaction of statements per token', rates('statements per token'), 'least', goal.statements),
    measureRow(
      '… ÷ express-openid-connect with connect-pg-simple',
      rates('express-openid-connect'),
      'least',
      goal.express
    ),
    measureRow(
      'p99 at 64 connections ÷ verifying only',
      ratios(of('msal-logout', 'p99Ms'), of('verifying only', 'p99Ms')),
      'most',
      goal.p99
    ),
    measureRow(
      "processor time of service and PostgreSQL ÷ verifying only's",
      ratios(
        of('msal-logout', 'serviceUs').map(
          (service, i) => service + (of('msal-logout', 'postgresUs')[i] ?? Number.NaN)
        ),
        of('verifying only', 'serviceUs')
      )
    )
  ]
}

/** Ratios are of one round; their median is what counts. */
function ratios(a: readonly number[], b: readonly number[]) {
  return spread(a.map((value, i) => value / (b[i] ?? Number.NaN)))
}

function measureRow(measure: string, ratio: ReturnType<typeof spread>, side?: 'least' | 'most', limit?: number) {
  return {
    measure,
    ratio,
    ...(side === undefined || limit === undefined
      ? {}
      : { bound: `at ${side} ${limit}`, reached: side === 'least' ? ratio.median >= limit : ratio.median <= limit })
  }
}

function save(section: string, result: object): void {
  const results: Record<string, unknown> = JSON.parse(readIfThere(resultsFile) ?? '{}')
  results[section] = {
    date: new Date().toISOString().slice(0, 10),
    machine: `${cpus().length} × ${cpus()[0]?.model}, ${Math.round(totalmem() / 2 ** 30)} GB`,
    node: process.version,
    postgres: setting.database.version,
    settings: setting.database.settings,
    ...result
  }
  writeFileSync(resultsFile, `${JSON.stringify(results, rounded, 2)}\n`)
  say(`bench/results.json: ${section}`)
}

function rounded(_key: string, value: unknown): unknown {
  return typeof value === 'number' && !Number.isInteger(value) ? Number(value.toPrecision(4)) : value
}

function readIfThere(file: string): string | undefined {
  try {
    return readFileSync(file, 'utf8')
  } catch {
    return undefined
  }
}

function ms(value: number): string {
  return `${value.toFixed(2).padStart(7)} ms`
}

function us(value: number): string {
  return `${value.toFixed(0).padStart(4)} µs`
}

function say(line: string): void {
  console.log(line)
}

// Draws docs/performance-*.svg from results.json.
import { readFileSync, writeFileSync } from 'node:fs'
import { parse, View } from 'vega'
import { compile, type TopLevelSpec } from 'vega-lite'

interface Spread {
  readonly median: number
  readonly min: number
  readonly max: number
}

interface Speed {
  readonly at64: Record<string, { perSecond: Spread; p50Ms: Spread; p99Ms: Spread }>
  readonly oneConnectionP50Ms: Record<string, Spread>
}

const { speed }: { speed: Speed } = JSON.parse(readFileSync(new URL('../results.json', import.meta.url), 'utf8'))

await draw('throughput', 'Logouts answered per second, 64 connections', '1/s', (name) => speed.at64[name]?.perSecond)
await draw('p99', '99th percentile of the answer, 64 connections', 'ms', (name) => speed.at64[name]?.p99Ms)

async function draw(file: string, title: string, unit: string, of: (name: string) => Spread | undefined) {
  const names = Object.keys(speed.at64)
  const spec: TopLevelSpec = {
    title,
    width: 420,
    data: { values: names.map((name) => ({ name, ...of(name) })) },
    encoding: { y: { field: 'name', type: 'nominal', sort: names, title: null } },
    layer: [
      {
        mark: { type: 'bar', height: 18, color: '#4c78a8' },
        encoding: { x: { field: 'median', type: 'quantitative', title: unit } }
      },
      {
        mark: { type: 'rule', color: 'black' },
        encoding: { x: { field: 'min', type: 'quantitative' }, x2: { field: 'max' } }
      }
    ],
    config: { background: 'white', font: 'sans-serif' }
  }
  const view = new View(parse(compile(spec).spec), { renderer: 'none' })
  writeFileSync(new URL(`../../docs/performance-${file}.svg`, import.meta.url), `${await view.toSVG()}\n`)
}

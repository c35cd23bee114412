import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { startLoader } from './processes.ts'
import { bystanders, bystandersAreThere, contenders, type Setting, signTokens } from './speed.ts'
import { spread } from './statistics.ts'

// Valid tokens come at a rate that leaves the machine room: what counts is what the flood adds.
const valid = { count: 2_000, perSecond: 200, connections: 16, warmUp: 500 }
const flood = { perSecond: 1_000, connections: 32, seconds: 13, localAddress: '127.0.0.2' }

/**
 * What a flood of badly signed tokens from one address does to the valid ones from another: quiet and flooded in turn.
 * The tokens of the flood are of the dearest kind: all but the signature is right, so that it is looked at.
 */
export async function measureFlood(setting: Setting, rounds: number) {
  const { database, provider, loader, folder } = setting
  const tokens = join(folder, 'tokens')
  const badTokens = join(folder, 'bad-tokens')
  const total = valid.warmUp + valid.count
  await signTokens(provider, total, tokens)
  writeFileSync(
    badTokens,
    withNeighboursSignature(readFileSync(tokens, 'latin1').split('\n'), flood.perSecond * flood.seconds)
  )
  const [own] = contenders(setting)
  if (own === undefined) {
    throw new Error('there is no service')
  }
  const server = await own.start()
  const attacker = startLoader()
  const p99Ms: { quiet: number[]; flooded: number[] } = { quiet: [], flooded: [] }
  const p50Ms: { quiet: number[]; flooded: number[] } = { quiet: [], flooded: [] }
  const order = { port: server.port, path: own.path, tokens }

  async function measure(isFlooded: boolean): Promise<void> {
    await database.fill(provider.issuer, total + bystanders)
    const { perSecond, seconds, connections, localAddress } = flood
    const attack = isFlooded
      ? attacker.run({
          ...order,
          tokens: badTokens,
          from: 0,
          to: perSecond * seconds,
          connections,
          perSecond,
          localAddress
        })
      : undefined
    await loader.run({ ...order, from: 0, to: valid.warmUp, connections: 16, perSecond: 500 })
    const result = await loader.run({ ...order, ...valid, from: valid.warmUp, to: total })
    if (result.statuses['200'] !== valid.count) {
      throw new Error(`valid tokens were answered ${JSON.stringify(result.statuses)}`)
    }
    await own?.check(0, total)
    await bystandersAreThere(database, total, total + bystanders)
    const attacked = await attack
    if (attacked !== undefined) {
      const { '400': rejected = 0, '429': limited = 0 } = attacked.statuses
      if (rejected + limited !== perSecond * seconds || attacked.perSecond < perSecond * 0.95) {
        throw new Error(`the flood was answered ${JSON.stringify(attacked)}`)
      }
    }
    const name = isFlooded ? 'flooded' : 'quiet'
    p50Ms[name].push(result.p50Ms)
    p99Ms[name].push(result.p99Ms)
    console.log(`${name.padEnd(8)} p50 ${result.p50Ms.toFixed(2)} ms  p99 ${result.p99Ms.toFixed(2)} ms`)
  }

  try {
    for (let round = 1; round <= rounds; round++) {
      await measure(false)
      await measure(true)
    }
  } finally {
    attacker.stop()
    await server.stop()
  }
  const ratio = spread(p99Ms.flooded.map((value, i) => value / (p99Ms.quiet[i] ?? Number.NaN)))
  console.log(`p99 flooded ÷ quiet: ${ratio.median.toFixed(2)} (${ratio.min.toFixed(2)} to ${ratio.max.toFixed(2)})`)
  return {
    rounds,
    valid,
    flood,
    p50Ms: { quiet: spread(p50Ms.quiet), flooded: spread(p50Ms.flooded) },
    p99Ms: { quiet: spread(p99Ms.quiet), flooded: spread(p99Ms.flooded) },
    measures: [
      {
        measure: 'valid tokens at 200/s: p99 with 1,000 badly signed ones a second ÷ without',
        ratio,
        bound: 'at most 2',
        reached: ratio.median <= 2
      }
    ]
  }
}

/** Each with the signature of its neighbour: made by the right key, for another token. */
function withNeighboursSignature(tokens: readonly string[], count: number): string {
  const parts = tokens.map((token) => token.split('.'))
  return Array.from({ length: count }, (_, i) => {
    const [header, payload] = parts[i % parts.length] ?? []
    const [, , signature] = parts[(i + 1) % parts.length] ?? []
    return `${header}.${payload}.${signature}`
  }).join('\n')
}

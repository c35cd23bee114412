// 10,000 sessions against 10,000,000: the time of one sign-out must not grow with the size of the tables.
import { mkdtempSync } from 'node:fs'
import { join } from 'node:path'
import { type Database, insertSessions, startDatabase } from './database.ts'
import { contenders, type Setting, signTokens } from './speed.ts'
import { spread } from './statistics.ts'

// An app's session is a row of `sessions`: three to a sid.
const smallSids = 3_333
const perRound = 250
const rounds = 10
const step = 100_000

export async function measureScale(setting: Setting, sessions: number) {
  const { provider, loader, folder } = setting
  const tokens = join(folder, 'tokens')
  await signTokens(provider, perRound * (rounds + 1), tokens)
  const large = await startDatabase()
  try {
    const places = await Promise.all(
      [
        { sids: smallSids, database: setting.database },
        { sids: Math.ceil(sessions / 3), database: large }
      ].map(async ({ sids, database }) => {
        await fill(database, provider.issuer, sids)
        // A folder of its own: what one would keep is not the other's.
        const own = mkdtempSync(join(folder, 'place-'))
        const [contender] = contenders({ ...setting, database, folder: own })
        if (contender === undefined) {
          throw new Error('no contender')
        }
        const { rows } = await database.pool.query<{ size: string }>(
          'select pg_size_pretty(pg_database_size(current_database())) as size'
        )
        const size = rows[0]?.size ?? ''
        return { sids, size, contender, server: await contender.start(), p50s: [] as number[] }
      })
    )
    // In turn, so that what disturbs the machine disturbs both alike; the first round warms up.
    for (let round = 0; round <= rounds; round++) {
      for (const { contender, server, p50s } of round % 2 === 0 ? places : places.toReversed()) {
        const from = round * perRound
        const order = { port: server.port, path: contender.path, tokens, from, to: from + perRound, connections: 1 }
        const { p50Ms, statuses } = await loader.run(order)
        if (statuses['200'] !== perRound) {
          throw new Error(`sign-outs were answered ${JSON.stringify(statuses)}`)
        }
        if (round > 0) {
          p50s.push(p50Ms)
        }
      }
    }
    for (const { contender, server } of places) {
      await contender.check(0, perRound * (rounds + 1))
      await server.stop()
    }
    const [small, big] = places
    const ratio = spread((big?.p50s ?? []).map((p50, i) => p50 / (small?.p50s[i] ?? Number.NaN)))
    for (const { sids, size, p50s } of places) {
      console.log(`${sids * 3} sessions, ${size}: p50 ${spread(p50s).median.toFixed(2)} ms`)
    }
    console.log(`p50 with ${sessions} sessions ÷ with 10,000: ${ratio.median.toFixed(2)} (at most 1.3)`)
    return {
      p50Ms: Object.fromEntries(places.map(({ sids, p50s }) => [sids * 3, spread(p50s)])),
      size: Object.fromEntries(places.map(({ sids, size }) => [sids * 3, size])),
      ratio,
      bound: 'at most 1.3',
      reached: ratio.median <= 1.3
    }
  } finally {
    await large.close()
  }
}

/** The neighbours' payloads are small, so that the tables and indexes are large and the disk is not full. */
async function fill(database: Database, issuer: string, sids: number): Promise<void> {
  const named = perRound * (rounds + 1)
  await database.fill(issuer, named)
  for (let from = named; from < sids; from += step) {
    await insertSessions(database.pool, issuer, from, Math.min(from + step, sids), 'tiny')
  }
  await database.pool.query('vacuum analyze msal_logout.token_cache, msal_logout.sessions')
  await database.pool.query('checkpoint')
}

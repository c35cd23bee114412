// 10,000 sessions against 10,000,000: the time of one sign-out must not grow with the size of the tables.
import { join } from 'node:path'
import { insertSessions } from './database.ts'
import { contenders, type Setting, signTokens } from './speed.ts'
import { spread } from './statistics.ts'

const sizes = [10_000, 10_000_000]
const perRound = 1_000
const rounds = 5
const step = 100_000

export async function measureScale({ database, provider, loader, folder }: Setting) {
  const { pool } = database
  const tokens = join(folder, 'tokens')
  const used = perRound * (rounds + 1)
  await signTokens(provider, used, tokens)
  const contender = contenders({ database, provider, loader, folder })[0]
  if (contender === undefined) {
    throw new Error('no contender')
  }
  const server = await contender.start()
  const p50Ms: Record<number, number[]> = {}
  const bytes: Record<number, string> = {}
  for (const sessions of sizes) {
    // An app's session is a row of `sessions`: three to a sid.
    const sids = Math.ceil(sessions / 3)
    await database.fill(provider.issuer, Math.min(sids, used))
    for (let from = used; from < sids; from += step) {
      // The neighbours' payloads are small, so that the tables and indexes are large and the disk is not full.
      await insertSessions(pool, provider.issuer, from, Math.min(from + step, sids), 'tiny')
    }
    await pool.query('vacuum analyze msal_logout.token_cache, msal_logout.sessions')
    await pool.query('checkpoint')
    const { rows } = await pool.query<{ size: string }>(
      'select pg_size_pretty(pg_database_size(current_database())) as size'
    )
    bytes[sessions] = rows[0]?.size ?? ''
    const p50s: number[] = []
    const available = Math.min(sids, used)
    const each = Math.floor(available / (rounds + 1))
    for (let round = 0; round <= rounds; round++) {
      const result = await loader.run({
        port: server.port,
        path: contender.path,
        tokens,
        from: round * each,
        to: (round + 1) * each,
        connections: 1
      })
      if (round > 0) {
        p50s.push(result.p50Ms) // the first warms up
      }
    }
    await contender.check(0, each * (rounds + 1))
    p50Ms[sessions] = p50s
    console.log(`${sessions} sessions, ${bytes[sessions]}: p50 ${spread(p50s).median.toFixed(2)} ms`)
  }
  await server.stop()
  const [small, large] = sizes.map((sessions) => spread(p50Ms[sessions] ?? []))
  const ratio = (large?.median ?? Number.NaN) / (small?.median ?? Number.NaN)
  console.log(`p50 with 10,000,000 sessions ÷ with 10,000: ${ratio.toFixed(2)} (at most 1.3)`)
  return {
    p50Ms: Object.fromEntries(sizes.map((n) => [n, spread(p50Ms[n] ?? [])])),
    size: bytes,
    ratio,
    bound: 'at most 1.3',
    reached: ratio <= 1.3
  }
}

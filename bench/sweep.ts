// What the sweep of a directory does to the sign-outs that come meanwhile.
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { type FakeGraph, startFakeGraph } from '../test/fixtures/fake-graph.ts'
import { payloads } from './database.ts'
import { startServer } from './processes.ts'
import { audience } from './provider.ts'
import { bystanders, bystandersAreThere, type Setting, signTokens } from './speed.ts'
import { spread } from './statistics.ts'

const tenantId = 'f3b1a1de-0000-4000-8000-000000000002'
const watcherId = 'f3b1a1de-0000-4000-8000-000000000003'
const watcherSecret = 'Abc8Q~secret-of-the-bench'
const watchedAccounts = 10_000
const usersPerBatch = 20
// At a rate that leaves the machine room: what counts is what the sweep adds.
const valid = { count: 2_000, perSecond: 200, connections: 16, warmUp: 500 }
const bounds = { p50: 1.2, p99: 2 }
/** How long Graph takes for a batch of 20 users: less than the real one; and, for the worst that can be, no time at all. */
const modes = { quiet: undefined, swept: 50, pressed: 0 } as const
type Mode = keyof typeof modes
const modeNames: readonly Mode[] = ['quiet', 'swept', 'pressed']

/**
 * Sign-outs with and without sweeps of 10,000 accounts beside them, in turn. One sweep follows the other, where the service makes one in
 * 15 minutes. Graph runs on this machine, and takes its share of it.
 */
export async function measureSweep(setting: Setting, rounds: number) {
  const { database, provider, loader, folder } = setting
  const { pool } = database
  const tokens = join(folder, 'tokens')
  const total = valid.warmUp + valid.count
  await signTokens(provider, total, tokens)
  const graph = await startFakeGraph()
  const tenant = graph.tenant(tenantId)
  tenant.register(watcherId, { secrets: [{ value: watcherSecret }] })
  const ids = Array.from({ length: watchedAccounts }, () => tenant.add().id)
  const server = await startServer({
    program: 'dist/cli.js',
    env: {
      DATABASE_URL: database.url,
      ISSUERS_FILE: writeIssuers(setting, graph),
      ISSUER: '',
      NODE_ENV: 'production',
      SPOOL_DIR: join(folder, 'spool-sweep')
    },
    logFile: join(folder, 'sweep.log')
  })
  const order = { port: server.port, path: '/backchannel-logout', tokens }
  const ofEach = (): Record<Mode, number[]> => ({ quiet: [], swept: [], pressed: [] })
  const p50Ms = ofEach()
  const p99Ms = ofEach()
  const accountsPerSecond = ofEach()

  async function isSweptSince(at: Date): Promise<boolean> {
    const { rows } = await pool.query<{ swept: boolean; watched: string; failed: boolean }>(
      `select swept_at > $1 and sweep_due_at > now() as swept, watched, delta_failure is not null or sweep_failure is not null as failed
      from msal_logout.directories`,
      [at]
    )
    if (rows[0]?.failed) {
      throw new Error('a round of the directory failed')
    }
    if (rows[0]?.swept && Number(rows[0].watched) !== watchedAccounts) {
      throw new Error(`${rows[0].watched} accounts were swept`)
    }
    return rows[0]?.swept === true
  }

  /** One sweep after the other, until it is told to stop. */
  async function sweepOn(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      const { rows } = await pool.query<{ at: Date }>(
        'update msal_logout.directories set due_at = now(), sweep_due_at = now() returning now() as at'
      )
      const at = rows[0]?.at ?? new Date()
      await when('a sweep is over', () => isSweptSince(at))
    }
  }

  async function measure(mode: Mode): Promise<void> {
    await database.fill(provider.issuer, total + bystanders)
    await fillTenant(setting, ids)
    await loader.run({ ...order, from: 0, to: valid.warmUp, connections: 16, perSecond: 500 })
    const stopping = new AbortController()
    const graphMs = modes[mode]
    const batches = () => graph.count('$batch')
    let sweeps = Promise.resolve()
    if (graphMs !== undefined) {
      graph.calls.length = 0
      graph.onRequest = async () => {
        if (graphMs > 0) {
          await delay(graphMs)
        }
      }
      sweeps = sweepOn(stopping.signal)
      await Promise.race([sweeps, when('a sweep has begun', async () => batches() > 0)])
    }
    const batchesBefore = batches()
    const result = await loader.run({ ...order, ...valid, from: valid.warmUp, to: total })
    accountsPerSecond[mode].push(((batches() - batchesBefore) * usersPerBatch) / result.seconds)
    stopping.abort()
    graph.onRequest = async () => {} // what is under way ends soon
    await sweeps
    if (result.statuses['200'] !== valid.count) {
      throw new Error(`valid tokens were answered ${JSON.stringify(result.statuses)}`)
    }
    if ((await database.countRows(0, total)) > 0) {
      throw new Error('rows are still there')
    }
    await bystandersAreThere(database, total, total + bystanders)
    await assertThere(setting)
    p50Ms[mode].push(result.p50Ms)
    p99Ms[mode].push(result.p99Ms)
    console.log(`${mode.padEnd(8)} p50 ${result.p50Ms.toFixed(2)} ms  p99 ${result.p99Ms.toFixed(2)} ms`)
  }

  try {
    for (let round = 1; round <= rounds; round++) {
      // To and fro, so that none gains by a machine that grows faster or slower meanwhile.
      for (const mode of round % 2 === 1 ? modeNames : modeNames.toReversed()) {
        await measure(mode)
      }
    }
  } finally {
    await server.stop()
    await graph.close()
  }
  const ratioOf = (figures: Record<Mode, number[]>, mode: Mode) =>
    spread(figures[mode].map((value, i) => value / (figures.quiet[i] ?? Number.NaN)))
  const measures = [
    ...[
      { name: 'p50', ratio: ratioOf(p50Ms, 'swept'), limit: bounds.p50 },
      { name: 'p99', ratio: ratioOf(p99Ms, 'swept'), limit: bounds.p99 }
    ].map(({ name, ratio, limit }) => ({
      measure: `sign-outs at 200/s: ${name} beside sweeps of 10,000 accounts ÷ without`,
      ratio,
      bound: `at most ${limit}`,
      reached: ratio.median <= limit
    })),
    { measure: '… p50, with a Graph that answers at once', ratio: ratioOf(p50Ms, 'pressed') },
    { measure: '… p99, with a Graph that answers at once', ratio: ratioOf(p99Ms, 'pressed') }
  ]
  for (const { measure: what, ratio, ...goal } of measures) {
    const reached = 'reached' in goal ? `, ${goal.bound}: ${goal.reached ? 'reached' : 'NOT REACHED'}` : ''
    console.log(`${what}: ${ratio.median.toFixed(2)} (${ratio.min.toFixed(2)} to ${ratio.max.toFixed(2)})${reached}`)
  }
  const spreads = ({ quiet, swept, pressed }: Record<Mode, number[]>) => ({
    quiet: spread(quiet),
    swept: spread(swept),
    pressed: spread(pressed)
  })
  const { swept, pressed } = spreads(accountsPerSecond)
  console.log(`${swept.median.toFixed(0)} accounts a second were looked at, or ${pressed.median.toFixed(0)}`)
  return {
    rounds,
    valid,
    watchedAccounts,
    graphMs: { swept: modes.swept, pressed: modes.pressed },
    accountsPerSecond: { swept, pressed },
    p50Ms: spreads(p50Ms),
    p99Ms: spreads(p99Ms),
    measures
  }
}

/** @throws if it takes longer than two minutes */
async function when(what: string, condition: () => Promise<boolean>): Promise<void> {
  for (const since = performance.now(); !(await condition()); ) {
    if (performance.now() - since > 120_000) {
      throw new Error(`it takes longer than two minutes until ${what}`)
    }
    await delay(50)
  }
}

function writeIssuers({ provider, folder }: Setting, { url }: FakeGraph): string {
  const secretFile = join(folder, 'watcher-secret')
  writeFileSync(secretFile, watcherSecret)
  const jwksUri = `${provider.issuer}/jwks`
  const directory = {
    kind: 'microsoft-graph',
    clientId: watcherId,
    credential: { clientSecretFile: secretFile },
    pollSeconds: 3_600, // it looks when it is told to
    sweepSeconds: 86_400,
    graphUrl: url,
    authorityUrl: url
  }
  const file = join(folder, 'issuers-sweep.json')
  const issuers = [
    { name: 'bench', issuer: provider.issuer, jwksUri, clientIds: [audience], maxTokenAgeSeconds: 86_400 },
    { name: 'entra', issuer: issuerOfTenant, jwksUri, clientIds: [audience], directory }
  ]
  writeFileSync(file, JSON.stringify({ issuers }))
  return file
}

const issuerOfTenant = `https://login.microsoftonline.com/${tenantId}/v2.0`

/** The accounts that are swept, one row each, as a login stores them. */
async function fillTenant({ database: { pool } }: Setting, ids: readonly string[]): Promise<void> {
  await pool.query(
    `insert into msal_logout.token_cache (client_id, partition_key, kind, account_issuer, home_account_id, payload, encoding, expires_at)
     select 'app-0', id || '.' || $2, 'user', 'https://login.microsoftonline.com/*', id || '.' || $2, payload, 'json',
       now() + interval '30 days'
     from unnest($1::text[]) with ordinality a (id, g)
     join public.payloads on n = g % ${payloads}`,
    [ids, tenantId]
  )
  await pool.query(
    `insert into msal_logout.sessions (issuer, session_key, client_id, partition_key, sid, subject, account_issuer,
       home_account_id, oid, tid, issued_at, expires_at)
     select $3, 'sid=' || id, 'app-0', id || '.' || $2, id, id, 'https://login.microsoftonline.com/*', id || '.' || $2, id, $2,
       extract(epoch from now())::bigint - 60, now() + interval '30 days'
     from unnest($1::text[]) id`,
    [ids, tenantId, issuerOfTenant]
  )
  await pool.query('vacuum analyze msal_logout.token_cache, msal_logout.sessions')
  await pool.query('checkpoint')
}

async function assertThere({ database: { pool } }: Setting): Promise<void> {
  const { rows } = await pool.query<{ n: string }>('select count(*) as n from msal_logout.sessions where tid = $1', [
    tenantId
  ])
  if (Number(rows[0]?.n) !== watchedAccounts) {
    throw new Error(`${rows[0]?.n} of the accounts that were swept are there`)
  }
}

// The real thing: processes that die. FAULT_ROUNDS says how often (`npm run test:faults`: 10); short by default, and
// then without what waits for ten seconds.
import { randomUUID } from 'node:crypto'
import { readdirSync } from 'node:fs'
import { monitorEventLoopDelay } from 'node:perf_hooks'
import { setTimeout as delay } from 'node:timers/promises'
import pg from 'pg'
import t, { type Test } from 'tap'
import { type EmbeddedPostgres, startEmbeddedPostgres } from '../../src/embedded-postgres.ts'
import { migrate } from '../../src/migrate.ts'
import { noteTries } from '../fixtures/attacks.ts'
import {
  clientId,
  createSigningKey,
  type IdentityProvider,
  startIdentityProvider
} from '../fixtures/identity-provider.ts'
import { startProxy } from '../fixtures/proxy.ts'
import { type Server, startServer, temporaryFolder } from '../fixtures/server.ts'
import { until } from '../fixtures/until.ts'

const rounds = Number(process.env.FAULT_ROUNDS ?? 1)
const isThorough = process.env.FAULT_ROUNDS !== undefined
const connections = 64
const tokensPerRound = Number(process.env.FAULT_TOKENS ?? 300)

interface Answer {
  readonly sid: string
  /** 0: the connection broke, nothing was answered. */
  readonly status: number
  /** The 503 that says so. */
  readonly isDeferred: boolean
  readonly tookMs: number
}

interface Scene {
  readonly postgres: EmbeddedPostgres
  readonly provider: IdentityProvider
  readonly env: Record<string, string>
  query(text: string, values?: unknown[]): Promise<pg.QueryResultRow[]>
  /** Tokens of sessions that are stored. */
  prepare(count: number): Promise<{ sid: string; token: string }[]>
  /** The sids whose rows are still there. */
  left(): Promise<Set<string>>
}

async function setUp(t: Test): Promise<Scene> {
  const postgres = await startEmbeddedPostgres()
  t.teardown(() => postgres.stop())
  const provider = await startIdentityProvider(t)
  async function query(text: string, values: unknown[] = []) {
    const client = new pg.Client({ connectionString: postgres.url })
    await client.connect()
    try {
      return (await client.query(text, values)).rows
    } finally {
      await client.end()
    }
  }
  const pool = new pg.Pool({ connectionString: postgres.url })
  await migrate(pool)
  await pool.end()
  return {
    postgres,
    provider,
    query,
    env: { DATABASE_URL: postgres.url, ISSUER: provider.issuer, CLIENT_IDS: clientId, SPOOL_DIR: temporaryFolder(t) },
    async prepare(count) {
      const sids = Array.from({ length: count }, () => randomUUID())
      await query(
        `with stored as (
          insert into msal_logout.token_cache (client_id, partition_key, kind, home_account_id, payload, encoding, expires_at)
          select 'client-a', sid || '.t', 'user', sid || '.t', 'payload', 'json', now() + interval '1 hour' from unnest($2::text[]) sid
        )
        insert into msal_logout.sessions (issuer, session_key, client_id, partition_key, sid, subject, account_issuer, home_account_id, issued_at, expires_at)
        select $1, 'sid=' || sid, 'client-a', sid || '.t', sid, 'subject', '', sid || '.t', 1, now() + interval '1 hour' from unnest($2::text[]) sid`,
        [provider.issuer, sids]
      )
      return Promise.all(sids.map(async (sid) => ({ sid, token: await provider.logoutToken({ sid }) })))
    },
    async left() {
      const rows = await query(`select split_part(home_account_id, '.', 1) as sid from msal_logout.token_cache`)
      return new Set(rows.map(({ sid }) => String(sid)))
    }
  }
}

/** Posts them all over so many connections at once. */
async function load(
  server: () => Server,
  tokens: { sid: string; token: string }[],
  answers: Answer[] = []
): Promise<Answer[]> {
  const waiting = [...tokens]
  const lag = monitorEventLoopDelay({ resolution: 10 })
  lag.enable()
  await Promise.all(
    Array.from({ length: connections }, async () => {
      for (let next = waiting.pop(); next !== undefined; next = waiting.pop()) {
        const { sid, token } = next
        const begun = performance.now()
        const [status, body] = await server()
          .fetch(`${server().publicUrl}/backchannel-logout`, {
            method: 'POST',
            body: new URLSearchParams({ logout_token: token })
          })
          .then(
            async (response) => [response.status, await response.text()] as const,
            () => [0, ''] as const
          )
        answers.push({ sid, status, isDeferred: body.includes('it is deferred'), tookMs: performance.now() - begun })
      }
    })
  )
  lag.disable()
  // The time that this process itself had no time to look at an answer is not the service's.
  return answers.map((answer) => ({ ...answer, tookMs: answer.tookMs - lag.max / 1e6 }))
}

/** As {@link load}, to be disturbed once a part of it is answered, between a tenth and a half. */
async function beginLoad(server: () => Server, tokens: { sid: string; token: string }[]) {
  const answered: Answer[] = []
  const answers = load(server, tokens, answered)
  const part = Math.ceil(tokens.length * (0.1 + Math.random() * 0.4))
  await until(`${part} tokens are answered`, () => answered.length >= part, { everyMs: 1 })
  return { answers }
}

/** Waits until what was answered 503, and deferred, is done. */
async function untilGone(scene: Scene, answers: Answer[]): Promise<void> {
  const owed = answers.filter(({ isDeferred }) => isDeferred).map(({ sid }) => sid)
  await until(
    `${owed.length} deferred sign-outs are done`,
    async () => {
      const left = await scene.left()
      return !owed.some((sid) => left.has(sid))
    },
    { everyMs: 20 }
  )
}

function summary(answers: Answer[]): string {
  const count = (status: number) => answers.filter((answer) => answer.status === status).length
  const slowest = Math.round(Math.max(...answers.map(({ tookMs }) => tookMs)))
  return `200: ${count(200)}, 503: ${count(503)}, not answered: ${count(0)}, slowest ${slowest} ms`
}

t.test(
  'PostgreSQL is killed and restarted under load: nothing is lost, nothing answered late',
  { timeout: 600_000 },
  async (t) => {
    const scene = await setUp(t)
    const server = await startServer(t, scene.env)
    for (let round = 1; round <= rounds; round += 1) {
      const tokens = await scene.prepare(tokensPerRound)
      const loading = await beginLoad(() => server, tokens)
      await scene.postgres.kill()
      await delay(300 + Math.random() * 500)
      await scene.postgres.start()
      const answers = await loading.answers
      t.comment(`round ${round}: ${summary(answers)}`)
      t.equal(answers.length, tokens.length)
      t.same(
        answers.filter(({ status }) => ![200, 503].includes(status)),
        [],
        'none is answered otherwise'
      )
      // The one assertion of all tests on the speed of the machine.
      t.same(
        answers.filter(({ tookMs }) => tookMs > 2_000),
        [],
        'none later than 2 s'
      )
      const lost = answers.filter(({ status, isDeferred }) => status === 503 && !isDeferred)
      t.comment(`answered that it could not be kept: ${lost.length}`)
      t.ok(lost.length <= answers.length / 10, 'hardly any was given back, as a disk that is busy makes it')
      const left = await scene.left()
      t.same(
        answers.filter(({ sid, status }) => status === 200 && left.has(sid)),
        [],
        'what was answered 200 is gone'
      )
      await untilGone(scene, answers)
    }
    server.process.kill('SIGTERM')
    t.equal(await server.exited, 0)
    noteTries('PostgreSQL is killed under load', rounds)
  }
)

t.test(
  'the service is killed under load, with and without a database: the same account',
  { timeout: 600_000 },
  async (t) => {
    const scene = await setUp(t)
    let server = await startServer(t, scene.env)
    for (let round = 1; round <= rounds; round += 1) {
      const tokens = await scene.prepare(tokensPerRound)
      if (round % 2 === 0) {
        await scene.postgres.kill()
      }
      const loading = await beginLoad(() => server, tokens)
      server.process.kill('SIGKILL')
      await server.exited
      const answers = await loading.answers
      if (round % 2 === 0) {
        await scene.postgres.start()
      }
      server = await startServer(t, scene.env)
      t.comment(`round ${round}: ${summary(answers)}`)
      t.same(
        answers.filter(({ status }) => ![0, 200, 503].includes(status)),
        []
      )
      const left = await scene.left()
      t.same(
        answers.filter(({ sid, status }) => status === 200 && left.has(sid)),
        [],
        'what was answered 200 is gone'
      )
      await untilGone(scene, answers)
    }
    noteTries('the service is killed under load', rounds)
  }
)

t.test('SIGTERM under load answers everything that was accepted', { timeout: 120_000 }, async (t) => {
  const scene = await setUp(t)
  const server: Server = await startServer(t, scene.env)
  const tokens = await scene.prepare(tokensPerRound)
  const loading = await beginLoad(() => server, tokens)
  server.process.kill('SIGTERM')
  const answers = await loading.answers
  t.comment(summary(answers))
  t.equal(await server.exited, 0)
  t.ok(answers.some(({ status }) => status === 200))
  t.same(
    answers.filter(({ status }) => ![0, 200, 503].includes(status)),
    []
  )
  const left = await scene.left()
  t.same(
    answers.filter(({ sid, status }) => status === 200 && left.has(sid)),
    []
  )
  const notAnswered = answers.filter(({ status }) => status === 0)
  t.same(
    notAnswered.filter(({ sid }) => !left.has(sid)),
    [],
    'what was not answered was not begun'
  )
})

t.test('keys are rotated under load, and every valid token is done at once', { timeout: 120_000 }, async (t) => {
  const scene = await setUp(t)
  const server = await startServer(t, scene.env)
  const answers: Answer[] = []
  for (let rotation = 0; rotation < 5; rotation += 1) {
    const tokens = await scene.prepare(100)
    scene.provider.keys = [await createSigningKey(), ...scene.provider.keys]
    tokens.push(...(await scene.prepare(100)))
    answers.push(...(await load(() => server, tokens)))
  }
  t.same(
    answers.filter(({ status }) => status !== 200),
    [],
    summary(answers)
  )
  t.same(await scene.left(), new Set())
})

if (isThorough) {
  t.test('a database that hangs holds the end of the service up for 10 s at most', { timeout: 60_000 }, async (t) => {
    const scene = await setUp(t)
    const proxy = await startProxy(t, scene.postgres.url)
    const url = new URL(scene.postgres.url)
    url.host = `127.0.0.1:${proxy.port}`
    const server = await startServer(t, { ...scene.env, DATABASE_URL: url.href })
    const [first, second] = await scene.prepare(2)
    const before = await load(() => server, [first ?? { sid: '', token: '' }])
    proxy.set('hang')
    const loading = load(() => server, [second ?? { sid: '', token: '' }])
    for (let i = 0; i < 3; i++) {
      await server.fetch(`${server.publicUrl}/healthz`) // what came before has been accepted, too
    }
    server.process.kill('SIGTERM')
    t.equal(await server.exited, 1, 'in haste')
    t.same(
      [...before, ...(await loading)].map(({ status }) => status),
      [200, 503],
      'what was accepted is answered'
    )
    t.equal(readdirSync(scene.env.SPOOL_DIR ?? '').filter((name) => name.endsWith('.json')).length, 1, 'and kept')
  })

  t.test(
    'keys are rotated while somebody makes up key ids, and every valid token is done',
    { timeout: 120_000 },
    async (t) => {
      const scene = await setUp(t)
      const server = await startServer(t, scene.env)
      const first = await load(() => server, await scene.prepare(50))
      const hostile = await Promise.all(
        Array.from({ length: 500 }, async () => {
          const sid = randomUUID()
          return { sid, token: await scene.provider.logoutToken({ sid }, { kid: sid }) }
        })
      )
      await load(() => server, hostile.slice(0, 250))
      scene.provider.keys = [await createSigningKey(), ...scene.provider.keys]
      const tokens = await scene.prepare(250)
      const mixed = tokens.flatMap((token, i) => [token, hostile[250 + i] ?? token])
      const sids = new Set(tokens.map(({ sid }) => sid))
      const valid = (await load(() => server, mixed)).filter(({ sid }) => sids.has(sid))
      t.same(
        [...first, ...valid].filter(({ status }) => ![200, 503].includes(status)),
        [],
        summary(valid)
      )
      t.ok(scene.provider.keyFetches <= 20, `${scene.provider.keyFetches} fetches`)
      await untilGone(scene, valid) // at the latest when keys may be fetched again
      t.same(await scene.left(), new Set())
      noteTries('made-up key ids while the issuer rotates its keys', hostile.length)
    }
  )
}

t.test('a disk that takes no byte more is told honestly, and ends nothing', { timeout: 60_000 }, async (t) => {
  const scene = await setUp(t)
  scene.provider.behaviour = 'down'
  // A limit of the process on the size of files is as good as a full disk, and needs no root; the kernel's signal
  // about it is caught, so that the write fails instead.
  const server = await startServer(
    t,
    { ...scene.env, NODE_OPTIONS: `--import=data:text/javascript,process.on('SIGXFSZ',()=>{})` },
    ['bash', '-c', 'ulimit -f 0; exec "$0" "$@"', process.execPath]
  )
  const [{ token } = { token: '' }] = await scene.prepare(1)
  const answer = await server.fetch(`${server.publicUrl}/backchannel-logout`, {
    method: 'POST',
    body: new URLSearchParams({ logout_token: token })
  })
  t.equal(answer.status, 503)
  t.match(await answer.json(), { error_description: /could not be kept/ })
  t.equal((await server.fetch(`${server.adminUrl}/readyz`)).status, 503)
  t.equal((await server.fetch(`${server.publicUrl}/healthz`)).status, 200)
})

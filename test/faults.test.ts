// The real thing: processes that die. FAULT_ROUNDS says how often (`npm run test:faults`: 10); short by default, and
// then without what waits for ten seconds.
import { randomUUID } from 'node:crypto'
import { readdirSync } from 'node:fs'
import { setTimeout as delay } from 'node:timers/promises'
import pg from 'pg'
import t, { type Test } from 'tap'
import { type EmbeddedPostgres, startEmbeddedPostgres } from '../src/embedded-postgres.ts'
import { migrate } from '../src/migrate.ts'
import {
  clientId,
  createSigningKey,
  type IdentityProvider,
  startIdentityProvider
} from './fixtures/identity-provider.ts'
import { startProxy } from './fixtures/proxy.ts'
import { type Server, startServer, temporaryFolder } from './fixtures/server.ts'

const rounds = Number(process.env.FAULT_ROUNDS ?? 1)
const isThorough = process.env.FAULT_ROUNDS !== undefined
const connections = 64
const tokensPerRound = Number(process.env.FAULT_TOKENS ?? 300)

interface Answer {
  readonly sid: string
  /** 0: the connection broke, nothing was answered. */
  readonly status: number
  /** The 503 that says so. */
  readonly isKept: boolean
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
async function load(server: () => Server, tokens: { sid: string; token: string }[]): Promise<Answer[]> {
  const waiting = [...tokens]
  const answers: Answer[] = []
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
        answers.push({ sid, status, isKept: body.includes('it is kept'), tookMs: performance.now() - begun })
      }
    })
  )
  return answers
}

async function untilGone(scene: Scene, answers: Answer[], withinMs: number): Promise<string[]> {
  const deadline = Date.now() + withinMs
  const owed = answers.filter(({ status }) => status === 503).map(({ sid }) => sid)
  let missing = owed
  while (missing.length > 0 && Date.now() < deadline) {
    const left = await scene.left()
    missing = owed.filter((sid) => left.has(sid))
    await delay(20)
  }
  return missing
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
      const loading = load(() => server, tokens)
      await delay(100 + Math.random() * 100)
      await scene.postgres.kill()
      await delay(300 + Math.random() * 500)
      await scene.postgres.start()
      const answers = await loading
      t.comment(`round ${round}: ${summary(answers)}`)
      t.equal(answers.length, tokens.length)
      t.same(
        answers.filter(({ status }) => ![200, 503].includes(status)),
        [],
        'none is answered otherwise'
      )
      t.same(
        answers.filter(({ tookMs }) => tookMs > 2_000),
        [],
        'none later than 2 s'
      )
      t.same(
        answers.filter(({ status, isKept }) => status === 503 && !isKept),
        [],
        'and none could not be kept'
      )
      const left = await scene.left()
      t.same(
        answers.filter(({ sid, status }) => status === 200 && left.has(sid)),
        [],
        'what was answered 200 is gone'
      )
      t.same(await untilGone(scene, answers, 5_000), [], 'and what was answered 503 within 5 s')
    }
    server.process.kill('SIGTERM')
    t.equal(await server.exited, 0)
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
      const loading = load(() => server, tokens)
      if (round % 2 === 0) {
        await scene.postgres.kill()
      }
      await delay(150 + Math.random() * 150)
      server.process.kill('SIGKILL')
      await server.exited
      const answers = await loading
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
      t.same(await untilGone(scene, answers, 5_000), [], 'and what was answered 503 within 5 s of the restart')
    }
  }
)

t.test('SIGTERM under load answers everything that was accepted', { timeout: 120_000 }, async (t) => {
  const scene = await setUp(t)
  const server: Server = await startServer(t, scene.env)
  const tokens = await scene.prepare(tokensPerRound)
  const loading = load(() => server, tokens)
  await delay(200)
  server.process.kill('SIGTERM')
  const answers = await loading
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
    await delay(100)
    const begun = Date.now()
    server.process.kill('SIGTERM')
    t.equal(await server.exited, 1)
    t.ok(Date.now() - begun < 11_000, `${Date.now() - begun} ms`)
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
      t.same(await untilGone(scene, valid, 15_000), [], 'at the latest when keys may be fetched again')
      t.same(await scene.left(), new Set())
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

// Real races between processes. RACES says how many of each (`npm run test:races`: 1,000); short by default.
import { type ChildProcess, fork } from 'node:child_process'
import { randomUUID } from 'node:crypto'
import { once } from 'node:events'
import { setTimeout as delay } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import t, { type Test } from 'tap'
import { createStore } from '../../src/store.ts'
import { form } from '../fixtures/client.ts'
import { createDatabase, type Database } from '../fixtures/database.ts'
import { authority, type Person } from '../fixtures/msal.ts'
import { makeOrder } from '../fixtures/orders.ts'
import type { Result, Task } from '../fixtures/race-worker.ts'

const races = Number(process.env.RACES ?? 30)
const processes = 3
const atOnce = 8
const timeout = 1_200_000

interface Workers {
  /** Does it in the next process of the round. */
  perform(task: Task): Promise<string>
}

async function startWorkers(t: Test, database: Database, plugin: 'ours' | 'stock'): Promise<Workers> {
  const file = fileURLToPath(new URL('../fixtures/race-worker.js', import.meta.url))
  const waiting = new Map<number, (outcome: string) => void>()
  const workers: ChildProcess[] = []
  for (let i = 0; i < processes; i += 1) {
    const worker = fork(file, [database.url, plugin], {
      execArgv: [],
      env: { PATH: process.env.PATH, CLIENT_FORM: form } as NodeJS.ProcessEnv
    })
    t.teardown(async () => {
      const exited = once(worker, 'exit')
      worker.disconnect()
      await exited
    })
    await once(worker, 'message')
    worker.on('message', ({ id, outcome }: Result) => {
      waiting.get(id)?.(outcome)
      waiting.delete(id)
    })
    workers.push(worker)
  }
  let ids = 0
  return {
    perform(task) {
      ids += 1
      const id = ids
      workers[id % processes]?.send({ id, task })
      return new Promise((resolve) => waiting.set(id, resolve))
    }
  }
}

/** Runs so many races, a few at once. */
async function repeat(count: number, race: (i: number) => Promise<void>): Promise<void> {
  let next = 0
  await Promise.all(
    Array.from({ length: atOnce }, async () => {
      for (let i = next++; i < count; i = next++) {
        await race(i)
      }
    })
  )
}

const random = (maxMs: number) => Math.random() * maxMs
const now = () => Math.floor(Date.now() / 1_000)
const someone = (): Person => ({ homeAccountId: `${randomUUID()}.t`, subject: randomUUID(), sid: randomUUID() })

async function signOut(database: Database, by: { sid?: string | undefined; subject?: string }): Promise<void> {
  const { sid, subject } = by
  const order = makeOrder(
    subject === undefined
      ? { kind: 'session', issuer: authority, sid: sid ?? '' }
      : { kind: 'subject', issuer: authority, subject, sid }
  )
  await createStore({ pool: database.pool }).commitOrders([order], { isPatient: true })
}

async function stored(database: Database, { homeAccountId }: Person): Promise<string | undefined> {
  const [row] = await database.query<{ payload: Buffer }>(
    'select payload from msal_logout.token_cache where partition_key = $1',
    [homeAccountId]
  )
  return row?.payload.toString()
}

t.test('a purge amid five refreshes in several processes is never undone', { timeout }, async (t) => {
  const database = await createDatabase(t)
  const workers = await startWorkers(t, database, 'ours')
  const outcomes: Record<string, number> = {}
  let undone = 0
  await repeat(races, async () => {
    const person = { ...someone(), issuedAt: now() - 5 }
    t.equal(await workers.perform({ kind: 'login', person, delayMs: 0 }), 'done')
    const refreshes = Array.from({ length: 5 }, (_, i) =>
      workers.perform({ kind: 'refresh', homeAccountId: person.homeAccountId, scope: `r-${i}`, delayMs: random(8) })
    )
    await delay(random(15))
    await signOut(database, person)
    for (const outcome of await Promise.all(refreshes)) {
      outcomes[outcome] = (outcomes[outcome] ?? 0) + 1
    }
    const isBack = (await stored(database, person)) !== undefined
    undone += isBack ? 1 : 0
  })
  t.comment(`${races} purges: undone ${undone}; the refreshes: ${JSON.stringify(outcomes)}`)
  t.equal(undone, 0)
  t.ok(outcomes.done && outcomes.ERR_SIGNED_OUT, 'refreshes came before and after the purge')
  t.same(
    Object.keys(outcomes).filter(
      (outcome) => !['done', 'ERR_SIGNED_OUT', 'no_tokens_found', 'no_account_found'].includes(outcome)
    ),
    []
  )
})

t.test("the control: msal-node's own plugin brings purged rows back", { timeout }, async (t) => {
  const database = await createDatabase(t)
  await database.query('create table stock_cache (key text primary key, value text not null)')
  const workers = await startWorkers(t, database, 'stock')
  const count = Math.min(races, 200)
  let undone = 0
  await repeat(count, async () => {
    const person = someone()
    t.equal(await workers.perform({ kind: 'login', person, delayMs: 0 }), 'done')
    const refreshes = Array.from({ length: 5 }, (_, i) =>
      workers.perform({ kind: 'refresh', homeAccountId: person.homeAccountId, scope: `r-${i}`, delayMs: random(8) })
    )
    await delay(random(15))
    await database.query('delete from stock_cache where key = $1', [person.homeAccountId])
    await Promise.all(refreshes)
    const { length } = await database.query('select 1 from stock_cache where key = $1', [person.homeAccountId])
    undone += length
  })
  t.comment(`${count} purges: undone ${undone}`)
  t.ok(undone > 0, 'so the check can fail')
})

t.test('a login that races its own sign-out is never missed, and a later one works', { timeout }, async (t) => {
  const database = await createDatabase(t)
  const workers = await startWorkers(t, database, 'ours')
  let missed = 0
  let refused = 0
  let later = 0
  await repeat(races, async (i) => {
    const person = { ...someone(), issuedAt: now() - 5 }
    const login = workers.perform({ kind: 'login', person, delayMs: random(6) })
    await delay(random(12))
    await signOut(database, i % 2 === 0 ? { sid: person.sid } : { subject: person.subject })
    const outcome = await login
    refused += outcome === 'ERR_SIGNED_OUT' ? 1 : 0
    const isStored = (await stored(database, person)) !== undefined
    missed += isStored ? 1 : 0
    const again = await workers.perform({
      kind: 'login',
      person: { ...person, sid: randomUUID(), issuedAt: now() + 5 },
      delayMs: 0
    })
    const isStoredAgain = (await stored(database, person)) !== undefined
    later += again === 'done' && isStoredAgain ? 1 : 0
  })
  t.comment(
    `${races} logins: missed ${missed}; refused ${refused}, stored and deleted ${races - refused}; later logins ${later}`
  )
  t.equal(missed, 0)
  t.equal(later, races)
  t.ok(refused > 0 && refused < races, 'the sign-out came before and after')
})

t.test("an old session's refresh never touches the row of the next login", { timeout }, async (t) => {
  const database = await createDatabase(t)
  const workers = await startWorkers(t, database, 'ours')
  let touched = 0
  await repeat(races, async () => {
    const person = { ...someone(), issuedAt: now() - 5 }
    const next = { ...person, sid: `next-${randomUUID()}`, issuedAt: now() + 5 }
    await workers.perform({ kind: 'login', person, delayMs: 0 })
    const refreshes = Array.from({ length: 3 }, (_, i) =>
      workers.perform({ kind: 'refresh', homeAccountId: person.homeAccountId, scope: `r-${i}`, delayMs: random(12) })
    )
    await delay(random(6))
    await signOut(database, person)
    t.equal(await workers.perform({ kind: 'login', person: next, delayMs: 0 }), 'done')
    await Promise.all(refreshes)
    const contents: { RefreshToken?: Record<string, { secret: string }> } = JSON.parse(
      (await stored(database, person)) ?? '{}'
    )
    const [refreshToken] = Object.values(contents.RefreshToken ?? {})
    const { sid } = JSON.parse(Buffer.from(refreshToken?.secret ?? '', 'base64url').toString())
    touched += sid === next.sid ? 0 : 1
  })
  t.comment(`${races} next logins: touched ${touched}`)
  t.equal(touched, 0)
})

t.test('concurrent refreshes for different resources in several processes lose no token', { timeout }, async (t) => {
  const database = await createDatabase(t)
  const workers = await startWorkers(t, database, 'ours')
  const resources = 6
  const users = Math.ceil(races / 3)
  let lost = 0
  await repeat(users, async () => {
    const person = someone()
    await workers.perform({ kind: 'login', person, delayMs: 0 })
    await Promise.all(
      Array.from({ length: resources }, (_, i) =>
        workers.perform({ kind: 'refresh', homeAccountId: person.homeAccountId, scope: `r-${i}`, delayMs: random(3) })
      )
    )
    const tokens = Object.keys(JSON.parse((await stored(database, person)) ?? '{}').AccessToken ?? {})
    lost += resources + 1 - tokens.length
  })
  t.comment(`${users} users, ${resources} refreshes each: access tokens lost ${lost}`)
  t.equal(lost, 0)
})

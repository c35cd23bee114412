// Services as processes: one is killed, or stops where it is, in the middle of a round, and another takes over. DIRECTORY_KILLS says
// how often each.
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { createDatabase } from '../fixtures/database.ts'
import { startDirectory, watcherId } from '../fixtures/directory.ts'
import type { FakeCall } from '../fixtures/fake-graph.ts'
import { clientId } from '../fixtures/identity-provider.ts'
import { nowSeconds } from '../fixtures/orders.ts'
import { adminToken } from '../fixtures/secrets.ts'
import { type Server, startServer, temporaryFolder } from '../fixtures/server.ts'
import { storeLogin } from '../fixtures/service.ts'
import { until } from '../fixtures/until.ts'

const killsEach = Number(process.env.DIRECTORY_KILLS ?? 1)
const usersPerKill = 200
const staying = 20
const patience = { withinMs: 60_000, everyMs: 20 }

/** Where in a round it happens: what Graph is asked then for the nth time; undefined: some are signed out, and others not yet. */
const places = [
  { name: 'while it reads changes', part: 'users/delta', nth: 3, sweeps: false },
  { name: 'while it sweeps', part: '$batch', nth: 6, sweeps: true },
  { name: 'while it signs out', part: undefined, nth: 0, sweeps: false },
  { name: 'while it signs out what the sweep has found', part: undefined, nth: 0, sweeps: true }
] as const

for (const { name, signal } of [
  { name: 'is killed', signal: 'SIGKILL' },
  { name: 'is frozen, and wakes when another has taken over', signal: 'SIGSTOP' }
] as const) {
  t.test(
    `a service ${name} in the middle of a round: another goes on, nothing is lost and nothing is done twice`,
    { timeout: 600_000 },
    async (t) => {
      const world = await startProcesses(t)
      const { tenant, count } = world
      const stays = await world.signInMany(staying)
      let holder = await world.start()
      let gone = 0
      for (let round = 0; round < killsEach * places.length; round += 1) {
        const place = places[round % places.length] ?? places[0]
        await world.finishRound()
        const next = await world.start()
        const ids = await world.signInMany(usersPerKill)
        if (place.sweeps) {
          await world.finishRound()
          tenant.lagDelta() // the sweep alone shows it
        }
        ids.forEach(tenant.disable)
        const stop =
          place.part === undefined ? await world.block(ids[0] ?? '', gone) : world.stopAt(place.part, place.nth)
        await world.makeDue(place.sweeps)
        await stop.reached()
        holder.process.kill(signal)
        await stop.goOn()
        const done = (await count('records')) - gone
        t.ok(done < usersPerKill, `${place.name}, after ${done} of ${usersPerKill}`)
        if (signal === 'SIGKILL') {
          await holder.exited
        }
        gone += usersPerKill
        if (round > 0) {
          await world.endLease() // the first one waits for its end
        }
        await until('all are gone', async () => (await count('token_cache')) === staying, patience)
        await until('the other holds the lease', world.isTaken, patience)
        if (signal === 'SIGSTOP') {
          holder.process.kill('SIGCONT')
          await until(
            'it knows that the round is not its own any more',
            () => holder.output.some((line) => line.includes('a round of a directory is put off')),
            patience
          )
          holder.process.kill('SIGTERM')
          t.equal(await holder.exited, 0)
        }
        tenant.replicate()
        await world.finishRound()
        t.equal(await count('records'), gone, 'each has a record')
        t.match(await world.state(), {
          breaker: null,
          delta_failure: null,
          sweep_failure: null,
          watched: String(staying)
        })
        holder = next
      }
      t.same(await world.recordedTwice(), [])
      t.same(await world.keys(), stays)
    }
  )
}

/** A place in a round. */
interface Stop {
  /** Resolves when the round is there. */
  reached(): Promise<unknown>
  goOn(): Promise<void>
}

async function startProcesses(t: Parameters<typeof startServer>[0]) {
  const { graph, tenant, tenantId, config } = await startDirectory(t)
  const database = await createDatabase(t)
  const issuer = config.tenants[0]?.issuer ?? ''
  const issuersFile = join(temporaryFolder(t), 'issuers.json')
  const { credential } = config
  const directory = {
    kind: 'microsoft-graph',
    clientId: watcherId,
    credential: { clientSecretFile: credential.kind === 'secret' ? credential.clientSecretFile : '' },
    pollSeconds: 3_600, // rounds are made when the test asks for them
    sweepSeconds: 3_600,
    maxPercent: 95,
    graphUrl: graph.url,
    authorityUrl: graph.url
  }
  const entry = { name: 'main', issuer, clientIds: [clientId], jwksUri: `${graph.url}/keys`, directory }
  writeFileSync(issuersFile, JSON.stringify({ issuers: [entry] }))
  graph.pageSize = 50
  const query = (text: string, values: unknown[] = []) => database.query<Record<string, string | null>>(text, values)

  async function count(from: string): Promise<number> {
    return Number((await query(`select count(*) as n from msal_logout.${from}`))[0]?.n)
  }

  const world = {
    graph,
    tenant,
    count,
    start: (): Promise<Server> =>
      startServer(t, {
        DATABASE_URL: database.url,
        ISSUERS_FILE: issuersFile,
        ADMIN_TOKEN: adminToken,
        LOG_LEVEL: 'warn'
      }),

    async signInMany(users: number): Promise<string[]> {
      const ids = Array.from({ length: users }, () => tenant.add().id)
      await Promise.all(
        ids.map((id) =>
          storeLogin(database, {
            issuer,
            homeAccountId: `${id}.${tenantId}`,
            subject: `sub-${id}`,
            sid: id,
            oid: id,
            tid: tenantId,
            issuedAt: nowSeconds() - 60
          })
        )
      )
      return ids.sort()
    },

    async makeDue(sweeps: boolean): Promise<void> {
      await query(
        `update msal_logout.directories set due_at = now(), sweep_due_at = case when $1 then now() else sweep_due_at end`,
        [sweeps]
      )
    },

    /** A whole round that begins now, and is good. */
    async finishRound(): Promise<void> {
      await until('a service watches', async () => (await count('directories')) === 1, patience)
      await until(
        'no round is under way',
        async () =>
          (await count('directories where swept_at is not null and due_at > now() and sweep_due_at > now()')) === 1,
        patience
      )
      const [before] = await query('select now() as at')
      await world.makeDue(true)
      await until(
        'a whole round is over',
        async () =>
          (await count(
            `directories where swept_at > '${new Date(before?.at ?? 0).toISOString()}' and sweep_due_at > now() and due_at > now()`
          )) === 1,
        patience
      )
    },

    /** Has Graph not answer from the nth time on that it is asked for that; resolves `reached` then. */
    stopAt(part: string, nth: number): Stop {
      let calls = 0
      let goOn = async () => {}
      const released = new Promise<void>((resolve) => {
        goOn = async () => {
          graph.onRequest = async () => {}
          resolve()
        }
      })
      const isReached = new Promise<void>((resolve) => {
        graph.onRequest = async ({ path }: FakeCall) => {
          calls += path.includes(part) ? 1 : 0
          if (calls >= nth) {
            resolve()
            await released
          }
        }
      })
      return { reached: () => isReached, goOn }
    },

    /** Keeps a user's row from being deleted: the round cannot end before {@link Stop.goOn}. `reached` once others are gone. */
    async block(id: string, recordsBefore: number): Promise<Stop> {
      const client = await database.pool.connect()
      await client.query('begin')
      await client.query('select from msal_logout.token_cache where partition_key = $1 for update', [
        `${id}.${tenantId}`
      ])
      return {
        reached: () =>
          until('others are signed out', async () => (await count('records')) > recordsBefore, { everyMs: 1 }),
        async goOn() {
          await client.query('rollback')
          client.release()
        }
      }
    },

    async endLease(): Promise<void> {
      await query('update msal_logout.directories set held_until = now()')
    },
    isTaken: async () => (await count('directories where held_until > now()')) === 1,

    async state(): Promise<Record<string, string | null> | undefined> {
      return (await query('select breaker, delta_failure, sweep_failure, watched from msal_logout.directories'))[0]
    },

    recordedTwice: () =>
      query('select home_account_id from msal_logout.records group by home_account_id having count(*) > 1'),

    async keys(): Promise<string[]> {
      const rows = await query('select partition_key as key from msal_logout.token_cache order by 1')
      return rows.map(({ key }) => key?.slice(0, 36) ?? '')
    }
  }
  return world
}

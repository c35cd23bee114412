// A process under hostile requests; HOSTILE_RUNS says how many (`npm run test:faults`: 10,000).
import fc from 'fast-check'
import t from 'tap'
import { createAttacker, hostileRequests } from '../fixtures/attacker.ts'
import { noteTries } from '../fixtures/attacks.ts'
import { createDatabase } from '../fixtures/database.ts'
import { clientId, startIdentityProvider } from '../fixtures/identity-provider.ts'
import { startServer } from '../fixtures/server.ts'
import { until } from '../fixtures/until.ts'

const runs = Number(process.env.HOSTILE_RUNS ?? 600)

t.test('hostile requests leave the memory of a process as it was', { timeout: 600_000 }, async (t) => {
  const database = await createDatabase(t)
  const provider = await startIdentityProvider(t)
  // The product need not know: the process is prepared to say what it uses.
  const preparation = `
    process.on('SIGUSR2', () => {
      globalThis.gc()
      process.stdout.write(JSON.stringify({ memory: process.memoryUsage() }) + '\\n')
    })`
  const server = await startServer(
    t,
    { DATABASE_URL: database.url, ISSUER: provider.issuer, CLIENT_IDS: clientId, LOG_LEVEL: 'warn' },
    [process.execPath, '--expose-gc', `--import=data:text/javascript,${encodeURIComponent(preparation)}`]
  )
  const measure = async () => {
    const lines = server.output.length
    server.process.kill('SIGUSR2')
    const line = await until('the process says what it uses', () =>
      server.output.slice(lines).find((entry) => entry.startsWith('{"memory"'))
    )
    return JSON.parse(line).memory as NodeJS.MemoryUsage
  }
  const attack = createAttacker(
    provider.issuer,
    provider.keys[0]?.kid,
    await provider.logoutToken({ sid: 'other' }),
    await provider.logoutToken({ sid: 'victim' })
  )
  const send = async (seed: number) => {
    const requests = fc.sample(hostileRequests, { numRuns: runs, seed }).map(attack)
    const statuses = new Set<number>()
    await Promise.all(
      Array.from({ length: 32 }, async () => {
        for (let next = requests.pop(); next !== undefined; next = requests.pop()) {
          const { url, payload, ...init } = next
          const answer = await server.fetch(`${server.publicUrl}${url}`, {
            ...init,
            ...(init.method === 'POST' ? { body: payload } : {})
          })
          await answer.arrayBuffer()
          statuses.add(answer.status)
        }
      })
    )
    return statuses
  }

  await send(1)
  const first = await measure()
  const statuses = await send(2)
  const second = await measure()
  const megabytes = ({ heapUsed, external, rss }: NodeJS.MemoryUsage) =>
    [heapUsed, external, rss].map((bytes) => (bytes / 2 ** 20).toFixed(1)).join(', ')
  t.comment(`heap, external, resident MB: ${megabytes(first)} after ${runs}, ${megabytes(second)} after ${2 * runs}`)
  t.notOk([...statuses].some((status) => status < 400 || status === 500))
  t.ok(second.heapUsed < first.heapUsed + 3 * 2 ** 20, 'the heap')
  t.ok(second.external < first.external + 2 ** 20, 'what lies beside it')
  t.ok(second.rss < first.rss * 1.1 + 8 * 2 ** 20, 'all of it')
  noteTries('generated hostile requests, at a process whose memory is measured', 2 * runs)
})

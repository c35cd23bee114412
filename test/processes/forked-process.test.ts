// The first process's side of a process that it has forked.
import cluster from 'node:cluster'
import { once } from 'node:events'
import { writeFileSync } from 'node:fs'
import { connect } from 'node:net'
import { join } from 'node:path'
import t from 'tap'
import { freePort } from '../../src/embedded-postgres.ts'
import { forkProcess } from '../../src/forked-process.ts'
import { temporaryFolder } from '../fixtures/server.ts'

t.test('the connections that a process is being given when it dies are closed, of every listener', async (t) => {
  // As HOST=localhost has them, where it is ::1 and 127.0.0.1.
  const listeners = await Promise.all(
    ['127.0.0.1', '127.0.0.2', '127.0.0.3'].map(async (host) => ({ host, port: await freePort() }))
  )
  const script = join(temporaryFolder(t), 'worker.mjs')
  writeFileSync(
    script,
    `import { createServer } from 'node:net'
    import { once } from 'node:events'
    for (const listener of ${JSON.stringify(listeners)}) {
      await once(createServer(() => {}).listen(listener), 'listening')
    }
    process.send({ kind: 'tell', name: 'ready' })`
  )
  cluster.schedulingPolicy = cluster.SCHED_RR
  cluster.setupPrimary({ exec: script, execArgv: [] })
  const child = forkProcess('worker', { remember: () => {}, others: () => [], serving: () => 1 } as never)
  await child.ready
  process.kill(child.pid ?? 0, 'SIGSTOP') // it takes nothing any more
  const clients = listeners.map((listener) => connect(listener))
  t.teardown(() => {
    for (const client of clients) {
      client.destroy()
    }
  })
  await Promise.all(clients.map((client) => once(client, 'connect')))
  const closed = Promise.all(clients.map((client) => once(client.on('error', () => {}).resume(), 'close')))
  // Each is accepted by this process, in whose event loop the test is, before the child is dead.
  await new Promise((resolve) => setImmediate(() => setImmediate(resolve)))
  child.kill()
  const { signal } = await child.exited
  t.equal(signal, 'SIGKILL')
  t.equal((await closed).length, listeners.length)
})

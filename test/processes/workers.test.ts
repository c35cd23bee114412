// The service as several processes: WORKERS.
import { once } from 'node:events'
import { readFileSync, writeFileSync } from 'node:fs'
import { request } from 'node:http'
import { createServer } from 'node:net'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import t, { type Test } from 'tap'
import { freePort } from '../../src/embedded-postgres.ts'
import { createDatabase, type Database } from '../fixtures/database.ts'
import { startDirectory } from '../fixtures/directory.ts'
import { clientId, type IdentityProvider, startIdentityProvider } from '../fixtures/identity-provider.ts'
import { startProxy } from '../fixtures/proxy.ts'
import { runServer, type Server, startServer, temporaryFolder } from '../fixtures/server.ts'
import { storeLogin } from '../fixtures/service.ts'
import { until } from '../fixtures/until.ts'

const adminToken = 'x'.repeat(40)
const timeout = 300_000

interface Instance extends Server {
  /** The processes that run now. */
  pids(): { first: number; background: number; workers: number[] }
  lines(message: string): Record<string, unknown>[]
  /** On a connection of its own, which goes to the next worker. Its status; 0: it broke; -1: it hangs. */
  post(token: string): Promise<number>
  operate(path: string): Promise<Response>
  /** The values of a counter or gauge, summed over what `labels` does not name. */
  metric(name: string, labels?: string): Promise<number>
}

async function start(t: Test, env: Record<string, string>): Promise<Instance> {
  const server = await startServer(t, { WORKERS: '2', CLIENT_IDS: clientId, ADMIN_TOKEN: adminToken, ...env })
  const lines = linesOf(server)
  await until('it has started', () => lines('started').length === 1)
  return {
    ...server,
    lines,
    pids() {
      const { pid, processes } = lines('started')[0] as {
        pid: number
        processes: { background: number; workers: number[] }
      }
      let { background } = processes
      const workers = [...processes.workers]
      for (const { process, pid } of lines('a process was started anew') as { process: string; pid: number }[]) {
        if (process === 'background') {
          background = pid
        } else {
          workers[Number(process.replace('worker ', '')) - 1] = pid
        }
      }
      return { first: pid, background, workers }
    },
    post: (token) => postTo(server.publicUrl, token),
    operate: (path) =>
      server.fetch(`${server.adminUrl}${path}`, { headers: { authorization: `Bearer ${adminToken}` } }),
    async metric(name, labels = '') {
      const text = await (await server.fetch(`${server.adminUrl}/metrics`)).text()
      return [...series(text)]
        .filter(([key]) => key.startsWith(`${name}{`) && labels.split(',').every((label) => key.includes(label)))
        .reduce((sum, [, value]) => sum + value, 0)
    }
  }
}

const linesOf =
  ({ output }: Pick<Server, 'output'>) =>
  (message: string): Record<string, unknown>[] =>
    output.filter((line) => line.includes(`"msg":"${message}"`)).map((line) => JSON.parse(line))

/** By name and labels. */
function series(text: string): Map<string, number> {
  const found = text.split('\n').filter((line) => line !== '' && !line.startsWith('#'))
  return new Map(
    found.map((line) => {
      const end = line.lastIndexOf(' ')
      return [line.slice(0, end), Number(line.slice(end + 1))]
    })
  )
}

function postTo(url: string, token: string): Promise<number> {
  return new Promise((resolve) => {
    const headers = { 'content-type': 'application/x-www-form-urlencoded' }
    const posted = request(`${url}/backchannel-logout`, { method: 'POST', headers, agent: false }, (answer) => {
      answer.resume().on('end', () => resolve(answer.statusCode ?? 0))
      answer.on('error', () => resolve(0))
    })
    posted.setTimeout(20_000, () => resolve(-1))
    posted.on('error', () => resolve(0)).end(new URLSearchParams({ logout_token: token }).toString())
  })
}

const isThere = (pid: number): boolean => {
  try {
    process.kill(pid, 0)
    return true
  } catch {
    return false
  }
}

const childrenOf = (pid: number): number[] =>
  readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').trim().split(' ').filter(Boolean).map(Number)

const allOf = ({ first, background, workers }: ReturnType<Instance['pids']>) => [first, background, ...workers]

async function login(database: Database, provider: IdentityProvider, sids: readonly string[]): Promise<string[]> {
  await Promise.all(sids.map((sid) => storeLogin(database, { issuer: provider.issuer, sid })))
  return Promise.all(sids.map((sid) => provider.logoutToken({ sid })))
}

const rowsOf = async (database: Database) =>
  (await database.query<{ sid: string }>('select s.sid from msal_logout.sessions s')).map(({ sid }) => sid)

t.test('several processes are one service: one start, one readiness, sums, and one end', { timeout }, async (t) => {
  const database = await createDatabase(t)
  const provider = await startIdentityProvider(t)
  const instance = await start(t, { DATABASE_URL: database.url, ISSUER: provider.issuer, WORKERS: '3' })
  const { first, background, workers } = instance.pids()
  t.equal(new Set([first, background, ...workers]).size, 5)
  t.equal(instance.output.filter((line) => line.includes('Server listening')).length, 2, 'each port is logged once')
  t.match(await (await instance.operate('/readyz')).json(), { status: 'ok' })
  t.equal((await fetch(`${instance.publicUrl}/readyz`)).status, 404, 'no worker has what is the operators’')

  const tokens = await login(database, provider, ['s1', 's2', 's3', 's4', 's5', 's6'])
  for (const token of tokens) {
    t.equal(await instance.post(token), 200)
  }
  const serving = new Set(instance.lines('signed out').map(({ pid }) => pid))
  t.same([...serving].sort(), [...workers].sort(), 'each worker has done its part')
  t.same(await rowsOf(database), [])
  for (let i = 0; i < 6; i++) {
    t.equal(await instance.post('x'), 400)
  }
  t.equal(await instance.metric('msal_logout_signals_total', 'outcome="done"'), 6)
  t.equal(await instance.metric('msal_logout_signals_total', 'reason="ERR_TOKEN_MALFORMED"'), 6)
  t.equal(await instance.metric('msal_logout_workers', 'state="serving"'), 3)
  t.ok((await instance.metric('msal_logout_key_fetches_total', 'outcome="done"')) >= 4, 'each process fetches its own')
  await until('operators see what each has rejected', async () => {
    const { rejections } = (await (await instance.operate('/admin/rejections')).json()) as { rejections: object[] }
    return rejections.length === 6
  })
  const { signals } = (await (await instance.operate('/admin/signals')).json()) as {
    signals: { position: number; orders: { rowsByClient: object }[] }[]
  }
  t.same(
    signals.map(({ position }) => position),
    [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]
  )
  t.same(signals[0]?.orders[0]?.rowsByClient, { [clientId]: 1 })

  process.kill(workers[0] ?? 0, 'SIGTERM')
  process.kill(background, 'SIGHUP')
  t.equal(await instance.post('x'), 400, 'one alone does not act on a signal')
  instance.process.kill('SIGTERM')
  t.equal(await instance.exited, 0)
  t.notOk([first, background, ...workers].some(isThere), 'none is left')
  t.same(instance.lines('stopping').length, 1)
  t.notMatch(instance.output.join('\n'), /"level":"(error|fatal)"/)
})

t.test('with one worker, the default, nothing is forked', { timeout }, async (t) => {
  const database = await createDatabase(t)
  const server = await startServer(t, {
    DATABASE_URL: database.url,
    ISSUER: 'https://issuer.example',
    CLIENT_IDS: clientId,
    WORKERS: '1'
  })
  const [started] = await until('it has started', () => {
    const found = linesOf(server)('started')
    return found.length > 0 && found
  })
  t.equal(started?.pid, server.process.pid)
  t.notOk('processes' in (started ?? {}))
  t.notMatch(await (await server.fetch(`${server.adminUrl}/metrics`)).text(), /msal_logout_workers/)
})

t.test(
  'kill -9 of one process after the other: no counter goes back, and what was answered is done',
  { timeout },
  async (t) => {
    const database = await createDatabase(t)
    const provider = await startIdentityProvider(t)
    const instance = await start(t, { DATABASE_URL: database.url, ISSUER: provider.issuer })
    const sids = Array.from({ length: 240 }, (_, i) => `s${i}`)
    const tokens = await login(database, provider, sids)
    const answers = new Map<string, number>()
    let isOver = false
    let next = 0
    async function send(): Promise<void> {
      while (!isOver && next < tokens.length) {
        const i = next++
        answers.set(sids[i] ?? '', await instance.post(tokens[i] ?? ''))
        await delay(40)
      }
    }
    const senders = Array.from({ length: 4 }, send)

    const counted = async () => {
      const text = await until('the operators’ listener answers', async () => {
        const answer = await instance.fetch(`${instance.adminUrl}/metrics`).catch(() => undefined)
        return answer?.status === 200 && answer.text()
      })
      const counters = new Set([...text.matchAll(/^# TYPE (\S+) (?:counter|histogram)$/gm)].map(([, name]) => name))
      return new Map(
        [...series(text)].filter(
          ([key]) =>
            counters.has(key.replace(/\{.*$/, '').replace(/_(bucket|sum|count)$/, '')) ||
            counters.has(key.replace(/\{.*$/, ''))
        )
      )
    }
    let before = await counted()
    for (const victim of ['worker 1', 'background', 'worker 2'] as const) {
      const { background, workers } = instance.pids()
      process.kill(victim === 'background' ? background : (workers[Number(victim.at(-1)) - 1] ?? 0), 'SIGKILL')
      await until(
        `${victim} is started anew`,
        async () => {
          const now = await counted()
          const gone = [...before].filter(([key, value]) => (now.get(key) ?? -1) < value)
          t.same(gone, [], `${victim}: none goes back`)
          before = now
          return instance.lines('a process was started anew').some(({ process }) => process === victim)
        },
        { everyMs: 100 }
      )
    }
    t.equal(await instance.metric('msal_logout_process_ends_total', 'process="worker"'), 2)
    t.equal(await instance.metric('msal_logout_process_ends_total', 'process="background"'), 1)
    isOver = true
    await Promise.all(senders)
    t.notOk([...answers.values()].includes(-1), 'no connection hangs')
    const left = new Set(await rowsOf(database))
    const done = [...answers].filter(([, status]) => status === 200).map(([sid]) => sid)
    t.same(
      done.filter((sid) => left.has(sid)),
      [],
      'what was answered 200 is gone'
    )
    t.ok(
      done.length > answers.size - 15,
      `${answers.size - done.length} of ${answers.size} connections broke with their worker`
    )
    t.match(instance.lines('a process ended'), [
      { process: 'worker 1', signal: 'SIGKILL', level: 'error' },
      { process: 'background' },
      { process: 'worker 2' }
    ])
    instance.process.kill('SIGTERM')
    t.equal(await instance.exited, 0)
  }
)

t.test('a process that ends again and again is started anew after pauses that grow', { timeout }, async (t) => {
  const database = await createDatabase(t)
  const instance = await start(t, { DATABASE_URL: database.url, ISSUER: 'https://issuer.example' })
  for (let ends = 1; ends <= 4; ends++) {
    process.kill(instance.pids().workers[1] ?? 0, 'SIGKILL')
    await until('it is back', () => instance.lines('a process was started anew').length === ends)
    t.equal((await instance.operate('/readyz')).status, 200, 'the other one serves')
  }
  t.same(
    instance.lines('a process ended').map(({ restartInMs }) => restartInMs),
    [0, 500, 1_000, 2_000]
  )
})

t.test('without a worker it is not ready', { timeout }, async (t) => {
  const database = await createDatabase(t)
  const instance = await start(t, { DATABASE_URL: database.url, ISSUER: 'https://issuer.example' })
  for (const pid of instance.pids().workers) {
    process.kill(pid, 'SIGKILL')
  }
  await until('both have ended', () => instance.lines('a process ended').length === 2)
  const answer = await instance.operate('/readyz')
  t.equal(answer.status, 503)
  t.match(await answer.json(), { reason: 'ERR_WORKERS' })
  t.equal(await instance.metric('msal_logout_workers', 'state="missing"'), 2)
  await until('it is ready again', async () => (await instance.operate('/readyz')).status === 200)
})

t.test(
  'kill -9 of the first process ends all, loses nothing that was answered, and frees the ports',
  { timeout },
  async (t) => {
    const database = await createDatabase(t)
    const provider = await startIdentityProvider(t)
    const env = {
      DATABASE_URL: database.url,
      ISSUER: provider.issuer,
      PORT: String(await freePort()),
      ADMIN_PORT: String(await freePort())
    }
    const instance = await start(t, env)
    const sids = Array.from({ length: 200 }, (_, i) => `s${i}`)
    const tokens = await login(database, provider, sids)
    const pids = instance.pids()
    const sent = tokens.map(async (token, i) => {
      await delay(i)
      return instance.post(token)
    })
    await Promise.race(sent)
    instance.process.kill('SIGKILL')
    const answers = await Promise.all(sent)
    t.ok(answers.includes(200))
    await until('no process is left', () => !allOf(pids).some(isThere))
    const left = new Set(await rowsOf(database))
    t.same(
      sids.filter((sid, i) => answers[i] === 200 && left.has(sid)),
      []
    )
    const again = await start(t, env)
    for (const [i, token] of tokens.entries()) {
      if (answers[i] !== 200) {
        t.equal(await again.post(token), 200, sids[i] ?? '')
      }
    }
    t.same(await rowsOf(database), [])
  }
)

t.test('a second signal ends them all at once, also with a request open', { timeout }, async (t) => {
  const database = await createDatabase(t)
  const instance = await start(t, { DATABASE_URL: database.url, ISSUER: 'https://issuer.example', DRAIN_SECONDS: '60' })
  const pids = instance.pids()
  instance.process.kill('SIGTERM')
  await until('it is not ready', async () => (await instance.operate('/readyz')).status === 503)
  t.match(await (await instance.operate('/readyz')).json(), { reason: 'ERR_STOPPING' })
  t.equal((await fetch(`${instance.publicUrl}/healthz`)).headers.get('connection'), 'close', 'it drains, and serves')
  instance.process.kill('SIGTERM')
  t.equal(await instance.exited, 1)
  await until('no process is left', () => !allOf(pids).some(isThere))
})

t.test('SIGHUP reaches every process, or none', { timeout }, async (t) => {
  const database = await createDatabase(t)
  const other = await createDatabase(t, { own: true })
  const provider = await startIdentityProvider(t)
  const folder = temporaryFolder(t)
  const [issuersFile, urlFile] = [join(folder, 'issuers.json'), join(folder, 'database')]
  const write = (clientIds: string[], databaseUrl = database.url) => {
    writeFileSync(issuersFile, JSON.stringify({ issuers: [{ name: 'one', issuer: provider.issuer, clientIds }] }))
    writeFileSync(urlFile, databaseUrl)
  }
  write(['a'])
  const { CLIENT_IDS: _, ...env } = { CLIENT_IDS: '', DATABASE_URL_FILE: urlFile, ISSUERS_FILE: issuersFile }
  const instance = await start(t, { ...env, CLIENT_IDS: '' })
  /** What six connections, three to each worker, are answered. */
  const answersTo = async (aud: string) => {
    const tokens = await Promise.all([1, 2, 3, 4, 5, 6].map(() => provider.logoutToken({ sid: 's', aud })))
    return new Set(await Promise.all(tokens.map(instance.post)))
  }
  t.same([...(await answersTo('a'))], [200])
  t.same([...(await answersTo('b'))], [400])

  write(['b'])
  instance.process.kill('SIGHUP')
  const read = await until('it is read', () => instance.lines('configuration read again')[0])
  t.match(read, { issuers: { changed: ['one'] }, isDatabaseUrlNew: false })
  t.same([...(await answersTo('b'))], [200], 'every worker has it')
  t.same([...(await answersTo('a'))], [400])

  const declined = async (count: number) =>
    until('it is declined', () => {
      const found = instance.lines('configuration not read again: all stays as it was')
      return found.length === count && found.at(-1)
    })
  write(['c'], `postgres://nobody@127.0.0.1:${await freePort()}/none`)
  instance.process.kill('SIGHUP')
  t.match(await declined(1), { level: 'error', code: 'ERR_DATABASE_UNAVAILABLE' })
  t.same([...(await answersTo('b'))], [200], 'no worker has any of it')
  writeFileSync(issuersFile, '{')
  instance.process.kill('SIGHUP')
  t.match(await declined(2), { problems: [/^ISSUERS_FILE: is not JSON/] })

  for (const pid of instance.pids().workers) {
    process.kill(pid, 'SIGKILL')
  }
  await until('they are back', () => instance.lines('a process was started anew').length === 2)
  t.same([...(await answersTo('b'))], [200], 'what is started anew has what is in force, not what lies in the files')
  t.equal(instance.lines('configuration read again').length, 1)

  write(['b'], other.url)
  instance.process.kill('SIGHUP')
  const turned = await until('it is read', () => instance.lines('configuration read again')[1])
  t.match(turned, { isDatabaseUrlNew: true })
  const { workers, background } = instance.pids()
  for (const pid of [...workers, background]) {
    process.kill(pid, 'SIGKILL')
  }
  await until('they are back', () => instance.lines('a process was started anew').length === 5)
  const sids = ['s1', 's2', 's3', 's4']
  await Promise.all(
    [database, other].flatMap((one) => sids.map((sid) => storeLogin(one, { issuer: provider.issuer, sid })))
  )
  for (const sid of sids) {
    t.equal(await instance.post(await provider.logoutToken({ sid, aud: 'b' })), 200)
  }
  t.same(await rowsOf(other), [], 'what is started anew asks the database that is in force')
  t.equal((await rowsOf(database)).length, 4)
})

t.test('one that ends while the others begin ends them all', { timeout }, async (t) => {
  const database = await createDatabase(t)
  const {
    output,
    exited,
    process: first
  } = runServer(t, {
    HOST: '127.0.0.1',
    PORT: String(await freePort()),
    ADMIN_PORT: String(await freePort()),
    DATABASE_URL: database.url,
    ISSUER: 'https://issuer.example',
    CLIENT_IDS: clientId,
    SPOOL_DIR: temporaryFolder(t),
    WORKERS: '3'
  })
  const children = await until('they are forked', () => {
    const found = childrenOf(first.pid ?? 0)
    return found.length === 4 && found
  })
  process.kill(children[2] ?? 0, 'SIGKILL')
  t.equal(await exited, 1)
  t.match(output.join('\n'), /"worker 2" has ended before/)
  await until('none is left', () => !children.some(isThere))
})

t.test('what is wrong at the start ends it as it ends one process', { timeout }, async (t) => {
  const database = await createDatabase(t)
  const blocker = createServer().listen(0, '127.0.0.1')
  await once(blocker, 'listening')
  t.teardown(() => blocker.close())
  const taken = String((blocker.address() as { port: number }).port)
  const env = {
    HOST: '127.0.0.1',
    DATABASE_URL: database.url,
    ISSUER: 'https://issuer.example',
    CLIENT_IDS: clientId,
    SPOOL_DIR: temporaryFolder(t)
  }
  const told = async (changes: Record<string, string>) => {
    const { output, exited } = runServer(t, { ...env, ...changes })
    const code = await exited
    return { code, errors: output.filter((line) => !line.startsWith('{')) }
  }
  const free = String(await freePort())
  for (const ports of [
    { PORT: taken, ADMIN_PORT: free },
    { PORT: free, ADMIN_PORT: taken }
  ]) {
    const one = await told({ ...ports, WORKERS: '1' })
    t.match(one.errors, [/EADDRINUSE.*set PORT or ADMIN_PORT to one that is free/])
    t.same(await told({ ...ports, WORKERS: '3' }), one)
  }
  const unknown = { DATABASE_URL: `postgres://nobody@127.0.0.1:${free}/none` }
  t.same(await told({ ...unknown, WORKERS: '3' }), await told({ ...unknown, WORKERS: '1' }))
  for (const WORKERS of ['0', 'auto']) {
    const { code, errors } = await told({ WORKERS })
    t.equal(code, 1)
    t.match(errors.join('\n'), /WORKERS: must be a number of processes, 1 to 64/, WORKERS)
  }
})

t.test(
  'what was deferred by any is done once, by the process in the background, and by the next one if that ends',
  { timeout },
  async (t) => {
    const database = await createDatabase(t)
    const provider = await startIdentityProvider(t)
    const proxy = await startProxy(t, database.url)
    const url = new URL(database.url)
    url.port = String(proxy.port)
    const spool = temporaryFolder(t)
    const instance = await start(t, { DATABASE_URL: url.href, ISSUER: provider.issuer, SPOOL_DIR: spool })
    const sids = Array.from({ length: 30 }, (_, i) => `s${i}`)
    const tokens = await login(database, provider, sids)
    t.equal(await instance.post(await provider.logoutToken({ sid: 'none' })), 200, 'the keys are at hand')
    for (let i = 0; i < 4; i++) {
      await instance.post(await provider.logoutToken({ sid: 'none' }))
    }
    proxy.set('cut')
    t.same([...new Set(await Promise.all(tokens.map(instance.post)))], [503])
    const deferring = new Set(instance.lines('deferred').map(({ pid }) => pid))
    t.equal(deferring.size, 2, 'each worker has deferred')
    await until('operators see it', async () => {
      const { verified } = (await (await instance.operate('/admin/spool')).json()) as { verified: number }
      return verified === 30
    })
    process.kill(instance.pids().background, 'SIGKILL')
    await until('the next one is there', () => instance.lines('a process was started anew').length === 1)
    proxy.set('open')
    await until('all is done', async () => (await rowsOf(database)).length === 0)
    await until(
      'nothing is deferred',
      async () => (await instance.metric('msal_logout_spool_depth', 'kind="verified"')) === 0
    )
    t.equal(await instance.metric('msal_logout_retries_total', 'outcome="done"'), 30, 'each once')
    const retried = instance.lines('signed out').filter(({ isRetry }) => isRetry === true)
    t.same([...new Set(retried.map(({ pid }) => pid))], [instance.pids().background])
    t.equal(retried.length, 30)
  }
)

t.test('one process alone watches a directory', { timeout }, async (t) => {
  const database = await createDatabase(t)
  const { graph, tenantId, config } = await startDirectory(t)
  const { clientId: watcher, credential } = config
  const file = join(temporaryFolder(t), 'issuers.json')
  const issuer = `https://login.microsoftonline.com/${tenantId}/v2.0`
  const directory = {
    kind: 'microsoft-graph',
    clientId: watcher,
    credential: { clientSecretFile: credential.kind === 'secret' ? credential.clientSecretFile : '' },
    graphUrl: graph.url,
    authorityUrl: graph.url,
    pollSeconds: 1
  }
  writeFileSync(file, JSON.stringify({ issuers: [{ name: 'one', issuer, clientIds: ['a'], directory }] }))
  const instance = await start(t, { DATABASE_URL: database.url, ISSUERS_FILE: file, CLIENT_IDS: '' })
  await until('it was polled some times', () => graph.calls.filter(({ path }) => path.includes('delta')).length > 3)
  t.equal(graph.tokensGiven, 1, 'a second one that asks would have a token of its own')
  const holders = await database.query('select distinct holder from msal_logout.directories')
  t.equal(holders.length, 1)
  instance.process.kill('SIGTERM')
  t.equal(await instance.exited, 0)
})

t.test(
  'two workers that end the same account at once: each token is done once, and none fails',
  { timeout },
  async (t) => {
    const database = await createDatabase(t)
    const provider = await startIdentityProvider(t)
    const instance = await start(t, { DATABASE_URL: database.url, ISSUER: provider.issuer })
    const accounts = Array.from({ length: 40 }, (_, i) => i)
    await Promise.all(
      accounts.map((i) =>
        storeLogin(database, { issuer: provider.issuer, sid: `a${i}`, homeAccountId: `u${i}.t`, subject: `u${i}` })
      )
    )
    await database.query(
      `select msal_logout.add_session($1, 'u' || i || '.t', $2, 'b' || i, 'u' || i, extract(epoch from now())::bigint - 60)
     from generate_series(0, 39) i`,
      [clientId, provider.issuer]
    )
    const tokens = await Promise.all(
      accounts.flatMap((i) => [`a${i}`, `b${i}`].map((sid) => provider.logoutToken({ sid, sub: `u${i}` })))
    )
    // Each token three times, on connections of their own.
    const answers = await Promise.all([...tokens, ...tokens, ...tokens].map(instance.post))
    t.same([...new Set(answers)], [200])
    t.same(await rowsOf(database), [])
    // One of several in one batch is answered with the others; no more than one has done anything.
    const [done] = await database.query<{ records: string; rows: string; sessions: string }>(
      'select count(*) as records, sum(rows) as rows, sum(sessions) as sessions from msal_logout.records'
    )
    t.same(done, { records: String(tokens.length), rows: '40', sessions: '80' })
    t.equal(
      await instance.metric('msal_logout_signals_total', 'source="backchannel",issuer="default"'),
      3 * tokens.length
    )
    t.notMatch(instance.output.join('\n'), /"level":"(error|fatal)"/)
  }
)

t.test('a sender of invalid tokens has no more of several processes than of one', { timeout }, async (t) => {
  const database = await createDatabase(t)
  const provider = await startIdentityProvider(t)
  const instance = await start(t, { DATABASE_URL: database.url, ISSUER: provider.issuer })
  const begunAt = performance.now()
  const answers: number[] = []
  for (let i = 0; i < 150; i++) {
    answers.push(await instance.post('x'))
  }
  const seconds = Math.ceil((performance.now() - begunAt) / 1_000)
  const judged = answers.filter((status) => status === 400).length
  t.ok(judged >= 50 && judged <= 60 + seconds + 2, `${judged} of 150 were not limited`)
  t.ok(answers.includes(429))
  const [token = ''] = await login(database, provider, ['s'])
  t.equal(await instance.post(token), 200, 'what is valid is never limited')
})

t.test('a process whose event loop stands still is ended, and another one takes its place', { timeout }, async (t) => {
  const database = await createDatabase(t)
  const instance = await start(t, { DATABASE_URL: database.url, ISSUER: 'https://issuer.example' })
  const [victim = 0] = instance.pids().workers
  process.kill(victim, 'SIGSTOP')
  await until('it is ended', () => instance.lines('a process does not answer, and is ended').length === 1, {
    withinMs: 90_000
  })
  await until('another one is there', () => instance.lines('a process was started anew').length === 1)
  t.notOk(isThere(victim))
})

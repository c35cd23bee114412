// A new kind of signal is one file (test/fixtures/made-up-signal.ts) and one line of wiring: nothing else knows its name.
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { createPool } from '../src/database.ts'
import { serverUrl } from './fixtures/database.ts'
import { paperNotes } from './fixtures/made-up-signal.ts'
import { startProxy } from './fixtures/proxy.ts'
import { build } from './fixtures/service.ts'
import { until } from './fixtures/until.ts'

t.test('a made-up signal is received, deferred, retried, counted, recorded and shown', async (t) => {
  const proxy = await startProxy(t, serverUrl())
  const service = await build(t, {
    edges: {
      routes: () => [{ method: 'POST', url: '/paper-notes', signal: paperNotes, input: ({ body }) => body }]
    },
    openPool(databaseUrl, options) {
      const url = new URL(databaseUrl)
      url.host = `127.0.0.1:${proxy.port}`
      return createPool({ ...options, connectionString: url.href })
    }
  })
  const { issuer } = service.provider
  const send = (note: string, stamp = 'valid') =>
    service.app.inject({
      method: 'POST',
      url: '/paper-notes',
      headers: { 'content-type': 'application/x-www-form-urlencoded' },
      payload: new URLSearchParams({ note: `${issuer} ${note}`, stamp }).toString()
    })
  const counted = async (name: string, outcome: string, reason = '') => {
    const line = `msal_logout_${name}{source="paper-note",issuer="main",outcome="${outcome}",reason="${reason}"} `
    const found = (await service.metrics.text()).split('\n').find((each) => each.startsWith(line))
    return Number(found?.slice(line.length) ?? 0)
  }
  await service.login({ homeAccountId: 'u.t', sid: 's1' })
  await service.login({ homeAccountId: 'v.t', sid: 's2' })

  t.equal((await send('s1')).statusCode, 200, 'received')
  t.same(await service.rows(), ['client-a/v.t'])
  t.equal((await send('s1')).statusCode, 200, 'a duplicate is success')
  t.same([await counted('signals_total', 'done'), await counted('signals_total', 'duplicate')], [1, 1])
  t.equal((await send('s1', 'forged')).statusCode, 400, 'rejected')
  t.equal(await counted('signals_total', 'rejected', 'ERR_TOKEN_SIGNATURE'), 1)

  proxy.set('cut')
  t.equal((await send('s2')).statusCode, 503, 'deferred')
  t.equal((await send('s2')).statusCode, 503)
  t.equal((await service.spool.list(10)).length, 1, 'as one file')
  proxy.set('open')
  service.retry()
  await until('it is retried and counted', async () => (await counted('retries_total', 'done')) === 1)
  t.same(await service.rows(), [])

  const records = (await service.operate('GET', '/admin/records?source=paper-note')).json()
  t.match(records, {
    records: [
      { source: 'paper-note', sid: 's2', rows: 1 },
      { source: 'paper-note', sid: 's1', rows: 1 }
    ]
  })
  const { minutes } = (await service.operate('GET', '/admin/stats?minutes=5')).json() as {
    minutes: { bySource: Record<string, number> }[]
  }
  t.equal(
    minutes.reduce((sum, { bySource }) => sum + (bySource['paper-note'] ?? 0), 0),
    2,
    'shown on the plot'
  )
  const rejections = (await service.operate('GET', '/admin/rejections')).json()
  t.match(rejections, { rejections: [{ source: 'paper-note', issuer: 'main', code: 'ERR_TOKEN_SIGNATURE' }] })
})

t.test('no source is named but in its own file, and where the public listener is wired', async (t) => {
  const folders = ['src', 'src/http', 'src/commands', 'sql', 'migrations', 'page']
  for (const folder of folders) {
    for (const name of readdirSync(folder).filter((file) => /\.(ts|js|sql)$/.test(file))) {
      if (join(folder, name) !== 'src/http/app.ts' && join(folder, name) !== 'src/service.ts') {
        t.notMatch(
          readFileSync(join(folder, name), 'utf8'),
          /['"`](backchannel|frontchannel)['"`]/,
          `${folder}/${name} names no signal`
        )
      }
    }
  }
})

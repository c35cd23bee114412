// `msal-logout stream …`, and what `check` finds of streams.
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { check } from '../../src/commands/check.ts'
import { type CallOptions, call } from '../fixtures/command-line.ts'
import { adminToken } from '../fixtures/service.ts'
import { startStreamWorld } from '../fixtures/stream-world.ts'
import { clientId, clientSecret, paths, startTransmitter } from '../fixtures/transmitter.ts'

async function setUp(t: Test) {
  const world = await startStreamWorld(t)
  await world.round()
  const env = {
    ADMIN_TOKEN: adminToken,
    ADMIN_URL: await world.service.admin.listen({ host: '127.0.0.1', port: 0 })
  }
  return { ...world, run: (args: string[], options?: CallOptions) => call(t, ['stream', ...args], { env, ...options }) }
}

t.test('stream list shows how each is', async (t) => {
  const { run, round, transmitter, state } = await setUp(t)
  await round()
  const { code, stdout, stderr } = await run(['list'])
  t.equal(code, 0, stderr)
  t.match(stdout, new RegExp(`^signals, by poll from ${transmitter.issuer}\n`))
  t.match(stdout, / {2}status +enabled\n/)
  t.match(stdout, new RegExp(` {2}stream id +${(await state()).streamId}\n`))
  t.match(stdout, / {2}last verified +20/)
  const json = JSON.parse((await run(['list', '--json'])).stdout)
  t.match(json, { streams: [{ name: 'signals', status: 'enabled', failure: null }] })
  transmitter.faults.set(paths.poll, 500)
  await round()
  t.match((await run(['list'])).stdout, / {2}failed +ERR_STREAM_UNREACHABLE \(HTTP 500\) since 20.*, once\n/)
})

t.test('stream pause and delete ask; the others do at once', async (t) => {
  const { run, transmitter } = await setUp(t)
  const [stream] = transmitter.streams.values()
  for (const action of ['pause', 'delete']) {
    const no = await run([action, 'signals'], { answer: 'n' })
    t.equal(no.code, 2)
    t.match(no.stderr, /signals, by poll.*\? \[y\/N\] error: nothing was done/s)
    t.match((await run([action, 'signals'])).stderr, /nobody can be asked without a terminal.*add --yes/)
  }
  t.equal(stream?.status, 'enabled')
  const paused = await run(['pause', 'signals'], { answer: 'y' })
  t.match(paused, { code: 0, stdout: /^paused: .*paused by an operator/s })
  t.equal(stream?.status, 'paused')
  t.match(await run(['resume', 'signals', '--json']), {
    code: 0,
    stdout: /^{"outcome":"done","action":"resume","stream":{/
  })
  t.equal(stream?.status, 'enabled')
  t.match(await run(['verify', 'signals']), { code: 0, stdout: /was asked to show/ })
  t.match(await run(['delete', 'signals', '--yes']), { code: 0 })
  t.equal(transmitter.streams.size, 0)
  t.match(await run(['create', 'signals']), { code: 0 })
  t.equal(transmitter.streams.size, 1)
})

t.test('what cannot be done says why', async (t) => {
  const { run, transmitter } = await setUp(t)
  t.match(await run(['verify', 'nobody']), { code: 3, stderr: /no stream is called "nobody": configured are signals/ })
  transmitter.faults.set(paths.verify, 403)
  t.match(await run(['verify', 'signals']), {
    code: 1,
    stderr: /may not manage or read the stream \(ERR_STREAM_FORBIDDEN/
  })
  t.match(JSON.parse((await run(['verify', 'signals', '--json'])).stdout), {
    outcome: 'failed',
    code: 'transmitter_failed'
  })
  t.match(await run(['restart', 'signals']), { code: 2 })
})

t.test('check asks the transmitter, makes nothing, and says what to do', async (t) => {
  const transmitter = await startTransmitter(t)
  const folder = mkdtempSync(join(tmpdir(), 'msal-logout-check-stream-'))
  t.teardown(() => rmSync(folder, { recursive: true }))
  const secret = join(folder, 'secret')
  writeFileSync(secret, clientSecret)
  const file = join(folder, 'issuers.json')
  const found = async () => {
    writeFileSync(
      file,
      JSON.stringify({
        issuers: [
          { name: 'main', issuer: transmitter.issuer, jwksUri: `${transmitter.origin}/jwks`, clientIds: ['a'] }
        ],
        streams: [
          {
            name: 'signals',
            issuer: transmitter.issuer,
            credential: { tokenUrl: `${transmitter.origin}/token`, clientId, clientSecretFile: secret }
          }
        ]
      })
    )
    const findings = await check({ env: { ISSUERS_FILE: file, SPOOL_DIR: join(folder, 'spool') }, fetchTimeoutMs: 500 })
    return findings.filter((finding) => finding.check === 'stream')
  }
  t.match(await found(), [{ status: 'passed', message: /^signals: the transmitter shows 0 of our streams$/ }])
  t.equal(transmitter.streams.size, 0)
  const cases: [change: () => void, code: string][] = [
    [() => transmitter.faults.set(paths.token, 401), 'stream_credential'],
    [() => transmitter.faults.set(paths.streams, 403), 'stream_forbidden'],
    [() => transmitter.faults.set(paths.streams, 500), 'stream_unreachable'],
    [() => transmitter.faults.set(paths.streams, 429), 'stream_throttled'],
    [() => transmitter.faults.set('/.well-known/ssf-configuration/tenant', 404), 'stream_metadata'],
    [() => Object.assign(transmitter.metadata, { issuer: 'https://evil.example' }), 'stream_issuer']
  ]
  for (const [change, code] of cases) {
    transmitter.faults.clear()
    change()
    t.match(await found(), [{ status: 'failed', code, advice: String }], code)
  }
  transmitter.faults.clear()
  transmitter.metadata = { default_subjects: 'NONE', verification_endpoint: undefined }
  t.match(await found(), [
    { status: 'passed' },
    { status: 'warning', code: 'stream_subjects' },
    { status: 'warning', code: 'stream_unverifiable' }
  ])
})

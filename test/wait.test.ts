import t, { type Test } from 'tap'
import { startCall } from './fixtures/command-line.ts'
import { adminToken, build, type Service, type ServiceOptions } from './fixtures/service.ts'
import { until } from './fixtures/until.ts'

/** The service, and `check --wait` of its issuer; resolves when it waits. */
async function setUp(t: Test, args: string[] = [], options: ServiceOptions = {}) {
  const service = await build(t, options)
  const url = await service.admin.listen({ host: '127.0.0.1', port: 0 })
  const command = startCall(t, ['check', '--wait', 'main', '--url', url, ...args], { env: { ADMIN_TOKEN: adminToken } })
  await until('it waits', () => command.output.stderr.includes('sign a user out at the provider now'))
  return { service, command }
}

/** The steps, as `status step`. */
const stepsOf = (stdout: string) =>
  [...stdout.matchAll(/^(passed|failed|waits) +(\S+)/gm)].map(([, status, step]) => `${status} ${step}`)

const sound = [
  'arrived',
  'request',
  'token',
  'issuer',
  'header',
  'audience',
  'times',
  'subject',
  'event',
  'signature'
].map((step) => `passed ${step}`)

t.test('a sign-out that ends something is explained step by step', async (t) => {
  const { service, command } = await setUp(t)
  await service.login({ clientId: 'client-a', homeAccountId: 'u.t', sid: 's1' })
  await service.login({ clientId: 'client-b', homeAccountId: 'u.t', sid: 's1' })
  await service.post(await service.provider.logoutToken({ sid: 's1', sub: 'subject' }))
  t.equal(await command.exited, 0)
  const { stdout } = command.output
  t.same(stepsOf(stdout), [...sound, 'passed sign-out', 'passed record'])
  t.match(stdout, /issuer +"http:[^"]+", configured as main\n/)
  t.match(stdout, /times +issued \d+ s before it arrived; accepted up to 600 s\n/)
  t.match(stdout, /subject +a sid and a sub: that session is to end\n/)
  t.match(stdout, /ended 2 sessions of 1 account, deleted 2 rows \(client-a 1, client-b 1\); after [\d,]+ ms\n/)
})

t.test('one that ends nothing says why, and what to do', async (t) => {
  const { service, command } = await setUp(t)
  await service.login({ clientId: 'client-a' })
  await service.post(await service.provider.logoutToken())
  t.equal(await command.exited, 1)
  t.same(stepsOf(command.output.stdout), [...sound, 'failed sign-out', 'passed record'])
  t.match(
    command.output.stdout,
    /no session was there to end: its sessions bear no sid \(1 of 1 stored, by client-a\)\n +have the/
  )
})

t.test('a rejected one stops at its step, with what it says and what is accepted', async (t) => {
  const cases: [string, (service: Service) => Promise<unknown>, string, RegExp][] = [
    [
      'another client',
      async ({ post, provider }) => post(await provider.logoutToken({ aud: 'z' })),
      'audience',
      /it says iss "[^"]+", aud "z", [^;]+; accepted is client-a\n +if that app is yours, add it to "clientIds"\n/
    ],
    [
      'a slash at the end of the iss',
      async ({ post, provider }) => post(await provider.logoutToken({ iss: `${provider.issuer}/` })),
      'issuer',
      /\n +differs from "[^"]+" by a slash at the end that is not configured; if it is yours, configure the issuer exactly so\n/
    ],
    [
      'another key',
      async ({ post, provider }) => post(await provider.logoutToken({}, { kid: 'unknown' })),
      'signature',
      /\[ERR_TOKEN_KEY\]; it says .*kid "unknown"; accepted is kid /
    ],
    [
      'a front-channel call without a sid',
      async ({ app }) => app.inject('/frontchannel-logout/main'),
      'request',
      /\[ERR_REQUEST_SID_MISSING\]\n +have the provider send a sid/
    ]
  ]
  for (const [name, send, step, said] of cases) {
    const { service, command } = await setUp(t, name === 'a front-channel call without a sid' ? ['--for', '1'] : [])
    await send(service)
    t.equal(await command.exited, 1, name)
    const steps = stepsOf(command.output.stdout)
    t.equal(steps.at(-1), `failed ${step}`, name)
    t.match(command.output.stdout, said, name)
  }
})

t.test('what names no configured issuer is explained, and waited on', async (t) => {
  const { service, command } = await setUp(t)
  await service.post(await service.provider.logoutToken({ iss: 'https://evil.example' }))
  await command.says(/This names no configured issuer; waiting on\./)
  await service.login({ sid: 's1' })
  await service.app.inject('/frontchannel-logout/main?sid=s1')
  t.equal(await command.exited, 0)
  t.same(stepsOf(command.output.stdout).slice(-5), [
    'passed arrived',
    'passed request',
    'passed issuer',
    'passed sign-out',
    'passed record'
  ])
})

t.test('one that is deferred is followed until it is done', async (t) => {
  const { service, command } = await setUp(t)
  await service.login({ sid: 's1' })
  service.provider.behaviour = 'down'
  await service.post(await service.provider.logoutToken({ sid: 's1' }))
  await command.says(
    /passed +event +.*\nwaits +signature +deferred: .*\[ERR_KEYS_UNAVAILABLE\]\n.*\nIt is on disk; waiting until it is done\./s
  )
  service.provider.behaviour = 'up'
  service.retry()
  t.equal(await command.exited, 0)
  t.match(command.output.stdout, /since it was deferred/)
})

t.test('nothing that comes is said so, with where to look', async (t) => {
  const { command } = await setUp(t, ['--for', '0'])
  t.equal(await command.exited, 1)
  t.match(command.output.stderr, /nothing came of it\. Is the logout URL set at the provider/)
})

t.test('as one JSON object, and with wrong usage', async (t) => {
  const { service, command } = await setUp(t, ['--json'])
  await service.post(await service.provider.logoutToken({ aud: 'z' }))
  t.equal(await command.exited, 1)
  const answer = JSON.parse(command.output.stdout)
  t.match(answer, { outcome: 'rejected', issuer: 'main', others: [] })
  t.match(answer.steps.at(-1), { step: 'audience', status: 'failed' })

  const url = `http://127.0.0.1:${(service.admin.server.address() as { port: number }).port}`
  const env = { ADMIN_TOKEN: adminToken, ADMIN_URL: url }
  const unknown = startCall(t, ['check', '--wait', 'nobody'], { env })
  t.equal(await unknown.exited, 2)
  t.match(unknown.output.stderr, /no issuer is called "nobody"; configured are main/)
  const without = startCall(t, ['check', '--wait', 'main'], { env: { ADMIN_URL: url } })
  t.equal(await without.exited, 2)
  t.match(without.output.stderr, /no credentials/)
  const interrupted = startCall(t, ['check', '--wait', service.provider.issuer], { env })
  await until('it waits', () => interrupted.output.stderr.includes('sign a user out'))
  interrupted.interrupt()
  t.equal(await interrupted.exited, 130)
})

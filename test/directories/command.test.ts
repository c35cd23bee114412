import { PassThrough } from 'node:stream'
import t, { type Test } from 'tap'
import { decideDirectory } from '../../src/commands/directory.ts'
import { type CallOptions, call, startCall } from '../fixtures/command-line.ts'
import { disabledMany, startWorld, type World } from '../fixtures/directory-world.ts'
import { adminToken } from '../fixtures/service.ts'
import { until } from '../fixtures/until.ts'

interface Operated extends World {
  /** `msal-logout directory …` at the service. */
  run(args: string[], options?: CallOptions): ReturnType<typeof call>
  readonly env: Record<string, string>
}

async function startOperated(t: Test, changes: Parameters<typeof startWorld>[1] = {}): Promise<Operated> {
  const world = await startWorld(t, changes)
  const env = {
    ADMIN_TOKEN: adminToken,
    ADMIN_URL: await world.service.admin.listen({ host: '127.0.0.1', port: 0 })
  }
  return { ...world, env, run: (args, options) => call(t, ['directory', ...args], { env, ...options }) }
}

/** With a breaker that is open: it holds 3 of 5. */
async function startHeld(t: Test): Promise<Operated & { readonly ids: readonly string[] }> {
  const world = await startOperated(t, { maxAccounts: 2 })
  const ids = await disabledMany(world, 3, 5)
  await world.round()
  return { ...world, ids: ids.slice(0, 3) }
}

t.test('directory list shows how far each is, and whom the breaker holds', async (t) => {
  const { run, ids, tenantId } = await startHeld(t)
  const { code, stdout, stderr } = await run(['list'])
  t.equal(code, 0, stderr)
  t.match(stdout, new RegExp(`^main, tenant ${tenantId}\n {2}last good round +20`))
  t.match(stdout, /breaker +open since 20.*: 3 of 5 in one round\n/)
  for (const id of ids) {
    t.match(stdout, `    ${id}  disabled: accountEnabled is false\n`)
  }
  const json = JSON.parse((await run(['list', '--json'])).stdout)
  t.match(json, { directories: [{ tenantId, heldCount: 3, breaker: { found: 3 } }] })
})

t.test('directory list says why one is not watched, and that a dry run only shows', async (t) => {
  const world = await startOperated(t, { dryRun: true })
  await disabledMany(world, 2, 3)
  await world.round()
  t.match((await world.run(['list'])).stdout, /dry run +2 would be purged\n/)
  const decision = await world.run(['release', world.tenantId, '--yes', '--json'])
  t.equal(decision.code, 3)
  t.match(JSON.parse(decision.stdout), { outcome: 'unmatched', code: 'breaker_closed', message: /dry run/ })
  await world.graph.close()
  await world.round()
  t.match((await world.run(['list'])).stdout, /changes failed +ERR_DIRECTORY_UNREACHABLE .* since 20.*, once\n/)
})

for (const [decision, outcome, left] of [
  ['release', 'released', 2],
  ['drop', 'dropped', 5]
] as const) {
  t.test(`directory ${decision} shows who is held, asks, and does it once the person says yes`, async (t) => {
    const { run, rows, round, tenantId, ids } = await startHeld(t)
    const no = await run([decision, tenantId], { answer: 'n' })
    t.equal(no.code, 2)
    t.match(no.stderr, new RegExp(`${ids[0]}[^]*what is held, so that .*\\? \\[y/N\\] error: nothing was done`))
    const unasked = await run([decision, tenantId])
    t.equal(unasked.code, 2)
    t.match(unasked.stderr, /nobody can be asked without a terminal.*add --yes/)
    await round()
    t.equal((await rows()).length, 5, 'nothing was done so far')

    const yes = await run([decision, tenantId.toUpperCase()], { answer: 'y' })
    t.equal(yes.code, 0, yes.stderr)
    t.match(yes.stdout, new RegExp(`^${outcome}: 3 held; `))
    await round()
    t.equal((await rows()).length, left)
    const again = await run([decision, tenantId, '--yes'])
    t.equal(again.code, 3)
    t.match(again.stderr, /nothing is held: its breaker is not open/)
  })
}

t.test('with --yes and --json there is one object, whatever comes of it', async (t) => {
  const { run, tenantId, env } = await startHeld(t)
  const done = await run(['drop', tenantId, '--yes', '--json'])
  t.same(JSON.parse(done.stdout), { outcome: 'dropped', tenantId, accounts: 3 })
  t.equal(done.stderr, '')
  for (const [args, changes, code, expected] of [
    [['drop', 'other', '--yes'], {}, 3, { outcome: 'unmatched', code: 'not_found', message: tenantId }],
    [['drop', tenantId], {}, 3, { outcome: 'unmatched', code: 'breaker_closed' }],
    [['drop', tenantId, '--yes'], { ADMIN_TOKEN: '' }, 2, { outcome: 'refused', code: 'credentials_missing' }],
    [['drop', tenantId, '--yes'], { ADMIN_TOKEN: 'x'.repeat(40) }, 1, { outcome: 'failed', code: 'unauthorized' }],
    [['drop', tenantId, '--yes'], { ADMIN_URL: 'http://127.0.0.1:9' }, 1, { outcome: 'failed', code: 'unanswered' }],
    [['list'], { ADMIN_URL: 'http://127.0.0.1:9' }, 1, { outcome: 'failed', code: 'unanswered' }],
    [['drop'], {}, 2, { outcome: 'refused', code: 'usage' }]
  ] as const) {
    const answer = await run([...args, '--json'], { env: { ...env, ...changes } })
    t.equal(answer.code, code, args.join(' '))
    t.match(JSON.parse(answer.stdout), expected)
  }
})

t.test('a question that is interrupted does nothing', async (t) => {
  const { tenantId, env, rows, round } = await startHeld(t)
  const waiting = startCall(t, ['directory', 'release', tenantId, '--json'], { env, answer: null })
  await waiting.says(/Release what is held/)
  waiting.interrupt()
  t.equal(await waiting.exited, 130)
  t.match(JSON.parse(waiting.output.stdout), { outcome: 'interrupted', message: 'nothing was done' })
  await round()
  t.equal((await rows()).length, 5)
})

t.test('nothing is held any more if somebody else decides while the person thinks', async (t) => {
  const { tenantId, env, service } = await startHeld(t)
  const stdin = Object.assign(new PassThrough(), { isTTY: true })
  const stderr = Object.assign(new PassThrough(), { isTTY: true })
  const stdout = new PassThrough()
  const { signal } = new AbortController()
  const options = { url: env.ADMIN_URL ?? '', yes: false }
  const decision = decideDirectory('release', tenantId, options, { env, stdin, stdout, stderr, signal })
  await until('the person is asked', () => /\[y\/N\]/.test(String(stderr.read() ?? '')) || null)
  await service.operate('POST', `/admin/directories/${tenantId}/drop`)
  stdin.end('y\n')
  t.equal(await decision, 3)
  t.match(String(stderr.read()), /error: nothing is held/)
})

// What only a process shows: the rest of the command line is called in the tests' own (test/cli.test.ts).
import { once } from 'node:events'
import { existsSync } from 'node:fs'
import { createServer } from 'node:http'
import { join } from 'node:path'
import t from 'tap'
import { runCommand } from '../fixtures/command-line.ts'
import { createDatabase } from '../fixtures/database.ts'
import { temporaryFolder } from '../fixtures/server.ts'
import { adminToken, build } from '../fixtures/service.ts'

t.test('the program passes its words, environment and exit code on', async (t) => {
  const dir = join(temporaryFolder(t), 'spool')
  const listing = runCommand(t, ['spool', 'list', '--json'], { SPOOL_DIR: dir })
  t.equal(await listing.exited, 0, listing.output.stderr)
  t.match(JSON.parse(listing.output.stdout), { dir, exists: false })
  t.notOk(existsSync(dir))
  const unknown = runCommand(t, ['serv'])
  t.equal(await unknown.exited, 2)
  t.match(unknown.output, { stdout: '', stderr: /unknown command 'serv'\n\(Did you mean serve\?\)/ })
})

t.test('who reads the output may stop, and the exit code is that of the work', async (t) => {
  for (const [args, code] of [
    [['spool', 'list', '--json'], 0],
    [['purge', '--no-such', '--json'], 2]
  ] as const) {
    const { process: child, exited } = runCommand(t, args)
    child.stdout?.destroy()
    t.equal(await exited, code)
  }
})

t.test('a person on a terminal sees what would go, is asked, and Ctrl-C at the question ends it', async (t) => {
  const service = await build(t)
  await service.login({ homeAccountId: 'u.t' })
  const env = { ADMIN_TOKEN: adminToken, ADMIN_URL: await service.admin.listen({ host: '127.0.0.1', port: 0 }) }
  const args = ['purge', '--home-account-id', 'u.t', '--reason', 'test']
  const hesitant = runCommand(t, args, env, { onTerminal: true })
  await hesitant.says(/accounts +1.*Purge it\? \[y\/N\]/s)
  hesitant.process.stdin?.write('\x03')
  await hesitant.says(/interrupted: nothing was done/)
  t.equal(await hesitant.exited, 130)
  t.equal((await service.rows()).length, 1)

  const determined = runCommand(t, args, env, { onTerminal: true })
  await determined.says(/Purge it\?/)
  determined.process.stdin?.write('y\r')
  t.equal(await determined.exited, 0, determined.output.stdout)
  t.same(await service.rows(), [])
})

t.test('SIGTERM ends a command in good order', async (t) => {
  // An operators' listener that takes the order and never answers.
  const orders: unknown[] = []
  const listener = createServer((request) => orders.push(request.url)).listen(0, '127.0.0.1')
  await once(listener, 'listening')
  t.teardown(() => {
    listener.closeAllConnections()
    listener.close()
  })
  const address = listener.address()
  const port = typeof address === 'object' ? address?.port : undefined
  const args = ['purge', '--home-account-id', 'u.t', '--reason', 'test', '--yes']
  const command = runCommand(t, args, { ADMIN_TOKEN: adminToken, ADMIN_URL: `http://127.0.0.1:${port}` })
  await once(listener, 'request')
  command.process.kill('SIGTERM')
  t.equal(await command.exited, 130)
  t.match(command.output.stderr, /interrupted: nothing was done/)
  t.equal(orders.length, 1)
})

t.test('migrate and check run as processes, with the environment alone', async (t) => {
  const { url } = await createDatabase(t, { migrated: false })
  const migrated = runCommand(t, ['migrate'], { DATABASE_URL: url })
  t.equal(await migrated.exited, 0, migrated.output.stderr)
  t.match(migrated.output.stdout, /^migrated: 001/)
  const checked = runCommand(t, ['check', '--json'], { DATABASE_URL: url })
  t.equal(await checked.exited, 1)
  t.match(JSON.parse(checked.output.stdout), { ok: false, checks: [{ code: 'configuration_invalid' }] })
})

import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { chmodSync, mkdtempSync, readdirSync, rmSync } from 'node:fs'
import { connect } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import t, { type Test } from 'tap'

/** Runs the demo with a temporary folder of its own, and sends it a signal at the first line that matches. */
async function runDemo(t: Test, args: string[], stopAt: RegExp) {
  const folder = mkdtempSync(join(tmpdir(), 'msal-logout-demo-test-'))
  chmodSync(folder, 0o755) // PostgreSQL may run as another user
  t.teardown(() => rmSync(folder, { recursive: true, force: true }))
  const demo = spawn(process.execPath, ['--import', 'tsx', 'examples/demo.ts', ...args], {
    env: { PATH: process.env.PATH, TMPDIR: folder },
    stdio: ['ignore', 'pipe', 'pipe']
  })
  t.teardown(() => demo.kill('SIGTERM'))
  const output: string[] = []
  createInterface(demo.stderr).on('line', (line) => output.push(line))
  createInterface(demo.stdout).on('line', (line) => {
    output.push(line)
    if (stopAt.test(line)) {
      demo.kill('SIGTERM')
    }
  })
  const [code] = await once(demo, 'close')
  const text = output.join('\n')
  return {
    code,
    text,
    ports: [...new Set([...text.matchAll(/(?:localhost|127\.0\.0\.1):(\d+)/g)].map(([, port]) => Number(port)))],
    left: readdirSync(folder).filter((name) => /^msal-logout-(demo|postgres)-(?!programs)/.test(name))
  }
}

function isRefused(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(port, '127.0.0.1', () => {
      socket.destroy()
      resolve(false)
    })
    socket.once('error', () => resolve(true))
  })
}

t.test('the demo tells the whole story, stays when asked to, and leaves nothing behind', async (t) => {
  const { code, text, ports, left } = await runDemo(t, ['--stay'], /Ctrl\+C ends it/)
  t.equal(code, 0, text)
  const story = [
    'alice, gets: a token from the cache',
    'no row of alice is left',
    'alice, gets: no_tokens_found',
    '(dry run) answers 200',
    'no row of bob is left',
    'no row of carol is left',
    'disabled in Entra ID',
    'Done'
  ]
  for (const app of ['shop', 'desk']) {
    t.match(text, `logout token for ${app}: accepted`) // side by side
  }
  let at = 0
  for (const line of story) {
    const next = text.indexOf(line, at)
    t.not(next, -1, line)
    at = Math.max(at, next)
  }
  t.equal(ports.length, 6, 'provider, two apps, two listeners of the service, PostgreSQL')
  for (const port of ports) {
    t.equal(await isRefused(port), true, `nobody listens on ${port} any more`)
  }
  t.same(left, [])
})

t.test('a demo that is interrupted fails, and leaves nothing behind', async (t) => {
  const { code, text, ports, left } = await runDemo(t, [], /^2\. /)
  t.equal(code, 1, text)
  t.match(text, 'interrupted by SIGTERM')
  for (const port of ports) {
    t.equal(await isRefused(port), true, `nobody listens on ${port} any more`)
  }
  t.same(left, [])
})

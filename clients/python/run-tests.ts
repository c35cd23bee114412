// `npm run test:python`: installs what the Python client's tests need into .data/python, starts PostgreSQL (or takes
// TEST_DATABASE_URL), the service and a provider, and runs the tests with the newest MSAL Python and with older ones.
// Arguments go to pytest, with the newest MSAL alone. PYTHON names the interpreter, default `python3`.
import { spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import { withScratchDatabase } from '../conformance/scratch-database.ts'
import { startWorld } from '../conformance/world.ts'
import { pythonEnvironment } from './environment.ts'
import { tryExample } from './try-example.ts'

const folder = fileURLToPath(new URL('.', import.meta.url))
const root = fileURLToPath(new URL('../..', import.meta.url))
const requirements = readFileSync(join(folder, 'tests/requirements.txt'), 'utf8')
const [withEveryMsal = ''] = requirements.split('\n\n')

// The oldest that knows any OpenID provider, and Debian's, which knows Microsoft's authorities alone.
const olderMsals = ['1.28.0', '1.21.0']

function run(command: string, args: readonly string[]): void {
  const caches = join(root, '.data/python/caches')
  const env = { ...process.env, RUFF_CACHE_DIR: join(caches, 'ruff'), MYPY_CACHE_DIR: join(caches, 'mypy') }
  const { status, error } = spawnSync(command, args, { cwd: folder, env, stdio: 'inherit' })
  if (status !== 0) {
    throw new Error(`"${command} ${args.join(' ')}" ended with ${status ?? error}`)
  }
}

interface Totals {
  readonly passed: number
  readonly failed: number
}

/** Runs pytest, and reads its last line: `3 failed, 40 passed in 5.2s`. */
async function test(interpreter: string, args: readonly string[], env: Record<string, string>): Promise<Totals> {
  const child = spawn(interpreter, ['-m', 'pytest', '--color=no', '-p', 'no:cacheprovider', ...args], {
    cwd: folder,
    env: { ...process.env, PYTHONPATH: join(folder, 'src'), PYTHONDONTWRITEBYTECODE: '1', ...env },
    stdio: ['ignore', 'pipe', 'inherit']
  })
  const stop = () => child.kill('SIGTERM')
  process.once('SIGINT', stop).once('SIGTERM', stop)
  let totals = ''
  createInterface(child.stdout).on('line', (line) => {
    console.log(line)
    totals = / in [\d.]+s/.test(line) ? line : totals
  })
  const [code] = await once(child, 'close')
  process.off('SIGINT', stop).off('SIGTERM', stop)
  const count = (word: RegExp) => Number(word.exec(totals)?.[1] ?? 0)
  const failed = count(/(\d+) failed/) + count(/(\d+) errors?/)
  const passed = count(/(\d+) passed/)
  return { passed, failed: failed + (code !== 0 && failed === 0 ? 1 : 0) }
}

const totals: Totals[] = []

await withScratchDatabase('python', async ({ url }) => {
  const newest = pythonEnvironment('newest', requirements)
  const older = olderMsals.map((version) => ({
    version,
    interpreter: pythonEnvironment(`msal-${version}`, withEveryMsal.replace(/^msal$/m, `msal==${version}`))
  }))
  const world = await startWorld({ databaseUrl: url, clientIds: ['client-a', 'client-b'] })
  try {
    const env = { TEST_DATABASE_URL: url, TEST_ENDPOINT: world.endpoint, TEST_ISSUER: world.issuer }
    const args = process.argv.slice(2)
    if (args.length > 0) {
      totals.push(await test(newest, args, env))
    } else {
      const sources = ['.', '../conformance/drivers', '../../examples/flask-app']
      run(newest, ['-m', 'ruff', 'check', '--config', 'pyproject.toml', ...sources])
      run(newest, ['-m', 'ruff', 'format', '--config', 'pyproject.toml', '--check', ...sources])
      run(newest, ['-m', 'mypy', 'src'])
      totals.push(await test(newest, [], env))
      for (const { version, interpreter } of older) {
        console.log(`\nwith MSAL Python ${version}:`)
        totals.push(await test(interpreter, ['tests/test_cache.py', 'tests/test_vectors.py'], env))
      }
      console.log('\nexamples/flask-app at a real provider:')
      const expectations = await tryExample(url)
      for (const { what, isMet } of expectations) {
        console.log(`${isMet ? 'ok' : 'not ok'} - ${what}`)
      }
      const failed = expectations.filter(({ isMet }) => !isMet).length
      totals.push({ passed: expectations.length - failed, failed })
    }
  } finally {
    await world.stop()
  }
})

const passed = totals.reduce((sum, each) => sum + each.passed, 0)
const failed = totals.reduce((sum, each) => sum + each.failed, 0)
console.log(`\n${passed} passed, ${failed} failed`)
process.exitCode = failed === 0 && passed > 0 ? 0 : 1

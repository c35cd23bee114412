// `npm run test:conformance`: the vectors with the Node client, and the scenarios with every language whose driver is
// installed. Starts PostgreSQL, or takes TEST_DATABASE_URL. RACES says how many of each race (1,000 is the proof, 20 the
// usual run), DRIVERS which languages.
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import { withScratchDatabase } from './scratch-database.ts'

const totals = { passed: 0, failed: 0 }

/** Runs a test file, and counts its assertions; prints what failed, and comments. */
async function run(file: string, databaseUrl: string): Promise<void> {
  const program = fileURLToPath(new URL(file, import.meta.url))
  const child = spawn(process.execPath, ['--import', 'tsx', program], {
    env: { ...process.env, TEST_DATABASE_URL: databaseUrl, TAP_DIAG: '0' },
    stdio: ['ignore', 'pipe', 'inherit']
  })
  const stop = () => child.kill('SIGTERM')
  process.once('SIGINT', stop).once('SIGTERM', stop)
  let isFailing = false
  createInterface(child.stdout).on('line', (line) => {
    const text = line.trim()
    // A line for a subtest repeats what its own lines said.
    const isSubtest = / # time=/.test(text)
    if (text.startsWith('not ok')) {
      totals.failed += isSubtest ? 0 : 1
      isFailing = true
    } else if (text.startsWith('ok')) {
      totals.passed += isSubtest ? 0 : 1
      isFailing = false
    }
    if (isFailing || /^# (?!Subtest|time)/.test(text) || (isSubtest && !line.startsWith(' '))) {
      console.log(line)
    }
  })
  const [code] = await once(child, 'close')
  process.off('SIGINT', stop).off('SIGTERM', stop)
  totals.failed += code !== 0 && totals.failed === 0 ? 1 : 0
}

await withScratchDatabase('conformance', async ({ url }) => {
  await run('vectors.test.ts', url)
  await run('scenarios.test.ts', url)
})
console.log(`\n${totals.passed} passed, ${totals.failed} failed`)
process.exitCode = totals.failed === 0 && totals.passed > 0 ? 0 : 1

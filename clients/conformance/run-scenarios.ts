// `npm run test:conformance`: the vectors with the Node client, and the scenarios with every language whose driver is
// installed. Starts PostgreSQL, or takes TEST_DATABASE_URL. RACES says how many of each race (1,000 is the proof, 20 the
// usual run), DRIVERS which languages.
import { spawn } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import pg from 'pg'
import { startEmbeddedPostgres } from '../../src/embedded-postgres.ts'
import { migrate } from '../../src/migrate.ts'

const settings = { fsync: 'off', max_connections: '300' }
const postgres = process.env.TEST_DATABASE_URL === undefined ? await startEmbeddedPostgres({ settings }) : undefined
const server = process.env.TEST_DATABASE_URL ?? postgres?.url ?? ''
const database = `test_conformance_${randomBytes(6).toString('hex')}`
const url = new URL(server)
url.pathname = `/${database}`
const totals = { passed: 0, failed: 0 }

async function onServer(text: string): Promise<void> {
  const client = new pg.Client({ connectionString: server })
  await client.connect()
  await client.query(text).finally(() => client.end())
}

/** Runs a test file, and counts its assertions; prints what failed, and comments. */
async function run(file: string): Promise<void> {
  const program = fileURLToPath(new URL(file, import.meta.url))
  const child = spawn(process.execPath, ['--import', 'tsx', program], {
    env: { ...process.env, TEST_DATABASE_URL: url.href, TAP_DIAG: '0' },
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

try {
  await onServer(`create database ${database}`)
  const owner = new pg.Pool({ connectionString: url.href })
  await migrate(owner)
  await owner.end()
  await run('vectors.test.ts')
  await run('scenarios.test.ts')
} finally {
  await onServer(`drop database if exists ${database} with (force)`)
  await postgres?.stop()
}
console.log(`\n${totals.passed} passed, ${totals.failed} failed`)
process.exitCode = totals.failed === 0 && totals.passed > 0 ? 0 : 1

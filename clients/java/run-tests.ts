// `npm run test:java`: Maven, with what it downloads in .data/maven; PostgreSQL (or TEST_DATABASE_URL), the service and a
// provider; the client's own tests with the oldest MSAL4J and with the newest, then the example with Spring Boot and the one
// with Spring Security. Arguments go to Maven, for the client's own tests alone: `npm run test:java -- -Dtest=RaceTest`.
// `-- --driver` makes the program for `npm run test:conformance` alone. RACES says how many races each race test runs. MAVEN names Maven, default `mvn`.
import { spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import { maven } from '../../examples/spring-app/launch.ts'
import { withScratchDatabase } from '../conformance/scratch-database.ts'
import { startWorld } from '../conformance/world.ts'

const folder = fileURLToPath(new URL('.', import.meta.url))
const root = fileURLToPath(new URL('../..', import.meta.url))
const springApp = fileURLToPath(new URL('../../examples/spring-app', import.meta.url))

const dependencyPlugin = 'org.apache.maven.plugins:maven-dependency-plugin:3.11.0'
const oldestMsal = '1.19.0'
// What depends on how MSAL4J works.
const testsOfMsal = 'TokenCacheTest,VectorsTest,EncryptionTest,MisuseTest,OpenIdProviderTest'

interface Totals {
  readonly passed: number
  readonly failed: number
}

/** Runs a program, and counts by its lines. */
async function count(
  command: string,
  args: readonly string[],
  { cwd, env, read }: { cwd: string; env: Record<string, string>; read(line: string, totals: Totals): Totals }
): Promise<Totals> {
  const child = spawn(command, args, { cwd, env: { ...process.env, ...env }, stdio: ['ignore', 'pipe', 'inherit'] })
  const stop = () => child.kill('SIGTERM')
  process.once('SIGINT', stop).once('SIGTERM', stop)
  let totals: Totals = { passed: 0, failed: 0 }
  createInterface(child.stdout).on('line', (line) => {
    console.log(line)
    totals = read(line, totals)
  })
  const [code] = await once(child, 'close')
  process.off('SIGINT', stop).off('SIGTERM', stop)
  return code !== 0 && totals.failed === 0 ? { ...totals, failed: 1 } : totals
}

/** Surefire and Failsafe end with `Tests run: 9, Failures: 0, Errors: 0, Skipped: 0`, without a time. */
function readMaven(line: string, { passed, failed }: Totals): Totals {
  const found = /Tests run: (\d+), Failures: (\d+), Errors: (\d+), Skipped: (\d+)$/.exec(line)
  if (found === null) {
    return { passed, failed }
  }
  const [run = 0, failures = 0, errors = 0, skipped = 0] = found.slice(1).map(Number)
  const bad = failures + errors
  return { passed: passed + run - bad - skipped, failed: failed + bad + skipped } // nothing is skipped on purpose
}

function readSteps(line: string, { passed, failed }: Totals): Totals {
  return { passed: passed + (line.startsWith('ok ') ? 1 : 0), failed: failed + (line.startsWith('not ok ') ? 1 : 0) }
}

/** The driver program for the scenarios of `npm run test:conformance`. */
function writeDriver(): void {
  const classpath = fileURLToPath(new URL('target/classpath.txt', import.meta.url))
  const { status, stdout } = spawnSync(
    maven.command,
    [...maven.args, '-q', 'test-compile', `${dependencyPlugin}:build-classpath`, `-Dmdep.outputFile=${classpath}`],
    { cwd: folder, encoding: 'utf8' }
  )
  if (status !== 0) {
    throw new Error(`the driver cannot be built:\n${stdout}`)
  }
  const classes = [`${folder}target/classes`, `${folder}target/test-classes`, readFileSync(classpath, 'utf8')].join(':')
  mkdirSync(`${root}.data/java`, { recursive: true })
  writeFileSync(
    `${root}.data/java/conformance-driver.sh`,
    `#!/bin/sh\nexec java -Xmx192m -XX:TieredStopAtLevel=1 -cp '${classes}' io.github.msallogout.Driver\n`,
    { mode: 0o755 }
  )
}

function requireTools(): void {
  const { status, stdout } = spawnSync(maven.command, ['--version'], { encoding: 'utf8' })
  const java = /Java version: (\d+)/.exec(stdout ?? '')?.[1]
  if (status !== 0 || java === undefined || Number(java) < 17) {
    throw new Error(
      `"${maven.command} --version" does not say Java 17 or later: install a JDK and Maven 3.8.1 or later`
    )
  }
}

requireTools()
if (process.argv[2] === '--driver') {
  writeDriver()
  process.exit()
}
const totals: Totals[] = []

await withScratchDatabase('java', async ({ url, serverUrl }) => {
  const world = await startWorld({ databaseUrl: url, clientIds: ['client-a', 'client-b'] })
  const env = { TEST_DATABASE_URL: url, TEST_ENDPOINT: world.endpoint, TEST_ISSUER: world.issuer }
  const build = (cwd: string, args: readonly string[]) =>
    count(maven.command, [...maven.args, ...args], { cwd, env, read: readMaven })
  try {
    const args = process.argv.slice(2)
    if (args.length > 0) {
      totals.push(await build(folder, ['test', ...args]))
    } else {
      console.log(`\nwith MSAL4J ${oldestMsal}:`)
      totals.push(await build(folder, ['test', `-Dmsal4j.version=${oldestMsal}`, `-Dtest=${testsOfMsal}`]))
      console.log('\nwith the newest MSAL4J:')
      totals.push(await build(folder, ['install'])) // verifies, and gives it to the examples
      writeDriver()
      console.log('\nthe example with Spring Boot:')
      totals.push(await build(springApp, ['package']))
      totals.push(
        await count(process.execPath, ['--import', 'tsx', `${springApp}/spring-app.test.ts`], {
          cwd: root,
          env: { TEST_DATABASE_URL: serverUrl },
          read: readSteps
        })
      )
      console.log('\nwith Spring Security:')
      totals.push(await build(`${springApp}/security`, ['verify']))
    }
  } finally {
    await world.stop()
  }
})

const passed = totals.reduce((sum, each) => sum + each.passed, 0)
const failed = totals.reduce((sum, each) => sum + each.failed, 0)
console.log(`\n${passed} passed, ${failed} failed`)
process.exitCode = failed === 0 && passed > 0 ? 0 : 1

// Each promise of the contract is kept by a line, and a test fails without it: the list is broken-lines.ts.
import { execFile } from 'node:child_process'
import { cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { promisify } from 'node:util'
import t, { type Test } from 'tap'
import { brokenLines } from './broken-lines.ts'

const run = promisify(execFile)

/** The project with one line broken, beside its own packages. */
function copyWith(t: Test, file: string, line: string, broken: string): string {
  mkdirSync('.data', { recursive: true })
  const folder = mkdtempSync('.data/promises-')
  t.teardown(() => rmSync(folder, { recursive: true, force: true }))
  const parts = [
    'src',
    'sql',
    'migrations',
    'page',
    'test',
    'examples',
    'clients',
    'docs',
    'package.json',
    'tsconfig.json'
  ]
  for (const part of parts) {
    cpSync(part, join(folder, part), { recursive: true, filter: (path) => !/node_modules|\/dist\b|target/.test(path) })
  }
  symlinkSync(join(process.cwd(), 'node_modules'), join(folder, 'node_modules'))
  const text = readFileSync(file, 'utf8')
  t.equal(text.split(line).length, 2, `"${line}" stands once in ${file}`)
  writeFileSync(
    join(folder, file),
    text.replace(line, () => broken)
  )
  return folder
}

/** The closing line of the test run, and what it printed. */
async function runTest(folder: string, test: string, name: string): Promise<string> {
  const pattern = `/^${name.replace(/[.*+?^${}()|[\]\\/]/g, '\\$&')}$/`
  const args = ['--import', 'tsx', 'test/fixtures/run-tests.ts', `--grep=${pattern}`, test]
  const { TEST_RUN: _ofThisRun, ...env } = process.env
  return run(process.execPath, args, { cwd: folder, env, maxBuffer: 2 ** 24 }).then(
    ({ stdout }) => stdout,
    ({ stdout }: { stdout: string }) => stdout
  )
}

t.jobs = 2 // each compiles, starts PostgreSQL, and waits in between
for (const { promise, file, line, broken, test, name } of brokenLines) {
  t.test(
    `promise ${promise}: without "${line.split('\n')[0]}" in ${file}, a test fails`,
    { timeout: 300_000, buffered: true },
    async (t) => {
      const output = await runTest(copyWith(t, file, line, broken), test, name)
      t.match(output, /^\d+ passed, [1-9]\d* failed$/m, output.slice(-2_000))
      t.ok(output.includes(`not ok`) && output.includes(name), `it is "${name}"`)
    }
  )
}

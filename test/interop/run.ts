// `npm run test:interop`: real identity providers, each against the service. What they need is fetched once, into .data/;
// a provider that cannot be had here does not run, and the last lines say so.
//
//   npm run test:interop                          all of them
//   npm run test:interop -- keycloak              one of them
//   RECORD=1 npm run test:interop                 what they sent becomes the specimens, and the table in docs/providers.md
import { spawnSync } from 'node:child_process'
import { readFileSync, writeFileSync } from 'node:fs'
import { matrixMarks, renderMatrix } from '../fixtures/matrix.ts'
import { readSpecimens } from '../fixtures/specimen.ts'
import { fetchBetterAuth } from './better-auth-server.ts'
import { fetchHydra } from './hydra-server.ts'
import { fetchKeycloak } from './keycloak-server.ts'
import { fetchLiberty } from './liberty-server.ts'

interface Provider {
  /** Of its file, `test/interop/<name>.test.ts`. */
  readonly name: string
  /** What must be installed. */
  readonly programs: readonly string[]
  /** Fetches what its registry has; throws if it does not answer. */
  readonly fetch?: () => void
}

const providers: readonly Provider[] = [
  { name: 'oidc-provider', programs: [] },
  { name: 'keycloak', programs: ['java', 'jar', 'mvn'], fetch: fetchKeycloak },
  { name: 'keycloak-ssf', programs: ['java', 'jar', 'mvn'], fetch: fetchKeycloak },
  { name: 'liberty', programs: ['java', 'jar', 'keytool', 'mvn'], fetch: fetchLiberty },
  { name: 'better-auth', programs: ['npm'], fetch: fetchBetterAuth },
  { name: 'hydra', programs: ['go', 'gcc'], fetch: fetchHydra }
]

const names = process.argv.slice(2)
const unknown = names.filter((name) => providers.every((provider) => provider.name !== name))
if (unknown.length > 0) {
  throw new Error(`no provider "${unknown.join('", "')}": there are ${providers.map(({ name }) => name).join(', ')}`)
}

const missing = new Map<string, string>()
const chosen = providers.filter(({ name }) => names.length === 0 || names.includes(name)).filter(provide)
const status = chosen.length === 0 ? 0 : runTests(chosen)
if (status === 0 && process.env.RECORD === '1') {
  writeMatrix()
}
for (const [name, reason] of missing) {
  console.log(`did not run: test:interop ${name} (${reason})`)
}
process.exitCode = status

function provide({ name, programs, fetch }: Provider): boolean {
  const lacking = programs.find((program) => spawnSync('which', [program]).status !== 0)
  if (lacking !== undefined) {
    missing.set(name, `the program ${lacking} is missing`)
    return false
  }
  const begun = performance.now()
  try {
    fetch?.()
    const seconds = (performance.now() - begun) / 1_000
    if (seconds >= 1) {
      console.log(`${name} was fetched in ${seconds.toFixed(0)} s`)
    }
    return true
  } catch (error) {
    console.log(error instanceof Error ? error.message : error)
    missing.set(name, 'its registry does not answer')
    return false
  }
}

function runTests(chosen: readonly Provider[]): number {
  const files = chosen.map(({ name }) => `test/interop/${name}.test.ts`)
  const args = ['--import', 'tsx', 'test/fixtures/run-tests.ts', '--timeout=900', '--jobs=1', ...files]
  return spawnSync(process.execPath, args, { stdio: 'inherit' }).status ?? 1
}

function writeMatrix(): void {
  const page = 'docs/providers.md'
  const [begin, end] = matrixMarks
  const text = readFileSync(page, 'utf8')
  const before = text.slice(0, text.indexOf(begin) + begin.length)
  const after = text.slice(text.indexOf(end))
  writeFileSync(page, `${before}\n\n${renderMatrix([...readSpecimens().values()])}\n\n${after}`)
}

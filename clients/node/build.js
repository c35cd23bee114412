// Both module forms: `dist/esm` and `dist/cjs`.
import { spawnSync } from 'node:child_process'
import { chmodSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { fileURLToPath } from 'node:url'

const folder = fileURLToPath(new URL('.', import.meta.url))
const compiler = createRequire(import.meta.url).resolve('typescript/bin/tsc')

rmSync(`${folder}dist`, { recursive: true, force: true })
for (const [form, project] of [
  ['esm', 'tsconfig.json'],
  ['cjs', 'tsconfig.cjs.json']
]) {
  const { status } = spawnSync(process.execPath, [compiler, '-p', folder + project], { stdio: 'inherit' })
  if (status !== 0) {
    process.exit(1)
  }
  for (const name of readdirSync(`${folder}dist/${form}`)) {
    if (name.endsWith('.d.ts')) {
      const file = `${folder}dist/${form}/${name}`
      // The compiler leaves './x.ts' in declarations, which compilers before 5.7 do not take.
      writeFileSync(file, readFileSync(file, 'utf8').replace(/(from|import\() ?'(\.\/[^']+)\.ts'/g, "$1 '$2.js'"))
    }
  }
}
writeFileSync(`${folder}dist/cjs/package.json`, '{ "type": "commonjs" }\n')
chmodSync(`${folder}dist/esm/cli.js`, 0o755)

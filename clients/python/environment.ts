import { spawnSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'

const root = fileURLToPath(new URL('../..', import.meta.url))
const python = process.env.PYTHON ?? 'python3'

/**
 * A Python environment under `.data/python`, made once for the same requirements.
 *
 * @param name of its folder
 * @param requirements as in a requirements.txt; paths count from the project's folder
 * @returns its interpreter
 * @throws {Error} if there is no Python, or the requirements cannot be installed
 */
export function pythonEnvironment(name: string, requirements: string): string {
  const path = join(root, '.data/python', name)
  const marker = join(path, 'installed')
  const version = spawnSync(python, ['--version'], { encoding: 'utf8' })
  if (version.status !== 0) {
    throw new Error(`"${python}" does not run: install Python 3.9 or later, or name it in PYTHON`)
  }
  const hash = createHash('sha256').update(`${version.stdout}\n${requirements}`).digest('hex')
  if (!existsSync(marker) || readFileSync(marker, 'utf8') !== hash) {
    rmSync(path, { recursive: true, force: true })
    mkdirSync(path, { recursive: true })
    run(python, ['-m', 'venv', path])
    const list = join(path, 'requirements.txt')
    writeFileSync(list, requirements)
    console.log(`installing Python packages into .data/python/${name}`)
    run(join(path, 'bin/python'), ['-m', 'pip', 'install', '--quiet', '--disable-pip-version-check', '-r', list])
    writeFileSync(marker, hash)
  }
  return join(path, 'bin/python')
}

function run(command: string, args: readonly string[]): void {
  const { status, error } = spawnSync(command, args, { cwd: root, stdio: 'inherit' })
  if (status !== 0) {
    throw new Error(`"${command} ${args.join(' ')}" ended with ${status ?? error}`)
  }
}

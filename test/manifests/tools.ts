// Programs of other ecosystems, by their own registries' clients, each in one version; made once, in .data/manifests.
import { execFileSync } from 'node:child_process'
import { existsSync, mkdirSync, rmSync } from 'node:fs'
import { resolve } from 'node:path'

const folder = resolve('.data/manifests')

function run(program: string, args: readonly string[], env: NodeJS.ProcessEnv = {}): string {
  return execFileSync(program, args, { encoding: 'utf8', env: { ...process.env, ...env }, maxBuffer: 64 * 2 ** 20 })
}

/** A command of a Go module; returns its path. */
export function goProgram(name: string, command: string, version: string): string {
  const bin = `${folder}/${name}-${version}`
  const path = `${bin}/${name}`
  if (!existsSync(path)) {
    run('go', ['install', `${command}@${version}`], { GOBIN: bin, GOFLAGS: '' })
  }
  return path
}

/** A package of PyPI with what it needs; returns the folder of its programs. */
export function pythonPackage(name: string, version: string): string {
  const path = `${folder}/${name}-${version}`
  if (!existsSync(`${path}/installed`)) {
    rmSync(path, { recursive: true, force: true })
    mkdirSync(folder, { recursive: true })
    run('python3', ['-m', 'venv', path])
    run(`${path}/bin/pip`, ['install', '--quiet', '--disable-pip-version-check', `${name}==${version}`])
    mkdirSync(`${path}/installed`)
  }
  return `${path}/bin`
}

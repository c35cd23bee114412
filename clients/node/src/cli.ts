#!/usr/bin/env node
// `npx msal-logout-client init`: what an app begins with, printed, or written where nothing is yet.
import { randomBytes } from 'node:crypto'
import { chmodSync, existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { dirname } from 'node:path'
import { createInterface } from 'node:readline/promises'
import { parseArgs } from 'node:util'
import { type Framework, frameworks, planStart, type Start } from './init.ts'
import { isObject } from './objects.ts'

const usage = `msal-logout-client init [options]

Prints the statements for the database, the environment and the module that an app begins with, for the framework that
package.json names.

  --write              write them: msal-logout.sql, msal-logout.env and msal-logout.js or .ts; asks before it overwrites
                       (for Next.js app/[action]/route.ts, too)
  --yes                overwrite without asking
  --client-id <id>     the app's client id at the provider
  --role <name>        the app's database role; default the name in package.json
  --framework <name>   ${frameworks.join(', ')}
  --help`

try {
  process.exitCode = await main(process.argv.slice(2))
} catch (error) {
  console.error(error instanceof Error ? error.message : error)
  process.exitCode = 1
}

async function main(args: string[]): Promise<number> {
  const { values, positionals } = parseArgs({
    args,
    allowPositionals: true,
    options: {
      write: { type: 'boolean', default: false },
      yes: { type: 'boolean', default: false },
      'client-id': { type: 'string', default: '<client id>' },
      role: { type: 'string' },
      framework: { type: 'string' },
      help: { type: 'boolean', default: false }
    }
  })
  if (values.help) {
    console.log(usage)
    return 0
  }
  if (positionals.length !== 1 || positionals[0] !== 'init') {
    console.error(usage)
    return 1
  }
  const manifest = readManifest()
  const start = planStart({
    manifest,
    hasTypeScript: existsSync('tsconfig.json'),
    hasSourceFolder: existsSync('src/app') && !existsSync('app'),
    clientId: values['client-id'],
    role: values.role ?? roleOf(manifest),
    password: randomBytes(24).toString('base64url'),
    sessionSecret: randomBytes(32).toString('base64url'),
    framework: frameworkOf(values.framework)
  })
  if (!values.write) {
    for (const { name, text } of [...start.secrets, ...start.modules]) {
      console.log(`--- ${name}\n${text}`)
    }
  } else if (!(await write(start, values.yes))) {
    return 1
  }
  console.log(`For ${start.framework}:`)
  for (const [i, step] of start.steps.entries()) {
    console.log(`${i + 1}. ${step}`)
  }
  return 0
}

function readManifest(): unknown {
  if (!existsSync('package.json')) {
    return undefined
  }
  try {
    return JSON.parse(readFileSync('package.json', 'utf8'))
  } catch (error) {
    throw new Error(`package.json cannot be read: ${error instanceof Error ? error.message : error}`)
  }
}

/** All of them, or none: false where somebody has not agreed. */
async function write({ secrets, modules }: Start, isAgreed: boolean): Promise<boolean> {
  const files = [...secrets, ...modules]
  const present = files.filter(({ name }) => existsSync(name)).map(({ name }) => name)
  if (present.length > 0 && !isAgreed && !(await ask(`${present.join(', ')}: overwrite?`))) {
    console.error(`nothing was written: ${present.join(', ')} is there already. --yes overwrites`)
    return false
  }
  for (const file of files) {
    const { name, text } = file
    mkdirSync(dirname(name), { recursive: true })
    const mode = secrets.includes(file) ? 0o600 : 0o644
    writeFileSync(name, text, { mode, flag: present.includes(name) ? 'w' : 'wx' })
    if (secrets.includes(file)) {
      chmodSync(name, mode) // of one that was there, too
    }
    console.log(`wrote ${name}`)
  }
  return true
}

/** No where nobody can answer. */
async function ask(question: string): Promise<boolean> {
  if (!process.stdin.isTTY) {
    return false
  }
  const terminal = createInterface({ input: process.stdin, output: process.stdout })
  try {
    return /^y(es)?$/i.test((await terminal.question(`${question} (y/N) `)).trim())
  } finally {
    terminal.close()
  }
}

function frameworkOf(name: string | undefined): Framework | undefined {
  const found = frameworks.find((each) => each === name)
  if (name !== undefined && found === undefined) {
    throw new Error(`"${name}" is no framework that is known: ${frameworks.join(', ')}`)
  }
  return found
}

/** A name that PostgreSQL takes without quotes. */
function roleOf(manifest: unknown): string {
  const name = isObject(manifest) && typeof manifest.name === 'string' ? manifest.name : 'app'
  return (
    name
      .toLowerCase()
      .replace(/^@.*\//, '')
      .replace(/\W+/g, '_')
      .replace(/^(?=\d)/, 'app_') || 'app'
  )
}

import { execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import {
  chmodSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import pg from 'pg'
import t, { type Test } from 'tap'
import { frameworks } from '../../clients/node/src/init.ts'
import { createTokenCache } from '../fixtures/client.ts'
import { createDatabase } from '../fixtures/database.ts'
import { until } from '../fixtures/until.ts'

const cli = fileURLToPath(new URL('../../clients/node/src/cli.js', import.meta.url))

/** A project with this `package.json`, in which the command is run. */
function project(t: Test, manifest?: object) {
  const folder = mkdtempSync(join(tmpdir(), 'msal-logout-init-'))
  t.teardown(() => rmSync(folder, { recursive: true, force: true }))
  symlinkSync(join(process.cwd(), 'node_modules'), join(folder, 'node_modules'))
  if (manifest !== undefined) {
    writeFileSync(join(folder, 'package.json'), JSON.stringify(manifest))
  }
  const node = (args: string[], env: Record<string, string> = {}) =>
    new Promise<{ code: number; output: string }>((resolve) => {
      execFile(process.execPath, args, { cwd: folder, env: { PATH: process.env.PATH, ...env } }, (error, out, err) =>
        resolve({ code: error === null ? 0 : Number(error.code), output: out + err })
      )
    })
  return {
    folder,
    node,
    init: (...args: string[]) => node([cli, 'init', ...args]),
    files: () => readdirSync(folder).filter((name) => name.startsWith('msal-logout')),
    read: (name: string) => readFileSync(join(folder, name), 'utf8')
  }
}

t.test('the framework is found in package.json, and what it lacks is named', async (t) => {
  const cases: [object | undefined, RegExp][] = [
    [{ dependencies: { express: '5' } }, /^For express:\n1\. npm install \S+ \S+ pg express-session$/m],
    [{ dependencies: { express: '5', 'cookie-session': '2' } }, /^For express:\n1\. npm install \S+ \S+ pg$/m],
    [
      { dependencies: { express: '5', 'cookie-session': '2', pg: '8', 'msal-logout-client': '0' } },
      /^1\. npm install @azure\/msal-node$/m
    ],
    [
      {
        dependencies: { next: '16', 'iron-session': '8', pg: '8', 'msal-logout-client': '0', '@azure/msal-node': '7' }
      },
      /^1\. As the owner/m
    ],
    [{ dependencies: { express: '5', passport: '1' } }, /^For passport:/m],
    [{ dependencies: { express: '^4.21.2' } }, /^7\. Express 4 does not wait for async handlers/m],
    [{ dependencies: { express: '4', passport: '1' } }, /^\d\. Express 4 does not wait/m],
    [{ dependencies: { '@nestjs/core': '11', express: '5' } }, /^For nestjs:/m],
    [{ dependencies: { '@nestjs/core': '10', express: '4' } }, /request\.token\(\)\n*$/], // it waits by itself
    [{ dependencies: { fastify: '5' } }, /^For fastify:\n.* @fastify\/cookie$/m],
    [{ dependencies: { next: '16', react: '19' } }, /^For nextjs:\n.* iron-session$/m],
    [{ devDependencies: {} }, /^For node:/m],
    [undefined, /^For node:/m]
  ]
  for (const [manifest, expected] of cases) {
    const { init, files } = project(t, manifest)
    const { code, output } = await init()
    t.equal(code, 0)
    t.match(output, expected)
    t.same(files(), [], 'nothing is written')
  }
})

t.test('it writes what is not there, and overwrites nothing without asking', async (t) => {
  const { folder, init, files, read } = project(t, { name: '@scope/My-Shop 2', dependencies: { express: '5' } })
  t.match(await init('--write', '--client-id', 'shop'), { code: 0, output: /wrote msal-logout\.js/ })
  t.same(files(), ['msal-logout.env', 'msal-logout.js', 'msal-logout.sql'])
  t.match(read('msal-logout.sql'), `select msal_logout.register_app('shop', 'my_shop_2');`)
  t.equal(statSync(join(folder, 'msal-logout.env')).mode & 0o077, 0, 'its password is for nobody else')
  t.equal(statSync(join(folder, 'msal-logout.sql')).mode & 0o077, 0)

  const before = files().map(read)
  t.match(await init('--write'), { code: 1, output: /nothing was written: .* is there already/ })
  t.same(files().map(read), before)
  rmSync(join(folder, 'msal-logout.js'))
  t.match(await init('--write'), { code: 1 })
  t.same(files(), ['msal-logout.env', 'msal-logout.sql'], 'all of them, or none')
  chmodSync(join(folder, 'msal-logout.env'), 0o644)
  t.match(await init('--write', '--yes'), { code: 0 })
  t.not(read('msal-logout.env'), before[0])
  t.equal(statSync(join(folder, 'msal-logout.env')).mode & 0o077, 0)
})

t.test('for Next.js it writes the route beside the module, where the app router has its folder', async (t) => {
  for (const folder of ['', 'src/']) {
    const { folder: home, init } = project(t, { dependencies: { next: '16', 'express-session': '1' } })
    mkdirSync(join(home, folder, 'app'), { recursive: true })
    t.match(await init('--write'), { code: 0, output: / pg iron-session$/m })
    t.match(readFileSync(join(home, folder, 'msal-logout.ts'), 'utf8'), /export const signIn = createSignIn/)
    const route = join(home, folder, 'app/[action]/route.ts')
    t.match(readFileSync(route, 'utf8'), /from '\.\.\/\.\.\/msal-logout'/)
    writeFileSync(route, 'of the app')
    rmSync(join(home, folder, 'msal-logout.ts'))
    t.match(await init('--write'), { code: 1, output: /app\/\[action\]\/route\.ts is there already/ })
    t.equal(readFileSync(route, 'utf8'), 'of the app')
  }
})

t.test('what it cannot do it says', async (t) => {
  const { folder, init, node } = project(t)
  t.match(await init('--framework', 'rails'), { code: 1, output: /"rails" is no framework that is known: express/ })
  t.match(await init('--force'), { code: 1, output: /--force/ })
  t.match(await node([cli]), { code: 1, output: /msal-logout-client init/ })
  t.match(await node([cli, '--help']), { code: 0, output: /--write/ })
  writeFileSync(join(folder, 'package.json'), '{')
  t.match(await init(), { code: 1, output: /^package\.json cannot be read: / })
})

t.test('the statements give the role what it needs, with the password of the environment', async (t) => {
  const database = await createDatabase(t)
  const { init, read } = project(t)
  await init('--write', '--client-id', "it's", '--role', 'init_test')
  await database.query('drop role if exists init_test')
  await database.query(read('msal-logout.sql'))
  database.roles.push('init_test')
  const url = new URL(database.url)
  const written = /^DATABASE_URL=postgres:\/\/([^:]+):([^@]+)@/m.exec(read('msal-logout.env'))
  url.username = written?.[1] ?? ''
  url.password = written?.[2] ?? ''
  const pool = new pg.Pool({ connectionString: url.href, connectionTimeoutMillis: 30_000 })
  pool.on('error', () => {})
  t.teardown(() => pool.end())
  const warnings: string[] = []
  await createTokenCache({ pool, clientId: "it's", onWarning: (message) => warnings.push(message) }).check()
  t.same(warnings, [])
})

t.test('the module of each framework is one, in either form', async (t) => {
  const env = {
    DATABASE_URL: 'postgres://u:p@127.0.0.1:1/d',
    AUTHORITY: 'https://issuer.example',
    CLIENT_ID: 'app',
    CLIENT_SECRET: 's',
    BASE_URL: 'https://app.example'
  }
  for (const framework of frameworks.filter((each) => each !== 'nextjs')) {
    for (const type of ['commonjs', 'module']) {
      const { init, node } = project(t, { type })
      await init('--write', '--framework', framework)
      const { code, output } = await node(
        ['--input-type=module', '-e', `console.log(Object.keys(await import('./msal-logout.js')).join())`],
        env
      )
      t.equal(code, 0, `${framework}, ${type}: ${output}`)
      t.match(output, /signIn|clients/)
    }
  }
})

/** `init --write` on a terminal, of `script` (util-linux), in a folder that has the module already. */
function initOnTerminal(t: Test) {
  const { folder } = project(t)
  const module = join(folder, 'msal-logout.js')
  writeFileSync(module, 'of the app')
  const command = `'${process.execPath}' '${cli}' init --write`
  const child = spawn('script', ['-qefc', command, '/dev/null'], { cwd: folder, stdio: ['pipe', 'pipe', 'inherit'] })
  t.teardown(() => child.kill('SIGKILL'))
  let output = ''
  child.stdout.setEncoding('utf8').on('data', (text: string) => {
    output += text
  })
  const exited = once(child, 'close')
  return {
    module: () => readFileSync(module, 'utf8'),
    async answer(text: string) {
      await until('it asks', () => /msal-logout\.js: overwrite\? \(y\/N\)/.test(output))
      child.stdin.write(text)
      const [code] = await exited
      return { code, output }
    }
  }
}

t.test('a person on a terminal is asked before a file is overwritten', async (t) => {
  for (const answer of ['n\r', '\r', 'yess\r', '\u0003', '\u0004']) {
    const { module, answer: give } = initOnTerminal(t)
    const { code, output } = await give(answer)
    t.not(code, 0, JSON.stringify(answer))
    t.notMatch(output, /wrote/)
    t.equal(module(), 'of the app')
  }
  const { module, answer } = initOnTerminal(t)
  t.match(await answer('y\r'), { code: 0, output: /wrote msal-logout\.js/ })
  t.match(module(), /createTokenCache/)
})

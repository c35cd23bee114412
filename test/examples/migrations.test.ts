// From what an app has today to the shared cache: each pair of apps runs, before and after, and their difference is small.
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { changedLines } from '../fixtures/changed-lines.ts'
import { examples, installApp, installPackages, packClient, run } from '../fixtures/installed-app.ts'
import { isSignedIn, loseDatabase, loseSession, signIn } from './behaviour.ts'
import { type AppOptions, createWorld } from './world.ts'

const world = await createWorld(t)

interface Migration {
  readonly name: string
  /** A folder of the examples, with `before` and `after`. */
  readonly folder: string
  readonly maxChangedLines: number
  readonly packages: readonly string[]
  readonly run: (version: 'before' | 'after') => Pick<AppOptions, 'args' | 'env'>
  /** Builds both. */
  readonly build?: (folder: string, version: 'before' | 'after') => Promise<{ code: number; output: string }>
  readonly prepare?: () => Promise<unknown>
  /** What the app answers without its database; default 503. */
  readonly unavailable?: number
}

const cjs = (version: string) => ({ args: [`${version}.cjs`] })
const express = ['express', 'express-session', '@azure/msal-node']
const nest = [
  ...['@nestjs/common', '@nestjs/core', '@nestjs/platform-express', 'reflect-metadata', 'rxjs'],
  ...['express-session', '@azure/msal-node', 'typescript@5.9'],
  ...['@types/node@20', '@types/express', '@types/express-session', '@types/pg']
]
const next = [
  ...['next', 'react', 'react-dom', 'iron-session', '@azure/msal-node', 'pg', 'typescript@5.9'],
  ...['@types/node@20', '@types/react', '@types/pg']
]
const nextEnv = { NEXT_TELEMETRY_DISABLED: '1', NODE_ENV: 'production' as const }
const needed = { CLIENT_ID: 'app', CLIENT_SECRET: 'x', AUTHORITY: 'https://localhost', SESSION_SECRET: 'x'.repeat(32) }

const migrations: Migration[] = [
  {
    name: 'tokens in memory, Express in CommonJS, 57 lines',
    folder: 'from-memory/express',
    maxChangedLines: 10,
    packages: express,
    run: cjs
  },
  {
    name: 'tokens in memory, NestJS in TypeScript',
    folder: 'from-memory/nestjs',
    maxChangedLines: 10,
    packages: nest,
    run: (version) => ({ args: [`dist/${version}.js`] }),
    build: (folder, version) => run(folder, 'npx', ['tsc', ...(version === 'before' ? ['--noCheck'] : [])])
  },
  {
    name: 'tokens in memory, Next.js in TypeScript',
    folder: 'from-memory/nextjs',
    maxChangedLines: 10,
    packages: next,
    run: (version) => ({ args: ['node_modules/next/dist/bin/next', 'start', version], env: nextEnv }),
    build: (folder, version) => run(folder, 'npx', ['next', 'build', version], { ...nextEnv, ...needed }),
    unavailable: 500 // Next.js knows no other
  },
  {
    name: "MSAL's DistributedCachePlugin",
    folder: 'from-distributed-cache-plugin',
    maxChangedLines: 11,
    packages: [...express, 'pg'],
    run: cjs,
    prepare: () =>
      world.owner.query('create table cache (key text primary key, value text not null); grant all on cache to public')
  },
  {
    name: 'express-openid-connect',
    folder: 'from-express-openid-connect',
    maxChangedLines: 18,
    packages: ['express', 'express-openid-connect'],
    run: cjs
  }
]

function pathOf(folder: string, version: string): string {
  const suffix = folder.endsWith('nextjs') ? '' : folder.endsWith('nestjs') ? '.ts' : '.cjs'
  return join(examples, folder, version + suffix)
}

async function start(t: Test, options: Omit<AppOptions, 'clientId'>) {
  const app = await world.startApp({ clientId: 'app', ...options })
  t.teardown(() => app.child.kill('SIGKILL'))
  return app
}

t.test('the app in memory has 57 lines', async (t) => {
  t.equal(readFileSync(pathOf('from-memory/express', 'before'), 'utf8').trimEnd().split('\n').length, 57)
})

for (const { name, folder, maxChangedLines, packages, run: startOptions, build, prepare, unavailable } of migrations) {
  t.test(`from ${name}`, async (t) => {
    const changed = changedLines(pathOf(folder, 'before'), pathOf(folder, 'after')).filter((line) => line[0] === '+')
    t.comment(`${name}: ${changed.length} lines changed`)
    t.ok(changed.length <= maxChangedLines, `${changed.length} lines changed`)
    await prepare?.()
    const cwd = await installApp(t, [[folder, '.']], packages)

    await t.test('before: a sign-out at the provider changes nothing here', async (t) => {
      t.match((await build?.(cwd, 'before')) ?? { code: 0 }, { code: 0 })
      const app = await start(t, { cwd, ...startOptions('before') })
      const alice = world.createBrowser()
      await world.signIn(alice, app, 'alice')
      t.match(await alice.open(`${app.url}/api`), { status: 200, body: /"sub":"alice"/ })
      await world.signOutAtProvider(alice, app)
      t.match((await alice.open(`${app.url}/`)).body, isSignedIn)
      app.child.kill('SIGKILL')
    })

    await t.test('after: it works at the first start, and a sign-out ends all of it', async (t) => {
      await installPackages(cwd, [await packClient(), 'pg', 'express-session'])
      t.match((await build?.(cwd, 'after')) ?? { code: 0 }, { code: 0 })
      const app = await start(t, { cwd, ...startOptions('after') })
      const alice = world.createBrowser()
      await loseSession(t, world, app, alice)
      await signIn(t, world, app, alice)
      await loseDatabase(t, world, app, unavailable ?? 503)
    })
  })
}

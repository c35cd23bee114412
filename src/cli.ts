#!/usr/bin/env node
import { readFileSync } from 'node:fs'
import { resolve } from 'node:path'
import { Command, CommanderError, InvalidArgumentError, Option } from 'commander'
import { CommandError, interrupted } from './commands/command-error.ts'
import type { CommandSurroundings, PurgeOptions } from './commands/purge.ts'
import type { EmbeddedPostgres } from './embedded-postgres.ts'
import { ConfigurationError } from './errors.ts'

// Every command loads what it alone needs when it runs: the service is ready sooner, and stays smaller.

const wrongUsage = 2

const program = new Command('msal-logout')
  .description('Empties the shared MSAL token cache when a user signs out at the identity provider.')
  .configureHelp({ showGlobalOptions: false })
  .showHelpAfterError('(--help tells what there is)')
  .version(version(), '-V, --version', 'print the version')
  .helpOption('-h, --help', 'print this')
  .helpCommand('help [command]', 'print the help of a command')
  .exitOverride()
  .addHelpText(
    'after',
    `
The environment is that of the README; "msal-logout <command> --help" tells the rest.

Exit codes:
  0  done
  1  failed
  2  wrong usage`
  )

program
  .command('serve')
  .description('bring the schema up to date and serve; SIGTERM stops it in good order')
  .action(async () => {
    const { serve } = await import('./server.ts')
    const { readConfig } = await import('./config.ts')
    const config = readConfig(process.env)
    await withDatabase(config.databaseUrl, (embedded) => serve(config, embedded))
  })

program
  .command('migrate')
  .description('bring the schema at DATABASE_URL up to date, and exit')
  .action(async () => {
    const { readDatabaseUrl } = await import('./config.ts')
    const databaseUrl = readDatabaseUrl(process.env)
    const { migrateAt } = await import('./migrate.ts')
    await withDatabase(databaseUrl, async (embedded) => {
      const migrations = await migrateAt(databaseUrl ?? embedded?.url)
      process.stdout.write(migrations.length === 0 ? 'the schema is current\n' : `migrated: ${migrations.join(', ')}\n`)
      await embedded?.stop()
    })
  })

program
  .command('purge')
  .description(
    "end sessions and delete rows, through the operators' listener of a running service; it shows what would go, and asks"
  )
  .optionsGroup('What is purged (one of these):')
  .option('--home-account-id <id>', 'one account, in every app; with --issuer where two issuers have that id')
  .option('--sid <sid>', 'one session, with --issuer')
  .option('--subject <sub>', 'every session of a subject, with --issuer')
  .option('--client-id <id>', "one app, with the app's own tokens")
  .option('--tenant-id <id>', 'one tenant: the part of an account id after its last dot')
  .option('--issuer <url>', 'whose sid, subject or account')
  .option('--follow <id>', 'nothing anew: a purge that is under way')
  .optionsGroup('How:')
  .option('--reason <text>', 'for the record; required')
  .option('--dry-run', 'only show what would go')
  .option('--force', 'more than 1,000 accounts are meant')
  .option('--yes', 'do not ask')
  .option('--idempotency-key <key>', 'take up an earlier try with this key; else one is made')
  .optionsGroup('The service:')
  .addOption(new Option('--url <url>', "the operators' address").env('ADMIN_URL').default('http://127.0.0.1:3001'))
  .option('--token-file <path>', "the operators' credentials; else the variable ADMIN_TOKEN")
  .option('--wait <seconds>', 'how long the service may be silent, as in a restart, before this gives up', '300')
  .optionsGroup('Output:')
  .option('--json', 'one JSON object on standard output, and nothing else')
  .addHelpText(
    'after',
    `
More than 10,000 accounts go on at the service in the background; this follows them, and can be interrupted.

Exit codes:
  0    done
  1    failed: the service cannot be reached, or refused the credentials
  2    wrong usage, or refused: by the person, or for want of --force or --yes
  130  interrupted; a purge that has begun goes on, and --follow finds it

Examples:
  msal-logout purge --home-account-id <uid>.<utid> --reason "laptop stolen, ticket 4711"
  msal-logout purge --tenant-id <utid> --reason "contract ended" --force --yes --json`
  )
  .action(async (options: PurgeOptions) => {
    const { purge } = await import('./commands/purge.ts')
    process.exitCode = await purge(options, surroundings())
  })

program
  .command('check')
  .description('look at all that the service needs, and tell what to do; it changes nothing')
  .option('--json', 'one JSON object on standard output, and nothing else')
  .addHelpText(
    'after',
    `
It looks at the configuration, the database, the schema, the role, the spool, each issuer with its keys and its
clock, and the operators' credentials, with the environment that the service would have.

Exit codes:
  0  nothing failed; there may be warnings
  1  something failed`
  )
  .action(async ({ json = false }: { json?: boolean }) => {
    const { check, toldFindings } = await import('./commands/check.ts')
    const findings = await check({ env: process.env })
    const ok = findings.every(({ status }) => status !== 'failed')
    process.stdout.write(json ? `${JSON.stringify({ ok, checks: findings })}\n` : toldFindings(findings))
    process.exitCode = ok ? 0 : 1
  })

const spool = program.command('spool').description('what is kept on disk for a database or for keys')

spool
  .command('list')
  .description('tell what waits and what was rejected, without what it is about; needs SPOOL_DIR alone')
  .option('--limit <n>', 'the most entries of each', countOf, 50)
  .option('--json', 'one JSON object on standard output, and nothing else')
  .addHelpText('after', '\nExit codes:\n  0  told\n  1  the folder cannot be read')
  .action(async ({ limit, json = false }: { limit: number; json?: boolean }) => {
    const { readSpoolDir } = await import('./config.ts')
    const { listSpool, toldListing } = await import('./commands/spool.ts')
    const listing = await listSpool(readSpoolDir(process.env), limit)
    process.stdout.write(json ? `${JSON.stringify(listing)}\n` : toldListing(listing))
  })

spool
  .command('replay')
  .description('carry out now what waits, with this configuration; safe beside a running service')
  .option('--json', 'one JSON object on standard output, and nothing else')
  .addHelpText(
    'after',
    `
Needs the environment of the service. A running service does the same by itself, every second at the latest.

Exit codes:
  0    nothing waits any more
  1    something still waits, for the database or for keys; or it failed
  130  interrupted; what was begun is done`
  )
  .action(async ({ json = false }: { json?: boolean }) => {
    const { readConfig } = await import('./config.ts')
    const { replaySpool } = await import('./commands/spool.ts')
    const config = readConfig(process.env)
    const { signal } = surroundings()
    await withDatabase(config.databaseUrl, async (embedded) => {
      const report = await replaySpool(config, config.databaseUrl ?? embedded?.url, signal)
      await embedded?.stop()
      const { done, refused, waiting } = report
      process.stdout.write(
        json ? `${JSON.stringify(report)}\n` : `${done} done, ${refused} refused, ${waiting} still waiting\n`
      )
      process.exitCode = signal.aborted ? interrupted : waiting === 0 ? 0 : 1
    })
  })

function countOf(value: string): number {
  if (!/^\d{1,7}$/.test(value)) {
    throw new InvalidArgumentError('It takes a number.')
  }
  return Number(value)
}

/** Ctrl-C tells the command, which then ends in good order; a second one ends it at once. */
function surroundings(): CommandSurroundings {
  const interruption = new AbortController()
  process.once('SIGINT', () => interruption.abort())
  process.once('SIGTERM', () => interruption.abort())
  const { env, stdin, stdout, stderr } = process
  return { env, stdin, stdout, stderr, signal: interruption.signal }
}

/** Where no database is named: one of our own, which goes when the work has failed. */
async function withDatabase(
  databaseUrl: string | undefined,
  work: (embedded: EmbeddedPostgres | undefined) => Promise<void>
): Promise<void> {
  if (databaseUrl !== undefined) {
    return work(undefined)
  }
  const { startEmbeddedPostgres } = await import('./embedded-postgres.ts')
  const embedded = await startEmbeddedPostgres({ dataDir: resolve('.data/postgres') })
  try {
    await work(embedded)
  } catch (error) {
    await embedded.stop()
    throw error
  }
}

function version(): string {
  const description: unknown = JSON.parse(readFileSync(new URL('../package.json', import.meta.url), 'utf8'))
  return typeof description === 'object' && description !== null && 'version' in description
    ? String(description.version)
    : 'unknown'
}

// `| head -1` has seen enough: the work goes on, and the exit code is that of the work.
for (const stream of [process.stdout, process.stderr]) {
  stream.on('error', (error: NodeJS.ErrnoException) => {
    if (error.code !== 'EPIPE') {
      process.stderr.write(`error: the output cannot be written (${error.code})\n`)
      process.exit(1)
    }
  })
}

try {
  await program.parseAsync()
} catch (error) {
  const { exitCode, code, message, told } = failureOf(error)
  if (exitCode !== 0) {
    process.stderr.write(told)
    if (process.argv.includes('--json')) {
      const outcome = exitCode === wrongUsage ? 'refused' : 'failed'
      process.stdout.write(`${JSON.stringify({ outcome, code, message })}\n`)
    }
  }
  process.exit(exitCode)
}

interface Failure {
  readonly exitCode: number
  /** For programs, and stable. */
  readonly code: string
  readonly message: string
  /** What a person is still to be told. */
  readonly told: string
}

/** What the surroundings refused is told in a line; only a mistake of ours is worth its stack. */
function failureOf(error: unknown): Failure {
  if (error instanceof CommanderError) {
    const message = error.message.replace(/^error: /, '')
    return { exitCode: error.exitCode === 0 ? 0 : wrongUsage, code: 'usage', message, told: '' } // it has told why
  }
  if (error instanceof CommandError) {
    const { exitCode, code, message } = error
    return { exitCode, code, message, told: `error: ${message}\n` }
  }
  const failed = (code: string, message: string, told = message) => ({ exitCode: 1, code, message, told: `${told}\n` })
  if (error instanceof ConfigurationError) {
    return failed(error.code, error.message)
  }
  if (!(error instanceof Error)) {
    return failed('unexpected', String(error))
  }
  if (!('code' in error) || typeof error.code !== 'string') {
    return failed('unexpected', error.message, error.stack)
  }
  const advice =
    'syscall' in error && error.syscall === 'listen'
      ? 'set PORT or ADMIN_PORT to one that is free'
      : '"msal-logout check" tells what to do'
  const message = `${error.message || 'failed'} (${error.code}): ${advice}`
  return failed(error.code, message, `error: ${message}`)
}

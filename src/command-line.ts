import { resolve } from 'node:path'
import { Command, CommanderError, InvalidArgumentError, Option } from 'commander'
import { CommandError, interrupted, printable } from './commands/command-error.ts'
import type { Decision, DecisionOptions } from './commands/directory.ts'
import type { OperatorOptions } from './commands/operator-command.ts'
import type { PurgeLimits, PurgeOptions } from './commands/purge.ts'
import type { StreamActionOptions } from './commands/stream.ts'
import type { CommandSurroundings } from './commands/surroundings.ts'
import type { EmbeddedPostgres } from './embedded-postgres.ts'
import { ConfigurationError } from './errors.ts'
import type { StreamAction } from './streams/streams.ts'
import { version } from './version.ts'

// Every command loads what it alone needs when it runs: the service is ready sooner, and stays smaller.

/** What the command line has of its process. */
export interface Surroundings extends Omit<CommandSurroundings, 'signal'> {
  /** From its first call on, the first Ctrl-C aborts this signal instead of ending the process. */
  readonly takeInterrupts: () => AbortSignal
}

const wrongUsage = 2
const defaultAdminUrl = 'http://127.0.0.1:3001'

/**
 * The command line, `msal-logout`.
 *
 * @param argv the words behind the program's name
 * @param surroundings of the process, or of a test
 * @param limits of `purge`; default those of its users
 * @returns the exit code; 0 of `serve` means that it serves, and the process goes on
 */
export async function main(
  argv: readonly string[],
  surroundings: Surroundings,
  limits: PurgeLimits = {}
): Promise<number> {
  const { stdout, stderr } = surroundings
  try {
    let exitCode = 0
    await createProgram(surroundings, limits, (code) => {
      exitCode = code
    }).parseAsync([...argv], { from: 'user' })
    return exitCode
  } catch (error) {
    const { exitCode, code, message, text } = failureOf(error)
    if (exitCode !== 0) {
      stderr.write(text)
      if (argv.includes('--json')) {
        const outcome = exitCode === wrongUsage ? 'refused' : 'failed'
        stdout.write(`${JSON.stringify({ outcome, code, message })}\n`)
      }
    }
    return exitCode
  }
}

function createProgram(surroundings: Surroundings, limits: PurgeLimits, exitWith: (code: number) => void): Command {
  const { env, stdout, stderr } = surroundings
  const program = new Command('msal-logout')
    .description('Empties the shared MSAL token cache when a user signs out at the identity provider.')
    .configureHelp({ showGlobalOptions: false })
    .configureOutput({ writeOut: (text) => stdout.write(text), writeErr: (text) => stderr.write(text) })
    .showHelpAfterError('(--help lists what there is)')
    .version(version(), '-V, --version', 'print the version')
    .helpOption('-h, --help', 'print this')
    .helpCommand('help [command]', 'print the help of a command')
    .exitOverride()
    .addHelpText(
      'after',
      `
The environment is that of the README; "msal-logout <command> --help" says more.

Exit codes:
  0  done
  1  failed
  2  wrong usage`
    )

  program
    .command('serve')
    .description(
      'bring the schema up to date and serve; SIGTERM stops it in good order, SIGHUP has it read its files again'
    )
    .action(async () => {
      const { serve } = await import('./server.ts')
      const { readConfig } = await import('./config.ts')
      const config = readConfig(env)
      await withDatabase(config.databaseUrl, (embedded) => serve(config, () => readConfig(env), embedded))
    })

  program
    .command('migrate')
    .description('bring the schema at DATABASE_URL up to date, as its owner, and exit')
    .option('--register-service <role>', 'give this role of the database what the service needs, and no token')
    .action(async ({ registerService: serviceRole }: { registerService?: string }) => {
      const { readDatabaseUrl } = await import('./config.ts')
      const databaseUrl = readDatabaseUrl(env)
      const { migrateAt } = await import('./migrate.ts')
      await withDatabase(databaseUrl, async (embedded) => {
        const migrations = await migrateAt(
          databaseUrl ?? embedded?.url,
          serviceRole === undefined ? {} : { serviceRole }
        )
        stdout.write(migrations.length === 0 ? 'the schema is current\n' : `migrated: ${migrations.join(', ')}\n`)
        if (serviceRole !== undefined) {
          stdout.write(`role "${printable(serviceRole)}" has what the service needs\n`)
        }
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
    .option(
      '--user <address>',
      'one person, by e-mail address or user name: a configured directory is asked, or the clicks at the provider are shown'
    )
    .option('--sid <sid>', 'one session, with --issuer')
    .option('--subject <sub>', 'every session of a subject, with --issuer')
    .option('--object-id <id>', 'one directory object, with the --tenant-id of its directory')
    .option('--client-id <id>', "one app, with the app's own tokens")
    .option('--tenant-id <id>', 'one tenant: the part of an account id after its last dot')
    .option('--issuer <url>', 'whose sid, subject or account')
    .option('--follow <id>', 'nothing anew: a purge that is under way')
    .optionsGroup('How:')
    .option('--reason <text>', 'for the record; required')
    .option('--issued-before <time>', 'spare what was issued later: an ISO time with a zone, or seconds since 1970')
    .option('--dry-run', 'only show what would go')
    .option('--force', 'more than 1,000 accounts are meant')
    .option('--yes', 'do not ask')
    .option('--idempotency-key <key>', 'take up an earlier try with this key; else one is made')
    .optionsGroup('The service:')
    .addOption(
      new Option('--url <url>', "the operators' address; else the variable ADMIN_URL").default(
        env.ADMIN_URL ?? defaultAdminUrl,
        defaultAdminUrl
      )
    )
    .addOption(
      new Option('--token-file <path>', "the operators' credentials; else the variable ADMIN_TOKEN").env(
        'ADMIN_TOKEN_FILE'
      )
    )
    .option('--wait <seconds>', 'how long the service may be silent, as in a restart, before this gives up', '300')
    .optionsGroup('Output:')
    .option('--json', 'one JSON object on standard output, and nothing else')
    .addHelpText(
      'after',
      `
More than 10,000 accounts go on at the service in the background; this follows them, and can be interrupted.

Exit codes:
  0    done
  1    failed: the service cannot be reached, or rejects the credentials
  2    wrong usage, or not confirmed: by the person, or for want of --force or --yes
  3    nothing matched; what comes close is shown
  130  interrupted; a purge that has begun goes on, and --follow finds it

Examples:
  msal-logout purge --home-account-id <uid>.<utid> --reason "laptop stolen, ticket 4711"
  msal-logout purge --tenant-id <utid> --reason "contract ended" --force --yes --json`
    )
    .action(async (options: PurgeOptions) => {
      const { purge } = await import('./commands/purge.ts')
      exitWith(await purge(options, { ...surroundings, signal: surroundings.takeInterrupts() }, limits))
    })

  program
    .command('check')
    .description('look at all that the service needs, and say what to do; it changes nothing')
    .option('--json', 'one JSON object on standard output, and nothing else')
    .optionsGroup('A real signal, at a running service:')
    .option(
      '--wait <issuer>',
      "wait for one of this issuer, by its name, and explain what comes of it; needs the operators' credentials"
    )
    .option('--for <seconds>', 'how long', '300')
    .option(
      '--url <url>',
      "the operators' address of an instance, again for each; else the variable ADMIN_URL",
      collect
    )
    .addOption(
      new Option('--token-file <path>', "the operators' credentials; else the variable ADMIN_TOKEN").env(
        'ADMIN_TOKEN_FILE'
      )
    )
    .addHelpText(
      'after',
      `
It looks at the configuration, the database, the schema, the role, the spool, each issuer with its keys, its clock
and its directory, and the operators' credentials, with the environment that the service would have.

Exit codes:
  0  nothing failed; there may be warnings; with --wait: the signal ended something
  1  something failed; with --wait: the signal ended nothing, or none came

Example:
  msal-logout check --wait contoso`
    )
    .action(async ({ json = false, ...waiting }: CheckOptions) => {
      if (waiting.wait !== undefined) {
        const { waitForSignal } = await import('./commands/wait.ts')
        const { wait, url = [env.ADMIN_URL ?? defaultAdminUrl] } = waiting
        const signal = surroundings.takeInterrupts()
        exitWith(await waitForSignal({ ...waiting, wait, url, json }, { ...surroundings, signal }, limits.pollMs))
        return
      }
      const { check, toldFindings } = await import('./commands/check.ts')
      const findings = await check({ env })
      const ok = findings.every(({ status }) => status !== 'failed')
      stdout.write(json ? `${JSON.stringify({ ok, checks: findings })}\n` : toldFindings(findings))
      exitWith(ok ? 0 : 1)
    })

  const directory = program
    .command('directory')
    .description("the directories that a running service watches, through its operators' listener")

  withService(directory.command('list'), env)
    .description('show how far each is, and whom its breaker or a dry run holds')
    .addHelpText('after', '\nExit codes:\n  0  shown\n  1  the service cannot be reached, or rejects the credentials')
    .action(async (options: OperatorOptions) => {
      const { listDirectories } = await import('./commands/directory.ts')
      exitWith(await listDirectories(options, { ...surroundings, signal: surroundings.takeInterrupts() }))
    })

  const decisions: readonly [Decision, string][] = [
    ['release', 'have purged whom the breaker holds; it shows who that is, and asks'],
    ['drop', 'have nothing done to whom the breaker holds; it shows who that is, and asks']
  ]
  for (const [decision, description] of decisions) {
    withService(directory.command(decision), env)
      .argument('<tenant id>', 'whose directory')
      .description(description)
      .option('--yes', 'do not ask')
      .addHelpText(
        'after',
        `
Exit codes:
  0    done
  1    failed: the service cannot be reached, or rejects the credentials
  2    wrong usage, or not confirmed: by the person, or for want of --yes
  3    no such directory is watched, or nothing is held
  130  interrupted`
      )
      .action(async (tenantId: string, options: DecisionOptions) => {
        const { decideDirectory } = await import('./commands/directory.ts')
        const signal = surroundings.takeInterrupts()
        exitWith(await decideDirectory(decision, tenantId, options, { ...surroundings, signal }))
      })
  }

  const stream = program
    .command('stream')
    .description("the streams of security events of a running service, through its operators' listener")

  withService(stream.command('list'), env)
    .description('show how far each is')
    .addHelpText('after', '\nExit codes:\n  0  shown\n  1  the service cannot be reached, or rejects the credentials')
    .action(async (options: OperatorOptions) => {
      const { listStreams } = await import('./commands/stream.ts')
      exitWith(await listStreams(options, { ...surroundings, signal: surroundings.takeInterrupts() }))
    })

  const actions: readonly [StreamAction, string][] = [
    ['create', 'create it at its transmitter, or have it be as it is configured'],
    ['verify', 'have the transmitter show that its events arrive'],
    ['pause', 'have the transmitter keep its events back; it asks'],
    ['resume', 'have the transmitter send its events again'],
    ['delete', 'delete it at its transmitter; it asks']
  ]
  for (const [action, description] of actions) {
    withService(stream.command(action), env)
      .argument('<name>', 'of the stream, as in ISSUERS_FILE')
      .description(description)
      .option('--yes', 'do not ask')
      .addHelpText(
        'after',
        `
Exit codes:
  0    done
  1    failed: the service or the transmitter cannot be reached, or rejects the credentials
  2    wrong usage, or not confirmed: by the person, or for want of --yes
  3    no such stream is configured
  130  interrupted`
      )
      .action(async (name: string, options: StreamActionOptions) => {
        const { manageStream } = await import('./commands/stream.ts')
        const signal = surroundings.takeInterrupts()
        exitWith(await manageStream(action, name, options, { ...surroundings, signal }))
      })
  }

  const spool = program.command('spool').description('what is deferred: on disk, for a database or for keys')

  spool
    .command('list')
    .description('show what is deferred and what was rejected, without what it is about; needs SPOOL_DIR alone')
    .option('--limit <n>', 'the most entries of each', countOf, 50)
    .option('--json', 'one JSON object on standard output, and nothing else')
    .addHelpText('after', '\nExit codes:\n  0  shown\n  1  the folder cannot be read')
    .action(async ({ limit, json = false }: { limit: number; json?: boolean }) => {
      const { readSpoolDir } = await import('./config.ts')
      const { listSpool, toldListing } = await import('./commands/spool.ts')
      const listing = await listSpool(readSpoolDir(env), limit)
      stdout.write(json ? `${JSON.stringify(listing)}\n` : toldListing(listing))
    })

  spool
    .command('retry')
    .description('carry out now what is deferred, with this configuration; safe beside a running service')
    .option('--json', 'one JSON object on standard output, and nothing else')
    .addHelpText(
      'after',
      `
Needs the environment of the service. A running service does the same by itself, every second at the latest.

Exit codes:
  0    nothing is deferred any more
  1    something still is, for the database or for keys; or it failed
  130  interrupted; what was begun is done`
    )
    .action(async ({ json = false }: { json?: boolean }) => {
      const { readConfig } = await import('./config.ts')
      const { retrySpool } = await import('./commands/spool.ts')
      const config = readConfig(env)
      const signal = surroundings.takeInterrupts()
      await withDatabase(config.databaseUrl, async (embedded) => {
        const report = await retrySpool(config, config.databaseUrl ?? embedded?.url, signal)
        await embedded?.stop()
        const { done, rejected, waiting } = report
        stdout.write(
          json ? `${JSON.stringify(report)}\n` : `${done} done, ${rejected} rejected, ${waiting} still deferred\n`
        )
        exitWith(signal.aborted ? interrupted : waiting === 0 ? 0 : 1)
      })
    })

  return program
}

/** The options of a command that asks a running service. */
function withService(command: Command, env: Surroundings['env']): Command {
  return command
    .optionsGroup('The service:')
    .addOption(
      new Option('--url <url>', "the operators' address; else the variable ADMIN_URL").default(
        env.ADMIN_URL ?? defaultAdminUrl,
        defaultAdminUrl
      )
    )
    .addOption(
      new Option('--token-file <path>', "the operators' credentials; else the variable ADMIN_TOKEN").env(
        'ADMIN_TOKEN_FILE'
      )
    )
    .optionsGroup('Output:')
    .option('--json', 'one JSON object on standard output, and nothing else')
}

interface CheckOptions {
  readonly json?: boolean
  readonly wait?: string
  readonly for: string
  readonly url?: readonly string[]
  readonly tokenFile?: string
}

function collect(value: string, before: readonly string[] = []): readonly string[] {
  return [...before, value]
}

function countOf(value: string): number {
  if (!/^\d{1,7}$/.test(value)) {
    throw new InvalidArgumentError('It takes a number.')
  }
  return Number(value)
}

/** Where no database is named: one of our own, which goes when the work has failed. */
async function withDatabase(
  databaseUrl: string | undefined,
  work: (embedded: EmbeddedPostgres | undefined) => Promise<void>
): Promise<void> {
  if (databaseUrl !== undefined) {
    return work(undefined)
  }
  const embedded = await startEmbedded()
  try {
    await work(embedded)
  } catch (error) {
    await embedded.stop()
    throw error
  }
}

async function startEmbedded(): Promise<EmbeddedPostgres> {
  try {
    const { startEmbeddedPostgres } = await import('./embedded-postgres.ts')
    return await startEmbeddedPostgres({ dataDir: resolve('.data/postgres') })
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'ERR_MODULE_NOT_FOUND') {
      // Neither the published package nor the image has it.
      throw new CommandError(
        1,
        'database_url_missing',
        'DATABASE_URL is not set, and an embedded PostgreSQL comes with a clone and its dev dependencies alone: set DATABASE_URL',
        { cause: error }
      )
    }
    throw error
  }
}

interface Failure {
  readonly exitCode: number
  /** For programs, and stable. */
  readonly code: string
  readonly message: string
  /** What a person still has to read. */
  readonly text: string
}

/** What the surroundings are at fault for fits into a line; only a mistake of ours is worth its stack. */
function failureOf(error: unknown): Failure {
  if (error instanceof CommanderError) {
    const message = error.message.replace(/^error: /, '')
    return { exitCode: error.exitCode === 0 ? 0 : wrongUsage, code: 'usage', message, text: '' } // it has said why
  }
  if (error instanceof CommandError) {
    const { exitCode, code, message } = error
    return { exitCode, code, message, text: `error: ${printable(message)}\n` }
  }
  const failed = (code: string, message: string, text = message) => ({ exitCode: 1, code, message, text: `${text}\n` })
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
      : '"msal-logout check" says what to do'
  const message = `${error.message || 'failed'} (${error.code}): ${advice}`
  return failed(error.code, message, `error: ${printable(message)}`)
}

#!/usr/bin/env node
import { readFileSync } from 'node:fs'
import { resolve } from 'node:path'
import { Command, CommanderError } from 'commander'
import { readConfig, readDatabaseUrl } from './config.ts'
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
  .addHelpText('after', '\nThe environment is that of the README; "msal-logout <command> --help" tells the rest.')

program
  .command('serve')
  .description('bring the schema up to date and serve; SIGTERM stops it in good order')
  .action(async () => {
    const { serve } = await import('./server.ts')
    const config = readConfig(process.env)
    await withDatabase(config.databaseUrl, (embedded) => serve(config, embedded))
  })

program
  .command('migrate')
  .description('bring the schema at DATABASE_URL up to date, and exit')
  .action(async () => {
    const databaseUrl = readDatabaseUrl(process.env)
    const { migrateAt } = await import('./migrate.ts')
    await withDatabase(databaseUrl, async (embedded) => {
      const migrations = await migrateAt(databaseUrl ?? embedded?.url)
      process.stdout.write(migrations.length === 0 ? 'the schema is current\n' : `migrated: ${migrations.join(', ')}\n`)
      await embedded?.stop()
    })
  })

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

try {
  await program.parseAsync()
} catch (error) {
  if (error instanceof CommanderError) {
    process.exit(error.exitCode === 0 ? 0 : wrongUsage) // it has told why
  }
  const told =
    error instanceof ConfigurationError ? error.message : error instanceof Error ? error.stack : String(error)
  process.stderr.write(`${told}\n`)
  process.exit(1)
}

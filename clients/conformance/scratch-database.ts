import { randomBytes } from 'node:crypto'
import pg from 'pg'
import { startEmbeddedPostgres } from '../../src/embedded-postgres.ts'
import { migrate } from '../../src/migrate.ts'

export interface ScratchDatabase {
  /** A migrated database of its own, as its owner. */
  readonly url: string
  /** The server, as its superuser. */
  readonly serverUrl: string
}

/**
 * Does the work with a database that is dropped afterwards: on the server that TEST_DATABASE_URL names, or else on one that
 * is started for it.
 *
 * @param name part of the database's name
 */
export async function withScratchDatabase(
  name: string,
  work: (database: ScratchDatabase) => Promise<void>
): Promise<void> {
  const settings = { fsync: 'off', max_connections: '300' }
  const postgres = process.env.TEST_DATABASE_URL === undefined ? await startEmbeddedPostgres({ settings }) : undefined
  const serverUrl = process.env.TEST_DATABASE_URL ?? postgres?.url ?? ''
  const database = `test_${name}_${randomBytes(6).toString('hex')}`
  const url = new URL(serverUrl)
  url.pathname = `/${database}`
  try {
    await execute(serverUrl, `create database ${database}`)
    const owner = new pg.Pool({ connectionString: url.href })
    await migrate(owner).finally(() => owner.end())
    await work({ url: url.href, serverUrl })
  } finally {
    await execute(serverUrl, `drop database if exists ${database} with (force)`)
    await postgres?.stop()
  }
}

async function execute(url: string, text: string): Promise<void> {
  const client = new pg.Client({ connectionString: url })
  await client.connect()
  await client.query(text).finally(() => client.end())
}

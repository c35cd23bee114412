import { randomUUID } from 'node:crypto'
import { setTimeout as pause } from 'node:timers/promises'
import { maxAccountsUnforced as usualMaxAccountsUnforced } from '../signals/operator.ts'
import { CommandError, interrupted, nothingMatched, printable } from './command-error.ts'
import { addressOf, secondsOf, tokenSource, usage } from './operator-access.ts'
import { type Counts, createOperatorClient, type Progress, type PurgeBody, UnansweredError } from './operator-client.ts'
import { createProgress } from './progress.ts'
import { quoteWord } from './shell.ts'
import { type CommandSurroundings, confirm } from './surroundings.ts'

/** The options of `msal-logout purge`, as commander gives them. */
export interface PurgeOptions {
  readonly homeAccountId?: string
  /** An e-mail address or a user name, for the directories. */
  readonly user?: string
  readonly issuer?: string
  readonly sid?: string
  readonly subject?: string
  readonly clientId?: string
  readonly tenantId?: string
  readonly objectId?: string
  /** An ISO time with a zone, or seconds since 1970. */
  readonly issuedBefore?: string
  readonly reason?: string
  readonly dryRun?: boolean
  readonly force?: boolean
  readonly yes?: boolean
  readonly json?: boolean
  readonly url: string
  readonly tokenFile?: string
  readonly idempotencyKey?: string
  /** How long the service may be silent before the command gives up, in seconds. */
  readonly wait: string
  /** The id of a purge that is under way. */
  readonly follow?: string
}

/** For tests, which have neither the accounts nor the time. */
export interface PurgeLimits {
  /** More accounts need `--force`; default 1,000, as of the service. */
  readonly maxAccountsUnforced?: number
  /** Milliseconds between two looks at a purge that is under way; default 500. */
  readonly pollMs?: number
}

const numbers = new Intl.NumberFormat('en')
const outcomes = { 1: 'failed', 2: 'refused', 3: 'unmatched' } as const

/**
 * Purges by the operators' HTTP API: shows what would go, asks, orders it, and follows it to its end.
 *
 * @returns the exit code: 0 done, 1 failed, 2 wrong usage or not confirmed by the person, 3 nothing matched, 130 interrupted
 */
export async function purge(
  options: PurgeOptions,
  surroundings: CommandSurroundings,
  { maxAccountsUnforced = usualMaxAccountsUnforced, pollMs = 500 }: PurgeLimits = {}
): Promise<number> {
  const { stdout, stderr, signal } = surroundings
  const say = (text: string) => stderr.write(`${text}\n`)
  const conclude = (result: object, text: string) => {
    stdout.write(options.json === true ? `${JSON.stringify(result)}\n` : text)
  }
  // How to go on, once there is something to go on with.
  let resumption = 'nothing was done'
  // The last that is known of the purge.
  let known: Progress | undefined

  async function run(): Promise<number> {
    const given = options.follow === undefined ? bodyOf(options) : refuseOrders(options)
    if (options.idempotencyKey !== undefined && !/^[\x20-\x7e]{1,255}$/.test(options.idempotencyKey)) {
      throw usage('--idempotency-key takes 1 to 255 printable characters of ASCII') // no header bears others
    }
    const client = createOperatorClient({
      url: addressOf(options.url),
      token: tokenSource(options.tokenFile, surroundings.env),
      signal
    })
    const waitMs = secondsOf('--wait', options.wait) * 1_000
    const progress = createProgress(stderr)

    /** Bears a service that restarts: tries again until it was silent for too long. */
    async function patiently<T>(work: () => Promise<T>): Promise<T> {
      const silentSince = performance.now()
      for (let tries = 0; ; tries++) {
        try {
          const result = await work()
          progress.note('')
          return result
        } catch (error) {
          if (!(error instanceof UnansweredError) || performance.now() - silentSince > waitMs) {
            throw error
          }
          progress.note(`${error.message}; trying again for ${numbers.format(waitMs / 1_000)} s`)
          await pause(Math.min(pollMs * (tries + 1), 5_000), undefined, { signal })
        }
      }
    }

    async function follow(first: Progress): Promise<void> {
      known = first
      resumption = `the purge goes on at the service; follow it by: ${followCommand(options, first.id)}`
      while (!known.isDone) {
        progress.show(known)
        await pause(pollMs, undefined, { signal })
        known = await patiently(() => client.find(first.id))
      }
      progress.show(known)
    }

    try {
      if (given === undefined) {
        await follow(await patiently(() => client.find(options.follow ?? '')))
      } else {
        const body = options.user === undefined ? given : await ofUser(client, options.user, given, say)
        const preview = await client.preview(body)
        const near = preview.near?.map(({ message }) => message)
        if (options.dryRun === true && near !== undefined) {
          conclude({ outcome: 'unmatched', ...countsOf(preview), near }, unmatchedText(body, near))
          return nothingMatched
        }
        if (options.dryRun === true) {
          conclude({ outcome: 'dry_run', ...countsOf(preview) }, described('this would be purged', preview))
          return 0
        }
        checkSize(body, preview, maxAccountsUnforced)
        if (options.yes !== true) {
          const question =
            near === undefined ? 'Purge it?' : 'Purge it all the same, so that no login under way is stored?'
          const text = near === undefined ? described('this would be purged', preview) : unmatchedText(body, near)
          await confirm(surroundings, `${text}${question} [y/N] `)
        } else if (options.json !== true) {
          say((near === undefined ? described('this is to be purged', preview) : unmatchedText(body, near)).trimEnd())
        }
        const key = options.idempotencyKey ?? randomUUID()
        resumption = `the service may have begun: the same command with "--idempotency-key ${key}" takes it up, and does nothing twice`
        await follow(await patiently(() => client.order(body, key)))
      }
    } finally {
      progress.stop()
    }
    if (known !== undefined && isNothing(known)) {
      conclude(
        { outcome: 'unmatched', id: known.id, ...countsOf(known) },
        `nothing matched, and nothing was purged; the record of it is ${printable(known.id)}\n`
      )
      return nothingMatched
    }
    if (known !== undefined) {
      const text = `${described('purged', known)}the record of it is ${printable(known.id)}\n`
      conclude({ outcome: 'done', id: known.id, ...countsOf(known) }, text)
    }
    return 0
  }

  try {
    return await run()
  } catch (error) {
    if (signal.aborted) {
      say(`interrupted: ${resumption}`)
      if (options.json === true) {
        const far = known === undefined ? {} : { id: known.id, ...countsOf(known), total: known.total }
        conclude({ outcome: 'interrupted', ...far, message: resumption }, '')
      }
      return interrupted
    }
    if (error instanceof CommandError) {
      const isUnderWay = known !== undefined && !known.isDone
      const message = isUnderWay ? `${error.message}; ${resumption}` : error.message
      say(`error: ${printable(message)}`)
      if (options.json === true) {
        const id = known === undefined ? {} : { id: known.id }
        const outcome = outcomes[error.exitCode]
        conclude({ outcome, code: error.code, message, ...id }, '')
      }
      return error.exitCode
    }
    throw error
  }
}

function bodyOf(options: PurgeOptions): PurgeBody {
  const { homeAccountId, issuer, sid, subject, objectId, clientId, tenantId, reason, force = false } = options
  const selectors = {
    '--home-account-id': homeAccountId,
    '--user': options.user,
    '--sid': sid,
    '--subject': subject,
    '--object-id': objectId,
    '--client-id': clientId,
    '--tenant-id': objectId === undefined ? tenantId : undefined
  }
  const given = Object.entries(selectors).filter(([, value]) => value !== undefined)
  const names = Object.keys(selectors).join(', ')
  const [selected] = given
  if (selected === undefined) {
    throw usage(`nothing says what to purge: give one of ${names}`)
  }
  if (given.length > 1) {
    throw usage(`${given.map(([name]) => name).join(' and ')} do not go together: give one of ${names}`)
  }
  const [name] = selected
  if (issuer === undefined && (sid !== undefined || subject !== undefined)) {
    throw usage(`${name} says nothing without its issuer: add --issuer <url>`)
  }
  if (objectId !== undefined && tenantId === undefined) {
    throw usage(`${name} says nothing without its tenant: add --tenant-id <id>`)
  }
  if (issuer !== undefined && (options.user ?? clientId ?? tenantId) !== undefined) {
    throw usage(`${name} takes no --issuer: leave it out`)
  }
  if (reason === undefined || reason.trim() === '') {
    throw usage('a purge needs a reason, for its record: add --reason <text>')
  }
  const issuedBefore = /^\d+$/.test(options.issuedBefore ?? '') ? Number(options.issuedBefore) : options.issuedBefore
  return { homeAccountId, issuer, sid, subject, clientId, tenantId, objectId, issuedBefore, reason, force }
}

/** The directory object of a user; or how to find one by hand, in lines to read. */
async function ofUser(
  client: ReturnType<typeof createOperatorClient>,
  user: string,
  body: PurgeBody,
  say: (text: string) => void
): Promise<PurgeBody> {
  const { objects, hasDirectory, clicks } = await client.findUser(user)
  const [object, ...others] = objects
  if (others.length > 0) {
    const all = objects
      .map(({ tenantId, objectId }) => `"--tenant-id ${quoteWord(tenantId)} --object-id ${quoteWord(objectId)}"`)
      .join(', or ')
    throw new CommandError(2, 'ambiguous_user', `"${user}" is the name of several: give ${all}`)
  }
  if (object === undefined) {
    for (const { issuer, provider, path, purgeBy } of clicks) {
      say(printable(`${issuer} (${provider}): ${path}; then ${purgeBy}`))
    }
    const why = hasDirectory ? `no directory knows "${user}"` : 'no directory is configured to ask'
    throw new CommandError(
      nothingMatched,
      'user_unknown',
      `no address is stored here, and ${why}: find the id as above`
    )
  }
  return { ...body, ...object }
}

function isNothing({ accounts, sessions, rows }: Counts): boolean {
  return accounts === 0 && sessions === 0 && rows === 0
}

function unmatchedText({ homeAccountId, subject, objectId }: PurgeBody, near: readonly string[]): string {
  const named = homeAccountId ?? subject ?? objectId ?? ''
  const close = near.map((message) => `  ${printable(message)}\n`)
  const isAddress = named.includes('@') && close.length === 0
  return [
    'nothing matched: neither a session nor a row is stored\n',
    ...(close.length === 0 ? [] : ['this comes close:\n', ...close]),
    ...(isAddress ? [`  "${printable(named)}" looks like an e-mail address: --user finds whose it is\n`] : [])
  ].join('')
}

/** With `--follow` nothing may say what is to be purged: it would not be purged. */
function refuseOrders(options: PurgeOptions): undefined {
  const { homeAccountId, user, issuer, sid, subject, clientId, tenantId, objectId } = options
  const { issuedBefore, reason, dryRun, force, idempotencyKey } = options
  const orders = {
    '--home-account-id': homeAccountId,
    '--user': user,
    '--issuer': issuer,
    '--sid': sid,
    '--subject': subject,
    '--client-id': clientId,
    '--tenant-id': tenantId,
    '--object-id': objectId,
    '--issued-before': issuedBefore,
    '--reason': reason,
    '--dry-run': dryRun,
    '--force': force,
    '--idempotency-key': idempotencyKey
  }
  const [given] = Object.entries(orders).find(([, value]) => value !== undefined) ?? []
  if (given !== undefined) {
    throw usage(`--follow begins nothing anew, and takes no ${given}: leave one of them out`)
  }
}

/** The service would say the same, but after the question. */
function checkSize({ force }: PurgeBody, { accounts }: Counts, maxAccountsUnforced: number): void {
  if (!force && accounts > maxAccountsUnforced) {
    throw new CommandError(
      2,
      'too_many_accounts',
      `this would purge ${numbers.format(accounts)} accounts, more than ${numbers.format(maxAccountsUnforced)}: add --force if it is meant`
    )
  }
}

/** Ready to be pasted into a shell. */
export function followCommand({ url, tokenFile }: Pick<PurgeOptions, 'url' | 'tokenFile'>, id: string): string {
  const credentials = tokenFile === undefined ? '' : ` --token-file ${quoteWord(tokenFile)}`
  return `msal-logout purge --follow ${id} --url ${quoteWord(url)}${credentials}`
}

function countsOf({ accounts, sessions, rows, rowsByClient }: Counts): Counts {
  return { accounts, sessions, rows, rowsByClient }
}

function described(title: string, { accounts, sessions, rows, rowsByClient }: Counts): string {
  const byClient = Object.entries(rowsByClient).map(([clientId, n]): [string, number] => [
    `  ${printable(clientId)}`,
    n
  ])
  const lines: [string, number][] = [['accounts', accounts], ['sessions', sessions], ['rows', rows], ...byClient]
  const width = Math.max(...lines.map(([name]) => name.length))
  const digits = Math.max(...lines.map(([, n]) => numbers.format(n).length))
  const table = lines.map(([name, n]) => `  ${name.padEnd(width)}  ${numbers.format(n).padStart(digits)}\n`)
  return `${title}:\n${table.join('')}`
}

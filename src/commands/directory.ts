import { CommandError, nothingMatched, printable } from './command-error.ts'
import { howOften } from './counted.ts'
import type { WatchedDirectory } from './operator-client.ts'
import { act, type OperatorOptions, show } from './operator-command.ts'
import { type CommandSurroundings, confirm } from './surroundings.ts'

/** The options of `msal-logout directory release` and `drop`, as commander gives them. */
export interface DecisionOptions extends OperatorOptions {
  readonly yes?: boolean
}

/** What an operator does about those whom a breaker holds. */
export type Decision = 'release' | 'drop'

const numbers = new Intl.NumberFormat('en')
const decided = {
  release: { outcome: 'released', effect: 'the next round purges who is still gone' },
  drop: { outcome: 'dropped', effect: 'nobody is purged, as long as the directory says nothing new' }
} as const
// A question is read as a whole.
const maxShown = 20

/** Shows how far each watched directory is, and who is held; returns the exit code. */
export function listDirectories(options: OperatorOptions, surroundings: CommandSurroundings): Promise<number> {
  return show(
    options,
    surroundings,
    async (client) => ({ directories: await client.directories() }),
    ({ directories }) =>
      directories.map((directory) => described(directory, Number.POSITIVE_INFINITY)).join('\n') ||
      'no directory is watched: none is configured\n'
  )
}

/**
 * Lets go or drops what the breaker of a directory holds: shows who that is, and asks.
 *
 * @param tenantId of the directory
 * @returns the exit code: 0 done, 1 failed, 2 wrong usage or not confirmed by the person, 3 nothing is held, 130 interrupted
 */
export function decideDirectory(
  decision: Decision,
  tenantId: string,
  options: DecisionOptions,
  surroundings: CommandSurroundings
): Promise<number> {
  const { outcome, effect } = decided[decision]
  return act(options, surroundings, async (client, { say, conclude, reached }) => {
    const directory = heldBy(await client.directories(), tenantId.toLowerCase())
    const shown = described(directory, maxShown)
    if (options.yes !== true) {
      const verb = decision === 'release' ? 'Release' : 'Drop'
      await confirm(surroundings, `${shown}${verb} what is held, so that ${effect}? [y/N] `)
    } else if (options.json !== true) {
      say(shown.trimEnd())
    }
    reached('the service may have done it: "msal-logout directory list" shows it')
    const accounts = await client.decide(directory.tenantId, decision).catch((error: unknown) => {
      const isOver = error instanceof CommandError && error.code === 'breaker_closed' // somebody else was first
      throw isOver ? new CommandError(nothingMatched, error.code, error.message) : error
    })
    conclude(
      { outcome, tenantId: directory.tenantId, accounts },
      `${outcome}: ${numbers.format(accounts)} held; ${effect}\n`
    )
  })
}

/** @throws {CommandError} if it is not watched, or holds nothing that could be decided about */
function heldBy(directories: readonly WatchedDirectory[], tenantId: string): WatchedDirectory {
  const directory = directories.find((each) => each.tenantId === tenantId)
  if (directory === undefined) {
    const watched = directories.map((each) => each.tenantId).join(', ')
    const instead = watched === '' ? 'none is configured' : `watched are ${watched}`
    throw new CommandError(
      nothingMatched,
      'not_found',
      `no directory of the tenant "${tenantId}" is watched: ${instead}`
    )
  }
  if (directory.breaker === null) {
    const why = directory.dryRun ? 'it is a dry run, which only shows' : 'its breaker is not open'
    throw new CommandError(nothingMatched, 'breaker_closed', `nothing is held: ${why}`)
  }
  return directory
}

function described(directory: WatchedDirectory, shownAtMost: number): string {
  const { issuer, tenantId, dryRun, breaker, held, heldCount } = directory
  const { goodAt, deltaAt, hasDelta, sweptAt, watched, unwatched } = directory
  const never = 'never'
  const lines: [string, string][] = [
    ['last good round', goodAt ?? never],
    ['changes asked for', hasDelta ? (deltaAt ?? never) : 'it has no delta queries: it is swept alone'],
    ['swept', sweptAt ?? never],
    ['watched', watched === null ? 'unknown' : numbers.format(watched)],
    ['not watchable', unwatched === null ? 'unknown' : numbers.format(unwatched)],
    ...failureOf('changes', directory.deltaFailure),
    ...failureOf('sweep', directory.sweepFailure)
  ]
  if (breaker !== null) {
    const { found, openedAt } = breaker
    const share = `${numbers.format(found)} of ${numbers.format(breaker.watched)}`
    lines.push(['breaker', `open since ${openedAt}: ${share} in one round`])
  } else if (dryRun) {
    lines.push(['dry run', `${numbers.format(heldCount)} would be purged`])
  }
  const width = Math.max(...lines.map(([name]) => name.length))
  const table = lines.map(([name, value]) => `  ${name.padEnd(width)}  ${printable(value)}\n`)
  const shown = held.slice(0, shownAtMost)
  const people = shown.map(({ objectId, event, detail }) => printable(`    ${objectId}  ${event}: ${detail}`))
  const rest = heldCount - shown.length
  const more = rest > 0 ? [`    and ${numbers.format(rest)} more`] : []
  const list = [...people, ...more].map((line) => `${line}\n`).join('')
  return `${printable(issuer)}, tenant ${printable(tenantId)}\n${table.join('')}${list}`
}

function failureOf(what: string, failure: WatchedDirectory['deltaFailure']): [string, string][] {
  if (failure === null) {
    return []
  }
  const { code, detail, since, count } = failure
  const more = detail === null ? '' : ` (${detail})`
  return [[`${what} failed`, `${code}${more} since ${since}, ${howOften(count)}`]]
}

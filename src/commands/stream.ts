import type { StreamAction } from '../streams/streams.ts'
import { CommandError, nothingMatched, printable } from './command-error.ts'
import { howOften } from './counted.ts'
import type { ManagedStream } from './operator-client.ts'
import { act, type OperatorOptions, show } from './operator-command.ts'
import { type CommandSurroundings, confirm } from './surroundings.ts'

/** The options of what is done with a stream, as commander gives them. */
export interface StreamActionOptions extends OperatorOptions {
  readonly yes?: boolean
}

const done: Readonly<Record<StreamAction, string>> = {
  create: 'created, or as it is configured',
  verify: 'the transmitter was asked to show that its events arrive: verifiedAt is new when it has',
  pause: 'paused: the transmitter keeps its events back',
  resume: 'resumed',
  delete: 'deleted at the transmitter: nothing comes any more, until it is created again'
}
// What costs events if it was a mistake.
const questions: Readonly<Partial<Record<StreamAction, string>>> = {
  pause: 'Have the transmitter keep its events back, so that nobody is signed out by them?',
  delete: 'Delete the stream at the transmitter, so that no event comes any more, and what it holds back is lost?'
}

/** Shows how far each stream is; returns the exit code. */
export function listStreams(options: OperatorOptions, surroundings: CommandSurroundings): Promise<number> {
  return show(
    options,
    surroundings,
    async (client) => ({ streams: await client.streams() }),
    ({ streams }) => streams.map(described).join('\n') || 'no stream is configured\n'
  )
}

/**
 * Has something done with a stream at its transmitter; asks first if events could be missed by it.
 *
 * @param name of the stream, in the configuration
 * @returns the exit code: 0 done, 1 failed, 2 wrong usage or not confirmed by the person, 3 no such stream, 130 interrupted
 */
export function manageStream(
  action: StreamAction,
  name: string,
  options: StreamActionOptions,
  surroundings: CommandSurroundings
): Promise<number> {
  return act(options, surroundings, async (client, { conclude, reached }) => {
    const stream = namedIn(await client.streams(), name)
    const question = questions[action]
    if (question !== undefined && options.yes !== true) {
      await confirm(surroundings, `${described(stream)}${question} [y/N] `)
    }
    reached('the transmitter may have done it: "msal-logout stream list" shows it')
    const after = await client.manageStream(name, action)
    conclude({ outcome: 'done', action, stream: after }, `${done[action]}\n${described(after)}`)
  })
}

/** @throws {CommandError} if none has this name */
function namedIn(streams: readonly ManagedStream[], name: string): ManagedStream {
  const stream = streams.find((each) => each.name === name)
  if (stream === undefined) {
    const names = streams.map((each) => each.name).join(', ')
    const instead = names === '' ? 'none is configured' : `configured are ${names}`
    throw new CommandError(nothingMatched, 'not_found', `no stream is called "${name}": ${instead}`)
  }
  return stream
}

function described(stream: ManagedStream): string {
  const { name, issuer, delivery, streamId, status, statusReason, missingEvents, failure } = stream
  const never = 'never'
  const stopped = stream.isDeleted ? 'deleted by an operator' : stream.isPaused ? 'paused by an operator' : undefined
  const said = `${status ?? 'not known'}${statusReason === null ? '' : ` (${statusReason})`}`
  const lines: [string, string][] = [
    ['status', stopped ?? (stream.isManaged ? said : 'looked after at the transmitter')],
    ['stream id', streamId ?? 'none'],
    ['last well', stream.goodAt ?? never],
    ['last event', stream.heardAt ?? never],
    ['last verified', stream.verifiedAt ?? (stream.canVerify ? never : 'the transmitter cannot be asked')]
  ]
  if (missingEvents.length > 0) {
    lines.push(['not sent', missingEvents.join(', ')])
  }
  if (stream.sendsNobodyByDefault) {
    lines.push([
      'subjects',
      'none by default, by its metadata: nothing comes of anybody who was not added there, unless it is set otherwise for this receiver'
    ])
  }
  if (failure !== null) {
    const detail = failure.detail === null ? '' : ` (${failure.detail})`
    lines.push(['failed', `${failure.code}${detail} since ${failure.since}, ${howOften(failure.count)}`])
  }
  const width = Math.max(...lines.map(([label]) => label.length))
  const table = lines.map(([label, value]) => `  ${label.padEnd(width)}  ${printable(value)}\n`)
  return `${printable(name)}, by ${delivery} from ${printable(issuer)}\n${table.join('')}`
}

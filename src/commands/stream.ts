import type { StreamAction } from '../streams/streams.ts'
import { CommandError, interrupted, nothingMatched, printable } from './command-error.ts'
import { addressOf, tokenSource } from './operator-access.ts'
import { createOperatorClient, type ManagedStream } from './operator-client.ts'
import { type CommandSurroundings, confirm } from './surroundings.ts'

/** The options of `msal-logout stream …`, as commander gives them. */
export interface StreamOptions {
  readonly url: string
  readonly tokenFile?: string
  readonly json?: boolean
}

export interface StreamActionOptions extends StreamOptions {
  readonly yes?: boolean
}

const outcomes = { 1: 'failed', 2: 'refused', 3: 'unmatched' } as const
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
export async function listStreams(
  options: StreamOptions,
  { env, stdout, signal }: CommandSurroundings
): Promise<number> {
  try {
    const streams = await clientOf(options, env, signal).streams()
    const text = streams.map(described).join('\n')
    const none = 'no stream is configured\n'
    stdout.write(options.json === true ? `${JSON.stringify({ streams })}\n` : text || none)
    return 0
  } catch (error) {
    if (signal.aborted) {
      return interrupted
    }
    throw error
  }
}

/**
 * Has something done with a stream at its transmitter; asks first if events could be missed by it.
 *
 * @param name of the stream, in the configuration
 * @returns the exit code: 0 done, 1 failed, 2 wrong usage or not confirmed by the person, 3 no such stream, 130 interrupted
 */
export async function manageStream(
  action: StreamAction,
  name: string,
  options: StreamActionOptions,
  surroundings: CommandSurroundings
): Promise<number> {
  const { env, stdout, stderr, signal } = surroundings
  const say = (text: string) => stderr.write(`${text}\n`)
  const conclude = (result: object, text: string) => {
    stdout.write(options.json === true ? `${JSON.stringify(result)}\n` : text)
  }
  let known = 'nothing was done'

  async function run(): Promise<number> {
    const client = clientOf(options, env, signal)
    const stream = namedIn(await client.streams(), name)
    const question = questions[action]
    if (question !== undefined && options.yes !== true) {
      await confirm(surroundings, `${described(stream)}${question} [y/N] `)
    }
    known = 'the transmitter may have done it: "msal-logout stream list" shows it'
    const after = await client.manageStream(name, action)
    conclude({ outcome: 'done', action, stream: after }, `${done[action]}\n${described(after)}`)
    return 0
  }

  try {
    return await run()
  } catch (error) {
    if (signal.aborted) {
      say(`interrupted: ${known}`)
      if (options.json === true) {
        conclude({ outcome: 'interrupted', message: known }, '')
      }
      return interrupted
    }
    if (!(error instanceof CommandError)) {
      throw error
    }
    say(`error: ${printable(error.message)}`)
    if (options.json === true) {
      conclude({ outcome: outcomes[error.exitCode], code: error.code, message: error.message }, '')
    }
    return error.exitCode
  }
}

function clientOf({ url, tokenFile }: StreamOptions, env: CommandSurroundings['env'], signal: AbortSignal) {
  return createOperatorClient({ url: addressOf(url), token: tokenSource(tokenFile, env), signal })
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
    lines.push(['failed', `${failure.code}${detail} since ${failure.since}, ${failure.count} times`])
  }
  const width = Math.max(...lines.map(([label]) => label.length))
  const table = lines.map(([label, value]) => `  ${label.padEnd(width)}  ${printable(value)}\n`)
  return `${printable(name)}, by ${delivery} from ${printable(issuer)}\n${table.join('')}`
}

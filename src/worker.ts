import cluster from 'node:cluster'
import { getSystemErrorMap } from 'node:util'
import { type PackedConfig, unpackConfig } from './config.ts'
import { createLogger } from './logger.ts'
import type { Counted } from './metrics.ts'
import { reasonOf } from './outcome-log.ts'
import { createForwarding, readForwarded } from './outcome-transfer.ts'
import { openChannel } from './process-channel.ts'
import { createService, describeService, type Edges, type Reloaded, type Service } from './service.ts'
import { version } from './version.ts'

/** What a process begins with. */
export interface Beginning {
  readonly part: 'worker' | 'background'
  /** Of the first process. */
  readonly release: string
  readonly config: PackedConfig
  /** The database; undefined: as libpq's variables say. */
  readonly connectionString: string | undefined
  /** Whether it logs where it listens. */
  readonly announces: boolean
  /** Whether the service is about to stop. */
  readonly isDraining: boolean
}

/** Why a process could not begin: what its error says. */
export interface BeginFailure {
  readonly message: string
  readonly code: string | undefined
  readonly syscall: string | undefined
  readonly stack: string | undefined
}

/** What a forked process does for the first one. */
export interface WorkerCalls {
  /** @returns why it cannot; undefined if it serves */
  readonly begin: (beginning: Beginning) => Promise<BeginFailure | undefined>
  /** @returns what runs, in one line */
  readonly describe: () => Promise<object>
  /** @returns why this configuration cannot be taken; undefined if it can */
  readonly tryOut: (config: PackedConfig) => Promise<object | undefined>
  readonly take: (config: PackedConfig) => Reloaded
  readonly count: () => Promise<Counted>
  /** What a worker has seen, for the process in the background. */
  readonly remember: (outcomes: string) => void
  readonly answer: () => void
  readonly drain: () => void
  readonly stop: () => void
}

/** What the first process does for the others. */
export interface FirstCalls {
  /** It listens to the first process now; what that one says before is lost. */
  readonly ready: () => void
  readonly remember: (outcomes: string) => void
  /** What all other processes count, beside what the one that asks does. */
  readonly others: (own: Counted) => Promise<readonly Counted[]>
  /** How many workers serve. */
  readonly serving: () => number
}

const othersWithinMs = 3_000

/**
 * Begins to do what the first process says. It ends when that one says so, or is gone: node:cluster sees to it.
 *
 * @returns the exit code, as a command does: the process goes on
 */
export function work(): 0 {
  const { worker } = cluster
  if (worker === undefined) {
    throw new Error('this is no process that another one has forked')
  }
  let service: Service | undefined
  let describe = async (): Promise<object> => ({})

  function running(): Service {
    if (service === undefined) {
      throw new Error('it has not begun')
    }
    return service
  }

  async function begin({ part, release, config: packed, connectionString, announces, isDraining }: Beginning) {
    if (release !== version()) {
      return failureOf(new Error(`release ${version()} is installed, and ${release} runs: restart the service`))
    }
    try {
      const config = unpackConfig(packed)
      const logger = createLogger(config.logLevel)
      service = createService(config, { logger, connectionString, among: partOf(part, config.workers) })
      service.metrics.watchProcess()
      if (isDraining) {
        service.drain()
      }
      const [listener, address] =
        part === 'worker'
          ? [service.app, { host: config.host, port: config.port }]
          : [service.admin, { host: config.adminHost, port: config.adminPort }]
      logger.level = announces ? config.logLevel : 'warn' // no line about the same port from each
      await listener.listen(address)
      logger.level = config.logLevel
      service.start()
      const begun = service
      describe = () => describeService(begun, config, connectionString ?? '')
      return undefined
    } catch (error) {
      return failureOf(error)
    }
  }

  function partOf(part: Beginning['part'], workers: number): NonNullable<Edges['among']> {
    return part === 'worker'
      ? { part, workers, forward: createForwarding((outcomes) => first.tell('remember', outcomes)) }
      : {
          part,
          others: (own) => first.call('others', own, othersWithinMs),
          serving: () => first.call('serving', undefined, othersWithinMs)
        }
  }

  async function stop(): Promise<void> {
    await service?.stop()
    process.exit(0)
  }

  const ours: WorkerCalls = {
    begin,
    describe: () => describe(),
    tryOut: (config) =>
      running()
        .tryOut(unpackConfig(config))
        .then(() => undefined, reasonOf),
    take: (config) => running().take(unpackConfig(config)),
    count: () => running().metrics.own(),
    remember: (outcomes) => readForwarded(outcomes).forEach(running().remember),
    answer: () => {},
    drain: () => running().drain(),
    stop
  }
  const first = openChannel<FirstCalls>(
    {
      send: (message, done) => process.send?.(message, undefined, undefined, done),
      listen: (take) => worker.on('message', take)
    },
    { ...ours }
  )
  first.tell('ready', undefined)
  return 0
}

function failureOf(error: unknown): BeginFailure {
  if (!(error instanceof Error)) {
    return { message: String(error), code: undefined, syscall: undefined, stack: undefined }
  }
  const { message, stack } = error
  const { code, syscall, errno, address, port }: NodeJS.ErrnoException & { address?: string; port?: number } = error
  if (syscall !== 'bind') {
    return { message, stack, code, syscall }
  }
  // The first process binds for the others. What it says is made what one process would say.
  const [, reason = 'failed'] = getSystemErrorMap().get(errno ?? 0) ?? []
  return { message: `listen ${code}: ${reason} ${address}:${port}`, stack, code, syscall: 'listen' }
}

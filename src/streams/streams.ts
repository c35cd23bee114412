import { createHash, randomUUID, timingSafeEqual } from 'node:crypto'
import type { FastifyBaseLogger } from 'fastify'
import { StreamError, UnavailableError } from '../errors.ts'
import { createIssuers, type Issuers, type IssuersOptions } from '../issuers.ts'
import type { Fetch } from '../outbound-fetch.ts'
import type { Arrival, Outcome, Receive } from '../receive.ts'
import { type Repetition, repeatThroughOutages } from '../repeat.ts'
import type { EventStream, SecurityEventInput } from '../signals/security-event.ts'
import type { Signal } from '../signals/signal.ts'
import type { StreamConfig } from '../stream-config.ts'
import type { StreamPatch, StreamState, StreamStore } from '../stream-store.ts'
import { createManager, type Manager } from './manager.ts'
import { createPoller, type Poller } from './poller.ts'
import { createTransmitter, type Transmitter } from './transmitter.ts'

export interface StreamsOptions {
  readonly streams: readonly StreamConfig[]
  readonly store: StreamStore
  /** The network's edge. */
  readonly fetch: Fetch
  /** Of the transmitters' keys. */
  readonly keys: IssuersOptions
  readonly logger: FastifyBaseLogger
  /** Milliseconds since 1970; default `Date.now`. */
  readonly now?: (() => number) | undefined
  /** How often it is looked whether something is due, in milliseconds; default 1,000. */
  readonly tickMs?: number | undefined
  /** How long an instance that is gone holds a stream, in seconds; default 30. */
  readonly leaseSeconds?: number | undefined
  /** How long a transmitter may take to answer, in milliseconds; default 10,000. */
  readonly timeoutMs?: number | undefined
}

/** What an operator can have done with a stream. */
export const streamActions = ['create', 'verify', 'pause', 'resume', 'delete'] as const
export type StreamAction = (typeof streamActions)[number]

export interface Streams {
  /** As the signal of security events reads them. */
  find(name: string): EventStream | undefined
  /** Whether a push bears what the transmitter of this stream was given; in the same time for every value. */
  isAuthorized(name: string, authorization: unknown): boolean
  configured(): readonly StreamConfig[]
  /** How each stood when it was last looked at; none before. */
  states(): ReadonlyMap<string, StreamState>
  /** From now on these, and no others. */
  replace(streams: readonly StreamConfig[]): void
  /** How what came is received: the signal is made of these streams, and so comes after them. */
  receiveBy(signal: Signal, receive: Receive): void
  /**
   * Does what is due at this instance: begins its rounds, and waits for none.
   * @returns the rounds that are under way
   * @throws {UnavailableError} if the database is out of reach
   */
  tick(signal: AbortSignal): Promise<readonly Promise<void>[]>
  /**
   * Has an operator's word done at the transmitter.
   * @returns how the stream stands then; undefined if none has this name
   * @throws {StreamError} if the transmitter does not do it
   * @throws {UnavailableError} if the database is out of reach
   */
  act(name: string, action: StreamAction, signal: AbortSignal): Promise<StreamState | undefined>
  /** Loads the transmitters' keys, so that no token need wait for them. */
  warmUp(): void
  start(): Repetition
  /** Begins to learn how the streams stand that are pushed to; it is another process that looks after them. */
  follow(): Repetition
}

interface Stream {
  readonly config: StreamConfig
  readonly settings: string
  readonly issuers: Issuers
  readonly transmitter: Transmitter
  readonly manager: Manager
  readonly poller: Poller
  /** Aborted when it is there no more, or otherwise. */
  readonly ending: AbortController
  /** Milliseconds since 1970: until then nothing is done, polled, or asked of the management. */
  notBefore: number
  pollAt: number
  lookAt: number
  /** Why it could not be looked after; events may come all the same. */
  problem: StreamError | undefined
  /** When a token came last, and when that was last written down. */
  heardAt: number | undefined
  writtenAt: number
}

const outagePauseMs = 5_000
const maxBackOffMs = 5 * 60_000
// What a transmitter asks for is kept up to this: a wrong clock at its side must not end the stream.
const maxRetryAfterMs = 60 * 60_000
// How far what operators see may be behind, for what happens all the time.
const writeEveryMs = 30_000

/**
 * Takes part in streams of security events. Of many instances one polls and manages each stream, by a lease in the database; any
 * other takes over from where it was. What is pushed comes at any.
 */
export function createStreams({
  streams: configs,
  store,
  fetch,
  keys,
  logger,
  now = Date.now,
  tickMs = 1_000,
  leaseSeconds = 30,
  timeoutMs
}: StreamsOptions): Streams {
  const holder = randomUUID()
  let streams = new Map<string, Stream>()
  const states = new Map<string, StreamState>()
  const mine = new Set<string>()
  const underWay = new Map<string, Promise<void>>()
  let receiving: { readonly signal: Signal; readonly receive: Receive } | undefined
  /** By name: how often a state was written. What was read before is older. */
  const writes = new Map<string, number>()

  function take(next: readonly StreamConfig[]): void {
    const before = streams
    streams = new Map(
      next.map((config) => {
        const settings = JSON.stringify(config)
        const known = before.get(config.name)
        return [config.name, known?.settings === settings ? known : streamOf(config, settings)]
      })
    )
    for (const [name, stream] of before) {
      if (streams.get(name) !== stream) {
        stream.ending.abort()
        mine.delete(name)
      }
      if (!streams.has(name)) {
        states.delete(name)
      }
    }
  }

  function streamOf(config: StreamConfig, settings: string): Stream {
    const { name } = config
    const transmitter = createTransmitter({ config, fetch, now, timeoutMs })
    const remember = (patch: StreamPatch) => write(name, null, patch)
    return {
      config,
      settings,
      issuers: createIssuers([config.verification], keys),
      transmitter,
      manager: createManager({ config, transmitter, now, remember }),
      poller: createPoller({ name, transmitter, now, received }),
      ending: new AbortController(),
      notBefore: 0,
      pollAt: 0,
      lookAt: 0,
      problem: undefined,
      heardAt: undefined,
      writtenAt: 0
    }
  }

  /** What the poller hands on. */
  function received(input: SecurityEventInput, arrival: Arrival): Promise<Outcome> {
    if (receiving === undefined) {
      throw new Error('nothing receives security events yet')
    }
    return receiving.receive(receiving.signal, input, arrival)
  }

  async function write(name: string, by: string | null, patch: StreamPatch): Promise<void> {
    if (!(await store.patch(name, by, patch))) {
      throw new StreamError('ERR_STREAM_LEASE')
    }
    keep(name, patch)
  }

  function keep(name: string, patch: StreamPatch): void {
    const known = Object.entries({ ...states.get(name), ...patch }).filter(([, value]) => value !== null)
    states.set(name, Object.fromEntries(known))
    writes.set(name, (writes.get(name) ?? 0) + 1)
  }

  async function tick(signal: AbortSignal): Promise<readonly Promise<void>[]> {
    const names = [...streams.keys()]
    const before = new Map(writes)
    const claims = names.length === 0 ? [] : await store.claim(names, holder, leaseSeconds)
    for (const { name, isMine, state } of claims) {
      const stream = streams.get(name)
      if (stream === undefined) {
        continue
      }
      mine[isMine ? 'add' : 'delete'](name)
      await learn(stream, state, before)
      if (isMine && !underWay.has(name) && stream.notBefore <= now() && !signal.aborted) {
        begin(stream, AbortSignal.any([signal, stream.ending.signal]))
      }
    }
    return [...underWay.values()]
  }

  async function learn(stream: Stream, state: StreamState, before: ReadonlyMap<string, number>): Promise<void> {
    const { name } = stream.config
    if (writes.get(name) === before.get(name)) {
      states.set(name, state)
    }
    await writeHeard(stream, state)
  }

  async function learnAll(): Promise<void> {
    const names = [...streams.values()]
      .filter(({ config }) => config.delivery === 'push')
      .map(({ config }) => config.name)
    const before = new Map(writes)
    for (const [name, state] of names.length === 0 ? [] : await store.readStates(names)) {
      const stream = streams.get(name)
      if (stream !== undefined) {
        await learn(stream, state, before)
      }
    }
  }

  function repeatTicks(work: () => Promise<unknown>): Repetition {
    return repeatThroughOutages(work, {
      everyMs: tickMs,
      outagePauseMs,
      onOutage(error) {
        const code = error instanceof UnavailableError || error instanceof StreamError ? error.code : String(error)
        logger.warn({ code }, 'streams of security events are not looked after')
      }
    })
  }

  /** Not for each token: that would cost one more write. */
  async function writeHeard(stream: Stream, state: StreamState): Promise<void> {
    const { heardAt, config, writtenAt } = stream
    if (
      heardAt !== undefined &&
      now() - writtenAt >= writeEveryMs &&
      heardAt > Date.parse(state.heardAt ?? '1970-01-01')
    ) {
      stream.writtenAt = now()
      await write(config.name, null, { heardAt: new Date(heardAt).toISOString() })
    }
  }

  /** Never rejects. What fails here comes again. */
  function begin(stream: Stream, signal: AbortSignal): void {
    const { name } = stream.config
    const work = makeRound(stream, signal)
      .catch((error: unknown) => fail(stream, error, signal))
      .catch((error: unknown) => {
        stream.notBefore = now() + outagePauseMs
        const code = error instanceof UnavailableError || error instanceof StreamError ? error.code : String(error)
        logger.warn({ stream: name, code }, 'a stream of security events is put off')
      })
      .finally(() => underWay.delete(name))
    underWay.set(name, work)
  }

  async function makeRound(stream: Stream, signal: AbortSignal): Promise<void> {
    const { config, poller } = stream
    const { name } = config
    const wasLookedAfter = await lookAfter(stream, signal)
    const { pollUrl, isPaused } = states.get(name) ?? {}
    const isPolled = config.delivery === 'poll' && pollUrl !== undefined && isPaused !== true
    if (isPolled && stream.pollAt <= now()) {
      await poller.poll(pollUrl, () => mine.has(name), signal)
      stream.pollAt = now() + config.pollSeconds * 1_000
    } else if (isPolled && !wasLookedAfter) {
      return
    }
    if (stream.problem === undefined) {
      await succeed(name)
    } else if (wasLookedAfter) {
      throw stream.problem
    }
  }

  /** What comes does not depend on it: a stream that cannot be looked after is polled all the same. False if it was not time. */
  async function lookAfter(stream: Stream, signal: AbortSignal): Promise<boolean> {
    const { manager, config } = stream
    const state = () => states.get(config.name) ?? {}
    if (stream.lookAt > now()) {
      return false
    }
    try {
      if (manager.isDue(state())) {
        await manager.look(state(), signal)
      }
      if (manager.isVerificationDue(state())) {
        await manager.verify(state(), signal).catch(passThrottled)
      }
      stream.problem = undefined
    } catch (error) {
      if (!(error instanceof StreamError)) {
        throw error
      }
      stream.lookAt = now() + pauseMs(stream, error)
      stream.problem = error
    }
    return true
  }

  function pauseMs({ config }: Stream, { retryAfterMs = 0 }: StreamError): number {
    const failures = states.get(config.name)?.failure?.count ?? 0
    const backOffMs = Math.min(config.pollSeconds * 1_000 * 2 ** Math.min(failures, 10), maxBackOffMs)
    return Math.max(backOffMs, Math.min(retryAfterMs, maxRetryAfterMs))
  }

  /** A good round is written down when it ends a failure, and every now and then. */
  async function succeed(name: string): Promise<void> {
    const { failure, goodAt } = states.get(name) ?? {}
    if (failure === undefined && now() - Date.parse(goodAt ?? '1970-01-01') < writeEveryMs) {
      return
    }
    await write(name, holder, { goodAt: new Date(now()).toISOString(), failure: null })
    if (failure !== undefined) {
      logger.info({ stream: name }, 'a stream of security events works again')
    }
  }

  async function fail(stream: Stream, error: unknown, signal: AbortSignal): Promise<void> {
    if (signal.aborted) {
      return // it was we who ended it
    }
    if (!(error instanceof StreamError)) {
      throw error
    }
    const { name } = stream.config
    const { failure, isDeleted } = states.get(name) ?? {}
    if (isDeleted === true) {
      return // that it is gone is right
    }
    const { code, detail } = error
    const at = new Date(now()).toISOString()
    const count = (failure?.count ?? 0) + 1
    stream.notBefore = error === stream.problem ? 0 : now() + pauseMs(stream, error)
    stream.transmitter.forgetMetadata()
    if (failure?.code !== code) {
      // Once, as long as it stays the same.
      logger.warn({ stream: name, code, detail }, 'a stream of security events does not work')
    }
    await write(name, holder, {
      failure: { code, ...(detail !== undefined && { detail }), since: failure?.since ?? at, at, count },
      // What was known of it may be why.
      ...(code === 'ERR_STREAM_MISSING' && { streamId: null, pollUrl: null, managedAt: null })
    })
  }

  function eventStreamOf(stream: Stream): EventStream {
    const { config, issuers } = stream
    const { name } = config
    const state = () => states.get(name)
    return {
      config,
      issuerName: labelOf(config),
      transmitter: issuers,
      audiences: () => state()?.audiences,
      streamId: () => state()?.streamId,
      criticalMembers: () => state()?.criticalMembers ?? [],
      heard() {
        stream.heardAt = now()
      },
      async verified(verification) {
        const at = new Date(now())
        const isKnown = await store.verify(name, verification, at)
        if (isKnown) {
          keep(name, { verifiedAt: at.toISOString() })
        }
        return isKnown
      },
      async updated(status, reason) {
        await write(name, null, { status, statusReason: reason ?? null })
        logger.warn({ stream: name, status, reason }, 'the transmitter has changed a stream of security events')
      }
    }
  }

  take(configs)
  return {
    find(name) {
      const stream = streams.get(name)
      return stream && eventStreamOf(stream)
    },

    isAuthorized(name, authorization) {
      const expected = streams.get(name)?.config.pushAuthorization
      const isEqual = timingSafeEqual(
        hashOf(typeof authorization === 'string' ? authorization.trim() : ''),
        hashOf(expected ?? '')
      )
      return isEqual && expected !== undefined
    },

    configured: () => [...streams.values()].map(({ config }) => config),
    states: () => states,
    replace: take,
    receiveBy(signal, receive) {
      receiving = { signal, receive }
    },
    tick,

    async act(name, action, signal) {
      const stream = streams.get(name)
      if (stream === undefined) {
        return undefined
      }
      const { manager, config } = stream
      // As it is now, at whichever instance.
      const state = (await store.readStates([name])).get(name) ?? {}
      states.set(name, state)
      if (!config.isManaged) {
        throw new StreamError('ERR_STREAM_REQUEST', {
          detail: '"manage" is false: a person does it at the transmitter'
        })
      }
      if (action === 'create') {
        const { settings: _, ...anew } = state
        await manager.look(anew, signal)
      } else {
        const work = { verify: manager.verify, pause: manager.pause, resume: manager.resume, delete: manager.remove }
        await work[action](state, signal)
      }
      Object.assign(stream, { notBefore: 0, lookAt: 0, pollAt: 0 })
      return states.get(name)
    },

    warmUp() {
      for (const { issuers } of streams.values()) {
        issuers.warmUp()
      }
    },

    start() {
      const stopping = new AbortController()
      const ticks = repeatTicks(() => tick(stopping.signal))
      return {
        async stop() {
          stopping.abort()
          await ticks.stop()
          await Promise.all(underWay.values())
          if (streams.size > 0) {
            await store.release(holder).catch(() => {}) // the leases end by themselves
          }
        }
      }
    },

    follow: () => repeatTicks(learnAll)
  }
}

/** Too early for a verification: then later. */
function passThrottled(error: unknown): void {
  if (!(error instanceof StreamError) || error.code !== 'ERR_STREAM_THROTTLED') {
    throw error
  }
}

/** For metrics and logs: the issuer that a stream speaks for, if there is one. */
function labelOf({ name, issuers }: StreamConfig): string {
  const [only = name, ...others] = issuers
  return others.length === 0 ? only : name
}

function hashOf(value: string): Buffer {
  return createHash('sha256').update(value).digest()
}

import type { StreamConfig } from './stream-config.ts'
import { type StreamEvent, urisOf } from './stream-events.ts'
import type { StreamState, StreamStore } from './stream-store.ts'
import type { StreamAction } from './streams/streams.ts'

/** How a stream stands, for operators. */
export interface StreamReport {
  readonly config: StreamConfig
  /** Undefined as long as nobody has looked. */
  readonly state: StreamState | undefined
  /** What it is to end by, and what the transmitter does not send. */
  readonly missingEvents: readonly StreamEvent[]
}

export interface StreamReports {
  /** @throws {UnavailableError} if the database is out of reach */
  list(): Promise<StreamReport[]>
  /** What is known without asking the database; as it was a second ago. */
  latest(): readonly StreamReport[]
  /**
   * Has an operator's word done at the transmitter.
   * @returns how it stands then; undefined if no stream has this name
   * @throws {StreamError} if the transmitter does not do it
   * @throws {UnavailableError} if the database is out of reach
   */
  act(name: string, action: StreamAction): Promise<StreamReport | undefined>
}

export interface StreamReportsOptions {
  readonly streams: {
    configured(): readonly StreamConfig[]
    states(): ReadonlyMap<string, StreamState>
    act(name: string, action: StreamAction, signal: AbortSignal): Promise<StreamState | undefined>
  }
  readonly store: Pick<StreamStore, 'readStates'>
}

// An operator waits for the answer, and several requests may be made for it.
const actWithinMs = 25_000

export function createStreamReports({ streams, store }: StreamReportsOptions): StreamReports {
  const reportsOf = (states: ReadonlyMap<string, StreamState>) =>
    streams.configured().map((config) => reportOf(config, states.get(config.name)))

  return {
    latest: () => reportsOf(streams.states()),
    list: async () => reportsOf(await store.readStates(streams.configured().map(({ name }) => name))),
    async act(name, action) {
      const config = streams.configured().find((stream) => stream.name === name)
      const state = await streams.act(name, action, AbortSignal.timeout(actWithinMs))
      return config && state && reportOf(config, state)
    }
  }
}

function reportOf(config: StreamConfig, state: StreamState | undefined): StreamReport {
  const delivered = state?.eventsDelivered
  const missingEvents = config.revokeOn.filter((name) => delivered?.some((uri) => urisOf(name).includes(uri)) === false)
  return { config, state, missingEvents }
}

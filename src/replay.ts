import type { FastifyBaseLogger } from 'fastify'
import { RejectedError, UnavailableError } from './errors.ts'
import { type CarryOut, committedOutcome, type LogoutOutcome } from './logout-request.ts'
import type { Kept, Spool } from './spool.ts'

export interface ReplayOptions {
  readonly spool: Pick<Spool, 'batches' | 'remove' | 'reject'>
  readonly carryOut: CarryOut
  readonly logger: FastifyBaseLogger
  /** Told of each one that needs no further try. */
  readonly onEnded?: (outcome: LogoutOutcome) => void
}

/** Does what the spool keeps as soon as it can be done. */
export interface Replay {
  /** Ends it, after what is under way. */
  stop(): Promise<void>
}

/** How many were done, and how many proved bad. */
export interface ReplayCounts {
  readonly done: number
  readonly refused: number
}

const batchSize = 128
const minWaitMs = 100
const maxWaitMs = 1_000

/**
 * Carries out what is kept, in batches, verified as of its arrival. It tries again every second at
 * the latest, also what another process or an earlier run has left.
 */
export function startReplay(options: ReplayOptions): Replay {
  const { logger } = options
  const stopping = new AbortController()
  let waitMs = minWaitMs
  let timer: NodeJS.Timeout | undefined
  let running: Promise<void> | undefined
  let told: string | undefined

  /** Not a line each second while it lasts. */
  function tellOnce(cause: string): void {
    if (cause !== told) {
      told = cause
      logger.error({ cause }, 'replaying the spool failed')
    }
  }

  async function round(): Promise<void> {
    try {
      const { done, refused } = await replayAll(options, tellOnce, stopping.signal)
      if (done + refused > 0) {
        logger.info({ done, refused }, 'carried out logouts that were kept')
        told = undefined
        waitMs = minWaitMs
      } else {
        waitMs = Math.min(waitMs * 2, maxWaitMs)
      }
    } catch (error) {
      waitMs = maxWaitMs
      tellOnce(error instanceof Error ? error.message : 'unknown') // of the folder
    }
    running = undefined
    schedule()
  }

  function schedule(): void {
    if (!stopping.signal.aborted) {
      timer = setTimeout(() => {
        running = round()
      }, waitMs)
    }
  }

  schedule()
  return {
    async stop() {
      stopping.abort()
      clearTimeout(timer)
      await running
    }
  }
}

/**
 * Carries out once what is kept now, as {@link startReplay} does; beside it, too: a logout that both do ends
 * nothing twice.
 *
 * @param options.signal ends it after what is under way
 */
export function replayOnce({
  signal,
  ...options
}: ReplayOptions & { readonly signal: AbortSignal }): Promise<ReplayCounts> {
  return replayAll(options, (cause) => options.logger.error({ cause }, 'replaying the spool failed'), signal)
}

async function replayAll(
  options: ReplayOptions,
  tell: (cause: string) => void,
  signal: AbortSignal
): Promise<ReplayCounts> {
  const counts = { done: 0, refused: 0 }
  for await (const batch of options.spool.batches(batchSize)) {
    const outcomes = await Promise.all(batch.map((kept) => replayOne(options, kept, tell)))
    counts.done += outcomes.filter((outcome) => outcome === 'done').length
    counts.refused += outcomes.filter((outcome) => outcome === 'refused').length
    // Where the database is away, the rest need not try.
    if (signal.aborted || outcomes.every((outcome) => outcome === 'database')) {
      break
    }
  }
  return counts
}

type ReplayOutcome = 'done' | 'refused' | 'stays' | 'database'

async function replayOne(
  { spool, carryOut, logger, onEnded }: ReplayOptions,
  { name, at, request, isVerified }: Kept,
  tell: (cause: string) => void
): Promise<ReplayOutcome> {
  let issuer: string | undefined
  try {
    const results = await carryOut(request, at, {
      isVerified,
      onProgress(progress) {
        issuer = progress.issuer
      }
    })
    await spool.remove(name)
    onEnded?.({ endpoint: 'replay', issuer, ...committedOutcome(results) })
    return 'done'
  } catch (error) {
    if (error instanceof RejectedError) {
      await spool.reject(name, error.code)
      const { code: reason, message: description } = error
      onEnded?.({ endpoint: 'replay', issuer, outcome: 'refused', reason, description })
      logger.warn({ code: error.code }, 'a logout that was kept proved bad')
      return 'refused'
    }
    if (!(error instanceof UnavailableError)) {
      // A mistake of ours must not cost the others their turn; its message could quote a token.
      tell(error instanceof Error ? error.name : 'unknown')
      return 'stays'
    }
    return error.code === 'ERR_DATABASE_UNAVAILABLE' || error.code === 'ERR_DEADLINE' ? 'database' : 'stays'
  }
}

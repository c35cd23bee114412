import { type Static, Type } from 'typebox'
import { Value } from 'typebox/value'
import type { StreamAction } from '../streams/streams.ts'
import { CommandError, reasonOf } from './command-error.ts'

export interface OperatorClientOptions {
  /** Of the operators' listener. */
  readonly url: URL
  /** Read anew for every request: a long purge outlives an access token. */
  readonly token: () => string
  /** Ends what is under way. */
  readonly signal: AbortSignal
}

/** What `POST /admin/purges` takes. */
export interface PurgeBody {
  readonly homeAccountId?: string | undefined
  readonly issuer?: string | undefined
  readonly sid?: string | undefined
  readonly subject?: string | undefined
  readonly clientId?: string | undefined
  readonly tenantId?: string | undefined
  readonly objectId?: string | undefined
  /** An ISO time, or seconds since 1970. */
  readonly issuedBefore?: string | number | undefined
  readonly reason: string
  readonly force: boolean
}

const CountsSchema = Type.Object({
  accounts: Type.Number(),
  sessions: Type.Number(),
  rows: Type.Number(),
  rowsByClient: Type.Record(Type.String(), Type.Number())
})
const NearSchema = Type.Array(Type.Object({ message: Type.String() }))
const PreviewSchema = Type.Intersect([CountsSchema, Type.Object({ near: Type.Optional(NearSchema) })])
const UserSchema = Type.Object({
  objects: Type.Array(Type.Object({ tenantId: Type.String(), objectId: Type.String() })),
  hasDirectory: Type.Boolean(),
  clicks: Type.Array(
    Type.Object({ issuer: Type.String(), provider: Type.String(), path: Type.String(), purgeBy: Type.String() })
  )
})
const PurgeSchema = Type.Intersect([
  CountsSchema,
  Type.Object({ id: Type.String(), status: Type.Optional(Type.String()), total: Type.Optional(Type.Number()) })
])
const ProblemSchema = Type.Object({ code: Type.String(), detail: Type.String() })

export type Counts = Static<typeof CountsSchema>

/** What a purge would delete; `near`, if that is nothing: what is stored and comes close. */
export type Preview = Static<typeof PreviewSchema>

/** Whom the directories know by a name, or how to find them by hand. */
export type UserAnswer = Static<typeof UserSchema>

const textOrNull = Type.Union([Type.String(), Type.Null()])
const SignalSchema = Type.Object({
  position: Type.Number(),
  at: Type.String(),
  source: Type.String(),
  issuer: textOrNull,
  outcome: Type.String(),
  isRetry: Type.Boolean(),
  tookMs: Type.Number(),
  code: textOrNull,
  description: textOrNull,
  details: Type.Record(Type.String(), Type.String()),
  accepted: textOrNull,
  hint: textOrNull,
  why: textOrNull,
  advice: textOrNull,
  orders: Type.Array(
    Type.Object({
      record: textOrNull,
      clientId: textOrNull,
      hasSid: Type.Boolean(),
      hasSubject: Type.Boolean(),
      issuedAt: textOrNull,
      accounts: Type.Number(),
      sessions: Type.Number(),
      rows: Type.Number(),
      rowsByClient: Type.Record(Type.String(), Type.Number())
    })
  )
})
const SignalsSchema = Type.Object({ position: Type.Number(), signals: Type.Array(SignalSchema) })
const IssuerSchema = Type.Object({
  name: Type.String(),
  issuer: Type.String(),
  clientIds: Type.Array(Type.String()),
  frontChannel: Type.Boolean(),
  algorithms: Type.Array(Type.String()),
  types: Type.Array(textOrNull),
  maxTokenAgeSeconds: Type.Number(),
  clockToleranceSeconds: Type.Number(),
  sidAndSubject: Type.String()
})
const IssuersSchema = Type.Object({ issuers: Type.Array(IssuerSchema) })

/** What came of a signal. */
export type Signal = Static<typeof SignalSchema>

/** An issuer as the service has it configured. */
export type TrustedIssuer = Static<typeof IssuerSchema>

const failureOrNull = Type.Union([
  Type.Object({ code: Type.String(), detail: textOrNull, since: Type.String(), count: Type.Number() }),
  Type.Null()
])
const DirectorySchema = Type.Object({
  issuer: Type.String(),
  tenantId: Type.String(),
  dryRun: Type.Boolean(),
  goodAt: textOrNull,
  deltaAt: textOrNull,
  hasDelta: Type.Boolean(),
  sweptAt: textOrNull,
  deltaFailure: failureOrNull,
  sweepFailure: failureOrNull,
  watched: Type.Union([Type.Number(), Type.Null()]),
  unwatched: Type.Union([Type.Number(), Type.Null()]),
  breaker: Type.Union([
    Type.Object({ openedAt: Type.String(), found: Type.Number(), watched: Type.Number() }),
    Type.Null()
  ]),
  held: Type.Array(Type.Object({ objectId: Type.String(), event: Type.String(), detail: Type.String() })),
  heldCount: Type.Number()
})
const DirectoriesSchema = Type.Object({ directories: Type.Array(DirectorySchema) })
const DecisionSchema = Type.Object({ accounts: Type.Number() })

/** A directory that is watched, and who is held. */
export type WatchedDirectory = Static<typeof DirectorySchema>

const StreamSchema = Type.Object({
  name: Type.String(),
  issuer: Type.String(),
  delivery: Type.String(),
  isManaged: Type.Boolean(),
  streamId: textOrNull,
  status: textOrNull,
  statusReason: textOrNull,
  isPaused: Type.Boolean(),
  isDeleted: Type.Boolean(),
  missingEvents: Type.Array(Type.String()),
  sendsNobodyByDefault: Type.Boolean(),
  goodAt: textOrNull,
  heardAt: textOrNull,
  verifiedAt: textOrNull,
  canVerify: Type.Boolean(),
  failure: failureOrNull
})
const StreamsSchema = Type.Object({ streams: Type.Array(StreamSchema) })

/** A stream of security events, as the service has it. */
export type ManagedStream = Static<typeof StreamSchema>

/** A purge as far as it is done. */
export interface Progress extends Counts {
  readonly id: string
  readonly isDone: boolean
  /** The accounts that it is about. */
  readonly total: number
}

/** The service did not answer, or could not: worth another try. */
export class UnansweredError extends CommandError {
  constructor(message: string, options?: ErrorOptions) {
    super(1, 'unanswered', message, options)
    this.name = 'UnansweredError'
  }
}

// A purge of up to 10,000 accounts is answered when it is done.
const orderTimeoutMs = 300_000
const readTimeoutMs = 10_000
// The service asks the transmitter, more than once.
const manageTimeoutMs = 40_000

// In the words of the command line; the service's own speak of JSON.
const advice: Readonly<Record<string, string>> = {
  unauthorized: 'the service does not accept the credentials: look at ADMIN_TOKEN or --token-file',
  forbidden: 'the access token lacks the role of operators: see ADMIN_ROLE of the service',
  ambiguous_account: 'accounts of several issuers bear this id: add --issuer',
  invalid_issued_before:
    '--issued-before takes an ISO time with a zone or seconds since 1970, not in the future, and not for a whole app or tenant',
  not_found: "the service knows nothing of it: look at the id, and whether --url is the operators' address"
}

/** Speaks to the operators' listener. Every function throws {@link CommandError}; {@link UnansweredError} if another try may help. */
export function createOperatorClient({ url, token, signal }: OperatorClientOptions) {
  const base = new URL(url)
  base.pathname = base.pathname.replace(/\/?$/, '/') // what stands behind a proxy may have a path of its own

  async function call(
    path: string,
    request: { method?: string; headers?: Record<string, string>; body?: string; timeoutMs: number }
  ): Promise<unknown> {
    const { timeoutMs, headers, ...rest } = request
    let response: Response
    let text: string
    try {
      response = await fetch(new URL(path, base), {
        ...rest,
        headers: { authorization: `Bearer ${token()}`, accept: 'application/json', ...headers },
        redirect: 'error', // the credentials are for this address alone
        signal: AbortSignal.any([signal, AbortSignal.timeout(timeoutMs)])
      })
      text = await response.text()
    } catch (error) {
      if (error instanceof CommandError || signal.aborted) {
        throw error
      }
      throw new UnansweredError(
        `nothing answers at ${url.origin} (${reasonOf(error)}): does the service run, and is --url or ADMIN_URL right?`,
        { cause: error }
      )
    }
    const body = parse(text)
    if (response.ok) {
      return body
    }
    const problem = Value.Check(ProblemSchema, body) ? body : undefined
    const reason = problem && (advice[problem.code] ?? problem.detail)
    if (problem?.code === 'transmitter_failed') {
      throw new CommandError(1, problem.code, problem.detail)
    }
    if ([502, 503, 504].includes(response.status)) {
      throw new UnansweredError(`the service cannot do it now: ${reason ?? `it answered ${response.status}`}`)
    }
    // What is wrong with the request is the asker's to mend; credentials are not part of it.
    const isUsage = problem !== undefined && [400, 409, 422].includes(response.status)
    throw new CommandError(
      isUsage ? 2 : 1,
      problem?.code ?? 'unexpected_answer',
      reason ?? `${url.origin} answered ${response.status}: is --url the operators' address?`
    )
  }

  const order = (body: PurgeBody & { dryRun: boolean }, headers: Record<string, string>) =>
    call('admin/purges', {
      method: 'POST',
      headers: { 'content-type': 'application/json', ...headers },
      body: JSON.stringify(body),
      timeoutMs: orderTimeoutMs
    })

  return {
    /** What a purge would delete. */
    async preview(body: PurgeBody): Promise<Preview> {
      const answer = await order({ ...body, dryRun: true }, {})
      if (!Value.Check(PreviewSchema, answer)) {
        throw unexpected(url)
      }
      return answer
    },

    /** Orders a purge; the same key with the same body again begins nothing anew. */
    async order(body: PurgeBody, idempotencyKey: string): Promise<Progress> {
      return progressOf(await order({ ...body, dryRun: false }, { 'idempotency-key': idempotencyKey }), url)
    },

    async findUser(name: string): Promise<UserAnswer> {
      const answer = await call(`admin/accounts?${new URLSearchParams({ user: name })}`, { timeoutMs: readTimeoutMs })
      if (!Value.Check(UserSchema, answer)) {
        throw unexpected(url)
      }
      return answer
    },

    async issuers(): Promise<readonly TrustedIssuer[]> {
      const answer = await call('admin/issuers', { timeoutMs: readTimeoutMs })
      if (!Value.Check(IssuersSchema, answer)) {
        throw unexpected(url)
      }
      return answer.issuers
    },

    async directories(): Promise<readonly WatchedDirectory[]> {
      const answer = await call('admin/directories', { timeoutMs: readTimeoutMs })
      if (!Value.Check(DirectoriesSchema, answer)) {
        throw unexpected(url)
      }
      return answer.directories
    },

    /** Closes the breaker of a directory; returns how many accounts that is about. */
    async decide(tenantId: string, decision: 'release' | 'drop'): Promise<number> {
      const path = `admin/directories/${encodeURIComponent(tenantId)}/${decision}`
      const answer = await call(path, { method: 'POST', timeoutMs: readTimeoutMs })
      if (!Value.Check(DecisionSchema, answer)) {
        throw unexpected(url)
      }
      return answer.accounts
    },

    async streams(): Promise<readonly ManagedStream[]> {
      const answer = await call('admin/streams', { timeoutMs: readTimeoutMs })
      if (!Value.Check(StreamsSchema, answer)) {
        throw unexpected(url)
      }
      return answer.streams
    },

    /** Has something done with a stream at its transmitter. */
    async manageStream(name: string, action: StreamAction): Promise<ManagedStream> {
      const path = `admin/streams/${encodeURIComponent(name)}/${action}`
      const answer = await call(path, { method: 'POST', timeoutMs: manageTimeoutMs })
      if (!Value.Check(StreamSchema, answer)) {
        throw unexpected(url)
      }
      return answer
    },

    /** What came after this position, and the position of the last. */
    async signals(after: number): Promise<Static<typeof SignalsSchema>> {
      const answer = await call(`admin/signals?after=${after}`, { timeoutMs: readTimeoutMs })
      if (!Value.Check(SignalsSchema, answer)) {
        throw unexpected(url)
      }
      return answer
    },

    async find(id: string): Promise<Progress> {
      return progressOf(await call(`admin/purges/${encodeURIComponent(id)}`, { timeoutMs: readTimeoutMs }), url)
    }
  }
}

function progressOf(answer: unknown, url: URL): Progress {
  if (!Value.Check(PurgeSchema, answer)) {
    throw unexpected(url)
  }
  const { id, accounts, sessions, rows, rowsByClient, status, total = accounts } = answer
  return { id, accounts, sessions, rows, rowsByClient, total, isDone: status !== 'running' }
}

function unexpected(url: URL): CommandError {
  return new CommandError(
    1,
    'unexpected_answer',
    `${url.origin} answered something else: is --url the operators' address?`
  )
}

function parse(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return undefined // of a proxy, or another program
  }
}

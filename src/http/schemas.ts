import { type TProperties, type TSchema, Type } from 'typebox'

// What the operators' listener takes and gives: checked, serialized and documented by the same schemas.

const closed = { additionalProperties: false }
const identifier = Type.String({ minLength: 1, maxLength: 1_024 })
const count = Type.Integer({ minimum: 0 })
const time = Type.Unsafe<Date>({ type: 'string', format: 'date-time' })
const timeOrNull = Type.Unsafe<Date | null>({ type: ['string', 'null'], format: 'date-time' })
const textOrNull = Type.Unsafe<string | null>({ type: ['string', 'null'] })
const rowsByClient = Type.Record(Type.String(), count, { description: 'How many rows of each client id' })

const version = Type.String({ description: 'The release that answers' })

/** A whole number in a query, where it comes as text. */
function numberInQuery(description: string, max: number) {
  return Type.Optional(
    Type.Unsafe<string>({ type: 'string', pattern: '^[1-9][0-9]{0,4}$', description: `${description}; 1 to ${max}` })
  )
}

export const PurgeBody = Type.Object(
  {
    homeAccountId: Type.Optional(identifier),
    issuer: Type.Optional(identifier),
    sid: Type.Optional(identifier),
    subject: Type.Optional(identifier),
    clientId: Type.Optional(identifier),
    tenantId: Type.Optional(identifier),
    objectId: Type.Optional(identifier),
    issuedBefore: Type.Optional(
      Type.Union([Type.String({ maxLength: 64 }), Type.Number()], {
        description:
          'What was issued up to then goes: an ISO time with a zone, or seconds since 1970; default now; not for clientId or tenantId alone'
      })
    ),
    reason: Type.String({ minLength: 1, maxLength: 2_000, description: 'For the record' }),
    dryRun: Type.Optional(Type.Boolean({ description: 'Counts what would go, and changes nothing; default false' })),
    force: Type.Optional(Type.Boolean({ description: 'More than 1,000 accounts are meant; default false' }))
  },
  {
    ...closed,
    description:
      'Exactly one selector: homeAccountId (with an issuer if two bare subjects are equal), issuer and sid, issuer and subject, tenantId and objectId, clientId, or tenantId'
  }
)
export const PurgeHeaders = Type.Object({
  'idempotency-key': Type.Optional(
    Type.String({
      description: '1 to 255 printable characters: the same request with the same key again gives the first answer'
    })
  )
})
export const RecordParams = Type.Object({ id: Type.String() })
const page = {
  limit: numberInQuery('How many, default 50', 500),
  before: Type.Optional(
    Type.String({
      pattern: '^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$',
      description: 'The id of the last one seen'
    })
  )
}
export const PurgesQuery = Type.Object(page, closed)
export const RecordsQuery = Type.Object(
  {
    ...page,
    source: Type.Optional(Type.String({ minLength: 1, maxLength: 64, description: 'The kind of signal' })),
    issuer: Type.Optional(identifier),
    account: Type.Optional(
      Type.String({
        minLength: 1,
        maxLength: 1_024,
        description: 'The homeAccountId of an account that was matched or named'
      })
    ),
    actor: Type.Optional(
      Type.String({ minLength: 1, maxLength: 4_096, description: 'An operator, as the records name one' })
    )
  },
  closed
)
export const AccountParams = Type.Object({ homeAccountId: identifier })
export const AccountQuery = Type.Object({ issuer: Type.Optional(identifier) }, closed)
export const AccountsQuery = Type.Object(
  {
    issuer: Type.Optional(identifier),
    sid: Type.Optional(identifier),
    subject: Type.Optional(identifier),
    tenantId: Type.Optional(identifier),
    objectId: Type.Optional(identifier),
    user: Type.Optional(
      Type.String({
        minLength: 1,
        maxLength: 320,
        description: 'Instead of all others: an e-mail address or user name, for the directories'
      })
    )
  },
  closed
)
export const StatsQuery = Type.Object({ minutes: numberInQuery('How many, default 60', 1_440) }, closed)
export const RejectionsQuery = Type.Object({ limit: numberInQuery('How many, default 100', 500) }, closed)

const purged = { accounts: count, sessions: count, rows: count, rowsByClient }
export const PurgeDone = answer('Done and committed, or what a dry run would do', {
  id: Type.String({ format: 'uuid' }),
  dryRun: Type.Boolean(),
  ...purged,
  near: Type.Optional(
    Type.Array(
      Type.Object({
        because: Type.String(),
        homeAccountId: textOrNull,
        issuer: textOrNull,
        clientId: textOrNull,
        tenantId: textOrNull,
        message: Type.String()
      }),
      { description: 'If nothing matched: what is stored and comes close' }
    )
  )
})
export const PurgeRunning = answer('It goes on in the background; GET /admin/purges/{id} says how far it is', {
  id: Type.String({ format: 'uuid' }),
  dryRun: Type.Boolean(),
  ...purged,
  status: Type.Literal('running'),
  done: count,
  total: count
})
const accountRef = Type.Object({ homeAccountId: Type.String(), accountIssuer: textOrNull })
const record = {
  id: Type.String({ format: 'uuid' }),
  at: time,
  source: Type.String({ description: 'The kind of signal' }),
  status: Type.Enum(['running', 'done']),
  outcome: Type.Enum(['running', 'done', 'unmatched'], { description: 'unmatched: no session was there to end' }),
  done: Type.Integer({ minimum: 0, description: 'Accounts that are over' }),
  total: Type.Integer({ minimum: 0, description: 'Accounts that matched when it began' }),
  ...purged,
  issuer: textOrNull,
  clientId: textOrNull,
  jti: textOrNull,
  sid: textOrNull,
  subject: textOrNull,
  homeAccountId: textOrNull,
  tenantId: textOrNull,
  objectId: textOrNull,
  revokeBefore: timeOrNull,
  reason: textOrNull,
  actor: textOrNull,
  finishedAt: timeOrNull,
  matchedAccounts: Type.Array(accountRef, { description: 'The first 1,000; none of a whole app or tenant' })
}
export const Record = answer('A record', record)
export const Records = answer('Records, the newest first', {
  records: Type.Array(Type.Object(record)),
  next: Type.Unsafe<string | null>({ type: ['string', 'null'], description: 'The next `before`; null at the end' })
})
const lookUp = { provider: Type.String(), path: Type.String(), purgeBy: Type.String() }
export const Accounts = answer('The accounts that have such a session', {
  accounts: Type.Array(accountRef),
  objects: Type.Optional(
    Type.Array(Type.Object({ tenantId: Type.String(), objectId: Type.String() }), {
      description: 'Of a user: the persons of this name in the directories'
    })
  ),
  hasDirectory: Type.Optional(Type.Boolean({ description: 'Of a user: whether a directory is configured' })),
  clicks: Type.Optional(
    Type.Array(Type.Object({ issuer: Type.String(), ...lookUp }), {
      description: 'Of a user whom no directory knows: how to find the id at the provider of each issuer'
    })
  )
})
export const Account = answer('What is stored of an account; never a payload', {
  homeAccountId: Type.String(),
  rows: Type.Array(
    Type.Object({
      clientId: Type.String(),
      partitionKey: Type.String(),
      kind: Type.Enum(['user', 'obo']),
      accountIssuer: textOrNull,
      payloadBytes: count,
      createdAt: time,
      updatedAt: time,
      expiresAt: time
    })
  ),
  sessions: Type.Array(
    Type.Object({
      clientId: Type.String(),
      issuer: Type.String(),
      sid: textOrNull,
      subject: Type.String(),
      tenantId: textOrNull,
      objectId: textOrNull,
      issuedAt: time,
      createdAt: time,
      expiresAt: time
    })
  ),
  isComplete: Type.Boolean({ description: 'False if there are more than 1,000 of either' })
})
const byOutcome = Type.Object(
  {
    done: Type.Integer({ minimum: 0, description: 'Ended something' }),
    unmatched: Type.Integer({ minimum: 0, description: 'No session was there to end' }),
    duplicate: Type.Integer({ minimum: 0, description: 'Done before' }),
    ignored: Type.Integer({ minimum: 0, description: 'Genuine, and asks for nothing here' }),
    deferred: Type.Integer({ minimum: 0, description: 'On disk, done later, and counted once more then' }),
    lost: Type.Integer({ minimum: 0, description: 'Neither done nor deferred' }),
    rejected: Type.Integer({ minimum: 0, description: "The sender's fault" }),
    failed: Type.Integer({ minimum: 0, description: 'A mistake of ours' })
  },
  { description: 'What became of the signals of this process' }
)
// A person who asks by curl reads from the top: whether it works, and then the numbers.
export const Stats = answer('How it goes', {
  since: Type.Unsafe<Date>({ type: 'string', format: 'date-time', description: 'When this process began to count' }),
  verdicts: Type.Array(
    Type.Object({
      state: Type.Enum(['works', 'quiet', 'fails']),
      code: Type.String({ description: 'For programs, and stable' }),
      issuer: Type.Unsafe<string | null>({
        type: ['string', 'null'],
        description: 'The name of its configuration; null of signals that name none'
      }),
      message: Type.String(),
      since: Type.Unsafe<Date | null>({
        type: ['string', 'null'],
        format: 'date-time',
        description: 'Since when it is so; of a quiet one, when the last signal came'
      }),
      advice: textOrNull
    }),
    { description: 'Whether each issuer works, as this process sees it; what fails first' }
  ),
  rejected: Type.Integer({ minimum: 0, description: 'Signals that this process rejected, 429 included' }),
  hasSessionCounts: Type.Boolean({
    description: 'False if the sessions could not be counted since the start; `sessions` is empty then'
  }),
  sessions: Type.Array(
    Type.Object({
      issuer: Type.String(),
      issuerName: Type.Unsafe<string | null>({ type: ['string', 'null'], description: 'null: it is not configured' }),
      clientId: Type.String(),
      sessions: count,
      withoutSid: count
    }),
    { description: 'The sessions that each app has stored, the first 1,000; of a large table an estimate' }
  ),
  minutes: Type.Array(
    Type.Object({
      at: time,
      bySource: Type.Record(Type.String(), count, { description: 'Records of all processes' }),
      byOutcome
    }),
    { description: 'The oldest first' }
  ),
  isComplete: Type.Boolean({
    description: 'False if there were too many records to count them all, or the database is out of reach'
  }),
  hasRecords: Type.Boolean({ description: 'False if the database is out of reach: `bySource` is empty then' })
})
const offending = {
  details: Type.Object(
    {
      iss: Type.Optional(Type.String()),
      aud: Type.Optional(Type.String()),
      typ: Type.Optional(Type.String()),
      alg: Type.Optional(Type.String()),
      enc: Type.Optional(Type.String({ description: 'Of an encrypted token' })),
      kid: Type.Optional(Type.String()),
      age: Type.Optional(Type.String({ description: 'By iat, when it arrived' })),
      expired: Type.Optional(Type.String()),
      iat: Type.Optional(Type.String()),
      exp: Type.Optional(Type.String()),
      nbf: Type.Optional(Type.String()),
      events: Type.Optional(Type.String()),
      name: Type.Optional(Type.String({ description: "The issuer's name in the path of a front-channel call" }))
    },
    { description: 'What the signal says of itself, cut and escaped; nothing of it is verified' }
  ),
  accepted: Type.Unsafe<string | null>({
    type: ['string', 'null'],
    description: 'What is accepted in place of the offending value'
  }),
  hint: Type.Unsafe<string | null>({ type: ['string', 'null'], description: 'The likeliest mistake' })
}
export const RejectionList = answer('The signals that this process rejected of late, the newest first', {
  rejections: Type.Array(
    Type.Object({
      position: count,
      at: time,
      code: Type.String(),
      description: Type.String(),
      source: Type.String(),
      issuer: Type.Unsafe<string | null>({ type: ['string', 'null'], description: 'The name of its configuration' }),
      address: textOrNull,
      ...offending
    })
  ),
  limited: Type.Integer({ minimum: 0, description: 'How many more were answered 429, since the start' })
})
export const SignalsQuery = Type.Object(
  {
    after: Type.Optional(
      Type.Unsafe<string>({
        type: 'string',
        pattern: '^[0-9]{1,16}$',
        description: 'The position of the last one seen; default 0'
      })
    )
  },
  closed
)
export const Signals = answer('What came of the last signals of this process', {
  position: Type.Integer({
    minimum: 0,
    description: 'Of the last one; less than before: the process has started anew'
  }),
  signals: Type.Array(
    Type.Object({
      position: count,
      at: time,
      source: Type.String({ description: 'The kind of signal' }),
      issuer: Type.Unsafe<string | null>({ type: ['string', 'null'], description: 'The name of its configuration' }),
      outcome: Type.Enum(['done', 'unmatched', 'duplicate', 'ignored', 'deferred', 'lost', 'rejected', 'failed']),
      isRetry: Type.Boolean({ description: 'It was deferred before' }),
      tookMs: count,
      code: textOrNull,
      description: textOrNull,
      ...offending,
      why: Type.Unsafe<string | null>({
        type: ['string', 'null'],
        description: 'Why it is ignored; or why nothing matched, most likely'
      }),
      advice: textOrNull,
      orders: Type.Array(
        Type.Object({
          record: textOrNull,
          clientId: textOrNull,
          selector: Type.String(),
          hasSid: Type.Boolean(),
          hasSubject: Type.Boolean(),
          issuedAt: timeOrNull,
          outcome: Type.Unsafe<'done' | 'unmatched' | 'duplicate' | null>({ type: ['string', 'null'] }),
          accounts: count,
          sessions: count,
          rows: count,
          rowsByClient
        })
      )
    })
  )
})
export const IssuerList = answer('The trusted issuers and their keys, as this process has them', {
  issuers: Type.Array(
    Type.Object({
      name: Type.String(),
      issuer: Type.String(),
      clientIds: Type.Array(Type.String()),
      frontChannel: Type.Boolean(),
      algorithms: Type.Array(Type.String()),
      types: Type.Array(textOrNull, { description: 'null stands for none' }),
      maxTokenAgeSeconds: count,
      clockToleranceSeconds: count,
      sidAndSubject: Type.Enum(['session', 'subject']),
      keys: count,
      keysLoadedAt: timeOrNull,
      keysAgeSeconds: Type.Unsafe<number | null>({ type: ['integer', 'null'], minimum: 0 }),
      lastFailureAt: timeOrNull,
      lastFailure: textOrNull,
      lookUp: Type.Object(lookUp, { description: 'How to find the id of a person at the provider' })
    })
  )
})
export const SpoolState = answer('What waits on the disk of this process', {
  verified: Type.Integer({ minimum: 0, description: 'Orders of genuine signals, which wait for the database' }),
  unverified: Type.Integer({ minimum: 0, description: 'Signed signals that nobody has vouched for yet' }),
  unsigned: Type.Integer({ minimum: 0, description: 'Signals without a signature, which nobody can vouch for' }),
  rejected: Type.Integer({ minimum: 0, description: 'Set aside, since they proved bad' }),
  stuck: Type.Array(Type.Object({ name: Type.String(), reason: Type.String() }), {
    description: 'Files that cannot be read, or are not to be believed'
  }),
  oldestAt: timeOrNull,
  isWritable: Type.Boolean()
})
export const Ready = answer('The database and the spool are of use', { status: Type.Literal('ok'), version })
export const Unready = answer('They are not', {
  status: Type.Literal('unavailable'),
  reason: Type.String(),
  since: Type.Unsafe<Date>({ type: 'string', format: 'date-time', description: 'When somebody first saw so' }),
  version
})
export const MetricsText = Type.String({ description: "Prometheus' text format" })

/** RFC 9457 */
const Problem = Type.Object({
  type: Type.String(),
  title: Type.String(),
  status: Type.Integer(),
  code: Type.String({ description: 'For programs, and stable' }),
  detail: Type.String()
})
const directoryFailure = Type.Union([
  Type.Object({ code: Type.String(), detail: textOrNull, since: time, at: time, count }),
  Type.Null()
])
export const DirectoryList = answer('The directories that are watched', {
  directories: Type.Array(
    Type.Object({
      issuer: Type.String({ description: "The issuer's name in the configuration" }),
      tenantId: Type.String(),
      revokeOn: Type.Array(Type.String()),
      pollSeconds: count,
      sweepSeconds: count,
      dryRun: Type.Boolean(),
      goodAt: Type.Unsafe<Date | null>({
        type: ['string', 'null'],
        format: 'date-time',
        description: 'When all was last well'
      }),
      deltaAt: Type.Unsafe<Date | null>({
        type: ['string', 'null'],
        format: 'date-time',
        description: 'When the directory last said what has changed'
      }),
      hasDelta: Type.Boolean({ description: 'False of an external tenant: it is swept alone' }),
      sweptAt: timeOrNull,
      deltaFailure: directoryFailure,
      sweepFailure: directoryFailure,
      notifications: Type.Union(
        [
          Type.Object({
            expiresAt: timeOrNull,
            failure: Type.Union([Type.Object({ code: Type.String(), detail: textOrNull }), Type.Null()])
          }),
          Type.Null()
        ],
        { description: 'Until when the directory says at once that something has changed; null: it is not asked to' }
      ),
      watched: Type.Unsafe<number | null>({
        type: ['integer', 'null'],
        description: 'Objects in the cache, as of the last sweep'
      }),
      unwatched: Type.Unsafe<number | null>({
        type: ['integer', 'null'],
        description: 'Accounts of the issuer that name no object of this directory'
      }),
      breaker: Type.Union([
        Type.Object({ openedAt: time, kind: Type.Enum(['delta', 'sweep']), found: count, watched: count }),
        Type.Null()
      ]),
      held: Type.Array(
        Type.Object({ objectId: Type.String(), event: Type.String(), detail: Type.String(), seenAt: time }),
        { description: 'Who would be purged: held by the breaker, or by a dry run; the first 100' }
      ),
      heldCount: count,
      rounds: Type.Array(
        Type.Object({
          kind: Type.Enum(['delta', 'sweep']),
          at: Type.String({ format: 'date-time' }),
          seconds: Type.Number(),
          looked: count,
          done: Type.Record(Type.String(), count),
          held: count,
          doubted: count,
          failure: textOrNull
        }),
        { description: 'The last ones that saw something, newest first' }
      )
    })
  )
})
export const StreamParams = Type.Object({ name: Type.String({ maxLength: 64 }) })
export const Stream = answer('A stream of security events', {
  name: Type.String(),
  issuer: Type.String({ description: "The transmitter's" }),
  issuers: Type.Array(Type.String(), { description: 'Whose users it speaks of, by name' }),
  delivery: Type.Enum(['poll', 'push']),
  profile: Type.Enum(['ssf-1.0', 'legacy']),
  isManaged: Type.Boolean({ description: 'False: a person looks after it at the transmitter' }),
  streamId: Type.Unsafe<string | null>({ type: ['string', 'null'], description: 'As the transmitter calls it' }),
  status: Type.Unsafe<string | null>({
    type: ['string', 'null'],
    description: 'enabled, paused or disabled, as the transmitter says'
  }),
  statusReason: textOrNull,
  isPaused: Type.Boolean({ description: 'By an operator' }),
  isDeleted: Type.Boolean({ description: 'By an operator' }),
  revokeOn: Type.Array(Type.String()),
  missingEvents: Type.Array(Type.String(), { description: 'Of revokeOn: what the transmitter does not send' }),
  sendsNobodyByDefault: Type.Boolean({
    description:
      'By its metadata the transmitter sends nothing of anybody who was not added there; its settings for one receiver may say otherwise'
  }),
  goodAt: Type.Unsafe<Date | null>({
    type: ['string', 'null'],
    format: 'date-time',
    description: 'When all was last well'
  }),
  heardAt: Type.Unsafe<Date | null>({
    type: ['string', 'null'],
    format: 'date-time',
    description: 'When a security event token came last; up to half a minute behind'
  }),
  verifiedAt: Type.Unsafe<Date | null>({
    type: ['string', 'null'],
    format: 'date-time',
    description: 'When a verification event came last'
  }),
  canVerify: Type.Boolean({ description: 'False: the transmitter cannot be asked for verification events' }),
  failure: directoryFailure
})
export const StreamList = answer('The streams of security events', { streams: Type.Array(Stream) })
export const TenantParams = Type.Object({ tenantId: Type.String({ maxLength: 64 }) })
export const DirectoryDecision = answer('What the decision is about', { accounts: count })

/** The answers of a route behind the operators' credentials. */
export function answers<Answers extends Record<number, TSchema>>(given: Answers) {
  const problem = (description: string) => ({
    description,
    content: { 'application/problem+json': { schema: Problem } }
  })
  return {
    ...given,
    '4xx': problem('The request is at fault'),
    '5xx': problem('The service or its surroundings are')
  }
}

function answer<Properties extends TProperties>(description: string, properties: Properties) {
  return Type.Object(properties, { description })
}

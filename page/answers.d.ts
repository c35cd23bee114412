// What the operators' HTTP interface answers, as JSON has it: times are ISO 8601.

export interface Readiness {
  readonly status: 'ok' | 'unavailable'
  readonly reason?: string
  /** The release that answers. */
  readonly version: string
}

export interface Minute {
  readonly at: string
  /** Which sources there are is for the service to say: one with a new name needs no change of this page. */
  readonly bySource: Readonly<Record<string, number>>
  /** What became of the signals of the instance that answers. */
  readonly byOutcome: OutcomeCounts
}

export interface OutcomeCounts {
  readonly done: number
  readonly unmatched: number
  readonly duplicate: number
  readonly ignored: number
  readonly deferred: number
  readonly lost: number
  readonly rejected: number
  readonly failed: number
}

/** An answer to "does it work?": a sentence, and what to do. */
export interface Verdict {
  readonly state: 'works' | 'quiet' | 'fails'
  readonly code: string
  /** The name of its configuration; null of signals that name none. */
  readonly issuer: string | null
  readonly message: string
  readonly advice: string | null
}

export interface Stats {
  readonly minutes: readonly Minute[]
  readonly isComplete: boolean
  /** When the instance that answers began to count. */
  readonly since: string
  readonly verdicts: readonly Verdict[]
  /** How many signals that instance rejected. */
  readonly rejected: number
}

export interface Rejection {
  readonly position: number
  readonly at: string
  readonly code: string
  readonly description: string
  readonly source: string
  readonly issuer: string | null
  readonly address: string | null
  /** What the token says of itself: `iss`, `aud`, `typ`, `alg`, `kid`. Nothing of it is true. */
  readonly details: Readonly<Record<string, string>>
  /** What is accepted in place of the offending value. */
  readonly accepted: string | null
  /** The likeliest mistake. */
  readonly hint: string | null
}

export interface Rejections {
  readonly rejections: readonly Rejection[]
  readonly limited: number
}

export interface Issuer {
  readonly name: string
  readonly issuer: string
  readonly clientIds: readonly string[]
  readonly frontChannel: boolean
  readonly keys: number
  readonly keysLoadedAt: string | null
  readonly lastFailureAt: string | null
  readonly lastFailure: string | null
}

export interface DirectoryFailure {
  readonly code: string
  readonly detail: string | null
  readonly since: string
}

export interface Directory {
  readonly issuer: string
  readonly tenantId: string
  readonly dryRun: boolean
  readonly goodAt: string | null
  readonly deltaAt: string | null
  readonly hasDelta: boolean
  readonly sweptAt: string | null
  readonly deltaFailure: DirectoryFailure | null
  readonly sweepFailure: DirectoryFailure | null
  readonly watched: number | null
  readonly unwatched: number | null
  readonly breaker: { readonly openedAt: string; readonly found: number; readonly watched: number } | null
  readonly held: readonly {
    readonly objectId: string
    readonly event: string
    readonly detail: string
    readonly seenAt: string
  }[]
  readonly heldCount: number
  readonly rounds: readonly {
    readonly kind: 'delta' | 'sweep'
    readonly at: string
    readonly looked: number
    readonly done: Readonly<Record<string, number>>
    readonly held: number
    readonly failure: string | null
  }[]
}

export interface Spool {
  readonly verified: number
  readonly unverified: number
  readonly unsigned: number
  readonly rejected: number
  readonly stuck: readonly { readonly name: string; readonly reason: string }[]
  readonly oldestAt: string | null
  readonly isWritable: boolean
}

export interface AccountReference {
  readonly homeAccountId: string
  readonly accountIssuer: string | null
}

export interface StoredRow {
  readonly clientId: string
  readonly partitionKey: string
  readonly kind: 'user' | 'obo'
  readonly accountIssuer: string | null
  readonly payloadBytes: number
  readonly createdAt: string
  readonly updatedAt: string
  readonly expiresAt: string
}

export interface StoredSession {
  readonly clientId: string
  readonly issuer: string
  readonly sid: string | null
  readonly subject: string
  readonly tenantId: string | null
  readonly objectId: string | null
  readonly issuedAt: string
  readonly createdAt: string
  readonly expiresAt: string
}

export interface StoredAccount {
  readonly homeAccountId: string
  readonly rows: readonly StoredRow[]
  readonly sessions: readonly StoredSession[]
  readonly isComplete: boolean
}

/** By what an account is found. */
export type AccountQuery =
  | { readonly issuer: string; readonly sid: string }
  | { readonly issuer: string; readonly subject: string }
  | { readonly tenantId: string; readonly objectId: string }

/** What a purge is about. */
export type Selector =
  | { readonly homeAccountId: string; readonly issuer?: string | undefined }
  | AccountQuery
  | { readonly clientId: string }
  | { readonly tenantId: string }

/** What an operator means, but for the dry run. */
export interface PurgeOrder {
  readonly selector: Selector
  readonly reason: string
  /** An ISO time; undefined: everything. */
  readonly issuedBefore: string | undefined
}

export interface PurgeOutcome {
  readonly id: string
  readonly accounts: number
  readonly sessions: number
  readonly rows: number
  readonly rowsByClient: Readonly<Record<string, number>>
  readonly isRunning?: boolean
  /** If nothing matched: what is stored and comes close. */
  readonly near?: readonly { readonly message: string }[]
}

/** Whom the directories know by an e-mail address or user name; or how to find them by hand. */
export interface UserAnswer {
  readonly accounts: readonly AccountReference[]
  readonly objects: readonly { readonly tenantId: string; readonly objectId: string }[]
  readonly hasDirectory: boolean
  readonly clicks: readonly {
    readonly issuer: string
    readonly provider: string
    readonly path: string
    readonly purgeBy: string
  }[]
}

/** What a sign-out or a purge did, and why. */
export interface StoredRecord {
  readonly id: string
  readonly at: string
  readonly source: string
  readonly status: 'running' | 'done'
  /** `unmatched`: no session was there to end. */
  readonly outcome: 'running' | 'done' | 'unmatched'
  readonly done: number
  readonly total: number
  readonly accounts: number
  readonly sessions: number
  readonly rows: number
  readonly rowsByClient: Readonly<Record<string, number>>
  readonly issuer: string | null
  readonly clientId: string | null
  readonly jti: string | null
  readonly sid: string | null
  readonly subject: string | null
  readonly homeAccountId: string | null
  readonly tenantId: string | null
  readonly objectId: string | null
  readonly revokeBefore: string | null
  readonly reason: string | null
  readonly actor: string | null
  readonly finishedAt: string | null
  readonly matchedAccounts: readonly AccountReference[]
}

export interface RecordPage {
  readonly records: readonly StoredRecord[]
  readonly next: string | null
}

export interface RecordFilter {
  readonly source?: string | undefined
  readonly issuer?: string | undefined
  readonly account?: string | undefined
  readonly actor?: string | undefined
}

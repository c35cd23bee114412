// What the operators' HTTP interface answers, as JSON has it: times are ISO 8601.

export interface Readiness {
  readonly status: 'ok' | 'unavailable'
  readonly reason?: string
}

export interface LogoutsOfMinute {
  readonly at: string
  readonly backchannel: number
  readonly frontchannel: number
  readonly admin: number
}

export interface Logouts {
  readonly minutes: readonly LogoutsOfMinute[]
  readonly isComplete: boolean
}

export interface Rejection {
  readonly position: number
  readonly at: string
  readonly code: string
  readonly description: string
  readonly endpoint: 'backchannel' | 'frontchannel' | 'replay'
  readonly issuer: string | null
  readonly address: string | null
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

export interface Spool {
  readonly verified: number
  readonly unverified: number
  readonly frontchannel: number
  readonly rejected: number
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

export type Selector =
  | { readonly homeAccountId: string; readonly issuer?: string | undefined }
  | { readonly issuer: string; readonly sid: string }
  | { readonly issuer: string; readonly subject: string }
  | { readonly clientId: string }
  | { readonly tenantId: string }

export interface PurgeOutcome {
  readonly id: string
  readonly accounts: number
  readonly sessions: number
  readonly rows: number
  readonly rowsByClient: Readonly<Record<string, number>>
  readonly isRunning?: boolean
}

export interface PurgeRecord {
  readonly id: string
  readonly at: string
  readonly source: 'backchannel' | 'frontchannel' | 'admin'
  readonly status: 'running' | 'done'
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
  readonly reason: string | null
  readonly actor: string | null
  readonly finishedAt: string | null
}

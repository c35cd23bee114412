// What the operators' HTTP interface takes and answers, derived from the schemas that check, serialize and document it.
import type { Static, TSchema } from 'typebox'
import type * as schemas from '../src/http/schemas.ts'

/** As JSON has it: times are ISO 8601. */
type Json<Value> = Value extends Date
  ? string
  : Value extends readonly (infer Item)[]
    ? readonly Json<Item>[]
    : Value extends object
      ? { readonly [Name in keyof Value]: Json<Value[Name]> }
      : Value

type Answer<Schema extends TSchema> = Json<Static<Schema>>

export type Readiness = Answer<typeof schemas.Ready> | Answer<typeof schemas.Unready>
export type Stats = Answer<typeof schemas.Stats>
export type Minute = Stats['minutes'][number]
export type OutcomeCounts = Minute['byOutcome']
export type Verdict = Stats['verdicts'][number]
export type Rejections = Answer<typeof schemas.RejectionList>
export type Rejection = Rejections['rejections'][number]
export type Issuer = Answer<typeof schemas.IssuerList>['issuers'][number]
export type Directory = Answer<typeof schemas.DirectoryList>['directories'][number]
export type Stream = Answer<typeof schemas.StreamList>['streams'][number]
export type Spool = Answer<typeof schemas.SpoolState>
export type FoundAccounts = Answer<typeof schemas.Accounts>
export type AccountReference = FoundAccounts['accounts'][number]
export type StoredAccount = Answer<typeof schemas.Account>
export type StoredRow = StoredAccount['rows'][number]
export type StoredSession = StoredAccount['sessions'][number]
export type StoredRecord = Answer<typeof schemas.Record>
export type RecordPage = Answer<typeof schemas.Records>
export type RecordFilter = Omit<Static<typeof schemas.RecordsQuery>, 'limit' | 'before'>
export type AccountQuery = Static<typeof schemas.AccountsQuery>
/** What a purge is about; which members go together is for the service to say. */
export type Selector = Omit<Static<typeof schemas.PurgeBody>, 'reason' | 'issuedBefore' | 'dryRun' | 'force'>
/** What an operator means, but for the dry run. */
export type PurgeOrder = Omit<Static<typeof schemas.PurgeBody>, 'dryRun' | 'force'>
/** Done; or running in the background, if it has a `status`. */
export type PurgeOutcome = Answer<typeof schemas.PurgeDone> | Answer<typeof schemas.PurgeRunning>

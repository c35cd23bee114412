import type { DirectoryEvent } from './directory-config.ts'
import type { DirectoryFailure, DirectoryState, DirectoryStore, StoredFinding } from './directory-store.ts'
import type { IssuerConfig } from './issuers.ts'

/** How a watched tenant stands, for operators. */
export interface DirectoryReport {
  /** The issuer's name in the configuration. */
  readonly issuer: string
  readonly tenantId: string
  readonly revokeOn: readonly DirectoryEvent[]
  readonly pollSeconds: number
  readonly sweepSeconds: number
  readonly dryRun: boolean
  /** Undefined as long as nobody has looked. */
  readonly state: DirectoryState | undefined
  readonly failure: DirectoryFailure | undefined
  /** Who is held by the breaker, or by a dry run: the first of them, and how many there are. */
  readonly held: readonly StoredFinding[]
  readonly heldCount: number
}

export interface DirectoryReports {
  /** @throws {UnavailableError} if the database is out of reach */
  list(): Promise<DirectoryReport[]>
  /** What is known without asking the database; as it was a second ago. */
  latest(): readonly Omit<DirectoryReport, 'held' | 'heldCount'>[]
  /**
   * Lets what the breaker holds go, or drops it.
   *
   * @param actor who decided, for the table `directories`
   * @returns how many objects that is about; undefined if no breaker of that tenant is open
   * @throws {UnavailableError} if the database is out of reach
   */
  decide(tenantId: string, decision: 'released' | 'dropped', actor: string): Promise<number | undefined>
  /** Whether the tenant is watched. */
  has(tenantId: string): boolean
}

export interface DirectoryReportsOptions {
  readonly watchers: {
    watched(): readonly { readonly name: string; readonly tenantId: string; readonly config: IssuerConfig }[]
    states(): ReadonlyMap<string, DirectoryState>
  }
  readonly store: Pick<DirectoryStore, 'readStates' | 'countFindings' | 'listFindings' | 'decide'>
}

const maxHeldShown = 100

export function createDirectoryReports({ watchers, store }: DirectoryReportsOptions): DirectoryReports {
  function reportsOf(states: ReadonlyMap<string, DirectoryState>) {
    return watchers.watched().map(({ name, tenantId, config: { directory } }) => {
      const state = states.get(tenantId)
      return {
        issuer: name,
        tenantId,
        revokeOn: directory?.revokeOn ?? [],
        pollSeconds: directory?.pollSeconds ?? 0,
        sweepSeconds: directory?.sweepSeconds ?? 0,
        dryRun: directory?.dryRun ?? false,
        state,
        failure: state?.sweepFailure ?? state?.deltaFailure
      }
    })
  }

  return {
    latest: () => reportsOf(watchers.states()),
    has: (tenantId) => watchers.watched().some((watched) => watched.tenantId === tenantId),
    decide: (tenantId, decision, actor) => store.decide(tenantId, decision, actor),

    async list() {
      const states = await store.readStates(watchers.watched().map(({ tenantId }) => tenantId))
      return Promise.all(
        reportsOf(states).map(async (report) => {
          const status = report.dryRun ? 'dry_run' : 'held'
          const counts = await store.countFindings(report.tenantId)
          const heldCount = counts[status] ?? 0
          const held = heldCount === 0 ? [] : await store.listFindings(report.tenantId, [status], '', maxHeldShown)
          return { ...report, held, heldCount }
        })
      )
    }
  }
}

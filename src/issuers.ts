import type { DirectoryConfig } from './directory-config.ts'
import { createIssuerHints, type IssuerHint } from './issuer-hints.ts'
import { createIssuerKeys, type IssuerKeys, type IssuerKeysOptions, type KeysStatus } from './issuer-keys.ts'
import { issuerOfTenant, templatePattern } from './issuer-template.ts'

/** What is accepted of one issuer; the members and defaults are those of `ISSUERS_FILE` (README). */
export interface IssuerConfig {
  /** In the path of front-channel calls, in metrics and in lists of rejections. */
  readonly name: string
  /** The exact `iss`; with `{tenantid}` in it a template that stands for one GUID. */
  readonly issuer: string
  /** Ours: a token must be for one of them. */
  readonly clientIds: readonly string[]
  /** The GUIDs a template is limited to. */
  readonly tenants: readonly string[] | undefined
  /** Where the keys are; undefined: as the issuer's discovery document says. */
  readonly jwksUri: string | undefined
  /** Where that document may be, in turn; default where OpenID Connect wants it. */
  readonly metadataUrls?: readonly string[] | undefined
  /** Accepted `alg` headers, asymmetric ones only. */
  readonly algorithms: readonly string[]
  /** Accepted `typ` headers; null stands for none. */
  readonly types: readonly (string | null)[]
  /** How long keys serve while the issuer cannot be reached, in seconds. */
  readonly maxStaleKeysSeconds: number
  /** Whether a token that is not encrypted is rejected. */
  readonly requireEncryption: boolean
  /** Whether a token without `exp` is rejected. */
  readonly requireExp: boolean
  /** By `iat`, in seconds. */
  readonly maxTokenAgeSeconds: number
  /** How far clocks may be apart, in seconds. */
  readonly clockToleranceSeconds: number
  /** What a token with both `sid` and `sub` ends: that session, or every session of the subject. */
  readonly sidAndSubject: 'session' | 'subject'
  /** Whether a purge takes every row of the account or spares rows that another live session uses. */
  readonly purgeScope: 'account' | 'session'
  /** Whether front-channel calls, which bear no signature, are taken. */
  readonly frontChannel: boolean
  /** How its directory is watched; undefined: it is not. */
  readonly directory: DirectoryConfig | undefined
}

/** An issuer whose logout tokens are accepted. */
export interface Issuer {
  /** The exact `iss`; of a template, with the tenant put in. */
  readonly issuer: string
  readonly config: IssuerConfig
  readonly keys: IssuerKeys
  /** The name of another configured issuer that has this client id; undefined if none has. */
  otherOf?(clientId: string): string | undefined
}

export interface Issuers {
  /** The issuer of this exact `iss`, or undefined; costs no look-up outside this process. */
  find(iss: string): Issuer | undefined
  /** The configured issuer or template of this name. */
  named(name: string): IssuerConfig | undefined
  /** The only configured issuer, or undefined if there are several. */
  only(): IssuerConfig | undefined
  /** All the issuers that a configuration stands for; undefined for a template without `tenants`. */
  all(config: IssuerConfig): string[] | undefined
  /** What is configured, beside an `iss` that is not, and the likeliest mistake. */
  hintsFor(iss: string): IssuerHint
  /**
   * Begins to load the keys of every issuer that has none, or old ones, so that no token need wait for them. It does no
   * harm to call it again and again: the keys of an issuer that sends little stay young then.
   */
  warmUp(): void
  /** How the keys of each stand. */
  status(): IssuerStatus[]
  /**
   * Trusts these from now on, and no others. An issuer whose keys come from where they came before keeps those at hand.
   *
   * @returns by name, what is other than it was
   */
  replace(configs: readonly IssuerConfig[]): IssuersChange
}

export interface IssuersChange {
  readonly added: readonly string[]
  readonly removed: readonly string[]
  readonly changed: readonly string[]
}

interface Entry {
  readonly config: IssuerConfig
  readonly keys: IssuerKeys
  readonly pattern: RegExp | undefined
}

/** An issuer and how its keys stand, for operators. */
export interface IssuerStatus extends KeysStatus {
  readonly name: string
  readonly issuer: string
  readonly config: IssuerConfig
}

export type IssuersOptions = IssuerKeysOptions

/**
 * Whom we trust, and their keys; none is fetched before it is needed.
 *
 * @param configs as `readConfig` gives them; their names and issuers are distinct
 * @param options the clock and the network's edge, of the keys
 */
export function createIssuers(configs: readonly IssuerConfig[], options: IssuersOptions = {}): Issuers {
  let entries: readonly Entry[] = []
  let exact = new Map<string, Issuer>()
  let templates: readonly Entry[] = []
  let hintsFor = createIssuerHints([])
  let byClientId = new Map<string, string>()
  const otherOf = (clientId: string) => byClientId.get(clientId)

  function trust(next: readonly IssuerConfig[]): void {
    entries = next.map((config) => ({
      config,
      keys: entries.find((known) => haveSameKeys(known.config, config))?.keys ?? createIssuerKeys(config, options),
      pattern: templatePattern(config.issuer)
    }))
    hintsFor = createIssuerHints(next.map(({ issuer }) => issuer))
    byClientId = new Map(next.flatMap(({ name, clientIds }) => clientIds.map((clientId) => [clientId, name])))
    templates = entries.filter(({ pattern }) => pattern !== undefined)
    exact = new Map(
      entries
        .filter(({ pattern }) => pattern === undefined)
        .map(({ config, keys }) => [config.issuer, { issuer: config.issuer, config, keys, otherOf }])
    )
  }

  trust(configs)
  return {
    find(iss) {
      const known = exact.get(iss)
      if (known !== undefined) {
        return known
      }
      for (const { config, keys, pattern } of templates) {
        const tenant = pattern?.exec(iss)?.[1]
        if (tenant !== undefined && (config.tenants === undefined || config.tenants.includes(tenant))) {
          return { issuer: iss, config, keys, otherOf }
        }
      }
      return undefined
    },
    named: (name) => entries.find(({ config }) => config.name === name)?.config,
    only: () => (entries.length === 1 ? entries[0]?.config : undefined),
    all: ({ issuer, tenants }) =>
      templatePattern(issuer) === undefined ? [issuer] : tenants?.map((tenant) => issuerOfTenant(issuer, tenant)),
    hintsFor: (iss) => hintsFor(iss),
    warmUp() {
      for (const { keys } of entries) {
        keys.current().catch(() => {}) // in the status, and for the token that needs them
      }
    },
    status: () =>
      entries.map(({ config, keys }) => ({ name: config.name, issuer: config.issuer, config, ...keys.status() })),
    replace(next) {
      const before = new Map(entries.map(({ config }) => [config.name, JSON.stringify(config)]))
      trust(next)
      const known = next.filter(({ name }) => before.has(name))
      return {
        added: next.map(({ name }) => name).filter((name) => !before.has(name)),
        removed: [...before.keys()].filter((name) => !next.some((config) => config.name === name)),
        changed: known.filter((config) => before.get(config.name) !== JSON.stringify(config)).map(({ name }) => name)
      }
    }
  }
}

function haveSameKeys(one: IssuerConfig, other: IssuerConfig): boolean {
  const source = ({ name, issuer, jwksUri, metadataUrls, algorithms, maxStaleKeysSeconds }: IssuerConfig) =>
    JSON.stringify([name, issuer, jwksUri, metadataUrls, algorithms, maxStaleKeysSeconds])
  return source(one) === source(other)
}

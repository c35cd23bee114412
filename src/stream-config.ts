import { type Static, Type } from 'typebox'
import { checkUrl, hasInvisible } from './configured-url.ts'
import type { IssuerConfig } from './issuers.ts'
import { readSecretFile } from './secret-file.ts'
import { defaultStreamEvents, type Initiator, initiators, type StreamEvent, streamEventNames } from './stream-events.ts'

const closed = { additionalProperties: false }
const text = Type.String({ minLength: 1 })

/** How strictly a transmitter keeps to the framework: its final version, or drafts and what is older. */
export const streamProfiles = ['ssf-1.0', 'legacy'] as const
export type StreamProfile = (typeof streamProfiles)[number]

/** An entry of `streams` in ISSUERS_FILE. */
export const StreamSchema = Type.Object(
  {
    name: Type.String({ pattern: '^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$' }),
    issuer: text,
    issuers: Type.Optional(Type.Array(text, { minItems: 1 })),
    profile: Type.Optional(Type.Enum([...streamProfiles])),
    delivery: Type.Optional(Type.Enum(['poll', 'push'])),
    credential: Type.Optional(
      Type.Object(
        {
          tokenFile: Type.Optional(text),
          tokenUrl: Type.Optional(text),
          clientId: Type.Optional(text),
          clientSecretFile: Type.Optional(text),
          scope: Type.Optional(text)
        },
        closed
      )
    ),
    pushAuthorizationFile: Type.Optional(text),
    endpointUrl: Type.Optional(text),
    metadataUrl: Type.Optional(text),
    manage: Type.Optional(Type.Boolean()),
    streamId: Type.Optional(text),
    pollUrl: Type.Optional(text),
    pollSeconds: Type.Optional(Type.Integer({ minimum: 1, maximum: 3_600 })),
    verifySeconds: Type.Optional(Type.Integer({ minimum: 60, maximum: 7 * 86_400 })),
    audiences: Type.Optional(Type.Array(text, { minItems: 1 })),
    requireAudience: Type.Optional(Type.Boolean()),
    jwksUri: Type.Optional(text),
    algorithms: Type.Optional(Type.Array(text, { minItems: 1 })),
    types: Type.Optional(Type.Array(Type.Union([text, Type.Null()]), { minItems: 1 })),
    revokeOn: Type.Optional(Type.Array(Type.Enum([...streamEventNames]), { minItems: 1 })),
    ignoreInitiatedBy: Type.Optional(Type.Array(Type.Enum([...initiators])))
  },
  closed
)

/** By what we prove ourselves to a transmitter: files, each read anew for every token. */
export type StreamCredential =
  | { readonly kind: 'token'; readonly tokenFile: string }
  /** OAuth 2.0 client credentials: RFC 6749 §4.4. */
  | {
      readonly kind: 'client'
      readonly tokenUrl: string
      readonly clientId: string
      readonly clientSecretFile: string
      readonly scope: string | undefined
    }

/** A stream of security events; the members and defaults are those of `streams` in ISSUERS_FILE (docs/shared-signals.md). */
export interface StreamConfig {
  /** In the path that a transmitter pushes to, in metrics and on the page. */
  readonly name: string
  /** The transmitter's: the exact `iss` of its security event tokens, and of its metadata. */
  readonly issuer: string
  /** The configured issuers, by name, whose users and sessions the stream may speak of. */
  readonly issuers: readonly string[]
  readonly profile: StreamProfile
  readonly delivery: 'poll' | 'push'
  /** Undefined: nothing is asked of the transmitter. */
  readonly credential: StreamCredential | undefined
  /** The whole value of the header `Authorization` that the transmitter pushes with; undefined of a poll. */
  readonly pushAuthorization: string | undefined
  /** Where it is to push. */
  readonly endpointUrl: string
  /** Where its metadata are; undefined: where the framework wants them, or where others put them. */
  readonly metadataUrl: string | undefined
  /** Whether the stream is created, looked after and verified by us; else a person does it at the transmitter. */
  readonly isManaged: boolean
  /** The stream to adopt; undefined: the one that is ours, or a new one. */
  readonly streamId: string | undefined
  /** Where to poll a stream that we do not manage. */
  readonly pollUrl: string | undefined
  readonly pollSeconds: number
  /** How often the transmitter is asked to show that its events reach us. */
  readonly verifySeconds: number
  /** What the transmitter calls us; undefined: as it says when the stream is created. */
  readonly audiences: readonly string[] | undefined
  /** Whether a token without an `aud` is rejected. */
  readonly requireAudience: boolean
  readonly revokeOn: readonly StreamEvent[]
  /** Events that these have asked for end nothing. */
  readonly ignoreInitiatedBy: readonly Initiator[]
  /** How its tokens are verified, as those of an issuer. */
  readonly verification: IssuerConfig
}

const defaults = {
  profile: 'ssf-1.0',
  delivery: 'poll',
  pollSeconds: 5,
  verifySeconds: 86_400,
  manage: true,
  requireAudience: true
} as const
const typesOf: Readonly<Record<StreamProfile, readonly (string | null)[]>> = {
  'ssf-1.0': ['secevent+jwt'],
  legacy: ['secevent+jwt', 'JWT', null]
}

/** What the entries of one file share. */
export interface StreamSurroundings {
  /** The configured issuers. */
  readonly issuers: readonly { readonly name: string; readonly issuer: string }[]
  /** Where the public listener is reached from outside; the first is the one to push to. */
  readonly publicUrls: readonly string[]
  readonly algorithms: readonly string[]
  /** Completes what verifies tokens of an issuer. */
  complete(entry: Pick<IssuerConfig, 'name' | 'issuer' | 'clientIds'>): IssuerConfig
}

/** The path that a transmitter pushes a stream's events to. */
export function pushPath(name: string): string {
  return `/security-events/${name}`
}

/**
 * Completes an entry of `streams`, and looks at the files that it names.
 *
 * @param at what is at fault, for the problems: `ISSUERS_FILE: streams[0]`
 * @param problems what is wrong is added here, without a word of what is in a file
 */
export function readStream(
  at: string,
  entry: Static<typeof StreamSchema>,
  { issuers, publicUrls, algorithms, complete }: StreamSurroundings,
  problems: string[]
): StreamConfig {
  const profile = entry.profile ?? defaults.profile
  const delivery = entry.delivery ?? defaults.delivery
  const isManaged = entry.manage ?? defaults.manage
  const urls = ['issuer', 'metadataUrl', 'endpointUrl', 'pollUrl', 'jwksUri'] as const
  for (const member of urls) {
    const url = entry[member]
    if (url !== undefined) {
      checkUrl(`${at}.${member}`, url, problems)
    }
  }
  if (entry.audiences?.some(hasInvisible)) {
    problems.push(`${at}.audiences: has white space or an invisible character in it`)
  }
  const unknown = entry.algorithms?.filter((algorithm) => !algorithms.includes(algorithm)) ?? []
  if (unknown.length > 0) {
    problems.push(`${at}.algorithms: must be among ${algorithms.join(', ')}`)
  }
  const credential =
    entry.credential === undefined ? undefined : readCredential(`${at}.credential`, entry.credential, problems)
  if (credential === undefined && entry.credential === undefined && (isManaged || delivery === 'poll')) {
    problems.push(`${at}.credential: must be given, to ${isManaged ? 'manage' : 'poll'} the stream`)
  }
  if (!isManaged) {
    checkUnmanaged(at, entry, delivery, problems)
  } else if (entry.pollUrl !== undefined) {
    problems.push(`${at}.pollUrl: goes with "manage": false alone; else the transmitter says where to poll`)
  }
  const endpointUrl = entry.endpointUrl ?? `${publicUrls[0] ?? ''}${pushPath(entry.name)}`
  if (delivery === 'push' && isManaged && endpointUrl.startsWith('http:') && entry.issuer.startsWith('https:')) {
    problems.push(`${at}.endpointUrl: must be given, or PUBLIC_URL: the transmitter cannot push to "${endpointUrl}"`)
  }
  return Object.freeze({
    name: entry.name,
    issuer: entry.issuer,
    issuers: Object.freeze(issuersOf(at, entry, issuers, problems)),
    profile,
    delivery,
    credential,
    pushAuthorization: pushAuthorization(at, entry, delivery, problems),
    endpointUrl,
    metadataUrl: entry.metadataUrl,
    isManaged,
    streamId: entry.streamId,
    pollUrl: entry.pollUrl,
    pollSeconds: entry.pollSeconds ?? defaults.pollSeconds,
    verifySeconds: entry.verifySeconds ?? defaults.verifySeconds,
    audiences: entry.audiences,
    requireAudience: entry.requireAudience ?? defaults.requireAudience,
    revokeOn: Object.freeze(entry.revokeOn ?? defaultStreamEvents),
    ignoreInitiatedBy: Object.freeze(entry.ignoreInitiatedBy ?? []),
    verification: Object.freeze({
      ...complete({ name: entry.name, issuer: entry.issuer, clientIds: [] }),
      jwksUri: entry.jwksUri,
      metadataUrls: metadataUrls(entry.issuer, entry.metadataUrl),
      algorithms: entry.algorithms ?? ['RS256'],
      types: entry.types ?? typesOf[profile],
      requireExp: false
    })
  })
}

/** Two streams of one name would have one state. */
export function checkStreamNames(streams: readonly { readonly name: string }[], problems: string[]): void {
  const names = streams.map(({ name }) => name)
  for (const [i, name] of names.entries()) {
    if (names.indexOf(name) !== i) {
      problems.push(`ISSUERS_FILE: streams[${i}].name: "${name}" is given twice`)
    }
  }
}

/**
 * Where the metadata of a transmitter may be, in the order in which they are looked for: the framework puts them between host and
 * path (SSF 1.0 §7.2), Keycloak behind the path, and RISC under another name.
 */
export function metadataUrls(issuer: string, given: string | undefined): string[] {
  if (given !== undefined) {
    return [given]
  }
  if (!URL.canParse(issuer)) {
    return []
  }
  const { origin, pathname } = new URL(issuer)
  const path = pathname.replace(/\/+$/, '')
  const places = [
    `${origin}/.well-known/ssf-configuration${path}`,
    `${origin}${path}/.well-known/ssf-configuration`,
    `${origin}/.well-known/risc-configuration${path}`
  ]
  return [...new Set(places)]
}

function issuersOf(
  at: string,
  { issuer, issuers: given }: Static<typeof StreamSchema>,
  configured: StreamSurroundings['issuers'],
  problems: string[]
): string[] {
  if (given === undefined) {
    const own = configured.find((one) => one.issuer === issuer)
    if (own === undefined) {
      problems.push(`${at}.issuers: name the issuers whose users the stream speaks of: none is "${issuer}" itself`)
    }
    return own === undefined ? [] : [own.name]
  }
  const known = configured.map(({ name }) => name)
  for (const name of given.filter((name) => !known.includes(name))) {
    problems.push(`${at}.issuers: no issuer is called "${name}"`)
  }
  return [...new Set(given)]
}

function checkUnmanaged(
  at: string,
  { audiences, pollUrl, requireAudience, streamId }: Static<typeof StreamSchema>,
  delivery: StreamConfig['delivery'],
  problems: string[]
): void {
  if (audiences === undefined && requireAudience !== false) {
    problems.push(`${at}.audiences: must be given with "manage": false, since the transmitter is not asked`)
  }
  if (delivery === 'poll' && pollUrl === undefined) {
    problems.push(`${at}.pollUrl: must be given with "manage": false`)
  }
  if (streamId !== undefined) {
    problems.push(`${at}.streamId: does not go with "manage": false`)
  }
}

// What a transmitter pushes bears a signature; this keeps others from making us verify theirs.
const minAuthorizationLength = 16

function pushAuthorization(
  at: string,
  { pushAuthorizationFile: file }: Static<typeof StreamSchema>,
  delivery: StreamConfig['delivery'],
  problems: string[]
): string | undefined {
  const name = `${at}.pushAuthorizationFile`
  if (delivery === 'poll') {
    if (file !== undefined) {
      problems.push(`${name}: goes with "delivery": "push" alone`)
    }
    return undefined
  }
  if (file === undefined) {
    problems.push(`${name}: must be given: the value of the header "Authorization" that the transmitter is to send`)
    return undefined
  }
  const content = readSecretFile(file)
  if ('problem' in content) {
    problems.push(`${name}: ${content.problem}`)
    return undefined
  }
  if (content.text.length < minAuthorizationLength || !/^[\x20-\x7e]+$/.test(content.text)) {
    problems.push(
      `${name}: "${file}" must have ${minAuthorizationLength} characters of ASCII or more, on one line: "Bearer …", say`
    )
  }
  return content.text
}

function readCredential(
  name: string,
  given: NonNullable<Static<typeof StreamSchema>['credential']>,
  problems: string[]
): StreamCredential | undefined {
  const { tokenFile, tokenUrl, clientId, clientSecretFile, scope } = given
  const client = { tokenUrl, clientId, clientSecretFile }
  const isClient = Object.values({ ...client, scope }).some((member) => member !== undefined)
  if (isClient === (tokenFile !== undefined)) {
    problems.push(`${name}: give either tokenFile, or tokenUrl with clientId and clientSecretFile`)
    return undefined
  }
  if (tokenFile !== undefined) {
    checkFile(`${name}.tokenFile`, tokenFile, problems)
    return Object.freeze({ kind: 'token', tokenFile })
  }
  for (const [member, value] of Object.entries(client)) {
    if (value === undefined) {
      problems.push(`${name}.${member}: must be given`)
    }
  }
  if (tokenUrl !== undefined) {
    checkUrl(`${name}.tokenUrl`, tokenUrl, problems)
  }
  if (clientSecretFile !== undefined) {
    checkFile(`${name}.clientSecretFile`, clientSecretFile, problems)
  }
  return Object.freeze({
    kind: 'client',
    tokenUrl: tokenUrl ?? '',
    clientId: clientId ?? '',
    clientSecretFile: clientSecretFile ?? '',
    scope
  })
}

function checkFile(name: string, path: string, problems: string[]): void {
  const content = readSecretFile(path)
  if ('problem' in content) {
    problems.push(`${name}: ${content.problem}`)
  }
}

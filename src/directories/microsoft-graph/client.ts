import { setTimeout as delay } from 'node:timers/promises'
import type { DirectoryConfig } from '../../directory-config.ts'
import { DirectoryError } from '../../errors.ts'
import { createExchange, type Reply, retryAfterOf } from '../../exchange.ts'
import { isObject } from '../../jwt.ts'
import type { Fetch } from '../../outbound-fetch.ts'
import { printable } from '../../printable.ts'
import { createTokenSource } from './token.ts'

/** What a directory shows of a user. What it does not show is not known, and stands for nothing. */
export interface GraphUser {
  readonly accountEnabled: boolean | undefined
  /** `signInSessionsValidFromDateTime`, milliseconds since 1970: what was issued before is void. */
  readonly sessionsValidFrom: number | undefined
  /** `lastPasswordChangeDateTime`, milliseconds since 1970. */
  readonly passwordChangedAt: number | undefined
}

/** What a look at one user has shown. */
export type Look =
  | { readonly outcome: 'found'; readonly user: GraphUser }
  /** 404. It may not be there yet: one look proves nothing. */
  | { readonly outcome: 'missing' }
  /** Of this user nothing can be had, now or later. */
  | { readonly outcome: 'unreadable'; readonly detail: string }
  /** It did not answer for this user, however often it was asked. */
  | { readonly outcome: 'unanswered'; readonly detail: string }

/** A user that has changed. */
export interface DeltaItem {
  readonly id: string
  /** Deleted: `changed` softly, `deleted` for good; undefined: it is there. */
  readonly removed: string | undefined
  readonly user: GraphUser
}

export interface DeltaPage {
  readonly items: readonly DeltaItem[]
  /** The next page; undefined on the last one. */
  readonly next: string | undefined
  /** Where to ask from next time; on the last page alone. */
  readonly link: string | undefined
}

/** By what the directory posts that a user has changed. */
export interface GraphSubscription {
  readonly id: string
  /** Milliseconds since 1970. */
  readonly expiresAt: number
}

export interface SubscribeOptions {
  /** Where it posts, and first asks whether it may. */
  readonly url: string
  /** What each notification is to bear; up to 128 characters. */
  readonly clientState: string
  /** Milliseconds since 1970. */
  readonly expiresAt: number
}

export type GraphClient = ReturnType<typeof createGraphClient>

export interface GraphClientOptions {
  readonly directory: Pick<DirectoryConfig, 'clientId' | 'credential' | 'authorityUrl' | 'graphUrl' | 'revokeOn'>
  readonly tenantId: string
  /** The network's edge. */
  readonly fetch: Fetch
  /** Milliseconds since 1970; default `Date.now`. */
  readonly now?: (() => number) | undefined
  /** Waits; default a timer. */
  readonly sleep?: ((ms: number, signal: AbortSignal) => Promise<void>) | undefined
  /** How long an answer may take, milliseconds; default 30,000. */
  readonly timeoutMs?: number | undefined
  /** How often a request is sent at most, if another try may help; default 5. */
  readonly maxTries?: number | undefined
}

/** A request to Microsoft Graph; without a method it is a GET. */
export interface GraphRequest {
  readonly method?: 'GET' | 'POST' | 'PATCH' | 'DELETE'
  readonly body?: object
  readonly headers?: Record<string, string>
}

/** The most users that {@link GraphClient.readUsers} takes: of requests in one batch. */
export const maxUsersPerBatch = 20
const maxUsersFound = 10
const maxPagesFound = 5
// It is stored. Real ones have some hundred characters, or a few thousand.
const maxLinkLength = 65_536
const firstBackOffMs = 500
// What is to wait longer waits without holding up the round: the next one comes then.
const maxWaitMs = 60_000
const guid = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/
// It stands in a path.
const subscriptionId = /^[\w-]{1,128}$/
// We yield first: https://learn.microsoft.com/graph/throttling#sample-response
const lowPriority = { 'x-ms-throttle-priority': 'low' }

/**
 * Speaks to Microsoft Graph about the users of one tenant, whom it only reads. Every function throws {@link DirectoryError}, after
 * some tries where another one may help, and ends early by its signal.
 */
export function createGraphClient({
  directory,
  tenantId,
  fetch,
  now = Date.now,
  sleep = async (ms, signal) => delay(ms, undefined, { signal }),
  timeoutMs = 30_000,
  maxTries = 5
}: GraphClientOptions) {
  const { graphUrl } = directory
  const origin = new URL(graphUrl).origin
  const exchange = createExchange({
    fetch,
    timeoutMs,
    now,
    errorOf: (fault, options) =>
      new DirectoryError(fault === 'answer' ? 'ERR_DIRECTORY_ANSWER' : 'ERR_DIRECTORY_UNREACHABLE', options)
  })
  const tokens = createTokenSource({ directory, tenantId, exchange, now })
  const watchesPasswords = directory.revokeOn.includes('passwordChanged')
  const properties = [
    'id',
    'accountEnabled',
    'signInSessionsValidFromDateTime',
    ...(watchesPasswords ? ['lastPasswordChangeDateTime'] : [])
  ]

  /** One request, until it is answered by something that a further try would not change. */
  async function send(url: string, request: GraphRequest, signal: AbortSignal): Promise<Reply> {
    let isRenewed = false
    for (let tries = 1; ; tries++) {
      const reply = await attempt(url, request, signal)
      if (reply instanceof DirectoryError) {
        if (reply.code !== 'ERR_DIRECTORY_UNREACHABLE' || tries === maxTries || signal.aborted) {
          throw reply
        }
        await pause(tries, reply.retryAfterMs, signal)
      } else if (reply.status === 401 && !isRenewed) {
        isRenewed = true // withdrawn before its time
        tokens.drop()
      } else if (isPassing(reply.status) && tries < maxTries) {
        await pause(tries, reply.retryAfterMs, signal)
      } else {
        return reply
      }
    }
  }

  async function attempt(
    url: string,
    { method = 'GET', body, headers }: GraphRequest,
    signal: AbortSignal
  ): Promise<Reply | DirectoryError> {
    try {
      const token = await tokens.get(signal)
      return await exchange(url, {
        method,
        signal,
        headers: {
          accept: 'application/json',
          authorization: `Bearer ${token}`,
          'user-agent': 'msal-logout',
          ...lowPriority,
          ...(body && { 'content-type': 'application/json' }),
          ...headers
        },
        ...(body && { body: JSON.stringify(body) })
      })
    } catch (error) {
      if (error instanceof DirectoryError) {
        return error
      }
      throw error
    }
  }

  /** As long as it asks for; else longer each time, and not all at once. */
  async function pause(tries: number, retryAfterMs: number | undefined, signal: AbortSignal): Promise<void> {
    if (retryAfterMs !== undefined && retryAfterMs > maxWaitMs) {
      throw new DirectoryError('ERR_DIRECTORY_THROTTLED', { retryAfterMs })
    }
    const backOffMs = firstBackOffMs * 2 ** (tries - 1) * (0.5 + Math.random() / 2)
    try {
      await sleep(retryAfterMs ?? backOffMs, signal)
    } catch (error) {
      throw new DirectoryError('ERR_DIRECTORY_UNREACHABLE', { detail: 'interrupted', cause: error })
    }
  }

  async function call(url: string, request: GraphRequest, signal: AbortSignal): Promise<Record<string, unknown>> {
    const reply = await send(url, request, signal)
    if (reply.status < 200 || reply.status > 299) {
      throw faultOf(reply)
    }
    if (reply.status === 204) {
      return {}
    }
    if (!isObject(reply.content)) {
      throw new DirectoryError('ERR_DIRECTORY_ANSWER', { detail: 'no JSON object' })
    }
    return reply.content
  }

  interface Part {
    readonly id: string
    readonly status: number
    readonly content: unknown
    readonly retryAfterMs: number | undefined
  }

  async function sendBatch(ids: readonly string[], signal: AbortSignal): Promise<Map<string, Part>> {
    const select = properties.join(',')
    const { responses } = await call(
      `${graphUrl}/v1.0/$batch`,
      {
        method: 'POST',
        body: {
          requests: ids.map((id) => ({
            id,
            method: 'GET',
            url: `/users/${id}?$select=${select}`,
            headers: lowPriority
          }))
        }
      },
      signal
    )
    if (!Array.isArray(responses)) {
      throw new DirectoryError('ERR_DIRECTORY_ANSWER', { detail: 'a batch without responses' })
    }
    // In any order, and not for each request perhaps.
    return new Map(
      responses.filter(isObject).flatMap(({ id, status, headers, body }) => {
        if (typeof id !== 'string' || typeof status !== 'number') {
          return []
        }
        const retryAfter = isObject(headers)
          ? Object.entries(headers).find(([name]) => name.toLowerCase() === 'retry-after')?.[1]
          : undefined
        const text = typeof retryAfter === 'string' || typeof retryAfter === 'number' ? String(retryAfter) : null
        return [[id, { id, status, content: body, retryAfterMs: retryAfterOf(text, now()) }] as const]
      })
    )
  }

  interface Search {
    readonly filter: string
    readonly select: readonly string[]
    readonly isMeant: (user: Record<string, unknown>) => boolean
  }

  /**
   * What is shown is compared with what was asked for: a filter that is lost on the way shows anybody. A text that the directory can
   * make nothing of is nobody's.
   */
  async function search({ filter, select, isMeant }: Search, signal: AbortSignal): Promise<string[]> {
    const query = `$select=${['id', ...select].join(',')}&$top=${maxUsersFound}&$filter=${encodeURIComponent(filter)}`
    const ids = new Set<string>()
    let next: string | undefined = `${graphUrl}/v1.0/users?${query}`
    for (let pages = 1; next !== undefined && ids.size <= maxUsersFound; pages++) {
      const { status, content }: Reply = await ask(next, signal)
      if (status === 400 || status === 414) {
        return []
      }
      if (!isObject(content) || !Array.isArray(content.value)) {
        throw new DirectoryError('ERR_DIRECTORY_ANSWER', { detail: 'users without a value' })
      }
      const meant = content.value.filter(isObject).filter(isMeant)
      if ((meant.length === 0 && content.value.length > 0) || pages > maxPagesFound) {
        throw new DirectoryError('ERR_DIRECTORY_ANSWER', { detail: 'users who were not asked for' })
      }
      for (const id of meant.map(idOf)) {
        if (id !== undefined) {
          ids.add(id)
        }
      }
      const link = content['@odata.nextLink']
      next = typeof link === 'string' ? ownLink(link, origin) : undefined // an empty page is no end
    }
    return [...ids]
  }

  async function ask(url: string, signal: AbortSignal): Promise<Reply> {
    const reply = await send(url, {}, signal)
    if (reply.status === 200 || reply.status === 400 || reply.status === 414) {
      return reply
    }
    throw faultOf(reply)
  }

  return {
    /** What is read of a user. */
    properties,

    /**
     * Looks at up to {@link maxUsersPerBatch} users, in one request as long as it answers for all.
     *
     * @param ids object ids, GUIDs in lower case
     */
    async readUsers(ids: readonly string[], signal: AbortSignal): Promise<Map<string, Look>> {
      if (ids.length > maxUsersPerBatch || !ids.every((id) => guid.test(id))) {
        throw new Error(`"ids" must be up to ${maxUsersPerBatch} GUIDs in lower case`)
      }
      const looks = new Map<string, Look>()
      let waiting = ids
      for (let tries = 1; waiting.length > 0; tries++) {
        const parts = await sendBatch(waiting, signal)
        let retryAfterMs: number | undefined
        for (const id of waiting) {
          const part = parts.get(id)
          const isWorthIt = part === undefined || isPassing(part.status)
          if (isWorthIt && part?.retryAfterMs !== undefined) {
            retryAfterMs = Math.max(retryAfterMs ?? 0, part.retryAfterMs)
          }
          if (!isWorthIt || tries === maxTries) {
            looks.set(id, lookOf(id, part))
          }
        }
        // Consent is to all users or to none.
        const denied = [...parts.values()].filter(({ status }) => status === 401 || status === 403)
        if (denied.length > 0 && denied.length === parts.size) {
          throw new DirectoryError('ERR_DIRECTORY_CONSENT', { detail: codeIn(denied[0]?.content) })
        }
        waiting = waiting.filter((id) => !looks.has(id))
        if (waiting.length > 0) {
          await pause(tries, retryAfterMs, signal)
        }
      }
      return looks
    },

    /**
     * Where a delta query begins that shows what changes from now on.
     * @returns a link; undefined if the directory has no delta queries (an external tenant)
     */
    async startDelta(signal: AbortSignal): Promise<string | undefined> {
      // A property that it does not follow makes it reject the whole: without it, it follows the rest.
      for (const select of [properties, ['id', 'accountEnabled']]) {
        const url = `${graphUrl}/v1.0/users/delta?$select=${select.join(',')}&$deltatoken=latest`
        const reply = await send(url, {}, signal)
        if (reply.status === 200) {
          const { link } = pageOf(reply.content, origin)
          if (link !== undefined) {
            return link
          }
          throw new DirectoryError('ERR_DIRECTORY_ANSWER', { detail: 'no link for the next delta query' })
        }
        if (!isDeclined(reply.status)) {
          throw faultOf(reply)
        }
      }
      return undefined
    },

    /**
     * A page of what has changed.
     * @param link as a page before gave it
     * @returns undefined if the link is of no use any more
     */
    async readDelta(link: string, signal: AbortSignal): Promise<DeltaPage | undefined> {
      const reply = await send(ownLink(link, origin), { headers: { prefer: 'odata.maxpagesize=999' } }, signal)
      if (reply.status === 200) {
        return pageOf(reply.content, origin)
      }
      if (!isDeclined(reply.status)) {
        throw faultOf(reply)
      }
      return undefined // 410 with where to begin anew, or "40X (e.g. syncStateNotFound)"
    },

    /**
     * The object ids of the users whom somebody means: by an e-mail address, also a further one, or by a user name.
     *
     * @param name as a person has written it
     */
    async findUsers(name: string, signal: AbortSignal): Promise<string[]> {
      const text = literalOf(name)
      return name.includes('@')
        ? search(
            {
              filter: `userPrincipalName eq ${text} or mail eq ${text} or proxyAddresses/any(a:a eq ${literalOf(`smtp:${name}`)})`,
              select: ['userPrincipalName', 'mail', 'proxyAddresses'],
              isMeant: ({ userPrincipalName, mail, proxyAddresses }) =>
                [userPrincipalName, mail].some((value) => isSameText(value, name)) ||
                (Array.isArray(proxyAddresses) && proxyAddresses.some((value) => isSameText(value, `smtp:${name}`)))
            },
            signal
          )
        : search(
            {
              filter: `mailNickname eq ${text} or startswith(userPrincipalName,${literalOf(`${name}@`)})`,
              select: ['mailNickname', 'userPrincipalName'],
              isMeant: ({ mailNickname, userPrincipalName }) =>
                isSameText(mailNickname, name) ||
                (typeof userPrincipalName === 'string' &&
                  isSameText(userPrincipalName.slice(0, name.length + 1), `${name}@`))
            },
            signal
          )
    },

    /**
     * The object ids of the users whose e-mail address or user principal name that is, exactly but for the letters' case. More than
     * one: whom it means is not known.
     */
    async findByAddress(email: string, signal: AbortSignal): Promise<string[]> {
      const text = literalOf(email)
      return search(
        {
          filter: `mail eq ${text} or userPrincipalName eq ${text}`,
          select: ['mail', 'userPrincipalName'],
          isMeant: ({ mail, userPrincipalName }) => [mail, userPrincipalName].some((value) => isSameText(value, email))
        },
        signal
      )
    },

    /** Asks for a notification of each change of a user. */
    async subscribe(
      { url, clientState, expiresAt }: SubscribeOptions,
      signal: AbortSignal
    ): Promise<GraphSubscription> {
      const answer = await call(
        `${graphUrl}/v1.0/subscriptions`,
        {
          method: 'POST',
          body: {
            changeType: 'updated,deleted', // a soft deletion is an update
            resource: '/users',
            notificationUrl: url,
            lifecycleNotificationUrl: url, // cannot be added later
            clientState,
            expirationDateTime: new Date(expiresAt).toISOString()
          }
        },
        signal
      )
      if (typeof answer.id !== 'string' || !subscriptionId.test(answer.id)) {
        throw new DirectoryError('ERR_DIRECTORY_ANSWER', { detail: 'a subscription without an id' })
      }
      return { id: answer.id, expiresAt: timeOf(answer.expirationDateTime) ?? expiresAt }
    },

    /**
     * Has a subscription live on, and authorizes it anew.
     * @returns until when it lives; undefined if the directory knows it no more
     */
    async renewSubscription({ id, expiresAt }: GraphSubscription, signal: AbortSignal): Promise<number | undefined> {
      const expirationDateTime = new Date(expiresAt).toISOString()
      const request = { method: 'PATCH', body: { expirationDateTime } } as const
      const reply = await send(`${graphUrl}/v1.0/subscriptions/${id}`, request, signal)
      if (reply.status === 404) {
        return undefined
      }
      if (reply.status !== 200) {
        throw faultOf(reply)
      }
      return timeOf(isObject(reply.content) ? reply.content.expirationDateTime : undefined) ?? expiresAt
    },

    /** Ends a subscription, also one that the directory knows no more. */
    async unsubscribe(id: string, signal: AbortSignal): Promise<void> {
      const reply = await send(`${graphUrl}/v1.0/subscriptions/${id}`, { method: 'DELETE' }, signal)
      if (reply.status !== 204 && reply.status !== 404) {
        throw faultOf(reply)
      }
    },

    /** Any other request below `/v1.0`. */
    call: (path: string, request: GraphRequest, signal: AbortSignal) => call(`${graphUrl}/v1.0${path}`, request, signal)
  }
}

function isPassing(status: number): boolean {
  return status === 429 || status >= 500
}

/** What is asked for is not to be had there: another request may be. */
function isDeclined(status: number): boolean {
  return status >= 400 && status < 500 && ![401, 403, 429].includes(status)
}

function faultOf({ status, content, retryAfterMs }: Reply): DirectoryError {
  const detail = [`HTTP ${status}`, codeIn(content)].filter((part) => part !== undefined).join(' ')
  if (status === 429) {
    return new DirectoryError('ERR_DIRECTORY_THROTTLED', { detail, retryAfterMs })
  }
  if (status >= 500) {
    return new DirectoryError('ERR_DIRECTORY_UNREACHABLE', { detail, retryAfterMs })
  }
  if (status === 401) {
    return new DirectoryError('ERR_DIRECTORY_CLOUD', { detail }) // it takes no token that was given out elsewhere
  }
  return new DirectoryError(status === 403 ? 'ERR_DIRECTORY_CONSENT' : 'ERR_DIRECTORY_REQUEST', { detail })
}

/** Graph's own name for what went wrong. */
function codeIn(content: unknown): string | undefined {
  const error = isObject(content) ? content.error : undefined
  return isObject(error) && typeof error.code === 'string' ? printable(error.code, 80) : undefined
}

function lookOf(id: string, part: { readonly status: number; readonly content: unknown } | undefined): Look {
  if (part?.status === 200 && isObject(part.content) && idOf(part.content) === id) {
    return { outcome: 'found', user: userOf(part.content) }
  }
  if (part?.status === 404) {
    return { outcome: 'missing' }
  }
  const detail = [part && `HTTP ${part.status}`, codeIn(part?.content)].filter((text) => text !== undefined).join(' ')
  const isUnanswered = part === undefined || part.status === 200 || isPassing(part.status)
  return { outcome: isUnanswered ? 'unanswered' : 'unreadable', detail }
}

/** An object id; undefined if it has none. */
function idOf({ id }: Record<string, unknown>): string | undefined {
  const text = typeof id === 'string' ? id.toLowerCase() : ''
  return guid.test(text) ? text : undefined
}

function userOf(content: Record<string, unknown>): GraphUser {
  const { accountEnabled, signInSessionsValidFromDateTime, lastPasswordChangeDateTime } = content
  return {
    accountEnabled: typeof accountEnabled === 'boolean' ? accountEnabled : undefined,
    sessionsValidFrom: timeOf(signInSessionsValidFromDateTime),
    passwordChangedAt: timeOf(lastPasswordChangeDateTime)
  }
}

/** OData 4.01 URL conventions §5.1.1.14.1 */
function literalOf(text: string): string {
  return `'${text.replaceAll("'", "''")}'`
}

/** As a directory compares: the case of letters makes no difference. */
function isSameText(value: unknown, text: string): boolean {
  return typeof value === 'string' && value.toLowerCase() === text.toLowerCase()
}

function timeOf(value: unknown): number | undefined {
  const time = typeof value === 'string' ? Date.parse(value) : Number.NaN
  return Number.isNaN(time) ? undefined : time
}

function pageOf(content: unknown, origin: string): DeltaPage {
  if (!isObject(content) || !Array.isArray(content.value)) {
    throw new DirectoryError('ERR_DIRECTORY_ANSWER', { detail: 'a page without a value' })
  }
  const next = content['@odata.nextLink']
  const link = content['@odata.deltaLink']
  if (typeof next !== 'string' && typeof link !== 'string') {
    throw new DirectoryError('ERR_DIRECTORY_ANSWER', { detail: 'a page without a link' })
  }
  return {
    items: content.value.filter(isObject).flatMap((item) => itemOf(item)),
    next: typeof next === 'string' ? ownLink(next, origin) : undefined,
    link: typeof link === 'string' ? ownLink(link, origin) : undefined
  }
}

function itemOf(item: Record<string, unknown>): DeltaItem[] {
  const id = idOf(item)
  const removed = item['@removed']
  if (id === undefined) {
    return []
  }
  const reason = isObject(removed) ? printable(removed.reason ?? 'unknown', 20) : undefined
  return [{ id, removed: reason, user: userOf(item) }]
}

/** The token goes to nobody else. */
function ownLink(link: string, origin: string): string {
  if (link.length > maxLinkLength) {
    throw new DirectoryError('ERR_DIRECTORY_ANSWER', { detail: `a link of more than ${maxLinkLength} characters` })
  }
  if (!URL.canParse(link) || new URL(link).origin !== origin) {
    throw new DirectoryError('ERR_DIRECTORY_ANSWER', { detail: 'a link to another origin' })
  }
  return link
}

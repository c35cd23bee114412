/** @import { AccountQuery, AccountReference, Directory, FoundAccounts, Issuer, PurgeOrder, PurgeOutcome, Readiness, RecordFilter, RecordPage, Rejections, Spool, Stats, StoredAccount, StoredRecord, Stream } from './answers.js' */
import { sentence } from './elements.js'

/** What was rejected, or could not be asked; the message is the API's own text if it gave one. */
export class Problem extends Error {
  /**
   * @param {string} message
   * @param {{ status?: number, code?: string, cause?: unknown }} [details] status 0: no answer
   */
  constructor(message, { status = 0, code = 'no_answer', cause } = {}) {
    super(message, { cause })
    this.status = status
    this.code = code
  }

  get isAboutCredentials() {
    // 429 is given to rejected credentials alone: somebody else behind the same proxy has tried too many.
    return [401, 403, 429].includes(this.status)
  }
}

const pageSize = '25'
const storedName = 'msal-logout-token'

/** @typedef {ReturnType<typeof createApi>} Api */

/**
 * The operators' HTTP interface, with a token that this tab alone has: a reload does not ask for it again (SECURITY.md says why).
 *
 * @param {(problem: Problem) => Promise<void>} signInAgain resolves when somebody has signed in again
 */
export function createApi(signInAgain) {
  let token = readStored()
  /** @type {Promise<void> | undefined} one sign-in, however many requests were rejected */
  let signingIn

  /**
   * @param {string} path
   * @param {RequestInit & { timeoutMs?: number }} [init]
   * @param {string} [bearer]
   */
  async function send(path, { timeoutMs = 15_000, ...init } = {}, bearer = token) {
    const response = await fetch(path, {
      ...init,
      headers: { ...init.headers, authorization: `Bearer ${bearer}` },
      cache: 'no-store',
      credentials: 'omit',
      redirect: 'error',
      signal: AbortSignal.timeout(timeoutMs)
    }).catch((cause) => {
      throw new Problem('The service did not answer.', { cause })
    })
    const answer = await response.json().catch((cause) => {
      throw new Problem(`The service answered ${response.status}, and broke off.`, { cause })
    })
    if (!response.ok) {
      const detail = typeof answer?.detail === 'string' ? answer.detail : 'no reason given'
      throw new Problem(sentence(detail), { status: response.status, code: String(answer?.code) })
    }
    return answer
  }

  /**
   * @param {string} path
   * @param {RequestInit & { timeoutMs?: number }} init
   * @param {(problem: Problem) => Promise<any>} afterSignIn if the credentials were no longer good, and somebody has signed in again
   * @returns {Promise<any>} as the API documents it
   */
  async function sendOr(path, init, afterSignIn) {
    const used = token
    try {
      return await send(path, init)
    } catch (error) {
      if (!(error instanceof Problem && error.isAboutCredentials)) {
        throw error
      }
      await renew(used, error)
      return afterSignIn(error)
    }
  }

  /**
   * Asks; after a new sign-in, again.
   *
   * @param {string} path
   * @param {RequestInit} [init]
   * @returns {Promise<any>}
   */
  const ask = (path, init = {}) => sendOr(path, init, () => ask(path, init))

  /**
   * Acts. Never again by itself after a new sign-in: the operator who signs in then has not pressed the button.
   *
   * @param {string} nothing what was not done
   * @param {string} path
   * @param {RequestInit & { timeoutMs?: number }} init
   * @returns {Promise<any>}
   */
  const act = (nothing, path, init) =>
    sendOr(path, init, async (problem) => {
      throw new Problem(`${nothing}: the sign-in had ended. Press the button again.`, problem)
    })

  /**
   * @param {string | undefined} used
   * @param {Problem} problem
   */
  async function renew(used, problem) {
    if (token !== used) {
      return // somebody has signed in since
    }
    store(undefined)
    signingIn ??= signInAgain(problem).finally(() => {
      signingIn = undefined
    })
    await signingIn
  }

  /** @param {Record<string, string | undefined>} values */
  function query(values) {
    const given = new URLSearchParams()
    for (const [name, value] of Object.entries(values)) {
      if (value !== undefined) {
        given.append(name, value)
      }
    }
    return given.size === 0 ? '' : `?${given}`
  }

  /** @param {object} body */
  const asJson = (body) => ({
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify(body)
  })

  return {
    hasToken: () => token !== undefined,

    /** Nothing of it stays in this tab. */
    signOut: () => store(undefined),

    /**
     * @param {string} candidate
     * @throws {Problem} if it is not an operator's
     */
    async signIn(candidate) {
      if (!/^[\x21-\x7e]+$/.test(candidate)) {
        throw new Problem('A token has no blanks, and no characters but those of ASCII.')
      }
      await send('admin/issuers', {}, candidate)
      token = candidate
      store(candidate)
    },

    /** @returns {Promise<Readiness>} */
    async readiness() {
      const response = await fetch('readyz', { cache: 'no-store', signal: AbortSignal.timeout(15_000) })
      return response.json()
    },

    /**
     * @param {number} minutes
     * @returns {Promise<Stats>}
     */
    stats: (minutes) => ask(`admin/stats?minutes=${minutes}`),

    /** @returns {Promise<Rejections>} */
    rejections: () => ask('admin/rejections?limit=500'),

    /** @returns {Promise<readonly Issuer[]>} */
    issuers: async () => (await ask('admin/issuers')).issuers,

    /** @returns {Promise<readonly Stream[]>} */
    streams: async () => (await ask('admin/streams')).streams,

    /** @returns {Promise<readonly Directory[]>} */
    directories: async () => (await ask('admin/directories')).directories,

    /**
     * What the breaker of a directory holds is done, or is not.
     *
     * @param {string} tenantId
     * @param {'release' | 'drop'} decision
     * @returns {Promise<unknown>}
     */
    decideDirectory: (tenantId, decision) =>
      act('Nothing was decided', `admin/directories/${encodeURIComponent(tenantId)}/${decision}`, { method: 'POST' }),

    /** @returns {Promise<Spool>} */
    spool: () => ask('admin/spool'),

    /**
     * @param {AccountQuery} session
     * @returns {Promise<readonly AccountReference[]>}
     */
    accountsOf: async (session) => (await ask(`admin/accounts${query({ ...session })}`)).accounts,

    /**
     * @param {string} user an e-mail address or a user name
     * @returns {Promise<FoundAccounts>}
     */
    accountsOfUser: (user) => ask(`admin/accounts${query({ user })}`),

    /**
     * @param {string} homeAccountId
     * @param {string} [issuer]
     * @returns {Promise<StoredAccount>}
     */
    account: (homeAccountId, issuer) => ask(`admin/accounts/${encodeURIComponent(homeAccountId)}${query({ issuer })}`),

    /**
     * What came, the newest first.
     *
     * @param {RecordFilter} filter
     * @param {string} [before] the id of the last record seen
     * @returns {Promise<RecordPage>}
     */
    records: (filter, before) => ask(`admin/records${query({ limit: pageSize, ...filter, before })}`),

    /**
     * @param {string} id
     * @returns {Promise<StoredRecord>}
     */
    record: (id) => ask(`admin/records/${encodeURIComponent(id)}`),

    /**
     * The operators' own, the newest first.
     *
     * @param {string} [before] the id of the last record seen
     * @returns {Promise<RecordPage>}
     */
    purges: (before) => ask(`admin/purges${query({ limit: pageSize, before })}`),

    /**
     * What a purge would do.
     *
     * @param {PurgeOrder} order
     * @returns {Promise<PurgeOutcome>}
     */
    dryRun: (order) => ask('admin/purges', asJson({ ...order, dryRun: true })),

    /**
     * @param {PurgeOrder} order
     * @param {{ force: boolean, idempotencyKey: string }} how
     * @returns {Promise<PurgeOutcome>}
     */
    orderPurge(order, { force, idempotencyKey }) {
      const { headers, ...init } = asJson({ ...order, force })
      return act('Nothing was purged', 'admin/purges', {
        ...init,
        headers: { ...headers, 'idempotency-key': idempotencyKey },
        timeoutMs: 60_000
      })
    }
  }
}

/** @returns {string | undefined} */
function readStored() {
  try {
    return sessionStorage.getItem(storedName) ?? undefined
  } catch {
    return undefined // the browser is set to store nothing: a reload asks again
  }
}

/** @param {string | undefined} token */
function store(token) {
  try {
    if (token === undefined) {
      sessionStorage.removeItem(storedName)
    } else {
      sessionStorage.setItem(storedName, token)
    }
  } catch {
    // as above
  }
}

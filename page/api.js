/** @import { AccountQuery, AccountReference, Directory, FoundAccounts, Issuer, PurgeOrder, PurgeOutcome, Readiness, RecordFilter, RecordPage, Rejections, Spool, Stats, StoredAccount, StoredRecord, Stream } from './answers.js' */
import { sentence } from './elements.js'

/** What was rejected, or could not be asked; the message is the API's own text if it gave one. */
export class Problem extends Error {
  /**
   * @param {string} message
   * @param {{ status?: number, code?: string, advice?: string | undefined, cause?: unknown }} [details] status 0: no answer
   */
  constructor(message, { status = 0, code = 'no_answer', advice, cause } = {}) {
    super(message, { cause })
    this.status = status
    this.code = code
    /** What to do, if anything but what the message says. */
    this.advice = advice
  }

  /** The top of the page says since when, and what to do. */
  get isOutage() {
    return this.code === 'no_answer' || this.code === 'temporarily_unavailable'
  }

  get isAboutCredentials() {
    // 429 is given to rejected credentials alone: somebody else behind the same proxy has tried too many.
    return [401, 403, 429].includes(this.status)
  }
}

/** @type {Readonly<Record<string, string>>} what to do, by the code of an answer */
const advices = {
  no_answer: 'see that the service runs, and that the way to it is open; then try again',
  strange_answer:
    'look at the proxy before the service, if there is one; else reload the page: the service may be of another release',
  unauthorized: 'use the token in ADMIN_TOKEN, or an access token of your own: one that worked before has expired',
  forbidden: 'have the role that ADMIN_ROLE names given to you, and get a new access token',
  too_many_requests: 'wait a minute before you try another token; a good one is taken at once',
  temporarily_unavailable:
    'see that PostgreSQL runs, and can be reached from the service; "msal-logout check" says what it finds',
  directory_unavailable: 'look at the directory on the overview; or find the id at the provider',
  server_error: 'look for "failed" in the log of the service'
}

const pageSize = '25'
const purgeTimeoutMs = 60_000
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
      throw new Problem('The service did not answer.', { advice: advices.no_answer, cause })
    })
    const { status } = response
    const answer = await response.json().catch((cause) => {
      throw strange(status, cause)
    })
    if (!response.ok) {
      const detail =
        typeof answer?.detail === 'string' ? answer.detail : `the service answered ${status} without a reason`
      const code = String(answer?.code)
      throw new Problem(sentence(detail), { status, code, advice: advices[code] })
    }
    return answer
  }

  /**
   * It broke off, or is none of the service.
   *
   * @param {number} status
   * @param {unknown} [cause]
   */
  function strange(status, cause) {
    const message = `What was answered, with status ${status}, cannot be read: it broke off, or something else than the service answers.`
    return new Problem(message, { code: 'strange_answer', advice: advices.strange_answer, cause })
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
   * @param {readonly string[]} members what the answer must have; the types say the rest
   * @param {RequestInit & { timeoutMs?: number }} [init]
   * @returns {Promise<any>}
   */
  async function ask(path, members, init = {}) {
    const answer = await sendOr(path, init, () => ask(path, members, init))
    if (members.some((member) => answer?.[member] === undefined)) {
      throw strange(200)
    }
    return answer
  }

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
      const { status, code, cause } = problem
      throw new Problem(`${nothing}: the sign-in had ended. Press the button again.`, { status, code, cause })
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

    /**
     * @returns {Promise<Readiness>}
     * @throws {Problem} if nothing that says so is answered
     */
    async readiness() {
      const response = await fetch('readyz', { cache: 'no-store', signal: AbortSignal.timeout(15_000) }).catch(
        (cause) => {
          throw new Problem('The service did not answer.', { cause })
        }
      )
      const answer = await response.json().catch((cause) => {
        throw strange(response.status, cause)
      })
      if (!['ok', 'unavailable'].includes(answer?.status)) {
        throw strange(response.status)
      }
      return answer
    },

    /**
     * @param {number} minutes
     * @returns {Promise<Stats>}
     */
    stats: (minutes) => ask(`admin/stats?minutes=${minutes}`, ['minutes', 'verdicts', 'sessions', 'since']),

    /** @returns {Promise<Rejections>} */
    rejections: () => ask('admin/rejections?limit=500', ['rejections']),

    /** @returns {Promise<readonly Issuer[]>} */
    issuers: async () => (await ask('admin/issuers', ['issuers'])).issuers,

    /** @returns {Promise<readonly Stream[]>} */
    streams: async () => (await ask('admin/streams', ['streams'])).streams,

    /** @returns {Promise<readonly Directory[]>} */
    directories: async () => (await ask('admin/directories', ['directories'])).directories,

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
    spool: () => ask('admin/spool', ['stuck']),

    /**
     * @param {AccountQuery} session
     * @returns {Promise<readonly AccountReference[]>}
     */
    accountsOf: async (session) => (await ask(`admin/accounts${query({ ...session })}`, ['accounts'])).accounts,

    /**
     * @param {string} user an e-mail address or a user name
     * @returns {Promise<FoundAccounts>}
     */
    accountsOfUser: (user) => ask(`admin/accounts${query({ user })}`, ['accounts']),

    /**
     * @param {string} homeAccountId
     * @param {string} [issuer]
     * @returns {Promise<StoredAccount>}
     */
    account: (homeAccountId, issuer) =>
      ask(`admin/accounts/${encodeURIComponent(homeAccountId)}${query({ issuer })}`, ['rows', 'sessions']),

    /**
     * What came, the newest first.
     *
     * @param {RecordFilter} filter
     * @param {string} [before] the id of the last record seen
     * @returns {Promise<RecordPage>}
     */
    records: (filter, before) => ask(`admin/records${query({ limit: pageSize, ...filter, before })}`, ['records']),

    /**
     * @param {string} id
     * @returns {Promise<StoredRecord>}
     */
    record: (id) => ask(`admin/records/${encodeURIComponent(id)}`, ['id', 'matchedAccounts']),

    /**
     * The operators' own, the newest first.
     *
     * @param {string} [before] the id of the last record seen
     * @returns {Promise<RecordPage>}
     */
    purges: (before) => ask(`admin/purges${query({ limit: pageSize, before })}`, ['records']),

    /**
     * What a purge would do.
     *
     * @param {PurgeOrder} order
     * @returns {Promise<PurgeOutcome>}
     */
    dryRun: (order) =>
      ask('admin/purges', ['rowsByClient'], { ...asJson({ ...order, dryRun: true }), timeoutMs: purgeTimeoutMs }),

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
        timeoutMs: purgeTimeoutMs
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

/** @import { AccountQuery, AccountReference, Directory, Issuer, PurgeOrder, PurgeOutcome, Readiness, RecordFilter, RecordPage, Rejections, Spool, Stats, StoredAccount, StoredRecord, UserAnswer } from './answers.js' */

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

/** @typedef {ReturnType<typeof createApi>} Api */

/**
 * The operators' HTTP interface, with a token that is kept here alone.
 *
 * @param {(problem: Problem) => Promise<void>} signInAgain resolves when somebody has signed in again
 */
export function createApi(signInAgain) {
  /** @type {string | undefined} */
  let token
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
    return { status: response.status, answer }
  }

  /**
   * Asks; if the credentials are no longer good, again after a new sign-in.
   *
   * @param {string} path
   * @param {RequestInit} [init]
   * @returns {Promise<any>} as the API documents it
   */
  async function ask(path, init) {
    const used = token
    try {
      return (await send(path, init)).answer
    } catch (error) {
      if (!(error instanceof Problem && error.isAboutCredentials)) {
        throw error
      }
      await renew(used, error)
      return ask(path, init)
    }
  }

  /**
   * @param {string | undefined} used
   * @param {Problem} problem
   */
  async function renew(used, problem) {
    if (token !== used) {
      return // somebody has signed in since
    }
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

    /** @returns {Promise<readonly Directory[]>} */
    directories: async () => (await ask('admin/directories')).directories,

    /**
     * What the breaker of a directory holds is done, or is not. Never asked again by itself after a new sign-in.
     *
     * @param {string} tenantId
     * @param {'release' | 'drop'} decision
     * @returns {Promise<void>}
     */
    async decideDirectory(tenantId, decision) {
      const used = token
      try {
        await send(`admin/directories/${encodeURIComponent(tenantId)}/${decision}`, { method: 'POST' })
      } catch (error) {
        if (error instanceof Problem && error.isAboutCredentials) {
          await renew(used, error)
          throw new Problem('Nothing was decided: the sign-in had ended. Press the button again.', error)
        }
        throw error
      }
    },

    /** @returns {Promise<Spool>} */
    spool: () => ask('admin/spool'),

    /**
     * @param {AccountQuery} session
     * @returns {Promise<readonly AccountReference[]>}
     */
    accountsOf: async (session) => (await ask(`admin/accounts${query({ ...session })}`)).accounts,

    /**
     * @param {string} user an e-mail address or a user name
     * @returns {Promise<UserAnswer>}
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
     * @param {string} id
     * @returns {Promise<StoredRecord>}
     */
    purge: (id) => ask(`admin/purges/${encodeURIComponent(id)}`),

    /**
     * What a purge would do.
     *
     * @param {PurgeOrder} order
     * @returns {Promise<PurgeOutcome>}
     */
    dryRun: ({ selector, ...rest }) => ask('admin/purges', asJson({ ...selector, ...rest, dryRun: true })),

    /**
     * Never asked again by itself after a new sign-in: the operator who signs in then has not pressed the button.
     *
     * @param {PurgeOrder} order
     * @param {{ force: boolean, idempotencyKey: string }} how
     * @returns {Promise<PurgeOutcome>}
     */
    async orderPurge({ selector, ...rest }, { force, idempotencyKey }) {
      const used = token
      const { headers, ...init } = asJson({ ...selector, ...rest, force })
      try {
        const { status, answer } = await send('admin/purges', {
          ...init,
          headers: { ...headers, 'idempotency-key': idempotencyKey },
          timeoutMs: 60_000
        })
        return { ...answer, isRunning: status === 202 }
      } catch (error) {
        if (error instanceof Problem && error.isAboutCredentials) {
          await renew(used, error)
          throw new Problem('Nothing was purged: the sign-in had ended. Press the button again.', error)
        }
        throw error
      }
    }
  }
}

/** @param {string} text */
function sentence(text) {
  return `${text.charAt(0).toUpperCase()}${text.slice(1)}${text.endsWith('.') ? '' : '.'}`
}

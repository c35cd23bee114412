/** @import { Api } from './api.js' */
/** @import { AccountQuery, AccountReference, StoredAccount, StoredRow, StoredSession, UserAnswer } from './answers.js' */
/** @import { Column } from './elements.js' */
import { accountHash, chooseFields, fill, find, make, makeCard, makeTable } from './elements.js'
import { attempt } from './problems.js'
import { createPurgePanel, makeNear } from './purge.js'
import { age, count, size } from './units.js'

/** @type {readonly Column<StoredRow>[]} */
const rowColumns = [
  { title: 'Row', isHeader: true, cell: ({ partitionKey }) => make('code', { class: 'long' }, partitionKey) },
  {
    title: 'Kind',
    isShort: true,
    cell: ({ kind }) => (kind === 'obo' ? make('abbr', { title: 'on behalf of' }, 'OBO') : 'user')
  },
  { title: 'Size', isNumber: true, cell: ({ payloadBytes }) => size(payloadBytes) },
  { title: 'Made', isShort: true, cell: ({ createdAt }) => age(createdAt) },
  { title: 'Written', isShort: true, cell: ({ updatedAt }) => age(updatedAt) },
  { title: 'Expires', isShort: true, cell: ({ expiresAt }) => age(expiresAt) }
]

/** @type {readonly Column<StoredSession>[]} */
const sessionColumns = [
  {
    title: 'Session',
    isHeader: true,
    cell: ({ sid }) =>
      sid === null ? make('span', { class: 'quiet' }, 'no sid') : make('code', { class: 'long' }, sid)
  },
  { title: 'Issuer', cell: ({ issuer }) => make('span', { class: 'long' }, issuer) },
  { title: 'Subject', cell: ({ subject }) => make('code', { class: 'long' }, subject) },
  {
    title: 'Object',
    cell: ({ tenantId, objectId }) =>
      objectId === null
        ? make('span', { class: 'quiet' }, 'none')
        : make('code', { class: 'long', title: `of the tenant ${tenantId}` }, objectId)
  },
  { title: 'Signed in', isShort: true, cell: ({ issuedAt }) => age(issuedAt) },
  { title: 'Expires', isShort: true, cell: ({ expiresAt }) => age(expiresAt) }
]

/** @param {Api} api */
export function createAccounts(api) {
  const form = find('find', HTMLFormElement)
  const issuerNames = find('issuer-names', HTMLDataListElement)
  const status = find('found-status', HTMLElement)
  const problem = find('found-problem', HTMLElement)
  const found = find('found', HTMLElement)
  const accountInput = find('find-account', HTMLInputElement)

  let hasIssuers = false
  let latest = 0

  const textOf = (/** @type {string} */ name) => find(`find-${name}`, HTMLInputElement).value.trim()

  form.addEventListener('change', () => chooseFields(form))
  chooseFields(form)

  form.addEventListener('submit', (event) => {
    event.preventDefault()
    switch (new FormData(form).get('by')) {
      case 'sid':
        void findBySession('sid', { issuer: textOf('issuer'), sid: textOf('sid') })
        return
      case 'subject':
        void findBySession('subject', { issuer: textOf('issuer'), subject: textOf('subject') })
        return
      case 'object':
        void findBySession('object', { tenantId: textOf('tenant'), objectId: textOf('object') })
        return
      case 'user':
        void findByUser(textOf('user'))
        return
      default:
        open(textOf('account'), undefined)
    }
  })

  /**
   * @param {string} homeAccountId
   * @param {string | undefined} issuer
   */
  function open(homeAccountId, issuer) {
    const hash = accountHash(homeAccountId, issuer)
    if (location.hash === hash) {
      void showAccount(homeAccountId, issuer)
    } else {
      location.hash = hash
    }
  }

  /**
   * @param {string} by
   * @param {AccountQuery} query
   */
  async function findBySession(by, query) {
    const mine = begin()
    await attempt(problem, async () => {
      const accounts = await api.accountsOf(query)
      if (mine !== latest) {
        return
      }
      const [only] = accounts
      if (only === undefined) {
        status.textContent = ''
        fill(
          found,
          makeCard(
            make(
              'p',
              { class: 'empty' },
              `No session of this ${by} is stored. It was never stored, has been signed out, or has expired.`
            )
          )
        )
      } else if (accounts.length === 1) {
        open(only.homeAccountId, only.accountIssuer ?? undefined)
      } else {
        status.textContent = `${count(accounts.length, 'account')} have a session of this ${by}.`
        fill(found, makeAccountList(accounts, query))
      }
    })
  }

  /** @param {string} user */
  async function findByUser(user) {
    const mine = begin()
    await attempt(problem, async () => {
      const { accounts, objects, hasDirectory, clicks } = await api.accountsOfUser(user)
      if (mine !== latest) {
        return
      }
      const [account, ...others] = accounts
      const [object] = objects
      if (account !== undefined && others.length === 0) {
        open(account.homeAccountId, account.accountIssuer ?? undefined)
        return
      }
      status.textContent = ''
      if (object !== undefined && objects.length === 1 && accounts.length > 1) {
        fill(found, makeAccountList(accounts, object))
        return
      }
      const why =
        object === undefined
          ? `No address is stored here, and ${hasDirectory ? 'no directory knows this one' : 'no directory is configured to ask'}. Find the id at the provider:`
          : `${count(objects.length, 'person')} bear this name; no session of them is stored, or there is more than one of them.`
      fill(found, makeCard(make('p', {}, why), makeClicks(clicks), makeObjects(objects)))
    })
  }

  /**
   * @param {readonly AccountReference[]} accounts
   * @param {AccountQuery} selector
   */
  function makeAccountList(accounts, selector) {
    return makeCard(
      make(
        'ul',
        { class: 'list' },
        ...accounts.map(({ homeAccountId, accountIssuer }) =>
          make(
            'li',
            {},
            make('a', { class: 'long', href: accountHash(homeAccountId, accountIssuer ?? undefined) }, homeAccountId),
            accountIssuer !== null && make('span', { class: 'quiet long' }, ` of ${accountIssuer}`)
          )
        )
      ),
      createPurgePanel(api, selector, 'all of them', () => {})
    )
  }

  /**
   * @param {string} homeAccountId
   * @param {string | undefined} issuer
   */
  async function showAccount(homeAccountId, issuer) {
    const mine = begin()
    await attempt(problem, async () => {
      const account = await api.account(homeAccountId, issuer)
      if (mine !== latest) {
        return
      }
      fill(found)
      describe(account, issuer)
      status.focus({ preventScroll: true })
    })
  }

  /** What is on the page makes room for the next answer. */
  function begin() {
    latest += 1
    status.textContent = 'Looking …'
    problem.textContent = ''
    fill(found)
    const mine = latest
    queueMicrotask(() => status.setAttribute('tabindex', '-1'))
    return mine
  }

  /**
   * What is stored and comes close: a dry run says so, and leaves no record.
   *
   * @param {HTMLElement} place
   * @param {string} homeAccountId
   */
  async function showNear(place, homeAccountId) {
    const mine = latest
    await attempt(problem, async () => {
      const outcome = await api.dryRun({ selector: { homeAccountId }, reason: 'looked for', issuedBefore: undefined })
      if (mine === latest) {
        fill(place, makeNear(outcome))
      }
    })
  }

  /**
   * @param {StoredAccount} account
   * @param {string | undefined} issuer
   */
  function describe(account, issuer) {
    const { homeAccountId, rows, sessions, isComplete } = account
    const heading = make('h2', { class: 'long' }, homeAccountId)
    const contents = make('div')
    const issuers = [...new Set(rows.map(({ accountIssuer }) => accountIssuer))]
    if (rows.length === 0 && sessions.length === 0) {
      status.textContent = 'Nothing is stored of this account.'
      fill(
        found,
        makeCard(
          heading,
          makeRecordsLink(homeAccountId),
          make(
            'p',
            { class: 'empty' },
            'No app has a row or a session of it: nobody signed in by it, or it has been signed out, or all has expired.'
          ),
          contents
        )
      )
      void showNear(contents, homeAccountId)
      return
    }
    drawContents(contents, account)
    status.textContent = describeSums(account)
    fill(
      found,
      makeCard(
        heading,
        makeRecordsLink(homeAccountId),
        !isComplete && make('p', { class: 'problem' }, 'There is more of it than is listed here.'),
        contents
      ),
      makeCard(
        issuers.length > 1
          ? makeIssuerChoice(homeAccountId, issuers)
          : createPurgePanel(api, { homeAccountId, issuer: issuer ?? issuers[0] ?? undefined }, 'this account', () => {
              void redraw()
            })
      )
    )

    async function redraw() {
      const mine = latest
      await attempt(problem, async () => {
        const left = await api.account(homeAccountId, issuer)
        if (mine === latest) {
          drawContents(contents, left)
          status.textContent = describeSums(left)
        }
      })
    }
  }

  return {
    /**
     * @param {string} homeAccountId
     * @param {URLSearchParams} query
     * @param {boolean} isReturn
     */
    show(homeAccountId, query, isReturn) {
      if (!hasIssuers) {
        hasIssuers = true
        void attempt(problem, async () => {
          const issuers = await api.issuers()
          fill(issuerNames, ...issuers.map(({ name, issuer }) => make('option', { value: issuer }, name)))
        })
      }
      const issuer = query.get('issuer') ?? undefined
      if (homeAccountId !== '' && !isReturn) {
        accountInput.value = homeAccountId
        void showAccount(homeAccountId, issuer)
      }
    },
    hide() {}
  }
}

/**
 * @param {HTMLElement} element
 * @param {StoredAccount} account
 */
function drawContents(element, { rows, sessions }) {
  const apps = [...new Set([...rows, ...sessions].map(({ clientId }) => clientId))].sort()
  fill(
    element,
    apps.length === 0 && make('p', { class: 'empty' }, 'Nothing is left of this account.'),
    ...apps.map((app) => {
      const ofApp = (/** @type {{ clientId: string }} */ { clientId }) => clientId === app
      const appRows = rows.filter(ofApp)
      const appSessions = sessions.filter(ofApp)
      return make(
        'section',
        { class: 'app' },
        make('h3', { class: 'long' }, app),
        appRows.length > 0
          ? makeTable(`Rows of ${app}`, rowColumns, appRows)
          : make('p', { class: 'empty' }, 'No row: the app has no token of it.'),
        appSessions.length > 0
          ? makeTable(`Sessions of ${app}`, sessionColumns, appSessions)
          : make('p', { class: 'empty' }, 'No session: a sign-out finds these rows through other apps alone.')
      )
    })
  )
}

/** @param {StoredAccount} account */
function describeSums({ rows, sessions }) {
  const apps = new Set([...rows, ...sessions].map(({ clientId }) => clientId)).size
  return `${count(apps, 'app')}, ${count(rows.length, 'row')}, ${count(sessions.length, 'session')}`
}

/**
 * @param {string} homeAccountId
 * @param {readonly (string | null)[]} issuers
 */
function makeIssuerChoice(homeAccountId, issuers) {
  return make(
    'div',
    {},
    make('h2', {}, 'Purge'),
    make('p', {}, 'Accounts of several issuers bear this id, and may be different people. Choose one:'),
    make(
      'ul',
      { class: 'list' },
      ...issuers.map(
        (issuer) =>
          issuer !== null &&
          make('li', {}, make('a', { class: 'long', href: accountHash(homeAccountId, issuer) }, issuer))
      )
    )
  )
}

/** @param {string} homeAccountId */
function makeRecordsLink(homeAccountId) {
  const query = new URLSearchParams({ account: homeAccountId })
  return make('p', {}, make('a', { href: `#/records?${query}` }, 'Its records'))
}

/** @param {UserAnswer['clicks']} clicks */
function makeClicks(clicks) {
  return (
    clicks.length > 0 &&
    make(
      'ul',
      { class: 'list' },
      ...clicks.map(({ issuer, provider, path, purgeBy }) =>
        make('li', {}, make('b', {}, issuer), ` (${provider}): ${path}. Then ${purgeBy}.`)
      )
    )
  )
}

/** @param {UserAnswer['objects']} objects */
function makeObjects(objects) {
  return (
    objects.length > 0 &&
    make(
      'ul',
      { class: 'list' },
      ...objects.map(({ tenantId, objectId }) =>
        make(
          'li',
          { class: 'long' },
          'Object ',
          make('code', {}, objectId),
          ' of the tenant ',
          make('code', {}, tenantId)
        )
      )
    )
  )
}

/** @import { Api, Problem } from './api.js' */
/** @import { AccountQuery, AccountReference, FoundAccounts, StoredAccount, StoredRow, StoredSession } from './answers.js' */
/** @import { Column, Content } from './elements.js' */
import {
  accountHash,
  accountLink,
  asOf,
  choice,
  code,
  count,
  empty,
  field,
  focus,
  givenIn,
  list,
  onSubmit,
  problem,
  sentence,
  size,
  table,
  time
} from './elements.js'
import { html, nothing } from './lit.js'
import { createPurgePanel, describeNear } from './purge.js'
import { attempt, createWatch } from './watch.js'

/** @type {readonly Column<StoredRow>[]} */
const rowColumns = [
  { title: 'Row', isHeader: true, cell: ({ partitionKey }) => code(partitionKey) },
  { title: 'Kind', isShort: true, cell: ({ kind }) => (kind === 'obo' ? 'on behalf of' : 'user') },
  { title: 'Size', isNumber: true, cell: ({ payloadBytes }) => size(payloadBytes) },
  { title: 'Made', isShort: true, cell: ({ createdAt }) => time(createdAt) },
  { title: 'Written', isShort: true, cell: ({ updatedAt }) => time(updatedAt) },
  { title: 'Expires', isShort: true, cell: ({ expiresAt }) => time(expiresAt) }
]

/** @type {readonly Column<StoredSession>[]} */
const sessionColumns = [
  {
    title: 'Session',
    isHeader: true,
    cell: ({ sid }) => (sid === null ? html`<span class="quiet">no sid</span>` : code(sid))
  },
  { title: 'Issuer', cell: ({ issuer }) => html`<span class="long">${issuer}</span>` },
  { title: 'Subject', cell: ({ subject }) => code(subject) },
  {
    title: 'Object',
    cell: ({ tenantId, objectId }) =>
      objectId === null
        ? html`<span class="quiet">none</span>`
        : html`${code(objectId)} <span class="quiet">of the tenant</span> ${code(tenantId)}`
  },
  { title: 'Signed in', isShort: true, cell: ({ issuedAt }) => time(issuedAt) },
  { title: 'Expires', isShort: true, cell: ({ expiresAt }) => time(expiresAt) }
]

/**
 * @param {Api} api
 * @param {() => void} redraw
 */
export function createAccounts(api, redraw) {
  const issuers = createWatch(redraw, api.issuers, 60_000)
  const directories = createWatch(redraw, api.directories, 60_000)
  let by = 'homeAccountId'
  let status = ''
  /** @type {Problem | undefined} */
  let trouble
  /** @type {() => Content} what was found */
  let drawFound = () => nothing
  let latest = 0

  /**
   * Looks for something; what is on the page makes room for it.
   *
   * @param {() => Promise<void>} work shows what it finds; an older look no longer counts
   */
  async function look(work) {
    latest += 1
    const mine = latest
    status = 'Looking …'
    trouble = undefined
    drawFound = () => nothing
    redraw()
    const problem = await attempt(work)
    if (mine === latest && problem !== undefined) {
      status = ''
      trouble = problem
      redraw()
    }
  }

  /**
   * @param {number} mine the look that this was found by
   * @param {string} news
   * @param {() => Content} draw
   */
  function show(mine, news, draw) {
    if (mine === latest) {
      status = news
      drawFound = draw
      redraw()
    }
  }

  /** @param {HTMLFormElement} form */
  function search(form) {
    const { by: _, user, homeAccountId, ...query } = givenIn(form)
    if (user !== undefined) {
      void look(() => findUser(user))
    } else if (homeAccountId !== undefined) {
      open({ homeAccountId, accountIssuer: null })
    } else {
      void look(() => findSession(query))
    }
  }

  /** @param {AccountReference} found */
  function open({ homeAccountId, accountIssuer }) {
    const hash = accountHash(homeAccountId, accountIssuer)
    if (location.hash === hash) {
      void look(() => findAccount(homeAccountId, accountIssuer ?? undefined))
    } else {
      location.hash = hash
    }
  }

  /** @param {AccountQuery} query */
  async function findSession(query) {
    const mine = latest
    const what = query.sid !== undefined ? 'sid' : query.subject !== undefined ? 'subject' : 'object'
    const accounts = await api.accountsOf(query)
    const [only, ...others] = accounts
    if (only === undefined) {
      const why = `No session of this ${what} is stored. It was never stored, has been signed out, or has expired.`
      show(mine, '', () => html`<div class="card">${empty(why)}</div>`)
    } else if (others.length === 0) {
      open(only)
    } else {
      showAll(mine, `${count(accounts.length, 'account')} have a session of this ${what}.`, accounts, query)
    }
  }

  /** @param {string} user an e-mail address or a user name */
  async function findUser(user) {
    const mine = latest
    const { accounts, objects = [], hasDirectory, clicks = [] } = await api.accountsOfUser(user)
    const [only, ...others] = accounts
    const [object, ...otherObjects] = objects
    if (only !== undefined && others.length === 0) {
      open(only)
      return
    }
    if (object !== undefined && otherObjects.length === 0 && only !== undefined) {
      showAll(mine, `${count(accounts.length, 'account')} of this person are stored.`, accounts, object)
      return
    }
    const why =
      object === undefined
        ? `No address is stored here, and ${hasDirectory ? 'no directory knows this one' : 'no directory is configured to ask'}. Find the id at the provider:`
        : otherObjects.length === 0
          ? 'The directory knows this person, but no session of theirs is stored: there is nothing to purge.'
          : 'Several people bear this name in the directories. Ask the directory which is meant, and find that one:'
    show(
      mine,
      '',
      () =>
        html`<div class="card"><p>${why}</p>${describeClicks(clicks)}${list(
          objects.map(
            (object) => html`Object ${code(object.objectId)} of the tenant ${code(object.tenantId)}
              <button type="button" class="plain" @click=${() => void look(() => findSession(object))}>Find</button>`
          )
        )}</div>`
    )
  }

  /**
   * @param {number} mine
   * @param {string} news
   * @param {readonly AccountReference[]} accounts
   * @param {AccountQuery} selector
   */
  function showAll(mine, news, accounts, selector) {
    const panel = createPurgePanel({ api, redraw }, selector, 'all of them', () => {})
    show(mine, news, () => html`<div class="card">${list(accounts.map(accountLink))}${panel.draw()}</div>`)
  }

  /**
   * @param {string} homeAccountId
   * @param {string | undefined} issuer
   */
  async function findAccount(homeAccountId, issuer) {
    const mine = latest
    let found = await api.account(homeAccountId, issuer)
    let foundAt = new Date().toISOString()
    const own = [...new Set(found.rows.map(({ accountIssuer }) => accountIssuer))]
    const drawHeading = (
      /** @type {() => void} */ refresh
    ) => html`<div class="heading"><h2 class="long">${homeAccountId}</h2>${asOf({ asOf: foundAt })}<button type="button" class="plain" @click=${refresh}>Refresh</button></div>
      <p><a href="#/records?${new URLSearchParams({ account: homeAccountId })}">Its records</a></p>`
    if (found.rows.length === 0 && found.sessions.length === 0) {
      const why =
        'No app has a row or a session of it: nobody signed in by it, or it has been signed out, or all has expired.'
      // A dry run leaves no record, and says what is stored and comes close.
      const outcome = await api.dryRun({ homeAccountId, reason: 'looked for' })
      const refresh = () => void look(() => findAccount(homeAccountId, issuer))
      show(
        mine,
        'Nothing is stored of this account.',
        () => html`<div class="card">${drawHeading(refresh)}${empty(why)}${describeNear(outcome)}</div>`
      )
      return
    }
    const owner = issuer ?? own[0] ?? undefined
    const selector = owner === undefined ? { homeAccountId } : { homeAccountId, issuer: owner }
    const panel = createPurgePanel({ api, redraw }, selector, 'this account', () => void readAgain())

    async function readAgain() {
      const problem = await attempt(async () => {
        found = await api.account(homeAccountId, issuer)
        foundAt = new Date().toISOString()
      })
      if (mine === latest) {
        trouble = problem
        status = describeSums(found)
        redraw()
      }
    }

    show(
      mine,
      describeSums(found),
      () => html`<div class="card">${drawHeading(() => void readAgain())}${
        found.isComplete ? nothing : problem('There is more of it than is listed here.')
      }${describeApps(found)}</div>
      <div class="card">${own.length > 1 ? describeIssuers(homeAccountId, own) : panel.draw()}</div>`
    )
    focus('found-status')
  }

  function drawForm() {
    const isBy = (/** @type {string[]} */ ...ways) => ways.includes(by)
    const names = issuers.answer?.map(({ issuer }) => issuer) ?? []
    return html`<form id="find" class="card" @submit=${onSubmit(search)}>
      ${choice(
        [
          ['homeAccountId', 'account id'],
          ['sid', 'session'],
          ['subject', 'subject'],
          ['object', 'directory object'],
          ['user', 'e-mail address or user name']
        ],
        'Find an account by',
        by,
        (value) => {
          by = value
          redraw()
        }
      )}
      <div class="fields">
        ${field('find-account', 'homeAccountId', { name: 'homeAccountId', isShown: isBy('homeAccountId') })}
        ${field('find-issuer', 'Issuer', { name: 'issuer', isShown: isBy('sid', 'subject'), offered: names })}
        ${field('find-sid', 'sid', { name: 'sid', isShown: isBy('sid') })}
        ${field('find-subject', 'Subject', { name: 'subject', isShown: isBy('subject') })}
        ${field('find-tenant', 'Tenant id', {
          name: 'tenantId',
          isShown: isBy('object'),
          offered: directories.answer?.map(({ tenantId }) => tenantId) ?? []
        })}
        ${field('find-object', 'Object id', { name: 'objectId', isShown: isBy('object') })}
        ${field('find-user', 'Address or name', { name: 'user', isShown: isBy('user'), maxLength: 320 })}
        <button type="submit" class="primary">Find</button>
      </div>
      ${isBy('user') ? describeWay() : nothing}
      ${problem(issuers.problem)}
    </form>`
  }

  /** From an address to an account. */
  function describeWay() {
    if (directories.answer === undefined) {
      return problem(directories.problem)
    }
    if (directories.answer.length > 0) {
      const watched = directories.answer.map(({ issuer }) => issuer).join(', ')
      return html`<p class="quiet long">The directory of ${watched} is asked. No address is stored here.</p>`
    }
    const clicks = issuers.answer?.map(({ name, lookUp }) => ({ issuer: name, ...lookUp })) ?? []
    return html`<div class="quiet"><p>No directory is configured that could be asked, and no address is stored here. Find the id at the provider:</p>
      ${describeClicks(clicks)}</div>`
  }

  return {
    title: 'Accounts',
    draw: () => html`
      ${drawForm()}
      <p id="found-status" class="status" role="status" tabindex="-1">${status}</p>
      ${problem(trouble)}
      <div id="found">${drawFound()}</div>`,
    /**
     * @param {string} homeAccountId
     * @param {URLSearchParams} query
     * @param {boolean} isReturn
     */
    show(homeAccountId, query, isReturn) {
      issuers.start()
      directories.start()
      if (homeAccountId !== '' && !isReturn) {
        by = 'homeAccountId'
        redraw()
        const input = document.getElementById('find-account')
        if (input instanceof HTMLInputElement) {
          input.value = homeAccountId
        }
        void look(() => findAccount(homeAccountId, query.get('issuer') ?? undefined))
      }
    },
    hide() {
      issuers.stop()
      directories.stop()
    }
  }
}

/** @param {StoredAccount} account */
function describeApps({ rows, sessions }) {
  const apps = [...new Set([...rows, ...sessions].map(({ clientId }) => clientId))].sort()
  if (apps.length === 0) {
    return empty('Nothing is left of this account.')
  }
  return html`${apps.map((app) => {
    const isOwn = (/** @type {{ clientId: string }} */ { clientId }) => clientId === app
    const ownRows = rows.filter(isOwn)
    const ownSessions = sessions.filter(isOwn)
    return html`<section class="app">
      <h3 class="long">${app}</h3>
      ${ownRows.length > 0 ? table(`Rows of ${app}`, rowColumns, ownRows) : empty('No row: the app has no token of it.')}
      ${
        ownSessions.length > 0
          ? table(`Sessions of ${app}`, sessionColumns, ownSessions)
          : empty('No session: a sign-out finds these rows through other apps alone.')
      }
    </section>`
  })}`
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
function describeIssuers(homeAccountId, issuers) {
  return html`<h2>Purge</h2>
    <p>Accounts of several issuers bear this id, and may be different people. Choose one:</p>
    ${list(issuers.map((issuer) => html`<a class="long" href=${accountHash(homeAccountId, issuer)}>${issuer}</a>`))}`
}

/** @param {NonNullable<FoundAccounts['clicks']>} clicks */
function describeClicks(clicks) {
  return clicks.length === 0
    ? nothing
    : list(
        clicks.map(
          ({ issuer, provider, path, purgeBy }) =>
            html`<b class="long">${issuer}</b> (${provider}): ${sentence(path)} Then ${purgeBy}.`
        )
      )
}

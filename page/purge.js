/** @import { Api } from './api.js' */
/** @import { PurgeOrder, PurgeOutcome, Selector, StoredRecord } from './answers.js' */
/** @import { Content } from './elements.js' */
import { Problem } from './api.js'
import {
  accountHash,
  code,
  count,
  focus,
  list,
  number,
  onSubmit,
  problem,
  resetForm,
  sentence,
  table,
  time,
  zone
} from './elements.js'
import { html, keyed, nothing } from './lit.js'
import { attempt, createWatch } from './watch.js'

const maxAccountsUnforced = 1_000
let lastPanel = 0

/**
 * What is known of the purge: nothing; what a dry run says, for just that order; that it runs, or what it did.
 *
 * @typedef {{ name: 'idle' }
 *   | { name: 'tried', order: PurgeOrder, outcome: PurgeOutcome, idempotencyKey: string, isMeant: boolean }
 *   | { name: 'runs', id: string }
 *   | { name: 'done', id: string, rows: number, sessions: number }} State
 */

/**
 * The way to a purge: a reason, a dry run, and only then the button. After it the form is empty, and leads to the record.
 *
 * @param {{ api: Api, redraw: () => void }} surroundings
 * @param {Selector} selector
 * @param {string} what `this account`
 * @param {() => void} onPurged
 * @returns {{ draw(): Content, focus(): void }}
 */
export function createPurgePanel({ api, redraw }, selector, what, onPurged) {
  lastPanel += 1
  const id = `purge-${lastPanel}`
  /** @type {State} */
  let state = { name: 'idle' }
  /** @type {Problem | undefined} */
  let trouble
  let isBusy = false
  const progress = createWatch(follow, () => api.record(state.name === 'runs' ? state.id : ''), 1_000)

  /**
   * Not again while it is under way: a button may be pressed twice.
   *
   * @param {() => Promise<void>} work
   */
  async function once(work) {
    if (isBusy) {
      return
    }
    isBusy = true
    redraw()
    trouble = await attempt(work)
    isBusy = false
    redraw()
    if (trouble === undefined) {
      focus(`${id}-status`)
    }
  }

  /**
   * @param {HTMLFormElement} form
   * @returns {PurgeOrder}
   */
  function read(form) {
    const given = new FormData(form)
    const local = String(given.get('issuedBefore') ?? '')
    return {
      ...selector,
      reason: String(given.get('reason')),
      ...(local === '' ? {} : { issuedBefore: new Date(local).toISOString() })
    }
  }

  /** A dry run holds for what it was asked for. */
  function forget() {
    progress.stop()
    state = { name: 'idle' }
    trouble = undefined
    redraw()
  }

  /** @param {HTMLFormElement} form */
  function tryDry(form) {
    const order = read(form)
    state = { name: 'idle' }
    void once(async () => {
      const outcome = await api.dryRun(order)
      if (JSON.stringify(read(form)) === JSON.stringify(order)) {
        // The key is of what is meant now: pressed twice, it is done once.
        state = { name: 'tried', order, outcome, idempotencyKey: makeKey(), isMeant: !isMany(outcome) }
      }
    })
  }

  /** @param {Extract<State, { name: 'tried' }>} tried */
  function purge({ order, outcome: expected, idempotencyKey }) {
    void once(async () => {
      const outcome = await orderOnce(order, { force: isMany(expected), idempotencyKey })
      resetForm(`${id}-form`)
      state = 'status' in outcome ? { name: 'runs', id: outcome.id } : { name: 'done', ...outcome }
      if (state.name === 'runs') {
        progress.start()
      }
      onPurged()
    })
  }

  /**
   * @param {PurgeOrder} order
   * @param {{ force: boolean, idempotencyKey: string }} how
   */
  async function orderOnce(order, how) {
    try {
      return await api.orderPurge(order, how)
    } catch (error) {
      if (error instanceof Problem && error.status === 0) {
        const unknown = 'Whether it was done is not known. Press the button again: it is done once.'
        throw new Problem(`${error.message} ${unknown}`, { code: error.code, cause: error })
      }
      throw error
    }
  }

  /** A running purge is followed as long as it is on the page. */
  function follow() {
    const record = progress.answer
    const isLeft = document.getElementById(`${id}-status`) === null
    if (isLeft || record?.status === 'done') {
      progress.stop()
    }
    if (record?.status === 'done' && state.name === 'runs') {
      state = { name: 'done', id: record.id, rows: record.rows, sessions: record.sessions }
      onPurged()
    }
    redraw() // its end is read out: the focus stays, since an operator may type elsewhere by then
  }

  function describeState() {
    switch (state.name) {
      case 'idle':
        return nothing
      case 'tried': {
        const { rows, sessions, accounts } = state.outcome
        const { issuedBefore } = state.order
        const only =
          issuedBefore === undefined
            ? nothing
            : html` Only what was issued before ${time(String(issuedBefore))} is meant.`
        return rows === 0 && sessions === 0
          ? html`Nothing would go: neither a row nor a session is stored.${only}`
          : html`Would delete ${count(rows, 'row')} and end ${count(sessions, 'session')} of ${count(accounts, 'account')}.${only} Nothing has been changed yet.`
      }
      case 'runs':
        return html`The purge is running, and goes on if you leave: see ${recordLink(state.id)}.`
      case 'done':
        return html`Deleted ${count(state.rows, 'row')} and ended ${count(state.sessions, 'session')}: see ${recordLink(state.id)}.`
    }
  }

  function drawNext() {
    if (state.name === 'runs') {
      return html`${progress.answer === undefined ? 'Starting …' : drawProgress(progress.answer)}${problem(progress.problem)}`
    }
    if (state.name !== 'tried') {
      return nothing
    }
    const tried = state
    const { rows, sessions, accounts } = tried.outcome
    if (rows === 0 && sessions === 0) {
      return describeNear(tried.outcome)
    }
    const onMeant = (/** @type {Event} */ { target }) => {
      state = { ...tried, isMeant: target instanceof HTMLInputElement && target.checked }
      redraw()
    }
    return html`${rowsByClient(tried.outcome)}
      ${
        isMany(tried.outcome)
          ? html`<label class="check"><input type="checkbox" @change=${onMeant}> I mean all ${number(accounts)} accounts</label>`
          : nothing
      }
      <button type="button" class="danger" ?disabled=${!tried.isMeant} aria-busy=${isBusy} @click=${() => purge(tried)}>${
        rows > 0 ? `Purge ${count(rows, 'row')}` : `End ${count(sessions, 'session')}`
      }</button>`
  }

  return {
    focus: () => focus(`${id}-reason`),
    draw: () =>
      html`${keyed(
        id,
        html`<section class="purge" aria-labelledby="${id}-title">
          <h2 id="${id}-title" class="long">Purge ${what}</h2>
          <form id="${id}-form" class="fields" @input=${forget} @submit=${onSubmit(tryDry)}>
            <div class="field">
              <label for="${id}-reason">Reason, for the record</label>
              <input id="${id}-reason" name="reason" required maxlength="2000" autocomplete="off">
            </div>
            ${
              isSweep(selector)
                ? nothing // an app or a tenant goes with all that is there
                : html`<div class="field">
                    <label for="${id}-issued-before">Only what was issued before (optional, ${zone()})</label>
                    <input id="${id}-issued-before" name="issuedBefore" type="datetime-local" step="1" max="9999-12-31T23:59:59">
                  </div>`
            }
            <button type="submit" aria-busy=${isBusy}>Dry run</button>
          </form>
          <p id="${id}-status" class="status" role="status" tabindex="-1">${describeState()}</p>
          ${drawNext()}
          ${problem(trouble)}
        </section>`
      )}`
  }
}

/** @param {string} id */
const recordLink = (id) => html`<a href="#/records/${id}">its record</a>`

/**
 * How far a running purge is.
 *
 * @param {StoredRecord} record
 */
export function drawProgress({ done, total }) {
  return html`<div class="progress">
    <progress aria-label="Accounts purged" max=${Math.max(1, total)} value=${done}></progress>
    <span>${number(done)} of ${count(total, 'account')}</span>
  </div>`
}

/**
 * What is stored, and comes close to what is not.
 *
 * @param {PurgeOutcome} outcome
 */
export function describeNear(outcome) {
  const near = 'near' in outcome ? (outcome.near ?? []) : []
  return near.length === 0
    ? nothing
    : html`<div><p>This comes close:</p>${list(
        near.map(
          ({ message, homeAccountId }) =>
            html`<span class="long">${sentence(message)}</span>${
              homeAccountId === null ? nothing : html` <a href=${accountHash(homeAccountId)}>See this account</a>`
            }`
        )
      )}</div>`
}

/** @param {{ rowsByClient: Readonly<Record<string, number>> }} outcome */
export function rowsByClient(outcome) {
  const apps = Object.entries(outcome.rowsByClient).sort(([a], [b]) => (a < b ? -1 : 1))
  return apps.length === 0
    ? nothing
    : table(
        'Rows by app',
        [
          { title: 'App', isHeader: true, cell: ([clientId]) => code(clientId) },
          { title: 'Rows', isNumber: true, cell: ([, rows]) => number(rows) }
        ],
        apps,
        { isSmall: true }
      )
}

/** @param {PurgeOutcome} outcome */
const isMany = ({ accounts }) => accounts > maxAccountsUnforced

/** @param {Selector} selector */
function isSweep({ clientId, tenantId, objectId }) {
  return clientId !== undefined || (tenantId !== undefined && objectId === undefined)
}

// Not `randomUUID`: a browser has it for `https:` and loopback alone.
function makeKey() {
  return [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, '0')).join('')
}

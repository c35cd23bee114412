/** @import { Api } from './api.js' */
/** @import { PurgeOrder, PurgeOutcome, Selector, StoredRecord } from './answers.js' */
import { Problem } from './api.js'
import { fill, make, makeTable } from './elements.js'
import { createPolling } from './polling.js'
import { attempt } from './problems.js'
import { count, number } from './units.js'

const maxAccountsUnforced = 1_000
let lastPanel = 0

/**
 * The way to a purge: a reason, a dry run, and only then the button.
 *
 * @param {Api} api
 * @param {Selector} selector
 * @param {string} what `this account`
 * @param {(outcome: { isRunning: boolean }) => void} onPurged
 */
export function createPurgePanel(api, selector, what, onPurged) {
  lastPanel += 1
  const id = `purge-${lastPanel}`
  const reason = make('input', { id: `${id}-reason`, required: true, maxlength: 2_000, autocomplete: 'off' })
  const issuedBefore = make('input', { id: `${id}-issued-before`, type: 'datetime-local', step: 1 })
  const tryButton = make('button', { type: 'submit' }, 'Dry run')
  const problem = make('p', { class: 'problem', role: 'alert' })
  const status = make('p', { class: 'status', role: 'status', tabindex: '-1' })
  const preview = make('div')
  const form = make(
    'form',
    { class: 'fields' },
    make('div', { class: 'field' }, make('label', { for: reason.id }, 'Reason, for the record'), reason),
    // A whole app or tenant is swept, with all that is there.
    !isSweep(selector) &&
      make(
        'div',
        { class: 'field' },
        make('label', { for: issuedBefore.id }, 'Only what was issued before (optional)'),
        issuedBefore
      ),
    tryButton
  )
  const element = make(
    'section',
    { class: 'purge', 'aria-labelledby': `${id}-title` },
    make('h2', { id: `${id}-title`, class: 'long' }, `Purge ${what}`),
    form,
    status,
    preview,
    problem
  )

  /** @returns {PurgeOrder} */
  const readOrder = () => ({
    selector,
    reason: reason.value,
    issuedBefore: issuedBefore.value === '' ? undefined : new Date(issuedBefore.value).toISOString()
  })

  // A dry run holds for what it was asked for.
  form.addEventListener('input', () => {
    fill(preview)
    status.textContent = ''
    problem.textContent = ''
  })

  form.addEventListener('submit', async (event) => {
    event.preventDefault()
    const order = readOrder()
    fill(preview)
    await runOnce(tryButton, () =>
      attempt(problem, async () => {
        const outcome = await api.dryRun(order)
        if (JSON.stringify(readOrder()) === JSON.stringify(order)) {
          showPreview(outcome, order)
        }
      })
    )
  })

  /**
   * @param {PurgeOutcome} outcome
   * @param {PurgeOrder} order
   */
  function showPreview(outcome, order) {
    const { accounts, sessions, rows } = outcome
    if (rows === 0 && sessions === 0) {
      status.textContent = 'Nothing would go: neither a row nor a session is stored.'
      fill(preview, makeNear(outcome))
      status.focus()
      return
    }
    status.textContent = `Would delete ${count(rows, 'row')} and end ${count(sessions, 'session')} of ${count(accounts, 'account')}. Nothing has been changed yet.`
    const idempotencyKey = makeKey() // of what is meant now: pressed twice, it is done once
    const force = make('input', { type: 'checkbox' })
    const isMany = accounts > maxAccountsUnforced
    const action = rows > 0 ? `Purge ${count(rows, 'row')}` : `End ${count(sessions, 'session')}`
    const button = make('button', { type: 'button', class: 'danger' }, action)
    button.disabled = isMany
    force.addEventListener('change', () => {
      button.disabled = !force.checked
    })
    button.addEventListener('click', () =>
      runOnce(button, async () => {
        const isDone = await attempt(problem, async () => {
          showOutcome(await orderPurge(order, { force: isMany, idempotencyKey }))
        })
        if (!isDone) {
          button.focus()
        }
      })
    )
    fill(
      preview,
      makeRowsByClient(outcome),
      isMany && make('label', { class: 'check' }, force, ` I mean all ${number(accounts)} accounts`),
      button
    )
    status.focus()
  }

  /**
   * @param {PurgeOrder} order
   * @param {{ force: boolean, idempotencyKey: string }} how
   */
  async function orderPurge(order, how) {
    try {
      return await api.orderPurge(order, how)
    } catch (error) {
      if (error instanceof Problem && error.status === 0 && !error.message.startsWith('Nothing')) {
        throw new Problem(
          `${error.message} Whether it was done is not known. Press the button again: it is done once.`,
          {
            cause: error
          }
        )
      }
      throw error
    }
  }

  /** @param {PurgeOutcome} outcome */
  function showOutcome({ isRunning = false, ...outcome }) {
    reason.value = ''
    issuedBefore.value = ''
    const record = make('a', { href: `#/records/${outcome.id}` }, 'its record')
    if (isRunning) {
      status.replaceChildren('The purge is running, and goes on if you leave: see ', record, '.')
      const progress = createProgress(api, outcome.id, (done) => {
        showOutcome(done)
      })
      fill(preview, progress.element)
    } else {
      const { rows, sessions } = outcome
      status.replaceChildren(`Deleted ${count(rows, 'row')} and ended ${count(sessions, 'session')}: see `, record, '.')
      fill(preview)
    }
    status.focus()
    onPurged({ isRunning })
  }

  return element
}

/**
 * How far a running purge is: it is followed as long as it is on the page.
 *
 * @param {Api} api
 * @param {string} id
 * @param {(record: StoredRecord) => void} onDone
 */
export function createProgress(api, id, onDone) {
  const bar = make('progress', { 'aria-label': 'Accounts purged' })
  const text = make('span', { class: 'number' }, 'Starting …')
  const problem = make('p', { class: 'problem', role: 'alert' })
  const element = make('div', { class: 'progress' }, bar, text, problem)
  const polling = createPolling(1_000, async () => {
    if (!element.isConnected) {
      polling.stop()
      return
    }
    await attempt(problem, async () => {
      const record = await api.purge(id)
      if (record.status === 'done') {
        polling.stop()
        onDone(record)
        return
      }
      bar.max = record.total
      bar.value = record.done
      text.textContent = `${number(record.done)} of ${count(record.total, 'account')}`
    })
  })
  queueMicrotask(polling.start) // it is on the page then
  return { element }
}

/** @param {Pick<PurgeOutcome, 'near'>} outcome */
export function makeNear({ near = [] }) {
  return (
    near.length > 0 &&
    make(
      'div',
      {},
      make('p', {}, 'This comes close:'),
      make('ul', { class: 'list' }, ...near.map(({ message }) => make('li', { class: 'long' }, message)))
    )
  )
}

/** @param {Pick<PurgeOutcome, 'rowsByClient'>} outcome */
export function makeRowsByClient({ rowsByClient }) {
  const apps = Object.entries(rowsByClient).sort(([a], [b]) => (a < b ? -1 : 1))
  return (
    apps.length > 0 &&
    makeTable(
      'Rows by app',
      [
        { title: 'App', isHeader: true, cell: ([clientId]) => make('code', {}, clientId) },
        { title: 'Rows', isNumber: true, cell: ([, rows]) => number(rows) }
      ],
      apps,
      () => 'short'
    )
  )
}

/**
 * Not again while it is under way: a button may be pressed twice.
 *
 * @param {HTMLButtonElement} button
 * @param {() => Promise<unknown>} work
 */
async function runOnce(button, work) {
  if (button.getAttribute('aria-busy') === 'true') {
    return
  }
  button.setAttribute('aria-busy', 'true')
  try {
    await work()
  } finally {
    button.removeAttribute('aria-busy')
  }
}

/** @param {Selector} selector */
function isSweep(selector) {
  return 'clientId' in selector || ('tenantId' in selector && !('objectId' in selector))
}

// Not `randomUUID`: a browser has it for `https:` and loopback alone.
function makeKey() {
  return [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, '0')).join('')
}

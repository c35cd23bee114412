/** @import { Api } from './api.js' */
/** @import { PurgeOutcome, PurgeRecord, Selector } from './answers.js' */
import { Problem } from './api.js'
import { fill, make, makeTable } from './elements.js'
import { createPolling } from './polling.js'
import { told } from './problems.js'
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
  const tryButton = make('button', { type: 'submit' }, 'Dry run')
  const problem = make('p', { class: 'problem', role: 'alert' })
  const status = make('p', { class: 'status', role: 'status', tabindex: '-1' })
  const preview = make('div')
  const form = make(
    'form',
    { class: 'fields' },
    make('div', { class: 'field' }, make('label', { for: reason.id }, 'Reason, for the record'), reason),
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

  // What was tried no longer holds for another reason: it stands in the record.
  reason.addEventListener('input', () => {
    fill(preview)
    status.textContent = ''
    problem.textContent = ''
  })

  form.addEventListener('submit', async (event) => {
    event.preventDefault()
    const text = reason.value
    fill(preview)
    await busy(tryButton, () =>
      told(problem, async () => {
        const outcome = await api.dryRun(selector, text)
        if (reason.value === text) {
          showPreview(outcome, text)
        }
      })
    )
  })

  /**
   * @param {PurgeOutcome} outcome
   * @param {string} text
   */
  function showPreview(outcome, text) {
    const { accounts, sessions, rows } = outcome
    if (rows === 0 && sessions === 0) {
      status.textContent = 'Nothing would go: neither a row nor a session is stored.'
      status.focus()
      return
    }
    status.textContent = `Would delete ${count(rows, 'row')} and end ${count(sessions, 'session')} of ${count(accounts, 'account')}. Nothing has been changed yet.`
    const idempotencyKey = makeKey() // of what is meant now: pressed twice, it is done once
    const force = make('input', { type: 'checkbox' })
    const isMany = accounts > maxAccountsUnforced
    const button = make('button', { type: 'button', class: 'danger' }, `Purge ${count(rows, 'row')}`)
    button.disabled = isMany
    force.addEventListener('change', () => {
      button.disabled = !force.checked
    })
    button.addEventListener('click', () =>
      busy(button, async () => {
        const isDone = await told(problem, async () => {
          showOutcome(await orderPurge({ reason: text, force: isMany, idempotencyKey }))
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

  /** @param {{ reason: string, force: boolean, idempotencyKey: string }} order */
  async function orderPurge(order) {
    try {
      return await api.orderPurge(selector, order)
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
    const record = make('a', { href: `#/purges/${outcome.id}` }, 'its record')
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
 * How far a running purge is; follows it as long as it is on the page.
 *
 * @param {Api} api
 * @param {string} id
 * @param {(record: PurgeRecord) => void} onDone
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
    await told(problem, async () => {
      const record = await api.purge(id)
      if (record.status === 'done') {
        polling.stop()
        onDone(record)
        return
      }
      bar.max = record.total
      bar.value = record.accounts
      text.textContent = `${number(record.accounts)} of ${count(record.total, 'account')}`
    })
  })
  queueMicrotask(polling.start) // it is on the page then
  return { element }
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
 * @param {HTMLButtonElement} button
 * @param {() => Promise<unknown>} work
 */
async function busy(button, work) {
  if (button.getAttribute('aria-busy') === 'true') {
    return // pressed twice
  }
  button.setAttribute('aria-busy', 'true')
  try {
    await work()
  } finally {
    button.removeAttribute('aria-busy')
  }
}

// Not `randomUUID`: a browser has it for `https:` and loopback alone.
function makeKey() {
  return [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, '0')).join('')
}

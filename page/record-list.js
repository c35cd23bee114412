/** @import { RecordPage, StoredRecord } from './answers.js' */
/** @import { Column } from './elements.js' */
import { fill, make, makeTable } from './elements.js'
import { createPolling } from './polling.js'
import { attempt } from './problems.js'
import { age, count, label, number } from './units.js'

/** @type {Column<StoredRecord>} */
export const sourceColumn = { title: 'Source', isShort: true, cell: ({ source }) => label(source) }

/** @type {Column<StoredRecord>} */
export const operatorColumn = { title: 'Operator', cell: ({ actor }) => make('span', { class: 'long' }, actor) }

/**
 * @param {Column<StoredRecord>} by
 * @returns {readonly Column<StoredRecord>[]}
 */
const columnsWith = (by) => [
  {
    title: 'When',
    isHeader: true,
    isShort: true,
    cell: ({ id, at }) => make('a', { href: `#/records/${id}` }, age(at))
  },
  by,
  { title: 'What', cell: (record) => makeTarget(record) },
  { title: 'Accounts', isNumber: true, cell: ({ accounts }) => number(accounts) },
  { title: 'Sessions', isNumber: true, cell: ({ sessions }) => number(sessions) },
  { title: 'Rows', isNumber: true, cell: ({ rows }) => number(rows) },
  { title: 'Why', cell: (record) => makeWhy(record) }
]

/**
 * Records, the newest first, page by page. While one of them is running and nothing older is shown, it follows by itself.
 *
 * @param {string} title
 * @param {string} caption of the table
 * @param {string} empty what it means that there are none
 * @param {Column<StoredRecord>} by the column that says who or what ordered it
 * @param {(before?: string) => Promise<RecordPage>} fetchPage
 */
export function createRecordList(title, caption, empty, by, fetchPage) {
  const refresh = make('button', { type: 'button', class: 'plain' }, 'Refresh')
  const older = make('button', { type: 'button', hidden: true }, 'Show older')
  const status = make('p', { class: 'status', role: 'status' })
  const problem = make('p', { class: 'problem', role: 'alert' })
  const table = make('div')
  const element = make(
    'div',
    { class: 'card' },
    make('div', { class: 'heading' }, make('h2', {}, title), refresh),
    status,
    problem,
    table,
    older
  )

  /** @type {readonly StoredRecord[]} */
  let records = []
  /** @type {string | null} */
  let next = null
  let pages = 0
  let latest = 0

  const polling = createPolling(2_000, async () => {
    if (pages === 1 && records.some(({ status }) => status === 'running')) {
      await load()
    }
  })

  function draw() {
    older.hidden = next === null
    fill(
      table,
      records.length === 0 ? make('p', { class: 'empty' }, empty) : makeTable(caption, columnsWith(by), records)
    )
  }

  /** The first page again, in place of all that is shown. */
  function load() {
    latest += 1
    const mine = latest
    return attempt(problem, async () => {
      const page = await fetchPage()
      if (mine === latest) {
        records = page.records
        next = page.next
        pages = 1
        draw()
      }
    })
  }

  function loadOlder() {
    const mine = latest
    return attempt(problem, async () => {
      const page = await fetchPage(next ?? undefined)
      if (mine !== latest) {
        return // it is another list by now
      }
      const shown = records.length
      records = [...records, ...page.records]
      next = page.next
      pages += 1
      draw()
      status.textContent = `${count(records.length, 'record')} shown.`
      const link = table.querySelectorAll('tbody th a')[shown]
      if (link instanceof HTMLElement) {
        link.focus()
      }
    })
  }

  refresh.addEventListener('click', async () => {
    if (await load()) {
      status.textContent = `The newest ${count(records.length, 'record')}.`
    }
  })
  older.addEventListener('click', loadOlder)

  return { element, load, start: polling.start, stop: polling.stop, records: () => records }
}

/** @param {StoredRecord} record */
function makeTarget({ homeAccountId, sid, subject, objectId, tenantId, clientId }) {
  if (homeAccountId !== null) {
    const link = make('a', { class: 'long', href: `#/accounts/${encodeURIComponent(homeAccountId)}` })
    link.append(make('code', {}, homeAccountId))
    return make('span', {}, make('span', { class: 'quiet' }, 'account '), link)
  }
  const [name, id] =
    sid !== null
      ? ['session', sid]
      : subject !== null
        ? ['subject', subject]
        : objectId !== null
          ? ['object', objectId]
          : tenantId !== null
            ? ['tenant', tenantId]
            : ['app', clientId ?? '–']
  return make('span', {}, make('span', { class: 'quiet' }, `${name} `), make('code', { class: 'long' }, id))
}

/** @param {StoredRecord} record */
function makeWhy({ status, reason, accounts }) {
  if (status === 'running') {
    return make('span', { class: 'pill' }, 'running')
  }
  return make(
    'div',
    { class: 'reason' },
    reason === null ? make('span', { class: 'quiet' }, 'signed out') : make('span', { class: 'long' }, reason),
    accounts === 0 && make('span', { class: 'quiet' }, ' (nothing matched)')
  )
}

/** @import { Api } from './api.js' */
/** @import { PurgeRecord } from './answers.js' */
/** @import { Column } from './elements.js' */
import { fill, find, make, makeCard, makeFacts, makeTable } from './elements.js'
import { createPolling } from './polling.js'
import { told } from './problems.js'
import { createProgress, createPurgePanel, makeRowsByClient } from './purge.js'
import { age, count, number } from './units.js'

/** @type {Readonly<Record<PurgeRecord['source'], string>>} */
const sources = { backchannel: 'Back channel', frontchannel: 'Front channel', admin: 'Operator' }

/** @type {readonly Column<PurgeRecord>[]} */
const columns = [
  {
    title: 'When',
    isHeader: true,
    isShort: true,
    cell: ({ id, at }) => make('a', { href: `#/purges/${id}` }, age(at))
  },
  { title: 'By', isShort: true, cell: ({ source }) => sources[source] },
  { title: 'What', cell: (record) => makeTarget(record) },
  { title: 'Accounts', isNumber: true, cell: ({ accounts }) => number(accounts) },
  { title: 'Sessions', isNumber: true, cell: ({ sessions }) => number(sessions) },
  { title: 'Rows', isNumber: true, cell: ({ rows }) => number(rows) },
  {
    title: 'Why',
    cell: ({ reason, status }) =>
      status === 'running'
        ? make('span', { class: 'pill' }, 'running')
        : reason === null
          ? make('span', { class: 'quiet' }, 'signed out')
          : make('span', { class: 'long' }, reason)
  }
]

/** @param {Api} api */
export function createPurges(api) {
  const recordPart = find('record', HTMLElement)
  const recordsPart = find('records', HTMLElement)
  const status = find('records-status', HTMLElement)
  const problem = find('records-problem', HTMLElement)
  const table = find('records-table', HTMLElement)
  const older = find('older-records', HTMLButtonElement)
  const many = find('many', HTMLFormElement)
  const manyId = find('many-id', HTMLInputElement)
  const manyPurge = find('many-purge', HTMLElement)

  /** @type {readonly PurgeRecord[]} */
  let records = []
  /** @type {string | null} */
  let next = null
  let turn = 0

  // Only while the first page is looked at: an older one would be lost.
  const following = createPolling(2_000, async () => {
    if (records.some(isRunning) && records.length <= 25) {
      await load()
    }
  })

  function draw() {
    older.hidden = next === null
    fill(
      table,
      records.length === 0
        ? make(
            'p',
            { class: 'empty' },
            'No purge has been recorded: neither a logout nor an operator has ended a session yet.'
          )
        : makeTable('Purges, newest first', columns, records)
    )
  }

  const load = () =>
    told(problem, async () => {
      const page = await api.purges()
      records = page.purges
      next = page.next
      draw()
    })

  const loadOlder = () =>
    told(problem, async () => {
      const before = records.length
      const page = await api.purges(next ?? undefined)
      records = [...records, ...page.purges]
      next = page.next
      draw()
      status.textContent = `${count(records.length, 'record')} shown.`
      const link = table.querySelectorAll('tbody a')[before]
      if (link instanceof HTMLElement) {
        link.focus()
      }
    })

  find('refresh-records', HTMLButtonElement).addEventListener('click', async () => {
    if (await load()) {
      status.textContent = `The newest ${count(records.length, 'record')}.`
    }
  })
  older.addEventListener('click', loadOlder)

  many.addEventListener('change', () => {
    const label = many.querySelector('label[for=many-id]')
    label?.replaceChildren(isTenant() ? 'Tenant id' : 'Client id')
    fill(manyPurge)
  })
  manyId.addEventListener('input', () => fill(manyPurge))
  const isTenant = () => new FormData(many).get('by') === 'tenantId'
  many.addEventListener('submit', (event) => {
    event.preventDefault()
    const id = manyId.value.trim()
    const panel = createPurgePanel(
      api,
      isTenant() ? { tenantId: id } : { clientId: id },
      `all of the ${isTenant() ? 'tenant' : 'app'} ${id}`,
      () => void load()
    )
    fill(manyPurge, panel)
    panel.querySelector('input')?.focus()
  })

  /** @param {string} id */
  async function showRecord(id) {
    turn += 1
    const mine = turn
    const trouble = make('p', { class: 'problem', role: 'alert' })
    const content = make('div', {}, 'Looking …')
    fill(
      recordPart,
      make('p', { class: 'back' }, make('a', { href: '#/purges' }, '← All purges')),
      makeCard(content, trouble)
    )
    const isShown = await told(trouble, async () => {
      const record = await api.purge(id)
      if (mine === turn) {
        drawRecord(record)
      }
    })
    if (!isShown) {
      fill(content)
    }

    /** @param {PurgeRecord} record */
    function drawRecord(record) {
      fill(
        content,
        make(
          'h2',
          {},
          record.source === 'admin' ? 'Purge by an operator' : `Logout by the ${sources[record.source].toLowerCase()}`
        ),
        isRunning(record) && createProgress(api, record.id, drawRecord).element,
        makeFacts(factsOf(record)),
        makeRowsByClient(record)
      )
    }
  }

  return {
    /**
     * @param {string} id
     * @param {URLSearchParams} _query
     * @param {boolean} isReturn
     */
    show(id, _query, isReturn) {
      recordsPart.hidden = id !== ''
      recordPart.hidden = id === ''
      if (id === '') {
        fill(recordPart)
        following.start()
        if (!isReturn) {
          void load()
        }
      } else {
        following.stop()
        if (!isReturn) {
          void showRecord(id)
        }
      }
    },
    hide: following.stop
  }
}

/** @param {PurgeRecord} record */
const isRunning = ({ status }) => status === 'running'

/** @param {PurgeRecord} record */
function makeTarget({ source, homeAccountId, sid, subject, tenantId, clientId }) {
  const [name, id] =
    homeAccountId !== null
      ? ['account', homeAccountId]
      : sid !== null
        ? ['session', sid]
        : subject !== null
          ? ['subject', subject]
          : tenantId !== null
            ? ['tenant', tenantId]
            : ['app', clientId ?? '–']
  const isLink = name === 'account' && source === 'admin'
  return make(
    'span',
    {},
    make('span', { class: 'quiet' }, `${name} `),
    isLink
      ? make('a', { class: 'long', href: `#/accounts/${encodeURIComponent(id)}` }, make('code', {}, id))
      : make('code', { class: 'long' }, id)
  )
}

/**
 * @param {PurgeRecord} record
 * @returns {(readonly [string, Node | string])[]}
 */
function factsOf(record) {
  /** @param {string | null} value */
  const code = (value) => value !== null && make('code', { class: 'long' }, value)
  /** @type {(readonly [string, Node | string | false])[]} */
  const facts = [
    ['Id', code(record.id)],
    ['When', age(record.at)],
    ['State', isRunning(record) ? 'running' : 'done'],
    ['Finished', record.finishedAt !== null && age(record.finishedAt)],
    ['Reason', record.reason !== null && make('span', { class: 'long' }, record.reason)],
    ['Operator', code(record.actor)],
    ['Account', code(record.homeAccountId)],
    ['Issuer', code(record.issuer)],
    ['sid', code(record.sid)],
    ['Subject', code(record.subject)],
    ['App', code(record.clientId)],
    ['Tenant', code(record.tenantId)],
    ['jti', code(record.jti)],
    ['Accounts', number(record.accounts)],
    ['Sessions', number(record.sessions)],
    ['Rows', number(record.rows)]
  ]
  return facts.flatMap(([name, value]) => (value === false ? [] : [/** @type {const} */ ([name, value])]))
}

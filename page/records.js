/** @import { Api, Problem } from './api.js' */
/** @import { RecordFilter, RecordPage, StoredRecord } from './answers.js' */
/** @import { Column, Content } from './elements.js' */
import {
  accountHash,
  accountLink,
  asOf,
  code,
  count,
  drawSafely,
  empty,
  facts,
  field,
  givenIn,
  label,
  list,
  number,
  onSubmit,
  problem,
  resetForm,
  stale,
  table,
  time,
  whatToDo
} from './elements.js'
import { html, nothing } from './lit.js'
import { drawProgress, rowsByClient } from './purge.js'
import { attempt, createWatch } from './watch.js'

const followMs = 2_000

/** @type {Column<StoredRecord>} */
const sourceColumn = {
  title: 'Source',
  isShort: true,
  cell: ({ source }) => html`<span class="label">${label(source)}</span>`
}

/** @type {Column<StoredRecord>} */
export const operatorColumn = { title: 'Operator', cell: ({ actor }) => html`<span class="long">${actor}</span>` }

/**
 * What came: the list, whose filter stands in the address, so that it can be led to, and kept; or one record, whole.
 *
 * @param {Api} api
 * @param {() => void} redraw
 */
export function createRecords(api, redraw) {
  /** @type {RecordFilter} */
  let filter = {}
  let shownId = ''
  const records = createRecordList(
    redraw,
    {
      title: 'Sign-outs and purges',
      empty: 'No record: nothing of this kind has come. A filter must be spelt exactly as the records have it.',
      by: sourceColumn
    },
    (before) => api.records(filter, before)
  )
  const offered = createWatch(
    redraw,
    async () => ({ stats: await api.stats(1_440), issuers: await api.issuers() }),
    60_000
  )
  const record = createWatch(onRecord, () => api.record(shownId), 1_000)

  /** A running one is followed; and what could not be asked is asked again. */
  function onRecord() {
    const { answer, problem } = record
    if (problem === undefined ? answer?.status !== 'running' : !problem.isOutage) {
      record.stop()
    }
    redraw()
  }

  /** @param {HTMLFormElement} form */
  function search(form) {
    const given = givenIn(form)
    const hash = hashOf(given)
    if (location.hash === hash) {
      void records.load()
    } else {
      location.hash = hash
    }
  }

  function drawFilter() {
    const { stats, issuers } = offered.answer ?? {}
    const sources = stats?.minutes.flatMap(({ bySource }) => Object.keys(bySource)) ?? []
    return html`<form id="filter" class="card" @submit=${onSubmit(search)}>
      <div class="fields">
        ${field('filter-source', 'Source', { name: 'source', value: filter.source, isRequired: false, maxLength: 64, offered: sources })}
        ${field('filter-issuer', 'Issuer', {
          name: 'issuer',
          value: filter.issuer,
          isRequired: false,
          offered: issuers?.map(({ issuer }) => issuer) ?? []
        })}
        ${field('filter-account', 'homeAccountId', { name: 'account', value: filter.account, isRequired: false })}
        ${field('filter-actor', 'Operator', {
          name: 'actor',
          value: filter.actor,
          isRequired: false,
          maxLength: 4_096,
          offered: records.actors()
        })}
        <button type="submit">Show</button>
      </div>
    </form>`
  }

  function drawRecord() {
    const { answer } = record
    return html`<p class="back"><a href=${hashOf(filter)}>← ${Object.keys(filter).length === 0 ? 'All records' : 'Back to the records'}</a></p>
      <div class="card" id="record">
        ${problem(record.problem, { beside: stale(record) })}
        ${
          record.problem?.code === 'not_found'
            ? whatToDo('see that the id in the address is whole; a record that is too old has been removed')
            : nothing
        }
        ${answer !== undefined ? drawSafely(() => describeRecord(answer, asOf(record))) : record.problem === undefined ? empty('Looking …') : nothing}
      </div>`
  }

  return {
    title: 'Records',
    draw: () => (shownId === '' ? html`${drawFilter()}${records.draw()}` : drawRecord()),
    /**
     * @param {string} id
     * @param {URLSearchParams} query
     * @param {boolean} isReturn
     */
    show(id, query, isReturn) {
      if (shownId !== id.toLowerCase()) {
        record.stop()
        record.forget()
      }
      shownId = id.toLowerCase()
      if (id !== '') {
        records.stop()
        record.start()
        return
      }
      offered.start()
      if (!isReturn) {
        const before = hashOf(filter)
        filter = Object.fromEntries(
          ['source', 'issuer', 'account', 'actor'].flatMap((name) => {
            const value = query.get(name)
            return value === null ? [] : [[name, value]]
          })
        )
        if (hashOf(filter) !== before) {
          records.forget()
        }
        redraw()
        resetForm('filter')
      }
      records.start(isReturn)
    },
    hide() {
      record.stop()
      records.stop()
      offered.stop()
    }
  }
}

/**
 * The address of a list of records.
 *
 * @param {RecordFilter} filter
 */
const hashOf = (filter) =>
  Object.keys(filter).length === 0 ? '#/records' : `#/records?${new URLSearchParams({ ...filter })}`

/**
 * Records, the newest first, page by page. While one of them is running and nothing older is shown, it follows by itself.
 *
 * @param {() => void} redraw
 * @param {{ title: string, empty: string, by: Column<StoredRecord> }} words `by`: the column that says who or what ordered it
 * @param {(before?: string) => Promise<RecordPage>} fetchPage
 */
export function createRecordList(redraw, { title, empty: none, by }, fetchPage) {
  const first = createWatch(onFirst, () => fetchPage(), followMs)
  /** @type {RecordPage | undefined} */
  let seen
  /** @type {readonly StoredRecord[]} */
  let older = []
  /** @type {string | null} */
  let next = null
  let news = ''
  /** @type {Problem | undefined} */
  let trouble
  let isFollowed = false
  let isLoadingOlder = false
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  let timer
  const id = title.toLowerCase().replaceAll(' ', '-')
  const all = () => [...(first.answer?.records ?? []), ...older]

  function onFirst() {
    if (seen !== first.answer) {
      seen = first.answer
      next = seen?.next ?? null
      older = []
      news = ''
      trouble = undefined
    }
    clearTimeout(timer)
    if (isFollowed && older.length === 0 && all().some(({ status }) => status === 'running')) {
      timer = setTimeout(first.load, followMs)
    }
    redraw()
  }

  async function refresh() {
    news = 'Looking …'
    redraw()
    const isGood = await first.load()
    news = isGood ? `The newest ${count(all().length, 'record')}.` : ''
    redraw()
  }

  async function loadOlder() {
    if (isLoadingOlder) {
      return
    }
    isLoadingOlder = true
    const begun = seen
    const shown = all().length
    news = 'Looking …'
    redraw()
    trouble = await attempt(async () => {
      const page = await fetchPage(next ?? undefined)
      if (begun !== seen) {
        return // it is another list by now
      }
      clearTimeout(timer)
      older = [...older, ...page.records]
      next = page.next
      news = `${count(all().length, 'record')} shown.`
    })
    isLoadingOlder = false
    news = trouble === undefined ? news : ''
    redraw()
    const link = document.getElementById(id)?.querySelectorAll('tbody th a')[shown]
    if (link instanceof HTMLElement) {
      link.focus()
    }
  }

  /** @type {readonly Column<StoredRecord>[]} */
  const columns = [
    {
      title: 'When',
      isHeader: true,
      isShort: true,
      cell: (record) => html`<a href="#/records/${record.id}">${time(record.at)}</a>`
    },
    by,
    { title: 'What', cell: describeTarget },
    { title: 'Accounts', isNumber: true, cell: ({ accounts }) => number(accounts) },
    { title: 'Sessions', isNumber: true, cell: ({ sessions }) => number(sessions) },
    { title: 'Rows', isNumber: true, cell: ({ rows }) => number(rows) },
    { title: 'Why', cell: describeWhy }
  ]

  return {
    load: first.load,
    /** @param {boolean} isReturn what was looked at stays as it was */
    start(isReturn) {
      isFollowed = true
      if (!isReturn || older.length === 0) {
        void first.load()
      }
    },
    stop() {
      isFollowed = false
      clearTimeout(timer)
    },
    /** The next list is another one. */
    forget() {
      first.forget()
      onFirst()
    },
    actors: () => all().map(({ actor }) => actor ?? ''),
    draw() {
      const records = all()
      return html`<section class="card" id=${id} aria-label=${title}>
        <div class="heading"><h2>${title}</h2>${asOf(first)}<button type="button" class="plain" @click=${refresh}>Refresh</button></div>
        <p class="status" role="status">${news}</p>
        ${problem(first.problem ?? trouble, { beside: first.problem === undefined ? nothing : stale(first) })}
        ${
          first.answer === undefined
            ? first.problem === undefined
              ? empty('Looking …')
              : nothing
            : records.length === 0
              ? empty(none)
              : drawSafely(() => table(`${title}, newest first`, columns, records))
        }
        ${next === null ? nothing : html`<button type="button" aria-busy=${isLoadingOlder} @click=${loadOlder}>Show older</button>`}
      </section>`
    }
  }
}

/** @param {StoredRecord} record */
function describeTarget({ homeAccountId, sid, subject, objectId, tenantId, clientId }) {
  if (homeAccountId !== null) {
    return html`<span class="quiet">account</span> <a class="long" href=${accountHash(homeAccountId)}>${code(homeAccountId)}</a>`
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
  return html`<span class="quiet">${name}</span> ${code(id)}`
}

/** @param {StoredRecord} record */
function describeWhy({ outcome, reason, done, total }) {
  const usual = outcome === 'unmatched' ? 'nothing matched' : 'signed out'
  const why = html`<span class=${reason === null ? 'quiet' : 'long'}>${reason ?? usual}</span>`
  const state =
    outcome === 'running'
      ? html` <span class="pill">running: ${number(done)} of ${number(total)}</span>`
      : outcome === 'unmatched' && reason !== null
        ? html` <span class="quiet">(nothing matched)</span>`
        : nothing
  return html`<div class="reason">${why}${state}</div>`
}

/**
 * @param {StoredRecord} record
 * @param {Content} beside its title
 */
function describeRecord(record, beside) {
  const { actor, source, status, matchedAccounts, accounts } = record
  return html`
    <div class="heading"><h2>${actor === null ? `Sign-out by ${label(source)}` : 'Purge by an operator'}</h2>${beside}</div>
    <p>${describeState(record)}</p>
    ${status === 'running' ? drawProgress(record) : nothing}
    ${facts([
      ['Id', code(record.id)],
      ['When', time(record.at)],
      ['Source', label(source)],
      ['Reason', record.reason === null ? nothing : html`<span class="long">${record.reason}</span>`],
      ['Operator', code(actor)],
      ['Account', code(record.homeAccountId)],
      ['Issuer', code(record.issuer)],
      ['sid', code(record.sid)],
      ['Subject', code(record.subject)],
      ['App', code(record.clientId)],
      ['Tenant', code(record.tenantId)],
      ['Object', code(record.objectId)],
      ['jti', code(record.jti)],
      ['Void if issued by', record.revokeBefore === null ? nothing : time(record.revokeBefore)],
      ['Accounts', number(accounts)],
      ['Sessions', number(record.sessions)],
      ['Rows', number(record.rows)]
    ])}
    ${rowsByClient(record)}
    ${
      matchedAccounts.length === 0
        ? nothing
        : html`<div><h3>Accounts that it matched</h3>${list(matchedAccounts.map(accountLink))}${
            accounts > matchedAccounts.length
              ? html`<p class="quiet">The first ${number(matchedAccounts.length)} of ${count(accounts, 'account')}.</p>`
              : nothing
          }</div>`
    }`
}

/** @param {StoredRecord} record */
function describeState({ outcome, at, finishedAt }) {
  switch (outcome) {
    case 'running':
      return html`It has been running since ${time(at)}, and goes on by itself, also after a restart.`
    case 'unmatched':
      return 'It is done, and ended nothing: no session was there to end.'
    case 'done':
      return finishedAt === null ? 'It is done.' : html`It was done at ${time(finishedAt)}.`
  }
}

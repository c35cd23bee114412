/** @import { Api } from './api.js' */
/** @import { RecordFilter } from './answers.js' */
import { fill, find, make } from './elements.js'
import { attempt } from './problems.js'
import { createRecord } from './record.js'
import { createRecordList, sourceColumn } from './record-list.js'

const filters = /** @type {const} */ (['source', 'issuer', 'account', 'actor'])

/**
 * What came. The filter stands in the address, so that it can be led to, and kept.
 *
 * @param {Api} api
 */
export function createRecords(api) {
  const recordsPart = find('records-list', HTMLElement)
  const form = find('filter', HTMLFormElement)
  const problem = find('filter-problem', HTMLElement)
  const record = createRecord(api, find('record', HTMLElement))
  /** @type {RecordFilter} */
  let filter = {}
  const list = createRecordList(
    'Sign-outs and purges',
    'Sign-outs and purges, newest first',
    'No record: nothing of this kind has come.',
    sourceColumn,
    (before) => api.records(filter, before)
  )
  recordsPart.append(list.element)
  let hasChoices = false

  const inputOf = (/** @type {string} */ name) => find(`filter-${name}`, HTMLInputElement)

  form.addEventListener('submit', (event) => {
    event.preventDefault()
    const given = filters.flatMap((name) => {
      const value = inputOf(name).value.trim()
      return value === '' ? [] : [[name, value]]
    })
    const hash = given.length === 0 ? '#/records' : `#/records?${new URLSearchParams(given)}`
    if (location.hash === hash) {
      void load()
    } else {
      location.hash = hash
    }
  })

  async function load() {
    await list.load()
    choose(
      'filter-actors',
      list.records().map(({ actor }) => actor ?? '')
    )
  }

  /** What can be chosen: any other value can be typed. */
  async function loadChoices() {
    const [{ minutes }, issuers] = await Promise.all([api.stats(1_440), api.issuers()])
    choose(
      'filter-sources',
      minutes.flatMap(({ bySource }) => Object.keys(bySource))
    )
    choose(
      'filter-issuers',
      issuers.map(({ issuer }) => issuer)
    )
  }

  return {
    /**
     * @param {string} id
     * @param {URLSearchParams} query
     * @param {boolean} isReturn
     */
    show(id, query, isReturn) {
      recordsPart.hidden = id !== ''
      if (id !== '') {
        list.stop()
        if (!isReturn) {
          void record.show(id)
        }
        return
      }
      record.hide()
      list.start()
      if (!hasChoices) {
        hasChoices = true
        void attempt(problem, loadChoices)
      }
      if (!isReturn) {
        filter = Object.fromEntries(filters.map((name) => [name, query.get(name) ?? undefined]))
        for (const name of filters) {
          inputOf(name).value = filter[name] ?? ''
        }
        void load()
      }
    },
    hide: list.stop
  }
}

/**
 * @param {string} id of the list
 * @param {readonly string[]} values
 */
function choose(id, values) {
  const known = [...new Set(values)].filter((value) => value !== '').sort()
  fill(find(id, HTMLDataListElement), ...known.map((value) => make('option', { value })))
}

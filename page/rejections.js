/** @import { Api } from './api.js' */
/** @import { Rejection } from './answers.js' */
/** @import { Column } from './elements.js' */
import { fill, find, make, makeTable } from './elements.js'
import { createPolling } from './polling.js'
import { attempt } from './problems.js'
import { age, count, label, number } from './units.js'

/** @type {readonly Column<Rejection>[]} */
const columns = [
  { title: 'When', isShort: true, cell: ({ at }) => age(at) },
  {
    title: 'Why',
    isHeader: true,
    cell: ({ code, description }) => make('div', {}, description, ' ', make('code', { class: 'quiet' }, code))
  },
  { title: 'Source', isShort: true, cell: ({ source }) => label(source) },
  {
    title: 'Issuer',
    isShort: true,
    cell: ({ issuer }) => issuer ?? make('span', { class: 'quiet' }, 'not one of ours')
  },
  { title: 'From', isShort: true, cell: ({ address }) => (address === null ? '–' : make('code', {}, address)) },
  {
    title: 'The signal says',
    cell: ({ details, accepted, hint }) =>
      make(
        'div',
        {},
        makeDetails(details),
        accepted !== null &&
          make('div', {}, make('span', { class: 'quiet' }, 'accepted is '), make('code', { class: 'long' }, accepted)),
        hint !== null && make('div', {}, hint)
      )
  }
]

/** @param {Api} api */
export function createRejections(api) {
  const list = find('rejected-list', HTMLElement)
  const problem = find('rejected-problem', HTMLElement)
  const news = find('rejected-news', HTMLElement)
  /** @type {number | undefined} */
  let seen

  const polling = createPolling(3_000, async () => {
    await attempt(problem, async () => {
      const { rejections, limited } = await api.rejections()
      const newest = rejections[0]?.position ?? 0
      // A position that fell: the instance was started anew.
      const since = seen === undefined || newest < seen ? newest : seen
      const isNew = (/** @type {Rejection} */ { position }) => position > since
      const fresh = rejections.filter(isNew).length
      if (fresh > 0) {
        news.textContent = `${count(fresh, 'more signal')} rejected`
      }
      if (seen === undefined || fresh > 0 || newest < seen) {
        draw(rejections, isNew)
      }
      seen = newest
      drawLimited(limited)
    })
  })

  const reasons = make('ul', { class: 'counts', 'aria-label': 'How often which reason' })
  const table = make('div')
  const limitedNote = make('p', { class: 'quiet' })
  fill(list, reasons, table, limitedNote)

  /**
   * @param {readonly Rejection[]} rejections
   * @param {(rejection: Rejection) => boolean} isNew
   */
  function draw(rejections, isNew) {
    /** @type {Map<string, number>} */
    const byCode = new Map()
    for (const { code } of rejections) {
      byCode.set(code, (byCode.get(code) ?? 0) + 1)
    }
    const sorted = [...byCode].sort(([, a], [, b]) => b - a)
    reasons.hidden = sorted.length < 2
    fill(reasons, ...sorted.map(([code, times]) => make('li', {}, make('code', {}, code), ' ', number(times))))
    fill(
      table,
      rejections.length === 0
        ? make(
            'p',
            { class: 'empty' },
            'No signal has been rejected. Either all that came were good, or none has come: the overview shows how many were.'
          )
        : makeTable('Rejected signals, newest first', columns, rejections, (row) => (isNew(row) ? 'new' : undefined))
    )
  }

  /** @param {number} limited */
  function drawLimited(limited) {
    limitedNote.hidden = limited === 0
    limitedNote.textContent = `${number(limited)} more came from addresses that had sent too many; they were answered 429 and are not listed.`
  }

  return { show: polling.start, hide: polling.stop }
}

/**
 * What a token says of itself: hostile text, cut and escaped by the service.
 *
 * @param {Readonly<Record<string, string>>} details
 */
function makeDetails(details) {
  const entries = Object.entries(details)
  return entries.length === 0
    ? make('span', { class: 'quiet' }, '–')
    : make(
        'ul',
        { class: 'details' },
        ...entries.map(([name, value]) =>
          make('li', {}, make('span', { class: 'quiet' }, `${name} `), make('code', { class: 'long' }, value))
        )
      )
}

/** @import { Api } from './api.js' */
/** @import { Rejection } from './answers.js' */
/** @import { Column } from './elements.js' */
import { asOf, code, count, empty, label, number, problem, sentence, stale, table, time } from './elements.js'
import { html, nothing } from './lit.js'
import { createWatch } from './watch.js'

/** @type {readonly Column<Rejection>[]} */
const columns = [
  { title: 'When', isShort: true, cell: ({ at }) => time(at) },
  {
    title: 'Why',
    isHeader: true,
    cell: ({ code, description, hint }) =>
      html`<p class="long">${sentence(description)}</p>${hint === null ? nothing : html`<p class="long">${sentence(hint)}</p>`}<code class="quiet">${code}</code>`
  },
  { title: 'Source', isShort: true, cell: ({ source }) => html`<span class="label">${label(source)}</span>` },
  { title: 'Issuer', cell: ({ issuer }) => html`<span class="quiet long">${issuer ?? 'not one of ours'}</span>` },
  { title: 'From', isShort: true, cell: ({ address }) => (address === null ? '–' : code(address)) },
  {
    title: 'It says',
    cell: ({ details, accepted }) =>
      html`${describeDetails(details)}${
        accepted === null ? nothing : html`<div><span class="quiet">accepted is</span> ${code(accepted)}</div>`
      }`
  }
]

/**
 * @param {Api} api
 * @param {() => void} redraw
 */
export function createRejections(api, redraw) {
  const watch = createWatch(onAnswer, api.rejections, 3_000)
  /** @type {number | undefined} */
  let seen
  let newerThan = 0
  let news = ''

  function onAnswer() {
    const newest = watch.answer?.rejections[0]?.position ?? 0
    // A position that fell: the instance was started anew.
    const since = seen === undefined || newest < seen ? newest : seen
    if (newest > since) {
      newerThan = since
      const fresh = watch.answer?.rejections.filter(({ position }) => position > since).length ?? 0
      news = `${count(fresh, 'more signal')} rejected`
    } else if (newest !== seen) {
      newerThan = newest
    }
    if (watch.answer !== undefined) {
      seen = newest
    }
    redraw()
  }

  return {
    title: 'Rejected signals',
    draw() {
      const { rejections = [], limited = 0 } = watch.answer ?? {}
      const classOf = (/** @type {Rejection} */ { position }) => (position > newerThan ? 'new' : undefined)
      return html`
        <p class="quiet">What this instance has rejected since it started, newest first. The list follows by itself while you look at it. ${asOf(watch)}</p>
        ${problem(watch.problem, { beside: stale(watch) })}
        <p class="unseen" role="status">${news}</p>
        <div class="card" id="rejected-list" ?hidden=${watch.answer === undefined && watch.problem !== undefined}>
          ${watch.answer === undefined && watch.problem === undefined ? empty('Looking …') : nothing}
          ${describeReasons(rejections)}
          ${
            watch.answer !== undefined && rejections.length === 0
              ? empty(
                  'No signal has been rejected. Either all that came were good, or none has come: the overview shows how many were.'
                )
              : nothing
          }
          ${rejections.length > 0 ? table('Rejected signals, newest first', columns, rejections, { classOf }) : nothing}
          ${
            limited === 0
              ? nothing
              : html`<p class="quiet">${number(limited)} more came from addresses that had sent too many; they were answered 429 and are not listed.</p>`
          }
        </div>`
    },
    show: watch.start,
    hide: watch.stop
  }
}

/** @param {readonly Rejection[]} rejections */
function describeReasons(rejections) {
  /** @type {Map<string, number>} */
  const times = new Map()
  for (const { description } of rejections) {
    times.set(description, (times.get(description) ?? 0) + 1)
  }
  const sorted = [...times].sort(([, a], [, b]) => b - a)
  return sorted.length < 2
    ? nothing
    : html`<ul class="counts" aria-label="How often which reason">${sorted.map(
        ([description, often]) =>
          html`<li><span class="long">${sentence(description)}</span> <b>${number(often)}</b></li>`
      )}</ul>`
}

/**
 * What a token says of itself: hostile text, cut and escaped by the service.
 *
 * @param {Rejection['details']} details
 */
function describeDetails(details) {
  const entries = Object.entries(details)
  return entries.length === 0
    ? html`<span class="quiet">–</span>`
    : html`<ul class="details">${entries.map(
        ([name, value]) => html`<li><span class="quiet">${name}</span> ${code(value)}</li>`
      )}</ul>`
}

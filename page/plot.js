/** @import { OutcomeCounts, Stats } from './answers.js' */
import { count, empty, label, number, table, timeOfDay, zone } from './elements.js'
import { html, nothing, svg } from './lit.js'

const bars = 60
const widthOfBar = 10
const height = 100

/**
 * What can become of a signal, from the foot of a bar to its head. The first four are always named, the others if one came.
 *
 * @type {readonly (readonly [outcome: keyof OutcomeCounts, name: string])[]}
 */
const outcomes = [
  ['done', 'Ended something'],
  ['unmatched', 'Unmatched'],
  ['deferred', 'Deferred'],
  ['rejected', 'Rejected'],
  ['duplicate', 'Duplicate'],
  ['ignored', 'Ignored'],
  ['lost', 'Lost'],
  ['failed', 'Failed']
]
const alwaysNamed = 4

/**
 * Signals as stacked bars, split by what became of them. The sums, and a table, stand beside them as text.
 *
 * @param {Stats} stats
 */
export function drawSignals({ minutes, isComplete, hasRecords }) {
  const all = sum(minutes.map(({ byOutcome }) => byOutcome))
  const named = outcomes.filter(([outcome], place) => place < alwaysNamed || all[outcome] > 0)
  const size = Math.ceil(minutes.length / bars)
  const periods = Array.from({ length: Math.ceil(minutes.length / size) }, (_, i) => {
    const own = minutes.slice(i * size, (i + 1) * size)
    return { at: own[0]?.at ?? '', counts: sum(own.map(({ byOutcome }) => byOutcome)) }
  })
  const hasAny = total(all) > 0
  const busy = periods.filter(({ counts }) => total(counts) > 0).toReversed()
  return html`
    <ul class="legend">${named.map(
      ([outcome, name]) =>
        html`<li><svg viewBox="0 0 1 1" aria-hidden="true"><rect class=${outcome} width="1" height="1"></rect></svg>${
          outcome === 'rejected' ? html`<a href="#/rejected">${name}</a>` : name
        } <b>${number(all[outcome])}</b></li>`
    )}</ul>
    ${hasAny ? drawBars(periods, size) : empty('Nothing came in this time. If users have signed out, their signals do not arrive here.')}
    <p class="quiet">Of the providers' signals, as this instance counted them. Unmatched: no session was there to end. Deferred: on disk, and done later.</p>
    ${
      hasAny
        ? html`<details><summary>As a table</summary>
            <div class="scrolls" tabindex="0" role="region" aria-label="By time">${table(
              'Times in which something came, newest first',
              [
                {
                  title: `Time (${zone()})`,
                  isHeader: true,
                  cell: ({ at }) => html`<time datetime=${at}>${timeOfDay(at)}</time>`
                },
                ...named.map(([outcome, name]) => ({
                  title: name,
                  isNumber: true,
                  cell: (/** @type {typeof busy[number]} */ { counts }) => number(counts[outcome])
                }))
              ],
              busy,
              { isSmall: true }
            )}</div></details>`
        : nothing
    }
    ${describeSources(minutes)}
    ${
      hasRecords
        ? nothing
        : html`<p class="quiet">The records are in the database, which is out of reach: how many came by which source is not known.</p>`
    }
    ${isComplete || !hasRecords ? nothing : html`<p class="quiet">Not all records could be counted: the sums by source are too low.</p>`}`
}

/**
 * @param {readonly { at: string, counts: OutcomeCounts }[]} periods
 * @param {number} size minutes of each
 */
function drawBars(periods, size) {
  const highest = Math.max(4, ...periods.map(({ counts }) => total(counts)))
  const first = periods[0]?.at ?? ''
  const last = periods.at(-1)?.at ?? ''
  return html`<figure class="plot" aria-hidden="true">
    <figcaption>${number(highest)} <span class="quiet">in ${count(size, 'minute')}</span></figcaption>
    <svg viewBox="0 0 ${periods.length * widthOfBar} ${height}" preserveAspectRatio="none">
      ${periods.map(({ counts }, i) => drawBar(counts, i, highest))}
    </svg>
    <div class="axis"><span>${timeOfDay(first)}</span><span>${timeOfDay(last)} ${zone()}</span></div>
  </figure>`
}

/**
 * @param {OutcomeCounts} counts
 * @param {number} place
 * @param {number} highest
 */
function drawBar(counts, place, highest) {
  let top = height
  return outcomes.map(([outcome]) => {
    const part = (counts[outcome] / highest) * height
    top -= part
    return part === 0
      ? nothing
      : svg`<rect class=${outcome} x=${place * widthOfBar + 1} y=${top} width=${widthOfBar - 2} height=${part}></rect>`
  })
}

/**
 * Any name is taken: which sources there are is for the service to say.
 *
 * @param {Stats['minutes']} minutes
 */
function describeSources(minutes) {
  /** @type {Map<string, number>} */
  const sums = new Map()
  for (const [source, times] of minutes.flatMap(({ bySource }) => Object.entries(bySource))) {
    sums.set(source, (sums.get(source) ?? 0) + times)
  }
  return sums.size === 0
    ? nothing
    : html`<h3>Records, by source</h3>
        <ul class="counts">${[...sums]
          .sort()
          .map(
            ([source, times]) =>
              html`<li><a href="#/records?${new URLSearchParams({ source })}"><span class="long">${label(source)}</span></a> <b>${number(times)}</b></li>`
          )}</ul>
        <p class="quiet">Of all instances, purges by operators too.</p>`
}

/** @param {OutcomeCounts} counts */
const total = (counts) => outcomes.reduce((so, [outcome]) => so + counts[outcome], 0)

/**
 * @param {readonly OutcomeCounts[]} all
 * @returns {OutcomeCounts}
 */
function sum(all) {
  const of = (/** @type {keyof OutcomeCounts} */ outcome) => all.reduce((so, counts) => so + counts[outcome], 0)
  return {
    done: of('done'),
    unmatched: of('unmatched'),
    duplicate: of('duplicate'),
    ignored: of('ignored'),
    deferred: of('deferred'),
    lost: of('lost'),
    rejected: of('rejected'),
    failed: of('failed')
  }
}

/** @import { Logouts, LogoutsOfMinute } from './answers.js' */
import { fill, make, makeTable } from './elements.js'
import { count, number, timeOfDay } from './units.js'
import uPlot from './uplot.js'

// From the back of the stack to its front.
const kinds = /** @type {const} */ (['backchannel', 'frontchannel', 'admin'])
/** @type {Readonly<Record<typeof kinds[number], string>>} */
const names = { backchannel: 'Back channel', frontchannel: 'Front channel', admin: 'Operators' }
const heightPx = 190
const bars = uPlot.paths.bars?.({ size: [0.8, 24], align: 1 })

/** Logouts per minute as stacked bars; the sums, what the pointer is on, and a table stand beside it as text. */
export function createPlot() {
  const canvas = make('div', { class: 'plot', 'aria-hidden': 'true' })
  const sums = make('ul', { class: 'legend' })
  const pointed = make('p', { class: 'pointed quiet', 'aria-hidden': 'true' })
  const note = make('p', { class: 'quiet' })
  const rows = make('div', { class: 'scrolls', tabindex: '0', role: 'region', 'aria-label': 'Logouts by minute' })
  const table = make('details', {}, make('summary', {}, 'As a table'), rows)
  const empty = make(
    'p',
    { class: 'empty' },
    'No logouts in this time. If users have signed out, nothing arrives here.'
  )
  const element = make('div', {}, sums, canvas, pointed, empty, note, table)

  /** @type {Logouts} */
  let shown = { minutes: [], isComplete: true }
  /** @type {uPlot | undefined} */
  let plot

  /** @param {string} name */
  const color = (name) => getComputedStyle(canvas).getPropertyValue(name).trim()

  function makePlot() {
    plot?.destroy()
    const grid = { stroke: color('--line'), width: 1 }
    const axis = { stroke: color('--quiet'), font: '12px system-ui, sans-serif', grid, ticks: { show: false } }
    plot = new uPlot(
      {
        width: canvas.clientWidth,
        height: heightPx,
        legend: { show: false },
        cursor: { y: false, points: { show: false }, drag: { x: false, y: false } },
        padding: [8, 20, 0, 0],
        scales: {
          x: { range: (_plot, min, max) => [min, max + 60] }, // the last minute has its width too
          y: { range: (_plot, _min, max) => [0, Math.max(4, Math.ceil(max * 1.1))] }
        },
        axes: [
          { ...axis, grid: { show: false }, values: (_plot, splits) => splits.map(toTimeOfDay), space: 64, size: 28 },
          { ...axis, size: 44, incrs: [1, 2, 5, 10, 20, 50, 100, 200, 500, 1e3, 2e3, 5e3, 1e4, 1e5, 1e6] }
        ],
        series: [
          {},
          ...kinds.map((kind) => ({
            stroke: color(`--${kind}`),
            fill: color(`--${kind}`),
            width: 0,
            points: { show: false },
            ...(bars === undefined ? {} : { paths: bars })
          }))
        ],
        hooks: { setCursor: [tellPointed] }
      },
      stacked(shown.minutes),
      canvas
    )
  }

  /** @param {uPlot} plot */
  function tellPointed({ cursor: { idx } }) {
    const minute = idx === null || idx === undefined ? undefined : shown.minutes[idx]
    pointed.textContent = minute === undefined ? '' : tellMinute(minute)
  }

  new ResizeObserver(() => {
    if (canvas.clientWidth === 0 || shown.minutes.length === 0) {
      return
    }
    if (plot === undefined) {
      makePlot()
    } else if (plot.width !== canvas.clientWidth) {
      plot.setSize({ width: canvas.clientWidth, height: heightPx })
    }
  }).observe(canvas)
  matchMedia('(prefers-color-scheme: dark)').addEventListener('change', () => plot && makePlot())

  /** @param {Logouts} logouts */
  function draw(logouts) {
    shown = logouts
    const busy = logouts.minutes.filter((minute) => total(minute) > 0)
    empty.hidden = busy.length > 0
    table.hidden = busy.length === 0
    note.hidden = logouts.isComplete
    note.textContent = 'There were more than are counted here: the sums are too low.'
    fill(
      sums,
      ...kinds.map((kind) => {
        const sum = logouts.minutes.reduce((so, minute) => so + minute[kind], 0)
        return make('li', {}, make('i', { class: kind }), `${names[kind]} `, make('b', {}, number(sum)))
      })
    )
    fill(
      rows,
      makeTable(
        'Minutes with logouts, newest first',
        [
          { title: 'Minute', isHeader: true, cell: ({ at }) => toTime(at) },
          ...kinds.map((kind) => ({
            title: names[kind],
            isNumber: true,
            cell: (/** @type {LogoutsOfMinute} */ minute) => number(minute[kind])
          }))
        ],
        busy.toReversed()
      )
    )
    if (canvas.clientWidth > 0) {
      if (plot === undefined) {
        makePlot()
      } else {
        plot.setData(stacked(logouts.minutes))
      }
    }
  }

  return { element, draw }
}

/** @param {LogoutsOfMinute} minute */
const total = ({ backchannel, frontchannel, admin }) => backchannel + frontchannel + admin

/** @param {number} seconds */
const toTimeOfDay = (seconds) => timeOfDay(new Date(seconds * 1_000))

/** @param {string} iso */
const toTime = (iso) => make('time', { datetime: iso, title: iso }, timeOfDay(new Date(iso)))

/** @param {LogoutsOfMinute} minute */
function tellMinute(minute) {
  const parts = kinds.filter((kind) => minute[kind] > 0).map((kind) => `${names[kind]} ${number(minute[kind])}`)
  const sum = `${timeOfDay(new Date(minute.at))}: ${count(total(minute), 'logout')}`
  return parts.length === 0 ? sum : `${sum} (${parts.join(', ')})`
}

/**
 * Each bar reaches to the sum of its own and of those before it; the tallest is drawn first.
 *
 * @param {readonly LogoutsOfMinute[]} minutes
 * @returns {uPlot.AlignedData}
 */
function stacked(minutes) {
  return [
    minutes.map(({ at }) => Date.parse(at) / 1_000),
    minutes.map(total),
    minutes.map(({ frontchannel, admin }) => frontchannel + admin),
    minutes.map(({ admin }) => admin)
  ]
}

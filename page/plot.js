/** @import { Minute, Stats } from './answers.js' */
import { fill, make, makeTable } from './elements.js'
import { count, label, number, timeOfDay } from './units.js'
import uPlot from './uplot.js'

// As many as style.css has; a source beyond them shares the colour of an earlier one, not its name.
const colors = 8
const heightPx = 190
const bars = uPlot.paths.bars?.({ size: [0.8, 24], align: 1 })

/**
 * Sign-outs and purges per minute as stacked bars, a series for each source that the service names. The sums, the minute under the
 * pointer, and a table stand beside it as text.
 */
export function createPlot() {
  const canvas = make('div', { class: 'plot', 'aria-hidden': 'true' })
  const sums = make('ul', { class: 'legend' })
  const pointed = make('p', { class: 'pointed quiet', 'aria-hidden': 'true' })
  const note = make('p', { class: 'quiet' }, 'There were more than are counted here: the sums are too low.')
  const rows = make('div', { class: 'scrolls', tabindex: '0', role: 'region', 'aria-label': 'By minute' })
  const table = make('details', {}, make('summary', {}, 'As a table'), rows)
  const empty = make(
    'p',
    { class: 'empty' },
    'Nothing came in this time. If users have signed out, their signals do not arrive here.'
  )
  const element = make('div', {}, sums, canvas, pointed, empty, note, table)

  // From the back of the stack to its front. A source keeps its place, and with it its colour, as long as the page is open.
  /** @type {string[]} */
  const sources = []
  /** @type {Pick<Stats, 'minutes' | 'isComplete'>} */
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
          ...sources.map((_, place) => ({
            stroke: color(`--${colorOf(place)}`),
            fill: color(`--${colorOf(place)}`),
            width: 0,
            points: { show: false },
            ...(bars === undefined ? {} : { paths: bars })
          }))
        ],
        hooks: { setCursor: [showPointed] }
      },
      stack(shown.minutes, sources),
      canvas
    )
  }

  /** @param {uPlot} plot */
  function showPointed({ cursor: { idx } }) {
    const minute = idx === null || idx === undefined ? undefined : shown.minutes[idx]
    pointed.textContent = minute === undefined ? '' : describe(minute, sources)
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

  /** @param {Stats} stats */
  function draw(stats) {
    shown = stats
    const added = sourcesOf(stats).filter((source) => !sources.includes(source))
    sources.push(...added)
    const busy = stats.minutes.filter((minute) => total(minute) > 0)
    canvas.hidden = sources.length === 0
    empty.hidden = busy.length > 0
    table.hidden = busy.length === 0
    note.hidden = stats.isComplete
    fill(sums, ...sources.map((source, place) => makeSum(source, place, stats.minutes)))
    fill(
      rows,
      makeTable(
        'Minutes in which something came, newest first',
        [
          { title: 'Minute', isHeader: true, cell: ({ at }) => toTime(at) },
          ...sources.map((source) => ({
            title: label(source),
            isNumber: true,
            cell: (/** @type {Minute} */ minute) => number(countOf(minute, source))
          }))
        ],
        busy.toReversed()
      )
    )
    if (canvas.clientWidth > 0) {
      if (plot === undefined || added.length > 0) {
        makePlot()
      } else {
        plot.setData(stack(stats.minutes, sources))
      }
    }
  }

  return { element, draw }
}

/** @param {number} place */
const colorOf = (place) => `series-${(place % colors) + 1}`

/**
 * In the order of their names.
 *
 * @param {Stats} stats
 */
function sourcesOf({ minutes }) {
  return [...new Set(minutes.flatMap(({ bySource }) => Object.keys(bySource)))].sort()
}

/**
 * @param {string} source
 * @param {number} place
 * @param {readonly Minute[]} minutes
 */
function makeSum(source, place, minutes) {
  const sum = minutes.reduce((so, minute) => so + countOf(minute, source), 0)
  const records = `#/records?${new URLSearchParams({ source })}`
  return make(
    'li',
    {},
    make('i', { class: colorOf(place) }),
    make('a', { href: records }, label(source)),
    ' ',
    make('b', {}, number(sum))
  )
}

/**
 * @param {Minute} minute
 * @param {string} source
 */
function countOf({ bySource }, source) {
  return Object.hasOwn(bySource, source) ? (bySource[source] ?? 0) : 0
}

/** @param {Minute} minute */
function total({ bySource }) {
  return Object.values(bySource).reduce((sum, each) => sum + each, 0)
}

/** @param {number} seconds */
const toTimeOfDay = (seconds) => timeOfDay(new Date(seconds * 1_000))

/** @param {string} iso */
const toTime = (iso) => make('time', { datetime: iso, title: iso }, timeOfDay(new Date(iso)))

/**
 * @param {Minute} minute
 * @param {readonly string[]} sources
 */
function describe(minute, sources) {
  const parts = sources
    .filter((source) => countOf(minute, source) > 0)
    .map((source) => `${label(source)} ${number(countOf(minute, source))}`)
  const sum = `${timeOfDay(new Date(minute.at))}: ${count(total(minute), 'record')}`
  return parts.length === 0 ? sum : `${sum} (${parts.join(', ')})`
}

/**
 * Each bar reaches to the sum of its own and the ones before it; the tallest is drawn first.
 *
 * @param {readonly Minute[]} minutes
 * @param {readonly string[]} sources
 * @returns {uPlot.AlignedData}
 */
function stack(minutes, sources) {
  return [
    minutes.map(({ at }) => Date.parse(at) / 1_000),
    ...sources.map((_, place) =>
      minutes.map((minute) => sources.slice(place).reduce((sum, source) => sum + countOf(minute, source), 0))
    )
  ]
}

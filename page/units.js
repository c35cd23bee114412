import { make } from './elements.js'

const numbers = new Intl.NumberFormat('en')
const oneDigit = new Intl.NumberFormat('en', { maximumFractionDigits: 1 })
const clock = new Intl.DateTimeFormat('en', { hour: '2-digit', minute: '2-digit', hourCycle: 'h23' })
const calendar = new Intl.DateTimeFormat('en', {
  year: 'numeric',
  month: 'short',
  day: 'numeric',
  hour: '2-digit',
  minute: '2-digit',
  hourCycle: 'h23'
})

/** @type {readonly (readonly [number, string])[]} */
const spans = [
  [86_400, 'd'],
  [3_600, 'h'],
  [60, 'min'],
  [1, 's']
]

/** @param {number} value */
export const number = (value) => numbers.format(value)

/**
 * `1 row`, `2 rows`.
 *
 * @param {number} value
 * @param {string} noun
 */
export const count = (value, noun) => `${number(value)} ${noun}${value === 1 ? '' : 's'}`

/**
 * `hour:minute` of the reader's day.
 *
 * @param {Date} date
 */
export const timeOfDay = (date) => clock.format(date)

/** @param {number} bytes */
export function size(bytes) {
  const exact = `${number(bytes)} bytes`
  const short =
    bytes < 1_000
      ? `${bytes} B`
      : bytes < 1_000_000
        ? `${oneDigit.format(bytes / 1_000)} kB`
        : `${oneDigit.format(bytes / 1_000_000)} MB`
  return make('data', { value: bytes, title: exact }, short)
}

/**
 * `12 min`, `1 h 20 min`: no more than two units.
 *
 * @param {number} seconds
 */
export function span(seconds) {
  const whole = Math.max(0, Math.round(seconds))
  const at = spans.findIndex(([length]) => whole >= length)
  const [length, unit] = spans[at === -1 ? spans.length - 1 : at] ?? [1, 's']
  const [smaller, smallerUnit] = spans[at + 1] ?? [1, 's']
  const first = Math.floor(whole / length)
  const rest = Math.floor((whole % length) / smaller)
  const isShort = at === -1 || unit === 's' || unit === 'min' || first >= 10 || rest === 0
  return isShort ? `${first} ${unit}` : `${first} ${unit} ${rest} ${smallerUnit}`
}

/**
 * How long ago, or in how long; the exact time is in its title.
 *
 * @param {string} iso
 */
export function age(iso) {
  const element = make('time', { datetime: iso, title: `${calendar.format(new Date(iso))} (${iso})`, class: 'age' })
  showAge(element)
  return element
}

/** @param {HTMLTimeElement} element */
function showAge(element) {
  const seconds = (Date.now() - Date.parse(element.dateTime)) / 1_000
  const text = seconds >= 0 ? `${span(seconds)} ago` : `in ${span(-seconds)}`
  if (element.textContent !== text) {
    element.textContent = text
  }
}

/** Lets the ages on the page grow. */
export function keepAgesCurrent() {
  setInterval(() => {
    for (const element of document.querySelectorAll('time.age')) {
      if (element instanceof HTMLTimeElement) {
        showAge(element)
      }
    }
  }, 10_000)
}

/**
 * A source as people read it: `security-events` is `Security events`. What there is of them is for the service to say.
 *
 * @param {string} source
 */
export function label(source) {
  const words = source.replaceAll('-', ' ')
  return `${words.charAt(0).toUpperCase()}${words.slice(1)}`
}

/** @import { TemplateResult } from './lit.js' */
/** @import { Watch } from './watch.js' */
import { html, nothing } from './lit.js'

// What views are made of. A value in a template becomes text or an attribute, never markup: `html` sees to it.

/** @typedef {TemplateResult | string | typeof nothing} One */
/** @typedef {One | readonly One[]} Content */

const numbers = new Intl.NumberFormat('en')
const oneDigit = new Intl.NumberFormat('en', { maximumFractionDigits: 1 })
const calendar = new Intl.DateTimeFormat('en-GB', { year: 'numeric', month: 'short', day: 'numeric' })
const clock = new Intl.DateTimeFormat('en-GB', {
  hour: '2-digit',
  minute: '2-digit',
  second: '2-digit',
  hourCycle: 'h23',
  timeZoneName: 'short'
})
const minuteClock = new Intl.DateTimeFormat('en-GB', { hour: '2-digit', minute: '2-digit', hourCycle: 'h23' })

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

/** @param {number} bytes */
export function size(bytes) {
  const text =
    bytes < 1_000
      ? `${bytes} B`
      : bytes < 1_000_000
        ? `${oneDigit.format(bytes / 1_000)} kB`
        : `${oneDigit.format(bytes / 1_000_000)} MB`
  return html`<data value=${bytes}>${text}</data>`
}

/**
 * `12 min`, `1 h 20 min`: no more than two units.
 *
 * @param {number} seconds
 */
function span(seconds) {
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
 * The time with its zone, and beside it how long ago that is, or in how long.
 *
 * @param {string} iso
 */
export function time(iso) {
  const date = new Date(iso)
  const seconds = (Date.now() - date.getTime()) / 1_000
  const relative = seconds >= 0 ? `${span(seconds)} ago` : `in ${span(-seconds)}`
  return html`<time datetime=${iso}><span>${calendar.format(date)},</span> <span>${clock.format(date)}</span> <small>(${relative})</small></time>`
}

/**
 * `hour:minute` of the reader's day, and the day if it is another one.
 *
 * @param {string} iso
 */
export function timeOfDay(iso) {
  const date = new Date(iso)
  return `${otherDay(date)}${minuteClock.format(date)}`
}

/** @param {Date} date */
const otherDay = (date) => (date.toDateString() === new Date().toDateString() ? '' : `${calendar.format(date)}, `)

/** The zone of the times, as they name it. */
export const zone = () => clock.formatToParts(new Date()).find(({ type }) => type === 'timeZoneName')?.value ?? ''

/** @param {Pick<Watch<unknown>, 'asOf'>} watch */
export function asOf({ asOf }) {
  if (asOf === undefined) {
    return nothing
  }
  return html`<span class="as-of">as of ${moment(asOf)}</span>`
}

/**
 * The time, and the day if it is another one.
 *
 * @param {string} iso
 */
function moment(iso) {
  const date = new Date(iso)
  return `${otherDay(date)}${clock.format(date)}`
}

/**
 * A source as people read it: `security-events` is `Security events`. What there is of them is for the service to say.
 *
 * @param {string} source
 */
export const label = (source) => capital(source.replaceAll('-', ' '))

/** @param {string} text */
export const sentence = (text) => `${capital(text)}${/[.!?]$/.test(text) ? '' : '.'}`

/**
 * A command at the beginning stays as it is typed.
 *
 * @param {string} text
 */
const capital = (text) => (text.startsWith('msal-logout ') ? text : `${text.charAt(0).toUpperCase()}${text.slice(1)}`)

/** @param {string | null | undefined} value an id, or anything else that others have chosen */
export const code = (value) => (value === null || value === undefined ? nothing : html`<code>${value}</code>`)

/**
 * What went wrong. The paragraph is always there, so that what comes into it is read out.
 *
 * @param {string | { message: string, advice: string | undefined, isOutage: boolean }} [given]
 * @param {{ isAlone?: boolean, beside?: Content }} [how] `isAlone`: what an outage asks for is not said above;
 *   `beside`: what else there is to say
 */
export function problem(given, { isAlone = false, beside = nothing } = {}) {
  const {
    message = '',
    advice = undefined,
    isOutage = false
  } = typeof given === 'string' ? { message: given } : (given ?? {})
  const isAdvised = advice !== undefined && (isAlone || !isOutage)
  return html`<p class="problem" role="alert">${message === '' ? nothing : html`${message}${beside}`}${
    isAdvised ? html` <span class="advice"><b>What to do:</b> ${sentence(advice)}</span>` : nothing
  }</p>`
}

/** @param {string} text */
export const empty = (text) => html`<p class="empty">${text}</p>`

/** @param {string | null | undefined} text */
export const whatToDo = (text) =>
  text === null || text === undefined ? nothing : html`<p class="advice"><b>What to do:</b> ${sentence(text)}</p>`

/**
 * Draws an answer; one that is not as its type has it spoils nothing else.
 *
 * @param {() => Content} draw
 */
export function drawSafely(draw) {
  try {
    return draw()
  } catch (error) {
    console.error(error)
    return problem({
      message: 'This part cannot be shown: the answer of the service is not as this page expects it.',
      advice:
        'reload the page: the service may be of another release. If it stays so, the console of the browser says more',
      isOutage: false
    })
  }
}

/**
 * That what is shown is old, since the last question had no answer.
 *
 * @param {Pick<Watch<unknown>, 'asOf'>} watch
 */
export const stale = ({ asOf: at }) => (at === undefined ? nothing : html` What stands here was so at ${moment(at)}.`)

/**
 * A part of a view that shows one answer: with its own problem, and as of when. If there is a problem, the last good answer stays.
 *
 * @template Answer
 * @param {object} options
 * @param {string} options.title
 * @param {string} [options.id]
 * @param {string} [options.intro]
 * @param {Content} [options.aside] beside the title
 * @param {Watch<Answer>} watch
 * @param {(answer: Answer) => Content} draw
 */
export function card({ title, id, intro, aside = nothing }, watch, draw) {
  const { answer } = watch
  return html`<section class="card" id=${id ?? nothing} aria-label=${title}>
    <div class="heading"><h2>${title}</h2>${asOf(watch)}${aside}</div>
    ${intro === undefined ? nothing : html`<p class="quiet">${intro}</p>`}
    ${problem(watch.problem, { beside: stale(watch) })}
    ${answer === undefined ? (watch.problem === undefined ? empty('Looking …') : nothing) : drawSafely(() => draw(answer))}
  </section>`
}

/**
 * @template Row
 * @typedef {object} Column
 * @property {string} title
 * @property {boolean} [isNumber]
 * @property {boolean} [isHeader] names the row
 * @property {boolean} [isShort] stands beside others on a narrow screen, as numbers do
 * @property {(row: Row) => Content} cell
 */

/**
 * A table that becomes a list of cards if there is no room for columns. The roles are written out, since a table that is not
 * displayed as one loses them.
 *
 * @template Row
 * @param {string} caption
 * @param {readonly Column<Row>[]} columns
 * @param {readonly Row[]} rows
 * @param {{ isSmall?: boolean, classOf?: (row: Row) => string | undefined }} [options] small: it stays a table
 */
export function table(caption, columns, rows, { isSmall = false, classOf = () => undefined } = {}) {
  return html`<table role="table" class=${isSmall ? 'small' : 'wide'}>
    <caption class="unseen">${caption}</caption>
    <thead role="rowgroup"><tr role="row">${columns.map(
      (column) => html`<th role="columnheader" scope="col" class=${kindOf(column)}>${column.title}</th>`
    )}</tr></thead>
    <tbody role="rowgroup">${rows.map(
      (row) =>
        html`<tr role="row" class=${classOf(row) ?? nothing}>${columns.map((column) => cellOf(column, row))}</tr>`
    )}</tbody>
  </table>`
}

/**
 * @template Row
 * @param {Column<Row>} column
 * @param {Row} row
 */
function cellOf(column, row) {
  const { title, isHeader, cell } = column
  return isHeader
    ? html`<th role="rowheader" scope="row" data-title=${title} class=${kindOf(column)}><div>${cell(row)}</div></th>`
    : html`<td role="cell" data-title=${title} class=${kindOf(column)}><div>${cell(row)}</div></td>`
}

/** @param {{ isNumber?: boolean, isShort?: boolean }} column */
const kindOf = ({ isNumber, isShort }) => (isNumber ? 'number' : isShort ? 'brief' : nothing)

/** @param {readonly (readonly [string, Content])[]} entries what is nothing is left out */
export function facts(entries) {
  const given = entries.filter(([, value]) => value !== nothing)
  return html`<dl class="facts">${given.map(([name, value]) => html`<div><dt>${name}</dt><dd>${value}</dd></div>`)}</dl>`
}

/** @param {readonly Content[]} items */
export const list = (items) => html`<ul class="list">${items.map((item) => html`<li>${item}</li>`)}</ul>`

/**
 * @param {readonly (readonly [value: string, name: string])[]} choices
 * @param {string} legend
 * @param {string} chosen
 * @param {(value: string) => void} onChoice
 */
export function choice(choices, legend, chosen, onChoice) {
  return html`<fieldset class="choice">
    <legend>${legend}</legend>
    ${choices.map(
      ([value, name]) =>
        html`<label><input type="radio" name="by" value=${value} .defaultChecked=${value === chosen} .checked=${value === chosen} @change=${() => onChoice(value)}> ${name}</label>`
    )}
  </fieldset>`
}

/**
 * A field for an id; not shown, it is no part of the form.
 *
 * @param {string} id
 * @param {string} title
 * @param {{ name?: string, value?: string | undefined, isShown?: boolean, isRequired?: boolean, maxLength?: number, offered?: readonly string[] }} [options]
 */
export function field(id, title, options = {}) {
  const { name = id, isShown = true, isRequired = true, maxLength = 1_024, offered } = options
  const choices = [...new Set(offered)].filter((value) => value !== '').sort()
  return html`<div class="field" ?hidden=${!isShown}>
    <label for=${id}>${title}</label>
    <input id=${id} name=${name} .defaultValue=${options.value ?? ''} ?required=${isRequired} ?disabled=${!isShown}
      maxlength=${maxLength} autocomplete="off" autocapitalize="off" spellcheck="false"
      list=${offered === undefined ? nothing : `${id}-choices`}>
    ${
      offered === undefined
        ? nothing
        : html`<datalist id="${id}-choices">${choices.map((value) => html`<option value=${value}></option>`)}</datalist>`
    }
  </div>`
}

/**
 * What was given in a form, without the white space around it; what is empty is left out.
 *
 * @param {HTMLFormElement} form
 * @returns {Record<string, string>}
 */
export function givenIn(form) {
  const entries = [...new FormData(form)].map(([name, value]) => [name, String(value).trim()])
  return Object.fromEntries(entries.filter(([, value]) => value !== ''))
}

/**
 * Puts a form back to what its view says.
 *
 * @param {string} id
 */
export function resetForm(id) {
  const form = document.getElementById(id)
  if (form instanceof HTMLFormElement) {
    form.reset()
  }
}

/**
 * A handler of a form's `submit`.
 *
 * @param {(form: HTMLFormElement) => void} work
 */
export function onSubmit(work) {
  return (/** @type {SubmitEvent} */ event) => {
    event.preventDefault()
    if (event.currentTarget instanceof HTMLFormElement) {
      work(event.currentTarget)
    }
  }
}

/** @param {string} id of what the reader is led to */
export function focus(id) {
  document.getElementById(id)?.focus({ preventScroll: false })
}

/**
 * The address of an account on this page.
 *
 * @param {string} homeAccountId
 * @param {string | null} [issuer] of an account that is a bare subject
 */
export function accountHash(homeAccountId, issuer) {
  const query = issuer === undefined || issuer === null ? '' : `?${new URLSearchParams({ issuer })}`
  return `#/accounts/${encodeURIComponent(homeAccountId)}${query}`
}

/** @param {{ homeAccountId: string, accountIssuer: string | null }} account */
export function accountLink({ homeAccountId, accountIssuer }) {
  const of = accountIssuer === null ? nothing : html` <span class="quiet long">of ${accountIssuer}</span>`
  return html`<a class="long" href=${accountHash(homeAccountId, accountIssuer)}>${homeAccountId}</a>${of}`
}

/** @typedef {Node | string | null | undefined | false} Child */

/**
 * Makes an element. Texts become text nodes, never markup; `true` sets an attribute without a value, and what is
 * false, null or undefined is left out.
 *
 * @template {keyof HTMLElementTagNameMap} Tag
 * @param {Tag} tag
 * @param {Record<string, string | number | boolean | null | undefined>} [attributes]
 * @param {...Child} children
 * @returns {HTMLElementTagNameMap[Tag]}
 */
export function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag)
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== false && value !== null && value !== undefined) {
      element.setAttribute(name, value === true ? '' : String(value))
    }
  }
  element.append(...children.filter(isShown))
  return element
}

/**
 * A part of the page that stands by itself.
 *
 * @param {...Child} children
 */
export function makeCard(...children) {
  return make('div', { class: 'card' }, ...children)
}

/**
 * @param {Child} child
 * @returns {child is Node | string}
 */
function isShown(child) {
  return child !== null && child !== undefined && child !== false
}

/**
 * The element with this id, which index.html promises.
 *
 * @template {HTMLElement} Kind
 * @param {string} id
 * @param {new () => Kind} kind
 * @returns {Kind}
 */
export function find(id, kind) {
  const element = document.getElementById(id)
  if (!(element instanceof kind)) {
    throw new Error(`no ${kind.name} has the id "${id}"`)
  }
  return element
}

/**
 * @param {HTMLElement} element
 * @param {...Child} children
 */
export function fill(element, ...children) {
  element.replaceChildren(...children.filter(isShown))
}

/**
 * @template Row
 * @typedef {object} Column
 * @property {string} title
 * @property {boolean} [isNumber]
 * @property {boolean} [isHeader] names the row
 * @property {boolean} [isShort] stands beside others on a narrow screen, as numbers do
 * @property {(row: Row) => Child} cell
 */

/**
 * A table that becomes a list of cards if there is no room for columns. The roles are written out, since a table that is not
 * displayed as one loses them.
 *
 * @template Row
 * @param {string} caption
 * @param {readonly Column<Row>[]} columns
 * @param {readonly Row[]} rows
 * @param {(row: Row) => string | undefined} [classOf]
 */
export function makeTable(caption, columns, rows, classOf = () => undefined) {
  return make(
    'table',
    { role: 'table' },
    make('caption', { class: 'unseen' }, caption),
    make(
      'thead',
      { role: 'rowgroup' },
      make(
        'tr',
        { role: 'row' },
        ...columns.map((column) =>
          make('th', { role: 'columnheader', scope: 'col', class: kindOf(column) }, column.title)
        )
      )
    ),
    make(
      'tbody',
      { role: 'rowgroup' },
      ...rows.map((row) =>
        make('tr', { role: 'row', class: classOf(row) }, ...columns.map((column) => makeCell(column, row)))
      )
    )
  )
}

/**
 * @template Row
 * @param {Column<Row>} column
 * @param {Row} row
 */
function makeCell(column, row) {
  const { title, isHeader, cell } = column
  const kind = kindOf(column)
  const content = make('div', {}, cell(row))
  return isHeader
    ? make('th', { role: 'rowheader', scope: 'row', 'data-title': title, class: kind }, content)
    : make('td', { role: 'cell', 'data-title': title, class: kind }, content)
}

/** @param {{ isNumber?: boolean, isShort?: boolean }} column */
const kindOf = ({ isNumber, isShort }) => (isNumber ? 'number' : isShort ? 'brief' : undefined)

/**
 * @param {readonly (readonly [string, Child])[]} facts
 */
export function makeFacts(facts) {
  return make(
    'dl',
    { class: 'facts' },
    ...facts.map(([name, value]) => make('div', {}, make('dt', {}, name), make('dd', {}, value)))
  )
}

/**
 * The address of an account on this page.
 *
 * @param {string} homeAccountId
 * @param {string} [issuer] of an account that is a bare subject
 */
export function accountHash(homeAccountId, issuer) {
  const query = issuer === undefined ? '' : `?${new URLSearchParams({ issuer })}`
  return `#/accounts/${encodeURIComponent(homeAccountId)}${query}`
}

/**
 * Shows the fields of what is chosen by the radio buttons `by`: those whose `data-for` names it. The others are no part of the form.
 *
 * @param {HTMLFormElement} form
 */
export function chooseFields(form) {
  const by = String(new FormData(form).get('by'))
  for (const field of form.querySelectorAll('[data-for]')) {
    const isFor = (field.getAttribute('data-for') ?? '').split(' ').includes(by)
    field.toggleAttribute('hidden', !isFor)
    field.querySelector('input')?.toggleAttribute('disabled', !isFor)
  }
}

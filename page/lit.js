// The view library, as the service serves it from its package: no build step, and no import map, which would be an inline script.
import { nothing, render, svg, html as template } from './lit/lit-html.js'

export { keyed } from './lit/directives/keyed.js'
export { nothing, render, svg }

// What turns the text after it from right to left, also out of an element that isolates it (an unmatched U+2066 does), and
// what cannot be seen, so that two ids look alike. What joins letters and emoji stays.
const unseen = /(?![\n\t])[\p{Cc}\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff]/gu

/** @type {WeakMap<TemplateStringsArray, readonly boolean[]>} */
const textPlaces = new WeakMap()

/**
 * A template. A value in it becomes text, never markup; and text shows each character that would act on what is beside it.
 *
 * @param {TemplateStringsArray} strings
 * @param {unknown[]} values
 */
export function html(strings, ...values) {
  let isText = textPlaces.get(strings)
  if (isText === undefined) {
    isText = placesOf(strings)
    textPlaces.set(strings, isText)
  }
  return template(
    strings,
    ...values.map((value, i) => (typeof value === 'string' && isText[i] ? value.replace(unseen, named) : value))
  )
}

/**
 * Whether each value stands between tags, not in one: an attribute is given as it is.
 *
 * @param {TemplateStringsArray} strings
 */
function placesOf(strings) {
  let before = ''
  return strings.slice(0, -1).map((part) => {
    before += part
    return before.lastIndexOf('<') < before.lastIndexOf('>') || !before.includes('<')
  })
}

/** @param {string} character */
const named = (character) => `<U+${(character.codePointAt(0) ?? 0).toString(16).toUpperCase().padStart(4, '0')}>`

// The view library, as the service serves it from its package: no build step, and no import map, which would be an inline script.
export { keyed } from './lit/directives/keyed.js'
export { html, nothing, render, svg } from './lit/lit-html.js'

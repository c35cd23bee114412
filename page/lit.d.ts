export type { TemplateResult } from 'lit-html'
export { html, nothing, render, svg } from 'lit-html'
export { keyed } from 'lit-html/directives/keyed.js'

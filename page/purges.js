/** @import { Api } from './api.js' */
/** @import { Selector } from './answers.js' */
import { chooseFields, fill, find } from './elements.js'
import { createPurgePanel } from './purge.js'
import { createRecordList, operatorColumn } from './record-list.js'

/**
 * The operators' own: what they purged, and the way to purge what needs no look at it first.
 *
 * @param {Api} api
 */
export function createPurges(api) {
  const form = find('many', HTMLFormElement)
  const panelPart = find('many-purge', HTMLElement)
  const list = createRecordList(
    'Purges by operators',
    'Purges by operators, newest first',
    'No purge has been recorded: no operator has ordered one yet.',
    operatorColumn,
    api.purges
  )
  find('purges-list', HTMLElement).append(list.element)

  const textOf = (/** @type {string} */ name) => find(`many-${name}`, HTMLInputElement).value.trim()

  form.addEventListener('change', () => chooseFields(form))
  form.addEventListener('input', () => fill(panelPart))
  chooseFields(form)

  form.addEventListener('submit', (event) => {
    event.preventDefault()
    const { selector, what } = chosen()
    const panel = createPurgePanel(api, selector, what, () => void list.load())
    fill(panelPart, panel)
    panel.querySelector('input')?.focus()
  })

  /** @returns {{ selector: Selector, what: string }} */
  function chosen() {
    switch (new FormData(form).get('by')) {
      case 'tenantId':
        return { selector: { tenantId: textOf('tenant') }, what: `all of the tenant ${textOf('tenant')}` }
      case 'objectId':
        return {
          selector: { tenantId: textOf('tenant'), objectId: textOf('object') },
          what: `all of the object ${textOf('object')}`
        }
      default:
        return { selector: { clientId: textOf('client') }, what: `all of the app ${textOf('client')}` }
    }
  }

  return {
    /**
     * @param {string} _rest
     * @param {URLSearchParams} _query
     * @param {boolean} isReturn
     */
    show(_rest, _query, isReturn) {
      list.start()
      if (!isReturn) {
        void list.load()
      }
    },
    hide: list.stop
  }
}

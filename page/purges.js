/** @import { Api } from './api.js' */
/** @import { Selector } from './answers.js' */
import { choice, field, givenIn, onSubmit } from './elements.js'
import { html, nothing } from './lit.js'
import { createPurgePanel } from './purge.js'
import { createRecordList, operatorColumn } from './records.js'
import { createWatch } from './watch.js'

/**
 * The operators' own: what they purged, and the way to purge what needs no look at it first.
 *
 * @param {Api} api
 * @param {() => void} redraw
 */
export function createPurges(api, redraw) {
  const list = createRecordList(
    redraw,
    {
      title: 'Purges by operators',
      empty: 'No purge has been recorded: no operator has ordered one yet.',
      by: operatorColumn
    },
    api.purges
  )
  const offered = createWatch(redraw, () => fetchOffered(api), 60_000)
  let by = 'clientId'
  /** @type {ReturnType<typeof createPurgePanel> | undefined} */
  let panel

  /** What was chosen no longer holds. */
  function forget() {
    panel = undefined
    redraw()
  }

  /** @param {HTMLFormElement} form */
  function choose(form) {
    const { by: _, ...selector } = givenIn(form)
    panel = createPurgePanel({ api, redraw }, selector, `all of the ${describe(selector)}`, () => {
      form.reset()
      void list.load()
    })
    redraw()
    panel.focus()
  }

  return {
    title: 'Purges',
    draw: () => html`
      <details class="card">
        <summary>Purge an app, a tenant or a directory object</summary>
        <form id="many" @input=${forget} @submit=${onSubmit(choose)}>
          ${choice(
            [
              ['clientId', 'an app'],
              ['tenantId', 'a tenant'],
              ['objectId', 'a directory object']
            ],
            'Everything of',
            by,
            (value) => {
              by = value
              redraw()
            }
          )}
          <div class="fields">
            ${field('many-client', 'Client id', {
              name: 'clientId',
              isShown: by === 'clientId',
              offered: offered.answer?.clientIds ?? []
            })}
            ${field('many-tenant', 'Tenant id', {
              name: 'tenantId',
              isShown: by !== 'clientId',
              offered: offered.answer?.tenantIds ?? []
            })}
            ${field('many-object', 'Object id', { name: 'objectId', isShown: by === 'objectId' })}
            <button type="submit">Choose</button>
          </div>
        </form>
        ${panel?.draw() ?? nothing}
      </details>
      ${list.draw()}`,
    /**
     * @param {string} _rest
     * @param {URLSearchParams} _query
     * @param {boolean} isReturn
     */
    show(_rest, _query, isReturn) {
      list.start(isReturn)
      offered.start()
    },
    hide() {
      list.stop()
      offered.stop()
    }
  }
}

/**
 * The client ids and tenant ids that are configured or stored; any other can be typed.
 *
 * @param {Api} api
 */
async function fetchOffered(api) {
  const [issuers, { sessions }, directories] = await Promise.all([api.issuers(), api.stats(1), api.directories()])
  return {
    clientIds: [...issuers.flatMap(({ clientIds }) => clientIds), ...sessions.map(({ clientId }) => clientId)],
    tenantIds: directories.map(({ tenantId }) => tenantId)
  }
}

/** @param {Selector} selector */
function describe({ clientId, tenantId, objectId }) {
  return clientId !== undefined
    ? `app ${clientId}`
    : objectId !== undefined
      ? `object ${objectId}`
      : `tenant ${tenantId}`
}

/** @import { Api } from './api.js' */
/** @import { Stream } from './answers.js' */
/** @import { Card } from './overview.js' */
import { card, facts, time } from './elements.js'
import { html, keyed, nothing } from './lit.js'
import { describeStream } from './states.js'
import { createWatch } from './watch.js'

/**
 * The streams of security events, each with how it stands in a sentence.
 *
 * @param {Api} api
 * @param {() => void} redraw
 * @returns {Card}
 */
export function createStreamsCard(api, redraw) {
  const watch = createWatch(redraw, api.streams, 10_000)
  const intro =
    'Security events of the providers, beside their logouts: sessions revoked, accounts disabled, passwords changed.'
  return {
    start: watch.start,
    stop: watch.stop,
    draw: () =>
      watch.answer?.length === 0
        ? nothing
        : card({ title: 'Streams', id: 'streams', intro }, watch, (streams) =>
            streams.map((stream) => html`${keyed(stream.name, describe(stream))}`)
          )
  }
}

/** @param {Stream} stream */
function describe(stream) {
  const { name, issuer, issuers, delivery, heardAt, verifiedAt, canVerify } = stream
  return html`<div class="directory">
    <h3 class="long">${name} <span class="quiet long">${issuer}</span></h3>
    ${describeStream(stream)}
    ${facts([
      ['Speaks for the users of', html`<span class="long">${issuers.join(', ')}</span>`],
      ['Comes by', delivery],
      ['Last event', heardAt === null ? 'never' : time(heardAt)],
      [
        'Last verified',
        verifiedAt !== null ? time(verifiedAt) : canVerify ? 'never' : 'not at all: the transmitter cannot be asked'
      ]
    ])}
  </div>`
}

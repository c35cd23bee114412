/** @import { Api } from './api.js' */
/** @import { Issuer, Spool } from './answers.js' */
/** @import { Column } from './elements.js' */
import { fill, find, make, makeFacts, makeTable } from './elements.js'
import { createPlot } from './plot.js'
import { createPolling } from './polling.js'
import { told } from './problems.js'
import { age, number } from './units.js'

/** @type {readonly Column<Issuer>[]} */
const issuerColumns = [
  {
    title: 'Issuer',
    isHeader: true,
    cell: ({ name, issuer }) =>
      make('div', {}, make('b', {}, name), make('br'), make('span', { class: 'quiet long' }, issuer))
  },
  {
    title: 'Apps',
    isNumber: true,
    cell: ({ clientIds }) => make('span', { title: clientIds.join('\n') }, number(clientIds.length))
  },
  { title: 'Front channel', isShort: true, cell: ({ frontChannel }) => (frontChannel ? 'taken' : 'refused') },
  { title: 'Keys', isNumber: true, cell: ({ keys }) => number(keys) },
  {
    title: 'Keys fetched',
    isShort: true,
    cell: ({ keysLoadedAt }) => (keysLoadedAt === null ? make('span', { class: 'bad' }, 'never') : age(keysLoadedAt))
  },
  {
    title: 'Last failure',
    cell: ({ keysLoadedAt, lastFailureAt, lastFailure }) =>
      lastFailureAt === null
        ? make('span', { class: 'quiet' }, 'none')
        : make(
            'div',
            { class: keysLoadedAt === null || lastFailureAt > keysLoadedAt ? 'bad' : 'quiet' },
            age(lastFailureAt),
            lastFailure === null ? '' : `: ${lastFailure}`
          )
  }
]

/** @param {Api} api */
export function createOverview(api) {
  const range = find('range', HTMLSelectElement)
  const logouts = createPart('logouts')
  const issuers = createPart('issuers')
  const spool = createPart('spool')
  const plot = createPlot()
  fill(logouts.content, plot.element)

  const drawLogouts = () =>
    told(logouts.problem, async () => {
      const minutes = Number(range.value)
      const answer = await api.logouts(minutes)
      if (Number(range.value) === minutes) {
        plot.draw(answer)
      }
    })

  const polling = createPolling(10_000, async () => {
    await Promise.all([
      drawLogouts(),
      told(issuers.problem, async () => {
        const trusted = await api.issuers()
        fill(issuers.content, makeTable('Issuers', issuerColumns, trusted))
      }),
      told(spool.problem, async () => {
        fill(spool.content, ...describeSpool(await api.spool()))
      })
    ])
  })
  range.addEventListener('change', drawLogouts)
  return { show: polling.start, hide: polling.stop }
}

/** @param {Spool} spool */
function describeSpool({ verified, unverified, frontchannel, rejected, oldestAt, isWritable }) {
  const facts = makeFacts([
    ['Wait for the database', number(verified + frontchannel)],
    ['Wait for keys', number(unverified)],
    ['The oldest came', oldestAt === null ? '–' : age(oldestAt)],
    ['Proved bad, set aside', number(rejected)],
    ['Disk', isWritable ? 'can be written' : make('span', { class: 'bad' }, 'cannot be written')]
  ])
  return [
    facts,
    verified + unverified + frontchannel === 0 &&
      make('p', { class: 'empty' }, 'Nothing waits: every logout that came has been carried out.'),
    !isWritable &&
      make('p', { class: 'problem' }, 'A logout that cannot be carried out at once would be lost: mend this first.')
  ]
}

/**
 * A part of the view that tells its own problem.
 *
 * @param {string} id
 */
function createPart(id) {
  const problem = make('p', { class: 'problem', role: 'alert' })
  const content = make('div')
  fill(find(id, HTMLElement), problem, content)
  return { problem, content }
}

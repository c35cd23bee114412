/** @import { Api } from './api.js' */
/** @import { Issuer, Spool, Verdict } from './answers.js' */
/** @import { Column } from './elements.js' */
import { describeDirectories } from './directories.js'
import { fill, find, make, makeFacts, makeTable } from './elements.js'
import { createPlot } from './plot.js'
import { createPolling } from './polling.js'
import { attempt } from './problems.js'
import { age, count, number } from './units.js'

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
  { title: 'Front channel', isShort: true, cell: ({ frontChannel }) => (frontChannel ? 'on' : 'off') },
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
  const stats = createPart('stats')
  const verdicts = createPart('verdicts')
  const issuers = createPart('issuers')
  const directories = createPart('directories')
  const spool = createPart('spool')
  const plot = createPlot()
  fill(stats.content, plot.element)

  const drawStats = () =>
    attempt(stats.problem, async () => {
      const minutes = Number(range.value)
      const answer = await api.stats(minutes)
      if (Number(range.value) === minutes) {
        plot.draw(answer)
        fill(verdicts.content, describeVerdicts(answer.verdicts), describeCount(answer.since))
      }
    })

  const drawDirectories = () =>
    attempt(directories.problem, async () => {
      const found = await api.directories()
      find('directories-card', HTMLElement).hidden = found.length === 0
      fill(directories.content, ...describeDirectories(api, found, drawDirectories))
    })

  const polling = createPolling(10_000, async () => {
    await Promise.all([
      drawStats(),
      attempt(issuers.problem, async () => {
        const trusted = await api.issuers()
        fill(issuers.content, makeTable('Issuers', issuerColumns, trusted))
      }),
      drawDirectories(),
      attempt(spool.problem, async () => {
        fill(spool.content, ...describeSpool(await api.spool()))
      })
    ])
  })
  range.addEventListener('change', drawStats)
  return { show: polling.start, hide: polling.stop }
}

/** @param {readonly Verdict[]} verdicts */
function describeVerdicts(verdicts) {
  const mark = { works: 'good', quiet: 'quiet', fails: 'bad' }
  const word = { works: 'Works', quiet: 'Quiet', fails: 'Fails' }
  return make(
    'ul',
    { class: 'verdicts' },
    ...verdicts.map(({ state, message, advice }) =>
      make(
        'li',
        {},
        make('b', { class: mark[state] }, word[state]),
        make('div', {}, `${sentence(message)}`, advice !== null && make('p', { class: 'quiet' }, sentence(advice)))
      )
    )
  )
}

/** @param {string} since */
function describeCount(since) {
  return make('p', { class: 'quiet' }, 'As this instance has counted, which started ', age(since), '.')
}

/** @param {string} text */
function sentence(text) {
  return `${text.charAt(0).toUpperCase()}${text.slice(1)}.`
}

/** @param {Spool} spool */
function describeSpool({ verified, unverified, unsigned, rejected, stuck, oldestAt, isWritable }) {
  const facts = makeFacts([
    ['Verified, for the database', number(verified)],
    ['Unverified, for keys', number(unverified)],
    ['Unsigned', number(unsigned)],
    ['The oldest came', oldestAt === null ? '–' : age(oldestAt)],
    ['Rejected, set aside', number(rejected)],
    ['Disk', isWritable ? 'can be written' : make('span', { class: 'bad' }, 'cannot be written')]
  ])
  return [
    facts,
    verified + unverified + unsigned === 0 &&
      make('p', { class: 'empty' }, 'Nothing waits: every signal that came is done.'),
    !isWritable &&
      make('p', { class: 'problem' }, 'A signal that cannot be done at once would be lost: mend this first.'),
    stuck.length > 0 &&
      make(
        'div',
        {},
        make('p', { class: 'problem' }, `${count(stuck.length, 'file')} cannot be used: mend or remove them.`),
        make(
          'ul',
          { class: 'list' },
          ...stuck.map(({ name, reason }) =>
            make('li', { class: 'long' }, make('code', {}, name), make('span', { class: 'quiet' }, ` ${reason}`))
          )
        )
      )
  ]
}

/**
 * A part of the view that shows its own problem.
 *
 * @param {string} id
 */
function createPart(id) {
  const problem = make('p', { class: 'problem', role: 'alert' })
  const content = make('div')
  fill(find(id, HTMLElement), problem, content)
  return { problem, content }
}

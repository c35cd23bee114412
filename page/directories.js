/** @import { Api } from './api.js' */
/** @import { Directory } from './answers.js' */
import { make, makeFacts } from './elements.js'
import { attempt } from './problems.js'
import { age, count, number } from './units.js'

/**
 * The watched directories, each with how it stands in a sentence.
 *
 * @param {Api} api
 * @param {readonly Directory[]} directories
 * @param {() => void} onDecided
 */
export function describeDirectories(api, directories, onDecided) {
  return directories.length === 0
    ? [make('p', { class: 'empty' }, 'No issuer has a directory that is watched.')]
    : directories.map((directory) => describeDirectory(api, directory, onDecided))
}

/**
 * @param {Api} api
 * @param {Directory} directory
 * @param {() => void} onDecided
 */
function describeDirectory(api, directory, onDecided) {
  const { issuer, tenantId, goodAt, deltaAt, hasDelta, sweptAt, watched, unwatched, rounds, dryRun } = directory
  return make(
    'div',
    { class: 'directory' },
    make('h3', {}, issuer, ' ', make('span', { class: 'quiet long' }, tenantId)),
    describeState(directory),
    makeFacts([
      ['All was well', goodAt === null ? 'never' : age(goodAt)],
      [
        'Changes were asked for',
        hasDelta ? (deltaAt === null ? 'never' : age(deltaAt)) : 'swept alone: an external tenant'
      ],
      ['Swept', sweptAt === null ? 'never' : age(sweptAt)],
      ['Watched', watched === null ? '–' : count(watched, 'directory object')],
      ['Not watchable', unwatched === null ? '–' : count(unwatched, 'account')],
      [
        'Last rounds',
        rounds.length === 0 ? '–' : make('ul', { class: 'list' }, ...rounds.slice(0, 5).map(describeRound))
      ]
    ]),
    dryRun && make('p', { class: 'quiet' }, 'A dry run: nobody is purged by this directory.'),
    describeHeld(directory),
    directory.breaker !== null && makeDecision(api, directory, onDecided)
  )
}

/** @param {Directory} directory */
function describeState({ breaker, deltaFailure, sweepFailure, goodAt }) {
  const failure = sweepFailure ?? deltaFailure
  if (breaker !== null) {
    return make(
      'p',
      { class: 'problem' },
      `${count(breaker.found, 'account')} of ${number(breaker.watched)} would go at once, since `,
      age(breaker.openedAt),
      ': they are held until you decide.'
    )
  }
  if (failure !== null) {
    return make(
      'p',
      { class: 'problem' },
      'It cannot be watched, since ',
      age(failure.since),
      `: ${failure.code}${failure.detail === null ? '' : `, ${failure.detail}`}. docs/troubleshooting.md says what to do.`
    )
  }
  return make('p', {}, goodAt === null ? 'It has not been looked at yet.' : 'It is watched.')
}

/** @param {Directory['rounds'][number]} round */
function describeRound({ kind, at, looked, done, held, failure }) {
  const purged = Object.entries(done).map(([event, accounts]) => `${accounts} ${event}`)
  const what = failure ?? (purged.length > 0 ? `purged ${purged.join(', ')}` : 'purged nobody')
  return make('li', {}, age(at), `: ${kind}, looked at ${number(looked)}, ${what}${held > 0 ? `, held ${held}` : ''}`)
}

/** @param {Directory} directory */
function describeHeld({ tenantId, held, heldCount, dryRun }) {
  return (
    heldCount > 0 &&
    makeDetails(
      tenantId,
      make('summary', {}, `${count(heldCount, 'account')} ${dryRun ? 'would be purged' : 'held'}`),
      make(
        'ul',
        { class: 'list' },
        ...held.map(({ objectId, event, detail, seenAt }) =>
          make('li', {}, make('code', {}, objectId), ` ${event}: ${detail}, seen `, age(seenAt))
        ),
        heldCount > held.length && make('li', { class: 'quiet' }, `and ${number(heldCount - held.length)} more`)
      )
    )
  )
}

/** @type {Set<string>} */
const opened = new Set()

/**
 * Stays open when the view is drawn again.
 *
 * @param {string} tenantId
 * @param {...Node} children
 */
function makeDetails(tenantId, ...children) {
  const details = make('details', { open: opened.has(tenantId) }, ...children)
  details.addEventListener('toggle', () => (details.open ? opened.add(tenantId) : opened.delete(tenantId)))
  return details
}

/**
 * @param {Api} api
 * @param {Directory} directory
 * @param {() => void} onDecided
 */
function makeDecision(api, { tenantId, issuer, heldCount }, onDecided) {
  const problem = make('p', { class: 'problem', role: 'alert' })
  const purge = make('button', { type: 'button', class: 'danger' }, `Purge ${count(heldCount, 'account')}`)
  const drop = make('button', { type: 'button' }, 'Drop')
  const buttons = [purge, drop]
  /** @param {'release' | 'drop'} decision */
  const decide = async (decision) => {
    const question =
      decision === 'release'
        ? `Purge ${count(heldCount, 'account')} of "${issuer}"? These people must sign in again.`
        : `Leave ${count(heldCount, 'account')} of "${issuer}" signed in?`
    if (!window.confirm(question)) {
      return
    }
    for (const button of buttons) {
      button.disabled = true
    }
    const isDone = await attempt(problem, () => api.decideDirectory(tenantId, decision))
    if (isDone) {
      onDecided()
    } else {
      for (const button of buttons) {
        button.disabled = false
      }
    }
  }
  purge.addEventListener('click', () => decide('release'))
  drop.addEventListener('click', () => decide('drop'))
  return make('div', {}, make('p', {}, purge, ' ', drop), problem)
}

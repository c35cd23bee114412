/** @import { Api, Problem } from './api.js' */
/** @import { Directory } from './answers.js' */
/** @import { Card } from './overview.js' */
import { card, code, count, facts, list, number, problem, time, whatToDo } from './elements.js'
import { html, keyed, nothing } from './lit.js'
import { describeDirectory } from './states.js'
import { attempt, createWatch } from './watch.js'

const maxRoundsShown = 5

/**
 * The watched directories, each with how it stands in a sentence, and with the decision on whom its breaker holds.
 *
 * @param {Api} api
 * @param {() => void} redraw
 * @returns {Card}
 */
export function createDirectoriesCard(api, redraw) {
  const watch = createWatch(redraw, api.directories, 10_000)
  const intro =
    'Whom the providers know: it is asked, since they send nothing when a user is disabled, deleted or revoked.'
  /** @type {Map<string, Problem>} by tenant id: why the last decision was not taken */
  const problems = new Map()
  /** @type {Set<string>} tenant ids of which a decision is under way */
  const deciding = new Set()

  /**
   * @param {Directory} directory
   * @param {'release' | 'drop'} decision
   */
  async function decide({ tenantId, issuer, heldCount }, decision) {
    const question =
      decision === 'release'
        ? `Purge ${count(heldCount, 'account')} of "${issuer}"? These people must sign in again.`
        : `Leave ${count(heldCount, 'account')} of "${issuer}" signed in?`
    if (deciding.has(tenantId) || !window.confirm(question)) {
      return
    }
    deciding.add(tenantId)
    redraw()
    const why = await attempt(() => api.decideDirectory(tenantId, decision))
    deciding.delete(tenantId)
    if (why === undefined) {
      problems.delete(tenantId)
      await watch.load()
    } else {
      problems.set(tenantId, why)
      redraw()
    }
  }

  /** @param {Directory} directory */
  function describe(directory) {
    const { issuer, tenantId, deltaAt, hasDelta, sweptAt, watched, unwatched, rounds } = directory
    return html`<div class="directory">
      <h3 class="long">${issuer} <span class="quiet long">${tenantId}</span></h3>
      ${describeDirectory(directory)}
      ${directory.breaker === null ? nothing : drawDecision(directory, directory.breaker)}
      ${describeHeld(directory)}
      ${facts([
        [
          'Changes were asked for',
          hasDelta ? (deltaAt === null ? 'never' : time(deltaAt)) : 'not at all: an external tenant is swept alone'
        ],
        ['Swept', sweptAt === null ? 'never' : time(sweptAt)],
        ['Watched', watched === null ? '–' : count(watched, 'directory object')],
        ['Not watchable', unwatched === null ? '–' : count(unwatched, 'account')],
        ['Notifications', directory.notifications === null ? nothing : describeNotifications(directory.notifications)]
      ])}
      ${
        rounds.length === 0
          ? nothing
          : html`<details><summary>Last rounds</summary>${list(rounds.slice(0, maxRoundsShown).map(describeRound))}</details>`
      }
    </div>`
  }

  /**
   * @param {Directory} directory
   * @param {NonNullable<Directory['breaker']>} breaker
   */
  function drawDecision(directory, { found, watched, openedAt }) {
    const { tenantId, heldCount } = directory
    const isBusy = deciding.has(tenantId)
    return html`<div class="trouble">
      <p>${count(found, 'account')} of ${number(watched)} would go at once. They are held since ${time(openedAt)}, until you decide.</p>
      ${whatToDo('ask who administers the directory whether that is meant. If so, purge them; if not, have it mended, then drop them')}
      <p class="buttons">
        <button type="button" class="danger" ?disabled=${isBusy} @click=${() => decide(directory, 'release')}>Purge ${count(heldCount, 'account')}</button>
        <button type="button" ?disabled=${isBusy} @click=${() => decide(directory, 'drop')}>Drop</button>
      </p>
      ${problem(problems.get(tenantId))}
    </div>`
  }

  return {
    start: watch.start,
    stop: watch.stop,
    draw: () =>
      watch.answer?.length === 0
        ? nothing
        : card({ title: 'Directories', id: 'directories', intro }, watch, (directories) =>
            directories.map((directory) => html`${keyed(directory.tenantId, describe(directory))}`)
          )
  }
}

/** @param {NonNullable<Directory['notifications']>} notifications */
function describeNotifications({ expiresAt, failure }) {
  if (failure !== null) {
    const detail = failure.detail === null ? nothing : html`: <span class="long">${failure.detail}</span>`
    return html`<p>None comes: Graph does not take "notificationUrl". Changes are asked for all the same.</p>
      <p class="quiet">The code is ${code(failure.code)}${detail}</p>`
  }
  return expiresAt === null ? 'not yet asked for' : html`ordered until ${time(expiresAt)}`
}

/** @param {Directory['rounds'][number]} round */
function describeRound({ kind, at, looked, done, held, failure }) {
  const purged = Object.entries(done).map(([event, accounts]) => `${number(accounts)} ${event}`)
  const what = failure ?? (purged.length > 0 ? `purged ${purged.join(', ')}` : 'purged nobody')
  return html`${time(at)}: ${kind}, looked at ${number(looked)}, <span class="long">${what}</span>${held > 0 ? `, held ${number(held)}` : ''}`
}

/** @param {Directory} directory */
function describeHeld({ held, heldCount, dryRun }) {
  if (heldCount === 0) {
    return nothing
  }
  const more = heldCount - held.length
  return html`<details><summary>${count(heldCount, 'account')} ${dryRun ? 'would be purged' : 'held'}</summary>
    ${list([
      ...held.map(
        ({ objectId, event, detail, seenAt }) =>
          html`${code(objectId)} <span class="long">${event}</span>: <span class="long">${detail}</span>, seen ${time(seenAt)}`
      ),
      ...(more > 0 ? [`and ${number(more)} more`] : [])
    ])}</details>`
}

/** @import { Api } from './api.js' */
/** @import { Issuer, Spool, Stats, Verdict } from './answers.js' */
/** @import { Content } from './elements.js' */
import { createDirectoriesCard } from './directories.js'
import { card, code, count, empty, facts, list, number, sentence, table, time, whatToDo } from './elements.js'
import { html, nothing } from './lit.js'
import { drawSignals } from './plot.js'
import { createStreamsCard } from './streams.js'
import { createWatch } from './watch.js'

const everyMs = 10_000
const maxAppsShown = 20
const maxIssuersShown = 12

/**
 * A card of the overview: one thing that is watched. A new one is a function like those below, and a name in `createOverview`.
 *
 * @typedef {object} Card
 * @property {() => Content} draw nothing, if there is nothing of its kind
 * @property {() => void} start begins to ask for it
 * @property {() => void} stop
 */

/**
 * @param {Api} api
 * @param {() => void} redraw
 */
export function createOverview(api, redraw) {
  /** @type {readonly Card[]} */
  const cards = [
    ...createStatsCards(api, redraw),
    createIssuersCard(api, redraw),
    createDirectoriesCard(api, redraw),
    createStreamsCard(api, redraw),
    createSpoolCard(api, redraw)
  ]
  return {
    title: 'Overview',
    draw: () => html`${cards.map((each) => each.draw())}`,
    show() {
      for (const { start } of cards) {
        start()
      }
    },
    hide() {
      for (const { stop } of cards) {
        stop()
      }
    }
  }
}

/**
 * Whether it works, what came, and what is stored: three cards of one answer.
 *
 * @param {Api} api
 * @param {() => void} redraw
 * @returns {readonly Card[]}
 */
function createStatsCards(api, redraw) {
  let minutes = 60
  const watch = createWatch(redraw, () => api.stats(minutes), everyMs)
  const range = html`<label for="range" class="unseen">Time</label>
    <select id="range" @change=${(/** @type {Event} */ { target }) => {
      minutes = target instanceof HTMLSelectElement ? Number(target.value) : minutes
      void watch.load()
    }}>
      <option value="60">last hour</option>
      <option value="360">last 6 hours</option>
      <option value="1440">last 24 hours</option>
    </select>`
  const idle = { start() {}, stop() {} }
  return [
    {
      start: watch.start,
      stop: watch.stop,
      draw: () => card({ title: 'Does it work?', id: 'verdicts' }, watch, describeVerdicts)
    },
    {
      ...idle,
      draw: () => card({ title: 'Signals, and what became of them', id: 'stats', aside: range }, watch, drawSignals)
    },
    { ...idle, draw: () => card({ title: 'Stored sessions', id: 'sessions' }, watch, describeSessions) }
  ]
}

/** @param {Stats} stats */
function describeVerdicts({ verdicts, since }) {
  const mark = { works: 'good', quiet: 'quiet', fails: 'bad' }
  const word = { works: 'Works', quiet: 'Quiet', fails: 'Fails' }
  const drawVerdicts = (/** @type {readonly Verdict[]} */ some) =>
    html`<ul class="verdicts">${some.map(
      (verdict) => html`<li><b class=${mark[verdict.state]}>${word[verdict.state]}</b>
        <div><p class="long">${sentence(verdict.message)}</p>${sinceWhen(verdict)}${whatToDo(verdict.advice)}${leadOn(verdict)}</div></li>`
    )}</ul>`
  // What fails is never folded away.
  const failing = verdicts.filter(({ state }) => state === 'fails')
  const others = verdicts.filter(({ state }) => state !== 'fails')
  const quiet = others.filter(({ state }) => state === 'quiet').length
  const isFolded = verdicts.length > maxIssuersShown && others.length > 1
  return html`${
    isFolded
      ? html`${failing.length === 0 ? empty('None fails.') : drawVerdicts(failing)}
          <details><summary>${number(others.length - quiet)} work, ${number(quiet)} quiet</summary>${drawVerdicts(others)}</details>`
      : drawVerdicts([...failing, ...others])
  }
    <p class="quiet">As this instance has counted, which started ${time(since)}.</p>`
}

/** @param {Verdict} verdict */
function sinceWhen({ code, since }) {
  return since === null ? nothing : html`<p>${code === 'quiet' ? 'The last came' : 'Since'} ${time(since)}.</p>`
}

/** @param {Verdict} verdict */
function leadOn({ code }) {
  return code === 'rejected' || code === 'foreign_issuer'
    ? html`<p><a href="#/rejected">See what was rejected</a></p>`
    : nothing
}

/** @param {Stats} stats */
function describeSessions({ sessions, hasSessionCounts }) {
  if (!hasSessionCounts) {
    return empty('They could not be counted since this instance started: the database is out of reach.')
  }
  if (sessions.length === 0) {
    return empty('No app has stored a session: nobody has signed in by the shared cache, or all have signed out.')
  }
  return html`${table(
    'Stored sessions by app',
    [
      { title: 'App', isHeader: true, cell: ({ clientId }) => code(clientId) },
      {
        title: 'Issuer',
        cell: ({ issuer, issuerName }) =>
          issuerName === null
            ? html`<span class="long">${issuer}</span> <b class="bad">not configured: no sign-out of it ends anything</b>`
            : html`<span class="long">${issuerName}</span>`
      },
      { title: 'Sessions', isNumber: true, cell: (each) => number(each.sessions) },
      {
        title: 'Without a sid',
        isNumber: true,
        cell: ({ withoutSid }) => (withoutSid > 0 ? html`<b class="bad">${number(withoutSid)}</b>` : number(withoutSid))
      }
    ],
    sessions.slice(0, maxAppsShown)
  )}
  ${sessions.length > maxAppsShown ? html`<p class="quiet">And ${number(sessions.length - maxAppsShown)} more, with fewer sessions.</p>` : nothing}
  ${
    sessions.some(({ issuerName }) => issuerName === null)
      ? whatToDo(
          'if an issuer that is not configured is yours, configure it exactly as it stands here; else purge its app'
        )
      : nothing
  }
  ${
    sessions.some(({ withoutSid }) => withoutSid > 0)
      ? html`<p class="quiet">A sign-out that names a sid alone does not end a session without one.</p>
          ${whatToDo('have the provider put a sid into ID tokens, and each app store it; logins of before stay without')}`
      : nothing
  }`
}

/**
 * @param {Api} api
 * @param {() => void} redraw
 * @returns {Card}
 */
function createIssuersCard(api, redraw) {
  const watch = createWatch(redraw, api.issuers, everyMs)
  return {
    ...watch,
    draw: () =>
      card({ title: 'Issuers', id: 'issuers' }, watch, (issuers) => {
        // Those without good keys come first, and are never folded away.
        const failing = issuers.filter(lacksKeys)
        const others = issuers.filter((issuer) => !lacksKeys(issuer))
        const shown = Math.max(failing.length, maxIssuersShown)
        const all = [...failing, ...others]
        const rest = all.slice(shown)
        return html`${drawIssuers(all.slice(0, shown))}${
          rest.length === 0
            ? nothing
            : html`<details><summary>${count(rest.length, 'more issuer')}: nothing is wrong with their keys</summary>${drawIssuers(rest)}</details>`
        }`
      })
  }
}

/** @param {readonly Issuer[]} issuers */
function drawIssuers(issuers) {
  return table(
    'Issuers',
    [
      {
        title: 'Issuer',
        isHeader: true,
        cell: ({ name, issuer }) => html`<b class="long">${name}</b><br><span class="quiet long">${issuer}</span>`
      },
      { title: 'Apps', cell: ({ clientIds }) => html`<div class="apps">${describeApps(clientIds)}</div>` },
      { title: 'Front channel', isShort: true, cell: ({ frontChannel }) => (frontChannel ? 'on' : 'off') },
      { title: 'Keys', cell: describeKeys }
    ],
    issuers
  )
}

/**
 * The last try brought none. One that nobody has asked lacks nothing.
 *
 * @param {Issuer} issuer
 */
const lacksKeys = ({ keysLoadedAt, lastFailureAt }) =>
  lastFailureAt !== null && (keysLoadedAt === null || lastFailureAt > keysLoadedAt)

/** @param {readonly string[]} clientIds */
function describeApps(clientIds) {
  const ids = list(clientIds.map((clientId) => code(clientId)))
  return clientIds.length === 1
    ? code(clientIds[0])
    : html`<details><summary>${count(clientIds.length, 'app')}</summary>${ids}</details>`
}

/** @param {Issuer} issuer */
function describeKeys(issuer) {
  const { keys, keysLoadedAt, lastFailureAt, lastFailure } = issuer
  const advice = 'run "msal-logout check": it looks at the discovery document and the key set, one by one'
  const tried =
    lastFailureAt === null
      ? nothing
      : html`last tried ${time(lastFailureAt)}: <span class="long">${lastFailure ?? 'no reason given'}</span>`
  if (keysLoadedAt === null) {
    return lastFailureAt === null
      ? html`Not fetched yet: nothing has come of it.`
      : html`<p class="bad">No key could be fetched since this instance started; ${tried}. Its signals are deferred until then.</p>
          ${whatToDo(advice)}`
  }
  const fetched = html`${count(keys, 'key')}, fetched ${time(keysLoadedAt)}.`
  return lacksKeys(issuer)
    ? html`<p>${fetched}</p><p class="bad">They cannot be fetched again; ${tried}. Those at hand serve meanwhile.</p>${whatToDo(advice)}`
    : fetched
}

/**
 * @param {Api} api
 * @param {() => void} redraw
 * @returns {Card}
 */
function createSpoolCard(api, redraw) {
  const watch = createWatch(redraw, api.spool, everyMs)
  const intro = "What is deferred: signals that wait on this instance's disk for the database or for an issuer's keys."
  return { ...watch, draw: () => card({ title: 'Spool', id: 'spool', intro }, watch, describeSpool) }
}

/** @param {Spool} spool */
function describeSpool({ verified, unverified, unsigned, rejected, stuck, oldestAt, isWritable }) {
  const waiting = verified + unverified + unsigned
  const wait = waiting === 1 ? 'waits' : 'wait'
  return html`
    ${
      waiting === 0
        ? empty('Nothing waits: every signal that came is done.')
        : html`<p>${count(waiting, 'signal')} ${wait}${oldestAt === null ? '' : html`, the oldest since ${time(oldestAt)}`}.</p>
            ${whatToDo('bring the database, or the keys of the issuer, within reach: they are done then by themselves')}`
    }
    ${
      isWritable
        ? nothing
        : html`<div class="trouble"><p>The disk cannot be written: a signal that cannot be done at once would be lost.</p>
            ${whatToDo('give SPOOL_DIR to the user of the service, and make room on its disk; "msal-logout check" says what it finds')}</div>`
    }
    ${
      stuck.length === 0
        ? nothing
        : html`<div class="trouble"><p>${count(stuck.length, 'file')} cannot be used: mend or remove them.</p>
            ${list(stuck.map(({ name, reason }) => html`${code(name)} <span class="quiet long">${reason}</span>`))}</div>`
    }
    ${facts([
      ['Verified, for the database', number(verified)],
      ['Unverified, for keys', number(unverified)],
      ['Unsigned', number(unsigned)],
      ['Rejected, set aside', number(rejected)],
      ['Disk', isWritable ? 'can be written' : html`<b class="bad">cannot be written</b>`]
    ])}`
}

/** @import { Content } from './elements.js' */
/** @import { Seen } from './states.js' */
import { createAccounts } from './accounts.js'
import { createApi, Problem } from './api.js'
import { drawSafely, focus, number, onSubmit, problem } from './elements.js'
import { html, nothing, render } from './lit.js'
import { createOverview } from './overview.js'
import { createPurges } from './purges.js'
import { createRecords } from './records.js'
import { createRejections } from './rejections.js'
import { describeReadiness } from './states.js'
import { attempt, createWatch } from './watch.js'

/**
 * What stands between the header and the footer. It is drawn again whenever something of it has changed; what a person typed stays.
 *
 * @typedef {object} View
 * @property {string} title
 * @property {() => Content} draw
 * @property {(rest: string, query: URLSearchParams, isReturn: boolean) => void} show `rest`: what follows its name in the address;
 *   `isReturn`: what was looked at before is looked at again
 * @property {() => void} hide
 */

const page = document.getElementById('page') ?? document.body
const api = createApi(signInAgain)

/** @type {ReadonlyMap<string, View>} */
const views = new Map(
  Object.entries({
    overview: createOverview(api, redraw),
    accounts: createAccounts(api, redraw),
    records: createRecords(api, redraw),
    purges: createPurges(api, redraw),
    rejected: createRejections(api, redraw)
  })
)
/** @type {Readonly<Record<string, string>>} if the link is shorter than the heading */
const linkTitles = { rejected: 'Rejected' }
/** @type {Readonly<Record<Seen['status'], readonly [mark: string, text: string]>>} */
const pills = { ok: ['good', 'Ready'], unavailable: ['bad', 'Not ready'], silent: ['bad', 'No answer'] }

/** @type {string | undefined} */
let shown
let isSignedIn = false
let isSigningIn = false
/** @type {Problem | undefined} */
let signInProblem
let signInWhy = 'For operators. This tab keeps the token until it is closed, or you sign out.'
/** @type {(() => void) | undefined} */
let afterSignIn
/** @type {Seen | undefined} */
let seen
let version = ''
let rejected = 0

function redraw() {
  render(html`${drawSignIn()}${drawSignedIn()}`, page)
}

function drawSignIn() {
  return html`<main id="sign-in" ?hidden=${isSignedIn}>
    <form id="sign-in-form" class="card" @submit=${onSubmit(signIn)}>
      <h1 tabindex="-1"><img src="page/icon.svg" alt="" width="28" height="28"> msal-logout</h1>
      <p class="quiet">${signInWhy}</p>
      <!-- What a password manager stores the token under. -->
      <input class="unseen" name="username" value="operator" autocomplete="username" readonly tabindex="-1" aria-label="User name">
      <div class="field">
        <label for="token">Bearer token</label>
        <input id="token" name="password" type="password" required autocomplete="current-password" spellcheck="false" aria-describedby="sign-in-problem">
      </div>
      <div id="sign-in-problem">${problem(signInProblem, { isAlone: true })}</div>
      <button type="submit" class="primary" aria-busy=${isSigningIn}>Sign in</button>
    </form>
  </main>`
}

function drawSignedIn() {
  const trouble = seen === undefined ? nothing : describeReadiness(seen)
  return html`<div id="signed-in" ?hidden=${!isSignedIn}>
    <a class="skip" href="#content">Skip to the content</a>
    <header>
      <div class="bar">
        <span class="brand"><img src="page/icon.svg" alt="" width="20" height="20"> msal-logout</span>
        ${drawReadiness()}
        <button type="button" id="sign-out" class="plain" @click=${signOut}>Sign out</button>
      </div>
      <nav aria-label="Views">${[...views].map(
        ([name, { title }]) =>
          html`<a href="#/${name}" aria-current=${name === shown ? 'page' : nothing}>${linkTitles[name] ?? title}${
            name === 'rejected' ? drawBadge() : nothing
          }</a>`
      )}</nav>
    </header>
    <main id="content" tabindex="-1">
      <div id="trouble">${trouble === nothing ? nothing : html`<div class="trouble">${trouble}</div>`}</div>
      ${[...views].map(
        ([name, view]) =>
          html`<section id=${name} aria-labelledby="${name}-title" ?hidden=${name !== shown}>
          <h1 id="${name}-title" tabindex="-1">${view.title}</h1>
          ${drawSafely(view.draw)}
        </section>`
      )}</main>
    <footer class="quiet">msal-logout ${version}</footer>
  </div>`
}

function drawReadiness() {
  const [mark, text] = seen === undefined ? ['', ''] : pills[seen.status]
  return html`<span id="readiness" class="pill ${mark}" role="status">${text}</span>`
}

function drawBadge() {
  return rejected === 0
    ? nothing
    : html`<span class="badge"><span aria-hidden="true">${rejected > 99 ? '99+' : number(rejected)}</span><span class="unseen">${number(rejected)} in the last hour</span></span>`
}

/** @param {HTMLFormElement} form */
async function signIn(form) {
  if (isSigningIn) {
    return
  }
  const token = String(new FormData(form).get('password')).trim()
  isSigningIn = true
  signInProblem = undefined
  redraw()
  signInProblem = await attempt(() => api.signIn(token))
  isSigningIn = false
  redraw()
  if (signInProblem !== undefined) {
    const input = document.getElementById('token')
    if (input instanceof HTMLInputElement) {
      input.select()
    }
    return
  }
  form.reset()
  enter()
}

function enter() {
  isSignedIn = true
  badge.start()
  const resume = afterSignIn ?? showView
  afterSignIn = undefined
  resume()
}

/** A new document: nothing of what was seen stays in this one. */
function signOut() {
  api.signOut()
  location.replace(location.pathname)
}

/** @param {Problem} problem */
function signInAgain(problem) {
  const focused = document.activeElement
  views.get(shown ?? '')?.hide()
  askForToken(problem, 'What you looked at is still there, and comes back when you have signed in again.')
  return new Promise((/** @type {(value: void) => void} */ resolve) => {
    afterSignIn = () => {
      showView({ isReturn: true })
      if (focused instanceof HTMLElement && focused.isConnected) {
        focused.focus()
      }
      resolve()
    }
  })
}

/**
 * @param {Problem | undefined} problem
 * @param {string} [why]
 */
function askForToken(problem, why = signInWhy) {
  isSignedIn = false
  signInProblem = problem
  signInWhy = why
  document.title = 'Sign in – msal-logout'
  redraw()
  focus('token')
}

/** @param {{ isReturn?: boolean }} [how] */
function showView({ isReturn = false } = {}) {
  const [path = '', search] = location.hash.replace(/^#\//, '').split('?')
  const [given = '', ...rest] = path.split('/')
  const name = views.has(given) ? given : 'overview'
  const isMove = shown !== undefined && !isReturn
  if (shown !== undefined && shown !== name) {
    views.get(shown)?.hide()
  }
  shown = name
  const view = views.get(name)
  document.title = `${view?.title} – msal-logout`
  view?.show(decode(rest.join('/')), new URLSearchParams(search), isReturn)
  redraw()
  if (isMove) {
    scrollTo(0, 0)
  }
  if (!isReturn) {
    document.getElementById(`${name}-title`)?.focus({ preventScroll: true })
  }
}

/** @param {string} text */
function decode(text) {
  try {
    return decodeURIComponent(text)
  } catch {
    return '' // typed by hand
  }
}

addEventListener('hashchange', () => {
  if (location.hash === '#content') {
    history.replaceState(null, '', `#/${shown ?? ''}`)
    focus('content')
  } else if (isSignedIn) {
    showView()
  }
})

const badge = createWatch(
  () => {
    // Each view shows a problem of its own.
    rejected = badge.problem === undefined ? (badge.answer?.rejected ?? 0) : 0
    redraw()
  },
  // Nobody is to be asked for a token by a badge.
  async () => (isSignedIn ? await api.stats(60) : undefined),
  30_000
)

const readiness = createWatch(
  redraw,
  async () => {
    try {
      const answer = await api.readiness()
      seen = answer
      version = answer.version
    } catch (error) {
      const isStrange = error instanceof Problem && error.code === 'strange_answer'
      const since = seen?.status === 'silent' ? seen.since : new Date().toISOString()
      seen = { status: 'silent', since, isStrange }
    }
  },
  10_000
)

readiness.start()
setInterval(redraw, 10_000) // the ages grow
if (api.hasToken()) {
  enter()
} else {
  askForToken(undefined)
}

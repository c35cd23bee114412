import { createAccounts } from './accounts.js'
import { createApi, Problem } from './api.js'
import { find } from './elements.js'
import { createOverview } from './overview.js'
import { createPolling } from './polling.js'
import { createPurges } from './purges.js'
import { createRecords } from './records.js'
import { createRejections } from './rejections.js'
import { keepAgesCurrent, number } from './units.js'

const signInPart = find('sign-in', HTMLElement)
const signInForm = find('sign-in-form', HTMLFormElement)
const signInWhy = find('sign-in-why', HTMLElement)
const signInProblem = find('sign-in-problem', HTMLElement)
const tokenInput = find('token', HTMLInputElement)
const signedInPart = find('signed-in', HTMLElement)
const readiness = find('readiness', HTMLElement)

const api = createApi(signInAgain)

/** @type {Record<string, { show(rest: string, query: URLSearchParams, isReturn: boolean): void, hide(): void }>} */
const views = {
  overview: createOverview(api),
  accounts: createAccounts(api),
  records: createRecords(api),
  purges: createPurges(api),
  rejected: createRejections(api)
}

/** @type {string | undefined} */
let shown
/** @type {(() => void) | undefined} */
let afterSignIn

/** @param {Problem} problem */
function signInAgain(problem) {
  const focused = document.activeElement
  if (shown !== undefined) {
    views[shown]?.hide()
  }
  askForToken(problem.message, 'What you looked at is still there, and comes back when you have signed in again.')
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
 * @param {string} problem
 * @param {string} [why]
 */
function askForToken(problem, why) {
  signedInPart.hidden = true
  signInPart.hidden = false
  document.title = 'Sign in – msal-logout'
  signInProblem.textContent = problem
  if (why !== undefined) {
    signInWhy.textContent = why
  }
  tokenInput.focus()
}

signInForm.addEventListener('submit', async (event) => {
  event.preventDefault()
  const button = signInForm.querySelector('button')
  signInProblem.textContent = ''
  button?.setAttribute('aria-busy', 'true')
  try {
    await api.signIn(tokenInput.value.trim())
  } catch (error) {
    if (!(error instanceof Problem)) {
      throw error
    }
    signInProblem.textContent = error.message
    tokenInput.select()
    return
  } finally {
    button?.removeAttribute('aria-busy')
  }
  tokenInput.value = ''
  signInPart.hidden = true
  signedInPart.hidden = false
  badgePolling.start()
  const resume = afterSignIn ?? showView
  afterSignIn = undefined
  resume()
})

// A new document: nothing of what was seen stays in this one.
find('sign-out', HTMLButtonElement).addEventListener('click', () => location.replace(location.pathname))

/** @param {{ isReturn?: boolean }} [how] */
function showView({ isReturn = false } = {}) {
  const [path = '', search] = location.hash.replace(/^#\//, '').split('?')
  const [given = '', ...rest] = path.split('/')
  const name = Object.hasOwn(views, given) ? given : 'overview'
  if (shown !== undefined && shown !== name) {
    views[shown]?.hide()
  }
  const isMove = shown !== undefined && !isReturn
  shown = name
  for (const view of Object.keys(views)) {
    find(view, HTMLElement).hidden = view !== name
  }
  for (const link of document.querySelectorAll('nav a')) {
    if (link.getAttribute('href') === `#/${name}`) {
      link.setAttribute('aria-current', 'page')
    } else {
      link.removeAttribute('aria-current')
    }
  }
  const heading = find(`${name}-title`, HTMLElement)
  document.title = `${heading.textContent} – msal-logout`
  views[name]?.show(decode(rest.join('/')), new URLSearchParams(search), isReturn)
  if (isMove) {
    scrollTo(0, 0)
  }
  if (!isReturn) {
    heading.focus({ preventScroll: true })
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
    find('content', HTMLElement).focus()
  } else if (!signedInPart.hidden) {
    showView()
  }
})

async function lookAtReadiness() {
  try {
    const { status, reason, version } = await api.readiness()
    find('version', HTMLElement).textContent = version
    showReadiness(status === 'ok', status === 'ok' ? 'Ready' : `Not ready: ${reason}`)
  } catch {
    showReadiness(false, 'Out of reach') // each view shows a problem of its own
  }
}

/**
 * @param {boolean} isReady
 * @param {string} text
 */
function showReadiness(isReady, text) {
  readiness.classList.toggle('good', isReady)
  readiness.classList.toggle('bad', !isReady)
  if (readiness.textContent !== text) {
    readiness.textContent = text
  }
}

const badge = find('rejected-badge', HTMLElement)
const rejectedCount = find('rejected-count', HTMLElement)
const badgePolling = createPolling(30_000, async () => {
  if (signedInPart.hidden) {
    return // nobody is to be asked for a token by a badge
  }
  try {
    const { rejected } = await api.stats(60)
    badge.hidden = rejected === 0
    badge.textContent = rejected > 99 ? '99+' : number(rejected)
    rejectedCount.textContent = rejected === 0 ? '' : `${number(rejected)} in the last hour`
  } catch (error) {
    if (!(error instanceof Problem)) {
      throw error
    }
    badge.hidden = true // each view shows a problem of its own
  }
})

createPolling(10_000, lookAtReadiness).start()
keepAgesCurrent()
askForToken('')

import { Problem } from './api.js'

/**
 * An answer of the service as a view shows it: the last good one, as of when, and what went wrong since.
 *
 * @template Answer
 * @typedef {object} Watch
 * @property {Answer | undefined} answer
 * @property {string | undefined} asOf an ISO time
 * @property {Problem | undefined} problem
 * @property {() => Promise<boolean>} load asks now, and says whether there is a good answer; an older question no longer counts
 * @property {() => void} start asks now, and again and again, while the page can be seen
 * @property {() => void} stop
 * @property {() => void} forget what it has, and what is under way, answers another question
 */

/**
 * @template Answer
 * @param {() => void} redraw
 * @param {() => Promise<Answer>} ask
 * @param {number} everyMs
 * @returns {Watch<Answer>}
 */
export function createWatch(redraw, ask, everyMs) {
  let isStarted = false
  let isBusy = false
  let looks = 0
  let latest = 0
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  let timer

  /** @type {Watch<Answer>} */
  const watch = {
    answer: undefined,
    asOf: undefined,
    problem: undefined,
    async load() {
      latest += 1
      const mine = latest
      const problem = await attempt(async () => {
        const answer = await ask()
        if (mine === latest) {
          watch.answer = answer
          watch.asOf = new Date().toISOString()
        }
      })
      if (mine === latest) {
        watch.problem = problem
        redraw()
      }
      return mine === latest && problem === undefined
    },
    start() {
      isStarted = true
      void look()
    },
    stop() {
      isStarted = false
      clearTimeout(timer)
    },
    forget() {
      latest += 1
      watch.answer = undefined
      watch.asOf = undefined
      watch.problem = undefined
    }
  }

  /** One that begins while another is under way takes its place: what it asks may be another question. */
  async function look() {
    clearTimeout(timer)
    if (!isStarted || document.visibilityState !== 'visible') {
      return
    }
    looks += 1
    const mine = looks
    isBusy = true
    try {
      await watch.load()
    } finally {
      if (mine === looks) {
        isBusy = false
        clearTimeout(timer)
        timer = setTimeout(look, everyMs)
      }
    }
  }

  document.addEventListener('visibilitychange', () => {
    if (!isBusy) {
      void look()
    }
  })
  return watch
}

/**
 * Does the work.
 *
 * @param {() => Promise<unknown>} work
 * @returns {Promise<Problem | undefined>} what went wrong, for people
 */
export async function attempt(work) {
  try {
    await work()
  } catch (error) {
    if (!(error instanceof Problem)) {
      throw error
    }
    return error
  }
  return undefined
}

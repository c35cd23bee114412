import { Problem } from './api.js'

/**
 * An answer of the service as a view shows it: the last good one, as of when, and what went wrong since.
 *
 * @template Answer
 * @typedef {object} Watch
 * @property {Answer | undefined} answer
 * @property {string | undefined} asOf an ISO time
 * @property {string | undefined} problem
 * @property {() => Promise<boolean>} load asks now, and says whether there is a good answer; an older question no longer counts
 * @property {() => void} start asks again and again, while the page can be seen
 * @property {() => void} stop
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
    }
  }

  async function look() {
    clearTimeout(timer)
    if (isBusy || !isStarted || document.visibilityState !== 'visible') {
      return
    }
    isBusy = true
    try {
      await watch.load()
    } finally {
      isBusy = false
      clearTimeout(timer)
      timer = setTimeout(look, everyMs)
    }
  }

  document.addEventListener('visibilitychange', look)
  return watch
}

/**
 * Does the work.
 *
 * @param {() => Promise<unknown>} work
 * @returns {Promise<string | undefined>} what went wrong, for people
 */
export async function attempt(work) {
  try {
    await work()
  } catch (error) {
    if (!(error instanceof Problem)) {
      throw error
    }
    return error.message
  }
  return undefined
}

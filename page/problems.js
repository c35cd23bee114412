import { Problem } from './api.js'

/**
 * Does the work, and shows in `element` what went wrong. What an earlier try has left there goes if this one is done.
 *
 * @param {HTMLElement} element
 * @param {() => Promise<void>} work
 * @returns {Promise<boolean>} whether it was done
 */
export async function attempt(element, work) {
  try {
    await work()
  } catch (error) {
    if (!(error instanceof Problem)) {
      throw error
    }
    if (element.textContent !== error.message) {
      element.textContent = error.message
    }
    return false
  }
  if (element.textContent !== '') {
    element.textContent = ''
  }
  return true
}

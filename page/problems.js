import { Problem } from './api.js'

/**
 * Does something, and tells in `element` what was refused; what is told of an earlier try goes when this one is done.
 *
 * @param {HTMLElement} element
 * @param {() => Promise<void>} work
 * @returns {Promise<boolean>} whether it was done
 */
export async function told(element, work) {
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

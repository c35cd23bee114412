/**
 * Does the work again and again while it is started and the page can be seen, one after the other.
 *
 * @param {number} everyMs
 * @param {() => Promise<void>} work
 */
export function createPolling(everyMs, work) {
  let isStarted = false
  let isBusy = false
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  let timer

  async function look() {
    clearTimeout(timer)
    if (isBusy || !isStarted || document.visibilityState !== 'visible') {
      return
    }
    isBusy = true
    try {
      await work()
    } finally {
      isBusy = false
      clearTimeout(timer)
      timer = setTimeout(look, everyMs)
    }
  }

  document.addEventListener('visibilitychange', look)
  return {
    start() {
      isStarted = true
      void look()
    },
    stop() {
      isStarted = false
      clearTimeout(timer)
    }
  }
}

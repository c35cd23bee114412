/**
 * A verdict that was waited for: it stands if the configuration that it was made by is still in force. Else neither side of it does, also
 * not that it failed, and it is made again.
 *
 * @param verdict of now
 * @param isInForce whether the configuration of `verdict` still is
 * @param again makes the verdict by the configuration that is in force then
 */
export async function standing<T>(verdict: Promise<T>, isInForce: () => boolean, again: () => Promise<T>): Promise<T> {
  try {
    const made = await verdict
    if (isInForce()) {
      return made
    }
  } catch (error) {
    if (isInForce()) {
      throw error
    }
  }
  return again()
}

/**
 * A claim that somebody else wrote, as {@link printable}; what looks like a token in it is left out, since somebody may have
 * put one there.
 */
export function printableClaim(value: unknown): string {
  return printable(printable(value, 1_000).replace(/eyJ[\w-]{8,}[\w.-]*/g, '[a token]'))
}

/**
 * A value that somebody else wrote, fit for a log line, a terminal and a page: bounded, with control characters, direction
 * marks and half characters escaped. Of an object nothing is shown.
 *
 * @param maxLength in UTF-16 units; default 200
 */
export function printable(value: unknown, maxLength = 200): string {
  const members: readonly unknown[] = Array.isArray(value) ? value.slice(0, maxLength) : [value]
  return members
    .map((member) => (typeof member === 'object' && member !== null ? 'an object' : String(member)))
    .join(', ')
    .slice(0, maxLength)
    .replace(/[\p{C}\p{Zl}\p{Zp}]/gu, (character) => `\\u{${character.codePointAt(0)?.toString(16)}}`)
    .slice(0, maxLength)
}

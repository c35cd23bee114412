/** A word of a command, with the quotes by which a POSIX shell takes it as it is. */
export function quoteWord(word: string): string {
  return /^[\w./:@-]+$/.test(word) ? word : `'${word.replaceAll("'", `'\\''`)}'`
}

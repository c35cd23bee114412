/** A word of a command as a POSIX shell takes it for that word, whatever is in it. */
export function quoteWord(word: string): string {
  return /^[\w./:@-]+$/.test(word) ? word : `'${word.replaceAll("'", `'\\''`)}'`
}

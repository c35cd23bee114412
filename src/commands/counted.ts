const numbers = new Intl.NumberFormat('en')

/** A count of things, in words: `1 row`, `2,000 rows`. */
export function counted(count: number, noun: string): string {
  return `${numbers.format(count)} ${noun}${count === 1 ? '' : 's'}`
}

/** How often: `once`, `2 times`. */
export function howOften(count: number): string {
  return count === 1 ? 'once' : counted(count, 'time')
}

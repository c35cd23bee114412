import { isLoopback } from './issuer-document.ts'

/**
 * Looks at a URL of the configuration: https, or http on loopback, without credentials and without a fragment.
 *
 * @param name what is at fault, for the problem
 * @param problems what is wrong is added here
 */
export function checkUrl(name: string, value: string, problems: string[]): void {
  const url = parseUrl(value)
  if (hasInvisible(value)) {
    problems.push(`${name}: has white space or an invisible character in it`)
  } else if (url === undefined) {
    problems.push(`${name}: is not a URL, as https://login.example.com is one`)
  } else if (url.protocol !== 'https:' && !(url.protocol === 'http:' && isLoopback(url.hostname))) {
    problems.push(`${name}: must be https, or http on loopback`)
  } else if (url.username !== '' || url.password !== '' || url.hash !== '') {
    problems.push(`${name}: must have neither credentials nor a fragment`)
  }
}

/** White space, or what a person does not see: often copied from a page or a chat. */
export function hasInvisible(text: string): boolean {
  return /[\s\p{Cc}\p{Cf}\p{Cs}]/u.test(text)
}

function parseUrl(value: string): URL | undefined {
  try {
    return new URL(value)
  } catch {
    return undefined
  }
}

const destinations = new Set(['document', 'iframe', 'frame', 'embed', 'object', 'fencedframe'])

/**
 * Whether a browser opens a page by this request, as far as it says so. Only then a sign-in begins, or a session ends: a
 * link that is fetched ahead, or an image of another site, must sign nobody out; and a provider's pages cannot be fetched.
 *
 * @param header a header of the request by its name, in lower case
 */
export function isNavigation(header: (name: string) => unknown): boolean {
  const isPrefetch = `${header('sec-purpose') ?? ''}${header('purpose') ?? ''}`.includes('prefetch')
  const isRouter = Boolean(header('rsc')) // of Next.js, for `<Link>`: it opens the page, where this is no page for it
  // Of Fetch Metadata, which a browser sends. Not `sec-fetch-mode`: `fetch` of Node.js, and so a proxy, sets its own.
  const destination = header('sec-fetch-dest')
  return !isPrefetch && !isRouter && (!destination || destinations.has(String(destination)))
}

/** The answer to all else: 403. */
export const notNavigation =
  'signing in and out is for a browser that opens the page: link to it by <a href>, or set window.location; fetch cannot follow it to the provider\n'

/** The proxies that the environment names. */
export interface Proxies {
  /** For `https:`; may hold credentials. */
  readonly https: string | undefined
  /** For `https:` if the other is not set. */
  readonly http: string | undefined
  /** Hosts that are reached directly, comma separated; a name stands for its subdomains too, `*` for all. */
  readonly none: string
}

/**
 * Reads `HTTPS_PROXY`, `HTTP_PROXY` and `NO_PROXY`, in lower case or upper case as other programs do; lower case wins.
 *
 * @param env the variables, as in `process.env`; an empty one counts as absent
 * @param problems gets what is wrong, naming the variable and never its value, which may hold a password
 */
export function readProxies(env: Readonly<Record<string, string | undefined>>, problems: string[]): Proxies {
  const get = (name: string) => env[name.toLowerCase()]?.trim() || env[name]?.trim() || undefined
  const proxy = (name: string) => {
    const value = get(name)
    if (value === undefined) {
      return undefined
    }
    const url = value.includes('://') ? value : `http://${value}` // as curl has it
    if (!/^https?:\/\//i.test(url) || !URL.canParse(url)) {
      problems.push(`${name}: must be the URL of an HTTP proxy`)
      return undefined
    }
    return url
  }
  return { https: proxy('HTTPS_PROXY'), http: proxy('HTTP_PROXY'), none: get('NO_PROXY') ?? '' }
}

/**
 * The proxy that a URL is fetched by, without credentials; undefined if it is fetched directly. `http:`, which the
 * configuration allows on loopback alone, never goes through one: it would leave this machine in the clear.
 */
export function proxyFor(target: string, { https, http, none }: Proxies): string | undefined {
  const proxy = https ?? http
  const url = new URL(target)
  return proxy === undefined || url.protocol === 'http:' || isExcepted(url, none) ? undefined : new URL(proxy).origin
}

/** As undici decides it, which does not say so. */
function isExcepted({ hostname, port }: URL, none: string): boolean {
  return (
    none === '*' ||
    none.split(/[,\s]/).some((entry) => {
      const [, host = '', onlyPort] = /^(.+?)(?::(\d+))?$/.exec(entry.toLowerCase()) ?? []
      const name = host.replace(/^\*?\./, '')
      const isPort = onlyPort === undefined || onlyPort === (port || '443')
      return isPort && name !== '' && (hostname === name || hostname.endsWith(`.${name}`))
    })
  )
}

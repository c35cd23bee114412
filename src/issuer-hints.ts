/** What is configured, beside an issuer that is not, and the likeliest mistake. */
export interface IssuerHint {
  /** The configured issuers, those that come closest first; cut. */
  readonly accepted: string
  /** In what the closest one differs; undefined if none comes close. */
  readonly hint: string | undefined
}

const maxShown = 5
const maxLength = 1_024
const guid = /[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}/i

interface Parts {
  readonly whole: string
  readonly scheme: string
  readonly host: string
  readonly path: string
  readonly tenant: string | undefined
}

/**
 * Finds the mistake in an issuer that is nearly one of the configured ones: a slash, http for https, another host or
 * tenant. It costs a few look-ups, however many are configured, since anybody can name any issuer.
 *
 * @param configured exact issuers and templates
 */
export function createIssuerHints(configured: readonly string[]): (iss: string) => IssuerHint {
  const all = configured.map(partsOf)
  // From the closest likeness to the farthest.
  const likenesses: readonly ((parts: Parts) => string)[] = [
    ({ host, path }) => `${host}${path}`,
    ({ host, path }) => `${host}${withoutTenant(path)}`,
    ({ path, tenant }) => (path === '' && tenant === undefined ? '' : path),
    ({ tenant = '' }) => tenant
  ]
  const indexes = likenesses.map((likeness) => new Map(all.toReversed().map((parts) => [likeness(parts), parts])))

  return (iss) => {
    const given = partsOf(iss.slice(0, maxLength))
    const closest = likenesses
      .map((likeness, i) => (likeness(given) === '' ? undefined : indexes[i]?.get(likeness(given))))
      .find((parts) => parts !== undefined)
    const others = configured.filter((issuer) => issuer !== closest?.whole)
    const shown = [...(closest === undefined ? [] : [closest.whole]), ...others].slice(0, maxShown)
    const more = configured.length > shown.length ? `, and ${configured.length - shown.length} more` : ''
    return {
      accepted: `${shown.join(', ')}${more}`,
      hint: closest && `differs from "${closest.whole}" ${differences(given, closest)}`
    }
  }
}

function partsOf(issuer: string): Parts {
  const [, scheme = '', host = '', path = ''] = /^([a-z][a-z0-9+.-]*:\/\/)?([^/?#]*)(.*)$/is.exec(issuer) ?? []
  return {
    whole: issuer,
    scheme: scheme.toLowerCase(),
    host: host.toLowerCase(),
    path: path.toLowerCase().replace(/\/+$/, ''),
    tenant: guid.exec(path)?.[0].toLowerCase()
  }
}

/** A template has `{tenantid}` in its place. */
function withoutTenant(path: string): string {
  return path.replace(guid, '{tenantid}')
}

function differences(given: Parts, configured: Parts): string {
  const slashes = ({ whole }: Parts) => /\/*$/.exec(whole)?.[0].length ?? 0
  const found = [
    given.scheme !== configured.scheme && `by "${given.scheme}" for "${configured.scheme}"`,
    given.host !== configured.host && 'by its host',
    given.path !== configured.path &&
      (withoutTenant(given.path) === withoutTenant(configured.path) ? 'by its tenant' : 'by its path'),
    slashes(given) > slashes(configured) && 'by a slash at the end that is not configured',
    slashes(given) < slashes(configured) && 'by the slash that is missing at the end'
  ].filter((difference) => difference !== false)
  return found.length === 0 ? 'by the case of its letters' : found.join(' and ')
}

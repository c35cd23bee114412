import type { IssuerConfig } from './issuers.ts'

/** A person in a directory. */
export interface DirectoryObject {
  readonly tenantId: string
  readonly objectId: string
}

/**
 * Asks the directories for people by an e-mail address or a user name; undefined if none is configured.
 *
 * @throws {DirectoryError} if they do not answer
 */
export type FindPeople = (name: string) => Promise<readonly DirectoryObject[] | undefined>

/** How a person finds somebody's id by hand, at the provider of an issuer. */
export interface Clicks {
  /** The name of the issuer's configuration. */
  readonly issuer: string
  readonly provider: string
  /** Where to click. */
  readonly path: string
  /** What a purge takes then. */
  readonly purgeBy: string
}

interface Provider {
  readonly name: string
  readonly pattern: RegExp
  path(issuer: URL): string
  readonly purgeBy: string
}

const bySubject = 'purge by the issuer and this id as the subject'

const providers: readonly Provider[] = [
  {
    name: 'Microsoft Entra ID',
    pattern: /^https:\/\/(login\.microsoftonline\.(com|us)|login\.partner\.microsoftonline\.cn|sts\.windows\.net)\//,
    path: () =>
      'Microsoft Entra admin center: Entra ID, Users, search for the address, "Object ID" on the page of the user; the tenant id stands in the overview',
    purgeBy: 'purge by tenant id and object id'
  },
  {
    name: 'Microsoft Entra External ID',
    pattern: /^https:\/\/[^/]+\.(ciamlogin|b2clogin)\.com\//,
    path: () =>
      'Microsoft Entra admin center, in the external tenant: Entra ID, Users, search for the address, "Object ID" on the page of the user',
    purgeBy: 'purge by tenant id and object id'
  },
  {
    name: 'Keycloak',
    pattern: /\/realms\/[^/]+$/,
    path: ({ pathname }) =>
      `admin console, realm ${decode(pathname.split('/').at(-1))}: Users, search for the address, "ID" under Details`,
    purgeBy: bySubject
  },
  {
    name: 'Auth0',
    pattern: /\.auth0\.com\/$/,
    path: () => 'dashboard: User Management, Users, search for the address, "user_id", which begins like auth0|',
    purgeBy: bySubject
  },
  {
    name: 'Okta',
    pattern: /^https:\/\/[^/]+\.(okta|oktapreview|okta-emea)\.com(\/|$)/,
    path: () =>
      'admin console: Directory, People, the person; the id that begins with 00u stands in the address of the page',
    purgeBy: bySubject
  },
  {
    name: 'Authentik',
    pattern: /\/application\/o\/[^/]+\/$/,
    path: () =>
      'admin interface: Directory, Users, the person; with the subject mode "Based on the User\'s UUID" that is the subject, with the default it is a digest: find a session of the user in the records',
    purgeBy: bySubject
  }
]

/** The clicks at the provider of an issuer, from an e-mail address or a user name to what a purge takes. */
export function clicksAt({ name, issuer }: Pick<IssuerConfig, 'name' | 'issuer'>): Clicks {
  const known = providers.find(({ pattern }) => pattern.test(issuer))
  return {
    issuer: name,
    provider: known?.name ?? 'another provider',
    path:
      known?.path(new URL(issuer.replace('{tenantid}', 'tenant'))) ??
      'the page of the user at the provider: look for the id that stands as "sub" in ID tokens',
    purgeBy: known?.purgeBy ?? bySubject
  }
}

function decode(text = ''): string {
  try {
    return decodeURIComponent(text)
  } catch {
    return text
  }
}

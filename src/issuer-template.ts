const tenantPlace = '{tenantid}'
const guid = '[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}'

/**
 * The issuers that a template stands for, those of the tenants of a multi-tenant app (Entra ID); undefined if it is no
 * template.
 *
 * @param issuer an issuer with one `{tenantid}` in it
 * @returns a pattern whose first group is the tenant: a GUID in lower case
 */
export function templatePattern(issuer: string): RegExp | undefined {
  const [before, after, ...more] = issuer.split(tenantPlace)
  if (before === undefined || after === undefined || more.length > 0) {
    return undefined
  }
  const literal = (text: string) => text.replace(/[.*+?^${}()|[\]\\]/g, '\\$&')
  return new RegExp(`^${literal(before)}(${guid})${literal(after)}$`)
}

/** The issuer of one tenant, or of the tenants together: `organizations`. */
export function issuerOfTenant(template: string, tenant: string): string {
  return template.replace(tenantPlace, () => tenant)
}

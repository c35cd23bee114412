/** The schema of the product, where none is given. */
export const defaultSchema = 'msal_logout'

/**
 * The name of a schema, checked: it becomes a part of statements.
 *
 * @throws {TypeError} if it is no plain identifier
 */
export function schemaName(name: string): string {
  if (!/^[a-z_][a-z0-9_]{0,62}$/.test(name)) {
    throw new TypeError(`the schema "${name}" must be a lower-case identifier of 63 characters or fewer`)
  }
  return name
}

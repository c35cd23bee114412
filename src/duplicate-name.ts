/**
 * Whether an object in this valid JSON bears a name twice: then fewer members were read than are written. RFC 7515 §4 and
 * RFC 7519 §4 let a receiver reject that; `JSON.parse` takes the last one, and a reader that takes the first would read
 * another token.
 */
export function hasDuplicateName(json: string, value: object): boolean {
  const written = json.replace(/"(?:[^"\\]|\\.)*"/gs, '').split(':').length - 1
  let read = 0
  const open: object[] = [value]
  for (let next = open.pop(); next !== undefined; next = open.pop()) {
    const members: unknown[] = Object.values(next)
    read += Array.isArray(next) ? 0 : members.length
    for (const member of members) {
      if (typeof member === 'object' && member !== null) {
        open.push(member)
      }
    }
  }
  return read !== written
}

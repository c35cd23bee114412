import { type Static, Type } from 'typebox'
import { Value } from 'typebox/value'
import { directoryEvents } from '../directory-config.ts'
import { type Order, orderId, type Selector } from '../sign-out.ts'
import { rememberSeconds, type Signal } from './signal.ts'

/** The `source` of what a directory shows. */
export const directorySource = 'directory'

const FindingSchema = Type.Object({
  /** The issuer's name in the configuration. */
  issuerName: Type.String(),
  tenantId: Type.String(),
  objectId: Type.String(),
  event: Type.Enum([...directoryEvents]),
  /** Ends what was issued up to then, seconds since 1970. */
  revokeBefore: Type.Integer(),
  /** What the directory said, for the record. */
  detail: Type.String(),
  /** Milliseconds since 1970. */
  seenAt: Type.Number(),
  /** Which account: the object's own, `<object>.<tenant>`, or that of a user of another tenant who is this object as a guest. */
  whose: Type.Enum(['home', 'guest'])
})

/** What a watcher has seen of a directory object. */
export type DirectoryFinding = Static<typeof FindingSchema>

const words: Readonly<Record<DirectoryFinding['event'], string>> = {
  disabled: 'disabled',
  deleted: 'deleted',
  revoked: 'sessions revoked',
  passwordChanged: 'password changed'
}

/** What directories show: the input is a {@link DirectoryFinding}, which a watcher of ours has read itself. */
export const directorySignal: Signal = {
  source: directorySource,
  isSigned: true,
  async read(input) {
    if (!Value.Check(FindingSchema, input)) {
      throw new Error('a finding of a directory lacks a member')
    }
    return [orderOf(input)]
  }
}

/**
 * An account whose home is the tenant bears the object's id: that finds each of its rows, also where their ID tokens named nothing. A
 * guest's account bears ids of another tenant, and is found by what its ID tokens named.
 */
function orderOf(finding: DirectoryFinding): Order {
  const { issuerName, tenantId, objectId, event, revokeBefore, detail, seenAt, whose } = finding
  const selector: Selector =
    whose === 'home'
      ? { kind: 'account', homeAccountId: `${objectId}.${tenantId}`, issuer: '' }
      : { kind: 'object', tenantId, objectId }
  const isOver = event === 'disabled' || event === 'deleted'
  return {
    id: orderId(directorySource, tenantId, objectId, whose, event, String(revokeBefore)),
    source: directorySource,
    issuerName,
    selector,
    revokeBefore,
    // A guest's row may serve its sessions in other tenants, too. It goes with a guest who is no more; by a time nothing goes
    // that was issued later.
    purgeScope: isOver && whose === 'guest' ? 'account' : 'session',
    sparesNewer: true,
    isSigned: true,
    isOnce: true,
    recordUnmatched: false,
    rememberSeconds,
    reason: `${words[event]} in Entra ID: ${detail}; seen ${new Date(seenAt).toISOString()}`
  }
}

import type { Order } from '../sign-out.ts'

/** A genuine signal that asks for nothing here: an event that ends no session, a user whom nobody can name. */
export interface Ignored {
  /** Why, in one word for metrics and logs: lower-case letters and underscores. */
  readonly ignored: string
  /** The name of the configured issuer. */
  readonly issuerName: string
}

/**
 * How far a signal reaches beyond its time, in seconds. The nodes of an issuer have clocks of their own, and cut them to whole seconds:
 * an ID token that was issued before the sign-out may bear a later `iat`. Whole seconds cost one; clocks that are set by NTP differ
 * by far less than another. Longer would end a session that began after the sign-out: nobody signs in again within two seconds, and
 * if somebody does, it costs one sign-in more. A session that is spared keeps its tokens.
 */
export const nodeToleranceSeconds = 2

/** How long a sign-out holds against a login that is under way, in seconds: longer than any ID token that it could bear. */
export const rememberSeconds = 86_400

/**
 * A kind of signal: the port through which every one of them comes in. What it is called is data: it becomes the `source` of
 * records, metrics and logs, and nothing else need know it.
 */
export interface Signal {
  /** Lower-case letters and hyphens. */
  readonly source: string
  /** Whether somebody vouches for it. What is unsigned goes behind what is signed, in queues and on disk. */
  readonly isSigned: boolean
  /**
   * Turns what arrived into orders, or says why it asks for none. Trust nothing of the input until it has resolved.
   *
   * @param input as the route took it from the request, or as it was deferred; JSON, and hostile
   * @param receivedAt when it arrived, milliseconds since 1970: it is judged as of then
   * @throws {RejectedError} if the sender is at fault
   * @throws {UnavailableError} if it cannot be judged now: it is deferred as it is
   */
  read(input: unknown, receivedAt: number): Promise<readonly Order[] | Ignored>
  /**
   * The name of the configured issuer that the input claims to be of, for logs and metrics of what was not read in time. It
   * costs no look-up outside this process, and never throws. Default: not known.
   */
  issuerOf?(input: unknown): string | undefined
}

/**
 * Every time limit that must fit into the 2 s in which a signal is answered; all in milliseconds. node-oidc-provider waits for
 * 2.5 s, and nobody asks twice.
 */
export const budget = Object.freeze({
  /** From the request's last byte to the answer. */
  answerMs: 2_000,
  /** For reading a signal and signing out. What is not done by then is deferred. */
  workMs: 1_500,
  /** For writing to the spool, beside the work: a disk that hangs delays no answer further. */
  deferMs: 400,
  /** Within the work: how long an unsigned call waits for its turn. */
  gateMs: 300,
  /** Within the work: how long a signed signal waits for its turn at the signature, if its sender's were rejected of late. */
  signedTurnMs: 300,
  /** Within the work: how long a token waits for its issuer's keys. The fetch goes on. */
  keysMs: 1_200,
  /** Within the work: how long an order waits for its transaction. */
  waitMs: 1_000,
  /** Within the work: one statement for many orders. Short, so that one order that takes long leaves time for the others. */
  batchStatementMs: 600,
  /** Within the work: one statement for one order. */
  statementMs: 1_200,
  /** Within a statement: for a lock that somebody holds. */
  lockMs: 500,
  /** For a new connection to the database. */
  connectMs: 1_000,
  /** Beyond a statement's limit, until a server that says nothing is given up. */
  graceMs: 300
})

/**
 * The result of the work, or the error if it takes longer. The work itself goes on.
 *
 * @param ms how long it may take, in milliseconds
 * @param late makes the error
 */
export function within<T>(work: Promise<T>, ms: number, late: () => Error): Promise<T> {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => reject(late()), Math.max(0, ms))
    work.then(resolve, reject).finally(() => clearTimeout(timer))
  })
}

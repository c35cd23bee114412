/** A line of the product that keeps a promise of the contract; without it the test fails. */
export interface BrokenLine {
  /** By its number in section 7 of the contract; in the words of docs/promises.md. */
  readonly promise: number
  readonly file: string
  /** As it stands in the file, once. */
  readonly line: string
  /** What it is broken into. */
  readonly broken: string
  /** The test file, and the name of the test in it that fails then. */
  readonly test: string
  readonly name: string
}

export const brokenLines: readonly BrokenLine[] = [
  {
    promise: 1,
    file: 'sql/sign_out.sql',
    line: 't.home_account_id = any (array[m.home_account_id]) and t.account_issuer is not distinct from m.account_issuer',
    broken: `t.home_account_id = any (array[m.home_account_id]) and t.client_id = 'a'`,
    test: 'test/store.test.ts',
    name: 'a sid ends its sessions in every app, and every row of their accounts'
  },
  {
    promise: 1,
    file: 'sql/sign_out.sql',
    line: `setting := set_config('synchronous_commit', 'on', true);`,
    broken: 'null;',
    test: 'test/store.test.ts',
    name: 'a logout waits for the disk, also where the database is set not to'
  },
  {
    promise: 1,
    file: 'sql/sign_out.sql',
    line: `case r.status when 'unfinished' then r.status else 'duplicate' end`,
    broken: `'duplicate'`,
    test: 'test/faults/large-orders.test.ts',
    name: 'while rows are left, every signal of the account finds it, and none is answered as done'
  },
  {
    promise: 1,
    file: 'sql/list_accounts.sql',
    line: 'match_sessions(array[o])',
    broken: 'match_sessions(array[o], 3)',
    test: 'test/faults/accounts-between-steps.test.ts',
    name: 'a sid of many accounts, by the scope of the account: all that comes between two steps comes after it'
  },
  {
    promise: 2,
    file: 'sql/save.sql',
    line: 'and t.generation = save.generation and t.version = save.version',
    broken: '',
    test: 'test/web-apps-sql.test.ts',
    name: 'a row that was purged is gone for every save, and a new login has a new generation'
  },
  {
    promise: 3,
    file: 'sql/admit.sql',
    line: 'and (t.revoke_before >= admit.issued_at or',
    broken: 'and (false or',
    test: 'test/store.test.ts',
    name: 'a logout wins over a login that comes after it with an ID token from before'
  },
  {
    promise: 4,
    file: 'src/receive.ts',
    line: 'await spool.defer(deferred, withinMs, sender)',
    broken: 'withinMs > 0',
    test: 'test/receive.test.ts',
    name: 'what was verified is deferred as its order, and what was not as it came'
  },
  {
    promise: 4,
    file: 'src/spool-retry.ts',
    line: 'await spool.remove(name)\n      paused.delete(name)\n      observe({ ...common(), issuer, ...committed',
    broken: 'paused.delete(name)\n      observe({ ...common(), issuer, ...committed',
    test: 'test/spool-retry.test.ts',
    name: 'orders before signals, each oldest first, and each outcome is observed once'
  },
  {
    promise: 4,
    file: 'src/spool-retry.ts',
    line: 'if (isOfPolicy(error.code) && now() - receivedAt < maxPolicyMs) {',
    broken: 'if (now() < 0) {',
    test: 'test/spool-retry.test.ts',
    name: 'what a configuration of now rejects waits for another one, for a day, and holds up nothing'
  },
  {
    promise: 4,
    file: 'src/streams/poller.ts',
    line: 'if (isDone(outcome)) {',
    broken: `if (outcome.outcome !== 'rejected') {`,
    test: 'test/streams/delivery.test.ts',
    name: 'while the database is away nothing that is polled is acknowledged; then it is done'
  },
  {
    promise: 5,
    file: 'src/signals/backchannel.ts',
    line: 'verifySignature(jwt, at).then(',
    broken: 'Promise.resolve().then(',
    test: 'test/signals-backchannel.test.ts',
    name: 'a bad token is answered 400, is not quoted, and changes nothing'
  },
  {
    promise: 5,
    file: 'src/receive.ts',
    line: 'if (!(error instanceof UnavailableError)) {\n        return { ...common(), issuer: signal.issuerOf',
    broken: 'if (error !== undefined) {\n        return { ...common(), issuer: signal.issuerOf',
    test: 'test/receive.test.ts',
    name: 'not to be judged now: the outcome is a value, observed once'
  },
  {
    promise: 5,
    file: 'src/signals/security-event.ts',
    line: 'await verifySignature(jwt, at)',
    broken: 'isTime(at)',
    test: 'test/streams/rejected.test.ts',
    name: 'a bad token that is pushed is rejected for its reason, and changes nothing'
  },
  {
    promise: 5,
    file: 'src/signals/security-event.ts',
    line: 'await checkAboutStream(events, jwt, stream)',
    broken: 'isObject(events)',
    test: 'test/streams/attacks.test.ts',
    name: 'what is pushed in bad faith ends nothing, and says why'
  },
  {
    promise: 5,
    file: 'src/signals/security-event.ts',
    line: 'return name !== undefined && config.issuers.includes(name) ? name : undefined',
    broken: 'return name',
    test: 'test/streams/rejected.test.ts',
    name: 'what names no session and no user of ours ends nothing, and is acknowledged with its reason'
  },
  {
    promise: 5,
    file: 'src/signals/token-revocation.ts',
    line: `if (subject.format === 'iss_sub' && subject.iss !== issuer) {`,
    broken: `if (subject.format === 'email') {`,
    test: 'test/signals-token-revocation.test.ts',
    name: 'a caller reaches no user of another issuer, also by the same name, and learns nothing of one'
  },
  {
    promise: 6,
    file: 'sql/sign_out.sql',
    line: "where r.id = o.id and (o.once or r.status = 'unfinished')",
    broken: 'where false',
    test: 'test/store.test.ts',
    name: 'the same token again is success without a second effect'
  },
  {
    promise: 6,
    file: 'sql/sign_out.sql',
    line: 'where k.key is not null and (o.remember_seconds > 0 or',
    broken: 'where k.key is null and (o.remember_seconds > 0 or',
    test: 'test/store.test.ts',
    name: 'the same token in two transactions at once is done once'
  },
  {
    promise: 6,
    file: 'src/signals/security-event.ts',
    line: 'isOnce: true,',
    broken: 'isOnce: false,',
    test: 'test/streams/delivery.test.ts',
    name: 'what was committed and not acknowledged comes again, and has no second effect'
  },
  {
    promise: 7,
    file: 'sql/grant_service.sql',
    line: 'payload_bytes, encoding,',
    broken: 'payload, payload_bytes, encoding,',
    test: 'test/roles.test.ts',
    name: 'the service deletes rows, and cannot read or write a payload'
  },
  {
    promise: 7,
    file: 'sql/may_use.sql',
    line: `select pg_has_role(msal_logout.caller(), coalesce(registered_role, current_user), 'usage')`,
    broken: 'select true',
    test: 'test/roles.test.ts',
    name: 'an app reaches no other client id, registered or not'
  },
  {
    promise: 8,
    file: 'src/outcome-log.ts',
    line: "return 'code' in cause ? String(cause.code) : cause.message",
    broken: 'return cause.message',
    test: 'test/outcome-log.test.ts',
    name: 'of a database’s error its code alone is logged'
  },
  {
    promise: 9,
    file: 'src/sign-out.ts',
    line: 'if (isOfOneOrder(error)) {',
    broken: 'if (error === undefined) {',
    test: 'test/sign-out.test.ts',
    name: 'a session that somebody holds does not hold up the others'
  },
  {
    promise: 9,
    file: 'src/sign-out.ts',
    line: `codeOf(error) === 'ERR_DATABASE_TIMEOUT' ? await rejectLarge(batch) : batch`,
    broken: 'batch',
    test: 'test/faults/large-orders.test.ts',
    name: 'large orders leave their neighbours a transaction, and come into none again'
  },
  {
    promise: 9,
    file: 'src/receive.ts',
    line: 'await senders.awaitSignedTurn(sender)',
    broken: 'undefined',
    test: 'test/receive.test.ts',
    name: 'what is signed waits for its turn at the signature, and for nobody at the sign-out'
  },
  {
    promise: 9,
    file: 'src/spool-retry.ts',
    line: 'begin(file, lanes[reason])',
    broken: 'await retryOne(file)',
    test: 'test/spool-retry.test.ts',
    name: 'an order that ends in ERR_DATABASE_TIMEOUT goes alone from then on, and no round waits for it'
  },
  {
    promise: 9,
    file: 'src/streams/poller.ts',
    line: 'settled = { ack: setErrs.size > 0 ? ack : [], setErrs: new Map() }',
    broken: 'settled = { ack, setErrs }',
    test: 'test/streams/attacks.test.ts',
    name: 'an acknowledgement that is not taken holds nothing up'
  }
]

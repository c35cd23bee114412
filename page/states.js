/** @import { Directory, Readiness, Stream } from './answers.js' */

import { code, count, time, whatToDo } from './elements.js'
import { html, nothing } from './lit.js'

// A state is a sentence, with since when and what to do. The codes are those of docs/troubleshooting.md.

const database = 'sign-outs that come meanwhile are deferred on the disk of this instance, and done when it is back'

/** @type {Readonly<Record<string, readonly [what: string, advice: string]>>} why the service is not of use */
export const unready = {
  ERR_STOPPING: [
    'this instance is being stopped',
    'nothing if that is meant: others take over, and what is deferred here is done when it starts again'
  ],
  ERR_DATABASE_UNAVAILABLE: [
    `the database does not answer, or takes no writes; ${database}`,
    'see that PostgreSQL runs, can be reached from here, and is neither full nor read-only; "msal-logout check" says what it finds'
  ],
  ERR_DATABASE_FAILED: [
    `the database rejects what the service asks; ${database}`,
    'most likely a privilege is missing ("register_service"), or the schema is an old one ("msal-logout migrate")'
  ],
  ERR_DATABASE_LOCKED: [
    `somebody holds a lock in the database; ${database}`,
    'find the open transaction in pg_stat_activity, and end it'
  ],
  ERR_DATABASE_TIMEOUT: [
    `the database is too slow; ${database}`,
    'look at its load, its disk and its open transactions'
  ],
  ERR_DATABASE_CONFLICT: [`the database rejected the transaction; ${database}`, 'look at its log; it is tried again'],
  ERR_SPOOL_NOT_WRITABLE: [
    'SPOOL_DIR cannot be written: a signal that cannot be done at once would be lost',
    'give the folder to the user of the service; "msal-logout check" says what it finds'
  ],
  ERR_SPOOL_NOT_READABLE: [
    'SPOOL_DIR cannot be read: what is deferred there waits',
    'give the folder to the user of the service; "msal-logout check" says what it finds'
  ],
  ERR_SPOOL: [
    'SPOOL_DIR cannot be used: a signal that cannot be done at once would be lost',
    'look at its disk; "msal-logout check" says what it finds'
  ],
  ERR_SPOOL_UNTRUSTED: [
    'others can write SPOOL_DIR or a folder above it, so nothing is deferred: a signal that cannot be done at once would be lost',
    'take that right away from them; the log names the folder and the command'
  ],
  ERR_SPOOL_FULL_DISK: [
    'the disk of SPOOL_DIR is full: a signal that cannot be done at once would be lost',
    'make room on it'
  ],
  ERR_SPOOL_FULL: [
    'the spool is full: a signal that cannot be done at once would be lost',
    'bring back what the deferred signals wait for; the spool on the overview shows which it is'
  ],
  ERR_SPOOL_SLOW: [
    'the disk of SPOOL_DIR takes too long: a signal that cannot be done at once could be lost',
    'look at its load, or at the network that it hangs on'
  ],
  ERR_SPOOL_STUCK: [
    'a file in the spool cannot be used: the signal in it waits',
    'mend or remove the file; the spool on the overview names it'
  ]
}

/** @type {Readonly<Record<string, readonly [what: string, advice: string]>>} why a directory is not watched */
export const unwatched = {
  ERR_DIRECTORY_UNREACHABLE: [
    "Microsoft's sign-in or Graph does not answer",
    'look at name resolution, HTTPS_PROXY and firewalls; or Microsoft has an outage'
  ],
  ERR_DIRECTORY_THROTTLED: ['Graph asks for a pause', 'nothing: the pause is kept, and then it goes on by itself'],
  ERR_DIRECTORY_CREDENTIAL_FILE: [
    'a file of its credential cannot be read any more',
    'put the file back, readable by the user of the service'
  ],
  ERR_DIRECTORY_CREDENTIAL: [
    'the directory does not accept the credential',
    'look at the certificate, secret or federated credential of the registration; the number behind AADSTS says which'
  ],
  ERR_DIRECTORY_CREDENTIAL_EXPIRED: ['its credential has expired', 'put a new one into its file'],
  ERR_DIRECTORY_TENANT: ['this cloud has no such tenant', 'look at the tenant id, and at "cloud"'],
  ERR_DIRECTORY_CLIENT: [
    'the tenant has no such client id, or it is turned off',
    'look at the registration; a multi-tenant one needs consent in each tenant'
  ],
  ERR_DIRECTORY_CLOUD: ['the tenant or the registration belongs to another cloud', 'set "cloud"'],
  ERR_DIRECTORY_CONSENT: [
    'User.Read.All is not granted',
    'have an administrator of the tenant consent to it, as an application permission'
  ],
  ERR_DIRECTORY_REQUEST: ['Graph rejects what is asked', 'what it says stands here; look it up in its documentation'],
  ERR_DIRECTORY_ANSWER: ["something else than Graph answers, often a proxy's page", 'look at HTTPS_PROXY'],
  ERR_DIRECTORY_INCOMPLETE: [
    'Graph did not answer for some accounts; the others were looked at',
    'nothing at once: the next sweep looks again'
  ],
  ERR_DIRECTORY_UNCOMMITTED: [
    'the database was out of reach, or a row was locked, while sign-outs were under way',
    'nothing at once: the next round does them'
  ],
  ERR_DIRECTORY_LEASE: [
    'this instance was away for too long, and another one watches now',
    'nothing: one instance watches at a time'
  ]
}

const troubleshooting = 'look it up in docs/troubleshooting.md'

/**
 * What was last heard of the service: `silent` if nothing, or, if `isStrange`, nothing that could be read.
 *
 * @typedef {Readiness | { status: 'silent', since: string, isStrange: boolean }} Seen
 */

/** @param {Seen} seen */
export function describeReadiness(seen) {
  if (seen.status === 'ok') {
    return nothing
  }
  if (seen.status === 'silent') {
    const what = seen.isStrange ? 'has not answered in a way that can be read' : 'has not answered'
    return html`<p>The service ${what} since ${time(seen.since)}. What stands on this page may have changed since.</p>
      ${whatToDo(
        seen.isStrange
          ? 'look at the proxy before the service, and at the log of the service. The page asks again every ten seconds'
          : 'see that the service runs, and that the way to it is open. The page asks again every ten seconds'
      )}`
  }
  const [what, advice] = unready[seen.reason] ?? ['it cannot do its work', troubleshooting]
  return html`<p>Not ready since ${time(seen.since)}: ${what}.</p>
    ${whatToDo(advice)}<p class="quiet">The code is ${code(seen.reason)}.</p>`
}

/** @param {Directory} directory */
export function describeDirectory({ breaker, deltaFailure, sweepFailure, goodAt, dryRun, sweepSeconds }) {
  const failure = sweepFailure ?? deltaFailure
  if (failure !== null) {
    const [what, advice] = unwatched[failure.code] ?? ['it cannot be asked', troubleshooting]
    const kept = 'Sign-outs, purges and other directories go on, and the next good round makes up for it.'
    const isSwept = sweepFailure === null
    return html`<div class="trouble">
      <p>${isSwept ? 'Changes are not seen at once' : 'Not watched'} since ${time(failure.since)}: ${what}. ${
        isSwept
          ? `The next sweep that succeeds makes up for it; one is due every ${count(Math.ceil(sweepSeconds / 60), 'minute')}.`
          : kept
      }</p>
      ${whatToDo(advice)}
      <p class="quiet">The code is ${code(failure.code)}${failure.detail === null ? '.' : html`: <span class="long">${failure.detail}</span>`}</p>
    </div>`
  }
  if (breaker !== null) {
    return nothing // the decision says it
  }
  if (goodAt === null) {
    return html`<p>It has not been looked at yet: the first round is under way.</p>`
  }
  return html`<p>${dryRun ? 'Watched, as a dry run: nobody is purged by it.' : 'Watched.'} All was well ${time(goodAt)}.</p>`
}

/** @type {Readonly<Record<string, readonly [what: string, advice: string]>>} why a stream does not work */
export const silent = {
  ERR_STREAM_UNREACHABLE: [
    'its transmitter does not answer',
    'let the service reach the transmitter and its token endpoint: name resolution, HTTPS_PROXY, firewalls, certificates'
  ],
  ERR_STREAM_THROTTLED: ['its transmitter asks for a pause', 'nothing: the pause is kept'],
  ERR_STREAM_CREDENTIAL_FILE: [
    'a file of its credential cannot be read',
    'name files in "credential" that the user of the service can read'
  ],
  ERR_STREAM_CREDENTIAL: [
    'its transmitter does not take the credential',
    'put the right secret or token into its file: it is read with the next try'
  ],
  ERR_STREAM_FORBIDDEN: [
    'the credential may not manage or read the stream',
    'give the client that right at the provider, and name its scope in "credential"'
  ],
  ERR_STREAM_METADATA: [
    'the metadata of its transmitter are not there, or lack what is needed',
    'set metadataUrl; a transmitter without a management needs "manage": false'
  ],
  ERR_STREAM_ISSUER: ['its transmitter names another issuer', 'set "issuer" to that, if it is yours'],
  ERR_STREAM_DELIVERY: ['its transmitter does not deliver in this way', 'set "delivery" to what the transmitter does'],
  ERR_STREAM_MISSING: [
    'the stream is gone at its transmitter',
    'nothing: it is made again; if "streamId" names one, name another'
  ],
  ERR_STREAM_REQUEST: ['its transmitter rejects what is asked', 'the detail has its own words'],
  ERR_STREAM_ANSWER: ['something else answers', 'look at what answers there, often a proxy'],
  ERR_STREAM_UNCOMMITTED: [
    'some events are not committed yet',
    'nothing, if the database works again: they come again by themselves'
  ],
  ERR_STREAM_LEASE: [
    'this instance was away for too long, and another one has the stream now',
    'nothing: one instance polls a stream at a time'
  ]
}

/** @param {Stream} stream */
export function describeStream({
  failure,
  isPaused,
  isDeleted,
  isManaged,
  status,
  statusReason,
  sendsNobodyByDefault,
  missingEvents,
  heardAt,
  goodAt,
  name
}) {
  if (failure !== null) {
    const [what, advice] = silent[failure.code] ?? ['it cannot be used', troubleshooting]
    return html`<div class="trouble">
      <p>Not working since ${time(failure.since)}: ${what}. What is not acknowledged comes again when it works.</p>
      ${whatToDo(advice)}
      <p class="quiet">The code is ${code(failure.code)}${failure.detail === null ? '.' : html`: <span class="long">${failure.detail}</span>`}</p>
    </div>`
  }
  if (isPaused || isDeleted) {
    return html`<div class="trouble">
      <p>${isDeleted ? 'Deleted' : 'Paused'} by an operator: no event comes.</p>
      ${whatToDo(`run "msal-logout stream ${isDeleted ? 'create' : 'resume'} ${name}", if its events are wanted`)}
    </div>`
  }
  if (status !== null && status !== 'enabled') {
    return html`<div class="trouble">
      <p>Stopped by its transmitter (${status})${statusReason === null ? '.' : html`: <span class="long">${statusReason}</span>`}</p>
      ${whatToDo('ask who administers it; each hour it is asked to go on')}
    </div>`
  }
  if (goodAt === null) {
    return html`<p>It has not been looked at yet: the first round is under way.</p>`
  }
  return html`<p>${isManaged ? 'It works.' : 'It works. A person looks after it at the transmitter.'} All was well ${time(goodAt)}.</p>
    ${
      missingEvents.length === 0
        ? nothing
        : html`<div class="trouble">
            <p>Its transmitter does not send what is wanted: <span class="long">${missingEvents.join(', ')}</span>.</p>
            ${whatToDo('turn these events on at the transmitter, or take them out of "revokeOn" of the stream')}
          </div>`
    }
    ${sendsNobodyByDefault && heardAt === null ? whatToDo('see at the transmitter whom it sends events of: by default nobody who was not added there') : nothing}`
}

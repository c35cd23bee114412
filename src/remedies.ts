import type { OutageCode, RejectionCode } from './errors.ts'

const senderLeavesOut = 'the provider leaves out what the specification demands: report it to its maker'
const senderMisforms = 'the provider sends it in a form that the specification does not allow: report it to its maker'
const body = 'look at what stands in between: a proxy may have changed the body'
const otherToken = 'it is another kind of token: look at what the provider sends to this URL'
const frontChannelUrl = 'let the URL at the provider end in /frontchannel-logout/<name>'
const clocks = 'compare the clocks of both, or see why it came so late'
const encryption = "compare the provider's settings with docs/encrypted-tokens.md"
const shortId = 'have the provider send a shorter id, or report it to its maker'
const revocation = 'compare what the caller sends with docs/token-revocation.md'
const framework = 'set "profile": "legacy" for Okta, authentik or an older transmitter; else report it to its maker'
const transmitter = 'a fault of the transmitter: report it to its maker'
const database = '"msal-logout check" says why the database cannot be used; it is done when it can'

const remedies: Readonly<Record<RejectionCode | OutageCode, string>> = {
  ERR_REQUEST_PATH:
    'compare the URL at the provider with that of the service; or a proxy in between adds to the path, or takes from it',
  ERR_REQUEST_METHOD:
    'look at what stands in between: a redirect, often from http to https, turns a POST into a GET; set the final URL at the provider',
  ERR_REQUEST_TOO_LONG:
    'have the provider send less than 64 KiB: it often puts more into the token than a logout needs',
  ERR_REQUEST_FORM: body,
  ERR_REQUEST_TOKEN_MISSING: body,
  ERR_REQUEST_TOKEN_TWICE: body,
  ERR_REQUEST_SID_MISSING: 'have the provider send a sid: "session required", or the optional claim "sid"',
  ERR_REQUEST_SID_MALFORMED: body,
  ERR_REQUEST_SID_TOO_LONG: shortId,
  ERR_REQUEST_ISS_MISSING: frontChannelUrl,
  ERR_REQUEST_ISS_MALFORMED: body,
  ERR_REQUEST_ISS: 'if it is yours, configure the issuer exactly so',
  ERR_REQUEST_ISS_DIFFERS: frontChannelUrl,
  ERR_REQUEST_ISSUER_NAME: 'let the URL at the provider end in the name that is configured',
  ERR_REQUEST_FRONT_CHANNEL_OFF: 'set "frontChannel": true, or take the URL out at the provider',
  ERR_REQUEST_AUTHORIZATION: 'look at what stands in between: a proxy may have taken the "Authorization" header away',
  ERR_REQUEST_JSON: revocation,
  ERR_REQUEST_SUBJECT_MISSING: revocation,
  ERR_REQUEST_SUBJECT_MALFORMED: revocation,
  ERR_REQUEST_SUBJECT_FORMAT: revocation,
  ERR_REQUEST_SUBJECT_ISSUER: revocation,
  ERR_REQUEST_STREAM: 'let the transmitter push to the name of a stream that is configured with "delivery": "push"',
  ERR_REQUEST_STREAM_AUTHORIZATION:
    'give the transmitter the header anew: "msal-logout stream create <name>"; or see whether a proxy takes it away',
  ERR_SET_TOO_LONG: transmitter,
  ERR_SET_SUB: framework,
  ERR_SET_EXP: framework,
  ERR_SET_JTI: transmitter,
  ERR_SET_EVENTS: transmitter,
  ERR_SET_SUBJECT_MISSING: framework,
  ERR_SET_SUBJECT_MALFORMED: transmitter,
  ERR_SET_STREAM: 'see which streams the transmitter has for this receiver: one of before may still send',
  ERR_SET_STATE: 'have it shown again: "msal-logout stream verify <name>"',
  ERR_TOKEN_MALFORMED:
    'look at what the provider sends to this URL, and at what stands in between; or somebody is trying',
  ERR_TOKEN_ENCRYPTED: 'turn encryption off for this client, or give the service "decryptionKeys"',
  ERR_TOKEN_NOT_ENCRYPTED: 'turn encryption on for this client, or take "requireEncryption" out',
  ERR_TOKEN_ENCRYPTION_TOO_LONG: encryption,
  ERR_TOKEN_ENCRYPTION_HEADER: encryption,
  ERR_TOKEN_ENCRYPTION_ALGORITHM: encryption,
  ERR_TOKEN_ENCRYPTION_KEY: encryption,
  ERR_TOKEN_ENCRYPTION_NESTED: encryption,
  ERR_TOKEN_DECRYPTION: encryption,
  ERR_TOKEN_DUPLICATE_KEY: senderMisforms,
  ERR_TOKEN_CRITICAL: 'have the provider send its tokens without the header "crit"',
  ERR_TOKEN_ALGORITHM_MISSING: senderLeavesOut,
  ERR_TOKEN_ALGORITHM_MALFORMED: senderMisforms,
  ERR_TOKEN_ALGORITHM:
    'name the algorithm in "algorithms", if it is asymmetric; else have the provider sign with such a one',
  ERR_TOKEN_KID_MALFORMED: senderMisforms,
  ERR_TOKEN_TYPE_MISSING: 'name the type in "types"; null stands for none',
  ERR_TOKEN_TYPE_MALFORMED: senderMisforms,
  ERR_TOKEN_TYPE: 'name the type in "types"; null stands for none',
  ERR_TOKEN_ISSUER_MISSING: senderLeavesOut,
  ERR_TOKEN_ISSUER_MALFORMED: senderMisforms,
  ERR_TOKEN_ISSUER: 'if it is yours, configure the issuer exactly so',
  ERR_TOKEN_AUDIENCE_MISSING: senderLeavesOut,
  ERR_TOKEN_AUDIENCE_MALFORMED: senderMisforms,
  ERR_TOKEN_AUDIENCE: 'if that app is yours, add it to "clientIds"',
  ERR_TOKEN_IAT_MISSING: senderLeavesOut,
  ERR_TOKEN_IAT_MALFORMED: senderMisforms,
  ERR_TOKEN_IAT_FUTURE: clocks,
  ERR_TOKEN_TOO_OLD: clocks,
  ERR_TOKEN_EXP_MISSING: 'set "requireExp": false, if the provider sends none',
  ERR_TOKEN_EXP_MALFORMED: senderMisforms,
  ERR_TOKEN_EXPIRED: clocks,
  ERR_TOKEN_NBF_MALFORMED: senderMisforms,
  ERR_TOKEN_NBF_FUTURE: clocks,
  ERR_TOKEN_JTI_MISSING: senderLeavesOut,
  ERR_TOKEN_JTI_MALFORMED: senderMisforms,
  ERR_TOKEN_JTI_TOO_LONG: shortId,
  ERR_TOKEN_SID_MALFORMED: senderMisforms,
  ERR_TOKEN_SID_TOO_LONG: shortId,
  ERR_TOKEN_SUB_MALFORMED: senderMisforms,
  ERR_TOKEN_SUB_TOO_LONG: shortId,
  ERR_TOKEN_SUBJECT_MISSING: 'have the provider send a sid or a sub',
  ERR_TOKEN_EVENTS_MISSING: otherToken,
  ERR_TOKEN_EVENTS_MALFORMED: senderMisforms,
  ERR_TOKEN_EVENTS: otherToken,
  ERR_TOKEN_NONCE: otherToken,
  ERR_TOKEN_KEY: 'look at "jwks_uri" of the discovery document, or at "jwksUri"; "msal-logout check" fetches both',
  ERR_TOKEN_SIGNATURE: 'another environment signs under the same name, or somebody is trying',
  ERR_DATABASE_UNAVAILABLE: database,
  ERR_DATABASE_FAILED: database,
  ERR_DATABASE_LOCKED:
    'find the app whose transaction is open longest in pg_stat_activity, as a superuser; it is done when that ends',
  ERR_DATABASE_TIMEOUT: 'look at what slows the database down; it is tried again alone, with more time',
  ERR_DATABASE_CONFLICT: 'it is tried again by itself',
  ERR_KEYS_UNAVAILABLE: '"msal-logout check" says why the keys cannot be had; it is done when they can',
  ERR_DIRECTORY_UNAVAILABLE:
    '"msal-logout directory list" says why the directory cannot be asked; it is done when it can',
  ERR_LARGE: 'nothing: it is done in steps, and its record shows how far',
  ERR_STREAM_UNKNOWN: '"msal-logout stream list" says why the transmitter is out of reach; it is done when it is not',
  ERR_WORKERS: 'see in the log why the processes end that answer the public listener; they are started again',
  ERR_BUSY: 'see at the proxy who sends so many front-channel calls; signed signals go first',
  ERR_DEADLINE: 'look at what slows the database or the disk down; it is tried again by itself'
}

/** What to do about a rejected or deferred signal, by its code; in few words, for operators. */
export function remedyFor(code: RejectionCode | OutageCode): string {
  return remedies[code]
}

/** The same for a code that another release may have sent. */
export function findRemedy(code: string): string | undefined {
  return new Map<string, string>(Object.entries(remedies)).get(code)
}

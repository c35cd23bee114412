import { StreamError, type StreamErrorCode } from '../errors.ts'
import type { Fetch } from '../outbound-fetch.ts'
import type { StreamConfig } from '../stream-config.ts'
import { createTransmitter } from '../streams/transmitter.ts'
import { type Finding, failed, passed, warning } from './finding.ts'

export interface CheckStreamOptions {
  /** The network's edge. */
  readonly fetch: Fetch
  /** Milliseconds since 1970. */
  readonly now: () => number
  /** How long each answer may take, milliseconds. */
  readonly timeoutMs: number
}

/** Asks the transmitter of a stream what the service will, by the same credential; nothing is made or changed there. */
export async function checkStream(config: StreamConfig, options: CheckStreamOptions): Promise<Finding[]> {
  const { name, delivery } = config
  const transmitter = createTransmitter({ config, ...options })
  const { signal } = new AbortController() // each answer has its own time
  try {
    const metadata = await transmitter.metadata(signal)
    if (!config.isManaged) {
      return [passed('stream', `${name}: the transmitter's metadata are there; the stream is looked after by a person`)]
    }
    const streams = await transmitter.list(signal)
    const findings = [passed('stream', `${name}: the transmitter shows ${streams.length} of our streams`)]
    if (metadata.defaultSubjects === 'NONE') {
      findings.push(
        warning(
          'stream',
          'stream_subjects',
          `${name}: by its metadata the transmitter sends nothing of anybody who was not added to the stream, unless it is set otherwise for this receiver`,
          'have it send events of all by default, or add the users there; Keycloak: "Default subjects" of the receiver'
        )
      )
    }
    if (metadata.verificationUrl === undefined) {
      findings.push(
        warning(
          'stream',
          'stream_unverifiable',
          `${name}: the transmitter cannot be asked to show that its events arrive`,
          delivery === 'push' ? 'a push that does not get through is not seen here: watch it there' : 'nothing to do'
        )
      )
    }
    return findings
  } catch (error) {
    if (!(error instanceof StreamError)) {
      throw error
    }
    const [code, advice] = faults[error.code]
    const detail = error.detail === undefined ? '' : ` (${error.detail})`
    return [failed('stream', code, `${name}: ${error.message}${detail}`, advice)]
  }
}

type Fault = readonly [code: string, advice: string]

const answer: Fault = ['stream_answer', 'look at what answers there, often a proxy; and at metadataUrl, if it is set']

const faults: Readonly<Record<StreamErrorCode, Fault>> = {
  ERR_STREAM_UNREACHABLE: [
    'stream_unreachable',
    'let the service reach the transmitter and its token endpoint: name resolution, HTTPS_PROXY, firewalls, certificates'
  ],
  ERR_STREAM_THROTTLED: ['stream_throttled', 'look again later'],
  ERR_STREAM_CREDENTIAL_FILE: ['stream_credential', 'name files that this user can read'],
  ERR_STREAM_CREDENTIAL: [
    'stream_credential',
    'look at tokenUrl, clientId and the secret, or at the token, in "credential"'
  ],
  ERR_STREAM_FORBIDDEN: [
    'stream_forbidden',
    'give the client the right to manage and read streams, and name its scope'
  ],
  ERR_STREAM_METADATA: [
    'stream_metadata',
    'set metadataUrl to where the transmitter describes itself; one without a management needs "manage": false'
  ],
  ERR_STREAM_ISSUER: ['stream_issuer', 'set "issuer" to what the transmitter calls itself, if it is yours'],
  ERR_STREAM_DELIVERY: ['stream_delivery', 'set "delivery" to what the transmitter does'],
  ERR_STREAM_REQUEST: answer,
  ERR_STREAM_ANSWER: answer,
  ERR_STREAM_MISSING: answer,
  ERR_STREAM_UNCOMMITTED: answer,
  ERR_STREAM_LEASE: answer
}

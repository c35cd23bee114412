// Every event of the table in docs/shared-signals.md, in every dialect, by push and by poll: it ends exactly what it should.
import { randomUUID } from 'node:crypto'
import t, { type Test } from 'tap'
import { UnavailableError } from '../../src/errors.ts'
import type { ResolveEmail } from '../../src/signals/token-revocation.ts'
import { type StreamWorld, startStreamWorld } from '../fixtures/stream-world.ts'
import { type Dialect, dialects, type EventSubject } from '../fixtures/transmitter.ts'

/** Of a user with three sessions, one of which began after the event; and of another user. */
type Left = 'laptop' | 'phone' | 'later' | 'other'
const all: readonly Left[] = ['laptop', 'later', 'other', 'phone']
const otherSessions: readonly Left[] = ['later', 'other', 'phone']
const newAndOthers: readonly Left[] = ['later', 'other']
const others: readonly Left[] = ['other']

interface Case {
  readonly type: string
  readonly payload?: Record<string, unknown>
  /** What the subject names; default the user. */
  readonly names?: 'user' | 'session' | 'user and session' | 'every session'
  readonly left: readonly Left[]
  /** Why it ends nothing. */
  readonly reason?: string
}

const cases: readonly Case[] = [
  { type: 'caep/session-revoked', names: 'user and session', left: otherSessions },
  { type: 'caep/session-revoked', names: 'session', left: otherSessions },
  { type: 'caep/session-revoked', left: newAndOthers },
  { type: 'caep/session-revoked', names: 'every session', left: newAndOthers },
  { type: 'risc/account-disabled', payload: { reason: 'hijacking' }, left: others },
  { type: 'risc/account-disabled', left: others },
  { type: 'risc/account-purged', left: others },
  { type: 'risc/sessions-revoked', left: newAndOthers },
  { type: 'risc/credential-compromise', payload: { credential_type: 'password' }, left: newAndOthers },
  { type: 'risc/account-credential-change-required', left: newAndOthers },
  { type: 'oauth/tokens-revoked', left: newAndOthers },
  {
    type: 'caep/credential-change',
    payload: { credential_type: 'fido2-roaming', change_type: 'revoke' },
    left: newAndOthers
  },
  { type: 'caep/credential-change', payload: { credential_type: 'app', change_type: 'delete' }, left: newAndOthers },
  {
    type: 'caep/credential-change',
    payload: { credential_type: 'password', change_type: 'update' },
    left: newAndOthers
  },
  { type: 'caep/credential-change', payload: { credential_type: 'pin', change_type: 'update' }, left: newAndOthers },
  ...[
    { credential_type: 'app', change_type: 'update' },
    { credential_type: 'password', change_type: 'create' },
    { credential_type: 'fido2-platform', change_type: 'create' }
  ].map((payload) => ({ type: 'caep/credential-change', payload, left: all, reason: 'event_condition' })),
  ...[
    { type: 'caep/assurance-level-change', payload: { change_direction: 'decrease' } },
    { type: 'caep/device-compliance-change', payload: { current_status: 'not-compliant' } },
    { type: 'caep/risk-level-change', payload: { current_level: 'HIGH', principal: 'USER' } }
  ].map((event) => ({ ...event, left: all, reason: 'event_off' })),
  ...[
    'caep/token-claims-change',
    'caep/session-established',
    'caep/session-presented',
    'risc/account-enabled',
    'risc/identifier-changed',
    'risc/identifier-recycled',
    'risc/recovery-activated',
    'risc/recovery-information-changed',
    'risc/opt-in',
    'risc/opt-out-initiated',
    'risc/opt-out-cancelled',
    'risc/opt-out-effective'
  ].map((type) => ({ type, left: all, reason: 'event_without_effect' })),
  { type: 'caep/something-new', left: all, reason: 'event_unknown' }
]

interface People {
  readonly subject: string
  readonly sid: string
  left(): Promise<string[]>
}

async function signAllIn({ service, signIn }: StreamWorld): Promise<People> {
  const id = randomUUID()
  const subject = `user-${id}`
  const sessions = { laptop: subject, phone: subject, later: subject, other: `other-${id}` }
  const now = Math.floor(Date.now() / 1_000)
  for (const [name, of] of Object.entries(sessions)) {
    for (const clientId of ['client-a', 'client-b']) {
      const issuedAt = name === 'later' ? now - 60 : now - 600
      await signIn({ clientId, homeAccountId: `${name}.${id}`, subject: of, sid: `${name}-${id}`, issuedAt })
    }
  }
  return {
    subject,
    sid: `laptop-${id}`,
    async left() {
      const rows = (await service.rows()).filter((row) => row.endsWith(id))
      const names = rows.map((row) => row.replace(/^.*\/(\w+)\..*$/, '$1'))
      // In both apps, or in none.
      return [...new Set(names)].filter((name) => names.filter((one) => one === name).length === 2).sort()
    }
  }
}

function subjectOf({ names = 'user' }: Case, issuer: string, { subject, sid }: People): EventSubject {
  const user = { iss: issuer, sub: subject }
  return {
    ...(names !== 'session' && { user }),
    ...(names === 'every session' ? { session: 'ALL' } : names !== 'user' && { session: sid })
  }
}

/** authentik names users by their address, and knows no event without a session but a changed password. */
function isOfDialect(dialect: Dialect, { names = 'user' }: Case): boolean {
  return dialect !== 'authentik' || names === 'session' || names === 'user and session'
}

for (const dialect of dialects) {
  for (const delivery of ['poll', 'push'] as const) {
    t.test(`${dialect}, by ${delivery}: every event ends what it should, and nothing else`, async (t) => {
      const world = await startStreamWorld(t, { dialect, stream: { delivery } })
      await world.round()
      for (const one of cases.filter((one) => isOfDialect(dialect, one))) {
        await tryCase(t, world, one)
      }
      t.equal((await world.state()).failure, undefined)
    })
  }
}

async function tryCase(t: Test, world: StreamWorld, one: Case): Promise<void> {
  const { transmitter, issuer, config } = world
  const name = `${one.type} ${JSON.stringify(one.payload ?? {})}, ${one.names ?? 'user'}`
  const people = await signAllIn(world)
  const at = Math.floor(Date.now() / 1_000) - 120
  const event = {
    type: one.type,
    subject: subjectOf(one, issuer, people),
    at,
    ...(one.payload && { payload: one.payload })
  }
  const before = one.reason === undefined ? 0 : await world.counted('ignored', one.reason)
  if (config.delivery === 'poll') {
    const { jti } = await transmitter.emit(event)
    await world.round()
    t.ok(transmitter.acknowledged.includes(jti), `${name}: acknowledged`)
  } else {
    const { token } = await transmitter.eventOf(event)
    t.equal((await world.push(token)).statusCode, 202, name)
  }
  t.same(await people.left(), one.left, name)
  if (one.reason !== undefined) {
    t.equal(await world.counted('ignored', one.reason), before + 1, `${name}: counted as ${one.reason}`)
  }
}

t.test('a token is judged by the configuration that is in force when it acts', async (t) => {
  let meanwhile = () => {}
  const world = await startStreamWorld(t, {
    stream: { delivery: 'push' },
    edges: {
      async resolveEmail(issuer) {
        meanwhile()
        return { selectors: [{ kind: 'subject', issuer, subject: 'user' }] }
      }
    }
  })
  const { service, transmitter, push, round, signIn, config } = world
  await round()
  await signIn({ homeAccountId: 'a.t', sid: 's1', subject: 'user' })
  const event = { type: 'risc/sessions-revoked', subject: { email: 'user@example.com' } }
  meanwhile = () => service.streams.replace([])
  t.equal((await push((await transmitter.eventOf(event)).token)).statusCode, 404, 'the stream is gone')
  service.streams.replace([config])
  await round()
  meanwhile = () => service.streams.replace([{ ...config, revokeOn: ['session-revoked'] }])
  t.equal((await push((await transmitter.eventOf(event)).token)).statusCode, 202)
  t.same(await service.rows(), ['client-a/a.t'], 'the event is turned off')
})

t.test('what the configuration of before could not do is tried by that of now', async (t) => {
  let asked = 0
  const world = await startStreamWorld(t, {
    stream: { delivery: 'push' },
    edges: {
      async resolveEmail(issuer) {
        asked += 1
        if (asked === 1) {
          world.service.streams.replace([{ ...world.config, revokeOn: [...world.config.revokeOn].reverse() }])
          throw new UnavailableError('ERR_DIRECTORY_UNAVAILABLE')
        }
        return { selectors: [{ kind: 'subject', issuer, subject: 'user' }] }
      }
    }
  })
  const { service, transmitter, push, round, signIn } = world
  await round()
  await signIn({ homeAccountId: 'a.t', sid: 's1', subject: 'user' })
  const event = { type: 'risc/sessions-revoked', subject: { email: 'user@example.com' } }
  t.equal((await push((await transmitter.eventOf(event)).token)).statusCode, 202)
  t.same(await service.rows(), [])
})

t.test('an address leads to whom the directory of the issuer knows by it', async (t) => {
  let directory: ResolveEmail = async () => ({ ignored: 'no_directory' })
  const world = await startStreamWorld(t, {
    stream: { delivery: 'push' },
    edges: { resolveEmail: (issuer, email) => directory(issuer, email) }
  })
  const { issuer, service, transmitter, push, counted, round, signIn } = world
  await round()
  const [tid, oid] = [randomUUID(), randomUUID()]
  await signIn({ homeAccountId: 'a.t', sid: 's1', subject: 'user', tid, oid })
  const event = { type: 'risc/account-disabled', subject: { email: 'user@example.com' } }
  for (const ignored of ['no_directory', 'unknown_email', 'ambiguous_email'] as const) {
    directory = async () => ({ ignored })
    t.equal((await push((await transmitter.eventOf(event)).token)).statusCode, 202)
    t.equal(await counted('ignored', ignored), 1, ignored)
  }
  t.equal((await service.rows()).length, 1)
  const asked: string[] = []
  directory = async (...question) => {
    asked.push(...question)
    return { selectors: [{ kind: 'object', tenantId: tid, objectId: oid }] }
  }
  t.equal((await push((await transmitter.eventOf(event)).token)).statusCode, 202)
  t.same(asked, [issuer, 'user@example.com'])
  t.same(await service.rows(), [])
})

// The quick part of it. Every event, every fault, outages and two instances: test/streams, by `npm run test:streams`.
import { randomUUID } from 'node:crypto'
import t from 'tap'
import { startStreamWorld } from './fixtures/stream-world.ts'

const seconds = () => Math.floor(Date.now() / 1_000)

t.test(
  'what is polled is done, recorded and acknowledged; what is bad is reported; the stream is verified',
  async (t) => {
    const { service, transmitter, issuer, round, signIn, state, counted } = await startStreamWorld(t)
    await round()
    t.match(transmitter.streams.size, 1)
    await signIn({ homeAccountId: 'a.t', sid: 's1', subject: 'user' })
    await signIn({ clientId: 'client-b', homeAccountId: 'a.t', sid: 's1', subject: 'user' })
    await signIn({ homeAccountId: 'b.t', sid: 's2', subject: 'user' })
    const user = { iss: issuer, sub: 'user' }
    const session = {
      type: 'caep/session-revoked',
      subject: { user, session: 's1' },
      payload: { initiating_entity: 'admin' }
    }
    const { jti } = await transmitter.emit(session)
    const bad = await transmitter.emit({ ...session, claims: { aud: 'another' } })
    await round()
    t.same(await service.rows(), ['client-a/b.t'])
    t.ok(transmitter.acknowledged.includes(jti))
    t.match(transmitter.errors.get(bad.jti), { err: 'invalid_audience' })
    t.match((await service.operate('GET', '/admin/records')).json(), {
      records: [
        {
          source: 'security-event',
          issuer,
          sid: 's1',
          rows: 2,
          jti,
          reason: 'session-revoked, by the stream signals, initiated by admin'
        }
      ]
    })
    t.equal(await counted('ignored', 'verification'), 1)
    t.match(await state(), { verifiedAt: String, streamId: String, status: 'enabled' })
    t.match((await service.operate('GET', '/admin/streams')).json(), {
      streams: [{ name: 'signals', status: 'enabled', failure: null, missingEvents: [], isPaused: false }]
    })
    const metrics = await service.metrics.text()
    t.match(metrics, /msal_logout_stream_enabled{stream="signals"} 1/)
    t.match(metrics, /msal_logout_stream_verified_timestamp_seconds{stream="signals"} 17/)
  }
)

t.test('what is pushed is done and answered 202, and an older transmitter is understood', async (t) => {
  const { service, transmitter, issuer, round, signIn, push } = await startStreamWorld(t, {
    dialect: 'okta',
    stream: { delivery: 'push', ignoreInitiatedBy: ['user'] }
  })
  await round()
  const sub = randomUUID()
  await signIn({ homeAccountId: 'old.t', sid: 's1', subject: sub, issuedAt: seconds() - 600 })
  await signIn({ homeAccountId: 'new.t', sid: 's2', subject: sub, issuedAt: seconds() - 60 })
  const event = { type: 'caep/session-revoked', subject: { user: { iss: issuer, sub } }, at: seconds() - 300 }
  const ordinary = await transmitter.eventOf({ ...event, payload: { initiating_entity: 'user' } })
  t.match(await push(ordinary.token), { statusCode: 202, body: '', headers: { 'cache-control': 'no-store' } })
  t.equal((await service.rows()).length, 2)
  const { token } = await transmitter.eventOf(event)
  t.equal((await push(token, { authorization: 'Bearer another' })).statusCode, 400)
  t.equal((await service.rows()).length, 2)
  t.equal((await push(token)).statusCode, 202)
  t.same(await service.rows(), ['client-a/new.t'])
  const before = await service.database.snapshot()
  t.equal((await push(token)).statusCode, 202, 'the same again')
  t.same(await service.database.snapshot(), before)
})

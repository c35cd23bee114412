// What is done at a transmitter: creating or adopting a stream, its status, verification, deletion; by itself and by operators.
import { randomUUID } from 'node:crypto'
import t, { type Test } from 'tap'
import { type StreamWorldOptions, startStreamWorld } from '../fixtures/stream-world.ts'
import { audience, paths } from '../fixtures/transmitter.ts'

/** A world after its first round, in which an operator can act. */
async function setUp(t: Test, options: StreamWorldOptions = {}) {
  const world = await startStreamWorld(t, options)
  const act = async (action: string, name = 'signals') => {
    const answer = await world.service.operate('POST', `/admin/streams/${name}/${action}`)
    return { status: answer.statusCode, body: answer.json() as Record<string, unknown> }
  }
  const asked = (method: string, path: string) =>
    world.transmitter.asked.filter((one) => one.method === method && one.path === path)
  return { ...world, act, asked }
}

const dayPlus = 90_000

t.test('a stream is created once, with what is asked for, and adopted by who comes later', async (t) => {
  const { transmitter, round, another, state, asked, config } = await setUp(t)
  await round()
  t.match(asked('POST', paths.streams), [
    {
      body: {
        delivery: { method: 'urn:ietf:rfc:8936' },
        events_requested: config.revokeOn.map((name) => RegExp(`/event-type/${name}$`)),
        description: 'msal-logout: signals'
      }
    }
  ])
  t.match(await state(), { streamId: String, audiences: [audience], pollUrl: `${transmitter.origin}/poll` })
  const { streamId } = await state()
  const second = await another()
  await second.database.query(`update msal_logout.streams set holder = null, held_until = null, state = '{}'`)
  await round(second)
  t.equal((await state()).streamId, streamId)
  t.equal(asked('POST', paths.streams).length, 1)
})

t.test('a push stream bears its address and its secret, which no answer shows', async (t) => {
  const { round, asked, service } = await setUp(t, { stream: { delivery: 'push' } })
  await round()
  t.match(asked('POST', paths.streams), [
    {
      body: {
        delivery: {
          method: 'urn:ietf:rfc:8935',
          endpoint_url: 'https://logout.example/security-events/signals',
          authorization_header: 'Bearer the-value-that-it-pushes-with'
        }
      }
    }
  ])
  const shown = JSON.stringify((await service.operate('GET', '/admin/streams')).json())
  t.notMatch(shown + JSON.stringify(await service.database.snapshot()) + service.logs.join(), /pushes-with/)
})

t.test('where one stream is all that is allowed the one that is there is taken over', async (t) => {
  const { transmitter, round, state } = await setUp(t)
  const id = randomUUID()
  transmitter.streams.set(id, {
    stream_id: id,
    iss: transmitter.issuer,
    aud: audience,
    status: 'enabled',
    delivery: { method: 'urn:ietf:rfc:8936', endpoint_url: `${transmitter.origin}/poll` },
    events_requested: [],
    events_delivered: [],
    description: 'made by a person'
  })
  await round()
  t.equal((await state()).streamId, id)
  t.match(transmitter.streams.get(id), { description: 'msal-logout: signals', events_requested: { length: 8 } })
})

t.test('a stream of somebody else is left as it is', async (t) => {
  const { transmitter, round, state } = await setUp(t)
  transmitter.maxStreams = 5
  const id = randomUUID()
  const others = {
    stream_id: id,
    iss: transmitter.issuer,
    aud: 'another',
    delivery: {},
    description: 'another receiver'
  }
  transmitter.streams.set(id, { ...others })
  await round()
  t.not((await state()).streamId, id)
  t.same(transmitter.streams.get(id), others)
  t.equal(transmitter.streams.size, 2)
})

t.test('a stream that the configuration names is adopted, and none is made in its place', async (t) => {
  const id = randomUUID()
  const { transmitter, round } = await setUp(t, { stream: { streamId: id } })
  t.match(await round(), { failure: { code: 'ERR_STREAM_MISSING' } })
  t.equal(transmitter.streams.size, 0)
})

t.test('what is other at the transmitter than configured is put right', async (t) => {
  const { transmitter, round, pass, asked } = await setUp(t)
  await round()
  const [stream] = transmitter.streams.values()
  Object.assign(stream ?? {}, { events_requested: [], status: 'paused' })
  pass(4_000)
  await round()
  t.equal(asked('PATCH', paths.streams).length, 1)
  t.match(stream, { events_requested: { length: 8 }, status: 'enabled' })
  pass(4_000)
  await round()
  t.equal(asked('PATCH', paths.streams).length, 1, 'and no more than that')
})

t.test('a stream that is gone is created anew', async (t) => {
  const { transmitter, round, state } = await setUp(t)
  await round()
  const before = (await state()).streamId
  transmitter.streams.clear()
  transmitter.faults.set(paths.poll, 404)
  t.match(await round(), { failure: { code: 'ERR_STREAM_MISSING' } })
  transmitter.faults.clear()
  await round()
  await round()
  t.type((await state()).streamId, 'string')
  t.not((await state()).streamId, before)
  t.equal((await state()).failure, undefined)
})

t.test('once a day the transmitter shows that its events arrive; one that does not is seen', async (t) => {
  const { transmitter, round, pass, state, asked, service, now } = await setUp(t)
  await round()
  await round()
  t.equal(asked('POST', paths.verify).length, 1, 'after it was created')
  const first = Date.parse((await state()).verifiedAt ?? '')
  pass(3_600)
  await round()
  t.equal(asked('POST', paths.verify).length, 1)
  pass(dayPlus)
  await round()
  await round()
  t.equal(asked('POST', paths.verify).length, 2)
  t.ok(Date.parse((await state()).verifiedAt ?? '') > first + 86_000_000)
  transmitter.verifies = false
  pass(dayPlus)
  await round()
  await round()
  t.equal(asked('POST', paths.verify).length, 3)
  pass(1_000)
  await round()
  t.equal(asked('POST', paths.verify).length, 4, 'it is asked again after a quarter of an hour')
  const [, verified = ''] =
    /stream_verified_timestamp_seconds{stream="signals"} ([\d.e+]+)/.exec(await service.metrics.text()) ?? []
  t.ok(now() / 1_000 - Number(verified) > dayPlus, 'and the metric shows since when')
})

t.test('a stream that pauses without activity is verified twice in that time', async (t) => {
  const { transmitter, round, pass, asked } = await setUp(t, { stream: { delivery: 'push' } })
  await round()
  for (const stream of transmitter.streams.values()) {
    stream.inactivity_timeout = 7_200
  }
  pass(4_000)
  await round()
  const before = asked('POST', paths.verify).length
  pass(3_700)
  await round()
  t.equal(asked('POST', paths.verify).length, before + 1)
})

t.test('an operator pauses, resumes, verifies, deletes and creates a stream', async (t) => {
  const { transmitter, round, pass, act, asked, state, service } = await setUp(t)
  await round()
  t.match(await act('pause'), { status: 200, body: { status: 'paused', isPaused: true } })
  t.match([...transmitter.streams.values()], [{ status: 'paused' }])
  const polls = asked('POST', paths.poll).length
  pass(dayPlus)
  await round()
  t.equal(asked('POST', paths.poll).length, polls, 'it is not polled')
  t.match([...transmitter.streams.values()], [{ status: 'paused' }], 'nor put right')
  t.match(await service.metrics.text(), /stream_enabled{stream="signals"} 0/)
  t.match(await act('resume'), { status: 200, body: { status: 'enabled', isPaused: false } })
  await round()
  t.ok(asked('POST', paths.poll).length > polls)

  const verifications = asked('POST', paths.verify).length
  t.equal((await act('verify')).status, 200)
  t.equal(asked('POST', paths.verify).length, verifications + 1)
  await round()
  t.equal((await state()).failure, undefined)

  t.match(await act('delete'), { status: 200, body: { isDeleted: true, streamId: null } })
  t.equal(transmitter.streams.size, 0)
  pass(dayPlus)
  await round()
  t.equal(transmitter.streams.size, 0, 'it is not made again by itself')
  t.match(await act('create'), { status: 200, body: { isDeleted: false, streamId: String } })
  t.equal(transmitter.streams.size, 1)

  t.match(await act('verify', 'nobody'), { status: 404 })
  transmitter.faults.set(paths.verify, 500)
  t.match(await act('verify'), { status: 502, body: { code: 'transmitter_failed', detail: /ERR_STREAM_UNREACHABLE/ } })
  t.match((await service.operate('POST', '/admin/streams/signals/restart')).statusCode, 404)
})

t.test('what the transmitter says of its stream is believed, and shown', async (t) => {
  const { transmitter, round, state, service } = await setUp(t)
  await round()
  const [id = ''] = transmitter.streams.keys()
  const uri = 'https://schemas.openid.net/secevent/ssf/event-type/stream-updated'
  await transmitter.emit({
    type: 'ssf/stream-updated',
    subject: {},
    claims: { sub_id: { format: 'opaque', id }, events: { [uri]: { status: 'disabled', reason: 'licence expired' } } }
  })
  await round()
  t.match(await state(), { status: 'disabled', statusReason: 'licence expired' })
  t.match(await service.metrics.text(), /stream_enabled{stream="signals"} 0/)
})

const unusable: [name: string, metadata: Record<string, unknown>, code: string, detail: RegExp][] = [
  ['another issuer', { issuer: 'https://evil.example' }, 'ERR_STREAM_ISSUER', /evil/],
  ['no management', { configuration_endpoint: undefined }, 'ERR_STREAM_METADATA', /configuration_endpoint/],
  [
    'an address on another machine without TLS',
    { configuration_endpoint: 'http://10.0.0.1/streams' },
    'ERR_STREAM_METADATA',
    /configuration/
  ],
  ['another way of delivery', { delivery_methods_supported: ['urn:ietf:rfc:8935'] }, 'ERR_STREAM_DELIVERY', /8935/]
]
for (const [name, metadata, code, detail] of unusable) {
  t.test(`metadata with ${name} are of no use, and nothing is made`, async (t) => {
    const { transmitter, round } = await setUp(t)
    transmitter.metadata = metadata
    t.match(await round(), { failure: { code, detail } })
    t.equal(transmitter.streams.size, 0)
  })
}

t.test('a stream of another issuer is not taken', async (t) => {
  const { transmitter, round } = await setUp(t)
  const id = randomUUID()
  transmitter.streams.set(id, {
    stream_id: id,
    iss: 'https://evil.example',
    delivery: {},
    description: 'msal-logout: signals'
  })
  t.match(await round(), { failure: { code: 'ERR_STREAM_ISSUER' } })
})

t.test('a credential that is not taken is said so, once, and the right one is used when it is there', async (t) => {
  const { transmitter, round, service, pass } = await setUp(t)
  transmitter.faults.set(paths.token, 401)
  t.match(await round(), { failure: { code: 'ERR_STREAM_CREDENTIAL' } })
  pass(600)
  t.match(await round(), { failure: { code: 'ERR_STREAM_CREDENTIAL', count: 2 } })
  const lines = service.logs.filter((line) => line.includes('does not work'))
  t.equal(lines.length, 1)
  transmitter.faults.clear()
  pass(600)
  t.equal((await round()).failure, undefined)
  t.ok(service.logs.some((line) => line.includes('works again')))
})

t.test('a stream that cannot be looked after is polled all the same, and that is seen', async (t) => {
  const { transmitter, round, signIn, service, pass, state } = await setUp(t)
  await round()
  transmitter.faults.set(paths.streams, 403)
  pass(4_000)
  t.match(await round(), { failure: { code: 'ERR_STREAM_FORBIDDEN' } })
  await signIn({ homeAccountId: 'a.t', sid: 's1', subject: 'user' })
  await transmitter.emit({ type: 'caep/session-revoked', subject: { session: 's1' } })
  await round()
  t.same(await service.rows(), [])
  t.match(await state(), { failure: { code: 'ERR_STREAM_FORBIDDEN' } }, 'it is not well by that')
  transmitter.faults.clear()
  pass(600)
  t.equal((await round()).failure, undefined)
})

t.test('a stream that a person looks after is polled and verified by nobody', async (t) => {
  const { transmitter, asked, service, round, signIn } = await setUp(t)
  await round()
  const { readStreamConfig } = await import('../fixtures/stream-world.ts')
  const own = readStreamConfig(t, {
    issuer: transmitter.issuer,
    manage: false,
    audiences: [audience],
    pollUrl: `${transmitter.origin}/poll`
  })
  service.streams.replace([own])
  const before = asked('GET', paths.streams).length + asked('POST', paths.streams).length
  await signIn({ homeAccountId: 'a.t', sid: 's1', subject: 'user' })
  await transmitter.emit({ type: 'caep/session-revoked', subject: { session: 's1' } })
  await round()
  await round()
  t.same(await service.rows(), [])
  t.equal(asked('GET', paths.streams).length + asked('POST', paths.streams).length, before)
})

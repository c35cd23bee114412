import { readFileSync } from 'node:fs'
import type { AddressInfo } from 'node:net'
import t from 'tap'
import { matrixMarks, renderMatrix } from './fixtures/matrix.ts'
import { rememberToken } from './fixtures/secrets.ts'
import { build } from './fixtures/service.ts'
import {
  asStored,
  decryptionKeysOf,
  emptyCache,
  readLeft,
  readRequest,
  readSpecimens,
  type Scenario,
  type SpecimenDelivery,
  type SpecimenStream,
  sendBytes
} from './fixtures/specimen.ts'
import { readStreamConfig } from './fixtures/stream-world.ts'

const pollUrlOf = ({ issuer }: SpecimenStream) => `${issuer}/polled-again`

for (const [name, specimen] of readSpecimens()) {
  t.test(`what ${specimen.provider} ${specimen.version} has sent ends what it ended then`, async (t) => {
    let now = 0
    let documents: Scenario['documents'] = {}
    let deliveries: SpecimenDelivery[] = []
    const answers = new Map<string, string>()
    const streams = (specimen.streams ?? []).map((stream) => ({
      ...readStreamConfig(t, {
        name: stream.name,
        issuer: stream.issuer,
        delivery: stream.delivery,
        audiences: stream.audiences,
        manage: false,
        ...(stream.delivery === 'poll' && { pollUrl: pollUrlOf(stream), pollSeconds: 1 })
      }),
      issuers: stream.issuers
    }))

    /** As a transmitter answers a poll: RFC 8936 §2.3. */
    function answerPoll(body: string): object {
      const { ack = [], setErrs = {} } = JSON.parse(body)
      for (const jti of ack) {
        answers.set(jti, 'acknowledged')
      }
      for (const jti of Object.keys(setErrs)) {
        answers.set(jti, 'reported')
      }
      const next = deliveries.shift()
      now = next?.receivedAt ?? now
      return { sets: next === undefined ? {} : { [next.jti]: next.token } }
    }

    const service = await build(t, {
      issuers: specimen.issuers.map((entry) => ({ ...entry })),
      config: {
        streams,
        decryptionKeys: decryptionKeysOf(specimen).map((key) => ({ ...key, isPublished: true }))
      },
      edges: {
        now: () => now,
        fetch: async (url, { method, body }) => {
          if (specimen.streams?.some((stream) => url === pollUrlOf(stream))) {
            return Response.json(answerPoll(String(body)))
          }
          return method === 'POST' // for an access token
            ? Response.json({ access_token: 'any', token_type: 'Bearer', expires_in: 3_600 })
            : Response.json(documents[url] ?? {}, { status: url in documents ? 200 : 404 })
        }
      }
    })
    await service.app.listen({ host: '127.0.0.1', port: 0 })
    const { port } = service.app.server.address() as AddressInfo

    t.ok(specimen.scenarios.length > 0, name)
    for (const scenario of specimen.scenarios) {
      await emptyCache(service)
      documents = { ...documents, ...scenario.documents }
      for (const login of scenario.logins) {
        t.equal((await service.login(asStored(login))).accepted, true)
      }
      for (const request of scenario.requests) {
        now = request.receivedAt
        rememberToken(readRequest(request).token?.raw ?? '')
        t.equal(await sendBytes(port, request.bytes), request.status, `${scenario.name}: the answer`)
      }
      deliveries = [...(scenario.polled ?? [])]
      const [first] = deliveries
      if (first !== undefined) {
        now = first.receivedAt
        await Promise.all(await service.streams.tick(new AbortController().signal))
      }
      for (const { jti, answer } of scenario.polled ?? []) {
        t.equal(answers.get(jti), answer, `${scenario.name}: what the transmitter is answered`)
      }
      t.same(
        await readLeft(service, scenario.logins),
        { rowsLeft: scenario.rowsLeft, sessionsLeft: scenario.sessionsLeft },
        `${scenario.name}: what is left`
      )
    }
  })
}

t.test("the table of docs/providers.md is the specimens'", async (t) => {
  const [begin, end] = matrixMarks
  const [, table = ''] = readFileSync('docs/providers.md', 'utf8').split(new RegExp(`${begin}|${end}`))
  t.equal(table.trim(), renderMatrix([...readSpecimens().values()]), 'RECORD=1 npm run test:interop writes it')
})

import { readFileSync } from 'node:fs'
import type { AddressInfo } from 'node:net'
import t from 'tap'
import { matrixMarks, renderMatrix } from './fixtures/matrix.ts'
import { rememberToken } from './fixtures/secrets.ts'
import { build } from './fixtures/service.ts'
import {
  asStored,
  emptyCache,
  readLeft,
  readRequest,
  readSpecimens,
  type Scenario,
  sendBytes
} from './fixtures/specimen.ts'

for (const [name, specimen] of readSpecimens()) {
  t.test(`what ${specimen.provider} ${specimen.version} has sent ends what it ended then`, async (t) => {
    let now = 0
    let documents: Scenario['documents'] = {}
    const service = await build(t, {
      issuers: specimen.issuers.map((entry) => ({ ...entry })),
      edges: {
        now: () => now,
        fetch: async (url) =>
          Response.json(documents[String(url)] ?? {}, { status: String(url) in documents ? 200 : 404 })
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

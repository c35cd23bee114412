// A page whose own name leads to the operators' listener, as a real browser sends its requests.
import type { AddressInfo } from 'node:net'
import t from 'tap'
import { startBrowser } from '../fixtures/browser.ts'
import { build } from '../fixtures/service.ts'

const browser = await startBrowser(t, ['--host-resolver-rules=MAP evil.example 127.0.0.1'])

t.test('a page of another name reads nothing of the operators’ listener, whatever headers it adds', async (t) => {
  const { admin } = await build(t)
  await admin.listen({ host: '127.0.0.1', port: 0 })
  const { port } = admin.server.address() as AddressInfo
  const page = await browser.newPage({ bypassCSP: true })
  t.teardown(() => page.close())
  const open = async (url: string) => (await page.goto(url))?.status()
  t.equal(await open(`http://evil.example:${port}/metrics`), 421)
  t.equal(await open(`http://localhost:${port}/metrics`), 200)
  t.equal(await open(`http://127.0.0.1:${port}/metrics`), 200)

  await open(`http://evil.example:${port}/`) // as good as the attacker's own, once his name leads here
  const statuses = await page.evaluate(async () => {
    const headers = [
      {},
      { 'accept-language': '', 'user-agent': 'kube-probe/1.34', 'sec-fetch-site': 'none' },
      { 'x-forwarded-proto': 'https', 'x-forwarded-host': 'localhost', forwarded: 'host=localhost;proto=https' }
    ]
    const asked = headers.flatMap((each) =>
      ['/metrics', '/readyz', '/openapi.json', '/admin/records'].map((path) => fetch(path, { headers: each }))
    )
    return (await Promise.all(asked)).map(({ status }) => status)
  })
  t.same([...new Set(statuses)], [421])
})

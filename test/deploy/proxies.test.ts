import t from 'tap'
import { seeProxyDuties } from '../fixtures/proxy-duties.ts'

for (const name of ['nginx', 'haproxy'] as const) {
  t.test(`${name} publishes signals alone, hides what it must, and hands on what an outage defers`, async (t) => {
    await seeProxyDuties(t, name)
  })
}

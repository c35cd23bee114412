// deploy/caddy by Caddy itself: Debian's is older than the buffer that a second try needs.
import t from 'tap'
import { seeProxyDuties } from '../fixtures/proxy-duties.ts'
import { goProgram } from './tools.ts'

process.env.CADDY = goProgram('caddy', 'github.com/caddyserver/caddy/v2/cmd/caddy', 'v2.11.9')

t.test('Caddy publishes signals alone, hides what it must, and hands on what an outage defers', async (t) => {
  await seeProxyDuties(t, 'caddy')
})

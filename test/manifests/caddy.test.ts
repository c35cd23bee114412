// deploy/caddy by Caddy itself: Debian's is older than the buffer that a second try needs.
import t from 'tap'
import { startCluster } from '../fixtures/cluster.ts'
import { seeProxyDuties } from '../fixtures/proxy-duties.ts'
import { startReverseProxy } from '../fixtures/reverse-proxy.ts'
import { createRollout } from '../fixtures/rolling-restart.ts'
import { goProgram } from './tools.ts'

const rounds = Number(process.env.DEPLOY_ROUNDS ?? 1)
process.env.CADDY = goProgram('caddy', 'github.com/caddyserver/caddy/v2/cmd/caddy', 'v2.11.9')

t.test('Caddy publishes signals alone, hides what it must, and hands on what an outage defers', async (t) => {
  await seeProxyDuties(t, 'caddy')
})

t.test(
  'three instances are restarted under 200 sign-outs a second, and none is missed',
  { timeout: 1_200_000 },
  async (t) => {
    const cluster = await startCluster(t, { DRAIN_SECONDS: '1' })
    const proxy = await startReverseProxy(t, 'caddy', cluster.instances)
    const roll = createRollout(cluster, proxy)
    for (let round = 1; round <= rounds; round += 1) {
      const { bad, late, lost, summary } = await roll()
      t.comment(`Caddy, round ${round}: ${summary}`)
      t.equal(bad, 0, 'every answer is 200 or deferred')
      t.equal(late, 0, 'none later than 2 s')
      t.equal(lost, 0, 'nothing is lost')
    }
  }
)

// `npm run test:deploy`: rolling restarts under load, behind the proxies of deploy/. DEPLOY_ROUNDS says how often.
import t, { type Test } from 'tap'
import { type Cluster, startCluster } from '../fixtures/cluster.ts'
import { type ProxyName, startReverseProxy } from '../fixtures/reverse-proxy.ts'
import { createRollout } from '../fixtures/rolling-restart.ts'

const rounds = Number(process.env.DEPLOY_ROUNDS ?? 1)
const options = { timeout: 1_200_000 }

/** HAProxy's file without a second try. */
const tryOnce = (text: string) =>
  text
    .replace(/^ {2}(retries|retry-on|option redispatch).*\n/gm, '')
    .replace('default-server', 'retries 0\n  default-server')

async function restartUnderLoad(
  t: Test,
  cluster: Cluster,
  name: ProxyName,
  times: number,
  change?: (text: string) => string
): Promise<void> {
  const proxy = await startReverseProxy(t, name, cluster.instances, change)
  const roll = createRollout(cluster, proxy)
  for (let round = 1; round <= times; round += 1) {
    const { bad, late, lost, summary } = await roll()
    t.comment(`${name}, round ${round}: ${summary}`)
    t.equal(bad, 0, 'every answer is 200 or deferred')
    t.equal(late, 0, 'none later than 2 s')
    t.equal(lost, 0, 'nothing is lost')
  }
}

t.test('nginx: three instances are restarted under 200 sign-outs a second, and none is missed', options, async (t) => {
  await restartUnderLoad(t, await startCluster(t, { DRAIN_SECONDS: '1' }), 'nginx', rounds)
})

t.test('HAProxy: the same, by DRAIN_SECONDS and /readyz alone, without a second try', options, async (t) => {
  await restartUnderLoad(t, await startCluster(t, { DRAIN_SECONDS: '4' }), 'haproxy', Math.ceil(rounds / 3), tryOnce)
})

t.test(
  'the count sees what goes wrong: a second try is what nginx needs when an instance is killed',
  options,
  async (t) => {
    const cluster = await startCluster(t, {})
    const without = (text: string) => text.replace(/proxy_next_upstream .*;/, 'proxy_next_upstream off;')
    const proxy = await startReverseProxy(t, 'nginx', cluster.instances, without)
    const { bad, summary } = await createRollout(cluster, proxy)('SIGKILL')
    t.comment(`nginx without a second try: ${summary}`)
    t.not(bad, 0)
  }
)

t.test('the count sees what goes wrong: without DRAIN_SECONDS HAProxy needs a second try', options, async (t) => {
  const cluster = await startCluster(t, {})
  const proxy = await startReverseProxy(t, 'haproxy', cluster.instances, tryOnce)
  const { bad, summary } = await createRollout(cluster, proxy)()
  t.comment(`HAProxy without either: ${summary}`)
  t.not(bad, 0)
})

// A silent token from the cache, as a web app gets it for each request: through our plugin, and through
// msal-node's own DistributedCachePlugin over one `select`.
import { randomBytes } from 'node:crypto'
import { DistributedCachePlugin, type ICachePlugin } from '@azure/msal-node'
import { createTokenCache } from '../src/token-cache/index.ts'
import { audience, createTokenEndpoint, redeem, silent } from '../test/fixtures/msal.ts'
import type { Database } from './database.ts'
import { quantile } from './statistics.ts'

export type SilentName = 'our plugin' | 'our plugin, encrypted' | 'DistributedCachePlugin'

const homeAccountId = 'silent.tenant'

export async function measureSilent(database: Database, count: number): Promise<Record<SilentName, number>> {
  const { pool } = database
  const person = { homeAccountId, subject: 'subject', sid: 'silent' }
  const plain = createTokenCache({ pool, clientId: audience })
  const encrypted = createTokenCache({
    pool,
    clientId: 'encrypted',
    encryption: { current: 'k1', keys: { k1: randomBytes(32) } }
  })
  const endpoint = realisticEndpoint(audience)
  await redeem(plain.forLogin(), endpoint, person)
  await redeem(encrypted.forLogin(), realisticEndpoint('encrypted'), person, ['api-1'], 'encrypted')

  await pool.query('drop table if exists public.distributed')
  await pool.query('create table public.distributed (key text primary key, value text not null)')
  const distributed = () =>
    new DistributedCachePlugin(
      {
        async get(key) {
          const { rows } = await pool.query<{ value: string }>({
            name: 'distributed_get',
            text: 'select value from public.distributed where key = $1',
            values: [key]
          })
          return rows[0]?.value ?? ''
        },
        async set(key, value) {
          await pool.query(
            'insert into public.distributed values ($1, $2) on conflict (key) do update set value = $2',
            [key, value]
          )
          return value
        }
      },
      { getKey: async () => homeAccountId, extractKey: async () => homeAccountId }
    )
  await redeem(distributed(), endpoint, person)

  const contenders: [SilentName, () => ICachePlugin, string][] = [
    ['our plugin', () => plain.forAccount(homeAccountId), audience],
    ['DistributedCachePlugin', distributed, audience],
    ['our plugin, encrypted', () => encrypted.forAccount(homeAccountId), 'encrypted']
  ]
  const latencies: Record<SilentName, number[]> = {
    'our plugin': [],
    'our plugin, encrypted': [],
    DistributedCachePlugin: []
  }
  // In turn for each token, so that whatever disturbs the machine disturbs all alike.
  for (let i = -200; i < count; i++) {
    for (const [name, plugin, clientId] of contenders) {
      const startedAt = performance.now()
      const result = await silent(plugin(), endpoint, homeAccountId, {}, clientId)
      const ms = performance.now() - startedAt
      if (result?.fromCache !== true) {
        throw new Error(`${name}: the token did not come from the cache`)
      }
      if (i >= 0) {
        latencies[name].push(ms)
      }
    }
  }
  return {
    'our plugin': quantile(latencies['our plugin'], 0.5),
    'our plugin, encrypted': quantile(latencies['our plugin, encrypted'], 0.5),
    DistributedCachePlugin: quantile(latencies.DistributedCachePlugin, 0.5)
  }
}

/** Tokens as long as Entra ID's: about 6.6 KB in all. */
function realisticEndpoint(clientId: string): ReturnType<typeof createTokenEndpoint> {
  const endpoint = createTokenEndpoint(clientId)
  return {
    ...endpoint,
    async sendPostRequestAsync(...call: Parameters<typeof endpoint.sendPostRequestAsync>) {
      const answer = await endpoint.sendPostRequestAsync(...call)
      const body = answer.body as Record<string, string>
      return {
        ...answer,
        body: {
          ...body,
          access_token: `${body.access_token}${randomBytes(1_500).toString('base64url')}`,
          refresh_token: `${body.refresh_token}${randomBytes(1_200).toString('base64url')}`
        } as never
      }
    }
  }
}

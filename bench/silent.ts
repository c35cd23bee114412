// A silent token from the cache, as a web app gets it for each request: through our plugin, and through
// msal-node's own DistributedCachePlugin over one `select`, written as most apps write it: a statement without a name.
import { randomBytes } from 'node:crypto'
import { DistributedCachePlugin, type ICachePlugin } from '@azure/msal-node'
import { createTokenCache } from '../clients/node/src/index.ts'
import { audience, createTokenEndpoint, redeem, silent } from '../test/fixtures/msal.ts'
import type { Database } from './database.ts'
import { quantile } from './statistics.ts'

export const silentNames = [
  'our plugin',
  'DistributedCachePlugin',
  'our plugin, encrypted',
  'our plugin, prepared',
  'DistributedCachePlugin, prepared'
] as const

export type SilentName = (typeof silentNames)[number]

const homeAccountId = 'silent.tenant'

export async function measureSilent(database: Database, count: number): Promise<Record<SilentName, number>> {
  const { pool } = database
  const person = { homeAccountId, subject: 'subject', sid: 'silent' }
  const plain = createTokenCache({ pool, clientId: audience })
  const prepared = createTokenCache({ pool, clientId: audience, preparedStatements: true })
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
  const distributed = (name?: string) =>
    new DistributedCachePlugin(
      {
        async get(key) {
          const { rows } = await pool.query<{ value: string }>({
            ...(name === undefined ? {} : { name }),
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

  const contenders: Record<SilentName, { plugin: () => ICachePlugin; clientId: string }> = {
    'our plugin': { plugin: () => plain.forAccount(homeAccountId), clientId: audience },
    DistributedCachePlugin: { plugin: () => distributed(), clientId: audience },
    'our plugin, encrypted': { plugin: () => encrypted.forAccount(homeAccountId), clientId: 'encrypted' },
    'our plugin, prepared': { plugin: () => prepared.forAccount(homeAccountId), clientId: audience },
    'DistributedCachePlugin, prepared': { plugin: () => distributed('distributed_get'), clientId: audience }
  }
  const latencies = new Map<SilentName, number[]>(silentNames.map((name) => [name, []]))
  // In turn for each token, so that what disturbs the machine disturbs all alike.
  for (let i = -200; i < count; i++) {
    for (const name of silentNames) {
      const { plugin, clientId } = contenders[name]
      const startedAt = performance.now()
      const result = await silent(plugin(), endpoint, homeAccountId, {}, clientId)
      const ms = performance.now() - startedAt
      if (result?.fromCache !== true) {
        throw new Error(`${name}: the token did not come from the cache`)
      }
      if (i >= 0) {
        latencies.get(name)?.push(ms)
      }
    }
  }
  const p50 = (name: SilentName) => quantile(latencies.get(name) ?? [], 0.5)
  return {
    'our plugin': p50('our plugin'),
    DistributedCachePlugin: p50('DistributedCachePlugin'),
    'our plugin, encrypted': p50('our plugin, encrypted'),
    'our plugin, prepared': p50('our plugin, prepared'),
    'DistributedCachePlugin, prepared': p50('DistributedCachePlugin, prepared')
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

// As usually written: Fastify, jose's `jwtVerify` with a remote key set, and for every token a transaction of
// plain statements on the same tables, by pg's pool.
import formbody from '@fastify/formbody'
import fastify, { LogController } from 'fastify'
import { createRemoteJWKSet, jwtVerify } from 'jose'
import pg from 'pg'

const issuer = String(process.env.ISSUER)
const jwks = createRemoteJWKSet(new URL(`${issuer}/jwks`))
const pool = new pg.Pool({ connectionString: String(process.env.DATABASE_URL), max: Number(process.env.POOL_SIZE) })
const app = fastify({ logger: true, logController: new LogController({ disableRequestLogging: true }) })
app.register(formbody)

app.get('/healthz', async () => ({ status: 'ok' }))

app.post<{ Body: { logout_token: string } }>('/backchannel-logout', async (request, reply) => {
  const { payload } = await jwtVerify(request.body.logout_token, jwks, {
    issuer,
    audience: 'app-0',
    algorithms: ['RS256'],
    requiredClaims: ['jti', 'iat', 'exp']
  })
  if (typeof payload.events !== 'object' || 'nonce' in payload || typeof payload.sid !== 'string') {
    return reply.code(400).send({ error: 'invalid_request' })
  }
  const client = await pool.connect()
  try {
    await client.query('begin')
    await client.query(
      `insert into msal_logout.records (id, source, issuer, jti, sid) values (md5($1 || $2)::uuid, 'backchannel', $1, $2, $3)`,
      [issuer, payload.jti, payload.sid]
    )
    const { rows } = await client.query<{ home_account_id: string }>(
      `select distinct home_account_id from msal_logout.sessions where issuer = $1 and session_key = 'sid=' || $2`,
      [issuer, payload.sid]
    )
    const accounts = rows.map(({ home_account_id }) => home_account_id)
    await client.query('delete from msal_logout.token_cache where home_account_id = any ($1)', [accounts])
    await client.query('delete from msal_logout.sessions where home_account_id = any ($1)', [accounts])
    await client.query('commit')
  } catch (error) {
    await client.query('rollback')
    throw error
  } finally {
    client.release()
  }
  request.log.info({ issuer, sid: payload.sid }, 'signed out')
  return reply.code(200).send()
})

await app.listen({ host: '127.0.0.1', port: Number(process.env.PORT) })
process.on('SIGTERM', () => process.exit(0))

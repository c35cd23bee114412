// What an operator's purge reaches: all that was there when it began.
import t from 'tap'
import { nowSeconds } from './fixtures/orders.ts'
import { build } from './fixtures/service.ts'
import { until } from './fixtures/until.ts'

const reason = 'test'

t.test('a purge ends sessions whose ID token is ahead of our clock, by any name', async (t) => {
  for (const name of ['subject', 'object', 'account', 'sid'] as const) {
    const service = await build(t)
    const { issuer } = service.provider
    const ids = { homeAccountId: 'u.t', sid: 's1', subject: 'u' }
    await service.database.query(
      `select * from msal_logout.login('a', 'u.t', $1, $2, $3, $4, $5, '{}', 'json', '1 hour', 'user', 'oid', 'tid')`,
      [ids.homeAccountId, issuer, ids.sid, ids.subject, nowSeconds() + 30]
    )
    const selectors = {
      subject: { issuer, subject: ids.subject },
      object: { tenantId: 'tid', objectId: 'oid' },
      account: { homeAccountId: ids.homeAccountId },
      sid: { issuer, sid: ids.sid }
    }
    const answer = await service.operate('POST', '/admin/purges', { ...selectors[name], reason })
    t.match(answer.json(), { rows: 1, sessions: 1 }, name)
    t.same(await service.rows(), [], name)
  }
})

t.test('a purge that names the issuer keeps a login out that was under way', async (t) => {
  const service = await build(t)
  const { issuer } = service.provider
  const answer = await service.operate('POST', '/admin/purges', { homeAccountId: 'c.t', issuer, reason })
  t.equal(answer.statusCode, 200)
  t.match(await service.login({ homeAccountId: 'c.t', sid: 's1' }), { accepted: false })
})

t.test('a purge takes a login that is being stored when it begins, with and without the issuer', async (t) => {
  for (const subject of ['u', 'c.t']) {
    for (const names of [true, false]) {
      const service = await build(t)
      const { issuer } = service.provider
      const login = await service.database.pool.connect()
      t.teardown(() => login.release())
      await login.query('begin')
      await login.query(`select msal_logout.login('a', 'c.t', 'c.t', $1, 's1', $2, $3, '{}', 'json', '1 hour')`, [
        issuer,
        subject,
        nowSeconds() - 60
      ])
      let isOver = false
      const purge = service
        .operate('POST', '/admin/purges', { homeAccountId: 'c.t', ...(names && { issuer }), reason })
        .finally(() => {
          isOver = true
        })
      await until('the purge waits for the login, or is over', async () => {
        const waiting = await service.database.query(
          `select from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()`
        )
        return waiting.length > 0 || isOver
      })
      await login.query('commit')
      const answer = await purge
      const name = `${subject}${names ? ', with the issuer' : ''}`
      t.match(answer.json(), { rows: 1, sessions: 1 }, name)
      t.same(await service.rows(), [], name)
    }
  }
})

t.test('a session goes with its row when that expires, so that no purge leaves it active', async (t) => {
  const service = await build(t)
  await service.login({ homeAccountId: 'u.t', sid: 's1' })
  await service.database.query(`update msal_logout.token_cache set expires_at = now()`)
  await service.stores.slow.cleanUp(100)
  t.same(await service.database.query('select sid from msal_logout.sessions'), [])
})

t.test('a row that is full of sessions takes a further login, and the oldest one ends', async (t) => {
  const service = await build(t)
  const { issuer } = service.provider
  await service.login({ homeAccountId: 'u.t', sid: 'first' })
  await service.database.query(
    `insert into msal_logout.sessions (issuer, session_key, client_id, partition_key, sid, subject, account_issuer,
      home_account_id, issued_at, created_at, expires_at)
    select $1, 'sid=s' || n, 'client-a', 'u.t', 's' || n, 'subject', msal_logout.issuer_group($1), 'u.t', 9e9, now() - interval '1 day', now() + interval '1 day'
    from generate_series(1, 999) n`,
    [issuer]
  )
  t.match(await service.login({ homeAccountId: 'u.t', sid: 'new' }), { accepted: true })
  const sids = await service.database.query<{ sid: string }>(
    `select sid from msal_logout.sessions where sid in ('first', 'new') order by 1`
  )
  t.same(
    sids.map(({ sid }) => sid),
    ['first', 'new']
  )
  t.match(await service.database.query('select count(*)::int as n from msal_logout.sessions'), [{ n: 1_000 }])
})

import t from 'tap'
import { build } from './fixtures/service.ts'

t.test('a logout token empties the cache of every app', async (t) => {
  const service = await build(t)
  await service.login({ clientId: 'client-a', homeAccountId: 'u.t', sid: 's1', subject: 'pairwise-a' })
  await service.login({ clientId: 'client-b', homeAccountId: 'u.t', sid: 's1', subject: 'pairwise-b' })
  await service.login({ clientId: 'client-a', homeAccountId: 'other.t', sid: 's2' })

  const answer = await service.post(await service.provider.logoutToken({ sid: 's1' }))
  t.equal(answer.statusCode, 200)
  t.equal(answer.body, '')
  t.same(await service.rows(), ['client-a/other.t'])
})

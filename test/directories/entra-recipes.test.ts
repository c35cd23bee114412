// The workflow definitions of deploy/entra, as Azure Logic Apps would run them: the expressions are put in, and the request
// goes to the service with the access token of a managed identity. And the snippet for web apps in docs/entra-id.md.
import { readFileSync } from 'node:fs'
import { InteractionRequiredAuthError } from '@azure/msal-node'
import t from 'tap'
import typescript from 'typescript'
import { audience, operatorsOf, role } from '../fixtures/operators.ts'
import { build } from '../fixtures/service.ts'

const tenantId = '11111111-1111-4111-8111-111111111111'
const objectId = '22222222-2222-4222-8222-222222222222'

interface Definition {
  readonly parameters: object
  readonly actions: { readonly Purge: { readonly type: string; readonly inputs: Inputs } }
}

interface Inputs {
  readonly method: string
  readonly uri: string
  readonly headers: Record<string, string>
  readonly body: Record<string, string>
  readonly authentication: { readonly type: string; readonly audience: string }
}

interface Run {
  readonly triggerBody: object
  readonly runName: string
  readonly time: string
}

/** Puts the values in for expressions, of those that the definitions use. */
function evaluate<T>(value: T, run: Run): T {
  const functions: Record<string, (argument: string) => unknown> = {
    parameters: (name) =>
      ({ adminUrl: 'https://operators.example', audience, tenantId })[name as 'adminUrl' | 'audience' | 'tenantId'],
    triggerBody: () => run.triggerBody,
    workflow: () => ({ run: { name: run.runName } }),
    utcNow: () => run.time
  }
  const expression = (text: string): unknown => {
    const [, name = '', argument = '', path = ''] = /^(\w+)\((?:'([^']*)')?\)((?:\?\['\w+'\])*)$/.exec(text) ?? []
    const call = functions[name]
    if (call === undefined) {
      throw new Error(`no such expression: ${text}`)
    }
    return [...path.matchAll(/'(\w+)'/g)].reduce<unknown>(
      (found, [, key = '']) => (found as Record<string, unknown> | undefined)?.[key],
      call(argument)
    )
  }
  return JSON.parse(
    JSON.stringify(value, (_key, text: unknown) =>
      typeof text !== 'string'
        ? text
        : /^@[^{]/.test(text)
          ? expression(text.slice(1))
          : text.replace(/@\{(.*?)\}/g, (_all, inner: string) => String(expression(inner) ?? ''))
    )
  )
}

const triggerBodies = {
  'lifecycle-workflow': { data: { subject: { id: objectId }, workflow: { displayName: 'Leaver' } } },
  'sentinel-playbook': { Entity: { properties: { AadUserId: objectId } } }
}

for (const [name, triggerBody] of Object.entries(triggerBodies)) {
  t.test(`deploy/entra/${name}.json purges the user, once for each run, and spares a login after it`, async (t) => {
    const service = await build(t)
    const { accessToken, purge } = operatorsOf(t, service, false)
    const { definition } = JSON.parse(readFileSync(`deploy/entra/${name}.json`, 'utf8')) as { definition: Definition }
    const issuedAt = Math.floor(Date.now() / 1_000)
    // Of the member an account by object id; of a guest's account, which bears the ids of another tenant.
    await service.login({ homeAccountId: `${objectId}.${tenantId}`, issuedAt, oid: objectId, tid: tenantId })
    await service.login({ homeAccountId: 'guest.home', issuedAt, oid: objectId, tid: tenantId, sid: 'other' })
    await service.login({ homeAccountId: 'another.user', issuedAt, oid: 'another', tid: tenantId, sid: 'another' })

    // utcNow() has seven digits after the second's point.
    const time = `${new Date((issuedAt + 1) * 1_000).toISOString().slice(0, 19)}.1234567Z`
    const { type, inputs } = definition.actions.Purge
    const request = evaluate(inputs, { triggerBody, runName: '08585', time })
    t.equal(type, 'Http')
    t.equal(request.method, 'POST')
    t.equal(request.uri, 'https://operators.example/admin/purges')
    t.same(request.authentication, { type: 'ManagedServiceIdentity', audience })

    const identity = { sub: 'identity', oid: 'identity', azp: undefined, appid: 'identity', roles: [role] }
    const authorization = `Bearer ${await accessToken(identity)}`
    const answer = await purge(authorization, request.body, request.headers)
    t.equal(answer.statusCode, 200, answer.body)
    t.match(answer.json(), { accounts: 2, rows: 2 })
    t.same(await service.rows(), ['client-a/another.user'])

    await service.login({
      homeAccountId: `${objectId}.${tenantId}`,
      issuedAt: issuedAt + 5,
      oid: objectId,
      tid: tenantId,
      sid: 'new'
    })
    const again = await purge(authorization, request.body, request.headers)
    t.equal(again.statusCode, 200)
    t.equal(again.json().id, answer.json().id, 'a repeated request is the same purge')
    t.same(await service.rows(), [`client-a/${objectId}.${tenantId}`, 'client-a/another.user'])

    const withoutRole = `Bearer ${await accessToken({ ...identity, roles: ['Other'] })}`
    t.equal((await purge(withoutRole, request.body)).statusCode, 403)
  })
}

t.test('the snippet for a web app signs the declined account out of all apps, and spares what is newer', async (t) => {
  const service = await build(t)
  const { accessToken, purge } = operatorsOf(t, service, false)
  const [, code = ''] = /```ts\nimport [^\n]*\n(.*?)```/s.exec(readFileSync('docs/entra-id.md', 'utf8')) ?? []
  const { outputText } = typescript.transpileModule(code, {
    compilerOptions: { target: typescript.ScriptTarget.ES2023 }
  })
  const requests: { url: string; status: number }[] = []
  const purgeIfDeclined = new Function(
    'InteractionRequiredAuthError',
    'app',
    'adminUrl',
    'fetch',
    `${outputText}\nreturn purgeIfDeclined`
  )(
    InteractionRequiredAuthError,
    {
      acquireTokenByClientCredential: async () => ({ accessToken: await accessToken({ appid: 'shop', roles: [role] }) })
    },
    'https://operators.example',
    async (url: string, { headers, body }: { headers: { authorization: string }; body: string }) => {
      const answer = await purge(headers.authorization, JSON.parse(body))
      requests.push({ url, status: answer.statusCode })
    }
  ) as (error: unknown, account: object) => Promise<void>

  const iat = Math.floor(Date.now() / 1_000)
  const account = { homeAccountId: 'u.t', idTokenClaims: { iat } }
  await service.login({ clientId: 'client-a', homeAccountId: 'u.t', issuedAt: iat })
  await service.login({ clientId: 'client-b', homeAccountId: 'u.t', issuedAt: iat - 60 })
  await purgeIfDeclined(new Error('the network'), account)
  t.same(requests, [])
  await purgeIfDeclined(new InteractionRequiredAuthError('invalid_grant', 'AADSTS50173'), account)
  t.same(requests, [{ url: 'https://operators.example/admin/purges', status: 200 }])
  t.same(await service.rows(), [])
  await service.login({ homeAccountId: 'u.t', issuedAt: iat + 1, sid: 'new' })
  await purgeIfDeclined(new InteractionRequiredAuthError('invalid_grant', 'AADSTS50173'), account)
  t.same(await service.rows(), ['client-a/u.t'])
})

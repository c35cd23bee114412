// What the other tests rely on: that a secret which leaves the service fails them.
import t from 'tap'
import { adminToken, findSecret, loginPayload, refuseSecrets } from './fixtures/secrets.ts'
import { runServer, startServer } from './fixtures/server.ts'
import { build } from './fixtures/service.ts'

t.test('every kind of secret is found, in every form in which it may leave', async (t) => {
  const { provider } = await build(t)
  const token = await provider.logoutToken()
  const [header, payload, signature] = token.split('.')
  const bytes = Buffer.from(`{"AccessToken":"${loginPayload}"}`)
  const secrets: Record<string, string | undefined> = {
    'a token': token,
    'the header of a token': header,
    'the payload of a token': payload,
    'the signature of a token': signature,
    "an operator's token": adminToken,
    'a header with credentials': 'Bearer 0123456789abcdef',
    'a form': 'logout_token=x',
    'the way to a database': 'postgres://service:password@db/app',
    'a payload': loginPayload,
    'a payload in hex': Buffer.from(loginPayload).toString('hex'),
    'a payload in base64': Buffer.from(loginPayload).toString('base64'),
    'a payload in a cache': String(bytes)
  }
  for (const [name, secret] of Object.entries(secrets)) {
    t.ok(findSecret(`{"msg":"it said \\"${secret}\\""}`), name)
  }
  for (const line of [
    '{"sid":"5c0e3b1e-9a3b-4a55-8d6b-0a3f1c2d4e5f"}',
    'an operator, a bearer of news',
    'x'.repeat(400)
  ]) {
    t.equal(findSecret(line), undefined, line.slice(0, 40))
  }
})

t.test('a secret in an answer of either listener, in its headers, or in the log is found', async (t) => {
  const service = await build(t)
  const token = await service.provider.logoutToken()
  const [, , signature = ''] = token.split('.')
  service.app.get('/body', async () => ({ token }))
  service.app.get('/header', async (_request, reply) => reply.header('x-debug', signature).send())
  service.admin.get('/body', async () => loginPayload)
  await service.app.inject('/body')
  await service.app.inject('/header')
  await service.admin.inject('/body')
  service.app.log.debug({ token }, 'a token')
  t.equal(service.secrets.found.length, 4)
  t.throws(() => refuseSecrets(service.secrets))
  service.secrets.found.length = 0
})

t.test('a secret in the output of a process is found', async (t) => {
  const password = 'a-password-of-the-database'
  const say = `console.log(process.env.DATABASE_URL.slice(19, -7)); console.error('${loginPayload}')`
  const { secrets, exited } = runServer(t, { DATABASE_URL: `postgres://service:${password}@db/app` }, [
    process.execPath,
    '-e',
    say,
    '--'
  ])
  await exited
  t.equal(secrets.found.length, 2)
  secrets.found.length = 0
})

t.test('a secret in the answer of a process is found', async (t) => {
  const answer = `(request, response) => response.setHeader('x-path', request.url).end('${loginPayload}')`
  const say = `require('node:http').createServer(${answer}).listen(process.env.PORT, '127.0.0.1')`
  const server = await startServer(t, {}, [process.execPath, '-e', say, '--'])
  await server.fetch(`${server.publicUrl}/?logout_token=x`)
  const harmless = await server.fetch(server.publicUrl, { method: 'HEAD' })
  t.equal(harmless.status, 200)
  t.equal(server.secrets.found.length, 1)
  server.secrets.found.length = 0
})

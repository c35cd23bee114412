import { context, trace } from '@opentelemetry/api'
import { AsyncLocalStorageContextManager } from '@opentelemetry/context-async-hooks'
import { BasicTracerProvider, InMemorySpanExporter, SimpleSpanProcessor } from '@opentelemetry/sdk-trace-base'
import t from 'tap'
import { build } from './fixtures/service.ts'

t.test('with an SDK registered, a signal is a trace of its parts, and an error shows by its code alone', async (t) => {
  const exporter = new InMemorySpanExporter()
  const provider = new BasicTracerProvider({ spanProcessors: [new SimpleSpanProcessor(exporter)] })
  context.setGlobalContextManager(new AsyncLocalStorageContextManager().enable())
  trace.setGlobalTracerProvider(provider)
  t.teardown(() => {
    trace.disable()
    context.disable()
  })
  const service = await build(t)
  await service.login({ sid: 'secret-sid', subject: 'secret-subject' })
  await service.post(await service.provider.logoutToken({ sid: 'secret-sid' }))
  const done = exporter.getFinishedSpans()
  t.same(
    done.map(({ name }) => name),
    ['verify', 'sign out', 'receive']
  )
  const logout = done[2]
  t.match(logout?.attributes, {
    'msal_logout.source': 'backchannel',
    'msal_logout.outcome': 'done',
    'msal_logout.issuer': 'main',
    'msal_logout.sessions': 1,
    'msal_logout.rows': 1
  })
  t.ok(done.every((span) => span === logout || span.parentSpanContext?.spanId === logout?.spanContext().spanId))

  exporter.reset()
  await service.post(await service.provider.logoutToken({ sid: 'secret-sid', nonce: 'secret-nonce' }))
  const rejected = exporter.getFinishedSpans()
  t.match(rejected, [{ name: 'verify', attributes: { 'error.type': 'ERR_TOKEN_NONCE' }, status: { code: 2 } }, {}])
  for (const { attributes, events, status } of [...done, ...rejected]) {
    t.notMatch(JSON.stringify({ attributes, events, status }), /secret|eyJ/)
  }
})

t.test('without an SDK nothing is recorded, and nothing else changes', async (t) => {
  const service = await build(t)
  t.equal((await service.post(await service.provider.logoutToken())).statusCode, 200)
  t.equal(trace.getActiveSpan(), undefined)
})

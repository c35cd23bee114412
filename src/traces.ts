import { type Attributes, SpanStatusCode, trace } from '@opentelemetry/api'

/**
 * Does the work inside a span of OpenTelemetry. Where the process has registered no SDK, which is the default, it is the
 * work alone.
 *
 * @param name of the span
 * @param work throws as it would without a span; its span bears the `code` of an error alone
 * @param describe what a span may bear of its result: names and numbers, never a sid or a subject
 */
export function traced<T>(name: string, work: () => Promise<T>, describe?: (result: T) => Attributes): Promise<T> {
  return trace.getTracer('msal-logout').startActiveSpan(name, async (span) => {
    try {
      const result = await work()
      if (describe !== undefined && span.isRecording()) {
        span.setAttributes(describe(result))
      }
      return result
    } catch (error) {
      const code = error instanceof Error && 'code' in error ? String(error.code) : 'unknown'
      span.setAttribute('error.type', code).setStatus({ code: SpanStatusCode.ERROR })
      throw error
    } finally {
      span.end()
    }
  })
}

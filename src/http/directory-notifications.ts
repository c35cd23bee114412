import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'

/** Takes what is posted in the name of an issuer's directory. It is quick, and waits for nothing. */
export interface NotificationSink {
  /** Whether the directory of the issuer of this name is asked to post. */
  isWanted(name: string): boolean
  /** False if the body is not what a directory posts. */
  take(name: string, body: string): boolean
}

/** How the answers look that every route gives. */
export interface NotificationAnswers {
  readonly notFound: (reply: FastifyReply, description: string) => FastifyReply
  readonly invalid: (reply: FastifyReply, status: number, description: string) => FastifyReply
}

export const notificationsUrl = '/directory-notifications/:name'

// One that says something is some 500 bytes, and they come together.
const bodyLimitBytes = 256 * 1024
const maxValidationTokenLength = 1_024
// What is sent back is anybody's text: no browser takes it for more.
const validationHeaders = {
  'content-type': 'text/plain; charset=utf-8',
  'content-security-policy': "default-src 'none'; sandbox",
  'x-content-type-options': 'nosniff'
}

/**
 * Adds the route of change notifications.
 * https://learn.microsoft.com/graph/change-notifications-delivery-webhooks
 *
 * @param scope takes a body as text
 */
export function addNotificationRoute(
  scope: FastifyInstance,
  sink: NotificationSink,
  { notFound, invalid }: NotificationAnswers
): void {
  scope.post<{ Params: { name: string }; Querystring: { validationToken?: unknown } }>(
    notificationsUrl,
    { bodyLimit: bodyLimitBytes },
    async ({ params: { name }, query: { validationToken }, body }, reply) => {
      if (!sink.isWanted(name)) {
        return notFound(reply, 'there is nothing here')
      }
      if (validationToken !== undefined) {
        return isEchoable(validationToken)
          ? reply.headers(validationHeaders).send(validationToken)
          : invalid(reply, 400, 'the validation token is not valid')
      }
      // Not 200: what it says is looked at later. From whom it is makes no difference.
      return sink.take(name, textOf(body)) ? reply.code(202).send() : invalid(reply, 400, 'the body is not valid')
    }
  )
}

function isEchoable(token: unknown): token is string {
  return (
    typeof token === 'string' && token.length <= maxValidationTokenLength && /^[^\p{Cc}\p{Cf}\p{Cs}]+$/u.test(token)
  )
}

function textOf(body: FastifyRequest['body']): string {
  return typeof body === 'string' ? body : ''
}

// /sign-in, /callback, /sign-out
import { getSession, signIn } from '../../lib/auth'

export async function GET(request: Request) {
  const session = await getSession()
  const response = await signIn.handle(request, session)
  await session.save()
  return response ?? new Response('not found\n', { status: 404 })
}

import { getSession, signIn } from '../../lib/auth'

export async function GET() {
  const user = await signIn.userOf(await getSession())
  if (!user) {
    return new Response('sign in first\n', { status: 401 })
  }
  const headers = { authorization: `Bearer ${await signIn.token(user)}` }
  const answer = await fetch(process.env.API_URL ?? '', { headers })
  return Response.json({ status: answer.status, answer: await answer.json() })
}

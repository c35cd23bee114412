import { getSession, signIn } from '../../lib/auth'

export async function GET() {
  const token = await signIn.tokenOf(await getSession())
  if (!token) {
    return new Response('sign in first\n', { status: 401 })
  }
  const answer = await fetch(process.env.API_URL ?? '', { headers: { authorization: `Bearer ${token}` } })
  return Response.json({ status: answer.status, answer: await answer.json() })
}

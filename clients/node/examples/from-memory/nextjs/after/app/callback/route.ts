import { redirect } from 'next/navigation'
import * as auth from '../../lib/auth'

export async function GET(request: Request) {
  const query = new URL(request.url).searchParams
  const session = await auth.getSession()
  const { pending } = session
  if (!pending || pending.state !== query.get('state')) {
    return new Response('begin again at /sign-in\n', { status: 400 })
  }
  const { verifier: codeVerifier, nonce } = pending
  const { scopes, redirectUri } = auth
  const redemption = { code: query.get('code') ?? '', scopes, redirectUri, codeVerifier, nonce }
  const { account } = await (await auth.clients.forLogin({ nonce })).acquireTokenByCode(redemption)
  session.pending = undefined
  session.account = account ?? undefined
  await session.save()
  redirect('/')
}

import { randomUUID } from 'node:crypto'
import { CryptoProvider } from '@azure/msal-node'
import { redirect } from 'next/navigation'
import * as auth from '../../lib/auth'

export async function GET() {
  const { verifier, challenge } = await new CryptoProvider().generatePkceCodes()
  const pending = { state: randomUUID(), nonce: randomUUID() }
  const session = await auth.getSession()
  session.pending = { ...pending, verifier }
  await session.save()
  const pkce = { codeChallenge: challenge, codeChallengeMethod: 'S256' }
  const request = { scopes: auth.scopes, redirectUri: auth.redirectUri, ...pending, ...pkce }
  redirect(await (await auth.clients.forLogin()).getAuthCodeUrl(request))
}

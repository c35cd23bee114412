import { redirect } from 'next/navigation'
import * as auth from '../../lib/auth'

export async function GET() {
  const account = await auth.currentAccount()
  if (!account) {
    redirect('/sign-in')
  }
  const request = { account, scopes: auth.scopes }
  const { accessToken } = await (await auth.clients.forAccount(account.homeAccountId)).acquireTokenSilent(request)
  const headers = { authorization: `Bearer ${accessToken}` }
  const answer = await fetch(process.env.API_URL ?? '', { headers })
  return Response.json({ status: answer.status, answer: await answer.json() })
}

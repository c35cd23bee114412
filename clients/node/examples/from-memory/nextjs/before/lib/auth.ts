// Environment: PORT, AUTHORITY, CLIENT_ID, CLIENT_SECRET, SESSION_SECRET, API_URL.
import { type AccountInfo, ConfidentialClientApplication } from '@azure/msal-node'
import { getIronSession } from 'iron-session'
import { cookies } from 'next/headers'

const { PORT = '3000', AUTHORITY = '', CLIENT_ID = '', CLIENT_SECRET = '', SESSION_SECRET = '' } = process.env
export const home = `http://localhost:${PORT}`
export const redirectUri = `${home}/callback`
export const scopes = ['openid', 'offline_access', 'profile']

const auth = { clientId: CLIENT_ID, clientSecret: CLIENT_SECRET, authority: AUTHORITY, knownAuthorities: [AUTHORITY] }
const kept = globalThis as { client?: ConfidentialClientApplication } // each route is a bundle of its own
kept.client ??= new ConfidentialClientApplication({ auth, system: { protocolMode: 'OIDC' } })
export const client = kept.client

interface Session {
  account?: AccountInfo
  pending?: { state: string; nonce: string; verifier: string }
}

export async function getSession() {
  const cookieOptions = { secure: home.startsWith('https:') }
  return getIronSession<Session>(await cookies(), { password: SESSION_SECRET, cookieName: CLIENT_ID, cookieOptions })
}

export async function currentAccount(): Promise<AccountInfo | undefined> {
  const { account } = await getSession()
  return account
}

// Environment: PORT, AUTHORITY, CLIENT_ID, CLIENT_SECRET, SESSION_SECRET, API_URL.
import type { AccountInfo } from '@azure/msal-node'
import { getIronSession } from 'iron-session'
import { createClients, createTokenCache } from 'msal-logout-client'
import { cookies } from 'next/headers'
import { Pool } from 'pg'

const { PORT = '3000', AUTHORITY = '', CLIENT_ID = '', CLIENT_SECRET = '', SESSION_SECRET = '' } = process.env
export const home = `http://localhost:${PORT}`
export const redirectUri = `${home}/callback`
export const scopes = ['openid', 'offline_access', 'profile']

const auth = { clientId: CLIENT_ID, clientSecret: CLIENT_SECRET, authority: AUTHORITY, knownAuthorities: [AUTHORITY] }
const pool = new Pool({ connectionString: process.env.DATABASE_URL })
const tokenCache = createTokenCache({ pool, clientId: CLIENT_ID })
export const clients = createClients({ tokenCache, configuration: { auth } })

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
  return account && (await tokenCache.isSessionActive(account)) ? account : undefined
}

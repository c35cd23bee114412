// Environment: BASE_URL, DATABASE_URL, AUTHORITY, CLIENT_ID, CLIENT_SECRET, SESSION_SECRET, API_URL.
import { getIronSession } from 'iron-session'
import { createSignIn } from 'msal-logout-client'
import { cookies } from 'next/headers'
import { Pool } from 'pg'

const { BASE_URL, DATABASE_URL, AUTHORITY, CLIENT_ID, CLIENT_SECRET, SESSION_SECRET = '' } = process.env

const pool = new Pool({ connectionString: DATABASE_URL, connectionTimeoutMillis: 5_000 })
pool.on('error', (error) => console.error(error.message))

export const signIn = createSignIn({
  pool,
  clientId: CLIENT_ID,
  clientSecret: CLIENT_SECRET,
  authority: AUTHORITY,
  baseUrl: BASE_URL
})

export async function getSession() {
  const cookieOptions = { secure: BASE_URL?.startsWith('https:') ?? true }
  return getIronSession<object>(await cookies(), { password: SESSION_SECRET, cookieName: 'session', cookieOptions })
}

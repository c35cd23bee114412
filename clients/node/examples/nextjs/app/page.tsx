import { getSession, signIn } from '../lib/auth'

export default async function Page() {
  const user = await signIn.userOf(await getSession())
  return <p>{user ? `signed in as ${user.homeAccountId}` : 'not signed in'}</p>
}

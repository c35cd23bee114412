import { currentAccount } from '../lib/auth'

export default async function Page() {
  const account = await currentAccount()
  return <p>{account ? `signed in as ${account.homeAccountId}` : 'not signed in'}</p>
}

import { type Config, variableNames } from '../config.ts'
import { printable } from './command-error.ts'
import { type Finding, warning } from './finding.ts'

/** What is allowed, and hardly ever meant. */
export function checkDoubts(
  { issuers, trustedProxies, publicUrls }: Config,
  env: Readonly<Record<string, string | undefined>>
): Finding[] {
  const unknown = Object.keys(env).filter((name) => env[name] !== '' && !variableNames.includes(name))
  const misspelt = unknown.flatMap((name) => {
    const meant = variableNames.find((known) => known !== name && isNear(withoutPlural(name), withoutPlural(known)))
    return meant === undefined
      ? []
      : [doubt(`${name} is not known, and is ignored`, `write ${meant}, if that is meant`)]
  })
  const joined = issuers.flatMap(({ name, clientIds }) =>
    clientIds
      .filter((clientId) => /[;|]/.test(clientId))
      .map((clientId) =>
        doubt(`${name}: "${printable(clientId)}" is one client id`, 'separate several by commas, if it is not one')
      )
  )
  const everybody = trustedProxies.filter((range) => /\/0$/.test(range))
  const signalPaths = publicUrls.filter((url) => /\/(backchannel|frontchannel)-logout/.test(url))
  return [
    ...misspelt,
    ...joined,
    ...everybody.map((range) =>
      doubt(
        `TRUSTED_PROXIES: ${range} trusts everybody: each sender chooses the address by which it is limited`,
        'name the addresses of the proxy alone'
      )
    ),
    ...signalPaths.map((url) =>
      doubt(`PUBLIC_URL: "${url}" has the path of a signal in it`, 'give what stands before /backchannel-logout')
    )
  ]
}

function doubt(message: string, advice: string): Finding {
  return warning('configuration', 'configuration_doubtful', message, advice)
}

function withoutPlural(name: string): string {
  return name.replace(/(IES|Y|S)$/, '')
}

/** Whether one letter makes the difference, or none. */
function isNear(a: string, b: string): boolean {
  const [short, long] = a.length < b.length ? [a, b] : [b, a]
  const same = [...short].findIndex((letter, i) => letter !== long[i])
  const at = same === -1 ? short.length : same
  const rest = long.slice(at + 1)
  return long.length - short.length <= 1 && (short.slice(at) === rest || short.slice(at + 1) === rest)
}

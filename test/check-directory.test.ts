import t, { type Test } from 'tap'
import { checkDirectory } from '../src/commands/check-directory.ts'
import type { Finding } from '../src/commands/finding.ts'
import type { DirectoryConfig } from '../src/directory-config.ts'
import { createOutboundFetch } from '../src/outbound-fetch.ts'
import { makeCertificate } from './fixtures/certificate.ts'
import { type Directory, startDirectory, watcherId, watcherSecret } from './fixtures/directory.ts'
import { findSecret } from './fixtures/secrets.ts'

const { fetch } = createOutboundFetch({ https: undefined, http: undefined, none: '' })
const day = 86_400_000

async function checkWith(
  t: Test,
  { config }: Directory,
  changes: Partial<DirectoryConfig> = {},
  { now = Date.now, timeoutMs = 5_000 } = {}
): Promise<readonly Finding[]> {
  const findings = await checkDirectory(
    { name: 'main', directory: { ...config, ...changes } },
    { fetch, now, timeoutMs }
  )
  t.equal(findSecret(JSON.stringify(findings)), undefined)
  t.notMatch(JSON.stringify(findings), watcherSecret)
  return findings
}

/** What did not pass, as `status code`; each says what to do. */
function faults(t: Test, findings: readonly Finding[]): string[] {
  const wrong = findings.filter(({ status }) => status !== 'passed')
  t.ok(wrong.every(({ advice }) => advice !== null))
  return wrong.map(({ status, code }) => `${status} ${code}`)
}

t.test('an issuer without a directory has no findings', async (t) => {
  t.same(await checkDirectory({ name: 'main', directory: undefined }, { fetch, now: Date.now, timeoutMs: 1 }), [])
})

t.test('a directory that can be watched passes; of a secret it says that its date cannot be seen', async (t) => {
  const directory = await startDirectory(t)
  for (const users of [0, 1]) {
    const findings = await checkWith(t, directory)
    t.match(findings, [{ status: 'passed', message: /can be watched; when its secret expires cannot be seen/ }])
    t.equal(findings.length, 1, `with ${users} users`)
    directory.tenant.add()
  }
  const { calls } = directory.graph
  t.ok(calls.every(({ method, path }) => method === 'GET' || path.includes('/oauth2/v2.0/token')))
})

t.test('each tenant of a template is looked at by itself', async (t) => {
  const directory = await startDirectory(t)
  const other = '99999999-9999-4999-8999-999999999999'
  const tenants = [
    ...directory.config.tenants,
    { tenantId: other, issuer: `https://login.microsoftonline.com/${other}/v2.0` }
  ]
  const findings = await checkWith(t, directory, { tenants })
  t.match(findings, [
    { status: 'passed', message: directory.tenantId },
    {
      status: 'failed',
      code: 'directory_tenant',
      message: `main, tenant ${other}: this cloud has no such tenant (AADSTS90002)`
    }
  ])
})

const wrong: [
  name: string,
  expected: string,
  change: (directory: Directory) => Partial<DirectoryConfig> | undefined,
  message?: RegExp
][] = [
  [
    'a client id that the tenant does not have',
    'failed directory_client',
    () => ({ clientId: 'somebody' }),
    /AADSTS700016/
  ],
  [
    'a Graph of which this authority knows nothing',
    'failed directory_cloud',
    ({ graph }) => ({ graphUrl: graph.url.replace('127.0.0.1', 'localhost') }),
    /another cloud/
  ],
  [
    'another secret',
    'failed directory_credential',
    ({ fileOf }) => ({ credential: { kind: 'secret', clientSecretFile: fileOf('x') } })
  ],
  [
    'a file of a secret that is not there any more',
    'failed directory_credential',
    () => ({ credential: { kind: 'secret', clientSecretFile: '/nowhere/secret' } }),
    /nowhere/
  ],
  [
    'a secret that has expired',
    'failed directory_credential_expired',
    ({ tenant }) => {
      tenant.register(watcherId, { secrets: [{ value: watcherSecret, expired: true }] })
      return undefined
    }
  ],
  [
    'no consent',
    'failed directory_consent',
    ({ tenant }) => {
      tenant.register(watcherId, { secrets: [{ value: watcherSecret }], roles: [] })
      return undefined
    }
  ],
  [
    'a permission that does not show what decides',
    'failed directory_consent',
    ({ tenant }) => {
      tenant.add()
      tenant.register(watcherId, { secrets: [{ value: watcherSecret }], roles: ['User.ReadBasic.All'] })
      return undefined
    },
    /shows users without accountEnabled/
  ],
  [
    'an external tenant, which is swept alone',
    'warning directory_sweep_only',
    ({ tenant }) => {
      tenant.tenantType = 'CIAM'
      return undefined
    },
    /external tenant .*swept alone/
  ],
  [
    'a Graph that asks for a pause',
    'failed directory_throttled',
    ({ graph }) => {
      graph.throttle(10, 300)
      return undefined
    }
  ],
  [
    'a cloud whose connections break',
    'failed directory_unreachable',
    ({ graph }) => {
      graph.behaviour = 'gone'
      return undefined
    }
  ],
  [
    'a cloud that is out of service',
    'failed directory_unreachable',
    ({ graph }) => {
      graph.behaviour = 'unavailable'
      return undefined
    }
  ],
  [
    'a cloud that does not answer',
    'failed directory_unreachable',
    ({ graph }) => {
      graph.behaviour = 'hang'
      return undefined
    },
    /no answer within 0.5 s/
  ]
]

for (const [name, expected, change, message = /^main, tenant /] of wrong) {
  t.test(`it shows ${name}`, async (t) => {
    const directory = await startDirectory(t)
    const changes = change(directory)
    const timeoutMs = directory.graph.behaviour === 'hang' ? 500 : 5_000
    const findings = await checkWith(t, directory, changes, { timeoutMs })
    t.same(faults(t, findings), [expected])
    t.match(findings, [{ message }])
  })
}

t.test('it shows a certificate that has expired, expires soon, or is not valid yet', async (t) => {
  const directory = await startDirectory(t)
  const { tenant, fileOf } = directory
  const { certificate, privateKey } = await makeCertificate({ notAfterDate: new Date(Date.now() + 60 * day) })
  tenant.register(watcherId, { certificates: [certificate] })
  const credential = {
    kind: 'certificate',
    certificateFile: fileOf(certificate),
    privateKeyFile: fileOf(privateKey)
  } as const
  for (const [days, expected, message] of [
    [0, [], /can be watched$/],
    [45, [], /can be watched$/],
    [47, ['warning directory_certificate_expires'], /expires in 12 days, on 20/],
    [61, ['failed directory_certificate_expired'], /has expired on 20/],
    [-310, ['failed directory_certificate_early'], /is valid from 20/]
  ] as const) {
    const findings = await checkWith(t, directory, { credential }, { now: () => Date.now() + days * day })
    t.same(faults(t, findings), expected, `in ${days} days`)
    t.match(findings[0]?.message, message)
  }
})

t.test('of a certificate that has expired and is not taken there is one finding', async (t) => {
  const directory = await startDirectory(t)
  const { certificate, privateKey } = await makeCertificate({ notAfterDate: new Date(Date.now() - day) })
  const credential = {
    kind: 'certificate',
    certificateFile: directory.fileOf(certificate),
    privateKeyFile: directory.fileOf(privateKey)
  } as const
  t.same(faults(t, await checkWith(t, directory, { credential })), ['failed directory_certificate_expired'])
})

t.test('it shows when a secret expires, where the registration may be read', async (t) => {
  const directory = await startDirectory(t)
  const at = Date.now()
  const secrets = (days: number, more: object[] = []) => [
    { value: watcherSecret, endDateTime: new Date(at + days * day).toISOString() },
    ...(more as { value: string }[])
  ]
  const another = { value: 'Xyz8Q~another', endDateTime: new Date(at + day).toISOString() }
  const older = { value: `${watcherSecret.slice(0, 3)}-older`, endDateTime: new Date(at + 2 * day).toISOString() }
  for (const [name, given, expected, message] of [
    ['in time', secrets(100), [], /its secret expires on 20/],
    ['soon', secrets(12.5), ['warning directory_secret_expires'], /expires in 12 days, on 20/],
    ['another one', secrets(100, [another]), [], /its secret expires on 20/],
    ['two that look alike', secrets(100, [older]), ['warning directory_secret_expires'], /expires in 1 days/],
    ['without a date', [{ value: watcherSecret }], [], /cannot be seen/]
  ] as const) {
    directory.tenant.register(watcherId, { secrets: [...given], roles: ['User.Read.All', 'Application.Read.All'] })
    const findings = await checkWith(t, directory)
    t.same(faults(t, findings), expected, name)
    t.match(findings, [{ message }], name)
  }
  directory.tenant.tenantType = 'CIAM'
  directory.tenant.register(watcherId, { secrets: secrets(3), roles: ['User.Read.All', 'Application.Read.All'] })
  t.same(
    faults(t, await checkWith(t, directory)),
    ['warning directory_sweep_only', 'warning directory_secret_expires'],
    'of an external tenant, too'
  )
})

import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t from 'tap'
import { type Config, readConfig } from '../src/config.ts'
import { ConfigurationError } from '../src/errors.ts'
import { makeCertificate } from './fixtures/certificate.ts'

const folder = mkdtempSync(join(tmpdir(), 'msal-logout-directory-'))
t.teardown(() => rmSync(folder, { recursive: true }))

const tenant = '11111111-1111-1111-1111-111111111111'
const otherTenant = '22222222-2222-2222-2222-222222222222'
const entra = (id: string) => `https://login.microsoftonline.com/${id}/v2.0`

function fileOf(content: string): string {
  const file = join(folder, `file-${Math.random()}`)
  writeFileSync(file, content)
  return file
}

const secretFile = fileOf('a secret\n')
const { certificate, privateKey } = await makeCertificate()
const certificateFile = fileOf(certificate)
const privateKeyFile = fileOf(privateKey)

const directory = (changes: object = {}) => ({
  kind: 'microsoft-graph',
  clientId: 'watcher',
  credential: { clientSecretFile: secretFile },
  ...changes
})
const issuer = (changes: object = {}) => ({ name: 'x', issuer: entra(tenant), clientIds: ['a'], ...changes })
const withDirectory = (changes: object, ofIssuer: object = {}) => issuer({ directory: directory(changes), ...ofIssuer })

function read(...issuers: object[]): Config {
  return readConfig({ ISSUERS_FILE: fileOf(JSON.stringify({ issuers })) })
}

function problems(...issuers: object[]): readonly string[] {
  try {
    read(...issuers)
  } catch (error) {
    if (error instanceof ConfigurationError) {
      return error.problems
    }
    throw error
  }
  return []
}

t.test('a directory has the defaults of the contract, and the tenant of its issuer', async (t) => {
  const [config] = read(issuer({ directory: directory() })).issuers
  t.strictSame(config?.directory, {
    kind: 'microsoft-graph',
    clientId: 'watcher',
    credential: { kind: 'secret', clientSecretFile: secretFile },
    cloud: 'global',
    pollSeconds: 60,
    sweepSeconds: 900,
    revokeOn: ['disabled', 'deleted', 'revoked'],
    dryRun: false,
    maxAccounts: 1_000,
    maxPercent: 50,
    notificationUrl: undefined,
    graphUrl: 'https://graph.microsoft.com',
    authorityUrl: 'https://login.microsoftonline.com',
    tenants: [{ tenantId: tenant, issuer: entra(tenant) }]
  })
  t.ok(Object.isFrozen(config?.directory))
  t.equal(read(issuer()).issuers[0]?.directory, undefined, 'nothing is watched where nobody asks for it')
})

t.test('every member of the contract is taken', async (t) => {
  const given = {
    tenantId: tenant,
    credential: { certificateFile, privateKeyFile },
    cloud: 'us-dod',
    pollSeconds: 5,
    sweepSeconds: 60,
    revokeOn: ['passwordChanged'],
    dryRun: true,
    maxAccounts: 7,
    maxPercent: 100,
    notificationUrl: 'https://hooks.example/directory-notifications/x',
    graphUrl: 'http://127.0.0.1:1/',
    authorityUrl: 'http://localhost:2'
  }
  t.match(read(withDirectory(given)).issuers[0]?.directory, {
    ...given,
    tenantId: undefined, // among `tenants`
    credential: { kind: 'certificate', certificateFile, privateKeyFile },
    graphUrl: 'http://127.0.0.1:1'
  })
  t.equal(read(withDirectory({ notificationUrl: null })).issuers[0]?.directory?.notificationUrl, undefined)
  t.match(read(withDirectory({ credential: { federatedTokenFile: secretFile } })).issuers[0]?.directory?.credential, {
    kind: 'federated'
  })
})

t.test('each cloud has its own places', async (t) => {
  for (const [cloud, authorityUrl, graphUrl] of [
    ['global', 'https://login.microsoftonline.com', 'https://graph.microsoft.com'],
    ['us-gov', 'https://login.microsoftonline.us', 'https://graph.microsoft.us'],
    ['us-dod', 'https://login.microsoftonline.us', 'https://dod-graph.microsoft.us'],
    ['china', 'https://login.chinacloudapi.cn', 'https://microsoftgraph.chinacloudapi.cn']
  ]) {
    t.match(read(withDirectory({ cloud })).issuers[0]?.directory, { authorityUrl, graphUrl }, String(cloud))
  }
})

t.test('a template has one watcher for each listed tenant', async (t) => {
  const tenants = [tenant, otherTenant]
  const [config] = read(withDirectory({}, { issuer: entra('{tenantid}'), tenants })).issuers
  t.same(
    config?.directory?.tenants,
    tenants.map((tenantId) => ({ tenantId, issuer: entra(tenantId) }))
  )
})

t.test('what cannot be meant is a problem that names its member', async (t) => {
  const elliptic = await makeCertificate({ keyType: 'ec' })
  const other = await makeCertificate()
  mkdirSync(join(folder, 'folder'))
  const at = (member: string) => `ISSUERS_FILE: issuers[0].directory${member}`
  const cases: [name: string, issuers: object[], expected: string][] = [
    ['another kind', [withDirectory({ kind: 'ldap' })], at('.kind')],
    ['an unknown member', [withDirectory({ colour: 'red' })], `${at('.colour')}: is not known`],
    ['a secret in the file itself', [withDirectory({ clientSecret: 's' })], `${at('.clientSecret')}: is not known`],
    [
      'a secret among the credentials',
      [withDirectory({ credential: { clientSecret: 's' } })],
      `${at('.credential.clientSecret')}: is not known`
    ],
    ['no client id', [withDirectory({ clientId: undefined })], at('')],
    ['no credential', [withDirectory({ credential: {} })], `${at('.credential')}: give exactly one`],
    [
      'two credentials',
      [withDirectory({ credential: { clientSecretFile: secretFile, federatedTokenFile: secretFile } })],
      `${at('.credential')}: give exactly one`
    ],
    [
      'a certificate without its key',
      [withDirectory({ credential: { certificateFile } })],
      `${at('.credential.privateKeyFile')}: must be given`
    ],
    [
      'a key without its certificate',
      [withDirectory({ credential: { privateKeyFile } })],
      `${at('.credential.certificateFile')}: must be given`
    ],
    [
      'a secret that is not there',
      [withDirectory({ credential: { clientSecretFile: join(folder, 'none') } })],
      `${at('.credential.clientSecretFile')}: cannot read`
    ],
    [
      'a token that is empty',
      [withDirectory({ credential: { federatedTokenFile: fileOf('\n') } })],
      `${at('.credential.federatedTokenFile')}: `
    ],
    [
      'a folder instead of a file',
      [withDirectory({ credential: { clientSecretFile: join(folder, 'folder') } })],
      `${at('.credential.clientSecretFile')}: "${join(folder, 'folder')}" is a folder`
    ],
    [
      'what is no certificate',
      [withDirectory({ credential: { certificateFile: secretFile, privateKeyFile } })],
      `${at('.credential.certificateFile')}: `
    ],
    [
      'what is no key',
      [withDirectory({ credential: { certificateFile, privateKeyFile: secretFile } })],
      `${at('.credential.privateKeyFile')}: `
    ],
    [
      'the key of another certificate',
      [withDirectory({ credential: { certificateFile, privateKeyFile: fileOf(other.privateKey) } })],
      `${at('.credential.privateKeyFile')}: `
    ],
    [
      'a key that is not RSA',
      [
        withDirectory({
          credential: {
            certificateFile: fileOf(elliptic.certificate),
            privateKeyFile: fileOf(elliptic.privateKey)
          }
        })
      ],
      `${at('.credential.privateKeyFile')}: `
    ],
    ['another cloud', [withDirectory({ cloud: 'germany' })], at('.cloud')],
    ['no pause at all', [withDirectory({ pollSeconds: 0 })], at('.pollSeconds')],
    ['a day and more', [withDirectory({ sweepSeconds: 86_401 })], at('.sweepSeconds')],
    ['no event', [withDirectory({ revokeOn: [] })], at('.revokeOn')],
    ['an event that nobody knows', [withDirectory({ revokeOn: ['moved'] })], at('.revokeOn[0]')],
    ['no account', [withDirectory({ maxAccounts: 0 })], at('.maxAccounts')],
    ['more than all', [withDirectory({ maxPercent: 101 })], at('.maxPercent')],
    ['a flag that is text', [withDirectory({ dryRun: 'yes' })], at('.dryRun')],
    ['a Graph on http', [withDirectory({ graphUrl: 'http://graph.example' })], `${at('.graphUrl')}: must be https`],
    [
      'an authority on http',
      [withDirectory({ authorityUrl: 'http://192.168.0.1' })],
      `${at('.authorityUrl')}: must be https`
    ],
    [
      'notifications on http',
      [withDirectory({ notificationUrl: 'http://x.example' })],
      `${at('.notificationUrl')}: must be https`
    ],
    [
      'a Graph with its version',
      [withDirectory({ graphUrl: 'https://graph.example/v1.0' })],
      `${at('.graphUrl')}: must have neither`
    ],
    ['a tenant that is a domain', [withDirectory({ tenantId: 'contoso.com' })], `${at('.tenantId')}: must be a GUID`],
    [
      'another tenant than the issuer',
      [withDirectory({ tenantId: otherTenant })],
      `${at('.tenantId')}: is "${otherTenant}"`
    ],
    ['no tenant', [withDirectory({}, { issuer: 'https://x.example' })], `${at('.tenantId')}: must be given`],
    ['a template without tenants', [withDirectory({}, { issuer: entra('{tenantid}') })], `${at('')}: needs "tenants"`],
    [
      'a template with one tenant of its own',
      [withDirectory({ tenantId: tenant }, { issuer: entra('{tenantid}'), tenants: [tenant] })],
      `${at('.tenantId')}: does not go with a template`
    ],
    [
      'a tenant that is watched twice',
      [
        withDirectory({}),
        withDirectory({ tenantId: tenant }, { name: 'y', issuer: `https://sts.windows.net/${tenant}/` })
      ],
      `ISSUERS_FILE: issuers[1].directory: the tenant "${tenant}" is watched already`
    ]
  ]
  for (const [name, issuers, expected] of cases) {
    const found = problems(...issuers)
    t.ok(
      found.some((problem) => problem.startsWith(expected)),
      `${name}: ${found.join(' | ')}`
    )
  }
})

t.test('all problems of a directory are shown together, and nothing of what is in its files', async (t) => {
  const key = fileOf('-----BEGIN PRIVATE KEY-----\nAAAA-of-a-key\n-----END PRIVATE KEY-----')
  const found = problems(
    withDirectory(
      {
        clientId: 'a b',
        credential: { certificateFile: secretFile, privateKeyFile: key },
        graphUrl: 'ftp://x',
        authorityUrl: 'x',
        notificationUrl: 'http://x.example'
      },
      { issuer: entra('{tenantid}') }
    )
  )
  t.equal(found.length, 7, found.join('\n'))
  t.notMatch(found.join('\n'), /a secret|AAAA/)
})

import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t from 'tap'
import { readConfig } from '../src/config.ts'
import { ConfigurationError } from '../src/errors.ts'
import { metadataUrls } from '../src/stream-config.ts'

const folder = mkdtempSync(join(tmpdir(), 'msal-logout-stream-config-'))
t.teardown(() => rmSync(folder, { recursive: true }))

function fileOf(name: string, content: string): string {
  const path = join(folder, name)
  writeFileSync(path, content)
  return path
}

const issuer = 'https://login.example.com'
const secret = 'the secret of the receiver'
const credential = {
  tokenUrl: `${issuer}/token`,
  clientId: 'receiver',
  clientSecretFile: fileOf('secret', secret)
}
const tokenFile = fileOf('token', 'a token')
const pushAuthorizationFile = fileOf('authorization', ' Bearer 0123456789abcdef\n')
const stream = { name: 'signals', issuer, credential }

function read(...streams: object[]) {
  const file = fileOf(
    'issuers.json',
    JSON.stringify({
      issuers: [
        { name: 'main', issuer, clientIds: ['client-a'] },
        { name: 'other', issuer: 'https://other.example.com', clientIds: ['client-a'] }
      ],
      streams
    })
  )
  return readConfig({ ISSUERS_FILE: file, PUBLIC_URL: 'https://logout.example.com/' }).streams
}

function problemsOf(...streams: object[]): string[] {
  try {
    read(...streams)
    return []
  } catch (error) {
    if (!(error instanceof ConfigurationError)) {
      throw error
    }
    t.notOk(error.problems.some((problem) => problem.includes(secret) || problem.includes('0123456789')))
    return error.problems.map((problem) => problem.replace('ISSUERS_FILE: ', '').replaceAll(`${folder}/`, ''))
  }
}

t.test('a stream needs a name, an issuer and a credential; the rest has defaults', async (t) => {
  t.match(read(stream), [
    {
      name: 'signals',
      issuer,
      issuers: ['main'],
      profile: 'ssf-1.0',
      delivery: 'poll',
      pushAuthorization: undefined,
      endpointUrl: 'https://logout.example.com/security-events/signals',
      isManaged: true,
      pollSeconds: 5,
      verifySeconds: 86_400,
      requireAudience: true,
      revokeOn: [
        'session-revoked',
        'account-disabled',
        'account-purged',
        'sessions-revoked',
        'credential-compromise',
        'account-credential-change-required',
        'credential-change',
        'tokens-revoked'
      ],
      ignoreInitiatedBy: [],
      verification: { issuer, types: ['secevent+jwt'], algorithms: ['RS256'], requireExp: false }
    }
  ])
  t.match(read({ ...stream, profile: 'legacy', delivery: 'push', pushAuthorizationFile, credential: { tokenFile } }), [
    {
      pushAuthorization: 'Bearer 0123456789abcdef',
      credential: { kind: 'token', tokenFile },
      verification: { types: ['secevent+jwt', 'JWT', null] }
    }
  ])
  const { ISSUER, CLIENT_IDS } = { ISSUER: issuer, CLIENT_IDS: 'client-a' }
  t.same(readConfig({ ISSUER, CLIENT_IDS }).streams, [])
})

t.test('what is wrong with a stream is said together, without a secret', async (t) => {
  const cases: [changes: object, problem: string | RegExp][] = [
    [{ name: 'a/b' }, /^streams\[0\]\.name: /],
    [
      { issuer: 'http://login.example.com', issuers: ['main'] },
      'streams[0].issuer: must be https, or http on loopback'
    ],
    [
      { issuer: 'https://another.example' },
      /^streams\[0\]\.issuers: name the issuers whose users the stream speaks of/
    ],
    [{ issuers: ['main', 'nobody'] }, 'streams[0].issuers: no issuer is called "nobody"'],
    [{ issuers: [] }, /^streams\[0\]\.issuers: /],
    [{ credential: undefined }, 'streams[0].credential: must be given, to manage the stream'],
    [{ credential: { ...credential, tokenFile } }, /^streams\[0\]\.credential: give either/],
    [{ credential: {} }, /^streams\[0\]\.credential: give either/],
    [{ credential: { ...credential, clientId: undefined } }, 'streams[0].credential.clientId: must be given'],
    [{ credential: { tokenFile: join(folder, 'nowhere') } }, /^streams\[0\]\.credential\.tokenFile: cannot read/],
    [
      { credential: { ...credential, tokenUrl: 'ftp://x' } },
      'streams[0].credential.tokenUrl: must be https, or http on loopback'
    ],
    [{ delivery: 'push' }, /^streams\[0\]\.pushAuthorizationFile: must be given/],
    [
      { delivery: 'push', pushAuthorizationFile: tokenFile },
      /^streams\[0\]\.pushAuthorizationFile: "token" must have 16/
    ],
    [{ pushAuthorizationFile }, 'streams[0].pushAuthorizationFile: goes with "delivery": "push" alone'],
    [{ delivery: 'carrier pigeon' }, /^streams\[0\]\.delivery: /],
    [{ profile: 'ssf-2.0' }, /^streams\[0\]\.profile: /],
    [{ revokeOn: ['session-revoked', 'session-started'] }, /^streams\[0\]\.revokeOn\[1\]: /],
    [{ ignoreInitiatedBy: ['nobody'] }, /^streams\[0\]\.ignoreInitiatedBy\[0\]: /],
    [{ algorithms: ['HS256'] }, /^streams\[0\]\.algorithms: must be among RS256/],
    [{ pollSeconds: 0 }, /^streams\[0\]\.pollSeconds: /],
    [{ verifySeconds: 1 }, /^streams\[0\]\.verifySeconds: /],
    [{ pollUrl: `${issuer}/poll` }, /^streams\[0\]\.pollUrl: goes with "manage": false alone/],
    [{ manage: false, pollUrl: `${issuer}/poll` }, /^streams\[0\]\.audiences: must be given with "manage": false/],
    [{ manage: false, audiences: ['a'] }, 'streams[0].pollUrl: must be given with "manage": false'],
    [{ audiences: ['a b'] }, /^streams\[0\]\.audiences: has white space/],
    [{ revokeon: [] }, 'streams[0].revokeon: is not known']
  ]
  for (const [changes, problem] of cases) {
    const problems = problemsOf({ ...stream, ...changes })
    t.equal(problems.length, 1, JSON.stringify(problems))
    t.match(problems[0], problem)
  }
  t.same(problemsOf(stream, stream), ['streams[1].name: "signals" is given twice'])
  t.same(
    problemsOf({
      ...stream,
      manage: false,
      delivery: 'push',
      audiences: ['a'],
      credential: undefined,
      pushAuthorizationFile
    }),
    []
  )
})

t.test('metadata are looked for where the framework, Keycloak and RISC put them', async (t) => {
  t.same(metadataUrls('https://a.example', undefined), [
    'https://a.example/.well-known/ssf-configuration',
    'https://a.example/.well-known/risc-configuration'
  ])
  t.same(metadataUrls('https://a.example/realms/main/', undefined), [
    'https://a.example/.well-known/ssf-configuration/realms/main',
    'https://a.example/realms/main/.well-known/ssf-configuration',
    'https://a.example/.well-known/risc-configuration/realms/main'
  ])
  t.same(metadataUrls('https://a.example', 'https://b.example/x'), ['https://b.example/x'])
})

import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { generate } from 'selfsigned'
import t from 'tap'
import { runCommand } from '../fixtures/command-line.ts'
import { clientId, createSigningKey } from '../fixtures/identity-provider.ts'
import { listen } from '../fixtures/listen.ts'
import { temporaryFolder } from '../fixtures/server.ts'
import { startTunnel } from '../fixtures/tunnel.ts'

const certificate = await generate([{ name: 'commonName', value: 'login.test' }], {
  extensions: [
    { name: 'basicConstraints', cA: true },
    {
      name: 'subjectAltName',
      altNames: [
        { type: 2, value: 'login.test' },
        { type: 2, value: 'localhost' }
      ]
    }
  ]
})

t.test('the command line finds an issuer behind a proxy, with a certificate authority of its own', async (t) => {
  const key = await createSigningKey()
  const issuer = 'https://login.test'
  const origin = await listen(
    t,
    (request, response) =>
      response.end(
        JSON.stringify(request.url === '/keys' ? { keys: [key.jwk] } : { issuer, jwks_uri: `${issuer}/keys` })
      ),
    { key: certificate.private, cert: certificate.cert }
  )
  const { url, asked } = await startTunnel(t, new URL(origin).port)
  const authority = join(temporaryFolder(t), 'authority.pem')
  writeFileSync(authority, certificate.cert)
  const find = async (env: Record<string, string>) => {
    const { exited, output } = runCommand(t, ['check', '--json'], {
      ISSUER: issuer,
      CLIENT_IDS: clientId,
      SPOOL_DIR: temporaryFolder(t),
      ...env
    })
    await exited
    return output.stdout
  }
  const proxy = { HTTPS_PROXY: `http://user:pass%20word@${url}` }
  const [trusted, untrusted, direct] = await Promise.all([
    find({ ...proxy, NODE_EXTRA_CA_CERTS: authority }),
    find(proxy),
    find({ ...proxy, NODE_EXTRA_CA_CERTS: authority, NO_PROXY: 'login.test' })
  ])
  t.match(trusted, /default: its keys are at hand/)
  t.match(untrusted, /issuer_unreachable/)
  t.match(untrusted, /SELF_SIGNED_CERT|self-signed/)
  t.match(direct, /issuer_unreachable/)
  t.ok(asked.length >= 2)
  t.ok(asked.every(({ host }) => host === 'login.test:443'))
  t.ok(asked.every(({ credentials }) => credentials === `Basic ${btoa('user:pass word')}`))
  t.notMatch(trusted + untrusted + direct, /pass.{0,3}word/)
})

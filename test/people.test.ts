import t from 'tap'
import { clicksAt } from '../src/people.ts'

t.test('each provider has clicks of its own, by its issuer', async (t) => {
  const issuers: [issuer: string, provider: string, path: RegExp][] = [
    ['https://login.microsoftonline.com/{tenantid}/v2.0', 'Microsoft Entra ID', /Object ID/],
    ['https://login.microsoftonline.us/11111111-1111-1111-1111-111111111111/v2.0', 'Microsoft Entra ID', /Object ID/],
    [
      'https://contoso.ciamlogin.com/11111111-1111-1111-1111-111111111111/v2.0',
      'Microsoft Entra External ID',
      /external tenant/
    ],
    ['https://login.example.com/realms/our%20staff', 'Keycloak', /realm our staff: Users/],
    ['https://example.eu.auth0.com/', 'Auth0', /user_id/],
    ['https://example.okta.com/oauth2/default', 'Okta', /00u/],
    ['https://id.example.com/application/o/app/', 'Authentik', /subject mode/],
    ['https://login.microsoftonline.com.evil.example/', 'another provider', /"sub"/],
    ['https://op.example', 'another provider', /"sub"/]
  ]
  for (const [issuer, provider, path] of issuers) {
    t.match(clicksAt({ name: 'x', issuer }), { issuer: 'x', provider, path, purgeBy: /^purge by/ }, issuer)
  }
})

import t from 'tap'
import { createIssuerHints } from '../src/issuer-hints.ts'

const [home, away] = ['11111111-1111-1111-1111-111111111111', '22222222-2222-2222-2222-222222222222'] as const
const entra = (tenant: string) => `https://login.microsoftonline.com/${tenant}/v2.0`
const keycloak = 'https://login.example.com/realms/staff'
const hintsFor = createIssuerHints(['https://op.example', 'https://slashed.example/', keycloak, entra(home)])

const cases: [string, string, string | undefined][] = [
  [
    'a slash too many',
    'https://op.example/',
    'differs from "https://op.example" by a slash at the end that is not configured'
  ],
  [
    'a slash too few',
    'https://slashed.example',
    'differs from "https://slashed.example/" by the slash that is missing at the end'
  ],
  ['http for https', 'http://op.example', 'differs from "https://op.example" by "http://" for "https://"'],
  [
    'http, and a slash',
    'http://op.example/',
    'differs from "https://op.example" by "http://" for "https://" and by a slash at the end that is not configured'
  ],
  ['another case', 'https://OP.example', 'differs from "https://op.example" by the case of its letters'],
  ['no scheme', 'op.example', 'differs from "https://op.example" by "" for "https://"'],
  [
    'an internal host',
    'http://keycloak:8080/realms/staff',
    `differs from "${keycloak}" by "http://" for "https://" and by its host`
  ],
  ['another tenant', entra(away), `differs from "${entra(home)}" by its tenant`],
  [
    'the v1.0 form',
    `https://sts.windows.net/${home}/`,
    `differs from "${entra(home)}" by its host and by its path and by a slash at the end that is not configured`
  ],
  ['another realm', 'https://login.example.com/realms/partners', undefined],
  ['a stranger', 'https://evil.example', undefined],
  ['nothing', '', undefined]
]
for (const [name, iss, hint] of cases) {
  t.test(`${name} is found`, async (t) => {
    const found = hintsFor(iss)
    t.equal(found.hint, hint)
    const closest = /^differs from "([^"]+)"/.exec(hint ?? '')?.[1]
    t.equal(found.accepted.split(', ')[0], closest ?? 'https://op.example', 'the closest stands first')
  })
}

t.test('a template is close to what it does not take', async (t) => {
  const { hint } = createIssuerHints([entra('{tenantid}')])(entra(away))
  t.equal(hint, `differs from "${entra('{tenantid}')}" by its tenant`)
})

t.test('of many issuers a few are shown, and it costs little', async (t) => {
  const many = Array.from({ length: 20_000 }, (_, i) => `https://op-${i}.example`)
  const find = createIssuerHints(many)
  t.equal(find('https://op-19999.example/').accepted.split(', ').length, 6)
  t.match(find('x'.repeat(1_000_000)).accepted, /, and 19995 more$/)
})

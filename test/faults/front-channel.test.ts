// Front-channel calls that somebody makes up, beside genuine sign-outs.
import { randomUUID } from 'node:crypto'
import t, { type Test } from 'tap'
import { noteTries } from '../fixtures/attacks.ts'
import { clientId } from '../fixtures/identity-provider.ts'
import { type BrokenPart, type SiegeOptions, startSiege } from '../fixtures/siege.ts'
import type { Attack } from '../fixtures/siege-worker.ts'

const timeout = 300_000
const tenants = Array.from({ length: 100 }, () => randomUUID())

interface Scene {
  readonly issuers?: SiegeOptions['issuers']
  /** The issuer of the genuine ones. */
  readonly issuerOf?: (issuer: string) => string
  readonly attack: Omit<Attack, 'url'>
}

const call = { method: 'GET', path: '/frontchannel-logout/main?sid={uuid}' } as const
const template = (given: readonly string[] | undefined) => (issuer: string) => [
  {
    name: 'main',
    issuer: `${issuer}/{tenantid}`,
    clientIds: [clientId],
    jwksUri: `${issuer}/jwks`,
    ...(given && { tenants: given })
  }
]
const ofTenant = (issuer: string) => `${issuer}/${tenants[0]}`

const scenes: Record<string, Scene> = {
  'a plain issuer, by 1,000 connections': { attack: { connections: 1_000, request: call } },
  'a plain issuer, by 1,000 connections of as many addresses': {
    attack: { connections: 1_000, request: { ...call, address: '198.51.{byte}.{byte}' } }
  },
  'a template, by 200 connections': {
    issuers: template(undefined),
    issuerOf: ofTenant,
    attack: { connections: 200, request: call }
  },
  'a template of 100 tenants, by 82 calls a second': {
    issuers: template(tenants),
    issuerOf: ofTenant,
    attack: { connections: 82, perSecond: 82, request: call }
  },
  'a template of 100 tenants, by 200 connections of as many addresses': {
    issuers: template(tenants),
    issuerOf: ofTenant,
    attack: { connections: 200, request: { ...call, address: '198.51.{byte}.{byte}' } }
  }
}

async function besiege(t: Test, { issuers, issuerOf, attack }: Scene, broken?: readonly BrokenPart[]) {
  const siege = await startSiege(t, {
    env: { TRUSTED_PROXIES: '127.0.0.1', LOG_LEVEL: 'warn' },
    ...(issuers && { issuers }),
    ...(issuerOf && { issuerOf }),
    ...(broken && { broken })
  })
  const people = await siege.prepare(300, issuerOf?.(siege.provider.issuer))
  const end = await siege.attack({ ...attack, url: siege.server.publicUrl })
  const answers = [...(await siege.signOut(people.slice(0, 60), 0)), ...(await siege.signOut(people.slice(60), 30))]
  const verdict = await siege.judge(answers)
  const report = await end()
  t.comment(`${verdict.summary}; made up: ${JSON.stringify(report)}`)
  const [found] = await siege.database.query<{ n: number }>('select count(*)::int as n from msal_logout.tombstones')
  return { siege, verdict, report, tombstones: found?.n ?? 0 }
}

for (const [name, scene] of Object.entries(scenes)) {
  t.test(`made-up calls of ${name} hold up no sign-out, and leave bounded traces`, { timeout }, async (t) => {
    const { siege, verdict, report, tombstones } = await besiege(t, scene)
    t.match(verdict, { late: 0, lost: 0, undone: 0, heldUp: false })
    t.ok(report.sent > 100, 'the attack was one')
    t.ok(tombstones < 62_000 + 4 * 300, `${tombstones} tombstones`)
    t.ok(siege.server.output.length < 450, `${siege.server.output.length} lines of log`)
    noteTries('front-channel calls with a made-up sid', report.sent, verdict.count)
  })
}

t.test('the control: without turns for what is unsigned, sign-outs come late', { timeout }, async (t) => {
  const scene = scenes['a template of 100 tenants, by 200 connections of as many addresses']
  const { verdict, tombstones } = await besiege(t, scene as Scene, [
    {
      file: 'src/receive.js',
      line: ': senders.awaitUnsignedTurn(sender, budget.gateMs)',
      broken: ': nothing'
    },
    {
      file: 'src/sign-out.js',
      line: 'const queue = order.isSigned ? signed : unsigned',
      broken: 'const queue = signed'
    },
    {
      file: 'src/receive.js',
      line: 'return order.isSigned || sender === undefined || senders.mayRemember(sender)',
      broken: 'return true'
    }
  ])
  const { late, lost, undone, heldUp } = verdict
  t.ok(late + lost + undone > 0 || heldUp || tombstones > 62_000 + 4 * 300, 'the harness sees it')
})

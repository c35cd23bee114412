// What a wrong set-up shows, in `check`, in the log, on the page and by an alert: docs/wrong-set-ups.md, made by doing it.
// UPDATE_DOCS=1 npm run test:alerts writes the table anew.
import { spawnSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import t, { type Test } from 'tap'
import { check } from '../../src/commands/check.ts'
import type { IssuerConfig } from '../../src/issuers.ts'
import { createRole } from '../fixtures/database.ts'
import {
  createSigningKey,
  type IdentityProvider,
  logoutClaims,
  startIdentityProvider
} from '../fixtures/identity-provider.ts'
import { adminToken, build, type Service } from '../fixtures/service.ts'

const page = 'docs/wrong-set-ups.md'
const [home, away] = ['11111111-1111-1111-1111-111111111111', '22222222-2222-2222-2222-222222222222'] as const
const signOuts = 12

interface World extends Service {
  /** Another environment of the same provider. */
  readonly elsewhere: IdentityProvider
}

interface WrongSetUp {
  readonly name: string
  /** How the issuer is configured, beside what is right. */
  readonly entry?: (provider: IdentityProvider, elsewhere: IdentityProvider) => Partial<IssuerConfig>
  /** Another issuer beside it, with these client ids; default none. */
  readonly furtherIssuer?: readonly string[]
  /** What the apps store at a login; null: nothing. */
  readonly login?: ((provider: IdentityProvider) => { sid?: string | null; issuer?: string }) | null
  readonly prepare?: (world: World) => Promise<void> | void
  /** One sign-out of a user at the provider; default a sound logout token. */
  readonly signOut?: (world: World, sid: string) => Promise<unknown>
  /** How far the service's clock is ahead, in milliseconds. */
  readonly clockMs?: number
}

const post = (claims: object, header: Record<string, unknown> = {}) => {
  return async (world: World, sid: string) => world.post(await world.provider.logoutToken({ sid, ...claims }, header))
}
const call = (url: (world: World, sid: string) => string) => {
  return async (world: World, sid: string) => world.app.inject(url(world, sid))
}

const setUps: readonly WrongSetUp[] = [
  { name: 'the configured issuer has a slash too many', entry: ({ issuer }) => ({ issuer: `${issuer}/` }) },
  {
    name: '`https` is configured, and tokens say `http`',
    entry: ({ issuer }) => ({ issuer: issuer.replace('http:', 'https:') })
  },
  {
    name: 'an internal host name is configured',
    entry: ({ issuer }) => ({ issuer: issuer.replace('127.0.0.1', 'localhost') })
  },
  {
    name: 'another tenant is configured',
    entry: ({ issuer }) => ({ issuer: `${issuer}/${away}/v2.0`, jwksUri: `${issuer}/jwks` }),
    signOut: async (world, sid) => post({ iss: `${world.provider.issuer}/${home}/v2.0` })(world, sid)
  },
  {
    name: 'the tenant is not among `tenants` of the template',
    entry: ({ issuer }) => ({ issuer: `${issuer}/{tenantid}/v2.0`, tenants: [away], jwksUri: `${issuer}/jwks` }),
    signOut: async (world, sid) => post({ iss: `${world.provider.issuer}/${home}/v2.0` })(world, sid)
  },
  { name: 'a client id is missing', signOut: post({ aud: 'client-b' }) },
  {
    name: 'the client ids of two issuers are swapped',
    entry: () => ({ clientIds: ['client-b'] }),
    furtherIssuer: ['client-a']
  },
  {
    name: 'the provider signs with another algorithm',
    async prepare({ provider }) {
      provider.keys = [await createSigningKey('ES256')]
    }
  },
  {
    name: '`jwksUri` leads to another environment',
    entry: (_provider, elsewhere) => ({ jwksUri: `${elsewhere.issuer}/jwks` })
  },
  { name: 'the provider sends no `exp` (Ory Hydra)', signOut: post({ exp: undefined }) },
  { name: 'the provider sends another `typ` (Duende before 6.3)', signOut: post({}, { typ: 'at+jwt' }) },
  { name: 'the provider encrypts', signOut: async (world) => world.post('a.b.c.d.e') },
  {
    name: 'ID tokens are posted in place of logout tokens',
    async signOut(world, sid) {
      const { events: _events, ...claims } = logoutClaims(world.provider.issuer, { sid, nonce: 'n' })
      return world.post(await world.provider.sign(claims, { typ: 'JWT' }))
    }
  },
  {
    name: 'a proxy turns the form into JSON',
    signOut: (world) => world.app.inject({ method: 'POST', url: '/backchannel-logout', payload: { logout_token: 'x' } })
  },
  {
    name: 'a proxy cuts the body',
    signOut: async (world, sid) => world.post((await world.provider.logoutToken({ sid })).slice(0, 100))
  },
  {
    name: 'a proxy turns `+` and `%` of the body into something else',
    signOut: async (world, sid) => world.post((await world.provider.logoutToken({ sid })).replaceAll('.', '%2E'))
  },
  {
    name: 'the URL at the provider has another path, or a proxy adds to it',
    signOut: async (world, sid) =>
      world.app.inject({
        method: 'POST',
        url: '/auth/backchannel-logout',
        headers: { 'content-type': 'application/x-www-form-urlencoded' },
        payload: `logout_token=${await world.provider.logoutToken({ sid })}`
      })
  },
  {
    name: 'the URL at the provider is redirected: its POST becomes a GET',
    signOut: (world) => world.app.inject('/backchannel-logout')
  },
  {
    name: 'the provider signs with another key of the same id',
    async signOut({ provider, post }, sid) {
      const other = await createSigningKey('RS256', provider.keys[0]?.kid)
      return post(await provider.logoutToken({ sid }, {}, other))
    }
  },
  {
    name: 'a queue of the provider holds signals back for half an hour',
    signOut: post({ iat: Math.floor(Date.now() / 1_000) - 1_800, exp: Math.floor(Date.now() / 1_000) - 1_680 })
  },
  {
    name: 'the clock of the service is 10 minutes ahead',
    clockMs: 600_000,
    signOut: async (world, sid) => post({ exp: Math.floor(Date.now() / 1_000) + 120 })(world, sid)
  },
  { name: 'the clock of the service is 5 minutes behind', clockMs: -300_000 },
  { name: 'the clock of the service is 20 minutes ahead', clockMs: 1_200_000 },
  { name: 'ID tokens bear no `sid`', login: () => ({ sid: null }) },
  {
    name: 'apps store another sid than the provider sends',
    signOut: async (world, sid) => post({ sid: `of-the-provider-${sid}` })(world, sid)
  },
  {
    name: 'apps store logins longer ago than they live: their `ttl` has passed',
    async signOut(world, sid) {
      await world.database.query("update msal_logout.token_cache set expires_at = now() - interval '1 day'")
      await world.database.query("update msal_logout.sessions set expires_at = now() - interval '1 day'")
      await world.database.query('select msal_logout.clean_up(1000)')
      return post({})(world, sid)
    }
  },
  { name: 'apps store another issuer', login: () => ({ issuer: 'https://internal.example' }) },
  { name: 'apps keep their tokens elsewhere', login: null },
  { name: 'the front channel: no `sid` in the call', signOut: call(() => '/frontchannel-logout/main') },
  {
    name: 'the front channel: the URL names another issuer',
    signOut: call((_world, sid) => `/frontchannel-logout/prod?sid=${sid}`)
  },
  {
    name: 'the front channel: several issuers, and the URL names none',
    furtherIssuer: ['client-a'],
    signOut: call((_world, sid) => `/frontchannel-logout?sid=${sid}`)
  },
  {
    name: 'the front channel is turned off',
    entry: () => ({ frontChannel: false }),
    signOut: call((_world, sid) => `/frontchannel-logout/main?sid=${sid}`)
  },
  {
    name: 'the provider is out of reach: a proxy or a firewall',
    prepare({ provider }) {
      provider.behaviour = 'down'
    }
  },
  {
    name: 'the role of the service lacks its rights',
    async prepare({ database }) {
      await database.query('alter function msal_logout.sign_out rename to sign_out_away')
    }
  },
  { name: 'the logout URL is not set at the provider', signOut: async () => undefined }
]

interface Shown {
  readonly name: string
  readonly check: string
  readonly log: string
  readonly page: string
  /** What Prometheus read before and after. */
  readonly metrics: readonly [before: string, after: string]
}

async function perform(t: Test, setUp: WrongSetUp): Promise<Shown> {
  const { entry = () => ({}), login = () => ({}), signOut = post({}), clockMs = 0 } = setUp
  const elsewhere = await startIdentityProvider(t)
  // The issuer is known once its provider runs, which the service brings along.
  const now = () => Date.now() + clockMs
  const service = await build(t, {
    edges: { now },
    ...(setUp.furtherIssuer && {
      issuers: [{ name: 'other', issuer: elsewhere.issuer, clientIds: setUp.furtherIssuer }]
    })
  })
  const world: World = { ...service, elsewhere }
  const { provider, database } = service
  const issuers = service.config.issuers.map((config) =>
    config.name === 'main' ? { ...config, ...entry(provider, elsewhere) } : config
  )
  await service.reload({ ...service.config, issuers })
  await setUp.prepare?.(world)
  t.teardown(() =>
    database.query('alter function if exists msal_logout.sign_out_away rename to sign_out').catch(() => {})
  )

  const before = await service.metrics.text()
  service.logs.length = 0
  for (let user = 0; user < signOuts; user += 1) {
    if (login !== null) {
      await service.login({ homeAccountId: `${user}.t`, sid: `s${user}`, ...login(provider) })
    }
    await signOut(world, `s${user}`)
  }
  if (setUp.name.startsWith('the role')) {
    // Back, so that the rest of what is shown can be read.
    await database.query('alter function msal_logout.sign_out_away rename to sign_out')
  }
  await service.census.refresh()
  const { verdicts } = (await service.operate('GET', '/admin/stats?minutes=60')).json() as {
    verdicts: { state: string; message: string; advice: string | null }[]
  }
  const normal = (text: string) => normalize(text, provider, elsewhere)
  return {
    name: setUp.name,
    check: normal(await checked(t, world, issuers, now, setUp)),
    log: normal(logged(service.logs)),
    page: normal(verdicts.map(toSentences)[0] ?? ''),
    metrics: [before, await service.metrics.text()]
  }
}

function toSentences({ state, message, advice }: { state: string; message: string; advice: string | null }): string {
  return `${state}: ${message}${advice === null ? '' : `. *What to do:* ${advice}`}`
}

/** What `msal-logout check` finds with this configuration. */
async function checked(t: Test, world: World, issuers: readonly IssuerConfig[], now: () => number, setUp: WrongSetUp) {
  const role = await createRole(world.database, 'service')
  if (!setUp.name.startsWith('the role')) {
    await world.database.query('select msal_logout.register_service($1)', [role])
  } else {
    await world.database.query(`grant usage on schema msal_logout to ${role}`)
  }
  const url = new URL(world.database.url)
  url.username = role
  url.password = 'test'
  const file = join(world.spoolDir, 'issuers.json')
  const entries = issuers.map(({ name, issuer, clientIds, tenants, jwksUri, frontChannel }) => ({
    name,
    issuer,
    clientIds,
    frontChannel,
    ...(tenants && { tenants }),
    ...(jwksUri && { jwksUri })
  }))
  writeFileSync(file, JSON.stringify({ issuers: entries }))
  const env = {
    DATABASE_URL: url.href,
    ISSUERS_FILE: file,
    SPOOL_DIR: join(world.spoolDir, 'checked'),
    ADMIN_TOKEN: adminToken
  }
  const findings = await check({ env, now, fetchTimeoutMs: 5_000 })
  const codes = findings.filter(({ status }) => status !== 'passed').map(({ code }) => `\`${code}\``)
  t.ok(findings.length > 3, 'it was looked at')
  return codes.length === 0 ? 'passes' : codes.join(', ')
}

const shownFields = [
  'code',
  'outcome',
  'iss',
  'aud',
  'typ',
  'alg',
  'kid',
  'age',
  'expired',
  'name',
  'method',
  'path',
  'cause',
  'accepted',
  'hint'
]
// What a code's own offending values are; the others stand in the line, too.
const offending: Readonly<Record<string, readonly string[]>> = {
  ERR_TOKEN_ISSUER: ['iss', 'hint'],
  ERR_TOKEN_AUDIENCE: ['aud', 'accepted'],
  ERR_TOKEN_ALGORITHM: ['alg', 'accepted'],
  ERR_TOKEN_TYPE: ['typ', 'accepted'],
  ERR_TOKEN_KEY: ['kid', 'accepted'],
  ERR_TOKEN_IAT_FUTURE: ['age', 'accepted'],
  ERR_TOKEN_TOO_OLD: ['age', 'accepted'],
  ERR_TOKEN_EXP_MISSING: ['accepted'],
  ERR_TOKEN_EXPIRED: ['age', 'expired'],
  ERR_TOKEN_SIGNATURE: ['kid'],
  ERR_REQUEST_ISSUER_NAME: ['name', 'accepted'],
  ERR_REQUEST_PATH: ['path', 'accepted'],
  ERR_REQUEST_METHOD: ['method', 'path', 'accepted']
}

/** The line of a rejected signal; else the last of any. */
function logged(logs: readonly string[]): string {
  const lines = logs.map((line) => JSON.parse(line) as Record<string, unknown>)
  const line =
    lines.find(({ msg }) => msg === 'rejected') ??
    lines.findLast(({ msg }) => ['signed out', 'deferred', 'lost'].includes(String(msg)))
  if (line === undefined) {
    return 'no line'
  }
  const instead = line.code === 'ERR_TOKEN_ISSUER' && line.hint === undefined ? ['accepted'] : []
  const wanted = ['code', 'outcome', ...(offending[String(line.code)] ?? []), ...instead]
  const fields = shownFields.filter((name) => wanted.includes(name) && line[name] !== undefined)
  return `${line.level} \`${line.msg}\`, ${fields.map((name) => `${name} \`${line[name]}\``).join(', ')}`
}

function normalize(text: string, provider: IdentityProvider, elsewhere: IdentityProvider): string {
  const hostOf = ({ issuer }: IdentityProvider) => new URL(issuer).host
  const [, port = ''] = hostOf(provider).split(':')
  return text
    .replaceAll(hostOf(provider), 'login.example.com')
    .replaceAll(`localhost:${port}`, 'internal-host')
    .replaceAll(hostOf(elsewhere), 'test.example.com')
    .replaceAll(/[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}/g, (id) =>
      id === home || id === away ? id.slice(0, 8) : '<id>'
    )
    .replaceAll(/-?\b\d{3,} s\b/g, (age) => `about ${Math.round(Number.parseInt(age, 10) / 60)} min`)
    .replaceAll('|', '\\|')
}

/** The samples of a text, by series. */
function samples(text: string): Map<string, number> {
  const lines = text.split('\n').filter((line) => line.startsWith('msal_logout_'))
  return new Map(
    lines.map((line) => {
      const [, name = '', value = ''] = /^(.*) (\S+)$/.exec(line) ?? []
      return [name, Number(value)]
    })
  )
}

/** Which alerts fire within a quarter of an hour: the rules are run by promtool on what was measured. */
function firing(shown: readonly Shown[]): Map<string, string[]> {
  const rules = readFileSync('docs/operating/alerts.yaml', 'utf8')
  const names = [...rules.matchAll(/- alert: (\w+)/g)].map(([, name = '']) => name)
  const folder = mkdtempSync(join(tmpdir(), 'msal-logout-alerts-'))
  const tests = shown.map(({ name, metrics }) => {
    const [before, after] = [samples(metrics[0]), samples(metrics[1])]
    const series = [...after].map(([labels, value]) => {
      const instance = labels.endsWith('}') ? labels.replace(/\}$/, ',instance="a"}') : `${labels}{instance="a"}`
      // What waits grows older while nobody mends it.
      const isAge = labels.startsWith('msal_logout_spool_oldest_age') && value > 0
      const first = before.has(labels) ? `${before.get(labels)}x4` : '_x4'
      return { series: instance, values: isAge ? `0x4 60+60x30` : `${first} ${value}x30` }
    })
    return {
      name,
      interval: '1m',
      input_series: [...series, { series: 'up{job="msal-logout",instance="a"}', values: '1x34' }],
      alert_rule_test: names.map((alertname) => ({ eval_time: '15m', alertname, exp_alerts: [] }))
    }
  })
  const file = join(folder, 'test.yaml')
  writeFileSync(
    file, // JSON is YAML
    JSON.stringify({ rule_files: [resolve('docs/operating/alerts.yaml')], evaluation_interval: '1m', tests })
  )
  const { stdout, stderr, error } = spawnSync('promtool', ['test', 'rules', file], {
    encoding: 'utf8',
    maxBuffer: 2 ** 26
  })
  rmSync(folder, { recursive: true })
  if (error !== undefined) {
    throw new Error("promtool is missing: install Debian's package prometheus, or Prometheus itself", { cause: error })
  }
  const found = new Map(shown.map(({ name }): [string, string[]] => [name, []]))
  let current: string[] = []
  for (const line of `${stdout}${stderr}`.split('\n')) {
    const [, name] = /^ {4}name: (.*),$/.exec(line) ?? []
    current = name === undefined ? current : (found.get(name) ?? [])
    const [, alert] = /^ {4}alertname: (\w+), time/.exec(line) ?? []
    if (alert !== undefined && !current.includes(alert)) {
      current.push(alert)
    }
  }
  return found
}

function tableOf(shown: readonly Shown[]): string {
  const alerts = firing(shown)
  const rows = shown.map(({ name, check, log, page }) => {
    const fired = (alerts.get(name) ?? []).map((alert) => `\`${alert}\``).join(', ')
    return `| ${name} | ${check} | ${log} | ${page} | ${fired === '' ? 'none' : fired} |\n`
  })
  return `| set up wrongly | \`msal-logout check\` | log | page, *Overview* | alert |\n| --- | --- | --- | --- | --- |\n${rows.join('')}`
}

t.test('what each wrong set-up shows is as the page says', async (t) => {
  const shown: Shown[] = []
  for (const setUp of setUps) {
    await t.test(setUp.name, async (t) => {
      shown.push(await perform(t, setUp))
    })
  }
  t.ok(shown.length >= 20)
  const table = tableOf(shown)
  const text = readFileSync(page, 'utf8')
  const [before = '', , after = ''] = text.split(/<!-- table -->\n/)
  if (process.env.UPDATE_DOCS === '1') {
    writeFileSync(page, `${before}<!-- table -->\n${table}<!-- table -->\n${after}`)
  } else {
    t.equal(text.split(/<!-- table -->\n/)[1], table)
  }
})

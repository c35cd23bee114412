// The promises of the shared cache, in each language that is installed here and across languages: real MSALs in
// processes of their own, one PostgreSQL, one token endpoint, the real service. `npm run test:conformance` runs them.
import { randomUUID } from 'node:crypto'
import { setTimeout as delay } from 'node:timers/promises'
import pg from 'pg'
import t, { type Test } from 'tap'
import { type Answer, type Driver, findPrograms, type Setup, startDriver } from './drivers.ts'
import { assertionOf, authorities, codeOf, type Person, startWorld, type World } from './world.ts'

const databaseUrl = process.env.TEST_DATABASE_URL
if (databaseUrl === undefined) {
  throw new Error('TEST_DATABASE_URL is not set: run the scenarios by "npm run test:conformance"')
}
// How many of each race; the usual run has a few, RACES=1000 is the proof.
const races = Number(process.env.RACES ?? 20)
const atOnce = 6
const timeout = 1_800_000

const languages = [...findPrograms().keys()]
const pairs = languages.flatMap((a) => languages.filter((b) => b !== a).map((b) => [a, b] as const))
const encryption = { current: 'k1', keys: { k1: '31'.repeat(32), k2: '32'.repeat(32) } }

const pool = new pg.Pool({ connectionString: databaseUrl, max: 8 })
const world: World = await startWorld({ databaseUrl, clientIds: ['client-a'] })
await pool.query('create table if not exists stock_cache (key text primary key, value text not null)')
t.teardown(async () => {
  await world.stop()
  await pool.end()
})
t.setTimeout(timeout) // of all together; each has its own
t.comment(`languages: ${languages.join(', ')}`)

const nowSeconds = () => Math.floor(Date.now() / 1_000)
const someone = (changes: Partial<Person> = {}): Person => ({
  homeAccountId: `${randomUUID()}.t`,
  subject: randomUUID(),
  sid: randomUUID(),
  issuedAt: nowSeconds() - 5,
  ...changes
})
const sidOf = ({ sid }: Person) => ({ sid: sid ?? '' })

async function start(t: Test, language: string, options: Partial<Setup> = {}): Promise<Driver> {
  const mode = options.mode ?? 'oidc'
  const driver = await startDriver(language, {
    databaseUrl: databaseUrl ?? '',
    clientId: 'client-a',
    endpoint: world.endpoint,
    mode,
    authority: authorities[mode],
    ...options
  })
  t.teardown(() => driver.stop())
  return driver
}

const signIn = (driver: Driver, person: Person, scopes = ['api-1']) =>
  driver.perform({ op: 'signIn', code: codeOf(person), scopes })
const silent = (driver: Driver, { homeAccountId }: Person, scopes = ['api-1'], forceRefresh = false) =>
  driver.perform({ op: 'silent', account: homeAccountId, scopes, forceRefresh })
const isActive = async (driver: Driver, { sid, subject }: Person) => {
  const answer = await driver.perform({ op: 'isSessionActive', issuer: world.issuer, sid: sid ?? null, subject })
  return 'ok' in answer ? answer.ok.active : answer.code
}

interface Stored {
  readonly encoding: string
  readonly contents: Record<string, Record<string, Record<string, string>>>
}

/** The rows of an account, and what is in those that are plain. */
async function rowsOf({ homeAccountId }: Person): Promise<Stored[]> {
  const { rows } = await pool.query<{ payload: Buffer; encoding: string }>(
    'select payload, encoding from msal_logout.token_cache where home_account_id = $1 order by partition_key',
    [homeAccountId]
  )
  return rows.map(({ payload, encoding }) => ({
    encoding,
    contents: encoding === 'json' ? JSON.parse(payload.toString()) : {}
  }))
}

const reserved = new Set(['openid', 'profile', 'offline_access'])

/** The scopes that a row has access tokens for. */
const scopesOf = (stored: Stored | undefined) =>
  Object.values(stored?.contents.AccessToken ?? {})
    .flatMap(({ target }) => (target ?? '').split(' ').filter((scope) => !reserved.has(scope)))
    .sort()

function isOk(t: Test, answer: Answer, message: string): asserts answer is Extract<Answer, { ok: unknown }> {
  t.ok('ok' in answer, `${message}${'ok' in answer ? '' : `: ${answer.code} ${answer.message}`}`)
}

/** Signed out, in each MSAL's way to say so. */
const isOut = (answer: Answer) => 'code' in answer && ['ERR_SIGNED_OUT', 'no_tokens'].includes(answer.code)

for (const language of languages) {
  t.test(language, { timeout }, async (t) => {
    for (const mode of ['oidc', 'entra'] as const) {
      for (const encrypted of [false, true]) {
        await t.test(`${mode}, ${encrypted ? 'encrypted' : 'plain'}: the whole round`, async (t) => {
          const driver = await start(t, language, { mode, ...(encrypted ? { encryption } : {}) })
          const alice = someone({ oid: randomUUID() })
          const user = await signIn(driver, alice)
          isOk(t, user, 'signed in')
          t.match(user.ok, { homeAccountId: alice.homeAccountId, sid: alice.sid, subject: alice.subject })
          const first = await silent(driver, alice)
          isOk(t, first, 'a silent token')
          t.equal(first.ok.source, 'cache')
          const refreshed = await silent(driver, alice, ['api-2'])
          isOk(t, refreshed, 'a token for another resource')
          t.equal(refreshed.ok.source, 'provider')
          const again = await silent(driver, alice, ['api-2'])
          isOk(t, again, 'and once more')
          t.equal(again.ok.source, 'cache')
          const [row] = await rowsOf(alice)
          t.equal(row?.encoding, encrypted ? 'gzip+a256gcm:k1' : 'json')
          if (!encrypted) {
            t.same(scopesOf(row), ['api-1', 'api-2'])
            t.equal(Object.keys(row?.contents.RefreshToken ?? {}).length, 1, 'one refresh token')
          }
          t.equal(await isActive(driver, alice), true)
          t.equal(await world.signOut(sidOf(alice)), 200)
          t.same(await rowsOf(alice), [])
          t.equal(await isActive(driver, alice), false)
          t.ok(isOut(await silent(driver, alice)), 'nothing is left')
          isOk(t, await signIn(driver, { ...alice, sid: randomUUID(), issuedAt: nowSeconds() + 2 }), 'a later login')
          isOk(t, await silent(driver, alice), 'works')
          t.equal(await world.purge(alice.homeAccountId), 200)
          t.ok(isOut(await silent(driver, alice)), "an operator's purge")
        })
      }
    }

    await t.test('a sign-out while a refresh is at the provider is not undone', async (t) => {
      const driver = await start(t, language)
      const alice = someone()
      await signIn(driver, alice)
      const held = world.hold('refresh_token')
      const refresh = silent(driver, alice, ['api-2'])
      await held.arrived
      await world.signOut(sidOf(alice))
      held.release()
      t.ok(isOut(await refresh))
      t.same(await rowsOf(alice), [])
    })

    for (const encrypted of [false, true]) {
      await t.test(`a sign-out before a save is not undone${encrypted ? ', encrypted' : ''}`, async (t) => {
        const driver = await start(t, language, encrypted ? { encryption } : {})
        const alice = someone()
        await signIn(driver, alice)
        const held = await driver.performUntilHeld({
          op: 'silent',
          account: alice.homeAccountId,
          scopes: ['api-1'],
          forceRefresh: true
        })
        await world.signOut({ subject: alice.subject })
        t.match(await held.release(), { code: 'ERR_SIGNED_OUT' })
        t.same(await rowsOf(alice), [])
      })

      await t.test(`a sign-out before its login is stored wins${encrypted ? ', encrypted' : ''}`, async (t) => {
        const driver = await start(t, language, encrypted ? { encryption } : {})
        const alice = someone()
        const held = await driver.performUntilHeld({ op: 'signIn', code: codeOf(alice), scopes: ['api-1'] })
        await world.signOut(sidOf(alice))
        t.match(await held.release(), { code: 'ERR_SIGNED_OUT' })
        t.same(await rowsOf(alice), [])
        isOk(t, await signIn(driver, { ...alice, sid: randomUUID(), issuedAt: nowSeconds() + 2 }), 'a later one works')
      })
    }

    await t.test("an old session's refresh never touches the next login", async (t) => {
      const driver = await start(t, language)
      const alice = someone({ issuedAt: nowSeconds() - 60 })
      await signIn(driver, alice)
      const held = await driver.performUntilHeld({
        op: 'silent',
        account: alice.homeAccountId,
        scopes: ['api-2'],
        forceRefresh: true
      })
      await world.signOut(sidOf(alice))
      await signIn(driver, { ...alice, sid: 'next', issuedAt: nowSeconds() + 2 })
      t.match(await held.release(), { code: 'ERR_SIGNED_OUT' })
      const [row] = await rowsOf(alice)
      t.same(scopesOf(row), ['api-1'])
      const [token] = Object.values(row?.contents.RefreshToken ?? {})
      t.match(JSON.parse(Buffer.from(token?.secret ?? '', 'base64url').toString()), { sid: 'next' })
    })

    await t.test('refreshes at once for different resources lose no token', async (t) => {
      const driver = await start(t, language)
      const alice = someone({ delayMs: 20 })
      await signIn(driver, alice)
      const scopes = ['r-1', 'r-2', 'r-3', 'r-4', 'r-5']
      for (const answer of await Promise.all(scopes.map((scope) => silent(driver, alice, [scope])))) {
        isOk(t, answer, 'a token')
      }
      t.same(scopesOf((await rowsOf(alice))[0]), ['api-1', ...scopes])
    })

    await t.test('on behalf of a user', async (t) => {
      const driver = await start(t, language)
      const alice = someone()
      const assertion = assertionOf(alice, world.issuer)
      const ask = () => driver.perform({ op: 'onBehalfOf', assertion, scopes: ['downstream'] })
      const first = await ask()
      isOk(t, first, 'a token')
      t.equal(first.ok.source, 'provider')
      const second = await ask()
      isOk(t, second, 'again')
      t.equal(second.ok.source, 'cache')
      t.equal((await rowsOf(alice)).length, 1)
      await world.signOut(sidOf(alice))
      t.same(await rowsOf(alice), [])
      t.ok(isOut(await ask()), 'an assertion from before')
      t.same(await rowsOf(alice), [])
    })

    await t.test('client credentials', async (t) => {
      const driver = await start(t, language)
      const request = { op: 'appToken', partition: `app-${randomUUID()}`, scopes: ['x/.default'] }
      const sources = []
      for (const answer of [await driver.perform(request), await driver.perform(request)]) {
        isOk(t, answer, 'a token')
        sources.push(answer.ok.source)
      }
      t.same(sources, ['provider', 'cache'])
    })

    await t.test('a login without a sid is ended by its subject', async (t) => {
      const driver = await start(t, language)
      const { sid: _, ...alice } = someone()
      isOk(t, await signIn(driver, alice), 'signed in')
      t.equal(await isActive(driver, alice), true)
      await world.signOut({ subject: alice.subject })
      t.equal(await isActive(driver, alice), false)
      t.same(await rowsOf(alice), [])
    })

    await t.test('a bare subject is the account', async (t) => {
      const driver = await start(t, language)
      const subject = `auth0|${randomUUID()}|AbC`
      const alice = someone({ homeAccountId: subject, subject })
      const user = await signIn(driver, alice)
      isOk(t, user, 'signed in')
      t.equal(user.ok.homeAccountId, subject)
      isOk(t, await silent(driver, alice, ['api-2']), 'refreshed')
      await world.signOut(sidOf(alice))
      t.same(await rowsOf(alice), [])
    })

    await t.test('a rejected refresh leaves the row as it is', async (t) => {
      const driver = await start(t, language)
      const alice = someone()
      await signIn(driver, alice)
      await pool.query(
        `update msal_logout.token_cache set payload = convert_to(replace(convert_from(payload, 'UTF8'), $2, $3), 'UTF8')
        where partition_key = $1`,
        [alice.homeAccountId, await refreshTokenOf(alice), codeOf({ ...alice, error: 'invalid_grant' })]
      )
      const before = await rowsOf(alice)
      t.match(await silent(driver, alice, ['api-2']), { code: 'invalid_grant' })
      t.same(await rowsOf(alice), before)
    })

    await t.test('revoked sessions are heard of', async (t) => {
      const driver = await start(t, language)
      const people = [someone(), someone()]
      isOk(t, await driver.perform({ op: 'listen' }), 'it listens')
      for (const person of people) {
        await signIn(driver, person)
        await world.signOut(sidOf(person))
      }
      const heard = () => driver.revoked.filter(({ sid }) => people.some((person) => person.sid === sid))
      for (const until = Date.now() + 35_000; heard().length < people.length && Date.now() < until; ) {
        await delay(20)
      }
      t.same(
        heard(),
        people.map(({ homeAccountId, sid, subject }) => ({ issuer: world.issuer, sid, subject, homeAccountId }))
      )
      isOk(t, await driver.perform({ op: 'stopListening' }), 'and stops')
    })

    await t.test('an app forgets an account', async (t) => {
      const driver = await start(t, language)
      const alice = someone()
      await signIn(driver, alice)
      const request = { op: 'removeAccount', account: alice.homeAccountId }
      t.match(await driver.perform(request), { ok: { removed: true } })
      t.match(await driver.perform(request), { ok: { removed: false } })
      t.same(await rowsOf(alice), [])
    })

    await t.test('a plain row under encryption is not read', async (t) => {
      const plain = await start(t, language)
      const strict = await start(t, language, { encryption })
      const lenient = await start(t, language, { encryption: { ...encryption, allowPlain: true } })
      const alice = someone()
      await signIn(plain, alice)
      t.ok(isOut(await silent(strict, alice)))
      isOk(t, await silent(lenient, alice, ['api-2']), 'where plain rows are allowed')
      t.equal((await rowsOf(alice))[0]?.encoding, 'gzip+a256gcm:k1')
      isOk(t, await silent(strict, alice, ['api-2']), 'and encrypted by the save')
    })
  })
}

async function refreshTokenOf(person: Person): Promise<string> {
  const [row] = await rowsOf(person)
  return Object.values(row?.contents.RefreshToken ?? {})[0]?.secret ?? ''
}

for (const [a, b] of pairs) {
  t.test(`${a}, then ${b}`, { timeout }, async (t) => {
    for (const mode of ['oidc', 'entra'] as const) {
      for (const encrypted of [false, true]) {
        await t.test(`${mode}, ${encrypted ? 'encrypted' : 'plain'}: what one writes the other reads`, async (t) => {
          const options = { mode, ...(encrypted ? { encryption } : {}) }
          const [first, second] = await Promise.all([start(t, a, options), start(t, b, options)])
          for (const bare of mode === 'oidc' ? [false, true] : [false]) {
            const subject = randomUUID()
            const alice = someone(bare ? { subject, homeAccountId: subject } : {})
            isOk(t, await signIn(first, alice), `${a} signs in`)
            const read = await silent(second, alice)
            isOk(t, read, `${b} has a token`)
            t.comment(`${b} has ${a}'s token from the ${read.ok.source}`)
            isOk(t, await silent(second, alice, ['api-2']), `${b} has a token for another resource`)
            const back = await silent(first, alice, ['api-2'])
            isOk(t, back, `${a} has it, too`)
            t.comment(`${a} has ${b}'s token from the ${back.ok.source}`)
            isOk(t, await silent(first, alice, ['api-3'], true), `${a} refreshes`)
            isOk(t, await silent(second, alice, ['api-4'], true), `${b} refreshes`)
            const [row] = await rowsOf(alice)
            if (!encrypted) {
              t.equal(Object.keys(row?.contents.RefreshToken ?? {}).length, 1, 'one refresh token is left')
              t.equal(Object.keys(row?.contents.IdToken ?? {}).length, 1, 'one ID token is left')
            }
            t.equal(await isActive(first, alice), true)
            t.equal(await isActive(second, alice), true)
            await world.signOut(sidOf(alice))
            t.same(await rowsOf(alice), [])
            for (const driver of [first, second]) {
              t.ok(isOut(await silent(driver, alice)), 'nothing is left')
              t.equal(await isActive(driver, alice), false)
            }
          }
        })
      }
    }

    await t.test(`${a} holds a save while ${b} signs in anew`, async (t) => {
      const [first, second] = await Promise.all([start(t, a), start(t, b)])
      const alice = someone()
      await signIn(first, alice)
      const held = await first.performUntilHeld({ op: 'silent', account: alice.homeAccountId, scopes: ['api-2'] })
      isOk(t, await signIn(second, { ...alice, sid: randomUUID() }), `${b} signs in`)
      isOk(t, await held.release(), `${a} saves onto it`)
      t.same(scopesOf((await rowsOf(alice))[0]), ['api-1', 'api-2'])
      isOk(t, await silent(second, alice), `${b} goes on`)
    })

    await t.test(`${a} holds a save while the logout of a login by ${b} comes`, async (t) => {
      const [first, second] = await Promise.all([start(t, a), start(t, b)])
      const alice = someone()
      await signIn(second, alice)
      const held = await first.performUntilHeld({
        op: 'silent',
        account: alice.homeAccountId,
        scopes: ['api-2'],
        forceRefresh: true
      })
      await world.signOut(sidOf(alice))
      t.match(await held.release(), { code: 'ERR_SIGNED_OUT' })
      t.same(await rowsOf(alice), [])
      t.ok(isOut(await silent(second, alice)))
    })

    await t.test('refreshes of both at once lose no token', async (t) => {
      const [first, second] = await Promise.all([start(t, a), start(t, b)])
      const alice = someone({ delayMs: 20 })
      await signIn(first, alice)
      const scopes = ['r-1', 'r-2', 'r-3', 'r-4']
      const answers = await Promise.all(scopes.map((scope, i) => silent(i % 2 === 0 ? first : second, alice, [scope])))
      for (const answer of answers) {
        isOk(t, answer, 'a token')
      }
      const [row] = await rowsOf(alice)
      t.same(
        scopesOf(row).filter((scope) => scope.startsWith('r-')),
        scopes
      )
    })
  })
}

// Races, between several processes of one language, and of all of them.

/** Runs so many, a few at once. */
async function repeat(count: number, race: (i: number) => Promise<void>): Promise<void> {
  let next = 0
  await Promise.all(
    Array.from({ length: atOnce }, async () => {
      for (let i = next++; i < count; i = next++) {
        await race(i)
      }
    })
  )
}

const random = (maxMs: number) => Math.random() * maxMs

/** How long logins and refreshes take here and now, so that a sign-out comes before, amid and after them. */
async function measure(driver: (i: number) => Driver): Promise<{ loginMs: number; refreshMs: number }> {
  const times: { loginMs: number; refreshMs: number }[] = []
  await repeat(4 * atOnce, async (i) => {
    const alice = someone()
    const begun = Date.now()
    await signIn(driver(i), alice)
    const signedIn = Date.now()
    await Promise.all(Array.from({ length: 5 }, (_, j) => silent(driver(i + j), alice, [`r-${j}`], true)))
    times.push({ loginMs: signedIn - begun, refreshMs: Date.now() - signedIn })
  })
  const median = (values: number[]) => values.sort((a, b) => a - b)[Math.floor(values.length / 2)] ?? 0
  const warm = times.slice(2 * atOnce)
  return { loginMs: median(warm.map((time) => time.loginMs)), refreshMs: median(warm.map((time) => time.refreshMs)) }
}

/** Five refreshes, and a purge amid them; of every tenth race before a save, on the slowest machine, too. */
async function refreshAmid(
  driver: (i: number) => Driver,
  i: number,
  person: Person,
  withinMs: number,
  purge: () => Promise<unknown>
): Promise<Answer[]> {
  if (i % 10 === 0) {
    const first = await silent(driver(i), person, ['r-0'], true)
    const request = { op: 'silent', account: person.homeAccountId, scopes: ['r-1'], forceRefresh: true }
    const held = await driver(i + 1).performUntilHeld(request)
    await purge()
    return [first, await held.release()]
  }
  const refreshes = Array.from({ length: 5 }, (_, j) => silent(driver(i + j), person, [`r-${j}`], true))
  await delay(random(withinMs))
  await purge()
  return Promise.all(refreshes)
}

const groups: readonly (readonly [string, readonly string[]])[] = [
  ...languages.map((language) => [`processes of ${language}`, [language, language, language]] as const),
  ...(languages.length > 1 ? [['processes of all languages', [...languages, ...languages]] as const] : [])
]

for (const [name, members] of groups) {
  t.test(`races: ${name}`, { timeout }, async (t) => {
    async function drivers(t: Test, options: Partial<Setup> = {}): Promise<(i: number) => Driver> {
      const all = await Promise.all(members.map((language) => start(t, language, options)))
      return (i) => all[i % all.length] as Driver
    }

    for (const encrypted of [false, true]) {
      const kind = encrypted ? ', encrypted' : ''
      await t.test(`a purge amid refreshes is never undone${kind}`, { timeout }, async (t) => {
        const driver = await drivers(t, encrypted ? { encryption } : {})
        const outcomes: Record<string, number> = {}
        let undone = 0
        const { refreshMs } = await measure(driver)
        await repeat(races, async (i) => {
          const alice = someone({ delayMs: random(8) })
          isOk(t, await signIn(driver(i), alice), 'signed in')
          const answers = await refreshAmid(driver, i, alice, refreshMs, () => world.signOut(sidOf(alice)))
          for (const answer of answers) {
            const outcome = 'ok' in answer ? 'done' : answer.code
            outcomes[outcome] = (outcomes[outcome] ?? 0) + 1
          }
          const { length } = await rowsOf(alice)
          undone += length
        })
        t.comment(`${name}${kind}: ${races} purges: undone ${undone}; the refreshes: ${JSON.stringify(outcomes)}`)
        t.equal(undone, 0)
        t.ok(outcomes.done, 'refreshes came before the purge')
        t.ok((outcomes.ERR_SIGNED_OUT ?? 0) + (outcomes.no_tokens ?? 0), 'and after it')
        t.same(
          Object.keys(outcomes).filter((outcome) => !['done', 'ERR_SIGNED_OUT', 'no_tokens'].includes(outcome)),
          []
        )
      })

      await t.test(`a login that races its own sign-out is never missed${kind}`, { timeout }, async (t) => {
        const driver = await drivers(t, encrypted ? { encryption } : {})
        let [missed, lost, later] = [0, 0, 0]
        const { loginMs } = await measure(driver)
        await repeat(races, async (i) => {
          const alice = someone({ delayMs: random(6) })
          const login = signIn(driver(i), alice)
          await delay(random(loginMs * 1.5))
          await world.signOut(i % 2 === 0 ? sidOf(alice) : { subject: alice.subject })
          const answer = await login
          lost += isOut(answer) ? 1 : 0
          const { length } = await rowsOf(alice)
          missed += length
          const next = { ...alice, sid: randomUUID(), issuedAt: nowSeconds() + 3 }
          const again = await signIn(driver(i + 1), next)
          isOk(t, again, 'a later login')
          const { length: rows } = await rowsOf(alice)
          later += rows
        })
        t.comment(
          `${name}${kind}: ${races} logins: missed ${missed}; lost ${lost}, stored and deleted ${races - lost}; later logins ${later}`
        )
        t.equal(missed, 0)
        t.equal(later, races)
      })
    }
  })
}

for (const language of languages) {
  t.test(`the control: the cache of MSAL's samples in ${language} brings purged rows back`, { timeout }, async (t) => {
    const all = await Promise.all(Array.from({ length: 3 }, () => start(t, language, { stock: true })))
    const driver = (i: number) => all[i % all.length] as Driver
    const count = Math.min(races, 200)
    let undone = 0
    const { refreshMs } = await measure(driver)
    await repeat(count, async (i) => {
      const alice = someone({ delayMs: random(8) })
      isOk(t, await signIn(driver(i), alice), 'signed in')
      await refreshAmid(driver, i, alice, refreshMs, () =>
        pool.query('delete from stock_cache where key = $1', [alice.homeAccountId])
      )
      const { rowCount } = await pool.query('select from stock_cache where key = $1', [alice.homeAccountId])
      undone += rowCount ?? 0
    })
    t.comment(`${language}, the control: ${count} purges: undone ${undone}`)
    t.ok(undone > 0, 'so the check can fail')
  })
}

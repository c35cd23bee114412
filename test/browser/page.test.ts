import { readFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import pg from 'pg'
import type { Locator, Page } from 'playwright-core'
import t, { type Test } from 'tap'
import { readConfig } from '../../src/config.ts'
import { createAdmin } from '../../src/http/admin.ts'
import { createIssuers } from '../../src/issuers.ts'
import { createOperatorCheck } from '../../src/operators.ts'
import { signIn, startBrowser, visit } from '../fixtures/browser.ts'
import { createDatabase, createRole } from '../fixtures/database.ts'
import { disabledMany, startWorld } from '../fixtures/directory-world.ts'
import {
  ada,
  adasObject,
  adasSid,
  adasSubject,
  adasTenant,
  buildWithHistory,
  person,
  staffIssuer
} from '../fixtures/page-data.ts'
import { adminToken, build, type Service } from '../fixtures/service.ts'

const browser = await startBrowser(t)
const axe = readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8')
const views = ['Overview', 'Accounts', 'Records', 'Purges', 'Rejected'] as const

async function open(page: Page, view: (typeof views)[number]): Promise<void> {
  await page
    .getByRole('navigation')
    .getByRole('link', { name: new RegExp(`^${view}`) })
    .click()
  await page.getByRole('heading', { level: 1, name: view }).waitFor()
}

/** What a field offers. */
function offered(page: Page, field: string): Promise<(string | null)[]> {
  const options = page.locator(`#${field}-choices option`)
  return options.evaluateAll((all) => all.map((each) => each.getAttribute('value')))
}

const finder = (page: Page) => page.locator('#find')

async function findAda(page: Page): Promise<void> {
  await open(page, 'Accounts')
  await finder(page).getByLabel('account id').check()
  await finder(page).getByLabel('homeAccountId').fill(ada)
  await page.getByRole('button', { name: 'Find' }).click()
  await page.getByText('3 apps, 4 rows, 5 sessions').waitFor()
}

async function tryDry(page: Page, reason: string): Promise<void> {
  await page.getByRole('textbox', { name: 'Reason' }).fill(reason)
  await page.getByRole('button', { name: 'Dry run' }).click()
}

const purgeButton = (page: Page) => page.getByRole('button', { name: /^Purge [\d,]+ rows?$/ })

/** An operators' listener on the service's parts, with other credentials. */
function adminWith(t: Test, service: Service, identify: Parameters<typeof createAdmin>[0]['identify']) {
  const other = createAdmin({ ...service.adminOptions, identify })
  t.teardown(() => other.close())
  return other
}

const recordsOf = (service: Service, reason: string) =>
  service.database.query('select status, accounts::int, rows::int from msal_logout.records where reason = $1', [reason])

t.test('an operator finds an account, tries a purge dry, purges it and finds the record', async (t) => {
  const service = await buildWithHistory(t)
  await service.login({ clientId: 'wiki', homeAccountId: 'grace.tenant', issuer: staffIssuer, sid: 'another' })
  const { page, complaints } = await visit(t, browser, service.admin, { timezoneId: 'UTC' })
  await signIn(page, adminToken)

  await open(page, 'Accounts')
  await finder(page).getByLabel('session').check()
  t.same(await offered(page, 'find-issuer'), ['https://id.partners.example', staffIssuer])
  await finder(page).getByLabel('Issuer').fill(staffIssuer)
  await finder(page).getByLabel('sid').fill(adasSid)
  await page.getByRole('button', { name: 'Find' }).click()
  await page.getByRole('heading', { name: ada }).waitFor()
  t.same(await page.locator('#found h3').allTextContents(), ['expenses', 'intranet', 'timesheets'])
  const size = page.locator('data[value="6412"]')
  t.equal(await size.textContent(), '6.4 kB')
  const time = page.locator('#found time').first()
  t.match(await time.textContent(), /^\d+ \w{3,4} \d{4}, \d\d:\d\d:\d\d UTC \(\d+ s ago\)$/)
  t.match(await time.getAttribute('datetime'), /^\d{4}-\d\d-\d\dT[\d:.]+Z$/)
  t.notMatch(await page.content(), 'xxxxxxxx', 'no payload')

  t.equal(await purgeButton(page).count(), 0, 'no purge before a dry run')
  await tryDry(page, 'laptop stolen')
  await page.getByText('Would delete 4 rows and end 5 sessions of 1 account.').waitFor()
  t.equal((await service.rows()).length, 5, 'nothing is gone yet')
  await page.getByRole('textbox', { name: 'Reason' }).fill('laptop stolen, ticket 12')
  t.equal(await purgeButton(page).count(), 0, 'another reason needs another dry run')
  await page.getByRole('button', { name: 'Dry run' }).click()
  await purgeButton(page).click()
  await page.getByText('Deleted 4 rows and ended 5 sessions').waitFor()
  await page.getByText('Nothing is left of this account.').waitFor()
  t.same(await service.rows(), ['wiki/grace.tenant'])

  await page.getByRole('link', { name: 'its record', exact: true }).click()
  await page.locator('#record').getByText('laptop stolen, ticket 12').waitFor()
  t.match(await page.locator('#record').textContent(), /Operatoradmin-token.*Rows4/)
  t.same(await page.locator('#record li a').allTextContents(), [ada], 'with the account that it matched')
  await page.getByRole('link', { name: 'All records' }).click()
  await page.getByRole('cell', { name: 'laptop stolen, ticket 12' }).waitFor()
  const shown = page.locator('#records tbody tr')
  t.equal(await shown.count(), 25)
  t.match(await shown.first().textContent(), 'laptop stolen, ticket 12', 'the newest is the first')
  await page.getByRole('button', { name: 'Show older' }).click()
  await page.getByText('50 records shown.').waitFor()
  t.equal(await shown.count(), 50)
  await open(page, 'Purges')
  const purges = page.locator('#purges tbody tr')
  await purges.first().getByText('laptop stolen, ticket 12').waitFor()
  t.equal(await purges.count(), 3, 'those of operators alone')

  await open(page, 'Accounts')
  await finder(page).getByLabel('subject').first().check()
  await finder(page).getByLabel('Subject', { exact: true }).fill(adasSubject)
  await page.getByRole('button', { name: 'Find' }).click()
  await page.getByText('No session of this subject is stored').waitFor()
  t.same(complaints(), [])
})

t.test('what came is found by source, issuer, account and operator, and the address keeps the filter', async (t) => {
  const service = await buildWithHistory(t)
  const { page, complaints } = await visit(t, browser, service.admin)
  await signIn(page, adminToken)
  const rows = page.locator('#records tbody tr')
  async function show(filter: Record<string, string>): Promise<void> {
    for (const label of ['Source', 'Issuer', 'homeAccountId', 'Operator']) {
      await page
        .locator('#filter')
        .getByLabel(label)
        .fill(filter[label] ?? '')
    }
    await page.getByRole('button', { name: 'Show', exact: true }).click()
  }

  await page.getByRole('link', { name: 'Security events' }).click()
  await page.getByRole('heading', { level: 1, name: 'Records' }).waitFor()
  await page.getByRole('cell', { name: 'Security events' }).first().waitFor()
  t.equal(await page.locator('#filter').getByLabel('Source').inputValue(), 'security-events')
  t.equal(await page.getByRole('cell', { name: 'Backchannel' }).count(), 0)
  await page.locator('#filter-source-choices option').first().waitFor({ state: 'attached' })
  t.same(await offered(page, 'filter-source'), ['backchannel', 'frontchannel', 'operator', 'security-events'])

  await show({ Operator: person })
  await rows.getByText('left the company').waitFor()
  t.equal(await rows.count(), 1)
  await page.reload()
  await rows.getByText('left the company').waitFor()
  t.equal(await page.locator('#filter').getByLabel('Operator').inputValue(), person)

  await show({ Source: 'operator' })
  await rows.getByText('laptop stolen, ticket 4711').waitFor()
  t.equal(await rows.count(), 2)
  const purged = (await rows.first().getByRole('link').last().textContent()) ?? ''
  await show({ homeAccountId: purged })
  await rows.nth(1).waitFor({ state: 'detached' })
  t.match(await rows.textContent(), 'laptop stolen, ticket 4711')
  await page.getByRole('link', { name: purged }).click()
  await page.getByText('Nothing is stored of this account.').waitFor()
  await page.getByRole('link', { name: 'Its records' }).click()
  await rows.getByText('laptop stolen, ticket 4711').waitFor()
  t.equal(await rows.count(), 1)

  await show({ Issuer: 'https://nobody.example' })
  await page.getByText('No record: nothing of this kind has come.').waitFor()
  await show({})
  await page.getByRole('button', { name: 'Show older' }).waitFor()
  t.equal(await rows.count(), 25)
  t.same(complaints(), [])
})

t.test('a directory object is found and purged by its tenant id and object id', async (t) => {
  const service = await buildWithHistory(t)
  const { page, complaints } = await visit(t, browser, service.admin, { path: '/#/accounts' })
  await signIn(page, adminToken)
  await finder(page).getByLabel('directory object').check()
  await finder(page).getByLabel('Tenant id').fill(adasTenant)
  await finder(page).getByLabel('Object id').fill(adasObject)
  await page.getByRole('button', { name: 'Find' }).click()
  await page.getByRole('heading', { name: ada }).waitFor()
  await open(page, 'Purges')
  await page.getByText('Purge an app, a tenant or a directory object').click()
  const form = page.locator('#many')
  await form.getByLabel('a directory object').check()
  await form.getByLabel('Tenant id').fill(adasTenant)
  await form.getByLabel('Object id').fill(adasObject)
  await form.getByRole('button', { name: 'Choose' }).click()
  await tryDry(page, 'disabled in the directory')
  await page.getByText('Would delete 4 rows and end 5 sessions of 1 account.').waitFor()
  await form.getByLabel('Object id').fill('another')
  t.equal(await purgeButton(page).count(), 0, 'what was chosen no longer holds')
  await form.getByLabel('Object id').fill(adasObject)
  await form.getByRole('button', { name: 'Choose' }).click()
  await tryDry(page, 'disabled in the directory')
  await purgeButton(page).click()
  await page.getByText('Deleted 4 rows and ended 5 sessions').waitFor()
  t.same(await service.rows(), [])
  await page.getByRole('link', { name: 'its record', exact: true }).click()
  await page.getByRole('heading', { name: 'Purge by an operator' }).waitFor()
  t.match(await page.locator('#record').textContent(), `Tenant${adasTenant}Object${adasObject}`)
  t.same(complaints(), [])
})

t.test('a purge can spare what was issued later, and shows so before it is done', async (t) => {
  const service = await buildWithHistory(t)
  const { page, complaints } = await visit(t, browser, service.admin, { timezoneId: 'Asia/Kolkata' })
  await signIn(page, adminToken)
  await findAda(page)
  // A day ago, in the time of the browser: one of the sessions is older.
  const local = new Date(Date.now() - 86_400_000 + 5.5 * 3_600_000).toISOString().slice(0, 19)
  await page.getByLabel('Only what was issued before').fill(local)
  await tryDry(page, 'a session of last week')
  await page.getByText('Would delete 0 rows and end 1 session of 1 account.').waitFor()
  const endButton = page.getByRole('button', { name: 'End 1 session' })
  t.equal(await endButton.count(), 1)
  await page.getByLabel('Only what was issued before').fill('')
  t.equal(await endButton.count(), 0, 'another time needs another dry run')
  await page.getByLabel('Only what was issued before').fill(local)
  await page.getByRole('button', { name: 'Dry run' }).click()
  await endButton.click()
  await page.getByText('Deleted 0 rows and ended 1 session').waitFor()
  await page.getByText('3 apps, 4 rows, 4 sessions').waitFor()
  t.same(complaints(), [])
})

t.test('several accounts of one sid are listed, and purged together', async (t) => {
  const service = await build(t)
  const issuer = service.provider.issuer
  for (const homeAccountId of ['ada.home', 'ada.guest']) {
    await service.login({ homeAccountId, sid: 'shared', subject: homeAccountId })
  }
  const { page, complaints } = await visit(t, browser, service.admin, { path: '/#/accounts' })
  await signIn(page, adminToken)
  await finder(page).getByLabel('session').check()
  await finder(page).getByLabel('Issuer').fill(issuer)
  await finder(page).getByLabel('sid').fill('shared')
  await page.getByRole('button', { name: 'Find' }).click()
  await page.getByText('2 accounts have a session of this sid.').waitFor()
  t.same(await page.locator('#found li a').allTextContents(), ['ada.guest', 'ada.home'])
  await tryDry(page, 'both')
  await purgeButton(page).click()
  await page.getByText('Deleted 2 rows and ended 2 sessions').waitFor()
  t.same(await service.rows(), [])
  t.same(complaints(), [])
})

t.test('equal ids of two issuers are told apart before anything is purged', async (t) => {
  const other = 'https://other.example'
  const service = await build(t)
  for (const [issuer, clientId] of [
    [service.provider.issuer, 'client-a'],
    [other, 'client-b']
  ] as const) {
    await service.login({ issuer, clientId, homeAccountId: '42', partitionKey: clientId, subject: '42' })
  }
  const { page, complaints } = await visit(t, browser, service.admin, { path: '/#/accounts/42' })
  await signIn(page, adminToken)
  await page.getByText('Accounts of several issuers bear this id').waitFor()
  t.equal(await page.getByRole('button', { name: 'Dry run' }).count(), 0)
  await page.getByRole('link', { name: other }).click()
  await tryDry(page, 'that one')
  await purgeButton(page).click()
  await page.getByText('Deleted 1 row').waitFor()
  t.same(await service.rows(), ['client-a/client-a'])
  t.same(complaints(), [])
})

t.test('the keyboard alone is enough to purge, and where it is can always be seen', async (t) => {
  const service = await buildWithHistory(t)
  const { page, complaints } = await visit(t, browser, service.admin)
  const { keyboard } = page
  const isFocused = async (locator: Locator) => (await locator.and(page.locator(':focus')).count()) > 0
  async function tabTo(locator: Locator, key = 'Tab'): Promise<void> {
    for (let presses = 0; !(await isFocused(locator)); presses += 1) {
      if (presses === 60) {
        throw new Error(`the keyboard does not reach ${locator}`)
      }
      await keyboard.press(key)
      const outline = await page.evaluate(
        '(({ outlineStyle, outlineWidth }) => [outlineStyle, outlineWidth])(getComputedStyle(document.activeElement))'
      )
      t.same(outline, ['solid', '2px'])
    }
  }

  t.ok(await isFocused(page.getByLabel('Bearer token')))
  await keyboard.type(adminToken)
  await keyboard.press('Enter')
  await page.getByRole('heading', { level: 1, name: 'Overview' }).waitFor()
  t.ok(await isFocused(page.getByRole('heading', { level: 1 })), 'a view begins at its heading')
  await tabTo(page.getByRole('link', { name: 'Accounts' }), 'Shift+Tab')
  await keyboard.press('Enter')
  await page.getByRole('heading', { level: 1, name: 'Accounts' }).waitFor()
  t.equal(await page.title(), 'Accounts – msal-logout')
  await tabTo(page.getByLabel('account id').first())
  await tabTo(finder(page).getByLabel('homeAccountId'))
  await keyboard.type(ada)
  await keyboard.press('Enter')
  const sums = page.getByText('3 apps, 4 rows, 5 sessions')
  await sums.waitFor()
  t.ok(await isFocused(sums))
  await tabTo(page.getByRole('textbox', { name: 'Reason' }))
  await keyboard.type('by keys')
  await keyboard.press('Enter')
  const preview = page.getByText('Would delete 4 rows')
  await preview.waitFor()
  t.ok(await isFocused(preview))
  await tabTo(purgeButton(page))
  await keyboard.press('Enter')
  const done = page.getByText('Deleted 4 rows')
  await done.waitFor()
  t.ok(await isFocused(done))
  await tabTo(page.getByRole('link', { name: 'its record', exact: true }))
  await keyboard.press('Enter')
  await page.getByRole('heading', { name: 'Purge by an operator' }).waitFor()
  t.same(await service.rows(), [])

  await page.reload()
  await page.getByRole('heading', { name: 'Purge by an operator' }).waitFor()
  await page.getByRole('link', { name: 'Skip to the content' }).press('Enter')
  t.ok(await isFocused(page.locator('main#content')))
  t.same(complaints(), [])
})

t.test(
  'a wrong token and one without the role are answered in the words of the interface, and show nothing',
  async (t) => {
    const service = await buildWithHistory(t)
    const { issuer } = service.provider
    const { adminAccessTokens } = readConfig({
      ISSUER: issuer,
      CLIENT_IDS: 'client-a',
      ADMIN_ISSUER: issuer,
      ADMIN_AUDIENCE: 'api://operators',
      ADMIN_ROLE: 'Purge.All'
    })
    if (adminAccessTokens === undefined) {
      throw new Error('not configured')
    }
    const admin = adminWith(
      t,
      service,
      createOperatorCheck({
        accessTokens: { ...adminAccessTokens, issuers: createIssuers([adminAccessTokens.issuer]) }
      })
    )
    const accessToken = (roles: string[]) =>
      service.provider.sign({
        iss: issuer,
        aud: 'api://operators',
        exp: Math.floor(Date.now() / 1_000) + 60,
        oid: 'person-1',
        roles
      })
    const { page, complaints } = await visit(t, browser, admin)
    const problem = page.getByRole('alert')
    for (const [token, text] of [
      ['wrong', 'Valid credentials of an operator are needed.'],
      [await accessToken(['Other']), 'The access token lacks the role of operators.'],
      ['two words', 'A token has no blanks, and no characters but those of ASCII.']
    ] as const) {
      await signIn(page, token)
      await problem.getByText(text).waitFor()
      t.equal(await page.getByRole('navigation').count(), 0)
      t.equal(await page.getByLabel('Bearer token').getAttribute('type'), 'password')
    }
    await signIn(page, await accessToken(['Purge.All']))
    await page.getByText('can be written').waitFor()
    t.same(await page.evaluate('[localStorage.length, sessionStorage.length, document.cookie]'), [0, 1, ''])
    await page.getByRole('button', { name: 'Sign out' }).click()
    await page.getByLabel('Bearer token').waitFor()
    t.same(await page.evaluate('[localStorage.length, sessionStorage.length, document.cookie]'), [0, 0, ''])
    t.notMatch(await page.content(), staffIssuer, 'nothing is left of what was seen')
    t.same(complaints(401, 403), [])
  }
)

t.test('when the token ends in the middle, what was looked at comes back after a new sign-in', async (t) => {
  const service = await buildWithHistory(t)
  const operators = { token: 'the-first-token-of-the-morning-00000000' }
  const admin = adminWith(t, service, (authorization) => createOperatorCheck(operators)(authorization))
  const { page, complaints } = await visit(t, browser, admin)
  await signIn(page, operators.token)
  await findAda(page)
  await tryDry(page, 'token ended')
  await purgeButton(page).waitFor()

  const first = operators.token
  operators.token = 'the-second-token-after-the-lunch-000000'
  await purgeButton(page).click()
  await page.getByText('comes back when you have signed in again').waitFor()
  t.match(
    await page.getByRole('alert').textContent(),
    /^Valid credentials of an operator are needed\. What to do: Use the token/
  )
  t.equal(await page.getByText(ada).filter({ visible: true }).count(), 0)
  await signIn(page, first)
  await page.getByRole('alert').getByText('Valid credentials').waitFor()
  await signIn(page, operators.token)
  await page.getByText('Nothing was purged: the sign-in had ended.').waitFor()
  t.equal((await service.rows()).length, 4, 'who signs in has not pressed the button')
  t.equal(await page.getByRole('textbox', { name: 'Reason' }).inputValue(), 'token ended')
  await purgeButton(page).click()
  await page.getByText('Deleted 4 rows').waitFor()
  t.same(await recordsOf(service, 'token ended'), [{ status: 'done', accounts: 1, rows: 4 }])

  operators.token = 'the-third-token-in-the-evening-00000000'
  const { origin } = new URL(page.url())
  await Promise.all(Array.from({ length: 70 }, () => fetch(`${origin}/admin/spool`))) // somebody of the same address
  await page.getByRole('navigation').getByRole('link', { name: 'Rejected' }).click()
  await page.getByText('comes back when you have signed in again').waitFor()
  await signIn(page, operators.token)
  await page.getByRole('cell', { name: 'Backchannel' }).first().waitFor()
  t.same(complaints(401, 429), [])
})

t.test('a purge pressed twice, and again after a lost answer, is done once', async (t) => {
  const service = await buildWithHistory(t)
  const { page, complaints } = await visit(t, browser, service.admin)
  await signIn(page, adminToken)
  await findAda(page)
  await tryDry(page, 'once')
  await purgeButton(page).waitFor()
  const keys: (string | undefined)[] = []
  await page.route('**/admin/purges', async (route) => {
    keys.push(route.request().headers()['idempotency-key'])
    const answer = await route.fetch()
    await (keys.length === 1 ? route.abort() : route.fulfill({ response: answer }))
  })
  await purgeButton(page).dblclick()
  await page.getByText('Whether it was done is not known. Press the button again: it is done once.').waitFor()
  t.equal(keys.length, 1)
  t.same(await service.rows(), [])
  await service.login({ homeAccountId: ada, clientId: 'wiki', issuedAt: Math.floor(Date.now() / 1_000) + 30 })
  await purgeButton(page).click()
  await page.getByText('Deleted 4 rows').waitFor()
  t.equal(keys.length, 2)
  t.type(keys[0], 'string')
  t.equal(keys[0], keys[1])
  t.same(await recordsOf(service, 'once'), [{ status: 'done', accounts: 1, rows: 4 }])
  t.same(await service.rows(), [`wiki/${ada}`], 'who has signed in since stays')
  t.same(
    complaints().filter((text) => !text.includes('net::ERR_FAILED')),
    []
  )
})

t.test('a large purge needs a word, goes on in the background, and shows how far it is', async (t) => {
  const service = await build(t, { edges: { sweeps: { maxAccountsAwaited: 1_000, rowsPerStep: 500 } } })
  await service.database.query(
    `select count(msal_logout.login('client-a', n || '.large', n || '.large', $1, 'sid-' || n, 'subject-' || n, 1, '{}', 'json',
      interval '1 day')) from generate_series(1001, 2001) n`,
    [service.provider.issuer]
  )
  const { page, complaints } = await visit(t, browser, service.admin, { path: '/#/purges' })
  await signIn(page, adminToken)
  await page.getByText('Purge an app, a tenant or a directory object').click()
  await page.getByLabel('a tenant').check()
  await page.locator('#many').getByLabel('Tenant id').fill('large')
  await page.getByRole('button', { name: 'Choose' }).click()
  t.equal(await page.getByLabel('Only what was issued before').count(), 0, 'a tenant goes whole')
  await tryDry(page, 'tenant left')
  await page.getByText('Would delete 1,001 rows and end 1,001 sessions of 1,001 accounts.').waitFor()
  t.equal(await purgeButton(page).isDisabled(), true)
  await page.getByLabel('I mean all 1,001 accounts').check()

  const locked = await service.database.pool.connect() // one of the last: the purge waits there
  await locked.query(`begin; select from msal_logout.token_cache where partition_key = '2001.large' for update`)
  t.teardown(() => locked.release(true))
  await purgeButton(page).click()
  await page.getByText('The purge is running, and goes on if you leave').waitFor()
  await page.getByText('1,000 of 1,001 accounts').waitFor()
  t.equal(await page.getByRole('progressbar').getAttribute('max'), '1001')
  t.equal(await page.getByRole('progressbar').getAttribute('value'), '1000')
  await page.getByText('running: 1,000 of 1,001').waitFor()
  await locked.query('rollback')
  await page.getByText('Deleted 1,001 rows and ended 1,001 sessions').waitFor()
  t.same(await service.rows(), [])
  t.same(complaints(), [])
})

t.test('rejected signals appear as they come, with what they say of themselves', async (t) => {
  const service = await build(t)
  const { page, complaints } = await visit(t, browser, service.admin, { path: '/#/rejected' })
  await signIn(page, adminToken)
  await page.getByText('No signal has been rejected.').waitFor()
  await service.post('not-a-token')
  await page.getByText('1 more signal rejected').waitFor({ state: 'attached' })
  await page.getByRole('rowheader', { name: 'The token is not a signed JWT. ERR_TOKEN_MALFORMED' }).waitFor()
  const aud = '<img src=x onerror=alert(1)>'
  await service.post(await service.provider.logoutToken({ aud }, { kid: 'k'.repeat(1_000) }))
  const says = page.locator('#rejected .details').first()
  await says.getByText(aud).waitFor()
  t.match(await says.textContent(), `iss ${service.provider.issuer}`)
  t.match(await says.textContent(), 'alg RS256')
  t.ok(((await says.textContent()) ?? '').length < 500, 'cut')
  t.equal(await page.locator('#rejected img').count(), 0, 'what a token says is text')
  for (let times = 0; times < 120; times += 1) {
    await service.post('not-a-token')
  }
  await page.getByText('more came from addresses that had sent too many').waitFor()
  t.same(complaints(), [])
})

t.test('whether it works is a sentence with what to do, and Rejected bears a count', async (t) => {
  const service = await build(t)
  await service.login({ sid: null })
  await service.post(await service.provider.logoutToken())
  await service.post(await service.provider.logoutToken({ aud: 'another-app' }))
  const { page, complaints } = await visit(t, browser, service.admin)
  await signIn(page, adminToken)
  const verdicts = page.locator('#verdicts')
  await verdicts.getByText('1 of 1 sign-out of main in the last hour ended nothing: its sessions bear no sid').waitFor()
  t.match(
    await verdicts.locator('li').first().textContent(),
    /^Fails.*What to do: Have the provider put a sid into ID/s
  )
  t.match(await page.locator('#sessions tbody').textContent(), /client-a\s*main\s*1\s*1/, 'its apps are named')
  t.equal(await page.locator('nav .badge > :first-child').textContent(), '1')
  await page.getByRole('link', { name: 'Rejected 1 in the last hour' }).waitFor()
  await open(page, 'Rejected')
  t.match(await page.locator('#rejected tbody').textContent(), /aud another-app.*client-a/s)
  t.match(await page.locator('footer').textContent(), /^msal-logout \d+\.\d+\.\d+/)
  t.same(complaints(), [])
})

t.test('a person is looked for by address: in a directory, or by the clicks at the provider', async (t) => {
  const service = await build(t)
  const { page, complaints } = await visit(t, browser, service.admin, { path: '/#/accounts' })
  await signIn(page, adminToken)
  await finder(page).getByLabel('e-mail address or user name').check()
  await finder(page).getByText('No directory is configured that could be asked').waitFor()
  const clicks = /^main \(another provider\): The page of the user/
  t.match(await finder(page).locator('li').textContent(), clicks, 'beside the form, before anything is asked')
  await finder(page).getByLabel('Address or name').fill('ada@example.com')
  await page.getByRole('button', { name: 'Find' }).click()
  await page.getByText('No address is stored here, and no directory is configured to ask.').waitFor()
  t.match(await page.locator('#found li').textContent(), clicks)
  await service.login({ homeAccountId: 'u.t' })
  await finder(page).getByLabel('account id').check()
  await finder(page).getByLabel('homeAccountId').fill('U.T')
  await page.getByRole('button', { name: 'Find' }).click()
  await page.getByText('account "u.t" is stored: its letters are of another case').waitFor()
  t.same(complaints(), [])
})

t.test('what became of signals is split into bars, and records are counted by source, whatever its name', async (t) => {
  const service = await build(t)
  const { page, complaints } = await visit(t, browser, service.admin)
  await signIn(page, adminToken)
  await page.getByText('Nothing came in this time.').waitFor()
  t.equal(await page.locator('#stats figure').count(), 0)
  await service.login({ sid: 's1' })
  await service.post(await service.provider.logoutToken({ sid: 's1' }))
  await service.post(await service.provider.logoutToken({ sid: 's2' }))
  await service.post('not-a-token')
  service.provider.behaviour = 'down'
  await service.post(await service.provider.logoutToken({ sid: 's3' }, { kid: 'another' }))
  await service.database.query(
    `insert into msal_logout.records (id, source)
    select gen_random_uuid(), source from unnest(array['a-new-one', 'operator', '<b>', '__proto__', 'constructor']) source`
  )
  await page.getByLabel('Time').selectOption('last 6 hours')
  await page.getByText('A new one 1').waitFor()
  t.same(await page.locator('.legend li').allTextContents(), [
    'Ended something 1',
    'Unmatched 1',
    'Deferred 1',
    'Rejected 1'
  ])
  const bars = await page
    .locator('#stats figure rect')
    .evaluateAll((all) => all.map((bar) => bar.getAttribute('class')))
  t.same([...new Set(bars)], ['done', 'unmatched', 'deferred', 'rejected'])
  const colors = (await page.evaluate(
    `[...document.querySelectorAll('.legend rect')].map((mark) => getComputedStyle(mark).fill)`
  )) as string[]
  t.equal(new Set(colors).size, 4)
  await page.getByText('As a table').click()
  t.match(await page.locator('#stats thead').textContent(), /^Time \(.+\)Ended somethingUnmatchedDeferredRejected$/)
  t.same(await page.locator('#stats .counts li').allTextContents(), [
    '<b> 1',
    '__proto__ 1',
    'A new one 1',
    'Backchannel 2',
    'Constructor 1',
    'Operator 1'
  ])
  t.same(complaints(), [])
})

t.test('markup in what others have chosen stays text in every view', async (t) => {
  const markup = `"><img src=x onerror="document.title='taken'">\${1}`
  const service = await build(t)
  const issuer = service.provider.issuer
  await service.login({
    homeAccountId: markup,
    partitionKey: `row ${markup}`,
    sid: `sid ${markup}`,
    subject: `sub ${markup}`,
    clientId: markup
  })
  const purge = { homeAccountId: markup, reason: `reason ${markup}` }
  t.equal((await service.operate('POST', '/admin/purges', { ...purge, dryRun: true })).statusCode, 200)
  await service.post(await service.provider.logoutToken({ iss: `https://evil.example/${markup}`, aud: markup }))
  await service.login({ homeAccountId: 'other', issuer: `https://iss.example/${markup}`, subject: `sub ${markup}` })
  await service.database.query(
    `insert into msal_logout.records (id, source, issuer, client_id, jti, sid, subject, home_account_id, reason, actor)
    select gen_random_uuid(), source, $1, $1, $1, $1, $1, $1, $1, $1 from unnest(array[$1, 'operator']) source`,
    [markup]
  )
  const { page, complaints } = await visit(t, browser, service.admin)
  const isText = async (view: string) => {
    t.equal(await page.locator('img:not([alt=""])').count(), 0, view)
    t.not(await page.title(), 'taken')
  }
  await signIn(page, adminToken)
  await page.locator('#sessions').getByText(markup).first().waitFor()
  await page.locator('#stats').getByText(markup, { exact: false }).first().waitFor()
  await isText('overview')
  await open(page, 'Rejected')
  await page.locator('#rejected').getByText(markup).first().waitFor()
  await isText('rejected')
  await open(page, 'Records')
  await page.locator('#records').getByText(markup).first().waitFor()
  await page.locator('#filter-source-choices option').first().waitFor({ state: 'attached' })
  t.ok((await offered(page, 'filter-source')).includes(markup))
  await isText('records')
  await page.locator('#records tbody a').first().click()
  await page.locator('#record dd', { hasText: markup }).first().waitFor()
  await isText('record')
  await open(page, 'Purges')
  await page.locator('#purges').getByText(markup).first().waitFor()
  await page.getByText('Purge an app, a tenant or a directory object').click()
  await page.getByLabel('Client id').fill(markup)
  await page.getByRole('button', { name: 'Choose' }).click()
  await page.getByRole('heading', { name: `Purge all of the app ${markup}` }).waitFor()
  await isText('purges')
  await open(page, 'Accounts')
  await finder(page).getByLabel('session').check()
  await finder(page).getByLabel('Issuer').fill(issuer)
  await finder(page).getByLabel('sid').fill(`sid ${markup}`)
  await page.getByRole('button', { name: 'Find' }).click()
  await page.getByRole('heading', { level: 2, name: markup, exact: true }).waitFor()
  t.match(await page.locator('#found').textContent(), `row ${markup}`)
  t.match(await page.locator('#found').textContent(), `sub ${markup}`)
  await isText('account')
  await tryDry(page, markup)
  await purgeButton(page).click()
  await page.getByText('Deleted 1 row').waitFor()
  await isText('purged')
  t.same(complaints(), [])
})

t.test('the client ids that are configured or stored are offered, and the form is empty after a purge', async (t) => {
  const service = await build(t)
  await service.login({ clientId: 'not-configured' })
  const { page, complaints } = await visit(t, browser, service.admin, { path: '/#/purges' })
  await signIn(page, adminToken)
  await page.getByText('Purge an app, a tenant or a directory object').click()
  const clientId = page.getByLabel('Client id')
  await page.locator('#many-client-choices option').first().waitFor({ state: 'attached' })
  t.same(await offered(page, 'many-client'), ['client-a', 'not-configured'])
  await clientId.fill('not-configured')
  await page.getByRole('button', { name: 'Choose' }).click()
  await tryDry(page, 'app is gone')
  await purgeButton(page).click()
  await page.getByText('Deleted 1 row').waitFor()
  t.equal(await clientId.inputValue(), '')
  t.equal(await page.getByRole('textbox', { name: 'Reason' }).inputValue(), '')
  await page.getByRole('link', { name: 'its record', exact: true }).click()
  await page.locator('#record').getByText('app is gone').waitFor()
  await open(page, 'Purges')
  await page.locator('#purges tbody').getByText('app is gone').waitFor()
  t.same(complaints(), [])
})

t.test('a reload keeps the sign-in, another tab has none, and a password manager can fill the form', async (t) => {
  const service = await build(t)
  const { page, complaints } = await visit(t, browser, service.admin)
  const token = page.getByLabel('Bearer token')
  t.equal(await token.getAttribute('autocomplete'), 'current-password')
  t.equal(await page.locator('#sign-in-form input').first().getAttribute('autocomplete'), 'username')
  await signIn(page, adminToken)
  await page.getByText('can be written').waitFor()
  await page.reload()
  await page.getByText('can be written').waitFor()
  t.equal(await token.isVisible(), false)
  const other = await page.context().newPage()
  await other.goto(page.url())
  await other.getByLabel('Bearer token').waitFor()
  await page.evaluate(`sessionStorage.setItem('msal-logout-token', 'no-longer-good')`)
  await page.reload()
  await page.getByRole('alert').getByText('Valid credentials of an operator are needed.').waitFor()
  t.equal(await page.evaluate('sessionStorage.length'), 0)
  t.same(complaints(401), [])
})

t.test(
  'the header stands in two lines on a small phone in every state, and a state says since when and what to do',
  async (t) => {
    const service = await build(t)
    const { page, complaints } = await visit(t, browser, service.admin, { viewport: { width: 320, height: 700 } })
    await page.route('**/admin/stats?minutes=60', async (route) => {
      const answer = await route.fetch()
      await route.fulfill({ response: answer, json: { ...(await answer.json()), rejected: 1_234 } })
    })
    let readyz: { status: number; json: object } | undefined = { status: 200, json: { status: 'ok', version: '0.1.0' } }
    await page.route('**/readyz', (route) => (readyz === undefined ? route.abort() : route.fulfill(readyz)))
    await signIn(page, adminToken)
    async function check(state: string, text: RegExp): Promise<void> {
      await page.reload()
      await page.locator('nav .badge').waitFor()
      await page.locator('#readiness').waitFor()
      t.match(await page.locator('#trouble').textContent(), text, state)
      t.equal(await page.evaluate('document.documentElement.scrollWidth <= innerWidth'), true, `${state} fits`)
      const { height } = (await page.locator('header').boundingBox()) ?? { height: Number.NaN }
      t.ok(height < 90, `${state}: the header is ${height} px high`)
    }
    await check('ready', /^$/)
    const reasons = (await page.evaluate(
      `import('/page/states.js').then(({ unready }) => Object.keys(unready))`
    )) as string[]
    t.ok(reasons.length > 10)
    const since = new Date(Date.now() - 200_000).toISOString()
    for (const reason of [...reasons, 'ERR_UNKNOWN']) {
      readyz = { status: 503, json: { status: 'unavailable', reason, since, version: '0.1.0' } }
      await check(reason, /^Not ready since .+ \(3 min ago\): .+What to do: .+/s)
    }
    readyz = undefined
    await check('silent', /^The service has not answered since .+What to do: .+/s)
    t.same(
      complaints(503).filter((text) => !text.includes('net::ERR_FAILED')),
      []
    )
  }
)

t.test(
  'a directory stands in a sentence, and whom it holds an operator purges; a person is found by address',
  async (t) => {
    const world = await startWorld(t, { maxAccounts: 2 })
    const { service, tenant, round, graph } = world
    const [first = ''] = await disabledMany(world, 3, 5)
    await round()
    const { page, complaints } = await visit(t, browser, service.admin)
    await signIn(page, adminToken)
    const card = page.locator('#directories')
    await card.getByText('3 accounts of 5 would go at once.').waitFor()
    await card.getByText('3 accounts held').click()
    await card.getByText(first).waitFor()
    const questions: string[] = []
    page.on('dialog', (dialog) => {
      questions.push(dialog.message())
      return dialog.accept()
    })
    await card.getByRole('button', { name: 'Purge 3 accounts' }).click()
    await card.getByRole('button', { name: 'Purge 3 accounts' }).waitFor({ state: 'detached' })
    t.same(questions, ['Purge 3 accounts of "main"? These people must sign in again.'])
    await round()
    t.equal((await service.rows()).length, 2)

    await open(page, 'Accounts')
    await finder(page).getByLabel('e-mail address or user name').check()
    await finder(page).getByText('The directory of main is asked.').waitFor()
    const id = await world.user()
    Object.assign(tenant.users.get(id) ?? {}, { userPrincipalName: 'ada@contoso.example' })
    await finder(page).getByLabel('Address or name').fill('ada@contoso.example')
    await page.getByRole('button', { name: 'Find' }).click()
    await page.getByRole('heading', { name: `${id}.${world.tenantId}` }).waitFor()

    await graph.close()
    await round()
    await open(page, 'Overview')
    await card.getByText("Microsoft's sign-in or Graph does not answer.").waitFor({ timeout: 20_000 })
    t.match(
      await card.textContent(),
      /Changes are not seen at once since .+every 15 minutes.+What to do: Look at name resolution/s
    )
    t.same(complaints(), [])
  }
)

t.test('what waits on disk is shown, and what cannot be used is named', async (t) => {
  const service = await build(t)
  service.provider.behaviour = 'down'
  await service.post(await service.provider.logoutToken())
  const { page, complaints } = await visit(t, browser, service.admin)
  await signIn(page, adminToken)
  await page.locator('#spool').getByText('can be written').waitFor()
  t.match(
    await page.locator('#spool').textContent(),
    /1 signal waits, the oldest since .*Unverified, for keys1Unsigned0/s
  )
  await page.route('**/admin/spool', (route) =>
    route.fulfill({
      json: {
        verified: 0,
        unverified: 0,
        unsigned: 0,
        rejected: 0,
        stuck: [{ name: 'a-file', reason: 'EACCES' }],
        oldestAt: null,
        isWritable: false
      }
    })
  )
  await page.getByText('1 file cannot be used: mend or remove them.').waitFor({ timeout: 20_000 })
  await page.getByText('a-file EACCES').waitFor()
  await page.getByText('cannot be written', { exact: true }).waitFor()
  t.same(complaints(), [])
})

t.test('where nothing is stored, each view says what that means', async (t) => {
  const service = await build(t)
  const { page, complaints } = await visit(t, browser, service.admin)
  await signIn(page, adminToken)
  await page
    .getByText('Nothing came in this time. If users have signed out, their signals do not arrive here.')
    .waitFor()
  await page.getByText('Nothing waits: every signal that came is done.').waitFor()
  await open(page, 'Purges')
  await page.getByText('No purge has been recorded').waitFor()
  await open(page, 'Records')
  await page.getByText('No record: nothing of this kind has come.').waitFor()
  await open(page, 'Rejected')
  await page.getByText('No signal has been rejected.').waitFor()
  await open(page, 'Accounts')
  await finder(page).getByLabel('homeAccountId').fill('nobody.tenant')
  await page.getByRole('button', { name: 'Find' }).click()
  await page.getByText('No app has a row or a session of it').waitFor()
  await page.goto(`${new URL('/', page.url())}#/records/11111111-1111-4111-8111-111111111111`)
  await page.getByText('No record has this id.').waitFor()
  t.same(complaints(404), [])
})

t.test('a database out of reach is shown in each view, and the page goes on when it is back', async (t) => {
  const database = await createDatabase(t)
  const role = await createRole(database, 'service')
  await database.query('select msal_logout.register_service($1)', [role])
  const url = new URL(database.url)
  url.username = role
  url.password = 'test'
  const service = await build(t, { openPool: () => new pg.Pool({ connectionString: url.href }) })
  const { page, complaints } = await visit(t, browser, service.admin, { path: '/#/purges', timezoneId: 'UTC' })
  await signIn(page, adminToken)
  await page.getByText('No purge has been recorded').waitFor()
  await page.getByText('Ready', { exact: true }).waitFor()

  await database.query(`alter role ${role} nologin`)
  await database.query('select pg_terminate_backend(pid) from pg_stat_activity where usename = $1', [role])
  await page.getByRole('button', { name: 'Refresh' }).click()
  await page.locator('#purges').getByRole('alert').getByText('The database is out of reach.').waitFor()
  await open(page, 'Overview')
  await page.locator('#stats').getByText('The records are in the database, which is out of reach').waitFor()
  await page.locator('#directories, #spool').first().waitFor()
  await page.getByText('can be written').waitFor() // the rest is shown all the same
  const trouble = page.locator('#trouble')
  await trouble.getByText('Not ready since').waitFor({ timeout: 20_000 })
  t.match(
    await trouble.textContent(),
    /UTC \(\d+ s ago\): the database does not answer.*What to do: See that PostgreSQL runs/s
  )

  await database.query(`alter role ${role} login`)
  await page.getByLabel('Time').selectOption('last 24 hours')
  await page.getByText('Nothing came in this time.').waitFor()
  t.same(complaints(503), [])
})

t.test('axe finds nothing to mend in light and dark, and nothing is wider than a phone', async (t) => {
  const service = await buildWithHistory(t)
  await service.database.query("update msal_logout.records set reason = repeat('W', 400) where source = 'operator'")
  async function check(page: Page, name: string): Promise<void> {
    const { violations } = (await page.evaluate('axe.run()')) as {
      violations: { id: string; nodes: { target: string[]; failureSummary: string }[] }[]
    }
    const found = violations.flatMap(({ id, nodes }) =>
      nodes.map((node) => `${id}: ${node.target} ${node.failureSummary}`)
    )
    t.same(found, [], name)
    t.equal(await page.evaluate('document.documentElement.scrollWidth <= innerWidth'), true, `${name} fits`)
  }
  for (const colorScheme of ['light', 'dark'] as const) {
    for (const width of [320, 768, 1_280]) {
      const name = (view: string) => `${view}, ${colorScheme}, ${width}`
      const { page, complaints } = await visit(t, browser, service.admin, {
        colorScheme,
        reducedMotion: 'reduce',
        viewport: { width, height: 800 }
      })
      await page.evaluate(axe)
      await signIn(page, 'wrong')
      await page.getByText('Valid credentials').waitFor()
      await check(page, name('sign-in'))
      await signIn(page, adminToken)
      await page.getByText('can be written').waitFor()
      await page.locator('#stats figure').waitFor()
      await page.getByText('As a table').click()
      await check(page, name('overview'))
      await open(page, 'Rejected')
      await page.getByRole('cell', { name: 'Backchannel' }).first().waitFor()
      await check(page, name('rejected'))
      await open(page, 'Purges')
      await page.getByText('Purge an app, a tenant or a directory object').click()
      await page.getByLabel('Client id').fill('no-such-app')
      await page.getByRole('button', { name: 'Choose' }).click()
      await tryDry(page, 'nothing')
      await page.getByText('Nothing would go').waitFor()
      await check(page, name('purges'))
      await open(page, 'Records')
      await page.getByRole('button', { name: 'Show older' }).waitFor()
      await check(page, name('records'))
      await page.locator('#records tbody tr', { hasText: 'Backchannel' }).first().getByRole('link').first().click()
      await page.getByText('Sign-out by Backchannel').waitFor()
      await check(page, name('record'))
      await findAda(page)
      await tryDry(page, 'laptop stolen')
      await purgeButton(page).waitFor()
      await check(page, name('account'))
      t.same(complaints(401), [])
    }
  }
})

t.test('the pictures of the docs are taken', async (t) => {
  const service = await buildWithHistory(t)
  for (const [name, width, height, colorScheme, show] of [
    ['desktop', 1_440, 900, 'light', async () => {}],
    ['phone', 390, 844, 'dark', async () => {}],
    [
      'tablet',
      820,
      1_180,
      'light',
      async (page: Page) => {
        await findAda(page)
        await tryDry(page, 'laptop stolen, ticket 4711')
        await purgeButton(page).waitFor()
        await purgeButton(page).scrollIntoViewIfNeeded()
      }
    ]
  ] as const) {
    const { page, complaints } = await visit(t, browser, service.admin, { viewport: { width, height }, colorScheme })
    await signIn(page, adminToken)
    await page.getByText('can be written').waitFor()
    await page.locator('#stats figure').waitFor()
    await show(page)
    const picture = await page.screenshot({ path: `docs/page-${name}.png` })
    t.ok(picture.length < 200_000, `${name}: ${picture.length} bytes`)
    t.same(complaints(), [])
  }
})

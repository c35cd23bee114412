// Every view in every state, at three widths, in light and dark. The answers are made up, by the types of the schemas;
// what the service itself answers is in page.test.ts. PICTURES=<folder> keeps a picture of each, for eyes.
import { mkdirSync, readFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { join } from 'node:path'
import fastify from 'fastify'
import type { Page, Route } from 'playwright-core'
import t, { type Test } from 'tap'
import { servePage } from '../../src/http/page.ts'
import { signIn, startBrowser, visit } from '../fixtures/browser.ts'
import {
  type Answers,
  ago,
  brokenDirectory,
  crowd,
  directory,
  directoryFailure,
  dryRun,
  type Failure,
  fresh,
  gone,
  hostile,
  hostileAnswers,
  issuer,
  matchesNothing,
  nobody,
  outage,
  problem,
  purgeOfOperator,
  quiet,
  record,
  runningPurge,
  slow,
  spool,
  stats,
  stream,
  usual,
  verdict
} from '../fixtures/page-states.ts'

const pictures = process.env.PICTURES
if (pictures !== undefined) {
  mkdirSync(pictures, { recursive: true })
}
const browser = await startBrowser(t)
const axe = readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8')
const widths = [320, 768, 1_280]

interface State {
  /** Default that of a service in good health. */
  readonly answers?: Answers
  readonly hash?: string
  /** Default signed in. */
  readonly isSignedOut?: boolean
  /** Until the state can be seen. */
  reach?(page: Page, answers: (changes: Partial<Answers>) => void): Promise<unknown>
}

function answerOf(answers: Answers, method: string, path: string) {
  if (method === 'POST') {
    return answers.purge
  }
  const [, , view, id] = path.split('/')
  switch (view) {
    case undefined:
      return answers.readyz
    case 'accounts':
      return id === undefined ? answers.accounts : answers.account
    case 'purges':
    case 'records':
      return id === undefined ? answers.records : answers.record
    case 'stats':
    case 'rejections':
    case 'issuers':
    case 'streams':
    case 'directories':
    case 'spool':
      return answers[view]
    default:
      throw new Error(`nothing answers ${method} ${path}`)
  }
}

async function fulfill(route: Route, answer: object | Failure): Promise<void> {
  if (answer === 'never') {
    return // the browser gives up
  }
  if (answer === 'none') {
    return route.abort()
  }
  if (answer === 'half') {
    return route.fulfill({ contentType: 'application/json', body: '{"minutes":[{"at":"2026-' })
  }
  if ('body' in answer) {
    return route.fulfill({ status: answer.status, contentType: 'application/problem+json', body: String(answer.body) })
  }
  const status = 'reason' in answer && 'version' in answer ? 503 : 200
  return route.fulfill({ status, json: answer })
}

async function show(t: Test, { answers: given = usual, hash = '#/overview', isSignedOut = false, reach }: State) {
  const app = fastify()
  app.register(servePage)
  t.teardown(() => app.close())
  let answers = given
  const { page, complaints } = await visit(t, browser, app, {
    timezoneId: 'Europe/Berlin',
    reducedMotion: 'reduce',
    async prepare(context) {
      await context.route(/\/(admin\/|readyz)/, (route) => {
        const { pathname } = new URL(route.request().url())
        return fulfill(route, answerOf(answers, route.request().method(), pathname === '/readyz' ? '' : pathname))
      })
      if (!isSignedOut) {
        await context.addInitScript(`sessionStorage.setItem('msal-logout-token', 'a-token')`)
      }
    },
    path: `/${hash}`
  })
  await reach?.(page, (changes) => {
    answers = { ...answers, ...changes }
  })
  return { page, complaints }
}

const text = (page: Page, words: string | RegExp) => page.getByText(words).first().waitFor()
const openMany = (page: Page) => page.getByText('Purge an app, a tenant or a directory object').click()

async function tryDry(page: Page): Promise<void> {
  await page.getByRole('textbox', { name: 'Reason' }).fill('laptop stolen, ticket 4711')
  await page.getByRole('button', { name: 'Dry run' }).click()
}

async function findBy(page: Page, way: string): Promise<void> {
  await page.locator('#find').getByLabel(way, { exact: true }).check()
}

const accountHash = '#/accounts/6f1c2a90-51f3-4a0e-9d6b-3f0d8a5f7c11.0b54c7e2-93d1-4f5e-8a86-1d2c4e7b9a30'
const recordHash = '#/records/11111111-1111-4111-8111-111111111111'
const wholeOverview = (page: Page) => text(page, /can be written|cannot be written/)

const states: Readonly<Record<string, State>> = {
  'sign-in': { isSignedOut: true, reach: (page) => page.getByLabel('Bearer token').waitFor() },
  'sign-in-wrong': {
    isSignedOut: true,
    answers: { ...usual, issuers: problem(401, 'unauthorized', 'valid credentials of an operator are needed') },
    async reach(page) {
      await signIn(page, 'wrong')
      await text(page, 'Valid credentials')
    }
  },
  'sign-in-too-many': {
    isSignedOut: true,
    answers: { ...usual, issuers: problem(429, 'too_many_requests', 'too many rejected requests from this address') },
    async reach(page) {
      await signIn(page, 'wrong')
      await text(page, 'Too many rejected requests')
    }
  },
  'sign-in-role-missing': {
    isSignedOut: true,
    answers: { ...usual, issuers: problem(403, 'forbidden', 'the access token lacks the role of operators') },
    async reach(page) {
      await signIn(page, 'wrong')
      await text(page, 'lacks the role')
    }
  },
  'sign-in-no-answer': {
    isSignedOut: true,
    answers: gone,
    async reach(page) {
      await signIn(page, 'a-token')
      await text(page, 'did not answer')
    }
  },
  'sign-in-slow': {
    isSignedOut: true,
    answers: slow,
    async reach(page) {
      await signIn(page, 'a-token')
      await page.locator('button[aria-busy="true"]').waitFor()
    }
  },
  'sign-in-again': {
    async reach(page, answers) {
      await wholeOverview(page)
      answers({ records: problem(401, 'unauthorized', 'valid credentials of an operator are needed') })
      await page.getByRole('link', { name: 'Records', exact: true }).click()
      await text(page, 'comes back when you have signed in again')
    }
  },
  overview: {
    async reach(page) {
      await wholeOverview(page)
      await page.getByText('As a table').click()
      await page.getByText('3 apps').click()
      await page.getByText('Last rounds').click()
    }
  },
  'overview-fresh': { answers: fresh, reach: wholeOverview },
  'overview-loading': { answers: slow, reach: (page) => text(page, 'Looking') },
  'overview-matches-nothing': {
    answers: {
      ...usual,
      stats: stats({
        verdicts: [
          matchesNothing,
          verdict({
            state: 'fails',
            code: 'rejected',
            issuer: 'partners',
            message: 'every signal of partners in the last hour was rejected, 33 in all, most by ERR_TOKEN_AUDIENCE',
            advice: 'see under Rejected what they say beside what is accepted; docs/troubleshooting.md has each code'
          }),
          verdict(),
          quiet('suppliers')
        ],
        sessions: [
          { issuer: issuer().issuer, issuerName: 'contoso', clientId: 'expenses', sessions: 212, withoutSid: 212 }
        ]
      })
    },
    reach: wholeOverview
  },
  'overview-outage': {
    answers: outage,
    async reach(page) {
      await wholeOverview(page)
      await text(page, 'Not ready since')
      await text(page, /^What to do: msal-logout check says/)
    }
  },
  'overview-outage-begins': {
    async reach(page, answers) {
      await wholeOverview(page)
      answers(outage)
      await page.locator('#range').selectOption('last 6 hours')
      await page.getByText('Not ready since').waitFor({ timeout: 15_000 })
      await page.locator('#directories .problem').getByText('What stands here was so at').waitFor({ timeout: 15_000 })
    }
  },
  'overview-no-answer': {
    async reach(page, answers) {
      await wholeOverview(page)
      answers(gone)
      await page.getByText('has not answered since').waitFor({ timeout: 15_000 })
      await page.locator('#spool .problem').getByText(/./).waitFor({ timeout: 15_000 })
    }
  },
  'overview-never-answered': {
    answers: gone,
    async reach(page) {
      await text(page, 'has not answered since')
      await page.locator('#spool .problem').getByText(/./).waitFor()
    }
  },
  'overview-half': {
    answers: {
      ...usual,
      readyz: 'half',
      stats: 'half',
      spool: 'half',
      issuers: problem(500, 'server_error', 'something is wrong here')
    },
    async reach(page) {
      await page.locator('#spool .problem').getByText(/./).waitFor()
      await page.locator('#stats .problem').getByText(/./).waitFor()
      await page.locator('#issuers .problem').getByText(/./).waitFor()
      await text(page, 'has not answered in a way that can be read since')
    }
  },
  'overview-proxy-page': {
    answers: {
      ...usual,
      readyz: { status: 502, body: '<html><h1>502 Bad Gateway</h1></html>' },
      stats: { status: 502, body: '<html><h1>502 Bad Gateway</h1></html>' },
      spool: { status: 504, body: '<html><h1>504 Gateway Timeout</h1></html>' }
    },
    reach: (page) => page.locator('#spool .problem').getByText(/./).waitFor()
  },
  'overview-strange-answer': {
    // A service of another release, or something else that answers.
    answers: {
      ...usual,
      readyz: problem(500, 'server_error', 'something is wrong here'),
      stats: { status: 200, body: '{}' }
    },
    reach: (page) => page.locator('#spool').getByText('can be written').waitFor()
  },
  'overview-spool': {
    answers: {
      ...usual,
      readyz: { status: 'unavailable', reason: 'ERR_SPOOL_NOT_WRITABLE', since: ago(4_000), version: '0.1.0' },
      spool: spool({
        verified: 12,
        unverified: 1,
        unsigned: 3,
        rejected: 2,
        oldestAt: ago(700),
        isWritable: false,
        stuck: [
          { name: '4f1c2a90.order', reason: 'EACCES: permission denied' },
          { name: '5f1c2a90.order', reason: 'it is not JSON' }
        ]
      })
    },
    reach: wholeOverview
  },
  'overview-keys': {
    answers: {
      ...usual,
      issuers: {
        issuers: [
          issuer({
            name: 'never',
            keys: 0,
            keysLoadedAt: null,
            keysAgeSeconds: null,
            lastFailureAt: ago(30),
            lastFailure: 'the discovery document answered 404'
          }),
          issuer({ name: 'stale', lastFailureAt: ago(30), lastFailure: 'connect ECONNREFUSED 10.0.0.7:443' }),
          issuer({ name: 'unasked', keys: 0, keysLoadedAt: null, keysAgeSeconds: null })
        ]
      }
    },
    reach: wholeOverview
  },
  'overview-directories': {
    answers: {
      ...usual,
      directories: {
        directories: [
          brokenDirectory,
          directory({
            issuer: 'fabrikam',
            tenantId: 'a',
            sweepFailure: directoryFailure(
              'ERR_DIRECTORY_CREDENTIAL_EXPIRED',
              'AADSTS7000222: The provided client secret keys are expired.'
            )
          }),
          directory({ issuer: 'delta', tenantId: 'b', deltaFailure: directoryFailure('ERR_DIRECTORY_THROTTLED') }),
          directory({
            issuer: 'new',
            tenantId: 'c',
            goodAt: null,
            deltaAt: null,
            sweptAt: null,
            watched: null,
            unwatched: null,
            rounds: []
          }),
          directory({
            issuer: 'dry',
            tenantId: 'd',
            dryRun: true,
            held: brokenDirectory.held.slice(0, 3),
            heldCount: 3
          }),
          directory({
            issuer: 'external',
            tenantId: 'e',
            hasDelta: false,
            deltaAt: null,
            notifications: {
              expiresAt: null,
              failure: { code: 'ERR_DIRECTORY_REQUEST', detail: 'ExtensionError: notificationUrl does not answer' }
            }
          })
        ]
      },
      streams: { streams: [] }
    },
    async reach(page) {
      await wholeOverview(page)
      await page.getByText('3 accounts would be purged').click()
    }
  },
  'overview-streams': {
    answers: {
      ...usual,
      directories: { directories: [] },
      streams: {
        streams: [
          stream({ name: 'fails', failure: directoryFailure('ERR_STREAM_CREDENTIAL', 'HTTP 401 invalid_client') }),
          stream({ name: 'paused', isPaused: true }),
          stream({ name: 'deleted', isDeleted: true }),
          stream({ name: 'stopped', status: 'disabled', statusReason: 'License has expired' }),
          stream({ name: 'new', goodAt: null, heardAt: null, verifiedAt: null, canVerify: false }),
          stream({ name: 'nobody', sendsNobodyByDefault: true, heardAt: null, isManaged: false, delivery: 'push' }),
          stream({ name: 'fewer', missingEvents: ['credential-change'] })
        ]
      }
    },
    reach: wholeOverview
  },
  'overview-crowd': { answers: crowd, reach: wholeOverview },
  'overview-hostile': {
    answers: hostileAnswers,
    async reach(page) {
      await wholeOverview(page)
      for (const details of await page.locator('#signed-in summary:visible').all()) {
        await details.click()
      }
    }
  },
  'overview-day': {
    answers: { ...usual, stats: stats({}, 400, 1_440) },
    async reach(page) {
      await wholeOverview(page)
      await page.locator('#range').selectOption('last 24 hours')
    }
  },
  accounts: { hash: '#/accounts', reach: (page) => page.locator('#find').waitFor() },
  'accounts-by-session': { hash: '#/accounts', reach: (page) => findBy(page, 'session') },
  'accounts-by-object': { hash: '#/accounts', reach: (page) => findBy(page, 'directory object') },
  'accounts-by-address': {
    hash: '#/accounts',
    answers: { ...usual, directories: { directories: [] } },
    async reach(page) {
      await findBy(page, 'e-mail address or user name')
      await text(page, 'No directory is configured')
    }
  },
  'accounts-none': {
    hash: accountHash,
    answers: {
      ...fresh,
      purge: {
        ...dryRun,
        rows: 0,
        sessions: 0,
        accounts: 0,
        rowsByClient: {},
        near: [
          {
            because: 'case',
            homeAccountId: 'x',
            issuer: null,
            clientId: null,
            tenantId: null,
            message:
              'account "6F1C2A90-51f3-4a0e-9d6b-3f0d8a5f7c11.0b54c7e2-93d1-4f5e-8a86-1d2c4e7b9a30" is stored: its letters are of another case'
          }
        ]
      }
    },
    reach: (page) => text(page, 'This comes close')
  },
  'accounts-several': {
    hash: '#/accounts',
    answers: {
      ...usual,
      accounts: {
        accounts: Array.from({ length: 3 }, (_, i) => ({
          homeAccountId: `person-${i}`,
          accountIssuer: i === 2 ? issuer().issuer : null
        }))
      }
    },
    async reach(page) {
      await findBy(page, 'subject')
      await page.locator('#find-issuer').fill('https://id.example')
      await page.locator('#find-subject').fill('person')
      await page.getByRole('button', { name: 'Find' }).click()
      await text(page, '3 accounts have a session')
    }
  },
  'accounts-person': {
    hash: '#/accounts',
    answers: {
      ...usual,
      accounts: {
        accounts: [],
        objects: [],
        hasDirectory: true,
        clicks: [
          { issuer: 'contoso', ...issuer().lookUp },
          { issuer: 'partners', ...issuer().lookUp }
        ]
      }
    },
    async reach(page) {
      await findBy(page, 'e-mail address or user name')
      await page.getByLabel('Address or name').fill('ada@contoso.example')
      await page.getByRole('button', { name: 'Find' }).click()
      await text(page, 'no directory knows this one')
    }
  },
  'accounts-people': {
    hash: '#/accounts',
    answers: {
      ...usual,
      accounts: {
        accounts: [],
        objects: [
          { tenantId: '0b54c7e2-93d1-4f5e-8a86-1d2c4e7b9a30', objectId: '6f1c2a90-51f3-4a0e-9d6b-3f0d8a5f7c11' },
          { tenantId: '0b54c7e2-93d1-4f5e-8a86-1d2c4e7b9a30', objectId: '7f1c2a90-51f3-4a0e-9d6b-3f0d8a5f7c11' }
        ],
        hasDirectory: true,
        clicks: []
      }
    },
    async reach(page) {
      await findBy(page, 'e-mail address or user name')
      await page.getByLabel('Address or name').fill('ada@contoso.example')
      await page.getByRole('button', { name: 'Find' }).click()
      await text(page, 'Several people')
    }
  },
  account: { hash: accountHash, reach: (page) => text(page, '2 apps, 3 rows, 3 sessions') },
  'account-tried': {
    hash: accountHash,
    async reach(page) {
      await text(page, '2 apps')
      await page.getByLabel('Only what was issued before').fill('2026-11-25T03:00:00')
      await tryDry(page)
      await text(page, 'Would delete')
    }
  },
  'account-purged': {
    hash: accountHash,
    async reach(page, answers) {
      await text(page, '2 apps')
      await tryDry(page)
      await text(page, 'Would delete')
      answers({ account: nobody })
      await page.getByRole('button', { name: /^Purge 3/ }).click()
      await text(page, 'Deleted 3 rows')
      await text(page, 'Nothing is left')
    }
  },
  'account-purge-fails': {
    hash: accountHash,
    async reach(page, answers) {
      await text(page, '2 apps')
      await tryDry(page)
      await text(page, 'Would delete')
      answers({ purge: 'none' })
      await page.getByRole('button', { name: /^Purge 3/ }).click()
      await text(page, 'not known')
    }
  },
  'account-outage': { hash: accountHash, answers: outage, reach: (page) => text(page, 'out of reach') },
  'account-hostile': {
    hash: `#/accounts/${encodeURIComponent(hostile[0])}`,
    answers: {
      ...hostileAnswers,
      purge: { ...dryRun, accounts: 1_234, rowsByClient: Object.fromEntries(hostile.map((value) => [value, 1])) }
    },
    async reach(page) {
      await text(page, 'There is more of it')
      await page.getByRole('textbox', { name: 'Reason' }).fill(hostile[2])
      await page.getByRole('button', { name: 'Dry run' }).click()
      await page.getByLabel('I mean all').waitFor()
    }
  },
  records: {
    hash: '#/records?source=backchannel',
    async reach(page) {
      await page.getByRole('button', { name: 'Show older' }).waitFor()
    }
  },
  'records-none': { hash: '#/records?account=nobody', answers: fresh, reach: (page) => text(page, 'No record') },
  'records-loading': {
    hash: '#/records',
    answers: slow,
    reach: (page) => page.locator('#records').getByText('Looking').waitFor()
  },
  'records-outage': {
    hash: '#/records',
    answers: outage,
    reach: (page) => page.locator('#sign-outs-and-purges').getByText('out of reach').waitFor()
  },
  'records-hostile': {
    hash: '#/records',
    answers: hostileAnswers,
    reach: (page) => page.locator('#records tbody tr').nth(4).waitFor()
  },
  record: { hash: recordHash, reach: (page) => text(page, 'Sign-out by Backchannel') },
  'record-unmatched': {
    hash: recordHash,
    answers: {
      ...usual,
      record: record({ outcome: 'unmatched', accounts: 0, sessions: 0, rows: 0, rowsByClient: {}, matchedAccounts: [] })
    },
    reach: (page) => text(page, 'Sign-out by Backchannel')
  },
  'record-purge': {
    hash: recordHash,
    answers: { ...usual, record: purgeOfOperator },
    reach: (page) => text(page, 'Purge by an operator')
  },
  'record-running': {
    hash: recordHash,
    answers: { ...usual, record: runningPurge },
    reach: (page) => text(page, '12,000 of 48,161')
  },
  'record-none': { hash: recordHash, answers: fresh, reach: (page) => text(page, 'No record has this id') },
  'record-outage': { hash: recordHash, answers: outage, reach: (page) => text(page, 'The database is out of reach') },
  'record-hostile': {
    hash: recordHash,
    answers: hostileAnswers,
    reach: (page) => page.locator('#record dd').first().waitFor()
  },
  purges: {
    hash: '#/purges',
    async reach(page) {
      await openMany(page)
      await page.locator('#purges tbody tr').nth(20).waitFor()
    }
  },
  'purges-none': { hash: '#/purges', answers: fresh, reach: (page) => text(page, 'No purge has been recorded') },
  'purges-many': {
    hash: '#/purges',
    answers: {
      ...usual,
      purge: { ...dryRun, accounts: 48_161, sessions: 50_000, rows: 61_000, rowsByClient: { wiki: 61_000 } }
    },
    async reach(page) {
      await openMany(page)
      await page.getByLabel('Client id').fill('wiki')
      await page.getByRole('button', { name: 'Choose' }).click()
      await tryDry(page)
      await page.getByLabel('I mean all').waitFor()
    }
  },
  'purges-running': {
    hash: '#/purges',
    answers: {
      ...usual,
      record: runningPurge,
      purge: { ...dryRun, accounts: 48_161, sessions: 50_000, rows: 61_000, rowsByClient: { wiki: 61_000 } }
    },
    async reach(page, answers) {
      await openMany(page)
      await page.getByLabel('Client id').fill('wiki')
      await page.getByRole('button', { name: 'Choose' }).click()
      await tryDry(page)
      await page.getByLabel('I mean all').check()
      answers({ purge: { ...dryRun, dryRun: false, status: 'running', done: 0, total: 48_161 } })
      await page.getByRole('button', { name: /^Purge 61,000/ }).click()
      await page.locator('.purge').getByText('12,000 of 48,161').waitFor()
    }
  },
  'purges-nothing': {
    hash: '#/purges',
    answers: fresh,
    async reach(page) {
      await openMany(page)
      await page.getByLabel('Client id').fill('no-such-app')
      await page.getByRole('button', { name: 'Choose' }).click()
      await tryDry(page)
      await text(page, 'Nothing would go')
    }
  },
  rejected: { hash: '#/rejected', reach: (page) => page.locator('#rejected tbody tr').nth(2).waitFor() },
  'rejected-none': { hash: '#/rejected', answers: fresh, reach: (page) => text(page, 'No signal has been rejected') },
  'rejected-loading': {
    hash: '#/rejected',
    answers: slow,
    reach: (page) => page.locator('#rejected').getByText('Looking').waitFor()
  },
  'rejected-no-answer': {
    hash: '#/rejected',
    answers: gone,
    reach: (page) => page.locator('#rejected .problem').getByText(/./).waitFor()
  },
  'rejected-crowd': {
    hash: '#/rejected',
    answers: crowd,
    reach: (page) => page.locator('#rejected tbody tr').nth(499).waitFor()
  },
  'rejected-hostile': {
    hash: '#/rejected',
    answers: hostileAnswers,
    reach: (page) => page.locator('#rejected tbody tr').nth(4).waitFor()
  }
}

/** What axe looks at takes its time: so many rows are looked at in another state. */
const crowded = new Set(['rejected-crowd', 'overview-crowd'])

for (const [name, state] of Object.entries(states)) {
  t.test(`${name}: it fits at each width, and axe finds nothing to mend, in light and dark`, async (t) => {
    const { page } = await show(t, state)
    await page.evaluate(axe)
    for (const width of widths) {
      await page.setViewportSize({ width, height: 800 })
      t.equal(await page.evaluate('document.documentElement.scrollWidth <= innerWidth'), true, `${width} px fit`)
      for (const colorScheme of ['light', 'dark'] as const) {
        await page.emulateMedia({ colorScheme })
        const isLookedAt = colorScheme === (width === 320 ? 'light' : 'dark') && width !== 768 && !crowded.has(name)
        if (isLookedAt) {
          const { violations } = (await page.evaluate('axe.run()')) as {
            violations: { id: string; nodes: { target: string[]; failureSummary: string }[] }[]
          }
          const found = violations.flatMap(({ id, nodes }) =>
            nodes.map((node) => `${id}: ${node.target} ${node.failureSummary}`)
          )
          t.same(found, [], `${width} px, ${colorScheme}`)
        }
        if (pictures !== undefined) {
          await page.screenshot({
            path: join(pictures, `${name}-${width}-${colorScheme}.png`),
            fullPage: !crowded.has(name)
          })
        }
      }
    }
    t.equal(await page.locator('img:not([alt=""])').count(), 0, 'no markup of others')
    t.notMatch(await page.locator('#page').textContent(), /[\u202a-\u202e\u2066-\u2069]/, 'nothing that turns text')
    t.not(await page.title(), 'taken')
  })
}

t.test('a record shows what it is about, however late the answer of the one before', async (t) => {
  const { page } = await show(t, { hash: '#/records' })
  const [first, second] = ['aaaaaaaa', 'bbbbbbbb'].map((start) => record().id.replace('11111111', start))
  const late: Route[] = []
  await page.route(`**/admin/records/${first}`, (route) => {
    late.push(route)
  })
  await page.route(`**/admin/records/${second}`, (route) =>
    route.fulfill({ json: record({ ...(second && { id: second }), reason: 'the second' }) })
  )
  await page.evaluate(`location.hash = '#/records/${first}'`)
  await page.locator('#record').getByText('Looking').waitFor()
  await page.evaluate(`location.hash = '#/records/${second}'`)
  await page.locator('#record').getByText('the second').waitFor()
  await late[0]?.fulfill({ json: record({ ...(first && { id: first }), reason: 'the first' }) })
  await page.evaluate('new Promise((resolve) => setTimeout(resolve, 50))')
  t.equal(await page.locator('#record').getByText('the first').count(), 0)
})

t.test('a record that could not be had is asked for again; one that is not there, once', async (t) => {
  let asked = 0
  const { page } = await show(t, {
    hash: recordHash,
    answers: { ...usual, record: 'none' },
    async reach(page, answers) {
      page.on('request', (request) => {
        asked += request.url().includes('/admin/records/') ? 1 : 0
      })
      await text(page, 'The service did not answer.')
      answers({ record: record({ reason: 'it is back' }) })
      await text(page, 'it is back')
      answers({ record: problem(404, 'not_found', 'no record has this id') })
      asked = 0
      await page.evaluate(`location.hash = '#/records/22222222-2222-4222-8222-222222222222'`)
      await text(page, 'No record has this id.')
      await page.evaluate('new Promise((resolve) => setTimeout(resolve, 2_500))')
    }
  })
  t.equal(asked, 1)
  t.equal(await page.locator('#record').getByText('it is back').count(), 0)
})

t.test('another filter shows nothing of the one before, and a failure is no list', async (t) => {
  const { page } = await show(t, {
    hash: '#/records',
    async reach(page, answers) {
      await page.locator('#records tbody tr').first().waitFor()
      answers({ records: 'never' })
      await page.locator('#filter-account').fill('somebody')
      await page.getByRole('button', { name: 'Show', exact: true }).click()
      await page.locator('#records').getByText('Looking').waitFor()
      t.equal(await page.locator('#records tbody tr').count(), 0)
      answers({ records: 'none' })
      await page.locator('#filter-account').fill('somebody else')
      await page.getByRole('button', { name: 'Show', exact: true }).click()
      await page.locator('#records .problem').getByText('The service did not answer.').waitFor()
    }
  })
  t.equal(await page.locator('#records tbody tr').count(), 0)
})

t.test('older records are added once, however often the button is pressed', async (t) => {
  const { page } = await show(t, {
    hash: '#/records',
    async reach(page, answers) {
      const older = page.getByRole('button', { name: 'Show older' })
      await older.waitFor()
      answers({ records: { records: [record({ id: '99999999-1111-4111-8111-111111111111' })], next: null } })
      await older.dblclick()
      await text(page, '26 records shown.')
    }
  })
  t.equal(await page.locator('#records tbody tr').count(), 26)
  await page.getByRole('button', { name: 'Refresh' }).click()
  await text(page, 'The newest 1 record.')
})

t.test('an answer that is not as it should be spoils its own part alone', async (t) => {
  const strange = { status: 200, body: JSON.stringify({ ...spool(), stuck: 7 }) }
  const { page, complaints } = await show(t, {
    answers: { ...usual, spool: strange, directories: { status: 200, body: 'null' } }
  })
  await page.locator('#spool').getByText('This part cannot be shown').waitFor()
  await page.locator('#directories').getByText('cannot be read: it broke off, or something else').waitFor()
  await page.locator('#stats figure').waitFor()
  await page.getByRole('link', { name: 'Rejected' }).first().click()
  await page.locator('#rejected tbody tr').first().waitFor()
  t.ok(complaints().every((complaint) => complaint.includes('TypeError')))
})

t.test('what comes close, and each person of a name, is one press away', async (t) => {
  const { page } = await show(t, states['accounts-none'] ?? {})
  t.equal(await page.getByRole('link', { name: 'See this account' }).getAttribute('href'), '#/accounts/x')
  const people = await show(t, {
    ...states['accounts-people'],
    async reach(page, answers) {
      await states['accounts-people']?.reach?.(page, answers)
      answers({ accounts: usual.accounts })
      await page.locator('#found').getByRole('button', { name: 'Find' }).last().click()
      await text(page, '2 apps, 3 rows, 3 sessions')
    }
  })
  t.match(people.page.url(), accountHash)
})

t.test('the time of a purge names its zone, and is repeated in what would go', async (t) => {
  const { page } = await show(t, states['account-tried'] ?? {})
  t.match(await page.locator('.purge .field').last().textContent(), /optional, CET/)
  t.match(
    await page.locator('.purge .status').textContent(),
    /Only what was issued before 25 Nov 2026, 03:00:00 CET .+ is meant\./
  )
})

t.test('a character that cannot be seen is named in text, and stays in what is asked for', async (t) => {
  const turned = hostile[3]
  const { page } = await show(t, { hash: '#/records', answers: hostileAnswers })
  const link = page.getByRole('link', { name: 'turned <U+202E>gnp.exe<U+2066> about' })
  t.equal(await link.getAttribute('href'), `#/accounts/${encodeURIComponent(turned)}`)
  await link.click()
  await page.getByRole('heading', { level: 1, name: 'Accounts' }).waitFor()
  t.equal(await page.locator('#find-account').inputValue(), turned)
})

t.test('where each view is can be seen with colours of the reader, and paper has no buttons', async (t) => {
  const { page } = await show(t, { reach: wholeOverview })
  await page.emulateMedia({ forcedColors: 'active' })
  const lines = (await page.evaluate(
    `[...document.querySelectorAll('nav a')].map((link) => getComputedStyle(link).borderBottomColor)`
  )) as string[]
  t.not(lines[0], lines[1])
  t.equal(new Set(lines.slice(1)).size, 1)
  if (pictures !== undefined) {
    await page.screenshot({ path: join(pictures, 'forced-colors.png'), fullPage: true })
  }
  await page.emulateMedia({ forcedColors: 'none', media: 'print' })
  t.equal(await page.locator('button:visible, nav:visible, form:visible').count(), 0)
  t.equal(await page.locator('#stats figure').isVisible(), true)
  if (pictures !== undefined) {
    await page.screenshot({ path: join(pictures, 'print.png'), fullPage: true })
  }
})

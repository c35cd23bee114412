/** @import { Api } from './api.js' */
/** @import { AccountReference, StoredRecord } from './answers.js' */
import { accountHash, fill, make, makeCard, makeFacts } from './elements.js'
import { attempt } from './problems.js'
import { createProgress, makeRowsByClient } from './purge.js'
import { age, count, label, number } from './units.js'

/**
 * One record, whole; a running one is followed.
 *
 * @param {Api} api
 * @param {HTMLElement} element
 */
export function createRecord(api, element) {
  let latest = 0

  return {
    /** @param {string} id */
    async show(id) {
      latest += 1
      const mine = latest
      const problem = make('p', { class: 'problem', role: 'alert' })
      const content = make('div', {}, 'Looking …')
      fill(
        element,
        make('p', { class: 'back' }, make('a', { href: '#/records' }, '← All records')),
        makeCard(content, problem)
      )
      const isShown = await attempt(problem, async () => {
        const record = await api.record(id)
        if (mine === latest) {
          draw(record)
        }
      })
      if (!isShown) {
        fill(content)
      }

      /** @param {StoredRecord} record */
      function draw(record) {
        fill(
          content,
          make('h2', {}, record.actor === null ? `Sign-out by ${label(record.source)}` : 'Purge by an operator'),
          record.status === 'running' && createProgress(api, record.id, draw).element,
          makeFacts(factsOf(record)),
          makeRowsByClient(record),
          makeMatched(record)
        )
      }
    },
    hide() {
      latest += 1
      fill(element)
    }
  }
}

/** @param {StoredRecord} record */
function makeMatched({ matchedAccounts, accounts }) {
  if (matchedAccounts.length === 0) {
    return false
  }
  return make(
    'div',
    {},
    make('h3', {}, 'Accounts that it matched'),
    make('ul', { class: 'list' }, ...matchedAccounts.map(makeAccountLink)),
    accounts > matchedAccounts.length &&
      make('p', { class: 'quiet' }, `The first ${number(matchedAccounts.length)} of ${count(accounts, 'account')}.`)
  )
}

/** @param {AccountReference} account */
function makeAccountLink({ homeAccountId, accountIssuer }) {
  return make(
    'li',
    {},
    make('a', { class: 'long', href: accountHash(homeAccountId, accountIssuer ?? undefined) }, homeAccountId),
    accountIssuer !== null && make('span', { class: 'quiet long' }, ` of ${accountIssuer}`)
  )
}

/**
 * @param {StoredRecord} record
 * @returns {(readonly [string, Node | string])[]}
 */
function factsOf(record) {
  /** @param {string | null} value */
  const code = (value) => value !== null && make('code', { class: 'long' }, value)
  /** @param {string | null} time */
  const ago = (time) => time !== null && age(time)
  /** @type {(readonly [string, Node | string | false])[]} */
  const facts = [
    ['Id', code(record.id)],
    ['When', age(record.at)],
    ['Source', label(record.source)],
    ['State', record.status],
    ['Finished', ago(record.finishedAt)],
    ['Reason', record.reason !== null && make('span', { class: 'long' }, record.reason)],
    ['Operator', code(record.actor)],
    ['Account', code(record.homeAccountId)],
    ['Issuer', code(record.issuer)],
    ['sid', code(record.sid)],
    ['Subject', code(record.subject)],
    ['App', code(record.clientId)],
    ['Tenant', code(record.tenantId)],
    ['Object', code(record.objectId)],
    ['jti', code(record.jti)],
    ['Void if issued by', ago(record.revokeBefore)],
    ['Accounts', number(record.accounts)],
    ['Sessions', number(record.sessions)],
    ['Rows', number(record.rows)]
  ]
  return facts.flatMap(([name, value]) => (value === false ? [] : [/** @type {const} */ ([name, value])]))
}

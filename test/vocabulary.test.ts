// One word for one thing: docs/glossary.md. What a word was called before must not come back.
import { readdirSync, readFileSync, statSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'

// By the word that took its place.
const oldWords: readonly [word: string, old: RegExp][] = [
  ['revoke-before', /\bnot_?after\b/i],
  ['order', /\blogout[ _]?(request|type)s?\b/i],
  ['sign-out', /\bcarryOut\b/],
  ['duplicate', /\breplayed\b/i],
  ['deferred', /\b(is|are|was|were|be|it) kept (on disk|for later|until)\b/i],
  ['retry', /\breplay(s|ing)?\b/i],
  ['rejected', /\brefus(e|es|ed|al|als)\b/i],
  ['revoked session', /\bended[ _-]sessions?\b/i],
  ['record', /\bmsal_logout\.purges\b/],
  ['logged, answered, counted, shown', /\b(told|tells)\b/i],
  ['a relative clause without riddles', /\b(whoever|whatever|of those|by that)\b/i]
]
// Names of others: of PostgreSQL, of a program's stable code.
const allowed = /database_refused|ECONNREFUSED|connection refused|'refused'/g

function filesBelow(folder: string): string[] {
  return readdirSync(folder).flatMap((name) => {
    const path = join(folder, name)
    if (name === 'node_modules' || name === 'dist') {
      return []
    }
    return statSync(path).isDirectory() ? filesBelow(path) : [path]
  })
}

const texts = ['src', 'sql', 'migrations', 'page', 'docs', 'deploy', 'examples']
  .filter((folder) => readdirSync('.').includes(folder))
  .flatMap(filesBelow)
  .concat(['README.md', 'SECURITY.md'])
  .filter((file) => /\.(ts|js|sql|html|css|md|yaml|json)$/.test(file) && !file.endsWith('grafana-dashboard.json'))

t.test('no old word is in code, SQL, page and docs', async (t) => {
  t.ok(texts.length > 60)
  for (const file of texts) {
    const lines = readFileSync(file, 'utf8').split('\n')
    for (const [i, line] of lines.entries()) {
      for (const [word, old] of oldWords) {
        const found = old.exec(line.replaceAll(allowed, ''))
        if (found !== null) {
          t.fail(`${file}:${i + 1} says "${found[0]}": ${word}`)
        }
      }
    }
  }
})

t.test('the check sees an old word', async (t) => {
  for (const text of ['a token was refused', 'not_after', 'replayed', 'an ended session', 'it is told']) {
    t.ok(
      oldWords.some(([, old]) => old.test(text)),
      text
    )
  }
})

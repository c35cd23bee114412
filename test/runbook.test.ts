// docs/runbook.md has what a person needs whom an alert has woken. Its requests, its SQL and its `msal-logout` commands are run by
// docs.test.ts with those of the other pages; pg_dump and pg_restore by deploy/backup.test.ts.
import { execFileSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import t from 'tap'
import { blocks, commandExamples, httpExamples } from './fixtures/doc-examples.ts'
import { temporaryFolder } from './fixtures/server.ts'

const runbook = readFileSync('docs/runbook.md', 'utf8')
const rules = readFileSync('docs/operating/alerts.yaml', 'utf8')
const alerts = [...rules.matchAll(/- alert: (\w+)/g)].map(([, name = '']) => name)
const sections = new Map(
  runbook.split(/^## /m).map((section): [string, string] => {
    const [heading = '', ...lines] = section.split('\n')
    return [heading, lines.join('\n')]
  })
)

t.test('each alert has its section, and each section of an alert its rule', async (t) => {
  t.not(alerts.length, 0)
  t.same([...sections.keys()].filter((heading) => heading.startsWith('Msal')).sort(), alerts.toSorted())
})

t.test('each section says what users feel, the first command, the causes, the fix, and when it is over', async (t) => {
  const parts = ['Users feel', 'First command', 'Likely causes', 'Fix', 'Over when']
  for (const alert of alerts) {
    const section = sections.get(alert) ?? ''
    const found = [...section.matchAll(/^\*\*([A-Z][\w ]+?)\.?\*\*/gm)].map(([, part = '']) => part)
    t.same(found, parts, alert)
    const [, causes = ''] = /^\*\*Likely causes\*\*\n(.*?)^\*\*Fix/ms.exec(section) ?? []
    t.match(causes, /^1\. .*^2\. /ms, `${alert}: in order`)
  }
})

t.test('each rule leads to its section', async (t) => {
  const links = [...rules.matchAll(/- alert: (\w+).*?runbook_url: (\S+)/gs)].map(([, alert, url]) => [alert, url])
  t.same(
    links,
    alerts.map((alert) => [alert, `docs/runbook.md#${alert.toLowerCase()}`])
  )
})

t.test('each command is one that a test runs', async (t) => {
  const isCommand = (line: string) => line !== '' && !line.startsWith('#')
  const lines = blocks(runbook, 'sh').flatMap((code) => code.split('\n').filter(isCommand))
  const shell = lines.filter((line) => !/^(curl|msal-logout|pg_dump|pg_restore) /.test(line))
  t.equal(
    lines.filter((line) => /^(curl|msal-logout) /.test(line)).length,
    httpExamples(runbook).length + commandExamples(runbook).length,
    'a request or a command of ours says how it ends'
  )
  t.not(shell.length, 0)
  const env = { ...process.env, SPOOL_DIR: temporaryFolder(t) }
  for (const line of new Set(shell)) {
    t.not(execFileSync('sh', ['-ec', line], { env, encoding: 'utf8' }), '', line)
  }
})

import { spawnSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t from 'tap'

function promtool(...args: string[]): string {
  const { error, status, stdout, stderr } = spawnSync('promtool', args, { encoding: 'utf8' })
  if (error !== undefined) {
    throw new Error("promtool is missing: install Debian's package prometheus, or Prometheus itself", { cause: error })
  }
  return status === 0 ? 'passed' : stdout + stderr
}

t.test('the alert rules are well formed, fire on what they name, and are silent where all is well', async (t) => {
  t.equal(promtool('check', 'rules', 'docs/operating/alerts.yaml'), 'passed')
  for (const file of ['alerts.test.yaml', 'alerts-week.test.yaml']) {
    t.equal(promtool('test', 'rules', `docs/operating/${file}`), 'passed', file)
  }
})

t.test('a rule that names another threshold is caught', async (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'msal-logout-alerts-'))
  t.teardown(() => rmSync(folder, { recursive: true }))
  const rules = readFileSync('docs/operating/alerts.yaml', 'utf8').replace('writable == 0', 'writable == 2')
  writeFileSync(join(folder, 'alerts.yaml'), rules)
  writeFileSync(join(folder, 'alerts.test.yaml'), readFileSync('docs/operating/alerts.test.yaml'))
  t.match(promtool('test', 'rules', join(folder, 'alerts.test.yaml')), /MsalLogoutSpoolNotWritable/)
})

t.test("the dashboard's queries are well formed", async (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'msal-logout-alerts-'))
  t.teardown(() => rmSync(folder, { recursive: true }))
  const { panels } = JSON.parse(readFileSync('docs/operating/grafana-dashboard.json', 'utf8')) as {
    panels: { targets: { expr: string }[] }[]
  }
  const queries = panels.flatMap(({ targets }) => targets.map(({ expr }) => expr.replaceAll('$__rate_interval', '5m')))
  const rules = queries.map((expr, i) => ({ record: `query:${i}`, expr }))
  const file = join(folder, 'dashboard.yaml')
  writeFileSync(file, JSON.stringify({ groups: [{ name: 'dashboard', rules }] })) // JSON is YAML
  t.equal(promtool('check', 'rules', file), 'passed')
})

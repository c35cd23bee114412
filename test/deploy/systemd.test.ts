// deploy/README.md's way with systemd: its commands as they stand there, under a real systemd.
import { execFileSync } from 'node:child_process'
import { cpSync, readdirSync, readFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import t from 'tap'
import { program } from '../fixtures/command-line.ts'
import { createDatabase, serverUrl } from '../fixtures/database.ts'
import { blocks } from '../fixtures/doc-examples.ts'
import { clientId, startIdentityProvider } from '../fixtures/identity-provider.ts'
import { startMachine } from '../fixtures/machine.ts'
import { onServer } from '../fixtures/postgres-server.ts'
import { startProxy } from '../fixtures/proxy.ts'
import { storeLogin } from '../fixtures/service.ts'
import { until } from '../fixtures/until.ts'

const readme = readFileSync('deploy/README.md', 'utf8')
const folder = 'deploy/systemd'
const units = readdirSync(folder).filter((name) => name.endsWith('.service'))

/** The commands of a section, one string for each block. */
function commandsOf(heading: string): string[] {
  const section = readme.split(/^#+ /m).find((text) => text.startsWith(`${heading}\n`)) ?? ''
  return blocks(section, 'sh')
}

t.test('systemd reads the units without a word, and finds them hardened', async (t) => {
  const analyze = (...args: string[]) => execFileSync('systemd-analyze', args, { encoding: 'utf8', stdio: 'pipe' })
  for (const unit of units) {
    t.equal(analyze('verify', join(folder, unit)), '', unit)
    // From 0, nothing is exposed, to 10.
    const [, exposure = '10'] = /exposure level .*: ([\d.]+)/.exec(
      analyze('security', '--offline=true', '--no-pager', join(folder, unit))
    ) ?? ['', undefined]
    t.ok(Number(exposure) <= 1.5, `${unit}: ${exposure}`)
  }
})

t.test('both units have the same restrictions', async (t) => {
  const [first = '', second] = units.map((unit) => {
    const [, restrictions] =
      /\n(NoNewPrivileges=.*?)(?:\n\n\[Install\].*)?$/s.exec(readFileSync(join(folder, unit), 'utf8')) ?? []
    return restrictions?.trim()
  })
  t.match(first, 'SystemCallFilter=')
  t.equal(first, second)
})

t.test(
  'a new operator follows the page, and two instances serve under all restrictions',
  { timeout: 600_000 },
  async (t) => {
    const provider = await startIdentityProvider(t)
    const database = await createDatabase(t)
    const server = new URL(serverUrl())
    const proxy = await startProxy(t, serverUrl())
    t.teardown(async () => {
      await onServer(serverUrl(), 'drop database if exists msal_logout with (force)')
      await onServer(serverUrl(), 'drop role if exists msal_logout_owner, msal_logout_service, app_a')
    })
    const machine = await startMachine(t)
    const env = {
      PGHOST: server.hostname,
      PGPORT: server.port,
      PGUSER: server.username,
      PGPASSWORD: server.password,
      PGDATABASE: 'postgres'
    }
    const sh = async (script: string) => {
      const begun = performance.now()
      const { code, output } = await machine.sh(script, env)
      if (script.startsWith('cd clone')) {
        t.comment(
          `${script.trim().split('\n').length - 1} lines of the page: ${Math.round((performance.now() - begun) / 100) / 10} s`
        )
      }
      t.equal(code, 0, `${script.split('\n')[0]}: ${output}`)
      return output
    }

    // A clone, in which `npm ci` has run.
    const clone = join(machine.root, 'root/clone')
    for (const entry of ['package.json', 'deploy', 'migrations', 'sql', 'page', 'README.md', 'LICENSE']) {
      cpSync(entry, join(clone, entry), { recursive: true })
    }
    cpSync(dirname(program), join(clone, 'dist'), { recursive: true })
    const [roles = ''] = commandsOf('Deploy')
    const [install = '', begin = ''] = commandsOf('systemd')
    const inClone = (script: string) => sh(`cd clone && set -e\n${script}`)
    await inClone(
      roles.replace('db.example.com:5432/msal_logout?sslmode=verify-full', `127.0.0.1:${proxy.port}/msal_logout`)
    )
    await inClone(install.replace('npm ci && npm pack', 'npm pack --ignore-scripts'))
    await sh(
      `sed -i 's|^ISSUER=.*|ISSUER=${provider.issuer}|; s|^CLIENT_IDS=.*|CLIENT_IDS=${clientId}|' /etc/msal-logout/environment`
    )
    t.match(await inClone(begin), 'HTTP/1.1 200 OK', 'it is ready')
    const [firstApp = ''] = commandsOf('The first app, and the first sign-out')
    t.match(await inClone(firstApp), 'register_app', 'the first app has its role')

    const url = new URL(serverUrl())
    url.pathname = '/msal_logout'
    const query = (text: string, values?: unknown[]) => onServer<Record<string, unknown>>(url.href, text, values)
    const live = { ...database, query } as typeof database
    const signOut = async (port: number) => {
      const { accepted } = await storeLogin(live, { issuer: provider.issuer, sid: 's', homeAccountId: 'u.t' })
      t.equal(accepted, true)
      return fetch(`http://127.0.0.1:${port}/backchannel-logout`, {
        method: 'POST',
        body: new URLSearchParams({ logout_token: await provider.logoutToken({ sid: 's' }) })
      })
    }
    const sessions = async () => (await query('select sid from msal_logout.sessions')).length
    const forget = () => query('truncate msal_logout.tombstones')

    for (const port of [3010, 3020]) {
      t.equal((await signOut(port)).status, 200, `${port}`)
      t.equal(await sessions(), 0)
      await forget()
    }

    const pid = (await sh('systemctl show --property=MainPID --value msal-logout@1')).trim()
    const status = await sh(`cat /proc/${pid}/status`)
    t.match(status, /^CapEff:\s0{16}$/m, 'no capability')
    t.match(status, /^CapBnd:\s0{16}$/m)
    t.match(status, /^NoNewPrivs:\s1$/m)
    t.match(status, /^Seccomp:\s2$/m)
    t.notMatch(status, /^Uid:\s0/m)
    const environment = await sh(`tr '\\0' '\\n' < /proc/${pid}/environ`)
    t.match(environment, 'ADMIN_TOKEN_FILE=/run/credentials/msal-logout@1.service/admin_token')
    t.notMatch(environment, /postgres:\/\/|^ADMIN_TOKEN=/m, 'no secret is in its environment')
    const within = `nsenter --target ${pid} --mount --user --setuid "$(stat -c %u /proc/${pid})" --`
    t.match(
      await sh(
        `for file in /etc/x /usr/x /opt/x /var/x /home/x; do ${within} touch "$file" 2>/dev/null && echo "wrote $file"; done; ${within} touch /var/lib/msal-logout/1/x && echo "wrote the spool"; rm /var/lib/msal-logout/1/x`
      ),
      /^wrote the spool\n$/,
      'it can write its spool alone'
    )

    const commands = ['msal-logout check', 'msal-logout spool list', 'INSTANCE=2 msal-logout spool list']
    for (const command of commands) {
      await sh(command)
    }
    t.match(await sh('journalctl --no-pager -u msal-logout@1'), 'signed out')

    proxy.set('cut')
    const deferred = await signOut(3010)
    t.equal(deferred.status, 503)
    t.match(await deferred.json(), { error_description: /it is deferred/ })
    t.match(await sh('find /var/lib/msal-logout/1 -name "*.json" -printf "%U %m\\n"'), /^[1-9]\d* 600\n$/)
    // docs/runbook.md, MsalLogoutWaiting: the first command, the fix, and how to see that it is over.
    t.match(await sh('curl -s http://127.0.0.1:3011/readyz'), 'ERR_DATABASE_')
    const check = await machine.sh('msal-logout check')
    t.equal(check.code, 1)
    t.match(check.output, 'database_unreachable')
    t.match(await sh('msal-logout spool list'), '1 verified')
    proxy.set('open')
    await until('the deferred sign-out is done', async () => (await sessions()) === 0)
    await sh('msal-logout check')
    t.match(await sh('msal-logout spool list'), '0 verified, 0 unverified and 0 unsigned are deferred')
    t.match(await sh('curl -s http://127.0.0.1:3011/readyz'), '"ok"')
    await forget()

    await sh('systemctl restart msal-logout@1')
    t.equal((await signOut(3010)).status, 200, 'a restart returns when it serves')
    await forget()
    await sh('cp /etc/msal-logout/environment good && echo LOG_LEVEL=verbose >> /etc/msal-logout/environment')
    const begun = performance.now()
    t.not((await machine.sh('systemctl restart msal-logout@1')).code, 0, 'what cannot start says so')
    t.ok(performance.now() - begun < 30_000, 'at once')
    t.match(
      await sh('journalctl --no-pager -o cat -u msal-logout@1 -n 12'),
      'LOG_LEVEL: must be one of',
      'the last lines of its log say why'
    )
    await sh('mv good /etc/msal-logout/environment && systemctl restart msal-logout@1')
    const killed = (await sh('systemctl show --property=MainPID --value msal-logout@2')).trim()
    await sh(`kill -KILL ${killed}`)
    await until('it is started again', async () =>
      fetch('http://127.0.0.1:3020/healthz').then(
        ({ ok }) => ok,
        () => false
      )
    )
    await sh('systemctl stop msal-logout@1 msal-logout@2')
    t.equal(
      (await sh('systemctl show --property=Result --value msal-logout@1')).trim(),
      'success',
      'it ends in good order'
    )
  }
)

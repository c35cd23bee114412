// docs/attacks.md is written by `npm run attacks`.
import { readdirSync, readFileSync } from 'node:fs'
import t from 'tap'
import { attacksIn, beginOfPage } from './fixtures/attacks-page.ts'

const page = readFileSync('docs/attacks.md', 'utf8')
const rows = page
  .slice(beginOfPage.length)
  .split('\n')
  .filter((line) => line !== '')
  .map((line) => line.split('|').map((cell) => cell.trim()))

t.test('the page has a line for each attack that the suites try, and for no other', async (t) => {
  t.ok(page.startsWith(beginOfPage), 'run npm run attacks')
  t.same(
    rows.map(([, attack, , , path]) => ({ attack, path })),
    attacksIn('test').map(({ attack, path }) => ({ attack, path: `\`${path}\`` }))
  )
  for (const [, attack = '', tries = '', beside = ''] of rows) {
    t.match(tries, /^[1-9][\d,]*$/, `${attack}: it was tried`)
    t.match(beside, /^([1-9][\d,]*)?$/, attack)
  }
})

t.test('what goes on beside genuine sign-outs has a control', async (t) => {
  const sieges = readdirSync('test/faults').filter((name) =>
    readFileSync(`test/faults/${name}`, 'utf8').includes('startSiege')
  )
  t.ok(sieges.length >= 6)
  for (const name of sieges) {
    t.match(readFileSync(`test/faults/${name}`, 'utf8'), /'the control: /, name)
  }
})

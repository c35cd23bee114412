import { execFileSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import t from 'tap'
import { followCommand } from '../src/commands/purge.ts'
import { quoteWord } from '../src/commands/shell.ts'
import { call } from './fixtures/command-line.ts'

const hostile = ["it's", 'a b', '$(id)', '`id`', 'a;b', '<name>', 'a\nb', '*', '~', '"', '\\', '', 'plain-1.t/x:y@z']

/** What a shell makes of a command. */
function wordsOf(command: string): string[] {
  return execFileSync('sh', ['-c', `printf '%s\\0' ${command}`], { encoding: 'utf8' })
    .split('\0')
    .slice(0, -1)
}

t.test('each command in a remedy stands in quotes, and is one that runs', async (t) => {
  const source = readFileSync('src/remedies.ts', 'utf8').replace(/^ *\/?\*.*$/gm, '')
  const commands = [...source.matchAll(/"(msal-logout [^"\n]*)"/g)].map(([, command = '']) => command)
  t.equal(commands.length, [...source.matchAll(/\bmsal-logout /g)].length, 'none stands without quotes')
  for (const command of new Set(commands)) {
    const [program, ...words] = wordsOf(command.replaceAll('<name>', quoteWord("a stream's name")))
    t.equal(program, 'msal-logout')
    t.equal((await call(t, [...words, '--help'])).code, 0, command)
  }
})

t.test('what is shown to be pasted into a shell says there what it says here', async (t) => {
  for (const word of hostile) {
    t.same(wordsOf(`x ${quoteWord(word)} y`), ['x', word, 'y'])
    t.same(wordsOf(followCommand({ url: word, tokenFile: word }, 'the-id')), [
      'msal-logout',
      'purge',
      '--follow',
      'the-id',
      '--url',
      word,
      '--token-file',
      word
    ])
  }
})

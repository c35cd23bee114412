import { readdirSync, readFileSync } from 'node:fs'
import t from 'tap'
import { build } from './fixtures/service.ts'

t.test(
  'the page and all it is made of are served without credentials, and can do nothing but ask this listener',
  async (t) => {
    const { admin } = await build(t)
    const index = await admin.inject('/')
    t.equal(index.statusCode, 200)
    t.equal(index.headers['content-type'], 'text/html; charset=utf-8')
    const parts = [...index.body.matchAll(/(?:src|href)="(page\/[^"]+)"/g)].map(([, path]) => `/${path}`)
    const modules = readdirSync('page').filter((name) => name.endsWith('.js'))
    const library = ['lit-html', 'directive', 'directive-helpers', 'directives/keyed']
    const paths = new Set([
      ...parts,
      ...modules.map((name) => `/page/${name}`),
      ...library.map((name) => `/page/lit/${name}.js`)
    ])
    t.ok(paths.size > 10)
    for (const path of ['/', ...paths]) {
      const answer = await admin.inject(path)
      t.equal(answer.statusCode, 200, path)
      t.match(answer.headers, {
        'content-security-policy':
          "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        'x-content-type-options': 'nosniff',
        'referrer-policy': 'no-referrer',
        'cross-origin-opener-policy': 'same-origin',
        'cross-origin-resource-policy': 'same-origin',
        'cache-control': 'no-cache'
      })
      t.notOk(answer.headers.etag ?? answer.headers['last-modified'], 'fetched anew, also after an upgrade')
      t.equal((await admin.inject({ url: path, headers: { range: 'bytes=0-1' } })).headers['cache-control'], 'no-cache')
    }
    for (const path of paths) {
      const type = String((await admin.inject(path)).headers['content-type'])
      t.match(type, path.endsWith('.js') ? '/javascript' : path.endsWith('.css') ? 'text/css' : 'image/svg+xml', path)
    }
    t.notMatch(index.body, /https?:|<style|style="|<script(?! type="module" src="page)| on[a-z]+="/)
  }
)

t.test('nothing else of the package can be read', async (t) => {
  const { admin } = await build(t)
  for (const path of [
    '/page/',
    '/page/tsconfig.json',
    '/page/answers.d.ts',
    '/page/index.html',
    '/page/lit/',
    '/page/lit/package.json',
    '/page/lit/node/lit-html.js',
    '/page/lit/../lit-html/package.json',
    '/page/lit/%2e%2e/uid-safe/index.js',
    '/page/../package.json',
    '/page/%2e%2e/package.json'
  ]) {
    t.equal((await admin.inject(path)).statusCode, 404, path)
  }
})

t.test(
  'each reason for which the service is not ready, a directory not watched, or a stream not working has a sentence on the page',
  async (t) => {
    const codes = (file: string, pattern: RegExp) => new Set(readFileSync(file, 'utf8').match(pattern))
    const known = codes('page/states.js', /(?<=^ {2})ERR_[A-Z_]+(?=:)/gm)
    const possible = [
      'ERR_STOPPING',
      ...codes('src/errors.ts', /ERR_(DATABASE|DIRECTORY|STREAM)_[A-Z_]+/g),
      ...codes('src/spool.ts', /ERR_SPOOL[A-Z_]*/g)
    ]
    t.ok(possible.length > 20)
    t.same(
      // Of one signal, not of a directory or a stream.
      possible.filter(
        (code) => !known.has(code) && code !== 'ERR_DIRECTORY_UNAVAILABLE' && code !== 'ERR_STREAM_UNKNOWN'
      ),
      []
    )
  }
)

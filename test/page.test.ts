import { readdirSync } from 'node:fs'
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
    const paths = new Set([...parts, ...modules.map((name) => `/page/${name}`), '/page/uplot.js'])
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
      const etag = String(answer.headers.etag)
      const again = await admin.inject({ url: path, headers: { 'if-none-match': etag } })
      t.match(again, { statusCode: 304, body: '' })
    }
    for (const path of paths) {
      const type = String((await admin.inject(path)).headers['content-type'])
      t.match(
        type,
        path.endsWith('.js') ? 'text/javascript' : path.endsWith('.css') ? 'text/css' : 'image/svg+xml',
        path
      )
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
    '/page/../package.json',
    '/page/%2e%2e/package.json'
  ]) {
    t.equal((await admin.inject(path)).statusCode, 404, path)
  }
})

import type { IncomingMessage, ServerResponse } from 'node:http'
import t from 'tap'
import { checkUrl, fetchDocument } from '../src/issuer-document.ts'
import { listen } from './fixtures/listen.ts'

type Answer = (request: IncomingMessage, response: ServerResponse) => unknown

const content = { issuer: 'x', keys: [] }
const json = JSON.stringify(content)
const redirect =
  (status: number, location: string): Answer =>
  (request, response) =>
    request.url === '/' ? response.writeHead(status, { location }).end('moved') : response.end(json)
const only =
  (isWanted: (accept: string) => boolean): Answer =>
  ({ headers }, response) =>
    response.writeHead(isWanted(headers.accept ?? '') ? 200 : 406).end(json)

const failureOf = (work: Promise<unknown>) =>
  work.then(
    () => undefined,
    (error: unknown) => error
  )

const accepts = ['application/jwk-set+json, application/json', 'application/jwk-set+json', 'application/json']

const good: [name: string, answer: Answer, expected?: object][] = [
  ['as it should be', (_request, response) => response.end(json)],
  ['of any media type', (_request, response) => response.setHeader('content-type', 'text/plain').end(json)],
  ['with a byte order mark', (_request, response) => response.end(`\ufeff${json}`), { hasByteOrderMark: true }],
  ...[301, 302, 303, 307, 308].map((status): [string, Answer, object] => [
    `after a ${status} within the origin`,
    redirect(status, '/elsewhere'),
    { finalUrl: /\/elsewhere$/ }
  ]),
  [
    'after five redirects',
    ({ url }, response) =>
      url === '/11111' ? response.end(json) : response.writeHead(302, { location: `${url}1` }).end(),
    { finalUrl: /\/11111$/ }
  ],
  ['for a media type that contains the wanted one', only((accept) => accept.includes('application/jwk-set+json'))],
  ['for JSON among others', only((accept) => accept.includes('application/json'))],
  ['for a key set alone', only((accept) => accept === 'application/jwk-set+json')],
  ['for JSON alone', only((accept) => accept === 'application/json')],
  [
    'in pieces',
    (_request, response) => {
      for (const piece of json) {
        response.write(piece)
      }
      response.end()
    }
  ],
  ['of a name with a character of two bytes', (_request, response) => response.end(JSON.stringify({ name: 'é' }))]
]

t.test('a document is had', async (t) => {
  for (const [name, answer, expected = {}] of good) {
    await t.test(name, async (t) => {
      const url = `${await listen(t, answer)}/`
      t.match(await fetchDocument(url, accepts, { fetch }), {
        url,
        finalUrl: url,
        hasByteOrderMark: false,
        ...expected
      })
    })
  }
  t.same(
    (await fetchDocument(await listen(t, (_request, response) => response.end(`\ufeff${json}`)), accepts, { fetch }))
      .content,
    content
  )
})

const bad: [name: string, answer: Answer, fault: string][] = [
  ['with another status', (_request, response) => response.writeHead(503).end(json), 'unreachable'],
  ['without content', (_request, response) => response.writeHead(204).end(), 'unreachable'],
  ['for a media type that we do not know', only(() => false), 'unreachable'],
  ['that is cut', (request, response) => response.write('{') && request.socket.destroy(), 'unreachable'],
  ['with a connection that ends', ({ socket }) => socket.destroy(), 'unreachable'],
  ['after a redirect to another port', redirect(302, 'http://127.0.0.1:1/'), 'redirect'],
  ['after a redirect to another host', redirect(302, 'http://localhost/'), 'redirect'],
  ['after a redirect to a host of the same beginning', redirect(302, '//127.0.0.1.example.com/'), 'redirect'],
  ['after a redirect to another scheme', redirect(302, 'data:application/json,{}'), 'redirect'],
  ['after a redirect to a file', redirect(302, 'file:///etc/passwd'), 'redirect'],
  ['after a redirect with credentials', redirect(302, 'http://u:p@127.0.0.1:1/'), 'redirect'],
  ['after a redirect to no URL', redirect(302, 'http://['), 'redirect'],
  [
    'after redirects without an end',
    (_request, response) => response.writeHead(302, { location: '/' }).end(),
    'redirect'
  ],
  ['with a redirect that leads nowhere', (_request, response) => response.writeHead(302).end(), 'unreachable'],
  ['that is a page', (_request, response) => response.end('<!doctype html>'), 'content'],
  ['that is empty', (_request, response) => response.end(), 'content'],
  ['that is an array', (_request, response) => response.end('[]'), 'content'],
  ['that is null', (_request, response) => response.end('null'), 'content'],
  ['in UTF-16', (_request, response) => response.end(Buffer.from(`\ufeff${json}`, 'utf16le')), 'content'],
  ['in Latin-1', (_request, response) => response.end(Buffer.from('{"a":"é"}', 'latin1')), 'content'],
  ['with two byte order marks', (_request, response) => response.end(`\ufeff\ufeff${json}`), 'content'],
  ['that is too large', (_request, response) => response.end(`{"a":"${'x'.repeat(600_000)}"}`), 'content']
]

t.test('a document is not had, for its reason, and nothing of it is quoted', async (t) => {
  for (const [name, answer, fault] of bad) {
    await t.test(name, async (t) => {
      const url = `${await listen(t, answer)}/`
      const error = await failureOf(fetchDocument(url, accepts, { fetch }))
      t.match(error, { name: 'IssuerDocumentError', fault })
      t.notMatch(String(error), /doctype|xxx|u:p/)
    })
  }
})

t.test('a document that does not come is given up', async (t) => {
  const silent: Answer = () => {}
  const slow: Answer = (_request, response) => response.write('{')
  for (const answer of [silent, slow]) {
    const error = await failureOf(fetchDocument(await listen(t, answer), accepts, { fetch, timeoutMs: 50 }))
    t.match(error, { fault: 'unreachable', message: /did not answer within 0.05 s/ })
  }
})

t.test('nothing is fetched from a place that a stranger could name', async (t) => {
  for (const url of [
    'data:application/json,{"keys":[]}',
    'blob:https://login.example/1',
    'file:///etc/passwd',
    'ftp://login.example/keys',
    'http://login.example/keys',
    'http://127.0.0.1.example.com/keys',
    'http://user@127.0.0.1/keys',
    'https://user:password@login.example/keys',
    'ws://127.0.0.1/keys',
    '/keys',
    '//login.example/keys',
    ''
  ]) {
    const failTest = () => t.fail('it was fetched') as never
    t.match(await failureOf(fetchDocument(url, accepts, { fetch: failTest })), { fault: 'url' }, url)
  }
  for (const url of [
    'https://login.example/keys',
    'http://localhost:8080/keys',
    'http://127.0.0.1/',
    'http://[::1]/'
  ]) {
    t.doesNotThrow(() => checkUrl(url), url)
  }
})

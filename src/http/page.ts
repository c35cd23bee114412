import { createHash } from 'node:crypto'
import { readdir, readFile } from 'node:fs/promises'
import { createRequire } from 'node:module'
import { extname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import type { FastifyInstance } from 'fastify'

const types: Readonly<Record<string, string>> = {
  '.css': 'text/css; charset=utf-8',
  '.html': 'text/html; charset=utf-8',
  '.js': 'text/javascript; charset=utf-8',
  '.svg': 'image/svg+xml'
}

/** For pages that ask nothing of another host, and hold neither scripts nor styles of their own. */
export const contentPolicy = [
  "default-src 'none'",
  "script-src 'self'",
  "style-src 'self'",
  "img-src 'self' data:",
  "connect-src 'self'",
  "base-uri 'none'",
  "form-action 'none'",
  "frame-ancestors 'none'"
].join('; ')

const headers = {
  'content-security-policy': contentPolicy,
  'x-content-type-options': 'nosniff',
  'referrer-policy': 'no-referrer',
  'cross-origin-opener-policy': 'same-origin',
  'cross-origin-resource-policy': 'same-origin',
  'cache-control': 'no-cache' // after an upgrade the files must fit one another
}

/** Serves the operators' page, without credentials: it holds nothing but code, and asks for them itself. */
export async function servePage(app: FastifyInstance): Promise<void> {
  const folder = fileURLToPath(new URL('../../page', import.meta.url))
  const { resolve } = createRequire(import.meta.url)
  const files = new Map([
    ['/page/uplot.js', resolve('uplot/dist/uPlot.esm.js')],
    ['/page/uplot.css', resolve('uplot/dist/uPlot.min.css')]
  ])
  for (const name of await readdir(folder)) {
    files.set(name === 'index.html' ? '/' : `/page/${name}`, join(folder, name))
  }

  for (const [path, file] of files) {
    const type = types[extname(file)]
    if (type === undefined) {
      continue // what the type checker reads
    }
    const content = await readFile(file)
    const etag = `"${createHash('sha256').update(content).digest('base64url')}"`
    app.get(path, { schema: { hide: true } }, (request, reply) => {
      reply.headers({ ...headers, etag })
      return request.headers['if-none-match'] === etag ? reply.code(304).send() : reply.type(type).send(content)
    })
  }
}

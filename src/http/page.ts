import { createRequire } from 'node:module'
import { dirname } from 'node:path'
import { fileURLToPath } from 'node:url'
import fastifyStatic from '@fastify/static'
import type { FastifyInstance } from 'fastify'

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
  'cache-control': 'no-cache'
}

const folder = fileURLToPath(new URL('../../page', import.meta.url))
// Node.js is given the library's build for servers, in a folder of its own within the package.
const library = dirname(dirname(createRequire(import.meta.url).resolve('lit-html')))

/** Serves the operators' page, without credentials: it holds nothing but code, and asks for them itself. */
export async function servePage(app: FastifyInstance): Promise<void> {
  app.addHook('onRequest', async (_request, reply) => {
    reply.headers(headers)
  })
  // By size and time of change two releases can look alike, and after an upgrade the files must fit one another: so no
  // validators. They are small.
  const options = { index: false, cacheControl: false, etag: false, lastModified: false } as const
  app.register(fastifyStatic, {
    ...options,
    root: library,
    prefix: '/page/lit/',
    decorateReply: false,
    allowedPath: (path) => /^\/(directives\/)?[a-z-]+\.js$/.test(path)
  })
  app.register(fastifyStatic, {
    ...options,
    root: folder,
    prefix: '/page/',
    // What the type checker reads stays here; `index.html` is at `/` alone, since its links are relative.
    allowedPath: (path, _root, { url }) => /^\/[a-z-]+\.(css|js|svg)$/.test(path) || url.split('?')[0] === '/'
  })
  app.get('/', { schema: { hide: true } }, (_request, reply) => reply.sendFile('index.html'))
}

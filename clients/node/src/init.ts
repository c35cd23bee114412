import { isObject } from './objects.ts'

/** What is known of the app that is to share the cache. */
export interface Project {
  /** The contents of its `package.json`; undefined where there is none. */
  readonly manifest: unknown
  readonly hasTypeScript: boolean
  /** Where Next.js has its `app`: `src/app`, and not `app`. */
  readonly hasSourceFolder: boolean
  readonly clientId: string
  /** The app's database role. */
  readonly role: string
  /** For the role, and for the app's sessions. */
  readonly password: string
  readonly sessionSecret: string
  /** Instead of what `package.json` says. */
  readonly framework?: Framework | undefined
}

export const frameworks = ['express', 'fastify', 'nestjs', 'nextjs', 'passport', 'node'] as const
export type Framework = (typeof frameworks)[number]

export interface StartFile {
  readonly name: string
  readonly text: string
}

/** What an app begins with: statements for the schema's owner, the environment, and a module of the app or two. */
export interface Start {
  readonly framework: Framework
  /** With passwords. */
  readonly secrets: readonly StartFile[]
  readonly modules: readonly StartFile[]
  /** How the module is used, and what is to be done before. */
  readonly steps: readonly string[]
}

export function planStart(project: Project): Start {
  const { manifest, hasTypeScript } = project
  const framework = project.framework ?? detectFramework(manifest)
  return {
    framework,
    secrets: [
      { name: 'msal-logout.sql', text: sqlOf(project) },
      { name: 'msal-logout.env', text: envOf(project) }
    ],
    modules:
      framework === 'nextjs'
        ? nextModules(project.hasSourceFolder ? 'src/' : '')
        : [
            {
              name: `msal-logout.${hasTypeScript ? 'ts' : 'js'}`,
              text: moduleOf(framework, hasTypeScript ? 'typescript' : isModule(manifest) ? 'module' : 'commonjs')
            }
          ],
    steps: [
      ...installOf(framework, manifest),
      'As the owner of the schema "msal_logout", which the service makes (msal-logout migrate): psql -f msal-logout.sql',
      `Fill in msal-logout.env. ${environmentOf(framework)} Keep it and msal-logout.sql out of version control: they have a password`,
      ...(framework === 'node'
        ? []
        : [
            'At the provider register <BASE_URL>/callback as the redirect URI, and <BASE_URL> as the post-logout redirect URI'
          ]),
      ...usageOf(framework),
      ...(hasExpress4(framework, manifest)
        ? [
            'Express 4 does not wait for async handlers, and one that rejects ends the process: npm install express@5, or npm install express-async-errors and require it first'
          ]
        : [])
    ]
  }
}

function detectFramework(manifest: unknown): Framework {
  const has = (name: string) => dependenciesOf(manifest).includes(name)
  if (has('next')) {
    return 'nextjs'
  }
  if (has('@nestjs/core')) {
    return 'nestjs'
  }
  if (has('fastify')) {
    return 'fastify'
  }
  if (has('passport')) {
    return 'passport'
  }
  return has('express') ? 'express' : 'node'
}

function dependenciesOf(manifest: unknown): string[] {
  return versionsOf(manifest).map(([name]) => name)
}

function versionsOf(manifest: unknown): [name: string, range: unknown][] {
  const groups = isObject(manifest) ? [manifest.dependencies, manifest.devDependencies] : []
  return groups.flatMap((group) => (isObject(group) ? Object.entries(group) : []))
}

/** NestJS waits by itself. */
function hasExpress4(framework: Framework, manifest: unknown): boolean {
  const isOld = versionsOf(manifest).some(([name, range]) => name === 'express' && /^[~^=v]*4\b/.test(String(range)))
  return isOld && (framework === 'express' || framework === 'passport')
}

function isModule(manifest: unknown): boolean {
  return isObject(manifest) && manifest.type === 'module'
}

const needs: Readonly<Record<Framework, readonly string[]>> = {
  express: ['express-session'],
  fastify: ['@fastify/cookie'],
  nestjs: ['express-session'],
  nextjs: ['iron-session'],
  passport: ['express-session'],
  node: []
}

/** A step, or none where all is there. */
function installOf(framework: Framework, manifest: unknown): string[] {
  const present = dependenciesOf(manifest)
  const hasSession = ['express-session', 'cookie-session', '@fastify/session'].some((name) => present.includes(name))
  const further = hasSession && framework !== 'nextjs' ? [] : needs[framework]
  const missing = ['msal-logout-client', '@azure/msal-node', 'pg', ...further].filter((name) => !present.includes(name))
  return missing.length === 0 ? [] : [`npm install ${missing.join(' ')}`]
}

function sqlOf({ clientId, role, password }: Project): string {
  const text = (value: string) => `'${value.replaceAll("'", "''")}'`
  const name = `"${role.replaceAll('"', '""')}"`
  return `create role ${name} login password ${text(password)};
do $$ begin execute format('grant connect on database %I to %I', current_database(), ${text(role)}); end $$;
select msal_logout.register_app(${text(clientId)}, ${text(role)});
`
}

function envOf({ clientId, role, password, sessionSecret }: Project): string {
  return `DATABASE_URL=postgres://${encodeURIComponent(role)}:${password}@localhost:5432/<database>
AUTHORITY=<the issuer; for Entra ID https://login.microsoftonline.com/<tenant id>>
CLIENT_ID=${clientId}
CLIENT_SECRET=<the client's secret at the provider>
BASE_URL=http://localhost:3000
SESSION_SECRET=${sessionSecret}
`
}

/** How the environment comes into the process. */
function environmentOf(framework: Framework): string {
  return framework === 'nextjs'
    ? 'Next.js reads .env.local: cat msal-logout.env >> .env.local.'
    : 'Node.js reads it: node --env-file=msal-logout.env …'
}

type Language = 'typescript' | 'module' | 'commonjs'

const variables = ['DATABASE_URL', 'AUTHORITY', 'CLIENT_ID', 'CLIENT_SECRET', 'BASE_URL']

const makePool = (
  newPool: string
) => `const pool = ${newPool}({ connectionString: DATABASE_URL, connectionTimeoutMillis: 5_000 })
pool.on('error', (error) => console.error(error.message))
`

const options = `{
  pool,
  clientId: CLIENT_ID,
  clientSecret: CLIENT_SECRET,
  authority: AUTHORITY,
  baseUrl: BASE_URL
}`

const routes = '// /sign-in, /callback, /sign-out, the guard, request.user and request.token()'

function moduleOf(framework: Exclude<Framework, 'nextjs'>, language: Language): string {
  const isCommonJs = language === 'commonjs'
  const load = (names: string, from: string) =>
    isCommonJs ? `const { ${names} } = require('${from}')` : `import { ${names} } from '${from}'`
  const loadPool = isCommonJs ? load('Pool', 'pg') : `import pg from 'pg'` // older releases of pg are no ES module
  const beginning = `${loadPool}

const { ${variables.join(', ')} } = process.env

${makePool(isCommonJs ? 'new Pool' : 'new pg.Pool')}`
  const provide = (name: string, value: string) =>
    isCommonJs ? `exports.${name} = ${value}\n` : `export const ${name} = ${value}\n`
  switch (framework) {
    case 'express':
    case 'nestjs':
      return `${load('createSignIn', 'msal-logout-client/express')}
${beginning}
${routes}
${provide('signIn', `createSignIn(${options})`)}`
    case 'fastify':
      return `${load('signInPlugin', 'msal-logout-client/fastify')}
${beginning}
${routes}
${provide('signInOptions', options)}${isCommonJs ? 'exports.signInPlugin = signInPlugin' : 'export { signInPlugin }'}
`
    case 'passport':
      return `${language === 'typescript' ? `import type { Request } from 'express'\n` : ''}${load('createSignIn', 'msal-logout-client')}
${load('createExpressGuard', 'msal-logout-client/express')}
${beginning}
const signIn = createSignIn(${options})
${isCommonJs ? 'exports.signIn = signIn' : 'export { signIn }'}

// Behind passport.session(): ends the session of a user who was signed out
${provide('guard', `createExpressGuard({ tokenCache: signIn.tokenCache, session: (request${language === 'typescript' ? ': Request' : ''}) => request.user })`)}`
    case 'node':
      return `${load('createClients, createTokenCache', 'msal-logout-client')}
${loadPool}

const { DATABASE_URL, AUTHORITY = '', CLIENT_ID = '', CLIENT_SECRET = '' } = process.env

${makePool(isCommonJs ? 'new Pool' : 'new pg.Pool')}
const tokenCache = createTokenCache({ pool, clientId: CLIENT_ID })
const auth = { clientId: CLIENT_ID, clientSecret: CLIENT_SECRET, authority: AUTHORITY }
const clients = createClients({ tokenCache, configuration: { auth } })

${isCommonJs ? 'module.exports = { clients, tokenCache }' : 'export { clients, tokenCache }'}
`
  }
}

/** Of the app router. */
function nextModules(folder: string): StartFile[] {
  return [
    {
      name: `${folder}msal-logout.ts`,
      text: `import { getIronSession } from 'iron-session'
import { createSignIn } from 'msal-logout-client'
import { cookies } from 'next/headers'
import pg from 'pg'

const { ${variables.join(', ')}, SESSION_SECRET = '' } = process.env

${makePool('new pg.Pool')}
export const signIn = createSignIn(${options})

export async function getSession() {
  const cookieOptions = { secure: BASE_URL?.startsWith('https:') ?? true }
  return getIronSession<object>(await cookies(), { password: SESSION_SECRET, cookieName: 'session', cookieOptions })
}
`
    },
    {
      name: `${folder}app/[action]/route.ts`,
      text: `// /sign-in, /callback, /sign-out
import { getSession, signIn } from '../../msal-logout'

export async function GET(request: Request) {
  const session = await getSession()
  const response = await signIn.handle(request, session)
  await session.save()
  return response ?? new Response('not found\\n', { status: 404 })
}
`
    }
  ]
}

function usageOf(framework: Framework): string[] {
  switch (framework) {
    case 'express':
      return [
        'In the app, behind its session: app.use(signIn), and at the end app.use(signIn.onError)',
        "In a handler behind signIn.required: fetch(url, { headers: { authorization: 'Bearer ' + (await request.token()) } })"
      ]
    case 'nestjs':
      return ['In main.ts, behind app.use(session(…)): app.use(signIn); then request.user and await request.token()']
    case 'fastify':
      return [
        'In the app: await app.register(cookie, { secret: process.env.SESSION_SECRET }), then await app.register(signInPlugin, signInOptions)',
        "In a route with { preHandler: app.requireSignIn }: fetch(url, { headers: { authorization: 'Bearer ' + (await request.token()) } })"
      ]
    case 'nextjs':
      return [
        'In pages and routes: await signIn.userOf(await getSession()), and await signIn.tokenOf(await getSession())'
      ]
    case 'passport':
      return ['In the app, behind passport.session(): app.use(guard); then its routes: examples/passport-app.ts']
    case 'node':
      return [
        'To redeem a code: (await clients.forLogin({ nonce })).acquireTokenByCode(…)',
        'For a token: (await clients.forAccount(homeAccountId)).acquireTokenSilent(…)',
        'With each request: await tokenCache.isSessionActive(account)'
      ]
  }
}

// A web app on NestJS that signs in with MSAL. Environment: PORT, AUTHORITY, CLIENT_ID, CLIENT_SECRET, SESSION_SECRET, API_URL.
import { randomUUID } from 'node:crypto'
import { type AccountInfo, CryptoProvider } from '@azure/msal-node'
import { BadRequestException, Controller, Get, Module, Query, Req, Res } from '@nestjs/common'
import { NestFactory } from '@nestjs/core'
import type { Request, Response } from 'express'
import session from 'express-session'
import { createClients, createExpressGuard, createTokenCache } from 'msal-logout-client'
import { Pool } from 'pg'

const {
  PORT = '3000',
  AUTHORITY = '',
  CLIENT_ID = '',
  CLIENT_SECRET = '',
  SESSION_SECRET = '',
  API_URL = ''
} = process.env
const redirectUri = `http://localhost:${PORT}/callback`
const scopes = ['openid', 'offline_access', 'profile']

declare module 'express-session' {
  interface SessionData {
    account: AccountInfo
    pending: { state: string; nonce: string; verifier: string }
  }
}

const auth = { clientId: CLIENT_ID, clientSecret: CLIENT_SECRET, authority: AUTHORITY, knownAuthorities: [AUTHORITY] }
const pool = new Pool({ connectionString: process.env.DATABASE_URL })
const tokenCache = createTokenCache({ pool, clientId: CLIENT_ID })
const clients = createClients({ tokenCache, configuration: { auth } })

@Controller()
class AppController {
  @Get()
  home(@Req() request: Request): string {
    return request.session.account ? `signed in as ${request.session.account.homeAccountId}\n` : 'not signed in\n'
  }

  @Get('sign-in')
  async signIn(@Req() request: Request, @Res() response: Response): Promise<void> {
    const { verifier, challenge } = await new CryptoProvider().generatePkceCodes()
    const pending = { state: randomUUID(), nonce: randomUUID() }
    request.session.pending = { ...pending, verifier }
    const pkce = { codeChallenge: challenge, codeChallengeMethod: 'S256' }
    response.redirect(await (await clients.forLogin()).getAuthCodeUrl({ scopes, redirectUri, ...pending, ...pkce }))
  }

  @Get('callback')
  async callback(
    @Query() query: Record<string, string>,
    @Req() request: Request,
    @Res() response: Response
  ): Promise<void> {
    const { pending } = request.session
    if (!pending || pending.state !== query.state) {
      throw new BadRequestException('begin again at /sign-in')
    }
    const { verifier: codeVerifier, nonce } = pending
    const client = await clients.forLogin({ nonce })
    const { account } = await client.acquireTokenByCode({ code: query.code, scopes, redirectUri, codeVerifier, nonce })
    request.session.regenerate(() => {
      request.session.account = account ?? undefined
      response.redirect('/')
    })
  }

  @Get('api')
  async api(@Req() request: Request, @Res() response: Response): Promise<void> {
    const { account } = request.session
    if (!account) {
      response.redirect('/sign-in')
      return
    }
    const client = await clients.forAccount(account.homeAccountId)
    const { accessToken } = await client.acquireTokenSilent({ account, scopes })
    const answer = await fetch(API_URL, { headers: { authorization: `Bearer ${accessToken}` } })
    response.json({ status: answer.status, answer: await answer.json() })
  }
}

@Module({ controllers: [AppController] })
class AppModule {}

async function main(): Promise<void> {
  const app = await NestFactory.create(AppModule, { logger: ['error'] })
  app.use(session({ name: CLIENT_ID, secret: SESSION_SECRET, resave: false, saveUninitialized: false }))
  app.use(createExpressGuard<Request, Response>({ tokenCache, session: (request) => request.session.account }))
  await app.listen(Number(PORT), '127.0.0.1')
}

void main()

// A web app on NestJS that shares the token cache. Environment: PORT, DATABASE_URL, AUTHORITY, CLIENT_ID, CLIENT_SECRET,
// SESSION_SECRET, API_URL.
import { Controller, Get, Module, Req, UnauthorizedException } from '@nestjs/common'
import { NestFactory } from '@nestjs/core'
import type { Request } from 'express'
import session from 'express-session'
import { createSignIn } from 'msal-logout-client/express'
import { Pool } from 'pg'

const { PORT, DATABASE_URL, AUTHORITY, CLIENT_ID, CLIENT_SECRET, SESSION_SECRET = '', API_URL = '' } = process.env

@Controller()
class AppController {
  @Get()
  home(@Req() request: Request): string {
    return request.user ? `signed in as ${request.user.homeAccountId}\n` : 'not signed in\n'
  }

  @Get('api')
  async api(@Req() request: Request) {
    if (!request.user) {
      throw new UnauthorizedException('sign in first')
    }
    const headers = { authorization: `Bearer ${await request.token()}` }
    const answer = await fetch(API_URL, { headers })
    return { status: answer.status, answer: await answer.json() }
  }
}

@Module({ controllers: [AppController] })
class AppModule {}

async function main() {
  const app = await NestFactory.create(AppModule)
  app.use(session({ name: CLIENT_ID, secret: SESSION_SECRET, resave: false, saveUninitialized: false }))
  const pool = new Pool({ connectionString: DATABASE_URL, connectionTimeoutMillis: 5_000 })
  pool.on('error', (error) => console.error(error.message))
  const client = { clientId: CLIENT_ID, clientSecret: CLIENT_SECRET, authority: AUTHORITY }
  app.use(createSignIn({ pool, ...client, baseUrl: `http://localhost:${PORT}` })) // /sign-in, /callback, /sign-out
  await app.listen(Number(PORT), '127.0.0.1')
}

main()

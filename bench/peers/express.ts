// express-openid-connect 3.4 with connect-pg-simple, by their documentation. It deletes nothing: it marks the
// sid as logged out in the session store, and one app alone knows of it.
import connectPgSimple from 'connect-pg-simple'
import express from 'express'
import oidc from 'express-openid-connect'
import session from 'express-session'
import pg from 'pg'

// Its types are of express-session, whose stores it accepts.
const PgStore = connectPgSimple(session)
const pool = new pg.Pool({ connectionString: String(process.env.DATABASE_URL), max: Number(process.env.POOL_SIZE) })
const store = new PgStore({ pool, schemaName: 'public', tableName: 'session' })
const app = express()
app.get('/healthz', (_request, response) => void response.send('ok'))
app.use(
  oidc.auth({
    issuerBaseURL: String(process.env.ISSUER),
    baseURL: `http://127.0.0.1:${process.env.PORT}`,
    clientID: 'app-0',
    secret: 'a secret of the session cookie, 32 characters',
    authRequired: false,
    idpLogout: true,
    idTokenSigningAlg: 'RS256',
    // @ts-expect-error the types of express-session's stores and of these differ in what a session holds
    session: { store },
    // @ts-expect-error as above
    backchannelLogout: { store }
  })
)
app.listen(Number(process.env.PORT), '127.0.0.1')
process.on('SIGTERM', () => process.exit(0))

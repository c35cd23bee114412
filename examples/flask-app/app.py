"""A web app on Flask that shares the token cache. Environment: PORT, DATABASE_URL, AUTHORITY, CLIENT_ID, CLIENT_SECRET,
API_URL, SECRET_KEY."""

import os

import flask
import msal
import requests
from psycopg_pool import ConnectionPool

from msal_logout import HttpClient, SharedTokenCache, oidc_authority
from msal_logout.flask import FlaskSignIn

CLIENT_ID = os.environ["CLIENT_ID"]

app = flask.Flask(__name__)
app.config.update(
    SECRET_KEY=os.environ.get("SECRET_KEY") or os.urandom(32),  # several processes need the same one
    SESSION_COOKIE_NAME=f"session-of-{CLIENT_ID}",  # cookies know no ports: two apps on one host need two names
    SESSION_COOKIE_SAMESITE="Lax",
)

pool = ConnectionPool(os.environ["DATABASE_URL"], min_size=1, max_size=8, open=True)
cache = SharedTokenCache(pool, CLIENT_ID)
http_client = HttpClient()  # of all MSAL applications: with time limits, and the provider's metadata fetched once


def build_client(token_cache):
    """The MSAL application of one operation.

    With Entra ID: authority="https://login.microsoftonline.com/<tenant id>" instead of oidc_authority.
    """
    return msal.ConfidentialClientApplication(
        CLIENT_ID,
        client_credential=os.environ["CLIENT_SECRET"],
        oidc_authority=oidc_authority(os.environ["AUTHORITY"]),
        token_cache=token_cache,
        http_client=http_client,
    )


# /sign-in, /callback, /sign-out, and the guard: a sign-out at the provider ends the session here with the next request.
sign_in = FlaskSignIn(app, cache, build_client)


@app.get("/")
def home():
    user = sign_in.user
    return f"signed in as {user['home_account_id']}\n" if user else "not signed in\n"


@app.get("/api")
@sign_in.required
def api():
    token = sign_in.token()
    answer = requests.get(os.environ["API_URL"], headers={"Authorization": f"Bearer {token}"}, timeout=10)
    return {"status": answer.status_code, "answer": answer.json()}


if __name__ == "__main__":
    cache.check()  # says what is wrong with the set-up, before the first user does
    app.run("127.0.0.1", int(os.environ.get("PORT", "4003")))

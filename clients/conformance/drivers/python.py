"""The driver of the Python client: README.md, "The driver"."""

from __future__ import annotations

import json
import sys
import threading
import urllib.parse
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import msal
import psycopg_pool

from msal_logout import Encryption, HttpClient, SharedTokenCache, TokenCacheError

REDIRECT_URI = "https://app.example/callback"


class NoTokens(Exception):
    code = "no_tokens"


class Rejected(Exception):
    def __init__(self, result: dict[str, Any]) -> None:
        super().__init__(result.get("error_description", ""))
        self.code = result["error"]


class Network(HttpClient):
    """MSAL's requests to any host, go to the endpoint."""

    def __init__(self, endpoint: str) -> None:
        super().__init__()
        self._endpoint = endpoint

    def get(self, url: str, **arguments: Any) -> Any:
        return super().get(self._target(url), **arguments)

    def post(self, url: str, **arguments: Any) -> Any:
        return super().post(self._target(url), **arguments)

    def _target(self, url: str) -> str:
        parts = urllib.parse.urlsplit(url)
        return self._endpoint + parts.path + (f"?{parts.query}" if parts.query else "")


class Driver:
    def __init__(self, setup: dict[str, Any]) -> None:
        self._setup = setup
        self._pool = psycopg_pool.ConnectionPool(setup["databaseUrl"], min_size=1, max_size=8, open=True)
        encryption = setup.get("encryption")
        self._cache = SharedTokenCache(
            self._pool,
            setup["clientId"],
            encryption=encryption
            and Encryption(
                encryption["current"],
                {key_id: bytes.fromhex(key) for key_id, key in encryption["keys"].items()},
                allow_plain=encryption.get("allowPlain", False),
            ),
        )
        self._network = Network(setup["endpoint"])
        self._releases: dict[int, threading.Event] = {}
        self._listener: Any = None

    def perform(self, request: dict[str, Any]) -> dict[str, Any]:
        operations = {
            "signIn": self.sign_in,
            "silent": self.silent,
            "onBehalfOf": self.on_behalf_of,
            "appToken": self.app_token,
            "isSessionActive": self.is_session_active,
            "removeAccount": self.remove_account,
            "listen": self.listen,
            "stopListening": self.stop_listening,
            "release": self.release,
        }
        return operations[request["op"]](request)

    def sign_in(self, request: dict[str, Any]) -> dict[str, Any]:
        with self._login() as tokens:
            client = self._client(tokens)
            # The code comes from the test and not from a flow of this application.
            result = client.client.obtain_token_by_authorization_code(
                request["code"], redirect_uri=REDIRECT_URI, scope=client._decorate_scope(request["scopes"])
            )
            self._check(result)
            self._hold(request)
        if self._setup.get("stock"):
            claims = result["id_token_claims"]
            account = client.get_accounts()[0]["home_account_id"]
            return self._user(account, claims["iss"], claims.get("sid"), claims["sub"])
        user = tokens.user
        return self._user(user["home_account_id"], user["issuer"], user["sid"], user["subject"])

    def silent(self, request: dict[str, Any]) -> dict[str, Any]:
        with self._account(request["account"]) as tokens:
            client = self._client(tokens)
            accounts = client.get_accounts()
            if not accounts:
                raise NoTokens("no account in the cache")
            result = client.acquire_token_silent_with_error(
                request["scopes"], accounts[0], force_refresh=request.get("forceRefresh", False)
            )
            if result is None:
                raise NoTokens("no token in the cache")
            self._check(result)
            self._hold(request)
        return self._token(result)

    def on_behalf_of(self, request: dict[str, Any]) -> dict[str, Any]:
        with self._cache.assertion(request["assertion"]) as tokens:
            result = tokens.acquire_token(self._client(tokens), request["scopes"])
            self._check(result)
            self._hold(request)
        return self._token(result)

    def app_token(self, request: dict[str, Any]) -> dict[str, Any]:
        with self._cache.app(request["partition"]) as tokens:
            result = self._client(tokens).acquire_token_for_client(request["scopes"])
            self._check(result)
        return self._token(result)

    def is_session_active(self, request: dict[str, Any]) -> dict[str, Any]:
        active = self._cache.is_session_active(request["issuer"], request.get("sid"), request.get("subject"))
        return {"active": active}

    def remove_account(self, request: dict[str, Any]) -> dict[str, Any]:
        return {"removed": self._cache.remove_account(request["account"])}

    def listen(self, _: dict[str, Any]) -> dict[str, Any]:
        self._listener = self._cache.on_purge(
            lambda revoked: write(
                {
                    "event": "revoked",
                    "session": self._user(revoked.home_account_id, revoked.issuer, revoked.sid, revoked.subject),
                }
            )
        )
        return {}

    def stop_listening(self, _: dict[str, Any]) -> dict[str, Any]:
        self._listener.stop()
        self._listener = None
        return {}

    def release(self, request: dict[str, Any]) -> dict[str, Any]:
        self._releases.pop(request["of"]).set()
        return {}

    def stop(self) -> None:
        for event in list(self._releases.values()):
            event.set()
        if self._listener is not None:
            self._listener.stop()
        self._pool.close()

    def _client(self, token_cache: Any) -> msal.ConfidentialClientApplication:
        setup = self._setup
        authority = {"oidc_authority" if setup["mode"] == "oidc" else "authority": setup["authority"]}
        return msal.ConfidentialClientApplication(
            setup["clientId"],
            client_credential=setup["clientSecret"],
            token_cache=token_cache,
            http_client=self._network,
            **authority,
        )

    def _login(self) -> Any:
        return self._stock(None) if self._setup.get("stock") else self._cache.login()

    def _account(self, account: str) -> Any:
        return self._stock(account) if self._setup.get("stock") else self._cache.account(account)

    @contextmanager
    def _stock(self, account: str | None) -> Any:
        """As MSAL's documentation stores the cache."""
        cache = msal.SerializableTokenCache()
        with self._pool.connection() as connection:
            row = connection.execute("select value from stock_cache where key = %s", (account,)).fetchone()
        if row is not None:
            cache.deserialize(row[0])
        yield cache
        if cache.has_state_changed:
            key = account or next(iter(cache._cache["Account"].values()))["home_account_id"]
            with self._pool.connection() as connection:
                connection.execute(
                    "insert into stock_cache values (%s, %s) on conflict (key) do update set value = excluded.value",
                    (key, cache.serialize()),
                )

    def _hold(self, request: dict[str, Any]) -> None:
        if request.get("hold") == "beforeSave":
            event = self._releases[request["id"]] = threading.Event()
            write({"id": request["id"], "held": True})
            event.wait()

    def _check(self, result: dict[str, Any]) -> None:
        if "error" in result:
            raise Rejected(result)

    def _token(self, result: dict[str, Any]) -> dict[str, Any]:
        source = "cache" if result.get("token_source") == "cache" else "provider"
        return {"source": source, "accessToken": result["access_token"]}

    def _user(self, account: str, issuer: str, sid: str | None, subject: str) -> dict[str, Any]:
        return {"homeAccountId": account, "issuer": issuer, "sid": sid, "subject": subject}


_writing = threading.Lock()


def write(line: dict[str, Any]) -> None:
    with _writing:
        sys.stdout.write(json.dumps(line) + "\n")
        sys.stdout.flush()


def main() -> None:
    driver: Driver | None = None

    def perform(request: dict[str, Any]) -> None:
        try:
            if driver is None:
                raise RuntimeError("not configured")
            write({"id": request["id"], "ok": driver.perform(request)})
        except Exception as error:  # noqa: BLE001 - the runner judges it
            code = error.code if isinstance(error, (TokenCacheError, NoTokens, Rejected)) else type(error).__name__
            write({"id": request["id"], "error": {"code": code, "message": str(error)}})

    with ThreadPoolExecutor(32) as executor:
        for line in sys.stdin:
            request = json.loads(line)
            if request["op"] == "configure":
                driver = Driver(request)
                write({"id": request["id"], "ok": {}})
            else:
                executor.submit(perform, request)
        if driver is not None:
            driver.stop()


main()

"""MSAL on a provider without a network: its http client is the only thing replaced. Who signs in travels inside codes
and refresh tokens, so that the provider keeps no state."""

from __future__ import annotations

import base64
import json
import os
import time
import urllib.parse
import uuid
from collections.abc import Callable
from typing import Any

import msal

MSAL_VERSION = tuple(int(part) for part in msal.__version__.split(".")[:2])
KNOWS_ANY_PROVIDER = MSAL_VERSION >= (1, 28)

ISSUER = os.environ.get("TEST_ISSUER", "https://login.example/issuer")
OIDC_AUTHORITY = "https://login.example/tenant"
ENTRA_AUTHORITY = "https://login.microsoftonline.com/7e0a3c5e-0000-4000-8000-000000000001"
CLIENT_ID = "client-a"

Person = dict[str, Any]


def someone(**changes: Any) -> Person:
    """A new person: ``homeAccountId``, ``subject`` and ``sid`` are unique."""
    person = {"homeAccountId": f"{uuid.uuid4()}.t", "subject": str(uuid.uuid4()), "sid": str(uuid.uuid4())}
    return {**person, **changes}


def encode(value: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


def decode(text: str) -> Any:
    return json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))


def jwt(claims: dict[str, Any]) -> str:
    return f"{encode({'alg': 'none'})}.{encode(claims)}.sig"


def now() -> int:
    return int(time.time())


class Answer:
    def __init__(self, body: Any, status: int = 200) -> None:
        self.status_code = status
        self.text = json.dumps(body)
        self.headers: dict[str, str] = {}

    def raise_for_status(self) -> None:
        assert self.status_code < 400, self.text


class Provider:
    """``before_answer`` is called with the grant type before each answer: a test does there what happens meanwhile."""

    def __init__(self, client_id: str = CLIENT_ID, entra: bool = not KNOWS_ANY_PROVIDER) -> None:
        self.client_id = client_id
        self.authority = ENTRA_AUTHORITY if entra else OIDC_AUTHORITY
        self.entra = entra
        self.requests = 0
        self.expires_in = 3600
        self.before_answer: Callable[[str], object] = lambda _: None
        self.change: Callable[[dict[str, Any]], dict[str, Any]] = lambda answer: answer
        self.claims: dict[str, Any] = {}

    def client(self, token_cache: Any = None) -> msal.ConfidentialClientApplication:
        authority = {"authority": self.authority} if self.entra else {"oidc_authority": self.authority}
        return msal.ConfidentialClientApplication(
            self.client_id, client_credential="secret", token_cache=token_cache, http_client=self, **authority
        )

    def redeem(self, token_cache: Any, person: Person, scopes: tuple[str, ...] = ("api-1",)) -> dict[str, Any]:
        client = self.client(token_cache)
        flow = client.initiate_auth_code_flow(list(scopes), redirect_uri="https://app.example/callback")
        asked = dict(urllib.parse.parse_qsl(urllib.parse.urlsplit(flow["auth_uri"]).query))
        code = encode({**person, "nonce": asked["nonce"]})
        return dict(client.acquire_token_by_auth_code_flow(flow, {"code": code, "state": flow["state"]}))

    def silent(
        self, token_cache: Any, scopes: tuple[str, ...] = ("api-1",), force_refresh: bool = False
    ) -> dict[str, Any] | None:
        client = self.client(token_cache)
        accounts = client.get_accounts()
        if not accounts:
            return None
        return client.acquire_token_silent(list(scopes), accounts[0], force_refresh=force_refresh)

    # What MSAL calls

    def get(self, url: str, **_: Any) -> Answer:
        if url.endswith("/.well-known/openid-configuration"):
            return Answer(
                {
                    "issuer": self.authority,
                    "authorization_endpoint": f"{self.authority}/authorize",
                    "token_endpoint": f"{self.authority}/token",
                    "end_session_endpoint": f"{ISSUER}/end",
                }
            )
        if urllib.parse.urlsplit(url).path == "/common/discovery/instance":
            aliases = ["login.microsoftonline.com", "login.windows.net", "login.microsoft.com", "sts.windows.net"]
            return Answer({"metadata": [{"aliases": aliases}]})
        return Answer({}, 404)

    def post(self, _url: str, data: Any = None, **_: Any) -> Answer:
        form = dict(urllib.parse.parse_qsl(data)) if isinstance(data, str) else dict(data)
        self.requests += 1
        grant_type = form["grant_type"]
        self.before_answer(grant_type)
        answer: dict[str, Any] = {"token_type": "Bearer", "expires_in": self.expires_in, "scope": form.get("scope", "")}
        if grant_type == "client_credentials":
            return Answer({**answer, "access_token": f"app-{uuid.uuid4()}"})
        assertion = form.get("assertion", "..").split(".")[1]
        person = decode(form.get("code") or form.get("refresh_token") or assertion)
        if "error" in person:
            return Answer({"error": person["error"]}, 400)
        claims = {
            "iss": ISSUER,
            "aud": self.client_id,
            "sub": person["subject"],
            "sid": person.get("sid"),
            "iat": person.get("issuedAt", now()),
            "exp": now() + 3600,
            "nonce": person.get("nonce"),
            **self.claims,
        }
        uid, _, utid = person["homeAccountId"].partition(".")
        if utid:
            answer["client_info"] = encode({"uid": uid, "utid": utid})
        refresh = {**person, "unique": str(uuid.uuid4())}
        refresh.pop("issuedAt", None)
        answer.update(
            access_token=f"at-{uuid.uuid4()}",
            refresh_token=encode(refresh),
            id_token=jwt({name: value for name, value in claims.items() if value is not None}),
        )
        return Answer(self.change(answer))

    def close(self) -> None:
        pass

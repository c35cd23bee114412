"""docs/python.md, run: each of its blocks does what it says."""

from __future__ import annotations

import inspect
import os
import pathlib
import re
import urllib.parse
from collections.abc import Iterator
from typing import Any

import flask
import pytest

import msal_logout
from conftest import World, configure_django
from msal_logout import SharedTokenCache, SignedOut, TokenCacheError
from provider import ENTRA_AUTHORITY, ISSUER, Provider, encode, someone

ROOT = pathlib.Path(__file__).parents[3]
PAGE = (ROOT / "docs/python.md").read_text("utf-8")
CLIENT_ID = "client-docs"


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


def block(having: str) -> str:
    [found] = [each for each in blocks("python") if having in each]
    return found


@pytest.fixture
def provider() -> Provider:
    return Provider(CLIENT_ID, entra=True)


@pytest.fixture
def names(
    role: tuple[str, str], world: World, provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> Iterator[dict[str, Any]]:
    """What the first block has made, on a role that is registered."""
    name, url = role
    world.query("select msal_logout.register_app(%s, %s)", CLIENT_ID, name)
    monkeypatch.setattr(msal_logout, "HttpClient", lambda: provider)
    names: dict[str, Any] = {
        "__name__": __name__,
        "DATABASE_URL": url,
        "CLIENT_ID": CLIENT_ID,
        "CLIENT_SECRET": "secret",
        "SECRET_KEY": "secret",
        "AUTHORITY": ENTRA_AUTHORITY,
        "KEY_1": os.urandom(32),
        "KEY_2": os.urandom(32),
        "call_api": lambda token: token,
    }
    exec(block("cache.check()"), names)
    yield names
    names["pool"].close()


def sign_in(names: dict[str, Any], provider: Provider) -> tuple[dict[str, Any], dict[str, Any]]:
    alice = someone()
    with names["cache"].login() as tokens:
        provider.redeem(tokens, alice)
    return alice, dict(tokens.user)


def test_every_block_is_run() -> None:
    assert len(blocks("python")) == 8
    for source in blocks("python"):
        compile(source, "docs/python.md", "exec")


def test_a_token_for_a_user(names: dict[str, Any], provider: Provider, world: World) -> None:
    exec(block("def token_for"), names)
    alice, user = sign_in(names, provider)
    assert names["token_for"](user, ["api-1"]).startswith("at-")
    world.sign_out(sid=alice["sid"])
    with pytest.raises(SignedOut):
        names["token_for"](user, ["api-1"])


def test_the_guard_of_flask(names: dict[str, Any], provider: Provider, world: World) -> None:
    exec(block("flask.Flask(__name__)").replace("https://graph.microsoft.com/User.Read", "api-1"), names)
    exec(block("def is_active"), names)
    browser = names["app"].test_client()
    assert browser.get("/mail").status_code == 401
    alice = someone()
    asked = query_of(browser.get("/sign-in").location)
    browser.get("/callback", query_string=answer_to(asked, alice))
    assert browser.get("/mail").text.startswith("at-")
    with browser.session_transaction() as session:
        session["user"] = session["msal_logout_user"]
    world.sign_out(sid=alice["sid"])
    assert browser.get("/mail").status_code == 401


def test_django(names: dict[str, Any], database_url: str) -> None:
    from django.http import HttpRequest, HttpResponse

    configure_django(database_url)
    names["HttpResponse"] = HttpResponse
    exec(block("# project/tokens.py"), names)
    exec(block("# settings.py"), names)
    assert [str(each.pattern) for each in names["urlpatterns"]] == ["sign-in", "callback", "sign-out"]
    assert names["MIDDLEWARE"][-1].endswith(".middleware")
    request = HttpRequest()
    request.session = {}  # type: ignore[assignment]
    with pytest.raises(TokenCacheError):
        names["mail"](request)
    names["cache"].is_session_active(ISSUER, "x")
    names["cache"].close()


def test_starlette(names: dict[str, Any], provider: Provider, world: World) -> None:
    from starlette.testclient import TestClient

    exec(block("run_in_threadpool"), names)
    with TestClient(names["app"], follow_redirects=False) as browser:
        assert browser.get("/api").status_code == 401
        alice = someone()
        asked = query_of(browser.get("/sign-in").headers["location"])
        assert browser.get("/callback", params=answer_to(asked, alice)).headers["location"] == "/"
        assert browser.get("/api").json()["token"].startswith("at-")
        world.sign_out(sid=alice["sid"])
        assert browser.get("/api").status_code == 401


def test_encryption(names: dict[str, Any], provider: Provider, world: World) -> None:
    exec(block("Encryption(current"), names)
    alice, _ = sign_in(names, provider)
    row = world.row(alice["homeAccountId"], CLIENT_ID)
    assert row is not None
    assert row[2] == "gzip+a256gcm:k2"


def test_the_statements(world: World) -> None:
    counting = [statement for statement in blocks("sql") if statement.startswith("select encoding")]
    assert len(counting) == 1
    assert isinstance(world.query(counting[0]), list)


@pytest.mark.parametrize("sid", ["a sid", None])
def test_ten_lines_join_a_sample(
    sid: str | None, names: dict[str, Any], provider: Provider, world: World, database_url: str
) -> None:
    """The lines of the diff, in a sample's three places. At Entra ID an ID token has no sid unless it is asked for."""
    [diff] = blocks("diff")
    module, authorized, get_token = (
        "\n".join(line[1:] for line in part.splitlines() if line.startswith("+"))
        for part in re.split(r"^@@ .*$", diff, flags=re.MULTILINE)
    )
    added = [line for line in diff.splitlines() if line.startswith("+")]
    assert len(added) == 10
    assert "Ten lines come" in PAGE
    app = flask.Flask("sample")
    app.secret_key = "secret"
    sample = {**names, "app": app, "session": flask.session, "request": flask.request}
    sample["_build_msal_app"] = lambda cache=None: names["build_client"](cache)
    exec(f"{module}\ndef authorized():\n{authorized}\ndef get_token(scope):\n{get_token}", sample)

    @app.get("/sign-in")
    def begin() -> str:
        flow = names["build_client"](None).initiate_auth_code_flow(["api-1"], redirect_uri="https://app/callback")
        flask.session["flow"] = flow
        return str(flow["auth_uri"])

    @app.get("/callback")
    def callback() -> str:
        sample["authorized"]()
        return "signed in"

    @app.get("/api")
    def api() -> str:
        return sample["get_token"](["api-1"])["access_token"] if "user" in flask.session else "not signed in"

    browser = app.test_client()
    alice = someone(sid=sid and someone()["sid"])
    browser.get("/callback", query_string=answer_to(query_of(browser.get("/sign-in").text), alice))
    assert browser.get("/api").text.startswith("at-")
    world.sign_out(**({"sid": alice["sid"]} if sid else {"subject": alice["subject"]}))
    assert browser.get("/api").text == "not signed in"
    sample["cache"].close()


def test_the_names_on_the_page_exist() -> None:
    for name in re.findall(r"\bcache\.(\w+)\(", PAGE):
        if name not in ("serialize", "deserialize"):
            assert callable(getattr(SharedTokenCache, name)), name
    errors = re.findall(r"^\| `(\w+)`.*?\| `(ERR_\w+)` \|", PAGE, re.MULTILINE)
    assert len(errors) == 6
    for name, code in errors:
        assert getattr(msal_logout, name).code == code
    exported = {name for name, value in vars(msal_logout).items() if inspect.isclass(value)}
    assert {name for name, _ in errors} <= exported


def test_links() -> None:
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", PAGE):
        assert (ROOT / "docs" / target).exists(), target


def query_of(url: str) -> dict[str, str]:
    return dict(urllib.parse.parse_qsl(urllib.parse.urlsplit(url).query))


def answer_to(asked: dict[str, str], person: dict[str, Any]) -> dict[str, str]:
    return {"state": asked["state"], "code": encode({**person, "nonce": asked["nonce"]})}

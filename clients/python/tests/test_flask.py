from __future__ import annotations

import urllib.parse
from typing import Any

import flask
import pytest
import requests

from conftest import World
from msal_logout import SharedTokenCache
from msal_logout.flask import FlaskSignIn, guard
from provider import ISSUER, Provider, encode, someone

HTML = {"Accept": "text/html"}


@pytest.fixture
def app(cache: SharedTokenCache, provider: Provider) -> flask.Flask:
    app = flask.Flask("test")
    app.config.update(SECRET_KEY="secret", TESTING=True)
    sign_in = FlaskSignIn(app, cache, provider.client, ["api-1"], claims=["sub"])

    @app.get("/")
    def home() -> str:
        user = sign_in.user
        return f"signed in as {user['home_account_id']} {user['claims']}" if user else "not signed in"

    @app.get("/api")
    @sign_in.required
    def api() -> str:
        return sign_in.token()

    @app.get("/other")
    def other() -> str:
        return sign_in.token(["api-2"])

    @app.get("/async")
    @sign_in.required
    async def later() -> str:
        return "signed in"

    @app.post("/post")
    @sign_in.required
    def post() -> str:
        return "posted"

    return app


def begin(browser: Any, **query: str) -> dict[str, str]:
    """The query of the authorization request."""
    answer = browser.get("/sign-in", query_string=query)
    assert answer.status_code == 302
    assert answer.headers["Cache-Control"] == "no-store"
    return dict(urllib.parse.parse_qsl(urllib.parse.urlsplit(answer.location).query))


def complete(browser: Any, asked: dict[str, str], person: dict[str, Any], **changes: str) -> Any:
    query = {"state": asked["state"], "code": encode({**person, "nonce": asked["nonce"]}), **changes}
    return browser.get("/callback", query_string=query)


def sign_in(browser: Any, person: dict[str, Any], **query: str) -> Any:
    return complete(browser, begin(browser, **query), person)


def test_a_user_signs_in_and_calls_an_api(app: flask.Flask, provider: Provider) -> None:
    alice = someone()
    browser = app.test_client()
    asked = begin(browser)
    assert asked["redirect_uri"] == "http://localhost/callback"
    assert asked["code_challenge_method"] == "S256"
    assert "offline_access" in asked["scope"]
    assert complete(browser, asked, alice).location == "/"
    home = browser.get("/").text
    assert home == f"signed in as {alice['homeAccountId']} {{'sub': '{alice['subject']}'}}"
    assert browser.get("/api").text.startswith("at-")
    assert browser.get("/other").text.startswith("at-")
    assert browser.get("/async").text == "signed in"
    assert provider.requests == 2


def test_a_sign_out_elsewhere_ends_the_session_with_the_next_request(app: flask.Flask, world: World) -> None:
    alice = someone()
    browser, other = app.test_client(), app.test_client()
    sign_in(browser, alice)
    sign_in(other, someone())
    world.sign_out(sid=alice["sid"])
    assert browser.get("/").text == "not signed in"
    with browser.session_transaction() as session:
        assert dict(session) == {}
    assert other.get("/").text.startswith("signed in")


def test_a_sign_out_during_the_request_ends_the_session(app: flask.Flask, provider: Provider, world: World) -> None:
    alice = someone()
    browser = app.test_client()
    sign_in(browser, alice)
    provider.before_answer = lambda _: world.sign_out(sid=alice["sid"])
    assert browser.get("/other").status_code == 401
    assert browser.get("/").text == "not signed in"


def test_who_is_not_signed_in_is_sent_to_sign_in_and_comes_back(app: flask.Flask) -> None:
    browser = app.test_client()
    assert browser.get("/api").status_code == 401
    assert browser.post("/post", headers=HTML).status_code == 401
    answer = browser.get("/api?x=1", headers=HTML)
    assert answer.location == "/sign-in?return_to=/api?x%3D1"
    asked = begin(browser, return_to="/api?x=1")
    assert complete(browser, asked, someone()).location == "/api?x=1"


@pytest.mark.parametrize("return_to", ["https://evil.example/", "//evil.example", "/\\evil.example", "/\t/evil", "x"])
def test_another_site_is_not_followed(app: flask.Flask, return_to: str) -> None:
    browser = app.test_client()
    assert complete(browser, begin(browser, return_to=return_to), someone()).location == "/"


def test_two_tabs_sign_in_and_a_few_are_remembered(app: flask.Flask) -> None:
    browser = app.test_client()
    tabs = [begin(browser) for _ in range(6)]
    assert complete(browser, tabs[0], someone()).status_code == 400
    assert complete(browser, tabs[2], someone()).status_code == 302


def test_a_callback_that_is_none_of_this_browsers(app: flask.Flask, world: World) -> None:
    browser = app.test_client()
    alice = someone()
    asked = begin(app.test_client())
    for query in ({}, {"state": asked["state"]}, {"code": "x"}):
        assert browser.get("/callback", query_string=query).status_code == 400
    assert complete(browser, asked, alice).status_code == 400
    own = begin(browser)
    assert complete(browser, {**own, "nonce": "another"}, alice).status_code == 400
    rejected = browser.get("/callback", query_string={"state": own["state"], "error": "access_denied"})
    assert rejected.status_code == 400
    assert world.row(alice["homeAccountId"]) is None
    assert browser.get("/").text == "not signed in"


def test_a_sign_in_that_lost_against_its_sign_out(app: flask.Flask, provider: Provider, world: World) -> None:
    alice = someone()
    browser = app.test_client()
    asked = begin(browser)
    provider.before_answer = lambda _: world.sign_out(sid=alice["sid"])
    assert complete(browser, asked, {**alice, "issuedAt": 1_700_000_000}).status_code == 401
    assert browser.get("/").text == "not signed in"
    assert world.row(alice["homeAccountId"]) is None


def test_a_user_signs_out(app: flask.Flask, world: World) -> None:
    alice = someone()
    browser = app.test_client()
    sign_in(browser, alice)
    location = urllib.parse.urlsplit(browser.get("/sign-out").location)
    assert f"{location.scheme}://{location.netloc}{location.path}" == f"{ISSUER}/end"
    query = dict(urllib.parse.parse_qsl(location.query))
    assert query == {"client_id": "client-a", "post_logout_redirect_uri": "http://localhost"}
    assert world.row(alice["homeAccountId"]) is None
    assert browser.get("/").text == "not signed in"
    assert browser.get("/sign-out").location == "http://localhost/"


def test_a_user_signs_out_while_the_provider_is_down(app: flask.Flask, provider: Provider, world: World) -> None:
    alice = someone()
    browser = app.test_client()
    sign_in(browser, alice)

    def get(*_: Any, **__: Any) -> Any:
        raise requests.ConnectionError

    provider.get = get  # type: ignore[method-assign]
    assert browser.get("/sign-out").location == "http://localhost"
    assert world.row(alice["homeAccountId"]) is None


def test_another_user_finds_nothing_of_the_one_before(app: flask.Flask) -> None:
    alice = someone()
    browser = app.test_client()
    with browser.session_transaction() as session:
        session["cart"] = "before the sign-in"
    sign_in(browser, alice)
    sign_in(browser, alice)
    with browser.session_transaction() as session:
        assert session["cart"] == "before the sign-in"
    sign_in(browser, someone())
    with browser.session_transaction() as session:
        assert set(session) == {"msal_logout_user"}


def test_no_token_is_in_the_session(app: flask.Flask) -> None:
    browser = app.test_client()
    sign_in(browser, someone())
    browser.get("/api")
    with browser.session_transaction() as session:
        assert set(session) == {"msal_logout_user"}
        assert set(session["msal_logout_user"]) == {"home_account_id", "issuer", "sid", "subject", "claims"}


def test_the_guard_alone(cache: SharedTokenCache, provider: Provider, world: World) -> None:
    app = flask.Flask("guarded")
    app.config.update(SECRET_KEY="secret")
    session = flask.session
    guard(
        app,
        lambda: "user" not in session or cache.is_session_active(session["user"]["issuer"], session["user"]["sid"]),
    )
    alice = someone()

    @app.get("/sign-in")
    def begin() -> str:
        with cache.login() as tokens:
            provider.redeem(tokens, alice)
        session["user"] = tokens.user
        return "ok"

    @app.get("/")
    def home() -> str:
        return "signed in" if "user" in session else "not signed in"

    browser = app.test_client()
    browser.get("/sign-in")
    assert browser.get("/").text == "signed in"
    world.sign_out(sid=alice["sid"])
    assert browser.get("/").text == "not signed in"

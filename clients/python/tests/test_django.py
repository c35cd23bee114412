from __future__ import annotations

import urllib.parse
from typing import Any

import pytest

from conftest import World, configure_django, middleware, statement_with, urlpatterns
from msal_logout import SharedTokenCache, TokenCacheMisuse
from provider import CLIENT_ID, ISSUER, Provider, encode, someone

HTML = {"accept": "text/html"}
signed_in: list[str] = []
provider = Provider()


@pytest.fixture(scope="module")
def cache(database_url: str) -> Any:
    configure_django(database_url)
    from django.http import HttpResponse
    from django.urls import path

    from msal_logout.django import DjangoSignIn, connections

    cache = SharedTokenCache(connections(), CLIENT_ID)
    sign_in = DjangoSignIn(
        cache,
        lambda token_cache: provider.client(token_cache),
        ["api-1"],
        on_sign_in=lambda _, user: signed_in.append(user["home_account_id"]),
    )

    def home(request: Any) -> HttpResponse:
        user = sign_in.user(request)
        return HttpResponse(f"signed in as {user['home_account_id']}" if user else "not signed in")

    @sign_in.required
    def api(request: Any) -> HttpResponse:
        return HttpResponse(sign_in.token(request))

    def other(request: Any) -> HttpResponse:
        return HttpResponse(sign_in.token(request, ["api-2"]))

    middleware.append(sign_in.middleware)
    urlpatterns.extend([path("", home), path("api", api), path("other", other), *sign_in.urls])
    yield cache
    cache.close()


@pytest.fixture
def browser(cache: SharedTokenCache) -> Any:
    from django.test import Client

    provider.before_answer = lambda _: None
    return Client(raise_request_exception=True)


def sign_in(browser: Any, person: dict[str, Any], return_to: str = "/") -> Any:
    answer = browser.get("/sign-in", {"return_to": return_to})
    asked = dict(urllib.parse.parse_qsl(urllib.parse.urlsplit(answer.headers["Location"]).query))
    assert asked["redirect_uri"] == "http://testserver/callback"
    code = encode({**person, "nonce": asked["nonce"]})
    return browser.get("/callback", {"state": asked["state"], "code": code})


def test_a_user_signs_in_and_calls_an_api(browser: Any) -> None:
    alice = someone()
    assert sign_in(browser, alice, "/api").headers["Location"] == "/api"
    assert browser.get("/").content.decode() == f"signed in as {alice['homeAccountId']}"
    assert browser.get("/api").content.startswith(b"at-")
    assert signed_in[-1] == alice["homeAccountId"]


def test_a_sign_out_elsewhere_ends_the_session_with_the_next_request(browser: Any, world: World) -> None:
    alice = someone()
    sign_in(browser, alice)
    world.sign_out(sid=alice["sid"])
    assert browser.get("/").content == b"not signed in"


def test_a_sign_out_during_the_request_ends_the_session(browser: Any, world: World) -> None:
    alice = someone()
    sign_in(browser, alice)
    provider.before_answer = lambda _: world.sign_out(sid=alice["sid"])
    assert browser.get("/other").status_code == 401
    assert browser.get("/").content == b"not signed in"


def test_who_is_not_signed_in_is_sent_to_sign_in(browser: Any) -> None:
    assert browser.get("/api").status_code == 401
    assert browser.get("/api?x=1", headers=HTML).headers["Location"] == "/sign-in?return_to=%2Fapi%3Fx%3D1"


def test_a_callback_that_is_none_of_this_browsers(browser: Any) -> None:
    assert browser.get("/callback", {"state": "x", "code": "y"}).status_code == 400


def test_another_user_finds_nothing_of_the_one_before(browser: Any) -> None:
    sign_in(browser, someone())
    session = browser.session
    session["cart"] = "hers"
    session.save()
    browser.cookies["sessionid"] = session.session_key
    sign_in(browser, someone())
    assert "cart" not in browser.session


def test_a_user_signs_out(browser: Any, world: World) -> None:
    alice = someone()
    sign_in(browser, alice)
    assert browser.get("/sign-out").headers["Location"].startswith(f"{ISSUER}/end?client_id=client-a&")
    assert world.row(alice["homeAccountId"]) is None
    assert browser.get("/").content == b"not signed in"


def test_tokens_are_in_no_statement(cache: SharedTokenCache) -> None:
    """PostgreSQL may log statements; Django's cursors write parameters into them."""
    from msal_logout.django import connections

    assert "a token" not in statement_with("a token", connections())


def test_djangos_own_connection_is_rejected(cache: SharedTokenCache) -> None:
    from django.db import connection, connections

    for database in (connection, connections["default"]):
        with pytest.raises(TokenCacheMisuse, match=r"use msal_logout\.django\.connections\(\)"):
            SharedTokenCache(database, CLIENT_ID)

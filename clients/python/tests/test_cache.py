"""The shared cache with a real MSAL Python, PostgreSQL and the service."""

from __future__ import annotations

import json
import threading
from typing import Any

import pytest

from conftest import World
from msal_logout import (
    Encryption,
    SharedTokenCache,
    SignedOut,
    TokenCacheMisuse,
    is_sign_in_required,
)
from provider import (
    CLIENT_ID,
    ENTRA_AUTHORITY,
    ISSUER,
    KNOWS_ANY_PROVIDER,
    MSAL_VERSION,
    Provider,
    decode,
    jwt,
    now,
    someone,
)

KEYS = {"k1": b"1" * 32, "k2": b"2" * 32}


def sign_in(cache: SharedTokenCache, provider: Provider, person: dict[str, Any]) -> dict[str, Any]:
    with cache.login() as tokens:
        provider.redeem(tokens, person)
    return dict(tokens.user)


def targets(stored: dict[str, Any] | None) -> list[str]:
    assert stored is not None
    reserved = {"openid", "profile", "offline_access"}
    return sorted(
        scope for token in stored["AccessToken"].values() for scope in token["target"].split() if scope not in reserved
    )


def test_a_login_makes_the_row_and_a_silent_request_is_served_from_it(
    cache: SharedTokenCache, provider: Provider
) -> None:
    alice = someone()
    user = sign_in(cache, provider, alice)
    assert user == {
        "home_account_id": alice["homeAccountId"],
        "issuer": ISSUER,
        "sid": alice["sid"],
        "subject": alice["subject"],
    }
    with cache.account(user["home_account_id"]) as tokens:
        result = provider.silent(tokens)
    assert result is not None
    assert result["access_token"].startswith("at-")
    assert provider.requests == 1
    assert cache.is_session_active(ISSUER, alice["sid"])
    assert not cache.is_session_active(ISSUER, "another")


def test_an_account_of_a_provider_without_client_info(cache: SharedTokenCache, provider: Provider) -> None:
    if not KNOWS_ANY_PROVIDER:
        with pytest.raises(TypeError, match="oidc_authority"):
            Provider(entra=False).client()
        return
    subject = someone()["subject"] + "|AbC"
    alice = someone(homeAccountId=subject, subject=subject)
    user = sign_in(cache, provider, alice)
    assert user["home_account_id"] == subject
    with cache.account(subject) as tokens:
        assert provider.silent(tokens, ("api-2",)) is not None


def test_a_refresh_is_saved_and_an_expired_access_token_goes(
    cache: SharedTokenCache, provider: Provider, world: World
) -> None:
    alice = someone()
    provider.expires_in = -5
    sign_in(cache, provider, alice)
    provider.expires_in = 3600
    with cache.account(alice["homeAccountId"]) as tokens:
        assert provider.silent(tokens, ("api-2",)) is not None
    assert targets(world.stored(alice["homeAccountId"])) == ["api-2"]
    assert provider.requests == 2


def test_a_silent_request_from_the_cache_writes_nothing(
    cache: SharedTokenCache, provider: Provider, world: World
) -> None:
    alice = someone()
    sign_in(cache, provider, alice)
    version = "select version from msal_logout.token_cache where partition_key = %s"
    before = world.query(version, alice["homeAccountId"])
    for _ in range(3):
        with cache.account(alice["homeAccountId"]) as tokens:
            provider.silent(tokens)
    assert world.query(version, alice["homeAccountId"]) == before


def test_no_row_is_a_sign_out(cache: SharedTokenCache) -> None:
    with pytest.raises(SignedOut) as raised, cache.account("nobody.t"):
        pytest.fail("the block does not begin")
    assert raised.value.code == "ERR_SIGNED_OUT"
    assert is_sign_in_required(raised.value)


def test_a_sign_out_during_a_refresh_is_not_undone(cache: SharedTokenCache, provider: Provider, world: World) -> None:
    alice = someone()
    sign_in(cache, provider, alice)
    provider.before_answer = lambda _: world.sign_out(sid=alice["sid"])
    with pytest.raises(SignedOut), cache.account(alice["homeAccountId"]) as tokens:
        assert provider.silent(tokens, force_refresh=True) is not None
    assert world.row(alice["homeAccountId"]) is None


def test_a_sign_out_before_the_save_is_not_undone(cache: SharedTokenCache, provider: Provider, world: World) -> None:
    alice = someone()
    sign_in(cache, provider, alice)
    with pytest.raises(SignedOut), cache.account(alice["homeAccountId"]) as tokens:
        provider.silent(tokens, force_refresh=True)
        world.sign_out(subject=alice["subject"])
    assert world.row(alice["homeAccountId"]) is None


def test_a_sign_out_while_the_code_is_redeemed_wins(cache: SharedTokenCache, provider: Provider, world: World) -> None:
    alice = someone()
    provider.before_answer = lambda _: world.sign_out(sid=alice["sid"])
    with pytest.raises(SignedOut), cache.login() as tokens:
        provider.redeem(tokens, {**alice, "issuedAt": now() - 5})
    assert world.row(alice["homeAccountId"]) is None
    with pytest.raises(TokenCacheMisuse, match="nobody has signed in"):
        _ = tokens.user


def test_a_refresh_of_the_session_before_never_touches_the_next_login(
    cache: SharedTokenCache, provider: Provider, world: World
) -> None:
    alice = someone(issuedAt=now() - 60)
    sign_in(cache, provider, alice)

    def meanwhile(_: str) -> None:
        provider.before_answer = lambda _: None
        world.sign_out(sid=alice["sid"])
        sign_in(cache, provider, {**alice, "sid": alice["sid"] + "-next", "issuedAt": now() + 5})

    provider.before_answer = meanwhile
    with pytest.raises(SignedOut), cache.account(alice["homeAccountId"]) as tokens:
        provider.silent(tokens, force_refresh=True)
    stored = world.stored(alice["homeAccountId"])
    assert stored is not None
    [token] = stored["RefreshToken"].values()
    assert decode(token["secret"])["sid"] == alice["sid"] + "-next"


def test_concurrent_refreshes_for_different_resources_lose_no_token(
    cache: SharedTokenCache, provider: Provider, world: World
) -> None:
    alice = someone()
    sign_in(cache, provider, alice)
    barrier = threading.Barrier(8)
    errors: list[BaseException] = []

    def refresh(scope: str) -> None:
        try:
            with cache.account(alice["homeAccountId"]) as tokens:
                barrier.wait(30)
                Provider().silent(tokens, (scope,))
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=refresh, args=(f"resource-{i}",)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert targets(world.stored(alice["homeAccountId"])) == ["api-1", *[f"resource-{i}" for i in range(8)]]


def test_a_row_keeps_one_refresh_token(cache: SharedTokenCache, provider: Provider, world: World) -> None:
    alice = someone()
    sign_in(cache, provider, alice)
    for scope in ("api-2", "api-3"):
        with cache.account(alice["homeAccountId"]) as tokens:
            provider.silent(tokens, (scope,), force_refresh=True)
    stored = world.stored(alice["homeAccountId"])
    assert stored is not None
    assert len(stored["RefreshToken"]) == 1
    assert len(stored["IdToken"]) == 1


def test_a_refresh_without_an_id_token_keeps_what_it_brought(
    cache: SharedTokenCache, provider: Provider, world: World
) -> None:
    """OIDC Core 1.0 section 12.2: the answer to a refresh need not have one."""
    alice = someone()
    sign_in(cache, provider, alice)
    rotated: list[str] = []

    def change(answer: dict[str, Any]) -> dict[str, Any]:
        rotated.append(answer["refresh_token"])
        return {name: value for name, value in answer.items() if name not in ("id_token", "client_info")}

    provider.change = change
    with cache.account(alice["homeAccountId"]) as tokens:
        provider.silent(tokens, ("api-2",))
    stored = world.stored(alice["homeAccountId"])
    assert stored is not None
    assert [token["secret"] for token in stored["RefreshToken"].values()] == rotated
    assert targets(stored) == ["api-1", "api-2"]
    with cache.account(alice["homeAccountId"]) as tokens:
        provider.silent(tokens, ("api-2",))
    assert provider.requests == 2


def test_an_exception_in_the_block_loses_no_rotated_refresh_token(
    cache: SharedTokenCache, provider: Provider, world: World
) -> None:
    alice = someone()
    sign_in(cache, provider, alice)
    with pytest.raises(ZeroDivisionError), cache.account(alice["homeAccountId"]) as tokens:
        provider.silent(tokens, ("api-2",))
        _ = 1 / 0
    assert targets(world.stored(alice["homeAccountId"])) == ["api-1", "api-2"]


def test_an_exception_in_the_login_stores_nothing(cache: SharedTokenCache, provider: Provider, world: World) -> None:
    alice = someone()
    with pytest.raises(PermissionError), cache.login() as tokens:
        provider.redeem(tokens, alice)
        raise PermissionError("not of our tenant")
    assert world.row(alice["homeAccountId"]) is None


def test_two_users_in_any_order_have_their_own_entities_only(
    cache: SharedTokenCache, provider: Provider, world: World
) -> None:
    people = [someone(), someone()]
    for person in people:
        sign_in(cache, provider, person)
    for i, person in enumerate(people * 2):
        with cache.account(person["homeAccountId"]) as tokens:
            provider.silent(tokens, (f"r-{i}",))
    for person in people:
        stored = world.stored(person["homeAccountId"])
        assert stored is not None
        for section in ("Account", "IdToken", "AccessToken", "RefreshToken"):
            owners = {entity["home_account_id"] for entity in stored[section].values()}
            assert owners == {person["homeAccountId"]}, section


def test_a_rejected_refresh_asks_for_a_sign_in(cache: SharedTokenCache, provider: Provider) -> None:
    alice = someone()
    sign_in(cache, provider, alice)
    provider.post = lambda *_, **__: _answer({"error": "invalid_grant", "suberror": "basic_action"})  # type: ignore[method-assign]
    with cache.account(alice["homeAccountId"]) as tokens:
        client = provider.client(tokens)
        result = client.acquire_token_silent_with_error(["api-2"], client.get_accounts()[0])
    assert is_sign_in_required(result)
    assert not is_sign_in_required({"error": "temporarily_unavailable"})
    assert not is_sign_in_required({"access_token": "x"})
    assert is_sign_in_required(None)
    assert not is_sign_in_required(ValueError("x"))


def _answer(body: dict[str, Any]) -> Any:
    from provider import Answer

    return Answer(body, 400)


def test_removing_the_account_forgets_its_row(cache: SharedTokenCache, provider: Provider, world: World) -> None:
    alice, bob = someone(), someone()
    for person in (alice, bob):
        sign_in(cache, provider, person)
    with cache.account(alice["homeAccountId"]) as tokens:
        client = provider.client(tokens)
        client.remove_account(client.get_accounts()[0])
    assert world.row(alice["homeAccountId"]) is None
    assert cache.remove_account(bob["homeAccountId"]) is True
    assert cache.remove_account(bob["homeAccountId"]) is False
    assert not cache.is_session_active(ISSUER, bob["sid"])


def test_a_further_session_in_a_refresh_is_registered(
    cache: SharedTokenCache, provider: Provider, world: World
) -> None:
    alice = someone()
    sign_in(cache, provider, alice)
    provider.claims = {"sid": alice["sid"] + "-other"}
    with cache.account(alice["homeAccountId"]) as tokens:
        provider.silent(tokens, force_refresh=True)
    assert cache.is_session_active(ISSUER, alice["sid"] + "-other")
    world.sign_out(sid=alice["sid"] + "-other")
    assert world.row(alice["homeAccountId"]) is None


def test_a_refresh_whose_id_token_has_no_sid_leaves_the_session_as_it_is(
    cache: SharedTokenCache, provider: Provider, world: World, warnings: list[str]
) -> None:
    alice = someone()
    sign_in(cache, provider, alice)

    def change(answer: dict[str, Any]) -> dict[str, Any]:
        claims = decode(answer["id_token"].split(".")[1])
        del claims["sid"]
        return {**answer, "id_token": jwt(claims)}

    provider.change = change
    for scope in ("api-2", "api-3"):
        with cache.account(alice["homeAccountId"]) as tokens:
            provider.silent(tokens, (scope,), force_refresh=True)
    assert warnings == []
    world.sign_out(sid=alice["sid"])
    assert world.row(alice["homeAccountId"]) is None


def test_a_login_without_a_sid_is_found_by_its_subject_and_warned_of_once(
    cache: SharedTokenCache, provider: Provider, world: World, warnings: list[str]
) -> None:
    people = [someone(sid=None), someone(sid=None)]
    for person in people:
        user = sign_in(cache, provider, person)
        assert user["sid"] is None
        assert cache.is_session_active(ISSUER, None, person["subject"])
    assert len(warnings) == 1
    assert 'optional claim "sid"' in warnings[0]
    world.sign_out(subject=people[0]["subject"])
    assert world.row(people[0]["homeAccountId"]) is None
    assert not cache.is_session_active(ISSUER, None, people[0]["subject"])
    with pytest.raises(TokenCacheMisuse, match='"sid", or by its "subject"'):
        cache.is_session_active(ISSUER, None)


class TestClientCredentials:
    def test_they_have_a_row_of_their_own(self, cache: SharedTokenCache, provider: Provider, world: World) -> None:
        key = someone()["homeAccountId"]
        tokens = []
        for _ in range(2):
            with cache.app(key) as app:
                tokens.append(provider.client(app).acquire_token_for_client(["x/.default"])["access_token"])
        row = world.row(key)
        assert row is not None
        assert row[0] == "app"
        if MSAL_VERSION >= (1, 23):  # older ones do not look into the cache themselves
            assert tokens[0] == tokens[1]
            assert provider.requests == 1

    def test_encrypted(self, pool: Any, provider: Provider, world: World) -> None:
        cache = SharedTokenCache(pool, CLIENT_ID, encryption=Encryption("k1", KEYS))
        key = someone()["homeAccountId"]
        for _ in range(2):
            with cache.app(key) as app:
                provider.client(app).acquire_token_for_client(["x/.default"])
        row = world.row(key)
        assert row is not None
        assert row[2] == "gzip+a256gcm:k1"
        assert provider.requests == (1 if MSAL_VERSION >= (1, 23) else 2)

    def test_what_has_expired_goes(self, cache: SharedTokenCache, provider: Provider, world: World) -> None:
        key = someone()["homeAccountId"]
        provider.expires_in = -5
        with cache.app(key) as app:
            provider.client(app).acquire_token_for_client(["x/.default"])
        provider.expires_in = 3600
        with cache.app(key) as app:
            provider.client(app).acquire_token_for_client(["y/.default"])
        assert targets(world.stored(key)) == ["y/.default"]


class TestOnBehalfOf:
    def ask(self, cache: SharedTokenCache, provider: Provider, assertion: str) -> dict[str, Any]:
        with cache.assertion(assertion) as tokens:
            return tokens.acquire_token(provider.client(tokens), ["downstream"])

    def assertion_of(self, person: dict[str, Any]) -> str:
        return jwt({**person, "iss": ISSUER, "sub": person["subject"], "iat": now() - 60, "aud": "api"})

    def test_its_row_is_found_by_a_sign_out_of_the_account(
        self, cache: SharedTokenCache, provider: Provider, world: World
    ) -> None:
        alice = someone()
        assertion = self.assertion_of(alice)
        first, second = self.ask(cache, provider, assertion), self.ask(cache, provider, assertion)
        assert first["access_token"] == second["access_token"]
        assert provider.requests == 1
        query = "select kind from msal_logout.token_cache where home_account_id = %s"
        assert world.query(query, alice["homeAccountId"]) == [("obo",)]
        world.sign_out(sid=alice["sid"])
        assert world.query(query, alice["homeAccountId"]) == []

    def test_an_assertion_from_before_the_sign_out_makes_no_new_row(
        self, cache: SharedTokenCache, provider: Provider, world: World
    ) -> None:
        alice = someone()
        assertion = self.assertion_of(alice)
        self.ask(cache, provider, assertion)
        world.sign_out(sid=alice["sid"])
        with pytest.raises(SignedOut):
            self.ask(cache, provider, assertion)
        assert (
            world.query("select 1 from msal_logout.token_cache where home_account_id = %s", alice["homeAccountId"])
            == []
        )

    def test_a_sign_out_meanwhile(self, cache: SharedTokenCache, provider: Provider, world: World) -> None:
        alice = someone()
        assertion = self.assertion_of(alice)
        self.ask(cache, provider, assertion)
        with pytest.raises(SignedOut), cache.assertion(assertion) as tokens:
            provider.silent(tokens, ("other",))
            world.sign_out(sid=alice["sid"])

    def test_what_the_provider_rejects_is_not_stored(
        self, cache: SharedTokenCache, provider: Provider, world: World
    ) -> None:
        alice = someone(error="invalid_grant")
        assert self.ask(cache, provider, self.assertion_of(alice))["error"] == "invalid_grant"


class TestEncryption:
    def make(self, pool: Any, warnings: list[str], current: str = "k1", **options: Any) -> SharedTokenCache:
        encryption = Encryption(current, options.pop("keys", KEYS), **options)
        return SharedTokenCache(pool, CLIENT_ID, encryption=encryption, on_warning=warnings.append)

    def test_login_refresh_second_login_and_a_new_key(
        self, pool: Any, provider: Provider, world: World, warnings: list[str]
    ) -> None:
        alice = someone()
        first, second = self.make(pool, warnings), self.make(pool, warnings, "k2")
        sign_in(first, provider, alice)
        with first.account(alice["homeAccountId"]) as tokens:
            provider.silent(tokens, ("api-2",))
        row = world.row(alice["homeAccountId"])
        assert row is not None
        assert row[2] == "gzip+a256gcm:k1"
        assert b"home_account_id" not in row[1]
        with second.account(alice["homeAccountId"]) as tokens:
            provider.silent(tokens, ("api-3",))
        row = world.row(alice["homeAccountId"])
        assert row is not None
        assert row[2] == "gzip+a256gcm:k2"
        sign_in(first, provider, {**alice, "sid": alice["sid"] + "-2"})
        requests = provider.requests
        with second.account(alice["homeAccountId"]) as tokens:
            assert provider.silent(tokens) is not None
        assert provider.requests == requests
        assert warnings == []

    def test_no_transaction_is_open_while_a_login_is_encrypted(
        self, pool: Any, provider: Provider, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        cache = SharedTokenCache(pool, CLIENT_ID, encryption=Encryption("k1", KEYS))
        encode = cache._codec.encode
        open_ones: list[Any] = []

        def look(*args: Any) -> Any:
            open_ones.extend(
                world.query(
                    "select state, query from pg_stat_activity where xact_start is not null"
                    " and pid <> pg_backend_pid() and datname = current_database() and backend_type = 'client backend'"
                    " and query like '%%msal_logout.login(client_id%%'"
                )
            )
            return encode(*args)

        monkeypatch.setattr(cache._codec, "encode", look)
        sign_in(cache, provider, someone())
        assert open_ones == []

    def test_a_login_whose_row_goes_before_its_payload_comes(
        self, pool: Any, provider: Provider, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        cache = SharedTokenCache(pool, CLIENT_ID, encryption=Encryption("k1", KEYS))
        alice = someone(issuedAt=now() - 5)
        encode = cache._codec.encode

        def meanwhile(*args: Any) -> Any:
            world.sign_out(sid=alice["sid"])
            return encode(*args)

        monkeypatch.setattr(cache._codec, "encode", meanwhile)
        with pytest.raises(SignedOut):
            sign_in(cache, provider, alice)
        assert world.row(alice["homeAccountId"]) is None

    def test_two_first_logins_at_once_both_stay(
        self, pool: Any, provider: Provider, world: World, monkeypatch: pytest.MonkeyPatch, warnings: list[str]
    ) -> None:
        cache, other = self.make(pool, warnings), self.make(pool, warnings)
        alice = someone()
        encode = cache._codec.encode

        def meanwhile(*args: Any) -> Any:
            monkeypatch.setattr(cache._codec, "encode", encode)
            sign_in(other, provider, {**alice, "sid": alice["sid"] + "-2"})
            return encode(*args)

        monkeypatch.setattr(cache._codec, "encode", meanwhile)
        sign_in(cache, provider, alice)
        with cache.account(alice["homeAccountId"]) as tokens:
            assert provider.silent(tokens) is not None
        assert cache.is_session_active(ISSUER, alice["sid"])
        assert cache.is_session_active(ISSUER, alice["sid"] + "-2")
        assert warnings == []

    def test_a_wrong_key_counts_as_empty_and_says_so_once(
        self, pool: Any, provider: Provider, warnings: list[str]
    ) -> None:
        alice = someone()
        sign_in(self.make(pool, []), provider, alice)
        other = self.make(pool, warnings, keys={"k1": b"x" * 32})
        for _ in range(2):
            with other.account(alice["homeAccountId"]) as tokens:
                assert provider.silent(tokens) is None
        assert len(warnings) == 1
        assert "another key" in warnings[0]
        sign_in(other, provider, alice)
        with other.account(alice["homeAccountId"]) as tokens:
            assert provider.silent(tokens) is not None

    def test_a_plain_row_under_encryption(self, pool: Any, provider: Provider, world: World) -> None:
        alice = someone()
        sign_in(SharedTokenCache(pool, CLIENT_ID), provider, alice)
        strict, lenient = [], []  # type: ignore[var-annotated]
        with self.make(pool, strict).account(alice["homeAccountId"]) as tokens:
            assert provider.silent(tokens) is None
        assert "allow_plain" in strict[0]
        with self.make(pool, lenient, allow_plain=True).account(alice["homeAccountId"]) as tokens:
            assert provider.silent(tokens) is not None
            assert provider.silent(tokens, ("api-2",)) is not None
        assert "allow_plain" in lenient[0]
        row = world.row(alice["homeAccountId"])
        assert row is not None
        assert row[2] == "gzip+a256gcm:k1"

    def test_a_row_moved_to_another_user(
        self, pool: Any, provider: Provider, world: World, warnings: list[str]
    ) -> None:
        cache = self.make(pool, warnings)
        alice, mallory = someone(), someone()
        for person in (alice, mallory):
            sign_in(cache, provider, person)
        world.query(
            "update msal_logout.token_cache t set payload = o.payload from msal_logout.token_cache o"
            " where t.partition_key = %s and o.partition_key = %s",
            mallory["homeAccountId"],
            alice["homeAccountId"],
        )
        with cache.account(mallory["homeAccountId"]) as tokens:
            assert provider.silent(tokens) is None
        assert len(warnings) == 1


def test_another_account_in_a_row_is_not_shown_to_msal(
    cache: SharedTokenCache, provider: Provider, world: World
) -> None:
    alice, bob = someone(), someone()
    for person in (alice, bob):
        sign_in(cache, provider, person)
    mixed = world.stored(alice["homeAccountId"])
    other = world.stored(bob["homeAccountId"])
    assert mixed is not None
    assert other is not None
    for section, entities in other.items():
        mixed[section].update(entities)
    world.query(
        "update msal_logout.token_cache set payload = %s where partition_key = %s",
        json.dumps(mixed).encode(),
        alice["homeAccountId"],
    )
    with cache.account(alice["homeAccountId"]) as tokens:
        accounts = provider.client(tokens).get_accounts()
    assert [account["home_account_id"] for account in accounts] == [alice["homeAccountId"]]


@pytest.mark.parametrize("payload", [b"[1]", b"{", b"\xff\xfe", b"[" * 100_000])
def test_a_row_that_is_no_cache_counts_as_empty(
    cache: SharedTokenCache, provider: Provider, world: World, warnings: list[str], payload: bytes
) -> None:
    alice = someone()
    sign_in(cache, provider, alice)
    world.query(
        "update msal_logout.token_cache set payload = %s where partition_key = %s", payload, alice["homeAccountId"]
    )
    with cache.account(alice["homeAccountId"]) as tokens:
        assert provider.silent(tokens) is None
    assert len(warnings) == 1


class TestMicrosoftAuthority:
    def test_the_whole_round(self, cache: SharedTokenCache, world: World) -> None:
        provider = Provider(entra=True)
        assert provider.authority == ENTRA_AUTHORITY
        alice = someone()
        sign_in(cache, provider, alice)
        for scopes in (("api-1",), ("api-2",)):
            with cache.account(alice["homeAccountId"]) as tokens:
                assert provider.silent(tokens, scopes) is not None
        assert provider.requests == 2
        world.sign_out(sid=alice["sid"])
        with pytest.raises(SignedOut), cache.account(alice["homeAccountId"]):
            pass

"""What is Python's own in the handling of a cache; the vectors have the rest."""

from __future__ import annotations

from msal_logout.contents import adopt_access_tokens, keep_one_of_each, session_of, shown_contents
from provider import jwt

TOKEN = {"home_account_id": "u.t", "client_id": "c"}


def refresh(secret: str, **more: str) -> dict[str, str]:
    return {**TOKEN, "secret": secret, **more}


def test_a_new_refresh_token_replaces_the_others_of_its_client_and_no_familys() -> None:
    base = {
        "RefreshToken": {
            "node": refresh("old"),
            "family": refresh("f", family_id="1"),
            "other": refresh("o", client_id="d"),
        }
    }
    ours = {"RefreshToken": {**base["RefreshToken"], "python": refresh("new")}}
    assert set(keep_one_of_each(base, ours, ours)["RefreshToken"]) == {"python", "family", "other"}
    assert keep_one_of_each(base, base, base) == base


def test_what_another_process_has_stored_meanwhile_goes_only_where_ours_is_the_same_thing() -> None:
    base = {"AccessToken": {"x": refresh("1", target="a b", realm="r")}}
    ours = {"AccessToken": {"x": refresh("2", target="a b", realm="r")}}
    stored = {
        "AccessToken": {
            "x": refresh("2", target="a b", realm="r"),
            "same, in another order": refresh("3", target="b a", realm="r", environment="elsewhere"),
            "other scopes": refresh("4", target="a", realm="r"),
            "another key": refresh("5", target="a b", realm="r", key_id="k"),
        }
    }
    assert set(keep_one_of_each(base, ours, stored)["AccessToken"]) == {"x", "other scopes", "another key"}


def test_id_tokens_are_told_apart_by_their_issuer() -> None:
    def token(issuer: str, realm: str, uti: str) -> dict[str, str]:
        return refresh(jwt({"iss": issuer, "uti": uti}), realm=realm)

    base = {"IdToken": {"node": token("a", "t", "1"), "guest": token("b", "t2", "1")}}
    ours = {"IdToken": {**base["IdToken"], "python": token("a", "tenant", "2")}}
    assert set(keep_one_of_each(base, ours, ours)["IdToken"]) == {"guest", "python"}


def test_one_metadata_of_an_app() -> None:
    base = {"AppMetadata": {"x": {"client_id": "c", "environment": "login.windows.net"}}}
    ours = {"AppMetadata": {**base["AppMetadata"], "y": {"client_id": "c", "environment": "login.microsoftonline.com"}}}
    assert set(keep_one_of_each(base, ours, ours)["AppMetadata"]) == {"y"}


def test_access_tokens_without_an_account_are_the_rows() -> None:
    contents = {"AccessToken": {"-env-accesstoken-c-r-s": {"home_account_id": None}, "k": {"home_account_id": "Other"}}}
    assert adopt_access_tokens(contents, "U.T") == {
        "AccessToken": {"u.t-env-accesstoken-c-r-s": {"home_account_id": "U.T"}, "k": {"home_account_id": "Other"}}
    }


def test_accounts_of_msal_node_are_shown_as_msal_python_knows_them() -> None:
    contents = {"Account": {"a": {"authority_type": "Generic"}, "b": {"authority_type": "ADFS"}}}
    assert shown_contents(contents)["Account"] == {"a": {"authority_type": "MSSTS"}, "b": {"authority_type": "ADFS"}}
    assert contents["Account"]["a"]["authority_type"] == "Generic"


def test_claims_that_are_no_numbers() -> None:
    claims = {"iss": "i", "sub": "s"}
    for issued_at in (True, float("inf"), float("-inf"), float("nan"), 1e300, "1", None):
        assert session_of({**claims, "iat": issued_at}) is None
    session = session_of({**claims, "iat": 1.9})
    assert session is not None
    assert session.issued_at == 1

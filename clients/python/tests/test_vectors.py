"""The vectors that every language's client passes."""

from __future__ import annotations

import base64
import json
import os
import pathlib
from typing import Any

import pytest

from msal_logout import Encryption, TokenCacheMisuse, TokenCacheTooLarge
from msal_logout.contents import merge_contents, own_contents, sessions_of
from msal_logout.encoding import MAX_BYTES, PLAIN_WARNING, UNDECODABLE_WARNING, Codec, Encoded, Place

FOLDER = pathlib.Path(__file__).parents[2] / "conformance" / "vectors"
PLACE = Place("client-a", "uid.utid", "42")
KEYS = {"k1": os.urandom(32), "k2": os.urandom(32)}


def vectors(name: str) -> list[Any]:
    cases = json.loads((FOLDER / f"{name}.json").read_text("utf-8"))["vectors"]
    return [pytest.param(case, id=case["name"]) for case in cases]


@pytest.mark.parametrize("case", vectors("encryption"))
def test_encryption(case: dict[str, Any]) -> None:
    warnings: list[str] = []
    encryption = None
    if case["current"] is not None:
        keys = {key_id: bytes.fromhex(key) for key_id, key in case["keys"].items()}
        encryption = Encryption(case["current"], keys, allow_plain=case.get("allowPlain", False))
    place = Place(case["place"]["clientId"], case["place"]["partitionKey"], case["place"]["generation"])
    encoded = Encoded(base64.b64decode(case["payload"]), case["encoding"])
    text = Codec(encryption, warnings.append).decode(encoded, place)
    assert (None if text is None else text.decode()) == case["text"]
    expected = {None: [], "plain": [PLAIN_WARNING], "undecodable": [UNDECODABLE_WARNING]}[case["warns"]]
    assert warnings == expected


@pytest.mark.parametrize("case", vectors("merge"))
def test_merge(case: dict[str, Any]) -> None:
    assert merge_contents(case["base"], case["ours"], case["theirs"]) == case["merged"]


@pytest.mark.parametrize("case", vectors("own"))
def test_own_contents(case: dict[str, Any]) -> None:
    assert own_contents(case["contents"], case["homeAccountId"], case["nowSeconds"]) == case["own"]


@pytest.mark.parametrize("case", vectors("sessions"))
def test_sessions(case: dict[str, Any]) -> None:
    sessions = sessions_of(case["contents"], case["clientId"])
    names = {"issuer": 0, "sid": 1, "subject": 2, "issuedAt": 3, "oid": 4, "tid": 5}
    assert [{name: session[i] for name, i in names.items()} for session in sessions] == case["sessions"]


def test_what_is_encoded_is_decoded_up_to_the_limit_and_rejected_beyond_it() -> None:
    for encryption in (None, Encryption("k1", KEYS)):
        codec = Codec(encryption, pytest.fail)
        largest = '"' + "x" * (MAX_BYTES - 2) + '"'
        assert codec.decode(codec.encode(largest, PLACE), PLACE) == largest.encode()
        with pytest.raises(TokenCacheTooLarge, match="16777216"):
            codec.encode(largest + " ", PLACE)


def test_a_payload_that_grows_beyond_the_limit_is_not_inflated() -> None:
    warnings: list[str] = []
    codec = Codec(Encryption("k1", KEYS), warnings.append)
    import gzip

    from msal_logout import encoding

    nonce = os.urandom(12)
    bomb = gzip.compress(b"x" * (MAX_BYTES + 1))
    sealed = encoding._cipher(KEYS["k1"]).encrypt(nonce, bomb, encoding._additional_data("k1", PLACE))
    payload = nonce + sealed[-16:] + sealed[:-16]
    assert codec.decode(Encoded(payload, "gzip+a256gcm:k1"), PLACE) is None
    assert warnings == [UNDECODABLE_WARNING]


def test_two_payloads_of_one_text_differ() -> None:
    codec = Codec(Encryption("k1", KEYS), pytest.fail)
    assert codec.encode("{}", PLACE).payload != codec.encode("{}", PLACE).payload


@pytest.mark.parametrize(
    ("current", "keys", "message"),
    [
        ("k", {}, "not among the keys"),
        ("k", {"k": b"short"}, "32 bytes, and has 5"),
        ("k", {"k": "x" * 32}, "must be bytes, and is str: decode it"),
        ("k", {"k": None}, "must be bytes, and is NoneType"),
        ("k", None, "keys by their ids"),
        ("k", [b"1" * 32], "keys by their ids"),
        (1, {1: b"1" * 32}, "keys by their ids"),
        (None, {"k": b"1" * 32}, "keys by their ids"),
    ],
)
def test_a_key_that_is_no_key(current: Any, keys: Any, message: str) -> None:
    with pytest.raises(TokenCacheMisuse, match=message):
        Encryption(current, keys)


def test_keys_are_in_no_text() -> None:
    assert KEYS["k1"].hex() not in repr(Encryption("k1", KEYS))
    assert "\\x" not in repr(Encryption("k1", KEYS))

"""The coding of payloads: JSON as it is, or compressed and encrypted with AES-256-GCM. ``clients/conformance`` has the
framing byte by byte, and vectors that every language's client passes."""

from __future__ import annotations

import gzip
import json
import os
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from .errors import TokenCacheMisuse, TokenCacheTooLarge

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

MAX_BYTES = 16 * 1024 * 1024
"""Far beyond any account's cache; what is larger is neither written nor read."""

_NONCE_BYTES = 12
_TAG_BYTES = 16
_PREFIX = "gzip+a256gcm:"
_GZIP = 31  # zlib's window bits for the gzip format

PLAIN_WARNING = (
    "a row is not encrypted although this client has keys: it is from before encryption, or somebody has put it there. "
    '"allow_plain" says whether such rows are read'
)
UNDECODABLE_WARNING = (
    "a row of the token cache cannot be decoded (another key, or damaged, or moved); it is treated as empty"
)


class Place(NamedTuple):
    """Where a payload stands; bound to the encrypted one, so that it cannot be moved to another place."""

    client_id: str
    partition_key: str
    generation: str


class Encoded(NamedTuple):
    payload: bytes
    encoding: str


@dataclass(frozen=True)
class Encryption:
    """Keys for AES-256-GCM.

    :param current: the id of the key that new payloads are encrypted with
    :param keys: keys by id, 32 bytes each; older ones stay until their rows have been re-written
    :param allow_plain: whether rows that are not encrypted are read. ``False``, the default: they count as empty, and
        their users sign in again. ``True`` is for the days in which encryption is introduced: anybody who can write to
        the table could put a row there
    :raises TokenCacheMisuse: where the current key is missing, or a key has not 32 bytes
    """

    current: str
    keys: Mapping[str, bytes]
    allow_plain: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.keys, Mapping) or not all(
            isinstance(key_id, str) for key_id in (self.current, *self.keys)
        ):
            raise TokenCacheMisuse('"keys" must be keys by their ids, as {"k1": …}, and "current" such an id')
        for key_id, key in self.keys.items():
            if not isinstance(key, (bytes, bytearray)):
                raise TokenCacheMisuse(
                    f'encryption key "{key_id}" must be bytes, and is {type(key).__name__}: '
                    "decode it, as by base64.b64decode or bytes.fromhex"
                )
            if len(key) != 32:
                raise TokenCacheMisuse(
                    f'encryption key "{key_id}" must have 32 bytes, and has {len(key)}: make one with os.urandom(32)'
                )
        if self.current not in self.keys:
            raise TokenCacheMisuse(f'encryption key "{self.current}" is current, and not among the keys')

    def __repr__(self) -> str:  # keys are no part of a log
        return f"Encryption(current={self.current!r}, keys={sorted(self.keys)!r}, allow_plain={self.allow_plain!r})"


class Codec:
    """Encodes and decodes payloads.

    :param warn: called with what an operator should mend
    """

    def __init__(self, encryption: Encryption | None, warn: Callable[[str], None]) -> None:
        self._encryption = encryption
        self._warn = warn
        self.binds_generation = encryption is not None

    def encode(self, text: str, place: Place) -> Encoded:
        """:raises TokenCacheTooLarge: where the text has more than 16 MiB"""
        data = text.encode()
        if len(data) > MAX_BYTES:
            raise TokenCacheTooLarge(
                f"the cache has {len(data)} bytes, and may have {MAX_BYTES}: look for what fills it (many resources, "
                "or ID tokens with very many groups)"
            )
        if self._encryption is None:
            return Encoded(data, "json")
        key_id = self._encryption.current
        nonce = os.urandom(_NONCE_BYTES)
        sealed = _cipher(self._encryption.keys[key_id]).encrypt(
            nonce, gzip.compress(data, mtime=0), _additional_data(key_id, place)
        )
        # `cryptography` puts the tag last, the framing puts it first.
        return Encoded(nonce + sealed[-_TAG_BYTES:] + sealed[:-_TAG_BYTES], _PREFIX + key_id)

    def decode(self, encoded: Encoded, place: Place) -> bytes | None:
        """The text, or ``None``, with a warning, where the payload cannot be decoded at this place with these keys."""
        payload, encoding = encoded
        if encoding == "none":
            return b"{}"  # a login whose payload is on its way
        if encoding == "json" and self._encryption is not None:
            self._warn(PLAIN_WARNING)
            if not self._encryption.allow_plain:
                return None
        text = payload if encoding == "json" else self._decrypt(payload, encoding, place)
        if text is None or len(text) > MAX_BYTES:
            self._warn(UNDECODABLE_WARNING)
            return None
        return text

    def _decrypt(self, payload: bytes, encoding: str, place: Place) -> bytes | None:
        keys = {} if self._encryption is None else self._encryption.keys
        key_id = encoding[len(_PREFIX) :]
        if not encoding.startswith(_PREFIX) or key_id not in keys or len(payload) < _NONCE_BYTES + _TAG_BYTES:
            return None
        from cryptography.exceptions import InvalidTag

        nonce, tag, text = payload[:12], payload[12:28], payload[28:]
        try:
            compressed = _cipher(keys[key_id]).decrypt(nonce, text + tag, _additional_data(key_id, place))
            inflater = zlib.decompressobj(_GZIP)
            data = inflater.decompress(compressed, MAX_BYTES + 1)
        except (InvalidTag, zlib.error):
            return None
        return data if inflater.eof or len(data) > MAX_BYTES else None


def _cipher(key: bytes) -> AESGCM:
    # The standard library has no AES-GCM. `cryptography` is no dependency more: MSAL itself requires it.
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    return AESGCM(bytes(key))


def _additional_data(key_id: str, place: Place) -> bytes:
    return json.dumps([key_id, *place], ensure_ascii=False, separators=(",", ":")).encode()

"""MSAL's serialized cache: what of it belongs to whom, and which sessions it names. Pure functions."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Iterator
from typing import Any, NamedTuple

Contents = dict[str, Any]
"""Five sections of entities by key, and other members."""

SECTIONS = ("Account", "IdToken", "AccessToken", "RefreshToken", "AppMetadata")


class SessionClaims(NamedTuple):
    """A session as an ID token names it."""

    issuer: str
    sid: str | None
    subject: str
    issued_at: int
    """``iat``, seconds since 1970."""
    oid: str | None
    tid: str | None

    def is_same(self, other: SessionClaims) -> bool:
        return (self.issuer, self.sid, self.subject) == (other.issuer, other.sid, other.subject)


def parse_contents(text: str | bytes) -> Contents | None:
    """Reads a serialized cache; ``None`` where it is not one."""
    try:
        value = json.loads(text.decode() if isinstance(text, bytes) else text)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def write_contents(contents: Contents) -> str:
    """The text to store. ASCII: a lone surrogate, which JSON allows, has no UTF-8."""
    return json.dumps(contents, separators=(",", ":"))


def accounts_of(contents: Contents) -> set[str]:
    """The accounts that are in this cache; app-only tokens belong to none."""
    ids = (entity.get("home_account_id") for _, entity in entities_of(contents, "Account"))
    return {account for account in ids if isinstance(account, str)}


def own_contents(contents: Contents, home_account_id: str | None, now_seconds: float) -> Contents:
    """What may be written to the row of an account: its own entities and no other's, without access tokens that have
    expired.

    :param home_account_id: ``None``: of any account, for rows of apps
    :param now_seconds: seconds since 1970; 0 drops no access token
    """

    def is_own(section: str, entity: dict[str, Any]) -> bool:
        if section == "AppMetadata":
            return True
        if home_account_id is not None and entity.get("home_account_id") != home_account_id:
            return False
        return section != "AccessToken" or not _is_expired(entity.get("expires_on"), now_seconds)

    own = dict(contents)
    for section in SECTIONS:
        own[section] = {key: entity for key, entity in entities_of(contents, section) if is_own(section, entity)}
    return own


def merge_contents(base: Contents, ours: Contents, theirs: Contents) -> Contents:
    """Our changes since ``base``, put onto what another writer has stored meanwhile, entity by entity."""
    merged = dict(theirs)
    for section in SECTIONS:
        before = dict(entities_of(base, section))
        mine = dict(entities_of(ours, section))
        result = dict(entities_of(theirs, section))
        for key in {**before, **mine}:
            entity = mine.get(key)
            if entity == before.get(key):
                continue
            if entity is None:
                result.pop(key, None)
            else:
                result[key] = entity
        merged[section] = result
    return merged


def keep_one_of_each(base: Contents, ours: Contents, contents: Contents) -> Contents:
    """Drops what an entity that we have stored since ``base`` replaces under another key.

    MSAL Python puts a refresh token's scopes into its key, and other languages' libraries have keys of their own. With
    a provider that rotates refresh tokens an old one is no spare: its use ends the session.
    """
    kept = dict(contents)
    for section in ("IdToken", "AccessToken", "RefreshToken", "AppMetadata"):
        before = dict(entities_of(base, section))
        stored = {key: entity for key, entity in entities_of(ours, section) if entity != before.get(key)}
        replaced = {_identity(section, entity) for entity in stored.values()}
        if replaced:
            kept[section] = {
                key: entity
                for key, entity in entities_of(contents, section)
                if key in stored or _identity(section, entity) not in replaced
            }
    return kept


def adopt_access_tokens(contents: Contents, home_account_id: str) -> Contents:
    """Gives access tokens without an account to the row's. MSAL Python takes the account from the ID token, and the
    answer to a refresh need not bring one (OIDC Core 1.0 section 12.2)."""
    tokens = {}
    for key, entity in entities_of(contents, "AccessToken"):
        if entity.get("home_account_id"):
            tokens[key] = entity
        else:
            tokens[home_account_id.lower() + key] = {**entity, "home_account_id": home_account_id}
    return {**contents, "AccessToken": tokens}


def shown_contents(contents: Contents) -> Contents:
    """What MSAL Python is shown: MSAL Node stores accounts of OpenID providers under an authority type that MSAL Python
    passes over. The stored account stays as it is."""
    accounts = {
        key: {**entity, "authority_type": "MSSTS"} if entity.get("authority_type") == "Generic" else entity
        for key, entity in entities_of(contents, "Account")
    }
    return {**contents, "Account": accounts}


def sessions_of(contents: Contents, client_id: str) -> list[SessionClaims]:
    """The sessions that the ID tokens of a client name."""
    sessions = []
    for _, entity in entities_of(contents, "IdToken"):
        claims = decode_claims(entity.get("secret"))
        session = None if claims is None else session_of(claims)
        if claims is not None and session is not None and _is_for(claims.get("aud"), client_id):
            sessions.append(session)
    return sessions


_MAX_SECONDS = 2**62  # what the database takes, and more than any time in nanoseconds


def session_of(claims: dict[str, Any]) -> SessionClaims | None:
    """The session that a token's claims name, or ``None`` where they name none."""
    issuer, subject, issued_at = claims.get("iss"), claims.get("sub"), claims.get("iat")
    if not isinstance(issuer, str) or not isinstance(subject, str):
        return None
    if isinstance(issued_at, bool) or not isinstance(issued_at, (int, float)) or not abs(issued_at) < _MAX_SECONDS:
        return None
    return SessionClaims(
        issuer=issuer,
        sid=_text(claims.get("sid")),
        subject=subject,
        issued_at=math.floor(issued_at),
        oid=_text(claims.get("oid")),
        tid=_text(claims.get("tid")),
    )


def decode_claims(jwt: object) -> dict[str, Any] | None:
    """The claims of a JWT, unverified: only for tokens that came from the issuer over TLS."""
    parts = jwt.split(".") if isinstance(jwt, str) else []
    if len(parts) < 2:
        return None
    try:
        payload = base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4))
    except ValueError:
        return None
    return parse_contents(payload)


def entities_of(contents: Contents, section: str) -> Iterator[tuple[str, dict[str, Any]]]:
    entities = contents.get(section)
    if isinstance(entities, dict):
        for key, entity in entities.items():
            if isinstance(entity, dict):
                yield key, entity


def _identity(section: str, entity: dict[str, Any]) -> tuple[object, ...]:
    """What makes two entities of one row the same. A row belongs to one cloud: the environment is no part of it."""
    account = entity.get("home_account_id")
    client = entity.get("client_id")
    if section == "AppMetadata":
        return (client,)  # MSAL Node fails where two environments of one cloud have one each
    if section == "RefreshToken":
        family = entity.get("family_id")
        return (account, "family", family) if family else (account, "client", client)
    if section == "IdToken":
        # Of a provider without tenants each library makes up another realm; a guest's tokens have several issuers.
        claims = decode_claims(entity.get("secret")) or {}
        return (account, client, str(claims.get("iss", entity.get("realm"))))
    known = {"credential_type", "secret", "environment", "target", "cached_at", "expires_on", "extended_expires_on"}
    others = sorted((name, str(value)) for name, value in entity.items() if name not in known | {"refresh_on"})
    return (frozenset(str(entity.get("target", "")).split()), *others)


def _is_expired(expires_on: object, now_seconds: float) -> bool:
    try:
        return float(expires_on) <= now_seconds  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return False


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


def _is_for(audience: object, client_id: str) -> bool:
    return client_id in audience if isinstance(audience, list) else audience == client_id

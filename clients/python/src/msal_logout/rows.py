"""The SQL functions of the schema ``msal_logout`` for one client id. Every call is one round trip."""

from __future__ import annotations

from typing import NamedTuple

from .connections import Connections
from .contents import SessionClaims
from .encoding import Encoded


class Row(NamedTuple):
    """One row as it was read."""

    generation: int
    version: int
    encoded: Encoded


class Saved(NamedTuple):
    outcome: str
    """``saved``, ``conflict`` or ``gone``."""
    version: int | None


class RevokedSession(NamedTuple):
    """A session of this app that was ended."""

    issuer: str
    sid: str | None
    subject: str
    home_account_id: str


class Rows:
    """:param ttl_seconds: how long a row lives after it was last written"""

    def __init__(self, connections: Connections, client_id: str, ttl_seconds: float) -> None:
        self._connections = connections
        self._client_id = client_id
        self._ttl = f"{ttl_seconds} seconds"

    def load(self, partition_key: str) -> Row | None:
        rows = self._connections.call(
            "select generation, version, payload, encoding"
            " from msal_logout.load(client_id => %s::text, partition_key => %s::text)",
            (self._client_id, partition_key),
        )
        if not rows:
            return None
        generation, version, payload, encoding = rows[0]
        return Row(generation, version, Encoded(bytes(payload), encoding))

    def login(
        self, partition_key: str, home_account_id: str, session: SessionClaims, kind: str, encoded: Encoded
    ) -> tuple[int, int] | None:
        """The row's generation and version; ``None`` where the session was ended."""
        [(accepted, generation, version)] = self._connections.call(
            "select accepted, generation, version from msal_logout.login("
            "client_id => %s::text, partition_key => %s::text, home_account_id => %s::text, issuer => %s::text,"
            " sid => %s::text, subject => %s::text, issued_at => %s::bigint, payload => %s::bytea,"
            " encoding => %s::text, ttl => %s::interval, kind => %s::text, oid => %s::text, tid => %s::text)",
            (
                self._client_id,
                partition_key,
                home_account_id,
                session.issuer,
                session.sid,
                session.subject,
                session.issued_at,
                encoded.payload,
                encoded.encoding,
                self._ttl,
                kind,
                session.oid,
                session.tid,
            ),
        )
        return (generation, version) if accepted else None

    def save(self, partition_key: str, generation: int, version: int, encoded: Encoded) -> Saved:
        [(outcome, new_version)] = self._connections.call(
            "select outcome, version from msal_logout.save(client_id => %s::text, partition_key => %s::text,"
            " generation => %s::bigint, version => %s::bigint, payload => %s::bytea, encoding => %s::text,"
            " ttl => %s::interval)",
            (self._client_id, partition_key, generation, version, encoded.payload, encoded.encoding, self._ttl),
        )
        return Saved(outcome, new_version)

    def add_session(self, partition_key: str, session: SessionClaims) -> bool:
        """``False`` where the session was ended, or the row is gone."""
        [(added,)] = self._connections.call(
            "select msal_logout.add_session(client_id => %s::text, partition_key => %s::text, issuer => %s::text,"
            " sid => %s::text, subject => %s::text, issued_at => %s::bigint, oid => %s::text, tid => %s::text)",
            (
                self._client_id,
                partition_key,
                session.issuer,
                session.sid,
                session.subject,
                session.issued_at,
                session.oid,
                session.tid,
            ),
        )
        return added is True

    def forget(self, partition_key: str, generation: int) -> bool:
        [(forgotten,)] = self._connections.call(
            "select msal_logout.forget(client_id => %s::text, partition_key => %s::text, generation => %s::bigint)",
            (self._client_id, partition_key, generation),
        )
        return forgotten is True

    def store_app(self, partition_key: str, encoded: Encoded) -> None:
        self._connections.call(
            "select msal_logout.store_app(client_id => %s::text, partition_key => %s::text, payload => %s::bytea,"
            " encoding => %s::text, ttl => %s::interval)",
            (self._client_id, partition_key, encoded.payload, encoded.encoding, self._ttl),
        )

    def is_session_active(self, issuer: str, sid: str | None, subject: str | None) -> bool:
        [(active,)] = self._connections.call(
            "select msal_logout.session_active("
            "client_id => %s::text, issuer => %s::text, sid => %s::text, subject => %s::text)",
            (self._client_id, issuer, sid, subject),
        )
        return active is True

    def revoked_since(self, position: int | None) -> list[tuple[int, RevokedSession]]:
        """Sessions that were ended after this position, in order; ``None``: the last one alone, to begin with."""
        rows = self._connections.call(
            "select position, issuer, sid, subject, home_account_id"
            " from msal_logout.ended_since(client_id => %s::text, after => %s::bigint)",
            (self._client_id, position),
        )
        return [(at, RevokedSession(*session)) for at, *session in rows]

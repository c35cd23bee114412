"""The shared token cache of one app: caches for MSAL Python whose writes cannot undo a sign-out."""

from __future__ import annotations

import base64
import copy
import hashlib
import logging
import math
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, NamedTuple, TypedDict

import msal

from .check import find_problems
from .connections import Connections
from .contents import (
    Contents,
    SessionClaims,
    accounts_of,
    adopt_access_tokens,
    decode_claims,
    keep_one_of_each,
    merge_contents,
    own_contents,
    parse_contents,
    session_of,
    sessions_of,
    shown_contents,
    write_contents,
)
from .encoding import UNDECODABLE_WARNING, Codec, Encoded, Encryption, Place
from .errors import DatabaseFailed, SignedOut, TokenCacheMisuse
from .listener import Listener
from .rows import RevokedSession, Row, Rows

_MAX_TRIES = 32  # each lost try is another writer's success
_TWO_ACCOUNTS = "two accounts in one cache: open one for each sign-in, with cache.login()"
_NO_SID = (
    'an ID token bears no "sid": a logout by sid cannot find this login. At Entra ID add the optional claim "sid" '
    "to ID tokens (App registration, Token configuration)"
)

_log = logging.getLogger("msal_logout")


class SignedInUser(TypedDict):
    """What an app's own session must remember of a login; it goes into JSON as it is."""

    home_account_id: str
    issuer: str
    sid: str | None
    subject: str


class OperationCache(msal.SerializableTokenCache):  # type: ignore[misc]
    """The ``token_cache`` of one MSAL application, for the length of one ``with`` block."""

    def __init__(self, contents: Contents, *, is_app: bool = False) -> None:
        super().__init__()
        self._is_open = True
        self._is_app = is_app
        super().deserialize(write_contents(contents))

    def _check_open(self) -> None:
        if not self._is_open:
            raise TokenCacheMisuse(
                "this cache has ended with its with block: make one, and an MSAL application with it, "
                "for each operation. Shared ones mix users"
            )

    def add(self, event: dict[str, Any], **kwargs: Any) -> None:
        self._check_open()
        if not self._is_app and event.get("grant_type") == "client_credentials":
            # Else the app's own token would be handed out as the user's.
            raise TokenCacheMisuse("client credentials are no user's: use app(), with an MSAL application of its own")
        super().add(event, **kwargs)

    def modify(self, *args: Any, **kwargs: Any) -> None:
        self._check_open()
        super().modify(*args, **kwargs)

    def find(self, *args: Any, **kwargs: Any) -> Any:
        self._check_open()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # the app's own call, not ours, is what MSAL means
            return super().find(*args, **kwargs)

    def search(self, *args: Any, **kwargs: Any) -> Any:
        self._check_open()
        return super().search(*args, **kwargs)

    def serialize(self) -> str:
        raise TokenCacheMisuse(
            "this cache stores itself at the end of its with block: take out the lines that serialize it, "
            "which put tokens into the app's own session"
        )

    def deserialize(self, state: str | None) -> None:  # noqa: ARG002
        raise TokenCacheMisuse("this cache loads itself at the start of its with block: take out the line")

    def _end(self) -> tuple[Contents, bool]:
        """What MSAL has left, and whether it has changed anything; the cache is of no use afterwards."""
        with self._lock:
            has_changed = self.has_state_changed
            contents: Contents = copy.deepcopy(self._cache)
            self._is_open = False
            super().deserialize(None)
        return contents, has_changed


class LoginCache(OperationCache):
    """For the redemption of one code."""

    def __init__(self) -> None:
        super().__init__({})
        self._user: SignedInUser | None = None

    @property
    def user(self) -> SignedInUser:
        """Who has signed in, after the ``with`` block.

        :raises TokenCacheMisuse: within the block, and where MSAL has redeemed no code
        """
        if self._user is None:
            raise TokenCacheMisuse(
                "nobody has signed in: leave the with block first, and look for an error in what MSAL returned"
                if self._is_open
                else "nobody has signed in: look for an error in what MSAL returned"
            )
        return self._user


class AssertionCache(OperationCache):
    """For one on-behalf-of operation."""

    def __init__(self, contents: Contents, assertion: str) -> None:
        super().__init__(contents)
        self._assertion = assertion

    def acquire_token(self, client: msal.ConfidentialClientApplication, scopes: list[str]) -> dict[str, Any]:
        """A token from the row, or from the provider where the row has none: MSAL Python itself does not look for one
        before it asks.

        :param client: made with this cache as its ``token_cache``
        :param scopes: what the token is for
        :returns: what MSAL returns; with ``error`` where the provider said no
        :raises TokenCacheMisuse: where the ``with`` block has ended
        """
        for account in client.get_accounts():
            result = client.acquire_token_silent(scopes, account)
            if result:
                return dict(result)
        return dict(client.acquire_token_on_behalf_of(self._assertion, scopes))


class SharedTokenCache:
    """The shared token cache of one app.

    :param database: connections as the role registered for the client id: a pool of psycopg 3 or 2, an engine of
        SQLAlchemy, a function that opens a connection, or one DB-API connection. A connection is used for one call at
        a time, outside of any transaction
    :param client_id: the app's client id
    :param ttl: how long a row lives after it was last written; 90 days, as long as Entra ID's refresh tokens
    :param encryption: keys, to encrypt payloads; ``None``: they are stored as they are
    :param timeout: seconds that one call to the database may take; 5
    :param listen_database: where :meth:`on_purge` takes the connection that it holds; the same as ``database`` where
        not given. It must be PostgreSQL itself: LISTEN does not work through PgBouncer in transaction mode
    :param on_warning: called with what an operator should mend, once for each message; by default the logger
        ``msal_logout`` warns
    :raises TokenCacheMisuse: where an argument is not what it must be
    """

    def __init__(
        self,
        database: Any,
        client_id: str,
        *,
        ttl: timedelta = timedelta(days=90),
        encryption: Encryption | None = None,
        timeout: float = 5.0,
        listen_database: Any = None,
        on_warning: Callable[[str], object] | None = None,
    ) -> None:
        if not isinstance(client_id, str) or not client_id:
            raise TokenCacheMisuse('"client_id" must be the app\'s client id, as text')
        if not isinstance(ttl, timedelta) or ttl <= timedelta(0):
            raise TokenCacheMisuse('"ttl" must be a positive timedelta')
        if encryption is not None and not isinstance(encryption, Encryption):
            raise TokenCacheMisuse('"encryption" must be an Encryption(current, keys)')
        if isinstance(timeout, bool) or not isinstance(timeout, (int, float)) or not 0 < timeout < math.inf:
            raise TokenCacheMisuse('"timeout" must be a positive number of seconds')
        self._client_id = client_id
        self._connections = Connections(database, timeout)
        self._listen_connections = (
            self._connections if listen_database is None else Connections(listen_database, timeout)
        )
        self._rows = Rows(self._connections, client_id, ttl.total_seconds())
        self._on_warning = on_warning or _log.warning
        self._warned: set[str] = set()
        self._codec = Codec(encryption, self._warn)

    @property
    def client_id(self) -> str:
        """The app's client id."""
        return self._client_id

    @contextmanager
    def login(self) -> Iterator[LoginCache]:
        """For the MSAL application that redeems the code at the redirect: the only way in which a row comes to be.

        Stored at the end of the block; nothing where it was left by an exception, or where MSAL has redeemed nothing.
        Afterwards ``user`` says who has signed in.

        :raises SignedOut: at the end, where the session was ended meanwhile
        :raises TokenCacheMisuse: at the end, where the cache holds two accounts, or no ID token of this client id
        :raises DatabaseFailed: at the end
        """
        cache = LoginCache()
        contents: Contents = {}
        try:
            yield cache
        finally:
            contents, has_changed = cache._end()
        if not has_changed:
            return
        home_account_id = self._only_account(contents)
        own = own_contents(contents, home_account_id, time.time())
        sessions = sessions_of(own, self._client_id)
        session = self._newest(sessions)
        row = self._account_row(home_account_id, home_account_id)
        row.login(own, session, "user")
        for further in sessions:
            if not further.is_same(session):
                row.add_session(further)
        cache._user = {
            "home_account_id": home_account_id,
            "issuer": session.issuer,
            "sid": session.sid,
            "subject": session.subject,
        }

    @contextmanager
    def account(self, home_account_id: str) -> Iterator[OperationCache]:
        """For one operation of a signed-in user. What MSAL has changed is saved at the end of the block, also where it
        is left by an exception: a refresh token may be good for one use only.

        :param home_account_id: of ``login().user``; MSAL has it in each account
        :raises SignedOut: at the start, where there is no row (signed out, or expired); at the end, where the user was
            signed out meanwhile: a token that MSAL has returned must not be used
        :raises TokenCacheMisuse: at the end, where another account's tokens are in the cache
        :raises DatabaseFailed: at the start and at the end
        """
        _check_account(home_account_id)
        row = self._account_row(home_account_id, home_account_id)
        base = row.load()
        if base is None:
            raise SignedOut
        cache = OperationCache(base)
        try:
            yield cache
        finally:
            contents, has_changed = cache._end()
            if has_changed:
                row.store(contents, base)

    @contextmanager
    def assertion(self, assertion: str) -> Iterator[AssertionCache]:
        """For one on-behalf-of operation with this access token. The row bears the user's account, so that a sign-out
        finds it.

        :param assertion: the access token that the app was called with, verified by the app, without ``Bearer``
        :raises SignedOut: at the end, where the user was signed out since the assertion was issued
        :raises TokenCacheMisuse: at the end, where the cache holds two accounts, or no ID token of this client id
        :raises DatabaseFailed: at the start and at the end
        """
        if not isinstance(assertion, str) or not assertion:
            raise TokenCacheMisuse('"assertion" must be the access token that the app was called with, as text')
        digest = hashlib.sha256(assertion.encode()).digest()
        partition_key = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
        row: _AccountRow | None = None
        base: Contents | None = None
        stored = self._read(partition_key)
        for home_account_id in accounts_of(stored.contents) if stored is not None else ():
            row = self._account_row(partition_key, home_account_id)
            base = row.pin(stored)
            break
        cache = AssertionCache(base or {}, assertion)
        try:
            yield cache
        finally:
            contents, has_changed = cache._end()
            if has_changed and row is not None and base is not None:
                row.store(contents, base)
            elif has_changed:
                home_account_id = self._only_account(contents)
                own = own_contents(contents, home_account_id, time.time())
                session = _asserted(assertion, self._newest(sessions_of(own, self._client_id)))
                self._account_row(partition_key, home_account_id).login(own, session, "obo")

    @contextmanager
    def app(self, partition_key: str) -> Iterator[OperationCache]:
        """For client credentials; the last writer wins.

        :param partition_key: ``<client id>.<tenant id>`` is a good one
        :raises TokenCacheMisuse: where it is an account's, or where a user's tokens are in the cache at the end
        :raises DatabaseFailed: at the start and at the end
        """
        if not isinstance(partition_key, str) or not partition_key:
            raise TokenCacheMisuse('"partition_key" must be text, as "<client id>.<tenant id>"')
        # An app's row has no generation of its own to bind: it is never another user's.
        place = Place(self._client_id, partition_key, "app")
        row = self._rows.load(partition_key)
        base = {} if row is None else self._decode(row, place)
        cache = OperationCache(base, is_app=True)
        try:
            yield cache
        finally:
            contents, has_changed = cache._end()
            if accounts_of(contents):
                raise TokenCacheMisuse("app() is for client credentials: use login() or account() for a user")
            own = own_contents(contents, None, time.time())
            if has_changed and own != own_contents(base, None, time.time()):
                self._rows.store_app(partition_key, self._codec.encode(write_contents(own), place))

    def is_session_active(self, issuer: str, sid: str | None, subject: str | None = None) -> bool:
        """Whether a session of this app has neither been ended nor expired.

        :param issuer: the ID token's ``iss``
        :param sid: the ID token's; where it is ``None`` or empty the ``subject`` decides
        :param subject: the ID token's ``sub``; may be ``None`` where there is a sid
        :raises TokenCacheMisuse: where the issuer is missing, or both others are
        :raises DatabaseFailed: where the database cannot be asked; fail the request, it is nobody's then
        """
        if not isinstance(issuer, str) or not issuer:
            raise TokenCacheMisuse('a session is asked for by its "issuer", the "iss" of its ID token')
        if not sid and not subject:
            raise TokenCacheMisuse('a session is asked for by its "sid", or by its "subject" where it has none')
        return self._rows.is_session_active(issuer, sid or None, subject)

    def on_purge(self, listener: Callable[[RevokedSession], object]) -> Listener:
        """Calls ``listener`` in a thread, with each session of this app that is ended from now on, in order and each
        once, also after a lost connection. What it raises is warned of, and not given again.

        :param listener: called with one session after the other
        :returns: what ends it: call ``stop()``, or use it in a ``with`` statement
        :raises DatabaseFailed: where the database cannot be reached at the start
        :raises TokenCacheMisuse: where ``database`` is one connection, and there is no ``listen_database``
        """
        return Listener(self._rows, self._listen_connections, listener, self._on_warning)

    def remove_account(self, home_account_id: str) -> bool:
        """Forgets one account of this app; whether there was one.

        :param home_account_id: as :meth:`account` takes it
        :raises DatabaseFailed: where the database cannot be reached
        """
        _check_account(home_account_id)
        row = self._rows.load(home_account_id)
        return row is not None and self._rows.forget(home_account_id, row.generation)

    def check(self) -> None:
        """Looks for what cannot work, at the start of an app.

        :raises TokenCacheMisuse: says all that is wrong, and what to do
        """
        problems = find_problems(self._connections, self._client_id)
        if problems:
            raise TokenCacheMisuse("\n".join(problems))

    def close(self) -> None:
        """Closes the connections that were opened by a function given as ``database``; a pool stays as it is."""
        self._connections.close()
        self._listen_connections.close()

    def _warn(self, message: str) -> None:
        if message not in self._warned:
            self._warned.add(message)
            self._on_warning(message)

    def _account_row(self, partition_key: str, home_account_id: str) -> _AccountRow:
        return _AccountRow(self, partition_key, home_account_id)

    def _read(self, partition_key: str) -> _Loaded | None:
        """Reads and decodes a row; one that cannot be decoded counts as empty, and is replaced by the next save."""
        row = self._rows.load(partition_key)
        if row is None:
            return None
        contents = self._decode(row, Place(self._client_id, partition_key, str(row.generation)))
        return _Loaded(row.generation, row.version, contents)

    def _decode(self, row: Row, place: Place) -> Contents:
        text = self._codec.decode(row.encoded, place)
        if text is None:
            return {}
        contents = parse_contents(text)
        if contents is None:
            self._warn(UNDECODABLE_WARNING)
        return contents or {}

    def _only_account(self, contents: Contents) -> str:
        accounts = accounts_of(contents)
        if len(accounts) > 1:
            raise TokenCacheMisuse(_TWO_ACCOUNTS)
        for account in accounts:
            return account
        raise TokenCacheMisuse(
            "no account to store: use app() for client credentials, and for a user a flow with an ID token"
        )

    def _newest(self, sessions: list[SessionClaims]) -> SessionClaims:
        if not sessions:
            raise TokenCacheMisuse(
                f'no ID token for the client id "{self._client_id}", with "iss", "sub" and "iat": '
                "give SharedTokenCache the client id of the MSAL application"
            )
        return max(sessions, key=lambda session: session.issued_at)


class _Loaded(NamedTuple):
    """What a row held when it was last read."""

    generation: int
    version: int
    contents: Contents


class _AccountRow:
    """The one row of an account at a partition: its generation is pinned by the first load or login."""

    def __init__(self, cache: SharedTokenCache, partition_key: str, home_account_id: str) -> None:
        self._cache = cache
        self._rows = cache._rows
        self._partition_key = partition_key
        self._home_account_id = home_account_id
        self._generation: int | None = None
        self._version = 0
        self._stored: Contents = {}

    def load(self) -> Contents | None:
        """What MSAL is shown; ``None`` where there is no row, or another generation's."""
        return self.pin(self._cache._read(self._partition_key))

    def pin(self, loaded: _Loaded | None) -> Contents | None:
        contents = self._own(loaded)
        return None if contents is None else shown_contents(contents)

    def _own(self, loaded: _Loaded | None) -> Contents | None:
        if loaded is None or self._generation not in (None, loaded.generation):
            return None
        self._generation, self._version = loaded.generation, loaded.version
        self._stored = own_contents(loaded.contents, self._home_account_id, 0)
        return self._stored

    def login(self, own: Contents, session: SessionClaims, kind: str) -> None:
        """The only way in which a row comes to be. An encrypted payload depends on the generation, which a new row gets
        by the login itself; no transaction is open while it is encrypted."""
        self._check_sid(session)
        encoded, bound = Encoded(b"", "none"), None
        if self._cache._codec.binds_generation:
            row = self._rows.load(self._partition_key)
            if row is not None:
                bound = row.generation
        if bound is not None or not self._cache._codec.binds_generation:
            encoded = self._encode(own, bound or 0)
        stored = self._rows.login(self._partition_key, self._home_account_id, session, kind, encoded)
        if stored is None:
            raise SignedOut
        self._generation, self._version = stored
        if self._cache._codec.binds_generation and self._generation != bound:
            self._save(own, {}, own)

    def store(self, ours: Contents, base: Contents) -> None:
        """Saves what has changed since ``base``, onto what others have saved meanwhile."""
        ours = adopt_access_tokens(ours, self._home_account_id)
        if accounts_of(base) and not accounts_of(ours):
            self._forget()
            return
        if accounts_of(ours) - {self._home_account_id}:
            raise TokenCacheMisuse(_TWO_ACCOUNTS)
        if self._written(ours) == self._written(base):
            return  # MSAL has but dropped what has expired
        known = sessions_of(base, self._cache._client_id)
        for session in sessions_of(ours, self._cache._client_id):
            # OIDC Core 1.0 section 12.2: the ID token of a refresh may lack what the first one said.
            if not any(session.is_same(other) or session.is_same(other._replace(sid=None)) for other in known):
                self.add_session(session)
        # What MSAL was shown in another form than it is stored stays as it is stored.
        self._save(ours, base, merge_contents(base, ours, self._stored))

    def add_session(self, session: SessionClaims) -> None:
        self._check_sid(session)
        if not self._rows.add_session(self._partition_key, session):
            raise SignedOut

    def _forget(self) -> None:
        if self._generation is not None:
            self._rows.forget(self._partition_key, self._generation)

    def _save(self, ours: Contents, base: Contents, contents: Contents) -> None:
        if self._generation is None:
            raise SignedOut
        for _ in range(_MAX_TRIES):
            written = self._written(keep_one_of_each(base, ours, contents))
            encoded = self._encode(written, self._generation)
            saved = self._rows.save(self._partition_key, self._generation, self._version, encoded)
            if saved.outcome == "saved" and saved.version is not None:
                self._version = saved.version
                return
            theirs = self._own(self._cache._read(self._partition_key)) if saved.outcome == "conflict" else None
            if theirs is None:
                raise SignedOut
            contents = merge_contents(base, ours, theirs)
        raise DatabaseFailed(f"the row was changed by others {_MAX_TRIES} times in a row")

    def _written(self, contents: Contents) -> Contents:
        return own_contents(contents, self._home_account_id, time.time())

    def _encode(self, contents: Contents, generation: int) -> Encoded:
        place = Place(self._cache._client_id, self._partition_key, str(generation))
        return self._cache._codec.encode(write_contents(contents), place)

    def _check_sid(self, session: SessionClaims) -> None:
        if session.sid is None:
            self._cache._warn(_NO_SID)


def _check_account(home_account_id: object) -> None:
    if not isinstance(home_account_id, str) or not home_account_id:
        raise TokenCacheMisuse(
            '"home_account_id" must be text: cache.login() gives it as user["home_account_id"], '
            'MSAL as account["home_account_id"]'
        )


def _asserted(assertion: str, session: SessionClaims) -> SessionClaims:
    """Of an on-behalf-of login: as old as the assertion, so that a sign-out since then rejects it."""
    claims = decode_claims(assertion)
    asserted = None if claims is None else session_of(claims)
    if asserted is None:
        return session
    return session._replace(sid=session.sid or asserted.sid, issued_at=min(session.issued_at, asserted.issued_at))

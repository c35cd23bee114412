"""Connections of any kind that an app has, and calls on them that end in time.

A call is one statement, committed at once: no transaction is ever left open, and none of the app's own is used.
"""

from __future__ import annotations

import contextlib
import inspect
import os
import re
import socket
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, wait
from typing import Any, NamedTuple, NoReturn, Protocol

from .errors import DatabaseFailed, TokenCacheMisuse

_MAX_TRIES = 20  # stale connections of a pool, one after the other; each try drops one
_GRACE_SECONDS = 1.0
_SERIALIZATION_FAILURE, _DEADLOCK = "40001", "40P01"

_IN_TRANSACTION = (
    "the connection is in a transaction, which would hold locks that sign-outs wait for, and undo a login with its "
    "rollback: commit first, or give SharedTokenCache a pool"
)


class Lease(NamedTuple):
    """A DB-API connection for one call, and how it is given back."""

    connection: Any
    give_back: Callable[[bool], None]
    """Called once; ``True``: the connection is of no use any more."""


class Source(Protocol):
    def lease(self, timeout: float) -> Lease:
        """Takes a connection, within so many seconds."""


class Connections:
    """Runs statements on the connections of an app.

    :param database: a pool of psycopg 3 or psycopg 2, an engine of SQLAlchemy, a function that opens a connection, or
        one DB-API connection
    :param timeout: seconds a call may take, waiting for a connection included
    :raises TokenCacheMisuse: where it is none of these
    """

    def __init__(self, database: Any, timeout: float) -> None:
        self._source = _source_of(database)
        self._timeout = timeout

    def call(self, statement: str, values: Sequence[Any]) -> list[tuple[Any, ...]]:
        """Runs one statement and commits it. Every function of the schema may be called twice, so a call whose
        connection was lost, or that lost against another transaction, is tried again.

        :raises DatabaseFailed: where the database cannot be reached, takes too long, or fails
        :raises TokenCacheMisuse: where what it says is a mistake of the set-up
        """
        _check_texts(values)
        deadline = time.monotonic() + self._timeout
        for tries in range(1, _MAX_TRIES + 1):
            lease = self._lease(deadline)
            watched = _Watched(lease.connection)
            _watchdog.watch(deadline, watched)
            error: Exception | None = None
            rows: list[tuple[Any, ...]] = []
            try:
                rows = _run(lease.connection, statement, values)
            except Exception as failure:  # noqa: BLE001 - DB-API drivers have no common base class
                error = failure
            has_expired = watched.finish()
            is_broken = has_expired or _is_closed(lease.connection) or _is_lost(error)
            lease.give_back(is_broken)
            if error is None:
                return rows
            may_succeed = is_broken or _sqlstate(error) in (_SERIALIZATION_FAILURE, _DEADLOCK)
            if has_expired or not may_succeed or tries == _MAX_TRIES or time.monotonic() >= deadline:
                _raise(error, self._timeout if has_expired else None)
        raise AssertionError("the last try has returned or raised")

    def _lease(self, deadline: float) -> Lease:
        try:
            return self._source.lease(max(deadline - time.monotonic(), 0.001))
        except (DatabaseFailed, TokenCacheMisuse):
            raise
        except Exception as error:  # noqa: BLE001 - DB-API drivers have no common base class
            raise DatabaseFailed(f"no connection to the database: {_why_none(error)}", _sqlstate(error)) from None

    def close(self) -> None:
        """Closes connections that this object has opened itself; an app's pool is the app's."""
        if isinstance(self._source, _Opened):
            self._source.close()

    def listen(self, channel: str) -> Lease:
        """A connection that listens, to be kept; it is given back as broken, since it goes on to listen.

        :raises DatabaseFailed: where the database cannot be reached, or takes too long
        :raises TokenCacheMisuse: where there is but one connection
        """
        if isinstance(self._source, _OneConnection):
            raise TokenCacheMisuse(
                "a listener holds a connection of its own: give SharedTokenCache a pool, "
                "or listen_database=lambda: psycopg.connect(url)"
            )
        deadline = time.monotonic() + self._timeout
        lease = self._lease(deadline)
        watched = _Watched(lease.connection)
        _watchdog.watch(deadline, watched)
        error: Exception | None = None
        try:
            _listen(lease.connection, channel)
        except Exception as failure:  # noqa: BLE001 - DB-API drivers have no common base class
            error = failure
        has_expired = watched.finish()
        if has_expired or error is not None:
            with contextlib.suppress(Exception):  # the first error says more
                lease.give_back(True)
            _raise(error, self._timeout if has_expired else None)
        return lease


# One call


def _check_texts(values: Sequence[Any]) -> None:
    """Drivers differ in what they say of such a text, and none says what to do."""
    for value in values:
        if isinstance(value, str) and ("\0" in value or any("\ud800" <= character <= "\udfff" for character in value)):
            raise TokenCacheMisuse(
                "PostgreSQL cannot store an id with U+0000 or half a surrogate pair in it: see where the id comes from"
            )


def _listen(connection: Any, channel: str) -> None:
    if is_in_transaction(connection):
        connection.rollback()
    has_autocommit = getattr(connection, "autocommit", None) is not None
    if has_autocommit:
        connection.autocommit = True
    with contextlib.closing(open_cursor(connection)) as cursor:
        cursor.execute(f"listen {channel}")
    if not has_autocommit:
        connection.commit()


def _run(connection: Any, statement: str, values: Sequence[Any]) -> list[tuple[Any, ...]]:
    if is_in_transaction(connection):
        raise TokenCacheMisuse(_IN_TRANSACTION)
    was_autocommit = getattr(connection, "autocommit", None)
    if was_autocommit is False:
        connection.autocommit = True  # known to the driver alone: it sends no BEGIN
    try:
        with contextlib.closing(open_cursor(connection)) as cursor:
            cursor.execute(statement, values)
            rows = [tuple(row) for row in cursor.fetchall()]
        if was_autocommit is None:
            connection.commit()
        return rows
    except Exception:
        if was_autocommit is None:
            with contextlib.suppress(Exception):  # the first error says more
                connection.rollback()
        raise
    finally:
        if was_autocommit is False and not _is_closed(connection):
            connection.autocommit = False


def open_cursor(connection: Any) -> Any:
    """A cursor whose rows are tuples, as which kind of rows the app may have chosen for the connection."""
    psycopg, psycopg2 = sys.modules.get("psycopg"), sys.modules.get("psycopg2.extensions")
    if psycopg is not None and isinstance(connection, psycopg.Connection):
        # Not the connection's own cursors: some write parameters into the statement, which PostgreSQL may log.
        return psycopg.Cursor(connection, row_factory=psycopg.rows.tuple_row)
    if psycopg2 is not None and isinstance(connection, psycopg2.connection):
        return connection.cursor(cursor_factory=psycopg2.cursor)
    return connection.cursor()


def is_in_transaction(connection: Any) -> bool:
    """Whether a transaction is open, as far as the driver knows."""
    status = getattr(getattr(connection, "info", None), "transaction_status", None)
    if status is None:
        return getattr(connection, "in_transaction", False) is True
    return int(status) in (1, 2, 3)  # libpq: active, in a transaction, in a failed one


def _is_closed(connection: Any) -> bool:
    """psycopg counts, others have a flag; some have neither."""
    return bool(getattr(connection, "closed", False))


def _is_lost(error: Exception | None) -> bool:
    """PEP 249's names for what is wrong with a connection, without an answer of PostgreSQL's; or the socket's own."""
    names = {base.__name__ for base in type(error).__mro__}
    return bool(names & {"OperationalError", "InterfaceError", "OSError"}) and _sqlstate(error) is None


def _raise(error: Exception | None, timeout: float | None) -> NoReturn:
    """A driver's error may quote a row in its detail: what is raised has the code and the message alone, no cause."""
    if isinstance(error, TokenCacheMisuse):
        raise error
    if timeout is not None:
        raise DatabaseFailed(f"the database has not answered within {timeout:g} s") from None
    state = _sqlstate(error)
    if state is None:
        raise DatabaseFailed(f"the connection to the database failed: {_first_line(error)}") from None
    message = _message(error, "message_primary", "M") or type(error).__name__
    advice = _ADVICE.get(state)
    if advice is not None:
        # PostgreSQL's own hint for a function that is not there, of type casts, would mislead.
        hint = None if advice == _MIGRATE else _message(error, "message_hint", "H")
        raise TokenCacheMisuse(f"{message}: {hint or advice}") from None
    raise DatabaseFailed(f"{message} ({state})", state) from None


_MIGRATE = 'migrate the database ("msal-logout migrate"), and see that this is the right database'
# Where PostgreSQL's answer has no hint.
_ADVICE = {
    "42501": (  # insufficient_privilege
        "connect as the role that is registered for this client id, or let an administrator register it: "
        "select msal_logout.register_app('<client id>', '<role>')"
    ),
    "3F000": _MIGRATE,  # invalid_schema_name
    "42883": _MIGRATE,  # undefined_function
    "42P01": _MIGRATE,  # undefined_table
    "22023": "correct the argument that it names",  # invalid_parameter_value
    "25006": "connect to the primary: a replica cannot store a login",  # read_only_sql_transaction
    "ML001": "a partition is one account's: use the account's own id, and another key for each app-only row",
    "ML002": (
        "two users have one account id: let the provider send an object id that is unique to each user "
        "(an Azure AD B2C policy without one gives all users the same)"
    ),
}


def _sqlstate(error: Exception | None) -> str | None:
    for name in ("sqlstate", "pgcode"):
        state = getattr(error, name, None)
        if isinstance(state, str):
            return state
    fields = _fields(error)
    return fields.get("C")


def _message(error: Exception | None, name: str, letter: str) -> str | None:
    """PostgreSQL's message or hint: the schema's own quote no row."""
    message = getattr(getattr(error, "diag", None), name, None) or _fields(error).get(letter)
    return message if isinstance(message, str) else None


def _fields(error: Exception | None) -> dict[str, str]:
    """pg8000 has PostgreSQL's fields in a mapping."""
    argument = error.args[0] if error is not None and error.args else None
    return argument if isinstance(argument, dict) else {}


def _why_none(error: Exception) -> str:
    """No payload is on its way yet. But a driver quotes what it cannot read of a connection string, and the password
    may be in that part. Where it has asked a server, it has read the string.
    """
    line = _first_line(error)
    was_read = _sqlstate(error) is not None or re.search('connection to server (at|on socket) "', line)
    if was_read or not re.search("[\"']", line):
        return line
    return re.split("[\"']", line)[0].rstrip() + " … (the rest may quote the connection string: see that it is right)"


def _first_line(error: Exception | None) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


# Time limits


class _Watched:
    """A call that is under way. When its time is over the statement is cancelled, and then its connection cut."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self._lock = threading.Lock()
        self._finished = threading.Event()
        self._has_expired = False

    @property
    def is_finished(self) -> bool:
        return self._finished.is_set()

    def finish(self) -> bool:
        """Called when the call has ended; whether its time was over."""
        with self._lock:
            self._finished.set()
            return self._has_expired

    def expire(self) -> None:
        with self._lock:
            if self.is_finished:
                return
            self._has_expired = True
        for action in (self._cancel, self._cut):
            threading.Thread(target=action, name="msal-logout-deadline", daemon=True).start()

    def _cancel(self) -> None:
        """Asks the server to end the statement, over a connection of its own. Only psycopg 3 with libpq 17 does so
        without stopping all threads of the process while it waits; else the connection is cut, and the server ends
        the statement when it next writes to it."""
        psycopg = sys.modules.get("psycopg")
        cancel = getattr(self._connection, "cancel_safe", None)
        if psycopg is not None and cancel is not None and psycopg.capabilities.has_cancel_safe():
            with contextlib.suppress(Exception):  # else the connection is cut
                cancel(timeout=_GRACE_SECONDS)

    def _cut(self) -> None:
        if self._finished.wait(_GRACE_SECONDS):
            return
        with self._lock:  # else its file might be another one's by now
            if not self.is_finished:
                with contextlib.suppress(Exception), socket.socket(fileno=os.dup(_file_of(self._connection))) as cut:
                    cut.shutdown(socket.SHUT_RDWR)


def _file_of(connection: Any) -> int:
    fileno = getattr(connection, "fileno", None)
    return int(fileno() if fileno is not None else connection._usock.fileno())  # pg8000


class _Watchdog:
    """One thread for the deadlines of all calls. It looks four times a second at most: to be woken by each call would
    cost more than the call."""

    _TICK_SECONDS = 0.25

    def __init__(self) -> None:
        self._forget()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._forget)

    def _forget(self) -> None:
        """A fork inherits neither the thread nor the calls."""
        self._changed = threading.Condition()
        self._calls: list[tuple[float, _Watched]] = []
        self._thread: threading.Thread | None = None
        self._wakes_at = float("inf")

    def watch(self, deadline: float, call: _Watched) -> None:
        with self._changed:
            self._calls.append((deadline, call))
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._run, name="msal-logout-deadlines", daemon=True)
                self._thread.start()
            elif deadline < self._wakes_at:
                self._changed.notify()

    def _run(self) -> None:
        changed = self._changed
        while True:
            with changed:
                now = time.monotonic()
                due = [call for deadline, call in self._calls if deadline <= now]
                self._calls = [entry for entry in self._calls if entry[0] > now and not entry[1].is_finished]
                if not due:
                    next_one = min((deadline for deadline, _ in self._calls), default=float("inf"))
                    self._wakes_at = max(next_one, now + self._TICK_SECONDS)
                    changed.wait(None if self._wakes_at == float("inf") else self._wakes_at - now)
            for call in due:
                call.expire()


_watchdog = _Watchdog()


# Where connections come from


def _open_within(timeout: float, connect: Callable[[], Any]) -> Any:
    """Drivers and engines have limits of their own, of minutes or none. What comes too late is closed again."""
    opening: Future[Any] = Future()

    def work() -> None:
        try:
            opening.set_result(connect())
        except BaseException as error:  # noqa: BLE001 - raised where it is waited for
            opening.set_exception(error)

    def close(late: Future[Any]) -> None:
        if late.exception() is None:
            late.result().close()

    threading.Thread(target=work, name="msal-logout-connect", daemon=True).start()
    wait([opening], timeout)
    if not opening.done():
        opening.add_done_callback(close)
        raise DatabaseFailed(f"the database gave no connection within {timeout:.1f} s")
    return opening.result()


def _source_of(database: Any) -> Source:
    if isinstance(database, str):
        raise TokenCacheMisuse(
            "a URL is no connection: give a pool, as psycopg_pool.ConnectionPool(url), "
            "or a function, as lambda: psycopg.connect(url)"
        )
    for name in ("getconn", "cursor", "execute"):
        if inspect.iscoroutinefunction(getattr(database, name, None)) or type(database).__name__.startswith("Async"):
            raise TokenCacheMisuse(
                "asynchronous connections are not taken: MSAL Python itself blocks. Give a pool of "
                "synchronous ones, and call from a thread (docs/python.md, FastAPI and Starlette)"
            )
    if hasattr(database, "getconn") and hasattr(database, "putconn"):
        takes_timeout = "timeout" in inspect.signature(database.getconn).parameters
        return _Psycopg3Pool(database) if takes_timeout else _Psycopg2Pool(database)
    if hasattr(database, "raw_connection"):
        return _Engine(database)
    if hasattr(database, "get_new_connection") and hasattr(database, "settings_dict"):
        raise TokenCacheMisuse(
            "Django's connection belongs to its request and its transaction: use msal_logout.django.connections()"
        )
    if hasattr(database, "cursor"):
        return _OneConnection(database)
    if callable(database):
        return _Opened(database)
    raise TokenCacheMisuse(
        f"{type(database).__name__} is neither a pool, an engine, a DB-API connection nor a function that opens one"
    )


class _Psycopg3Pool:
    def __init__(self, pool: Any) -> None:
        self._pool = pool

    def lease(self, timeout: float) -> Lease:
        connection = self._pool.getconn(timeout=timeout)

        def give_back(is_broken: bool) -> None:
            if is_broken:
                connection.close()  # the pool replaces it
            self._pool.putconn(connection)

        return Lease(connection, give_back)


class _Psycopg2Pool:
    """psycopg 2's pool does not wait for a connection: it raises where all are in use."""

    def __init__(self, pool: Any) -> None:
        self._pool = pool

    def lease(self, timeout: float) -> Lease:
        deadline = time.monotonic() + timeout
        while True:
            try:
                connection = self._pool.getconn()
                break
            except Exception as error:
                if type(error).__name__ != "PoolError" or getattr(self._pool, "closed", False):
                    raise
                if time.monotonic() >= deadline:
                    raise DatabaseFailed(
                        f"all connections of the pool were in use for {timeout:.1f} s: give it as many as there are "
                        "threads (maxconn)"
                    ) from error
            time.sleep(0.01)
        return Lease(connection, lambda is_broken: self._pool.putconn(connection, close=is_broken))


class _Engine:
    """SQLAlchemy: its pool wraps the driver's connection."""

    def __init__(self, engine: Any) -> None:
        self._engine = engine

    def lease(self, timeout: float) -> Lease:
        wrapped = _open_within(timeout, self._engine.raw_connection)

        def give_back(is_broken: bool) -> None:
            if is_broken:
                wrapped.invalidate()
            wrapped.close()

        return Lease(getattr(wrapped, "driver_connection", None) or wrapped.connection, give_back)


class _OneConnection:
    """One connection for all threads, one call after the other: for scripts and tests."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self._lock = threading.Lock()
        self._pid = os.getpid()

    def lease(self, timeout: float) -> Lease:
        if os.getpid() != self._pid:
            raise TokenCacheMisuse(
                "the connection was opened before the fork, and two processes cannot share one: "
                "open it in the worker, or give a pool"
            )
        if not self._lock.acquire(timeout=timeout):
            raise DatabaseFailed(f"the only connection was in use for {timeout:.1f} s: give SharedTokenCache a pool")

        def give_back(is_broken: bool) -> None:
            if is_broken:
                with contextlib.suppress(Exception):
                    self._connection.close()
            self._lock.release()

        return Lease(self._connection, give_back)


class _Opened:
    """Connections that a function opens; a few are kept for the next calls."""

    _KEPT = 4

    def __init__(self, connect: Callable[[], Any]) -> None:
        self._connect = connect
        self._idle: list[Any] = []
        self._pid = os.getpid()
        self._inherited: list[Any] = []

    def close(self) -> None:
        while self._idle:
            with contextlib.suppress(Exception):
                self._idle.pop().close()

    def lease(self, timeout: float) -> Lease:
        if os.getpid() != self._pid:
            self._inherited += self._idle  # neither used nor closed here: they are the parent's
            self._idle, self._pid = [], os.getpid()
        try:
            connection = self._idle.pop()
        except IndexError:
            connection = _open_within(timeout, self._connect)
        if inspect.isawaitable(connection):
            raise TokenCacheMisuse("the function that opens connections must not be asynchronous")
        if not hasattr(connection, "cursor"):
            raise TokenCacheMisuse(
                f"the function that opens connections returned {type(connection).__name__}, "
                "and must return a DB-API connection"
            )

        def give_back(is_broken: bool) -> None:
            if is_broken or len(self._idle) >= self._KEPT or is_in_transaction(connection):
                with contextlib.suppress(Exception):
                    connection.close()
            else:
                self._idle.append(connection)

        return Lease(connection, give_back)

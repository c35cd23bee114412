"""Hears of revoked sessions. A notification only says that there is something to read; what, is read from the database
after the last position, so that a lost connection loses nothing."""

from __future__ import annotations

import contextlib
import os
import selectors
import sys
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Any

from .connections import Connections, Lease
from .errors import TokenCacheError
from .rows import RevokedSession, Rows

_POLL_SECONDS = 30.0  # a pooler in transaction mode swallows LISTEN without a word
_MUTE_POLL_SECONDS = 1.0  # a driver that gives no notifications
_FIRST_BACK_OFF_SECONDS = 0.05
_MAX_BACK_OFF_SECONDS = 5.0


class Listener:
    """Made by :meth:`SharedTokenCache.on_purge`; ends with :meth:`stop`, or with its ``with`` block."""

    def __init__(
        self,
        rows: Rows,
        connections: Connections,
        listener: Callable[[RevokedSession], object],
        warn: Callable[[str], object],
    ) -> None:
        self._rows = rows
        self._connections = connections
        self._listener = listener
        self._warn = warn
        self._stopped = threading.Event()
        self._stop_lock = threading.Lock()
        self._wake_reader, self._wake_writer = os.pipe()
        self._lease: Lease | None = None
        # First listen, then take the position: what is ended in between is given.
        try:
            self._listen()
            last = rows.revoked_since(None)
        except BaseException:
            self._drop()
            self._close_pipe()
            raise
        self._position = last[-1][0] if last else 0
        self._thread = threading.Thread(target=self._run, name="msal-logout-listener", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Ends it; returns when the listener is not running any more."""
        with self._stop_lock:
            if not self._stopped.is_set():
                os.write(self._wake_writer, b"x")  # first: the thread closes the pipe when it has stopped
                self._stopped.set()
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def __enter__(self) -> Listener:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def _run(self) -> None:
        back_off = _FIRST_BACK_OFF_SECONDS
        was_notified = True
        try:
            while not self._stopped.is_set():
                try:
                    if self._lease is None:
                        self._listen()
                    has_any = self._read_all()
                    back_off = _FIRST_BACK_OFF_SECONDS
                    if has_any and not was_notified:
                        self._drop()  # it should have said so: its network went silently
                        was_notified = True
                        continue
                    was_notified = self._wait()
                except Exception:  # noqa: BLE001 - any driver's: the same position again, when it is back
                    self._drop()
                    was_notified = True
                    self._stopped.wait(back_off)
                    back_off = min(back_off * 2, _MAX_BACK_OFF_SECONDS)
        finally:
            self._drop()
            self._close_pipe()

    def _listen(self) -> None:
        self._lease = self._connections.listen("msal_logout")

    def _drop(self) -> None:
        lease, self._lease = self._lease, None
        if lease is not None:
            with contextlib.suppress(Exception):  # a lost connection may fail once more
                lease.give_back(True)

    def _read_all(self) -> bool:
        """Whether there was anything."""
        has_any = False
        while True:
            revoked = self._rows.revoked_since(self._position)
            for position, session in revoked:
                if self._stopped.is_set():
                    return has_any
                has_any = True
                self._position = position
                self._give(session)
            if not revoked:
                return has_any

    def _give(self, session: RevokedSession) -> None:
        try:
            self._listener(session)
        except BaseException as error:  # noqa: BLE001 - the app's own, gevent's Timeout, too; it is not given again
            code = error.code if isinstance(error, TokenCacheError) else type(error).__name__
            self._warn(f"a listener of revoked sessions failed: {code}")

    def _wait(self) -> bool:
        """Until there is a notification, or it is time to look without one; whether it would have been noticed."""
        connection = None if self._lease is None else self._lease.connection
        drain = _drain_of(connection)
        if drain is None:
            _wait_for([self._wake_reader], _MUTE_POLL_SECONDS)
            return True
        if drain():
            return True
        _wait_for([self._wake_reader, connection.fileno()], _POLL_SECONDS)  # type: ignore[union-attr]
        return drain()

    def _close_pipe(self) -> None:
        os.close(self._wake_reader)
        os.close(self._wake_writer)


def _wait_for(files: list[int], timeout: float) -> None:
    """Until one of them can be read. Not by ``select``, which fails where a busy server has more than 1024 files."""
    with selectors.DefaultSelector() as selector:
        for file in files:
            selector.register(file, selectors.EVENT_READ)
        selector.select(timeout)


def _drain_of(connection: Any) -> Callable[[], bool] | None:
    """Takes what has come on a connection, and says whether a notification was among it; ``None`` for drivers that
    give none. Raises where the connection is lost."""
    psycopg, psycopg2 = sys.modules.get("psycopg"), sys.modules.get("psycopg2.extensions")
    if psycopg is not None and isinstance(connection, psycopg.Connection):

        def drain_3() -> bool:
            connection.pgconn.consume_input()
            has_any = False
            while connection.pgconn.notifies() is not None:
                has_any = True
            return has_any

        return drain_3
    if psycopg2 is not None and isinstance(connection, psycopg2.connection):

        def drain_2() -> bool:
            connection.poll()
            has_any = bool(connection.notifies)
            del connection.notifies[:]
            return has_any

        return drain_2
    return None

"""Sessions that are revoked, as an app hears of them."""

from __future__ import annotations

import os
import queue
import resource
import threading
import time
from collections.abc import Callable
from typing import Any

import pg8000.dbapi
import psycopg
import psycopg2
import psycopg2.pool
import pytest

from conftest import World
from msal_logout import DatabaseFailed, RevokedSession, SharedTokenCache, TokenCacheMisuse, listener
from provider import CLIENT_ID, ISSUER, Provider, someone
from test_connections import Frozen, pg8000_arguments

WITHIN = 30


def sign_in(cache: SharedTokenCache, **changes: Any) -> dict[str, Any]:
    alice = someone(**changes)
    with cache.login() as tokens:
        Provider().redeem(tokens, alice)
    return alice


def threads() -> set[str]:
    return {thread.name for thread in threading.enumerate() if thread.name == "msal-logout-listener"}


@pytest.mark.parametrize("driver", ["psycopg", "psycopg2", "pool of psycopg2", "pg8000"])
def test_each_session_is_given_once_and_in_order(
    driver: str, cache: SharedTokenCache, database_url: str, world: World
) -> None:
    connect: dict[str, Callable[[], Any]] = {
        "psycopg": lambda: psycopg.connect(database_url),
        "psycopg2": lambda: psycopg2.connect(database_url),
        "pg8000": lambda: pg8000.dbapi.connect(**pg8000_arguments(database_url)),
    }
    database: Any = connect.get(driver) or psycopg2.pool.ThreadedConnectionPool(1, 2, database_url)
    listening = SharedTokenCache(database, CLIENT_ID)
    heard: queue.Queue[RevokedSession] = queue.Queue()
    before = sign_in(cache)
    world.sign_out(sid=before["sid"])
    with listening.on_purge(heard.put):
        for _ in range(3):
            alice = sign_in(cache)
            world.sign_out(sid=alice["sid"])
            expected = RevokedSession(ISSUER, alice["sid"], alice["subject"], alice["homeAccountId"])
            assert heard.get(timeout=WITHIN) == expected
    assert heard.empty()
    assert threads() == set()


def test_nothing_is_lost_with_a_connection(cache: SharedTokenCache, database_url: str, world: World) -> None:
    heard: queue.Queue[RevokedSession] = queue.Queue()
    listening = SharedTokenCache(lambda: psycopg.connect(database_url), CLIENT_ID)
    cut = (
        "select count(pg_terminate_backend(pid)) from pg_stat_activity"
        " where query = 'listen msal_logout' and datname = current_database() and pid <> pg_backend_pid()"
    )
    with listening.on_purge(heard.put):
        for _ in range(3):
            alice = sign_in(cache)
            world.query(cut)
            world.sign_out(sid=alice["sid"])
            assert heard.get(timeout=WITHIN).sid == alice["sid"]
    assert heard.empty()


def test_in_a_process_with_many_files(cache: SharedTokenCache, database_url: str, world: World) -> None:
    """``select`` knows files below 1024 alone."""
    opened: list[Any] = []

    def connect() -> Any:
        opened.append(psycopg.connect(database_url))
        return opened[-1]

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, 4096)), hard))
    files = [os.open(os.devnull, os.O_RDONLY) for _ in range(1100)]
    heard: queue.Queue[RevokedSession] = queue.Queue()
    try:
        with SharedTokenCache(connect, CLIENT_ID).on_purge(heard.put):
            for _ in range(3):
                alice = sign_in(cache)
                world.sign_out(sid=alice["sid"])
                assert heard.get(timeout=WITHIN).sid == alice["sid"]
    finally:
        for file in files:
            os.close(file)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert len(opened) == 2  # one listens, one reads


def test_a_network_that_went_silently_is_noticed(
    cache: SharedTokenCache, database_url: str, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listener, "_POLL_SECONDS", 0.1)
    heard: queue.Queue[RevokedSession] = queue.Queue()
    with Frozen(database_url) as frozen:
        opened: list[Any] = []

        def connect() -> Any:
            opened.append(psycopg.connect(frozen.url if not opened else database_url))
            return opened[-1]

        listening = SharedTokenCache(lambda: psycopg.connect(database_url), CLIENT_ID, listen_database=connect)
        with listening.on_purge(heard.put):
            frozen.freeze()
            alice = sign_in(cache)
            world.sign_out(sid=alice["sid"])
            assert heard.get(timeout=WITHIN).sid == alice["sid"]
            deadline = time.monotonic() + WITHIN
            while len(opened) < 2 and time.monotonic() < deadline:
                time.sleep(0.02)
    assert len(opened) == 2


def test_a_server_that_goes_silent_before_it_listens(database_url: str, world: World) -> None:
    with Frozen(database_url) as frozen:

        def connect() -> Any:
            connection = psycopg.connect(frozen.url)
            frozen.freeze()
            return connection

        listening = SharedTokenCache(
            lambda: psycopg.connect(database_url), CLIENT_ID, listen_database=connect, timeout=0.5
        )
        with pytest.raises(DatabaseFailed, match=r"within 0\.5 s"):
            listening.on_purge(print)
    assert threads() == set()


def test_what_a_listener_raises_is_warned_of_and_not_given_again(
    pool: Any, world: World, cache: SharedTokenCache, warnings: list[str]
) -> None:
    heard: queue.Queue[str | None] = queue.Queue()

    def listener(session: RevokedSession) -> None:
        heard.put(session.sid)
        raise ValueError("a secret of the app") if heard.qsize() == 1 else SystemExit("another secret")

    with cache.on_purge(listener):
        people = [sign_in(cache), sign_in(cache)]
        for person in people:
            world.sign_out(sid=person["sid"])
        deadline = time.monotonic() + WITHIN
        while len(warnings) < 2 and time.monotonic() < deadline:
            time.sleep(0.02)
    assert [heard.get_nowait() for _ in people] == [person["sid"] for person in people]
    assert warnings == [f"a listener of revoked sessions failed: {name}" for name in ("ValueError", "SystemExit")]
    assert heard.empty()


def test_stopping_waits_for_the_listener_and_may_come_from_it(cache: SharedTokenCache, world: World) -> None:
    finished = threading.Event()
    begun = threading.Event()

    def slow(_: RevokedSession) -> None:
        begun.set()
        time.sleep(0.05)
        finished.set()

    listener = cache.on_purge(slow)
    world.sign_out(sid=sign_in(cache)["sid"])
    assert begun.wait(WITHIN)
    listener.stop()
    assert finished.is_set()
    listener.stop()

    stopped = threading.Event()

    def stop(_: RevokedSession) -> None:
        own.stop()
        stopped.set()

    own = cache.on_purge(stop)
    world.sign_out(sid=sign_in(cache)["sid"])
    assert stopped.wait(WITHIN)
    own.stop()
    assert threads() == set()


def test_the_only_connection_is_not_for_listening(database_url: str, world: World, cache: SharedTokenCache) -> None:
    with psycopg.connect(database_url) as connection:
        with pytest.raises(TokenCacheMisuse, match="a connection of its own"):
            SharedTokenCache(connection, CLIENT_ID).on_purge(print)
        heard: queue.Queue[RevokedSession] = queue.Queue()
        listening = SharedTokenCache(connection, CLIENT_ID, listen_database=lambda: psycopg.connect(database_url))
        with listening.on_purge(heard.put):
            alice = sign_in(cache)
            world.sign_out(sid=alice["sid"])
            assert heard.get(timeout=WITHIN).sid == alice["sid"]
    assert threads() == set()

"""Connections of every kind, time limits, and what the database says."""

from __future__ import annotations

import os
import socket
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from typing import Any

import pg8000.dbapi
import psycopg
import psycopg2
import psycopg2.extras
import psycopg2.pool
import psycopg_pool
import pytest
import sqlalchemy

from conftest import World, statement_with
from msal_logout import DatabaseFailed, Encryption, SharedTokenCache, SignedOut, TokenCacheMisuse
from msal_logout.connections import Connections
from provider import CLIENT_ID, ISSUER, Provider, someone

KEYS = {"k1": b"1" * 32}


def pg8000_arguments(url: str) -> dict[str, Any]:
    parts = psycopg.conninfo.conninfo_to_dict(url)
    return {
        "user": parts["user"],
        "password": parts["password"],
        "host": parts["host"],
        "port": int(str(parts["port"])),
        "database": parts["dbname"],
    }


@pytest.fixture
def open_database(database_url: str) -> Iterator[Callable[[str], Any]]:
    """Makes a database argument of each kind, and closes it."""
    closing: list[Callable[[], object]] = []

    def make(kind: str) -> Any:
        if kind == "psycopg 3 pool":
            pool = psycopg_pool.ConnectionPool(database_url, min_size=1, max_size=2, open=True)
            closing.append(pool.close)
            return pool
        if kind == "psycopg 3 pool of dictionaries":
            options = {"row_factory": psycopg.rows.dict_row, "autocommit": True}
            pool = psycopg_pool.ConnectionPool(database_url, min_size=1, max_size=2, kwargs=options, open=True)
            closing.append(pool.close)
            return pool
        if kind == "psycopg 2 pool":
            old = psycopg2.pool.ThreadedConnectionPool(1, 2, database_url)
            closing.append(old.closeall)
            return old
        if kind == "psycopg 2 pool of dictionaries":
            old = psycopg2.pool.ThreadedConnectionPool(
                1, 2, database_url, cursor_factory=psycopg2.extras.RealDictCursor
            )
            closing.append(old.closeall)
            return old
        if kind.startswith("SQLAlchemy"):
            driver = kind.split()[-1]
            engine = sqlalchemy.create_engine(database_url.replace("postgres://", f"postgresql+{driver}://"))
            closing.append(engine.dispose)
            return engine
        if kind == "function of psycopg 3":
            return lambda: psycopg.connect(database_url)
        if kind == "function of psycopg 2":
            return lambda: psycopg2.connect(database_url)
        if kind == "function of pg8000":
            return lambda: pg8000.dbapi.connect(**pg8000_arguments(database_url))
        if kind == "connection of psycopg 3":
            connection: Any = psycopg.connect(database_url)
        elif kind == "connection of psycopg 2":
            connection = psycopg2.connect(database_url)
        else:
            connection = pg8000.dbapi.connect(**pg8000_arguments(database_url))
        closing.append(connection.close)
        return connection

    yield make
    for close in closing:
        close()


KINDS = [
    "psycopg 3 pool",
    "psycopg 3 pool of dictionaries",
    "psycopg 2 pool",
    "psycopg 2 pool of dictionaries",
    "SQLAlchemy with psycopg",
    "SQLAlchemy with psycopg2",
    "SQLAlchemy with pg8000",
    "function of psycopg 3",
    "function of psycopg 2",
    "function of pg8000",
    "connection of psycopg 3",
    "connection of psycopg 2",
    "connection of pg8000",
]


@pytest.mark.parametrize("kind", KINDS)
def test_the_whole_round(kind: str, open_database: Callable[[str], Any], world: World) -> None:
    provider = Provider()
    cache = SharedTokenCache(open_database(kind), CLIENT_ID, encryption=Encryption("k1", KEYS))
    cache_check_finds_only_the_owner(cache)
    alice = someone()
    with cache.login() as tokens:
        provider.redeem(tokens, alice)
    with cache.account(alice["homeAccountId"]) as tokens:
        assert provider.silent(tokens, ("api-2",)) is not None
    assert cache.is_session_active(ISSUER, alice["sid"])
    with cache.app(alice["sid"]) as app:
        provider.client(app).acquire_token_for_client(["x/.default"])
    assert idle_in_transaction(world) == 0
    world.sign_out(sid=alice["sid"])
    assert not cache.is_session_active(ISSUER, alice["sid"])
    with pytest.raises(SignedOut), cache.account(alice["homeAccountId"]):
        pass


def cache_check_finds_only_the_owner(cache: SharedTokenCache) -> None:
    with pytest.raises(TokenCacheMisuse) as raised:
        cache.check()
    assert "is a superuser" in str(raised.value)
    assert "\n" not in str(raised.value)


def idle_in_transaction(world: World) -> int:
    return int(
        world.query(
            "select count(*) from pg_stat_activity where state like 'idle in transaction%%'"
            " and datname = current_database()"
        )[0][0]
    )


def test_the_settings_of_a_connection_stay_as_they_were(database_url: str) -> None:
    for connect in (psycopg.connect, psycopg2.connect):
        connection: Any = connect(database_url)
        cache = SharedTokenCache(connection, CLIENT_ID)
        cache.is_session_active(ISSUER, "x")
        assert connection.autocommit is False
        connection.autocommit = True
        cache.is_session_active(ISSUER, "x")
        assert connection.autocommit is True
        connection.close()


class TestMisuse:
    @pytest.mark.parametrize(
        ("database", "message"),
        [
            ("postgres://db", "a URL is no connection"),
            (None, "NoneType is neither a pool"),
            (7, "int is neither a pool"),
            (psycopg_pool.AsyncConnectionPool("", open=False), "asynchronous"),
            (psycopg.AsyncConnection, "asynchronous"),
        ],
    )
    def test_what_is_no_database(self, database: Any, message: str) -> None:
        with pytest.raises(TokenCacheMisuse, match=message):
            SharedTokenCache(database, CLIENT_ID)

    def test_a_function_that_returns_no_connection(self) -> None:
        with pytest.raises(TokenCacheMisuse, match="must return a DB-API connection"):
            SharedTokenCache(lambda: "x", CLIENT_ID).is_session_active(ISSUER, "x")

    @pytest.mark.parametrize("connect", [psycopg.connect, psycopg2.connect])
    def test_a_connection_in_a_transaction(self, database_url: str, connect: Any, world: World) -> None:
        connection = connect(database_url)
        connection.cursor().execute("select 1")
        with pytest.raises(TokenCacheMisuse, match="commit first, or give SharedTokenCache a pool"):
            SharedTokenCache(connection, CLIENT_ID).is_session_active(ISSUER, "x")
        connection.rollback()
        assert SharedTokenCache(connection, CLIENT_ID).is_session_active(ISSUER, "x") is False
        connection.close()

    def test_a_role_that_is_not_registered(self, role: tuple[str, str], world: World) -> None:
        name, url = role
        cache = SharedTokenCache(lambda: psycopg.connect(url), "client-x")
        with pytest.raises(TokenCacheMisuse, match="register_app"):
            cache.is_session_active(ISSUER, "x")
        with pytest.raises(TokenCacheMisuse, match="register_app"):
            cache.check()
        world.query("select msal_logout.register_app(%s, %s)", "client-x", name)
        cache.check()
        assert cache.is_session_active(ISSUER, "x") is False

    def test_a_role_of_another_app(self, role: tuple[str, str], world: World) -> None:
        name, url = role
        world.query("select msal_logout.register_app(%s, %s)", "client-y", name)
        cache = SharedTokenCache(lambda: psycopg.connect(url), "client-z")
        with pytest.raises(TokenCacheMisuse, match=r'client id "client-z" is not for role .*register_app'):
            cache.is_session_active(ISSUER, "x")
        with pytest.raises(TokenCacheMisuse, match='client id "client-z"'):
            cache.check()

    def test_a_database_without_the_schema(self, database_url: str, world: World) -> None:
        name = f"empty_{os.urandom(6).hex()}"
        with psycopg.connect(database_url, autocommit=True) as connection:
            connection.execute(f"create database {name}")
            try:
                url = psycopg.conninfo.make_conninfo(database_url, dbname=name)
                cache = SharedTokenCache(lambda: psycopg.connect(url), CLIENT_ID)
                with pytest.raises(TokenCacheMisuse, match="migrate the database"):
                    cache.is_session_active(ISSUER, "x")
                with pytest.raises(TokenCacheMisuse, match="migrate the database"):
                    cache.check()
            finally:
                connection.execute(f"drop database {name} with (force)")

    @pytest.mark.parametrize(
        "arguments",
        [
            {"client_id": ""},
            {"client_id": None},
            {"ttl": 90},
            {"encryption": {"current": "k1"}},
            {"timeout": 0},
            {"timeout": "5"},
            {"timeout": float("nan")},
            {"timeout": float("inf")},
        ],
    )
    def test_arguments(self, arguments: dict[str, Any]) -> None:
        with pytest.raises(TokenCacheMisuse, match=next(iter(arguments))):
            SharedTokenCache(lambda: None, **{"client_id": CLIENT_ID, **arguments})


class TestOneCacheForManyUsers:
    """Mistakes of people who come from MSAL's samples."""

    def test_two_sign_ins_on_one_cache(self, cache: SharedTokenCache, provider: Provider, world: World) -> None:
        people = [someone(), someone()]
        with pytest.raises(TokenCacheMisuse, match="two accounts in one cache"), cache.login() as tokens:
            for person in people:
                provider.redeem(tokens, person)
        assert all(world.row(person["homeAccountId"]) is None for person in people)

    def test_a_second_user_in_the_cache_of_the_first(
        self, cache: SharedTokenCache, provider: Provider, world: World
    ) -> None:
        alice, bob = someone(), someone()
        with cache.login() as tokens:
            provider.redeem(tokens, alice)
        before = world.row(alice["homeAccountId"])
        with pytest.raises(TokenCacheMisuse, match="two accounts"), cache.account(alice["homeAccountId"]) as tokens:
            provider.redeem(tokens, bob)
        assert world.row(alice["homeAccountId"]) == before

    def test_an_application_that_is_kept(self, cache: SharedTokenCache, provider: Provider) -> None:
        with cache.login() as tokens:
            client = provider.client(tokens)
            provider.redeem(tokens, someone())
        with pytest.raises(TokenCacheMisuse, match="for each operation"):
            client.get_accounts()
        with pytest.raises(TokenCacheMisuse, match="for each operation"):
            provider.redeem(tokens, someone())

    def test_lines_that_stayed_from_a_sample(self, cache: SharedTokenCache, provider: Provider) -> None:
        with cache.login() as tokens:
            provider.redeem(tokens, someone())
            with pytest.raises(TokenCacheMisuse, match="take out the lines that serialize it"):
                tokens.serialize()
            with pytest.raises(TokenCacheMisuse, match="take out the line"):
                tokens.deserialize("{}")

    def test_a_user_in_the_cache_of_the_app(self, cache: SharedTokenCache, provider: Provider) -> None:
        with pytest.raises(TokenCacheMisuse, match="client credentials"), cache.app("app-of-users") as tokens:
            provider.redeem(tokens, someone())

    def test_client_credentials_in_the_cache_of_a_login(self, cache: SharedTokenCache, provider: Provider) -> None:
        with pytest.raises(TokenCacheMisuse, match=r"use app\(\)"), cache.login() as tokens:
            provider.client(tokens).acquire_token_for_client(["x/.default"])

    def test_client_credentials_in_the_cache_of_a_user(
        self, cache: SharedTokenCache, provider: Provider, world: World
    ) -> None:
        alice = someone()
        with cache.login() as tokens:
            provider.redeem(tokens, alice)
        before = world.row(alice["homeAccountId"])
        with (
            pytest.raises(TokenCacheMisuse, match=r"use app\(\)"),
            cache.account(alice["homeAccountId"]) as tokens,
        ):
            provider.client(tokens).acquire_token_for_client(["x/.default"])
        assert world.row(alice["homeAccountId"]) == before

    def test_another_client_id(self, pool: Any, provider: Provider) -> None:
        cache = SharedTokenCache(pool, "client-b")
        with pytest.raises(TokenCacheMisuse, match="the client id of the MSAL application"), cache.login() as tokens:
            provider.redeem(tokens, someone())

    @pytest.mark.parametrize("account", [None, "", {"home_account_id": "x"}, b"x"])
    def test_what_is_no_account(self, cache: SharedTokenCache, account: Any) -> None:
        with pytest.raises(TokenCacheMisuse, match="must be text"), cache.account(account):
            pass
        with pytest.raises(TokenCacheMisuse, match="must be text"):
            cache.remove_account(account)

    @pytest.mark.parametrize("kind", KINDS)
    @pytest.mark.parametrize("account", ["a\0b", "a\ud800b"])
    def test_an_id_that_no_database_can_store(
        self, kind: str, account: str, open_database: Callable[[str], Any]
    ) -> None:
        cache = SharedTokenCache(open_database(kind), CLIENT_ID)
        with pytest.raises(TokenCacheMisuse, match="see where the id comes from"), cache.account(account):
            pass
        with pytest.raises(TokenCacheMisuse, match="see where the id comes from"):
            cache.is_session_active(ISSUER, account)

    @pytest.mark.parametrize("issuer", [None, "", b"x"])
    def test_what_is_no_issuer(self, cache: SharedTokenCache, issuer: Any) -> None:
        with pytest.raises(TokenCacheMisuse, match='"iss" of its ID token'):
            cache.is_session_active(issuer, "x")

    def test_an_issue_time_in_milliseconds(self, cache: SharedTokenCache, provider: Provider, world: World) -> None:
        provider.claims = {"iat": int(time.time() * 1000)}
        with pytest.raises(TokenCacheMisuse, match="is it in milliseconds"), cache.login() as tokens:
            provider.redeem(tokens, someone())

    def test_a_broken_issue_time_is_cut_to_seconds(
        self, cache: SharedTokenCache, provider: Provider, world: World
    ) -> None:
        provider.claims = {"iat": time.time()}
        alice = someone()
        with cache.login() as tokens:
            provider.redeem(tokens, alice)
        assert world.row(alice["homeAccountId"]) is not None


class TestTimeLimits:
    @pytest.mark.parametrize("kind", ["psycopg 3 pool", "psycopg 2 pool", "function of pg8000"])
    def test_a_statement_that_waits_for_a_lock(
        self, kind: str, open_database: Callable[[str], Any], world: World, provider: Provider, cache: SharedTokenCache
    ) -> None:
        alice = someone()
        with cache.login() as tokens:
            provider.redeem(tokens, alice)
        impatient = SharedTokenCache(open_database(kind), CLIENT_ID, timeout=0.5)
        with world.pool.connection() as connection:
            connection.execute(
                "select 1 from msal_logout.token_cache where partition_key = %s for update", (alice["homeAccountId"],)
            )
            with pytest.raises(DatabaseFailed, match=r"within 0\.5 s"):  # noqa: SIM117
                with impatient.account(alice["homeAccountId"]) as tokens:
                    provider.silent(tokens, force_refresh=True)
        with impatient.account(alice["homeAccountId"]) as tokens:
            assert provider.silent(tokens, force_refresh=True) is not None

    def test_a_statement_that_was_given_up_does_not_run_on(self, pool: Any, world: World) -> None:
        connections = Connections(pool, 0.3)
        with pytest.raises(DatabaseFailed):
            connections.call("select pg_sleep(60), 'given up'", ())
        deadline = time.monotonic() + 10
        running = "select count(*) from pg_stat_activity where query like '%%given up%%' and pid <> pg_backend_pid()"
        while world.query(running + " and state = 'active'")[0][0] and time.monotonic() < deadline:
            time.sleep(0.02)
        assert world.query(running + " and state = 'active'") == [(0,)]

    @pytest.mark.parametrize("module", [psycopg, psycopg2])
    def test_a_server_that_does_not_answer_any_more(self, database_url: str, module: Any) -> None:
        with Frozen(database_url) as frozen:
            cache = SharedTokenCache(lambda: module.connect(frozen.url, connect_timeout=2), CLIENT_ID, timeout=0.5)
            assert cache.is_session_active(ISSUER, "x") is False
            frozen.freeze()
            begun = time.monotonic()
            with pytest.raises(DatabaseFailed, match=r"within 0\.5 s"):
                cache.is_session_active(ISSUER, "x")
            assert time.monotonic() - begun < 30
            frozen.thaw()
            assert cache.is_session_active(ISSUER, "x") is False

    @pytest.mark.parametrize("kind", ["a function", "SQLAlchemy"])
    def test_a_server_that_gives_no_connection(self, database_url: str, kind: str) -> None:
        with Frozen(database_url) as frozen:
            frozen.freeze()
            opened: list[Any] = []

            def connect() -> Any:
                opened.append(psycopg.connect(frozen.url, connect_timeout=20))
                return opened[-1]

            database = (
                sqlalchemy.create_engine("postgresql+psycopg://", creator=connect) if kind != "a function" else connect
            )
            begun = time.monotonic()
            with pytest.raises(DatabaseFailed, match=r"no connection within 0\.5 s"):
                SharedTokenCache(database, CLIENT_ID, timeout=0.5).is_session_active(ISSUER, "x")
            assert time.monotonic() - begun < 15
            frozen.thaw()
            deadline = time.monotonic() + 20
            while kind == "a function" and not (opened and opened[0].closed) and time.monotonic() < deadline:
                time.sleep(0.02)
            assert kind != "a function" or opened[0].closed  # what came too late

    def test_a_pool_that_is_in_use(self, database_url: str) -> None:
        old = psycopg2.pool.ThreadedConnectionPool(1, 1, database_url)
        taken = old.getconn()
        with pytest.raises(DatabaseFailed, match="as many as there are threads"):
            SharedTokenCache(old, CLIENT_ID, timeout=0.2).is_session_active(ISSUER, "x")
        old.putconn(taken)
        assert SharedTokenCache(old, CLIENT_ID, timeout=5).is_session_active(ISSUER, "x") is False
        old.closeall()
        with psycopg_pool.ConnectionPool(database_url, min_size=1, max_size=1) as pool:
            with pool.connection(), pytest.raises(DatabaseFailed, match="no connection to the database"):
                SharedTokenCache(pool, CLIENT_ID, timeout=0.2).is_session_active(ISSUER, "x")
            assert SharedTokenCache(pool, CLIENT_ID).is_session_active(ISSUER, "x") is False

    def test_a_database_that_is_not_there(self) -> None:
        with socket.socket() as nobody:
            nobody.bind(("127.0.0.1", 0))
            url = f"postgres://u:secret@127.0.0.1:{nobody.getsockname()[1]}/db"
            cache = SharedTokenCache(lambda: psycopg.connect(url), CLIENT_ID)
            with pytest.raises(DatabaseFailed) as raised:
                cache.is_session_active(ISSUER, "x")
            with pytest.raises(TokenCacheMisuse, match="see that the URL is right"):
                cache.check()
        assert "secret" not in str(raised.value)
        assert raised.value.code == "ERR_TOKEN_CACHE_DATABASE"

    @pytest.mark.parametrize("connect", [psycopg.connect, psycopg2.connect], ids=["psycopg 3", "psycopg 2"])
    @pytest.mark.parametrize(
        "url",
        [
            "postgres://u:hush hush@127.0.0.1/db",
            "postgres://u:hush@hush@nowhere.invalid/db",
            "postgres://u:hush/hush@127.0.0.1/db",
            "postgres://u:%hush@127.0.0.1/db",
            "postgres://u:hush\nhush@127.0.0.1/db",
            "postgres:/u:hush@127.0.0.1/db",
            "host=127.0.0.1 password=it's hush",
            "host=127.0.0.1 password='hush",
            "host=127.0.0.1 hush",
            "host=127.0.0.1 port=hush",
        ],
    )
    def test_a_connection_string_that_cannot_be_read_is_not_shown(self, connect: Callable[..., Any], url: str) -> None:
        cache = SharedTokenCache(lambda: connect(url), CLIENT_ID)
        with pytest.raises(DatabaseFailed) as raised:
            cache.is_session_active(ISSUER, "x")
        assert "hush" not in "".join(traceback.format_exception(raised.type, raised.value, raised.tb))


class TestLostConnections:
    @pytest.mark.parametrize(
        "kind",
        [
            "psycopg 3 pool",
            "psycopg 2 pool",
            "SQLAlchemy with psycopg",
            "function of psycopg 3",
            "function of psycopg 2",
            "function of pg8000",
        ],
    )
    def test_a_call_survives_connections_that_were_cut_while_idle(
        self, kind: str, open_database: Callable[[str], Any], world: World
    ) -> None:
        cache = SharedTokenCache(open_database(kind), CLIENT_ID)
        threads = [threading.Thread(target=cache.is_session_active, args=(ISSUER, "x")) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        world.query(
            "select pg_terminate_backend(pid) from pg_stat_activity"
            " where query like '%%msal_logout.session_active(client_id%%' and pid <> pg_backend_pid()"
        )
        assert cache.is_session_active(ISSUER, "x") is False

    def test_a_login_whose_answer_was_lost_is_stored_once(self, world: World, provider: Provider) -> None:
        alice = someone()
        calls: list[str] = []

        class Losing(psycopg.Connection[Any]):
            """Loses the connection once, after the server has committed."""

        def connect() -> Any:
            return Losing.connect(os.environ["TEST_DATABASE_URL"])

        from msal_logout import connections

        run = connections._run

        def lose(connection: Any, statement: str, values: Any) -> Any:
            rows = run(connection, statement, values)
            if "login" in statement:
                calls.append("login")
                if len(calls) == 1:
                    connection.close()
                    raise psycopg.OperationalError("the connection is lost")
            return rows

        monkeypatch = pytest.MonkeyPatch()
        monkeypatch.setattr(connections, "_run", lose)
        try:
            cache = SharedTokenCache(connect, CLIENT_ID)
            with cache.login() as tokens:
                provider.redeem(tokens, alice)
        finally:
            monkeypatch.undo()
        assert calls == ["login", "login"]
        with cache.account(alice["homeAccountId"]) as tokens:
            assert provider.silent(tokens, force_refresh=True) is not None

    def test_serializable_as_the_default(self, database_url: str, world: World) -> None:
        url = psycopg.conninfo.make_conninfo(
            database_url, options="-c default_transaction_isolation=serializable -c default_transaction_read_only=off"
        )
        cache = SharedTokenCache(lambda: psycopg.connect(url), CLIENT_ID)
        alice = someone()
        with cache.login() as tokens:
            Provider().redeem(tokens, alice)
        barrier = threading.Barrier(4)
        errors: list[BaseException] = []

        def refresh(i: int) -> None:
            try:
                with cache.account(alice["homeAccountId"]) as tokens:
                    barrier.wait(30)
                    Provider().silent(tokens, (f"r-{i}",))
            except BaseException as error:
                errors.append(error)

        threads = [threading.Thread(target=refresh, args=(i,)) for i in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert errors == []
        stored = world.stored(alice["homeAccountId"])
        assert stored is not None
        assert len(stored["AccessToken"]) == 5


def test_tokens_are_in_no_statement(database_url: str) -> None:
    """PostgreSQL may log statements: psycopg 3 and pg8000 send parameters apart, psycopg 2 cannot."""
    for connect in (
        lambda: psycopg.connect(database_url),
        lambda: psycopg.connect(database_url, cursor_factory=psycopg.ClientCursor),
        lambda: pg8000.dbapi.connect(**pg8000_arguments(database_url)),
    ):
        assert "a token" not in statement_with("a token", connect)
    assert "a token" in statement_with("a token", lambda: psycopg2.connect(database_url))


def test_few_connections_are_kept_and_closed(database_url: str) -> None:
    opened: list[Any] = []

    def connect() -> Any:
        opened.append(psycopg.connect(database_url))
        return opened[-1]

    cache = SharedTokenCache(connect, CLIENT_ID)
    threads = [threading.Thread(target=cache.is_session_active, args=(ISSUER, "x")) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(not connection.closed for connection in opened) <= 4
    cache.close()
    assert all(connection.closed for connection in opened)


def test_an_error_of_the_database_quotes_no_payload(pool: Any, world: World) -> None:
    world.query("create table if not exists quoting (payload bytea check (length(payload) = 0))")
    connections = Connections(pool, 5)
    with pytest.raises(DatabaseFailed) as raised:
        connections.call("insert into quoting values (%s::bytea) returning 1", (b"a token",))
    shown = repr(raised.value) + str(raised.value) + repr(raised.value.__cause__)
    assert raised.value.sqlstate == "23514"
    assert b"a token".hex() not in shown
    assert raised.value.__suppress_context__ is True


def test_a_fork_inherits_no_connection(database_url: str) -> None:
    cache = SharedTokenCache(lambda: psycopg.connect(database_url), CLIENT_ID)
    shared = SharedTokenCache(psycopg.connect(database_url), CLIENT_ID)
    assert cache.is_session_active(ISSUER, "x") is False
    child = os.fork()
    if child == 0:
        outcome = 1
        try:
            if cache.is_session_active(ISSUER, "x") is False:
                try:
                    shared.is_session_active(ISSUER, "x")
                except TokenCacheMisuse as error:
                    outcome = 0 if "before the fork" in str(error) else 2
        finally:
            os._exit(outcome)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert cache.is_session_active(ISSUER, "x") is False
    assert shared.is_session_active(ISSUER, "x") is False


class Frozen:
    """A way to the database on which nothing gets through while it is frozen, as where a host has vanished."""

    def __init__(self, database_url: str) -> None:
        parts = psycopg.conninfo.conninfo_to_dict(database_url)
        self._target = (str(parts["host"]), int(str(parts["port"])))
        self._server = socket.create_server(("127.0.0.1", 0))
        self._flowing = threading.Event()
        self._flowing.set()
        self._sockets: list[socket.socket] = []
        self.url = psycopg.conninfo.make_conninfo(
            database_url, host="127.0.0.1", port=self._server.getsockname()[1], sslmode="disable"
        )
        threading.Thread(target=self._accept, daemon=True).start()

    def freeze(self) -> None:
        self._flowing.clear()

    def thaw(self) -> None:
        self._flowing.set()

    def _accept(self) -> None:
        while True:
            try:
                near = self._server.accept()[0]
            except OSError:
                return
            far = socket.create_connection(self._target)
            self._sockets += [near, far]
            for source, target in ((near, far), (far, near)):
                threading.Thread(target=self._copy, args=(source, target), daemon=True).start()

    def _copy(self, source: socket.socket, target: socket.socket) -> None:
        try:
            while data := source.recv(65536):
                self._flowing.wait()
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)
        except OSError:
            pass

    def __enter__(self) -> Frozen:
        return self

    def __exit__(self, *_: object) -> None:
        self._flowing.set()
        self._server.close()
        for each in self._sockets:
            each.close()

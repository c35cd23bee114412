from __future__ import annotations

import json
import os
import urllib.request
import uuid
from collections.abc import Iterator
from typing import Any

import psycopg
import psycopg_pool
import pytest

from msal_logout import SharedTokenCache
from msal_logout.connections import Connections
from provider import CLIENT_ID, Provider

reports: list[str] = []
"""Figures, which are printed at the end."""


def pytest_terminal_summary(terminalreporter: Any) -> None:
    for line in reports:
        terminalreporter.write_line(f"# {line}")


MISSING = 'is not set: run the tests by "npm run test:python"'


def environment(name: str) -> str:
    value = os.environ.get(name)
    if value is None:
        pytest.exit(f"{name} {MISSING}", returncode=2)
    return value


def statement_with(parameter: str, database: Any) -> str:
    """A statement with this parameter, as the server sees and may log it."""
    connections = Connections(database, 10)
    rows = connections.call(
        "select query from pg_stat_activity where pid = pg_backend_pid() and length(%s::text) > 0", (parameter,)
    )
    connections.close()
    return str(rows[0][0])


@pytest.fixture(scope="session")
def database_url() -> str:
    return environment("TEST_DATABASE_URL")


@pytest.fixture(scope="session")
def pool(database_url: str) -> Iterator[psycopg_pool.ConnectionPool]:
    with psycopg_pool.ConnectionPool(database_url, min_size=1, max_size=8, timeout=10) as pool:
        yield pool


urlpatterns: list[Any] = []
middleware: list[Any] = []


def guarded(get_response: Any) -> Any:
    """Django's middleware of the present test."""
    return middleware[-1](get_response)


def configure_django(database_url: str) -> None:
    """Once for a process, as Django will have it; a test adds to ``urlpatterns`` and ``middleware``."""
    import django
    from django.conf import settings

    if settings.configured:
        return
    parts = psycopg.conninfo.conninfo_to_dict(database_url)
    settings.configure(
        ALLOWED_HOSTS=["*"],
        SECRET_KEY="secret",
        ROOT_URLCONF=__name__,
        DATABASES={
            "default": {
                "ENGINE": "django.db.backends.postgresql",
                "NAME": parts["dbname"],
                "USER": parts["user"],
                "PASSWORD": parts["password"],
                "HOST": parts["host"],
                "PORT": parts["port"],
                "ATOMIC_REQUESTS": True,
            }
        },
        INSTALLED_APPS=["django.contrib.sessions"],
        SESSION_ENGINE="django.contrib.sessions.backends.signed_cookies",
        MIDDLEWARE=["django.contrib.sessions.middleware.SessionMiddleware", f"{__name__}.guarded"],
    )
    django.setup()


class World:
    """The service, which obeys the logout tokens of a provider, and what the database holds."""

    def __init__(self, url: str, pool: psycopg_pool.ConnectionPool) -> None:
        self.url = url
        self.pool = pool

    def sign_out(self, **selector: str) -> None:
        """A logout token of ``sid`` or ``subject``, posted to the service."""
        self._post("/control/sign-out", selector)

    def purge(self, home_account_id: str) -> None:
        self._post("/control/purge", {"homeAccountId": home_account_id})

    def _post(self, path: str, body: dict[str, str]) -> None:
        request = urllib.request.Request(self.url + path, json.dumps(body).encode(), method="POST")
        with urllib.request.urlopen(request, timeout=30) as answer:
            assert answer.status == 200

    def query(self, text: str, *values: Any) -> list[tuple[Any, ...]]:
        with self.pool.connection() as connection:
            cursor = connection.execute(text, values)
            return cursor.fetchall() if cursor.description else []

    def row(self, partition_key: str, client_id: str = CLIENT_ID) -> tuple[Any, ...] | None:
        """kind, payload, encoding, home_account_id"""
        rows = self.query(
            "select kind, payload, encoding, home_account_id from msal_logout.token_cache"
            " where partition_key = %s and client_id = %s",
            partition_key,
            client_id,
        )
        return rows[0] if rows else None

    def stored(self, partition_key: str) -> dict[str, Any] | None:
        """The cache in a plain row."""
        row = self.row(partition_key)
        return None if row is None else json.loads(row[1])


@pytest.fixture(scope="session")
def world(pool: psycopg_pool.ConnectionPool) -> World:
    return World(environment("TEST_ENDPOINT"), pool)


@pytest.fixture
def provider() -> Provider:
    return Provider()


@pytest.fixture
def warnings() -> list[str]:
    return []


@pytest.fixture
def cache(pool: psycopg_pool.ConnectionPool, warnings: list[str]) -> SharedTokenCache:
    return SharedTokenCache(pool, CLIENT_ID, on_warning=warnings.append)


@pytest.fixture
def role(world: World, database_url: str) -> Iterator[tuple[str, str]]:
    """A role that may log in and is registered for nothing: its name, and a URL for it."""
    name = f"role_{uuid.uuid4().hex[:12]}"
    world.query(f"create role {name} login password 'test'")
    parts = psycopg.conninfo.conninfo_to_dict(database_url)
    yield name, psycopg.conninfo.make_conninfo(**{**parts, "user": name, "password": "test"})
    world.query(f"drop owned by {name}")
    world.query(f"drop role {name}")

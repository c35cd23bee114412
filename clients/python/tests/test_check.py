"""What `check` finds before the first user does."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from conftest import World
from msal_logout import SharedTokenCache, TokenCacheMisuse, check


def problems(url: str, client_id: str) -> str:
    cache = SharedTokenCache(lambda: psycopg.connect(url), client_id)
    try:
        cache.check()
    except TokenCacheMisuse as error:
        return str(error)
    finally:
        cache.close()
    return ""


@pytest.fixture
def copy(database_url: str, world: World) -> Iterator[tuple[str, Any]]:
    """Another database with the functions of the schema, to be broken."""
    name = f"check_{uuid.uuid4().hex[:12]}"
    url = psycopg.conninfo.make_conninfo(database_url, dbname=name)
    with psycopg.connect(database_url, autocommit=True) as server:
        server.execute(f"create database {name}")
        try:
            with psycopg.connect(url, autocommit=True) as inside:
                yield url, inside.execute
        finally:
            server.execute(f"drop database {name} with (force)")


def test_all_is_well(role: tuple[str, str], world: World) -> None:
    name, url = role
    client_id = f"client-{uuid.uuid4()}"
    world.query("select msal_logout.register_app(%s, %s)", client_id, name)
    assert problems(url, client_id) == ""


def test_a_schema_that_is_not_there(copy: tuple[str, Any]) -> None:
    assert problems(copy[0], "client-a") == (
        'there is no schema "msal_logout": migrate the database ("msal-logout migrate"), '
        "and see that this is the right database"
    )


def test_a_schema_that_is_older(copy: tuple[str, Any]) -> None:
    url, execute = copy
    execute("create schema msal_logout")
    for function in check._FUNCTIONS:
        name, argument = function.split(".")
        if name == "session_active":
            argument = "sid"
        execute(f"create function msal_logout.{name}({argument} text) returns void language sql as ''")
    found = problems(url, "client-a")
    assert found.startswith('the schema "msal_logout" is older than this package (in session_active): migrate')


def test_an_encoding(database_url: str) -> None:
    name = f"latin_{uuid.uuid4().hex[:12]}"
    with psycopg.connect(database_url, autocommit=True) as server:
        server.execute(f"create database {name} encoding latin1 lc_collate 'C' lc_ctype 'C' template template0")
        try:
            found = problems(psycopg.conninfo.make_conninfo(database_url, dbname=name), "client-a")
            assert "encoding is LATIN1, and must be UTF8" in found
        finally:
            server.execute(f"drop database {name} with (force)")


def test_an_owner_that_is_no_superuser(role: tuple[str, str], world: World) -> None:
    name, url = role
    owner = world.query("select nspowner::regrole::text from pg_namespace where nspname = 'msal_logout'")[0][0]
    world.query(f"grant {owner} to {name}")
    assert f'role "{name}" owns the schema' in problems(url, "client-a")


@pytest.mark.parametrize(
    ("version", "is_too_old"),
    [("1.20.0", True), ("1.9", True), ("0.9.0", True), ("1.21.0", False), ("1.39.0", False), ("2.0.0b1", False)],
)
def test_the_version_of_msal(version: str, is_too_old: bool) -> None:
    assert bool(check._msal_problems(version)) is is_too_old

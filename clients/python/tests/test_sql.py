"""The table of SQL functions in clients/conformance/README.md, against the schema."""

from __future__ import annotations

import pathlib
import re
from typing import Any

import psycopg
import pytest

from conftest import World
from provider import ISSUER, now, someone

PAGE = (pathlib.Path(__file__).parents[2] / "conformance/README.md").read_text("utf-8")
ROWS = re.findall(r"^\| `(\w+)\(([^)]*)\)` \|([^|]*)\|", PAGE, re.MULTILINE)


def test_all_functions_of_apps_are_in_it(role: tuple[str, str], world: World) -> None:
    name, _ = role
    world.query("select msal_logout.register_app('client-sql', %s)", name)
    granted = world.query(
        "select proname from pg_proc where pronamespace = 'msal_logout'::regnamespace"
        " and has_function_privilege(%s, oid, 'execute') order by 1",
        name,
    )
    assert sorted(name for name, _, _ in ROWS) == [function for (function,) in granted]


@pytest.mark.parametrize(("name", "arguments", "_nulls"), ROWS)
def test_arguments(name: str, arguments: str, _nulls: str, world: World) -> None:
    [(names, types)] = world.query(
        "select proargnames, array(select format_type(t, null) from unnest(proargtypes) with ordinality u (t, n)"
        " order by n) from pg_proc where pronamespace = 'msal_logout'::regnamespace and proname = %s",
        name,
    )
    assert arguments == ", ".join(f"{n} {t}" for n, t in zip(names, types))


def values(name: str) -> dict[str, Any]:
    person = someone()
    return {
        "client_id": "client-a",
        "partition_key": person["homeAccountId"],
        "home_account_id": person["homeAccountId"],
        "issuer": ISSUER,
        "sid": person["sid"],
        "subject": person["subject"],
        "issued_at": now(),
        "payload": b"{}",
        "encoding": "json",
        "ttl": "1 hour",
        "kind": "user",
        "oid": "o",
        "tid": "t",
        "generation": 1,
        "version": 1,
        "after": 0,
    }


def call(world: World, name: str, arguments: str, given: dict[str, Any]) -> list[tuple[Any, ...]]:
    parts = [part.split() for part in arguments.split(", ")]
    placeholders = ", ".join(f"{argument} => %s::{kind}" for argument, kind in parts)
    return world.query(f"select * from msal_logout.{name}({placeholders})", *[given[argument] for argument, _ in parts])


@pytest.mark.parametrize(("name", "arguments", "nulls"), ROWS)
def test_nulls(name: str, arguments: str, nulls: str, world: World) -> None:
    """Where the table says that an argument may be null it may; a login's others must be given."""
    for part in arguments.split(", "):
        argument = part.split()[0]
        given = {**values(name), argument: None}
        if f"`{argument}`" in nulls:
            call(world, name, arguments, given)
        elif name in ("login", "store_app"):
            with pytest.raises(psycopg.errors.InvalidParameterValue, match=argument):
                call(world, name, arguments, given)


@pytest.mark.parametrize(
    ("changes", "state"),
    [
        ({"issued_at": now() * 1000}, "22023"),
        ({"payload": b"[]"}, "22023"),
        ({"payload": b"\xff"}, "22023"),
        ({"partition_key": "x" * 1025}, "22023"),
        ({"ttl": "-1 hour"}, "22023"),
        ({"kind": "app"}, "22023"),
    ],
)
def test_errors(changes: dict[str, Any], state: str, world: World) -> None:
    name, arguments, _ = ROWS[0]
    with pytest.raises(psycopg.Error) as raised:
        call(world, name, arguments, {**values(name), **changes})
    assert raised.value.sqlstate == state


def test_two_accounts_and_two_users(world: World) -> None:
    name, arguments, _ = ROWS[0]
    given = values(name)
    call(world, name, arguments, given)
    with pytest.raises(psycopg.Error) as raised:
        call(world, name, arguments, {**given, "home_account_id": "another.t"})
    assert raised.value.sqlstate == "ML001"
    with pytest.raises(psycopg.Error) as raised:
        call(world, name, arguments, {**given, "subject": "another", "sid": "another"})
    assert raised.value.sqlstate == "ML002"

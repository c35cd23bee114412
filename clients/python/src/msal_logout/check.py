"""What cannot work, and what to do about it."""

from __future__ import annotations

import re

import msal

from .connections import Connections
from .errors import DatabaseFailed, TokenCacheMisuse

_OLDEST_POSTGRESQL = 14
_OLDEST_MSAL = (1, 21)

_FACTS = """
select
  current_setting('server_version_num')::int / 10000,
  current_setting('server_encoding'),
  pg_is_in_recovery(),
  current_user::text,
  (select rolsuper from pg_roles where rolname = current_user),
  (select pg_has_role(current_user, nspowner, 'usage') from pg_namespace where nspname = 'msal_logout'),
  array(
    select wanted from unnest(%s::text[]) as wanted
    where not exists (
      select from pg_proc p join pg_namespace n on n.oid = p.pronamespace
      where n.nspname = 'msal_logout' and p.proname = split_part(wanted, '.', 1)
        and split_part(wanted, '.', 2) = any (p.proargnames)))
"""

# The last argument that this package gives to each function.
_FUNCTIONS = (
    "login.tid",
    "load.partition_key",
    "save.ttl",
    "add_session.tid",
    "forget.generation",
    "session_active.subject",
    "ended_since.after",
    "store_app.ttl",
)

_MIGRATE = 'migrate the database ("msal-logout migrate"), and see that this is the right database'


def find_problems(connections: Connections, client_id: str) -> list[str]:
    """Sentences that say what is wrong and what to do; none where all is well.

    A database that cannot be reached is a problem among others.
    """
    return [*_msal_problems(msal.__version__), *_database_problems(connections, client_id)]


def _msal_problems(version: str) -> list[str]:
    numbers = tuple(int(part) for part in re.findall(r"\d+", version)[:2])
    if numbers >= _OLDEST_MSAL:
        return []
    return [f"MSAL Python {version} is older than 1.21: update it"]


def _text(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"


def _database_problems(connections: Connections, client_id: str) -> list[str]:
    try:
        [facts] = connections.call(_FACTS, ("{" + ",".join(_FUNCTIONS) + "}",))
    except (DatabaseFailed, TokenCacheMisuse) as error:
        return [f"{error}: see that the URL is right and that PostgreSQL runs"]
    version, encoding, is_replica, role, is_superuser, owns_schema, missing = facts
    problems = []
    if version < _OLDEST_POSTGRESQL:
        problems.append(f"PostgreSQL is {version}, and must be {_OLDEST_POSTGRESQL} or later: update it")
    if encoding != "UTF8":
        problems.append(f"the database's encoding is {encoding}, and must be UTF8: make another database")
    if is_replica:
        problems.append("the database is a replica, which lags behind a sign-out and stores no login: use the primary")
    if owns_schema is None:
        return [*problems, f'there is no schema "msal_logout": {_MIGRATE}']
    if missing:
        names = ", ".join(name.partition(".")[0] for name in missing)
        return [*problems, f'the schema "msal_logout" is older than this package (in {names}): {_MIGRATE}']
    if is_superuser or owns_schema:
        problems.append(
            f'role "{role}" {"is a superuser" if is_superuser else "owns the schema"}, and could read every '
            "app's rows: make a role for this app, and let an administrator register it: "
            f"select msal_logout.register_app({_text(client_id)}, '<role>')"
        )
    try:
        connections.call(
            "select 1 from msal_logout.load(client_id => %s::text, partition_key => %s::text)", (client_id, "check")
        )
    except (DatabaseFailed, TokenCacheMisuse) as error:
        problems.append(str(error))
    return problems

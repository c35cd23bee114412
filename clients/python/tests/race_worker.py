"""A process of a web app, for races: it does what it reads, a JSON object a line, on connections of its own."""

from __future__ import annotations

import json
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import msal
import psycopg_pool

from msal_logout import Encryption, SharedTokenCache, SignedOut
from provider import CLIENT_ID, Provider

_writing = threading.Lock()


def write(line: dict[str, Any]) -> None:
    with _writing:
        print(json.dumps(line), flush=True)


def main(database_url: str, kind: str) -> None:
    pool = psycopg_pool.ConnectionPool(database_url, min_size=4, max_size=8, open=True)
    encryption = Encryption("k1", {"k1": b"1" * 32}) if kind == "encrypted" else None
    cache = SharedTokenCache(pool, CLIENT_ID, encryption=encryption, on_warning=lambda _: None)

    releases: dict[int, threading.Event] = {}

    def before_answer(task: dict[str, Any]) -> None:
        if task.get("hold"):
            releases[task["id"]] = threading.Event()
            write({"id": task["id"], "isAtProvider": True})
            releases[task["id"]].wait()
        time.sleep(task["delayMs"] / 1000)

    def perform(task: dict[str, Any]) -> None:
        provider = Provider()
        provider.before_answer = lambda _: before_answer(task)
        try:
            if kind == "sample":
                sample(pool, provider, task)
            elif "person" in task:
                with cache.login() as tokens:
                    provider.redeem(tokens, task["person"])
            else:
                with cache.account(task["account"]) as tokens:
                    provider.silent(tokens, (task["scope"],), force_refresh=True)
            outcome = "done"
        except SignedOut as error:
            outcome = error.code
        except Exception as error:
            outcome = f"{type(error).__name__}: {error}"
        write({"id": task["id"], "outcome": outcome})

    with ThreadPoolExecutor(16) as executor:
        print("ready", flush=True)
        for line in sys.stdin:
            task = json.loads(line)
            if "release" in task:
                releases[task["release"]].set()
            else:
                executor.submit(perform, task)
    pool.close()


def sample(pool: psycopg_pool.ConnectionPool, provider: Provider, task: dict[str, Any]) -> None:
    """As MSAL Python's documentation says: deserialize, use, and store what has_state_changed."""
    key = task.get("account") or task["person"]["homeAccountId"]
    cache = msal.SerializableTokenCache()
    with pool.connection() as connection:
        row = connection.execute("select value from sample_cache where key = %s", (key,)).fetchone()
    if row is not None:
        cache.deserialize(row[0])
    if "person" in task:
        provider.redeem(cache, task["person"])
    else:
        provider.silent(cache, (task["scope"],), force_refresh=True)
    if cache.has_state_changed:
        with pool.connection() as connection:
            connection.execute(
                "insert into sample_cache values (%s, %s) on conflict (key) do update set value = excluded.value",
                (key, cache.serialize()),
            )


main(*sys.argv[1:])

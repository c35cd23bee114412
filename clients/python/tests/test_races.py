"""Real races between processes of Python, against the real service. RACES says how many of each: 1,000 is the proof."""

from __future__ import annotations

import collections
import functools
import json
import os
import pathlib
import random
import statistics
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest

from conftest import World, reports
from provider import now, someone

RACES = int(os.environ.get("RACES", "30"))
PROCESSES = 3
AT_ONCE = 8


class Workers:
    def __init__(self, database_url: str, kind: str) -> None:
        self._waiting: dict[int, Future[str]] = {}
        self._at_provider: dict[int, threading.Event] = {}
        self._lock = threading.Lock()
        self._ids = 0
        program = pathlib.Path(__file__).with_name("race_worker.py")
        self._processes = [
            subprocess.Popen(
                [sys.executable, str(program), database_url, kind],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                bufsize=1,
            )
            for _ in range(PROCESSES)
        ]
        for process in self._processes:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        for process in self._processes:
            threading.Thread(target=self._read, args=(process,), daemon=True).start()

    def _read(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            answer = json.loads(line)
            if "isAtProvider" in answer:
                self._at_provider[answer["id"]].set()
                continue
            with self._lock:
                waiting = self._waiting.pop(answer["id"])
            waiting.set_result(answer["outcome"])

    def perform(self, **task: Any) -> Future[str]:
        """Does it in the next process of the round."""
        return self._begin(task)[1]

    def _begin(self, task: dict[str, Any]) -> tuple[int, Future[str]]:
        future: Future[str] = Future()
        with self._lock:
            self._ids += 1
            task["id"] = self._ids
            self._waiting[self._ids] = future
            self._at_provider[self._ids] = threading.Event()
            self._write(task["id"], task)
            return self._ids, future

    def _write(self, task_id: int, line: dict[str, Any]) -> None:
        process = self._processes[task_id % PROCESSES]
        assert process.stdin is not None
        process.stdin.write(json.dumps(line) + "\n")
        process.stdin.flush()

    def refresh_meanwhile(self, person: dict[str, Any], meanwhile: Callable[[], None]) -> str:
        """A refresh that is at the provider while something happens."""
        task_id, future = self._begin({"account": person["homeAccountId"], "scope": "held", "delayMs": 0, "hold": True})
        assert self._at_provider[task_id].wait(60)
        meanwhile()
        with self._lock:
            self._write(task_id, {"release": task_id})
        return future.result(60)

    def login(self, person: dict[str, Any], delay_ms: float = 0) -> Future[str]:
        return self.perform(person=person, delayMs=delay_ms)

    def refresh(self, person: dict[str, Any], scope: str, delay_ms: float) -> Future[str]:
        return self.perform(account=person["homeAccountId"], scope=scope, delayMs=delay_ms)

    def stop(self) -> None:
        for process in self._processes:
            assert process.stdin is not None
            process.stdin.close()
        for process in self._processes:
            process.wait(30)


@contextmanager
def workers(database_url: str, kind: str) -> Iterator[Workers]:
    started = Workers(database_url, kind)
    try:
        yield started
    finally:
        started.stop()


def repeat(count: int, race: Callable[[int], None]) -> None:
    """Runs so many, a few at once."""
    with ThreadPoolExecutor(AT_ONCE) as executor:
        for outcome in [executor.submit(race, i) for i in range(count)]:
            outcome.result(600)


def pause(max_seconds: float) -> None:
    time.sleep(random.random() * max_seconds)


def measure(apps: Workers, refreshes: int) -> tuple[float, float]:
    """How many seconds a login and its refreshes take here and now, so that a sign-out comes before, amid and after."""
    times: list[tuple[float, float]] = []

    def try_one(_: int) -> None:
        alice = someone()
        begun = time.monotonic()
        assert apps.login(alice, some_delay()).result(60) == "done"
        signed_in = time.monotonic()
        for refresh in [apps.refresh(alice, f"r-{i}", some_delay()) for i in range(refreshes)]:
            assert refresh.result(60) == "done"
        times.append((signed_in - begun, time.monotonic() - signed_in))

    repeat(4 * AT_ONCE, try_one)
    warm = times[2 * AT_ONCE :]
    return statistics.median(login for login, _ in warm), statistics.median(refresh for _, refresh in warm)


def report(line: str) -> None:
    reports.append(line)


def some_delay(max_ms: float = 8) -> float:
    return random.random() * max_ms


@pytest.mark.parametrize("kind", ["plain", "encrypted"])
def test_a_purge_amid_five_refreshes_in_several_processes_is_never_undone(
    kind: str, database_url: str, world: World
) -> None:
    outcomes: collections.Counter[str] = collections.Counter()
    undone: list[str] = []
    with workers(database_url, kind) as apps:
        _, refresh_seconds = measure(apps, 5)

        def race(number: int) -> None:
            alice = someone(issuedAt=now() - 5)
            assert apps.login(alice).result(60) == "done"
            sign_out = functools.partial(world.sign_out, sid=alice["sid"])
            if number % 10 == 0:  # amid a refresh, on the slowest machine, too
                outcomes.update([apps.refresh(alice, "r", 0).result(60), apps.refresh_meanwhile(alice, sign_out)])
            else:
                refreshes = [apps.refresh(alice, f"r-{i}", some_delay()) for i in range(5)]
                pause(refresh_seconds)
                sign_out()
                outcomes.update([refresh.result(60) for refresh in refreshes])
            if world.row(alice["homeAccountId"]) is not None:
                undone.append(alice["homeAccountId"])

        repeat(RACES, race)
    report(f"{kind}: {RACES} purges amid refreshes: undone {len(undone)}; the refreshes: {dict(outcomes)}")
    assert undone == []
    assert set(outcomes) <= {"done", "ERR_SIGNED_OUT"}
    assert len(outcomes) == 2, "the purge came before and after"


def test_the_control_msals_documented_sample_brings_purged_rows_back(database_url: str, world: World) -> None:
    world.query("create table if not exists sample_cache (key text primary key, value text not null)")
    count = min(RACES, 200)
    outcomes: collections.Counter[str] = collections.Counter()
    undone: list[str] = []
    with workers(database_url, "sample") as apps:
        _, refresh_seconds = measure(apps, 5)

        def race(number: int) -> None:
            alice = someone()
            assert apps.login(alice).result(60) == "done"

            def purge() -> None:
                world.query("delete from sample_cache where key = %s", alice["homeAccountId"])

            if number % 10 == 0:
                outcomes.update([apps.refresh_meanwhile(alice, purge)])
            else:
                refreshes = [apps.refresh(alice, f"r-{i}", some_delay()) for i in range(5)]
                pause(refresh_seconds)
                purge()
                outcomes.update([refresh.result(60) for refresh in refreshes])
            if world.query("select 1 from sample_cache where key = %s", alice["homeAccountId"]):
                undone.append(alice["homeAccountId"])

        repeat(count, race)
    report(f"the control, MSAL's documented sample: {count} purges: undone {len(undone)}; {dict(outcomes)}")
    assert set(outcomes) == {"done"}
    assert undone, "so the check can fail"


@pytest.mark.parametrize("kind", ["plain", "encrypted"])
def test_a_login_that_races_its_own_sign_out_is_never_missed_and_a_later_one_works(
    kind: str, database_url: str, world: World
) -> None:
    outcomes: collections.Counter[str] = collections.Counter()
    missed: list[str] = []
    with workers(database_url, kind) as apps:
        login_seconds, _ = measure(apps, 0)

        def race(i: int) -> None:
            alice = someone(issuedAt=now() - 5)
            if i % 10:
                login = apps.login(alice, some_delay(6))
                pause(login_seconds)
            world.sign_out(**({"sid": alice["sid"]} if i % 2 else {"subject": alice["subject"]}))
            if not i % 10:  # it is late on the slowest machine, too
                login = apps.login(alice)
            outcomes.update([login.result(60)])
            if world.row(alice["homeAccountId"]) is not None:
                missed.append(alice["homeAccountId"])
            later = {**alice, "sid": str(uuid.uuid4()), "issuedAt": now() + 3}
            assert apps.login(later).result(60) == "done"
            assert world.row(alice["homeAccountId"]) is not None

        repeat(RACES, race)
    report(f"{kind}: {RACES} logins racing their sign-out: missed {len(missed)}; {dict(outcomes)}; later ones {RACES}")
    assert missed == []
    assert set(outcomes) <= {"done", "ERR_SIGNED_OUT"}
    assert outcomes["ERR_SIGNED_OUT"], "the sign-out came first, too"


def test_an_old_sessions_refresh_never_touches_the_row_of_the_next_login(database_url: str, world: World) -> None:
    touched: list[str] = []
    with workers(database_url, "plain") as apps:
        _, refresh_seconds = measure(apps, 3)

        def race(_: int) -> None:
            alice = someone(issuedAt=now() - 5)
            assert apps.login(alice).result(60) == "done"
            refreshes = [apps.refresh(alice, f"r-{i}", some_delay(12)) for i in range(3)]
            pause(refresh_seconds / 2)
            world.sign_out(sid=alice["sid"])
            following = {**alice, "sid": f"next-{uuid.uuid4()}", "issuedAt": now() + 3}
            assert apps.login(following).result(60) == "done"
            for refresh in refreshes:
                refresh.result(60)
            stored = world.stored(alice["homeAccountId"])
            assert stored is not None
            from provider import decode

            if {decode(token["secret"])["sid"] for token in stored["RefreshToken"].values()} != {following["sid"]}:
                touched.append(alice["homeAccountId"])

        repeat(RACES, race)
    report(f"{RACES} next logins: touched by an old session's refresh {len(touched)}")
    assert touched == []

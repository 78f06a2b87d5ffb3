"""Workers that go before their job's end."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any

import pytest
from distributed import Worker, get_worker
from distributed.core import Status

from n2v_scale import walltime
from n2v_scale.local_cluster import thread_client
from n2v_scale.walltime import ENDS_AT, LEAST_MARGIN_S, MARGIN, InTime, walltime_plugin
from n2v_scale.worker_setup import dask_setup

started: list[tuple[int, int]] = []
"""Tasks, and who began them."""
gate = threading.Event()
plugins: list[InTime] = []


def task(number: int) -> int:
    name = int(get_worker().name)
    started.append((number, name))
    gate.wait(60)
    return name


async def install(dask_worker: Worker) -> None:
    await dask_worker.plugin_add(plugins[0], name=plugins[0].name)


def until(condition: Any) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_the_last_moment_leaves_time_for_the_longest_task(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(walltime.time, "monotonic", lambda: now[0])
    plugin = InTime(10_000.0)
    assert plugin.last_moment() == 10_000 - LEAST_MARGIN_S
    for key, took in (("a", 4.0), ("b", 100.0), ("c", 7.0)):
        plugin.transition(key, "ready", "executing")
        now[0] += took
        plugin.transition(key, "executing", "memory")
        plugin.transition(key, "memory", "released")
    assert plugin.last_moment() == 10_000 - MARGIN * 100
    assert not plugin.begun


def test_tasks_that_run_together_are_timed_each(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(walltime.time, "monotonic", lambda: now[0])
    plugin = InTime(10_000.0)
    plugin.transition("a", "ready", "executing")
    now[0] = 50.0
    plugin.transition("b", "ready", "executing")
    now[0] = 60.0
    plugin.transition("b", "executing", "error")
    assert plugin.longest == 10
    assert set(plugin.begun) == {"a"}
    now[0] = 80.0
    plugin.transition("a", "executing", "cancelled")
    assert plugin.longest == 80


def test_only_jobs_with_an_end_have_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(ENDS_AT, raising=False)
    assert walltime_plugin() is None
    monkeypatch.setenv(ENDS_AT, "1700000000")
    plugin = walltime_plugin()
    assert plugin is not None
    assert plugin.ends_at == 1_700_000_000


@pytest.mark.parametrize("ends_at", ["", "1700000000"])
def test_a_worker_is_given_it_as_it_starts(monkeypatch: pytest.MonkeyPatch, ends_at: str) -> None:
    monkeypatch.setenv(ENDS_AT, ends_at)
    added: list[tuple[InTime, str]] = []

    class FakeWorker:
        async def plugin_add(self, plugin: InTime, name: str) -> None:
            added.append((plugin, name))

    # In a thread of its own, where Ctrl-C is none of its business.
    thread = threading.Thread(target=lambda: asyncio.run(dask_setup(FakeWorker())))
    thread.start()
    thread.join()
    assert [(p.ends_at, name) for p, name in added] == (
        [(1_700_000_000, InTime.name)] if ends_at else []
    )


def test_a_worker_finishes_what_it_has_begun_and_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(walltime, "LOOK_EVERY_S", 0.05)
    started.clear()
    gate.clear()
    plugins[:] = [InTime(time.time() + 3600)]
    with thread_client(1) as client:
        try:
            client.run(install)
            (first,) = client.cluster.workers.values()
            futures = [client.submit(task, number, pure=False) for number in range(3)]
            until(lambda: started)
            plugins[0].ends_at = time.time()
            until(lambda: first.status == Status.paused)
            client.cluster.scale(2)
            until(lambda: len(started) == 2)
            gate.set()
            names = [future.result() for future in futures]
            until(lambda: len(client.nthreads()) == 1)
        finally:
            gate.set()
        assert [number for number, name in started if name == 0] == [0]
        assert sorted(number for number, _ in started) == [0, 1, 2]  # nothing began twice
        assert names == [0, 1, 1]
        until(lambda: first.status == Status.closed)

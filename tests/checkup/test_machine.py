"""Limits of a machine, a container and a job, from what is seen."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from n2v_scale.checkup import machine
from n2v_scale.checkup.machine import (
    MachineSeen,
    judge_cores,
    judge_files,
    judge_memory,
    judge_workers,
    look_at_machine,
)

GB = 10**9
SEEN = MachineSeen(
    cores=64,
    usable_cores=64,
    workers=8,
    memory=256 * GB,
    usable_memory=256 * GB,
    free_memory=200 * GB,
    open_files=1024,
    most_open_files=None,
)


def test_a_machine_of_ones_own() -> None:
    checks = [judge(SEEN) for judge in (judge_cores, judge_memory, judge_files, judge_workers)]
    assert {check.level for check in checks} == {"ok"}
    assert checks[0].seen == "64"
    assert checks[1].seen == "256.0 GB, 200.0 GB free; 32.0 GB for each of 8 workers"


def test_a_container() -> None:
    small = replace(SEEN, usable_cores=4, workers=4, usable_memory=6 * GB)
    assert judge_cores(small).seen.startswith("4 of 64 (affinity, or the limit")
    check = judge_memory(small)
    assert check.level == "note"
    assert "6.0 GB of 256.0 GB (a limit" in check.seen
    assert "1.5 GB for each of 4 workers" in check.seen
    assert check.remedy.startswith("--workers 3,")


@pytest.mark.parametrize(
    ("soft", "hard", "level", "remedy"),
    [
        (None, None, "ok", ""),
        (256, None, "note", "ulimit -n 4096"),
        (256, 2048, "note", "ulimit -n 2048"),
        (256, 256, "note", "have the limit raised (nofile in limits.conf)"),
    ],
)
def test_open_files(soft: int | None, hard: int | None, level: str, remedy: str) -> None:
    check = judge_files(replace(SEEN, open_files=soft, most_open_files=hard))
    assert (check.level, check.remedy) == (level, remedy)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"no_processes": "[Errno 2] No such file or directory"}, "processes cannot be started"),
        ({"no_loopback": "Network is unreachable"}, "127.0.0.1 cannot be used: Network is"),
    ],
)
def test_workers_that_cannot_start(given: dict[str, Any], words: str) -> None:
    check = judge_workers(replace(SEEN, **given))
    assert check.level == "problem"
    assert words in check.seen


def test_no_shared_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> None:
        raise OSError("no /dev/shm")

    broken = SimpleNamespace(Lock=refuse)
    monkeypatch.setattr(machine.multiprocessing, "get_context", lambda _: broken)
    assert look_at_machine()[3].seen == "processes cannot be started: no /dev/shm"


def test_no_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise OSError("Cannot assign requested address")

    monkeypatch.setattr(machine.socket, "create_server", refuse)
    assert "Cannot assign requested address" in look_at_machine()[3].seen

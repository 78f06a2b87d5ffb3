"""The command that a job runs."""

from __future__ import annotations

import os
import time
from typing import Any

import dask
import pytest

from n2v_scale import worker
from n2v_scale.walltime import ENDS_AT
from n2v_scale.worker_settings import QUIET, worker_settings

Run = list[list[str]]


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> Run:
    """What Dask's command was given; it runs nothing, and no setting stays."""
    calls: Run = []
    monkeypatch.setattr("distributed.cli.dask_worker.main", calls.append)
    monkeypatch.setenv(ENDS_AT, "")  # for it to be as it was, in the end
    monkeypatch.delenv(ENDS_AT)
    return calls


@pytest.fixture
def applied(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    monkeypatch.setattr(dask.config, "set", found.append)
    return found


def test_arguments_go_on_to_dask(ran: Run, applied: list[dict[str, Any]]) -> None:
    given = ["tls://a:1", "--nthreads", "2", "--tls-key", "/s/key.pem"]
    worker.main(given)
    assert ran == [[*given, "--preload", "n2v_scale.worker_setup"]]
    assert ENDS_AT not in os.environ


def test_a_name_becomes_one_of_its_own(ran: Run, applied: list[dict[str, Any]]) -> None:
    given = ["tls://a:1", "--name", "n2v-7", "--nthreads", "2"]
    for _ in range(2):
        worker.main(given)
    assert given[2] == "n2v-7"
    first, second = (arguments[2] for arguments in ran)
    assert first.startswith("n2v-7.")
    assert second.startswith("n2v-7.")
    assert first != second
    assert ran[0][3:5] == ["--nthreads", "2"]


def test_the_walltime_becomes_a_time(ran: Run, applied: list[dict[str, Any]]) -> None:
    before = time.time()
    ends: set[str] = set()
    for _ in range(20):
        worker.main(["tls://a:1", "--walltime", "1000", "--nthreads", "2"])
        ends.add(os.environ.pop(ENDS_AT))
    assert all(before + 950 - 1 <= float(at) <= time.time() + 1000 + 1 for at in ends)
    assert len(ends) > 1  # jobs that began together do not go together
    assert ran[0][:3] == ["tls://a:1", "--nthreads", "2"]


def test_an_end_that_is_known_better_counts(
    ran: Run, applied: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(ENDS_AT, "1700000000")
    worker.main(["tls://a:1", "--walltime", "1000"])
    assert os.environ[ENDS_AT] == "1700000000"
    assert "--walltime" not in ran[0]


def test_a_long_job_goes_minutes_early_at_most(
    ran: Run, applied: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker.random, "uniform", lambda _, most: most)
    before = time.time()
    worker.main(["tls://a:1", "--walltime", "1000000"])
    assert float(os.environ[ENDS_AT]) >= before + 1_000_000 - worker.LONGEST_STAGGER_S - 1


def test_settings_are_those_of_every_worker(ran: Run, applied: list[dict[str, Any]]) -> None:
    worker.main(["tls://a:1"])
    assert applied == [worker_settings()]
    assert QUIET.items() <= applied[0].items()

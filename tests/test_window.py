"""The window of tasks: bounded, and failures are outcomes."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import psutil
import pytest
from dask.utils import key_split
from distributed import Client, Future, get_worker
from distributed.scheduler import KilledWorker

from n2v_scale import window
from n2v_scale.crew import Crew
from n2v_scale.errors import ClusterError, InputError, ModelError
from n2v_scale.local_cluster import client_of, local_client, thread_client
from n2v_scale.watch import watch_over
from n2v_scale.window import _outcome, placed, reason, run_window

WINDOW = 4
"""Twice the client's two threads."""

started: list[int] = []
"""What was begun, in this process, where the client's threads are."""
gate = threading.Event()


def double(item: int) -> int:
    started.append(item)
    return 2 * item


def odd_fails(item: int) -> int:
    started.append(item)
    if item % 2:
        raise InputError(f"block {item} is odd")
    return item


def fails_twice(item: int) -> int:
    started.append(item)
    if item in (3, 7) and started.count(item) < 3:
        raise OSError(f"no {item} yet")
    return item


def fails_from_ten(item: int) -> int:
    started.append(item)
    if item >= 10:
        raise ValueError(f"no {item}")
    return item


def unreadable_to_sixty(item: int) -> int:
    if 0 <= item < 60:
        raise InputError(f"no {item}")
    return item


def most_fail(item: int) -> int:
    if item % 8:
        raise ValueError(f"no {item}")
    return item


def slow_fails(item: int) -> int:
    """The first three fail after the others are done."""
    if item < 3:
        time.sleep(0.3)
        raise ValueError(f"no {item}")
    return item


def fails(item: int) -> int:
    started.append(item)
    raise ValueError(f"no {item}")


def waits(item: int) -> int:
    started.append(item)
    gate.wait(20)
    return item


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    """A cluster of its own: what is left on it was left here."""
    with thread_client(2) as made:
        yield made


@pytest.fixture(autouse=True)
def nothing_started() -> Iterator[None]:
    started.clear()
    gate.clear()
    yield
    gate.set()


def test_every_item_has_one_outcome(client: Client) -> None:
    outcomes = list(run_window(client, double, range(25)))
    assert sorted(o.item for o in outcomes) == list(range(25))
    assert all(o.result == 2 * o.item and o.error is None for o in outcomes)
    assert sorted(started) == list(range(25))


def test_an_error_from_a_node_names_it() -> None:
    error = ModelError("no model at /m")
    assert placed(error, "here", "here") is error
    named = placed(error, "c3", "here")
    assert (type(named), str(named)) == (ModelError, "on node c3: no model at /m")
    assert str(error) == "no model at /m"
    bug = ValueError("odd")
    assert placed(bug, "c3", "here") is bug


def test_a_run_says_on_which_node_nothing_works(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = count()
    monkeypatch.setattr(window, "gethostname", lambda: "c3" if next(asked) else "head")

    def fail(item: int) -> None:
        raise ModelError("no model at /m")

    with pytest.raises(ModelError, match=r"^on node c3: no model at /m$"):
        list(run_window(client, fail, range(5)))


def test_no_items_are_no_outcomes(client: Client) -> None:
    assert list(run_window(client, double, [])) == []


def test_never_more_than_a_window_is_open(client: Client) -> None:
    pulled = received = most = 0

    def items() -> Iterator[int]:
        nonlocal pulled, most
        for item in range(60):
            pulled += 1
            most = max(most, pulled - received)
            yield item

    for _ in run_window(client, double, items()):
        received += 1
    assert (pulled, received) == (60, 60)
    assert WINDOW <= most <= WINDOW + 1  # the one in the caller's hands counts too


def test_a_failure_is_an_outcome(client: Client) -> None:
    outcomes = {o.item: o for o in run_window(client, odd_fails, [0, 2, *range(4, 20)])}
    assert len(outcomes) == 18
    for item, outcome in outcomes.items():
        if item % 2:
            assert isinstance(outcome.error, InputError)
            assert str(outcome.error) == f"block {item} is odd"
            assert outcome.result is None
        else:
            assert (outcome.result, outcome.error) == (item, None)


def test_when_the_first_ones_fail_and_none_succeeds_it_stops(client: Client) -> None:
    with pytest.raises(ClusterError, match=r"every block fails: ValueError: no [0-9]"):
        list(run_window(client, fails, range(1000)))
    assert len(started) <= 2 + 2 * WINDOW


def test_what_fails_once_or_twice_is_tried_again(client: Client) -> None:
    outcomes = {o.item: o for o in run_window(client, fails_twice, range(12))}
    assert set(outcomes) == set(range(12))
    assert all(o.result == o.item for o in outcomes.values())
    assert {i for i, o in outcomes.items() if o.attempts == 3} == {3, 7}
    assert all(o.attempts == 1 for i, o in outcomes.items() if i not in (3, 7))


def test_what_fails_three_times_is_set_aside(client: Client) -> None:
    outcomes = {o.item: o for o in run_window(client, odd_fails, [0, 2, *range(4, 20)])}
    assert {o.attempts for i, o in outcomes.items() if i % 2} == {3}
    assert {o.attempts for i, o in outcomes.items() if i % 2 == 0} == {1}


def test_a_failing_item_waits_for_the_others(client: Client) -> None:
    list(run_window(client, odd_fails, [0, 1, *range(2, 30, 2)]))
    assert started[-2:] == [1, 1]
    assert started.index(28) < len(started) - 2


def test_a_long_row_of_failures_stops(client: Client) -> None:
    window = run_window(client, fails_from_ten, range(10_000))
    with pytest.raises(ClusterError, match=r"every block fails now: ValueError: no [0-9]+"):
        list(window)
    assert max(started) < 10 + 2 * 16 + 2 * WINDOW


def test_a_row_of_damaged_input_goes_on(client: Client) -> None:
    outcomes = list(run_window(client, unreadable_to_sixty, range(-1, 80)))
    assert sum(o.error is not None for o in outcomes) == 60


def test_a_row_of_failures_with_successes_between_does_not(client: Client) -> None:
    outcomes = list(run_window(client, most_fail, range(200)))
    assert len(outcomes) == 200
    assert sum(o.error is None for o in outcomes) == 25


def test_two_failures_are_not_enough_to_stop(client: Client) -> None:
    outcomes = list(run_window(client, fails, range(2)))
    assert sorted(str(o.error) for o in outcomes) == ["no 0", "no 1"]


def test_failures_after_a_success_do_not_stop(client: Client) -> None:
    outcomes = list(run_window(client, slow_fails, [3, 0, 1, 2, 4, 5]))
    assert sorted(o.item for o in outcomes if o.error) == [0, 1, 2]
    assert sorted(o.item for o in outcomes if not o.error) == [3, 4, 5]


def test_who_stops_early_cancels_the_rest(client: Client) -> None:
    gate.set()
    window = run_window(client, waits, range(1000))
    next(window)
    gate.clear()
    window.close()
    gate.set()
    deadline = time.monotonic() + 10
    while client.cluster.scheduler.tasks and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not client.cluster.scheduler.tasks
    time.sleep(0.3)  # a worker may be about to begin what it was given before
    count = len(started)
    time.sleep(0.2)
    assert len(started) == count <= 3 * WINDOW


def test_nothing_stays_on_the_cluster(client: Client) -> None:
    list(run_window(client, double, range(20)))
    deadline = time.monotonic() + 10
    while client.cluster.scheduler.tasks and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not client.cluster.scheduler.tasks


def test_dask_keeps_no_record_of_every_item(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("n2v_scale.window.FORGET_EVERY", 8)
    list(run_window(client, double, range(200)))
    assert key_split.cache_info().currsize < 100
    spans = client.cluster.scheduler.extensions["spans"].spans.values()
    noted = [len(span._metadata["collections"]) for span in spans if span._metadata]
    assert noted  # else Dask keeps it elsewhere now
    assert max(noted) < 100


def test_equal_items_are_computed_each(client: Client) -> None:
    assert len(list(run_window(client, double, [5] * 10))) == 10
    assert started == [5] * 10


def test_a_reason_is_one_line() -> None:
    assert reason(InputError("chunk 3 is torn\nand more")) == "chunk 3 is torn"
    assert reason(ValueError("bad\nworse")) == "ValueError: bad"
    assert reason(KeyError()) == "KeyError: no message"


# -- workers that are lost, or come late ---------------------------------------------------------


class FakeWatch:
    """Excuses the first ``excuses`` losses, and does ``at_check`` whenever it is asked."""

    def __init__(self, excuses: int = 0, at_check: Callable[[int], None] | None = None) -> None:
        self.excuses, self.at_check = excuses, at_check
        self.checks = 0
        self.lost: list[str] = []
        self.who_worked: list[str] = []

    def check(self) -> None:
        self.checks += 1
        if self.at_check is not None:
            self.at_check(self.checks)

    def need(self, tasks: int) -> None:
        pass

    def worked(self, worker: str) -> None:
        self.who_worked.append(worker)

    def excused(self, worker: str) -> bool:
        self.lost.append(worker)
        return len(self.lost) <= self.excuses


@pytest.fixture
def nobody() -> Iterator[Client]:
    """A cluster that has no worker yet."""
    with client_of(n_workers=0, threads_per_worker=2, processes=False, memory_limit=0) as made:
        yield made


def test_a_watch_that_gives_up_ends_the_waiting(nobody: Client) -> None:
    def give_up(checks: int) -> None:
        if checks > 2:
            raise ClusterError("no worker for 1:00:00")

    watch_over(nobody, FakeWatch(at_check=give_up))
    with pytest.raises(ClusterError, match=r"^no worker for 1:00:00$"):
        list(run_window(nobody, double, range(5)))
    assert started == []


def test_workers_that_come_late_are_used(nobody: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("n2v_scale.crew.ASK_EVERY_S", 0.05)
    monkeypatch.setattr("n2v_scale.window.ASK_EVERY_S", 0.05)

    def come(checks: int) -> None:
        if checks in (2, 4, 6):
            nobody.cluster.scale(checks // 2)

    watch = FakeWatch(at_check=come)
    watch_over(nobody, watch)
    gate.set()
    crew = Crew(nobody)
    assert crew.window == 4
    outcomes = list(run_window(nobody, waits_for_three, range(30), crew=crew))
    assert sorted(o.result for o in outcomes) == list(range(30))
    assert set(watch.who_worked) == {"0", "1", "2"}
    assert {o.worker for o in outcomes} == {"0", "1", "2"}
    assert crew.window == 12  # it has grown with them


def waits_for_three(item: int) -> int:
    """Whoever has a task keeps it until all have one: then all three workers are there."""
    names.add(str(get_worker().name))
    deadline = time.monotonic() + 60
    while len(names) < 3 and time.monotonic() < deadline:
        time.sleep(0.01)
    return item


names: set[str] = set()


@pytest.fixture(scope="module")
def one_process() -> Iterator[Client]:
    """A worker that can be killed; its nanny starts another one."""
    with local_client(1, threads=2) as made:
        yield made


def kills(task: tuple[int, str, int]) -> int:
    """Item 0 kills its worker, so often; each time is noted in a file."""
    item, file, often = task
    if item == 0:
        with Path(file).open("a") as log:
            log.write("x")
        if len(Path(file).read_text()) <= often:
            os.kill(os.getpid(), signal.SIGKILL)
    return item


def test_who_kills_workers_is_set_aside_alone(one_process: Client, tmp_path: Path) -> None:
    """It comes first, on the only worker: what is lost beside it is no reason to stop."""
    file = tmp_path / "kills"
    watch = FakeWatch()
    watch_over(one_process, watch)
    items = [(n, str(file), 1000) for n in range(8)]
    outcomes = {o.item[0]: o for o in run_window(one_process, kills, items)}
    assert set(outcomes) == set(range(8))
    assert isinstance(outcomes[0].error, KilledWorker)
    assert outcomes[0].attempts == 3
    assert reason(outcomes[0].error) == "its worker died each time: killed, or out of memory"
    assert all(outcomes[n].result == n and outcomes[n].error is None for n in range(1, 8))
    assert file.read_text() == "xxx"
    assert set(watch.lost) == set(watch.who_worked) == {"0"}


def kills_at_its_second_run(task: tuple[int, str]) -> int:
    """Each run notes its process in a file."""
    item, file = task
    with Path(file).open("a") as log:
        log.write(f"{os.getpid()}\n")
    if len(Path(file).read_text().splitlines()) == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return item


def test_a_result_may_be_lost_after_it_was_computed(
    one_process: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Dask says that the task is done, and computes it again when its worker dies before the result
    was fetched: what becomes of that second time is an outcome like another.
    """
    file = tmp_path / "processes"
    seen: list[Any] = []

    def too_late(client: Client, future: Future, attempt: Any) -> Any:
        if not seen:
            worker = psutil.Process(int(file.read_text()))
            worker.kill()
            worker.wait()
        seen.append(_outcome(client, future, attempt))
        return seen[-1]

    monkeypatch.setattr("n2v_scale.window._outcome", too_late)
    (outcome,) = run_window(one_process, kills_at_its_second_run, [(7, str(file))])
    assert isinstance(seen[0].error, KilledWorker)
    assert (outcome.result, outcome.error, outcome.attempts) == (7, None, 2)
    assert len(file.read_text().splitlines()) == 3


def test_losses_with_an_excuse_do_not_count(one_process: Client, tmp_path: Path) -> None:
    file = tmp_path / "kills"
    watch_over(one_process, FakeWatch(excuses=100))
    items = [(n, str(file), 3) for n in range(2)]
    outcomes = {o.item[0]: o for o in run_window(one_process, kills, items)}
    assert {o.result for o in outcomes.values()} == {0, 1}
    assert file.read_text() == "xxxx"
    assert {o.attempts for o in outcomes.values()} == {1}


def test_there_is_an_end_to_excuses(
    one_process: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("n2v_scale.window.MOST_EXCUSES", 1)
    watch_over(one_process, FakeWatch(excuses=1000))
    file = tmp_path / "kills"
    (outcome,) = run_window(one_process, kills, [(0, str(file), 1000)])
    assert isinstance(outcome.error, KilledWorker)
    assert file.read_text() == "xxxx"


def test_what_failed_before_is_tried_again_and_set_aside(client: Client) -> None:
    """A run that goes on with nothing but damaged blocks is incomplete, and no failure."""
    outcomes = list(run_window(client, fails, range(6), proven=True))
    assert sorted(outcome.item for outcome in outcomes) == list(range(6))
    assert all(isinstance(outcome.error, ValueError) for outcome in outcomes)

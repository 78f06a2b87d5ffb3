"""The window of tasks: bounded, and failures are outcomes."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest
from dask.utils import key_split
from distributed import Client

from n2v_scale.cluster import thread_client
from n2v_scale.errors import ClusterError, InputError
from n2v_scale.window import reason, run_window

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

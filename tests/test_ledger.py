"""Markers, segments and the record: what counts as done, and what does not."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from n2v_scale.errors import OutputError
from n2v_scale.io.writer import get_attributes, keys_under, put
from n2v_scale.ledger import SEGMENT, Ledger, Marker

MANY = 2 * SEGMENT + 100


@pytest.fixture(params=["0.4", "0.5"])
def ledger(tmp_path: Path, request: pytest.FixtureRequest) -> Ledger:
    return Ledger(str(tmp_path / "out.zarr"), request.param)


def marker(number: int) -> Marker:
    return Marker(number, number * 7 % 2**32, number + 1, number * 11 % 2**32)


def markers_of(ledger: Ledger, path: str = "0", blocks: int = MANY) -> list[Marker]:
    return list(ledger.markers(path, blocks))


def test_there_is_no_record_before_it_begins(ledger: Ledger) -> None:
    assert ledger.record() is None
    assert not ledger.done("0", MANY).any()
    assert markers_of(ledger) == []
    assert ledger.fold_loose("0") == 0


def test_the_record_is_what_was_begun(ledger: Ledger) -> None:
    ledger.begin({"plan": {"tile": [1, 2, 3]}, "key": "abc"})
    assert ledger.record() == {"plan": {"tile": [1, 2, 3]}, "key": "abc", "complete": False}
    ledger.update(complete=True, processors=["a"])
    assert ledger.record() == {
        "plan": {"tile": [1, 2, 3]},
        "key": "abc",
        "complete": True,
        "processors": ["a"],
    }


def test_a_change_without_a_beginning_is_an_error(ledger: Ledger) -> None:
    with pytest.raises(OutputError, match="lost its record"):
        ledger.update(complete=True)


def test_what_a_worker_marks_counts_once_it_is_folded(ledger: Ledger) -> None:
    for number in (3, MANY - 1):
        ledger.mark("0", marker(number))
    ledger.mark("1", marker(4))
    assert markers_of(ledger) == []
    assert ledger.fold_loose("0") == 2
    assert markers_of(ledger) == [marker(3), marker(MANY - 1)]
    assert markers_of(ledger, "1") == []
    assert keys_under(ledger.store, "0/n2v_scale.ledger/blocks") == []
    assert len(keys_under(ledger.store, "1/n2v_scale.ledger/blocks")) == 1


def test_loose_markers_can_be_counted_in(ledger: Ledger) -> None:
    ledger.fold("0", [marker(3), marker(5)])
    for number in (5, 4, MANY - 1):  # of 5 the segment is written, and the marker not yet deleted
        ledger.mark("0", marker(number))
    assert ledger.done("0", MANY).nonzero()[0].tolist() == [3, 5]
    assert ledger.done("0", MANY, loose=True).nonzero()[0].tolist() == [3, 4, 5, MANY - 1]
    found = list(ledger.markers("0", MANY, loose=True))
    assert found == [marker(number) for number in (3, 5, 4, MANY - 1)]


@given(numbers=st.lists(st.integers(0, MANY - 1), max_size=20), cut=st.integers(0, 20))
def test_folding_in_parts_is_folding_at_once(tmp_path_factory, numbers, cut) -> None:
    ledger = Ledger(str(tmp_path_factory.mktemp("l")), "0.5")
    for part in (numbers[:cut], numbers[cut:]):
        ledger.fold("0", [marker(number) for number in part])
    assert markers_of(ledger) == [marker(number) for number in sorted(set(numbers))]
    done = ledger.done("0", MANY)
    assert done.shape == (MANY,)
    assert done.nonzero()[0].tolist() == sorted(set(numbers))


def test_the_driver_folds_what_it_heard_of_and_the_key_goes(ledger: Ledger) -> None:
    ledger.mark("0", marker(5))
    ledger.fold("0", [marker(5), marker(6)])  # of 6 no marker is there: never mind
    assert markers_of(ledger) == [marker(5), marker(6)]
    assert keys_under(ledger.store, "0/n2v_scale.ledger/blocks") == []


def test_a_kill_between_segment_and_marker_leaves_it_twice_and_that_does_no_harm(
    ledger: Ledger,
) -> None:
    ledger.fold("0", [marker(5)])
    ledger.mark("0", marker(5))
    assert ledger.fold_loose("0") == 1
    assert markers_of(ledger) == [marker(5)]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b'{"number": 7',
        b'{"number": 7}',
        b'{"checksum": 1}',
        b"[7, 1]",
        b"null",
        b'{"number": 7, "checksum": 1, "size": 1, "more": 2}',
        b"\xff\xfe",
        b'{"number": 8, "checksum": 1, "size": 3}',  # another block's, under this one's name
    ],
)
def test_a_torn_marker_does_not_count(ledger: Ledger, content: bytes) -> None:
    ledger.mark("0", marker(7))
    ledger.mark("0", marker(9))
    (key,) = (key for key in keys_under(ledger.store, "0/n2v_scale.ledger") if "7" in key)
    put(ledger.store, key, content)
    assert ledger.fold_loose("0") == 1
    assert markers_of(ledger) == [marker(9)]


@pytest.mark.parametrize("cut", [0, 1, 20, -1])
def test_a_torn_segment_says_that_nothing_is_done(ledger: Ledger, cut: int) -> None:
    ledger.fold("0", [marker(1), marker(SEGMENT)])
    first, _ = keys_under(ledger.store, "0/n2v_scale.ledger/segments")
    file = Path(ledger.store, first)
    file.write_bytes(file.read_bytes()[:cut])
    assert markers_of(ledger) == [marker(SEGMENT)]
    ledger.fold("0", [marker(2)])
    assert markers_of(ledger) == [marker(2), marker(SEGMENT)]


def test_the_rest_of_a_dead_writer_does_not_count(ledger: Ledger) -> None:
    ledger.mark("0", marker(7))
    (key,) = keys_under(ledger.store, "0/n2v_scale.ledger")
    file = Path(ledger.store, key)
    file.rename(file.with_name(file.name + ".0123.partial"))
    ledger.fold_loose("0")
    assert markers_of(ledger) == []


def test_blocks_can_be_forgotten(ledger: Ledger) -> None:
    ledger.fold("0", [marker(number) for number in (1, 2, SEGMENT, SEGMENT + 1)])
    ledger.mark("0", marker(50))
    ledger.unmark("0", [2, SEGMENT, 50, 51])
    ledger.fold_loose("0")
    assert markers_of(ledger) == [marker(1), marker(SEGMENT + 1)]
    ledger.unmark("0")
    assert markers_of(ledger) == []
    assert keys_under(ledger.store, "0/n2v_scale.ledger") == []


def test_many_blocks_are_few_keys(ledger: Ledger) -> None:
    for number in range(0, MANY, 3):
        ledger.fold("0", [marker(number)]) if number % 999 == 0 else None
    ledger.fold("0", [marker(number) for number in range(MANY)])
    assert len(keys_under(ledger.store, "0/n2v_scale.ledger")) == 3
    assert ledger.done("0", MANY).all()


def test_what_lies_beside_the_record_is_no_image(ledger: Ledger) -> None:
    ledger.begin({"plan": {}})
    assert get_attributes(ledger.store, "") == {}

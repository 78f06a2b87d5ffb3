"""Markers and the record: what counts as done, and what does not."""

from __future__ import annotations

from pathlib import Path

import pytest

from n2v_scale.errors import OutputError
from n2v_scale.io.writer import get_attributes, keys_under, put
from n2v_scale.ledger import Ledger, Marker


@pytest.fixture(params=["0.4", "0.5"])
def ledger(tmp_path: Path, request: pytest.FixtureRequest) -> Ledger:
    return Ledger(str(tmp_path / "out.zarr"), request.param)


def test_there_is_no_record_before_it_begins(ledger: Ledger) -> None:
    assert ledger.record() is None
    assert ledger.done("0") == {}


def test_the_record_is_what_was_begun(ledger: Ledger) -> None:
    ledger.begin({"plan": {"tile": [1, 2, 3]}, "key": "abc"})
    assert ledger.record() == {"plan": {"tile": [1, 2, 3]}, "key": "abc", "complete": False}


def test_marks_are_of_one_array(ledger: Ledger) -> None:
    ledger.begin({})
    ledger.mark("0", Marker(3, 77))
    ledger.mark("0", Marker(123_456_789, 5))
    ledger.mark("1", Marker(4, 6))
    assert ledger.done("0") == {3: Marker(3, 77), 123_456_789: Marker(123_456_789, 5)}
    assert ledger.done("1") == {4: Marker(4, 6)}
    assert ledger.done("10") == {}


def test_a_mark_may_be_made_twice(ledger: Ledger) -> None:
    for _ in range(2):
        ledger.mark("0", Marker(0, 1))
    assert ledger.done("0") == {0: Marker(0, 1)}


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
        b'{"number": 7, "checksum": 1, "more": 2}',
        b"\xff\xfe",
        b'{"number": 8, "checksum": 1}',  # another block's, under this one's name
    ],
)
def test_a_torn_marker_does_not_count(ledger: Ledger, content: bytes) -> None:
    ledger.mark("0", Marker(7, 1))
    ledger.mark("0", Marker(9, 2))
    (key,) = (key for key in keys_under(ledger.store, "n2v_scale/ledger/0") if "7" in key)
    put(ledger.store, key, content)
    assert ledger.done("0") == {9: Marker(9, 2)}


def test_the_rest_of_a_dead_writer_does_not_count(ledger: Ledger) -> None:
    ledger.mark("0", Marker(7, 1))
    (key,) = keys_under(ledger.store, "n2v_scale/ledger/0")
    file = Path(ledger.store, key)
    file.rename(file.with_name(file.name + ".0123.partial"))
    assert ledger.done("0") == {}


def test_the_end_keeps_checksums_in_the_order_of_blocks(ledger: Ledger) -> None:
    ledger.begin({"plan": {}, "key": "abc"})
    for number in (10, 9, 2):
        ledger.mark("0", Marker(number, number * 100))
    ledger.mark("1", Marker(0, 5))
    ledger.finish(["0", "1"])
    assert ledger.record() == {
        "plan": {},
        "key": "abc",
        "complete": True,
        "checksums": {"0": [200, 900, 1000], "1": [5]},
    }
    assert keys_under(ledger.store, "n2v_scale/ledger") == []


def test_an_end_without_a_beginning_is_an_error(ledger: Ledger) -> None:
    ledger.mark("0", Marker(0, 5))
    with pytest.raises(OutputError, match="lost its record"):
        ledger.finish(["0"])


def test_what_lies_beside_the_record_is_no_image(ledger: Ledger) -> None:
    ledger.begin({"plan": {}})
    assert get_attributes(ledger.store, "") == {}

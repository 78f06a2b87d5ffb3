"""The log of events: JSON lines with documented fields, appended, whatever happens to a run."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import fields
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from distributed import Client

from n2v_scale.config import PredictSettings
from n2v_scale.errors import IncompleteError, OutputError
from n2v_scale.events import (
    BlockDone,
    BlockFailed,
    Event,
    Events,
    WorkersChanged,
    events_to,
)
from n2v_scale.execution import run_plan
from n2v_scale.io.volume import Volume
from n2v_scale.lock import driver_lock
from n2v_scale.memory import Budget
from n2v_scale.prediction import make_copy_plan

FIELDS = {
    "RunStarted": {"output", "key", "blocks", "missing"},
    "BlockDone": {"level", "number", "voxels", "skipped", "attempts", "read_s", "wait_s"}
    | {"compute_s", "write_s", "worker"},
    "BlockFailed": {"level", "number", "attempts", "reason"},
    "WorkersChanged": {"workers"},
    "RunEnded": {"outcome", "seconds", "computed", "failed", "message"},
}
DONE = BlockDone("0", 7, 4096, 64, 2, 0.1, 0.2, 0.3, 0.4, "host:1")


def lines_of(path: Path) -> list[dict[str, Any]]:
    """Every line of a log; each must be whole."""
    text = path.read_text()
    assert text.endswith("\n")
    return [json.loads(line) for line in text.splitlines()]


def test_fields_are_those_that_are_documented() -> None:
    """Other people's programs read them: a field that goes or changes its name breaks these."""
    assert {kind.__name__: {f.name for f in fields(kind)} for kind in get_args(Event)} == FIELDS


def test_an_event_is_one_line_with_its_name_and_the_time(tmp_path: Path) -> None:
    before = time.time()
    with events_to(tmp_path / "e.jsonl") as events:
        events.write(DONE)
        events.write(BlockFailed("1", 3, 3, 'a "quoted"\nreason – übel'))
    done, failed = lines_of(tmp_path / "e.jsonl")
    assert done.pop("event") == "BlockDone"
    assert math.floor(before) <= done.pop("time") <= time.time() + 1
    assert BlockDone(**done) == DONE
    assert failed["reason"] == 'a "quoted"\nreason – übel'
    assert (failed["level"], failed["number"], failed["attempts"]) == ("1", 3, 3)


def test_a_second_run_appends(tmp_path: Path) -> None:
    for workers in (1, 2):
        with events_to(tmp_path / "e.jsonl") as events:
            events.write(WorkersChanged(workers))
    assert [line["workers"] for line in lines_of(tmp_path / "e.jsonl")] == [1, 2]


def test_a_line_that_a_killed_run_left_torn_spoils_no_other(tmp_path: Path) -> None:
    path = tmp_path / "e.jsonl"
    path.write_text('{"event": "WorkersChanged", "wor')
    with events_to(path) as events:
        events.write(WorkersChanged(5))
    torn, whole = path.read_text().splitlines()
    assert torn == '{"event": "WorkersChanged", "wor'
    assert json.loads(whole)["workers"] == 5


def test_an_event_is_in_the_file_at_once(tmp_path: Path) -> None:
    """Somebody may follow it, and a killed run has told all that it did."""
    with events_to(tmp_path / "e.jsonl") as events:
        events.write(WorkersChanged(1))
        assert len(lines_of(tmp_path / "e.jsonl")) == 1


def test_without_a_file_events_are_forgotten() -> None:
    with events_to(None) as events:
        events.write(DONE)
    Events().write(DONE)


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with (
        pytest.raises(OutputError, match=r"--events.*none/e.jsonl"),
        events_to(tmp_path / "none" / "e.jsonl"),
    ):
        pass


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux has such a device")
def test_a_disk_that_is_full_is_named() -> None:
    with (
        pytest.raises(OutputError, match=r"--events: /dev/full.*No space left"),
        events_to("/dev/full") as events,
    ):
        events.write(DONE)


# What a run tells

SHAPE = (8, 16, 48)
SETTINGS = PredictSettings(block=(8, 16, 16), chunk=(8, 8, 8))
Run = Callable[..., list[dict[str, Any]]]


@pytest.fixture
def volume(tmp_path: Path, write_volume: Callable[..., Volume]) -> Volume:
    values = np.random.default_rng(0).normal(100, 10, SHAPE).astype(np.uint16)
    return write_volume(tmp_path / "v.zarr", values, chunk=(8, 16, 16))


@pytest.fixture
def run(tmp_path: Path, volume: Volume, client: Client) -> Run:
    """Copy the volume, and read what was told meanwhile; some errors are expected."""

    def call(error: type[BaseException] | None = None, **options: Any) -> list[dict[str, Any]]:
        plan = make_copy_plan(volume, tmp_path / "o.zarr", SETTINGS)
        expected = pytest.raises(error) if error else nullcontext()
        with expected, events_to(tmp_path / "e.jsonl") as events:
            run_plan(plan, SETTINGS, Budget(), client=client, events=events, **options)
        return lines_of(tmp_path / "e.jsonl")

    return call


def of_kind(lines: list[dict[str, Any]], name: str) -> list[dict[str, Any]]:
    return [line for line in lines if line["event"] == name]


def test_a_run_tells_all_that_it_does(run: Run, tmp_path: Path) -> None:
    lines = run()
    for line in lines:
        assert set(line) == FIELDS[line["event"]] | {"event", "time"}
    assert lines[0]["event"] == "RunStarted"
    assert (lines[0]["output"], lines[0]["blocks"], lines[0]["missing"]) == (
        str(tmp_path / "o.zarr"),
        3,
        3,
    )
    full = [line for line in of_kind(lines, "BlockDone") if line["level"] == "0"]
    assert sorted(line["number"] for line in full) == [0, 1, 2]
    assert sum(line["voxels"] for line in full) == np.prod(SHAPE)
    assert {line["attempts"] for line in full} == {1}
    assert {line["level"] for line in of_kind(lines, "BlockDone")} >= {"0", "1"}
    assert {line["workers"] for line in of_kind(lines, "WorkersChanged")} == {1}
    assert lines[-1]["event"] == "RunEnded"
    assert (lines[-1]["outcome"], lines[-1]["computed"], lines[-1]["failed"]) == ("finished", 3, 0)
    times = [line["time"] for line in lines]
    assert times == sorted(times)


def test_a_run_of_some_blocks_says_how_many(run: Run) -> None:
    lines = run(only=[1])
    assert (lines[0]["blocks"], lines[0]["missing"]) == (3, 1)
    assert [line["number"] for line in of_kind(lines, "BlockDone")] == [1]
    assert lines[-1]["outcome"] == "finished"


def test_a_run_with_blocks_that_fail_ends_incomplete(run: Run, volume: Volume) -> None:
    chunk = Path(volume.address, "0", "c", "0", "0", "1")
    chunk.write_bytes(bytes(chunk.stat().st_size))
    lines = run(IncompleteError)
    (failed,) = of_kind(lines, "BlockFailed")
    assert (failed["level"], failed["number"], failed["attempts"]) == ("0", 1, 3)
    assert "cannot read box" in failed["reason"]
    ended = lines[-1]
    assert (ended["event"], ended["outcome"]) == ("RunEnded", "incomplete")
    assert (ended["computed"], ended["failed"]) == (2, 1)
    assert "block 1" in ended["message"]


def test_a_run_that_goes_on_says_what_was_missing(run: Run) -> None:
    run(only=[1])
    lines = run()
    started = of_kind(lines, "RunStarted")
    assert [(line["blocks"], line["missing"]) for line in started] == [(3, 1), (3, 2)]
    full = [line["number"] for line in of_kind(lines, "BlockDone") if line["level"] == "0"]
    assert full[0] == 1
    assert sorted(full[1:]) == [0, 2]


def test_a_finished_output_is_told_too(run: Run) -> None:
    before = len(run())
    (ended,) = run()[before:]
    assert (ended["event"], ended["outcome"], ended["computed"]) == ("RunEnded", "finished", 0)


def test_a_refused_run_tells_why(run: Run, tmp_path: Path) -> None:
    with driver_lock(str(tmp_path / "o.zarr")):
        (ended,) = run(OutputError)
    assert (ended["event"], ended["outcome"]) == ("RunEnded", "failed")
    assert "one run at a time" in ended["message"]


def test_workers_are_told_once_not_at_every_level(run: Run) -> None:
    lines = run()
    assert {line["level"] for line in of_kind(lines, "BlockDone")} >= {"0", "1"}
    assert len(of_kind(lines, "WorkersChanged")) == 1


@pytest.mark.parametrize(
    ("error", "outcome", "message"),
    [
        (KeyboardInterrupt(), "interrupted", ""),
        (OutputError("the disk is full"), "failed", "the disk is full"),
        (ZeroDivisionError("oh"), "failed", "oh"),
    ],
)
def test_a_run_that_stops_tells_why(
    run: Run,
    monkeypatch: pytest.MonkeyPatch,
    error: BaseException,
    outcome: str,
    message: str,
) -> None:
    def stop(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr("n2v_scale.execution.run_level", stop)
    first, last = run(type(error))
    assert first["event"] == "RunStarted"
    assert (last["event"], last["outcome"], last["message"]) == ("RunEnded", outcome, message)

"""The driver's side of a level: totals, events, progress, and what is folded into the ledger."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from distributed import Client

from n2v_scale import levels
from n2v_scale.blocks import BlockReport
from n2v_scale.errors import InputError, OutputError
from n2v_scale.events import Events, events_to
from n2v_scale.grids import Block, BlockGrid
from n2v_scale.io.writer import ArraySpec
from n2v_scale.ledger import Ledger, Marker
from n2v_scale.levels import MOST_REASONS, Driver, LevelTotals, Totals, run_level
from n2v_scale.recovery import Level
from n2v_scale.window import Crew

GRID = BlockGrid(1, 2, (4, 8, 10), (4, 4, 4))  # 12 blocks; every third is 2 voxels wide
ALL = np.ones(len(GRID), bool)


def marker_of(number: int) -> Marker:
    return Marker(number, 1000 + number, 10 * number, 2000 + number)


def report(block: Block) -> BlockReport:
    """What a worker says of a block, with times that tell which was which."""
    return BlockReport(
        marker=marker_of(block.number),
        voxels=block.write.size,
        skipped=block.number,
        read_s=1.0,
        wait_s=2.0,
        compute_s=3.0,
        write_s=block.number / 3,
        worker="host:1",
        processor="a processor" if block.number % 2 else "another",
    )


def some_fail(block: Block) -> BlockReport:
    if block.number in (4, 7):
        raise InputError(f"block {block.number} cannot be read")
    return report(block)


class Bars:
    """Progress that keeps what it is shown."""

    def __init__(self) -> None:
        self.steps: list[tuple[str, float, str]] = []
        self.done: list[tuple[float, str]] = []

    @contextmanager
    def step(self, name: str, total: float, unit: str) -> Iterator[Any]:
        self.steps.append((name, total, unit))
        yield SimpleNamespace(advance=lambda amount, note="": self.done.append((amount, note)))

    def say(self, text: str) -> None: ...


class Beat:
    """A lock that is lost after so many checks."""

    def __init__(self, checks: int = 10**6) -> None:
        self.checks = checks

    @property
    def held(self) -> bool:
        return self.checks > 0

    def check(self) -> None:
        self.checks -= 1
        if not self.held:
            raise OutputError("this run lost the lock")


@pytest.fixture
def level(tmp_path: Path) -> Level:
    shape, block = (2, *GRID.shape), (1, *GRID.block)
    store = str(tmp_path / "o.zarr")
    spec = ArraySpec(store, "2", tuple("czyx"), shape, block, block, "uint16", "none", 0, "0.5")
    return Level(spec, GRID)


@pytest.fixture
def driver(level: Level, client: Client) -> Callable[..., Driver]:
    def make(events: Events | None = None, **parts: Any) -> Driver:
        ledger = Ledger(level.spec.store, "0.5")
        ledger.begin({"plan": {}})
        made = {"lock": Beat(), "progress": Bars(), "ledger": ledger, **parts}
        return Driver(Crew(client), events=events or Events(), **made)

    return make


def done(driver: Driver) -> list[int]:
    return np.flatnonzero(driver.ledger.done("2", len(GRID))).tolist()


def test_every_wanted_block_is_run_and_marked(level: Level, driver: Callable[..., Driver]) -> None:
    crew, totals = driver(), LevelTotals()
    wanted = ALL.copy()
    wanted[[2, 5]] = False
    run_level(crew, report, level, wanted, totals, name="denoising")
    numbers = np.flatnonzero(wanted).tolist()
    assert done(crew) == numbers
    assert list(crew.ledger.markers("2", len(GRID))) == [marker_of(n) for n in numbers]
    voxels = sum(GRID.at(n).write.size for n in numbers)
    assert (totals.computed, totals.voxels, totals.skipped) == (10, voxels, sum(numbers))
    assert (totals.read_s, totals.wait_s, totals.compute_s) == (10, 20, 30)
    assert totals.write_s == pytest.approx(sum(numbers) / 3)
    assert totals.processors == {"a processor", "another"}
    assert (totals.failures, totals.failed) == (0, {})


@pytest.mark.parametrize("wanted", [ALL, np.arange(12) % 3 == 2])
def test_progress_is_in_voxels_and_ends_full(
    level: Level, driver: Callable[..., Driver], wanted: np.ndarray
) -> None:
    crew = driver()
    run_level(crew, report, level, wanted, LevelTotals(), name="denoising")
    voxels = sum(GRID.at(int(n)).write.size for n in np.flatnonzero(wanted))
    assert crew.progress.steps == [("denoising", voxels, "voxel")]
    assert sum(amount for amount, _ in crew.progress.done) == voxels
    assert crew.progress.done[-1][1] == f"{wanted.sum()} blocks, 1 worker"


def test_where_nothing_is_wanted_nothing_is_shown(
    level: Level, driver: Callable[..., Driver]
) -> None:
    crew, totals = driver(), LevelTotals()
    run_level(crew, report, level, ~ALL, totals, name="denoising")
    assert crew.progress.steps == []
    assert totals == LevelTotals()


def test_a_block_that_fails_is_named_and_not_marked(
    tmp_path: Path, level: Level, driver: Callable[..., Driver]
) -> None:
    totals = LevelTotals()
    with events_to(tmp_path / "e.jsonl") as events:
        crew = driver(events)
        run_level(crew, some_fail, level, ALL, totals, name="denoising")
    assert done(crew) == [n for n in range(12) if n not in (4, 7)]
    assert totals.failures == 2
    assert totals.failed == {n: f"block {n} cannot be read" for n in (4, 7)}
    assert crew.progress.done[-1][1] == "10 blocks, 1 worker, 2 failed"
    assert sum(amount for amount, _ in crew.progress.done) == GRID.voxels
    lines = [json.loads(line) for line in (tmp_path / "e.jsonl").read_text().splitlines()]
    failed = [line for line in lines if line["event"] == "BlockFailed"]
    assert {(e["level"], e["number"], e["attempts"]) for e in failed} == {("2", 4, 3), ("2", 7, 3)}
    (third,) = [e for e in lines if e["event"] == "BlockDone" and e["number"] == 3]
    assert third == {
        "event": "BlockDone",
        "time": third["time"],
        "level": "2",
        "number": 3,
        "voxels": 64,
        "skipped": 3,
        "attempts": 1,
        "read_s": 1.0,
        "wait_s": 2.0,
        "compute_s": 3.0,
        "write_s": 1.0,
        "worker": "host:1",
    }


def test_the_ledger_says_which_processors_there_were(
    level: Level, driver: Callable[..., Driver]
) -> None:
    crew = driver()
    run_level(crew, report, level, ALL, LevelTotals(), name="denoising")
    record = crew.ledger.record()
    assert record is not None
    assert sorted(record["processors"]) == ["a processor", "another"]


class Counting(Ledger):
    """A ledger that says how much was folded at a time."""

    def fold(self, path: str, markers: Any) -> None:
        FOLDED.append(len(markers))
        super().fold(path, markers)


FOLDED: list[int] = []


def test_markers_are_folded_now_and_then(
    level: Level, driver: Callable[..., Driver], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(levels, "FOLD_EVERY", 5)
    FOLDED.clear()
    ledger = Counting(level.spec.store, "0.5")
    ledger.begin({"plan": {}})
    crew = driver(ledger=ledger)
    run_level(crew, report, level, ALL, LevelTotals(), name="denoising")
    assert FOLDED == [5, 5, 2]
    assert done(crew) == list(range(12))


def test_what_is_done_is_folded_when_a_run_is_interrupted(
    level: Level, driver: Callable[..., Driver], monkeypatch: pytest.MonkeyPatch
) -> None:
    crew, totals = driver(), LevelTotals()
    take = levels._LevelLog.take

    def stop_after_three(log: Any, *arguments: Any) -> None:
        take(log, *arguments)
        if totals.computed == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(levels._LevelLog, "take", stop_after_three)
    with pytest.raises(KeyboardInterrupt):
        run_level(crew, report, level, ALL, totals, name="denoising")
    assert len(done(crew)) == 3


def test_a_run_without_its_lock_writes_no_segments(
    level: Level, driver: Callable[..., Driver]
) -> None:
    """They are another run's by now; what is done is marked beside them."""
    crew, totals = driver(lock=Beat(checks=4)), LevelTotals()
    with pytest.raises(OutputError, match="lost the lock"):
        run_level(crew, report, level, ALL, totals, name="denoising")
    assert totals.computed == 3
    assert done(crew) == []


def test_of_many_failures_the_reasons_of_the_first_are_kept() -> None:
    totals = LevelTotals()
    for number in range(MOST_REASONS + 5):
        totals.fail(number, f"reason {number}")
    assert totals.failures == MOST_REASONS + 5
    assert list(totals.failed) == list(range(MOST_REASONS))


def test_lower_levels_are_counted_apart() -> None:
    totals = Totals()
    totals.lower.add(report(GRID.at(3)))
    totals.lower.fail(1, "why")
    assert (totals.computed, totals.failures) == (0, 0)
    assert (totals.lower.computed, totals.lower.failures) == (1, 1)
    assert Totals().lower.computed == 0

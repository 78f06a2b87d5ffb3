"""Running the blocks of one level: the driver's side of it, for predictions and pyramids alike."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from n2v_scale.blocks import BlockReport, writing
from n2v_scale.crew import Crew
from n2v_scale.errors import OutputError
from n2v_scale.events import BlockDone, BlockFailed, Events, WorkersChanged
from n2v_scale.grids import Block, BlockGrid
from n2v_scale.journal import Journal
from n2v_scale.ledger import Ledger, Marker
from n2v_scale.lock import Lock
from n2v_scale.progress import Progress, Step, amount_text
from n2v_scale.recovery import Level
from n2v_scale.window import Outcome, reason, run_window

FOLD_EVERY = 512
"""Finished blocks between two writings of segments."""
MOST_REASONS = 1000
"""Failures of which the reason is kept."""


@dataclass
class LevelTotals:
    """What the blocks of a level came to; seconds are added up over the workers."""

    computed: int = 0
    voxels: int = 0
    skipped: int = 0
    read_s: float = 0.0
    wait_s: float = 0.0
    compute_s: float = 0.0
    write_s: float = 0.0
    processors: set[str] = field(default_factory=set)
    failures: int = 0
    failed: dict[int, str] = field(default_factory=dict)
    """Number and reason of blocks that were set aside, the first thousand."""

    def add(self, report: BlockReport) -> None:
        """One more block is done."""
        self.computed += 1
        self.voxels += report.voxels
        self.skipped += report.skipped
        self.read_s += report.read_s
        self.wait_s += report.wait_s
        self.compute_s += report.compute_s
        self.write_s += report.write_s
        self.processors.add(report.processor)

    def fail(self, number: int, why: str) -> None:
        """One more block is set aside."""
        self.failures += 1
        if len(self.failed) < MOST_REASONS:
            self.failed[number] = why


@dataclass
class Totals(LevelTotals):
    """Of a run: of its full resolution, and of the levels below it."""

    lower: LevelTotals = field(default_factory=LevelTotals)


@dataclass(frozen=True)
class Driver:
    """What every level of a run is driven with."""

    crew: Crew
    ledger: Ledger
    lock: Lock
    progress: Progress
    events: Events


def run_level(
    driver: Driver,
    task: Callable[[Block], BlockReport],
    level: Level,
    wanted: npt.NDArray[np.bool_],
    totals: LevelTotals,
    *,
    name: str,
) -> None:
    """Run ``task`` for the blocks of ``level`` that are ``wanted``; memory does not grow.

    Finished blocks are folded into the ledger's segments now and then, and at the end whatever
    happens.
    """
    numbers = np.flatnonzero(wanted)
    if not len(numbers):
        return
    blocks: Iterator[Block] = (level.grid.at(int(number)) for number in numbers)
    log = _LevelLog(driver, level.spec.path, totals, len(numbers))
    try:
        with driver.progress.step(name, _voxels(level.grid, wanted), "voxel") as bar:
            log.tell_what_is_left()
            crew, proven = driver.crew, driver.ledger.done(level.spec.path, len(level.grid)).any()
            tried = run_window(crew.client, task, blocks, crew=crew, proven=bool(proven))
            for outcome in tried:
                driver.lock.check()
                log.take(outcome, bar)
    except BaseException:
        if driver.lock.held:  # else the segments are another's to write
            with suppress(OutputError):  # the markers are there, and why it ends is told
                log.fold()
        raise
    driver.lock.check()
    log.fold()


def _voxels(grid: BlockGrid, wanted: npt.NDArray[np.bool_]) -> int:
    if wanted.all():
        return grid.voxels
    return sum(grid.at(int(number)).write.size for number in np.flatnonzero(wanted))


class _LevelLog:
    """Outcomes become totals, events, progress, and entries of the ledger."""

    def __init__(self, driver: Driver, path: str, totals: LevelTotals, blocks: int) -> None:
        self.driver, self.path, self.totals = driver, path, totals
        self.left = blocks
        self.pending: list[Marker] = []
        self.taken: dict[int, float] = {}
        self.finished = 0

    def take(self, outcome: Outcome[Block], bar: Step) -> None:
        """One block is done, or set aside."""
        block, events = outcome.item, self.driver.events
        if outcome.error is None:
            report: BlockReport = outcome.result
            if report.processor not in self.totals.processors:
                with writing(self.driver.ledger.store, "the record"):
                    self.driver.ledger.add_processor(report.processor)
            self.totals.add(report)
            self.finished += 1
            self.pending.append(report.marker)
            self.taken[report.number] = report.read_s + report.compute_s + report.write_s
            events.write(_done(self.path, report, outcome.attempts))
        else:
            why = reason(outcome.error)
            self.totals.fail(block.number, why)
            events.write(BlockFailed(self.path, block.number, outcome.attempts, why))
        self.left -= 1
        self.tell_what_is_left()
        bar.advance(block.write.size, self._note())
        if len(self.pending) >= FOLD_EVERY:
            self.fold()

    def fold(self) -> None:
        """Write what is pending into the segments."""
        markers, self.pending = self.pending, []
        with writing(self.driver.ledger.store, "the ledger"):
            self.driver.ledger.fold(self.path, markers)
            Journal(self.driver.ledger.store, self.path).add_seconds(self.taken)
        self.taken = {}

    def tell_what_is_left(self) -> None:
        """Whoever looks after the workers lets those go that have nothing to do any more."""
        self.driver.crew.watch.need(self.left)

    def _note(self) -> str:
        crew = self.driver.crew
        workers = crew.workers
        if workers != crew.announced:
            crew.announced = workers
            self.driver.events.write(WorkersChanged(workers))
        failed = f", {self.totals.failures} failed" if self.totals.failures else ""
        done = amount_text(self.finished, "block")
        return f"{done}, {amount_text(workers, 'worker')}{failed}"


def _done(path: str, report: BlockReport, attempts: int) -> BlockDone:
    return BlockDone(
        level=path,
        number=report.number,
        voxels=report.voxels,
        skipped=report.skipped,
        attempts=attempts,
        read_s=round(report.read_s, 6),
        wait_s=round(report.wait_s, 6),
        compute_s=round(report.compute_s, 6),
        write_s=round(report.write_s, 6),
        worker=report.worker,
    )
